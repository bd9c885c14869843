/* float_neon.c: the float kernels for NEON: vectors, attention, float weights. */
#if defined(__aarch64__)

#include "cpu/arm/arm.h"

#define ISA(name) name##_neon
#include "cpu/arm/lanes_neon.h"

#include "cpu/float_lanes.h"

void qp_float_kernels_neon(struct kernels *k)
{
    ISA(float_kernels)(k);
}

#endif
