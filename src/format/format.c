/* format.c: named tensors and metadata entries of an open file.
 * In:  what a reader adds.
 * Out: struct format, every tensor and entry of it checked, with an index by name.
 *
 * Opening, and calls with a format that is not const, are for one thread at a time. */
#include "format/format_reader.h"

#include <assert.h>
#include <stdlib.h>

/* A copy of bytes of the file, or (offset NO_OFFSET) a chunk of names. */
struct kept {
    uint64_t offset;
    size_t n;
    uint8_t *data;
};
#define NO_OFFSET UINT64_MAX
#define TEXT_CHUNK 16384

struct store {
    struct kept *kept;
    int n_kept, kept_capacity;
    char *text; // the free part of the current chunk of names
    size_t n_text;
    int tensor_capacity, metadata_capacity;
    const struct tensor **tensors_by_name;
    const struct metadata **metadata_by_name;
};

/* ---- memory of a format ---- */

/* Make sure that a list of n items has capacity for one more. New capacity is not zeroed. */
static bool grow_list(void **list, int n, int *capacity, size_t item_bytes)
{
    if (n < *capacity)
        return true;
    if (n > INT32_MAX / 2)
        return false;
    int wanted = n ? n * 2 : 64;
    size_t n_bytes;
    void *grown =
        qp_mul_size((size_t)wanted, item_bytes, &n_bytes) ? realloc(*list, n_bytes) : NULL;
    if (!grown)
        return false;
    *list = grown;
    *capacity = wanted;
    return true;
}

/* A new zeroed block. It is pages, because a tensor in it must be aligned to 64 bytes. */
static uint8_t *keep_block(struct store *s, uint64_t offset, size_t n)
{
    void *list = s->kept;
    if (!grow_list(&list, s->n_kept, &s->kept_capacity, sizeof *s->kept))
        return NULL;
    s->kept = list;
    uint8_t *data = qp_alloc_pages(n);
    if (data)
        s->kept[s->n_kept++] = (struct kept){ offset, n, data };
    return data;
}

quip_status qp_format_view(struct format *f, uint64_t offset, uint64_t n, const uint8_t **data,
                           quip_error *error)
{
    *data = NULL;
    if (offset > f->file->size || n > f->file->size - offset || n > PTRDIFF_MAX)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: has %" PRIu64 " bytes, expected %" PRIu64 " at offset %" PRIu64
                       "; is the file truncated?",
                       f->file->name, f->file->size, n, offset);
    if (f->file->data) {
        *data = f->file->data + offset;
        return QUIP_OK;
    }
    struct store *s = f->private_data;
    for (int i = 0; i < s->n_kept; i++)
        if (s->kept[i].offset == offset && s->kept[i].n >= n) {
            *data = s->kept[i].data;
            return QUIP_OK;
        }
    uint8_t *copy = keep_block(s, offset, (size_t)n);
    if (!copy)
        return qp_fail_memory(error, f->file->name, (size_t)n);
    quip_status status = qp_file_read(f->file, offset, copy, (size_t)n, error);
    if (status) {
        struct kept *last = &s->kept[--s->n_kept];
        qp_free_pages(last->data, last->n);
        return status;
    }
    *data = copy;
    return QUIP_OK;
}

char *qp_format_text(struct format *f, size_t n)
{
    struct store *s = f->private_data;
    if (n >= TEXT_CHUNK) {
        size_t size;
        return qp_add_size(n, 1, &size) ? (char *)keep_block(s, NO_OFFSET, size) : NULL;
    }
    if (s->n_text < n + 1) {
        char *chunk = (char *)keep_block(s, NO_OFFSET, TEXT_CHUNK);
        if (!chunk)
            return NULL;
        s->text = chunk;
        s->n_text = TEXT_CHUNK;
    }
    assert(s->n_text >= n + 1);
    char *text = s->text;
    s->text += n + 1;
    s->n_text -= n + 1;
    return text;
}

/* ---- what readers add ---- */

bool qp_format_elements(const int64_t *dims, int n_dims, uint64_t *n)
{
    *n = 1;
    for (int i = 0; i < n_dims; i++) {
        if (dims[i] < 0 || (dims[i] > 0 && *n > (uint64_t)INT64_MAX / (uint64_t)dims[i]))
            return false;
        *n *= (uint64_t)dims[i];
    }
    return true;
}

