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
    { "local rotary width", offsetof(struct raw_config, rope_local_dim), 0, 1024 },
    { "width of per-layer embeddings", offsetof(struct raw_config, d_ple), 0, 1 << 16 },
    { "window", offsetof(struct raw_config, traits.window), 0, INT32_MAX },
    { "local layers per global one", offsetof(struct raw_config, traits.local_per_global), 0,
      1024 },
    { "longest context", offsetof(struct raw_config, n_context_max), 0, INT32_MAX },
    { "original context", offsetof(struct raw_config, n_context_original), 0, INT32_MAX },
    { "number of rope divisors", offsetof(struct raw_config, rope_divisors), 0, 2 },
    { "convolution width", offsetof(struct raw_config, conv_width), 0, MAX_CONV_WIDTH },
    { "number of experts", offsetof(struct raw_config, n_experts), 0, MAX_EXPERTS },
    { "number of experts of a token", offsetof(struct raw_config, n_experts_used), 0, 64 },
    { "width of an expert", offsetof(struct raw_config, d_ff_expert), 0, 1 << 20 },
};

/* Limits that keep every angle, up to position 2^20, below the 2^31 of qp_sin_cos. */
static quip_status check_rotation(const quip_model *m, const struct raw_config *raw,
                                  quip_error *error)
{
    const double local = raw->traits.rope_local_theta;
    const double bases[] = { raw->traits.rope_theta, local > 0 ? local : 1 };
    for (size_t i = 0; i < QP_COUNT(bases) && raw->rope_dim > 0; i++)
        if (!(bases[i] >= 1 && bases[i] <= 1e12))
            return qp_fail(error, QUIP_E_FORMAT, "%s: its rotary base is %g; must be 1 to 1e12",
                           m->file.name, bases[i]);
    if (!(raw->rope_scaling >= 1e-3 && raw->rope_scaling <= 1e6))
        return qp_fail(error, QUIP_E_FORMAT, "%s: its rotary scaling is %g; must be 0.001 to 1e6",
                       m->file.name, raw->rope_scaling);
    if (!(raw->rope_amplitude >= 1e-3 && raw->rope_amplitude <= 1e3))
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: its rotary amplitude is %g; must be 0.001 to 1000", m->file.name,
                       raw->rope_amplitude);
    if (raw->rope_divisors == 2 && raw->n_context_original < 1)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: has rope divisors for long contexts, but no n_context_original",
                       m->file.name);
    return QUIP_OK;
}

/* A text with a letter for each layer, or none; `known` are the letters that it may have. */
static quip_status check_letters(const quip_model *m, const struct raw_config *raw,
                                 const char *name, const char *letters, const char *known,
                                 quip_error *error)
{
    const size_t n = strlen(letters);
    size_t n_known = 0;
    while (n_known < n && strchr(known, letters[n_known]))
        n_known++;
    if (n > 0 && (int)n != raw->n_layers)
        return qp_fail(error, QUIP_E_FORMAT, "%s: quip.config gives %zu %s for %d layers",
                       m->file.name, n, name, raw->n_layers);
    if (n_known < n)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: quip.config: %s: that of layer %zu is %c; must be one of %s",
                       m->file.name, name, n_known, letters[n_known], known);
    return QUIP_OK;
}

/* The kinds of layers, and what each kind needs. */
static quip_status check_layers(const quip_model *m, const struct raw_config *raw,
                                quip_error *error)
{
    quip_status status = check_letters(m, raw, "layer types", raw->layer_types, "GLglC", error);
    if (!status)
        status = check_letters(m, raw, "feed-forward types", raw->ff_types, "DE", error);
    if (status)
        return status;
    if (strchr(raw->layer_types, 'C') && raw->conv_width < 1)
        return qp_fail(error, QUIP_E_FORMAT, "%s: has convolutions, but their width is %d",
                       m->file.name, raw->conv_width);
    if (strchr(raw->ff_types, 'E') &&
        (raw->n_experts < 1 || raw->n_experts_used < 1 || raw->n_experts_used > raw->n_experts ||
         raw->d_ff_expert < 1 || !raw->traits.is_gated))
        return qp_fail(
            error, QUIP_E_FORMAT,
            "%s: a token uses %d of %d experts of width %d; must be 1 to %d, at least 1, "
            "and gated",
            m->file.name, raw->n_experts_used, raw->n_experts, raw->d_ff_expert, raw->n_experts);
    return QUIP_OK;
}

