/* hparams.c: what both kinds of checkpoint have in common when their hyper-parameters are read.
 * In:  what GGUF metadata or config.json says.
 * Out: complete hyper-parameters, in the ranges that everything after relies on. */
#include "convert/hparams.h"

#include <assert.h>
#include <math.h>
#include <string.h>

void qp_hparams_begin(struct hparams *h, const struct family_source *source)
{
    *h = (struct hparams){ .raw = qp_raw_config_of(qp_family(source->family)),
                           .source = source,
                           .chat = "none" };
    h->biases = h->source->biases;
}

void qp_hparams_add_stop(struct hparams *h, int id)
{
    assert(h->n_stops >= 0 && h->n_stops <= HPARAMS_MAX_STOPS);
    for (int i = 0; i < h->n_stops; i++)
        if (h->stops[i] == id)
            return;
    if (id >= 0 && h->n_stops < HPARAMS_MAX_STOPS)
        h->stops[h->n_stops++] = id;
    else if (id >= 0)
        h->has_more_stops = true;
}

void qp_hparams_set_pattern(struct hparams *h, int global_every)
{
    assert(global_every > 0);
    for (int l = 0; l < h->raw.n_layers && l < HPARAMS_MAX_LAYERS; l++)
        h->raw.layer_types[l] = (l + 1) % global_every == 0 ? 'G' : 'L';
}

void qp_hparams_set_family_pattern(struct hparams *h)
{
    assert(h->raw.traits.local_per_global > 0);
    qp_hparams_set_pattern(h, h->raw.traits.local_per_global + 1);
}

void qp_hparams_set_layer(struct hparams *h, int l, char type)
{
    assert(l >= 0);
    if (h->raw.n_layers > HPARAMS_MAX_LAYERS || l >= h->raw.n_layers)
        return; // is refused later
    if (!h->raw.layer_types[0])
        memset(h->raw.layer_types, 'G', (size_t)h->raw.n_layers);
    h->raw.layer_types[l] = type;
}

bool qp_hparams_has_window(const struct hparams *h)
{
    return strpbrk(h->raw.layer_types, "Ll") != NULL;
}

struct size_limit {
    const char *name;
    int value, max;
};

static quip_status check_layer_sizes(const struct raw_config *raw, int l, const char *path,
                                     quip_error *error)
{
    const int head_dim = qp_of_layer(&raw->head_dims, l, raw->head_dim);
    const int d_ff = qp_of_layer(&raw->d_ffs, l, raw->d_ff);
    const int kv_heads = qp_of_layer(&raw->kv_heads, l, raw->n_kv_heads);
    if (kv_heads < 1 || raw->n_heads % kv_heads)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: its %d heads are not a multiple of its %d key-value heads", path,
                       raw->n_heads, kv_heads);
    const int least = raw->ff_types[0] && raw->ff_types[l] == 'E' ? 0 : 1; // beside experts
    if (head_dim < 1 || head_dim > 1 << 10 || d_ff < least || d_ff > 1 << 20)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: layer %d has heads of %d and a feed-forward of %d; must be 1 to 1024 "
                       "and 1 to 1048576",
                       path, l, head_dim, d_ff);
    return QUIP_OK;
}

/* Within these limits every product of two sizes fits in an int. */
static quip_status check_sizes(const struct hparams *h, const char *path, quip_error *error)
{
    const struct size_limit limits[] = {
        { "number of layers", h->raw.n_layers, HPARAMS_MAX_LAYERS },
        { "model width", h->raw.d_model, 1 << 16 },
        { "feed-forward width", h->raw.d_ff, 1 << 20 },
        { "number of heads", h->raw.n_heads, 1 << 10 },
        { "number of key-value heads", h->raw.n_kv_heads, 1 << 10 },
        { "head size", h->raw.head_dim, HPARAMS_MAX_HEAD },
        { "vocabulary size", h->raw.vocab_size, 1 << 22 },
        { "width of per-layer embeddings", h->raw.d_ple + 1, 1 << 16 },
    };
    for (size_t i = 0; i < QP_COUNT(limits); i++)
        if (limits[i].value < 1 || limits[i].value > limits[i].max)
            return qp_fail(error, QUIP_E_FORMAT, "%s: its %s is %d; must be 1 to %d", path,
                           limits[i].name, limits[i].value, limits[i].max);
    int widest = h->raw.head_dim;
    for (int l = 0; l < h->raw.n_layers; l++) {
        const quip_status status = check_layer_sizes(&h->raw, l, path, error);
        if (status)
            return status;
        widest = qp_max(widest, qp_of_layer(&h->raw.head_dims, l, h->raw.head_dim));
    }
    if (h->raw.rope_dim < 0 || h->raw.rope_dim > widest)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: rope rotates %d dimensions of a head; must be 0 to %d", path,
                       h->raw.rope_dim, widest);
    if (h->raw.rope_dim % 2)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: rope rotates %d dimensions of a head of %d; must be an even number",
                       path, h->raw.rope_dim, h->raw.head_dim);
    if (h->raw.rope_local_dim % 2 == 1 || h->raw.d_ple % 2 == 1)
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s: its sliding-window layers have heads of %d, and its per-layer "
                       "embeddings have %d numbers; must be even",
                       path, h->raw.rope_local_dim, h->raw.d_ple);
    return QUIP_OK;
}

static bool is_positive(double x)
{
    return x > 0 && x < 1e12;
}

quip_status qp_hparams_finish(struct hparams *h, const char *path, quip_error *error)
{
    if (h->raw.traits.has_alibi || h->raw.family->has_no_rope)
        h->raw.rope_dim = 0;
    else if (h->raw.rope_dim == 0)
        h->raw.rope_dim = h->raw.head_dim;
    const bool is_scaled =
        h->raw.rope_scaling != 1 || h->raw.rope_amplitude != 1 || h->raw.rope_divisors > 0;
    if (h->source->has_plain_local_rope && is_scaled && qp_hparams_has_window(h) &&
        h->raw.traits.rope_local_theta == 0)
        h->raw.traits.rope_local_theta = h->raw.traits.rope_theta;
    quip_status status = check_sizes(h, path, error);
    if (status)
        return status;
    if (h->raw.query_scale == 0)
        h->raw.query_scale = 1 / sqrt(h->raw.head_dim);
    const struct raw_config *raw = &h->raw;
    const struct traits *t = &raw->traits;
    if (!is_positive(t->norm_eps) || !is_positive(t->rope_theta) ||
        !is_positive(raw->query_scale) || !is_positive(raw->rope_scaling) ||
        t->rope_local_theta < 0 || t->attention_cap < 0 || t->logits_cap < 0)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: norm epsilon %g, rope base %g and %g, rope scaling %g, query scale %g, "
                       "soft caps %g and %g are not all in range",
                       path, t->norm_eps, t->rope_theta, t->rope_local_theta, raw->rope_scaling,
                       raw->query_scale, t->attention_cap, t->logits_cap);
    if (qp_hparams_has_window(h) && t->window < 1)
        return qp_fail(error, QUIP_E_FORMAT, "%s: has sliding-window layers, but the window is %d",
                       path, t->window);
    return QUIP_OK;
}
