/* requantize.c: a model file -> another, with weights of other types.
 * In:  a model file that runs here, in the layout for CPUs or for GPUs.
 * Out: one in the layout that the options ask for, with the metadata of the first.
 *
 * A matrix that keeps its type keeps its bytes. Any other matrix is dequantized and quantized
 * again. */
#include "convert/requantize.h"
#include "convert/calibrate.h"
#include "convert/store.h"
#include "format/tflite_writer.h"
#include "model/matrix.h"
#include "model/model.h"
#include "tokenizer/tokenizer.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct requantizer {
    const struct convert_options *options;
    quip_error *error;
    quip_model *model;
    struct calibration *calibration; // NULL: without
    struct tflite_writer *writer;    // borrowed
    struct stored *stored;           // [n_tensors]; no rows: left out
    int64_t slab_values;
    float *values;
    struct slab slab;
    uint64_t done_bytes, total_bytes;
};

static enum weight_class class_of(const struct matrix *m)
{
    return strstr(m->name, ".self_attention.") ? CLASS_ATTENTION
           : strstr(m->name, ".ff_layer.")     ? CLASS_FEED_FORWARD
                                               : CLASS_EMBEDDING;
}

/* Whether the integers can be copied. */
static bool is_kept(const struct matrix *m, const struct stored *s)
{
    return s->dtype != DTYPE_F32 && (enum dtype)m->dtype == s->dtype &&
           (m->zeros != NULL) == s->is_asymmetric;
}

/* ---- declare ---- */

/* How many rows to write at a time: whole tiles, in both layouts. */
static int64_t rows_of_slab(const struct requantizer *q, const struct matrix *m)
{
    const int64_t rows = q->slab_values / m->n_in / 4 * 4;
    return rows < m->n_out ? rows : m->n_out;
}

static quip_status declare_matrix(struct requantizer *q, struct stored *s, const struct matrix *m)
{
    *s = (struct stored){
        .source = m->name, .rows = m->n_out, .cols = m->n_in, .is_first = q->total_bytes == 0
    };
    qp_store_as(s, q->options, class_of(m));
    s->importance = qp_calibration_find(q->calibration, m->name);
    q->total_bytes += qp_stored_bytes(s);
    return qp_store_declare(q->writer, s, m->name, q->error);
}

/* Norms and biases. In files for GPUs their shape is the number of bytes. */
static quip_status declare_floats(struct requantizer *q, struct stored *s, const struct tensor *t)
{
    const bool is_layer_norm = q->model->config.norm == NORM_LAYER && !qp_ends_with(t->name, ".b");
    if (t->dtype != DTYPE_F32)
        return qp_fail(q->error, QUIP_E_UNSUPPORTED,
                       "%s is %s, expected a matrix of the model or F32", t->name,
                       qp_dtype_name(t->dtype));
    *s = (struct stored){ .source = t->name,
                          .rows = 1,
                          .cols = (int64_t)(t->n_bytes / sizeof(float)) };
    qp_store_as(s, q->options, CLASS_NORM);
    q->total_bytes += t->n_bytes;
    return qp_store_declare_vector(q->writer, s, t->name, is_layer_norm, q->error);
}

static quip_status declare_tensors(struct requantizer *q)
{
    const struct format *f = &q->model->format;
    quip_status status = QUIP_OK;
    for (int i = 0; i < f->n_tensors && !status; i++) {
        const struct tensor *t = &f->tensors[i];
        const struct matrix *m = qp_weights_find(q->model, t->name);
        if (m)
            status = declare_matrix(q, &q->stored[i], m);
        else if (!qp_is_companion(t->name))
            status = declare_floats(q, &q->stored[i], t);
    }
    return status;
}

static quip_status copy_metadata(struct requantizer *q)
{
    struct format *f = &q->model->format;
    quip_status status = QUIP_OK;
    for (int i = 0; i < f->n_metadata && !status; i++) {
        const struct metadata *m = &f->metadata[i];
        const uint8_t *data;
        size_t n;
        if (strcmp(m->name, "quip.verify") == 0) // of other weights
            continue;
        if (m->type == METADATA_INT)
            status = qp_tflite_writer_value(q->writer, m->name, (uint32_t)m->i, q->error);
        else if (strcmp(m->name, "backend") == 0)
            status = qp_tflite_writer_metadata(q->writer, m->name,
                                               q->options->for_gpu ? "gpu" : "cpu", 3, q->error);
        else if (!(status = qp_format_bytes(f, m, &data, &n, q->error)))
            status = qp_tflite_writer_metadata(q->writer, m->name, data, n, q->error);
    }
    return status;
}

/* ---- write ---- */

/* Rows [begin, begin + n) of a matrix. */
static quip_status write_rows(struct requantizer *q, const struct stored *s, const struct matrix *m,
                              int64_t begin, int64_t n)
{
    assert(begin >= 0 && n > 0 && begin + n <= m->n_out && n * m->n_in <= q->slab_values);
    if (is_kept(m, s)) {
        memcpy(q->slab.packed, qp_matrix_row(m, (int)begin), (size_t)n * m->row_bytes);
        memcpy(q->slab.scales, m->scales + begin, (size_t)n * sizeof(float));
        if (m->multipliers)
            memcpy(q->slab.multipliers, qp_matrix_multipliers(m, (int)begin),
                   (size_t)n * qp_multiplier_bytes(m->n_in));
        if (m->zeros)
            memcpy(q->slab.zeros, m->zeros + begin, (size_t)n * sizeof(float));
        return qp_store_integers(q->writer, s, &q->slab, begin, n, q->error);
    }
    for (int64_t r = 0; r < n; r++)
        qp_matrix_read_row(m, (int)(begin + r), q->values + r * m->n_in);
    return qp_store_floats(q->writer, s, &q->slab, begin, n, q->values, q->error);
}

