/* value.c: Python's values: types, truth, texts, lists, dicts.
 * In:  values, and what becomes part of one.
 * Out: values on the heap of a run.
 *
 * x + y makes a copy, except if x is the result of the last such sum: then y is written behind it.
 * So a template that collects its text piece by piece needs linear time. */
#include "jinja/jinja_impl.h"

const char *qp_value_type(const struct value *v)
{
    static const char *const types[] = {
        [V_MISSING] = "missing",
        [V_UNDEFINED] = "Undefined",
        [V_NONE] = "NoneType",
        [V_BOOL] = "bool",
        [V_INT] = "int",
        [V_BIG] = "int",
        [V_FLOAT] = "float",
        [V_TEXT] = "str",
        [V_LIST] = "list",
        [V_TUPLE] = "tuple",
        [V_DICT] = "dict",
        [V_RANGE] = "range",
        [V_VIEW] = "dict view",
        [V_NAMESPACE] = "Namespace",
        [V_MACRO] = "Macro",
        [V_LOOP] = "LoopContext",
        [V_GENERATOR] = "generator",
        [V_FUNCTION] = "function",
        [V_METHOD] = "method",
        [V_CYCLER] = "Cycler",
        [V_JOINER] = "Joiner",
    };
    return types[v->kind];
}

bool qp_value_truth(struct run *r, const struct value *v)
{
    switch (v->kind) {
    case V_MISSING:
    case V_UNDEFINED:
    case V_NONE:
        return false;
    case V_BOOL:
    case V_INT:
        return v->i != 0;
    case V_FLOAT:
        return v->f != 0;
    case V_TEXT:
    case V_LIST:
    case V_TUPLE:
        return v->n > 0;
    case V_DICT:
    case V_VIEW:
        return v->dict->n > 0;
    case V_RANGE:
        return v->range->n > 0;
    default:
        return !r->has_failed;
    }
}

/* ---- texts ---- */

bool qp_text_is(const struct value *v, const char *text)
{
    return v->kind == V_TEXT && v->n == strlen(text) && memcmp(v->text, text, v->n) == 0;
}

bool qp_text_same(const struct value *a, const struct value *b)
{
    return a->n == b->n && memcmp(a->text, b->text, a->n) == 0;
}

static bool is_continuation(char c)
{
    return ((uint8_t)c & 0xc0) == 0x80;
}

size_t qp_text_length(const struct value *v)
{
    size_t length = 0;
    for (size_t i = 0; i < v->n; i++)
        length += !is_continuation(v->text[i]);
    return length;
}

size_t qp_text_offset(const struct value *v, size_t character)
{
    size_t i = 0;
    for (; i < v->n; i++)
        if (!is_continuation(v->text[i]) && character-- == 0)
            break;
    return i;
}

struct value qp_text_part(struct value v, size_t begin, size_t end)
{
    assert(begin <= end && end <= v.n);
    v.text += begin;
    v.n = (uint32_t)(end - begin);
    return v;
}

struct value qp_text_strip(struct value v, const struct value *set, bool left, bool right)
{
    size_t begin = 0, end = v.n, n;
    if (set && set->kind == V_TEXT) {
        for (; left && begin < end; begin += n) {
            n = qp_text_offset(
                &(struct value){ .n = (uint32_t)(end - begin), .text = v.text + begin }, 1);
            const struct value c = qp_text_part(v, begin, begin + n);
            if (!qp_value_contains(NULL, set, &c))
                break;
        }
        for (; right && begin < end; end -= n) {
            for (n = 1; n < end - begin && is_continuation(v.text[end - n]); n++)
                continue;
            const struct value c = qp_text_part(v, end - n, end);
            if (!qp_value_contains(NULL, set, &c))
                break;
        }
        return qp_text_part(v, begin, end);
    }
    while (left && begin < end && (n = qp_space_at(v.text + begin, end - begin)) > 0)
        begin += n;
    while (right && begin < end && (n = qp_space_before(v.text + begin, end - begin)) > 0)
        end -= n;
    return qp_text_part(v, begin, end);
}

