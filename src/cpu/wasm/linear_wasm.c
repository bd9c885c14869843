/* linear_wasm.c: matrix products with WebAssembly's 128-bit SIMD, which every browser has.
 * In, out, order of rounding: scalar/linear_scalar.c, to the bit.
 *
 * The only integer product is i32x4.dot_i16x8: it multiplies eight pairs of int16 and adds them in
 * twos. Bytes are widened first. For one token the weights are widened as they are read, and q once
 * for eight rows; the weights of a tile are widened when it is packed.
 *
 * Tile, layout i16x8k2: eight groups of 8 rows, each
 * [n_in rounded up to ACT_BLOCK, / 2][8 rows][2 k] of int16, also for int4. */
#include "cpu/wasm/wasm.h"

#if defined(__wasm_simd128__)

#include "cpu/wasm/linear_wasm.h"

#include <assert.h>
#include <float.h>

/* ---- activations ---- */

/* x * factor, clamped and rounded to the nearest integer. */
INLINE_WASM v128_t round_clamped_wasm(v128_t x, v128_t factor)
{
    const v128_t shift = wasm_f32x4_const_splat(ROUND_TO_INTEGER);
    v128_t v = smaller_wasm(wasm_f32x4_mul(x, factor), wasm_f32x4_const_splat(127.0f));
    v = larger_wasm(v, wasm_f32x4_const_splat(-127.0f));
    return wasm_i32x4_sub(wasm_f32x4_add(v, shift), shift);
}

static void quantize_block_wasm(int8_t *q, float *scale, int32_t *offset, const float x[ACT_BLOCK])
{
    v128_t largest = wasm_f32x4_const_splat(0.0f);
    for (int i = 0; i < ACT_BLOCK; i += 4)
        largest = larger_wasm(wasm_f32x4_abs(wasm_v128_load(x + i)), largest);
    const float max = largest_wasm(largest);
    const float inverse = 127.0f / max;
    const v128_t factor = wasm_f32x4_splat(inverse < FLT_MAX ? inverse : FLT_MAX);
    v128_t sum = wasm_i16x8_const_splat(0);
    for (int i = 0; i < ACT_BLOCK; i += 16) {
        v128_t v[4];
        UNROLL_WASM
        for (int j = 0; j < 4; j++)
            v[j] = round_clamped_wasm(wasm_v128_load(x + i + 4 * j), factor);
        const v128_t low = wasm_i16x8_narrow_i32x4(v[0], v[1]);
        const v128_t high = wasm_i16x8_narrow_i32x4(v[2], v[3]);
        sum = wasm_i16x8_add(sum, wasm_i16x8_add(low, high)); // at most 8 * 127
        wasm_v128_store(q + i, wasm_i8x16_narrow_i16x8(low, high));
    }
    v128_t four = wasm_i32x4_extadd_pairwise_i16x8(sum);
    four = wasm_i32x4_add(four, wasm_i32x4_shuffle(four, four, 2, 3, 0, 1));
    *scale = max / 127.0f;
    *offset = -128 * (wasm_i32x4_extract_lane(four, 0) + wasm_i32x4_extract_lane(four, 1));
}

static void quantize_wasm(int8_t *q, float *scales, int32_t *offsets, const float *x, int n)
{
    assert(q && scales && offsets && x && n > 0);
    int i = 0, b = 0;
    for (; i + ACT_BLOCK <= n; i += ACT_BLOCK, b++)
        quantize_block_wasm(q + i, scales + b, offsets + b, x + i);
    if (i < n) {
        float tail[ACT_BLOCK] = { 0 };
        memcpy(tail, x + i, (size_t)(n - i) * sizeof(float));
        quantize_block_wasm(q + i, scales + b, offsets + b, tail);
    }
}

