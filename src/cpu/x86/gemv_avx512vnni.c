/* gemv_avx512vnni.c: products of few tokens on 512-bit registers, directly from the mapped file.
 * In, out, order of rounding: scalar/linear_scalar.c, to the bit.
 *
 * Memory is the limit, so the order of reading matters most (docs/notes/decode.md). For vpdpbusd
 * and the weights plus 128 see linear_avx512vnni.c. */
#include "cpu/x86/x86.h"

#if defined(__x86_64__)

#include <assert.h>
#include <immintrin.h>
#include <string.h>

#if defined(__clang__)
#pragma clang attribute push(                                                                      \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
#endif

#include "cpu/x86/linear_avx512.h"

/* ---- one token: row after row, like a plain read ----
 * One or two vpdpbusd leave 16 partial sums of 64 bytes of weights. A tree of shuffles and adds
 * reduces them: first four vectors of a row (a "quad"), then four rows, so that in the end each
 * 128-bit lane holds one block of four rows. The last vectors of a row, fewer than a quad, are
 * stored as they are and summed across the rows. Beside the prefetched weights only the stored
 * vectors of four rows are in L1, and the activations if rows are long. */
enum {
    QUAD = 256,      // bytes
    SUM_ROWS = 4,    // that are summed together
    ROWS = 16,       // that are stored together
    STRETCH = 16384, // bytes of a row before the next row: most rows are read whole
    AHEAD = 8192,    // bytes to prefetch ahead
    AHEAD_L1 = 4096  // to L1, where AHEAD is to L2
};

/* Vectors of four rows that are still to be summed: first the quads, then the single vectors. */
typedef __m512i row_dots[STRETCH / QUAD + QUAD / 64][SUM_ROWS];

/* Rows are adjacent, so near the end of one this prefetches the next. On Intel in two steps: L1 has
 * few buffers for lines that come from memory, L2 has more. Always inlined, because gcc 12 drops
 * calls of functions that only prefetch. */
static inline __attribute__((always_inline)) void fetch_ahead(const uint8_t *w, int n_bytes,
                                                              bool is_intel)
{
    UNROLL
    for (int i = 0; i < n_bytes; i += 64) {
        if (is_intel)
            _mm_prefetch((const char *)w + AHEAD + i, _MM_HINT_T1);
        _mm_prefetch((const char *)w + (is_intel ? AHEAD_L1 : AHEAD) + i, _MM_HINT_T0);
    }
}

/* Prefetch the scales and sums of later rows. Their cache lines are used too seldom for the
 * processor to predict, so without this the kernel would wait for each. */
static inline __attribute__((always_inline)) void fetch_rows(const struct matrix *w, float *y,
                                                             int r)
{
    _mm_prefetch((const char *)(w->scales + r + 2 * ROWS), _MM_HINT_T0);
    __builtin_prefetch(y + r + 2 * ROWS, 1);
}

/* In each 128-bit lane: four sums, one of each of the vectors a to d. */
static inline __m512i sum_quads(__m512i a, __m512i b, __m512i c, __m512i d)
{
    __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    return _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
}

/* 128-bit lanes (v0 + v1, v0 + v1, v2 + v3, v2 + v3) */
static inline __m512i sum_neighbours(__m512i v)
{
    return _mm512_add_epi32(v, _mm512_shuffle_i32x4(v, v, 0xb1));
}

static inline int bytes_of_stretch(int n, int k)
{
    return n - k < STRETCH ? n - k : STRETCH;
}

/* ---- int8: a vector is one block ---- */

static inline __m512i dot_i8(const uint8_t *w, const int8_t *q, __mmask64 mask)
{
    __m512i u = _mm512_xor_si512(_mm512_maskz_loadu_epi8(mask, w), _mm512_set1_epi8(-128));
    return _mm512_dpbusd_epi32(_mm512_setzero_si512(), u, _mm512_loadu_si512(q));
}

static inline __m512i quad_i8(const uint8_t *w, const int8_t *q)
{
    const __mmask64 all = ~(__mmask64)0;
    return sum_quads(dot_i8(w, q, all), dot_i8(w + 64, q + 64, all), dot_i8(w + 128, q + 128, all),
                     dot_i8(w + 192, q + 192, all));
}

