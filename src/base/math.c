/* math.c: our own exp, tanh, activations, pow, sine and cosine.
 * In:  any float, including infinities and NaNs. exp treats a NaN as -infinity.
 * Out: the same bits on every platform, with the errors that math.h states.
 *
 * The functions of C libraries differ in their last bits. These use only + - * /, each rounded
 * once, and integer operations on the bits, so the vector versions can repeat them exactly. */
#include "base/math.h"

#include "base/base.h"
#include "base/math_constants.h"

#include <assert.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

static uint32_t float_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static float float_of_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

float qp_exp(float x)
{
    float y = x > EXP_MIN ? x : EXP_MIN;
    y = y < EXP_MAX ? y : EXP_MAX;

    float rounded = y * EXP_LOG2E + ROUND_TO_INTEGER;
    float n = rounded - ROUND_TO_INTEGER;
    float r = y - n * EXP_LN2_HIGH;
    r = r - n * EXP_LN2_LOW;

    float p = exp_coefficients[0];
    for (int i = 1; i < EXP_DEGREE; i++)
        p = p * r + exp_coefficients[i];
    p = p * (r * r) + r;
    p = p + 1.0f;

    /* Multiply by 2^n: n is in the low bits of `rounded`; add it to the exponent. */
    p = float_of_bits(float_bits(p) + (float_bits(rounded) << 23));
    p = x >= EXP_MIN ? p : 0.0f;
    return x > EXP_MAX ? INFINITY : p;
}

float qp_exp_fast(float x)
{
    float y = x * EXP_LOG2E;
    y = y > EXP2_MIN ? y : EXP2_MIN;
    float rounded = y + ROUND_TO_INTEGER;
    float f = y - (rounded - ROUND_TO_INTEGER);

    float p = exp2_coefficients[0];
    for (int i = 1; i < EXP2_DEGREE; i++)
        p = p * f + exp2_coefficients[i];
    p = p * f + 1.0f;
    return float_of_bits(float_bits(p) + (float_bits(rounded) << 23));
}

float qp_tanh(float x)
{
    float a = fabsf(x);
    if (a >= TANH_SMALL)
        return copysignf(1.0f - 2.0f / (qp_exp(a + a) + 1.0f), x);

    float z = x * x;
    float p = tanh_coefficients[0];
    for (int i = 1; i < TANH_DEGREE; i++)
        p = p * z + tanh_coefficients[i];
    return (p * z) * x + x;
}

float qp_gelu_tanh(float x)
{
    float u = x * (x * x * GELU_CUBIC + GELU_LINEAR);
    return x / (qp_exp(-u) + 1.0f);
}

float qp_gelu_erf(float x)
{
    float t = 1.0f / (fabsf(x) * ERF_SLOPE + 1.0f);
    float p = erf_coefficients[0];
    for (int i = 1; i < ERF_DEGREE; i++)
        p = p * t + erf_coefficients[i];
    float below = (p * t) * qp_exp(x * x * -0.5f); // Phi(-|x|)
    return x * (x < 0.0f ? below : 1.0f - below);
}

float qp_silu(float x)
{
    return x / (qp_exp(-x) + 1.0f);
}

/* ---- double precision, for rope tables ---- */

/* The nearest integer to |x| < 2^51, ties to even. */
static double round_to_integer(double x)
{
    const double shift = 6755399441055744.0; // 3 * 2^51
    double shifted = x + shift;
    return shifted - shift;
}

/* sum of c[i] * x^i */
static double polynomial(const double *c, int n, double x)
{
    double sum = c[n - 1];
    for (int i = n - 2; i >= 0; i--)
        sum = sum * x + c[i];
    return sum;
}

/* ln 2 in two parts. The first has 32 bits, so its product with an exponent is exact. */
static const double ln2_high = 0x1.62e42feep-1;
static const double ln2_low = 0x1.a39ef35793c76p-33;

