/* gemm_lanes.h: products with float weights, on sixteen lanes.
 * Contracts and order of rounding: scalar/linear_scalar.c, to the bit. F32_TOKENS tokens, of the
 * last ones F32_REST, and F32_ROWS rows of weights, as the instruction set has registers, share
 * what they load. Which come when: f32_blocks.c.
 * A template, included after math_lanes.h by a file that defines ISA(). */
#include "cpu/f32_blocks.h"
#include "cpu/kernels.h"
#include "format/dtype.h"

#include <assert.h>

/* Add the products of columns [k, k + n), n <= 16, for tokens x[t]. n_tokens and n_rows are
 * constants. */
LANES_INLINE void ISA(f32_add)(struct lanes *sums, const struct f32_strip *s, const float *const *x,
                               int k, int n, int n_tokens, int n_rows)
{
    struct lanes row[F32_MAX_ROWS];
    LANES_UNROLL
    for (int r = 0; r < n_rows; r++) {
        row[r] = lanes_in_register(lanes_load_first(s->w[r] + k, n));
        if (n_tokens == 1 && F32_IS_PREFETCHED) // the same columns of a later row
            __builtin_prefetch(s->w[r] + k + (size_t)n_rows * (size_t)s->n_in);
    }
    LANES_UNROLL
    for (int t = 0; t < n_tokens; t++) {
        const struct lanes token = lanes_in_register(lanes_load_first(x[t] + k, n));
        LANES_UNROLL
        for (int r = 0; r < n_rows; r++)
            sums[t * n_rows + r] = lanes_mul_add(row[r], token, sums[t * n_rows + r]);
    }
}

/* to[t * n_rows + r], the product of token x[t] and weight row r. */
LANES_INLINE void ISA(f32_products)(float *to, const struct f32_strip *s, const float *const *x,
                                    int n_tokens, int n_rows)
{
    struct lanes sums[F32_TOKENS * F32_ROWS];
    const int n_whole = s->n_in / 16 * 16;
    LANES_UNROLL
    for (int t = 0; t < n_tokens; t++) {
        LANES_UNROLL
        for (int r = 0; r < n_rows; r++)
            sums[t * n_rows + r] = lanes_set(0.0f);
    }
    for (int k = 0; k < n_whole; k += 16)
        ISA(f32_add)(sums, s, x, k, 16, n_tokens, n_rows);
    if (n_whole < s->n_in)
        ISA(f32_add)(sums, s, x, n_whole, s->n_in - n_whole, n_tokens, n_rows);
    LANES_UNROLL
    for (int i = 0; i < n_tokens * n_rows; i += 4)
        lanes_sum_4(to + i, sums + i);
}

/* Tokens from `t` on, n_tokens at a time, while more than `rest` are left; the last one is
 * repeated. Returns the first token that is left. */
LANES_INLINE int ISA(f32_strip)(const struct f32_strip *s, int t, int rest, int n_tokens,
                                int n_rows)
{
    assert(s->n_rows > 0 && s->n_rows <= n_rows && s->n_tokens > 0);
    for (; t + rest < s->n_tokens; t += n_tokens) {
        const float *x[F32_TOKENS];
        float products[F32_TOKENS * F32_ROWS];
        LANES_UNROLL
        for (int i = 0; i < n_tokens; i++)
            x[i] = s->x + (size_t)qp_min(t + i, s->n_tokens - 1) * s->x_stride;
        ISA(f32_products)(products, s, x, n_tokens, n_rows);
        for (int i = 0; i < n_tokens && t + i < s->n_tokens; i++)
            for (int r = 0; r < s->n_rows; r++)
                s->y[(size_t)(t + i) * s->y_stride + (size_t)r] =
                    products[i * n_rows + r] + s->bias[r];
    }
    return t;
}

/* Not inlined, so that each has all registers. */
static __attribute__((noinline)) void ISA(f32_rest)(const struct f32_strip *s, int t)
{
    ISA(f32_strip)(s, t, 0, F32_REST, F32_ROWS);
}

static __attribute__((noinline)) void ISA(f32_many)(const struct f32_strip *s)
{
    const int t = ISA(f32_strip)(s, 0, F32_TOKENS > F32_REST ? F32_REST : 0, F32_TOKENS, F32_ROWS);
    if (F32_TOKENS > F32_REST && t < s->n_tokens)
        ISA(f32_rest)(s, t);
}

static __attribute__((noinline)) void ISA(f32_alone)(const struct f32_strip *s)
{
    ISA(f32_strip)(s, 0, 0, 1, F32_MAX_ROWS);
}

static void ISA(gemm_f32)(const struct out_view *out, const struct matrix *w,
                          const struct f32_rows *x, int begin, int end)
{
    static const struct f32_steps steps = {
        .many = ISA(f32_many),
        .alone = ISA(f32_alone),
        .n_rows = F32_ROWS,
        .n_tokens = F32_TOKENS,
    };
    assert(out->y && x->x && w->dtype == DTYPE_F32 && w->n_in > 0);
    assert(begin >= 0 && begin < end && end <= w->n_out);
    qp_multiply_f32(out, w, x, begin, end, &steps);
}

static void ISA(gemv_f32)(float *y, const struct matrix *w, const float *x, int begin, int end)
{
    const struct out_view out = { .y = y + begin };
    ISA(gemm_f32)(&out, w, &(struct f32_rows){ .x = x, .n = 1 }, begin, end);
}
