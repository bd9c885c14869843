/* forward.c: tokens -> logits, for every architecture and every backend.
 * In:  n token ids that follow the r->pos positions already in the kv cache.
 * Out: the cache holds n more positions; on demand, logits.
 * Prefill and decode are this one function with a different n. */
#include "engine/engine.h"

#include <string.h>

/* What the adapter changes in layer l; without one, nothing. */
static const struct layer_adapter *layer_adapter(const struct run *r, int l)
{
    static const struct layer_adapter none;
    return r->adapter ? &r->adapter[l] : &none;
}

/* x += attention(xn), xn = norm(x), for n tokens; then xn is what the feed-forward reads. In the
 * last layer only the last `n_wanted` tokens go on after the keys and values of all are in the
 * cache: they move to the front of the buffers. */
static void attention_half(struct run *r, int l, int n, int n_wanted)
{
    const struct ops *op = r->ops;
    const struct config *c = r->config;
    const struct layer_weights *w = &r->weights->layers[l];
    const struct layer_adapter *a = layer_adapter(r, l);
    struct buffers *b = &r->buffers;
    const int skipped = n - n_wanted;
    const struct product qkv[] = { { &w->m[MATRIX_Q], b->q, &a->m[MATRIX_Q] },
                                   { &w->m[MATRIX_K], b->k, &a->m[MATRIX_K] },
                                   { &w->m[MATRIX_V], b->v, &a->m[MATRIX_V] } };
    const struct product out[] = { { &w->m[MATRIX_O], b->y, &a->m[MATRIX_O] } };

    op->linear(r, qkv, 3, &b->xn, n); // [n, n_heads * head_dim], 2 x [n, n_kv_heads * head_dim]
    op->rope_append(r, l, n);
    if (n_wanted == 0)
        return;
    if (skipped) {
        const size_t d_model = (size_t)c->d_model;
        memmove(b->x, b->x + skipped * d_model, n_wanted * d_model * sizeof *b->x);
        if (c->is_parallel) // the feed-forward will read it
            op->norm(r, &b->xn, b->x, &w->attn_norm, n_wanted);
    }
    op->attend(r, &b->att, l, r->pos + skipped, n_wanted); // [n_wanted, n_heads * head_dim]
    op->linear(r, out, 1, &b->att, n_wanted);              // [n_wanted, d_model]
    op->add(r, b->x, b->y, &w->attn_post_norm, &b->xn, c->is_parallel ? NULL : &w->ff_norm,
            n_wanted);
}

/* x += feed_forward(xn), for n tokens; then xn = norm(x) for the next layer. The xn of a parallel
 * block is that of its attention. */
static void feed_forward_half(struct run *r, int l, int n)
{
    const struct ops *op = r->ops;
    const struct layer_weights *w = &r->weights->layers[l];
    const struct layer_adapter *a = layer_adapter(r, l);
    struct buffers *b = &r->buffers;
    const struct product gate = { &w->m[MATRIX_GATE], NULL, &a->m[MATRIX_GATE] };
    const struct product up = { &w->m[MATRIX_UP], NULL, &a->m[MATRIX_UP] };
    const struct product down[] = { { &w->m[MATRIX_DOWN], b->y, &a->m[MATRIX_DOWN] } };

    const bool is_last = l == r->config->n_layers - 1;

    op->gated(r, &b->h, &gate, &up, &b->xn, n); // [n, d_ff]
    op->linear(r, down, 1, &b->h, n);           // [n, d_model]
    op->add(r, b->x, b->y, &w->ff_post_norm, &b->xn, is_last ? NULL : &w[1].attn_norm, n);
}

/* The logits that follow n rows of x, from row `row` on. */
static void project(struct run *r, int row, int n)
{
    struct buffers *b = &r->buffers;
    const float *x = b->x + (size_t)row * (size_t)r->config->d_model;
    r->ops->norm(r, &b->xn, x, &r->weights->final_norm, n); // [n, d_model]
    r->ops->logits(r, b->logits, &b->xn, n);                // [n, vocab_size]
}

/* Show the logits of all n tokens, and leave the last ones in the first row. */
static bool project_all(struct run *r, int n, quip_on_logits *on_logits, void *user,
                        atomic_bool *cancelled)
{
    const size_t vocab_size = (size_t)r->config->vocab_size;
    float *logits = r->buffers.logits;
    for (int i = 0; i < n; i += LOGITS_ROWS) {
        const int n_rows = n - i < LOGITS_ROWS ? n - i : LOGITS_ROWS;
        if (atomic_load_explicit(cancelled, memory_order_relaxed))
            return false;
        project(r, i, n_rows);
        for (int j = 0; j < n_rows && on_logits; j++)
            if (!on_logits(user, r->pos + i + j, logits + (size_t)j * vocab_size))
                return false;
        if (i + n_rows == n)
            memmove(logits, logits + (size_t)(n_rows - 1) * vocab_size,
                    vocab_size * sizeof *logits);
    }
    return true;
}

bool qp_forward(struct run *r, const quip_token *tokens, int n, enum logits_wanted wanted,
                quip_on_logits *on_logits, void *user, atomic_bool *cancelled)
{
    const int n_layers = r->config->n_layers;
    int n_rows = n;
    r->ops->embed(r, r->buffers.x, tokens, n); // [n, d_model]
    r->ops->norm(r, &r->buffers.xn, r->buffers.x, &r->weights->layers[0].attn_norm, n);
    for (int l = 0; l < n_layers; l++) {
        if (atomic_load_explicit(cancelled, memory_order_relaxed))
            return false;
        if (l == n_layers - 1 && wanted < LOGITS_EACH)
            n_rows = wanted == LOGITS_LAST;
        attention_half(r, l, n, n_rows);
        if (n_rows > 0)
            feed_forward_half(r, l, n_rows);
    }
    if (wanted == LOGITS_LAST || wanted == LOGITS_EACH)
        project(r, 0, n_rows);
    if (wanted == LOGITS_ALL && !project_all(r, n, on_logits, user, cancelled))
        return false;
    r->pos += n;
    return true;
}
