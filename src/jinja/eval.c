/* eval.c: the trees of expressions -> values.
 * In:  a node and the scope around it.
 * Out: a value; V_MISSING after a failure. */
#include "jinja/exec.h"

static struct value lookup(struct run *r, const struct name *name, const struct scope *s)
{
    const struct value text = qp_text(name->text, name->n);
    for (; s && qp_run_step(r, 1); s = s->parent)
        for (uint32_t i = s->n; i > 0; i--)
            if (s->variables[i - 1].name == name)
                return s->variables[i - 1].value;
    if (!name->is_hidden) {
        const int64_t at = qp_dict_find(r, r->vars, &text);
        if (at >= 0)
            return r->vars->values[at];
        const struct value function = qp_function_find(&text);
        if (function.kind != V_MISSING)
            return function;
    }
    return r->has_failed ? qp_nothing : qp_undefined(WHY_NAME, text);
}

static struct value eval_items(struct run *r, const struct node *n, struct scope *s,
                               enum value_kind kind)
{
    struct list_out o = { .run = r };
    for (; n && !r->has_failed; n = n->next)
        qp_list_add(&o, qp_eval(r, n, s));
    return r->has_failed ? qp_nothing : qp_items(kind, o.items, o.n);
}

static struct value eval_dict(struct run *r, const struct node *n, struct scope *s)
{
    struct dict *d = qp_dict_new(r, 4);
    for (; n && !r->has_failed; n = n->next->next) {
        const struct value key = qp_eval(r, n, s);
        if (!r->has_failed)
            qp_dict_set(r, d, key, qp_eval(r, n->next, s));
    }
    return r->has_failed ? qp_nothing : (struct value){ .kind = V_DICT, .dict = d };
}

static struct value eval_slice(struct run *r, const struct node *n, struct scope *s)
{
    const struct node *bounds[3] = { n->b, n->c, n->d };
    struct value values[3];
    const struct value v = qp_eval(r, n->a, s);
    for (int i = 0; i < 3; i++)
        values[i] = bounds[i] ? qp_eval(r, bounds[i], s) : qp_nothing;
    return r->has_failed ? qp_nothing : qp_get_slice(r, &v, values);
}

/* ---- arguments ---- */

struct args_out {
    struct list_out positional, names, values;
};

static void add_keyword(struct run *r, struct args_out *o, struct value name, struct value v)
{
    for (size_t i = 0; i < o->names.n; i++)
        if (qp_text_same(&o->names.items[i], &name))
            qp_run_fail(r, "the argument '%.*s' is passed twice",
                        (int)(name.n < 100 ? name.n : 100), name.text);
    qp_list_add(&o->names, name);
    qp_list_add(&o->values, v);
}

static void add_argument(struct run *r, struct args_out *o, const struct node *n, struct scope *s)
{
    if (n->type != N_KEYWORD && n->type != N_STAR && n->type != N_STAR2) {
        qp_list_add(&o->positional, qp_eval(r, n, s));
        return;
    }
    const struct value v = qp_eval(r, n->a, s);
    struct iter iter;
    struct value item;
    if (r->has_failed)
        return;
    if (n->type == N_KEYWORD)
        add_keyword(r, o, qp_text(n->name->text, n->name->n), v);
    else if (n->type == N_STAR2 && v.kind != V_DICT)
        qp_run_fail(r, "** needs a dict");
    else if (n->type == N_STAR2) {
        for (uint32_t i = 0; i < v.dict->n && !r->has_failed; i++)
            if (v.dict->keys[i].kind != V_TEXT)
                qp_run_fail(r, "the names of arguments are texts");
            else
                add_keyword(r, o, v.dict->keys[i], v.dict->values[i]);
    } else if (qp_iter_begin(r, &v, &iter))
        while (qp_iter_next(r, &iter, &item))
            qp_list_add(&o->positional, item);
}

bool qp_eval_args(struct run *r, const struct node *n, struct scope *s, const struct keyword *more,
                  struct args *args)
{
    struct args_out o = { { .run = r }, { .run = r }, { .run = r } };
    for (; n && !r->has_failed; n = n->next)
        add_argument(r, &o, n, s);
    if (more)
        add_keyword(r, &o, more->key, more->value);
    struct keyword *keywords = o.names.n ? qp_run_alloc(r, o.names.n * sizeof *keywords) : NULL;
    if (r->has_failed)
        return false;
    for (size_t i = 0; i < o.names.n; i++)
        keywords[i] = (struct keyword){ o.names.items[i], o.values.items[i] };
    *args = (struct args){ o.positional.items, o.positional.n, keywords, o.names.n };
    return true;
}

/* What a call, a filter or a test is of, and its arguments; false: it failed. */
static bool eval_operands(struct run *r, const struct node *n, struct scope *s, struct value *of,
                          struct args *args)
{
    *of = qp_eval(r, n->a, s);
    if (r->has_failed || !qp_eval_args(r, n->b, s, NULL, args))
        return false;
    r->line = n->line;
    return true;
}

static struct value eval_call(struct run *r, const struct node *n, struct scope *s)
{
    struct value callee;
    struct args args;
    return eval_operands(r, n, s, &callee, &args) ? qp_call(r, callee, &args) : qp_nothing;
}

static struct value eval_filter(struct run *r, const struct node *n, struct scope *s)
{
    struct value v;
    struct args args;
    if (!eval_operands(r, n, s, &v, &args))
        return qp_nothing;
    if (n->index < 0)
        return qp_run_fail(r, "there is no filter '%.*s'", (int)n->value.n, n->value.text);
    return qp_filter_call(r, n->index, v, &args);
}

