/* float.c: floats to decimal and back, exactly, as Python's repr, float and round do.
 * In:  a double, or decimal digits.
 * Out: the shortest digits that read as the same double (Steele and White 1990, with the scaling of
 *      Burger and Dybvig 1996); the double nearest to some digits.
 *
 * Integers of up to 4096 bits are enough: a double has at most 1074 binary places. */
#include "jinja/jinja_impl.h"

enum {
    WIDE_WORDS = 136,
    MAX_DIGITS = 768 // significant digits of a number that is read; the rest can only break a tie
};

struct wide {
    int n; // words in use
    uint32_t w[WIDE_WORDS];
};

static void wide_set(struct wide *x, uint64_t value)
{
    x->n = 2;
    x->w[0] = (uint32_t)value;
    x->w[1] = (uint32_t)(value >> 32);
    while (x->n > 0 && x->w[x->n - 1] == 0)
        x->n--;
}

static void wide_mul_add(struct wide *x, uint32_t factor, uint32_t more)
{
    uint64_t carry = more;
    for (int i = 0; i < x->n; i++) {
        carry += (uint64_t)x->w[i] * factor;
        x->w[i] = (uint32_t)carry;
        carry >>= 32;
    }
    if (carry && x->n < WIDE_WORDS)
        x->w[x->n++] = (uint32_t)carry;
}

static void wide_mul_ten(struct wide *x, int n)
{
    for (; n >= 9; n -= 9)
        wide_mul_add(x, 1000000000, 0);
    for (; n > 0; n--)
        wide_mul_add(x, 10, 0);
}

static void wide_shift(struct wide *x, int bits)
{
    const int words = bits / 32;
    if (x->n == 0)
        return;
    wide_mul_add(x, (uint32_t)1 << bits % 32, 0);
    assert(x->n + words <= WIDE_WORDS);
    memmove(x->w + words, x->w, (size_t)x->n * sizeof x->w[0]);
    memset(x->w, 0, (size_t)words * sizeof x->w[0]);
    x->n += words;
}

static int wide_compare(const struct wide *x, const struct wide *y)
{
    if (x->n != y->n)
        return x->n < y->n ? -1 : 1;
    for (int i = x->n - 1; i >= 0; i--)
        if (x->w[i] != y->w[i])
            return x->w[i] < y->w[i] ? -1 : 1;
    return 0;
}

static void wide_add(struct wide *x, const struct wide *y)
{
    uint64_t carry = 0;
    for (int i = 0; i < y->n || carry || i < x->n; i++) {
        carry += (i < x->n ? x->w[i] : 0) + (uint64_t)(i < y->n ? y->w[i] : 0);
        x->w[i] = (uint32_t)carry;
        carry >>= 32;
        if (i >= x->n)
            x->n = i + 1;
    }
}

static void wide_sub(struct wide *x, const struct wide *y) // x >= y
{
    int64_t borrow = 0;
    for (int i = 0; i < x->n; i++) {
        borrow += (int64_t)x->w[i] - (i < y->n ? y->w[i] : 0);
        x->w[i] = (uint32_t)borrow;
        borrow >>= 32;
    }
    while (x->n > 0 && x->w[x->n - 1] == 0)
        x->n--;
}

static int wide_bits(const struct wide *x)
{
    int bits = (x->n - 1) * 32;
    for (uint32_t top = x->n ? x->w[x->n - 1] : 0; top; top >>= 1)
        bits++;
    return x->n ? bits : 0;
}

/* |f| = mantissa * 2^exponent, for a finite f. */
static uint64_t float_parts(double f, int *exponent)
{
    uint64_t bits;
    memcpy(&bits, &f, sizeof bits);
    const int biased = (int)(bits >> 52 & 0x7ff);
    *exponent = (biased ? biased : 1) - 1075;
    return (bits & 0xfffffffffffff) | (biased ? (uint64_t)1 << 52 : 0);
}

/* ---- reading ---- */

/* 64 significant bits of top / bottom become a double; the quotient is q * 2^exponent, and is_more
 * says that it is a little larger. */
