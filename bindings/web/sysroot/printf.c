/* printf.c: vsnprintf and snprintf.
 * In:  a format and its arguments. README.md lists the conversions.
 * Out: text cut to the buffer and terminated; the length that the whole text has.
 *
 * Decimal digits of a double are exact: the value is expanded to all its digits, then rounded. */
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct text_out {
    char *to;
    size_t size, n; // n counts the characters that are cut, too
};

static void put(struct text_out *out, char c)
{
    if (out->n + 1 < out->size)
        out->to[out->n] = c;
    out->n++;
}

/* One conversion: the part between % and the letter, and the letter. */
struct conversion {
    bool is_left, has_zeros;
    char plus;            // sign of a number that is not negative: '+', ' ' or 0 for none
    int width, precision; // precision -1: not given
    int n_bytes;          // size of an integer argument
    char letter;
};

/* `text` between `sign` (0: none) and the edge of the field. Zeros are put after the sign. */
static void put_field(struct text_out *out, const struct conversion *c, char sign, const char *text,
                      int n)
{
    const int n_padding = c->width - n - (sign != 0);
    for (int i = 0; i < n_padding && !c->is_left && !c->has_zeros; i++)
        put(out, ' ');
    if (sign)
        put(out, sign);
    for (int i = 0; i < n_padding && !c->is_left && c->has_zeros; i++)
        put(out, '0');
    for (int i = 0; i < n; i++)
        put(out, text[i]);
    for (int i = 0; i < n_padding && c->is_left; i++)
        put(out, ' ');
}

/* ---- integers ---- */

enum {
    MAX_PRECISION = 60, // of a number
};

static void put_integer(struct text_out *out, struct conversion *c, uint64_t value,
                        bool is_negative)
{
    const char *digits = c->letter == 'X' ? "0123456789ABCDEF" : "0123456789abcdef";
    const unsigned base = c->letter == 'x' || c->letter == 'X' ? 16 : 10;
    const int n_min = c->precision < 0 ? 1 : c->precision;
    char text[MAX_PRECISION];
    int begin = MAX_PRECISION;
    for (; value || MAX_PRECISION - begin < n_min; value /= base)
        text[--begin] = digits[value % base];
    c->has_zeros = c->has_zeros && c->precision < 0;
    put_field(out, c, is_negative ? '-' : c->plus, text + begin, MAX_PRECISION - begin);
}

/* ---- doubles ---- */

enum {
    GROUP = 1000000000,       // nine digits
    N_WHOLE = 35,             // groups before the point: a double is below 10^309
    N_GROUPS = N_WHOLE + 120, // at most 1074 digits follow the point
    POINT = 9 * N_WHOLE,      // digits[POINT - 1] is the units digit
    N_DIGITS = 9 * N_GROUPS,
    MAX_BODY = 309 + 1 + MAX_PRECISION,
};

/* Fill digits[N_DIGITS] with '0' to '9', so that they are exactly mantissa * 2^exponent. */
static void expand(char *digits, uint64_t mantissa, int exponent)
{
    uint32_t groups[N_GROUPS] = { 0 };
    groups[N_WHOLE - 1] = (uint32_t)(mantissa % GROUP);
    groups[N_WHOLE - 2] = (uint32_t)(mantissa / GROUP);
    for (; exponent > 0; exponent--) {
        uint32_t carry = 0;
        for (int i = N_WHOLE - 1; i >= 0; i--) {
            const uint32_t doubled = 2 * groups[i] + carry;
            carry = doubled >= GROUP;
            groups[i] = doubled - (carry ? GROUP : 0);
        }
    }
    for (; exponent < 0; exponent++) {
        uint32_t rest = 0;
        for (int i = 0; i < N_GROUPS; i++) {
            const uint32_t with_rest = groups[i] + (rest ? GROUP : 0);
            groups[i] = with_rest / 2;
            rest = with_rest % 2;
        }
    }
    for (int i = 0; i < N_GROUPS; i++)
        for (int k = 8; k >= 0; k--, groups[i] /= 10)
            digits[9 * i + k] = (char)('0' + groups[i] % 10);
}

