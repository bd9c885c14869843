/* ops_attention.c: rotation, the kv cache, and attention on threads.
 * Keys lie transposed in blocks of KV_BLOCK positions, values as rows (kernels.h), per kv head:
 *   k: [n_kv_heads][blocks][head_dim][KV_BLOCK]    v: [n_kv_heads][blocks * KV_BLOCK][head_dim]
 * binary16 beside integer weights, float beside float weights. */
#include "cpu/cpu_impl.h"

#include <stdatomic.h>
#include <string.h>

static size_t element_bytes(const struct run *r)
{
    return r->kv_is_f16 ? sizeof(uint16_t) : sizeof(float);
}

/* Bytes of one kv head's keys, or values, with room for n positions. */
static size_t head_bytes(const struct run *r, int n)
{
    return qp_round_up((size_t)n, KV_BLOCK) * (size_t)r->config->head_dim * element_bytes(r);
}

size_t qp_cpu_kv_bytes(const struct run *r, int n)
{
    const struct config *c = r->config;
    const uint64_t n_values =
        qp_round_up((size_t)n, KV_BLOCK) * (uint64_t)c->n_kv_heads * (uint64_t)c->head_dim;
    const uint64_t n_bytes = 2 * n_values * element_bytes(r);
    return n_bytes > SIZE_MAX ? SIZE_MAX : (size_t)n_bytes; // which cannot be had
}

void qp_cpu_kv_copy(struct run *to, const struct run *from, int n)
{
    for (int l = 0; l < from->config->n_layers; l++)
        for (int h = 0; h < from->config->n_kv_heads; h++) {
            const size_t at = (size_t)h * head_bytes(from, from->n_context);
            const size_t to_at = (size_t)h * head_bytes(to, to->n_context);
            memcpy((char *)to->kv[l].k + to_at, (char *)from->kv[l].k + at, head_bytes(from, n));
            memcpy((char *)to->kv[l].v + to_at, (char *)from->kv[l].v + at, head_bytes(from, n));
        }
}

/* ---- rotation ---- */

/* Row `pos` of the rope tables of local (0) or global (1) layers. */
static size_t rope_row(const struct run *r, bool is_global, int pos)
{
    const size_t half = (size_t)r->config->rope_dim / 2;
    return ((is_global ? (size_t)r->n_context : 0) + (size_t)pos) * half;
}

/* angle = pos * theta^(-2i / rope_dim), each step rounded to float as the reference does: Su et al.
 * 2021 (RoFormer). Rows are filled as positions are reached. */
static void fill_rope(struct run *r, int n)
{
    const struct config *c = r->config;
    const int half = c->rope_dim / 2;
    for (int l = 0, done[2] = { 0, 0 }; l < c->n_layers; l++) {
        const struct layer_config *lc = &c->layers[l];
        const bool is_global = lc->window == 0;
        if (done[is_global]++)
            continue;
        for (int i = 0; i < half; i++) {
            const float exponent = (float)(2 * i) / (float)c->rope_dim;
            const float frequency = 1.0f / (float)qp_pow(lc->rope_theta, exponent) / lc->rope_scale;
            for (int pos = cpu(r)->n_positions; pos < n; pos++) {
                double sine, cosine;
                qp_sin_cos((float)pos * frequency, &sine, &cosine);
                r->buffers.rope_cos[rope_row(r, is_global, pos) + i] = (float)cosine;
                r->buffers.rope_sin[rope_row(r, is_global, pos) + i] = (float)sine;
            }
        }
    }
}

/* To bfloat16 and back, to nearest even: the reference keeps its biases in that format, and models
 * were trained with them. */
static float bfloat16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* The slope of head h: Press et al. 2022 (ALiBi), appendix: powers of 2^(-8/n) for n heads, n a
 * power of two; further heads take every other slope of twice as many. */
static float alibi_slope(int h, int n_heads)
{
    int n = 1;
    while (2 * n <= n_heads)
        n *= 2;
    return (float)(h < n ? qp_pow(2, -8.0 * (h + 1) / n) : qp_pow(2, -4.0 * (2 * (h - n) + 1) / n));
}

/* bias = slope * position, scaled like the scores that it is added to. */
static void fill_alibi(struct run *r, int n)
{
    const struct config *c = r->config;
    const size_t stride = qp_round_up((size_t)r->n_context, KV_BLOCK);
    for (int h = 0; h < c->n_heads; h++) {
        const float slope = bfloat16(alibi_slope(h, c->n_heads));
        for (int pos = cpu(r)->n_positions; pos < n; pos++)
            r->buffers.alibi[(size_t)h * stride + (size_t)pos] =
                bfloat16(slope * (float)pos) * c->query_scale;
    }
}

