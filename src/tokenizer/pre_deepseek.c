/* pre_deepseek.c: pre-tokenizers of DeepSeek, which divide a text in several steps.
 * In:  UTF-8 text[0, n), n > 0.
 * Out: the length of the first word.
 *
 * Each step isolates what its expression matches inside of the parts of the steps before. Here the
 * first place is found where any step divides, so the cost does not depend on the length of the
 * parts. */
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/unicode.h"

#include <assert.h>
#include <string.h>

/* ---- characters ---- */

/* What the steps ask about a character. All are false at the end of the text. */
struct ds_char {
    int32_t c; // -1: malformed, or the end
    size_t length;
    bool is_newline, is_space, is_number;
    bool is_letter; // second step
    bool is_mark;   // third step: punctuation
    bool is_east;   // [一-龥ࠀ-一가-퟿], a later step
};

/* DeepSeek LLM's letters: those that had cases when its expression was written. */
static const int32_t cased_ranges[][2] = {
    { 0x41, 0x5a },       { 0x61, 0x7a },       { 0xb5, 0xb5 },       { 0xc0, 0xd6 },
    { 0xd8, 0xf6 },       { 0xf8, 0x1ba },      { 0x1bc, 0x1bf },     { 0x1c4, 0x293 },
    { 0x295, 0x2af },     { 0x370, 0x373 },     { 0x376, 0x377 },     { 0x37b, 0x37d },
    { 0x37f, 0x37f },     { 0x386, 0x386 },     { 0x388, 0x38a },     { 0x38c, 0x38c },
    { 0x38e, 0x3a1 },     { 0x3a3, 0x3f5 },     { 0x3f7, 0x481 },     { 0x48a, 0x52f },
    { 0x531, 0x556 },     { 0x10a0, 0x10c5 },   { 0x13a0, 0x13f5 },   { 0x13f8, 0x13fd },
    { 0x1c90, 0x1cba },   { 0x1cbd, 0x1cbf },   { 0x1d00, 0x1d2b },   { 0x1d6b, 0x1d77 },
    { 0x1d79, 0x1d9a },   { 0x1e00, 0x1f15 },   { 0x1f18, 0x1f1d },   { 0x1f20, 0x1f45 },
    { 0x1f48, 0x1f4d },   { 0x1f50, 0x1f57 },   { 0x1f59, 0x1f59 },   { 0x1f5b, 0x1f5b },
    { 0x1f5d, 0x1f5d },   { 0x1f5f, 0x1f7d },   { 0x1f80, 0x1fb4 },   { 0x1fb6, 0x1fbc },
    { 0x1fbe, 0x1fbe },   { 0x1fc2, 0x1fc4 },   { 0x1fc6, 0x1fcc },   { 0x1fd0, 0x1fd3 },
    { 0x1fd6, 0x1fdb },   { 0x1fe0, 0x1fec },   { 0x1ff2, 0x1ff4 },   { 0x1ff6, 0x1ffc },
    { 0x2102, 0x2102 },   { 0x2107, 0x2107 },   { 0x210a, 0x2113 },   { 0x2115, 0x2115 },
    { 0x2119, 0x211d },   { 0x2124, 0x2124 },   { 0x2126, 0x2126 },   { 0x2128, 0x2128 },
    { 0x212a, 0x212d },   { 0x212f, 0x2134 },   { 0x2139, 0x2139 },   { 0x213c, 0x213f },
    { 0x2145, 0x2149 },   { 0x214e, 0x214e },   { 0x2183, 0x2184 },   { 0x2c00, 0x2c7b },
    { 0x2c7e, 0x2ce4 },   { 0x2ceb, 0x2cee },   { 0x2cf2, 0x2cf3 },   { 0xa640, 0xa66d },
    { 0xa680, 0xa69b },   { 0xa722, 0xa76f },   { 0xa771, 0xa787 },   { 0xa78b, 0xa78e },
    { 0xab70, 0xabbf },   { 0xfb00, 0xfb06 },   { 0xfb13, 0xfb17 },   { 0xff21, 0xff3a },
    { 0xff41, 0xff5a },   { 0x10400, 0x1044f }, { 0x104b0, 0x104d3 }, { 0x104d8, 0x104fb },
    { 0x10c80, 0x10cb2 }, { 0x10cc0, 0x10cf2 }, { 0x118a0, 0x118df }, { 0x1e900, 0x1e943 }
};

static bool is_cased(int32_t c)
{
    size_t low = 0, high = QP_COUNT(cased_ranges);
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (c > cased_ranges[middle][1])
            low = middle + 1;
        else
            high = middle;
    }
    return low < QP_COUNT(cased_ranges) && c >= cased_ranges[low][0];
}

