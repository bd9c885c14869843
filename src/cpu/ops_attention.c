/* ops_attention.c: attention on threads. Keys and values: kv_cache.c. */
#include "cpu/cpu_impl.h"

#include <assert.h>
#include <string.h>

/* ---- attention ---- */

enum {
    SPANS_PER_THREAD = 4, // fewer, and a token's spans are divided further
    BLOCK_TASKS_PER_THREAD = 2,
    LEAST_BLOCKS = 3 // to divide
};

struct attend_task {
    struct cpu_device *d;
    const struct rows *rows;
    float *floats;     // [n, n_heads * head_dim] results
    bool is_quantized; // the results are stored as integers at once, not in `floats`
    int l;
    int n_groups, n_tasks;               // of d->mem.groups
    int tokens_per_task, heads_per_task; // with float keys: of one kv head's group
    /* Of a single row with int8 keys: */
    int first_span, n_spans;
    int first_block, n_blocks; // that it attends to
    int blocks_per_task, dims_per_task;
    int n_score_tasks; // which come first
    atomic_int next, n_scored;
};

/* Split a batch into d->mem.groups; returns how many. */
int qp_cpu_group_rows(struct cpu_device *d, const struct rows *rows)
{
    struct row_group *group = d->mem.groups;
    int n = 0;
    for (int t = 0; t < rows->n; t++) {
        struct cpu_sequence *s = cpu_sequence_of(rows->row[t].sequence);
        if (n && group[n - 1].sequence == s)
            group[n - 1].n++;
        else
            group[n++] = (struct row_group){ .sequence = s, .first = t, .n = 1 };
    }
    return n;
}

/* The next task: its group, and its number among the tasks of that group; false if none is left. */
static bool next_task(struct attend_task *j, const struct row_group **group, int *task)
{
    const int i = atomic_fetch_add(&j->next, 1);
    const struct row_group *g = j->d->mem.groups;
    if (i >= j->n_tasks)
        return false;
    while (i >= g->task_end)
        g++;
    *group = g;
    *task = g == j->d->mem.groups ? i : i - g[-1].task_end;
    return true;
}

/* ---- float keys ---- */

/* Rows t0 + [0, n_tokens) times query heads h0 + [0, n_heads), all of one sequence and kv head. */
static void attend_rows(const struct attend_task *j, const struct row_group *group, float *scratch,
                        int t0, int n_tokens, int h0, int n_heads)
{
    struct cpu_device *d = j->d;
    const struct config *c = d->base.config;
    const struct kv_layer *layer = &group->sequence->kv[j->l];
    const size_t head_dim = (size_t)layer->head_dim, q_width = (size_t)c->n_heads * head_dim;
    const int kv_head = h0 / heads_per_kv(d, j->l);
    const float *q[ATTENTION_MAX_ROWS];
    float *out[ATTENTION_MAX_ROWS];
    const float *bias[ATTENTION_MAX_ROWS];
    int begin[ATTENTION_MAX_ROWS], end[ATTENTION_MAX_ROWS], n_rows = 0;
    for (int t = t0; t < t0 + n_tokens; t++)
        for (int h = h0; h < h0 + n_heads; h++, n_rows++) {
            const size_t at = (size_t)t * q_width + (size_t)h * head_dim;
            q[n_rows] = d->mem.q + at;
            out[n_rows] = j->floats + at;
            bias[n_rows] = qp_alibi_of(d, h);
            begin[n_rows] = first_visible(c, j->l, j->rows->row[t].pos);
            end[n_rows] = j->rows->row[t].visible_end;
        }
    d->k.attend(&(struct attention){
        .head_dim = layer->head_dim,
        .scale = c->query_scale,
        .cap = c->attention_cap,
        .k = qp_kv_floats(layer, layer->k, kv_head),
        .v = qp_kv_floats(layer, layer->v, kv_head),
        .n_blocks = layer->n_blocks,
        .n_rows = n_rows,
        .q = q,
        .out = out,
        .begin = begin,
        .end = end,
        .bias = d->positions.alibi ? bias : NULL,
        .scratch = scratch,
    });
}

