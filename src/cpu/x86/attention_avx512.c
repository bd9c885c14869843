/* attention_avx512.c: the softmax of many rows of scores, and its quantization, on 512-bit
 * registers.
 * In, out, order of rounding: softmax in scalar/attention_scalar.c, then quantize in
 * scalar/linear_scalar.c, to the bit.
 *
 * Only blocks that are visible to a row are computed. Each row takes three steps: its maximum, its
 * exponentials, its integers. The first and the second end with a chain of dependent instructions,
 * so the steps of three rows are interleaved: while one chain runs, the next row has work. */
#include "cpu/x86/x86.h"

#if defined(__x86_64__) && !defined(__ANDROID__) // x86.c says why

#include <assert.h>
#include <float.h>
#include <immintrin.h>
#include <math.h>

#if defined(__clang__)
#pragma clang attribute push(                                                                      \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
#endif

#include "base/math_constants.h"
#include "cpu/x86/linear_avx512.h"

enum {
    BLOCK_VECTORS = KV_BLOCK / 16,
    FACTOR_BLOCKS = 4, // whose maxima are reduced together
    ROWS_IN_FLIGHT = 3
};

/* A row between its steps. Blocks [first, last) are visible, in part at least. */
struct row_in_flight {
    float *s;
    int begin, end, first, last;
    float max;
    float factors[KV_SPAN / KV_BLOCK + FACTOR_BLOCKS]; // of the blocks from `first` on
};

/* ---- the largest score ---- */

/* The positions of a block that are visible: begin <= j < end. */
static inline __mmask64 visible_positions(int begin, int end)
{
    return bytes_below(end) & ~bytes_below(begin);
}

static inline void raise_to_visible(__m512 max[BLOCK_VECTORS], const float *s, __mmask64 is_visible)
{
    UNROLL
    for (int i = 0; i < BLOCK_VECTORS; i++)
        max[i] = _mm512_mask_max_ps(max[i], (__mmask16)(is_visible >> 16 * i),
                                    _mm512_loadu_ps(s + 16 * i), max[i]);
}

/* -inf if begin >= end. A NaN is never the largest. */
static inline float largest_score(const float *s, int begin, int end)
{
    const __m512 lowest = _mm512_set1_ps(-INFINITY);
    __m512 max[BLOCK_VECTORS] = { lowest, lowest, lowest, lowest };
    int j = begin / KV_BLOCK * KV_BLOCK;
    if (j < begin) {
        raise_to_visible(max, s + j, visible_positions(begin - j, end - j));
        j += KV_BLOCK;
    }
    for (; j + KV_BLOCK <= end; j += KV_BLOCK) {
        UNROLL
        for (int i = 0; i < BLOCK_VECTORS; i++)
            max[i] = _mm512_max_ps(_mm512_loadu_ps(s + j + 16 * i), max[i]);
    }
    if (j < end)
        raise_to_visible(max, s + j, visible_positions(0, end - j));
    max[0] = _mm512_max_ps(_mm512_max_ps(max[0], max[1]), _mm512_max_ps(max[2], max[3]));
    return _mm512_reduce_max_ps(max[0]);
}

static inline void find_row_max(struct row_in_flight *row, const struct softmax_rows *rows, int r)
{
    row->s = rows->s + (size_t)r * rows->stride;
    row->begin = rows->begin[r] > rows->pos ? rows->begin[r] - rows->pos : 0;
    row->end = qp_min(rows->end[r] - rows->pos, rows->n);
    if (row->begin >= row->end)
        row->begin = row->end = 0;
    row->first = row->begin / KV_BLOCK;
    row->last = (row->end + KV_BLOCK - 1) / KV_BLOCK;
    row->max = rows->max[r] = largest_score(row->s, row->begin, row->end);
}

/* ---- exponentials ---- */

