/* x86.c: one init for each instruction set of x86-64.
 * In:  the table with the kernels of the levels below.
 * Out: the table with those that this level improves overwritten. */
#include "cpu/x86/x86.h"

#if defined(__x86_64__)

void qp_cpu_avx2(struct kernels *k)
{
    k->name = "avx2";
    qp_linear_kernels_avx2(k);
    qp_low_rank_kernels_avx2(k);
    qp_float_kernels_avx2(k);
}

void qp_cpu_avxvnni(struct kernels *k)
{
    k->name = "avxvnni";
    qp_linear_kernels_avxvnni(k);
    qp_low_rank_kernels_avxvnni(k);
}

void qp_cpu_avx512vnni(struct kernels *k)
{
    k->name = "avx512vnni";
    qp_linear_kernels_avx512vnni(k);
    qp_gemv_kernels_avx512vnni(k);
    qp_low_rank_kernels_avx512(k);
    qp_float_kernels_avx512(k);
}

void qp_cpu_amx(struct kernels *k)
{
    k->name = "amx";
    qp_linear_kernels_amx(k);
}

#endif
