/* device.c: the CPU backend: its memory, and its table.
 * In:  a model, and the capacity that its sessions ask for.
 * Out: a device: buffers of a batch, scratch of each thread, tables of positions, and a pool.
 *
 * Memory is in three arenas, which grow with the rows of a batch, with the longest context and with
 * the largest rank of an adapter. Each is laid out by one function, which first measures and then
 * allocates. */
#include "cpu/cpu.h"
#include "cpu/cpu_impl.h"

#include <assert.h>
#include <stdlib.h>

/* ---- layout ---- */

struct act qp_cpu_alloc_act(const struct weights *w, struct arena *a, int n_cols, int n_rows)
{
    struct act act = { .n_cols = n_cols, .max_cols = n_cols };
    const size_t n = (size_t)n_rows, padded = qp_round_up((size_t)n_cols, ACT_BLOCK);
    /* An odd number of cache lines, so that the lines of 16 rows are not in a few sets of the L1:
     * the tiles of AMX read them together. */
    act.q_stride = padded + (padded / ACT_BLOCK % 2 ? 0 : ACT_BLOCK);
    act.n_blocks = (int)(padded / ACT_BLOCK);
    if (w->has_float || w->has_rest)
        act.f32 = qp_cpu_alloc(a, n, (size_t)n_cols, sizeof *act.f32);
    if (w->has_integer) {
        act.q = qp_cpu_alloc(a, n, act.q_stride, sizeof *act.q);
        act.scales = qp_cpu_alloc(a, n, (size_t)act.n_blocks, sizeof *act.scales);
        act.offsets = qp_cpu_alloc(a, n, (size_t)act.n_blocks, sizeof *act.offsets);
    }
    return act;
}

/* The softmax state of n rows. */
static struct attention_part alloc_attention_part(struct arena *a, size_t n, int head_dim)
{
    return (struct attention_part){ .m = qp_cpu_alloc(a, n, 1, sizeof(float)),
                                    .l = qp_cpu_alloc(a, n, 1, sizeof(float)),
                                    .o = qp_cpu_alloc(a, n, (size_t)head_dim, sizeof(float)) };
}

/* The largest sizes of the layers. */
struct widths {
    int head_dim, q, kv, d_ff; // kv: also d_ple
};

static struct widths find_widths(const struct config *c)
{
    struct widths w = { 0 };
    for (int l = 0; l < c->n_layers; l++) {
        const struct layer_config *lc = &c->layers[l];
        w.head_dim = qp_max(w.head_dim, lc->head_dim);
        w.kv = qp_max(qp_max(w.kv, c->d_ple), lc->n_kv_heads * lc->head_dim);
        w.d_ff = qp_max(w.d_ff, lc->d_ff);
    }
    w.q = c->n_heads * w.head_dim;
    if (c->conv_width > 0) {
        w.q = qp_max(w.q, c->d_model);
        w.kv = qp_max(w.kv, c->d_model);
    }
    return w;
}

/* The widest input of a product. */
static int widest_input(const struct config *c, const struct widths *w)
{
    return qp_max(qp_max(w->d_ff, c->d_ple), qp_max(qp_max(c->d_model, c->experts.d_ff), w->q));
}

