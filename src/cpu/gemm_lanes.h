/* gemm_lanes.h: products with float weights, on sixteen lanes.
 * Contracts and order of rounding: scalar/linear_scalar.c, to the bit. F32_TOKENS tokens and
 * F32_ROWS rows of weights, as the instruction set has registers, share what they load.
 * A template, included after math_lanes.h by a file that defines ISA(). */
#include "cpu/kernels.h"
#include "format/dtype.h"

#include <assert.h>

/* sums[t][r] of tokens x[t] and weight rows w[r], which may repeat. */
static void ISA(gemm_f32_sums)(float sums[F32_TOKENS][F32_ROWS], const float *const *w,
                               const float *const *x, int n_in)
{
    struct lanes sum[F32_ROWS][F32_TOKENS];
    LANES_UNROLL
    for (int r = 0; r < F32_ROWS; r++) {
        LANES_UNROLL
        for (int t = 0; t < F32_TOKENS; t++)
            sum[r][t] = lanes_set(0.0f);
    }
    for (int k = 0; k < n_in; k += 16) {
        struct lanes token[F32_TOKENS];
        LANES_UNROLL
        for (int t = 0; t < F32_TOKENS; t++)
            token[t] = lanes_load_first(x[t] + k, n_in - k);
        LANES_UNROLL
        for (int r = 0; r < F32_ROWS; r++) {
            const struct lanes row = lanes_load_first(w[r] + k, n_in - k);
            if (F32_ROWS_AHEAD > 0) // the same columns of a later row
                __builtin_prefetch(w[r] + k + (size_t)F32_ROWS_AHEAD * (size_t)n_in);
            LANES_UNROLL
            for (int t = 0; t < F32_TOKENS; t++)
                sum[r][t] = lanes_mul_add(row, token[t], sum[r][t]);
        }
    }
    LANES_UNROLL
    for (int r = 0; r < F32_ROWS; r++) {
        LANES_UNROLL
        for (int t = 0; t < F32_TOKENS; t++)
            sums[t][r] = lanes_sum(sum[r][t]);
    }
}

static void ISA(gemm_f32)(const struct out_view *out, const struct matrix *w,
                          const struct f32_rows *x, int begin, int end)
{
    assert(out->y && x->x && w->dtype == DTYPE_F32 && w->n_in > 0);
    assert(begin >= 0 && begin < end && end <= w->n_out);
    for (int r = begin; r < end; r += F32_ROWS) {
        /* Past the last row or token the last one is repeated. */
        const float *rows[F32_ROWS];
        const int n_rows = end - r < F32_ROWS ? end - r : F32_ROWS;
        for (int i = 0; i < F32_ROWS; i++)
            rows[i] = qp_matrix_row(w, r + (i < n_rows ? i : n_rows - 1));
        for (int t = 0; t < x->n; t += F32_TOKENS) {
            const float *tokens[F32_TOKENS];
            const int n = x->n - t < F32_TOKENS ? x->n - t : F32_TOKENS;
            for (int i = 0; i < F32_TOKENS; i++)
                tokens[i] = x->x + (size_t)(t + (i < n ? i : n - 1)) * x->stride;
            float sums[F32_TOKENS][F32_ROWS];
            ISA(gemm_f32_sums)(sums, rows, tokens, w->n_in);
            for (int i = 0; i < n; i++)
                for (int j = 0; j < n_rows; j++)
                    out->y[(size_t)(t + i) * out->stride + (size_t)(r - begin + j)] =
                        w->bias ? sums[i][j] + w->bias[r + j] : sums[i][j];
        }
    }
}

static void ISA(gemv_f32)(float *y, const struct matrix *w, const float *x, int begin, int end)
{
    const struct out_view out = { .y = y + begin };
    ISA(gemm_f32)(&out, w, &(struct f32_rows){ .x = x, .n = 1 }, begin, end);
}
