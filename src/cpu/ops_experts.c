/* ops_experts.c: a mixture of experts on threads.
 * In:  X and XN of the rows; the router and the experts of a layer.
 * Out: the experts that each row chose and their weights; the sum of their outputs in BUF_EXPERTS.
 *
 * A pair is a row and an expert that it chose. Pairs are sorted by expert, then by row. So an
 * expert's weight rows are read once for all rows of the batch that chose it, and those of an
 * expert that no row chose are not read. A row's outputs are added in the order of the experts'
 * numbers, whatever else is in the batch.
 *
 * Few rows with one expert: weight rows come directly from the file. Many: they are packed, as in
 * ops_linear.c. */
#include "base/math.h"
#include "cpu/cpu_impl.h"

#include <assert.h>
#include <float.h>
#include <string.h>

struct expert_task {
    struct cpu_device *d;
    const struct layer_weights *w;
    const struct rows *rows;
    bool has_dense;      // there is a dense feed-forward beside the experts
    bool divides_scores; // among threads, instead of rows
    int n_few;           // pairs of an expert that read the weights directly
};

/* ---- route: scores ---- */

static struct matrix float_matrix(const float *data, int n_out, int n_in)
{
    return (struct matrix){ .dtype = DTYPE_F32,
                            .n_out = n_out,
                            .n_in = n_in,
                            .row_bytes = (size_t)n_in * sizeof *data,
                            .data = data };
}

/* Scores of a row: one for each expert, then that of the dense feed-forward. */
static float *scores_of(const struct cpu_device *d, int t)
{
    return d->experts.scores + (size_t)t * (size_t)(d->base.config->experts.n + 1);
}

/* Rows whose norms fit in a thread's scratch together. */
static int rows_at_once(const struct cpu_device *d)
{
    const int n = TASK_ROWS * TILE_ROWS / d->base.config->d_model;
    return n > 1 ? n : 1;
}

/* Scores [begin, end) of n rows from t on. */
static void score_rows(const struct expert_task *j, int index, int t, int n, int begin, int end)
{
    struct cpu_device *d = j->d;
    const struct config *c = d->base.config;
    const struct worker_scratch *s = &d->mem.scratch[index];
    const size_t d_model = (size_t)c->d_model;
    float *norms = n > 1 ? s->up : s->row; // [n, d_model]
    const struct f32_rows x = { norms, d_model, n };
    const struct out_view out = { scores_of(d, t), (size_t)c->experts.n + 1 };
    for (int i = 0; i < n; i++)
        qp_cpu_norm_floats(d, norms + (size_t)i * d_model, d->mem.x + (size_t)(t + i) * d_model,
                           &j->w->router_norm);
    if (begin < qp_min(end, c->experts.n)) {
        const struct matrix router = float_matrix(j->w->router, c->experts.n, c->d_model);
        d->k.gemm_f32(&(struct out_view){ out.y + begin, out.stride }, &router, &x, begin,
                      qp_min(end, c->experts.n));
    }
    if (end > c->experts.n && j->w->shared_gate) {
        const struct matrix gate = float_matrix(j->w->shared_gate, 1, c->d_model);
        d->k.gemm_f32(&(struct out_view){ out.y + c->experts.n, out.stride }, &gate, &x, 0, 1);
    }
}

/* ---- route: choice ---- */

/* Finite, so that the weights below are numbers, whatever a file contains. */
static float bounded(float score)
{
    if (!(score >= -FLT_MAX)) // a NaN, too
        return -FLT_MAX;
    return score > FLT_MAX ? FLT_MAX : score;
}

