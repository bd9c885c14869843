/* parse.c: the source of a template -> its tree.
 * In:  source text.
 * Out: statements; a failure with the line where it is.
 *
 * Jinja2 decides when it compiles which scope a variable belongs to. A name that the root assigns,
 * outside of any if, before it reads it there, is undefined until then, even if the caller passed a
 * variable of that name. All other names are looked up from the inside out when they are read. */
#include "jinja/parser.h"

void qp_parser_next(struct parser *p)
{
    p->token = p->ahead;
    qp_lexer_next(&p->lexer, &p->ahead);
    p->run->line = p->token.line;
}

struct node *qp_parser_fail(struct parser *p, const char *expected)
{
    const struct value *v = &p->token.value;
    const bool has_text = v->kind == V_TEXT && p->token.type != TOKEN_DATA;
    const char *found = p->token.type == TOKEN_END      ? "the end of the template"
                        : p->token.type == TOKEN_NUMBER ? "a number"
                        : p->token.type == TOKEN_DATA   ? "text"
                                                        : "the end of the tag";
    const size_t n = has_text ? qp_text_offset(v, 60) : strlen(found);
    qp_run_fail(p->run, "expected %s, found %s%.*s%s", expected, has_text ? "'" : "", (int)n,
                has_text ? v->text : found, has_text ? "'" : "");
    return NULL;
}

struct node *qp_node(struct parser *p, enum node_type type)
{
    struct node *n = qp_run_alloc(p->run, sizeof *n);
    if (n) {
        n->type = (uint8_t)type;
        n->line = p->token.line;
        n->index = -1;
    }
    return n;
}

struct name *qp_parser_name(struct parser *p, struct value text)
{
    uint32_t hash = 0;
    for (uint32_t i = 0; i < text.n; i++)
        hash = hash * 31 + (uint8_t)text.text[i];
    struct name **list = &p->jinja->names[hash % QP_COUNT(p->jinja->names)];
    for (struct name *name = *list; name && qp_run_step(p->run, 1); name = name->next)
        if (name->n == text.n && memcmp(name->text, text.text, text.n) == 0)
            return name;
    struct name *name = qp_run_alloc(p->run, sizeof *name + text.n + 1);
    if (!name)
        return NULL;
    memcpy(name->text, text.text, text.n);
    name->n = text.n;
    name->next = *list;
    *list = name;
    return name;
}

/* Note what a macro reads, and which names the root assigns first. */
void qp_mention(struct parser *p, struct name *name, bool is_stored)
{
    if (!name)
        return;
    if (!is_stored)
        p->uses |= strcmp(name->text, "caller") == 0    ? USES_CALLER
                   : strcmp(name->text, "varargs") == 0 ? USES_VARARGS
                   : strcmp(name->text, "kwargs") == 0  ? USES_KWARGS
                                                        : 0;
    if (p->n_frames > 0 || name->is_mentioned)
        return;
    name->is_mentioned = true;
    name->is_hidden = is_stored && p->n_ifs == 0;
}

bool qp_parser_enter(struct parser *p)
{
    if (++p->nesting > MAX_NESTING)
        qp_run_refuse(p->run, "the template is nested too deeply");
    return !p->run->has_failed;
}

bool qp_at_word(const struct parser *p, const char *word)
{
    return p->token.type == TOKEN_NAME && qp_text_is(&p->token.value, word);
}

bool qp_skip_word(struct parser *p, const char *word)
{
    if (!qp_at_word(p, word))
        return false;
    qp_parser_next(p);
    return true;
}

bool qp_at_operator(const struct parser *p, const char *text)
{
    return p->token.type == TOKEN_OPERATOR && qp_text_is(&p->token.value, text);
}

bool qp_skip_operator(struct parser *p, const char *text)
{
    if (!qp_at_operator(p, text))
        return false;
    qp_parser_next(p);
    return true;
}

bool qp_expect_operator(struct parser *p, const char *text)
{
    return qp_skip_operator(p, text) || qp_parser_fail(p, text);
}

bool qp_expect_name(struct parser *p, struct value *name)
{
    *name = p->token.value;
    if (p->token.type != TOKEN_NAME)
        return qp_parser_fail(p, "a name");
    qp_parser_next(p);
    return true;
}

