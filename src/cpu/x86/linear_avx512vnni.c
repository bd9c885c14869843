/* linear_avx512vnni.c: quantization and packing on 512-bit registers (Ice Lake, Zen 4 on).
 * In, out, order of rounding: scalar/linear_scalar.c, to the bit.
 *
 * vpdpbusd multiplies unsigned by signed bytes and adds four neighbours to an int32 lane. The
 * weights are made unsigned by adding 128; the nibbles of int4 are stored unsigned, plus 8. This
 * adds 128 times the sum of the block's q, which act_rows.offsets subtracts: the accumulator starts
 * there, or the offset is added once in a block.
 *
 * Tile, layout u8x16k4x16: [n_in rounded up to ACT_BLOCK, / ACT_BLOCK][4][16][16 rows][4 k] of
 * w + 128, also for int4. One vector of weights is 16 rows of the same four k (gemm_avx512vnni.c);
 * 16 of them, one after the other, are a tile register of AMX (linear_amx.c). */
#include "cpu/x86/x86.h"
#include "format/dtype.h"

#if defined(__x86_64__)

#include <assert.h>
#include <float.h>
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

/* ---- activations ---- */

/* 16 numbers times a factor, rounded and clamped to [-127, 127]; 127 for a NaN. */
static inline __m512i round_clamped_avx512(__m512 v, __m512 factor)
{
    __m512 y = _mm512_min_ps(_mm512_mul_ps(v, factor), _mm512_set1_ps(127.0f));
    return _mm512_cvtps_epi32(_mm512_max_ps(y, _mm512_set1_ps(-127.0f)));
}

/* Raise the largest magnitudes by those of 64 numbers. */
static inline void raise_to_magnitudes_avx512(__m512 largest[4], const float *x)
{
    UNROLL
    for (int j = 0; j < 4; j++) // the second, if one is NaN
        largest[j] = _mm512_max_ps(_mm512_abs_ps(_mm512_loadu_ps(x + 16 * j)), largest[j]);
}

/* 64 numbers at a time, and the rest with masks. */
static void quantize_row_avx512(int8_t *q, float *scale, const float *x, int n)
{
    assert(q && scale && x && n > 0);
    const int n_whole = n / ACT_BLOCK * ACT_BLOCK;
    const __m512 zero = _mm512_setzero_ps();
    __m512 largest[4] = { zero, zero, zero, zero };
    for (int i = 0; i < n_whole; i += ACT_BLOCK)
        raise_to_magnitudes_avx512(largest, x + i);
    for (int i = n_whole; i < n; i += 16) {
        __m512 v = _mm512_maskz_loadu_ps(lanes_below(n - i), x + i);
        largest[0] = _mm512_max_ps(_mm512_abs_ps(v), largest[0]);
    }
    largest[0] =
        _mm512_max_ps(_mm512_max_ps(largest[0], largest[1]), _mm512_max_ps(largest[2], largest[3]));
    float max = _mm512_reduce_max_ps(largest[0]);
    max = max < FLT_MAX ? max : FLT_MAX;
    float inverse = 127.0f / max;
    __m512 factor = _mm512_set1_ps(inverse < FLT_MAX ? inverse : FLT_MAX);
    for (int i = 0; i < n_whole; i += ACT_BLOCK) {
        __m512i v[4];
        UNROLL
        for (int j = 0; j < 4; j++)
            v[j] = round_clamped_avx512(_mm512_loadu_ps(x + i + 16 * j), factor);
        _mm512_storeu_si512(q + i, pack_bytes_avx512(v));
    }
    for (int i = n_whole; i < n; i += 16) {
        __mmask16 mask = lanes_below(n - i);
        __m512i rounded = round_clamped_avx512(_mm512_maskz_loadu_ps(mask, x + i), factor);
        _mm_mask_storeu_epi8(q + i, mask, _mm512_cvtepi32_epi8(rounded));
    }
    *scale = max / 127.0f;
}

