/* printf.c: vsnprintf for the builds with 64-bit memory, as far as the library's messages and names
 * go: %s %d %i %u %x %X %c %g %%, with flag 0, width, precision and the lengths h l ll j z t.
 * In:  a format and its arguments. Out: text cut to the buffer, always terminated, and the length
 * it would have had. */
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct text_out {
    char *to;
    size_t size, n; // n counts also what does not fit
};

static void put(struct text_out *out, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++, out->n++)
        if (out->n + 1 < out->size)
            out->to[out->n] = text[i];
}

static void put_padded(struct text_out *out, const char *text, int n, int width, char padding)
{
    for (int i = n; i < width; i++)
        put(out, &padding, 1);
    put(out, text, (size_t)n);
}

static void put_number(struct text_out *out, uint64_t value, bool is_negative, unsigned base,
                       const char *digits, int width, bool with_zeros)
{
    char text[24];
    int at = sizeof text;
    do
        text[--at] = digits[value % base];
    while (value /= base);
    if (is_negative)
        text[--at] = '-';
    put_padded(out, text + at, (int)sizeof text - at, width, with_zeros ? '0' : ' ');
}

/* %g of the numbers that options have: six decimals, without the zeros at their end; from 1e9 on
 * as 1e9 times the rest. */
static void put_double(struct text_out *out, double value)
{
    if (value != value) {
        put(out, "nan", 3);
        return;
    }
    if (value < 0) {
        put(out, "-", 1);
        value = -value;
    }
    if (value > 1e300) {
        put(out, "inf", 3);
        return;
    }
    int exponent = 0;
    for (; value >= 1e9; exponent++)
        value /= 10;
    for (; value > 0 && value < 1e-4; exponent--)
        value *= 10;
    uint64_t millionths = (uint64_t)(value * 1e6 + 0.5);
    put_number(out, millionths / 1000000, false, 10, "0123456789", 0, false);
    millionths %= 1000000;
    if (millionths) {
        int n_digits = 6;
        for (; millionths % 10 == 0; n_digits--)
            millionths /= 10;
        put(out, ".", 1);
        put_number(out, millionths, false, 10, "0123456789", n_digits, true);
    }
    if (exponent) {
        put(out, "e", 1);
        put_number(out, (uint64_t)(exponent < 0 ? -exponent : exponent), exponent < 0, 10,
                   "0123456789", 0, false);
    }
}

/* One conversion: what stands between % and its letter. */
struct conversion {
    bool with_zeros;
    int width, precision; // precision -1: none
    int n_bytes;          // of an integer
};

/* Digits or * of a width or precision. */
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

static struct conversion read_conversion(const char **format, va_list *args)
{
    struct conversion c = { .precision = -1, .n_bytes = sizeof(int) };
    for (; **format == '0'; ++*format)
        c.with_zeros = true;
    c.width = read_count(format, args);
    if (**format == '.') {
        ++*format;
        c.precision = read_count(format, args);
    }
    for (; **format && strchr("hljzt", **format); ++*format) {
        const bool is_long_long = **format == 'j' || (**format == 'l' && (*format)[1] == 'l');
        if (is_long_long)
            c.n_bytes = sizeof(long long);
        else if (**format != 'h' && c.n_bytes < (int)sizeof(long))
            c.n_bytes = sizeof(long);
    }
    return c;
}

static void put_text(struct text_out *out, const struct conversion *c, const char *text)
{
    size_t n = 0;
    text = text ? text : "(null)";
    while ((c->precision < 0 || n < (size_t)c->precision) && text[n])
        n++;
    put_padded(out, text, (int)n, c->width, ' ');
}

static void put_conversion(struct text_out *out, const char **format, va_list *args)
{
    const struct conversion c = read_conversion(format, args);
    const bool is_wide = c.n_bytes == sizeof(long long);
    const char letter = **format;
    ++*format;
    if (letter == 'd' || letter == 'i') {
        const int64_t value = is_wide ? va_arg(*args, long long) : va_arg(*args, int);
        put_number(out, value < 0 ? -(uint64_t)value : (uint64_t)value, value < 0, 10, "0123456789",
                   c.width, c.with_zeros);
    } else if (letter == 'u' || letter == 'x' || letter == 'X') {
        const uint64_t value =
            is_wide ? va_arg(*args, unsigned long long) : va_arg(*args, unsigned);
        put_number(out, value, false, letter == 'u' ? 10 : 16,
                   letter == 'X' ? "0123456789ABCDEF" : "0123456789abcdef", c.width, c.with_zeros);
    } else if (letter == 's') {
        put_text(out, &c, va_arg(*args, const char *));
    } else if (letter == 'c') {
        const char one = (char)va_arg(*args, int);
        put_padded(out, &one, 1, c.width, ' ');
    } else if (letter == 'g' || letter == 'f') {
        put_double(out, va_arg(*args, double));
    } else {
        put(out, &letter, 1);
    }
}

int vsnprintf(char *restrict to, size_t size, const char *restrict text, va_list given)
{
    const char *format = text;
    struct text_out out = { to, size, 0 };
    va_list args;
    va_copy(args, given);
    while (*format) {
        if (*format != '%') {
            put(&out, format++, 1);
            continue;
        }
        format++;
        put_conversion(&out, &format, &args);
    }
    va_end(args);
    if (size)
        to[out.n < size ? out.n : size - 1] = 0;
    return (int)out.n;
}

int snprintf(char *restrict to, size_t size, const char *restrict format, ...)
{
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(to, size, format, args);
    va_end(args);
    return n;
}
