/* ops_linear.c: matrix products on the GPU, and what adapters add to them. Those of few rows are in
 * few_rows.c.
 * In:  a buffer of the batch, the slabs of a product.
 * Out: another buffer. */
#include "webgpu/few_rows.h"
#include "webgpu/webgpu_impl.h"

#include <assert.h>
#include <string.h>

struct matrix_parameters qp_webgpu_describe(const struct gpu_slab *p)
{
    return (struct matrix_parameters){ (uint32_t)p->n_in,  (uint32_t)p->n_rows, p->row_vecs,
                                       (uint32_t)p->first, p->multiplier_at,    p->scale_at,
                                       p->bias_at,         p->zero_at };
}

int qp_webgpu_type(const struct gpu_slab *p)
{
    assert(p->dtype == DTYPE_F32 || p->dtype == DTYPE_I8 || p->dtype == DTYPE_I4 ||
           p->dtype == DTYPE_I4_BLOCK);
    return p->dtype == DTYPE_F32 ? 0 : p->dtype == DTYPE_I8 ? 1 : p->dtype == DTYPE_I4 ? 2 : 3;
}

/* ---- many rows ---- */

/* Words of a row of quantized activations. */
static int quantized_stride(int n_in)
{
    return (int)qp_round_up((size_t)n_in, ROW_UNIT) / 4;
}

static quip_status quantize_rows(struct webgpu_device *d, const struct scratch *in, int n_in, int n)
{
    const int stride = quantized_stride(n_in);
    const struct parameters {
        uint32_t n_in, x_stride, q_stride;
    } parameters = { (uint32_t)n_in, (uint32_t)in->stride, (uint32_t)stride };
    return qp_webgpu_dispatch(
        d, &(struct call){
               .shader = SHADER_QUANTIZE,
               .parameters = &parameters,
               .n_parameters = sizeof parameters,
               .bindings = { range_of(in), range_of(&d->mem.quantized), range_of(&d->mem.scales) },
               .x = ((uint32_t)stride + 63) / 64,
               .y = (uint32_t)n });
}

static quip_status run_gemm(struct webgpu_device *d, const struct gpu_slab *p,
                            const struct scratch *in, const struct scratch *out, int n)
{
    const bool is_float = p->dtype == DTYPE_F32;
    const struct scratch *x = is_float ? in : &d->mem.quantized;
    const int x_stride = is_float ? in->stride : quantized_stride(p->n_in);
    const struct parameters {
        struct matrix_parameters matrix;
        uint32_t n, x_stride, y_stride, y_at;
    } parameters = { qp_webgpu_describe(p), (uint32_t)n, (uint32_t)x_stride / 4,
                     (uint32_t)out->stride, 0 };
    return qp_webgpu_dispatch(
        d, &(struct call){
               .shader = SHADER_GEMM,
               .constants = { qp_webgpu_type(p), p->has_zeros, p->n_in % 16 == 0 },
               .parameters = &parameters,
               .n_parameters = sizeof parameters,
               .bindings = { slab_range(p), range_of(x), range_of(&d->mem.scales), range_of(out) },
               .x = ((uint32_t)p->n_rows + 63) / 64,
               .y = ((uint32_t)n + 63) / 64 });
}

quip_status qp_webgpu_halve_rows(struct webgpu_device *d, const struct scratch *in, int n_in, int n)
{
    const struct parameters {
        uint32_t n_in, x_stride, h_stride;
    } parameters = { (uint32_t)n_in, (uint32_t)in->stride, 2 * (uint32_t)quantized_stride(n_in) };
    return qp_webgpu_dispatch(
        d, &(struct call){
               .shader = SHADER_HALVES,
               .parameters = &parameters,
               .n_parameters = sizeof parameters,
               .bindings = { range_of(in), range_of(&d->mem.quantized), range_of(&d->mem.scales) },
               .x = (uint32_t)n });
}

