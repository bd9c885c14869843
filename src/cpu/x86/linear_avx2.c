/* linear_avx2.c: matrix products on 256-bit registers without VNNI (Haswell, Zen on).
 * In, out, order of rounding: scalar/linear_scalar.c, to the bit.
 *
 * Few tokens: vpmaddubsw multiplies unsigned by signed bytes. For int8 the operands are |w| and x
 * with the sign of w; two products are at most 2 * 128 * 127, which fits int16. For int4 they are
 * the stored nibbles, which are the weights plus 8, and x; act_rows.offsets / 16 subtracts the 8.
 *
 * Tile of int8 and block-wise int4, layout i16x16k2: four groups of 16 rows, each
 * [k / 2][16 rows][2 k] of int16, for vpmaddwd with two k of a token, widened and broadcast. (Bytes
 * with the sign trick need the same number of instructions per product and half the cache, but
 * three of their four instructions run on two ports only.)
 *
 * Tile of int4, layout u8x16k4: four groups of 16 rows, each [k / 4][16 rows][4 k] of nibbles, one
 * in a byte. The products of vpmaddubsw are so small that int16 holds the sum of eight steps.
 *
 * In both layouts k is n_in rounded up to ACT_BLOCK. */
#include "cpu/gemv_rows.h"
#include "cpu/x86/x86.h"
#include "format/dtype.h"

#if defined(__x86_64__)

#include <assert.h>
#include <float.h>
#include <immintrin.h>
#include <string.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2")
#endif

#include "cpu/x86/linear_avx2.h"

/* ---- activations ---- */

static float max_of_8(__m256 v)
{
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}

static int32_t sum_of_8(__m256i v)
{
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    __m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 1)));
}

/* min and max return their second operand if one is NaN. */
static __m256i round_clamped(__m256 x, __m256 factor)
{
    __m256 y = _mm256_min_ps(_mm256_mul_ps(x, factor), _mm256_set1_ps(127.0f));
    return _mm256_cvtps_epi32(_mm256_max_ps(y, _mm256_set1_ps(-127.0f)));
}

static void quantize_block_avx2(int8_t *q, float *scale, int32_t *offset, const float x[ACT_BLOCK])
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    __m256 largest = _mm256_setzero_ps();
    for (int i = 0; i < ACT_BLOCK; i += 8)
        largest = _mm256_max_ps(_mm256_andnot_ps(sign, _mm256_loadu_ps(x + i)), largest);
    float max = max_of_8(largest);
    float inverse = 127.0f / max;
    __m256 factor = _mm256_set1_ps(inverse < FLT_MAX ? inverse : FLT_MAX);
    __m256i sum = _mm256_setzero_si256();
    for (int i = 0; i < ACT_BLOCK; i += 16) {
        __m256i low = round_clamped(_mm256_loadu_ps(x + i), factor);
        __m256i high = round_clamped(_mm256_loadu_ps(x + i + 8), factor);
        sum = _mm256_add_epi32(sum, _mm256_add_epi32(low, high));
        __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xd8);
        __m128i bytes =
            _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
        _mm_storeu_si128((__m128i *)(q + i), bytes);
    }
    *scale = max / 127.0f;
    *offset = -128 * sum_of_8(sum);
}

static void quantize_avx2(int8_t *q, float *scales, int32_t *offsets, const float *x, int n)
{
    assert(q && scales && offsets && x && n > 0);
    int i = 0, b = 0;
    for (; i + ACT_BLOCK <= n; i += ACT_BLOCK, b++)
        quantize_block_avx2(q + i, scales + b, offsets + b, x + i);
    if (i < n) {
        float tail[ACT_BLOCK] = { 0 };
        memcpy(tail, x + i, (size_t)(n - i) * sizeof(float));
        quantize_block_avx2(q + i, scales + b, offsets + b, tail);
    }
}

