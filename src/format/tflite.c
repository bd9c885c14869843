/* tflite.c: reads MediaPipe's model file: a TFLite flatbuffer that only lists weights.
 * In:  a file that begins with a flatbuffer "TFL3" of at most 1 MiB; the weights follow it.
 * Out: tensors (Buffer.offset and .size are absolute), metadata, the subgraph's name.
 *
 * Two properties of these files are unusual. The buffer field of two metadata entries is their
 * value, not an index. In GPU files a tensor has one dimension, its number of bytes, which this
 * reader does not change. */
#include "format/tflite.h"
#include "format/flatbuffer.h"
#include "format/format_reader.h"
#include "format/little_endian.h"

#include <assert.h>

/* ---- the model file ---- */

bool qp_tflite_matches(const uint8_t head[16], uint64_t file_size)
{
    return file_size >= 16 && !memcmp(head + 4, "TFL3", 4);
}

/* schema.fbs, enum TensorType */
static const struct {
    int type;
    enum dtype dtype;
} tflite_types[] = {
    { 0, DTYPE_F32 }, { 1, DTYPE_F16 }, { 2, DTYPE_I32 },
    { 9, DTYPE_I8 },  { 17, DTYPE_I4 }, { 18, DTYPE_BF16 },
};

int qp_tflite_type(enum dtype dtype)
{
    for (size_t i = 0; i < QP_COUNT(tflite_types); i++)
        if (tflite_types[i].dtype == dtype)
            return tflite_types[i].type;
    return -1;
}

static enum dtype dtype_of_type(int type)
{
    for (size_t i = 0; i < QP_COUNT(tflite_types); i++)
        if (tflite_types[i].type == type)
            return tflite_types[i].dtype;
    return DTYPE_OTHER;
}

static quip_status flat_damaged(const struct format *f, const char *what, quip_error *error)
{
    return qp_fail(error, QUIP_E_FORMAT,
                   "%s: the flatbuffer is damaged: %s points outside the first %u bytes",
                   f->file->name, what, TFLITE_HEADER_BYTES);
}

static quip_status copy_text(struct format *f, const struct flat *b, struct flat_vector v,
                             const char **text, quip_error *error)
{
    char *copy = qp_format_text(f, v.count);
    if (!copy)
        return qp_fail_memory(error, f->file->name, v.count);
    assert(v.at <= b->n && v.count <= b->n - v.at);
    if (v.count)
        memcpy(copy, b->p + v.at, v.count);
    *text = copy;
    return QUIP_OK;
}

/* Where the contents of buffer `index` are in the file: after the flatbuffer, or, as some writers
 * do, in it. */
static void find_buffer(struct flat *b, struct flat_vector buffers, uint32_t index,
                        uint64_t *offset, uint64_t *n_bytes)
{
    struct flat_table buffer = qp_flat_item(b, buffers, index, "a buffer");
    struct flat_vector data = qp_flat_vector(b, &buffer, BUFFER_DATA, 1, "a buffer's data");
    *offset = data.count ? data.at : qp_flat_u64(b, &buffer, BUFFER_OFFSET, "a buffer");
    *n_bytes = data.count ? data.count : qp_flat_u64(b, &buffer, BUFFER_SIZE, "a buffer");
}

static quip_status read_tensor(struct format *f, struct flat *b, struct flat_vector buffers,
                               struct flat_table item, quip_error *error)
{
    struct tensor t = { 0 };
    struct flat_vector name = qp_flat_vector(b, &item, TENSOR_NAME, 1, "a tensor's name");
    struct flat_vector shape = qp_flat_vector(b, &item, TENSOR_SHAPE, 4, "a tensor's shape");
    uint32_t type = qp_flat_field(b, &item, TENSOR_TYPE, 1, "a tensor's type");
    uint32_t buffer = qp_flat_u32(b, &item, TENSOR_BUFFER, "a tensor's buffer");
    find_buffer(b, buffers, buffer, &t.offset, &t.n_bytes);
    if (b->bad)
        return flat_damaged(f, b->bad, error);

