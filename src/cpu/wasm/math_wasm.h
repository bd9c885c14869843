/* math_wasm.h: math.c on 4 floats at a time: the same operations in the same order. WebAssembly's
 * pmin and pmax are comparisons and selections as in C; its min and max are not, and unused. */
#ifndef QP_MATH_WASM_H
#define QP_MATH_WASM_H

#include "cpu/kernels.h"
#include "cpu/math_constants.h"

#include <math.h>
#include <string.h>
#include <wasm_simd128.h>

#define INLINE_WASM static inline __attribute__((always_inline))
#define UNROLL_WASM _Pragma("clang loop unroll(full)") // so that small arrays become registers

/* a * b + c, rounded twice */
INLINE_WASM v128_t mul_add_wasm(v128_t a, v128_t b, v128_t c)
{
    return wasm_f32x4_add(wasm_f32x4_mul(a, b), c);
}

/* a > b ? a : b, and a < b ? a : b: the second when one is NaN. */
INLINE_WASM v128_t larger_wasm(v128_t a, v128_t b)
{
    return wasm_f32x4_pmax(b, a);
}

INLINE_WASM v128_t smaller_wasm(v128_t a, v128_t b)
{
    return wasm_f32x4_pmin(b, a);
}

/* The first n of 4 lanes: all when n is more, none when it is less. */
INLINE_WASM v128_t mask_wasm(int n)
{
    return wasm_i32x4_lt(wasm_i32x4_const(0, 1, 2, 3), wasm_i32x4_splat(n));
}

/* The first n of 4 floats, zero elsewhere. */
INLINE_WASM v128_t load_wasm(const float *x, int n)
{
    if (n >= 4)
        return wasm_v128_load(x);
    float some[4] = { 0 };
    if (n > 0)
        memcpy(some, x, (size_t)n * sizeof *x);
    return wasm_v128_load(some);
}

INLINE_WASM void store_wasm(float *y, int n, v128_t v)
{
    if (n >= 4) {
        wasm_v128_store(y, v);
    } else if (n > 0) {
        float some[4];
        wasm_v128_store(some, v);
        memcpy(y, some, (size_t)n * sizeof *y);
    }
}

/* 16 lanes in four registers, or as many floats. */
struct lanes_wasm {
    v128_t v0, v4, v8, v12;
};

INLINE_WASM struct lanes_wasm zero_lanes_wasm(void)
{
    const v128_t zero = wasm_f32x4_const_splat(0.0f);
    return (struct lanes_wasm){ zero, zero, zero, zero };
}

/* The first n of 16 floats, zero elsewhere. */
INLINE_WASM struct lanes_wasm load_lanes_wasm(const float *x, int n)
{
    float some[16] = { 0 };
    if (n < 16) {
        memcpy(some, x, (size_t)n * sizeof *x);
        x = some;
    }
    return (struct lanes_wasm){ wasm_v128_load(x), wasm_v128_load(x + 4), wasm_v128_load(x + 8),
                                wasm_v128_load(x + 12) };
}

INLINE_WASM struct lanes_wasm add_lanes_wasm(struct lanes_wasm a, struct lanes_wasm b)
{
    return (struct lanes_wasm){ wasm_f32x4_add(a.v0, b.v0), wasm_f32x4_add(a.v4, b.v4),
                                wasm_f32x4_add(a.v8, b.v8), wasm_f32x4_add(a.v12, b.v12) };
}

INLINE_WASM struct lanes_wasm mul_add_lanes_wasm(struct lanes_wasm a, struct lanes_wasm b,
                                                 struct lanes_wasm c)
{
    return (struct lanes_wasm){ mul_add_wasm(a.v0, b.v0, c.v0), mul_add_wasm(a.v4, b.v4, c.v4),
                                mul_add_wasm(a.v8, b.v8, c.v8), mul_add_wasm(a.v12, b.v12, c.v12) };
}

/* lane[j] += lane[j + s] for s = 8, 4, 2, 1 */
INLINE_WASM float sum_of_lanes_wasm(struct lanes_wasm lanes)
{
    v128_t four =
        wasm_f32x4_add(wasm_f32x4_add(lanes.v0, lanes.v8), wasm_f32x4_add(lanes.v4, lanes.v12));
    v128_t two = wasm_f32x4_add(four, wasm_i32x4_shuffle(four, four, 2, 3, 0, 1));
    return wasm_f32x4_extract_lane(two, 0) + wasm_f32x4_extract_lane(two, 1);
}

/* The largest of 4, none of which is NaN. */
INLINE_WASM float largest_wasm(v128_t four)
{
    v128_t two = larger_wasm(four, wasm_i32x4_shuffle(four, four, 2, 3, 0, 1));
    return wasm_f32x4_extract_lane(larger_wasm(two, wasm_i32x4_shuffle(two, two, 1, 0, 3, 2)), 0);
}

