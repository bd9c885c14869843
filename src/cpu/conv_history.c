/* conv_history.c: what a sequence keeps of its short convolutions (engine/columns.h).
 * In:  the columns of rows that run: b * x of each channel (backend.h, conv).
 * Out: the columns before any position where the sequence may go on. */
#include "cpu/cpu_impl.h"

#include <assert.h>
#include <string.h>

/* ---- memory ---- */

void qp_conv_alloc(struct cpu_sequence *s, const struct config *c, struct arena *a)
{
    if (c->conv_width == 0)
        return;
    const int n_slots = qp_columns_slots(c->conv_width, s->base.n_context);
    s->conv = qp_cpu_alloc(a, (size_t)c->n_layers, 1, sizeof *s->conv);
    for (int l = 0; l < c->n_layers; l++) {
        if (c->layers[l].mixer != MIXER_CONV)
            continue;
        float *columns = qp_cpu_alloc(a, (size_t)n_slots, (size_t)c->d_model, sizeof *columns);
        if (s->conv)
            s->conv[l] = (struct conv_layer){ columns, qp_columns(c->conv_width) };
    }
}

/* ---- columns ---- */

static float *slot_at(const struct config *c, const struct conv_layer *layer, int slot)
{
    return layer->columns + (size_t)slot * (size_t)c->d_model;
}

int qp_conv_rewind(const struct cpu_sequence *s, int pos)
{
    const struct config *c = s->base.device->config;
    for (int l = 0; s->conv && l < c->n_layers; l++)
        if (c->layers[l].mixer == MIXER_CONV && !qp_columns_go_on(&s->conv[l].kept, pos))
            return qp_conv_rewind(s, (pos - 1) / PREFILL_CHUNK * PREFILL_CHUNK);
    return pos;
}

/* ---- a batch ---- */

const float *qp_conv_column(const struct conv_rows *r, int pos)
{
    if (pos >= r->pos)
        return r->x + (size_t)(pos - r->pos) * (size_t)r->config->d_model;
    return slot_at(r->config, r->layer, qp_kept_slot(&r->layer->kept, r->pos, pos));
}

static void copy_channels(const struct conv_rows *r, int slot, const float *from)
{
    float *to = slot_at(r->config, r->layer, slot);
    memmove(to + r->channel, from + r->channel, (size_t)r->n_channels * sizeof *to);
}

/* Keep the columns before position `at`. */
static void keep_mark(const struct conv_rows *r, int number, int at)
{
    const struct columns *kept = &r->layer->kept;
    for (int pos = qp_first_column(kept, at); pos < at; pos++)
        copy_channels(r, qp_mark_slot(kept, number, at, pos), qp_conv_column(r, pos));
}

void qp_conv_restore(const struct conv_rows *r)
{
    const struct columns *kept = &r->layer->kept;
    if (qp_is_in_ring(kept, r->pos))
        return;
    for (int pos = qp_first_column(kept, r->pos); pos < r->pos; pos++)
        copy_channels(r, qp_ring_slot(pos), qp_conv_column(r, pos));
}

void qp_conv_keep(const struct conv_rows *r)
{
    const int end = r->pos + r->n, first = (r->pos / PREFILL_CHUNK + 1) * PREFILL_CHUNK;
    assert(end <= r->n_context);
    if (qp_columns_need_start(&r->layer->kept, r->n))
        keep_mark(r, 0, r->pos);
    for (int at = first; at <= end; at += PREFILL_CHUNK)
        keep_mark(r, at / PREFILL_CHUNK, at);
    for (int pos = qp_max(r->pos, end - COLUMN_RING); pos < end; pos++)
        copy_channels(r, qp_ring_slot(pos), qp_conv_column(r, pos));
}

/* ---- copy, export, import ---- */

void qp_conv_copy(struct cpu_sequence *to, const struct cpu_sequence *from)
{
    const struct config *c = from->base.device->config;
    const int n_used = qp_columns_slots(c->conv_width, from->base.pos);
    for (int l = 0; from->conv && l < c->n_layers; l++) {
        if (c->layers[l].mixer != MIXER_CONV)
            continue;
        memcpy(to->conv[l].columns, from->conv[l].columns,
               (size_t)n_used * (size_t)c->d_model * sizeof(float));
        to->conv[l].kept = from->conv[l].kept;
    }
}

/* The columns before position `at` of every convolution, in or out. */
static bool transfer_columns(const struct cpu_sequence *s, const struct stream *stream, int at,
                             bool is_import)
{
    const struct config *c = s->base.device->config;
    const size_t n_bytes = (size_t)c->d_model * sizeof(float);
    for (int l = 0; l < c->n_layers; l++) {
        if (c->layers[l].mixer != MIXER_CONV)
            continue;
        const struct columns *kept = &s->conv[l].kept;
        for (int pos = qp_first_column(kept, at); pos < at; pos++)
            if (!stream->transfer(stream->user,
                                  slot_at(c, &s->conv[l], qp_stored_slot(kept, at, pos, is_import)),
                                  n_bytes))
                return false;
    }
    return true;
}

bool qp_conv_transfer(struct cpu_sequence *s, const struct stream *stream, int pos, bool is_import)
{
    const struct config *c = s->base.device->config;
    bool ok = true;
    if (!s->conv)
        return true;
    for (int at = PREFILL_CHUNK; at < pos && ok; at += PREFILL_CHUNK)
        ok = transfer_columns(s, stream, at, is_import);
    ok = ok && transfer_columns(s, stream, pos, is_import);
    for (int l = 0; is_import && l < c->n_layers; l++)
        qp_columns_imported(&s->conv[l].kept, pos);
    return ok;
}
