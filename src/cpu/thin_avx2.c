/* thin_avx2.c: matrices of few columns, AVX2 (kernels.h): sixteen rows in two vectors, two columns
 * in one multiplication. */
#if defined(__x86_64__) || defined(_M_X64)

#include "cpu/kernels.h"

#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2")
#endif

/* Two columns of x as the halves of 32 bits. */
static void pair_columns(int32_t *pairs, const int8_t *q, int n_in)
{
    for (int k = 0; k < n_in; k += 2)
        pairs[k / 2] = (int32_t)((uint16_t)q[k] | (uint32_t)(uint16_t)q[k + 1] << 16);
}

/* Rows [begin, end) of the sixteen from row r on: y[r + i - begin] += sum[i] * scales[r + i]. */
static inline void add_sums16(float *y, const float *scales, __m256 sum0, __m256 sum8, int r,
                              int begin, int end)
{
    const __m256 add0 = _mm256_mul_ps(sum0, _mm256_loadu_ps(scales + r));
    const __m256 add8 = _mm256_mul_ps(sum8, _mm256_loadu_ps(scales + r + 8));
    if (r >= begin && r + 16 <= end) {
        y += r - begin;
        _mm256_storeu_ps(y, _mm256_add_ps(_mm256_loadu_ps(y), add0));
        _mm256_storeu_ps(y + 8, _mm256_add_ps(_mm256_loadu_ps(y + 8), add8));
        return;
    }
    float add[16];
    _mm256_storeu_ps(add, add0);
    _mm256_storeu_ps(add + 8, add8);
    for (int i = 0; i < 16; i++)
        if (r + i >= begin && r + i < end)
            y[r + i - begin] += add[i];
}

static void add_thin_avx2(float *y, const struct thin *w, const struct act_row *x, int begin,
                          int end)
{
    int32_t pairs[THIN_COLUMNS / 2];
    const int n_pairs = (w->n_in + 1) / 2;
    pair_columns(pairs, x->q, w->n_in);
    for (int r = begin / 16 * 16; r < end; r += 16) {
        const int8_t *p = w->data + (size_t)r * (size_t)n_pairs * 2;
        __m256 sum0 = _mm256_setzero_ps(), sum8 = sum0;
        for (int k = 0, b = 0; k < n_pairs; b++) {
            const int stop = n_pairs - k < ACT_BLOCK / 2 ? n_pairs : k + ACT_BLOCK / 2;
            __m256i dot0 = _mm256_setzero_si256(), dot8 = dot0;
            for (; k < stop; k++, p += 32) {
                const __m256i u = _mm256_set1_epi32(pairs[k]);
                const __m128i *rows = (const __m128i *)(const void *)p;
                const __m256i w0 = _mm256_cvtepi8_epi16(_mm_loadu_si128(rows));
                const __m256i w8 = _mm256_cvtepi8_epi16(_mm_loadu_si128(rows + 1));
                dot0 = _mm256_add_epi32(dot0, _mm256_madd_epi16(w0, u));
                dot8 = _mm256_add_epi32(dot8, _mm256_madd_epi16(w8, u));
            }
            const __m256 scale = _mm256_set1_ps(x->scales[b]);
            sum0 = _mm256_add_ps(sum0, _mm256_mul_ps(scale, _mm256_cvtepi32_ps(dot0)));
            sum8 = _mm256_add_ps(sum8, _mm256_mul_ps(scale, _mm256_cvtepi32_ps(dot8)));
        }
        add_sums16(y, w->scales, sum0, sum8, r, begin, end);
    }
}

void qp_thin_kernels_avx2(struct kernels *k)
{
    k->add_thin = add_thin_avx2;
}

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#else

#include "cpu/kernels.h"

void qp_thin_kernels_avx2(struct kernels *k)
{
    (void)k;
}

#endif
