/* linear_neon.c: matrix products with what every 64-bit ARM has (Cortex-A53, A72).
 * In, out, order of rounding: scalar/linear_scalar.c, to the bit.
 *
 * smull multiplies eight bytes to int16, smlal adds eight more products. Two products of int8 are
 * at most 2 * 128 * 127, which fits int16; a pairwise add then widens them. Products of int4 are at
 * most 8 * 127, or 15 * 127 with stored nibbles, so int16 holds the sum of a whole block, eight
 * products in a lane.
 *
 * Tile, layout i8x8k16: eight groups of 8 rows, each
 * [n_in rounded up to ACT_BLOCK, / 16][8 rows][16 k]. */
#include "cpu/arm/arm.h"
#include "cpu/gemv_rows.h"
#include "format/dtype.h"

#if defined(__aarch64__)

#include "cpu/arm/linear_neon.h"

#include <assert.h>
#include <float.h>

/* ---- activations ---- */

static void quantize_block_neon(int8_t *q, float *scale, int32_t *offset, const float x[ACT_BLOCK])
{
    float32x4_t largest = vdupq_n_f32(0.0f);
    for (int i = 0; i < ACT_BLOCK; i += 4)
        largest = larger_neon(vabsq_f32(vld1q_f32(x + i)), largest);
    float max = vmaxvq_f32(largest); // no lane is NaN
    float inverse = 127.0f / max;
    inverse = inverse < FLT_MAX ? inverse : FLT_MAX;
    int32x4_t sum = vdupq_n_s32(0);
    for (int i = 0; i < ACT_BLOCK; i += 8) {
        int16x4_t words[2];
        for (int j = 0; j < 2; j++) {
            float32x4_t v = vmulq_n_f32(vld1q_f32(x + i + 4 * j), inverse);
            v = smaller_neon(v, vdupq_n_f32(127.0f));
            v = larger_neon(v, vdupq_n_f32(-127.0f));
            int32x4_t rounded = vcvtnq_s32_f32(v);
            sum = vaddq_s32(sum, rounded);
            words[j] = vmovn_s32(rounded);
        }
        vst1_s8(q + i, vmovn_s16(vcombine_s16(words[0], words[1])));
    }
    *scale = max / 127.0f;
    *offset = -128 * vaddvq_s32(sum);
}

static void quantize_neon(int8_t *q, float *scales, int32_t *offsets, const float *x, int n)
{
    assert(q && scales && offsets && x && n > 0);
    int i = 0, b = 0;
    for (; i + ACT_BLOCK <= n; i += ACT_BLOCK, b++)
        quantize_block_neon(q + i, scales + b, offsets + b, x + i);
    if (i < n) {
        float tail[ACT_BLOCK] = { 0 };
        memcpy(tail, x + i, (size_t)(n - i) * sizeof(float));
        quantize_block_neon(q + i, scales + b, offsets + b, tail);
    }
}

static void quantize_row_neon(int8_t *q, float *scale, const float *x, int n)
{
    assert(q && scale && x && n > 0);
    float32x4_t largest = vdupq_n_f32(0.0f);
    for (int i = 0; i < n; i += 4)
        largest = larger_neon(vabsq_f32(load_neon(x + i, n - i)), largest);
    float max = vmaxvq_f32(largest); // no lane is NaN
    max = max < FLT_MAX ? max : FLT_MAX;
    float inverse = 127.0f / max;
    inverse = inverse < FLT_MAX ? inverse : FLT_MAX;
    for (int i = 0; i < n; i += 4) {
        float32x4_t v = vmulq_n_f32(load_neon(x + i, n - i), inverse);
        v = smaller_neon(v, vdupq_n_f32(127.0f));
        v = larger_neon(v, vdupq_n_f32(-127.0f));
        int16x4_t words = vmovn_s32(vcvtnq_s32_f32(v));
        int8_t bytes[8];
        vst1_s8(bytes, vmovn_s16(vcombine_s16(words, words)));
        memcpy(q + i, bytes, n - i < 4 ? (size_t)(n - i) : 4);
    }
    *scale = max / 127.0f;
}

/* ---- few tokens ---- */

/* a * b, 16 products as eight sums of two */
static inline int16x8_t mul_pairs_neon(int8x16_t a, int8x16_t b)
{
    return vmlal_high_s8(vmull_s8(vget_low_s8(a), vget_low_s8(b)), a, b);
}

static inline int16x8_t mul_add_pairs_neon(int16x8_t sum, int8x16_t a, int8x16_t b)
{
    return vmlal_high_s8(vmlal_s8(sum, vget_low_s8(a), vget_low_s8(b)), a, b);
}

