/* vocabulary.c: the vocabulary of a checkpoint.
 * In:  pieces by id, and the rules of a tokenizer.
 * Out: the SentencePiece ModelProto that every model file has, and the quip.tokenizer blob if the
 *      proto cannot express the tokenizer.
 *
 * Texts are copied into one pool. A hash table finds ids by text. */
#include "convert/vocabulary.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

quip_status qp_vocabulary_open(struct vocabulary *v, int n_pieces, quip_error *error)
{
    assert(n_pieces >= 0);
    *v = (struct vocabulary){
        .options = { .is_bpe = true, .unk_id = -1, .bos_id = -1, .eos_id = -1, .pad_id = -1 }
    };
    v->pieces = calloc((size_t)n_pieces + 1, sizeof *v->pieces);
    if (!v->pieces)
        return qp_fail_memory(error, "the vocabulary", (size_t)n_pieces * sizeof *v->pieces);
    v->n_pieces = n_pieces;
    return QUIP_OK;
}

void qp_vocabulary_close(struct vocabulary *v)
{
    qp_bytes_close(&v->pool);
    qp_bytes_close(&v->charsmap);
    free(v->scores);
    free(v->pieces);
    free(v->slots);
    free(v->spec.merges);
    free(v->spec.added);
    *v = (struct vocabulary){ 0 };
}

quip_status qp_vocabulary_set(struct vocabulary *v, int id, const char *text, size_t n, float score,
                              enum piece_type type, quip_error *error)
{
    assert(id >= 0 && id < v->n_pieces);
    v->pieces[id] =
        (struct vocab_piece){ .offset = v->pool.n, .n = n, .score = score, .type = type };
    if (!qp_bytes_append(&v->pool, text, n))
        return qp_fail_memory(error, "the vocabulary", v->pool.n + n);
    return QUIP_OK;
}

/* ---- texts -> ids ---- */

/* FNV-1a, of a text in two parts. */
static size_t hash_parts(const char *a, size_t n_a, const char *b, size_t n_b)
{
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < n_a; i++)
        h = (h ^ (uint8_t)a[i]) * 1099511628211u;
    for (size_t i = 0; i < n_b; i++)
        h = (h ^ (uint8_t)b[i]) * 1099511628211u;
    return (size_t)(h ^ h >> 32);
}

/* The slot of this text, or the empty slot for it. */
static int *find_slot(const struct vocabulary *v, const char *a, size_t n_a, const char *b,
                      size_t n_b)
{
    assert(v->slots && v->n_slots > (size_t)v->n_pieces); // indexed; a search ends at a free slot
    size_t mask = v->n_slots - 1;
    for (size_t i = hash_parts(a, n_a, b, n_b) & mask;; i = (i + 1) & mask) {
        if (v->slots[i] < 0)
            return &v->slots[i];
        const struct vocab_piece *p = &v->pieces[v->slots[i]];
        const char *text = (const char *)v->pool.data + p->offset;
        if (p->n == n_a + n_b && (n_a == 0 || memcmp(text, a, n_a) == 0) &&
            (n_b == 0 || memcmp(text + n_a, b, n_b) == 0))
            return &v->slots[i];
    }
}

quip_status qp_vocabulary_index(struct vocabulary *v, quip_error *error)
{
    v->n_slots = 16;
    while (v->n_slots < (size_t)v->n_pieces * 2)
        v->n_slots *= 2;
    v->slots = malloc(v->n_slots * sizeof *v->slots);
    if (!v->slots)
        return qp_fail_memory(error, "the vocabulary's index", v->n_slots * sizeof *v->slots);
    memset(v->slots, 0xff, v->n_slots * sizeof *v->slots); // -1
    for (int id = 0; id < v->n_pieces; id++) {
        const struct vocab_piece *p = &v->pieces[id];
        int *slot = find_slot(v, (const char *)v->pool.data + p->offset, p->n, "", 0);
        if (p->type && *slot < 0)
            *slot = id;
    }
    return QUIP_OK;
}

int qp_vocabulary_find(const struct vocabulary *v, const char *text, size_t n)
{
    return *find_slot(v, text, n, "", 0);
}

/* ---- contents of the blob ---- */

