/* thin_neon.c: matrices of few columns, NEON (kernels.h): a load takes sixteen rows of two columns
 * apart. */
#if defined(__aarch64__) || defined(_M_ARM64)

#include "cpu/kernels.h"

#include <arm_neon.h>

/* dot[i] += rows 4 i to 4 i + 3 of two columns times q[0], q[1]; |q|, |w| <= 127: the sums of two
 * products fit in 16 bits. */
static inline void dot_columns(int32x4_t dot[4], const int8_t *p, const int8_t *q)
{
    const int8x16x2_t w = vld2q_s8(p);
    const int8x8_t q0 = vdup_n_s8(q[0]), q1 = vdup_n_s8(q[1]);
    const int16x8_t low = vmlal_s8(vmull_s8(vget_low_s8(w.val[0]), q0), vget_low_s8(w.val[1]), q1);
    const int16x8_t high =
        vmlal_s8(vmull_s8(vget_high_s8(w.val[0]), q0), vget_high_s8(w.val[1]), q1);
    dot[0] = vaddw_s16(dot[0], vget_low_s16(low));
    dot[1] = vaddw_s16(dot[1], vget_high_s16(low));
    dot[2] = vaddw_s16(dot[2], vget_low_s16(high));
    dot[3] = vaddw_s16(dot[3], vget_high_s16(high));
}

static void add_thin_neon(float *y, const struct thin *w, const struct act_row *x, int begin,
                          int end)
{
    const int n_pairs = (w->n_in + 1) / 2;
    for (int r = begin / 16 * 16; r < end; r += 16) {
        const int8_t *p = w->data + (size_t)r * (size_t)n_pairs * 2;
        float32x4_t sum[4] = { vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0) };
        float add[16];
        for (int k = 0, b = 0; k < n_pairs; b++) {
            const int stop = n_pairs - k < ACT_BLOCK / 2 ? n_pairs : k + ACT_BLOCK / 2;
            int32x4_t dot[4] = { vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0) };
            for (; k < stop; k++, p += 32)
                dot_columns(dot, p, x->q + 2 * k);
            for (int i = 0; i < 4; i++)
                sum[i] = vaddq_f32(sum[i], vmulq_n_f32(vcvtq_f32_s32(dot[i]), x->scales[b]));
        }
        for (int i = 0; i < 4; i++)
            vst1q_f32(add + 4 * i, vmulq_f32(sum[i], vld1q_f32(w->scales + r + 4 * i)));
        for (int i = 0; i < 16; i++)
            if (r + i >= begin && r + i < end)
                y[r + i - begin] += add[i];
    }
}

void qp_thin_kernels_neon(struct kernels *k)
{
    k->add_thin = add_thin_neon;
}

#else

#include "cpu/kernels.h"

void qp_thin_kernels_neon(struct kernels *k)
{
    (void)k;
}

#endif
