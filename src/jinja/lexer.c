/* lexer.c: the text of a template -> tokens, as jinja2/lexer.py with trim_blocks and lstrip_blocks.
 * In:  source text, UTF-8.
 * Out: tokens. What a tag strips from the text around it is already gone. */
#include "jinja/lexer.h"
#include "tokenizer/unicode.h"

/* \r\n and \r become \n, and one \n at the end is dropped. */
bool qp_lexer_open(struct lexer *lexer, struct run *r, const char *source, size_t n)
{
    char *text = qp_run_alloc(r, n + 1);
    size_t kept = 0;
    int32_t c;
    for (size_t i = 0; text && i < n; i++) {
        if (source[i] == '\r') {
            text[kept++] = '\n';
            i += i + 1 < n && source[i + 1] == '\n';
        } else
            text[kept++] = source[i];
    }
    kept -= text && kept > 0 && text[kept - 1] == '\n';
    for (size_t i = 0, length; text && i < kept; i += length) {
        length = (size_t)qp_utf8_decode(text + i, kept - i, &c);
        if (c < 0)
            qp_run_fail(r, "the template is not valid UTF-8");
    }
    *lexer = (struct lexer){ .run = r, .text = text, .n = kept, .line = 1, .mode = TOKEN_DATA };
    return !r->has_failed;
}

static char lex_char(const struct lexer *l, size_t ahead)
{
    return l->pos + ahead < l->n ? l->text[l->pos + ahead] : '\0';
}

static void lex_to(struct lexer *l, size_t pos)
{
    for (; l->pos < pos; l->pos++)
        l->line += l->text[l->pos] == '\n';
}

static size_t spaces_at(const struct lexer *l, size_t pos)
{
    size_t n;
    while (pos < l->n && (n = qp_space_at(l->text + pos, l->n - pos)) > 0)
        pos += n;
    return pos;
}

/* The end of a tag at pos: -%} strips white space behind it, %} one newline, +%} nothing. `close`
 * is
 * '%' or '#'. Returns the position behind it, or 0 if it is not there. */
static size_t tag_end(const struct lexer *l, size_t pos, char close)
{
    const char sign =
        pos < l->n && (l->text[pos] == '-' || l->text[pos] == '+') ? l->text[pos++] : '\0';
    if (pos + 1 >= l->n || l->text[pos] != close || l->text[pos + 1] != '}')
        return 0;
    pos += 2;
    if (sign == '-')
        return spaces_at(l, pos);
    return pos + (sign == '\0' && pos < l->n && l->text[pos] == '\n');
}

/* Behind {% raw %}, if that is at pos; else 0. */
static size_t raw_begin(const struct lexer *l, size_t pos)
{
    pos += 2;
    pos += pos < l->n && (l->text[pos] == '-' || l->text[pos] == '+');
    pos = spaces_at(l, pos);
    if (l->n - pos < 3 || memcmp(l->text + pos, "raw", 3) != 0)
        return 0;
    pos = spaces_at(l, pos + 3);
    const bool strips = pos < l->n && l->text[pos] == '-';
    pos += strips;
    if (l->n - pos < 2 || memcmp(l->text + pos, "%}", 2) != 0)
        return 0;
    return strips ? spaces_at(l, pos + 2) : pos + 2;
}

/* The text [pos, end) before a tag, without what the tag strips from it. */
static struct value text_before(const struct lexer *l, size_t end, bool is_variable)
{
    struct value text = qp_text(l->text + l->pos, end - l->pos);
    const char sign = end + 2 < l->n ? l->text[end + 2] : '\0';
    if (sign == '-')
        return qp_text_strip(text, NULL, false, true);
    if (sign == '+' || is_variable)
        return text;
    size_t begin = text.n;
    while (begin > 0 && text.text[begin - 1] != '\n')
        begin--;
    const bool starts_line = begin > 0 || l->pos == 0 || l->text[l->pos - 1] == '\n';
    const struct value last = qp_text_part(text, begin, text.n);
    if (starts_line && qp_text_strip(last, NULL, true, false).n == 0)
        return qp_text_part(text, 0, begin);
    return text;
}