quip_status qp_vocabulary_merge(struct vocabulary *v, const char *left, size_t n_left,
                                const char *right, size_t n_right, quip_error *error)
{
    // the joined piece does not have the mark of a piece that continues a word
    size_t n_mark = v->spec.continues ? strlen(v->spec.continues) : 0;
    if (n_right < n_mark || memcmp(right, v->spec.continues ? v->spec.continues : "", n_mark) != 0)
        n_mark = 0;
    struct bpe_merge merge = { *find_slot(v, left, n_left, "", 0),
                               *find_slot(v, right, n_right, "", 0),
                               *find_slot(v, left, n_left, right + n_mark, n_right - n_mark) };
    if (merge.left < 0 || merge.right < 0 || merge.result < 0)
        return qp_fail(
            error, QUIP_E_FORMAT,
            "merge %d, of \"%.*s\" and \"%.*s\", has a piece that is not in the vocabulary",
            v->spec.n_merges, (int)(n_left < 60 ? n_left : 60), left,
            (int)(n_right < 60 ? n_right : 60), right);
    if (v->spec.n_merges == v->merges_capacity) {
        int capacity = v->merges_capacity ? v->merges_capacity * 2 : 4096;
        void *grown = realloc(v->spec.merges, (size_t)capacity * sizeof merge);
        if (!grown)
            return qp_fail_memory(error, "the merges", (size_t)capacity * sizeof merge);
        v->spec.merges = grown;
        v->merges_capacity = capacity;
    }
    v->spec.merges[v->spec.n_merges++] = merge;
    return QUIP_OK;
}

quip_status qp_vocabulary_score(struct vocabulary *v, const char *left, size_t n_left,
                                const char *right, size_t n_right, int rank, quip_error *error)
{
    const int id = *find_slot(v, left, n_left, right, n_right);
    if (id < 0)
        return qp_fail(error, QUIP_E_FORMAT,
                       "merge %d makes \"%.*s%.*s\", which is not in the vocabulary", rank,
                       (int)(n_left < 60 ? n_left : 60), left, (int)(n_right < 60 ? n_right : 60),
                       right);
    struct vocab_piece *p = &v->pieces[id];
    if (p->type == PIECE_NORMAL && (p->score == 0 || p->score < -(float)rank - 1))
        p->score = -(float)rank - 1;
    return QUIP_OK;
}

quip_status qp_vocabulary_add(struct vocabulary *v, const struct bpe_added *added,
                              quip_error *error)
{
    if (v->spec.n_added == v->added_capacity) {
        int capacity = v->added_capacity ? v->added_capacity * 2 : 64;
        void *grown = realloc(v->spec.added, (size_t)capacity * sizeof *added);
        if (!grown)
            return qp_fail_memory(error, "the added tokens", (size_t)capacity * sizeof *added);
        v->spec.added = grown;
        v->added_capacity = capacity;
    }
    v->spec.added[v->spec.n_added++] = *added;
    return QUIP_OK;
}

/* ---- writing ---- */

/* Write a piece for an unused id: readers need pieces without gaps. Its name is never found in
 * text. */
static bool write_gap(struct bytes *spm, int id)
{
    char name[32];
    int n = snprintf(name, sizeof name, "<unassigned%d>", id);
    return qp_spm_write_piece(spm, name, (size_t)n, 0, PIECE_UNUSED);
}

quip_status qp_vocabulary_write(const struct vocabulary *v, int limit, struct bytes *spm,
                                struct bytes *bpe, quip_error *error)
{
    int n = limit > 0 && limit < v->n_pieces ? limit : v->n_pieces;
    bool ok = true;
    for (int id = 0; id < n && ok; id++) {
        const struct vocab_piece *p = &v->pieces[id];
        const char *text = (const char *)v->pool.data + p->offset;
        ok = p->type ? qp_spm_write_piece(spm, text, p->n, p->score, p->type) : write_gap(spm, id);
    }
    struct spm_options options = v->options;
    options.vocab_size = n;
    options.charsmap = v->charsmap.data;
    options.n_charsmap = v->charsmap.n;
    ok = ok && qp_spm_write_options(spm, &options);
    if (ok && v->has_blob) {
        struct bpe_spec spec = v->spec;
        spec.n_added = 0; // those past the limit are dropped; they are in the order of their ids
        while (spec.n_added < v->spec.n_added && v->spec.added[spec.n_added].id < n)
            spec.n_added++;
        spec.scores = v->scores;
        spec.n_scores = v->scores ? n : 0;
        ok = qp_bpe_blob_write(&spec, bpe);
    }
    return ok ? QUIP_OK : qp_fail_memory(error, "the tokenizer", spm->n + bpe->n);
}
