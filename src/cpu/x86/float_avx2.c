/* float_avx2.c: the float kernels for AVX2: vectors, attention, float weights. */
#if defined(__x86_64__)

#include "cpu/x86/x86.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2")
#endif

#define ISA(name) name##_avx2
#include "cpu/x86/lanes_avx2.h"

#include "cpu/float_lanes.h"

void qp_float_kernels_avx2(struct kernels *k)
{
    ISA(float_kernels)(k);
}

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