/* Late tokens attend to more keys than early ones, so the long tasks come first. */
static void attend_floats(void *arg, int index, int n_threads)
{
    (void)n_threads;
    struct attend_task *j = arg;
    const struct row_group *group;
    const int n_head_tasks = j->d->base.config->n_heads / j->heads_per_task;
    for (int task; next_task(j, &group, &task);) {
        const int n_blocks = (group->n + j->tokens_per_task - 1) / j->tokens_per_task;
        const int t0 = (n_blocks - 1 - task / n_head_tasks) * j->tokens_per_task;
        attend_rows(j, group, j->d->mem.scratch[index].attention, group->first + t0,
                    qp_min(group->n - t0, j->tokens_per_task),
                    task % n_head_tasks * j->heads_per_task, j->heads_per_task);
    }
}

/* Query heads of one task, which read each key once: all of a kv head, or fewer if there would be
 * fewer tasks than threads, or more rows than a task holds. */
static int heads_per_task(const struct cpu_device *d, int l, int n)
{
    const int group = heads_per_kv(d, l), n_heads = d->base.config->n_heads;
    int heads = group;
    while (heads > 1 &&
           (group % heads || heads > ATTENTION_MAX_ROWS || n * (n_heads / heads) < d->n_threads))
        heads--;
    return heads;
}

static void count_float_tasks(struct attend_task *j)
{
    j->heads_per_task = heads_per_task(j->d, j->l, j->rows->n);
    j->tokens_per_task = ATTENTION_MAX_ROWS / j->heads_per_task;
    for (int g = 0; g < j->n_groups; g++) {
        struct row_group *group = &j->d->mem.groups[g];
        j->n_tasks += (group->n + j->tokens_per_task - 1) / j->tokens_per_task *
                      (j->d->base.config->n_heads / j->heads_per_task);
        group->task_end = j->n_tasks;
    }
}

/* ---- int8 keys ---- */

/* Rows [row, row + n) of a group for kv head h: row i is token i / heads, query head i % heads of
 * the kv head. */
struct int8_rows {
    struct int8_attention a;
    const struct row_group *group;
    int h, row;
    int begin[ATTENTION_MAX_ROWS], end[ATTENTION_MAX_ROWS];
    int first_span, last_span; // that some row attends to
    const float *bias[ATTENTION_MAX_ROWS];
};

static void set_rows_int8(const struct attend_task *j, struct int8_rows *rows,
                          const struct row_group *group, int h, int row, int n)
{
    struct cpu_device *d = j->d;
    const struct config *c = d->base.config;
    const struct kv_layer *layer = kv_of(&group->sequence->base, j->l);
    const struct query_rows *q = &d->mem.queries;
    const int heads = heads_per_kv(d, j->l);
    const size_t token = (size_t)h * q->max_rows + (size_t)group->first;
    const size_t first = token * q->group + (size_t)row, block = first * q->stride / ACT_BLOCK;
    int least = INT32_MAX, most = 0;
    assert(n > 0 && n <= ATTENTION_MAX_ROWS);
    rows->group = group;
    rows->h = h;
    rows->row = row;
    for (int i = 0; i < n; i++) {
        const struct row *token_row = &j->rows->row[group->first + (row + i) / heads];
        rows->begin[i] = first_visible(c, j->l, token_row->pos);
        rows->end[i] = visible_end_of(c, j->l, token_row);
        rows->bias[i] = qp_alibi_of(d, h * heads + (row + i) % heads);
        least = qp_min(least, rows->begin[i]);
        most = most > rows->end[i] ? most : rows->end[i];
    }
    rows->first_span = least / KV_SPAN;
    rows->last_span = (most - 1) / KV_SPAN;
    rows->a = (struct int8_attention){
        .head_dim = layer->head_dim,
        .n_rows = n,
        .cap = c->attention_cap,
        .kv = qp_kv_tiles(layer, h),
        .q = q->q + first * q->stride,
        .q_scales = q->scales + block,
        .q_offsets = q->offsets + block,
        .begin = rows->begin,
        .end = rows->end,
        .bias = d->positions.alibi ? rows->bias : NULL,
    };
}

/* Row i of the rows: its row of the batch and its query head. */
static int token_of_row(const struct attend_task *j, const struct int8_rows *rows, int i)
{
    return rows->group->first + (rows->row + i) / heads_per_kv(j->d, j->l);
}

static int head_of_row(const struct attend_task *j, const struct int8_rows *rows, int i)
{
    const int heads = heads_per_kv(j->d, j->l);
    return rows->h * heads + (rows->row + i) % heads;
}

