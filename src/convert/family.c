/* family.c: the model families that can be converted, as tables: what each is called, which
 * tensors it has under which names, and the fixed model types of the format.
 * A new family is a row in each table. */
#include "convert/family.h"

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
        .is_tied = true,
        .implies_kv_heads = true,
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
        .is_tied = true,
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
        .is_tied = true,
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
    {
        .id = FAMILY_PHI2,
        .name = "phi2",
        .hf_names = { "phi" },
        .title = "PHI",
        .activation = "gelu_new",
        .stops = { "<|endoftext|>" },
        .norm_eps_key = "layer_norm_eps",
        .demands = { { "qk_layernorm", false, false } },
        .has_layer_norm = true,
        .has_biases = true,
        .has_head_bias = true,
        .is_parallel = true,
        .has_start_id = true,
        .start_id = 50256,
        .implies_kv_heads = true,
        .n_context = 2048,
        .rope_theta = 1e4,
        .rope_fraction = 0.5,
    },
    {
        // Defaults and demands are those of FalconConfig, whose other shapes have no ALiBi.
        .id = FAMILY_FALCON,
        .name = "falcon",
        .hf_names = { "falcon" },
        .title = "FALCON",
        .activation = "gelu",
        .stops = { "<|endoftext|>" },
        .norm_eps_key = "layer_norm_epsilon",
        .d_ff_key = "ffn_hidden_size",
        .activation_key = "activation",
        .demands = { { "alibi", true, false },
                     { "bias", true, false },
                     { "multi_query", false, true },
                     { "parallel_attn", false, true },
                     { "new_decoder_architecture", false, false } },
        .has_layer_norm = true,
        .has_biases = true,
        .has_alibi = true,
        .is_tied = true,
        .has_two_embeddings = true,
        .has_wrong_ids = true,
        .is_hf_only = true,
        .has_start_id = true,
        .start_id = 1,
        .n_context = 2048,
        .d_ff_per_d_model = 4,
        .rope_theta = 1e4,
    },
    {
        .id = FAMILY_STABLELM,
        .name = "stablelm",
        .hf_names = { "stablelm" },
        .title = "STABLELM",
        .activation = "silu",
        .stops = { "<|endoftext|>" },
        .norm_eps_key = "layer_norm_eps",
        .demands = { { "qk_layernorm", false, false },
                     { "use_qkv_bias", false, false },
                     { "use_parallel_residual", false, false } },
        .has_layer_norm = true,
        .has_start_id = true,
        .start_id = 0,
        .implies_kv_heads = true,
        .n_context = 4096,
        .rope_theta = 1e4,
        .rope_fraction = 0.25,
    },
};

#define SIZES(vocab, layers, d_model, d_ff, heads, kv_heads)                                       \
    "\"vocab_size\": " #vocab ", \"num_hidden_layers\": " #layers ", \"hidden_size\": " #d_model   \
    ", \"intermediate_size\": " #d_ff ", \"num_attention_heads\": " #heads                         \
    ", \"num_key_value_heads\": " #kv_heads
#define GEMMA(type, rest) "{\"model_type\": \"" type "\", \"head_dim\": 256, " rest "}"
#define GEMMA3(window, scale, rest)                                                                \
    "{\"model_type\": \"gemma3_text\", \"sliding_window\": " #window                               \
    ", \"query_pre_attn_scalar\": " #scale ", " rest "}"
#define LINEAR8 ", \"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 8.0}"

