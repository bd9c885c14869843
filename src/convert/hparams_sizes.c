/* hparams_sizes.c: what differs from layer to layer, and per-layer embeddings: Gemma 4.
 * In:  config.json in either layout (global_head_dim, or per_layer_config), or GGUF metadata.
 * Out: lists of sizes in struct hparams; a list whose numbers are all those of the model is empty.
 *
 * transformers: models/gemma4/configuration_gemma4.py. */
#include "convert/gguf_keys.h"
#include "convert/hparams.h"
#include "convert/json.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* ---- lists ---- */

/* Set number l of a list, whose other numbers are so far those of the model. */
static void set_of_layer(struct layer_list *list, int l, int value, int of_model, int n_layers)
{
    if (value == qp_of_layer(list, l, of_model))
        return;
    for (int i = 0; list->n == 0 && i < n_layers; i++)
        list->value[i] = of_model;
    list->n = n_layers;
    list->value[l] = value;
}

/* The last `n_shared` layers attend to the keys of the last layer of the same kind before them. */
static quip_status share_keys(struct hparams *h, int n_shared, const char *path, quip_error *error)
{
    struct raw_config *raw = &h->raw;
    const int first = raw->n_layers - n_shared;
    raw->kv_layers.n = raw->n_layers;
    for (int l = 0; l < raw->n_layers; l++)
        raw->kv_layers.value[l] = l;
    for (int l = first < 0 ? 0 : first; l < raw->n_layers; l++) {
        int from = first - 1;
        while (from >= 0 && raw->layer_types[from] != raw->layer_types[l])
            from--;
        if (from < 0)
            return qp_fail(
                error, QUIP_E_FORMAT,
                "%s: layer %d shares the keys of an earlier layer of its kind, but among "
                "the first %d layers there is none",
                path, l, first < 0 ? 0 : first);
        raw->kv_layers.value[l] = from;
    }
    return QUIP_OK;
}

/* ---- config.json ---- */

struct layers_reader {
    struct hparams *h;
    const cJSON *config;
    const char *where;
    quip_error *error;
    quip_status status; // the first failure
};

static int layers_int(struct layers_reader *r, const cJSON *object, const char *key, int fallback)
{
    const cJSON *item = qp_json_item(object, key);
    const double x = cJSON_IsNumber(item) ? item->valuedouble : -1;
    if (!item)
        return fallback;
    if (x >= 0 && x <= 1 << 22 && x == (double)(int)x)
        return (int)x;
    if (!r->status)
        r->status = qp_fail(r->error, QUIP_E_FORMAT,
                            "%s: %s is not a whole number from 0 to 4194304", r->where, key);
    return fallback;
}

/* One layer's entry of per_layer_config. */
static void read_override(struct layers_reader *r, const cJSON *entry)
{
    struct raw_config *raw = &r->h->raw;
    char *end;
    const long l = strtol(entry->string, &end, 10);
    if (*end || end == entry->string || l < 0 || l >= raw->n_layers) {
        r->status = qp_fail(r->error, QUIP_E_FORMAT,
                            "%s: per_layer_config has layer \"%.40s\"; must be 0 to %d", r->where,
                            entry->string, raw->n_layers - 1);
        return;
    }
    for (const cJSON *i = entry->child; i && !r->status; i = i->next)
        if (strcmp(i->string, "head_dim") == 0)
            set_of_layer(&raw->head_dims, (int)l, layers_int(r, entry, i->string, raw->head_dim),
                         raw->head_dim, raw->n_layers);
        else if (strcmp(i->string, "num_key_value_heads") == 0)
            set_of_layer(&raw->kv_heads, (int)l, layers_int(r, entry, i->string, raw->n_kv_heads),
                         raw->n_kv_heads, raw->n_layers);
        else
            r->status = qp_fail(r->error, QUIP_E_UNSUPPORTED,
                                "%s: per_layer_config changes %.40s of layer %ld, "
                                "which is not supported",
                                r->where, i->string, l);
}

/* The sizes of global layers: of every layer in per_layer_config, or the same for all. */
static void read_layer_sizes(struct layers_reader *r)
{
    enum {
        DEFAULT_GLOBAL_HEAD_DIM = 512 // of Gemma4TextConfig
    };
    struct raw_config *raw = &r->h->raw;
    const cJSON *overrides = qp_json_item(r->config, "per_layer_config");
    for (const cJSON *i = overrides ? overrides->child : NULL; i && !r->status; i = i->next)
        read_override(r, i);
    if (overrides)
        return;
    const int head_dim = layers_int(r, r->config, "global_head_dim", DEFAULT_GLOBAL_HEAD_DIM);
    const int kv_heads = layers_int(r, r->config, "num_global_key_value_heads", raw->n_kv_heads);
    for (int l = 0; l < raw->n_layers && !r->status; l++)
        if (raw->layer_types[l] != 'L') {
            set_of_layer(&raw->head_dims, l, head_dim, raw->head_dim, raw->n_layers);
            if (raw->traits.global_v_is_k)
                set_of_layer(&raw->kv_heads, l, kv_heads, raw->n_kv_heads, raw->n_layers);
        }
}