static struct worker_scratch alloc_scratch(const struct cpu_device *d, const struct widths *w,
                                           struct arena *a, int n_rows, int n_texts)
{
    const struct config *c = d->base.config;
    const int widest = widest_input(c, w);
    struct worker_scratch s = {
        .tile = qp_arena_alloc(a, d->k.tile_bytes(widest)),
        .tile_gate = qp_arena_alloc(a, d->k.tile_bytes(c->d_model)),
        .gate = qp_cpu_alloc(a, TASK_ROWS, TILE_ROWS, sizeof(float)),
        .up = qp_cpu_alloc(a, TASK_ROWS, TILE_ROWS, sizeof(float)),
        .row = qp_cpu_alloc(a, 1, (size_t)widest, sizeof(float)),
    };
    if (d->kv.is_int8) {
        s.int8_attention = qp_arena_alloc(a, sizeof *s.int8_attention);
        s.sum = alloc_attention_part(a, ATTENTION_MAX_ROWS, w->head_dim);
        s.part = alloc_attention_part(a, ATTENTION_MAX_ROWS, w->head_dim);
    }
    if (!d->kv.is_int8 || n_texts > 0)
        s.attention = qp_cpu_alloc(a, 1, qp_attention_scratch(w->head_dim, ATTENTION_MAX_ROWS),
                                   sizeof(float));
    if (n_texts > 0 && d->base.weights->has_rest) {
        s.rest = qp_arena_alloc(a, d->k.tile_bytes(widest));
        s.rest_gate = qp_arena_alloc(a, d->k.tile_bytes(c->d_model));
        s.exact_sums = qp_cpu_alloc(a, TASK_ROWS, TILE_ROWS, sizeof(float));
    }
    if (n_texts > 0)
        s.text_keys = qp_cpu_alloc(a, 1, qp_text_scratch(d, w->head_dim, n_rows), sizeof(float));
    return s;
}

/* The widest that what is pooled becomes. */
static int max_pooled_width(const struct weights *w, int d_model)
{
    int width = d_model;
    for (int i = 0; i < w->n_dense; i++)
        width = qp_max(width, w->dense[i].w.n_out);
    return width;
}

static void alloc_exact(struct row_memory *m, struct arena *a, int n_rows, int n_texts, int widest)
{
    const struct weights integers = { .has_integer = true };
    const int n = qp_min(n_rows, n_texts * (MAX_EXACT + 1));
    m->exact_before = qp_cpu_alloc(a, (size_t)n_rows + 1, 1, sizeof *m->exact_before);
    m->exact_first = qp_cpu_alloc_act(&integers, a, widest, n);
    m->exact_second = qp_cpu_alloc_act(&integers, a, widest, n);
}

static void alloc_rows(struct row_memory *m, struct expert_memory *experts,
                       const struct cpu_device *d, int n_rows, int n_texts)
{
    const struct config *c = d->base.config;
    const struct weights *w = d->base.weights;
    const struct widths widths = find_widths(c);
    struct arena *a = &m->arena;
    const size_t n = (size_t)n_rows, d_model = (size_t)c->d_model;
    const size_t q_width = (size_t)widths.q, kv_width = (size_t)widths.kv;

    m->x = qp_cpu_alloc(a, n, d_model, sizeof(float));
    m->q = qp_cpu_alloc(a, n, q_width > d_model ? q_width : d_model, sizeof(float));
    m->y = m->q; // Q is read for the last time before Y is written
    m->k = m->ple_gate = qp_cpu_alloc(a, n, kv_width, sizeof(float));
    m->v = m->ple_context = qp_cpu_alloc(a, n, kv_width, sizeof(float));
    m->xn = qp_cpu_alloc_act(w, a, c->d_model, n_rows);
    m->att = m->ple = qp_cpu_alloc_act(w, a, qp_max(widths.q, c->d_ple), n_rows);
    if (c->d_ple > 0) {
        m->e = qp_cpu_alloc_act(w, a, c->d_model, n_rows);
        act_resize(&m->ple, c->d_ple);
    }
    m->h = qp_cpu_alloc_act(w, a, widths.d_ff, n_rows);
    qp_experts_alloc(experts, d, a, n_rows);
    m->logits = qp_cpu_alloc(a, LOGITS_ROWS, (size_t)c->vocab_size, sizeof(float));
    m->candidates = qp_cpu_alloc(a, 1, (size_t)c->vocab_size, sizeof *m->candidates);
    if (n_texts > 0 && w->has_rest)
        alloc_exact(m, a, n_rows, n_texts, widest_input(c, &widths));
    if (n_texts > 0 && !w->has_float && !w->has_rest)
        m->text_att = qp_cpu_alloc(a, n, q_width, sizeof(float));
    if (n_texts > 0 && qp_text_blocks(d, n_rows) > 0)
        m->text_kv = qp_kv_alloc_texts(&d->kv, c, qp_text_blocks(d, n_rows), a);
    for (int i = 0; i < 2 && n_texts > 0; i++)
        m->pooled[i] = qp_cpu_alloc(a, (size_t)n_texts, (size_t)max_pooled_width(w, c->d_model),
                                    sizeof(float));
    m->groups = qp_cpu_alloc(a, n, 1, sizeof *m->groups);
    m->adapters = qp_cpu_alloc(a, n, 1, sizeof *m->adapters);
    if (d->kv.is_int8) {
        const size_t rows = n * (size_t)c->n_heads;
        const size_t padded = qp_round_up((size_t)widths.head_dim, ACT_BLOCK);
        m->queries = (struct query_rows){
            .q = qp_cpu_alloc(a, rows, padded, 1),
            .scales = qp_cpu_alloc(a, rows, padded / ACT_BLOCK, sizeof(float)),
            .offsets = qp_cpu_alloc(a, rows, padded / ACT_BLOCK, sizeof(int32_t)),
            .max_rows = n,
        };
    }
    m->scratch = qp_cpu_alloc(a, (size_t)d->n_threads, 1, sizeof *m->scratch);
    for (int i = 0; i < d->n_threads; i++) {
        const struct worker_scratch scratch = alloc_scratch(d, &widths, a, n_rows, n_texts);
        if (m->scratch)
            m->scratch[i] = scratch;
    }
}

