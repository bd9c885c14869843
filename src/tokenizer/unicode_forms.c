/* unicode_forms.c: Unicode's normalization forms C, D and KC, and lower case.
 * In:  valid UTF-8.
 * Out: the text with its characters decomposed (in form KC also by compatibility), its marks in
 *      canonical order, and in forms C and KC composed again (Unicode Standard Annex 15). */
#include "tokenizer/tokenizer_impl.h"
#include "tokenizer/unicode.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* A code point as a number that sorts in canonical order: combining class, position in the text,
 * code point. */
#define NFC_MARK(item) ((item) >> 56)
#define NFC_CHAR(item) ((uint32_t)(item)&0x1fffff)

struct nfc_text {
    uint64_t *items;
    size_t n, capacity;
};

/* Hangul syllables are composed by arithmetic: 19 leading consonants, 21 vowels, 27 trailing
 * consonants or none. */
enum hangul {
    HANGUL_S = 0xac00,
    HANGUL_L = 0x1100,
    HANGUL_V = 0x1161,
    HANGUL_T = 0x11a7, // one before the first
    N_HANGUL_L = 19,
    N_HANGUL_V = 21,
    N_HANGUL_T = 28,
    N_HANGUL_S = N_HANGUL_L * N_HANGUL_V * N_HANGUL_T
};

static bool nfc_append(struct nfc_text *t, uint32_t c)
{
    if (t->n == t->capacity) {
        size_t capacity = t->capacity ? 2 * t->capacity : 256;
        uint64_t *items = realloc(t->items, capacity * sizeof *items);
        if (!items)
            return false;
        t->items = items;
        t->capacity = capacity;
    }
    assert(c <= 0x10ffff);
    uint64_t mark = c < 0x300 ? 0 : qp_run_value(qp_mark_runs, qp_n_mark_runs, 8, c);
    t->items[t->n] = mark << 56 | (uint64_t)t->n << 21 | c;
    t->n++;
    return true;
}

/* ---- decomposition ---- */

#define FORM_CHAR(row) ((uint32_t)((row) >> 42))
#define FORM_PARTS(row) ((row) & (((uint64_t)1 << 42) - 1))
#define FORM_FIRST(row) ((uint32_t)((row) >> 21) & 0x1fffff)
#define FORM_SECOND(row) ((uint32_t)(row)&0x1fffff)

static int compare_decomposition(const void *key, const void *row)
{
    const uint32_t c = *(const uint32_t *)key, other = FORM_CHAR(*(const uint64_t *)row);
    return (c > other) - (c < other);
}

/* NULL if c has none. */
static const uint64_t *find_decomposition(uint32_t c)
{
    return bsearch(&c, qp_decompositions, (size_t)qp_n_decompositions, sizeof qp_decompositions[0],
                   compare_decomposition);
}

static int compare_compatibility(const void *key, const void *row)
{
    const uint32_t c = *(const uint32_t *)key, other = *(const uint32_t *)row >> 15;
    return (c > other) - (c < other);
}

/* Form KC: append the compatibility decomposition of a character, if it has one. */
static bool decompose_compatible(struct nfc_text *t, uint32_t c, bool *is_done)
{
    const uint32_t *row = bsearch(&c, qp_compatibility, (size_t)qp_n_compatibility,
                                  sizeof qp_compatibility[0], compare_compatibility);
    *is_done = row != NULL;
    if (!row)
        return true;
    const char *text = (const char *)qp_compatibility_pool + (*row & 0x7fff);
    for (size_t i = 0, n = strlen(text); i < n;) {
        int32_t part;
        i += (size_t)qp_utf8_decode(text + i, n - i, &part);
        if (!nfc_append(t, (uint32_t)part))
            return false;
    }
    return true;
}

/* The first part of a decomposition may have a decomposition itself, a few levels deep. The second
 * part never has one. */
static bool decompose(struct nfc_text *t, uint32_t c)
{
    if (c >= HANGUL_S && c < HANGUL_S + N_HANGUL_S) {
        uint32_t s = c - HANGUL_S, trailing = s % N_HANGUL_T;
        return nfc_append(t, HANGUL_L + s / (N_HANGUL_V * N_HANGUL_T)) &&
               nfc_append(t, HANGUL_V + s / N_HANGUL_T % N_HANGUL_V) &&
               (trailing == 0 || nfc_append(t, HANGUL_T + trailing));
    }
    const uint64_t *row = c < 0xc0 ? NULL : find_decomposition(c);
    if (!row)
        return nfc_append(t, c);
    return decompose(t, FORM_FIRST(*row)) &&
           (FORM_SECOND(*row) == 0 || nfc_append(t, FORM_SECOND(*row)));
}

