/* lora_merge.h: a PEFT adapter that is added to the weights of a checkpoint (lora_merge.c). */
#ifndef QP_LORA_MERGE_H
#define QP_LORA_MERGE_H

#include "convert/plan.h"

/* A PEFT adapter that is added to the weights as they are read. */
struct lora_merge;
/* Closed by the caller whatever happens. */
quip_status qp_lora_merge_open(struct lora_merge **merge, const char *path, const struct plan *plan,
                               const struct hparams *h, quip_error *error);
void qp_lora_merge_close(struct lora_merge *m); // NULL is fine
/* Add to rows [begin, begin + n) of the job's matrix. `map` says where they are in its module. */
quip_status qp_lora_merge_add(struct lora_merge *m, const struct job *job,
                              const struct row_map *map, int64_t begin, int64_t n, float *rows,
                              quip_error *error);

#endif
