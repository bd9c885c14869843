/* linear_neon.h: what the matrix products on 128-bit registers share: eight rows of weights at a
 * time, and tiles of eight groups of eight rows. The levels differ in the product of two blocks, in
 * the order within a step of 16 k, and in the loop over steps. A file includes it before enabling
 * its instruction set. */
#ifndef QP_LINEAR_NEON_H
#define QP_LINEAR_NEON_H

#include "cpu/gemm_token.h"
#include "cpu/gemv_rows.h"
#include "cpu/kernels.h"
#include "format/dtype.h"

#include <arm_neon.h>
#include <assert.h>
#include <string.h>

/* ---- floats ---- */

/* a * b + c, rounded twice */
static inline float32x4_t mul_add_neon(float32x4_t a, float32x4_t b, float32x4_t c)
{
    return vaddq_f32(vmulq_f32(a, b), c);
}

/* a > b ? a : b, and a < b ? a : b: the second when one is NaN. */
static inline float32x4_t larger_neon(float32x4_t a, float32x4_t b)
{
    return vbslq_f32(vcgtq_f32(a, b), a, b);
}

static inline float32x4_t smaller_neon(float32x4_t a, float32x4_t b)
{
    return vbslq_f32(vcltq_f32(a, b), a, b);
}

/* The first n of 4 floats, zero elsewhere. */
static inline float32x4_t load_neon(const float *x, int n)
{
    if (n >= 4)
        return vld1q_f32(x);
    float some[4] = { 0 };
    if (n > 0)
        memcpy(some, x, (size_t)n * sizeof *x);
    return vld1q_f32(some);
}

static inline void store_neon(float *y, int n, float32x4_t v)
{
    if (n >= 4) {
        vst1q_f32(y, v);
    } else if (n > 0) {
        float some[4];
        vst1q_f32(some, v);
        memcpy(y, some, (size_t)n * sizeof *y);
    }
}

#define INLINE_NEON static inline __attribute__((always_inline))
#if defined(__clang__)
#define UNROLL_TOKENS _Pragma("clang loop unroll(full)") // so that small arrays become registers
#else
#define UNROLL_TOKENS _Pragma("GCC unroll 8")
#endif

enum {
    ROWS_NEON = 8,
    STEP_NEON = 16 // k
};

/* Eight rows from some k on: in the mapped file, or a copy of their last block filled with zeros.
 */
struct rows_neon {
    const uint8_t *at[ROWS_NEON];
};

struct tails_neon {
    uint8_t bytes[ROWS_NEON][ACT_BLOCK];
};

/* Rows [r, r + 8). Past the last row this is the last one again; its result is not stored. */
static inline struct rows_neon rows_neon_at(const struct matrix *w, int r, int end)
{
    assert(r < end);
    struct rows_neon rows;
    for (int i = 0; i < ROWS_NEON; i++)
        rows.at[i] = qp_matrix_row(w, r + i < end ? r + i : end - 1);
    return rows;
}

static inline struct rows_neon
copy_tails_neon(struct tails_neon *tails, const struct rows_neon *rows, size_t begin, size_t end)
{
    assert(begin < end && end - begin <= ACT_BLOCK);
    struct rows_neon copies;
    memset(tails, 0, sizeof *tails);
    for (int i = 0; i < ROWS_NEON; i++) {
        memcpy(tails->bytes[i], rows->at[i] + begin, end - begin);
        copies.at[i] = tails->bytes[i];
    }
    return copies;
}

/* Bytes of a row; of one of its blocks. */
static inline size_t row_bytes_neon(const struct matrix *w)
{
    return w->dtype == DTYPE_I8 ? (size_t)w->n_in : (size_t)w->n_in / 2;
}

static inline size_t block_bytes_neon(const struct matrix *w)
{
    return w->dtype == DTYPE_I8 ? ACT_BLOCK : ACT_BLOCK / 2;
}

