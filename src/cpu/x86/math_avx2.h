/* math_avx2.h: math.c on 8 floats at a time: the same operations in the same order. Included
 * inside the region of a file that has turned AVX2 on. */
#ifndef QP_MATH_AVX2_H
#define QP_MATH_AVX2_H

#include "cpu/kernels.h"
#include "cpu/math_constants.h"

#include <immintrin.h>
#include <math.h>

/* a * b + c, rounded twice */
static inline __m256 mul_add_avx2(__m256 a, __m256 b, __m256 c)
{
    return _mm256_add_ps(_mm256_mul_ps(a, b), c);
}

/* The first n of 8 lanes: all when n is more, none when it is less. */
static inline __m256i mask_avx2(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* 16 lanes in two halves: lane[j] += lane[j + s] for s = 8, 4, 2, 1 */
static inline float sum_of_lanes_avx2(__m256 low, __m256 high)
{
    __m256 eight = _mm256_add_ps(low, high);
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}

static inline __m256 exp_avx2(__m256 x)
{
    const __m256 min = _mm256_set1_ps(EXP_MIN), max = _mm256_set1_ps(EXP_MAX);
    const __m256 shift = _mm256_set1_ps(ROUND_TO_INTEGER);
    __m256 y = _mm256_min_ps(_mm256_max_ps(x, min), max); // the second operand for a NaN

    __m256 rounded = mul_add_avx2(y, _mm256_set1_ps(EXP_LOG2E), shift);
    __m256 n = _mm256_sub_ps(rounded, shift);
    __m256 r = _mm256_sub_ps(y, _mm256_mul_ps(n, _mm256_set1_ps(EXP_LN2_HIGH)));
    r = _mm256_sub_ps(r, _mm256_mul_ps(n, _mm256_set1_ps(EXP_LN2_LOW)));

    __m256 p = _mm256_set1_ps(exp_coefficients[0]);
    for (int i = 1; i < EXP_DEGREE; i++)
        p = mul_add_avx2(p, r, _mm256_set1_ps(exp_coefficients[i]));
    p = mul_add_avx2(p, _mm256_mul_ps(r, r), r);
    p = _mm256_add_ps(p, _mm256_set1_ps(1.0f));

    __m256i power = _mm256_slli_epi32(_mm256_castps_si256(rounded), 23);
    p = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), power));
    p = _mm256_and_ps(p, _mm256_cmp_ps(x, min, _CMP_GE_OQ));
    return _mm256_blendv_ps(p, _mm256_set1_ps(INFINITY), _mm256_cmp_ps(x, max, _CMP_GT_OQ));
}

static inline __m256 exp_fast_avx2(__m256 x)
{
    const __m256 shift = _mm256_set1_ps(ROUND_TO_INTEGER);
    __m256 y = _mm256_mul_ps(x, _mm256_set1_ps(EXP_LOG2E));
    y = _mm256_max_ps(y, _mm256_set1_ps(EXP2_MIN)); // the second operand for a NaN
    __m256 rounded = _mm256_add_ps(y, shift);
    __m256 f = _mm256_sub_ps(y, _mm256_sub_ps(rounded, shift));

    __m256 p = _mm256_set1_ps(exp2_coefficients[0]);
    for (int i = 1; i < EXP2_DEGREE; i++)
        p = mul_add_avx2(p, f, _mm256_set1_ps(exp2_coefficients[i]));
    p = mul_add_avx2(p, f, _mm256_set1_ps(1.0f));
    __m256i power = _mm256_slli_epi32(_mm256_castps_si256(rounded), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), power));
}

static inline __m256 tanh_avx2(__m256 x)
{
    const __m256 one = _mm256_set1_ps(1.0f), sign = _mm256_set1_ps(-0.0f);
    __m256 a = _mm256_andnot_ps(sign, x);
    __m256 large = _mm256_add_ps(exp_avx2(_mm256_add_ps(a, a)), one);
    large = _mm256_sub_ps(one, _mm256_div_ps(_mm256_set1_ps(2.0f), large));
    large = _mm256_or_ps(large, _mm256_and_ps(sign, x));

    __m256 z = _mm256_mul_ps(x, x);
    __m256 p = _mm256_set1_ps(tanh_coefficients[0]);
    for (int i = 1; i < TANH_DEGREE; i++)
        p = mul_add_avx2(p, z, _mm256_set1_ps(tanh_coefficients[i]));
    __m256 small = mul_add_avx2(_mm256_mul_ps(p, z), x, x);
    return _mm256_blendv_ps(small, large, _mm256_cmp_ps(a, _mm256_set1_ps(TANH_SMALL), _CMP_GE_OQ));
}

/* x / (exp(-u) + 1) */
static inline __m256 sigmoid_times_avx2(__m256 x, __m256 u)
{
    __m256 e = exp_avx2(_mm256_xor_ps(u, _mm256_set1_ps(-0.0f)));
    return _mm256_div_ps(x, _mm256_add_ps(e, _mm256_set1_ps(1.0f)));
}

static inline __m256 gelu_tanh_avx2(__m256 x)
{
    __m256 u = _mm256_mul_ps(_mm256_mul_ps(x, x), _mm256_set1_ps(GELU_CUBIC));
    u = _mm256_mul_ps(x, _mm256_add_ps(u, _mm256_set1_ps(GELU_LINEAR)));
    return sigmoid_times_avx2(x, u);
}

static inline __m256 gelu_erf_avx2(__m256 x)
{
    const __m256 one = _mm256_set1_ps(1.0f);
    __m256 a = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
    __m256 t = _mm256_div_ps(one, mul_add_avx2(a, _mm256_set1_ps(ERF_SLOPE), one));
    __m256 p = _mm256_set1_ps(erf_coefficients[0]);
    for (int i = 1; i < ERF_DEGREE; i++)
        p = mul_add_avx2(p, t, _mm256_set1_ps(erf_coefficients[i]));
    __m256 e = exp_avx2(_mm256_mul_ps(_mm256_mul_ps(x, x), _mm256_set1_ps(-0.5f)));
    __m256 below = _mm256_mul_ps(_mm256_mul_ps(p, t), e);
    __m256 is_negative = _mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_LT_OQ);
    return _mm256_mul_ps(x, _mm256_blendv_ps(_mm256_sub_ps(one, below), below, is_negative));
}

#endif
