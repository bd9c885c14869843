/* iterate.c: iteration over values, in the order of Python.
 * In:  a value.
 * Out: its items one by one; a failure if it has none. */
#include "jinja/jinja_impl.h"

bool qp_is_iterable(const struct value *v)
{
    switch (v->kind) {
    case V_UNDEFINED:
    case V_TEXT:
    case V_LIST:
    case V_TUPLE:
    case V_DICT:
    case V_RANGE:
    case V_VIEW:
    case V_GENERATOR:
    case V_LOOP:
        return true;
    default:
        return false;
    }
}

bool qp_iter_begin(struct run *r, const struct value *v, struct iter *iter)
{
    *iter = (struct iter){ .source = *v };
    if (v->kind == V_LOOP)
        qp_run_refuse(r, "iterating over the variable loop");
    else if (!qp_is_iterable(v))
        qp_run_fail(r, "a value of type %s cannot be iterated", qp_value_type(v));
    return !r->has_failed;
}

static bool next_of_dict(struct run *r, const struct value *v, uint64_t i, struct value *item)
{
    const struct dict *d = v->dict;
    if (i >= d->n)
        return false;
    if (v->kind == V_DICT || v->sub == VIEW_KEYS)
        *item = d->keys[i];
    else if (v->sub == VIEW_VALUES)
        *item = d->values[i];
    else
        *item = qp_pair(r, d->keys[i], d->values[i]);
    return !r->has_failed;
}

bool qp_iter_next(struct run *r, struct iter *iter, struct value *item)
{
    const struct value *v = &iter->source;
    if (!qp_run_step(r, 1))
        return false;
    if (v->kind == V_GENERATOR)
        return qp_generator_next(r, v->generator, item);
    if (v->kind == V_TEXT) {
        if (iter->pos >= v->n)
            return false;
        int32_t c;
        const size_t n = (size_t)qp_utf8_decode(v->text + iter->pos, v->n - iter->pos, &c);
        *item = qp_text(v->text + iter->pos, n);
        iter->pos += n;
        return true;
    }
    const uint64_t i = iter->pos++;
    if (v->kind == V_DICT || v->kind == V_VIEW)
        return next_of_dict(r, v, i, item);
    if (v->kind == V_RANGE && i < v->range->n)
        *item = qp_int(v->range->start + (int64_t)i * v->range->step);
    else if (qp_is_array(v) && i < v->n)
        *item = v->items[i];
    else
        return false;
    return true;
}

struct value qp_list_from(struct run *r, const struct value *v)
{
    struct list_out o = { .run = r };
    struct iter iter;
    struct value item;
    if (qp_is_array(v))
        return qp_items(V_LIST, v->items, v->n);
    if (qp_iter_begin(r, v, &iter))
        while (qp_iter_next(r, &iter, &item))
            qp_list_add(&o, item);
    return qp_list_of(&o);
}
