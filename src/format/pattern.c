/* pattern.c: regular expressions of an adapter's configuration:
 * "layers\.\d+\.self_attn\.(q|v)_proj".
 * In:  an expression in Python's syntax, and a name.
 * Out: whether the expression matches the whole name.
 *
 * The expression becomes a list of steps, and all states are followed at once (Thompson 1968), so
 * the time is at most the product of both lengths. */
#include "format/pattern.h"

#include <assert.h>
#include <string.h>

enum pattern_op {
    OP_BYTE, // one byte of `set`
    OP_SPLIT,
    OP_JUMP,
    OP_BEGIN,
    OP_END,
    OP_MATCH
};
enum {
    MAX_GROUP_DEPTH = 16,
    MAX_ALTERNATIVES = 100,
    MAX_REPEATS = 64
};

struct pattern_compiler {
    struct pattern *p;
    const char *at, *end;
    int depth, n_bars; // open groups; alternatives that are open, one in the other
    bool is_wrong;
};

/* ---- steps ---- */

static struct pattern_step *emit(struct pattern_compiler *c, enum pattern_op op)
{
    if (c->p->n == MAX_PATTERN_STEPS) {
        c->is_wrong = true;
        c->p->n = MAX_PATTERN_STEPS - 1;
    }
    struct pattern_step *step = &c->p->steps[c->p->n++];
    *step = (struct pattern_step){ .op = (uint8_t)op };
    return step;
}

/* Insert a split before step `begin`: to the next step, or to `y` steps from it. */
static void insert_split(struct pattern_compiler *c, int begin, int y)
{
    emit(c, OP_SPLIT);
    if (c->is_wrong) // nothing was added
        return;
    memmove(&c->p->steps[begin + 1], &c->p->steps[begin],
            (size_t)(c->p->n - 1 - begin) * sizeof *c->p->steps);
    c->p->steps[begin] = (struct pattern_step){ .op = OP_SPLIT, .x = 1, .y = (int16_t)y };
}

static void copy_steps(struct pattern_compiler *c, int begin, int end)
{
    for (int i = begin; i < end && !c->is_wrong; i++) {
        const struct pattern_step step = c->p->steps[i];
        *emit(c, OP_BYTE) = step;
    }
}

static void add_range(uint8_t set[32], int first, int last)
{
    for (int b = first; b <= last; b++)
        set[b / 8] |= (uint8_t)(1 << b % 8);
}

static void invert(uint8_t set[32])
{
    for (int i = 0; i < 32; i++)
        set[i] = (uint8_t)~set[i];
}

/* ---- atoms ---- */

static int next_char(struct pattern_compiler *c)
{
    if (c->at == c->end) {
        c->is_wrong = true;
        return 0;
    }
    return (uint8_t)*c->at++;
}

/* What follows a backslash: a class, or the character itself. */
static void add_escaped(struct pattern_compiler *c, uint8_t set[32])
{
    uint8_t class[32] = { 0 };
    const int name = next_char(c), lower = name | 0x20;
    switch (lower) {
    case 'w':
        add_range(class, 'a', 'z');
        add_range(class, 'A', 'Z');
        add_range(class, '_', '_'); // and the digits
        // fall through
    case 'd':
        add_range(class, '0', '9');
        break;
    case 's':
        add_range(class, '\t', '\r');
        add_range(class, ' ', ' ');
        break;
    default:
        if ((lower >= 'a' && lower <= 'z') || (name >= '0' && name <= '9'))
            c->is_wrong = true; // \b, \A, \1 and so on
        add_range(class, name, name);
    }
    if (name != lower && lower >= 'a' && lower <= 'z')
        invert(class);
    for (int i = 0; i < 32; i++)
        set[i] |= class[i];
}

/* After "[". */
static void parse_class(struct pattern_compiler *c, uint8_t set[32])
{
    const bool is_inverted = c->at < c->end && *c->at == '^';
    c->at += is_inverted;
    for (bool is_first = true; !c->is_wrong; is_first = false) {
        const int first = next_char(c);
        if (first == ']' && !is_first)
            break;
        if (first == '\\') {
            add_escaped(c, set);
        } else if (c->end - c->at >= 2 && c->at[0] == '-' && c->at[1] != ']') {
            const int last = (uint8_t)c->at[1];
            c->is_wrong |= last < first || last == '\\';
            c->at += 2;
            add_range(set, first, last);
        } else {
            add_range(set, first, first);
        }
    }
    if (is_inverted)
        invert(set);
}

static void parse_alternatives(struct pattern_compiler *c);

/* After "(". */
static void parse_group(struct pattern_compiler *c)
{
    if (c->end - c->at >= 2 && c->at[0] == '?') {
        c->is_wrong |= c->at[1] != ':';
        c->at += 2;
    }
    if (++c->depth > MAX_GROUP_DEPTH) {
        c->is_wrong = true;
        return;
    }
    parse_alternatives(c);
    c->depth--;
    if (next_char(c) != ')')
        c->is_wrong = true;
}

static void parse_atom(struct pattern_compiler *c)
{
    const int b = next_char(c);
    if (c->is_wrong)
        return;
    if (b == '(') {
        parse_group(c);
    } else if (b == '^' || b == '$') {
        emit(c, b == '^' ? OP_BEGIN : OP_END);
    } else if (strchr("*+?{", b)) {
        c->is_wrong = true; // nothing to repeat
    } else {
        uint8_t set[32] = { 0 };
        if (b == '[') {
            parse_class(c, set);
        } else if (b == '\\') {
            add_escaped(c, set);
        } else if (b == '.') {
            add_range(set, '\n', '\n');
            invert(set);
        } else {
            add_range(set, b, b);
        }
        memcpy(emit(c, OP_BYTE)->set, set, sizeof set);
    }
}