static quip_status check_name(const struct format *f, const char *name, size_t name_bytes,
                              quip_error *error)
{
    if (name_bytes == 0)
        return qp_fail(error, QUIP_E_FORMAT, "%s: a tensor or metadata entry has an empty name",
                       f->file->name);
    if (strlen(name) != name_bytes)
        return qp_fail(error, QUIP_E_FORMAT, "%s: the name \"%s\" contains a zero byte",
                       f->file->name, name);
    return QUIP_OK;
}

static quip_status check_range(const struct format *f, const char *name, uint64_t offset,
                               uint64_t n_bytes, quip_error *error)
{
    if (offset > f->file->size || n_bytes > f->file->size - offset)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: %s has %" PRIu64 " bytes at offset %" PRIu64
                       ", but the file has %" PRIu64 "; is it truncated?",
                       f->file->name, name, n_bytes, offset, f->file->size);
    return QUIP_OK;
}

/* "[3, 4]" */
static void shape_text(char *out, size_t size, const struct tensor *t)
{
    size_t n = (size_t)snprintf(out, size, "[");
    for (int i = 0; i < t->n_dims && n < size; i++)
        n += (size_t)snprintf(out + n, size - n, "%s%" PRId64, i ? ", " : "", t->dims[i]);
    if (n < size)
        snprintf(out + n, size - n, "]");
}

/* In MediaPipe's GPU files every tensor has one dimension, its number of bytes. */
static bool is_byte_count(const struct format *f, const struct tensor *t)
{
    return f->kind == FORMAT_TFLITE && t->n_dims == 1 && (uint64_t)t->dims[0] == t->n_bytes;
}

quip_status qp_format_add_tensor(struct format *f, const struct tensor *t, size_t name_bytes,
                                 quip_error *error)
{
    assert(t->n_dims >= 0 && t->n_dims <= QP_MAX_DIMS);
    struct store *s = f->private_data;
    assert(!s->tensors_by_name); // not after qp_format_index
    quip_status status = check_name(f, t->name, name_bytes, error);
    if (!status)
        status = check_range(f, t->name, t->offset, t->n_bytes, error);
    if (status)
        return status;

    char shape[100];
    shape_text(shape, sizeof shape, t);
    uint64_t n, n_bytes;
    if (!qp_format_elements(t->dims, t->n_dims, &n))
        return qp_fail(error, QUIP_E_FORMAT, "%s: %s has the invalid shape %s", f->file->name,
                       t->name, shape);
    if (t->dtype != DTYPE_OTHER && !is_byte_count(f, t)) {
        if (!qp_dtype_bytes(t->dtype, n, &n_bytes))
            return qp_fail(error, QUIP_E_FORMAT, "%s: %s has shape %s, expected whole blocks of %s",
                           f->file->name, t->name, shape, qp_dtype_name(t->dtype));
        if (n_bytes != t->n_bytes)
            return qp_fail(error, QUIP_E_FORMAT,
                           "%s: %s has %" PRIu64 " bytes, expected %" PRIu64 " for shape %s of %s",
                           f->file->name, t->name, t->n_bytes, n_bytes, shape,
                           qp_dtype_name(t->dtype));
    }
    void *list = f->tensors;
    if (!grow_list(&list, f->n_tensors, &s->tensor_capacity, sizeof *t))
        return qp_fail_memory(error, "the list of tensors", (size_t)f->n_tensors * sizeof *t);
    f->tensors = list;
    f->tensors[f->n_tensors++] = *t;
    return QUIP_OK;
}

quip_status qp_format_add_metadata(struct format *f, const struct metadata *m, size_t name_bytes,
                                   quip_error *error)
{
    struct store *s = f->private_data;
    assert(!s->metadata_by_name); // not after qp_format_index
    quip_status status = check_name(f, m->name, name_bytes, error);
    if (!status && (m->type == METADATA_BYTES || m->type == METADATA_ARRAY))
        status = check_range(f, m->name, m->offset, m->n_bytes, error);
    if (status)
        return status;
    void *list = f->metadata;
    if (!grow_list(&list, f->n_metadata, &s->metadata_capacity, sizeof *m))
        return qp_fail_memory(error, "the list of metadata", (size_t)f->n_metadata * sizeof *m);
    f->metadata = list;
    f->metadata[f->n_metadata++] = *m;
    return QUIP_OK;
}

