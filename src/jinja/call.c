/* call.c: what a template can call: global functions, macros, methods, loops.
 * In:  a value and arguments.
 * Out: its result; a failure if it cannot be called so. */
#include "jinja/jinja_impl.h"

/* The index of a parameter in a specification, and whether it is optional; -1 past the last. */
static const char *next_parameter(const char *spec, size_t *n, bool *is_optional)
{
    while (*spec == ' ' || *spec == '=')
        spec++;
    *n = qp_word_length(spec);
    *is_optional = spec[*n] == '=';
    return spec;
}

static bool bind_keyword(struct run *r, const char *function, const char *spec,
                         const struct keyword *k, struct value *bound)
{
    size_t n;
    bool is_optional;
    int i = 0;
    for (const char *p = next_parameter(spec, &n, &is_optional); n && *p != '/';
         p = next_parameter(p + n, &n, &is_optional), i++) {
        if (n != k->key.n || memcmp(p, k->key.text, n) != 0)
            continue;
        if (bound[i].kind != V_MISSING)
            break;
        bound[i] = k->value;
        return true;
    }
    qp_run_fail(r, "%s takes no keyword argument '%.*s' here", function,
                (int)(k->key.n < 100 ? k->key.n : 100), k->key.text);
    return false;
}

bool qp_bind(struct run *r, const char *function, const char *spec, const struct args *args,
             struct value *bound)
{
    size_t n, i = 0;
    bool is_optional;
    const bool is_positional = strchr(spec, '/') != NULL;
    for (size_t k = 0; k < MAX_BOUND; k++)
        bound[k] = qp_nothing;
    for (const char *p = next_parameter(spec, &n, &is_optional); n && *p != '/';
         p = next_parameter(p + n, &n, &is_optional), i++)
        if (i < args->n)
            bound[i] = args->positional[i];
    assert(i <= MAX_BOUND);
    if (args->n > i) {
        qp_run_fail(r, "%s takes at most %zu arguments", function, i);
        return false;
    }
    for (size_t k = 0; k < args->n_keywords; k++)
        if (!bind_keyword(r, function, is_positional ? "/" : spec, &args->keywords[k], bound))
            return false;
    i = 0;
    for (const char *p = next_parameter(spec, &n, &is_optional); n && *p != '/';
         p = next_parameter(p + n, &n, &is_optional), i++)
        if (bound[i].kind == V_MISSING && !is_optional) {
            qp_run_fail(r, "%s needs the argument %.*s", function, (int)n, p);
            return false;
        }
    return !r->has_failed;
}

/* ---- global functions ---- */

static struct value make_range(struct run *r, const struct args *args)
{
    int64_t bounds[3] = { 0, 0, 1 };
    if (args->n < 1 || args->n > 3 || args->n_keywords)
        return qp_run_fail(r, "range takes one to three arguments");
    for (size_t i = 0; i < args->n; i++)
        if (!qp_index_of(r, &args->positional[i], &bounds[args->n == 1 ? 1 : i]))
            return qp_nothing;
    const int64_t step = bounds[2];
    if (step == 0)
        return qp_run_fail(r, "the step of a range is 0");
    int64_t n = 0;
    if (step > 0 ? bounds[1] > bounds[0] : bounds[1] < bounds[0])
        n = step > 0 ? (bounds[1] - bounds[0] - 1) / step + 1
                     : (bounds[0] - bounds[1] - 1) / -step + 1;
    if (n > 100000)
        return qp_run_fail(r, "a range has more than 100000 items");
    struct int_range *range = qp_run_alloc(r, sizeof *range);
    if (!range)
        return qp_nothing;
    *range = (struct int_range){ bounds[0], bounds[1], step, (uint32_t)n };
    return (struct value){ .kind = V_RANGE, .range = range };
}

/* dict(...) and namespace(...): a dict or pairs, then keywords. */
static struct dict *make_dict(struct run *r, const struct args *args)
{
    struct dict *d = qp_dict_new(r, args->n_keywords + 4);
    if (args->n > 1)
        qp_run_fail(r, "dict takes at most one argument");
    const struct value *from = args->n ? &args->positional[0] : NULL;
    struct iter iter;
    struct value item;
    if (from && from->kind == V_DICT) {
        for (uint32_t i = 0; i < from->dict->n; i++)
            qp_dict_set(r, d, from->dict->keys[i], from->dict->values[i]);
    } else if (from && qp_iter_begin(r, from, &iter)) {
        while (qp_iter_next(r, &iter, &item)) {
            const struct value pair = qp_list_from(r, &item);
            if (!r->has_failed && pair.n != 2)
                qp_run_fail(r, "dict needs pairs");
            if (!r->has_failed)
                qp_dict_set(r, d, pair.items[0], pair.items[1]);
        }
    }
    for (size_t i = 0; i < args->n_keywords; i++)
        qp_dict_set(r, d, args->keywords[i].key, args->keywords[i].value);
    return r->has_failed ? NULL : d;
}

