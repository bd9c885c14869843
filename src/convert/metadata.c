/* metadata.c: struct model_facts -> the original's LlmParameters proto, and quip.config.
 * The proto says what it can say, field numbers as in docs/model-format.md; quip.config says
 * everything that the proto cannot, one "key value" a line. */
#include "convert/facts.h"
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
static int local_per_global(const struct model_facts *f)
{
    const char *first = strchr(f->layer_types, 'G');
    int local = first ? (int)(first - f->layer_types) : -1;
    for (int l = 0; l < f->n_layers && local >= 0; l++)
        if ((f->layer_types[l] == 'G') != (l % (local + 1) == local))
            return -1;
    return local;
}

/* How attention scores are scaled; a factor goes into *rescale when only that can say it. */
static int scale_type(const struct model_facts *f, double *rescale)
{
    *rescale = 0;
    if (fabs(f->query_scale * sqrt(f->head_dim) - 1) < 1e-9)
        return SCALE_INV_SQRT_HEAD;
    if (fabs(f->query_scale * sqrt((double)f->d_model / f->n_heads) - 1) < 1e-9)
        return SCALE_INV_SQRT_D_PER_N;
    *rescale = f->query_scale * f->head_dim;
    return SCALE_RESCALE_FACTOR;
}

static void put_attention(struct proto_writer *w, const struct model_facts *f, int type)
{
    if (!f->family->has_biases) { // of q, k, v; of the output projection
        put_int(w, 1, 1);
        put_int(w, 2, 1);
    }
    put_int(w, 3, MASK_CAUSAL);
    put_float(w, 4, f->attention_cap);
    put_int(w, 5, type);
    if (strchr(f->layer_types, 'L')) // else there is no window
        put_int(w, 6, f->window);
    if (f->family->has_qk_norm) {
        put_int(w, 7, 1);
        put_int(w, 8, 1);
    }
}

static void put_transformer(struct proto_writer *w, const struct model_facts *f, bool for_gpu,
                            struct proto_writer *part)
{
    const struct family *family = f->family;
    bool is_gemma3 = family->id == FAMILY_GEMMA3;
    bool is_gelu = strncmp(family->activation, "gelu", 4) == 0; // of either form
    int norm = family->has_layer_norm ? PROTO_NORM_LAYER : PROTO_NORM_RMS;
    int post_norm = family->has_post_norms ? norm : PROTO_NORM_NONE;
    double rescale;
    int type = scale_type(f, &rescale);

