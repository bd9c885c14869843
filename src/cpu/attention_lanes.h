/* attention_lanes.h: the arithmetic steps of attention on sixteen lanes.
 * Contracts and order of rounding: scalar/attention_scalar.c, to the bit. How the steps are
 * combined: attention_blocks.c. A template, included after vector_lanes.h by a file that defines
 * ISA(). */
#include "cpu/attention_blocks.h"

/* struct square_product for n_rows rows and columns [column, column + 16 * n_columns). n_rows and
 * n_columns are constants. Where multipliers and adders are different units (Zen), a product and
 * its sum cost no more than a fused one, because the sums stay in registers. */
LANES_INLINE void ISA(product_columns)(const struct square_product *t, int column, int n_rows,
                                       int n_columns)
{
    struct lanes sum[PRODUCT_ROWS][PRODUCT_COLUMNS];
    LANES_UNROLL
    for (int r = 0; r < n_rows; r++) {
        const float *acc = t->acc + (size_t)r * t->acc_stride + column;
        LANES_UNROLL
        for (int j = 0; j < n_columns; j++)
            sum[r][j] = lanes_mul(lanes_load(acc + 16 * j), lanes_set(t->factors[r]));
    }
    const float *a = t->a, *b = t->b + column;
    for (int k = 0; k < t->n_k; k++, b += t->b_stride) {
        struct lanes v[PRODUCT_COLUMNS];
        LANES_UNROLL
        for (int j = 0; j < n_columns; j++)
            v[j] = lanes_load(b + 16 * j);
        LANES_UNROLL
        for (int r = 0; r < n_rows; r++) {
            const struct lanes weight = lanes_set(a[(size_t)r * t->a_stride + (size_t)k]);
            LANES_UNROLL
            for (int j = 0; j < n_columns; j++)
                sum[r][j] = lanes_mul_add(weight, v[j], sum[r][j]);
        }
    }
    LANES_UNROLL
    for (int r = 0; r < n_rows; r++) {
        float *acc = t->acc + (size_t)r * t->acc_stride + column;
        LANES_UNROLL
        for (int j = 0; j < n_columns; j++)
            lanes_store(acc + 16 * j, sum[r][j]);
    }
}

/* Not inlined, so that each number of rows has all registers. */
#define PRODUCT(name, n_rows)                                                                      \
    static __attribute__((noinline)) void name(const struct square_product *t)                     \
    {                                                                                              \
        int column = 0;                                                                            \
        for (; column + 16 * PRODUCT_COLUMNS <= t->n_columns; column += 16 * PRODUCT_COLUMNS)      \
            ISA(product_columns)(t, column, n_rows, PRODUCT_COLUMNS);                              \
        if (PRODUCT_COLUMNS > 2 && column + 32 <= t->n_columns) {                                  \
            ISA(product_columns)(t, column, n_rows, 2);                                            \
            column += 32;                                                                          \
        }                                                                                          \
        if (PRODUCT_COLUMNS > 1 && column < t->n_columns)                                          \
            ISA(product_columns)(t, column, n_rows, 1);                                            \
    }
PRODUCT(ISA(product_1), 1)
PRODUCT(ISA(product_2), 2)
#if PRODUCT_ROWS == 4
PRODUCT(ISA(product_3), 3)
PRODUCT(ISA(product_4), 4)
#endif

/* Replace the sums s by scores, -inf where a position is not visible to the row. Returns the
 * largest score, or m if that is larger. */
static inline float ISA(score_row)(const struct attention *a, int row, int pos, float *s, float m)
{
    float scale = a->scale;
    if (a->cap > 0.0f) {
        for (int j = 0; j < KV_BLOCK; j += 16)
            lanes_store(s + j, lanes_mul(lanes_load(s + j), lanes_set(scale)));
        ISA(soft_cap)(s, a->cap, KV_BLOCK);
        scale = 1.0f;
    }
    const float *bias = a->bias ? a->bias[row] + pos : NULL;
    const int begin = a->begin[row] - pos, end = a->end[row] - pos;
    struct lanes largest = lanes_set(m);
    for (int j = 0; j < KV_BLOCK; j += 16) {
        struct lanes v = lanes_mul(lanes_load(s + j), lanes_set(scale));
        if (bias)
            v = lanes_add(v, lanes_load(bias + j));
        v = lanes_select(lanes_range(begin - j, end - j), v, lanes_set(-INFINITY));
        lanes_store(s + j, v);
        largest = lanes_max(v, largest);
    }
    return lanes_largest(largest);
}

