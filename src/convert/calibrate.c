/* calibrate.c: the importance of each column of a matrix: the mean square of the activations that
 * it is multiplied by while the model reads a text.
 * In:  a model, a text.
 * Out: for each matrix [n_in] floats, the importance of its columns (quantize_block.c).
 *
 * A session runs the text; its observer reads the input of every product from the backend. */
#include "convert/calibrate.h"
#include "engine/engine.h"
#include "model/matrix.h"
#include "model/model.h"
#include "tokenizer/tokenizer.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    WINDOW_TOKENS = 512,
    MAX_WINDOWS = 16
};

struct column_sums {
    const char *name; // of the matrix
    float *squares;   // [n_in]
    int n_in;
};
struct calibration {
    struct column_sums *matrices;
    int n_matrices;
    float *rows; // [WINDOW_TOKENS, widest n_in] input of a product
    const struct convert_options *options;
    uint64_t n_done, n_total; // tokens
};

static struct column_sums *find_sums(const struct calibration *c, const char *name)
{
    for (int i = 0; i < c->n_matrices; i++)
        if (strcmp(c->matrices[i].name, name) == 0)
            return &c->matrices[i];
    return NULL;
}

/* ---- observe ---- */

static void add_squares(const struct calibration *c, const struct matrix *w, int n_rows)
{
    struct column_sums *sums = w->data ? find_sums(c, w->name) : NULL;
    assert(n_rows > 0 && n_rows <= WINDOW_TOKENS);
    assert(!sums || sums->n_in == w->n_in);
    const float *x = c->rows;
    for (int t = 0; sums && t < n_rows; t++, x += sums->n_in)
        for (int i = 0; i < sums->n_in; i++)
            sums->squares[i] += x[i] * x[i];
}

static quip_status observe_input(void *user, struct device *device, struct matrix_set w,
                                 enum buffer in, int n_rows)
{
    const struct calibration *c = user;
    const struct backend *b = device->backend;
    const struct weights *weights = device->weights;
    quip_status status = b->submit(device);
    if (!status)
        status = b->poll(device, true);
    if (!status)
        status = b->read(device, in, c->rows, n_rows);
    for (int i = 0; i < w.n && !status; i++)
        add_squares(c,
                    w.l == device->config->n_layers
                        ? &weights->head
                        : &weights->layers[w.l].m[w.first + (unsigned)i],
                    n_rows);
    return status;
}

/* ---- reading the text ---- */

/* Counts tokens. The callback makes the model run its head for every token. False: stop. */
static bool count_token(void *user, int position, const float *logits)
{
    struct calibration *c = user;
    const struct convert_options *o = c->options;
    (void)position, (void)logits;
    c->n_done++;
    return !o->on_progress || o->on_progress(o->user, c->n_done, c->n_total, o->calibrate);
}

static quip_status read_windows(struct calibration *c, quip_session *session,
                                const quip_token *tokens, int n, quip_error *error)
{
    const struct observer observer = { observe_input, c };
    quip_status status = QUIP_OK;
    session->observer = &observer;
    n = n < MAX_WINDOWS * WINDOW_TOKENS ? n : MAX_WINDOWS * WINDOW_TOKENS;
    c->n_total = (uint64_t)n;
    for (int at = 0; at < n && !status; at += WINDOW_TOKENS) {
        const int left = n - at;
        status = quip_session_rewind(session, 0, error);
        if (!status)
            status = quip_session_prefill_logits(session, tokens + at,
                                                 left < WINDOW_TOKENS ? left : WINDOW_TOKENS,
                                                 count_token, c, error);
    }
    session->observer = NULL;
    return status;
}

