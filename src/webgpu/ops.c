/* ops.c: the operations of the GPU backend on one row at a time: embed, norm, add, outputs.
 * Each one records a dispatch or copies. */
#include "webgpu/webgpu_impl.h"

#include <assert.h>
#include <string.h>

/* ---- the rows of a batch ---- */

#define DRAWN 0x80000000u // the token of this draw (embed.wgsl)

static int longest_run(const struct rows *rows)
{
    int longest = 0;
    for (int t = 0; t < rows->n;) {
        const struct row_run run = run_at(rows, t);
        longest = qp_max(longest, run.n);
        t += run.n;
    }
    return longest;
}

/* Stage rows of a batch for the shaders. The last number is where a row is in the batch as it began
 * (keep.wgsl, ple.wgsl), and in its upper half the slot of its sequence (attend_few.wgsl). */
static void stage_rows(struct webgpu_device *d, const struct rows *rows, int first,
                       const struct rows *all)
{
    assert(first + rows->n <= 2 * d->base.capacity.n_rows);
    assert(rows->row[0].sequence->n_context == 0 || d->base.capacity.n_rows <= MAX_ROW_NUMBERS);
    d->has_texts = rows->row[0].sequence->n_context == 0;
    d->longest_run = longest_run(rows);
    for (int i = 0, source = 0; i < rows->n; i++, source++) {
        const struct row *row = &rows->row[i];
        while (all && !all->row[source].is_output)
            source++;
        uint32_t *to = d->staged_rows + 4 * (size_t)(first + i);
        to[0] =
            row->token == TOKEN_DRAWN ? DRAWN | (uint32_t)(d->n_draws - 1) : (uint32_t)row->token;
        to[1] = (uint32_t)row->pos;
        to[2] = (uint32_t)row->visible_end;
        to[3] = (uint32_t)source | (uint32_t)webgpu_sequence_of(row->sequence)->slot << 16;
    }
    d->first_row = first;
    d->n_staged = qp_max(d->n_staged, first + rows->n);
    d->has_new_rows = true;
}

/* ---- embed ---- */

/* The tokens of n rows; with n_candidates, the only row has the best of these. */
static quip_status embed_slab(struct webgpu_device *d, const struct gpu_slab *p, int n,
                              int n_candidates)
{
    const struct parameters {
        uint32_t n_in, n_rows, row_vecs, first, multiplier_at, scale_at, bias_at, zero_at;
        uint32_t x_stride, first_row;
        float factor;
        uint32_t n_candidates;
    } parameters = { (uint32_t)p->n_in,
                     (uint32_t)p->n_rows,
                     p->row_vecs,
                     (uint32_t)p->first,
                     p->multiplier_at,
                     p->scale_at,
                     p->bias_at,
                     p->zero_at,
                     (uint32_t)d->mem.x.stride,
                     (uint32_t)d->first_row,
                     d->base.config->embed_scale,
                     (uint32_t)n_candidates };
    const struct scratch *positions =
        d->position_memory.buffer ? &d->position_memory : &d->vector_memory;
    return qp_webgpu_dispatch(
        d, &(struct call){ .shader = SHADER_EMBED,
                           .constants = { qp_webgpu_type(p), p->has_zeros,
                                          d->position_memory.buffer != NULL, n_candidates > 0 },
                           .parameters = &parameters,
                           .n_parameters = sizeof parameters,
                           .bindings = { slab_range(p), range_of(&d->mem.rows), range_of(positions),
                                         range_of(&d->mem.candidates), range_of(&d->mem.tokens),
                                         range_of(&d->mem.x) },
                           .x = ((uint32_t)p->n_in + 255) / 256,
                           .y = (uint32_t)n });
}

/* ---- norm, add, scale ---- */

struct norm_parameters qp_webgpu_norm_parameters(const struct webgpu_device *d,
                                                 const struct add_step *s)
{
    static const struct norm_weights none;
    const struct config *c = d->base.config;
    const struct norm_weights *post = s->post_norm ? s->post_norm : &none,
                              *next = s->next_norm ? s->next_norm : &none;
    return (struct norm_parameters){ (uint32_t)c->d_model,
                                     (uint32_t)d->mem.x.stride / 4,
                                     qp_webgpu_vector(d, post->scale),
                                     qp_webgpu_vector(d, post->bias),
                                     qp_webgpu_vector(d, next->scale),
                                     qp_webgpu_vector(d, next->bias),
                                     qp_webgpu_vector(d, s->factor),
                                     c->norm_eps,
                                     c->residual_scale };
}

