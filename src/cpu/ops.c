/* ops.c: the operations of the CPU backend on one row at a time.
 * Rows are divided among threads. The division never changes a number, because each number is
 * computed whole, by one kernel call, in one order. */
#include "cpu/cpu_impl.h"

#include <assert.h>
#include <string.h>

quip_status qp_cpu_begin(struct device *device, int n_threads)
{
    struct cpu_device *d = cpu_of(device);
    // a thread that shares its processor with another program would often delay all the others
    const int n = n_threads > 0 ? qp_min(n_threads, d->n_threads) : d->n_threads;
    d->n_now = qp_pool_limit(d->pool, qp_threads_now(&d->watch, d->n_now, n));
    return QUIP_OK;
}

/* ---- embed, norm, add ---- */

struct row_task {
    struct cpu_device *d;
    const struct rows *rows;
    const struct norm_weights *norm, *post_norm;
    int n;
};

static void embed_token(struct cpu_device *d, float *x, const struct row *row)
{
    const struct matrix *table = &d->base.weights->embed;
    const float factor = d->base.config->embed_scale;
    if (row->embedding) {
        for (int i = 0; i < table->n_in; i++)
            x[i] = row->embedding[i] * factor;
        return;
    }
    d->k.dequantize_row(x, table, row->token, factor);
    for (int i = 0; table->zeros && i < table->n_in; i++)
        x[i] -= table->zeros[row->token] * table->scales[row->token] * factor;
    if (!table->rest)
        return;
    const int8_t *rest = table->rest + (size_t)row->token * (size_t)table->n_in;
    const float step = table->scales[row->token] * (1.0f / REST_STEPS) * factor;
    for (int i = 0; i < table->n_in; i++)
        x[i] += (float)rest[i] * step;
}

void qp_cpu_norm_floats(struct cpu_device *d, float *y, const float *x,
                        const struct norm_weights *w)
{
    const struct config *c = d->base.config;
    const float plus = c->norm == NORM_RMS_PLUS_1 ? 1.0f : 0.0f;
    if (!w->scale) // no norm
        memcpy(y, x, (size_t)c->d_model * sizeof *y);
    else if (c->norm == NORM_LAYER)
        d->k.layer_norm(y, x, w->scale, w->bias, c->norm_eps, c->d_model);
    else
        d->k.rms_norm(y, x, w->scale, plus, c->norm_eps, c->d_model);
}

/* The token, its position, and their norm, where the model has these. */
static void embed_row(struct cpu_device *d, float *x, const struct row *row)
{
    const struct weights *w = d->base.weights;
    const int d_model = d->base.config->d_model;
    embed_token(d, x, row);
    if (w->positions) {
        assert(row->pos < d->base.config->n_context_max);
        d->k.add(x, w->positions + (size_t)row->pos * (size_t)d_model, d_model);
    }
    if (w->embed_norm.scale)
        qp_cpu_norm_floats(d, x, x, &w->embed_norm);
}

/* X of row t, and E if the model has it. */
static void embed_task_row(struct cpu_device *d, const struct row *row, int t)
{
    const size_t d_model = (size_t)d->base.config->d_model;
    float *x = d->mem.x + (size_t)t * d_model;
    embed_row(d, x, row);
    if (d->base.config->d_ple == 0)
        return;
    if (d->mem.e.f32)
        memcpy(d->mem.e.f32 + (size_t)t * d_model, x, d_model * sizeof *x);
    act_store(&d->k, &d->mem.e, t, x);
}

static void embed_task(void *arg, int index, int n_threads)
{
    const struct row_task *j = arg;
    int begin, end;
    qp_share(j->n, 1, index, n_threads, &begin, &end);
    for (int t = begin; t < end; t++)
        embed_task_row(j->d, &j->rows->row[t], t);
}

/* ---- exact rows of texts (ops_linear.c) ---- */

enum {
    MIN_EXACT = 2,
    N_SHORT = 10
};

