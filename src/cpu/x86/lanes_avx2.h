/* lanes_avx2.h: sixteen floats in two registers of eight. Operations: cpu/lanes.h.
 * A template, included by a file that has enabled AVX2. */
#include "cpu/lanes.h"

#include <immintrin.h>

#define PRODUCT_ROWS 4
#define PRODUCT_COLUMNS 1
#define F32_TOKENS 2
#define F32_REST 2
#define F32_ROWS 2
#define F32_IS_PREFETCHED 1

struct lanes {
    __m256 low, high;
};

struct lanes_mask {
    __m256 low, high;
};

#define LANES_OP(name, op)                                                                         \
    LANES_INLINE struct lanes name(struct lanes a, struct lanes b)                                 \
    {                                                                                              \
        return (struct lanes){ op(a.low, b.low), op(a.high, b.high) };                             \
    }
LANES_OP(lanes_add, _mm256_add_ps)
LANES_OP(lanes_sub, _mm256_sub_ps)
LANES_OP(lanes_mul, _mm256_mul_ps)
LANES_OP(lanes_div, _mm256_div_ps)
LANES_OP(lanes_max, _mm256_max_ps) // the second operand for a NaN
LANES_OP(lanes_min, _mm256_min_ps)

LANES_INLINE struct lanes lanes_set(float x)
{
    return (struct lanes){ _mm256_set1_ps(x), _mm256_set1_ps(x) };
}

LANES_INLINE struct lanes lanes_load(const float *x)
{
    return (struct lanes){ _mm256_loadu_ps(x), _mm256_loadu_ps(x + 8) };
}

LANES_INLINE struct lanes lanes_in_register(struct lanes a)
{
    __asm__("" : "+x"(a.low), "+x"(a.high));
    return a;
}

LANES_INLINE void lanes_store(float *y, struct lanes v)
{
    _mm256_storeu_ps(y, v.low);
    _mm256_storeu_ps(y + 8, v.high);
}

/* The first n of 8 floats: all if n is more, none if it is less. */
LANES_INLINE __m256i lanes_first_avx2(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

LANES_INLINE struct lanes lanes_load_first(const float *x, int n)
{
    if (n >= 16)
        return lanes_load(x);
    return (struct lanes){ _mm256_maskload_ps(x, lanes_first_avx2(n)),
                           _mm256_maskload_ps(x + 8, lanes_first_avx2(n - 8)) };
}

/* As few masked stores as possible: they are slow before Zen 5. */
LANES_INLINE void lanes_store_first(float *y, int n, struct lanes v)
{
    if (n < 8) {
        _mm256_maskstore_ps(y, lanes_first_avx2(n), v.low);
        return;
    }
    _mm256_storeu_ps(y, v.low);
    if (n >= 16)
        _mm256_storeu_ps(y + 8, v.high);
    else if (n > 8)
        _mm256_maskstore_ps(y + 8, lanes_first_avx2(n - 8), v.high);
}

LANES_INLINE struct lanes lanes_negate(struct lanes a)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return (struct lanes){ _mm256_xor_ps(a.low, sign), _mm256_xor_ps(a.high, sign) };
}

LANES_INLINE struct lanes lanes_abs(struct lanes a)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return (struct lanes){ _mm256_andnot_ps(sign, a.low), _mm256_andnot_ps(sign, a.high) };
}

LANES_INLINE struct lanes lanes_copy_sign(struct lanes a, struct lanes b)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return (struct lanes){ _mm256_or_ps(a.low, _mm256_and_ps(sign, b.low)),
                           _mm256_or_ps(a.high, _mm256_and_ps(sign, b.high)) };
}

LANES_INLINE __m256 lanes_times_power_avx2(__m256 a, __m256 b)
{
    const __m256i power = _mm256_slli_epi32(_mm256_castps_si256(b), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), power));
}

LANES_INLINE struct lanes lanes_times_power(struct lanes a, struct lanes b)
{
    return (struct lanes){ lanes_times_power_avx2(a.low, b.low),
                           lanes_times_power_avx2(a.high, b.high) };
}

LANES_INLINE float lanes_sum(struct lanes a)
{
    const __m256 eight = _mm256_add_ps(a.low, a.high);
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}

