/* lanes_neon.h: sixteen floats in four registers of four. Operations: cpu/lanes.h. Maximum and
 * minimum are comparisons and selections: NEON's own treat NaN and the sign of zero differently.
 * A template. */
#include "cpu/lanes.h"

#include <arm_neon.h>
#include <string.h>

#define PRODUCT_ROWS 4
#define PRODUCT_COLUMNS 1
#define F32_TOKENS 2
#define F32_REST 2
#define F32_ROWS 2
#define F32_IS_PREFETCHED 0

struct lanes {
    float32x4_t v0, v4, v8, v12;
};

struct lanes_mask {
    uint32x4_t m0, m4, m8, m12;
};

LANES_INLINE float32x4_t lanes_max_neon(float32x4_t a, float32x4_t b)
{
    return vbslq_f32(vcgtq_f32(a, b), a, b);
}

LANES_INLINE float32x4_t lanes_min_neon(float32x4_t a, float32x4_t b)
{
    return vbslq_f32(vcltq_f32(a, b), a, b);
}

LANES_INLINE float32x4_t lanes_copy_sign_neon(float32x4_t a, float32x4_t b)
{
    return vbslq_f32(vdupq_n_u32(0x80000000), b, a);
}

LANES_INLINE float32x4_t lanes_times_power_neon(float32x4_t a, float32x4_t b)
{
    const uint32x4_t power = vshlq_n_u32(vreinterpretq_u32_f32(b), 23);
    return vreinterpretq_f32_u32(vaddq_u32(vreinterpretq_u32_f32(a), power));
}

LANES_INLINE float32x4_t lanes_keep_neon(uint32x4_t m, float32x4_t a)
{
    return vreinterpretq_f32_u32(vandq_u32(m, vreinterpretq_u32_f32(a)));
}

#define LANES_OP_1(name, op)                                                                       \
    LANES_INLINE struct lanes name(struct lanes a)                                                 \
    {                                                                                              \
        return (struct lanes){ op(a.v0), op(a.v4), op(a.v8), op(a.v12) };                          \
    }
#define LANES_OP(name, op)                                                                         \
    LANES_INLINE struct lanes name(struct lanes a, struct lanes b)                                 \
    {                                                                                              \
        return (struct lanes){ op(a.v0, b.v0), op(a.v4, b.v4), op(a.v8, b.v8), op(a.v12, b.v12) }; \
    }
#define LANES_TEST(name, op)                                                                       \
    LANES_INLINE struct lanes_mask name(struct lanes a, struct lanes b)                            \
    {                                                                                              \
        return (struct lanes_mask){ op(a.v0, b.v0), op(a.v4, b.v4), op(a.v8, b.v8),                \
                                    op(a.v12, b.v12) };                                            \
    }
LANES_OP_1(lanes_negate, vnegq_f32)
LANES_OP_1(lanes_abs, vabsq_f32)
LANES_OP(lanes_add, vaddq_f32)
LANES_OP(lanes_sub, vsubq_f32)
LANES_OP(lanes_mul, vmulq_f32)
LANES_OP(lanes_div, vdivq_f32)
LANES_OP(lanes_max, lanes_max_neon)
LANES_OP(lanes_min, lanes_min_neon)
LANES_OP(lanes_copy_sign, lanes_copy_sign_neon)
LANES_OP(lanes_times_power, lanes_times_power_neon)
LANES_TEST(lanes_less, vcltq_f32)
LANES_TEST(lanes_at_least, vcgeq_f32)

LANES_INLINE struct lanes lanes_set(float x)
{
    const float32x4_t v = vdupq_n_f32(x);
    return (struct lanes){ v, v, v, v };
}

LANES_INLINE struct lanes lanes_load(const float *x)
{
    return (struct lanes){ vld1q_f32(x), vld1q_f32(x + 4), vld1q_f32(x + 8), vld1q_f32(x + 12) };
}

LANES_INLINE struct lanes lanes_in_register(struct lanes a)
{
    return a;
}

LANES_INLINE void lanes_store(float *y, struct lanes a)
{
    vst1q_f32(y, a.v0);
    vst1q_f32(y + 4, a.v4);
    vst1q_f32(y + 8, a.v8);
    vst1q_f32(y + 12, a.v12);
}

/* Copy n < 16 floats to part, +0 after them; returns part. Not inlined, because it is seldom run.
 */
static __attribute__((noinline)) const float *lanes_pad_neon(float part[16], const float *x, int n)
{
    memset(part, 0, 16 * sizeof *part);
    return memcpy(part, x, (size_t)n * sizeof *x);
}

