/* family.h: the table of model families: names of tensors in checkpoints and in model
 * files (family.c). */
#ifndef QP_FAMILY_H
#define QP_FAMILY_H

#include "model/tensor_names.h"

enum family_id {
    FAMILY_LLAMA = 1 << 0,
    FAMILY_GEMMA = 1 << 1,
    FAMILY_GEMMA2 = 1 << 2,
    FAMILY_GEMMA3 = 1 << 3,
    FAMILY_PHI2 = 1 << 4,
    FAMILY_FALCON = 1 << 5, // the RW kind
    FAMILY_STABLELM = 1 << 6,
};

/* A switch of config.json that only one position of can be converted. */
struct demand {
    const char *key;
    bool value, otherwise; // what it must be; what it is when absent
};

/* A model family. Sizes come from the checkpoint; a default here is what a config.json may leave
 * out because the family's own code has it. */
struct family {
    enum family_id id;
    const char *name;        // of the architecture, for quip.config and GGUF
    const char *hf_names[3]; // model_type in config.json
    const char *title;       // of the model type when no fixed type has its sizes
    const char *activation;  // the only one that the family's mathematics has
    const char *stops[3];    // pieces that end an answer, where the vocabulary has them
    /* Names in config.json; NULL: rms_norm_eps, intermediate_size, hidden_act. */
    const char *norm_eps_key, *d_ff_key, *activation_key;
    struct demand demands[6];
    bool is_gemma; // norms add 1 to the weight, tanh-GELU, tied, SentencePiece
    bool has_post_norms, has_qk_norm;
    bool has_layer_norm;            // with a bias; otherwise RMS
    bool has_biases, has_head_bias; // of the layers' matrices, of the head
    bool is_parallel;               // feed-forward beside attention: one norm for both
    bool has_alibi;                 // in place of rope
    bool is_tied;                   // when config.json does not say
    bool has_two_embeddings;        // the file has embedding and head, also of a tied model
    bool has_wrong_ids;             // its config.json gives ids of another vocabulary
    bool is_hf_only;                // GGUF has others of this name
    /* The original puts this token in front, although the model's own tokenizer has none there. */
    bool has_start_id;
    int start_id;
    bool implies_kv_heads; // the original does not say how many when all heads have their own
    int n_heads, n_kv_heads, head_dim, vocab_size, n_context; // 0: no default
    int d_ff_per_d_model;                                     // 0: no default
    int window, global_every; // window of local layers; each global_every-th is global. 0: none
    double rope_theta, rope_local_theta, attention_cap, logits_cap;
    double rope_fraction; // of a head's dimensions that rotate; 0: all
};
const struct family *qp_family_find(const char *name, bool is_gguf);

/* Fixed model types of the format, by size. */
struct model_type {
    enum family_id family;
    int n_layers, d_model;
    const char *title;
    uint32_t value;     // LlmModelType
    const char *config; // what its config.json says, where that is not the family's default
};
const struct model_type *qp_model_type_find(enum family_id family, int n_layers, int d_model);
const struct model_type *qp_model_type_named(const char *title); // NULL: no such
/* What the config.json of a model of this type says; NULL: no such. */
const char *qp_model_type_config(const char *title);

enum weight_class {
    CLASS_NORM, // vectors are never quantized
    CLASS_BIAS,
    CLASS_ATTENTION,
    CLASS_FEED_FORWARD,
    CLASS_EMBEDDING, // embedding and head
};
/* Sizes that depend on the model. */
enum extent {
    EXTENT_NONE,
    EXTENT_MODEL, // d_model
    EXTENT_FF,    // d_ff
    EXTENT_VOCAB, // vocab_size
    EXTENT_HEAD,  // head_dim
    EXTENT_Q,     // n_heads * head_dim
    EXTENT_KV,    // n_kv_heads * head_dim
};
enum tying {
    TYING_ANY,
    TYING_TIED,   // only in models whose head is the embedding
    TYING_UNTIED, // only in the others
};
struct tensor_row {
    unsigned families;              // bits of enum family_id
    const char *target, *hf, *gguf; // "%d" is the layer
    enum weight_class weight_class;
    enum extent rows, cols; // a vector: [rows]
    enum tying tying;
    bool has_rope; // GGUF llama orders these rows for adjacent-pair rope
    enum part part;
};
extern const struct tensor_row qp_tensor_rows[];
extern const int qp_n_tensor_rows;
bool qp_tensor_row_is_layered(const struct tensor_row *row);

#endif
