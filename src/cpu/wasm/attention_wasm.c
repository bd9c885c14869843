/* attention_wasm.c: the steps of attention on 128-bit registers.
 * In, out, order of rounding: attention_scalar.c, to the bit.
 * 4 rows of 8 columns keep 8 sums in registers, 2 rows of 16 as many: most machines have 16, and
 * the engine wants some for itself. 64 columns are several passes over the same rows. */
#include "cpu/attention_blocks.h"
#include "cpu/wasm/wasm.h"

#if defined(__wasm_simd128__)

#include "cpu/wasm/math_wasm.h"

enum {
    MAX_PARTS_WASM = 4 // of 4 columns, in one pass
};

/* attention_steps.product for columns [column, column + 4 * n_parts); n_rows and n_parts
 * are constants. */
INLINE_WASM void product_columns_wasm(const struct square_product *t, int column, int n_rows,
                                      int n_parts)
{
    v128_t sum[PRODUCT_ROWS][MAX_PARTS_WASM];
    UNROLL_WASM
    for (int r = 0; r < n_rows; r++) {
        const float *acc = t->acc + (size_t)r * t->acc_stride + column;
        UNROLL_WASM
        for (int j = 0; j < n_parts; j++)
            sum[r][j] =
                wasm_f32x4_mul(wasm_v128_load(acc + 4 * j), wasm_v128_load32_splat(t->factors + r));
    }
    const float *a = t->a, *b = t->b + column;
    for (int k = 0; k < t->n_k; k++, b += t->b_stride) {
        v128_t part[MAX_PARTS_WASM];
        UNROLL_WASM
        for (int j = 0; j < n_parts; j++)
            part[j] = wasm_v128_load(b + 4 * j);
        UNROLL_WASM
        for (int r = 0; r < n_rows; r++) {
            const v128_t weight = wasm_v128_load32_splat(a + (size_t)r * t->a_stride + (size_t)k);
            UNROLL_WASM
            for (int j = 0; j < n_parts; j++)
                sum[r][j] = wasm_f32x4_add(sum[r][j], wasm_f32x4_mul(part[j], weight));
        }
    }
    UNROLL_WASM
    for (int r = 0; r < n_rows; r++) {
        float *acc = t->acc + (size_t)r * t->acc_stride + column;
        UNROLL_WASM
        for (int j = 0; j < n_parts; j++)
            wasm_v128_store(acc + 4 * j, sum[r][j]);
    }
}

#define PRODUCT_WASM(name, n_rows, n_parts)                                                        \
    static __attribute__((noinline)) void name(const struct square_product *t)                     \
    {                                                                                              \
        for (int column = 0; column < KV_BLOCK; column += 4 * (n_parts))                           \
            product_columns_wasm(t, column, n_rows, n_parts);                                      \
    }
PRODUCT_WASM(product_1_wasm, 1, 4)
PRODUCT_WASM(product_2_wasm, 2, 4)
PRODUCT_WASM(product_3_wasm, 3, 2)
PRODUCT_WASM(product_4_wasm, 4, 2)

/* Sums to scores, -inf where the row does not see; returns the largest one, or m. */
static inline float score_row_wasm(const struct attention *a, int row, int pos, float *s, float m)
{
    const v128_t nothing = wasm_f32x4_splat(-INFINITY);
    v128_t largest = wasm_f32x4_splat(m);
    for (int j = 0; j < KV_BLOCK; j += 4) {
        v128_t v = wasm_f32x4_mul(wasm_v128_load(s + j), wasm_f32x4_splat(a->scale));
        if (a->cap > 0.0f) {
            v128_t cap = wasm_f32x4_splat(a->cap);
            v = wasm_f32x4_mul(cap, tanh_wasm(wasm_f32x4_div(v, cap)));
        }
        if (a->bias)
            v = wasm_f32x4_add(v, wasm_v128_load(a->bias[row] + pos + j));
        v128_t visible =
            wasm_v128_andnot(mask_wasm(a->end[row] - pos - j), mask_wasm(a->begin[row] - pos - j));
        v = wasm_v128_bitselect(v, nothing, visible);
        wasm_v128_store(s + j, v);
        largest = larger_wasm(v, largest);
    }
    return largest_wasm(largest);
}

