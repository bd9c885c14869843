/* sequence.c: keys, values and outputs of a sequence on the GPU.
 * In:  what rope.wgsl stores.
 * Out: what attend.wgsl reads; a stream in an order that does not depend on the machine.
 *
 * A layer has one buffer of words. A head of a position has W = kv_words of them: floats, or pairs
 * of binary16 for models whose weights are all integers.
 *   keys:   [n_kv_heads][blocks of 64 positions][W / 4][64][4]
 *   values: [n_kv_heads][blocks * 64 positions][W]
 * Block b of positions is in slot b % blocks: a sliding-window layer is a ring of a few slots. */
#include "webgpu/webgpu_impl.h"

#include "format/dtype.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* ---- open, close ---- */

/* A batch stores the keys of all its rows before the first of them attends to window - 1 positions
 * before itself: these positions may begin anywhere in a block. Even, because attend.wgsl reads two
 * blocks at a time. */
int qp_webgpu_layer_blocks(const struct config *c, int l, int n_context)
{
    const int window = c->layers[c->layers[l].kv_layer].window;
    const int max_rows = qp_min(n_context, PREFILL_CHUNK);
    if (window == 0 || window >= n_context)
        return kv_blocks(n_context);
    return qp_min(kv_blocks(n_context),
                  (int)qp_round_up((size_t)kv_blocks(window + max_rows - 2) + 1, 2));
}

uint64_t qp_webgpu_layer_bytes(const struct config *c, int l, bool is_f16, int n_context)
{
    const struct layer_config *lc = &c->layers[l];
    const uint64_t width = (uint64_t)(lc->n_kv_heads * kv_words(is_f16, lc->head_dim));
    return 8 * (uint64_t)qp_webgpu_layer_blocks(c, l, n_context) * 64 * width;
}

uint64_t qp_webgpu_kv_bytes(const struct config *c, bool is_f16, int n_context)
{
    uint64_t n = 0;
    for (int l = 0; l < c->n_layers; l++)
        if (owns_keys(c, l))
            n += qp_webgpu_layer_bytes(c, l, is_f16, n_context);
    return n;
}

quip_status qp_webgpu_sequence_reserve_outputs(struct sequence *sequence, int n, quip_error *error)
{
    struct webgpu_sequence *s = webgpu_sequence_of(sequence);
    struct webgpu_device *d = webgpu_of(sequence->device);
    struct scratch outputs;
    n = qp_max(n, AHEAD_DRAWS);
    if (n == s->max_outputs)
        return QUIP_OK;
    const quip_status status =
        qp_webgpu_alloc(d, &outputs, (uint64_t)n, output_stride(d->base.config), error);
    if (status)
        return status;
    qp_webgpu_free(d, &s->outputs);
    s->outputs = outputs;
    s->max_outputs = n;
    s->n_outputs = 0;
    return QUIP_OK;
}

void qp_webgpu_sequence_close(struct sequence *sequence)
{
    struct webgpu_sequence *s = webgpu_sequence_of(sequence);
    if (!s)
        return;
    qp_webgpu_kv_close(s);
    qp_webgpu_columns_close(s);
    qp_webgpu_free(webgpu_of(sequence->device), &s->outputs);
    free(s);
}

quip_status qp_webgpu_sequence_open(struct sequence **sequence, struct device *device,
                                    int n_context, quip_error *error)
{
    struct webgpu_sequence *s = calloc(1, sizeof *s);
    *sequence = NULL;
    if (!s)
        return qp_fail_memory(error, "a sequence", sizeof *s);
    s->base = (struct sequence){ .device = device, .n_context = n_context };
    if (n_context == 0) { // a text: its keys are those of the batch (ops_texts.c)
        *sequence = &s->base;
        return QUIP_OK;
    }
    quip_status status = qp_webgpu_kv_open(s, error);
    if (!status)
        status = qp_webgpu_columns_open(s, error);
    if (!status)
        status = qp_webgpu_sequence_reserve_outputs(&s->base, AHEAD_DRAWS, error);
    if (status)
        qp_webgpu_sequence_close(&s->base);
    else
        *sequence = &s->base;
    return status;
}

