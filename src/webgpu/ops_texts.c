/* ops_texts.c: pooling and dense layers for embeddings on the GPU.
 * In:  a batch of whole texts, whose sequences have no KV cache.
 * Out: one vector for each text.
 *
 * Keys and values of a batch are in one buffer, which each layer overwrites; they are floats. A
 * text begins at a block of its own. All products are those of many rows, also of a short text
 * alone, so that its numbers do not depend on the other texts of a batch. */
#include "webgpu/webgpu_impl.h"

#include <assert.h>

quip_status qp_webgpu_pool(struct device *device, const struct norm_weights *w,
                           const struct rows *rows)
{
    struct webgpu_device *d = webgpu_of(device);
    const int n = rows->n;
    int n_texts = 0;
    quip_status status = qp_webgpu_norm(device, w, n); // to XN
    if (!status)
        status = qp_webgpu_settle(d);
    for (int t = 0; t < n; t++)
        d->staged_rows[4 * (size_t)t + 3] = rows->row[t].is_output;
    for (int t = 0; t < n; n_texts++) {
        const struct row_run run = run_at(rows, t);
        uint32_t *to = d->staged_rows + 4 * (size_t)(n + n_texts);
        to[0] = (uint32_t)run.first;
        to[1] = (uint32_t)run.n;
        t += run.n;
    }
    d->n_staged = qp_max(d->n_staged, n + n_texts);
    d->has_new_rows = true;
    assert(n_texts <= device->capacity.n_texts);
    if (status)
        return status;
    const struct parameters {
        uint32_t n, first_text, x_stride, y_stride;
    } parameters = { (uint32_t)device->config->d_model, (uint32_t)n, (uint32_t)d->mem.xn.stride,
                     (uint32_t)d->mem.pooled[0].stride };
    return qp_webgpu_dispatch(
        d, &(struct call){ .shader = SHADER_POOL,
                           .parameters = &parameters,
                           .n_parameters = sizeof parameters,
                           .bindings = { range_of(&d->mem.rows), range_of(&d->mem.xn),
                                         range_of(&d->mem.pooled[0]) },
                           .x = (parameters.n + 63) / 64,
                           .y = (uint32_t)n_texts });
}

quip_status qp_webgpu_dense(struct device *device, int i, int n)
{
    struct webgpu_device *d = webgpu_of(device);
    const struct scratch from = d->mem.pooled[0], to = d->mem.pooled[1];
    const struct parameters {
        uint32_t n;
    } parameters = { (uint32_t)(n * to.stride) };
    quip_status status = qp_webgpu_multiply(d, &d->dense[i], &from, &to, &(struct rows){ .n = n });
    if (!status && device->weights->dense[i].has_tanh)
        status = qp_webgpu_dispatch(d, &(struct call){ .shader = SHADER_TANH,
                                                       .parameters = &parameters,
                                                       .n_parameters = sizeof parameters,
                                                       .bindings = { range_of(&to) },
                                                       .x = (parameters.n + 63) / 64 });
    d->mem.pooled[0] = to;
    d->mem.pooled[1] = from;
    return status;
}