/* Round to the digits before `end`: to nearest, ties to even. The others become zeros. */
static void round_digits(char *digits, int end)
{
    if (end >= N_DIGITS)
        return;
    bool is_up = digits[end] >= '5';
    if (digits[end] == '5' && (digits[end - 1] - '0') % 2 == 0) {
        int i = end + 1;
        while (i < N_DIGITS && digits[i] == '0')
            i++;
        is_up = i < N_DIGITS;
    }
    memset(digits + end, '0', (size_t)(N_DIGITS - end));
    for (int i = end - 1; is_up; i--) {
        is_up = digits[i] == '9';
        digits[i] = is_up ? '0' : (char)(digits[i] + 1);
    }
}

/* Index of the first digit that is not 0; of the units digit for zero. */
static int first_digit(const char *digits)
{
    int i = 0;
    while (i < N_DIGITS && digits[i] == '0')
        i++;
    return i < N_DIGITS ? i : POINT - 1;
}

/* Digits [begin, begin + n_whole + n_fraction) with the point between; returns the length. */
static int write_digits(char *body, const char *digits, int begin, int n_whole, int n_fraction)
{
    int n = 0;
    for (int i = 0; i < n_whole + n_fraction; i++) {
        if (i == n_whole)
            body[n++] = '.';
        body[n++] = begin + i < N_DIGITS ? digits[begin + i] : '0';
    }
    return n;
}

/* "123.450" for %f. */
static int write_fixed(char *body, char *digits, int precision)
{
    round_digits(digits, POINT + precision);
    const int first = first_digit(digits);
    const int begin = first < POINT ? first : POINT - 1;
    return write_digits(body, digits, begin, POINT - begin, precision);
}

/* "1.234e+02" for %e. */
static int write_scientific(char *body, char *digits, int precision)
{
    round_digits(digits, first_digit(digits) + 1 + precision);
    const int first = first_digit(digits); // one to the left if 9.99 became 10.0
    const int exponent = POINT - 1 - first, magnitude = exponent < 0 ? -exponent : exponent;
    int n = write_digits(body, digits, first, 1, precision);
    body[n++] = 'e';
    body[n++] = exponent < 0 ? '-' : '+';
    if (magnitude >= 100)
        body[n++] = (char)('0' + magnitude / 100);
    body[n++] = (char)('0' + magnitude / 10 % 10);
    body[n++] = (char)('0' + magnitude % 10);
    return n;
}

/* %g: the shorter of both forms, with `precision` digits less the zeros at their end. */
static int write_general(char *body, char *digits, int precision)
{
    const int n_digits = precision ? precision : 1;
    round_digits(digits, first_digit(digits) + n_digits);
    const int first = first_digit(digits), exponent = POINT - 1 - first;
    int end = first + n_digits; // of the digits that are shown
    while (end > first + 1 && (end > N_DIGITS || digits[end - 1] == '0'))
        end--;
    if (exponent < -4 || exponent >= n_digits)
        return write_scientific(body, digits, end - first - 1);
    return write_fixed(body, digits, end > POINT ? end - POINT : 0);
}

static void put_double(struct text_out *out, struct conversion *c, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    const char sign = bits >> 63 ? '-' : c->plus;
    const int exponent = (int)(bits >> 52 & 0x7ff), precision = c->precision < 0 ? 6 : c->precision;
    const uint64_t fraction = bits & (((uint64_t)1 << 52) - 1);
    char digits[N_DIGITS], body[MAX_BODY];
    if (exponent == 0x7ff) {
        c->has_zeros = false;
        put_field(out, c, sign, fraction ? "nan" : "inf", 3);
        return;
    }
    if (exponent)
        expand(digits, fraction | (uint64_t)1 << 52, exponent - 1075);
    else
        expand(digits, fraction, -1074); // zero or subnormal
    const int n = c->letter == 'f'   ? write_fixed(body, digits, precision)
                  : c->letter == 'e' ? write_scientific(body, digits, precision)
                                     : write_general(body, digits, precision);
    put_field(out, c, sign, body, n);
}

/* ---- formats ---- */

/* A width or precision: digits or *. */
static int read_count(const char **format, va_list *args)
{
    int n = 0;
    if (**format == '*') {
        ++*format;
        return va_arg(*args, int);
    }
    for (; **format >= '0' && **format <= '9'; ++*format)
        n = n * 10 + (**format - '0');
    return n;
}

