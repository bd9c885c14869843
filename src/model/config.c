/* config.c: the config of a model.
 * In:  the row of its family (families.c), MediaPipe's LlmParameters proto, and Quip's own text
 *      `quip.config`, which says what the proto cannot. Each source overrides the one before.
 * Out: struct config, with every size in a range that later products of sizes can rely on. */
#include "format/bundle.h"
#include "format/protobuf.h"
#include "model/llm_parameters.h"
#include "model/model.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What the sources say, before it is checked. */
struct raw_config {
    const struct family *family;
    int n_layers, d_model, d_ff, n_heads, n_kv_heads, head_dim, vocab_size;
    int rope_dim, n_context_max, window, local_per_global, tied;
    float norm_eps, rope_theta, rope_local_theta, rope_scaling, query_scale;
    float attention_cap, logits_cap, query_rescale;
    int scale_type;         // SCALE_… of llm_parameters.h, or 0
    char layer_types[1025]; // 'L' or 'G' for each layer; "": the family's pattern
    char chat[32];
    struct prompts *prompts;
};

/* ---- LlmParameters ---- */

struct proto_int {
    int number;
    size_t offset; // of an int in struct raw_config
};
static const struct proto_int transformer_ints[] = {
    { TRANSFORMER_D_MODEL, offsetof(struct raw_config, d_model) },
    { TRANSFORMER_D_FF, offsetof(struct raw_config, d_ff) },
    { TRANSFORMER_HEAD_DIM, offsetof(struct raw_config, head_dim) },
    { TRANSFORMER_N_HEADS, offsetof(struct raw_config, n_heads) },
    { TRANSFORMER_N_LAYERS, offsetof(struct raw_config, n_layers) },
    { TRANSFORMER_N_KV_HEADS, offsetof(struct raw_config, n_kv_heads) },
    { TRANSFORMER_LOCAL_PER_GLOBAL, offsetof(struct raw_config, local_per_global) },
};

static bool read_attention(struct raw_config *raw, const struct proto_field *message)
{
    struct proto_reader r;
    struct proto_field field;
    qp_proto_open(&r, message->data, message->n);
    while (qp_proto_next(&r, &field)) {
        if (field.number == ATTENTION_SOFT_CAP && field.wire_type == 5 &&
            qp_proto_float(&field) > 0)
            raw->attention_cap = qp_proto_float(&field);
        if (field.number == ATTENTION_SCALE && field.wire_type == 0)
            raw->scale_type = field.value > SCALE_RESCALE_FACTOR ? 0 : (int)field.value;
        if (field.number == ATTENTION_WINDOW && field.wire_type == 0)
            raw->window = field.value > INT32_MAX ? -1 : (int)field.value;
    }
    return !r.is_malformed;
}

static bool read_head(struct raw_config *raw, const struct proto_field *message)
{
    struct proto_reader r;
    struct proto_field field;
    qp_proto_open(&r, message->data, message->n);
    while (qp_proto_next(&r, &field))
        if (field.number == HEAD_SOFT_CAP && field.wire_type == 5 && qp_proto_float(&field) > 0)
            raw->logits_cap = qp_proto_float(&field);
    return !r.is_malformed;
}

static bool read_transformer(struct raw_config *raw, const struct proto_field *message)
{
    struct proto_reader r;
    struct proto_field field;
    bool ok = true;
    qp_proto_open(&r, message->data, message->n);
    while (qp_proto_next(&r, &field)) {
        if (field.wire_type == 0)
            for (size_t i = 0; i < QP_COUNT(transformer_ints); i++)
                if (field.number == transformer_ints[i].number)
                    *(int *)((char *)raw + transformer_ints[i].offset) =
                        field.value > INT32_MAX ? -1 : (int)field.value;
        if (field.number == TRANSFORMER_HEAD && field.wire_type == 2)
            ok = ok && read_head(raw, &field);
        if (field.number == TRANSFORMER_ATTENTION && field.wire_type == 2)
            ok = ok && read_attention(raw, &field);
        if (field.number == TRANSFORMER_QUERY_RESCALE && field.wire_type == 5)
            raw->query_rescale = qp_proto_float(&field);
        if (field.number == TRANSFORMER_ROPE_THETA && field.wire_type == 5 &&
            qp_proto_float(&field) > 0)
            raw->rope_theta = qp_proto_float(&field);
        if (field.number == TRANSFORMER_ROPE_SCALING && field.wire_type == 5 &&
            qp_proto_float(&field) > 0)
            raw->rope_scaling = qp_proto_float(&field);
    }
    return ok && !r.is_malformed;
}

