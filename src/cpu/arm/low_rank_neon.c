/* low_rank_neon.c: products of low-rank matrices with what every 64-bit ARM has.
 * In, out, order of rounding: scalar/low_rank_scalar.c, to the bit. One load deinterleaves the four
 * columns of sixteen rows. */
#include "cpu/arm/arm.h"
#include "cpu/low_rank.h"

#if defined(__aarch64__)

#include "cpu/arm/low_rank_neon.h"

/* The sum of two products fits int16: |w| <= 128, |q| <= 127. */
INLINE_NEON void add_two_columns(int32x4_t dot[4], int8x16_t w0, int8x16_t w1, const int8_t *q)
{
    const int8x8_t q0 = vdup_n_s8(q[0]), q1 = vdup_n_s8(q[1]);
    const int16x8_t low = vmlal_s8(vmull_s8(vget_low_s8(w0), q0), vget_low_s8(w1), q1);
    const int16x8_t high = vmlal_s8(vmull_s8(vget_high_s8(w0), q0), vget_high_s8(w1), q1);
    dot[0] = vaddw_s16(dot[0], vget_low_s16(low));
    dot[1] = vaddw_s16(dot[1], vget_high_s16(low));
    dot[2] = vaddw_s16(dot[2], vget_low_s16(high));
    dot[3] = vaddw_s16(dot[3], vget_high_s16(high));
}

INLINE_NEON void dot_columns_base_neon(int32x4_t dot[4], const int8_t *w, const int8_t *q)
{
    const int8x16x4_t columns = vld4q_s8(w);
    add_two_columns(dot, columns.val[0], columns.val[1], q);
    add_two_columns(dot, columns.val[2], columns.val[3], q + 2);
}

static void low_rank_sums_neon(float sums[LOW_RANK_ROWS], const uint8_t *group, const int8_t *q,
                               const float *scales, int n_in)
{
    group_sums_neon(sums, group, q, scales, n_in, dot_columns_base_neon);
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
