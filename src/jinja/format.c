/* format.c: text % values and text.format(...).
 * In:  a format and values.
 * Out: text, as Python formats it; a refusal for what is not used in templates. */
#include "jinja/jinja_impl.h"

struct spec {
    struct value fill;
    char align; // '<', '>', '^', '=' or 0
    char sign;  // '+', '-', ' ' or 0
    bool is_alternative, has_comma;
    int64_t width, precision; // precision -1: none
    char type;                // 0: none
};

static void put_digits(struct text_out *o, uint64_t i, unsigned base, bool is_upper)
{
    char digits[64];
    int n = 0;
    do
        digits[n++] = (is_upper ? "0123456789ABCDEF" : "0123456789abcdef")[i % base];
    while (i /= base);
    while (n > 0)
        qp_put(o, &digits[--n], 1);
}

/* The digits of a number without its sign. */
static void put_magnitude(struct text_out *o, const struct spec *s, const struct value *v)
{
    const char type = s->type ? s->type : v->kind == V_FLOAT ? 'r' : 'd';
    if (type == 'r') {
        qp_float_repr(o, v->f < 0 ? -v->f : v->f);
        return;
    }
    if (type == 'f' || type == 'F') {
        const double f = qp_number_float(o->run, v);
        if (f - f != 0 || s->precision > 300)
            qp_run_refuse(o->run, "this number as %%f");
        else
            qp_float_fixed(o, f < 0 || 1 / f < 0 ? -f : f,
                           s->precision < 0 ? 6 : (int)s->precision);
        if (s->is_alternative && s->precision == 0)
            qp_put(o, ".", 1);
        return;
    }
    const unsigned base = type == 'd' || type == 'i' || type == 'u' ? 10
                          : type == 'x' || type == 'X'              ? 16
                          : type == 'o'                             ? 8
                          : type == 'b'                             ? 2
                                                                    : 0;
    if (!base || v->kind == V_BIG || ((s->is_alternative || s->has_comma) && base != 10))
        qp_run_refuse(o->run, "the format of a number as %c", type);
    else if (v->kind == V_FLOAT)
        qp_run_fail(o->run, "the format %c is for integers", type);
    else
        put_digits(o, v->i < 0 ? 0 - (uint64_t)v->i : (uint64_t)v->i, base, type == 'X');
}

/* Copy digits with a comma between groups of three before the point. */
static struct value with_commas(struct run *r, struct value digits)
{
    struct text_out o = { .run = r };
    size_t whole = 0;
    while (whole < digits.n && digits.text[whole] >= '0' && digits.text[whole] <= '9')
        whole++;
    for (size_t i = 0; i < digits.n; i++) {
        if (i > 0 && i < whole && (whole - i) % 3 == 0)
            qp_put(&o, ",", 1);
        qp_put(&o, digits.text + i, 1);
    }
    return qp_text_of(&o);
}

static void put_padded(struct text_out *o, const struct spec *s, const char *sign,
                       struct value body, char align)
{
    const int64_t n = (int64_t)(strlen(sign) + qp_text_length(&body));
    const int64_t more = s->width > n ? s->width - n : 0;
    const int64_t left = align == '<' ? 0 : align == '^' ? more / 2 : more;
    if (align == '=')
        qp_put_text(o, sign);
    qp_put_fill(o, s->fill.text, s->fill.n, left);
    if (align != '=')
        qp_put_text(o, sign);
    qp_put(o, body.text, body.n);
    qp_put_fill(o, s->fill.text, s->fill.n, more - left);
}

static bool is_negative(const struct value *v)
{
    if (v->kind == V_FLOAT)
        return v->f < 0 || (v->f == 0 && 1 / v->f < 0);
    return v->kind == V_BIG ? v->text[0] == '-' : v->i < 0;
}

static void put_number(struct text_out *o, const struct spec *s, const struct value *v)
{
    struct text_out digits = { .run = o->run };
    put_magnitude(&digits, s, v);
    if (o->run->has_failed)
        return;
    struct value body = qp_text_of(&digits);
    if (s->has_comma)
        body = with_commas(o->run, body);
    const char plus[2] = { s->sign == '-' ? '\0' : s->sign, '\0' };
    put_padded(o, s, is_negative(v) ? "-" : plus, body, s->align ? s->align : '>');
}

static void put_text_field(struct text_out *o, const struct spec *s, struct value v)
{
    if (s->precision >= 0)
        v = qp_text_part(v, 0, qp_text_offset(&v, (size_t)s->precision));
    put_padded(o, s, "", v, s->align ? s->align : '<');
}

