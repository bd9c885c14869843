/* linear_wasm.h: what the matrix products with and without relaxed SIMD share: eight rows of
 * weights at a time, and tiles of eight groups of eight rows. The levels differ in the product of
 * two blocks and in the size of a weight in a tile: 16 bits or 8. */
#ifndef QP_LINEAR_WASM_H
#define QP_LINEAR_WASM_H

#include "base/math_constants.h"
#include "cpu/gemm_token.h"
#include "cpu/kernels.h"
#include "format/dtype.h"

#include <assert.h>
#include <string.h>
#include <wasm_simd128.h>

#define INLINE_WASM static inline __attribute__((always_inline))
#define UNROLL_WASM _Pragma("clang loop unroll(full)") // so that small arrays become registers

/* ---- floats ---- */

/* a * b + c, rounded twice */
INLINE_WASM v128_t mul_add_wasm(v128_t a, v128_t b, v128_t c)
{
    return wasm_f32x4_add(wasm_f32x4_mul(a, b), c);
}

/* a > b ? a : b, and a < b ? a : b: the second when one is NaN. */
INLINE_WASM v128_t larger_wasm(v128_t a, v128_t b)
{
    return wasm_f32x4_pmax(b, a);
}

INLINE_WASM v128_t smaller_wasm(v128_t a, v128_t b)
{
    return wasm_f32x4_pmin(b, a);
}

/* The first n of 4 floats, zero elsewhere. */
INLINE_WASM v128_t load_wasm(const float *x, int n)
{
    if (n >= 4)
        return wasm_v128_load(x);
    float some[4] = { 0 };
    if (n > 0)
        memcpy(some, x, (size_t)n * sizeof *x);
    return wasm_v128_load(some);
}

INLINE_WASM void store_wasm(float *y, int n, v128_t v)
{
    if (n >= 4) {
        wasm_v128_store(y, v);
    } else if (n > 0) {
        float some[4];
        wasm_v128_store(some, v);
        memcpy(y, some, (size_t)n * sizeof *y);
    }
}

/* The largest of 4, none of which is NaN. */
INLINE_WASM float largest_wasm(v128_t four)
{
    v128_t two = larger_wasm(four, wasm_i32x4_shuffle(four, four, 2, 3, 0, 1));
    return wasm_f32x4_extract_lane(larger_wasm(two, wasm_i32x4_shuffle(two, two, 1, 0, 3, 2)), 0);
}

enum {
    ROWS_WASM = 8,
    STEP_WASM = 16 // k that are packed at a time
};

/* Eight rows from some k on: in the mapped file, or a copy of their last block filled with zeros.
 * The multipliers of block-wise int4 are those of the whole row. */
struct rows_wasm {
    const uint8_t *at[ROWS_WASM];
    const uint8_t *multipliers[ROWS_WASM];
};

struct tails_wasm {
    uint8_t bytes[ROWS_WASM][ACT_BLOCK];
};

/* Rows [r, r + 8). Past the last row this is the last one again; its result is not stored. */
static inline struct rows_wasm rows_wasm_at(const struct matrix *w, int r, int end)
{
    assert(r < end);
    struct rows_wasm rows = { 0 };
    for (int i = 0; i < ROWS_WASM; i++) {
        const int row = r + i < end ? r + i : end - 1;
        rows.at[i] = qp_matrix_row(w, row);
        if (w->dtype == DTYPE_I4_BLOCK)
            rows.multipliers[i] = qp_matrix_multipliers(w, row);
    }
    return rows;
}

static inline struct rows_wasm
copy_tails_wasm(struct tails_wasm *tails, const struct rows_wasm *rows, size_t begin, size_t end)
{
    assert(begin < end && end - begin <= ACT_BLOCK);
    struct rows_wasm copies = *rows;
    memset(tails, 0, sizeof *tails);
    for (int i = 0; i < ROWS_WASM; i++) {
        memcpy(tails->bytes[i], rows->at[i] + begin, end - begin);
        copies.at[i] = tails->bytes[i];
    }
    return copies;
}

