/* parse_expression.c: tokens -> the trees of expressions, as jinja2/parser.py.
 * In:  the tokens of a tag.
 * Out: nodes; NULL after a failure. */
#include "jinja/parser.h"

/* Binary operators by precedence. All are left-associative, also **. */
enum level {
    LEVEL_OR = 1,
    LEVEL_AND,
    LEVEL_NOT,
    LEVEL_COMPARE,
    LEVEL_ADD,
    LEVEL_CONCAT,
    LEVEL_MUL,
    LEVEL_POW,
    LEVEL_UNARY
};

static const struct {
    const char *text;
    uint8_t op, level;
    bool is_word;
} operators[] = {
    { "or", OP_OR, LEVEL_OR, true },          { "and", OP_AND, LEVEL_AND, true },
    { "==", OP_EQ, LEVEL_COMPARE, false },    { "!=", OP_NE, LEVEL_COMPARE, false },
    { "<", OP_LT, LEVEL_COMPARE, false },     { "<=", OP_LE, LEVEL_COMPARE, false },
    { ">", OP_GT, LEVEL_COMPARE, false },     { ">=", OP_GE, LEVEL_COMPARE, false },
    { "in", OP_IN, LEVEL_COMPARE, true },     { "+", OP_ADD, LEVEL_ADD, false },
    { "-", OP_SUB, LEVEL_ADD, false },        { "~", OP_CONCAT, LEVEL_CONCAT, false },
    { "*", OP_MUL, LEVEL_MUL, false },        { "/", OP_DIV, LEVEL_MUL, false },
    { "//", OP_FLOOR_DIV, LEVEL_MUL, false }, { "%", OP_MOD, LEVEL_MUL, false },
    { "**", OP_POW, LEVEL_POW, false },
};

static struct node *parse_level(struct parser *p, int level);
static struct node *parse_primary(struct parser *p);

/* The operator at the current token, of at least this level. */
static enum operator operator_at(const struct parser *p, int level, int *found)
{
    for (size_t i = 0; i < QP_COUNT(operators); i++)
        if (operators[i].level >= level &&
            (operators[i].is_word ? qp_at_word(p, operators[i].text)
                                  : qp_at_operator(p, operators[i].text))) {
            *found = operators[i].level;
            return (enum operator)operators[i].op;
        }
    *found = LEVEL_COMPARE;
    if (level <= LEVEL_COMPARE && qp_at_word(p, "not") && p->ahead.type == TOKEN_NAME &&
        qp_text_is(&p->ahead.value, "in"))
        return OP_NOT_IN;
    return OP_NONE;
}

static void append(struct node **list, struct node *n)
{
    while (*list)
        list = &(*list)->next;
    *list = n;
}

/* ---- arguments ---- */

static struct node *parse_argument(struct parser *p)
{
    struct node *n;
    if (qp_at_operator(p, "*") || qp_at_operator(p, "**")) {
        n = qp_node(p, qp_at_operator(p, "*") ? N_STAR : N_STAR2);
        qp_parser_next(p);
    } else if (p->token.type == TOKEN_NAME && p->ahead.type == TOKEN_OPERATOR &&
               qp_text_is(&p->ahead.value, "=")) {
        n = qp_node(p, N_KEYWORD);
        if (n)
            n->name = qp_parser_name(p, p->token.value);
        qp_parser_next(p);
        qp_parser_next(p);
    } else
        return qp_parse_expression(p, true);
    if (n)
        n->a = qp_parse_expression(p, true);
    return n;
}

/* ( arguments ), where positional ones come first. */
static bool parse_arguments(struct parser *p, struct node **list)
{
    int last = 0;
    struct node **end = list;
    if (!qp_expect_operator(p, "("))
        return false;
    while (!qp_at_operator(p, ")")) {
        if (*list && !qp_expect_operator(p, ","))
            return false;
        if (*list && qp_at_operator(p, ")"))
            break;
        struct node *n = parse_argument(p);
        if (!n)
            return false;
        const int kind = n->type == N_KEYWORD ? 1
                         : n->type == N_STAR  ? 2
                         : n->type == N_STAR2 ? 3
                                              : 0;
        const bool is_possible = kind == 0   ? last == 0
                                 : kind == 1 ? last < 3
                                 : kind == 2 ? last < 2
                                             : last < 3;
        if (!is_possible)
            return qp_parser_fail(p, "arguments in the order of Python") != NULL;
        last = kind > last ? kind : last;
        *end = n;
        end = &n->next;
    }
    return qp_expect_operator(p, ")");
}