static void quantize_row_avx2(int8_t *q, float *scale, const float *x, int n)
{
    assert(q && scale && x && n > 0);
    const __m256 sign = _mm256_set1_ps(-0.0f);
    __m256 largest = _mm256_setzero_ps();
    for (int i = 0; i < n; i += 8) {
        __m256 v = _mm256_maskload_ps(x + i, mask_avx2(n - i));
        largest = _mm256_max_ps(_mm256_andnot_ps(sign, v), largest);
    }
    float max = max_of_8(largest);
    max = max < FLT_MAX ? max : FLT_MAX;
    float inverse = 127.0f / max;
    __m256 factor = _mm256_set1_ps(inverse < FLT_MAX ? inverse : FLT_MAX);
    for (int i = 0; i < n; i += 8) {
        __m256i rounded = round_clamped(_mm256_maskload_ps(x + i, mask_avx2(n - i)), factor);
        __m128i words =
            _mm_packs_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1));
        int8_t bytes[16];
        _mm_storeu_si128((__m128i *)bytes, _mm_packs_epi16(words, words));
        memcpy(q + i, bytes, n - i < 8 ? (size_t)(n - i) : 8);
    }
    *scale = max / 127.0f;
}

/* ---- few tokens, row after row ---- */

/* Four partial sums of rows r and r + 4. */
static inline __m256i parts_of(const row_parts *parts, int r, int i)
{
    const __m128i *low = (const __m128i *)parts[r][i], *high = (const __m128i *)parts[r + 4][i];
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_load_si128(low)),
                                   _mm_load_si128(high), 1);
}

/* In each 128-bit lane: the even dwords of a and b; the odd ones. */
static inline __m256i even_dwords(__m256i a, __m256i b)
{
    return _mm256_castps_si256(
        _mm256_shuffle_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), 0x88));
}

static inline __m256i odd_dwords(__m256i a, __m256i b)
{
    return _mm256_castps_si256(
        _mm256_shuffle_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), 0xdd));
}

static inline __m256i sum_two_rows(const row_parts *parts, int r, int i)
{
    const __m256i a = parts_of(parts, r, i), b = parts_of(parts, r + 1, i);
    return _mm256_add_epi32(even_dwords(a, b), odd_dwords(a, b));
}

/* sum + scale * (dots + offset / 16) */
static inline __m256 add_dots(__m256 sum, __m256i dots, float scale, const int32_t *offset)
{
    if (offset)
        dots = _mm256_add_epi32(dots, _mm256_srai_epi32(_mm256_set1_epi32(*offset), 4));
    return scale_dots(sum, scale, dots);
}

static inline void add_parts_avx2(float sums[GEMV_ROWS], const row_parts *parts, int first,
                                  int step, const float *scales, const int32_t *offsets,
                                  int n_blocks)
{
    __m256 sum = _mm256_load_ps(sums);
    for (int b = 0, i = first; b < n_blocks; b += 2, i += step) {
        const __m256i r0 = sum_two_rows(parts, 0, i), r2 = sum_two_rows(parts, 2, i);
        sum = add_dots(sum, even_dwords(r0, r2), scales[b], offsets ? offsets + b : NULL);
        if (b + 1 < n_blocks)
            sum =
                add_dots(sum, odd_dwords(r0, r2), scales[b + 1], offsets ? offsets + b + 1 : NULL);
    }
    _mm256_store_ps(sums, sum);
}

static inline void store_sums_avx2(float *y, const float sums[GEMV_ROWS], const struct matrix *w,
                                   int r, int n)
{
    store_rows8(y, _mm256_load_ps(sums), w, r, n);
}

/* From eight partial sums of each of two blocks to two of each. */
static inline void store_parts_avx2(int32_t parts[4], __m256i a, __m256i b)
{
    const __m256i v = _mm256_add_epi32(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
    _mm_store_si128((__m128i *)parts,
                    _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1)));
}

static inline __m256i dot_block_i8(__m256i a, __m256i b, const int8_t *q)
{
    const __m256i ones = _mm256_set1_epi16(1);
    a = _mm256_maddubs_epi16(_mm256_abs_epi8(a), _mm256_sign_epi8(load_32(q), a));
    b = _mm256_maddubs_epi16(_mm256_abs_epi8(b), _mm256_sign_epi8(load_32(q + 32), b));
    return _mm256_add_epi32(_mm256_madd_epi16(a, ones), _mm256_madd_epi16(b, ones));
}

INLINE_ROWS void dot_i8_avx2(int32_t *parts, const uint8_t *w, const uint8_t *multipliers,
                             const int8_t *q, size_t q_stride, int n_tokens, bool is_pair)
{
    (void)multipliers;
    const __m256i zero = _mm256_setzero_si256(), a = load_32(w), b = load_32(w + 32);
    const __m256i c = is_pair ? load_32(w + 64) : zero, d = is_pair ? load_32(w + 96) : zero;
    for (int t = 0; t < n_tokens; t++, q += q_stride, parts += 4)
        store_parts_avx2(parts, dot_block_i8(a, b, q),
                         is_pair ? dot_block_i8(c, d, q + ACT_BLOCK) : zero);
}