/* y[i] = sum[i] * scales[r + i] (+ bias[r + i]) for the first n of 4 rows. */
static inline void store_rows_wasm(float *y, v128_t sum, const struct matrix *w, int r, int n)
{
    if (n <= 0)
        return;
    v128_t v = wasm_f32x4_mul(sum, load_wasm(w->scales + r, n));
    if (w->bias)
        v = wasm_f32x4_add(v, load_wasm(w->bias + r, n));
    store_wasm(y, n, v);
}

/* Transpose 4x4 dwords: v[i] becomes dword i of each. */
INLINE_WASM void transpose_wasm(v128_t v[4])
{
    const v128_t low01 = wasm_i32x4_shuffle(v[0], v[1], 0, 4, 1, 5);
    const v128_t high01 = wasm_i32x4_shuffle(v[0], v[1], 2, 6, 3, 7);
    const v128_t low23 = wasm_i32x4_shuffle(v[2], v[3], 0, 4, 1, 5);
    const v128_t high23 = wasm_i32x4_shuffle(v[2], v[3], 2, 6, 3, 7);
    v[0] = wasm_i64x2_shuffle(low01, low23, 0, 2);
    v[1] = wasm_i64x2_shuffle(low01, low23, 1, 3);
    v[2] = wasm_i64x2_shuffle(high01, high23, 0, 2);
    v[3] = wasm_i64x2_shuffle(high01, high23, 1, 3);
}

INLINE_WASM v128_t scale_dots_wasm(v128_t sum, v128_t scale, v128_t dots)
{
    return wasm_f32x4_add(sum, wasm_f32x4_mul(wasm_f32x4_convert_i32x4(dots), scale));
}

/* ---- one token: 8 rows at a time, each byte of weights read once ---- */

/* The product of a block of a row and block b of q, which is in the order of the level: four
 * partial sums. `multipliers` are those of the row, for block-wise int4. */
typedef v128_t (*row_dot_wasm)(const uint8_t *w, const uint8_t *multipliers, size_t b,
                               const v128_t *q);
typedef void (*load_q_wasm)(v128_t to[8], const int8_t *q);

/* sum + scale_b * (dot_b + start) of rows i to i + 3, from byte `at` on. */
INLINE_WASM v128_t add_block_wasm(v128_t sum, const struct rows_wasm *rows, int i, size_t at,
                                  size_t b, const v128_t *q, v128_t scale, v128_t start,
                                  row_dot_wasm dot)
{
    v128_t dots[4];
    UNROLL_WASM
    for (int j = 0; j < 4; j++)
        dots[j] = dot(rows->at[i + j] + at, rows->multipliers[i + j], b, q);
    transpose_wasm(dots);
    v128_t all = wasm_i32x4_add(wasm_i32x4_add(dots[0], dots[1]), wasm_i32x4_add(dots[2], dots[3]));
    return scale_dots_wasm(sum, scale, wasm_i32x4_add(all, start));
}

/* The multipliers of twice 16 weights of block b, the first 32 of them or the last. Each is in the
 * low half of the lanes that have partial sums of its weights; the high half is zero, so that
 * dot_i16x8 multiplies a sum that fits 16 bits. */
INLINE_WASM v128_t multipliers_wasm(const uint8_t *multipliers, size_t b, bool is_last)
{
    const v128_t nibbles = wasm_v128_load16_splat(multipliers + 2 * b);
    const v128_t up = is_last ? wasm_i16x8_const(16, 0, 16, 0, 1, 0, 1, 0)
                              : wasm_i16x8_const(4096, 0, 4096, 0, 256, 0, 256, 0);
    return wasm_i16x8_shr(wasm_i16x8_mul(nibbles, up), 12);
}

/* How the weights are stored: as they are, plus 8, or plus 128. */
enum weight_offset {
    WEIGHTS_SIGNED,
    WEIGHTS_PLUS_8,
    WEIGHTS_PLUS_128
};

/* Where the sum of a block starts, to subtract what is added to its weights: act_rows.offsets are
 * -128 times the sum of q. */

INLINE_WASM v128_t start_wasm(int32_t offset, enum weight_offset plus)
{
    return wasm_i32x4_splat(plus == WEIGHTS_PLUS_128 ? offset
                            : plus == WEIGHTS_PLUS_8 ? offset / 16
                                                     : 0);
}

