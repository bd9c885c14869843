/* embed.c: embeddings of texts.
 * In:  texts or token ids, and options.
 * Out: a vector for each.
 *
 * Texts are tokenized one by one and collected to batches of about PREFILL_CHUNK rows. A batch is
 * one forward pass: each text is a sequence without a KV cache. The result of a text does not
 * depend on the others. */
#include "engine/engine.h"

#include <assert.h>
#include <math.h>
#include <string.h>

struct embedder {
    quip_model *m;
    const quip_embed_options *o;
    const struct observer *observer; // NULL: none
    quip_error *error;
    struct device *device;
    struct sequence *sequences[EMBED_TEXTS]; // the first n_sequences are open
    int n_sequences;
    int pooling;      // enum quip_pooling, never QUIP_POOLING_MODEL
    int n_tokens_max; // of a text
    const char *prefix;
    int n_unpooled; // tokens at the start of a text that are not pooled
    /* The batch: tokens of its texts, one text after the other. */
    struct tokens ids;
    int end[EMBED_TEXTS], n_texts;
    struct bytes text; // prefix and text
    float *pooled;     // [EMBED_TEXTS, width]
    int width, n_dimensions;
    float *out; // of the next text
};

/* ---- options ---- */

static quip_status check_count(const char *name, int value, int max, quip_error *error)
{
    if (value >= 0 && value <= max)
        return QUIP_OK;
    return qp_fail(error, QUIP_E_ARGUMENT, "%s is %d; must be 0 to %d", name, value, max);
}

/* The most tokens that a text of this model may have. */
static int most_tokens(const quip_model *m)
{
    const int n = m->config.n_context_max;
    return n > 0 && n < MAX_EMBED_TOKENS ? n : MAX_EMBED_TOKENS;
}

/* The same without an option. */
static int own_tokens(const quip_model *m)
{
    const int n = m->embedding.n_tokens_max, most = most_tokens(m);
    return n > 0 && n < most ? n : most;
}

/* Of a batch with n rows. */
static struct capacity batch_capacity(int n)
{
    n = n > PREFILL_CHUNK ? n : PREFILL_CHUNK;
    return (struct capacity){ .n_rows = n, .n_context = n, .n_texts = EMBED_TEXTS };
}

struct capacity qp_embed_capacity(const quip_model *m)
{
    return batch_capacity(own_tokens(m));
}

static quip_status check_embed_options(const struct embedder *e)
{
    const quip_embed_options *o = e->o;
    quip_status status = QUIP_OK;
    for (size_t i = 0; i < QP_COUNT(o->reserved) && !status; i++)
        if (o->reserved[i])
            status = qp_fail(e->error, QUIP_E_ARGUMENT,
                             "reserved[%zu] of quip_embed_options is "
                             "not zero",
                             i);
    if (!status)
        status = check_count("n_threads", o->n_threads, MAX_THREADS, e->error);
    if (!status)
        status = check_count("pooling", o->pooling, QUIP_POOLING_LAST, e->error);
    if (!status)
        status = check_count("n_dimensions", o->n_dimensions, e->width, e->error);
    if (!status)
        status = check_count("n_tokens_max", o->n_tokens_max, most_tokens(e->m), e->error);
    if (!status && o->prompt && o->prefix)
        status = qp_fail(e->error, QUIP_E_ARGUMENT, "both prompt and prefix are given; pass one");
    return status;
}

static quip_status fail_prompt(const struct embedder *e, const char *name)
{
    const struct embedding *has = &e->m->embedding;
    char names[300] = "";
    for (int i = 0; i < has->n_prompts && strlen(names) < sizeof names / 2; i++)
        qp_list_name(names, sizeof names, has->prompts[i].name, i == has->n_prompts - 1);
    return qp_fail(e->error, QUIP_E_ARGUMENT, "the model has no prompt \"%.60s\"; it has %s", name,
                   *names ? names : "none");
}

