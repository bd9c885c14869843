/* tflite_writer.c: writes MediaPipe's model file, in the layout for CPUs or for GPUs.
 * In:  tensors and metadata, declared first; then the tensors' bytes, in any order and any pieces.
 * Out: the flatbuffer; then the metadata and the tensors in the order of their declaration, each at
 *      a multiple of 64 bytes (for GPUs: 256, and the first one at a multiple of 64 KiB); then
 * zeros up to a multiple of 64 KiB and at least 1 MiB.
 *
 * The padding lets MediaPipe open the file: it maps whole pages, the first MiB at once. The writer
 * needs memory for the declarations only, not for the weights. */
#include "format/tflite_writer.h"
#include "format/format_reader.h"
#include "format/little_endian.h"
#include "format/tflite.h"

#include <assert.h>
#include <stdlib.h>

#define CPU_ALIGN 64
#define GPU_ALIGN 256
#define FILE_ALIGN 65536

struct out_tensor {
    size_t name; // offset in `names`
    enum dtype dtype;
    int n_dims;
    int32_t dims[QP_MAX_DIMS];
    uint64_t n_bytes, offset, n_written;
};

struct out_entry {
    size_t name;
    bool is_value;
    uint32_t value;      // is_value: the buffer field itself
    size_t data, n_data; // in `contents`
    uint64_t offset;     // in the file
};

struct tflite_writer {
    struct out_file *file;
    char *path;
    bool has_begun, is_for_gpu;
    size_t subgraph_name;
    struct bytes names;    // zero-terminated
    struct bytes contents; // of the metadata
    struct bytes tensors;  // struct out_tensor
    struct bytes entries;  // struct out_entry
};

static size_t n_out_tensors(const struct tflite_writer *w)
{
    return w->tensors.n / sizeof(struct out_tensor);
}

static struct out_tensor *out_tensor(const struct tflite_writer *w, size_t i)
{
    return (struct out_tensor *)(void *)w->tensors.data + i;
}

static size_t n_out_entries(const struct tflite_writer *w)
{
    return w->entries.n / sizeof(struct out_entry);
}

static struct out_entry *out_entry(const struct tflite_writer *w, size_t i)
{
    return (struct out_entry *)(void *)w->entries.data + i;
}

static const char *out_name(const struct tflite_writer *w, size_t name)
{
    return (const char *)w->names.data + name;
}

/* ---- declaring ---- */

static bool add_name(struct tflite_writer *w, const char *name, size_t *at)
{
    *at = w->names.n;
    return qp_bytes_append(&w->names, name, strlen(name) + 1);
}

quip_status qp_tflite_writer_open(struct tflite_writer **out, const char *path,
                                  const char *subgraph_name, quip_error *error)
{
    *out = NULL;
    struct tflite_writer *w = calloc(1, sizeof *w);
    size_t n = strlen(path) + 1;
    if (w)
        w->path = malloc(n);
    if (!w || !w->path || !add_name(w, subgraph_name, &w->subgraph_name)) {
        qp_tflite_writer_close(w);
        return qp_fail_memory(error, path, sizeof *w + n);
    }
    memcpy(w->path, path, n);
    quip_status status = qp_out_file_open(&w->file, path, error);
    if (status) {
        qp_tflite_writer_close(w);
        return status;
    }
    *out = w;
    return QUIP_OK;
}

void qp_tflite_writer_close(struct tflite_writer *w)
{
    if (!w)
        return;
    qp_out_file_close(w->file);
    qp_bytes_close(&w->names);
    qp_bytes_close(&w->contents);
    qp_bytes_close(&w->tensors);
    qp_bytes_close(&w->entries);
    free(w->path);
    free(w);
}

void qp_tflite_writer_for_gpu(struct tflite_writer *w)
{
    assert(!n_out_tensors(w));
    w->is_for_gpu = true;
}

