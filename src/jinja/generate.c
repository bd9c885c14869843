/* generate.c: the filters whose result is read item by item: map, select, reject, selectattr,
 * rejectattr, unique, batch, slice, items, reverse.
 * In:  a value and the arguments of the filter.
 * Out: a generator. It can be read once, and computes an item when that is read. */
#include "jinja/filters.h"

struct generator {
    uint8_t type; // enum generator_type
    uint8_t filter;
    bool has_begun, has_ended, is_select, is_negated;
    struct value source;
    struct iter iter;
    struct args args; // after those that the generator uses itself
    struct value path, fallback;
    int inner; // the filter or test to call; -1: none
};

struct value qp_attribute_of(struct run *r, struct value item, const struct value *path,
                             const struct value *fallback)
{
    if (path->kind == V_NONE)
        return item;
    if (path->kind != V_TEXT)
        return qp_get_item(r, &item, path);
    for (size_t begin = 0, end; begin <= path->n && !r->has_failed; begin = end + 1) {
        bool is_number = false;
        for (end = begin; end < path->n && path->text[end] != '.'; end++)
            is_number =
                (end == begin || is_number) && path->text[end] >= '0' && path->text[end] <= '9';
        const struct value part = qp_text_part(*path, begin, end);
        const struct value key = is_number ? qp_big_of(r, part.text, part.n) : part;
        item = qp_get_item(r, &item, &key);
        if (item.kind == V_UNDEFINED && fallback->kind != V_MISSING && fallback->kind != V_NONE)
            item = *fallback;
    }
    return item;
}

static struct args copy_args(struct run *r, const struct args *args)
{
    struct value *positional = qp_run_alloc(r, args->n * sizeof *positional);
    struct keyword *keywords = qp_run_alloc(r, args->n_keywords * sizeof *keywords);
    if (r->has_failed)
        return (struct args){ 0 };
    if (args->n)
        memcpy(positional, args->positional, args->n * sizeof *positional);
    if (args->n_keywords)
        memcpy(keywords, args->keywords, args->n_keywords * sizeof *keywords);
    return (struct args){ positional, args->n, keywords, args->n_keywords };
}

struct value qp_generate(struct run *r, int filter, struct value v, const struct args *args)
{
    struct generator *g = qp_run_alloc(r, sizeof *g);
    if (!g)
        return qp_nothing;
    *g = (struct generator){ .filter = (uint8_t)filter,
                             .source = v,
                             .path = qp_none(),
                             .fallback = qp_nothing,
                             .inner = -1,
                             .args = copy_args(r, args) };
    g->type = filter == FILTER_MAP ? GEN_MAP : filter <= FILTER_REJECTATTR ? GEN_SELECT : GEN_LIST;
    g->is_negated = filter == FILTER_REJECT || filter == FILTER_REJECTATTR;
    return (struct value){ .kind = V_GENERATOR, .generator = g };
}

/* map(attribute=..., default=...) or map(filter, ...) */
static void prepare_map(struct run *r, struct generator *g)
{
    struct args *args = &g->args;
    if (args->n > 0) {
        g->inner = args->positional[0].kind == V_TEXT ? qp_filter_find(&args->positional[0]) : -1;
        if (g->inner < 0)
            qp_run_fail(r, "map needs the name of a filter");
        args->positional++;
        args->n--;
        return;
    }
    struct value bound[MAX_BOUND];
    if (!qp_bind(r, "map", "attribute default=", args, bound))
        return;
    g->path = bound[0];
    g->fallback = bound[1];
}

static void prepare_select(struct run *r, struct generator *g)
{
    struct args *args = &g->args;
    if (g->filter == FILTER_SELECTATTR || g->filter == FILTER_REJECTATTR) {
        if (args->n == 0) {
            qp_run_fail(r, "the name of an attribute is missing");
            return;
        }
        g->path = *args->positional++;
        args->n--;
    }
    if (args->n == 0)
        return;
    g->inner = args->positional[0].kind == V_TEXT ? qp_test_find(&args->positional[0]) : -1;
    if (g->inner < 0)
        qp_run_fail(r, "the test to select by is not known");
    args->positional++;
    args->n--;
}

static void begin_generator(struct run *r, struct generator *g)
{
    g->has_begun = true;
    if (g->type == GEN_LIST) {
        g->source = qp_list_filter(r, g->filter, g->source, &g->args);
        if (!r->has_failed)
            qp_iter_begin(r, &g->source, &g->iter);
        return;
    }
    if (!qp_value_truth(r, &g->source)) {
        g->has_ended = true;
        return;
    }
    if (g->type == GEN_MAP)
        prepare_map(r, g);
    else
        prepare_select(r, g);
    if (!r->has_failed)
        qp_iter_begin(r, &g->source, &g->iter);
}

static bool is_selected(struct run *r, const struct generator *g, struct value item)
{
    const struct value v = qp_attribute_of(r, item, &g->path, &g->fallback);
    const bool is_true =
        g->inner < 0 ? qp_value_truth(r, &v) : qp_test_call(r, g->inner, v, &g->args);
    return is_true != g->is_negated;
}

static bool next_item(struct run *r, struct generator *g, struct value *v)
{
    if (!g->has_begun)
        begin_generator(r, g);
    while (!g->has_ended && !r->has_failed && qp_iter_next(r, &g->iter, v)) {
        if (g->type == GEN_MAP) {
            *v = g->inner < 0 ? qp_attribute_of(r, *v, &g->path, &g->fallback)
                              : qp_filter_call(r, g->inner, *v, &g->args);
            return !r->has_failed;
        }
        if (g->type == GEN_LIST || is_selected(r, g, *v))
            return !r->has_failed;
    }
    g->has_ended = true;
    return false;
}

bool qp_generator_next(struct run *r, struct generator *g, struct value *v)
{
    bool has_item = false;
    if (qp_run_enter(r))
        has_item = next_item(r, g, v);
    qp_run_leave(r);
    return has_item;
}
