/* linear_neon.h: what the matrix products on 128-bit registers share: eight rows of weights at a
 * time, and tiles of eight groups of eight rows. The levels differ in the product of a row's block,
 * in the order within a step of 16 k, and in the loop over steps. Included before a file turns its
 * instruction set on. */
#ifndef QP_LINEAR_NEON_H
#define QP_LINEAR_NEON_H

#include "cpu/math_neon.h"
#include "format/format.h"

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

/* Eight rows from some k on: where the file holds them, or the copy of their last block, whose tail
 * is zero. */
struct rows_neon {
    const uint8_t *at[ROWS_NEON];
    size_t ahead; // what to fetch while reading, in bytes from there
};

struct tails_neon {
    uint8_t bytes[ROWS_NEON][ACT_BLOCK];
};

/* Past the last row the last one is repeated; its result is not stored. Fetched is the next pass
 * but one over memory, as on x86 (linear_avx512vnni.c). */
static inline struct rows_neon take_rows_neon(const struct matrix *w, int r, int end)
{
    struct rows_neon rows = { .ahead = w->row_bytes <= 8192 ? 16 * w->row_bytes : 256 };
    for (int i = 0; i < ROWS_NEON; i++)
        rows.at[i] = qp_matrix_row(w, r + i < end ? r + i : end - 1);
    return rows;
}

static inline struct rows_neon
copy_tails_neon(struct tails_neon *tails, const struct rows_neon *rows, size_t begin, size_t end)
{
    struct rows_neon copies = { .ahead = 0 };
    memset(tails, 0, sizeof *tails);
    for (int i = 0; i < ROWS_NEON; i++) {
        memcpy(tails->bytes[i], rows->at[i] + begin, end - begin);
        copies.at[i] = tails->bytes[i];
    }
    return copies;
}

/* Bytes of a row, and of one of its blocks. */
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

/* ---- one token: 8 rows at a time, each byte of weights read once ---- */

/* A block of q: four times 16 k. For int4 by twos: the even k of 32, which meet the low nibbles,
 * and the odd ones, which meet the high nibbles. */
struct q_block_neon {
    int8x16_t v[4];
};

/* A row's product with a block of q, in four parts that are still to be added. */
typedef int32x4_t (*row_dot_neon)(const uint8_t *w, const struct q_block_neon *q);

INLINE_NEON struct q_block_neon take_q_neon(const int8_t *q, bool is_i4)
{
    if (!is_i4)
        return (struct q_block_neon){ { vld1q_s8(q), vld1q_s8(q + 16), vld1q_s8(q + 32),
                                        vld1q_s8(q + 48) } };
    int8x16x2_t first = vld2q_s8(q), second = vld2q_s8(q + 32);
    return (struct q_block_neon){ { first.val[0], first.val[1], second.val[0], second.val[1] } };
}

static inline int32x4_t sum_quads_neon(int32x4_t a, int32x4_t b, int32x4_t c, int32x4_t d)
{
    return vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d));
}

static inline float32x4_t scale_dots_neon(float32x4_t sum, float scale, int32x4_t dots)
{
    return vaddq_f32(sum, vmulq_n_f32(vcvtq_f32_s32(dots), scale));
}

INLINE_NEON int32x4_t dot_row_neon(const struct rows_neon *rows, int i, size_t at,
                                   const struct q_block_neon *q, row_dot_neon dot)
{
    __builtin_prefetch(rows->at[i] + at + rows->ahead);
    return dot(rows->at[i] + at, q);
}

/* sum + scale_b * dot_b of rows i to i + 3, from byte `at` on. Nibbles are unsigned as they lie,
 * plus 8, which the block's offset / 16 takes away again. */
