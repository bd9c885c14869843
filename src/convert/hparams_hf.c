/* hparams_hf.c: config.json and its neighbours -> struct hparams.
 * In:  one of two layouts: the older one (rope_theta, rope_scaling, sliding_window_pattern) or that
 *      of transformers 5 (rope_parameters, layer_types). Where a config has both, the newer counts.
 * Out: hyper-parameters; what the config does not say is the default of its family. */
#include "convert/checkpoint_kind.h"
#include "convert/hf_config.h"
#include "convert/json.h"
#include "convert/rope_scaling.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The sliding-window layers of a family without a pattern. */
static void hf_set_windows(struct hf_reader *r, struct hparams *h)
{
    int first = 0; // that slides
    if (h->source->windows == WINDOW_IF_USED)
        first = qp_hf_bool(r, "use_sliding_window", false) ? qp_hf_int(r, "max_window_layers", 28)
                                                           : h->raw.n_layers;
    if (h->source->windows == WINDOW_NONE || h->source->windows == WINDOW_WITHOUT_ROPE)
        return;
    for (int l = first; l < h->raw.n_layers && h->raw.traits.window > 0; l++)
        qp_hparams_set_layer(h, l, 'L');
}

/* layer_types of config.json. */
static void hf_read_layer_types(struct hf_reader *r, struct hparams *h, const cJSON *types)
{
    if (cJSON_GetArraySize(types) != h->raw.n_layers && !r->status)
        r->status = qp_fail(
            r->error, QUIP_E_FORMAT, "%s/config.json: layer_types has %d entries for %d layers",
            r->checkpoint->sources.folder, cJSON_GetArraySize(types), h->raw.n_layers);
    int l = 0;
    for (const cJSON *i = types->child; i && !r->status && l < HPARAMS_MAX_LAYERS;
         i = i->next, l++) {
        const char *type = cJSON_GetStringValue(i);
        if (type && strcmp(type, "full_attention") == 0)
            h->raw.layer_types[l] = 'G';
        else if (type && strcmp(type, "sliding_attention") == 0)
            h->raw.layer_types[l] = 'L';
        else
            r->status = qp_fail(r->error, QUIP_E_UNSUPPORTED,
                                "%s/config.json: layer %d has type \"%.40s\"; must be "
                                "\"full_attention\" or \"sliding_attention\"",
                                r->checkpoint->sources.folder, l, type ? type : "?");
    }
}

/* Layers without rope: no_rope_layers has a 0 for them, or every 4th is one. Where config.json does
 * not say which layers slide, these do if any does. */
static void hf_no_rope_layers(struct hf_reader *r, struct hparams *h)
{
    const cJSON *list = qp_json_item(r->config, "no_rope_layers");
    const cJSON *has_rope = list ? list->child : NULL;
    const int every = qp_hf_int(r, "no_rope_layer_interval", 4);
    const bool slides = !h->raw.layer_types[0] && h->raw.traits.window > 0 &&
                        qp_hf_bool(r, "use_sliding_window", false);
    if (list && cJSON_GetArraySize(list) != h->raw.n_layers && !r->status)
        r->status = qp_fail(
            r->error, QUIP_E_FORMAT, "%s/config.json: no_rope_layers has %d entries for %d layers",
            r->checkpoint->sources.folder, cJSON_GetArraySize(list), h->raw.n_layers);
    for (int l = 0; l < h->raw.n_layers && !r->status; l++) {
        const bool rotates =
            has_rope ? has_rope->valuedouble != 0 : every == 0 || (l + 1) % every != 0;
        if (!rotates)
            qp_hparams_set_layer(h, l, slides || h->raw.layer_types[l] == 'L' ? 'l' : 'g');
        has_rope = has_rope ? has_rope->next : NULL;
    }
}

/* layer_types of a family whose layers are all the same, where transformers does not read it. */
static void hf_expect_type(struct hf_reader *r, const cJSON *types, const char *type)
{
    for (const cJSON *i = types ? types->child : NULL; i && !r->status; i = i->next)
        if (!cJSON_IsString(i) || strcmp(i->valuestring, type) != 0)
            r->status = qp_fail(r->error, QUIP_E_UNSUPPORTED,
                                "%s/config.json: layer_types has \"%.40s\"; must be \"%s\" in all "
                                "layers",
                                r->checkpoint->sources.folder,
                                cJSON_IsString(i) ? i->valuestring : "?", type);
}