INLINE_NEON int32x4_t block_dot_base_neon_i8(const struct block_neon *w, const struct block_neon *q)
{
    int32x4_t sum = vpaddlq_s16(mul_pairs_neon(w->v[0], q->v[0]));
    sum = vpadalq_s16(sum, mul_pairs_neon(w->v[1], q->v[1]));
    sum = vpadalq_s16(sum, mul_pairs_neon(w->v[2], q->v[2]));
    return vpadalq_s16(sum, mul_pairs_neon(w->v[3], q->v[3]));
}

INLINE_NEON int32x4_t block_dot_base_neon_i4(const struct block_neon *w, const struct block_neon *q)
{
    int16x8_t sum = mul_pairs_neon(w->v[0], q->v[0]);
    sum = mul_add_pairs_neon(sum, w->v[1], q->v[1]);
    sum = mul_add_pairs_neon(sum, w->v[2], q->v[2]);
    return vpaddlq_s16(mul_add_pairs_neon(sum, w->v[3], q->v[3]));
}

INLINE_NEON int32x4_t half_dot_base_neon(int8x16_t low, int8x16_t high, int8x16_t even,
                                         int8x16_t odd)
{
    int16x8_t first = vmull_s8(vget_low_s8(low), vget_low_s8(even));
    first = vmlal_s8(first, vget_low_s8(high), vget_low_s8(odd));
    const int16x8_t second = vmlal_high_s8(vmull_high_s8(low, even), high, odd);
    return vpaddq_s32(vpaddlq_s16(first), vpaddlq_s16(second));
}

INLINE_NEON void dot_i8_neon(int32_t *parts, const uint8_t *w, const uint8_t *multipliers,
                             const int8_t *q, size_t q_stride, int n_tokens, bool is_pair)
{
    (void)multipliers;
    dot_pair_i8_neon(parts, w, q, q_stride, n_tokens, is_pair, block_dot_base_neon_i8);
}

INLINE_NEON void dot_i4_neon(int32_t *parts, const uint8_t *w, const uint8_t *multipliers,
                             const int8_t *q, size_t q_stride, int n_tokens, bool is_pair)
{
    (void)multipliers;
    dot_pair_i4_neon(parts, w, q, q_stride, n_tokens, is_pair, block_dot_base_neon_i4);
}

INLINE_NEON void dot_i4_block_neon(int32_t *parts, const uint8_t *w, const uint8_t *multipliers,
                                   const int8_t *q, size_t q_stride, int n_tokens, bool is_pair)
{
    dot_pair_i4_block_neon(parts, w, multipliers, q, q_stride, n_tokens, is_pair,
                           half_dot_base_neon);
}

static const struct gemv_level level_neon = {
    .i8 = { .block_bytes = ACT_BLOCK, .q_block_bytes = ACT_BLOCK, .dot = dot_i8_neon },
    .i4 = { .block_bytes = ACT_BLOCK / 2,
            .q_block_bytes = ACT_BLOCK,
            .is_plus_8 = true,
            .sort = sort_i4_neon,
            .dot = dot_i4_neon },
    .i4_block = { .block_bytes = ACT_BLOCK / 2,
                  .q_block_bytes = ACT_BLOCK,
                  .sort = sort_i4_neon,
                  .dot = dot_i4_block_neon },
    .add = add_parts_neon,
    .store = store_sums_neon,
};

static void gemm_few_neon(const struct out_view *out, const struct matrix *w,
                          const struct act_rows *x, int begin, int end)
{
    gemv_rows(out, w, x, begin, end, &level_neon, false);
}

static void gemv_neon(float *y, const struct matrix *w, const struct act_rows *x, int begin,
                      int end)
{
    gemm_few_neon(&(struct out_view){ .y = y }, w, x, begin, end);
}

/* ---- tiles ---- */

INLINE_NEON void store_step_k16(int8_t *to, const int8x16_t row[ROWS_NEON])
{
    for (int r = 0; r < ROWS_NEON; r++)
        vst1q_s8(to + r * STEP_NEON, row[r]);
}

static void pack_neon(void *tile, const struct matrix *w, int row, int n_rows)
{
    pack_groups_neon(tile, w, row, n_rows, store_step_k16);
}

/* ---- many tokens against a tile: 2 tokens x 8 rows ----
 * 16 accumulators, each with partial sums of one token's product with one row. The float sums are
 * in L1 and used once in four steps. */
enum {
    GEMM_TOKENS_NEON = 2
};

INLINE_NEON void store_q_k16(int8_t *to, const int8_t *const q[TOKENS_NEON], size_t k, int n_tokens)
{
    for (int t = 0; t < n_tokens; t++)
        vst1q_s8(to + t * STEP_NEON, vld1q_s8(q[t] + k));
}

/* Add one block: dots[r] is a token's product with row r, in four partial sums. */
static inline void scale_block_neon(float sums[ROWS_NEON], float scale,
                                    const int32x4_t dots[ROWS_NEON])
{
    int32x4_t low = sum_quads_neon(dots[0], dots[1], dots[2], dots[3]);
    int32x4_t high = sum_quads_neon(dots[4], dots[5], dots[6], dots[7]);
    vst1q_f32(sums, scale_dots_neon(vld1q_f32(sums), scale, low));
    vst1q_f32(sums + 4, scale_dots_neon(vld1q_f32(sums + 4), scale, high));
}

