/* lanes_wasm.h: sixteen floats in four values of four. Operations: cpu/lanes.h. WebAssembly's pmin
 * and pmax are a comparison and a selection as in C; its min and max are not.
 * PRODUCT_ROWS is 2, because most machines have 16 registers and the engine needs some of them.
 * A template. */
#include "cpu/lanes.h"

#include <string.h>
#include <wasm_simd128.h>

#define PRODUCT_ROWS 2
#define PRODUCT_COLUMNS 1
#define F32_TOKENS 2
#define F32_REST 2
#define F32_ROWS 2
#define F32_IS_PREFETCHED 0

struct lanes {
    v128_t v0, v4, v8, v12;
};

struct lanes_mask {
    v128_t m0, m4, m8, m12;
};

LANES_INLINE v128_t lanes_max_wasm(v128_t a, v128_t b)
{
    return wasm_f32x4_pmax(b, a);
}

LANES_INLINE v128_t lanes_min_wasm(v128_t a, v128_t b)
{
    return wasm_f32x4_pmin(b, a);
}

LANES_INLINE v128_t lanes_copy_sign_wasm(v128_t a, v128_t b)
{
    return wasm_v128_bitselect(b, a, wasm_f32x4_const_splat(-0.0f));
}

LANES_INLINE v128_t lanes_times_power_wasm(v128_t a, v128_t b)
{
    return wasm_i32x4_add(a, wasm_i32x4_shl(b, 23));
}

#define LANES_OP_1(name, op)                                                                       \
    LANES_INLINE struct lanes name(struct lanes a)                                                 \
    {                                                                                              \
        return (struct lanes){ op(a.v0), op(a.v4), op(a.v8), op(a.v12) };                          \
    }
#define LANES_OP(name, op)                                                                         \
    LANES_INLINE struct lanes name(struct lanes a, struct lanes b)                                 \
    {                                                                                              \
        return (struct lanes){ op(a.v0, b.v0), op(a.v4, b.v4), op(a.v8, b.v8), op(a.v12, b.v12) }; \
    }
#define LANES_TEST(name, op)                                                                       \
    LANES_INLINE struct lanes_mask name(struct lanes a, struct lanes b)                            \
    {                                                                                              \
        return (struct lanes_mask){ op(a.v0, b.v0), op(a.v4, b.v4), op(a.v8, b.v8),                \
                                    op(a.v12, b.v12) };                                            \
    }
LANES_OP_1(lanes_negate, wasm_f32x4_neg)
LANES_OP_1(lanes_abs, wasm_f32x4_abs)
LANES_OP(lanes_add, wasm_f32x4_add)
LANES_OP(lanes_sub, wasm_f32x4_sub)
LANES_OP(lanes_mul, wasm_f32x4_mul)
LANES_OP(lanes_div, wasm_f32x4_div)
LANES_OP(lanes_max, lanes_max_wasm)
LANES_OP(lanes_min, lanes_min_wasm)
LANES_OP(lanes_copy_sign, lanes_copy_sign_wasm)
LANES_OP(lanes_times_power, lanes_times_power_wasm)
LANES_TEST(lanes_less, wasm_f32x4_lt)
LANES_TEST(lanes_at_least, wasm_f32x4_ge)

LANES_INLINE struct lanes lanes_set(float x)
{
    const v128_t v = wasm_f32x4_splat(x);
    return (struct lanes){ v, v, v, v };
}

LANES_INLINE struct lanes lanes_load(const float *x)
{
    return (struct lanes){ wasm_v128_load(x), wasm_v128_load(x + 4), wasm_v128_load(x + 8),
                           wasm_v128_load(x + 12) };
}

LANES_INLINE struct lanes lanes_in_register(struct lanes a)
{
    return a;
}

LANES_INLINE void lanes_store(float *y, struct lanes a)
{
    wasm_v128_store(y, a.v0);
    wasm_v128_store(y + 4, a.v4);
    wasm_v128_store(y + 8, a.v8);
    wasm_v128_store(y + 12, a.v12);
}

/* Copy n < 16 floats to part, +0 after them; returns part. Not inlined, because it is seldom run.
 */
static __attribute__((noinline)) const float *lanes_pad_wasm(float part[16], const float *x, int n)
{
    memset(part, 0, 16 * sizeof *part);
    return memcpy(part, x, (size_t)n * sizeof *x);
}

LANES_INLINE struct lanes lanes_load_first(const float *x, int n)
{
    float part[16];
    return lanes_load(n < 16 ? lanes_pad_wasm(part, x, n) : x);
}

LANES_INLINE void lanes_store_first(float *y, int n, struct lanes a)
{
    float part[16];
    lanes_store(n < 16 ? part : y, a);
    if (n < 16)
        memcpy(y, part, (size_t)n * sizeof *y);
}

