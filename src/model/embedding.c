/* embedding.c: how a model makes the embedding of a text.
 * In:  the metadata `quip.embedding`: text, one "key value" a line (docs/model-format.md), and the
 *      tensors of the dense layers.
 * Out: struct embedding; dense layers that fit to each other. A key that is not known is an error:
 *      without it the embeddings would be wrong. */
#include "model/model.h"

#include <assert.h>
#include <string.h>

struct embedding_reader {
    quip_model *m;
    quip_error *error;
    int default_prompt; // as the line says
};

static quip_status fail_line(const struct embedding_reader *r, const char *key, size_t n)
{
    return qp_fail(r->error, QUIP_E_UNSUPPORTED,
                   "%s: quip.embedding: \"%.*s\" is not known, or its value is wrong; convert the "
                   "model again, or use a newer Quip",
                   r->m->file.name, (int)(n < 60 ? n : 60), key);
}

/* A whole number of at most nine digits that is the whole text. */
static bool parse_count(const char *s, size_t n, int *to)
{
    *to = 0;
    for (size_t i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '9' || n > 9)
            return false;
        *to = *to * 10 + (s[i] - '0');
    }
    return n > 0;
}

/* Token ids with commas between them. */
static bool parse_frame(const struct embedding_reader *r, const char *s, size_t n,
                        quip_token ids[MAX_TEXT_FRAME], int *n_ids)
{
    for (size_t i = 0, length; i < n; i += length + 1) {
        const char *comma = memchr(s + i, ',', n - i);
        int id;
        length = comma ? (size_t)(comma - (s + i)) : n - i;
        if (*n_ids == MAX_TEXT_FRAME || !parse_count(s + i, length, &id) ||
            id >= r->m->config.vocab_size)
            return false;
        ids[(*n_ids)++] = id;
    }
    return true;
}

/* ---- prompts ---- */

/* Append a text in which "\n" is a line end, "\s" a space and "\\" a backslash, and a NUL. */
static bool append_unescaped(struct bytes *out, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const bool is_escaped = s[i] == '\\' && i + 1 < n;
        const char next = is_escaped ? s[++i] : s[i];
        const char c = !is_escaped ? next : next == 'n' ? '\n' : next == 's' ? ' ' : next;
        if (!qp_bytes_append(out, &c, 1))
            return false;
    }
    return qp_bytes_append(out, "", 1);
}

/* "NAME TEXT". The bytes may still move, so the texts are placed after all lines are read. */
static quip_status read_prompt(struct embedding_reader *r, const char *s, size_t n)
{
    struct embedding *e = &r->m->embedding;
    const char *space = memchr(s, ' ', n);
    const size_t n_name = space ? (size_t)(space - s) : 0;
    if (!space || n_name == 0 || e->n_prompts == MAX_EMBED_PROMPTS || memchr(s, 0, n))
        return fail_line(r, "prompt", 6);
    e->n_prompts++;
    return append_unescaped(&e->texts, s, n_name) &&
                   append_unescaped(&e->texts, space + 1, n - n_name - 1)
               ? QUIP_OK
               : qp_fail_memory(r->error, "the prompts", n);
}

static void place_prompts(struct embedding *e)
{
    const char *next = (const char *)e->texts.data;
    for (int i = 0; i < e->n_prompts; i++) {
        e->prompts[i].name = next;
        e->prompts[i].text = next + strlen(next) + 1;
        next = e->prompts[i].text + strlen(e->prompts[i].text) + 1;
    }
}

/* ---- dense layers ---- */

/* The floats of a tensor with n values. */
static quip_status dense_floats(const struct embedding_reader *r, const char *name, uint64_t n,
                                const float **floats)
{
    static const float none;
    const struct tensor *t = qp_format_find(&r->m->format, name);
    const uint8_t *data = (const uint8_t *)&none;
    quip_status status = QUIP_OK;
    if (!t || t->dtype != DTYPE_F32 || t->n_bytes != n * sizeof(float))
        return qp_fail(r->error, QUIP_E_FORMAT, "%s: %s is missing, or is not %llu f32 values",
                       r->m->file.name, name, (unsigned long long)n);
    if (!r->m->options.no_weights)
        status = qp_format_tensor_bytes(&r->m->format, t, &data, r->error);
    if (!status)
        status = qp_check_aligned(r->m, t, data, r->error);
    *floats = (const float *)(const void *)data;
    return status;
}

