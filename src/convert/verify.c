/* verify.c: how far a model file is from its source.
 * In:  a model file or a checkpoint; a model file made from it; optionally a text.
 * Out: for every tensor of the second file, its distance from the first; for the text, the distance
 *      of the predictions.
 *
 * Tensors are compared in slabs. For the text both models run; a checkpoint is converted to a
 * temporary float32 file for this. */
#include "convert/verify.h"
#include "convert/conversion.h"
#include "convert/rows.h"
#include "format/tflite_writer.h"
#include "model/model.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    SLAB_ROWS = 64,
    DEFAULT_WINDOW = 512,
    DEFAULT_WINDOWS = 4
};

/* The source: a model, or a checkpoint with its plan. */
struct verify_side {
    quip_model *model;
    struct checkpoint checkpoint;
    struct hparams hparams;
    struct plan plan;
    struct lora_merge *merge;
    struct row_reader rows;
};

struct verifier {
    const char *a, *b; // paths
    const struct verify_options *options;
    struct convert_options reading; // how a checkpoint is read
    quip_error *error;
    struct verify_side first;
    quip_model *second;
    float *expected, *found; // SLAB_ROWS rows of the widest tensor
    struct verify_report *report;
    double error_sum, square_sum; // over all matrices
};

/* ---- the first side ---- */

static quip_status open_first_checkpoint(struct verifier *v)
{
    struct verify_side *s = &v->first;
    const struct convert_options *o = &v->reading;
    quip_status status = qp_checkpoint_open(&s->checkpoint, v->a, o, v->error);
    if (!status)
        status = s->checkpoint.is_gguf ? qp_hparams_from_gguf(&s->hparams, &s->checkpoint, v->error)
                                       : qp_hparams_from_hf(&s->hparams, &s->checkpoint, v->error);
    if (!status)
        status = qp_plan_make(&s->plan, &s->checkpoint, &s->hparams, o, v->error);
    if (!status && o->merge_adapter)
        status = qp_lora_merge_open(&s->merge, o->merge_adapter, &s->plan, &s->hparams, v->error);
    return status
               ? status
               : qp_rows_open(&s->rows, &s->checkpoint, &s->hparams, &s->plan, s->merge, v->error);
}

static void close_first(struct verify_side *s)
{
    qp_rows_close(&s->rows);
    qp_lora_merge_close(s->merge);
    qp_plan_close(&s->plan);
    qp_checkpoint_close(&s->checkpoint);
    quip_model_close(s->model);
}

/* ---- one tensor ---- */

/* A tensor on either side, by its name in files for CPUs. */
struct verify_source {
    const struct matrix *matrix; // of a model
    const float *vector;
    bool is_mixed;         // rows of the matrix are mixed, and become as they were before
    const struct job *job; // of a checkpoint
    int64_t rows, cols;
};

/* In files for GPUs, the norm before the feed-forward of models with LayerNorm has another name. */
static void name_for_cpu(char *to, size_t size, const quip_model *m, const char *name)
{
    const char *at = m->config.norm == NORM_LAYER ? strstr(name, ".post_layer_norm.") : NULL;
    if (at)
        snprintf(to, size, "%.*s.ff_layer.pre_layer_norm.%s", (int)(at - name), name,
                 at + strlen(".post_layer_norm."));
    else
        snprintf(to, size, "%s", name);
}

static quip_status source_in_model(quip_model *m, const struct tensor *t, struct verify_source *s,
                                   quip_error *error)
{
    const uint8_t *data;
    *s = (struct verify_source){ .matrix = qp_weights_find(m, t->name) };
    if (s->matrix) {
        s->is_mixed = m->config.mixes_inputs && strstr(t->name, ".x_layers_");
        s->rows = s->matrix->n_out;
        s->cols = s->matrix->n_in;
        return QUIP_OK;
    }
    if (t->dtype != DTYPE_F32)
        return qp_fail(error, QUIP_E_UNSUPPORTED, "%s is %s, expected a matrix of the model or F32",
                       t->name, qp_dtype_name(t->dtype));
    const bool is_positions = m->config.has_positions && strstr(t->name, "position_embedding.w");
    s->rows = is_positions ? m->config.n_context_max : 1;
    s->cols = (int64_t)(t->n_bytes / sizeof(float)) / s->rows;
    quip_status status = qp_format_tensor_bytes(&m->format, t, &data, error);
    s->vector = status ? NULL : (const float *)(const void *)data;
    return status;
}

