/* methods_text.c: the methods of str.
 * In:  a text and the arguments of a method, by the table in methods.c.
 * Out: texts, lists of texts, answers. A text that is marked safe gives safe texts. */
#include "jinja/methods.h"

static const char *find_text(const char *text, size_t n, const struct value *part)
{
    if (part->n == 0)
        return text;
    for (const char *t = text, *end = text + n; (size_t)(end - t) >= part->n; t++) {
        t = memchr(t, part->text[0], (size_t)(end - t) - part->n + 1);
        if (!t || memcmp(t, part->text, part->n) == 0)
            return t;
    }
    return NULL;
}

static const char *find_last(const char *text, size_t n, const struct value *part)
{
    for (size_t i = n; i + 1 > part->n; i--)
        if (memcmp(text + i - part->n, part->text, part->n) == 0)
            return text + i - part->n;
    return NULL;
}

static bool needs_text(struct run *r, const struct value *v)
{
    if (v->kind == V_TEXT)
        return true;
    if (v->kind == V_UNDEFINED)
        qp_fail_undefined(r, v);
    else
        qp_run_fail(r, "expected a text, not a value of type %s", qp_value_type(v));
    return false;
}

/* A text among the arguments of a method of a safe text would be escaped. */
static bool mixes_safe(struct run *r, const struct value *self, const struct value *v)
{
    if (self->is_safe && v->kind == V_TEXT && !v->is_safe) {
        qp_run_refuse(r, "this method of a text that is marked safe");
        return true;
    }
    return false;
}

/* ---- split ---- */

static void put_reversed(struct list_out *o)
{
    for (size_t i = 0, k = o->n; i + 1 < k; i++) {
        const struct value v = o->items[i];
        o->items[i] = o->items[--k];
        o->items[k] = v;
    }
}

static void split_spaces(struct list_out *o, struct value v, int64_t max)
{
    size_t n;
    for (;;) {
        v = qp_text_strip(v, NULL, true, false);
        if (v.n == 0 || o->run->has_failed)
            return;
        if (max >= 0 && (int64_t)o->n == max) {
            qp_list_add(o, v);
            return;
        }
        size_t end = 0;
        while (end < v.n && qp_space_at(v.text + end, v.n - end) == 0)
            end++;
        qp_list_add(o, qp_text_part(v, 0, end));
        n = qp_space_at(v.text + end, v.n - end);
        v = qp_text_part(v, end + n, v.n);
    }
}

static void split_spaces_right(struct list_out *o, struct value v, int64_t max)
{
    for (;;) {
        v = qp_text_strip(v, NULL, false, true);
        if (v.n == 0 || o->run->has_failed)
            break;
        if (max >= 0 && (int64_t)o->n == max) {
            qp_list_add(o, v);
            break;
        }
        size_t begin = v.n;
        while (begin > 0 && qp_space_before(v.text, begin) == 0)
            begin--;
        qp_list_add(o, qp_text_part(v, begin, v.n));
        v = qp_text_part(v, 0, begin);
    }
    put_reversed(o);
}

static struct value text_split(struct run *r, const struct value *self, const struct value *a,
                               bool right)
{
    struct list_out o = { .run = r };
    struct value v = *self;
    int64_t max = -1;
    if (a[1].kind != V_MISSING && !qp_index_of(r, &a[1], &max))
        return qp_nothing;
    if (a[0].kind == V_MISSING || a[0].kind == V_NONE) {
        (right ? split_spaces_right : split_spaces)(&o, v, max);
        return qp_list_of(&o);
    }
    if (!needs_text(r, &a[0]))
        return qp_nothing;
    if (a[0].n == 0)
        return qp_run_fail(r, "split at an empty text");
    while (max < 0 || (int64_t)o.n < max) {
        const char *at = (right ? find_last : find_text)(v.text, v.n, &a[0]);
        if (!at || !qp_run_step(r, 1))
            break;
        const size_t begin = (size_t)(at - v.text), end = begin + a[0].n;
        qp_list_add(&o, right ? qp_text_part(v, end, v.n) : qp_text_part(v, 0, begin));
        v = right ? qp_text_part(v, 0, begin) : qp_text_part(v, end, v.n);
    }
    qp_list_add(&o, v);
    if (right)
        put_reversed(&o);
    return qp_list_of(&o);
}

