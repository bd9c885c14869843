/* arm.h: the instruction sets of 64-bit ARM, and the files that have their kernels. */
#ifndef QP_ARM_H
#define QP_ARM_H

#include "cpu/kernels.h"

/* arm.c: each overwrites the kernels that its instruction set improves. */
void qp_cpu_neon(struct kernels *k);
void qp_cpu_dotprod(struct kernels *k);
void qp_cpu_i8mm(struct kernels *k);

/* One file's part of that. */
void qp_linear_kernels_neon(struct kernels *k);
void qp_linear_kernels_dotprod(struct kernels *k);
void qp_linear_kernels_i8mm(struct kernels *k);
void qp_low_rank_kernels_neon(struct kernels *k);
void qp_low_rank_kernels_dotprod(struct kernels *k);
void qp_float_kernels_neon(struct kernels *k);

#endif
