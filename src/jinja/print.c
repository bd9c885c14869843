/* print.c: values as text: str(v), repr(v), JSON, HTML.
 * In:  a value.
 * Out: the text that Python prints; a refusal where that has an address in memory. */
#include "jinja/jinja_impl.h"

static void put_hex(struct text_out *o, const char *prefix, uint32_t c, int digits)
{
    qp_put_text(o, prefix);
    for (int shift = 4 * (digits - 1); shift >= 0; shift -= 4)
        qp_put(o, &"0123456789abcdef"[c >> shift & 15], 1);
}

/* repr of a text: in ' unless it has a ' and no ". */
static void put_quoted(struct text_out *o, const struct value *v)
{
    const bool has_single = v->n && memchr(v->text, '\'', v->n);
    const char quote = has_single && !memchr(v->text, '"', v->n) ? '"' : '\'';
    if (v->is_safe)
        qp_put_text(o, "Markup(");
    qp_put(o, &quote, 1);
    for (size_t i = 0, n; i < v->n && !o->run->has_failed; i += n) {
        int32_t c;
        n = (size_t)qp_utf8_decode(v->text + i, v->n - i, &c);
        if (c == quote || c == '\\') {
            qp_put(o, "\\", 1);
            qp_put(o, v->text + i, 1);
        } else if (c == '\n' || c == '\r' || c == '\t')
            qp_put_text(o, c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t");
        else if (c >= 0 && qp_is_printable(c))
            qp_put(o, v->text + i, n);
        else if (c < 0x100)
            put_hex(o, "\\x", (uint32_t)c & 0xff, 2);
        else
            put_hex(o, c < 0x10000 ? "\\u" : "\\U", (uint32_t)c, c < 0x10000 ? 4 : 8);
    }
    qp_put(o, &quote, 1);
    if (v->is_safe)
        qp_put(o, ")", 1);
}

static void put_array(struct text_out *o, const struct value *v)
{
    qp_put(o, v->kind == V_LIST ? "[" : "(", 1);
    for (uint32_t i = 0; i < v->n && !o->run->has_failed; i++) {
        if (i)
            qp_put(o, ", ", 2);
        qp_put_repr(o, &v->items[i]);
    }
    if (v->kind == V_TUPLE && v->n == 1)
        qp_put(o, ",", 1);
    qp_put(o, v->kind == V_LIST ? "]" : ")", 1);
}

static void put_dict(struct text_out *o, const struct dict *d)
{
    qp_put(o, "{", 1);
    for (uint32_t i = 0; i < d->n && !o->run->has_failed; i++) {
        if (i)
            qp_put(o, ", ", 2);
        qp_put_repr(o, &d->keys[i]);
        qp_put(o, ": ", 2);
        qp_put_repr(o, &d->values[i]);
    }
    qp_put(o, "}", 1);
}

static void put_view(struct text_out *o, const struct value *v)
{
    const struct dict *d = v->dict;
    qp_put_text(o, v->sub == VIEW_KEYS    ? "dict_keys(["
                   : v->sub == VIEW_ITEMS ? "dict_items(["
                                          : "dict_values([");
    for (uint32_t i = 0; i < d->n && !o->run->has_failed; i++) {
        qp_put_text(o, i ? ", " : "");
        if (v->sub == VIEW_ITEMS) {
            const struct value pair[2] = { d->keys[i], d->values[i] };
            const struct value tuple = qp_items(V_TUPLE, pair, 2);
            put_array(o, &tuple);
        } else
            qp_put_repr(o, v->sub == VIEW_KEYS ? &d->keys[i] : &d->values[i]);
    }
    qp_put_text(o, "])");
}

static void put_range(struct text_out *o, const struct int_range *range)
{
    qp_put_text(o, "range(");
    qp_put_int(o, range->start, 0, 0);
    qp_put_text(o, ", ");
    qp_put_int(o, range->stop, 0, 0);
    if (range->step != 1) {
        qp_put_text(o, ", ");
        qp_put_int(o, range->step, 0, 0);
    }
    qp_put(o, ")", 1);
}

static void put_object(struct text_out *o, const struct value *v)
{
    if (v->kind == V_NAMESPACE) {
        qp_put_text(o, "<Namespace ");
        put_dict(o, v->dict);
        qp_put(o, ">", 1);
    } else if (v->kind == V_MACRO) {
        const struct name *name = v->macro->node->name;
        struct value text = qp_text(name ? name->text : "", name ? name->n : 0);
        qp_put_text(o, name ? "<Macro " : "<Macro 'caller'>");
        if (name) {
            put_quoted(o, &text);
            qp_put(o, ">", 1);
        }
    } else if (v->kind == V_LOOP) {
        size_t length;
        qp_value_length(o->run, v, &length);
        qp_put_text(o, "<LoopContext ");
        qp_put_int(o, v->loop->index0 + 1, 0, 0);
        qp_put(o, "/", 1);
        qp_put_int(o, (int64_t)length, 0, 0);
        qp_put(o, ">", 1);
    } else
        qp_run_refuse(o->run, "a value of type %s is printed", qp_value_type(v));
}

static void put_repr_of(struct text_out *o, const struct value *v)
{
    switch (v->kind) {
    case V_UNDEFINED:
        qp_put_text(o, "Undefined");
        break;
    case V_NONE:
        qp_put_text(o, "None");
        break;
    case V_BOOL:
        qp_put_text(o, v->i ? "True" : "False");
        break;
    case V_INT:
        qp_put_int(o, v->i, 0, 0);
        break;
    case V_BIG:
        qp_put(o, v->text, v->n);
        break;
    case V_FLOAT:
        qp_float_repr(o, v->f);
        break;
    case V_TEXT:
        put_quoted(o, v);
        break;
    case V_LIST:
    case V_TUPLE:
        put_array(o, v);
        break;
    case V_DICT:
        put_dict(o, v->dict);
        break;
    case V_VIEW:
        put_view(o, v);
        break;
    case V_RANGE:
        put_range(o, v->range);
        break;
    default:
        put_object(o, v);
    }
}

void qp_put_repr(struct text_out *o, const struct value *v)
{
    if (qp_run_enter(o->run))
        put_repr_of(o, v);
    qp_run_leave(o->run);
}

void qp_put_str(struct text_out *o, const struct value *v)
{
    if (v->kind == V_TEXT)
        qp_put(o, v->text, v->n);
    else if (v->kind != V_UNDEFINED && v->kind != V_MISSING)
        qp_put_repr(o, v);
}

struct value qp_value_str(struct run *r, struct value v)
{
    struct text_out o = { .run = r };
    if (v.kind == V_TEXT)
        return v;
    qp_put_str(&o, &v);
    return r->has_failed ? qp_nothing : qp_text_of(&o);
}

void qp_put_escaped(struct text_out *o, const struct value *v)
{
    const struct value text = qp_value_str(o->run, *v);
    if (text.is_safe) {
        qp_put(o, text.text, text.n);
        return;
    }
    for (size_t i = 0; i < text.n && !o->run->has_failed; i++) {
        const char c = text.text[i];
        const char *escape = c == '&'    ? "&amp;"
                             : c == '<'  ? "&lt;"
                             : c == '>'  ? "&gt;"
                             : c == '\'' ? "&#39;"
                             : c == '"'  ? "&#34;"
                                         : NULL;
        if (escape)
            qp_put_text(o, escape);
        else
            qp_put(o, &c, 1);
    }
}

/* ---- JSON ---- */

void qp_put_json_text(struct text_out *o, const struct value *v, bool is_ascii)
{
    size_t kept = 0; // text[kept, i) is written as it is
    qp_put(o, "\"", 1);
    for (size_t i = 0, n; i < v->n && !o->run->has_failed; i += n) {
        int32_t c;
        n = (size_t)qp_utf8_decode(v->text + i, v->n - i, &c);
        if (c < 0) {
            qp_put(o, v->text + kept, i - kept);
            qp_put_text(o, "\xef\xbf\xbd");
            kept = i + n;
            continue;
        }
        if (c >= ' ' && c != '"' && c != '\\' && (c < 0x7f || !is_ascii))
            continue;
        qp_put(o, v->text + kept, i - kept);
        kept = i + n;
        const char *at = c > 0 && c < 128 ? strchr("\"\"\\\\\bb\ff\nn\rr\tt", c) : NULL;
        if (at) {
            qp_put(o, "\\", 1);
            qp_put(o, at[0] == at[1] ? at : at + 1, 1);
        } else if (c < 0x10000)
            put_hex(o, "\\u", (uint32_t)c, 4);
        else {
            put_hex(o, "\\u", 0xd800 + (((uint32_t)c - 0x10000) >> 10), 4);
            put_hex(o, "\\u", 0xdc00 + ((uint32_t)c & 0x3ff), 4);
        }
    }
    qp_put(o, v->text + kept, v->n - kept);
    qp_put(o, "\"", 1);
}

static void put_json_at(struct text_out *o, const struct value *v, const struct json_style *style,
                        int depth);

static void put_line(struct text_out *o, const struct json_style *style, int depth)
{
    if (!style->is_indented)
        return;
    qp_put(o, "\n", 1);
    qp_put_fill(o, style->indent.text, style->indent.n, depth);
}

static void put_json_key(struct text_out *o, const struct value *key,
                         const struct json_style *style)
{
    if (key->kind == V_TEXT) {
        qp_put_json_text(o, key, style->is_ascii);
        return;
    }
    if (!qp_is_number(key) && key->kind != V_NONE)
        qp_run_fail(o->run, "a key of type %s cannot be written as JSON", qp_value_type(key));
    qp_put(o, "\"", 1);
    put_json_at(o, key, style, 0);
    qp_put(o, "\"", 1);
}

static void put_json_dict(struct text_out *o, const struct value *v, const struct json_style *style,
                          int depth)
{
    const struct dict *d = v->dict;
    struct run *r = o->run;
    struct value order = qp_items(V_LIST, d->keys, d->n);
    if (style->is_sorted)
        order = qp_sorted(r, order, d->keys, false);
    for (uint32_t i = 0; i < d->n && !r->has_failed; i++) {
        if (i)
            qp_put(o, style->item_separator.text, style->item_separator.n);
        put_line(o, style, depth + 1);
        put_json_key(o, &order.items[i], style);
        qp_put(o, style->key_separator.text, style->key_separator.n);
        const int64_t at = style->is_sorted ? qp_dict_find(r, d, &order.items[i]) : i;
        if (!r->has_failed)
            put_json_at(o, &d->values[at], style, depth + 1);
    }
}

static void put_json_scalar(struct text_out *o, const struct value *v,
                            const struct json_style *style)
{
    if (v->kind == V_TEXT)
        qp_put_json_text(o, v, style->is_ascii);
    else if (v->kind == V_NONE || v->kind == V_BOOL)
        qp_put_text(o, v->kind == V_NONE ? "null" : v->i ? "true" : "false");
    else if (v->kind == V_FLOAT && v->f - v->f != 0)
        qp_put_text(o, v->f != v->f ? "NaN" : v->f < 0 ? "-Infinity" : "Infinity");
    else if (qp_is_number(v))
        qp_put_repr(o, v);
    else
        qp_run_fail(o->run, "a value of type %s cannot be written as JSON", qp_value_type(v));
}

static void put_json_at(struct text_out *o, const struct value *v, const struct json_style *style,
                        int depth)
{
    const bool is_dict = v->kind == V_DICT;
    if (!is_dict && !qp_is_array(v)) {
        put_json_scalar(o, v, style);
        return;
    }
    const uint32_t n = is_dict ? v->dict->n : v->n;
    qp_put(o, is_dict ? "{" : "[", 1);
    if (qp_run_enter(o->run) && is_dict)
        put_json_dict(o, v, style, depth);
    for (uint32_t i = 0; !is_dict && i < n && !o->run->has_failed; i++) {
        if (i)
            qp_put(o, style->item_separator.text, style->item_separator.n);
        put_line(o, style, depth + 1);
        put_json_at(o, &v->items[i], style, depth + 1);
    }
    qp_run_leave(o->run);
    if (n)
        put_line(o, style, depth);
    qp_put(o, is_dict ? "}" : "]", 1);
}

void qp_put_json(struct text_out *o, const struct value *v, const struct json_style *style)
{
    put_json_at(o, v, style, 0);
}
