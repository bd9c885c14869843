/* parser.h: the state of a parse. */
#ifndef QP_JINJA_PARSER_H
#define QP_JINJA_PARSER_H

#include "jinja/lexer.h"

struct parser {
    struct run *run;
    struct jinja *jinja;
    struct lexer lexer;
    struct token token, ahead; // the current one, and the next
    int nesting;               // of expressions and statements
    int n_loops;               // around the current statement, in the same function
    int n_for;                 // around the current statement, counting targets
    int n_frames;              // scopes inside the root
    int n_ifs;                 // in the same scope
    bool is_soft;              // an unknown filter fails only when it runs
    uint8_t uses;              // enum macro_uses of the macro
};

void qp_parser_next(struct parser *p);
/* Always NULL. */
struct node *qp_parser_fail(struct parser *p, const char *expected);
struct node *qp_node(struct parser *p, enum node_type type);
struct name *qp_parser_name(struct parser *p, struct value text);
bool qp_parser_enter(struct parser *p);
bool qp_at_word(const struct parser *p, const char *word);
bool qp_skip_word(struct parser *p, const char *word);
bool qp_at_operator(const struct parser *p, const char *text);
bool qp_skip_operator(struct parser *p, const char *text);
bool qp_expect_operator(struct parser *p, const char *text);
bool qp_expect_name(struct parser *p, struct value *name);
void qp_mention(struct parser *p, struct name *name, bool is_stored);

/* parse_expression.c */
struct node *qp_parse_expression(struct parser *p, bool with_condition);
/* One or more expressions with commas, which make a tuple; `end` is a word that ends it, or NULL.
 */
struct node *qp_parse_tuple(struct parser *p, bool with_condition, const char *end);
struct node *qp_parse_target(struct parser *p, const char *end, bool with_namespace);
struct node *qp_parse_filters(struct parser *p, struct node *of, bool is_inline);

#endif