/* What the file leaves to its family. */
static void complete_raw(struct raw_config *raw)
{
    const struct family *family = raw->family;
    if (raw->n_kv_heads == 0) // MediaPipe's way to say n_heads
        raw->n_kv_heads = raw->n_heads;
    if (raw->rope_dim < 0)
        raw->rope_dim = raw->traits.has_alibi || family->has_no_rope ? 0
                        : family->rope_fraction > 0
                            ? (int)((float)raw->head_dim * family->rope_fraction)
                            : raw->head_dim;
    if (raw->rope_local_dim < 0)
        raw->rope_local_dim = raw->rope_dim;
    if (raw->traits.embed_scale == 0)
        raw->traits.embed_scale = family->embed_sqrt_d ? sqrtf((float)raw->d_model) : 1;
    if (raw->traits.residual_scale == 0)
        raw->traits.residual_scale = 1;
    if (raw->traits.logits_scale == 0)
        raw->traits.logits_scale = 1;
}

/* Its letter of raw_config.layer_types. */
static char layer_type(const struct raw_config *raw, int l)
{
    const int local = raw->traits.local_per_global;
    if (raw->layer_types[0])
        return raw->layer_types[l];
    return local > 0 && (l + 1) % (local + 1) != 0 ? 'L' : 'G';
}

static struct layer_config layer_config(const struct raw_config *raw, int l)
{
    const char type = layer_type(raw, l);
    const bool has_local_rope = raw->traits.rope_local_theta > 0;
    const bool is_local = type == 'L' || type == 'l', has_rope = type == 'L' || type == 'G';
    return (struct layer_config){
        .mixer = type == 'C' ? MIXER_CONV : MIXER_ATTENTION,
        .has_experts = raw->ff_types[0] && raw->ff_types[l] == 'E',
        .window = is_local ? raw->traits.window : 0,
        .rope = raw->rope_dim == 0 || !has_rope ? ROPE_NONE
                : is_local && has_local_rope    ? ROPE_LOCAL
                                                : ROPE_GLOBAL,
        .n_kv_heads = qp_of_layer(&raw->kv_heads, l, raw->n_kv_heads),
        .head_dim = qp_of_layer(&raw->head_dims, l, raw->head_dim),
        .d_ff = qp_of_layer(&raw->d_ffs, l, raw->d_ff),
        .kv_layer = qp_of_layer(&raw->kv_layers, l, l),
        .v_is_k = type != 'L' && raw->traits.global_v_is_k,
    };
}

/* Lists have a number for each layer. */
static quip_status check_lists(const quip_model *m, const struct raw_config *raw, quip_error *error)
{
    const struct layer_list *const lists[] = { &raw->head_dims, &raw->kv_heads, &raw->d_ffs,
                                               &raw->kv_layers };
    for (size_t i = 0; i < QP_COUNT(lists); i++)
        if (lists[i]->n > 0 && lists[i]->n != raw->n_layers)
            return qp_fail(error, QUIP_E_FORMAT,
                           "%s: quip.config has a list of %d numbers for %d layers", m->file.name,
                           lists[i]->n, raw->n_layers);
    if (raw->never_ids.n > MAX_NEVER_IDS)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: quip.config has %d tokens that are never drawn; must be at most %d",
                       m->file.name, raw->never_ids.n, MAX_NEVER_IDS);
    if (raw->d_ple > 0 && (raw->vocab_size > INT32_MAX / raw->n_layers || raw->d_ple % 2))
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: has %d tokens and %d layers with per-layer embeddings of %d numbers; "
                       "must be fewer, and an even number",
                       m->file.name, raw->vocab_size, raw->n_layers, raw->d_ple);
    return QUIP_OK;
}

