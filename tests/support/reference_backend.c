/* reference_backend.c: the table of engine/backend.h in plain C: one thread, floats, no blocking.
 * In:  operations on buffers, recorded in order.
 * Out: buffers, keys and values, tokens, once poll has run what was recorded.
 *
 * It is asynchronous: an operation is only recorded, with a copy of what it needs, and all of them
 * run in the poll that is done. So it shows what a GPU backend may and may not rely on. */
#include "support/reference_impl.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct reference_knobs reference_knobs;

/* ---- failures on demand ---- */

static bool fails_now(const char *name)
{
    reference_knobs.n_calls++;
    if (reference_knobs.fail_in == 0 || --reference_knobs.fail_in > 0)
        return false;
    reference_knobs.failed = name;
    return true;
}

static quip_status fail(const char *name, quip_error *error)
{
    return qp_fail(error, reference_knobs.failure, "the reference backend failed in %s", name);
}

/* The failure of a call that can always fail, or QUIP_OK. */
static quip_status try_call(const char *name, quip_error *error)
{
    return fails_now(name) ? fail(name, error) : QUIP_OK;
}

/* ---- open, close ---- */

static void alloc_matrix(struct floats *f, const struct matrix *m, struct arena *a)
{
    *f = (struct floats){ .n_out = m->n_out, .n_in = m->n_in, .bias = m->bias };
    f->w = qp_arena_alloc(a, (size_t)m->n_out * (size_t)m->n_in * sizeof *f->w);
}

/* Allocate the dequantized weights, or measure them. */
static void alloc_weights(struct reference_device *d, const quip_model *model, struct arena *a)
{
    const struct weights *w = &model->weights;
    const int n_layers = model->config.n_layers;
    alloc_matrix(&d->embed, &w->embed, a);
    alloc_matrix(&d->head, &w->head, a);
    alloc_matrix(&d->ple, &w->ple, a);
    d->m = qp_arena_alloc(a, (size_t)n_layers * N_MATRICES * sizeof *d->m);
    for (int i = 0; i < n_layers * N_MATRICES; i++) {
        const struct matrix *m = &w->layers[i / N_MATRICES].m[i % N_MATRICES];
        struct floats f = { 0 };
        if (m->n_out > 0)
            alloc_matrix(&f, m, a);
        if (d->m)
            d->m[i] = f;
    }
}

static void dequantize(const struct floats *to, const struct matrix *from)
{
    for (int r = 0; r < to->n_out; r++)
        qp_matrix_read_row(from, r, to->w + (size_t)r * (size_t)to->n_in);
}

/* Mixed rows mixed again are as before, so the inputs need not be mixed. */
static void unmix(const struct floats *f)
{
    for (int r = 0; r < f->n_out; r++)
        qp_mix_row(f->w + (size_t)r * (size_t)f->n_in, f->n_in);
}

static quip_status reference_check(quip_error *error)
{
    (void)error;
    return QUIP_OK;
}

static quip_status reference_open(struct device **device, const quip_model *model,
                                  const struct device_options *options, quip_error *error)
{
    struct arena measured = { 0 };
    quip_status status = try_call("open", error);
    struct reference_device *d = status ? NULL : calloc(1, sizeof *d);
    (void)options;
    *device = NULL;
    if (!d)
        return status ? status : qp_fail_memory(error, "a device", sizeof *d);
    alloc_weights(d, model, &measured);
    status = qp_arena_open(&d->weights, measured.used, "dequantized weights", error);
    if (status) {
        free(d);
        return status;
    }
    alloc_weights(d, model, &d->weights);
    dequantize(&d->embed, &model->weights.embed);
    dequantize(&d->head, &model->weights.head);
    dequantize(&d->ple, &model->weights.ple);
    for (int i = 0; i < model->config.n_layers * N_MATRICES; i++)
        dequantize(&d->m[i], &model->weights.layers[i / N_MATRICES].m[i % N_MATRICES]);
    for (int i = 0; i < model->config.n_layers * N_MATRICES && model->config.mixes_inputs; i++)
        unmix(&d->m[i]);
    d->base = (struct device){ .backend = &reference_backend,
                               .config = &model->config,
                               .weights = &model->weights };
    *device = &d->base;
    return QUIP_OK;
}