bool qp_value_length(struct run *r, const struct value *v, size_t *n)
{
    *n = 0;
    if (v->kind == V_TEXT)
        *n = qp_text_length(v);
    else if (qp_is_array(v))
        *n = v->n;
    else if (v->kind == V_DICT || v->kind == V_VIEW)
        *n = v->dict->n;
    else if (v->kind == V_RANGE)
        *n = v->range->n;
    else if (v->kind == V_LOOP) {
        const struct value name = qp_literal("length");
        *n = (size_t)qp_loop_attr(r, v->loop, &name).i;
    } else if (v->kind != V_UNDEFINED || v->sub == WHY_UNSAFE)
        qp_run_fail(r, "a value of type %s has no length", qp_value_type(v));
    return !r->has_failed;
}

/* Add n bytes behind data[0, n_data). `joined` is the last result. */
static const void *join_bytes(struct run *r, struct joined *joined, const void *data, size_t n_data,
                              const void *more, size_t n)
{
    if (!qp_run_step(r, (n_data + n) / 256))
        return NULL;
    if (!joined->data || joined->data != data || joined->n != n_data ||
        joined->capacity - n_data < n) {
        const size_t capacity = (n_data + n) * (joined->data && joined->data == data ? 2 : 1);
        char *copy = qp_run_alloc(r, capacity);
        if (!copy)
            return NULL;
        if (n_data)
            memcpy(copy, data, n_data);
        *joined = (struct joined){ copy, n_data, capacity };
    }
    if (n)
        memcpy(joined->data + n_data, more, n);
    joined->n += n;
    return joined->data;
}

struct value qp_text_join(struct run *r, struct value a, struct value b)
{
    if ((uint64_t)a.n + b.n > JINJA_MAX_OUTPUT)
        return qp_run_refuse(r, "a text has more than %d MiB", JINJA_MAX_OUTPUT >> 20);
    if (a.is_safe != b.is_safe) { // as Markup does: what is not safe is escaped
        struct text_out o = { .run = r };
        qp_put_escaped(&o, &a);
        qp_put_escaped(&o, &b);
        struct value text = qp_text_of(&o);
        text.is_safe = true;
        return text;
    }
    if (a.n == 0 || b.n == 0)
        return a.n ? a : b;
    const char *text = join_bytes(r, &r->joined_text, a.text, a.n, b.text, b.n);
    if (!text)
        return qp_nothing;
    struct value joined = qp_text(text, a.n + b.n);
    joined.is_safe = a.is_safe;
    return joined;
}

struct value qp_array_join(struct run *r, struct value a, struct value b)
{
    if (b.n == 0)
        return a;
    const struct value *items =
        join_bytes(r, &r->joined_items, a.items, a.n * sizeof *items, b.items, b.n * sizeof *items);
    return items ? qp_items(a.kind, items, (size_t)a.n + b.n) : qp_nothing;
}

/* ---- lists ---- */

void qp_list_add(struct list_out *o, struct value v)
{
    if (!qp_run_step(o->run, 1))
        return;
    if (o->n == o->capacity) {
        const size_t capacity = o->capacity ? o->capacity * 2 : 8;
        struct value *items = qp_run_alloc(o->run, capacity * sizeof *items);
        if (!items)
            return;
        if (o->n)
            memcpy(items, o->items, o->n * sizeof *items);
        o->items = items;
        o->capacity = capacity;
    }
    o->items[o->n++] = v;
}

struct value qp_list_of(const struct list_out *o)
{
    return o->run->has_failed ? qp_nothing : qp_items(V_LIST, o->items, o->n);
}

struct value qp_pair(struct run *r, struct value key, struct value v)
{
    struct value *items = qp_run_alloc(r, 2 * sizeof *items);
    if (!items)
        return qp_nothing;
    items[0] = key;
    items[1] = v;
    return qp_items(V_TUPLE, items, 2);
}

/* ---- dicts ---- */

enum {
    DICT_LINEAR = 8 // up to this many keys are searched one by one
};

