/* ops_tokens.c: tokens, and what comes back from the GPU.
 * In:  logits on the GPU, draws.
 * Out: tokens; rows of buffers as floats.
 *
 * The most likely token is found on the GPU. For draws with a temperature, penalties or a mask the
 * logits come back, and the sampler draws from them as it does for the CPU. They also come back if
 * nothing draws from them. */
#include "base/math.h"
#include "webgpu/webgpu_impl.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    CANDIDATE_LOGITS = 4096, // of a workgroup of argmax.wgsl
    TOKEN_BYTES = 256        // of the tokens in what comes back; logits are behind them
};

/* ---- the most likely token ---- */

static bool is_greedy(const struct draw *draw)
{
    const struct sampling *s = draw->sampling;
    return (s->temperature == 0 || s->top_k == 1) && s->repeat == 1 && s->presence == 0 &&
           s->frequency == 0 && s->dry_multiplier == 0 && s->no_repeat_ngram == 0 &&
           s->n_bias == 0 && !draw->allowed;
}

static quip_status run_argmax(struct webgpu_device *d, const struct scratch *from,
                              const struct scratch *to, int n_logits, int n, bool is_last)
{
    const struct parameters {
        uint32_t n, x_stride, best_stride;
    } parameters = { (uint32_t)n_logits, (uint32_t)from->stride, (uint32_t)to->stride };
    const uint32_t n_groups =
        is_last ? 1 : ((uint32_t)n_logits + CANDIDATE_LOGITS - 1) / CANDIDATE_LOGITS;
    return qp_webgpu_dispatch(d, &(struct call){ .shader = SHADER_ARGMAX,
                                                 .constants = { is_last },
                                                 .parameters = &parameters,
                                                 .n_parameters = sizeof parameters,
                                                 .bindings = { range_of(from), range_of(to) },
                                                 .x = n_groups,
                                                 .y = (uint32_t)n });
}

quip_status qp_webgpu_sample(struct device *device, const struct draw *draws, int n)
{
    struct webgpu_device *d = webgpu_of(device);
    const int vocab_size = device->config->vocab_size;
    assert(n > 0 && n <= LOGITS_ROWS);
    d->draws_here = false;
    d->n_draws = n;
    for (int i = 0; i < n; i++) {
        d->draws[i] = draws[i];
        d->sampling[i] = *draws[i].sampling;
        d->draws_here = d->draws_here || !is_greedy(&draws[i]);
    }
    if (d->draws_here)
        return QUIP_OK;
    const int n_candidates = (vocab_size + CANDIDATE_LOGITS - 1) / CANDIDATE_LOGITS;
    const quip_status status =
        run_argmax(d, &d->mem.logits, &d->mem.candidates, vocab_size, n, false);
    return status ? status
                  : run_argmax(d, &d->mem.candidates, &d->mem.tokens, n_candidates, n, true);
}

/* ---- draws on the host ---- */

static float sum_exps(const float *x, float max, float factor, int n)
{
    float sum = 0;
    for (int i = 0; i < n; i++)
        sum += isnan(x[i]) ? 0 : qp_exp((x[i] - max) * factor);
    return sum;
}

static quip_status reserve_host_logits(struct webgpu_device *d)
{
    const size_t vocab_size = (size_t)d->base.config->vocab_size;
    if (!d->host_logits)
        d->host_logits = malloc(LOGITS_ROWS * vocab_size * sizeof *d->host_logits);
    if (!d->candidates)
        d->candidates = malloc(vocab_size * sizeof *d->candidates);
    return d->host_logits && d->candidates
               ? QUIP_OK
               : qp_fail_memory(&d->base.error, "logits",
                                LOGITS_ROWS * vocab_size * sizeof *d->host_logits);
}

static float *host_row(const struct webgpu_device *d, int i)
{
    return d->host_logits + (size_t)i * (size_t)d->base.config->vocab_size;
}

/* The tokens of all draws. After one that is not as expected those that follow do not count. */
static void finish_draws(struct webgpu_device *d, const uint8_t *mapped)
{
    const int vocab_size = d->base.config->vocab_size;
    const struct sampler sampler = { d->candidates, sum_exps };
    bool is_wrong = false;
    if (!d->draws_here)
        memcpy(d->tokens, mapped, (size_t)d->n_draws * sizeof *d->tokens);
    for (int i = 0; i < d->n_draws; i++) {
        struct draw draw = d->draws[i];
        draw.sampling = &d->sampling[i];
        if (d->draws_here && !is_wrong)
            d->tokens[i] = qp_sample(&sampler, &draw, host_row(d, i), vocab_size);
        if (is_wrong)
            d->tokens[i] = -1;
        is_wrong = draw.expected >= 0 && (is_wrong || d->tokens[i] != draw.expected);
    }
    d->n_draws = 0;
}

static void copy_logits(struct webgpu_device *d, const uint8_t *mapped)
{
    for (int i = 0; i < d->n_host_logits; i++)
        memcpy(host_row(d, i), mapped + TOKEN_BYTES + 4 * (size_t)i * (size_t)d->mem.logits.stride,
               (size_t)d->base.config->vocab_size * sizeof(float));
}

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

quip_status qp_webgpu_submit(struct device *device)
{
    struct webgpu_device *d = webgpu_of(device);
    d->n_host_logits = d->n_draws == 0 || d->draws_here ? d->n_logits : 0;
    const bool has_logits = d->n_host_logits > 0;
    const uint64_t n_logits = 4 * (uint64_t)d->n_host_logits * (uint64_t)d->mem.logits.stride;
    quip_status status = qp_webgpu_settle_outputs(d);
    if (!status)
        status = qp_webgpu_settle(d);
    if (!status && has_logits)
        status = reserve_host_logits(d);
    if (!status)
        status = reserve_readback(d, TOKEN_BYTES + n_logits, &device->error);
    if (status)
        return status;
    qp_gpu_copy(d->gpu, d->mem.readback.buffer, 0, d->mem.tokens.buffer, 0,
                LOGITS_ROWS * sizeof(uint32_t));
    if (has_logits)
        qp_gpu_copy(d->gpu, d->mem.readback.buffer, TOKEN_BYTES, d->mem.logits.buffer, 0, n_logits);
    qp_webgpu_flush(d);
    d->n_mapped = TOKEN_BYTES + (size_t)n_logits;
    qp_gpu_map(d->gpu, d->mem.readback.buffer, d->n_mapped);
    return qp_webgpu_status(d);
}

quip_status qp_webgpu_poll(struct device *device, bool wait)
{
    struct webgpu_device *d = webgpu_of(device);
    if (d->n_mapped == 0)
        return qp_webgpu_status(d);
    const void *mapped = qp_gpu_mapped(d->gpu, d->mem.readback.buffer, wait);
    if (!mapped) {
        const quip_status status = qp_webgpu_status(d);
        if (!status)
            return QP_NOT_YET;
        d->n_mapped = 0;
        return status;
    }
    copy_logits(d, mapped);
    finish_draws(d, mapped);
    qp_gpu_unmap(d->gpu, d->mem.readback.buffer);
    d->n_mapped = 0;
    return qp_webgpu_status(d);
}

quip_status qp_webgpu_read_tokens(struct device *device, quip_token *tokens, int n)
{
    assert(n > 0 && n <= LOGITS_ROWS);
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
    case BUF_H:
        return (struct buffer_view){ &m->h, c->d_ff, 0 };
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