/* Of gemm_matrices.wgsl. Large tiles read less, but all of the GPU should have work. */
static int tile_of(const struct gpu_slab *p, int n)
{
    enum {
        MANY_TILES = 130
    };
    return (p->n_rows + 127) / 128 * ((n + 127) / 128) < MANY_TILES ? 64 : 128;
}

/* What a product of many rows reads as x. */
enum input_form {
    FLOATS,
    BYTES,
    HALVES // of gemm_matrices.wgsl
};

static enum input_form form_of(const struct webgpu_device *d, const struct gpu_slab *p)
{
    return p->dtype == DTYPE_F32 ? FLOATS : uses_matrices(d) && !p->has_zeros ? HALVES : BYTES;
}

quip_status qp_webgpu_gemm_matrices(struct webgpu_device *d, const struct gpu_slab *p,
                                    const struct scratch *out, int n,
                                    const struct matrices_kind *kind)
{
    const uint32_t size = (uint32_t)kind->tile;
    const struct parameters {
        struct matrix_parameters matrix;
        uint32_t n, x_stride, y_stride, y_at;
    } parameters = { qp_webgpu_describe(p), (uint32_t)n, (uint32_t)quantized_stride(p->n_in) / 2,
                     (uint32_t)out->stride, 0 };
    return qp_webgpu_dispatch(
        d, &(struct call){
               .shader = SHADER_GEMM_MATRICES,
               .constants = { qp_webgpu_type(p), false, kind->tile, (int)kind->gate, kind->act },
               .parameters = &parameters,
               .n_parameters = sizeof parameters,
               .bindings = { slab_range(p), range_of(&d->mem.quantized), range_of(&d->mem.scales),
                             range_of(out) },
               .x = ((uint32_t)n + size - 1) / size,
               .y = ((uint32_t)p->n_rows + size - 1) / size });
}

static bool has_adapters(const struct rows *rows)
{
    for (int t = 0; t < rows->n; t++)
        if (rows->row[t].sequence->adapter)
            return true;
    return false;
}

quip_status qp_webgpu_multiply(struct webgpu_device *d, const struct gpu_product *w,
                               const struct scratch *in, const struct scratch *out,
                               const struct rows *rows)
{
    enum input_form has = FLOATS;
    quip_status status = QUIP_OK;
    const struct matvec m = { .in = in,
                              .out = out,
                              .n = rows->n,
                              .scale = 1,
                              .is_rounded = in->buffer == d->mem.h.buffer && d->h_is_rounded };
    const enum way way = qp_webgpu_way_of(d, w, rows->n);
    if (way == ROW_BY_ROW)
        return qp_webgpu_matvecs(d, w, m, has_adapters(rows));
    assert(!m.is_rounded);
    if (way == TOGETHER)
        return qp_webgpu_matrows(d, w, m, has_adapters(rows));
    for (int i = 0; i < w->n_slabs && !status; i++) {
        const struct gpu_slab *p = &w->slabs[i];
        const enum input_form form = form_of(d, p);
        if (form != FLOATS && form != has) {
            status = form == HALVES ? qp_webgpu_halve_rows(d, in, w->n_in, rows->n)
                                    : quantize_rows(d, in, w->n_in, rows->n);
            has = form;
        }
        if (!status)
            status = form == HALVES ? qp_webgpu_gemm_matrices(
                                          d, p, out, rows->n,
                                          &(struct matrices_kind){ .tile = tile_of(p, rows->n) })
                                    : run_gemm(d, p, in, out, rows->n);
    }
    return status;
}

/* ---- adapters ---- */

/* Column of matrix m of layer l in the product that begins with matrix `first`. */
static int column_of(const struct webgpu_device *d, int l, int first, int m)
{
    const struct matrix *matrices = d->base.weights->layers[l].m;
    int at = 0;
    for (int i = first; i < m; i++)
        at += matrices[i].data ? matrices[i].n_out : 0;
    return at;
}

