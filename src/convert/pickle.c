/* pickle.c: a Python pickle -> its values, without calling anything (pickle.h).
 * In:  a pickle with the opcodes of Lib/pickletools.py, except those that only protocols 0 and 1
 * use.
 * Out: values. Every opcode makes at most one value and removes the values that it links from the
 *      stack, so memory and time are bounded by the length of the pickle. */
#include "convert/pickle.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_PICKLE_BYTES = 64 << 20,
    MAX_PICKLE_VALUES = 4 << 20, // the pickle of a large model has about ten thousand
    NO_VALUE = -1
};

/* The state of the machine: a stack of values, some of them marks, and a memo of numbered values.
 */
struct pickle_reader {
    struct pickle *out;
    const uint8_t *begin, *p, *end;
    int *stack, *memo;
    int n_stack, n_memo;
    int value_capacity, link_capacity, stack_capacity, memo_capacity;
    bool is_done, is_too_large, has_no_memory;
};

/* ---- values ---- */

static bool grow(struct pickle_reader *r, void **list, int n, int *capacity, size_t item_bytes)
{
    if (n < *capacity)
        return true;
    if (n > MAX_PICKLE_VALUES) {
        r->is_too_large = true;
        return false;
    }
    const int new_capacity = n < 64 ? 64 : 2 * n;
    void *grown = realloc(*list, (size_t)new_capacity * item_bytes);
    if (!grown) {
        r->has_no_memory = true;
        return false;
    }
    *list = grown;
    *capacity = new_capacity;
    return true;
}

static bool push(struct pickle_reader *r, int value)
{
    void *list = r->stack;
    const bool ok = grow(r, &list, r->n_stack, &r->stack_capacity, sizeof *r->stack);
    r->stack = list;
    if (ok)
        r->stack[r->n_stack++] = value;
    return ok;
}

/* Push a new value; NULL if there is not enough memory. The pointer is valid until the next push.
 */
static struct pickle_value *push_new(struct pickle_reader *r, enum pickle_kind kind)
{
    void *list = r->out->values;
    const bool ok = grow(r, &list, r->out->n_values, &r->value_capacity, sizeof *r->out->values);
    r->out->values = list;
    if (!ok || !push(r, r->out->n_values))
        return NULL;
    struct pickle_value *v = &r->out->values[r->out->n_values++];
    *v = (struct pickle_value){
        .kind = kind, .callee = NO_VALUE, .args = NO_VALUE, .first = NO_VALUE, .last = NO_VALUE
    };
    return v;
}

/* The topmost value; NULL if there is none or it is a mark. */
static struct pickle_value *top(const struct pickle_reader *r)
{
    if (r->n_stack == 0)
        return NULL;
    assert(r->stack[r->n_stack - 1] < r->out->n_values);
    struct pickle_value *v = &r->out->values[r->stack[r->n_stack - 1]];
    return v->kind == PICKLE_MARK ? NULL : v;
}

static bool pop(struct pickle_reader *r, int *value)
{
    if (!top(r))
        return false;
    *value = r->stack[--r->n_stack];
    return true;
}

/* Whether the n topmost items are values, not marks. */
static bool has_values(const struct pickle_reader *r, int n)
{
    if (r->n_stack < n)
        return false;
    for (int i = r->n_stack - n; i < r->n_stack; i++)
        if (r->out->values[r->stack[i]].kind == PICKLE_MARK)
            return false;
    return true;
}

/* The stack index of the last mark; -1 if there is none. Its time is the number of values above it:
 * only for opcodes that remove those. */
static int find_mark(const struct pickle_reader *r)
{
    int i = r->n_stack;
    while (--i >= 0 && r->out->values[r->stack[i]].kind != PICKLE_MARK)
        ;
    return i;
}

static bool add_item(struct pickle_reader *r, int to, int value)
{
    struct pickle *out = r->out;
    assert(to >= 0 && to < out->n_values && value >= 0 && value < out->n_values);
    void *list = out->links;
    const bool ok = grow(r, &list, out->n_links, &r->link_capacity, sizeof *out->links);
    out->links = list;
    if (!ok)
        return false;
    out->links[out->n_links] = (struct pickle_link){ value, NO_VALUE };
    struct pickle_value *v = &out->values[to];
    if (v->last == NO_VALUE)
        v->first = out->n_links;
    else
        out->links[v->last].next = out->n_links;
    v->last = out->n_links++;
    v->n_items++;
    return true;
}

