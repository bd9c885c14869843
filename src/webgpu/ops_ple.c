/* ops_ple.c: per-layer embeddings on the GPU.
 * In:  the tokens of a batch; X as `embed` left it.
 * Out: PLE, the input of the product that is added to X.
 *
 * The table is most of some files, and stays on the host: the rows of the batch's tokens are read
 * from the mapped file and written to the GPU before the batch runs. The products of X are those of
 * all layers at once. Both stay where they are when rows are kept: ple.wgsl reads where a row was.
 */
#include "webgpu/webgpu_impl.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

static quip_status write_table_rows(struct webgpu_device *d, const struct rows *rows)
{
    enum {
        MANY_ROWS = 16 // written together
    };
    const struct config *c = d->base.config;
    const struct matrix *table = &d->base.weights->ple;
    const size_t stride = (size_t)d->mem.ple_rows.stride, n_floats = MANY_ROWS * stride;
    float *floats = calloc(n_floats, sizeof *floats);
    if (!floats)
        return qp_fail_memory(&d->base.error, "per-layer embeddings", n_floats * sizeof *floats);
    for (int first = 0; first < rows->n; first += MANY_ROWS) {
        const int n = qp_min(MANY_ROWS, rows->n - first);
        for (int t = 0; t < n; t++)
            for (int l = 0; l < c->n_layers; l++)
                qp_matrix_read_row(table, rows->row[first + t].token * c->n_layers + l,
                                   floats + (size_t)t * stride + (size_t)l * (size_t)c->d_ple);
        qp_gpu_write(d->gpu, d->mem.ple_rows.buffer, 4 * (uint64_t)first * (uint64_t)stride, floats,
                     (size_t)n * stride * sizeof *floats);
    }
    free(floats);
    return QUIP_OK;
}

quip_status qp_webgpu_prepare_ple(struct webgpu_device *d, const struct rows *rows)
{
    const struct config *c = d->base.config;
    quip_status status = write_table_rows(d, rows);
    if (!status)
        status = qp_webgpu_multiply(d, &d->ple_context, &d->mem.x, &d->mem.ple_context, rows);
    for (int l = 0; l < c->n_layers && !status; l++)
        status = qp_webgpu_add_adapters(d, (struct matrix_set){ l, MATRIX_PLE_CONTEXT, 1 },
                                        &d->mem.x, &d->mem.ple_context, l * c->d_ple, rows);
    return status;
}

quip_status qp_webgpu_ple(struct device *device, int l, const struct rows *rows)
{
    struct webgpu_device *d = webgpu_of(device);
    const struct config *c = device->config;
    const struct batch_memory *m = &d->mem;
    const struct parameters {
        uint32_t n, first, first_row, gate_stride, table_stride, y_stride, norm_at;
        float context_scale, eps;
    } parameters = { (uint32_t)c->d_ple,
                     (uint32_t)(l * c->d_ple),
                     (uint32_t)d->first_row,
                     (uint32_t)m->ple_gate.stride,
                     (uint32_t)m->ple_context.stride,
                     (uint32_t)m->ple.stride,
                     qp_webgpu_vector(d, device->weights->ple_norm.scale),
                     1.0f / sqrtf((float)c->d_model),
                     c->norm_eps };
    assert(c->norm != NORM_LAYER && rows->n > 0 && m->ple_context.stride == m->ple_rows.stride);
    return qp_webgpu_dispatch(
        d, &(struct call){ .shader = SHADER_PLE,
                           .constants = { c->norm == NORM_RMS_PLUS_1, (int)c->act },
                           .parameters = &parameters,
                           .n_parameters = sizeof parameters,
                           .bindings = { range_of(&m->rows), range_of(&m->ple_gate),
                                         range_of(&m->ple_context), range_of(&m->ple_rows),
                                         range_of(&d->vector_memory), range_of(&m->ple) },
                           .x = (uint32_t)rows->n });
}
