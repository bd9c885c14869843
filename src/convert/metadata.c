/* metadata.c: what a model file says about its model.
 * In:  hyper-parameters.
 * Out: MediaPipe's LlmParameters proto, and the text of quip.config, which has a line "key value"
 *      for everything, because the proto cannot say it all. */
#include "convert/hparams.h"
#include "format/protobuf.h"
#include "model/llm_parameters.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- LlmParameters ---- */

/* A proto under construction. After the first append that fails, calls do nothing. */
struct proto_writer {
    struct bytes *out;
    bool ok;
};

static void put_int(struct proto_writer *w, int number, int64_t value)
{
    w->ok = w->ok && qp_proto_put_varint(w->out, number, (uint64_t)value);
}

/* Zero is the default and is left out. */
static void put_float(struct proto_writer *w, int number, double value)
{
    w->ok = w->ok && (value == 0 || qp_proto_put_float(w->out, number, (float)value));
}

static void put_bytes(struct proto_writer *w, int number, const void *data, size_t n)
{
    w->ok = w->ok && qp_proto_put_bytes(w->out, number, data, n);
}

/* Append the message in `part`, and clear that. */
static void put_message(struct proto_writer *w, int number, struct proto_writer *part)
{
    w->ok = w->ok && part->ok;
    put_bytes(w, number, part->out->data, part->out->n);
    part->out->n = 0;
}

/* Sliding-window layers before each global one; -1 when there is no such pattern. */
static int local_per_global(const struct hparams *h)
{
    const char *first = strchr(h->layer_types, 'G');
    int local = first ? (int)(first - h->layer_types) : -1;
    for (int l = 0; l < h->n_layers && local >= 0; l++)
        if ((h->layer_types[l] == 'G') != (l % (local + 1) == local))
            return -1;
    return local;
}

/* How attention scores are scaled. *rescale is a factor if only that can say it, else 0. */
static int scale_type(const struct hparams *h, double *rescale)
{
    *rescale = 0;
    if (fabs(h->query_scale * sqrt(h->head_dim) - 1) < 1e-9)
        return SCALE_INV_SQRT_HEAD;
    if (fabs(h->query_scale * sqrt((double)h->d_model / h->n_heads) - 1) < 1e-9)
        return SCALE_INV_SQRT_D_PER_N;
    *rescale = h->query_scale * h->head_dim;
    return SCALE_RESCALE_FACTOR;
}

static void put_attention(struct proto_writer *w, const struct hparams *h, int type)
{
    if (!h->source->has_biases) {
        put_int(w, ATTENTION_QKV_NO_BIAS, 1);
        put_int(w, ATTENTION_O_NO_BIAS, 1);
    }
    put_int(w, ATTENTION_MASK, MASK_CAUSAL);
    put_float(w, ATTENTION_SOFT_CAP, h->attention_cap);
    put_int(w, ATTENTION_SCALE, type);
    if (strchr(h->layer_types, 'L')) // otherwise there is no window
        put_int(w, ATTENTION_WINDOW, h->window);
    if (h->family->qk_norm) {
        put_int(w, ATTENTION_QK_NORM, 1);
        put_int(w, ATTENTION_QK_NORM_HAS_SCALE, 1);
    }
}

static void put_transformer(struct proto_writer *w, const struct hparams *h, bool for_gpu,
                            struct proto_writer *part)
{
    const struct family *family = h->family;
    const struct family_source *source = h->source;
    bool is_gelu = family->act == ACT_GELU_TANH || family->act == ACT_GELU_ERF;
    int norm = family->norm == NORM_LAYER ? PROTO_NORM_LAYER : PROTO_NORM_RMS;
    int post_norm = family->post_norm ? norm : PROTO_NORM_NONE;
    double rescale;
    int type = scale_type(h, &rescale);

