/* family.c: the model families that can be converted, as tables: what each is called, which
 * tensors it has under which names, and the fixed model types of the format.
 * A new family is a row in each table. */
#include "convert/convert_impl.h"

#include <string.h>

static const struct family families[] = {
    {
        .id = FAMILY_LLAMA,
        .name = "llama",
        .hf_names = { "llama" },
        .title = "LLAMA",
        .activation = "silu",
        .rope_theta = 1e4,
    },
    {
        .id = FAMILY_GEMMA,
        .name = "gemma",
        .hf_names = { "gemma" },
        .title = "GEMMA",
        .activation = "gelu_pytorch_tanh",
        .stops = { "<eos>" },
        .is_gemma = true,
        .head_dim = 256,
        .rope_theta = 1e4,
    },
    {
        .id = FAMILY_GEMMA2,
        .name = "gemma2",
        .hf_names = { "gemma2" },
        .title = "GEMMA2",
        .activation = "gelu_pytorch_tanh",
        .stops = { "<eos>" },
        .is_gemma = true,
        .has_post_norms = true,
        .head_dim = 256,
        .window = 4096,
        .global_every = 2,
        .rope_theta = 1e4,
        .attention_cap = 50,
        .logits_cap = 30,
    },
    {
        // The defaults are those of Gemma3TextConfig, on which the 4B to 27B folders rely.
        .id = FAMILY_GEMMA3,
        .name = "gemma3",
        .hf_names = { "gemma3_text", "gemma3" },
        .title = "GEMMA3",
        .activation = "gelu_pytorch_tanh",
        .stops = { "<eos>", "<end_of_turn>" },
        .is_gemma = true,
        .has_post_norms = true,
        .has_qk_norm = true,
        .n_heads = 8,
        .n_kv_heads = 4,
        .head_dim = 256,
        .vocab_size = 262208,
        .n_context = 131072,
        .window = 4096,
        .global_every = 6,
        .rope_theta = 1e6,
        .rope_local_theta = 1e4,
    },
};

static const struct model_type model_types[] = {
    { FAMILY_GEMMA, 18, 2048, "GEMMA_2B", 6 },     { FAMILY_GEMMA, 28, 3072, "GEMMA_7B", 12 },
    { FAMILY_GEMMA2, 26, 2304, "GEMMA2_2B", 18 },  { FAMILY_GEMMA3, 18, 640, "GEMMA3_300M", 38 },
    { FAMILY_GEMMA3, 26, 1152, "GEMMA3_1B", 27 },  { FAMILY_GEMMA3, 34, 2560, "GEMMA3_4B", 28 },
    { FAMILY_GEMMA3, 48, 3840, "GEMMA3_12B", 29 }, { FAMILY_GEMMA3, 62, 5376, "GEMMA3_27B", 30 },
};

#define LAYER "transformer.x_layers_%d."
#define HF "model.layers.%d."
#define BLK "blk.%d."
#define GEMMAS (FAMILY_GEMMA | FAMILY_GEMMA2 | FAMILY_GEMMA3)
#define POST_NORMS (FAMILY_GEMMA2 | FAMILY_GEMMA3)
#define ONE_NORM (FAMILY_LLAMA | FAMILY_GEMMA)
#define EVERY (FAMILY_LLAMA | GEMMAS)

