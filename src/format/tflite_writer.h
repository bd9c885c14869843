/* tflite_writer.h: writes a model file (tflite_writer.c).
 * Declare all tensors and metadata entries, call begin, write the tensors' bytes in any order and
 * in any pieces, commit. Until the commit the file has a temporary name beside `path`. Closing
 * without a commit removes it. */
#ifndef QP_TFLITE_WRITER_H
#define QP_TFLITE_WRITER_H

#include "format/dtype.h"

struct tflite_writer;
quip_status qp_tflite_writer_open(struct tflite_writer **w, const char *path,
                                  const char *subgraph_name, quip_error *error);
/* Before the first tensor: use the layout of MediaPipe's files for GPUs. In it, the shape of a
 * tensor is its number of bytes. F16 tensors are possible; their type in the file is float32. */
void qp_tflite_writer_for_gpu(struct tflite_writer *w);
/* dtype: F32, I8, I4 (also I32). Names are copied. *index is for qp_tflite_writer_write. */
quip_status qp_tflite_writer_tensor(struct tflite_writer *w, const char *name, enum dtype dtype,
                                    int n_dims, const int64_t *dims, int *index, quip_error *error);
quip_status qp_tflite_writer_metadata(struct tflite_writer *w, const char *name, const void *data,
                                      size_t n, quip_error *error);
/* A metadata entry whose buffer field is its value (LlmModelType, lora_rank). */
quip_status qp_tflite_writer_value(struct tflite_writer *w, const char *name, uint32_t value,
                                   quip_error *error);
quip_status qp_tflite_writer_begin(struct tflite_writer *w, quip_error *error);
quip_status qp_tflite_writer_write(struct tflite_writer *w, int index, uint64_t offset,
                                   const void *data, size_t n, quip_error *error);
/* After begin: replace the contents of a metadata entry. They may be shorter than declared, but not
 * longer. */
quip_status qp_tflite_writer_rewrite(struct tflite_writer *w, const char *name, const void *data,
                                     size_t n, quip_error *error);
quip_status qp_tflite_writer_commit(struct tflite_writer *w, quip_error *error);
void qp_tflite_writer_close(struct tflite_writer *w); // NULL is fine

#endif
