/* bpe_blob.c: Quip's own blob, for what a SentencePiece proto cannot say about a tokenizer.
 * In:  merges, the pre-tokenizer, added tokens and more; ids are those of the proto's pieces.
 * Out: a protobuf message, the model file's `quip.tokenizer` metadata:
 *          1 pre-tokenizer (enum pre_tokenizer)
 *          2 flags (enum blob_flag)
 *          3 merges: bytes, three little-endian uint32 each: left, right, result; in rank order
 *          4 added token, repeated: message of 1 id, 2 flags: 1 special, 2 normalized, 4 lstrip,
 *            8 rstrip, 16 single_word
 *          5 steps: bytes, one enum text_step each, in order
 *          6 prefix (enum symbol_prefix)
 *          7 joining (enum piece_joining)
 *          8 text before pieces that continue a word, 9 text after pieces that end one
 *         10 scores of unigram models: bytes, a little-endian double for each piece
 *         11 WordPiece: the characters of the longest word that is divided into pieces
 *
 * Unknown fields are skipped; unknown values are an error. */
#include "tokenizer/tokenizer_impl.h"

#include "format/protobuf.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

enum {
    MERGE_BYTES = 12,
    SCORE_BYTES = 8,
    MAX_WORD_CHARS = 10000 // the time for a word grows with the square of its length
};

enum blob_flag {
    BLOB_NFC = 1,
    BLOB_IGNORE_MERGES = 2,
    BLOB_PREFIX_SPACE = 4,
    BLOB_TEXT = 8,
    BLOB_FUSE_UNKNOWN = 16,
    BLOB_SPACE_SYMBOLS = 32,
    BLOB_SPM = 64,
    BLOB_FLAGS = 127 // all of them
};

enum added_flag {
    ADDED_SPECIAL = 1,
    ADDED_NORMALIZED = 2,
    ADDED_LSTRIP = 4,
    ADDED_RSTRIP = 8,
    ADDED_SINGLE_WORD = 16
};

/* ---- writing ---- */

static void write_u32(uint8_t *to, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        to[i] = (uint8_t)(value >> 8 * i);
}

static bool append_merges(const struct bpe_spec *spec, struct bytes *out)
{
    struct bytes packed = { 0 };
    bool ok = qp_bytes_reserve(&packed, (size_t)spec->n_merges * MERGE_BYTES);
    for (int i = 0; ok && i < spec->n_merges; i++) {
        uint8_t *to = packed.data + packed.n;
        write_u32(to, (uint32_t)spec->merges[i].left);
        write_u32(to + 4, (uint32_t)spec->merges[i].right);
        write_u32(to + 8, (uint32_t)spec->merges[i].result);
        packed.n += MERGE_BYTES;
    }
    ok = ok && qp_proto_put_bytes(out, 3, packed.data, packed.n);
    qp_bytes_close(&packed);
    return ok;
}

static bool append_added(const struct bpe_added *added, struct bytes *out)
{
    unsigned flags = (added->is_special ? ADDED_SPECIAL : 0u) |
                     (added->normalized ? ADDED_NORMALIZED : 0u) |
                     (added->lstrip ? ADDED_LSTRIP : 0u) | (added->rstrip ? ADDED_RSTRIP : 0u) |
                     (added->single_word ? ADDED_SINGLE_WORD : 0u);
    struct bytes message = { 0 };
    bool ok = qp_proto_put_varint(&message, 1, (uint64_t)added->id) &&
              qp_proto_put_varint(&message, 2, flags) &&
              qp_proto_put_bytes(out, 4, message.data, message.n);
    qp_bytes_close(&message);
    return ok;
}

static bool append_scores(const struct bpe_spec *spec, struct bytes *out)
{
    struct bytes packed = { 0 };
    bool ok = qp_bytes_reserve(&packed, (size_t)spec->n_scores * SCORE_BYTES);
    for (int i = 0; ok && i < spec->n_scores; i++, packed.n += SCORE_BYTES) {
        uint64_t bits;
        memcpy(&bits, &spec->scores[i], sizeof bits);
        write_u32(packed.data + packed.n, (uint32_t)bits);
        write_u32(packed.data + packed.n + 4, (uint32_t)(bits >> 32));
    }
    ok = ok && qp_proto_put_bytes(out, 10, packed.data, packed.n);
    qp_bytes_close(&packed);
    return ok;
}

