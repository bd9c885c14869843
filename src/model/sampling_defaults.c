/* sampling_defaults.c: how a model draws its tokens unless the options of a session say otherwise.
 * In:  the metadata `quip.sampling`: text, one "key value" a line (docs/model-format.md).
 * Out: a value for each key. Keys that are not known are ignored. */
#include "model/sampling_defaults.h"

#include "model/raw_config.h"

#include <string.h>

// clang-format off
const struct sampling_rule qp_sampling_rules[N_SAMPLING_KEYS] = {
    [SAMPLING_TEMPERATURE]     = { "temperature",     false,  0,    100,       1 },
    [SAMPLING_TOP_K]           = { "top_k",           true,   0,    INT32_MAX, 0 },
    [SAMPLING_TOP_P]           = { "top_p",           false,  0,    1,         1 },
    [SAMPLING_MIN_P]           = { "min_p",           false,  0,    1,         0 },
    [SAMPLING_REPEAT_PENALTY]  = { "repeat_penalty",  false,  0.01, 100,       1 },
    [SAMPLING_PENALTY_WINDOW]  = { "penalty_window",  true,  -1,    INT32_MAX, 64 },
    [SAMPLING_NO_REPEAT_NGRAM] = { "no_repeat_ngram", true,   0,    INT32_MAX, 0 },
};
// clang-format on

struct sampling_defaults qp_sampling_absent(void)
{
    struct sampling_defaults d = { .is_known = false };
    for (int i = 0; i < N_SAMPLING_KEYS; i++)
        d.value[i] = qp_sampling_rules[i].absent;
    return d;
}

/* The key that is the n bytes at `name`; N_SAMPLING_KEYS if there is no such key. */
static int find_sampling_key(const char *name, size_t n)
{
    int i = 0;
    while (i < N_SAMPLING_KEYS && (strlen(qp_sampling_rules[i].name) != n ||
                                   memcmp(qp_sampling_rules[i].name, name, n) != 0))
        i++;
    return i;
}

/* A number that is the whole text and fits the rule. */
static bool parse_sampling_value(const struct sampling_rule *rule, const char *text, size_t n,
                                 double *value)
{
    return n > 0 && qp_decimal_parse(text, n, value) == n && *value >= rule->low &&
           *value <= rule->high && (!rule->is_whole || *value == (double)(int32_t)*value);
}

quip_status qp_sampling_read(struct sampling_defaults *d, const char *text, size_t n,
                             const char *where, quip_error *error)
{
    const char *name, *value;
    size_t at = 0, n_name, n_value;
    *d = qp_sampling_absent();
    d->is_known = true;
    while (qp_config_next_line(text, n, &at, &name, &n_name, &value, &n_value)) {
        const int key = find_sampling_key(name, n_name);
        if (key < N_SAMPLING_KEYS &&
            !parse_sampling_value(&qp_sampling_rules[key], value, n_value, &d->value[key]))
            return qp_fail(error, QUIP_E_FORMAT,
                           "%s: quip.sampling: %s is \"%.*s\"; must be a %snumber from %g to %g",
                           where, qp_sampling_rules[key].name, (int)(n_value < 60 ? n_value : 60),
                           value, qp_sampling_rules[key].is_whole ? "whole " : "",
                           qp_sampling_rules[key].low, qp_sampling_rules[key].high);
    }
    return QUIP_OK;
}
