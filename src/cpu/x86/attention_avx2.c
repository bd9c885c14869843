/* attention_avx2.c: the steps of attention on 256-bit registers.
 * In, out, order of rounding: attention_scalar.c, to the bit.
 * 4 rows of 16 columns keep 8 sums in registers; the other 8 hold two vectors of b, a row's number
 * and products. 64 columns are four passes over the same rows. */
#include "cpu/attention_blocks.h"
#include "cpu/x86/x86.h"

#if defined(__x86_64__)

#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#define UNROLL_AVX2 _Pragma("clang loop unroll(full)")
#else
#pragma GCC push_options
#pragma GCC target("avx2")
#define UNROLL_AVX2 _Pragma("GCC unroll 4")
#endif

#include "cpu/x86/math_avx2.h"

/* attention_steps.product for columns [column, column + 16); n_rows is a
 * constant. */
static inline __attribute__((always_inline)) void
product_columns_avx2(const struct square_product *t, int column, int n_rows)
{
    __m256 sum[PRODUCT_ROWS][2];
    UNROLL_AVX2
    for (int r = 0; r < n_rows; r++) {
        const float *acc = t->acc + (size_t)r * t->acc_stride + column;
        __m256 factor = _mm256_set1_ps(t->factors[r]);
        sum[r][0] = _mm256_mul_ps(_mm256_loadu_ps(acc), factor);
        sum[r][1] = _mm256_mul_ps(_mm256_loadu_ps(acc + 8), factor);
    }
    const float *a = t->a, *b = t->b + column;
    for (int k = 0; k < t->n_k; k++, b += t->b_stride) {
        __m256 b0 = _mm256_loadu_ps(b), b1 = _mm256_loadu_ps(b + 8);
        UNROLL_AVX2
        for (int r = 0; r < n_rows; r++) {
            __m256 weight = _mm256_broadcast_ss(a + (size_t)r * t->a_stride + (size_t)k);
            sum[r][0] = mul_add_avx2(weight, b0, sum[r][0]);
            sum[r][1] = mul_add_avx2(weight, b1, sum[r][1]);
        }
    }
    UNROLL_AVX2
    for (int r = 0; r < n_rows; r++) {
        float *acc = t->acc + (size_t)r * t->acc_stride + column;
        _mm256_storeu_ps(acc, sum[r][0]);
        _mm256_storeu_ps(acc + 8, sum[r][1]);
    }
}

#define PRODUCT_AVX2(name, n_rows)                                                                 \
    static __attribute__((noinline)) void name(const struct square_product *t)                     \
    {                                                                                              \
        for (int column = 0; column < KV_BLOCK; column += 16)                                      \
            product_columns_avx2(t, column, n_rows);                                               \
    }
PRODUCT_AVX2(product_1_avx2, 1)
PRODUCT_AVX2(product_2_avx2, 2)
PRODUCT_AVX2(product_3_avx2, 3)
PRODUCT_AVX2(product_4_avx2, 4)

static inline float largest_of_avx2(__m256 v)
{
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}

/* Sums to scores, -inf where the row does not see; returns the largest one, or m. */
static inline float score_row_avx2(const struct attention *a, int row, int pos, float *s, float m)
{
    const __m256 nothing = _mm256_set1_ps(-INFINITY);
    __m256 largest = _mm256_set1_ps(m);
    for (int j = 0; j < KV_BLOCK; j += 8) {
        __m256 v = _mm256_mul_ps(_mm256_loadu_ps(s + j), _mm256_set1_ps(a->scale));
        if (a->cap > 0.0f) {
            __m256 cap = _mm256_set1_ps(a->cap);
            v = _mm256_mul_ps(cap, tanh_avx2(_mm256_div_ps(v, cap)));
        }
        if (a->bias)
            v = _mm256_add_ps(v, _mm256_loadu_ps(a->bias[row] + pos + j));
        __m256i visible = _mm256_andnot_si256(mask_avx2(a->begin[row] - pos - j),
                                              mask_avx2(a->end[row] - pos - j));
        v = _mm256_blendv_ps(nothing, v, _mm256_castsi256_ps(visible));
        _mm256_storeu_ps(s + j, v);
        largest = _mm256_max_ps(v, largest); // the second operand for a NaN
    }
    return largest_of_avx2(largest);
}

