/* json_value.c: JSON text to values, as Python's json.loads reads it.
 * In:  JSON; also NaN and Infinity, which Python accepts.
 * Out: values: integers of any length stay integers, keys keep their order, the last of equal keys
 *      counts. Texts are copied only if they have escapes. */
#include "jinja/jinja_impl.h"

struct json_in {
    struct run *run;
    const char *text;
    size_t n, pos;
};

static struct value read_json_fail(struct json_in *in, const char *what)
{
    struct run *r = in->run;
    if (r->has_failed)
        return qp_nothing;
    qp_run_fail(r, "%s", what);
    r->status = QUIP_E_ARGUMENT;
    r->may_retry = false;
    r->message.n = 0;
    if (!qp_bytes_printf(&r->message, "the JSON is not valid at byte %zu: %s", in->pos, what))
        r->status = QUIP_E_MEMORY;
    return qp_nothing;
}

static char value_peek(struct json_in *in)
{
    while (in->pos < in->n && in->text[in->pos] && strchr(" \t\r\n", in->text[in->pos]))
        in->pos++;
    return in->pos < in->n ? in->text[in->pos] : '\0';
}

static int32_t read_json_hex(struct json_in *in)
{
    int32_t c = 0;
    for (int i = 0; i < 4; i++, in->pos++) {
        const char *digits = "0123456789abcdef0123456789ABCDEF";
        const char *at =
            in->pos < in->n && in->text[in->pos] ? strchr(digits, in->text[in->pos]) : NULL;
        if (!at) {
            read_json_fail(in, "expected four hexadecimal digits");
            return -1;
        }
        c = c << 4 | (int32_t)((at - digits) & 15);
    }
    return c;
}

static void read_json_escape(struct json_in *in, struct text_out *o)
{
    const char c = in->pos < in->n ? in->text[in->pos++] : '\0';
    const char *at = c ? strchr("\"\"\\\\//b\bf\fn\nr\rt\t", c) : NULL;
    if (at && c != '\b' && c != '\f' && c != '\n' && c != '\r' && c != '\t') {
        qp_put(o, at + 1, 1);
        return;
    }
    if (c != 'u') {
        read_json_fail(in, "an unknown escape");
        return;
    }
    int32_t code = read_json_hex(in);
    if (code >= 0xd800 && code < 0xdc00 && in->n - in->pos >= 2 && in->text[in->pos] == '\\' &&
        in->text[in->pos + 1] == 'u') {
        in->pos += 2;
        const int32_t low = read_json_hex(in);
        code = low >= 0xdc00 && low < 0xe000 ? 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00)
                                             : 0xd800;
    }
    if (code >= 0xd800 && code < 0xe000)
        read_json_fail(in, "half of a surrogate pair is not a character");
    else if (code >= 0)
        qp_put_char(o, code);
}

static struct value read_json_text(struct json_in *in)
{
    struct text_out o = { .run = in->run };
    size_t begin = ++in->pos;
    bool has_escape = false;
    while (in->pos < in->n && in->text[in->pos] != '"' && !in->run->has_failed) {
        int32_t c;
        if (in->text[in->pos] == '\\') {
            has_escape = true;
            qp_put(&o, in->text + begin, in->pos++ - begin);
            read_json_escape(in, &o);
            begin = in->pos;
            continue;
        }
        const int n = qp_utf8_decode(in->text + in->pos, in->n - in->pos, &c);
        if (c < ' ')
            return read_json_fail(in, c < 0 ? "a text is not valid UTF-8"
                                            : "a control character in a text");
        in->pos += (size_t)n;
    }
    if (in->pos >= in->n)
        return read_json_fail(in, "a text does not end");
    in->pos++;
    if (!has_escape)
        return qp_run_step(in->run, 1) ? qp_text(in->text + begin, in->pos - 1 - begin)
                                       : qp_nothing;
    qp_put(&o, in->text + begin, in->pos - 1 - begin);
    return in->run->has_failed ? qp_nothing : qp_text_of(&o);
}

