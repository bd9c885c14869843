/* gguf_names.h: what llama.cpp calls a tensor (gguf 0.19.0: the tables of tensor names). */
#ifndef TEST_GGUF_NAMES_H
#define TEST_GGUF_NAMES_H

struct gguf_name {
    const char *stem; // "attn_q"; NULL: such files do not have the tensor
    int layer;        // -1: of no layer
    char whole[100];  // "blk.0.attn_q.weight"
};

/* `hf` is Hugging Face's name and ends in .weight or .bias; `post_norm` is the stem of
 * post_attention_layernorm, which differs from family to family (NULL: none). */
struct gguf_name gguf_name_of(const char *hf, const char *post_norm);

#endif
