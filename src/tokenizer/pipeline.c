/* pipeline.c: text to ids, for models with a blob, in the order of Hugging Face's tokenizers.
 * In:  any bytes; each maximal malformed part becomes U+FFFD.
 * Out: ids. Added tokens are found first, some before the text steps, some after. The text between
 *      them is divided into words (pre_tokenizer.c), and words become ids (words.c). */
#include "tokenizer/merger.h"
#include "tokenizer/tokenizer_impl.h"
#include "tokenizer/unicode.h"

#include <assert.h>

/* One call of qp_pipeline_encode. */
struct pipeline_run {
    struct word_encoder words;
    const struct rules *rules;
    bool is_more, with_special;
    const char *text;  // after repair
    const char *begin; // of the current section, if the text begins with it; else NULL
    struct bytes word; // with its space symbol
};

/* ---- words ---- */

static bool encode_word(struct pipeline_run *r, const char *word, size_t n)
{
    for (size_t i = 0, length; i < n; i += length) {
        length = qp_pre_token_part(r->words.t->rules->pre, word + i, n - i);
        if (!qp_word_encode(&r->words, word + i, length))
            return false;
    }
    return true;
}

static bool begins_with(const char *text, size_t n, const char *start, size_t n_start)
{
    return n >= n_start && memcmp(text, start, n_start) == 0;
}

/* Encode a word of PRE_WORDS, with a space symbol before it unless it has one, or continues the
 * text before. */
static bool encode_symbol_word(struct pipeline_run *r, const char *word, size_t n)
{
    const bool has_symbol =
        begins_with(word, n, SPACE_SYMBOL, SPACE_SYMBOL_BYTES) || (r->is_more && word == r->begin);
    r->word.n = 0;
    bool ok = (has_symbol || qp_bytes_append(&r->word, SPACE_SYMBOL, SPACE_SYMBOL_BYTES)) &&
              qp_bytes_append(&r->word, word, n);
    for (size_t i = 0, length; ok && i < r->word.n; i += length) {
        const char *part = (const char *)r->word.data + i;
        length = qp_pre_token(PRE_METASPACE, part, r->word.n - i);
        ok = qp_word_encode(&r->words, part, length);
    }
    return ok;
}

static bool encode_words_of(struct pipeline_run *r, const char *text, size_t n)
{
    enum pre_tokenizer pre = r->words.t->rules->pre;
    bool drops_white =
        pre == PRE_CLIP || pre == PRE_PUNCTUATION || pre == PRE_BERT || pre == PRE_WORDS;
    for (size_t i = 0, length, first; i < n; i += length) {
        length = qp_pre_token(pre, text + i, n - i);
        if (drops_white && qp_char_class(text + i, n - i, &first) == CHAR_SPACE)
            continue;
        if (!(pre == PRE_WORDS ? encode_symbol_word(r, text + i, length)
                               : encode_word(r, text + i, length)))
            return false;
    }
    return true;
}

/* Append text with space symbols instead of spaces, and one before it if the rules say so. */
static bool append_symbols(const struct rules *rules, const char *text, size_t n, bool is_first,
                           bool is_more, struct bytes *out)
{
    bool has_prefix = rules->prefix == PREFIX_ALWAYS || (rules->prefix == PREFIX_FIRST && is_first);
    has_prefix &=
        !is_more && *text != ' ' && !begins_with(text, n, SPACE_SYMBOL, SPACE_SYMBOL_BYTES);
    return (!has_prefix || qp_bytes_append(out, SPACE_SYMBOL, SPACE_SYMBOL_BYTES)) &&
           qp_append_space_symbols(text, n, out);
}

/* Encode a section between added tokens, with the prefix of its first word. */
static bool encode_plain(struct pipeline_run *r, const char *text, size_t n)
{
    const struct rules *rules = r->words.t->rules;
    bool is_first = text == r->begin;
    bool has_space =
        rules->add_prefix_space && n > 0 && text[0] != ' ' && !(r->is_more && is_first);
    if (n == 0 || (!has_space && !rules->space_symbols))
        return encode_words_of(r, text, n);
    struct bytes changed = { 0 };
    bool ok = rules->space_symbols
                  ? append_symbols(rules, text, n, is_first, r->is_more && is_first, &changed)
                  : qp_bytes_append(&changed, " ", 1) && qp_bytes_append(&changed, text, n);
    ok = ok && encode_words_of(r, (const char *)changed.data, changed.n);
    qp_bytes_close(&changed);
    return ok;
}

