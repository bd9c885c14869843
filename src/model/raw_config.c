/* raw_config.c: the sources of a model's config.
 * In:  the row of the model's family (families.c), MediaPipe's LlmParameters proto, and Quip's own
 *      text `quip.config`, which says what the proto cannot. Each source overrides the one before.
 * Out: struct raw_config, whose values can be anything that the fields can hold. */
#include "model/raw_config.h"
#include "format/protobuf.h"
#include "model/llm_parameters.h"

#include <assert.h>
#include <math.h>
#include <string.h>

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
    { TRANSFORMER_LOCAL_PER_GLOBAL, offsetof(struct raw_config, traits.local_per_global) },
};

static bool read_attention(struct raw_config *raw, const struct proto_field *message)
{
    struct proto_reader r;
    struct proto_field field;
    qp_proto_open(&r, message->data, message->n);
    while (qp_proto_next(&r, &field)) {
        if (field.number == ATTENTION_SOFT_CAP && field.wire_type == 5 &&
            qp_proto_float(&field) > 0)
            raw->traits.attention_cap = qp_proto_float(&field);
        if (field.number == ATTENTION_SCALE && field.wire_type == 0)
            raw->scale_type = field.value > SCALE_RESCALE_FACTOR ? 0 : (int)field.value;
        if (field.number == ATTENTION_WINDOW && field.wire_type == 0)
            raw->traits.window = field.value > INT32_MAX ? -1 : (int)field.value;
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
            raw->traits.logits_cap = qp_proto_float(&field);
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
            raw->traits.rope_theta = qp_proto_float(&field);
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

static const char *const key_values[] = {
    [KEY_INT] = "a number from -1 to 2147483647",
    [KEY_FLOAT] = "a number from 0 to 1e12",
    [KEY_BOOL] = "0 or 1",
    [KEY_CHOICE] = "one that this Quip knows",
    [KEY_TEXT] = "a shorter text",
    [KEY_LAYERS] = "at most 1024 numbers from 0 to 2147483647 with commas between them",
    [KEY_FAMILY] = "an architecture",
    [KEY_BOS] = "a number from -1 to 2147483647",
    [KEY_IDS] = "numbers with commas between them",
};

static const char *const norm_names[] = { "rms", "rms+1", "layer", NULL };
static const char *const activation_names[] = { "gelu_tanh", "gelu_erf", "silu", "relu", NULL };
static const char *const qk_norm_names[] = { "none", "head", "heads", "width", NULL };
static const char *const residual_names[] = { "sequential", "parallel", "parallel_norms",
                                              "post_norm", NULL };

// clang-format off
#define KEY(name, kind, field) { #name, kind, offsetof(struct raw_config, field), 0, NULL, 0 }
#define KEY_1(name, kind) { #name, kind, offsetof(struct raw_config, name), 0, NULL, 1 }
#define TRAIT_1(name, kind) { #name, kind, offsetof(struct raw_config, traits.name), 0, NULL, 1 }
#define CHOICE_1(name, names) { #name, KEY_CHOICE, offsetof(struct raw_config, traits.name), 0, names, 1 }
#define TEXT_KEY(name) { #name, KEY_TEXT, offsetof(struct raw_config, name), sizeof((struct raw_config){ 0 }.name), NULL, 0 }

/* docs/model-format.md describes each. */
static const struct config_key config_keys[] = {
    KEY(architecture, KEY_FAMILY, family),
    KEY(norm_eps, KEY_FLOAT, traits.norm_eps),
    KEY(rope_theta, KEY_FLOAT, traits.rope_theta),
    KEY(rope_scaling, KEY_FLOAT, rope_scaling),
    KEY(rope_dim, KEY_INT, rope_dim),
    KEY(query_scale, KEY_FLOAT, query_scale),
    KEY(rope_local_theta, KEY_FLOAT, traits.rope_local_theta),
    KEY(attention_cap, KEY_FLOAT, traits.attention_cap),
    KEY(logits_cap, KEY_FLOAT, traits.logits_cap),
    KEY(n_context_max, KEY_INT, n_context_max),
    KEY(window, KEY_INT, traits.window),
    TEXT_KEY(layer_types),
    KEY_1(head_dims, KEY_LAYERS),
    KEY_1(kv_heads, KEY_LAYERS),
    KEY_1(d_ffs, KEY_LAYERS),
    KEY_1(kv_layers, KEY_LAYERS),
    CHOICE_1(norm, norm_names),
    TRAIT_1(no_norm_bias, KEY_BOOL),
    CHOICE_1(act, activation_names),
    TRAIT_1(is_gated, KEY_BOOL),
    CHOICE_1(qk_norm, qk_norm_names),
    CHOICE_1(residual, residual_names),
    TRAIT_1(no_pre_norm, KEY_BOOL),
    TRAIT_1(post_norm, KEY_BOOL),
    TRAIT_1(has_alibi, KEY_BOOL),
    TRAIT_1(v_norm, KEY_BOOL),
    TRAIT_1(global_v_is_k, KEY_BOOL),
    TRAIT_1(has_layer_scale, KEY_BOOL),
    KEY_1(d_ple, KEY_INT),
    KEY_1(rope_local_dim, KEY_INT),
    KEY_1(conv_width, KEY_INT),
    { "ff_types", KEY_TEXT, offsetof(struct raw_config, ff_types), MAX_LAYERS + 1, NULL, 1 },
    KEY_1(n_experts, KEY_INT),
    KEY_1(n_experts_used, KEY_INT),
    KEY_1(d_ff_expert, KEY_INT),
    KEY_1(experts_normalized, KEY_BOOL),
    TRAIT_1(has_shared_gate, KEY_BOOL),
    TRAIT_1(has_expert_norms, KEY_BOOL),
    TRAIT_1(has_positions, KEY_BOOL),
    TRAIT_1(embed_norm, KEY_BOOL),
    TRAIT_1(no_final_norm, KEY_BOOL),
    TRAIT_1(mixes_inputs, KEY_BOOL),
    TRAIT_1(is_bidirectional, KEY_BOOL),
    TRAIT_1(embed_scale, KEY_FLOAT),
    TRAIT_1(residual_scale, KEY_FLOAT),
    TRAIT_1(logits_scale, KEY_FLOAT),
    KEY_1(rope_divisors, KEY_INT),
    KEY_1(rope_amplitude, KEY_FLOAT),
    KEY_1(n_context_original, KEY_INT),
    TEXT_KEY(chat),
    KEY(stop_ids, KEY_IDS, prompts),
    KEY(bos, KEY_BOS, prompts),
    KEY(never_ids, KEY_LAYERS, never_ids),
    KEY(tied, KEY_INT, tied),
};
// clang-format on

const struct config_key *qp_config_key(int i)
{
    assert(i >= 0);
    return i < (int)QP_COUNT(config_keys) ? &config_keys[i] : NULL;
}

int qp_config_int(const struct config_key *key, const struct raw_config *raw)
{
    const char *field = (const char *)raw + key->offset;
    assert(key->kind == KEY_INT || key->kind == KEY_BOOL || key->kind == KEY_CHOICE);
    return key->kind == KEY_BOOL ? *(const bool *)field : *(const int *)field;
}

/* The next of several numbers with commas between them, from s[*at] on; false if there is none. */
static bool next_number(const char *s, size_t n, size_t *at, double *number)
{
    size_t end = *at;
    while (end < n && s[end] != ',')
        end++;
    const bool ok = parse_number(s + *at, end - *at, number);
    *at = end + 1;
    return ok;
}

static bool set_layers(struct layer_list *list, const char *s, size_t n)
{
    list->n = 0;
    for (size_t i = 0; i < n;) {
        double number = -1;
        if (!next_number(s, n, &i, &number) || list->n == MAX_LAYERS || number < 0 ||
            number > INT32_MAX)
            return false;
        list->value[list->n++] = (int)number;
    }
    return list->n > 0;
}

static bool set_ids(struct raw_config *raw, const char *s, size_t n)
{
    raw->prompts->n_stop_ids = 0;
    for (size_t i = 0; i < n;) {
        double id;
        if (!next_number(s, n, &i, &id))
            return false;
        if (id >= 0 && id <= INT32_MAX) // otherwise it is not a token
            qp_prompts_add_stop(raw->prompts, (int64_t)id);
    }
    return true;
}

static bool set_choice(int *field, const char *const *choices, const char *s, size_t n)
{
    for (int i = 0; choices[i]; i++)
        if (strlen(choices[i]) == n && memcmp(choices[i], s, n) == 0) {
            *field = i;
            return true;
        }
    return false;
}

static bool set_key(struct raw_config *raw, const struct config_key *key, const char *s, size_t n)
{
    double number = 0;
    char *field = (char *)raw + key->offset;
    const bool is_int = parse_number(s, n, &number) && number >= -1 && number <= INT32_MAX;
    assert(key->offset < sizeof *raw);
    const int whole = is_int ? (int)number : 0;
    switch (key->kind) {
    case KEY_INT:
        *(int *)field = whole;
        return is_int;
    case KEY_BOOL:
        *(bool *)field = number == 1;
        return is_int && (number == 0 || number == 1);
    case KEY_FLOAT:
        if (!parse_number(s, n, &number) || number < 0 || number > 1e12)
            return false;
        *(double *)field = number;
        return true;
    case KEY_CHOICE:
        return set_choice((int *)field, key->choices, s, n);
    case KEY_TEXT:
        if (n >= key->size || memchr(s, 0, n))
            return false;
        memcpy(field, s, n);
        field[n] = 0;
        return true;
    case KEY_LAYERS:
        return set_layers((struct layer_list *)field, s, n);
    case KEY_IDS:
        return set_ids(raw, s, n);
    case KEY_BOS:
        raw->prompts->bos = whole;
        return is_int;
    case KEY_FAMILY:
        return true;
    }
    return false;
}

bool qp_config_next_line(const char *text, size_t n, size_t *at, const char **key, size_t *n_key,
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
    while (qp_config_next_line(text, n, &at, &key, &n_key, &value, &n_value))
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

/* The family of `architecture NAME` or `architecture NAME+REVISION`. */
static quip_status read_architecture(quip_model *m, const struct family **family, const char *text,
                                     size_t n, quip_error *error)
{
    char name[32] = "", names[600];
    if (n < sizeof name)
        memcpy(name, text, n);
    char *plus = strchr(name, '+');
    double revision = 0;
    if (plus) {
        *plus = 0;
        if (!parse_number(plus + 1, strlen(plus + 1), &revision) || revision < 0)
            revision = QUIP_CONFIG_REVISION + 1;
    }
    *family = qp_family_named(name);
    if (*family && revision > QUIP_CONFIG_REVISION)
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s: its architecture is %s, revision %.10s, but this Quip knows only "
                       "revision %d; use a newer Quip, or convert the model again",
                       m->file.name, name, plus + 1, QUIP_CONFIG_REVISION);
    if (*family)
        return QUIP_OK;
    qp_family_list(names, sizeof names);
    return qp_fail(error, QUIP_E_UNSUPPORTED,
                   "%s: its architecture \"%s\" is not supported; supported are %s", m->file.name,
                   name, names);
}

/* quip.config names the family; without that, MediaPipe's model type does. */
static quip_status find_family(quip_model *m, const struct family **family, const char *text,
                               size_t n, quip_error *error)
{
    const char *key, *value;
    size_t at = 0, n_key, n_value;
    while (qp_config_next_line(text, n, &at, &key, &n_key, &value, &n_value))
        if (n_key == strlen("architecture") && memcmp(key, "architecture", n_key) == 0)
            return read_architecture(m, family, value, n_value, error);
    const struct metadata *type = qp_format_find_metadata(&m->format, "odml.infra.LlmModelType");
    if (!type || type->type != METADATA_INT)
        return qp_fail(error, QUIP_E_FORMAT, "%s: has no odml.infra.LlmModelType metadata",
                       m->file.name);
    const struct model_type *known = qp_model_type_of_file(&m->format);
    if (!known)
        return qp_fail(error, QUIP_E_UNSUPPORTED, "%s: model type %lld (%s) is not supported",
                       m->file.name, (long long)type->i,
                       m->format.subgraph_name ? m->format.subgraph_name : "unnamed");
    *family = qp_family(known->family);
    return QUIP_OK;
}

/* ---- all sources ---- */

struct raw_config qp_raw_config_of(const struct family *family)
{
    return (struct raw_config){
        .family = family,
        .traits = family->traits,
        .rope_dim = -1,
        .rope_local_dim = -1,
        .tied = -1,
        .rope_scaling = 1,
        .rope_amplitude = 1,
    };
}

quip_status qp_raw_config_read(struct raw_config *raw, quip_model *m, quip_error *error)
{
    const struct metadata *own = qp_format_find_metadata(&m->format, "quip.config");
    const struct family *family = NULL;
    const uint8_t *bytes = (const uint8_t *)"";
    size_t n = 0;
    quip_status status;
    if (own && own->type == METADATA_BYTES &&
        (status = qp_format_bytes(&m->format, own, &bytes, &n, error)))
        return status;
    const char *text = (const char *)bytes;
    if ((status = find_family(m, &family, text, n, error)))
        return status;
    *raw = qp_raw_config_of(family);
    raw->prompts = &m->prompts;
    m->prompts.bos = -1;
    status = read_parameters(m, raw, error);
    return status ? status : read_keys(m, raw, text, n, error);
}
