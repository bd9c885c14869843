/* sampler.h: logits -> one token. The order is the original's: top_k, then temperature over the
 * survivors, then top_p with the token that crosses it. */
#ifndef QP_SAMPLER_H
#define QP_SAMPLER_H

#include "base/base.h"

struct candidate {
    float logit;
    quip_token id;
};
struct sampler {
    float temperature;            // 0: greedy
    int top_k;                    // 0: no limit
    float top_p;                  // 1: no limit
    uint64_t state[4];            // random generator
    struct candidate *candidates; // [top_k], or [vocab_size] without a limit; NULL when greedy
    float (*sum_exp)(const float *x, float max, float factor, int n); // of the kernels
};

/* Take what sampling needs from the arena; greedy needs nothing. */
void qp_sampler_take(struct sampler *s, struct arena *a, int vocab_size);
void qp_sampler_seed(struct sampler *s, uint64_t seed);
/* The next token. Ties go to the lower id. */
quip_token qp_sample(struct sampler *s, const float *logits, int vocab_size);

#endif
