/* ops_tokens.c: what comes back from the GPU.
 * In:  what was recorded.
 * Out: tokens that were drawn (ops_results.c); rows of buffers as floats. */
#include "webgpu/webgpu_impl.h"

#include <assert.h>
#include <string.h>

enum {
    TOKEN_BYTES = 256 // of the tokens in what comes back; results of draws are behind them
};

/* ---- submit and poll ---- */

/* Make the buffer that is mapped at least this large. */
static quip_status reserve_readback(struct webgpu_device *d, uint64_t n_bytes, quip_error *error)
{
    struct scratch *s = &d->mem.readback;
    if (s->n_bytes >= n_bytes)
        return QUIP_OK;
    struct gpu_buffer *buffer;
    const quip_status status = qp_gpu_buffer_open(&buffer, d->gpu, GPU_READBACK, n_bytes, error);
    if (status)
        return status;
    qp_gpu_buffer_close(d->gpu, s->buffer);
    *s = (struct scratch){ .buffer = buffer, .n_bytes = n_bytes };
    return QUIP_OK;
}

/* Ask for n_bytes of what comes back. */
static quip_status map_readback(struct webgpu_device *d, uint64_t n_bytes)
{
    qp_webgpu_flush(d);
    d->n_mapped = (size_t)n_bytes;
    qp_gpu_map(d->gpu, d->mem.readback.buffer, d->n_mapped);
    return qp_webgpu_status(d);
}

quip_status qp_webgpu_submit(struct device *device)
{
    struct webgpu_device *d = webgpu_of(device);
    d->n_host_logits = d->n_draws == 0 || d->sample == SAMPLE_ALL ? d->n_logits : 0;
    const struct gpu_range results = qp_webgpu_draw_results(d);
    quip_status status = qp_webgpu_settle_outputs(d);
    if (!status)
        status = qp_webgpu_settle(d);
    if (!status)
        status = qp_webgpu_reserve_draws(d);
    if (!status)
        status = reserve_readback(d, TOKEN_BYTES + results.n_bytes, &device->error);
    if (status)
        return status;
    qp_gpu_copy(d->gpu, d->mem.readback.buffer, 0, d->mem.tokens.buffer, 0,
                AHEAD_DRAWS * sizeof(uint32_t));
    if (results.n_bytes > 0)
        qp_gpu_copy(d->gpu, d->mem.readback.buffer, TOKEN_BYTES, results.buffer, results.offset,
                    results.n_bytes);
    return map_readback(d, TOKEN_BYTES + results.n_bytes);
}

/* Ask for the logits of a draw. */
static quip_status fetch_row(struct webgpu_device *d)
{
    const struct gpu_range row = qp_webgpu_missing_row(d);
    const quip_status status = reserve_readback(d, TOKEN_BYTES + row.n_bytes, &d->base.error);
    if (status)
        return status;
    qp_gpu_copy(d->gpu, d->mem.readback.buffer, TOKEN_BYTES, row.buffer, row.offset, row.n_bytes);
    return map_readback(d, TOKEN_BYTES + row.n_bytes);
}

quip_status qp_webgpu_poll(struct device *device, bool wait)
{
    struct webgpu_device *d = webgpu_of(device);
    quip_status status = qp_webgpu_status(d);
    while (d->n_mapped > 0) {
        const uint8_t *mapped = qp_gpu_mapped(d->gpu, d->mem.readback.buffer, wait);
        if (!mapped && !(status = qp_webgpu_status(d)))
            return QP_NOT_YET;
        d->n_mapped = 0;
        if (!mapped)
            return status;
        const bool is_done = qp_webgpu_finish_draws(d, mapped, mapped + TOKEN_BYTES);
        qp_gpu_unmap(d->gpu, d->mem.readback.buffer);
        status = is_done ? qp_webgpu_status(d) : fetch_row(d);
    }
    return status;
}

quip_status qp_webgpu_read_tokens(struct device *device, quip_token *tokens, int n)
{
    assert(n > 0 && n <= AHEAD_DRAWS);
    memcpy(tokens, webgpu_of(device)->tokens, (size_t)n * sizeof *tokens);
    return QUIP_OK;
}

