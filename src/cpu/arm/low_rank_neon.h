/* low_rank_neon.h: the sums of a group of a low-rank matrix on 128-bit registers. The levels differ
 * in the product of four columns. A file includes it before enabling its instruction set. */
#ifndef QP_LOW_RANK_NEON_H
#define QP_LOW_RANK_NEON_H

#include "cpu/arm/linear_neon.h"
#include "cpu/low_rank.h"

#include <assert.h>

/* dot[i] += the products of rows 4 i to 4 i + 3 and q over four columns. w has the 16 rows of these
 * columns, four bytes each. */
typedef void (*dot_columns_neon)(int32x4_t dot[4], const int8_t *w, const int8_t *q);

INLINE_NEON void group_sums_neon(float sums[LOW_RANK_ROWS], const uint8_t *group, const int8_t *q,
                                 const float *scales, int n_in, dot_columns_neon dot_columns)
{
    assert(group && q && scales && n_in > 0);
    const float32x4_t zero = vdupq_n_f32(0);
    float32x4_t sum[4] = { zero, zero, zero, zero };
    const int8_t *w = (const int8_t *)group + LOW_RANK_SCALE_BYTES;
    for (int k = 0; k < n_in; scales++) {
        const int end = n_in - k < ACT_BLOCK ? n_in : k + ACT_BLOCK;
        int32x4_t dot[4] = { vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0) };
        for (; k < end; k += LOW_RANK_STEP, w += LOW_RANK_STEP_BYTES)
            dot_columns(dot, w, q + k);
        for (int i = 0; i < 4; i++)
            sum[i] = scale_dots_neon(sum[i], *scales, dot[i]);
    }
    for (int i = 0; i < 4; i++)
        vst1q_f32(sums + 4 * i, sum[i]);
}

#endif
