/* sampling.c: options that say how tokens are drawn.
 * In:  the options as the user typed them; what was not said is UNSAID.
 * Out: the options of quip.h, where 0 means "not said" and other values mean none. */
#include "cli.h"

#include <string.h>

/* An option that was not said is the default, 0; one that was said to be 0 is `none`. */
static void settle_float(float *option, float none)
{
    *option = *option == UNSAID ? 0 : *option == 0 ? none : *option;
}

static void settle_int(int *option, int none)
{
    *option = *option == UNSAID ? 0 : *option == 0 ? none : *option;
}

quip_session_options settled(const quip_session_options *said)
{
    quip_session_options o = *said;
    o.greedy = o.greedy || o.temperature == 0;
    settle_float(&o.temperature, 0);
    settle_float(&o.top_p, 1);
    settle_float(&o.min_p, -1);
    settle_int(&o.top_k, -1);
    settle_int(&o.no_repeat_ngram, -1);
    settle_int(&o.penalty_window, 0);
    return o;
}

/* ---- the defaults of a model ---- */

struct named_number {
    const char *name;
    double value, none; // none: it has no effect
};
enum {
    N_DRAWS = 7
};

static void list_draws(struct named_number to[N_DRAWS], const quip_model_info *i)
{
    const bool has_window = i->default_repeat_penalty != 1 || i->default_no_repeat_ngram > 0;
    const struct named_number draws[N_DRAWS] = {
        { "temperature", (double)i->default_temperature, -1 },
        { "top_k", i->default_top_k, 0 },
        { "top_p", (double)i->default_top_p, 1 },
        { "min_p", (double)i->default_min_p, 0 },
        { "repeat_penalty", (double)i->default_repeat_penalty, 1 },
        { "no_repeat_ngram", i->default_no_repeat_ngram, 0 },
        { "penalty_window", i->default_penalty_window, has_window ? 0 : i->default_penalty_window },
    };
    memcpy(to, draws, sizeof draws);
}

void print_draws(const quip_model_info *i)
{
    struct named_number draws[N_DRAWS];
    list_draws(draws, i);
    printf("  draws with    ");
    for (int k = 0; k < N_DRAWS; k++)
        if (draws[k].value != draws[k].none)
            printf("%s%s %.4g", k > 0 ? ", " : "", draws[k].name, draws[k].value);
    printf("%s (%s)\n", i->default_temperature == 0 ? ": greedy" : "",
           i->has_sampling ? "as the model file says" : "default");
}

void json_draws(cJSON *json, const quip_model_info *i)
{
    struct named_number draws[N_DRAWS];
    list_draws(draws, i);
    cJSON *sampling = cJSON_AddObjectToObject(json, "sampling");
    for (int k = 0; k < N_DRAWS; k++)
        if (draws[k].value != draws[k].none)
            cJSON_AddNumberToObject(sampling, draws[k].name, draws[k].value);
    cJSON_AddBoolToObject(json, "has_sampling", i->has_sampling);
}