static bool expect_block_end(struct parser *p)
{
    if (p->token.type != TOKEN_BLOCK_END)
        return qp_parser_fail(p, "the end of the tag");
    qp_parser_next(p);
    return !p->run->has_failed;
}

/* ---- bodies ---- */

static struct node *parse_statement(struct parser *p);

/* Statements up to one of the words; `ends` has them with a space behind each. The current token is
 * then that word. False after a failure. */
static bool parse_nodes(struct parser *p, const char *ends, struct node **list)
{
    while (!p->run->has_failed && p->token.type != TOKEN_END) {
        struct node *n = NULL;
        if (p->token.type == TOKEN_DATA) {
            n = qp_node(p, N_DATA);
            if (n)
                n->value = p->token.value;
            qp_parser_next(p);
        } else if (p->token.type == TOKEN_VARIABLE_BEGIN) {
            qp_parser_next(p);
            n = qp_node(p, N_PRINT);
            if (!n || !(n->a = qp_parse_tuple(p, true, NULL)))
                return false;
            if (p->token.type != TOKEN_VARIABLE_END)
                return qp_parser_fail(p, "the end of the tag");
            qp_parser_next(p);
        } else {
            qp_parser_next(p);
            const struct value *word = &p->token.value;
            const char *at = p->token.type == TOKEN_NAME && ends ? ends : NULL;
            for (; at && *at; at += qp_word_length(at) + 1)
                if (word->n == qp_word_length(at) && memcmp(at, word->text, word->n) == 0)
                    return true;
            if (!(n = parse_statement(p)) || !expect_block_end(p))
                return false;
        }
        *list = n;
        list = n ? &n->next : list;
    }
    if (ends && !p->run->has_failed)
        qp_parser_fail(p, "the end of a block");
    return !p->run->has_failed;
}

static bool parse_body(struct parser *p, const char *ends, struct node **list)
{
    qp_skip_operator(p, ":");
    bool ok = expect_block_end(p) && qp_parser_enter(p) && parse_nodes(p, ends, list);
    p->nesting--;
    return ok;
}

/* What a body that has a scope of its own changes in the parser. */
struct frame {
    int n_loops, n_frames, n_ifs;
    bool is_soft;
};

static struct frame begin_frame(struct parser *p, bool is_function)
{
    const struct frame frame = { p->n_loops, p->n_frames, p->n_ifs, p->is_soft };
    p->n_frames++;
    p->n_loops = is_function ? 0 : p->n_loops;
    p->n_ifs = 0;
    p->is_soft = false;
    return frame;
}

static void end_frame(struct parser *p, struct frame frame)
{
    p->n_loops = frame.n_loops;
    p->n_frames = frame.n_frames;
    p->n_ifs = frame.n_ifs;
    p->is_soft = frame.is_soft;
}

static bool parse_scope(struct parser *p, const char *ends, bool is_function, struct node **list)
{
    const struct frame frame = begin_frame(p, is_function);
    const bool ok = parse_body(p, ends, list);
    end_frame(p, frame);
    return ok;
}

/* ---- statements ---- */

static struct node *parse_if(struct parser *p, struct node *first)
{
    const bool was_soft = p->is_soft;
    struct node *n = first;
    p->is_soft = true;
    p->n_ifs++;
    for (;;) {
        qp_parser_next(p);
        if (!(n->a = qp_parse_tuple(p, false, NULL)) || !parse_body(p, "elif else endif ", &n->d))
            return NULL;
        if (!qp_at_word(p, "elif"))
            break;
        if (!(n->c = qp_node(p, N_IF)))
            return NULL;
        n = n->c;
    }
    if (qp_at_word(p, "else")) {
        qp_parser_next(p);
        if (!parse_body(p, "endif ", &n->e))
            return NULL;
    }
    qp_parser_next(p);
    p->is_soft = was_soft;
    p->n_ifs--;
    return first;
}

