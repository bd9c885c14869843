/* backend.c: the GPU backend: its memory, and its table.
 * In:  a model, and the capacity that its sessions ask for.
 * Out: a device: weights, the buffers of a batch, and tables of positions on the GPU. */
#include "webgpu/webgpu.h"
#include "webgpu/webgpu_impl.h"

#include <assert.h>
#include <stdlib.h>

/* Bytes behind each buffer that a shader may read, though it does not use them. */
#define SLACK_BYTES 256

/* Found on an H200: docs/notes/gpu.md. */
#define LARGE_READS (32 << 20)

/* ---- memory ---- */

static uint64_t scratch_bytes(uint64_t n_rows, int stride)
{
    return qp_round_up((size_t)(n_rows * (uint64_t)stride * 4), 16) + SLACK_BYTES;
}

quip_status qp_webgpu_alloc(struct webgpu_device *d, struct scratch *s, uint64_t n_rows, int stride,
                            quip_error *error)
{
    const uint64_t n_bytes = scratch_bytes(n_rows, stride), max = qp_gpu_info(d->gpu)->max_binding;
    *s = (struct scratch){ .n_bytes = n_bytes, .stride = stride };
    if (n_bytes > max)
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "a buffer needs %llu bytes; this GPU binds at most %llu",
                       (unsigned long long)n_bytes, (unsigned long long)max);
    return qp_gpu_buffer_open(&s->buffer, d->gpu, GPU_STORAGE, n_bytes, error);
}

void qp_webgpu_free(struct webgpu_device *d, struct scratch *s)
{
    if (!s->buffer)
        return;
    qp_webgpu_unbind(d, s->buffer);
    qp_gpu_buffer_close(d->gpu, s->buffer);
    *s = (struct scratch){ 0 };
}

/* A buffer of a batch, and its size. */
struct size {
    size_t offset; // in struct batch_memory
    uint64_t n_rows;
    int stride;
};

enum {
    N_SIZES = 22
};

enum {
    N_ALL_SIZES = N_SIZES + 7
};

/* The widest layer. */
static struct layer_config widest_layer(const struct config *c)
{
    struct layer_config w = { 0 };
    for (int l = 0; l < c->n_layers; l++) {
        const struct layer_config *lc = &c->layers[l];
        w.head_dim = qp_max(w.head_dim, lc->head_dim);
        w.n_kv_heads = qp_max(w.n_kv_heads, lc->n_kv_heads * lc->head_dim); // their width
        w.d_ff = qp_max(w.d_ff, lc->d_ff);
    }
    return w;
}

int qp_webgpu_text_blocks(const struct capacity *capacity)
{
    return capacity->n_rows / 64 + capacity->n_texts + 1;
}

/* Words of the keys and values of a position, in the widest layer. */
static int text_kv_words(const struct config *c)
{
    int n = 0;
    for (int l = 0; l < c->n_layers; l++)
        n = qp_max(n, 2 * c->layers[l].n_kv_heads * kv_words(false, c->layers[l].head_dim));
    return n;
}

