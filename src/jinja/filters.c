/* filters.c: the table of filters, and the simplest ones.
 * In:  the name of a filter, a value, arguments.
 * Out: the filtered value, as in jinja2/filters.py. */
#include "jinja/filters.h"

/* Name and parameters; the first one is the value. Generators bind theirs themselves. */
static const struct {
    const char *name, *spec;
} filters[] = {
    { "map", NULL },
    { "select", NULL },
    { "reject", NULL },
    { "selectattr", NULL },
    { "rejectattr", NULL },
    { "batch", "linecount fill_with=" },
    { "items", "" },
    { "slice", "slices fill_with=" },
    { "unique", "case_sensitive= attribute=" },
    { "reverse", "" },
    { "abs", "/" },
    { "attr", "name" },
    { "capitalize", "" },
    { "center", "width=" },
    { "count", "/" },
    { "d", "default_value= boolean=" },
    { "default", "default_value= boolean=" },
    { "dictsort", "case_sensitive= by= reverse=" },
    { "e", "/" },
    { "escape", "/" },
    { "first", "" },
    { "float", "default=" },
    { "forceescape", "" },
    { "format", NULL },
    { "groupby", "attribute default= case_sensitive=" },
    { "indent", "width= first= blank=" },
    { "int", "default= base=" },
    { "join", "d= attribute=" },
    { "last", "" },
    { "length", "/" },
    { "list", "" },
    { "lower", "" },
    { "max", "case_sensitive= attribute=" },
    { "min", "case_sensitive= attribute=" },
    { "replace", "old new count=" },
    { "round", "precision= method=" },
    { "safe", "" },
    { "sort", "reverse= case_sensitive= attribute=" },
    { "string", "/" },
    { "striptags", "" },
    { "sum", "attribute= start=" },
    { "title", "" },
    { "tojson", "ensure_ascii= indent= separators= sort_keys=" },
    { "trim", "chars=" },
    { "truncate", "length= killwords= end= leeway=" },
    { "upper", "" },
    { "urlencode", "" },
    { "wordcount", "" },
    { "filesizeformat", NULL },
    { "pprint", NULL },
    { "random", NULL },
    { "urlize", NULL },
    { "wordwrap", NULL },
    { "xmlattr", NULL },
};

int qp_filter_find(const struct value *name)
{
    for (size_t i = 0; i < QP_COUNT(filters); i++)
        if (qp_text_is(name, filters[i].name))
            return (int)i;
    return -1;
}

static struct value json_filter(struct run *r, const struct value *a)
{
    struct json_style style = { .is_ascii = qp_value_truth(r, &a[1]),
                                .is_sorted = qp_value_truth(r, &a[4]),
                                .item_separator = qp_literal(", "),
                                .key_separator = qp_literal(": ") };
    if (a[2].kind == V_TEXT) {
        style.is_indented = true;
        style.indent = a[2];
    } else if (a[2].kind != V_MISSING && a[2].kind != V_NONE) {
        int64_t n;
        style.is_indented = true;
        if (!qp_index_of(r, &a[2], &n))
            return qp_nothing;
        if (n > 1000)
            return qp_run_refuse(r, "an indentation of more than 1000");
        struct text_out o = { .run = r };
        qp_put_fill(&o, " ", 1, n);
        style.indent = qp_text_of(&o);
    }
    if (style.is_indented)
        style.item_separator = qp_literal(",");
    if (a[3].kind != V_MISSING && a[3].kind != V_NONE) {
        const struct value pair = qp_list_from(r, &a[3]);
        if (r->has_failed || pair.n != 2 || pair.items[0].kind != V_TEXT ||
            pair.items[1].kind != V_TEXT)
            return qp_run_fail(r, "separators of tojson are two texts");
        style.item_separator = pair.items[0];
        style.key_separator = pair.items[1];
    }
    struct text_out o = { .run = r };
    qp_put_json(&o, &a[0], &style);
    return r->has_failed ? qp_nothing : qp_text_of(&o);
}

static struct value default_filter(struct run *r, const struct value *a)
{
    const bool is_absent =
        a[0].kind == V_UNDEFINED || (qp_value_truth(r, &a[2]) && !qp_value_truth(r, &a[0]));
    if (!is_absent)
        return a[0];
    return a[1].kind == V_MISSING ? qp_literal("") : a[1];
}

