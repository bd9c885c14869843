/* math_constants.h: constants of our own exp, tanh and GELU, shared by the scalar functions
 * (math.c) and the vector versions (math_lanes.h), which do the same operations in the same order.
 */
#ifndef QP_MATH_CONSTANTS_H
#define QP_MATH_CONSTANTS_H

/* exp(x) = 2^n * exp(r), n = round(x / ln 2), |r| <= ln(2) / 2. Outside [EXP_MIN, EXP_MAX] the
 * result is 0 or infinity, because 2^n would not be a normal number. The polynomial is that of
 * Cephes expf, and so are the two parts of ln 2 that make r exact. */
#define EXP_MIN -87.3f
#define EXP_MAX 88.7f
#define EXP_LOG2E 1.44269504f
#define EXP_LN2_HIGH 0.693359375f
#define EXP_LN2_LOW -2.12194440e-4f
#define EXP_DEGREE 6 /* coefficients, highest first, of (exp(r) - 1 - r) / r^2 */
static const float exp_coefficients[EXP_DEGREE] = { 1.9875691500e-4f, 1.3981999507e-3f,
                                                    8.3334519073e-3f, 4.1665795894e-2f,
                                                    1.6666665459e-1f, 5.0000001201e-1f };

/* exp in fewer steps, for probabilities that are quantized to 8 bits: 2^n * 2^f, with
 * n + f = x * log2(e) limited to at least EXP2_MIN, and |f| <= 1/2. Coefficients of (2^f - 1) / f,
 * highest first; their relative error, 2.9e-6, is minimal (Remez). */
#define EXP2_MIN -100.0f
#define EXP2_DEGREE 4
static const float exp2_coefficients[EXP2_DEGREE] = { 9.582853e-3f, 5.5906426e-2f, 2.4024099e-1f,
                                                      6.931242e-1f };

/* Adding 3 * 2^22 to |x| < 2^22 rounds x to the nearest integer, ties to even. The low bits of
 * the sum are that integer. */
#define ROUND_TO_INTEGER 12582912.0f

/* tanh(x) = x + x^3 * P(x^2) below TANH_SMALL (Cephes tanhf), 1 - 2 / (exp(2 |x|) + 1) above. */
#define TANH_SMALL 0.625f
#define TANH_DEGREE 5
static const float tanh_coefficients[TANH_DEGREE] = { -5.70498872745e-3f, 2.06390887954e-2f,
                                                      -5.37397155531e-2f, 1.33314422036e-1f,
                                                      -3.33332819422e-1f };

/* GELU, tanh form: x / 2 * (1 + tanh(u / 2)) = x / (1 + exp(-u)), u = x * (LINEAR + CUBIC * x^2),
 * LINEAR = 2 sqrt(2 / pi), CUBIC = 0.044715 LINEAR. */
#define GELU_LINEAR 1.5957691216f
#define GELU_CUBIC 0.0713548163f

/* GELU, erf form: x * Phi(x), Phi(-|x|) = 1/2 erfc(|x| / sqrt 2) = exp(-x^2 / 2) * t * P(t),
 * t = 1 / (1 + 0.5 |x| / sqrt 2). P: Chebyshev fit of erfc(y) exp(y^2) / (2 t) for y in [0, 9.5],
 * error below 2e-8. */
#define ERF_SLOPE 0.353553391f
#define ERF_DEGREE 9
static const float erf_coefficients[ERF_DEGREE] = {
    -0.02966906296f, 0.1429898359f, -0.2451380234f, 0.1408710967f, -0.01461554913f,
    0.1019011305f,   0.1214120454f, 0.1412063066f,  0.1410422007f
};

#endif