LANES_INLINE v128_t lanes_sum_to_four_wasm(struct lanes a)
{
    return wasm_f32x4_add(wasm_f32x4_add(a.v0, a.v8), wasm_f32x4_add(a.v4, a.v12));
}

LANES_INLINE float lanes_sum(struct lanes a)
{
    const v128_t four = lanes_sum_to_four_wasm(a);
    const v128_t two = wasm_f32x4_add(four, wasm_i32x4_shuffle(four, four, 2, 3, 0, 1));
    return wasm_f32x4_extract_lane(two, 0) + wasm_f32x4_extract_lane(two, 1);
}

/* Two sums of a, then two of b. */
LANES_INLINE v128_t lanes_sum_halves_wasm(struct lanes a, struct lanes b)
{
    const v128_t a4 = lanes_sum_to_four_wasm(a), b4 = lanes_sum_to_four_wasm(b);
    return wasm_f32x4_add(wasm_i32x4_shuffle(a4, b4, 0, 1, 4, 5),
                          wasm_i32x4_shuffle(a4, b4, 2, 3, 6, 7));
}

LANES_INLINE void lanes_sum_4(float *y, const struct lanes *a)
{
    const v128_t ab = lanes_sum_halves_wasm(a[0], a[1]), cd = lanes_sum_halves_wasm(a[2], a[3]);
    wasm_v128_store(y, wasm_f32x4_add(wasm_i32x4_shuffle(ab, cd, 0, 2, 4, 6),
                                      wasm_i32x4_shuffle(ab, cd, 1, 3, 5, 7)));
}

LANES_INLINE float lanes_largest(struct lanes a)
{
    const v128_t four = wasm_f32x4_pmax(wasm_f32x4_pmax(a.v0, a.v8), wasm_f32x4_pmax(a.v4, a.v12));
    const v128_t two = wasm_f32x4_pmax(four, wasm_i32x4_shuffle(four, four, 2, 3, 0, 1));
    return wasm_f32x4_extract_lane(wasm_f32x4_pmax(two, wasm_i32x4_shuffle(two, two, 1, 0, 3, 2)),
                                   0);
}

LANES_INLINE v128_t lanes_hadamard_wasm(v128_t v)
{
    v = wasm_f32x4_add(wasm_i32x4_shuffle(v, v, 1, 0, 3, 2),
                       wasm_f32x4_mul(v, wasm_f32x4_const(1, -1, 1, -1)));
    return wasm_f32x4_add(wasm_i32x4_shuffle(v, v, 2, 3, 0, 1),
                          wasm_f32x4_mul(v, wasm_f32x4_const(1, 1, -1, -1)));
}

LANES_INLINE struct lanes lanes_hadamard(struct lanes a)
{
    const v128_t v0 = lanes_hadamard_wasm(a.v0), v4 = lanes_hadamard_wasm(a.v4);
    const v128_t v8 = lanes_hadamard_wasm(a.v8), v12 = lanes_hadamard_wasm(a.v12);
    const v128_t low = wasm_f32x4_add(v0, v4), low_difference = wasm_f32x4_sub(v0, v4);
    const v128_t high = wasm_f32x4_add(v8, v12), high_difference = wasm_f32x4_sub(v8, v12);
    return (
        struct lanes){ wasm_f32x4_add(low, high), wasm_f32x4_add(low_difference, high_difference),
                       wasm_f32x4_sub(low, high), wasm_f32x4_sub(low_difference, high_difference) };
}

/* Lanes j + first, j = 0 .. 3, of lanes_range. */
LANES_INLINE v128_t lanes_range_wasm(int begin, int end, int first)
{
    const v128_t j = wasm_i32x4_const(0, 1, 2, 3);
    return wasm_v128_and(wasm_i32x4_ge(j, wasm_i32x4_splat(begin - first)),
                         wasm_i32x4_lt(j, wasm_i32x4_splat(end - first)));
}

LANES_INLINE struct lanes_mask lanes_range(int begin, int end)
{
    return (struct lanes_mask){ lanes_range_wasm(begin, end, 0), lanes_range_wasm(begin, end, 4),
                                lanes_range_wasm(begin, end, 8), lanes_range_wasm(begin, end, 12) };
}

LANES_INLINE struct lanes lanes_select(struct lanes_mask m, struct lanes a, struct lanes b)
{
    return (struct lanes){ wasm_v128_bitselect(a.v0, b.v0, m.m0),
                           wasm_v128_bitselect(a.v4, b.v4, m.m4),
                           wasm_v128_bitselect(a.v8, b.v8, m.m8),
                           wasm_v128_bitselect(a.v12, b.v12, m.m12) };
}

LANES_INLINE struct lanes lanes_keep(struct lanes_mask m, struct lanes a)
{
    return (struct lanes){ wasm_v128_and(m.m0, a.v0), wasm_v128_and(m.m4, a.v4),
                           wasm_v128_and(m.m8, a.v8), wasm_v128_and(m.m12, a.v12) };
}
