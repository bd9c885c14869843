/* kernels.c: which version of each kernel this machine runs.
 * In:  the CPU's features (base.h). Out: the table. The scalar version comes first, then each level
 * that the CPU has overwrites what it does better; nothing else in the library asks for the CPU. */
#include "cpu/kernels.h"

struct kernels qp_kernels_for(unsigned cpu)
{
    struct kernels k = { .name = "scalar" };
    qp_linear_kernels_scalar(&k);
    qp_low_rank_kernels_scalar(&k);
    qp_vector_kernels_scalar(&k);
    qp_attention_kernels_scalar(&k);
    if (cpu & CPU_AVX2) {
        k.name = "avx2";
        qp_linear_kernels_avx2(&k);
        qp_low_rank_kernels_avx2(&k);
        qp_vector_kernels_avx2(&k);
        qp_attention_kernels_avx2(&k);
    }
    if (cpu & CPU_AVXVNNI) {
        k.name = "avxvnni";
        qp_linear_kernels_avxvnni(&k);
        qp_low_rank_kernels_avxvnni(&k);
    }
    if (cpu & CPU_AVX512VNNI) {
        k.name = "avx512vnni";
        qp_linear_kernels_avx512vnni(&k);
        qp_gemv_kernels_avx512vnni(&k);
        qp_low_rank_kernels_avx512(&k);
        qp_vector_kernels_avx512(&k);
        qp_attention_kernels_avx512(&k);
    }
    if (cpu & CPU_NEON) {
        k.name = "neon";
        qp_linear_kernels_neon(&k);
        qp_low_rank_kernels_neon(&k);
        qp_vector_kernels_neon(&k);
        qp_attention_kernels_neon(&k);
    }
    if (cpu & CPU_DOTPROD) {
        k.name = "dotprod";
        qp_linear_kernels_dotprod(&k);
        qp_low_rank_kernels_dotprod(&k);
    }
    if (cpu & CPU_I8MM) {
        k.name = "i8mm";
        qp_linear_kernels_i8mm(&k);
    }
    if (cpu & CPU_WASM_SIMD) {
        k.name = "simd128";
        qp_linear_kernels_wasm(&k);
        qp_low_rank_kernels_wasm(&k);
        qp_vector_kernels_wasm(&k);
        qp_attention_kernels_wasm(&k);
    }
    if (cpu & CPU_WASM_RELAXED) {
        k.name = "relaxed";
        qp_linear_kernels_relaxed(&k);
    }
    return k;
}
