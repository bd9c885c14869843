/* ops_conv.c: short convolutions on threads.
 * In:  b, c and x of each row in Q, K and V.
 * Out: ATT, the input of the output projection; the columns that sequences keep (conv_history.c).
 *
 * Each channel is independent of the others, so threads divide the channels: a thread runs its
 * channels of one row after the other. */
#include "cpu/cpu_impl.h"

#include <assert.h>

struct conv_task {
    struct cpu_device *d;
    const struct rows *rows;
    int l;
};

/* The consecutive rows from t on that belong to one sequence. */
static struct conv_rows rows_from(const struct conv_task *j, int t)
{
    const struct row *row = &j->rows->row[t];
    struct cpu_sequence *s = cpu_sequence_of(row->sequence);
    const struct config *c = j->d->base.config;
    struct conv_rows r = { .config = c,
                           .layer = &s->conv[j->l],
                           .x = j->d->mem.v + (size_t)t * (size_t)c->d_model,
                           .pos = row->pos,
                           .n_context = s->base.n_context };
    while (t + r.n < j->rows->n && row[r.n].sequence == row->sequence) {
        assert(row[r.n].pos == row->pos + r.n);
        r.n++;
    }
    return r;
}

/* Channels [r->channel, + r->n_channels) of row t + i. */
static void conv_row(const struct conv_task *j, const struct conv_rows *r, int t, int i)
{
    struct cpu_device *d = j->d;
    const struct layer_weights *w = &d->base.weights->layers[j->l];
    const int width = r->config->conv_width;
    const size_t d_model = (size_t)r->config->d_model, channel = (size_t)r->channel;
    const size_t at = (size_t)(t + i) * d_model + channel;
    static const float zeros[ACT_BLOCK];
    const float *past[MAX_CONV_WIDTH];
    float y[ACT_BLOCK];
    for (int k = 0; k < width - 1; k++) {
        const int pos = r->pos + i - (width - 1) + k;
        past[k] = pos < 0 ? zeros : qp_conv_column(r, pos) + channel;
    }
    d->k.conv(&(struct conv_row){ .width = width,
                                  .n = r->n_channels,
                                  .w = w->conv + channel,
                                  .w_stride = d_model,
                                  .bias = w->conv_bias ? w->conv_bias + channel : NULL,
                                  .past = past,
                                  .b = d->mem.q + at,
                                  .c = d->mem.k + at,
                                  .z = d->mem.v + at,
                                  .y = y });
    act_store_columns(&d->k, &d->mem.att, t + i, r->channel, r->n_channels, y);
}

static void conv_task(void *arg, int index, int n_threads)
{
    const struct conv_task *j = arg;
    const int n_channels = j->d->base.config->d_model;
    int begin, end;
    qp_share(n_channels, ACT_BLOCK, index, n_threads, &begin, &end);
    for (int channel = begin; channel < end; channel += ACT_BLOCK)
        for (int t = 0, n; t < j->rows->n; t += n) {
            struct conv_rows r = rows_from(j, t);
            n = r.n;
            r.channel = channel;
            r.n_channels = qp_min(ACT_BLOCK, end - channel);
            qp_conv_restore(&r);
            for (int i = 0; i < n; i++)
                conv_row(j, &r, t, i);
            qp_conv_keep(&r);
        }
}

quip_status qp_cpu_conv(struct device *device, int l, const struct rows *rows)
{
    struct conv_task job = { .d = cpu_of(device), .rows = rows, .l = l };
    assert(rows->n > 0 && rows->n <= device->capacity.n_rows);
    assert(device->config->layers[l].mixer == MIXER_CONV);
    act_resize(&job.d->mem.att, device->config->d_model);
    cpu_parallel(job.d, rows->n == 1, conv_task, &job);
    for (int t = 0, n; t < rows->n; t += n) {
        const struct conv_rows r = rows_from(&job, t);
        struct cpu_sequence *s = cpu_sequence_of(rows->row[t].sequence);
        n = r.n;
        qp_columns_advance(&r.layer->kept, r.pos, n);
        s->n_written = s->n_written > r.pos + n ? s->n_written : r.pos + n;
    }
    return QUIP_OK;
}