INLINE_WASM void gemv_rows_wasm(float *y, const struct matrix *w, const struct act_rows *x,
                                int begin, int end, int dtype, enum weight_offset plus,
                                load_q_wasm load_q, row_dot_wasm dot)
{
    assert(w->dtype == dtype && w->scales && qp_has_rows(w, begin, end));
    assert(x->n == 1 && qp_is_act_rows(x, w->n_in));
    const bool is_i8 = dtype == DTYPE_I8;
    const size_t row_bytes = is_i8 ? (size_t)w->n_in : (size_t)w->n_in / 2;
    const size_t block_bytes = is_i8 ? ACT_BLOCK : ACT_BLOCK / 2;
    for (int r = begin; r < end; r += ROWS_WASM) {
        struct rows_wasm rows = rows_wasm_at(w, r, end);
        struct tails_wasm tails;
        v128_t low = wasm_f32x4_const_splat(0.0f), high = low;
        size_t at = 0;
        for (size_t b = 0; b * block_bytes < row_bytes; b++, at += block_bytes) {
            if (at + block_bytes > row_bytes) {
                rows = copy_tails_wasm(&tails, &rows, at, row_bytes);
                at = 0;
            }
            v128_t q[8];
            load_q(q, x->q + b * ACT_BLOCK);
            const v128_t scale = wasm_f32x4_splat(x->scales[b]);
            const v128_t start = start_wasm(x->offsets[b], plus);
            low = add_block_wasm(low, &rows, 0, at, b, q, scale, start, dot);
            high = add_block_wasm(high, &rows, 4, at, b, q, scale, start, dot);
        }
        store_rows_wasm(y + r, low, w, r, end - r);
        store_rows_wasm(y + r + 4, high, w, r + 4, end - r - 4);
    }
}

/* ---- tiles ----
 * [8 groups][steps of k][8 rows][a dword: 2 k of 16 bits, or 4 k of 8]; k is n_in rounded up to
 * ACT_BLOCK. */

