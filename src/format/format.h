/* format.h: bytes of a file <-> named tensors and metadata.
 * In:  a file (base.h), of any kind that this room knows.
 * Out: a list of tensors (name, type, shape, place in the file) and a list of metadata entries, all
 *      checked: every tensor lies inside its file and has the bytes that its shape needs.
 * The readers know nothing of what the tensors mean; src/model does. */
#ifndef QP_FORMAT_H
#define QP_FORMAT_H

#include "format/dtype.h"

enum format_kind {
    FORMAT_TFLITE, // the original's model file: weights-only flatbuffer, "TFL3"
    FORMAT_GGUF,
    FORMAT_SAFETENSORS,
    FORMAT_PYTORCH // read by src/convert
};

#define QP_MAX_DIMS 4

struct tensor {
    const char *name;
    enum dtype dtype;
    int n_dims;
    int64_t dims[QP_MAX_DIMS]; // outermost first: a matrix is [n_out, n_in]. In the original's GPU
                               // files: one dimension, the number of bytes
    uint64_t offset, n_bytes;  // in the file; n_bytes is 0 for a DTYPE_OTHER of unknown size
};

enum metadata_type {
    METADATA_INT,   // .i (booleans too), and the same in .f
    METADATA_FLOAT, // .f
    METADATA_BYTES, // text or a blob: .offset, .n_bytes in the file
    METADATA_ARRAY  // GGUF array: .offset of the first item, .n_items of type .item
};

struct metadata {
    const char *name;
    enum metadata_type type;
    int64_t i;
    double f;
    uint64_t offset, n_bytes; // of an array, all its items
    enum metadata_type item;
    int gguf_item; // the array's item type as GGUF numbers it
    uint64_t n_items;
};

/* One open file. The strings and lists live in `strings`/heap blocks owned here. */
struct format {
    enum format_kind kind;
    struct file *file; // borrowed: must outlive this
    struct tensor *tensors;
    int n_tensors;
    struct metadata *metadata;
    int n_metadata;
    const char *subgraph_name; // TFLITE: the model type's name, e.g. "GEMMA_2B"; else NULL
    void *private_data;        // owned by the reader
};

/* Recognise the file by its bytes and read its header. */
quip_status qp_format_open(struct format *f, struct file *file, quip_error *error);
/* The same with one more reader, of another room; it fills the format by format_reader.h. */
struct format_reader {
    enum format_kind kind;
    bool (*matches)(const uint8_t head[16], uint64_t file_size); // zeros where it is shorter
    quip_status (*read)(struct format *f, quip_error *error);
};
quip_status qp_format_open_with(struct format *f, struct file *file,
                                const struct format_reader *reader, quip_error *error);
void qp_format_close(struct format *f);

/* By exact name; NULL when there is none. */
const struct tensor *qp_format_find(const struct format *f, const char *name);
const struct metadata *qp_format_find_metadata(const struct format *f, const char *name);

/* The bytes of a METADATA_BYTES entry: into the mapping, or read and kept until close. */
quip_status qp_format_bytes(struct format *f, const struct metadata *m, const uint8_t **data,
                            size_t *n, quip_error *error);
/* The bytes of a whole tensor, the same way. */
quip_status qp_format_tensor_bytes(struct format *f, const struct tensor *t, const uint8_t **data,
                                   quip_error *error);

/* Walk a METADATA_ARRAY: start with a zeroed cursor; false at the end or on a malformed item
 * (then is_malformed is set). Strings point into the file's bytes. */
struct metadata_cursor {
    uint64_t index, offset;
    const char *text; // string items
    size_t n_text;
    int64_t i; // integer and boolean items
    double f;  // number items, whole ones too
    bool is_malformed;
};
bool qp_metadata_next(struct format *f, const struct metadata *m, struct metadata_cursor *c);

/* Dequantize elements [begin, begin + n) of a tensor, in row-major order, to float. begin and n are
 * multiples of the type's block (32 or 256; the last dimension always is). I8 and I4 give their
 * integers: scales are tensors of their own. */
quip_status qp_format_read_f32(const struct format *f, const struct tensor *t, uint64_t begin,
                               size_t n, float *to, quip_error *error);

#endif