static struct node *parse_call(struct parser *p, struct node *callee)
{
    struct node *n = qp_node(p, N_CALL);
    if (!n)
        return NULL;
    n->a = callee;
    return parse_arguments(p, &n->b) ? n : NULL;
}

/* The name of a filter or test may have dots. No such name is known. */
static bool parse_dotted(struct parser *p, struct value *name)
{
    if (!qp_expect_name(p, name))
        return false;
    while (qp_skip_operator(p, ".")) {
        struct value more;
        if (!qp_expect_name(p, &more))
            return false;
        name->n = (uint32_t)(more.text + more.n - name->text);
    }
    return true;
}

struct node *qp_parse_filters(struct parser *p, struct node *of, bool is_inline)
{
    while (of && (is_inline || qp_skip_operator(p, "|"))) {
        struct node *n = qp_node(p, N_FILTER);
        if (!n || !parse_dotted(p, &n->value))
            return NULL;
        n->a = of;
        n->index = (int16_t)qp_filter_find(&n->value);
        if (n->index < 0 && !p->is_soft)
            return qp_parser_fail(p, "the name of a filter before this");
        if (qp_at_operator(p, "(") && !parse_arguments(p, &n->b))
            return NULL;
        of = n;
        is_inline = false;
    }
    return of;
}

static struct node *parse_postfix(struct parser *p, struct node *n);

static struct node *parse_test(struct parser *p, struct node *of)
{
    struct node *n = qp_node(p, N_TEST);
    qp_parser_next(p);
    const bool is_negated = qp_skip_word(p, "not");
    if (!n || !parse_dotted(p, &n->value))
        return NULL;
    n->a = of;
    n->index = (int16_t)qp_test_find(&n->value);
    if (n->index < 0 && !p->is_soft)
        return qp_parser_fail(p, "the name of a test before this");
    const bool is_word = p->token.type == TOKEN_NAME && !qp_at_word(p, "else") &&
                         !qp_at_word(p, "or") && !qp_at_word(p, "and");
    if (qp_at_operator(p, "(")) {
        if (!parse_arguments(p, &n->b))
            return NULL;
    } else if (is_word || p->token.type == TOKEN_TEXT || p->token.type == TOKEN_NUMBER ||
               qp_at_operator(p, "[") || qp_at_operator(p, "{")) {
        if (qp_at_word(p, "is"))
            return qp_parser_fail(p, "one test");
        n->b = parse_postfix(p, parse_primary(p));
        if (!n->b)
            return NULL;
    }
    if (!is_negated)
        return n;
    struct node *negated = qp_node(p, N_NOT);
    if (negated)
        negated->a = n;
    return negated;
}

/* ---- a value and what follows it ---- */

/* A bound of a slice, or NULL with *ok where there is none. */
static struct node *parse_bound(struct parser *p, bool *ok)
{
    if (qp_at_operator(p, ":") || qp_at_operator(p, "]") || qp_at_operator(p, ","))
        return NULL;
    struct node *n = qp_parse_expression(p, true);
    *ok = *ok && n;
    return n;
}

static struct node *parse_subscribed(struct parser *p, struct node *of)
{
    bool ok = true;
    struct node *first = parse_bound(p, &ok);
    struct node *n = qp_node(p, ok && first && !qp_at_operator(p, ":") ? N_ITEM : N_SLICE);
    if (!n || !ok)
        return NULL;
    n->a = of;
    n->b = first;
    if (n->type == N_SLICE) {
        if (!qp_expect_operator(p, ":"))
            return NULL;
        n->c = parse_bound(p, &ok);
        if (qp_skip_operator(p, ":"))
            n->d = parse_bound(p, &ok);
    }
    if (qp_at_operator(p, ","))
        return qp_parser_fail(p, "one index (several are not supported)");
    return ok && qp_expect_operator(p, "]") ? n : NULL;
}

