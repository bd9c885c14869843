/* encoding.c: makes texts of users UTF-8.
 * In:  bytes of files, of standard input and of the command line.
 * Out: UTF-8. UTF-16 with a mark is converted. Everything else is refused: it would be answered as
 *      replacement characters. */
#include "cli.h"

#include <string.h>

static bool append_character(struct bytes *to, uint32_t c)
{
    char text[4];
    return qp_bytes_append(to, text, (size_t)qp_utf8_encode((int32_t)c, text));
}

/* UTF-16 after its mark, low byte first or last, as UTF-8. */
static bool convert_utf16(struct bytes *text, bool is_big, const char *where)
{
    struct bytes out = { 0 };
    bool is_fine = true;
    uint32_t high = 0; // the first half of a pair
    for (size_t i = 2; i + 1 < text->n && is_fine; i += 2) {
        const uint32_t u = is_big ? (uint32_t)text->data[i] << 8 | text->data[i + 1]
                                  : (uint32_t)text->data[i + 1] << 8 | text->data[i];
        const bool is_low = u >= 0xdc00 && u < 0xe000;
        if (is_low != (high != 0))
            break;
        if (u >= 0xd800 && u < 0xdc00) {
            high = u;
            continue;
        }
        is_fine =
            append_character(&out, is_low ? 0x10000 + ((high - 0xd800) << 10) + (u - 0xdc00) : u);
        high = 0;
        if (i + 3 >= text->n && text->n % 2 == 0) { // all of it
            qp_bytes_close(text);
            *text = out;
            return true;
        }
    }
    const bool is_empty = text->n == 2;
    qp_bytes_close(&out);
    if (is_empty)
        text->n = 0;
    else if (is_fine)
        fail("%s begins like UTF-16, but is not; save it as UTF-8", where);
    else
        fail("%s: out of memory", where);
    return is_empty;
}

/* The first byte that is not a character of UTF-8, or is a NUL; n if there is none. */
static size_t first_wrong_byte(const char *text, size_t n)
{
    int32_t c = 1;
    size_t i = 0, n_bytes = 0;
    while (i < n && (n_bytes = (size_t)qp_utf8_decode(text + i, n - i, &c)) && c > 0)
        i += n_bytes;
    return i;
}

bool is_utf8(const char *text, size_t n)
{
    return first_wrong_byte(text, n) == n;
}

bool check_utf8(const char *text, size_t n, const char *where)
{
    const size_t i = first_wrong_byte(text, n);
    if (i == n)
        return true;
    fail(text[i]
             ? "%s is not UTF-8: byte %zu is 0x%02x; convert it, for example with iconv -f latin1 "
               "-t utf-8"
             : "%s is not a text: byte %zu is 0x%02x",
         where, i, (unsigned char)text[i]);
    return false;
}

bool is_utf16(const struct bytes *text)
{
    const uint8_t *b = text->data;
    return text->n >= 2 && ((b[0] == 0xff && b[1] == 0xfe) || (b[0] == 0xfe && b[1] == 0xff));
}

bool to_utf8(struct bytes *text, const char *where)
{
    const uint8_t *b = text->data;
    if (is_utf16(text))
        return convert_utf16(text, b[0] == 0xfe, where);
    if (text->n >= 3 && memcmp(b, "\xef\xbb\xbf", 3) == 0) {
        memmove(text->data, b + 3, text->n - 3);
        text->n -= 3;
    }
    return check_utf8((const char *)text->data, text->n, where);
}

void cut_line_end(struct bytes *text)
{
    if (text->n > 0 && text->data[text->n - 1] == '\n')
        text->n -= 1 + (text->n > 1 && text->data[text->n - 2] == '\r');
}