INLINE_WASM v128_t exp_wasm(v128_t x)
{
    const v128_t min = wasm_f32x4_const_splat(EXP_MIN), max = wasm_f32x4_const_splat(EXP_MAX);
    const v128_t shift = wasm_f32x4_const_splat(ROUND_TO_INTEGER);
    v128_t y = smaller_wasm(larger_wasm(x, min), max);

    v128_t rounded = mul_add_wasm(y, wasm_f32x4_const_splat(EXP_LOG2E), shift);
    v128_t n = wasm_f32x4_sub(rounded, shift);
    v128_t r = wasm_f32x4_sub(y, wasm_f32x4_mul(n, wasm_f32x4_const_splat(EXP_LN2_HIGH)));
    r = wasm_f32x4_sub(r, wasm_f32x4_mul(n, wasm_f32x4_const_splat(EXP_LN2_LOW)));

    v128_t p = wasm_f32x4_splat(exp_coefficients[0]);
    UNROLL_WASM
    for (int i = 1; i < EXP_DEGREE; i++)
        p = mul_add_wasm(p, r, wasm_f32x4_splat(exp_coefficients[i]));
    p = mul_add_wasm(p, wasm_f32x4_mul(r, r), r);
    p = wasm_f32x4_add(p, wasm_f32x4_const_splat(1.0f));

    v128_t bits = wasm_i32x4_add(p, wasm_i32x4_shl(rounded, 23));
    bits = wasm_v128_and(bits, wasm_f32x4_ge(x, min));
    return wasm_v128_bitselect(wasm_f32x4_const_splat(INFINITY), bits, wasm_f32x4_gt(x, max));
}

INLINE_WASM v128_t exp_fast_wasm(v128_t x)
{
    const v128_t shift = wasm_f32x4_const_splat(ROUND_TO_INTEGER);
    v128_t y = wasm_f32x4_mul(x, wasm_f32x4_const_splat(EXP_LOG2E));
    y = larger_wasm(y, wasm_f32x4_const_splat(EXP2_MIN));
    v128_t rounded = wasm_f32x4_add(y, shift);
    v128_t f = wasm_f32x4_sub(y, wasm_f32x4_sub(rounded, shift));

    v128_t p = wasm_f32x4_splat(exp2_coefficients[0]);
    UNROLL_WASM
    for (int i = 1; i < EXP2_DEGREE; i++)
        p = mul_add_wasm(p, f, wasm_f32x4_splat(exp2_coefficients[i]));
    p = mul_add_wasm(p, f, wasm_f32x4_const_splat(1.0f));
    return wasm_i32x4_add(p, wasm_i32x4_shl(rounded, 23));
}

INLINE_WASM v128_t tanh_wasm(v128_t x)
{
    const v128_t one = wasm_f32x4_const_splat(1.0f);
    v128_t a = wasm_f32x4_abs(x);
    v128_t large = wasm_f32x4_add(exp_wasm(wasm_f32x4_add(a, a)), one);
    large = wasm_f32x4_sub(one, wasm_f32x4_div(wasm_f32x4_const_splat(2.0f), large));
    large = wasm_v128_bitselect(x, large, wasm_f32x4_const_splat(-0.0f)); // the sign of x

    v128_t z = wasm_f32x4_mul(x, x);
    v128_t p = wasm_f32x4_splat(tanh_coefficients[0]);
    UNROLL_WASM
    for (int i = 1; i < TANH_DEGREE; i++)
        p = mul_add_wasm(p, z, wasm_f32x4_splat(tanh_coefficients[i]));
    v128_t small = mul_add_wasm(wasm_f32x4_mul(p, z), x, x);
    return wasm_v128_bitselect(large, small, wasm_f32x4_ge(a, wasm_f32x4_const_splat(TANH_SMALL)));
}

/* x / (exp(-u) + 1) */
INLINE_WASM v128_t sigmoid_times_wasm(v128_t x, v128_t u)
{
    return wasm_f32x4_div(
        x, wasm_f32x4_add(exp_wasm(wasm_f32x4_neg(u)), wasm_f32x4_const_splat(1.0f)));
}

INLINE_WASM v128_t gelu_tanh_wasm(v128_t x)
{
    v128_t u = mul_add_wasm(wasm_f32x4_mul(x, x), wasm_f32x4_const_splat(GELU_CUBIC),
                            wasm_f32x4_const_splat(GELU_LINEAR));
    return sigmoid_times_wasm(x, wasm_f32x4_mul(x, u));
}

INLINE_WASM v128_t gelu_erf_wasm(v128_t x)
{
    const v128_t one = wasm_f32x4_const_splat(1.0f);
    v128_t t = mul_add_wasm(wasm_f32x4_abs(x), wasm_f32x4_const_splat(ERF_SLOPE), one);
    t = wasm_f32x4_div(one, t);
    v128_t p = wasm_f32x4_splat(erf_coefficients[0]);
    UNROLL_WASM
    for (int i = 1; i < ERF_DEGREE; i++)
        p = mul_add_wasm(p, t, wasm_f32x4_splat(erf_coefficients[i]));
    v128_t e = exp_wasm(wasm_f32x4_mul(wasm_f32x4_mul(x, x), wasm_f32x4_const_splat(-0.5f)));
    v128_t below = wasm_f32x4_mul(wasm_f32x4_mul(p, t), e);
    v128_t is_negative = wasm_f32x4_lt(x, wasm_f32x4_const_splat(0.0f));
    return wasm_f32x4_mul(x, wasm_v128_bitselect(below, wasm_f32x4_sub(one, below), is_negative));
}

#endif
