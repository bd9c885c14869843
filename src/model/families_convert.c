/* families_convert.c: the table of what checkpoints of each model family look like. */
#include "model/families_convert.h"
#include "model/raw_config.h"

#include <assert.h>
#include <string.h>

static const struct key_alias gpt2_aliases[] = {
    { "num_hidden_layers", "n_layer", ALIAS_AGREES },
    { "hidden_size", "n_embd", ALIAS_AGREES },
    { "intermediate_size", "n_inner", ALIAS_ONLY },
    { "num_attention_heads", "n_head", ALIAS_AGREES },
    { "max_position_embeddings", "n_positions", ALIAS_AGREES },
    { NULL, NULL, ALIAS_AGREES },
};
static const struct key_alias neox_aliases[] = {
    { "partial_rotary_factor", "rotary_pct", ALIAS_ONLY },
    { "rope_theta", "rotary_emb_base", ALIAS_ONLY },
    { NULL, NULL, ALIAS_AGREES },
};
// of RefinedWeb and RefinedWebModel, which are the older names
static const struct key_alias falcon_aliases[] = {
    { "num_hidden_layers", "n_layer", ALIAS_AGREES },
    { "num_attention_heads", "n_head", ALIAS_AGREES },
    { "num_kv_heads", "n_head_kv", ALIAS_AGREES },
    { NULL, NULL, ALIAS_AGREES },
};
// Command R was trained with longer texts than max_position_embeddings says.
static const struct key_alias cohere_aliases[] = {
    { "max_position_embeddings", "model_max_length", ALIAS_FIRST },
    { NULL, NULL, ALIAS_AGREES },
};
// of the first published configs; transformers prefers these, too
static const struct key_alias lfm2_aliases[] = {
    { "intermediate_size", "block_ff_dim", ALIAS_FIRST },
    { "tie_word_embeddings", "tie_embedding", ALIAS_FIRST },
    { NULL, NULL, ALIAS_AGREES },
};
static const struct key_alias gemma4_aliases[] = {
    { "num_experts_per_tok", "top_k_experts", ALIAS_ONLY },
    { NULL, NULL, ALIAS_AGREES },
};
static const struct key_alias expert_aliases[] = {
    { "num_experts", "num_local_experts", ALIAS_AGREES }, // transformers 5
    { NULL, NULL, ALIAS_AGREES },
};
// of stablelm_epoch, which is the older name
static const struct key_alias stablelm_aliases[] = {
    { "partial_rotary_factor", "rope_pct", ALIAS_AGREES },
    { "layer_norm_eps", "norm_eps", ALIAS_AGREES },
    { NULL, NULL, ALIAS_AGREES },
};

#define NUMBER(field) offsetof(struct raw_config, field)
#define TRAIT(field) offsetof(struct traits, field)