/* The experts with the largest scores, by their numbers; of equal scores the lower numbers. */
static void choose_experts(const float *scores, int n, int *chosen, int n_chosen)
{
    for (int i = 0; i < n_chosen; i++)
        chosen[i] = -1;
    for (int e = 0; e < n; e++) {
        int at = n_chosen; // in `chosen` by falling score
        while (at > 0 && (chosen[at - 1] < 0 || scores[e] > scores[chosen[at - 1]]))
            at--;
        for (int i = n_chosen - 1; i > at; i--)
            chosen[i] = chosen[i - 1];
        if (at < n_chosen)
            chosen[at] = e;
    }
    for (int i = 1; i < n_chosen; i++) { // now by number
        const int e = chosen[i];
        int at = i;
        for (; at > 0 && chosen[at - 1] > e; at--)
            chosen[at] = chosen[at - 1];
        chosen[at] = e;
    }
}

static void choose_row(const struct expert_task *j, int t)
{
    struct cpu_device *d = j->d;
    const struct expert_config *c = &d->base.config->experts;
    float *scores = scores_of(d, t), *weights = d->experts.weights + (size_t)t * (size_t)c->n_used;
    int *chosen = d->experts.chosen + (size_t)t * (size_t)c->n_used;
    float max = -FLT_MAX, sum = 0, sum_chosen = 0;
    for (int e = 0; e < c->n; e++) {
        scores[e] = bounded(scores[e]);
        max = scores[e] > max ? scores[e] : max;
    }
    choose_experts(scores, c->n, chosen, c->n_used);
    for (int e = 0; e < c->n; e++) {
        scores[e] = qp_exp(scores[e] - max);
        sum += scores[e];
    }
    for (int i = 0; i < c->n_used; i++) {
        weights[i] = scores[chosen[i]] / sum;
        sum_chosen += weights[i];
    }
    for (int i = 0; i < c->n_used; i++) {
        if (c->is_normalized)
            weights[i] /= sum_chosen;
        if (j->w->expert_scale)
            weights[i] *= j->w->expert_scale[chosen[i]];
    }
    scores[c->n] = j->w->shared_gate ? 1.0f / (1.0f + qp_exp(-scores[c->n])) : 1.0f;
}

/* ---- route ---- */

/* Few rows: threads divide the scores. Many: they divide the rows. */
static void score_task(void *arg, int index, int n_threads)
{
    const struct expert_task *j = arg;
    const int n = j->d->base.config->experts.n + 1;
    int begin, end;
    qp_share(j->divides_scores ? n : j->rows->n, 1, index, n_threads, &begin, &end);
    if (j->divides_scores) {
        for (int t = 0; t < j->rows->n && begin < end; t++)
            score_rows(j, index, t, 1, begin, end);
        return;
    }
    for (int t = begin, n_rows; t < end; t += n_rows) {
        n_rows = qp_min(rows_at_once(j->d), end - t);
        score_rows(j, index, t, n_rows, 0, n);
        for (int i = 0; i < n_rows; i++)
            choose_row(j, t + i);
    }
}

/* Sort the pairs by expert, and make a group of each expert that has some. */
static void sort_pairs(struct cpu_device *d, int n_rows)
{
    const struct expert_config *c = &d->base.config->experts;
    struct expert_memory *m = &d->experts;
    const int n_pairs = n_rows * c->n_used;
    memset(m->next, 0, (size_t)c->n * sizeof *m->next);
    for (int i = 0; i < n_pairs; i++)
        m->next[m->chosen[i]]++;
    m->n_groups = 0;
    for (int e = 0, first = 0; e < c->n; e++) {
        const int n = m->next[e];
        m->next[e] = first;
        if (n > 0)
            m->groups[m->n_groups++] = (struct expert_group){ e, first, n };
        first += n;
    }
    for (int i = 0; i < n_pairs; i++) {
        const int pair = m->next[m->chosen[i]]++;
        m->pair_row[pair] = i / c->n_used;
        m->pair_weight[pair] = m->weights[i];
    }
}

