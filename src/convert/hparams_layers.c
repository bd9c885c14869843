/* hparams_layers.c: which layers are convolutions, and which have experts.
 * In:  config.json or GGUF metadata.
 * Out: the letters and sizes of each layer (raw_config.h), and the sizes of convolutions and
 *      experts. */
#include "convert/gguf_keys.h"
#include "convert/hf_config.h"
#include "convert/json.h"

#include <assert.h>
#include <string.h>

static void refuse_layers(struct hf_reader *r, const char *key, const char *what)
{
    if (!r->status)
        r->status = qp_fail(r->error, QUIP_E_FORMAT, "%s/config.json: %s %s",
                            r->checkpoint->sources.folder, key, what);
}

/* ---- convolutions: LFM2 ---- */

/* Older configs list the layers with attention; newer ones name the kind of each layer. */
static void read_conv_layers(struct hf_reader *r, struct hparams *h)
{
    const cJSON *types = qp_json_item(r->config, "layer_types");
    const cJSON *attention = qp_json_item(r->config, "full_attn_idxs");
    int l = 0;
    memset(h->raw.layer_types, types || !attention ? 'G' : 'C', (size_t)h->raw.n_layers);
    if (types && cJSON_GetArraySize(types) != h->raw.n_layers)
        refuse_layers(r, "layer_types", "does not have an entry for each layer");
    for (const cJSON *i = types ? types->child : NULL; i && !r->status; i = i->next, l++) {
        const char *type = cJSON_GetStringValue(i);
        if (type && strcmp(type, "conv") == 0)
            h->raw.layer_types[l] = 'C';
        else if (!type || strcmp(type, "full_attention") != 0)
            refuse_layers(r, "layer_types",
                          "has another type than \"conv\" and \"full_attention\"");
    }
    for (const cJSON *i = types || !attention ? NULL : attention->child; i; i = i->next) {
        if (!cJSON_IsNumber(i) || i->valueint < 0 || i->valueint >= h->raw.n_layers)
            refuse_layers(r, "full_attn_idxs", "has a number that is not one of a layer");
        else
            h->raw.layer_types[i->valueint] = 'G';
    }
}

/* transformers: models/lfm2/modeling_lfm2.py, Lfm2MLP. */
static void adjust_d_ff(struct hf_reader *r, struct hparams *h)
{
    const double factor = qp_hf_number(r, r->config, "block_ffn_dim_multiplier", 1);
    const int unit = qp_hf_int(r, "block_multiple_of", 256);
    if (!qp_hf_bool(r, "block_auto_adjust_ff_dim", true))
        return;
    if (!(factor > 0 && factor < 1000) || unit < 1 || unit > 1 << 20 || h->raw.d_ff > 1 << 20) {
        refuse_layers(r, "block_ff_dim", "and the keys beside it give no width");
        return;
    }
    const int64_t d_ff = (int64_t)((double)(2 * (int64_t)h->raw.d_ff / 3) * factor);
    const int64_t whole = (d_ff + unit - 1) / unit * unit;
    h->raw.d_ff = whole > INT32_MAX ? -1 : (int)whole;
}

static void read_convolutions(struct hf_reader *r, struct hparams *h)
{
    h->raw.conv_width = qp_hf_size(r, "conv_L_cache", 3);
    read_conv_layers(r, h);
    adjust_d_ff(r, h);
}

/* ---- experts: Qwen ---- */

/* A model of experts, with all layers dense until a layer is given some. */
static void begin_experts(struct hparams *h)
{
    memset(h->raw.ff_types, 'D', (size_t)h->raw.n_layers);
    for (int l = 0; l < h->raw.n_layers && h->raw.d_ffs.n == 0; l++)
        h->raw.d_ffs.value[l] = h->raw.d_ff;
    h->raw.d_ffs.n = h->raw.n_layers;
}

/* Layer l has experts, and beside them a dense feed-forward of this width, 0: none. */
static void set_experts(struct hparams *h, int l, int d_ff_shared)
{
    h->raw.ff_types[l] = 'E';
    h->raw.d_ffs.value[l] = d_ff_shared;
}

static bool is_listed(const cJSON *list, int number)
{
    for (const cJSON *i = list ? list->child : NULL; i; i = i->next)
        if (cJSON_IsNumber(i) && i->valueint == number)
            return true;
    return false;
}