/* Move the stack from index `from` on to the items of the value `to`. */
static bool move_items(struct pickle_reader *r, int to, int from)
{
    assert(from >= 0 && from <= r->n_stack);
    for (int i = from; i < r->n_stack; i++)
        if (!add_item(r, to, r->stack[i]))
            return false;
    r->n_stack = from;
    return true;
}

/* ---- opcodes ---- */

/* An opcode's argument, already inside the pickle. */
struct pickle_argument {
    int64_t number;
    struct pickle_text text, second;
};
typedef bool pickle_op(struct pickle_reader *r, const struct pickle_argument *a);

static bool op_nothing(struct pickle_reader *r, const struct pickle_argument *a)
{
    (void)r;
    (void)a;
    return true;
}

static bool op_stop(struct pickle_reader *r, const struct pickle_argument *a)
{
    (void)a;
    r->is_done = true;
    return pop(r, &r->out->result) && r->n_stack == 0;
}

static bool op_mark(struct pickle_reader *r, const struct pickle_argument *a)
{
    (void)a;
    return push_new(r, PICKLE_MARK) != NULL;
}

static bool op_pop(struct pickle_reader *r, const struct pickle_argument *a)
{
    (void)a;
    return r->n_stack-- > 0;
}

static bool op_pop_mark(struct pickle_reader *r, const struct pickle_argument *a)
{
    (void)a;
    r->n_stack = find_mark(r);
    return r->n_stack >= 0;
}

static bool op_none(struct pickle_reader *r, const struct pickle_argument *a)
{
    (void)a;
    return push_new(r, PICKLE_NONE) != NULL;
}

static bool op_number(struct pickle_reader *r, const struct pickle_argument *a)
{
    struct pickle_value *v = push_new(r, PICKLE_NUMBER);
    if (v)
        v->number = a->number;
    return v != NULL;
}

static bool op_true(struct pickle_reader *r, const struct pickle_argument *a)
{
    (void)a;
    return op_number(r, &(struct pickle_argument){ .number = 1 });
}

/* An integer in two's complement, with all bytes of the text. */
static bool op_long(struct pickle_reader *r, const struct pickle_argument *a)
{
    uint64_t bits = 0;
    if (a->text.n > 8)
        return false;
    for (size_t i = 0; i < a->text.n; i++)
        bits |= (uint64_t)(uint8_t)a->text.p[i] << (8 * i);
    if (a->text.n && a->text.n < 8 && (uint8_t)a->text.p[a->text.n - 1] & 0x80)
        bits |= UINT64_MAX << (8 * a->text.n);
    return op_number(r, &(struct pickle_argument){ .number = (int64_t)bits });
}

static bool op_text(struct pickle_reader *r, const struct pickle_argument *a)
{
    struct pickle_value *v = push_new(r, PICKLE_TEXT);
    if (v)
        v->text = a->text;
    return v != NULL;
}

static bool op_name(struct pickle_reader *r, const struct pickle_argument *a)
{
    struct pickle_value *v = push_new(r, PICKLE_NAME);
    if (!v)
        return false;
    v->module = a->text;
    v->text = a->second;
    return true;
}

/* The same, from two texts on the stack. */
static bool op_stack_name(struct pickle_reader *r, const struct pickle_argument *a)
{
    (void)a;
    int name, module;
    if (!pop(r, &name) || !pop(r, &module))
        return false;
    const struct pickle_value *n = &r->out->values[name], *m = &r->out->values[module];
    return n->kind == PICKLE_TEXT && m->kind == PICKLE_TEXT &&
           op_name(r, &(struct pickle_argument){ .text = m->text, .second = n->text });
}

static bool op_empty_list(struct pickle_reader *r, const struct pickle_argument *a)
{
    (void)a;
    return push_new(r, PICKLE_LIST) != NULL;
}

static bool op_empty_dict(struct pickle_reader *r, const struct pickle_argument *a)
{
    (void)a;
    return push_new(r, PICKLE_DICT) != NULL;
}

/* Replace the topmost values above `from` by a new list or dict of them. */
static bool collect(struct pickle_reader *r, enum pickle_kind kind, int from, int at)
{
    if (from < 0 || at < 0 || !push_new(r, kind))
        return false;
    const int made = r->stack[--r->n_stack];
    if (!move_items(r, made, from))
        return false;
    r->n_stack = at;
    return push(r, made);
}

