/* detokenizer.c: ids to text, one id at a time.
 * In:  ids.
 * Out: whole UTF-8 characters; bytes of a character that is not complete yet wait in the struct.
 *      SentencePiece: malformed bytes become U+FFFD one by one. Byte-level: one U+FFFD for each
 *      maximal malformed part. */
#include "tokenizer/tokenizer_impl.h"

/* ---- bytes to characters ---- */

static bool put_text(struct detokenizer *d, const void *text, size_t n, struct bytes *out)
{
    d->has_started |= n > 0;
    return qp_bytes_append(out, text, n);
}

/* Put what the pending bytes complete; at the end of the text, or of a run of bytes, all of them.
 */
static bool put_pending(const struct tokenizer *t, struct detokenizer *d, bool at_end,
                        struct bytes *out)
{
    size_t done = 0, n = (size_t)d->n_pending;
    while (done < n) {
        const char *text = (const char *)d->pending + done;
        int32_t c;
        size_t length = (size_t)qp_utf8_decode(text, n - done, &c);
        if (c < 0) {
            if (!at_end && qp_utf8_complete(text, n - done) == 0)
                break;
            if (qp_tokenizer_is_byte_level(t))
                length = qp_malformed_length(text, n - done);
        }
        if (!(c < 0 ? put_text(d, REPLACEMENT, REPLACEMENT_BYTES, out)
                    : put_text(d, text, length, out)))
            return false;
        done += length;
    }
    memmove(d->pending, d->pending + done, n - done);
    d->n_pending = (int)(n - done);
    return true;
}

/* At most three bytes wait, so there is room for one more. */
static bool put_byte(const struct tokenizer *t, struct detokenizer *d, uint8_t byte,
                     struct bytes *out)
{
    d->pending[d->n_pending++] = byte;
    return put_pending(t, d, false, out);
}

/* The same for text from the file, which may not be UTF-8. */
static bool put_foreign(struct detokenizer *d, const char *text, size_t n, struct bytes *out)
{
    for (size_t i = 0, length; i < n; i += length) {
        int32_t c;
        length = (size_t)qp_utf8_decode(text + i, n - i, &c);
        if (!(c < 0 ? put_text(d, REPLACEMENT, REPLACEMENT_BYTES, out)
                    : put_text(d, text + i, length, out)))
            return false;
    }
    return true;
}

/* ---- byte-level ---- */

/* Text in GPT-2's alphabet is bytes; a piece with any other character, as added tokens have, is
 * what it says. */
static bool is_gpt2_text(const char *text, size_t n)
{
    int32_t c;
    for (size_t i = 0; i < n; i += (size_t)qp_utf8_decode(text + i, n - i, &c))
        if (qp_utf8_decode(text + i, n - i, &c) < 1 || qp_gpt2_byte(c) < 0)
            return false;
    return true;
}

static bool put_byte_level(const struct tokenizer *t, struct detokenizer *d,
                           const struct piece *piece, struct bytes *out)
{
    const char *text = t->spm + piece->offset;
    bool is_spelled = t->spells_bytes || is_gpt2_text(text, piece->n);
    for (size_t i = 0, length = 1; i < piece->n; i += length) {
        int byte = (uint8_t)text[i];
        if (is_spelled) {
            int32_t c;
            length = (size_t)qp_utf8_decode(text + i, piece->n - i, &c);
            byte = qp_gpt2_byte(c);
            if (byte < 0) // the original cuts other characters down to a byte
                byte = c & 0xff;
        }
        if (!put_byte(t, d, (uint8_t)byte, out))
            return false;
    }
    return true;
}

/* ---- SentencePiece ---- */

static bool begins_with_symbol(const char *text, const char *end)
{
    return end - text >= SPACE_SYMBOL_BYTES && memcmp(text, SPACE_SYMBOL, SPACE_SYMBOL_BYTES) == 0;
}

/* A piece with its space symbols as spaces. In front of a text, one or those of the first piece are
 * no text of their own. */
static bool put_piece(const struct tokenizer *t, struct detokenizer *d, const struct piece *piece,
                      struct bytes *out)
{
    const struct normalizer *z = &t->normalizer;
    const char *text = t->spm + piece->offset, *end = text + piece->n;
    bool drops_one = t->rules ? t->rules->joining == JOIN_DROP_ONE
                              : z->add_dummy_prefix || z->remove_extra_whitespaces;
    bool drops_all = t->rules && t->rules->joining == JOIN_DROP_IN_FIRST && !d->has_started;
    if (!d->has_started && drops_one && begins_with_symbol(text, end)) {
        text += SPACE_SYMBOL_BYTES;
        d->has_started = t->rules || !z->remove_extra_whitespaces; // which drops all leading spaces
    }
    while (text < end) {
        const char *p = text;
        while (p < end && !begins_with_symbol(p, end))
            p++;
        if (!put_foreign(d, text, (size_t)(p - text), out))
            return false;
        if (p == end)
            break;
        if (!drops_all && !put_text(d, " ", 1, out))
            return false;
        text = p + SPACE_SYMBOL_BYTES;
    }
    d->has_started |= drops_all;
    return true;
}

/* A piece as it is, a space away from the one before. */
static bool put_spaced(const struct tokenizer *t, struct detokenizer *d, const struct piece *piece,
                       struct bytes *out)
{
    if (d->has_started && !put_text(d, " ", 1, out))
        return false;
    d->has_started = true;
    return put_foreign(d, t->spm + piece->offset, piece->n, out);
}

static bool put_token(const struct tokenizer *t, struct detokenizer *d, quip_token id,
                      struct bytes *out)
{
    if (id < 0 || id >= t->n_pieces)
        return true;
    const struct piece *piece = &t->pieces[id];
    if (qp_tokenizer_is_byte_level(t))
        return qp_tokenizer_is_control(t, id) ? put_pending(t, d, true, out)
                                              : put_byte_level(t, d, piece, out);
    if (piece->type == PIECE_BYTE) {
        int byte = qp_spm_byte(qp_piece_text(t, id), piece->n);
        return byte < 0 || put_byte(t, d, (uint8_t)byte, out);
    }
    if (!put_pending(t, d, true, out))
        return false;
    if (qp_tokenizer_is_control(t, id))
        return true;
    if (piece->type == PIECE_UNKNOWN)
        return put_foreign(d, t->unk_surface, t->n_unk_surface, out);
    if (t->rules && t->rules->joining == JOIN_SPACED)
        return put_spaced(t, d, piece, out);
    return put_piece(t, d, piece, out);
}

bool qp_detokenize(const struct tokenizer *t, struct detokenizer *d, quip_token id,
                   struct bytes *out)
{
    const struct detokenizer before = *d;
    const size_t n_before = out->n;
    if (put_token(t, d, id, out))
        return true;
    *d = before;
    out->n = n_before;
    return false;
}

bool qp_detokenize_end(const struct tokenizer *t, struct detokenizer *d, struct bytes *out)
{
    const size_t n_before = out->n;
    if (put_pending(t, d, true, out)) // which drops the bytes when all of them are out
        return true;
    out->n = n_before;
    return false;
}
