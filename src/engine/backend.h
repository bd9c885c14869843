/* backend.h: everything that the engine asks of a backend. This page is all one needs to write one.
 *
 * A backend runs the forward pass of a model: cpu/ does it with threads and SIMD kernels. It is a
 * table of functions (struct backend), listed in engine/backends.c. It defines three structs; the
 * first two begin with the part below that the engine reads:
 *
 * - struct device: the model's weights as the backend needs them, scratch memory, and threads or a
 *   queue. There is one for each open model, shared by its sessions.
 * - struct sequence: the KV cache of one session, its position, its adapter and its outputs.
 * - struct device_adapter: an adapter's weights as the backend needs them.
 *
 * forward.c describes a batch of rows with operations on the buffers below. An operation
 * may run at once (CPU), or it is recorded and runs after submit (GPU). It returns QUIP_OK, or a
 * status whose sentence is in device->error. Calls come in this order:
 *
 *     begin; embed, norm, linear, ... ; sample; submit; poll until it is done; read_tokens or read
 *
 * The engine calls a device from one thread at a time (device.c hands out turns), and does not
 * touch sequences or adapters while a batch is in flight. A batch that fails is abandoned at that
 * point, and the engine rewinds its sequences: so a failure must not change what a sequence holds
 * before the positions of the batch.
 *
 * tests/support/reference_backend.c is a second backend in plain C; tests/backend.c runs it. */
#ifndef QP_BACKEND_H
#define QP_BACKEND_H

#include "base/kernel_time.h"
#include "model/adapter.h"
#include "sampler/sampler.h"

/* ---- buffers: rows of floats, or what the backend makes of them ----
 * head_dim, n_kv_heads and d_ff are those of the layer (struct layer_config).
 * Q is read for the last time before Y is written, so these two may share memory. So may K and
 * PLE_GATE, V and PLE_CONTEXT, ATT and PLE. */

enum buffer {
    BUF_X,       // [n, d_model] the residual stream
    BUF_XN,      // [n, d_model] its norm, the input of a product
    BUF_Y,       // [n, d_model] the output of half a layer
    BUF_Q,       // [n, n_heads * head_dim], or [n, d_model] in a layer with a convolution
    BUF_K,       // [n, n_kv_heads * head_dim], or [n, d_model]
    BUF_V,       // [n, n_kv_heads * head_dim], or [n, d_model]
    BUF_ATT,     // [n, n_heads * head_dim] the output of attention, or [n, d_model]
    BUF_H,       // [n, d_ff] act(gate) * up
    BUF_EXPERTS, // [n, d_model] what the experts add up to
    /* Of models with per-layer embeddings (config->d_ple): */
    BUF_E,           // [n, d_model] X as `embed` left it
    BUF_PLE_GATE,    // [n, d_ple]
    BUF_PLE_CONTEXT, // [n, d_ple]
    BUF_PLE,         // [n, d_ple] the output of `ple`
    BUF_LOGITS,      // [n, vocab_size], n <= LOGITS_ROWS
    BUF_POOLED       // [n, the widest embedding], n <= capacity.n_texts
};

/* Rows of one prefill chunk: enough to amortise packing the weights, few enough to keep the buffers
 * small (docs/notes/prefill.md). */
#define PREFILL_CHUNK 512

/* Outputs whose logits are computed together. */
#define LOGITS_ROWS 16

/* Texts that are embedded in one batch. */
#define EMBED_TEXTS 64

/* Outputs that a sequence keeps: of one token and the draft tokens after it. */
#define SEQUENCE_OUTPUTS 8

/* Draws of a batch that runs ahead (max_ahead). A device that does so keeps as many outputs of a
 * sequence. */
#define AHEAD_DRAWS 32

/* ---- rows ---- */

/* The token of a row that runs ahead: the one that the last draw of its batch gives. Such a row is
 * alone in its forward pass (max_ahead). */
#define TOKEN_DRAWN (-1)

/* One token of a batch. A sequence without a KV cache (n_context 0) has a whole text in each batch,
 * from position 0 on: attention reads the keys and values of the batch itself. So a token may
 * attend to tokens behind it. */
struct row {
    struct sequence *sequence;
    int pos;                // position of the token in its sequence
    int visible_end;        // it attends to positions before this one; pos + 1 in causal text
    quip_token token;       // or TOKEN_DRAWN; its embedding is a row of the embedding matrix,
    const float *embedding; // or this one, [d_model], unless it is NULL
    bool is_output;         // its output is kept (keep_outputs)
};

/* The rows of one forward pass. Rows of one sequence are consecutive, with ascending positions. A
 * backend that records operations copies the rows; only embeddings stay valid until poll is done.
 */