static bool op_tuple1(struct pickle_reader *r, const struct pickle_argument *a)
{
    (void)a;
    return top(r) && collect(r, PICKLE_LIST, r->n_stack - 1, r->n_stack - 1);
}

static bool op_tuple2(struct pickle_reader *r, const struct pickle_argument *a)
{
    (void)a;
    return has_values(r, 2) && collect(r, PICKLE_LIST, r->n_stack - 2, r->n_stack - 2);
}

static bool op_tuple3(struct pickle_reader *r, const struct pickle_argument *a)
{
    (void)a;
    return has_values(r, 3) && collect(r, PICKLE_LIST, r->n_stack - 3, r->n_stack - 3);
}

static bool op_list(struct pickle_reader *r, const struct pickle_argument *a)
{
    (void)a;
    const int mark = find_mark(r);
    return mark >= 0 && collect(r, PICKLE_LIST, mark + 1, mark);
}

static bool op_dict(struct pickle_reader *r, const struct pickle_argument *a)
{
    (void)a;
    const int mark = find_mark(r);
    return mark >= 0 && (r->n_stack - mark - 1) % 2 == 0 && collect(r, PICKLE_DICT, mark + 1, mark);
}

/* Move the values above index `from` into the value at index `from` - 1 - n_marks. */
static bool add_items(struct pickle_reader *r, int from, int n_marks, int unit)
{
    assert(n_marks >= 0 && (unit == 1 || unit == 2));
    const int to = from - 1 - n_marks;
    if (to < 0 || (r->n_stack - from) % unit)
        return false;
    const int value = r->stack[to];
    const enum pickle_kind kind = r->out->values[value].kind;
    if (kind != PICKLE_CALL && kind != (unit == 2 ? PICKLE_DICT : PICKLE_LIST))
        return false;
    if (!move_items(r, value, from))
        return false;
    r->n_stack = to + 1;
    return true;
}

static bool op_append(struct pickle_reader *r, const struct pickle_argument *a)
{
    (void)a;
    return has_values(r, 2) && add_items(r, r->n_stack - 1, 0, 1);
}

static bool op_appends(struct pickle_reader *r, const struct pickle_argument *a)
{
    (void)a;
    return add_items(r, find_mark(r) + 1, 1, 1);
}

static bool op_set_item(struct pickle_reader *r, const struct pickle_argument *a)
{
    (void)a;
    return has_values(r, 3) && add_items(r, r->n_stack - 2, 0, 2);
}

static bool op_set_items(struct pickle_reader *r, const struct pickle_argument *a)
{
    (void)a;
    return add_items(r, find_mark(r) + 1, 1, 2);
}

static bool op_call(struct pickle_reader *r, const struct pickle_argument *a)
{
    (void)a;
    int args, callee;
    if (!pop(r, &args) || !pop(r, &callee))
        return false;
    struct pickle_value *v = push_new(r, PICKLE_CALL);
    if (!v)
        return false;
    v->callee = callee;
    v->args = args;
    return true;
}

static bool op_persistent(struct pickle_reader *r, const struct pickle_argument *a)
{
    (void)a;
    int args;
    if (!pop(r, &args))
        return false;
    struct pickle_value *v = push_new(r, PICKLE_PERSISTENT);
    if (v)
        v->args = args;
    return v != NULL;
}

/* The state that an object would be given: attributes, which no tensor has. */
static bool op_build(struct pickle_reader *r, const struct pickle_argument *a)
{
    (void)a;
    int value;
    return pop(r, &value) && top(r);
}

static bool op_duplicate(struct pickle_reader *r, const struct pickle_argument *a)
{
    (void)a;
    return top(r) && push(r, r->stack[r->n_stack - 1]);
}

static bool op_put(struct pickle_reader *r, const struct pickle_argument *a)
{
    if (!top(r) || a->number < 0 || a->number > r->end - r->begin)
        return false;
    void *list = r->memo;
    while (r->n_memo <= a->number) {
        const bool ok = grow(r, &list, r->n_memo, &r->memo_capacity, sizeof *r->memo);
        r->memo = list;
        if (!ok)
            return false;
        r->memo[r->n_memo++] = NO_VALUE;
    }
    r->memo[a->number] = r->stack[r->n_stack - 1];
    return true;
}

