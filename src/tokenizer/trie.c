/* trie.c: a set of strings; finds the longest one that a text begins with.
 * In:  strings, each with an id.
 * Out: the longest string, found with one hash probe per byte. The table is at most half full; it
 *      doubles when it grows. */
#include "tokenizer/tokenizer_impl.h"

#include <assert.h>
#include <stdlib.h>

enum {
    TRIE_MIN_NODES = 64,
    TRIE_MAX_NODES = 1 << 24 // a key has 24 bits of node
};

void qp_trie_close(struct trie *trie)
{
    free(trie->edges);
    free(trie->values);
    *trie = (struct trie){ 0 };
}

size_t qp_trie_memory(const struct trie *trie)
{
    return trie->max_nodes * (2 * sizeof *trie->edges + sizeof *trie->values);
}

static void insert_edge(struct trie_edge *edges, uint32_t mask, struct trie_edge edge)
{
    assert(edge.key && edge.child);
    uint32_t i = qp_trie_hash(edge.key);
    while (edges[i & mask].key)
        i++;
    edges[i & mask] = edge;
}

/* Double the capacity. If an allocation fails, the trie is unchanged. */
static bool grow_trie(struct trie *trie)
{
    uint32_t max_nodes = trie->max_nodes ? 2 * trie->max_nodes : TRIE_MIN_NODES;
    uint32_t mask = 2 * max_nodes - 1;
    struct trie_edge *edges = calloc((size_t)mask + 1, sizeof *edges);
    quip_token *values = calloc(max_nodes, sizeof *values);
    if (!edges || !values) {
        free(edges);
        free(values);
        return false;
    }
    if (trie->max_nodes > 0) {
        memcpy(values, trie->values, trie->max_nodes * sizeof *values);
        for (uint32_t i = 0; i <= trie->mask; i++)
            if (trie->edges[i].key)
                insert_edge(edges, mask, trie->edges[i]);
    } else {
        trie->n_nodes = 1; // the root
    }
    free(trie->edges);
    free(trie->values);
    trie->edges = edges;
    trie->values = values;
    trie->mask = mask;
    trie->max_nodes = max_nodes;
    return true;
}

quip_status qp_trie_add(struct trie *trie, const char *text, size_t n, quip_token id,
                        quip_error *error)
{
    assert(id >= 0);
    uint32_t node = 0;
    for (size_t i = 0; i < n; i++) {
        uint8_t byte = (uint8_t)text[i];
        uint32_t child = qp_trie_step(trie, node, byte);
        if (child == 0) {
            if (trie->n_nodes >= TRIE_MAX_NODES)
                return qp_fail(error, QUIP_E_UNSUPPORTED,
                               "tokenizer: the special pieces have more than %d bytes",
                               TRIE_MAX_NODES);
            if (trie->n_nodes >= trie->max_nodes && !grow_trie(trie))
                return qp_fail_memory(error, "the vocabulary", 2 * qp_trie_memory(trie));
            child = trie->n_nodes++;
            if (node == 0)
                trie->first[byte] = child;
            else
                insert_edge(trie->edges, trie->mask,
                            (struct trie_edge){ qp_trie_key(node, byte), child });
        }
        node = child;
    }
    if (node != 0 && trie->values[node] == 0)
        trie->values[node] = id + 1;
    return QUIP_OK;
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

quip_token qp_trie_find(const struct trie *trie, const char *text, size_t n)
{
    quip_token id = NO_TOKEN;
    return n > 0 && qp_trie_longest(trie, text, n, &id) == n ? id : NO_TOKEN;
}