bool qp_is_hashable(const struct value *v)
{
    if (v->kind == V_TUPLE)
        for (uint32_t i = 0; i < v->n; i++)
            if (!qp_is_hashable(&v->items[i]))
                return false;
    return v->kind != V_LIST && v->kind != V_DICT && v->kind != V_VIEW;
}

static uint32_t hash_text(const struct value *v)
{
    uint32_t hash = 2166136261u; // FNV-1a
    for (uint32_t i = 0; i < v->n; i++)
        hash = (hash ^ (uint8_t)v->text[i]) * 16777619u;
    return hash;
}

static bool grow_dict(struct run *r, struct dict *d, size_t capacity)
{
    struct value *keys = qp_run_alloc(r, 2 * capacity * sizeof *keys);
    if (!keys)
        return false;
    if (d->n) {
        memcpy(keys, d->keys, d->n * sizeof *keys);
        memcpy(keys + capacity, d->values, d->n * sizeof *keys);
    }
    d->keys = keys;
    d->values = keys + capacity;
    d->capacity = (uint32_t)capacity;
    return true;
}

struct dict *qp_dict_new(struct run *r, size_t capacity)
{
    struct dict *d = qp_run_alloc(r, sizeof *d);
    return d && grow_dict(r, d, capacity ? capacity : 1) ? d : NULL;
}

static void add_key_slot(struct dict *d, uint32_t i)
{
    if (d->keys[i].kind != V_TEXT)
        return;
    uint32_t slot = hash_text(&d->keys[i]) & (d->n_slots - 1);
    while (d->slots[slot])
        slot = (slot + 1) & (d->n_slots - 1);
    d->slots[slot] = i + 1;
}

static bool index_dict(struct run *r, struct dict *d)
{
    if (d->n > DICT_LINEAR && d->n_slots < 2 * d->capacity) {
        uint32_t n_slots = 16;
        while (n_slots < 2 * d->capacity)
            n_slots *= 2;
        d->slots = qp_run_alloc(r, n_slots * sizeof *d->slots);
        d->n_slots = d->slots ? n_slots : 0;
        for (uint32_t i = 0; d->slots && i < d->n; i++)
            add_key_slot(d, i);
    } else if (d->slots)
        add_key_slot(d, d->n - 1);
    return !r->has_failed;
}

int64_t qp_dict_find(struct run *r, const struct dict *d, const struct value *key)
{
    if (key->kind == V_TEXT && d->slots) {
        uint32_t slot = hash_text(key) & (d->n_slots - 1);
        for (; d->slots[slot] && qp_run_step(r, 1); slot = (slot + 1) & (d->n_slots - 1))
            if (qp_text_same(&d->keys[d->slots[slot] - 1], key))
                return d->slots[slot] - 1;
        return -1;
    }
    for (uint32_t i = 0; i < d->n; i++) {
        const struct value *k = &d->keys[i];
        if (key->kind == V_TEXT ? k->kind == V_TEXT && qp_text_same(k, key)
                                : qp_run_step(r, 1) && qp_value_equal(r, k, key))
            return i;
    }
    return -1;
}

bool qp_dict_set(struct run *r, struct dict *d, struct value key, struct value v)
{
    if (!d || r->has_failed)
        return false;
    if (!qp_is_hashable(&key)) {
        qp_run_fail(r, "a value of type %s cannot be a key", qp_value_type(&key));
        return false;
    }
    const int64_t at = qp_dict_find(r, d, &key);
    if (at >= 0) {
        d->values[at] = v;
        return true;
    }
    if (r->has_failed || (d->n == d->capacity && !grow_dict(r, d, 2 * (size_t)d->capacity)))
        return false;
    d->keys[d->n] = key;
    d->values[d->n++] = v;
    return index_dict(r, d);
}

const struct value *qp_dict_get(struct run *r, const struct dict *d, const char *key)
{
    const struct value name = qp_literal(key);
    const int64_t at = qp_dict_find(r, d, &name);
    return at >= 0 ? &d->values[at] : NULL;
}
