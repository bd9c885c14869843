/* ops_texts.c: attention, pooling and dense layers for embeddings, on threads.
 * In:  a batch of whole texts, whose sequences have no KV cache.
 * Out: attention that reads the keys and values of the batch; one vector for each text.
 *
 * Where the weights are integers, a text of MIN_INT8_TOKENS has int8 keys and values of the layer
 * that runs, and attention is that of a session (ops_attention.c). Otherwise attention is that of
 * float weights: a task copies the keys and values that it needs to its scratch memory, in the
 * layout of the kernel, and then runs up to TEXT_TASK_ROWS queries over them. Positions count from
 * the start of a text, so its numbers do not depend on the other texts of a batch. */
#include "cpu/cpu_impl.h"

#include <assert.h>
#include <string.h>

/* Queries of one task: enough to make the copy of keys and values cheap. */
#define TEXT_TASK_ROWS 128

/* ---- which attention ---- */

/* Fewer tokens do not fill a block, and their attention takes little time. */
#define MIN_INT8_TOKENS KV_BLOCK

size_t qp_text_scratch(const struct cpu_device *d, int head_dim, int n_rows)
{
    if (d->kv.is_int8)
        n_rows = qp_min(n_rows, MIN_INT8_TOKENS);
    return 2 * qp_round_up((size_t)n_rows, KV_BLOCK) * (size_t)head_dim;
}

/* A text has at most one block more than its share. */
int qp_text_blocks(const struct cpu_device *d, int n_rows)
{
    return d->kv.is_int8 ? n_rows / KV_BLOCK + n_rows / MIN_INT8_TOKENS : 0;
}

void qp_cpu_place_texts(struct cpu_device *d, int l, const struct rows *rows)
{
    const struct row *row = rows->row;
    for (int t = 0, n_before = 0, end; t < rows->n; t = end) {
        for (end = t + 1; end < rows->n && row[end].pos > 0;)
            end++;
        struct cpu_sequence *s = cpu_sequence_of(row[t].sequence);
        s->text = (struct kv_layer){ 0 };
        if (!d->kv.is_int8 || end - t < MIN_INT8_TOKENS)
            continue;
        s->text = qp_kv_text(&d->mem.text_kv, &d->kv, layer_of(d, l), t / KV_BLOCK + n_before++,
                             (end - t + KV_BLOCK - 1) / KV_BLOCK);
    }
}

/* ---- attention ---- */

struct text_task {
    struct cpu_device *d;
    const struct rows *rows;
    float *out; // [n, q_width]
    int l;
    int n_tasks; // of d->mem.groups
    atomic_int next;
};

/* Tokens [t, t + n) of a group, for one kv head. */
struct text_piece {
    const struct row_group *group;
    int kv_head, t, n;
    int begin, end; // positions that some of them attend to; begin is a multiple of KV_BLOCK
    float *k, *v;   // copied; block b is in slot b % n_blocks
    int n_blocks;
};

/* Copy keys and values [begin, end). */
static void pack_keys(const struct text_task *j, struct text_piece *p)
{
    const struct row_memory *m = &j->d->mem;
    const struct config *c = j->d->base.config;
    const size_t head_dim = (size_t)c->layers[j->l].head_dim;
    const size_t stride = (size_t)c->layers[j->l].n_kv_heads * head_dim;
    const size_t first = (size_t)p->group->first * stride + (size_t)p->kv_head * head_dim;
    for (int pos = p->begin; pos < p->end; pos += KV_BLOCK) {
        const size_t slot = (size_t)(pos / KV_BLOCK % p->n_blocks) * head_dim * KV_BLOCK;
        const int n = qp_min(p->end - pos, KV_BLOCK);
        const float *key = m->k + first + (size_t)pos * stride;
        const float *value = m->v + first + (size_t)pos * stride;
        for (int i = 0; i < n; i++)
            memcpy(p->v + slot + (size_t)i * head_dim, value + (size_t)i * stride,
                   head_dim * sizeof *value);
        for (size_t d = 0; d < head_dim; d++) {
            float *to = p->k + slot + d * KV_BLOCK;
            for (int i = 0; i < n; i++)
                to[i] = key[(size_t)i * stride + d];
        }
    }
}