static struct value text_partition(struct run *r, const struct value *self, const struct value *sep,
                                   bool right)
{
    struct value *parts = qp_run_alloc(r, 3 * sizeof *parts);
    if (!parts || !needs_text(r, sep))
        return qp_nothing;
    if (sep->n == 0)
        return qp_run_fail(r, "partition at an empty text");
    const char *at = (right ? find_last : find_text)(self->text, self->n, sep);
    const size_t begin = at ? (size_t)(at - self->text) : right ? 0 : self->n;
    parts[0] = qp_text_part(*self, 0, begin);
    parts[1] = at ? qp_text_part(*self, begin, begin + sep->n) : qp_text_part(*self, 0, 0);
    parts[2] = qp_text_part(*self, begin + (at ? sep->n : 0), self->n);
    return qp_items(V_TUPLE, parts, 3);
}

/* ---- search ---- */

/* The part of the text that start and end select, in characters. */
static bool text_bounded(struct run *r, const struct value *self, const struct value *a,
                         struct value *part, int64_t *start)
{
    const int64_t n = (int64_t)qp_text_length(self);
    int64_t end = n;
    *start = 0;
    if ((a[1].kind != V_MISSING && a[1].kind != V_NONE && !qp_index_of(r, &a[1], start)) ||
        (a[2].kind != V_MISSING && a[2].kind != V_NONE && !qp_index_of(r, &a[2], &end)))
        return false;
    *start = *start < 0 ? *start + n : *start;
    *start = *start < 0 ? 0 : *start;
    end = end < 0 ? end + n : end > n ? n : end;
    end = end < 0 ? 0 : end;
    if (*start > end)
        return false; // not even an empty text is there
    const size_t from = qp_text_offset(self, (size_t)*start);
    *part = qp_text_part(*self, from, qp_text_offset(self, (size_t)end));
    return true;
}

static struct value text_find(struct run *r, int method, const struct value *self,
                              const struct value *a)
{
    struct value part;
    int64_t start = 0, n = 0;
    const char *at = NULL;
    if (!needs_text(r, &a[0]) || !qp_run_step(r, self->n / 64))
        return qp_nothing;
    if (text_bounded(r, self, a, &part, &start)) {
        const bool right = method == METHOD_RFIND || method == METHOD_RINDEX;
        at = (right ? find_last : find_text)(part.text, part.n, &a[0]);
        if (method == METHOD_COUNT && a[0].n == 0)
            return qp_int((int64_t)qp_text_length(&part) + 1);
        for (const char *t = at; method == METHOD_COUNT && t; n++)
            t = find_text(t + a[0].n, part.n - (size_t)(t + a[0].n - part.text), &a[0]);
    }
    if (r->has_failed || method == METHOD_COUNT)
        return r->has_failed ? qp_nothing : qp_int(n);
    if (!at)
        return method == METHOD_INDEX || method == METHOD_RINDEX
                   ? qp_run_fail(r, "the text is not found")
                   : qp_int(-1);
    const struct value before = qp_text_part(part, 0, (size_t)(at - part.text));
    return qp_int(start + (int64_t)qp_text_length(&before));
}

/* startswith, endswith; the argument is a text or a tuple of texts. */
static struct value text_has_end(struct run *r, bool at_start, const struct value *self,
                                 const struct value *a)
{
    struct value part;
    int64_t start;
    const struct value *wanted = a[0].kind == V_TUPLE ? a[0].items : &a[0];
    const uint32_t n = a[0].kind == V_TUPLE ? a[0].n : 1;
    const bool is_inside = text_bounded(r, self, a, &part, &start);
    for (uint32_t i = 0; i < n; i++) {
        if (!needs_text(r, &wanted[i]))
            return qp_nothing;
        if (!is_inside || wanted[i].n > part.n)
            continue;
        const char *at = at_start ? part.text : part.text + part.n - wanted[i].n;
        if (memcmp(at, wanted[i].text, wanted[i].n) == 0)
            return qp_bool(!r->has_failed);
    }
    return r->has_failed ? qp_nothing : qp_bool(false);
}

