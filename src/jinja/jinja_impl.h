/* jinja_impl.h: values, syntax trees and the state of a rendering. Private to src/jinja. */
#ifndef QP_JINJA_IMPL_H
#define QP_JINJA_IMPL_H

#include "jinja/jinja.h"

#include <string.h>

struct heap_chunk;
struct generator;

/* ---- values ---- */

/* Python's types. A value never changes, except a namespace, a loop and a generator. */
enum value_kind {
    V_MISSING, // an argument that was not passed; also the result of a failed call
    V_UNDEFINED,
    V_NONE,
    V_BOOL,
    V_INT,
    V_BIG, // an integer beyond 64 bits: its decimal digits
    V_FLOAT,
    V_TEXT,
    V_LIST,
    V_TUPLE,
    V_DICT,
    V_RANGE,
    V_VIEW, // items(), keys() or values() of a dict
    V_NAMESPACE,
    V_MACRO,
    V_LOOP,
    V_GENERATOR,
    V_FUNCTION, // a global function
    V_METHOD,
    V_CYCLER,
    V_JOINER
};

enum undefined_why {
    WHY_NAME,   // text is the name of a variable
    WHY_KEY,    // text is the name of an attribute
    WHY_UNSAFE, // text is the name of an attribute that the sandbox refuses
    WHY_OTHER   // text is the reason
};

struct value {
    uint8_t kind; // enum value_kind
    uint8_t sub; // V_UNDEFINED: enum undefined_why; V_VIEW: enum view; V_FUNCTION: index; V_METHOD:
                 // enum method
    bool is_safe; // V_TEXT that was marked safe (Python's Markup)
    uint32_t n;   // bytes of a text, items of a list or tuple
    union {
        int64_t i;
        double f;
        const char *text; // UTF-8, not terminated
        const struct value *items;
        struct dict *dict; // of a dict, view or namespace
        struct int_range *range;
        struct macro *macro;
        struct loop *loop;
        struct generator *generator;
        struct cycler *cycler;
        struct method *method;
    };
};

enum view {
    VIEW_KEYS,
    VIEW_VALUES,
    VIEW_ITEMS
};

struct dict {
    uint32_t n, capacity;
    struct value *keys, *values;
    uint32_t *slots; // index + 1 of text keys by hash; NULL while there are few
    uint32_t n_slots;
};

struct int_range {
    int64_t start, stop, step;
    uint32_t n;
};

struct method {
    struct value self;
};

struct cycler { // also a joiner
    struct value items;
    uint32_t pos;
};

/* ---- syntax trees ---- */

/* An identifier. Each is stored once for a template, so that names are compared by address. */
struct name {
    struct name *next;
    uint32_t n;
    bool is_mentioned, is_hidden; // is_hidden: the root assigns it before it reads it
    char text[];
};

enum node_type {
    // expressions
    N_CONST,  // value
    N_NAME,   // name
    N_LIST,   // a: items
    N_TUPLE,  // a: items
    N_DICT,   // a: keys and values in turn
    N_ATTR,   // a.name
    N_ITEM,   // a[b]
    N_SLICE,  // a[b:c:d]
    N_CALL,   // a(b: arguments)
    N_FILTER, // a | name(b); op: index of the filter
    N_TEST,   // a is name(b); op: index of the test
    N_UNARY,
    N_NOT,
    N_AND,
    N_OR,
    N_COMPARE, // a, then b: operands with op
    N_CONCAT,  // a: texts
    N_BINARY,
    N_COND,    // b if a else c
    N_KEYWORD, // argument name=a
    N_STAR,    // argument *a
    N_STAR2,   // argument **a
    N_BLOCK,   // the text of a filter block
    N_NSREF,   // target a.name, a is a name
    // statements
    N_DATA,         // value
    N_PRINT,        // a
    N_IF,           // a: test, d: body, c: next elif, e: else
    N_FOR,          // a: target, b: iterable, c: test, d: body, e: else; op: recursive
    N_SET,          // a = b
    N_SET_BLOCK,    // a: target, b: filter, d: body
    N_MACRO,        // name, a: parameters, d: body; op: enum macro_uses
    N_PARAMETER,    // name, a: default
    N_CALL_BLOCK,   // a: parameters, b: call, d: body; op: enum macro_uses
    N_FILTER_BLOCK, // b: filter, d: body
    N_WITH,         // a: targets, b: values, d: body
    N_SCOPE,        // d: body
    N_BREAK,
    N_CONTINUE,
    N_LOADER // include, import, extends: fail, as without a loader
};

enum macro_uses {
    USES_CALLER = 1,
    USES_VARARGS = 2,
    USES_KWARGS = 4
};