/* Scores to probabilities; returns their sum. */
static inline float exp_row_avx2(float *s, float m)
{
    __m256 lanes[2] = { _mm256_setzero_ps(), _mm256_setzero_ps() };
    for (int j = 0; j < KV_BLOCK; j += 16)
        for (int h = 0; h < 2; h++) {
            float *at = s + j + 8 * h;
            __m256 p = exp_avx2(_mm256_sub_ps(_mm256_loadu_ps(at), _mm256_set1_ps(m)));
            _mm256_storeu_ps(at, p);
            lanes[h] = _mm256_add_ps(lanes[h], p);
        }
    return sum_of_lanes_avx2(lanes[0], lanes[1]);
}

static void softmax_rows_avx2(const struct attention *a, struct attention_state *state, int pos)
{
    for (int r = 0; r < a->n_rows; r++) {
        float m = score_row_avx2(a, r, pos, state->s + r * KV_BLOCK, state->m[r]);
        state->c[r] = state->m[r] - m;
        state->m[r] = m;
    }
    for (int r = 0; r < a->n_rows; r += 8)
        _mm256_storeu_ps(state->c + r, exp_avx2(_mm256_loadu_ps(state->c + r)));
    for (int r = 0; r < a->n_rows; r++) {
        float sum = exp_row_avx2(state->s + r * KV_BLOCK, state->m[r]);
        state->l[r] = state->l[r] * state->c[r] + sum;
    }
}

static void attend_avx2(const struct attention *a)
{
    static const struct attention_steps steps = {
        .product = { product_1_avx2, product_2_avx2, product_3_avx2, product_4_avx2 },
        .softmax = softmax_rows_avx2,
    };
    qp_attend_blocks(a, &steps);
}

/* ---- scores of int8 keys ---- */

/* All ones in those of columns [j, j + 8) that are seen. */
static inline __m256 seen_avx2(const struct softmax *row, int j)
{
    return _mm256_castsi256_ps(
        _mm256_andnot_si256(mask_avx2(row->begin - j), mask_avx2(row->end - j)));
}

static void softmax_avx2(struct softmax *row)
{
    const __m256 nothing = _mm256_set1_ps(-INFINITY);
    __m256 m = nothing, lanes[2] = { _mm256_setzero_ps(), _mm256_setzero_ps() };
    for (int j = 0; j < row->n; j += 8) {
        __m256 v = _mm256_loadu_ps(row->s + j);
        if (row->cap > 0.0f) {
            __m256 cap = _mm256_set1_ps(row->cap);
            v = _mm256_mul_ps(cap, tanh_avx2(_mm256_div_ps(v, cap)));
        }
        if (row->bias)
            v = _mm256_add_ps(v, _mm256_loadu_ps(row->bias + j));
        _mm256_storeu_ps(row->s + j, v);
        m = _mm256_max_ps(_mm256_blendv_ps(nothing, v, seen_avx2(row, j)), m); // m for a NaN
    }
    row->max = largest_of_avx2(m);
    m = _mm256_set1_ps(row->max);
    for (int j = 0; j < row->n; j += 8) {
        const __m256 seen = seen_avx2(row, j);
        __m256 p = exp_fast_avx2(_mm256_sub_ps(_mm256_loadu_ps(row->s + j), m));
        lanes[j / 8 % 2] = _mm256_add_ps(lanes[j / 8 % 2], _mm256_and_ps(p, seen));
        p = _mm256_mul_ps(p, _mm256_loadu_ps(row->value_scales + j));
        _mm256_storeu_ps(row->s + j, _mm256_and_ps(p, seen));
    }
    row->sum = sum_of_lanes_avx2(lanes[0], lanes[1]);
}

void qp_attention_kernels_avx2(struct kernels *k)
{
    k->softmax = softmax_avx2;
    k->attend = attend_avx2;
}

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