static void read_experts(struct hf_reader *r, struct hparams *h)
{
    const cJSON *dense = qp_json_item(r->config, "mlp_only_layers");
    const bool is_gemma = h->source->experts_switch != NULL; // beside every dense feed-forward
    const int step = qp_hf_int(r, "decoder_sparse_step", 1);
    if (is_gemma && !qp_hf_bool(r, h->source->experts_switch, false))
        return;
    h->raw.traits.has_expert_norms = is_gemma;
    const int d_ff_shared =
        h->raw.traits.has_shared_gate ? qp_hf_size(r, "shared_expert_intermediate_size", 0) : 0;
    h->raw.n_experts = qp_hf_size(r, "num_experts", 0);
    h->raw.n_experts_used = qp_hf_size(r, "num_experts_per_tok", 0);
    h->raw.d_ff_expert = qp_hf_size(r, "moe_intermediate_size", 0);
    h->raw.experts_normalized = qp_hf_bool(r, "norm_topk_prob", is_gemma);
    if (step < 1)
        refuse_layers(r, "decoder_sparse_step", "is 0; must be at least 1");
    if (r->status)
        return;
    begin_experts(h);
    for (int l = 0; l < h->raw.n_layers; l++)
        if ((l + 1) % step == 0 && !is_listed(dense, l))
            set_experts(h, l, is_gemma ? h->raw.d_ffs.value[l] : d_ff_shared);
}

void qp_hf_layers(struct hf_reader *r, struct hparams *h)
{
    assert(h->raw.n_layers <= HPARAMS_MAX_LAYERS);
    if (h->source->has_convolutions && !r->status)
        read_convolutions(r, h);
    if (h->source->has_experts && !r->status)
        read_experts(r, h);
}

/* ---- GGUF ---- */

/* A number of the metadata; 0 if it is absent, -1 if it is out of range. */
static int find_int(const struct hparams *h, const struct format *g, const char *name)
{
    const double x = qp_entry_number(qp_arch_entry(g, qp_source_gguf_name(h->source), name), 0);
    return x >= 0 && x <= INT32_MAX ? (int)x : -1;
}

/* A layer without heads of keys is a convolution. The others have the same number of them. */
static quip_status gguf_convolutions(struct hparams *h, struct format *g, quip_error *error)
{
    int heads[HPARAMS_MAX_LAYERS], n;
    const quip_status status =
        qp_gguf_layers(g, qp_source_gguf_name(h->source), "attention.head_count_kv",
                       h->raw.n_layers, heads, &n, error);
    h->raw.conv_width = find_int(h, g, "shortconv.l_cache");
    h->raw.n_kv_heads = n > 0 ? 0 : h->raw.n_heads;
    for (int l = 0; l < n && !status; l++) {
        h->raw.layer_types[l] = heads[l] == 0 ? 'C' : 'G';
        if (heads[l] != 0 && h->raw.n_kv_heads != 0 && heads[l] != h->raw.n_kv_heads)
            return qp_fail(error, QUIP_E_UNSUPPORTED,
                           "%s: its layers have %d and %d heads of keys, which is not supported",
                           g->file->name, h->raw.n_kv_heads, heads[l]);
        h->raw.n_kv_heads = heads[l] != 0 ? heads[l] : h->raw.n_kv_heads;
    }
    if (h->raw.n_kv_heads == 0) // only convolutions
        h->raw.n_kv_heads = h->raw.n_heads;
    return status;
}

/* The widths are in the shapes; older files have no keys for them. */
static int rows_of_expert(const struct checkpoint *c, int l, const char *name, int n_experts)
{
    char full[80];
    snprintf(full, sizeof full, "blk.%d.%s.weight", l, name);
    const struct entry *e = qp_checkpoint_find(c, full);
    if (!e || e->tensor->n_dims != (n_experts > 0 ? 3 : 2))
        return 0;
    const int64_t rows = e->tensor->dims[n_experts > 0];
    return rows > INT32_MAX ? -1 : (int)rows;
}

/* llama.cpp says in its code which architecture normalizes the weights. */
static void gguf_experts(struct hparams *h, const struct checkpoint *c, const struct format *g)
{
    h->raw.n_experts = find_int(h, g, "expert_count");
    h->raw.n_experts_used = find_int(h, g, "expert_used_count");
    h->raw.experts_normalized = h->source->gguf_normalizes_experts;
    begin_experts(h);
    for (int l = 0; l < h->raw.n_layers; l++) {
        const int d_ff = rows_of_expert(c, l, "ffn_gate_exps", h->raw.n_experts);
        if (d_ff == 0)
            continue;
        h->raw.d_ff_expert = d_ff;
        set_experts(h, l, rows_of_expert(c, l, "ffn_gate_shexp", 0));
    }
}

quip_status qp_gguf_layer_kinds(struct hparams *h, const struct checkpoint *c, struct format *g,
                                quip_error *error)
{
    assert(h->raw.n_layers > 0 && h->raw.n_layers <= HPARAMS_MAX_LAYERS);
    if (h->source->has_experts && !h->source->experts_switch)
        gguf_experts(h, c, g);
    return h->source->has_convolutions ? gguf_convolutions(h, g, error) : QUIP_OK;
}
