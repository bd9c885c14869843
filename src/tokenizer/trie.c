/* trie.c: a set of strings, to find the longest that a text begins with.
 * In:  strings with an id each, their total length known before.
 * Out: a walk of one hash probe per byte. Never more than one node per byte of the strings. */
#include "tokenizer/tokenizer_impl.h"

#include <assert.h>

void qp_trie_take(struct trie *trie, struct arena *arena, uint32_t n_bytes)
{
    assert(n_bytes <= TRIE_MAX_BYTES);
    uint32_t n_slots = 2;
    while (n_slots < 2 * n_bytes)
        n_slots *= 2;
    trie->mask = n_slots - 1;
    trie->max_nodes = n_bytes + 1;
    trie->n_nodes = 1;
    trie->edges = qp_arena_take(arena, n_slots * sizeof *trie->edges);
    trie->values = qp_arena_take(arena, trie->max_nodes * sizeof *trie->values);
}

static uint32_t add_child(struct trie *trie, uint32_t node, uint8_t byte)
{
    assert(trie->n_nodes < trie->max_nodes);
    uint32_t child = trie->n_nodes++;
    if (node == 0)
        return trie->first[byte] = child;
    uint32_t key = (node << 8 | byte) + 1;
    uint32_t i = (key * 0x9E3779B1u) >> 7; // as in qp_trie_step
    while (trie->edges[i & trie->mask].key)
        i++;
    trie->edges[i & trie->mask] = (struct trie_edge){ key, child };
    return child;
}

void qp_trie_add(struct trie *trie, const char *text, size_t n, quip_token id)
{
    uint32_t node = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t child = qp_trie_step(trie, node, (uint8_t)text[i]);
        node = child ? child : add_child(trie, node, (uint8_t)text[i]);
    }
    if (n > 0 && trie->values[node] == 0)
        trie->values[node] = id + 1;
}

size_t qp_trie_longest(const struct trie *trie, const char *text, size_t n, quip_token *id)
{
    size_t longest = 0;
    uint32_t node = 0;
    for (size_t i = 0; i < n; i++) {
        node = qp_trie_step(trie, node, (uint8_t)text[i]);
        if (node == 0)
            break;
        if (trie->values[node]) {
            *id = trie->values[node] - 1;
            longest = i + 1;
        }
    }
    return longest;
}
