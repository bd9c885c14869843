/* number.c: Python's arithmetic.
 * In:  two values.
 * Out: a value; a failure where Python raises an error; a refusal where an integer leaves 64 bits.
 */
#include "jinja/jinja_impl.h"

#include <math.h>

/* An integer from its digits, with an optional minus. */
struct value qp_big_of(struct run *r, const char *digits, size_t n)
{
    struct text_out o = { .run = r };
    const bool is_negative = n > 0 && digits[0] == '-';
    size_t begin = is_negative;
    uint64_t whole = 0;
    while (begin + 1 < n && digits[begin] == '0')
        begin++;
    if (n - begin <= 18) {
        for (size_t i = begin; i < n; i++)
            whole = whole * 10 + (uint64_t)(digits[i] - '0');
        return qp_int(is_negative ? -(int64_t)whole : (int64_t)whole);
    }
    if (n - begin == 19) {
        for (size_t i = begin; i < n; i++)
            whole = whole * 10 + (uint64_t)(digits[i] - '0');
        if (whole <= INT64_MAX)
            return qp_int(is_negative ? -(int64_t)whole : (int64_t)whole);
    }
    if (is_negative)
        qp_put(&o, "-", 1);
    qp_put(&o, digits + begin, n - begin);
    struct value big = qp_text_of(&o);
    big.kind = V_BIG;
    return r->has_failed ? qp_nothing : big;
}

double qp_number_float(struct run *r, const struct value *v)
{
    double f = 0;
    if (v->kind == V_FLOAT)
        return v->f;
    if (v->kind == V_BIG)
        qp_float_parse(v->text, v->n, &f);
    else
        f = (double)v->i;
    if (f - f != 0)
        qp_run_fail(r, "the integer is too large for a float");
    return f;
}

bool qp_index_of(struct run *r, const struct value *v, int64_t *i)
{
    if (qp_is_int(v))
        *i = v->i;
    else if (v->kind == V_BIG)
        *i = v->text[0] == '-' ? INT64_MIN / 4 : INT64_MAX / 4;
    else {
        if (v->kind == V_UNDEFINED)
            qp_fail_undefined(r, v);
        else
            qp_run_fail(r, "a value of type %s is not an integer", qp_value_type(v));
        return false;
    }
    if (*i > INT64_MAX / 4)
        *i = INT64_MAX / 4;
    if (*i < INT64_MIN / 4)
        *i = INT64_MIN / 4;
    return true;
}

static struct value too_large(struct run *r)
{
    return qp_run_refuse(r, "an integer beyond 64 bits is calculated");
}

static struct value divide_ints(struct run *r, enum operator op, int64_t a, int64_t b)
{
    if (b == 0)
        return qp_run_fail(r, "division by zero");
    if (a == INT64_MIN && b == -1)
        return too_large(r);
    int64_t q = a / b, rest = a % b;
    if (rest != 0 && (rest < 0) != (b < 0)) { // rounded down
        q--;
        rest += b;
    }
    return qp_int(op == OP_MOD ? rest : q);
}

static struct value power_ints(struct run *r, int64_t a, int64_t b)
{
    int64_t power = 1;
    const bool is_inverse = b < 0;
    if (is_inverse && a == 0)
        return qp_run_fail(r, "zero to a negative power");
    if (b != 0 && (a == 0 || a == 1 || a == -1))
        b = b % 2 == 0 ? 2 : 1;
    for (b = b < 0 ? -b : b; b > 0; b--) {
        if (power > INT64_MAX / (a < 0 ? -a
                                 : a   ? a
                                       : 1) ||
            power < -(INT64_MAX / (a < 0 ? -a
                                   : a   ? a
                                         : 1)))
            return too_large(r);
        power *= a;
    }
    if (!is_inverse)
        return qp_int(power);
    if (power > (int64_t)1 << 53 || power < -((int64_t)1 << 53))
        return too_large(r);
    return qp_float(1.0 / (double)power);
}

