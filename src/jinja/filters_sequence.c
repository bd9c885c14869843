/* filters_sequence.c: the filters of lists and dicts.
 * In:  the value and its arguments, by the table in filters.c.
 * Out: lists, items, sums, joined text. */
#include "jinja/filters.h"

static struct value folded(struct run *r, struct value v, bool case_sensitive)
{
    return v.kind == V_TEXT && !case_sensitive ? qp_text_case(r, v, CASE_LOWER) : v;
}

/* The key of sort: a list of the attributes "a,b" of an item, or of the item. So equal keys need no
 * order. */
static struct value sort_key(struct run *r, struct value item, const struct value *attribute,
                             bool case_sensitive)
{
    struct list_out o = { .run = r };
    const struct value none = qp_none(), *path = attribute->kind == V_MISSING ? &none : attribute;
    const size_t n = path->kind == V_TEXT ? path->n : 0;
    for (size_t begin = 0, end; begin <= n; begin = end + 1) {
        for (end = begin; end < n && path->text[end] != ',';)
            end++;
        const struct value part = path->kind == V_TEXT ? qp_text_part(*path, begin, end) : *path;
        qp_list_add(&o, folded(r, qp_attribute_of(r, item, &part, &qp_nothing), case_sensitive));
    }
    return qp_list_of(&o);
}

/* `attribute` is a position of pairs if it is an integer. */
static struct value sort_by(struct run *r, struct value list, const struct value *attribute,
                            bool case_sensitive, bool reverse)
{
    struct list_out keys = { .run = r };
    for (uint32_t i = 0; i < list.n && !r->has_failed; i++)
        qp_list_add(&keys, attribute->kind == V_INT
                               ? folded(r, list.items[i].items[attribute->i], case_sensitive)
                               : sort_key(r, list.items[i], attribute, case_sensitive));
    return r->has_failed ? qp_nothing : qp_sorted(r, list, keys.items, reverse);
}

static struct value sort_filter(struct run *r, const struct value *a)
{
    const struct value list = qp_list_from(r, &a[0]);
    if (r->has_failed)
        return qp_nothing;
    return sort_by(r, list, &a[3], qp_value_truth(r, &a[2]), qp_value_truth(r, &a[1]));
}

static struct value dictsort_filter(struct run *r, const struct value *a)
{
    const bool by_value = qp_text_is(&a[2], "value");
    if (a[0].kind != V_DICT)
        return a[0].kind == V_UNDEFINED ? qp_fail_undefined(r, &a[0])
                                        : qp_run_fail(r, "dictsort needs a dict");
    if (a[2].kind != V_MISSING && !by_value && !qp_text_is(&a[2], "key"))
        return qp_run_fail(r, "dictsort sorts by key or value");
    const struct value items = { .kind = V_VIEW, .sub = VIEW_ITEMS, .dict = a[0].dict };
    const struct value list = qp_list_from(r, &items), position = qp_int(by_value);
    if (r->has_failed)
        return qp_nothing;
    return sort_by(r, list, &position, qp_value_truth(r, &a[1]), qp_value_truth(r, &a[3]));
}

static struct value unique_filter(struct run *r, const struct value *a)
{
    struct list_out o = { .run = r };
    struct dict *seen = qp_dict_new(r, 8);
    const bool case_sensitive = qp_value_truth(r, &a[1]);
    struct iter iter;
    struct value item;
    if (!qp_iter_begin(r, &a[0], &iter))
        return qp_nothing;
    while (seen && qp_iter_next(r, &iter, &item)) {
        const struct value none = qp_none();
        const struct value *path = a[2].kind == V_MISSING ? &none : &a[2];
        const struct value key =
            folded(r, qp_attribute_of(r, item, path, &qp_nothing), case_sensitive);
        const uint32_t n = seen->n;
        if (qp_dict_set(r, seen, key, qp_none()) && seen->n > n)
            qp_list_add(&o, item);
    }
    return qp_list_of(&o);
}