/* Bytes [0, n) of a row times q, which has zeros up to the end of its block. */
static inline __attribute__((always_inline)) void
row_dots_i8(row_dots dots, int row, const uint8_t *w, const int8_t *q, int n, bool is_intel)
{
    __m512i *to = &dots[0][row];
    for (; n >= QUAD; n -= QUAD, w += QUAD, q += QUAD, to += SUM_ROWS) {
        fetch_ahead(w, QUAD, is_intel);
        *to = quad_i8(w, q);
    }
    for (; n > 0; n -= 64, w += 64, q += 64, to += SUM_ROWS) {
        fetch_ahead(w, 64, is_intel);
        *to = dot_i8(w, q, bytes_below(n));
    }
}

/* sum += n_blocks blocks of four rows, the first of them in quads. */
static inline __m128 add_blocks_i8(__m128 sum, const row_dots dots, const float *scales,
                                   const int32_t *offsets, int n_quads, int n_blocks)
{
    const __m512i turn = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i *v = dots[0];
    int b = 0;
    for (; b < 4 * n_quads; b += 4, v += SUM_ROWS) {
        __m512i rows = sum_lane_pairs(sum_lane_pairs(v[0], v[1]), sum_lane_pairs(v[2], v[3]));
        __m512i offset = _mm512_broadcast_i32x4(_mm_loadu_si128((const void *)(offsets + b)));
        __m512 scale = _mm512_broadcast_f32x4(_mm_loadu_ps(scales + b));
        __m512 blocks = scaled(_mm512_add_epi32(rows, offset), scale);
        sum = add_lanes(sum, _mm512_permutexvar_ps(turn, blocks));
    }
    for (; b < n_blocks; b++, v += SUM_ROWS) {
        __m512i rows = sum_neighbours(sum_quads(v[0], v[1], v[2], v[3]));
        rows = _mm512_add_epi32(rows, _mm512_shuffle_i32x4(rows, rows, 0x4e));
        rows = _mm512_add_epi32(rows, _mm512_set1_epi32(offsets[b]));
        sum = _mm_add_ps(sum, _mm512_castps512_ps128(scaled(rows, _mm512_set1_ps(scales[b]))));
    }
    return sum;
}

/* Rows [r, r + SUM_ROWS); past the last row this is the last one again. */
static inline __attribute__((always_inline)) __m128
four_rows_i8(const struct matrix *w, const struct act_rows *x, int r, int end, bool is_intel)
{
    __m128 sum = _mm_setzero_ps();
    row_dots dots;
    for (int k = 0, b = 0; k < w->n_in; k += STRETCH, b += STRETCH / ACT_BLOCK) {
        const int n = bytes_of_stretch(w->n_in, k);
        for (int i = 0; i < SUM_ROWS; i++) {
            const uint8_t *row = qp_matrix_row(w, r + i < end ? r + i : end - 1);
            row_dots_i8(dots, i, row + k, x->q + k, n, is_intel);
        }
        sum = add_blocks_i8(sum, dots, x->scales + b, x->offsets + b, n / QUAD,
                            (n + ACT_BLOCK - 1) / ACT_BLOCK);
    }
    return sum;
}

static inline __attribute__((always_inline)) void gemv_i8_rows(float *y, const struct matrix *w,
                                                               const struct act_rows *x, int begin,
                                                               int end, bool is_intel)
{
    assert(w->dtype == DTYPE_I8 && w->scales && qp_has_rows(w, begin, end));
    assert(x->n == 1 && qp_is_act_rows(x, w->n_in));
    float sums[ROWS] = { 0 };
    for (int r = begin; r < end; r += ROWS) {
        for (int i = 0; i < ROWS && r + i < end; i += SUM_ROWS)
            _mm_storeu_ps(sums + i, four_rows_i8(w, x, r + i, end, is_intel));
        fetch_rows(w, y, r);
        store_rows(y + r, _mm512_loadu_ps(sums), w, r, lanes_below(end - r));
    }
}

static void gemv_i8_avx512(float *y, const struct matrix *w, const struct act_rows *x, int begin,
                           int end)
{
    gemv_i8_rows(y, w, x, begin, end, false);
}

/* ---- int4: a vector is two blocks ----
 * Low nibbles are the even k, high nibbles the odd ones; the activations are sorted in that order
 * first.
 *
 * Block-wise: a shuffle turns codes into their values plus 16. The sixteen products in two lanes
 * share a multiplier, and their sum is below 2^15, so a vpmaddwd of the low words multiplies it. */

/* Words to bytes; packs works by 128-bit lane. */
static inline __m512i pack_words(__m512i a, __m512i b)
{
    const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    return _mm512_permutexvar_epi64(order, _mm512_packs_epi16(a, b));
}