/* In the order in which the tensors are used. Targets lack their common "params.lm." */
// clang-format off
const struct tensor_row qp_tensor_rows[] = {
    { EVERY, "softmax.logits_ffn.w", "model.embed_tokens.weight", "token_embd.weight",
      CLASS_EMBEDDING, EXTENT_VOCAB, EXTENT_MODEL, TYING_TIED, false },
    { FAMILY_LLAMA, "token_embedding.w", "model.embed_tokens.weight", "token_embd.weight",
      CLASS_EMBEDDING, EXTENT_VOCAB, EXTENT_MODEL, TYING_UNTIED, false },

    { EVERY, LAYER "pre_layer_norm.scale", HF "input_layernorm.weight", BLK "attn_norm.weight",
      CLASS_VECTOR, EXTENT_MODEL, EXTENT_NONE, TYING_ANY, false },
    { EVERY, LAYER "self_attention.q.w", HF "self_attn.q_proj.weight", BLK "attn_q.weight",
      CLASS_ATTENTION, EXTENT_Q, EXTENT_MODEL, TYING_ANY, true },
    { EVERY, LAYER "self_attention.k.w", HF "self_attn.k_proj.weight", BLK "attn_k.weight",
      CLASS_ATTENTION, EXTENT_KV, EXTENT_MODEL, TYING_ANY, true },
    { EVERY, LAYER "self_attention.v.w", HF "self_attn.v_proj.weight", BLK "attn_v.weight",
      CLASS_ATTENTION, EXTENT_KV, EXTENT_MODEL, TYING_ANY, false },
    { FAMILY_GEMMA3, LAYER "self_attention.q_norm.scale", HF "self_attn.q_norm.weight",
      BLK "attn_q_norm.weight", CLASS_VECTOR, EXTENT_HEAD, EXTENT_NONE, TYING_ANY, false },
    { FAMILY_GEMMA3, LAYER "self_attention.k_norm.scale", HF "self_attn.k_norm.weight",
      BLK "attn_k_norm.weight", CLASS_VECTOR, EXTENT_HEAD, EXTENT_NONE, TYING_ANY, false },
    { EVERY, LAYER "self_attention.post.w", HF "self_attn.o_proj.weight", BLK "attn_output.weight",
      CLASS_ATTENTION, EXTENT_MODEL, EXTENT_Q, TYING_ANY, false },
    { POST_NORMS, LAYER "post_layer_norm.scale", HF "post_attention_layernorm.weight",
      BLK "post_attention_norm.weight", CLASS_VECTOR, EXTENT_MODEL, EXTENT_NONE, TYING_ANY, false },

    // Gemma 2 and 3 moved the name: what was this norm is now the one after attention.
    { ONE_NORM, LAYER "ff_layer.pre_layer_norm.scale", HF "post_attention_layernorm.weight",
      BLK "ffn_norm.weight", CLASS_VECTOR, EXTENT_MODEL, EXTENT_NONE, TYING_ANY, false },
    { POST_NORMS, LAYER "ff_layer.pre_layer_norm.scale", HF "pre_feedforward_layernorm.weight",
      BLK "ffn_norm.weight", CLASS_VECTOR, EXTENT_MODEL, EXTENT_NONE, TYING_ANY, false },
    { EVERY, LAYER "ff_layer.ffn_layer1_gate.w", HF "mlp.gate_proj.weight", BLK "ffn_gate.weight",
      CLASS_FEED_FORWARD, EXTENT_FF, EXTENT_MODEL, TYING_ANY, false },
    { EVERY, LAYER "ff_layer.ffn_layer1.w", HF "mlp.up_proj.weight", BLK "ffn_up.weight",
      CLASS_FEED_FORWARD, EXTENT_FF, EXTENT_MODEL, TYING_ANY, false },
    { EVERY, LAYER "ff_layer.ffn_layer2.w", HF "mlp.down_proj.weight", BLK "ffn_down.weight",
      CLASS_FEED_FORWARD, EXTENT_MODEL, EXTENT_FF, TYING_ANY, false },
    { POST_NORMS, LAYER "ff_layer.post_layer_norm.scale", HF "post_feedforward_layernorm.weight",
      BLK "post_ffw_norm.weight", CLASS_VECTOR, EXTENT_MODEL, EXTENT_NONE, TYING_ANY, false },

    { EVERY, "final_ln.scale", "model.norm.weight", "output_norm.weight",
      CLASS_VECTOR, EXTENT_MODEL, EXTENT_NONE, TYING_ANY, false },
    { FAMILY_LLAMA, "softmax.logits_ffn.w", "lm_head.weight", "output.weight",
      CLASS_EMBEDDING, EXTENT_VOCAB, EXTENT_MODEL, TYING_UNTIED, false },
};
// clang-format on
const int qp_n_tensor_rows = QP_COUNT(qp_tensor_rows);

bool qp_tensor_row_is_layered(const struct tensor_row *row)
{
    return strstr(row->target, "%d") != NULL;
}

static bool family_has_name(const struct family *f, const char *name, bool is_gguf)
{
    if (is_gguf)
        return strcmp(f->name, name) == 0;
    for (size_t i = 0; i < QP_COUNT(f->hf_names) && f->hf_names[i]; i++)
        if (strcmp(f->hf_names[i], name) == 0)
            return true;
    return false;
}

const struct family *qp_family_find(const char *name, bool is_gguf)
{
    for (size_t i = 0; i < QP_COUNT(families); i++)
        if (family_has_name(&families[i], name, is_gguf))
            return &families[i];
    return NULL;
}

const struct model_type *qp_model_type_find(enum family_id family, int n_layers, int d_model)
{
    for (size_t i = 0; i < QP_COUNT(model_types); i++) {
        const struct model_type *t = &model_types[i];
        if (t->family == family && t->n_layers == n_layers && t->d_model == d_model)
            return t;
    }
    return NULL;
}
