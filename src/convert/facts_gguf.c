/* facts_gguf.c: GGUF metadata -> struct model_facts.
 * Keys are "<architecture>.<name>"; their meaning is that of llama.cpp. */
#include "convert/facts.h"

#include <math.h>
#include <string.h>

/* "<architecture>.<name>", or NULL. */
static const struct metadata *arch_entry(const struct format *g, const char *arch, const char *name)
{
    char key[128];
    int n = snprintf(key, sizeof key, "%s.%s", arch, name);
    return n < (int)sizeof key ? qp_format_find_metadata(g, key) : NULL;
}

static double entry_number(const struct metadata *m, double otherwise)
{
    if (m && m->type == METADATA_INT)
        return (double)m->i;
    return m && m->type == METADATA_FLOAT ? m->f : otherwise;
}

static int entry_int(const struct metadata *m, int otherwise)
{
    if (!m || m->type != METADATA_INT)
        return otherwise;
    return m->i < 0 || m->i > INT32_MAX ? -1 : (int)m->i;
}

struct gguf_size {
    const char *name;
    size_t offset; // of an int in struct model_facts
};

static quip_status gguf_sizes(struct model_facts *f, const struct checkpoint *c,
                              const struct format *g, quip_error *error)
{
    static const struct gguf_size sizes[] = {
        { "block_count", offsetof(struct model_facts, n_layers) },
        { "embedding_length", offsetof(struct model_facts, d_model) },
        { "feed_forward_length", offsetof(struct model_facts, d_ff) },
        { "attention.head_count", offsetof(struct model_facts, n_heads) },
    };
    const char *arch = f->family->name;
    for (size_t i = 0; i < QP_COUNT(sizes); i++) {
        const struct metadata *m = arch_entry(g, arch, sizes[i].name);
        if (!m || m->type != METADATA_INT)
            return qp_fail(error, QUIP_E_FORMAT, "%s: its metadata has no number %s.%s", c->path,
                           arch, sizes[i].name);
        *(int *)((char *)f + sizes[i].offset) = entry_int(m, -1);
    }
    f->n_kv_heads = entry_int(arch_entry(g, arch, "attention.head_count_kv"), f->n_heads);
    f->n_context = entry_int(arch_entry(g, arch, "context_length"), 0);
    f->head_dim = entry_int(arch_entry(g, arch, "attention.key_length"),
                            f->n_heads > 0 ? f->d_model / f->n_heads : 0);
    f->rope_dim = entry_int(arch_entry(g, arch, "rope.dimension_count"), f->head_dim);
    if ((f->rope_dim != f->head_dim && f->family->rope_fraction == 0) ||
        entry_int(arch_entry(g, arch, "attention.value_length"), f->head_dim) != f->head_dim)
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s: keys, values and rope of different sizes are not supported", c->path);
    if (entry_int(arch_entry(g, arch, "use_parallel_residual"), f->family->is_parallel) !=
        f->family->is_parallel)
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s: a %s model with a parallel residual is not supported", c->path, arch);

    const struct entry *embedding = qp_checkpoint_find(c, "token_embd.weight");
    if (!embedding || embedding->tensor->n_dims != 2 || embedding->tensor->dims[0] > INT32_MAX)
        return qp_fail(error, QUIP_E_FORMAT, "%s: has no matrix token_embd.weight", c->path);
    f->vocab_size = (int)embedding->tensor->dims[0];
    return QUIP_OK;
}

static quip_status gguf_rope(struct model_facts *f, const struct checkpoint *c, struct format *g,
                             quip_error *error)
{
    const char *arch = f->family->name;
    f->rope_theta = entry_number(arch_entry(g, arch, "rope.freq_base"), f->family->rope_theta);
    f->rope_local_theta = f->family->rope_local_theta;
    f->rope_scaling = 1;
    const struct metadata *type = arch_entry(g, arch, "rope.scaling.type");
    const uint8_t *text = NULL;
    size_t n = 0;
    quip_status status;
    if (type && type->type == METADATA_BYTES &&
        (status = qp_format_bytes(g, type, &text, &n, error)))
        return status;
    if (n == 6 && memcmp(text, "linear", 6) == 0)
        f->rope_scaling = entry_number(arch_entry(g, arch, "rope.scaling.factor"), 1);
    else if (n > 0 && !(n == 4 && memcmp(text, "none", 4) == 0))
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s: rope scaling \"%.*s\" is not supported, only \"linear\"", c->path,
                       (int)(n < 40 ? n : 40), (const char *)text);
    return QUIP_OK;
}

