/* linear_dotprod.c: matrix products with sdot (Cortex-A75, A55, Apple A12 on), which adds four
 * signed products to each int32 lane. In, out, order of rounding: scalar/linear_scalar.c, to the
 * bit.
 *
 * Tile, layout i8x4k4: eight groups of 8 rows, each [n_in rounded up to ACT_BLOCK, / 16][2 halves]
 * [4 steps][4 rows][4 k]. One vector of weights is four rows of the same four k. It is multiplied
 * by one element, four k, of a token's 16 k. */
#include "cpu/arm/arm.h"
#include "cpu/gemv_rows.h"
#include "format/dtype.h"

#if defined(__aarch64__)

#include "cpu/arm/linear_neon.h"

#include <assert.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif

/* ---- few tokens ---- */

INLINE_NEON int32x4_t block_dot_dotprod(const struct block_neon *w, const struct block_neon *q)
{
    int32x4_t sum = vdotq_s32(vdupq_n_s32(0), w->v[0], q->v[0]);
    sum = vdotq_s32(sum, w->v[1], q->v[1]);
    sum = vdotq_s32(sum, w->v[2], q->v[2]);
    return vdotq_s32(sum, w->v[3], q->v[3]);
}

INLINE_NEON int32x4_t half_dot_dotprod(int8x16_t low, int8x16_t high, int8x16_t even, int8x16_t odd)
{
    return vdotq_s32(vdotq_s32(vdupq_n_s32(0), low, even), high, odd);
}

INLINE_NEON void dot_i8_dotprod(int32_t *parts, const uint8_t *w, const uint8_t *multipliers,
                                const int8_t *q, size_t q_stride, int n_tokens, bool is_pair)
{
    (void)multipliers;
    dot_pair_i8_neon(parts, w, q, q_stride, n_tokens, is_pair, block_dot_dotprod);
}

INLINE_NEON void dot_i4_dotprod(int32_t *parts, const uint8_t *w, const uint8_t *multipliers,
                                const int8_t *q, size_t q_stride, int n_tokens, bool is_pair)
{
    (void)multipliers;
    dot_pair_i4_neon(parts, w, q, q_stride, n_tokens, is_pair, block_dot_dotprod);
}

INLINE_NEON void dot_i4_block_dotprod(int32_t *parts, const uint8_t *w, const uint8_t *multipliers,
                                      const int8_t *q, size_t q_stride, int n_tokens, bool is_pair)
{
    dot_pair_i4_block_neon(parts, w, multipliers, q, q_stride, n_tokens, is_pair, half_dot_dotprod);
}

static const struct gemv_level level_dotprod = {
    .i8 = { .block_bytes = ACT_BLOCK, .q_block_bytes = ACT_BLOCK, .dot = dot_i8_dotprod },
    .i4 = { .block_bytes = ACT_BLOCK / 2,
            .q_block_bytes = ACT_BLOCK,
            .is_plus_8 = true,
            .sort = sort_i4_neon,
            .dot = dot_i4_dotprod },
    .i4_block = { .block_bytes = ACT_BLOCK / 2,
                  .q_block_bytes = ACT_BLOCK,
                  .sort = sort_i4_neon,
                  .dot = dot_i4_block_dotprod },
    .add = add_parts_neon,
    .store = store_sums_neon,
};

static void gemm_few_dotprod(const struct out_view *out, const struct matrix *w,
                             const struct act_rows *x, int begin, int end)
{
    gemv_rows(out, w, x, begin, end, &level_dotprod, false);
}

static void gemv_dotprod(float *y, const struct matrix *w, const struct act_rows *x, int begin,
                         int end)
{
    gemm_few_dotprod(&(struct out_view){ .y = y }, w, x, begin, end);
}

/* ---- tiles ---- */

INLINE_NEON void store_step_k4(int8_t *to, const int8x16_t row[ROWS_NEON])
{
    for (int r = 0; r < ROWS_NEON; r += 4) {
        const int32x4x4_t four = { { vreinterpretq_s32_s8(row[r]), vreinterpretq_s32_s8(row[r + 1]),
                                     vreinterpretq_s32_s8(row[r + 2]),
                                     vreinterpretq_s32_s8(row[r + 3]) } };
        vst4q_s32((int32_t *)(void *)(to + r * STEP_NEON), four);
    }
}

static void pack_dotprod(void *tile, const struct matrix *w, int row, int n_rows)
{
    pack_groups_neon(tile, w, row, n_rows, store_step_k4);
}

