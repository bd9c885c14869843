/* config.c: metadata of a model file -> struct config.
 * Three sources, each overriding the one before: the architecture's row (arch.c), the original's
 * LlmParameters proto, and Quip's own `quip.config` text, which says what the proto cannot. */
#include "format/bundle.h"
#include "format/protobuf.h"
#include "model/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What the sources say, before it is checked and spread over the layers. */
struct raw_config {
    const struct family *family;
    int n_layers, d_model, d_ff, n_heads, n_kv_heads, head_dim, vocab_size;
    int rope_dim, n_context_max, window, local_per_global, tied;
    float norm_eps, rope_theta, rope_local_theta, rope_scaling, query_scale;
    float attention_cap, logits_cap, query_rescale;
    /* of the original: 2 is 1/sqrt(head_dim), 3 1/sqrt(d_model/n_heads), 4 query_rescale/head_dim
     */
    int scale_type;
    char layer_types[1025]; // 'L' or 'G' a layer; "": the architecture's pattern
    char chat[32];
    struct prompts *prompts;
};

/* ---- LlmParameters ---- */

struct proto_int {
    int number;
    size_t offset; // of an int in struct raw_config
};
static const struct proto_int transformer_ints[] = {
    { 3, offsetof(struct raw_config, d_model) },
    { 4, offsetof(struct raw_config, d_ff) },
    { 5, offsetof(struct raw_config, head_dim) },
    { 6, offsetof(struct raw_config, n_heads) },
    { 7, offsetof(struct raw_config, n_layers) },
    { 9, offsetof(struct raw_config, n_kv_heads) },
    { 19, offsetof(struct raw_config, local_per_global) },
};

static bool read_attention(struct raw_config *f, const struct proto_field *message)
{
    struct proto_reader r;
    struct proto_field field;
    qp_proto_open(&r, message->data, message->n);
    while (qp_proto_next(&r, &field)) {
        if (field.number == 4 && field.wire_type == 5 && qp_proto_float(&field) > 0)
            f->attention_cap = qp_proto_float(&field);
        if (field.number == 5 && field.wire_type == 0)
            f->scale_type = field.value > 4 ? 0 : (int)field.value;
        if (field.number == 6 && field.wire_type == 0)
            f->window = field.value > INT32_MAX ? -1 : (int)field.value;
    }
    return !r.is_malformed;
}

static bool read_head(struct raw_config *f, const struct proto_field *message)
{
    struct proto_reader r;
    struct proto_field field;
    qp_proto_open(&r, message->data, message->n);
    while (qp_proto_next(&r, &field))
        if (field.number == 2 && field.wire_type == 5 && qp_proto_float(&field) > 0)
            f->logits_cap = qp_proto_float(&field);
    return !r.is_malformed;
}

static bool read_transformer(struct raw_config *f, const struct proto_field *message)
{
    struct proto_reader r;
    struct proto_field field;
    bool ok = true;
    qp_proto_open(&r, message->data, message->n);
    while (qp_proto_next(&r, &field)) {
        if (field.wire_type == 0)
            for (size_t i = 0; i < QP_COUNT(transformer_ints); i++)
                if (field.number == transformer_ints[i].number)
                    *(int *)((char *)f + transformer_ints[i].offset) =
                        field.value > INT32_MAX ? -1 : (int)field.value;
        if (field.number == 12 && field.wire_type == 2)
            ok = ok && read_head(f, &field);
        if (field.number == 16 && field.wire_type == 2)
            ok = ok && read_attention(f, &field);
        if (field.number == 25 && field.wire_type == 5)
            f->query_rescale = qp_proto_float(&field);
        if (field.number == 32 && field.wire_type == 5 && qp_proto_float(&field) > 0)
            f->rope_theta = qp_proto_float(&field);
        if (field.number == 33 && field.wire_type == 5 && qp_proto_float(&field) > 0)
            f->rope_scaling = qp_proto_float(&field);
    }
    return ok && !r.is_malformed;
}