/* Quantize all results, whole blocks of each row. */
static void store_rows_int8(const struct attend_task *j, const struct int8_rows *rows,
                            const float *o)
{
    const int n_blocks = rows->a.head_dim / ACT_BLOCK, n = rows->a.n_rows * n_blocks;
    _Alignas(64) int8_t q[BLOCKS_TOGETHER * ACT_BLOCK];
    float scales[BLOCKS_TOGETHER];
    int32_t offsets[BLOCKS_TOGETHER];
    for (int b = 0; b < n; b += BLOCKS_TOGETHER) {
        const int m = qp_min(BLOCKS_TOGETHER, n - b);
        j->d->k.quantize(q, scales, offsets, o + (size_t)b * ACT_BLOCK, m * ACT_BLOCK);
        for (int i = 0; i < m; i++) {
            const int row = (b + i) / n_blocks;
            act_put_block(&j->d->mem.att, token_of_row(j, rows, row),
                          head_of_row(j, rows, row) * n_blocks + (b + i) % n_blocks,
                          q + i * ACT_BLOCK, scales[i], offsets[i]);
        }
    }
}

/* out = o / l. No zero is negative: so it does not matter how many spans that a row does not attend
 * to were added to it. */
static void finish_rows_int8(const struct attend_task *j, const struct int8_rows *rows,
                             const struct attention_part *sum)
{
    const int n_heads = j->d->base.config->n_heads, head_dim = rows->a.head_dim;
    for (int i = 0; i < rows->a.n_rows; i++) {
        float *o = sum->o + (size_t)i * (size_t)head_dim, *out = o;
        if (!j->is_quantized)
            out = j->floats + ((size_t)token_of_row(j, rows, i) * (size_t)n_heads +
                               (size_t)head_of_row(j, rows, i)) *
                                  (size_t)head_dim;
        j->d->k.axpby(out, o, 1.0f / sum->l[i], NULL, 0, head_dim);
    }
    if (j->is_quantized)
        store_rows_int8(j, rows, sum->o);
}

/* Tasks of ATTENTION_MAX_ROWS rows of one kv head, the long ones first. */
static void attend_int8(void *arg, int index, int n_threads)
{
    (void)n_threads;
    struct attend_task *j = arg;
    const struct kernels *k = &j->d->k;
    const int n_kv_heads = layer_of(j->d, j->l)->n_kv_heads, heads = heads_per_kv(j->d, j->l);
    const struct worker_scratch *s = &j->d->mem.scratch[index];
    const struct row_group *group;
    struct int8_rows rows;
    for (int task; next_task(j, &group, &task);) {
        const int n_rows = group->n * heads;
        const int n_parts = (n_rows + ATTENTION_MAX_ROWS - 1) / ATTENTION_MAX_ROWS;
        const int row = (n_parts - 1 - task / n_kv_heads) * ATTENTION_MAX_ROWS;
        set_rows_int8(j, &rows, group, task % n_kv_heads, row,
                      qp_min(n_rows - row, ATTENTION_MAX_ROWS));
        qp_attend_span(k, &rows.a, rows.first_span, s->int8_attention, &s->sum);
        for (int span = rows.first_span + 1; span <= rows.last_span; span++) {
            qp_attend_span(k, &rows.a, span, s->int8_attention, &s->part);
            qp_attention_add(k, &s->sum, &s->part, rows.a.n_rows, rows.a.head_dim);
        }
        finish_rows_int8(j, &rows, &s->sum);
    }
}

static void count_int8_tasks(struct attend_task *j)
{
    const int n_kv_heads = layer_of(j->d, j->l)->n_kv_heads, heads = heads_per_kv(j->d, j->l);
    for (int g = 0; g < j->n_groups; g++) {
        struct row_group *group = &j->d->mem.groups[g];
        const int n_rows = group->n * heads;
        if (kv_of(&group->sequence->base, j->l)->k) // not a text with float keys
            j->n_tasks += (n_rows + ATTENTION_MAX_ROWS - 1) / ATTENTION_MAX_ROWS * n_kv_heads;
        group->task_end = j->n_tasks;
    }
}

/* ---- a single row with int8 keys: its spans are divided among threads ---- */

