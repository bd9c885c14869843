/* float_wasm.c: the float kernels for SIMD128: vectors, attention, float weights. */
#if defined(__wasm_simd128__)

#include "cpu/wasm/wasm.h"

#define ISA(name) name##_wasm
#include "cpu/wasm/lanes_wasm.h"

#include "cpu/float_lanes.h"

void qp_float_kernels_wasm(struct kernels *k)
{
    ISA(float_kernels)(k);
}

#endif
