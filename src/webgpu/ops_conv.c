/* ops_conv.c: short convolutions on the GPU.
 * In:  b, c and x of each row; the columns that sequences keep (engine/columns.h).
 * Out: ATT, the input of the output projection; the columns.
 *
 * What a layer has stored is known here when its dispatch is recorded. If the batch fails before
 * that runs, the next batch goes on at the same position: the columns before it are in the ring
 * either way, unless the batch moved them there or from there to a mark. Such a batch is given to
 * the GPU at once. */
#include "webgpu/webgpu_impl.h"

#include <assert.h>
#include <stdlib.h>

static bool is_conv(const struct config *c, int l)
{
    return c->layers[l].mixer == MIXER_CONV;
}

/* ---- the operation ---- */

/* n_rows rows of each workgroup; 0: none is computed. */
static quip_status dispatch_run(struct webgpu_device *d, int l, const struct rows *rows,
                                const struct row_run *run, int n_rows, bool keeps)
{
    const struct config *c = d->base.config;
    const struct layer_weights *w = &d->base.weights->layers[l];
    const struct webgpu_columns *columns = &run->sequence->columns[l];
    const int pos = rows->row[run->first].pos;
    const struct parameters {
        uint32_t d_model, n, n_rows, first_t, x_stride, y_stride, column_stride;
        int32_t pos, mark;
        uint32_t needs_start, weights_at, bias_at;
    } parameters = { (uint32_t)c->d_model,
                     (uint32_t)run->n,
                     (uint32_t)n_rows,
                     (uint32_t)run->first,
                     (uint32_t)d->mem.qkv.stride,
                     (uint32_t)d->mem.att.stride,
                     (uint32_t)columns->memory.stride,
                     pos,
                     qp_is_in_ring(&columns->kept, pos) ? -1 : qp_columns_mark(&columns->kept, pos),
                     qp_columns_need_start(&columns->kept, run->n),
                     qp_webgpu_vector(d, w->conv),
                     qp_webgpu_vector(d, w->conv_bias) };
    return qp_webgpu_dispatch(
        d, &(struct call){ .shader = SHADER_CONV,
                           .constants = { c->conv_width, COLUMN_RING, PREFILL_CHUNK, keeps },
                           .parameters = &parameters,
                           .n_parameters = sizeof parameters,
                           .bindings = { range_of(&d->mem.qkv), range_of(&d->vector_memory),
                                         range_of(&d->mem.att), range_of(&columns->memory) },
                           .x = ((uint32_t)c->d_model + 63) / 64,
                           .y = n_rows ? (uint32_t)((run->n + n_rows - 1) / n_rows) : 1 });
}

static quip_status conv_run(struct webgpu_device *d, int l, const struct rows *rows,
                            const struct row_run *run)
{
    struct columns *kept = &run->sequence->columns[l].kept;
    const int pos = rows->row[run->first].pos;
    const bool moves = !qp_is_in_ring(kept, pos) || qp_columns_need_start(kept, run->n);
    const bool is_few = run->n <= FEW_ROWS;
    quip_status status = dispatch_run(d, l, rows, run, is_few ? run->n : 1, is_few);
    assert(qp_columns_go_on(kept, pos));
    if (!status && !is_few)
        status = dispatch_run(d, l, rows, run, 0, true);
    if (status)
        return status;
    if (moves)
        qp_webgpu_flush(d);
    qp_columns_advance(kept, pos, run->n);
    return QUIP_OK;
}

quip_status qp_webgpu_conv(struct device *device, int l, const struct rows *rows)
{
    quip_status status = QUIP_OK;
    assert(is_conv(device->config, l));
    for (int t = 0; t < rows->n && !status;) {
        const struct row_run run = run_at(rows, t);
        status = conv_run(webgpu_of(device), l, rows, &run);
        t += run.n;
    }
    return status;
}

/* ---- sequences ---- */

uint64_t qp_webgpu_columns_bytes(const struct config *c, int n_context)
{
    const uint64_t n_slots =
        c->conv_width ? (uint64_t)qp_columns_slots(c->conv_width, n_context) : 0;
    uint64_t n = 0;
    for (int l = 0; l < c->n_layers; l++)
        n += is_conv(c, l) ? 4 * n_slots * (uint64_t)stride_of(c->d_model) : 0;
    return n;
}