/* 16 nibbles in order, a byte each. */
INLINE_WASM v128_t nibbles_wasm(const uint8_t *w)
{
    const v128_t pairs = wasm_v128_load64_zero(w), mask = wasm_i8x16_const_splat(15);
    const v128_t low = wasm_v128_and(pairs, mask);
    const v128_t high = wasm_v128_and(wasm_u16x8_shr(pairs, 4), mask);
    return wasm_i8x16_shuffle(low, high, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}

/* 16 weights of a row as bytes; those of block-wise int4 with their multiplier, as it is stored. */
typedef v128_t (*load_weights_wasm)(const uint8_t *w, int multiplier);

INLINE_WASM v128_t codes_to_bytes_wasm(const uint8_t *w, int multiplier)
{
    return wasm_i8x16_swizzle(wasm_v128_load(qp_i4_block_values[multiplier]), nibbles_wasm(w));
}
/* Store 16 k of four rows in a group. */
typedef void (*store_step_wasm)(uint8_t *to, v128_t row[4]);

INLINE_WASM void pack_rows_wasm(uint8_t *tile, const struct matrix *w, int row, int n_rows,
                                int dtype, size_t weight_bytes, load_weights_wasm load,
                                store_step_wasm store)
{
    assert(w->dtype == dtype && qp_is_tile(tile, w, row, n_rows));
    const bool is_i8 = dtype == DTYPE_I8;
    const size_t row_bytes = is_i8 ? (size_t)w->n_in : (size_t)w->n_in / 2;
    const size_t block_bytes = is_i8 ? ACT_BLOCK : ACT_BLOCK / 2;
    const size_t step_bytes = is_i8 ? STEP_WASM : STEP_WASM / 2;
    uint8_t *to = tile;
    for (int r = 0; r < n_rows; r += ROWS_WASM) {
        struct rows_wasm rows = rows_wasm_at(w, row + r, row + n_rows);
        struct tails_wasm tails;
        size_t at = 0;
        for (int b = 0; (size_t)b * block_bytes < row_bytes; b++, at += block_bytes) {
            if (at + block_bytes > row_bytes) {
                rows = copy_tails_wasm(&tails, &rows, at, row_bytes);
                at = 0;
            }
            for (int j = 0; j < ACT_BLOCK / STEP_WASM; j++) {
                UNROLL_WASM
                for (int half = 0; half < 2; half++) {
                    v128_t v[4];
                    UNROLL_WASM
                    for (int i = 0; i < 4; i++)
                        v[i] = load(rows.at[4 * half + i] + at + (size_t)j * step_bytes,
                                    dtype == DTYPE_I4_BLOCK
                                        ? qp_block_multiplier(rows.multipliers[4 * half + i],
                                                              b * ACT_BLOCK + j * STEP_WASM)
                                        : 0);
                    store(to + 16 * half, v);
                }
                to += ROWS_WASM * STEP_WASM * weight_bytes;
            }
        }
    }
}

/* ---- many tokens against a tile ---- */

enum {
    TOKENS_WASM = 6,    // with 8 rows: 12 sums in registers
    GEMM_K_WASM = 2048, // columns of the tokens that stay in L1, and of a tile in L2
};
#define EACH_TOKEN_WASM(M) M(0) M(1) M(2) M(3) M(4) M(5)

/* One token's activations from some block on, bytes or int16, and where its results go. */
struct token_wasm {
    const void *q;
    const float *scales;
    const int32_t *offsets;
    float *y;
};

/* sums[t] += scale_b * dot_b over n_blocks blocks, for a group of tokens and a group of rows. */
typedef void (*gemm_blocks_wasm)(v128_t sums[TOKENS_WASM][2], const uint8_t *group,
                                 const struct token_wasm *token, int n_blocks);

/* Between two stretches of k the sums of a group's rows are in y. */
static inline void gemm_group_wasm(const struct token_wasm *token, const uint8_t *group,
                                   const struct matrix *w, int row, int r, int n_rows, int n_blocks,
                                   bool is_first, bool is_last, gemm_blocks_wasm blocks)
{
    v128_t sums[TOKENS_WASM][2];
    for (int t = 0; t < TOKENS_WASM; t++)
        for (int i = 0; i < 2; i++)
            sums[t][i] = load_wasm(token[t].y + r + 4 * i, is_first ? 0 : n_rows - r - 4 * i);
    blocks(sums, group, token, n_blocks);
    for (int t = 0; t < TOKENS_WASM; t++)
        for (int i = 0; i < 2; i++) {
            float *y = token[t].y + r + 4 * i;
            const int n = n_rows - r - 4 * i;
            if (is_last)
                store_rows_wasm(y, sums[t][i], w, row + r + 4 * i, n);
            else
                store_wasm(y, n, sums[t][i]);
        }
}

/* `wide` is a buffer for q as int16, or NULL if q stays bytes. */
INLINE_WASM void gemm_groups_wasm(const struct out_view *out, const uint8_t *tile,
                                  const struct matrix *w, const struct act_rows *x, int row,
                                  int n_rows, int16_t (*wide)[GEMM_K_WASM], gemm_blocks_wasm blocks)
{
    assert(qp_is_tile(tile, w, row, n_rows) && qp_is_act_rows(x, w->n_in));
    const size_t k_padded = qp_round_up((size_t)w->n_in, ACT_BLOCK), weight_bytes = wide ? 2 : 1;
    for (size_t k = 0; k < k_padded; k += GEMM_K_WASM) {
        const size_t n = k_padded - k < GEMM_K_WASM ? k_padded - k : GEMM_K_WASM;
        for (int t = 0; t < x->n; t += TOKENS_WASM) {
            struct token_wasm token[TOKENS_WASM];
            for (int i = 0; i < TOKENS_WASM; i++) {
                const struct gemm_token narrow = gemm_token_at(out, x, t + i, k, k_padded);
                token[i] = (struct token_wasm){ narrow.q, narrow.scales, narrow.offsets, narrow.y };
                if (!wide)
                    continue;
                for (size_t j = 0; j < n; j += 8)
                    wasm_v128_store(wide[i] + j, wasm_i16x8_load8x8(narrow.q + j));
                token[i].q = wide[i];
            }
            for (int r = 0; r < n_rows; r += ROWS_WASM)
                gemm_group_wasm(token, tile + ((size_t)r * k_padded + k * ROWS_WASM) * weight_bytes,
                                w, row, r, n_rows, (int)(n / ACT_BLOCK), k == 0 && w->scales,
                                k + n == k_padded && w->scales, blocks);
        }
    }
}

#endif
