/* pytorch.c: reads a PyTorch checkpoint (.bin, .pth, .pt): what torch.save writes for a state dict.
 * In:  a ZIP archive: <name>/data.pkl, a pickle of names and tensors; <name>/data/<key>, the bytes
 *      of each storage, of which a tensor is a part; <name>/byteorder.
 * Out: the tensors and where their bytes are in the file; for a training checkpoint, those of its
 *      model.
 *
 * Nothing in the pickle is called (pickle.h). The functions that make tensors are recognised by
 * their names; everything else is ignored. */
#include "convert/checkpoint.h"
#include "convert/pickle.h"
#include "format/format_reader.h"
#include "format/zip.h"

#include <assert.h>
#include <stdlib.h>

enum {
    MAX_ENTRY_NAME = 512
};

static const struct {
    const char *name; // of the storage's class, in the module torch
    enum dtype dtype;
    int n_bytes; // of an element
} storage_types[] = {
    { "FloatStorage", DTYPE_F32, 4 },     { "HalfStorage", DTYPE_F16, 2 },
    { "BFloat16Storage", DTYPE_BF16, 2 }, { "DoubleStorage", DTYPE_F64, 8 },
    { "LongStorage", DTYPE_OTHER, 8 },    { "IntStorage", DTYPE_I32, 4 },
    { "ShortStorage", DTYPE_OTHER, 2 },   { "CharStorage", DTYPE_I8, 1 },
    { "ByteStorage", DTYPE_OTHER, 1 },    { "BoolStorage", DTYPE_OTHER, 1 },
};

/* Names of the state dict in training checkpoints. */
static const char *const state_names[] = { "state_dict", "model_state_dict", "model", "module" };

struct pytorch_reader {
    struct format *f;
    struct zip zip;
    struct pickle pickle;
    char folder[MAX_ENTRY_NAME]; // of the archive, with its slash
    quip_error *error;
};

static const struct pickle_value *value_at(const struct pytorch_reader *r, int value)
{
    return value < 0 ? NULL : &r->pickle.values[value];
}

/* ---- one tensor ---- */

static bool is_call(const struct pytorch_reader *r, const struct pickle_value *v,
                    const char *module, const char *name)
{
    const struct pickle_value *callee = v->kind == PICKLE_CALL ? value_at(r, v->callee) : NULL;
    return callee && callee->kind == PICKLE_NAME && qp_pickle_is(callee->module, module) &&
           qp_pickle_is(callee->text, name);
}

static bool has_kind(const struct pickle_value *v, enum pickle_kind kind)
{
    return v && v->kind == kind;
}

/* The arguments (storage, offset, shape, strides, …) of the call that makes a tensor; NULL if the
 * value is not such a call. A parameter wraps its tensor. */
static const struct pickle_value *tensor_arguments(const struct pytorch_reader *r,
                                                   const struct pickle_value *v)
{
    if (is_call(r, v, "torch._utils", "_rebuild_parameter"))
        v = has_kind(value_at(r, v->args), PICKLE_LIST)
                ? qp_pickle_item(&r->pickle, value_at(r, v->args), 0)
                : NULL;
    if (!v || (!is_call(r, v, "torch._utils", "_rebuild_tensor_v2") &&
               !is_call(r, v, "torch._utils", "_rebuild_tensor")))
        return NULL;
    return has_kind(value_at(r, v->args), PICKLE_LIST) ? value_at(r, v->args) : NULL;
}

static quip_status bad_tensor(const struct pytorch_reader *r, const char *name, const char *what)
{
    return qp_fail(r->error, QUIP_E_FORMAT, "%s: the tensor %s %s", r->f->file->name, name, what);
}

