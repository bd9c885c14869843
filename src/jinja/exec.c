/* exec.c: the statements of a template -> text.
 * In:  nodes and the scope around them.
 * Out: text, variables. */
#include "jinja/exec.h"

/* ---- variables ---- */

bool qp_scope_set(struct run *r, struct scope *s, const struct name *name, struct value v)
{
    if (r->has_failed)
        return false;
    for (uint32_t i = 0; i < s->n; i++)
        if (s->variables[i].name == name) {
            s->variables[i].value = v;
            return true;
        }
    if (s->n == s->capacity) {
        const uint32_t capacity = s->capacity ? 2 * s->capacity : 4;
        struct variable *variables = qp_run_alloc(r, capacity * sizeof *variables);
        if (!variables)
            return false;
        if (s->n)
            memcpy(variables, s->variables, s->n * sizeof *variables);
        s->variables = variables;
        s->capacity = capacity;
    }
    s->variables[s->n++] = (struct variable){ name, v };
    return true;
}

static struct value lookup_name(struct run *r, const struct node *n, struct scope *s)
{
    const struct node name = { .type = N_NAME, .line = n->line, .name = n->name };
    return qp_eval(r, &name, s);
}

static bool assign_attribute(struct run *r, const struct node *n, struct scope *s, struct value v)
{
    const struct value ns = lookup_name(r, n, s);
    if (r->has_failed)
        return false;
    if (ns.kind != V_NAMESPACE)
        qp_run_fail(r, "attributes are assigned to namespaces only");
    else if (n->value.n && n->value.text[0] == '_')
        qp_run_fail(r, "an attribute of a namespace begins with _");
    else
        return qp_dict_set(r, ns.dict, n->value, v);
    return false;
}

static bool unpack(struct run *r, const struct node *target, struct scope *s, struct value v)
{
    const struct value list = qp_list_from(r, &v);
    const struct node *item = target->a;
    for (uint32_t i = 0; item && i < list.n && !r->has_failed; i++, item = item->next)
        if (!qp_assign(r, item, s, list.items[i]))
            return false;
    uint32_t n = 0;
    for (item = target->a; item; item = item->next)
        n++;
    if (!r->has_failed && n != list.n)
        qp_run_fail(r, "%u values are assigned to %u names", (unsigned)list.n, (unsigned)n);
    return !r->has_failed;
}

bool qp_assign(struct run *r, const struct node *target, struct scope *s, struct value v)
{
    if (r->has_failed)
        return false;
    if (target->type == N_NAME)
        return qp_scope_set(r, s, target->name, v);
    return target->type == N_NSREF ? assign_attribute(r, target, s, v) : unpack(r, target, s, v);
}

static struct scope *inner_scope(struct run *r, struct scope *parent)
{
    struct scope *s = qp_run_alloc(r, sizeof *s);
    if (s)
        s->parent = parent;
    return s;
}

/* ---- macros ---- */

static struct value make_macro(struct run *r, const struct node *n, struct scope *s)
{
    struct macro *macro = qp_run_alloc(r, sizeof *macro);
    if (!macro)
        return qp_nothing;
    *macro = (struct macro){ n, s };
    r->n_macros++;
    return (struct value){ .kind = V_MACRO, .macro = macro };
}

static const struct name *known_name(struct run *r, const char *text)
{
    const size_t n = strlen(text);
    uint32_t hash = 0;
    for (size_t i = 0; i < n; i++)
        hash = hash * 31 + (uint8_t)text[i];
    const struct name *name = r->jinja->names[hash % QP_COUNT(r->jinja->names)];
    while (name && (name->n != n || memcmp(name->text, text, n) != 0))
        name = name->next;
    return name;
}