/* What GGUF leaves to the architecture. */
static void gguf_gemma(struct model_facts *f, const struct format *g)
{
    const char *arch = f->family->name;
    f->attention_cap =
        entry_number(arch_entry(g, arch, "attn_logit_softcapping"), f->family->attention_cap);
    f->logits_cap =
        entry_number(arch_entry(g, arch, "final_logit_softcapping"), f->family->logits_cap);
    if (f->family->global_every) {
        f->window = entry_int(arch_entry(g, arch, "attention.sliding_window"), f->family->window);
        qp_facts_set_pattern(f, f->family->global_every);
    }
    // Gemma 2 and 3 27B alone scale queries by d_model / n_heads instead of head_dim.
    bool is_27b = (f->family->id == FAMILY_GEMMA3 && f->n_layers == 62) ||
                  (f->family->id == FAMILY_GEMMA2 && f->n_layers == 46);
    if (is_27b)
        f->query_scale = 1 / sqrt((double)f->d_model / f->n_heads);
}

static quip_status gguf_tokens(struct model_facts *f, struct format *g, quip_error *error)
{
    f->bos = entry_int(qp_format_find_metadata(g, "tokenizer.ggml.bos_token_id"), -1);
    f->eos = entry_int(qp_format_find_metadata(g, "tokenizer.ggml.eos_token_id"), -1);
    f->unk = entry_int(qp_format_find_metadata(g, "tokenizer.ggml.unknown_token_id"), -1);
    f->pad = entry_int(qp_format_find_metadata(g, "tokenizer.ggml.padding_token_id"), -1);
    const struct metadata *model = qp_format_find_metadata(g, "tokenizer.ggml.model");
    const uint8_t *text = NULL;
    size_t n = 0;
    quip_status status;
    if (model && model->type == METADATA_BYTES &&
        (status = qp_format_bytes(g, model, &text, &n, error)))
        return status;
    // llama.cpp puts bos in front for SentencePiece vocabularies unless told otherwise.
    bool is_spm = n == 5 && memcmp(text, "llama", 5) == 0;
    f->has_bos = f->bos >= 0 &&
                 entry_int(qp_format_find_metadata(g, "tokenizer.ggml.add_bos_token"), is_spm) != 0;
    qp_facts_add_stop(f, f->eos);
    qp_facts_add_stop(f, entry_int(qp_format_find_metadata(g, "tokenizer.ggml.eot_token_id"), -1));
    return QUIP_OK;
}

/* The template is Jinja; what is known of it is its name. */
static quip_status gguf_chat(struct model_facts *f, struct format *g, quip_error *error)
{
    f->chat = "none";
    const struct metadata *m = qp_format_find_metadata(g, "tokenizer.chat_template");
    if (!m || m->type != METADATA_BYTES)
        return QUIP_OK;
    const uint8_t *text;
    size_t n;
    struct bytes jinja = { 0 };
    quip_status status = qp_format_bytes(g, m, &text, &n, error);
    if (status)
        return status;
    if (!qp_bytes_append(&jinja, text, n) || !qp_bytes_append(&jinja, "", 1))
        status = qp_fail_memory(error, "the chat template", n);
    else
        f->chat = qp_chat_recognise((const char *)jinja.data);
    qp_bytes_close(&jinja);
    return status;
}

quip_status qp_facts_from_gguf(struct model_facts *f, struct checkpoint *c, quip_error *error)
{
    struct format *g = &c->shards[0].format;
    const struct metadata *m = qp_format_find_metadata(g, "general.architecture");
    const uint8_t *text = NULL;
    size_t n = 0;
    char name[64] = "";
    quip_status status;
    if (!m || m->type != METADATA_BYTES)
        return qp_fail(error, QUIP_E_FORMAT, "%s: its metadata has no general.architecture",
                       c->path);
    if ((status = qp_format_bytes(g, m, &text, &n, error)))
        return status;
    if (n < sizeof name)
        memcpy(name, text, n);
    *f = (struct model_facts){ .family = qp_family_find(name, true) };
    if (!f->family)
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s: its architecture \"%s\" cannot be converted; llama, gemma, gemma2, "
                       "gemma3, phi2 and stablelm can",
                       c->path, name);
    if ((status = gguf_sizes(f, c, g, error)) || (status = gguf_rope(f, c, g, error)))
        return status;
    f->norm_eps = f->family->has_layer_norm
                      ? entry_number(arch_entry(g, name, "attention.layer_norm_epsilon"), 1e-5)
                      : entry_number(arch_entry(g, name, "attention.layer_norm_rms_epsilon"), 1e-6);
    f->is_tied = !qp_checkpoint_find(c, "output.weight");
    if (f->family->is_gemma)
        gguf_gemma(f, g);
    if ((status = gguf_tokens(f, g, error)) || (status = gguf_chat(f, g, error)))
        return status;
    return qp_facts_finish(f, c->path, error);
}