__attribute__((noinline)) static void gemm_blocks_i8_neon(float sums[TOKENS_NEON][ROWS_NEON],
                                                          const int8_t *group,
                                                          const struct tokens_neon *tokens,
                                                          int n_blocks)
{
    assert(n_blocks > 0 && n_blocks <= GEMM_K_NEON / ACT_BLOCK);
    const int8_t *q = tokens->q;
    for (int b = 0; b < n_blocks; b++) {
        int32x4_t dots[GEMM_TOKENS_NEON][ROWS_NEON];
        UNROLL_TOKENS
        for (int r = 0; r < ROWS_NEON; r++)
            dots[0][r] = dots[1][r] = vdupq_n_s32(0);
        for (int k = 0; k < ACT_BLOCK; k += STEP_NEON) {
            const int8x16_t x0 = vld1q_s8(q), x1 = vld1q_s8(q + STEP_NEON);
            UNROLL_TOKENS
            for (int r = 0; r < ROWS_NEON; r++) {
                const int8x16_t w = vld1q_s8(group + r * STEP_NEON);
                dots[0][r] = vpadalq_s16(dots[0][r], mul_pairs_neon(w, x0));
                dots[1][r] = vpadalq_s16(dots[1][r], mul_pairs_neon(w, x1));
            }
            q += GEMM_TOKENS_NEON * STEP_NEON;
            group += ROWS_NEON * STEP_NEON;
        }
        scale_block_neon(sums[0], tokens->scales[b][0], dots[0]);
        scale_block_neon(sums[1], tokens->scales[b][1], dots[1]);
    }
}

/* The sums of a block stay in int16. */
__attribute__((noinline)) static void gemm_blocks_i4_neon(float sums[TOKENS_NEON][ROWS_NEON],
                                                          const int8_t *group,
                                                          const struct tokens_neon *tokens,
                                                          int n_blocks)
{
    assert(n_blocks > 0 && n_blocks <= GEMM_K_NEON / ACT_BLOCK);
    const int8_t *q = tokens->q;
    for (int b = 0; b < n_blocks; b++) {
        int16x8_t words[GEMM_TOKENS_NEON][ROWS_NEON];
        UNROLL_TOKENS
        for (int r = 0; r < ROWS_NEON; r++)
            words[0][r] = words[1][r] = vdupq_n_s16(0);
        for (int k = 0; k < ACT_BLOCK; k += STEP_NEON) {
            const int8x16_t x0 = vld1q_s8(q), x1 = vld1q_s8(q + STEP_NEON);
            UNROLL_TOKENS
            for (int r = 0; r < ROWS_NEON; r++) {
                const int8x16_t w = vld1q_s8(group + r * STEP_NEON);
                words[0][r] = mul_add_pairs_neon(words[0][r], w, x0);
                words[1][r] = mul_add_pairs_neon(words[1][r], w, x1);
            }
            q += GEMM_TOKENS_NEON * STEP_NEON;
            group += ROWS_NEON * STEP_NEON;
        }
        int32x4_t dots[GEMM_TOKENS_NEON][ROWS_NEON];
        UNROLL_TOKENS
        for (int r = 0; r < ROWS_NEON; r++) {
            dots[0][r] = vpaddlq_s16(words[0][r]);
            dots[1][r] = vpaddlq_s16(words[1][r]);
        }
        scale_block_neon(sums[0], tokens->scales[b][0], dots[0]);
        scale_block_neon(sums[1], tokens->scales[b][1], dots[1]);
    }
}

static void gemm_neon(const struct out_view *out, const void *tile, const struct matrix *w,
                      const struct act_rows *x, int row, int n_rows)
{
    const struct gemm_level_neon level = {
        .n_tokens = GEMM_TOKENS_NEON,
        .store_q = store_q_k16,
        .blocks = w->dtype == DTYPE_I4 ? gemm_blocks_i4_neon : gemm_blocks_i8_neon,
    };
    gemm_groups_neon(out, tile, w, x, row, n_rows, &level);
}

void qp_linear_kernels_neon(struct kernels *k)
{
    k->quantize = quantize_neon;
    k->gemv_i8 = k->gemv_i4 = k->gemv_i4_block = gemv_neon;
    k->few_tokens = FEW_TOKENS;
    k->gemm_few = gemm_few_neon;
    k->quantize_row = quantize_row_neon;
    k->tile_bytes = tile_bytes_neon;
    k->tile_order = (struct tile_order){ ROWS_NEON, STEP_NEON, ROWS_NEON, STEP_NEON, 1, 0 };
    k->pack = pack_neon;
    k->gemm = gemm_neon;
}

#endif