/* The tensor of this name in the model, whichever its layout; NULL when there is none. */
static const struct tensor *find_for_cpu(const quip_model *m, const char *name)
{
    char found[256];
    const struct tensor *t = qp_format_find(&m->format, name);
    for (int i = 0; i < m->format.n_tensors && !t; i++) {
        name_for_cpu(found, sizeof found, m, m->format.tensors[i].name);
        if (strcmp(found, name) == 0)
            t = &m->format.tensors[i];
    }
    return t;
}

static quip_status source_in_first(struct verifier *v, const char *name, struct verify_source *s)
{
    struct verify_side *first = &v->first;
    *s = (struct verify_source){ 0 };
    if (first->model) {
        const struct tensor *t = find_for_cpu(first->model, name);
        return t ? source_in_model(first->model, t, s, v->error)
                 : qp_fail(v->error, QUIP_E_FORMAT, "%s: has no tensor %s, expected as in %s", v->a,
                           name, v->b);
    }
    for (int i = 0; i < first->plan.n_jobs; i++) {
        const struct job *job = &first->plan.jobs[i];
        char target[256] = "params.lm.";
        snprintf(target + strlen(target), sizeof target - strlen(target), job->row->target,
                 job->layer);
        if (strcmp(target, name) == 0) {
            *s = (struct verify_source){ .job = job,
                                         .rows = job->stored.rows,
                                         .cols = job->stored.cols };
            return QUIP_OK;
        }
    }
    return qp_fail(v->error, QUIP_E_FORMAT, "%s: has no source for %s of %s", v->a, name, v->b);
}

/* Rows [begin, begin + n) of a model's tensor. */
static const float *rows_of_model(const struct verify_source *s, int64_t begin, int64_t n,
                                  float *buffer)
{
    assert(begin >= 0 && n >= 0 && begin + n <= s->rows);
    if (s->vector)
        return s->vector + begin * s->cols;
    for (int64_t r = 0; r < n; r++) {
        qp_matrix_read_row(s->matrix, (int)(begin + r), buffer + r * s->cols);
        if (s->is_mixed)
            qp_mix_row(buffer + r * s->cols, (int)s->cols);
    }
    return buffer;
}

/* Sums over a tensor. */
struct verify_sums {
    double error, expected, found, product, max;
};

static void add_values(struct verify_sums *sums, const float *expected, const float *found,
                       int64_t n)
{
    assert(n >= 0);
    for (int64_t i = 0; i < n; i++) {
        const double w = (double)expected[i], f = (double)found[i], off = f - w;
        if (w == f && off != 0) // both are infinite: a dimension that does not rotate
            continue;
        sums->error += off * off;
        sums->expected += w * w;
        sums->found += f * f;
        sums->product += w * f;
        sums->max = fabs(off) > sums->max ? fabs(off) : sums->max;
    }
}

static quip_status compare_rows(struct verifier *v, const struct verify_source *a,
                                const struct verify_source *b, struct verify_sums *sums)
{
    quip_status status = QUIP_OK;
    const int64_t step = a->job ? qp_rows_at_a_time(a->job) : SLAB_ROWS;
    for (int64_t begin = 0; begin < b->rows && !status; begin += step) {
        const int64_t n = b->rows - begin < step ? b->rows - begin : step;
        const float *expected = v->expected;
        if (a->job)
            status = qp_rows_read(&v->first.rows, a->job, begin, n, &expected, v->error);
        else
            expected = rows_of_model(a, begin, n, v->expected);
        for (int64_t r = 0; r < n && !status; r += SLAB_ROWS) {
            const int64_t m = n - r < SLAB_ROWS ? n - r : SLAB_ROWS;
            add_values(sums, expected + r * b->cols, rows_of_model(b, begin + r, m, v->found),
                       m * b->cols);
        }
    }
    return status;
}

