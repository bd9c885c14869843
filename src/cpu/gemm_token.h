/* gemm_token.h: one token's part of a stretch of columns, for the gemm kernels of all instruction
 * sets that take several tokens at a time. */
#ifndef QP_GEMM_TOKEN_H
#define QP_GEMM_TOKEN_H

#include "cpu/kernels.h"

#include <assert.h>

/* One token's activations from some block on, and where its results go. */
struct gemm_token {
    const int8_t *q;
    const float *scales;
    const int32_t *offsets;
    float *y;
};

/* Token t from column k on, which is a multiple of ACT_BLOCK; k_padded is n_in in whole blocks.
 * Past the last token this is the last token again: the kernel computes the same sums and stores
 * them twice. */
static inline struct gemm_token gemm_token_at(const struct out_view *out, const struct act_rows *x,
                                              int t, size_t k, size_t k_padded)
{
    assert(k % ACT_BLOCK == 0 && k < k_padded && k_padded % ACT_BLOCK == 0);
    const size_t at = (size_t)(t < x->n ? t : x->n - 1);
    const size_t block = (at * k_padded + k) / ACT_BLOCK;
    return (struct gemm_token){ x->q + at * x->q_stride + k, x->scales + block, x->offsets + block,
                                out->y + at * out->stride };
}

/* From a token to the next one. */
static inline void next_gemm_token(struct gemm_token *token, const struct out_view *out,
                                   const struct act_rows *x, size_t k_padded)
{
    token->q += x->q_stride;
    token->scales += k_padded / ACT_BLOCK;
    token->offsets += k_padded / ACT_BLOCK;
    token->y += out->stride;
}

#endif