static struct value ints_of(struct run *r, enum operator op, int64_t a, int64_t b)
{
    const int64_t most = (int64_t)1 << 53;
    switch (op) {
    case OP_ADD:
        return (b > 0 ? a > INT64_MAX - b : a < INT64_MIN - b) ? too_large(r) : qp_int(a + b);
    case OP_SUB:
        return (b < 0 ? a > INT64_MAX + b : a < INT64_MIN + b) ? too_large(r) : qp_int(a - b);
    case OP_MUL: {
        const uint64_t x = a < 0 ? 0 - (uint64_t)a : (uint64_t)a;
        const uint64_t y = b < 0 ? 0 - (uint64_t)b : (uint64_t)b;
        return y && x > (uint64_t)INT64_MAX / y ? too_large(r) : qp_int(a * b);
    }
    case OP_DIV:
        if (b == 0)
            return qp_run_fail(r, "division by zero");
        if (a > most || a < -most || b > most || b < -most)
            return too_large(r);
        return qp_float((double)a / (double)b);
    case OP_POW:
        return power_ints(r, a, b);
    default:
        return divide_ints(r, op, a, b);
    }
}

/* The remainder of a / b with the sign of a, exactly: by subtracting b * 2^k. */
static double remainder_of(double a, double b)
{
    double x = a < 0 ? -a : a, y = b < 0 ? -b : b;
    if (y - y != 0)
        return a;
    while (x >= y) {
        double part = y;
        while (part <= x / 2)
            part *= 2;
        x -= part;
    }
    return a < 0 ? -x : x;
}

static double round_down(double f)
{
    if (f >= 4503599627370496.0 || f <= -4503599627370496.0)
        return f;
    const double whole = (double)(int64_t)f;
    return whole > f ? whole - 1 : whole == 0 && f < 0 ? -0.0 : whole;
}

/* Python's float_divmod. */
static struct value divide_floats(struct run *r, enum operator op, double a, double b)
{
    if (b == 0)
        return qp_run_fail(r, "division by zero");
    if (a - a != 0 || b != b)
        return qp_float(a - a);
    double rest = remainder_of(a, b);
    double q = (a - rest) / b;
    if (rest != 0) {
        if ((b < 0) != (rest < 0)) {
            rest += b;
            q -= 1.0;
        }
    } else
        rest = b < 0 ? -0.0 : 0.0;
    if (op == OP_MOD)
        return qp_float(rest);
    if (q == 0) {
        const double quotient = a / b; // the zero has its sign
        return qp_float(quotient < 0 || 1 / quotient < 0 ? -0.0 : 0.0);
    }
    const double whole = round_down(q);
    return qp_float(q - whole > 0.5 ? whole + 1.0 : whole);
}

static struct value power_floats(struct run *r, double a, double b)
{
    if (b == 0 || a == 1)
        return qp_float(1);
    if (b == 2 && a * a - a * a != 0 && a - a == 0)
        return qp_run_fail(r, "the result is too large for a float");
    if (b == 1 || b == 2 || b == -1)
        return a == 0 && b < 0 ? qp_run_fail(r, "zero to a negative power")
                               : qp_float(b == 1   ? a
                                          : b == 2 ? a * a
                                                   : 1 / a);
    if (b == 0.5 && a > 0)
        return qp_float(sqrt(a)); // IEEE 754 defines each bit of it
    return qp_run_refuse(r, "this power of a float");
}

static struct value floats_of(struct run *r, enum operator op, double a, double b)
{
    switch (op) {
    case OP_ADD:
        return qp_float(a + b);
    case OP_SUB:
        return qp_float(a - b);
    case OP_MUL:
        return qp_float(a * b);
    case OP_DIV:
        return b == 0 ? qp_run_fail(r, "division by zero") : qp_float(a / b);
    case OP_POW:
        return power_floats(r, a, b);
    default:
        return divide_floats(r, op, a, b);
    }
}

