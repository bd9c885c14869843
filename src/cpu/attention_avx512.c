/* attention_avx512.c: the three steps of attention_blocks.c on 512-bit registers.
 * In, out, order of rounding: attention_scalar.c, to the bit.
 * A product and its sum are two instructions. That costs nothing where multipliers and adders are
 * different units (Zen): 4 rows of 64 columns keep 16 sums in registers, each step of k reads 4
 * vectors and 4 numbers for 16 products and 16 sums. */
#include "cpu/attention_blocks.h"

#if defined(__x86_64__)

#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))),        \
                             apply_to = function)
#define UNROLL_AVX512 _Pragma("clang loop unroll(full)")
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl")
#define UNROLL_AVX512 _Pragma("GCC unroll 4")
#endif

#include "cpu/math_avx512.h"

static void widen_avx512(float *to, const uint16_t *from, size_t from_stride, int n_rows,
                         int n_cols)
{
    for (int i = 0; i < n_rows; i++, from += from_stride, to += KV_BLOCK)
        for (int j = 0; j < KV_BLOCK; j += 16) {
            __m256i half = _mm256_maskz_loadu_epi16(lanes_below(n_cols - j), from + j);
            _mm512_storeu_ps(to + j, _mm512_cvtph_ps(half));
        }
}

/* Floats [16 j, 16 j + 16) of a row. */
static inline __m512 load_16_avx512(const void *row, int j, bool is_f16)
{
    return is_f16 ? _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)row + j))
                  : _mm512_loadu_ps((const float *)row + 16 * j);
}

/* attention_steps.product; is_f16 and n_rows are constants. */
static inline __attribute__((always_inline)) void
product_rows_avx512(const struct square_product *t, bool is_f16, int n_rows)
{
    __m512 sum[PRODUCT_ROWS][4];
    UNROLL_AVX512
    for (int r = 0; r < n_rows; r++) {
        const float *acc = t->acc + (size_t)r * t->acc_stride;
        __m512 factor = _mm512_set1_ps(t->factors[r]);
        UNROLL_AVX512
        for (int j = 0; j < 4; j++)
            sum[r][j] = _mm512_mul_ps(_mm512_loadu_ps(acc + 16 * j), factor);
    }
    const float *a = t->a;
    const char *row = t->b.data;
    const size_t row_bytes = t->b.stride * (is_f16 ? sizeof(uint16_t) : sizeof(float));
    for (int k = 0; k < t->n_k; k++, row += row_bytes) {
        __m512 b[4];
        UNROLL_AVX512
        for (int j = 0; j < 4; j++)
            b[j] = load_16_avx512(row, j, is_f16);
        UNROLL_AVX512
        for (int r = 0; r < n_rows; r++) {
            __m512 weight = _mm512_set1_ps(a[(size_t)r * t->a_stride + (size_t)k]);
            UNROLL_AVX512
            for (int j = 0; j < 4; j++)
                sum[r][j] = mul_add_avx512(weight, b[j], sum[r][j]);
        }
    }
    UNROLL_AVX512
    for (int r = 0; r < n_rows; r++) {
        float *acc = t->acc + (size_t)r * t->acc_stride;
        UNROLL_AVX512
        for (int j = 0; j < 4; j++)
            _mm512_storeu_ps(acc + 16 * j, sum[r][j]);
    }
}

/* Functions of their own, so that each has all registers. */
#define PRODUCT_AVX512(name, is_f16, n_rows)                                                       \
    static __attribute__((noinline)) void name(const struct square_product *t)                     \
    {                                                                                              \
        product_rows_avx512(t, is_f16, n_rows);                                                    \
    }
PRODUCT_AVX512(product_f32_1_avx512, false, 1)
PRODUCT_AVX512(product_f32_2_avx512, false, 2)
PRODUCT_AVX512(product_f32_3_avx512, false, 3)
PRODUCT_AVX512(product_f32_4_avx512, false, 4)
PRODUCT_AVX512(product_f16_1_avx512, true, 1)
PRODUCT_AVX512(product_f16_2_avx512, true, 2)
PRODUCT_AVX512(product_f16_3_avx512, true, 3)
PRODUCT_AVX512(product_f16_4_avx512, true, 4)

/* The first n of 64 bits: all when n is more, none when it is less. */
static inline uint64_t bits_below(int n)
{
    return n >= KV_BLOCK ? UINT64_MAX : n <= 0 ? 0 : (UINT64_C(1) << n) - 1;
}

/* Sums to scores, -inf where the row does not see; returns the largest one, or m. */
static inline float score_row_avx512(const struct attention *a, int row, int pos, float *s, float m)
{
    const uint64_t visible = bits_below(a->end[row] - pos) & ~bits_below(a->begin[row] - pos);
    const __m512 nothing = _mm512_set1_ps(-INFINITY);
    __m512 largest = _mm512_set1_ps(m);
    for (int j = 0; j < KV_BLOCK; j += 16) {
        __m512 v = _mm512_mul_ps(_mm512_loadu_ps(s + j), _mm512_set1_ps(a->scale));
        if (a->cap > 0.0f) {
            __m512 cap = _mm512_set1_ps(a->cap);
            v = _mm512_mul_ps(cap, tanh_avx512(_mm512_div_ps(v, cap)));
        }
        if (a->bias)
            v = _mm512_add_ps(v, _mm512_loadu_ps(a->bias[row] + pos + j));
        v = _mm512_mask_mov_ps(nothing, (__mmask16)(visible >> j), v);
        _mm512_storeu_ps(s + j, v);
        largest = _mm512_max_ps(v, largest); // the second operand for a NaN
    }
    return _mm512_reduce_max_ps(largest);
}

/* Scores to probabilities; returns their sum. */
static inline float exp_row_avx512(float *s, float m)
{
    __m512 lanes = _mm512_setzero_ps();
    for (int j = 0; j < KV_BLOCK; j += 16) {
        __m512 p = exp_avx512(_mm512_sub_ps(_mm512_loadu_ps(s + j), _mm512_set1_ps(m)));
        _mm512_storeu_ps(s + j, p);
        lanes = _mm512_add_ps(lanes, p);
    }
    return sum_of_lanes_avx512(lanes);
}

static void softmax_avx512(const struct attention *a, struct attention_state *state, int pos)
{
    for (int r = 0; r < a->n_rows; r++) {
        float m = score_row_avx512(a, r, pos, state->s + r * KV_BLOCK, state->m[r]);
        state->c[r] = state->m[r] - m;
        state->m[r] = m;
    }
    for (int r = 0; r < a->n_rows; r += 16)
        _mm512_storeu_ps(state->c + r, exp_avx512(_mm512_loadu_ps(state->c + r)));
    for (int r = 0; r < a->n_rows; r++) {
        float sum = exp_row_avx512(state->s + r * KV_BLOCK, state->m[r]);
        state->l[r] = state->l[r] * state->c[r] + sum;
    }
}

static void attend_avx512(const struct attention *a)
{
    static const struct attention_steps steps = {
        .widen = widen_avx512,
        .product = { { product_f32_1_avx512, product_f32_2_avx512, product_f32_3_avx512,
                       product_f32_4_avx512 },
                     { product_f16_1_avx512, product_f16_2_avx512, product_f16_3_avx512,
                       product_f16_4_avx512 } },
        .softmax = softmax_avx512,
    };
    qp_attend_blocks(a, &steps);
}

void qp_attention_kernels_avx512(struct kernels *k)
{
    k->attend = attend_avx512;
}

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#else

void qp_attention_kernels_avx512(struct kernels *k)
{
    (void)k;
}

#endif