/* ---- copy, rewind ---- */

void qp_webgpu_sequence_copy(struct sequence *copy, const struct sequence *original)
{
    struct webgpu_sequence *to = webgpu_sequence_of(copy);
    const struct webgpu_sequence *from = (const struct webgpu_sequence *)original;
    struct webgpu_device *d = webgpu_of(copy->device);
    assert(copy->n_context == original->n_context);
    qp_webgpu_kv_copy(to, from);
    qp_webgpu_columns_copy(to, from);
    to->n_outputs = qp_min(from->n_outputs, to->max_outputs);
    if (to->n_outputs > 0)
        qp_gpu_copy(d->gpu, to->outputs.buffer, 0, from->outputs.buffer, 0,
                    4 * (uint64_t)to->n_outputs * (uint64_t)to->outputs.stride);
    qp_gpu_submit(d->gpu);
    copy->pos = original->pos;
    to->n_written = from->n_written;
}

/* The first position whose keys layer l still has. */
static int first_kept(const struct webgpu_sequence *s, int l, int n_written)
{
    const struct config *c = s->base.device->config;
    return qp_max(0, n_written - 64 * qp_webgpu_layer_blocks(c, l, s->base.n_context));
}

/* Are all positions there that the token at `pos` attends to? */
static bool has_visible(const struct webgpu_sequence *s, int pos, int n_written)
{
    const struct config *c = s->base.device->config;
    for (int l = 0; l < c->n_layers; l++) {
        const int window = c->layers[l].window;
        if (owns_keys(c, l) &&
            (window ? qp_max(0, pos + 1 - window) : 0) < first_kept(s, l, n_written))
            return false;
    }
    return true;
}

void qp_webgpu_sequence_rewind(struct sequence *sequence, int pos)
{
    assert(pos >= 0 && pos <= sequence->pos);
    struct webgpu_sequence *s = webgpu_sequence_of(sequence);
    sequence->pos = qp_webgpu_columns_rewind(s, pos);
    if (!has_visible(s, sequence->pos, s->n_written))
        sequence->pos = 0; // a later position has overwritten what it needs
    if (sequence->pos == 0)
        s->n_written = 0;
}

/* ---- export and import ----
 * The bytes, all little-endian: struct kv_stream_header; the outputs, [n_outputs, d_model] floats;
 * then for each layer with keys of its own, for each position that it still has, for each kv head:
 * the key and the value, each head_dim floats. The floats are exact, also of binary16. Then for
 * each layer with a convolution its columns (ops_conv.c). */

struct kv_stream_header {
    int32_t n_layers, n_words; // of a position, in all layers
    int32_t d_model, conv_width, pos, n_outputs;
    int32_t n_context, n_written; // rings of the same size have lost the same positions
};

static struct kv_stream_header header_of(const struct webgpu_sequence *s)
{
    const struct webgpu_device *d = webgpu_of(s->base.device);
    const struct config *c = d->base.config;
    struct kv_stream_header h = { .n_layers = c->n_layers,
                                  .d_model = c->d_model,
                                  .conv_width = c->conv_width,
                                  .pos = s->base.pos,
                                  .n_outputs = s->n_outputs,
                                  .n_context = s->base.n_context,
                                  .n_written = s->n_written };
    for (int l = 0; l < c->n_layers; l++)
        if (owns_keys(c, l))
            h.n_words += 2 * c->layers[l].n_kv_heads * c->layers[l].head_dim;
    return h;
}

/* One layer's words on the host. */
struct layer_copy {
    const struct webgpu_device *d;
    int head_dim, n_kv_heads, n_blocks;
    uint32_t *words;
};