static void fill_positions(struct run *r, int n)
{
    fill_rope(r, n);
    if (r->buffers.alibi)
        fill_alibi(r, n);
    cpu(r)->n_positions = n;
}

/* ---- append ---- */

struct append_task {
    struct run *r;
    int l, n;
};

static void prepare_heads(struct append_task *j, float *x, int n_heads, const float *norm, int pos)
{
    const struct kernels *k = &cpu(j->r)->k;
    const struct config *c = j->r->config;
    const float plus = c->norm == NORM_RMS_PLUS_1 ? 1.0f : 0.0f;
    const size_t row = rope_row(j->r, c->layers[j->l].window == 0, pos);
    for (int h = 0; h < n_heads; h++, x += c->head_dim) {
        if (norm)
            k->rms_norm(x, x, norm, plus, c->norm_eps, c->head_dim);
        k->rotate(x, j->r->buffers.rope_cos + row, j->r->buffers.rope_sin + row, c->rope_dim / 2);
    }
}

/* One token's key and value of one head to their places in the cache. */
static void store_f16(struct append_task *j, int h, const float *key, const float *value, int pos)
{
    const struct run *r = j->r;
    const int head_dim = r->config->head_dim;
    const size_t head = (size_t)h * head_bytes(r, r->n_context) / sizeof(uint16_t);
    uint16_t *k = (uint16_t *)r->kv[j->l].k + head;
    uint16_t *v = (uint16_t *)r->kv[j->l].v + head + (size_t)pos * (size_t)head_dim;
    uint16_t half[1024]; // head_dim is at most 1024 (config.c)
    k += (size_t)(pos / KV_BLOCK) * (size_t)head_dim * KV_BLOCK + (size_t)(pos % KV_BLOCK);
    cpu(j->r)->k.f32_to_f16(half, key, head_dim);
    for (int d = 0; d < head_dim; d++)
        k[(size_t)d * KV_BLOCK] = half[d];
    cpu(j->r)->k.f32_to_f16(v, value, head_dim);
}

static void store_f32(struct append_task *j, int h, const float *key, const float *value, int pos)
{
    const struct run *r = j->r;
    const int head_dim = r->config->head_dim;
    const size_t head = (size_t)h * head_bytes(r, r->n_context) / sizeof(float);
    float *k = (float *)r->kv[j->l].k + head;
    float *v = (float *)r->kv[j->l].v + head + (size_t)pos * (size_t)head_dim;
    k += (size_t)(pos / KV_BLOCK) * (size_t)head_dim * KV_BLOCK + (size_t)(pos % KV_BLOCK);
    for (int d = 0; d < head_dim; d++)
        k[(size_t)d * KV_BLOCK] = key[d];
    memcpy(v, value, (size_t)head_dim * sizeof *v);
}

static void append_task(void *arg, int index, int n_threads)
{
    struct append_task *j = arg;
    const struct run *r = j->r;
    const struct config *c = r->config;
    const struct layer_weights *w = &r->weights->layers[j->l];
    const size_t q_width = (size_t)c->n_heads * (size_t)c->head_dim;
    const size_t kv_width = (size_t)c->n_kv_heads * (size_t)c->head_dim;
    int begin, end;
    qp_share(j->n, 1, index, n_threads, &begin, &end);
    for (int t = begin; t < end; t++) {
        float *key = r->buffers.k + (size_t)t * kv_width;
        const float *value = r->buffers.v + (size_t)t * kv_width;
        const int pos = r->pos + t;
        prepare_heads(j, r->buffers.q + (size_t)t * q_width, c->n_heads, w->q_norm.scale, pos);
        prepare_heads(j, key, c->n_kv_heads, w->k_norm.scale, pos);
        for (int h = 0; h < c->n_kv_heads; h++, key += c->head_dim, value += c->head_dim)
            (r->kv_is_f16 ? store_f16 : store_f32)(j, h, key, value, pos);
    }
}

void qp_cpu_rope_append(struct run *r, int l, int n)
{
    struct append_task job = { .r = r, .l = l, .n = n };
    if (cpu(r)->n_positions < r->pos + n)
        fill_positions(r, r->pos + n);
    cpu_parallel(r, n == 1, append_task, &job);
}

/* ---- attention ---- */

struct attend_task {
    struct run *r;
    struct act *out;
    const float *q;
    float *floats; // [n, n_heads * head_dim] results
    int l, pos, n;
    int tokens_per_task, heads_per_task; // of one kv head's group
    atomic_int next;
};