INLINE_NEON float32x4_t add_block_neon(float32x4_t sum, const struct rows_neon *rows, int i,
                                       size_t at, const struct q_block_neon *q,
                                       const struct act_row *x, size_t b, bool is_i4,
                                       row_dot_neon dot)
{
    int32x4_t dots = sum_quads_neon(
        dot_row_neon(rows, i, at, q, dot), dot_row_neon(rows, i + 1, at, q, dot),
        dot_row_neon(rows, i + 2, at, q, dot), dot_row_neon(rows, i + 3, at, q, dot));
    if (is_i4)
        dots = vaddq_s32(dots, vdupq_n_s32(x->offsets[b] / 16));
    return scale_dots_neon(sum, x->scales[b], dots);
}

INLINE_NEON void gemv_rows_neon(float *y, const struct matrix *w, const struct act_row *x,
                                int begin, int end, bool is_i4, row_dot_neon dot)
{
    const size_t row_bytes = row_bytes_neon(w), block_bytes = is_i4 ? ACT_BLOCK / 2 : ACT_BLOCK;
    for (int r = begin; r < end; r += ROWS_NEON) {
        struct rows_neon rows = take_rows_neon(w, r, end);
        float32x4_t low = vdupq_n_f32(0.0f), high = low;
        size_t at = 0, b = 0;
        for (; at + block_bytes <= row_bytes; at += block_bytes, b++) {
            struct q_block_neon q = take_q_neon(x->q + b * ACT_BLOCK, is_i4);
            low = add_block_neon(low, &rows, 0, at, &q, x, b, is_i4, dot);
            high = add_block_neon(high, &rows, 4, at, &q, x, b, is_i4, dot);
        }
        if (at < row_bytes) {
            struct tails_neon tails;
            rows = copy_tails_neon(&tails, &rows, at, row_bytes);
            struct q_block_neon q = take_q_neon(x->q + b * ACT_BLOCK, is_i4);
            low = add_block_neon(low, &rows, 0, 0, &q, x, b, is_i4, dot);
            high = add_block_neon(high, &rows, 4, 0, &q, x, b, is_i4, dot);
        }
        store_rows_neon(y + r, low, w, r, end - r);
        store_rows_neon(y + r + 4, high, w, r + 4, end - r - 4);
    }
}

/* ---- one token, block-wise int4 ----
 * As int4, but that codes become their values by a look-up and that the sums of a block's products
 * meet its multiplier. */

/* A row's product with a block of q, whose four multipliers begin at `multipliers`. */
typedef int32x4_t (*row_dot_i4_block_neon)(const uint8_t *w, const uint8_t *multipliers,
                                           const struct q_block_neon *q);

/* The rows of the multipliers as a matrix. */
static inline struct matrix multiplier_matrix_neon(const struct matrix *w)
{
    return (struct matrix){ .row_bytes = qp_multiplier_bytes(w->n_in), .data = w->multipliers };
}

static inline uint16_t four_multipliers_neon(const uint8_t *multipliers)
{
    return (uint16_t)(multipliers[0] | multipliers[1] << 8);
}

/* Rows i to i + 3, from byte `at` on, and from byte 2 b on of the multipliers. */
INLINE_NEON float32x4_t add_i4_block_neon(float32x4_t sum, const struct rows_neon *rows, int i,
                                          size_t at, const struct rows_neon *multipliers, size_t b,
                                          const struct q_block_neon *q, float scale,
                                          row_dot_i4_block_neon dot)
{
    int32x4_t dots[4];
    UNROLL_TOKENS
    for (int j = 0; j < 4; j++) {
        __builtin_prefetch(rows->at[i + j] + at + rows->ahead);
        dots[j] = dot(rows->at[i + j] + at, multipliers->at[i + j] + 2 * b, q);
    }
    return scale_dots_neon(sum, scale, sum_quads_neon(dots[0], dots[1], dots[2], dots[3]));
}