// clang-format off
static const struct family_source sources[] = {
    {
        .family = FAMILY_LLAMA,
        .hf_names = { "llama" },
        .title = "LLAMA",
        .namings = NAMES_LLAMA,
        .activation = "silu",
        .bias_keys = { { "attention_bias", IF_QKV_BIAS | IF_O_BIAS, false }, { "mlp_bias", IF_FF_BIAS, false } },
        .gguf_pairs_rope = true,
        .default_norm_eps = 1e-6,
    },
    {
        .family = FAMILY_GEMMA,
        .hf_names = { "gemma" },
        .title = "GEMMA",
        .namings = NAMES_LLAMA,
        .stops = { "<eos>" },
        .has_two_activations = true,
        .activation = "gelu_pytorch_tanh",
        .implies_kv_heads = true,
        .default_tied = true,
        .default_bos = 2,
        .default_head_dim = 256,
    },
    {
        .family = FAMILY_GEMMA2,
        .hf_names = { "gemma2" },
        .title = "GEMMA2",
        .namings = NAMES_LLAMA,
        .stops = { "<eos>" },
        .activation_key = "hidden_activation",
        .activation = "gelu_pytorch_tanh",
        .has_logits_cap = true,
        .has_attention_cap = true,
        .default_query_scalar = 256,
        .gguf_wide_query_layers = 46, // 27B
        .gguf_default_window = 4096,
        .default_tied = true,
        .default_bos = 2,
        .default_head_dim = 256,
    },
    // The defaults are those of Gemma3TextConfig, on which the 4B to 27B folders rely.
    {
        .family = FAMILY_GEMMA3,
        .hf_names = { "gemma3_text", "gemma3" },
        .has_pattern = true,
        .title = "GEMMA3",
        .namings = NAMES_LLAMA,
        .stops = { "<eos>", "<end_of_turn>" },
        .activation_key = "hidden_activation",
        .activation = "gelu_pytorch_tanh",
        .has_logits_cap = true,
        .default_query_scalar = 256,
        .gguf_wide_query_layers = 62, // 27B
        .has_rope_fields = true,
        .f16_width = 1152, // 1B
        .default_tied = true,
        .default_bos = 2,
        .default_n_heads = 8,
        .default_n_kv_heads = 4,
        .default_head_dim = 256,
        .default_vocab_size = 262208,
        .default_n_context = 131072,
        .default_window = 4096,
    },
    // EmbeddingGemma. A config.json says use_bidirectional_attention instead.
    {
        .family = FAMILY_GEMMA3,
        .gguf_name = "gemma-embedding",
        .title = "GEMMA3",
        .namings = NAMES_LLAMA,
        .gguf_is_encoder = true,
        .default_tied = true,
    },
    {
        .family = FAMILY_PHI2,
        .hf_names = { "phi" },
        .title = "PHI",
        .namings = NAMES_PHI,
        .stops = { "<|endoftext|>" },
        .norm_eps_key = "layer_norm_eps",
        .activation = "gelu_new",
        .expect = { { "qk_layernorm", false, false } },
        .biases = IF_LAYER_BIASES | IF_HEAD_BIAS,
        .implies_kv_heads = true,
        .has_start_id = true,
        .start_id = 50256,
        .default_n_context = 2048,
        .default_rope_fraction = 0.5,
    },
    // Defaults and expectations are those of FalconConfig, whose other shapes have no ALiBi.
    {
        .family = FAMILY_FALCON,
        .hf_names = { "falcon", "RefinedWebModel", "RefinedWeb" },
        .title = "FALCON",
        .namings = NAMES_FALCON,
        .stops = { "<|endoftext|>" },
        .norm_eps_key = "layer_norm_epsilon",
        .d_ff_key = "ffn_hidden_size",
        .activation_key = "activation",
        .activation = "gelu",
        .aliases = falcon_aliases,
        .has_older_aliases = true,
        .has_falcon_switches = true,
        .bias_keys = { { "bias", IF_LAYER_BIASES, false } },
        .has_wrong_ids = true,
        .has_two_embeddings = true,
        .has_start_id = true,
        .start_id = 1,
        .default_tied = true,
        .default_n_context = 2048,
        .default_d_ff_per_d_model = 4,
    },
    {
        .family = FAMILY_STABLELM,
        .hf_names = { "stablelm", "stablelm_epoch" },
        .title = "STABLELM",
        .aliases = stablelm_aliases,
        .has_older_aliases = true,
        .namings = NAMES_LLAMA,
        .stops = { "<|endoftext|>" },
        .norm_eps_key = "layer_norm_eps",
        .activation = "silu",
        .switches = { { "qk_layernorm", false, TRAIT(qk_norm), QK_NORM_NONE, QK_NORM_HEADS },
                      { "use_parallel_residual", false, TRAIT(residual), RESIDUAL_SEQUENTIAL,
                        RESIDUAL_PARALLEL } },
        .bias_keys = { { "use_qkv_bias", IF_QKV_BIAS, false } },
        .implies_kv_heads = true,
        .has_start_id = true,
        .start_id = 0,
        .default_n_context = 4096,
    },
    {
        .family = FAMILY_BERT,
        .hf_names = { "bert" },
        .title = "BERT",
        .namings = NAMES_BERT,
        .norm_eps_key = "layer_norm_eps",
        .activation = "gelu",
        .expect = { { "is_decoder", false, false }, { "add_cross_attention", false, false } },
        .biases = IF_LAYER_BIASES,
        .default_tied = true,
    },
    // nomic-embed-text. Its config.json has names and switches of its own, which are not read.
    {
        .family = FAMILY_NOMIC_BERT,
        .title = "NOMIC_BERT",
        .namings = NAMES_BERT | NAMES_NOMIC,
        .default_tied = true,
    },
    // Also the distillates of DeepSeek-R1. The biases are in no key.
    {
        .family = FAMILY_QWEN2,
        .hf_names = { "qwen2" },
        .title = "QWEN2",
        .namings = NAMES_LLAMA,
        .activation = "silu",
        .windows = WINDOW_IF_USED,
        .biases = IF_QKV_BIAS,
        .default_window = 4096,
        .default_rope_theta = 1e4,
    },
    {
        .family = FAMILY_QWEN3,
        .hf_names = { "qwen3" },
        .title = "QWEN3",
        .namings = NAMES_LLAMA,
        .activation = "silu",
        .windows = WINDOW_IF_USED,
        .bias_keys = { { "attention_bias", IF_QKV_BIAS | IF_O_BIAS, false } },
        .default_head_dim = 128,
        .default_window = 4096,
        .default_rope_theta = 1e4,
    },
    {
        .family = FAMILY_SMOLLM3,
        .hf_names = { "smollm3" },
        .title = "SMOLLM3",
        .namings = NAMES_LLAMA,
        .activation = "silu",
        .windows = WINDOW_WITHOUT_ROPE,
        .bias_keys = { { "attention_bias", IF_QKV_BIAS | IF_O_BIAS, false }, { "mlp_bias", IF_FF_BIAS, false } },
        .gguf_pairs_rope = true,
        .default_tied = true,
    },
    {
        .family = FAMILY_PHI3,
        .hf_names = { "phi3" },
        .title = "PHI3",
        .namings = NAMES_FUSED | NAMES_LLAMA,
        .activation = "silu",
        .windows = WINDOW_ALL,
        .default_n_context = 4096,
        .default_n_original = 4096,
    },
    {
        .family = FAMILY_LLAMA,
        .hf_names = { "mistral" },
        .title = "LLAMA",
        .namings = NAMES_LLAMA,
        .activation = "silu",
        .windows = WINDOW_ALL,
        .is_hf_only = true, // GGUF calls them llama
        .default_window = 4096,
        .default_norm_eps = 1e-6,
    },
    {
        .family = FAMILY_OLMO2,
        .hf_names = { "olmo2" },
        .title = "OLMO2",
        .namings = NAMES_LLAMA,
        .stops = { "<|endoftext|>" },
        .activation = "silu",
        .bias_keys = { { "attention_bias", IF_QKV_BIAS | IF_O_BIAS, false } },
        .has_plain_local_rope = true, // of OLMo 3, which GGUF calls olmo2
        .gguf_global_every = 4,
        .default_n_context = 2048,
    },
    {
        .family = FAMILY_OLMO2,
        .hf_names = { "olmo3" },
        .title = "OLMO2",
        .namings = NAMES_LLAMA,
        .stops = { "<|endoftext|>" },
        .activation = "silu",
        .windows = WINDOW_FROM_TYPES,
        .bias_keys = { { "attention_bias", IF_QKV_BIAS | IF_O_BIAS, false } },
        .is_hf_only = true,
        .has_plain_local_rope = true,
        .default_n_context = 2048,
        .default_window = 4096,
        .default_rope_theta = 5e5,
    },
    {
        .family = FAMILY_GRANITE,
        .hf_names = { "granite" },
        .title = "GRANITE",
        .namings = NAMES_LLAMA,
        .stops = { "<|end_of_text|>" },
        .activation = "silu",
        .bias_keys = { { "attention_bias", IF_QKV_BIAS | IF_O_BIAS, false },
                       { "mlp_bias", IF_FF_BIAS, false } },
        .numbers = { { "embedding_multiplier", "embedding_scale", NUMBER(traits.embed_scale), 1,
                       false },
                     { "attention_multiplier", "attention.scale", NUMBER(query_scale), 1, false },
                     { "residual_multiplier", "residual_scale", NUMBER(traits.residual_scale), 1,
                       false },
                     { "logits_scaling", "logit_scale", NUMBER(traits.logits_scale), 1, true } },
        .gguf_pairs_rope = true,
        .default_n_context = 2048,
        .default_norm_eps = 1e-6,
    },
    {
        .family = FAMILY_GPT2,
        .hf_names = { "gpt2" },
        .title = "GPT2",
        .namings = NAMES_GPT2,
        .stops = { "<|endoftext|>" },
        .aliases = gpt2_aliases,
        .norm_eps_key = "layer_norm_epsilon",
        .activation_key = "activation_function",
        .activation = "gelu_new",
        .expect = { { "scale_attn_weights", true, true },
                    { "scale_attn_by_inverse_layer_idx", false, false },
                    { "add_cross_attention", false, false } },
        .biases = IF_LAYER_BIASES,
        .has_conv1d = true,
        .default_tied = true,
        .default_n_context = 1024,
        .default_d_ff_per_d_model = 4,
    },
    {
        .family = FAMILY_GPTNEOX,
        .hf_names = { "gpt_neox" },
        .title = "GPT_NEOX",
        .namings = NAMES_NEOX,
        .stops = { "<|endoftext|>" },
        .aliases = neox_aliases,
        .norm_eps_key = "layer_norm_eps",
        .activation = "gelu",
        .switches = { { "use_parallel_residual", true, TRAIT(residual), RESIDUAL_SEQUENTIAL,
                        RESIDUAL_PARALLEL_NORMS } },
        .biases = IF_FF_BIAS,
        .bias_keys = { { "attention_bias", IF_QKV_BIAS | IF_O_BIAS, true } },
        .default_n_context = 2048,
    },
    {
        .family = FAMILY_STARCODER2,
        .hf_names = { "starcoder2" },
        .title = "STARCODER2",
        .namings = NAMES_LLAMA | NAMES_STARCODER,
        .stops = { "<|endoftext|>" },
        .norm_eps_key = "norm_epsilon",
        .activation = "gelu_pytorch_tanh",
        .bias_keys = { { "use_bias", IF_LAYER_BIASES, true } },
        .windows = WINDOW_ALL,
        .gguf_default_window = 4096, // all of the published ones have it
        .default_tied = true,
        .default_n_context = 4096,
    },
    {
        .family = FAMILY_COHERE,
        .hf_names = { "cohere" },
        .gguf_name = "command-r",
        .aliases = cohere_aliases,
        .title = "COHERE",
        .namings = NAMES_LLAMA,
        .stops = { "<|END_OF_TURN_TOKEN|>" },
        .norm_eps_key = "layer_norm_eps",
        .activation = "silu",
        .switches = { { "use_qk_norm", false, TRAIT(qk_norm), QK_NORM_NONE, QK_NORM_HEADS } },
        .numbers = { { "logit_scale", "logit_scale", NUMBER(traits.logits_scale), 0.0625, false } },
        .bias_keys = { { "attention_bias", IF_QKV_BIAS | IF_O_BIAS, false } },
        .gguf_pairs_rope = true,
        .default_tied = true,
        .default_n_context = 8192,
    },
    {
        .family = FAMILY_LFM2,
        .hf_names = { "lfm2" },
        .title = "LFM2",
        .namings = NAMES_LFM2 | NAMES_LLAMA,
        .stops = { "<|im_end|>" },
        .aliases = lfm2_aliases,
        .norm_eps_key = "norm_eps",
        .activation = "silu",
        .has_fixed_activation = true,
        .has_convolutions = true,
        .bias_keys = { { "conv_bias", IF_CONV_BIAS, false } },
        .default_tied = true,
        .default_bos = 1,
        .default_n_heads = 32,
        .default_n_kv_heads = 8,
        .default_n_context = 128000,
    },
    {
        .family = FAMILY_QWEN2MOE,
        .hf_names = { "qwen2_moe" },
        .title = "QWEN2_MOE",
        .namings = NAMES_LLAMA | NAMES_EXPERTS,
        .stops = { "<|im_end|>", "<|endoftext|>" },
        .aliases = expert_aliases,
        .activation = "silu",
        .expect = { { "use_sliding_window", false, false } },
        .has_experts = true,
        .bias_keys = { { "qkv_bias", IF_QKV_BIAS, true } },
        .default_n_context = 32768,
    },
    {
        .family = FAMILY_QWEN3MOE,
        .hf_names = { "qwen3_moe" },
        .title = "QWEN3_MOE",
        .namings = NAMES_LLAMA | NAMES_EXPERTS,
        .stops = { "<|im_end|>", "<|endoftext|>" },
        .aliases = expert_aliases,
        .activation = "silu",
        .expect = { { "use_sliding_window", false, false } },
        .has_experts = true,
        .gguf_normalizes_experts = true,
        .bias_keys = { { "attention_bias", IF_QKV_BIAS | IF_O_BIAS, false } },
        .default_n_context = 32768,
    },
    // The defaults are those of Gemma4TextConfig.
    {
        .family = FAMILY_GEMMA4,
        .hf_names = { "gemma4_text", "gemma4" },
        .title = "GEMMA4",
        .namings = NAMES_LLAMA | NAMES_GEMMA_EXPERTS,
        .stops = { "<eos>" },
        .activation_key = "hidden_activation",
        .activation = "gelu_pytorch_tanh",
        .aliases = gemma4_aliases,
        .expect = { { "attention_bias", false, false } },
        .has_experts = true,
        .experts_switch = "enable_moe_block",
        .has_logits_cap = true,
        .has_layer_sizes = true,
        .default_tied = true,
        .default_bos = 2,
        .default_n_heads = 8,
        .default_n_kv_heads = 4,
        .default_head_dim = 256,
        .default_vocab_size = 262144,
        .default_n_context = 131072,
    },
};
// clang-format on

