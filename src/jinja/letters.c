/* letters.c: white space, printable characters and letter case, as Python's str has them.
 * In:  UTF-8.
 * Out: classes of characters; texts in another case. */
#include "jinja/letters.h"
#include "jinja/jinja_impl.h"
#include "tokenizer/unicode.h"

static bool is_space_char(int32_t c)
{
    return c == ' ' || (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x1f) || c == 0x85 || c == 0xa0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
           c == 0x202f || c == 0x205f || c == 0x3000;
}

size_t qp_space_at(const char *text, size_t n)
{
    int32_t c;
    const size_t length = n ? (size_t)qp_utf8_decode(text, n, &c) : 0;
    return n && is_space_char(c) ? length : 0;
}

size_t qp_space_before(const char *text, size_t n)
{
    for (size_t length = 1; length <= 3 && length <= n; length++)
        if (qp_space_at(text + n - length, length) == length)
            return length;
    return 0;
}

/* Is c in a run that the table says? The runs alternate, and the first one is outside. */
static bool is_in_runs(const uint8_t *runs, int n, int32_t c)
{
    int32_t end = 0;
    bool is_in = true;
    for (int i = 0; i < n;) {
        int32_t length = 0;
        for (int shift = 0;; shift += 7) {
            length |= (runs[i] & 127) << shift;
            if (runs[i++] < 128)
                break;
        }
        end += length;
        is_in = !is_in;
        if (c < end)
            return is_in;
    }
    return !is_in;
}

bool qp_is_printable(int32_t c)
{
    if (c < 0x7f)
        return c >= ' ';
    return is_in_runs(qp_printable_runs, qp_n_printable_runs, c);
}

/* ---- case ---- */

static int32_t lower_char(int32_t c)
{
    if (c < 128)
        return c >= 'A' && c <= 'Z' ? c + 32 : c;
    for (int i = 0; i < qp_n_lower_case_runs; i++) {
        const int32_t *run = qp_lower_case_runs[i];
        if (c >= run[0] && c <= run[1] && (c - run[0]) % run[2] == 0)
            return c + run[3];
    }
    return c;
}

static int32_t upper_char(int32_t c)
{
    if (c < 128)
        return c >= 'a' && c <= 'z' ? c - 32 : c;
    for (int i = 0; i < qp_n_upper_case_singles; i++)
        if (qp_upper_case_singles[i][0] == c)
            return qp_upper_case_singles[i][1];
    for (int i = 0; i < qp_n_lower_case_runs; i++) {
        const int32_t *run = qp_lower_case_runs[i], from = c - run[3];
        if (from >= run[0] && from <= run[1] && (from - run[0]) % run[2] == 0)
            return from;
    }
    return c;
}

static int32_t title_char(int32_t c)
{
    if ((c >= 0x1c4 && c <= 0x1cc) || (c >= 0x1f1 && c <= 0x1f3)) // digraphs
        return c >= 0x1f1 ? 0x1f2 : 0x1c5 + (c - 0x1c4) / 3 * 3;
    return c >= 0x10d0 && c <= 0x10ff ? c : upper_char(c); // Georgian
}

/* The upper or title case of a letter that has several characters there; NULL if it has one. */
static const char *special_case(int32_t c, bool is_title, size_t *n)
{
    char letter[4];
    const size_t n_letter = (size_t)qp_utf8_encode(c, letter);
    for (const char *line = qp_upper_case_special; c >= 128 && *line;) {
        const char *end = strchr(line, '\n');
        if (memcmp(line, letter, n_letter) == 0 && line[n_letter] == ' ') {
            const char *upper = line + n_letter + 1, *space = strchr(upper, ' ');
            *n = (size_t)(is_title ? end - space - 1 : space - upper);
            return is_title ? space + 1 : upper;
        }
        line = end + 1;
    }
    return NULL;
}

/* A letter with a lower and an upper case that is neither: a digraph, or a Greek letter with an
 * iota beside it. */
static bool is_title_char(int32_t c)
{
    size_t n;
    return lower_char(c) != c && (upper_char(c) != c || special_case(c, false, &n));
}

static bool is_cased_char(int32_t c)
{
    size_t n;
    return lower_char(c) != c || upper_char(c) != c || title_char(c) != c || c == 0x130 ||
           special_case(c, false, &n) || is_in_runs(qp_cased_runs, qp_n_cased_runs, c);
}

/* Whether a capital sigma at text[i] ends a word, so that it becomes a final one. What decides it
 * in text that mixes letters with other characters is refused. */
static bool is_final_sigma(struct run *r, const struct value *v, size_t i)
{
    int32_t before = ' ', after = ' ';
    size_t start = i;
    while (start > 0 && ((uint8_t)v->text[--start] & 0xc0) == 0x80)
        continue;
    if (i > 0)
        qp_utf8_decode(v->text + start, i - start, &before);
    if (i + 2 < v->n)
        qp_utf8_decode(v->text + i + 2, v->n - i - 2, &after);
    const bool joins = is_cased_char(before), goes_on = is_cased_char(after);
    if ((!joins && before != ' ' && before != '\n') ||
        (!goes_on && after != ' ' && after != '\n' && after != ',' && after != ')'))
        qp_run_refuse(r, "the lower case of a sigma beside such a character");
    return joins && !goes_on;
}

static void put_cased(struct text_out *o, const struct value *v, size_t i, int32_t c,
                      enum letter_case to)
{
    size_t n;
    const char *special = to == CASE_LOWER ? NULL : special_case(c, to == CASE_TITLE, &n);
    if (special)
        qp_put(o, special, n);
    else if (to == CASE_LOWER && c == 0x130)
        qp_put_text(o, "i\xcc\x87");
    else if (to == CASE_LOWER && c == 0x3a3)
        qp_put_char(o, is_final_sigma(o->run, v, i) ? 0x3c2 : 0x3c3);
    else
        qp_put_char(o, to == CASE_LOWER   ? lower_char(c)
                       : to == CASE_UPPER ? upper_char(c)
                                          : title_char(c));
}

struct value qp_text_case(struct run *r, struct value v, enum letter_case to)
{
    struct text_out o = { .run = r };
    bool after_cased = false;
    for (size_t i = 0, n; i < v.n && qp_run_step(r, 1); i += n) {
        int32_t c;
        n = (size_t)qp_utf8_decode(v.text + i, v.n - i, &c);
        enum letter_case now = to;
        if (to == CASE_CAPITALIZE)
            now = i == 0 ? CASE_TITLE : CASE_LOWER;
        else if (to == CASE_TITLE && after_cased)
            now = CASE_LOWER;
        else if (to == CASE_SWAP)
            now = lower_char(c) != c || c == 0x130 ? CASE_LOWER : CASE_UPPER;
        if (to == CASE_SWAP && is_title_char(c))
            qp_put_char(&o, c);
        else
            put_cased(&o, &v, i, c, now);
        after_cased = to == CASE_TITLE && is_cased_char(c);
    }
    struct value text = qp_text_of(&o);
    text.is_safe = v.is_safe;
    return r->has_failed ? qp_nothing : text;
}
