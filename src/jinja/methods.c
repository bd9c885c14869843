/* methods.c: the attributes and methods of Python's types.
 * In:  a value and the name of an attribute; arguments.
 * Out: a method, its result. Methods that change a list or a dict are not safe, as in the sandbox.
 */
#include "jinja/methods.h"
#include "jinja/exec.h"

enum {
    ON_TEXT = 1,
    ON_LIST = 2,
    ON_TUPLE = 4,
    ON_DICT = 8,
    ON_INT = 16,
    ON_CYCLER = 32,
    CHANGES_LIST = 64,
    CHANGES_DICT = 128
};

static const struct {
    const char *name;
    uint8_t on;
    const char *spec;
} methods[] = {
    [METHOD_CAPITALIZE] = { "capitalize", ON_TEXT, "/" },
    [METHOD_CASEFOLD] = { "casefold", ON_TEXT, "/" },
    [METHOD_CENTER] = { "center", ON_TEXT, "width fill= /" },
    [METHOD_COUNT] = { "count", ON_TEXT | ON_LIST | ON_TUPLE, "sub start= end= /" },
    [METHOD_ENCODE] = { "encode", ON_TEXT, NULL },
    [METHOD_ENDSWITH] = { "endswith", ON_TEXT, "suffix start= end= /" },
    [METHOD_EXPANDTABS] = { "expandtabs", ON_TEXT, "tabsize=" },
    [METHOD_FIND] = { "find", ON_TEXT, "sub start= end= /" },
    [METHOD_FORMAT] = { "format", ON_TEXT, NULL },
    [METHOD_FORMAT_MAP] = { "format_map", ON_TEXT, NULL },
    [METHOD_INDEX] = { "index", ON_TEXT | ON_LIST | ON_TUPLE, "sub start= end= /" },
    [METHOD_ISALNUM] = { "isalnum", ON_TEXT, "/" },
    [METHOD_ISALPHA] = { "isalpha", ON_TEXT, "/" },
    [METHOD_ISASCII] = { "isascii", ON_TEXT, "/" },
    [METHOD_ISDECIMAL] = { "isdecimal", ON_TEXT, "/" },
    [METHOD_ISDIGIT] = { "isdigit", ON_TEXT, "/" },
    [METHOD_ISIDENTIFIER] = { "isidentifier", ON_TEXT, NULL },
    [METHOD_ISLOWER] = { "islower", ON_TEXT, "/" },
    [METHOD_ISNUMERIC] = { "isnumeric", ON_TEXT, "/" },
    [METHOD_ISPRINTABLE] = { "isprintable", ON_TEXT, "/" },
    [METHOD_ISSPACE] = { "isspace", ON_TEXT, "/" },
    [METHOD_ISTITLE] = { "istitle", ON_TEXT, NULL },
    [METHOD_ISUPPER] = { "isupper", ON_TEXT, "/" },
    [METHOD_JOIN] = { "join", ON_TEXT, "iterable /" },
    [METHOD_LJUST] = { "ljust", ON_TEXT, "width fill= /" },
    [METHOD_LOWER] = { "lower", ON_TEXT, "/" },
    [METHOD_LSTRIP] = { "lstrip", ON_TEXT, "chars= /" },
    [METHOD_MAKETRANS] = { "maketrans", ON_TEXT, NULL },
    [METHOD_PARTITION] = { "partition", ON_TEXT, "sep /" },
    [METHOD_REMOVEPREFIX] = { "removeprefix", ON_TEXT, "prefix /" },
    [METHOD_REMOVESUFFIX] = { "removesuffix", ON_TEXT, "suffix /" },
    [METHOD_REPLACE] = { "replace", ON_TEXT, "old new count= /" },
    [METHOD_RFIND] = { "rfind", ON_TEXT, "sub start= end= /" },
    [METHOD_RINDEX] = { "rindex", ON_TEXT, "sub start= end= /" },
    [METHOD_RJUST] = { "rjust", ON_TEXT, "width fill= /" },
    [METHOD_RPARTITION] = { "rpartition", ON_TEXT, "sep /" },
    [METHOD_RSPLIT] = { "rsplit", ON_TEXT, "sep= maxsplit=" },
    [METHOD_RSTRIP] = { "rstrip", ON_TEXT, "chars= /" },
    [METHOD_SPLIT] = { "split", ON_TEXT, "sep= maxsplit=" },
    [METHOD_SPLITLINES] = { "splitlines", ON_TEXT, "keepends=" },
    [METHOD_STARTSWITH] = { "startswith", ON_TEXT, "prefix start= end= /" },
    [METHOD_STRIP] = { "strip", ON_TEXT, "chars= /" },
    [METHOD_SWAPCASE] = { "swapcase", ON_TEXT, "/" },
    [METHOD_TITLE] = { "title", ON_TEXT, "/" },
    [METHOD_TRANSLATE] = { "translate", ON_TEXT, NULL },
    [METHOD_UPPER] = { "upper", ON_TEXT, "/" },
    [METHOD_ZFILL] = { "zfill", ON_TEXT, "width /" },
    [METHOD_COPY] = { "copy", ON_LIST | ON_DICT, "/" },
    [METHOD_FROMKEYS] = { "fromkeys", ON_DICT, NULL },
    [METHOD_GET] = { "get", ON_DICT, "key default= /" },
    [METHOD_ITEMS] = { "items", ON_DICT, "/" },
    [METHOD_KEYS] = { "keys", ON_DICT, "/" },
    [METHOD_VALUES] = { "values", ON_DICT, "/" },
    [METHOD_BIT_LENGTH] = { "bit_length", ON_INT, "/" },
    [METHOD_NEXT] = { "next", ON_CYCLER, "/" },
    [METHOD_RESET] = { "reset", ON_CYCLER, "/" },
    [METHOD_APPEND] = { "append", CHANGES_LIST, NULL },
    [METHOD_CLEAR] = { "clear", CHANGES_LIST | CHANGES_DICT, NULL },
    [METHOD_EXTEND] = { "extend", CHANGES_LIST, NULL },
    [METHOD_INSERT] = { "insert", CHANGES_LIST, NULL },
    [METHOD_POP] = { "pop", CHANGES_LIST | CHANGES_DICT, NULL },
    [METHOD_POPITEM] = { "popitem", CHANGES_DICT, NULL },
    [METHOD_REMOVE] = { "remove", CHANGES_LIST, NULL },
    [METHOD_REVERSE] = { "reverse", CHANGES_LIST, NULL },
    [METHOD_SETDEFAULT] = { "setdefault", CHANGES_DICT, NULL },
    [METHOD_SORT] = { "sort", CHANGES_LIST, NULL },
    [METHOD_UPDATE] = { "update", CHANGES_DICT, NULL },
};

