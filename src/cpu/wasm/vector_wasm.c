/* vector_wasm.c: norms, activations and rotations, 4 floats at a time.
 * In, out, order of rounding: vector_scalar.c, to the bit. The 16 lanes of a sum are four
 * registers. The last few elements pass through a small array; absent ones are +0, which changes no
 * sum that starts at +0. */
#include "cpu/wasm/wasm.h"

#if defined(__wasm_simd128__)

#include "cpu/wasm/math_wasm.h"

static void rms_norm_wasm(float *y, const float *x, const float *w, float plus, float eps, int n)
{
    struct lanes_wasm lanes = zero_lanes_wasm();
    for (int i = 0; i < n; i += 16) {
        struct lanes_wasm v = load_lanes_wasm(x + i, n - i);
        lanes = mul_add_lanes_wasm(v, v, lanes);
    }
    v128_t r = wasm_f32x4_splat(1.0f / sqrtf(sum_of_lanes_wasm(lanes) / (float)n + eps));
    for (int i = 0; i < n; i += 4) {
        v128_t v = wasm_f32x4_mul(load_wasm(x + i, n - i), r);
        if (w)
            v = wasm_f32x4_mul(v, wasm_f32x4_add(load_wasm(w + i, n - i), wasm_f32x4_splat(plus)));
        store_wasm(y + i, n - i, v);
    }
}

/* x - mean of the first n of 4 floats, 0 elsewhere. */
INLINE_WASM v128_t centred_wasm(v128_t x, int n, v128_t mean)
{
    return wasm_v128_and(wasm_f32x4_sub(x, mean), mask_wasm(n));
}

static void layer_norm_wasm(float *y, const float *x, const float *w, const float *bias, float eps,
                            int n)
{
    struct lanes_wasm lanes = zero_lanes_wasm();
    for (int i = 0; i < n; i += 16)
        lanes = add_lanes_wasm(lanes, load_lanes_wasm(x + i, n - i));
    v128_t mean = wasm_f32x4_splat(sum_of_lanes_wasm(lanes) / (float)n);

    lanes = zero_lanes_wasm();
    for (int i = 0; i < n; i += 16) {
        struct lanes_wasm v = load_lanes_wasm(x + i, n - i);
        v.v0 = centred_wasm(v.v0, n - i, mean);
        v.v4 = centred_wasm(v.v4, n - i - 4, mean);
        v.v8 = centred_wasm(v.v8, n - i - 8, mean);
        v.v12 = centred_wasm(v.v12, n - i - 12, mean);
        lanes = mul_add_lanes_wasm(v, v, lanes);
    }
    v128_t r = wasm_f32x4_splat(1.0f / sqrtf(sum_of_lanes_wasm(lanes) / (float)n + eps));

    for (int i = 0; i < n; i += 4) {
        v128_t v = wasm_f32x4_mul(wasm_f32x4_sub(load_wasm(x + i, n - i), mean), r);
        v = wasm_f32x4_mul(v, load_wasm(w + i, n - i));
        if (bias)
            v = wasm_f32x4_add(v, load_wasm(bias + i, n - i));
        store_wasm(y + i, n - i, v);
    }
}

INLINE_WASM v128_t activation_wasm(v128_t x, int act)
{
    switch (act) {
    case ACT_GELU_TANH:
        return gelu_tanh_wasm(x);
    case ACT_GELU_ERF:
        return gelu_erf_wasm(x);
    case ACT_SILU:
        return sigmoid_times_wasm(x, x);
    default: // ACT_RELU
        return larger_wasm(x, wasm_f32x4_const_splat(0.0f));
    }
}

static void activate_wasm(float *y, const float *g, const float *u, int act, int n)
{
    for (int i = 0; i < n; i += 4) {
        v128_t v = activation_wasm(load_wasm(g + i, n - i), act);
        if (u)
            v = wasm_f32x4_mul(v, load_wasm(u + i, n - i));
        store_wasm(y + i, n - i, v);
    }
}

static void add_wasm(float *x, const float *y, int n)
{
    for (int i = 0; i < n; i += 4)
        store_wasm(x + i, n - i, wasm_f32x4_add(load_wasm(x + i, n - i), load_wasm(y + i, n - i)));
}

static void weigh_wasm(float *y, const float *a, float ca, const float *b, float cb, int n)
{
    for (int i = 0; i < n; i += 4) {
        v128_t other = wasm_f32x4_const_splat(0.0f);
        if (b)
            other = wasm_f32x4_mul(load_wasm(b + i, n - i), wasm_f32x4_splat(cb));
        store_wasm(y + i, n - i,
                   mul_add_wasm(load_wasm(a + i, n - i), wasm_f32x4_splat(ca), other));
    }
}

static void rotate_wasm(float *x, const float *cos, const float *sin, int half)
{
    for (int i = 0; i < half; i += 4) {
        int n = half - i;
        v128_t a = load_wasm(x + i, n), b = load_wasm(x + i + half, n);
        v128_t c = load_wasm(cos + i, n), s = load_wasm(sin + i, n);
        store_wasm(x + i, n, wasm_f32x4_sub(wasm_f32x4_mul(a, c), wasm_f32x4_mul(b, s)));
        store_wasm(x + i + half, n, wasm_f32x4_add(wasm_f32x4_mul(b, c), wasm_f32x4_mul(a, s)));
    }
}

static void hadamard_wasm(float *x, float factor, int n)
{
    const v128_t last = wasm_f32x4_splat(factor);
    if (n < 4) {
        qp_hadamard_few(x, factor, n);
        return;
    }
    for (int i = 0; i < n; i += 4) {
        v128_t v = wasm_v128_load(x + i);
        v = wasm_f32x4_add(wasm_i32x4_shuffle(v, v, 1, 0, 3, 2),
                           wasm_f32x4_mul(v, wasm_f32x4_const(1, -1, 1, -1)));
        v = wasm_f32x4_add(wasm_i32x4_shuffle(v, v, 2, 3, 0, 1),
                           wasm_f32x4_mul(v, wasm_f32x4_const(1, 1, -1, -1)));
        wasm_v128_store(x + i, n == 4 ? wasm_f32x4_mul(v, last) : v);
    }
    for (int stride = 4; stride < n; stride *= 2) {
        const v128_t scale = 2 * stride == n ? last : wasm_f32x4_const_splat(1.0f);
        for (int i = 0; i < n; i = (i + 4 + stride) & ~stride) {
            const v128_t a = wasm_v128_load(x + i), b = wasm_v128_load(x + i + stride);
            wasm_v128_store(x + i, wasm_f32x4_mul(wasm_f32x4_add(a, b), scale));
            wasm_v128_store(x + i + stride, wasm_f32x4_mul(wasm_f32x4_sub(a, b), scale));
        }
    }
}

static void soft_cap_wasm(float *x, float cap, int n)
{
    const v128_t c = wasm_f32x4_splat(cap);
    for (int i = 0; i < n; i += 4) {
        v128_t v = tanh_wasm(wasm_f32x4_div(load_wasm(x + i, n - i), c));
        store_wasm(x + i, n - i, wasm_f32x4_mul(c, v));
    }
}

void qp_vector_kernels_wasm(struct kernels *k)
{
    k->rms_norm = rms_norm_wasm;
    k->layer_norm = layer_norm_wasm;
    k->activate = activate_wasm;
    k->add = add_wasm;
    k->weigh = weigh_wasm;
    k->rotate = rotate_wasm;
    k->hadamard = hadamard_wasm;
    k->soft_cap = soft_cap_wasm;
}

#endif
