/* gguf_keys.c: entries of GGUF metadata that have one number for each layer.
 * In:  an entry that is a number or an array, as llama.cpp accepts both.
 * Out: a number for each layer, or one for all of them. */
#include "convert/gguf_keys.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

const struct metadata *qp_arch_entry(const struct format *g, const char *arch, const char *name)
{
    char key[128];
    int n = snprintf(key, sizeof key, "%s.%s", arch, name);
    return n < (int)sizeof key ? qp_format_find_metadata(g, key) : NULL;
}

double qp_entry_number(const struct metadata *m, double fallback)
{
    if (m && m->type == METADATA_INT)
        return (double)m->i;
    return m && m->type == METADATA_FLOAT ? m->f : fallback;
}

static quip_status find_layers_entry(struct format *g, const char *arch, const char *name,
                                     char key[128], const struct metadata **m, quip_error *error)
{
    const int length = snprintf(key, 128, "%s.%s", arch, name);
    *m = length < 128 ? qp_format_find_metadata(g, key) : NULL;
    const bool is_number = *m && ((*m)->type == METADATA_INT ||
                                  ((*m)->type == METADATA_ARRAY && (*m)->item == METADATA_INT));
    if (*m && !is_number)
        return qp_fail(error, QUIP_E_FORMAT, "%s: %s is not an integer, nor an array of integers",
                       g->file->name, key);
    return QUIP_OK;
}

static int checked_layer_value(int64_t value)
{
    return value < 0 || value > INT32_MAX ? -1 : (int)value;
}

quip_status qp_gguf_layers(struct format *g, const char *arch, const char *name, int n_layers,
                           int *values, int *n, quip_error *error)
{
    char key[128];
    const struct metadata *m;
    struct metadata_cursor c = { 0 };
    assert(n_layers >= 0);
    *n = 0;
    quip_status status = find_layers_entry(g, arch, name, key, &m, error);
    if (status || !m)
        return status;
    if (m->type == METADATA_ARRAY && m->n_items < (uint64_t)n_layers)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: %s has %llu values, expected one for each of %d layers", g->file->name,
                       key, (unsigned long long)m->n_items, n_layers);
    for (int l = 0; l < n_layers; l++) {
        if (m->type == METADATA_ARRAY && !qp_metadata_next(g, m, &c))
            return qp_fail(error, QUIP_E_FORMAT, "%s: %s is damaged at item %d", g->file->name, key,
                           l);
        values[l] = checked_layer_value(m->type == METADATA_ARRAY ? c.i : m->i);
    }
    *n = n_layers;
    return QUIP_OK;
}

quip_status qp_gguf_for_all_layers(struct format *g, const char *arch, const char *name,
                                   int n_layers, int fallback, int *value, quip_error *error)
{
    int n = 0;
    int *values = calloc((size_t)(n_layers > 0 ? n_layers : 1), sizeof *values);
    if (!values)
        return qp_fail_memory(error, "a value for each layer", (size_t)n_layers * sizeof *values);
    quip_status status =
        qp_gguf_layers(g, arch, name, n_layers > 0 ? n_layers : 0, values, &n, error);
    *value = n > 0 ? values[0] : fallback;
    for (int l = 1; l < n && !status; l++)
        if (values[l] != values[0])
            status = qp_fail(error, QUIP_E_UNSUPPORTED,
                             "%s: %s.%s differs layer by layer: %d in layer 0, %d in layer %d, "
                             "which is not supported for this architecture",
                             g->file->name, arch, name, values[0], values[l], l);
    free(values);
    return status;
}

/* The keys of rope and attention that are read somewhere, for one architecture or for all. */
static const char *const known_keys[] = {
    "attention.causal",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.key_length_swa",
    "attention.layer_norm_epsilon",
    "attention.layer_norm_rms_epsilon",
    "attention.scale",
    "attention.shared_kv_layers",
    "attention.sliding_window",
    "attention.sliding_window_pattern",
    "attention.value_length",
    "attention.value_length_swa",
    "rope.dimension_count",
    "rope.dimension_count_swa",
    "rope.freq_base",
    "rope.freq_base_swa",
    "rope.scale_linear",
    "rope.scaling.attn_factor",
    "rope.scaling.factor",
    "rope.scaling.finetuned", // for information
    "rope.scaling.original_context_length",
    "rope.scaling.type",
    "rope.scaling.yarn_attn_factor",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "rope.scaling.yarn_ext_factor",
};

static bool is_known_key(const char *name)
{
    if (strncmp(name, "rope.", 5) != 0 && strncmp(name, "attention.", 10) != 0)
        return true;
    for (size_t i = 0; i < QP_COUNT(known_keys); i++)
        if (strcmp(known_keys[i], name) == 0)
            return true;
    return false;
}

/* Fail at a key of the architecture that is not known. */
static quip_status check_keys(const struct format *g, const char *arch, const char *path,
                              bool (*is_known)(const char *name), quip_error *error)
{
    const size_t n = strlen(arch);
    for (int i = 0; i < g->n_metadata; i++) {
        const char *key = g->metadata[i].name;
        if (strncmp(key, arch, n) == 0 && key[n] == '.' && !is_known(key + n + 1))
            return qp_fail(error, QUIP_E_UNSUPPORTED,
                           "%s: has the key %.100s, which this version does not read; the model "
                           "would compute something else without it",
                           path, key);
    }
    return QUIP_OK;
}

quip_status qp_gguf_check_keys(const struct format *g, const char *arch, const char *path,
                               quip_error *error)
{
    return check_keys(g, arch, path, is_known_key, error);
}

static bool is_encoder_key(const char *name)
{
    static const char *const keys[] = { "block_count",      "context_length",
                                        "embedding_length", "feed_forward_length",
                                        "pooling_type",     "vocab_size",
                                        "dense_2_feat_in",  "dense_2_feat_out",
                                        "dense_3_feat_in",  "dense_3_feat_out" };
    if (strncmp(name, "rope.", 5) == 0 || strncmp(name, "attention.", 10) == 0)
        return is_known_key(name) && strcmp(name, "attention.scale") != 0;
    for (size_t i = 0; i < QP_COUNT(keys); i++)
        if (strcmp(keys[i], name) == 0)
            return true;
    return false;
}

quip_status qp_gguf_check_encoder_keys(const struct format *g, const char *arch, quip_error *error)
{
    return check_keys(g, arch, g->file->name, is_encoder_key, error);
}

quip_status qp_gguf_pooling(const struct format *g, const char *arch, const char **pooling,
                            quip_error *error)
{
    enum {
        POOLING_RANK = 4
    };
    static const char *const names[POOLING_RANK] = { NULL, "mean", "first", "last" };
    const struct metadata *m = qp_arch_entry(g, arch, "pooling_type");
    const int64_t type = m && m->type == METADATA_INT ? m->i : m ? -1 : 0;
    *pooling = type >= 0 && type < POOLING_RANK ? names[type] : NULL;
    if (type == POOLING_RANK)
        return qp_fail(
            error, QUIP_E_UNSUPPORTED,
            "%s: is a reranker (%s.pooling_type is 4), which scores pairs of texts; that "
            "is not supported",
            g->file->name, arch);
    return type >= 0 && type < POOLING_RANK
               ? QUIP_OK
               : qp_fail(error, QUIP_E_UNSUPPORTED,
                         "%s: %s.pooling_type is %lld; must be 0 (none), 1 (mean), 2 (first token) "
                         "or 3 (last token)",
                         g->file->name, arch, (long long)type);
}