static bool append_affix(int number, const char *affix, struct bytes *out)
{
    return !affix || !*affix || qp_proto_put_bytes(out, number, affix, strlen(affix));
}

bool qp_bpe_blob_write(const struct bpe_spec *spec, struct bytes *out)
{
    assert(spec->n_merges >= 0 && spec->n_added >= 0 && spec->n_scores >= 0);
    assert(spec->n_steps >= 0 && spec->n_steps < MAX_TEXT_STEPS);
    unsigned flags = (spec->nfc ? BLOB_NFC : 0u) | (spec->ignore_merges ? BLOB_IGNORE_MERGES : 0u) |
                     (spec->add_prefix_space ? BLOB_PREFIX_SPACE : 0u) |
                     (spec->is_text ? BLOB_TEXT : 0u) | (spec->is_spm ? BLOB_SPM : 0u) |
                     (spec->fuse_unknown ? BLOB_FUSE_UNKNOWN : 0u) |
                     (spec->space_symbols ? BLOB_SPACE_SYMBOLS : 0u);
    bool ok = qp_proto_put_varint(out, 1, spec->pre) && qp_proto_put_varint(out, 2, flags) &&
              append_merges(spec, out);
    for (int i = 0; ok && i < spec->n_added; i++)
        ok = append_added(&spec->added[i], out);
    ok = ok && (!spec->n_steps || qp_proto_put_bytes(out, 5, spec->steps, (size_t)spec->n_steps));
    ok = ok && (!spec->prefix || qp_proto_put_varint(out, 6, spec->prefix));
    ok = ok && (!spec->joining || qp_proto_put_varint(out, 7, spec->joining));
    ok = ok && (!spec->n_scores || append_scores(spec, out));
    ok = ok && (!spec->max_word_chars || qp_proto_put_varint(out, 11, spec->max_word_chars));
    return ok && append_affix(8, spec->continues, out) && append_affix(9, spec->ends, out);
}

/* ---- reading ---- */

