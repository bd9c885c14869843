/* gguf.c: reads GGUF, versions 2 and 3 (ggml's docs/gguf.md).
 * In:  "GGUF", u32 version, u64 counts of tensors and entries, the entries (name, type, value), the
 *      tensors (name, dimensions innermost first, type, offset), padding to general.alignment, the
 *      data.
 * Out: tensors with dimensions outermost first, and entries. Arrays stay in the file;
 *      qp_metadata_next reads them.
 *
 * The file does not say how long the header is, so it is read front to back, through a window if
 * the file is not mapped. After the first failure every read returns zero, which ends all loops. */
#include "format/format_reader.h"
#include "format/little_endian.h"

#include <assert.h>

#define GGUF_WINDOW 4096

/* The smallest tensor and entry, in bytes. They limit the counts that a header can have. */
enum {
    GGUF_MIN_TENSOR = 8 + 4 + 4 + 8,
    GGUF_MIN_ENTRY = 8 + 4 + 1
};

struct gguf_reader {
    struct format *f;
    uint64_t pos;
    quip_status status; // of the first failure
    quip_error *error;
    uint64_t window_begin;
    size_t window_n;
    uint8_t window[GGUF_WINDOW];
};

/* ---- front to back ---- */

static uint64_t gguf_left(const struct gguf_reader *r)
{
    return r->status ? 0 : r->f->file->size - r->pos;
}

/* Read the next n bytes; zeros after a failure. */
static void gguf_read_bytes(struct gguf_reader *r, void *to, size_t n)
{
    memset(to, 0, n);
    const struct file *file = r->f->file;
    assert(r->pos <= file->size);
    if (r->status)
        return;
    if (file->data || n > GGUF_WINDOW || n > gguf_left(r)) { // qp_file_read reports too few bytes
        r->status = qp_file_read(file, r->pos, to, n, r->error);
    } else {
        if (r->pos < r->window_begin || r->pos + n > r->window_begin + r->window_n) {
            uint64_t left = gguf_left(r);
            r->window_begin = r->pos;
            r->window_n = left < GGUF_WINDOW ? (size_t)left : GGUF_WINDOW;
            r->status = qp_file_read(file, r->pos, r->window, r->window_n, r->error);
            if (r->status)
                return;
        }
        memcpy(to, r->window + (r->pos - r->window_begin), n);
    }
    if (!r->status)
        r->pos += n;
}

static uint32_t gguf_u32(struct gguf_reader *r)
{
    uint8_t b[4];
    gguf_read_bytes(r, b, sizeof b);
    return qp_le32(b);
}

static uint64_t gguf_u64(struct gguf_reader *r)
{
    uint8_t b[8];
    gguf_read_bytes(r, b, sizeof b);
    return qp_le64(b);
}

static void gguf_skip(struct gguf_reader *r, uint64_t n, const char *name)
{
    if (!r->status && n > gguf_left(r))
        r->status = qp_fail(r->error, QUIP_E_FORMAT,
                            "%s: %s has %" PRIu64 " bytes at offset %" PRIu64
                            ", but the file has %" PRIu64 "; is it truncated?",
                            r->f->file->name, name, n, r->pos, r->f->file->size);
    if (!r->status)
        r->pos += n;
}

/* Read a string as a name that is valid until close; "" after a failure. */
static const char *gguf_name(struct gguf_reader *r, size_t *n_bytes)
{
    uint64_t n = gguf_u64(r), begin = r->pos;
    *n_bytes = 0;
    gguf_skip(r, n, "a name");
    char *name = r->status ? NULL : qp_format_text(r->f, (size_t)n);
    if (!r->status && !name)
        r->status = qp_fail_memory(r->error, "a name", (size_t)n);
    if (r->status)
        return "";
    r->pos = begin;
    gguf_read_bytes(r, name, (size_t)n);
    *n_bytes = (size_t)n;
    return name;
}

/* ---- values ---- */

enum {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64
};

/* Bytes of a number of this type; 0 for any other type. */
static size_t gguf_number_bytes(int type)
{
    static const uint8_t bytes[] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };
    return (unsigned)type < QP_COUNT(bytes) ? bytes[type] : 0;
}

