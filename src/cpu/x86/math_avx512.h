/* math_avx512.h: math.c on 16 floats at a time: the same operations in the same order. Included
 * inside the region of a file that has turned AVX-512 on. */
#ifndef QP_MATH_AVX512_H
#define QP_MATH_AVX512_H

#include "cpu/kernels.h"
#include "cpu/math_constants.h"

#include <immintrin.h>
#include <math.h>

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

/* lane[j] += lane[j + s] for s = 8, 4, 2, 1 */
static inline float sum_of_lanes_avx512(__m512 lanes)
{
    __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(lanes), _mm512_extractf32x8_ps(lanes, 1));
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}

static inline __m512 exp_avx512(__m512 x)
{
    const __m512 min = _mm512_set1_ps(EXP_MIN), max = _mm512_set1_ps(EXP_MAX);
    const __m512 shift = _mm512_set1_ps(ROUND_TO_INTEGER);
    __m512 y = _mm512_min_ps(_mm512_max_ps(x, min), max); // the second operand for a NaN

    __m512 rounded = mul_add_avx512(y, _mm512_set1_ps(EXP_LOG2E), shift);
    __m512 n = _mm512_sub_ps(rounded, shift);
    __m512 r = _mm512_sub_ps(y, _mm512_mul_ps(n, _mm512_set1_ps(EXP_LN2_HIGH)));
    r = _mm512_sub_ps(r, _mm512_mul_ps(n, _mm512_set1_ps(EXP_LN2_LOW)));

    __m512 p = _mm512_set1_ps(exp_coefficients[0]);
    for (int i = 1; i < EXP_DEGREE; i++)
        p = mul_add_avx512(p, r, _mm512_set1_ps(exp_coefficients[i]));
    p = mul_add_avx512(p, _mm512_mul_ps(r, r), r);
    p = _mm512_add_ps(p, _mm512_set1_ps(1.0f));

    __m512i power = _mm512_slli_epi32(_mm512_castps_si512(rounded), 23);
    p = _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), power));
    p = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, min, _CMP_GE_OQ), p);
    return _mm512_mask_mov_ps(p, _mm512_cmp_ps_mask(x, max, _CMP_GT_OQ), _mm512_set1_ps(INFINITY));
}

static inline __m512 exp_fast_avx512(__m512 x)
{
    const __m512 shift = _mm512_set1_ps(ROUND_TO_INTEGER);
    __m512 y = _mm512_mul_ps(x, _mm512_set1_ps(EXP_LOG2E));
    y = _mm512_max_ps(y, _mm512_set1_ps(EXP2_MIN)); // the second operand for a NaN
    __m512 rounded = _mm512_add_ps(y, shift);
    __m512 f = _mm512_sub_ps(y, _mm512_sub_ps(rounded, shift));

    __m512 p = _mm512_set1_ps(exp2_coefficients[0]);
    for (int i = 1; i < EXP2_DEGREE; i++)
        p = mul_add_avx512(p, f, _mm512_set1_ps(exp2_coefficients[i]));
    p = mul_add_avx512(p, f, _mm512_set1_ps(1.0f));
    __m512i power = _mm512_slli_epi32(_mm512_castps_si512(rounded), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), power));
}

static inline __m512 tanh_avx512(__m512 x)
{
    const __m512 one = _mm512_set1_ps(1.0f), sign = _mm512_set1_ps(-0.0f);
    __m512 a = _mm512_andnot_ps(sign, x);
    __m512 large = _mm512_add_ps(exp_avx512(_mm512_add_ps(a, a)), one);
    large = _mm512_sub_ps(one, _mm512_div_ps(_mm512_set1_ps(2.0f), large));
    large = _mm512_or_ps(large, _mm512_and_ps(sign, x));

    __m512 z = _mm512_mul_ps(x, x);
    __m512 p = _mm512_set1_ps(tanh_coefficients[0]);
    for (int i = 1; i < TANH_DEGREE; i++)
        p = mul_add_avx512(p, z, _mm512_set1_ps(tanh_coefficients[i]));
    __m512 small = mul_add_avx512(_mm512_mul_ps(p, z), x, x);
    __mmask16 is_large = _mm512_cmp_ps_mask(a, _mm512_set1_ps(TANH_SMALL), _CMP_GE_OQ);
    return _mm512_mask_mov_ps(small, is_large, large);
}

/* x / (exp(-u) + 1) */
static inline __m512 sigmoid_times_avx512(__m512 x, __m512 u)
{
    __m512 e = exp_avx512(_mm512_xor_ps(u, _mm512_set1_ps(-0.0f)));
    return _mm512_div_ps(x, _mm512_add_ps(e, _mm512_set1_ps(1.0f)));
}

static inline __m512 gelu_tanh_avx512(__m512 x)
{
    __m512 u = _mm512_mul_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(GELU_CUBIC));
    u = _mm512_mul_ps(x, _mm512_add_ps(u, _mm512_set1_ps(GELU_LINEAR)));
    return sigmoid_times_avx512(x, u);
}

static inline __m512 gelu_erf_avx512(__m512 x)
{
    const __m512 one = _mm512_set1_ps(1.0f);
    __m512 t = mul_add_avx512(_mm512_abs_ps(x), _mm512_set1_ps(ERF_SLOPE), one);
    t = _mm512_div_ps(one, t);
    __m512 p = _mm512_set1_ps(erf_coefficients[0]);
    for (int i = 1; i < ERF_DEGREE; i++)
        p = mul_add_avx512(p, t, _mm512_set1_ps(erf_coefficients[i]));
    __m512 e = exp_avx512(_mm512_mul_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(-0.5f)));
    __m512 below = _mm512_mul_ps(_mm512_mul_ps(p, t), e);
    __mmask16 is_negative = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ);
    return _mm512_mul_ps(x, _mm512_mask_mov_ps(_mm512_sub_ps(one, below), is_negative, below));
}

#endif
