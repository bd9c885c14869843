/* x86.h: the instruction sets of x86-64, and the files that have their kernels. */
#ifndef QP_X86_H
#define QP_X86_H

#include "cpu/kernels.h"

enum {
    /* Bytes to prefetch ahead when a low-rank matrix is read for one token: the matrix that is read
     * next follows it in memory (pack_adapter.c), which the processor cannot know. */
    LOW_RANK_AHEAD = 6144
};

/* x86.c: each overwrites the kernels that its instruction set improves. */
void qp_cpu_avx2(struct kernels *k);
void qp_cpu_avxvnni(struct kernels *k);
void qp_cpu_avx512vnni(struct kernels *k);
void qp_cpu_zen4(struct kernels *k);
void qp_cpu_intel(struct kernels *k);
void qp_cpu_intel_vbmi(struct kernels *k);
void qp_cpu_amx(struct kernels *k);

/* One file's part of that. */
void qp_linear_kernels_avx2(struct kernels *k);
void qp_linear_kernels_avxvnni(struct kernels *k);
void qp_linear_kernels_avx512vnni(struct kernels *k);
void qp_linear_kernels_amx(struct kernels *k);
void qp_gemv_kernels_avx512vnni(struct kernels *k);
void qp_gemv_kernels_zen4(struct kernels *k);
void qp_gemv_kernels_intel(struct kernels *k);
void qp_gemv_kernels_intel_vbmi(struct kernels *k);
void qp_low_rank_kernels_avx2(struct kernels *k);
void qp_low_rank_kernels_avxvnni(struct kernels *k);
void qp_low_rank_kernels_avx512(struct kernels *k);
void qp_float_kernels_avx2(struct kernels *k);
void qp_float_kernels_avx512(struct kernels *k);
void qp_attention_kernels_avx512(struct kernels *k);
void qp_attention_kernels_amx(struct kernels *k);

/* The two between which Zen 4 chooses. The first is that of AVX2, prefetching to L2. */
void qp_gemm_few_zen4(const struct out_view *out, const struct matrix *w, const struct act_rows *x,
                      int begin, int end);
void qp_gemm_few_avx512vnni(const struct out_view *out, const struct matrix *w,
                            const struct act_rows *x, int begin, int end);

/* gemm_avx512vnni.c: the same product by different kernels. */
void qp_gemm_avx512vnni(const struct out_view *out, const void *tile, const struct matrix *w,
                        const struct act_rows *x, int row, int n_rows);
void qp_gemm_zen4(const struct out_view *out, const void *tile, const struct matrix *w,
                  const struct act_rows *x, int row, int n_rows);
void qp_gemm_intel_avx512(const struct out_view *out, const void *tile, const struct matrix *w,
                          const struct act_rows *x, int row, int n_rows);

/* For AMX: packed weights without the 128, and a gemm for what does not fill its tiles. */
void qp_pack_signed_avx512(void *tile, const struct matrix *w, int row, int n_rows);
void qp_gemm_signed_avx512(const struct out_view *out, const void *tile, const struct matrix *w,
                           const struct act_rows *x, int row, int n_rows);

#endif
