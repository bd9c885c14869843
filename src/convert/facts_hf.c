/* facts_hf.c: config.json and its neighbours -> struct model_facts.
 * Two layouts are in use: the older (rope_theta, rope_scaling, sliding_window_pattern) and that of
 * transformers 5 (rope_parameters, layer_types). Where both say something, the newer decides. */
#include "convert/facts.h"
#include "model/matrix.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct hf_reader {
    const struct checkpoint *checkpoint;
    const cJSON *config; // config.json, or its text_config
    quip_error *error;
    quip_status status; // the first failure
};

/* NULL when absent or null. */
static const cJSON *json_item(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNull(item) ? NULL : item;
}

static double json_number(struct hf_reader *r, const cJSON *object, const char *key,
                          double otherwise)
{
    const cJSON *item = json_item(object, key);
    if (!item)
        return otherwise;
    if (!cJSON_IsNumber(item) && !r->status)
        r->status = qp_fail(r->error, QUIP_E_FORMAT, "%s/config.json: %s is not a number",
                            r->checkpoint->sources.folder, key);
    return item->valuedouble;
}

static int hf_int(struct hf_reader *r, const char *key, int otherwise)
{
    double x = json_number(r, r->config, key, otherwise);
    if (x >= 0 && x <= INT32_MAX && x == (double)(int)x)
        return (int)x;
    if (!r->status)
        r->status = qp_fail(r->error, QUIP_E_FORMAT,
                            "%s/config.json: %s is %g, not a whole number of reasonable size",
                            r->checkpoint->sources.folder, key, x);
    return 0;
}

/* A size that the family may have a default for (0: none, it must be there). */
static int hf_size(struct hf_reader *r, const char *key, int otherwise)
{
    if (!json_item(r->config, key) && otherwise == 0 && !r->status)
        r->status = qp_fail(r->error, QUIP_E_FORMAT, "%s/config.json: has no %s",
                            r->checkpoint->sources.folder, key);
    return hf_int(r, key, otherwise);
}

static bool hf_bool(const struct hf_reader *r, const char *key, bool otherwise)
{
    const cJSON *item = json_item(r->config, key);
    return item ? cJSON_IsTrue(item) : otherwise;
}

/* One description of rope: its type must be one that a factor can express. */
static double hf_rope_factor(struct hf_reader *r, const cJSON *rope)
{
    const char *type = cJSON_GetStringValue(json_item(rope, "rope_type"));
    if (!type)
        type = cJSON_GetStringValue(json_item(rope, "type"));
    if (!type || strcmp(type, "default") == 0)
        return 1;
    if (strcmp(type, "linear") == 0)
        return json_number(r, rope, "factor", 1);
    if (!r->status)
        r->status = qp_fail(r->error, QUIP_E_UNSUPPORTED,
                            "%s/config.json: rope type \"%.40s\" is not supported, only "
                            "\"default\" and \"linear\"",
                            r->checkpoint->sources.folder, type);
    return 1;
}

static void hf_rope(struct hf_reader *r, struct model_facts *f)
{
    const struct family *family = f->family;
    f->rope_theta = json_number(r, r->config, "rope_theta", family->rope_theta);
    f->rope_local_theta =
        family->rope_local_theta == 0
            ? 0
            : json_number(r, r->config, "rope_local_base_freq", family->rope_local_theta);
    f->rope_scaling = hf_rope_factor(r, json_item(r->config, "rope_scaling"));

    const cJSON *rope = json_item(r->config, "rope_parameters");
    if (family->rope_fraction > 0) {
        const cJSON *of = json_item(rope, "partial_rotary_factor") ? rope : r->config;
        double fraction = json_number(r, of, "partial_rotary_factor", family->rope_fraction);
        f->rope_dim = fraction >= 0 && fraction <= 1 ? (int)(f->head_dim * fraction) : -1;
    }
    const cJSON *global = json_item(rope, "full_attention");
    const cJSON *local = json_item(rope, "sliding_attention");
    if (!rope)
        return;
    f->rope_theta = json_number(r, global ? global : rope, "rope_theta", f->rope_theta);
    f->rope_scaling = hf_rope_factor(r, global ? global : rope);
    if (local) {
        f->rope_local_theta = json_number(r, local, "rope_theta", f->rope_local_theta);
        if (hf_rope_factor(r, local) != 1 && !r->status)
            r->status = qp_fail(r->error, QUIP_E_UNSUPPORTED,
                                "%s/config.json: rope scaling of sliding layers is not supported",
                                r->checkpoint->sources.folder);
    }
}