/* y[i] = sum[i] * scales[r + i] (+ bias[r + i]) for the first n of 4 rows. */
static inline void store_rows_neon(float *y, float32x4_t sum, const struct matrix *w, int r, int n)
{
    if (n <= 0)
        return;
    float32x4_t v = vmulq_f32(sum, load_neon(w->scales + r, n));
    if (w->bias)
        v = vaddq_f32(v, load_neon(w->bias + r, n));
    store_neon(y, n, v);
}

/* ---- few tokens, row after row (gemv_rows.h) ---- */

/* A block of weights or activations: four times 16 k. For int4 the even k of 32, which are in the
 * low nibbles, then the odd ones, twice. */
struct block_neon {
    int8x16_t v[4];
};

/* What differs between the levels: the product of two blocks, in four partial sums; the product of
 * half a block of block-wise int4, sorted, with the first 16 k in the first two partial sums. */
typedef int32x4_t (*block_dot_neon)(const struct block_neon *w, const struct block_neon *q);
typedef int32x4_t (*half_dot_neon)(int8x16_t low, int8x16_t high, int8x16_t even, int8x16_t odd);

INLINE_NEON struct block_neon load_block_neon(const void *p)
{
    const int8x16x4_t v = vld1q_s8_x4(p);
    return (struct block_neon){ { v.val[0], v.val[1], v.val[2], v.val[3] } };
}

/* Stored nibbles are the weights plus 8. */
INLINE_NEON struct block_neon load_nibble_block_neon(const uint8_t *w)
{
    const uint8x16_t nibble = vdupq_n_u8(15), first = vld1q_u8(w), second = vld1q_u8(w + 16);
    return (struct block_neon){ { vreinterpretq_s8_u8(vandq_u8(first, nibble)),
                                  vreinterpretq_s8_u8(vshrq_n_u8(first, 4)),
                                  vreinterpretq_s8_u8(vandq_u8(second, nibble)),
                                  vreinterpretq_s8_u8(vshrq_n_u8(second, 4)) } };
}

/* A table turns codes into their values. */
INLINE_NEON struct block_neon load_value_block_neon(const uint8_t *w)
{
    const int8x16_t values = vld1q_s8(qp_i4_block_values[1]);
    struct block_neon block = load_nibble_block_neon(w);
    UNROLL_TOKENS
    for (int i = 0; i < 4; i++)
        block.v[i] = vqtbl1q_s8(values, vreinterpretq_u8_s8(block.v[i]));
    return block;
}

INLINE_NEON void sort_i4_neon(int8_t *to, const int8_t *q)
{
    for (int i = 0; i < ACT_BLOCK; i += 32) {
        const int8x16x2_t v = vld2q_s8(q + i);
        vst1q_s8(to + i, v.val[0]);
        vst1q_s8(to + i + 16, v.val[1]);
    }
}

/* The products of one block or two with n_tokens tokens. */
INLINE_NEON void dot_pair_neon(int32_t *parts, const struct block_neon w[2], const int8_t *q,
                               size_t q_stride, int n_tokens, bool is_pair, block_dot_neon dot)
{
    for (int t = 0; t < n_tokens; t++, q += q_stride, parts += 4) {
        const struct block_neon first = load_block_neon(q);
        int32x4_t dots[2] = { dot(&w[0], &first), vdupq_n_s32(0) };
        if (is_pair) {
            const struct block_neon second = load_block_neon(q + ACT_BLOCK);
            dots[1] = dot(&w[1], &second);
        }
        vst1q_s32(parts, vpaddq_s32(dots[0], dots[1]));
    }
}

INLINE_NEON void dot_pair_i8_neon(int32_t *parts, const uint8_t *w, const int8_t *q,
                                  size_t q_stride, int n_tokens, bool is_pair, block_dot_neon dot)
{
    const struct block_neon blocks[2] = { load_block_neon(w),
                                          load_block_neon(is_pair ? w + ACT_BLOCK : w) };
    dot_pair_neon(parts, blocks, q, q_stride, n_tokens, is_pair, dot);
}

