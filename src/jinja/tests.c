/* tests.c: `x is test`, also as the names that select and selectattr take.
 * In:  the name of a test, a value, arguments.
 * Out: the answer, as in jinja2/tests.py. */
#include "jinja/jinja_impl.h"

enum test {
    TEST_BOOLEAN,
    TEST_CALLABLE,
    TEST_DEFINED,
    TEST_ESCAPED,
    TEST_EVEN,
    TEST_FALSE,
    TEST_FILTER,
    TEST_FLOAT,
    TEST_INTEGER,
    TEST_ITERABLE,
    TEST_LOWER,
    TEST_MAPPING,
    TEST_NONE,
    TEST_NUMBER,
    TEST_ODD,
    TEST_SEQUENCE,
    TEST_STRING,
    TEST_TEST,
    TEST_TRUE,
    TEST_UNDEFINED,
    TEST_UPPER,
    TEST_DIVISIBLEBY, // with an argument from here on
    TEST_SAMEAS,
    TEST_IN,
    TEST_EQ,
    TEST_NE,
    TEST_LT,
    TEST_LE,
    TEST_GT,
    TEST_GE
};

static const struct {
    const char *name;
    uint8_t test; // enum test
} tests[] = {
    { "boolean", TEST_BOOLEAN },
    { "callable", TEST_CALLABLE },
    { "defined", TEST_DEFINED },
    { "escaped", TEST_ESCAPED },
    { "even", TEST_EVEN },
    { "false", TEST_FALSE },
    { "filter", TEST_FILTER },
    { "float", TEST_FLOAT },
    { "integer", TEST_INTEGER },
    { "iterable", TEST_ITERABLE },
    { "lower", TEST_LOWER },
    { "mapping", TEST_MAPPING },
    { "none", TEST_NONE },
    { "number", TEST_NUMBER },
    { "odd", TEST_ODD },
    { "sequence", TEST_SEQUENCE },
    { "string", TEST_STRING },
    { "test", TEST_TEST },
    { "true", TEST_TRUE },
    { "undefined", TEST_UNDEFINED },
    { "upper", TEST_UPPER },
    { "divisibleby", TEST_DIVISIBLEBY },
    { "sameas", TEST_SAMEAS },
    { "in", TEST_IN },
    { "eq", TEST_EQ },
    { "==", TEST_EQ },
    { "equalto", TEST_EQ },
    { "ne", TEST_NE },
    { "!=", TEST_NE },
    { "lt", TEST_LT },
    { "<", TEST_LT },
    { "lessthan", TEST_LT },
    { "le", TEST_LE },
    { "<=", TEST_LE },
    { "gt", TEST_GT },
    { ">", TEST_GT },
    { "greaterthan", TEST_GT },
    { "ge", TEST_GE },
    { ">=", TEST_GE },
};

int qp_test_find(const struct value *name)
{
    for (size_t i = 0; i < QP_COUNT(tests); i++)
        if (qp_text_is(name, tests[i].name))
            return (int)i;
    return -1;
}

/* str.islower, str.isupper */
bool qp_text_is_case(struct run *r, const struct value *v, bool is_upper)
{
    bool has_cased = false;
    for (uint32_t i = 0; i < v->n; i++) {
        const char c = v->text[i];
        if ((uint8_t)c >= 128)
            return qp_run_refuse(r, "the case of letters beyond ASCII").i;
        const bool upper = c >= 'A' && c <= 'Z', lower = c >= 'a' && c <= 'z';
        if (is_upper ? lower : upper)
            return false;
        has_cased |= upper || lower;
    }
    return has_cased;
}

static bool is_same(const struct value *a, const struct value *b)
{
    if (a->kind != b->kind)
        return false;
    if (a->kind == V_INT) // Python has one object for each small integer
        return a->i == b->i && a->i >= -5 && a->i <= 256;
    if (a->kind == V_TEXT || qp_is_array(a))
        return a->items == b->items && a->n == b->n;
    return a->kind == V_NONE || (a->kind == V_FLOAT ? a->f == b->f : a->i == b->i);
}