void qp_webgpu_norm_constants(const struct webgpu_device *d, const struct add_step *s,
                              int32_t constants[N_NORM_CONSTANTS])
{
    const enum norm_kind norm = d->base.config->norm;
    const int32_t all[N_NORM_CONSTANTS] = {
        s->post, s->adds, s->scales, s->next, norm == NORM_LAYER, norm == NORM_RMS_PLUS_1
    };
    memcpy(constants, all, sizeof all);
}

static quip_status record_step(struct webgpu_device *d, const struct add_step *s, int n)
{
    const struct norm_parameters parameters = qp_webgpu_norm_parameters(d, s);
    struct call call = { .shader = SHADER_ADD,
                         .constants = { d->base.config->d_model % 4 == 0 },
                         .parameters = &parameters,
                         .n_parameters = sizeof parameters,
                         .bindings = { range_of(&d->vector_memory), range_of(&d->mem.y),
                                       range_of(&d->mem.x), range_of(&d->mem.xn) },
                         .x = (uint32_t)n };
    assert(n > 0 && n <= d->base.capacity.n_rows);
    qp_webgpu_norm_constants(d, s, call.constants + 1);
    return qp_webgpu_dispatch(d, &call);
}

quip_status qp_webgpu_settle(struct webgpu_device *d)
{
    const int n = d->pending.n_rows;
    const struct add_step step = d->pending.step;
    d->pending.n_rows = 0;
    quip_status status = n > 0 ? record_step(d, &step, n) : QUIP_OK;
    if (!status && d->pending.rows.n > 0)
        status = qp_webgpu_settle_append(d);
    if (!status && d->pending.parts.n_rows > 0)
        status = qp_webgpu_settle_parts(d);
    if (!status && d->pending.best.n > 0)
        status = qp_webgpu_settle_best(d);
    return status;
}

/* Is `s` the end of a step that is pending? Then both are one. */
static bool extend_pending(struct webgpu_device *d, const struct add_step *s, int n)
{
    struct add_step *pending = &d->pending.step;
    if (n != d->pending.n_rows || s->post || s->adds || pending->next ||
        (s->scales && (pending->scales || pending->post == 2)))
        return false;
    pending->next = s->next;
    pending->next_norm = s->next_norm;
    if (s->scales) {
        pending->scales = true;
        pending->factor = s->factor;
    }
    return true;
}

/* Does no product behind a step with n rows do it? */
static bool is_many(const struct webgpu_device *d, int n)
{
    return n > SOME_ROWS && d->longest_run > SOME_ROWS;
}

/* Of few rows, a step waits for the product behind it. */
static quip_status add_rows(struct webgpu_device *d, const struct add_step *s, int n)
{
    if (s->adds || s->next == 2)
        d->pending.parallel_norm = s->next == 2 ? s->next_norm : NULL;
    if (extend_pending(d, s, n))
        return QUIP_OK;
    const quip_status status = qp_webgpu_settle(d);
    if (status)
        return status;
    if (is_many(d, n))
        return record_step(d, s, n);
    d->pending.step = *s;
    d->pending.n_rows = n;
    return QUIP_OK;
}

/* In a parallel block the feed-forward reads the XN of before the add. The add makes it again, so
 * that the product behind both does them in its prologue. */
static void add_in_parallel(struct webgpu_device *d, struct add_step *s, int n)
{
    const struct add_step *pending = &d->pending.step;
    if (s->next || !d->pending.parallel_norm || is_many(d, n))
        return;
    s->next = 3;
    s->next_norm = d->pending.parallel_norm;
    if (d->pending.n_rows == n && !pending->post && !pending->adds && !pending->scales)
        d->pending.n_rows = 0; // it is that norm
}

/* How XN follows from X: not at all, as it is, or normed. */
static int next_kind(const struct norm_weights *next)
{
    return !next ? 0 : next->scale ? 2 : 1;
}

/* ---- operations ---- */

