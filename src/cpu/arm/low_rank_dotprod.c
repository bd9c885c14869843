/* low_rank_dotprod.c: products of low-rank matrices with sdot.
 * In, out, order of rounding: scalar/low_rank_scalar.c, to the bit. A vector is four columns of
 * four rows, multiplied by four elements of x. */
#include "cpu/arm/arm.h"
#include "cpu/low_rank.h"

#if defined(__aarch64__)

#include "cpu/arm/low_rank_neon.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif

INLINE_NEON void dot_columns_dotprod(int32x4_t dot[4], const int8_t *w, const int8_t *q)
{
    int32_t four;
    memcpy(&four, q, sizeof four);
    const int8x16_t x = vreinterpretq_s8_s32(vdupq_n_s32(four));
    for (int i = 0; i < 4; i++)
        dot[i] = vdotq_s32(dot[i], vld1q_s8(w + 16 * i), x);
}

static void low_rank_sums_dotprod(float sums[LOW_RANK_ROWS], const uint8_t *group, const int8_t *q,
                                  const float *scales, int n_in)
{
    group_sums_neon(sums, group, q, scales, n_in, dot_columns_dotprod);
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