static struct node *parse_for(struct parser *p, struct node *n)
{
    struct frame frame;
    qp_parser_next(p);
    p->n_for++;
    if (!(n->a = qp_parse_target(p, "in", false)))
        return NULL;
    if (!qp_skip_word(p, "in"))
        return qp_parser_fail(p, "in");
    if (!(n->b = qp_parse_tuple(p, false, "recursive")))
        return NULL;
    frame = begin_frame(p, false);
    if (qp_skip_word(p, "if") && !(n->c = qp_parse_expression(p, true)))
        return NULL;
    n->op = qp_skip_word(p, "recursive");
    p->n_loops++;
    const bool ok = parse_body(p, "endfor else ", &n->d);
    p->n_loops--;
    if (!ok)
        return NULL;
    if (qp_at_word(p, "else")) {
        qp_parser_next(p);
        if (!parse_body(p, "endfor ", &n->e))
            return NULL;
    }
    qp_parser_next(p);
    end_frame(p, frame);
    p->n_for--;
    return n;
}

static void mention_target(struct parser *p, const struct node *target)
{
    if (target->type == N_NAME)
        qp_mention(p, target->name, true);
    for (const struct node *item = target->type == N_TUPLE ? target->a : NULL; item;
         item = item->next)
        mention_target(p, item);
}

static struct node *parse_set(struct parser *p, struct node *n)
{
    qp_parser_next(p);
    if (!(n->a = qp_parse_target(p, NULL, true)))
        return NULL;
    if (qp_skip_operator(p, "=")) {
        if (!(n->b = qp_parse_tuple(p, true, NULL)))
            return NULL;
        mention_target(p, n->a);
        return n;
    }
    n->type = N_SET_BLOCK;
    mention_target(p, n->a);
    const struct frame frame = begin_frame(p, false);
    if (!(n->b = qp_parse_filters(p, qp_node(p, N_BLOCK), false)) ||
        !parse_body(p, "endset ", &n->d))
        return NULL;
    end_frame(p, frame);
    qp_parser_next(p);
    return n;
}

/* (name, name=default, ...) */
static bool parse_signature(struct parser *p, struct node **list)
{
    bool has_default = false;
    if (!qp_expect_operator(p, "("))
        return false;
    for (struct node **end = list; !qp_at_operator(p, ")"); end = &(*end)->next) {
        struct value name;
        if (*list && !qp_expect_operator(p, ","))
            return false;
        if (!(*end = qp_node(p, N_PARAMETER)) || !qp_expect_name(p, &name))
            return false;
        (*end)->name = qp_parser_name(p, name);
        if (qp_skip_operator(p, "=")) {
            has_default = true;
            if (!((*end)->a = qp_parse_expression(p, true)))
                return false;
        } else if (has_default)
            return qp_parser_fail(p, "a default as for the parameters before");
        if (p->run->has_failed)
            return false;
    }
    return qp_expect_operator(p, ")");
}

static struct node *parse_macro(struct parser *p, struct node *n, const char *end)
{
    const uint8_t outer_uses = p->uses;
    struct value name;
    qp_parser_next(p);
    if (n->type == N_MACRO) {
        if (!qp_expect_name(p, &name) || !(n->name = qp_parser_name(p, name)))
            return NULL;
        qp_mention(p, n->name, true);
    }
    struct frame frame = begin_frame(p, true);
    p->uses = 0;
    if ((n->type == N_MACRO || qp_at_operator(p, "(")) && !parse_signature(p, &n->a))
        return NULL;
    end_frame(p, frame);
    if (n->type == N_CALL_BLOCK) {
        const uint8_t uses = p->uses;
        p->uses = outer_uses;
        if (!(n->b = qp_parse_expression(p, true)))
            return NULL;
        if (n->b->type != N_CALL)
            return qp_parser_fail(p, "a call");
        p->uses |= uses;
    }
    const uint8_t before = n->type == N_CALL_BLOCK ? p->uses : outer_uses;
    p->uses = 0;
    if (!parse_scope(p, end, true, &n->d))
        return NULL;
    n->op = p->uses;
    p->uses |= before;
    qp_parser_next(p);
    return n;
}

