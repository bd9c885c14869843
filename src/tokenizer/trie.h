/* trie.h: a set of strings; finds the longest one that a text begins with (trie.c). */
#ifndef QP_TRIE_H
#define QP_TRIE_H

#include "tokenizer/tokenizer.h"

/* Nodes are numbers; 0 is the root. Edges are in a hash table whose key is node and byte, so a trie
 * needs only two blocks of memory. All-zero is empty. */
struct trie_edge {
    uint32_t key; // qp_trie_key; 0 is a free slot
    uint32_t child;
};
struct trie {
    struct trie_edge *edges; // [mask + 1]
    uint32_t mask;
    quip_token *values; // [max_nodes]: the id of the string that ends here, plus 1; 0 for none
    uint32_t n_nodes, max_nodes;
    uint32_t first[256]; // children of the root; 0 for none
};

/* A string that is added twice keeps its first id. */
quip_status qp_trie_add(struct trie *trie, const char *text, size_t n, quip_token id,
                        quip_error *error);
void qp_trie_close(struct trie *trie);
size_t qp_trie_memory(const struct trie *trie); // bytes it owns
/* Length of the longest string that text[0, n) begins with, and its id; 0 for none. */
size_t qp_trie_longest(const struct trie *trie, const char *text, size_t n, quip_token *id);
/* The id of text[0, n) itself, or NO_TOKEN. */
quip_token qp_trie_find(const struct trie *trie, const char *text, size_t n);

static inline uint32_t qp_trie_key(uint32_t node, uint8_t byte) // node > 0
{
    return node << 8 | byte;
}

static inline uint32_t qp_trie_hash(uint32_t key)
{
    return (key * 0x9E3779B1u) >> 6;
}

/* The child of `node` along `byte`; 0 if there is none. */
static inline uint32_t qp_trie_step(const struct trie *trie, uint32_t node, uint8_t byte)
{
    if (node == 0)
        return trie->first[byte];
    assert(node < trie->n_nodes);
    uint32_t key = qp_trie_key(node, byte);
    for (uint32_t i = qp_trie_hash(key);; i++) {
        const struct trie_edge *edge = &trie->edges[i & trie->mask];
        if (edge->key == key)
            return edge->child;
        if (edge->key == 0)
            return 0;
    }
}

#endif