quip_status qp_webgpu_embed(struct device *device, const struct rows *rows)
{
    struct webgpu_device *d = webgpu_of(device);
    const struct norm_weights *norm = &device->weights->embed_norm;
    const bool is_drawn = rows->row[0].token == TOKEN_DRAWN;
    const int n_candidates = is_drawn && rows->n == 1 ? d->pending.best.n : 0;
    if (n_candidates > 0)
        d->pending.best.n = 0;                        // it is found here
    quip_status status = qp_webgpu_settle_outputs(d); // of the rows before, in X
    qp_webgpu_gather(d, rows);
    if (!status && is_drawn)
        status = qp_webgpu_guess(d);
    stage_rows(d, rows, is_drawn ? d->n_staged : 0, NULL);
    for (int i = 0; i < rows->n; i++)
        if (rows->row[i].embedding)
            return qp_fail(&device->error, QUIP_E_UNSUPPORTED,
                           "the gpu backend does not run rows with embeddings of their own yet");
    for (int i = 0; i < d->embed.n_slabs && !status; i++)
        status = embed_slab(d, &d->embed.slabs[i], rows->n, n_candidates);
    if (!status && norm->scale)
        status = add_rows(d, &(struct add_step){ .post = 2, .post_norm = norm }, rows->n);
    return status || device->config->d_ple == 0 ? status : qp_webgpu_prepare_ple(d, rows);
}

quip_status qp_webgpu_norm(struct device *device, const struct norm_weights *w, int n_rows)
{
    const struct add_step step = { .next = next_kind(w), .next_norm = w };
    return add_rows(webgpu_of(device), &step, n_rows);
}

quip_status qp_webgpu_add(struct device *device, const struct norm_weights *post_norm,
                          const struct norm_weights *next, int n_rows)
{
    const bool norms_sum = device->config->norms_sum;
    struct add_step step = { .post = !post_norm->scale ? 0
                                     : norms_sum       ? 2
                                                       : 1,
                             .adds = true,
                             .next = next_kind(next),
                             .post_norm = post_norm,
                             .next_norm = next };
    if (device->config->is_parallel)
        add_in_parallel(webgpu_of(device), &step, n_rows);
    return add_rows(webgpu_of(device), &step, n_rows);
}

quip_status qp_webgpu_scale(struct device *device, const float *factor,
                            const struct norm_weights *next, int n_rows)
{
    const struct add_step step = {
        .scales = true, .factor = factor, .next = next_kind(next), .next_norm = next
    };
    return add_rows(webgpu_of(device), &step, n_rows);
}

/* ---- rows that are kept ---- */

static quip_status keep_buffer(struct webgpu_device *d, const struct scratch *s, int n)
{
    const struct parameters {
        uint32_t n, first_row, stride;
    } parameters = { (uint32_t)n, (uint32_t)d->first_row, (uint32_t)s->stride };
    return qp_webgpu_dispatch(d,
                              &(struct call){ .shader = SHADER_KEEP,
                                              .parameters = &parameters,
                                              .n_parameters = sizeof parameters,
                                              .bindings = { range_of(&d->mem.rows), range_of(s) },
                                              .x = ((uint32_t)s->stride + 63) / 64 });
}

quip_status qp_webgpu_keep_rows(struct device *device, const struct rows *rows,
                                const struct rows *kept)
{
    struct webgpu_device *d = webgpu_of(device);
    quip_status status = qp_webgpu_settle(d);
    if (status)
        return status;
    stage_rows(d, kept, rows->n, rows);
    status = keep_buffer(d, &d->mem.x, kept->n);
    if (!status)
        status = keep_buffer(d, &d->mem.xn, kept->n);
    if (!status)
        status = keep_buffer(d, &d->mem.q, kept->n);
    return status || device->config->conv_width == 0 ? status
                                                     : keep_buffer(d, &d->mem.att, kept->n);
}

static struct gpu_range output_row(const struct webgpu_sequence *s, int i)
{
    const uint64_t n_bytes = 4 * (uint64_t)s->outputs.stride;
    return (struct gpu_range){ s->outputs.buffer, (uint64_t)i * n_bytes, n_bytes };
}

struct gpu_range qp_webgpu_pending_output(const struct webgpu_device *d)
{
    const struct pending *p = &d->pending;
    return p->n_outputs == 1 && p->n_rows == 1 && p->step.adds && p->step.next
               ? output_row(p->outputs[0], p->first_output)
               : (struct gpu_range){ 0 };
}