/* Bind what the parameters leave over: caller, kwargs, varargs. `used` says which keywords were. */
static bool bind_rest(struct run *r, const struct node *n, const struct args *args,
                      const bool *used, size_t n_parameters, struct scope *s)
{
    struct value caller = qp_undefined(WHY_OTHER, qp_literal("no caller is defined"));
    struct dict *rest = n->op & USES_KWARGS ? qp_dict_new(r, args->n_keywords + 1) : NULL;
    for (size_t i = 0; i < args->n_keywords && !r->has_failed; i++) {
        const struct keyword *k = &args->keywords[i];
        if (used[i])
            continue;
        if ((n->op & USES_CALLER) && qp_text_is(&k->key, "caller"))
            caller = k->value;
        else if (rest)
            qp_dict_set(r, rest, k->key, k->value);
        else
            qp_run_fail(r, "a macro takes no keyword argument '%.*s'",
                        (int)(k->key.n < 100 ? k->key.n : 100), k->key.text);
    }
    const size_t n_more = args->n > n_parameters ? args->n - n_parameters : 0;
    if (n_more && !(n->op & USES_VARARGS))
        qp_run_fail(r, "a macro takes at most %zu arguments", n_parameters);
    if (r->has_failed)
        return false;
    if (n->op & USES_CALLER)
        qp_scope_set(r, s, known_name(r, "caller"), caller);
    if (rest)
        qp_scope_set(r, s, known_name(r, "kwargs"), (struct value){ .kind = V_DICT, .dict = rest });
    if (n->op & USES_VARARGS)
        qp_scope_set(r, s, known_name(r, "varargs"),
                     qp_items(V_TUPLE, n_more ? args->positional + n_parameters : NULL, n_more));
    return !r->has_failed;
}

static bool bind_parameters(struct run *r, const struct macro *macro, const struct args *args,
                            struct scope *s)
{
    const struct node *n = macro->node;
    bool *used = qp_run_alloc(r, args->n_keywords * sizeof *used);
    size_t n_parameters = 0;
    for (const struct node *p = n->a; p && used; p = p->next, n_parameters++) {
        struct value v = n_parameters < args->n ? args->positional[n_parameters] : qp_nothing;
        for (size_t i = 0; i < args->n_keywords && v.kind == V_MISSING; i++)
            if (args->keywords[i].key.n == p->name->n &&
                memcmp(args->keywords[i].key.text, p->name->text, p->name->n) == 0) {
                v = args->keywords[i].value;
                used[i] = true;
            }
        if (v.kind == V_MISSING)
            v.sub = 1; // a default is computed when all arguments are bound
        if (!qp_scope_set(r, s, p->name, v))
            return false;
    }
    if (r->has_failed || !bind_rest(r, n, args, used, n_parameters, s))
        return false;
    uint32_t i = 0;
    for (const struct node *p = n->a; p && !r->has_failed; p = p->next, i++)
        if (s->variables[i].value.kind == V_MISSING) {
            s->variables[i].value =
                qp_undefined(WHY_OTHER, qp_literal("a parameter was not passed"));
            if (p->a)
                s->variables[i].value = qp_eval(r, p->a, s);
        }
    return !r->has_failed;
}

struct value qp_macro_call(struct run *r, const struct macro *macro, const struct args *args)
{
    struct text_out out = { .run = r };
    struct scope *s = inner_scope(r, macro->scope);
    const enum flow flow = r->flow;
    if (!s || !bind_parameters(r, macro, args, s))
        return qp_nothing;
    qp_exec(r, macro->node->d, s, &out);
    r->flow = flow;
    return r->has_failed ? qp_nothing : qp_text_of(&out);
}

/* ---- statements ---- */

static void exec_print(struct run *r, const struct node *n, struct scope *s, struct text_out *out)
{
    for (const struct node *item = n->a; item && !r->has_failed; item = item->next) {
        const struct value v = qp_eval(r, item, s);
        if (!r->has_failed)
            qp_put_str(out, &v);
    }
}

static void exec_if(struct run *r, const struct node *n, struct scope *s, struct text_out *out)
{
    const struct node *last = n;
    for (; n; n = n->c) {
        const struct value test = qp_eval(r, n->a, s);
        if (r->has_failed)
            return;
        if (qp_value_truth(r, &test)) {
            qp_exec(r, n->d, s, out);
            return;
        }
        last = n;
    }
    qp_exec(r, last->e, s, out);
}