/* Scores to probabilities; returns their sum. */
static inline float exp_row_wasm(float *s, float m)
{
    struct lanes_wasm lanes = zero_lanes_wasm();
    for (int j = 0; j < KV_BLOCK; j += 16) {
        for (int i = j; i < j + 16; i += 4)
            wasm_v128_store(s + i,
                            exp_wasm(wasm_f32x4_sub(wasm_v128_load(s + i), wasm_f32x4_splat(m))));
        lanes = add_lanes_wasm(lanes, load_lanes_wasm(s + j, 16));
    }
    return sum_of_lanes_wasm(lanes);
}

static void softmax_rows_wasm(const struct attention *a, struct attention_state *state, int pos)
{
    for (int r = 0; r < a->n_rows; r++) {
        float m = score_row_wasm(a, r, pos, state->s + r * KV_BLOCK, state->m[r]);
        state->c[r] = state->m[r] - m;
        state->m[r] = m;
    }
    for (int r = 0; r < a->n_rows; r += 4)
        wasm_v128_store(state->c + r, exp_wasm(wasm_v128_load(state->c + r)));
    for (int r = 0; r < a->n_rows; r++) {
        float sum = exp_row_wasm(state->s + r * KV_BLOCK, state->m[r]);
        state->l[r] = state->l[r] * state->c[r] + sum;
    }
}

static void attend_wasm(const struct attention *a)
{
    static const struct attention_steps steps = {
        .product = { product_1_wasm, product_2_wasm, product_3_wasm, product_4_wasm },
        .softmax = softmax_rows_wasm,
    };
    qp_attend_blocks(a, &steps);
}

/* ---- scores of int8 keys ---- */

/* All ones in those of columns [j, j + 4) that are seen. */
INLINE_WASM v128_t seen_wasm(const struct softmax *row, int j)
{
    return wasm_v128_andnot(mask_wasm(row->end - j), mask_wasm(row->begin - j));
}

/* Capped and biased, in place; returns the largest that is seen. */
INLINE_WASM float largest_score_wasm(const struct softmax *row)
{
    const v128_t nothing = wasm_f32x4_const_splat(-INFINITY), cap = wasm_f32x4_splat(row->cap);
    v128_t largest = nothing;
    for (int j = 0; j < row->n; j += 4) {
        v128_t v = wasm_v128_load(row->s + j);
        if (row->cap > 0.0f)
            v = wasm_f32x4_mul(cap, tanh_wasm(wasm_f32x4_div(v, cap)));
        if (row->bias)
            v = wasm_f32x4_add(v, wasm_v128_load(row->bias + j));
        wasm_v128_store(row->s + j, v);
        largest = larger_wasm(wasm_v128_bitselect(v, nothing, seen_wasm(row, j)), largest);
    }
    return largest_wasm(largest);
}

static void softmax_wasm(struct softmax *row)
{
    row->max = largest_score_wasm(row);
    const v128_t m = wasm_f32x4_splat(row->max);
    struct lanes_wasm lanes = zero_lanes_wasm();
    for (int j = 0; j < row->n; j += 16) {
        v128_t p[4];
        UNROLL_WASM
        for (int i = 0; i < 4; i++) {
            float *s = row->s + j + 4 * i;
            const v128_t seen = seen_wasm(row, j + 4 * i);
            p[i] = wasm_v128_and(exp_fast_wasm(wasm_f32x4_sub(wasm_v128_load(s), m)), seen);
            const v128_t scales = wasm_v128_load(row->value_scales + j + 4 * i);
            wasm_v128_store(s, wasm_v128_and(wasm_f32x4_mul(p[i], scales), seen));
        }
        lanes = add_lanes_wasm(lanes, (struct lanes_wasm){ p[0], p[1], p[2], p[3] });
    }
    row->sum = sum_of_lanes_wasm(lanes);
}

void qp_attention_kernels_wasm(struct kernels *k)
{
    k->softmax = softmax_wasm;
    k->attend = attend_wasm;
}

#endif