// clang-format off
static const struct model_type model_types[] = {
    { FAMILY_GEMMA, 18, 2048, "GEMMA_2B", 6,
      GEMMA("gemma", SIZES(256000, 18, 2048, 16384, 8, 1)) },
    { FAMILY_GEMMA, 28, 3072, "GEMMA_7B", 12,
      GEMMA("gemma", SIZES(256000, 28, 3072, 24576, 16, 16)) },
    { FAMILY_GEMMA2, 26, 2304, "GEMMA2_2B", 18,
      GEMMA("gemma2", SIZES(256000, 26, 2304, 9216, 8, 4) ", \"query_pre_attn_scalar\": 256") },
    { FAMILY_GEMMA3, 18, 640, "GEMMA3_300M", 38,
      GEMMA3(512, 256, SIZES(262144, 18, 640, 2048, 4, 1) ", \"max_position_embeddings\": 32768") },
    { FAMILY_GEMMA3, 26, 1152, "GEMMA3_1B", 27,
      GEMMA3(512, 256, SIZES(262144, 26, 1152, 6912, 4, 1) ", \"max_position_embeddings\": 32768") },
    { FAMILY_GEMMA3, 34, 2560, "GEMMA3_4B", 28,
      GEMMA3(1024, 256, SIZES(262208, 34, 2560, 10240, 8, 4) LINEAR8) },
    { FAMILY_GEMMA3, 48, 3840, "GEMMA3_12B", 29,
      GEMMA3(1024, 256, SIZES(262208, 48, 3840, 15360, 16, 8) LINEAR8) },
    { FAMILY_GEMMA3, 62, 5376, "GEMMA3_27B", 30,
      GEMMA3(1024, 168, SIZES(262208, 62, 5376, 21504, 32, 16) ", \"head_dim\": 128" LINEAR8) },
    // the same model as GEMMA3_300M: chosen by name only
    { FAMILY_GEMMA3, 18, 640, "FUNCTIONGEMMA3_300M", 47,
      GEMMA3(512, 256, SIZES(262144, 18, 640, 2048, 4, 1) ", \"max_position_embeddings\": 32768") },
    { FAMILY_PHI2, 32, 2560, "PHI_2", 11,
      "{\"model_type\": \"phi\", \"partial_rotary_factor\": 0.4, "
      SIZES(51200, 32, 2560, 10240, 32, 32) "}" },
    { FAMILY_FALCON, 24, 2048, "FALCON_RW_1B", 5,
      "{\"model_type\": \"falcon\", \"alibi\": true, \"bias\": true, \"multi_query\": false, "
      "\"parallel_attn\": false, \"tie_word_embeddings\": false, \"ffn_hidden_size\": 8192, "
      SIZES(50304, 24, 2048, 8192, 32, 32) "}" },
    { FAMILY_STABLELM, 32, 2560, "STABLELM_4E1T_3B", 8,
      "{\"model_type\": \"stablelm\", \"tie_word_embeddings\": false, "
      SIZES(50304, 32, 2560, 6912, 32, 32) "}" },
};
// clang-format on

#define GEMMAS (FAMILY_GEMMA | FAMILY_GEMMA2 | FAMILY_GEMMA3)
#define POST_NORMS (FAMILY_GEMMA2 | FAMILY_GEMMA3)
#define GATED (FAMILY_LLAMA | FAMILY_STABLELM | GEMMAS)
#define SEQUENTIAL (FAMILY_LLAMA | FAMILY_STABLELM | FAMILY_GEMMA)
#define EVERY (GATED | FAMILY_PHI2) // but Falcon, which has names of its own
#define PHI FAMILY_PHI2
#define FALCON FAMILY_FALCON