/* Skip the character c at *text. False if another one is there. */
static bool skip_char(const char **text, int32_t c)
{
    int32_t found = -1;
    const int length = **text ? qp_utf8_decode(*text, strlen(*text), &found) : 0;
    *text += length > 0 ? length : 0;
    return length > 0 && found == c;
}

/* Ranges are "a-b", and "ab" if nothing is between. */
bool qp_deepseek_is_letters(const char *regex)
{
    static const char begin[] = "\\s?[", end[] = "]+";
    if (strncmp(regex, begin, strlen(begin)) != 0)
        return false;
    regex += strlen(begin);
    for (size_t i = 0; i < QP_COUNT(cased_ranges); i++) {
        const int32_t first = cased_ranges[i][0], last = cased_ranges[i][1];
        if (!skip_char(&regex, first) || (last > first + 1 && !skip_char(&regex, '-')) ||
            (last > first && !skip_char(&regex, last)))
            return false;
    }
    return strcmp(regex, end) == 0;
}

static bool is_between(int32_t c, int32_t first, int32_t last)
{
    return c >= first && c <= last;
}

/* [!-/:-~！-／：-～‘-‟　-。], which has the letters of ASCII, too */
static bool is_llm_mark(int32_t c)
{
    return is_between(c, '!', '/') || is_between(c, ':', '~') || is_between(c, 0xff01, 0xff0f) ||
           is_between(c, 0xff1a, 0xff5e) || is_between(c, 0x2018, 0x201f) ||
           is_between(c, 0x3000, 0x3002);
}

/* \p{P}, which does not have the symbols of ASCII */
static bool is_punctuation_mark(enum char_class class, int32_t c)
{
    return (class == CHAR_PUNCTUATION && !(c < 128 && strchr("$+<=>^`|~", (int)c))) ||
           class == CHAR_CONNECTOR;
}

static struct ds_char ds_at(const char *text, size_t n, size_t i, bool is_coder)
{
    struct ds_char d = { .c = -1 };
    if (i >= n)
        return d;
    const enum char_class class = qp_char_class(text + i, n - i, &d.length);
    qp_utf8_decode(text + i, n - i, &d.c);
    d.is_newline = d.c == '\r' || d.c == '\n';
    d.is_space = class == CHAR_SPACE && !d.is_newline;
    d.is_number = class == CHAR_DIGIT || class == CHAR_NUMERIC;
    d.is_letter = is_coder ? class == CHAR_LETTER : is_cased(d.c);
    d.is_mark = is_coder ? is_punctuation_mark(class, d.c) : is_llm_mark(d.c);
    d.is_east = is_between(d.c, 0x800, 0x9fa5) || is_between(d.c, 0xac00, 0xd7ff);
    return d;
}

/* ---- DeepSeek LLM and Coder ---- */

/* Whether \s+$ divides before the space d at text[i]: the white space from there ends a part. */
static bool ends_part(const char *text, size_t n, size_t i, const struct ds_char *before)
{
    struct ds_char d = ds_at(text, n, i, false);
    if (before->is_mark && d.is_mark) { // U+3000 is a mark and a space
        while (d.is_mark && d.is_space)
            d = ds_at(text, n, i += d.length, false);
        return !d.is_mark;
    }
    if (before->is_mark || before->is_letter)
        return true; // another step divides here
    while (d.is_space && !d.is_mark)
        d = ds_at(text, n, i += d.length, false);
    return d.c < 0 ? i >= n : d.is_newline || d.is_letter || d.is_mark;
}

/* Whether a run of a class, with one space before it, begins or ends between a and b. */
static bool divides_run(bool a, bool b, bool a_is_space, bool b_is_space, bool after_b)
{
    return (a && !b) || (b && !a && !a_is_space) || (!b && b_is_space && after_b);
}

/* Steps: [\r\n] | \s?LETTERS+ | \s?MARKS+ | (LLM) \s+$ | [一-龥ࠀ-一가-퟿]+ | \p{N} */
size_t qp_deepseek_word(const char *text, size_t n, bool is_coder)
{
    assert(n > 0);
    struct ds_char a = ds_at(text, n, 0, is_coder);
    struct ds_char b = ds_at(text, n, a.length, is_coder);
    size_t i = a.length;
    for (; i < n; i += a.length) {
        const struct ds_char after = ds_at(text, n, i + b.length, is_coder);
        // U+3000 is a mark, but before a letter it is the letter's space
        const bool is_mark_next =
            after.is_mark &&
            !(after.is_space && ds_at(text, n, i + b.length + after.length, is_coder).is_letter);
        if (a.is_newline || b.is_newline || a.is_number || b.is_number || a.is_east != b.is_east ||
            divides_run(a.is_letter, b.is_letter, a.is_space, b.is_space, after.is_letter) ||
            divides_run(a.is_mark, b.is_mark, a.is_space, b.is_space, is_mark_next) ||
            (!is_coder && b.is_space && !a.is_space && ends_part(text, n, i, &a)))
            return i;
        a = b;
        b = after;
    }
    return n;
}