    put_int(w, TRANSFORMER_BATCH_SIZE, 1);
    put_int(w, TRANSFORMER_D_MODEL, h->d_model);
    put_int(w, TRANSFORMER_D_FF, h->d_ff);
    put_int(w, TRANSFORMER_HEAD_DIM, h->head_dim);
    put_int(w, TRANSFORMER_N_HEADS, h->n_heads);
    put_int(w, TRANSFORMER_N_LAYERS, h->n_layers);
    if (!source->implies_kv_heads || h->n_kv_heads != h->n_heads)
        put_int(w, TRANSFORMER_N_KV_HEADS, h->n_kv_heads);
    if (!source->has_biases)
        put_int(part, FEED_FORWARD_NO_BIAS, 1);
    put_int(part, FEED_FORWARD_ACTIVATION, is_gelu ? PROTO_ACTIVATION_GELU : PROTO_ACTIVATION_SILU);
    put_int(part, FEED_FORWARD_PRE_NORM, family->is_parallel ? PROTO_NORM_NONE : norm);
    put_int(part, FEED_FORWARD_POST_NORM, post_norm);
    put_message(w, TRANSFORMER_FEED_FORWARD, part);
    if (!source->has_head_bias)
        put_int(part, HEAD_NO_BIAS, 1);
    put_float(part, HEAD_SOFT_CAP, h->logits_cap);
    put_message(w, TRANSFORMER_HEAD, part);
    put_int(w, TRANSFORMER_PRE_NORM, norm);
    put_int(w, TRANSFORMER_POST_NORM, post_norm);
    put_int(w, TRANSFORMER_FINAL_NORM, norm);
    put_attention(part, h, type);
    put_message(w, TRANSFORMER_ATTENTION, part);
    put_int(w, TRANSFORMER_SKIP_ABSOLUTE_POSITIONS, 1);
    if (local_per_global(h) > 0)
        put_int(w, TRANSFORMER_LOCAL_PER_GLOBAL, local_per_global(h));
    if (for_gpu) {
        put_int(w, TRANSFORMER_GPU_23, 1);
        put_int(w, TRANSFORMER_GPU_24, 1);
    }
    put_float(w, TRANSFORMER_QUERY_RESCALE, rescale);
    if (source->has_rope_fields) {
        put_float(w, TRANSFORMER_ROPE_THETA, h->rope_theta);
        put_float(w, TRANSFORMER_ROPE_SCALING, h->rope_scaling == 1 ? 0 : h->rope_scaling);
        put_int(w, TRANSFORMER_GEMMA3_BFLOAT16_FIX, h->d_model != source->f16_width);
    }
}

/* PromptTemplate of one role. */
static void put_turn(struct proto_writer *w, int number, const struct turn_text *turn,
                     struct proto_writer *part)
{
    if (!*turn->prefix && !*turn->suffix)
        return;
    put_bytes(part, TEMPLATE_PREFIX, turn->prefix, strlen(turn->prefix));
    put_bytes(part, TEMPLATE_SUFFIX, turn->suffix, strlen(turn->suffix));
    put_message(w, number, part);
}

/* PromptTemplates of the template with this name. */
static void put_templates(struct proto_writer *w, const char *chat, struct proto_writer *part)
{
    const struct chat_template *t = qp_chat_find(chat);
    struct bytes list_bytes = { 0 };
    struct proto_writer list = { &list_bytes, true };
    if (!t || strcmp(t->name, "none") == 0)
        return;
    put_turn(&list, TEMPLATES_USER, &t->user, part);
    put_turn(&list, TEMPLATES_MODEL, &t->model, part);
    put_turn(&list, TEMPLATES_SYSTEM, &t->system, part);
    put_message(w, LLM_PROMPT_TEMPLATES, &list);
    qp_bytes_close(&list_bytes);
}

/* A packed list of ids. */
static void put_ids(struct proto_writer *w, int number, const int *ids, int n)
{
    uint8_t packed[5 * HPARAMS_MAX_STOPS];
    assert(n >= 0 && n <= HPARAMS_MAX_STOPS);
    size_t size = 0;
    for (int i = 0; i < n; i++) {
        uint32_t id = (uint32_t)ids[i];
        for (; id >= 128; id >>= 7)
            packed[size++] = (uint8_t)(id | 128);
        packed[size++] = (uint8_t)id;
    }
    if (size > 0)
        put_bytes(w, number, packed, size);
}

static bool is_family_stop(const struct family_source *source, const char *piece, size_t n)
{
    for (const char *const *stop = source->stops; *stop; stop++)
        if (strlen(*stop) == n && memcmp(*stop, piece, n) == 0)
            return true;
    return false;
}