/* One block of n <= ACT_BLOCK elements. */
static inline void quantize_block_avx512(int8_t *q, float *scale, int32_t *offset, const float *x,
                                         int n)
{
    __m512 v[4], largest = _mm512_setzero_ps();
    UNROLL
    for (int j = 0; j < 4; j++) {
        v[j] = _mm512_maskz_loadu_ps(lanes_below(n - 16 * j), x + 16 * j);
        largest = _mm512_max_ps(_mm512_abs_ps(v[j]), largest); // the second, if one is NaN
    }
    float max = _mm512_reduce_max_ps(largest);
    float inverse = 127.0f / max;
    __m512 factor = _mm512_set1_ps(inverse < FLT_MAX ? inverse : FLT_MAX);
    __m512i sum = _mm512_setzero_si512();
    UNROLL
    for (int j = 0; j < 4; j++) {
        __m512i rounded = round_clamped_avx512(v[j], factor);
        sum = _mm512_add_epi32(sum, rounded);
        _mm_storeu_si128((__m128i *)(q + 16 * j), _mm512_cvtepi32_epi8(rounded));
    }
    *scale = max / 127.0f;
    *offset = -128 * _mm512_reduce_add_epi32(sum);
}

/* ---- up to sixteen blocks at a time, twice as fast as one by one ----
 * Four vectors are reduced together, sixteen blocks need one division, and no block waits for its
 * own maximum. If fewer than four blocks are left, the last one is computed again in their place.
 */

/* The maximum, or the sum, of each of four vectors: that of vector i in all of 128-bit lane i. */
static inline __m512 max_of_each_avx512(const __m512 v[4])
{
    __m512 a = _mm512_max_ps(_mm512_shuffle_f32x4(v[0], v[1], 0x44),
                             _mm512_shuffle_f32x4(v[0], v[1], 0xee));
    __m512 b = _mm512_max_ps(_mm512_shuffle_f32x4(v[2], v[3], 0x44),
                             _mm512_shuffle_f32x4(v[2], v[3], 0xee));
    a = _mm512_max_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
    a = _mm512_max_ps(a, _mm512_permute_ps(a, 0x4e));
    return _mm512_max_ps(a, _mm512_permute_ps(a, 0xb1));
}

static inline __m512i sum_of_each_avx512(const __m512i v[4])
{
    __m512i a = _mm512_add_epi32(_mm512_shuffle_i32x4(v[0], v[1], 0x44),
                                 _mm512_shuffle_i32x4(v[0], v[1], 0xee));
    __m512i b = _mm512_add_epi32(_mm512_shuffle_i32x4(v[2], v[3], 0x44),
                                 _mm512_shuffle_i32x4(v[2], v[3], 0xee));
    a = _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
    a = _mm512_add_epi32(a, _mm512_shuffle_epi32(a, 0x4e));
    return _mm512_add_epi32(a, _mm512_shuffle_epi32(a, 0xb1));
}

/* Lanes [first, first + 4) of `to` become the numbers of v, one from each 128-bit lane. */
static inline __m512i put_each_avx512(__m512i to, int first, __m512i v)
{
    const __m512i each = _mm512_set4_epi32(12, 8, 4, 0);
    return _mm512_mask_permutexvar_epi32(to, (__mmask16)(15 << first), each, v);
}

/* The first element of block b, or of the last one of n. */
static inline size_t first_in_block(int b, int n)
{
    return (size_t)(b < n ? b : n - 1) * ACT_BLOCK;
}

/* The largest magnitudes of four of n blocks. */
static inline __m512i largest_of_blocks_avx512(const float *x, int n)
{
    __m512 largest[4];
    UNROLL
    for (int b = 0; b < 4; b++) {
        const float *block = x + first_in_block(b, n);
        largest[b] = _mm512_setzero_ps();
        UNROLL
        for (int j = 0; j < 4; j++) {
            __m512 v = _mm512_loadu_ps(block + 16 * j);
            largest[b] = _mm512_max_ps(_mm512_abs_ps(v), largest[b]); // the second, if one is NaN
        }
    }
    return _mm512_castps_si512(max_of_each_avx512(largest));
}

/* Four of n blocks, each times its factor, rounded to q; returns the sums of their q. A product is
 * at most 127, to rounding, or a NaN, which is converted to the least integer, and saturated to
 * -128. So bytes are compared instead of floats clamped: 127 for a NaN. */
static inline __m512i round_blocks_avx512(int8_t *q, const float *x, const float factors[4], int n)
{
    __m512i sums[4];
    UNROLL
    for (int b = 0; b < 4; b++) {
        const __m512 factor = _mm512_set1_ps(factors[b]);
        const size_t first = first_in_block(b, n);
        __m512i v = round_block_avx512(x + first, factor);
        const __mmask64 is_nan = _mm512_cmpeq_epi8_mask(v, _mm512_set1_epi8(-128));
        v = _mm512_mask_sub_epi8(v, is_nan, v, _mm512_set1_epi8(1));
        _mm512_storeu_si512(q + first, v);
        sums[b] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1), v);
    }
    return sum_of_each_avx512(sums);
}

