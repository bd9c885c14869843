/* merge.c: byte-pair merging, the inner loop of SentencePiece BPE and of byte-level BPE.
 * In:  symbols: characters of a text, or bytes that are tokens.
 * Out: the list after merging the best pair repeatedly, until no pair can merge. The best pair has
 *      the lowest order (rank, or highest score); of equal pairs it is the leftmost.
 *
 * A pair can merge if the vocabulary has its concatenation (SentencePiece, which has no list of
 * merges) or if the list of merges has the pair (byte-level BPE). Words are short, so a scan finds
 * the best pair. Text that cannot be divided into words uses a heap, in O(n log n). */
#include "tokenizer/merger.h"
#include "tokenizer/tokenizer_impl.h"

#include <assert.h>
#include <stdlib.h>

enum {
    SCAN_MAX = 48 // symbols; the heap is faster for more
};

static uint32_t merge_hash(uint64_t pair)
{
    return (uint32_t)((pair * 0x9E3779B97F4A7C15u) >> 32);
}

static bool find_merge(const struct rules *b, quip_token left, quip_token right,
                       struct merge_candidate *c)
{
    uint64_t pair = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) + 1;
    for (uint32_t i = merge_hash(pair);; i++) {
        const struct merge_slot *slot = &b->slots[i & b->mask];
        if (slot->pair == pair) {
            c->order = slot->rank;
            c->result = slot->result;
            return true;
        }
        if (slot->pair == 0)
            return false;
    }
}

void qp_merge_add(struct rules *b, const struct bpe_merge *merge, uint32_t rank)
{
    uint64_t pair = ((uint64_t)(uint32_t)merge->left << 32 | (uint32_t)merge->right) + 1;
    uint32_t i = merge_hash(pair);
    for (;; i++) {
        const struct merge_slot *slot = &b->slots[i & b->mask];
        if (slot->pair == pair)
            return; // a merge that is listed twice has its first rank
        if (slot->pair == 0)
            break;
    }
    b->slots[i & b->mask] = (struct merge_slot){ pair, rank, merge->result };
}

/* Whether these neighbours can merge; if so, *c is the merge. */
static bool find_pair(struct merger *m, const struct symbol *left, const struct symbol *right,
                      struct merge_candidate *c)
{
    if (left->is_frozen || right->is_frozen)
        return false;
    c->n = left->n + right->n;
    const struct tokenizer *t = m->t;
    if (t->rules)
        return find_merge(t->rules, left->id, right->id, c);
    if (c->n > t->max_piece_bytes)
        return false;
    c->result = qp_spm_find(t, m->text + left->begin, c->n, false);
    if (c->result == NO_TOKEN)
        return false;
    const struct piece *piece = &t->pieces[c->result];
    c->order = piece->order;
    if (piece->type == PIECE_UNUSED)
        m->splits[c->result] = left->n;
    return true;
}

/* ---- short lists: scan for the best pair ---- */

static void scan_merges(struct merger *m)
{
    struct merge_candidate pairs[SCAN_MAX]; // pairs[i]: symbols i and i + 1
    struct symbol *s = m->symbols;
    int n = m->n_symbols;
    assert(n <= SCAN_MAX);
    for (int i = 0; i + 1 < n; i++)
        if (!find_pair(m, &s[i], &s[i + 1], &pairs[i]))
            pairs[i].result = NO_TOKEN;
    for (;;) {
        int best = -1;
        for (int i = 0; i + 1 < n; i++)
            if (pairs[i].result != NO_TOKEN && (best < 0 || pairs[i].order < pairs[best].order))
                best = i;
        if (best < 0)
            break;
        s[best].n = pairs[best].n;
        s[best].id = pairs[best].result;
        n--;
        for (int i = best + 1; i < n; i++)
            s[i] = s[i + 1];
        for (int i = best; i + 1 < n; i++)
            pairs[i] = pairs[i + 1];
        if (best > 0 && !find_pair(m, &s[best - 1], &s[best], &pairs[best - 1]))
            pairs[best - 1].result = NO_TOKEN;
        if (best + 1 < n && !find_pair(m, &s[best], &s[best + 1], &pairs[best]))
            pairs[best].result = NO_TOKEN;
    }
    m->n_symbols = n;
}

/* ---- long lists: a heap of pairs, some of which have changed since they were pushed ---- */