static void read_flags(struct conversion *c, const char **format)
{
    for (;; ++*format) {
        if (**format == '-')
            c->is_left = true;
        else if (**format == '0')
            c->has_zeros = true;
        else if (**format == '+' || (**format == ' ' && !c->plus))
            c->plus = **format;
        else if (**format != ' ')
            return;
    }
}

static int read_length(const char **format)
{
    size_t n_bytes = sizeof(int);
    for (char previous = 0; **format && strchr("hljzt", **format); previous = *(*format)++) {
        const char letter = **format;
        if (letter == 'h')
            n_bytes = previous == 'h' ? sizeof(char) : sizeof(short);
        else if (letter == 'l')
            n_bytes = previous == 'l' ? sizeof(long long) : sizeof(long);
        else
            n_bytes = letter == 'j' ? sizeof(intmax_t) : sizeof(size_t);
    }
    return (int)n_bytes;
}

static struct conversion read_conversion(const char **format, va_list *args)
{
    struct conversion c = { .precision = -1 };
    read_flags(&c, format);
    c.width = read_count(format, args);
    if (c.width < 0) {
        c.is_left = true;
        c.width = -c.width;
    }
    if (**format == '.') {
        ++*format;
        c.precision = read_count(format, args);
    }
    c.n_bytes = read_length(format);
    c.letter = **format;
    *format += c.letter != 0;
    return c;
}

static int64_t read_signed(const struct conversion *c, va_list *args)
{
    if (c->n_bytes == sizeof(long long))
        return va_arg(*args, long long);
    const int value = va_arg(*args, int);
    return c->n_bytes == sizeof(char)    ? (signed char)value
           : c->n_bytes == sizeof(short) ? (short)value
                                         : value;
}

static uint64_t read_unsigned(const struct conversion *c, va_list *args)
{
    if (c->n_bytes == sizeof(long long))
        return va_arg(*args, unsigned long long);
    const unsigned value = va_arg(*args, unsigned);
    return c->n_bytes == sizeof(char)    ? (unsigned char)value
           : c->n_bytes == sizeof(short) ? (unsigned short)value
                                         : value;
}

static void put_text(struct text_out *out, struct conversion *c, const char *text)
{
    int n = 0;
    text = text ? text : "(null)";
    while ((c->precision < 0 || n < c->precision) && text[n])
        n++;
    c->has_zeros = false;
    put_field(out, c, 0, text, n);
}

static void put_conversion(struct text_out *out, const char **format, va_list *args)
{
    struct conversion c = read_conversion(format, args);
    const bool is_text = c.letter == 's' || c.letter == 'c';
    if (!is_text && c.precision > MAX_PRECISION)
        c.precision = MAX_PRECISION;
    if (c.letter == 's') {
        put_text(out, &c, va_arg(*args, const char *));
    } else if (c.letter == 'c') {
        const char one = (char)va_arg(*args, int);
        c.has_zeros = false;
        put_field(out, &c, 0, &one, 1);
    } else if (c.letter == 'd' || c.letter == 'i') {
        const int64_t value = read_signed(&c, args);
        put_integer(out, &c, value < 0 ? -(uint64_t)value : (uint64_t)value, value < 0);
    } else if (c.letter == 'u' || c.letter == 'x' || c.letter == 'X') {
        c.plus = 0;
        put_integer(out, &c, read_unsigned(&c, args), false);
    } else if (c.letter == 'e' || c.letter == 'f' || c.letter == 'g') {
        put_double(out, &c, va_arg(*args, double));
    } else if (c.letter) { // %% or a conversion that is not supported
        put(out, c.letter);
    }
}

int vsnprintf(char *restrict to, size_t size, const char *restrict format, va_list given)
{
    const char *at = format;
    struct text_out out = { to, size, 0 };
    va_list args;
    va_copy(args, given);
    while (*at) {
        if (*at++ != '%')
            put(&out, at[-1]);
        else
            put_conversion(&out, &at, &args);
    }
    va_end(args);
    if (size)
        to[out.n < size ? out.n : size - 1] = 0;
    return out.n <= INT_MAX ? (int)out.n : -1;
}

int snprintf(char *restrict to, size_t size, const char *restrict format, ...)
{
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(to, size, format, args);
    va_end(args);
    return n;
}