/* ---- repetition, sequences, alternatives ---- */

static int parse_repeat_count(struct pattern_compiler *c, int fallback)
{
    int n = fallback;
    if (c->at < c->end && *c->at >= '0' && *c->at <= '9')
        for (n = 0; c->at < c->end && *c->at >= '0' && *c->at <= '9'; c->at++)
            n = qp_min(n * 10 + (*c->at - '0'), MAX_REPEATS + 1);
    return n;
}

/* After "{": the limits of "{2}", "{2,}", "{2,5}", "{,5}"; *max is -1 without one. */
static void parse_limits(struct pattern_compiler *c, int *min, int *max)
{
    *min = *max = parse_repeat_count(c, 0);
    if (c->at < c->end && *c->at == ',') {
        c->at++;
        *max = parse_repeat_count(c, -1);
    }
    if (next_char(c) != '}' || *min > MAX_REPEATS || *max > MAX_REPEATS ||
        (*max >= 0 && *max < *min))
        c->is_wrong = true;
}

/* The steps from `begin` on, min to max times. */
static void repeat_code(struct pattern_compiler *c, int begin, int min, int max)
{
    const int end = c->p->n, length = end - begin;
    for (int i = 1; i < min && !c->is_wrong; i++)
        copy_steps(c, begin, end);
    if (max < 0) { // x* after the copies; of min 0, the steps themselves
        if (min > 0)
            copy_steps(c, begin, end);
        const int loop = c->p->n - length;
        insert_split(c, loop, length + 2);
        emit(c, OP_JUMP)->x = (int16_t)(-length - 1);
        return;
    }
    for (int i = min > 0 ? min : 1; i < max && !c->is_wrong; i++) {
        copy_steps(c, begin, end);
        insert_split(c, c->p->n - length, length + 1);
    }
    if (min == 0 && max > 0 && !c->is_wrong)
        insert_split(c, begin, c->p->n - begin + 1);
    if (max == 0)
        c->p->n = begin;
}

static void parse_sequence(struct pattern_compiler *c)
{
    while (!c->is_wrong && c->at < c->end && *c->at != '|' && *c->at != ')') {
        const int begin = c->p->n;
        parse_atom(c);
        int min = 1, max = 1;
        if (c->is_wrong || c->at == c->end || !*c->at || !strchr("*+?{", *c->at))
            continue;
        const char op = *c->at++;
        if (op == '{') {
            parse_limits(c, &min, &max);
        } else {
            min = op == '+';
            max = op == '?' ? 1 : -1;
        }
        if (c->at < c->end && *c->at == '?') // lazy: the same for a whole match
            c->at++;
        if (!c->is_wrong)
            repeat_code(c, begin, min, max);
    }
}

static void parse_alternatives(struct pattern_compiler *c)
{
    const int begin = c->p->n;
    parse_sequence(c);
    if (c->is_wrong || c->at == c->end || *c->at != '|')
        return;
    c->at++;
    insert_split(c, begin, c->p->n - begin + 2);
    const int jump = c->p->n;
    emit(c, OP_JUMP);
    if (++c->n_bars > MAX_ALTERNATIVES)
        c->is_wrong = true;
    if (!c->is_wrong)
        parse_alternatives(c);
    c->n_bars--;
    if (!c->is_wrong)
        c->p->steps[jump].x = (int16_t)(c->p->n - jump);
}

bool qp_pattern_compile(struct pattern *p, const char *text, size_t n)
{
    struct pattern_compiler c = { .p = p, .at = text, .end = text + n };
    p->n = 0;
    parse_alternatives(&c);
    c.is_wrong |= c.at != c.end;
    emit(&c, OP_MATCH);
    return !c.is_wrong;
}

/* ---- matching ---- */

struct pattern_states {
    int16_t list[MAX_PATTERN_STEPS];
    bool is_in[MAX_PATTERN_STEPS];
    int n;
};

/* Add a step, and the steps that are reached from it without a byte. */
static void add_state(const struct pattern *p, struct pattern_states *s, int i, bool is_begin,
                      bool is_end)
{
    assert(i >= 0 && i < p->n);
    const struct pattern_step *step = &p->steps[i];
    if (s->is_in[i])
        return;
    s->is_in[i] = true;
    switch ((enum pattern_op)step->op) {
    case OP_JUMP:
        add_state(p, s, i + step->x, is_begin, is_end);
        return;
    case OP_SPLIT:
        add_state(p, s, i + step->x, is_begin, is_end);
        add_state(p, s, i + step->y, is_begin, is_end);
        return;
    case OP_BEGIN:
    case OP_END:
        if (step->op == OP_BEGIN ? is_begin : is_end)
            add_state(p, s, i + 1, is_begin, is_end);
        return;
    case OP_BYTE:
    case OP_MATCH:
        s->list[s->n++] = (int16_t)i;
    }
}

bool qp_pattern_matches(const struct pattern *p, const char *text, size_t n)
{
    struct pattern_states states[2] = { 0 };
    struct pattern_states *now = &states[0], *next = &states[1];
    add_state(p, now, 0, true, n == 0);
    for (size_t k = 0; k < n; k++) {
        const uint8_t b = (uint8_t)text[k];
        *next = (struct pattern_states){ 0 };
        for (int i = 0; i < now->n; i++) {
            const struct pattern_step *step = &p->steps[now->list[i]];
            if (step->op == OP_BYTE && step->set[b / 8] >> b % 8 & 1)
                add_state(p, next, now->list[i] + 1, false, k + 1 == n);
        }
        struct pattern_states *swapped = now;
        now = next;
        next = swapped;
    }
    for (int i = 0; i < now->n; i++)
        if (p->steps[now->list[i]].op == OP_MATCH)
            return true;
    return false;
}
