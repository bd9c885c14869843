/* embedding_inputs.c: what the matrices of an embedding model are multiplied by.
 * In:  a checkpoint of an embedding model.
 * Out: for each matrix of a layer the factor of its inputs (rounding.h).
 *
 * The inputs are those of short texts, whose tokens are evenly spaced in the vocabulary: no text
 * has to be supplied, and short texts suffer most from rounding, because nothing averages their
 * errors. Longer texts gain as well (docs/embeddings.md).
 *
 * Inputs are mixed (qp_mix_row), as those of the integer model are. */
#include "convert/embedding_inputs.h"
#include "convert/conversion.h"
#include "convert/rounding.h"
#include "engine/engine.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    N_TEXTS = 320,  // a multiple of EMBED_TEXTS
    MAX_TOKENS = 8, // of a text, without its frame
    STRIDE = 67,    // in texts, between the tokens of one
    N_INPUTS = 4,
    SUMS_BYTES = 1 << 28 // for the layers of one pass, unless one layer needs more
};

/* The first matrix of each input of a layer. */
static const enum layer_matrix first_matrices[N_INPUTS + 1] = { MATRIX_Q, MATRIX_O, MATRIX_GATE,
                                                                MATRIX_DOWN, MATRIX_DOWN + 1 };

struct input_sums {
    float *h; // [n_in, n_in], of x[i] * x[j], j <= i; then the factor
    int n_in;
    bool is_finite;
};

struct embedding_inputs {
    quip_model *model;
    float *rows;             // [PREFILL_CHUNK, widest n_in]
    struct input_sums *sums; // [n_layers * N_INPUTS]; only those of [begin, end) have an h
    int begin, end;          // layers
    quip_token tokens[EMBED_TEXTS][2 * MAX_TEXT_FRAME + MAX_TOKENS];
};

/* ---- sums ---- */

static struct input_sums *sums_at(const struct embedding_inputs *e, int l, enum layer_matrix m)
{
    int i = 0;
    while (i < N_INPUTS && m >= first_matrices[i + 1])
        i++;
    return i < N_INPUTS ? &e->sums[l * N_INPUTS + i] : NULL;
}

static void free_sums(struct embedding_inputs *e)
{
    for (int i = e->begin * N_INPUTS; i < e->end * N_INPUTS; i++) {
        free(e->sums[i].h);
        e->sums[i].h = NULL;
    }
    e->begin = e->end;
}

static size_t layer_bytes(const struct embedding_inputs *e, int l)
{
    size_t n = 0;
    for (int i = 0; i < N_INPUTS; i++) {
        const size_t n_in = (size_t)e->sums[l * N_INPUTS + i].n_in;
        n += n_in * n_in * sizeof(float);
    }
    return n;
}

/* Allocate the sums of layer l and as many of the next ones as fit. */
static quip_status open_sums(struct embedding_inputs *e, int l, quip_error *error)
{
    size_t n_bytes = 0;
    free_sums(e);
    e->begin = e->end = l;
    while (e->end < e->model->config.n_layers &&
           (e->end == l || n_bytes + layer_bytes(e, e->end) <= SUMS_BYTES))
        n_bytes += layer_bytes(e, e->end++);
    for (int i = e->begin * N_INPUTS; i < e->end * N_INPUTS; i++) {
        const size_t n = (size_t)e->sums[i].n_in * (size_t)e->sums[i].n_in;
        if (n > 0 && !(e->sums[i].h = calloc(n, sizeof(float))))
            return qp_fail_memory(error, "the inputs of a matrix", n * sizeof(float));
    }
    return QUIP_OK;
}

static void add_rows(struct input_sums *s, const float *rows, int n_rows)
{
    const size_t n = (size_t)s->n_in;
    for (size_t i = 0; i < n; i++)
        for (int t = 0; t < n_rows; t++) {
            const float *x = rows + (size_t)t * n;
            float *h = s->h + i * n;
            for (size_t j = 0; j <= i; j++)
                h[j] += x[i] * x[j];
        }
}

static quip_status observe_input(void *user, struct device *device, struct matrix_set w,
                                 enum buffer in, int n_rows)
{
    const struct embedding_inputs *e = user;
    const struct backend *b = device->backend;
    struct input_sums *s = w.l >= e->begin && w.l < e->end ? sums_at(e, w.l, w.first) : NULL;
    if (!s || !s->h)
        return QUIP_OK;
    assert(n_rows <= PREFILL_CHUNK);
    quip_status status = b->submit(device);
    if (!status)
        status = b->poll(device, true);
    if (!status)
        status = b->read(device, in, e->rows, n_rows);
    if (status)
        return status;
    for (int t = 0; t < n_rows; t++)
        qp_mix_row(e->rows + (size_t)t * (size_t)s->n_in, s->n_in);
    add_rows(s, e->rows, n_rows);
    return QUIP_OK;
}

/* ---- texts ---- */

/* The token of text i: the first from its place in the vocabulary on that text can have. */
static quip_token token_of_text(const quip_model *m, int i)
{
    const int vocab_size = m->config.vocab_size;
    const int first = (int)((int64_t)vocab_size * i / N_TEXTS);
    for (int id = first; id < vocab_size; id++)
        if (qp_tokenizer_piece_type(m->tokenizer, id) == PIECE_NORMAL)
            return id;
    return first;
}