quip_status qp_cpu_route(struct device *device, int l, const struct rows *rows)
{
    struct cpu_device *d = cpu_of(device);
    struct expert_task job = { .d = d, .w = &device->weights->layers[l], .rows = rows };
    assert(rows->n > 0 && rows->n <= device->capacity.n_rows);
    assert(device->config->layers[l].has_experts && job.w->router);
    job.divides_scores = rows->n < d->n_threads;
    qp_pool_run(d->pool, score_task, &job);
    for (int t = 0; t < rows->n && job.divides_scores; t++)
        choose_row(&job, t);
    sort_pairs(d, rows->n);
    return QUIP_OK;
}

/* ---- experts: act(gate) * up ---- */

/* What a thread has in scratch: the rows of pairs [first, first + n). */
struct gathered {
    int first, n;
};

/* The input of pairs [first, first + n), from `t0` on of the result: their rows of XN where these
 * are consecutive, otherwise copies. */
static const struct act *gather(const struct expert_task *j, int index, struct gathered *has,
                                int first, int n, int *t0)
{
    const struct act *xn = &j->d->mem.xn;
    struct act *copy = &j->d->experts.rows[index];
    const int *row = j->d->experts.pair_row + first;
    assert(n > 0 && n <= TASK_ROWS);
    *t0 = row[0];
    if (row[n - 1] - row[0] == n - 1)
        return xn;
    *t0 = 0;
    if (has->first == first && has->n == n)
        return copy;
    for (int i = 0; i < n; i++)
        act_copy_row(copy, i, xn, row[i]);
    *has = (struct gathered){ first, n };
    return copy;
}

/* Rows [row, row + n_rows) of the gate and up matrices of the group's expert, times n of its pairs
 * from `pair` on. */
static void gate_part(const struct expert_task *j, int index, struct gathered *has,
                      const struct expert_group *g, int pair, int n, int row, int n_rows)
{
    struct cpu_device *d = j->d;
    const struct worker_scratch *s = &d->mem.scratch[index];
    const bool is_few = g->n <= j->n_few;
    const struct config *c = d->base.config;
    const int stride = is_few ? n_rows : TILE_ROWS;
    struct partial_product p = { .row = g->expert * c->experts.d_ff + row,
                                 .n_rows = n_rows,
                                 .n = n,
                                 .y_stride = (size_t)stride };
    p.in = gather(j, index, has, pair, n, &p.t0);
    p.w = &j->w->m[MATRIX_EXPERT_UP];
    p.tile = is_few ? NULL : s->tile;
    p.y = s->up;
    qp_multiply_part(&d->k, &p);
    p.w = &j->w->m[MATRIX_EXPERT_GATE];
    p.tile = is_few ? NULL : s->tile_gate;
    p.y = s->gate;
    qp_multiply_part(&d->k, &p);
    qp_store_gated(&d->k, &(struct gated_part){ .up = s->up,
                                                .gate = s->gate,
                                                .stride = (size_t)stride,
                                                .act = (int)c->act,
                                                .to = &d->experts.h,
                                                .t0 = pair,
                                                .n = n,
                                                .row = row,
                                                .n_rows = n_rows });
}

/* Weight rows [row, row + n_rows) for all pairs of a group. */
static void gate_group(const struct expert_task *j, int index, struct gathered *has,
                       const struct expert_group *g, int row, int n_rows)
{
    struct cpu_device *d = j->d;
    const struct worker_scratch *s = &d->mem.scratch[index];
    const int first = g->expert * d->base.config->experts.d_ff + row;
    if (g->n <= j->n_few) {
        gate_part(j, index, has, g, g->first, g->n, row, n_rows);
        return;
    }
    qp_pack_tile(&d->k, s->tile, &j->w->m[MATRIX_EXPERT_UP], first, n_rows);
    qp_pack_tile(&d->k, s->tile_gate, &j->w->m[MATRIX_EXPERT_GATE], first, n_rows);
    for (int i = 0; i < g->n; i += TASK_ROWS)
        gate_part(j, index, has, g, g->first + i, qp_min(TASK_ROWS, g->n - i), row, n_rows);
}

