/* requantize.c: a model file -> another, with weights of other types.
 * In:  a model file that runs here, in the layout for CPUs or for GPUs.
 * Out: one in the layout for CPUs, with the metadata of the first.
 * A matrix that keeps its type keeps its bytes; any other is what it stands for, quantized anew. */
#include "convert/convert_impl.h"
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

struct requantizer {
    const struct convert_options *options;
    quip_error *error;
    quip_model *model;
    struct tflite_writer *writer;
    int *indices; // [n_tensors], in the writer; -1: left out
    int *scale_indices;
    float *row;
    void *packed;
    uint64_t done_bytes, total_bytes;
};

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), n_end = strlen(end);
    return n >= n_end && strcmp(name + n - n_end, end) == 0;
}

/* What comes with a matrix and is made anew. */
static bool is_companion(const char *name)
{
    return ends_with(name, "_quantized_scale") || ends_with(name, "_quantized_zp") ||
           ends_with(name, ".sum_i");
}

static enum dtype new_dtype(const struct requantizer *q, const struct matrix *m)
{
    return qp_stored_dtype(q->options, strstr(m->name, ".self_attention.") ? CLASS_ATTENTION
                                       : strstr(m->name, ".ff_layer.")     ? CLASS_FEED_FORWARD
                                                                           : CLASS_EMBEDDING);
}

/* Whether the bytes can stay. */
static bool is_kept(const struct matrix *m, enum dtype dtype)
{
    return (enum dtype)m->dtype == dtype && !m->zeros;
}

/* ---- declare ---- */

static quip_status declare_matrix(struct requantizer *q, int i, const struct matrix *m)
{
    char scale[256];
    const enum dtype dtype = new_dtype(q, m);
    const int64_t dims[2] = { m->n_out, m->n_in };
    uint64_t n_bytes = 0;
    if (dtype == DTYPE_I4 && m->n_in % 2)
        return qp_fail(q->error, QUIP_E_UNSUPPORTED,
                       "%s has rows of %d values; int4 needs an even number", m->name, m->n_in);
    quip_status status =
        qp_tflite_writer_tensor(q->writer, m->name, dtype, 2, dims, &q->indices[i], q->error);
    snprintf(scale, sizeof scale, "%s_quantized_scale", m->name);
    if (!status && dtype != DTYPE_F32)
        status = qp_tflite_writer_tensor(q->writer, scale, DTYPE_F32, 1, dims, &q->scale_indices[i],
                                         q->error);
    qp_dtype_bytes(dtype, (uint64_t)(dims[0] * dims[1]), &n_bytes);
    q->total_bytes += n_bytes;
    return status;
}

/* Norms and biases. GPU files have another name for the second norm of Falcon and StableLM, and the
 * number of bytes for the shape. */
static quip_status declare_floats(struct requantizer *q, int i, const struct tensor *t)
{
    const bool is_layer_norm = q->model->config.norm == NORM_LAYER && !ends_with(t->name, ".b");
    const int64_t n = (int64_t)(t->n_bytes / sizeof(float)), dims[3] = { 1, 1, n };
    const char *moved = is_layer_norm ? strstr(t->name, ".post_layer_norm.") : NULL;
    char name[256];
    if (t->dtype != DTYPE_F32)
        return qp_fail(q->error, QUIP_E_UNSUPPORTED, "%s is %s, and nothing that a model needs",
                       t->name, qp_dtype_name(t->dtype));
    snprintf(name, sizeof name, "%.*s%s%s", (int)(moved ? moved - t->name : 0), t->name,
             moved ? ".ff_layer.pre_layer_norm" : "",
             moved ? moved + strlen(".post_layer_norm") : t->name);
    q->total_bytes += t->n_bytes;
    return is_layer_norm ? qp_tflite_writer_tensor(q->writer, name, DTYPE_F32, 3, dims,
                                                   &q->indices[i], q->error)
                         : qp_tflite_writer_tensor(q->writer, name, DTYPE_F32, 1, &n,
                                                   &q->indices[i], q->error);
}

static quip_status declare_tensors(struct requantizer *q)
{
    const struct format *f = &q->model->format;
    quip_status status = QUIP_OK;
    for (int i = 0; i < f->n_tensors && !status; i++) {
        const struct tensor *t = &f->tensors[i];
        const struct matrix *m = qp_weights_find(q->model, t->name);
        q->indices[i] = -1;
        if (m)
            status = declare_matrix(q, i, m);
        else if (!is_companion(t->name))
            status = declare_floats(q, i, t);
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
        if (m->type == METADATA_INT)
            status = qp_tflite_writer_value(q->writer, m->name, (uint32_t)m->i, q->error);
        else if (strcmp(m->name, "backend") == 0)
            status = qp_tflite_writer_metadata(q->writer, m->name, "cpu", 3, q->error);
        else if (!(status = qp_format_bytes(f, m, &data, &n, q->error)))
            status = qp_tflite_writer_metadata(q->writer, m->name, data, n, q->error);
    }
    return status;
}

