/* piece_index.c: a hash table from the texts of pieces to their ids.
 * In:  the pieces of a vocabulary.
 * Out: the id of a text; and before which bytes of a text no piece contains a space.
 *
 * The table is built when it is first used, in memory that is allocated at open. So opening a model
 * does not wait for it, and a lookup cannot fail. */
#include "tokenizer/tokenizer_impl.h"

#include <assert.h>

enum {
    BATCH = 32 // pieces that are inserted together
};

static uint64_t load_bytes(const char *s, size_t n)
{
    uint64_t v = 0;
    memcpy(&v, s, n);
    return v;
}

/* Any good mixing works, because the table is never stored. The high half is mixed better: its low
 * bits are the slot, its top bits the tag. */
static uint64_t piece_hash(const char *s, size_t n)
{
    const uint64_t odd = 0x9E3779B97F4A7C15u;
    uint64_t h = n * odd;
    for (; n >= 8; s += 8, n -= 8) {
        h = (h ^ load_bytes(s, 8)) * odd;
        h ^= h >> 29;
    }
    if (n >= 4)
        h ^= load_bytes(s, 4) | load_bytes(s + n - 4, 4) << 32;
    else if (n > 0)
        h ^= (uint8_t)s[0] | (uint64_t)(uint8_t)s[n / 2] << 8 | (uint64_t)(uint8_t)s[n - 1] << 16;
    h *= odd;
    return (h ^ h >> 32) * odd;
}

/* The id in slot i if its piece has this text and is reserved or not as asked; else NO_TOKEN. The
 * models of Hugging Face do not have their unused pieces, which are added tokens. */
static quip_token match_slot(const struct tokenizer *t, uint32_t i, uint32_t tag, const char *text,
                             size_t n, bool reserved)
{
    assert(i <= t->index->slot_mask);
    uint32_t slot = t->index->slots[i];
    if ((slot & ((1u << t->index->tag_bits) - 1)) != tag)
        return NO_TOKEN;
    quip_token id = (quip_token)(slot >> t->index->tag_bits) - 1;
    const struct piece *piece = &t->pieces[id];
    bool is_match = piece->n == n && memcmp(qp_piece_text(t, id), text, n) == 0 &&
                    qp_is_reserved(piece) == reserved && !(t->rules && piece->type == PIECE_UNUSED);
    return is_match ? id : NO_TOKEN;
}

static uint32_t tag_of(const struct tokenizer *t, uint64_t hash)
{
    return (uint32_t)(hash >> 50) & ((1u << t->index->tag_bits) - 1);
}

/* Insert a piece, unless there is already one with the same text. */
static void add_slot(const struct tokenizer *t, quip_token id, uint64_t hash)
{
    const struct piece *piece = &t->pieces[id];
    const char *text = qp_piece_text(t, id);
    bool reserved = qp_is_reserved(piece);
    uint32_t tag = tag_of(t, hash), i = (uint32_t)(hash >> 32) & t->index->slot_mask;
    for (; t->index->slots[i]; i = (i + 1) & t->index->slot_mask)
        if (match_slot(t, i, tag, text, piece->n, reserved) != NO_TOKEN)
            return;
    t->index->slots[i] = (uint32_t)(id + 1) << t->index->tag_bits | tag;
}

/* Text can be divided before a space, unless a piece contains a space after the same byte. Except
 * for runs of spaces, Gemma 3 has one such piece: `>`, a space symbol, `</`. */
static void note_joins(const struct tokenizer *t, quip_token id)
{
    const char *text = qp_piece_text(t, id);
    if (qp_is_reserved(&t->pieces[id]))
        return;
    for (uint32_t i = 1; i + t->n_space <= t->pieces[id].n; i++)
        if (text[i] == t->space[0] && memcmp(text + i, t->space, t->n_space) == 0)
            t->index->joins_space[(uint8_t)text[i - 1]] = true;
}

