/* byte_level.c: GPT-2's alphabet, which spells the pieces of byte-level BPE.
 * In:  bytes.
 * Out: one character for each byte: printable Latin-1 is unchanged, the other 68 bytes are U+0100
 *      and the following characters. */
#include "tokenizer/tokenizer_impl.h"

static bool is_spelled_as_itself(int byte)
{
    return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

int qp_gpt2_byte(int32_t c)
{
    if (c < 256)
        return c >= 0 && is_spelled_as_itself(c) ? c : -1;
    if (c < 289)
        return c - 256; // 0 to 32
    if (c < 323)
        return c - 289 + 127; // 127 to 160
    return c == 323 ? 173 : -1;
}

static int32_t gpt2_character(int byte)
{
    if (is_spelled_as_itself(byte))
        return byte;
    return byte <= 32 ? 256 + byte : byte <= 160 ? 289 + byte - 127 : 323;
}

bool qp_gpt2_spell(const char *bytes, size_t n, struct bytes *out)
{
    if (!qp_bytes_reserve(out, 2 * n))
        return false;
    for (size_t i = 0; i < n; i++)
        out->n +=
            (size_t)qp_utf8_encode(gpt2_character((uint8_t)bytes[i]), (char *)out->data + out->n);
    return true;
}

void qp_find_byte_tokens(struct tokenizer *t)
{
    for (int byte = 0; byte < 256; byte++) {
        char text[4];
        int n = qp_utf8_encode(gpt2_character(byte), text);
        t->rules->byte_ids[byte] = qp_spm_find(t, text, (size_t)n, false);
    }
}