static struct value make_namespace(struct run *r, const struct args *args)
{
    struct dict *d = make_dict(r, args);
    for (uint32_t i = 0; d && i < d->n; i++)
        if (d->keys[i].kind == V_TEXT && d->keys[i].n && d->keys[i].text[0] == '_')
            return qp_run_fail(r, "an attribute of a namespace begins with _");
    return d ? (struct value){ .kind = V_NAMESPACE, .dict = d } : qp_nothing;
}

static struct value make_cycler(struct run *r, const struct args *args, bool is_joiner)
{
    struct cycler *c = qp_run_alloc(r, sizeof *c);
    struct value bound[MAX_BOUND];
    if (!c || (!is_joiner && args->n == 0))
        return qp_run_fail(r, "cycler needs at least one argument");
    if (is_joiner && !qp_bind(r, "joiner", "sep=", args, bound))
        return qp_nothing;
    c->items = qp_items(V_LIST, args->positional, args->n);
    if (is_joiner)
        c->items = bound[0].kind == V_MISSING ? qp_literal(", ") : bound[0];
    return (struct value){ .kind = is_joiner ? V_JOINER : V_CYCLER, .cycler = c };
}

enum function {
    FUNCTION_RANGE,
    FUNCTION_DICT,
    FUNCTION_NAMESPACE,
    FUNCTION_RAISE,
    FUNCTION_STRFTIME,
    FUNCTION_CYCLER,
    FUNCTION_JOINER,
    FUNCTION_LIPSUM
};
static const char *const functions[] = { "range",        "dict",   "namespace", "raise_exception",
                                         "strftime_now", "cycler", "joiner",    "lipsum" };

struct value qp_function_find(const struct value *name)
{
    for (size_t i = 0; i < QP_COUNT(functions); i++)
        if (qp_text_is(name, functions[i]))
            return (struct value){ .kind = V_FUNCTION, .sub = (uint8_t)i };
    return qp_nothing;
}

static struct value call_function(struct run *r, enum function function, const struct args *args)
{
    struct value bound[MAX_BOUND];
    switch (function) {
    case FUNCTION_RANGE:
        return make_range(r, args);
    case FUNCTION_DICT: {
        struct dict *d = make_dict(r, args);
        return d ? (struct value){ .kind = V_DICT, .dict = d } : qp_nothing;
    }
    case FUNCTION_NAMESPACE:
        return make_namespace(r, args);
    case FUNCTION_RAISE:
        if (!qp_bind(r, "raise_exception", "message", args, bound))
            return qp_nothing;
        return qp_run_raise(r, qp_value_str(r, bound[0]));
    case FUNCTION_STRFTIME:
        if (!qp_bind(r, "strftime_now", "format", args, bound))
            return qp_nothing;
        return qp_strftime(r, &bound[0]);
    case FUNCTION_CYCLER:
    case FUNCTION_JOINER:
        return make_cycler(r, args, function == FUNCTION_JOINER);
    default:
        return qp_run_refuse(r, "the random texts of lipsum");
    }
}

static struct value call_joiner(struct run *r, struct cycler *joiner, const struct args *args)
{
    if (args->n || args->n_keywords)
        return qp_run_fail(r, "a joiner takes no arguments");
    return joiner->pos++ ? joiner->items : qp_literal("");
}

static struct value call_any(struct run *r, const struct value *callee, const struct args *args)
{
    switch (callee->kind) {
    case V_FUNCTION:
        return call_function(r, (enum function)callee->sub, args);
    case V_METHOD:
        return qp_method_call(r, callee, args);
    case V_MACRO:
        return qp_macro_call(r, callee->macro, args);
    case V_JOINER:
        return call_joiner(r, callee->cycler, args);
    case V_LOOP:
        if (!callee->loop->node->op)
            return qp_run_fail(r, "the loop is called, but it is not recursive");
        if (args->n != 1 || args->n_keywords)
            return qp_run_fail(r, "loop takes one argument");
        return qp_loop_call(r, callee->loop, args->positional[0]);
    case V_UNDEFINED:
        return qp_fail_undefined(r, callee);
    default:
        return qp_run_fail(r, "a value of type %s cannot be called", qp_value_type(callee));
    }
}

struct value qp_call(struct run *r, struct value callee, const struct args *args)
{
    struct value result = qp_nothing;
    if (qp_run_enter(r))
        result = call_any(r, &callee, args);
    qp_run_leave(r);
    return result;
}