/* 128 activations in this order. */
struct act_pair {
    int8_t even[64], odd[64];
};

/* The activations of a stretch, and where the sums of block-wise values plus 16 start: minus 16
 * times the sum of the activations, in lane 2 i for lanes 2 i and 2 i + 1 of an even pair, in lane
 * 2 i + 1 for those of an odd pair. Kept small, because it shares L1 with the weights. */
struct act_stretch {
    struct act_pair pairs[STRETCH / 64];
    int32_t start[STRETCH / 128][16];
};

/* The lanes of start that are pair j's. */
static inline __mmask16 lanes_of_pair(int j)
{
    return j % 2 ? 0xaaaa : 0x5555;
}

/* From q [n_q], whole blocks; the last pair is filled with zeros. */
static inline void split_even_odd(struct act_stretch *to, const int8_t *q, int n_q)
{
    const __m512i sixteen = _mm512_set1_epi8(16), zero = _mm512_setzero_si512();
    for (int j = 0; 128 * j < n_q; j++, q += 128) {
        __m512i a = _mm512_loadu_si512(q);
        __m512i b = _mm512_maskz_loadu_epi8(bytes_below(n_q - 128 * j - 64), q + 64);
        __m512i even = pack_words(_mm512_srai_epi16(_mm512_slli_epi16(a, 8), 8),
                                  _mm512_srai_epi16(_mm512_slli_epi16(b, 8), 8));
        __m512i odd = pack_words(_mm512_srai_epi16(a, 8), _mm512_srai_epi16(b, 8));
        __m512i sums = _mm512_dpbusd_epi32(zero, sixteen, even);
        sums = _mm512_dpbusd_epi32(sums, sixteen, odd);
        sums = _mm512_add_epi32(sums, _mm512_shuffle_epi32(sums, 0xb1));
        _mm512_storeu_si512(to->pairs[j].even, even);
        _mm512_storeu_si512(to->pairs[j].odd, odd);
        _mm512_mask_storeu_epi32(to->start[j / 2], lanes_of_pair(j), _mm512_sub_epi32(zero, sums));
    }
}

/* The nibbles at bits 12 to 15 of the low words of `turned`, sign-extended in these words. */
static inline __m512i nibbles_of_words(__m512i turned)
{
    return _mm512_maskz_srai_epi16(0x55555555, turned, 12);
}

/* The multipliers of 128 weights, each in the low words of two lanes. */
static inline __m512i lane_multipliers(const uint8_t *multipliers)
{
    const __m512i to_bit_12 =
        _mm512_setr_epi32(12, 12, 8, 8, 4, 4, 0, 0, 28, 28, 24, 24, 20, 20, 16, 16);
    int32_t eight;
    memcpy(&eight, multipliers, sizeof eight);
    return nibbles_of_words(_mm512_rolv_epi32(_mm512_set1_epi32(eight), to_bit_12));
}

/* 64 bytes of a row times pair j; of block-wise rows without their multipliers. Past the end of the
 * row the nibbles are 0, and so is q. */
static inline __attribute__((always_inline)) __m512i
dot_i4(const uint8_t *w, const struct act_stretch *q, int j, __mmask64 mask, bool is_block)
{
    const __m512i nibble = _mm512_set1_epi8(15);
    const __m512i values =
        _mm512_add_epi8(_mm512_broadcast_i32x4(load_values(1)), _mm512_set1_epi8(16));
    __m512i u = _mm512_maskz_loadu_epi8(mask, w);
    __m512i low = _mm512_and_si512(u, nibble);
    __m512i high = _mm512_and_si512(_mm512_srli_epi16(u, 4), nibble);
    __m512i dot = _mm512_setzero_si512();
    if (is_block) {
        low = _mm512_shuffle_epi8(values, low);
        high = _mm512_shuffle_epi8(values, high);
        dot = _mm512_maskz_loadu_epi32(lanes_of_pair(j), q->start[j / 2]);
    }
    dot = _mm512_dpbusd_epi32(dot, low, _mm512_loadu_si512(q->pairs[j].even));
    return _mm512_dpbusd_epi32(dot, high, _mm512_loadu_si512(q->pairs[j].odd));
}

/* In each 128-bit lane: the sums of lanes 2 i and 2 i + 1 of a, which share a multiplier, then
 * those of b. */
