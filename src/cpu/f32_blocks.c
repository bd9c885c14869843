/* f32_blocks.c: the order in which a product with float weights reads weights and tokens.
 * In:  rows of weights, tokens, and the products of an instruction set (gemm_lanes.h).
 * Out: the numbers of gemm_f32 in scalar/linear_scalar.c, to the bit.
 *
 * A block of weight rows stays in the second-level cache while all tokens are multiplied by it. A
 * block of tokens stays in the first-level cache while the rows of weights are. */
#include "cpu/f32_blocks.h"

#include <assert.h>

enum {
    WEIGHT_BLOCK_BYTES = 256 * 1024,
    TOKEN_BLOCK_BYTES = 24 * 1024
};

/* Rows [row, row + n_rows) of the matrix. */
static void set_rows(struct f32_strip *s, const struct matrix *w, int row, int n_rows)
{
    s->n_rows = n_rows;
    for (int i = 0; i < F32_MAX_ROWS; i++) {
        const int r = row + qp_min(i, n_rows - 1);
        s->w[i] = qp_matrix_row(w, r);
        s->bias[i] = w->bias ? w->bias[r] : 0.0f; // no sum is -0, so +0 changes none
    }
}

/* Rows [row, end) of the matrix times the tokens of the strip; y is that of the first row. */
static void multiply_block(struct f32_strip s, const struct matrix *w, int row, int end,
                           const struct f32_steps *steps)
{
    const bool is_alone = s.n_tokens == 1;
    const int n_rows = is_alone ? F32_MAX_ROWS : steps->n_rows;
    for (; row < end; row += n_rows, s.y += n_rows) {
        set_rows(&s, w, row, qp_min(n_rows, end - row));
        (is_alone ? steps->alone : steps->many)(&s);
    }
}

/* Rows of n_in floats in n_bytes, whole units and at least one. */
static int rows_in(size_t n_bytes, int n_in, int unit)
{
    const int n = (int)(n_bytes / sizeof(float)) / n_in / unit * unit;
    return n > unit ? n : unit;
}

void qp_multiply_f32(const struct out_view *out, const struct matrix *w, const struct f32_rows *x,
                     int begin, int end, const struct f32_steps *steps)
{
    const int n_rows = rows_in(WEIGHT_BLOCK_BYTES, w->n_in, F32_MAX_ROWS);
    const int n_tokens = rows_in(TOKEN_BLOCK_BYTES, w->n_in, steps->n_tokens);
    assert(x->n > 0 && steps->n_rows <= F32_MAX_ROWS);
    for (int row = begin; row < end; row += n_rows)
        for (int t = 0; t < x->n; t += n_tokens) {
            const struct f32_strip strip = {
                .n_in = w->n_in,
                .x = x->x + (size_t)t * x->stride,
                .x_stride = x->stride,
                .n_tokens = qp_min(n_tokens, x->n - t),
                .y = out->y + (size_t)t * out->stride + (size_t)(row - begin),
                .y_stride = out->stride,
            };
            multiply_block(strip, w, row, qp_min(end, row + n_rows), steps);
        }
}
