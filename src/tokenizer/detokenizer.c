/* detokenizer.c: ids to text, one id at a time.
 * In:  ids.
 * Out: whole UTF-8 characters; the struct keeps the bytes of a character that is not complete yet.
 *      SentencePiece: each malformed byte becomes U+FFFD. Byte-level BPE: each maximal malformed
 *      part becomes one U+FFFD. */
#include "tokenizer/tokenizer_impl.h"

#include <assert.h>

/* ---- bytes to characters ---- */

static bool write_text(struct detokenizer *d, const void *text, size_t n, struct bytes *out)
{
    d->has_started |= n > 0;
    return qp_bytes_append(out, text, n);
}

/* Write the characters that the pending bytes complete. At the end of the text, or of a run of byte
 * pieces, write all pending bytes. */
static bool write_pending(const struct tokenizer *t, struct detokenizer *d, bool at_end,
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
        if (!(c < 0 ? write_text(d, REPLACEMENT, REPLACEMENT_BYTES, out)
                    : write_text(d, text, length, out)))
            return false;
        done += length;
    }
    assert(done <= n);
    memmove(d->pending, d->pending + done, n - done);
    d->n_pending = (int)(n - done);
    return true;
}

/* At most three bytes are pending, so one more fits. */
static bool write_byte(const struct tokenizer *t, struct detokenizer *d, uint8_t byte,
                       struct bytes *out)
{
    assert(d->n_pending >= 0 && d->n_pending < (int)sizeof d->pending);
    d->pending[d->n_pending++] = byte;
    return write_pending(t, d, false, out);
}

/* Write text from the file, which may be invalid UTF-8. */
static bool write_foreign(struct detokenizer *d, const char *text, size_t n, struct bytes *out)
{
    for (size_t i = 0, length; i < n; i += length) {
        int32_t c;
        length = (size_t)qp_utf8_decode(text + i, n - i, &c);
        if (!(c < 0 ? write_text(d, REPLACEMENT, REPLACEMENT_BYTES, out)
                    : write_text(d, text + i, length, out)))
            return false;
    }
    return true;
}

/* ---- byte-level ---- */

/* Whether a piece is spelled in GPT-2's alphabet. A piece with any other character, such as an
 * added token, is plain text. */
static bool is_gpt2_text(const char *text, size_t n)
{
    int32_t c;
    for (size_t i = 0; i < n; i += (size_t)qp_utf8_decode(text + i, n - i, &c))
        if (qp_utf8_decode(text + i, n - i, &c) < 1 || qp_gpt2_byte(c) < 0)
            return false;
    return true;
}

static bool write_byte_level(const struct tokenizer *t, struct detokenizer *d,
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
            if (byte < 0) // MediaPipe truncates other characters to a byte
                byte = c & 0xff;
        }
        if (!write_byte(t, d, (uint8_t)byte, out))
            return false;
    }
    return true;
}

/* ---- SentencePiece ---- */

static bool begins_with_symbol(const char *text, const char *end)
{
    return end - text >= SPACE_SYMBOL_BYTES && memcmp(text, SPACE_SYMBOL, SPACE_SYMBOL_BYTES) == 0;
}

/* Write a piece with spaces instead of space symbols. At the start of a text, the first space
 * symbol or those of the first piece are dropped, depending on the model. */
static bool write_piece(const struct tokenizer *t, struct detokenizer *d, const struct piece *piece,
                        struct bytes *out)
{
    const struct normalizer *z = &t->normalizer;
    const char *text = t->spm + piece->offset, *end = text + piece->n;
    bool drops_one = t->rules ? t->rules->joining == JOIN_DROP_ONE
                              : z->add_dummy_prefix || z->remove_extra_whitespaces;
    bool drops_all = t->rules && t->rules->joining == JOIN_DROP_IN_FIRST && !d->has_started;
    if (!d->has_started && drops_one && begins_with_symbol(text, end)) {
        text += SPACE_SYMBOL_BYTES;
        d->has_started = t->rules || !z->remove_extra_whitespaces; // it drops all leading spaces
    }
    while (text < end) {
        const char *p = text;
        while (p < end && !begins_with_symbol(p, end))
            p++;
        if (!write_foreign(d, text, (size_t)(p - text), out))
            return false;
        if (p == end)
            break;
        if (!drops_all && !write_text(d, " ", 1, out))
            return false;
        text = p + SPACE_SYMBOL_BYTES;
    }
    d->has_started |= drops_all;
    return true;
}

/* Write a piece unchanged, after a space if it is not the first. */
static bool write_spaced(const struct tokenizer *t, struct detokenizer *d,
                         const struct piece *piece, struct bytes *out)
{
    if (d->has_started && !write_text(d, " ", 1, out))
        return false;
    d->has_started = true;
    return write_foreign(d, t->spm + piece->offset, piece->n, out);
}

/* Hugging Face's decoder of WordPiece: a piece that continues a word is joined to it, and with
 * "cleanup" so are these signs. */
static bool write_wordpiece(const struct tokenizer *t, struct detokenizer *d,
                            const struct piece *piece, struct bytes *out)
{
    const struct rules *rules = t->rules;
    const char *text = t->spm + piece->offset;
    const size_t n_mark = rules->n_continues;
    const bool is_joined = n_mark > 0 && d->has_started && piece->n >= n_mark &&
                           memcmp(text, rules->continues, n_mark) == 0;
    const bool is_sign =
        rules->joining == JOIN_WORDPIECE && piece->n > 0 && memchr(".?!,", *text, 4);
    if (is_joined)
        return write_foreign(d, text + n_mark, piece->n - n_mark, out);
    if (d->has_started && !is_sign && !write_text(d, " ", 1, out))
        return false;
    d->has_started = true;
    return write_foreign(d, text, piece->n, out);
}

static bool write_token(const struct tokenizer *t, struct detokenizer *d, quip_token id,
                        struct bytes *out)
{
    if (id < 0 || id >= t->n_pieces)
        return true;
    const struct piece *piece = &t->pieces[id];
    if (qp_tokenizer_is_byte_level(t))
        return qp_tokenizer_is_control(t, id) ? write_pending(t, d, true, out)
                                              : write_byte_level(t, d, piece, out);
    if (piece->type == PIECE_BYTE) {
        int byte = qp_spm_byte(qp_piece_text(t, id), piece->n);
        return byte < 0 || write_byte(t, d, (uint8_t)byte, out);
    }
    if (!write_pending(t, d, true, out))
        return false;
    if (qp_tokenizer_is_control(t, id))
        return true;
    if (piece->type == PIECE_UNKNOWN)
        return write_foreign(d, t->unk_surface, t->n_unk_surface, out);
    if (t->rules && t->rules->joining == JOIN_SPACED)
        return write_spaced(t, d, piece, out);
    if (t->rules && t->rules->joining >= JOIN_WORDPIECE)
        return write_wordpiece(t, d, piece, out);
    return write_piece(t, d, piece, out);
}

bool qp_detokenize(const struct tokenizer *t, struct detokenizer *d, quip_token id,
                   struct bytes *out)
{
    const struct detokenizer before = *d;
    const size_t n_before = out->n;
    if (write_token(t, d, id, out))
        return true;
    *d = before;
    out->n = n_before;
    return false;
}

bool qp_detokenize_end(const struct tokenizer *t, struct detokenizer *d, struct bytes *out)
{
    const size_t n_before = out->n;
    if (write_pending(t, d, true, out)) // drops the pending bytes if it succeeds
        return true;
    out->n = n_before;
    return false;
}
