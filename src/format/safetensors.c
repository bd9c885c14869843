/* safetensors.c: reads one safetensors file.
 * In:  u64 length of the header; the header, a JSON object: name -> { "dtype", "shape",
 *      "data_offsets": [begin, end) from the header's end }, and "__metadata__" -> strings; the
 *      data.
 * Out: tensors; the strings of __metadata__ that have no escapes, as bytes of the file.
 *
 * As in the safetensors library, the tensors must cover the data without gaps or overlaps. */
#include "format/format_reader.h"
#include "format/json_scan.h"
#include "format/little_endian.h"

#include <assert.h>
#include <stdlib.h>

/* The limit of the safetensors library. */
#define MAX_HEADER_BYTES 100000000u

static const struct {
    const char *name;
    enum dtype dtype;
    int n_bytes; // of one element
} safetensors_types[] = {
    { "F32", DTYPE_F32, 4 },       { "F16", DTYPE_F16, 2 },       { "BF16", DTYPE_BF16, 2 },
    { "I8", DTYPE_I8, 1 },         { "I32", DTYPE_I32, 4 },       { "U8", DTYPE_OTHER, 1 },
    { "BOOL", DTYPE_OTHER, 1 },    { "I16", DTYPE_OTHER, 2 },     { "U16", DTYPE_OTHER, 2 },
    { "U32", DTYPE_OTHER, 4 },     { "I64", DTYPE_OTHER, 8 },     { "U64", DTYPE_OTHER, 8 },
    { "F64", DTYPE_F64, 8 },       { "C64", DTYPE_OTHER, 8 },     { "F8_E4M3", DTYPE_OTHER, 1 },
    { "F8_E5M2", DTYPE_OTHER, 1 }, { "F8_E8M0", DTYPE_OTHER, 1 },
};

struct safetensors_reader {
    struct format *f;
    struct json_scan json;
    uint64_t header_begin, data_begin; // in the file
    quip_error *error;
};

/* ---- the header ---- */

static quip_status bad_json(const struct safetensors_reader *r, const char *what)
{
    return qp_fail(r->error, QUIP_E_FORMAT,
                   "%s: the safetensors header is invalid near byte %" PRIu64 ": %s",
                   r->f->file->name, r->header_begin + (uint64_t)(r->json.p - r->json.begin), what);
}

/* Copy the text as a name that is valid until close. */
static quip_status keep_name(const struct safetensors_reader *r, struct json_text t,
                             const char **name, size_t *n)
{
    char *copy = qp_format_text(r->f, t.n);
    if (!copy)
        return qp_fail_memory(r->error, "a name", t.n);
    *name = copy;
    *n = qp_json_decode(t, copy);
    return *n == SIZE_MAX ? bad_json(r, "a name has a malformed escape") : QUIP_OK;
}

static void read_shape(struct json_scan *j, struct tensor *t)
{
    qp_json_expect(j, '[');
    int n = 0;
    for (; qp_json_more(j, n, ']'); n++) {
        uint64_t dim = qp_json_uint(j);
        if (n == QP_MAX_DIMS || dim > INT64_MAX) {
            j->is_malformed = true;
            return;
        }
        t->dims[n] = (int64_t)dim;
    }
    t->n_dims = n;
}

static void read_offsets(struct json_scan *j, uint64_t *begin, uint64_t *end)
{
    qp_json_expect(j, '[');
    *begin = qp_json_uint(j);
    qp_json_expect(j, ',');
    *end = qp_json_uint(j);
    qp_json_expect(j, ']');
}

/* What the header says about one tensor. */
struct tensor_entry {
    struct json_text name, type;
    struct tensor t;     // its shape
    uint64_t begin, end; // from data_begin
};

/* { "dtype": ..., "shape": ..., "data_offsets": ... }, in any order, each once. */
static quip_status read_tensor_entry(struct safetensors_reader *r, struct tensor_entry *e)
{
    struct json_scan *j = &r->json;
    unsigned seen = 0;
    qp_json_expect(j, '{');
    for (int i = 0; qp_json_more(j, i, '}'); i++) {
        struct json_text field = qp_json_key(j);
        unsigned bit = 0;
        if (j->is_malformed)
            break;
        if (qp_json_is(field, "dtype")) {
            bit = 1;
            e->type = qp_json_string(j);
        } else if (qp_json_is(field, "shape")) {
            bit = 2;
            read_shape(j, &e->t);
        } else if (qp_json_is(field, "data_offsets")) {
            bit = 4;
            read_offsets(j, &e->begin, &e->end);
        }
        if (!bit || seen & bit)
            return bad_json(r, "expected dtype, shape and data_offsets, each once");
        seen |= bit;
    }
    if (j->is_malformed || seen != 7)
        return bad_json(r, "expected {\"dtype\", \"shape\" (at most 4), \"data_offsets\"}");
    return QUIP_OK;
}