/* "N_OUT identity|tanh [bias]" */
static quip_status read_dense(struct embedding_reader *r, const char *s, size_t n)
{
    struct weights *w = &r->m->weights;
    static const char *const kinds[] = { "identity", "tanh", "identity bias", "tanh bias" };
    char kind[20] = "", name[80];
    const char *space = memchr(s, ' ', n);
    const size_t n_count = space ? (size_t)(space - s) : 0, n_kind = space ? n - n_count - 1 : 0;
    size_t k = 0;
    int n_out = 0;
    if (n_kind < sizeof kind && n_kind > 0)
        memcpy(kind, space + 1, n_kind);
    while (k < QP_COUNT(kinds) && strcmp(kind, kinds[k]) != 0)
        k++;
    if (k == QP_COUNT(kinds) || !parse_count(s, n_count, &n_out) || n_out < 1 || n_out > 1 << 16 ||
        w->n_dense == MAX_DENSE)
        return fail_line(r, "dense", 5);
    const bool has_tanh = k % 2, has_bias = k >= 2;
    const int i = w->n_dense, n_in = qp_pooled_width(w, r->m->config.d_model, i);
    struct dense *dense = &w->dense[w->n_dense++];
    const float *floats;
    *dense = (struct dense){ .w = { .dtype = DTYPE_F32,
                                    .n_out = n_out,
                                    .n_in = n_in,
                                    .row_bytes = (size_t)n_in * sizeof(float) },
                             .has_tanh = has_tanh };
    snprintf(name, sizeof name, "params.lm.embedding.dense_%d.w", i);
    quip_status status = dense_floats(r, name, (uint64_t)n_out * (uint64_t)n_in, &floats);
    dense->w.data = floats;
    snprintf(name, sizeof name, "params.lm.embedding.dense_%d.bias.b", i);
    if (!status && has_bias)
        status = dense_floats(r, name, (uint64_t)n_out, &dense->w.bias);
    r->m->n_parameters += (uint64_t)n_out * (uint64_t)(n_in + has_bias);
    return status;
}

/* ---- all lines ---- */

static int find_pooling(const char *s, size_t n)
{
    static const char *const names[] = {
        [QUIP_POOLING_MEAN] = "mean", [QUIP_POOLING_FIRST] = "first", [QUIP_POOLING_LAST] = "last"
    };
    for (int i = QUIP_POOLING_MEAN; i <= QUIP_POOLING_LAST; i++)
        if (strlen(names[i]) == n && memcmp(names[i], s, n) == 0)
            return i;
    return QUIP_POOLING_MODEL;
}

static quip_status read_key(struct embedding_reader *r, const char *key, size_t n_key,
                            const char *s, size_t n)
{
    struct embedding *e = &r->m->embedding;
    bool ok = false;
    char name[24] = "";
    int flag = -1;
    if (n_key < sizeof name)
        memcpy(name, key, n_key);
    if (strcmp(name, "prompt") == 0)
        return read_prompt(r, s, n);
    if (strcmp(name, "dense") == 0)
        return read_dense(r, s, n);
    if (strcmp(name, "pooling") == 0)
        ok = (e->pooling = find_pooling(s, n)) != QUIP_POOLING_MODEL;
    else if (strcmp(name, "n_tokens_max") == 0)
        ok = parse_count(s, n, &e->n_tokens_max);
    else if (strcmp(name, "text_begin") == 0)
        ok = parse_frame(r, s, n, e->begin, &e->n_begin);
    else if (strcmp(name, "text_end") == 0)
        ok = parse_frame(r, s, n, e->end, &e->n_end);
    else if (strcmp(name, "default_prompt") == 0)
        ok = parse_count(s, n, &r->default_prompt);
    else if (strcmp(name, "no_prompt_pooling") == 0) {
        ok = parse_count(s, n, &flag) && flag <= 1;
        e->no_prompt_pooling = flag == 1;
    }
    return ok ? QUIP_OK : fail_line(r, key, n_key);
}

static quip_status read_lines(struct embedding_reader *r, const char *text, size_t n)
{
    quip_status status = QUIP_OK;
    for (size_t i = 0, length; i < n && !status; i += length + 1) {
        const char *line = text + i, *end = memchr(line, '\n', n - i);
        length = end ? (size_t)(end - line) : n - i;
        const char *space = memchr(line, ' ', length);
        const size_t n_key = space ? (size_t)(space - line) : length;
        if (length > 0)
            status = space ? read_key(r, line, n_key, space + 1, length - n_key - 1)
                           : fail_line(r, line, n_key);
    }
    return status;
}

quip_status qp_embedding_read(quip_model *m, quip_error *error)
{
    const struct metadata *entry = qp_format_find_metadata(&m->format, "quip.embedding");
    struct embedding_reader r = { .m = m, .error = error, .default_prompt = -1 };
    const uint8_t *text;
    size_t n;
    quip_status status;
    m->embedding.default_prompt = -1;
    if (!entry || entry->type != METADATA_BYTES)
        return m->config.is_bidirectional
                   ? qp_fail(error, QUIP_E_FORMAT,
                             "%s: is an encoder, but has no quip.embedding metadata", m->file.name)
                   : QUIP_OK;
    if ((status = qp_format_bytes(&m->format, entry, &text, &n, error)) ||
        (status = read_lines(&r, (const char *)text, n)))
        return status;
    struct embedding *e = &m->embedding;
    place_prompts(e);
    if (e->pooling == QUIP_POOLING_MODEL || r.default_prompt >= e->n_prompts)
        return fail_line(&r, e->pooling ? "default_prompt" : "pooling", e->pooling ? 14 : 7);
    e->default_prompt = r.default_prompt;
    return QUIP_OK;
}

void qp_embedding_close(struct embedding *e)
{
    qp_bytes_close(&e->texts);
}
