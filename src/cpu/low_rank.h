/* low_rank.h: the layout of low-rank matrices, those of LoRA, and a loop over them. */
#ifndef QP_LOW_RANK_H
#define QP_LOW_RANK_H

#include "cpu/kernels.h"

/* Layout "i8x16k4" of an int8 matrix with few rows or few columns, such as those of LoRA: a kernel
 * that runs row by row would spend its time on the start and the end of rows. Instead 16 rows are a
 * group: their scales, then for each four columns the four bytes of row 0, of row 1 and so on. Rows
 * and columns past the last one are zeros. */
struct low_rank {
    int n_out, n_in;
    const uint8_t *groups; // aligned to 64 bytes
};

enum {
    LOW_RANK_ROWS = 16,
    LOW_RANK_STEP = 4,
    LOW_RANK_STEP_BYTES = LOW_RANK_ROWS * LOW_RANK_STEP,
    LOW_RANK_SCALE_BYTES = LOW_RANK_ROWS * 4 // floats
};

static inline int qp_low_rank_steps(const struct low_rank *w)
{
    return (w->n_in + LOW_RANK_STEP - 1) / LOW_RANK_STEP;
}

static inline size_t qp_low_rank_group_bytes(const struct low_rank *w)
{
    return LOW_RANK_SCALE_BYTES + (size_t)qp_low_rank_steps(w) * LOW_RANK_STEP_BYTES;
}

static inline int qp_low_rank_n_groups(const struct low_rank *w)
{
    return (w->n_out + LOW_RANK_ROWS - 1) / LOW_RANK_ROWS;
}

static inline const float *qp_low_rank_scales(const uint8_t *group)
{
    return (const float *)(const void *)group;
}

/* Offset of row r, column k from the start of its group. */
static inline size_t qp_low_rank_offset(int r, int k)
{
    return (size_t)(LOW_RANK_SCALE_BYTES + k / LOW_RANK_STEP * LOW_RANK_STEP_BYTES +
                    r % LOW_RANK_ROWS * LOW_RANK_STEP + k % LOW_RANK_STEP);
}

/* The group of row r. It begins with its scales. */
static inline const uint8_t *qp_low_rank_group(const struct low_rank *w, int r)
{
    return w->groups + (size_t)(r / LOW_RANK_ROWS) * qp_low_rank_group_bytes(w);
}

/* The products of the 16 rows of a group with one token, without the scales of the rows. */
typedef void group_sums(float sums[LOW_RANK_ROWS], const uint8_t *group, const int8_t *q,
                        const float *scales, int n_in);

/* add_low_rank for an instruction set that provides these sums: group by group, token by token. */
void qp_add_low_rank_groups(group_sums *sums_of, const struct out_view *out,
                            const struct low_rank *w, const struct act_rows *x, int begin, int end);

#endif