    quip_status status = copy_text(f, b, name, &t.name, error);
    if (status)
        return status;
    if (shape.count > QP_MAX_DIMS)
        return qp_fail(error, QUIP_E_UNSUPPORTED, "%s: %s has %u dimensions; must be at most %d",
                       f->file->name, t.name, (unsigned)shape.count, QP_MAX_DIMS);
    t.n_dims = (int)shape.count;
    for (int i = 0; i < t.n_dims; i++)
        t.dims[i] = (int32_t)qp_le32(b->p + shape.at + 4 * i);
    t.dtype = dtype_of_type(type ? b->p[type] : 0);
    // weights are read directly from the mapped file
    if ((t.dtype == DTYPE_F32 || t.dtype == DTYPE_I32) && t.offset % 4)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: %s is at offset %" PRIu64 "; must be a multiple of 4", f->file->name,
                       t.name, t.offset);
    return qp_format_add_tensor(f, &t, name.count, error);
}

/* Whether the buffer field of a metadata entry is its value. */
static bool is_value_entry(const char *name)
{
    return !strcmp(name, "odml.infra.LlmModelType") || !strcmp(name, "lora_rank");
}

static quip_status read_metadata(struct format *f, struct flat *b, struct flat_vector buffers,
                                 struct flat_table item, quip_error *error)
{
    struct metadata m = { .type = METADATA_BYTES };
    struct flat_vector name = qp_flat_vector(b, &item, METADATA_NAME, 1, "a metadata entry's name");
    uint32_t buffer = qp_flat_u32(b, &item, METADATA_BUFFER, "a metadata entry");
    if (b->bad)
        return flat_damaged(f, b->bad, error);
    quip_status status = copy_text(f, b, name, &m.name, error);
    if (status)
        return status;
    if (is_value_entry(m.name)) {
        m.type = METADATA_INT;
        m.i = buffer;
        m.f = buffer;
    } else {
        find_buffer(b, buffers, buffer, &m.offset, &m.n_bytes);
        if (b->bad)
            return flat_damaged(f, b->bad, error);
    }
    return qp_format_add_metadata(f, &m, name.count, error);
}

quip_status qp_tflite_read(struct format *f, quip_error *error)
{
    uint64_t size = f->file->size;
    struct flat b = { .n = size < TFLITE_HEADER_BYTES ? (uint32_t)size : TFLITE_HEADER_BYTES };
    quip_status status = qp_format_view(f, 0, b.n, &b.p, error);
    if (status)
        return status;

    struct flat_table model = qp_flat_table(&b, qp_le32(b.p), "the model");
    uint32_t version = qp_flat_u32(&b, &model, MODEL_VERSION, "the version");
    struct flat_vector codes =
        qp_flat_vector(&b, &model, MODEL_OPERATOR_CODES, 4, "operator codes");
    struct flat_vector subgraphs = qp_flat_vector(&b, &model, MODEL_SUBGRAPHS, 4, "subgraphs");
    struct flat_vector buffers = qp_flat_vector(&b, &model, MODEL_BUFFERS, 4, "buffers");
    struct flat_vector entries = qp_flat_vector(&b, &model, MODEL_METADATA, 4, "metadata");
    if (b.bad)
        return flat_damaged(f, b.bad, error);
    if (version != TFLITE_VERSION)
        return qp_fail(error, QUIP_E_UNSUPPORTED, "%s: is TFLite version %u; expected %d",
                       f->file->name, (unsigned)version, TFLITE_VERSION);
    if (codes.count)
        return qp_fail(
            error, QUIP_E_UNSUPPORTED,
            "%s: is a TFLite graph of operators; expected weights only; convert the model's "
            "checkpoint: quip convert CHECKPOINT model.bin",
            f->file->name);
    if (subgraphs.count != 1)
        return qp_fail(error, QUIP_E_UNSUPPORTED, "%s: has %u subgraphs, expected 1", f->file->name,
                       (unsigned)subgraphs.count);

    struct flat_table subgraph = qp_flat_item(&b, subgraphs, 0, "the subgraph");
    struct flat_vector name =
        qp_flat_vector(&b, &subgraph, SUBGRAPH_NAME, 1, "the subgraph's name");
    struct flat_vector tensors = qp_flat_vector(&b, &subgraph, SUBGRAPH_TENSORS, 4, "tensors");
    if (b.bad)
        return flat_damaged(f, b.bad, error);
    status = copy_text(f, &b, name, &f->subgraph_name, error);
    for (uint32_t i = 0; !status && i < tensors.count; i++)
        status = read_tensor(f, &b, buffers, qp_flat_item(&b, tensors, i, "a tensor"), error);
    for (uint32_t i = 0; !status && i < entries.count; i++)
        status =
            read_metadata(f, &b, buffers, qp_flat_item(&b, entries, i, "a metadata entry"), error);
    return status;
}