/* ---- many tokens against a tile: 8 tokens x 8 rows, or 4 x 8 for the last ones ----
 * 16 accumulators, eight vectors of activations, two of weights. The float sums are in L1 and used
 * once in 16 steps. */

INLINE_NEON void store_q_k4(int8_t *to, const int8_t *const q[TOKENS_NEON], size_t k, int n_tokens)
{
    for (int t = 0; t < n_tokens; t++)
        vst1q_s8(to + t * STEP_NEON, vld1q_s8(q[t] + k));
}

/* A macro, because the lane must be a constant of the instruction. */
#define STEP_DOTPROD(i)                                                                            \
    {                                                                                              \
        const int8x16_t low = vld1q_s8(group + 16 * (i)), high = vld1q_s8(group + 64 + 16 * (i));  \
        UNROLL_TOKENS                                                                              \
        for (int t = 0; t < n_tokens; t++) {                                                       \
            dots[t][0] = vdotq_laneq_s32(dots[t][0], low, x[t], i);                                \
            dots[t][1] = vdotq_laneq_s32(dots[t][1], high, x[t], i);                               \
        }                                                                                          \
    }

/* n_tokens is a constant where this is inlined. */
INLINE_NEON void gemm_some_dotprod(float sums[TOKENS_NEON][ROWS_NEON], const int8_t *group,
                                   const struct tokens_neon *tokens, int n_blocks, int n_tokens)
{
    assert(n_blocks > 0 && n_blocks <= GEMM_K_NEON / ACT_BLOCK);
    const int8_t *q = tokens->q;
    for (int b = 0; b < n_blocks; b++) {
        int32x4_t dots[TOKENS_NEON][2];
        UNROLL_TOKENS
        for (int t = 0; t < n_tokens; t++)
            dots[t][0] = dots[t][1] = vdupq_n_s32(0);
        for (int k = 0; k < ACT_BLOCK; k += STEP_NEON) {
            int8x16_t x[TOKENS_NEON];
            UNROLL_TOKENS
            for (int t = 0; t < n_tokens; t++)
                x[t] = vld1q_s8(q + t * STEP_NEON);
            STEP_DOTPROD(0)
            STEP_DOTPROD(1)
            STEP_DOTPROD(2)
            STEP_DOTPROD(3)
            q += n_tokens * STEP_NEON;
            group += ROWS_NEON * STEP_NEON;
        }
        UNROLL_TOKENS
        for (int t = 0; t < n_tokens; t++) {
            const float scale = tokens->scales[b][t];
            float *sum = sums[t];
            vst1q_f32(sum, scale_dots_neon(vld1q_f32(sum), scale, dots[t][0]));
            vst1q_f32(sum + 4, scale_dots_neon(vld1q_f32(sum + 4), scale, dots[t][1]));
        }
    }
}

/* Not inlined, so that each has all registers. */
__attribute__((noinline)) static void gemm_blocks_dotprod(float sums[TOKENS_NEON][ROWS_NEON],
                                                          const int8_t *group,
                                                          const struct tokens_neon *tokens,
                                                          int n_blocks)
{
    gemm_some_dotprod(sums, group, tokens, n_blocks, 8);
}

__attribute__((noinline)) static void gemm_half_blocks_dotprod(float sums[TOKENS_NEON][ROWS_NEON],
                                                               const int8_t *group,
                                                               const struct tokens_neon *tokens,
                                                               int n_blocks)
{
    gemm_some_dotprod(sums, group, tokens, n_blocks, 4);
}

static void gemm_dotprod(const struct out_view *out, const void *tile, const struct matrix *w,
                         const struct act_rows *x, int row, int n_rows)
{
    static const struct gemm_level_neon level = {
        .n_tokens = 8,
        .store_q = store_q_k4,
        .blocks = gemm_blocks_dotprod,
        .half_blocks = gemm_half_blocks_dotprod,
    };
    gemm_groups_neon(out, tile, w, x, row, n_rows, &level);
}

void qp_linear_kernels_dotprod(struct kernels *k)
{
    k->gemv_i8 = k->gemv_i4 = k->gemv_i4_block = gemv_dotprod;
    k->few_tokens = 3; // more are faster by sdot's tiles, which share the packing
    k->gemm_few = gemm_few_dotprod;
    k->tile_order = (struct tile_order){ ROWS_NEON, STEP_NEON, 4, 4, 1, 0 };
    k->pack = pack_dotprod;
    k->gemm = gemm_dotprod;
}

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
