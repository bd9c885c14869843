/* reference_impl.h: what the two files of the reference backend share.
 *   reference_backend.c   memory, sequences, adapters, recording; the table
 *   reference_ops.c       the operations
 *   reference_layers.c    those of convolutions and experts */
#ifndef REFERENCE_IMPL_H
#define REFERENCE_IMPL_H

#include "support/reference_backend.h"

enum {
    N_BUFFERS = BUF_POOLED + 1,
    MAX_POOLED = 1 << 13 // widest embedding
};

/* A matrix as floats, [n_out, n_in]. */
struct floats {
    int n_out, n_in;
    float *w;          // NULL: absent
    const float *bias; // [n_out] or NULL
};

/* Keys and values of a layer, each [n_context, n_kv_heads * head_dim]; or `k` has the columns of a
 * convolution, [n_context, d_model]. */
struct cache {
    float *k, *v;
};

struct reference_sequence {
    struct sequence base;
    struct arena arena;
    struct cache *layers; // [n_layers]
    float *outputs;       // [max_outputs, d_model]
    int max_outputs, n_outputs;
};

/* What an adapter adds to a matrix: b (a x). */
struct pair {
    int rank; // 0: nothing
    float *a; // [rank, n_in]
    float *b; // [n_out, rank]
};

struct device_adapter {
    struct arena arena;
    struct pair *pairs; // [n_layers][N_MATRICES]
};

struct reference_device;

/* A recorded operation: a function and its arguments, those that it needs. */
struct command {
    const char *name;
    void (*run)(struct reference_device *d, const struct command *c);
    int l, n;
    enum buffer in, out;
    struct matrix_set w;
    const struct norm_weights *post_norm, *norm;
    const float *factor;
    struct row *rows; // [n], owned
    struct output outputs[LOGITS_ROWS];
    struct draw draws[LOGITS_ROWS];
    struct sampling sampling[LOGITS_ROWS]; // of the draws
};

struct reference_device {
    struct device base;
    struct arena weights, buffers;
    struct floats embed, head, ple;
    struct floats *m;         // [n_layers][N_MATRICES]
    float *buffer[N_BUFFERS]; // [n_rows, width_of]
    float *expert_weights;    // [n_rows, n_experts]: 0 for those that a row does not use
    float *shared_weights;    // [n_rows] of the dense feed-forward beside experts
    struct candidate *candidates;
    quip_token tokens[LOGITS_ROWS];
    struct command *commands; // of the batch that is recorded
    int n_commands, max_commands;
    int n_not_yet; // polls until it is done
};

static inline struct reference_device *device_of(struct device *d)
{
    return (struct reference_device *)d;
}

static inline struct reference_sequence *sequence_of(struct sequence *s)
{
    return (struct reference_sequence *)s;
}

static inline size_t kv_width(const struct config *c)
{
    return (size_t)c->n_kv_heads * (size_t)c->head_dim;
}

/* Floats that a layer with keys or columns stores for a position. */
static inline size_t cache_width(const struct config *c, int l)
{
    return c->layers[l].mixer == MIXER_CONV ? (size_t)c->d_model : kv_width(c);
}

static inline int wider(int a, int b)
{
    return a > b ? a : b;
}

static inline int width_of(const struct config *c, enum buffer b)
{
    const int conv = c->conv_width ? c->d_model : 0;
    const int q_width = wider(c->n_heads * c->head_dim, conv);
    const int kv = wider(c->n_kv_heads * c->head_dim, conv);
    const int widths[N_BUFFERS] = {
        [BUF_X] = c->d_model,
        [BUF_XN] = c->d_model,
        [BUF_Y] = c->d_model,
        [BUF_Q] = q_width,
        [BUF_K] = kv,
        [BUF_V] = kv,
        [BUF_ATT] = q_width,
        [BUF_H] = c->d_ff,
        [BUF_LOGITS] = c->vocab_size,
        [BUF_E] = c->d_ple > 0 ? c->d_model : 0,
        [BUF_PLE_GATE] = c->d_ple,
        [BUF_PLE_CONTEXT] = c->d_ple,
        [BUF_PLE] = c->d_ple,
        [BUF_EXPERTS] = c->d_model,
        [BUF_POOLED] = MAX_POOLED,
    };
    return widths[b];
}

static inline float *row_of(const struct reference_device *d, enum buffer b, int t)
{
    return d->buffer[b] + (size_t)t * (size_t)width_of(d->base.config, b);
}

/* Append an operation to the batch, with a copy of its rows (NULL: it has none). */
quip_status reference_record(struct device *device, struct command c, const struct rows *rows);

/* ---- reference_ops.c ---- */

/* x = norm(x) of one row [d_model]; no weights, no norm */
void reference_norm_row(const struct config *c, float *x, const struct norm_weights *w);
float reference_activate(const struct config *c, float x);

quip_status reference_embed(struct device *device, const struct rows *rows);
quip_status reference_norm(struct device *device, const struct norm_weights *w, int n_rows);
quip_status reference_add(struct device *device, const struct norm_weights *post_norm,
                          const struct norm_weights *next, int n_rows);
quip_status reference_linear(struct device *device, enum buffer out, struct matrix_set w,
                             enum buffer in, struct matrix_set next, const struct rows *rows);
quip_status reference_gated(struct device *device, int l, struct matrix_set next,
                            const struct rows *rows);
quip_status reference_rope_append(struct device *device, int l, const struct rows *rows);
quip_status reference_attend(struct device *device, int l, const struct rows *rows);
quip_status reference_keep_rows(struct device *device, const struct rows *rows,
                                const struct rows *kept);
quip_status reference_ple(struct device *device, int l, const struct rows *rows);
quip_status reference_scale(struct device *device, const float *factor,
                            const struct norm_weights *next, int n_rows);
quip_status reference_keep_outputs(struct device *device, const struct rows *rows);
quip_status reference_load_outputs(struct device *device, const struct output *outputs, int n);
quip_status reference_logits(struct device *device, int n);
quip_status reference_pool(struct device *device, const struct norm_weights *w,
                           const struct rows *rows);
quip_status reference_dense(struct device *device, int i, int n);
quip_status reference_sample(struct device *device, const struct draw *draws, int n);

/* ---- reference_layers.c ---- */

quip_status reference_conv(struct device *device, int l, const struct rows *rows);
quip_status reference_route(struct device *device, int l, const struct rows *rows);
quip_status reference_experts(struct device *device, int l, const struct rows *rows);
quip_status reference_merge(struct device *device, int l, const struct rows *rows);

#endif
