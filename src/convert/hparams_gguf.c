/* hparams_gguf.c: GGUF metadata -> struct hparams.
 * In:  keys "<architecture>.<name>", with the meaning that they have in llama.cpp.
 * Out: hyper-parameters; what GGUF does not say is that of the family. */
#include "convert/gguf_keys.h"
#include "convert/rope_scaling.h"

#include <math.h>
#include <string.h>

static int entry_int(const struct metadata *m, int fallback)
{
    if (!m || m->type != METADATA_INT)
        return fallback;
    return m->i < 0 || m->i > INT32_MAX ? -1 : (int)m->i;
}

struct gguf_size {
    const char *name;
    size_t offset; // of an int in struct hparams
};

/* Sizes that every file has. */
static quip_status gguf_required_sizes(struct hparams *h, struct format *g, const char *path,
                                       quip_error *error)
{
    static const struct gguf_size sizes[] = {
        { "block_count", offsetof(struct hparams, raw.n_layers) },
        { "embedding_length", offsetof(struct hparams, raw.d_model) },
        { "feed_forward_length", offsetof(struct hparams, raw.d_ff) },
        { "attention.head_count", offsetof(struct hparams, raw.n_heads) },
    };
    const char *arch = qp_source_gguf_name(h->source);
    for (size_t i = 0; i < QP_COUNT(sizes); i++) {
        int *value = (int *)((char *)h + sizes[i].offset);
        const int n_layers = i == 0 ? 1 : h->raw.n_layers;
        if (!qp_arch_entry(g, arch, sizes[i].name))
            return qp_fail(error, QUIP_E_FORMAT, "%s: has no number %s.%s in its metadata", path,
                           arch, sizes[i].name);
        if (n_layers < 1 || n_layers > HPARAMS_MAX_LAYERS)
            return qp_fail(error, QUIP_E_FORMAT, "%s: its number of layers is %d; must be 1 to %d",
                           path, n_layers, HPARAMS_MAX_LAYERS);
        struct layer_list *list = value == &h->raw.d_ff ? &h->raw.d_ffs : NULL;
        const quip_status status =
            list && h->source->has_layer_sizes
                ? qp_hparams_gguf_list(h, g, sizes[i].name, value, list, error)
                : qp_gguf_for_all_layers(g, arch, sizes[i].name, n_layers, -1, value, error);
        if (status)
            return status;
    }
    if (h->source->has_convolutions) // the layers that have 0 (hparams_layers.c)
        return QUIP_OK;
    static const char kv_heads[] = "attention.head_count_kv";
    h->raw.n_kv_heads = h->raw.n_heads;
    return h->source->has_layer_sizes
               ? qp_hparams_gguf_list(h, g, kv_heads, &h->raw.n_kv_heads, &h->raw.kv_heads, error)
               : qp_gguf_for_all_layers(g, arch, kv_heads, h->raw.n_layers, h->raw.n_heads,
                                        &h->raw.n_kv_heads, error);
}

static quip_status gguf_sizes(struct hparams *h, const struct checkpoint *c, struct format *g,
                              quip_error *error)
{
    const char *arch = qp_source_gguf_name(h->source);
    quip_status status = gguf_required_sizes(h, g, c->path, error);
    if (status)
        return status;
    h->raw.n_context_max = entry_int(qp_arch_entry(g, arch, "context_length"), 0);
    h->raw.head_dim = entry_int(qp_arch_entry(g, arch, "attention.key_length"),
                                h->raw.n_heads > 0 ? h->raw.d_model / h->raw.n_heads : 0);
    h->raw.rope_dim = entry_int(qp_arch_entry(g, arch, "rope.dimension_count"), h->raw.head_dim);
    if ((h->raw.rope_dim != h->raw.head_dim && h->raw.family->rope_fraction == 0) ||
        entry_int(qp_arch_entry(g, arch, "attention.value_length"), h->raw.head_dim) !=
            h->raw.head_dim)
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s: has keys, values and rope of different sizes, which are not supported",
                       c->path);
    const struct entry *embedding = qp_checkpoint_find(c, "token_embd.weight");
    if (!embedding || embedding->tensor->n_dims != 2 || embedding->tensor->dims[0] > INT32_MAX)
        return qp_fail(error, QUIP_E_FORMAT, "%s: has no matrix token_embd.weight", c->path);
    h->raw.vocab_size = (int)embedding->tensor->dims[0];
    return QUIP_OK;
}

