/* metadata.c: what a model file says about its model.
 * In:  hyper-parameters.
 * Out: MediaPipe's LlmParameters proto, and the text of quip.config, which has a line "key value"
 *      for everything, because the proto cannot say it all. */
#include "convert/chat_source.h"
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
    const char *first = strchr(h->raw.layer_types, 'G');
    int local = first ? (int)(first - h->raw.layer_types) : -1;
    for (int l = 0; l < h->raw.n_layers && local >= 0; l++)
        if ((h->raw.layer_types[l] == 'G') != (l % (local + 1) == local))
            return -1;
    return local;
}

/* How attention scores are scaled. *rescale is a factor if only that can say it, else 0. */
static int scale_type(const struct hparams *h, double *rescale)
{
    *rescale = 0;
    if (fabs(h->raw.query_scale * sqrt(h->raw.head_dim) - 1) < 1e-9)
        return SCALE_INV_SQRT_HEAD;
    if (fabs(h->raw.query_scale * sqrt((double)h->raw.d_model / h->raw.n_heads) - 1) < 1e-9)
        return SCALE_INV_SQRT_D_PER_N;
    *rescale = h->raw.query_scale * h->raw.head_dim;
    return SCALE_RESCALE_FACTOR;
}

static void put_attention(struct proto_writer *w, const struct hparams *h, int type)
{
    if (!(h->biases & IF_QKV_BIAS))
        put_int(w, ATTENTION_QKV_NO_BIAS, 1);
    if (!(h->biases & IF_O_BIAS))
        put_int(w, ATTENTION_O_NO_BIAS, 1);
    put_int(w, ATTENTION_MASK, MASK_CAUSAL);
    put_float(w, ATTENTION_SOFT_CAP, h->raw.traits.attention_cap);
    put_int(w, ATTENTION_SCALE, type);
    if (qp_hparams_has_window(h)) // otherwise there is no window
        put_int(w, ATTENTION_WINDOW, h->raw.traits.window);
    if (h->raw.traits.qk_norm) {
        put_int(w, ATTENTION_QK_NORM, 1);
        put_int(w, ATTENTION_QK_NORM_HAS_SCALE, 1);
    }
}

static void put_transformer(struct proto_writer *w, const struct hparams *h, bool for_gpu,
                            struct proto_writer *part)
{
    const struct traits *traits = &h->raw.traits;
    const struct family_source *source = h->source;
    bool is_gelu = traits->act == ACT_GELU_TANH || traits->act == ACT_GELU_ERF;
    int norm = traits->norm == NORM_LAYER ? PROTO_NORM_LAYER : PROTO_NORM_RMS;
    int post_norm = traits->post_norm ? norm : PROTO_NORM_NONE;
    double rescale;
    int type = scale_type(h, &rescale);