/* In the order in which the tensors are used. Targets lack their common "params.lm." */
// clang-format off
const struct tensor_row qp_tensor_rows[] = {
    { GATED, "softmax.logits_ffn.w", "model.embed_tokens.weight", "token_embd.weight",
      CLASS_EMBEDDING, EXTENT_VOCAB, EXTENT_MODEL, TYING_TIED, false, PART_ALL },
    { PHI, "softmax.logits_ffn.linear.w", "model.embed_tokens.weight", "token_embd.weight",
      CLASS_EMBEDDING, EXTENT_VOCAB, EXTENT_MODEL, TYING_TIED, false, PART_ALL },
    { EVERY, "token_embedding.w", "model.embed_tokens.weight", "token_embd.weight",
      CLASS_EMBEDDING, EXTENT_VOCAB, EXTENT_MODEL, TYING_UNTIED, false, PART_ALL },
    { FALCON, "token_embedding.w", "transformer.word_embeddings.weight", NULL,
      CLASS_EMBEDDING, EXTENT_VOCAB, EXTENT_MODEL, TYING_ANY, false, PART_ALL },

    { EVERY, LAYER_MEDIAPIPE "pre_layer_norm.scale", LAYER_HF "input_layernorm.weight", LAYER_GGUF "attn_norm.weight",
      CLASS_NORM, EXTENT_MODEL, EXTENT_NONE, TYING_ANY, false, PART_ALL },
    { PHI | FAMILY_STABLELM, LAYER_MEDIAPIPE "pre_layer_norm.bias", LAYER_HF "input_layernorm.bias",
      LAYER_GGUF "attn_norm.bias", CLASS_NORM, EXTENT_MODEL, EXTENT_NONE, TYING_ANY, false, PART_ALL },
    { GATED, LAYER_MEDIAPIPE "self_attention.q.w", LAYER_HF "self_attn.q_proj.weight", LAYER_GGUF "attn_q.weight",
      CLASS_ATTENTION, EXTENT_Q, EXTENT_MODEL, TYING_ANY, true, PART_ALL },
    { GATED, LAYER_MEDIAPIPE "self_attention.k.w", LAYER_HF "self_attn.k_proj.weight", LAYER_GGUF "attn_k.weight",
      CLASS_ATTENTION, EXTENT_KV, EXTENT_MODEL, TYING_ANY, true, PART_ALL },
    { GATED, LAYER_MEDIAPIPE "self_attention.v.w", LAYER_HF "self_attn.v_proj.weight", LAYER_GGUF "attn_v.weight",
      CLASS_ATTENTION, EXTENT_KV, EXTENT_MODEL, TYING_ANY, false, PART_ALL },
    { PHI, LAYER_MEDIAPIPE "self_attention.q.linear.w", LAYER_HF "self_attn.q_proj.weight", LAYER_GGUF "attn_q.weight",
      CLASS_ATTENTION, EXTENT_Q, EXTENT_MODEL, TYING_ANY, false, PART_ALL },
    { PHI, LAYER_MEDIAPIPE "self_attention.q.bias.b", LAYER_HF "self_attn.q_proj.bias", LAYER_GGUF "attn_q.bias",
      CLASS_BIAS, EXTENT_Q, EXTENT_NONE, TYING_ANY, false, PART_ALL },
    { PHI, LAYER_MEDIAPIPE "self_attention.k.linear.w", LAYER_HF "self_attn.k_proj.weight", LAYER_GGUF "attn_k.weight",
      CLASS_ATTENTION, EXTENT_KV, EXTENT_MODEL, TYING_ANY, false, PART_ALL },
    { PHI, LAYER_MEDIAPIPE "self_attention.k.bias.b", LAYER_HF "self_attn.k_proj.bias", LAYER_GGUF "attn_k.bias",
      CLASS_BIAS, EXTENT_KV, EXTENT_NONE, TYING_ANY, false, PART_ALL },
    { PHI, LAYER_MEDIAPIPE "self_attention.v.linear.w", LAYER_HF "self_attn.v_proj.weight", LAYER_GGUF "attn_v.weight",
      CLASS_ATTENTION, EXTENT_KV, EXTENT_MODEL, TYING_ANY, false, PART_ALL },
    { PHI, LAYER_MEDIAPIPE "self_attention.v.bias.b", LAYER_HF "self_attn.v_proj.bias", LAYER_GGUF "attn_v.bias",
      CLASS_BIAS, EXTENT_KV, EXTENT_NONE, TYING_ANY, false, PART_ALL },
    { FAMILY_GEMMA3, LAYER_MEDIAPIPE "self_attention.q_norm.scale", LAYER_HF "self_attn.q_norm.weight",
      LAYER_GGUF "attn_q_norm.weight", CLASS_NORM, EXTENT_HEAD, EXTENT_NONE, TYING_ANY, false, PART_ALL },
    { FAMILY_GEMMA3, LAYER_MEDIAPIPE "self_attention.k_norm.scale", LAYER_HF "self_attn.k_norm.weight",
      LAYER_GGUF "attn_k_norm.weight", CLASS_NORM, EXTENT_HEAD, EXTENT_NONE, TYING_ANY, false, PART_ALL },
    { GATED, LAYER_MEDIAPIPE "self_attention.post.w", LAYER_HF "self_attn.o_proj.weight", LAYER_GGUF "attn_output.weight",
      CLASS_ATTENTION, EXTENT_MODEL, EXTENT_Q, TYING_ANY, false, PART_ALL },
    { PHI, LAYER_MEDIAPIPE "self_attention.post.linear.w", LAYER_HF "self_attn.dense.weight",
      LAYER_GGUF "attn_output.weight",
      CLASS_ATTENTION, EXTENT_MODEL, EXTENT_Q, TYING_ANY, false, PART_ALL },
    { PHI, LAYER_MEDIAPIPE "self_attention.post.bias.b", LAYER_HF "self_attn.dense.bias", LAYER_GGUF "attn_output.bias",
      CLASS_BIAS, EXTENT_MODEL, EXTENT_NONE, TYING_ANY, false, PART_ALL },
    { POST_NORMS, LAYER_MEDIAPIPE "post_layer_norm.scale", LAYER_HF "post_attention_layernorm.weight",
      LAYER_GGUF "post_attention_norm.weight",
      CLASS_NORM, EXTENT_MODEL, EXTENT_NONE, TYING_ANY, false, PART_ALL },

    // Gemma 2 and 3 moved the name: what was this norm is now the one after attention.
    { SEQUENTIAL, LAYER_MEDIAPIPE "ff_layer.pre_layer_norm.scale", LAYER_HF "post_attention_layernorm.weight",
      LAYER_GGUF "ffn_norm.weight", CLASS_NORM, EXTENT_MODEL, EXTENT_NONE, TYING_ANY, false, PART_ALL },
    { FAMILY_STABLELM, LAYER_MEDIAPIPE "ff_layer.pre_layer_norm.bias", LAYER_HF "post_attention_layernorm.bias",
      LAYER_GGUF "ffn_norm.bias", CLASS_NORM, EXTENT_MODEL, EXTENT_NONE, TYING_ANY, false, PART_ALL },
    { POST_NORMS, LAYER_MEDIAPIPE "ff_layer.pre_layer_norm.scale", LAYER_HF "pre_feedforward_layernorm.weight",
      LAYER_GGUF "ffn_norm.weight", CLASS_NORM, EXTENT_MODEL, EXTENT_NONE, TYING_ANY, false, PART_ALL },
    { GATED, LAYER_MEDIAPIPE "ff_layer.ffn_layer1_gate.w", LAYER_HF "mlp.gate_proj.weight", LAYER_GGUF "ffn_gate.weight",
      CLASS_FEED_FORWARD, EXTENT_FF, EXTENT_MODEL, TYING_ANY, false, PART_ALL },
    { GATED, LAYER_MEDIAPIPE "ff_layer.ffn_layer1.w", LAYER_HF "mlp.up_proj.weight", LAYER_GGUF "ffn_up.weight",
      CLASS_FEED_FORWARD, EXTENT_FF, EXTENT_MODEL, TYING_ANY, false, PART_ALL },
    { GATED, LAYER_MEDIAPIPE "ff_layer.ffn_layer2.w", LAYER_HF "mlp.down_proj.weight", LAYER_GGUF "ffn_down.weight",
      CLASS_FEED_FORWARD, EXTENT_MODEL, EXTENT_FF, TYING_ANY, false, PART_ALL },
    { PHI, LAYER_MEDIAPIPE "ff_layer.ffn_layer1.linear.w", LAYER_HF "mlp.fc1.weight", LAYER_GGUF "ffn_up.weight",
      CLASS_FEED_FORWARD, EXTENT_FF, EXTENT_MODEL, TYING_ANY, false, PART_ALL },
    { PHI, LAYER_MEDIAPIPE "ff_layer.ffn_layer1.bias.b", LAYER_HF "mlp.fc1.bias", LAYER_GGUF "ffn_up.bias",
      CLASS_BIAS, EXTENT_FF, EXTENT_NONE, TYING_ANY, false, PART_ALL },
    { PHI, LAYER_MEDIAPIPE "ff_layer.ffn_layer2.linear.w", LAYER_HF "mlp.fc2.weight", LAYER_GGUF "ffn_down.weight",
      CLASS_FEED_FORWARD, EXTENT_MODEL, EXTENT_FF, TYING_ANY, false, PART_ALL },
    { PHI, LAYER_MEDIAPIPE "ff_layer.ffn_layer2.bias.b", LAYER_HF "mlp.fc2.bias", LAYER_GGUF "ffn_down.bias",
      CLASS_BIAS, EXTENT_MODEL, EXTENT_NONE, TYING_ANY, false, PART_ALL },
    { POST_NORMS, LAYER_MEDIAPIPE "ff_layer.post_layer_norm.scale", LAYER_HF "post_feedforward_layernorm.weight",
      LAYER_GGUF "post_ffw_norm.weight",
      CLASS_NORM, EXTENT_MODEL, EXTENT_NONE, TYING_ANY, false, PART_ALL },

    { FALCON, LAYER_MEDIAPIPE "pre_layer_norm.scale", LAYER_HF_GPT "input_layernorm.weight", NULL,
      CLASS_NORM, EXTENT_MODEL, EXTENT_NONE, TYING_ANY, false, PART_ALL },
    { FALCON, LAYER_MEDIAPIPE "pre_layer_norm.bias", LAYER_HF_GPT "input_layernorm.bias", NULL,
      CLASS_NORM, EXTENT_MODEL, EXTENT_NONE, TYING_ANY, false, PART_ALL },
    { FALCON, LAYER_MEDIAPIPE "self_attention.q.linear.w", LAYER_HF_GPT "self_attention.query_key_value.weight",
      NULL, CLASS_ATTENTION, EXTENT_Q, EXTENT_MODEL, TYING_ANY, false, PART_Q },
    { FALCON, LAYER_MEDIAPIPE "self_attention.q.bias.b", LAYER_HF_GPT "self_attention.query_key_value.bias",
      NULL, CLASS_BIAS, EXTENT_Q, EXTENT_NONE, TYING_ANY, false, PART_Q },
    { FALCON, LAYER_MEDIAPIPE "self_attention.k.linear.w", LAYER_HF_GPT "self_attention.query_key_value.weight",
      NULL, CLASS_ATTENTION, EXTENT_Q, EXTENT_MODEL, TYING_ANY, false, PART_K },
    { FALCON, LAYER_MEDIAPIPE "self_attention.k.bias.b", LAYER_HF_GPT "self_attention.query_key_value.bias",
      NULL, CLASS_BIAS, EXTENT_Q, EXTENT_NONE, TYING_ANY, false, PART_K },
    { FALCON, LAYER_MEDIAPIPE "self_attention.v.linear.w", LAYER_HF_GPT "self_attention.query_key_value.weight",
      NULL, CLASS_ATTENTION, EXTENT_Q, EXTENT_MODEL, TYING_ANY, false, PART_V },
    { FALCON, LAYER_MEDIAPIPE "self_attention.v.bias.b", LAYER_HF_GPT "self_attention.query_key_value.bias",
      NULL, CLASS_BIAS, EXTENT_Q, EXTENT_NONE, TYING_ANY, false, PART_V },
    { FALCON, LAYER_MEDIAPIPE "self_attention.post.linear.w", LAYER_HF_GPT "self_attention.dense.weight", NULL,
      CLASS_ATTENTION, EXTENT_MODEL, EXTENT_Q, TYING_ANY, false, PART_ALL },
    { FALCON, LAYER_MEDIAPIPE "self_attention.post.bias.b", LAYER_HF_GPT "self_attention.dense.bias", NULL,
      CLASS_BIAS, EXTENT_MODEL, EXTENT_NONE, TYING_ANY, false, PART_ALL },
    { FALCON, LAYER_MEDIAPIPE "ff_layer.pre_layer_norm.scale", LAYER_HF_GPT "post_attention_layernorm.weight",
      NULL, CLASS_NORM, EXTENT_MODEL, EXTENT_NONE, TYING_ANY, false, PART_ALL },
    { FALCON, LAYER_MEDIAPIPE "ff_layer.pre_layer_norm.bias", LAYER_HF_GPT "post_attention_layernorm.bias", NULL,
      CLASS_NORM, EXTENT_MODEL, EXTENT_NONE, TYING_ANY, false, PART_ALL },
    { FALCON, LAYER_MEDIAPIPE "ff_layer.ffn_layer1.linear.w", LAYER_HF_GPT "mlp.dense_h_to_4h.weight", NULL,
      CLASS_FEED_FORWARD, EXTENT_FF, EXTENT_MODEL, TYING_ANY, false, PART_ALL },
    { FALCON, LAYER_MEDIAPIPE "ff_layer.ffn_layer1.bias.b", LAYER_HF_GPT "mlp.dense_h_to_4h.bias", NULL,
      CLASS_BIAS, EXTENT_FF, EXTENT_NONE, TYING_ANY, false, PART_ALL },
    { FALCON, LAYER_MEDIAPIPE "ff_layer.ffn_layer2.linear.w", LAYER_HF_GPT "mlp.dense_4h_to_h.weight", NULL,
      CLASS_FEED_FORWARD, EXTENT_MODEL, EXTENT_FF, TYING_ANY, false, PART_ALL },
    { FALCON, LAYER_MEDIAPIPE "ff_layer.ffn_layer2.bias.b", LAYER_HF_GPT "mlp.dense_4h_to_h.bias", NULL,
      CLASS_BIAS, EXTENT_MODEL, EXTENT_NONE, TYING_ANY, false, PART_ALL },

    { GATED, "final_ln.scale", "model.norm.weight", "output_norm.weight",
      CLASS_NORM, EXTENT_MODEL, EXTENT_NONE, TYING_ANY, false, PART_ALL },
    { FAMILY_STABLELM, "final_ln.bias", "model.norm.bias", "output_norm.bias",
      CLASS_NORM, EXTENT_MODEL, EXTENT_NONE, TYING_ANY, false, PART_ALL },
    { PHI, "final_ln.scale", "model.final_layernorm.weight", "output_norm.weight",
      CLASS_NORM, EXTENT_MODEL, EXTENT_NONE, TYING_ANY, false, PART_ALL },
    { PHI, "final_ln.bias", "model.final_layernorm.bias", "output_norm.bias",
      CLASS_NORM, EXTENT_MODEL, EXTENT_NONE, TYING_ANY, false, PART_ALL },
    { FALCON, "final_ln.scale", "transformer.ln_f.weight", NULL,
      CLASS_NORM, EXTENT_MODEL, EXTENT_NONE, TYING_ANY, false, PART_ALL },
    { FALCON, "final_ln.bias", "transformer.ln_f.bias", NULL,
      CLASS_NORM, EXTENT_MODEL, EXTENT_NONE, TYING_ANY, false, PART_ALL },
    { GATED, "softmax.logits_ffn.w", "lm_head.weight", "output.weight",
      CLASS_EMBEDDING, EXTENT_VOCAB, EXTENT_MODEL, TYING_UNTIED, false, PART_ALL },
    { PHI, "softmax.logits_ffn.linear.w", "lm_head.weight", "output.weight",
      CLASS_EMBEDDING, EXTENT_VOCAB, EXTENT_MODEL, TYING_UNTIED, false, PART_ALL },
    { PHI, "softmax.logits_ffn.bias.b", "lm_head.bias", "output.bias",
      CLASS_BIAS, EXTENT_VOCAB, EXTENT_NONE, TYING_ANY, false, PART_ALL },
    { FALCON, "softmax.logits_ffn.w", "transformer.word_embeddings.weight", NULL,
      CLASS_EMBEDDING, EXTENT_VOCAB, EXTENT_MODEL, TYING_TIED, false, PART_ALL },
    { FALCON, "softmax.logits_ffn.w", "lm_head.weight", NULL,
      CLASS_EMBEDDING, EXTENT_VOCAB, EXTENT_MODEL, TYING_UNTIED, false, PART_ALL },
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
        return !f->is_hf_only && strcmp(f->name, name) == 0;
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

const struct model_type *qp_model_type_named(const char *title)
{
    for (size_t i = 0; i < QP_COUNT(model_types); i++)
        if (strcmp(model_types[i].title, title) == 0)
            return &model_types[i];
    return NULL;
}

const char *qp_model_type_config(const char *title)
{
    const struct model_type *t = qp_model_type_named(title);
    return t ? t->config : NULL;
}
