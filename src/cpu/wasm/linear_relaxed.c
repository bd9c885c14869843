/* linear_relaxed.c: matrix products with WebAssembly's relaxed SIMD: i32x4.relaxed_dot_i8x16_i7x16
 * adds four products of bytes to each int32 lane.
 * In, out, order of rounding: scalar/linear_scalar.c, to the bit.
 *
 * The first operand is signed. The second one has seven bits; the engine chooses what the eighth
 * bit means, and never changes its choice while it runs. Nibbles of int4 weights have four bits and
 * are used as they are stored, plus 8. Weights of eight bits are used as signed bytes if the engine
 * reads signed bytes (sdot, vpdpbssd), and plus 128 if it reads unsigned ones (vpdpbusd). If it
 * adds two products in int16, which saturates (pmaddubsw), neither is exact, and int8 weights use
 * the kernels of linear_wasm.c. Products of extreme bytes show which engine this is when the table
 * of kernels is set up.
 *
 * Tile, layout x8k4: eight groups of 8 rows, each [n_in rounded up to ACT_BLOCK, / 4][8 rows][4 k]
 * of bytes. */
#include "cpu/wasm/wasm.h"

#if defined(__wasm_relaxed_simd__)

#include "cpu/wasm/linear_wasm.h"

#include <assert.h>

INLINE_WASM v128_t dot_relaxed(v128_t q, v128_t weights, v128_t sum)
{
    return wasm_i32x4_relaxed_dot_i8x16_i7x16_add(q, weights, sum);
}

/* ---- which engine this is ---- */

enum eighth_bit {
    BIT_SATURATES, // or anything else that is not exact
    BIT_IS_SIGN,
    BIT_IS_128,
};

/* The product of two vectors with a and b in every lane. Volatile, so that the engine multiplies
 * and not the compiler. */
static int32_t known_dot(int8_t a, uint8_t b)
{
    volatile int8_t va = a;
    volatile uint8_t vb = b;
    const v128_t dot =
        dot_relaxed(wasm_i8x16_splat(va), wasm_i8x16_splat((int8_t)vb), wasm_i32x4_splat(1000));
    return wasm_i32x4_extract_lane(dot, 3) - 1000;
}

static enum eighth_bit find_eighth_bit(void)
{
    static const int8_t a[] = { -127, 127, -1, 64 };
    static const uint8_t b[] = { 255, 254, 129, 128, 127, 15, 0 };
    bool is_sign = true, is_128 = true;
    for (size_t i = 0; i < QP_COUNT(a); i++)
        for (size_t j = 0; j < QP_COUNT(b); j++) {
            is_sign = is_sign && known_dot(a[i], b[j]) == 4 * a[i] * (int8_t)b[j];
            is_128 = is_128 && known_dot(a[i], b[j]) == 4 * a[i] * b[j];
        }
    return is_sign ? BIT_IS_SIGN : is_128 ? BIT_IS_128 : BIT_SATURATES;
}

/* Are products of seven bits correct, which the specification defines? */
bool qp_relaxed_dot_is_right(void)
{
    static const int8_t a[] = { -128, -127, -1, 3, 127 };
    static const uint8_t b[] = { 127, 126, 64, 15, 1, 0 };
    for (size_t i = 0; i < QP_COUNT(a); i++)
        for (size_t j = 0; j < QP_COUNT(b); j++)
            if (known_dot(a[i], b[j]) != 4 * a[i] * b[j])
                return false;
    return true;
}

/* ---- one token ---- */

INLINE_WASM void load_q_i8_relaxed(v128_t to[8], const int8_t *q)
{
    UNROLL_WASM
    for (int i = 0; i < 4; i++)
        to[i] = wasm_v128_load(q + 16 * i);
}

INLINE_WASM v128_t dot_signed_relaxed(const uint8_t *w, const uint8_t *multipliers, size_t b,
                                      const v128_t *q)
{
    (void)multipliers, (void)b;
    v128_t sum = wasm_i32x4_const_splat(0);
    UNROLL_WASM
    for (int i = 0; i < 4; i++)
        sum = dot_relaxed(q[i], wasm_v128_load(w + 16 * i), sum);
    return sum;
}