/* The sizes of all buffers of batches of these capacities. */
static void list_sizes(struct size sizes[N_SIZES], const struct config *c,
                       const struct capacity *capacity)
{
#define AT(field) offsetof(struct batch_memory, field)
    const struct layer_config w = widest_layer(c);
    const int conv = c->conv_width ? c->d_model : 0; // b, c and x are where q, k and v are
    const int q = c->n_heads * w.head_dim, widest = qp_max(qp_max(c->d_model, q), w.d_ff);
    const int quantized = (int)qp_round_up((size_t)widest, ROW_UNIT) / 4;
    const int n_parts = qp_webgpu_max_parts(capacity->n_context);
    const int ple_width = c->d_ple * c->n_layers;
    const uint64_t n = (uint64_t)capacity->n_rows, n_ple = c->d_ple ? n : 0;
    const struct size all[N_SIZES] = {
        { AT(x), n, stride_of(c->d_model) },
        { AT(next_x), n, stride_of(c->d_model) },
        { AT(xn), n, stride_of(c->d_model) },
        { AT(y), n, stride_of(c->d_model) },
        { AT(qkv), n, stride_of(qp_max(q + 2 * w.n_kv_heads, 3 * conv)) },
        { AT(q), n, stride_of(q) },
        { AT(att), n, stride_of(qp_max(q, conv)) },
        { AT(gate_up), n, stride_of(2 * w.d_ff) },
        { AT(h), n, stride_of(w.d_ff) },
        { AT(logits), AHEAD_DRAWS, stride_of(c->vocab_size) },
        { AT(quantized), n, 2 * quantized }, // two bytes each, if need be (halves.wgsl)
        { AT(scales), n, quantized / 16 },
        { AT(parts), (uint64_t)LOGITS_ROWS * (uint64_t)c->n_heads * (uint64_t)n_parts,
          qp_webgpu_part_words(false, w.head_dim) },
        { AT(ple_rows), n_ple, stride_of(ple_width) },
        { AT(ple_context), n_ple, stride_of(ple_width) },
        { AT(ple_gate), n_ple, stride_of(c->d_ple) },
        { AT(ple), n_ple, stride_of(c->d_ple) },
        { AT(rows), 2 * n, 4 },
        { AT(draws), AHEAD_DRAWS, qp_webgpu_draw_words(c->vocab_size) },
        { AT(candidates), 1, qp_webgpu_candidate_words(c->vocab_size) },
        { AT(tokens), 1, AHEAD_DRAWS },
        { AT(low_rank), capacity->max_rank ? n : 1, stride_of(qp_max(1, capacity->max_rank)) },
    };
#undef AT
    for (int i = 0; i < N_SIZES; i++)
        sizes[i] = all[i];
}

/* The same of what only some models need: experts and texts; then the others. */
static void list_all_sizes(struct size sizes[N_ALL_SIZES], const struct config *c,
                           const struct weights *weights, const struct capacity *capacity)
{
#define AT(field) offsetof(struct batch_memory, field)
    const uint64_t n = (uint64_t)capacity->n_rows, n_texts = (uint64_t)capacity->n_texts;
    const uint64_t n_routed = c->experts.n ? n : 0,
                   n_pairs = n_routed * (uint64_t)c->experts.n_used;
    int pooled = c->d_model;
    for (int i = 0; i < weights->n_dense; i++)
        pooled = qp_max(pooled, weights->dense[i].w.n_out);
    const struct size some[N_ALL_SIZES - N_SIZES] = {
        { AT(expert_scores), n_routed, c->experts.n + 1 },
        { AT(chosen), n_routed, 2 * c->experts.n_used + 1 },
        { AT(expert_h), n_pairs, stride_of(c->experts.d_ff) },
        { AT(experts), n_routed, stride_of(c->d_model) },
        { AT(text_kv), n_texts ? (uint64_t)qp_webgpu_text_blocks(capacity) * 64 : 0,
          text_kv_words(c) },
        { AT(pooled[0]), n_texts, stride_of(pooled) },
        { AT(pooled[1]), n_texts, stride_of(pooled) },
    };
#undef AT
    for (int i = 0; i < N_ALL_SIZES - N_SIZES; i++)
        sizes[i] = some[i];
    list_sizes(sizes + N_ALL_SIZES - N_SIZES, c, capacity);
}

static struct scratch *scratch_at(struct batch_memory *m, const struct size *size)
{
    return (struct scratch *)(void *)((char *)m + size->offset);
}

static void free_batch(struct webgpu_device *d, struct batch_memory *m)
{
    struct size sizes[N_ALL_SIZES];
    list_all_sizes(sizes, d->base.config, d->base.weights, &d->base.capacity);
    for (int i = 0; i < N_ALL_SIZES; i++)
        qp_webgpu_free(d, scratch_at(m, &sizes[i]));
}

/* ---- reserve ---- */

