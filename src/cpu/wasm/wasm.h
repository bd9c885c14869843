/* wasm.h: the instruction sets of WebAssembly, and the files that have their kernels. */
#ifndef QP_WASM_H
#define QP_WASM_H

#include "cpu/kernels.h"

/* wasm.c: each overwrites the kernels that its instruction set improves. */
void qp_cpu_simd128(struct kernels *k);
void qp_cpu_relaxed(struct kernels *k);

/* One file's part of that. */
void qp_linear_kernels_wasm(struct kernels *k);
void qp_linear_kernels_relaxed(struct kernels *k); // does nothing in a build without relaxed SIMD
void qp_low_rank_kernels_wasm(struct kernels *k);
void qp_float_kernels_wasm(struct kernels *k);

#endif
