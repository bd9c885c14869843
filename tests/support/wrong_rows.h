/* wrong_rows.h: what a float32 model computes if the rows of its matrices are taken for others, to
 * show that a golden detects it. The matrices of the model become copies, which the next call of a
 * function here overwrites. */
#ifndef TEST_WRONG_ROWS_H
#define TEST_WRONG_ROWS_H

#include "quip.h"

/* Adjacent dimensions of a head turn together, instead of those of two halves. */
void take_halves_for_pairs(quip_model *m);
/* The fused rows of q, k and v are blocks, and are taken for groups, one for each head of keys. */
void take_blocks_for_groups(quip_model *m);
/* The same the other way round. */
void take_groups_for_blocks(quip_model *m);
/* The fused rows are k, v, q instead of q, k, v. */
void take_q_for_last(quip_model *m);
/* Values that are keys are those behind the norm of the keys. */
void take_normed_keys_for_values(quip_model *m);

#endif