static quip_status add_pair(struct webgpu_device *d, const struct row_run *run,
                            const struct lora_slabs *pair, const struct scratch *in,
                            const struct scratch *out, int at)
{
    struct matvec m = { .slab = &pair->a,
                        .in = in,
                        .out = &d->mem.low_rank,
                        .first_t = run->first,
                        .n = run->n,
                        .scale = 1 };
    if (pair->a.n_rows == 0)
        return QUIP_OK;
    const quip_status status = qp_webgpu_matvec(d, &m);
    if (status)
        return status;
    m = (struct matvec){ .slab = &pair->b,
                         .in = &d->mem.low_rank,
                         .out = out,
                         .first_t = run->first,
                         .n = run->n,
                         .at = at,
                         .scale = run->sequence->base.adapter_scale,
                         .accumulates = true };
    return qp_webgpu_matvec(d, &m);
}

quip_status qp_webgpu_add_adapters(struct webgpu_device *d, struct matrix_set w,
                                   const struct scratch *in, const struct scratch *out, int column,
                                   const struct rows *rows)
{
    quip_status status = QUIP_OK;
    for (int t = 0; t < rows->n && !status;) {
        const struct row_run run = run_at(rows, t);
        const struct device_adapter *adapter = run.sequence->base.adapter;
        for (int m = (int)w.first; m < (int)w.first + w.n && adapter && !status; m++)
            status = add_pair(d, &run, &adapter->pairs[w.l * N_MATRICES + m], in, out,
                              column + column_of(d, w.l, (int)w.first, m));
        t += run.n;
    }
    return status;
}

/* ---- operations ---- */

/* Mix the n inputs of a product, if the rows of its weights are (qp_mix_row). */
static quip_status mix_input(struct webgpu_device *d, const struct scratch *in, int n_in, int n)
{
    const struct parameters {
        uint32_t n_in, stride;
    } parameters = { (uint32_t)n_in, (uint32_t)in->stride };
    if (!d->base.config->mixes_inputs)
        return QUIP_OK;
    return qp_webgpu_dispatch(d, &(struct call){ .shader = SHADER_MIX,
                                                 .parameters = &parameters,
                                                 .n_parameters = sizeof parameters,
                                                 .bindings = { range_of(in) },
                                                 .x = ((uint32_t)n_in + 63) / 64,
                                                 .y = (uint32_t)n });
}

quip_status qp_webgpu_linear(struct device *device, enum buffer out, struct matrix_set w,
                             enum buffer in, struct matrix_set next, const struct rows *rows)
{
    struct webgpu_device *d = webgpu_of(device);
    const struct layer_products *layer = &d->layers[w.l];
    const struct gpu_product *product;
    struct scratch to = d->mem.y, from;
    (void)out, (void)in, (void)next;
    switch (w.first) {
    case MATRIX_Q:
        product = &layer->qkv;
        to = d->mem.qkv;
        from = d->mem.xn;
        break;
    case MATRIX_O:
        product = &layer->o;
        from = d->mem.att;
        break;
    case MATRIX_PLE_GATE:
        product = &layer->ple_gate;
        to = d->mem.ple_gate;
        from = d->mem.xn;
        break;
    case MATRIX_PLE_CONTEXT: // of all layers in prepare_ple
        return QUIP_OK;
    case MATRIX_PLE_OUT:
        product = &layer->ple_out;
        from = d->mem.ple;
        break;
    default:
        assert(w.first == MATRIX_DOWN);
        product = &layer->down;
        from = d->mem.h;
    }
    quip_status status = mix_input(d, &from, product->n_in, rows->n);
    if (!status)
        status = qp_webgpu_multiply(d, product, &from, &to, rows);
    return status ? status : qp_webgpu_add_adapters(d, w, &from, &to, 0, rows);
}

/* h = act(gate) * up of many rows */
static quip_status run_gated(struct webgpu_device *d, int d_ff, enum gate gate, int n)
{
    const struct parameters {
        uint32_t d_ff, x_stride, h_stride;
    } parameters = { (uint32_t)d_ff, (uint32_t)d->mem.gate_up.stride, (uint32_t)d->mem.h.stride };
    return qp_webgpu_dispatch(
        d, &(struct call){ .shader = SHADER_GATED,
                           .constants = { (int)gate, (int)d->base.config->act },
                           .parameters = &parameters,
                           .n_parameters = sizeof parameters,
                           .bindings = { range_of(&d->mem.gate_up), range_of(&d->mem.h) },
                           .x = ((uint32_t)d_ff + 63) / 64,
                           .y = (uint32_t)n });
}