static struct value read_json_number(struct json_in *in)
{
    const char *text = in->text + in->pos;
    const size_t n = in->n - in->pos;
    double f;
    const size_t length = qp_float_parse(text, n, &f);
    size_t digits = n > 0 && text[0] == '-';
    const bool has_zero = digits + 1 < length && text[digits] == '0' && text[digits + 1] >= '0' &&
                          text[digits + 1] <= '9';
    if (length == 0 || has_zero)
        return read_json_fail(in, "expected a value");
    in->pos += length;
    for (; digits < length; digits++)
        if (text[digits] < '0' || text[digits] > '9')
            return qp_float(f);
    return qp_big_of(in->run, text, length);
}

static struct value read_json_word(struct json_in *in)
{
    static const struct {
        const char *word;
        struct value value;
    } words[] = {
        { "true", { .kind = V_BOOL, .i = 1 } }, { "false", { .kind = V_BOOL } },
        { "null", { .kind = V_NONE } },         { "NaN", { .kind = V_FLOAT } },
        { "Infinity", { .kind = V_FLOAT } },    { "-Infinity", { .kind = V_FLOAT } },
    };
    const double large = 1e308 * 10;
    for (size_t i = 0; i < QP_COUNT(words); i++) {
        const size_t n = strlen(words[i].word);
        if (in->n - in->pos < n || memcmp(in->text + in->pos, words[i].word, n) != 0)
            continue;
        in->pos += n;
        struct value v = words[i].value;
        if (v.kind == V_FLOAT)
            v.f = i == 3 ? large - large : i == 4 ? large : -large;
        return v;
    }
    return read_json_number(in);
}

static struct value read_json_any(struct json_in *in);

static struct value read_json_list(struct json_in *in)
{
    struct list_out o = { .run = in->run };
    in->pos++;
    if (value_peek(in) == ']') {
        in->pos++;
        return qp_list_of(&o);
    }
    for (;;) {
        qp_list_add(&o, read_json_any(in));
        const char c = value_peek(in);
        if (in->run->has_failed || (c != ',' && c != ']'))
            return read_json_fail(in, "expected , or ]");
        in->pos++;
        if (c == ']')
            return qp_list_of(&o);
    }
}

static struct value read_json_object(struct json_in *in)
{
    struct dict *d = qp_dict_new(in->run, 4);
    const struct value object = { .kind = V_DICT, .dict = d };
    in->pos++;
    if (d && value_peek(in) == '}') {
        in->pos++;
        return object;
    }
    while (d) {
        if (value_peek(in) != '"')
            return read_json_fail(in, "expected a key");
        const struct value key = read_json_text(in);
        if (in->run->has_failed || value_peek(in) != ':')
            return read_json_fail(in, "expected :");
        in->pos++;
        const struct value v = read_json_any(in);
        if (in->run->has_failed || !qp_dict_set(in->run, d, key, v))
            break;
        const char c = value_peek(in);
        if (c != ',' && c != '}')
            return read_json_fail(in, "expected , or }");
        in->pos++;
        if (c == '}')
            return object;
    }
    return qp_nothing;
}

static struct value read_json_any(struct json_in *in)
{
    struct value v = qp_nothing;
    struct run *r = in->run;
    const char c = value_peek(in);
    if (++r->depth > MAX_VALUE_DEPTH)
        qp_run_refuse(r, "the JSON is nested too deeply");
    else if (qp_run_step(r, 1)) {
        if (c == '{')
            v = read_json_object(in);
        else if (c == '[')
            v = read_json_list(in);
        else if (c == '"')
            v = read_json_text(in);
        else
            v = read_json_word(in);
    }
    r->depth--;
    return r->has_failed ? qp_nothing : v;
}

struct value qp_value_read(struct run *r, const char *text, size_t n, size_t *pos)
{
    struct json_in in = { .run = r, .text = text, .n = n, .pos = *pos };
    const struct value v = read_json_any(&in);
    value_peek(&in);
    *pos = in.pos;
    return v;
}