static void note_all_joins(const struct tokenizer *t)
{
    memset(t->index->joins_space, 0, sizeof t->index->joins_space);
    for (quip_token id = 0; id < t->n_pieces; id++)
        note_joins(t, id);
}

/* The slots are spread over memory, so those of a batch are prefetched together. */
static void fill_slots(const struct tokenizer *t)
{
    uint64_t hashes[BATCH];
    for (quip_token first = 0; first < t->n_pieces; first += BATCH) {
        const int n = t->n_pieces - first < BATCH ? t->n_pieces - first : BATCH;
        for (int i = 0; i < n; i++) {
            hashes[i] = piece_hash(qp_piece_text(t, first + i), t->pieces[first + i].n);
            __builtin_prefetch(&t->index->slots[(uint32_t)(hashes[i] >> 32) & t->index->slot_mask],
                               1);
        }
        for (int i = 0; i < n; i++)
            add_slot(t, first + i, hashes[i]);
    }
}

/* Threads share a tokenizer: the first one builds the index, the others wait. */
static void build_index(const struct tokenizer *t)
{
    struct piece_index *index = t->index;
    pthread_mutex_lock(&index->lock);
    if (!atomic_load_explicit(&index->is_built, memory_order_relaxed)) {
        // already zero, but reading an untouched page before writing it would fault twice
        memset(index->slots, 0, ((size_t)index->slot_mask + 1) * sizeof *index->slots);
        fill_slots(t);
        note_all_joins(t);
        atomic_store_explicit(&index->is_built, true, memory_order_release);
    }
    pthread_mutex_unlock(&index->lock);
}

static void ensure_index(const struct tokenizer *t)
{
    if (!atomic_load_explicit(&t->index->is_built, memory_order_acquire))
        build_index(t);
}

const bool *qp_spm_joins(const struct tokenizer *t)
{
    ensure_index(t);
    return t->index->joins_space;
}

void qp_spm_set_space(struct tokenizer *t, const char *space)
{
    t->space = space;
    t->n_space = (uint32_t)strlen(space);
    if (atomic_load(&t->index->is_built))
        note_all_joins(t);
}

struct piece_index *qp_piece_index_alloc(struct arena *a, int n_pieces)
{
    uint32_t n_slots = 4;
    while (n_slots / 2 < (uint32_t)n_pieces)
        n_slots *= 2;
    struct piece_index *index = qp_arena_alloc(a, sizeof *index);
    uint32_t *slots = qp_arena_alloc(a, n_slots * sizeof *slots);
    if (!index)
        return NULL; // measuring
    index->slots = slots;
    index->slot_mask = n_slots - 1;
    assert(n_pieces > 0 && (uint32_t)n_pieces <= n_slots / 2); // lookups end at a free slot
    index->tag_bits = 32;
    for (uint32_t n = (uint32_t)n_pieces; n > 0; n /= 2) // ids plus 1 are at most n_pieces
        index->tag_bits--;
    atomic_init(&index->is_built, false);
    pthread_mutex_init(&index->lock, NULL);
    return index;
}

quip_token qp_spm_find(const struct tokenizer *t, const char *text, size_t n, bool reserved)
{
    ensure_index(t);
    uint64_t hash = piece_hash(text, n);
    uint32_t tag = tag_of(t, hash);
    for (uint32_t i = (uint32_t)(hash >> 32) & t->index->slot_mask; t->index->slots[i];
         i = (i + 1) & t->index->slot_mask) {
        quip_token id = match_slot(t, i, tag, text, n, reserved);
        if (id != NO_TOKEN)
            return id;
    }
    return NO_TOKEN;
}

quip_token qp_spm_find_any(const struct tokenizer *t, const char *text, size_t n)
{
    quip_token id = qp_spm_find(t, text, n, true);
    return id != NO_TOKEN ? id : qp_spm_find(t, text, n, false);
}
