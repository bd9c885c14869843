/* ops_ple.c: the operations of the end of a layer, on one row at a time: the per-layer embedding of
 * the row's token, and the layer's scale.
 * In:  the products PLE_GATE and PLE_CONTEXT; a row of the table of per-layer embeddings.
 * Out: PLE, the input of the product that is added to X.
 *
 * The table is most of some files, and is read a row at a time, directly from the mapped file. */
#include "cpu/cpu_impl.h"

#include <assert.h>
#include <math.h>

struct ple_task {
    struct cpu_device *d;
    int l, n;
    const struct rows *rows;
    const float *factor;
    const struct norm_weights *next;
};

/* u = (norm(context / sqrt(d_model)) + sqrt(d_ple) * row of the table) / sqrt(2), in `context`. */
static void mix_ple(const struct ple_task *j, float *context, float *scratch, quip_token token)
{
    const struct cpu_device *d = j->d;
    const struct kernels *k = &d->k;
    const struct config *c = d->base.config;
    const struct weights *w = d->base.weights;
    const int n = c->d_ple, row = token * c->n_layers + j->l;
    const float half = sqrtf(0.5f), plus = c->norm == NORM_RMS_PLUS_1 ? 1.0f : 0.0f;
    assert(c->norm != NORM_LAYER && row >= 0 && row < w->ple.n_out);
    k->axpby(context, context, 1.0f / sqrtf((float)c->d_model), NULL, 0, n);
    k->rms_norm(context, context, w->ple_norm.scale, plus, c->norm_eps, n);
    k->dequantize_row(scratch, &w->ple, row, sqrtf((float)n));
    k->axpby(context, context, half, scratch, half, n);
}

static void ple_rows(void *arg, int index, int n_threads)
{
    const struct ple_task *j = arg;
    struct cpu_device *d = j->d;
    struct row_memory *m = &d->mem;
    const size_t n = (size_t)d->base.config->d_ple;
    int begin, end;
    qp_share(j->n, 1, index, n_threads, &begin, &end);
    for (int t = begin; t < end; t++) {
        float *scratch = m->scratch[index].row, *context = m->ple_context + (size_t)t * n;
        mix_ple(j, context, scratch, j->rows->row[t].token);
        float *row = act_row_floats(&m->ple, t, scratch);
        d->k.activate(row, m->ple_gate + (size_t)t * n, context, (int)d->base.config->act, (int)n);
        act_store(&d->k, &m->ple, t, row);
    }
}

quip_status qp_cpu_ple(struct device *device, int l, const struct rows *rows)
{
    struct ple_task job = { .d = cpu_of(device), .l = l, .n = rows->n, .rows = rows };
    assert(rows->n > 0 && rows->n <= device->capacity.n_rows && device->config->d_ple > 0);
    cpu_parallel(job.d, rows->n == 1, ple_rows, &job);
    return QUIP_OK;
}

static void scale_rows(void *arg, int index, int n_threads)
{
    const struct ple_task *j = arg;
    const int d_model = j->d->base.config->d_model;
    int begin, end;
    qp_share(j->n, 1, index, n_threads, &begin, &end);
    for (int t = begin; t < end; t++) {
        float *x = j->d->mem.x + (size_t)t * (size_t)d_model;
        j->d->k.axpby(x, x, *j->factor, NULL, 0, d_model);
        if (j->next)
            qp_cpu_norm_row(j->d, j->next, t, index);
    }
}

quip_status qp_cpu_scale(struct device *device, const float *factor,
                         const struct norm_weights *next, int n_rows)
{
    struct ple_task job = { .d = cpu_of(device), .n = n_rows, .factor = factor, .next = next };
    assert(n_rows > 0 && n_rows <= device->capacity.n_rows);
    cpu_parallel(job.d, n_rows == 1, scale_rows, &job);
    return QUIP_OK;
}