static enum metadata_type gguf_number_type(int type)
{
    return type == GGUF_F32 || type == GGUF_F64 ? METADATA_FLOAT : METADATA_INT;
}

/* The number at p, as an integer and as a float; false if it does not fit in int64. */
static bool gguf_number(int type, const uint8_t *p, int64_t *i, double *f)
{
    *i = 0;
    *f = 0;
    switch (type) {
    case GGUF_U8:
        *i = p[0];
        break;
    case GGUF_BOOL:
        *i = p[0] != 0;
        break;
    case GGUF_I8:
        *i = (int8_t)p[0];
        break;
    case GGUF_U16:
        *i = qp_le16(p);
        break;
    case GGUF_I16:
        *i = (int16_t)qp_le16(p);
        break;
    case GGUF_U32:
        *i = qp_le32(p);
        break;
    case GGUF_I32:
        *i = (int32_t)qp_le32(p);
        break;
    case GGUF_U64:
        if (qp_le64(p) > INT64_MAX)
            return false;
        *i = (int64_t)qp_le64(p);
        break;
    case GGUF_I64:
        *i = (int64_t)qp_le64(p);
        break;
    case GGUF_F32:
        *f = qp_float_of_bits(qp_le32(p));
        return true;
    case GGUF_F64:
        *f = qp_double_of_bits(qp_le64(p));
        return true;
    default:
        return false;
    }
    *f = (double)*i;
    return true;
}

/* Record where the items of an array are, and skip them. */
static void gguf_array(struct gguf_reader *r, struct metadata *m)
{
    m->type = METADATA_ARRAY;
    m->gguf_item = (int)gguf_u32(r);
    m->n_items = gguf_u64(r);
    m->offset = r->pos;
    if (r->status)
        return;
    uint64_t number = gguf_number_bytes(m->gguf_item);
    if (!number && m->gguf_item != GGUF_STRING) {
        r->status = qp_fail(r->error, QUIP_E_UNSUPPORTED,
                            "%s: %s is an array of items of type %d, expected numbers or strings",
                            r->f->file->name, m->name, m->gguf_item);
        return;
    }
    uint64_t item = number ? number : 8; // a string has at least its length
    if (m->n_items > gguf_left(r) / item) {
        r->status = qp_fail(r->error, QUIP_E_FORMAT,
                            "%s: %s has %" PRIu64 " items, more than fit in the file",
                            r->f->file->name, m->name, m->n_items);
        return;
    }
    if (number) {
        m->item = gguf_number_type(m->gguf_item);
        gguf_skip(r, m->n_items * number, m->name);
    } else {
        m->item = METADATA_BYTES;
        for (uint64_t i = 0; i < m->n_items && !r->status; i++)
            gguf_skip(r, gguf_u64(r), m->name);
    }
    m->n_bytes = r->pos - m->offset;
}

static void gguf_value(struct gguf_reader *r, struct metadata *m)
{
    int type = (int)gguf_u32(r);
    size_t number = gguf_number_bytes(type);
    if (type == GGUF_ARRAY) {
        gguf_array(r, m);
    } else if (type == GGUF_STRING) {
        m->type = METADATA_BYTES;
        m->n_bytes = gguf_u64(r);
        m->offset = r->pos;
        gguf_skip(r, m->n_bytes, m->name);
    } else if (number) {
        uint8_t b[8] = { 0 };
        m->type = gguf_number_type(type);
        gguf_read_bytes(r, b, number);
        if (!r->status && !gguf_number(type, b, &m->i, &m->f))
            r->status =
                qp_fail(r->error, QUIP_E_FORMAT, "%s: %s is %" PRIu64 "; must be below 2^63",
                        r->f->file->name, m->name, qp_le64(b));
    } else if (!r->status) {
        r->status = qp_fail(r->error, QUIP_E_FORMAT, "%s: %s has the unknown type %d",
                            r->f->file->name, m->name, type);
    }
}