LANES_INLINE struct lanes lanes_load_first(const float *x, int n)
{
    float part[16];
    return lanes_load(n < 16 ? lanes_pad_neon(part, x, n) : x);
}

LANES_INLINE void lanes_store_first(float *y, int n, struct lanes a)
{
    float part[16];
    lanes_store(n < 16 ? part : y, a);
    if (n < 16)
        memcpy(y, part, (size_t)n * sizeof *y);
}

LANES_INLINE float32x4_t lanes_sum_to_four_neon(struct lanes a)
{
    return vaddq_f32(vaddq_f32(a.v0, a.v8), vaddq_f32(a.v4, a.v12));
}

LANES_INLINE float lanes_sum(struct lanes a)
{
    const float32x4_t four = lanes_sum_to_four_neon(a);
    const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}

/* Two sums of a, then two of b. */
LANES_INLINE float32x4_t lanes_sum_halves_neon(struct lanes a, struct lanes b)
{
    const float32x4_t a4 = lanes_sum_to_four_neon(a), b4 = lanes_sum_to_four_neon(b);
    return vaddq_f32(vcombine_f32(vget_low_f32(a4), vget_low_f32(b4)),
                     vcombine_f32(vget_high_f32(a4), vget_high_f32(b4)));
}

LANES_INLINE void lanes_sum_4(float *y, const struct lanes *a)
{
    vst1q_f32(y, vpaddq_f32(lanes_sum_halves_neon(a[0], a[1]), lanes_sum_halves_neon(a[2], a[3])));
}

LANES_INLINE float lanes_largest(struct lanes a)
{
    return vmaxvq_f32(vmaxq_f32(vmaxq_f32(a.v0, a.v8), vmaxq_f32(a.v4, a.v12)));
}

LANES_INLINE float32x4_t lanes_hadamard_neon(float32x4_t v)
{
    static const float signs[2][4] = { { 1, -1, 1, -1 }, { 1, 1, -1, -1 } };
    v = vaddq_f32(vrev64q_f32(v), vmulq_f32(v, vld1q_f32(signs[0])));
    return vaddq_f32(vextq_f32(v, v, 2), vmulq_f32(v, vld1q_f32(signs[1])));
}

LANES_INLINE struct lanes lanes_hadamard(struct lanes a)
{
    const float32x4_t v0 = lanes_hadamard_neon(a.v0), v4 = lanes_hadamard_neon(a.v4);
    const float32x4_t v8 = lanes_hadamard_neon(a.v8), v12 = lanes_hadamard_neon(a.v12);
    const float32x4_t low = vaddq_f32(v0, v4), low_difference = vsubq_f32(v0, v4);
    const float32x4_t high = vaddq_f32(v8, v12), high_difference = vsubq_f32(v8, v12);
    return (struct lanes){ vaddq_f32(low, high), vaddq_f32(low_difference, high_difference),
                           vsubq_f32(low, high), vsubq_f32(low_difference, high_difference) };
}

/* Lanes j + first, j = 0 .. 3, of lanes_range. */
LANES_INLINE uint32x4_t lanes_range_neon(int begin, int end, int first)
{
    static const int32_t numbers[4] = { 0, 1, 2, 3 };
    const int32x4_t j = vld1q_s32(numbers);
    return vandq_u32(vcgeq_s32(j, vdupq_n_s32(begin - first)),
                     vcltq_s32(j, vdupq_n_s32(end - first)));
}

LANES_INLINE struct lanes_mask lanes_range(int begin, int end)
{
    return (struct lanes_mask){ lanes_range_neon(begin, end, 0), lanes_range_neon(begin, end, 4),
                                lanes_range_neon(begin, end, 8), lanes_range_neon(begin, end, 12) };
}

LANES_INLINE struct lanes lanes_select(struct lanes_mask m, struct lanes a, struct lanes b)
{
    return (struct lanes){ vbslq_f32(m.m0, a.v0, b.v0), vbslq_f32(m.m4, a.v4, b.v4),
                           vbslq_f32(m.m8, a.v8, b.v8), vbslq_f32(m.m12, a.v12, b.v12) };
}

LANES_INLINE struct lanes lanes_keep(struct lanes_mask m, struct lanes a)
{
    return (struct lanes){ lanes_keep_neon(m.m0, a.v0), lanes_keep_neon(m.m4, a.v4),
                           lanes_keep_neon(m.m8, a.v8), lanes_keep_neon(m.m12, a.v12) };
}
