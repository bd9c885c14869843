/* math_lanes.h: the functions of math.c on sixteen lanes: the same operations in the same order.
 * A template, included after the operations of an instruction set (lanes.h). */
#include "base/math_constants.h"
#include "cpu/lanes.h"

#include <math.h>

/* a * b + c, rounded twice */
LANES_INLINE struct lanes lanes_mul_add(struct lanes a, struct lanes b, struct lanes c)
{
    return lanes_add(lanes_mul(a, b), c);
}

/* c[0] * x^(n - 1) + ... + c[n - 1]; n is a constant. */
LANES_INLINE struct lanes lanes_polynomial(const float *c, int n, struct lanes x)
{
    struct lanes p = lanes_set(c[0]);
    LANES_UNROLL
    for (int i = 1; i < n; i++)
        p = lanes_mul_add(p, x, lanes_set(c[i]));
    return p;
}

LANES_INLINE struct lanes lanes_exp(struct lanes x)
{
    const struct lanes min = lanes_set(EXP_MIN), max = lanes_set(EXP_MAX);
    const struct lanes shift = lanes_set(ROUND_TO_INTEGER);
    const struct lanes y = lanes_min(lanes_max(x, min), max);

    const struct lanes rounded = lanes_mul_add(y, lanes_set(EXP_LOG2E), shift);
    const struct lanes n = lanes_sub(rounded, shift);
    struct lanes r = lanes_sub(y, lanes_mul(n, lanes_set(EXP_LN2_HIGH)));
    r = lanes_sub(r, lanes_mul(n, lanes_set(EXP_LN2_LOW)));

    struct lanes p = lanes_polynomial(exp_coefficients, EXP_DEGREE, r);
    p = lanes_mul_add(p, lanes_mul(r, r), r);
    p = lanes_times_power(lanes_add(p, lanes_set(1.0f)), rounded);
    p = lanes_keep(lanes_at_least(x, min), p);
    return lanes_select(lanes_less(max, x), lanes_set(INFINITY), p);
}

LANES_INLINE struct lanes lanes_exp_fast(struct lanes x)
{
    const struct lanes shift = lanes_set(ROUND_TO_INTEGER);
    const struct lanes y = lanes_max(lanes_mul(x, lanes_set(EXP_LOG2E)), lanes_set(EXP2_MIN));
    const struct lanes rounded = lanes_add(y, shift);
    const struct lanes f = lanes_sub(y, lanes_sub(rounded, shift));

    const struct lanes p = lanes_polynomial(exp2_coefficients, EXP2_DEGREE, f);
    return lanes_times_power(lanes_mul_add(p, f, lanes_set(1.0f)), rounded);
}

LANES_INLINE struct lanes lanes_tanh(struct lanes x)
{
    const struct lanes one = lanes_set(1.0f), a = lanes_abs(x);
    struct lanes large = lanes_add(lanes_exp(lanes_add(a, a)), one);
    large = lanes_sub(one, lanes_div(lanes_set(2.0f), large));
    large = lanes_copy_sign(large, x);

    const struct lanes z = lanes_mul(x, x);
    const struct lanes p = lanes_polynomial(tanh_coefficients, TANH_DEGREE, z);
    const struct lanes small = lanes_mul_add(lanes_mul(p, z), x, x);
    return lanes_select(lanes_at_least(a, lanes_set(TANH_SMALL)), large, small);
}

/* GELU, erf form; e = exp(-x^2 / 2). */
LANES_INLINE struct lanes lanes_gelu_erf(struct lanes x, struct lanes e)
{
    const struct lanes one = lanes_set(1.0f);
    const struct lanes slope = lanes_mul_add(lanes_abs(x), lanes_set(ERF_SLOPE), one);
    const struct lanes t = lanes_div(one, slope);
    const struct lanes p = lanes_polynomial(erf_coefficients, ERF_DEGREE, t);
    const struct lanes below = lanes_mul(lanes_mul(p, t), e); // Phi(-|x|)
    const struct lanes_mask is_negative = lanes_less(x, lanes_set(0.0f));
    return lanes_mul(x, lanes_select(is_negative, below, lanes_sub(one, below)));
}