    put_int(w, 1, 1); // batch size
    put_int(w, 3, f->d_model);
    put_int(w, 4, f->d_ff);
    put_int(w, 5, f->head_dim);
    put_int(w, 6, f->n_heads);
    put_int(w, 7, f->n_layers);
    if (!family->implies_kv_heads || f->n_kv_heads != f->n_heads)
        put_int(w, 9, f->n_kv_heads);
    if (!family->has_biases)
        put_int(part, 1, 1); // feed-forward: no biases
    put_int(part, 2, is_gelu ? ACTIVATION_GELU : ACTIVATION_SILU);
    put_int(part, 3, family->is_parallel ? PROTO_NORM_NONE : norm);
    put_int(part, 4, post_norm);
    put_message(w, 11, part);
    if (!family->has_head_bias)
        put_int(part, 1, 1);
    put_float(part, 2, f->logits_cap);
    put_message(w, 12, part);
    put_int(w, 13, norm);
    put_int(w, 14, post_norm);
    put_int(w, 15, norm);
    put_attention(part, f, type);
    put_message(w, 16, part);
    put_int(w, 18, 1); // no absolute positions
    if (local_per_global(f) > 0)
        put_int(w, 19, local_per_global(f));
    if (for_gpu) { // what the original says in these files alone, in fields that it does not
                   // publish
        put_int(w, 23, 1);
        put_int(w, 24, 1);
    }
    put_float(w, 25, rescale);
    if (is_gemma3) {
        put_float(w, 32, f->rope_theta);
        put_float(w, 33, f->rope_scaling == 1 ? 0 : f->rope_scaling);
        put_int(w, 36, f->d_model != 1152); // every size but 1B overflows float16
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
    uint8_t packed[5 * FACTS_MAX_STOPS];
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

static bool is_family_stop(const struct family *family, const char *piece, size_t n)
{
    for (const char *const *stop = family->stops; *stop; stop++)
        if (strlen(*stop) == n && memcmp(*stop, piece, n) == 0)
            return true;
    return false;
}

/* The original's stops first, which it writes whatever the vocabulary. */
static void put_stops(struct proto_writer *w, const struct model_facts *f,
                      const struct tokenizer *tokenizer)
{
    for (const char *const *stop = f->family->stops; *stop; stop++)
        put_bytes(w, 5, *stop, strlen(*stop));
    for (int i = 0; i < f->n_stops; i++) {
        size_t n;
        const char *piece = qp_tokenizer_piece(tokenizer, f->stops[i], &n);
        if (piece && !is_family_stop(f->family, piece, n))
            put_bytes(w, 5, piece, n);
    }
}

bool qp_write_llm_parameters(const struct model_facts *f, const struct tokenizer *tokenizer,
                             bool for_gpu, struct bytes *out)
{
    struct bytes outer_bytes = { 0 }, inner_bytes = { 0 };
    struct proto_writer w = { out, true };
    struct proto_writer outer = { &outer_bytes, true }, inner = { &inner_bytes, true };

    put_transformer(&outer, f, for_gpu, &inner);
    put_message(&w, 1, &outer);
    put_int(&w, 2, f->vocab_size);
    if (f->has_bos || f->family->has_start_id)
        put_int(&w, 4, f->has_bos ? f->bos : f->family->start_id);
    put_stops(&w, f, tokenizer);
    if (tokenizer && qp_tokenizer_is_byte_level(tokenizer))
        put_ids(&w, 7, (int[]){ 1 }, 1); // text is spelled in GPT-2's byte characters first
    put_templates(&w, f->chat, &inner);
    put_ids(&w, 18, f->stops, f->n_stops);
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

static bool print_stops(struct bytes *out, const struct model_facts *f)
{
    bool ok = f->n_stops == 0 || qp_bytes_append_text(out, "stop_ids ");
    for (int i = 0; i < f->n_stops; i++)
        ok = ok && qp_bytes_printf(out, i + 1 < f->n_stops ? "%d," : "%d\n", f->stops[i]);
    return ok;
}

/* What only some models have. */
static bool print_extras(struct bytes *out, const struct model_facts *f)
{
    return (f->rope_local_theta == 0 ||
            print_number(out, "rope_local_theta", f->rope_local_theta)) &&
           (f->attention_cap == 0 || print_number(out, "attention_cap", f->attention_cap)) &&
           (f->logits_cap == 0 || print_number(out, "logits_cap", f->logits_cap)) &&
           (f->n_context <= 0 || qp_bytes_printf(out, "n_context_max %d\n", f->n_context)) &&
           (!strchr(f->layer_types, 'L') || qp_bytes_printf(out, "window %d\n", f->window)) &&
           (!f->layer_types[0] || qp_bytes_printf(out, "layer_types %s\n", f->layer_types));
}

bool qp_write_quip_config(const struct model_facts *f, struct bytes *out)
{
    return qp_bytes_printf(out, "architecture %s\n", f->family->name) &&
           print_number(out, "norm_eps", f->norm_eps) &&
           print_number(out, "rope_theta", f->rope_theta) &&
           print_number(out, "rope_scaling", f->rope_scaling) &&
           qp_bytes_printf(out, "rope_dim %d\n", f->rope_dim) &&
           print_number(out, "query_scale", f->query_scale) && print_extras(out, f) &&
           qp_bytes_printf(out, "chat %s\n", f->chat) && print_stops(out, f) &&
           qp_bytes_printf(out, "bos %d\n", f->has_bos ? f->bos : -1) &&
           qp_bytes_printf(out, "tied %d\n", f->is_tied && !f->family->has_two_embeddings) &&
           qp_bytes_printf(out, "n_parameters %llu\n", (unsigned long long)f->n_parameters);
}
