/* tokenizer.c: opens and closes a tokenizer, tokenizes text, looks up pieces.
 * In:  a SentencePiece proto, and for some models a blob.
 * Out: ids for text.
 *
 * An open tokenizer does not change, so threads can share it. A call frees what it allocates. */
#include "tokenizer/tokenizer_impl.h"

#include <assert.h>
#include <stdlib.h>

/* ---- open and close ---- */

quip_status qp_tokenizer_open(struct tokenizer **tokenizer, const void *spm, size_t n_spm,
                              const void *bpe, size_t n_bpe, quip_error *error)
{
    *tokenizer = NULL;
    struct tokenizer *t = calloc(1, sizeof *t);
    if (!t)
        return qp_fail_memory(error, "the tokenizer", sizeof *t);
    const bool is_spm = !bpe || qp_bpe_blob_is_spm(bpe, n_bpe);
    quip_status status = qp_spm_open(t, spm, n_spm, !is_spm, error);
    if (!status && bpe)
        status = qp_bpe_blob_open(t, bpe, n_bpe, error);
    if (!status && bpe && is_spm) {
        t->added = t->rules;
        t->rules = NULL;
    }
    if (status) {
        qp_tokenizer_close(t);
        return status;
    }
    *tokenizer = t;
    return QUIP_OK;
}

void qp_tokenizer_spell_bytes(struct tokenizer *t)
{
    t->spells_bytes = !t->rules && !t->added;
    if (t->spells_bytes)
        qp_spm_set_space(t, GPT2_SPACE);
}

void qp_tokenizer_close(struct tokenizer *t)
{
    if (!t)
        return;
    struct rules *rules = t->rules ? t->rules : t->added;
    if (rules) {
        qp_trie_close(&rules->raw);
        qp_trie_close(&rules->normalized);
    }
    qp_trie_close(&t->user_defined);
    qp_trie_close(&t->special);
    qp_trie_close(&t->all);
    if (t->index)
        pthread_mutex_destroy(&t->index->lock);
    qp_arena_close(&t->merges);
    qp_arena_close(&t->vocabulary);
    free(t);
}

size_t qp_tokenizer_memory(const struct tokenizer *t)
{
    size_t n = sizeof *t + t->vocabulary.size + t->merges.size + qp_trie_memory(&t->user_defined) +
               qp_trie_memory(&t->special) + qp_trie_memory(&t->all);
    const struct rules *rules = t->rules ? t->rules : t->added;
    if (rules)
        n += qp_trie_memory(&rules->raw) + qp_trie_memory(&rules->normalized);
    return n;
}

/* ---- looking up ---- */

bool qp_tokenizer_is_byte_level(const struct tokenizer *t)
{
    return t->rules ? !t->rules->is_text : t->spells_bytes;
}

int qp_tokenizer_n_tokens(const struct tokenizer *t)
{
    return t->n_pieces;
}

quip_token qp_tokenizer_find(const struct tokenizer *t, const char *piece, size_t n)
{
    // templates look up most pieces, before any text is tokenized; this avoids building the index
    quip_token id = qp_trie_find(&t->special, piece, n);
    if (id == NO_TOKEN)
        id = qp_trie_find(&t->user_defined, piece, n);
    return id != NO_TOKEN ? id : qp_spm_find_any(t, piece, n);
}

const char *qp_tokenizer_piece(const struct tokenizer *t, quip_token id, size_t *n)
{
    if (id < 0 || id >= t->n_pieces)
        return NULL;
    *n = t->pieces[id].n;
    return qp_piece_text(t, id);
}

bool qp_tokenizer_is_control(const struct tokenizer *t, quip_token id)
{
    if (id < 0 || id >= t->n_pieces)
        return false;
    int type = t->pieces[id].type;
    // Byte-level BPE needs no unknown token. Models that have one use it as their end of text. In
    // other models with a blob it is a special token, too.
    return type == PIECE_CONTROL || (type == PIECE_UNKNOWN && (t->rules || t->spells_bytes));
}

