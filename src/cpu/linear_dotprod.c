/* linear_dotprod.c: matrix products with sdot (Cortex-A75, A55, Apple A12 on): four signed products
 * added to each int32 lane.
 * In, out, order of rounding: linear_scalar.c, to the bit.
 *
 * Tile: i8x4k4: eight groups of 8 rows, each [n_in rounded up to ACT_BLOCK, / 16][2 halves]
 * [4 steps][4 rows][4 k]: one vector of weights is four rows of the same four k, and a quarter of
 * the token's 16 k is taken by element against it. */
#include "cpu/kernels.h"
#include "format/format.h"

#if defined(__aarch64__)

#include "cpu/linear_neon.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif

/* ---- one token ---- */

INLINE_NEON int32x4_t dot_i8_dotprod(const uint8_t *w, const struct q_block_neon *q)
{
    const int8_t *s = (const int8_t *)w;
    int32x4_t sum = vdotq_s32(vdupq_n_s32(0), vld1q_s8(s), q->v[0]);
    sum = vdotq_s32(sum, vld1q_s8(s + 16), q->v[1]);
    sum = vdotq_s32(sum, vld1q_s8(s + 32), q->v[2]);
    return vdotq_s32(sum, vld1q_s8(s + 48), q->v[3]);
}

INLINE_NEON int32x4_t dot_i4_dotprod(const uint8_t *w, const struct q_block_neon *q)
{
    const uint8x16_t nibble = vdupq_n_u8(15);
    uint8x16_t first = vld1q_u8(w), second = vld1q_u8(w + 16);
    int32x4_t sum =
        vdotq_s32(vdupq_n_s32(0), vreinterpretq_s8_u8(vandq_u8(first, nibble)), q->v[0]);
    sum = vdotq_s32(sum, vreinterpretq_s8_u8(vshrq_n_u8(first, 4)), q->v[1]);
    sum = vdotq_s32(sum, vreinterpretq_s8_u8(vandq_u8(second, nibble)), q->v[2]);
    return vdotq_s32(sum, vreinterpretq_s8_u8(vshrq_n_u8(second, 4)), q->v[3]);
}

/* Lanes 0 and 1 of a sum are one block, 2 and 3 the next. */
INLINE_NEON int32x4_t dot_i4_block_dotprod(const uint8_t *w, const uint8_t *multipliers,
                                           const struct q_block_neon *q)
{
    const int8x16_t values = vld1q_s8(qp_i4_block_values[1]);
    const int32x4_t up[2] = { { 28, 28, 24, 24 }, { 20, 20, 16, 16 } };
    const int32x4_t nibbles = vdupq_n_s32(four_multipliers_neon(multipliers));
    int32x4_t sum = vdupq_n_s32(0);
    UNROLL_TOKENS
    for (int i = 0; i < 2; i++) {
        const uint8x16_t pairs = vld1q_u8(w + 16 * i);
        const int8x16_t low = vqtbl1q_s8(values, vandq_u8(pairs, vdupq_n_u8(15)));
        const int8x16_t high = vqtbl1q_s8(values, vshrq_n_u8(pairs, 4));
        int32x4_t dots = vdotq_s32(vdupq_n_s32(0), low, q->v[2 * i]);
        dots = vdotq_s32(dots, high, q->v[2 * i + 1]);
        sum = vmlaq_s32(sum, dots, vshrq_n_s32(vshlq_s32(nibbles, up[i]), 28));
    }
    return sum;
}

static void gemv_i8_dotprod(float *y, const struct matrix *w, const struct act_row *x, int begin,
                            int end)
{
    gemv_rows_neon(y, w, x, begin, end, false, dot_i8_dotprod);
}

static void gemv_i4_dotprod(float *y, const struct matrix *w, const struct act_row *x, int begin,
                            int end)
{
    gemv_rows_neon(y, w, x, begin, end, true, dot_i4_dotprod);
}

static void gemv_i4_block_dotprod(float *y, const struct matrix *w, const struct act_row *x,
                                  int begin, int end)
{
    gemv_rows_i4_block_neon(y, w, x, begin, end, dot_i4_block_dotprod);
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
 * 16 accumulators, eight vectors of activations, two of weights; the float sums live in L1 and are
 * touched once in 16 steps. */

INLINE_NEON void store_q_k4(int8_t *to, const int8_t *const q[TOKENS_NEON], size_t k, int n_tokens)
{
    for (int t = 0; t < n_tokens; t++)
        vst1q_s8(to + t * STEP_NEON, vld1q_s8(q[t] + k));
}

/* The lane is a constant of the instruction, not an argument. */
#define STEP_DOTPROD(i)                                                                            \
    {                                                                                              \
        const int8x16_t low = vld1q_s8(group + 16 * (i)), high = vld1q_s8(group + 64 + 16 * (i));  \
        UNROLL_TOKENS                                                                              \
        for (int t = 0; t < n_tokens; t++) {                                                       \
            dots[t][0] = vdotq_laneq_s32(dots[t][0], low, x[t], i);                                \
            dots[t][1] = vdotq_laneq_s32(dots[t][1], high, x[t], i);                               \
        }                                                                                          \
    }

/* n_tokens is a constant. */
INLINE_NEON void gemm_some_dotprod(float sums[TOKENS_NEON][ROWS_NEON], const int8_t *group,
                                   const struct tokens_neon *tokens, int n_blocks, int n_tokens)
{
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

/* Functions of their own, so that each has all registers. */
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

static void gemm_dotprod(float *y, size_t y_stride, const void *tile, const struct matrix *w,
                         int row, int n_rows, const int8_t *q, size_t q_stride, const float *scales,
                         const int32_t *offsets, int n_tokens)
{
    (void)offsets;
    static const struct gemm_level_neon level = {
        .n_tokens = 8,
        .store_q = store_q_k4,
        .blocks = gemm_blocks_dotprod,
        .half_blocks = gemm_half_blocks_dotprod,
    };
    gemm_groups_neon(y, y_stride, tile, w, row, n_rows, q, q_stride, scales, n_tokens, &level);
}

void qp_linear_kernels_dotprod(struct kernels *k)
{
    k->gemv_i8 = gemv_i8_dotprod;
    k->gemv_i4 = gemv_i4_dotprod;
    k->gemv_i4_block = gemv_i4_block_dotprod;
    k->tile_order = (struct tile_order){ ROWS_NEON, STEP_NEON, 4, 4, 1, 0 };
    k->pack = pack_dotprod;
    k->gemm = gemm_dotprod;
}

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#else

void qp_linear_kernels_dotprod(struct kernels *k)
{
    (void)k;
}

#endif