static struct node *parse_with(struct parser *p, struct node *n)
{
    struct node **targets = &n->a, **values = &n->b;
    qp_parser_next(p);
    while (p->token.type == TOKEN_NAME) {
        if (!(*targets = qp_parse_target(p, NULL, false)))
            return NULL;
        if (!qp_expect_operator(p, "=") || !(*values = qp_parse_expression(p, true)))
            return NULL;
        targets = &(*targets)->next;
        values = &(*values)->next;
        if (!qp_skip_operator(p, ","))
            break;
    }
    if (!parse_scope(p, "endwith ", false, &n->d))
        return NULL;
    qp_parser_next(p);
    return n;
}

static struct node *parse_filter_block(struct parser *p, struct node *n)
{
    qp_parser_next(p);
    if (!(n->b = qp_parse_filters(p, qp_node(p, N_BLOCK), true)) ||
        !parse_scope(p, "endfilter ", false, &n->d))
        return NULL;
    qp_parser_next(p);
    return n;
}

static struct node *parse_print(struct parser *p, struct node *n)
{
    struct node *items = NULL, **end = &items;
    qp_parser_next(p);
    while (p->token.type != TOKEN_BLOCK_END) {
        if (items && !qp_expect_operator(p, ","))
            return NULL;
        if (!(*end = qp_parse_expression(p, true)))
            return NULL;
        end = &(*end)->next;
    }
    n->type = N_PRINT;
    n->a = items;
    return n;
}

static struct node *parse_jump(struct parser *p, struct node *n)
{
    qp_parser_next(p);
    if (p->n_loops == 0)
        return qp_parser_fail(p, "a loop around break and continue");
    return n;
}

/* What needs other templates fails when it runs: there are none. */
static struct node *parse_loader(struct parser *p, struct node *n)
{
    while (p->token.type != TOKEN_BLOCK_END && p->token.type != TOKEN_END)
        qp_parser_next(p);
    return n;
}

static struct node *parse_generation(struct parser *p, struct node *n)
{
    qp_parser_next(p);
    if (!parse_scope(p, "endgeneration ", true, &n->d))
        return NULL;
    qp_parser_next(p);
    return n;
}

static struct node *parse_macro_block(struct parser *p, struct node *n)
{
    return parse_macro(p, n, "endmacro ");
}

static struct node *parse_call_block(struct parser *p, struct node *n)
{
    return parse_macro(p, n, "endcall ");
}

static struct node *parse_refused(struct parser *p, struct node *n)
{
    qp_run_refuse(p->run, "the tag '%.*s'", (int)p->token.value.n, p->token.value.text);
    return n ? NULL : n;
}

static struct node *parse_statement(struct parser *p)
{
    static const struct {
        const char *word;
        uint8_t type; // enum node_type
        struct node *(*parse)(struct parser *p, struct node *n);
    } statements[] = {
        { "if", N_IF, parse_if },
        { "for", N_FOR, parse_for },
        { "set", N_SET, parse_set },
        { "macro", N_MACRO, parse_macro_block },
        { "call", N_CALL_BLOCK, parse_call_block },
        { "filter", N_FILTER_BLOCK, parse_filter_block },
        { "with", N_WITH, parse_with },
        { "generation", N_SCOPE, parse_generation },
        { "break", N_BREAK, parse_jump },
        { "continue", N_CONTINUE, parse_jump },
        { "print", N_PRINT, parse_print },
        { "include", N_LOADER, parse_loader },
        { "import", N_LOADER, parse_loader },
        { "from", N_LOADER, parse_loader },
        { "extends", N_LOADER, parse_loader },
        { "block", N_SCOPE, parse_refused },
        { "autoescape", N_SCOPE, parse_refused },
    };
    for (size_t i = 0; i < QP_COUNT(statements); i++)
        if (qp_at_word(p, statements[i].word)) {
            struct node *n = qp_node(p, (enum node_type)statements[i].type);
            return n ? statements[i].parse(p, n) : NULL;
        }
    return qp_parser_fail(p, "a known tag");
}

bool qp_parse(struct run *r, struct jinja *jinja, const char *source, size_t n)
{
    struct parser p = { .run = r, .jinja = jinja };
    if (!qp_lexer_open(&p.lexer, r, source, n))
        return false;
    jinja->loop_name = qp_parser_name(&p, qp_literal("loop"));
    qp_parser_next(&p);
    qp_parser_next(&p);
    return parse_nodes(&p, NULL, &jinja->body);
}
