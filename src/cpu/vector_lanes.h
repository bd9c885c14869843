/* vector_lanes.h: norms, activations and rotations on sixteen lanes.
 * Contracts and order of rounding: scalar/vector_scalar.c, to the bit. The last few elements are
 * loaded as lanes whose others are +0; that changes no sum, because every sum starts at +0.
 * A template, included after math_lanes.h by a file that defines ISA(). */
#include "cpu/kernels.h"

#include <assert.h>

static void ISA(rms_norm)(float *y, const float *x, const float *w, float plus, float eps, int n)
{
    assert(y && x && n > 0);
    struct lanes sum = lanes_set(0.0f);
    for (int i = 0; i < n; i += 16) {
        const struct lanes v = lanes_load_first(x + i, n - i);
        sum = lanes_mul_add(v, v, sum);
    }
    const struct lanes r = lanes_set(1.0f / sqrtf(lanes_sum(sum) / (float)n + eps));
    for (int i = 0; i < n; i += 16) {
        struct lanes v = lanes_mul(lanes_load_first(x + i, n - i), r);
        if (w)
            v = lanes_mul(v, lanes_add(lanes_load_first(w + i, n - i), lanes_set(plus)));
        lanes_store_first(y + i, n - i, v);
    }
}

static void ISA(layer_norm)(float *y, const float *x, const float *w, const float *bias, float eps,
                            int n)
{
    assert(y && x && w && n > 0);
    struct lanes sum = lanes_set(0.0f);
    for (int i = 0; i < n; i += 16)
        sum = lanes_add(sum, lanes_load_first(x + i, n - i));
    const struct lanes mean = lanes_set(lanes_sum(sum) / (float)n);

    sum = lanes_set(0.0f);
    for (int i = 0; i < n; i += 16) {
        struct lanes v = lanes_sub(lanes_load_first(x + i, n - i), mean);
        if (n - i < 16)
            v = lanes_keep(lanes_range(0, n - i), v);
        sum = lanes_mul_add(v, v, sum);
    }
    const struct lanes r = lanes_set(1.0f / sqrtf(lanes_sum(sum) / (float)n + eps));

    for (int i = 0; i < n; i += 16) {
        struct lanes v = lanes_mul(lanes_sub(lanes_load_first(x + i, n - i), mean), r);
        v = lanes_mul(v, lanes_load_first(w + i, n - i));
        if (bias)
            v = lanes_add(v, lanes_load_first(bias + i, n - i));
        lanes_store_first(y + i, n - i, v);
    }
}

/* All but ReLU share one exp(-u), because its code is long. */
LANES_INLINE struct lanes ISA(activation)(struct lanes x, int act)
{
    if (act == ACT_RELU)
        return lanes_max(x, lanes_set(0.0f));
    struct lanes u = x;
    if (act != ACT_SILU)
        u = lanes_mul(x, x);
    if (act == ACT_GELU_TANH)
        u = lanes_mul(x, lanes_mul_add(u, lanes_set(GELU_CUBIC), lanes_set(GELU_LINEAR)));
    else if (act == ACT_GELU_ERF)
        u = lanes_mul(u, lanes_set(0.5f));
    const struct lanes e = lanes_exp(lanes_negate(u));
    if (act == ACT_GELU_ERF)
        return lanes_gelu_erf(x, e);
    return lanes_div(x, lanes_add(e, lanes_set(1.0f)));
}

static void ISA(activate)(float *y, const float *g, const float *u, int act, int n)
{
    assert(y && g && n > 0);
    for (int i = 0; i < n; i += 16) {
        struct lanes v = ISA(activation)(lanes_load_first(g + i, n - i), act);
        if (u)
            v = lanes_mul(v, lanes_load_first(u + i, n - i));
        lanes_store_first(y + i, n - i, v);
    }
}

static void ISA(add)(float *x, const float *y, int n)
{
    assert(x && y && n > 0);
    for (int i = 0; i < n; i += 16) {
        const struct lanes v = lanes_load_first(x + i, n - i);
        lanes_store_first(x + i, n - i, lanes_add(v, lanes_load_first(y + i, n - i)));
    }
}

static void ISA(axpby)(float *y, const float *a, float ca, const float *b, float cb, int n)
{
    assert(y && a && n > 0);
    for (int i = 0; i < n; i += 16) {
        struct lanes v = lanes_set(0.0f);
        if (b)
            v = lanes_mul(lanes_load_first(b + i, n - i), lanes_set(cb));
        v = lanes_mul_add(lanes_load_first(a + i, n - i), lanes_set(ca), v);
        lanes_store_first(y + i, n - i, v);
    }
}