/* A comment begins at pos. */
static void skip_comment(struct lexer *l, size_t pos)
{
    size_t end = 0;
    pos += 2;
    pos += pos < l->n && (l->text[pos] == '-' || l->text[pos] == '+');
    for (; pos < l->n && !end; pos++)
        end = tag_end(l, pos, '#');
    if (!end)
        qp_run_fail(l->run, "a comment does not end");
    lex_to(l, end ? end : l->n);
}

/* The text between raw and endraw; pos is behind {% raw %}. */
static struct value raw_text(struct lexer *l, size_t pos)
{
    lex_to(l, pos);
    for (size_t end = pos; end + 2 < l->n; end++) {
        if (l->text[end] != '{' || l->text[end + 1] != '%')
            continue;
        size_t at = end + 2;
        at += l->text[at] == '-' || l->text[at] == '+';
        at = spaces_at(l, at);
        if (l->n - at < 6 || memcmp(l->text + at, "endraw", 6) != 0)
            continue;
        const size_t behind = tag_end(l, spaces_at(l, at + 6), '%');
        if (!behind)
            continue;
        const struct value text = text_before(l, end, false);
        lex_to(l, behind);
        return text;
    }
    return qp_run_fail(l->run, "raw does not end");
}

static bool lex_data(struct lexer *l, struct token *token)
{
    size_t end = l->pos;
    while (end + 1 < l->n &&
           !(l->text[end] == '{' && strchr("{%#", l->text[end + 1]) && l->text[end + 1]))
        end++;
    if (end + 1 >= l->n)
        end = l->n;
    const char kind = end < l->n ? l->text[end + 1] : '\0';
    const struct value text =
        kind ? text_before(l, end, kind == '{') : qp_text(l->text + l->pos, end - l->pos);
    token->type = TOKEN_DATA;
    token->value = text;
    const size_t raw = kind == '%' ? raw_begin(l, end) : 0;
    if (raw) {
        lex_to(l, end);
        if (text.n == 0) {
            token->value = raw_text(l, raw);
            return !l->run->has_failed;
        }
        l->pos = end; // the next call begins with the tag, whose text before it is empty
        return true;
    }
    if (kind == '#')
        skip_comment(l, end);
    else if (kind) {
        lex_to(l, end + 2);
        l->pos += lex_char(l, 0) == '-' || lex_char(l, 0) == '+';
        l->mode = kind == '{' ? TOKEN_VARIABLE_BEGIN : TOKEN_BLOCK_BEGIN;
        l->is_at_begin = true;
    } else
        lex_to(l, end);
    return text.n > 0;
}

/* ---- inside tags ---- */

static bool is_name_char(const char *text, size_t n, bool is_first, size_t *length)
{
    int32_t c;
    *length = (size_t)qp_utf8_decode(text, n, &c);
    if (c < 128)
        return c == '_' || ((c | 32) >= 'a' && (c | 32) <= 'z') ||
               (!is_first && c >= '0' && c <= '9');
    const enum char_class class = qp_char_class(text, n, length);
    return class == CHAR_LETTER || (!is_first && (class == CHAR_DIGIT || class == CHAR_MARK));
}

static void put_escape(struct lexer *l, struct text_out *o, size_t *i, size_t end)
{
    static const char names[] = "\\'\"abfnrtv", chars[] = "\\'\"\a\b\f\n\r\t\v";
    const char c = l->text[*i];
    const char *at = c ? strchr(names, c) : NULL;
    const int n_hex = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    int32_t code = 0;
    int n = 0;
    if (at) {
        qp_put(o, &chars[at - names], 1);
        ++*i;
    } else if (c == '\n')
        ++*i; // the line goes on
    else if (n_hex || (c >= '0' && c <= '7')) {
        *i += n_hex > 0;
        for (; n < (n_hex ? n_hex : 3) && *i < end; n++, ++*i) {
            const char h = l->text[*i];
            const int digit = h >= '0' && h <= '9'                 ? h - '0'
                              : (h | 32) >= 'a' && (h | 32) <= 'f' ? (h | 32) - 'a' + 10
                                                                   : 99;
            if (digit >= (n_hex ? 16 : 8))
                break;
            code = code < 0x110000 ? code * (n_hex ? 16 : 8) + digit : code;
        }
        if (n < n_hex || code > 0x10ffff)
            qp_run_fail(l->run, "an escape in a text is not complete");
        else if (code >= 0xd800 && code < 0xe000)
            qp_run_refuse(l->run, "half of a surrogate pair in a text");
        else
            qp_put_char(o, code);
    } else if (c == 'N')
        qp_run_refuse(l->run, "a character by its name in a text");
    else {
        qp_put(o, "\\", 1);
        if ((uint8_t)c < 128)
            return;
        *i += (size_t)qp_utf8_decode(l->text + *i, end - *i, &code); // Python escapes it first
        const int digits = code < 0x100 ? 2 : code < 0x10000 ? 4 : 8;
        qp_put_text(o, digits == 2 ? "x" : digits == 4 ? "u" : "U");
        for (int shift = 4 * (digits - 1); shift >= 0; shift -= 4)
            qp_put(o, &"0123456789abcdef"[code >> shift & 15], 1);
    }
}

