/* byte_level.c: text to ids, for models of byte-level BPE.
 * In:  any bytes; malformed UTF-8 becomes U+FFFD, one for each maximal part.
 * Out: ids: added tokens are cut out first (some before NFC, some after), the rest becomes words
 * (pre_tokenizer.c), and the bytes of a word are merged in the order of the model's list. Bytes
 * that the vocabulary lacks are dropped, as the original does. GPT-2 spells bytes as characters: 68
 * of them, which are no printable Latin-1, as U+0100 and on.
 */
#include "tokenizer/tokenizer_impl.h"

/* ---- GPT-2's alphabet ---- */

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
        t->byte_level->byte_ids[byte] = qp_spm_find(t, text, (size_t)n, false);
    }
}

/* ---- words ---- */

/* One call of qp_byte_level_encode. */
struct byte_level_run {
    const struct tokenizer *t;
    struct tokens *out;
    struct merger merger;
    struct bytes spelled; // a word in GPT-2's alphabet
    bool with_special;
};

/* The token that is the whole word, or NO_TOKEN. */
static bool find_whole(struct byte_level_run *r, const char *word, size_t n, quip_token *id)
{
    *id = NO_TOKEN;
    if (n > r->t->max_piece_bytes)
        return true;
    r->spelled.n = 0;
    if (!qp_gpt2_spell(word, n, &r->spelled))
        return false;
    *id = qp_spm_find(r->t, (const char *)r->spelled.data, r->spelled.n, false);
    return true;
}

static bool encode_word(struct byte_level_run *r, const char *word, size_t n)
{
    const struct byte_level *b = r->t->byte_level;
    if (b->ignore_merges) {
        quip_token whole;
        if (!find_whole(r, word, n, &whole))
            return false;
        if (whole != NO_TOKEN)
            return qp_tokens_append(r->out, whole);
    }
    struct merger *m = &r->merger;
    m->n_symbols = 0;
    for (size_t i = 0; i < n; i++) {
        quip_token id = b->byte_ids[(uint8_t)word[i]];
        if (id != NO_TOKEN && !qp_merger_add(m, (uint32_t)i, 1, id, false))
            return false;
    }
    if (!qp_merger_run(m))
        return false;
    for (int i = 0; i < m->n_symbols; i++)
        if (!qp_tokens_append(r->out, m->symbols[i].id))
            return false;
    return true;
}

static bool encode_words_of(struct byte_level_run *r, const char *text, size_t n)
{
    enum pre_tokenizer pre = r->t->byte_level->pre;
    for (size_t i = 0, length; i < n; i += length) {
        length = qp_pre_token(pre, text + i, n - i);
        if (!encode_word(r, text + i, length))
            return false;
    }
    return true;
}

/* A section between added tokens. add_prefix_space puts a space in front of its first word. */
static bool encode_plain(struct byte_level_run *r, const char *text, size_t n)
{
    if (!r->t->byte_level->add_prefix_space || n == 0 || text[0] == ' ')
        return encode_words_of(r, text, n);
    struct bytes prefixed = { 0 };
    bool ok = qp_bytes_append(&prefixed, " ", 1) && qp_bytes_append(&prefixed, text, n) &&
              encode_words_of(r, (const char *)prefixed.data, prefixed.n);
    qp_bytes_close(&prefixed);
    return ok;
}

/* ---- added tokens ---- */

static bool is_word_class(enum char_class class)
{
    return class == CHAR_LETTER || class == CHAR_DIGIT || class == CHAR_WORD;
}

/* Where the character before text[i] begins, i > 0. The text is valid. */
static size_t previous(const char *text, size_t i)
{
    do
        i--;
    while (i > 0 && ((uint8_t)text[i] & 0xc0) == 0x80);
    return i;
}

static bool touches_word(const char *text, size_t n, size_t begin, size_t end)
{
    size_t length;
    if (begin > 0) {
        size_t before = previous(text, begin);
        if (is_word_class(qp_char_class(text + before, n - before, &length)))
            return true;
    }
    return end < n && is_word_class(qp_char_class(text + end, n - end, &length));
}

