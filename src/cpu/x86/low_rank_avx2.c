/* low_rank_avx2.c: products of low-rank matrices with AVX2.
 * In, out, order of rounding: scalar/low_rank_scalar.c, to the bit. A vector is four columns of
 * four rows as words, which vpmaddwd multiplies by four elements of x and adds in pairs. */
#include "cpu/low_rank.h"
#include "cpu/x86/x86.h"

#if defined(__x86_64__)

#include <assert.h>
#include <immintrin.h>
#include <string.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2")
#endif

static inline __m256i words_of_rows4(const uint8_t *rows)
{
    return _mm256_cvtepi8_epi16(_mm_load_si128((const __m128i *)(const void *)rows));
}

/* Eight sums, from pairs of partial sums of rows 0 to 3 and of rows 4 to 7. */
static inline __m256 sums_of_pairs(__m256i rows0, __m256i rows4)
{
    return _mm256_cvtepi32_ps(_mm256_permute4x64_epi64(_mm256_hadd_epi32(rows0, rows4), 0xd8));
}

static void low_rank_sums_avx2(float sums[LOW_RANK_ROWS], const uint8_t *group, const int8_t *q,
                               const float *scales, int n_in)
{
    assert(group && q && scales && n_in > 0);
    __m256 sum0 = _mm256_setzero_ps(), sum8 = sum0;
    const uint8_t *w = group + LOW_RANK_SCALE_BYTES;
    for (int k = 0; k < n_in; scales++) {
        const int end = n_in - k < ACT_BLOCK ? n_in : k + ACT_BLOCK;
        __m256i dot0 = _mm256_setzero_si256(), dot4 = dot0, dot8 = dot0, dot12 = dot0;
        for (; k < end; k += LOW_RANK_STEP, w += LOW_RANK_STEP_BYTES) {
            int32_t four;
            memcpy(&four, q + k, sizeof four);
            const __m256i x = _mm256_broadcastq_epi64(_mm_cvtepi8_epi16(_mm_cvtsi32_si128(four)));
            _mm_prefetch((const char *)w + LOW_RANK_AHEAD, _MM_HINT_T0);
            dot0 = _mm256_add_epi32(dot0, _mm256_madd_epi16(words_of_rows4(w), x));
            dot4 = _mm256_add_epi32(dot4, _mm256_madd_epi16(words_of_rows4(w + 16), x));
            dot8 = _mm256_add_epi32(dot8, _mm256_madd_epi16(words_of_rows4(w + 32), x));
            dot12 = _mm256_add_epi32(dot12, _mm256_madd_epi16(words_of_rows4(w + 48), x));
        }
        const __m256 scale = _mm256_set1_ps(*scales);
        sum0 = _mm256_add_ps(sum0, _mm256_mul_ps(scale, sums_of_pairs(dot0, dot4)));
        sum8 = _mm256_add_ps(sum8, _mm256_mul_ps(scale, sums_of_pairs(dot8, dot12)));
    }
    _mm256_storeu_ps(sums, sum0);
    _mm256_storeu_ps(sums + 8, sum8);
}

static void add_low_rank_avx2(const struct out_view *out, const struct low_rank *w,
                              const struct act_rows *x, int begin, int end)
{
    qp_add_low_rank_groups(low_rank_sums_avx2, out, w, x, begin, end);
}

void qp_low_rank_kernels_avx2(struct kernels *k)
{
    k->add_low_rank = add_low_rank_avx2;
}

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
