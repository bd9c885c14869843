/* hparams.c: what both kinds of checkpoint have in common when their hyper-parameters are read.
 * In:  what GGUF metadata or config.json says.
 * Out: complete hyper-parameters, in the ranges that everything after relies on. */
#include "convert/hparams.h"

#include <assert.h>
#include <math.h>
#include <string.h>

void qp_hparams_add_stop(struct hparams *h, int id)
{
    assert(h->n_stops >= 0 && h->n_stops <= HPARAMS_MAX_STOPS);
    for (int i = 0; i < h->n_stops; i++)
        if (h->stops[i] == id)
            return;
    if (id >= 0 && h->n_stops < HPARAMS_MAX_STOPS)
        h->stops[h->n_stops++] = id;
}

void qp_hparams_set_pattern(struct hparams *h, int global_every)
{
    assert(global_every > 0);
    for (int l = 0; l < h->n_layers && l < HPARAMS_MAX_LAYERS; l++)
        h->layer_types[l] = (l + 1) % global_every == 0 ? 'G' : 'L';
}

void qp_hparams_set_family_pattern(struct hparams *h)
{
    assert(h->family->local_per_global > 0);
    qp_hparams_set_pattern(h, h->family->local_per_global + 1);
}

struct size_limit {
    const char *name;
    int value, max;
};

/* Within these limits every product of two sizes fits in an int. */
static quip_status check_sizes(const struct hparams *h, const char *path, quip_error *error)
{
    const struct size_limit limits[] = {
        { "number of layers", h->n_layers, HPARAMS_MAX_LAYERS },
        { "model width", h->d_model, 1 << 16 },
        { "feed-forward width", h->d_ff, 1 << 20 },
        { "number of heads", h->n_heads, 1 << 10 },
        { "number of key-value heads", h->n_kv_heads, 1 << 10 },
        { "head size", h->head_dim, 1 << 10 },
        { "vocabulary size", h->vocab_size, 1 << 22 },
    };
    for (size_t i = 0; i < QP_COUNT(limits); i++)
        if (limits[i].value < 1 || limits[i].value > limits[i].max)
            return qp_fail(error, QUIP_E_FORMAT, "%s: its %s is %d; must be 1 to %d", path,
                           limits[i].name, limits[i].value, limits[i].max);
    if (h->n_heads % h->n_kv_heads)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: its %d heads are not a multiple of its %d key-value heads", path,
                       h->n_heads, h->n_kv_heads);
    if (h->rope_dim < 0 || h->rope_dim > h->head_dim)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: rope rotates %d dimensions of a head; must be 0 to %d", path,
                       h->rope_dim, h->head_dim);
    if (h->rope_dim % 2)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: rope rotates %d dimensions of a head of %d; must be an even number",
                       path, h->rope_dim, h->head_dim);
    return QUIP_OK;
}

static bool is_positive(double x)
{
    return x > 0 && x < 1e12;
}

quip_status qp_hparams_finish(struct hparams *h, const char *path, quip_error *error)
{
    if (h->family->has_alibi)
        h->rope_dim = 0;
    else if (h->rope_dim == 0)
        h->rope_dim = h->head_dim;
    quip_status status = check_sizes(h, path, error);
    if (status)
        return status;
    if (h->query_scale == 0)
        h->query_scale = 1 / sqrt(h->head_dim);
    if (h->rope_scaling == 0)
        h->rope_scaling = 1;
    if (!is_positive(h->norm_eps) || !is_positive(h->rope_theta) || !is_positive(h->query_scale) ||
        !is_positive(h->rope_scaling) || h->rope_local_theta < 0 || h->attention_cap < 0 ||
        h->logits_cap < 0)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: norm epsilon %g, rope base %g and %g, rope scaling %g, query scale %g, "
                       "soft caps %g and %g are not all in range",
                       path, h->norm_eps, h->rope_theta, h->rope_local_theta, h->rope_scaling,
                       h->query_scale, h->attention_cap, h->logits_cap);
    if (strchr(h->layer_types, 'L') && h->window < 1)
        return qp_fail(error, QUIP_E_FORMAT, "%s: has sliding-window layers, but the window is %d",
                       path, h->window);
    return QUIP_OK;
}
