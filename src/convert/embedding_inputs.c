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
#include "convert/triangle.h"
#include "engine/engine.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    N_TEXTS = 320,  // a multiple of EMBED_TEXTS
    MAX_TOKENS = 8, // of a text, without its frame
    STRIDE = 67,    // in texts, between the tokens of one
    N_INPUTS = 4,
    ROWS_BYTES = 1 << 28 // for the layers of one pass, unless one layer needs more
};

/* The first matrix of each input of a layer. */
static const enum layer_matrix first_matrices[N_INPUTS + 1] = { MATRIX_Q, MATRIX_O, MATRIX_GATE,
                                                                MATRIX_DOWN, MATRIX_DOWN + 1 };

struct input {
    float *rows; // [n_rows, n_in] of all texts, or NULL
    int n_rows, n_in;
};

struct embedding_inputs {
    quip_model *model;
    struct pool *pool;
    struct input *inputs; // [n_layers * N_INPUTS]; only those of [begin, end) have rows
    int begin, end;       // layers
    int n_tokens;         // of all texts
    /* Of the inputs of one layer: the sums of x[i] * x[j], then the factor. */
    struct triangle triangles[N_INPUTS];
    bool is_finite[N_INPUTS];
    int layer; // whose triangles these are; -1: none
    quip_token tokens[EMBED_TEXTS][2 * MAX_TEXT_FRAME + MAX_TOKENS];
};

/* ---- rows ---- */

/* Which input of a layer the matrix has; N_INPUTS: none of them. */
static int input_of(enum layer_matrix m)
{
    int i = 0;
    while (i < N_INPUTS && m >= first_matrices[i + 1])
        i++;
    return i;
}

static struct input *inputs_at(const struct embedding_inputs *e, int l)
{
    return &e->inputs[l * N_INPUTS];
}

static void free_rows(struct embedding_inputs *e)
{
    for (struct input *i = inputs_at(e, e->begin); i < inputs_at(e, e->end); i++) {
        free(i->rows);
        i->rows = NULL;
    }
    e->begin = e->end;
}

static size_t row_bytes(const struct embedding_inputs *e, int l)
{
    size_t n = 0;
    for (int i = 0; i < N_INPUTS; i++)
        n += (size_t)inputs_at(e, l)[i].n_in * sizeof(float);
    return n * (size_t)e->n_tokens;
}

/* Allocate the rows of layer l and of as many of the next ones as fit. */
static quip_status open_rows(struct embedding_inputs *e, int l, quip_error *error)
{
    size_t n_bytes = 0;
    free_rows(e);
    e->begin = e->end = l;
    while (e->end < e->model->config.n_layers &&
           (e->end == l || n_bytes + row_bytes(e, e->end) <= ROWS_BYTES))
        n_bytes += row_bytes(e, e->end++);
    for (struct input *i = inputs_at(e, e->begin); i < inputs_at(e, e->end); i++) {
        const size_t n = (size_t)e->n_tokens * (size_t)i->n_in;
        i->n_rows = 0;
        if (n > 0 && !(i->rows = malloc(n * sizeof *i->rows)))
            return qp_fail_memory(error, "the inputs of a matrix", n * sizeof *i->rows);
    }
    return QUIP_OK;
}

static quip_status observe_input(void *user, struct device *device, struct matrix_set w,
                                 enum buffer in, int n_rows)
{
    const struct embedding_inputs *e = user;
    const struct backend *b = device->backend;
    const int i = w.l >= e->begin && w.l < e->end ? input_of(w.first) : N_INPUTS;
    struct input *input = i < N_INPUTS ? &inputs_at(e, w.l)[i] : NULL;
    if (!input || !input->rows)
        return QUIP_OK;
    assert(input->n_rows + n_rows <= e->n_tokens);
    const size_t n_in = (size_t)input->n_in;
    float *rows = input->rows + (size_t)input->n_rows * n_in;
    quip_status status = b->submit(device);
    if (!status)
        status = b->poll(device, true);
    if (!status)
        status = b->read(device, in, rows, n_rows);
    if (status)
        return status;
    for (int t = 0; t < n_rows; t++)
        qp_mix_row(rows + (size_t)t * n_in, input->n_in);
    input->n_rows += n_rows;
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

static int count_tokens(const quip_model *m)
{
    quip_token tokens[2 * MAX_TEXT_FRAME + MAX_TOKENS];
    int n = 0;
    for (int i = 0; i < N_TEXTS; i++)
        n += make_text(m, i, tokens).n_tokens;
    return n;
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
    if (!(e->inputs = calloc((size_t)n_layers * N_INPUTS, sizeof *e->inputs)))
        return qp_fail_memory(error, "the inputs of a model", (size_t)n_layers);
    for (int l = 0; l < n_layers; l++)
        for (int m = 0; m <= MATRIX_DOWN; m++)
            if (w->layers[l].m[m].data)
                inputs_at(e, l)[input_of((enum layer_matrix)m)].n_in = w->layers[l].m[m].n_in;
    e->layer = -1;
    e->n_tokens = count_tokens(e->model);
    return qp_pool_open(&e->pool, 0, false, error);
}

static void close_triangles(struct embedding_inputs *e)
{
    for (int i = 0; i < N_INPUTS; i++)
        qp_triangle_close(&e->triangles[i]);
    e->layer = -1;
}

/* The factor of input i of a layer whose rows are there. */
static quip_status make_factor(struct embedding_inputs *e, int l, int i, quip_error *error)
{
    const struct input *input = &inputs_at(e, l)[i];
    struct triangle *t = &e->triangles[i];
    if (e->layer != l)
        close_triangles(e);
    e->layer = l;
    if (t->h)
        return QUIP_OK;
    if (!qp_triangle_open(t, input->n_in, e->pool)) {
        qp_triangle_close(t);
        return qp_fail_memory(error, "the inputs of a matrix",
                              (size_t)input->n_in * (size_t)input->n_in * sizeof(float));
    }
    qp_triangle_add(t, input->rows, input->n_rows);
    e->is_finite[i] = qp_triangle_factor(t, ROUNDING_DAMPING);
    return QUIP_OK;
}

static quip_status find_factor(struct embedding_inputs *e, int l, int i, const float **factor,
                               quip_error *error)
{
    quip_status status = QUIP_OK;
    if (l < e->begin || l >= e->end) {
        status = open_rows(e, l, error);
        if (!status)
            status = run_texts(e, error);
    }
    if (!status)
        status = make_factor(e, l, i, error);
    *factor = !status && e->is_finite[i] ? e->triangles[i].h : NULL;
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
            if (matrix->data && strcmp(matrix->name, name) == 0)
                return find_factor(e, l, input_of((enum layer_matrix)m), factor, error);
        }
    return QUIP_OK;
}

void qp_embedding_inputs_close(struct embedding_inputs *e)
{
    if (!e)
        return;
    if (e->inputs)
        free_rows(e);
    close_triangles(e);
    free(e->inputs);
    qp_pool_close(e->pool);
    quip_model_close(e->model);
    free(e);
}
