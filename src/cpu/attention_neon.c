/* attention_neon.c: the three steps of attention_blocks.c on 128-bit registers.
 * In, out, order of rounding: attention_scalar.c, to the bit.
 * 4 rows of 16 columns keep 16 sums in registers; four more hold b, the rest a row's number and
 * products. 64 columns are four passes over the same rows. */
#include "cpu/attention_blocks.h"

#if defined(__aarch64__)

#include "cpu/math_neon.h"

#if defined(__clang__)
#define UNROLL_NEON _Pragma("clang loop unroll(full)") // so that small arrays become registers
#else
#define UNROLL_NEON _Pragma("GCC unroll 4")
#endif

/* Floats [4 j, 4 j + 4) of a row. */
static inline float32x4_t load_4_neon(const void *row, int j, bool is_f16)
{
    return is_f16 ? vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16((const uint16_t *)row + 4 * j)))
                  : vld1q_f32((const float *)row + 4 * j);
}

static void widen_neon(float *to, const uint16_t *from, size_t from_stride, int n_rows, int n_cols)
{
    for (int i = 0; i < n_rows; i++, from += from_stride, to += KV_BLOCK)
        for (int j = 0; j < KV_BLOCK; j += 4) {
            const int n = n_cols - j < 4 ? n_cols - j : 4;
            uint16_t last[4] = { 0 };
            if (n > 0 && n < 4)
                memcpy(last, from + j, (size_t)n * sizeof *from);
            vst1q_f32(to + j, load_4_neon(n == 4 ? from + j : last, 0, true));
        }
}

/* attention_steps.product for columns [column, column + 16); is_f16 and n_rows are constants. */
static inline __attribute__((always_inline)) void
product_columns_neon(const struct square_product *t, int column, bool is_f16, int n_rows)
{
    float32x4_t sum[PRODUCT_ROWS][4];
    UNROLL_NEON
    for (int r = 0; r < n_rows; r++) {
        const float *acc = t->acc + (size_t)r * t->acc_stride + column;
        UNROLL_NEON
        for (int j = 0; j < 4; j++)
            sum[r][j] = vmulq_n_f32(vld1q_f32(acc + 4 * j), t->factors[r]);
    }
    const float *a = t->a;
    const size_t element_bytes = is_f16 ? sizeof(uint16_t) : sizeof(float);
    const char *b = (const char *)t->b.data + (size_t)column * element_bytes;
    for (int k = 0; k < t->n_k; k++, b += t->b.stride * element_bytes) {
        const float32x4_t b0 = load_4_neon(b, 0, is_f16), b1 = load_4_neon(b, 1, is_f16);
        const float32x4_t b2 = load_4_neon(b, 2, is_f16), b3 = load_4_neon(b, 3, is_f16);
        UNROLL_NEON
        for (int r = 0; r < n_rows; r++) {
            const float weight = a[(size_t)r * t->a_stride + (size_t)k];
            sum[r][0] = vaddq_f32(sum[r][0], vmulq_n_f32(b0, weight));
            sum[r][1] = vaddq_f32(sum[r][1], vmulq_n_f32(b1, weight));
            sum[r][2] = vaddq_f32(sum[r][2], vmulq_n_f32(b2, weight));
            sum[r][3] = vaddq_f32(sum[r][3], vmulq_n_f32(b3, weight));
        }
    }
    UNROLL_NEON
    for (int r = 0; r < n_rows; r++) {
        float *acc = t->acc + (size_t)r * t->acc_stride + column;
        UNROLL_NEON
        for (int j = 0; j < 4; j++)
            vst1q_f32(acc + 4 * j, sum[r][j]);
    }
}

#define PRODUCT_NEON(name, is_f16, n_rows)                                                         \
    static __attribute__((noinline)) void name(const struct square_product *t)                     \
    {                                                                                              \
        for (int column = 0; column < KV_BLOCK; column += 16)                                      \
            product_columns_neon(t, column, is_f16, n_rows);                                       \
    }
PRODUCT_NEON(product_f32_1_neon, false, 1)
PRODUCT_NEON(product_f32_2_neon, false, 2)
PRODUCT_NEON(product_f32_3_neon, false, 3)
PRODUCT_NEON(product_f32_4_neon, false, 4)
PRODUCT_NEON(product_f16_1_neon, true, 1)
PRODUCT_NEON(product_f16_2_neon, true, 2)
PRODUCT_NEON(product_f16_3_neon, true, 3)
PRODUCT_NEON(product_f16_4_neon, true, 4)

/* Sums to scores, -inf where the row does not see; returns the largest one, or m. */
static inline float score_row_neon(const struct attention *a, int row, int pos, float *s, float m)
{
    const float32x4_t nothing = vdupq_n_f32(-INFINITY);
    float32x4_t largest = vdupq_n_f32(m);
    for (int j = 0; j < KV_BLOCK; j += 4) {
        float32x4_t v = vmulq_n_f32(vld1q_f32(s + j), a->scale);
        if (a->cap > 0.0f) {
            float32x4_t cap = vdupq_n_f32(a->cap);
            v = vmulq_f32(cap, tanh_neon(vdivq_f32(v, cap)));
        }
        if (a->bias)
            v = vaddq_f32(v, vld1q_f32(a->bias[row] + pos + j));
        uint32x4_t visible =
            vbicq_u32(mask_neon(a->end[row] - pos - j), mask_neon(a->begin[row] - pos - j));
        v = vbslq_f32(visible, v, nothing);
        vst1q_f32(s + j, v);
        largest = larger_neon(v, largest);
    }
    return vmaxvq_f32(largest); // none of them is NaN
}

/* Scores to probabilities; returns their sum. */
static inline float exp_row_neon(float *s, float m)
{
    struct lanes_neon lanes = zero_lanes_neon();
    for (int j = 0; j < KV_BLOCK; j += 16) {
        for (int i = j; i < j + 16; i += 4)
            vst1q_f32(s + i, exp_neon(vsubq_f32(vld1q_f32(s + i), vdupq_n_f32(m))));
        lanes = add_lanes_neon(lanes, load_lanes_neon(s + j, 16));
    }
    return sum_of_lanes_neon(lanes);
}

static void softmax_neon(const struct attention *a, struct attention_state *state, int pos)
{
    for (int r = 0; r < a->n_rows; r++) {
        float m = score_row_neon(a, r, pos, state->s + r * KV_BLOCK, state->m[r]);
        state->c[r] = state->m[r] - m;
        state->m[r] = m;
    }
    for (int r = 0; r < a->n_rows; r += 4)
        vst1q_f32(state->c + r, exp_neon(vld1q_f32(state->c + r)));
    for (int r = 0; r < a->n_rows; r++) {
        float sum = exp_row_neon(state->s + r * KV_BLOCK, state->m[r]);
        state->l[r] = state->l[r] * state->c[r] + sum;
    }
}

static void attend_neon(const struct attention *a)
{
    static const struct attention_steps steps = {
        .widen = widen_neon,
        .product = { { product_f32_1_neon, product_f32_2_neon, product_f32_3_neon,
                       product_f32_4_neon },
                     { product_f16_1_neon, product_f16_2_neon, product_f16_3_neon,
                       product_f16_4_neon } },
        .softmax = softmax_neon,
    };
    qp_attend_blocks(a, &steps);
}

void qp_attention_kernels_neon(struct kernels *k)
{
    k->attend = attend_neon;
}

#else

void qp_attention_kernels_neon(struct kernels *k)
{
    (void)k;
}

#endif
