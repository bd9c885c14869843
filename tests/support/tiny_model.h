/* tiny_model.h: model files of a few hundred kilobytes with random weights, made from a seed, so
 * that the tests of the engine need no downloads. The vocabulary is <pad> <eos> <bos> <unk>, turn
 * markers, 256 bytes, letters and a few words. */
#ifndef TINY_MODEL_H
#define TINY_MODEL_H

#include "format/format.h"

struct tiny_model {
    const char *architecture; // a name of families.c
    enum dtype attention, feed_forward, embedding;
    int n_layers, d_model, d_ff, n_heads, n_kv_heads, head_dim;
    int window; // of local layers; 0 for architectures without them
    uint64_t seed;
    /* Letters of quip.config for each layer; NULL: attention and dense feed-forwards. */
    const char *layer_types, *ff_types;
    int conv_width;
    int n_experts, n_experts_used, d_ff_expert, d_ff_shared; // the last: beside experts, or 0
    bool has_shared_gate, has_expert_norms;
    /* Gemma 4: what differs by layer. */
    int global_head_dim, global_kv_heads; // of layers G, whose values are their keys
    int n_shared, shared_d_ff;            // the last layers, which share the keys of earlier ones
    int d_ple;
    /* What makes a model unusual, or wrong. Zero means nothing. */
    int vocab_size;     // rows of the embedding; 0 is TINY_VOCAB
    int n_pieces;       // of the vocabulary; 0 is one per row of the embedding
    int letter_bytes;   // length of each letter's piece; 0 is 1
    const char *config; // more lines of quip.config, which override earlier ones
    int lie;            // TransformerParameters has `lie_value` in this field,
    bool lie_is_float;  // as a varint, or as the bits of a float
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

/* Unusual sizes on purpose: no width is a multiple of a block. */
extern const struct tiny_model tiny_gemma3, tiny_llama, tiny_gemma4;
/* Convolutions; experts with a dense layer between; experts beside a gated or a normed one. */
extern const struct tiny_model tiny_lfm2, tiny_experts, tiny_shared_experts, tiny_normed_experts;
/* The smallest model with every feature: gemma3, one local and one global layer, 30 kilobytes. */
extern const struct tiny_model tiny_smallest;

/* `base` with all matrices of one type. */
struct tiny_model tiny_with(struct tiny_model base, enum dtype dtype);
quip_status tiny_model_write(const char *path, const struct tiny_model *m, quip_error *error);

#endif