INLINE_WASM v128_t plus_128_relaxed(v128_t w)
{
    return wasm_v128_xor(w, wasm_i8x16_const_splat(-128));
}

INLINE_WASM v128_t dot_plus_128_relaxed(const uint8_t *w, const uint8_t *multipliers, size_t b,
                                        const v128_t *q)
{
    (void)multipliers, (void)b;
    v128_t sum = wasm_i32x4_const_splat(0);
    UNROLL_WASM
    for (int i = 0; i < 4; i++)
        sum = dot_relaxed(q[i], plus_128_relaxed(wasm_v128_load(w + 16 * i)), sum);
    return sum;
}

/* The even k of 32, for the low nibbles, then the odd ones, twice. */
INLINE_WASM void load_q_i4_relaxed(v128_t to[8], const int8_t *q)
{
    UNROLL_WASM
    for (int h = 0; h < 2; h++) {
        const v128_t a = wasm_v128_load(q + 32 * h), b = wasm_v128_load(q + 32 * h + 16);
        to[2 * h] =
            wasm_i8x16_shuffle(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        to[2 * h + 1] =
            wasm_i8x16_shuffle(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    }
}

INLINE_WASM v128_t dot_i4_relaxed(const uint8_t *w, const uint8_t *multipliers, size_t b,
                                  const v128_t *q)
{
    (void)multipliers, (void)b;
    const v128_t mask = wasm_i8x16_const_splat(15);
    v128_t sum = wasm_i32x4_const_splat(0);
    UNROLL_WASM
    for (int h = 0; h < 2; h++) {
        const v128_t u = wasm_v128_load(w + 16 * h);
        sum = dot_relaxed(q[2 * h], wasm_v128_and(u, mask), sum);
        sum = dot_relaxed(q[2 * h + 1], wasm_v128_and(wasm_u16x8_shr(u, 4), mask), sum);
    }
    return sum;
}

static void gemv_i8_signed_relaxed(float *y, const struct matrix *w, const struct act_rows *x,
                                   int begin, int end)
{
    gemv_rows_wasm(y, w, x, begin, end, DTYPE_I8, WEIGHTS_SIGNED, load_q_i8_relaxed,
                   dot_signed_relaxed);
}

static void gemv_i8_plus_128_relaxed(float *y, const struct matrix *w, const struct act_rows *x,
                                     int begin, int end)
{
    gemv_rows_wasm(y, w, x, begin, end, DTYPE_I8, WEIGHTS_PLUS_128, load_q_i8_relaxed,
                   dot_plus_128_relaxed);
}

static void gemv_i4_relaxed(float *y, const struct matrix *w, const struct act_rows *x, int begin,
                            int end)
{
    gemv_rows_wasm(y, w, x, begin, end, DTYPE_I4, WEIGHTS_PLUS_8, load_q_i4_relaxed,
                   dot_i4_relaxed);
}

/* Values plus 15 have seven bits. The sum of each half starts at minus what the 15 adds. */
INLINE_WASM void load_q_i4_block_relaxed(v128_t to[8], const int8_t *q)
{
    load_q_i4_relaxed(to, q);
    const v128_t all_15 = wasm_i8x16_const_splat(15);
    UNROLL_WASM
    for (int h = 0; h < 2; h++) {
        const v128_t sum = dot_relaxed(to[2 * h], all_15, wasm_i32x4_const_splat(0));
        to[4 + h] = wasm_i32x4_neg(dot_relaxed(to[2 * h + 1], all_15, sum));
    }
}

/* The sum of eight products fits 16 bits, so that dot_i16x8 can multiply it by the multiplier. */
INLINE_WASM v128_t dot_i4_block_relaxed(const uint8_t *w, const uint8_t *multipliers, size_t b,
                                        const v128_t *q)
{
    const v128_t values =
        wasm_i8x16_add(wasm_v128_load(qp_i4_block_values[1]), wasm_i8x16_const_splat(15));
    const v128_t mask = wasm_i8x16_const_splat(15);
    v128_t sum = wasm_i32x4_const_splat(0);
    UNROLL_WASM
    for (int h = 0; h < 2; h++) {
        const v128_t u = wasm_v128_load(w + 16 * h);
        const v128_t even = wasm_i8x16_relaxed_swizzle(values, wasm_v128_and(u, mask));
        const v128_t odd =
            wasm_i8x16_relaxed_swizzle(values, wasm_v128_and(wasm_u16x8_shr(u, 4), mask));
        v128_t dots = dot_relaxed(q[2 * h], even, q[4 + h]);
        dots = dot_relaxed(q[2 * h + 1], odd, dots);
        sum = wasm_i32x4_add(sum,
                             wasm_i32x4_dot_i16x8(dots, multipliers_wasm(multipliers, b, h == 1)));
    }
    return sum;
}

static void gemv_i4_block_relaxed(float *y, const struct matrix *w, const struct act_rows *x,
                                  int begin, int end)
{
    gemv_rows_wasm(y, w, x, begin, end, DTYPE_I4_BLOCK, WEIGHTS_SIGNED, load_q_i4_block_relaxed,
                   dot_i4_block_relaxed);
}

/* ---- tiles ---- */

INLINE_WASM v128_t weights_signed_relaxed(const uint8_t *w, int multiplier)
{
    (void)multiplier;
    return wasm_v128_load(w);
}

INLINE_WASM v128_t weights_plus_128_relaxed(const uint8_t *w, int multiplier)
{
    (void)multiplier;
    return plus_128_relaxed(wasm_v128_load(w));
}

INLINE_WASM v128_t weights_nibbles_relaxed(const uint8_t *w, int multiplier)
{
    (void)multiplier;
    return nibbles_wasm(w);
}

INLINE_WASM v128_t codes_plus_128_relaxed(const uint8_t *w, int multiplier)
{
    return plus_128_relaxed(codes_to_bytes_wasm(w, multiplier));
}

INLINE_WASM void store_step_k4_relaxed(uint8_t *to, v128_t row[4])
{
    transpose_wasm(row);
    UNROLL_WASM
    for (int i = 0; i < 4; i++)
        wasm_v128_store(to + i * ROWS_WASM * 4, row[i]);
}

/* A tile for one type of weights, a byte each. */
INLINE_WASM void pack_type_relaxed(void *tile, const struct matrix *w, int row, int n_rows,
                                   int dtype, load_weights_wasm load)
{
    pack_rows_wasm(tile, w, row, n_rows, dtype, 1, load, store_step_k4_relaxed);
}

static void pack_signed_relaxed(void *tile, const struct matrix *w, int row, int n_rows)
{
    if (w->dtype == DTYPE_I8)
        pack_type_relaxed(tile, w, row, n_rows, DTYPE_I8, weights_signed_relaxed);
    else if (w->dtype == DTYPE_I4)
        pack_type_relaxed(tile, w, row, n_rows, DTYPE_I4, weights_nibbles_relaxed);
    else
        pack_type_relaxed(tile, w, row, n_rows, DTYPE_I4_BLOCK, codes_to_bytes_wasm);
}

static void pack_plus_128_relaxed(void *tile, const struct matrix *w, int row, int n_rows)
{
    if (w->dtype == DTYPE_I8)
        pack_type_relaxed(tile, w, row, n_rows, DTYPE_I8, weights_plus_128_relaxed);
    else if (w->dtype == DTYPE_I4)
        pack_type_relaxed(tile, w, row, n_rows, DTYPE_I4, weights_nibbles_relaxed);
    else
        pack_type_relaxed(tile, w, row, n_rows, DTYPE_I4_BLOCK, codes_plus_128_relaxed);
}

/* ---- many tokens against a tile ---- */

// clang-format off
#define START_RELAXED(t) \
    v128_t low##t = start_wasm(token[t].offsets[b], plus), high##t = low##t;
#define STEP_RELAXED(t) { \
    const v128_t x = wasm_v128_load32_splat((const int8_t *)token[t].q + k); \
    low##t = dot_relaxed(x, w0, low##t); \
    high##t = dot_relaxed(x, w1, high##t); }
#define SCALE_RELAXED(t) { \
    const v128_t scale = wasm_v128_load32_splat(token[t].scales + b); \
    sums[t][0] = scale_dots_wasm(sums[t][0], scale, low##t); \
    sums[t][1] = scale_dots_wasm(sums[t][1], scale, high##t); }
// clang-format on

INLINE_WASM void gemm_blocks_relaxed(v128_t sums[TOKENS_WASM][2], const uint8_t *group,
                                     const struct token_wasm *token, int n_blocks,
                                     enum weight_offset plus)
{
    assert(n_blocks > 0 && n_blocks <= GEMM_K_WASM / ACT_BLOCK);
    for (int b = 0, k = 0; b < n_blocks; b++) {
        EACH_TOKEN_WASM(START_RELAXED)
        for (int end = k + ACT_BLOCK; k < end; k += 4, group += 4 * ROWS_WASM) {
            const v128_t w0 = wasm_v128_load(group), w1 = wasm_v128_load(group + 16);
            EACH_TOKEN_WASM(STEP_RELAXED)
        }
        EACH_TOKEN_WASM(SCALE_RELAXED)
    }
}

#define GEMM_BLOCKS_RELAXED(name, plus)                                                            \
    static __attribute__((noinline)) void name(v128_t sums[TOKENS_WASM][2], const uint8_t *group,  \
                                               const struct token_wasm *token, int n_blocks)       \
    {                                                                                              \
        gemm_blocks_relaxed(sums, group, token, n_blocks, plus);                                   \
    }
GEMM_BLOCKS_RELAXED(gemm_blocks_signed_relaxed, WEIGHTS_SIGNED)
GEMM_BLOCKS_RELAXED(gemm_blocks_plus_8_relaxed, WEIGHTS_PLUS_8)
GEMM_BLOCKS_RELAXED(gemm_blocks_plus_128_relaxed, WEIGHTS_PLUS_128)

static void gemm_signed_relaxed(const struct out_view *out, const void *tile,
                                const struct matrix *w, const struct act_rows *x, int row,
                                int n_rows)
{
    gemm_groups_wasm(out, tile, w, x, row, n_rows, NULL,
                     w->dtype == DTYPE_I4 ? gemm_blocks_plus_8_relaxed
                                          : gemm_blocks_signed_relaxed);
}

static void gemm_plus_128_relaxed(const struct out_view *out, const void *tile,
                                  const struct matrix *w, const struct act_rows *x, int row,
                                  int n_rows)
{
    gemm_groups_wasm(out, tile, w, x, row, n_rows, NULL,
                     w->dtype == DTYPE_I4 ? gemm_blocks_plus_8_relaxed
                                          : gemm_blocks_plus_128_relaxed);
}

void qp_linear_kernels_relaxed(struct kernels *k)
{
    k->gemv_i4 = gemv_i4_relaxed;
    k->gemv_i4_block = gemv_i4_block_relaxed;
    switch (find_eighth_bit()) {
    case BIT_SATURATES: // int8 and tiles use linear_wasm.c
        break;
    case BIT_IS_SIGN:
        k->gemv_i8 = gemv_i8_signed_relaxed;
        k->tile_order = (struct tile_order){ ROWS_WASM, 4, ROWS_WASM, 4, 1, 0 };
        k->pack = pack_signed_relaxed;
        k->gemm = gemm_signed_relaxed;
        break;
    case BIT_IS_128:
        k->gemv_i8 = gemv_i8_plus_128_relaxed;
        k->tile_order = (struct tile_order){ ROWS_WASM, 4, ROWS_WASM, 4, 1, 128 };
        k->pack = pack_plus_128_relaxed;
        k->gemm = gemm_plus_128_relaxed;
        break;
    }
}

#else

bool qp_relaxed_dot_is_right(void)
{
    return true;
}

void qp_linear_kernels_relaxed(struct kernels *k)
{
    (void)k;
}

#endif