static void gguf_entry(struct gguf_reader *r, uint64_t *alignment)
{
    struct metadata m = { 0 };
    size_t n_name;
    m.name = gguf_name(r, &n_name);
    gguf_value(r, &m);
    if (!r->status)
        r->status = qp_format_add_metadata(r->f, &m, n_name, r->error);
    if (r->status || strcmp(m.name, "general.alignment"))
        return;
    if (m.type != METADATA_INT || m.i <= 0 || m.i > 1 << 20 || (m.i & (m.i - 1)))
        r->status =
            qp_fail(r->error, QUIP_E_FORMAT,
                    "%s: general.alignment must be a power of two up to 2^20", r->f->file->name);
    else
        *alignment = (uint64_t)m.i;
}

/* ---- tensors ---- */

/* The dtype of a ggml_type, DTYPE_OTHER for those that are not read, and its name. */
static enum dtype gguf_dtype(uint32_t type, const char **name)
{
    static const struct {
        uint8_t type, dtype;
        const char *name;
    } types[] = {
        { 0, DTYPE_F32, NULL },         { 1, DTYPE_F16, NULL },
        { 2, DTYPE_Q4_0, NULL },        { 3, DTYPE_Q4_1, NULL },
        { 6, DTYPE_Q5_0, NULL },        { 7, DTYPE_Q5_1, NULL },
        { 8, DTYPE_Q8_0, NULL },        { 10, DTYPE_Q2_K, NULL },
        { 11, DTYPE_Q3_K, NULL },       { 12, DTYPE_Q4_K, NULL },
        { 13, DTYPE_Q5_K, NULL },       { 14, DTYPE_Q6_K, NULL },
        { 16, DTYPE_OTHER, "IQ2_XXS" }, { 17, DTYPE_OTHER, "IQ2_XS" },
        { 18, DTYPE_OTHER, "IQ3_XXS" }, { 19, DTYPE_OTHER, "IQ1_S" },
        { 20, DTYPE_IQ4_NL, NULL },     { 21, DTYPE_OTHER, "IQ3_S" },
        { 22, DTYPE_OTHER, "IQ2_S" },   { 23, DTYPE_IQ4_XS, NULL },
        { 24, DTYPE_I8, NULL },         { 25, DTYPE_OTHER, "I16" },
        { 26, DTYPE_I32, NULL },        { 27, DTYPE_OTHER, "I64" },
        { 28, DTYPE_F64, NULL },        { 29, DTYPE_OTHER, "IQ1_M" },
        { 30, DTYPE_BF16, NULL },       { 34, DTYPE_TQ1_0, NULL },
        { 35, DTYPE_TQ2_0, NULL },      { 39, DTYPE_MXFP4, NULL },
        { 40, DTYPE_NVFP4, NULL },      { 41, DTYPE_Q1_0, NULL },
    };
    *name = NULL;
    for (size_t i = 0; i < QP_COUNT(types); i++)
        if (types[i].type == type) {
            *name = types[i].name;
            return (enum dtype)types[i].dtype;
        }
    return DTYPE_OTHER;
}

/* Read one tensor. Its offset is still relative to the data; its size follows from the shape. */
static void gguf_tensor(struct gguf_reader *r, struct tensor *t, size_t *n_name)
{
    t->name = gguf_name(r, n_name);
    uint32_t n_dims = gguf_u32(r);
    if (!r->status && n_dims > QP_MAX_DIMS)
        r->status = qp_fail(r->error, QUIP_E_FORMAT, "%s: %s has %u dimensions; must be at most %d",
                            r->f->file->name, t->name, (unsigned)n_dims, QP_MAX_DIMS);
    if (r->status)
        return;
    t->n_dims = (int)n_dims;
    for (int i = t->n_dims - 1; i >= 0; i--)
        t->dims[i] = (int64_t)gguf_u64(r);
    t->dtype = gguf_dtype(gguf_u32(r), &t->type_name);
    t->offset = gguf_u64(r);

    uint64_t n, n_row;
    if (r->status || t->dtype == DTYPE_OTHER)
        return;
    if (!qp_format_elements(t->dims, t->n_dims, &n) ||
        (t->n_dims && !qp_dtype_bytes(t->dtype, (uint64_t)t->dims[t->n_dims - 1], &n_row)) ||
        !qp_dtype_bytes(t->dtype, n, &t->n_bytes))
        r->status = qp_fail(r->error, QUIP_E_FORMAT,
                            "%s: %s has rows that are not whole blocks of %s, or too many of them",
                            r->f->file->name, t->name, qp_dtype_name(t->dtype));
}

