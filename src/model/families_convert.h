/* families_convert.h: what checkpoints of a model family look like.
 * In:  families.h; this file and families_convert.c belong to the converter alone.
 * Out: names of the family, its config keys and its tensors, and what a config may leave out.
 *
 * Sizes come from the checkpoint. A `default_` field is what the converter assumes when config.json
 * or GGUF lacks the key, because the family's own code has it; 0 means that there is none. Its
 * comment says where that differs from what a model file may omit. */
#ifndef QP_FAMILIES_CONVERT_H
#define QP_FAMILIES_CONVERT_H

#include "model/families.h"
#include "model/tensor_names.h"

/* The names that a checkpoint gives to its tensors. A family can have several: where two rows of
 * the table of tensors are for the same tensor, the checkpoint decides by what it has. */
enum naming {
    NAMES_LLAMA = 1 << 0,
    NAMES_PHI = 1 << 1,
    NAMES_FALCON = 1 << 2,
    NAMES_FUSED = 1 << 3, // q, k and v in one tensor; gate and up in one
    NAMES_BERT = 1 << 4,
    NAMES_GPT2 = 1 << 5,
    NAMES_NEOX = 1 << 6,
    NAMES_STARCODER = 1 << 7, // the feed-forward; the rest is as in llama
    NAMES_LFM2 = 1 << 8,
    NAMES_EXPERTS = 1 << 9, // the feed-forward of layers with experts; the rest is as in llama
    NAMES_GEMMA_EXPERTS = 1 << 10, // the same in Gemma 4
    NAMES_NOMIC = 1 << 11          // q, k and v, and the gate; the rest is as in BERT
};

/* What a model has: conditions of rows of the table of tensors. */
enum condition {
    IF_PRE_NORM = 1 << 0,
    IF_FF_NORM = 1 << 1, // the feed-forward has a norm of its own
    IF_POST_NORM = 1 << 2,
    UNLESS_POST_NORM = 1 << 3,
    IF_NORM_BIAS = 1 << 4,
    IF_QK_NORM_HEAD = 1 << 5, // heads share the weights of the norms of q and k
    IF_QK_NORM_WIDE = 1 << 6, // they do not
    IF_GATED = 1 << 7,
    IF_TIED = 1 << 8, // the head is the embedding
    IF_UNTIED = 1 << 9,
    IF_QKV_BIAS = 1 << 10,
    IF_O_BIAS = 1 << 11, // of the output projection of attention
    IF_FF_BIAS = 1 << 12,
    IF_HEAD_BIAS = 1 << 13,
    IF_POSITIONS = 1 << 14,
    IF_LAYER_BIASES = IF_QKV_BIAS | IF_O_BIAS | IF_FF_BIAS,
    /* Of one layer: */
    IF_ATTENTION = 1 << 16,
    IF_CONV = 1 << 17,  // a convolution instead
    IF_DENSE = 1 << 18, // a dense feed-forward
    IF_EXPERTS = 1 << 19,
    IF_SHARED_GATE = 1 << 20, // of the dense feed-forward beside experts
    IF_CONV_BIAS = 1 << 21,
    IF_KEYS = 1 << 22,   // keys and values of its own
    IF_VALUES = 1 << 23, // they have a matrix each
    IF_LAYER_SCALE = 1 << 24,
    IF_PLE = 1 << 25, // per-layer embeddings
    IF_EXPERT_NORMS = 1 << 26,
    NEVER = 1 << 30
};

/* A switch of config.json that says whether there are biases. */
struct bias_key {
    const char *key;
    unsigned biases; // IF_…_BIAS
    bool fallback;   // when it is absent
};

/* What a checkpoint calls a key that others call `key`, and what counts where it has both. */
enum alias_rule {
    ALIAS_AGREES, // they must be equal: transformers prefers the key, others the alias
    ALIAS_FIRST,  // the alias
    ALIAS_ONLY    // the alias; transformers ignores the key
};
struct key_alias {
    const char *key, *alias;
    enum alias_rule rule;
};