static quip_status grow_batch(struct webgpu_device *d, const struct capacity *capacity,
                              quip_error *error)
{
    struct batch_memory m = { .readback = d->mem.readback };
    struct size sizes[N_ALL_SIZES];
    const size_t n_rows = 2 * (size_t)capacity->n_rows;
    uint32_t *staged = calloc(n_rows, 4 * sizeof *staged);
    quip_status status = staged ? QUIP_OK : qp_fail_memory(error, "a batch", 16 * n_rows);
    list_all_sizes(sizes, d->base.config, d->base.weights, capacity);
    for (int i = 0; i < N_ALL_SIZES && !status; i++)
        status =
            qp_webgpu_alloc(d, scratch_at(&m, &sizes[i]), sizes[i].n_rows, sizes[i].stride, error);
    if (status) {
        free_batch(d, &m);
        free(staged);
        return status;
    }
    free_batch(d, &d->mem);
    free(d->staged_rows);
    d->mem = m;
    d->staged_rows = staged;
    d->n_staged = 0;
    return QUIP_OK;
}

static quip_status webgpu_reserve(struct device *device, const struct capacity *want,
                                  quip_error *error)
{
    struct webgpu_device *d = webgpu_of(device);
    const struct capacity has = device->capacity;
    const struct capacity both = { .n_rows = qp_max(has.n_rows, want->n_rows),
                                   .n_context = qp_max(has.n_context, want->n_context),
                                   .max_rank = qp_max(has.max_rank, want->max_rank),
                                   .n_texts = qp_max(has.n_texts, want->n_texts) };
    quip_status status = grow_batch(d, &both, error);
    if (!status && both.n_context > has.n_context)
        status = qp_webgpu_fill_ropes(d, both.n_context, error);
    if (!status)
        device->capacity = both;
    return status;
}

/* ---- open, close, plan ---- */

static quip_status webgpu_check(quip_error *error)
{
    struct gpu *gpu;
    const quip_status status = qp_gpu_open(&gpu, error);
    qp_gpu_close(gpu);
    return status;
}

#if defined(__wasm__) // nothing here waits: the page chooses, and tests (quip_web_session_check)
#define webgpu_describe NULL
#else
static quip_status webgpu_describe(struct hardware *hardware, quip_error *error)
{
    struct gpu_info info = { 0 };
    const quip_status status = qp_gpu_find(&info, error);
    *hardware = (struct hardware){ .is_software = info.is_software };
    snprintf(hardware->name, sizeof hardware->name, "%s", info.name);
    snprintf(hardware->library, sizeof hardware->library, "%s", info.library);
    return status;
}
#endif

static void webgpu_close(struct device *device)
{
    struct webgpu_device *d = webgpu_of(device);
    free_batch(d, &d->mem);
    for (int r = 0; r < N_ROPES; r++)
        for (int set = 0; set < 2; set++)
            qp_webgpu_free(d, &d->ropes[r][set]);
    qp_webgpu_free_weights(d);
    qp_webgpu_recorder_close(d);
    qp_gpu_buffer_close(d->gpu, d->mem.readback.buffer);
    qp_gpu_close(d->gpu);
    free(d->profile.dispatches);
    free(d->staged_rows);
    free(d->host_logits);
    free(d->candidates);
    free(d->results);
    free(d);
}

static quip_status webgpu_open(struct device **device, const quip_model *model,
                               const struct device_options *options, quip_error *error)
{
    struct webgpu_device *d = calloc(1, sizeof *d);
    (void)options;
    *device = NULL;
    if (!d)
        return qp_fail_memory(error, "a device", sizeof *d);
    d->base = (struct device){ .backend = &qp_webgpu_backend,
                               .config = &model->config,
                               .weights = &model->weights };
    d->kv_is_f16 = !model->weights.has_float;
    d->large_reads = LARGE_READS;
    quip_status status = qp_gpu_open(&d->gpu, error);
    if (status) {
        free(d);
        return status;
    }
    status = qp_webgpu_recorder_open(d, error);
    if (!status)
        status = qp_webgpu_find_subgroup(d, error);
    if (!status)
        status = qp_webgpu_test_matrices(d, error);
    if (!status)
        status = qp_webgpu_upload(d, model, error);
    if (status)
        webgpu_close(&d->base);
    else
        *device = &d->base;
    return status;
}