/* ---- what the config.json of MediaPipe's model types says ---- */

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
static const struct {
    const char *title, *json;
} configs[] = {
    { "GEMMA_2B",
      GEMMA("gemma", SIZES(256000, 18, 2048, 16384, 8, 1)) },
    { "GEMMA_7B",
      GEMMA("gemma", SIZES(256000, 28, 3072, 24576, 16, 16)) },
    { "GEMMA2_2B",
      GEMMA("gemma2", SIZES(256000, 26, 2304, 9216, 8, 4) ", \"query_pre_attn_scalar\": 256") },
    { "GEMMA3_300M",
      GEMMA3(512, 256, SIZES(262144, 18, 640, 2048, 4, 1) ", \"max_position_embeddings\": 32768") },
    { "GEMMA3_1B",
      GEMMA3(512, 256, SIZES(262144, 26, 1152, 6912, 4, 1) ", \"max_position_embeddings\": 32768") },
    { "GEMMA3_4B",
      GEMMA3(1024, 256, SIZES(262208, 34, 2560, 10240, 8, 4) LINEAR8) },
    { "GEMMA3_12B",
      GEMMA3(1024, 256, SIZES(262208, 48, 3840, 15360, 16, 8) LINEAR8) },
    { "GEMMA3_27B",
      GEMMA3(1024, 168, SIZES(262208, 62, 5376, 21504, 32, 16) ", \"head_dim\": 128" LINEAR8) },
    { "FUNCTIONGEMMA3_300M",
      GEMMA3(512, 256, SIZES(262144, 18, 640, 2048, 4, 1) ", \"max_position_embeddings\": 32768") },
    { "PHI_2",
      "{\"model_type\": \"phi\", \"partial_rotary_factor\": 0.4, "
      SIZES(51200, 32, 2560, 10240, 32, 32) "}" },
    { "FALCON_RW_1B",
      "{\"model_type\": \"falcon\", \"alibi\": true, \"bias\": true, \"multi_query\": false, "
      "\"parallel_attn\": false, \"tie_word_embeddings\": false, \"ffn_hidden_size\": 8192, "
      SIZES(50304, 24, 2048, 8192, 32, 32) "}" },
    { "STABLELM_4E1T_3B",
      "{\"model_type\": \"stablelm\", \"tie_word_embeddings\": false, "
      SIZES(50304, 32, 2560, 6912, 32, 32) "}" },
};
// clang-format on

