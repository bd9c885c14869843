/* ops.c: the CPU backend: ops.h on a pool of threads.
 * Who does what: work is cut by rows of weights, by tokens or by heads; the cut never changes a
 * number, because every number is made whole by one kernel call in one order. */
#include "cpu/cpu_impl.h"

/* ---- per token: embed, norm, add ---- */

struct token_task {
    struct run *r;
    struct act *out;
    float *x, *y;
    const struct norm_weights *norm, *post_norm;
    const quip_token *tokens;
    int n;
};

static void embed_task(void *arg, int index, int n_threads)
{
    struct token_task *j = arg;
    const struct matrix *table = &j->r->weights->embed;
    int begin, end;
    qp_share(j->n, 1, index, n_threads, &begin, &end);
    const float factor = j->r->config->embed_scale;
    for (int t = begin; t < end; t++) {
        float *row = j->x + (size_t)t * table->n_in;
        cpu(j->r)->k.dequantize_row(row, table, j->tokens[t], factor);
        for (int i = 0; table->zeros && i < table->n_in; i++)
            row[i] -= table->zeros[j->tokens[t]] * table->scales[j->tokens[t]] * factor;
    }
}

static void cpu_embed(struct run *r, float *x, const quip_token *tokens, int n)
{
    struct token_task job = { .r = r, .x = x, .tokens = tokens, .n = n };
    cpu_parallel(r, n == 1, embed_task, &job);
}

static void norm_row(struct run *r, float *y, const float *x, const struct norm_weights *w)
{
    const struct config *c = r->config;
    const float plus = c->norm == NORM_RMS_PLUS_1 ? 1.0f : 0.0f;
    if (c->norm == NORM_LAYER)
        cpu(r)->k.layer_norm(y, x, w->scale, w->bias, c->norm_eps, c->d_model);
    else
        cpu(r)->k.rms_norm(y, x, w->scale, plus, c->norm_eps, c->d_model);
}

static void norm_token(const struct token_task *j, int t, int index)
{
    float *row = act_row_floats(j->out, t, cpu(j->r)->scratch[index].row);
    norm_row(j->r, row, j->x + (size_t)t * j->r->config->d_model, j->norm);
    act_store(&cpu(j->r)->k, j->out, t, row);
}

static void norm_task(void *arg, int index, int n_threads)
{
    struct token_task *j = arg;
    int begin, end;
    qp_share(j->n, 1, index, n_threads, &begin, &end);
    for (int t = begin; t < end; t++)
        norm_token(j, t, index);
}

static void cpu_norm(struct run *r, struct act *out, const float *x, const struct norm_weights *w,
                     int n)
{
    struct token_task job = { .r = r, .out = out, .x = (float *)x, .norm = w, .n = n };
    cpu_parallel(r, n == 1, norm_task, &job);
}

static void add_task(void *arg, int index, int n_threads)
{
    struct token_task *j = arg;
    const int d_model = j->r->config->d_model;
    int begin, end;
    qp_share(j->n, 1, index, n_threads, &begin, &end);
    for (int t = begin; t < end; t++) {
        float *y = j->y + (size_t)t * d_model;
        if (j->post_norm->scale)
            norm_row(j->r, y, y, j->post_norm);
        cpu(j->r)->k.add(j->x + (size_t)t * d_model, y, d_model);
        if (j->norm)
            norm_token(j, t, index);
    }
}

static void cpu_add(struct run *r, float *x, float *y, const struct norm_weights *post_norm,
                    struct act *out, const struct norm_weights *next, int n)
{
    struct token_task job = {
        .r = r, .x = x, .y = y, .post_norm = post_norm, .out = out, .norm = next, .n = n
    };
    cpu_parallel(r, n == 1, add_task, &job);
}

static const struct ops cpu_ops = {
    .name = "cpu",
    .embed = cpu_embed,
    .norm = cpu_norm,
    .add = cpu_add,
    .linear = qp_cpu_linear,
    .rope_append = qp_cpu_rope_append,
    .attend = qp_cpu_attend,
    .gated = qp_cpu_gated,
    .logits = qp_cpu_logits,
};

/* ---- memory ---- */

/* n * m items. A product that does not fit, where size_t has 32 bits, is more than any arena has.
 */
