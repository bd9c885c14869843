/* vector_avx2.c: norms, activations and rotations, 8 floats at a time.
 * In, out, order of rounding: vector_scalar.c, to the bit. The 16 lanes of a sum are two registers.
 * The last few elements are loaded and stored under a mask; absent ones are +0, which changes no
 * sum that starts at +0. */
#include "cpu/x86/x86.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <math.h>
#include <string.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2")
#endif

#include "cpu/x86/math_avx2.h"

/* The first n of 8 floats. Whole registers without a mask: masked stores are slow before Zen 5. */
static inline __m256 load_avx2(const float *x, int n)
{
    return n >= 8 ? _mm256_loadu_ps(x) : _mm256_maskload_ps(x, mask_avx2(n));
}

static inline void store_avx2(float *y, int n, __m256 v)
{
    if (n >= 8)
        _mm256_storeu_ps(y, v);
    else
        _mm256_maskstore_ps(y, mask_avx2(n), v);
}

static void rms_norm_avx2(float *y, const float *x, const float *w, float plus, float eps, int n)
{
    __m256 low = _mm256_setzero_ps(), high = low;
    for (int i = 0; i < n; i += 16) {
        __m256 a = load_avx2(x + i, n - i);
        low = mul_add_avx2(a, a, low);
        if (n - i > 8) {
            __m256 b = load_avx2(x + i + 8, n - i - 8);
            high = mul_add_avx2(b, b, high);
        }
    }
    __m256 r = _mm256_set1_ps(1.0f / sqrtf(sum_of_lanes_avx2(low, high) / (float)n + eps));
    for (int i = 0; i < n; i += 8) {
        __m256 v = _mm256_mul_ps(load_avx2(x + i, n - i), r);
        if (w) {
            __m256 weight = load_avx2(w + i, n - i);
            v = _mm256_mul_ps(v, _mm256_add_ps(weight, _mm256_set1_ps(plus)));
        }
        store_avx2(y + i, n - i, v);
    }
}

/* x - mean of the first n of 8 floats, 0 elsewhere. */
static inline __m256 centred_avx2(const float *x, int n, __m256 mean)
{
    __m256 v = _mm256_sub_ps(load_avx2(x, n), mean);
    return n >= 8 ? v : _mm256_and_ps(v, _mm256_castsi256_ps(mask_avx2(n)));
}

static void layer_norm_avx2(float *y, const float *x, const float *w, const float *bias, float eps,
                            int n)
{
    __m256 low = _mm256_setzero_ps(), high = low;
    for (int i = 0; i < n; i += 16) {
        low = _mm256_add_ps(low, load_avx2(x + i, n - i));
        if (n - i > 8)
            high = _mm256_add_ps(high, load_avx2(x + i + 8, n - i - 8));
    }
    __m256 mean = _mm256_set1_ps(sum_of_lanes_avx2(low, high) / (float)n);

    low = high = _mm256_setzero_ps();
    for (int i = 0; i < n; i += 16) {
        __m256 a = centred_avx2(x + i, n - i, mean);
        low = mul_add_avx2(a, a, low);
        if (n - i > 8) {
            __m256 b = centred_avx2(x + i + 8, n - i - 8, mean);
            high = mul_add_avx2(b, b, high);
        }
    }
    __m256 r = _mm256_set1_ps(1.0f / sqrtf(sum_of_lanes_avx2(low, high) / (float)n + eps));

    for (int i = 0; i < n; i += 8) {
        __m256 v = _mm256_mul_ps(_mm256_sub_ps(load_avx2(x + i, n - i), mean), r);
        v = _mm256_mul_ps(v, load_avx2(w + i, n - i));
        if (bias)
            v = _mm256_add_ps(v, load_avx2(bias + i, n - i));
        store_avx2(y + i, n - i, v);
    }
}

static inline __m256 activation_avx2(__m256 x, int act)
{
    switch (act) {
    case ACT_GELU_TANH:
        return gelu_tanh_avx2(x);
    case ACT_GELU_ERF:
        return gelu_erf_avx2(x);
    case ACT_SILU:
        return sigmoid_times_avx2(x, x);
    default: // ACT_RELU
        return _mm256_max_ps(x, _mm256_setzero_ps());
    }
}

static void activate_avx2(float *y, const float *g, const float *u, int act, int n)
{
    for (int i = 0; i < n; i += 8) {
        __m256 v = activation_avx2(load_avx2(g + i, n - i), act);
        if (u)
            v = _mm256_mul_ps(v, load_avx2(u + i, n - i));
        store_avx2(y + i, n - i, v);
    }
}

