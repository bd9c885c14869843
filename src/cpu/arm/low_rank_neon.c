/* low_rank_neon.c: matrices of few rows or columns, NEON (kernels.h): a load takes sixteen rows of
 * four columns apart. */
#if defined(__aarch64__)

#include "cpu/arm/arm.h"
#include "cpu/shared_loops.h"

#include <arm_neon.h>

/* The sums of two products, which fit in 16 bits: |w| <= 128, |q| <= 127. */
static inline void add_two_columns(int32x4_t dot[4], int8x16_t w0, int8x16_t w1, const int8_t *q)
{
    const int8x8_t q0 = vdup_n_s8(q[0]), q1 = vdup_n_s8(q[1]);
    const int16x8_t low = vmlal_s8(vmull_s8(vget_low_s8(w0), q0), vget_low_s8(w1), q1);
    const int16x8_t high = vmlal_s8(vmull_s8(vget_high_s8(w0), q0), vget_high_s8(w1), q1);
    dot[0] = vaddw_s16(dot[0], vget_low_s16(low));
    dot[1] = vaddw_s16(dot[1], vget_high_s16(low));
    dot[2] = vaddw_s16(dot[2], vget_low_s16(high));
    dot[3] = vaddw_s16(dot[3], vget_high_s16(high));
}

static void low_rank_sums_neon(float sums[LOW_RANK_ROWS], const uint8_t *group, const int8_t *q,
                               const float *scales, int n_in)
{
    const float32x4_t zero = vdupq_n_f32(0);
    float32x4_t sum[4] = { zero, zero, zero, zero };
    const int8_t *w = (const int8_t *)group + LOW_RANK_SCALE_BYTES;
    for (int k = 0; k < n_in; scales++) {
        const int end = n_in - k < ACT_BLOCK ? n_in : k + ACT_BLOCK;
        int32x4_t dot[4] = { vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0) };
        for (; k < end; k += LOW_RANK_STEP, w += LOW_RANK_STEP_BYTES) {
            const int8x16x4_t columns = vld4q_s8(w);
            add_two_columns(dot, columns.val[0], columns.val[1], q + k);
            add_two_columns(dot, columns.val[2], columns.val[3], q + k + 2);
        }
        for (int i = 0; i < 4; i++)
            sum[i] = vaddq_f32(sum[i], vmulq_n_f32(vcvtq_f32_s32(dot[i]), *scales));
    }
    for (int i = 0; i < 4; i++)
        vst1q_f32(sums + 4 * i, sum[i]);
}

static void add_low_rank_neon(const struct out_view *out, const struct low_rank *w,
                              const struct act_rows *x, int begin, int end)
{
    qp_add_low_rank_groups(low_rank_sums_neon, out, w, x, begin, end);
}

void qp_low_rank_kernels_neon(struct kernels *k)
{
    k->add_low_rank = add_low_rank_neon;
}

#endif