INLINE_NEON void gemv_rows_i4_block_neon(float *y, const struct matrix *w, const struct act_row *x,
                                         int begin, int end, row_dot_i4_block_neon dot)
{
    const struct matrix m = multiplier_matrix_neon(w);
    const size_t n_in = (size_t)w->n_in;
    for (int r = begin; r < end; r += ROWS_NEON) {
        struct rows_neon rows = take_rows_neon(w, r, end);
        const struct rows_neon multipliers = take_rows_neon(&m, r, end);
        float32x4_t low = vdupq_n_f32(0.0f), high = low;
        size_t k = 0, b = 0;
        for (; k + ACT_BLOCK <= n_in; k += ACT_BLOCK, b++) {
            const struct q_block_neon q = take_q_neon(x->q + k, true);
            const float scale = x->scales[b];
            /* A step takes 2 bytes of 8 rows: a quarter of a line of those 16 rows on. */
            __builtin_prefetch(multipliers.at[0] + multipliers.ahead + k / 4);
            low = add_i4_block_neon(low, &rows, 0, k / 2, &multipliers, b, &q, scale, dot);
            high = add_i4_block_neon(high, &rows, 4, k / 2, &multipliers, b, &q, scale, dot);
        }
        if (k < n_in) {
            struct tails_neon tails;
            rows = copy_tails_neon(&tails, &rows, k / 2, n_in / 2);
            const struct q_block_neon q = take_q_neon(x->q + k, true);
            low = add_i4_block_neon(low, &rows, 0, 0, &multipliers, b, &q, x->scales[b], dot);
            high = add_i4_block_neon(high, &rows, 4, 0, &multipliers, b, &q, x->scales[b], dot);
        }
        store_rows_neon(y + r, low, w, r, end - r);
        store_rows_neon(y + r + 4, high, w, r + 4, end - r - 4);
    }
}

/* ---- tiles ----
 * [8 groups][k / 16][8 rows * 16 k] of int8, int4 as well, in an order that the level chooses; k is
 * n_in rounded up to ACT_BLOCK. */

/* 16 k of eight rows in the level's order. */
typedef void (*store_step_neon)(int8_t *to, const int8x16_t row[ROWS_NEON]);

static inline size_t tile_bytes_neon(int n_in)
{
    return TILE_ROWS * qp_round_up((size_t)n_in, ACT_BLOCK);
}

/* 16 nibbles, as they lie. */
INLINE_NEON uint8x16_t take_nibbles_neon(const uint8_t *w)
{
    uint8x8_t pairs = vld1_u8(w);
    uint8x8_t low = vand_u8(pairs, vdup_n_u8(15)), high = vshr_n_u8(pairs, 4);
    return vcombine_u8(vzip1_u8(low, high), vzip2_u8(low, high));
}

/* 16 weights. */
INLINE_NEON int8x16_t take_weights_neon(const uint8_t *w, bool is_i4)
{
    if (!is_i4)
        return vreinterpretq_s8_u8(vld1q_u8(w));
    return vsubq_s8(vreinterpretq_s8_u8(take_nibbles_neon(w)), vdupq_n_s8(8));
}

INLINE_NEON void pack_block_neon(int8_t *to, const struct rows_neon *rows, size_t at, bool is_i4,
                                 store_step_neon store)
{
    for (int k = 0; k < ACT_BLOCK; k += STEP_NEON, to += ROWS_NEON * STEP_NEON) {
        const size_t from = at + (size_t)(is_i4 ? k / 2 : k);
        const int8x16_t row[ROWS_NEON] = {
            take_weights_neon(rows->at[0] + from, is_i4),
            take_weights_neon(rows->at[1] + from, is_i4),
            take_weights_neon(rows->at[2] + from, is_i4),
            take_weights_neon(rows->at[3] + from, is_i4),
            take_weights_neon(rows->at[4] + from, is_i4),
            take_weights_neon(rows->at[5] + from, is_i4),
            take_weights_neon(rows->at[6] + from, is_i4),
            take_weights_neon(rows->at[7] + from, is_i4),
        };
        store(to, row);
    }
}