static quip_status compare_tensor(struct verifier *v, const struct tensor *t)
{
    struct verify_source a, b;
    struct verify_tensor *to = &v->report->tensors[v->report->n_tensors];
    char name[256];
    struct verify_sums sums = { 0 };
    name_for_cpu(name, sizeof name, v->second, t->name);
    quip_status status = source_in_model(v->second, t, &b, v->error);
    if (!status)
        status = source_in_first(v, name, &a);
    if (!status && (a.rows != b.rows || a.cols != b.cols))
        status = qp_fail(v->error, QUIP_E_FORMAT, "%s is [%lld, %lld] in %s, [%lld, %lld] in %s",
                         name, (long long)a.rows, (long long)a.cols, v->a, (long long)b.rows,
                         (long long)b.cols, v->b);
    if (!status)
        status = compare_rows(v, &a, &b, &sums);
    if (status)
        return status;
    *to = (struct verify_tensor){
        .rows = b.rows,
        .cols = b.cols,
        .max = sums.max,
        .rms = sqrt(sums.error / ((double)b.rows * (double)b.cols)),
        .relative = sums.expected > 0 ? sqrt(sums.error / sums.expected) : sums.error > 0,
        .cosine = sums.expected > 0 && sums.found > 0
                      ? sums.product / sqrt(sums.expected * sums.found)
                      : sums.expected == sums.found,
    };
    snprintf(to->name, sizeof to->name, "%s", name);
    v->report->n_tensors++;
    if (b.matrix) {
        v->error_sum += sums.error;
        v->square_sum += sums.expected;
    }
    return QUIP_OK;
}

/* ---- all tensors ---- */

static quip_status reserve_rows(struct verifier *v)
{
    const struct format *f = &v->second->format;
    int64_t widest = v->second->config.d_model; // of the learned positions
    for (int i = 0; i < f->n_tensors; i++) {
        const struct matrix *m = qp_weights_find(v->second, f->tensors[i].name);
        widest = m && m->n_in > widest ? m->n_in : widest;
    }
    const size_t n_bytes = (size_t)widest * SLAB_ROWS * sizeof(float);
    v->expected = malloc(n_bytes);
    v->found = malloc(n_bytes);
    v->report->tensors = calloc((size_t)v->second->format.n_tensors, sizeof *v->report->tensors);
    if (!v->expected || !v->found || !v->report->tensors)
        return qp_fail_memory(v->error, "rows to compare", n_bytes);
    return QUIP_OK;
}

/* Tensors that are compared with their matrix, and dense layers, which are copied as they are. */
static bool is_left_out(const char *name)
{
    return qp_is_companion(name) || strstr(name, ".embedding.dense_");
}

static quip_status compare_all(struct verifier *v)
{
    const struct format *f = &v->second->format;
    const struct verify_options *o = v->options;
    quip_status status = reserve_rows(v);
    for (int i = 0; i < f->n_tensors && !status; i++) {
        if (is_left_out(f->tensors[i].name))
            continue;
        status = compare_tensor(v, &f->tensors[i]);
        if (!status && o->on_progress &&
            !o->on_progress(o->user, (uint64_t)i + 1, (uint64_t)f->n_tensors, f->tensors[i].name))
            status = qp_fail(v->error, QUIP_E_CANCELLED, "the comparison was stopped");
    }
    v->report->relative = v->square_sum > 0 ? sqrt(v->error_sum / v->square_sum) : 0;
    return status;
}

/* ---- the text ---- */

/* Predictions of the first model over one window, kept until the second has its own. */
struct verify_text {
    struct verifier *v;
    float *logits; // [n, vocab_size]
    int vocab_size, n;
    uint64_t n_done, n_total; // positions, of both models
    double kl_sum;
};

/* Count a position. False: stop. */
static bool count_position(struct verify_text *t)
{
    const struct verify_options *o = t->v->options;
    t->n_done++;
    return !o->on_progress || o->on_progress(o->user, t->n_done, t->n_total, o->text);
}

static bool keep_logits(void *user, int position, const float *logits)
{
    struct verify_text *t = user;
    memcpy(t->logits + (size_t)position * (size_t)t->vocab_size, logits,
           (size_t)t->vocab_size * sizeof *logits);
    return count_position(t);
}

/* log(sum(exp(x))), and where the largest is. */
static double log_sum(const float *x, int n, int *best)
{
    double sum = 0;
    *best = 0;
    for (int i = 1; i < n; i++)
        *best = x[i] > x[*best] ? i : *best;
    for (int i = 0; i < n; i++)
        sum += exp((double)x[i] - (double)x[*best]);
    return log(sum) + (double)x[*best];
}

/* KL(first || second), in nats, and whether both predict the same token. */
static bool compare_logits(void *user, int position, const float *logits)
{
    struct verify_text *t = user;
    struct verify_report *report = t->v->report;
    const float *expected = t->logits + (size_t)position * (size_t)t->vocab_size;
    int best, expected_best;
    const double sum = log_sum(logits, t->vocab_size, &best);
    const double expected_sum = log_sum(expected, t->vocab_size, &expected_best);
    double kl = 0;
    for (int i = 0; i < t->vocab_size; i++) {
        const double p = (double)expected[i] - expected_sum;
        kl += exp(p) * (p - ((double)logits[i] - sum));
    }
    t->kl_sum += kl;
    report->max_kl = kl > report->max_kl ? kl : report->max_kl;
    report->n_same += best == expected_best;
    report->n_tokens++;
    return count_position(t);
}

