/* rows.h: rows of the checkpoint with the values that the model file stores (rows.c). */
#ifndef QP_ROWS_H
#define QP_ROWS_H

#include "convert/lora_merge.h"

struct row_reader {
    const struct checkpoint *checkpoint;
    const struct hparams *hparams;
    struct lora_merge *merge; // NULL: none
    float *column;            // of one input, from all rows
    float *values;            // rows in the order of the model file
    int64_t max_values, max_rows;
};
/* Allocate buffers for every job of the plan. The arguments must outlive the reader. */
quip_status qp_rows_open(struct row_reader *r, const struct checkpoint *c, const struct hparams *h,
                         const struct plan *plan, struct lora_merge *merge, quip_error *error);
void qp_rows_close(struct row_reader *r);
/* How many rows to read at a time. Fewer only at the end of a tensor. */
int64_t qp_rows_at_a_time(const struct job *job);
/* Rows [begin, begin + n), valid until the next call. */
quip_status qp_rows_read(struct row_reader *r, const struct job *job, int64_t begin, int64_t n,
                         const float **values, quip_error *error);

#endif