static struct value text_affix(struct run *r, bool is_prefix, const struct value *self,
                               const struct value *v)
{
    if (!needs_text(r, v))
        return qp_nothing;
    if (v->n > self->n ||
        memcmp(is_prefix ? self->text : self->text + self->n - v->n, v->text, v->n) != 0)
        return *self;
    return is_prefix ? qp_text_part(*self, v->n, self->n) : qp_text_part(*self, 0, self->n - v->n);
}

static struct value text_replace(struct run *r, const struct value *self, const struct value *a)
{
    struct text_out o = { .run = r };
    struct value rest = *self;
    int64_t count = -1;
    if (!needs_text(r, &a[0]) || !needs_text(r, &a[1]) || mixes_safe(r, self, &a[1]) ||
        (a[2].kind != V_MISSING && !qp_index_of(r, &a[2], &count)))
        return qp_nothing;
    for (bool is_first = true; count != 0 && qp_run_step(r, 1); count--, is_first = false) {
        const char *at = find_text(rest.text, rest.n, &a[0]);
        size_t kept = at ? (size_t)(at - rest.text) : 0;
        if (at && a[0].n == 0 && !is_first) { // an empty text is between all characters
            if (rest.n == 0)
                break;
            kept = qp_text_offset(&rest, 1);
        }
        if (!at)
            break;
        qp_put(&o, rest.text, kept);
        qp_put(&o, a[1].text, a[1].n);
        rest = qp_text_part(rest, kept + a[0].n, rest.n);
    }
    qp_put(&o, rest.text, rest.n);
    struct value text = qp_text_of(&o);
    text.is_safe = self->is_safe;
    return r->has_failed ? qp_nothing : text;
}

/* ---- width ---- */

static struct value text_pad(struct run *r, int method, const struct value *self,
                             const struct value *a)
{
    struct text_out o = { .run = r };
    struct value fill = a[1].kind == V_MISSING ? qp_literal(" ") : a[1];
    int64_t width;
    const int64_t n = (int64_t)qp_text_length(self);
    if (!qp_index_of(r, &a[0], &width) || !needs_text(r, &fill))
        return qp_nothing;
    if (qp_text_length(&fill) != 1)
        return qp_run_fail(r, "the fill character is not one character");
    const int64_t more = width > n ? width - n : 0;
    int64_t left = method == METHOD_RJUST    ? more
                   : method == METHOD_CENTER ? more / 2 + (more & width & 1)
                                             : 0;
    qp_put_fill(&o, fill.text, fill.n, left);
    qp_put(&o, self->text, self->n);
    qp_put_fill(&o, fill.text, fill.n, more - left);
    struct value text = qp_text_of(&o);
    text.is_safe = self->is_safe;
    return r->has_failed ? qp_nothing : text;
}

static struct value text_zfill(struct run *r, const struct value *self, const struct value *a)
{
    struct text_out o = { .run = r };
    int64_t width;
    const int64_t n = (int64_t)qp_text_length(self);
    if (!qp_index_of(r, &a[0], &width))
        return qp_nothing;
    const size_t sign = self->n && (self->text[0] == '-' || self->text[0] == '+');
    qp_put(&o, self->text, sign);
    qp_put_fill(&o, "0", 1, width - n);
    qp_put(&o, self->text + sign, self->n - sign);
    struct value text = qp_text_of(&o);
    text.is_safe = self->is_safe;
    return r->has_failed ? qp_nothing : text;
}

/* ---- classes ---- */

static bool text_is_class(struct run *r, int method, const struct value *self)
{
    if (method == METHOD_ISLOWER || method == METHOD_ISUPPER)
        return qp_text_is_case(r, self, method == METHOD_ISUPPER);
    for (size_t i = 0, n; i < self->n; i += n) {
        int32_t c;
        n = (size_t)qp_utf8_decode(self->text + i, self->n - i, &c);
        const bool is_digit = c >= '0' && c <= '9', is_letter = (c | 32) >= 'a' && (c | 32) <= 'z';
        if (method == METHOD_ISASCII   ? c >= 128
            : method == METHOD_ISSPACE ? qp_space_at(self->text + i, n) == 0
                                       : method == METHOD_ISPRINTABLE && !qp_is_printable(c))
            return false;
        if (method == METHOD_ISASCII || method == METHOD_ISSPACE || method == METHOD_ISPRINTABLE)
            continue;
        if (c >= 128)
            return qp_run_refuse(r, "the class of letters beyond ASCII").i;
        if (method == METHOD_ISALPHA   ? !is_letter
            : method == METHOD_ISALNUM ? !is_letter && !is_digit
                                       : !is_digit)
            return false;
    }
    return self->n > 0 || method == METHOD_ISASCII || method == METHOD_ISPRINTABLE;
}

