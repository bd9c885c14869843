/* ops.h: the vocabulary of the forward pass, about a dozen fused operations.
 * forward.c speaks it; a backend (cpu/, later webgpu/) carries it out. Shapes are row-major, tokens
 * first; n is the number of tokens in the call and may be anything from 1 to max_tokens. */
#ifndef QP_OPS_H
#define QP_OPS_H

#include "model/adapter.h"

/* Activations on their way into a matrix product, as the product wants them: floats for float
 * weights, blocks of integers for integer weights (kernels.h). A backend allocates them. */
struct act {
    int n_cols;
    float *f32;       // [max_tokens, n_cols], or NULL
    int8_t *q;        // [max_tokens, n_cols rounded up to whole blocks], or NULL
    float *scales;    // [max_tokens, n_blocks]
    int32_t *offsets; // [max_tokens, n_blocks]
    int n_blocks;
    size_t q_stride;
};

/* A pair of an adapter's matrices, as the backend packs it: a [rank, n_in] and b [n_out, rank],
 * with alpha / rank in b. Floats or integers; the others have no data. */
struct lora {
    int rank; // 0: no change
    struct matrix a, b;
    struct low_rank low_rank_a, low_rank_b;
};
struct layer_adapter {
    struct lora m[N_MATRICES]; // by enum layer_matrix
};
struct packed_adapter {
    struct arena arena;
    struct layer_adapter *layers; // [n_layers]
    int max_rank;
};

/* One of several products that share their input: y = w x + scale * b (a x), [n, w->n_out]. */
struct product {
    const struct matrix *w;
    float *y;
    const struct lora *lora; // without data when there is none
};

/* Keys and values of one layer; the layout is the backend's (kernels.h for the CPU). Positions come
 * in blocks, and block b has place b % n_blocks: a layer that sees a window is a ring, one that
 * sees everything has a place for each block of the context. */
struct kv_layer {
    void *k, *v;
    float *k_scales, *v_scales; // NULL beside float weights
    int n_blocks;
};

/* Tokens whose logits are made together where every token's are wanted. */
#define LOGITS_ROWS 16

/* The buffers of one session's forward pass. */
struct buffers {
    float *x;         // [max_tokens, d_model] residual stream
    float *y;         // [max_tokens, d_model] what a half-block adds to it
    float *q, *k, *v; // [max_tokens, n_heads * head_dim], [max_tokens, n_kv_heads * head_dim]
    struct act xn;    // [max_tokens, d_model] x, normed
    struct act att;   // [max_tokens, n_heads * head_dim] output of attention
    float *att_f32;   // the same before it is quantized; NULL when att.f32 serves
    struct act h;     // [max_tokens, d_ff] act(gate) * up
    float *logits;    // [LOGITS_ROWS, vocab_size]; callers see the first row
    float *rope_cos, *rope_sin; // [2, n_context, rope_dim / 2] of local, then global layers
    float *alibi;               // [n_heads, n_context in whole blocks], or NULL
};

/* One forward pass in the making. */
struct run {
    const struct config *config;
    const struct weights *weights;
    const struct layer_adapter *adapter; // [n_layers], or NULL
    float adapter_scale;
    const struct ops *ops;
    void *backend;
    struct buffers buffers;
    struct kv_layer *kv; // [n_layers]
    size_t kv_bytes;     // of all layers
    int n_context;       // positions that can be reached
    int pos;             // of the first token in this call
    int n_written;       // kv has seen positions [0, n_written); pos may have gone back since
};

struct ops {
    const char *name;
    /* x = embedding of each token, times config->embed_scale. */
    void (*embed)(struct run *r, float *x, const quip_token *tokens, int n);
    /* out = norm(x) * weight, ready for a product. */
    void (*norm)(struct run *r, struct act *out, const float *x, const struct norm_weights *w,
                 int n);
    /* x += y, or x += norm(y) when post_norm has weights; then, with `next`, out = norm(x) as
     * above. */
    void (*add)(struct run *r, float *x, float *y, const struct norm_weights *post_norm,
                struct act *out, const struct norm_weights *next, int n);
    /* Up to three products with one input. */
    void (*linear)(struct run *r, const struct product *products, int n_products,
                   const struct act *in, int n);
    /* The keys and queries of layer l: per-head norms (config->qk_norm), rotation by position; then
     * k and v into the cache at r->pos. */
    void (*rope_append)(struct run *r, int l, int n);
    /* out = attention of the n queries at positions `pos` on, which rope_append saw, over layer l
     * of the cache. */
    void (*attend)(struct run *r, struct act *out, int l, int pos, int n);
    /* out = act(gate x) * (up x), or act(up x) when gate has no data; their y is not used. */
    void (*gated)(struct run *r, struct act *out, const struct product *gate,
                  const struct product *up, const struct act *in, int n);
    /* logits = head * in, [n, vocab_size], soft-capped by config->logits_cap; n <= LOGITS_ROWS. */
    void (*logits)(struct run *r, float *logits, const struct act *in, int n);
};

/* ---- the CPU backend (src/cpu/ops.c) ---- */

/* Take everything a run of up to max_tokens tokens and n_context positions needs from the arena
 * (measuring when arena->base is NULL) and fill `r`, whose config and weights are set. */
void qp_cpu_take(struct run *r, struct arena *a, int n_context, int max_tokens, int n_threads);
/* Take what adapters of up to max_rank need beside that, from an arena of its own. */
void qp_cpu_take_adapter(struct run *r, struct arena *a, int max_rank, int max_tokens,
                         int n_threads);
/* Pack an adapter, in the numbers of the matrices beside it (pack_adapter.c). */
quip_status qp_cpu_adapter_open(struct packed_adapter *packed, struct adapter *adapter,
                                quip_error *error);
void qp_cpu_adapter_close(struct packed_adapter *packed); // all-zero is fine
/* Does this processor compute as the build requires? */
quip_status qp_cpu_check(quip_error *error);
/* Start at most n_threads threads, of those that qp_cpu_take had; after it with a real arena. */
quip_status qp_cpu_open(struct run *r, int n_threads, bool is_background, quip_error *error);
/* Use another number of threads. On failure the number is as before. */
quip_status qp_cpu_set_threads(struct run *r, int n_threads, bool is_background, quip_error *error);
int qp_cpu_n_threads(const struct run *r);
void qp_cpu_close(struct run *r);
/* Go back to `pos`, or to 0 when a ring has lost what the token at `pos` sees: then the tokens
 * before it are to be run again. Up to max_tokens tokens back nothing is lost, whether they were
 * run, were guesses or were cut short by a cancel. */
void qp_cpu_kv_rewind(struct run *r, int pos);
/* Copy one session's cache, up to where it stands, to another of the same shape. */
void qp_cpu_kv_copy(struct run *to, const struct run *from);

#endif
