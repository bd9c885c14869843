/* conv_history.c: what a sequence keeps of its short convolutions, so that it can go on and back.
 * In:  the columns of rows that run: b * x of each channel (backend.h, conv).
 * Out: the columns before any position where the sequence may go on.
 *
 * A convolution of width w reads the w - 1 columns before its position. To be able to go back, a
 * layer keeps
 *   a ring:  the last CONV_RING columns; position p is in slot p % CONV_RING
 *   a mark:  the w - 1 columns before the last batch that was longer than the ring
 *   marks:   the w - 1 columns before positions PREFILL_CHUNK, 2 * PREFILL_CHUNK, ...
 * So draft tokens, failed batches and short rewinds lose nothing, and a longer rewind runs less
 * than a chunk of text again. LFM2 1.2B needs 3.1 MB for 4096 positions; columns of a whole chunk
 * would be 42 MB.
 *
 * A layer's begin, end and start describe what it has stored, also of a batch that failed between
 * two layers. Going back changes nothing here: the next batch restores the ring. */
#include "cpu/cpu_impl.h"

#include <assert.h>
#include <string.h>

#define CONV_RING 32
static_assert(CONV_RING >= SEQUENCE_OUTPUTS + MAX_CONV_WIDTH - 1, "draft tokens can be rejected");

/* ---- memory ---- */

static int n_marks(int n_context)
{
    return 1 + n_context / PREFILL_CHUNK;
}

void qp_conv_alloc(struct cpu_sequence *s, const struct config *c, struct arena *a)
{
    if (c->conv_width == 0)
        return;
    const int n_slots = CONV_RING + n_marks(s->base.n_context) * (c->conv_width - 1);
    s->conv = qp_cpu_alloc(a, (size_t)c->n_layers, 1, sizeof *s->conv);
    for (int l = 0; l < c->n_layers; l++) {
        if (c->layers[l].mixer != MIXER_CONV)
            continue;
        float *columns = qp_cpu_alloc(a, (size_t)n_slots, (size_t)c->d_model, sizeof *columns);
        if (s->conv)
            s->conv[l] = (struct conv_layer){ .columns = columns, .start = -1 };
    }
}

/* ---- columns ---- */

static float *slot_at(const struct config *c, const struct conv_layer *layer, int slot)
{
    return layer->columns + (size_t)slot * (size_t)c->d_model;
}

static float *ring_column(const struct config *c, const struct conv_layer *layer, int pos)
{
    assert(pos >= 0);
    return slot_at(c, layer, pos % CONV_RING);
}

/* Column `pos` of the mark before position `at`: number 0 is that of a batch, number k that of
 * position k * PREFILL_CHUNK. */
static float *mark_column(const struct config *c, const struct conv_layer *layer, int number,
                          int at, int pos)
{
    const int n = c->conv_width - 1;
    assert(number >= 0 && pos >= at - n && pos < at);
    return slot_at(c, layer, CONV_RING + number * n + pos - (at - n));
}

/* The first column that a convolution at `pos` reads. */
static int first_column(const struct config *c, int pos)
{
    const int first = pos - (c->conv_width - 1);
    return first > 0 ? first : 0;
}

static bool is_in_ring(const struct config *c, const struct conv_layer *layer, int pos)
{
    return first_column(c, pos) >= layer->begin && pos <= layer->end;
}

static bool can_go_on(const struct config *c, const struct conv_layer *layer, int pos)
{
    return pos == 0 || is_in_ring(c, layer, pos) || pos == layer->start ||
           (pos % PREFILL_CHUNK == 0 && pos <= layer->end);
}

/* The kept column `pos` of those that a convolution at `at` reads. */
static const float *kept_column(const struct config *c, const struct conv_layer *layer, int at,
                                int pos)
{
    assert(can_go_on(c, layer, at) && pos >= first_column(c, at) && pos < at);
    if (is_in_ring(c, layer, at))
        return ring_column(c, layer, pos);
    return mark_column(c, layer, at == layer->start ? 0 : at / PREFILL_CHUNK, at, pos);
}

int qp_conv_rewind(const struct cpu_sequence *s, int pos)
{
    const struct config *c = s->base.device->config;
    for (int l = 0; s->conv && l < c->n_layers; l++)
        if (c->layers[l].mixer == MIXER_CONV && !can_go_on(c, &s->conv[l], pos))
            return qp_conv_rewind(s, (pos - 1) / PREFILL_CHUNK * PREFILL_CHUNK);
    return pos;
}

/* ---- a batch ---- */

