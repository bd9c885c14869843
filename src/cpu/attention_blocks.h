/* attention_blocks.h: how fast attention goes through the keys: one order of work for every ISA,
 * which brings the three steps that are arithmetic. */
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
    float b[KV_BLOCK * KV_BLOCK];           // a square of keys or values, widened to float
};

/* At most 64 rows of 64 keys or values, binary16 or float, `stride` elements apart. */
struct kv_square {
    const void *data;
    size_t stride;
    bool is_f16;
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
    struct kv_square b; // [n_k][64]
    int n_k;
};

/* As many rows of sums as registers hold. */
#define PRODUCT_ROWS 4

struct attention_steps {
    /* to[i][j] = (float)from[i][j] for 64 columns; from n_cols on not read, and zero. */
    void (*widen)(float *to, const uint16_t *from, size_t from_stride, int n_rows, int n_cols);
    /* [b.is_f16][n_rows - 1] */
    void (*product[2][PRODUCT_ROWS])(const struct square_product *t);
    /* Scores of the block at `pos` to probabilities, and m, l, c: see attend in kernels.h. */
    void (*softmax)(const struct attention *a, struct attention_state *state, int pos);
};

void qp_attend_blocks(const struct attention *a, const struct attention_steps *steps);

#endif
