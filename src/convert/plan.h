/* plan.h: where each tensor of the model file comes from (plan.c). */
#ifndef QP_PLAN_H
#define QP_PLAN_H

#include "convert/hparams.h"
#include "convert/store.h"

/* One tensor to convert, with the shape that it has in the model file. A vector is one row. */
struct job {
    const struct tensor_row *row;
    int layer;
    struct entry *entry; // where each head or expert has a tensor of its own: that of the first
    bool is_transposed;  // the tensor is [in, out]
    const struct entry *added; // whose first row is added to each row; NULL: none
    const float *values;       // of the hyper-parameters, where there is no entry
    struct stored stored;
};
struct plan {
    struct job *jobs; // in the order of use
    int n_jobs;
};
/* Where the rows of a matrix are in Hugging Face's module of it. */
struct row_map qp_plan_module_map(const struct hparams *h, const struct tensor_row *row);
/* The rows of a head's or an expert's tensor, where each has one. */
int64_t qp_plan_part_rows(const struct hparams *h, const struct tensor_row *row);
/* The tensor of a row, or of one head or expert where each has one; NULL if there is none. */
struct entry *qp_plan_find(const struct checkpoint *c, const struct tensor_row *row, int layer,
                           int head);
/* Find and check the source of every tensor of the model file. Counts h->n_parameters. */
quip_status qp_plan_make(struct plan *plan, const struct checkpoint *c, struct hparams *h,
                         const struct convert_options *options, quip_error *error);
void qp_plan_close(struct plan *plan);

#endif