/* Operators, also of N_COMPARE's operands. */
enum operator{
    OP_NONE,
    OP_OR,
    OP_AND,
    OP_EQ,
    OP_NE,
    OP_LT,
    OP_LE,
    OP_GT,
    OP_GE,
    OP_IN,
    OP_NOT_IN,
    OP_ADD,
    OP_SUB,
    OP_CONCAT,
    OP_MUL,
    OP_DIV,
    OP_FLOOR_DIV,
    OP_MOD,
    OP_POW
};

struct node {
    uint8_t type;
    uint8_t op;
    int16_t index; // of a filter, test or method in its table; -1: unknown
    int line;
    struct node *next;
    struct node *a, *b, *c, *d, *e;
    struct name *name;
    struct value value;
};

struct jinja {
    struct heap_chunk *chunks;
    struct node *body;
    const struct name *loop_name; // "loop"
    struct name *names[64];       // by hash
    const char *source;           // [n_source]
    size_t n_source;
};

/* ---- a rendering, or a parse ---- */

struct heap_chunk {
    struct heap_chunk *next;
    size_t size;
};

enum flow {
    FLOW_ON,
    FLOW_BREAK,
    FLOW_CONTINUE
};

/* Memory, limits and the first failure. After a failure every function returns at once. */
struct run {
    struct heap_chunk *chunks;
    char *top, *end; // free memory of the first chunk
    size_t n_bytes;  // of all chunks
    int64_t steps;   // left
    int depth;
    int line; // of the node that runs
    bool has_failed;
    bool may_retry;       // the failure may come from an absent variable
    quip_status status;   // of the failure
    struct bytes message; // of the failure
    enum flow flow;
    const struct jinja *jinja;
    const struct dict *vars;
    int n_macros;       // made so far; each keeps the scope around it
    struct value block; // of N_BLOCK
    const struct jinja_time *now;
    struct joined { // the last result of + on texts and on lists, which + can grow as it is
        char *data;
        size_t n, capacity; // in bytes
    } joined_text, joined_items;
};

enum {
    MAX_NESTING = 100,   // of expressions and statements in a template
    MAX_RUN_DEPTH = 420, // of calls and nodes while it runs
    MAX_VALUE_DEPTH = 200
};

/* run.c. The only value of a failed call is V_MISSING, which `nothing` is. */
extern const struct value qp_nothing;
void *qp_run_alloc(struct run *r, size_t n_bytes); // zeroed; NULL after a failure
bool qp_run_step(struct run *r, size_t n);         // false when no steps are left
bool qp_run_enter(struct run *r);                  // before qp_run_leave; false when too deep
void qp_run_leave(struct run *r);
/* The first failure counts. A refusal is something that the reference can do. */
struct value qp_run_fail(struct run *r, const char *format, ...) QP_PRINTF(2, 3);
struct value qp_run_refuse(struct run *r, const char *format, ...) QP_PRINTF(2, 3);
struct value qp_run_raise(struct run *r, struct value message); // raise_exception
void qp_run_fail_memory(struct run *r);
void qp_run_close(struct run *r);
struct value qp_fail_undefined(struct run *r, const struct value *v);

/* A text under construction. It is the last thing on the heap, if nothing else was allocated. */
struct text_out {
    struct run *run;
    char *data;
    size_t n, capacity;
};
void qp_put(struct text_out *o, const char *text, size_t n);
void qp_put_text(struct text_out *o, const char *text);
void qp_put_fill(struct text_out *o, const char *text, size_t n, int64_t count);
void qp_put_char(struct text_out *o, int32_t c);
void qp_put_int(struct text_out *o, int64_t i, int width, char fill);
struct value qp_text_of(const struct text_out *o);

/* ---- values: value.c, compare.c, number.c, print.c ---- */

static inline struct value qp_bool(bool b)
{
    return (struct value){ .kind = V_BOOL, .i = b };
}
static inline struct value qp_int(int64_t i)
{
    return (struct value){ .kind = V_INT, .i = i };
}
static inline struct value qp_float(double f)
{
    return (struct value){ .kind = V_FLOAT, .f = f };
}
static inline struct value qp_none(void)
{
    return (struct value){ .kind = V_NONE };
}
static inline struct value qp_text(const char *text, size_t n)
{
    return (struct value){ .kind = V_TEXT, .n = (uint32_t)n, .text = text };
}
static inline struct value qp_literal(const char *text)
{
    return qp_text(text, strlen(text));
}
static inline struct value qp_items(enum value_kind kind, const struct value *items, size_t n)
{
    return (struct value){ .kind = (uint8_t)kind, .n = (uint32_t)n, .items = items };
}
static inline struct value qp_undefined(enum undefined_why why, struct value text)
{
    return (
        struct value){ .kind = V_UNDEFINED, .sub = (uint8_t)why, .n = text.n, .text = text.text };
}
static inline bool qp_is_int(const struct value *v)
{
    return v->kind == V_INT || v->kind == V_BOOL;
}
static inline bool qp_is_number(const struct value *v)
{
    return qp_is_int(v) || v->kind == V_FLOAT || v->kind == V_BIG;
}
static inline bool qp_is_array(const struct value *v)
{
    return v->kind == V_LIST || v->kind == V_TUPLE;
}