/* Where the list of tensors ends. Reads a copy of the reader's state. */
static uint64_t gguf_tensors_end(struct gguf_reader r, uint64_t n_tensors)
{
    for (uint64_t i = 0; i < n_tensors && !r.status; i++) {
        gguf_skip(&r, gguf_u64(&r), "a tensor's name");
        gguf_skip(&r, 8 * (uint64_t)gguf_u32(&r) + 4 + 8, "a tensor");
    }
    return r.pos;
}

static void gguf_tensors(struct gguf_reader *r, uint64_t n_tensors, uint64_t alignment)
{
    struct format *f = r->f;
    assert(alignment && (alignment & (alignment - 1)) == 0);
    uint64_t begin = (gguf_tensors_end(*r, n_tensors) + alignment - 1) & ~(alignment - 1);
    for (uint64_t i = 0; i < n_tensors && !r->status; i++) {
        struct tensor t = { 0 };
        size_t n_name = 0;
        gguf_tensor(r, &t, &n_name);
        if (r->status)
            return;
        if (t.offset % alignment || t.offset > f->file->size) {
            r->status = qp_fail(r->error, QUIP_E_FORMAT,
                                "%s: %s is at offset %" PRIu64 " of the data; expected a multiple "
                                "of %" PRIu64 " inside the file",
                                f->file->name, t.name, t.offset, alignment);
            return;
        }
        t.offset += begin;
        r->status = qp_format_add_tensor(f, &t, n_name, r->error);
    }
}

bool qp_gguf_matches(const uint8_t head[16], uint64_t file_size)
{
    return file_size >= 8 && !memcmp(head, "GGUF", 4);
}

quip_status qp_gguf_read(struct format *f, quip_error *error)
{
    struct gguf_reader r = { .f = f, .pos = 4, .error = error };
    uint32_t version = gguf_u32(&r);
    if (!r.status && version != 2 && version != 3)
        return qp_fail(error, QUIP_E_UNSUPPORTED, "%s: is GGUF version %u%s; expected 2 or 3",
                       f->file->name, (unsigned)version,
                       version >= 1u << 24 ? " (from a big-endian machine?)" : "");
    uint64_t n_tensors = gguf_u64(&r), n_entries = gguf_u64(&r);
    uint64_t left = gguf_left(&r), alignment = 32;
    if (!r.status && (n_tensors > left / GGUF_MIN_TENSOR || n_entries > left / GGUF_MIN_ENTRY))
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: has %" PRIu64 " tensors and %" PRIu64
                       " metadata entries, more than fit in %" PRIu64 " bytes",
                       f->file->name, n_tensors, n_entries, left);
    for (uint64_t i = 0; i < n_entries && !r.status; i++)
        gguf_entry(&r, &alignment);
    if (!r.status)
        gguf_tensors(&r, n_tensors, alignment);
    return r.status;
}

/* ---- arrays ---- */

bool qp_metadata_next(struct format *f, const struct metadata *m, struct metadata_cursor *c)
{
    const uint8_t *data;
    if (m->type != METADATA_ARRAY || c->is_malformed || c->index == m->n_items)
        return false;
    c->is_malformed = true; // unless the item is valid
    if (qp_format_view(f, m->offset, m->n_bytes, &data, NULL))
        return false;

    // check the lengths again, although gguf_array has: another process may write to a mapped file
    assert(c->offset <= m->n_bytes);
    uint64_t left = m->n_bytes - c->offset;
    const uint8_t *p = data + c->offset;
    uint64_t n_item = gguf_number_bytes(m->gguf_item);
    c->text = NULL;
    c->n_text = 0;
    if (m->gguf_item == GGUF_STRING) {
        if (left < 8 || qp_le64(p) > left - 8)
            return false;
        c->text = (const char *)p + 8;
        c->n_text = (size_t)qp_le64(p);
        n_item = 8 + c->n_text;
    } else if (!n_item || left < n_item || !gguf_number(m->gguf_item, p, &c->i, &c->f)) {
        return false;
    }
    c->offset += n_item;
    c->index++;
    c->is_malformed = false;
    return true;
}
