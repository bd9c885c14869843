/* unigram.c: normalized text to ids, for SentencePiece models of type unigram.
 * In:  text from qp_normalize.
 * Out: the ids of the most likely way to divide it into pieces (Viterbi over byte positions).
 *
 * The score of a path is a float sum from the left, and the first of two equal paths wins.
 * Near-ties depend on this rounding, which is that of SentencePiece 0.1.96 to 0.2.0. Models with a
 * blob follow Hugging Face, which sums doubles and ignores the types of pieces. */
#include "tokenizer/tokenizer_impl.h"

#include <assert.h>
#include <stdlib.h>

#define UNKNOWN_PENALTY 10.0f // below the lowest score of a piece

/* The best path to the position after a piece. */
struct best_path {
    double score;
    uint32_t n; // bytes of its last piece; 0: nothing ends here
    quip_token id;
};

static void offer(const struct tokenizer *t, struct best_path *end, double score, size_t n,
                  quip_token id)
{
    if (end->n == 0 || score > end->score)
        *end = (struct best_path){ t->rules ? score : (float)score, (uint32_t)n, id };
}

static double piece_score(const struct tokenizer *t, quip_token id, size_t n)
{
    const struct piece *piece = &t->pieces[id];
    if (t->rules && t->rules->scores)
        return qp_rules_score(t->rules, id);
    return piece->type == PIECE_USER_DEFINED && !t->rules ? (float)n * t->max_score - 0.1
                                                          : qp_order_score(piece->order);
}

static double unknown_score(const struct tokenizer *t, double so_far)
{
    if (t->rules)
        return so_far + (t->rules->min_score - UNKNOWN_PENALTY);
    return (float)(so_far + (t->min_score - UNKNOWN_PENALTY));
}

/* Offer every piece that text[0, n) begins with to the position where it ends. The first character,
 * which has `length` bytes, is unknown if it is not a piece. */
static void extend_paths(const struct tokenizer *t, const char *text, size_t n, size_t length,
                         struct best_path *from)
{
    double so_far = from->score;
    bool has_single = false;
    uint32_t node = 0;
    for (size_t i = 0; i < n; i++) {
        node = qp_trie_step(&t->all, node, (uint8_t)text[i]);
        if (node == 0)
            break;
        quip_token id = t->all.values[node] - 1;
        if (id == NO_TOKEN || t->pieces[id].type == PIECE_UNUSED)
            continue;
        offer(t, &from[i + 1], so_far + piece_score(t, id, i + 1), i + 1, id);
        has_single |= i + 1 == length;
    }
    if (!has_single)
        offer(t, &from[length], unknown_score(t, so_far), length, t->unk);
}

bool qp_unigram_encode(const struct tokenizer *t, const char *text, size_t n, struct id_sink *sink)
{
    struct best_path *paths = calloc(n + 1, sizeof *paths); // paths[i]: text[0, i)
    if (!paths)
        return false;
    for (size_t i = 0, length; i < n; i += length) {
        length = qp_char_length(text + i, n - i);
        extend_paths(t, text + i, n - i, length, &paths[i]);
    }
    // Go back along the best path and move each piece from its end to its start. There, only the
    // piece that ends at that position is still needed, so it is saved first.
    struct best_path next = paths[n];
    for (size_t begin = n; begin > 0;) {
        struct best_path piece = next;
        assert(piece.n > 0 && piece.n <= begin);
        begin -= piece.n;
        next = paths[begin];
        paths[begin] = piece;
    }
    bool ok = true;
    for (size_t i = 0; ok && i < n; i += paths[i].n)
        ok = qp_sink_append(t, sink, text + i, paths[i].n, paths[i].id);
    free(paths);
    return ok;
}