/* How many of the first tokens of a text of n tokens are exact: the fewest that keep the cosine
 * above 0.999 (docs/embeddings.md). The others attend to them, and they have the largest numbers.
 */
static int n_exact(int n)
{
    return qp_max(MIN_EXACT, qp_min(n - N_SHORT, MAX_EXACT));
}

/* Exact are also tokens of which alone an embedding is made. */
static void choose_exact_rows(int *before, const struct rows *rows)
{
    const struct row *row = rows->row;
    before[0] = 0;
    for (int t = 0, end; t < rows->n; t = end) {
        for (end = t + 1; end < rows->n && row[end].pos > 0;)
            end++;
        for (int i = t; i < end; i++) {
            const bool is_alone = row[i].is_output && i > t && !row[i - 1].is_output;
            before[i + 1] = before[i] + (row[i].sequence->n_context == 0 &&
                                         (row[i].pos < n_exact(end - t) || is_alone));
        }
    }
}

quip_status qp_cpu_embed(struct device *device, const struct rows *rows)
{
    struct row_task job = { .d = cpu_of(device), .rows = rows, .n = rows->n };
    assert(rows->n > 0 && rows->n <= device->capacity.n_rows);
    if (job.d->mem.exact_before)
        choose_exact_rows(job.d->mem.exact_before, rows);
    cpu_parallel(job.d, rows->n == 1, embed_task, &job);
    return QUIP_OK;
}

void qp_cpu_norm_row(struct cpu_device *d, const struct norm_weights *w, int t, int index)
{
    struct row_memory *m = &d->mem;
    float *row = act_row_floats(&m->xn, t, m->scratch[index].row);
    qp_cpu_norm_floats(d, row, m->x + (size_t)t * d->base.config->d_model, w);
    if (d->base.config->mixes_inputs)
        qp_mix_input(&d->k, row, d->base.config->d_model);
    act_store(&d->k, &m->xn, t, row);
}

static void norm_task(void *arg, int index, int n_threads)
{
    const struct row_task *j = arg;
    int begin, end;
    qp_share(j->n, 1, index, n_threads, &begin, &end);
    for (int t = begin; t < end; t++)
        qp_cpu_norm_row(j->d, j->norm, t, index);
}

quip_status qp_cpu_norm(struct device *device, const struct norm_weights *w, int n_rows)
{
    struct row_task job = { .d = cpu_of(device), .norm = w, .n = n_rows };
    assert(n_rows > 0 && n_rows <= device->capacity.n_rows);
    cpu_parallel(job.d, n_rows == 1, norm_task, &job);
    return QUIP_OK;
}

/* x += residual_scale * y */
static void add_scaled(const struct cpu_device *d, float *x, const float *y)
{
    const struct config *c = d->base.config;
    if (c->residual_scale == 1)
        d->k.add(x, y, c->d_model);
    else
        d->k.axpby(x, x, 1, y, c->residual_scale, c->d_model);
}

static void add_task(void *arg, int index, int n_threads)
{
    const struct row_task *j = arg;
    struct row_memory *m = &j->d->mem;
    const int d_model = j->d->base.config->d_model;
    int begin, end;
    qp_share(j->n, 1, index, n_threads, &begin, &end);
    for (int t = begin; t < end; t++) {
        float *y = m->y + (size_t)t * d_model;
        float *x = m->x + (size_t)t * d_model;
        const bool norms_sum = j->d->base.config->norms_sum;
        if (j->post_norm->scale && !norms_sum)
            qp_cpu_norm_floats(j->d, y, y, j->post_norm);
        add_scaled(j->d, x, y);
        if (norms_sum)
            qp_cpu_norm_floats(j->d, x, x, j->post_norm);
        if (j->norm)
            qp_cpu_norm_row(j->d, j->norm, t, index);
    }
}

