/* emulated_amx.h: the kernels of Intel's processors on others with AVX-512, to test their bits:
 * those of AMX with tile registers in memory. */
#ifndef EMULATED_AMX_H
#define EMULATED_AMX_H

#include "cpu/kernels.h"

/* The AMX kernels of the table; nothing on other processors than x86-64. */
void emulated_amx_kernels(struct kernels *k);

/* The kernels of level "intel", which need no Intel processor, and the gemm of level "zen4". */
void intel_kernels(struct kernels *k);
void zen4_gemm(struct kernels *k);

#endif
