/* decimal.c: decimal numbers in text, as JSON spells them, in every locale.
 * The value is correctly rounded for up to 15 digits and exponents from -22 to 22. */
#include "base.h"

#include <assert.h>

static bool is_digit(const char *text, size_t n, size_t i)
{
    return i < n && text[i] >= '0' && text[i] <= '9';
}

/* mantissa * 10^exponent. Powers of ten up to 22 are exact as double. */
static double scale_by_ten(double mantissa, int exponent)
{
    static const double powers[] = { 1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                     1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                     1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22 };
    for (; exponent > 22; exponent -= 22)
        mantissa *= 1e22;
    for (; exponent < -22; exponent += 22)
        mantissa /= 1e22;
    return exponent < 0 ? mantissa / powers[-exponent] : mantissa * powers[exponent];
}

size_t qp_decimal_parse(const char *text, size_t n, double *value)
{
    assert(text && value);
    const bool is_negative = n > 0 && text[0] == '-';
    size_t i = is_negative;
    double mantissa = 0;
    int exponent = 0;
    if (!is_digit(text, n, i))
        return 0;
    for (; is_digit(text, n, i); i++)
        mantissa = mantissa * 10 + (text[i] - '0');
    if (i < n && text[i] == '.') {
        if (!is_digit(text, n, ++i))
            return 0;
        for (; is_digit(text, n, i); i++, exponent--)
            mantissa = mantissa * 10 + (text[i] - '0');
    }
    if (i < n && (text[i] == 'e' || text[i] == 'E')) {
        int written = 0;
        i++;
        const bool is_small = i < n && text[i] == '-';
        i += i < n && (text[i] == '-' || text[i] == '+');
        if (!is_digit(text, n, i))
            return 0;
        for (; is_digit(text, n, i); i++)
            written = written < 1000 ? written * 10 + (text[i] - '0') : written;
        exponent += is_small ? -written : written;
    }
    mantissa = scale_by_ten(mantissa, exponent);
    *value = is_negative ? -mantissa : mantissa;
    return i;
}