static void drop_commands(struct reference_device *d)
{
    for (int i = 0; i < d->n_commands; i++)
        free(d->commands[i].rows);
    d->n_commands = 0;
}

static void reference_close(struct device *device)
{
    struct reference_device *d = device_of(device);
    drop_commands(d);
    free(d->commands);
    qp_arena_close(&d->weights);
    qp_arena_close(&d->buffers);
    free(d);
}

static void alloc_buffers(struct reference_device *d, const struct config *c, int n_rows,
                          struct arena *a)
{
    for (int b = 0; b < N_BUFFERS; b++) {
        const size_t n = b == BUF_LOGITS   ? LOGITS_ROWS
                         : b == BUF_POOLED ? EMBED_TEXTS
                                           : (size_t)n_rows;
        d->buffer[b] = qp_arena_alloc(a, n * (size_t)width_of(c, b) * sizeof *d->buffer[b]);
    }
    d->expert_weights = qp_arena_alloc(a, (size_t)n_rows * (size_t)c->experts.n * sizeof(float));
    d->shared_weights = qp_arena_alloc(a, (size_t)n_rows * sizeof(float));
    d->candidates = qp_arena_alloc(a, (size_t)c->vocab_size * sizeof *d->candidates);
}

static quip_status reference_reserve(struct device *device, const struct capacity *capacity,
                                     quip_error *error)
{
    struct reference_device *d = device_of(device), measured;
    struct capacity *has = &device->capacity;
    struct arena size = { 0 }, arena;
    quip_status status = try_call("reserve", error);
    if (!status && capacity->n_rows > has->n_rows) {
        alloc_buffers(&measured, device->config, capacity->n_rows, &size);
        status = qp_arena_open(&arena, size.used, "the buffers of a batch", error);
        if (!status) {
            qp_arena_close(&d->buffers);
            d->buffers = arena;
            alloc_buffers(d, device->config, capacity->n_rows, &d->buffers);
            has->n_rows = capacity->n_rows;
        }
    }
    if (status)
        return status;
    has->n_context = capacity->n_context > has->n_context ? capacity->n_context : has->n_context;
    has->max_rank = capacity->max_rank > has->max_rank ? capacity->max_rank : has->max_rank;
    has->n_texts = EMBED_TEXTS;
    return QUIP_OK;
}

static int reference_n_threads(const struct device *device)
{
    (void)device;
    return 0;
}

/* ---- sequences ---- */

/* Allocate keys and values, or measure them. */
static void alloc_sequence(struct reference_sequence *s, const struct config *c, int n_context,
                           struct arena *a)
{
    s->layers = qp_arena_alloc(a, (size_t)c->n_layers * sizeof *s->layers);
    for (int l = 0; l < c->n_layers; l++) {
        const int owner = c->layers[l].kv_layer;
        const size_t n_bytes = (size_t)n_context * cache_width(c, l) * sizeof(float);
        struct cache layer = { 0 };
        if (owner == l)
            layer = (struct cache){ qp_arena_alloc(a, n_bytes), qp_arena_alloc(a, n_bytes) };
        if (s->layers)
            s->layers[l] = owner == l ? layer : s->layers[owner];
    }
}

static void reference_plan(struct device_plan *plan, const quip_model *model,
                           const struct device_options *options, const struct capacity *capacity)
{
    struct reference_device d;
    struct reference_sequence s;
    struct arena device = { 0 }, sequence = { 0 };
    (void)options;
    alloc_weights(&(struct reference_device){ 0 }, model, &device);
    alloc_buffers(&d, &model->config, capacity->n_rows, &device);
    alloc_sequence(&s, &model->config, capacity->n_context, &sequence);
    plan->device_bytes = device.used + sizeof d;
    plan->kv_bytes = sequence.used;
    plan->sequence_bytes =
        sizeof s + SEQUENCE_OUTPUTS * (size_t)model->config.d_model * sizeof(float);
}

static quip_status reference_reserve_outputs(struct sequence *sequence, int n, quip_error *error)
{
    struct reference_sequence *s = sequence_of(sequence);
    n = n > SEQUENCE_OUTPUTS ? n : SEQUENCE_OUTPUTS;
    const size_t n_bytes = (size_t)n * (size_t)sequence->device->config->d_model * sizeof(float);
    const quip_status status = try_call("sequence_reserve_outputs", error);
    float *outputs = status ? NULL : malloc(n_bytes);
    if (!outputs)
        return status ? status : qp_fail_memory(error, "a session's outputs", n_bytes);
    free(s->outputs);
    s->outputs = outputs;
    s->max_outputs = n;
    s->n_outputs = 0;
    return QUIP_OK;
}

