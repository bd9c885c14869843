/* vector_avx512.c: norms, activations and rotations, 16 floats at a time.
 * In, out, order of rounding: vector_scalar.c, to the bit. The last few elements are loaded and
 * stored under a mask; absent ones are +0, which changes no sum that starts at +0. */
#include "cpu/x86/x86.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <math.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))),        \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl")
#endif

#include "cpu/x86/math_avx512.h"

static void rms_norm_avx512(float *y, const float *x, const float *w, float plus, float eps, int n)
{
    __m512 lanes = _mm512_setzero_ps();
    for (int i = 0; i < n; i += 16) {
        __m512 v = _mm512_maskz_loadu_ps(lanes_below(n - i), x + i);
        lanes = mul_add_avx512(v, v, lanes);
    }
    __m512 r = _mm512_set1_ps(1.0f / sqrtf(sum_of_lanes_avx512(lanes) / (float)n + eps));
    for (int i = 0; i < n; i += 16) {
        __mmask16 mask = lanes_below(n - i);
        __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + i), r);
        if (w) {
            __m512 weight = _mm512_maskz_loadu_ps(mask, w + i);
            v = _mm512_mul_ps(v, _mm512_add_ps(weight, _mm512_set1_ps(plus)));
        }
        _mm512_mask_storeu_ps(y + i, mask, v);
    }
}

static void layer_norm_avx512(float *y, const float *x, const float *w, const float *bias,
                              float eps, int n)
{
    __m512 lanes = _mm512_setzero_ps();
    for (int i = 0; i < n; i += 16)
        lanes = _mm512_add_ps(lanes, _mm512_maskz_loadu_ps(lanes_below(n - i), x + i));
    __m512 mean = _mm512_set1_ps(sum_of_lanes_avx512(lanes) / (float)n);

    lanes = _mm512_setzero_ps();
    for (int i = 0; i < n; i += 16) {
        __mmask16 mask = lanes_below(n - i);
        __m512 v = _mm512_maskz_sub_ps(mask, _mm512_maskz_loadu_ps(mask, x + i), mean);
        lanes = mul_add_avx512(v, v, lanes);
    }
    __m512 r = _mm512_set1_ps(1.0f / sqrtf(sum_of_lanes_avx512(lanes) / (float)n + eps));

    for (int i = 0; i < n; i += 16) {
        __mmask16 mask = lanes_below(n - i);
        __m512 v = _mm512_mul_ps(_mm512_sub_ps(_mm512_maskz_loadu_ps(mask, x + i), mean), r);
        v = _mm512_mul_ps(v, _mm512_maskz_loadu_ps(mask, w + i));
        if (bias)
            v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, bias + i));
        _mm512_mask_storeu_ps(y + i, mask, v);
    }
}

static inline __m512 activation_avx512(__m512 x, int act)
{
    switch (act) {
    case ACT_GELU_TANH:
        return gelu_tanh_avx512(x);
    case ACT_GELU_ERF:
        return gelu_erf_avx512(x);
    case ACT_SILU:
        return sigmoid_times_avx512(x, x);
    default: // ACT_RELU
        return _mm512_max_ps(x, _mm512_setzero_ps());
    }
}

static void activate_avx512(float *y, const float *g, const float *u, int act, int n)
{
    for (int i = 0; i < n; i += 16) {
        __mmask16 mask = lanes_below(n - i);
        __m512 v = activation_avx512(_mm512_maskz_loadu_ps(mask, g + i), act);
        if (u)
            v = _mm512_mul_ps(v, _mm512_maskz_loadu_ps(mask, u + i));
        _mm512_mask_storeu_ps(y + i, mask, v);
    }
}

static void add_avx512(float *x, const float *y, int n)
{
    for (int i = 0; i < n; i += 16) {
        __mmask16 mask = lanes_below(n - i);
        __m512 sum =
            _mm512_add_ps(_mm512_maskz_loadu_ps(mask, x + i), _mm512_maskz_loadu_ps(mask, y + i));
        _mm512_mask_storeu_ps(x + i, mask, sum);
    }
}

static void weigh_avx512(float *y, const float *a, float ca, const float *b, float cb, int n)
{
    for (int i = 0; i < n; i += 16) {
        __mmask16 mask = lanes_below(n - i);
        __m512 other = _mm512_setzero_ps();
        if (b)
            other = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, b + i), _mm512_set1_ps(cb));
        __m512 v = _mm512_maskz_loadu_ps(mask, a + i);
        _mm512_mask_storeu_ps(y + i, mask, mul_add_avx512(v, _mm512_set1_ps(ca), other));
    }
}