/* Rows: tokens [t0, t0 + n_tokens) times query heads [h0, h0 + n_heads), all of one kv head. */
static void attend_rows(struct attend_task *j, float *scratch, int t0, int n_tokens, int h0,
                        int n_heads)
{
    const struct run *r = j->r;
    const struct config *c = r->config;
    const int window = c->layers[j->l].window;
    const size_t q_width = (size_t)c->n_heads * (size_t)c->head_dim;
    const size_t head = (size_t)(h0 / (c->n_heads / c->n_kv_heads)) * head_bytes(r, r->n_context);
    const float *q[ATTENTION_MAX_ROWS];
    float *out[ATTENTION_MAX_ROWS];
    const float *bias[ATTENTION_MAX_ROWS];
    const size_t alibi_stride = qp_round_up((size_t)r->n_context, KV_BLOCK);
    int begin[ATTENTION_MAX_ROWS], end[ATTENTION_MAX_ROWS], n_rows = 0;
    for (int t = t0; t < t0 + n_tokens; t++)
        for (int h = h0; h < h0 + n_heads; h++, n_rows++) {
            const size_t at = (size_t)t * q_width + (size_t)h * (size_t)c->head_dim;
            q[n_rows] = j->q + at;
            out[n_rows] = j->floats + at;
            bias[n_rows] = r->buffers.alibi ? r->buffers.alibi + (size_t)h * alibi_stride : NULL;
            end[n_rows] = j->pos + t + 1;
            begin[n_rows] = window && end[n_rows] > window ? end[n_rows] - window : 0;
        }
    cpu(j->r)->k.attend(&(struct attention){
        .head_dim = c->head_dim,
        .scale = c->query_scale,
        .cap = c->attention_cap,
        .is_f16 = r->kv_is_f16,
        .k = (const char *)r->kv[j->l].k + head,
        .v = (const char *)r->kv[j->l].v + head,
        .n_rows = n_rows,
        .q = q,
        .out = out,
        .begin = begin,
        .end = end,
        .bias = r->buffers.alibi ? bias : NULL,
        .scratch = scratch,
    });
}

/* Late tokens see more keys than early ones, so tasks are taken one by one. */
static void attend_task(void *arg, int index, int n_threads)
{
    (void)n_threads;
    struct attend_task *j = arg;
    const int n_blocks = (j->n + j->tokens_per_task - 1) / j->tokens_per_task;
    const int n_head_tasks = j->r->config->n_heads / j->heads_per_task;
    float *scratch = cpu(j->r)->scratch[index].attention;
    for (;;) {
        const int task = atomic_fetch_add(&j->next, 1);
        if (task >= n_blocks * n_head_tasks)
            return;
        const int t0 = (n_blocks - 1 - task / n_head_tasks) * j->tokens_per_task; // long ones first
        const int n_tokens = j->n - t0 < j->tokens_per_task ? j->n - t0 : j->tokens_per_task;
        attend_rows(j, scratch, t0, n_tokens, task % n_head_tasks * j->heads_per_task,
                    j->heads_per_task);
    }
}

static void store_task(void *arg, int index, int n_threads)
{
    struct attend_task *j = arg;
    int begin, end;
    qp_share(j->n, 1, index, n_threads, &begin, &end);
    for (int t = begin; t < end; t++)
        act_store(&cpu(j->r)->k, j->out, t, j->floats + (size_t)t * j->out->n_cols);
}

/* Query heads that one task takes together, to read each key once: all of a kv head's, or a part of
 * them when there would be fewer tasks than threads, or more rows than a task holds. */
static int heads_per_task(struct run *r, int n)
{
    const struct config *c = r->config;
    const int group = c->n_heads / c->n_kv_heads;
    int heads = group;
    while (heads > 1 && (group % heads || heads > ATTENTION_MAX_ROWS ||
                         n * (c->n_heads / heads) < cpu(r)->n_threads))
        heads--;
    return heads;
}

void qp_cpu_attend(struct run *r, struct act *out, const float *q, int l, int pos, int n)
{
    struct attend_task job = {
        .r = r, .out = out, .q = q, .l = l, .pos = pos, .n = n, .floats = out->f32
    };
    if (!job.floats)
        job.floats = r->buffers.att_f32;
    job.heads_per_task = heads_per_task(r, n);
    job.tokens_per_task = ATTENTION_MAX_ROWS / job.heads_per_task;
    qp_pool_run(cpu(r)->pool, attend_task, &job);
    cpu_parallel(r, n == 1, store_task, &job);
}
