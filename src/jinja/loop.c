/* loop.c: the loops of a template, and the variable `loop` in them.
 * In:  N_FOR and what it iterates over.
 * Out: the text of the body for each item. Items are read when they are needed. */
#include "jinja/exec.h"

/* The next item that passes the test of the loop. */
static bool read_item(struct run *r, struct loop *loop, struct value *item)
{
    const struct node *n = loop->node;
    while (qp_iter_next(r, &loop->iter, item)) {
        if (!n->c)
            return true;
        struct scope scope = { .parent = loop->scope };
        if (!qp_assign(r, n->a, &scope, *item))
            return false;
        const struct value test = qp_eval(r, n->c, &scope);
        if (!r->has_failed && qp_value_truth(r, &test))
            return true;
    }
    return false;
}

/* Items that were read ahead: one for loop.last and loop.nextitem, all for loop.length. */
static bool read_ahead(struct run *r, struct loop *loop, bool all)
{
    struct list_out o = { .run = r };
    struct value item;
    if (loop->ahead_pos < loop->n_ahead && !all)
        return true;
    for (size_t i = loop->ahead_pos; i < loop->n_ahead; i++)
        qp_list_add(&o, loop->ahead[i]);
    while (!loop->is_ended && (all || o.n == 0)) {
        if (read_item(r, loop, &item))
            qp_list_add(&o, item);
        else
            loop->is_ended = true;
    }
    loop->ahead = o.items;
    loop->n_ahead = o.n;
    loop->ahead_pos = 0;
    return o.n > 0 && !r->has_failed;
}

static bool next_item_of(struct run *r, struct loop *loop, struct value *item)
{
    if (loop->ahead_pos < loop->n_ahead) {
        *item = loop->ahead[loop->ahead_pos++];
        return true;
    }
    return !loop->is_ended && read_item(r, loop, item);
}

enum loop_method {
    LOOP_CYCLE,
    LOOP_CHANGED
};

static struct value loop_position(struct run *r, struct loop *loop, const struct value *name)
{
    const int64_t i = loop->index0;
    if (qp_text_is(name, "index0"))
        return qp_int(i);
    if (qp_text_is(name, "index"))
        return qp_int(i + 1);
    if (qp_text_is(name, "first"))
        return qp_bool(i == 0);
    if (qp_text_is(name, "last"))
        return qp_bool(!read_ahead(r, loop, false));
    if (qp_text_is(name, "depth"))
        return qp_int(loop->depth0 + 1);
    if (qp_text_is(name, "depth0"))
        return qp_int(loop->depth0);
    const bool is_length = qp_text_is(name, "length"), is_rest = qp_text_is(name, "revindex");
    if (!is_length && !is_rest && !qp_text_is(name, "revindex0"))
        return qp_nothing;
    read_ahead(r, loop, true);
    const int64_t rest = (int64_t)(loop->n_ahead - loop->ahead_pos);
    return qp_int(is_length ? i + 1 + rest : rest + is_rest);
}

struct value qp_loop_attr(struct run *r, struct loop *loop, const struct value *name)
{
    if (qp_text_is(name, "previtem"))
        return loop->index0 ? loop->previous
                            : qp_undefined(WHY_OTHER, qp_literal("there is no previous item"));
    if (qp_text_is(name, "nextitem"))
        return read_ahead(r, loop, false)
                   ? loop->ahead[loop->ahead_pos]
                   : qp_undefined(WHY_OTHER, qp_literal("there is no next item"));
    if (qp_text_is(name, "cycle") || qp_text_is(name, "changed")) {
        struct method *m = qp_run_alloc(r, sizeof *m);
        if (!m)
            return qp_nothing;
        m->self = (struct value){ .kind = V_LOOP, .loop = loop };
        return (struct value){ .kind = V_METHOD,
                               .sub = qp_text_is(name, "cycle") ? LOOP_CYCLE : LOOP_CHANGED,
                               .method = m };
    }
    const struct value v = loop_position(r, loop, name);
    return r->has_failed ? qp_nothing : v;
}

struct value qp_loop_method(struct run *r, int method, struct loop *loop, const struct args *args)
{
    if (args->n_keywords)
        return qp_run_fail(r, "a method of loop takes no keywords");
    if (method == LOOP_CYCLE)
        return args->n ? args->positional[(size_t)loop->index0 % args->n]
                       : qp_run_fail(r, "loop.cycle needs an argument");
    const struct value now = qp_items(V_TUPLE, args->positional, args->n);
    const bool is_changed = !loop->has_changed || !qp_value_equal(r, &loop->changed, &now);
    loop->has_changed = true;
    loop->changed = now;
    return r->has_failed ? qp_nothing : qp_bool(is_changed);
}

/* ---- the loop itself ---- */

/* *scope is that of the last item. It is used again, unless a macro was defined in it. */
static void run_body(struct run *r, struct loop *loop, struct value item, struct scope **scope,
                     struct text_out *out)
{
    const struct value self = { .kind = V_LOOP, .loop = loop };
    const int n_macros = r->n_macros;
    if (!*scope)
        *scope = qp_run_alloc(r, sizeof **scope);
    if (!*scope)
        return;
    (*scope)->parent = loop->scope;
    (*scope)->n = 0;
    if (qp_assign(r, loop->node->a, *scope, item) &&
        qp_scope_set(r, *scope, r->jinja->loop_name, self))
        qp_exec(r, loop->node->d, *scope, out);
    if (r->n_macros > n_macros)
        *scope = NULL;
}

static void run_loop(struct run *r, const struct node *n, struct value iterable, struct scope *s,
                     int depth0, struct text_out *out)
{
    struct loop *loop = qp_run_alloc(r, sizeof *loop);
    struct scope *scope = NULL;
    struct value item;
    if (!loop)
        return;
    *loop = (struct loop){ .node = n, .scope = s, .index0 = -1, .depth0 = depth0 };
    if (!qp_iter_begin(r, &iterable, &loop->iter))
        return;
    bool is_broken = false, has_run = false; // as Jinja2: a body that jumps has not run
    while (!is_broken && !r->has_failed && next_item_of(r, loop, &item)) {
        loop->previous = loop->current;
        loop->current = item;
        loop->index0++;
        run_body(r, loop, item, &scope, out);
        is_broken = r->flow == FLOW_BREAK;
        has_run |= r->flow == FLOW_ON;
        r->flow = FLOW_ON;
    }
    if (!has_run && !r->has_failed && n->e) {
        if (!(scope = qp_run_alloc(r, sizeof *scope)))
            return;
        scope->parent = s;
        qp_exec(r, n->e, scope, out);
    }
}

void qp_exec_for(struct run *r, const struct node *n, struct scope *s, struct text_out *out)
{
    const struct value iterable = qp_eval(r, n->b, s);
    if (!r->has_failed)
        run_loop(r, n, iterable, s, 0, out);
}

struct value qp_loop_call(struct run *r, const struct loop *loop, struct value iterable)
{
    struct text_out out = { .run = r };
    run_loop(r, loop->node, iterable, loop->scope, loop->depth0 + 1, &out);
    return r->has_failed ? qp_nothing : qp_text_of(&out);
}