/* The tables of the rope r that some layer has. The first divisors serve only short contexts where
 * there are second ones. */
static void alloc_ropes(struct position_memory *m, const struct config *c, int r, int n_context)
{
    const struct rope *rope = &c->ropes[r];
    bool is_used = false;
    for (int l = 0; l < c->n_layers; l++)
        is_used = is_used || c->layers[l].rope == r;
    for (int set = 0; set < 2 && is_used; set++) {
        struct rope_table *t = &m->ropes[r][set];
        const bool is_split = c->n_context_original > 0;
        t->half = rope->dim / 2;
        t->n_positions =
            set == 0 && is_split ? qp_min(n_context, c->n_context_original) : n_context;
        if (set == 1 && !is_split)
            t->n_positions = 0;
        t->cos = qp_cpu_alloc(&m->arena, (size_t)t->n_positions, (size_t)t->half, sizeof(float));
        t->sin = qp_cpu_alloc(&m->arena, (size_t)t->n_positions, (size_t)t->half, sizeof(float));
    }
}

static void alloc_positions(struct position_memory *m, const struct cpu_device *d, int n_context)
{
    const struct config *c = d->base.config;
    struct arena *a = &m->arena;
    const size_t n = (size_t)n_context;
    m->n_context = n_context;
    m->n_filled = 0;
    for (int r = 0; r < N_ROPES; r++)
        alloc_ropes(m, c, r, n_context);
    if (c->has_alibi)
        m->alibi = qp_cpu_alloc(a, (size_t)c->n_heads, qp_round_up(n, KV_BLOCK), sizeof(float));
    m->key_width = qp_has_key_means(d) ? (size_t)find_widths(c).kv : 0;
    if (m->key_width > 0)
        m->key_means = qp_cpu_alloc(a, (size_t)c->n_layers, m->key_width, sizeof(float));
    if (d->kv.is_int8)
        m->scores = qp_cpu_alloc(a, (size_t)c->n_heads, qp_round_up(n, KV_BLOCK), sizeof(float));
    if (d->kv.is_int8)
        m->parts = alloc_attention_part(a, (n + KV_SPAN - 1) / KV_SPAN * (size_t)c->n_heads,
                                        find_widths(c).head_dim);
}