/* Bytes up to a space, = or the end. */
static inline size_t qp_word_length(const char *text)
{
    size_t n = 0;
    while (text[n] && text[n] != ' ' && text[n] != '=')
        n++;
    return n;
}

const char *qp_value_type(const struct value *v); // as Python calls it
bool qp_value_truth(struct run *r, const struct value *v);
bool qp_text_is(const struct value *v, const char *text);
bool qp_text_same(const struct value *a, const struct value *b);
size_t qp_text_length(const struct value *v); // in characters
/* The byte offset of a character; n bytes if it is past the end. */
size_t qp_text_offset(const struct value *v, size_t character);
/* False with a failure if the value has no length. */
bool qp_value_length(struct run *r, const struct value *v, size_t *n);
struct value qp_text_join(struct run *r, struct value a, struct value b);
struct value qp_array_join(struct run *r, struct value a, struct value b);

struct dict *qp_dict_new(struct run *r, size_t capacity);
/* False after a failure: without memory, or if the key cannot be one. */
bool qp_dict_set(struct run *r, struct dict *d, struct value key, struct value v);
/* The index of a key; -1 if it is absent. */
int64_t qp_dict_find(struct run *r, const struct dict *d, const struct value *key);
const struct value *qp_dict_get(struct run *r, const struct dict *d, const char *key);
bool qp_is_hashable(const struct value *v);
struct value qp_pair(struct run *r, struct value key, struct value v); // a tuple

bool qp_value_equal(struct run *r, const struct value *a, const struct value *b);
/* a OP b for OP_LT to OP_GE. */
bool qp_value_order(struct run *r, enum operator op, const struct value *a, const struct value *b);
bool qp_value_contains(struct run *r, const struct value *set, const struct value *v);

/* A growing list. */
struct list_out {
    struct run *run;
    struct value *items;
    size_t n, capacity;
};
void qp_list_add(struct list_out *o, struct value v);
struct value qp_list_of(const struct list_out *o);

struct value qp_binary(struct run *r, enum operator op, struct value a, struct value b); // number.c
struct value qp_negate(struct run *r, struct value a);
struct value qp_big_of(struct run *r, const char *digits, size_t n); // INT if it fits
double qp_number_float(struct run *r, const struct value *v);
bool qp_index_of(struct run *r, const struct value *v, int64_t *i); // an integer argument

size_t qp_float_parse(const char *text, size_t n, double *f); // float.c: JSON's grammar
void qp_float_repr(struct text_out *o, double f);
void qp_float_fixed(struct text_out *o, double f, int digits); // rounded half to even

void qp_put_str(struct text_out *o, const struct value *v);  // str(v)
void qp_put_repr(struct text_out *o, const struct value *v); // repr(v)
struct value qp_value_str(struct run *r, struct value v);    // soft: keeps what is safe
struct json_style {
    bool is_ascii, is_sorted, is_indented;
    struct value indent, item_separator, key_separator;
};
void qp_put_json(struct text_out *o, const struct value *v, const struct json_style *style);
void qp_put_json_text(struct text_out *o, const struct value *v, bool is_ascii);
void qp_put_escaped(struct text_out *o, const struct value *v); // for HTML

/* json_value.c. A JSON value at text[*pos, n); white space around it is skipped. */
struct value qp_value_read(struct run *r, const char *text, size_t n, size_t *pos);

/* ---- iteration: iterate.c ---- */

struct iter {
    struct value source;
    uint64_t pos;
};
/* False with a failure if the value cannot be iterated. */
bool qp_iter_begin(struct run *r, const struct value *v, struct iter *iter);
bool qp_iter_next(struct run *r, struct iter *iter, struct value *v); // false at the end
bool qp_is_iterable(const struct value *v);
struct value qp_list_from(struct run *r, const struct value *v); // list(v)
/* compare.c */
struct value qp_sorted(struct run *r, struct value list, const struct value *keys, bool reverse);