/* n <= 16 blocks. */
static void quantize_blocks_avx512(int8_t *q, float *scales, int32_t *offsets, const float *x,
                                   int n)
{
    assert(n > 0 && n <= 16);
    const __m512 limit = _mm512_set1_ps(127.0f);
    const __mmask16 blocks = lanes_below(n);
    __m512i max = _mm512_setzero_si512(), sum = _mm512_setzero_si512();
    for (int b = 0; b < n; b += 4)
        max = put_each_avx512(max, b, largest_of_blocks_avx512(x + ACT_BLOCK * b, n - b));
    const __m512 m = _mm512_castsi512_ps(max), factor = _mm512_div_ps(limit, m);
    _Alignas(64) float factors[16];
    _mm512_store_ps(factors, _mm512_min_ps(factor, _mm512_set1_ps(FLT_MAX))); // of zeros, too
    _mm512_mask_storeu_ps(scales, blocks, _mm512_div_ps(m, limit));
    for (int b = 0; b < n; b += 4)
        sum = put_each_avx512(
            sum, b, round_blocks_avx512(q + ACT_BLOCK * b, x + ACT_BLOCK * b, factors + b, n - b));
    sum = _mm512_slli_epi32(_mm512_sub_epi32(_mm512_setzero_si512(), sum), 7);
    _mm512_mask_storeu_epi32(offsets, blocks, sum);
}

static void quantize_avx512(int8_t *q, float *scales, int32_t *offsets, const float *x, int n)
{
    assert(q && scales && offsets && x && n > 0);
    int b = 0;
    for (const int n_whole = n / ACT_BLOCK; n_whole - b > 1;) {
        const int m = n_whole - b < 16 ? n_whole - b : 16;
        quantize_blocks_avx512(q + ACT_BLOCK * b, scales + b, offsets + b, x + ACT_BLOCK * b, m);
        b += m;
    }
    for (; b * ACT_BLOCK < n; b++)
        quantize_block_avx512(q + ACT_BLOCK * b, scales + b, offsets + b, x + ACT_BLOCK * b,
                              n - ACT_BLOCK * b);
}

/* ---- tiles ---- */

static size_t tile_bytes_avx512(int n_in)
{
    return TILE_ROWS * qp_round_up((size_t)n_in, ACT_BLOCK);
}

/* The bytes of w + 128, each ^ flip. */
static inline __attribute__((always_inline)) void pack_rows(uint8_t *tile, const struct matrix *w,
                                                            int row, int n_rows, int8_t flip)
{
    assert(w->dtype != DTYPE_F32 && qp_is_tile(tile, w, row, n_rows));
    for (int r = 0; r < TILE_ROWS; r += 16) {
        const struct rows16 rows = rows16_at(w, row + r, row + n_rows);
        const struct rows16 multipliers = multipliers16_at(w, row + r, row + n_rows);
        for (int k = 0; k < w->n_in; k += ACT_BLOCK) {
            __m512i v[16];
            load_rows(v, w, &rows, &multipliers, k);
            transpose_16x16(v);
            uint8_t *to = tile + (size_t)k * TILE_ROWS + (size_t)r * ACT_BLOCK;
            UNROLL
            for (int j = 0; j < 16; j++)
                _mm512_store_si512(to + j * 64, _mm512_xor_si512(v[j], _mm512_set1_epi8(flip)));
        }
    }
}

static void pack_avx512(void *tile, const struct matrix *w, int row, int n_rows)
{
    pack_rows(tile, w, row, n_rows, 0);
}

#if !defined(__ANDROID__) // for AMX
void qp_pack_signed_avx512(void *tile, const struct matrix *w, int row, int n_rows)
{
    pack_rows(tile, w, row, n_rows, -128);
}
#endif

void qp_linear_kernels_avx512vnni(struct kernels *k)
{
    k->quantize = quantize_avx512;
    k->quantize_row = quantize_row_avx512;
    k->tile_bytes = tile_bytes_avx512;
    k->tile_order = (struct tile_order){ TILE_ROWS, ACT_BLOCK, 16, 4, 1, 128 };
    k->pack = pack_avx512;
    k->gemm = qp_gemm_avx512vnni;
}

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
