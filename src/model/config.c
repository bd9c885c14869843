/* config.c: the config of a model.
 * In:  what the file says (raw_config.c).
 * Out: struct config, with every size in a range that later products of sizes can rely on; the chat
 *      template and the stops. */
#include "format/bundle.h"
#include "model/llm_parameters.h"
#include "model/raw_config.h"

#include <assert.h>
#include <math.h>
#include <string.h>

struct range {
    const char *name;
    size_t offset;
    int low, high;
};
/* Limits are far above those of any model. Products of two sizes fit in 64 bits. */
static const struct range ranges[] = {
    { "number of layers", offsetof(struct raw_config, n_layers), 1, 1024 },
    { "model width", offsetof(struct raw_config, d_model), 1, 1 << 17 },
    { "feed-forward width", offsetof(struct raw_config, d_ff), 1, 1 << 20 },
    { "number of heads", offsetof(struct raw_config, n_heads), 1, 1024 },
    { "number of kv heads", offsetof(struct raw_config, n_kv_heads), 1, 1024 },
    { "head width", offsetof(struct raw_config, head_dim), 1, 1024 },
    { "vocabulary size", offsetof(struct raw_config, vocab_size), 1, 1 << 22 },
    { "rotary width", offsetof(struct raw_config, rope_dim), 0, 1024 },
    { "window", offsetof(struct raw_config, window), 0, INT32_MAX },
    { "local layers per global one", offsetof(struct raw_config, local_per_global), 0, 1024 },
    { "longest context", offsetof(struct raw_config, n_context_max), 0, INT32_MAX },
};

/* Limits that keep every angle, up to position 2^20, below the 2^31 of qp_sin_cos. */
static quip_status check_rotation(const quip_model *m, const struct raw_config *raw,
                                  quip_error *error)
{
    const float bases[] = { raw->rope_theta, raw->rope_local_theta };
    for (size_t i = 0; i < QP_COUNT(bases); i++)
        if (!(bases[i] >= 1 && bases[i] <= 1e12f))
            return qp_fail(error, QUIP_E_FORMAT, "%s: its rotary base is %g; must be 1 to 1e12",
                           m->file.name, (double)bases[i]);
    if (!(raw->rope_scaling >= 1e-3f && raw->rope_scaling <= 1e6f))
        return qp_fail(error, QUIP_E_FORMAT, "%s: its rotary scaling is %g; must be 0.001 to 1e6",
                       m->file.name, (double)raw->rope_scaling);
    return QUIP_OK;
}

static quip_status check_raw(const quip_model *m, struct raw_config *raw, quip_error *error)
{
    if (raw->n_kv_heads == 0) // MediaPipe's way to say n_heads
        raw->n_kv_heads = raw->n_heads;
    if (raw->rope_dim < 0)
        raw->rope_dim = raw->family->has_alibi ? 0
                        : raw->family->rope_fraction > 0
                            ? (int)((float)raw->head_dim * raw->family->rope_fraction)
                            : raw->head_dim;
    if (raw->family->has_alibi) // nothing rotates; pass the check below
        raw->rope_theta = 1;
    if (!(raw->rope_local_theta > 0))
        raw->rope_local_theta = raw->rope_theta;
    for (size_t i = 0; i < QP_COUNT(ranges); i++) {
        const struct range *r = &ranges[i];
        int value = *(int *)((char *)raw + r->offset);
        if (value < r->low || value > r->high)
            return qp_fail(error, QUIP_E_FORMAT, "%s: its %s is %d; must be %d to %d", m->file.name,
                           r->name, value, r->low, r->high);
    }
    if (raw->n_heads % raw->n_kv_heads)
        return qp_fail(error, QUIP_E_FORMAT, "%s: %d heads cannot share %d kv heads evenly",
                       m->file.name, raw->n_heads, raw->n_kv_heads);
    if (raw->rope_dim > raw->head_dim || raw->rope_dim % 2)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: its rotary width is %d; it must be even and at most the head width %d",
                       m->file.name, raw->rope_dim, raw->head_dim);
    if (raw->layer_types[0] && (int)strlen(raw->layer_types) != raw->n_layers)
        return qp_fail(error, QUIP_E_FORMAT, "%s: quip.config gives %zu layer types for %d layers",
                       m->file.name, strlen(raw->layer_types), raw->n_layers);
    return check_rotation(m, raw, error);
}

static bool is_sliding(const struct raw_config *raw, int l)
{
    if (raw->layer_types[0])
        return raw->layer_types[l] == 'L';
    return raw->local_per_global > 0 && (l + 1) % (raw->local_per_global + 1) != 0;
}

/* What q.k is multiplied by: as quip.config says, or else as MediaPipe does. */
static float query_scale(const struct raw_config *raw)
{
    assert(raw->n_heads > 0 && raw->head_dim > 0);
    if (raw->query_scale > 0)
        return raw->query_scale;
    if (raw->scale_type == SCALE_INV_SQRT_D_PER_N)
        return 1.0f / sqrtf((float)raw->d_model / (float)raw->n_heads);
    if (raw->scale_type == SCALE_RESCALE_FACTOR && raw->query_rescale > 0)
        return raw->query_rescale / (float)raw->head_dim;
    return 1.0f / sqrtf((float)raw->head_dim);
}