const struct family_source *qp_family_source(const struct family *f)
{
    for (size_t i = 0; i < QP_COUNT(sources); i++)
        if (sources[i].family == qp_family_id(f))
            return &sources[i];
    assert(!"a family without a source");
    return &sources[0];
}

const char *qp_source_gguf_name(const struct family_source *s)
{
    return s->gguf_name ? s->gguf_name : qp_family(s->family)->name;
}

static bool has_name(const struct family_source *s, const char *name, bool is_gguf)
{
    if (is_gguf)
        return !s->is_hf_only && strcmp(qp_source_gguf_name(s), name) == 0;
    for (size_t i = 0; i < QP_COUNT(s->hf_names) && s->hf_names[i]; i++)
        if (strcmp(s->hf_names[i], name) == 0)
            return true;
    return false;
}

const struct family_source *qp_source_of_checkpoint(const char *name, bool is_gguf)
{
    for (size_t i = 0; i < QP_COUNT(sources); i++)
        if (has_name(&sources[i], name, is_gguf))
            return &sources[i];
    return NULL;
}

void qp_family_source_list(char *to, size_t size, bool is_gguf)
{
    *to = 0;
    for (size_t i = 0; i < QP_COUNT(sources); i++) {
        const struct family_source *s = &sources[i];
        const bool is_last = i + 1 == QP_COUNT(sources);
        if (is_gguf && !s->is_hf_only)
            qp_list_name(to, size, qp_source_gguf_name(s), is_last);
        for (size_t k = 0; !is_gguf && k < QP_COUNT(s->hf_names) && s->hf_names[k]; k++)
            qp_list_name(to, size, s->hf_names[k],
                         is_last && (k + 1 == QP_COUNT(s->hf_names) || !s->hf_names[k + 1]));
    }
}

const char *qp_model_type_config(const char *title)
{
    for (size_t i = 0; i < QP_COUNT(configs); i++)
        if (strcmp(configs[i].title, title) == 0)
            return configs[i].json;
    return NULL;
}