/* A switch of config.json that chooses one of two values of a trait. */
struct trait_switch {
    const char *key;
    bool fallback; // when it is absent
    size_t offset; // of an enum in struct traits
    int if_false, if_true;
};

/* A number of config.json and GGUF. */
struct trait_number {
    const char *key, *gguf; // "<architecture>.<gguf>"
    size_t offset;          // of a double in struct raw_config
    double fallback;        // when config.json does not have it
    bool is_divisor;        // the field is 1 / number
};

/* A switch of config.json of which only one position can be converted. */
struct expectation {
    const char *key;
    bool value, fallback; // what it must be; what it is when absent
};

/* Which layers slide, where the family has no pattern and config.json no layer_types. */
enum window_rule {
    WINDOW_NONE,         // none: sliding_window is not used
    WINDOW_ALL,          // all, unless sliding_window is null
    WINDOW_IF_USED,      // with use_sliding_window, from layer max_window_layers on
    WINDOW_WITHOUT_ROPE, // with use_sliding_window, the layers without rope (no_rope_layers)
    WINDOW_FROM_TYPES    // config.json must have layer_types
};

struct family_source {
    enum family_id family;
    const char *hf_names[3]; // model_type in config.json; none: only GGUF is read
    const char *gguf_name;   // general.architecture; NULL: that of quip.config
    const char *title;       // of the file's subgraph when no model type has the model's sizes
    unsigned namings;
    const char *stops[3]; // pieces that end an answer, where the vocabulary has them

    /* Keys of config.json: NULL is rms_norm_eps, intermediate_size and hidden_act. */
    const char *norm_eps_key, *d_ff_key, *activation_key;
    bool has_two_activations;  // hidden_activation beside hidden_act
    bool has_fixed_activation; // transformers ignores the key
    const char *activation;    // the one that the family computes, as config.json calls it
    enum window_rule windows;
    struct expectation expect[6];
    const struct key_alias *aliases; // end with an empty one; NULL: none
    bool has_older_aliases;          // of hf_names behind the first
    struct trait_switch switches[3];
    struct trait_number numbers[5];
    bool has_falcon_switches;     // alibi, multi_query, parallel_attn, new_decoder_architecture
    bool has_convolutions;        // conv_L_cache, layer_types, block_…
    bool has_experts;             // num_experts, …
    const char *experts_switch;   // that says whether it has them; NULL: it always has
    bool gguf_normalizes_experts; // of a token, to the sum 1
    bool has_conv1d;              // matrices of layers are [in, out] in Hugging Face's files
    unsigned biases;              // IF_…_BIAS that every model of the family has
    struct bias_key bias_keys[3]; // of further ones; in GGUF, those that the file has
    bool has_logits_cap;          // there is a key for it
    bool has_attention_cap;       // the same; transformers ignores it in the other families
    int default_query_scalar;     // query_pre_attn_scalar; 0: the scale is that of head_dim
    bool has_wrong_ids;           // the ids of its tokens are those of another vocabulary
    bool has_layer_sizes;         // config.json says what differs by layer (hparams_sizes.c)

    /* GGUF */
    bool is_hf_only;            // GGUF has other models under this name
    bool gguf_is_encoder;       // attention to both sides, windows too; with dense layers
    bool gguf_pairs_rope;       // rows of q and k are in the order of adjacent-pair rope
    int gguf_wide_query_layers; // of the one size whose queries are scaled by sqrt(d_model /
                                // n_heads)

    int gguf_default_window;   // without attention.sliding_window; 0: no layer slides
    int gguf_global_every;     // with a window, but no pattern; 0: that of the family, or all slide
    bool has_plain_local_rope; // rope scaling is for the layers that do not slide
    bool has_pattern;          // sliding_window_pattern counts without layer_types

    /* The model file */
    bool has_two_embeddings; // it has embedding and head, also of a tied model
    bool implies_kv_heads;   // it does not say n_kv_heads when all heads have their own
    bool has_rope_fields;    // LlmParameters has the fields of rope
    int f16_width;           // with them: the d_model that does not overflow binary16
    /* MediaPipe puts this token first, although the model's own tokenizer puts none there. */
    bool has_start_id;
    int start_id;