const float *qp_conv_column(const struct conv_rows *r, int pos)
{
    if (pos >= r->pos)
        return r->x + (size_t)(pos - r->pos) * (size_t)r->config->d_model;
    return kept_column(r->config, r->layer, r->pos, pos);
}

static void copy_channels(const struct conv_rows *r, float *to, const float *from)
{
    memmove(to + r->channel, from + r->channel, (size_t)r->n_channels * sizeof *to);
}

/* Keep the columns before position `at`. */
static void keep_mark(const struct conv_rows *r, int number, int at)
{
    for (int pos = first_column(r->config, at); pos < at; pos++)
        copy_channels(r, mark_column(r->config, r->layer, number, at, pos), qp_conv_column(r, pos));
}

static bool needs_start(const struct conv_rows *r)
{
    return r->n + r->config->conv_width - 1 > CONV_RING;
}

void qp_conv_restore(const struct conv_rows *r)
{
    const struct conv_layer *layer = r->layer;
    for (int pos = first_column(r->config, r->pos); pos < r->pos; pos++)
        if (!is_in_ring(r->config, layer, r->pos))
            copy_channels(r, ring_column(r->config, layer, pos), qp_conv_column(r, pos));
}

void qp_conv_keep(const struct conv_rows *r)
{
    const int end = r->pos + r->n, first = (r->pos / PREFILL_CHUNK + 1) * PREFILL_CHUNK;
    const int begin = end - CONV_RING > r->pos ? end - CONV_RING : r->pos;
    assert(end <= r->n_context);
    if (needs_start(r))
        keep_mark(r, 0, r->pos);
    for (int at = first; at <= end; at += PREFILL_CHUNK)
        keep_mark(r, at / PREFILL_CHUNK, at);
    for (int pos = begin; pos < end; pos++)
        copy_channels(r, ring_column(r->config, r->layer, pos), qp_conv_column(r, pos));
}

void qp_conv_advance(const struct conv_rows *r)
{
    struct conv_layer *layer = r->layer;
    const int end = r->pos + r->n;
    if (!is_in_ring(r->config, layer, r->pos)) // restored
        layer->begin = first_column(r->config, r->pos);
    layer->begin = layer->begin > end - CONV_RING ? layer->begin : end - CONV_RING;
    if (needs_start(r))
        layer->start = r->pos;
    else if (layer->start > r->pos)
        layer->start = -1; // of a text that is gone
    layer->end = end;
}

/* ---- copy, export, import ---- */

void qp_conv_copy(struct cpu_sequence *to, const struct cpu_sequence *from)
{
    const struct config *c = from->base.device->config;
    const int n_used = CONV_RING + n_marks(from->base.pos) * (c->conv_width - 1);
    for (int l = 0; from->conv && l < c->n_layers; l++) {
        struct conv_layer *y = &to->conv[l];
        const struct conv_layer *x = &from->conv[l];
        if (c->layers[l].mixer != MIXER_CONV)
            continue;
        memcpy(y->columns, x->columns, (size_t)n_used * (size_t)c->d_model * sizeof *y->columns);
        y->begin = x->begin;
        y->end = x->end;
        y->start = x->start;
    }
}

/* Where column `pos` of those before position `at` is kept, or goes in an import: the marks, then
 * the ring. */
static float *stored_column(const struct config *c, const struct conv_layer *layer, int at, int pos,
                            bool is_import)
{
    if (at % PREFILL_CHUNK == 0)
        return mark_column(c, layer, at / PREFILL_CHUNK, at, pos);
    if (is_import || is_in_ring(c, layer, at))
        return ring_column(c, layer, pos);
    assert(at == layer->start);
    return mark_column(c, layer, 0, at, pos);
}

/* The columns before position `at` of every convolution, in or out. */
static bool transfer_columns(const struct cpu_sequence *s, const struct stream *stream, int at,
                             bool is_import)
{
    const struct config *c = s->base.device->config;
    const size_t n_bytes = (size_t)c->d_model * sizeof(float);
    for (int l = 0; l < c->n_layers; l++)
        for (int pos = first_column(c, at); c->layers[l].mixer == MIXER_CONV && pos < at; pos++)
            if (!stream->transfer(stream->user, stored_column(c, &s->conv[l], at, pos, is_import),
                                  n_bytes))
                return false;
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
    for (int l = 0; is_import && l < c->n_layers; l++) {
        s->conv[l].begin = pos % PREFILL_CHUNK ? first_column(c, pos) : pos;
        s->conv[l].end = pos;
        s->conv[l].start = -1;
    }
    return ok;
}
