/* checkpoint_kind.h: why the tensors of a checkpoint are not those of its family
 * (checkpoint_kind.c). */
#ifndef QP_CHECKPOINT_KIND_H
#define QP_CHECKPOINT_KIND_H

#include "convert/checkpoint.h"

/* For a checkpoint whose tensors do not fit: if it is of a kind that people often have, print what
 * it is and what to take instead. `type` is the first number format that cannot be read, or NULL.
 * False if it is of no such kind. */
bool qp_checkpoint_explain(char *to, size_t size, const struct checkpoint *c, const char *type);
/* Fail if config.json says that the model does not predict the next token. */
quip_status qp_checkpoint_check_task(const struct checkpoint *c, quip_error *error);

#endif
