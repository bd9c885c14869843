/* verify.h: the report of a conversion about itself (verify.c). */
#ifndef QP_VERIFY_H
#define QP_VERIFY_H

#include "convert/convert.h"
#include "format/tflite_writer.h"

/* For `convert --verify`: declare room for the report; when all is written, but not yet under its
 * name, compare and fill it. Both do nothing where the options do not ask. */
quip_status qp_verify_declare(struct tflite_writer *w, const struct convert_options *o,
                              quip_error *error);
quip_status qp_verify_written(struct tflite_writer *w, const char *in, const char *out,
                              const struct convert_options *o, quip_error *error);

#endif