static struct value number_attr(const struct value *v, const struct value *name)
{
    if (qp_text_is(name, "real") || (v->kind != V_FLOAT && qp_text_is(name, "numerator")))
        return v->kind == V_BOOL ? qp_int(v->i) : *v;
    if (qp_text_is(name, "imag"))
        return v->kind == V_FLOAT ? qp_float(0) : qp_int(0);
    if (v->kind != V_FLOAT && qp_text_is(name, "denominator"))
        return qp_int(1);
    return qp_nothing;
}

static struct value macro_attr(struct run *r, const struct value *v, const struct value *name)
{
    const struct node *n = v->macro->node;
    if (qp_text_is(name, "name"))
        return n->name ? qp_text(n->name->text, n->name->n) : qp_none();
    if (qp_text_is(name, "arguments") || qp_text_is(name, "catch_kwargs") ||
        qp_text_is(name, "catch_varargs") || qp_text_is(name, "caller"))
        return qp_run_refuse(r, "the attributes of a macro");
    return qp_nothing;
}

static struct value make_method(struct run *r, const struct value *v, size_t method)
{
    struct method *m = qp_run_alloc(r, sizeof *m);
    if (!m)
        return qp_nothing;
    m->self = *v;
    return (struct value){ .kind = V_METHOD, .sub = (uint8_t)method, .method = m };
}

