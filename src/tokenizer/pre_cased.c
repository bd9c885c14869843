/* pre_cased.c: expressions that know upper and lower case, or marks.
 * In:  UTF-8 text[0, n), n > 0.
 * Out: the length of the first word. */
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/unicode.h"

#include <assert.h>

/* The detail of the character at text[i], and its length; both 0 at the end. */
static enum char_detail detail_at(const char *text, size_t n, size_t i, size_t *length)
{
    int32_t c = -1;
    *length = i < n ? (size_t)qp_utf8_decode(text + i, n - i, &c) : 0;
    return c < 0 ? DETAIL_NONE : qp_run_value(qp_detail_runs, qp_n_detail_runs, 3, (uint32_t)c);
}

static bool is_upper(enum char_detail d) // [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]
{
    return d == DETAIL_UPPER || d == DETAIL_NO_CASE;
}

static bool is_lower(enum char_detail d) // [\p{Ll}\p{Lm}\p{Lo}\p{M}]
{
    return d == DETAIL_LOWER || d == DETAIL_NO_CASE;
}

/* Where a run of upper-case characters, then one of lower-case characters, ends: [upper]*[lower]+
 * if `needs_lower`, else [upper]+[lower]*. 0 if it does not match at i. An expression that needs a
 * lower-case character ends after the last one without case, if none follows. */
static size_t cased_end(const char *text, size_t n, size_t i, bool needs_lower)
{
    size_t length, end = i, last_without_case = 0;
    enum char_detail d;
    while (is_upper(d = detail_at(text, n, end, &length))) {
        end += length;
        last_without_case = d == DETAIL_NO_CASE ? end : last_without_case;
    }
    if (!is_lower(d))
        return !needs_lower && end > i ? end : needs_lower ? last_without_case : 0;
    if (!needs_lower && end == i)
        return 0;
    while (is_lower(detail_at(text, n, end, &length)))
        end += length;
    return end;
}

/* With U and L for is_upper and is_lower, and C for (?i:'s|'t|'re|'ve|'m|'ll|'d)? or nothing:
 * [^\r\n\p{L}\p{N}]?U*L+C|[^\r\n\p{L}\p{N}]?U+L*C|\p{N}{1,max_digits}| ?[^\s\p{L}\p{N}]+[\r\n/]*
 * |\s*[\r\n]+|\s+(?!\S)|\s+ */
size_t qp_cased_word(const char *text, size_t n, int max_digits, bool has_contractions)
{
    size_t length, end = 0;
    assert(n > 0);
    const unsigned kind = qp_kind_at(text, n, 0, &length);
    const bool has_prefix =
        (kind == KIND_SPACE || kind == KIND_OTHER) && text[0] != '\r' && text[0] != '\n';
    for (int needs_lower = 1; needs_lower >= 0 && end == 0; needs_lower--) {
        if (has_prefix)
            end = cased_end(text, n, length, needs_lower);
        if (end == 0) // also where the first character is a mark
            end = cased_end(text, n, 0, needs_lower);
    }
    if (end == 0)
        return qp_word_without_letters(text, n, max_digits, "\r\n/");
    return has_contractions && end < n ? end + qp_contraction(text + end, n - end, true) : end;
}

static bool is_letter_or_mark(const char *text, size_t n, size_t i, size_t *length)
{
    const enum char_detail d = detail_at(text, n, i, length);
    return d != DETAIL_NONE && d != DETAIL_SYMBOL;
}

/* (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*
 * |\s*[\r\n]+|\s+(?!\S)|\s+ */
size_t qp_marked_word(const char *text, size_t n)
{
    size_t length = qp_contraction(text, n, true), end;
    assert(n > 0);
    if (length > 0)
        return length;
    const unsigned kind = qp_kind_at(text, n, 0, &length);
    const bool has_prefix =
        (kind == KIND_SPACE || kind == KIND_OTHER) && text[0] != '\r' && text[0] != '\n';
    end = has_prefix ? length : 0;
    if (!is_letter_or_mark(text, n, end, &length))
        end = 0;
    const size_t begin = end;
    while (is_letter_or_mark(text, n, end, &length))
        end += length;
    if (end > begin)
        return end;
    end = text[0] == ' ' ? 1 : 0;
    while (qp_kind_at(text, n, end, &length) == KIND_OTHER &&
           !is_letter_or_mark(text, n, end, &length))
        end += length;
    if (end == 0 || text[end - 1] == ' ')
        return qp_word_without_letters(text, n, 1, "\r\n");
    while (end < n && (text[end] == '\r' || text[end] == '\n'))
        end++;
    return end;
}