struct rows {
    const struct row *row; // [n]
    int n;                 // 1 to capacity.n_rows
};

/* One of the outputs that a sequence keeps: the `index`-th of its rows with is_output in the last
 * forward pass that had any, and in those with TOKEN_DRAWN behind it. */
struct output {
    struct sequence *sequence;
    int index;
};

/* Matrices first, first + 1, ... of layer l, n of them. l == n_layers is the head, alone. */
struct matrix_set {
    int l;
    enum layer_matrix first;
    int n;
};

/* ---- what the engine reads of a device and a sequence ---- */

/* Sizes that a device has scratch memory for. */
struct capacity {
    int n_rows;    // rows of a batch
    int n_context; // positions of its longest sequence
    int max_rank;  // of the adapters in use; 0: none
    int n_texts;   // sequences without a KV cache in a batch; 0: none
};

struct device {
    const struct backend *backend;
    const struct config *config;
    const struct weights *weights;
    struct capacity capacity;
    quip_error error; // of the last operation that failed
    /* The engine's own: */
    struct turns *turns;
    struct row *rows; // [2 * capacity.n_rows]: a batch, and then those of its rows that are outputs
    int process;      // that opened it: threads do not survive a fork
    uint64_t ahead_ns; // that a step which draws several tokens may take
};

struct sequence {
    struct device *device;
    int n_context;                        // positions it can hold; 0: no KV cache, see row
    int pos;                              // positions [0, pos) are in the KV cache
    const struct device_adapter *adapter; // NULL: none
    float adapter_scale;
};

struct device_options {
    int n_threads;      // at least 1
    bool is_background; // low priority; see quip_model_options
};

/* Bytes that a device and one sequence of it allocate. */
struct device_plan {
    size_t device_bytes;
    size_t kv_bytes, sequence_bytes; // keys and values; everything else
};

/* Where sequence_export writes and sequence_import reads. False: it failed. */
struct stream {
    bool (*transfer)(void *user, void *bytes, size_t n);
    void *user;
};

/* The hardware behind a driver. */
struct hardware {
    char name[160], library[64]; // with its driver; what the backend calls it through
    bool is_software;            // the driver computes on the CPU
};

/* ---- the table ---- */

struct backend {
    const char *name;

    /* Can it run models on this machine? */
    quip_status (*check)(quip_error *error);
    /* What models would run on, without opening it; QUIP_E_UNSUPPORTED: there is nothing. Devices
     * of such a backend are compared with the CPU when they open (self_test.c). NULL: the backend
     * is the processor itself. */
    quip_status (*describe)(struct hardware *hardware, quip_error *error);
    /* Can it run this model? NULL: it runs all. */
    quip_status (*check_model)(const quip_model *model, quip_error *error);
    /* Open a device for a model, which outlives it. No batch runs before `reserve`. */
    quip_status (*open)(struct device **device, const quip_model *model,
                        const struct device_options *options, quip_error *error);
    void (*close)(struct device *device);
    /* Grow scratch to at least this capacity. On failure the device is unchanged. */
    quip_status (*reserve)(struct device *device, const struct capacity *capacity,
                           quip_error *error);
    /* What that would allocate, for a model that may be open without its weights. */
    void (*plan)(struct device_plan *plan, const quip_model *model,
                 const struct device_options *options, const struct capacity *capacity);
    int (*n_threads)(const struct device *device); // 0 if it has none

    /* Open an empty sequence of at most n_context positions; 0: one without a KV cache, which
     * cannot be copied, exported or imported. */
    quip_status (*sequence_open)(struct sequence **sequence, struct device *device, int n_context,
                                 quip_error *error);
    void (*sequence_close)(struct sequence *sequence);
    /* Make `to`, with the same n_context, continue where `from` stands: KV cache, outputs (the
     * first that fit), pos. */
    void (*sequence_copy)(struct sequence *to, const struct sequence *from);
    /* Go back to `pos` <= sequence->pos, or further if what the token at `pos` depends on is lost:
     * then the engine runs the tokens between again. Nothing is lost back to the start of the last
     * batch of the sequence. The rings of sliding-window layers keep PREFILL_CHUNK tokens, and a
     * longer way back ends at 0. Touches the sequence alone. */
    void (*sequence_rewind)(struct sequence *sequence, int pos);
    /* Keep up to n outputs, at least SEQUENCE_OUTPUTS; forgets those kept. */
    quip_status (*sequence_reserve_outputs)(struct sequence *sequence, int n, quip_error *error);
    /* Write keys, values and outputs in an order that does not depend on the machine; read them
     * into an empty sequence with the same n_context. Importing what another CPU exported continues
     * with the same bits. The stream may be damaged: on failure the sequence is empty. */
    quip_status (*sequence_export)(const struct sequence *sequence, const struct stream *to,
                                   quip_error *error);
    quip_status (*sequence_import)(struct sequence *sequence, const struct stream *from,
                                   quip_error *error);

