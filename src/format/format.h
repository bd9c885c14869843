/* format.h: bytes of a file <-> named tensors and metadata.
 * In:  a file (base.h), of any kind that this room knows.
 * Out: a list of tensors (name, type, shape, place in the file) and a list of metadata entries, all
 *      checked: every tensor lies inside its file and has the bytes that its shape needs.
 * The readers know nothing of what the tensors mean; src/model does. */
#ifndef QP_FORMAT_H
#define QP_FORMAT_H

#include "base/base.h"

enum format_kind {
    FORMAT_TFLITE, // the original's model file: weights-only flatbuffer, "TFL3"
    FORMAT_GGUF,
    FORMAT_SAFETENSORS,
    FORMAT_PYTORCH // read by src/convert
};

/* Number formats. Block formats are those of GGUF. I4: two to a byte, low nibble first, stored
 * plus 8. I4_BLOCK is not a tensor's type but a matrix's (model/matrix.h): its codes are an I4
 * tensor. */
enum dtype {
    DTYPE_F32,
    DTYPE_F16,
    DTYPE_BF16,
    DTYPE_I8,
    DTYPE_I4,
    DTYPE_I4_BLOCK,
    DTYPE_I32,
    DTYPE_Q4_0,
    DTYPE_Q4_1,
    DTYPE_Q5_0,
    DTYPE_Q5_1,
    DTYPE_Q8_0,
    DTYPE_Q2_K,
    DTYPE_Q3_K,
    DTYPE_Q4_K,
    DTYPE_Q5_K,
    DTYPE_Q6_K,
    DTYPE_OTHER, // present in the file, not readable here
    DTYPE_COUNT
};
const char *qp_dtype_name(enum dtype dtype);
/* Bytes of n elements; n must be a multiple of the type's block. False when it is not, or too
 * large. */
bool qp_dtype_bytes(enum dtype dtype, uint64_t n, uint64_t *n_bytes);

/* The two bytes of an IEEE 754 binary16 number, little endian, as a float: every value of it. */
float qp_half_value(const uint8_t *p);
/* The nearest binary16 number to x, of two equally near the even one; infinite from 65520 on. */
uint16_t qp_half_bits(float x);

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
/* The same with one more reader, of another room; it fills the format by format_impl.h. */
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

/* ---- writing a model file (tflite_writer.c) ----
 * Declare every tensor and metadata entry, begin, write each tensor's bytes in any order and any
 * pieces, commit. The file grows under a temporary name beside `path` and takes its name at commit;
 * close without commit removes it. */
struct tflite_writer;
quip_status qp_tflite_writer_open(struct tflite_writer **w, const char *path,
                                  const char *subgraph_name, quip_error *error);
/* From here on in the layout of the original's files for GPUs: a tensor's shape is its number of
 * bytes, and F16 can be declared, which its type then calls float32. */
void qp_tflite_writer_for_gpu(struct tflite_writer *w);
/* dtype: F32, I8, I4 (also I32). Names are copied. *index is for qp_tflite_writer_write. */
quip_status qp_tflite_writer_tensor(struct tflite_writer *w, const char *name, enum dtype dtype,
                                    int n_dims, const int64_t *dims, int *index, quip_error *error);
quip_status qp_tflite_writer_metadata(struct tflite_writer *w, const char *name, const void *data,
                                      size_t n, quip_error *error);
/* An entry whose buffer field is the value itself (LlmModelType, lora_rank). */
quip_status qp_tflite_writer_value(struct tflite_writer *w, const char *name, uint32_t value,
                                   quip_error *error);
quip_status qp_tflite_writer_begin(struct tflite_writer *w, quip_error *error);
quip_status qp_tflite_writer_write(struct tflite_writer *w, int index, uint64_t offset,
                                   const void *data, size_t n, quip_error *error);
/* After begin: other contents of a metadata entry, at most as long as what was declared. */
quip_status qp_tflite_writer_rewrite(struct tflite_writer *w, const char *name, const void *data,
                                     size_t n, quip_error *error);
quip_status qp_tflite_writer_commit(struct tflite_writer *w, quip_error *error);
void qp_tflite_writer_close(struct tflite_writer *w); // NULL is fine

/* ---- ZIP archives (zip.c) ----
 * Only what holds models: entries stored without compression, whose bytes are used where they lie.
 * ZIP64 is read. A compressed or encrypted entry is an error that names it. */
struct zip_entry {
    const char *name;         // as stored, without a zero byte in it
    uint64_t offset, n_bytes; // its data, which lies inside the file
};
struct zip {
    struct zip_entry *entries; // sorted by name, no two alike
    int n_entries;
    uint8_t *directory; // owned: holds the names
};
/* Whether the file's last bytes are those of a ZIP archive. False when they cannot be read. */
bool qp_zip_matches(const struct file *file);
/* Read the list of entries; the file is not needed for it afterwards. Check sums are not
 * computed. */