static quip_status choose_prefix(struct embedder *e)
{
    const struct embedding *has = &e->m->embedding;
    e->prefix = e->o->prefix ? e->o->prefix : "";
    if (e->o->prefix)
        return QUIP_OK;
    if (!e->o->prompt) {
        if (has->default_prompt >= 0)
            e->prefix = has->prompts[has->default_prompt].text;
        return QUIP_OK;
    }
    for (int i = 0; i < has->n_prompts; i++)
        if (strcmp(has->prompts[i].name, e->o->prompt) == 0) {
            e->prefix = has->prompts[i].text;
            return QUIP_OK;
        }
    return fail_prompt(e, e->o->prompt);
}

/* The tokens around every text: those of the embedding model, or bos. */
static int n_begin(const quip_model *m)
{
    return m->embedding.pooling ? m->embedding.n_begin : m->config.bos >= 0;
}

static quip_status choose_pooling(struct embedder *e)
{
    const struct embedding *has = &e->m->embedding;
    e->pooling = e->o->pooling ? e->o->pooling : has->pooling;
    if (!e->pooling)
        return qp_fail(e->error, QUIP_E_UNSUPPORTED,
                       "%s: is not an embedding model; to make embeddings of it nevertheless, say "
                       "which tokens they are made of (pooling)",
                       e->m->file.name);
    for (int l = 0; l < e->m->config.n_layers; l++)
        if (e->m->config.layers[l].kv_layer != l || e->m->config.layers[l].mixer != MIXER_ATTENTION)
            return qp_fail(
                e->error, QUIP_E_UNSUPPORTED,
                "%s: layers of this model share keys and values, or are convolutions, so "
                "embeddings of it are not supported",
                e->m->file.name);
    e->n_tokens_max = e->o->n_tokens_max ? e->o->n_tokens_max : own_tokens(e->m);
    const int n_frame = n_begin(e->m) + has->n_end;
    if (e->n_tokens_max <= n_frame)
        return qp_fail(e->error, QUIP_E_ARGUMENT,
                       "n_tokens_max is %d; must be at least %d, because every text has %d tokens "
                       "around it",
                       e->n_tokens_max, n_frame + 1, n_frame);
    return QUIP_OK;
}

/* ---- tokens ---- */

static bool append_ids(struct embedder *e, const quip_token *ids, int n)
{
    for (int i = 0; i < n; i++)
        if (!qp_tokens_append(&e->ids, ids[i]))
            return false;
    return true;
}

/* Append the tokens of prefix and text, cut to the longest text. */
static quip_status append_text(struct embedder *e, const quip_embed_input *input, int index)
{
    const struct embedding *has = &e->m->embedding;
    const quip_token *begin = has->pooling ? has->begin : &e->m->config.bos;
    const int first = e->ids.n, n_frame = n_begin(e->m) + has->n_end;
    const char *text = input->text ? input->text : "";
    size_t n = input->n_text;
    bool ok = append_ids(e, begin, n_begin(e->m));
    if (ok && *e->prefix) {
        e->text.n = 0;
        ok = qp_bytes_append_text(&e->text, e->prefix) && qp_bytes_append(&e->text, text, n);
        text = (const char *)e->text.data;
        n = e->text.n;
    }
    if (!ok)
        return qp_fail_memory(e->error, "the tokens of a text", n);
    const quip_status status =
        qp_tokenizer_encode(e->m->tokenizer, text, n, true, &e->ids, e->error);
    if (status)
        return status;
    const int n_tokens = e->ids.n - first + has->n_end;
    if (n_tokens > e->n_tokens_max && e->o->no_truncation)
        return qp_fail(e->error, QUIP_E_CONTEXT_FULL,
                       "text %d has %d tokens; must be at most %d (n_tokens_max)", index, n_tokens,
                       e->n_tokens_max);
    if (n_tokens > e->n_tokens_max)
        e->ids.n = first + n_begin(e->m) + e->n_tokens_max - n_frame;
    if (!append_ids(e, has->end, has->n_end))
        return qp_fail_memory(e->error, "the tokens of a text", n);
    return e->ids.n > first ? QUIP_OK
                            : qp_fail(e->error, QUIP_E_ARGUMENT, "text %d has no tokens", index);
}