/* Can layer l attend to the keys of the layer that it names? */
static bool is_kv_layer(const struct raw_config *raw, int l)
{
    const struct layer_config a = layer_config(raw, l);
    if (a.kv_layer == l)
        return true;
    if (a.kv_layer < 0 || a.kv_layer > l)
        return false;
    const struct layer_config b = layer_config(raw, a.kv_layer);
    return b.kv_layer == a.kv_layer && a.head_dim == b.head_dim && a.n_kv_heads == b.n_kv_heads &&
           a.window == b.window && a.mixer == MIXER_ATTENTION && b.mixer == MIXER_ATTENTION;
}

/* The sizes of one layer. */
static quip_status check_layer(const quip_model *m, const struct raw_config *raw, int l,
                               quip_error *error)
{
    const struct layer_config c = layer_config(raw, l);
    const int rope_dim = c.rope == ROPE_NONE    ? 0
                         : c.rope == ROPE_LOCAL ? raw->rope_local_dim
                                                : raw->rope_dim;
    if (c.head_dim < 1 || c.head_dim > 1024 || c.d_ff < !c.has_experts || c.d_ff > 1 << 20)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: layer %d has heads of %d and a feed-forward of %d; must be 1 to 1024 "
                       "and 1 to 1048576",
                       m->file.name, l, c.head_dim, c.d_ff);
    if (c.n_kv_heads < 1 || raw->n_heads % c.n_kv_heads)
        return qp_fail(error, QUIP_E_FORMAT, "%s: %d heads cannot share %d kv heads evenly",
                       m->file.name, raw->n_heads, c.n_kv_heads);
    if (rope_dim > c.head_dim || rope_dim % 2)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: its rotary width is %d; it must be even and at most the head width %d",
                       m->file.name, rope_dim, c.head_dim);
    if (!is_kv_layer(raw, l))
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: layer %d cannot attend to the keys of layer %d; must be itself, or an "
                       "earlier one with the same heads and window",
                       m->file.name, l, c.kv_layer);
    return QUIP_OK;
}

static quip_status check_raw(const quip_model *m, struct raw_config *raw, quip_error *error)
{
    complete_raw(raw);
    for (size_t i = 0; i < QP_COUNT(ranges); i++) {
        const struct range *r = &ranges[i];
        int value = *(int *)((char *)raw + r->offset);
        if (value < r->low || value > r->high)
            return qp_fail(error, QUIP_E_FORMAT, "%s: its %s is %d; must be %d to %d", m->file.name,
                           r->name, value, r->low, r->high);
    }
    quip_status status = check_layers(m, raw, error);
    if (!status && raw->traits.has_positions &&
        (raw->n_context_max < 1 || raw->n_context_max > 1 << 20))
        status = qp_fail(error, QUIP_E_FORMAT,
                         "%s: has a vector for each of %d positions; must be 1 to %d", m->file.name,
                         raw->n_context_max, 1 << 20);
    if (!status)
        status = check_rotation(m, raw, error);
    if (!status)
        status = check_lists(m, raw, error);
    for (int l = 0; l < raw->n_layers && !status; l++)
        status = check_layer(m, raw, l, error);
    return status;
}

/* What q.k is multiplied by: as quip.config says, or else as MediaPipe does. */
static float query_scale(const struct raw_config *raw)
{
    assert(raw->n_heads > 0 && raw->head_dim > 0);
    if (raw->query_scale > 0)
        return (float)raw->query_scale;
    if (raw->scale_type == SCALE_INV_SQRT_D_PER_N)
        return 1.0f / sqrtf((float)raw->d_model / (float)raw->n_heads);
    if (raw->scale_type == SCALE_RESCALE_FACTOR && raw->query_rescale > 0)
        return (float)raw->query_rescale / (float)raw->head_dim;
    return 1.0f / sqrtf((float)raw->head_dim);
}

static void fill_ropes(struct config *c, const struct raw_config *raw)
{
    c->ropes[ROPE_GLOBAL] = (struct rope){ .dim = raw->rope_dim,
                                           .theta = (float)raw->traits.rope_theta,
                                           .scale = (float)raw->rope_scaling,
                                           .amplitude = (float)raw->rope_amplitude };
    c->ropes[ROPE_LOCAL] = (struct rope){ .dim = raw->rope_local_dim,
                                          .theta = (float)raw->traits.rope_local_theta,
                                          .scale = 1,
                                          .amplitude = 1 };
    c->n_rope_divisors = raw->rope_dim > 0 ? raw->rope_divisors : 0;
    c->n_context_original = raw->rope_divisors == 2 ? raw->n_context_original : 0;
}

