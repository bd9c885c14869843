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

/* ---- many tokens against a tile: 8 tokens x 8 rows ----
 * 16 accumulators, eight vectors of activations, two of weights; the float sums live in L1 and are
 * touched once in 16 steps. Named variables, made by macros, because compilers keep an array of
 * accumulators in memory. */
enum {
    GEMM_TOKENS_DOTPROD = 8
};

INLINE_NEON void store_q_k4(int8_t *to, const int8_t *const q[TOKENS_NEON], size_t k)
{
    for (int t = 0; t < GEMM_TOKENS_DOTPROD; t++)
        vst1q_s8(to + t * STEP_NEON, vld1q_s8(q[t] + k));
}

// clang-format off
#define EACH_TOKEN_DOTPROD(M, i) M(0, i) M(1, i) M(2, i) M(3, i) M(4, i) M(5, i) M(6, i) M(7, i)

#define START_DOTPROD(t, i) int32x4_t low##t = vdupq_n_s32(0), high##t = low##t;
#define TAKE_X_DOTPROD(t, i) int8x16_t x##t = vld1q_s8(q + (t) * STEP_NEON);
#define STEP_TOKEN_DOTPROD(t, i) \
    low##t = vdotq_laneq_s32(low##t, low, x##t, i); \
    high##t = vdotq_laneq_s32(high##t, high, x##t, i);
#define STEP_DOTPROD(i) { \
    int8x16_t low = vld1q_s8(group + 16 * (i)), high = vld1q_s8(group + 64 + 16 * (i)); \
    EACH_TOKEN_DOTPROD(STEP_TOKEN_DOTPROD, i) }
#define SCALE_DOTPROD(t, i) { \
    const float scale = tokens->scales[b][t]; \
    vst1q_f32(sums[t], scale_dots_neon(vld1q_f32(sums[t]), scale, low##t)); \
    vst1q_f32(sums[t] + 4, scale_dots_neon(vld1q_f32(sums[t] + 4), scale, high##t)); }
// clang-format on

__attribute__((noinline)) static void gemm_blocks_dotprod(float sums[TOKENS_NEON][ROWS_NEON],
                                                          const int8_t *group,
                                                          const struct tokens_neon *tokens,
                                                          int n_blocks)
{
    const int8_t *q = tokens->q;
    for (int b = 0; b < n_blocks; b++) {
        EACH_TOKEN_DOTPROD(START_DOTPROD, 0)
        for (int k = 0; k < ACT_BLOCK; k += STEP_NEON) {
            EACH_TOKEN_DOTPROD(TAKE_X_DOTPROD, 0)
            STEP_DOTPROD(0)
            STEP_DOTPROD(1)
            STEP_DOTPROD(2)
            STEP_DOTPROD(3)
            q += GEMM_TOKENS_DOTPROD * STEP_NEON;
            group += ROWS_NEON * STEP_NEON;
        }
        EACH_TOKEN_DOTPROD(SCALE_DOTPROD, 0)
    }
}

static void gemm_dotprod(float *y, size_t y_stride, const void *tile, const struct matrix *w,
                         int row, int n_rows, const int8_t *q, size_t q_stride, const float *scales,
                         const int32_t *offsets, int n_tokens)
{
    (void)offsets;
    gemm_groups_neon(y, y_stride, tile, w, row, n_rows, q, q_stride, scales, n_tokens,
                     GEMM_TOKENS_DOTPROD, store_q_k4, gemm_blocks_dotprod);
}

void qp_linear_kernels_dotprod(struct kernels *k)
{
    k->gemv_i8 = gemv_i8_dotprod;
    k->gemv_i4 = gemv_i4_dotprod;
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