static void hf_layer_types(struct hf_reader *r, struct model_facts *f)
{
    if (!f->family->global_every)
        return;
    f->window = hf_int(r, "sliding_window", f->family->window);
    const cJSON *types = json_item(r->config, "layer_types");
    if (!types) {
        int every = hf_int(r, "sliding_window_pattern", f->family->global_every);
        qp_facts_set_pattern(f, every > 0 ? every : f->family->global_every);
        return;
    }
    if (cJSON_GetArraySize(types) != f->n_layers && !r->status)
        r->status = qp_fail(r->error, QUIP_E_FORMAT,
                            "%s/config.json: layer_types has %d entries for %d layers",
                            r->checkpoint->sources.folder, cJSON_GetArraySize(types), f->n_layers);
    int l = 0;
    for (const cJSON *i = types->child; i && !r->status && l < FACTS_MAX_LAYERS; i = i->next, l++) {
        const char *type = cJSON_GetStringValue(i);
        if (type && strcmp(type, "full_attention") == 0)
            f->layer_types[l] = 'G';
        else if (type && strcmp(type, "sliding_attention") == 0)
            f->layer_types[l] = 'L';
        else
            r->status = qp_fail(r->error, QUIP_E_UNSUPPORTED,
                                "%s/config.json: layer %d is of type \"%.40s\", not "
                                "\"full_attention\" or \"sliding_attention\"",
                                r->checkpoint->sources.folder, l, type ? type : "?");
    }
}

static void hf_sizes(struct hf_reader *r, struct model_facts *f)
{
    const struct family *family = f->family;
    f->n_layers = hf_size(r, "num_hidden_layers", 0);
    f->d_model = hf_size(r, "hidden_size", 0);
    f->d_ff = hf_size(r, family->d_ff_key ? family->d_ff_key : "intermediate_size",
                      f->d_model < 1 << 16 ? family->d_ff_per_d_model * f->d_model : 0);
    f->n_heads = hf_size(r, "num_attention_heads", family->n_heads);
    f->n_kv_heads =
        hf_size(r, "num_key_value_heads", family->n_kv_heads ? family->n_kv_heads : f->n_heads);
    f->head_dim = family->head_dim ? family->head_dim
                  : f->n_heads > 0 ? f->d_model / f->n_heads
                                   : 0;
    f->head_dim = hf_size(r, "head_dim", f->head_dim);
    f->vocab_size = hf_size(r, "vocab_size", family->vocab_size);
    f->n_context = hf_int(r, "max_position_embeddings", family->n_context);
    if (f->n_layers > FACTS_MAX_LAYERS && !r->status)
        r->status = qp_fail(r->error, QUIP_E_FORMAT,
                            "%s/config.json: %d layers are more than the %d supported",
                            r->checkpoint->sources.folder, f->n_layers, FACTS_MAX_LAYERS);
}

/* A cap that null switches off, and that the family has when there is no word of it. */
static double hf_cap(struct hf_reader *r, const char *key, double of_family)
{
    return cJSON_HasObjectItem(r->config, key) ? json_number(r, r->config, key, 0) : of_family;
}

static void hf_gemma(struct hf_reader *r, struct model_facts *f)
{
    const struct family *family = f->family;
    double scalar = json_number(r, r->config, "query_pre_attn_scalar", f->head_dim);
    if (family->id != FAMILY_GEMMA && scalar > 0)
        f->query_scale = 1 / sqrt(scalar);
    f->attention_cap = hf_cap(r, "attn_logit_softcapping", family->attention_cap);
    f->logits_cap = hf_cap(r, "final_logit_softcapping", family->logits_cap);
    if (!f->is_tied && !r->status)
        r->status = qp_fail(r->error, QUIP_E_UNSUPPORTED,
                            "%s/config.json: tie_word_embeddings is false; a %s model file has no "
                            "place for a second matrix",
                            r->checkpoint->sources.folder, family->name);
}

static void hf_activation(struct hf_reader *r, const struct family *family)
{
    // Older Gemma configs say "gelu" in hidden_act; hidden_activation is what their code uses.
    bool has_newer = json_item(r->config, "hidden_activation") || family->is_gemma;
    const char *key = family->activation_key ? family->activation_key
                      : has_newer            ? "hidden_activation"
                                             : "hidden_act";
    const char *activation = cJSON_GetStringValue(json_item(r->config, key));
    if (activation && strcmp(activation, family->activation) != 0 && !r->status)
        r->status = qp_fail(
            r->error, QUIP_E_UNSUPPORTED, "%s/config.json: %s is \"%.40s\"; a %s model has \"%s\"",
            r->checkpoint->sources.folder, key, activation, family->name, family->activation);
}

static void hf_demands(struct hf_reader *r, const struct family *family)
{
    for (const struct demand *d = family->demands; d->key && !r->status; d++)
        if (hf_bool(r, d->key, d->otherwise) != d->value)
            r->status = qp_fail(r->error, QUIP_E_UNSUPPORTED,
                                "%s/config.json: %s is %s; of %s models, only those where it is %s "
                                "can be converted",
                                r->checkpoint->sources.folder, d->key, d->value ? "false" : "true",
                                family->name, d->value ? "true" : "false");
}

