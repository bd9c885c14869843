/* attention_blocks.h: the order of work of fast attention over floats, the same for every
 * instruction set. Each supplies the arithmetic steps. */
#ifndef QP_ATTENTION_BLOCKS_H
#define QP_ATTENTION_BLOCKS_H

#include "cpu/kernels.h"

/* The softmax state of the rows, and the current block of keys. Entries after the last row hold
 * some number, because vectors read them, too. */
struct attention_state {
    float m[ATTENTION_MAX_ROWS];            // largest score so far
    float l[ATTENTION_MAX_ROWS];            // sum of exp(score - m)
    float c[ATTENTION_MAX_ROWS];            // l and o are multiplied by it in this block
    float s[ATTENTION_MAX_ROWS * KV_BLOCK]; // scores, then probabilities
    float b[KV_BLOCK * KV_BLOCK];           // a padded copy of fewer than 64 columns of values
};

/* A few rows times a square of keys or values:
 * acc[r][j] = acc[r][j] * factors[r] + a[r][0] * b[0][j] + ... + a[r][n_k - 1] * b[n_k - 1][j],
 * for n_columns columns j, a multiple of 16 up to 64. Each product and each sum is rounded, from
 * left to right. */
struct square_product {
    float *acc; // [n_rows][64], rows acc_stride apart
    size_t acc_stride;
    const float *factors; // [n_rows]
    const float *a;       // [n_rows][n_k]
    size_t a_stride;
    const float *b; // [n_k][64], rows b_stride apart
    size_t b_stride;
    int n_k, n_columns;
};

struct attention_steps {
    /* One for each number of rows whose sums fit in registers, 1 to n_products: [n_rows - 1]. */
    void (*product[4])(const struct square_product *t);
    int n_products;
    /* Replace the sums s of the block at `pos` by probabilities; update m, l and c. See attend in
     * kernels.h. */
    void (*softmax)(const struct attention *a, struct attention_state *state, int pos);
};

void qp_attend_blocks(const struct attention *a, const struct attention_steps *steps);

#endif