static void *take(struct arena *a, size_t n, size_t m, size_t size)
{
    if (!qp_mul_size(n, m, &n) || !qp_mul_size(n, size, &n))
        n = SIZE_MAX;
    return qp_arena_alloc(a, n);
}

/* Activations for products with this model's kinds of weights. */
static struct act take_act(const struct run *r, struct arena *a, int n_cols, int max_tokens)
{
    struct act act = { .n_cols = n_cols };
    const size_t n = (size_t)max_tokens, padded = qp_round_up((size_t)n_cols, ACT_BLOCK);
    act.q_stride = padded;
    act.n_blocks = (int)(padded / ACT_BLOCK);
    if (r->weights->has_float)
        act.f32 = take(a, n, (size_t)n_cols, sizeof *act.f32);
    if (r->weights->has_integer) {
        act.q = take(a, n, padded, sizeof *act.q);
        act.scales = take(a, n, (size_t)act.n_blocks, sizeof *act.scales);
        act.offsets = take(a, n, (size_t)act.n_blocks, sizeof *act.offsets);
    }
    return act;
}

static int max_int(int a, int b)
{
    return a > b ? a : b;
}

/* The softmax state of n rows. */
static struct attention_part take_attention_part(struct arena *a, size_t n, int head_dim)
{
    return (struct attention_part){ .m = take(a, n, 1, sizeof(float)),
                                    .l = take(a, n, 1, sizeof(float)),
                                    .o = take(a, n, (size_t)head_dim, sizeof(float)) };
}

/* What attention over int8 keys needs beside them. */
static void take_int8_attention(struct cpu_backend *b, const struct config *c, struct arena *a,
                                int n_context, int max_tokens)
{
    const size_t n = (size_t)max_tokens * (size_t)c->n_heads,
                 n_spans = ((size_t)n_context + KV_SPAN - 1) / KV_SPAN;
    const size_t padded = qp_round_up((size_t)c->head_dim, ACT_BLOCK);
    b->queries = (struct query_rows){ .q = take(a, n, padded, 1),
                                      .scales = take(a, n, padded / ACT_BLOCK, sizeof(float)),
                                      .offsets = take(a, n, padded / ACT_BLOCK, sizeof(int32_t)),
                                      .max_tokens = (size_t)max_tokens };
    b->parts = take_attention_part(a, n_spans * (size_t)c->n_heads, c->head_dim);
}

static void take_scratch(const struct config *c, const struct kernels *k, struct arena *a,
                         bool is_int8, struct worker_scratch *s)
{
    const int q_width = c->n_heads * c->head_dim;
    const int widest = max_int(c->d_ff, max_int(c->d_model, q_width));
    struct worker_scratch scratch = {
        .tile = qp_arena_alloc(a, k->tile_bytes(widest)),
        .tile_gate = qp_arena_alloc(a, k->tile_bytes(c->d_model)),
        .gate = take(a, TASK_TOKENS, TILE_ROWS, sizeof(float)),
        .up = take(a, TASK_TOKENS, TILE_ROWS, sizeof(float)),
        .row = take(a, 1, (size_t)widest, sizeof(float)),
    };
    if (is_int8) {
        scratch.int8_attention = qp_arena_alloc(a, sizeof *scratch.int8_attention);
        scratch.sum = take_attention_part(a, ATTENTION_MAX_ROWS, c->head_dim);
        scratch.part = take_attention_part(a, ATTENTION_MAX_ROWS, c->head_dim);
    } else {
        scratch.attention =
            take(a, 1, qp_attention_scratch(c->head_dim, ATTENTION_MAX_ROWS), sizeof(float));
    }
    if (s)
        *s = scratch;
}