static void alloc_adapters(struct adapter_memory *m, const struct cpu_device *d, int n_rows,
                           int max_rank)
{
    for (int i = 0; i < MAX_PRODUCTS && max_rank > 0; i++)
        m->u[i] = qp_cpu_alloc_act(d->base.weights, &m->arena, max_rank, n_rows);
    if (max_rank > 0)
        m->sums = qp_cpu_alloc(&m->arena, (size_t)d->n_threads, (size_t)TASK_ROWS * TILE_ROWS,
                               sizeof(float));
}

/* ---- grow ---- */

static quip_status grow_rows(struct cpu_device *d, int n_rows, int n_texts, quip_error *error)
{
    struct row_memory measured = { 0 }, m = { 0 };
    struct expert_memory experts = { 0 };
    alloc_rows(&measured, &experts, d, n_rows, n_texts);
    const quip_status status =
        qp_arena_open(&m.arena, measured.arena.used, "the buffers of a batch", error);
    if (status)
        return status;
    alloc_rows(&m, &experts, d, n_rows, n_texts);
    qp_arena_close(&d->mem.arena);
    d->mem = m;
    d->experts = experts;
    d->base.capacity.n_rows = n_rows;
    d->base.capacity.n_texts = n_texts;
    return QUIP_OK;
}

static quip_status grow_positions(struct cpu_device *d, int n_context, quip_error *error)
{
    struct position_memory measured = { 0 }, m = { 0 };
    alloc_positions(&measured, d, n_context);
    const quip_status status =
        qp_arena_open(&m.arena, measured.arena.used, "the tables of positions", error);
    if (status)
        return status;
    alloc_positions(&m, d, n_context);
    qp_arena_close(&d->positions.arena);
    d->positions = m;
    qp_fill_key_means(d);
    d->base.capacity.n_context = n_context;
    return QUIP_OK;
}

static quip_status grow_adapters(struct cpu_device *d, int n_rows, int max_rank, quip_error *error)
{
    struct adapter_memory measured = { 0 }, m = { 0 };
    alloc_adapters(&measured, d, n_rows, max_rank);
    const quip_status status =
        qp_arena_open(&m.arena, measured.arena.used, "the buffers of adapters", error);
    if (status)
        return status;
    alloc_adapters(&m, d, n_rows, max_rank);
    qp_arena_close(&d->adapters.arena);
    d->adapters = m;
    d->base.capacity.max_rank = max_rank;
    return QUIP_OK;
}

static quip_status cpu_reserve(struct device *device, const struct capacity *want,
                               quip_error *error)
{
    struct cpu_device *d = cpu_of(device);
    const struct capacity has = device->capacity;
    const int n_rows = qp_max(has.n_rows, want->n_rows);
    const int n_texts = qp_max(has.n_texts, want->n_texts);
    const int max_rank = qp_max(has.max_rank, want->max_rank);
    quip_status status = QUIP_OK;
    if (max_rank > 0 && (max_rank > has.max_rank || n_rows > has.n_rows))
        status = grow_adapters(d, n_rows, max_rank, error);
    if (!status && want->n_context > has.n_context)
        status = grow_positions(d, want->n_context, error);
    if (!status && (n_rows > has.n_rows || n_texts > has.n_texts))
        status = grow_rows(d, n_rows, n_texts, error);
    return status;
}

/* ---- open, close, plan ---- */

/* Everything of a device that needs no memory of its own. */
static void describe_device(struct cpu_device *d, const quip_model *model, int n_threads)
{
    d->base.backend = &qp_cpu_backend;
    d->base.config = &model->config;
    d->base.weights = &model->weights;
    d->k = qp_kernels_for(qp_cpu_features());
    d->n_threads = d->n_now = n_threads;
    qp_kv_layout(&d->kv, &d->k, model->weights.has_integer);
}

static quip_status cpu_check(quip_error *error)
{
    if (!qp_relaxed_dot_is_right())
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "this WebAssembly engine computes relaxed dot products in another way than "
                       "this build requires; use the simd build");
    return QUIP_OK;
}

