/* notes.c: says which options of a command line have no effect. */
#include "cli.h"

#include <string.h>

void note_vain(const char *option, const char *why)
{
    fprintf(stderr, "quip: --%s has no effect %s\n", option, why);
}

static bool has_penalty(const quip_session_options *o, const quip_model_info *info)
{
    const bool has_defaults = !o->greedy && o->top_k != 1;
    const bool by_default =
        has_defaults && ((o->repeat_penalty == 0 && info->default_repeat_penalty != 1) ||
                         (o->no_repeat_ngram == 0 && info->default_no_repeat_ngram > 0));
    return by_default || (o->repeat_penalty != 0 && o->repeat_penalty != 1) ||
           o->presence_penalty != 0 || o->frequency_penalty != 0 || o->dry_multiplier > 0 ||
           o->no_repeat_ngram > 0;
}

/* Why the most likely token always comes; NULL: it does not. */
static const char *why_greedy(const quip_session_options *o, const quip_model_info *info)
{
    if (o->greedy)
        return "with --greedy or at temperature 0, where the most likely token always comes";
    if (o->top_k == 1)
        return "with --top-k 1, which always chooses the most likely token";
    return o->temperature == 0 && info->default_temperature == 0
               ? "because the model file says that the most likely token always comes; "
                 "--temperature 0.8 draws"
               : NULL;
}

/* Why nothing but the text itself reaches the model; NULL if a template is used. */
static const char *why_no_template(const quip_session_options *o, const quip_model *model)
{
    quip_model_info info = { .struct_size = sizeof info };
    if (o->no_template)
        return "with --raw";
    if (o->chat_template)
        return strcmp(o->chat_template, "none") == 0 ? "with --chat-template none" : NULL;
    return quip_model_get_info(model, &info, NULL) || info.has_template
               ? NULL
               : "because the model has no chat template; --chat-template NAME chooses one";
}

/* Shells pass on "\n" as two characters, which no answer contains. */
static void note_escapes(const quip_session_options *o)
{
    for (int i = 0; i < o->n_stop; i++)
        if (strstr(o->stop[i], "\\n"))
            fprintf(stderr,
                    "quip: --stop \"%s\" has a backslash and an n; for a line end most shells "
                    "have $'\\n'\n",
                    o->stop[i]);
}

void note_options(const quip_session_options *o, const struct models *m, const char *only)
{
    quip_model_info info = { .struct_size = sizeof info };
    quip_model_get_info(m->model, &info, NULL); // otherwise zeros
    const char *greedy = why_greedy(o, &info);
    const char *no_template = why_no_template(o, m->model);
    const struct {
        const char *name;
        bool is_vain;
        const char *why;
    } options[] = {
        { "temperature", greedy && o->temperature > 0, greedy },
        { "top-k", greedy && o->top_k > 1, greedy },
        { "top-p", greedy && o->top_p > 0 && o->top_p < 1, greedy },
        { "min-p", greedy && o->min_p > 0, greedy },
        { "seed", greedy && o->has_seed, greedy },
        { "penalty-window", o->penalty_window != 0 && !has_penalty(o, &info),
          "without a penalty, such as --repeat-penalty 1.1" },
        { "chat-template", o->no_template && o->chat_template, no_template },
        { "template-variables", no_template && o->template_variables, no_template },
        { "system", no_template && o->system, no_template },
        { "draft", m->draft && o->no_speculation, "with --no-speculation" },
    };
    for (size_t i = 0; i < QP_COUNT(options); i++)
        if (options[i].is_vain && (!only || strcmp(only, options[i].name) == 0))
            note_vain(options[i].name, options[i].why);
    if (!only)
        note_escapes(o);
}