static struct node *parse_subscript(struct parser *p, struct node *of)
{
    if (qp_skip_operator(p, "["))
        return parse_subscribed(p, of);
    qp_parser_next(p);
    const bool is_number = p->token.type == TOKEN_NUMBER && p->token.value.kind == V_INT;
    struct node *n = qp_node(p, is_number ? N_ITEM : N_ATTR);
    if (!n)
        return NULL;
    n->a = of;
    n->value = p->token.value;
    if (is_number) {
        n->b = qp_node(p, N_CONST);
        if (n->b)
            n->b->value = p->token.value;
    } else if (p->token.type != TOKEN_NAME)
        return qp_parser_fail(p, "a name or a number");
    qp_parser_next(p);
    return n;
}

static struct node *parse_postfix(struct parser *p, struct node *n)
{
    for (int count = 0; n && !p->run->has_failed; count++) {
        if (count > MAX_NESTING)
            return qp_parser_fail(p, "fewer attributes in a row");
        if (qp_at_operator(p, ".") || qp_at_operator(p, "["))
            n = parse_subscript(p, n);
        else if (qp_at_operator(p, "("))
            n = parse_call(p, n);
        else
            return n;
    }
    return NULL;
}

static struct node *parse_filter_expression(struct parser *p, struct node *n)
{
    for (int count = 0; n && !p->run->has_failed; count++) {
        if (count > MAX_NESTING)
            return qp_parser_fail(p, "fewer filters in a row");
        if (qp_at_operator(p, "|"))
            n = qp_parse_filters(p, n, false);
        else if (qp_at_word(p, "is"))
            n = parse_test(p, n);
        else if (qp_at_operator(p, "("))
            n = parse_call(p, n);
        else
            return n;
    }
    return NULL;
}

static struct node *parse_list(struct parser *p)
{
    struct node *n = qp_node(p, N_LIST), **end = n ? &n->a : NULL;
    qp_parser_next(p);
    while (n && !qp_at_operator(p, "]")) {
        if (n->a && !qp_expect_operator(p, ","))
            return NULL;
        if (qp_at_operator(p, "]"))
            break;
        if (!(*end = qp_parse_expression(p, true)))
            return NULL;
        end = &(*end)->next;
    }
    return n && qp_expect_operator(p, "]") ? n : NULL;
}

static struct node *parse_dict(struct parser *p)
{
    struct node *n = qp_node(p, N_DICT), **end = n ? &n->a : NULL;
    qp_parser_next(p);
    while (n && !qp_at_operator(p, "}")) {
        if (n->a && !qp_expect_operator(p, ","))
            return NULL;
        if (qp_at_operator(p, "}"))
            break;
        if (!(*end = qp_parse_expression(p, true)) || !qp_expect_operator(p, ":"))
            return NULL;
        end = &(*end)->next;
        if (!(*end = qp_parse_expression(p, true)))
            return NULL;
        end = &(*end)->next;
    }
    return n && qp_expect_operator(p, "}") ? n : NULL;
}

static struct node *parse_name(struct parser *p, bool with_namespace)
{
    static const struct {
        const char *word;
        struct value value;
    } constants[] = {
        { "true", { .kind = V_BOOL, .i = 1 } }, { "True", { .kind = V_BOOL, .i = 1 } },
        { "false", { .kind = V_BOOL } },        { "False", { .kind = V_BOOL } },
        { "none", { .kind = V_NONE } },         { "None", { .kind = V_NONE } },
    };
    struct node *n = qp_node(p, N_NAME);
    if (!n)
        return NULL;
    for (size_t i = 0; i < QP_COUNT(constants); i++)
        if (qp_at_word(p, constants[i].word)) {
            n->type = N_CONST;
            n->value = constants[i].value;
        }
    if (n->type == N_NAME)
        n->name = qp_parser_name(p, p->token.value);
    qp_parser_next(p);
    if (with_namespace && n->type == N_NAME && qp_skip_operator(p, ".")) {
        n->type = N_NSREF;
        if (!qp_expect_name(p, &n->value))
            return NULL;
    }
    return n;
}