static bool is_writable(const struct tflite_writer *w, enum dtype dtype)
{
    return (dtype == DTYPE_F16 && w->is_for_gpu) || dtype == DTYPE_F32 || dtype == DTYPE_I8 ||
           dtype == DTYPE_I4 || dtype == DTYPE_I32;
}

quip_status qp_tflite_writer_tensor(struct tflite_writer *w, const char *name, enum dtype dtype,
                                    int n_dims, const int64_t *dims, int *index, quip_error *error)
{
    assert(!w->has_begun);
    struct out_tensor t = { .dtype = dtype, .n_dims = n_dims };
    uint64_t n;
    if (!is_writable(w, dtype))
        return qp_fail(error, QUIP_E_UNSUPPORTED, "%s: cannot write %s as %s", w->path, name,
                       qp_dtype_name(dtype));
    if (n_dims < 0 || n_dims > QP_MAX_DIMS || !qp_format_elements(dims, n_dims, &n) ||
        !qp_dtype_bytes(dtype, n, &t.n_bytes))
        return qp_fail(error, QUIP_E_ARGUMENT, "%s: %s has an invalid shape for %s", w->path, name,
                       qp_dtype_name(dtype));
    const int64_t n_bytes = (int64_t)t.n_bytes;
    if (w->is_for_gpu) {
        t.dtype = dtype == DTYPE_F16 ? DTYPE_F32 : dtype;
        t.n_dims = 1;
        dims = &n_bytes;
    }
    for (int i = 0; i < t.n_dims; i++) {
        if (dims[i] > INT32_MAX)
            return qp_fail(error, QUIP_E_UNSUPPORTED,
                           "%s: %s has a dimension of %" PRId64 "; must be below 2^31", w->path,
                           name, dims[i]);
        t.dims[i] = (int32_t)dims[i];
    }
    if (!add_name(w, name, &t.name) || !qp_bytes_append(&w->tensors, &t, sizeof t))
        return qp_fail_memory(error, "the list of tensors", w->tensors.n + sizeof t);
    *index = (int)n_out_tensors(w) - 1;
    return QUIP_OK;
}

static quip_status declare_entry(struct tflite_writer *w, const char *name, struct out_entry *e,
                                 quip_error *error)
{
    assert(!w->has_begun);
    if (!add_name(w, name, &e->name) || !qp_bytes_append(&w->entries, e, sizeof *e))
        return qp_fail_memory(error, "the list of metadata", w->entries.n + sizeof *e);
    return QUIP_OK;
}

quip_status qp_tflite_writer_metadata(struct tflite_writer *w, const char *name, const void *data,
                                      size_t n, quip_error *error)
{
    struct out_entry e = { .data = w->contents.n, .n_data = n };
    if (!qp_bytes_append(&w->contents, data, n))
        return qp_fail_memory(error, name, n);
    return declare_entry(w, name, &e, error);
}

quip_status qp_tflite_writer_value(struct tflite_writer *w, const char *name, uint32_t value,
                                   quip_error *error)
{
    struct out_entry e = { .is_value = true, .value = value };
    return declare_entry(w, name, &e, error);
}

/* ---- the flatbuffer ----
 * It is written front to back. A table's pointers are empty until the table, vector or string that
 * they point to is added. Tables of a kind share one vtable. If an allocation fails, has_failed is
 * set and all further calls do nothing. */

struct flat_out {
    struct bytes bytes;
    bool has_failed;
};

/* Add n zero bytes at an address that is `shift` above a multiple of `align`. Returns the address.
 */
static size_t flat_reserve(struct flat_out *o, size_t n, size_t align, size_t shift)
{
    size_t at = qp_round_up(o->bytes.n + (align - shift), align) - (align - shift);
    size_t n_more = at + n - o->bytes.n;
    if (o->has_failed || !qp_bytes_reserve(&o->bytes, n_more)) {
        o->has_failed = true;
        return at;
    }
    memset(o->bytes.data + o->bytes.n, 0, n_more);
    o->bytes.n += n_more;
    return at;
}