/* Rows [t, t + n_tokens) times query heads [h, h + n_heads) of one kv head. */
static void attend_text_rows(const struct text_task *j, const struct text_piece *p, float *scratch,
                             int t, int n_tokens, int h, int n_heads)
{
    struct cpu_device *d = j->d;
    const struct config *c = d->base.config;
    const int head_dim = c->layers[j->l].head_dim;
    const size_t q_width = (size_t)c->n_heads * (size_t)head_dim;
    const float *q[ATTENTION_MAX_ROWS], *bias[ATTENTION_MAX_ROWS];
    float *out[ATTENTION_MAX_ROWS];
    int begin[ATTENTION_MAX_ROWS], end[ATTENTION_MAX_ROWS], n_rows = 0;
    for (int i = t; i < t + n_tokens; i++)
        for (int k = h; k < h + n_heads; k++, n_rows++) {
            const struct row *row = &j->rows->row[i];
            const size_t at = (size_t)i * q_width + (size_t)k * (size_t)head_dim;
            q[n_rows] = d->mem.q + at;
            out[n_rows] = j->out + at;
            bias[n_rows] = qp_alibi_of(d, k);
            begin[n_rows] = first_visible(c, j->l, row->pos);
            end[n_rows] = visible_end_of(c, j->l, row);
        }
    d->k.attend(&(struct attention){
        .head_dim = head_dim,
        .scale = c->query_scale,
        .cap = c->attention_cap,
        .k = p->k,
        .v = p->v,
        .n_blocks = p->n_blocks,
        .n_rows = n_rows,
        .q = q,
        .out = out,
        .begin = begin,
        .end = end,
        .bias = bias[0] ? bias : NULL,
        .scratch = scratch,
    });
}

static void attend_part(const struct text_task *j, struct text_piece *p, float *scratch)
{
    const struct config *c = j->d->base.config;
    const int group = c->n_heads / c->layers[j->l].n_kv_heads;
    const int n_heads = qp_min(group, ATTENTION_MAX_ROWS);
    const int n_tokens = ATTENTION_MAX_ROWS / n_heads;
    const int first = p->group->first + p->t;
    pack_keys(j, p);
    for (int t = 0; t < p->n; t += n_tokens)
        for (int h = 0; h < group; h += n_heads)
            attend_text_rows(j, p, scratch, first + t, qp_min(p->n - t, n_tokens),
                             p->kv_head * group + h, qp_min(group - h, n_heads));
}

/* The part of task `index` in its group. */
static struct text_piece part_at(const struct text_task *j, const struct row_group *group,
                                 int index)
{
    const struct config *c = j->d->base.config;
    const int n_kv_heads = c->layers[j->l].n_kv_heads;
    struct text_piece p = { .group = group,
                            .kv_head = index % n_kv_heads,
                            .t = index / n_kv_heads * TEXT_TASK_ROWS };
    p.n = qp_min(group->n - p.t, TEXT_TASK_ROWS);
    const struct row *row = &j->rows->row[group->first + p.t];
    /* The first row reads the first position, the last one the last. */
    p.begin = first_visible(c, j->l, row->pos) / KV_BLOCK * KV_BLOCK;
    p.end = visible_end_of(c, j->l, row + p.n - 1);
    p.n_blocks = (p.end + KV_BLOCK - 1 - p.begin) / KV_BLOCK;
    return p;
}

static void attend_texts(void *arg, int index, int n_threads)
{
    (void)n_threads;
    struct text_task *j = arg;
    const struct row_group *groups = j->d->mem.groups;
    const struct worker_scratch *s = &j->d->mem.scratch[index];
    const int head_dim = j->d->base.config->layers[j->l].head_dim;
    for (int task, g = 0; (task = atomic_fetch_add(&j->next, 1)) < j->n_tasks;) {
        while (task >= groups[g].task_end) // tasks of a thread ascend
            g++;
        struct text_piece p = part_at(j, &groups[g], g > 0 ? task - groups[g - 1].task_end : task);
        p.k = s->text_keys;
        p.v = p.k + (size_t)p.n_blocks * KV_BLOCK * (size_t)head_dim;
        attend_part(j, &p, s->attention);
    }
}