static void reference_sequence_close(struct sequence *sequence)
{
    struct reference_sequence *s = sequence_of(sequence);
    if (!s)
        return;
    qp_arena_close(&s->arena);
    free(s->outputs);
    free(s);
}

static quip_status reference_sequence_open(struct sequence **sequence, struct device *device,
                                           int n_context, quip_error *error)
{
    const struct config *c = device->config;
    struct reference_sequence measured;
    struct arena size = { 0 };
    quip_status status = try_call("sequence_open", error);
    struct reference_sequence *s = status ? NULL : calloc(1, sizeof *s);
    *sequence = NULL;
    if (!s)
        return status ? status : qp_fail_memory(error, "a sequence", sizeof *s);
    s->base = (struct sequence){ .device = device, .n_context = n_context };
    n_context = n_context > 0 ? n_context : device->capacity.n_rows;
    alloc_sequence(&measured, c, n_context, &size);
    status = qp_arena_open(&s->arena, size.used, "a session's KV cache", error);
    if (!status)
        status = reference_reserve_outputs(&s->base, SEQUENCE_OUTPUTS, error);
    if (status) {
        reference_sequence_close(&s->base);
        return status;
    }
    alloc_sequence(s, c, n_context, &s->arena);
    *sequence = &s->base;
    return QUIP_OK;
}

static void reference_sequence_copy(struct sequence *copy, const struct sequence *original)
{
    struct reference_sequence *to = sequence_of(copy);
    const struct reference_sequence *from = (const struct reference_sequence *)original;
    const struct config *c = original->device->config;
    for (int l = 0; l < c->n_layers; l++) {
        const size_t n_bytes = (size_t)original->pos * cache_width(c, l) * sizeof(float);
        memcpy(to->layers[l].k, from->layers[l].k, n_bytes);
        memcpy(to->layers[l].v, from->layers[l].v, n_bytes);
    }
    to->n_outputs = qp_min(from->n_outputs, to->max_outputs);
    memcpy(to->outputs, from->outputs,
           (size_t)to->n_outputs * (size_t)c->d_model * sizeof *to->outputs);
    copy->pos = original->pos;
}

static void reference_sequence_rewind(struct sequence *sequence, int pos)
{
    assert(pos >= 0 && pos <= sequence->pos);
    sequence->pos = pos; // no layer is a ring: nothing is lost
}

/* The stream: this header, the outputs, then keys and values of each layer, all floats. */
struct header {
    int32_t n_layers, kv_width, d_model, pos, n_outputs;
};

static bool transfer_sequence(const struct reference_sequence *s, const struct header *h,
                              const struct stream *stream)
{
    bool ok = stream->transfer(stream->user, s->outputs,
                               (size_t)h->n_outputs * (size_t)h->d_model * sizeof(float));
    for (int l = 0; ok && l < h->n_layers; l++) {
        const size_t width = cache_width(s->base.device->config, l);
        const size_t n_bytes = (size_t)h->pos * width * sizeof(float);
        ok = stream->transfer(stream->user, s->layers[l].k, n_bytes) &&
             stream->transfer(stream->user, s->layers[l].v, n_bytes);
    }
    return ok;
}

static quip_status reference_export(const struct sequence *sequence, const struct stream *to,
                                    quip_error *error)
{
    const struct reference_sequence *s = (const struct reference_sequence *)sequence;
    const struct config *c = sequence->device->config;
    struct header h = { c->n_layers, (int)kv_width(c), c->d_model, sequence->pos, s->n_outputs };
    const quip_status status = try_call("sequence_export", error);
    if (status)
        return status;
    if (to->transfer(to->user, &h, sizeof h) && transfer_sequence(s, &h, to))
        return QUIP_OK;
    return qp_fail(error, QUIP_E_IO, "the KV cache could not be written");
}

