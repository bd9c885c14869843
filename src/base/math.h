/* math.h: our own mathematics. The C libraries of different systems differ in the last bits; these
 * give the same number on every platform. Kernels repeat them on vectors, with the same bits. */
#ifndef QP_MATH_H
#define QP_MATH_H

/* Errors below 2 ulp. */
float qp_exp(float x); // 0 below -87.3 and for a NaN, +inf above 88.7; exp(0) == 1
/* For x <= 0: relative error below 1e-5 down to -10 and 1e-4 down to -69; 2^-100 below that and for
 * a NaN; exp_fast(0) == 1. */
float qp_exp_fast(float x);
float qp_tanh(float x);
/* Errors below 3 ulp of x. That is an absolute error: the result can be much smaller than x. */
float qp_gelu_tanh(float x); // Hendrycks and Gimpel 2016, tanh form
float qp_gelu_erf(float x);  // x / 2 * (1 + erf(x / sqrt(2)))
float qp_silu(float x);      // x / (1 + exp(-x))

/* For rope tables: relative error below 1e-14 and absolute error below 1e-15. */
double qp_pow(double base, double exponent);             // base > 0
void qp_sin_cos(double angle, double *sin, double *cos); // |angle| < 2^31

#endif