/* ---- write ---- */

static quip_status write_row(struct requantizer *q, int i, const struct matrix *m, int r)
{
    const enum dtype dtype = new_dtype(q, m);
    const void *data = q->row;
    float scale = 0;
    uint64_t n_bytes = 0;
    qp_dtype_bytes(dtype, (uint64_t)m->n_in, &n_bytes);
    qp_matrix_read_row(m, r, q->row);
    if (is_kept(m, dtype)) {
        data = qp_matrix_row(m, r);
        scale = m->scales ? m->scales[r] : 0;
    } else if (dtype != DTYPE_F32) {
        const bool is_finite = dtype == DTYPE_I8
                                   ? qp_quantize_i8(q->row, 1, m->n_in, q->packed, &scale)
                                   : qp_quantize_i4(q->row, 1, m->n_in, q->packed, &scale);
        if (!is_finite)
            return qp_fail(q->error, QUIP_E_FORMAT,
                           "%s has a value that is not a finite number, in row %d", m->name, r);
        data = q->packed;
    }
    quip_status status = qp_tflite_writer_write(q->writer, q->indices[i], (uint64_t)r * n_bytes,
                                                data, (size_t)n_bytes, q->error);
    if (!status && dtype != DTYPE_F32)
        status = qp_tflite_writer_write(q->writer, q->scale_indices[i], (uint64_t)r * sizeof scale,
                                        &scale, sizeof scale, q->error);
    q->done_bytes += n_bytes;
    return status;
}

static quip_status write_tensor(struct requantizer *q, int i)
{
    const struct convert_options *o = q->options;
    const struct tensor *t = &q->model->format.tensors[i];
    const struct matrix *m = qp_weights_find(q->model, t->name);
    const uint8_t *data;
    quip_status status = QUIP_OK;
    for (int r = 0; m && r < m->n_out && !status; r++)
        status = write_row(q, i, m, r);
    if (!m && !(status = qp_format_tensor_bytes(&q->model->format, t, &data, q->error))) {
        status =
            qp_tflite_writer_write(q->writer, q->indices[i], 0, data, (size_t)t->n_bytes, q->error);
        q->done_bytes += t->n_bytes;
    }
    if (!status && o->on_progress &&
        !o->on_progress(o->user, q->done_bytes, q->total_bytes, t->name))
        status = qp_fail(q->error, QUIP_E_CANCELLED, "the conversion was stopped");
    return status;
}

/* Room for the widest row, and for where each tensor goes. */
static quip_status reserve(struct requantizer *q)
{
    const struct config *c = &q->model->config;
    const size_t n = (size_t)q->model->format.n_tensors;
    size_t widest = (size_t)c->n_heads * (size_t)c->head_dim;
    widest = widest > (size_t)c->d_model ? widest : (size_t)c->d_model;
    widest = widest > (size_t)c->d_ff ? widest : (size_t)c->d_ff;
    q->indices = calloc(n, sizeof *q->indices);
    q->scale_indices = calloc(n, sizeof *q->scale_indices);
    q->row = malloc(widest * sizeof *q->row);
    q->packed = malloc(widest);
    if (!q->indices || !q->scale_indices || !q->row || !q->packed)
        return qp_fail_memory(q->error, "a row of weights", widest * 5);
    return QUIP_OK;
}

quip_status qp_requantize(const char *in, const char *out, const struct convert_options *options,
                          quip_error *error)
{
    struct requantizer q = { .options = options, .error = error };
    quip_status status = QUIP_OK;
    if (options->chat)
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s: is a model file; its template comes from its checkpoint", in);
    if (!(status = quip_model_open(&q.model, in, NULL, error)))
        status = reserve(&q);
    if (!status)
        status = qp_tflite_writer_open(&q.writer, out, q.model->format.subgraph_name, error);
    if (!status && !(status = declare_tensors(&q)) && !(status = copy_metadata(&q)))
        status = qp_tflite_writer_begin(q.writer, error);
    for (int i = 0; !status && i < q.model->format.n_tensors; i++)
        if (q.indices[i] >= 0)
            status = write_tensor(&q, i);
    if (!status)
        status = qp_tflite_writer_commit(q.writer, error);
    qp_tflite_writer_close(q.writer);
    quip_model_close(q.model);
    free(q.indices);
    free(q.scale_indices);
    free(q.row);
    free(q.packed);
    return status;
}