static struct node *parse_texts(struct parser *p)
{
    struct node *n = qp_node(p, N_CONST);
    struct text_out o = { .run = p->run };
    if (!n)
        return NULL;
    n->value = p->token.value;
    qp_parser_next(p);
    if (p->token.type != TOKEN_TEXT)
        return n;
    qp_put(&o, n->value.text, n->value.n);
    for (; p->token.type == TOKEN_TEXT; qp_parser_next(p)) // adjacent texts are one
        qp_put(&o, p->token.value.text, p->token.value.n);
    n->value = qp_text_of(&o);
    return n;
}

static struct node *parse_primary(struct parser *p)
{
    struct node *n;
    switch (p->token.type) {
    case TOKEN_NAME:
        n = parse_name(p, false);
        if (n && n->type == N_NAME)
            qp_mention(p, n->name, false);
        return n;
    case TOKEN_TEXT:
        return parse_texts(p);
    case TOKEN_NUMBER:
        if ((n = qp_node(p, N_CONST)))
            n->value = p->token.value;
        qp_parser_next(p);
        return n;
    default:
        if (qp_at_operator(p, "["))
            return parse_list(p);
        if (qp_at_operator(p, "{"))
            return parse_dict(p);
        if (!qp_skip_operator(p, "("))
            return qp_parser_fail(p, "an expression");
        n = qp_parse_tuple(p, true, ")");
        return n && qp_expect_operator(p, ")") ? n : NULL;
    }
}

static struct node *parse_unary(struct parser *p, bool with_filter)
{
    struct node *n;
    if (!qp_parser_enter(p))
        return NULL;
    if (qp_at_operator(p, "-") || qp_at_operator(p, "+")) {
        n = qp_node(p, N_UNARY);
        if (n) {
            n->op = qp_at_operator(p, "-") ? OP_SUB : OP_ADD;
            qp_parser_next(p);
            n->a = parse_unary(p, false);
            n = n->a ? n : NULL;
        }
    } else
        n = parse_primary(p);
    n = parse_postfix(p, n);
    p->nesting--;
    return with_filter ? parse_filter_expression(p, n) : n;
}

/* ---- operators ---- */

static struct node *parse_operands(struct parser *p, struct node *left, int level)
{
    const bool is_compare = level == LEVEL_COMPARE;
    struct node *n = qp_node(p, is_compare ? N_COMPARE : N_CONCAT);
    int found = level;
    if (!n)
        return NULL;
    n->a = left;
    struct node **end = is_compare ? &n->b : &left->next;
    for (enum operator op; (op = operator_at(p, level, &found)) && found == level;) {
        qp_parser_next(p);
        if (op == OP_NOT_IN)
            qp_parser_next(p);
        struct node *operand = parse_level(p, level + 1);
        if (!operand)
            return NULL;
        if (is_compare) {
            struct node *wrapped = qp_node(p, N_CONST);
            if (!wrapped)
                return NULL;
            wrapped->op = (uint8_t)op;
            wrapped->a = operand;
            operand = wrapped;
        }
        *end = operand;
        end = &operand->next;
    }
    return n;
}

static struct node *parse_binary(struct parser *p, struct node *left, enum operator op, int level)
{
    struct node *n = qp_node(p, op == OP_OR ? N_OR : op == OP_AND ? N_AND : N_BINARY);
    qp_parser_next(p);
    struct node *right = level == LEVEL_POW ? parse_unary(p, true) : parse_level(p, level + 1);
    if (!n || !right)
        return NULL;
    n->op = (uint8_t)op;
    n->a = left;
    n->b = right;
    return n;
}

