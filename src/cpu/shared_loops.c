/* shared_loops.c: loops over rows and tokens that several instruction sets share.
 * In:  the operands of a kernel, and the function that computes a few sums.
 * Out: what the contract of the kernel says (scalar/). */
#include "cpu/shared_loops.h"
#include "format/format.h"

#include <assert.h>

void qp_gemm_f32_pairs(pair_sums_f32 *sums_of, const struct out_view *out, const struct matrix *w,
                       const struct f32_rows *x, int begin, int end)
{
    assert(w->dtype == DTYPE_F32 && qp_has_rows(w, begin, end) && x->x && x->n > 0);
    for (int r = begin; r < end; r += 2) {
        const int r1 = r + 1 < end ? r + 1 : r; // the odd last row, or token, is computed twice
        const float *const w_rows[2] = { qp_matrix_row(w, r), qp_matrix_row(w, r1) };
        for (int t = 0; t < x->n; t += 2) {
            const int t1 = t + 1 < x->n ? t + 1 : t;
            const float *const x_rows[2] = { x->x + (size_t)t * x->stride,
                                             x->x + (size_t)t1 * x->stride };
            const int rows[2] = { r, r1 }, tokens[2] = { t, t1 };
            float sums[2][2];
            sums_of(sums, w_rows, x_rows, w->n_in);
            for (int i = 0; i < 2; i++)
                for (int j = 0; j < 2; j++)
                    out->y[(size_t)tokens[i] * out->stride + (size_t)(rows[j] - begin)] =
                        w->bias ? sums[i][j] + w->bias[rows[j]] : sums[i][j];
        }
    }
}

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