/* Copy n rows of X, from row t on, to the outputs of a sequence, from the first on, or back. */
static void copy_rows(struct webgpu_device *d, const struct webgpu_sequence *s, int first, int t,
                      int n, bool is_back)
{
    const uint64_t row_bytes = 4 * (uint64_t)d->mem.x.stride;
    const int n_together = s->outputs.stride == d->mem.x.stride ? n : 1;
    for (int i = 0; i < n; i += n_together) {
        const struct gpu_range output = output_row(s, first + i);
        const uint64_t at = (uint64_t)(t + i) * row_bytes,
                       n_bytes = (uint64_t)n_together * row_bytes;
        if (is_back)
            qp_gpu_copy(d->gpu, d->mem.x.buffer, at, output.buffer, output.offset, n_bytes);
        else
            qp_gpu_copy(d->gpu, output.buffer, output.offset, d->mem.x.buffer, at, n_bytes);
    }
}

/* Rows of X become the outputs of a sequence. */
static void copy_outputs(struct webgpu_device *d, const struct row_run *run)
{
    const struct webgpu_sequence *s = run->sequence;
    const int first = d->pending.first_output;
    assert(first + run->n == s->n_outputs && s->n_outputs <= s->max_outputs);
    copy_rows(d, s, first, run->first, run->n, false);
}

quip_status qp_webgpu_settle_outputs(struct webgpu_device *d)
{
    const int n = d->pending.n_outputs;
    const quip_status status = n > 0 ? qp_webgpu_settle(d) : QUIP_OK;
    d->pending.n_outputs = 0;
    for (int t = 0; t < n && !status;) {
        struct row_run run = { .sequence = d->pending.outputs[t], .first = t, .n = 1 };
        while (t + run.n < n && d->pending.outputs[t + run.n] == run.sequence)
            run.n++;
        copy_outputs(d, &run);
        t += run.n;
    }
    return status;
}

/* Few outputs stay in X as long as they can: their logits are likely to be next. */
quip_status qp_webgpu_keep_outputs(struct device *device, const struct rows *rows)
{
    struct webgpu_device *d = webgpu_of(device);
    const bool waits = rows->n <= LOGITS_ROWS;
    quip_status status = qp_webgpu_settle_outputs(d);
    if (!status && !waits)
        status = qp_webgpu_settle(d);
    for (int t = 0; t < rows->n && !status;) {
        const struct row_run run = run_at(rows, t);
        const int first = rows->row[t].token == TOKEN_DRAWN ? run.sequence->n_outputs : 0;
        run.sequence->n_outputs = first + run.n;
        d->pending.first_output = first;
        for (int i = t; i < t + run.n && waits; i++)
            d->pending.outputs[i] = run.sequence;
        if (!waits)
            copy_outputs(d, &run);
        t += run.n;
    }
    d->pending.n_outputs = waits && !status ? rows->n : 0;
    return status;
}

/* Are the first n rows of X these outputs? */
static bool has_outputs(const struct webgpu_device *d, const struct output *outputs, int n)
{
    if (n != d->pending.n_outputs)
        return false;
    for (int t = 0, index = 0; t < n; t++) {
        const bool is_more = t > 0 && outputs[t].sequence == outputs[t - 1].sequence;
        index = is_more ? index + 1 : d->pending.first_output;
        if (outputs[t].sequence != &d->pending.outputs[t]->base || outputs[t].index != index)
            return false;
    }
    return true;
}

quip_status qp_webgpu_load_outputs(struct device *device, const struct output *outputs, int n)
{
    struct webgpu_device *d = webgpu_of(device);
    if (has_outputs(d, outputs, n))
        return QUIP_OK;
    quip_status status = qp_webgpu_settle_outputs(d);
    if (!status)
        status = qp_webgpu_settle(d);
    assert(n > 0 && n <= LOGITS_ROWS);
    for (int t = 0; t < n && !status;) {
        const struct webgpu_sequence *s = webgpu_sequence_of(outputs[t].sequence);
        const int first = outputs[t].index;
        int n_run = 1;
        while (t + n_run < n && outputs[t + n_run].sequence == &s->base &&
               outputs[t + n_run].index == first + n_run)
            n_run++;
        assert(first >= 0 && first + n_run <= s->n_outputs);
        copy_rows(d, s, first, t, n_run, true);
        t += n_run;
    }
    return status;
}