static void read_sharing(struct layers_reader *r)
{
    struct raw_config *raw = &r->h->raw;
    const int n_shared = layers_int(r, r->config, "num_kv_shared_layers", 0);
    if (n_shared == 0 || r->status)
        return;
    r->status = share_keys(r->h, n_shared, r->where, r->error);
    if (qp_json_flag(r->config, "use_double_wide_mlp", false))
        for (int l = raw->n_layers - n_shared; l < raw->n_layers && !r->status; l++)
            set_of_layer(&raw->d_ffs, l, 2 * raw->d_ff, raw->d_ff, raw->n_layers);
}

quip_status qp_hparams_layers_hf(struct hparams *h, const void *config, const char *where,
                                 quip_error *error)
{
    enum {
        DEFAULT_D_PLE = 256 // of Gemma4TextConfig
    };
    struct layers_reader r = { .h = h, .config = config, .where = where, .error = error };
    struct raw_config *raw = &h->raw;
    assert(raw->n_layers > 0 && raw->n_layers <= HPARAMS_MAX_LAYERS && raw->layer_types[0]);
    if (strcmp(qp_json_text(config, "use_bidirectional_attention"), "all") == 0)
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s: use_bidirectional_attention is \"all\"; only models that "
                       "predict the next token can be converted",
                       where);
    raw->layer_types[raw->n_layers - 1] = 'G'; // whatever layer_types says
    raw->traits.global_v_is_k = qp_json_flag(config, "attention_k_eq_v", false);
    raw->d_ple = layers_int(&r, config, "hidden_size_per_layer_input", DEFAULT_D_PLE);
    raw->query_scale = 1;
    read_layer_sizes(&r);
    if (!r.status)
        read_sharing(&r);
    raw->rope_local_dim = raw->head_dim;
    return r.status;
}

/* ---- GGUF ---- */

quip_status qp_hparams_gguf_list(const struct hparams *h, struct format *g, const char *name,
                                 int *of_model, struct layer_list *list, quip_error *error)
{
    const int n_layers = h->raw.n_layers;
    int values[HPARAMS_MAX_LAYERS], n = 0;
    assert(n_layers > 0 && n_layers <= HPARAMS_MAX_LAYERS);
    const quip_status status =
        qp_gguf_layers(g, h->raw.family->name, name, n_layers, values, &n, error);
    if (status || n == 0)
        return status;
    *of_model = values[0];
    for (int l = 0; l < n; l++)
        set_of_layer(list, l, values[l], values[0], n);
    return QUIP_OK;
}

/* Which layers slide: a boolean for each layer. */
static quip_status gguf_pattern(struct hparams *h, struct format *g, quip_error *error)
{
    struct layer_list slides = { 0 };
    int all = -1;
    const quip_status status =
        qp_hparams_gguf_list(h, g, "attention.sliding_window_pattern", &all, &slides, error);
    if (status || all < 0 || all > 1) // there is no such array
        return status;
    for (int l = 0; l < h->raw.n_layers; l++)
        h->raw.layer_types[l] = qp_of_layer(&slides, l, all) ? 'L' : 'G';
    return QUIP_OK;
}

/* Whether global layers have no matrix of values. */
static bool gguf_v_is_k(const struct hparams *h, const struct checkpoint *c)
{
    const char *global = strchr(h->raw.layer_types, 'G');
    char name[64];
    snprintf(name, sizeof name, "blk.%d.attn_v.weight",
             global ? (int)(global - h->raw.layer_types) : 0);
    return global && !qp_checkpoint_find(c, name);
}

quip_status qp_hparams_layers_gguf(struct hparams *h, struct checkpoint *c, quip_error *error)
{
    struct format *g = &c->shards[0].format;
    struct raw_config *raw = &h->raw;
    const char *arch = raw->family->name;
    const int n_layers = raw->n_layers, global_dim = raw->head_dim;
    int local_dim = global_dim, n_shared = 0, n_experts = 0;
    const struct {
        const char *name;
        int *value;
    } numbers[] = {
        { "attention.key_length_swa", &local_dim },
        { "attention.shared_kv_layers", &n_shared },
        { "embedding_length_per_layer_input", &raw->d_ple },
        { "expert_count", &n_experts },
    };
    quip_status status = gguf_pattern(h, g, error);
    for (size_t i = 0; i < QP_COUNT(numbers) && !status; i++)
        status = qp_gguf_for_all_layers(g, arch, numbers[i].name, n_layers, *numbers[i].value,
                                        numbers[i].value, error);
    if (!status && n_experts > 0)
        status = qp_fail(error, QUIP_E_UNSUPPORTED,
                         "%s: has %d experts beside its feed-forward, which are not supported",
                         g->file->name, n_experts);
    if (status)
        return status;
    raw->head_dim = raw->rope_local_dim = local_dim;
    raw->rope_dim = global_dim;
    raw->query_scale = 1;
    raw->traits.global_v_is_k = gguf_v_is_k(h, c);
    for (int l = 0; l < n_layers; l++)
        if (raw->layer_types[l] != 'L')
            set_of_layer(&raw->head_dims, l, global_dim, local_dim, n_layers);
    return n_shared > 0 ? share_keys(h, n_shared, g->file->name, error) : QUIP_OK;
}
