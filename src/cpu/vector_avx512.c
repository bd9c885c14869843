/* vector_avx512.c: not written yet: scalar stands in. */
#include "cpu/kernels.h"

void qp_vector_kernels_avx512(struct kernels *k)
{
    (void)k;
}
