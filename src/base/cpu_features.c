/* cpu_features.c: what this processor can do.
 * In:  on x86, cpuid and the registers that the system saves on a context switch (xgetbv); on ARM,
 *      what the system reports; QUIP_CPU.
 * Out: a mask of enum cpu_feature. A feature is reported only if everything that its kernels use is
 *      available. */
#include "base.h"

#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)

#include <cpuid.h>

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* XCR0: the registers that the system saves. 2, 4: xmm, ymm; 0x20, 0x40, 0x80: mask, zmm;
 * 0x20000, 0x40000: tiles. */
static unsigned saved_registers(void)
{
    unsigned low, high;
    __asm__ __volatile__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

static bool has_all(unsigned word, unsigned bits)
{
    return (word & bits) == bits;
}

/* Linux gives a process the memory for tiles only when it asks: Documentation/arch/x86/xstate.rst.
 * To ask again does no harm. */
static bool may_use_tiles(void)
{
#if defined(__linux__) && defined(SYS_arch_prctl)
    const int arch_req_xcomp_perm = 0x1023, xfeature_xtiledata = 18;
    return syscall(SYS_arch_prctl, arch_req_xcomp_perm, xfeature_xtiledata) == 0;
#else
    return false;
#endif
}

/* Does cpuid name this vendor, in the order ebx, edx, ecx? */
static bool is_vendor(unsigned ebx, unsigned edx, unsigned ecx)
{
    unsigned a, b, c, d;
    return __get_cpuid(0, &a, &b, &c, &d) && b == ebx && d == edx && c == ecx;
}

/* AMD, family 0x19. Of this family only Zen 4 has AVX-512. AMD's manual 24594, CPUID
 * Fn0000_0001_EAX: base family in bits 8 to 11, extended family, which is added, in bits 20 to 27.
 */
static bool has_half_512(void)
{
    unsigned a, b, c, d;
    const unsigned base_family = 0xf00, extended_family = 0xa << 20;
    return is_vendor(signature_AMD_ebx, signature_AMD_edx, signature_AMD_ecx) &&
           __get_cpuid(1, &a, &b, &c, &d) && (a & 0x0ff00f00) == (base_family | extended_family);
}

static bool is_intel(void)
{
    return is_vendor(signature_INTEL_ebx, signature_INTEL_edx, signature_INTEL_ecx);
}

/* Bits as in Intel's manual, volume 2A, CPUID. */
static unsigned machine_features(void)
{
    unsigned a, b, c, d;
    const unsigned fma = 1u << 12, osxsave = 1u << 27, avx = 1u << 28;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !has_all(c, fma | osxsave | avx))
        return 0;
    unsigned saved = saved_registers();
    const unsigned avx2 = 1u << 5;
    if (!has_all(saved, 0x06) || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !has_all(b, avx2))
        return 0;

    unsigned features = CPU_AVX2;
    unsigned n_subleaves = a;
    const unsigned f = 1u << 16, dq = 1u << 17, bw = 1u << 30, vl = 1u << 31, vnni = 1u << 11;
    const unsigned vbmi = 1u << 1;
    if (has_all(saved, 0xe6) && has_all(b, f | dq | bw | vl) && has_all(c, vnni))
        features |= CPU_AVX512VNNI | (has_all(c, vbmi) ? CPU_VBMI : 0) |
                    (has_all(c, vbmi) && has_half_512() ? CPU_HALF_512 : 0) |
                    (is_intel() ? CPU_INTEL_512 : 0);
    const unsigned amx_tile = 1u << 24, amx_int8 = 1u << 25;
    if (has_all(saved, 0x60000) && has_all(d, amx_tile | amx_int8) && may_use_tiles())
        features |= CPU_AMX;
    const unsigned avx_vnni = 1u << 4;
    if (n_subleaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && has_all(a, avx_vnni))
        features |= CPU_AVXVNNI;
    return features;
}

#elif defined(__aarch64__) && defined(__linux__)

#include <sys/auxv.h>