/* x[i] = exp(x[i] - max), n a multiple of 16; returns the sum. */
static float ISA(exp_all)(float *x, float max, int n)
{
    struct lanes sum = lanes_set(0.0f);
    for (int i = 0; i < n; i += 16) {
        const struct lanes p = lanes_exp(lanes_sub(lanes_load(x + i), lanes_set(max)));
        lanes_store(x + i, p);
        sum = lanes_add(sum, p);
    }
    return lanes_sum(sum);
}

static void ISA(softmax_rows)(const struct attention *a, struct attention_state *state, int pos)
{
    for (int r = 0; r < a->n_rows; r++) {
        const float m = ISA(score_row)(a, r, pos, state->s + r * KV_BLOCK, state->m[r]);
        state->c[r] = state->m[r] - m;
        state->m[r] = m;
    }
    ISA(exp_all)(state->c, 0.0f, a->n_rows);
    for (int r = 0; r < a->n_rows; r++) {
        const float sum = ISA(exp_all)(state->s + r * KV_BLOCK, state->m[r], KV_BLOCK);
        state->l[r] = state->l[r] * state->c[r] + sum;
    }
}

static void ISA(attend)(const struct attention *a)
{
    static const struct attention_steps steps = {
#if PRODUCT_ROWS == 4
        .product = { ISA(product_1), ISA(product_2), ISA(product_3), ISA(product_4) },
#else
        .product = { ISA(product_1), ISA(product_2) },
#endif
        .n_products = PRODUCT_ROWS,
        .softmax = ISA(softmax_rows),
    };
    qp_attend_blocks(a, &steps);
}

/* ---- scores of int8 keys ---- */

/* Add the bias to the scores s = row->s + j; returns them, -inf where they are not visible. */
LANES_INLINE struct lanes ISA(visible_scores)(float *s, int j, const struct softmax *row)
{
    struct lanes v = lanes_load(s);
    if (row->bias) {
        v = lanes_add(v, lanes_load(row->bias + j));
        lanes_store(s, v);
    }
    return lanes_select(lanes_range(row->begin - j, row->end - j), v, lanes_set(-INFINITY));
}

static void ISA(softmax)(struct softmax *row)
{
    const int n = row->n, begin = row->begin, end = row->end;
    const float *value_scales = row->value_scales;
    float *s = row->s;
    assert(s && value_scales && n > 0 && n % KV_BLOCK == 0 && begin >= 0 && end <= n);
    if (row->cap > 0.0f)
        ISA(soft_cap)(s, row->cap, n);
    struct lanes max = lanes_set(-INFINITY), max_16 = max, sum = lanes_set(0.0f);
    for (int j = 0; j < n; j += 32) { // two maxima, because one would wait for itself
        max = lanes_max(ISA(visible_scores)(s + j, j, row), max);
        max_16 = lanes_max(ISA(visible_scores)(s + j + 16, j + 16, row), max_16);
    }
    max = lanes_max(max, max_16);
    row->max = lanes_largest(max);
    max = lanes_set(row->max);
    for (int j = 0; j < n; j += 16) {
        const struct lanes_mask is_visible = lanes_range(begin - j, end - j);
        const struct lanes p = lanes_exp_fast(lanes_sub(lanes_load(s + j), max));
        sum = lanes_add(sum, lanes_keep(is_visible, p));
        const struct lanes scaled = lanes_mul(p, lanes_load(value_scales + j));
        lanes_store(s + j, lanes_keep(is_visible, scaled));
    }
    row->sum = lanes_sum(sum);
}