static void flat_set32(struct flat_out *o, size_t at, uint32_t value)
{
    assert(o->has_failed || at + 4 <= o->bytes.n);
    if (!o->has_failed)
        qp_put_le32(o->bytes.data + at, value);
}

static void flat_set64(struct flat_out *o, size_t at, uint64_t value)
{
    assert(o->has_failed || at + 8 <= o->bytes.n);
    if (!o->has_failed)
        qp_put_le64(o->bytes.data + at, value);
}

/* Set the pointer at `at` to `target`, which must be after it. */
static void flat_set_pointer(struct flat_out *o, size_t at, size_t target)
{
    assert(target > at || o->has_failed);
    flat_set32(o, at, (uint32_t)(target - at));
}

/* A kind of table: its size, and the offset of each field in it; 0 for an absent field. */
struct flat_kind {
    uint16_t n_bytes, n_fields;
    uint16_t offsets[9];
};

/* The tables of a model file, with the fields that MediaPipe writes. */
static const struct flat_kind model_kind = {
    20,
    7,
    { [MODEL_VERSION] = 4, [MODEL_SUBGRAPHS] = 8, [MODEL_BUFFERS] = 12, [MODEL_METADATA] = 16 },
};
static const struct flat_kind subgraph_kind = {
    12,
    5,
    { [SUBGRAPH_TENSORS] = 4, [SUBGRAPH_NAME] = 8 },
};
static const struct flat_kind tensor_kind = {
    20,
    9,
    { [TENSOR_SHAPE] = 4,
      [TENSOR_BUFFER] = 8,
      [TENSOR_NAME] = 12,
      [TENSOR_HAS_RANK] = 16,
      [TENSOR_TYPE] = 17 },
};
static const struct flat_kind float_tensor_kind = {
    // the same without the type, whose default is 0
    20,
    9,
    { [TENSOR_SHAPE] = 4, [TENSOR_BUFFER] = 8, [TENSOR_NAME] = 12, [TENSOR_HAS_RANK] = 16 },
};
static const struct flat_kind buffer_kind = {
    20,
    3,
    { [BUFFER_OFFSET] = 4, [BUFFER_SIZE] = 12 },
};
static const struct flat_kind empty_buffer_kind = { 4, 0, { 0 } };
static const struct flat_kind metadata_kind = {
    12,
    2,
    { [METADATA_NAME] = 4, [METADATA_BUFFER] = 8 },
};

static size_t flat_add_vtable(struct flat_out *o, const struct flat_kind *kind)
{
    size_t at = flat_reserve(o, 4 + 2 * (size_t)kind->n_fields, 4, 0);
    if (o->has_failed)
        return at;
    uint8_t *p = o->bytes.data + at;
    qp_put_le16(p, (uint16_t)(4 + 2 * kind->n_fields));
    qp_put_le16(p + 2, kind->n_bytes);
    for (int i = 0; i < kind->n_fields; i++)
        qp_put_le16(p + 4 + 2 * i, kind->offsets[i]);
    return at;
}

/* Add a table at 4 above a multiple of 8, which aligns the 64-bit fields of a buffer, at 4 and 12.
 * Its first word is the distance back to its vtable. */
static size_t flat_add_table(struct flat_out *o, const struct flat_kind *kind, size_t vtable)
{
    size_t at = flat_reserve(o, kind->n_bytes, 8, 4);
    flat_set32(o, at, (uint32_t)(at - vtable));
    return at;
}

/* Add a vector of `count` items of 4 bytes and set `pointer` to it. Returns where the items are. */
static size_t flat_add_vector(struct flat_out *o, size_t pointer, size_t count)
{
    size_t at = flat_reserve(o, 4 + 4 * count, 4, 0);
    flat_set32(o, at, (uint32_t)count);
    flat_set_pointer(o, pointer, at);
    return at + 4;
}