/* ln(2^e * m) = e ln 2 + 2 artanh((m - 1) / (m + 1)), with m in [1/sqrt 2, sqrt 2). */
static double natural_log(double x)
{
    static const double odd[] = { 1.0,      1 / 3.0,  1 / 5.0,  1 / 7.0,  1 / 9.0,  1 / 11.0,
                                  1 / 13.0, 1 / 15.0, 1 / 17.0, 1 / 19.0, 1 / 21.0, 1 / 23.0 };
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int e = (int)(bits >> 52) - 1023;
    bits = (bits & 0xFFFFFFFFFFFFF) | (UINT64_C(1023) << 52);
    double m;
    memcpy(&m, &bits, sizeof m);
    if (m > 1.4142135623730951) {
        m *= 0.5;
        e++;
    }
    double s = (m - 1.0) / (m + 1.0);
    return e * ln2_high + (2.0 * s * polynomial(odd, QP_COUNT(odd), s * s) + e * ln2_low);
}

/* exp(x) for |x| < 700: 2^n times the Taylor series on |r| <= ln(2) / 2. */
static double natural_exp(double x)
{
    static const double inverse_factorial[] = {
        1.0,
        1.0,
        1 / 2.0,
        1 / 6.0,
        1 / 24.0,
        1 / 120.0,
        1 / 720.0,
        1 / 5040.0,
        1 / 40320.0,
        1 / 362880.0,
        1 / 3628800.0,
        1 / 39916800.0,
        1 / 479001600.0,
        1 / 6227020800.0,
        1 / 87178291200.0,
    };
    double n = round_to_integer(x * 1.4426950408889634);
    double r = x - n * ln2_high;
    r = r - n * ln2_low;
    uint64_t bits = (uint64_t)(1023 + (int)n) << 52;
    double power;
    memcpy(&power, &bits, sizeof power);
    return polynomial(inverse_factorial, QP_COUNT(inverse_factorial), r) * power;
}

double qp_pow(double base, double exponent)
{
    assert(base > 0.0);
    double x = exponent * natural_log(base);
    x = x < 700.0 ? x : 700.0; // the result is within 1e-304 .. 1e304, far beyond rope frequencies
    x = x > -700.0 ? x : -700.0;
    return natural_exp(x);
}

/* Sine and cosine of the remainder of angle / (pi / 2), swapped and negated by quadrant. pi / 2 is
 * in parts of 22 bits: with n < 2^31 each product is exact, and each difference except the last. */
void qp_sin_cos(double angle, double *sin, double *cos)
{
    static const double half_pi[] = { 0x1.921fbp+0, 0x1.5110bp-22, 0x1.18469898cc517p-44 };
    static const double sin_series[] = { 1.0,
                                         -1 / 6.0,
                                         1 / 120.0,
                                         -1 / 5040.0,
                                         1 / 362880.0,
                                         -1 / 39916800.0,
                                         1 / 6227020800.0,
                                         -1 / 1307674368000.0,
                                         1 / 355687428096000.0 };
    static const double cos_series[] = { 1.0,
                                         -1 / 2.0,
                                         1 / 24.0,
                                         -1 / 720.0,
                                         1 / 40320.0,
                                         -1 / 3628800.0,
                                         1 / 479001600.0,
                                         -1 / 87178291200.0,
                                         1 / 20922789888000.0,
                                         -1 / 6402373705728000.0 };
    assert(angle > -0x1p31 && angle < 0x1p31);
    double n = round_to_integer(angle * 0.6366197723675814); // 2 / pi
    double r = angle;
    for (size_t i = 0; i < QP_COUNT(half_pi); i++)
        r = r - n * half_pi[i];
    double z = r * r;
    double s = r * polynomial(sin_series, QP_COUNT(sin_series), z);
    double c = polynomial(cos_series, QP_COUNT(cos_series), z);

    unsigned quadrant = (unsigned)(int64_t)n & 3;
    double quarter_sin = quadrant & 1 ? c : s;
    double quarter_cos = quadrant & 1 ? s : c;
    *sin = quadrant & 2 ? -quarter_sin : quarter_sin;
    *cos = quadrant == 1 || quadrant == 2 ? -quarter_cos : quarter_cos;
}
