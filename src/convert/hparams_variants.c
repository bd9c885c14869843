/* hparams_variants.c: which variant of its family a model is.
 * In:  config.json: the switches and numbers that the family's row names (families_convert.c).
 * Out: traits, scales, biases and heads. What cannot be computed is refused. */
#include "convert/hf_config.h"
#include "convert/json.h"

#include <assert.h>
#include <string.h>

static void refuse(struct hf_reader *r, const char *key, const char *what)
{
    if (!r->status)
        r->status = qp_fail(r->error, QUIP_E_UNSUPPORTED, "%s/config.json: %s %s",
                            r->checkpoint->sources.folder, key, what);
}

/* ---- activations ---- */

static const struct {
    const char *name;
    enum activation act;
} activations[] = {
    { "gelu", ACT_GELU_ERF },
    { "gelu_python", ACT_GELU_ERF },
    { "gelu_new", ACT_GELU_TANH },
    { "gelu_fast", ACT_GELU_TANH },
    { "gelu_pytorch_tanh", ACT_GELU_TANH },
    { "gelu_python_tanh", ACT_GELU_TANH },
    { "gelu_accurate", ACT_GELU_TANH },
    { "silu", ACT_SILU },
    { "swish", ACT_SILU },
    { "relu", ACT_RELU },
};

/* The activation of this name; -1 if there is none. */
static int find_activation(const char *name)
{
    for (size_t i = 0; name && i < QP_COUNT(activations); i++)
        if (strcmp(activations[i].name, name) == 0)
            return (int)activations[i].act;
    return -1;
}

/* Gemma 1: transformers 4 reads hidden_activation; version 5 reads hidden_act, where "gelu" means
 * the tanh form. */
static void check_gemma_activation(struct hf_reader *r, struct hparams *h)
{
    const cJSON *other = qp_hf_item(r, "hidden_activation");
    const char *name = cJSON_GetStringValue(qp_hf_item(r, "hidden_act"));
    if (name && strcmp(name, "gelu") == 0)
        h->raw.traits.act = ACT_GELU_TANH;
    if (other && find_activation(cJSON_GetStringValue(other)) != (int)h->raw.traits.act)
        refuse(r, "hidden_activation",
               "is another activation than hidden_act; transformers 4 reads the one, and version 5 "
               "the other");
}

static void read_activation(struct hf_reader *r, struct hparams *h)
{
    const char *own = h->source->activation_key, *key = own ? own : "hidden_act";
    const cJSON *item = qp_hf_item(r, key);
    const char *name = cJSON_GetStringValue(item);
    const int act = find_activation(name);
    char what[120];
    snprintf(what, sizeof what, "is \"%.40s\"; supported are gelu, gelu_new, silu and relu",
             name ? name : "?");
    if (item && act < 0)
        refuse(r, key, what);
    else if (item && h->source->has_fixed_activation && act != (int)h->raw.traits.act)
        refuse(r, key, "is another activation than that of the family; transformers ignores it");
    else if (item)
        h->raw.traits.act = (enum activation)act;
    if (h->source->has_two_activations)
        check_gemma_activation(r, h);
}

/* ---- switches and numbers ---- */

static void read_switches(struct hf_reader *r, struct hparams *h)
{
    const struct family_source *source = h->source;
    for (const struct trait_switch *s = source->switches; s->key; s++) {
        int *trait = (int *)(void *)((char *)&h->raw.traits + s->offset);
        *trait = qp_hf_bool(r, s->key, s->fallback) ? s->if_true : s->if_false;
    }
    for (const struct trait_number *n = source->numbers; n->key; n++) {
        double *field = (double *)(void *)((char *)&h->raw + n->offset);
        const double x = qp_hf_number(r, r->config, n->key, n->fallback);
        if (!(x > 1e-6 && x < 1e6))
            refuse(r, n->key, "is out of range; must be 0.000001 to 1000000");
        *field = n->is_divisor && x > 0 ? 1 / x : x;
    }
    for (const struct bias_key *k = source->bias_keys; k->key; k++)
        if (qp_hf_bool(r, k->key, k->fallback))
            h->biases |= k->biases;
}

static void read_expectations(struct hf_reader *r, const struct hparams *h)
{
    for (const struct expectation *e = h->source->expect; e->key; e++) {
        char what[160];
        snprintf(what, sizeof what,
                 "is %s; of %s models, only those where it is %s can be converted",
                 e->value ? "false" : "true", h->raw.family->name, e->value ? "true" : "false");
        if (qp_hf_bool(r, e->key, e->fallback) != e->value)
            refuse(r, e->key, what);
    }
}

/* ---- Falcon ---- */

/* The heads of keys depend on the shape of the decoder; a num_key_value_heads has no meaning. */
static void read_falcon_heads(struct hf_reader *r, struct hparams *h, bool is_new)
{
    const bool is_multi_query = qp_hf_bool(r, "multi_query", true);
    h->raw.n_kv_heads = is_new           ? qp_hf_size(r, "num_kv_heads", h->raw.n_heads)
                        : is_multi_query ? 1
                                         : h->raw.n_heads;
}

/* transformers: models/falcon/modeling_falcon.py, FalconDecoderLayer. */
static void read_falcon(struct hf_reader *r, struct hparams *h)
{
    struct traits *t = &h->raw.traits;
    // RefinedWeb is the new architecture, and has no key that says so
    const bool is_new = qp_hf_bool(r, "new_decoder_architecture",
                                   r->aliases != NULL && qp_json_item(r->config, "n_head_kv"));
    const bool is_parallel = qp_hf_bool(r, "parallel_attn", true);
    const int n_norms = qp_hf_int(r, "num_ln_in_parallel_attn", is_new ? 2 : 1);
    t->has_alibi = qp_hf_bool(r, "alibi", false);
    read_falcon_heads(r, h, is_new);
    t->residual = !is_parallel   ? RESIDUAL_SEQUENTIAL
                  : n_norms == 2 ? RESIDUAL_PARALLEL_NORMS
                                 : RESIDUAL_PARALLEL;
    if (n_norms < 1 || n_norms > (is_new ? 2 : 1))
        refuse(r, "num_ln_in_parallel_attn",
               is_new ? "must be 1 or 2" : "must be 1 without new_decoder_architecture");
    if (!is_parallel && is_new)
        refuse(r, "parallel_attn",
               "is false, which a model of the new decoder architecture cannot be");
    if (qp_hf_bool(r, "apply_residual_connection_post_layernorm", false))
        refuse(r, "apply_residual_connection_post_layernorm", "is true, which is not supported");
}

/* ---- all ---- */

void qp_hf_variant(struct hf_reader *r, struct hparams *h)
{
    const struct family_source *source = h->source;
    assert(h->raw.n_layers <= HPARAMS_MAX_LAYERS);
    read_activation(r, h);
    read_switches(r, h);
    read_expectations(r, h);
    if (source->has_falcon_switches)
        read_falcon(r, h);
}