static int64_t read_number(const struct value *f, size_t *i, int64_t absent)
{
    int64_t number = absent;
    for (bool is_first = true; *i < f->n && f->text[*i] >= '0' && f->text[*i] <= '9';
         ++*i, is_first = false)
        number = (is_first             ? 0
                  : number < 100000000 ? number
                                       : 100000000) *
                     10 +
                 (f->text[*i] - '0');
    return number;
}

static char char_at(const struct value *f, size_t i)
{
    return i < f->n ? f->text[i] : '\0';
}

/* ---- text % values ---- */

static struct value repr_of(struct run *r, const struct value *v)
{
    struct text_out o = { .run = r };
    qp_put_repr(&o, v);
    return qp_text_of(&o);
}

static void put_percent(struct text_out *o, struct spec *s, char type, const struct value *v)
{
    if (type == 's' || type == 'r') {
        s->align = s->align == '<' ? '<' : '>';
        s->fill = qp_literal(" ");
        put_text_field(o, s, type == 's' ? qp_value_str(o->run, *v) : repr_of(o->run, v));
        return;
    }
    if (!qp_is_number(v)) {
        if (v->kind == V_UNDEFINED)
            qp_fail_undefined(o->run, v);
        qp_run_fail(o->run, "%%%c needs a number", type);
        return;
    }
    struct value number = *v;
    if (v->kind == V_FLOAT && strchr("diu", type)) {
        if (!(v->f < 9e18 && v->f > -9e18))
            qp_run_refuse(o->run, "such a large float as %%d");
        else
            number = qp_int((int64_t)v->f);
    }
    if (s->precision >= 0 && type != 'f' && type != 'F')
        qp_run_refuse(o->run, "a precision of %%%c", type);
    s->type = type;
    put_number(o, s, &number);
}

struct value qp_format_percent(struct run *r, const struct value *format, struct value args)
{
    struct text_out o = { .run = r };
    const bool is_tuple = args.kind == V_TUPLE;
    const struct value *values = is_tuple ? args.items : &args;
    const uint32_t n = is_tuple ? args.n : 1;
    uint32_t used = 0;
    if (format->is_safe)
        return qp_run_refuse(r, "%% of a text that is marked safe");
    for (size_t i = 0; i < format->n && qp_run_step(r, 1); i++) {
        if (format->text[i] != '%') {
            qp_put(&o, format->text + i, 1);
            continue;
        }
        struct spec s = { .fill = qp_literal(" "), .precision = -1 };
        for (char c; (c = char_at(format, i + 1)) && strchr("-+ 0#", c); i++) {
            s.align = c == '-' ? '<' : c == '0' && s.align != '<' ? '=' : s.align;
            s.sign = c == '+' ? '+' : c == ' ' && s.sign != '+' ? ' ' : s.sign;
            s.is_alternative |= c == '#';
        }
        s.fill = qp_literal(s.align == '=' ? "0" : " ");
        i++;
        s.width = read_number(format, &i, 0);
        if (char_at(format, i) == '.') {
            i++;
            s.precision = read_number(format, &i, 0);
        }
        const char type = char_at(format, i);
        if (type == '%' && format->text[i - 1] == '%')
            qp_put(&o, "%", 1);
        else if (!type || !strchr("srdiufFxXo", type))
            qp_run_refuse(r, "the format %%%c", type ? type : ' ');
        else if (used >= n)
            qp_run_fail(r, "a format has more conversions than values");
        else
            put_percent(&o, &s, type, &values[used++]);
    }
    if (used < n && (is_tuple || (args.kind != V_DICT && args.kind != V_LIST &&
                                  args.kind != V_RANGE && args.kind != V_UNDEFINED)))
        qp_run_fail(r, "a format has fewer conversions than values");
    return r->has_failed ? qp_nothing : qp_text_of(&o);
}

/* ---- text.format(...) ---- */

static bool read_spec(struct run *r, struct value f, struct spec *s)
{
    size_t i = 0;
    bool has_fill = false;
    *s = (struct spec){ .fill = qp_literal(" "), .precision = -1 };
    const size_t first = qp_text_offset(&f, 1);
    if (f.n > first && strchr("<>^=", f.text[first])) {
        s->fill = qp_text_part(f, 0, first);
        s->align = f.text[first];
        has_fill = true;
        i = first + 1;
    } else if (f.n && strchr("<>^=", f.text[0]))
        s->align = f.text[i++];
    if (char_at(&f, i) == '+' || char_at(&f, i) == '-' || char_at(&f, i) == ' ')
        s->sign = f.text[i++];
    if (char_at(&f, i) == '#') {
        s->is_alternative = true;
        i++;
    }
    if (char_at(&f, i) == '0' && !has_fill) {
        s->fill = qp_literal("0");
        s->align = s->align ? s->align : '=';
    }
    s->width = read_number(&f, &i, 0);
    if (char_at(&f, i) == ',') {
        s->has_comma = true;
        i++;
    }
    if (char_at(&f, i) == '.') {
        i++;
        s->precision = read_number(&f, &i, 0);
    }
    if (i < f.n)
        s->type = f.text[i++];
    if (i < f.n)
        qp_run_refuse(r, "the format specification '%.*s'", (int)(f.n < 60 ? f.n : 60), f.text);
    return !r->has_failed;
}