static bool is_space_at(const char *text, size_t n, size_t i, size_t *length)
{
    return qp_char_class(text + i, n - i, length) == CHAR_SPACE;
}

typedef bool section_fn(struct byte_level_run *r, const char *text, size_t n);

/* Cut text[0, n) at the tokens of the trie, longest first at each place; sections in between go to
 * `rest`. */
static bool cut_added(struct byte_level_run *r, const struct trie *trie, const char *text, size_t n,
                      section_fn *rest)
{
    const struct byte_level *b = r->t->byte_level;
    size_t done = 0, length;
    for (size_t i = 0; i < n; i += length) {
        quip_token index;
        length = qp_trie_longest(trie, text + i, n - i, &index);
        if (length == 0) {
            length = 1;
            continue;
        }
        const struct bpe_added *added = &b->added[index];
        if ((added->is_special && !r->with_special) ||
            (added->single_word && touches_word(text, n, i, i + length)))
            continue;
        size_t begin = i, end = i + length, space;
        while (added->lstrip && begin > done && is_space_at(text, n, previous(text, begin), &space))
            begin = previous(text, begin);
        while (added->rstrip && end < n && is_space_at(text, n, end, &space))
            end += space;
        if (begin > done && !rest(r, text + done, begin - done))
            return false;
        if (!qp_tokens_append(r->out, added->id))
            return false;
        done = end;
    }
    return done >= n || rest(r, text + done, n - done);
}

static bool encode_section(struct byte_level_run *r, const char *text, size_t n)
{
    const struct byte_level *b = r->t->byte_level;
    if (!b->nfc)
        return cut_added(r, &b->normalized, text, n, encode_plain);
    struct bytes nfc = { 0 };
    bool ok = qp_nfc(text, n, &nfc) &&
              cut_added(r, &b->normalized, (const char *)nfc.data, nfc.n, encode_plain);
    qp_bytes_close(&nfc);
    return ok;
}

/* ---- malformed input ---- */

size_t qp_malformed_length(const char *text, size_t n)
{
    size_t length = 1;
    while (length < n && length < 3 && qp_utf8_complete(text, length + 1) == 0)
        length++;
    return length;
}

/* The text with U+FFFD where it is malformed. */
static bool repair(const char *text, size_t n, struct bytes *out)
{
    for (size_t i = 0, length; i < n; i += length) {
        int32_t c;
        length = (size_t)qp_utf8_decode(text + i, n - i, &c);
        if (c < 0)
            length = qp_malformed_length(text + i, n - i);
        if (!(c < 0 ? qp_bytes_append(out, REPLACEMENT, REPLACEMENT_BYTES)
                    : qp_bytes_append(out, text + i, length)))
            return false;
    }
    return true;
}

static bool is_valid(const char *text, size_t n)
{
    for (size_t i = 0; i < n;) {
        int32_t c = 0;
        i += (uint8_t)text[i] < 128 ? 1 : (size_t)qp_utf8_decode(text + i, n - i, &c);
        if (c < 0)
            return false;
    }
    return true;
}

bool qp_byte_level_encode(const struct tokenizer *t, const char *text, size_t n, bool with_special,
                          struct tokens *out)
{
    struct byte_level_run r = { .t = t, .out = out, .with_special = with_special };
    struct bytes repaired = { 0 };
    bool ok = qp_merger_open(&r.merger, t, text);
    if (ok && !is_valid(text, n)) {
        ok = repair(text, n, &repaired);
        text = (const char *)repaired.data;
        n = repaired.n;
    }
    ok = ok && cut_added(&r, &t->byte_level->raw, text, n, encode_section);
    qp_merger_close(&r.merger);
    qp_bytes_close(&r.spelled);
    qp_bytes_close(&repaired);
    return ok;
}