/* The parts of query heads [head, ...) over a span. */
static struct attention_part part_of(const struct attend_task *j, int span, int head)
{
    const struct attention_part *parts = &j->d->positions.parts;
    const size_t at = (size_t)span * (size_t)j->d->base.config->n_heads + (size_t)head;
    return (struct attention_part){ parts->m + at, parts->l + at,
                                    parts->o + at * (size_t)layer_of(j->d, j->l)->head_dim };
}

/* A kv head, and up to ATTENTION_MAX_ROWS of its query heads: the i-th such set. */
static int set_heads(const struct attend_task *j, struct int8_rows *rows, int i)
{
    const int n_kv_heads = layer_of(j->d, j->l)->n_kv_heads, heads = heads_per_kv(j->d, j->l);
    const int h = i % n_kv_heads, row = i / n_kv_heads * ATTENTION_MAX_ROWS;
    set_rows_int8(j, rows, j->d->mem.groups, h, row, qp_min(heads - row, ATTENTION_MAX_ROWS));
    return h * heads + row;
}

/* Each task is a span of a set of heads. */
static void attend_spans(void *arg, int index, int n_threads)
{
    (void)n_threads;
    struct attend_task *j = arg;
    struct int8_rows rows;
    for (int task; (task = atomic_fetch_add(&j->next, 1)) < j->n_tasks;) {
        const int span = task % j->n_spans, head = set_heads(j, &rows, task / j->n_spans);
        const struct attention_part part = part_of(j, span, head);
        qp_attend_span(&j->d->k, &rows.a, j->first_span + span,
                       j->d->mem.scratch[index].int8_attention, &part);
    }
}

static int tasks_of(int n, int per_task)
{
    return (n + per_task - 1) / per_task;
}

static size_t score_stride(const struct cpu_device *d)
{
    return qp_round_up((size_t)d->positions.n_context, KV_BLOCK);
}

/* The scores of some blocks of a set of heads. */
static void score_blocks(struct attend_task *j, int task)
{
    const int n = tasks_of(j->n_blocks, j->blocks_per_task);
    const int block = j->first_block + task % n * j->blocks_per_task;
    const int end = qp_min(block + j->blocks_per_task, j->first_block + j->n_blocks);
    const struct visible blocks = { block * KV_BLOCK, end * KV_BLOCK };
    struct int8_rows rows;
    const size_t head = (size_t)set_heads(j, &rows, task / n), stride = score_stride(j->d);
    qp_attend_scores(&j->d->k, &rows.a, &blocks,
                     j->d->positions.scores + head * stride + blocks.begin, stride);
    atomic_fetch_add_explicit(&j->n_scored, 1, memory_order_release);
}

/* Some dimensions of a span of a set of heads. The task of the first ones keeps the softmax. */
static void weigh_span(struct attend_task *j, int index, int task)
{
    const int head_dim = layer_of(j->d, j->l)->head_dim;
    const int n = tasks_of(head_dim, j->dims_per_task), begin = task % n * j->dims_per_task;
    const int span = task / n % j->n_spans;
    const struct worker_scratch *s = &j->d->mem.scratch[index];
    const size_t stride = score_stride(j->d);
    struct int8_rows rows;
    const int head = set_heads(j, &rows, task / n / j->n_spans);
    struct attention_part part = part_of(j, span, head);
    if (begin > 0) {
        part.m = s->part.m;
        part.l = s->part.l;
    }
    qp_attend_values(
        &j->d->k, &rows.a, j->first_span + span, begin, qp_min(begin + j->dims_per_task, head_dim),
        j->d->positions.scores + (size_t)head * stride, stride, s->int8_attention, &part);
}

static void attend_steps(void *arg, int index, int n_threads)
{
    (void)n_threads;
    struct attend_task *j = arg;
    for (int task; (task = atomic_fetch_add(&j->next, 1)) < j->n_tasks;)
        if (task < j->n_score_tasks) {
            score_blocks(j, task);
        } else {
            qp_pool_wait(&j->n_scored, j->n_score_tasks);
            weigh_span(j, index, task - j->n_score_tasks);
        }
}