static void ISA(rotate)(float *x, const float *cos, const float *sin, int half)
{
    assert(x && cos && sin && half >= 0); // 0: a model without rope
    for (int i = 0; i < half; i += 16) {
        const int n = half - i;
        const struct lanes a = lanes_load_first(x + i, n), b = lanes_load_first(x + i + half, n);
        const struct lanes c = lanes_load_first(cos + i, n), s = lanes_load_first(sin + i, n);
        lanes_store_first(x + i, n, lanes_sub(lanes_mul(a, c), lanes_mul(b, s)));
        lanes_store_first(x + i + half, n, lanes_add(lanes_mul(b, c), lanes_mul(a, s)));
    }
}

/* (a, b) becomes (a + b, a - b). */
LANES_INLINE void ISA(butterfly)(struct lanes *a, struct lanes *b)
{
    const struct lanes sum = lanes_add(*a, *b);
    *b = lanes_sub(*a, *b);
    *a = sum;
}

/* The steps up to stride 32 of 64 numbers, times a factor. */
LANES_INLINE void ISA(hadamard_64)(float *x, struct lanes factor)
{
    struct lanes a = lanes_hadamard(lanes_load(x)), b = lanes_hadamard(lanes_load(x + 16));
    struct lanes c = lanes_hadamard(lanes_load(x + 32)), d = lanes_hadamard(lanes_load(x + 48));
    ISA(butterfly)(&a, &b);
    ISA(butterfly)(&c, &d);
    ISA(butterfly)(&a, &c);
    ISA(butterfly)(&b, &d);
    lanes_store(x, lanes_mul(a, factor));
    lanes_store(x + 16, lanes_mul(b, factor));
    lanes_store(x + 32, lanes_mul(c, factor));
    lanes_store(x + 48, lanes_mul(d, factor));
}

static void ISA(hadamard)(float *x, float factor, int n)
{
    assert(x && n > 0 && (n & (n - 1)) == 0);
    const struct lanes one = lanes_set(1.0f), last = lanes_set(factor);
    if (n < 16) {
        qp_hadamard_scalar(x, factor, n);
        return;
    }
    for (int i = 0; i < n && n < 64; i += 16)
        lanes_store(x + i, lanes_mul(lanes_hadamard(lanes_load(x + i)), n == 16 ? last : one));
    for (int i = 0; i < n && n >= 64; i += 64)
        ISA(hadamard_64)(x + i, n == 64 ? last : one);
    for (int stride = n < 64 ? 16 : 64; stride < n; stride *= 2)
        for (int i = 0; i < n; i = (i + 16 + stride) & ~stride) { // skip i with the bit `stride`
            const struct lanes a = lanes_load(x + i), b = lanes_load(x + i + stride);
            const struct lanes f = 2 * stride == n ? last : one;
            lanes_store(x + i, lanes_mul(lanes_add(a, b), f));
            lanes_store(x + i + stride, lanes_mul(lanes_sub(a, b), f));
        }
}

static void ISA(soft_cap)(float *x, float cap, int n)
{
    assert(x && cap > 0.0f && n > 0);
    const struct lanes c = lanes_set(cap);
    for (int i = 0; i < n; i += 16) {
        const struct lanes v = lanes_tanh(lanes_div(lanes_load_first(x + i, n - i), c));
        lanes_store_first(x + i, n - i, lanes_mul(c, v));
    }
}

static void ISA(conv)(const struct conv_row *r)
{
    assert(r->width > 0 && r->n > 0 && r->w_stride >= (size_t)r->n && r->b && r->c && r->z && r->y);
    for (int i = 0; i < r->n; i += 16) {
        const int n = r->n - i;
        const float *w = r->w + i;
        const struct lanes z =
            lanes_mul(lanes_load_first(r->b + i, n), lanes_load_first(r->z + i, n));
        struct lanes sum = lanes_set(0.0f);
        for (int j = 0; j < r->width - 1; j++, w += r->w_stride)
            sum = lanes_mul_add(lanes_load_first(w, n), lanes_load_first(r->past[j] + i, n), sum);
        sum = lanes_mul_add(lanes_load_first(w, n), z, sum);
        if (r->bias)
            sum = lanes_add(sum, lanes_load_first(r->bias + i, n));
        const struct lanes c = lanes_load_first(r->c + i, n);
        lanes_store_first(r->z + i, n, z);
        lanes_store_first(r->y + i, n, lanes_mul(c, sum));
    }
}

static float ISA(sum_exp)(const float *x, float max, float factor, int n)
{
    assert(x && n > 0 && n % 16 == 0);
    struct lanes sum = lanes_set(0.0f);
    for (int i = 0; i < n; i += 16) {
        const struct lanes d = lanes_sub(lanes_load(x + i), lanes_set(max));
        sum = lanes_add(sum, lanes_exp(lanes_mul(d, lanes_set(factor))));
    }
    return lanes_sum(sum);
}
