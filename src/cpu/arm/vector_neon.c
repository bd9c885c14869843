/* vector_neon.c: norms, activations and rotations, 4 floats at a time.
 * In, out, order of rounding: vector_scalar.c, to the bit. The 16 lanes of a sum are four
 * registers. The last few elements pass through a small array; absent ones are +0, which changes no
 * sum that starts at +0. */
#include "cpu/arm/arm.h"

#if defined(__aarch64__)

#include "cpu/arm/math_neon.h"

static void rms_norm_neon(float *y, const float *x, const float *w, float plus, float eps, int n)
{
    struct lanes_neon lanes = zero_lanes_neon();
    for (int i = 0; i < n; i += 16) {
        struct lanes_neon v = load_lanes_neon(x + i, n - i);
        lanes = mul_add_lanes_neon(v, v, lanes);
    }
    float32x4_t r = vdupq_n_f32(1.0f / sqrtf(sum_of_lanes_neon(lanes) / (float)n + eps));
    for (int i = 0; i < n; i += 4) {
        float32x4_t v = vmulq_f32(load_neon(x + i, n - i), r);
        if (w)
            v = vmulq_f32(v, vaddq_f32(load_neon(w + i, n - i), vdupq_n_f32(plus)));
        store_neon(y + i, n - i, v);
    }
}

/* x - mean of the first n of 4 floats, 0 elsewhere. */
static inline float32x4_t centred_neon(float32x4_t x, int n, float32x4_t mean)
{
    uint32x4_t bits = vreinterpretq_u32_f32(vsubq_f32(x, mean));
    return vreinterpretq_f32_u32(vandq_u32(bits, mask_neon(n)));
}

static void layer_norm_neon(float *y, const float *x, const float *w, const float *bias, float eps,
                            int n)
{
    struct lanes_neon lanes = zero_lanes_neon();
    for (int i = 0; i < n; i += 16)
        lanes = add_lanes_neon(lanes, load_lanes_neon(x + i, n - i));
    float32x4_t mean = vdupq_n_f32(sum_of_lanes_neon(lanes) / (float)n);

    lanes = zero_lanes_neon();
    for (int i = 0; i < n; i += 16) {
        struct lanes_neon v = load_lanes_neon(x + i, n - i);
        v.v0 = centred_neon(v.v0, n - i, mean);
        v.v4 = centred_neon(v.v4, n - i - 4, mean);
        v.v8 = centred_neon(v.v8, n - i - 8, mean);
        v.v12 = centred_neon(v.v12, n - i - 12, mean);
        lanes = mul_add_lanes_neon(v, v, lanes);
    }
    float32x4_t r = vdupq_n_f32(1.0f / sqrtf(sum_of_lanes_neon(lanes) / (float)n + eps));

    for (int i = 0; i < n; i += 4) {
        float32x4_t v = vmulq_f32(vsubq_f32(load_neon(x + i, n - i), mean), r);
        v = vmulq_f32(v, load_neon(w + i, n - i));
        if (bias)
            v = vaddq_f32(v, load_neon(bias + i, n - i));
        store_neon(y + i, n - i, v);
    }
}

static inline float32x4_t activation_neon(float32x4_t x, int act)
{
    switch (act) {
    case ACT_GELU_TANH:
        return gelu_tanh_neon(x);
    case ACT_GELU_ERF:
        return gelu_erf_neon(x);
    case ACT_SILU:
        return sigmoid_times_neon(x, x);
    default: // ACT_RELU
        return larger_neon(x, vdupq_n_f32(0.0f));
    }
}

static void activate_neon(float *y, const float *g, const float *u, int act, int n)
{
    for (int i = 0; i < n; i += 4) {
        float32x4_t v = activation_neon(load_neon(g + i, n - i), act);
        if (u)
            v = vmulq_f32(v, load_neon(u + i, n - i));
        store_neon(y + i, n - i, v);
    }
}

