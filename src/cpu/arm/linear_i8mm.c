/* linear_i8mm.c: tiles for smmla (Cortex-A510, A710, Neoverse V1, Apple M2 on), which multiplies
 * two rows of eight k by two tokens of the same k and adds to a square of four sums. Prefill only:
 * sdot already decodes at the speed of memory. In, out, order of rounding: scalar/linear_scalar.c,
 * to the bit.
 *
 * Tile, layout i8x2k8: eight groups of 8 rows, each [n_in rounded up to ACT_BLOCK, / 16][4 pairs]
 * [2 steps][2 rows][8 k]. */
#include "cpu/arm/arm.h"
#include "format/dtype.h"

#if defined(__aarch64__)

#include "cpu/arm/linear_neon.h"

#include <assert.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("i8mm"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("arch=armv8.2-a+i8mm")
#endif

/* Two steps of two rows, or of two tokens: a[0..7], b[0..7], a[8..15], b[8..15]. */
static inline void store_pair_k8(int8_t *to, int8x16_t a, int8x16_t b)
{
    const int64x2x2_t pair = { { vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b) } };
    vst2q_s64((int64_t *)(void *)to, pair);
}

INLINE_NEON void store_step_k8(int8_t *to, const int8x16_t row[ROWS_NEON])
{
    for (int r = 0; r < ROWS_NEON; r += 2)
        store_pair_k8(to + r * STEP_NEON, row[r], row[r + 1]);
}

static void pack_i8mm(void *tile, const struct matrix *w, int row, int n_rows)
{
    pack_groups_neon(tile, w, row, n_rows, store_step_k8);
}

/* ---- many tokens against a tile: 8 tokens x 8 rows, or 4 x 8 for the last ones ----
 * 16 accumulators, each two rows of two tokens; four vectors of weights, four of activations. The
 * float sums, also in squares, are in L1 and used once in 8 steps. */

INLINE_NEON void store_q_k8(int8_t *to, const int8_t *const q[TOKENS_NEON], size_t k, int n_tokens)
{
    for (int t = 0; t < n_tokens; t += 2)
        store_pair_k8(to + t * STEP_NEON, vld1q_s8(q[t] + k), vld1q_s8(q[t + 1] + k));
}

/* Sums of tokens 2 j and 2 j + 1, rows 2 i and 2 i + 1: [j][i] = row 0 token 0, row 0 token 1, row
 * 1 token 0, row 1 token 1. */
struct squares_i8mm {
    float32x4_t v[TOKENS_NEON / 2][ROWS_NEON / 2];
};

static void load_squares_i8mm(struct squares_i8mm *squares, float sums[TOKENS_NEON][ROWS_NEON],
                              int n_pairs)
{
    for (int j = 0; j < n_pairs; j++)
        for (int i = 0; i < ROWS_NEON / 2; i += 2) {
            float32x4_t a = vld1q_f32(sums[2 * j] + 2 * i), b = vld1q_f32(sums[2 * j + 1] + 2 * i);
            squares->v[j][i] = vzip1q_f32(a, b);
            squares->v[j][i + 1] = vzip2q_f32(a, b);
        }
}

static void store_squares_i8mm(float sums[TOKENS_NEON][ROWS_NEON],
                               const struct squares_i8mm *squares, int n_pairs)
{
    for (int j = 0; j < n_pairs; j++)
        for (int i = 0; i < ROWS_NEON / 2; i += 2) {
            float32x4_t a = squares->v[j][i], b = squares->v[j][i + 1];
            vst1q_f32(sums[2 * j] + 2 * i, vuzp1q_f32(a, b));
            vst1q_f32(sums[2 * j + 1] + 2 * i, vuzp2q_f32(a, b));
        }
}