static inline __m512i sum_lane_twos(__m512i a, __m512i b)
{
    const __m512 x = _mm512_castsi512_ps(a), y = _mm512_castsi512_ps(b);
    return _mm512_add_epi32(_mm512_castps_si512(_mm512_shuffle_ps(x, y, 0x88)),
                            _mm512_castps_si512(_mm512_shuffle_ps(x, y, 0xdd)));
}

/* In each 128-bit lane: four sums, of the vectors a to d, of 512 weights times their multipliers.
 */
static inline __m512i sum_quads_block(__m512i a, __m512i b, __m512i c, __m512i d,
                                      const uint8_t *multipliers)
{
    const __m512i to_bit_12 =
        _mm512_setr_epi32(12, 8, 12, 8, 4, 0, 4, 0, 28, 24, 28, 24, 20, 16, 20, 16);
    __m512i all = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)multipliers));
    __m512i m_ab = _mm512_rolv_epi32(_mm512_shuffle_epi32(all, 0x50), to_bit_12);
    __m512i m_cd = _mm512_rolv_epi32(_mm512_shuffle_epi32(all, 0xfa), to_bit_12);
    __m512i ab = _mm512_madd_epi16(sum_lane_twos(a, b), nibbles_of_words(m_ab));
    __m512i cd = _mm512_madd_epi16(sum_lane_twos(c, d), nibbles_of_words(m_cd));
    return sum_lane_twos(ab, cd);
}

/* Bytes [0, n) of a row's stretch. */
static inline __attribute__((always_inline)) void
row_dots_i4(row_dots dots, int row, const uint8_t *w, const uint8_t *multipliers,
            const struct act_stretch *q, int n, bool is_block, bool is_intel)
{
    const __mmask64 all = ~(__mmask64)0;
    __m512i *to = &dots[0][row];
    int quad = 0;
    for (; n >= QUAD; n -= QUAD, w += QUAD, quad++, to += SUM_ROWS) {
        fetch_ahead(w, QUAD, is_intel);
        __m512i a = dot_i4(w, q, 4 * quad, all, is_block);
        __m512i b = dot_i4(w + 64, q, 4 * quad + 1, all, is_block);
        __m512i c = dot_i4(w + 128, q, 4 * quad + 2, all, is_block);
        __m512i d = dot_i4(w + 192, q, 4 * quad + 3, all, is_block);
        if (is_block) {
            _mm_prefetch((const char *)multipliers + AHEAD / 16, _MM_HINT_T0);
            *to = sum_quads_block(a, b, c, d, multipliers);
            multipliers += QUAD / 16;
        } else {
            *to = sum_quads(a, b, c, d);
        }
    }
    for (int j = 4 * quad; n > 0; n -= 64, w += 64, j++, to += SUM_ROWS) {
        fetch_ahead(w, 64, is_intel);
        *to = dot_i4(w, q, j, bytes_below(n), is_block);
        if (is_block) {
            *to = _mm512_madd_epi16(*to, lane_multipliers(multipliers));
            multipliers += 64 / 16;
        }
    }
}

/* sum += n_blocks blocks of four rows, the first of them in quads. A quad is 8 blocks: 128-bit
 * lanes 0 and 1 of each of its sums are one block, 2 and 3 the next. Stored nibbles are the weights
 * plus 8, which offsets / 16 subtracts; NULL if the weights are not plus 8. */