static int compare_items(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Sort each run of marks by class. Marks of one class keep their order. */
static void order_marks(struct nfc_text *t)
{
    for (size_t i = 0, end; i < t->n; i = end) {
        end = i + 1;
        if (NFC_MARK(t->items[i]) == 0)
            continue;
        while (end < t->n && NFC_MARK(t->items[end]) != 0)
            end++;
        qsort(t->items + i, end - i, sizeof *t->items, compare_items);
    }
}

/* ---- composition ---- */

/* The composition of two code points, or 0. */
static uint32_t compose_pair(uint32_t first, uint32_t second)
{
    if (first - HANGUL_L < N_HANGUL_L && second - HANGUL_V < N_HANGUL_V)
        return HANGUL_S + ((first - HANGUL_L) * N_HANGUL_V + (second - HANGUL_V)) * N_HANGUL_T;
    if (first - HANGUL_S < N_HANGUL_S && (first - HANGUL_S) % N_HANGUL_T == 0 &&
        second - HANGUL_T - 1 < N_HANGUL_T - 1)
        return first + (second - HANGUL_T);
    const uint64_t want = (uint64_t)first << 21 | second;
    int low = 0, high = qp_n_compositions;
    while (low < high) {
        int middle = (low + high) / 2;
        const uint64_t row = qp_decompositions[qp_compositions[middle]];
        const uint64_t found = FORM_PARTS(row);
        if (found == want)
            return FORM_CHAR(row);
        if (found < want)
            low = middle + 1;
        else
            high = middle;
    }
    return 0;
}

/* A character is composed with the last starter (class 0), unless it is blocked by a character
 * between them: another starter, or a mark of the same or a higher class. */
static void compose_all(struct nfc_text *t)
{
    size_t n = 0, starter = SIZE_MAX;
    for (size_t i = 0; i < t->n; i++) {
        uint64_t item = t->items[i];
        bool is_next = starter != SIZE_MAX && n == starter + 1;
        if (is_next || (starter != SIZE_MAX && NFC_MARK(t->items[n - 1]) < NFC_MARK(item))) {
            uint32_t both = compose_pair(NFC_CHAR(t->items[starter]), NFC_CHAR(item));
            if (both) {
                t->items[starter] = both;
                continue;
            }
        }
        if (NFC_MARK(item) == 0)
            starter = n;
        t->items[n++] = item;
    }
    t->n = n;
}

/* Text whose bytes are all below a limit is already in the form: below the lead byte of U+0300 for
 * form C, below 0x80 for the others. */
static bool has_form(const char *text, size_t n, enum unicode_form form)
{
    const uint8_t limit = form == FORM_C ? 0xcc : 0x80;
    for (size_t i = 0; i < n; i++)
        if ((uint8_t)text[i] >= limit)
            return false;
    return true;
}

static bool put_character(struct bytes *out, uint32_t c)
{
    char text[4];
    return qp_bytes_append(out, text, (size_t)qp_utf8_encode((int32_t)c, text));
}

bool qp_unicode_form(const char *text, size_t n, enum unicode_form form, struct bytes *out)
{
    if (has_form(text, n, form))
        return qp_bytes_append(out, text, n);
    struct nfc_text t = { 0 };
    bool ok = true;
    for (size_t i = 0; ok && i < n;) {
        int32_t c;
        bool is_done = false;
        i += (size_t)qp_utf8_decode(text + i, n - i, &c);
        if (form == FORM_KC)
            ok = decompose_compatible(&t, (uint32_t)c, &is_done);
        ok = ok && (is_done || decompose(&t, (uint32_t)c));
    }
    order_marks(&t);
    if (form != FORM_D)
        compose_all(&t);
    for (size_t i = 0; ok && i < t.n; i++)
        ok = put_character(out, NFC_CHAR(t.items[i]));
    free(t.items);
    return ok;
}

/* ---- lower case ---- */

static uint32_t lower_case(uint32_t c)
{
    int low = 0, high = qp_n_lower_case_runs; // the first run that ends at or after c
    while (low < high) {
        int middle = (low + high) / 2;
        if ((uint32_t)qp_lower_case_runs[middle][1] < c)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == qp_n_lower_case_runs)
        return c;
    const int32_t *run = qp_lower_case_runs[low];
    int32_t i = (int32_t)c - run[0];
    return i >= 0 && i % run[2] == 0 ? (uint32_t)((int32_t)c + run[3]) : c;
}

bool qp_lower_case(const char *text, size_t n, struct bytes *out)
{
    for (size_t i = 0; i < n;) {
        int32_t c;
        i += (size_t)qp_utf8_decode(text + i, n - i, &c);
        bool ok = c == 0x130 ? qp_bytes_append(out, "i\xcc\x87", 3) // the only one that becomes two
                             : put_character(out, lower_case((uint32_t)c));
        if (!ok)
            return false;
    }
    return true;
}
