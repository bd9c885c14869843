/* kernels.c: which version of each kernel this machine runs.
 * In:  the features of the CPU (base.h).
 * Out: the table of kernels.
 *
 * The scalar kernels come first. Then each instruction set that the CPU has overwrites the kernels
 * that it improves. No other code checks CPU features. */
#include "cpu/kernels.h"
#include "cpu/scalar/scalar.h"

#if defined(__x86_64__)
#include "cpu/x86/x86.h"
#elif defined(__aarch64__)
#include "cpu/arm/arm.h"
#elif defined(__wasm_simd128__)
#include "cpu/wasm/wasm.h"
#endif

#include <assert.h>

/* In the order in which they overwrite each other. */
static const struct {
    unsigned feature; // enum cpu_feature; 0: every CPU has it
    void (*init)(struct kernels *k);
} kernel_levels[] = {
    { 0, qp_cpu_scalar },
#if defined(__x86_64__)
    { CPU_AVX2, qp_cpu_avx2 },
    { CPU_AVXVNNI, qp_cpu_avxvnni },
    { CPU_AVX512VNNI, qp_cpu_avx512vnni },
#if !defined(__ANDROID__) // its devices have none of these
    { CPU_AVX512VNNI | CPU_HALF_512, qp_cpu_zen4 },
    { CPU_AVX512VNNI | CPU_INTEL_512, qp_cpu_intel },
    { CPU_AVX512VNNI | CPU_INTEL_512 | CPU_VBMI, qp_cpu_intel_vbmi },
    { CPU_AVX512VNNI | CPU_AMX, qp_cpu_amx },
#endif
#elif defined(__aarch64__)
    { CPU_NEON, qp_cpu_neon },
    { CPU_DOTPROD, qp_cpu_dotprod },
    { CPU_I8MM, qp_cpu_i8mm },
#elif defined(__wasm_simd128__)
    { CPU_WASM_SIMD, qp_cpu_simd128 },
    { CPU_WASM_RELAXED, qp_cpu_relaxed },
#endif
};

struct kernels qp_kernels_for(unsigned cpu)
{
    struct kernels k = { 0 };
    for (size_t i = 0; i < QP_COUNT(kernel_levels); i++)
        if ((cpu & kernel_levels[i].feature) == kernel_levels[i].feature)
            kernel_levels[i].init(&k);
    assert(k.name && k.few_tokens >= 1 && k.few_tokens <= FEW_TOKENS);
    assert(k.task_tokens > 0 && k.task_tokens <= TASK_ROWS);
    return k;
}