/* ---- calls: call.c ---- */

struct keyword {
    struct value key, value;
};
struct args {
    const struct value *positional;
    size_t n;
    const struct keyword *keywords;
    size_t n_keywords;
};
enum {
    MAX_BOUND = 6
};
/* Arguments by the names of a specification: "a b= c=" has b and c optional, "a /" allows no
 * keywords. Absent ones are V_MISSING. */
bool qp_bind(struct run *r, const char *function, const char *spec, const struct args *args,
             struct value *bound);
struct value qp_call(struct run *r, struct value callee, const struct args *args);
struct value qp_function_find(const struct value *name); // V_MISSING: unknown

/* access.c */
struct value qp_get_attr(struct run *r, const struct value *v, const struct value *name);
struct value qp_get_item(struct run *r, const struct value *v, const struct value *key);
struct value qp_get_slice(struct run *r, const struct value *v, const struct value bounds[3]);

/* filters.c, tests.c */
int qp_filter_find(const struct value *name); // -1: unknown
struct value qp_filter_call(struct run *r, int filter, struct value v, const struct args *args);
int qp_test_find(const struct value *name);
bool qp_test_call(struct run *r, int test, struct value v, const struct args *args);
bool qp_text_is_case(struct run *r, const struct value *v, bool is_upper);
/* methods.c */
struct value qp_method_call(struct run *r, const struct value *method, const struct args *args);
/* An attribute that Python's own types have; V_MISSING if the type has none of that name. */
struct value qp_type_attr(struct run *r, const struct value *v, const struct value *name);
/* format.c, strftime.c */
struct value qp_format_percent(struct run *r, const struct value *format, struct value args);
struct value qp_format_braces(struct run *r, const struct value *format, const struct args *args);
struct value qp_strftime(struct run *r, const struct value *format);

/* Generators of filters (generate.c). */
enum generator_type {
    GEN_MAP,
    GEN_SELECT, // also reject, selectattr and rejectattr
    GEN_LIST    // the items of a list that is made when the first one is read
};
struct value qp_generate(struct run *r, int filter, struct value v, const struct args *args);
bool qp_generator_next(struct run *r, struct generator *g, struct value *v);
/* The attribute of an item, "a.0.b" or a number; `fallback` is V_MISSING or replaces undefined. */
struct value qp_attribute_of(struct run *r, struct value item, const struct value *path,
                             const struct value *fallback);

/* ---- text: letters.c, value.c, filters_text.c ---- */

size_t qp_space_at(const char *text, size_t n);     // bytes of a white space character, or 0
size_t qp_space_before(const char *text, size_t n); // the one that ends at n
struct value qp_text_strip(struct value v, const struct value *set, bool left, bool right);
struct value qp_text_part(struct value v, size_t begin, size_t end); // in bytes
enum letter_case {
    CASE_UPPER,
    CASE_LOWER,
    CASE_TITLE,      // str.title
    CASE_CAPITALIZE, // str.capitalize
    CASE_SWAP
};
struct value qp_text_case(struct run *r, struct value v, enum letter_case to);
bool qp_is_printable(int32_t c);
struct value qp_split_lines(struct run *r, struct value v, bool keeps_ends);

/* ---- programs: parse.c, eval.c, exec.c, loop.c ---- */

struct scope {
    struct scope *parent;
    struct variable {
        const struct name *name;
        struct value value;
    } * variables;
    uint32_t n, capacity;
};
struct macro {
    const struct node *node; // N_MACRO or N_CALL_BLOCK
    struct scope *scope;     // around the definition
};
struct loop {
    const struct node *node;
    struct scope *scope; // around the loop
    struct iter iter;
    struct value previous, current;
    struct value *ahead; // items that were read before they are used
    size_t n_ahead, ahead_pos;
    int64_t index0;
    int depth0;
    bool is_ended;
    struct value changed; // of loop.changed()
    bool has_changed;
};

bool qp_parse(struct run *r, struct jinja *jinja, const char *source, size_t n);
struct value qp_eval(struct run *r, const struct node *n, struct scope *s);
void qp_exec(struct run *r, const struct node *n, struct scope *s, struct text_out *out);
bool qp_assign(struct run *r, const struct node *target, struct scope *s, struct value v);
bool qp_scope_set(struct run *r, struct scope *s, const struct name *name, struct value v);
struct value qp_macro_call(struct run *r, const struct macro *macro, const struct args *args);
struct value qp_loop_call(struct run *r, const struct loop *loop, struct value iterable);
struct value qp_loop_attr(struct run *r, struct loop *loop, const struct value *name);

#endif