/* The word of dimension i of a head's key or value, in pairs of dimensions if they are binary16. */
static uint32_t *word_at(const struct layer_copy *c, bool is_value, int h, int pos, int i)
{
    const size_t width = (size_t)kv_words(c->d->kv_is_f16, c->head_dim);
    const size_t slot = (size_t)(pos % (64 * c->n_blocks));
    const size_t word = (size_t)(c->d->kv_is_f16 ? i / 2 : i);
    const size_t head = (size_t)h * (size_t)c->n_blocks;
    const size_t keys = (size_t)(c->n_kv_heads * c->n_blocks) * 64 * width;
    if (is_value)
        return c->words + keys + (head * 64 + slot) * width + word;
    return c->words + ((head + slot / 64) * width + word / 4 * 4) * 64 + slot % 64 * 4 + word % 4;
}

static float get_float(const struct layer_copy *c, bool is_value, int h, int pos, int i)
{
    const uint32_t word = *word_at(c, is_value, h, pos, i);
    float x;
    if (c->d->kv_is_f16) {
        const uint32_t half = word >> (i % 2 * 16);
        const uint8_t bytes[2] = { (uint8_t)half, (uint8_t)(half >> 8) };
        return qp_half_value(bytes);
    }
    memcpy(&x, &word, sizeof x);
    return x;
}

static void put_float(const struct layer_copy *c, bool is_value, int h, int pos, int i, float x)
{
    uint32_t *word = word_at(c, is_value, h, pos, i);
    if (c->d->kv_is_f16) {
        const int shift = i % 2 * 16;
        *word = (*word & ~(0xffffu << shift)) | (uint32_t)qp_half_bits(x) << shift;
        return;
    }
    memcpy(word, &x, sizeof x);
}

static bool transfer_head(const struct layer_copy *c, bool is_value, int h, int pos,
                          const struct stream *stream, bool is_import)
{
    float x[1024];
    const size_t n_bytes = (size_t)c->head_dim * sizeof *x;
    assert(c->head_dim <= 1024);
    for (int i = 0; i < c->head_dim && !is_import; i++)
        x[i] = get_float(c, is_value, h, pos, i);
    const bool ok = stream->transfer(stream->user, x, n_bytes);
    for (int i = 0; i < c->head_dim && is_import && ok; i++)
        put_float(c, is_value, h, pos, i, x[i]);
    return ok;
}

static quip_status transfer_layer(const struct webgpu_sequence *s, int l,
                                  const struct kv_stream_header *h, const struct stream *stream,
                                  bool is_import, quip_error *error)
{
    struct webgpu_device *d = webgpu_of(s->base.device);
    const struct layer_config *lc = &d->base.config->layers[l];
    const struct gpu_range kv = qp_webgpu_kv_range(s, l);
    const size_t n_bytes = (size_t)kv.n_bytes;
    struct layer_copy c = { d, lc->head_dim, lc->n_kv_heads,
                            qp_webgpu_layer_blocks(d->base.config, l, s->base.n_context),
                            calloc(1, n_bytes) };
    if (!c.words)
        return qp_fail_memory(error, "the keys of a layer", n_bytes);
    quip_status status =
        is_import ? QUIP_OK : qp_webgpu_fetch(d, kv.buffer, kv.offset, c.words, n_bytes, error);
    bool ok = true;
    for (int p = first_kept(s, l, h->n_written); p < h->pos && ok && !status; p++)
        for (int head = 0; head < c.n_kv_heads && ok; head++)
            ok = transfer_head(&c, false, head, p, stream, is_import) &&
                 transfer_head(&c, true, head, p, stream, is_import);
    if (!status && !ok)
        status = qp_fail(error, QUIP_E_IO, "the KV cache could not be %s",
                         is_import ? "read" : "written");
    if (!status && is_import) {
        qp_gpu_write(d->gpu, kv.buffer, kv.offset, c.words, n_bytes);
        qp_gpu_submit(d->gpu);
    }
    free(c.words);
    return status;
}

