/* thin_avx512.c: matrices of few columns, 512-bit VNNI (kernels.h): a vector is two columns of
 * sixteen rows, as words, and one vpdpwssd multiplies them. */
#if defined(__x86_64__)

#include "cpu/kernels.h"

#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(                                                                      \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
#endif

/* Rows [r, r + 16): sum over the blocks. Two chains, so that one multiplication need not wait for
 * the one before. */
static inline __m512 thin_sums16(const int8_t *p, const int32_t *pairs, const float *scales,
                                 int n_pairs)
{
    __m512 sum = _mm512_setzero_ps();
    for (int k = 0, b = 0; k < n_pairs; b++) {
        const int stop = n_pairs - k < ACT_BLOCK / 2 ? n_pairs : k + ACT_BLOCK / 2;
        __m512i even = _mm512_setzero_si512(), odd = even;
        for (; k < stop; k += 2) {
            const __m256i *rows = (const __m256i *)(const void *)(p + 32 * (size_t)k);
            even = _mm512_dpwssd_epi32(even, _mm512_cvtepi8_epi16(_mm256_loadu_si256(rows)),
                                       _mm512_set1_epi32(pairs[k]));
            if (k + 1 < stop)
                odd = _mm512_dpwssd_epi32(odd, _mm512_cvtepi8_epi16(_mm256_loadu_si256(rows + 1)),
                                          _mm512_set1_epi32(pairs[k + 1]));
        }
        k = stop;
        const __m512 dot = _mm512_cvtepi32_ps(_mm512_add_epi32(even, odd));
        sum = _mm512_add_ps(sum, _mm512_mul_ps(_mm512_set1_ps(scales[b]), dot));
    }
    return sum;
}

static void add_thin_avx512(float *y, const struct thin *w, const struct act_row *x, int begin,
                            int end)
{
    const int n_pairs = (w->n_in + 1) / 2;
    int32_t pairs[THIN_COLUMNS / 2]; // two columns of x as the halves of 32 bits
    for (int k = 0; k < n_pairs; k++)
        pairs[k] = (int32_t)((uint16_t)x->q[2 * k] | (uint32_t)(uint16_t)x->q[2 * k + 1] << 16);
    for (int r = begin / 16 * 16; r < end; r += 16) {
        const int8_t *p = w->data + (size_t)r * (size_t)n_pairs * 2;
        const __m512 sums = thin_sums16(p, pairs, x->scales, n_pairs);
        const __m512 add = _mm512_mul_ps(sums, _mm512_loadu_ps(w->scales + r));
        const int first = r < begin ? begin - r : 0, last = end - r < 16 ? end - r : 16;
        const __mmask16 wanted = (__mmask16)(0xffffu << first);
        const __mmask16 mask = (__mmask16)(0xffffu >> (16 - (last - first)));
        float *at = y + (r + first - begin);
        const __m512 sum =
            _mm512_add_ps(_mm512_maskz_loadu_ps(mask, at), _mm512_maskz_compress_ps(wanted, add));
        _mm512_mask_storeu_ps(at, mask, sum);
    }
}

void qp_thin_kernels_avx512(struct kernels *k)
{
    k->add_thin = add_thin_avx512;
}

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#else

#include "cpu/kernels.h"

void qp_thin_kernels_avx512(struct kernels *k)
{
    (void)k;
}

#endif