/* Tiles of weight rows are numbered group by group. */
static void gate_task(void *arg, int index, int n_threads)
{
    (void)n_threads;
    const struct expert_task *j = arg;
    const struct expert_memory *m = &j->d->experts;
    const int d_ff = j->d->base.config->experts.d_ff;
    const int n_tiles = (d_ff + TILE_ROWS - 1) / TILE_ROWS;
    struct gathered has = { 0 };
    int i, end, n;
    const struct pool_items tiles = { .n = m->n_groups * n_tiles, .unit = 1, .min = 1 };
    while (qp_pool_next(j->d->pool, index, &tiles, &i, &end))
        for (; i < end; i += n) {
            const struct expert_group *g = &m->groups[i / n_tiles];
            const int tile = i % n_tiles, row = tile * TILE_ROWS;
            n = g->n <= j->n_few ? qp_min(TASK_ROWS / g->n, qp_min(end - i, n_tiles - tile)) : 1;
            gate_group(j, index, &has, g, row, qp_min(n * TILE_ROWS, d_ff - row));
        }
}

/* ---- experts: down ---- */

/* Columns [row, row + n_rows) of the sum: add those of n pairs from `pair` on. */
static void down_part(const struct expert_task *j, int index, const struct expert_group *g,
                      int pair, int n, int row, int n_rows)
{
    struct cpu_device *d = j->d;
    const struct worker_scratch *s = &d->mem.scratch[index];
    const size_t d_model = (size_t)d->base.config->d_model;
    const bool is_few = g->n <= j->n_few;
    const struct partial_product p = { .w = &j->w->m[MATRIX_EXPERT_DOWN],
                                       .row = g->expert * (int)d_model + row,
                                       .n_rows = n_rows,
                                       .in = &d->experts.h,
                                       .t0 = pair,
                                       .n = n,
                                       .tile = is_few ? NULL : s->tile,
                                       .y = s->up,
                                       .y_stride = (size_t)n_rows };
    qp_multiply_part(&d->k, &p);
    for (int i = 0; i < n; i++) {
        float *y = d->experts.y + (size_t)d->experts.pair_row[pair + i] * d_model + row;
        d->k.axpby(y, p.y + (size_t)i * p.y_stride, d->experts.pair_weight[pair + i], y, 1, n_rows);
    }
}

static void down_columns(const struct expert_task *j, int index, int row, int n_rows)
{
    struct cpu_device *d = j->d;
    const size_t d_model = (size_t)d->base.config->d_model;
    for (int t = 0; t < j->rows->n; t++)
        memset(d->experts.y + (size_t)t * d_model + row, 0, (size_t)n_rows * sizeof(float));
    for (int i = 0; i < d->experts.n_groups; i++) {
        const struct expert_group *g = &d->experts.groups[i];
        if (g->n > j->n_few)
            qp_pack_tile(&d->k, d->mem.scratch[index].tile, &j->w->m[MATRIX_EXPERT_DOWN],
                         g->expert * (int)d_model + row, n_rows);
        for (int k = 0; k < g->n; k += TASK_ROWS)
            down_part(j, index, g, g->first + k, qp_min(TASK_ROWS, g->n - k), row, n_rows);
    }
}

/* The most columns of the sum at a time: one tile where a group needs it, otherwise as many as fit
 * in scratch for the largest group. */
static int most_columns(const struct expert_task *j)
{
    int most = 1;
    for (int i = 0; i < j->d->experts.n_groups; i++)
        most = most > j->d->experts.groups[i].n ? most : j->d->experts.groups[i].n;
    return most > j->n_few ? TILE_ROWS : TASK_ROWS / most * TILE_ROWS;
}

static void down_task(void *arg, int index, int n_threads)
{
    (void)n_threads;
    const struct expert_task *j = arg;
    int row, end;
    const struct pool_items columns = {
        .n = j->d->base.config->d_model, .unit = TILE_ROWS, .min = TILE_ROWS, .max = most_columns(j)
    };
    while (qp_pool_next(j->d->pool, index, &columns, &row, &end))
        down_columns(j, index, row, end - row);
}