static quip_status run_window(quip_session *sessions[2], struct verify_text *t,
                              const quip_token *tokens, quip_error *error)
{
    quip_status status = QUIP_OK;
    for (int i = 0; i < 2 && !status; i++) {
        status = quip_session_rewind(sessions[i], 0, error);
        if (!status)
            status = quip_session_prefill_logits(sessions[i], tokens, t->n,
                                                 i == 0 ? keep_logits : compare_logits, t, error);
    }
    return status;
}

/* The text's tokens, with space for one token before them. */
static quip_status read_tokens(struct verifier *v, quip_token **tokens, int *n)
{
    struct file file;
    quip_status status = qp_file_open(&file, v->options->text, v->error);
    if (status)
        return status;
    const char *text = (const char *)file.data;
    status = quip_tokenize(v->second, text, (size_t)file.size, false, NULL, 0, n, v->error);
    if (!status && !(*tokens = malloc(((size_t)*n + 1) * sizeof **tokens)))
        status = qp_fail_memory(v->error, "the text's tokens", (size_t)*n * sizeof **tokens);
    if (!status)
        status =
            quip_tokenize(v->second, text, (size_t)file.size, false, *tokens + 1, *n, n, v->error);
    qp_file_close(&file);
    return status;
}

/* Windows of the text, each with the beginning-of-sequence token in front if the model has one. */
static quip_status compare_windows(struct verifier *v, quip_session *sessions[2],
                                   quip_token *tokens, int n_tokens)
{
    const struct config *c = &v->second->config;
    const int n_bos = c->bos >= 0;
    const int expected = v->options->window ? v->options->window : DEFAULT_WINDOW;
    const int max = v->options->n_windows ? v->options->n_windows : DEFAULT_WINDOWS;
    struct verify_text t = { .v = v, .vocab_size = c->vocab_size };
    t.n = n_tokens + n_bos < expected ? n_tokens + n_bos : expected;
    if (t.n < 2)
        return qp_fail(v->error, QUIP_E_FORMAT, "%s: has too few tokens", v->options->text);
    t.logits = malloc((size_t)t.n * (size_t)t.vocab_size * sizeof *t.logits);
    if (!t.logits)
        return qp_fail_memory(v->error, "logits", (size_t)t.n * (size_t)t.vocab_size * 4);
    const int n_text = t.n - n_bos;
    const int n_windows = n_tokens / n_text < max ? n_tokens / n_text : max;
    quip_status status = QUIP_OK;
    t.n_total = 2 * (uint64_t)n_windows * (uint64_t)t.n;
    for (int w = 0; w < n_windows && !status; w++) {
        quip_token *window = tokens + 1 - n_bos + w * n_text;
        if (n_bos)
            window[0] = c->bos; // overwrites a token of the window before
        status = run_window(sessions, &t, window, v->error);
    }
    free(t.logits);
    v->report->mean_kl = v->report->n_tokens ? t.kl_sum / v->report->n_tokens : 0;
    return status;
}

static quip_status open_reference(struct verifier *v, quip_model **model)
{
    struct convert_options o = v->reading;
    o.on_progress = v->options->on_progress;
    o.user = v->options->user;
    return qp_conversion_open_floats(model, v->a, v->b, &o, v->error);
}

static quip_status compare_text(struct verifier *v)
{
    quip_model *reference = v->first.model, *made = NULL;
    quip_session *sessions[2] = { NULL, NULL };
    quip_token *tokens = NULL;
    int n_tokens = 0;
    const quip_session_options options = { .n_context = v->options->window ? v->options->window
                                                                           : DEFAULT_WINDOW };
    quip_status status = reference ? QUIP_OK : open_reference(v, &made);
    reference = reference ? reference : made;
    if (!status && reference->config.vocab_size != v->second->config.vocab_size)
        status =
            qp_fail(v->error, QUIP_E_FORMAT, "%s and %s have different vocabularies", v->a, v->b);
    if (!status)
        status = read_tokens(v, &tokens, &n_tokens);
    if (!status)
        status = quip_session_open(&sessions[0], reference, &options, v->error);
    if (!status)
        status = quip_session_open(&sessions[1], v->second, &options, v->error);
    if (!status)
        status = compare_windows(v, sessions, tokens, n_tokens);
    free(tokens);
    quip_session_close(sessions[0]);
    quip_session_close(sessions[1]);
    quip_model_close(made);
    return status;
}