INLINE_NEON void dot_pair_i4_neon(int32_t *parts, const uint8_t *w, const int8_t *q,
                                  size_t q_stride, int n_tokens, bool is_pair, block_dot_neon dot)
{
    const struct block_neon blocks[2] = { load_nibble_block_neon(w),
                                          load_nibble_block_neon(is_pair ? w + ACT_BLOCK / 2 : w) };
    dot_pair_neon(parts, blocks, q, q_stride, n_tokens, is_pair, dot);
}

/* The sum of 16 products is multiplied by the multiplier of these 16 weights. Four bytes have eight
 * multipliers. */
INLINE_NEON void dot_pair_i4_block_neon(int32_t *parts, const uint8_t *w,
                                        const uint8_t *multipliers, const int8_t *q,
                                        size_t q_stride, int n_tokens, bool is_pair,
                                        half_dot_neon dot)
{
    static const int32_t up[4][4] = {
        { 28, 28, 24, 24 }, { 20, 20, 16, 16 }, { 12, 12, 8, 8 }, { 4, 4, 0, 0 }
    };
    const struct block_neon blocks[2] = { load_value_block_neon(w),
                                          load_value_block_neon(is_pair ? w + ACT_BLOCK / 2 : w) };
    int32_t nibbles;
    int32x4_t m[4];
    memcpy(&nibbles, multipliers, sizeof nibbles);
    UNROLL_TOKENS
    for (int i = 0; i < 4; i++)
        m[i] = vshrq_n_s32(vshlq_s32(vdupq_n_s32(nibbles), vld1q_s32(up[i])), 28);
    for (int t = 0; t < n_tokens; t++, q += q_stride, parts += 4) {
        int32x4_t dots[2] = { vdupq_n_s32(0), vdupq_n_s32(0) };
        UNROLL_TOKENS
        for (int b = 0; b < 1 + is_pair; b++) {
            const struct block_neon x = load_block_neon(q + b * ACT_BLOCK);
            const int8x16_t *v = blocks[b].v;
            dots[b] = vmulq_s32(dot(v[0], v[1], x.v[0], x.v[1]), m[2 * b]);
            dots[b] = vmlaq_s32(dots[b], dot(v[2], v[3], x.v[2], x.v[3]), m[2 * b + 1]);
        }
        vst1q_s32(parts, vpaddq_s32(dots[0], dots[1]));
    }
}

static inline int32x4_t sum_quads_neon(int32x4_t a, int32x4_t b, int32x4_t c, int32x4_t d)
{
    return vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d));
}

static inline float32x4_t scale_dots_neon(float32x4_t sum, float scale, int32x4_t dots)
{
    return vaddq_f32(sum, vmulq_n_f32(vcvtq_f32_s32(dots), scale));
}

/* sum + scale * (dots + offset / 16) */
INLINE_NEON float32x4_t add_dots_neon(float32x4_t sum, int32x4_t dots, float scale,
                                      const int32_t *offset)
{
    if (offset)
        dots = vaddq_s32(dots, vshrq_n_s32(vdupq_n_s32(*offset), 4));
    return scale_dots_neon(sum, scale, dots);
}

/* The sums of rows r to r + 3: those of the first block, those of the second. */
INLINE_NEON int32x4x2_t sum_parts_neon(const row_parts *parts, int r, int i)
{
    int32x4_t r0 = vpaddq_s32(vld1q_s32(parts[r][i]), vld1q_s32(parts[r + 1][i]));
    int32x4_t r2 = vpaddq_s32(vld1q_s32(parts[r + 2][i]), vld1q_s32(parts[r + 3][i]));
    return vuzpq_s32(r0, r2);
}