enum piece_type qp_tokenizer_piece_type(const struct tokenizer *t, quip_token id)
{
    return id < 0 || id >= t->n_pieces ? (enum piece_type)0 : (enum piece_type)t->pieces[id].type;
}

bool qp_tokenizer_has_dummy_prefix(const struct tokenizer *t)
{
    return t->normalizer.add_dummy_prefix;
}

quip_token qp_tokenizer_bos(const struct tokenizer *t)
{
    return t->bos;
}

quip_token qp_tokenizer_eos(const struct tokenizer *t)
{
    return t->eos;
}

/* ---- encode ---- */

/* SentencePiece never finds a control piece or the unknown piece in text. If the caller asks for
 * them, the text is divided at these pieces first, and each section is encoded as a text of its
 * own, as in Hugging Face's tokenizers. */
bool qp_encode_with_special(const struct tokenizer *t, const char *text, size_t n, bool is_more,
                            struct tokens *out)
{
    size_t done = 0, length;
    for (size_t i = 0; i < n; i += length) {
        quip_token id;
        length = qp_trie_longest(&t->special, text + i, n - i, &id);
        if (length == 0) {
            length = 1;
            continue;
        }
        if (!qp_spm_encode(t, text + done, i - done, is_more && done == 0, out) ||
            !qp_tokens_append(out, id))
            return false;
        done = i + length;
    }
    return qp_spm_encode(t, text + done, n - done, is_more && done == 0, out);
}

static quip_status encode_text(const struct tokenizer *t, const char *text, size_t n, bool is_more,
                               bool with_special, struct tokens *out, quip_error *error)
{
    if (n > INT32_MAX / 4)
        return qp_fail(error, QUIP_E_ARGUMENT,
                       "tokenizer: the text has %zu bytes; must be at most %d", n, INT32_MAX / 4);
    if (n == 0)
        return QUIP_OK;
    assert(text && out->n >= 0 && out->n <= out->capacity);
    int n_before = out->n;
    bool ok = t->rules || t->added ? qp_pipeline_encode(t, text, n, is_more, with_special, out)
              : with_special       ? qp_encode_with_special(t, text, n, is_more, out)
                                   : qp_spm_encode(t, text, n, is_more, out);
    if (ok)
        return QUIP_OK;
    out->n = n_before;
    return qp_fail_memory(error, "the tokens of a text", n);
}

quip_status qp_tokenizer_encode(const struct tokenizer *t, const char *text, size_t n,
                                bool with_special, struct tokens *out, quip_error *error)
{
    return encode_text(t, text, n, false, with_special, out, error);
}

quip_status qp_tokenizer_encode_more(const struct tokenizer *t, const char *text, size_t n,
                                     bool with_special, struct tokens *out, quip_error *error)
{
    return encode_text(t, text, n, true, with_special, out, error);
}

bool qp_tokenizer_divides(const struct tokenizer *t, const char *text, size_t n)
{
    quip_token id;
    // tokens of white space are in the trie, too, and more of it may precede
    return n > 0 && !strchr(" \t\r\n\xe2", text[0]) &&
           qp_trie_longest(&t->special, text, n, &id) > 0;
}

size_t qp_tokenizer_special_end(const struct tokenizer *t, const char *text, size_t n)
{
    size_t end = 0;
    for (size_t i = 0; i < n; i++) {
        quip_token id;
        size_t length = qp_trie_longest(&t->special, text + i, n - i, &id);
        if (length > 0 && qp_tokenizer_is_control(t, id)) {
            end = i + length;
            i = end - 1;
        }
    }
    return end;
}

size_t qp_tokenizer_piece_at(const struct tokenizer *t, const char *text, size_t n, quip_token *id)
{
    quip_token other;
    size_t length = qp_trie_longest(&t->special, text, n, id);
    if (length > 0 && !qp_tokenizer_is_control(t, *id))
        length = 0;
    const size_t n_other = qp_trie_longest(&t->user_defined, text, n, &other);
    if (n_other <= length)
        return length;
    *id = other;
    return n_other;
}
