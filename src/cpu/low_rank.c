/* low_rank.c: the loop over groups and tokens that most instruction sets share.
 * In:  the operands of add_low_rank, and the function that computes the sums of a group.
 * Out: what the contract of add_low_rank says (scalar/low_rank_scalar.c). */
#include "cpu/low_rank.h"

#include <assert.h>

/* y[i - begin] += sums[i] * scales[i] for rows i in [begin, end) of a group. */
static inline void add_scaled_rows(float *restrict y, const float *restrict sums,
                                   const float *restrict scales, int begin, int end)
{
    if (end - begin == LOW_RANK_ROWS) // a loop of constant length, which compilers vectorize
        for (int i = 0; i < LOW_RANK_ROWS; i++)
            y[i] += sums[i] * scales[i];
    else
        for (int i = begin; i < end; i++)
            y[i - begin] += sums[i] * scales[i];
}

void qp_add_low_rank_groups(group_sums *sums_of, const struct out_view *out,
                            const struct low_rank *w, const struct act_rows *x, int begin, int end)
{
    assert(begin >= 0 && begin < end && end <= w->n_out && (uintptr_t)w->groups % 64 == 0);
    assert(qp_is_act_rows(x, w->n_in));
    const size_t n_blocks = ((size_t)w->n_in + ACT_BLOCK - 1) / ACT_BLOCK;
    for (int r = begin, next; r < end; r = next) {
        const int first = r % LOW_RANK_ROWS, group_end = r - first + LOW_RANK_ROWS;
        const uint8_t *group = qp_low_rank_group(w, r);
        next = group_end < end ? group_end : end;
        for (size_t t = 0; t < (size_t)x->n; t++) {
            float sums[LOW_RANK_ROWS];
            sums_of(sums, group, x->q + t * x->q_stride, x->scales + t * n_blocks, w->n_in);
            add_scaled_rows(out->y + t * out->stride + (r - begin), sums, qp_low_rank_scales(group),
                            first, first + next - r);
        }
    }
}
