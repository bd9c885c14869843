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
static quip_status find_family(quip_model *m, const struct family **family, const char *text,
                               size_t n, quip_error *error)
{
    const char *key, *value;
    size_t at = 0, n_key, n_value;
    while (next_line(text, n, &at, &key, &n_key, &value, &n_value))
        if (n_key == strlen("architecture") && memcmp(key, "architecture", n_key) == 0) {
            char name[32] = "";
            if (n_value < sizeof name)
                memcpy(name, value, n_value);
            if (!(*family = qp_family_named(name))) {
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
    *family = qp_family(known->family);
    return QUIP_OK;
}

/* ---- all sources ---- */

static struct raw_config family_config(const struct family *family, struct prompts *prompts)
{
    return (struct raw_config){
        .family = family,
        .prompts = prompts,
        .rope_dim = -1,
        .tied = -1,
        .window = family->window,
        .local_per_global = family->local_per_global,
        .rope_theta = family->rope_theta,
        .rope_local_theta = family->rope_local_theta,
        .rope_scaling = 1,
        .norm_eps = family->norm_eps,
        .attention_cap = family->attention_cap,
        .logits_cap = family->logits_cap,
    };
}

quip_status qp_raw_config_read(struct raw_config *raw, quip_model *m, quip_error *error)
{
    const struct metadata *own = qp_format_find_metadata(&m->format, "quip.config");
    const struct family *family;
    const uint8_t *bytes = (const uint8_t *)"";
    size_t n = 0;
    quip_status status;
    if (own && own->type == METADATA_BYTES &&
        (status = qp_format_bytes(&m->format, own, &bytes, &n, error)))
        return status;
    const char *text = (const char *)bytes;
    if ((status = find_family(m, &family, text, n, error)))
        return status;
    *raw = family_config(family, &m->prompts);
    m->prompts.bos = -1;
    status = read_parameters(m, raw, error);
    return status ? status : read_keys(m, raw, text, n, error);
}