static inline __attribute__((always_inline)) __m128 add_blocks_i4(__m128 sum, const row_dots dots,
                                                                  const float *scales,
                                                                  const int32_t *offsets,
                                                                  int n_quads, int n_blocks)
{
    const __m512i even_odd = _mm512_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7, 0, 2, 4, 6, 1, 3, 5, 7);
    const __m512i turn =
        _mm512_setr_epi32(0, 8, 16, 24, 4, 12, 20, 28, 1, 9, 17, 25, 5, 13, 21, 29);
    const __m512i turn2 = _mm512_add_epi32(turn, _mm512_set1_epi32(2));
    const __m512i *v = dots[0];
    int b = 0;
    for (; b < 8 * n_quads; b += 8, v += SUM_ROWS) {
        __m512i r01 = sum_lane_pairs(v[0], v[1]), r23 = sum_lane_pairs(v[2], v[3]);
        if (offsets) {
            __m512i offset =
                _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)(offsets + b)));
            offset = _mm512_srai_epi32(_mm512_permutexvar_epi32(even_odd, offset), 4);
            r01 = _mm512_add_epi32(r01, offset);
            r23 = _mm512_add_epi32(r23, offset);
        }
        __m512 scale = _mm512_castps256_ps512(_mm256_loadu_ps(scales + b));
        scale = _mm512_permutexvar_ps(even_odd, scale);
        __m512 x = scaled(r01, scale), y = scaled(r23, scale);
        sum = add_lanes(sum, _mm512_permutex2var_ps(x, turn, y));
        sum = add_lanes(sum, _mm512_permutex2var_ps(x, turn2, y));
    }
    for (; b < n_blocks; b += 2, v += SUM_ROWS) {
        __m512i rows = sum_neighbours(sum_quads(v[0], v[1], v[2], v[3]));
        __m128i first = _mm512_castsi512_si128(rows), second = _mm512_extracti32x4_epi32(rows, 2);
        if (offsets)
            first = _mm_add_epi32(first, _mm_set1_epi32(offsets[b] / 16));
        sum = _mm_add_ps(sum, _mm_mul_ps(_mm_set1_ps(scales[b]), _mm_cvtepi32_ps(first)));
        if (b + 1 == n_blocks)
            break;
        if (offsets)
            second = _mm_add_epi32(second, _mm_set1_epi32(offsets[b + 1] / 16));
        sum = _mm_add_ps(sum, _mm_mul_ps(_mm_set1_ps(scales[b + 1]), _mm_cvtepi32_ps(second)));
    }
    return sum;
}

/* Rows [r, r + SUM_ROWS); past the last row this is the last one again. q already has the
 * activations of rows that are one stretch; those of longer rows are stored there stretch by
 * stretch. */
static inline __attribute__((always_inline)) __m128
four_rows_i4(const struct matrix *w, const struct act_rows *x, struct act_stretch *q, int r,
             int end, bool is_block, bool is_intel)
{
    const int n_bytes = w->n_in / 2;
    __m128 sum = _mm_setzero_ps();
    row_dots dots;
    for (int k = 0; k < n_bytes; k += STRETCH) {
        const int n = bytes_of_stretch(n_bytes, k), b = 2 * k / ACT_BLOCK;
        const int n_blocks = (2 * n + ACT_BLOCK - 1) / ACT_BLOCK;
        if (n_bytes > STRETCH)
            split_even_odd(q, x->q + 2 * k, n_blocks * ACT_BLOCK);
        for (int i = 0; i < SUM_ROWS; i++) {
            const int at = r + i < end ? r + i : end - 1;
            const uint8_t *row = qp_matrix_row(w, at), *multipliers = NULL;
            if (is_block)
                multipliers = qp_matrix_multipliers(w, at) + k / I4_BLOCK;
            row_dots_i4(dots, i, row + k, multipliers, q, n, is_block, is_intel);
        }
        sum = add_blocks_i4(sum, dots, x->scales + b, is_block ? NULL : x->offsets + b, n / QUAD,
                            n_blocks);
    }
    return sum;
}

/* is_block and is_intel are constants where this is inlined. */
static inline __attribute__((always_inline)) void gemv_i4_rows(float *y, const struct matrix *w,
                                                               const struct act_rows *x, int begin,
                                                               int end, bool is_block,
                                                               bool is_intel)
{
    assert(w->dtype == (is_block ? DTYPE_I4_BLOCK : DTYPE_I4) && w->n_in % 2 == 0 && w->scales);
    assert(qp_has_rows(w, begin, end) && x->n == 1 && qp_is_act_rows(x, w->n_in));
    float sums[ROWS] = { 0 };
    struct act_stretch q;
    if (w->n_in <= 2 * STRETCH)
        split_even_odd(&q, x->q, (int)qp_round_up((size_t)w->n_in, ACT_BLOCK));
    for (int r = begin; r < end; r += ROWS) {
        for (int i = 0; i < ROWS && r + i < end; i += SUM_ROWS)
            _mm_storeu_ps(sums + i, four_rows_i4(w, x, &q, r + i, end, is_block, is_intel));
        fetch_rows(w, y, r);
        store_rows(y + r, _mm512_loadu_ps(sums), w, r, lanes_below(end - r));
    }
}

static void gemv_i4_avx512(float *y, const struct matrix *w, const struct act_rows *x, int begin,
                           int end)
{
    gemv_i4_rows(y, w, x, begin, end, false, false);
}

