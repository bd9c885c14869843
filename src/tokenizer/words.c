/* words.c: a word to ids, for models with a blob.
 * In:  a word, valid UTF-8, after all text steps.
 * Out: ids. Byte-level BPE begins with the bytes of the word; bytes that are not in the vocabulary
 *      are dropped, as in Hugging Face's tokenizers. Text BPE begins with the characters; a
 *      vocabulary may mark the first or the last one of a word. Both then merge in the order of the
 *      model's list. Unigram models have no merges. */
#include "tokenizer/merger.h"
#include "tokenizer/tokenizer_impl.h"

#include <assert.h>

/* The token that is the whole word, or NO_TOKEN. */
static bool find_whole(struct word_encoder *e, const char *word, size_t n, quip_token *id)
{
    *id = NO_TOKEN;
    if (n > e->t->max_piece_bytes)
        return true;
    e->spelled.n = 0;
    if (!(e->t->rules->is_text ? qp_bytes_append(&e->spelled, word, n)
                               : qp_gpt2_spell(word, n, &e->spelled)))
        return false;
    *id = qp_spm_find(e->t, (const char *)e->spelled.data, e->spelled.n, false);
    return true;
}

static bool add_bytes(struct word_encoder *e, const char *word, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        quip_token id = e->t->rules->byte_ids[(uint8_t)word[i]];
        if (id != NO_TOKEN && !qp_merger_add(&e->merger, (uint32_t)i, 1, id, false))
            return false;
    }
    return true;
}

/* ---- characters ---- */

/* The piece of the character word[i, i + length), with the text that marks it as inside or at the
 * end of a word. */
static bool find_character(struct word_encoder *e, const char *word, size_t n, size_t i,
                           size_t length, quip_token *id)
{
    const struct rules *rules = e->t->rules;
    struct bytes *s = &e->spelled;
    s->n = 0;
    bool ok = (i == 0 || qp_bytes_append(s, rules->continues, rules->n_continues)) &&
              qp_bytes_append(s, word + i, length) &&
              (i + length < n || qp_bytes_append(s, rules->ends, rules->n_ends));
    *id = ok ? qp_spm_find_any(e->t, (const char *)s->data, s->n) : NO_TOKEN;
    return ok;
}

static bool has_byte_pieces(const struct tokenizer *t, const struct bytes *spelled)
{
    for (size_t i = 0; i < spelled->n; i++)
        if (t->byte_ids[spelled->data[i]] == NO_TOKEN)
            return false;
    return t->byte_fallback;
}

/* Add a character that is not a piece; its spelling is in e->spelled. */
static bool add_unknown(struct word_encoder *e, size_t i, size_t length)
{
    const struct tokenizer *t = e->t;
    struct merger *m = &e->merger;
    if (has_byte_pieces(t, &e->spelled)) {
        for (size_t k = 0; k < e->spelled.n; k++)
            if (!qp_merger_add(m, (uint32_t)i, 1, t->byte_ids[e->spelled.data[k]], false))
                return false;
        return true;
    }
    if (t->unk == NO_TOKEN)
        return true; // dropped
    struct symbol *last = m->n_symbols ? &m->symbols[m->n_symbols - 1] : NULL;
    if (t->rules->fuse_unknown && last && last->id == t->unk) {
        last->n += (uint32_t)length;
        return true;
    }
    return qp_merger_add(m, (uint32_t)i, (uint32_t)length, t->unk, false);
}

static bool add_characters(struct word_encoder *e, const char *word, size_t n)
{
    for (size_t i = 0, length; i < n; i += length) {
        quip_token id;
        length = qp_char_length(word + i, n - i);
        if (!find_character(e, word, n, i, length, &id) ||
            !(id == NO_TOKEN ? add_unknown(e, i, length)
                             : qp_merger_add(&e->merger, (uint32_t)i, (uint32_t)length, id, false)))
            return false;
    }
    return true;
}

bool qp_word_encode(struct word_encoder *e, const char *word, size_t n)
{
    const struct rules *rules = e->t->rules;
    assert(rules);
    if (rules->max_word_chars > 0)
        return qp_wordpiece_encode(e, word, n);
    if (rules->is_text && e->t->model == SPM_UNIGRAM) {
        struct id_sink sink = { .out = e->out };
        return qp_unigram_encode(e->t, word, n, &sink);
    }
    if (rules->ignore_merges) {
        quip_token whole;
        if (!find_whole(e, word, n, &whole))
            return false;
        if (whole != NO_TOKEN)
            return qp_tokens_append(e->out, whole);
    }
    struct merger *m = &e->merger;
    m->n_symbols = 0;
    if (!(rules->is_text ? add_characters(e, word, n) : add_bytes(e, word, n)) || !qp_merger_run(m))
        return false;
    for (int i = 0; i < m->n_symbols; i++)
        if (!qp_tokens_append(e->out, m->symbols[i].id))
            return false;
    return true;
}
