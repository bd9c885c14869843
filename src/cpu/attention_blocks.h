/* attention_blocks.h: how fast attention over floats goes through the keys: one order of work for
 * every ISA, which brings the three steps that are arithmetic. */
#ifndef QP_ATTENTION_BLOCKS_H
#define QP_ATTENTION_BLOCKS_H

#include "cpu/kernels.h"

/* The softmax state of the rows, and the block of keys in work. What lies beyond the last row is a
 * number, so that vectors may cover it. */
struct attention_state {
    float m[ATTENTION_MAX_ROWS];            // largest score so far
    float l[ATTENTION_MAX_ROWS];            // sum of exp(score - m)
    float c[ATTENTION_MAX_ROWS];            // what this block rescales l and o by
    float s[ATTENTION_MAX_ROWS * KV_BLOCK]; // scores, then probabilities
    float b[KV_BLOCK * KV_BLOCK];           // a copy of fewer than 64 columns of values
};

/* A few rows against a square of keys or values:
 * acc[r][j] = acc[r][j] * factors[r] + a[r][0] * b[0][j] + ... + a[r][n_k - 1] * b[n_k - 1][j],
 * for 64 columns j, each product and each sum rounded, left to right. */
struct square_product {
    float *acc; // [n_rows][64], rows acc_stride apart
    size_t acc_stride;
    const float *factors; // [n_rows]
    const float *a;       // [n_rows][n_k]
    size_t a_stride;
    const float *b; // [n_k][64], rows b_stride apart
    size_t b_stride;
    int n_k;
};

struct attention_steps {
    /* For 1 to n_products rows, as many as the registers hold sums of: [n_rows - 1]. */
    void (*product[4])(const struct square_product *t);
    int n_products;
    /* Scores of the block at `pos` to probabilities, and m, l, c: see attend in kernels.h. */
    void (*softmax)(const struct attention *a, struct attention_state *state, int pos);
};

void qp_attend_blocks(const struct attention *a, const struct attention_steps *steps);

#endif
