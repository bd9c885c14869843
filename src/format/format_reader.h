/* format_reader.h: what the readers of this folder use and provide.
 * A reader fills f->tensors and f->metadata through qp_format_add_tensor and
 * qp_format_add_metadata, which check what all formats have in common.
 * Whatever it keeps (names, copies of a read_at source) belongs to the format and ends with it. */
#ifndef QP_FORMAT_READER_H
#define QP_FORMAT_READER_H

#include "format/format.h"

#include <inttypes.h>
#include <string.h>

/* ---- readers: `head` is the file's first 16 bytes, zeros where it is shorter ---- */

bool qp_tflite_matches(const uint8_t head[16], uint64_t file_size);
bool qp_gguf_matches(const uint8_t head[16], uint64_t file_size);
bool qp_safetensors_matches(const uint8_t head[16], uint64_t file_size);
quip_status qp_tflite_read(struct format *f, quip_error *error);
quip_status qp_gguf_read(struct format *f, quip_error *error);
quip_status qp_safetensors_read(struct format *f, quip_error *error);

/* ---- what a format owns (format.c) ---- */

/* A format without tensors and entries; close it after a failure, too. */
quip_status qp_format_begin(struct format *f, struct file *file, quip_error *error);
/* After the last tensor and entry: index the names, of which no two may be the same. */
quip_status qp_format_index(struct format *f, quip_error *error);

/* n bytes at `offset`, valid until close: into the mapping, or read once and kept. */
quip_status qp_format_view(struct format *f, uint64_t offset, uint64_t n, const uint8_t **data,
                           quip_error *error);

/* Room for n + 1 bytes of text, zeroed, valid until close; NULL without memory. */
char *qp_format_text(struct format *f, size_t n);

/* Append, after checking the name (no zero byte in it: name_bytes is its length), that the bytes
 * lie inside the file and, for a readable dtype, that they are as many as the shape needs. */
quip_status qp_format_add_tensor(struct format *f, const struct tensor *t, size_t name_bytes,
                                 quip_error *error);
quip_status qp_format_add_metadata(struct format *f, const struct metadata *m, size_t name_bytes,
                                   quip_error *error);

/* The number of elements of a shape; false for a negative dimension or a product past 2^63. */
bool qp_format_elements(const int64_t *dims, int n_dims, uint64_t *n);

#endif