static quip_status read_parameters(quip_model *m, struct raw_config *raw, quip_error *error)
{
    const struct metadata *entry =
        qp_format_find_metadata(&m->format, "odml.infra.proto.LlmParameters");
    const uint8_t *data;
    size_t n;
    quip_status status;
    if (!entry || entry->type != METADATA_BYTES)
        return qp_fail(
            error, QUIP_E_FORMAT,
            "%s: has no odml.infra.proto.LlmParameters metadata; it is a TFLite file, but "
            "not a language model",
            m->file.name);
    if ((status = qp_format_bytes(&m->format, entry, &data, &n, error)))
        return status;

    struct proto_reader r;
    struct proto_field field;
    bool ok = true;
    qp_proto_open(&r, data, n);
    while (ok && qp_proto_next(&r, &field)) {
        if (field.number == LLM_TRANSFORMER && field.wire_type == 2)
            ok = read_transformer(raw, &field);
        else if (field.number == LLM_VOCAB_SIZE && field.wire_type == 0)
            raw->vocab_size = field.value > INT32_MAX ? -1 : (int)field.value;
    }
    if (!ok || r.is_malformed)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: its LlmParameters metadata (%zu bytes) is damaged", m->file.name, n);
    return qp_prompts_read(m, data, n, "LlmParameters metadata", error);
}

/* ---- quip.config ---- */

/* All of the text is one number, and not so small that it is zero as a float. */
static bool parse_number(const char *s, size_t n, double *value)
{
    return n > 0 && qp_decimal_parse(s, n, value) == n && (*value == 0 || fabs(*value) > 1e-44);
}

enum key_kind {
    KEY_INT,
    KEY_FLOAT,
    KEY_TEXT,   // at most .size bytes, the NUL included
    KEY_FAMILY, // read before all others
    KEY_BOS,
    KEY_IDS
};
static const char *const key_values[] = {
    [KEY_INT] = "a number from -1 to 2147483647",
    [KEY_FLOAT] = "a number from 0 to 1e12",
    [KEY_TEXT] = "a shorter text",
    [KEY_FAMILY] = "an architecture",
    [KEY_BOS] = "a number from -1 to 2147483647",
    [KEY_IDS] = "numbers with commas between them",
};
struct config_key {
    const char *name;
    enum key_kind kind;
    size_t offset, size; // in struct raw_config
};
// clang-format off
#define INT_KEY(name) { #name, KEY_INT, offsetof(struct raw_config, name), 0 }
#define FLOAT_KEY(name) { #name, KEY_FLOAT, offsetof(struct raw_config, name), 0 }
#define TEXT_KEY(name) { #name, KEY_TEXT, offsetof(struct raw_config, name), sizeof((struct raw_config){ 0 }.name) }
// clang-format on

/* docs/model-format.md describes each. Unknown keys are ignored: newer files may have more. */
static const struct config_key config_keys[] = {
    { "architecture", KEY_FAMILY, 0, 0 },
    { "stop_ids", KEY_IDS, 0, 0 },
    { "bos", KEY_BOS, 0, 0 },
    INT_KEY(rope_dim),
    INT_KEY(n_context_max),
    INT_KEY(window),
    INT_KEY(tied),
    FLOAT_KEY(norm_eps),
    FLOAT_KEY(rope_theta),
    FLOAT_KEY(rope_local_theta),
    FLOAT_KEY(rope_scaling),
    FLOAT_KEY(query_scale),
    FLOAT_KEY(attention_cap),
    FLOAT_KEY(logits_cap),
    TEXT_KEY(layer_types),
    TEXT_KEY(chat),
};

static bool set_ids(struct raw_config *raw, const char *s, size_t n)
{
    raw->prompts->n_stop_ids = 0;
    for (size_t i = 0; i < n;) {
        size_t end = i;
        double id;
        while (end < n && s[end] != ',')
            end++;
        if (!parse_number(s + i, end - i, &id))
            return false;
        if (id >= 0 && id <= INT32_MAX) // otherwise it is not a token
            qp_prompts_add_stop(raw->prompts, (int64_t)id);
        i = end + 1;
    }
    return true;
}

static bool set_key(struct raw_config *raw, const struct config_key *key, const char *s, size_t n)
{
    double number;
    char *field = (char *)raw + key->offset;
    assert(key->offset < sizeof *raw);
    switch (key->kind) {
    case KEY_INT:
        if (!parse_number(s, n, &number) || number < -1 || number > INT32_MAX)
            return false;
        *(int *)field = (int)number;
        return true;
    case KEY_FLOAT:
        if (!parse_number(s, n, &number) || number < 0 || number > 1e12)
            return false;
        *(float *)field = (float)number;
        return true;
    case KEY_TEXT:
        if (n >= key->size || memchr(s, 0, n))
            return false;
        memcpy(field, s, n);
        field[n] = 0;
        return true;
    case KEY_IDS:
        return set_ids(raw, s, n);
    case KEY_BOS:
        if (!parse_number(s, n, &number) || number < -1 || number > INT32_MAX)
            return false;
        raw->prompts->bos = (int)number;
        return true;
    case KEY_FAMILY:
        return true;
    }
    return false;
}

