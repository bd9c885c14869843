/* conversion.h: a checkpoint -> a model file (conversion.c). */
#ifndef QP_CONVERSION_H
#define QP_CONVERSION_H

#include "convert/convert.h"
#include "format/tflite_writer.h"

struct conversion;
/* Read the checkpoint, check all but the values of its weights, open *writer for the file `out` and
 * declare tensors and metadata. The arguments must outlive the conversion. The caller closes writer
 * and conversion, also after a failure. */
quip_status qp_conversion_open(struct conversion **conversion, struct tflite_writer **writer,
                               const char *in, const char *out,
                               const struct convert_options *options, quip_error *error);
/* After qp_tflite_writer_begin: write the bytes of all tensors. */
quip_status qp_conversion_write(struct conversion *v);
void qp_conversion_close(struct conversion *v); // NULL is fine

/* All of it: a conversion that does not verify its result. */
quip_status qp_conversion_run(const char *in, const char *out,
                              const struct convert_options *options, quip_error *error);
/* How to read the checkpoint as the options say, and write floats. */
struct convert_options qp_conversion_reading(const struct convert_options *options);
/* Convert a checkpoint to a temporary float32 file beside `out` and open it. The file is removed at
 * once. Of the options, those that say how a checkpoint is read count. */
quip_status qp_conversion_open_floats(quip_model **model, const char *in, const char *out,
                                      const struct convert_options *options, quip_error *error);

#endif