static struct value extreme_filter(struct run *r, int filter, const struct value *a)
{
    struct value best = qp_nothing, best_key = qp_nothing, item;
    const struct value none = qp_none(), *path = a[2].kind == V_MISSING ? &none : &a[2];
    const bool case_sensitive = qp_value_truth(r, &a[1]);
    struct iter iter;
    if (!qp_iter_begin(r, &a[0], &iter))
        return qp_nothing;
    while (qp_iter_next(r, &iter, &item)) {
        const struct value key =
            folded(r, qp_attribute_of(r, item, path, &qp_nothing), case_sensitive);
        if (best.kind == V_MISSING ||
            (!r->has_failed &&
             qp_value_order(r, filter == FILTER_MAX ? OP_GT : OP_LT, &key, &best_key))) {
            best = item;
            best_key = key;
        }
    }
    return best.kind == V_MISSING ? qp_undefined(WHY_OTHER, qp_literal("the sequence is empty"))
                                  : best;
}

static struct value sum_filter(struct run *r, const struct value *a)
{
    struct value sum = a[2].kind == V_MISSING ? qp_int(0) : a[2], item;
    const struct value none = qp_none(), *path = a[1].kind == V_MISSING ? &none : &a[1];
    struct iter iter;
    if (sum.kind == V_TEXT)
        return qp_run_fail(r, "sum cannot add texts");
    if (!qp_iter_begin(r, &a[0], &iter))
        return qp_nothing;
    while (qp_iter_next(r, &iter, &item) && !r->has_failed)
        sum = qp_binary(r, OP_ADD, sum, qp_attribute_of(r, item, path, &qp_nothing));
    return r->has_failed ? qp_nothing : sum;
}

static struct value join_filter(struct run *r, const struct value *a)
{
    struct text_out o = { .run = r };
    const struct value none = qp_none(), *path = a[2].kind == V_MISSING ? &none : &a[2];
    struct iter iter;
    struct value item;
    if (!qp_iter_begin(r, &a[0], &iter))
        return qp_nothing;
    for (size_t i = 0; qp_iter_next(r, &iter, &item) && !r->has_failed; i++) {
        if (i && a[1].kind != V_MISSING)
            qp_put_str(&o, &a[1]);
        item = qp_attribute_of(r, item, path, &qp_nothing);
        qp_put_str(&o, &item);
    }
    return r->has_failed ? qp_nothing : qp_text_of(&o);
}

static struct value end_filter(struct run *r, int filter, const struct value *v)
{
    struct value item = qp_nothing;
    struct iter iter;
    if (filter == FILTER_FIRST) {
        if (qp_iter_begin(r, v, &iter) && !qp_iter_next(r, &iter, &item))
            item = qp_undefined(WHY_OTHER, qp_literal("the sequence is empty"));
        return r->has_failed ? qp_nothing : item;
    }
    if (v->kind == V_GENERATOR)
        return qp_run_fail(r, "a generator has no last item");
    const struct value list = qp_list_from(r, v);
    if (r->has_failed)
        return qp_nothing;
    return list.n ? list.items[list.n - 1]
                  : qp_undefined(WHY_OTHER, qp_literal("the sequence is empty"));
}

/* Lists of up to n items; the last one is filled up. */
static struct value batch_filter(struct run *r, const struct value *a)
{
    struct list_out o = { .run = r }, batch = { .run = r };
    const struct value list = qp_list_from(r, &a[0]);
    int64_t n;
    if (r->has_failed || !qp_index_of(r, &a[1], &n))
        return qp_nothing;
    for (uint32_t i = 0; i < list.n && !r->has_failed; i++) {
        if ((int64_t)batch.n == n) {
            qp_list_add(&o, qp_list_of(&batch));
            batch = (struct list_out){ .run = r };
        }
        qp_list_add(&batch, list.items[i]);
    }
    const bool is_filled = a[2].kind != V_MISSING && a[2].kind != V_NONE;
    while (batch.n && is_filled && (int64_t)batch.n < n && !r->has_failed)
        qp_list_add(&batch, a[2]);
    if (batch.n)
        qp_list_add(&o, qp_list_of(&batch));
    return qp_list_of(&o);
}

