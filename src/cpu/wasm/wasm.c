/* wasm.c: one init for each instruction set of WebAssembly.
 * In:  the table with the kernels of the levels below.
 * Out: the table with those that this level improves overwritten. */
#include "cpu/wasm/wasm.h"

#if defined(__wasm_simd128__)

void qp_cpu_simd128(struct kernels *k)
{
    k->name = "simd128";
    qp_linear_kernels_wasm(k);
    qp_low_rank_kernels_wasm(k);
    qp_float_kernels_wasm(k);
}

void qp_cpu_relaxed(struct kernels *k)
{
    k->name = "relaxed";
    qp_linear_kernels_relaxed(k);
}

#endif
