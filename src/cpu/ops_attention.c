/* ops_attention.c: rotation, and attention on threads. Keys and values: kv_cache.c. */
#include "cpu/cpu_impl.h"

#include <stdatomic.h>
#include <string.h>

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

/* x = H x, and for a query H x / n: a head's dimensions in pieces of powers of two. Rounding a key
 * to integers with one scale costs least when no dimension stands out, and H mixes them; H H = n,
 * so that the product of a mixed query and a mixed key is as before (QuaRot: Ashkboos et al. 2024).
 */
static void mix_head(const struct kernels *k, float *x, int n, bool is_query)
{
    for (int piece = 1024; n > 0; piece /= 2)
        if (piece <= n) {
            k->hadamard(x, is_query ? 1.0f / (float)piece : 1.0f, piece);
            x += piece;
            n -= piece;
        }
}

/* One token's queries as int8, a row for each head, those of a kv head side by side. */
static void quantize_queries(struct append_task *j, float *q, int t)
{
    const struct config *c = j->r->config;
    const struct query_rows *rows = &cpu(j->r)->queries;
    const size_t stride = qp_round_up((size_t)c->head_dim, ACT_BLOCK),
                 n_blocks = stride / ACT_BLOCK;
    const int group = c->n_heads / c->n_kv_heads;
    for (int h = 0; h < c->n_heads; h++, q += c->head_dim) {
        const size_t token_row = (size_t)(h / group) * rows->max_tokens + (size_t)t;
        const size_t row = token_row * (size_t)group + (size_t)(h % group);
        mix_head(&cpu(j->r)->k, q, c->head_dim, true);
        cpu(j->r)->k.quantize(rows->q + row * stride, rows->scales + row * n_blocks,
                              rows->offsets + row * n_blocks, q, c->head_dim);
    }
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
        float *q = r->buffers.q + (size_t)t * q_width;
        prepare_heads(j, q, c->n_heads, w->q_norm.scale, pos);
        if (cpu(j->r)->kv.is_int8)
            quantize_queries(j, q, t);
        prepare_heads(j, key, c->n_kv_heads, w->k_norm.scale, pos);
        for (int h = 0; h < c->n_kv_heads; h++, key += c->head_dim, value += c->head_dim) {
            if (cpu(j->r)->kv.is_int8)
                mix_head(&cpu(j->r)->k, key, c->head_dim, false);
            qp_kv_store(j->r, j->l, h, key, value, pos);
        }
    }
}

void qp_cpu_rope_append(struct run *r, int l, int n)
{
    struct append_task job = { .r = r, .l = l, .n = n };
    if (cpu(r)->n_positions < r->pos + n)
        fill_positions(r, r->pos + n);
    if (r->n_written < r->pos + n)
        r->n_written = r->pos + n;
    cpu_parallel(r, n == 1, append_task, &job);
}

/* ---- attention ---- */

struct attend_task {
    struct run *r;
    struct act *out;
    float *floats; // [n, n_heads * head_dim] results
    int l, pos, n;
    int tokens_per_task, heads_per_task; // over floats: of one kv head's group
    int first_span, n_spans;             // of one token over int8
    atomic_int next;
};

static const float *alibi_of(const struct run *r, int h)
{
    const size_t stride = qp_round_up((size_t)r->n_context, KV_BLOCK);
    return r->buffers.alibi ? r->buffers.alibi + (size_t)h * stride : NULL;
}

/* The next of n tasks, or -1. */
static int next_task(struct attend_task *j, int n)
{
    const int task = atomic_fetch_add(&j->next, 1);
    return task < n ? task : -1;
}

/* ---- over floats ---- */

/* Rows: tokens [t0, t0 + n_tokens) times query heads [h0, h0 + n_heads), all of one kv head. */
static void attend_rows(struct attend_task *j, float *scratch, int t0, int n_tokens, int h0,
                        int n_heads)
{
    struct run *r = j->r;
    const struct config *c = r->config;
    const struct kv_layout *kv = &cpu(r)->kv;
    const size_t q_width = (size_t)c->n_heads * (size_t)c->head_dim;
    const float *queries = r->buffers.q + (size_t)(j->pos - r->pos) * q_width;
    const int kv_head = h0 / (c->n_heads / c->n_kv_heads);
    const float *q[ATTENTION_MAX_ROWS];
    float *out[ATTENTION_MAX_ROWS];
    const float *bias[ATTENTION_MAX_ROWS];
    int begin[ATTENTION_MAX_ROWS], end[ATTENTION_MAX_ROWS], n_rows = 0;
    for (int t = t0; t < t0 + n_tokens; t++)
        for (int h = h0; h < h0 + n_heads; h++, n_rows++) {
            const size_t at = (size_t)t * q_width + (size_t)h * (size_t)c->head_dim;
            q[n_rows] = queries + at;
            out[n_rows] = j->floats + at;
            bias[n_rows] = alibi_of(r, h);
            begin[n_rows] = first_seen(c, j->l, j->pos + t);
            end[n_rows] = j->pos + t + 1;
        }
    cpu(r)->k.attend(&(struct attention){
        .head_dim = c->head_dim,
        .scale = c->query_scale,
        .cap = c->attention_cap,
        .k = qp_kv_floats(kv, &r->kv[j->l], r->kv[j->l].k, kv_head),
        .v = qp_kv_floats(kv, &r->kv[j->l], r->kv[j->l].v, kv_head),
        .n_blocks = r->kv[j->l].n_blocks,
        .n_rows = n_rows,
        .q = q,
        .out = out,
        .begin = begin,
        .end = end,
        .bias = r->buffers.alibi ? bias : NULL,
        .scratch = scratch,
    });
}

