/* linear_avx512.h: what the matrix products on 512-bit registers share: rows of weights, sixteen at
 * a time, as the unsigned operand of vpdpbusd. A file includes it after enabling AVX-512 VNNI. */
#ifndef QP_LINEAR_AVX512_H
#define QP_LINEAR_AVX512_H

#include "cpu/kernels.h"
#include "format/dtype.h"

#include <immintrin.h>
#include <string.h>

/* ---- floats ---- */

/* The first n of 16 lanes: all when n is more, none when it is less. */
static inline __mmask16 lanes_below(int n)
{
    return n >= 16 ? 0xFFFF : n <= 0 ? 0 : (__mmask16)((1u << n) - 1);
}

/* a * b + c, rounded twice */
static inline __m512 mul_add_avx512(__m512 a, __m512 b, __m512 c)
{
    return _mm512_add_ps(_mm512_mul_ps(a, b), c);
}

#define UNROLL _Pragma("GCC unroll 16") // so that small arrays become registers

/* 64 int32 to bytes, saturated. */
static inline __m512i pack_bytes_avx512(const __m512i v[4])
{
    const __m512i in_order = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
    const __m512i bytes =
        _mm512_packs_epi16(_mm512_packs_epi32(v[0], v[1]), _mm512_packs_epi32(v[2], v[3]));
    return _mm512_permutexvar_epi32(in_order, bytes);
}

/* 64 floats times a factor, rounded to bytes. Products are between -128 and 127, to rounding; a NaN
 * becomes -128. */
static inline __m512i round_block_avx512(const float *x, __m512 factor)
{
    __m512i v[4];
    UNROLL
    for (int i = 0; i < 4; i++)
        v[i] = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + 16 * i), factor));
    return pack_bytes_avx512(v);
}

/* Mask of the first n of 64 bytes: of all if n is larger, of none if it is negative. */
static inline __mmask64 bytes_below(int n)
{
    return n >= 64 ? ~(__mmask64)0 : n <= 0 ? 0 : ((__mmask64)1 << n) - 1;
}

/* Four bytes in every lane. */
static inline __m512i broadcast_4(const int8_t *q)
{
    int32_t four;
    memcpy(&four, q, sizeof(four));
    return _mm512_set1_epi32(four);
}

/* ---- rows of weights ---- */

struct rows16 {
    const uint8_t *at[16];
    size_t ahead; // distance to prefetch while reading
};

/* Rows [r, r + 16). Past the last row this is the last one again; its result is not stored. The
 * rows are adjacent in memory, so the same column 16 rows further on is what the next pass reads:
 * with that prefetched, a gemv gets 90 to 100 % of a plain read. Prefetching 256 bytes to 8 KiB
 * ahead in the same row gives 60 to 85 %, except if rows are so long that 16 of them crowd the
 * cache. */
static inline struct rows16 rows16_at(const struct matrix *w, int r, int end)
{
    struct rows16 rows = { .ahead = w->row_bytes <= 8192 ? 16 * w->row_bytes : 256 };
    for (int i = 0; i < 16; i++)
        rows.at[i] = qp_matrix_row(w, r + i < end ? r + i : end - 1);
    return rows;
}

/* The multipliers of block-wise int4 of these rows; nothing for other types. */
static inline struct rows16 multipliers16_at(const struct matrix *w, int r, int end)
{
    const struct matrix m = { .row_bytes = qp_multiplier_bytes(w->n_in), .data = w->multipliers };
    return w->dtype == DTYPE_I4_BLOCK ? rows16_at(&m, r, end) : (struct rows16){ 0 };
}

/* 64 weights as w + 128. Those outside the mask are not 0, but their q are. */
static inline __m512i load_i8(const uint8_t *w, ptrdiff_t ahead, __mmask64 mask)
{
    _mm_prefetch((const char *)w + ahead, _MM_HINT_T0);
    return _mm512_xor_si512(_mm512_maskz_loadu_epi8(mask, w), _mm512_set1_epi8(-128));
}

/* 64 nibbles in order, a byte each. */
static inline __m512i load_nibbles(const uint8_t *w, size_t ahead, __mmask32 mask)
{
    _mm_prefetch((const char *)w + ahead, _MM_HINT_T0);
    __m512i pair = _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(mask, w));
    __m512i nibbles = _mm512_or_si512(pair, _mm512_slli_epi16(pair, 4));
    return _mm512_and_si512(nibbles, _mm512_set1_epi8(15));
}

