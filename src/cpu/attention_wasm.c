/* attention_wasm.c: the three steps of attention_blocks.c on 128-bit registers.
 * In, out, order of rounding: attention_scalar.c, to the bit.
 * 4 rows of 8 columns keep 8 sums in registers, 2 rows of 16 as many: most machines have 16, and
 * the engine wants some for itself. 64 columns are several passes over the same rows. */
#include "cpu/attention_blocks.h"

#if defined(__wasm_simd128__)

#include "cpu/math_wasm.h"

/* Four binary16 as floats: exact for what the cache holds, which is finite. The fields move up, and
 * the product moves the exponent to where a float has it. */
INLINE_WASM v128_t widen_finite_wasm(const uint16_t *from)
{
    const v128_t half = wasm_i32x4_load16x4(from); // the sign is bit 31 already
    const v128_t bits = wasm_i32x4_shl(wasm_v128_and(half, wasm_i32x4_const_splat(0x7FFF)), 13);
    const v128_t sign = wasm_v128_and(half, wasm_i32x4_const_splat(INT32_MIN));
    return wasm_v128_or(sign, wasm_f32x4_mul(bits, wasm_f32x4_const_splat(0x1p112f)));
}

/* Floats [4 j, 4 j + 4) of a row. */
INLINE_WASM v128_t load_4_wasm(const void *row, int j, bool is_f16)
{
    return is_f16 ? widen_finite_wasm((const uint16_t *)row + 4 * j)
                  : wasm_v128_load((const float *)row + 4 * j);
}

static void widen_wasm(float *to, const uint16_t *from, size_t from_stride, int n_rows, int n_cols)
{
    for (int i = 0; i < n_rows; i++, from += from_stride, to += KV_BLOCK)
        for (int j = 0; j < KV_BLOCK; j += 4) {
            const int n = n_cols - j < 4 ? n_cols - j : 4;
            uint16_t last[4] = { 0 };
            if (n > 0 && n < 4)
                memcpy(last, from + j, (size_t)n * sizeof *from);
            wasm_v128_store(to + j, load_4_wasm(n == 4 ? from + j : last, 0, true));
        }
}

enum {
    MAX_PARTS_WASM = 4 // of 4 columns, in one pass
};

/* attention_steps.product for columns [column, column + 4 * n_parts); is_f16, n_rows and n_parts
 * are constants. */
INLINE_WASM void product_columns_wasm(const struct square_product *t, int column, bool is_f16,
                                      int n_rows, int n_parts)
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
    const float *a = t->a;
    const size_t element_bytes = is_f16 ? sizeof(uint16_t) : sizeof(float);
    const char *b = (const char *)t->b.data + (size_t)column * element_bytes;
    for (int k = 0; k < t->n_k; k++, b += t->b.stride * element_bytes) {
        v128_t part[MAX_PARTS_WASM];
        UNROLL_WASM
        for (int j = 0; j < n_parts; j++)
            part[j] = load_4_wasm(b, j, is_f16);
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

#define PRODUCT_WASM(name, is_f16, n_rows, n_parts)                                                \
    static __attribute__((noinline)) void name(const struct square_product *t)                     \
    {                                                                                              \
        for (int column = 0; column < KV_BLOCK; column += 4 * (n_parts))                           \
            product_columns_wasm(t, column, is_f16, n_rows, n_parts);                              \
    }
PRODUCT_WASM(product_f32_1_wasm, false, 1, 4)
PRODUCT_WASM(product_f32_2_wasm, false, 2, 4)
PRODUCT_WASM(product_f32_3_wasm, false, 3, 2)
PRODUCT_WASM(product_f32_4_wasm, false, 4, 2)
PRODUCT_WASM(product_f16_1_wasm, true, 1, 4)
PRODUCT_WASM(product_f16_2_wasm, true, 2, 4)
PRODUCT_WASM(product_f16_3_wasm, true, 3, 2)
PRODUCT_WASM(product_f16_4_wasm, true, 4, 2)

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

static void softmax_wasm(const struct attention *a, struct attention_state *state, int pos)
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
        .widen = widen_wasm,
        .product = { { product_f32_1_wasm, product_f32_2_wasm, product_f32_3_wasm,
                       product_f32_4_wasm },
                     { product_f16_1_wasm, product_f16_2_wasm, product_f16_3_wasm,
                       product_f16_4_wasm } },
        .softmax = softmax_wasm,
    };
    qp_attend_blocks(a, &steps);
}

void qp_attention_kernels_wasm(struct kernels *k)
{
    k->attend = attend_wasm;
}

#else

void qp_attention_kernels_wasm(struct kernels *k)
{
    (void)k;
}

#endif