/* ---- added tokens ---- */

static bool is_word_class(enum char_class class)
{
    return class == CHAR_LETTER || class == CHAR_DIGIT || class == CHAR_WORD ||
           class == CHAR_MARK || class == CHAR_CONNECTOR;
}

/* Where the character before text[i] begins, i > 0. The text is valid. */
static size_t previous(const char *text, size_t i)
{
    assert(i > 0);
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

typedef bool section_fn(struct pipeline_run *r, const char *text, size_t n);

/* Find the added tokens of the trie in text[0, n), the longest at each position. The sections
 * between them go to `rest`. */
static bool cut_added(struct pipeline_run *r, const struct trie *trie, const char *text, size_t n,
                      section_fn *rest)
{
    const struct rules *b = r->rules;
    assert(b);
    size_t done = 0, length;
    for (size_t i = 0; i < n; i += length) {
        quip_token index;
        length = qp_trie_longest(trie, text + i, n - i, &index);
        if (length == 0) {
            length = 1;
            continue;
        }
        assert(index >= 0 && index < b->n_added);
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
        if (!qp_tokens_append(r->words.out, added->id))
            return false;
        done = end;
    }
    return done >= n || rest(r, text + done, n - done);
}

static bool encode_section(struct pipeline_run *r, const char *text, size_t n)
{
    const struct rules *rules = r->words.t->rules;
    struct bytes section = { 0 };
    bool ok = true;
    r->begin = text == r->text ? text : NULL;
    if (rules->steps[0]) {
        ok = qp_bytes_append(&section, text, n) &&
             qp_text_steps(r->words.t, r->is_more && r->begin, &section);
        text = (const char *)section.data;
        n = section.n;
        r->begin = r->begin ? text : NULL;
    }
    ok = ok && cut_added(r, &rules->normalized, text, n, encode_plain);
    qp_bytes_close(&section);
    return ok;
}

/* A section of a SentencePiece model: a text of its own, but only some begin with the space that
 * the model puts before a text. */
static bool encode_spm_section(struct pipeline_run *r, const char *text, size_t n)
{
    const bool is_first = text == r->text;
    const bool has_prefix = r->rules->prefix == PREFIX_ALWAYS || is_first;
    const bool is_more = !has_prefix || (r->is_more && is_first);
    return r->with_special ? qp_encode_with_special(r->words.t, text, n, is_more, r->words.out)
                           : qp_spm_encode(r->words.t, text, n, is_more, r->words.out);
}

/* ---- malformed input ---- */

size_t qp_malformed_length(const char *text, size_t n)
{
    assert(n > 0);
    size_t length = 1;
    while (length < n && length < 3 && qp_utf8_complete(text, length + 1) == 0)
        length++;
    return length;
}

/* Append the text with U+FFFD for each malformed part. */
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

bool qp_pipeline_encode(const struct tokenizer *t, const char *text, size_t n, bool is_more,
                        bool with_special, struct tokens *out)
{
    struct pipeline_run r = { .words = { .t = t, .out = out },
                              .rules = t->rules ? t->rules : t->added,
                              .is_more = is_more,
                              .with_special = with_special,
                              .text = text };
    assert(r.rules);
    if (t->added) // SentencePiece has its own rule for malformed parts
        return cut_added(&r, &r.rules->raw, text, n, encode_spm_section);
    struct bytes repaired = { 0 };
    bool ok = qp_merger_open(&r.words.merger, t, text);
    if (ok && !is_valid(text, n)) {
        ok = repair(text, n, &repaired);
        text = (const char *)repaired.data;
        n = repaired.n;
    }
    r.text = text;
    ok = ok && cut_added(&r, &t->rules->raw, text, n, encode_section);
    qp_merger_close(&r.words.merger);
    qp_bytes_close(&r.words.spelled);
    qp_bytes_close(&r.word);
    qp_bytes_close(&repaired);
    return ok;
}