static void hf_layer_types(struct hf_reader *r, struct hparams *h)
{
    struct traits *t = &h->raw.traits;
    const int every = t->local_per_global + 1, default_window = h->source->default_window;
    const cJSON *types = qp_json_item(r->config, "layer_types");
    if (h->source->windows == WINDOW_NONE && t->local_per_global == 0) {
        if (!h->source->has_convolutions)
            hf_expect_type(r, types, "full_attention");
        return;
    }
    // null switches the window off; without the key there is that of the family
    t->window = cJSON_HasObjectItem(r->config, "sliding_window") ? qp_hf_int(r, "sliding_window", 0)
                : default_window                                 ? default_window
                                                                 : t->window;
    if (!types && h->source->windows == WINDOW_FROM_TYPES && !r->status)
        r->status = qp_fail(r->error, QUIP_E_FORMAT, "%s/config.json: has no layer_types",
                            r->checkpoint->sources.folder);
    if (h->source->windows == WINDOW_ALL)
        hf_expect_type(r, types, t->window > 0 ? "sliding_attention" : "full_attention");
    if (types) {
        hf_read_layer_types(r, h, types);
    } else if (t->local_per_global > 0) {
        const int pattern =
            h->source->has_pattern ? qp_hf_int(r, "sliding_window_pattern", every) : every;
        qp_hparams_set_pattern(h, pattern > 0 ? pattern : every);
    } else {
        hf_set_windows(r, h);
    }
    if (h->source->windows == WINDOW_WITHOUT_ROPE)
        hf_no_rope_layers(r, h);
    if (t->local_per_global > 0 || qp_hparams_has_window(h))
        return;
    t->window = 0; // it is not used
    if (!strchr(h->raw.layer_types, 'g'))
        h->raw.layer_types[0] = 0; // all global, as in the family
}

static void hf_sizes(struct hf_reader *r, struct hparams *h)
{
    const struct family_source *source = h->source;
    assert(source);
    h->raw.n_layers = qp_hf_size(r, "num_hidden_layers", 0);
    h->raw.d_model = qp_hf_size(r, "hidden_size", 0);
    h->raw.d_ff = qp_hf_size(
        r, source->d_ff_key ? source->d_ff_key : "intermediate_size",
        h->raw.d_model < 1 << 16 ? source->default_d_ff_per_d_model * h->raw.d_model : 0);
    h->raw.n_heads = qp_hf_size(r, "num_attention_heads", source->default_n_heads);
    h->raw.n_kv_heads =
        qp_hf_size(r, "num_key_value_heads",
                   source->default_n_kv_heads ? source->default_n_kv_heads : h->raw.n_heads);
    h->raw.head_dim = source->default_head_dim ? source->default_head_dim
                      : h->raw.n_heads > 0     ? h->raw.d_model / h->raw.n_heads
                                               : 0;
    h->raw.head_dim = qp_hf_size(r, "head_dim", h->raw.head_dim);
    h->raw.vocab_size = qp_hf_size(r, "vocab_size", source->default_vocab_size);
    h->raw.n_context_max = qp_hf_int(r, "max_position_embeddings", source->default_n_context);
    if (h->raw.n_layers > HPARAMS_MAX_LAYERS && !r->status)
        r->status = qp_fail(r->error, QUIP_E_FORMAT,
                            "%s/config.json: num_hidden_layers is %d; must be at most %d",
                            r->checkpoint->sources.folder, h->raw.n_layers, HPARAMS_MAX_LAYERS);
    if (h->raw.n_layers < 1 && !r->status) // what follows has something for each layer
        r->status = qp_fail(r->error, QUIP_E_FORMAT,
                            "%s/config.json: its number of layers is %d; must be 1 to %d",
                            r->checkpoint->sources.folder, h->raw.n_layers, HPARAMS_MAX_LAYERS);
}

