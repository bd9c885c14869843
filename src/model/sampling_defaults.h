/* sampling_defaults.h: how a model draws its tokens unless the options of a session say otherwise
 * (sampling_defaults.c). */
#ifndef QP_SAMPLING_DEFAULTS_H
#define QP_SAMPLING_DEFAULTS_H

#include "base/base.h"

/* The keys of `quip.sampling`, in the order in which they are written. */
enum sampling_key {
    SAMPLING_TEMPERATURE, // 0: greedy
    SAMPLING_TOP_K,       // 0: no limit
    SAMPLING_TOP_P,       // 1: no limit
    SAMPLING_MIN_P,
    SAMPLING_REPEAT_PENALTY, // 1: none
    SAMPLING_PENALTY_WINDOW, // -1: all
    SAMPLING_NO_REPEAT_NGRAM,
    N_SAMPLING_KEYS
};

struct sampling_rule {
    const char *name; // in quip.sampling, and in the options of quip.h
    bool is_whole;
    double low, high; // allowed values
    double absent;    // the value when the text lacks the key
};
extern const struct sampling_rule qp_sampling_rules[N_SAMPLING_KEYS];

struct sampling_defaults {
    bool is_known; // false: the model file has none
    double value[N_SAMPLING_KEYS];
};
/* What a text without a single key says. */
struct sampling_defaults qp_sampling_absent(void);
/* Read n bytes of text; `where` names the file in messages. */
quip_status qp_sampling_read(struct sampling_defaults *d, const char *text, size_t n,
                             const char *where, quip_error *error);

#endif
