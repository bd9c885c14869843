/* vocabulary.h: pieces and merges -> SentencePiece proto and quip.tokenizer (vocabulary.c). */
#ifndef QP_VOCABULARY_H
#define QP_VOCABULARY_H

#include "tokenizer/tokenizer.h"

struct vocab_piece {
    size_t offset, n; // in the pool
    float score;
    enum piece_type type; // 0: not set yet
};
/* Pieces by id, and the contents of the blob. Texts are copied. */
struct vocabulary {
    struct bytes pool;
    struct vocab_piece *pieces;
    int n_pieces;
    int *slots; // hash table of ids, -1 empty; NULL until qp_vocabulary_index
    size_t n_slots;
    struct spm_options options;
    bool has_blob;         // a proto alone cannot express it, as for byte-level BPE
    bool is_own_bpe;       // SentencePiece would merge otherwise than the list of merges
    double *scores;        // [n_pieces] of Hugging Face's unigram models, else NULL
    struct bytes charsmap; // for the normalizer_spec; empty for none
    struct bpe_spec spec;  // its texts are borrowed
    int merges_capacity, added_capacity;
};
quip_status qp_vocabulary_open(struct vocabulary *v, int n_pieces, quip_error *error);
void qp_vocabulary_close(struct vocabulary *v);
quip_status qp_vocabulary_set(struct vocabulary *v, int id, const char *text, size_t n, float score,
                              enum piece_type type, quip_error *error);
quip_status qp_vocabulary_index(struct vocabulary *v, quip_error *error);
/* After qp_vocabulary_index. -1 if there is no such piece; the first of equal pieces. */
int qp_vocabulary_find(const struct vocabulary *v, const char *text, size_t n);
/* Add the next merge in rank order. Both halves and their concatenation must be pieces. */
quip_status qp_vocabulary_merge(struct vocabulary *v, const char *left, size_t n_left,
                                const char *right, size_t n_right, quip_error *error);
/* The score of a piece is the rank of its first merge, as SentencePiece merges by the score of the
 * result. */
quip_status qp_vocabulary_score(struct vocabulary *v, const char *left, size_t n_left,
                                const char *right, size_t n_right, int rank, quip_error *error);
quip_status qp_vocabulary_add(struct vocabulary *v, const struct bpe_added *added,
                              quip_error *error);
/* Write at most `limit` pieces (0: all). */
quip_status qp_vocabulary_write(const struct vocabulary *v, int limit, struct bytes *spm,
                                struct bytes *bpe, quip_error *error);

#endif