static struct value slice_filter(struct run *r, const struct value *a)
{
    struct list_out o = { .run = r };
    const struct value list = qp_list_from(r, &a[0]);
    int64_t n;
    if (r->has_failed || !qp_index_of(r, &a[1], &n))
        return qp_nothing;
    if (n == 0)
        return qp_run_fail(r, "slice into 0 parts");
    size_t begin = 0;
    for (int64_t i = 0; i < n && !r->has_failed; i++) {
        const bool has_more = i < (int64_t)list.n % n;
        const size_t size = (size_t)((int64_t)list.n / n) + has_more;
        struct list_out part = { .run = r };
        for (size_t k = 0; k < size; k++)
            qp_list_add(&part, list.items[begin + k]);
        begin += size;
        if (!has_more && a[2].kind != V_MISSING && a[2].kind != V_NONE)
            qp_list_add(&part, a[2]);
        qp_list_add(&o, qp_list_of(&part));
    }
    return qp_list_of(&o);
}

static struct value groupby_filter(struct run *r, const struct value *a)
{
    struct list_out o = { .run = r }, group = { .run = r };
    const bool case_sensitive = qp_value_truth(r, &a[3]);
    struct value list = qp_list_from(r, &a[0]), last_key = qp_nothing;
    struct list_out keys = { .run = r };
    for (uint32_t i = 0; i < list.n && !r->has_failed; i++)
        qp_list_add(&keys,
                    folded(r, qp_attribute_of(r, list.items[i], &a[1], &a[2]), case_sensitive));
    if (!r->has_failed)
        list = qp_sorted(r, list, keys.items, false);
    for (uint32_t i = 0; i <= list.n && !r->has_failed; i++) {
        struct value key = qp_nothing;
        if (i < list.n)
            key = folded(r, qp_attribute_of(r, list.items[i], &a[1], &a[2]), case_sensitive);
        if (i > 0 && (i == list.n || !qp_value_equal(r, &key, &last_key))) {
            const struct value of = qp_attribute_of(r, group.items[0], &a[1], &a[2]);
            struct value pair = qp_pair(r, of, qp_list_of(&group));
            pair.sub = 1; // it has the attributes grouper and list
            qp_list_add(&o, pair);
            group = (struct list_out){ .run = r };
        }
        if (i < list.n)
            qp_list_add(&group, list.items[i]);
        last_key = key;
    }
    return qp_list_of(&o);
}

static struct value items_filter(struct run *r, const struct value *v)
{
    if (v->kind == V_UNDEFINED)
        return qp_items(V_LIST, NULL, 0);
    if (v->kind != V_DICT)
        return qp_run_fail(r, "items needs a dict, not a value of type %s", qp_value_type(v));
    return (struct value){ .kind = V_VIEW, .sub = VIEW_ITEMS, .dict = v->dict };
}

static struct value reverse_filter(struct run *r, const struct value *v)
{
    struct value list = qp_list_from(r, v);
    const struct value step[3] = { qp_nothing, qp_nothing, qp_int(-1) };
    return r->has_failed ? qp_nothing : qp_get_slice(r, &list, step);
}

struct value qp_sequence_filter(struct run *r, int filter, const struct value *a)
{
    switch (filter) {
    case FILTER_BATCH:
        return batch_filter(r, a);
    case FILTER_DICTSORT:
        return dictsort_filter(r, a);
    case FILTER_FIRST:
    case FILTER_LAST:
        return end_filter(r, filter, &a[0]);
    case FILTER_GROUPBY:
        return groupby_filter(r, a);
    case FILTER_ITEMS:
        return items_filter(r, &a[0]);
    case FILTER_JOIN:
        return join_filter(r, a);
    case FILTER_LIST:
        return qp_list_from(r, &a[0]);
    case FILTER_MAX:
    case FILTER_MIN:
        return extreme_filter(r, filter, a);
    case FILTER_REVERSE:
        return reverse_filter(r, &a[0]);
    case FILTER_SLICE:
        return slice_filter(r, a);
    case FILTER_SORT:
        return sort_filter(r, a);
    case FILTER_SUM:
        return sum_filter(r, a);
    default:
        return unique_filter(r, a);
    }
}
