/* normalizer.c: what SentencePiece does to a text before it looks for pieces.
 * In:  any bytes.
 * Out: the normalized text. At each position it is the first of these that applies: the longest
 *      user-defined piece, unchanged; the longest rule of the charsmap; one character; U+FFFD for
 *      one malformed byte. Spaces become U+2581.
 *
 * Most text consists of plain bytes, which are copied in runs. */
#include "tokenizer/tokenizer_impl.h"
#include "tokenizer/unicode.h"

#include <assert.h>

/* ---- the charsmap: a double-array trie as Darts-clone writes it ---- */

static uint32_t read_u32(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint32_t trie_unit(const struct normalizer *z, uint32_t node)
{
    return node < z->n_units ? read_u32(z->charsmap + (size_t)node * 4) : 0;
}

static uint32_t unit_offset(uint32_t unit)
{
    return (unit >> 10) << ((unit & 0x200) >> 6);
}

/* Length of the longest rule that text[0, n) begins with; 0 for none. *value is the offset of its
 * replacement in the pool. */
static size_t find_rule(const struct normalizer *z, const char *text, size_t n, uint32_t *value)
{
    if (z->n_units == 0)
        return 0;
    size_t longest = 0;
    uint32_t node = unit_offset(trie_unit(z, 0));
    for (size_t i = 0; i < n; i++) {
        node ^= (uint8_t)text[i];
        uint32_t unit = trie_unit(z, node);
        if ((unit & 0x800000ffu) != (uint8_t)text[i] || node >= z->n_units)
            break;
        node ^= unit_offset(unit);
        if (unit & 0x100) {
            longest = i + 1;
            *value = trie_unit(z, node) & 0x7fffffffu;
        }
    }
    return *value < z->n_pool ? longest : 0;
}

static bool begins_rule(const struct normalizer *z, uint8_t byte)
{
    uint32_t node = unit_offset(trie_unit(z, 0)) ^ byte;
    return z->n_units > 0 && node < z->n_units && (trie_unit(z, node) & 0x800000ffu) == byte;
}

quip_status qp_normalizer_open(struct normalizer *z, const uint8_t *charsmap, size_t n,
                               const struct trie *user_defined, quip_error *error)
{
    if (n > 0) {
        uint32_t n_trie = n >= 4 ? read_u32(charsmap) : 0;
        if (n < 4 || n_trie > n - 4 || n_trie % 4 != 0)
            return qp_fail(error, QUIP_E_FORMAT,
                           "tokenizer: the charsmap has %zu bytes, too few for a trie of %u", n,
                           n_trie);
        z->charsmap = charsmap + 4;
        z->n_units = n_trie / 4;
        z->pool = (const char *)charsmap + 4 + n_trie;
        z->n_pool = (uint32_t)(n - 4 - n_trie);
        if (z->n_pool == 0 || z->pool[z->n_pool - 1] != '\0')
            return qp_fail(error, QUIP_E_FORMAT,
                           "tokenizer: expected a NUL at the end of the charsmap's strings");
    }
    for (int b = 0; b < 128; b++)
        z->plain[b] = b != ' ' && !user_defined->first[b] && !begins_rule(z, (uint8_t)b);
    return QUIP_OK;
}

/* ---- normalizing ---- */

/* Normalize the beginning of text[0, n), n > 0, to to[0, n_to). Returns how many bytes it was. */
static size_t normalize_prefix(const struct tokenizer *t, const char *text, size_t n,
                               const char **to, size_t *n_to)
{
    assert(n > 0);
    const struct normalizer *z = &t->normalizer;
    quip_token id;
    uint32_t value = 0;
    size_t length = qp_trie_longest(&t->user_defined, text, n, &id);
    if (length == 0 && (length = find_rule(z, text, n, &value)) > 0) {
        assert(value < z->n_pool);
        *to = z->pool + value;
        *n_to = strlen(*to);
        return length;
    }
    *to = text;
    if (length == 0) {
        int32_t c;
        length = (size_t)qp_utf8_decode(text, n, &c);
        if (c < 0) {
            *to = REPLACEMENT;
            *n_to = REPLACEMENT_BYTES;
            return length;
        }
    }
    *n_to = length;
    return length;
}

static bool append_escaped(const struct normalizer *z, const char *text, size_t n,
                           struct bytes *out)
{
    if (!qp_bytes_reserve(out, n * SPACE_SYMBOL_BYTES))
        return false;
    for (size_t i = 0; i < n; i++) {
        if (text[i] == ' ' && z->escape_whitespaces) {
            memcpy(out->data + out->n, SPACE_SYMBOL, SPACE_SYMBOL_BYTES);
            out->n += SPACE_SYMBOL_BYTES;
        } else {
            out->data[out->n++] = (uint8_t)text[i];
        }
    }
    return true;
}

static size_t leading_spaces(const struct tokenizer *t, const char *text, size_t n)
{
    size_t i = 0;
    while (i < n) {
        const char *to;
        size_t n_to, length = normalize_prefix(t, text + i, n - i, &to, &n_to);
        if (n_to != 1 || *to != ' ')
            break;
        i += length;
    }
    return i;
}

static void strip_spaces(const struct normalizer *z, size_t begin, struct bytes *out)
{
    const char *space = z->escape_whitespaces ? SPACE_SYMBOL : " ";
    size_t n = strlen(space);
    while (out->n - begin >= n && memcmp(out->data + out->n - n, space, n) == 0)
        out->n -= n;
}

bool qp_normalize(const struct tokenizer *t, const char *text, size_t n, bool is_more,
                  struct bytes *out)
{
    const struct normalizer *z = &t->normalizer;
    size_t i = z->remove_extra_whitespaces && !is_more ? leading_spaces(t, text, n) : 0;
    if (i == n)
        return true; // an empty text, or only spaces: no dummy prefix
    size_t begin = out->n;
    if (!z->whitespace_is_suffix && z->add_dummy_prefix && !is_more &&
        !append_escaped(z, " ", 1, out))
        return false;
    bool after_space = z->remove_extra_whitespaces && !is_more;
    while (i < n) {
        size_t run = 0;
        while (i + run < n && z->plain[(uint8_t)text[i + run]])
            run++;
        if (run > 0) {
            if (!qp_bytes_append(out, text + i, run))
                return false;
            i += run;
            after_space = false;
            continue;
        }
        const char *to;
        size_t n_to;
        i += normalize_prefix(t, text + i, n - i, &to, &n_to);
        while (after_space && n_to > 0 && *to == ' ') {
            to++;
            n_to--;
        }
        if (!append_escaped(z, to, n_to, out))
            return false;
        if (n_to > 0)
            after_space = z->remove_extra_whitespaces && to[n_to - 1] == ' ';
    }
    if (z->remove_extra_whitespaces)
        strip_spaces(z, begin, out);
    if (z->whitespace_is_suffix && z->add_dummy_prefix)
        return append_escaped(z, " ", 1, out);
    return true;
}

/* ---- as Hugging Face applies a charsmap ---- */

/* Length of the shortest rule that text[0, n) begins with; 0 for none. */
static size_t find_shortest_rule(const struct normalizer *z, const char *text, size_t n,
                                 uint32_t *value)
{
    for (size_t length = 1; length <= n; length++)
        if (find_rule(z, text, length, value) == length)
            return length;
    return 0;
}

static bool is_control(int32_t c)
{
    return c < 32 || (c >= 0x7f && c < 0xa0) || c == 0xad || c == 0x200b || c == 0x2028 ||
           c == 0x2029 || c == 0xfeff;
}

/* Length of the first character with the marks that follow it: an approximation of a grapheme. */
static size_t cluster_length(const char *text, size_t n)
{
    int32_t c;
    size_t length, end = (size_t)qp_utf8_decode(text, n, &c);
    if (is_control(c))
        return n >= 2 && text[0] == '\r' && text[1] == '\n' ? 2 : end;
    for (; end < n; end += length) {
        qp_utf8_decode(text + end, n - end, &c);
        bool is_joiner = c == 0x200c || c == 0x200d || (c >= 0x1f3fb && c <= 0x1f3ff);
        if (qp_char_class(text + end, n - end, &length) != CHAR_MARK && !is_joiner)
            break;
    }
    return end;
}

/* A grapheme of less than 6 bytes is replaced as a whole, by the shortest rule that matches its
 * beginning, if there is one. Everything else is replaced character by character. */
bool qp_charsmap_apply(const struct normalizer *z, const char *text, size_t n, struct bytes *out)
{
    for (size_t i = 0, length, end; i < n; i = end) {
        uint32_t value = 0;
        end = i + cluster_length(text + i, n - i);
        if (end - i < 6 && find_shortest_rule(z, text + i, end - i, &value)) {
            if (!qp_bytes_append_text(out, z->pool + value))
                return false;
            continue;
        }
        for (; i < end; i += length) {
            length = qp_char_length(text + i, end - i);
            value = 0;
            if (!(find_shortest_rule(z, text + i, length, &value)
                      ? qp_bytes_append_text(out, z->pool + value)
                      : qp_bytes_append(out, text + i, length)))
                return false;
        }
    }
    return true;
}