/* Bits of the Linux ABI, arch/arm64/include/uapi/asm/hwcap.h. Old headers lack the later ones. */
static unsigned machine_features(void)
{
    const unsigned long dotprod = 1ul << 20, i8mm = 1ul << 13;
    unsigned features = CPU_NEON;
    if (getauxval(AT_HWCAP) & dotprod)
        features |= CPU_DOTPROD;
    if (features & CPU_DOTPROD && getauxval(AT_HWCAP2) & i8mm)
        features |= CPU_I8MM;
    return features;
}

#elif defined(__aarch64__) && defined(__APPLE__)

#include <sys/sysctl.h>

static bool has_feature(const char *name)
{
    int value = 0;
    size_t n_bytes = sizeof value;
    return sysctlbyname(name, &value, &n_bytes, NULL, 0) == 0 && value;
}

static unsigned machine_features(void)
{
    unsigned features = CPU_NEON;
    if (has_feature("hw.optional.arm.FEAT_DotProd"))
        features |= CPU_DOTPROD;
    if (features & CPU_DOTPROD && has_feature("hw.optional.arm.FEAT_I8MM"))
        features |= CPU_I8MM;
    return features;
}

#elif defined(__aarch64__)

static unsigned machine_features(void)
{
    return CPU_NEON;
}

#elif defined(__wasm_relaxed_simd__)

static unsigned machine_features(void)
{
    return CPU_WASM_SIMD | CPU_WASM_RELAXED;
}

#elif defined(__wasm_simd128__)

static unsigned machine_features(void)
{
    return CPU_WASM_SIMD;
}

#else

static unsigned machine_features(void)
{
    return 0;
}

#endif

const struct cpu_level *qp_cpu_level(int i)
{
    static const struct cpu_level levels[] = {
        { "scalar", 0, 0 },
        { "avx2", CPU_AVX2, CPU_AVX2 },
        { "avxvnni", CPU_AVX2 | CPU_AVXVNNI, CPU_AVXVNNI },
        { "avx512vnni", CPU_AVX2 | CPU_AVXVNNI | CPU_AVX512VNNI, CPU_AVX512VNNI },
        { "zen4", CPU_AVX2 | CPU_AVXVNNI | CPU_AVX512VNNI | CPU_HALF_512,
          CPU_AVX512VNNI | CPU_HALF_512 },
        { "intel", CPU_AVX2 | CPU_AVXVNNI | CPU_AVX512VNNI | CPU_INTEL_512 | CPU_VBMI,
          CPU_AVX512VNNI | CPU_INTEL_512 },
        { "amx", CPU_AVX2 | CPU_AVXVNNI | CPU_AVX512VNNI | CPU_INTEL_512 | CPU_VBMI | CPU_AMX,
          CPU_AVX512VNNI | CPU_AMX },
        { "neon", CPU_NEON, CPU_NEON },
        { "dotprod", CPU_NEON | CPU_DOTPROD, CPU_DOTPROD },
        { "i8mm", CPU_NEON | CPU_DOTPROD | CPU_I8MM, CPU_I8MM },
        { "simd128", CPU_WASM_SIMD, CPU_WASM_SIMD },
        { "relaxed", CPU_WASM_SIMD | CPU_WASM_RELAXED, CPU_WASM_RELAXED },
    };
    return i < (int)QP_COUNT(levels) ? &levels[i] : NULL;
}

unsigned qp_cpu_features(void)
{
    const char *name = getenv("QUIP_CPU");
    const struct cpu_level *level;
    for (int i = 0; name && (level = qp_cpu_level(i)); i++)
        if (!strcmp(name, level->name))
            return machine_features() & level->features;
    return machine_features();
}

const char *qp_best_cpu_level(void)
{
    const unsigned features = qp_cpu_features();
    const struct cpu_level *level;
    const char *name = NULL;
    for (int i = 0; (level = qp_cpu_level(i)); i++)
        if ((level->own & ~features) == 0)
            name = level->name;
    return name;
}