static quip_status read_parameters(quip_model *m, struct raw_config *f, quip_error *error)
{
    const struct metadata *entry =
        qp_format_find_metadata(&m->format, "odml.infra.proto.LlmParameters");
    const uint8_t *data;
    size_t n;
    quip_status status;
    if (!entry || entry->type != METADATA_BYTES)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: no odml.infra.proto.LlmParameters metadata; this is a TFLite file, but "
                       "not a language model",
                       m->file.name);
    if ((status = qp_format_bytes(&m->format, entry, &data, &n, error)))
        return status;

    struct proto_reader r;
    struct proto_field field;
    bool ok = true;
    qp_proto_open(&r, data, n);
    while (ok && qp_proto_next(&r, &field)) {
        if (field.number == 1 && field.wire_type == 2)
            ok = read_transformer(f, &field);
        else if (field.number == 2 && field.wire_type == 0)
            f->vocab_size = field.value > INT32_MAX ? -1 : (int)field.value;
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
    KEY_TEXT, // .size bytes with the NUL
    KEY_ARCH,
    KEY_BOS,
    KEY_IDS
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

/* docs/model-format.md describes each. Unknown keys are left alone: newer files may have more. */
static const struct config_key config_keys[] = {
    { "architecture", KEY_ARCH, 0, 0 },
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

static bool set_ids(struct raw_config *f, const char *s, size_t n)
{
    f->prompts->n_stop_ids = 0;
    for (size_t i = 0; i < n;) {
        size_t end = i;
        double id;
        while (end < n && s[end] != ',')
            end++;
        if (!parse_number(s + i, end - i, &id))
            return false;
        if (id >= 0 && id <= INT32_MAX) // else it is no token
            qp_prompts_add_stop(f->prompts, (int64_t)id);
        i = end + 1;
    }
    return true;
}

static bool set_key(struct raw_config *f, const struct config_key *key, const char *s, size_t n)
{
    double number;
    char *field = (char *)f + key->offset;
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
        return set_ids(f, s, n);
    case KEY_BOS:
        if (!parse_number(s, n, &number) || number < -1 || number > INT32_MAX)
            return false;
        f->prompts->bos = (int)number;
        return true;
    case KEY_ARCH: /* read before all others */
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

static quip_status read_keys(quip_model *m, struct raw_config *f, const char *text, size_t n,
                             quip_error *error)
{
    const char *key, *value;
    size_t at = 0, n_key, n_value;
    while (next_line(text, n, &at, &key, &n_key, &value, &n_value))
        for (size_t i = 0; i < QP_COUNT(config_keys); i++) {
            const struct config_key *k = &config_keys[i];
            if (strlen(k->name) == n_key && memcmp(k->name, key, n_key) == 0 &&
                !set_key(f, k, value, n_value))
                return qp_fail(error, QUIP_E_FORMAT,
                               "%s: quip.config says %s is \"%.*s\", which "
                               "is not a possible value",
                               m->file.name, k->name, (int)(n_value < 60 ? n_value : 60), value);
        }
    return QUIP_OK;
}

/* The architecture: quip.config names it, or else the original's model type does. */
static quip_status find_family(quip_model *m, struct raw_config *f, const char *text, size_t n,
                               quip_error *error)
{
    const char *key, *value;
    size_t at = 0, n_key, n_value;
    while (next_line(text, n, &at, &key, &n_key, &value, &n_value))
        if (n_key == strlen("architecture") && memcmp(key, "architecture", n_key) == 0) {
            char name[32] = "";
            if (n_value < sizeof name)
                memcpy(name, value, n_value);
            if (!(f->family = qp_family_named(name))) {
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
        return qp_fail(error, QUIP_E_FORMAT, "%s: no odml.infra.LlmModelType metadata",
                       m->file.name);
    const struct model_type *known = qp_model_type_of_file(&m->format);
    if (!known)
        return qp_fail(error, QUIP_E_UNSUPPORTED, "%s: model type %lld (%s) is not supported",
                       m->file.name, (long long)type->i,
                       m->format.subgraph_name ? m->format.subgraph_name : "unnamed");
    f->family = qp_family(known->family);
    return QUIP_OK;
}

/* ---- raw_config -> config ---- */

struct range {
    const char *name;
    size_t offset;
    int low, high;
};
/* Limits far above any model there is, so that products of two of them fit in 64 bits. */
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
static quip_status check_rotation(const quip_model *m, const struct raw_config *f,
                                  quip_error *error)
{
    const float bases[] = { f->rope_theta, f->rope_local_theta };
    for (size_t i = 0; i < QP_COUNT(bases); i++)
        if (!(bases[i] >= 1 && bases[i] <= 1e12f))
            return qp_fail(error, QUIP_E_FORMAT, "%s: its rotary base is %g; possible is 1 to 1e12",
                           m->file.name, (double)bases[i]);
    if (!(f->rope_scaling >= 1e-3f && f->rope_scaling <= 1e6f))
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: its rotary scaling is %g; possible is 0.001 to 1e6", m->file.name,
                       (double)f->rope_scaling);
    return QUIP_OK;
}

static quip_status check_raw(const quip_model *m, struct raw_config *f, quip_error *error)
{
    if (f->n_kv_heads == 0) // the original stores 0 for "as many as heads"
        f->n_kv_heads = f->n_heads;
    if (f->rope_dim < 0)
        f->rope_dim = f->family->has_alibi ? 0
                      : f->family->rope_fraction > 0
                          ? (int)((float)f->head_dim * f->family->rope_fraction)
                          : f->head_dim;
    if (f->family->has_alibi) // no rotation: any base will do
        f->rope_theta = 1;
    if (!(f->rope_local_theta > 0))
        f->rope_local_theta = f->rope_theta;
    for (size_t i = 0; i < QP_COUNT(ranges); i++) {
        const struct range *r = &ranges[i];
        int value = *(int *)((char *)f + r->offset);
        if (value < r->low || value > r->high)
            return qp_fail(error, QUIP_E_FORMAT, "%s: its %s is %d; possible is %d to %d",
                           m->file.name, r->name, value, r->low, r->high);
    }
    if (f->n_heads % f->n_kv_heads)
        return qp_fail(error, QUIP_E_FORMAT, "%s: %d heads cannot share %d kv heads evenly",
                       m->file.name, f->n_heads, f->n_kv_heads);
    if (f->rope_dim > f->head_dim || f->rope_dim % 2)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: its rotary width is %d; it must be even and at most the head width %d",
                       m->file.name, f->rope_dim, f->head_dim);
    if (f->layer_types[0] && (int)strlen(f->layer_types) != f->n_layers)
        return qp_fail(error, QUIP_E_FORMAT, "%s: quip.config gives %zu layer types for %d layers",
                       m->file.name, strlen(f->layer_types), f->n_layers);
    return check_rotation(m, f, error);
}

static bool is_local(const struct raw_config *f, int l)
{
    if (f->layer_types[0])
        return f->layer_types[l] == 'L';
    return f->local_per_global > 0 && (l + 1) % (f->local_per_global + 1) != 0;
}

/* What multiplies q.k, as Quip or else the original spells it. */
static float query_scale(const struct raw_config *f)
{
    if (f->query_scale > 0)
        return f->query_scale;
    if (f->scale_type == 3)
        return 1.0f / sqrtf((float)f->d_model / (float)f->n_heads);
    if (f->scale_type == 4 && f->query_rescale > 0)
        return f->query_rescale / (float)f->head_dim;
    return 1.0f / sqrtf((float)f->head_dim);
}

static void spread(struct config *c, const struct raw_config *f)
{
    const struct family *a = f->family;
    struct layer_config *layers = c->layers;
    *c = (struct config){
        .family = a,
        .norm = a->norm,
        .act = a->act,
        .qk_norm = a->qk_norm,
        .post_norm = a->post_norm,
        .is_gated = a->is_gated,
        .is_parallel = a->is_parallel,
        .has_alibi = a->has_alibi,
        .tied = f->tied != 0,
        .n_layers = f->n_layers,
        .d_model = f->d_model,
        .d_ff = f->d_ff,
        .n_heads = f->n_heads,
        .n_kv_heads = f->n_kv_heads,
        .head_dim = f->head_dim,
        .vocab_size = f->vocab_size,
        .rope_dim = f->rope_dim,
        .n_context_max = f->n_context_max,
        .norm_eps = f->norm_eps,
        .embed_scale = a->embed_sqrt_d ? sqrtf((float)f->d_model) : 1.0f,
        .query_scale = query_scale(f),
        .attention_cap = f->attention_cap,
        .logits_cap = f->logits_cap,
        .layers = layers,
        .bos = f->prompts->bos < f->vocab_size ? f->prompts->bos : -1, // of a cut-down vocabulary
        .n_stop_ids = f->prompts->n_stop_ids,
    };
    memcpy(c->stop_ids, f->prompts->stop_ids, sizeof c->stop_ids);
    for (int l = 0; l < c->n_layers; l++)
        layers[l] = is_local(f, l) ? (struct layer_config){ f->window, f->rope_local_theta, 1.0f }
                                   : (struct layer_config){ 0, f->rope_theta, f->rope_scaling };
}

static bool spells_the_same(const struct chat_template *a, const struct chat_template *b)
{
    const struct turn_text *x[] = { &a->user, &a->model, &a->system };
    const struct turn_text *y[] = { &b->user, &b->model, &b->system };
    for (size_t i = 0; i < QP_COUNT(x); i++)
        if (strcmp(x[i]->prefix, y[i]->prefix) != 0 || strcmp(x[i]->suffix, y[i]->suffix) != 0)
            return false;
    return true;
}

/* A bundle's templates come before the one that quip.config names, which comes before a model
 * file's; but a named one that spells turns alike knows more. Files of the original have none
 * unless they carry one: text goes in as it is. */
static void choose_chat(quip_model *m, const struct raw_config *f)
{
    const struct chat_template *named = f->chat[0] ? qp_chat_find(f->chat) : NULL;
    const struct chat_template *own = qp_prompts_chat(m);
    const bool own_is_first = m->bundle.metadata.data && own &&
                              !(named && !own->default_system && spells_the_same(own, named));
    m->chat = own_is_first || !f->chat[0] ? own : named;
    if (m->chat && strcmp(m->chat->name, "none") == 0)
        m->chat = NULL;
}

/* Pieces that end a turn of the template, and the tokenizer's own end. */
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
    struct raw_config f = { .rope_dim = -1, .tied = -1, .prompts = &m->prompts };
    const struct metadata *own = qp_format_find_metadata(&m->format, "quip.config");
    const uint8_t *text = (const uint8_t *)"";
    size_t n = 0;
    quip_status status;
    if (own && own->type == METADATA_BYTES &&
        (status = qp_format_bytes(&m->format, own, &text, &n, error)))
        return status;
    if ((status = find_family(m, &f, (const char *)text, n, error)))
        return status;
    f.window = f.family->window;
    f.local_per_global = f.family->local_per_global;
    f.rope_theta = f.family->rope_theta;
    f.rope_local_theta = f.family->rope_local_theta;
    f.rope_scaling = 1;
    f.norm_eps = f.family->norm_eps;
    f.attention_cap = f.family->attention_cap;
    f.logits_cap = f.family->logits_cap;
    m->prompts.bos = -1;
    if ((status = read_parameters(m, &f, error)) ||
        (status = read_keys(m, &f, (const char *)text, n, error)) ||
        (status = check_raw(m, &f, error)))
        return status;
    const struct file *said = &m->bundle.metadata;
    if (said->data &&
        (status = qp_prompts_read(m, said->data, (size_t)said->size, BUNDLE_METADATA, error)))
        return status;
    choose_chat(m, &f);
    add_template_stops(m);

    size_t layers_bytes = (size_t)f.n_layers * sizeof(struct layer_config);
    size_t weights_bytes = (size_t)f.n_layers * sizeof(struct layer_weights);
    if ((status = qp_arena_open(&m->arena, qp_round_up(layers_bytes, 64) + weights_bytes + 64,
                                "the layer tables", error)))
        return status;
    m->config.layers = qp_arena_alloc(&m->arena, layers_bytes);
    m->weights.layers = qp_arena_alloc(&m->arena, weights_bytes);
    spread(&m->config, &f);
    return QUIP_OK;
}