/* qp_exp_fast: x * log2(e) is f plus its nearest integer, and 2^f a polynomial. */
static inline __m512 exp_fast_avx512(__m512 x)
{
    const __m512 least = _mm512_set1_ps(EXP2_MIN);
    const __m512 y = _mm512_max_ps(_mm512_mul_ps(x, _mm512_set1_ps(EXP_LOG2E)), least);
    const __m512 f = _mm512_reduce_ps(y, 0);
    __m512 p = _mm512_set1_ps(exp2_coefficients[0]);
    UNROLL
    for (int i = 1; i < EXP2_DEGREE; i++)
        p = mul_add_avx512(p, f, _mm512_set1_ps(exp2_coefficients[i]));
    p = mul_add_avx512(p, f, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, _mm512_sub_ps(y, f));
}

/* The scores s of a block become p * value_scales, and p is added to the sums; returns the largest
 * of each 16th position. `ahead` is the distance to scores that are read soon. */
static inline __attribute__((always_inline)) __m512 weigh_block(float *s, const float *value_scales,
                                                                __m512 max, __m512 *sums,
                                                                size_t ahead, __mmask64 is_visible)
{
    __m512 largest = _mm512_setzero_ps();
    UNROLL
    for (int i = 0; i < BLOCK_VECTORS; i++) {
        const __mmask16 lanes = (__mmask16)(is_visible >> 16 * i);
        _mm_prefetch((const char *)(s + ahead + 16 * i), _MM_HINT_T0);
        __m512 p = exp_fast_avx512(_mm512_sub_ps(_mm512_loadu_ps(s + 16 * i), max));
        const __m512 scales = _mm512_loadu_ps(value_scales + 16 * i);
        const __m512 weights = _mm512_maskz_mul_ps(lanes, p, scales);
        *sums = _mm512_add_ps(*sums, _mm512_maskz_mov_ps(lanes, p));
        _mm512_storeu_ps(s + 16 * i, weights);
        largest = _mm512_max_ps(weights, largest);
    }
    return largest;
}

/* The largest lane of each of four vectors. */
static inline __m128 largest_of_4(const __m512 v[4])
{
    __m512 a = _mm512_max_ps(_mm512_unpacklo_ps(v[0], v[2]), _mm512_unpackhi_ps(v[0], v[2]));
    __m512 b = _mm512_max_ps(_mm512_unpacklo_ps(v[1], v[3]), _mm512_unpackhi_ps(v[1], v[3]));
    a = _mm512_max_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)); // a result in each lane
    const __m256 c = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    return _mm_max_ps(_mm256_castps256_ps128(c), _mm256_extractf128_ps(c, 1));
}

/* lanes_sum (lanes.h) */
static inline float sum_lanes_avx512(__m512 v)
{
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}

/* The first n of four lanes. */
static inline __mmask8 quarter_below(int n)
{
    return (__mmask8)((1u << qp_min(n, 4)) - 1);
}

static inline void weigh_row(struct row_in_flight *row, const struct softmax_rows *rows, int r)
{
    const __m512 max = _mm512_set1_ps(row->max);
    const __m128 limit = _mm_set1_ps(127.0f);
    const size_t ahead = (ROWS_IN_FLIGHT - 1) * rows->stride;
    __m512 sums = _mm512_setzero_ps();
    float *scales = rows->scales + r * (rows->n / KV_BLOCK);
    for (int b = row->first; b < row->last; b += FACTOR_BLOCKS) {
        __m512 largest[FACTOR_BLOCKS];
        UNROLL
        for (int i = 0; i < FACTOR_BLOCKS; i++) {
            const int j = (b + i) * KV_BLOCK, begin = row->begin - j, end = row->end - j;
            float *s = row->s + j;
            const float *value_scales = rows->value_scales + j;
            if (begin <= 0 && end >= KV_BLOCK)
                largest[i] = weigh_block(s, value_scales, max, &sums, ahead, ~(__mmask64)0);
            else if (end > 0)
                largest[i] =
                    weigh_block(s, value_scales, max, &sums, ahead, visible_positions(begin, end));
            else
                largest[i] = _mm512_setzero_ps();
        }
        const __m128 m = largest_of_4(largest);
        const __m128 factors = _mm_min_ps(_mm_div_ps(limit, m), _mm_set1_ps(FLT_MAX));
        _mm_storeu_ps(row->factors + (b - row->first), factors);
        _mm_mask_storeu_ps(scales + b, quarter_below(row->last - b), _mm_div_ps(m, limit));
    }
    rows->sum[r] = sum_lanes_avx512(sums);
}

