/* linear_avx512vnni.c: matrix products; not there yet: the table keeps the level below. */
#include "cpu/kernels.h"

void qp_linear_kernels_avx512vnni(struct kernels *k)
{
    (void)k;
}
