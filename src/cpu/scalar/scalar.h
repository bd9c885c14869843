/* scalar.h: the specification of all kernels in plain C, and the files that have it. */
#ifndef QP_SCALAR_H
#define QP_SCALAR_H

#include "cpu/kernels.h"

/* lane[j] += lane[j + s] for s = 8, 4, 2, 1; returns lane 0. Overwrites the lanes. */
static inline float sum_of_lanes(float lane[16])
{
    for (int s = 8; s > 0; s /= 2)
        for (int j = 0; j < s; j++)
            lane[j] += lane[j + s];
    return lane[0];
}

/* scalar.c: sets every kernel but gemm_few. */
void qp_cpu_scalar(struct kernels *k);

/* One file's part of that. */
void qp_linear_kernels_scalar(struct kernels *k);
void qp_low_rank_kernels_scalar(struct kernels *k);
void qp_vector_kernels_scalar(struct kernels *k);
void qp_attention_kernels_scalar(struct kernels *k);

#endif
