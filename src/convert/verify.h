/* verify.h: the report that a conversion stores in its model file (verify.c). */
#ifndef QP_VERIFY_H
#define QP_VERIFY_H

#include "convert/convert.h"
#include "format/tflite_writer.h"

/* For `convert --verify`. The first reserves space for the report. The second, when all is written
 * but not committed, compares and writes the report. Both do nothing without options.verify. */
quip_status qp_verify_declare(struct tflite_writer *w, const struct convert_options *o,
                              quip_error *error);
quip_status qp_verify_written(struct tflite_writer *w, const char *in, const char *out,
                              const struct convert_options *o, quip_error *error);

#endif