/* What all layers have in common. */
static struct config common_config(const struct raw_config *raw)
{
    const struct traits *t = &raw->traits;
    return (struct config){
        .family = raw->family,
        .norm = t->norm,
        .act = t->act,
        .qk_norm = t->qk_norm,
        .pre_norm = !t->no_pre_norm,
        .post_norm = t->post_norm,
        .norm_has_bias = t->norm == NORM_LAYER && !t->no_norm_bias,
        .is_parallel = t->residual == RESIDUAL_PARALLEL || t->residual == RESIDUAL_PARALLEL_NORMS,
        .norms_sum = t->residual == RESIDUAL_POST_NORM,
        .has_ff_norm = !t->no_pre_norm && t->residual != RESIDUAL_PARALLEL,
        .has_final_norm = !t->no_final_norm,
        .has_positions = t->has_positions,
        .embed_norm = t->embed_norm,
        .mixes_inputs = t->mixes_inputs,
        .is_bidirectional = t->is_bidirectional,
        .is_gated = t->is_gated,
        .has_alibi = t->has_alibi,
        .v_norm = t->v_norm,
        .has_layer_scale = t->has_layer_scale,
        .tied = raw->tied != 0,
        .n_layers = raw->n_layers,
        .d_model = raw->d_model,
        .n_heads = raw->n_heads,
        .d_ple = raw->d_ple,
        .vocab_size = raw->vocab_size,
        .n_context_max = raw->n_context_max,
        .norm_eps = (float)t->norm_eps,
        .embed_scale = (float)t->embed_scale,
        .residual_scale = (float)t->residual_scale,
        .query_scale = query_scale(raw),
        .attention_cap = (float)t->attention_cap,
        .logits_scale = (float)t->logits_scale,
        .logits_cap = (float)t->logits_cap,
        .conv_width = strchr(raw->layer_types, 'C') ? raw->conv_width : 0,
        .bos =
            raw->prompts->bos < raw->vocab_size ? raw->prompts->bos : -1, // the vocabulary was cut
        .n_stop_ids = raw->prompts->n_stop_ids,
    };
}

static struct expert_config expert_config(const struct raw_config *raw)
{
    return (struct expert_config){ .n = raw->n_experts,
                                   .n_used = raw->n_experts_used,
                                   .d_ff = raw->d_ff_expert,
                                   .is_normalized = raw->experts_normalized,
                                   .has_shared_gate = raw->traits.has_shared_gate,
                                   .has_norms = raw->traits.has_expert_norms };
}

/* Each layer, and the largest sizes of any. */
static void fill_layers(struct config *c, const struct raw_config *raw)
{
    assert(c->layers && raw->n_layers > 0 && raw->n_kv_heads > 0);
    for (int l = 0; l < c->n_layers; l++) {
        c->layers[l] = layer_config(raw, l);
        c->head_dim = qp_max(c->head_dim, c->layers[l].head_dim);
        c->n_kv_heads = qp_max(c->n_kv_heads, c->layers[l].n_kv_heads);
        c->d_ff = qp_max(c->d_ff, c->layers[l].d_ff);
        if (c->layers[l].kv_layer == l)
            c->last_kv_layer = l;
    }
}

/* `layers` has memory for all of them. */
static void fill_config(struct config *c, const struct raw_config *raw, struct layer_config *layers)
{
    *c = common_config(raw);
    memcpy(c->stop_ids, raw->prompts->stop_ids, sizeof c->stop_ids);
    for (int i = 0; i < raw->never_ids.n; i++)
        if (raw->never_ids.value[i] < c->vocab_size)
            c->never_ids[c->n_never_ids++] = raw->never_ids.value[i];
    c->layers = layers;
    fill_layers(c, raw);
    fill_ropes(c, raw);
    if (strchr(raw->ff_types, 'E'))
        c->experts = expert_config(raw);
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
    struct layer_config *layers = qp_arena_alloc(&m->arena, layers_bytes);
    m->weights.layers = qp_arena_alloc(&m->arena, weights_bytes);
    fill_config(&m->config, &raw, layers);
    return QUIP_OK;
}
