/* head.h: whether the head of a checkpoint is its embedding (head.c). */
#ifndef QP_HEAD_H
#define QP_HEAD_H

#include "convert/hparams.h"

/* For a checkpoint with config.json: set h->is_tied by the tensors. */
quip_status qp_settle_head(struct checkpoint *c, struct hparams *h, quip_error *error);
/* For an embedding model: it needs no head, whatever config.json says. */
void qp_settle_no_head(const struct checkpoint *c, struct hparams *h);

#endif