/* Qwen2 has a window in its configuration that is mostly switched off, and layers that slide only
 * from one on. Without a pattern GGUF says neither. A window of the whole context is not used. */
static quip_status unclear_window(struct hparams *h, const char *path, quip_error *error)
{
    struct traits *t = &h->raw.traits;
    if (h->raw.n_context_max <= 0 || t->window < h->raw.n_context_max)
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s: has a sliding window of %d tokens, but does not say which layers slide "
                       "(attention.sliding_window_pattern); convert the model from its safetensors",
                       path, t->window);
    t->window = 0;
    return QUIP_OK;
}

/* The layers that slide, if the file says it: in a list with an entry for each layer, or by the
 * number of layers from one global layer to the next (0: all slide). */
static quip_status gguf_window_pattern(struct hparams *h, struct format *g, bool *is_said,
                                       quip_error *error)
{
    int slides[HPARAMS_MAX_LAYERS], n = 0;
    static const char name[] = "attention.sliding_window_pattern";
    const char *arch = qp_source_gguf_name(h->source);
    const struct metadata *m = qp_arch_entry(g, arch, name);
    const quip_status status = qp_gguf_layers(g, arch, name, h->raw.n_layers, slides, &n, error);
    *is_said = n > 0;
    for (int l = 0; l < n && !status; l++) {
        const int every = m->type == METADATA_ARRAY ? 0 : slides[l];
        const bool is_global =
            m->type == METADATA_ARRAY ? slides[l] == 0 : every > 0 && (l + 1) % every == 0;
        qp_hparams_set_layer(h, l, is_global ? 'G' : 'L');
    }
    return status;
}

/* The layers that slide where the file does not say it: those of the family, or all. */
static void set_family_windows(struct hparams *h)
{
    if (h->source->gguf_global_every > 0)
        qp_hparams_set_pattern(h, h->source->gguf_global_every);
    else if (h->raw.traits.local_per_global > 0)
        qp_hparams_set_family_pattern(h);
    else
        for (int l = 0; l < h->raw.n_layers; l++)
            qp_hparams_set_layer(h, l, 'L');
}

/* The window, and which layers slide. Without a window, none does: Gemma 3's architecture is also
 * that of models whose layers are all global. */
static quip_status gguf_windows(struct hparams *h, struct format *g, quip_error *error)
{
    struct traits *t = &h->raw.traits;
    const struct family_source *source = h->source;
    const struct metadata *window =
        qp_arch_entry(g, qp_source_gguf_name(source), "attention.sliding_window");
    bool is_said = false;
    t->window = entry_int(window, source->gguf_default_window);
    if (t->window == 0 && t->local_per_global > 0 && !source->has_layer_sizes)
        qp_hparams_set_layer(h, 0, 'G');
    else if (t->local_per_global > 0)
        qp_hparams_set_family_pattern(h);
    if (t->window <= 0)
        return QUIP_OK;
    const quip_status status = gguf_window_pattern(h, g, &is_said, error);
    if (status || is_said)
        return status;
    if (source->windows == WINDOW_IF_USED)
        return unclear_window(h, g->file->name, error);
    set_family_windows(h);
    return QUIP_OK;
}

/* Encoders: tokens attend to those behind them too. EmbeddingGemma's windows are half as wide to
 * each side; what llama.cpp does with the windows of other encoders is not what it does with
 * theirs. */
