/* attention_blocks.h: how fast attention goes through the keys: one order of work for every ISA,
 * which brings the three steps that are arithmetic. */
#ifndef QP_ATTENTION_BLOCKS_H
#define QP_ATTENTION_BLOCKS_H

#include "cpu/kernels.h"

/* The softmax state of the rows, and the block of keys in work. Arrays that are not a multiple of
 * 16 rows long are padded to it. */
struct attention_state {
    float m[ATTENTION_MAX_ROWS];            // largest score so far
    float l[ATTENTION_MAX_ROWS];            // sum of exp(score - m)
    float c[ATTENTION_MAX_ROWS];            // what this block rescales l and o by
    float s[ATTENTION_MAX_ROWS * KV_BLOCK]; // scores, then probabilities
    float b[KV_BLOCK * KV_BLOCK];           // a square of keys or values, widened to float
};

struct attention_steps {
    /* to[i][j] = (float)from[i][j] for 64 columns; columns from n_cols on are not read and zero. */
    void (*widen)(float *to, const uint16_t *from, size_t from_stride, int n_rows, int n_cols);
    /* acc[r][j] = acc[r][j] * factors[r] + a[r][0] * b[0][j] + ... + a[r][n_k - 1] * b[n_k - 1][j],
     * each product and each sum rounded, left to right; 64 columns; b binary16 or float. */
    void (*product)(float *acc, size_t acc_stride, const float *factors, const float *a,
                    size_t a_stride, const void *b, size_t b_stride, bool b_is_f16, int n_k,
                    int n_rows);
    /* Scores of the block at `pos` to probabilities, and m, l, c: see attend in kernels.h. */
    void (*softmax)(const struct attention *a, struct attention_state *state, int pos);
};

void qp_attend_blocks(const struct attention *a, const struct attention_steps *steps);

#endif
