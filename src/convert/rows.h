/* rows.h: rows of the checkpoint as the model file means them (rows.c). */
#ifndef QP_ROWS_H
#define QP_ROWS_H

#include "convert/lora_merge.h"

struct row_reader {
    const struct checkpoint *checkpoint;
    const struct hparams *hparams;
    struct lora_merge *merge; // NULL: none
    float *values, *ordered;  // rows as read; in our order
    int64_t max_values, max_rows;
};
/* Buffers for any job of the plan; the arguments outlive the reader. */
quip_status qp_rows_open(struct row_reader *r, const struct checkpoint *c, const struct hparams *h,
                         const struct plan *plan, struct lora_merge *merge, quip_error *error);
void qp_rows_close(struct row_reader *r);
/* As many rows as are read at once; of a job's rows always so many, but for the last. */
int64_t qp_rows_at_a_time(const struct row_reader *r, const struct job *job);
/* Rows [begin, begin + n) as the model file means them, valid until the next call. */
quip_status qp_rows_read(struct row_reader *r, const struct job *job, int64_t begin, int64_t n,
                         const float **values, quip_error *error);

#endif