/* A block of activations for int4: the even k, for the low nibbles, then the odd ones, for the high
 * nibbles. */
static inline void sort_i4_avx2(int8_t *to, const int8_t *q)
{
    const __m256i a = load_32(q), b = load_32(q + 32);
    __m256i even = _mm256_packs_epi16(_mm256_srai_epi16(_mm256_slli_epi16(a, 8), 8),
                                      _mm256_srai_epi16(_mm256_slli_epi16(b, 8), 8));
    __m256i odd = _mm256_packs_epi16(_mm256_srai_epi16(a, 8), _mm256_srai_epi16(b, 8));
    _mm256_store_si256((__m256i *)to, _mm256_permute4x64_epi64(even, 0xd8));
    _mm256_store_si256((__m256i *)(to + 32), _mm256_permute4x64_epi64(odd, 0xd8));
}

struct nibbles_avx2 {
    __m256i low, high;
};

static inline struct nibbles_avx2 split_nibbles(__m256i u)
{
    const __m256i nibble = _mm256_set1_epi8(15);
    return (struct nibbles_avx2){ _mm256_and_si256(u, nibble),
                                  _mm256_and_si256(_mm256_srli_epi16(u, 4), nibble) };
}

/* Sums of four products. */
static inline __m256i dot_nibbles(struct nibbles_avx2 w, const int8_t *q)
{
    return _mm256_add_epi16(_mm256_maddubs_epi16(w.low, load_32(q)),
                            _mm256_maddubs_epi16(w.high, load_32(q + 32)));
}

INLINE_ROWS void dot_i4_avx2(int32_t *parts, const uint8_t *w, const uint8_t *multipliers,
                             const int8_t *q, size_t q_stride, int n_tokens, bool is_pair)
{
    (void)multipliers;
    const __m256i zero = _mm256_setzero_si256(), ones = _mm256_set1_epi16(1);
    const struct nibbles_avx2 a = split_nibbles(load_32(w));
    const struct nibbles_avx2 b = split_nibbles(is_pair ? load_32(w + 32) : zero);
    for (int t = 0; t < n_tokens; t++, q += q_stride, parts += 4)
        store_parts_avx2(parts, _mm256_madd_epi16(dot_nibbles(a, q), ones),
                         is_pair ? _mm256_madd_epi16(dot_nibbles(b, q + 64), ones) : zero);
}

/* The multipliers of 64 weights, each repeated in four words. */
static inline __m256i word_multipliers(const uint8_t *multipliers)
{
    int16_t four;
    memcpy(&four, multipliers, sizeof(four));
    __m256i at_bit_12 = _mm256_sllv_epi64(_mm256_set1_epi16(four), _mm256_setr_epi64x(12, 8, 4, 0));
    return _mm256_srai_epi16(at_bit_12, 12);
}

/* The same, followed by 16 times the sum of the activations of each word. */
static inline void sort_i4_block_avx2(int8_t *to, const int8_t *q)
{
    const __m256i sixteen = _mm256_set1_epi8(16);
    sort_i4_avx2(to, q);
    _mm256_store_si256((__m256i *)(to + 64),
                       _mm256_add_epi16(_mm256_maddubs_epi16(sixteen, load_32(to)),
                                        _mm256_maddubs_epi16(sixteen, load_32(to + 32))));
}

/* A shuffle turns codes into their values plus 16. The four products in a word belong to one block
 * of weights, so vpmaddwd can multiply the word by the block's multiplier. */
static inline struct nibbles_avx2 values_plus_16(__m256i codes)
{
    const __m256i values = _mm256_add_epi8(
        _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)qp_i4_block_values[1])),
        _mm256_set1_epi8(16));
    const struct nibbles_avx2 u = split_nibbles(codes);
    return (struct nibbles_avx2){ _mm256_shuffle_epi8(values, u.low),
                                  _mm256_shuffle_epi8(values, u.high) };
}

static inline __m256i dot_values(struct nibbles_avx2 w, __m256i multipliers, const int8_t *q)
{
    return _mm256_madd_epi16(_mm256_sub_epi16(dot_nibbles(w, q), load_32(q + 64)), multipliers);
}

