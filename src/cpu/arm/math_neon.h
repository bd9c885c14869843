/* math_neon.h: math.c on 4 floats at a time: the same operations in the same order. NEON's own
 * minimum and maximum treat NaN and the sign of zero in their own way, so that comparisons and
 * selections stand here where math.c has them. */
#ifndef QP_MATH_NEON_H
#define QP_MATH_NEON_H

#include "cpu/kernels.h"
#include "cpu/math_constants.h"

#include <arm_neon.h>
#include <math.h>
#include <string.h>

/* a * b + c, rounded twice */
static inline float32x4_t mul_add_neon(float32x4_t a, float32x4_t b, float32x4_t c)
{
    return vaddq_f32(vmulq_f32(a, b), c);
}

/* a > b ? a : b, and a < b ? a : b: the second when one is NaN. */
static inline float32x4_t larger_neon(float32x4_t a, float32x4_t b)
{
    return vbslq_f32(vcgtq_f32(a, b), a, b);
}

static inline float32x4_t smaller_neon(float32x4_t a, float32x4_t b)
{
    return vbslq_f32(vcltq_f32(a, b), a, b);
}

/* The first n of 4 lanes: all when n is more, none when it is less. */
static inline uint32x4_t mask_neon(int n)
{
    static const int32_t lanes[4] = { 0, 1, 2, 3 };
    return vcltq_s32(vld1q_s32(lanes), vdupq_n_s32(n));
}

/* The first n of 4 floats, zero elsewhere. */
static inline float32x4_t load_neon(const float *x, int n)
{
    if (n >= 4)
        return vld1q_f32(x);
    float some[4] = { 0 };
    if (n > 0)
        memcpy(some, x, (size_t)n * sizeof *x);
    return vld1q_f32(some);
}

static inline void store_neon(float *y, int n, float32x4_t v)
{
    if (n >= 4) {
        vst1q_f32(y, v);
    } else if (n > 0) {
        float some[4];
        vst1q_f32(some, v);
        memcpy(y, some, (size_t)n * sizeof *y);
    }
}

/* 16 lanes in four registers, or as many floats. */
struct lanes_neon {
    float32x4_t v0, v4, v8, v12;
};

static inline struct lanes_neon zero_lanes_neon(void)
{
    const float32x4_t zero = vdupq_n_f32(0.0f);
    return (struct lanes_neon){ zero, zero, zero, zero };
}

/* The first n of 16 floats, zero elsewhere. */
static inline struct lanes_neon load_lanes_neon(const float *x, int n)
{
    float some[16] = { 0 };
    if (n < 16) {
        memcpy(some, x, (size_t)n * sizeof *x);
        x = some;
    }
    return (struct lanes_neon){ vld1q_f32(x), vld1q_f32(x + 4), vld1q_f32(x + 8),
                                vld1q_f32(x + 12) };
}

static inline struct lanes_neon add_lanes_neon(struct lanes_neon a, struct lanes_neon b)
{
    return (struct lanes_neon){ vaddq_f32(a.v0, b.v0), vaddq_f32(a.v4, b.v4), vaddq_f32(a.v8, b.v8),
                                vaddq_f32(a.v12, b.v12) };
}

static inline struct lanes_neon mul_add_lanes_neon(struct lanes_neon a, struct lanes_neon b,
                                                   struct lanes_neon c)
{
    return (struct lanes_neon){ mul_add_neon(a.v0, b.v0, c.v0), mul_add_neon(a.v4, b.v4, c.v4),
                                mul_add_neon(a.v8, b.v8, c.v8), mul_add_neon(a.v12, b.v12, c.v12) };
}

/* lane[j] += lane[j + s] for s = 8, 4, 2, 1 */
static inline float sum_of_lanes_neon(struct lanes_neon lanes)
{
    float32x4_t four = vaddq_f32(vaddq_f32(lanes.v0, lanes.v8), vaddq_f32(lanes.v4, lanes.v12));
    float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}

