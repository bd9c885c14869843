/* wordpiece.c: the text steps, the words and the encoder of BERT's WordPiece tokenizers, as Hugging
 * Face's tokenizers compute them.
 * In:  a text, valid UTF-8; then its words.
 * Out: the text without control characters and accents; the length of its first word; the ids of a
 *      word: the longest piece that begins it, then the longest that continues it, and so on. A
 * word of which any part is not a piece is one unknown token. */
#include "tokenizer/merger.h"
#include "tokenizer/tokenizer_impl.h"
#include "tokenizer/unicode.h"

#include <assert.h>

/* Values of qp_bert_runs. */
enum bert_class {
    BERT_OTHER,
    BERT_REMOVED,     // control characters, formats, private use
    BERT_PUNCTUATION, // and all other printable ASCII characters that are not letters or digits
    BERT_NONSPACING   // marks that strip_accents drops
};

static enum bert_class bert_class(const char *text, size_t n, int32_t *c, size_t *length)
{
    *length = (size_t)qp_utf8_decode(text, n, c);
    if (*c < 0)
        return BERT_OTHER;
    return (enum bert_class)qp_run_value(qp_bert_runs, qp_n_bert_runs, 2, (uint32_t)*c);
}

/* ---- text steps ---- */

bool qp_bert_clean(const char *text, size_t n, struct bytes *out)
{
    for (size_t i = 0, length; i < n; i += length) {
        int32_t c;
        const bool is_removed = bert_class(text + i, n - i, &c, &length) == BERT_REMOVED;
        const bool is_white = !is_removed && qp_char_class(text + i, n - i, &length) == CHAR_SPACE;
        if (!is_removed &&
            !(is_white ? qp_bytes_append(out, " ", 1) : qp_bytes_append(out, text + i, length)))
            return false;
    }
    return true;
}

/* Chinese characters, as BERT counts them: CJK ideographs without those that only other languages
 * have. */
static bool is_chinese(int32_t c)
{
    static const int32_t runs[][2] = { { 0x3400, 0x4dbf },   { 0x4e00, 0x9fff },
                                       { 0xf900, 0xfaff },   { 0x20000, 0x2a6df },
                                       { 0x2a700, 0x2b81f }, { 0x2b920, 0x2ceaf },
                                       { 0x2f800, 0x2fa1f } };
    for (size_t i = 0; i < QP_COUNT(runs); i++)
        if (c >= runs[i][0] && c <= runs[i][1])
            return true;
    return false;
}

bool qp_bert_space_chinese(const char *text, size_t n, struct bytes *out)
{
    for (size_t i = 0, length; i < n; i += length) {
        int32_t c;
        length = (size_t)qp_utf8_decode(text + i, n - i, &c);
        const bool is_alone = is_chinese(c);
        if ((is_alone && !qp_bytes_append(out, " ", 1)) ||
            !qp_bytes_append(out, text + i, length) || (is_alone && !qp_bytes_append(out, " ", 1)))
            return false;
    }
    return true;
}

bool qp_bert_strip_accents(const char *text, size_t n, struct bytes *out)
{
    for (size_t i = 0, length; i < n; i += length) {
        int32_t c;
        if (bert_class(text + i, n - i, &c, &length) != BERT_NONSPACING &&
            !qp_bytes_append(out, text + i, length))
            return false;
    }
    return true;
}

/* ---- words ---- */

size_t qp_bert_word(const char *text, size_t n)
{
    int32_t c;
    size_t end, length;
    assert(n > 0);
    if (bert_class(text, n, &c, &end) == BERT_PUNCTUATION)
        return end;
    const bool is_white = qp_char_class(text, n, &end) == CHAR_SPACE;
    for (; end < n; end += length)
        if (bert_class(text + end, n - end, &c, &length) == BERT_PUNCTUATION ||
            (qp_char_class(text + end, n - end, &length) == CHAR_SPACE) != is_white)
            break;
    return end;
}

/* ---- pieces ---- */

static bool is_too_long(const char *word, size_t n, uint32_t max_chars)
{
    uint32_t n_chars = 0;
    for (size_t i = 0; i < n && n_chars <= max_chars; i += qp_char_length(word + i, n - i))
        n_chars++;
    return n_chars > max_chars;
}

/* Where the character before word[end] begins. */
static size_t char_before(const char *word, size_t begin, size_t end)
{
    assert(end > begin);
    do
        end--;
    while (end > begin && ((uint8_t)word[end] & 0xc0) == 0x80);
    return end;
}

/* The longest piece that is word[begin, *end), *end <= n, with the mark of pieces that continue a
 * word; NO_TOKEN if there is none. `spelled` is memory for the mark and max_piece_bytes. */
static quip_token longest_piece(const struct tokenizer *t, char *spelled, const char *word,
                                size_t n, size_t begin, size_t *end)
{
    const struct rules *rules = t->rules;
    const size_t n_mark = begin > 0 ? rules->n_continues : 0;
    size_t length = n - begin;
    if (n_mark + length > t->max_piece_bytes) {
        if (t->max_piece_bytes <= n_mark)
            return NO_TOKEN;
        length = t->max_piece_bytes - n_mark;
        while (length > 0 && ((uint8_t)word[begin + length] & 0xc0) == 0x80)
            length--;
    }
    if (n_mark > 0)
        memcpy(spelled, rules->continues, n_mark);
    memcpy(spelled + n_mark, word + begin, length);
    for (*end = begin + length; *end > begin; *end = char_before(word, begin, *end)) {
        const quip_token id = qp_spm_find_any(t, spelled, n_mark + *end - begin);
        if (id != NO_TOKEN && !qp_is_outside(&t->pieces[id]))
            return id;
    }
    return NO_TOKEN;
}

bool qp_wordpiece_encode(struct word_encoder *e, const char *word, size_t n)
{
    const struct tokenizer *t = e->t;
    const int n_before = e->out->n;
    bool is_known = !is_too_long(word, n, t->rules->max_word_chars);
    e->spelled.n = 0;
    if (!qp_bytes_reserve(&e->spelled, t->max_piece_bytes + t->rules->n_continues))
        return false;
    for (size_t begin = 0, end; is_known && begin < n; begin = end) {
        const quip_token id = longest_piece(t, (char *)e->spelled.data, word, n, begin, &end);
        is_known = id != NO_TOKEN;
        if (is_known && !qp_tokens_append(e->out, id))
            return false;
    }
    if (is_known)
        return true;
    e->out->n = n_before;
    return t->unk == NO_TOKEN || qp_tokens_append(e->out, t->unk);
}