    put_int(w, TRANSFORMER_BATCH_SIZE, 1);
    put_int(w, TRANSFORMER_D_MODEL, h->raw.d_model);
    put_int(w, TRANSFORMER_D_FF, h->raw.d_ff);
    put_int(w, TRANSFORMER_HEAD_DIM, h->raw.head_dim);
    put_int(w, TRANSFORMER_N_HEADS, h->raw.n_heads);
    put_int(w, TRANSFORMER_N_LAYERS, h->raw.n_layers);
    if (!source->implies_kv_heads || h->raw.n_kv_heads != h->raw.n_heads)
        put_int(w, TRANSFORMER_N_KV_HEADS, h->raw.n_kv_heads);
    if (!(h->biases & IF_FF_BIAS))
        put_int(part, FEED_FORWARD_NO_BIAS, 1);
    put_int(part, FEED_FORWARD_ACTIVATION, is_gelu ? PROTO_ACTIVATION_GELU : PROTO_ACTIVATION_SILU);
    put_int(part, FEED_FORWARD_PRE_NORM,
            traits->residual == RESIDUAL_PARALLEL ? PROTO_NORM_NONE : norm);
    put_int(part, FEED_FORWARD_POST_NORM, post_norm);
    put_message(w, TRANSFORMER_FEED_FORWARD, part);
    if (!(h->biases & IF_HEAD_BIAS))
        put_int(part, HEAD_NO_BIAS, 1);
    put_float(part, HEAD_SOFT_CAP, h->raw.traits.logits_cap);
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
        put_float(w, TRANSFORMER_ROPE_THETA, h->raw.traits.rope_theta);
        put_float(w, TRANSFORMER_ROPE_SCALING, h->raw.rope_scaling == 1 ? 0 : h->raw.rope_scaling);
        put_int(w, TRANSFORMER_GEMMA3_BFLOAT16_FIX, h->raw.d_model != source->f16_width);
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

/* PromptTemplates as the checkpoint's own template spells turns, or the named one. */
static void put_templates(struct proto_writer *w, const struct hparams *h,
                          struct proto_writer *part)
{
    const struct chat_template *t = qp_chat_find(h->chat);
    const struct chat_spelling *own = h->spelling && h->spelling->has_turns ? h->spelling : NULL;
    struct bytes list_bytes = { 0 };
    struct proto_writer list = { &list_bytes, true };
    if (!own && (!t || strcmp(t->name, "none") == 0))
        return;
    put_turn(&list, TEMPLATES_USER, own ? &own->user : &t->user, part);
    put_turn(&list, TEMPLATES_MODEL, own ? &own->model : &t->model, part);
    put_turn(&list, TEMPLATES_SYSTEM, own ? &own->system : &t->system, part);
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
    put_int(&w, LLM_VOCAB_SIZE, h->raw.vocab_size);
    if (h->has_bos || h->source->has_start_id)
        put_int(&w, LLM_START_TOKEN_ID, h->has_bos ? h->bos : h->source->start_id);
    put_stops(&w, h, tokenizer);
    if (tokenizer && qp_tokenizer_is_byte_level(tokenizer))
        put_ids(&w, LLM_NORMALIZATIONS, (int[]){ NORMALIZATION_GPT2 }, 1);
    put_templates(&w, h, &inner);
    put_ids(&w, LLM_STOP_TOKEN_IDS, h->stops, h->n_stops);
    qp_bytes_close(&outer_bytes);
    qp_bytes_close(&inner_bytes);
    return w.ok && outer.ok && inner.ok;
}

/* ---- quip.config ---- */

bool qp_print_number(struct bytes *out, const char *key, double value)
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

static bool print_ids(struct bytes *out, const char *key, const int *ids, int n)
{
    bool ok = n == 0 || qp_bytes_printf(out, "%s ", key);
    for (int i = 0; i < n; i++)
        ok = ok && qp_bytes_printf(out, i + 1 < n ? "%d," : "%d\n", ids[i]);
    return ok;
}

/* Whether a key has another value than in the family. */
static bool differs(const struct config_key *key, const struct raw_config *raw,
                    const struct raw_config *of_family)
{
    const char *a = (const char *)raw + key->offset, *b = (const char *)of_family + key->offset;
    switch (key->kind) {
    case KEY_INT:
    case KEY_BOOL:
    case KEY_CHOICE:
        return qp_config_int(key, raw) != qp_config_int(key, of_family);
    case KEY_FLOAT:
        return (float)*(const double *)(const void *)a != (float)*(const double *)(const void *)b;
    case KEY_TEXT:
        return strcmp(a, b) != 0;
    case KEY_LAYERS: // no family has one
        return ((const struct layer_list *)(const void *)a)->n > 0;
    default:
        return false; // of tokens
    }
}

/* The keys of the first revision are written unless they are zero, so that a family may change. */
static bool is_written(const struct config_key *key, const struct raw_config *raw,
                       const struct raw_config *of_family)
{
    if (differs(key, raw, of_family))
        return true;
    return key->revision == 0 &&
           (key->kind == KEY_INT ? qp_config_int(key, raw) != 0
            : key->kind == KEY_FLOAT
                ? *(const double *)(const void *)((const char *)raw + key->offset) != 0
                : false);
}

/* The line of one key. */
static bool print_key(struct bytes *out, const struct config_key *key, const struct hparams *h,
                      const struct raw_config *raw)
{
    const char *field = (const char *)raw + key->offset;
    switch (key->kind) {
    case KEY_INT:
    case KEY_BOOL:
        return qp_bytes_printf(out, "%s %d\n", key->name, qp_config_int(key, raw));
    case KEY_CHOICE:
        return qp_bytes_printf(out, "%s %s\n", key->name, key->choices[qp_config_int(key, raw)]);
    case KEY_FLOAT:
        return qp_print_number(out, key->name, *(const double *)(const void *)field);
    case KEY_TEXT:
        return qp_bytes_printf(out, "%s %s\n", key->name, field);
    case KEY_LAYERS:
        return print_ids(out, key->name, ((const struct layer_list *)(const void *)field)->value,
                         ((const struct layer_list *)(const void *)field)->n);
    case KEY_BOS:
        return qp_bytes_printf(out, "%s %d\n", key->name, h->has_bos ? h->bos : -1);
    case KEY_IDS:
        return print_ids(out, key->name, h->stops, h->n_stops);
    case KEY_FAMILY:
        return true; // is written first
    }
    return false;
}

/* `architecture NAME`, or with the revision that a reader must know. */
static bool print_architecture(struct bytes *out, const struct raw_config *raw,
                               const struct raw_config *of_family)
{
    const struct config_key *key;
    int revision = 0;
    for (int i = 0; (key = qp_config_key(i)); i++)
        if (key->revision > revision && differs(key, raw, of_family))
            revision = key->revision;
    return revision > raw->family->revision
               ? qp_bytes_printf(out, "architecture %s+%d\n", raw->family->name, revision)
               : qp_bytes_printf(out, "architecture %s\n", raw->family->name);
}

bool qp_write_quip_config(const struct hparams *h, struct bytes *out)
{
    const struct raw_config of_family = qp_raw_config_of(h->raw.family);
    const struct config_key *key;
    struct raw_config raw = h->raw;
    snprintf(raw.chat, sizeof raw.chat, "%s", h->chat);
    raw.tied = h->is_tied && !h->source->has_two_embeddings;
    bool ok = print_architecture(out, &raw, &of_family);
    for (int i = 0; (key = qp_config_key(i)) && ok; i++)
        if (key->kind == KEY_BOS || key->kind == KEY_IDS || is_written(key, &raw, &of_family))
            ok = print_key(out, key, h, &raw);
    return ok && qp_bytes_printf(out, "n_parameters %llu\n", (unsigned long long)h->n_parameters);
}
