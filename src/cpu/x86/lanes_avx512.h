/* lanes_avx512.h: sixteen floats in one register. Operations: cpu/lanes.h.
 * A template, included by a file that has enabled AVX-512 F, BW, DQ and VL. */
#include "cpu/lanes.h"

#include <immintrin.h>

#define PRODUCT_ROWS 4
#define PRODUCT_COLUMNS 4
#define F32_TOKENS 6
#define F32_REST 4
#define F32_ROWS 4
#define F32_IS_PREFETCHED 1

struct lanes {
    __m512 v;
};

struct lanes_mask {
    __mmask16 m;
};

#define LANES_OP(name, op)                                                                         \
    LANES_INLINE struct lanes name(struct lanes a, struct lanes b)                                 \
    {                                                                                              \
        return (struct lanes){ op(a.v, b.v) };                                                     \
    }
LANES_OP(lanes_add, _mm512_add_ps)
LANES_OP(lanes_sub, _mm512_sub_ps)
LANES_OP(lanes_mul, _mm512_mul_ps)
LANES_OP(lanes_div, _mm512_div_ps)
LANES_OP(lanes_max, _mm512_max_ps) // the second operand for a NaN
LANES_OP(lanes_min, _mm512_min_ps)

LANES_INLINE struct lanes lanes_set(float x)
{
    return (struct lanes){ _mm512_set1_ps(x) };
}

LANES_INLINE struct lanes lanes_load(const float *x)
{
    return (struct lanes){ _mm512_loadu_ps(x) };
}

LANES_INLINE struct lanes lanes_in_register(struct lanes a)
{
    __asm__("" : "+v"(a.v));
    return a;
}

LANES_INLINE void lanes_store(float *y, struct lanes v)
{
    _mm512_storeu_ps(y, v.v);
}

/* The first n of 16 bits: all if n is more, none if it is less. */
LANES_INLINE uint32_t lanes_first_avx512(int n)
{
    return n >= 16 ? 0xFFFF : n <= 0 ? 0 : (1u << n) - 1;
}

LANES_INLINE struct lanes lanes_load_first(const float *x, int n)
{
    if (n >= 16)
        return lanes_load(x);
    return (struct lanes){ _mm512_maskz_loadu_ps((__mmask16)lanes_first_avx512(n), x) };
}

LANES_INLINE void lanes_store_first(float *y, int n, struct lanes v)
{
    if (n >= 16)
        lanes_store(y, v);
    else
        _mm512_mask_storeu_ps(y, (__mmask16)lanes_first_avx512(n), v.v);
}

LANES_INLINE struct lanes lanes_negate(struct lanes a)
{
    return (struct lanes){ _mm512_xor_ps(a.v, _mm512_set1_ps(-0.0f)) };
}

LANES_INLINE struct lanes lanes_abs(struct lanes a)
{
    return (struct lanes){ _mm512_abs_ps(a.v) };
}

LANES_INLINE struct lanes lanes_copy_sign(struct lanes a, struct lanes b)
{
    return (struct lanes){ _mm512_or_ps(a.v, _mm512_and_ps(b.v, _mm512_set1_ps(-0.0f))) };
}

LANES_INLINE struct lanes lanes_times_power(struct lanes a, struct lanes b)
{
    const __m512i power = _mm512_slli_epi32(_mm512_castps_si512(b.v), 23);
    return (struct lanes){ _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a.v), power)) };
}

LANES_INLINE float lanes_sum(struct lanes a)
{
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}

/* Half of the lanes of a plus the other half, and the same of b in the lanes of the mask. */
#define LANES_FOLD_AVX512(a, b, second, swapped)                                                   \
    _mm512_add_ps(_mm512_mask_mov_ps(a, second, b), swapped(_mm512_mask_mov_ps(b, second, a)))
#define LANES_SWAP_8_AVX512(v) _mm512_shuffle_f32x4(v, v, 0x4e)
#define LANES_SWAP_4_AVX512(v) _mm512_shuffle_f32x4(v, v, 0xb1)
#define LANES_SWAP_2_AVX512(v) _mm512_permute_ps(v, 0x4e)
#define LANES_SWAP_1_AVX512(v) _mm512_permute_ps(v, 0xb1)

LANES_INLINE void lanes_sum_4(float *y, const struct lanes *a)
{
    __m512 v = LANES_FOLD_AVX512(LANES_FOLD_AVX512(a[0].v, a[2].v, 0xff00, LANES_SWAP_8_AVX512),
                                 LANES_FOLD_AVX512(a[1].v, a[3].v, 0xff00, LANES_SWAP_8_AVX512),
                                 0xf0f0, LANES_SWAP_4_AVX512);
    v = _mm512_add_ps(v, LANES_SWAP_2_AVX512(v));
    v = _mm512_add_ps(v, LANES_SWAP_1_AVX512(v));
    const __m512i quarters = _mm512_set4_epi32(12, 8, 4, 0);
    _mm_storeu_ps(y, _mm512_castps512_ps128(_mm512_permutexvar_ps(quarters, v)));
}

LANES_INLINE float lanes_largest(struct lanes a)
{
    return _mm512_reduce_max_ps(a.v);
}

/* Pairs of lanes: `other` has each lane's partner, is_second the second lane of each pair. */
LANES_INLINE __m512 lanes_butterfly_avx512(__m512 v, __m512 other, __mmask16 is_second)
{
    return _mm512_mask_sub_ps(_mm512_add_ps(v, other), is_second, other, v);
}

LANES_INLINE struct lanes lanes_hadamard(struct lanes a)
{
    __m512 v = lanes_butterfly_avx512(a.v, _mm512_permute_ps(a.v, 0xb1), 0xaaaa);
    v = lanes_butterfly_avx512(v, _mm512_permute_ps(v, 0x4e), 0xcccc);
    v = lanes_butterfly_avx512(v, _mm512_shuffle_f32x4(v, v, 0xb1), 0xf0f0);
    return (struct lanes){ lanes_butterfly_avx512(v, _mm512_shuffle_f32x4(v, v, 0x4e), 0xff00) };
}

LANES_INLINE struct lanes_mask lanes_less(struct lanes a, struct lanes b)
{
    return (struct lanes_mask){ _mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ) };
}

LANES_INLINE struct lanes_mask lanes_at_least(struct lanes a, struct lanes b)
{
    return (struct lanes_mask){ _mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ) };
}

LANES_INLINE struct lanes_mask lanes_range(int begin, int end)
{
    uint32_t bits = 0xFFFF;
    if (begin > 0 || end < 16) // seldom, and a branch is cheaper than the bits
        bits = lanes_first_avx512(end) & ~lanes_first_avx512(begin);
    return (struct lanes_mask){ (__mmask16)bits };
}

LANES_INLINE struct lanes lanes_select(struct lanes_mask m, struct lanes a, struct lanes b)
{
    return (struct lanes){ _mm512_mask_mov_ps(b.v, m.m, a.v) };
}

LANES_INLINE struct lanes lanes_keep(struct lanes_mask m, struct lanes a)
{
    return (struct lanes){ _mm512_maskz_mov_ps(m.m, a.v) };
}
