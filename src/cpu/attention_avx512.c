/* attention_avx512.c: the three steps of attention_blocks.c on 512-bit registers.
 * In, out, order of rounding: attention_scalar.c, to the bit.
 * A product and its sum are two instructions. That costs nothing where multipliers and adders are
 * different units (Zen): 4 rows of 64 columns keep 16 sums in registers, each step of k reads 4
 * vectors and 4 numbers for 16 products and 16 sums. */
#include "cpu/attention_blocks.h"

#if defined(__x86_64__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))),        \
                             apply_to = function)
#define UNROLL_4 _Pragma("clang loop unroll(full)")
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl")
#define UNROLL_4 _Pragma("GCC unroll 4")
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

struct product_avx512 {
    float *acc;
    size_t acc_stride;
    const float *factors;
    const float *a;
    size_t a_stride;
    const void *b;
    size_t b_stride;
    int n_k;
};

/* attention_steps.product for n_rows <= 4 rows, a constant, as is is_f16. */
static inline __attribute__((always_inline)) void
product_rows_avx512(const struct product_avx512 *t, bool is_f16, int n_rows)
{
    __m512 sum[4][4];
    UNROLL_4
    for (int r = 0; r < n_rows; r++) {
        const float *acc = t->acc + (size_t)r * t->acc_stride;
        __m512 factor = _mm512_set1_ps(t->factors ? t->factors[r] : 1.0f);
        UNROLL_4
        for (int j = 0; j < 4; j++)
            sum[r][j] = _mm512_mul_ps(_mm512_loadu_ps(acc + 16 * j), factor);
    }
    const float *a = t->a;
    const uint16_t *half = t->b;
    const float *full = t->b;
    for (int k = 0; k < t->n_k; k++, half += t->b_stride, full += t->b_stride) {
        __m512 b[4];
        UNROLL_4
        for (int j = 0; j < 4; j++)
            b[j] = is_f16 ? _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(half + 16 * j)))
                          : _mm512_loadu_ps(full + 16 * j);
        UNROLL_4
        for (int r = 0; r < n_rows; r++) {
            __m512 weight = _mm512_set1_ps(a[(size_t)r * t->a_stride + (size_t)k]);
            UNROLL_4
            for (int j = 0; j < 4; j++)
                sum[r][j] = mul_add_avx512(weight, b[j], sum[r][j]);
        }
    }
    UNROLL_4
    for (int r = 0; r < n_rows; r++) {
        float *acc = t->acc + (size_t)r * t->acc_stride;
        UNROLL_4
        for (int j = 0; j < 4; j++)
            _mm512_storeu_ps(acc + 16 * j, sum[r][j]);
    }
}

/* Functions of their own, so that each has all registers. */
#define PRODUCT_ROWS(name, is_f16, n_rows)                                                         \
    static __attribute__((noinline)) void name(const struct product_avx512 *t)                     \
    {                                                                                              \
        product_rows_avx512(t, is_f16, n_rows);                                                    \
    }
PRODUCT_ROWS(product_f32_1_avx512, false, 1)
PRODUCT_ROWS(product_f32_2_avx512, false, 2)
PRODUCT_ROWS(product_f32_3_avx512, false, 3)
PRODUCT_ROWS(product_f32_4_avx512, false, 4)
PRODUCT_ROWS(product_f16_1_avx512, true, 1)
PRODUCT_ROWS(product_f16_2_avx512, true, 2)
PRODUCT_ROWS(product_f16_3_avx512, true, 3)
PRODUCT_ROWS(product_f16_4_avx512, true, 4)

static void product_of_avx512(float *acc, size_t acc_stride, const float *factors, const float *a,
                              size_t a_stride, const void *b, size_t b_stride, bool b_is_f16,
                              int n_k, int n_rows)
{
    static void (*const rows[2][4])(const struct product_avx512 *) = {
        { product_f32_1_avx512, product_f32_2_avx512, product_f32_3_avx512, product_f32_4_avx512 },
        { product_f16_1_avx512, product_f16_2_avx512, product_f16_3_avx512, product_f16_4_avx512 },
    };
    for (int r = 0; r < n_rows; r += 4) {
        struct product_avx512 t = { acc + (size_t)r * acc_stride,
                                    acc_stride,
                                    factors ? factors + r : NULL,
                                    a + (size_t)r * a_stride,
                                    a_stride,
                                    b,
                                    b_stride,
                                    n_k };
        rows[b_is_f16][n_rows - r < 4 ? n_rows - r - 1 : 3](&t);
    }
}

/* The lanes of a block's 16 keys from `pos` on that a row sees. */
static inline __mmask16 visible_avx512(const struct attention *a, int row, int pos)
{
    return lanes_below(a->end[row] - pos) & (__mmask16)~lanes_below(a->begin[row] - pos);
}

/* Sums to scores; returns the largest visible one, or m. */
static inline float score_row_avx512(const struct attention *a, int row, int pos, float *s, float m)
{
    const __m512 nothing = _mm512_set1_ps(-INFINITY);
    __m512 largest = _mm512_set1_ps(m);
    for (int j = 0; j < KV_BLOCK; j += 16) {
        __m512 v = _mm512_mul_ps(_mm512_loadu_ps(s + j), _mm512_set1_ps(a->scale));
        if (a->cap > 0.0f) {
            __m512 cap = _mm512_set1_ps(a->cap);
            v = _mm512_mul_ps(cap, tanh_avx512(_mm512_div_ps(v, cap)));
        }
        if (a->slopes) {
            __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
            __m512 at = _mm512_cvtepi32_ps(_mm512_add_epi32(lane, _mm512_set1_epi32(pos + j)));
            v = _mm512_add_ps(v, _mm512_mul_ps(_mm512_set1_ps(a->slopes[row]), at));
        }
        v = _mm512_mask_mov_ps(nothing, visible_avx512(a, row, pos + j), v);
        _mm512_storeu_ps(s + j, v);
        largest = _mm512_max_ps(v, largest); // the second operand for a NaN
    }
    return _mm512_reduce_max_ps(largest);
}

/* Scores to probabilities; returns their sum. A position that is not visible has the score -inf. */
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
    float m[ATTENTION_MAX_ROWS];
    for (int r = 0; r < a->n_rows; r++)
        m[r] = score_row_avx512(a, r, pos, state->s + r * KV_BLOCK, state->m[r]);
    for (int r = 0; r < a->n_rows; r += 16) {
        __mmask16 mask = lanes_below(a->n_rows - r);
        __m512 now = _mm512_maskz_loadu_ps(mask, m + r);
        __m512 before = _mm512_maskz_loadu_ps(mask, state->m + r);
        _mm512_storeu_ps(state->c + r, exp_avx512(_mm512_sub_ps(before, now)));
        _mm512_mask_storeu_ps(state->m + r, mask, now);
    }
    for (int r = 0; r < a->n_rows; r++) {
        float sum = exp_row_avx512(state->s + r * KV_BLOCK, m[r]);
        state->l[r] = state->l[r] * state->c[r] + sum;
    }
}

static void attend_avx512(const struct attention *a)
{
    static const struct attention_steps steps = { .widen = widen_avx512,
                                                  .product = product_of_avx512,
                                                  .softmax = softmax_avx512 };
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