static void add_avx2(float *x, const float *y, int n)
{
    for (int i = 0; i < n; i += 8)
        store_avx2(x + i, n - i, _mm256_add_ps(load_avx2(x + i, n - i), load_avx2(y + i, n - i)));
}

static void weigh_avx2(float *y, const float *a, float ca, const float *b, float cb, int n)
{
    for (int i = 0; i < n; i += 8) {
        __m256 other = _mm256_setzero_ps();
        if (b)
            other = _mm256_mul_ps(load_avx2(b + i, n - i), _mm256_set1_ps(cb));
        store_avx2(y + i, n - i, mul_add_avx2(load_avx2(a + i, n - i), _mm256_set1_ps(ca), other));
    }
}

static void rotate_avx2(float *x, const float *cos, const float *sin, int half)
{
    for (int i = 0; i < half; i += 8) {
        int n = half - i;
        __m256 a = load_avx2(x + i, n), b = load_avx2(x + i + half, n);
        __m256 c = load_avx2(cos + i, n), s = load_avx2(sin + i, n);
        store_avx2(x + i, n, _mm256_sub_ps(_mm256_mul_ps(a, c), _mm256_mul_ps(b, s)));
        store_avx2(x + i + half, n, _mm256_add_ps(_mm256_mul_ps(b, c), _mm256_mul_ps(a, s)));
    }
}

static void hadamard_avx2(float *x, float factor, int n)
{
    if (n < 8) {
        qp_hadamard_few(x, factor, n);
        return;
    }
    for (int i = 0; i < n; i += 8) { // lanes (a, b): a + b, and a - b by the sign of b
        const __m256 b1 = _mm256_setr_ps(0, -0.0f, 0, -0.0f, 0, -0.0f, 0, -0.0f);
        const __m256 b2 = _mm256_setr_ps(0, 0, -0.0f, -0.0f, 0, 0, -0.0f, -0.0f);
        const __m256 b4 = _mm256_setr_ps(0, 0, 0, 0, -0.0f, -0.0f, -0.0f, -0.0f);
        __m256 v = _mm256_loadu_ps(x + i);
        v = _mm256_add_ps(_mm256_permute_ps(v, 0xb1), _mm256_xor_ps(v, b1));
        v = _mm256_add_ps(_mm256_permute_ps(v, 0x4e), _mm256_xor_ps(v, b2));
        v = _mm256_add_ps(_mm256_permute2f128_ps(v, v, 1), _mm256_xor_ps(v, b4));
        _mm256_storeu_ps(x + i, n == 8 ? _mm256_mul_ps(v, _mm256_set1_ps(factor)) : v);
    }
    for (int stride = 8; stride < n; stride *= 2)
        for (int i = 0; i < n; i = (i + 8 + stride) & ~stride) {
            __m256 a = _mm256_loadu_ps(x + i), b = _mm256_loadu_ps(x + i + stride);
            const __m256 last = _mm256_set1_ps(2 * stride == n ? factor : 1.0f);
            _mm256_storeu_ps(x + i, _mm256_mul_ps(_mm256_add_ps(a, b), last));
            _mm256_storeu_ps(x + i + stride, _mm256_mul_ps(_mm256_sub_ps(a, b), last));
        }
}

static void soft_cap_avx2(float *x, float cap, int n)
{
    const __m256 c = _mm256_set1_ps(cap);
    for (int i = 0; i < n; i += 8) {
        __m256 v = tanh_avx2(_mm256_div_ps(load_avx2(x + i, n - i), c));
        store_avx2(x + i, n - i, _mm256_mul_ps(c, v));
    }
}

static float sum_exp_avx2(const float *x, float max, float factor, int n)
{
    __m256 lanes[2] = { _mm256_setzero_ps(), _mm256_setzero_ps() };
    for (int i = 0; i < n; i += 16)
        for (int h = 0; h < 2; h++) {
            __m256 v = _mm256_sub_ps(_mm256_loadu_ps(x + i + 8 * h), _mm256_set1_ps(max));
            v = exp_avx2(_mm256_mul_ps(v, _mm256_set1_ps(factor)));
            lanes[h] = _mm256_add_ps(lanes[h], v);
        }
    return sum_of_lanes_avx2(lanes[0], lanes[1]);
}

void qp_vector_kernels_avx2(struct kernels *k)
{
    k->rms_norm = rms_norm_avx2;
    k->layer_norm = layer_norm_avx2;
    k->activate = activate_avx2;
    k->add = add_avx2;
    k->weigh = weigh_avx2;
    k->rotate = rotate_avx2;
    k->hadamard = hadamard_avx2;
    k->soft_cap = soft_cap_avx2;
    k->sum_exp = sum_exp_avx2;
}

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