static void flat_add_string(struct flat_out *o, size_t pointer, const char *text)
{
    size_t n = strlen(text), at = flat_reserve(o, 4 + n + 1, 4, 0);
    flat_set32(o, at, (uint32_t)n);
    flat_set_pointer(o, pointer, at);
    if (!o->has_failed)
        memcpy(o->bytes.data + at + 4, text, n);
}

static void flat_tensor(struct flat_out *o, size_t at, uint32_t buffer, const struct out_tensor *t,
                        const char *name)
{
    const uint16_t *offsets =
        tensor_kind.offsets; // those of float_tensor_kind are the same, except the type
    uint32_t type = (uint32_t)qp_tflite_type(t->dtype);
    flat_set32(o, at + offsets[TENSOR_BUFFER], buffer);
    flat_set32(o, at + offsets[TENSOR_HAS_RANK], 1 | type << 8); // two fields of one byte each
    size_t shape = flat_add_vector(o, at + offsets[TENSOR_SHAPE], (size_t)t->n_dims);
    for (int d = 0; d < t->n_dims; d++)
        flat_set32(o, shape + 4 * (size_t)d, (uint32_t)t->dims[d]);
    flat_add_string(o, at + offsets[TENSOR_NAME], name);
}

static void flat_tensors(struct flat_out *o, const struct tflite_writer *w, size_t pointer)
{
    size_t typed = flat_add_vtable(o, &tensor_kind);
    size_t untyped = flat_add_vtable(o, &float_tensor_kind);
    size_t list = flat_add_vector(o, pointer, n_out_tensors(w));
    for (size_t i = 0; i < n_out_tensors(w); i++) {
        const struct out_tensor *t = out_tensor(w, i);
        size_t at = t->dtype == DTYPE_F32 ? flat_add_table(o, &float_tensor_kind, untyped)
                                          : flat_add_table(o, &tensor_kind, typed);
        flat_set_pointer(o, list + 4 * i, at);
        flat_tensor(o, at, (uint32_t)i + 1, t, out_name(w, t->name));
    }
}

/* Buffer 0 is empty. Then follows one buffer for each tensor and for each metadata entry with
 * contents. */
static void flat_buffers(struct flat_out *o, const struct tflite_writer *w, size_t pointer)
{
    size_t vtable = flat_add_vtable(o, &buffer_kind);
    size_t empty = flat_add_vtable(o, &empty_buffer_kind);
    size_t n_tensors = n_out_tensors(w), n = 1 + n_tensors;
    for (size_t i = 0; i < n_out_entries(w); i++)
        n += !out_entry(w, i)->is_value;
    size_t item = flat_add_vector(o, pointer, n);
    flat_set_pointer(o, item, flat_add_table(o, &empty_buffer_kind, empty));
    for (size_t i = 0; i < n_tensors + n_out_entries(w); i++) {
        const struct out_tensor *t = i < n_tensors ? out_tensor(w, i) : NULL;
        const struct out_entry *e = t ? NULL : out_entry(w, i - n_tensors);
        if (e && e->is_value)
            continue;
        size_t at = flat_add_table(o, &buffer_kind, vtable);
        item += 4;
        flat_set_pointer(o, item, at);
        flat_set64(o, at + buffer_kind.offsets[BUFFER_OFFSET], t ? t->offset : e->offset);
        flat_set64(o, at + buffer_kind.offsets[BUFFER_SIZE], t ? t->n_bytes : e->n_data);
    }
}

static void flat_metadata(struct flat_out *o, const struct tflite_writer *w, size_t pointer)
{
    size_t vtable = flat_add_vtable(o, &metadata_kind);
    size_t list = flat_add_vector(o, pointer, n_out_entries(w));
    uint32_t buffer = (uint32_t)n_out_tensors(w) + 1;
    for (size_t i = 0; i < n_out_entries(w); i++) {
        const struct out_entry *e = out_entry(w, i);
        size_t at = flat_add_table(o, &metadata_kind, vtable);
        flat_set_pointer(o, list + 4 * i, at);
        flat_set32(o, at + metadata_kind.offsets[METADATA_BUFFER],
                   e->is_value ? e->value : buffer++);
        flat_add_string(o, at + metadata_kind.offsets[METADATA_NAME], out_name(w, e->name));
    }
}

