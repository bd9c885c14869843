/* access.c: x.y, x[y] and slices, as the sandbox of Jinja2 does them.
 * In:  a value and the name of an attribute, a key or three bounds.
 * Out: the attribute or item; undefined if there is none.
 *
 * x.y tries the attribute first, then the key. x[y] tries the key first. */
#include "jinja/jinja_impl.h"

static struct value missing_key(const struct value *v, const struct value *name)
{
    if (name->kind == V_TEXT && v->kind != V_UNDEFINED)
        return qp_undefined(WHY_KEY, *name);
    return qp_undefined(WHY_OTHER, qp_literal("there is no such item"));
}

/* An attribute of the type, or V_MISSING. */
static struct value attribute(struct run *r, const struct value *v, const struct value *name)
{
    if (name->n && name->text[0] == '_')
        return name->n > 1 && name->text[1] == '_' && v->kind != V_DICT
                   ? qp_undefined(WHY_UNSAFE, *name)
                   : qp_nothing;
    if (v->kind == V_LOOP)
        return qp_loop_attr(r, v->loop, name);
    if (v->kind == V_NAMESPACE) {
        const int64_t at = qp_dict_find(r, v->dict, name);
        return at >= 0 ? v->dict->values[at] : qp_nothing;
    }
    return qp_type_attr(r, v, name);
}

static bool array_index(const struct value *key, size_t n, size_t *at)
{
    if (!qp_is_int(key))
        return false;
    const int64_t i = key->i < 0 ? key->i + (int64_t)n : key->i;
    *at = (size_t)i;
    return i >= 0 && i < (int64_t)n;
}

/* v[key], or V_MISSING where Python raises KeyError, IndexError or TypeError. */
static struct value item_of(struct run *r, const struct value *v, const struct value *key)
{
    size_t at;
    if (v->kind == V_DICT) {
        const int64_t i = qp_is_hashable(key) ? qp_dict_find(r, v->dict, key) : -1;
        return i >= 0 ? v->dict->values[i] : qp_nothing;
    }
    if (qp_is_array(v) && array_index(key, v->n, &at))
        return v->items[at];
    if (v->kind == V_RANGE && array_index(key, v->range->n, &at))
        return qp_int(v->range->start + (int64_t)at * v->range->step);
    if (v->kind == V_TEXT && qp_is_int(key)) {
        if (!qp_run_step(r, v->n / 64) || !array_index(key, qp_text_length(v), &at))
            return qp_nothing;
        const size_t begin = qp_text_offset(v, at);
        int32_t c;
        return qp_text_part(*v, begin,
                            begin + (size_t)qp_utf8_decode(v->text + begin, v->n - begin, &c));
    }
    return qp_nothing;
}

struct value qp_get_attr(struct run *r, const struct value *v, const struct value *name)
{
    if (v->kind == V_UNDEFINED && !(name->n > 1 && memcmp(name->text, "__", 2) == 0))
        return qp_fail_undefined(r, v);
    struct value found = attribute(r, v, name);
    if (found.kind == V_MISSING && !r->has_failed)
        found = item_of(r, v, name);
    return found.kind != V_MISSING || r->has_failed ? found : missing_key(v, name);
}

struct value qp_get_item(struct run *r, const struct value *v, const struct value *key)
{
    if (v->kind == V_UNDEFINED)
        return qp_fail_undefined(r, v);
    struct value found = item_of(r, v, key);
    if (found.kind == V_MISSING && key->kind == V_TEXT && !r->has_failed)
        found = attribute(r, v, key);
    return found.kind != V_MISSING || r->has_failed ? found : missing_key(v, key);
}

/* ---- slices ---- */

/* One bound, as an index in [low, high]. */
static bool slice_bound(struct run *r, const struct value *v, int64_t n, int64_t low, int64_t high,
                        int64_t absent, int64_t *bound)
{
    *bound = absent;
    if (v->kind == V_MISSING || v->kind == V_NONE)
        return true;
    if (!qp_index_of(r, v, bound))
        return false;
    *bound = *bound < 0 ? *bound + n : *bound;
    *bound = *bound < low ? low : *bound > high ? high : *bound;
    return true;
}

static struct value slice_text(struct run *r, const struct value *v, int64_t start, int64_t stop,
                               int64_t step)
{
    if (step == 1) {
        const size_t begin = qp_text_offset(v, (size_t)start);
        const size_t end = stop > start ? qp_text_offset(v, (size_t)stop) : begin;
        return qp_text_part(*v, begin, end);
    }
    struct text_out o = { .run = r };
    const struct value characters = qp_list_from(r, v);
    for (int64_t i = start; !r->has_failed && (step > 0 ? i < stop : i > stop); i += step)
        qp_put(&o, characters.items[i].text, characters.items[i].n);
    struct value text = qp_text_of(&o);
    text.is_safe = v->is_safe;
    return r->has_failed ? qp_nothing : text;
}

static struct value slice_array(struct run *r, const struct value *v, int64_t start, int64_t stop,
                                int64_t step)
{
    if (step == 1)
        return qp_items(v->kind, v->items + start, (size_t)(stop > start ? stop - start : 0));
    struct list_out o = { .run = r };
    for (int64_t i = start; !r->has_failed && (step > 0 ? i < stop : i > stop); i += step)
        qp_list_add(&o, v->items[i]);
    struct value list = qp_list_of(&o);
    if (!r->has_failed)
        list.kind = v->kind;
    return list;
}

static struct value slice_range(struct run *r, const struct int_range *of, int64_t start,
                                int64_t stop, int64_t step)
{
    struct int_range *range = qp_run_alloc(r, sizeof *range);
    if (!range)
        return qp_nothing;
    const int64_t span = step > 0 ? stop - start : start - stop, size = step > 0 ? step : -step;
    *range =
        (struct int_range){ of->start + start * of->step, of->start + stop * of->step,
                            of->step * step, (uint32_t)(span > 0 ? (span - 1) / size + 1 : 0) };
    return (struct value){ .kind = V_RANGE, .range = range };
}

struct value qp_get_slice(struct run *r, const struct value *v, const struct value bounds[3])
{
    size_t length;
    int64_t start, stop, step = 1;
    if (v->kind == V_UNDEFINED)
        return qp_fail_undefined(r, v);
    if (v->kind != V_TEXT && !qp_is_array(v) && v->kind != V_RANGE)
        return qp_run_fail(r, "a value of type %s has no slices", qp_value_type(v));
    if (bounds[2].kind != V_MISSING && bounds[2].kind != V_NONE &&
        !qp_index_of(r, &bounds[2], &step))
        return qp_nothing;
    if (step == 0)
        return qp_run_fail(r, "the step of a slice is 0");
    if (step > INT32_MAX || step < -INT32_MAX) // one item, however large the text is
        step = step > 0 ? INT32_MAX : -INT32_MAX;
    if (!qp_value_length(r, v, &length))
        return qp_nothing;
    const int64_t n = (int64_t)length, low = step < 0 ? -1 : 0, high = step < 0 ? n - 1 : n;
    if (!slice_bound(r, &bounds[0], n, low, high, step < 0 ? n - 1 : 0, &start) ||
        !slice_bound(r, &bounds[1], n, low, high, step < 0 ? -1 : n, &stop))
        return qp_nothing;
    if (v->kind == V_TEXT)
        return slice_text(r, v, start, stop, step);
    if (v->kind == V_RANGE)
        return slice_range(r, v->range, start, stop, step);
    return slice_array(r, v, start, stop, step);
}