/* The storage: ("storage", its class, its key, a device, its number of elements). */
static quip_status read_storage(const struct pytorch_reader *r, const struct pickle_value *v,
                                struct tensor *t, int *element_bytes)
{
    const struct pickle *p = &r->pickle;
    const struct pickle_value *id = has_kind(v, PICKLE_PERSISTENT) ? value_at(r, v->args) : NULL;
    if (!has_kind(id, PICKLE_LIST))
        return bad_tensor(r, t->name, "has no storage in this file");
    const struct pickle_value *type = qp_pickle_item(p, id, 1), *key = qp_pickle_item(p, id, 2);
    if (!has_kind(type, PICKLE_NAME) || !has_kind(key, PICKLE_TEXT))
        return bad_tensor(r, t->name, "has no storage in this file");

    *element_bytes = 0;
    for (size_t i = 0; i < QP_COUNT(storage_types); i++)
        if (qp_pickle_is(type->text, storage_types[i].name)) {
            t->dtype = storage_types[i].dtype;
            *element_bytes = storage_types[i].n_bytes;
        }
    if (!*element_bytes)
        return bad_tensor(r, t->name, "has an unknown number format");
    char entry[2 * MAX_ENTRY_NAME];
    if (key->text.n >= MAX_ENTRY_NAME)
        return bad_tensor(r, t->name, "has a storage with an invalid name");
    snprintf(entry, sizeof entry, "%sdata/%.*s", r->folder, (int)key->text.n, key->text.p);
    return qp_zip_find(&r->zip, entry, &t->offset, &t->n_bytes)
               ? QUIP_OK
               : bad_tensor(r, t->name, "has its storage in a missing entry");
}

/* Shape and strides. The elements must be contiguous. */
static quip_status read_dims(const struct pytorch_reader *r, const struct pickle_value *shape,
                             const struct pickle_value *strides, struct tensor *t)
{
    const struct pickle *p = &r->pickle;
    if (!has_kind(shape, PICKLE_LIST) || !has_kind(strides, PICKLE_LIST) ||
        shape->n_items != strides->n_items)
        return bad_tensor(r, t->name, "has no shape");
    if (shape->n_items > QP_MAX_DIMS)
        return bad_tensor(r, t->name, "has more than 4 dimensions");
    t->n_dims = shape->n_items;
    int64_t step = 1;
    for (int i = t->n_dims - 1; i >= 0; i--) {
        const struct pickle_value *dim = qp_pickle_item(p, shape, i);
        const struct pickle_value *stride = qp_pickle_item(p, strides, i);
        if (!has_kind(dim, PICKLE_NUMBER) || !has_kind(stride, PICKLE_NUMBER) || dim->number < 0)
            return bad_tensor(r, t->name, "has an invalid shape");
        if (dim->number > 1 && stride->number != step)
            return bad_tensor(r, t->name,
                              "is a view whose elements are not contiguous; save it with "
                              "tensor.contiguous()");
        t->dims[i] = dim->number;
        if (dim->number && step > INT64_MAX / dim->number)
            return bad_tensor(r, t->name, "has an invalid shape");
        step *= dim->number ? dim->number : 1;
    }
    return QUIP_OK;
}

static quip_status read_tensor(struct pytorch_reader *r, struct pickle_text name,
                               const struct pickle_value *arguments)
{
    const struct pickle *p = &r->pickle;
    struct tensor t = { 0 };
    if (name.n > MAX_ENTRY_NAME) // a pickle may say the same text again and again
        return qp_fail(r->error, QUIP_E_FORMAT,
                       "%s: a tensor's name has %zu bytes; save the weights as safetensors",
                       r->f->file->name, name.n);
    char *text = qp_format_text(r->f, name.n);
    int element_bytes = 0;
    if (!text)
        return qp_fail_memory(r->error, "a name", name.n);
    memcpy(text, name.p, name.n);
    t.name = text;
    quip_status status = read_storage(r, qp_pickle_item(p, arguments, 0), &t, &element_bytes);
    if (!status)
        status = read_dims(r, qp_pickle_item(p, arguments, 2), qp_pickle_item(p, arguments, 3), &t);
    if (status)
        return status;
    const struct pickle_value *offset = qp_pickle_item(p, arguments, 1);
    assert(element_bytes > 0);
    const uint64_t bytes = (uint64_t)element_bytes, capacity = t.n_bytes / bytes;
    uint64_t n;
    if (!has_kind(offset, PICKLE_NUMBER) || offset->number < 0 ||
        !qp_format_elements(t.dims, t.n_dims, &n) || (uint64_t)offset->number > capacity ||
        n > capacity - (uint64_t)offset->number)
        return bad_tensor(r, t.name, "is not inside its storage");
    t.offset += (uint64_t)offset->number * bytes;
    t.n_bytes = n * bytes;
    return qp_format_add_tensor(r->f, &t, name.n, r->error);
}