/* ---- by name ---- */

static int compare_tensors(const void *a, const void *b)
{
    return strcmp((*(const struct tensor *const *)a)->name,
                  (*(const struct tensor *const *)b)->name);
}

static int compare_metadata(const void *a, const void *b)
{
    return strcmp((*(const struct metadata *const *)a)->name,
                  (*(const struct metadata *const *)b)->name);
}

quip_status qp_format_index(struct format *f, quip_error *error)
{
    struct store *s = f->private_data;
    size_t n_tensors = (size_t)f->n_tensors, n_metadata = (size_t)f->n_metadata;
    const struct tensor **t = calloc(n_tensors + 1, sizeof *t); // + 1: calloc(0) may return NULL
    const struct metadata **m = calloc(n_metadata + 1, sizeof *m);
    s->tensors_by_name = t;
    s->metadata_by_name = m;
    if (!t || !m)
        return qp_fail_memory(error, "the names", n_tensors * sizeof *t + n_metadata * sizeof *m);

    for (int i = 0; i < f->n_tensors; i++)
        t[i] = &f->tensors[i];
    qsort(t, n_tensors, sizeof *t, compare_tensors);
    for (int i = 1; i < f->n_tensors; i++)
        if (compare_tensors(&t[i - 1], &t[i]) == 0)
            return qp_fail(error, QUIP_E_FORMAT, "%s: has two tensors named %s", f->file->name,
                           t[i]->name);

    for (int i = 0; i < f->n_metadata; i++)
        m[i] = &f->metadata[i];
    qsort(m, n_metadata, sizeof *m, compare_metadata);
    for (int i = 1; i < f->n_metadata; i++)
        if (compare_metadata(&m[i - 1], &m[i]) == 0)
            return qp_fail(error, QUIP_E_FORMAT, "%s: has two metadata entries named %s",
                           f->file->name, m[i]->name);
    return QUIP_OK;
}

const struct tensor *qp_format_find(const struct format *f, const char *name)
{
    const struct store *s = f->private_data;
    assert(s && s->tensors_by_name); // the format is open
    const struct tensor key = { .name = name }, *p = &key;
    const struct tensor *const *found =
        bsearch(&p, s->tensors_by_name, (size_t)f->n_tensors, sizeof p, compare_tensors);
    return found ? *found : NULL;
}

const struct metadata *qp_format_find_metadata(const struct format *f, const char *name)
{
    const struct store *s = f->private_data;
    assert(s && s->metadata_by_name); // the format is open
    const struct metadata key = { .name = name }, *p = &key;
    const struct metadata *const *found =
        bsearch(&p, s->metadata_by_name, (size_t)f->n_metadata, sizeof p, compare_metadata);
    return found ? *found : NULL;
}

/* ---- begin and close ---- */

quip_status qp_format_begin(struct format *f, struct file *file, quip_error *error)
{
    assert(file->is_open);
    *f = (struct format){ .file = file };
    f->private_data = calloc(1, sizeof(struct store));
    return f->private_data ? QUIP_OK : qp_fail_memory(error, file->name, sizeof(struct store));
}

void qp_format_close(struct format *f)
{
    struct store *s = f->private_data;
    if (s) {
        for (int i = 0; i < s->n_kept; i++)
            qp_free_pages(s->kept[i].data, s->kept[i].n);
        free(s->kept);
        free(s->tensors_by_name);
        free(s->metadata_by_name);
        free(s);
    }
    free(f->tensors);
    free(f->metadata);
    *f = (struct format){ 0 };
}

/* ---- contents ---- */

quip_status qp_format_bytes(struct format *f, const struct metadata *m, const uint8_t **data,
                            size_t *n, quip_error *error)
{
    *n = 0;
    if (m->type != METADATA_BYTES) {
        *data = NULL;
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: the metadata entry %s is a number or an array, expected text or a blob",
                       f->file->name, m->name);
    }
    quip_status status = qp_format_view(f, m->offset, m->n_bytes, data, error);
    if (!status)
        *n = (size_t)m->n_bytes;
    return status;
}

quip_status qp_format_tensor_bytes(struct format *f, const struct tensor *t, const uint8_t **data,
                                   quip_error *error)
{
    return qp_format_view(f, t->offset, t->n_bytes, data, error);
}