/* The next "key value" line of text[*at, n). */
static bool next_line(const char *text, size_t n, size_t *at, const char **key, size_t *n_key,
                      const char **value, size_t *n_value)
{
    while (*at < n) {
        const char *line = text + *at, *end = memchr(line, '\n', n - *at);
        size_t n_line = end ? (size_t)(end - line) : n - *at;
        const char *space = memchr(line, ' ', n_line);
        *at += n_line + 1;
        if (!space)
            continue;
        *key = line;
        *n_key = (size_t)(space - line);
        *value = space + 1;
        *n_value = n_line - *n_key - 1;
        return true;
    }
    return false;
}

static quip_status read_keys(quip_model *m, struct raw_config *raw, const char *text, size_t n,
                             quip_error *error)
{
    const char *key, *value;
    size_t at = 0, n_key, n_value;
    while (next_line(text, n, &at, &key, &n_key, &value, &n_value))
        for (size_t i = 0; i < QP_COUNT(config_keys); i++) {
            const struct config_key *k = &config_keys[i];
            if (strlen(k->name) == n_key && memcmp(k->name, key, n_key) == 0 &&
                !set_key(raw, k, value, n_value))
                return qp_fail(error, QUIP_E_FORMAT, "%s: quip.config: %s is \"%.*s\"; must be %s",
                               m->file.name, k->name, (int)(n_value < 60 ? n_value : 60), value,
                               key_values[k->kind]);
        }
    return QUIP_OK;
}

/* quip.config names the family; without that, MediaPipe's model type does. */
static quip_status find_family(quip_model *m, struct raw_config *raw, const char *text, size_t n,
                               quip_error *error)
{
    const char *key, *value;
    size_t at = 0, n_key, n_value;
    while (next_line(text, n, &at, &key, &n_key, &value, &n_value))
        if (n_key == strlen("architecture") && memcmp(key, "architecture", n_key) == 0) {
            char name[32] = "";
            if (n_value < sizeof name)
                memcpy(name, value, n_value);
            if (!(raw->family = qp_family_named(name))) {
                char names[300];
                qp_family_list(names, sizeof names);
                return qp_fail(error, QUIP_E_UNSUPPORTED,
                               "%s: its architecture \"%s\" is not supported; supported are %s",
                               m->file.name, name, names);
            }
            return QUIP_OK;
        }
    const struct metadata *type = qp_format_find_metadata(&m->format, "odml.infra.LlmModelType");
    if (!type || type->type != METADATA_INT)
        return qp_fail(error, QUIP_E_FORMAT, "%s: has no odml.infra.LlmModelType metadata",
                       m->file.name);
    const struct model_type *known = qp_model_type_of_file(&m->format);
    if (!known)
        return qp_fail(error, QUIP_E_UNSUPPORTED, "%s: model type %lld (%s) is not supported",
                       m->file.name, (long long)type->i,
                       m->format.subgraph_name ? m->format.subgraph_name : "unnamed");
    raw->family = qp_family(known->family);
    return QUIP_OK;
}

/* ---- raw_config -> config ---- */

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
    struct raw_config raw = { .rope_dim = -1, .tied = -1, .prompts = &m->prompts };
    const struct metadata *own = qp_format_find_metadata(&m->format, "quip.config");
    const uint8_t *text = (const uint8_t *)"";
    size_t n = 0;
    quip_status status;
    if (own && own->type == METADATA_BYTES &&
        (status = qp_format_bytes(&m->format, own, &text, &n, error)))
        return status;
    if ((status = find_family(m, &raw, (const char *)text, n, error)))
        return status;
    raw.window = raw.family->window;
    raw.local_per_global = raw.family->local_per_global;
    raw.rope_theta = raw.family->rope_theta;
    raw.rope_local_theta = raw.family->rope_local_theta;
    raw.rope_scaling = 1;
    raw.norm_eps = raw.family->norm_eps;
    raw.attention_cap = raw.family->attention_cap;
    raw.logits_cap = raw.family->logits_cap;
    m->prompts.bos = -1;
    if ((status = read_parameters(m, &raw, error)) ||
        (status = read_keys(m, &raw, (const char *)text, n, error)) ||
        (status = check_raw(m, &raw, error)))
        return status;
    const struct file *bundled = &m->bundle.metadata;
    if (bundled->data &&
        (status = qp_prompts_read(m, bundled->data, (size_t)bundled->size, BUNDLE_METADATA, error)))
        return status;
    choose_chat(m, &raw);
    add_template_stops(m);

    size_t layers_bytes = (size_t)raw.n_layers * sizeof(struct layer_config);
    size_t weights_bytes = (size_t)raw.n_layers * sizeof(struct layer_weights);
    if ((status = qp_arena_open(&m->arena, qp_round_up(layers_bytes, 64) + weights_bytes + 64,
                                "the layer tables", error)))
        return status;
    m->config.layers = qp_arena_alloc(&m->arena, layers_bytes);
    m->weights.layers = qp_arena_alloc(&m->arena, weights_bytes);
    fill_config(&m->config, &raw);
    return QUIP_OK;
}