static void quantize_row_wasm(int8_t *q, float *scale, const float *x, int n)
{
    assert(q && scale && x && n > 0);
    v128_t largest = wasm_f32x4_const_splat(0.0f);
    for (int i = 0; i < n; i += 4)
        largest = larger_wasm(wasm_f32x4_abs(load_wasm(x + i, n - i)), largest);
    float max = largest_wasm(largest);
    max = max < FLT_MAX ? max : FLT_MAX;
    const float inverse = 127.0f / max;
    const v128_t factor = wasm_f32x4_splat(inverse < FLT_MAX ? inverse : FLT_MAX);
    for (int i = 0; i < n; i += 4) {
        v128_t v = round_clamped_wasm(load_wasm(x + i, n - i), factor);
        v = wasm_i16x8_narrow_i32x4(v, v);
        v = wasm_i8x16_narrow_i16x8(v, v);
        memcpy(q + i, &v, n - i < 4 ? (size_t)(n - i) : 4);
    }
    *scale = max / 127.0f;
}

/* ---- one token ---- */

INLINE_WASM void load_q_i8_wasm(v128_t to[8], const int8_t *q)
{
    UNROLL_WASM
    for (int i = 0; i < 8; i++)
        to[i] = wasm_i16x8_load8x8(q + 8 * i);
}

INLINE_WASM v128_t dot_i8_wasm(const uint8_t *w, const uint8_t *multipliers, size_t b,
                               const v128_t *q)
{
    (void)multipliers, (void)b;
    v128_t sum = wasm_i32x4_dot_i16x8(wasm_i16x8_load8x8(w), q[0]);
    UNROLL_WASM
    for (int i = 1; i < 8; i++)
        sum = wasm_i32x4_add(sum, wasm_i32x4_dot_i16x8(wasm_i16x8_load8x8(w + 8 * i), q[i]));
    return sum;
}

/* Two bytes of weights are the four nibbles of a 16-bit lane: q[4 h + j] has the k of half h that
 * are j modulo 4. */
INLINE_WASM void load_q_i4_wasm(v128_t to[8], const int8_t *q)
{
    UNROLL_WASM
    for (int h = 0; h < 2; h++) {
        const v128_t low = wasm_v128_load(q + 32 * h), high = wasm_v128_load(q + 32 * h + 16);
        UNROLL_WASM
        for (int j = 0; j < 4; j++)
            to[4 * h + j] = wasm_i16x8_narrow_i32x4(
                wasm_i32x4_shr(wasm_i32x4_shl(low, 24u - 8u * (unsigned)j), 24),
                wasm_i32x4_shr(wasm_i32x4_shl(high, 24u - 8u * (unsigned)j), 24));
    }
}

/* With the nibbles as they are stored, plus 8. */
INLINE_WASM v128_t dot_i4_wasm(const uint8_t *w, const uint8_t *multipliers, size_t b,
                               const v128_t *q)
{
    (void)multipliers, (void)b;
    const v128_t mask = wasm_i16x8_const_splat(15);
    v128_t sum = wasm_i32x4_const_splat(0);
    UNROLL_WASM
    for (int h = 0; h < 2; h++) {
        const v128_t u = wasm_v128_load(w + 16 * h);
        const v128_t n0 = wasm_v128_and(u, mask), n3 = wasm_u16x8_shr(u, 12);
        const v128_t n1 = wasm_v128_and(wasm_u16x8_shr(u, 4), mask);
        const v128_t n2 = wasm_v128_and(wasm_u16x8_shr(u, 8), mask);
        v128_t even = wasm_i32x4_add(wasm_i32x4_dot_i16x8(n0, q[4 * h]),
                                     wasm_i32x4_dot_i16x8(n2, q[4 * h + 2]));
        v128_t odd = wasm_i32x4_add(wasm_i32x4_dot_i16x8(n1, q[4 * h + 1]),
                                    wasm_i32x4_dot_i16x8(n3, q[4 * h + 3]));
        sum = wasm_i32x4_add(sum, wasm_i32x4_add(even, odd));
    }
    return sum;
}

static void gemv_i8_wasm(float *y, const struct matrix *w, const struct act_rows *x, int begin,
                         int end)
{
    gemv_rows_wasm(y, w, x, begin, end, DTYPE_I8, WEIGHTS_SIGNED, load_q_i8_wasm, dot_i8_wasm);
}

