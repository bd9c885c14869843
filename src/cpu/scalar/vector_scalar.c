/* vector_scalar.c: norms, activations, rotations and convolutions, in plain C: the specification of
 * vector_lanes.h.
 * In:  float vectors of any length n >= 1, aligned as floats. An output may be an input of the same
 *      call only where kernels.h says so.
 * Out: the values that kernels.h defines, rounded in this order.
 *
 * Sums run in 16 lanes (kernels.h). Everything else is one element at a time. */
#include "base/math.h"
#include "cpu/scalar/scalar.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* r = 1 / sqrt(mean of x^2 + eps); y[i] = (x[i] * r) * (w[i] + plus), or x[i] * r without w. */
static void rms_norm_scalar(float *y, const float *x, const float *w, float plus, float eps, int n)
{
    assert(y && x && n > 0);
    float lane[16] = { 0 };
    for (int i = 0; i < n; i++)
        lane[i % 16] += x[i] * x[i];
    float r = 1.0f / sqrtf(sum_of_lanes(lane) / (float)n + eps);
    for (int i = 0; i < n; i++)
        y[i] = w ? (x[i] * r) * (w[i] + plus) : x[i] * r;
}

/* r = 1 / sqrt(mean of (x - mean)^2 + eps); y[i] = ((x[i] - mean) * r) * w[i] (+ bias[i]). */
static void layer_norm_scalar(float *y, const float *x, const float *w, const float *bias,
                              float eps, int n)
{
    assert(y && x && w && n > 0);
    float lane[16] = { 0 };
    for (int i = 0; i < n; i++)
        lane[i % 16] += x[i];
    float mean = sum_of_lanes(lane) / (float)n;

    memset(lane, 0, sizeof lane);
    for (int i = 0; i < n; i++)
        lane[i % 16] += (x[i] - mean) * (x[i] - mean);
    float r = 1.0f / sqrtf(sum_of_lanes(lane) / (float)n + eps);

    for (int i = 0; i < n; i++) {
        y[i] = ((x[i] - mean) * r) * w[i];
        if (bias)
            y[i] += bias[i];
    }
}

static float activation(float x, int act)
{
    switch (act) {
    case ACT_GELU_TANH:
        return qp_gelu_tanh(x);
    case ACT_GELU_ERF:
        return qp_gelu_erf(x);
    case ACT_SILU:
        return qp_silu(x);
    default: // ACT_RELU
        return x > 0.0f ? x : 0.0f;
    }
}

static void activate_scalar(float *y, const float *g, const float *u, int act, int n)
{
    assert(y && g && n > 0 && act >= 0 && act <= ACT_RELU);
    for (int i = 0; i < n; i++)
        y[i] = u ? activation(g[i], act) * u[i] : activation(g[i], act);
}

static void add_scalar(float *x, const float *y, int n)
{
    assert(x && y && n > 0);
    for (int i = 0; i < n; i++)
        x[i] += y[i];
}

static void axpby_scalar(float *y, const float *a, float ca, const float *b, float cb, int n)
{
    assert(y && a && n > 0);
    for (int i = 0; i < n; i++)
        y[i] = a[i] * ca + (b ? b[i] * cb : 0.0f);
}

static void rotate_scalar(float *x, const float *cos, const float *sin, int half)
{
    assert(x && cos && sin && half >= 0);
    for (int i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        x[i] = a * cos[i] - b * sin[i];
        x[i + half] = b * cos[i] + a * sin[i];
    }
}

/* Fast Walsh-Hadamard transform. */
void qp_hadamard_scalar(float *x, float factor, int n)
{
    assert(x && n > 0 && (n & (n - 1)) == 0);
    for (int stride = 1; stride < n; stride *= 2)
        for (int i = 0; i < n; i = (i + 1 + stride) & ~stride) { // skip i with the bit `stride`
            float a = x[i], b = x[i + stride];
            x[i] = a + b;
            x[i + stride] = a - b;
        }
    for (int i = 0; i < n; i++)
        x[i] *= factor;
}

static void soft_cap_scalar(float *x, float cap, int n)
{
    assert(x && cap > 0.0f && n > 0);
    for (int i = 0; i < n; i++)
        x[i] = cap * qp_tanh(x[i] / cap);
}

/* LFM2's short convolution (Liquid AI 2025): a causal convolution of each channel, between two
 * gates. */
static void conv_scalar(const struct conv_row *r)
{
    assert(r->width > 0 && r->n > 0 && r->w_stride >= (size_t)r->n && r->b && r->c && r->z && r->y);
    for (int i = 0; i < r->n; i++) {
        r->z[i] = r->b[i] * r->z[i];
        float sum = 0;
        for (int j = 0; j < r->width; j++) {
            const float *column = j == r->width - 1 ? r->z : r->past[j];
            sum += r->w[(size_t)j * r->w_stride + (size_t)i] * column[i];
        }
        if (r->bias)
            sum += r->bias[i];
        r->y[i] = r->c[i] * sum;
    }
}

/* ---- sampling ---- */

static float sum_exp_scalar(const float *x, float max, float factor, int n)
{
    assert(x && n > 0 && n % 16 == 0);
    float lane[16] = { 0 };
    for (int i = 0; i < n; i++)
        lane[i % 16] += qp_exp((x[i] - max) * factor);
    return sum_of_lanes(lane);
}

void qp_vector_kernels_scalar(struct kernels *k)
{
    k->rms_norm = rms_norm_scalar;
    k->layer_norm = layer_norm_scalar;
    k->activate = activate_scalar;
    k->add = add_scalar;
    k->axpby = axpby_scalar;
    k->rotate = rotate_scalar;
    k->hadamard = qp_hadamard_scalar;
    k->soft_cap = soft_cap_scalar;
    k->conv = conv_scalar;
    k->sum_exp = sum_exp_scalar;
}