struct value qp_type_attr(struct run *r, const struct value *v, const struct value *name)
{
    static const uint8_t kinds[] = { [V_TEXT] = ON_TEXT,     [V_LIST] = ON_LIST | CHANGES_LIST,
                                     [V_TUPLE] = ON_TUPLE,   [V_DICT] = ON_DICT | CHANGES_DICT,
                                     [V_INT] = ON_INT,       [V_BOOL] = ON_INT,
                                     [V_CYCLER] = ON_CYCLER, [V_JOINER] = 0 };
    if (name->kind != V_TEXT)
        return qp_nothing;
    if (v->kind == V_TUPLE && v->sub && qp_text_is(name, "grouper"))
        return v->items[0];
    if (v->kind == V_TUPLE && v->sub && qp_text_is(name, "list"))
        return v->items[1];
    if (v->kind == V_MACRO)
        return macro_attr(r, v, name);
    if (v->kind == V_CYCLER && qp_text_is(name, "current"))
        return v->cycler->items.items[v->cycler->pos];
    const struct value found = qp_is_number(v) ? number_attr(v, name) : qp_nothing;
    const uint8_t on = kinds[v->kind];
    if (found.kind != V_MISSING || !on)
        return found;
    for (size_t i = 0; i < QP_COUNT(methods); i++)
        if ((methods[i].on & on) && qp_text_is(name, methods[i].name))
            return methods[i].on & on & (CHANGES_LIST | CHANGES_DICT)
                       ? qp_undefined(WHY_UNSAFE, *name)
                       : make_method(r, v, i);
    return qp_nothing;
}

/* ---- dicts, lists, numbers ---- */

static struct value dict_get(struct run *r, const struct value *self, const struct value *bound)
{
    if (!qp_is_hashable(&bound[0]))
        return qp_run_fail(r, "a value of type %s cannot be a key", qp_value_type(&bound[0]));
    const int64_t at = qp_dict_find(r, self->dict, &bound[0]);
    if (at >= 0)
        return self->dict->values[at];
    return bound[1].kind == V_MISSING ? qp_none() : bound[1];
}

static struct value list_index(struct run *r, int method, const struct value *self,
                               const struct value *bound)
{
    int64_t n = 0;
    if (bound[1].kind != V_MISSING)
        return qp_run_refuse(r, "index with a start");
    for (uint32_t i = 0; i < self->n && qp_run_step(r, 1); i++) {
        if (!qp_value_equal(r, &self->items[i], &bound[0]))
            continue;
        if (method == METHOD_INDEX)
            return qp_int(i);
        n++;
    }
    return method == METHOD_INDEX ? qp_run_fail(r, "the value is not in the list") : qp_int(n);
}

static struct value bit_length(const struct value *v)
{
    int64_t n = 0;
    for (uint64_t rest = v->i < 0 ? 0 - (uint64_t)v->i : (uint64_t)v->i; rest; rest >>= 1)
        n++;
    return qp_int(n);
}

static struct value cycle(struct cycler *c, bool is_reset)
{
    if (is_reset) {
        c->pos = 0;
        return qp_none();
    }
    const struct value v = c->items.items[c->pos];
    c->pos = (c->pos + 1) % c->items.n;
    return v;
}

struct value qp_method_call(struct run *r, const struct value *method, const struct args *args)
{
    const struct value *self = &method->method->self;
    struct value bound[MAX_BOUND];
    if (self->kind == V_LOOP)
        return qp_loop_method(r, method->sub, self->loop, args);
    if (method->sub == METHOD_FORMAT)
        return qp_format_braces(r, self, args);
    if (!methods[method->sub].spec)
        return qp_run_refuse(r, "the method %s", methods[method->sub].name);
    if (!qp_bind(r, methods[method->sub].name, methods[method->sub].spec, args, bound))
        return qp_nothing;
    if (self->kind == V_TEXT)
        return qp_text_method(r, method->sub, self, bound);
    switch (method->sub) {
    case METHOD_GET:
        return dict_get(r, self, bound);
    case METHOD_ITEMS:
    case METHOD_KEYS:
    case METHOD_VALUES:
        return (struct value){ .kind = V_VIEW,
                               .dict = self->dict,
                               .sub = method->sub == METHOD_ITEMS  ? VIEW_ITEMS
                                      : method->sub == METHOD_KEYS ? VIEW_KEYS
                                                                   : VIEW_VALUES };
    case METHOD_COPY:
        return *self;
    case METHOD_BIT_LENGTH:
        return bit_length(self);
    case METHOD_NEXT:
    case METHOD_RESET:
        return cycle(self->cycler, method->sub == METHOD_RESET);
    default:
        return list_index(r, method->sub, self, bound);
    }
}