void qp_cpu_attend_texts(struct cpu_device *d, int l, const struct rows *rows, int n_groups,
                         float *out)
{
    struct text_task job = { .d = d, .rows = rows, .out = out, .l = l };
    const int n_kv_heads = d->base.config->layers[l].n_kv_heads;
    for (int g = 0; g < n_groups; g++) {
        struct row_group *group = &d->mem.groups[g];
        assert(rows->row[group->first].pos == 0);
        if (!kv_of(&group->sequence->base, l)->k)
            job.n_tasks += (group->n + TEXT_TASK_ROWS - 1) / TEXT_TASK_ROWS * n_kv_heads;
        group->task_end = job.n_tasks;
    }
    if (job.n_tasks > 0)
        qp_pool_run(d->pool, attend_texts, &job);
}

/* ---- pooling ---- */

struct pool_task {
    struct cpu_device *d;
    const struct norm_weights *norm;
    const struct rows *rows;
    const struct dense *dense;
    const float *from;
    float *to;
    int n; // texts
};

/* The mean over the outputs of a text, in their order. */
static void pool_text(const struct pool_task *j, const struct row_group *group, float *to,
                      float *scratch)
{
    struct cpu_device *d = j->d;
    const int d_model = d->base.config->d_model;
    int n = 0;
    memset(to, 0, (size_t)d_model * sizeof *to);
    for (int t = group->first; t < group->first + group->n; t++) {
        if (!j->rows->row[t].is_output)
            continue;
        qp_cpu_norm_floats(d, scratch, d->mem.x + (size_t)t * (size_t)d_model, j->norm);
        d->k.add(to, scratch, d_model);
        n++;
    }
    assert(n > 0);
    d->k.axpby(to, to, 1.0f / (float)n, NULL, 0, d_model);
}

static void pool_texts(void *arg, int index, int n_threads)
{
    const struct pool_task *j = arg;
    const size_t d_model = (size_t)j->d->base.config->d_model;
    int begin, end;
    qp_share(j->n, 1, index, n_threads, &begin, &end);
    for (int i = begin; i < end; i++)
        pool_text(j, &j->d->mem.groups[i], j->to + (size_t)i * d_model,
                  j->d->mem.scratch[index].row);
}

quip_status qp_cpu_pool(struct device *device, const struct norm_weights *w,
                        const struct rows *rows)
{
    struct cpu_device *d = cpu_of(device);
    struct pool_task job = { .d = d, .norm = w, .rows = rows, .to = d->mem.pooled[0] };
    job.n = qp_cpu_group_rows(d, rows);
    assert(job.n <= device->capacity.n_texts);
    cpu_parallel(d, job.n == 1, pool_texts, &job);
    return QUIP_OK;
}

/* ---- dense layers ---- */

static void dense_rows(void *arg, int index, int n_threads)
{
    const struct pool_task *j = arg;
    const struct matrix *w = &j->dense->w;
    int begin, end;
    qp_share(w->n_out, 16, index, n_threads, &begin, &end);
    if (begin == end)
        return;
    const struct f32_rows in = { j->from, (size_t)w->n_in, j->n };
    const struct out_view out = { j->to + begin, (size_t)w->n_out };
    j->d->k.gemm_f32(&out, w, &in, begin, end);
    for (int t = 0; t < j->n && j->dense->has_tanh; t++)
        j->d->k.soft_cap(out.y + (size_t)t * out.stride, 1.0f, end - begin);
}

quip_status qp_cpu_dense(struct device *device, int i, int n)
{
    struct cpu_device *d = cpu_of(device);
    assert(i >= 0 && i < device->weights->n_dense && n > 0 && n <= device->capacity.n_texts);
    struct pool_task job = { .d = d,
                             .dense = &device->weights->dense[i],
                             .from = d->mem.pooled[0],
                             .to = d->mem.pooled[1],
                             .n = n };
    qp_pool_run(d->pool, dense_rows, &job);
    d->mem.pooled[0] = job.to;
    d->mem.pooled[1] = (float *)job.from;
    return QUIP_OK;
}