static void gemv_i4_wasm(float *y, const struct matrix *w, const struct act_rows *x, int begin,
                         int end)
{
    gemv_rows_wasm(y, w, x, begin, end, DTYPE_I4, WEIGHTS_PLUS_8, load_q_i4_wasm, dot_i4_wasm);
}

/* ---- one token, block-wise int4 ---- */

/* Of each 32 k: the first 16, even ones and odd ones, then the last 16. */
INLINE_WASM void load_q_i4_block_wasm(v128_t to[8], const int8_t *q)
{
    UNROLL_WASM
    for (int i = 0; i < 4; i++) {
        const v128_t words = wasm_v128_load(q + 16 * i);
        to[2 * i] = wasm_i16x8_shr(wasm_i16x8_shl(words, 8), 8);
        to[2 * i + 1] = wasm_i16x8_shr(words, 8);
    }
}

/* A table turns codes into their values, at most 15. The sum of four of their products fits 16
 * bits, so that dot_i16x8 can multiply it by the multiplier. */
INLINE_WASM v128_t dot_i4_block_wasm(const uint8_t *w, const uint8_t *multipliers, size_t b,
                                     const v128_t *q)
{
    const v128_t values = wasm_v128_load(qp_i4_block_values[1]), mask = wasm_i8x16_const_splat(15);
    v128_t sum = wasm_i32x4_const_splat(0);
    UNROLL_WASM
    for (int h = 0; h < 2; h++) {
        const v128_t u = wasm_v128_load(w + 16 * h);
        const v128_t even = wasm_i8x16_swizzle(values, wasm_v128_and(u, mask));
        const v128_t odd = wasm_i8x16_swizzle(values, wasm_v128_and(wasm_u16x8_shr(u, 4), mask));
        const v128_t first =
            wasm_i32x4_add(wasm_i32x4_dot_i16x8(wasm_i16x8_extend_low_i8x16(even), q[4 * h]),
                           wasm_i32x4_dot_i16x8(wasm_i16x8_extend_low_i8x16(odd), q[4 * h + 1]));
        const v128_t last =
            wasm_i32x4_add(wasm_i32x4_dot_i16x8(wasm_i16x8_extend_high_i8x16(even), q[4 * h + 2]),
                           wasm_i32x4_dot_i16x8(wasm_i16x8_extend_high_i8x16(odd), q[4 * h + 3]));
        const v128_t both = multipliers_wasm(multipliers, b, h == 1);
        const v128_t m0 = wasm_i64x2_shuffle(both, both, 0, 0);
        const v128_t m1 = wasm_i64x2_shuffle(both, both, 1, 1);
        sum = wasm_i32x4_add(
            sum, wasm_i32x4_add(wasm_i32x4_dot_i16x8(first, m0), wasm_i32x4_dot_i16x8(last, m1)));
    }
    return sum;
}

static void gemv_i4_block_wasm(float *y, const struct matrix *w, const struct act_rows *x,
                               int begin, int end)
{
    gemv_rows_wasm(y, w, x, begin, end, DTYPE_I4_BLOCK, WEIGHTS_SIGNED, load_q_i4_block_wasm,
                   dot_i4_block_wasm);
}

/* ---- tiles ---- */

static size_t tile_bytes_wasm(int n_in)
{
    return TILE_ROWS * sizeof(int16_t) * qp_round_up((size_t)n_in, ACT_BLOCK);
}

INLINE_WASM v128_t weights_i8_wasm(const uint8_t *w, int multiplier)
{
    (void)multiplier;
    return wasm_v128_load(w);
}

INLINE_WASM v128_t weights_i4_wasm(const uint8_t *w, int multiplier)
{
    (void)multiplier;
    return wasm_i8x16_sub(nibbles_wasm(w), wasm_i8x16_const_splat(8));
}