static quip_status add_tensor(struct safetensors_reader *r, struct tensor_entry *e)
{
    struct tensor *t = &e->t;
    size_t n_name, n_type;
    quip_status status = keep_name(r, e->name, &t->name, &n_name);
    if (status)
        return status;
    uint64_t n, element = 0, n_data = r->f->file->size - r->data_begin;
    t->dtype = DTYPE_OTHER;
    for (size_t i = 0; i < QP_COUNT(safetensors_types); i++)
        if (qp_json_is(e->type, safetensors_types[i].name)) {
            t->dtype = safetensors_types[i].dtype;
            element = (uint64_t)safetensors_types[i].n_bytes;
        }
    if (t->dtype == DTYPE_OTHER && (status = keep_name(r, e->type, &t->type_name, &n_type)))
        return status;
    if (e->begin > e->end || e->end > n_data)
        return qp_fail(r->error, QUIP_E_FORMAT,
                       "%s: %s is at [%" PRIu64 ", %" PRIu64 ") of %" PRIu64
                       " bytes of data; is the file truncated?",
                       r->f->file->name, t->name, e->begin, e->end, n_data);
    assert(r->data_begin <= r->f->file->size);
    t->offset = r->data_begin + e->begin;
    t->n_bytes = e->end - e->begin;
    if (element &&
        ((t->n_bytes && e->begin % element) || !qp_format_elements(t->dims, t->n_dims, &n) ||
         n > UINT64_MAX / element || n * element != t->n_bytes))
        return qp_fail(r->error, QUIP_E_FORMAT,
                       "%s: %s has data offsets [%" PRIu64 ", %" PRIu64
                       "), expected whole elements, as many as in its shape",
                       r->f->file->name, t->name, e->begin, e->end);
    return qp_format_add_tensor(r->f, t, n_name, r->error);
}

static quip_status read_metadata_entry(struct safetensors_reader *r)
{
    struct json_scan *j = &r->json;
    struct json_text key = qp_json_key(j), value = qp_json_string(j);
    if (j->is_malformed)
        return bad_json(r, "__metadata__ must map strings to strings");
    if (value.has_escapes)
        return QUIP_OK;
    size_t n_name;
    struct metadata m = { .type = METADATA_BYTES, .n_bytes = value.n };
    assert(value.raw >= j->begin && value.raw + value.n <= j->end);
    m.offset = r->header_begin + (uint64_t)(value.raw - j->begin);
    quip_status status = keep_name(r, key, &m.name, &n_name);
    return status ? status : qp_format_add_metadata(r->f, &m, n_name, r->error);
}

static quip_status read_header_object(struct safetensors_reader *r)
{
    struct json_scan *j = &r->json;
    quip_status status = QUIP_OK;
    qp_json_expect(j, '{');
    for (int i = 0; !status && qp_json_more(j, i, '}'); i++) {
        struct json_text key = qp_json_key(j);
        if (j->is_malformed)
            break;
        if (!qp_json_is(key, "__metadata__")) {
            struct tensor_entry e = { .name = key };
            status = read_tensor_entry(r, &e);
            if (!status)
                status = add_tensor(r, &e);
            continue;
        }
        qp_json_expect(j, '{');
        for (int k = 0; !status && qp_json_more(j, k, '}'); k++)
            status = read_metadata_entry(r);
    }
    if (status)
        return status;
    qp_json_close(j);
    return j->is_malformed ? bad_json(r, "expected a JSON object with an object for each tensor")
                           : QUIP_OK;
}

/* ---- the data ---- */

static int compare_offsets(const void *a, const void *b)
{
    const struct tensor *s = *(const struct tensor *const *)a;
    const struct tensor *t = *(const struct tensor *const *)b;
    if (s->offset != t->offset)
        return s->offset < t->offset ? -1 : 1;
    return (s->n_bytes > t->n_bytes) - (s->n_bytes < t->n_bytes); // empty tensors first
}

/* Whether the tensors cover the data without gaps or overlaps. */
static quip_status check_cover(const struct safetensors_reader *r)
{
    const struct format *f = r->f;
    size_t n = (size_t)f->n_tensors;
    const struct tensor **by_offset = calloc(n + 1, sizeof *by_offset);
    if (!by_offset)
        return qp_fail_memory(r->error, "the order of tensors", n * sizeof *by_offset);
    for (size_t i = 0; i < n; i++)
        by_offset[i] = &f->tensors[i];
    qsort(by_offset, n, sizeof *by_offset, compare_offsets);

    quip_status status = QUIP_OK;
    uint64_t end = r->data_begin;
    for (size_t i = 0; i < n && !status; i++) {
        const struct tensor *t = by_offset[i];
        if (t->offset != end)
            status = qp_fail(r->error, QUIP_E_FORMAT,
                             "%s: %s begins at byte %" PRIu64 ", expected %" PRIu64
                             ", where the tensor before it ends",
                             f->file->name, t->name, t->offset, end);
        end = t->offset + t->n_bytes;
    }
    free(by_offset);
    if (!status && end != f->file->size)
        status =
            qp_fail(r->error, QUIP_E_FORMAT,
                    "%s: the tensors end at byte %" PRIu64 ", but the file has %" PRIu64 " bytes",
                    f->file->name, end, f->file->size);
    return status;
}

bool qp_safetensors_matches(const uint8_t head[16], uint64_t file_size)
{
    uint64_t n = qp_le64(head);
    return file_size >= 10 && n >= 2 && n <= MAX_HEADER_BYTES && head[8] == '{';
}

quip_status qp_safetensors_read(struct format *f, quip_error *error)
{
    uint8_t length[8];
    const uint8_t *text;
    quip_status status = qp_file_read(f->file, 0, length, sizeof length, error);
    if (status)
        return status;
    uint64_t n = qp_le64(length);
    status = qp_format_view(f, sizeof length, n, &text, error);
    if (status)
        return status;
    struct safetensors_reader r = {
        .f = f, .header_begin = sizeof length, .data_begin = sizeof length + n, .error = error
    };
    qp_json_open(&r.json, (const char *)text, (size_t)n);
    status = read_header_object(&r);
    return status ? status : check_cover(&r);
}
