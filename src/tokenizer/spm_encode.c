/* spm_encode.c: normalized text to ids, for SentencePiece models of type bpe, char and word.
 * In:  text from qp_normalize.
 * Out: ids, as SentencePiece computes them: user-defined pieces are found first and never merge;
 *      text never becomes a reserved piece; text that is not a piece becomes byte pieces or the
 *      unknown piece.
 *
 * SentencePiece merges over the whole text. Here it is divided into words wherever no piece
 * contains the border (see note_joins in piece_index.c), which gives the same ids. */
#include "tokenizer/merger.h"
#include "tokenizer/tokenizer_impl.h"

#include <assert.h>
#include <stdlib.h>

/* ---- bpe ---- */

/* Text whose ids are still to be stored: an unused piece is split again, left half first. */
struct text_part {
    uint32_t begin, n;
};

static bool append_unused(struct merger *m, struct id_sink *sink, struct text_part *stack,
                          struct text_part top)
{
    int n_stack = 0;
    for (;;) {
        assert(n_stack <= (int)m->t->max_piece_bytes);
        const char *text = m->text + top.begin;
        quip_token id = qp_spm_find_any(m->t, text, top.n);
        uint32_t left = id != NO_TOKEN && m->t->pieces[id].type == PIECE_UNUSED ? m->splits[id] : 0;
        if (left > 0) {
            stack[n_stack++] = (struct text_part){ top.begin + left, top.n - left };
            top.n = left;
            continue;
        }
        if (!qp_sink_append(m->t, sink, text, top.n, id))
            return false;
        if (n_stack == 0)
            return true;
        top = stack[--n_stack];
    }
}

static bool append_unused_symbols(struct merger *m, struct id_sink *sink)
{
    struct text_part *stack = malloc((m->t->max_piece_bytes + (size_t)1) * sizeof *stack);
    bool ok = stack != NULL;
    for (int i = 0; ok && i < m->n_symbols; i++)
        ok = append_unused(m, sink, stack,
                           (struct text_part){ m->symbols[i].begin, m->symbols[i].n });
    free(stack);
    return ok;
}

/* Merge the symbols collected so far and append their ids. */
static bool flush_symbols(struct merger *m, struct id_sink *sink)
{
    if (!qp_merger_run(m))
        return false;
    if (m->t->has_unused) {
        if (!append_unused_symbols(m, sink))
            return false;
    } else {
        for (int i = 0; i < m->n_symbols; i++) {
            const struct symbol *s = &m->symbols[i];
            const char *text = m->text + s->begin;
            quip_token id = s->id != NO_TOKEN ? s->id : qp_spm_find_any(m->t, text, s->n);
            if (!qp_sink_append(m->t, sink, text, s->n, id))
                return false;
        }
    }
    m->n_symbols = 0;
    return true;
}

static bool begins_word(const struct tokenizer *t, const bool joins[256], const char *text,
                        size_t n, size_t i)
{
    return text[i] == t->space[0] && n - i >= t->n_space &&
           memcmp(text + i, t->space, t->n_space) == 0 && !joins[(uint8_t)text[i - 1]];
}

static bool encode_bpe(const struct tokenizer *t, const char *text, size_t n, struct id_sink *sink)
{
    struct merger m;
    bool ok = qp_merger_open(&m, t, text);
    const bool *joins = qp_spm_joins(t);
    bool can_cut = !t->has_unused; // unused pieces are split as in the whole text
    size_t length;
    for (size_t i = 0; ok && i < n; i += length) {
        quip_token id = NO_TOKEN;
        length = qp_trie_longest(&t->user_defined, text + i, n - i, &id);
        bool is_frozen = length > 0;
        if (can_cut && m.n_symbols > 0 && (is_frozen || begins_word(t, joins, text, n, i)))
            ok = flush_symbols(&m, sink);
        if (!is_frozen)
            length = qp_char_length(text + i, n - i);
        ok = ok && qp_merger_add(&m, (uint32_t)i, (uint32_t)length, id, is_frozen);
        if (ok && can_cut && is_frozen)
            ok = flush_symbols(&m, sink);
    }
    ok = ok && flush_symbols(&m, sink);
    qp_merger_close(&m);
    return ok;
}

/* ---- char and word ---- */

static bool encode_chars(const struct tokenizer *t, const char *text, size_t n,
                         struct id_sink *sink)
{
    for (size_t i = 0, length; i < n; i += length) {
        quip_token id;
        length = qp_trie_longest(&t->user_defined, text + i, n - i, &id);
        if (length == 0)
            length = qp_char_length(text + i, n - i);
        if (!qp_sink_append(t, sink, text + i, length, qp_spm_find_any(t, text + i, length)))
            return false;
    }
    return true;
}

static bool encode_words(const struct tokenizer *t, const char *text, size_t n,
                         struct id_sink *sink)
{
    for (size_t begin = 0, end; begin < n; begin = end) {
        end = begin + qp_char_length(text + begin, n - begin);
        while (end < n && !(n - end >= SPACE_SYMBOL_BYTES &&
                            memcmp(text + end, SPACE_SYMBOL, SPACE_SYMBOL_BYTES) == 0))
            end += qp_char_length(text + end, n - end);
        if (!qp_sink_append(t, sink, text + begin, end - begin,
                            qp_spm_find_any(t, text + begin, end - begin)))
            return false;
    }
    return true;
}

static bool encode_normalized(const struct tokenizer *t, const char *text, size_t n,
                              struct tokens *out)
{
    struct id_sink sink = { .out = out };
    switch (t->model) {
    case SPM_BPE:
        return encode_bpe(t, text, n, &sink);
    case SPM_CHAR:
        return encode_chars(t, text, n, &sink);
    case SPM_WORD:
        return encode_words(t, text, n, &sink);
    default:
        return qp_unigram_encode(t, text, n, &sink);
    }
}

bool qp_spm_encode(const struct tokenizer *t, const char *text, size_t n, bool is_more,
                   struct tokens *out)
{
    struct bytes spelled = { 0 }, normalized = { 0 };
    bool ok = true;
    if (t->spells_bytes) {
        ok = qp_gpt2_spell(text, n, &spelled);
        text = (const char *)spelled.data;
        n = spelled.n;
    }
    ok = ok && qp_normalize(t, text, n, is_more, &normalized) && normalized.n <= INT32_MAX &&
         (normalized.n == 0 ||
          encode_normalized(t, (const char *)normalized.data, normalized.n, out));
    qp_bytes_close(&spelled);
    qp_bytes_close(&normalized);
    return ok;
}