quip_status qp_zip_open(struct zip *z, const struct file *file, quip_error *error);
void qp_zip_close(struct zip *z);
/* Where an entry's data lies, by exact name; false when there is none. */
bool qp_zip_find(const struct zip *z, const char *name, uint64_t *offset, uint64_t *n_bytes);

/* ---- .task bundles (bundle.c) ---- */

#define BUNDLE_MODEL "TF_LITE_PREFILL_DECODE"
#define BUNDLE_TOKENIZER "TOKENIZER_MODEL"
#define BUNDLE_METADATA "METADATA"

struct bundle {
    struct file model, tokenizer, metadata; // parts of the bundle's file
};
bool qp_bundle_matches(const struct file *file); // by its first bytes
/* Find the three parts that every bundle has. `file` outlives them; all are closed with
 * qp_bundle_close. Tokenizer and metadata are in memory. */
quip_status qp_bundle_open(struct bundle *b, const struct file *file, quip_error *error);
void qp_bundle_close(struct bundle *b); // all-zero is fine

/* ---- PEFT adapters (peft.c) ---- */

/* A piece of JSON text: of a string what is between the quotes, escapes not decoded. */
struct json_text {
    const char *raw; // valid UTF-8 not guaranteed
    size_t n;
    bool has_escapes;
};

struct peft_config {
    double rank;                    // 0: not known
    double alpha;                   // the update is multiplied by alpha / rank,
    bool has_alpha;                 // or not at all,
    bool is_rank_stabilized;        // or by alpha / sqrt(rank)
    bool has_rank_pattern;          // modules may have another rank than that
    struct json_text alpha_pattern; // names of modules -> their own alpha
};
/* Read the text of adapter_config.json. `where` names it in messages; *c points into the text. */
quip_status qp_peft_read(struct peft_config *c, const char *text, size_t n, const char *where,
                         quip_error *error);
/* Which of the two matrices beside a module a tensor's name tells: *n_module is the length of what
 * is before ".lora_A.weight" and its like, more than 0. False if it ends otherwise. */
bool qp_peft_side(const char *name, size_t *n_module, bool *is_b);
/* What the product of a pair is multiplied by; `tensor_name` is that of one of its tensors. */
double qp_peft_scale(const struct peft_config *c, const char *tensor_name, int rank);

/* The files of an adapter. A MediaPipe LoRA file has no config. */
struct adapter_files {
    struct file file, config_file; // config_file is not open where there is no config
    struct format format;          // of `file`, so that this struct must not move
    struct peft_config config;     // points into config_file
};
/* `path` is a folder with adapter_config.json and adapter_model.safetensors, or a file of weights.
 * Weights of that name need the config beside them; weights of another name have none. */
quip_status qp_adapter_files_open(struct adapter_files *f, const char *path, quip_error *error);
/* For the converter: weights may also have the format of `reader` (adapter_model.bin), and use an
 * adapter_config.json beside them whatever their name is, if there is one. */
quip_status qp_adapter_files_open_with(struct adapter_files *f, const char *path,
                                       const struct format_reader *reader, quip_error *error);
/* `file` is open and is closed with the others, also on failure. */
quip_status qp_adapter_files_open_file(struct adapter_files *f, struct file *file,
                                       quip_error *error);
void qp_adapter_files_close(struct adapter_files *f); // all-zero is fine
/* Fails when the config says another rank for all pairs. */
quip_status qp_peft_check_rank(const struct adapter_files *f, const char *tensor_name, int64_t rank,
                               quip_error *error);

/* ---- protobuf wire format (protobuf.c) ---- */

enum wire_type {
    WIRE_VARINT = 0,
    WIRE_FIXED64 = 1,
    WIRE_BYTES = 2,
    WIRE_FIXED32 = 5 // 3 and 4, groups, are obsolete and not read
};
struct proto_reader {
    const uint8_t *p, *end;
    bool is_malformed; // sticky; set by any read that runs out or overflows
};
struct proto_field {
    int number;
    int wire_type;       // enum wire_type
    uint64_t value;      // varint and fixed
    const uint8_t *data; // bytes
    size_t n;
};
void qp_proto_open(struct proto_reader *r, const void *data, size_t n);
/* The next field; false at the end, or when malformed. */
bool qp_proto_next(struct proto_reader *r, struct proto_field *field);
/* One varint, for the items of a packed field; false at the end, or when malformed. */
bool qp_proto_varint(struct proto_reader *r, uint64_t *value);
float qp_proto_float(const struct proto_field *field); // of a fixed32

/* Append one field. False: no memory. */
bool qp_proto_put_varint(struct bytes *b, int number, uint64_t value);
bool qp_proto_put_float(struct bytes *b, int number, float value);
bool qp_proto_put_bytes(struct bytes *b, int number, const void *data, size_t n);

#endif