static quip_status reference_import(struct sequence *sequence, const struct stream *from,
                                    quip_error *error)
{
    struct reference_sequence *s = sequence_of(sequence);
    const struct config *c = sequence->device->config;
    struct header h;
    quip_status status = try_call("sequence_import", error);
    if (status)
        return status;
    s->n_outputs = 0;
    if (!from->transfer(from->user, &h, sizeof h))
        return qp_fail(error, QUIP_E_IO, "the KV cache could not be read");
    if (h.n_layers != c->n_layers || h.kv_width != (int)kv_width(c) || h.d_model != c->d_model)
        return qp_fail(error, QUIP_E_FORMAT,
                       "the KV cache is of another model, or of another backend");
    if (h.pos < 0 || h.pos > sequence->n_context || h.n_outputs < 0 ||
        h.n_outputs > sequence->n_context)
        return qp_fail(error, QUIP_E_FORMAT,
                       "the KV cache has %d positions and %d outputs, expected 0 to %d", (int)h.pos,
                       (int)h.n_outputs, sequence->n_context);
    if ((status = reference_reserve_outputs(sequence, h.n_outputs, error)))
        return status;
    if (!transfer_sequence(s, &h, from))
        return qp_fail(error, QUIP_E_IO, "the KV cache could not be read");
    s->n_outputs = h.n_outputs;
    sequence->pos = h.pos;
    return QUIP_OK;
}

/* ---- adapters ---- */

static struct pair alloc_pair(const struct adapter *adapter, int l, int m, struct arena *a)
{
    const struct matrix *w = &adapter->model->weights.layers[l].m[m];
    const int rank = qp_adapter_pair(adapter, l, (enum layer_matrix)m)->rank;
    const size_t n = (size_t)rank * sizeof(float);
    if (rank == 0)
        return (struct pair){ 0 };
    return (struct pair){ rank, qp_arena_alloc(a, n * (size_t)w->n_in),
                          qp_arena_alloc(a, n * (size_t)w->n_out) };
}

/* Allocate the pairs, or measure them. */
static void alloc_adapter(struct device_adapter *to, const struct adapter *adapter, struct arena *a)
{
    const int n = adapter->model->config.n_layers * N_MATRICES;
    to->pairs = qp_arena_alloc(a, (size_t)n * sizeof *to->pairs);
    for (int i = 0; i < n; i++) {
        const struct pair pair = alloc_pair(adapter, i / N_MATRICES, i % N_MATRICES, a);
        if (to->pairs)
            to->pairs[i] = pair;
    }
}

static void reference_adapter_close(struct device_adapter *packed)
{
    if (!packed)
        return;
    qp_arena_close(&packed->arena);
    free(packed);
}

static quip_status reference_adapter_open(struct device_adapter **packed, struct device *device,
                                          struct adapter *adapter, quip_error *error)
{
    struct device_adapter measured;
    struct arena size = { 0 };
    quip_status status = try_call("adapter_open", error);
    struct device_adapter *to = status ? NULL : calloc(1, sizeof *to);
    *packed = NULL;
    if (!to)
        return status ? status : qp_fail_memory(error, "an adapter", sizeof *to);
    alloc_adapter(&measured, adapter, &size);
    status = qp_arena_open(&to->arena, size.used, "an adapter", error);
    if (!status)
        alloc_adapter(to, adapter, &to->arena);
    for (int i = 0; i < device->config->n_layers * N_MATRICES && !status; i++)
        if (to->pairs[i].rank)
            status = qp_adapter_read(adapter, i / N_MATRICES, (enum layer_matrix)(i % N_MATRICES),
                                     to->pairs[i].a, to->pairs[i].b, error);
    if (status)
        reference_adapter_close(to);
    else
        *packed = to;
    return status;
}

/* ---- recording ---- */

quip_status reference_record(struct device *device, struct command c, const struct rows *rows)
{
    struct reference_device *d = device_of(device);
    if (!reference_knobs.fails_when_run && fails_now(c.name))
        return fail(c.name, &device->error);
    if (d->n_commands == d->max_commands) {
        const int max = 2 * d->max_commands + 64;
        struct command *more = realloc(d->commands, (size_t)max * sizeof *more);
        if (!more)
            return qp_fail_memory(&device->error, "a batch", (size_t)max * sizeof *more);
        d->commands = more;
        d->max_commands = max;
    }
    if (rows) {
        assert(rows->n > 0 && rows->n <= device->capacity.n_rows);
        c.n = rows->n;
        c.rows = malloc((size_t)rows->n * sizeof *c.rows);
        if (!c.rows)
            return qp_fail_memory(&device->error, "a batch", (size_t)rows->n * sizeof *c.rows);
        memcpy(c.rows, rows->row, (size_t)rows->n * sizeof *c.rows);
    }
    d->commands[d->n_commands++] = c;
    return QUIP_OK;
}