static uint32_t read_id(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* What the first pass over the message finds. */
struct blob_fields {
    uint64_t pre, flags, prefix, joining, max_word_chars;
    const uint8_t *merges;
    struct proto_field steps, continues, ends, scores;
    size_t n_merges;
    size_t n_added;
};

static void note_blob_field(struct blob_fields *fields, const struct proto_field *f)
{
    if (f->wire_type == 0) {
        uint64_t *const numbers[] = { NULL, &fields->pre,           &fields->flags,   NULL, NULL,
                                      NULL, &fields->prefix,        &fields->joining, NULL, NULL,
                                      NULL, &fields->max_word_chars };
        if (f->number < (int)QP_COUNT(numbers) && numbers[f->number])
            *numbers[f->number] = f->value;
    } else if (f->wire_type == 2) {
        if (f->number == 3) {
            fields->merges = f->data;
            fields->n_merges = f->n;
        }
        fields->n_added += f->number == 4;
        if (f->number == 5)
            fields->steps = *f;
        if (f->number == 8)
            fields->continues = *f;
        if (f->number == 9)
            fields->ends = *f;
        if (f->number == 10)
            fields->scores = *f;
    }
}

static quip_status check_rule(const char *what, uint64_t value, uint64_t max, quip_error *error)
{
    if (value <= max)
        return QUIP_OK;
    return qp_fail(error, QUIP_E_UNSUPPORTED, "tokenizer: %s is %llu; must be 0 to %llu", what,
                   (unsigned long long)value, (unsigned long long)max);
}

static quip_status read_blob_fields(const void *blob, size_t n, struct blob_fields *fields,
                                    quip_error *error)
{
    struct proto_reader r;
    struct proto_field f;
    qp_proto_open(&r, blob, n);
    while (qp_proto_next(&r, &f))
        note_blob_field(fields, &f);
    if (r.is_malformed || fields->n_added > INT32_MAX / 4)
        return qp_fail(error, QUIP_E_FORMAT, "tokenizer: quip.tokenizer is malformed");
    if (fields->n_merges % MERGE_BYTES != 0 || fields->n_merges / MERGE_BYTES > INT32_MAX / 4)
        return qp_fail(error, QUIP_E_FORMAT,
                       "tokenizer: the merges have %zu bytes, expected a multiple of %d",
                       fields->n_merges, MERGE_BYTES);
    fields->n_merges /= MERGE_BYTES;
    quip_status status = check_rule("pre-tokenizer", fields->pre, PRE_WORDS, error);
    if (!status)
        status = check_rule("flags", fields->flags, BLOB_FLAGS, error);
    if (!status)
        status = check_rule("prefix rule", fields->prefix, PREFIX_ALWAYS, error);
    if (!status)
        status = check_rule("joining rule", fields->joining, JOIN_WORDPIECE_PLAIN, error);
    if (!status)
        status = check_rule("number of text steps", fields->steps.n, MAX_TEXT_STEPS - 1, error);
    for (size_t i = 0; i < fields->steps.n && !status; i++)
        status = check_rule("text step", fields->steps.data[i], STEP_BERT_ACCENTS, error);
    if (!status)
        status = check_rule("longest word", fields->max_word_chars, MAX_WORD_CHARS, error);
    return status;
}

bool qp_bpe_blob_is_spm(const void *blob, size_t n)
{
    struct blob_fields fields = { 0 };
    struct proto_reader r;
    struct proto_field f;
    qp_proto_open(&r, blob, n);
    while (qp_proto_next(&r, &f))
        note_blob_field(&fields, &f);
    return fields.flags & BLOB_SPM;
}

static quip_status read_blob_added(struct tokenizer *t, const void *blob, size_t n,
                                   quip_error *error)
{
    struct rules *b = t->rules;
    struct proto_reader r;
    struct proto_field f, g;
    qp_proto_open(&r, blob, n);
    while (qp_proto_next(&r, &f)) {
        if (f.number != 4 || f.wire_type != 2)
            continue;
        uint64_t id = UINT64_MAX, flags = 0;
        struct proto_reader message;
        qp_proto_open(&message, f.data, f.n);
        while (qp_proto_next(&message, &g)) {
            if (g.number == 1 && g.wire_type == 0)
                id = g.value;
            else if (g.number == 2 && g.wire_type == 0)
                flags = g.value;
        }
        if (message.is_malformed || id >= (uint64_t)t->n_pieces)
            return qp_fail(error, QUIP_E_FORMAT,
                           "tokenizer: added token %d has id %lld; must be below %d", b->n_added,
                           (long long)id, t->n_pieces);
        assert(b->n_added < INT32_MAX / 4);
        b->added[b->n_added++] = (struct bpe_added){
            .id = (quip_token)id,
            .is_special = flags & ADDED_SPECIAL,
            .normalized = flags & ADDED_NORMALIZED,
            .lstrip = flags & ADDED_LSTRIP,
            .rstrip = flags & ADDED_RSTRIP,
            .single_word = flags & ADDED_SINGLE_WORD,
        };
    }
    return QUIP_OK;
}

static quip_status build_added_tries(struct tokenizer *t, quip_error *error)
{
    struct rules *b = t->rules;
    struct bytes text = { 0 };
    quip_status status = QUIP_OK;
    for (int i = 0; i < b->n_added && !status; i++) {
        quip_token id = b->added[i].id;
        bool normalized = b->added[i].normalized && !b->is_spm;
        text.n = 0;
        if (!qp_bytes_append(&text, qp_piece_text(t, id), t->pieces[id].n) ||
            (normalized && !qp_text_steps(t, false, &text)))
            status = qp_fail_memory(error, "an added token", t->pieces[id].n);
        else
            status = qp_trie_add(normalized ? &b->normalized : &b->raw, (const char *)text.data,
                                 text.n, i, error);
    }
    qp_bytes_close(&text);
    return status;
}

static quip_status read_blob_merges(struct tokenizer *t, const struct blob_fields *fields,
                                    quip_error *error)
{
    uint32_t n_pieces = (uint32_t)t->n_pieces;
    for (size_t i = 0; i < fields->n_merges; i++) {
        const uint8_t *p = fields->merges + i * MERGE_BYTES;
        uint32_t left = read_id(p), right = read_id(p + 4), result = read_id(p + 8);
        if (left >= n_pieces || right >= n_pieces || result >= n_pieces)
            return qp_fail(error, QUIP_E_FORMAT,
                           "tokenizer: merge %zu has the ids %u, %u and %u; must be below %u", i,
                           left, right, result, n_pieces);
        struct bpe_merge merge = { (quip_token)left, (quip_token)right, (quip_token)result };
        qp_merge_add(t->rules, &merge, (uint32_t)i);
    }
    return QUIP_OK;
}

double qp_rules_score(const struct rules *rules, quip_token id)
{
    assert(rules->scores && id >= 0);
    const uint8_t *p = rules->scores + (size_t)id * SCORE_BYTES;
    uint64_t bits = read_id(p) | (uint64_t)read_id(p + 4) << 32;
    double score;
    memcpy(&score, &bits, sizeof score);
    return score;
}

static quip_status read_scores(struct tokenizer *t, const struct proto_field *scores,
                               quip_error *error)
{
    struct rules *rules = t->rules;
    rules->min_score = t->min_score;
    if (scores->n == 0)
        return QUIP_OK;
    if (scores->n != (size_t)t->n_pieces * SCORE_BYTES)
        return qp_fail(error, QUIP_E_FORMAT,
                       "tokenizer: the scores have %zu bytes, expected %zu for %d pieces",
                       scores->n, (size_t)t->n_pieces * SCORE_BYTES, t->n_pieces);
    rules->scores = scores->data;
    for (quip_token id = 0; id < t->n_pieces; id++) {
        double score = qp_rules_score(rules, id);
        if (!isfinite(score))
            return qp_fail(error, QUIP_E_FORMAT, "tokenizer: the score of piece %d is not finite",
                           (int)id);
        rules->min_score = id == 0 || score < rules->min_score ? score : rules->min_score;
    }
    return QUIP_OK;
}

quip_status qp_bpe_blob_open(struct tokenizer *t, const void *blob, size_t n, quip_error *error)
{
    struct blob_fields fields = { 0 };
    quip_status status = read_blob_fields(blob, n, &fields, error);
    if (status)
        return status;
    uint32_t n_slots = 4;
    while (n_slots / 3 * 2 < fields.n_merges)
        n_slots *= 2;
    struct arena *a = &t->merges;
    for (int pass = 0; pass < 2; pass++) { // measure, then allocate
        if (pass == 1 && qp_arena_open(a, a->used, "the merges", error))
            return QUIP_E_MEMORY;
        t->rules = qp_arena_alloc(a, sizeof *t->rules);
        struct merge_slot *slots = qp_arena_alloc(a, n_slots * sizeof *slots);
        struct bpe_added *added = qp_arena_alloc(a, fields.n_added * sizeof *added);
        if (pass == 1) {
            t->rules->slots = slots;
            t->rules->added = added;
        }
    }
    struct rules *b = t->rules;
    b->mask = n_slots - 1;
    b->pre = (enum pre_tokenizer)fields.pre;
    b->ignore_merges = fields.flags & BLOB_IGNORE_MERGES;
    b->add_prefix_space = fields.flags & BLOB_PREFIX_SPACE;
    b->is_text = fields.flags & BLOB_TEXT;
    b->is_spm = fields.flags & BLOB_SPM;
    b->fuse_unknown = fields.flags & BLOB_FUSE_UNKNOWN;
    b->space_symbols = fields.flags & BLOB_SPACE_SYMBOLS;
    b->prefix = (enum symbol_prefix)fields.prefix;
    b->joining = (enum piece_joining)fields.joining;
    b->continues = (const char *)fields.continues.data;
    b->n_continues = fields.continues.n;
    b->max_word_chars = (uint32_t)fields.max_word_chars;
    b->ends = (const char *)fields.ends.data;
    b->n_ends = fields.ends.n;
    int n_steps = 0;
    assert(fields.steps.n < MAX_TEXT_STEPS); // read_blob_fields
    if (fields.flags & BLOB_NFC)
        b->steps[n_steps++] = STEP_NFC;
    for (size_t i = 0; i < fields.steps.n; i++)
        b->steps[n_steps++] = fields.steps.data[i];
    if (!b->is_spm)
        qp_find_byte_tokens(t);
    status = read_scores(t, &fields.scores, error);
    if (!status)
        status = read_blob_merges(t, &fields, error);
    if (!status)
        status = read_blob_added(t, blob, n, error);
    return status ? status : build_added_tries(t, error);
}
