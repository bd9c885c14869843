/* linear_i8mm.c: tiles for smmla (Cortex-A510, A710, Neoverse V1, Apple M2 on): prefill only, since
 * sdot already decodes at the speed of memory. smmla multiplies two rows of eight k by two tokens
 * of the same k and adds to a square of four sums.
 * In, out, order of rounding: linear_scalar.c, to the bit.
 *
 * Tile: i8x2k8: eight groups of 8 rows, each [n_in rounded up to ACT_BLOCK, / 16][4 pairs]
 * [2 steps][2 rows][8 k]. */
#include "cpu/kernels.h"
#include "format/format.h"

#if defined(__aarch64__)

#include "cpu/linear_neon.h"

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

/* ---- many tokens against a tile: 8 tokens x 8 rows ----
 * 16 accumulators, each two rows of two tokens; four vectors of weights, four of activations; the
 * float sums, in squares as well, live in L1 and are touched once in 8 steps. Named variables, made
 * by macros, because compilers keep an array of accumulators in memory. */
enum {
    GEMM_TOKENS_I8MM = 8
};

INLINE_NEON void store_q_k8(int8_t *to, const int8_t *const q[TOKENS_NEON], size_t k)
{
    for (int t = 0; t < GEMM_TOKENS_I8MM; t += 2)
        store_pair_k8(to + t * STEP_NEON, vld1q_s8(q[t] + k), vld1q_s8(q[t + 1] + k));
}

/* Of rows 2 i and 2 i + 1, tokens 2 j and 2 j + 1: [i][j] = row 0 token 0, row 0 token 1, row 1
 * token 0, row 1 token 1. */
struct squares_i8mm {
    float32x4_t v[4][4];
};

static void take_squares_i8mm(struct squares_i8mm *squares, float sums[TOKENS_NEON][ROWS_NEON])
{
    for (int i = 0; i < 4; i += 2)
        for (int j = 0; j < 4; j++) {
            float32x4_t a = vld1q_f32(sums[2 * j] + 2 * i), b = vld1q_f32(sums[2 * j + 1] + 2 * i);
            squares->v[i][j] = vzip1q_f32(a, b);
            squares->v[i + 1][j] = vzip2q_f32(a, b);
        }
}

static void give_squares_i8mm(float sums[TOKENS_NEON][ROWS_NEON],
                              const struct squares_i8mm *squares)
{
    for (int i = 0; i < 4; i += 2)
        for (int j = 0; j < 4; j++) {
            float32x4_t a = squares->v[i][j], b = squares->v[i + 1][j];
            vst1q_f32(sums[2 * j] + 2 * i, vuzp1q_f32(a, b));
            vst1q_f32(sums[2 * j + 1] + 2 * i, vuzp2q_f32(a, b));
        }
}

// clang-format off
#define EACH_PAIR_I8MM(M, j) M(0, j) M(1, j) M(2, j) M(3, j)
#define EACH_SQUARE_I8MM(M) EACH_PAIR_I8MM(M, 0) EACH_PAIR_I8MM(M, 1) \
                            EACH_PAIR_I8MM(M, 2) EACH_PAIR_I8MM(M, 3)

#define START_I8MM(i, j) int32x4_t dot##i##j = vdupq_n_s32(0);
#define TAKE_W_I8MM(i, h) w##i = vld1q_s8(group + 32 * (i) + 16 * (h));
#define TAKE_X_I8MM(j, h) x##j = vld1q_s8(q + 32 * (j) + 16 * (h));
#define STEP_SQUARE_I8MM(i, j) dot##i##j = vmmlaq_s32(dot##i##j, w##i, x##j);
#define STEP_I8MM(h) \
    EACH_PAIR_I8MM(TAKE_W_I8MM, h) \
    EACH_PAIR_I8MM(TAKE_X_I8MM, h) \
    EACH_SQUARE_I8MM(STEP_SQUARE_I8MM)
#define TAKE_SCALES_I8MM(j, unused) \
    const float32x2_t two##j = vld1_f32(tokens->scales[b] + 2 * (j)); \
    const float32x4_t scale##j = vcombine_f32(two##j, two##j);
#define SCALE_I8MM(i, j) \
    squares.v[i][j] = mul_add_neon(vcvtq_f32_s32(dot##i##j), scale##j, squares.v[i][j]);
// clang-format on

__attribute__((noinline)) static void gemm_blocks_i8mm(float sums[TOKENS_NEON][ROWS_NEON],
                                                       const int8_t *group,
                                                       const struct tokens_neon *tokens,
                                                       int n_blocks)
{
    const int8_t *q = tokens->q;
    struct squares_i8mm squares;
    take_squares_i8mm(&squares, sums);
    for (int b = 0; b < n_blocks; b++) {
        EACH_SQUARE_I8MM(START_I8MM)
        for (int k = 0; k < ACT_BLOCK; k += STEP_NEON) {
            int8x16_t w0, w1, w2, w3, x0, x1, x2, x3;
            STEP_I8MM(0)
            STEP_I8MM(1)
            q += GEMM_TOKENS_I8MM * STEP_NEON;
            group += ROWS_NEON * STEP_NEON;
        }
        EACH_PAIR_I8MM(TAKE_SCALES_I8MM, )
        EACH_SQUARE_I8MM(SCALE_I8MM)
    }
    give_squares_i8mm(sums, &squares);
}

static void gemm_i8mm(float *y, size_t y_stride, const void *tile, const struct matrix *w, int row,
                      int n_rows, const int8_t *q, size_t q_stride, const float *scales,
                      const int32_t *offsets, int n_tokens)
{
    (void)offsets;
    gemm_groups_neon(y, y_stride, tile, w, row, n_rows, q, q_stride, scales, n_tokens,
                     GEMM_TOKENS_I8MM, store_q_k8, gemm_blocks_i8mm);
}

void qp_linear_kernels_i8mm(struct kernels *k)
{
    k->pack = pack_i8mm;
    k->gemm = gemm_i8mm;
}

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#else

void qp_linear_kernels_i8mm(struct kernels *k)
{
    (void)k;
}

#endif