INLINE_NEON void add_parts_neon(float sums[GEMV_ROWS], const row_parts *parts, int first, int step,
                                const float *scales, const int32_t *offsets, int n_blocks)
{
    float32x4_t low = vld1q_f32(sums), high = vld1q_f32(sums + 4);
    for (int b = 0, i = first; b < n_blocks; b += 2, i += step) {
        const int32x4x2_t r0 = sum_parts_neon(parts, 0, i), r4 = sum_parts_neon(parts, 4, i);
        const int32_t *offset = offsets ? offsets + b : NULL;
        low = add_dots_neon(low, r0.val[0], scales[b], offset);
        high = add_dots_neon(high, r4.val[0], scales[b], offset);
        if (b + 1 < n_blocks) {
            offset = offsets ? offset + 1 : NULL;
            low = add_dots_neon(low, r0.val[1], scales[b + 1], offset);
            high = add_dots_neon(high, r4.val[1], scales[b + 1], offset);
        }
    }
    vst1q_f32(sums, low);
    vst1q_f32(sums + 4, high);
}

INLINE_NEON void store_sums_neon(float *y, const float sums[GEMV_ROWS], const struct matrix *w,
                                 int r, int n)
{
    store_rows_neon(y, vld1q_f32(sums), w, r, n);
    store_rows_neon(y + 4, vld1q_f32(sums + 4), w, r + 4, n - 4);
}

/* The multipliers of block-wise int4 as a matrix. */
static inline struct matrix multiplier_matrix_neon(const struct matrix *w)
{
    return (struct matrix){ .row_bytes = qp_multiplier_bytes(w->n_in), .data = w->multipliers };
}

/* ---- tiles ----
 * [8 groups][k / 16][8 rows * 16 k] of int8, also for int4. The level chooses the order within a
 * step of 16 k. k is n_in rounded up to ACT_BLOCK. */

/* Store 16 k of eight rows in the order of the level. */
typedef void (*store_step_neon)(int8_t *to, const int8x16_t row[ROWS_NEON]);

static inline size_t tile_bytes_neon(int n_in)
{
    return TILE_ROWS * qp_round_up((size_t)n_in, ACT_BLOCK);
}

/* 16 nibbles in order, a byte each. */
INLINE_NEON uint8x16_t load_nibbles_neon(const uint8_t *w)
{
    uint8x8_t pairs = vld1_u8(w);
    uint8x8_t low = vand_u8(pairs, vdup_n_u8(15)), high = vshr_n_u8(pairs, 4);
    return vcombine_u8(vzip1_u8(low, high), vzip2_u8(low, high));
}

/* 16 weights. */
INLINE_NEON int8x16_t load_weights_neon(const uint8_t *w, bool is_i4)
{
    if (!is_i4)
        return vreinterpretq_s8_u8(vld1q_u8(w));
    return vsubq_s8(vreinterpretq_s8_u8(load_nibbles_neon(w)), vdupq_n_s8(8));
}

INLINE_NEON void pack_block_neon(int8_t *to, const struct rows_neon *rows, size_t at, bool is_i4,
                                 store_step_neon store)
{
    for (int k = 0; k < ACT_BLOCK; k += STEP_NEON, to += ROWS_NEON * STEP_NEON) {
        const size_t from = at + (size_t)(is_i4 ? k / 2 : k);
        const int8x16_t row[ROWS_NEON] = {
            load_weights_neon(rows->at[0] + from, is_i4),
            load_weights_neon(rows->at[1] + from, is_i4),
            load_weights_neon(rows->at[2] + from, is_i4),
            load_weights_neon(rows->at[3] + from, is_i4),
            load_weights_neon(rows->at[4] + from, is_i4),
            load_weights_neon(rows->at[5] + from, is_i4),
            load_weights_neon(rows->at[6] + from, is_i4),
            load_weights_neon(rows->at[7] + from, is_i4),
        };
        store(to, row);
    }
}