static void rotate_avx512(float *x, const float *cos, const float *sin, int half)
{
    for (int i = 0; i < half; i += 16) {
        __mmask16 mask = lanes_below(half - i);
        __m512 a = _mm512_maskz_loadu_ps(mask, x + i);
        __m512 b = _mm512_maskz_loadu_ps(mask, x + i + half);
        __m512 c = _mm512_maskz_loadu_ps(mask, cos + i), s = _mm512_maskz_loadu_ps(mask, sin + i);
        _mm512_mask_storeu_ps(x + i, mask, _mm512_sub_ps(_mm512_mul_ps(a, c), _mm512_mul_ps(b, s)));
        _mm512_mask_storeu_ps(x + i + half, mask,
                              _mm512_add_ps(_mm512_mul_ps(b, c), _mm512_mul_ps(a, s)));
    }
}

/* Pairs (a, b) of lanes, b where `is_b`: `other` has each lane's partner. */
static inline __m512 butterfly_avx512(__m512 v, __m512 other, __mmask16 is_b)
{
    return _mm512_mask_sub_ps(_mm512_add_ps(v, other), is_b, other, v);
}

static void hadamard_avx512(float *x, float factor, int n)
{
    const __m512 f = _mm512_set1_ps(factor);
    if (n < 16) {
        qp_hadamard_few(x, factor, n);
        return;
    }
    for (int i = 0; i < n; i += 16) {
        __m512 v = _mm512_loadu_ps(x + i);
        v = butterfly_avx512(v, _mm512_permute_ps(v, 0xb1), 0xaaaa);
        v = butterfly_avx512(v, _mm512_permute_ps(v, 0x4e), 0xcccc);
        v = butterfly_avx512(v, _mm512_shuffle_f32x4(v, v, 0xb1), 0xf0f0);
        v = butterfly_avx512(v, _mm512_shuffle_f32x4(v, v, 0x4e), 0xff00);
        _mm512_storeu_ps(x + i, n == 16 ? _mm512_mul_ps(v, f) : v);
    }
    for (int stride = 16; stride < n; stride *= 2)
        for (int i = 0; i < n; i = (i + 16 + stride) & ~stride) {
            __m512 a = _mm512_loadu_ps(x + i), b = _mm512_loadu_ps(x + i + stride);
            const __m512 last = 2 * stride == n ? f : _mm512_set1_ps(1.0f);
            _mm512_storeu_ps(x + i, _mm512_mul_ps(_mm512_add_ps(a, b), last));
            _mm512_storeu_ps(x + i + stride, _mm512_mul_ps(_mm512_sub_ps(a, b), last));
        }
}

static void soft_cap_avx512(float *x, float cap, int n)
{
    const __m512 c = _mm512_set1_ps(cap);
    for (int i = 0; i < n; i += 16) {
        __mmask16 mask = lanes_below(n - i);
        __m512 v = _mm512_div_ps(_mm512_maskz_loadu_ps(mask, x + i), c);
        _mm512_mask_storeu_ps(x + i, mask, _mm512_mul_ps(c, tanh_avx512(v)));
    }
}

static float sum_exp_avx512(const float *x, float max, float factor, int n)
{
    __m512 lanes = _mm512_setzero_ps();
    for (int i = 0; i < n; i += 16) {
        __m512 v = _mm512_sub_ps(_mm512_loadu_ps(x + i), _mm512_set1_ps(max));
        v = exp_avx512(_mm512_mul_ps(v, _mm512_set1_ps(factor)));
        lanes = _mm512_add_ps(lanes, v);
    }
    return sum_of_lanes_avx512(lanes);
}

void qp_vector_kernels_avx512(struct kernels *k)
{
    k->rms_norm = rms_norm_avx512;
    k->layer_norm = layer_norm_avx512;
    k->activate = activate_avx512;
    k->add = add_avx512;
    k->weigh = weigh_avx512;
    k->rotate = rotate_avx512;
    k->hadamard = hadamard_avx512;
    k->soft_cap = soft_cap_avx512;
    k->sum_exp = sum_exp_avx512;
}

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