static void lex_text(struct lexer *l, struct token *token)
{
    const char quote = l->text[l->pos];
    size_t end = l->pos + 1;
    bool has_escape = false;
    while (end < l->n && l->text[end] != quote) {
        has_escape |= l->text[end] == '\\';
        end += 1 + (l->text[end] == '\\' && end + 1 < l->n);
    }
    if (end >= l->n) {
        qp_run_fail(l->run, "a text in a tag does not end");
        return;
    }
    token->type = TOKEN_TEXT;
    token->value = qp_text(l->text + l->pos + 1, end - l->pos - 1);
    if (has_escape) {
        struct text_out o = { .run = l->run };
        for (size_t i = l->pos + 1; i < end && !l->run->has_failed;) {
            if (l->text[i] == '\\') {
                i++;
                put_escape(l, &o, &i, end);
            } else
                qp_put(&o, l->text + i++, 1);
        }
        token->value = qp_text_of(&o);
    }
    lex_to(l, end + 1);
}

/* [digits][_digits]...; false where the grammar allows no underscore. */
static size_t digits_end(const struct lexer *l, size_t pos)
{
    size_t end = pos;
    while (end < l->n && ((l->text[end] >= '0' && l->text[end] <= '9') ||
                          (l->text[end] == '_' && end > pos && l->text[end - 1] != '_')))
        end++;
    return end - (end > pos && l->text[end - 1] == '_');
}

static size_t float_end(const struct lexer *l, size_t pos, size_t whole)
{
    size_t end = whole, next;
    if (pos > 0 && l->text[pos - 1] == '.')
        return 0;
    if (end + 1 < l->n && l->text[end] == '.' && (next = digits_end(l, end + 1)) > end + 1)
        end = next;
    if (end + 1 < l->n && (l->text[end] | 32) == 'e') {
        const size_t digits = end + 1 + (l->text[end + 1] == '-' || l->text[end + 1] == '+');
        if ((next = digits_end(l, digits)) > digits)
            end = next;
    }
    return end > whole ? end : 0;
}

static void lex_number(struct lexer *l, struct token *token)
{
    struct text_out o = { .run = l->run };
    const size_t pos = l->pos, is_float = float_end(l, pos, digits_end(l, pos));
    const char kind = l->pos + 1 < l->n && l->text[pos] == '0' ? l->text[pos + 1] | 32 : '\0';
    size_t end = is_float ? is_float : digits_end(l, pos);
    int base = 10;
    if (!is_float && l->text[pos] == '0') {
        base = kind == 'x' ? 16 : kind == 'o' ? 8 : kind == 'b' ? 2 : 10;
        for (end = pos + 1;
             base == 10 && end < l->n && (l->text[end] == '0' || l->text[end] == '_');)
            end++;
    }
    token->type = TOKEN_NUMBER;
    if (base != 10) {
        int64_t whole = 0;
        for (end = pos + 2; end < l->n; end++) {
            const char h = l->text[end];
            const int digit = h == '_'                             ? -1
                              : h >= '0' && h <= '9'               ? h - '0'
                              : (h | 32) >= 'a' && (h | 32) <= 'f' ? (h | 32) - 'a' + 10
                                                                   : 99;
            if (digit >= base)
                break;
            if (digit >= 0 && whole > (INT64_MAX - digit) / base)
                qp_run_refuse(l->run, "an integer beyond 64 bits");
            else
                whole = digit >= 0 ? whole * base + digit : whole;
        }
        token->value = qp_int(whole);
        l->pos = end;
        return;
    }
    for (size_t i = pos; i < end; i++)
        if (l->text[i] != '_')
            qp_put(&o, l->text + i, 1);
    l->pos = end;
    token->value = qp_float(0);
    if (!l->run->has_failed && is_float)
        qp_float_parse(o.data, o.n, &token->value.f);
    else if (!l->run->has_failed)
        token->value = qp_big_of(l->run, o.data, o.n);
}