quip_status qp_cpu_add(struct device *device, const struct norm_weights *post_norm,
                       const struct norm_weights *next, int n_rows)
{
    struct row_task job = {
        .d = cpu_of(device), .post_norm = post_norm, .norm = next, .n = n_rows
    };
    assert(n_rows > 0 && n_rows <= device->capacity.n_rows);
    cpu_parallel(job.d, n_rows == 1, add_task, &job);
    return QUIP_OK;
}

/* ---- outputs ---- */

/* Quantized queries of one row, per kv head. */
static void move_queries(struct cpu_device *d, int to, int from)
{
    const struct query_rows *q = &d->mem.queries;
    const size_t n_bytes = q->group * q->stride, n_blocks = n_bytes / ACT_BLOCK;
    for (int h = 0; h < q->n_kv_heads; h++) {
        const size_t first = (size_t)h * q->max_rows;
        const size_t y = first + (size_t)to, x = first + (size_t)from;
        memmove(q->q + y * n_bytes, q->q + x * n_bytes, n_bytes);
        memmove(q->scales + y * n_blocks, q->scales + x * n_blocks, n_blocks * sizeof *q->scales);
        memmove(q->offsets + y * n_blocks, q->offsets + x * n_blocks,
                n_blocks * sizeof *q->offsets);
    }
}

quip_status qp_cpu_keep_rows(struct device *device, const struct rows *rows,
                             const struct rows *kept)
{
    struct cpu_device *d = cpu_of(device);
    const size_t d_model = (size_t)d->base.config->d_model;
    const size_t q_width = (size_t)d->mem.q_width;
    int to = 0, n_exact_kept = 0;
    for (int from = 0; from < rows->n; from++) {
        if (!rows->row[from].is_output)
            continue;
        if (d->mem.exact_before) {
            n_exact_kept += d->mem.exact_before[from + 1] - d->mem.exact_before[from];
            d->mem.exact_before[to + 1] = n_exact_kept;
        }
        memmove(d->mem.x + (size_t)to * d_model, d->mem.x + (size_t)from * d_model,
                d_model * sizeof *d->mem.x);
        act_copy_row(&d->mem.xn, to, &d->mem.xn, from);
        if (d->base.config->d_ple > 0)
            act_copy_row(&d->mem.e, to, &d->mem.e, from);
        if (d->base.config->layers[d->base.config->last_kv_layer].mixer == MIXER_CONV)
            act_copy_row(&d->mem.att, to, &d->mem.att, from);
        if (d->kv.is_int8)
            move_queries(d, to, from);
        else
            memmove(d->mem.q + (size_t)to * q_width, d->mem.q + (size_t)from * q_width,
                    q_width * sizeof *d->mem.q);
        to++;
    }
    assert(to == kept->n);
    (void)kept;
    return QUIP_OK;
}

quip_status qp_cpu_keep_outputs(struct device *device, const struct rows *rows)
{
    const size_t d_model = (size_t)device->config->d_model;
    for (int i = 0; i < rows->n; i++) {
        struct cpu_sequence *s = cpu_sequence_of(rows->row[i].sequence);
        if (i == 0 || rows->row[i - 1].sequence != &s->base)
            s->n_outputs = 0;
        assert(s->n_outputs < s->max_outputs);
        memcpy(s->outputs + (size_t)s->n_outputs * d_model,
               cpu_of(device)->mem.x + (size_t)i * d_model, d_model * sizeof *s->outputs);
        s->n_outputs++;
    }
    return QUIP_OK;
}

quip_status qp_cpu_load_outputs(struct device *device, const struct output *outputs, int n)
{
    const size_t d_model = (size_t)device->config->d_model;
    assert(n > 0 && n <= LOGITS_ROWS);
    for (int i = 0; i < n; i++) {
        const struct cpu_sequence *s = cpu_sequence_of(outputs[i].sequence);
        assert(outputs[i].index >= 0 && outputs[i].index < s->n_outputs);
        memcpy(cpu_of(device)->mem.x + (size_t)i * d_model,
               s->outputs + (size_t)outputs[i].index * d_model, d_model * sizeof *s->outputs);
    }
    return QUIP_OK;
}

