/* model.h: what the bytes of a model file mean.
 * In:  named tensors and metadata (format.h).
 * Out: the config, and weights that point into the file. They have the shapes that the config
 *      requires, so that nothing later has to check a size. */
#ifndef QP_MODEL_H
#define QP_MODEL_H

#include "format/bundle.h"
#include "format/format.h"
#include "jinja/jinja.h"
#include "model/embedding.h"
#include "model/families.h"
#include "model/sampling_defaults.h"
#include "tokenizer/tokenizer.h"

#include <stdatomic.h>

#define MAX_STOP_IDS 16
#define MAX_NEVER_IDS 64

/* What mixes the positions of a text in a layer. */
enum mixer {
    MIXER_ATTENTION,
    MIXER_CONV // a short convolution between two gates (LFM2)
};

/* Limits of config.c that others rely on. */
#define MAX_CONV_WIDTH 16
#define MAX_EXPERTS 1024

/* Rotary embedding: Su et al. 2021 (RoFormer). Dimensions i and i + dim / 2 of a head turn by
 * position * frequency i, which is theta^(-2 i / dim) / scale / divisor i. */
struct rope {
    int dim;         // rotated dimensions of a head, from the front; 0: none
    float theta;     // base of the frequencies
    float scale;     // positions are divided by it
    float amplitude; // cos and sin are multiplied by it
    /* [dim / 2] or NULL: of sessions of at most n_context_original positions, and of longer ones,
     * where these differ (qp_rope_set). Infinity: the pair does not turn. */
    const float *divisors[2];
};

/* The ropes of a model. */
enum {
    ROPE_GLOBAL,
    ROPE_LOCAL, // of sliding-window layers, where it is another one
    N_ROPES,
    ROPE_NONE = -1
};

struct layer_config {
    enum mixer mixer;
    bool has_experts;               // beside a dense feed-forward, or instead of it if d_ff is 0
    int window;                     // keys that are visible to a query, its own included; 0: all
    int rope;                       // ROPE_…
    int n_kv_heads, head_dim, d_ff; // of this layer
    int kv_layer; // whose keys and values it attends to: itself, or an earlier one
    bool v_is_k;  // its values are its keys before their norm and rope
};

/* A mixture of experts: feed-forwards of which each row uses a few. All zero: none. */
struct expert_config {
    int n, n_used;                   // experts of a layer; those of a row
    int d_ff;                        // width of an expert
    bool is_normalized;              // the weights of a row's experts have the sum 1
    bool has_shared_gate, has_norms; // as in struct traits
};

struct config {
    const struct family *family;
    enum norm_kind norm;
    enum activation act;
    enum qk_norm qk_norm;
    bool pre_norm;      // otherwise attention and feed-forward read the residual stream itself
    bool post_norm;     // the output of both is normed before the add
    bool norms_sum;     // or rather what the add makes of the residual stream
    bool norm_has_bias; // of NORM_LAYER
    bool is_parallel;   // both halves of a layer read the x before the layer
    bool has_ff_norm;   // the feed-forward reads a norm of its own, otherwise that of attention
    bool v_norm;        // each head of the values is normed, without weights
    bool has_layer_scale;
    bool has_final_norm;
    bool has_positions;    // embeddings have a learned vector of their position added
    bool embed_norm;       // embeddings are normed
    bool mixes_inputs;     // of the layers' products (qp_mix_row), like the rows of their weights
    bool is_bidirectional; // a token attends to those behind it too; windows are to both sides
    bool is_gated, has_alibi, tied;
    int n_layers, d_model, d_ff, n_heads, n_kv_heads, head_dim, vocab_size; // widest of all layers
    int d_ple; // width of a per-layer embedding; 0: there are none
    struct rope ropes[N_ROPES];
    int n_rope_divisors;    // sets of divisors of the global rope that the file has
    int n_context_original; // sessions that declare more use the second divisors; 0: none do
    int n_context_max;      // positions that the model was trained for; 0: unknown
    float norm_eps, embed_scale, residual_scale, query_scale, attention_cap;
    float logits_scale, logits_cap;
    int conv_width; // columns that a convolution sums, the present one included; 0: none
    struct expert_config experts;
    struct layer_config *layers; // [n_layers]
    int last_kv_layer;           // that stores keys and values of its own
    quip_token bos;              // -1: none
    quip_token stop_ids[MAX_STOP_IDS];
    int n_stop_ids;
    quip_token never_ids[MAX_NEVER_IDS]; // are never drawn
    int n_never_ids;
};

