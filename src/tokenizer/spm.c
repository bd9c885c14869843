/* spm.c: opens a SentencePiece ModelProto.
 * In:  the bytes of the proto. They must outlive the tokenizer: pieces keep their text there.
 * Out: struct tokenizer: the pieces, the tries, the normalizer. An index of the pieces' texts is
 *      built when it is first used (piece_index.c).
 *
 * 262144 pieces open in 4 ms: one pass over the proto counts them, a second fills one block of
 * memory. Field numbers are those of sentencepiece_model.proto in google/sentencepiece. */
#include "tokenizer/tokenizer_impl.h"

#include "format/protobuf.h"

#include <assert.h>
#include <float.h>
#include <math.h>

enum {
    MAX_PIECE_BYTES = (1 << 29) - 1 // limit of piece.n
};

/* ---- reading the proto ---- */

/* What the proto says besides the pieces. */
struct spm_fields {
    const uint8_t *charsmap;
    size_t n_charsmap;
    bool has_bos, has_eos;
    struct proto_field bos_piece, eos_piece;
};

/* Fast path: read the next field if it is field 1 with less than 128 bytes, as nearly all are. */
static bool next_small(struct proto_reader *r, struct proto_field *f)
{
    const uint8_t *p = r->p;
    if (r->end - p < 2 || p[0] != (1 << 3 | 2) || p[1] > 127 || r->end - p - 2 < p[1])
        return false;
    *f = (struct proto_field){ .number = 1, .wire_type = 2, .data = p + 2, .n = p[1] };
    r->p = p + 2 + p[1];
    return true;
}

/* Fast path: read a piece in the form that SentencePiece writes: text, score and an optional type;
 * lengths and the type have one byte. False if it has another form. */
static bool read_usual_piece(struct tokenizer *t, struct piece *piece,
                             const struct proto_field *message)
{
    const uint8_t *p = message->data;
    const size_t n_text = message->n < 7 ? 0 : p[1], n_rest = message->n - n_text;
    const uint8_t *rest = p + n_text; // the score begins at rest + 2
    if (n_text == 0 || n_text > 127 || n_text + 7 > message->n || p[0] != (1 << 3 | 2) ||
        rest[2] != (2 << 3 | 5))
        return false;
    unsigned type = PIECE_NORMAL;
    if (n_rest == 9 && rest[7] == 3 << 3 && rest[8] >= PIECE_NORMAL && rest[8] <= PIECE_BYTE)
        type = rest[8];
    else if (n_rest != 7)
        return false;
    const struct proto_field score = { .value = rest[3] | (uint32_t)rest[4] << 8 |
                                                (uint32_t)rest[5] << 16 | (uint32_t)rest[6] << 24 };
    if (!isfinite(qp_proto_float(&score)))
        return false;
    piece->offset = (uint32_t)(p + 2 - (const uint8_t *)t->spm);
    piece->n = (uint32_t)n_text & MAX_PIECE_BYTES;
    piece->type = type & 7;
    piece->order = qp_score_order(qp_proto_float(&score));
    return true;
}

static quip_status read_piece(struct tokenizer *t, quip_token id, const struct proto_field *message,
                              quip_error *error)
{
    assert(id >= 0 && id < t->n_pieces);
    struct piece *piece = &t->pieces[id];
    if (read_usual_piece(t, piece, message))
        return QUIP_OK;
    unsigned type = PIECE_NORMAL;
    size_t n = 0;
    float score = 0;
    struct proto_reader r;
    struct proto_field f;
    qp_proto_open(&r, message->data, message->n);
    while (qp_proto_next(&r, &f)) {
        if (f.number == 1 && f.wire_type == 2) {
            piece->offset = (uint32_t)(f.data - (const uint8_t *)t->spm);
            n = f.n;
        } else if (f.number == 2 && f.wire_type == 5) {
            score = qp_proto_float(&f);
        } else if (f.number == 3 && f.wire_type == 0 && f.value >= PIECE_NORMAL &&
                   f.value <= PIECE_BYTE) {
            type = (unsigned)f.value;
        }
    }
    if (r.is_malformed || n > MAX_PIECE_BYTES)
        return qp_fail(error, QUIP_E_FORMAT, "tokenizer: piece %d is malformed", (int)id);
    if (!isfinite(score))
        return qp_fail(error, QUIP_E_FORMAT, "tokenizer: the score of piece %d is not finite",
                       (int)id);
    piece->type = type & 7;
    piece->n = n & MAX_PIECE_BYTES;
    piece->order = qp_score_order(score);
    return QUIP_OK;
}

static int hex_digit(char c)
{
    const char *digits = "0123456789ABCDEF";
    const char *found = c ? strchr(digits, c) : NULL;
    return found ? (int)(found - digits) : -1;
}