INLINE_WASM void store_step_k2_wasm(uint8_t *to, v128_t row[4])
{
    v128_t low[4], high[4];
    UNROLL_WASM
    for (int i = 0; i < 4; i++) {
        low[i] = wasm_i16x8_extend_low_i8x16(row[i]);
        high[i] = wasm_i16x8_extend_high_i8x16(row[i]);
    }
    transpose_wasm(low);
    transpose_wasm(high);
    UNROLL_WASM
    for (int i = 0; i < 4; i++) {
        wasm_v128_store(to + i * ROWS_WASM * 4, low[i]);
        wasm_v128_store(to + (4 + i) * ROWS_WASM * 4, high[i]);
    }
}

static void pack_wasm(void *tile, const struct matrix *w, int row, int n_rows)
{
    if (w->dtype == DTYPE_I8)
        pack_rows_wasm(tile, w, row, n_rows, DTYPE_I8, sizeof(int16_t), weights_i8_wasm,
                       store_step_k2_wasm);
    else if (w->dtype == DTYPE_I4)
        pack_rows_wasm(tile, w, row, n_rows, DTYPE_I4, sizeof(int16_t), weights_i4_wasm,
                       store_step_k2_wasm);
    else
        pack_rows_wasm(tile, w, row, n_rows, DTYPE_I4_BLOCK, sizeof(int16_t), codes_to_bytes_wasm,
                       store_step_k2_wasm);
}

/* ---- many tokens against a tile ---- */

// clang-format off
#define START_WASM(t) \
    v128_t low##t = wasm_i32x4_const_splat(0), high##t = low##t;
#define STEP_K2_WASM(t) { \
    const v128_t x = wasm_v128_load32_splat((const int16_t *)token[t].q + k); \
    low##t = wasm_i32x4_add(low##t, wasm_i32x4_dot_i16x8(w0, x)); \
    high##t = wasm_i32x4_add(high##t, wasm_i32x4_dot_i16x8(w1, x)); }
#define SCALE_WASM(t) { \
    const v128_t scale = wasm_v128_load32_splat(token[t].scales + b); \
    sums[t][0] = scale_dots_wasm(sums[t][0], scale, low##t); \
    sums[t][1] = scale_dots_wasm(sums[t][1], scale, high##t); }
// clang-format on

__attribute__((noinline)) static void gemm_blocks_k2_wasm(v128_t sums[TOKENS_WASM][2],
                                                          const uint8_t *group,
                                                          const struct token_wasm *token,
                                                          int n_blocks)
{
    assert(n_blocks > 0 && n_blocks <= GEMM_K_WASM / ACT_BLOCK);
    for (int b = 0, k = 0; b < n_blocks; b++) {
        EACH_TOKEN_WASM(START_WASM)
        for (int end = k + ACT_BLOCK; k < end; k += 2, group += 2 * 2 * ROWS_WASM) {
            const v128_t w0 = wasm_v128_load(group), w1 = wasm_v128_load(group + 16);
            EACH_TOKEN_WASM(STEP_K2_WASM)
        }
        EACH_TOKEN_WASM(SCALE_WASM)
    }
}

static void gemm_wasm(const struct out_view *out, const void *tile, const struct matrix *w,
                      const struct act_rows *x, int row, int n_rows)
{
    int16_t wide[TOKENS_WASM][GEMM_K_WASM];
    gemm_groups_wasm(out, tile, w, x, row, n_rows, wide, gemm_blocks_k2_wasm);
}

void qp_linear_kernels_wasm(struct kernels *k)
{
    k->quantize = quantize_wasm;
    k->quantize_row = quantize_row_wasm;
    k->gemv_i8 = gemv_i8_wasm;
    k->gemv_i4 = gemv_i4_wasm;
    k->gemv_i4_block = gemv_i4_block_wasm;
    k->tile_bytes = tile_bytes_wasm;
    k->tile_order = (struct tile_order){ ROWS_WASM, 2, ROWS_WASM, 2, 2, 0 };
    k->pack = pack_wasm;
    k->gemm = gemm_wasm;
}

#endif
