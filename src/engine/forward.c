/* forward.c: rows -> outputs -> logits, for every architecture and every backend.
 * In:  a batch of rows (backend.h): tokens of one or several sequences, each at its position.
 * Out: the KV caches of these sequences hold them. The requested outputs, rows of the
 * residual stream after the last layer, are kept by their sequences; qp_forward_logits turns them
 * into logits. Prefill, decode, verifying draft tokens and running many sessions are this one
 * function.
 */
#include "engine/forward.h"

#include <assert.h>

/* Matrices of a layer, or the head. */
static struct matrix_set layer_matrices(int l, enum layer_matrix first, int n)
{
    return (struct matrix_set){ l, first, n };
}

/* Tell the observer what a product is about to read. */
static quip_status observe(const struct forward *f, struct matrix_set w, enum buffer in, int n_rows)
{
    return f->observer ? f->observer->on_input(f->observer->user, f->device, w, in, n_rows)
                       : QUIP_OK;
}

static quip_status linear(const struct forward *f, enum buffer out, struct matrix_set w,
                          enum buffer in, struct matrix_set next)
{
    const quip_status status = observe(f, w, in, f->rows.n);
    return status ? status : f->backend->linear(f->device, out, w, in, next, &f->rows);
}

/* What layer l projects its input to: a layer that shares keys and values has only queries, and
 * values may be keys. */
static struct matrix_set attention_inputs(const struct device *d, int l)
{
    const int n_layers = d->config->n_layers;
    if (l == n_layers)
        return layer_matrices(l, MATRIX_Q, 1); // the head
    const bool has_keys = d->config->layers[l].kv_layer == l;
    const bool has_values = d->weights->layers[l].m[MATRIX_V].data != NULL;
    return layer_matrices(l, MATRIX_Q, !has_keys ? 1 : !has_values ? 2 : 3);
}

/* x += attention(xn), or a convolution instead; then xn = norm(x) for the feed-forward. Optional
 * steps are fields of the config; an absent step is a NULL weight or a zero. A parallel block norms
 * x before the add, or keeps the xn of attention. In the last layer that stores keys, values or
 * columns, only the outputs go on once those of all rows are in the cache. */
static quip_status attention_half(struct forward *f, int l)
{
    const struct backend *b = f->backend;
    struct device *d = f->device;
    const struct config *c = d->config;
    const struct layer_weights *w = &d->weights->layers[l];
    const struct matrix_set qkv = attention_inputs(d, l), o = layer_matrices(l, MATRIX_O, 1),
                            up = layer_matrices(l, MATRIX_UP,
                                                c->layers[l].d_ff > 0); // gated reads it
    const bool is_conv = c->layers[l].mixer == MIXER_CONV;

    quip_status status = linear(f, BUF_Q, qkv, BUF_XN, o); // to Q, K and V, or less
    if (!status)
        status = is_conv ? b->conv(d, l, &f->rows) : b->rope_append(d, l, &f->rows);
    if (!status && l == c->last_kv_layer && f->outputs.n < f->rows.n) {
        if (f->outputs.n > 0)
            status = b->keep_rows(d, &f->rows, &f->outputs);
        f->rows = f->outputs;
    }
    if (status || f->rows.n == 0)
        return status;
    if (!is_conv)
        status = b->attend(d, l, &f->rows);
    if (!status)
        status = linear(f, BUF_Y, o, BUF_ATT, up);
    if (!status && c->is_parallel && c->has_ff_norm)
        status = b->norm(d, &w->ff_norm, f->rows.n);
    if (!status)
        status = b->add(d, &w->attn_post_norm, c->is_parallel ? NULL : &w->ff_norm, f->rows.n);
    return status;
}

/* x += what the per-layer embedding of each row's token adds: out(ple). Here xn is x, not a norm;
 * then xn = norm(x) with the weights `next`, unless it is NULL. */
static quip_status per_layer_embedding(const struct forward *f, int l,
                                       const struct norm_weights *next)
{
    const struct backend *b = f->backend;
    struct device *d = f->device;
    const struct matrix_set gate = layer_matrices(l, MATRIX_PLE_GATE, 1),
                            context = layer_matrices(l, MATRIX_PLE_CONTEXT, 1),
                            out = layer_matrices(l, MATRIX_PLE_OUT, 1);
    quip_status status = linear(f, BUF_PLE_GATE, gate, BUF_XN, context);
    if (!status)
        status = linear(f, BUF_PLE_CONTEXT, context, BUF_E, out);
    if (!status)
        status = b->ple(d, l, &f->rows);
    if (!status)
        status = linear(f, BUF_Y, out, BUF_PLE, attention_inputs(d, l + 1));
    if (!status)
        status = b->add(d, &d->weights->layers[l].ple_post_norm, next, f->rows.n);
    return status;
}

/* y = feed_forward(xn) */
static quip_status dense_feed_forward(struct forward *f, int l)
{
    struct device *d = f->device;
    const struct matrix_set gate_up = layer_matrices(l, MATRIX_GATE, 2),
                            down = layer_matrices(l, MATRIX_DOWN, 1),
                            next = d->config->d_ple > 0 ? layer_matrices(l, MATRIX_PLE_GATE, 1)
                                                        : attention_inputs(d, l + 1);
    quip_status status = observe(f, gate_up, BUF_XN, f->rows.n);
    if (!status)
        status = f->backend->gated(d, l, down, &f->rows);
    return status ? status : linear(f, BUF_Y, down, BUF_H, next);
}