/* ---- DeepSeek V3 ---- */

enum ds3_kind {
    DS3_END,
    DS3_NUMBER, // \p{N}
    DS3_EAST,   // [一-龥぀-ゟ゠-ヿ]
    DS3_LETTER, // [\p{L}\p{M}]
    DS3_MARK,   // [\p{P}\p{S}]
    DS3_SPACE,
    DS3_REST // not in the expression, but before letters
};

static enum ds3_kind ds3_at(const char *text, size_t n, size_t i, size_t *length)
{
    *length = 0;
    if (i >= n)
        return DS3_END;
    int32_t c;
    const enum char_class class = qp_char_class(text + i, n - i, length);
    qp_utf8_decode(text + i, n - i, &c);
    if (class == CHAR_DIGIT || class == CHAR_NUMERIC)
        return DS3_NUMBER;
    if (is_between(c, 0x4e00, 0x9fa5) || is_between(c, 0x3040, 0x30ff))
        return DS3_EAST;
    if (class == CHAR_LETTER || class == CHAR_MARK)
        return DS3_LETTER;
    if (class == CHAR_SPACE)
        return DS3_SPACE;
    const bool is_symbol =
        c >= 0 && qp_run_value(qp_detail_runs, qp_n_detail_runs, 3, (uint32_t)c) == DETAIL_SYMBOL;
    return class == CHAR_PUNCTUATION || class == CHAR_CONNECTOR || is_symbol ? DS3_MARK : DS3_REST;
}

static size_t ds3_run(const char *text, size_t n, size_t i, enum ds3_kind kind)
{
    size_t length;
    while (ds3_at(text, n, i, &length) == kind)
        i += length;
    return i;
}

static bool is_ascii_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_line_end(char c)
{
    return c == '\r' || c == '\n';
}

/* \s*[\r\n]+|\s+(?!\S)|\s+, where a part ends before numbers and eastern characters */
static size_t ds3_white_space(const char *text, size_t n)
{
    size_t end = 0, last = 0, length;
    enum ds3_kind kind;
    while ((kind = ds3_at(text, n, end, &length)) == DS3_SPACE) {
        last = end;
        end += length;
    }
    for (size_t i = end; i > 0; i--)
        if (is_line_end(text[i - 1]))
            return i;
    const bool at_end = kind == DS3_END || kind == DS3_NUMBER || kind == DS3_EAST;
    return at_end || last == 0 ? end : last;
}

/* Characters that no expression matches, up to one that does. */
static size_t ds3_rest(const char *text, size_t n)
{
    size_t end = 0, length, next;
    while (ds3_at(text, n, end, &length) == DS3_REST &&
           (end == 0 || ds3_at(text, n, end + length, &next) != DS3_LETTER))
        end += length;
    return end;
}

/* Steps: \p{N}{1,3} | [一-龥぀-ゟ゠-ヿ]+ | one expression:
 * ASCII-MARK[A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+
 * |\s+(?!\S)|\s+ */
size_t qp_deepseek3_word(const char *text, size_t n)
{
    size_t length, next_length;
    assert(n > 0);
    const enum ds3_kind kind = ds3_at(text, n, 0, &length);
    const enum ds3_kind next = ds3_at(text, n, length, &next_length);
    if (kind == DS3_NUMBER) {
        size_t end = length;
        for (int i = 1; i < 3 && ds3_at(text, n, end, &length) == DS3_NUMBER; i++)
            end += length;
        return end;
    }
    if (kind == DS3_EAST || kind == DS3_LETTER)
        return ds3_run(text, n, 0, kind);
    if (kind == DS3_MARK && (uint8_t)text[0] < 128 && n > 1 && is_ascii_letter(text[1])) {
        size_t end = 2;
        while (end < n && is_ascii_letter(text[end]))
            end++;
        return end;
    }
    if ((kind == DS3_SPACE || kind == DS3_REST) && !is_line_end(text[0]) && next == DS3_LETTER)
        return ds3_run(text, n, length, DS3_LETTER);
    if (kind == DS3_MARK || (text[0] == ' ' && next == DS3_MARK)) {
        size_t end = ds3_run(text, n, kind == DS3_MARK ? 0 : 1, DS3_MARK);
        while (end < n && is_line_end(text[end]))
            end++;
        return end;
    }
    return kind == DS3_SPACE ? ds3_white_space(text, n) : ds3_rest(text, n);
}