/* ---- the state dict ---- */

/* Whether a value is a dict or an OrderedDict. */
static bool is_dict(const struct pytorch_reader *r, const struct pickle_value *v)
{
    return v && (v->kind == PICKLE_DICT || is_call(r, v, "collections", "OrderedDict"));
}

/* Walk a dict: the next key and value after *link, which starts as its first. */
static bool next_entry(const struct pytorch_reader *r, int *link, const struct pickle_value **key,
                       const struct pickle_value **value)
{
    const struct pickle *p = &r->pickle;
    if (*link < 0 || p->links[*link].next < 0)
        return false;
    *key = &p->values[p->links[*link].value];
    *link = p->links[*link].next;
    *value = &p->values[p->links[*link].value];
    *link = p->links[*link].next;
    return true;
}

static bool has_tensors(const struct pytorch_reader *r, const struct pickle_value *dict)
{
    const struct pickle_value *key, *value;
    for (int link = dict->first; next_entry(r, &link, &key, &value);)
        if (tensor_arguments(r, value))
            return true;
    return false;
}

/* The dict with the model's tensors; NULL if there is none. */
static const struct pickle_value *find_state(const struct pytorch_reader *r)
{
    const struct pickle_value *all = value_at(r, r->pickle.result), *key, *value;
    if (!is_dict(r, all) || has_tensors(r, all))
        return is_dict(r, all) ? all : NULL;
    for (size_t i = 0; i < QP_COUNT(state_names); i++) {
        const struct pickle_value *last = NULL; // of equal keys a dict keeps the last
        for (int link = all->first; next_entry(r, &link, &key, &value);)
            if (key->kind == PICKLE_TEXT && qp_pickle_is(key->text, state_names[i]))
                last = value;
        if (is_dict(r, last) && has_tensors(r, last))
            return last;
    }
    return NULL;
}

/* Report a value that is neither a tensor nor plain data, and would need a call. */
static quip_status refuse_call(const struct pytorch_reader *r, struct pickle_text name,
                               const struct pickle_value *v)
{
    const struct pickle_value *callee = value_at(r, v->callee);
    if (!has_kind(callee, PICKLE_NAME))
        callee = v;
    return qp_fail(
        r->error, QUIP_E_UNSUPPORTED,
        "%s: %.*s is made by %.*s.%.*s, which is not a known function for tensors and is not "
        "called; save the weights as safetensors",
        r->f->file->name, (int)(name.n < 100 ? name.n : 100), name.p,
        (int)(callee->module.n < 100 ? callee->module.n : 100),
        callee->module.p ? callee->module.p : "?",
        (int)(callee->text.n < 100 ? callee->text.n : 100), callee->text.p ? callee->text.p : "?");
}

