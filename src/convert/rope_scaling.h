/* rope_scaling.h: how rope is stretched over a longer context.
 * In:  what config.json (rope_hf.c) or GGUF (rope_gguf.c) says about it.
 * Out: hparams: a factor of positions, or divisors of the frequencies, and an amplitude. */
#ifndef QP_ROPE_SCALING_H
#define QP_ROPE_SCALING_H

#include "convert/hparams.h"

enum rope_type {
    ROPE_DEFAULT,
    ROPE_LINEAR,       // positions are divided by a factor
    ROPE_DYNAMIC,      // the base grows with the text, beyond the longest context
    ROPE_LLAMA3,       // low frequencies are divided by a factor
    ROPE_YARN,         // the same by another rule: Peng et al. 2023
    ROPE_LONGROPE,     // each frequency has a divisor of its own: Ding et al. 2024
    ROPE_PROPORTIONAL, // the first pairs turn as those of a whole head, the others do not: Gemma 4
    N_ROPE_TYPES
};

/* 0 means that it is not given. */
struct rope_scaling {
    enum rope_type type;
    double factor;
    double n_original;       // positions that the model was trained for before that
    double attention_factor; // the amplitude, longrope and yarn
    double low, high;        // llama3: bounds, in wavelengths per original context
    double fraction;         // proportional: of the pairs, that turn
    double beta_fast, beta_slow, mscale, mscale_all_dim; // yarn
    bool no_truncate;                                    // yarn: bounds are not whole numbers
    /* longrope: divisors of each frequency in short and in long contexts */
    double factors[2][HPARAMS_MAX_HEAD / 2];
    int n_factors[2];
};

/* By its name in config.json or GGUF; N_ROPE_TYPES if there is no such type. */
enum rope_type qp_rope_type(const char *name, size_t n);
/* Set rope_scaling, rope_divisors, rope_amplitude and n_context_original. The rest of h->raw is
 * complete. `where` begins the messages. */
quip_status qp_rope_scale(struct hparams *h, const struct rope_scaling *s, const char *where,
                          quip_error *error);

/* rope_hf.c, rope_gguf.c: everything about rope. The sizes in h->raw are complete. */
struct hf_reader;
quip_status qp_rope_from_config(struct hparams *h, const struct hf_reader *reader,
                                const char *where, quip_error *error);
quip_status qp_rope_from_gguf(struct hparams *h, struct checkpoint *c, quip_error *error);

#endif
