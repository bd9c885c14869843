/* metadata.c: struct hparams -> the original's LlmParameters proto, and quip.config.
 * The proto says what it can say, field numbers as in docs/model-format.md; quip.config says
 * everything that the proto cannot, one "key value" a line. */
#include "convert/hparams.h"
#include "format/protobuf.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- LlmParameters ---- */

enum {
    ACTIVATION_GELU = 1,
    ACTIVATION_SILU = 2
};
enum {
    PROTO_NORM_NONE = 1,
    PROTO_NORM_RMS = 2,
    PROTO_NORM_LAYER = 3
};
enum {
    MASK_CAUSAL = 1
};
enum {
    SCALE_INV_SQRT_HEAD = 2,
    SCALE_INV_SQRT_D_PER_N = 3,
    SCALE_RESCALE_FACTOR = 4
};

/* A proto under construction: after the first failed append nothing more is tried. */
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

/* Append the message in `part`, then empty it. */
static void put_message(struct proto_writer *w, int number, struct proto_writer *part)
{
    w->ok = w->ok && part->ok;
    put_bytes(w, number, part->out->data, part->out->n);
    part->out->n = 0;
}

/* Local layers between global ones, or -1 when they do not come in such a pattern. */
static int local_per_global(const struct hparams *h)
{
    const char *first = strchr(h->layer_types, 'G');
    int local = first ? (int)(first - h->layer_types) : -1;
    for (int l = 0; l < h->n_layers && local >= 0; l++)
        if ((h->layer_types[l] == 'G') != (l % (local + 1) == local))
            return -1;
    return local;
}

/* How attention scores are scaled; a factor goes into *rescale when only that can say it. */
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
    if (!h->source->has_biases) { // of q, k, v; of the output projection
        put_int(w, 1, 1);
        put_int(w, 2, 1);
    }
    put_int(w, 3, MASK_CAUSAL);
    put_float(w, 4, h->attention_cap);
    put_int(w, 5, type);
    if (strchr(h->layer_types, 'L')) // else there is no window
        put_int(w, 6, h->window);
    if (h->family->qk_norm) {
        put_int(w, 7, 1);
        put_int(w, 8, 1);
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

    put_int(w, 1, 1); // batch size
    put_int(w, 3, h->d_model);
    put_int(w, 4, h->d_ff);
    put_int(w, 5, h->head_dim);
    put_int(w, 6, h->n_heads);
    put_int(w, 7, h->n_layers);
    if (!source->implies_kv_heads || h->n_kv_heads != h->n_heads)
        put_int(w, 9, h->n_kv_heads);
    if (!source->has_biases)
        put_int(part, 1, 1); // feed-forward: no biases
    put_int(part, 2, is_gelu ? ACTIVATION_GELU : ACTIVATION_SILU);
    put_int(part, 3, family->is_parallel ? PROTO_NORM_NONE : norm);
    put_int(part, 4, post_norm);
    put_message(w, 11, part);
    if (!source->has_head_bias)
        put_int(part, 1, 1);
    put_float(part, 2, h->logits_cap);
    put_message(w, 12, part);
    put_int(w, 13, norm);
    put_int(w, 14, post_norm);
    put_int(w, 15, norm);
    put_attention(part, h, type);
    put_message(w, 16, part);
    put_int(w, 18, 1); // no absolute positions
    if (local_per_global(h) > 0)
        put_int(w, 19, local_per_global(h));
    if (for_gpu) { // what the original says in these files alone, in fields that it does not
                   // publish
        put_int(w, 23, 1);
        put_int(w, 24, 1);
    }
    put_float(w, 25, rescale);
    if (source->has_rope_fields) {
        put_float(w, 32, h->rope_theta);
        put_float(w, 33, h->rope_scaling == 1 ? 0 : h->rope_scaling);
        put_int(w, 36, h->d_model != source->f16_width);
    }
}

/* PromptTemplate of one role. */
static void put_turn(struct proto_writer *w, int number, const struct turn_text *turn,
                     struct proto_writer *part)
{
    if (!*turn->prefix && !*turn->suffix)
        return;
    put_bytes(part, 2, turn->prefix, strlen(turn->prefix));
    put_bytes(part, 3, turn->suffix, strlen(turn->suffix));
    put_message(w, number, part);
}

/* PromptTemplates, from the template of this name. */
static void put_templates(struct proto_writer *w, const char *chat, struct proto_writer *part)
{
    const struct chat_template *t = qp_chat_find(chat);
    struct bytes list_bytes = { 0 };
    struct proto_writer list = { &list_bytes, true };
    if (!t || strcmp(t->name, "none") == 0)
        return;
    put_turn(&list, 1, &t->user, part);
    put_turn(&list, 2, &t->model, part);
    put_turn(&list, 3, &t->system, part);
    put_message(w, 17, &list);
    qp_bytes_close(&list_bytes);
}

/* A packed list of ids. */
static void put_ids(struct proto_writer *w, int number, const int *ids, int n)
{
    uint8_t packed[5 * HPARAMS_MAX_STOPS];
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

/* The original's stops first, which it writes whatever the vocabulary. */
static void put_stops(struct proto_writer *w, const struct hparams *h,
                      const struct tokenizer *tokenizer)
{
    for (const char *const *stop = h->source->stops; *stop; stop++)
        put_bytes(w, 5, *stop, strlen(*stop));
    for (int i = 0; i < h->n_stops; i++) {
        size_t n;
        const char *piece = qp_tokenizer_piece(tokenizer, h->stops[i], &n);
        if (piece && !is_family_stop(h->source, piece, n))
            put_bytes(w, 5, piece, n);
    }
}

bool qp_write_llm_parameters(const struct hparams *h, const struct tokenizer *tokenizer,
                             bool for_gpu, struct bytes *out)
{
    struct bytes outer_bytes = { 0 }, inner_bytes = { 0 };
    struct proto_writer w = { out, true };
    struct proto_writer outer = { &outer_bytes, true }, inner = { &inner_bytes, true };

    put_transformer(&outer, h, for_gpu, &inner);
    put_message(&w, 1, &outer);
    put_int(&w, 2, h->vocab_size);
    if (h->has_bos || h->source->has_start_id)
        put_int(&w, 4, h->has_bos ? h->bos : h->source->start_id);
    put_stops(&w, h, tokenizer);
    if (tokenizer && qp_tokenizer_is_byte_level(tokenizer))
        put_ids(&w, 7, (int[]){ 1 }, 1); // text is spelled in GPT-2's byte characters first
    put_templates(&w, h->chat, &inner);
    put_ids(&w, 18, h->stops, h->n_stops);
    qp_bytes_close(&outer_bytes);
    qp_bytes_close(&inner_bytes);
    return w.ok && outer.ok && inner.ok;
}

/* ---- quip.config ---- */

/* The shortest decimal that reads back as the same float; nine digits always do. */
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

/* What only some models have. */
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