int qp_spm_byte(const char *text, size_t n)
{
    if (n != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>')
        return -1;
    int high = hex_digit(text[3]), low = hex_digit(text[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

static void note_piece(struct tokenizer *t, quip_token id)
{
    const struct piece *piece = &t->pieces[id];
    switch (piece->type) {
    case PIECE_UNKNOWN:
        if (t->unk == NO_TOKEN)
            t->unk = id;
        return;
    case PIECE_CONTROL:
        return;
    case PIECE_BYTE: {
        int byte = qp_spm_byte(qp_piece_text(t, id), piece->n);
        if (byte >= 0)
            t->byte_ids[byte] = id;
        return;
    }
    case PIECE_UNUSED:
        t->has_unused = true;
        break;
    case PIECE_NORMAL: {
        float score = qp_order_score(piece->order);
        t->min_score = score < t->min_score ? score : t->min_score;
        t->max_score = score > t->max_score ? score : t->max_score;
        break;
    }
    }
    t->max_piece_bytes = piece->n > t->max_piece_bytes ? piece->n : t->max_piece_bytes;
}

static quip_token token_of(uint64_t value)
{
    return value <= INT32_MAX ? (quip_token)value : NO_TOKEN; // -1 is stored as a huge varint
}

static bool read_trainer_spec(struct tokenizer *t, const struct proto_field *message,
                              struct spm_fields *fields)
{
    struct proto_reader r;
    struct proto_field f;
    qp_proto_open(&r, message->data, message->n);
    while (qp_proto_next(&r, &f)) {
        if (f.wire_type == 0) {
            switch (f.number) {
            case 3:
                t->model = f.value <= SPM_CHAR ? (enum spm_model)f.value : 0;
                break;
            case 24:
                t->normalizer.whitespace_is_suffix = f.value != 0;
                break;
            case 35:
                t->byte_fallback = f.value != 0;
                break;
            case 41:
                t->bos = token_of(f.value);
                fields->has_bos = true;
                break;
            case 42:
                t->eos = token_of(f.value);
                fields->has_eos = true;
                break;
            }
        } else if (f.wire_type == 2) {
            switch (f.number) {
            case 44:
                t->unk_surface = (const char *)f.data;
                t->n_unk_surface = f.n;
                break;
            case 46:
                fields->bos_piece = f;
                break;
            case 47:
                fields->eos_piece = f;
                break;
            }
        }
    }
    return !r.is_malformed;
}

static bool read_normalizer_spec(struct tokenizer *t, const struct proto_field *message,
                                 struct spm_fields *fields)
{
    struct proto_reader r;
    struct proto_field f;
    qp_proto_open(&r, message->data, message->n);
    while (qp_proto_next(&r, &f)) {
        if (f.number == 2 && f.wire_type == 2) {
            fields->charsmap = f.data;
            fields->n_charsmap = f.n;
        } else if (f.number == 3 && f.wire_type == 0) {
            t->normalizer.add_dummy_prefix = f.value != 0;
        } else if (f.number == 4 && f.wire_type == 0) {
            t->normalizer.remove_extra_whitespaces = f.value != 0;
        } else if (f.number == 5 && f.wire_type == 0) {
            t->normalizer.escape_whitespaces = f.value != 0;
        }
    }
    return !r.is_malformed;
}

static quip_status count_spm_pieces(struct tokenizer *t, size_t n, quip_error *error)
{
    struct proto_reader r;
    struct proto_field f;
    qp_proto_open(&r, t->spm, n);
    while (next_small(&r, &f) || qp_proto_next(&r, &f)) {
        if (f.number != 1 || f.wire_type != 2)
            continue;
        if (t->n_pieces == INT32_MAX / 4)
            return qp_fail(error, QUIP_E_FORMAT, "tokenizer: has more than %d pieces", t->n_pieces);
        t->n_pieces++;
    }
    if (r.is_malformed)
        return qp_fail(error, QUIP_E_FORMAT,
                       "tokenizer: is not a SentencePiece model: malformed after %d pieces",
                       t->n_pieces);
    if (t->n_pieces == 0)
        return qp_fail(error, QUIP_E_FORMAT,
                       "tokenizer: is not a SentencePiece model: it has no pieces");
    return QUIP_OK;
}

static quip_status allocate_pieces(struct tokenizer *t, quip_error *error)
{
    struct arena *a = &t->vocabulary;
    for (int pass = 0; pass < 2; pass++) { // measure, then allocate
        if (pass == 1 && qp_arena_open(a, a->used, "the vocabulary", error))
            return QUIP_E_MEMORY;
        t->pieces = qp_arena_alloc(a, (size_t)t->n_pieces * sizeof *t->pieces);
        t->index = qp_piece_index_alloc(a, t->n_pieces);
    }
    return QUIP_OK;
}

static quip_status read_proto(struct tokenizer *t, size_t n, struct spm_fields *fields,
                              quip_error *error)
{
    struct proto_reader r;
    struct proto_field f;
    quip_token id = 0;
    bool ok = true;
    qp_proto_open(&r, t->spm, n);
    while (ok && (next_small(&r, &f) || qp_proto_next(&r, &f))) {
        if (f.wire_type != 2)
            continue;
        if (f.number == 1) {
            quip_status status = read_piece(t, id, &f, error);
            if (status)
                return status;
            note_piece(t, id);
            id++;
        } else if (f.number == 2) {
            ok = read_trainer_spec(t, &f, fields);
        } else if (f.number == 3) {
            ok = read_normalizer_spec(t, &f, fields);
        }
    }
    if (!ok)
        return qp_fail(error, QUIP_E_FORMAT, "tokenizer: the SentencePiece model's %s is malformed",
                       f.number == 2 ? "trainer_spec" : "normalizer_spec");
    return QUIP_OK;
}

/* ---- after reading ---- */

/* Unigram models of Hugging Face, which have a blob, find every kind of piece of the model in text
 * except unused ones. */
static quip_status build_tries(struct tokenizer *t, bool has_blob, quip_error *error)
{
    quip_status status = QUIP_OK;
    for (quip_token id = 0; id < t->n_pieces && !status; id++) {
        const struct piece *piece = &t->pieces[id];
        const char *text = qp_piece_text(t, id);
        if (piece->type == PIECE_USER_DEFINED)
            status = qp_trie_add(&t->user_defined, text, piece->n, id, error);
        if (piece->type == PIECE_CONTROL || piece->type == PIECE_UNKNOWN)
            status = qp_trie_add(&t->special, text, piece->n, id, error);
        const bool is_found = has_blob ? piece->type != PIECE_UNUSED && !qp_is_outside(piece)
                                       : !qp_is_reserved(piece);
        if (t->model == SPM_UNIGRAM && is_found && !status)
            status = qp_trie_add(&t->all, text, piece->n, id, error);
    }
    return status;
}

/* The id in the trainer_spec, or else the control piece of that name. */
static quip_token special_id(const struct tokenizer *t, bool is_given, quip_token id,
                             const struct proto_field *name, const char *default_name)
{
    if (!is_given) {
        const char *text = name->data ? (const char *)name->data : default_name;
        id = qp_trie_find(&t->special, text, name->data ? name->n : strlen(default_name));
        if (id != NO_TOKEN && t->pieces[id].type != PIECE_CONTROL)
            return NO_TOKEN;
    }
    return id < t->n_pieces ? id : NO_TOKEN;
}

static quip_status check_model(const struct tokenizer *t, quip_error *error)
{
    if (t->model < SPM_UNIGRAM || t->model > SPM_CHAR)
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "tokenizer: the SentencePiece model has an unknown model_type; expected "
                       "unigram, bpe, word or char");
    if (t->unk == NO_TOKEN)
        return qp_fail(error, QUIP_E_FORMAT,
                       "tokenizer: the SentencePiece model has no unknown piece");
    for (int b = 0; t->byte_fallback && b < 256; b++) {
        // the tokenizer.json of Gemma has the piece "\t" instead of <0x09>, which works as well
        if (t->byte_ids[b] == NO_TOKEN &&
            (b > 127 || qp_spm_find(t, &(char){ (char)b }, 1, false) == NO_TOKEN))
            return qp_fail(error, QUIP_E_FORMAT,
                           "tokenizer: the SentencePiece model has byte_fallback but no piece "
                           "<0x%02X>",
                           b);
    }
    return QUIP_OK;
}

quip_status qp_spm_open(struct tokenizer *t, const void *spm, size_t n, bool has_blob,
                        quip_error *error)
{
    if (n > UINT32_MAX)
        return qp_fail(error, QUIP_E_FORMAT,
                       "tokenizer: the SentencePiece model has %zu bytes; must be below 2^32", n);
    t->spm = spm;
    t->space = SPACE_SYMBOL;
    t->n_space = SPACE_SYMBOL_BYTES;
    t->model = SPM_UNIGRAM; // default of the proto, like the values below
    t->unk = t->bos = t->eos = NO_TOKEN;
    t->normalizer.add_dummy_prefix = t->normalizer.remove_extra_whitespaces = true;
    t->normalizer.escape_whitespaces = true;
    t->unk_surface = " \xe2\x81\x87 ";
    t->n_unk_surface = strlen(t->unk_surface);
    t->min_score = FLT_MAX;
    t->max_score = FLT_MIN; // as in SentencePiece, although it is the smallest positive number
    for (int b = 0; b < 256; b++)
        t->byte_ids[b] = NO_TOKEN;

    struct spm_fields fields = { 0 };
    quip_status status = count_spm_pieces(t, n, error);
    if (!status)
        status = allocate_pieces(t, error);
    if (!status)
        status = read_proto(t, n, &fields, error);
    if (!status && !has_blob)
        status = check_model(t, error);
    if (!status)
        status = build_tries(t, has_blob, error);
    if (!status)
        status = qp_normalizer_open(&t->normalizer, fields.charsmap, fields.n_charsmap,
                                    &t->user_defined, error);
    if (status)
        return status;
    t->bos = special_id(t, fields.has_bos, t->bos, &fields.bos_piece, "<s>");
    t->eos = special_id(t, fields.has_eos, t->eos, &fields.eos_piece, "</s>");
    return QUIP_OK;
}
