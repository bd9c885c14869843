/* attention_neon.c: the steps of attention on 128-bit registers.
 * In, out, order of rounding: attention_scalar.c, to the bit.
 * 4 rows of 16 columns keep 16 sums in registers; four more hold b, the rest a row's number and
 * products. 64 columns are four passes over the same rows. */
#include "cpu/arm/arm.h"
#include "cpu/attention_blocks.h"

#if defined(__aarch64__)

#include "cpu/arm/math_neon.h"

#if defined(__clang__)
#define UNROLL_NEON _Pragma("clang loop unroll(full)") // so that small arrays become registers
#else
#define UNROLL_NEON _Pragma("GCC unroll 4")
#endif

/* attention_steps.product for columns [column, column + 16); n_rows is a
 * constant. */
static inline __attribute__((always_inline)) void
product_columns_neon(const struct square_product *t, int column, int n_rows)
{
    float32x4_t sum[PRODUCT_ROWS][4];
    UNROLL_NEON
    for (int r = 0; r < n_rows; r++) {
        const float *acc = t->acc + (size_t)r * t->acc_stride + column;
        UNROLL_NEON
        for (int j = 0; j < 4; j++)
            sum[r][j] = vmulq_n_f32(vld1q_f32(acc + 4 * j), t->factors[r]);
    }
    const float *a = t->a, *b = t->b + column;
    for (int k = 0; k < t->n_k; k++, b += t->b_stride) {
        const float32x4_t b0 = vld1q_f32(b), b1 = vld1q_f32(b + 4);
        const float32x4_t b2 = vld1q_f32(b + 8), b3 = vld1q_f32(b + 12);
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

#define PRODUCT_NEON(name, n_rows)                                                                 \
    static __attribute__((noinline)) void name(const struct square_product *t)                     \
    {                                                                                              \
        for (int column = 0; column < KV_BLOCK; column += 16)                                      \
            product_columns_neon(t, column, n_rows);                                               \
    }
PRODUCT_NEON(product_1_neon, 1)
PRODUCT_NEON(product_2_neon, 2)
PRODUCT_NEON(product_3_neon, 3)
PRODUCT_NEON(product_4_neon, 4)

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

static void softmax_rows_neon(const struct attention *a, struct attention_state *state, int pos)
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
        .product = { product_1_neon, product_2_neon, product_3_neon, product_4_neon },
        .softmax = softmax_rows_neon,
    };
    qp_attend_blocks(a, &steps);
}

/* ---- scores of int8 keys ---- */

/* All ones in those of columns [j, j + 4) that are seen. */
static inline uint32x4_t seen_neon(const struct softmax *row, int j)
{
    return vbicq_u32(mask_neon(row->end - j), mask_neon(row->begin - j));
}

static void softmax_neon(struct softmax *row)
{
    const float32x4_t nothing = vdupq_n_f32(-INFINITY), zero = vdupq_n_f32(0.0f);
    struct lanes_neon lanes = zero_lanes_neon();
    float32x4_t m = nothing;
    for (int j = 0; j < row->n; j += 4) {
        float32x4_t v = vld1q_f32(row->s + j);
        if (row->cap > 0.0f) {
            float32x4_t cap = vdupq_n_f32(row->cap);
            v = vmulq_f32(cap, tanh_neon(vdivq_f32(v, cap)));
        }
        if (row->bias)
            v = vaddq_f32(v, vld1q_f32(row->bias + j));
        vst1q_f32(row->s + j, v);
        m = larger_neon(vbslq_f32(seen_neon(row, j), v, nothing), m);
    }
    row->max = vmaxvq_f32(m); // none of them is NaN
    m = vdupq_n_f32(row->max);
    for (int j = 0; j < row->n; j += 16) {
        for (int i = j; i < j + 16; i += 4) {
            float32x4_t p = exp_fast_neon(vsubq_f32(vld1q_f32(row->s + i), m));
            vst1q_f32(row->s + i, vbslq_f32(seen_neon(row, i), p, zero));
        }
        lanes = add_lanes_neon(lanes, load_lanes_neon(row->s + j, 16));
        for (int i = j; i < j + 16; i += 4) {
            float32x4_t p = vmulq_f32(vld1q_f32(row->s + i), vld1q_f32(row->value_scales + i));
            vst1q_f32(row->s + i, vbslq_f32(seen_neon(row, i), p, zero));
        }
    }
    row->sum = sum_of_lanes_neon(lanes);
}

void qp_attention_kernels_neon(struct kernels *k)
{
    k->softmax = softmax_neon;
    k->attend = attend_neon;
}

#endif
