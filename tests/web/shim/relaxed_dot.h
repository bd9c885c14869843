/* relaxed_dot.h: relaxed dot products as browsers on other machines compute them, so that every
 * method of the relaxed kernels is tested here. -DENGINE=1: both operands are signed (sdot). 2: the
 * second is unsigned (vpdpbusd). 3: as 2, but pairs of products are added in int16, which saturates
 * (pmaddubsw). */
#include <wasm_simd128.h>

static inline v128_t engine_dot(v128_t a, v128_t b, v128_t sum)
{
    const v128_t b_low =
        ENGINE == 1 ? wasm_i16x8_extend_low_i8x16(b) : wasm_u16x8_extend_low_u8x16(b);
    const v128_t b_high =
        ENGINE == 1 ? wasm_i16x8_extend_high_i8x16(b) : wasm_u16x8_extend_high_u8x16(b);
    v128_t low = wasm_i32x4_dot_i16x8(wasm_i16x8_extend_low_i8x16(a), b_low);
    v128_t high = wasm_i32x4_dot_i16x8(wasm_i16x8_extend_high_i8x16(a), b_high);
    if (ENGINE == 3) {
        const v128_t pairs = wasm_i16x8_narrow_i32x4(low, high);
        return wasm_i32x4_add(sum, wasm_i32x4_extadd_pairwise_i16x8(pairs));
    }
    const v128_t even = wasm_i32x4_shuffle(low, high, 0, 2, 4, 6);
    const v128_t odd = wasm_i32x4_shuffle(low, high, 1, 3, 5, 7);
    return wasm_i32x4_add(sum, wasm_i32x4_add(even, odd));
}

#define __wasm_relaxed_simd__ 1
#undef wasm_i32x4_relaxed_dot_i8x16_i7x16_add
#define wasm_i32x4_relaxed_dot_i8x16_i7x16_add engine_dot
#undef wasm_i8x16_relaxed_swizzle
#define wasm_i8x16_relaxed_swizzle wasm_i8x16_swizzle