static void gemv_i4_block_avx512(float *y, const struct matrix *w, const struct act_rows *x,
                                 int begin, int end)
{
    gemv_i4_rows(y, w, x, begin, end, true, false);
}

/* ---- two to eight tokens: 16 rows at a time, transposed so that a lane is a row ----
 * 16 rows of 64 weights become 16 vectors of the same four k, in registers. They are multiplied by
 * four k of each token, which are broadcast. */

static inline __m512i dot_columns(const __m512i v[16], const int8_t *q, int32_t offset)
{
    __m512i even = _mm512_set1_epi32(offset), odd = _mm512_setzero_si512();
    UNROLL
    for (int j = 0; j < 16; j += 2) {
        int32_t four[2];
        memcpy(four, q + 4 * j, sizeof four);
        even = _mm512_dpbusd_epi32(even, v[j], _mm512_set1_epi32(four[0]));
        odd = _mm512_dpbusd_epi32(odd, v[j + 1], _mm512_set1_epi32(four[1]));
    }
    return _mm512_add_epi32(even, odd);
}

/* n_tokens is a constant where this is inlined, so that the sums are registers. */
static inline __attribute__((always_inline)) void few_rows(const struct out_view *out,
                                                           const struct matrix *w,
                                                           const struct act_rows *x, int r, int end,
                                                           int n_tokens)
{
    const int n_blocks = (int)(qp_round_up((size_t)w->n_in, ACT_BLOCK) / ACT_BLOCK);
    const struct rows16 rows = rows16_at(w, r, end), multipliers = multipliers16_at(w, r, end);
    __m512 sums[FEW_TOKENS];
    UNROLL
    for (int t = 0; t < n_tokens; t++)
        sums[t] = _mm512_setzero_ps();
    for (int k = 0, b = 0; k < w->n_in; k += ACT_BLOCK, b++) {
        __m512i v[16];
        load_rows(v, w, &rows, &multipliers, k);
        transpose_16x16(v);
        UNROLL
        for (int t = 0; t < n_tokens; t++) {
            const int at = t * n_blocks + b;
            __m512i dot = dot_columns(v, x->q + (size_t)t * x->q_stride + k, x->offsets[at]);
            sums[t] =
                mul_add_avx512(_mm512_set1_ps(x->scales[at]), _mm512_cvtepi32_ps(dot), sums[t]);
        }
    }
    UNROLL
    for (int t = 0; t < n_tokens; t++)
        store_rows(out->y + (size_t)t * out->stride + r, sums[t], w, r, lanes_below(end - r));
}

void qp_gemm_few_avx512vnni(const struct out_view *out, const struct matrix *w,
                            const struct act_rows *x, int begin, int end)
{
    assert(w->dtype != DTYPE_F32 && w->scales && qp_has_rows(w, begin, end));
    assert(qp_is_act_rows(x, w->n_in) && x->n <= FEW_TOKENS);
    for (int r = begin; r < end; r += 16)
        switch (x->n) {
        case 1:
            few_rows(out, w, x, r, end, 1);
            break;
        case 2:
            few_rows(out, w, x, r, end, 2);
            break;
        case 3:
            few_rows(out, w, x, r, end, 3);
            break;
        case 4:
            few_rows(out, w, x, r, end, 4);
            break;
        case 5:
            few_rows(out, w, x, r, end, 5);
            break;
        case 6:
            few_rows(out, w, x, r, end, 6);
            break;
        case 7:
            few_rows(out, w, x, r, end, 7);
            break;
        default:
            few_rows(out, w, x, r, end, 8);
            break;
        }
}

void qp_gemv_kernels_avx512vnni(struct kernels *k)
{
    k->gemv_i8 = gemv_i8_avx512;
    k->gemv_i4 = gemv_i4_avx512;
    k->gemv_i4_block = gemv_i4_block_avx512;
    k->gemm_few = qp_gemm_few_avx512vnni;
}

#if !defined(__ANDROID__)
static void gemv_i8_intel(float *y, const struct matrix *w, const struct act_rows *x, int begin,
                          int end)
{
    gemv_i8_rows(y, w, x, begin, end, true);
}

static void gemv_i4_intel(float *y, const struct matrix *w, const struct act_rows *x, int begin,
                          int end)
{
    gemv_i4_rows(y, w, x, begin, end, false, true);
}

void qp_gemv_kernels_intel(struct kernels *k)
{
    k->gemv_i8 = gemv_i8_intel;
    k->gemv_i4 = gemv_i4_intel;
}
#endif

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