static inline __m512i load_i4(const uint8_t *w, size_t ahead, __mmask32 mask)
{
    return _mm512_add_epi8(load_nibbles(w, ahead, mask), _mm512_set1_epi8(120));
}

static inline __m128i load_values(int multiplier)
{
    return _mm_loadu_si128((const __m128i *)qp_i4_block_values[multiplier & 15]);
}

/* Codes to values by a table for each 128-bit lane, which is one block. */
static inline __m512i load_i4_block(const uint8_t *w, const uint8_t *multipliers, size_t ahead,
                                    __mmask32 mask)
{
    const int low = multipliers[0], high = multipliers[1];
    __m512i values = _mm512_castsi128_si512(load_values(low));
    values = _mm512_inserti32x4(values, load_values(low >> 4), 1);
    values = _mm512_inserti32x4(values, load_values(high), 2);
    values = _mm512_inserti32x4(values, load_values(high >> 4), 3);
    __m512i v = _mm512_shuffle_epi8(values, load_nibbles(w, ahead, mask));
    return _mm512_xor_si512(v, _mm512_set1_epi8(-128));
}

/* 64 weights of 16 rows, from column k on. */
static inline void load_rows(__m512i v[16], const struct matrix *w, const struct rows16 *rows,
                             const struct rows16 *multipliers, int k)
{
    const __mmask32 pairs = (__mmask32)bytes_below((w->n_in - k) / 2);
    if (w->dtype == DTYPE_I8) {
        __mmask64 mask = bytes_below(w->n_in - k);
        UNROLL
        for (int i = 0; i < 16; i++)
            v[i] = load_i8(rows->at[i] + k, rows->ahead, mask);
    } else if (w->dtype == DTYPE_I4) {
        UNROLL
        for (int i = 0; i < 16; i++)
            v[i] = load_i4(rows->at[i] + k / 2, rows->ahead, pairs);
    } else {
        UNROLL
        for (int i = 0; i < 16; i++)
            v[i] =
                load_i4_block(rows->at[i] + k / 2, multipliers->at[i] + k / 32, rows->ahead, pairs);
    }
}

/* y[i] = sum[i] * scales[r + i] (+ bias[r + i]) for the rows in the mask. */
static inline void store_rows(float *y, __m512 sum, const struct matrix *w, int r, __mmask16 mask)
{
    __m512 v = _mm512_mul_ps(sum, _mm512_maskz_loadu_ps(mask, w->scales + r));
    if (w->bias)
        v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, w->bias + r));
    _mm512_mask_storeu_ps(y, mask, v);
}

/* Transpose 16 rows of 16 dwords: vector j becomes dword j of every row. */
static inline void transpose_16x16(__m512i v[16])
{
    __m512i t[16];
    UNROLL
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
    }
    UNROLL
    for (int i = 0; i < 16; i += 4) {
        v[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        v[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        v[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        v[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    UNROLL
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(v[i], v[4 + i], 0x88);
        t[4 + i] = _mm512_shuffle_i32x4(v[i], v[4 + i], 0xdd);
        t[8 + i] = _mm512_shuffle_i32x4(v[8 + i], v[12 + i], 0x88);
        t[12 + i] = _mm512_shuffle_i32x4(v[8 + i], v[12 + i], 0xdd);
    }
    UNROLL
    for (int i = 0; i < 4; i++) {
        v[i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0x88);
        v[4 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0x88);
        v[8 + i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0xdd);
        v[12 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0xdd);
    }
}

/* 128-bit lanes (a0 + a1, a2 + a3, b0 + b1, b2 + b3) */
static inline __m512i sum_lane_pairs(__m512i a, __m512i b)
{
    return _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
}

/* scale * dot */
static inline __m512 scaled(__m512i dot, __m512 scale)
{
    return _mm512_mul_ps(scale, _mm512_cvtepi32_ps(dot));
}

/* sum + lane 0 + lane 1 + lane 2 + lane 3, of 128 bits */
static inline __m128 add_lanes(__m128 sum, __m512 v)
{
    sum = _mm_add_ps(sum, _mm512_castps512_ps128(v));
    sum = _mm_add_ps(sum, _mm512_extractf32x4_ps(v, 1));
    sum = _mm_add_ps(sum, _mm512_extractf32x4_ps(v, 2));
    return _mm_add_ps(sum, _mm512_extractf32x4_ps(v, 3));
}

#endif
