/* adapter_file.c: a PEFT adapter as a MediaPipe LoRA file, for its GPU engine.
 * In:  the pairs of the adapter.
 * Out: the file with what that engine computes: x left right, where the second matrix is multiplied
 *      by alpha / rank, in the output projection too (MediaPipe's converter scrambles that one:
 *      docs/model-format.md). Every layer has all four pairs, of one rank, a multiple of 4; zeros
 *      fill what the adapter lacks. */
#include "convert/convert.h"
#include "format/tflite_writer.h"
#include "model/adapter.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct lora_writer {
    struct adapter *adapter;
    struct tflite_writer *writer;
    int rank;
    bool is_post_like_q; // a of the output projection is the left matrix too
    enum dtype dtype;    // F16, or F32 for the models that MediaPipe runs in float32
    quip_error *error;
};

/* The four pairs of a layer, in the file's order. */
#define N_TARGETS (MATRIX_O - MATRIX_Q + 1)

static const struct matrix *target_base(const struct lora_writer *w, int l, enum layer_matrix m)
{
    return &w->adapter->model->weights.layers[l].m[m];
}

/* ---- checks ---- */

static quip_status check_targets(struct lora_writer *w, const char *path)
{
    for (int l = 0; l < w->adapter->model->config.n_layers; l++) {
        for (int m = MATRIX_GATE; m <= MATRIX_DOWN; m++)
            if (qp_adapter_pair(w->adapter, l, m)->rank)
                return qp_fail(w->error, QUIP_E_UNSUPPORTED,
                               "%s: changes the feed-forward of layer %d, which a MediaPipe LoRA "
                               "file cannot have; use the folder itself with quip",
                               path, l);
        for (int m = MATRIX_Q; m <= MATRIX_O; m++) {
            const struct matrix *base = target_base(w, l, m);
            if (base->n_out % 4 || base->n_in % 4)
                return qp_fail(w->error, QUIP_E_UNSUPPORTED,
                               "%s has shape [%d, %d]; must be multiples of 4 in a file for GPUs",
                               base->name, base->n_out, base->n_in);
        }
    }
    return QUIP_OK;
}

static quip_status find_model_type(struct lora_writer *w)
{
    const struct format *f = &w->adapter->model->format;
    const struct metadata *type = qp_format_find_metadata(f, "odml.infra.LlmModelType");
    if (!type || type->type != METADATA_INT)
        return qp_fail(
            w->error, QUIP_E_UNSUPPORTED,
            "%s: has no MediaPipe model type, so that it cannot have MediaPipe LoRA files",
            f->file->name);
    const struct model_type *known = qp_model_type_of_file(f);
    w->dtype = known && known->lora_is_f32 ? DTYPE_F32 : DTYPE_F16;
    w->is_post_like_q = known && known->lora_post_is_like_q;
    return QUIP_OK;
}

/* ---- writing ---- */

/* a is the left matrix; of the output projection it is the right one in most models. */
static quip_status declare_lora(struct lora_writer *w, int l, enum layer_matrix m, bool is_b)
{
    const struct matrix *base = target_base(w, l, m);
    const bool is_right = m == MATRIX_O && !w->is_post_like_q ? !is_b : is_b;
    const int64_t dims[] = { is_b ? base->n_out : w->rank, is_b ? w->rank : base->n_in };
    char name[128];
    int index; // that of the order of declaration
    snprintf(name, sizeof name, "params.lm." LAYER_MEDIAPIPE "%s.w_prime_%s", l, qp_matrix_name(m),
             is_right ? "right" : "left");
    return qp_tflite_writer_tensor(w->writer, name, w->dtype, 2, dims, &index, w->error);
}

/* The metadata of the model without Quip's own, and the rank. */
static quip_status declare_lora_metadata(struct lora_writer *w)
{
    struct format *f = &w->adapter->model->format;
    quip_status status = QUIP_OK;
    for (int i = 0; i < f->n_metadata && !status; i++) {
        const struct metadata *m = &f->metadata[i];
        const uint8_t *data;
        size_t n;
        if (strncmp(m->name, "quip.", 5) == 0)
            continue;
        if (m->type == METADATA_INT)
            status = qp_tflite_writer_value(w->writer, m->name, (uint32_t)m->i, w->error);
        else if (strcmp(m->name, "backend") == 0)
            status = qp_tflite_writer_metadata(w->writer, m->name, "gpu", 3, w->error);
        else if (!(status = qp_format_bytes(f, m, &data, &n, w->error)))
            status = qp_tflite_writer_metadata(w->writer, m->name, data, n, w->error);
    }
    return status ? status
                  : qp_tflite_writer_value(w->writer, "lora_rank", (uint32_t)w->rank, w->error);
}

/* A matrix of floats; NULL data is all zeros. */
struct lora_half {
    const float *data;
    int n_out, n_in;
};

