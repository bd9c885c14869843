/* gguf_vocabulary.h: the vocabulary in GGUF metadata, piece by piece, and the tokenizer.json that
 * some kinds of vocabularies become (gguf_vocabulary.c). */
#ifndef QP_GGUF_VOCABULARY_H
#define QP_GGUF_VOCABULARY_H

#include "format/format.h"
#include "tokenizer/tokenizer.h"

#include <cjson/cJSON.h>

/* The lists of a vocabulary, with one item for each piece. */
struct gguf_lists {
    const struct metadata *tokens, *types;
    const struct metadata *scores; // NULL if they are not needed
    int n;
};
quip_status qp_gguf_find_lists(struct format *gguf, bool needs_scores, struct gguf_lists *lists,
                               quip_error *error);

/* One piece. Start with a zeroed struct; each call reads the piece with the next id. */
struct gguf_piece {
    int id;
    const char *text; // [n_text] in the file's bytes
    size_t n_text;
    int64_t type; // enum piece_type, but the file may have any number
    double score;
    struct metadata_cursor tokens, types, scores;
};
quip_status qp_gguf_next_piece(struct format *gguf, const struct gguf_lists *lists,
                               struct gguf_piece *piece, quip_error *error);

/* A tokenizer.json that a vocabulary becomes. */
struct gguf_json {
    struct format *gguf;
    struct gguf_lists lists;
    cJSON *json, *model, *vocab, *added; // the others are parts of the first
    quip_error *error;
};
/* Begin with the type of the model, an empty vocabulary (`vocab`, which becomes a part) and no
 * added tokens. qp_gguf_json_close is needed also after a failure. */
quip_status qp_gguf_json_open(struct gguf_json *j, struct format *gguf, bool needs_scores,
                              const char *type, cJSON *vocab, quip_error *error);
/* The next piece: a string of C without its end, of type NORMAL, UNKNOWN, CONTROL or UNUSED. */
quip_status qp_gguf_json_next_piece(struct gguf_json *j, struct gguf_piece *piece);
bool qp_gguf_is_special(const struct gguf_piece *piece); // UNKNOWN or CONTROL
bool qp_gguf_json_add_special(struct gguf_json *j, int id, const char *text);
/* Refuse a token that was added to the vocabulary. */
quip_status qp_gguf_json_fail_added(const struct gguf_json *j, const struct gguf_piece *piece);
quip_status qp_gguf_json_fail_memory(const struct gguf_json *j);
/* *json is the result if `status` is QUIP_OK; else *json does not change. Returns `status`. */
quip_status qp_gguf_json_close(struct gguf_json *j, quip_status status, cJSON **json);

#endif
