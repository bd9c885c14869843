/* math.c: our own mathematical functions (src/base/math.c) compared with libm in double precision.
 * Prints the largest error of each function over dense samples of its range, and checks that it is
 * within the limit that math.h states. */
#include "base/math.h"
#include "cpu/kernels.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static double exact_gelu_tanh(double x)
{
    return x / (1.0 + exp(-2.0 * sqrt(2.0 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
}

static double exact_gelu_erf(double x)
{
    return 0.5 * x * erfc(-x / sqrt(2.0));
}

static double exact_silu(double x)
{
    return x / (1.0 + exp(-x));
}

/* The distance between floats near |x|. */
static double ulp(double x)
{
    float a = fabsf((float)x);
    return (double)nextafterf(a, INFINITY) - (double)a;
}

static const struct {
    const char *name;
    float (*ours)(float);
    double (*exact)(double);
    float from, to;
    double max_ulp;
    bool of_argument; // errors in ulp of x, not of the result
} functions[] = {
    { "exp", qp_exp, exp, -87.3f, 88.7f, 2.0, false },
    { "exp_fast", qp_exp_fast, exp, -10.0f, 0.0f, 64.0, false }, // ulp: 6e-8 to 1.2e-7
    { "exp_fast, far", qp_exp_fast, exp, -69.3f, -10.0f, 128.0, false },
    { "tanh", qp_tanh, tanh, -20.0f, 20.0f, 2.0, false },
    { "tanh near 0", qp_tanh, tanh, -0.7f, 0.7f, 2.0, false },
    { "gelu_tanh", qp_gelu_tanh, exact_gelu_tanh, -30.0f, 30.0f, 3.0, true },
    { "gelu_erf", qp_gelu_erf, exact_gelu_erf, -30.0f, 30.0f, 3.0, true },
    { "silu", qp_silu, exact_silu, -80.0f, 80.0f, 3.0, true },
};

static void functions_are_accurate(void **state)
{
    (void)state;
    const int n = 1000003;
    for (size_t f = 0; f < QP_COUNT(functions); f++) {
        double worst = 0.0;
        float worst_x = 0.0f;
        for (int i = 0; i < n; i++) {
            float x =
                functions[f].from + (functions[f].to - functions[f].from) * (float)i / (float)n;
            double want = functions[f].exact(x);
            double unit = ulp(functions[f].of_argument ? x : want);
            double error = fabs((double)functions[f].ours(x) - want) / unit;
            if (error > worst) {
                worst = error;
                worst_x = x;
            }
        }
        print_message("%-18s %.2f ulp, at %.9g\n", functions[f].name, worst, (double)worst_x);
        assert_true(worst < functions[f].max_ulp);
    }
}

static void special_values(void **state)
{
    (void)state;
    assert_true(qp_exp(0.0f) == 1.0f && qp_exp(-0.0f) == 1.0f);
    assert_true(qp_exp(-INFINITY) == 0.0f && qp_exp(-87.31f) == 0.0f);
    assert_true(qp_exp(INFINITY) == INFINITY && qp_exp(88.8f) == INFINITY);
    assert_true(qp_exp(NAN) == 0.0f);
    assert_true(qp_exp_fast(0.0f) == 1.0f && qp_exp_fast(-0.0f) == 1.0f);
    assert_true(qp_exp_fast(-70.0f) == ldexpf(1, -100) && qp_exp_fast(NAN) == ldexpf(1, -100));
    assert_true(qp_exp_fast(-INFINITY) == ldexpf(1, -100));
    assert_true(qp_tanh(INFINITY) == 1.0f && qp_tanh(-INFINITY) == -1.0f);
    assert_true(isnan(qp_tanh(NAN)) && isnan(qp_gelu_erf(NAN)) && isnan(qp_silu(NAN)));
    assert_true(qp_gelu_tanh(INFINITY) == INFINITY && qp_gelu_erf(INFINITY) == INFINITY);
    assert_true(qp_gelu_tanh(-1e30f) == 0.0f && qp_gelu_erf(-1e30f) == 0.0f);
}

/* Rope frequencies and angles up to the longest context. */
static void rope_functions(void **state)
{
    (void)state;
    const double bases[] = { 2.0, 10000.0, 500000.0, 1000000.0, 0.001 };
    for (size_t b = 0; b < QP_COUNT(bases); b++)
        for (int i = -2048; i <= 2048; i++) {
            double want = pow(bases[b], i / 1024.0);
            assert_true(fabs(qp_pow(bases[b], i / 1024.0) - want) < 1e-14 * want);
        }
    for (int i = -300000; i < 300000; i++) {
        double angle = i * (i % 7 == 0 ? 7000.123456789 : i % 3 == 0 ? 1.0 : 0.001234567), s, c;
        qp_sin_cos(angle, &s, &c);
        assert_true(fabs(s - sin(angle)) < 1e-15 && fabs(c - cos(angle)) < 1e-15);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(functions_are_accurate),
        cmocka_unit_test(special_values),
        cmocka_unit_test(rope_functions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