static uint64_t rope_bytes(const struct config *c, int n_context)
{
    const int n_sets = c->n_context_original > 0 ? 2 : 1;
    uint64_t n = 0;
    for (int r = 0; r < N_ROPES; r++)
        n += scratch_bytes((uint64_t)n_context, c->ropes[r].dim) * (uint64_t)n_sets;
    return n;
}

static void webgpu_plan(struct device_plan *plan, const quip_model *model,
                        const struct device_options *options, const struct capacity *capacity)
{
    const struct config *c = &model->config;
    struct size sizes[N_ALL_SIZES];
    uint64_t n = qp_webgpu_weight_bytes(model) + rope_bytes(c, capacity->n_context);
    (void)options;
    list_all_sizes(sizes, c, &model->weights, capacity);
    for (int i = 0; i < N_ALL_SIZES; i++)
        n += scratch_bytes(sizes[i].n_rows, sizes[i].stride);
    plan->device_bytes = (size_t)n;
    plan->kv_bytes =
        (size_t)(qp_webgpu_kv_bytes(c, !model->weights.has_float, capacity->n_context) +
                 qp_webgpu_columns_bytes(c, capacity->n_context));
    plan->sequence_bytes = sizeof(struct webgpu_sequence) + sizeof(struct kv_pool) +
                           (size_t)c->n_layers * sizeof(struct scratch) +
                           AHEAD_DRAWS * (size_t)output_stride(c) * sizeof(float);
}

static int webgpu_n_threads(const struct device *device)
{
    (void)device;
    return 0;
}

static quip_status webgpu_begin(struct device *device, int n_threads)
{
    struct webgpu_device *d = webgpu_of(device);
    (void)n_threads;
    qp_webgpu_discard(d); // of a batch that failed before submit
    d->n_staged = 0;
    d->n_draws = d->n_logits = d->n_host_logits = d->n_candidates = 0;
    d->fetches_row = false;
    d->pending = (struct pending){ 0 };
    return qp_webgpu_status(d);
}

const struct backend qp_webgpu_backend = {
    .name = "webgpu",
    .check = webgpu_check,
    .describe = webgpu_describe,
    .check_model = qp_webgpu_check_model,
    .open = webgpu_open,
    .close = webgpu_close,
    .reserve = webgpu_reserve,
    .plan = webgpu_plan,
    .n_threads = webgpu_n_threads,
    .sequence_open = qp_webgpu_sequence_open,
    .sequence_close = qp_webgpu_sequence_close,
    .sequence_copy = qp_webgpu_sequence_copy,
    .sequence_rewind = qp_webgpu_sequence_rewind,
    .sequence_reserve_outputs = qp_webgpu_sequence_reserve_outputs,
    .sequence_export = qp_webgpu_sequence_export,
    .sequence_import = qp_webgpu_sequence_import,
    .adapter_open = qp_webgpu_adapter_open,
    .adapter_close = qp_webgpu_adapter_close,
    .begin = webgpu_begin,
    .embed = qp_webgpu_embed,
    .norm = qp_webgpu_norm,
    .add = qp_webgpu_add,
    .linear = qp_webgpu_linear,
    .rope_append = qp_webgpu_rope_append,
    .conv = qp_webgpu_conv,
    .keep_rows = qp_webgpu_keep_rows,
    .attend = qp_webgpu_attend,
    .gated = qp_webgpu_gated,
    .ple = qp_webgpu_ple,
    .scale = qp_webgpu_scale,
    .route = qp_webgpu_route,
    .experts = qp_webgpu_experts,
    .merge = qp_webgpu_merge,
    .keep_outputs = qp_webgpu_keep_outputs,
    .load_outputs = qp_webgpu_load_outputs,
    .logits = qp_webgpu_logits,
    .pool = qp_webgpu_pool,
    .dense = qp_webgpu_dense,
    .sample = qp_webgpu_sample,
    .max_ahead = qp_webgpu_max_ahead,
    .submit = qp_webgpu_submit,
    .poll = qp_webgpu_poll,
    .read_tokens = qp_webgpu_read_tokens,
    .read = qp_webgpu_read,
    .profile = qp_webgpu_profile,
};