/* Which divisors of its ropes a session of n_context positions uses. It is decided once, so that
 * nothing depends on how a text is divided into calls. */
static inline int qp_rope_set(const struct config *c, int n_context)
{
    return c->n_context_original > 0 && n_context > c->n_context_original;
}

struct norm_weights {
    const float *scale, *bias; // [n]; bias of NORM_LAYER only, where it has one
};

/* The weight matrices of a layer, in the order of their use. In a layer with a convolution the
 * first three are its gates b and c and its input x, each [d_model, d_model], and O is its output
 * projection. The rows of all experts are in one matrix, expert by expert. */
enum layer_matrix {
    MATRIX_Q,    // [n_heads * head_dim, d_model]
    MATRIX_K,    // [n_kv_heads * head_dim, d_model]
    MATRIX_V,    // [n_kv_heads * head_dim, d_model]
    MATRIX_O,    // [d_model, n_heads * head_dim]
    MATRIX_GATE, // [d_ff, d_model]; absent where the feed-forward is not gated
    MATRIX_UP,   // [d_ff, d_model]
    MATRIX_DOWN, // [d_model, d_ff]
    /* Of models with per-layer embeddings: */
    MATRIX_PLE_GATE,    // [d_ple, d_model]
    MATRIX_PLE_CONTEXT, // [d_ple, d_model] rows of weights->ple_context
    MATRIX_PLE_OUT,     // [d_model, d_ple]
    /* The rows of all experts, one expert after the other: */
    MATRIX_EXPERT_GATE, // [experts.n * experts.d_ff, d_model]
    MATRIX_EXPERT_UP,   // [experts.n * experts.d_ff, d_model]
    MATRIX_EXPERT_DOWN, // [experts.n * d_model, experts.d_ff]
    N_MATRICES
};

/* An absent step has NULL weights. */
struct layer_weights {
    struct matrix m[N_MATRICES];                                          // by enum layer_matrix
    struct norm_weights attn_norm, attn_post_norm, ff_norm, ff_post_norm; // [d_model]
    struct norm_weights q_norm, k_norm; // enum qk_norm says their size
    struct norm_weights ple_post_norm;  // [d_model]
    const float *scale;                 // [1] the output of the layer is multiplied by it
    const float *conv, *conv_bias;      // [conv_width, d_model], the oldest column first; [d_model]
    /* Experts. */
    struct norm_weights router_norm;                   // [d_model]
    const float *router;                               // [experts.n, d_model]
    const float *expert_scale;                         // [experts.n]
    const float *shared_gate;                          // [d_model]
    struct norm_weights dense_post_norm;               // [d_model]
    struct norm_weights expert_norm, expert_post_norm; // [d_model]
};
/* A layer behind the pooling of an embedding model. */
struct dense {
    struct matrix w; // [n_out, n_in], floats
    bool has_tanh;   // its activation; false: none
};
#define MAX_DENSE 4

struct weights {
    struct matrix embed, head;      // [vocab_size, d_model]; the same one when tied
    struct matrix ple;              // [vocab_size * n_layers, d_ple]: the layers of a token
    struct matrix ple_context;      // [n_layers * d_ple, d_model]
    struct norm_weights ple_norm;   // [d_ple]
    struct norm_weights final_norm; // [d_model]
    struct norm_weights embed_norm; // [d_model]
    const float *positions;         // [n_context_max, d_model], or NULL
    struct layer_weights *layers;   // [n_layers]
    bool has_float, has_integer;    // among the matrices
    bool has_rest;                  // some matrices have a rest
    struct dense dense[MAX_DENSE];
    int n_dense;
};

/* The width of what is pooled, behind the first n dense layers. */
static inline int qp_pooled_width(const struct weights *w, int d_model, int n)
{
    return n > 0 ? w->dense[n - 1].w.n_out : d_model;
}

/* Offsets in quip_model.chat_text of the texts around the turns of user, model and system: prefix
 * and suffix. 0 is the empty text. */
struct turn_offsets {
    size_t at[3][2];
};