/* Check before the work that the text can be read. NULL: there is none. */
static quip_status check_text(const char *path, quip_error *error)
{
    struct file file = { 0 };
    const quip_status status = path ? qp_file_open(&file, path, error) : QUIP_OK;
    qp_file_close(&file);
    return status;
}

/* ---- all together ---- */

quip_status qp_verify(const char *a, const char *b, const struct verify_options *options,
                      struct verify_report *report, quip_error *error)
{
    static const struct verify_options defaults = { 0 };
    struct verifier v = {
        .a = a, .b = b, .options = options ? options : &defaults, .error = error, .report = report
    };
    *report = (struct verify_report){ 0 };
    if (v.options->reading)
        v.reading = *v.options->reading;
    v.reading = qp_conversion_reading(&v.reading);
    quip_status status = check_text(v.options->text, error);
    if (status)
        return status;
    status = qp_path_is_model_file(a)
                 ? quip_model_open(&v.first.model, a,
                                   &(quip_model_options){ .backend = QUIP_BACKEND_CPU }, error)
                 : open_first_checkpoint(&v);
    if (!status)
        status = quip_model_open(&v.second, b, &(quip_model_options){ .backend = QUIP_BACKEND_CPU },
                                 error);
    if (!status)
        status = compare_all(&v);
    if (!status && v.options->text)
        status = compare_text(&v);
    close_first(&v.first);
    quip_model_close(v.second);
    free(v.expected);
    free(v.found);
    if (status)
        qp_verify_report_close(report);
    return status;
}

void qp_verify_report_close(struct verify_report *report)
{
    free(report->tensors);
    *report = (struct verify_report){ 0 };
}

int qp_verify_summary(char *to, size_t size, const struct verify_report *r)
{
    const struct verify_tensor *worst = NULL;
    for (int i = 0; i < r->n_tensors; i++)
        if (!worst || r->tensors[i].relative > worst->relative)
            worst = &r->tensors[i];
    int n = snprintf(
        to, size, "tensors %d\nrelative_error %.6g\nworst_tensor %s\nworst_relative_error %.6g\n",
        r->n_tensors, r->relative, worst ? worst->name : "-", worst ? worst->relative : 0);
    if (r->n_tokens && n < (int)size)
        n += snprintf(to + n, size - (size_t)n,
                      "tokens %d\nmean_kl %.6g\nmax_kl %.6g\ntop1_agreement %.6g\n", r->n_tokens,
                      r->mean_kl, r->max_kl, (double)r->n_same / r->n_tokens);
    return n;
}

/* ---- in a conversion ---- */

enum {
    REPORT_BYTES = 1024
};
#define REPORT_NAME "quip.verify"

quip_status qp_verify_declare(struct tflite_writer *w, const struct convert_options *o,
                              quip_error *error)
{
    static const char space[REPORT_BYTES];
    if (!o->verify)
        return QUIP_OK;
    const quip_status status = check_text(o->verify_text, error);
    return status ? status : qp_tflite_writer_metadata(w, REPORT_NAME, space, sizeof space, error);
}

/* All bytes are written; only ask whether to continue. */
static bool pass_on(void *user, uint64_t done, uint64_t total, const char *what)
{
    const struct convert_options *o = user;
    (void)done;
    return !o->on_progress || o->on_progress(o->user, total, total, what);
}

quip_status qp_verify_written(struct tflite_writer *w, const char *in, const char *out,
                              const struct convert_options *o, quip_error *error)
{
    struct verify_report report;
    struct verify_options options = {
        .reading = o, .text = o->verify_text, .on_progress = pass_on, .user = (void *)o
    };
    char text[REPORT_BYTES];
    const size_t n = strlen(out) + sizeof ".part";
    if (!o->verify)
        return QUIP_OK;
    char *part = malloc(n); // its name until it is complete (out_file.c)
    if (!part)
        return qp_fail_memory(error, "a path", n);
    snprintf(part, n, "%s.part", out);
    quip_status status = qp_verify(in, part, &options, &report, error);
    free(part);
    if (status)
        return status;
    const int n_text = qp_verify_summary(text, sizeof text, &report);
    qp_verify_report_close(&report);
    return qp_tflite_writer_rewrite(
        w, REPORT_NAME, text, (size_t)(n_text < REPORT_BYTES ? n_text : REPORT_BYTES - 1), error);
}