quip_status qp_cpu_sample(struct device *device, const struct draw *draws, int n)
{
    struct cpu_device *d = cpu_of(device);
    const int vocab_size = device->config->vocab_size;
    const struct sampler sampler = { .candidates = d->mem.candidates, .sum_exp = d->k.sum_exp };
    assert(n > 0 && n <= LOGITS_ROWS);
    bool is_wrong = false; // a draft token before
    for (int i = 0; i < n; i++) {
        float *logits = d->mem.logits + (size_t)i * (size_t)vocab_size;
        d->mem.tokens[i] = is_wrong ? -1 : qp_sample(&sampler, &draws[i], logits, vocab_size);
        is_wrong = draws[i].expected >= 0 && (is_wrong || d->mem.tokens[i] != draws[i].expected);
    }
    return QUIP_OK;
}

/* ---- what comes back: operations have run when they return ---- */

quip_status qp_cpu_submit(struct device *device)
{
    (void)device;
    return QUIP_OK;
}

quip_status qp_cpu_poll(struct device *device, bool wait)
{
    (void)device, (void)wait;
    return QUIP_OK;
}

quip_status qp_cpu_read_tokens(struct device *device, quip_token *tokens, int n)
{
    assert(n > 0 && n <= LOGITS_ROWS);
    memcpy(tokens, cpu_of(device)->mem.tokens, (size_t)n * sizeof *tokens);
    return QUIP_OK;
}

static void read_act(const struct act *a, float *to, int n_rows)
{
    if (a->f32) {
        memcpy(to, a->f32, (size_t)n_rows * (size_t)a->n_cols * sizeof *to);
        return;
    }
    for (int t = 0; t < n_rows; t++, to += a->n_cols) {
        const struct act_rows row = act_tokens(a, t, 1);
        for (int i = 0; i < a->n_cols; i++)
            to[i] = (float)row.q[i] * row.scales[i / ACT_BLOCK];
    }
}

quip_status qp_cpu_read(struct device *device, enum buffer from, float *to, int n)
{
    const struct row_memory *m = &cpu_of(device)->mem;
    const struct config *c = device->config;
    const struct {
        const float *floats;
        size_t width;
        const struct act *act;
    } buffers[] = {
        [BUF_X] = { m->x, (size_t)c->d_model, NULL },
        [BUF_XN] = { NULL, 0, &m->xn },
        [BUF_Y] = { m->y, (size_t)c->d_model, NULL },
        [BUF_Q] = { m->q, (size_t)m->q_width, NULL },
        [BUF_K] = { m->k, (size_t)m->kv_width, NULL },
        [BUF_V] = { m->v, (size_t)m->kv_width, NULL },
        [BUF_ATT] = { NULL, 0, &m->att },
        [BUF_H] = { NULL, 0, &m->h },
        [BUF_E] = { NULL, 0, &m->e },
        [BUF_PLE_GATE] = { m->ple_gate, (size_t)c->d_ple, NULL },
        [BUF_PLE_CONTEXT] = { m->ple_context, (size_t)c->d_ple, NULL },
        [BUF_PLE] = { NULL, 0, &m->ple },
        [BUF_LOGITS] = { m->logits, (size_t)c->vocab_size, NULL },
        [BUF_POOLED] = { m->pooled[0],
                         (size_t)qp_pooled_width(device->weights, c->d_model,
                                                 device->weights->n_dense),
                         NULL },
    };
    assert((size_t)from < QP_COUNT(buffers) && n > 0 && n <= device->capacity.n_rows);
    if (buffers[from].act)
        read_act(buffers[from].act, to, n);
    else
        memcpy(to, buffers[from].floats, (size_t)n * buffers[from].width * sizeof *to);
    return QUIP_OK;
}
