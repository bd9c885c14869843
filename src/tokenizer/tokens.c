/* tokens.c: a growing list of token ids, and what an encoder appends to it.
 * In:  ids; for the parts of a text that are not a piece, their bytes.
 * Out: ids of the vocabulary: an unknown part becomes byte pieces, or one unknown token for each
 * run of unknown parts. */
#include "tokenizer/tokenizer_impl.h"

#include <assert.h>
#include <stdlib.h>

bool qp_tokens_append(struct tokens *t, quip_token id)
{
    assert(t->n >= 0 && t->n <= t->capacity);
    if (t->n == t->capacity) {
        if (t->capacity > INT32_MAX / 2)
            return false;
        int capacity = t->capacity ? 2 * t->capacity : 64;
        quip_token *ids = realloc(t->ids, (size_t)capacity * sizeof *ids);
        if (!ids)
            return false;
        t->ids = ids;
        t->capacity = capacity;
    }
    t->ids[t->n++] = id;
    return true;
}

void qp_tokens_close(struct tokens *t)
{
    free(t->ids);
    *t = (struct tokens){ 0 };
}

bool qp_sink_append(const struct tokenizer *t, struct id_sink *sink, const char *text, size_t n,
                    quip_token id)
{
    bool is_unknown = id == NO_TOKEN || id == t->unk;
    bool was_unknown = sink->was_unknown;
    sink->was_unknown = is_unknown;
    if (!is_unknown)
        return qp_tokens_append(sink->out, id);
    // a vocabulary with a blob may have only some byte pieces, and no unknown piece
    bool has_bytes = t->byte_fallback;
    for (size_t i = 0; has_bytes && i < n; i++)
        has_bytes = t->byte_ids[(uint8_t)text[i]] != NO_TOKEN;
    if (!has_bytes)
        return was_unknown || t->unk == NO_TOKEN || qp_tokens_append(sink->out, t->unk);
    for (size_t i = 0; i < n; i++)
        if (!qp_tokens_append(sink->out, t->byte_ids[(uint8_t)text[i]]))
            return false;
    return true;
}