/* y = what the experts of each row make of xn, which is another norm(x) where they have one; plus y
 * if there is a dense feed-forward, too. */
static quip_status experts(struct forward *f, int l)
{
    const struct backend *b = f->backend;
    struct device *d = f->device;
    const struct norm_weights *norm = &d->weights->layers[l].expert_norm;
    quip_status status = b->route(d, l, &f->rows);
    if (!status && norm->scale)
        status = b->norm(d, norm, f->rows.n);
    if (!status)
        status = observe(f, layer_matrices(l, MATRIX_EXPERT_GATE, 2), BUF_XN, f->rows.n);
    if (!status)
        status = b->experts(d, l, &f->rows);
    return status ? status : b->merge(d, l, &f->rows);
}

/* x += feed_forward(xn), then the optional end of the layer, then xn = norm(x) for the next one. */
static quip_status feed_forward_half(struct forward *f, int l)
{
    static const struct norm_weights no_norm;
    const struct backend *b = f->backend;
    struct device *d = f->device;
    const bool is_last = l == d->config->n_layers - 1, has_ple = d->config->d_ple > 0;
    const struct layer_config *layer = &d->config->layers[l];
    const struct layer_weights *w = &d->weights->layers[l];
    const struct norm_weights *norm = is_last ? NULL : &w[1].attn_norm; // the last of the layer
    const struct norm_weights *before_scale = w->scale ? NULL : norm;

    quip_status status = layer->d_ff > 0 ? dense_feed_forward(f, l) : QUIP_OK;
    if (!status && layer->has_experts)
        status = experts(f, l);
    if (!status)
        status = b->add(d, &w->ff_post_norm, has_ple ? &no_norm : before_scale, f->rows.n);
    if (!status && has_ple)
        status = per_layer_embedding(f, l, before_scale);
    if (!status && w->scale)
        status = b->scale(d, w->scale, norm, f->rows.n);
    return status;
}

/* The rows with is_output, behind the batch in device->rows unless they are all rows or none. */
static struct rows find_outputs(struct device *d, const struct rows *rows)
{
    struct rows outputs = { .row = rows->row };
    for (int i = 0; i < rows->n; i++)
        outputs.n += rows->row[i].is_output;
    if (outputs.n == 0 || outputs.n == rows->n)
        return outputs;
    struct row *kept = d->rows + d->capacity.n_rows;
    outputs.row = kept;
    for (int i = 0; i < rows->n; i++)
        if (rows->row[i].is_output)
            *kept++ = rows->row[i];
    return outputs;
}

/* One vector of each text: the mean of its outputs, and the dense layers if the model has any. */
static quip_status pool(const struct forward *f)
{
    const struct weights *w = f->device->weights;
    int n_texts = 1;
    for (int i = 1; i < f->rows.n; i++)
        n_texts += f->rows.row[i].sequence != f->rows.row[i - 1].sequence;
    quip_status status = f->backend->pool(f->device, &w->final_norm, &f->rows);
    for (int i = 0; i < w->n_dense && !status; i++)
        status = f->backend->dense(f->device, i, n_texts);
    return status;
}

quip_status qp_forward(struct device *d, const struct rows *rows, const atomic_bool *cancelled,
                       const struct observer *observer)
{
    const struct backend *b = d->backend;
    const int n_layers = d->config->n_layers;
    assert(rows->n > 0 && rows->n <= d->capacity.n_rows);
    const bool is_pooled = rows->row[0].sequence->n_context == 0;
    struct forward f = { .backend = b,
                         .device = d,
                         .rows = *rows,
                         .outputs = is_pooled ? *rows : find_outputs(d, rows),
                         .observer = observer };

    quip_status status = b->embed(d, rows);
    if (!status)
        status = b->norm(d, &d->weights->layers[0].attn_norm, rows->n);
    for (int l = 0; l < n_layers && f.rows.n > 0 && !status; l++) {
        if (cancelled && atomic_load_explicit(cancelled, memory_order_relaxed))
            return QUIP_E_CANCELLED;
        status = attention_half(&f, l);
        if (!status && f.rows.n > 0)
            status = feed_forward_half(&f, l);
    }
    if (!status && is_pooled)
        return pool(&f);
    if (!status && f.outputs.n > 0)
        status = b->keep_outputs(d, &f.outputs);
    for (int i = 0; i < rows->n && !status; i++)
        rows->row[i].sequence->pos = rows->row[i].pos + 1;
    return status;
}

quip_status qp_forward_logits(struct device *d, const struct output *outputs, int n,
                              const struct observer *observer)
{
    const struct backend *b = d->backend;
    const struct matrix_set head = layer_matrices(d->config->n_layers, MATRIX_Q, 1);
    const struct forward f = { .backend = b, .device = d, .observer = observer };
    assert(n > 0 && n <= LOGITS_ROWS);
    quip_status status = b->load_outputs(d, outputs, n);
    if (!status)
        status = b->norm(d, &d->weights->final_norm, n);
    if (!status)
        status = observe(&f, head, BUF_XN, n);
    return status ? status : b->logits(d, n);
}
