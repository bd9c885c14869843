/* gemm_token.h: what the gemm kernels of several instruction sets share: one token's part of a
 * stretch of k. */
#ifndef QP_GEMM_TOKEN_H
#define QP_GEMM_TOKEN_H

#include "cpu/kernels.h"

/* One token's activations from some block on, and where its results go. */
struct gemm_token {
    const int8_t *q;
    const float *scales;
    const int32_t *offsets;
    float *y;
};

/* Token t from column k on, a multiple of ACT_BLOCK; k_padded is n_in in whole blocks. A kernel
 * that takes several tokens at a time gets the last token again instead of those past it: it
 * computes the same sums and stores them twice. */
static inline struct gemm_token gemm_token_at(const struct out_view *out, const struct act_rows *x,
                                              int t, size_t k, size_t k_padded)
{
    const size_t at = (size_t)(t < x->n ? t : x->n - 1);
    const size_t block = (at * k_padded + k) / ACT_BLOCK;
    return (struct gemm_token){ x->q + at * x->q_stride + k, x->scales + block, x->offsets + block,
                                out->y + at * out->stride };
}

#endif
