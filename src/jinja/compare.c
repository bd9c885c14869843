/* compare.c: ==, <, in, and sorting, as Python does them.
 * In:  two values; a list and the keys that order it.
 * Out: the answer; a failure where Python raises TypeError. */
#include "jinja/jinja_impl.h"

/* -1, 0, 1 for two numbers; 2 if one is not a number. Exact for integers and floats of any size. */
static int order_ints(const struct value *a, const struct value *b)
{
    if (a->kind == V_BIG || b->kind == V_BIG) {
        const bool a_negative = a->kind == V_BIG ? a->text[0] == '-' : a->i < 0;
        const bool b_negative = b->kind == V_BIG ? b->text[0] == '-' : b->i < 0;
        if (a_negative != b_negative)
            return a_negative ? -1 : 1;
        const uint32_t na = a->kind == V_BIG ? a->n : 0, nb = b->kind == V_BIG ? b->n : 0;
        int order = na != nb ? (na < nb ? -1 : 1) : memcmp(a->text, b->text, na);
        order = order < 0 ? -1 : order > 0;
        return a_negative ? -order : order;
    }
    return a->i < b->i ? -1 : a->i > b->i;
}

static int order_int_float(struct run *r, const struct value *a, double f)
{
    if (f != f)
        return 2;
    if (a->kind == V_BIG) {
        if (f < 9e18 && f > -9e18)
            return a->text[0] == '-' ? -1 : 1;
        if (f - f == 0) // finite
            qp_run_refuse(r, "comparing an integer beyond 64 bits with a float");
        return f > 0 ? -1 : 1;
    }
    if (f >= 9223372036854775808.0)
        return -1;
    if (f < -9223372036854775808.0)
        return 1;
    const int64_t whole = (int64_t)f;
    if (a->i != whole)
        return a->i < whole ? -1 : 1;
    const double rest = f - (double)whole;
    return rest > 0 ? -1 : rest < 0;
}

static int order_numbers(struct run *r, const struct value *a, const struct value *b)
{
    const bool a_float = a->kind == V_FLOAT, b_float = b->kind == V_FLOAT;
    if (a_float && b_float)
        return a->f < b->f ? -1 : a->f > b->f ? 1 : a->f == b->f ? 0 : 2;
    if (b_float)
        return order_int_float(r, a, b->f);
    if (a_float) {
        const int order = order_int_float(r, b, a->f);
        return order == 2 ? 2 : -order;
    }
    return order_ints(a, b);
}

static int order_texts(const struct value *a, const struct value *b)
{
    const uint32_t n = a->n < b->n ? a->n : b->n;
    const int order = n ? memcmp(a->text, b->text, n) : 0; // UTF-8 keeps the order of characters
    return order ? (order < 0 ? -1 : 1) : a->n < b->n ? -1 : a->n > b->n;
}

static bool equal_dicts(struct run *r, const struct dict *a, const struct dict *b)
{
    if (a->n != b->n)
        return false;
    for (uint32_t i = 0; i < a->n; i++) {
        const int64_t at = qp_dict_find(r, b, &a->keys[i]);
        if (at < 0 || !qp_value_equal(r, &a->values[i], &b->values[at]))
            return false;
    }
    return true;
}

static bool equal_arrays(struct run *r, const struct value *a, const struct value *b)
{
    if (a->n != b->n)
        return false;
    for (uint32_t i = 0; i < a->n; i++)
        if (!qp_value_equal(r, &a->items[i], &b->items[i]))
            return false;
    return true;
}

static bool equal_same_kind(struct run *r, const struct value *a, const struct value *b)
{
    switch (a->kind) {
    case V_NONE:
    case V_UNDEFINED:
        return true;
    case V_TEXT:
        return qp_text_same(a, b);
    case V_LIST:
    case V_TUPLE:
        return equal_arrays(r, a, b);
    case V_DICT:
        return equal_dicts(r, a->dict, b->dict);
    case V_RANGE: {
        const struct value x = qp_list_from(r, a), y = qp_list_from(r, b);
        return equal_arrays(r, &x, &y);
    }
    case V_VIEW:
        if (a->dict != b->dict || a->sub != b->sub)
            qp_run_refuse(r, "comparing the keys or items of two dicts");
        return true;
    case V_FUNCTION:
        return a->sub == b->sub;
    default:
        return a->items == b->items;
    }
}

bool qp_value_equal(struct run *r, const struct value *a, const struct value *b)
{
    if (qp_is_number(a) && qp_is_number(b))
        return order_numbers(r, a, b) == 0;
    if (a->kind != b->kind)
        return false;
    bool is_equal = false;
    if (qp_run_enter(r))
        is_equal = equal_same_kind(r, a, b);
    qp_run_leave(r);
    return is_equal && !r->has_failed;
}