static void hf_numbers(struct hf_reader *r, struct model_facts *f)
{
    const struct family *family = f->family;
    f->norm_eps = family->norm_eps_key ? json_number(r, r->config, family->norm_eps_key, 1e-5)
                                       : json_number(r, r->config, "rms_norm_eps", 1e-6);
    f->is_tied = hf_bool(r, "tie_word_embeddings", family->is_tied);
    if (family->is_gemma)
        hf_gemma(r, f);
    hf_activation(r, family);
    hf_demands(r, family);
}

/* ---- tokens and turns ---- */

/* An id, or a list of ids. */
static void add_stop_ids(struct model_facts *f, const cJSON *ids)
{
    if (cJSON_IsNumber(ids))
        qp_facts_add_stop(f, ids->valueint);
    else if (cJSON_IsArray(ids))
        for (const cJSON *i = ids->child; i; i = i->next)
            if (cJSON_IsNumber(i))
                qp_facts_add_stop(f, i->valueint);
}

static int first_id(const cJSON *ids)
{
    const cJSON *i = cJSON_IsArray(ids) ? ids->child : ids;
    return cJSON_IsNumber(i) ? i->valueint : -1;
}

static void hf_tokens(const struct hf_reader *r, struct model_facts *f)
{
    const cJSON *generation = r->checkpoint->generation_config;
    const cJSON *top = r->checkpoint->config;
    const cJSON *eos = json_item(generation, "eos_token_id");
    if (!eos)
        eos = json_item(r->config, "eos_token_id");
    if (!eos)
        eos = json_item(top, "eos_token_id");
    const cJSON *bos = json_item(r->config, "bos_token_id");
    f->bos = first_id(bos ? bos : json_item(generation, "bos_token_id"));
    f->eos = first_id(eos);
    f->unk = -1;
    f->pad = first_id(json_item(r->config, "pad_token_id"));
    if (f->bos < 0 && f->family->is_gemma)
        f->bos = 2;
    if (!f->family->has_wrong_ids)
        add_stop_ids(f, eos);
    // Without a word, Gemma and SentencePiece Llama put bos in front; qp_convert looks further.
    const cJSON *add = json_item(r->checkpoint->tokenizer_config, "add_bos_token");
    f->has_bos = f->bos >= 0 && (add ? cJSON_IsTrue(add) : f->family->is_gemma);
}

/* Jinja in tokenizer_config.json (a string, or a list of named ones), or in a file of its own. */
static quip_status hf_chat(const struct hf_reader *r, struct model_facts *f)
{
    f->chat = "none";
    const cJSON *item = json_item(r->checkpoint->tokenizer_config, "chat_template");
    if (cJSON_IsArray(item) && item->child)
        item = json_item(item->child, "template");
    if (cJSON_IsString(item)) {
        f->chat = qp_chat_recognise(item->valuestring);
        return QUIP_OK;
    }
    const char *folder = r->checkpoint->sources.folder;
    char *path = qp_path_join(folder, "chat_template.jinja");
    if (!path)
        return qp_fail_memory(r->error, "a path", strlen(folder));
    struct file file = { 0 };
    struct bytes jinja = { 0 };
    quip_status status = QUIP_OK;
    if (qp_path_exists(path) && !(status = qp_file_open(&file, path, r->error))) {
        size_t n = file.size < 1 << 20 ? (size_t)file.size : 1 << 20;
        if (!qp_bytes_reserve(&jinja, n + 1))
            status = qp_fail_memory(r->error, "the chat template", n);
        else if (!(status = qp_file_read(&file, 0, jinja.data, n, r->error))) {
            jinja.data[n] = 0;
            f->chat = qp_chat_recognise((const char *)jinja.data);
        }
    }
    qp_bytes_close(&jinja);
    qp_file_close(&file);
    free(path);
    return status;
}

quip_status qp_facts_from_hf(struct model_facts *f, struct checkpoint *c, quip_error *error)
{
    struct hf_reader r = { .checkpoint = c, .config = c->config, .error = error };
    const cJSON *text = json_item(c->config, "text_config"); // of a model that also sees
    const char *type = cJSON_GetStringValue(json_item(c->config, "model_type"));
    if (cJSON_IsObject(text))
        r.config = text;
    *f = (struct model_facts){ .family = type ? qp_family_find(type, false) : NULL };
    if (!f->family)
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s/config.json: model_type \"%.40s\" cannot be converted; llama, gemma, "
                       "gemma2, gemma3, phi, falcon and stablelm can",
                       c->sources.folder, type ? type : "");
    hf_sizes(&r, f);
    if (!r.status)
        hf_rope(&r, f);
    if (!r.status)
        hf_layer_types(&r, f);
    if (!r.status)
        hf_numbers(&r, f);
    if (r.status)
        return r.status;
    hf_tokens(&r, f);
    quip_status status = hf_chat(&r, f);
    return status ? status : qp_facts_finish(f, c->path, error);
}