INLINE_NEON void pack_rows_neon(int8_t *to, const struct matrix *w, int row, int n_rows, bool is_i4,
                                store_step_neon store)
{
    const size_t row_bytes = row_bytes_neon(w), block_bytes = block_bytes_neon(w);
    for (int r = 0; r < n_rows; r += ROWS_NEON) {
        struct rows_neon rows = take_rows_neon(w, row + r, row + n_rows);
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
                take_nibbles_neon(rows->at[i] + at + k / 2));
        store(to, row);
    }
}

INLINE_NEON void pack_rows_i4_block_neon(int8_t *to, const struct matrix *w, int row, int n_rows,
                                         store_step_neon store)
{
    const struct matrix m = multiplier_matrix_neon(w);
    const size_t n_in = (size_t)w->n_in;
    for (int r = 0; r < n_rows; r += ROWS_NEON) {
        struct rows_neon rows = take_rows_neon(w, row + r, row + n_rows);
        const struct rows_neon multipliers = take_rows_neon(&m, row + r, row + n_rows);
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
    GEMM_K_NEON = 2048 // so much of 8 tokens and of a group stays in L1, and of a tile in L2
};

/* A few tokens over a stretch of k, gathered so that the loop reads them in order: q as
 * [k / 16][tokens * 16 k], in the level's order within a step. */
struct tokens_neon {
    int8_t q[TOKENS_NEON * GEMM_K_NEON];
    float scales[GEMM_K_NEON / ACT_BLOCK][TOKENS_NEON];
    float *y[TOKENS_NEON];
};

/* sums[t][r] += scale_b * dot_b over n_blocks blocks, for a few tokens and a group of rows. */
typedef void (*gemm_blocks_neon)(float sums[TOKENS_NEON][ROWS_NEON], const int8_t *group,
                                 const struct tokens_neon *tokens, int n_blocks);

struct gemm_level_neon {
    int n_tokens; // as many as fill the registers
    /* 16 k of the tokens q[t] from `k` on in the level's order. */
    void (*store_q)(int8_t *to, const int8_t *const q[TOKENS_NEON], size_t k, int n_tokens);
    gemm_blocks_neon blocks, half_blocks; // of n_tokens, and of half as many: NULL for none
};

/* The sums of a group's rows wait in y between one stretch of k and the next. */
static inline void gemm_group_neon(const struct tokens_neon *tokens, int n_tokens,
                                   const int8_t *group, const struct matrix *w, int row, int r,
                                   int n_rows, int n_blocks, bool is_first, bool is_last,
                                   gemm_blocks_neon blocks)
{
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

INLINE_NEON void gemm_groups_neon(float *y, size_t y_stride, const void *tile,
                                  const struct matrix *w, int row, int n_rows, const int8_t *q,
                                  size_t q_stride, const float *scales, int n_tokens,
                                  const struct gemm_level_neon *level)
{
    const size_t k_padded = qp_round_up((size_t)w->n_in, ACT_BLOCK);
    struct tokens_neon tokens;
    for (size_t k = 0; k < k_padded; k += GEMM_K_NEON) {
        const size_t n = k_padded - k < GEMM_K_NEON ? k_padded - k : GEMM_K_NEON;
        for (int t = 0, n_group; t < n_tokens; t += n_group) {
            const bool is_half = level->half_blocks && n_tokens - t <= level->n_tokens / 2;
            n_group = is_half ? level->n_tokens / 2 : level->n_tokens;
            const int8_t *from[TOKENS_NEON] = { 0 };
            for (int i = 0; i < n_group; i++) {
                /* Past the last token the last one is repeated: the same sums, stored twice. */
                const size_t at = (size_t)(t + i < n_tokens ? t + i : n_tokens - 1);
                from[i] = q + at * q_stride + k;
                tokens.y[i] = y + at * y_stride;
                for (size_t b = 0; b < n / ACT_BLOCK; b++)
                    tokens.scales[b][i] = scales[(at * k_padded + k) / ACT_BLOCK + b];
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