/* Text i: tokens of the vocabulary between those that are around every text, as many as fit. */
static quip_embed_input make_text(const quip_model *m, int i, quip_token *tokens)
{
    static const int lengths[] = { 1, 1, 1, 1, 2, 2, 4, MAX_TOKENS };
    const struct embedding *has = &m->embedding;
    const int most = m->config.n_context_max > 0 ? m->config.n_context_max : MAX_EMBED_TOKENS;
    const int n_tokens = lengths[(size_t)i % QP_COUNT(lengths)];
    int n = 0;
    for (int k = 0; k < has->n_begin; k++)
        tokens[n++] = has->begin[k];
    for (int k = 0; k < n_tokens && (k == 0 || n + has->n_end < most); k++)
        tokens[n++] = token_of_text(m, (i + k * STRIDE) % N_TEXTS);
    for (int k = 0; k < has->n_end; k++)
        tokens[n++] = has->end[k];
    return (quip_embed_input){ .tokens = tokens, .n_tokens = n };
}

static quip_status run_texts(struct embedding_inputs *e, quip_error *error)
{
    const struct observer observer = { observe_input, e };
    const quip_model *m = e->model;
    const size_t capacity =
        (size_t)EMBED_TEXTS *
        (size_t)qp_pooled_width(&m->weights, m->config.d_model, m->weights.n_dense);
    float *embeddings = malloc(capacity * sizeof *embeddings);
    quip_status status =
        embeddings ? QUIP_OK : qp_fail_memory(error, "embeddings", capacity * sizeof *embeddings);
    for (int i = 0; i < N_TEXTS && !status; i += EMBED_TEXTS) {
        quip_embed_input inputs[EMBED_TEXTS];
        for (int k = 0; k < EMBED_TEXTS; k++)
            inputs[k] = make_text(m, i + k, e->tokens[k]);
        status =
            qp_embed(e->model, inputs, EMBED_TEXTS, NULL, &observer, embeddings, capacity, error);
    }
    free(embeddings);
    return status;
}

/* ---- open, find, close ---- */

quip_status qp_embedding_inputs_open(struct embedding_inputs **inputs, const char *in,
                                     const char *out, const struct convert_options *options,
                                     quip_error *error)
{
    struct embedding_inputs *e = *inputs = calloc(1, sizeof *e);
    if (!e)
        return qp_fail_memory(error, "the inputs of a model", sizeof *e);
    struct convert_options o = qp_conversion_reading(options);
    const quip_status status = qp_conversion_open_floats(&e->model, in, out, &o, error);
    if (status)
        return status;
    const struct weights *w = &e->model->weights;
    const int n_layers = e->model->config.n_layers;
    size_t widest = 1;
    if (!(e->sums = calloc((size_t)n_layers * N_INPUTS, sizeof *e->sums)))
        return qp_fail_memory(error, "the inputs of a model", (size_t)n_layers);
    for (int l = 0; l < n_layers; l++)
        for (int m = 0; m <= MATRIX_DOWN; m++) {
            const struct matrix *matrix = &w->layers[l].m[m];
            if (matrix->data)
                sums_at(e, l, (enum layer_matrix)m)->n_in = matrix->n_in;
            widest = matrix->data && (size_t)matrix->n_in > widest ? (size_t)matrix->n_in : widest;
        }
    e->rows = malloc(PREFILL_CHUNK * widest * sizeof *e->rows);
    return e->rows ? QUIP_OK : qp_fail_memory(error, "the inputs of a model", widest);
}

/* Run the texts for layer l, and make the factors of their inputs. */
static quip_status run_layers(struct embedding_inputs *e, int l, quip_error *error)
{
    quip_status status = open_sums(e, l, error);
    if (!status)
        status = run_texts(e, error);
    for (int i = e->begin * N_INPUTS; i < e->end * N_INPUTS && !status; i++)
        e->sums[i].is_finite = e->sums[i].h && qp_rounding_factor(e->sums[i].h, e->sums[i].n_in);
    return status;
}

quip_status qp_embedding_inputs_find(struct embedding_inputs *e, const char *name,
                                     const float **factor, quip_error *error)
{
    const struct weights *w = &e->model->weights;
    *factor = NULL;
    for (int l = 0; l < e->model->config.n_layers; l++)
        for (int m = 0; m <= MATRIX_DOWN; m++) {
            const struct matrix *matrix = &w->layers[l].m[m];
            if (!matrix->data || strcmp(matrix->name, name) != 0)
                continue;
            const bool is_ready = l >= e->begin && l < e->end;
            const quip_status status = is_ready ? QUIP_OK : run_layers(e, l, error);
            const struct input_sums *s = sums_at(e, l, (enum layer_matrix)m);
            *factor = !status && s->is_finite ? s->h : NULL;
            return status;
        }
    return QUIP_OK;
}

void qp_embedding_inputs_close(struct embedding_inputs *e)
{
    if (!e)
        return;
    if (e->sums)
        free_sums(e);
    free(e->sums);
    free(e->rows);
    quip_model_close(e->model);
    free(e);
}
