/* low_rank_scalar.c: matrices of few rows or columns (kernels.h): plain, and the way around the
 * products that all but one instruction set share. */
#include "cpu/scalar/scalar.h"

static void low_rank_sums_scalar(float sums[LOW_RANK_ROWS], const uint8_t *group, const int8_t *q,
                                 const float *scales, int n_in)
{
    for (int r = 0; r < LOW_RANK_ROWS; r++) {
        sums[r] = 0.0f;
        for (int i = 0, b = 0; i < n_in; i += ACT_BLOCK, b++) {
            const int end = n_in - i < ACT_BLOCK ? n_in : i + ACT_BLOCK;
            int32_t dot = 0;
            for (int k = i; k < end; k++)
                dot += (int8_t)group[qp_low_rank_offset(r, k)] * q[k];
            sums[r] += scales[b] * (float)dot;
        }
    }
}

/* y[i] += sums[i] * scales[i], for rows [begin, end) of a group; y has those alone. */
static inline void add_low_rank_rows(float *restrict y, const float *restrict sums,
                                     const float *restrict scales, int begin, int end)
{
    if (end - begin == LOW_RANK_ROWS) // a loop that compilers make vectors of
        for (int i = 0; i < LOW_RANK_ROWS; i++)
            y[i] += sums[i] * scales[i];
    else
        for (int i = begin; i < end; i++)
            y[i - begin] += sums[i] * scales[i];
}

static void add_low_rank_by_groups(const struct kernels *k, const struct out_view *out,
                                   const struct low_rank *w, const struct act_rows *x, int begin,
                                   int end)
{
    const size_t n_blocks = ((size_t)w->n_in + ACT_BLOCK - 1) / ACT_BLOCK;
    for (int r = begin, next; r < end; r = next) {
        const int first = r % LOW_RANK_ROWS, group_end = r - first + LOW_RANK_ROWS;
        const uint8_t *group = qp_low_rank_group(w, r);
        next = group_end < end ? group_end : end;
        for (size_t t = 0; t < (size_t)x->n; t++) {
            float sums[LOW_RANK_ROWS];
            k->low_rank_sums(sums, group, x->q + t * x->q_stride, x->scales + t * n_blocks,
                             w->n_in);
            add_low_rank_rows(out->y + t * out->stride + (r - begin), sums,
                              qp_low_rank_scales(group), first, first + next - r);
        }
    }
}

void qp_low_rank_kernels_scalar(struct kernels *k)
{
    k->low_rank_sums = low_rank_sums_scalar;
    k->add_low_rank = add_low_rank_by_groups;
}