/* Soft-cap; null disables it, and without the key it is that of the family. */
static double hf_cap(struct hf_reader *r, const char *key, double of_family)
{
    return cJSON_HasObjectItem(r->config, key) ? qp_hf_number(r, r->config, key, 0) : of_family;
}

/* Soft caps and scaling of queries, which only some families have. */
static void hf_attention(struct hf_reader *r, struct hparams *h)
{
    struct traits *t = &h->raw.traits;
    if (h->source->default_query_scalar > 0) {
        const double scalar =
            qp_hf_number(r, r->config, "query_pre_attn_scalar", h->source->default_query_scalar);
        if (scalar > 0)
            h->raw.query_scale = 1 / sqrt(scalar);
    }
    if (h->source->has_attention_cap)
        t->attention_cap = hf_cap(r, "attn_logit_softcapping", t->attention_cap);
    if (h->source->has_logits_cap)
        t->logits_cap = hf_cap(r, "final_logit_softcapping", t->logits_cap);
}

/* qp_settle_head also asks the tensors. */
static void hf_tied(struct hf_reader *r, struct hparams *h)
{
    const char *key = "tie_word_embeddings";
    const bool of_whole = qp_json_flag(r->checkpoint->config, key, h->source->default_tied);
    h->is_tied = qp_hf_bool(r, key, of_whole);
}

/* Encoders. As in transformers, windows are then to each side, half as wide. */
static void hf_bidirectional(struct hf_reader *r, struct hparams *h)
{
    struct traits *t = &h->raw.traits;
    const char *positions = qp_json_text(r->config, "position_embedding_type");
    // Gemma 4 says that only the tokens of an image attend to both sides
    const bool is_for_images =
        strcmp(qp_json_text(r->config, "use_bidirectional_attention"), "vision") == 0;
    if (!is_for_images && qp_hf_bool(r, "use_bidirectional_attention", false)) {
        t->is_bidirectional = true;
        t->window = t->window / 2 + 1;
    }
    if (!qp_hf_bool(r, "is_causal", true)) // transformers 5 reads it in every family
        t->is_bidirectional = true;
    if (t->has_positions && *positions && strcmp(positions, "absolute") != 0 && !r->status)
        r->status = qp_fail(r->error, QUIP_E_UNSUPPORTED,
                            "%s/config.json: position_embedding_type is \"%.40s\"; must be "
                            "\"absolute\"",
                            r->checkpoint->sources.folder, positions);
}

static void hf_numbers(struct hf_reader *r, struct hparams *h)
{
    const struct family_source *source = h->source;
    h->raw.traits.norm_eps = qp_hf_number(
        r, r->config, source->norm_eps_key ? source->norm_eps_key : "rms_norm_eps",
        source->default_norm_eps > 0 ? source->default_norm_eps : h->raw.traits.norm_eps);
    hf_tied(r, h);
    hf_attention(r, h);
    qp_hf_variant(r, h);
    qp_hf_layers(r, h);
    hf_bidirectional(r, h);
}

/* ---- tokens and turns ---- */

/* Stops are an id or a list of ids. */
static void add_stop_ids(struct hparams *h, const cJSON *ids)
{
    if (cJSON_IsNumber(ids))
        qp_hparams_add_stop(h, ids->valueint);
    else if (cJSON_IsArray(ids))
        for (const cJSON *i = ids->child; i; i = i->next)
            if (cJSON_IsNumber(i))
                qp_hparams_add_stop(h, i->valueint);
}

static int first_id(const cJSON *ids)
{
    const cJSON *i = cJSON_IsArray(ids) ? ids->child : ids;
    return cJSON_IsNumber(i) ? i->valueint : -1;
}

/* The ids of tokens that generate() never draws: suppress_tokens, and of bad_words_ids those words
 * that are one token. An end of an answer may be ruled out by the first, but not by the second. */