static struct value numbers_of(struct run *r, enum operator op, const struct value *a,
                               const struct value *b)
{
    if (a->kind == V_FLOAT || b->kind == V_FLOAT) {
        const double x = qp_number_float(r, a), y = qp_number_float(r, b);
        return r->has_failed ? qp_nothing : floats_of(r, op, x, y);
    }
    if (a->kind == V_BIG || b->kind == V_BIG)
        return too_large(r);
    return ints_of(r, op, a->i, b->i);
}

static struct value repeat(struct run *r, const struct value *v, int64_t n)
{
    if (n <= 0 || v->n == 0)
        return qp_text_part(*v, 0, 0);
    if (v->kind == V_TEXT) {
        struct text_out o = { .run = r };
        qp_put_fill(&o, v->text, v->n, n);
        struct value text = qp_text_of(&o);
        text.is_safe = v->is_safe;
        return text;
    }
    struct list_out o = { .run = r };
    for (int64_t i = 0; i < n && !r->has_failed; i++)
        for (uint32_t k = 0; k < v->n; k++)
            qp_list_add(&o, v->items[k]);
    struct value list = qp_list_of(&o);
    list.kind = r->has_failed ? V_MISSING : v->kind;
    return list;
}

static struct value no_operator(struct run *r, enum operator op, const struct value *a,
                                const struct value *b)
{
    static const char *const names[] = {
        [OP_ADD] = "+",        [OP_SUB] = "-", [OP_MUL] = "*", [OP_DIV] = "/",
        [OP_FLOOR_DIV] = "//", [OP_MOD] = "%", [OP_POW] = "**"
    };
    if (a->kind == V_UNDEFINED || b->kind == V_UNDEFINED)
        return qp_fail_undefined(r, a->kind == V_UNDEFINED ? a : b);
    return qp_run_fail(r, "%s is not possible for values of type %s and %s", names[op],
                       qp_value_type(a), qp_value_type(b));
}

struct value qp_binary(struct run *r, enum operator op, struct value a, struct value b)
{
    if (qp_is_number(&a) && qp_is_number(&b))
        return numbers_of(r, op, &a, &b);
    if (op == OP_ADD && a.kind == V_TEXT && b.kind == V_TEXT)
        return qp_text_join(r, a, b);
    if (op == OP_ADD && qp_is_array(&a) && a.kind == b.kind)
        return qp_array_join(r, a, b);
    if (op == OP_MOD && a.kind == V_TEXT)
        return qp_format_percent(r, &a, b);
    if (op == OP_MUL && qp_is_int(&b) && (a.kind == V_TEXT || qp_is_array(&a)))
        return repeat(r, &a, b.i);
    if (op == OP_MUL && qp_is_int(&a) && (b.kind == V_TEXT || qp_is_array(&b)))
        return repeat(r, &b, a.i);
    if (a.kind == V_VIEW && b.kind == V_VIEW && op == OP_SUB)
        return qp_run_refuse(r, "the difference of the keys of two dicts");
    return no_operator(r, op, &a, &b);
}

struct value qp_negate(struct run *r, struct value a)
{
    if (a.kind == V_FLOAT)
        return qp_float(-a.f);
    if (qp_is_int(&a))
        return a.i == INT64_MIN ? too_large(r) : qp_int(-a.i);
    if (a.kind == V_BIG && a.text[0] == '-') {
        a = qp_text_part(a, 1, a.n);
        return a;
    }
    if (a.kind == V_BIG) {
        struct text_out o = { .run = r };
        qp_put(&o, "-", 1);
        qp_put(&o, a.text, a.n);
        return qp_big_of(r, o.data, o.n);
    }
    if (a.kind == V_UNDEFINED)
        return qp_fail_undefined(r, &a);
    return qp_run_fail(r, "- is not possible for a value of type %s", qp_value_type(&a));
}