    bool default_tied;
    int default_bos; // the first token of a prompt
    int default_n_heads, default_n_kv_heads, default_head_dim, default_vocab_size;
    int default_n_context, default_d_ff_per_d_model;
    int default_n_original;       // original_max_position_embeddings; 0: the whole context
    int default_window;           // 0: that of model files
    double default_rope_theta;    // 0: that of model files
    double default_rope_fraction; // 0: that of model files
    double default_norm_eps;      // 0: that of model files
};
/* The first source of the family. */
const struct family_source *qp_family_source(const struct family *f);
/* What GGUF calls the models of the source. */
const char *qp_source_gguf_name(const struct family_source *s);
/* By the name that a checkpoint gives its family; NULL if there is no such one. */
const struct family_source *qp_source_of_checkpoint(const char *name, bool is_gguf);
/* Those names: for error sentences. */
void qp_family_source_list(char *to, size_t size, bool is_gguf);

/* What the config.json of a model of this type says; NULL if there is no such type. */
const char *qp_model_type_config(const char *title);

enum weight_class {
    CLASS_NORM, // vectors are never quantized
    CLASS_BIAS,
    CLASS_ATTENTION,
    CLASS_FEED_FORWARD,
    CLASS_EMBEDDING,  // embedding and head
    CLASS_POSITIONS,  // vectors of positions are never quantized either
    CLASS_ROUTER_NORM // a vector that is divided by sqrt(d_model)
};
/* Sizes that depend on the model. */
enum extent {
    EXTENT_NONE,
    EXTENT_MODEL,     // d_model
    EXTENT_FF,        // d_ff
    EXTENT_VOCAB,     // vocab_size
    EXTENT_HEAD,      // head_dim
    EXTENT_Q,         // n_heads * head_dim
    EXTENT_KV,        // n_kv_heads * head_dim
    EXTENT_POSITIONS, // n_context_max
    EXTENT_CONV,      // conv_width
    EXTENT_EXPERTS,   // n_experts
    EXTENT_EXPERT_FF, // d_ff_expert
    EXTENT_ALL_FF,    // n_experts * d_ff_expert
    EXTENT_ALL_MODEL, // n_experts * d_model
    EXTENT_ONE,
    EXTENT_PLE,        // d_ple
    EXTENT_PLE_LAYERS, // n_layers * d_ple
    EXTENT_PLE_ROWS    // vocab_size * n_layers; checkpoints have the layers of a token in one row
};
/* A tensor of the model file and its source. */
struct tensor_row {
    unsigned namings; // bits of enum naming
    unsigned needs;   // bits of enum condition, all of them
    /* "%d" is the layer; a second one is the head or the expert, each of which has a tensor of its
     * own. NULL: there is no such name. */
    const char *target, *hf, *gguf;
    enum weight_class weight_class;
    enum extent rows, cols; // a vector: [rows]
    bool has_rope;          // rows whose order depends on the kind of rope
    enum part part;
};
extern const struct tensor_row qp_tensor_rows[];
extern const int qp_n_tensor_rows;
/* The conditions of a model whose layers are dense, with attention to keys of their own; `biases`
 * are IF_…_BIAS bits. */
unsigned qp_tensor_conditions(const struct traits *traits, unsigned biases, bool is_tied);
/* Whether a model with these namings and conditions can have its tensor by the name of row i. Where
 * this is so for several rows with the same target, they are alternatives. */
bool qp_tensor_row_applies(int i, unsigned namings, unsigned has);
/* Whether an earlier row is one for the same tensor. */
bool qp_tensor_row_is_alternative(int i, unsigned namings, unsigned has);
bool qp_tensor_row_is_layered(const struct tensor_row *row);
/* Whether each head has a tensor of its own. */
bool qp_tensor_row_is_of_head(const struct tensor_row *row, bool is_gguf);

#endif