static struct node *parse_level(struct parser *p, int level)
{
    struct node *n;
    int found;
    if (!qp_parser_enter(p))
        return NULL;
    if (level <= LEVEL_NOT && qp_at_word(p, "not")) {
        n = qp_node(p, N_NOT);
        qp_parser_next(p);
        if (n && !(n->a = parse_level(p, LEVEL_NOT)))
            n = NULL;
    } else
        n = parse_unary(p, true);
    int length = 0;
    for (enum operator op; n && (op = operator_at(p, level, &found)); length++) {
        if (length > 2 * MAX_NESTING)
            n = qp_parser_fail(p, "fewer operators in a row");
        else
            n = found == LEVEL_COMPARE || found == LEVEL_CONCAT ? parse_operands(p, n, found)
                                                                : parse_binary(p, n, op, found);
    }
    p->nesting--;
    return p->run->has_failed ? NULL : n;
}

struct node *qp_parse_expression(struct parser *p, bool with_condition)
{
    const bool was_soft = p->is_soft;
    struct node *n = parse_level(p, LEVEL_OR);
    for (int length = 0; n && with_condition && qp_skip_word(p, "if"); length++) {
        struct node *condition = qp_node(p, N_COND);
        if (!condition || length > MAX_NESTING)
            return qp_parser_fail(p, "fewer conditions");
        condition->b = n;
        p->is_soft = true;
        condition->a = parse_level(p, LEVEL_OR);
        if (condition->a && qp_skip_word(p, "else") && qp_parser_enter(p)) {
            condition->c = qp_parse_expression(p, true);
            p->nesting--;
            if (!condition->c)
                return NULL;
        }
        n = condition->a ? condition : NULL;
        p->is_soft = was_soft;
    }
    return n;
}

static bool at_tuple_end(const struct parser *p, const char *end)
{
    return p->token.type == TOKEN_VARIABLE_END || p->token.type == TOKEN_BLOCK_END ||
           qp_at_operator(p, ")") || (end && qp_at_word(p, end));
}

static struct node *make_tuple(struct parser *p, struct node *items)
{
    struct node *n = qp_node(p, N_TUPLE);
    if (n)
        n->a = items;
    return n;
}

struct node *qp_parse_tuple(struct parser *p, bool with_condition, const char *end)
{
    struct node *items = NULL;
    if (!at_tuple_end(p, end)) {
        items = qp_parse_expression(p, with_condition);
        if (!items || !qp_at_operator(p, ","))
            return items;
    } else if (!end || strcmp(end, ")") != 0)
        return qp_parser_fail(p, "an expression");
    while (qp_skip_operator(p, ",") && !at_tuple_end(p, end)) {
        struct node *n = qp_parse_expression(p, with_condition);
        if (!n)
            return NULL;
        append(&items, n);
    }
    return make_tuple(p, items);
}

/* Names, attributes of namespaces, and tuples of them. */
static struct node *parse_target_item(struct parser *p, bool with_namespace)
{
    if (qp_at_operator(p, "(")) {
        if (!qp_parser_enter(p))
            return NULL;
        qp_parser_next(p);
        struct node *n = qp_parse_target(p, ")", false);
        p->nesting--;
        return n && qp_expect_operator(p, ")") ? n : NULL;
    }
    struct node *n = p->token.type == TOKEN_NAME ? parse_name(p, with_namespace) : NULL;
    if (!n || n->type == N_CONST)
        return qp_parser_fail(p, "a name to assign to");
    if (n->type == N_NAME && p->n_for > 0 && strcmp(n->name->text, "loop") == 0)
        return qp_parser_fail(p, "another name than loop to assign to");
    if (n->type == N_NSREF)
        qp_mention(p, n->name, false);
    return n;
}

struct node *qp_parse_target(struct parser *p, const char *end, bool with_namespace)
{
    struct node *items = parse_target_item(p, with_namespace);
    if (!items || !qp_at_operator(p, ","))
        return items;
    while (qp_skip_operator(p, ",") && !at_tuple_end(p, end)) {
        struct node *n = parse_target_item(p, with_namespace);
        if (!n)
            return NULL;
        append(&items, n);
    }
    return make_tuple(p, items);
}