static bool balance(struct lexer *l, char c)
{
    const char close = c == '(' ? ')' : c == '[' ? ']' : c == '{' ? '}' : '\0';
    if (close) {
        if (l->n_open == MAX_NESTING)
            qp_run_refuse(l->run, "brackets are nested too deeply");
        else
            l->open[l->n_open++] = close;
    } else if (c == ')' || c == ']' || c == '}') {
        if (l->n_open == 0 || l->open[l->n_open - 1] != c)
            qp_run_fail(l->run, "unexpected '%c'", c);
        else
            l->n_open--;
    }
    return !l->run->has_failed;
}

static void lex_operator(struct lexer *l, struct token *token)
{
    static const char two[][3] = { "//", "**", "==", "!=", ">=", "<=" };
    size_t n = 1;
    const char c = lex_char(l, 0), d = lex_char(l, 1);
    for (size_t i = 0; i < QP_COUNT(two); i++)
        n = two[i][0] == c && two[i][1] == d ? 2 : n;
    if (n == 1 && (!c || !strchr("+-/*%~[](){}><=.:|,;", c))) {
        const struct value rest = { .n = (uint32_t)(l->n - l->pos), .text = l->text + l->pos };
        qp_run_fail(l->run, "unexpected character '%.*s'", (int)qp_text_offset(&rest, 1),
                    rest.text);
        return;
    }
    if (!balance(l, c))
        return;
    token->type = TOKEN_OPERATOR;
    token->value = qp_text(l->text + l->pos, n);
    l->pos += n;
}

/* At the end of the tag? */
static bool lex_end(struct lexer *l, struct token *token)
{
    size_t end = 0;
    if (l->n_open > 0)
        return false;
    if (l->mode == TOKEN_BLOCK_BEGIN)
        end = tag_end(l, l->pos, '%');
    else {
        const bool strips = lex_char(l, 0) == '-';
        if (lex_char(l, strips) == '}' && lex_char(l, strips + 1) == '}')
            end = strips ? spaces_at(l, l->pos + 3) : l->pos + 2;
    }
    if (!end)
        return false;
    token->type = l->mode == TOKEN_BLOCK_BEGIN ? TOKEN_BLOCK_END : TOKEN_VARIABLE_END;
    l->mode = TOKEN_DATA;
    lex_to(l, end);
    return true;
}

static void lex_tag(struct lexer *l, struct token *token)
{
    size_t n;
    lex_to(l, l->pos);
    if (lex_end(l, token))
        return;
    lex_to(l, spaces_at(l, l->pos));
    token->line = l->line;
    l->run->line = l->line;
    if (l->pos >= l->n || lex_end(l, token))
        return;
    if (is_name_char(l->text + l->pos, l->n - l->pos, true, &n)) {
        const size_t begin = l->pos;
        do
            l->pos += n;
        while (l->pos < l->n && is_name_char(l->text + l->pos, l->n - l->pos, false, &n));
        token->type = TOKEN_NAME;
        token->value = qp_text(l->text + begin, l->pos - begin);
    } else if (lex_char(l, 0) >= '0' && lex_char(l, 0) <= '9')
        lex_number(l, token);
    else if (lex_char(l, 0) == '"' || lex_char(l, 0) == '\'')
        lex_text(l, token);
    else
        lex_operator(l, token);
}

void qp_lexer_next(struct lexer *l, struct token *token)
{
    *token = (struct token){ .type = TOKEN_END, .line = l->line };
    l->run->line = l->line;
    while (l->mode == TOKEN_DATA && l->pos < l->n && !l->run->has_failed)
        if (lex_data(l, token))
            return;
    *token = (struct token){ .type = TOKEN_END, .line = l->line };
    if (l->is_at_begin && !l->run->has_failed)
        token->type = l->mode;
    else if (l->mode != TOKEN_DATA)
        lex_tag(l, token);
    l->is_at_begin = false;
}