INLINE_ROWS void dot_i4_block_avx2(int32_t *parts, const uint8_t *w, const uint8_t *multipliers,
                                   const int8_t *q, size_t q_stride, int n_tokens, bool is_pair)
{
    const __m256i zero = _mm256_setzero_si256();
    const __m256i m = word_multipliers(multipliers), m2 = word_multipliers(multipliers + 2);
    const struct nibbles_avx2 a = values_plus_16(load_32(w));
    const struct nibbles_avx2 b = values_plus_16(is_pair ? load_32(w + 32) : zero);
    for (int t = 0; t < n_tokens; t++, q += q_stride, parts += 4)
        store_parts_avx2(parts, dot_values(a, m, q), is_pair ? dot_values(b, m2, q + 96) : zero);
}

static const struct gemv_level level_avx2 = {
    .i8 = { .block_bytes = ACT_BLOCK, .q_block_bytes = ACT_BLOCK, .dot = dot_i8_avx2 },
    .i4 = { .block_bytes = ACT_BLOCK / 2,
            .q_block_bytes = ACT_BLOCK,
            .is_plus_8 = true,
            .sort = sort_i4_avx2,
            .dot = dot_i4_avx2 },
    .i4_block = { .block_bytes = ACT_BLOCK / 2,
                  .q_block_bytes = 96,
                  .sort = sort_i4_block_avx2,
                  .dot = dot_i4_block_avx2 },
    .add = add_parts_avx2,
    .store = store_sums_avx2,
};

static void gemm_few_avx2(const struct out_view *out, const struct matrix *w,
                          const struct act_rows *x, int begin, int end)
{
    gemv_rows(out, w, x, begin, end, &level_avx2, false);
}

#if !defined(__ANDROID__) // its devices have no Zen 4
void qp_gemm_few_zen4(const struct out_view *out, const struct matrix *w, const struct act_rows *x,
                      int begin, int end)
{
    gemv_rows(out, w, x, begin, end, &level_avx2, true);
}
#endif

static void gemv_avx2(float *y, const struct matrix *w, const struct act_rows *x, int begin,
                      int end)
{
    gemm_few_avx2(&(struct out_view){ .y = y }, w, x, begin, end);
}

/* ---- tiles ---- */

static size_t tile_bytes_avx2(int n_in)
{
    return TILE_ROWS * qp_round_up((size_t)n_in, ACT_BLOCK) * sizeof(int16_t);
}

/* 16 weights of a row. */
static inline __m256i widen_i8(const uint8_t *w)
{
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)w));
}

static void pack_block_i8_avx2(uint8_t *to, const struct rows8 *rows, size_t at)
{
    for (int k = 0; k < ACT_BLOCK; k += 16, to += 8 * GROUP_ROWS * 4) {
        __m256i v[8];
        UNROLL_8
        for (int i = 0; i < 8; i++)
            v[i] = widen_i8(rows->at[i] + at + k);
        store_dwords(to, v);
    }
}

static void pack_block_i4_avx2(uint8_t *to, const struct rows8 *rows, size_t at)
{
    for (int k = 0; k < ACT_BLOCK; k += 32, to += 8 * GROUP_ROWS * 4) {
        __m256i v[8];
        UNROLL_8
        for (int i = 0; i < 8; i++)
            v[i] = nibbles_of(rows->at[i] + at + k / 2);
        store_dwords(to, v);
    }
}

static void pack_block_i4_block_avx2(uint8_t *to, const struct rows8 *rows, size_t at,
                                     const struct rows8 *multipliers, size_t b)
{
    for (int k = 0; k < ACT_BLOCK; k += 16, to += 8 * GROUP_ROWS * 4) {
        __m256i v[8];
        UNROLL_8
        for (int i = 0; i < 8; i++) {
            __m128i codes = _mm_loadl_epi64((const __m128i *)(rows->at[i] + at + k / 2));
            const int8_t *values =
                qp_i4_block_values[qp_block_multiplier(multipliers->at[i] + 2 * b, k)];
            v[i] = _mm256_cvtepi8_epi16(values_of(values, codes));
        }
        store_dwords(to, v);
    }
}

static void pack_avx2(void *tile, const struct matrix *w, int row, int n_rows)
{
    assert(w->dtype != DTYPE_F32 && qp_is_tile(tile, w, row, n_rows));
    if (w->dtype == DTYPE_I8)
        pack_groups(tile, w, row, n_rows, sizeof(int16_t), pack_block_i8_avx2);
    else if (w->dtype == DTYPE_I4_BLOCK)
        pack_groups_i4_block(tile, w, row, n_rows, sizeof(int16_t), pack_block_i4_block_avx2);
    else
        pack_groups(tile, w, row, n_rows, sizeof(uint8_t), pack_block_i4_avx2);
}

