/* low_rank_dotprod.c: matrices of few rows or columns, sdot (kernels.h): a vector is four columns
 * of four rows, multiplied by four numbers of x. */
#if defined(__aarch64__)

#include "cpu/arm/arm.h"
#include "cpu/shared_loops.h"

#include <arm_neon.h>
#include <string.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif

static void low_rank_sums_dotprod(float sums[LOW_RANK_ROWS], const uint8_t *group, const int8_t *q,
                                  const float *scales, int n_in)
{
    const float32x4_t zero = vdupq_n_f32(0);
    float32x4_t sum[4] = { zero, zero, zero, zero };
    const int8_t *w = (const int8_t *)group + LOW_RANK_SCALE_BYTES;
    for (int k = 0; k < n_in; scales++) {
        const int end = n_in - k < ACT_BLOCK ? n_in : k + ACT_BLOCK;
        int32x4_t dot[4] = { vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0) };
        for (; k < end; k += LOW_RANK_STEP, w += LOW_RANK_STEP_BYTES) {
            int32_t four;
            memcpy(&four, q + k, sizeof four);
            const int8x16_t x = vreinterpretq_s8_s32(vdupq_n_s32(four));
            for (int i = 0; i < 4; i++)
                dot[i] = vdotq_s32(dot[i], vld1q_s8(w + 16 * i), x);
        }
        for (int i = 0; i < 4; i++)
            sum[i] = vaddq_f32(sum[i], vmulq_n_f32(vcvtq_f32_s32(dot[i]), *scales));
    }
    for (int i = 0; i < 4; i++)
        vst1q_f32(sums + 4 * i, sum[i]);
}

static void add_low_rank_dotprod(const struct out_view *out, const struct low_rank *w,
                                 const struct act_rows *x, int begin, int end)
{
    qp_add_low_rank_groups(low_rank_sums_dotprod, out, w, x, begin, end);
}

void qp_low_rank_kernels_dotprod(struct kernels *k)
{
    k->add_low_rank = add_low_rank_dotprod;
}

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