/* Value (o, i); zero outside of the matrix. */
static float padded_value(const struct lora_half *m, int o, int i)
{
    return m->data && o < m->n_out && i < m->n_in ? m->data[o * (size_t)m->n_in + (size_t)i] : 0;
}

/* Write one matrix, padded to [n_out, n_in], as tiles: dims [n_in / 4][n_out / 4][4 in][4 out]. */
static quip_status write_half(struct lora_writer *w, int index, const struct lora_half *m,
                              int n_out, int n_in)
{
    const size_t n = (size_t)n_out * (size_t)n_in, size = w->dtype == DTYPE_F16 ? 2 : 4;
    uint8_t *tiles = malloc(n * size);
    bool fits = true;
    assert(n_out % 4 == 0 && n_in % 4 == 0 && m->n_out <= n_out && m->n_in <= n_in);
    if (!tiles)
        return qp_fail_memory(w->error, "tiles of an adapter", n * size);
    for (size_t at = 0; at < n; at++) {
        const size_t tile = at / 16, across = (size_t)n_out / 4;
        const int o = (int)(tile % across * 4 + at % 4), i = (int)(tile / across * 4 + at / 4 % 4);
        const float x = padded_value(m, o, i);
        const uint16_t half = qp_half_bits(x);
        fits = fits && (w->dtype == DTYPE_F32 || (half & 0x7c00u) != 0x7c00u);
        memcpy(tiles + at * size, w->dtype == DTYPE_F16 ? (const void *)&half : (const void *)&x,
               size);
    }
    const quip_status status =
        fits ? qp_tflite_writer_write(w->writer, index, 0, tiles, n * size, w->error)
             : qp_fail(w->error, QUIP_E_UNSUPPORTED,
                       "the adapter has values above 65504, the largest of the file's binary16");
    free(tiles);
    return status;
}

/* Both halves of a pair; `index` is that of the first. */
static quip_status write_pair(struct lora_writer *w, int index, int l, enum layer_matrix m)
{
    const struct matrix *base = target_base(w, l, m);
    const int rank = qp_adapter_pair(w->adapter, l, m)->rank;
    float *a = NULL, *b = NULL;
    quip_status status = QUIP_OK;
    if (rank) {
        a = malloc((size_t)rank * (size_t)base->n_in * sizeof *a);
        b = malloc((size_t)rank * (size_t)base->n_out * sizeof *b);
        status = a && b ? qp_adapter_read(w->adapter, l, m, a, b, w->error)
                        : qp_fail_memory(w->error, "an adapter", (size_t)rank * sizeof *a);
    }
    const struct lora_half first = { a, rank, base->n_in }, second = { b, base->n_out, rank };
    if (!status)
        status = write_half(w, index, &first, w->rank, base->n_in);
    if (!status)
        status = write_half(w, index + 1, &second, base->n_out, w->rank);
    free(a);
    free(b);
    return status;
}

static quip_status write_lora_file(struct lora_writer *w)
{
    const int n_pairs = w->adapter->model->config.n_layers * N_TARGETS;
    quip_status status = QUIP_OK;
    qp_tflite_writer_for_gpu(w->writer);
    for (int i = 0; i < 2 * n_pairs && !status; i++)
        status = declare_lora(w, i / 2 / N_TARGETS, MATRIX_Q + i / 2 % N_TARGETS, i % 2);
    if (status || (status = declare_lora_metadata(w)) ||
        (status = qp_tflite_writer_begin(w->writer, w->error)))
        return status;
    for (int i = 0; i < n_pairs && !status; i++)
        status = write_pair(w, 2 * i, i / N_TARGETS, MATRIX_Q + i % N_TARGETS);
    return status ? status : qp_tflite_writer_commit(w->writer, w->error);
}

quip_status qp_convert_adapter(const char *in, const char *out, const char *model_path,
                               quip_error *error)
{
    struct lora_writer w = { .error = error };
    quip_model *model = NULL;
    struct adapter adapter = { 0 };
    quip_status status;
    if (qp_path_is_same(out, model_path) || qp_path_is_same(out, in))
        return qp_fail(error, QUIP_E_ARGUMENT,
                       "%s: is an input of the LoRA file; write to another file", out);
    if ((status = quip_model_open(&model, model_path,
                                  &(quip_model_options){ .backend = QUIP_BACKEND_CPU }, error)) ||
        (status = qp_adapter_open(&adapter, model, in, error)))
        goto done;
    w.adapter = &adapter;
    w.rank = (adapter.max_rank + 3) / 4 * 4;
    if ((status = check_targets(&w, in)) || (status = find_model_type(&w)) ||
        (status = qp_tflite_writer_open(&w.writer, out, model->format.subgraph_name, error)))
        goto done;
    status = write_lora_file(&w);
done:
    qp_tflite_writer_close(w.writer);
    qp_adapter_close(&adapter);
    quip_model_close(model);
    return status;
}