/* Add the spans, in their order. */
static void add_spans(const struct attend_task *j)
{
    const int n_heads = j->d->base.config->n_heads, head_dim = layer_of(j->d, j->l)->head_dim;
    const struct attention_part sum = part_of(j, 0, 0);
    for (int span = 1; span < j->n_spans; span++) {
        const struct attention_part part = part_of(j, span, 0);
        qp_attention_add(&j->d->k, &sum, &part, n_heads, head_dim);
    }
    for (int h = 0; h < n_heads; h++) {
        const float inverse = 1.0f / sum.l[h];
        for (int i = h * head_dim; i < (h + 1) * head_dim; i++)
            j->floats[i] = sum.o[i] * inverse + 0.0f;
    }
}

static void attend_single(struct attend_task *j)
{
    const struct row *row = &j->rows->row[0];
    const struct layer_config *lc = layer_of(j->d, j->l);
    const int n_threads = j->d->n_now;
    const int n_sets = lc->n_kv_heads * tasks_of(heads_per_kv(j->d, j->l), ATTENTION_MAX_ROWS);
    const int begin = first_visible(j->d->base.config, j->l, row->pos), last = row->visible_end - 1;
    j->first_span = begin / KV_SPAN;
    j->n_spans = last / KV_SPAN + 1 - j->first_span;
    j->n_tasks = j->n_spans * n_sets;
    j->first_block = begin / KV_BLOCK;
    j->n_blocks = last / KV_BLOCK + 1 - j->first_block;
    if (n_threads == 1 || j->n_blocks < LEAST_BLOCKS ||
        j->n_tasks >= SPANS_PER_THREAD * n_threads) {
        qp_pool_run(j->d->pool, attend_spans, j);
    } else {
        const int n_tiles = tasks_of(lc->head_dim, TILE_ROWS);
        j->blocks_per_task = tasks_of(j->n_blocks * n_sets, BLOCK_TASKS_PER_THREAD * n_threads);
        j->dims_per_task = qp_min(tasks_of(n_tiles * j->n_tasks, n_threads), n_tiles) * TILE_ROWS;
        j->n_score_tasks = tasks_of(j->n_blocks, j->blocks_per_task) * n_sets;
        j->n_tasks = j->n_score_tasks + tasks_of(lc->head_dim, j->dims_per_task) * j->n_tasks;
        qp_pool_run(j->d->pool, attend_steps, j);
    }
    add_spans(j);
}

/* ---- either ---- */

static void store_task(void *arg, int index, int n_threads)
{
    const struct attend_task *j = arg;
    struct act *out = &j->d->mem.att;
    int begin, end;
    qp_share(j->rows->n, 1, index, n_threads, &begin, &end);
    for (int t = begin; t < end; t++) {
        float *row = j->floats + (size_t)t * (size_t)out->n_cols;
        if (j->d->base.config->mixes_inputs)
            qp_mix_input(&j->d->k, row, out->n_cols);
        act_store(&j->d->k, out, t, row);
    }
}

quip_status qp_cpu_attend(struct device *device, int l, const struct rows *rows)
{
    struct cpu_device *d = cpu_of(device);
    struct attend_task job = { .d = d, .rows = rows, .l = l };
    assert(rows->n > 0 && rows->n <= device->capacity.n_rows);
    /* With int8 keys the floats of Q have been quantized, so their memory is free. */
    job.floats = d->mem.att.f32 ? d->mem.att.f32 : d->mem.q;
    act_resize(&d->mem.att, device->config->n_heads * layer_of(d, l)->head_dim);
    job.n_groups = qp_cpu_group_rows(d, rows);
    if (rows->row[0].sequence->n_context == 0) {
        job.floats = d->mem.att.f32 ? d->mem.att.f32 : d->mem.text_att; // Q is not free
        qp_cpu_attend_texts(d, l, rows, job.n_groups, job.floats);
        count_int8_tasks(&job);
        if (job.n_tasks > 0)
            qp_pool_run(d->pool, attend_int8, &job);
    } else if (!d->kv.is_int8) {
        count_float_tasks(&job);
        qp_pool_run(d->pool, attend_floats, &job);
    } else if (rows->n > 1) {
        count_int8_tasks(&job);
        job.is_quantized = !d->mem.att.f32 && !device->config->mixes_inputs &&
                           layer_of(d, l)->head_dim % ACT_BLOCK == 0;
        qp_pool_run(d->pool, attend_int8, &job);
    } else {
        attend_single(&job);
    }
    if (!job.is_quantized)
        cpu_parallel(d, rows->n == 1, store_task, &job);
    return QUIP_OK;
}