/* n_pairs, pairs of tokens, is a constant where this is inlined. */
INLINE_NEON void gemm_some_i8mm(float sums[TOKENS_NEON][ROWS_NEON], const int8_t *group,
                                const struct tokens_neon *tokens, int n_blocks, int n_pairs)
{
    assert(n_blocks > 0 && n_blocks <= GEMM_K_NEON / ACT_BLOCK);
    const int8_t *q = tokens->q;
    struct squares_i8mm squares;
    load_squares_i8mm(&squares, sums, n_pairs);
    for (int b = 0; b < n_blocks; b++) {
        int32x4_t dots[TOKENS_NEON / 2][ROWS_NEON / 2];
        UNROLL_TOKENS
        for (int j = 0; j < n_pairs; j++)
            dots[j][0] = dots[j][1] = dots[j][2] = dots[j][3] = vdupq_n_s32(0);
        for (int k = 0; k < ACT_BLOCK; k += STEP_NEON) {
            UNROLL_TOKENS
            for (int half = 0; half < 2; half++) {
                const int8x16_t w0 = vld1q_s8(group + 16 * half);
                const int8x16_t w2 = vld1q_s8(group + 16 * half + 32);
                const int8x16_t w4 = vld1q_s8(group + 16 * half + 64);
                const int8x16_t w6 = vld1q_s8(group + 16 * half + 96);
                UNROLL_TOKENS
                for (int j = 0; j < n_pairs; j++) {
                    const int8x16_t x = vld1q_s8(q + 16 * half + 32 * j);
                    dots[j][0] = vmmlaq_s32(dots[j][0], w0, x);
                    dots[j][1] = vmmlaq_s32(dots[j][1], w2, x);
                    dots[j][2] = vmmlaq_s32(dots[j][2], w4, x);
                    dots[j][3] = vmmlaq_s32(dots[j][3], w6, x);
                }
            }
            q += 2 * n_pairs * STEP_NEON;
            group += ROWS_NEON * STEP_NEON;
        }
        UNROLL_TOKENS
        for (int j = 0; j < n_pairs; j++) {
            const float32x2_t two = vld1_f32(tokens->scales[b] + 2 * j);
            const float32x4_t scale = vcombine_f32(two, two);
            float32x4_t *sum = squares.v[j];
            sum[0] = mul_add_neon(vcvtq_f32_s32(dots[j][0]), scale, sum[0]);
            sum[1] = mul_add_neon(vcvtq_f32_s32(dots[j][1]), scale, sum[1]);
            sum[2] = mul_add_neon(vcvtq_f32_s32(dots[j][2]), scale, sum[2]);
            sum[3] = mul_add_neon(vcvtq_f32_s32(dots[j][3]), scale, sum[3]);
        }
    }
    store_squares_i8mm(sums, &squares, n_pairs);
}

/* Not inlined, so that each has all registers. */
__attribute__((noinline)) static void gemm_blocks_i8mm(float sums[TOKENS_NEON][ROWS_NEON],
                                                       const int8_t *group,
                                                       const struct tokens_neon *tokens,
                                                       int n_blocks)
{
    gemm_some_i8mm(sums, group, tokens, n_blocks, 4);
}

__attribute__((noinline)) static void gemm_half_blocks_i8mm(float sums[TOKENS_NEON][ROWS_NEON],
                                                            const int8_t *group,
                                                            const struct tokens_neon *tokens,
                                                            int n_blocks)
{
    gemm_some_i8mm(sums, group, tokens, n_blocks, 2);
}

static void gemm_i8mm(const struct out_view *out, const void *tile, const struct matrix *w,
                      const struct act_rows *x, int row, int n_rows)
{
    static const struct gemm_level_neon level = {
        .n_tokens = 8,
        .store_q = store_q_k8,
        .blocks = gemm_blocks_i8mm,
        .half_blocks = gemm_half_blocks_i8mm,
    };
    gemm_groups_neon(out, tile, w, x, row, n_rows, &level);
}

void qp_linear_kernels_i8mm(struct kernels *k)
{
    k->tile_order = (struct tile_order){ ROWS_NEON, STEP_NEON, 2, 8, 1, 0 };
    k->pack = pack_i8mm;
    k->gemm = gemm_i8mm;
}

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