/* ---- integers ---- */

/* The sum of the lanes of each of four vectors. */
static inline __m128i sum_of_4(const __m512i v[4])
{
    __m512i a =
        _mm512_add_epi32(_mm512_unpacklo_epi32(v[0], v[2]), _mm512_unpackhi_epi32(v[0], v[2]));
    __m512i b =
        _mm512_add_epi32(_mm512_unpacklo_epi32(v[1], v[3]), _mm512_unpackhi_epi32(v[1], v[3]));
    a = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    const __m256i c = _mm256_add_epi32(_mm512_castsi512_si256(a), _mm512_extracti32x8_epi32(a, 1));
    return _mm_add_epi32(_mm256_castsi256_si128(c), _mm256_extracti128_si256(c, 1));
}

/* Zero the blocks [begin, end), which are not visible. */
static inline void clear_blocks(int8_t *q, float *scales, int32_t *offsets, int begin, int end)
{
    for (int b = begin; b < end; b++) {
        _mm512_storeu_si512(q + b * KV_BLOCK, _mm512_setzero_si512());
        scales[b] = 0.0f;
        offsets[b] = 0;
    }
}

static inline void round_row(const struct row_in_flight *row, const struct softmax_rows *rows,
                             int r)
{
    const int n_blocks = rows->n / KV_BLOCK;
    int8_t *q = rows->q + (size_t)r * rows->q_stride;
    float *scales = rows->scales + r * n_blocks;
    int32_t *offsets = rows->offsets + r * n_blocks;
    clear_blocks(q, scales, offsets, 0, row->first);
    clear_blocks(q, scales, offsets, row->last, n_blocks);
    for (int b = row->first; b < row->last; b += FACTOR_BLOCKS) {
        __m512i sums[FACTOR_BLOCKS];
        UNROLL
        for (int i = 0; i < FACTOR_BLOCKS; i++) {
            sums[i] = _mm512_setzero_si512();
            if (b + i < row->last) {
                const __m512 factor = _mm512_set1_ps(row->factors[b + i - row->first]);
                const __m512i v = round_block_avx512(row->s + (b + i) * KV_BLOCK, factor);
                _mm512_storeu_si512(q + (b + i) * KV_BLOCK, v);
                sums[i] = _mm512_dpbusd_epi32(sums[i], _mm512_set1_epi8(1), v);
            }
        }
        const __m128i negative = _mm_sub_epi32(_mm_setzero_si128(), sum_of_4(sums));
        _mm_mask_storeu_epi32(offsets + b, quarter_below(row->last - b),
                              _mm_slli_epi32(negative, 7));
    }
}

/* ---- all rows ---- */

static void softmax_span_avx512(const struct softmax_rows *rows)
{
    struct row_in_flight row[ROWS_IN_FLIGHT];
    assert(rows->n > 0 && rows->n % KV_BLOCK == 0 && rows->n <= KV_SPAN && rows->n_rows > 0);
    find_row_max(&row[0], rows, 0);
    for (int r = 0; r < rows->n_rows; r++) {
        if (r + 1 < rows->n_rows)
            find_row_max(&row[(r + 1) % ROWS_IN_FLIGHT], rows, r + 1);
        weigh_row(&row[r % ROWS_IN_FLIGHT], rows, r);
        if (r > 0)
            round_row(&row[(r - 1) % ROWS_IN_FLIGHT], rows, r - 1);
    }
    round_row(&row[(rows->n_rows - 1) % ROWS_IN_FLIGHT], rows, rows->n_rows - 1);
}

void qp_attention_kernels_avx512(struct kernels *k)
{
    k->softmax_rows = softmax_span_avx512;
}

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
