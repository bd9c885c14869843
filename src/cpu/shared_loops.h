/* shared_loops.h: loops over rows and tokens that several instruction sets share. The instruction
 * set passes the function that computes the sums. */
#ifndef QP_SHARED_LOOPS_H
#define QP_SHARED_LOOPS_H

#include "cpu/kernels.h"

/* sums[t][r] of two tokens x[t] and two rows w[r] of n_in floats, each in 16 lanes. The two tokens
 * may be the same, and so may the rows. */
typedef void pair_sums_f32(float sums[2][2], const float *const w[2], const float *const x[2],
                           int n_in);

/* gemm_f32, two rows by two tokens at a time. */
void qp_gemm_f32_pairs(pair_sums_f32 *sums_of, const struct out_view *out, const struct matrix *w,
                       const struct f32_rows *x, int begin, int end);

/* The products of the 16 rows of a group with one token, without the scales of the rows. */
typedef void group_sums(float sums[LOW_RANK_ROWS], const uint8_t *group, const int8_t *q,
                        const float *scales, int n_in);

/* add_low_rank, group by group and token by token. */
void qp_add_low_rank_groups(group_sums *sums_of, const struct out_view *out,
                            const struct low_rank *w, const struct act_rows *x, int begin, int end);

#endif
