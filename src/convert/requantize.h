/* requantize.h: a model file -> another, with weights of other types (requantize.c). */
#ifndef QP_REQUANTIZE_H
#define QP_REQUANTIZE_H

#include "convert/convert.h"

/* qp_convert, from a model file. */
quip_status qp_requantize(const char *in, const char *out, const struct convert_options *options,
                          quip_error *error);
/* Whether a tensor belongs to a matrix and is made with it: scales and the like. */
bool qp_is_companion(const char *name);

#endif