static quip_status cpu_open(struct device **device, const quip_model *model,
                            const struct device_options *options, quip_error *error)
{
    struct cpu_device *d = qp_alloc_pages(sizeof *d);
    *device = NULL;
    if (!d)
        return qp_fail_memory(error, "a device", sizeof *d);
    const quip_status status =
        qp_pool_open(&d->pool, options->n_threads, options->is_background, error);
    if (status) {
        qp_free_pages(d, sizeof *d);
        return status;
    }
    describe_device(d, model, qp_pool_n_threads(d->pool));
    *device = &d->base;
    return QUIP_OK;
}

static void cpu_close(struct device *device)
{
    struct cpu_device *d = cpu_of(device);
    qp_pool_close(d->pool);
    qp_arena_close(&d->mem.arena);
    qp_arena_close(&d->positions.arena);
    qp_arena_close(&d->adapters.arena);
    qp_free_pages(d, sizeof *d);
}

static void cpu_plan(struct device_plan *plan, const quip_model *model,
                     const struct device_options *options, const struct capacity *capacity)
{
    struct cpu_device d = { 0 };
    struct cpu_sequence s = { .base = { .n_context = capacity->n_context } };
    struct arena measured = { 0 };
    describe_device(&d, model, options->n_threads);
    alloc_rows(&d.mem, &d.experts, &d, capacity->n_rows, capacity->n_texts);
    alloc_positions(&d.positions, &d, capacity->n_context);
    alloc_adapters(&d.adapters, &d, capacity->n_rows, capacity->max_rank);
    plan->kv_bytes = qp_kv_alloc(&s, &d.kv, &model->config, &measured);
    plan->sequence_bytes = measured.used - plan->kv_bytes + sizeof s +
                           SEQUENCE_OUTPUTS * (size_t)model->config.d_model * sizeof(float);
    plan->device_bytes =
        sizeof d + d.mem.arena.used + d.positions.arena.used + d.adapters.arena.used;
}

static int cpu_n_threads(const struct device *device)
{
    return ((const struct cpu_device *)device)->n_threads;
}

const struct backend qp_cpu_backend = {
    .name = "cpu",
    .check = cpu_check,
    .open = cpu_open,
    .close = cpu_close,
    .reserve = cpu_reserve,
    .plan = cpu_plan,
    .n_threads = cpu_n_threads,
    .sequence_open = qp_cpu_sequence_open,
    .sequence_close = qp_cpu_sequence_close,
    .sequence_copy = qp_cpu_sequence_copy,
    .sequence_rewind = qp_cpu_sequence_rewind,
    .sequence_reserve_outputs = qp_cpu_sequence_reserve_outputs,
    .sequence_export = qp_cpu_sequence_export,
    .sequence_import = qp_cpu_sequence_import,
    .adapter_open = qp_cpu_adapter_open,
    .adapter_close = qp_cpu_adapter_close,
    .begin = qp_cpu_begin,
    .embed = qp_cpu_embed,
    .norm = qp_cpu_norm,
    .add = qp_cpu_add,
    .linear = qp_cpu_linear,
    .rope_append = qp_cpu_rope_append,
    .keep_rows = qp_cpu_keep_rows,
    .attend = qp_cpu_attend,
    .conv = qp_cpu_conv,
    .gated = qp_cpu_gated,
    .ple = qp_cpu_ple,
    .scale = qp_cpu_scale,
    .route = qp_cpu_route,
    .experts = qp_cpu_experts,
    .merge = qp_cpu_merge,
    .keep_outputs = qp_cpu_keep_outputs,
    .load_outputs = qp_cpu_load_outputs,
    .logits = qp_cpu_logits,
    .pool = qp_cpu_pool,
    .dense = qp_cpu_dense,
    .sample = qp_cpu_sample,
    .submit = qp_cpu_submit,
    .poll = qp_cpu_poll,
    .read_tokens = qp_cpu_read_tokens,
    .read = qp_cpu_read,
};
