/* sampling_source.h: what a checkpoint says about drawing tokens (sampling_source.c). */
#ifndef QP_SAMPLING_SOURCE_H
#define QP_SAMPLING_SOURCE_H

#include "convert/checkpoint.h"
#include "model/sampling_defaults.h"

struct sampling_defaults qp_sampling_of_checkpoint(const struct checkpoint *c);
/* Append the text of quip.sampling: nothing if the checkpoint says nothing. */
bool qp_write_quip_sampling(const struct sampling_defaults *d, struct bytes *out);
/* Append the names, separated by commas, of what the checkpoint says about drawing tokens and Quip
 * does not do. */
bool qp_sampling_left_out(const struct checkpoint *c, struct bytes *names);

#endif
