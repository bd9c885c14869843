/* attention_avx2.c: the three steps of attention_blocks.c on 256-bit registers.
 * In, out, order of rounding: attention_scalar.c, to the bit.
 * 4 rows of 16 columns keep 8 sums in registers; the other 8 hold two vectors of b, a row's number
 * and products. 64 columns are four passes over the same rows. */
#include "cpu/attention_blocks.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,f16c"))), apply_to = function)
#define UNROLL_AVX2 _Pragma("clang loop unroll(full)")
#else
#pragma GCC push_options
#pragma GCC target("avx2,f16c")
#define UNROLL_AVX2 _Pragma("GCC unroll 4")
#endif

#include "cpu/math_avx2.h"

/* Floats [8 j, 8 j + 8) of a row. */
static inline __m256 load_8_avx2(const void *row, int j, bool is_f16)
{
    return is_f16 ? _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)row + j))
                  : _mm256_loadu_ps((const float *)row + 8 * j);
}

static void widen_avx2(float *to, const uint16_t *from, size_t from_stride, int n_rows, int n_cols)
{
    for (int i = 0; i < n_rows; i++, from += from_stride, to += KV_BLOCK)
        for (int j = 0; j < KV_BLOCK; j += 8) {
            const int n = n_cols - j < 8 ? n_cols - j : 8;
            uint16_t last[8] = { 0 };
            if (n > 0 && n < 8)
                memcpy(last, from + j, (size_t)n * sizeof *from);
            _mm256_storeu_ps(to + j, load_8_avx2(n == 8 ? from + j : last, 0, true));
        }
}

/* attention_steps.product for columns [column, column + 16); is_f16 and n_rows are constants. */
static inline __attribute__((always_inline)) void
product_columns_avx2(const struct square_product *t, int column, bool is_f16, int n_rows)
{
    __m256 sum[PRODUCT_ROWS][2];
    UNROLL_AVX2
    for (int r = 0; r < n_rows; r++) {
        const float *acc = t->acc + (size_t)r * t->acc_stride + column;
        __m256 factor = _mm256_set1_ps(t->factors[r]);
        sum[r][0] = _mm256_mul_ps(_mm256_loadu_ps(acc), factor);
        sum[r][1] = _mm256_mul_ps(_mm256_loadu_ps(acc + 8), factor);
    }
    const float *a = t->a;
    const size_t element_bytes = is_f16 ? sizeof(uint16_t) : sizeof(float);
    const char *b = (const char *)t->b.data + (size_t)column * element_bytes;
    for (int k = 0; k < t->n_k; k++, b += t->b.stride * element_bytes) {
        __m256 b0 = load_8_avx2(b, 0, is_f16), b1 = load_8_avx2(b, 1, is_f16);
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

#define PRODUCT_AVX2(name, is_f16, n_rows)                                                         \
    static __attribute__((noinline)) void name(const struct square_product *t)                     \
    {                                                                                              \
        for (int column = 0; column < KV_BLOCK; column += 16)                                      \
            product_columns_avx2(t, column, is_f16, n_rows);                                       \
    }
PRODUCT_AVX2(product_f32_1_avx2, false, 1)
PRODUCT_AVX2(product_f32_2_avx2, false, 2)
PRODUCT_AVX2(product_f32_3_avx2, false, 3)
PRODUCT_AVX2(product_f32_4_avx2, false, 4)
PRODUCT_AVX2(product_f16_1_avx2, true, 1)
PRODUCT_AVX2(product_f16_2_avx2, true, 2)
PRODUCT_AVX2(product_f16_3_avx2, true, 3)
PRODUCT_AVX2(product_f16_4_avx2, true, 4)

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
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(largest), _mm256_extractf128_ps(largest, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
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

static void softmax_avx2(const struct attention *a, struct attention_state *state, int pos)
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
        .widen = widen_avx2,
        .product = { { product_f32_1_avx2, product_f32_2_avx2, product_f32_3_avx2,
                       product_f32_4_avx2 },
                     { product_f16_1_avx2, product_f16_2_avx2, product_f16_3_avx2,
                       product_f16_4_avx2 } },
        .softmax = softmax_avx2,
    };
    qp_attend_blocks(a, &steps);
}

void qp_attention_kernels_avx2(struct kernels *k)
{
    k->attend = attend_avx2;
}

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#else

void qp_attention_kernels_avx2(struct kernels *k)
{
    (void)k;
}

#endif
