/* float_lanes.h: all float kernels of one instruction set, on sixteen lanes.
 * In:  ISA(name), which appends the instruction set's suffix, and its lanes (lanes.h).
 * Out: ISA(float_kernels), which overwrites these kernels in a table.
 *
 * A template, included by a file that has enabled its instruction set and included its lanes. Each
 * template below needs those above it. */
// clang-format off
#include "cpu/math_lanes.h"
#include "cpu/vector_lanes.h"
#include "cpu/attention_lanes.h"
#include "cpu/gemm_lanes.h"
// clang-format on

static void ISA(float_kernels)(struct kernels *k)
{
    k->rms_norm = ISA(rms_norm);
    k->layer_norm = ISA(layer_norm);
    k->activate = ISA(activate);
    k->add = ISA(add);
    k->axpby = ISA(axpby);
    k->rotate = ISA(rotate);
    k->hadamard = ISA(hadamard);
    k->soft_cap = ISA(soft_cap);
    k->conv = ISA(conv);
    k->sum_exp = ISA(sum_exp);
    k->softmax = ISA(softmax);
    k->attend = ISA(attend);
    k->gemv_f32 = ISA(gemv_f32);
    k->gemm_f32 = ISA(gemm_f32);
}
