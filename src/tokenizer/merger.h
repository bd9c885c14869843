/* merger.h: the inner loop of both kinds of BPE (merge.c), and words that are merged
 * (words.c). */
#ifndef QP_MERGER_H
#define QP_MERGER_H

#include "tokenizer/tokenizer_impl.h"

struct symbol {
    uint32_t begin, n; // its text
    quip_token id;     // NO_TOKEN for a character that was not looked up
    int prev, next;
    bool is_frozen; // never merged
};
struct merge_candidate {
    uint32_t order, left, n; // n: bytes of both sides; if they differ now, the pair has changed
    quip_token result;
};
struct merger {
    const struct tokenizer *t;
    const char *text;
    struct symbol *symbols;
    int n_symbols, capacity;
    struct merge_candidate *heap;
    int heap_capacity;
    uint32_t *splits; // [n_pieces], only with unused pieces: bytes of the left half of the last
                      // pair that could have become this piece
};
bool qp_merger_open(struct merger *m, const struct tokenizer *t, const char *text);
void qp_merger_close(struct merger *m);
bool qp_merger_add(struct merger *m, uint32_t begin, uint32_t n, quip_token id, bool is_frozen);
/* Merge until no pair is a piece. False if there is not enough memory. */
bool qp_merger_run(struct merger *m);

/* words.c: a word of the pre-tokenizer -> ids. */
struct word_encoder {
    const struct tokenizer *t;
    struct tokens *out;
    struct merger merger;
    struct bytes spelled; // a word or a character as the vocabulary spells it
};
bool qp_word_encode(struct word_encoder *e, const char *word, size_t n);
/* wordpiece.c: the same for a model with rules->max_word_chars. */
bool qp_wordpiece_encode(struct word_encoder *e, const char *word, size_t n);

#endif