static struct value text_join(struct run *r, const struct value *self, const struct value *list)
{
    struct text_out o = { .run = r };
    struct iter iter;
    struct value item;
    if (!qp_iter_begin(r, list, &iter))
        return qp_nothing;
    for (size_t i = 0; qp_iter_next(r, &iter, &item); i++) {
        if (!needs_text(r, &item) || mixes_safe(r, self, &item))
            return qp_nothing;
        if (i)
            qp_put(&o, self->text, self->n);
        qp_put(&o, item.text, item.n);
    }
    struct value text = qp_text_of(&o);
    text.is_safe = self->is_safe;
    return r->has_failed ? qp_nothing : text;
}

static struct value text_strip(struct run *r, int method, const struct value *self,
                               const struct value *chars)
{
    const bool has_set = chars->kind != V_MISSING && chars->kind != V_NONE;
    if (has_set && !needs_text(r, chars))
        return qp_nothing;
    return qp_text_strip(*self, has_set ? chars : NULL, method != METHOD_RSTRIP,
                         method != METHOD_LSTRIP);
}

static struct value text_casefold(struct run *r, const struct value *self)
{
    for (uint32_t i = 0; i < self->n; i++)
        if ((uint8_t)self->text[i] >= 128)
            return qp_run_refuse(r, "casefold of letters beyond ASCII");
    return qp_text_case(r, *self, CASE_LOWER);
}

struct value qp_text_method(struct run *r, int method, const struct value *self,
                            const struct value *a)
{
    switch (method) {
    case METHOD_CAPITALIZE:
        return qp_text_case(r, *self, CASE_CAPITALIZE);
    case METHOD_CASEFOLD:
        return text_casefold(r, self);
    case METHOD_LOWER:
        return qp_text_case(r, *self, CASE_LOWER);
    case METHOD_UPPER:
        return qp_text_case(r, *self, CASE_UPPER);
    case METHOD_SWAPCASE:
        return qp_text_case(r, *self, CASE_SWAP);
    case METHOD_TITLE:
        return qp_text_case(r, *self, CASE_TITLE);
    case METHOD_CENTER:
    case METHOD_LJUST:
    case METHOD_RJUST:
        return text_pad(r, method, self, a);
    case METHOD_ZFILL:
        return text_zfill(r, self, a);
    case METHOD_COUNT:
    case METHOD_FIND:
    case METHOD_INDEX:
    case METHOD_RFIND:
    case METHOD_RINDEX:
        return text_find(r, method, self, a);
    case METHOD_STARTSWITH:
    case METHOD_ENDSWITH:
        return text_has_end(r, method == METHOD_STARTSWITH, self, a);
    case METHOD_REMOVEPREFIX:
    case METHOD_REMOVESUFFIX:
        return text_affix(r, method == METHOD_REMOVEPREFIX, self, &a[0]);
    case METHOD_JOIN:
        return text_join(r, self, &a[0]);
    case METHOD_STRIP:
    case METHOD_LSTRIP:
    case METHOD_RSTRIP:
        return text_strip(r, method, self, &a[0]);
    case METHOD_PARTITION:
    case METHOD_RPARTITION:
        return text_partition(r, self, &a[0], method == METHOD_RPARTITION);
    case METHOD_REPLACE:
        return text_replace(r, self, a);
    case METHOD_SPLIT:
    case METHOD_RSPLIT:
        return text_split(r, self, a, method == METHOD_RSPLIT);
    case METHOD_SPLITLINES:
        return qp_split_lines(r, *self, qp_value_truth(r, &a[0]));
    case METHOD_EXPANDTABS:
        return qp_run_refuse(r, "the method expandtabs");
    default:
        return qp_bool(text_is_class(r, method, self));
    }
}
