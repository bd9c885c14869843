/* families.h: what the members of a model family share.
 * families.c is the table of families. families_convert.c has what checkpoints of each family look
 * like; only the converter contains it. */
#ifndef QP_FAMILIES_H
#define QP_FAMILIES_H

#include "format/format.h"
#include "model/matrix.h"

enum norm_kind {
    NORM_RMS,        // x / rms(x) * w
    NORM_RMS_PLUS_1, // x / rms(x) * (1 + w)
    NORM_LAYER       // (x - mean) / sqrt(variance) * w + bias
};

enum family_id {
    FAMILY_LLAMA,
    FAMILY_GEMMA,
    FAMILY_GEMMA2,
    FAMILY_GEMMA3,
    FAMILY_PHI2,
    FAMILY_FALCON, // RW: the older shape, with ALiBi
    FAMILY_STABLELM,
    FAMILY_BERT,
    FAMILY_QWEN2,
    FAMILY_QWEN3,
    FAMILY_SMOLLM3,
    FAMILY_PHI3,
    FAMILY_OLMO2,
    FAMILY_GRANITE,
    FAMILY_GPT2,
    FAMILY_GPTNEOX,
    FAMILY_STARCODER2,
    FAMILY_COHERE,
    FAMILY_LFM2,
    FAMILY_QWEN2MOE,
    FAMILY_QWEN3MOE,
    FAMILY_GEMMA4,
    FAMILY_NOMIC_BERT,
    N_FAMILIES
};

/* Norms of q and k, before rope. They have the formula of the model's norms, without a bias. */
enum qk_norm {
    QK_NORM_NONE,
    QK_NORM_HEAD,  // of each head; all heads share the weights [head_dim]
    QK_NORM_HEADS, // of each head, with weights of its own [n_heads * head_dim]
    QK_NORM_WIDTH  // of all heads together [n_heads * head_dim]
};

/* How the two halves of a layer are joined. */
enum residual {
    RESIDUAL_SEQUENTIAL,     // x += attention(norm(x)); x += feed_forward(ff_norm(x))
    RESIDUAL_PARALLEL,       // x += attention(norm(x)) + feed_forward(norm(x))
    RESIDUAL_PARALLEL_NORMS, // x += attention(norm(x)) + feed_forward(ff_norm(x))
    RESIDUAL_POST_NORM // x = post_norm(x + attention(x)); x = ff_post_norm(x + feed_forward(x))
};

/* What the forward pass computes. Each field has a key in quip.config (raw_config.c): a model file
 * need not have the keys that are as in its family. Zero means "absent". */
struct traits {
    enum norm_kind norm;
    enum activation act;
    enum qk_norm qk_norm;
    enum residual residual;
    bool no_norm_bias;     // norms of NORM_LAYER have no bias
    bool no_pre_norm;      // attention and feed-forward read x itself
    bool post_norm;        // the output of attention and feed-forward is normed before the add
    bool is_gated;         // the feed-forward is act(gate) * up, otherwise act(up)
    bool has_alibi;        // positions enter as a bias on the scores, not by rotation
    bool v_norm;           // each head of the values is normed, without weights
    bool global_v_is_k;    // global layers: values are the keys before their norm and rope
    bool has_layer_scale;  // the output of each layer is multiplied by a number of its own
    bool has_positions;    // a learned vector of each position is added to the embedding
    bool embed_norm;       // then the sum is normed
    bool no_final_norm;    // the output of the last layer is not normed
    bool mixes_inputs;     // inputs of the layers' products are mixed (qp_mix_row), and so are the
                           // rows of their weights
    bool is_bidirectional; // a token attends to those behind it too: an encoder

    bool has_shared_gate;  // what the dense feed-forward beside experts adds has a gate
    bool has_expert_norms; // the router, the experts and that feed-forward have norms of their own

    int local_per_global;    // sliding-window layers before each global one; 0: all global
    int window;              // of sliding-window layers, in tokens, the query's included; of
                             // bidirectional models to each side
    double rope_theta;       // of global layers
    double rope_local_theta; // of sliding-window layers; 0: their rope is that of the others
    double norm_eps;
    double attention_cap, logits_cap; // soft caps; 0: none
    double embed_scale;               // of embeddings; 0: 1, or as embed_sqrt_d says
    double residual_scale;            // of what a half of a layer adds; 0: 1
    double logits_scale;              // 0: 1
};

struct family {
    const char *name; // in quip.config and in GGUF
    struct traits traits;
    bool embed_sqrt_d;   // embeddings are multiplied by sqrt(d_model)
    float rope_fraction; // of each head's dimensions that rotate; 0: all, always
    bool has_no_rope;    // none of them rotates
    int revision;        // of quip.config that has the family (raw_config.h)
    /* In its checkpoints and adapters, the rows of q and k are in the order of pairs that rotate
     * (struct row_map); in model files they never are. */
    bool pairs_rope;
};
const struct family *qp_family(enum family_id id);
enum family_id qp_family_id(const struct family *f);
/* By its name in quip.config; NULL if there is no such family. */
const struct family *qp_family_named(const char *name);
/* "llama, gemma, … and stablelm": for error sentences. */
void qp_family_list(char *to, size_t size);
/* Append a name to such a list; `is_last` of a list of several puts "and" before it. */
void qp_list_name(char *to, size_t size, const char *name, bool is_last);

/* A model type of MediaPipe's files, and how MediaPipe treats it. */
struct model_type {
    int id;            // odml.infra.proto.LlmModelType
    const char *title; // name of the file's subgraph
    enum family_id family;
    int n_layers, d_model;
    bool spells_bytes;        // byte-level BPE without merges: pieces are in GPT-2's spelling
    bool lora_is_f32;         // its LoRA files have float32, not binary16
    bool lora_post_is_like_q; // there a of the output projection is the left matrix
};
/* By id, by title, or by sizes; NULL if there is no such type. */
const struct model_type *qp_model_type(int id);
const struct model_type *qp_model_type_named(const char *title);
const struct model_type *qp_model_type_sized(enum family_id family, int n_layers, int d_model);
/* The type that a file's metadata says; NULL if it says none that is known. */
const struct model_type *qp_model_type_of_file(const struct format *f);

#endif