static quip_status append_tokens(struct embedder *e, const quip_embed_input *input, int index)
{
    const int vocab_size = e->m->config.vocab_size;
    if (input->n_tokens < 1)
        return qp_fail(e->error, QUIP_E_ARGUMENT, "text %d has %d tokens; must be at least 1",
                       index, input->n_tokens);
    if (input->n_tokens > most_tokens(e->m))
        return qp_fail(e->error, QUIP_E_CONTEXT_FULL, "text %d has %d tokens; must be at most %d",
                       index, input->n_tokens, most_tokens(e->m));
    for (int i = 0; i < input->n_tokens; i++)
        if (input->tokens[i] < 0 || input->tokens[i] >= vocab_size)
            return qp_fail(e->error, QUIP_E_ARGUMENT,
                           "text %d: token %d is %d; ids of this model are 0 to %d", index, i,
                           (int)input->tokens[i], vocab_size - 1);
    return append_ids(e, input->tokens, input->n_tokens)
               ? QUIP_OK
               : qp_fail_memory(e->error, "the tokens of a text", (size_t)input->n_tokens);
}

/* How many tokens of a text with a prompt are not pooled. */
static quip_status count_unpooled(struct embedder *e)
{
    if (!e->m->embedding.no_prompt_pooling || !*e->prefix)
        return QUIP_OK;
    const quip_status status =
        qp_tokenizer_encode(e->m->tokenizer, e->prefix, strlen(e->prefix), true, &e->ids, e->error);
    e->n_unpooled = n_begin(e->m) + e->ids.n;
    e->ids.n = 0;
    return status;
}

/* ---- a batch ---- */

static int text_begin(const struct embedder *e, int i)
{
    return i > 0 ? e->end[i - 1] : 0;
}

/* Memory for the tokens of the batch, and a sequence for each text. */
static quip_status open_batch(struct embedder *e)
{
    const struct capacity capacity = batch_capacity(e->ids.n);
    quip_status status = qp_device_open(&e->device, e->m, &capacity, e->error);
    while (!status && e->n_sequences < e->n_texts) {
        status = e->device->backend->sequence_open(&e->sequences[e->n_sequences], e->device, 0,
                                                   e->error);
        e->n_sequences += !status;
    }
    return status;
}

/* Whether the token at `pos` of a text of n tokens is pooled. */
static bool is_pooled(const struct embedder *e, int pos, int n)
{
    if (e->pooling == QUIP_POOLING_MEAN)
        return pos >= e->n_unpooled || e->n_unpooled >= n;
    return pos == (e->pooling == QUIP_POOLING_FIRST ? 0 : n - 1);
}

static struct rows embed_rows(const struct embedder *e)
{
    struct row *row = e->device->rows;
    const bool sees_all = e->m->config.is_bidirectional;
    assert(e->ids.n <= e->device->capacity.n_rows);
    for (int i = 0; i < e->n_texts; i++)
        for (int t = text_begin(e, i), n = e->end[i] - t, pos = 0; pos < n; pos++, t++)
            row[t] = (struct row){ .sequence = e->sequences[i],
                                   .pos = pos,
                                   .visible_end = sees_all ? n : pos + 1,
                                   .token = e->ids.ids[t],
                                   .is_output = is_pooled(e, pos, n) };
    return (struct rows){ row, e->ids.n };
}

static quip_status forward_batch(struct embedder *e)
{
    struct device *d = e->device;
    const struct backend *b = d->backend;
    const struct rows rows = embed_rows(e);
    quip_status status = b->begin(d, e->o->n_threads);
    if (!status)
        status = qp_forward(d, &rows, NULL, e->observer);
    if (!status)
        status = b->submit(d);
    if (!status)
        status = b->poll(d, true);
    return status ? status : b->read(d, BUF_POOLED, e->pooled, e->n_texts);
}

