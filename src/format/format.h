/* format.h: bytes of a file -> named tensors and metadata.
 * In:  a file (base.h) in one of the formats below.
 * Out: a list of tensors (name, type, shape, position in the file) and a list of metadata entries.
 *      Both are checked: every tensor is inside its file and has as many bytes as its shape needs.
 *
 * The readers do not know what the tensors mean; src/model does. */
#ifndef QP_FORMAT_H
#define QP_FORMAT_H

#include "format/dtype.h"

enum format_kind {
    FORMAT_TFLITE, // MediaPipe's model file: a flatbuffer "TFL3" with weights only
    FORMAT_GGUF,
    FORMAT_SAFETENSORS,
    FORMAT_LITERTLM, // a list of sections, without tensors (litertlm.c)
    FORMAT_PYTORCH   // read by src/convert
};

#define QP_MAX_DIMS 4

struct tensor {
    const char *name;
    enum dtype dtype;
    int n_dims;
    int64_t dims[QP_MAX_DIMS]; // outermost first: a matrix is [n_out, n_in]. In MediaPipe's GPU
                               // files: one dimension, the number of bytes
    uint64_t offset, n_bytes;  // in the file; n_bytes is 0 for a DTYPE_OTHER of unknown size
    const char *type_name;     // of a DTYPE_OTHER: how its format calls it; NULL if unknown
};

enum metadata_type {
    METADATA_INT,   // .i, also for booleans; .f has the same value
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
    int gguf_item; // GGUF's number of the array's item type
    uint64_t n_items;
};

/* The contents of one open file. It owns its names and lists. */
struct format {
    enum format_kind kind;
    struct file *file; // borrowed: must outlive the format
    struct tensor *tensors;
    int n_tensors;
    struct metadata *metadata;
    int n_metadata;
    const char *subgraph_name; // TFLite: the name of the model type, such as "GEMMA_2B"; else NULL
    void *private_data;        // format.c
};

/* Recognise the file by its first bytes and read its header. */
quip_status qp_format_open(struct format *f, struct file *file, quip_error *error);
/* The same with one more reader, from another folder. It uses format_reader.h. */
struct format_reader {
    enum format_kind kind;
    bool (*matches)(const uint8_t head[16], uint64_t file_size); // head is padded with zeros
    quip_status (*read)(struct format *f, quip_error *error);
};
quip_status qp_format_open_with(struct format *f, struct file *file,
                                const struct format_reader *reader, quip_error *error);
void qp_format_close(struct format *f);

/* By exact name; NULL if there is none. */
const struct tensor *qp_format_find(const struct format *f, const char *name);
const struct metadata *qp_format_find_metadata(const struct format *f, const char *name);

/* The bytes of a METADATA_BYTES entry: a pointer into the mapping, or a copy that is valid until
 * close. */
quip_status qp_format_bytes(struct format *f, const struct metadata *m, const uint8_t **data,
                            size_t *n, quip_error *error);
/* The first section of this type in a .litertlm file, such as "SP_Tokenizer"; NULL if there is
 * none. */
const struct metadata *qp_litertlm_section(const struct format *f, const char *type);
/* Say that such a file is not a model for Quip, and what to take. */
quip_status qp_litertlm_refuse(const struct format *f, quip_error *error);
/* The bytes of a whole tensor, the same way. */
quip_status qp_format_tensor_bytes(struct format *f, const struct tensor *t, const uint8_t **data,
                                   quip_error *error);

/* Get the next item of a METADATA_ARRAY. Start with a zeroed cursor. False at the end, or if an
 * item is malformed (is_malformed is then set). Strings point into the file's bytes. */
struct metadata_cursor {
    uint64_t index, offset;
    const char *text; // string items
    size_t n_text;
    int64_t i; // integer and boolean items
    double f;  // all number items
    bool is_malformed;
};
bool qp_metadata_next(struct format *f, const struct metadata *m, struct metadata_cursor *c);

/* Dequantize elements [begin, begin + n) of a tensor, in row-major order, to float. begin and n are
 * multiples of the type's block (1, 2 or 32 to 256; the last dimension always is). I8 and I4 become
 * their integer values, because their scales are separate tensors. */
quip_status qp_format_read_f32(const struct format *f, const struct tensor *t, uint64_t begin,
                               size_t n, float *to, quip_error *error);

#endif
