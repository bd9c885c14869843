/* requantize.h: a model file -> another, with weights of other types (requantize.c). */
#ifndef QP_REQUANTIZE_H
#define QP_REQUANTIZE_H

#include "convert/convert.h"
#include "format/tflite_writer.h"

struct requantizer;
/* Open the model, calibrate if the options say so, open *writer for the file `out` and declare
 * tensors and metadata. The arguments must outlive the requantizer. The caller closes writer and
 * requantizer, also after a failure. */
quip_status qp_requantize_open(struct requantizer **requantizer, struct tflite_writer **writer,
                               const char *in, const char *out,
                               const struct convert_options *options, quip_error *error);
/* After qp_tflite_writer_begin: write the bytes of all tensors. */
quip_status qp_requantize_write(struct requantizer *q);
void qp_requantize_close(struct requantizer *q); // NULL is fine

#endif