static struct value eval_test(struct run *r, const struct node *n, struct scope *s)
{
    struct value v;
    struct args args;
    if (!eval_operands(r, n, s, &v, &args))
        return qp_nothing;
    if (n->index < 0)
        return qp_run_fail(r, "there is no test '%.*s'", (int)n->value.n, n->value.text);
    const bool answer = qp_test_call(r, n->index, v, &args);
    return r->has_failed ? qp_nothing : qp_bool(answer);
}

/* ---- operators ---- */

static struct value eval_logic(struct run *r, const struct node *n, struct scope *s)
{
    const struct value left = qp_eval(r, n->a, s);
    const bool is_true = qp_value_truth(r, &left);
    if (r->has_failed || is_true == (n->type == N_OR))
        return left;
    return qp_eval(r, n->b, s);
}

static bool compare_values(struct run *r, enum operator op, const struct value *a,
                           const struct value *b)
{
    switch (op) {
    case OP_EQ:
    case OP_NE:
        return qp_value_equal(r, a, b) == (op == OP_EQ);
    case OP_IN:
    case OP_NOT_IN:
        return qp_value_contains(r, b, a) == (op == OP_IN);
    default:
        return qp_value_order(r, op, a, b);
    }
}

static struct value eval_compare(struct run *r, const struct node *n, struct scope *s)
{
    struct value left = qp_eval(r, n->a, s);
    bool holds = true;
    for (const struct node *operand = n->b; operand && holds && !r->has_failed;
         operand = operand->next) {
        const struct value right = qp_eval(r, operand->a, s);
        if (r->has_failed)
            break;
        r->line = n->line;
        holds = compare_values(r, (enum operator)operand->op, &left, &right);
        left = right;
    }
    return r->has_failed ? qp_nothing : qp_bool(holds);
}

static struct value eval_concat(struct run *r, const struct node *n, struct scope *s)
{
    struct value joined = qp_literal("");
    for (const struct node *item = n->a; item && !r->has_failed; item = item->next) {
        struct value text = qp_value_str(r, qp_eval(r, item, s));
        text.is_safe = false;
        if (!r->has_failed)
            joined = qp_text_join(r, joined, text);
    }
    return r->has_failed ? qp_nothing : joined;
}

static struct value eval_binary(struct run *r, const struct node *n, struct scope *s)
{
    const struct value a = qp_eval(r, n->a, s);
    const struct value b = r->has_failed ? qp_nothing : qp_eval(r, n->b, s);
    if (r->has_failed)
        return qp_nothing;
    r->line = n->line;
    return qp_binary(r, (enum operator)n->op, a, b);
}

static struct value eval_unary(struct run *r, const struct node *n, struct scope *s)
{
    const struct value v = qp_eval(r, n->a, s);
    if (r->has_failed)
        return qp_nothing;
    if (n->type == N_NOT)
        return qp_bool(!qp_value_truth(r, &v));
    if (n->op == OP_SUB)
        return qp_negate(r, v);
    if (!qp_is_number(&v))
        return v.kind == V_UNDEFINED
                   ? qp_fail_undefined(r, &v)
                   : qp_run_fail(r, "+ is not possible for a value of type %s", qp_value_type(&v));
    return v.kind == V_BOOL ? qp_int(v.i) : v;
}

static struct value eval_condition(struct run *r, const struct node *n, struct scope *s)
{
    const struct value test = qp_eval(r, n->a, s);
    if (r->has_failed)
        return qp_nothing;
    if (qp_value_truth(r, &test))
        return qp_eval(r, n->b, s);
    return n->c ? qp_eval(r, n->c, s)
                : qp_undefined(
                      WHY_OTHER,
                      qp_literal("a condition without else is false, and its value is used"));
}

static struct value eval_access(struct run *r, const struct node *n, struct scope *s)
{
    const struct value v = qp_eval(r, n->a, s);
    if (r->has_failed)
        return qp_nothing;
    if (n->type == N_ATTR) {
        r->line = n->line;
        return qp_get_attr(r, &v, &n->value);
    }
    const struct value key = qp_eval(r, n->b, s);
    r->line = n->line;
    return r->has_failed ? qp_nothing : qp_get_item(r, &v, &key);
}

static struct value eval_any(struct run *r, const struct node *n, struct scope *s)
{
    switch (n->type) {
    case N_CONST:
        return n->value;
    case N_NAME:
        return lookup(r, n->name, s);
    case N_LIST:
    case N_TUPLE:
        return eval_items(r, n->a, s, n->type == N_LIST ? V_LIST : V_TUPLE);
    case N_DICT:
        return eval_dict(r, n->a, s);
    case N_ATTR:
    case N_ITEM:
        return eval_access(r, n, s);
    case N_SLICE:
        return eval_slice(r, n, s);
    case N_CALL:
        return eval_call(r, n, s);
    case N_FILTER:
        return eval_filter(r, n, s);
    case N_TEST:
        return eval_test(r, n, s);
    case N_UNARY:
    case N_NOT:
        return eval_unary(r, n, s);
    case N_AND:
    case N_OR:
        return eval_logic(r, n, s);
    case N_COMPARE:
        return eval_compare(r, n, s);
    case N_CONCAT:
        return eval_concat(r, n, s);
    case N_BINARY:
        return eval_binary(r, n, s);
    case N_COND:
        return eval_condition(r, n, s);
    default:
        return r->block; // N_BLOCK
    }
}

struct value qp_eval(struct run *r, const struct node *n, struct scope *s)
{
    struct value v = qp_nothing;
    if (r->has_failed)
        return v;
    r->line = n->line;
    if (qp_run_enter(r))
        v = eval_any(r, n, s);
    qp_run_leave(r);
    return r->has_failed ? qp_nothing : v;
}