/* The text of a body, passed through filters. V_MISSING if a jump left it. */
static struct value block_text(struct run *r, const struct node *body, const struct node *filter,
                               struct scope *body_scope, struct scope *filter_scope)
{
    struct text_out out = { .run = r };
    qp_exec(r, body, body_scope, &out);
    if (r->has_failed || r->flow != FLOW_ON)
        return qp_nothing;
    const struct value before = r->block;
    r->block = qp_text_of(&out);
    const struct value text = qp_eval(r, filter, filter_scope);
    r->block = before;
    return text;
}

static void exec_set_block(struct run *r, const struct node *n, struct scope *s)
{
    struct scope *inner = inner_scope(r, s);
    const struct value v = inner ? block_text(r, n->d, n->b, inner, inner) : qp_nothing;
    if (v.kind != V_MISSING)
        qp_assign(r, n->a, s, v);
}

/* What the filter or the call of a block returns. */
static void put_result(struct run *r, const struct value *v, struct text_out *out)
{
    if (v->kind == V_TEXT)
        qp_put(out, v->text, v->n);
    else
        qp_run_fail(r, "the result of a block has type %s, not str", qp_value_type(v));
}

static void exec_filter_block(struct run *r, const struct node *n, struct scope *s,
                              struct text_out *out)
{
    struct scope *inner = inner_scope(r, s);
    const struct value v = inner ? block_text(r, n->d, n->b, inner, inner) : qp_nothing;
    if (v.kind != V_MISSING)
        put_result(r, &v, out);
}

static void exec_call_block(struct run *r, const struct node *n, struct scope *s,
                            struct text_out *out)
{
    const struct value callee = qp_eval(r, n->b->a, s);
    const struct keyword caller = { qp_literal("caller"), make_macro(r, n, s) };
    struct args args;
    if (r->has_failed || !qp_eval_args(r, n->b->b, s, &caller, &args))
        return;
    const struct value v = qp_call(r, callee, &args);
    if (!r->has_failed)
        put_result(r, &v, out);
}

static void exec_with(struct run *r, const struct node *n, struct scope *s, struct text_out *out)
{
    struct scope *inner = inner_scope(r, s);
    const struct node *v = n->b;
    for (const struct node *target = n->a; inner && target && !r->has_failed;
         target = target->next, v = v->next)
        qp_assign(r, target, inner, qp_eval(r, v, s));
    if (!r->has_failed)
        qp_exec(r, n->d, inner, out);
}

static void exec_scope(struct run *r, const struct node *n, struct scope *s, struct text_out *out)
{
    struct scope *inner = inner_scope(r, s);
    if (inner)
        qp_exec(r, n->d, inner, out);
}

static void exec_one(struct run *r, const struct node *n, struct scope *s, struct text_out *out)
{
    switch (n->type) {
    case N_DATA:
        qp_put(out, n->value.text, n->value.n);
        break;
    case N_PRINT:
        exec_print(r, n, s, out);
        break;
    case N_IF:
        exec_if(r, n, s, out);
        break;
    case N_FOR:
        qp_exec_for(r, n, s, out);
        break;
    case N_SET: {
        const struct value v = qp_eval(r, n->b, s);
        qp_assign(r, n->a, s, v);
        break;
    }
    case N_SET_BLOCK:
        exec_set_block(r, n, s);
        break;
    case N_MACRO:
        qp_scope_set(r, s, n->name, make_macro(r, n, s));
        break;
    case N_CALL_BLOCK:
        exec_call_block(r, n, s, out);
        break;
    case N_FILTER_BLOCK:
        exec_filter_block(r, n, s, out);
        break;
    case N_WITH:
        exec_with(r, n, s, out);
        break;
    case N_SCOPE:
        exec_scope(r, n, s, out);
        break;
    case N_BREAK:
    case N_CONTINUE:
        r->flow = n->type == N_BREAK ? FLOW_BREAK : FLOW_CONTINUE;
        break;
    default:
        qp_run_fail(r, "there are no other templates to load");
    }
}

void qp_exec(struct run *r, const struct node *n, struct scope *s, struct text_out *out)
{
    if (qp_run_enter(r))
        for (; n && !r->has_failed && r->flow == FLOW_ON; n = n->next) {
            r->line = n->line;
            if (qp_run_step(r, 1))
                exec_one(r, n, s, out);
        }
    qp_run_leave(r);
}
