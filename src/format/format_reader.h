/* format_reader.h: what the readers of this folder use and provide.
 * A reader fills f->tensors and f->metadata with qp_format_add_tensor and qp_format_add_metadata,
 * which check what all formats have in common. The format owns the names and the copies of file
 * contents, until it is closed. */
#ifndef QP_FORMAT_READER_H
#define QP_FORMAT_READER_H

#include "format/format.h"

#include <inttypes.h>
#include <string.h>

/* ---- readers: `head` is the first 16 bytes of the file, padded with zeros ---- */

bool qp_tflite_matches(const uint8_t head[16], uint64_t file_size);
bool qp_gguf_matches(const uint8_t head[16], uint64_t file_size);
bool qp_safetensors_matches(const uint8_t head[16], uint64_t file_size);
bool qp_litertlm_matches(const uint8_t head[16], uint64_t file_size);
quip_status qp_tflite_read(struct format *f, quip_error *error);
quip_status qp_gguf_read(struct format *f, quip_error *error);
quip_status qp_safetensors_read(struct format *f, quip_error *error);
quip_status qp_litertlm_read(struct format *f, quip_error *error);

/* ---- what a format owns (format.c) ---- */

/* Make a format without tensors and entries. Close it also after a failure. */
quip_status qp_format_begin(struct format *f, struct file *file, quip_error *error);
/* After the last tensor and entry: build the index of names. Fails if two are the same. */
quip_status qp_format_index(struct format *f, quip_error *error);

/* n bytes at `offset`: a pointer into the mapping, or a copy that is valid until close. */
quip_status qp_format_view(struct format *f, uint64_t offset, uint64_t n, const uint8_t **data,
                           quip_error *error);

/* Allocate n + 1 zeroed bytes for text, valid until close; NULL if there is not enough memory. */
char *qp_format_text(struct format *f, size_t n);

/* Append, after checking: the name has name_bytes bytes and no zero byte; the contents are inside
 * the file; for a readable dtype, they have as many bytes as the shape needs. */
quip_status qp_format_add_tensor(struct format *f, const struct tensor *t, size_t name_bytes,
                                 quip_error *error);
quip_status qp_format_add_metadata(struct format *f, const struct metadata *m, size_t name_bytes,
                                   quip_error *error);

/* The number of elements of a shape; false if a dimension is negative or the product is 2^63 or
 * more. */
bool qp_format_elements(const int64_t *dims, int n_dims, uint64_t *n);

#endif
