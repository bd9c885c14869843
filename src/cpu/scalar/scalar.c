/* scalar.c: the init of the scalar kernels.
 * In:  an empty table.
 * Out: the table with every kernel set but gemm_few. */
#include "cpu/scalar/scalar.h"

void qp_cpu_scalar(struct kernels *k)
{
    k->name = "scalar";
    qp_linear_kernels_scalar(k);
    qp_low_rank_kernels_scalar(k);
    qp_vector_kernels_scalar(k);
    qp_attention_kernels_scalar(k);
}