static quip_status hf_never_ids(const struct hf_reader *r, struct hparams *h)
{
    const struct checkpoint *c = r->checkpoint;
    const cJSON *config = c->generation_config ? c->generation_config : c->config;
    const cJSON *lists[] = { qp_json_item(config, "suppress_tokens"),
                             qp_json_item(config, "bad_words_ids") };
    struct layer_list *never = &h->raw.never_ids;
    for (size_t k = 0; k < QP_COUNT(lists); k++)
        for (const cJSON *i = cJSON_IsArray(lists[k]) ? lists[k]->child : NULL; i; i = i->next) {
            const cJSON *id = cJSON_IsArray(i) && i->child && !i->child->next ? i->child : i;
            bool is_stop = false;
            for (int s = 0; s < h->n_stops && k == 1; s++)
                is_stop |= cJSON_IsNumber(id) && h->stops[s] == id->valueint;
            if (!cJSON_IsNumber(id) || id->valueint < 0 || is_stop)
                continue;
            if (never->n == MAX_NEVER_IDS)
                return qp_fail(r->error, QUIP_E_UNSUPPORTED,
                               "%s: more than %d tokens are never drawn (suppress_tokens)",
                               c->sources.folder, MAX_NEVER_IDS);
            never->value[never->n++] = id->valueint;
        }
    return QUIP_OK;
}

static void hf_tokens(const struct hf_reader *r, struct hparams *h)
{
    const cJSON *generation = r->checkpoint->generation_config;
    const cJSON *top = r->checkpoint->config;
    const cJSON *eos = qp_json_item(generation, "eos_token_id");
    if (!eos)
        eos = qp_json_item(r->config, "eos_token_id");
    if (!eos)
        eos = qp_json_item(top, "eos_token_id");
    const cJSON *bos = qp_json_item(r->config, "bos_token_id");
    h->bos = first_id(bos ? bos : qp_json_item(generation, "bos_token_id"));
    h->eos = first_id(eos);
    h->unk = -1;
    h->pad = first_id(qp_json_item(r->config, "pad_token_id"));
    if (h->bos < 0 && h->source->default_bos > 0)
        h->bos = h->source->default_bos;
    if (!(h->source->has_wrong_ids && h->raw.traits.has_alibi))
        add_stop_ids(h, eos);
    // qp_convert also asks the tokenizer when the config says nothing.
    const cJSON *add = qp_json_item(r->checkpoint->tokenizer_config, "add_bos_token");
    h->has_bos = h->bos >= 0 && (add ? cJSON_IsTrue(add) : h->source->default_bos > 0);
}

quip_status qp_hparams_from_hf(struct hparams *h, struct checkpoint *c, quip_error *error)
{
    struct hf_reader r = { .checkpoint = c, .config = c->config, .error = error };
    const cJSON *text = qp_json_item(c->config, "text_config"); // of a model for text and images
    const char *type = cJSON_GetStringValue(qp_json_item(c->config, "model_type"));
    if (cJSON_IsObject(text))
        r.config = text;
    const struct family_source *source = type ? qp_source_of_checkpoint(type, false) : NULL;
    if (!source) {
        char names[600];
        qp_family_source_list(names, sizeof names, false);
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s/config.json: model_type \"%.40s\" cannot be converted; supported are %s",
                       c->sources.folder, type ? type : "", names);
    }
    const quip_status wrong_task = qp_checkpoint_check_task(c, error);
    if (wrong_task)
        return wrong_task;
    qp_hparams_begin(h, source);
    if (!source->has_older_aliases || strcmp(type, source->hf_names[0]) != 0)
        r.aliases = source->aliases;
    qp_hf_check_aliases(&r);
    hf_sizes(&r, h);
    char where[512];
    snprintf(where, sizeof where, "%s/config.json", c->sources.folder);
    if (!r.status)
        hf_layer_types(&r, h);
    if (!r.status && h->source->has_layer_sizes)
        r.status = qp_hparams_layers_hf(h, r.config, where, error);
    if (!r.status)
        r.status = qp_rope_from_config(h, &r, where, error);
    if (!r.status)
        hf_numbers(&r, h);
    if (r.status)
        return r.status;
    hf_tokens(&r, h);
    if ((r.status = hf_never_ids(&r, h)))
        return r.status;
    return qp_hparams_finish(h, c->path, error);
}