quip_status qp_cpu_experts(struct device *device, int l, const struct rows *rows)
{
    struct cpu_device *d = cpu_of(device);
    struct expert_task job = {
        .d = d, .w = &device->weights->layers[l], .rows = rows, .n_few = d->k.few_tokens
    };
    assert(rows->n > 0 && rows->n <= device->capacity.n_rows && d->experts.n_groups > 0);
    qp_pool_run(d->pool, gate_task, &job);
    qp_pool_run(d->pool, down_task, &job);
    return QUIP_OK;
}

/* ---- merge ---- */

static void merge_task(void *arg, int index, int n_threads)
{
    const struct expert_task *j = arg;
    struct cpu_device *d = j->d;
    const struct config *c = d->base.config;
    const size_t d_model = (size_t)c->d_model;
    int begin, end;
    qp_share(j->rows->n, 1, index, n_threads, &begin, &end);
    for (int t = begin; t < end; t++) {
        float *y = d->mem.y + (size_t)t * d_model, *e = d->experts.y + (size_t)t * d_model;
        if (j->w->expert_post_norm.scale)
            qp_cpu_norm_floats(d, e, e, &j->w->expert_post_norm);
        if (!j->has_dense) {
            memcpy(y, e, d_model * sizeof *y);
            continue;
        }
        if (j->w->dense_post_norm.scale)
            qp_cpu_norm_floats(d, y, y, &j->w->dense_post_norm);
        d->k.axpby(y, y, scores_of(d, t)[c->experts.n], e, 1, c->d_model);
    }
}

quip_status qp_cpu_merge(struct device *device, int l, const struct rows *rows)
{
    struct expert_task job = { .d = cpu_of(device),
                               .w = &device->weights->layers[l],
                               .rows = rows,
                               .has_dense = device->config->layers[l].d_ff > 0 };
    assert(rows->n > 0 && rows->n <= device->capacity.n_rows);
    cpu_parallel(job.d, rows->n == 1, merge_task, &job);
    return QUIP_OK;
}

/* ---- memory ---- */

void qp_experts_alloc(struct expert_memory *m, const struct cpu_device *d, struct arena *a,
                      int n_rows)
{
    const struct config *c = d->base.config;
    const struct expert_config *e = &c->experts;
    const size_t n = (size_t)n_rows, n_used = (size_t)e->n_used;
    if (e->n == 0)
        return;
    m->scores = qp_cpu_alloc(a, n, (size_t)e->n + 1, sizeof *m->scores);
    m->chosen = qp_cpu_alloc(a, n, n_used, sizeof *m->chosen);
    m->weights = qp_cpu_alloc(a, n, n_used, sizeof *m->weights);
    m->next = qp_cpu_alloc(a, (size_t)e->n, 1, sizeof *m->next);
    m->groups = qp_cpu_alloc(a, (size_t)e->n, 1, sizeof *m->groups);
    m->pair_row = qp_cpu_alloc(a, n, n_used, sizeof *m->pair_row);
    m->pair_weight = qp_cpu_alloc(a, n, n_used, sizeof *m->pair_weight);
    m->y = qp_cpu_alloc(a, n, (size_t)c->d_model, sizeof *m->y);
    m->h = qp_cpu_alloc_act(d->base.weights, a, e->d_ff, n_rows * e->n_used);
    m->rows = qp_cpu_alloc(a, (size_t)d->n_threads, 1, sizeof *m->rows);
    for (int i = 0; i < d->n_threads; i++) {
        const struct act rows =
            qp_cpu_alloc_act(d->base.weights, a, c->d_model, qp_min(TASK_ROWS, n_rows));
        if (m->rows)
            m->rows[i] = rows;
    }
}