static bool merges_before(const struct merge_candidate *a, const struct merge_candidate *b)
{
    return a->order != b->order ? a->order < b->order : a->left < b->left;
}

static void heap_push(struct merge_candidate *heap, int *n, struct merge_candidate c)
{
    assert(*n >= 0);
    int i = (*n)++;
    for (; i > 0 && merges_before(&c, &heap[(i - 1) / 2]); i = (i - 1) / 2)
        heap[i] = heap[(i - 1) / 2];
    heap[i] = c;
}

static struct merge_candidate heap_pop(struct merge_candidate *heap, int *n)
{
    assert(*n > 0);
    struct merge_candidate top = heap[0], last = heap[--*n];
    int i = 0;
    for (int child = 1; child < *n; child = 2 * i + 1) {
        if (child + 1 < *n && merges_before(&heap[child + 1], &heap[child]))
            child++;
        if (!merges_before(&heap[child], &last))
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return top;
}

static void push_pair(struct merger *m, int *n_heap, int left)
{
    struct symbol *s = m->symbols;
    struct merge_candidate c;
    if (left < 0 || s[left].next < 0 || !find_pair(m, &s[left], &s[s[left].next], &c))
        return;
    c.left = (uint32_t)left;
    assert(*n_heap < 2 * m->heap_capacity);
    heap_push(m->heap, n_heap, c);
}

/* Allocate the heap for n symbols: n - 1 pairs at first; each merge removes one and adds at most
 * two. */
static bool reserve_heap(struct merger *m)
{
    if (m->heap_capacity >= m->n_symbols)
        return true;
    struct merge_candidate *heap = realloc(m->heap, 2 * (size_t)m->n_symbols * sizeof *heap);
    if (!heap)
        return false;
    m->heap = heap;
    m->heap_capacity = m->n_symbols;
    return true;
}

static bool heap_merges(struct merger *m)
{
    if (!reserve_heap(m))
        return false;
    struct symbol *s = m->symbols;
    int n = m->n_symbols, n_heap = 0;
    for (int i = 0; i < n; i++) {
        s[i].prev = i - 1;
        s[i].next = i + 1 < n ? i + 1 : -1;
    }
    for (int i = 0; i + 1 < n; i++)
        push_pair(m, &n_heap, i);
    while (n_heap > 0) {
        struct merge_candidate c = heap_pop(m->heap, &n_heap);
        struct symbol *left = &s[c.left];
        if (left->n == 0 || left->next < 0 || left->n + s[left->next].n != c.n)
            continue;
        struct symbol *right = &s[left->next];
        left->n = c.n;
        left->id = c.result;
        left->next = right->next;
        right->n = 0;
        if (left->next >= 0)
            s[left->next].prev = (int)c.left;
        push_pair(m, &n_heap, left->prev);
        push_pair(m, &n_heap, (int)c.left);
    }
    int n_left = 0;
    for (int i = 0; i < n; i++)
        if (s[i].n > 0)
            s[n_left++] = s[i];
    m->n_symbols = n_left;
    return true;
}

bool qp_merger_run(struct merger *m)
{
    if (m->n_symbols > SCAN_MAX)
        return heap_merges(m);
    scan_merges(m);
    return true;
}

/* ---- the list ---- */

bool qp_merger_open(struct merger *m, const struct tokenizer *t, const char *text)
{
    *m = (struct merger){ .t = t, .text = text };
    if (!t->has_unused || t->rules)
        return true;
    m->splits = calloc((size_t)t->n_pieces, sizeof *m->splits);
    return m->splits != NULL;
}

void qp_merger_close(struct merger *m)
{
    free(m->symbols);
    free(m->heap);
    free(m->splits);
    *m = (struct merger){ 0 };
}

bool qp_merger_add(struct merger *m, uint32_t begin, uint32_t n, quip_token id, bool is_frozen)
{
    if (m->n_symbols == m->capacity) {
        int capacity = m->capacity ? 2 * m->capacity : SCAN_MAX;
        struct symbol *symbols = realloc(m->symbols, (size_t)capacity * sizeof *symbols);
        if (!symbols)
            return false;
        m->symbols = symbols;
        m->capacity = capacity;
    }
    m->symbols[m->n_symbols++] =
        (struct symbol){ .begin = begin, .n = n, .id = id, .is_frozen = is_frozen };
    return true;
}