/* Late tokens see more keys than early ones, so tasks are taken one by one, long ones first. */
static void attend_floats(void *arg, int index, int n_threads)
{
    (void)n_threads;
    struct attend_task *j = arg;
    const int n_blocks = (j->n + j->tokens_per_task - 1) / j->tokens_per_task;
    const int n_head_tasks = j->r->config->n_heads / j->heads_per_task;
    for (int task; (task = next_task(j, n_blocks * n_head_tasks)) >= 0;) {
        const int t0 = (n_blocks - 1 - task / n_head_tasks) * j->tokens_per_task;
        const int n_tokens = j->n - t0 < j->tokens_per_task ? j->n - t0 : j->tokens_per_task;
        attend_rows(j, cpu(j->r)->scratch[index].attention, t0, n_tokens,
                    task % n_head_tasks * j->heads_per_task, j->heads_per_task);
    }
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

/* ---- over int8 ---- */

/* Rows [row, row + n) of kv head h: row i is token i / group, query head i % group of the head's.
 */
struct int8_rows {
    struct int8_attention a;
    int h, row;
    int begin[ATTENTION_MAX_ROWS], end[ATTENTION_MAX_ROWS];
    const float *bias[ATTENTION_MAX_ROWS];
};

static void take_rows_int8(const struct attend_task *j, struct int8_rows *rows, int h, int row,
                           int n)
{
    struct run *r = j->r;
    const struct config *c = r->config;
    const struct query_rows *q = &cpu(r)->queries;
    const int group = c->n_heads / c->n_kv_heads;
    const size_t stride = qp_round_up((size_t)c->head_dim, ACT_BLOCK);
    const size_t token = (size_t)h * q->max_tokens + (size_t)(j->pos - r->pos);
    const size_t first = token * (size_t)group + (size_t)row, block = first * stride / ACT_BLOCK;
    rows->h = h;
    rows->row = row;
    for (int i = 0; i < n; i++) {
        const int pos = j->pos + (row + i) / group;
        rows->begin[i] = first_seen(c, j->l, pos);
        rows->end[i] = pos + 1;
        rows->bias[i] = alibi_of(r, h * group + (row + i) % group);
    }
    rows->a = (struct int8_attention){
        .head_dim = c->head_dim,
        .n_rows = n,
        .cap = c->attention_cap,
        .kv = qp_kv_tiles(&cpu(r)->kv, &r->kv[j->l], h),
        .q = q->q + first * stride,
        .q_scales = q->scales + block,
        .q_offsets = q->offsets + block,
        .begin = rows->begin,
        .end = rows->end,
        .bias = r->buffers.alibi ? rows->bias : NULL,
    };
}

/* out = o / l. No zero is negative: so it does not matter how many spans that a row does not see
 * were added to it. */
static void finish_rows_int8(const struct attend_task *j, const struct int8_rows *rows,
                             const struct attention_part *sum)
{
    const struct config *c = j->r->config;
    const int group = c->n_heads / c->n_kv_heads, head_dim = c->head_dim;
    for (int i = 0; i < rows->a.n_rows; i++) {
        const int t = (rows->row + i) / group, head = rows->h * group + (rows->row + i) % group;
        float *out = j->floats + ((size_t)t * (size_t)c->n_heads + (size_t)head) * (size_t)head_dim;
        const float *o = sum->o + (size_t)i * (size_t)head_dim;
        cpu(j->r)->k.weigh(out, o, 1.0f / sum->l[i], NULL, 0, head_dim);
    }
}

/* Rows in tasks of as many as one takes, long ones first. */
static void attend_int8(void *arg, int index, int n_threads)
{
    (void)n_threads;
    struct attend_task *j = arg;
    const struct config *c = j->r->config;
    const struct worker_scratch *s = &cpu(j->r)->scratch[index];
    const int n_rows = j->n * (c->n_heads / c->n_kv_heads);
    const int n_parts = (n_rows + ATTENTION_MAX_ROWS - 1) / ATTENTION_MAX_ROWS;
    struct int8_rows rows;
    for (int task; (task = next_task(j, n_parts * c->n_kv_heads)) >= 0;) {
        const int row = (n_parts - 1 - task / c->n_kv_heads) * ATTENTION_MAX_ROWS;
        const int n = n_rows - row < ATTENTION_MAX_ROWS ? n_rows - row : ATTENTION_MAX_ROWS;
        take_rows_int8(j, &rows, task % c->n_kv_heads, row, n);
        const int first = rows.begin[0] / KV_SPAN, last = (rows.end[n - 1] - 1) / KV_SPAN;
        qp_attend_span(&cpu(j->r)->k, &rows.a, first, s->int8_attention, &s->sum);
        for (int span = first + 1; span <= last; span++) {
            qp_attend_span(&cpu(j->r)->k, &rows.a, span, s->int8_attention, &s->part);
            qp_attention_add(&cpu(j->r)->k, &s->sum, &s->part, n, c->head_dim);
        }
        finish_rows_int8(j, &rows, &s->sum);
    }
}

/* The parts of query heads [head, ...) over a span of one token. */
static struct attention_part part_of(const struct attend_task *j, int span, int head)
{
    const struct attention_part *parts = &cpu(j->r)->parts;
    const size_t at = (size_t)span * (size_t)j->r->config->n_heads + (size_t)head;
    return (struct attention_part){ parts->m + at, parts->l + at,
                                    parts->o + at * (size_t)j->r->config->head_dim };
}

/* One token: each task is a span of a kv head's keys. */
static void attend_spans(void *arg, int index, int n_threads)
{
    (void)n_threads;
    struct attend_task *j = arg;
    const struct config *c = j->r->config;
    const int group = c->n_heads / c->n_kv_heads;
    const int n_parts = (group + ATTENTION_MAX_ROWS - 1) / ATTENTION_MAX_ROWS;
    struct int8_rows rows;
    for (int task; (task = next_task(j, j->n_spans * c->n_kv_heads * n_parts)) >= 0;) {
        const int span = task % j->n_spans, h = task / j->n_spans % c->n_kv_heads;
        const int row = task / j->n_spans / c->n_kv_heads * ATTENTION_MAX_ROWS;
        const int n = group - row < ATTENTION_MAX_ROWS ? group - row : ATTENTION_MAX_ROWS;
        const struct attention_part part = part_of(j, span, h * group + row);
        take_rows_int8(j, &rows, h, row, n);
        qp_attend_span(&cpu(j->r)->k, &rows.a, j->first_span + span,
                       cpu(j->r)->scratch[index].int8_attention, &part);
    }
}

/* Add the spans up, in their order. */
static void add_spans(struct attend_task *j)
{
    const struct config *c = j->r->config;
    const struct attention_part sum = part_of(j, 0, 0);
    for (int span = 1; span < j->n_spans; span++) {
        const struct attention_part part = part_of(j, span, 0);
        qp_attention_add(&cpu(j->r)->k, &sum, &part, c->n_heads, c->head_dim);
    }
    for (int h = 0; h < c->n_heads; h++) {
        const float inverse = 1.0f / sum.l[h];
        for (int i = h * c->head_dim; i < (h + 1) * c->head_dim; i++)
            j->floats[i] = sum.o[i] * inverse + 0.0f;
    }
}

/* ---- either ---- */

static void store_task(void *arg, int index, int n_threads)
{
    struct attend_task *j = arg;
    int begin, end;
    qp_share(j->n, 1, index, n_threads, &begin, &end);
    for (int t = begin; t < end; t++)
        act_store(&cpu(j->r)->k, j->out, t, j->floats + (size_t)t * j->out->n_cols);
}

void qp_cpu_attend(struct run *r, struct act *out, int l, int pos, int n)
{
    struct attend_task job = { .r = r, .out = out, .l = l, .pos = pos, .n = n };
    job.floats = out->f32 ? out->f32 : r->buffers.att_f32;
    if (!cpu(r)->kv.is_int8) {
        job.heads_per_task = heads_per_task(r, n);
        job.tokens_per_task = ATTENTION_MAX_ROWS / job.heads_per_task;
        qp_pool_run(cpu(r)->pool, attend_floats, &job);
    } else if (n > 1) {
        qp_pool_run(cpu(r)->pool, attend_int8, &job);
    } else {
        job.first_span = first_seen(r->config, l, pos) / KV_SPAN;
        job.n_spans = pos / KV_SPAN + 1 - job.first_span;
        qp_pool_run(cpu(r)->pool, attend_spans, &job);
        add_spans(&job);
    }
    cpu_parallel(r, n == 1, store_task, &job);
}
