/* lexer.h: tokens of a template. */
#ifndef QP_JINJA_LEXER_H
#define QP_JINJA_LEXER_H

#include "jinja/jinja_impl.h"

enum token_type {
    TOKEN_END,
    TOKEN_DATA, // value: text outside tags
    TOKEN_VARIABLE_BEGIN,
    TOKEN_VARIABLE_END,
    TOKEN_BLOCK_BEGIN,
    TOKEN_BLOCK_END,
    TOKEN_NAME,    // value: text
    TOKEN_TEXT,    // value: text without quotes and escapes
    TOKEN_NUMBER,  // value
    TOKEN_OPERATOR // value: text
};

struct token {
    enum token_type type;
    int line;
    struct value value;
};

struct lexer {
    struct run *run;
    const char *text; // with \n as the only line end
    size_t n, pos;
    int line;
    enum token_type mode; // TOKEN_DATA, TOKEN_VARIABLE_BEGIN, TOKEN_BLOCK_BEGIN
    bool is_at_begin;     // the begin of a tag is the next token
    char open[MAX_NESTING];
    int n_open;
};

bool qp_lexer_open(struct lexer *lexer, struct run *r, const char *source, size_t n);
void qp_lexer_next(struct lexer *lexer, struct token *token); // TOKEN_END after a failure

#endif
