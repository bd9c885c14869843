/* float_avx512.c: the float kernels for AVX-512: vectors, attention, float weights. */
#if defined(__x86_64__)

#include "cpu/x86/x86.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))),        \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl")
#endif

#define ISA(name) name##_avx512
#include "cpu/x86/lanes_avx512.h"

#include "cpu/float_lanes.h"

void qp_float_kernels_avx512(struct kernels *k)
{
    ISA(float_kernels)(k);
}

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
