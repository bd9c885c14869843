/* embedding_inputs.h: what the matrices of an embedding model are multiplied by
 * (embedding_inputs.c). */
#ifndef QP_EMBEDDING_INPUTS_H
#define QP_EMBEDDING_INPUTS_H

#include "convert/convert.h"

struct embedding_inputs;
/* Open the checkpoint `in` as a float32 model, by way of a temporary file beside `out`. */
quip_status qp_embedding_inputs_open(struct embedding_inputs **inputs, const char *in,
                                     const char *out, const struct convert_options *options,
                                     quip_error *error);
/* Set *factor to that of the matrix (rounding.h), which is valid until the next call; NULL if the
 * matrix is not one of a layer's attention or feed-forward. Asking layer by layer is fastest. */
quip_status qp_embedding_inputs_find(struct embedding_inputs *inputs, const char *name,
                                     const float **factor, quip_error *error);
void qp_embedding_inputs_close(struct embedding_inputs *inputs); // NULL is fine

#endif
