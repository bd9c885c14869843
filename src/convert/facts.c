/* facts.c: what both kinds of checkpoint have in common when their hyper-parameters are read:
 * stops, the pattern of local and global layers, and the checks that everything after relies on. */
#include "convert/facts.h"

#include <math.h>
#include <string.h>

void qp_facts_add_stop(struct model_facts *f, int id)
{
    for (int i = 0; i < f->n_stops; i++)
        if (f->stops[i] == id)
            return;
    if (id >= 0 && f->n_stops < FACTS_MAX_STOPS)
        f->stops[f->n_stops++] = id;
}

void qp_facts_set_pattern(struct model_facts *f, int global_every)
{
    for (int l = 0; l < f->n_layers && l < FACTS_MAX_LAYERS; l++)
        f->layer_types[l] = (l + 1) % global_every == 0 ? 'G' : 'L';
}

struct size_limit {
    const char *name;
    int value, max;
};

/* The limits keep every product of two sizes inside int. */
static quip_status check_sizes(const struct model_facts *f, const char *path, quip_error *error)
{
    const struct size_limit limits[] = {
        { "number of layers", f->n_layers, FACTS_MAX_LAYERS },
        { "model width", f->d_model, 1 << 16 },
        { "feed-forward width", f->d_ff, 1 << 20 },
        { "number of heads", f->n_heads, 1 << 10 },
        { "number of key-value heads", f->n_kv_heads, 1 << 10 },
        { "head size", f->head_dim, 1 << 10 },
        { "vocabulary size", f->vocab_size, 1 << 22 },
    };
    for (size_t i = 0; i < QP_COUNT(limits); i++)
        if (limits[i].value < 1 || limits[i].value > limits[i].max)
            return qp_fail(error, QUIP_E_FORMAT, "%s: its %s is %d, which is not between 1 and %d",
                           path, limits[i].name, limits[i].value, limits[i].max);
    if (f->n_heads % f->n_kv_heads)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: %d heads cannot be shared evenly among %d key-value heads", path,
                       f->n_heads, f->n_kv_heads);
    if (f->rope_dim < 0 || f->rope_dim > f->head_dim)
        return qp_fail(error, QUIP_E_FORMAT, "%s: %d dimensions of a head cannot rotate, it has %d",
                       path, f->rope_dim, f->head_dim);
    if (f->rope_dim % 2)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: rope on %d dimensions of a head size of %d is odd; it needs pairs",
                       path, f->rope_dim, f->head_dim);
    return QUIP_OK;
}

static bool is_positive(double x)
{
    return x > 0 && x < 1e12;
}

quip_status qp_facts_finish(struct model_facts *f, const char *path, quip_error *error)
{
    if (f->family->has_alibi)
        f->rope_dim = 0;
    else if (f->rope_dim == 0)
        f->rope_dim = f->head_dim;
    quip_status status = check_sizes(f, path, error);
    if (status)
        return status;
    if (f->query_scale == 0)
        f->query_scale = 1 / sqrt(f->head_dim);
    if (f->rope_scaling == 0)
        f->rope_scaling = 1;
    if (!is_positive(f->norm_eps) || !is_positive(f->rope_theta) || !is_positive(f->query_scale) ||
        !is_positive(f->rope_scaling) || f->rope_local_theta < 0 || f->attention_cap < 0 ||
        f->logits_cap < 0)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: norm epsilon %g, rope base %g and %g, rope scaling %g, query scale %g, "
                       "soft caps %g and %g are not all in range",
                       path, f->norm_eps, f->rope_theta, f->rope_local_theta, f->rope_scaling,
                       f->query_scale, f->attention_cap, f->logits_cap);
    if (strchr(f->layer_types, 'L') && f->window < 1)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: has layers with a sliding window, but the window is %d", path,
                       f->window);
    return QUIP_OK;
}