static inline float32x4_t exp_neon(float32x4_t x)
{
    const float32x4_t min = vdupq_n_f32(EXP_MIN), max = vdupq_n_f32(EXP_MAX);
    const float32x4_t shift = vdupq_n_f32(ROUND_TO_INTEGER);
    float32x4_t y = smaller_neon(larger_neon(x, min), max);

    float32x4_t rounded = mul_add_neon(y, vdupq_n_f32(EXP_LOG2E), shift);
    float32x4_t n = vsubq_f32(rounded, shift);
    float32x4_t r = vsubq_f32(y, vmulq_f32(n, vdupq_n_f32(EXP_LN2_HIGH)));
    r = vsubq_f32(r, vmulq_f32(n, vdupq_n_f32(EXP_LN2_LOW)));

    float32x4_t p = vdupq_n_f32(exp_coefficients[0]);
    for (int i = 1; i < EXP_DEGREE; i++)
        p = mul_add_neon(p, r, vdupq_n_f32(exp_coefficients[i]));
    p = mul_add_neon(p, vmulq_f32(r, r), r);
    p = vaddq_f32(p, vdupq_n_f32(1.0f));

    uint32x4_t power = vshlq_n_u32(vreinterpretq_u32_f32(rounded), 23);
    uint32x4_t bits = vaddq_u32(vreinterpretq_u32_f32(p), power);
    bits = vandq_u32(bits, vcgeq_f32(x, min));
    return vbslq_f32(vcgtq_f32(x, max), vdupq_n_f32(INFINITY), vreinterpretq_f32_u32(bits));
}

static inline float32x4_t exp_fast_neon(float32x4_t x)
{
    const float32x4_t shift = vdupq_n_f32(ROUND_TO_INTEGER);
    float32x4_t y = larger_neon(vmulq_f32(x, vdupq_n_f32(EXP_LOG2E)), vdupq_n_f32(EXP2_MIN));
    float32x4_t rounded = vaddq_f32(y, shift);
    float32x4_t f = vsubq_f32(y, vsubq_f32(rounded, shift));

    float32x4_t p = vdupq_n_f32(exp2_coefficients[0]);
    for (int i = 1; i < EXP2_DEGREE; i++)
        p = mul_add_neon(p, f, vdupq_n_f32(exp2_coefficients[i]));
    p = mul_add_neon(p, f, vdupq_n_f32(1.0f));
    uint32x4_t power = vshlq_n_u32(vreinterpretq_u32_f32(rounded), 23);
    return vreinterpretq_f32_u32(vaddq_u32(vreinterpretq_u32_f32(p), power));
}

static inline float32x4_t tanh_neon(float32x4_t x)
{
    const float32x4_t one = vdupq_n_f32(1.0f);
    float32x4_t a = vabsq_f32(x);
    float32x4_t large = vaddq_f32(exp_neon(vaddq_f32(a, a)), one);
    large = vsubq_f32(one, vdivq_f32(vdupq_n_f32(2.0f), large));
    large = vbslq_f32(vdupq_n_u32(0x80000000), x, large); // the sign of x

    float32x4_t z = vmulq_f32(x, x);
    float32x4_t p = vdupq_n_f32(tanh_coefficients[0]);
    for (int i = 1; i < TANH_DEGREE; i++)
        p = mul_add_neon(p, z, vdupq_n_f32(tanh_coefficients[i]));
    float32x4_t small = mul_add_neon(vmulq_f32(p, z), x, x);
    return vbslq_f32(vcgeq_f32(a, vdupq_n_f32(TANH_SMALL)), large, small);
}

/* x / (exp(-u) + 1) */
static inline float32x4_t sigmoid_times_neon(float32x4_t x, float32x4_t u)
{
    return vdivq_f32(x, vaddq_f32(exp_neon(vnegq_f32(u)), vdupq_n_f32(1.0f)));
}

static inline float32x4_t gelu_tanh_neon(float32x4_t x)
{
    float32x4_t u =
        mul_add_neon(vmulq_f32(x, x), vdupq_n_f32(GELU_CUBIC), vdupq_n_f32(GELU_LINEAR));
    return sigmoid_times_neon(x, vmulq_f32(x, u));
}

static inline float32x4_t gelu_erf_neon(float32x4_t x)
{
    const float32x4_t one = vdupq_n_f32(1.0f);
    float32x4_t t = vdivq_f32(one, mul_add_neon(vabsq_f32(x), vdupq_n_f32(ERF_SLOPE), one));
    float32x4_t p = vdupq_n_f32(erf_coefficients[0]);
    for (int i = 1; i < ERF_DEGREE; i++)
        p = mul_add_neon(p, t, vdupq_n_f32(erf_coefficients[i]));
    float32x4_t e = exp_neon(vmulq_f32(vmulq_f32(x, x), vdupq_n_f32(-0.5f)));
    float32x4_t below = vmulq_f32(vmulq_f32(p, t), e);
    return vmulq_f32(x, vbslq_f32(vcltzq_f32(x), below, vsubq_f32(one, below)));
}

#endif