static quip_status transfer_outputs(const struct webgpu_sequence *s, int n,
                                    const struct stream *stream, bool is_import, quip_error *error)
{
    struct webgpu_device *d = webgpu_of(s->base.device);
    const size_t row_bytes = (size_t)d->base.config->d_model * sizeof(float);
    float *row = calloc(1, row_bytes);
    quip_status status = row ? QUIP_OK : qp_fail_memory(error, "an output", row_bytes);
    for (int i = 0; i < n && !status; i++) {
        const uint64_t at = 4 * (uint64_t)i * (uint64_t)s->outputs.stride;
        if (!is_import)
            status = qp_webgpu_fetch(d, s->outputs.buffer, at, row, row_bytes, error);
        if (!status && !stream->transfer(stream->user, row, row_bytes))
            status = qp_fail(error, QUIP_E_IO, "the KV cache could not be %s",
                             is_import ? "read" : "written");
        if (!status && is_import)
            qp_gpu_write(d->gpu, s->outputs.buffer, at, row, row_bytes);
    }
    free(row);
    return status;
}

static quip_status transfer_sequence(const struct webgpu_sequence *s,
                                     const struct kv_stream_header *h, const struct stream *stream,
                                     bool is_import, quip_error *error)
{
    const struct config *c = s->base.device->config;
    quip_status status = transfer_outputs(s, h->n_outputs, stream, is_import, error);
    for (int l = 0; l < c->n_layers && !status; l++)
        if (owns_keys(c, l))
            status = transfer_layer(s, l, h, stream, is_import, error);
    return status ? status : qp_webgpu_columns_transfer(s, stream, h->pos, is_import, error);
}

quip_status qp_webgpu_sequence_export(const struct sequence *sequence, const struct stream *to,
                                      quip_error *error)
{
    const struct webgpu_sequence *s = (const struct webgpu_sequence *)sequence;
    struct kv_stream_header h = header_of(s);
    if (!to->transfer(to->user, &h, sizeof h))
        return qp_fail(error, QUIP_E_IO, "the KV cache could not be written");
    return transfer_sequence(s, &h, to, false, error);
}

quip_status qp_webgpu_sequence_import(struct sequence *sequence, const struct stream *from,
                                      quip_error *error)
{
    struct webgpu_sequence *s = webgpu_sequence_of(sequence);
    const struct kv_stream_header own = header_of(s);
    struct kv_stream_header h;
    assert(sequence->pos == 0);
    s->n_outputs = 0;
    if (!from->transfer(from->user, &h, sizeof h))
        return qp_fail(error, QUIP_E_IO, "the KV cache could not be read");
    if (h.n_layers != own.n_layers || h.n_words != own.n_words || h.d_model != own.d_model ||
        h.conv_width != own.conv_width)
        return qp_fail(error, QUIP_E_FORMAT,
                       "the KV cache is of another model, or of another backend");
    if (h.pos < 0 || h.pos > sequence->n_context || h.n_outputs < 0 ||
        h.n_outputs > sequence->n_context)
        return qp_fail(error, QUIP_E_FORMAT,
                       "the KV cache has %d positions and %d outputs, expected 0 to %d", (int)h.pos,
                       (int)h.n_outputs, sequence->n_context);
    if (h.n_context != sequence->n_context || h.n_written < h.pos ||
        h.n_written > sequence->n_context || !has_visible(s, h.pos, h.n_written))
        return qp_fail(error, QUIP_E_FORMAT,
                       "the KV cache has n_context %d and %d positions, which do not fit",
                       (int)h.n_context, (int)h.n_written);
    quip_status status = qp_webgpu_sequence_reserve_outputs(sequence, h.n_outputs, error);
    if (!status)
        status = transfer_sequence(s, &h, from, true, error);
    if (status)
        return status;
    s->n_outputs = h.n_outputs;
    s->n_written = h.n_written;
    sequence->pos = h.pos;
    return QUIP_OK;
}