/* Build the whole flatbuffer. Its size does not depend on the offsets in it. */
static bool build_flatbuffer(struct bytes *out, const struct tflite_writer *w)
{
    struct flat_out o = { 0 };
    size_t root = flat_reserve(&o, 8, 8, 0);
    if (!o.has_failed)
        memcpy(o.bytes.data + root + 4, "TFL3", 4);
    size_t model_vtable = flat_add_vtable(&o, &model_kind);
    size_t subgraph_vtable = flat_add_vtable(&o, &subgraph_kind);
    size_t model = flat_add_table(&o, &model_kind, model_vtable);
    flat_set_pointer(&o, root, model);
    flat_set32(&o, model + model_kind.offsets[MODEL_VERSION], TFLITE_VERSION);

    size_t subgraphs = flat_add_vector(&o, model + model_kind.offsets[MODEL_SUBGRAPHS], 1);
    size_t subgraph = flat_add_table(&o, &subgraph_kind, subgraph_vtable);
    flat_set_pointer(&o, subgraphs, subgraph);
    flat_add_string(&o, subgraph + subgraph_kind.offsets[SUBGRAPH_NAME],
                    out_name(w, w->subgraph_name));
    flat_tensors(&o, w, subgraph + subgraph_kind.offsets[SUBGRAPH_TENSORS]);
    flat_buffers(&o, w, model + model_kind.offsets[MODEL_BUFFERS]);
    flat_metadata(&o, w, model + model_kind.offsets[MODEL_METADATA]);
    *out = o.bytes;
    return !o.has_failed;
}

/* ---- the file ---- */

/* Assign an offset in the file to every buffer, beginning at `at`. False if the file would have
 * 2^63 bytes or more. */
static bool assign_offsets(struct tflite_writer *w, uint64_t at, uint64_t *end)
{
    const uint64_t align = w->is_for_gpu ? GPU_ALIGN : CPU_ALIGN;
    at = qp_round_up(at, w->is_for_gpu ? FILE_ALIGN : CPU_ALIGN);
    for (size_t i = 0; i < n_out_entries(w); i++) {
        struct out_entry *e = out_entry(w, i);
        e->offset = at;
        at += qp_round_up(e->n_data, align);
    }
    for (size_t i = 0; i < n_out_tensors(w); i++) {
        struct out_tensor *t = out_tensor(w, i);
        if (at > INT64_MAX / 2 || t->n_bytes > INT64_MAX / 2)
            return false;
        t->offset = at;
        at += (t->n_bytes + align - 1) / align * align;
    }
    *end = at;
    return true;
}

static uint64_t padded_size(uint64_t end)
{
    uint64_t size = end < TFLITE_HEADER_BYTES ? TFLITE_HEADER_BYTES : end;
    return (size + FILE_ALIGN - 1) / FILE_ALIGN * FILE_ALIGN;
}

static quip_status write_header(struct tflite_writer *w, const struct bytes *flatbuffer,
                                uint64_t end, quip_error *error)
{
    quip_status status = qp_out_file_resize(w->file, padded_size(end), error);
    if (!status)
        status = qp_out_file_write(w->file, 0, flatbuffer->data, flatbuffer->n, error);
    for (size_t i = 0; i < n_out_entries(w) && !status; i++) {
        const struct out_entry *e = out_entry(w, i);
        if (e->n_data)
            status =
                qp_out_file_write(w->file, e->offset, w->contents.data + e->data, e->n_data, error);
    }
    return status;
}