static quip_status gguf_direction(struct hparams *h, const struct format *g, quip_error *error)
{
    struct traits *t = &h->raw.traits;
    const char *arch = qp_source_gguf_name(h->source), *path = g->file->name;
    const bool is_causal = !h->source->gguf_is_encoder &&
                           entry_int(qp_arch_entry(g, arch, "attention.causal"), 1) != 0;
    if (is_causal && t->is_bidirectional)
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s: does not say that %s.attention.causal is false; other models of this "
                       "architecture are not known; take a newer GGUF file, or convert the model "
                       "from its safetensors",
                       path, arch);
    t->is_bidirectional = !is_causal;
    if (is_causal)
        return QUIP_OK;
    const char *const required[] = {
        t->norm == NORM_LAYER ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon",
        h->source->gguf_is_encoder ? "attention.sliding_window" : "block_count"
    };
    for (size_t i = 0; i < QP_COUNT(required); i++)
        if (!qp_arch_entry(g, arch, required[i]))
            return qp_fail(error, QUIP_E_FORMAT, "%s: has no number %s.%s in its metadata", path,
                           arch, required[i]);
    if (qp_hparams_has_window(h) && !h->source->gguf_is_encoder)
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s: is an encoder (%s.attention.causal is false) with sliding windows, "
                       "whose meaning is not known; convert the model from its safetensors",
                       path, arch);
    if (t->window > 0)
        t->window = t->window / 2 + 1;
    return qp_gguf_check_encoder_keys(g, arch, error);
}

/* Soft caps and scaling of queries, which only some families have; layers without rope. */
static void gguf_attention(struct hparams *h, const struct format *g)
{
    struct traits *t = &h->raw.traits;
    const struct family_source *source = h->source;
    const char *arch = qp_source_gguf_name(h->source);
    if (source->has_attention_cap)
        t->attention_cap =
            qp_entry_number(qp_arch_entry(g, arch, "attn_logit_softcapping"), t->attention_cap);
    if (source->has_logits_cap)
        t->logits_cap =
            qp_entry_number(qp_arch_entry(g, arch, "final_logit_softcapping"), t->logits_cap);
    for (int l = 3; source->windows == WINDOW_WITHOUT_ROPE && l < h->raw.n_layers; l += 4)
        qp_hparams_set_layer(h, l, 'g'); // SmolLM3; there is no key for it
    if (source->gguf_wide_query_layers == h->raw.n_layers)
        h->raw.query_scale = 1 / sqrt((double)h->raw.d_model / h->raw.n_heads);
}

static quip_status gguf_tokens(struct hparams *h, struct format *g, quip_error *error)
{
    h->bos = entry_int(qp_format_find_metadata(g, "tokenizer.ggml.bos_token_id"), -1);
    h->eos = entry_int(qp_format_find_metadata(g, "tokenizer.ggml.eos_token_id"), -1);
    h->unk = entry_int(qp_format_find_metadata(g, "tokenizer.ggml.unknown_token_id"), -1);
    h->pad = entry_int(qp_format_find_metadata(g, "tokenizer.ggml.padding_token_id"), -1);
    bool adds_bos;
    quip_status status = qp_gguf_adds_bos(g, &adds_bos, error);
    if (status)
        return status;
    h->has_bos = h->bos >= 0 && adds_bos;
    qp_hparams_add_stop(h, h->eos);
    qp_hparams_add_stop(h,
                        entry_int(qp_format_find_metadata(g, "tokenizer.ggml.eot_token_id"), -1));
    return QUIP_OK;
}

/* The variant of its family: what the tensors say, because llama.cpp goes by them, and the key of
 * GPT-NeoX. StableLM files have a parallel residual in the key and another in the tensors. */
