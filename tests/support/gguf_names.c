/* gguf_names.c */
#include "support/gguf_names.h"

#include "base/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The tensors of a layer (Hugging Face's name without the words before the number of the layer),
 * and the others (the whole name without "model." and the like). */
static const struct {
    const char *hf, *gguf;
} names[] = {
    { "input_layernorm", "attn_norm" },
    { "ln_1", "attn_norm" },
    { "ln_mlp", "attn_norm" },
    { "ln_attn", "attn_norm_2" },
    { "self_attn.q_proj", "attn_q" },
    { "self_attn.k_proj", "attn_k" },
    { "self_attn.v_proj", "attn_v" },
    { "self_attn.o_proj", "attn_output" },
    { "self_attn.q_norm", "attn_q_norm" },
    { "self_attn.k_norm", "attn_k_norm" },
    { "self_attention.query_key_value", "attn_qkv" },
    { "attention.query_key_value", "attn_qkv" },
    { "attn.c_attn", "attn_qkv" },
    { "self_attention.dense", "attn_output" },
    { "attention.dense", "attn_output" },
    { "attn.c_proj", "attn_output" },
    { "ln_2", "ffn_norm" },
    { "mlp.gate_proj", "ffn_gate" },
    { "mlp.up_proj", "ffn_up" },
    { "mlp.down_proj", "ffn_down" },
    { "mlp.c_fc", "ffn_up" },
    { "mlp.c_proj", "ffn_down" },
    { "mlp.dense_h_to_4h", "ffn_up" },
    { "mlp.dense_4h_to_h", "ffn_down" },
    { "post_feedforward_layernorm", "post_ffw_norm" },
    { "embed_tokens", "token_embd" },
    { "word_embeddings", "token_embd" },
    { "wte", "token_embd" },
    { "embed_in", "token_embd" },
    { "wpe", "position_embd" },
    { "norm", "output_norm" },
    { "ln_f", "output_norm" },
    { "final_layer_norm", "output_norm" },
    { "lm_head", "output" },
    { "embed_out", "output" },
    { "embeddings.word_embeddings", "token_embd" },
    { "embeddings.position_embeddings", "position_embd" },
    { "embeddings.token_type_embeddings", "token_types" },
    { "embeddings.LayerNorm", "token_embd_norm" },
    { "attention.self.query", "attn_q" },
    { "attention.self.key", "attn_k" },
    { "attention.self.value", "attn_v" },
    { "attention.output.dense", "attn_output" },
    { "attention.output.LayerNorm", "attn_output_norm" },
    { "intermediate.dense", "ffn_up" },
    { "output.dense", "ffn_down" },
    { "output.LayerNorm", "layer_output_norm" },
    { "pre_feedforward_layernorm", "ffn_norm" },
    { "2_Dense", "dense_2" },
    { "3_Dense", "dense_3" },
};

struct gguf_name gguf_name_of(const char *hf, const char *post_norm)
{
    static const char *const words[] = { "model.",         "transformer.", "gpt_neox.",
                                         "encoder.layer.", "layers.",      "h." };
    struct gguf_name name = { .layer = -1 };
    char stem[100];
    const char *suffix = strrchr(hf, '.');
    assert_non_null(suffix);
    for (size_t i = 0; i < QP_COUNT(words); i++)
        if (strncmp(hf, words[i], strlen(words[i])) == 0)
            hf += strlen(words[i]);
    char *end;
    const long number = strtol(hf, &end, 10);
    if (end > hf && *end == '.') {
        name.layer = (int)number;
        hf = end + 1;
    }
    snprintf(stem, sizeof stem, "%.*s", (int)(suffix - hf), hf);
    if (strcmp(stem, "post_attention_layernorm") == 0)
        name.stem = post_norm;
    for (size_t i = 0; i < QP_COUNT(names); i++)
        if (strcmp(names[i].hf, stem) == 0)
            name.stem = names[i].gguf;
    if (name.stem && name.layer < 0)
        snprintf(name.whole, sizeof name.whole, "%s%s", name.stem, suffix);
    else if (name.stem)
        snprintf(name.whole, sizeof name.whole, "blk.%d.%s%s", name.layer, name.stem, suffix);
    return name;
}