/* The same, with the product that makes gate and up, by matrices. */
static quip_status multiply_gated(struct webgpu_device *d, const struct gpu_product *w,
                                  enum gate gate, int n)
{
    const struct matrices_kind kind = { tile_of(w->slabs, n), gate, (int)d->base.config->act };
    const quip_status status = qp_webgpu_halve_rows(d, &d->mem.xn, w->n_in, n);
    return status ? status : qp_webgpu_gemm_matrices(d, w->slabs, &d->mem.h, n, &kind);
}

quip_status qp_webgpu_gated(struct device *device, int l, struct matrix_set next,
                            const struct rows *rows)
{
    struct webgpu_device *d = webgpu_of(device);
    const struct gpu_product *w = &d->layers[l].gate_up;
    const bool has_gate = device->weights->layers[l].m[MATRIX_GATE].data != NULL;
    const enum gate gate = has_gate ? GATE_PAIR : GATE_SINGLE;
    d->h_is_rounded = false;
    quip_status status = mix_input(d, &d->mem.xn, w->n_in, rows->n);
    (void)next;
    if (!status && device->config->layers[l].has_experts) // which read XN, too
        status = qp_webgpu_settle(d);
    if (status)
        return status;
    struct matvec m = {
        .in = &d->mem.xn, .out = &d->mem.h, .n = rows->n, .gate = gate, .scale = 1
    };
    const bool is_fused = d->layers[l].is_fused && !has_adapters(rows);
    const enum way way = is_fused ? qp_webgpu_way_of(d, w, rows->n) : IN_TILES;
    if (way == ROW_BY_ROW) {
        m.rounds = has_gate ? qp_webgpu_rounds_of(d, &d->layers[l], rows->n) : 0;
        d->h_is_rounded = m.rounds > 0;
        return qp_webgpu_matvecs(d, w, m, false);
    }
    if (way == TOGETHER)
        return qp_webgpu_matrows(d, w, m, false);
    if (is_fused && form_of(d, w->slabs) == HALVES)
        return multiply_gated(d, w, gate, rows->n);
    const struct matrix_set both = { l, has_gate ? MATRIX_GATE : MATRIX_UP, has_gate ? 2 : 1 };
    status = qp_webgpu_multiply(d, w, &d->mem.xn, &d->mem.gate_up, rows);
    if (!status)
        status = qp_webgpu_add_adapters(d, both, &d->mem.xn, &d->mem.gate_up, 0, rows);
    return status ? status : run_gated(d, device->config->layers[l].d_ff, gate, rows->n);
}

quip_status qp_webgpu_logits(struct device *device, int n)
{
    struct webgpu_device *d = webgpu_of(device);
    const struct gpu_product *w = d->head.n_slabs ? &d->head : &d->embed;
    assert(n > 0 && n <= LOGITS_ROWS);
    d->n_logits = d->n_draws + n; // those of a draw stay where they are until the batch is done
    assert(d->n_logits <= AHEAD_DRAWS);
    struct matvec m = { .in = &d->mem.xn,
                        .out = &d->mem.logits,
                        .n = n,
                        .at = d->n_draws * d->mem.logits.stride,
                        .scale = device->config->logits_scale,
                        .cap = device->config->logits_cap };
    d->n_candidates = 0;
    if (qp_webgpu_multiplies_together(d, w, n))
        return qp_webgpu_matrows(d, w, m, false);
    m.finds_best = true;
    m.new_x = qp_webgpu_pending_output(d);
    if (m.new_x.buffer)
        d->pending.n_outputs = 0; // no copy is needed
    return qp_webgpu_matvecs(d, w, m, false);
}