quip_status qp_tflite_writer_begin(struct tflite_writer *w, quip_error *error)
{
    assert(!w->has_begun);
    quip_status status;
    struct bytes flatbuffer = { 0 };
    uint64_t end = 0;
    // two passes: the first finds the size of the flatbuffer, the second writes the offsets
    for (int pass = 0; pass < 2; pass++) {
        qp_bytes_close(&flatbuffer);
        if (!build_flatbuffer(&flatbuffer, w)) {
            status = qp_fail_memory(error, "the header", flatbuffer.n);
            goto done;
        }
        if (flatbuffer.n > TFLITE_HEADER_BYTES) {
            status = qp_fail(error, QUIP_E_UNSUPPORTED,
                             "%s: the header of %zu tensors has %zu bytes; must be at most %u",
                             w->path, n_out_tensors(w), flatbuffer.n, TFLITE_HEADER_BYTES);
            goto done;
        }
        if (!assign_offsets(w, flatbuffer.n, &end)) {
            status = qp_fail(error, QUIP_E_UNSUPPORTED,
                             "%s: the file would have 2^63 bytes or more", w->path);
            goto done;
        }
    }
    status = write_header(w, &flatbuffer, end, error);
    w->has_begun = !status;
done:
    qp_bytes_close(&flatbuffer);
    return status;
}

quip_status qp_tflite_writer_write(struct tflite_writer *w, int index, uint64_t offset,
                                   const void *data, size_t n, quip_error *error)
{
    assert(w->has_begun && index >= 0 && (size_t)index < n_out_tensors(w));
    struct out_tensor *t = out_tensor(w, (size_t)index);
    if (offset > t->n_bytes || n > t->n_bytes - offset)
        return qp_fail(error, QUIP_E_ARGUMENT,
                       "%s: %zu bytes at offset %" PRIu64 " are not inside %s, which has %" PRIu64,
                       w->path, n, offset, out_name(w, t->name), t->n_bytes);
    quip_status status = qp_out_file_write(w->file, t->offset + offset, data, n, error);
    if (!status)
        t->n_written += n;
    return status;
}

/* The header contains the length of an entry, so it is written again. Its layout does not change.
 */
static quip_status rewrite_entry(struct tflite_writer *w, struct out_entry *e, const void *data,
                                 size_t n, quip_error *error)
{
    struct bytes flatbuffer = { 0 };
    e->n_data = n;
    quip_status status = build_flatbuffer(&flatbuffer, w)
                             ? qp_out_file_write(w->file, 0, flatbuffer.data, flatbuffer.n, error)
                             : qp_fail_memory(error, "the header", flatbuffer.n);
    qp_bytes_close(&flatbuffer);
    return status ? status : qp_out_file_write(w->file, e->offset, data, n, error);
}

quip_status qp_tflite_writer_rewrite(struct tflite_writer *w, const char *name, const void *data,
                                     size_t n, quip_error *error)
{
    assert(w->has_begun);
    for (size_t i = 0; i < n_out_entries(w); i++) {
        struct out_entry *e = out_entry(w, i);
        if (!e->is_value && strcmp(out_name(w, e->name), name) == 0 && n <= e->n_data)
            return rewrite_entry(w, e, data, n, error);
    }
    return qp_fail(error, QUIP_E_ARGUMENT, "%s: cannot hold %zu bytes of %s", w->path, n, name);
}

quip_status qp_tflite_writer_commit(struct tflite_writer *w, quip_error *error)
{
    assert(w->has_begun);
    for (size_t i = 0; i < n_out_tensors(w); i++) {
        const struct out_tensor *t = out_tensor(w, i);
        if (t->n_written < t->n_bytes)
            return qp_fail(error, QUIP_E_ARGUMENT,
                           "%s: only %" PRIu64 " of the %" PRIu64 " bytes of %s were written",
                           w->path, t->n_written, t->n_bytes, out_name(w, t->name));
    }
    return qp_out_file_commit(w->file, error);
}