quip_status qp_webgpu_columns_open(struct webgpu_sequence *s, quip_error *error)
{
    struct webgpu_device *d = webgpu_of(s->base.device);
    const struct config *c = d->base.config;
    quip_status status = QUIP_OK;
    if (c->conv_width == 0)
        return QUIP_OK;
    s->columns = calloc((size_t)c->n_layers, sizeof *s->columns);
    if (!s->columns)
        return qp_fail_memory(error, "the columns of a sequence",
                              (size_t)c->n_layers * sizeof *s->columns);
    for (int l = 0; l < c->n_layers && !status; l++) {
        if (!is_conv(c, l))
            continue;
        s->columns[l].kept = qp_columns(c->conv_width);
        status = qp_webgpu_alloc(d, &s->columns[l].memory,
                                 (uint64_t)qp_columns_slots(c->conv_width, s->base.n_context),
                                 stride_of(c->d_model), error);
    }
    return status;
}

void qp_webgpu_columns_close(struct webgpu_sequence *s)
{
    struct webgpu_device *d = webgpu_of(s->base.device);
    for (int l = 0; s->columns && l < d->base.config->n_layers; l++)
        qp_webgpu_free(d, &s->columns[l].memory);
    free(s->columns);
}

void qp_webgpu_columns_copy(struct webgpu_sequence *to, const struct webgpu_sequence *from)
{
    struct webgpu_device *d = webgpu_of(from->base.device);
    for (int l = 0; from->columns && l < d->base.config->n_layers; l++) {
        const struct scratch *memory = &from->columns[l].memory;
        if (memory->buffer)
            qp_gpu_copy(d->gpu, to->columns[l].memory.buffer, 0, memory->buffer, 0,
                        memory->n_bytes);
        to->columns[l].kept = from->columns[l].kept;
    }
}

int qp_webgpu_columns_rewind(const struct webgpu_sequence *s, int pos)
{
    const struct config *c = s->base.device->config;
    for (int l = 0; s->columns && l < c->n_layers; l++)
        if (is_conv(c, l) && !qp_columns_go_on(&s->columns[l].kept, pos))
            return qp_webgpu_columns_rewind(s, (pos - 1) / PREFILL_CHUNK * PREFILL_CHUNK);
    return pos;
}

/* ---- export and import ---- */

/* The columns before position `at`, in or out of slots on the host. */
static bool transfer_columns(const struct webgpu_columns *columns, float *slots, int d_model,
                             const struct stream *stream, int at, bool is_import)
{
    for (int pos = qp_first_column(&columns->kept, at); pos < at; pos++) {
        const int slot = qp_stored_slot(&columns->kept, at, pos, is_import);
        if (!stream->transfer(stream->user, slots + (size_t)slot * (size_t)columns->memory.stride,
                              (size_t)d_model * sizeof *slots))
            return false;
    }
    return true;
}

static quip_status transfer_layer(struct webgpu_device *d, struct webgpu_columns *columns,
                                  const struct stream *stream, int pos, bool is_import,
                                  quip_error *error)
{
    const int d_model = d->base.config->d_model;
    const struct scratch *memory = &columns->memory;
    float *slots = calloc(1, (size_t)memory->n_bytes);
    quip_status status = QUIP_OK;
    if (!slots)
        return qp_fail_memory(error, "the columns of a layer", (size_t)memory->n_bytes);
    if (!is_import)
        status = qp_webgpu_fetch(d, memory->buffer, 0, slots, (size_t)memory->n_bytes, error);
    bool ok = true;
    for (int at = PREFILL_CHUNK; at < pos && ok && !status; at += PREFILL_CHUNK)
        ok = transfer_columns(columns, slots, d_model, stream, at, is_import);
    ok = ok && (status || transfer_columns(columns, slots, d_model, stream, pos, is_import));
    if (!status && !ok)
        status = qp_fail(error, QUIP_E_IO, "the KV cache could not be %s",
                         is_import ? "read" : "written");
    if (!status && is_import) {
        qp_gpu_write(d->gpu, memory->buffer, 0, slots, (size_t)memory->n_bytes);
        qp_gpu_submit(d->gpu);
        qp_columns_imported(&columns->kept, pos);
    }
    free(slots);
    return status;
}

quip_status qp_webgpu_columns_transfer(const struct webgpu_sequence *s, const struct stream *stream,
                                       int pos, bool is_import, quip_error *error)
{
    struct webgpu_device *d = webgpu_of(s->base.device);
    quip_status status = QUIP_OK;
    for (int l = 0; s->columns && l < d->base.config->n_layers && !status; l++)
        if (is_conv(d->base.config, l))
            status = transfer_layer(d, &s->columns[l], stream, pos, is_import, error);
    return status;
}