INLINE_NEON void pack_rows_neon(int8_t *to, const struct matrix *w, int row, int n_rows, bool is_i4,
                                store_step_neon store)
{
    const size_t row_bytes = row_bytes_neon(w), block_bytes = block_bytes_neon(w);
    for (int r = 0; r < n_rows; r += ROWS_NEON) {
        struct rows_neon rows = rows_neon_at(w, row + r, row + n_rows);
        size_t at = 0;
        for (; at + block_bytes <= row_bytes; at += block_bytes, to += ROWS_NEON * ACT_BLOCK)
            pack_block_neon(to, &rows, at, is_i4, store);
        if (at < row_bytes) {
            struct tails_neon tails;
            rows = copy_tails_neon(&tails, &rows, at, row_bytes);
            pack_block_neon(to, &rows, 0, is_i4, store);
            to += ROWS_NEON * ACT_BLOCK;
        }
    }
}

INLINE_NEON void pack_block_i4_block_neon(int8_t *to, const struct rows_neon *rows, size_t at,
                                          const struct rows_neon *multipliers, size_t b,
                                          store_step_neon store)
{
    for (int k = 0; k < ACT_BLOCK; k += STEP_NEON, to += ROWS_NEON * STEP_NEON) {
        int8x16_t row[ROWS_NEON];
        UNROLL_TOKENS
        for (int i = 0; i < ROWS_NEON; i++)
            row[i] = vqtbl1q_s8(
                vld1q_s8(qp_i4_block_values[qp_block_multiplier(multipliers->at[i] + 2 * b, k)]),
                load_nibbles_neon(rows->at[i] + at + k / 2));
        store(to, row);
    }
}

INLINE_NEON void pack_rows_i4_block_neon(int8_t *to, const struct matrix *w, int row, int n_rows,
                                         store_step_neon store)
{
    const struct matrix m = multiplier_matrix_neon(w);
    const size_t n_in = (size_t)w->n_in;
    for (int r = 0; r < n_rows; r += ROWS_NEON) {
        struct rows_neon rows = rows_neon_at(w, row + r, row + n_rows);
        const struct rows_neon multipliers = rows_neon_at(&m, row + r, row + n_rows);
        size_t k = 0, b = 0;
        for (; k + ACT_BLOCK <= n_in; k += ACT_BLOCK, b++, to += ROWS_NEON * ACT_BLOCK)
            pack_block_i4_block_neon(to, &rows, k / 2, &multipliers, b, store);
        if (k < n_in) {
            struct tails_neon tails;
            rows = copy_tails_neon(&tails, &rows, k / 2, n_in / 2);
            pack_block_i4_block_neon(to, &rows, 0, &multipliers, b, store);
            to += ROWS_NEON * ACT_BLOCK;
        }
    }
}

INLINE_NEON void pack_groups_neon(void *tile, const struct matrix *w, int row, int n_rows,
                                  store_step_neon store)
{
    assert(w->dtype != DTYPE_F32 && qp_is_tile(tile, w, row, n_rows));
    if (w->dtype == DTYPE_I8)
        pack_rows_neon(tile, w, row, n_rows, false, store);
    else if (w->dtype == DTYPE_I4_BLOCK)
        pack_rows_i4_block_neon(tile, w, row, n_rows, store);
    else
        pack_rows_neon(tile, w, row, n_rows, true, store);
}

/* ---- many tokens against a tile ---- */

enum {
    TOKENS_NEON = 8,   // at most
    GEMM_K_NEON = 2048 // columns of 8 tokens and a group that stay in L1, and of a tile in L2
};

/* A few tokens over a stretch of k, copied so that the loop reads them in order: q is
 * [k / 16][tokens * 16 k], in the order of the level within a step. */
struct tokens_neon {
    int8_t q[TOKENS_NEON * GEMM_K_NEON];
    float scales[GEMM_K_NEON / ACT_BLOCK][TOKENS_NEON];
    float *y[TOKENS_NEON];
};