static bool is_multiple(struct run *r, const struct value *v, struct value of, int64_t rest)
{
    const struct value left = qp_binary(r, OP_MOD, *v, of), expected = qp_int(rest);
    return !r->has_failed && qp_value_equal(r, &left, &expected);
}

static bool has_length(const struct value *v)
{
    return v->kind == V_TEXT || qp_is_array(v) || v->kind == V_DICT || v->kind == V_RANGE ||
           v->kind == V_UNDEFINED;
}

static bool is_callable(const struct value *v)
{
    return v->kind == V_FUNCTION || v->kind == V_METHOD || v->kind == V_MACRO ||
           v->kind == V_LOOP || v->kind == V_JOINER || v->kind == V_UNDEFINED;
}

static bool compare(struct run *r, enum test test, const struct value *v, const struct value *other)
{
    switch (test) {
    case TEST_DIVISIBLEBY:
        return is_multiple(r, v, *other, 0);
    case TEST_SAMEAS:
        return is_same(v, other);
    case TEST_IN:
        return qp_value_contains(r, other, v);
    case TEST_EQ:
        return qp_value_equal(r, v, other);
    case TEST_NE:
        return !qp_value_equal(r, v, other) && !r->has_failed;
    default:
        return qp_value_order(r, (enum operator)(OP_LT + (int)(test - TEST_LT)), v, other);
    }
}

static bool answer(struct run *r, enum test test, const struct value *v)
{
    switch (test) {
    case TEST_BOOLEAN:
        return v->kind == V_BOOL;
    case TEST_CALLABLE:
        return is_callable(v);
    case TEST_DEFINED:
        return v->kind != V_UNDEFINED;
    case TEST_ESCAPED:
        return v->is_safe;
    case TEST_EVEN:
    case TEST_ODD:
        return is_multiple(r, v, qp_int(2), test == TEST_ODD);
    case TEST_FALSE:
    case TEST_TRUE:
        return v->kind == V_BOOL && v->i == (test == TEST_TRUE);
    case TEST_FILTER:
    case TEST_TEST:
        if (!qp_is_hashable(v))
            return qp_run_fail(r, "the name of a filter or test has type %s", qp_value_type(v)).i;
        return (test == TEST_TEST ? qp_test_find(v) : qp_filter_find(v)) >= 0;
    case TEST_FLOAT:
        return v->kind == V_FLOAT;
    case TEST_INTEGER:
        return v->kind == V_INT || v->kind == V_BIG;
    case TEST_ITERABLE:
        return qp_is_iterable(v);
    case TEST_LOWER:
    case TEST_UPPER: {
        const struct value text = qp_value_str(r, *v);
        return qp_text_is_case(r, &text, test == TEST_UPPER);
    }
    case TEST_MAPPING:
        return v->kind == V_DICT;
    case TEST_NONE:
        return v->kind == V_NONE;
    case TEST_NUMBER:
        return qp_is_number(v);
    case TEST_SEQUENCE:
        return has_length(v);
    case TEST_STRING:
        return v->kind == V_TEXT;
    default:
        return v->kind == V_UNDEFINED;
    }
}

bool qp_test_call(struct run *r, int test, struct value v, const struct args *args)
{
    const enum test which = (enum test)tests[test].test;
    struct value bound[MAX_BOUND];
    const char *spec = which < TEST_DIVISIBLEBY    ? ""
                       : which == TEST_DIVISIBLEBY ? "num"
                       : which == TEST_SAMEAS      ? "other"
                       : which == TEST_IN          ? "seq"
                                                   : "other /";
    if (!qp_bind(r, tests[test].name, spec, args, bound))
        return false;
    return which < TEST_DIVISIBLEBY ? answer(r, which, &v) : compare(r, which, &v, &bound[0]);
}