static quip_status read_text(struct calibration *c, quip_model *model, quip_error *error)
{
    const char *path = c->options->calibrate;
    struct file file = { 0 };
    quip_session *session = NULL;
    quip_token *tokens = NULL;
    int n = 0;
    quip_status status = qp_file_open(&file, path, error);
    if (!status && !file.data)
        status = qp_file_load(&file, error);
    const char *text = (const char *)file.data;
    if (!status)
        status = quip_tokenize(model, text, (size_t)file.size, false, NULL, 0, &n, error);
    if (!status && !(tokens = malloc(((size_t)n + 1) * sizeof *tokens)))
        status = qp_fail_memory(error, path, (size_t)n * sizeof *tokens);
    if (!status)
        status = quip_tokenize(model, text, (size_t)file.size, false, tokens, n, &n, error);
    if (!status && n == 0)
        status = qp_fail(error, QUIP_E_FORMAT, "%s: has no text to calibrate with", path);
    const quip_session_options options = { .n_context = WINDOW_TOKENS };
    if (!status)
        status = quip_session_open(&session, model, &options, error);
    if (!status)
        status = read_windows(c, session, tokens, n, error);
    quip_session_close(session);
    free(tokens);
    qp_file_close(&file);
    return status;
}

/* ---- from sums to importance ---- */

/* Importance relative to the mean. Columns that the text does not use keep a small importance. Rows
 * of the embedding are also looked up, which uses all columns equally. */
static void finish_sums(struct column_sums *s, bool is_embedding)
{
    assert(s->n_in > 0);
    double sum = 0;
    for (int i = 0; i < s->n_in; i++)
        sum += (double)s->squares[i];
    const float mean = (float)(sum / s->n_in), least = is_embedding ? 1.0f : 0.02f;
    for (int i = 0; i < s->n_in; i++)
        s->squares[i] = mean > 0 ? s->squares[i] / mean + least : 1;
}

/* Allocate the sums of every matrix of the model. */
static quip_status open_sums(struct calibration *c, quip_model *model, quip_error *error)
{
    const struct format *f = &model->format;
    int widest = 1;
    c->matrices = calloc((size_t)f->n_tensors, sizeof *c->matrices);
    if (!c->matrices)
        return qp_fail_memory(error, "the calibration", (size_t)f->n_tensors);
    for (int i = 0; i < f->n_tensors; i++) {
        const struct matrix *m = qp_weights_find(model, f->tensors[i].name);
        if (!m)
            continue;
        struct column_sums *s = &c->matrices[c->n_matrices++];
        *s = (struct column_sums){ m->name, calloc((size_t)m->n_in, sizeof(float)), m->n_in };
        if (!s->squares)
            return qp_fail_memory(error, m->name, (size_t)m->n_in * sizeof(float));
        widest = m->n_in > widest ? m->n_in : widest;
    }
    c->rows = calloc((size_t)WINDOW_TOKENS * (size_t)widest, sizeof *c->rows);
    return c->rows ? QUIP_OK : qp_fail_memory(error, "the calibration", (size_t)widest);
}

quip_status qp_calibrate(struct calibration **calibration, quip_model *model,
                         const struct convert_options *options, quip_error *error)
{
    struct calibration *c = calloc(1, sizeof *c);
    *calibration = c;
    if (!c)
        return qp_fail_memory(error, "the calibration", sizeof *c);
    c->options = options;
    quip_status status = open_sums(c, model, error);
    if (!status)
        status = read_text(c, model, error);
    for (int i = 0; i < c->n_matrices && !status; i++)
        finish_sums(&c->matrices[i], strcmp(c->matrices[i].name, model->weights.embed.name) == 0);
    return status;
}

const float *qp_calibration_find(const struct calibration *c, const char *name)
{
    const struct column_sums *s = c ? find_sums(c, name) : NULL;
    return s ? s->squares : NULL;
}

void qp_calibration_close(struct calibration *c)
{
    for (int i = 0; c && i < c->n_matrices; i++)
        free(c->matrices[i].squares);
    if (c) {
        free(c->matrices);
        free(c->rows);
    }
    free(c);
}
