/* json_scan.c: a strict scanner for JSON of known shape (RFC 8259).
 * In:  text; the caller knows what must come next.
 * Out: strings and numbers, in order. Builds no tree and allocates nothing.
 *
 * The core reads JSON in two files: the header of safetensors and the configuration of an adapter.
 * Both are read in one pass; a JSON library would build a tree first. */
#include "format/json_scan.h"

#include <assert.h>
#include <string.h>

void qp_json_open(struct json_scan *j, const char *text, size_t n)
{
    assert(text || n == 0);
    *j = (struct json_scan){ .begin = text, .p = text, .end = text + n };
}

static void json_skip_spaces(struct json_scan *j)
{
    while (j->p < j->end && (*j->p == ' ' || *j->p == '\t' || *j->p == '\n' || *j->p == '\r'))
        j->p++;
}

/* The next character that is not a space, without reading it; 0 at the end. */
static char json_peek(struct json_scan *j)
{
    json_skip_spaces(j);
    return j->is_malformed || j->p == j->end ? 0 : *j->p;
}

void qp_json_expect(struct json_scan *j, char c)
{
    if (json_peek(j) == c)
        j->p++;
    else
        j->is_malformed = true;
}

bool qp_json_more(struct json_scan *j, int index, char close)
{
    assert(close == '}' || close == ']');
    if (json_peek(j) == close) {
        j->p++;
        return false;
    }
    if (index > 0)
        qp_json_expect(j, ',');
    return !j->is_malformed;
}

struct json_text qp_json_string(struct json_scan *j)
{
    struct json_text t = { 0 };
    qp_json_expect(j, '"');
    if (j->is_malformed)
        return t;
    t.raw = j->p;
    while (j->p < j->end && *j->p != '"') {
        if ((uint8_t)*j->p < ' ')
            break;
        if (*j->p == '\\') {
            t.has_escapes = true;
            if (++j->p == j->end)
                break;
        }
        j->p++;
    }
    t.n = (size_t)(j->p - t.raw);
    if (j->p == j->end || *j->p != '"') {
        j->is_malformed = true;
        return (struct json_text){ 0 };
    }
    j->p++;
    return t;
}

struct json_text qp_json_key(struct json_scan *j)
{
    struct json_text t = qp_json_string(j);
    qp_json_expect(j, ':');
    return t;
}

uint64_t qp_json_uint(struct json_scan *j)
{
    uint64_t value = 0;
    char first = json_peek(j);
    const char *begin = j->p;
    while (!j->is_malformed && j->p < j->end && *j->p >= '0' && *j->p <= '9') {
        unsigned digit = (unsigned)(*j->p - '0');
        if (value > (UINT64_MAX - digit) / 10)
            j->is_malformed = true;
        value = value * 10 + digit;
        j->p++;
    }
    bool has_leading_zero = first == '0' && j->p - begin > 1;
    if (j->p == begin || has_leading_zero ||
        (j->p < j->end && (*j->p == '.' || *j->p == 'e' || *j->p == 'E')))
        j->is_malformed = true;
    return j->is_malformed ? 0 : value;
}

double qp_json_number(struct json_scan *j)
{
    double value = 0;
    json_peek(j);
    const size_t n = j->is_malformed ? 0 : qp_decimal_parse(j->p, (size_t)(j->end - j->p), &value);
    j->is_malformed |= n == 0;
    j->p += n;
    assert(j->p <= j->end);
    return value;
}

#define MAX_JSON_DEPTH 32

static void skip_json_value(struct json_scan *j, int depth)
{
    const char open = json_peek(j), close = open == '{' ? '}' : ']';
    const char *begin = j->p;
    if (open == '"') {
        qp_json_string(j);
        return;
    }
    if ((open != '{' && open != '[') || depth == MAX_JSON_DEPTH) {
        while (!j->is_malformed && j->p < j->end &&
               ((*j->p >= 'a' && *j->p <= 'z') || (*j->p >= '0' && *j->p <= '9') ||
                (*j->p && strchr("+-.ENI", *j->p))))
            j->p++;
        j->is_malformed |= j->p == begin;
        return;
    }
    qp_json_expect(j, open);
    for (int i = 0; qp_json_more(j, i, close); i++) {
        if (open == '{')
            qp_json_key(j);
        skip_json_value(j, depth + 1);
    }
}

struct json_text qp_json_skip(struct json_scan *j)
{
    json_peek(j);
    struct json_text t = { .raw = j->p };
    skip_json_value(j, 0);
    t.n = j->is_malformed ? 0 : (size_t)(j->p - t.raw);
    return t;
}

void qp_json_close(struct json_scan *j)
{
    json_skip_spaces(j);
    if (j->p != j->end)
        j->is_malformed = true;
}

bool qp_json_is(struct json_text t, const char *text)
{
    return t.n == strlen(text) && !memcmp(t.raw, text, t.n);
}

/* ---- escapes ---- */

/* The value of four hexadecimal digits; -1 if they are not digits. */
static int32_t hex4(const char *p, const char *end)
{
    int32_t value = 0;
    if (end - p < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        static const char digits[] = "0123456789abcdef";
        char c = p[i] >= 'A' && p[i] <= 'F' ? (char)(p[i] + 'a' - 'A') : p[i];
        const char *digit = c ? strchr(digits, c) : NULL;
        if (!digit)
            return -1;
        value = value << 4 | (int32_t)(digit - digits);
    }
    return value;
}

/* The character of `\uXXXX` or of a pair of surrogates; *p is at the first digit. -1 if malformed.
 */
static int32_t unicode_escape(const char **p, const char *end)
{
    int32_t c = hex4(*p, end);
    if (c < 0)
        return -1;
    *p += 4;
    if (c < 0xd800 || c > 0xdfff)
        return c;
    if (c > 0xdbff || end - *p < 6 || (*p)[0] != '\\' || (*p)[1] != 'u')
        return -1;
    int32_t low = hex4(*p + 2, end);
    *p += 6;
    return low < 0xdc00 || low > 0xdfff ? -1 : 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
}

size_t qp_json_decode(struct json_text t, char *out)
{
    static const char names[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    const char *p = t.raw, *end = t.raw + t.n;
    char *to = out;
    while (p < end) {
        if (*p != '\\') {
            *to++ = *p++;
            continue;
        }
        if (++p == end)
            return SIZE_MAX;
        char name = *p++;
        const char *found = name ? strchr(names, name) : NULL;
        if (found) {
            *to++ = meanings[found - names];
            continue;
        }
        int32_t c = name == 'u' ? unicode_escape(&p, end) : -1;
        if (c < 0)
            return SIZE_MAX;
        to += qp_utf8_encode(c, to); // shorter than its escape
    }
    assert((size_t)(to - out) <= t.n);
    return (size_t)(to - out);
}
