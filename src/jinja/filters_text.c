/* filters_text.c: the filters of texts and numbers.
 * In:  the value and its arguments, by the table in filters.c.
 * Out: text or a number. */
#include "jinja/filters.h"

/* The filter title: the first character of each word is raised, the rest lowered. */
static struct value title_filter(struct run *r, struct value v)
{
    struct text_out o = { .run = r };
    size_t begin = 0;
    for (size_t i = 0, n; i <= v.n && !r->has_failed; i += n) {
        n = i < v.n ? qp_space_at(v.text + i, v.n - i) : 1;
        const bool is_between = n > 0 || (v.text[i] && strchr("-({[<", v.text[i]));
        n = n ? n : 1;
        if (!is_between)
            continue;
        if (i > begin) {
            int32_t c;
            const size_t first = (size_t)qp_utf8_decode(v.text + begin, i - begin, &c);
            const struct value head =
                qp_text_case(r, qp_text_part(v, begin, begin + first), CASE_UPPER);
            const struct value tail =
                qp_text_case(r, qp_text_part(v, begin + first, i), CASE_LOWER);
            qp_put_str(&o, &head);
            qp_put_str(&o, &tail);
        }
        if (i < v.n)
            qp_put(&o, v.text + i, n);
        begin = i + n;
    }
    return r->has_failed ? qp_nothing : qp_text_of(&o);
}

static bool ends_line(const char *text, size_t n, size_t i, size_t *length)
{
    int32_t c;
    *length = (size_t)qp_utf8_decode(text + i, n - i, &c);
    if (c == '\r' && i + 1 < n && text[i + 1] == '\n')
        *length = 2;
    return (c >= '\n' && c <= '\r') || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 ||
           c == 0x2029;
}

/* str.splitlines */
struct value qp_split_lines(struct run *r, struct value v, bool keeps_ends)
{
    struct list_out o = { .run = r };
    size_t begin = 0, n;
    for (size_t i = 0; i < v.n && !r->has_failed; i += n)
        if (ends_line(v.text, v.n, i, &n)) {
            qp_list_add(&o, qp_text_part(v, begin, keeps_ends ? i + n : i));
            begin = i + n;
        }
    if (begin < v.n)
        qp_list_add(&o, qp_text_part(v, begin, v.n));
    return qp_list_of(&o);
}

static struct value indent_filter(struct run *r, const struct value *a)
{
    struct text_out o = { .run = r }, spaces = { .run = r };
    const bool first = qp_value_truth(r, &a[2]), blank = qp_value_truth(r, &a[3]);
    struct value indent = a[1];
    if (a[0].kind != V_TEXT)
        return a[0].kind == V_UNDEFINED ? qp_fail_undefined(r, &a[0])
                                        : qp_run_fail(r, "indent needs a text");
    if (indent.kind != V_TEXT) {
        int64_t width = 4;
        if (indent.kind != V_MISSING && !qp_index_of(r, &indent, &width))
            return qp_nothing;
        qp_put_fill(&spaces, " ", 1, width);
        indent = qp_text_of(&spaces);
    }
    struct value text = a[0];
    text.is_safe = false;
    text = qp_text_join(r, text, qp_literal("\n"));
    const struct value lines = r->has_failed ? qp_nothing : qp_split_lines(r, text, false);
    for (uint32_t i = 0; i < lines.n && !r->has_failed; i++) {
        if (i)
            qp_put(&o, "\n", 1);
        if (i ? lines.items[i].n || blank : first)
            qp_put(&o, indent.text, indent.n);
        qp_put(&o, lines.items[i].text, lines.items[i].n);
    }
    text = qp_text_of(&o);
    text.is_safe = a[0].is_safe;
    return r->has_failed ? qp_nothing : text;
}

static struct value truncate_filter(struct run *r, const struct value *a)
{
    int64_t length = 255, leeway = 5;
    const struct value end = a[3].kind == V_MISSING ? qp_literal("...") : a[3];
    size_t n;
    if ((a[1].kind != V_MISSING && !qp_index_of(r, &a[1], &length)) ||
        (a[4].kind != V_MISSING && a[4].kind != V_NONE && !qp_index_of(r, &a[4], &leeway)))
        return qp_nothing;
    if (end.kind != V_TEXT || !qp_value_length(r, &a[0], &n))
        return qp_run_fail(r, "truncate needs a text");
    const int64_t n_end = (int64_t)qp_text_length(&end);
    if (length < n_end || leeway < 0)
        return qp_run_fail(r, "truncate needs a length of at least %d", (int)n_end);
    if ((int64_t)n <= length + leeway)
        return a[0];
    if (a[0].kind != V_TEXT || a[0].is_safe)
        return qp_run_refuse(r, "truncate of a value of type %s", qp_value_type(&a[0]));
    struct value kept = qp_text_part(a[0], 0, qp_text_offset(&a[0], (size_t)(length - n_end)));
    for (size_t i = kept.n; !qp_value_truth(r, &a[2]) && i > 0; i--)
        if (kept.text[i - 1] == ' ') {
            kept.n = (uint32_t)(i - 1);
            break;
        }
    return qp_text_join(r, kept, end);
}

