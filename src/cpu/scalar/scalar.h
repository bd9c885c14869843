/* scalar.h: the specification of all kernels in plain C, and the files that have it. */
#ifndef QP_SCALAR_H
#define QP_SCALAR_H

#include "cpu/kernels.h"

/* scalar.c: sets every kernel but gemm_few. */
void qp_cpu_scalar(struct kernels *k);

/* One file's part of that. */
void qp_linear_kernels_scalar(struct kernels *k);
void qp_low_rank_kernels_scalar(struct kernels *k);
void qp_vector_kernels_scalar(struct kernels *k);
void qp_attention_kernels_scalar(struct kernels *k);

#endif