static bool op_memoize(struct pickle_reader *r, const struct pickle_argument *a)
{
    (void)a;
    return op_put(r, &(struct pickle_argument){ .number = r->n_memo });
}

static bool op_get(struct pickle_reader *r, const struct pickle_argument *a)
{
    return a->number >= 0 && a->number < r->n_memo && r->memo[a->number] != NO_VALUE &&
           push(r, r->memo[a->number]);
}

/* What follows an opcode. */
enum pickle_encoding {
    ARG_NONE,
    ARG_U8,
    ARG_U16,
    ARG_I32,
    ARG_U32,
    ARG_SKIP8, // eight bytes that are ignored
    ARG_TEXT8, // a length and that many bytes
    ARG_TEXT32,
    ARG_TEXT64,
    ARG_LINES // two lines
};

static const struct {
    uint8_t opcode;
    enum pickle_encoding encoding;
    pickle_op *run;
} pickle_ops[] = {
    { '.', ARG_NONE, op_stop },       { 0x80, ARG_U8, op_nothing }, // protocol
    { 0x95, ARG_SKIP8, op_nothing },                                // frame
    { '(', ARG_NONE, op_mark },       { '0', ARG_NONE, op_pop },
    { '1', ARG_NONE, op_pop_mark },   { '2', ARG_NONE, op_duplicate },
    { 'N', ARG_NONE, op_none },       { 0x88, ARG_NONE, op_true },
    { 0x89, ARG_NONE, op_number }, // false
    { 'K', ARG_U8, op_number },       { 'M', ARG_U16, op_number },
    { 'J', ARG_I32, op_number },      { 0x8a, ARG_TEXT8, op_long },
    { 'G', ARG_SKIP8, op_number }, // a float
    { 'X', ARG_TEXT32, op_text },     { 0x8c, ARG_TEXT8, op_text },
    { 0x8d, ARG_TEXT64, op_text },    { 'U', ARG_TEXT8, op_text },
    { 'T', ARG_TEXT32, op_text },     { 'B', ARG_TEXT32, op_text },
    { 'C', ARG_TEXT8, op_text },      { 0x8e, ARG_TEXT64, op_text },
    { ')', ARG_NONE, op_empty_list }, { 0x85, ARG_NONE, op_tuple1 },
    { 0x86, ARG_NONE, op_tuple2 },    { 0x87, ARG_NONE, op_tuple3 },
    { 't', ARG_NONE, op_list },       { ']', ARG_NONE, op_empty_list },
    { 'l', ARG_NONE, op_list },       { 'a', ARG_NONE, op_append },
    { 'e', ARG_NONE, op_appends },    { '}', ARG_NONE, op_empty_dict },
    { 'd', ARG_NONE, op_dict },       { 's', ARG_NONE, op_set_item },
    { 'u', ARG_NONE, op_set_items },  { 0x8f, ARG_NONE, op_empty_list }, // set
    { 0x90, ARG_NONE, op_appends },   { 0x91, ARG_NONE, op_list },
    { 'c', ARG_LINES, op_name },      { 0x93, ARG_NONE, op_stack_name },
    { 'R', ARG_NONE, op_call },       { 0x81, ARG_NONE, op_call }, // new object
    { 'Q', ARG_NONE, op_persistent }, { 'b', ARG_NONE, op_build },
    { 'q', ARG_U8, op_put },          { 'r', ARG_U32, op_put },
    { 0x94, ARG_NONE, op_memoize },   { 'h', ARG_U8, op_get },
    { 'j', ARG_U32, op_get },
};

/* ---- reading ---- */

/* n bytes, little endian; false at the end. */
static bool read_bytes_as(struct pickle_reader *r, int n, uint64_t *value)
{
    *value = 0;
    if (r->end - r->p < n)
        return false;
    for (int i = 0; i < n; i++)
        *value |= (uint64_t)r->p[i] << (8 * i);
    r->p += n;
    return true;
}

static bool read_sized(struct pickle_reader *r, int n_length, struct pickle_text *text)
{
    uint64_t n;
    if (!read_bytes_as(r, n_length, &n) || n > (uint64_t)(r->end - r->p))
        return false;
    *text = (struct pickle_text){ (const char *)r->p, (size_t)n };
    r->p += n;
    return true;
}