static struct value escape_filter(struct run *r, int filter, struct value v)
{
    struct text_out o = { .run = r };
    if (filter == FILTER_FORCEESCAPE)
        v.is_safe = false;
    qp_put_escaped(&o, &v);
    struct value text = qp_text_of(&o);
    text.is_safe = true;
    return r->has_failed ? qp_nothing : text;
}

static struct value simple_filter(struct run *r, int filter, const struct value *a)
{
    size_t n;
    switch (filter) {
    case FILTER_ATTR:
        if (a[1].kind != V_TEXT)
            return qp_run_fail(r, "attr needs the name of an attribute");
        if (a[0].kind == V_DICT && qp_type_attr(r, &a[0], &a[1]).kind == V_MISSING)
            return qp_undefined(WHY_KEY, a[1]);
        return qp_get_attr(r, &a[0], &a[1]);
    case FILTER_COUNT:
    case FILTER_LENGTH:
        return qp_value_length(r, &a[0], &n) ? qp_int((int64_t)n) : qp_nothing;
    case FILTER_D:
    case FILTER_DEFAULT:
        return default_filter(r, a);
    case FILTER_E:
    case FILTER_ESCAPE:
    case FILTER_FORCEESCAPE:
        return escape_filter(r, filter, a[0]);
    case FILTER_SAFE: {
        struct value text = qp_value_str(r, a[0]);
        text.is_safe = true;
        return text;
    }
    case FILTER_STRING:
        return qp_value_str(r, a[0]);
    case FILTER_TOJSON:
        return json_filter(r, a);
    case FILTER_ABS:
    case FILTER_FLOAT:
    case FILTER_INT:
    case FILTER_ROUND:
        return qp_number_filter(r, filter, a);
    default:
        return qp_run_refuse(r, "the filter %s", filters[filter].name);
    }
}

struct value qp_list_filter(struct run *r, int filter, struct value v, const struct args *args)
{
    struct value a[MAX_BOUND + 1];
    a[0] = v;
    if (!qp_bind(r, filters[filter].name, filters[filter].spec, args, a + 1))
        return qp_nothing;
    return qp_sequence_filter(r, filter, a);
}

static bool is_text_filter(int filter)
{
    static const uint8_t texts[] = { FILTER_CAPITALIZE, FILTER_CENTER,    FILTER_INDENT,
                                     FILTER_LOWER,      FILTER_REPLACE,   FILTER_STRIPTAGS,
                                     FILTER_TITLE,      FILTER_TRIM,      FILTER_TRUNCATE,
                                     FILTER_UPPER,      FILTER_URLENCODE, FILTER_WORDCOUNT };
    return memchr(texts, filter, sizeof texts) != NULL;
}

static bool is_sequence_filter(int filter)
{
    static const uint8_t sequences[] = { FILTER_DICTSORT, FILTER_FIRST, FILTER_GROUPBY, FILTER_JOIN,
                                         FILTER_LAST,     FILTER_LIST,  FILTER_MAX,     FILTER_MIN,
                                         FILTER_SORT,     FILTER_SUM };
    return memchr(sequences, filter, sizeof sequences) != NULL;
}

struct value qp_filter_call(struct run *r, int filter, struct value v, const struct args *args)
{
    struct value a[MAX_BOUND + 1];
    a[0] = v;
    if (filter == FILTER_REVERSE && v.kind == V_GENERATOR)
        return qp_list_filter(r, filter, v, args);
    if (filter == FILTER_REVERSE && !qp_is_iterable(&v))
        return qp_run_fail(r, "a value of type %s cannot be reversed", qp_value_type(&v));
    if (filter < FILTER_REVERSE || (filter == FILTER_REVERSE && v.kind != V_TEXT))
        return qp_generate(r, filter, v, args);
    if (filter == FILTER_FORMAT) {
        const struct value text = qp_value_str(r, v);
        if (args->n_keywords)
            return qp_run_refuse(r, "keyword arguments of the filter format");
        return qp_format_percent(r, &text, qp_items(V_TUPLE, args->positional, args->n));
    }
    if (!filters[filter].spec)
        return qp_run_refuse(r, "the filter %s", filters[filter].name);
    if (!qp_bind(r, filters[filter].name, filters[filter].spec, args, a + 1))
        return qp_nothing;
    if (filter == FILTER_REVERSE) {
        const struct value step[3] = { qp_nothing, qp_nothing, qp_int(-1) };
        return qp_get_slice(r, &v, step);
    }
    if (is_text_filter(filter))
        return qp_text_filter(r, filter, a);
    return is_sequence_filter(filter) ? qp_sequence_filter(r, filter, a)
                                      : simple_filter(r, filter, a);
}