/* 4 sums of a in the first half, 4 of b in the second. */
LANES_INLINE __m256 lanes_sum_halves_avx2(struct lanes a, struct lanes b)
{
    const __m256 a8 = _mm256_add_ps(a.low, a.high), b8 = _mm256_add_ps(b.low, b.high);
    return _mm256_add_ps(_mm256_permute2f128_ps(a8, b8, 0x20),
                         _mm256_permute2f128_ps(a8, b8, 0x31));
}

LANES_INLINE void lanes_sum_4(float *y, const struct lanes *a)
{
    const __m256 ac = lanes_sum_halves_avx2(a[0], a[2]), bd = lanes_sum_halves_avx2(a[1], a[3]);
    __m256 v = _mm256_add_ps(_mm256_shuffle_ps(ac, bd, 0x44), _mm256_shuffle_ps(ac, bd, 0xee));
    v = _mm256_add_ps(v, _mm256_permute_ps(v, 0xb1)); // { a, a, b, b } and { c, c, d, d }
    _mm_storeu_ps(y, _mm_shuffle_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1), 0x88));
}

LANES_INLINE float lanes_largest(struct lanes a)
{
    const __m256 eight = _mm256_max_ps(a.low, a.high);
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}

/* Lanes that are the second of a pair change sign before the first of the pair is added. */
LANES_INLINE __m256 lanes_hadamard_avx2(__m256 v)
{
    const __m256 b1 = _mm256_setr_ps(0, -0.0f, 0, -0.0f, 0, -0.0f, 0, -0.0f);
    const __m256 b2 = _mm256_setr_ps(0, 0, -0.0f, -0.0f, 0, 0, -0.0f, -0.0f);
    const __m256 b4 = _mm256_setr_ps(0, 0, 0, 0, -0.0f, -0.0f, -0.0f, -0.0f);
    v = _mm256_add_ps(_mm256_permute_ps(v, 0xb1), _mm256_xor_ps(v, b1));
    v = _mm256_add_ps(_mm256_permute_ps(v, 0x4e), _mm256_xor_ps(v, b2));
    return _mm256_add_ps(_mm256_permute2f128_ps(v, v, 1), _mm256_xor_ps(v, b4));
}

LANES_INLINE struct lanes lanes_hadamard(struct lanes a)
{
    const __m256 low = lanes_hadamard_avx2(a.low), high = lanes_hadamard_avx2(a.high);
    return (struct lanes){ _mm256_add_ps(low, high), _mm256_sub_ps(low, high) };
}

LANES_INLINE struct lanes_mask lanes_less(struct lanes a, struct lanes b)
{
    return (struct lanes_mask){ _mm256_cmp_ps(a.low, b.low, _CMP_LT_OQ),
                                _mm256_cmp_ps(a.high, b.high, _CMP_LT_OQ) };
}

LANES_INLINE struct lanes_mask lanes_at_least(struct lanes a, struct lanes b)
{
    return (struct lanes_mask){ _mm256_cmp_ps(a.low, b.low, _CMP_GE_OQ),
                                _mm256_cmp_ps(a.high, b.high, _CMP_GE_OQ) };
}

LANES_INLINE struct lanes_mask lanes_range(int begin, int end)
{
    const __m256i low = _mm256_andnot_si256(lanes_first_avx2(begin), lanes_first_avx2(end));
    const __m256i high =
        _mm256_andnot_si256(lanes_first_avx2(begin - 8), lanes_first_avx2(end - 8));
    return (struct lanes_mask){ _mm256_castsi256_ps(low), _mm256_castsi256_ps(high) };
}

LANES_INLINE struct lanes lanes_select(struct lanes_mask m, struct lanes a, struct lanes b)
{
    return (struct lanes){ _mm256_blendv_ps(b.low, a.low, m.low),
                           _mm256_blendv_ps(b.high, a.high, m.high) };
}

LANES_INLINE struct lanes lanes_keep(struct lanes_mask m, struct lanes a)
{
    return (struct lanes){ _mm256_and_ps(m.low, a.low), _mm256_and_ps(m.high, a.high) };
}
