/* sampler.h: logits -> one token. The order: the penalties (penalties.c), then top_k, temperature
 * over the survivors, top_p with the token that crosses it, as MediaPipe does it, and min_p. That
 * is also the order of transformers. */
#ifndef QP_SAMPLER_H
#define QP_SAMPLER_H

#include "base/base.h"

enum {
    MAX_ENDS = 24 // of struct sampling
};

/* The options that decide how a token is drawn. */
struct sampling {
    float temperature; // 0: greedy
    int top_k;         // 0: no limit; 1: greedy
    float top_p;       // 0 or 1: no limit
    float min_p;       // of the probability of the best token, 0 to 1; 0: no limit
    /* Penalties; qp_no_penalties has none. Only the last `window` tokens of the context count. */
    int window;
    float repeat;                   // 1: none
    float presence, frequency;      // 0: none
    float dry_multiplier, dry_base; // multiplier 0: none
    int dry_allowed_length;         // at least 1
    int no_repeat_ngram;            // 0: none
    int n_dry_breakers, n_ends, n_bias;
    const quip_token *dry_breakers;
    const quip_token *ends; // [n_ends] that end an answer: no penalty changes them
    const quip_logit_bias *bias;
};

/* How the token after a row of logits is drawn. The random number is a function of seed and index,
 * where the index is the number of tokens before the one that is drawn: nothing has to be saved or
 * restored when a session is rewound, copied or continued elsewhere. */
struct draw {
    const struct sampling *sampling;
    uint64_t seed, index;
    quip_token
        expected; // the next draw counts only if this one is `expected`; -1: it counts anyway
    const quip_token *context; // [index] the tokens before, for penalties
    const uint32_t *allowed; // bit t % 32 of word t / 32: token t may come, at least one may; NULL:
                             // all may
};

struct candidate {
    float logit;
    quip_token id;
};

/* What drawing needs beside that. */
struct sampler {
    struct candidate *candidates; // [vocab_size] scratch, also of the penalties
    /* Sum of exp((x[i] - max) * factor), a NaN counting 0, n a multiple of 16 (cpu/kernels.h). */
    float (*sum_exp)(const float *x, float max, float factor, int n);
};

/* The next token. Ties go to the lower id. With penalties or draw->allowed it changes the logits.
 */
quip_token qp_sample(const struct sampler *s, const struct draw *draw, float *logits,
                     int vocab_size);

/* The logits of a row that a draw may depend on. */
struct known_logits {
    struct candidate *at; // [n]
    int n;
    const quip_token *window; // [n_window] the last tokens of the context: all, or those that count
    int n_window;
    /* Of qp_sample_bounded: at[0, n_best) are the most likely tokens that are allowed, not in the
     * window and without a bias; the logits of the others of this kind are below `least`, which
     * is -INFINITY if all are known. All of this kind have weights exp((logit - max) /
     * temperature), whose sum is `sum` with an error of at most SUM_ERROR of it. */
    int n_best;
    float least, max;
    double sum;
};
#define SUM_ERROR 0x1p-15

/* How many of the most likely tokens a draw needs to know, beside those of the penalties' window
 * and those with a bias; 0: all. */
int qp_sample_n_best(const struct sampling *o, int vocab_size);
/* The token of qp_sample, from a part of the logits: those of all tokens in the window and with a
 * bias, and the qp_sample_n_best most likely of the others that are allowed. A token may be there
 * twice. k->at is changed. `logits` is scratch [vocab_size], and draw->context is not used. */
quip_token qp_sample_known(const struct sampler *s, const struct draw *draw,
                           const struct known_logits *k, float *logits, int vocab_size);
/* The same of a draw whose qp_sample_n_best is 0, with as many of the most likely tokens as there
 * are. -1: what is not known may decide. */
quip_token qp_sample_bounded(const struct sampler *s, const struct draw *draw,
                             const struct known_logits *k, float *logits, int vocab_size);

/* penalties.c: change the logits of the token after context [n]. */
void qp_penalize(const struct sampling *o, const quip_token *context, int n,
                 struct candidate *scratch, float *logits, int vocab_size);

/* Block number `index` of the generator with this seed: Philox4x32-10. */
void qp_random_block(uint64_t seed, uint64_t index, uint32_t block[4]);
/* A number in [0, 1) made of the first 53 bits of it. */
double qp_random_uniform(uint64_t seed, uint64_t index);

#endif