static struct value wordcount_filter(struct run *r, struct value v)
{
    int64_t n = 0;
    bool in_word = false;
    for (size_t i = 0; i < v.n; i++) {
        const char c = v.text[i];
        if ((uint8_t)c >= 128)
            return qp_run_refuse(r, "wordcount of letters beyond ASCII");
        const bool is_word =
            c == '_' || (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z');
        n += is_word && !in_word;
        in_word = is_word;
    }
    return qp_int(n);
}

static struct value striptags_filter(struct run *r, struct value v)
{
    if (v.n && (memchr(v.text, '<', v.n) || memchr(v.text, '&', v.n)))
        return qp_run_refuse(r, "striptags of a text with < or &");
    struct text_out o = { .run = r };
    const struct value method =
        qp_type_attr(r, &v, &(struct value){ .kind = V_TEXT, .n = 5, .text = "split" });
    const struct value words = r->has_failed ? qp_nothing : qp_call(r, method, &(struct args){ 0 });
    for (uint32_t i = 0; i < words.n && !r->has_failed; i++) {
        qp_put(&o, " ", i > 0);
        qp_put_str(&o, &words.items[i]);
    }
    return r->has_failed ? qp_nothing : qp_text_of(&o);
}

static struct value urlencode_filter(struct run *r, struct value v)
{
    struct text_out o = { .run = r };
    if (qp_is_iterable(&v) && v.kind != V_TEXT)
        return qp_run_refuse(r, "urlencode of a value of type %s", qp_value_type(&v));
    v = qp_value_str(r, v);
    for (uint32_t i = 0; i < v.n && !r->has_failed; i++) {
        const uint8_t c = (uint8_t)v.text[i];
        if (c < 128 &&
            (strchr("_.-~/", c) || (c >= '0' && c <= '9') ||
             ((c | 32) >= 'a' && (c | 32) <= 'z')) &&
            c) {
            qp_put(&o, v.text + i, 1);
            continue;
        }
        qp_put(&o, "%", 1);
        qp_put(&o, &"0123456789ABCDEF"[c >> 4], 1);
        qp_put(&o, &"0123456789ABCDEF"[c & 15], 1);
    }
    return r->has_failed ? qp_nothing : qp_text_of(&o);
}

static struct value call_method(struct run *r, struct value v, const char *name,
                                const struct value *a, size_t n)
{
    const struct value key = qp_literal(name);
    return qp_call(r, qp_type_attr(r, &v, &key), &(struct args){ .positional = a, .n = n });
}

static struct value replace_filter(struct run *r, const struct value *a, struct value v)
{
    struct value b[3] = { qp_value_str(r, a[1]), qp_value_str(r, a[2]), a[3] };
    v.is_safe = b[0].is_safe = b[1].is_safe = false;
    return call_method(r, v, "replace", b, a[3].kind == V_MISSING || a[3].kind == V_NONE ? 2 : 3);
}

struct value qp_text_filter(struct run *r, int filter, const struct value *a)
{
    if (filter == FILTER_INDENT)
        return indent_filter(r, a);
    if (filter == FILTER_TRUNCATE)
        return truncate_filter(r, a);
    if (filter == FILTER_URLENCODE)
        return urlencode_filter(r, a[0]);
    struct value v = qp_value_str(r, a[0]);
    if (r->has_failed)
        return qp_nothing;
    switch (filter) {
    case FILTER_CAPITALIZE:
        return qp_text_case(r, v, CASE_CAPITALIZE);
    case FILTER_CENTER:
        return call_method(
            r, v, "center",
            a[1].kind == V_MISSING ? &(struct value){ .kind = V_INT, .i = 80 } : &a[1], 1);
    case FILTER_LOWER:
        return qp_text_case(r, v, CASE_LOWER);
    case FILTER_UPPER:
        return qp_text_case(r, v, CASE_UPPER);
    case FILTER_REPLACE:
        return replace_filter(r, a, v);
    case FILTER_STRIPTAGS:
        return striptags_filter(r, v);
    case FILTER_TITLE:
        return title_filter(r, v);
    case FILTER_TRIM:
        if (a[1].kind == V_MISSING || a[1].kind == V_NONE)
            return qp_text_strip(v, NULL, true, true);
        return call_method(r, v, "strip", &a[1], 1);
    default:
        return wordcount_filter(r, v);
    }
}

/* ---- numbers ---- */

/* Could this be a number if it is long, or if its characters beyond ASCII are digits? */
static bool is_like_number(const struct value *v)
{
    for (size_t i = 0; i < v->n; i++)
        if ((uint8_t)v->text[i] < 128 && !strchr("0123456789+-._eE", v->text[i]))
            return false;
    return true;
}

/* The text without underscores between digits and white space around it; false if it cannot be a
 * number of Python. */
static bool number_text(struct run *r, const struct value *v, char out[400], size_t *n)
{
    const struct value text = qp_text_strip(*v, NULL, true, true);
    *n = 0;
    for (size_t i = text.n && text.text[0] == '+'; i < text.n; i++) {
        const char c = text.text[i];
        const bool is_between =
            i > 0 && i + 1 < text.n && text.text[i - 1] != '_' && text.text[i + 1] != '_';
        if (((uint8_t)c >= 128 || *n >= 400) && is_like_number(&text))
            qp_run_refuse(r, "a number that is long or has characters beyond ASCII");
        if ((uint8_t)c >= 128 || *n >= 400 || (c == '_' && !is_between))
            return false;
        if (c != '_')
            out[(*n)++] = c;
    }
    return *n > 0;
}

static int digit_of(char c)
{
    const char *digits = "0123456789abcdefghijklmnopqrstuvwxyz";
    const char *at = c ? strchr(digits, c >= 'A' && c <= 'Z' ? c + 32 : c) : NULL;
    return at ? (int)(at - digits) : 99;
}

/* int(text, base); V_MISSING if the text is not a number. */
static struct value parse_int(struct run *r, const struct value *v, int64_t base)
{
    char digits[400];
    size_t n, i = 0;
    if ((base != 0 && base < 2) || base > 36 || !number_text(r, v, digits, &n))
        return qp_nothing;
    const bool is_negative = digits[0] == '-';
    i = is_negative;
    if (n > i + 2 && digits[i] == '0') {
        const int kind = digit_of(digits[i + 1]), of = kind == 33   ? 16
                                                       : kind == 24 ? 8
                                                       : kind == 11 ? 2
                                                                    : 0;
        if (of && (base == 0 || base == of)) {
            base = of;
            i += 2;
        }
    }
    const bool is_octal_like = base == 0 && n > i + 1 && digits[i] == '0';
    base = base ? base : 10;
    int64_t whole = 0;
    const size_t begin = i;
    for (; i < n; i++) {
        const int digit = digit_of(digits[i]);
        if (digit >= base || (is_octal_like && digit))
            return qp_nothing;
        if (base != 10 && whole > (INT64_MAX - digit) / base)
            return qp_run_refuse(r, "an integer beyond 64 bits");
        whole = base != 10 ? whole * base + digit : 0;
    }
    if (i == begin)
        return qp_nothing;
    return base == 10 ? qp_big_of(r, digits, n) : qp_int(is_negative ? -whole : whole);
}

/* float(text); false if the text is not a number. */
static bool parse_float(struct run *r, const struct value *v, double *f)
{
    char digits[402];
    size_t n, begin;
    if (!number_text(r, v, digits + 1, &n) || digits[1] == '+')
        return false;
    const bool is_negative = digits[1] == '-';
    char *text = digits + 1 + is_negative;
    n -= is_negative;
    static const char *const names[] = { "inf", "infinity", "nan" };
    for (size_t i = 0; i < QP_COUNT(names); i++) {
        begin = 0;
        while (begin < n && (text[begin] | 32) == names[i][begin])
            begin++;
        if (begin == n && !names[i][n]) {
            const double large = 1e308 * 10;
            *f = i == 2 ? large - large : is_negative ? -large : large;
            return true;
        }
    }
    if (n > 0 && text[0] == '.') { // Python reads .5
        *--text = '0';
        n++;
        if (n == 2)
            return false;
    }
    if (n > 0 && text[n - 1] == '.') // and 5.
        n--;
    if (qp_float_parse(text, n, f) != n || n == 0 || text[0] == '-')
        return false;
    *f = is_negative ? -*f : *f;
    return true;
}

static struct value float_to_int(struct run *r, double f)
{
    struct text_out o = { .run = r };
    if (f - f != 0)
        return qp_nothing;
    if (f < 9e18 && f > -9e18)
        return qp_int((int64_t)f);
    qp_float_fixed(&o, f, 0);
    return r->has_failed ? qp_nothing : qp_big_of(r, o.data, o.n);
}

static struct value int_filter(struct run *r, const struct value *a)
{
    int64_t base = 10;
    struct value whole = qp_nothing;
    double f;
    if (a[2].kind != V_MISSING && !qp_index_of(r, &a[2], &base))
        return qp_nothing;
    if (a[0].kind == V_UNDEFINED)
        return qp_fail_undefined(r, &a[0]);
    if (a[0].kind == V_TEXT) {
        whole = parse_int(r, &a[0], base);
        if (whole.kind == V_MISSING && !r->has_failed && parse_float(r, &a[0], &f))
            whole = float_to_int(r, f);
    } else if (a[0].kind == V_FLOAT) {
        if (a[0].f - a[0].f != 0 && a[0].f == a[0].f)
            return qp_run_fail(r, "an infinite float as an integer");
        whole = float_to_int(r, a[0].f);
    } else if (qp_is_int(&a[0]))
        whole = qp_int(a[0].i);
    else if (a[0].kind == V_BIG)
        whole = a[0];
    if (whole.kind == V_MISSING && !r->has_failed)
        whole = a[1].kind == V_MISSING ? qp_int(0) : a[1];
    return whole;
}

static struct value float_filter(struct run *r, const struct value *a)
{
    double f;
    if (a[0].kind == V_UNDEFINED)
        return qp_fail_undefined(r, &a[0]);
    if (qp_is_number(&a[0]))
        return qp_float(qp_number_float(r, &a[0]));
    if (a[0].kind == V_TEXT && parse_float(r, &a[0], &f))
        return qp_float(f);
    return a[1].kind == V_MISSING ? qp_float(0) : a[1];
}

/* f rounded to a number of decimals, as the digits of its exact value say. */
static struct value round_common(struct run *r, double f, int64_t precision)
{
    struct text_out o = { .run = r };
    double rounded = 0;
    if (f - f != 0 || precision > 300)
        return qp_float(f);
    if (precision < 0)
        return qp_run_refuse(r, "round to tens");
    qp_float_fixed(&o, f, (int)precision);
    if (!r->has_failed)
        qp_float_parse(o.data, o.n, &rounded);
    return qp_float(rounded);
}

static struct value round_filter(struct run *r, const struct value *a)
{
    int64_t precision = 0;
    const bool is_ceil = qp_text_is(&a[2], "ceil"), is_floor = qp_text_is(&a[2], "floor");
    if (a[2].kind != V_MISSING && !is_ceil && !is_floor && !qp_text_is(&a[2], "common"))
        return qp_run_fail(r, "the method of round is common, ceil or floor");
    if (a[1].kind != V_MISSING && !qp_index_of(r, &a[1], &precision))
        return qp_nothing;
    if (!qp_is_number(&a[0]))
        return a[0].kind == V_UNDEFINED ? qp_fail_undefined(r, &a[0])
                                        : qp_run_fail(r, "round needs a number");
    if (!is_ceil && !is_floor) {
        if (a[0].kind == V_FLOAT)
            return round_common(r, a[0].f, precision);
        if (precision < 0)
            return qp_run_refuse(r, "round to tens");
        return a[0].kind == V_BOOL ? qp_int(a[0].i) : a[0];
    }
    if (precision < 0 || precision > 15)
        return qp_run_refuse(r, "round with this precision");
    const struct value power = qp_binary(r, OP_POW, qp_int(10), qp_int(precision));
    const struct value product = qp_binary(r, OP_MUL, a[0], power);
    const double f = r->has_failed ? 0 : qp_number_float(r, &product);
    if (!(f < 9e15 && f > -9e15))
        return qp_run_refuse(r, "round of such a large number");
    int64_t whole = (int64_t)f;
    whole += is_ceil ? (double)whole < f : -((double)whole > f);
    return r->has_failed ? qp_nothing : qp_binary(r, OP_DIV, qp_int(whole), power);
}

struct value qp_number_filter(struct run *r, int filter, const struct value *a)
{
    if (filter == FILTER_INT)
        return int_filter(r, a);
    if (filter == FILTER_FLOAT)
        return float_filter(r, a);
    if (filter == FILTER_ROUND)
        return round_filter(r, a);
    if (!qp_is_number(&a[0]))
        return a[0].kind == V_UNDEFINED ? qp_fail_undefined(r, &a[0])
                                        : qp_run_fail(r, "abs needs a number");
    const struct value zero = qp_int(0);
    if (a[0].kind == V_FLOAT)
        return qp_float(a[0].f < 0 || 1 / a[0].f < 0 ? -a[0].f : a[0].f);
    return qp_value_order(r, OP_LT, &a[0], &zero) ? qp_negate(r, a[0])
           : a[0].kind == V_BOOL                  ? qp_int(a[0].i)
                                                  : a[0];
}
