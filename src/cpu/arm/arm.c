/* arm.c: one init for each instruction set of 64-bit ARM.
 * In:  the table with the kernels of the levels below.
 * Out: the table with those that this level improves overwritten. */
#include "cpu/arm/arm.h"

#if defined(__aarch64__)

void qp_cpu_neon(struct kernels *k)
{
    k->name = "neon";
    qp_linear_kernels_neon(k);
    qp_low_rank_kernels_neon(k);
    qp_float_kernels_neon(k);
}

void qp_cpu_dotprod(struct kernels *k)
{
    k->name = "dotprod";
    qp_linear_kernels_dotprod(k);
    qp_low_rank_kernels_dotprod(k);
}

void qp_cpu_i8mm(struct kernels *k)
{
    k->name = "i8mm";
    qp_linear_kernels_i8mm(k);
}

#endif