static bool read_line(struct pickle_reader *r, struct pickle_text *text)
{
    const uint8_t *at = memchr(r->p, '\n', (size_t)(r->end - r->p));
    if (!at)
        return false;
    *text = (struct pickle_text){ (const char *)r->p, (size_t)(at - r->p) };
    r->p = at + 1;
    return true;
}

static bool read_argument(struct pickle_reader *r, enum pickle_encoding encoding,
                          struct pickle_argument *a)
{
    uint64_t value = 0;
    bool ok = true;
    switch (encoding) {
    case ARG_NONE:
        break;
    case ARG_U8:
        ok = read_bytes_as(r, 1, &value);
        break;
    case ARG_U16:
        ok = read_bytes_as(r, 2, &value);
        break;
    case ARG_I32:
    case ARG_U32:
        ok = read_bytes_as(r, 4, &value);
        break;
    case ARG_SKIP8:
        ok = read_bytes_as(r, 8, &value);
        value = 0;
        break;
    case ARG_TEXT8:
        return read_sized(r, 1, &a->text);
    case ARG_TEXT32:
        return read_sized(r, 4, &a->text);
    case ARG_TEXT64:
        return read_sized(r, 8, &a->text);
    case ARG_LINES:
        return read_line(r, &a->text) && read_line(r, &a->second);
    }
    a->number = encoding == ARG_I32 ? (int32_t)(uint32_t)value : (int64_t)value;
    return ok;
}

/* Execute one opcode; false if it is unknown or does not match the stack. */
static bool step(struct pickle_reader *r)
{
    struct pickle_argument a = { 0 };
    const uint8_t opcode = *r->p++;
    for (size_t i = 0; i < QP_COUNT(pickle_ops); i++)
        if (pickle_ops[i].opcode == opcode)
            return read_argument(r, pickle_ops[i].encoding, &a) && pickle_ops[i].run(r, &a);
    return false;
}

/* Report why the opcode at byte `at` failed. */
static quip_status refuse_step(const struct pickle_reader *r, size_t at, const char *name,
                               quip_error *error)
{
    if (r->has_no_memory)
        return qp_fail_memory(error, "the values of a pickle", (size_t)(r->end - r->begin));
    if (r->is_too_large)
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s: the pickle has more than %d values; save the weights alone, best as "
                       "safetensors",
                       name, MAX_PICKLE_VALUES);
    return qp_fail(error, QUIP_E_FORMAT,
                   "%s: the pickle is not understood at byte %zu (opcode %02x); save the weights "
                   "as safetensors",
                   name, at, r->begin[at]);
}

quip_status qp_pickle_read(struct pickle *p, const void *data, size_t n, const char *name,
                           quip_error *error)
{
    struct pickle_reader r = { .out = p, .begin = data, .p = data };
    quip_status status = QUIP_OK;
    *p = (struct pickle){ .result = NO_VALUE };
    r.end = r.begin + n;
    if (n > MAX_PICKLE_BYTES)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: its pickle has %zu bytes, more than the %d of any model's; save the "
                       "weights as safetensors",
                       name, n, MAX_PICKLE_BYTES);
    while (!status && !r.is_done) {
        const size_t at = (size_t)(r.p - r.begin);
        if (r.p == r.end)
            status =
                qp_fail(error, QUIP_E_FORMAT, "%s: the pickle ends before it is complete", name);
        else if (!step(&r))
            status = refuse_step(&r, at, name, error);
    }
    free(r.stack);
    free(r.memo);
    if (status)
        qp_pickle_close(p);
    return status;
}

void qp_pickle_close(struct pickle *p)
{
    free(p->values);
    free(p->links);
    *p = (struct pickle){ .result = NO_VALUE };
}

bool qp_pickle_is(struct pickle_text t, const char *text)
{
    return strlen(text) == t.n && memcmp(t.p, text, t.n) == 0;
}

const struct pickle_value *qp_pickle_item(const struct pickle *p, const struct pickle_value *list,
                                          int i)
{
    int link = i < list->n_items ? list->first : NO_VALUE;
    for (; i > 0 && link != NO_VALUE; i--)
        link = p->links[link].next;
    return link == NO_VALUE ? NULL : &p->values[p->links[link].value];
}