static double compose_float(uint64_t q, int exponent, bool is_more)
{
    int drop = 11; // of the 64 bits, 53 stay
    if (exponent + drop < -1074)
        drop = -1074 - exponent;
    if (drop > 64)
        return 0;
    uint64_t kept = drop == 64 ? 0 : q >> drop;
    const uint64_t rest = drop == 64 ? q : q & (((uint64_t)1 << drop) - 1);
    const uint64_t half = (uint64_t)1 << (drop - 1);
    if (rest > half || (rest == half && (is_more || (kept & 1))))
        kept++;
    int power = exponent + drop;
    if (kept >> 53) {
        kept >>= 1;
        power++;
    }
    uint64_t bits = kept;
    if (kept >> 52) {
        if (power + 1075 >= 0x7ff)
            bits = (uint64_t)0x7ff << 52;
        else
            bits = (kept & 0xfffffffffffff) | (uint64_t)(power + 1075) << 52;
    }
    double f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* top * 10^exponent, exactly rounded. */
static double round_decimal(struct wide *top, int exponent)
{
    struct wide bottom;
    wide_set(&bottom, 1);
    wide_mul_ten(exponent > 0 ? top : &bottom, exponent > 0 ? exponent : -exponent);
    int shift = 64 - (wide_bits(top) - wide_bits(&bottom)); // the quotient has 64 or 65 bits
    wide_shift(shift > 0 ? top : &bottom, shift > 0 ? shift : -shift);
    wide_shift(&bottom, 64);
    uint64_t q = 0;
    bool is_more = false;
    int bits = 0;
    for (int i = 64; i >= 0 && bits < 64; i--) { // long division, one bit at a time
        const bool one = wide_compare(top, &bottom) >= 0;
        if (one)
            wide_sub(top, &bottom);
        q = q << 1 | one;
        bits += bits > 0 || one;
        if (bits == 64) {
            shift -= i;
            break;
        }
        wide_shift(top, 1);
    }
    is_more = top->n > 0;
    return compose_float(q, -shift, is_more);
}

static size_t scan_digits(const char *text, size_t n, size_t i)
{
    while (i < n && text[i] >= '0' && text[i] <= '9')
        i++;
    return i;
}

/* The value of [digits][.digits][e[sign]digits], which is text[0, n). */
static double decimal_value(const char *text, size_t n)
{
    struct wide top;
    wide_set(&top, 0);
    int n_digits = 0, exponent = 0, written = 0;
    bool is_fraction = false, is_small = false;
    size_t i = 0;
    for (; i < n && text[i] != 'e' && text[i] != 'E'; i++) {
        if (text[i] == '.') {
            is_fraction = true;
            continue;
        }
        exponent -= is_fraction;
        if (n_digits == 0 && text[i] == '0')
            continue;
        if (n_digits < MAX_DIGITS)
            wide_mul_add(&top, 10, (uint32_t)(text[i] - '0'));
        else
            exponent++;
        n_digits++;
    }
    for (i += i < n; i < n; i++) {
        is_small |= text[i] == '-';
        if (text[i] >= '0' && text[i] <= '9' && written < 100000)
            written = written * 10 + (text[i] - '0');
    }
    exponent += is_small ? -written : written;
    const int used = n_digits < MAX_DIGITS ? n_digits : MAX_DIGITS;
    if (top.n == 0 || used + exponent < -330)
        return 0;
    if (used + exponent > 310)
        return 1e308 * 10;
    return round_decimal(&top, exponent);
}

size_t qp_float_parse(const char *text, size_t n, double *f)
{
    const size_t begin = n > 0 && text[0] == '-';
    size_t i = scan_digits(text, n, begin), next;
    if (i == begin)
        return 0;
    if (i + 1 < n && text[i] == '.' && (next = scan_digits(text, n, i + 1)) > i + 1)
        i = next;
    if (i + 1 < n && (text[i] == 'e' || text[i] == 'E')) {
        const size_t digits = i + 1 + (text[i + 1] == '-' || text[i + 1] == '+');
        if ((next = scan_digits(text, n, digits)) > digits)
            i = next;
    }
    const double value = decimal_value(text + begin, i - begin);
    *f = begin ? -value : value;
    return i;
}

/* ---- the shortest digits ---- */

struct shortest {
    struct wide r, s, above, below; // the value is r / s, its neighbors are above and below it
};

static void wide_ten(struct shortest *x)
{
    wide_mul_add(&x->r, 10, 0);
    wide_mul_add(&x->above, 10, 0);
    wide_mul_add(&x->below, 10, 0);
}

static int compare_sum(const struct wide *x, const struct wide *y, const struct wide *z)
{
    struct wide sum = *x;
    wide_add(&sum, y);
    return wide_compare(&sum, z);
}

/* Digits of f > 0, with the decimal point before digits[*point]. Returns how many. */
static int shortest_digits(double f, char digits[20], int *point)
{
    int exponent, n = 0;
    const uint64_t mantissa = float_parts(f, &exponent);
    const bool is_even = mantissa % 2 == 0;
    const int wide_gap = mantissa == (uint64_t)1 << 52 && exponent > -1074; // it is nearer below
    struct shortest x;
    wide_set(&x.r, mantissa);
    const int bits = wide_bits(&x.r);
    wide_set(&x.s, 1);
    wide_set(&x.below, 1);
    wide_shift(&x.r, 1 + wide_gap + (exponent > 0 ? exponent : 0));
    wide_shift(&x.s, 1 + wide_gap + (exponent < 0 ? -exponent : 0));
    wide_shift(&x.below, exponent > 0 ? exponent : 0);
    x.above = x.below;
    wide_shift(&x.above, wide_gap);
    const double log10 = (exponent + bits - 1) * 0.30102999566398120;
    *point = (int)(log10 + 400 - 1e-10) - 400 + 1;
    if (*point >= 0)
        wide_mul_ten(&x.s, *point);
    else {
        wide_mul_ten(&x.r, -*point);
        wide_mul_ten(&x.above, -*point);
        wide_mul_ten(&x.below, -*point);
    }
    if (compare_sum(&x.r, &x.above, &x.s) >= !is_even)
        ++*point; // the estimate was one too small
    else
        wide_ten(&x);
    for (;;) {
        int digit = 0;
        for (; wide_compare(&x.r, &x.s) >= 0; digit++)
            wide_sub(&x.r, &x.s);
        const bool low = wide_compare(&x.r, &x.below) < is_even;
        const bool high = compare_sum(&x.r, &x.above, &x.s) >= !is_even;
        if (low || high) {
            const int half = low && high ? compare_sum(&x.r, &x.r, &x.s) : 0;
            const bool up = low && high ? half > 0 || (half == 0 && digit % 2) : high;
            digits[n++] = (char)('0' + digit + up);
            return n;
        }
        digits[n++] = (char)('0' + digit);
        wide_ten(&x);
    }
}

/* repr(f) */
void qp_float_repr(struct text_out *o, double f)
{
    char digits[20] = "0";
    int n = 1, point = 1;
    if (f != f) {
        qp_put_text(o, "nan");
        return;
    }
    uint64_t bits;
    memcpy(&bits, &f, sizeof bits);
    if (bits >> 63)
        qp_put(o, "-", 1);
    if (f - f != 0) {
        qp_put_text(o, "inf");
        return;
    }
    if (f != 0)
        n = shortest_digits(f, digits, &point);
    if (point > -4 && point <= 16) {
        for (int i = point < 1 ? point - 1 : 0; i < n || i <= point; i++) {
            if (i == point)
                qp_put(o, ".", 1);
            qp_put(o, i >= 0 && i < n ? &digits[i] : "0", 1);
        }
        return;
    }
    qp_put(o, digits, 1);
    if (n > 1) {
        qp_put(o, ".", 1);
        qp_put(o, digits + 1, (size_t)n - 1);
    }
    qp_put_text(o, point - 1 < 0 ? "e-" : "e+");
    qp_put_int(o, point - 1 < 0 ? 1 - point : point - 1, 2, '0');
}

/* ---- a fixed number of decimals ---- */

/* x / 2^bits, rounded half to even. */
static void wide_round(struct wide *x, int bits)
{
    struct wide half, rest = *x;
    const int words = bits / 32;
    if (words >= x->n)
        x->n = 0;
    else {
        memmove(x->w, x->w + words, (size_t)(x->n - words) * sizeof x->w[0]);
        x->n -= words;
    }
    uint64_t carry = 0;
    for (int i = x->n - 1; i >= 0; i--) {
        const uint64_t word = carry << 32 | x->w[i];
        x->w[i] = (uint32_t)(word >> bits % 32);
        carry = word & (((uint64_t)1 << bits % 32) - 1);
    }
    while (x->n > 0 && x->w[x->n - 1] == 0)
        x->n--;
    struct wide whole = *x;
    wide_shift(&whole, bits);
    wide_sub(&rest, &whole);
    wide_set(&half, 1);
    wide_shift(&half, bits - 1);
    const int order = wide_compare(&rest, &half);
    if (order > 0 || (order == 0 && x->n && (x->w[0] & 1))) {
        wide_set(&half, 1);
        wide_add(x, &half);
    }
}

/* f with this many decimals; 0: an integer. f must be finite. */
void qp_float_fixed(struct text_out *o, double f, int n_decimals)
{
    struct wide x;
    int exponent, n = 0;
    char digits[800];
    wide_set(&x, float_parts(f, &exponent));
    wide_mul_ten(&x, n_decimals);
    if (exponent > 0)
        wide_shift(&x, exponent);
    else if (exponent < 0)
        wide_round(&x, -exponent);
    while (x.n > 0 && n < (int)sizeof digits) { // from the last digit
        uint64_t rest = 0;
        for (int i = x.n - 1; i >= 0; i--) {
            rest = rest << 32 | x.w[i];
            x.w[i] = (uint32_t)(rest / 10);
            rest %= 10;
        }
        digits[n++] = (char)('0' + rest);
        while (x.n > 0 && x.w[x.n - 1] == 0)
            x.n--;
    }
    while (n <= n_decimals)
        digits[n++] = '0';
    if (f < 0 || 1 / f < 0)
        qp_put(o, "-", 1);
    while (n > 0) {
        if (n == n_decimals)
            qp_put(o, ".", 1);
        qp_put(o, &digits[--n], 1);
    }
}
