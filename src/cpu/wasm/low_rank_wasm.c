/* low_rank_wasm.c: products of low-rank matrices with WebAssembly's 128-bit SIMD.
 * In, out, order of rounding: scalar/low_rank_scalar.c, to the bit. Half of a vector of four
 * columns of four rows is widened to words, multiplied by four elements of x and added in pairs. */
#include "cpu/low_rank.h"
#include "cpu/wasm/wasm.h"

#if defined(__wasm_simd128__)

#include "cpu/wasm/linear_wasm.h"

#include <assert.h>

enum {
    PAIRS_WASM = LOW_RANK_ROWS / 2 // vectors of two rows' pairs of sums
};

static void low_rank_sums_wasm(float sums[LOW_RANK_ROWS], const uint8_t *group, const int8_t *q,
                               const float *scales, int n_in)
{
    assert(group && q && scales && n_in > 0);
    const v128_t zero = wasm_i32x4_const_splat(0);
    v128_t sum[4] = { zero, zero, zero, zero };
    const uint8_t *w = group + LOW_RANK_SCALE_BYTES;
    for (int k = 0; k < n_in; scales++) {
        const int end = n_in - k < ACT_BLOCK ? n_in : k + ACT_BLOCK;
        v128_t dot[PAIRS_WASM] = { zero, zero, zero, zero, zero, zero, zero, zero };
        for (; k < end; k += LOW_RANK_STEP, w += LOW_RANK_STEP_BYTES) {
            const v128_t x = wasm_i16x8_extend_low_i8x16(wasm_v128_load32_splat(q + k));
            UNROLL_WASM
            for (int i = 0; i < PAIRS_WASM; i++)
                dot[i] =
                    wasm_i32x4_add(dot[i], wasm_i32x4_dot_i16x8(wasm_i16x8_load8x8(w + 8 * i), x));
        }
        const v128_t scale = wasm_f32x4_splat(*scales);
        UNROLL_WASM
        for (int i = 0; i < 4; i++) {
            const v128_t a = dot[2 * i], b = dot[2 * i + 1];
            const v128_t rows = wasm_i32x4_add(wasm_i32x4_shuffle(a, b, 0, 2, 4, 6),
                                               wasm_i32x4_shuffle(a, b, 1, 3, 5, 7));
            sum[i] = wasm_f32x4_add(sum[i], wasm_f32x4_mul(scale, wasm_f32x4_convert_i32x4(rows)));
        }
    }
    UNROLL_WASM
    for (int i = 0; i < 4; i++)
        wasm_v128_store(sums + 4 * i, sum[i]);
}

static void add_low_rank_wasm(const struct out_view *out, const struct low_rank *w,
                              const struct act_rows *x, int begin, int end)
{
    qp_add_low_rank_groups(low_rank_sums_wasm, out, w, x, begin, end);
}

void qp_low_rank_kernels_wasm(struct kernels *k)
{
    k->add_low_rank = add_low_rank_wasm;
}

#endif