/* The chat prompts of a file (prompts.c). */
struct prompts {
    int bos; // -1: none
    quip_token stop_ids[MAX_STOP_IDS];
    int n_stop_ids;
    struct bytes stop_texts; // stop tokens that are not pieces, each with its NUL
    int n_stop_texts;
    bool spells_bytes; // text goes to the tokenizer in GPT-2's spelling of bytes
    struct turn_offsets turns;
    size_t first_text; // before the first turn; 0: none
};

struct backend;
struct device;
typedef void device_close(struct device *device);

struct quip_model {
    atomic_int n_references;    // the caller's, and one for each session
    quip_model_options options; // backend is never QUIP_BACKEND_AUTO; name is NULL
    char *name;                 // of a model in memory, which `file` points to; or NULL
    struct file file;
    struct bundle bundle;     // the parts of a .task file, else all zero
    struct file weights_file; // the model file: all of `file`, or its part of the bundle
    struct arena untiled;     // rows of the matrices of a file for GPUs
    struct format format;
    struct arena arena; // layers of config and weights
    struct config config;
    struct weights weights;
    struct embedding embedding;
    struct sampling_defaults sampling; // of the file
    struct tokenizer *tokenizer;
    const struct chat_template *chat;
    struct prompts prompts;
    struct chat_template own_chat; // of the file's prompt templates
    struct bytes chat_text;        // what own_chat points into, each with its NUL
    struct jinja *jinja;           // the checkpoint's own template (template.c); NULL: none
    char jinja_problem[240];       // why it cannot be used; "": it can
    struct bytes jinja_tokens;     // a JSON object with bos_token and so on, for all templates
    uint64_t n_parameters, n_active_parameters; // the latter: that a token uses
    char weights_name[16];
    const struct backend *backend; // that runs it; NULL: the one that the options say
    char backend_reason[512];      // why auto chose it; "": the options name it
    bool no_self_test;             // of tests: devices are not compared with the CPU
    /* The device that its sessions share, opened with the first (engine/device.c). */
    _Atomic(struct device *) device;
    _Atomic(device_close *) close_device;
};

/* Open the model in `file`, which the model then owns; it is closed if that fails. With
 * options->no_weights the matrices have a shape and no rows, and not a byte of them is read.
 * `options` were checked; NULL means the defaults. */
quip_status qp_model_open(quip_model **model, struct file *file, const quip_model_options *options,
                          quip_error *error);
void qp_model_retain(quip_model *model);
void qp_model_release(quip_model *model); // the last one closes

/* config.c: fill m->config and m->chat from the file's metadata. */
quip_status qp_config_read(quip_model *m, quip_error *error);
/* prompts.c: read an LlmParameters proto into m->prompts; `where` names it in messages. */
quip_status qp_prompts_read(quip_model *m, const void *data, size_t n, const char *where,
                            quip_error *error);
void qp_prompts_add_stop(struct prompts *p, int64_t id);
/* Make m->own_chat of the texts that were read; NULL if there are none. */
const struct chat_template *qp_prompts_chat(quip_model *m);
/* template.c: read the chat template of the checkpoint into m->jinja. */
quip_status qp_model_read_template(quip_model *m, quip_error *error);
/* The name as the model file has it, for another template than the first; NULL if it has none. */
const char *qp_model_template_name(const quip_model *m, const char *name);
/* Parse that one. */
quip_status qp_model_open_template(const quip_model *m, const char *name, struct jinja **jinja,
                                   quip_error *error);
/* untile.c: the rows of a matrix in tiles: how many bytes they have; fill them, and point the
 * matrix to them. */
size_t qp_untiled_bytes(const struct tensor *t);
void qp_untile(struct matrix *m, void *rows, const uint8_t *from);
/* The floats [n_out, n_in] of a matrix in tiles of binary16 or float. */
void qp_untile_floats(float *to, const uint8_t *from, size_t n_out, size_t n_in, bool is_half);
/* weights.c: bind m->weights. */
quip_status qp_weights_bind(quip_model *m, quip_error *error);
/* An error if the bytes of the tensor, at `data`, are not at an address for floats: bundles of
 * other programs may put them anywhere. */
quip_status qp_check_aligned(const quip_model *m, const struct tensor *t, const uint8_t *data,
                             quip_error *error);
/* matrix.c: the matrix that has the tensor of this name; NULL if there is none. */
const struct matrix *qp_weights_find(const quip_model *m, const char *name);
/* Row r as floats [n_in]: dequantized, without the zero point of asymmetric files. */
void qp_matrix_read_row(const struct matrix *m, int r, float *to);

#endif
