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

/* `base` with all matrices of one type. */
struct tiny_model tiny_with(struct tiny_model base, enum dtype dtype);
quip_status tiny_model_write(const char *path, const struct tiny_model *m, quip_error *error);

#endif
