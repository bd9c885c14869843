/* x86.c: one init for each instruction set of x86-64.
 * In:  the table with the kernels of the levels below.
 * Out: the table with those that this level improves overwritten. */
#include "cpu/x86/x86.h"

#if defined(__x86_64__)

void qp_cpu_avx2(struct kernels *k)
{
    k->name = "avx2";
    qp_linear_kernels_avx2(k);
    qp_low_rank_kernels_avx2(k);
    qp_float_kernels_avx2(k);
}

void qp_cpu_avxvnni(struct kernels *k)
{
    k->name = "avxvnni";
    qp_linear_kernels_avxvnni(k);
    qp_low_rank_kernels_avxvnni(k);
}

void qp_cpu_avx512vnni(struct kernels *k)
{
    k->name = "avx512vnni";
    qp_linear_kernels_avx512vnni(k);
    qp_gemv_kernels_avx512vnni(k);
    qp_low_rank_kernels_avx512(k);
#if !defined(__ANDROID__) // only emulators have AVX-512; AVX2 does for their few float operations
    qp_float_kernels_avx512(k);
    qp_attention_kernels_avx512(k);
#endif
}

#if !defined(__ANDROID__)
/* Up to 4 tokens the rows of AVX2 are faster there (docs/notes/decode.md). */
static void gemm_few_rows_zen4(const struct out_view *out, const struct matrix *w,
                               const struct act_rows *x, int begin, int end)
{
    if (x->n <= 4)
        qp_gemm_few_zen4(out, w, x, begin, end);
    else
        qp_gemm_few_avx512vnni(out, w, x, begin, end);
}

static void gemv_rows_zen4(float *y, const struct matrix *w, const struct act_rows *x, int begin,
                           int end)
{
    qp_gemm_few_zen4(&(struct out_view){ .y = y }, w, x, begin, end);
}

void qp_cpu_zen4(struct kernels *k)
{
    k->name = "zen4";
    k->gemv_i8 = gemv_rows_zen4;
    k->gemv_i4 = gemv_rows_zen4;
    k->gemm_few = gemm_few_rows_zen4;
    k->gemm = qp_gemm_zen4;
    qp_gemv_kernels_zen4(k);
}

void qp_cpu_intel(struct kernels *k)
{
    k->name = "intel";
    k->gemm = qp_gemm_intel_avx512;
    qp_gemv_kernels_intel(k);
}

void qp_cpu_intel_vbmi(struct kernels *k)
{
    qp_gemv_kernels_intel_vbmi(k);
}

void qp_cpu_amx(struct kernels *k)
{
    k->name = "amx";
    qp_linear_kernels_amx(k);
    qp_attention_kernels_amx(k);
}
#endif

#endif