/* First those that MediaPipe writes, whatever the vocabulary is; then the others. */
static void put_stops(struct proto_writer *w, const struct hparams *h,
                      const struct tokenizer *tokenizer)
{
    for (const char *const *stop = h->source->stops; *stop; stop++)
        put_bytes(w, LLM_STOP_TOKENS, *stop, strlen(*stop));
    for (int i = 0; i < h->n_stops; i++) {
        size_t n;
        const char *piece = qp_tokenizer_piece(tokenizer, h->stops[i], &n);
        if (piece && !is_family_stop(h->source, piece, n))
            put_bytes(w, LLM_STOP_TOKENS, piece, n);
    }
}

bool qp_write_llm_parameters(const struct hparams *h, const struct tokenizer *tokenizer,
                             bool for_gpu, struct bytes *out)
{
    struct bytes outer_bytes = { 0 }, inner_bytes = { 0 };
    struct proto_writer w = { out, true };
    struct proto_writer outer = { &outer_bytes, true }, inner = { &inner_bytes, true };

    put_transformer(&outer, h, for_gpu, &inner);
    put_message(&w, LLM_TRANSFORMER, &outer);
    put_int(&w, LLM_VOCAB_SIZE, h->vocab_size);
    if (h->has_bos || h->source->has_start_id)
        put_int(&w, LLM_START_TOKEN_ID, h->has_bos ? h->bos : h->source->start_id);
    put_stops(&w, h, tokenizer);
    if (tokenizer && qp_tokenizer_is_byte_level(tokenizer))
        put_ids(&w, LLM_NORMALIZATIONS, (int[]){ NORMALIZATION_GPT2 }, 1);
    put_templates(&w, h->chat, &inner);
    put_ids(&w, LLM_STOP_TOKEN_IDS, h->stops, h->n_stops);
    qp_bytes_close(&outer_bytes);
    qp_bytes_close(&inner_bytes);
    return w.ok && outer.ok && inner.ok;
}

/* ---- quip.config ---- */

/* The shortest decimal that reads back as the same float: nine digits are always enough. */
static bool print_number(struct bytes *out, const char *key, double value)
{
    char text[40];
    for (int digits = 7; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)(float)value);
        if (strtof(text, NULL) == (float)value)
            break;
    }
    for (char *c = text; *c; c++)
        if (*c == ',') // the decimal point of some locales
            *c = '.';
    return qp_bytes_printf(out, "%s %s\n", key, text);
}

static bool print_stops(struct bytes *out, const struct hparams *h)
{
    bool ok = h->n_stops == 0 || qp_bytes_append_text(out, "stop_ids ");
    for (int i = 0; i < h->n_stops; i++)
        ok = ok && qp_bytes_printf(out, i + 1 < h->n_stops ? "%d," : "%d\n", h->stops[i]);
    return ok;
}

/* Lines that only some models have. */
static bool print_extras(struct bytes *out, const struct hparams *h)
{
    return (h->rope_local_theta == 0 ||
            print_number(out, "rope_local_theta", h->rope_local_theta)) &&
           (h->attention_cap == 0 || print_number(out, "attention_cap", h->attention_cap)) &&
           (h->logits_cap == 0 || print_number(out, "logits_cap", h->logits_cap)) &&
           (h->n_context <= 0 || qp_bytes_printf(out, "n_context_max %d\n", h->n_context)) &&
           (!strchr(h->layer_types, 'L') || qp_bytes_printf(out, "window %d\n", h->window)) &&
           (!h->layer_types[0] || qp_bytes_printf(out, "layer_types %s\n", h->layer_types));
}

bool qp_write_quip_config(const struct hparams *h, struct bytes *out)
{
    return qp_bytes_printf(out, "architecture %s\n", h->family->name) &&
           print_number(out, "norm_eps", h->norm_eps) &&
           print_number(out, "rope_theta", h->rope_theta) &&
           print_number(out, "rope_scaling", h->rope_scaling) &&
           qp_bytes_printf(out, "rope_dim %d\n", h->rope_dim) &&
           print_number(out, "query_scale", h->query_scale) && print_extras(out, h) &&
           qp_bytes_printf(out, "chat %s\n", h->chat) && print_stops(out, h) &&
           qp_bytes_printf(out, "bos %d\n", h->has_bos ? h->bos : -1) &&
           qp_bytes_printf(out, "tied %d\n", h->is_tied && !h->source->has_two_embeddings) &&
           qp_bytes_printf(out, "n_parameters %llu\n", (unsigned long long)h->n_parameters);
}
