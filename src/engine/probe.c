/* probe.c: runs a few tokens on a device, without a session.
 * In:  a device that no session uses now; tokens.
 * Out: the logits of the next token, or the most likely one. */
#include "engine/probe.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static quip_status reserve_probe(struct probe *p, int n_rows, int n_context, quip_error *error)
{
    struct device *d = p->device;
    const struct capacity capacity = { .n_rows = n_rows, .n_context = n_context };
    d->rows = calloc(2 * (size_t)n_rows, sizeof *d->rows);
    p->owns_rows = true;
    return d->rows ? d->backend->reserve(d, &capacity, error)
                   : qp_fail_memory(error, "a batch", 2 * (size_t)n_rows * sizeof *d->rows);
}

quip_status qp_probe_open(struct probe *p, struct device *d, int n_rows, int n_context,
                          quip_error *error)
{
    *p = (struct probe){ .device = d };
    quip_status status = d->rows ? QUIP_OK : reserve_probe(p, n_rows, n_context, error);
    assert(status || (d->capacity.n_rows >= n_rows && d->capacity.n_context >= n_context));
    if (!status && !(p->context = calloc((size_t)n_context, sizeof *p->context)))
        status = qp_fail_memory(error, "a context", (size_t)n_context * sizeof *p->context);
    return status ? status : d->backend->sequence_open(&p->sequence, d, n_context, error);
}

void qp_probe_close(struct probe *p)
{
    if (!p->device)
        return;
    if (p->sequence)
        p->device->backend->sequence_close(p->sequence);
    if (p->owns_rows) { // what the first session needs is reserved again
        free(p->device->rows);
        p->device->rows = NULL;
        p->device->capacity = (struct capacity){ 0 };
    }
    free(p->context);
    *p = (struct probe){ 0 };
}

quip_token qp_probe_token(const struct config *c, int i)
{
    return (quip_token)((uint32_t)(i + 1) * 2654435761u % (uint32_t)c->vocab_size);
}

quip_status qp_probe_begin(struct probe *p, const quip_token *tokens, int n, bool draws,
                           quip_error *error)
{
    static const struct sampling greedy = { .repeat = 1, .dry_allowed_length = 1 };
    struct device *d = p->device;
    const struct backend *b = d->backend;
    const int pos = p->sequence->pos;
    const struct output output = { p->sequence, 0 };
    const struct rows rows = { d->rows, n };
    assert(n <= d->capacity.n_rows && pos + n <= p->sequence->n_context);
    for (int i = 0; i < n; i++) {
        p->context[pos + i] = tokens[i];
        d->rows[i] = (struct row){ .sequence = p->sequence,
                                   .pos = pos + i,
                                   .visible_end = pos + i + 1,
                                   .token = tokens[i],
                                   .is_output = i == n - 1 };
    }
    const struct draw draw = {
        .sampling = &greedy, .index = (uint64_t)(pos + n), .expected = -1, .context = p->context
    };
    quip_status status = b->begin(d, 0);
    if (!status && n > 0)
        status = qp_forward(d, &rows, NULL, NULL);
    if (!status)
        status = qp_forward_logits(d, &output, 1, NULL);
    if (!status && draws)
        status = b->sample(d, &draw, 1);
    if (!status)
        status = b->submit(d);
    return qp_device_fail(d, status, error);
}

quip_status qp_probe_end(struct probe *p, bool wait, float *logits, quip_token *best,
                         quip_error *error)
{
    struct device *d = p->device;
    quip_status status = d->backend->poll(d, wait);
    if (!status)
        status =
            best ? d->backend->read_tokens(d, best, 1) : d->backend->read(d, BUF_LOGITS, logits, 1);
    return qp_device_fail(d, status, error);
}

quip_status qp_probe_run(struct probe *p, const quip_token *tokens, int n, float *logits,
                         quip_token *best, quip_error *error)
{
    const quip_status status = qp_probe_begin(p, tokens, n, best != NULL, error);
    return status ? status : qp_probe_end(p, true, logits, best, error);
}
