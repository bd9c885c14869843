/* low_rank_scalar.c: products of low-rank matrices in plain C, the specification of low_rank_*.c.
 * In:  an int8 matrix in groups of 16 rows (struct low_rank), quantized activations.
 * Out: their product, added to y. */
#include "cpu/low_rank.h"
#include "cpu/scalar/scalar.h"

#include <assert.h>

/* out->y[t * out->stride + r - begin] += sum * scale_r, for rows [begin, end). sum is the sum over
 * blocks b, ascending from 0.0f, of scales[b] * (float)dot_b, as in gemv_i8 and with its ranges.
 * The groups are aligned to 64 bytes. Reads q up to the next multiple of LOW_RANK_STEP. */
static void add_low_rank_scalar(const struct out_view *out, const struct low_rank *w,
                                const struct act_rows *x, int begin, int end)
{
    assert(begin >= 0 && begin < end && end <= w->n_out && (uintptr_t)w->groups % 64 == 0);
    assert(qp_is_act_rows(x, w->n_in));
    const size_t n_blocks = ((size_t)w->n_in + ACT_BLOCK - 1) / ACT_BLOCK;
    for (int r = begin; r < end; r++) {
        const uint8_t *group = qp_low_rank_group(w, r);
        for (size_t t = 0; t < (size_t)x->n; t++) {
            const int8_t *q = x->q + t * x->q_stride;
            float sum = 0.0f;
            for (int i = 0, b = 0; i < w->n_in; i += ACT_BLOCK, b++) {
                const int block_end = w->n_in - i < ACT_BLOCK ? w->n_in : i + ACT_BLOCK;
                int32_t dot = 0;
                for (int k = i; k < block_end; k++)
                    dot += (int8_t)group[qp_low_rank_offset(r, k)] * q[k];
                sum += x->scales[t * n_blocks + (size_t)b] * (float)dot;
            }
            out->y[t * out->stride + (size_t)(r - begin)] +=
                sum * qp_low_rank_scales(group)[r % LOW_RANK_ROWS];
        }
    }
}

void qp_low_rank_kernels_scalar(struct kernels *k)
{
    k->add_low_rank = add_low_rank_scalar;
}
