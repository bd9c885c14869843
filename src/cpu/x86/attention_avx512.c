/* attention_avx512.c: the steps of attention on 512-bit registers.
 * In, out, order of rounding: attention_scalar.c, to the bit.
 * A product and its sum are two instructions. That costs nothing where multipliers and adders are
 * different units (Zen): 4 rows of 64 columns keep 16 sums in registers, each step of k reads 4
 * vectors and 4 numbers for 16 products and 16 sums. */
#include "cpu/attention_blocks.h"
#include "cpu/x86/x86.h"

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

#include "cpu/x86/math_avx512.h"

/* attention_steps.product; n_rows is a constant. */
static inline __attribute__((always_inline)) void
product_rows_avx512(const struct square_product *t, int n_rows)
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
    const float *a = t->a, *row = t->b;
    for (int k = 0; k < t->n_k; k++, row += t->b_stride) {
        __m512 b[4];
        UNROLL_AVX512
        for (int j = 0; j < 4; j++)
            b[j] = _mm512_loadu_ps(row + 16 * j);
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
#define PRODUCT_AVX512(name, n_rows)                                                               \
    static __attribute__((noinline)) void name(const struct square_product *t)                     \
    {                                                                                              \
        product_rows_avx512(t, n_rows);                                                            \
    }
PRODUCT_AVX512(product_1_avx512, 1)
PRODUCT_AVX512(product_2_avx512, 2)
PRODUCT_AVX512(product_3_avx512, 3)
PRODUCT_AVX512(product_4_avx512, 4)

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

static void softmax_rows_avx512(const struct attention *a, struct attention_state *state, int pos)
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
        .product = { product_1_avx512, product_2_avx512, product_3_avx512, product_4_avx512 },
        .softmax = softmax_rows_avx512,
    };
    qp_attend_blocks(a, &steps);
}

/* ---- scores of int8 keys ---- */

/* Scores of a block, capped and with their bias; returns the largest one seen, or m. */
static inline __m512 finish_scores_avx512(const struct softmax *row, int j, uint64_t seen, __m512 m)
{
    float *s = row->s + j;
    for (int i = 0; i < KV_BLOCK; i += 16, seen >>= 16) {
        __m512 v = _mm512_loadu_ps(s + i);
        if (row->cap > 0.0f) {
            __m512 cap = _mm512_set1_ps(row->cap);
            v = _mm512_mul_ps(cap, tanh_avx512(_mm512_div_ps(v, cap)));
        }
        if (row->bias)
            v = _mm512_add_ps(v, _mm512_loadu_ps(row->bias + j + i));
        if (row->cap > 0.0f || row->bias)
            _mm512_storeu_ps(s + i, v);
        m = _mm512_mask_max_ps(m, (__mmask16)seen, v, m); // the second operand for a NaN
    }
    return m;
}

static void softmax_avx512(struct softmax *row)
{
    __m512 m = _mm512_set1_ps(-INFINITY), lanes = _mm512_setzero_ps();
    for (int j = 0; j < row->n; j += KV_BLOCK)
        m = finish_scores_avx512(row, j, bits_below(row->end - j) & ~bits_below(row->begin - j), m);
    row->max = _mm512_reduce_max_ps(m);
    m = _mm512_set1_ps(row->max);
    for (int j = 0; j < row->n; j += KV_BLOCK) {
        uint64_t seen = bits_below(row->end - j) & ~bits_below(row->begin - j);
        for (int i = j; i < j + KV_BLOCK; i += 16, seen >>= 16) {
            const __mmask16 mask = (__mmask16)seen;
            __m512 p = exp_fast_avx512(_mm512_sub_ps(_mm512_loadu_ps(row->s + i), m));
            lanes = _mm512_mask_add_ps(lanes, mask, lanes, p);
            p = _mm512_maskz_mul_ps(mask, p, _mm512_loadu_ps(row->value_scales + i));
            _mm512_storeu_ps(row->s + i, p);
        }
    }
    row->sum = sum_of_lanes_avx512(lanes);
}

void qp_attention_kernels_avx512(struct kernels *k)
{
    k->softmax = softmax_avx512;
    k->attend = attend_avx512;
}

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