static quip_status write_matrix(struct requantizer *q, const struct stored *s,
                                const struct matrix *m)
{
    quip_status status = QUIP_OK;
    const int64_t step = rows_of_slab(q, m);
    for (int64_t begin = 0; begin < s->rows && !status; begin += step)
        status = write_rows(q, s, m, begin, s->rows - begin < step ? s->rows - begin : step);
    return status;
}

static quip_status write_tensor(struct requantizer *q, int i)
{
    const struct convert_options *o = q->options;
    const struct tensor *t = &q->model->format.tensors[i];
    const struct stored *s = &q->stored[i];
    const struct matrix *m = qp_weights_find(q->model, t->name);
    const uint8_t *data;
    quip_status status;
    if (m)
        status = write_matrix(q, s, m);
    else if (!(status = qp_format_tensor_bytes(&q->model->format, t, &data, q->error)))
        status = qp_tflite_writer_write(q->writer, s->index, 0, data, (size_t)t->n_bytes, q->error);
    q->done_bytes += qp_stored_bytes(s);
    if (!status && o->on_progress &&
        !o->on_progress(o->user, q->done_bytes, q->total_bytes, t->name))
        status = qp_fail(q->error, QUIP_E_CANCELLED, "the conversion was stopped");
    return status;
}

/* Allocate a slab of at least four rows, and struct stored for each tensor. */
static quip_status reserve(struct requantizer *q)
{
    enum {
        SLAB_VALUES = 1 << 20
    };
    const struct config *c = &q->model->config;
    const size_t n = (size_t)q->model->format.n_tensors;
    int64_t widest = (int64_t)c->n_heads * c->head_dim;
    widest = widest > c->d_model ? widest : c->d_model;
    widest = widest > c->d_ff ? widest : c->d_ff;
    widest = widest > c->d_ple ? widest : c->d_ple;
    q->slab_values = 4 * widest > SLAB_VALUES ? 4 * widest : SLAB_VALUES;
    q->stored = calloc(n, sizeof *q->stored);
    q->values = malloc((size_t)q->slab_values * sizeof *q->values);
    if (!q->stored || !q->values)
        return qp_fail_memory(q->error, "a slab of weights", (size_t)q->slab_values * 4);
    // the narrowest matrix decides how many rows there are; none has fewer columns than a head
    return qp_slab_open(&q->slab, q->slab_values, q->slab_values, q->error);
}

quip_status qp_requantize_open(struct requantizer **requantizer, struct tflite_writer **writer,
                               const char *in, const char *out,
                               const struct convert_options *options, quip_error *error)
{
    quip_status status;
    struct requantizer *q = *requantizer = NULL;
    if (options->chat || options->tokenizer || options->model_type || options->format ||
        options->merge_adapter)
        return qp_fail(
            error, QUIP_E_UNSUPPORTED,
            "%s: is a model file; format, type, template, tokenizer and adapter can only be given "
            "for a checkpoint",
            in);
    if (!(q = *requantizer = calloc(1, sizeof *q)))
        return qp_fail_memory(error, "a conversion", sizeof *q);
    q->options = options;
    q->error = error;
    if (!(status = quip_model_open(&q->model, in,
                                   &(quip_model_options){ .backend = QUIP_BACKEND_CPU }, error)))
        status = reserve(q);
    if (!status && options->for_gpu && q->model->config.d_ple > 0)
        status = qp_fail(error, QUIP_E_UNSUPPORTED,
                         "%s: has per-layer embeddings, which files for GPUs cannot have; convert "
                         "it without --backend gpu",
                         in);
    if (!status && options->calibrate)
        status = qp_calibrate(&q->calibration, q->model, options, error);
    if (!status)
        status = qp_tflite_writer_open(writer, out, q->model->format.subgraph_name, error);
    q->writer = *writer;
    if (!status && options->for_gpu)
        qp_tflite_writer_for_gpu(q->writer);
    if (!status && !(status = declare_tensors(q)))
        status = copy_metadata(q);
    return status;
}

quip_status qp_requantize_write(struct requantizer *q)
{
    assert(q->model && q->writer);
    quip_status status = QUIP_OK;
    for (int i = 0; !status && i < q->model->format.n_tensors; i++)
        if (q->stored[i].rows)
            status = write_tensor(q, i);
    // also after a write that failed, because it was from memory that is no longer mapped
    if (!status || status == QUIP_E_IO) {
        const quip_status changed = qp_file_check(&q->model->file, q->error);
        status = changed ? changed : status;
    }
    return status;
}

void qp_requantize_close(struct requantizer *q)
{
    if (!q)
        return;
    qp_calibration_close(q->calibration);
    quip_model_close(q->model);
    free(q->stored);
    free(q->values);
    qp_slab_close(&q->slab);
    free(q);
}