/* ---- many tokens against a tile of int8: 4 tokens x 16 rows ----
 * Registers: eight integer accumulators, two vectors of weights, two k of a token, their product.
 * The float sums are in L1 and used once in 32 steps. The accumulators are named variables, made by
 * macros, because compilers keep an array of accumulators in memory. */
enum {
    GEMM_TOKENS_AVX2 = 4,
    GEMM_K_AVX2 = 1024 // columns of four widened tokens and of a group that stay in cache
};

struct gemm_tokens_avx2 {
    int16_t q[GEMM_TOKENS_AVX2][GEMM_K_AVX2];
    const float *scales[GEMM_TOKENS_AVX2];
    float *y[GEMM_TOKENS_AVX2];
};

// clang-format off
#define EACH_TOKEN_AVX2(M) M(0) M(1) M(2) M(3)

#define START_AVX2(t) __m256i low##t = _mm256_setzero_si256(), high##t = low##t;
#define STEP_AVX2(t) { \
    int32_t two; \
    memcpy(&two, tokens->q[t] + k, sizeof(two)); \
    __m256i x = _mm256_set1_epi32(two); \
    low##t = _mm256_add_epi32(low##t, _mm256_madd_epi16(w0, x)); \
    high##t = _mm256_add_epi32(high##t, _mm256_madd_epi16(w1, x)); }
