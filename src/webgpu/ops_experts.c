/* ops_experts.c: a mixture of experts on the GPU.
 * In:  X and XN of the rows; the router and the experts of a layer.
 * Out: the experts that each row chose and their weights; Y.
 *
 * The matrices of all experts are one product, which may be in several slabs. Each dispatch reads
 * the experts that rows chose from a buffer, so nothing of it is known here. */
#include "webgpu/webgpu_impl.h"

#include <assert.h>

enum step {
    STEP_GATE, // what experts.wgsl computes
    STEP_UP,
    STEP_DOWN
};

enum {
    GROUP_ROWS = 4 // of a matrix, in a workgroup of scores.wgsl and experts.wgsl
};

/* ---- route ---- */

static quip_status score_rows(struct webgpu_device *d, int l, int n)
{
    const struct config *c = d->base.config;
    const struct gpu_slab *router = &d->layers[l].router;
    const struct parameters {
        struct matrix_parameters matrix;
        uint32_t x_stride, y_stride, norm_at;
        float eps;
    } parameters = { qp_webgpu_describe(router), (uint32_t)d->mem.x.stride,
                     (uint32_t)d->mem.expert_scores.stride,
                     qp_webgpu_vector(d, d->base.weights->layers[l].router_norm.scale),
                     c->norm_eps };
    return qp_webgpu_dispatch(
        d,
        &(struct call){
            .shader = SHADER_SCORES,
            .constants = { qp_webgpu_type(router), router->has_zeros, c->norm == NORM_RMS_PLUS_1 },
            .parameters = &parameters,
            .n_parameters = sizeof parameters,
            .bindings = { slab_range(router), range_of(&d->mem.x), range_of(&d->vector_memory),
                          range_of(&d->mem.expert_scores) },
            .x = (uint32_t)((router->n_rows + GROUP_ROWS - 1) / GROUP_ROWS),
            .y = (uint32_t)n });
}

quip_status qp_webgpu_route(struct device *device, int l, const struct rows *rows)
{
    struct webgpu_device *d = webgpu_of(device);
    const struct config *c = device->config;
    const struct layer_weights *w = &device->weights->layers[l];
    const struct parameters {
        uint32_t n_used, scores_stride, scale_at;
    } parameters = { (uint32_t)c->experts.n_used, (uint32_t)d->mem.expert_scores.stride,
                     qp_webgpu_vector(d, w->expert_scale) };
    const quip_status status = score_rows(d, l, rows->n);
    return status ? status
                  : qp_webgpu_dispatch(
                        d, &(struct call){ .shader = SHADER_CHOOSE,
                                           .constants = { c->experts.n, c->experts.is_normalized,
                                                          w->shared_gate != NULL },
                                           .parameters = &parameters,
                                           .n_parameters = sizeof parameters,
                                           .bindings = { range_of(&d->mem.expert_scores),
                                                         range_of(&d->vector_memory),
                                                         range_of(&d->mem.chosen) },
                                           .x = (uint32_t)rows->n });
}

/* ---- experts ---- */

/* One slab, for n pairs or rows from `first` on. */
static quip_status dispatch_slab(struct webgpu_device *d, const struct gpu_slab *slab,
                                 enum step step, int first, int n)
{
    const struct config *c = d->base.config;
    const bool is_down = step == STEP_DOWN;
    const struct scratch *in = is_down ? &d->mem.expert_h : &d->mem.xn,
                         *out = is_down ? &d->mem.experts : &d->mem.expert_h;
    const int n_out = is_down ? c->d_model : c->experts.d_ff;
    const struct parameters {
        struct matrix_parameters matrix;
        uint32_t x_stride, out_stride, n_out, n_used, first;
    } parameters = { qp_webgpu_describe(slab), (uint32_t)in->stride / 4,    (uint32_t)out->stride,
                     (uint32_t)n_out,          (uint32_t)c->experts.n_used, (uint32_t)first };
    return qp_webgpu_dispatch(
        d, &(struct call){ .shader = SHADER_EXPERTS,
                           .constants = { qp_webgpu_type(slab), slab->has_zeros, (int)step,
                                          slab->first > 0, (int)c->act },
                           .parameters = &parameters,
                           .n_parameters = sizeof parameters,
                           .bindings = { slab_range(slab), range_of(in), range_of(&d->mem.chosen),
                                         range_of(out) },
                           .x = (uint32_t)((n_out + GROUP_ROWS - 1) / GROUP_ROWS),
                           .y = (uint32_t)n });
}

static quip_status run_step(struct webgpu_device *d, const struct gpu_product *w, enum step step,
                            int n)
{
    const int max = (int)qp_gpu_info(d->gpu)->max_groups;
    quip_status status = QUIP_OK;
    for (int first = 0; first < n; first += max)
        for (int i = 0; i < w->n_slabs && !status; i++)
            status = dispatch_slab(d, &w->slabs[i], step, first, qp_min(max, n - first));
    return status;
}

quip_status qp_webgpu_experts(struct device *device, int l, const struct rows *rows)
{
    struct webgpu_device *d = webgpu_of(device);
    const struct layer_products *w = &d->layers[l];
    const int n_pairs = rows->n * device->config->experts.n_used;
    quip_status status = run_step(d, &w->expert_gate, STEP_GATE, n_pairs);
    if (!status)
        status = run_step(d, &w->expert_up, STEP_UP, n_pairs);
    return status ? status : run_step(d, &w->expert_down, STEP_DOWN, rows->n);
}

/* ---- merge ---- */

quip_status qp_webgpu_merge(struct device *device, int l, const struct rows *rows)
{
    struct webgpu_device *d = webgpu_of(device);
    const struct config *c = device->config;
    const struct layer_weights *w = &device->weights->layers[l];
    const struct parameters {
        uint32_t n, stride, chosen_stride, expert_norm_at, dense_norm_at;
        float eps;
    } parameters = { (uint32_t)c->d_model,
                     (uint32_t)d->mem.y.stride,
                     (uint32_t)d->mem.chosen.stride,
                     qp_webgpu_vector(d, w->expert_post_norm.scale),
                     qp_webgpu_vector(d, w->dense_post_norm.scale),
                     c->norm_eps };
    assert(d->mem.y.stride == d->mem.experts.stride);
    return qp_webgpu_dispatch(
        d, &(struct call){ .shader = SHADER_MERGE,
                           .constants = { c->layers[l].d_ff > 0, c->norm == NORM_RMS_PLUS_1 },
                           .parameters = &parameters,
                           .n_parameters = sizeof parameters,
                           .bindings = { range_of(&d->mem.experts), range_of(&d->mem.chosen),
                                         range_of(&d->vector_memory), range_of(&d->mem.y) },
                           .x = (uint32_t)rows->n });
}
