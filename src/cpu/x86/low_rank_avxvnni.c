/* low_rank_avxvnni.c: products of low-rank matrices with vpdpbusd on 256-bit registers.
 * In, out, order of rounding: scalar/low_rank_scalar.c, to the bit. A vector is four columns of
 * eight rows, multiplied by four elements of x. The weights must be unsigned, hence plus 128; the
 * product of 128 and x is subtracted again. */
#include "cpu/low_rank.h"
#include "cpu/x86/x86.h"

#if defined(__x86_64__)

#include <assert.h>
#include <immintrin.h>
#include <string.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,avxvnni"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,avxvnni")
#endif

static inline __m256i unsigned_rows8(const uint8_t *rows)
{
    return _mm256_xor_si256(_mm256_load_si256((const __m256i *)(const void *)rows),
                            _mm256_set1_epi8(-128));
}

static void low_rank_sums_avxvnni(float sums[LOW_RANK_ROWS], const uint8_t *group, const int8_t *q,
                                  const float *scales, int n_in)
{
    assert(group && q && scales && n_in > 0);
    __m256 sum0 = _mm256_setzero_ps(), sum8 = sum0;
    const uint8_t *w = group + LOW_RANK_SCALE_BYTES;
    for (int k = 0; k < n_in; scales++) {
        const int end = n_in - k < ACT_BLOCK ? n_in : k + ACT_BLOCK;
        __m256i dot0 = _mm256_setzero_si256(), dot8 = dot0, added = dot0;
        for (; k < end; k += LOW_RANK_STEP, w += LOW_RANK_STEP_BYTES) {
            int32_t four;
            memcpy(&four, q + k, sizeof four);
            const __m256i x = _mm256_set1_epi32(four);
            _mm_prefetch((const char *)w + LOW_RANK_AHEAD, _MM_HINT_T0);
            dot0 = _mm256_dpbusd_avx_epi32(dot0, unsigned_rows8(w), x);
            dot8 = _mm256_dpbusd_avx_epi32(dot8, unsigned_rows8(w + 32), x);
            added = _mm256_dpbusd_avx_epi32(added, _mm256_set1_epi8(-128), x);
        }
        const __m256 scale = _mm256_set1_ps(*scales);
        const __m256 sums0 = _mm256_cvtepi32_ps(_mm256_sub_epi32(dot0, added));
        const __m256 sums8 = _mm256_cvtepi32_ps(_mm256_sub_epi32(dot8, added));
        sum0 = _mm256_add_ps(sum0, _mm256_mul_ps(scale, sums0));
        sum8 = _mm256_add_ps(sum8, _mm256_mul_ps(scale, sums8));
    }
    _mm256_storeu_ps(sums, sum0);
    _mm256_storeu_ps(sums + 8, sum8);
}

static void add_low_rank_avxvnni(const struct out_view *out, const struct low_rank *w,
                                 const struct act_rows *x, int begin, int end)
{
    qp_add_low_rank_groups(low_rank_sums_avxvnni, out, w, x, begin, end);
}

void qp_low_rank_kernels_avxvnni(struct kernels *k)
{
    k->add_low_rank = add_low_rank_avxvnni;
}

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
