/* utf8.c: characters of UTF-8 text (RFC 3629).
 * In:  any bytes.
 * Out: scalar values; each malformed byte is reported on its own. */
#include "base.h"

#include <assert.h>

/* What a lead byte says: the length of the character, and the range of its second byte. That range
 * excludes overlong forms, surrogates and values above 10FFFF. Length 0: not a lead byte. */
struct utf8_lead {
    int length;
    uint8_t second_min, second_max;
};

static struct utf8_lead utf8_lead(uint8_t byte)
{
    if (byte < 0x80)
        return (struct utf8_lead){ 1, 0, 0 };
    if (byte >= 0xc2 && byte <= 0xdf)
        return (struct utf8_lead){ 2, 0x80, 0xbf };
    if (byte >= 0xe0 && byte <= 0xef)
        return (struct utf8_lead){ 3, byte == 0xe0 ? 0xa0 : 0x80, byte == 0xed ? 0x9f : 0xbf };
    if (byte >= 0xf0 && byte <= 0xf4)
        return (struct utf8_lead){ 4, byte == 0xf0 ? 0x90 : 0x80, byte == 0xf4 ? 0x8f : 0xbf };
    return (struct utf8_lead){ 0, 0, 0 };
}

/* How many bytes at the start of text[0, n) are a well-formed character or the beginning of one. */
static int well_formed_bytes(const char *text, size_t n, struct utf8_lead lead)
{
    const uint8_t *t = (const uint8_t *)text;
    int i = 1;
    for (; i < lead.length && (size_t)i < n; i++) {
        uint8_t min = i == 1 ? lead.second_min : 0x80;
        uint8_t max = i == 1 ? lead.second_max : 0xbf;
        if (t[i] < min || t[i] > max)
            break;
    }
    return i;
}

int qp_utf8_decode(const char *text, size_t n, int32_t *c)
{
    assert(n > 0);
    struct utf8_lead lead = utf8_lead((uint8_t)text[0]);
    if (lead.length == 0 || well_formed_bytes(text, n, lead) < lead.length) {
        *c = -1;
        return 1;
    }
    static const uint8_t lead_bits[5] = { 0, 0x7f, 0x1f, 0x0f, 0x07 };
    int32_t value = (uint8_t)text[0] & lead_bits[lead.length];
    for (int i = 1; i < lead.length; i++)
        value = value << 6 | ((uint8_t)text[i] & 0x3f);
    *c = value;
    return lead.length;
}

int qp_utf8_encode(int32_t c, char out[4])
{
    assert(c >= 0 && c <= 0x10ffff);
    static const uint8_t marks[5] = { 0, 0, 0xc0, 0xe0, 0xf0 };
    int length = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (int i = length - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (c & 0x3f));
        c >>= 6;
    }
    out[0] = (char)(marks[length] | c);
    return length;
}

size_t qp_utf8_complete(const char *text, size_t n)
{
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        const char *t = text + n - back;
        struct utf8_lead lead = utf8_lead((uint8_t)*t);
        if (lead.length == 0)
            continue;
        bool is_begun = (size_t)lead.length > back && well_formed_bytes(t, back, lead) == (int)back;
        return is_begun ? n - back : n;
    }
    return n;
}