void qp_cpu_take(struct run *r, struct arena *a, int n_context, int max_tokens, int n_threads)
{
    const struct config *c = r->config;
    const struct kernels kernels = qp_kernels_for(qp_cpu_features());
    const size_t n = (size_t)max_tokens, d_model = (size_t)c->d_model;
    const size_t q_width = (size_t)c->n_heads * (size_t)c->head_dim;
    const size_t kv_width = (size_t)c->n_kv_heads * (size_t)c->head_dim;
    struct buffers *b = &r->buffers;

    r->ops = &cpu_ops;
    r->n_context = n_context;
    b->x = take(a, n, d_model, sizeof(float));
    b->y = take(a, n, d_model, sizeof(float));
    b->q = take(a, n, q_width, sizeof(float));
    b->k = take(a, n, kv_width, sizeof(float));
    b->v = take(a, n, kv_width, sizeof(float));
    b->att_f32 = r->weights->has_float ? NULL : take(a, n, q_width, sizeof(float));
    b->xn = take_act(r, a, c->d_model, max_tokens);
    b->att = take_act(r, a, (int)q_width, max_tokens);
    b->h = take_act(r, a, c->d_ff, max_tokens);
    b->logits = take(a, LOGITS_ROWS, (size_t)c->vocab_size, sizeof(float));
    b->rope_cos = take(a, 2 * (size_t)n_context, (size_t)c->rope_dim / 2, sizeof(float));
    b->rope_sin = take(a, 2 * (size_t)n_context, (size_t)c->rope_dim / 2, sizeof(float));
    if (c->has_alibi)
        b->alibi =
            take(a, (size_t)c->n_heads, qp_round_up((size_t)n_context, KV_BLOCK), sizeof(float));

    struct cpu_backend backend = { .k = kernels, .n_threads = n_threads };
    qp_kv_layout(&backend.kv, &kernels, c, r->weights->has_integer);
    r->kv = take(a, (size_t)c->n_layers, 1, sizeof *r->kv);
    r->kv_bytes = a->used;
    for (int l = 0; l < c->n_layers; l++) {
        const int n_blocks = qp_kv_n_blocks(c->layers[l].window, n_context, max_tokens);
        const struct kv_layer layer = qp_kv_take(&backend.kv, c, a, n_blocks);
        if (r->kv)
            r->kv[l] = layer;
    }
    r->kv_bytes = a->used - r->kv_bytes;
    if (backend.kv.is_int8)
        take_int8_attention(&backend, c, a, n_context, max_tokens);

    backend.scratch = take(a, (size_t)n_threads, 1, sizeof *backend.scratch);
    for (int i = 0; i < n_threads; i++)
        take_scratch(c, &kernels, a, backend.kv.is_int8,
                     backend.scratch ? &backend.scratch[i] : NULL);
    r->backend = qp_arena_alloc(a, sizeof backend);
    if (r->backend)
        *cpu(r) = backend;
}

void qp_cpu_take_adapter(struct run *r, struct arena *a, int max_rank, int max_tokens,
                         int n_threads)
{
    struct cpu_backend *backend = a->base ? r->backend : NULL; // NULL while measuring
    for (int i = 0; i < MAX_PRODUCTS; i++) {
        const struct act u = take_act(r, a, max_rank, max_tokens);
        if (backend)
            backend->lora_u[i] = u;
    }
    for (int i = 0; i < n_threads; i++) {
        float *sums = take(a, TASK_TOKENS, TILE_ROWS, sizeof(float));
        if (backend)
            backend->scratch[i].lora = sums;
    }
}

quip_status qp_cpu_check(quip_error *error)
{
    if (!qp_relaxed_dot_is_right())
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "this WebAssembly engine computes relaxed dot products in another way than "
                       "this build requires; use the simd build");
    return QUIP_OK;
}

quip_status qp_cpu_open(struct run *r, int n_threads, bool is_background, quip_error *error)
{
    cpu(r)->n_threads = n_threads;
    return qp_pool_open(&cpu(r)->pool, n_threads, is_background, error);
}

quip_status qp_cpu_set_threads(struct run *r, int n_threads, bool is_background, quip_error *error)
{
    struct pool *before = cpu(r)->pool;
    if (n_threads == cpu(r)->n_threads)
        return QUIP_OK;
    const quip_status status = qp_pool_open(&cpu(r)->pool, n_threads, is_background, error);
    if (status) {
        cpu(r)->pool = before;
        return status;
    }
    cpu(r)->n_threads = n_threads;
    qp_pool_close(before);
    return QUIP_OK;
}

int qp_cpu_n_threads(const struct run *r)
{
    return qp_pool_n_threads(((const struct cpu_backend *)r->backend)->pool);
}

void qp_cpu_close(struct run *r)
{
    if (r->backend && cpu(r)->pool)
        qp_pool_close(cpu(r)->pool);
}
