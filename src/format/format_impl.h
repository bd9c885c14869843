/* format_impl.h: what the readers of this folder share.
 * A reader fills f->tensors and f->metadata through qp_format_add_tensor and
 * qp_format_add_metadata, which check what all formats have in common.
 * Whatever it keeps (names, copies of a read_at source) belongs to the format and ends with it. */
#ifndef QP_FORMAT_IMPL_H
#define QP_FORMAT_IMPL_H

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

/* Bytes of one item of a GGUF array of numbers; 0 for any other type. */
size_t qp_gguf_number_bytes(int gguf_type);
/* The number at p, as an integer and as a float; false when it does not fit in int64. */
bool qp_gguf_number(int gguf_type, const uint8_t *p, int64_t *i, double *f);
enum {
    GGUF_STRING = 8,
    GGUF_ARRAY = 9
};

/* ---- what a format owns (format.c) ---- */

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

/* ---- numbers: any alignment, little endian ---- */

static inline uint16_t qp_le16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t qp_le32(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t qp_le64(const uint8_t *p)
{
    return qp_le32(p) | (uint64_t)qp_le32(p + 4) << 32;
}

static inline void qp_put_le16(uint8_t *p, uint16_t value)
{
    p[0] = (uint8_t)value;
    p[1] = (uint8_t)(value >> 8);
}

static inline void qp_put_le32(uint8_t *p, uint32_t value)
{
    qp_put_le16(p, (uint16_t)value);
    qp_put_le16(p + 2, (uint16_t)(value >> 16));
}

static inline void qp_put_le64(uint8_t *p, uint64_t value)
{
    qp_put_le32(p, (uint32_t)value);
    qp_put_le32(p + 4, (uint32_t)(value >> 32));
}

static inline float qp_float_of_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline double qp_double_of_bits(uint64_t bits)
{
    double f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* ---- JSON (json_scan.c): a strict scanner for headers of known shape ---- */

struct json_scan {
    const char *begin, *p, *end;
    bool is_malformed; // sticky; every call then gives false or zero
};
void qp_json_open(struct json_scan *j, const char *text, size_t n);
/* Step over `{`, `[`, ... after spaces; anything else is malformed. */
void qp_json_expect(struct json_scan *j, char c);
/* The next member of an object or item of an array: false at its `close`, which is stepped over.
 * `index` counts the calls, from 0. */
bool qp_json_more(struct json_scan *j, int index, char close);
struct json_text qp_json_string(struct json_scan *j);
/* A string and the colon behind it. */
struct json_text qp_json_key(struct json_scan *j);
uint64_t qp_json_uint(struct json_scan *j); // digits only; a sign, point or exponent is malformed
double qp_json_number(struct json_scan *j);
/* Step over any value; its text, of a string with the quotes. */
struct json_text qp_json_skip(struct json_scan *j);
/* Only spaces are left. */
void qp_json_close(struct json_scan *j);
bool qp_json_is(struct json_text t, const char *text);
/* Decode escapes to `out`, which has room for t.n bytes. Returns the length, or SIZE_MAX for a
 * malformed escape. */
size_t qp_json_decode(struct json_text t, char *out);

#endif