/* ---- read ---- */

static quip_status fetch_bytes(struct webgpu_device *d, struct gpu_buffer *from, uint64_t offset,
                               void *to, size_t n_bytes, quip_error *error)
{
    const quip_status status = reserve_readback(d, n_bytes, error);
    if (status)
        return status;
    qp_gpu_copy(d->gpu, d->mem.readback.buffer, 0, from, offset, n_bytes);
    qp_webgpu_flush(d);
    qp_gpu_map(d->gpu, d->mem.readback.buffer, n_bytes);
    const void *mapped = qp_gpu_mapped(d->gpu, d->mem.readback.buffer, true);
    if (!mapped) {
        const quip_status failure = qp_gpu_failure(d->gpu, error);
        return failure ? failure
                       : qp_fail(error, QUIP_E_UNSUPPORTED, "a page cannot wait for the GPU");
    }
    memcpy(to, mapped, n_bytes);
    qp_gpu_unmap(d->gpu, d->mem.readback.buffer);
    return QUIP_OK;
}

quip_status qp_webgpu_fetch(struct webgpu_device *d, struct gpu_buffer *from, uint64_t offset,
                            void *to, size_t n_bytes, quip_error *error)
{
    enum {
        MAX_FETCH = 1 << 24 // bytes at a time
    };
    quip_status status = QUIP_OK;
    for (size_t at = 0; at < n_bytes && !status; at += MAX_FETCH) {
        const size_t n = n_bytes - at < MAX_FETCH ? n_bytes - at : MAX_FETCH;
        status = fetch_bytes(d, from, offset + at, (uint8_t *)to + at, n, error);
    }
    return status;
}

/* A buffer, its width and the column in its rows where it begins. */
struct buffer_view {
    const struct scratch *s;
    int width, at;
};

/* Queries are as they are before their norm and rotation until rope_append, and BUF_Q is what it
 * made of them. */
static struct buffer_view view_of(const struct webgpu_device *d, enum buffer b)
{
    const struct config *c = d->base.config;
    const struct batch_memory *m = &d->mem;
    switch (b) {
    case BUF_X:
        return (struct buffer_view){ &m->x, c->d_model, 0 };
    case BUF_XN:
        return (struct buffer_view){ &m->xn, c->d_model, 0 };
    case BUF_Y:
        return (struct buffer_view){ &m->y, c->d_model, 0 };
    case BUF_Q:
        return (struct buffer_view){ &m->q, c->n_heads * c->head_dim, 0 };
    case BUF_ATT:
        return (struct buffer_view){ &m->att, c->n_heads * c->head_dim, 0 };
    case BUF_LOGITS:
        return (struct buffer_view){ &m->logits, c->vocab_size, 0 };
    case BUF_POOLED: {
        const struct weights *w = d->base.weights;
        return (struct buffer_view){ &m->pooled[0], qp_pooled_width(w, c->d_model, w->n_dense), 0 };
    }
    default:
        return (struct buffer_view){ NULL, 0, 0 };
    }
}

quip_status qp_webgpu_read(struct device *device, enum buffer from, float *to, int n)
{
    struct webgpu_device *d = webgpu_of(device);
    quip_status status = qp_webgpu_settle(d);
    const struct buffer_view view = view_of(d, from);
    if (from == BUF_LOGITS && n <= d->n_host_logits) {
        memcpy(to, d->host_logits, (size_t)n * (size_t)view.width * sizeof *to);
        return QUIP_OK;
    }
    if (!view.s)
        return qp_fail(&device->error, QUIP_E_UNSUPPORTED,
                       "the gpu backend does not read this buffer yet");
    for (int t = 0; t < n && !status; t++)
        status = qp_webgpu_fetch(d, view.s->buffer, 4 * (uint64_t)t * (uint64_t)view.s->stride,
                                 to + (size_t)t * (size_t)view.width,
                                 (size_t)view.width * sizeof *to, &device->error);
    return status;
}