static bool holds(enum operator op, int order)
{
    return order != 2 && (op == OP_LT   ? order < 0
                          : op == OP_LE ? order <= 0
                          : op == OP_GT ? order > 0
                                        : order >= 0);
}

static bool order_arrays(struct run *r, enum operator op, const struct value *a,
                         const struct value *b)
{
    for (uint32_t i = 0; i < a->n && i < b->n; i++)
        if (!qp_value_equal(r, &a->items[i], &b->items[i]))
            return !r->has_failed && qp_value_order(r, op, &a->items[i], &b->items[i]);
    return holds(op, a->n < b->n ? -1 : a->n > b->n);
}

bool qp_value_order(struct run *r, enum operator op, const struct value *a, const struct value *b)
{
    bool answer = false;
    if (!qp_run_enter(r))
        answer = false;
    else if (qp_is_number(a) && qp_is_number(b))
        answer = holds(op, order_numbers(r, a, b));
    else if (a->kind == V_TEXT && b->kind == V_TEXT)
        answer = holds(op, order_texts(a, b));
    else if (qp_is_array(a) && a->kind == b->kind)
        answer = order_arrays(r, op, a, b);
    else if (a->kind == V_UNDEFINED || b->kind == V_UNDEFINED)
        qp_fail_undefined(r, a->kind == V_UNDEFINED ? a : b);
    else if (a->kind == V_VIEW && b->kind == V_VIEW)
        qp_run_refuse(r, "comparing the keys or items of two dicts");
    else
        qp_run_fail(r, "values of type %s and %s have no order", qp_value_type(a),
                    qp_value_type(b));
    qp_run_leave(r);
    return answer;
}

static bool text_contains(const struct value *set, const struct value *v)
{
    if (v->n == 0)
        return true;
    for (const char *t = set->text, *end = t + set->n; (size_t)(end - t) >= v->n; t++) {
        t = memchr(t, v->text[0], (size_t)(end - t) - v->n + 1);
        if (!t)
            return false;
        if (memcmp(t, v->text, v->n) == 0)
            return true;
    }
    return false;
}

/* r may be NULL for two texts. */
bool qp_value_contains(struct run *r, const struct value *set, const struct value *v)
{
    if (set->kind == V_TEXT) {
        if (v->kind == V_TEXT)
            return (!r || qp_run_step(r, set->n / 64)) && text_contains(set, v);
        qp_run_fail(r, "a text can contain texts only, not a value of type %s", qp_value_type(v));
        return false;
    }
    if (set->kind == V_DICT || (set->kind == V_VIEW && set->sub == VIEW_KEYS)) {
        if (qp_is_hashable(v))
            return qp_dict_find(r, set->dict, v) >= 0;
        qp_run_fail(r, "a value of type %s cannot be a key", qp_value_type(v));
        return false;
    }
    struct iter iter;
    struct value item;
    if (!qp_iter_begin(r, set, &iter))
        return false;
    while (qp_iter_next(r, &iter, &item))
        if (qp_value_equal(r, &item, v))
            return true;
    return false;
}

/* ---- sorting ---- */

/* Stable merge of order[begin, middle) and order[middle, end), indices of keys. */
static void merge_order(struct run *r, const struct value *keys, uint32_t *order, uint32_t *spare,
                        size_t begin, size_t middle, size_t end, bool reverse)
{
    size_t i = begin, j = middle, n = 0;
    while (i < middle && j < end && !r->has_failed) {
        const struct value *left = &keys[order[i]], *right = &keys[order[j]];
        const bool take_right =
            reverse ? qp_value_order(r, OP_LT, left, right) : qp_value_order(r, OP_LT, right, left);
        spare[n++] = take_right ? order[j++] : order[i++];
    }
    while (i < middle)
        spare[n++] = order[i++];
    while (j < end)
        spare[n++] = order[j++];
    memcpy(order + begin, spare, n * sizeof *order);
}

struct value qp_sorted(struct run *r, struct value list, const struct value *keys, bool reverse)
{
    const size_t n = list.n;
    uint32_t *order = qp_run_alloc(r, 2 * n * sizeof *order);
    struct value *sorted = qp_run_alloc(r, n * sizeof *sorted);
    if (r->has_failed)
        return qp_nothing;
    for (size_t i = 0; i < n; i++)
        order[i] = (uint32_t)i;
    for (size_t width = 1; width < n; width *= 2)
        for (size_t begin = 0; begin + width < n; begin += 2 * width) {
            const size_t end = begin + 2 * width < n ? begin + 2 * width : n;
            merge_order(r, keys, order, order + n, begin, begin + width, end, reverse);
        }
    for (size_t i = 0; i < n; i++)
        sorted[i] = list.items[order[i]];
    return r->has_failed ? qp_nothing : qp_items(V_LIST, sorted, n);
}