static void fill_config(struct config *c, const struct raw_config *raw)
{
    const struct family *family = raw->family;
    struct layer_config *layers = c->layers;
    assert(layers && raw->n_layers > 0 && raw->n_kv_heads > 0);
    *c = (struct config){
        .family = family,
        .norm = family->norm,
        .act = family->act,
        .qk_norm = family->qk_norm,
        .post_norm = family->post_norm,
        .is_gated = family->is_gated,
        .is_parallel = family->is_parallel,
        .has_alibi = family->has_alibi,
        .tied = raw->tied != 0,
        .n_layers = raw->n_layers,
        .d_model = raw->d_model,
        .d_ff = raw->d_ff,
        .n_heads = raw->n_heads,
        .n_kv_heads = raw->n_kv_heads,
        .head_dim = raw->head_dim,
        .vocab_size = raw->vocab_size,
        .rope_dim = raw->rope_dim,
        .n_context_max = raw->n_context_max,
        .norm_eps = raw->norm_eps,
        .embed_scale = family->embed_sqrt_d ? sqrtf((float)raw->d_model) : 1.0f,
        .query_scale = query_scale(raw),
        .attention_cap = raw->attention_cap,
        .logits_cap = raw->logits_cap,
        .layers = layers,
        .bos =
            raw->prompts->bos < raw->vocab_size ? raw->prompts->bos : -1, // the vocabulary was cut
        .n_stop_ids = raw->prompts->n_stop_ids,
    };
    memcpy(c->stop_ids, raw->prompts->stop_ids, sizeof c->stop_ids);
    for (int l = 0; l < c->n_layers; l++)
        layers[l] = is_sliding(raw, l)
                        ? (struct layer_config){ raw->window, raw->rope_local_theta, 1.0f }
                        : (struct layer_config){ 0, raw->rope_theta, raw->rope_scaling };
}

static bool is_same_spelling(const struct chat_template *a, const struct chat_template *b)
{
    const struct turn_text *x[] = { &a->user, &a->model, &a->system };
    const struct turn_text *y[] = { &b->user, &b->model, &b->system };
    for (size_t i = 0; i < QP_COUNT(x); i++)
        if (strcmp(x[i]->prefix, y[i]->prefix) != 0 || strcmp(x[i]->suffix, y[i]->suffix) != 0)
            return false;
    return true;
}

/* The first of these that exists: a bundle's templates, the template that quip.config names, the
 * model file's templates. But a named template that spells the turns like the bundle's is better:
 * it also has stops and a default system text. Without a template, text is used as it is. */
static void choose_chat(quip_model *m, const struct raw_config *raw)
{
    const struct chat_template *named = raw->chat[0] ? qp_chat_find(raw->chat) : NULL;
    const struct chat_template *own = qp_prompts_chat(m);
    const bool own_is_first = m->bundle.metadata.data && own &&
                              !(named && !own->default_system && is_same_spelling(own, named));
    m->chat = own_is_first || !raw->chat[0] ? own : named;
    if (m->chat && strcmp(m->chat->name, "none") == 0)
        m->chat = NULL;
}

/* The pieces that end a turn of the template; without any stop, the tokenizer's own end. */
static void add_template_stops(quip_model *m)
{
    struct prompts *p = &m->prompts;
    if (m->chat)
        for (const char *const *stop = m->chat->stops; *stop; stop++)
            qp_prompts_add_stop(p, qp_tokenizer_find(m->tokenizer, *stop, strlen(*stop)));
    if (p->n_stop_ids == 0)
        qp_prompts_add_stop(p, qp_tokenizer_eos(m->tokenizer));
}

quip_status qp_config_read(quip_model *m, quip_error *error)
{
    struct raw_config raw;
    const struct file *bundled = &m->bundle.metadata;
    quip_status status = qp_raw_config_read(&raw, m, error);
    if (!status)
        status = check_raw(m, &raw, error);
    if (!status && bundled->data)
        status = qp_prompts_read(m, bundled->data, (size_t)bundled->size, BUNDLE_METADATA, error);
    if (status)
        return status;
    choose_chat(m, &raw);
    add_template_stops(m);

    const size_t layers_bytes = (size_t)raw.n_layers * sizeof(struct layer_config);
    const size_t weights_bytes = (size_t)raw.n_layers * sizeof(struct layer_weights);
    if ((status = qp_arena_open(&m->arena, qp_round_up(layers_bytes, 64) + weights_bytes + 64,
                                "the layer tables", error)))
        return status;
    m->config.layers = qp_arena_alloc(&m->arena, layers_bytes);
    m->weights.layers = qp_arena_alloc(&m->arena, weights_bytes);
    fill_config(&m->config, &raw);
    return QUIP_OK;
}