/* x = x / |x|; a vector of zeros stays */
static void normalize(float *x, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    const double factor = sum > 0 ? 1 / sqrt(sum) : 0;
    for (int i = 0; i < n; i++)
        x[i] = (float)((double)x[i] * factor);
}

static quip_status run_batch(struct embedder *e)
{
    if (e->n_texts == 0)
        return QUIP_OK;
    quip_status status = qp_file_check(&e->m->file, e->error);
    if (!status)
        status = open_batch(e);
    if (status)
        return status;
    qp_device_enter(e->device, e->ids.n <= SEQUENCE_OUTPUTS ? TURN_SHORT : TURN_LONG);
    status = qp_device_fail(e->device, forward_batch(e), e->error);
    qp_device_leave(e->device);
    for (int i = 0; i < e->n_texts && !status; i++, e->out += e->n_dimensions) {
        memcpy(e->out, e->pooled + (size_t)i * (size_t)e->width,
               (size_t)e->n_dimensions * sizeof *e->out);
        if (!e->o->no_normalize)
            normalize(e->out, e->n_dimensions);
    }
    e->n_texts = e->ids.n = 0;
    return status;
}

/* Add a text to the batch. If it does not fit, run the batch and begin the next one with it. */
static quip_status add_input(struct embedder *e, const quip_embed_input *input, int index)
{
    const int first = e->ids.n;
    quip_status status =
        input->tokens ? append_tokens(e, input, index) : append_text(e, input, index);
    if (status)
        return status;
    const int n = e->ids.n - first;
    if (e->n_texts > 0 && (e->ids.n > PREFILL_CHUNK || e->n_texts == EMBED_TEXTS)) {
        e->ids.n = first;
        status = run_batch(e);
        memmove(e->ids.ids, e->ids.ids + first, (size_t)n * sizeof *e->ids.ids);
        e->ids.n = n;
    }
    e->end[e->n_texts++] = e->ids.n;
    return status;
}

/* ---- all ---- */

static void close_embedder(struct embedder *e)
{
    for (int i = 0; i < e->n_sequences; i++)
        e->device->backend->sequence_close(e->sequences[i]);
    qp_free_pages(e->pooled, (size_t)EMBED_TEXTS * (size_t)e->width * sizeof(float));
    qp_tokens_close(&e->ids);
    qp_bytes_close(&e->text);
}

quip_status qp_embed(quip_model *m, const quip_embed_input *inputs, int n,
                     const quip_embed_options *options, const struct observer *observer,
                     float *embeddings, size_t capacity, quip_error *error)
{
    static const quip_embed_options defaults;
    struct embedder e = { .m = m,
                          .o = options ? options : &defaults,
                          .observer = observer,
                          .error = error,
                          .width =
                              qp_pooled_width(&m->weights, m->config.d_model, m->weights.n_dense),
                          .out = embeddings };
    quip_status status;
    if ((status = check_embed_options(&e)) || (status = choose_prefix(&e)) ||
        (status = choose_pooling(&e)))
        return status;
    e.n_dimensions = e.o->n_dimensions > 0 ? e.o->n_dimensions : e.width;
    if ((size_t)n > capacity / (size_t)e.n_dimensions)
        return qp_fail(error, QUIP_E_ARGUMENT, "capacity is %zu floats; %d embeddings have %d each",
                       capacity, n, e.n_dimensions);
    if (n == 0)
        return QUIP_OK;
    const size_t n_bytes = (size_t)EMBED_TEXTS * (size_t)e.width * sizeof(float);
    if (!(e.pooled = qp_alloc_pages(n_bytes)))
        return qp_fail_memory(error, "embeddings", n_bytes);
    status = count_unpooled(&e);
    for (int i = 0; i < n && !status; i++)
        status = add_input(&e, &inputs[i], i);
    if (!status)
        status = run_batch(&e);
    close_embedder(&e);
    return status;
}