/* sums[t][r] += scale_b * dot_b over n_blocks blocks, for a few tokens and a group of rows. */
typedef void (*gemm_blocks_neon)(float sums[TOKENS_NEON][ROWS_NEON], const int8_t *group,
                                 const struct tokens_neon *tokens, int n_blocks);

struct gemm_level_neon {
    int n_tokens; // that fit the registers
    /* Store 16 k of the tokens q[t], from column k on, in the order of the level. */
    void (*store_q)(int8_t *to, const int8_t *const q[TOKENS_NEON], size_t k, int n_tokens);
    gemm_blocks_neon blocks, half_blocks; // for n_tokens; for half of them, or NULL
};

/* Between two stretches of k the sums of a group's rows are in y. */
static inline void gemm_group_neon(const struct tokens_neon *tokens, int n_tokens,
                                   const int8_t *group, const struct matrix *w, int row, int r,
                                   int n_rows, int n_blocks, bool is_first, bool is_last,
                                   gemm_blocks_neon blocks)
{
    assert(n_tokens <= TOKENS_NEON && r < n_rows && n_rows <= TILE_ROWS);
    float sums[TOKENS_NEON][ROWS_NEON];
    for (int t = 0; t < n_tokens; t++)
        for (int i = 0; i < ROWS_NEON; i += 4)
            vst1q_f32(sums[t] + i, load_neon(tokens->y[t] + r + i, is_first ? 0 : n_rows - r - i));
    blocks(sums, group, tokens, n_blocks);
    for (int t = 0; t < n_tokens; t++)
        for (int i = 0; i < ROWS_NEON; i += 4) {
            float32x4_t sum = vld1q_f32(sums[t] + i);
            float *y = tokens->y[t] + r + i;
            if (is_last)
                store_rows_neon(y, sum, w, row + r + i, n_rows - r - i);
            else
                store_neon(y, n_rows - r - i, sum);
        }
}

INLINE_NEON void gemm_groups_neon(const struct out_view *out, const void *tile,
                                  const struct matrix *w, const struct act_rows *x, int row,
                                  int n_rows, const struct gemm_level_neon *level)
{
    assert(qp_is_tile(tile, w, row, n_rows) && qp_is_act_rows(x, w->n_in));
    const size_t k_padded = qp_round_up((size_t)w->n_in, ACT_BLOCK);
    struct tokens_neon tokens;
    for (size_t k = 0; k < k_padded; k += GEMM_K_NEON) {
        const size_t n = k_padded - k < GEMM_K_NEON ? k_padded - k : GEMM_K_NEON;
        for (int t = 0, n_group; t < x->n; t += n_group) {
            const bool is_half = level->half_blocks && x->n - t <= level->n_tokens / 2;
            n_group = is_half ? level->n_tokens / 2 : level->n_tokens;
            const int8_t *from[TOKENS_NEON] = { 0 };
            for (int i = 0; i < n_group; i++) {
                const struct gemm_token token = gemm_token_at(out, x, t + i, k, k_padded);
                from[i] = token.q;
                tokens.y[i] = token.y;
                for (size_t b = 0; b < n / ACT_BLOCK; b++)
                    tokens.scales[b][i] = token.scales[b];
            }
            for (size_t j = 0; j < n; j += STEP_NEON)
                level->store_q(tokens.q + j * (size_t)n_group, from, j, n_group);
            for (int r = 0; r < n_rows; r += ROWS_NEON)
                gemm_group_neon(
                    &tokens, n_group, (const int8_t *)tile + (size_t)r * k_padded + k * ROWS_NEON,
                    w, row, r, n_rows, (int)(n / ACT_BLOCK), k == 0 && w->scales,
                    k + n == k_padded && w->scales, is_half ? level->half_blocks : level->blocks);
        }
    }
}

#endif