static quip_status read_state(struct pytorch_reader *r)
{
    const struct pickle_value *state = find_state(r), *key, *value;
    quip_status status = QUIP_OK;
    if (!state)
        return qp_fail(r->error, QUIP_E_FORMAT,
                       "%s: has no dict of tensors; save the model's state_dict()",
                       r->f->file->name);
    for (int link = state->first; !status && next_entry(r, &link, &key, &value);) {
        const struct pickle_value *arguments = tensor_arguments(r, value);
        if (key->kind != PICKLE_TEXT)
            continue;
        if (arguments)
            status = read_tensor(r, key->text, arguments);
        else if (value->kind == PICKLE_CALL && !is_dict(r, value))
            status = refuse_call(r, key->text, value);
    }
    return status;
}

/* ---- the archive ---- */

/* Find <name>/data.pkl, the only entry of that name. */
static bool find_pickle(struct pytorch_reader *r, uint64_t *offset, uint64_t *n)
{
    static const char end[] = "data.pkl";
    for (int i = 0; i < r->zip.n_entries; i++) {
        const struct zip_entry *e = &r->zip.entries[i];
        const size_t n_name = strlen(e->name), n_folder = n_name - (sizeof end - 1);
        if (n_name < sizeof end - 1 || n_folder >= MAX_ENTRY_NAME ||
            strcmp(e->name + n_folder, end) != 0 || (n_folder && e->name[n_folder - 1] != '/') ||
            (n_folder && memchr(e->name, '/', n_folder - 1)))
            continue;
        memcpy(r->folder, e->name, n_folder);
        *offset = e->offset;
        *n = e->n_bytes;
        return true;
    }
    return false;
}

static quip_status check_byte_order(struct pytorch_reader *r)
{
    char entry[MAX_ENTRY_NAME + 16];
    uint64_t offset, n;
    const uint8_t *text;
    snprintf(entry, sizeof entry, "%sbyteorder", r->folder);
    if (!qp_zip_find(&r->zip, entry, &offset, &n))
        return QUIP_OK; // before PyTorch 2.1: the machine's byte order, always little-endian
    quip_status status = qp_format_view(r->f, offset, n, &text, r->error);
    if (!status && (n != 6 || memcmp(text, "little", 6) != 0))
        status = qp_fail(r->error, QUIP_E_UNSUPPORTED,
                         "%s: is big-endian; save it again on a little-endian machine",
                         r->f->file->name);
    return status;
}

static quip_status read_archive(struct pytorch_reader *r)
{
    uint64_t offset, n;
    const uint8_t *data;
    if (!find_pickle(r, &offset, &n))
        return qp_fail(r->error, QUIP_E_FORMAT,
                       "%s: is a ZIP archive without data.pkl, not a PyTorch checkpoint",
                       r->f->file->name);
    quip_status status = check_byte_order(r);
    if (!status)
        status = qp_format_view(r->f, offset, n, &data, r->error);
    if (!status)
        status = qp_pickle_read(&r->pickle, data, (size_t)n, r->f->file->name, r->error);
    return status ? status : read_state(r);
}

static bool pytorch_matches(const uint8_t head[16], uint64_t file_size)
{
    (void)file_size;
    // of the older format, the first pickle: a magic number of ten bytes
    static const uint8_t legacy[] = { 0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46 };
    return memcmp(head, "PK\3\4", 4) == 0 || memcmp(head, legacy, sizeof legacy) == 0;
}

static quip_status pytorch_read(struct format *f, quip_error *error)
{
    struct pytorch_reader r = { .f = f, .error = error };
    uint8_t head[4];
    quip_status status = qp_file_read(f->file, 0, head, sizeof head, error);
    if (status)
        return status;
    if (head[0] != 'P')
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s: was saved in PyTorch's format from before 1.6; load it and save it "
                       "again, best as safetensors",
                       f->file->name);
    status = qp_zip_open(&r.zip, f->file, error);
    if (!status)
        status = read_archive(&r);
    qp_pickle_close(&r.pickle);
    qp_zip_close(&r.zip);
    return status;
}

const struct format_reader qp_pytorch_reader = { FORMAT_PYTORCH, pytorch_matches, pytorch_read };