static void put_field(struct text_out *o, struct value v, char conversion, struct value spec)
{
    struct run *r = o->run;
    struct spec s;
    if (conversion)
        v = conversion == 'r' ? repr_of(r, &v) : qp_value_str(r, v);
    if (r->has_failed)
        return;
    if (spec.n == 0) {
        qp_put_str(o, &v);
        return;
    }
    if (!read_spec(r, spec, &s))
        return;
    if (v.kind == V_TEXT && (s.type == 's' || !s.type) && s.align != '=' && !s.has_comma &&
        !s.sign && !s.is_alternative)
        put_text_field(o, &s, v);
    else if (qp_is_number(&v) && !(v.kind == V_FLOAT && (!s.type && s.precision >= 0)) &&
             !(v.kind != V_FLOAT && s.precision >= 0 && s.type != 'f') &&
             !(s.has_comma && s.align == '='))
        put_number(o, &s, &v);
    else if (v.kind == V_UNDEFINED)
        qp_fail_undefined(r, &v);
    else
        qp_run_refuse(r, "this format specification for a value of type %s", qp_value_type(&v));
}

/* The value of "name", "0.name[key]" or "". */
static struct value field_value(struct run *r, const struct args *args, struct value name,
                                int64_t *next)
{
    size_t end = 0;
    while (end < name.n && name.text[end] != '.' && name.text[end] != '[')
        end++;
    const struct value first = qp_text_part(name, 0, end);
    struct value v = qp_nothing;
    size_t i = 0;
    const int64_t number = read_number(&first, &i, -1);
    if (first.n && i < first.n) {
        for (size_t k = 0; k < args->n_keywords; k++)
            if (qp_text_same(&args->keywords[k].key, &first))
                v = args->keywords[k].value;
    } else {
        if (*next != 0 && (number < 0) != (*next > 0))
            return qp_run_fail(r, "a format mixes numbered and plain fields");
        const int64_t at = number >= 0 ? number : *next;
        *next = number >= 0 ? -1 : *next + 1;
        if (at >= 0 && at < (int64_t)args->n)
            v = args->positional[at];
    }
    if (v.kind == V_MISSING)
        return qp_run_fail(r, "a format names a value that is not there");
    while (end < name.n && !r->has_failed) {
        const bool is_item = name.text[end++] == '[';
        const size_t begin = end;
        while (end < name.n &&
               (is_item ? name.text[end] != ']' : name.text[end] != '.' && name.text[end] != '['))
            end++;
        struct value key = qp_text_part(name, begin, end);
        i = 0;
        const int64_t index = read_number(&key, &i, -1);
        if (is_item && index >= 0 && i == key.n)
            key = qp_int(index);
        v = is_item ? qp_get_item(r, &v, &key) : qp_get_attr(r, &v, &key);
        end += is_item;
    }
    return v;
}

struct value qp_format_braces(struct run *r, const struct value *format, const struct args *args)
{
    struct text_out o = { .run = r };
    int64_t next = 0;
    if (format->is_safe)
        return qp_run_refuse(r, "format of a text that is marked safe");
    for (size_t i = 0; i < format->n && qp_run_step(r, 1); i++) {
        const char c = format->text[i];
        if ((c != '{' && c != '}') || char_at(format, i + 1) == c) {
            qp_put(&o, &c, 1);
            i += c == '{' || c == '}';
            continue;
        }
        size_t end = i + 1, colon, bang;
        while (end < format->n && format->text[end] != '}' && format->text[end] != '{')
            end++;
        if (c == '}' || end >= format->n)
            return qp_run_fail(r, "a format has a single brace");
        if (format->text[end] == '{')
            return qp_run_refuse(r, "a field inside a field of a format");
        for (colon = i + 1; colon < end && format->text[colon] != ':';)
            colon++;
        for (bang = i + 1; bang < colon && format->text[bang] != '!';)
            bang++;
        const char conversion = bang < colon ? char_at(format, bang + 1) : '\0';
        if (bang < colon && (colon - bang != 2 || !strchr("rs", conversion)))
            return qp_run_refuse(r, "this conversion of a format");
        const struct value v = field_value(r, args, qp_text_part(*format, i + 1, bang), &next);
        put_field(&o, v, conversion, qp_text_part(*format, colon < end ? colon + 1 : end, end));
        i = end;
    }
    return r->has_failed ? qp_nothing : qp_text_of(&o);
}