    /* Pack an adapter for sequence->adapter with qp_adapter_read. Its files may be closed after. */
    quip_status (*adapter_open)(struct device_adapter **packed, struct device *device,
                                struct adapter *adapter, quip_error *error);
    void (*adapter_close)(struct device_adapter *packed);

    /* ---- operations; rows is the batch, or its outputs after keep_rows ---- */

    /* A batch begins, on at most n_threads threads (0: no limit). What was recorded and not
     * submitted, of a batch that failed, is forgotten. */
    quip_status (*begin)(struct device *device, int n_threads);
    /* X = embedding of each row, times config->embed_scale, plus the row of weights->positions at
     * its position, if there are any; then X = norm(X) if the config says embed_norm; and E = X if
     * config->d_ple is not 0. */
    quip_status (*embed)(struct device *device, const struct rows *rows);
    /* XN = norm(X), or X if w->scale is NULL. Norms are config->norm with config->norm_eps (enum
     * norm_kind has the formulas), of a row, or of each head where a comment says so. */
    quip_status (*norm)(struct device *device, const struct norm_weights *w, int n_rows);
    /* X += config->residual_scale * Y, where Y is norm(Y) if post_norm->scale is not NULL; with
     * config->norms_sum, X = norm(X + residual_scale * Y) instead. Then XN = norm(X) with the
     * weights `next`, unless it is NULL. */
    quip_status (*add)(struct device *device, const struct norm_weights *post_norm,
                       const struct norm_weights *next, int n_rows);
    /* out, out + 1, ... = each matrix of `w` times `in`, plus its bias if it has one, plus what the
     * adapter of the row's sequence adds: w x + bias + adapter_scale * b (a x). `next` are the
     * matrices that follow, to prefetch. */
    quip_status (*linear)(struct device *device, enum buffer out, struct matrix_set w,
                          enum buffer in, struct matrix_set next, const struct rows *rows);
    /* Q and K of layer l: norm them if the layer has q_norm and k_norm, as config->qk_norm says;
     * then rotate the dimension pairs (i, i + dim / 2) of each head, i < dim / 2, by its position
     * with the rope of the layer, if it has one (struct rope), and with the divisors of
     * qp_rope_set of the sequence's n_context. Then K and V go into the KV cache of the row's
     * sequence, at its position, if it has one. Before that, V is K as it was before all this if
     * the layer's v_is_k, and each head of V is normed, without weights, if config->v_norm. A layer
     * whose kv_layer is another one has neither K nor V. */
    quip_status (*rope_append)(struct device *device, int l, const struct rows *rows);
    /* A layer with a convolution, between two gates, instead of attention. Q, K and V are b, c and
     * x of each row. Column p of a sequence is b * x of position p, or 0 before the first position.
     * ATT = c * (bias + sum over i < width of conv[i] * column pos - (width - 1) + i), for each
     * channel; width is config->conv_width. The sequence keeps the columns that later positions
     * need. */
    quip_status (*conv)(struct device *device, int l, const struct rows *rows);
    /* Move the rows with is_output to the front of X, XN, Q, ATT and E. `kept` are these
     * rows. */
    quip_status (*keep_rows)(struct device *device, const struct rows *rows,
                             const struct rows *kept);
    /* ATT = attention of each query head over the keys and values that the kv_layer of layer l has
     * in the row's sequence: the mean of the values at positions [begin, visible_end), weighted by
     * the softmax of their scores. `begin` is 0; in a sliding-window layer it is pos + 1 - window
     * if that is positive; if the config is is_bidirectional, such a layer ends before pos +
     * window. Query head h reads kv head h / (n_heads / n_kv_heads).
     * A score is (q . k) query_scale. Unless attention_cap is 0, it is soft-capped. If the config
     * has_alibi, query_scale times the head's bias for the key's position is added; slope and bias
     * are rounded to bfloat16 (alibi in reference_ops.c). */
    quip_status (*attend)(struct device *device, int l, const struct rows *rows);
    /* H = act(gate XN) * (up XN), or act(up XN) if layer l has no gate (its data is NULL). The
     * activation is config->act. Biases and adapters are as in linear. */
    quip_status (*gated)(struct device *device, int l, struct matrix_set next,
                         const struct rows *rows);
    /* PLE = act(PLE_GATE) * u of layer l. With c = norm(PLE_CONTEXT / sqrt(d_model)), whose weights
     * are weights->ple_norm, and t = sqrt(d_ple) times row (token * n_layers + l) of weights->ple,
     * u = (c + t) / sqrt(2). The token counts, also of a row with an embedding of its own. */
    quip_status (*ple)(struct device *device, int l, const struct rows *rows);
    /* X *= factor[0]; then XN = norm(X) with the weights `next`, unless it is NULL. */
    quip_status (*scale)(struct device *device, const float *factor,
                         const struct norm_weights *next, int n_rows);
    /* Choose the experts of each row, in float32 whatever the type of the weights. Scores are
     * router norm(X) with router_norm, p their softmax over all experts. A row uses the
     * experts.n_used experts with the largest scores, of equal ones those with lower numbers. The
     * weight of an expert is its p, divided by the sum of p of the row's experts if
     * experts.is_normalized; times its expert_scale, unless that is NULL. Scores that are not
     * finite count as the largest or smallest number, a NaN as the smallest. */
    quip_status (*route)(struct device *device, int l, const struct rows *rows);
    /* EXPERTS = sum over the experts e of each row, by ascending e, of their weight times
     * down_e (act(gate_e XN) * (up_e XN)). Matrices of expert e are rows [e * d, (e + 1) * d) of
     * the layer's, d = experts.d_ff or, of down, d_model. `rows` are those of the last `route`. */
    quip_status (*experts)(struct device *device, int l, const struct rows *rows);
    /* Y = EXPERTS, or norm(EXPERTS) with expert_post_norm unless that is NULL. If layer l also has
     * a dense feed-forward, plus Y, or norm(Y) with dense_post_norm; times
     * sigmoid(shared_gate . norm(X)), unless that is NULL, with the norm(X) of `route`. */
    quip_status (*merge)(struct device *device, int l, const struct rows *rows);
    /* Keep X of the rows as the outputs of their sequences, instead of the outputs before; that of
     * a row with TOKEN_DRAWN behind them. */
    quip_status (*keep_outputs)(struct device *device, const struct rows *rows);
    /* X = n kept outputs */
    quip_status (*load_outputs)(struct device *device, const struct output *outputs, int n);
    /* LOGITS = (head XN + bias) * config->logits_scale, soft-capped unless config->logits_cap is 0;
     * n <= LOGITS_ROWS. The soft cap of x is cap * tanh(x / cap). */
    quip_status (*logits)(struct device *device, int n);
    /* POOLED = for each sequence of the rows, in their order, the mean of norm(X) over those of its
     * rows with is_output, of which each has at least one; norm(X) is X if w->scale is NULL. At
     * most capacity.n_texts sequences. */
    quip_status (*pool)(struct device *device, const struct norm_weights *w,
                        const struct rows *rows);
    /* POOLED = the i-th dense layer of the model: act(w POOLED + bias), of n rows. */
    quip_status (*dense)(struct device *device, int i, int n);
    /* Draw a token from each of the first n rows of LOGITS with qp_sample, which may change them.
     * After a draw that is not the `expected` one, those that depend on it are -1. A backend that
     * records operations copies draws and their sampling; masks stay valid until poll is done. */
    quip_status (*sample)(struct device *device, const struct draw *draws, int n);
    /* How many more tokens a batch may draw after this draw, each after a row with TOKEN_DRAWN: so
     * the device runs several tokens before it is asked for them. The context of such a draw lacks
     * the tokens of the draws before. A device may run such a row with a guess of its token; if
     * that turns out to be wrong, the tokens drawn after it are -1. NULL: none. */
    int (*max_ahead)(const struct device *device, const struct draw *draw);

    /* Run what was recorded. The positions of the sequences have moved on already. */
    quip_status (*submit)(struct device *device);
    /* QUIP_OK once it is done, QP_NOT_YET before; with `wait` it returns when it is done. Only a
     * page has a device that cannot wait: then QP_NOT_YET goes up to the caller, who calls again.
     */
    quip_status (*poll)(struct device *device, bool wait);
    /* After that: the n tokens that were drawn, or the first n rows of a buffer as floats. A row of
     * POOLED has the width that it has at the end. */
    quip_status (*read_tokens)(struct device *device, quip_token *tokens, int n);
    quip_status (*read)(struct device *device, enum buffer from, float *to, int n);
    /* As qp_session_profile says. NULL: the backend does not measure. */
    int (*profile)(struct device *device, struct kernel_time *times, int max);
};

/* "Ask again later": a status of the engine's own, which no public function returns, except in a
 * page (bindings/web/native/quip_web.h). */
#define QP_NOT_YET ((quip_status)1)

#endif