static void add_neon(float *x, const float *y, int n)
{
    for (int i = 0; i < n; i += 4)
        store_neon(x + i, n - i, vaddq_f32(load_neon(x + i, n - i), load_neon(y + i, n - i)));
}

static void weigh_neon(float *y, const float *a, float ca, const float *b, float cb, int n)
{
    for (int i = 0; i < n; i += 4) {
        float32x4_t other = vdupq_n_f32(0.0f);
        if (b)
            other = vmulq_f32(load_neon(b + i, n - i), vdupq_n_f32(cb));
        store_neon(y + i, n - i, mul_add_neon(load_neon(a + i, n - i), vdupq_n_f32(ca), other));
    }
}

static void rotate_neon(float *x, const float *cos, const float *sin, int half)
{
    for (int i = 0; i < half; i += 4) {
        int n = half - i;
        float32x4_t a = load_neon(x + i, n), b = load_neon(x + i + half, n);
        float32x4_t c = load_neon(cos + i, n), s = load_neon(sin + i, n);
        store_neon(x + i, n, vsubq_f32(vmulq_f32(a, c), vmulq_f32(b, s)));
        store_neon(x + i + half, n, vaddq_f32(vmulq_f32(b, c), vmulq_f32(a, s)));
    }
}

static void hadamard_neon(float *x, float factor, int n)
{
    static const float signs[2][4] = { { 1, -1, 1, -1 }, { 1, 1, -1, -1 } }; // of a, of b
    if (n < 4) {
        qp_hadamard_few(x, factor, n);
        return;
    }
    for (int i = 0; i < n; i += 4) {
        float32x4_t v = vld1q_f32(x + i);
        v = vaddq_f32(vrev64q_f32(v), vmulq_f32(v, vld1q_f32(signs[0])));
        v = vaddq_f32(vextq_f32(v, v, 2), vmulq_f32(v, vld1q_f32(signs[1])));
        vst1q_f32(x + i, n == 4 ? vmulq_n_f32(v, factor) : v);
    }
    for (int stride = 4; stride < n; stride *= 2)
        for (int i = 0; i < n; i = (i + 4 + stride) & ~stride) {
            float32x4_t a = vld1q_f32(x + i), b = vld1q_f32(x + i + stride);
            const float last = 2 * stride == n ? factor : 1.0f;
            vst1q_f32(x + i, vmulq_n_f32(vaddq_f32(a, b), last));
            vst1q_f32(x + i + stride, vmulq_n_f32(vsubq_f32(a, b), last));
        }
}

static void soft_cap_neon(float *x, float cap, int n)
{
    const float32x4_t c = vdupq_n_f32(cap);
    for (int i = 0; i < n; i += 4) {
        float32x4_t v = tanh_neon(vdivq_f32(load_neon(x + i, n - i), c));
        store_neon(x + i, n - i, vmulq_f32(c, v));
    }
}

static float sum_exp_neon(const float *x, float max, float factor, int n)
{
    struct lanes_neon lanes = zero_lanes_neon();
    for (int i = 0; i < n; i += 16) {
        float p[16];
        for (int j = 0; j < 16; j += 4) {
            float32x4_t v = vsubq_f32(vld1q_f32(x + i + j), vdupq_n_f32(max));
            vst1q_f32(p + j, exp_neon(vmulq_f32(v, vdupq_n_f32(factor))));
        }
        lanes = add_lanes_neon(lanes, load_lanes_neon(p, 16));
    }
    return sum_of_lanes_neon(lanes);
}

void qp_vector_kernels_neon(struct kernels *k)
{
    k->rms_norm = rms_norm_neon;
    k->layer_norm = layer_norm_neon;
    k->activate = activate_neon;
    k->add = add_neon;
    k->weigh = weigh_neon;
    k->rotate = rotate_neon;
    k->hadamard = hadamard_neon;
    k->soft_cap = soft_cap_neon;
    k->sum_exp = sum_exp_neon;
}

#endif
