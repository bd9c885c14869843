/* lanes.h: sixteen floats as one value, `struct lanes`, for the float kernels that are written once
 * for all instruction sets (math_lanes.h, vector_lanes.h, attention_lanes.h, gemm_lanes.h).
 *
 * Each instruction set has a template lanes_<isa>.h with the same operations. Its registers hold 4,
 * 8 or 16 floats, so `struct lanes` is four, two or one of them. Every operation works on each lane
 * alone and rounds once, as the C operator does, so a kernel gives the same bits everywhere:
 *
 *   lanes_set(x)                all lanes x
 *   lanes_load(x)               x[0, 16); no alignment needed
 *   lanes_store(y, v)
 *   lanes_load_first(x, n)      the first n > 0 floats, all if n > 16; the other lanes are +0
 *   lanes_store_first(y, n, v)
 *   lanes_add sub mul div       (a, b)
 *   lanes_max min               (a, b): a > b ? a : b, a < b ? a : b; so b if either is a NaN
 *   lanes_negate abs            (a)
 *   lanes_copy_sign(a, b)       a >= 0 with the sign of b
 *   lanes_times_power(a, b)     a * 2^n, n in the low bits of b = n + ROUND_TO_INTEGER
 *   lanes_sum(a)                lane[j] += lane[j + s] for s = 8, 4, 2, 1; lane 0 of that
 *   lanes_sum_4(y, a)           y[i] = lanes_sum(a[i]), i in [0, 4)
 *   lanes_largest(a)            of lanes without a NaN
 *   lanes_hadamard(a)           for s = 1, 2, 4, 8: lanes j and j + s become their sum and
 *                               their difference
 *
 * lanes_in_register(a) is a, loaded once: gcc would otherwise load it again for each
 * multiplication.
 *
 * A condition for each lane is a `struct lanes_mask`:
 *
 *   lanes_less at_least         (a, b): a < b, a >= b; false if either is a NaN
 *   lanes_range(begin, end)     lanes j with begin <= j < end; any begin and end
 *   lanes_select(m, a, b)       a where m holds, b elsewhere
 *   lanes_keep(m, a)            a where m holds, +0 elsewhere
 *
 * Constants say how many sums the registers hold:
 *
 *   PRODUCT_ROWS rows of PRODUCT_COLUMNS `struct lanes` in attention
 *   F32_TOKENS tokens times F32_ROWS rows in a product with float weights, a multiple of 4, and
 *   F32_REST tokens, no more, for the last ones
 *
 * F32_IS_PREFETCHED says whether a product with one token prefetches later rows of float weights.
 */
#ifndef QP_LANES_H
#define QP_LANES_H

/* Inlined always: the values stay in registers, and no call crosses instruction sets. */
#define LANES_INLINE static inline __attribute__((always_inline))

/* Unroll the next loop, so that a small array becomes registers. */
#if defined(__clang__)
#define LANES_UNROLL _Pragma("clang loop unroll(full)")
#else
#define LANES_UNROLL _Pragma("GCC unroll 16")
#endif

#endif
