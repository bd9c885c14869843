/* tiny_model.h: model files of a few hundred kilobytes with random weights, made from a seed, so
 * that every test of the engine runs for a stranger. Vocabulary: <pad> <eos> <bos> <unk>, turn
 * markers, 256 bytes, then letters and a few words. */
#ifndef TINY_MODEL_H
#define TINY_MODEL_H

#include "format/format.h"

struct tiny_model {
    const char *architecture; // of arch.c
    enum dtype attention, feed_forward, embedding;
    int n_layers, d_model, d_ff, n_heads, n_kv_heads, head_dim;
    int window; // of local layers; 0 for architectures without them
    uint64_t seed;
    /* What makes a model odd, or wrong; nothing when zero. */
    int n_pieces;       // of the vocabulary; 0 is TINY_VOCAB, one a row of the embedding
    int letter_bytes;   // each letter's piece is that long; 0 is 1
    const char *config; // more lines of quip.config, which win over those before
    int lie;            // LlmParameters' transformer says `lie_value` in this field,
    bool lie_is_float;  // a varint, or the bits of a float
    uint64_t lie_value;
};

#define TINY_VOCAB 300
enum tiny_token {
    TINY_PAD,
    TINY_EOS,
    TINY_BOS,
    TINY_UNK,
    TINY_TURN,
    TINY_END
};

/* Odd sizes on purpose: no width is a multiple of a block. */
extern const struct tiny_model tiny_gemma3, tiny_llama;
/* The smallest with everything in it: gemma3, one local and one global layer, 30 kilobytes. */
extern const struct tiny_model tiny_smallest;

/* `base` with all matrices of one type. */
struct tiny_model tiny_with(struct tiny_model base, enum dtype dtype);
quip_status tiny_model_write(const char *path, const struct tiny_model *m, quip_error *error);

#endif