#define SCALE_AVX2(t) \
    sums[t][0] = scale_dots(sums[t][0], tokens->scales[t][b], low##t); \
    sums[t][1] = scale_dots(sums[t][1], tokens->scales[t][b], high##t);
// clang-format on

/* sums[t] += scale_b * dot_b over n_blocks blocks, for 4 tokens and a group of rows. */
__attribute__((noinline)) static void gemm_blocks_avx2(__m256 sums[GEMM_TOKENS_AVX2][2],
                                                       const int16_t *group,
                                                       const struct gemm_tokens_avx2 *tokens,
                                                       int n_blocks)
{
    assert(n_blocks > 0 && n_blocks <= GEMM_K_AVX2 / ACT_BLOCK);
    for (int b = 0, k = 0; b < n_blocks; b++) {
        EACH_TOKEN_AVX2(START_AVX2)
        for (int end = k + ACT_BLOCK; k < end; k += 2, group += 2 * GROUP_ROWS) {
            __m256i w0 = _mm256_load_si256((const __m256i *)group);
            __m256i w1 = _mm256_load_si256((const __m256i *)(group + GROUP_ROWS));
            EACH_TOKEN_AVX2(STEP_AVX2)
        }
        EACH_TOKEN_AVX2(SCALE_AVX2)
    }
}

/* One group of 16 rows of the tile. */
static void gemm_group_avx2(const struct gemm_tokens_avx2 *tokens, const int16_t *group,
                            const struct matrix *w, int row, int r, int n_rows, int n_blocks,
                            bool is_first, bool is_last)
{
    __m256 sums[GEMM_TOKENS_AVX2][2];
    UNROLL_8
    for (int t = 0; t < GEMM_TOKENS_AVX2; t++)
        load_sums(sums[t], tokens->y[t] + r, is_first ? 0 : n_rows - r);
    gemm_blocks_avx2(sums, group, tokens, n_blocks);
    UNROLL_8
    for (int t = 0; t < GEMM_TOKENS_AVX2; t++)
        store_sums(tokens->y[t] + r, sums[t], w, row + r, n_rows - r, is_last);
}

static void gemm_i8_avx2(const struct out_view *out, const void *tile, const struct matrix *w,
                         const struct act_rows *x, int row, int n_rows)
{
    const size_t k_padded = qp_round_up((size_t)w->n_in, ACT_BLOCK);
    struct gemm_tokens_avx2 tokens;
    for (size_t k = 0; k < k_padded; k += GEMM_K_AVX2) {
        const size_t n = k_padded - k < GEMM_K_AVX2 ? k_padded - k : GEMM_K_AVX2;
        const int16_t *part = (const int16_t *)tile + k * GROUP_ROWS;
        for (int t = 0; t < x->n; t += GEMM_TOKENS_AVX2) {
            for (int i = 0; i < GEMM_TOKENS_AVX2; i++) {
                const struct gemm_token token = gemm_token_at(out, x, t + i, k, k_padded);
                for (size_t j = 0; j < n; j += 16)
                    _mm256_storeu_si256((__m256i *)(tokens.q[i] + j),
                                        widen_i8((const uint8_t *)token.q + j));
                tokens.scales[i] = token.scales;
                tokens.y[i] = token.y;
            }
            for (int r = 0; r < n_rows; r += GROUP_ROWS)
                gemm_group_avx2(&tokens, part + (size_t)r * k_padded, w, row, r, n_rows,
                                (int)(n / ACT_BLOCK), k == 0 && w->scales,
                                k + n == k_padded && w->scales);
        }
    }
}

/* ---- many tokens against a tile of int4: 6 tokens x 16 rows ---- */

/* sum + u * s in int16. In assembly because gcc 12 computes all products first and runs out of
 * registers. */
static inline __m256i add_products_i4(__m256i sum, __m256i u, __m256i s)
{
    __m256i products;
    __asm__("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0"
            : "+x"(sum), "=&x"(products)
            : "x"(u), "x"(s));
    return sum;
}

// clang-format off
#define START_I4_AVX2(t) __m256i low##t = _mm256_setzero_si256(), high##t = low##t;
#define STEP_I4_AVX2(t) { \
    __m256i x = broadcast_4_avx2(token[t].q + k); \
    low##t = add_products_i4(low##t, w0, x); \
    high##t = add_products_i4(high##t, w1, x); }
#define WIDEN_I4_AVX2(t) \
    dots[t][0] = _mm256_add_epi32(dots[t][0], _mm256_madd_epi16(low##t, ones)); \
    dots[t][1] = _mm256_add_epi32(dots[t][1], _mm256_madd_epi16(high##t, ones));
// clang-format on

/* The sums of half a block fit int16: 8 steps * 2 * 15 * 127 = 30480. */
__attribute__((noinline)) static void gemm_blocks_i4_avx2(__m256 sums[GROUP_TOKENS][2],
                                                          const uint8_t *group,
                                                          const struct gemm_token *token,
                                                          int n_blocks)
{
    assert(n_blocks > 0 && n_blocks <= GROUP_K / ACT_BLOCK);
    const __m256i ones = _mm256_set1_epi16(1);
    for (int b = 0, k = 0; b < n_blocks; b++) {
        __m256i dots[GROUP_TOKENS][2];
        UNROLL_8
        for (int t = 0; t < GROUP_TOKENS; t++)
            dots[t][0] = dots[t][1] = _mm256_set1_epi32(token[t].offsets[b] / 16);
        for (int half = 0; half < 2; half++) {
            EACH_GROUP_TOKEN(START_I4_AVX2)
            for (int end = k + ACT_BLOCK / 2; k < end; k += 4, group += 4 * GROUP_ROWS) {
                __m256i w0 = load_32(group), w1 = load_32(group + 32);
                EACH_GROUP_TOKEN(STEP_I4_AVX2)
            }
            EACH_GROUP_TOKEN(WIDEN_I4_AVX2)
        }
        UNROLL_8
        for (int t = 0; t < GROUP_TOKENS; t++) {
            sums[t][0] = scale_dots(sums[t][0], token[t].scales[b], dots[t][0]);
            sums[t][1] = scale_dots(sums[t][1], token[t].scales[b], dots[t][1]);
        }
    }
}

static void gemm_avx2(const struct out_view *out, const void *tile, const struct matrix *w,
                      const struct act_rows *x, int row, int n_rows)
{
    assert(qp_is_tile(tile, w, row, n_rows) && qp_is_act_rows(x, w->n_in));
    if (w->dtype != DTYPE_I4)
        gemm_i8_avx2(out, tile, w, x, row, n_rows);
    else
        gemm_groups(out, tile, w, x, row, n_rows, gemm_blocks_i4_avx2);
}

void qp_linear_kernels_avx2(struct kernels *k)
{
    k->quantize = quantize_avx2;
    k->gemv_i8 = k->gemv_i4 = k->gemv_i4_block = gemv_avx2;
    k->few_tokens = FEW_TOKENS;
    k->gemm_few = gemm_few_avx2;
    k->quantize_row = quantize_row_avx2;
    k->tile_bytes = tile_bytes_avx2;
    k->tile_order = (struct tile_order){ GROUP_ROWS, 2, GROUP_ROWS, 2, 2, 0 };
    k->pack = pack_avx2;
    k->gemm = gemm_avx2;
}

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