static void gguf_variant(struct hparams *h, const struct checkpoint *c, const struct format *g)
{
    struct traits *t = &h->raw.traits;
    const char *arch = qp_source_gguf_name(h->source);
    const bool has_ff_norm = qp_checkpoint_find(c, "blk.0.ffn_norm.weight");
    const bool has_qk_norm = qp_checkpoint_find(c, "blk.0.attn_q_norm.weight");
    for (const struct trait_switch *s = h->source->switches; s->key; s++) {
        const bool is_norm = s->offset == offsetof(struct traits, qk_norm);
        const bool is_on = is_norm ? has_qk_norm
                           : s->if_true == RESIDUAL_PARALLEL
                               ? !has_ff_norm
                               : entry_int(qp_arch_entry(g, arch, s->key), s->fallback) != 0;
        *(int *)(void *)((char *)t + s->offset) = is_on ? s->if_true : s->if_false;
    }
    for (const struct trait_number *n = h->source->numbers; n->key; n++) {
        double *field = (double *)(void *)((char *)&h->raw + n->offset);
        const double x = qp_entry_number(qp_arch_entry(g, arch, n->gguf), 0);
        if (x > 0) // llama.cpp: 0 is as absent
            *field = n->is_divisor ? 1 / x : x;
    }
    if (h->source->has_falcon_switches) { // only the shapes without ALiBi have been written
        t->has_alibi = false;
        t->residual = qp_checkpoint_find(c, "blk.0.attn_norm_2.weight") ? RESIDUAL_PARALLEL_NORMS
                                                                        : RESIDUAL_PARALLEL;
    }
    const struct entry *positions = qp_checkpoint_find(c, "position_embd.weight");
    if (t->has_positions && positions && positions->tensor->n_dims == 2 &&
        positions->tensor->dims[0] <= INT32_MAX)
        h->raw.n_context_max = (int)positions->tensor->dims[0];
}

/* Biases that only some models of the family have: no key says which. */
static void gguf_biases(struct hparams *h, const struct checkpoint *c)
{
    static const struct {
        const char *name;
        unsigned biases;
    } tensors[] = {
        { "blk.0.attn_q.bias", IF_QKV_BIAS },          { "blk.0.attn_qkv.bias", IF_QKV_BIAS },
        { "blk.0.attn_output.bias", IF_O_BIAS },       { "blk.0.ffn_up.bias", IF_FF_BIAS },
        { "blk.0.shortconv.conv.bias", IF_CONV_BIAS },
    };
    for (size_t i = 0; i < QP_COUNT(tensors); i++)
        if (qp_checkpoint_find(c, tensors[i].name))
            h->biases |= tensors[i].biases;
}

quip_status qp_hparams_from_gguf(struct hparams *h, struct checkpoint *c, quip_error *error)
{
    struct format *g = &c->shards[0].format;
    const struct metadata *m = qp_format_find_metadata(g, "general.architecture");
    const uint8_t *text = NULL;
    size_t n = 0;
    char name[64] = "";
    quip_status status;
    if (!m || m->type != METADATA_BYTES)
        return qp_fail(error, QUIP_E_FORMAT, "%s: has no general.architecture in its metadata",
                       c->path);
    if ((status = qp_format_bytes(g, m, &text, &n, error)))
        return status;
    if (n < sizeof name)
        memcpy(name, text, n);
    const struct family_source *source = qp_source_of_checkpoint(name, true);
    if (!source) {
        char names[600];
        qp_family_source_list(names, sizeof names, true);
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s: has architecture \"%s\", which cannot be converted; supported are %s",
                       c->path, name, names);
    }
    qp_hparams_begin(h, source);
    if ((status = qp_gguf_check_keys(g, name, c->path, error)) ||
        (status = gguf_sizes(h, c, g, error)) || (status = qp_rope_from_gguf(h, c, error)))
        return status;
    h->raw.traits.norm_eps =
        h->raw.traits.norm == NORM_LAYER
            ? qp_entry_number(qp_arch_entry(g, name, "attention.layer_norm_epsilon"), 1e-5)
            : qp_entry_number(qp_arch_entry(g, name, "attention.layer_norm_rms_epsilon"), 1e-6);
    h->is_tied = !qp_checkpoint_find(c, "output.weight");
    if ((status = gguf_windows(h, g, error)) || (status = gguf_direction(h, g, error)))
        return status;
    gguf_attention(h, g);
    if (h->source->has_layer_sizes && (status = qp_hparams_layers_gguf(h, c, error)))
        return status;
    gguf_variant(h, c, g);
    gguf_biases(h, c);
    if ((status = qp_gguf_layer_kinds(h, c, g, error)))
        return status;
    if ((status = gguf_tokens(h, g, error)))
        return status;
    return qp_hparams_finish(h, c->path, error);
}