/* Run what was recorded. */
static quip_status run_commands(struct reference_device *d)
{
    quip_status status = QUIP_OK;
    for (int i = 0; i < d->n_commands && !status; i++) {
        const struct command *c = &d->commands[i];
        if (reference_knobs.fails_when_run && fails_now(c->name))
            status = fail(c->name, &d->base.error);
        else
            c->run(d, c);
    }
    drop_commands(d);
    return status;
}

static quip_status reference_begin(struct device *device, int n_threads)
{
    (void)n_threads;
    drop_commands(device_of(device)); // of a batch that failed before submit
    return try_call("begin", &device->error);
}

static quip_status reference_submit(struct device *device)
{
    device_of(device)->n_not_yet = reference_knobs.n_not_yet;
    return try_call("submit", &device->error);
}

static quip_status reference_poll(struct device *device, bool wait)
{
    struct reference_device *d = device_of(device);
    if ((!wait || reference_knobs.cannot_wait) && d->n_not_yet > 0) {
        d->n_not_yet--;
        reference_knobs.n_polls++;
        return QP_NOT_YET;
    }
    const quip_status status = try_call("poll", &device->error);
    if (status)
        drop_commands(d);
    return status ? status : run_commands(d);
}

static quip_status reference_read_tokens(struct device *device, quip_token *tokens, int n)
{
    memcpy(tokens, device_of(device)->tokens, (size_t)n * sizeof *tokens);
    return try_call("read_tokens", &device->error);
}

/* The floats of a row that a caller gets. */
static int reference_read_width(const struct reference_device *d, enum buffer b)
{
    const struct weights *w = d->base.weights;
    return b == BUF_POOLED ? qp_pooled_width(w, d->base.config->d_model, w->n_dense)
                           : width_of(d->base.config, b);
}

/* An observer reads in the middle of a batch, so run what there is. */
static quip_status reference_read(struct device *device, enum buffer from, float *to, int n)
{
    struct reference_device *d = device_of(device);
    quip_status status = try_call("read", &device->error);
    if (!status)
        status = run_commands(d);
    if (!status)
        for (int t = 0; t < n; t++)
            memcpy(to + (size_t)t * (size_t)reference_read_width(d, from), row_of(d, from, t),
                   (size_t)reference_read_width(d, from) * sizeof *to);
    return status;
}

const struct backend reference_backend = {
    .name = "reference",
    .check = reference_check,
    .open = reference_open,
    .close = reference_close,
    .reserve = reference_reserve,
    .plan = reference_plan,
    .n_threads = reference_n_threads,
    .sequence_open = reference_sequence_open,
    .sequence_close = reference_sequence_close,
    .sequence_copy = reference_sequence_copy,
    .sequence_rewind = reference_sequence_rewind,
    .sequence_reserve_outputs = reference_reserve_outputs,
    .sequence_export = reference_export,
    .sequence_import = reference_import,
    .adapter_open = reference_adapter_open,
    .adapter_close = reference_adapter_close,
    .begin = reference_begin,
    .embed = reference_embed,
    .norm = reference_norm,
    .add = reference_add,
    .linear = reference_linear,
    .rope_append = reference_rope_append,
    .keep_rows = reference_keep_rows,
    .attend = reference_attend,
    .conv = reference_conv,
    .gated = reference_gated,
    .ple = reference_ple,
    .scale = reference_scale,
    .route = reference_route,
    .experts = reference_experts,
    .merge = reference_merge,
    .keep_outputs = reference_keep_outputs,
    .load_outputs = reference_load_outputs,
    .logits = reference_logits,
    .pool = reference_pool,
    .dense = reference_dense,
    .sample = reference_sample,
    .submit = reference_submit,
    .poll = reference_poll,
    .read_tokens = reference_read_tokens,
    .read = reference_read,
};
