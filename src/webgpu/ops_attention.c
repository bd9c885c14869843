/* ops_attention.c: rotation and attention on the GPU.
 * In:  queries, keys and values of a batch; the caches of its sequences.
 * Out: the caches, and the output of attention.
 *
 * A dispatch has the rows of one sequence. For few rows the dispatch of attention also rotates and
 * appends, and the keys are split among workgroups. Parts begin at multiples of their size, so what
 * is computed for a row does not depend on the other rows. */
#include "base/math.h"
#include "webgpu/webgpu_impl.h"

#include <assert.h>
#include <stdlib.h>

enum {
    LANES = 4,           // of a workgroup; fewer have fewer instructions
    MATRICES_LANES = 32, // of attend_matrices.wgsl
    MANY_GROUPS = 132,   // workgroups that a large GPU runs one by one
    TILE = 64,           // keys that attend_few.wgsl has at once
    MIN_SPLIT = TILE
};

/* ---- tables ---- */

/* cos and sin of a position times each frequency, as struct rope says. Each step is rounded to
 * float, as the CPU backend does. */
static void fill_rotations(float *to, const struct rope *rope, const float *divisors, int first,
                           int n)
{
    const int half = rope->dim / 2;
    for (int i = 0; i < half; i++) {
        const float exponent = (float)(2 * i) / (float)rope->dim;
        float frequency = 1.0f / (float)qp_pow(rope->theta, exponent) / rope->scale;
        if (divisors)
            frequency /= divisors[i];
        for (int pos = 0; pos < n; pos++) {
            double sine, cosine;
            qp_sin_cos((float)(first + pos) * frequency, &sine, &cosine);
            float *pair = to + 2 * ((size_t)pos * (size_t)half + (size_t)i);
            pair[0] = (float)cosine * rope->amplitude;
            pair[1] = (float)sine * rope->amplitude;
        }
    }
}

static quip_status fill_table(struct webgpu_device *d, int r, int set, int n_context,
                              quip_error *error)
{
    enum {
        POSITIONS = 256 // written together
    };
    const struct rope *rope = &d->base.config->ropes[r];
    const int stride = 2 * (rope->dim / 2);
    struct scratch table = { 0 };
    quip_status status = qp_webgpu_alloc(d, &table, (uint64_t)n_context, stride, error);
    float *rows = status ? NULL : malloc(POSITIONS * (size_t)stride * sizeof *rows);
    if (!status && !rows)
        status = qp_fail_memory(error, "a table of rotations",
                                POSITIONS * (size_t)stride * sizeof *rows);
    for (int first = 0; first < n_context && !status; first += POSITIONS) {
        const int n = qp_min(POSITIONS, n_context - first);
        fill_rotations(rows, rope, rope->divisors[set], first, n);
        qp_gpu_write(d->gpu, table.buffer, 4 * (uint64_t)first * (uint64_t)stride, rows,
                     (size_t)n * (size_t)stride * sizeof *rows);
    }
    free(rows);
    if (status) {
        qp_webgpu_free(d, &table);
        return status;
    }
    qp_webgpu_free(d, &d->ropes[r][set]);
    d->ropes[r][set] = table;
    return QUIP_OK;
}

/* Does a layer rotate with rope r? */
static bool uses_rope(const struct config *c, int r)
{
    for (int l = 0; l < c->n_layers; l++)
        if (c->layers[l].rope == r && c->ropes[r].dim > 1)
            return true;
    return false;
}

quip_status qp_webgpu_fill_ropes(struct webgpu_device *d, int n_context, quip_error *error)
{
    const struct config *c = d->base.config;
    const int n_sets = c->n_context_original > 0 ? 2 : 1;
    quip_status status = QUIP_OK;
    for (int r = 0; r < N_ROPES; r++)
        for (int set = 0; set < n_sets && uses_rope(c, r) && !status; set++)
            status = fill_table(d, r, set, n_context, error);
    return status;
}

/* To bfloat16 and back: models with ALiBi were trained with rounded slopes. */
static float round_bfloat16(float x)
{
    union {
        float f;
        uint32_t bits;
    } u = { x };
    u.bits = (u.bits + 0x7fff + (u.bits >> 16 & 1)) & 0xffff0000u;
    return u.f;
}

float qp_webgpu_alibi_slope(int h, int n_heads)
{
    int n = 1;
    while (2 * n <= n_heads)
        n *= 2;
    return round_bfloat16(
        (float)(h < n ? qp_pow(2, -8.0 * (h + 1) / n) : qp_pow(2, -4.0 * (2 * (h - n) + 1) / n)));
}

/* ---- rotate and append ---- */

/* The keys and values of a run in layer l. A text without a KV cache begins at a block of its own
 * in the buffer of the batch, behind those of `index` texts. */
static struct kv_view kv_view_of(const struct webgpu_device *d, int l, const struct row_run *run,
                                 int index)
{
    const struct webgpu_sequence *s = run->sequence;
    struct kv_view p = { .is_f16 = d->kv_is_f16,
                         .n_blocks = qp_webgpu_layer_blocks(d->base.config, l, s->base.n_context) };
    if (s->base.n_context > 0) {
        p.range = qp_webgpu_kv_range(s, l);
        return p;
    }
    const int block_bytes = 64 * 4 * kv_words(false, d->base.config->layers[l].head_dim);
    p.is_f16 = false;
    p.n_blocks = qp_webgpu_text_blocks(&d->base.capacity);
    p.range = range_of(&d->mem.text_kv);
    p.range.offset = (uint64_t)(run->first / 64 + index) * (uint64_t)block_bytes;
    p.range.n_bytes -= p.range.offset;
    return p;
}

static quip_status append_run(struct webgpu_device *d, int l, const struct row_run *run, int index)
{
    const struct config *c = d->base.config;
    const struct layer_config *lc = &c->layers[l];
    const struct layer_weights *w = &d->base.weights->layers[l];
    const struct sequence *s = &run->sequence->base;
    const bool has_keys = lc->kv_layer == l, has_rope = lc->rope != ROPE_NONE;
    const struct scratch *rope =
        has_rope ? &d->ropes[lc->rope][qp_rope_set(c, s->n_context)] : &d->vector_memory;
    const struct kv_view kv = kv_view_of(d, l, run, index);
    const int n_kv_heads = lc->n_kv_heads;
    const struct parameters {
        uint32_t n_heads, n_kv_heads, x_stride, q_stride, half, rope_at, q_norm_at, k_norm_at;
        uint32_t first_row, first_t, n_blocks, values_at;
        float eps;
    } parameters = {
        (uint32_t)c->n_heads,
        (uint32_t)n_kv_heads,
        (uint32_t)d->mem.qkv.stride,
        (uint32_t)d->mem.q.stride,
        has_rope ? (uint32_t)c->ropes[lc->rope].dim / 2 : 0,
        0,
        qp_webgpu_vector(d, w->q_norm.scale),
        qp_webgpu_vector(d, w->k_norm.scale),
        (uint32_t)(d->first_row + run->first),
        (uint32_t)run->first,
        (uint32_t)kv.n_blocks,
        (uint32_t)(n_kv_heads * kv.n_blocks * 64 * kv_words(kv.is_f16, lc->head_dim)),
        c->norm_eps,
    };
    return qp_webgpu_dispatch(
        d,
        &(struct call){ .shader = SHADER_ROPE,
                        .constants = { lc->head_dim, (int)c->qk_norm, c->norm == NORM_LAYER,
                                       c->norm == NORM_RMS_PLUS_1, c->v_norm, !w->m[MATRIX_V].data,
                                       kv.is_f16, kv_words(kv.is_f16, lc->head_dim) },
                        .parameters = &parameters,
                        .n_parameters = sizeof parameters,
                        .bindings = { range_of(&d->mem.rows), range_of(&d->mem.qkv),
                                      range_of(&d->vector_memory), range_of(rope),
                                      range_of(&d->mem.q), kv.range },
                        .x = (uint32_t)(c->n_heads + (has_keys ? 2 * n_kv_heads : 0)),
                        .y = (uint32_t)run->n });
}

static quip_status append_rows(struct webgpu_device *d, int l, const struct rows *rows)
{
    quip_status status = QUIP_OK;
    for (int t = 0, i = 0; t < rows->n && !status; i++) {
        const struct row_run run = run_at(rows, t);
        status = append_run(d, l, &run, i);
        t += run.n;
    }
    return status;
}

quip_status qp_webgpu_rope_append(struct device *device, int l, const struct rows *rows)
{
    struct webgpu_device *d = webgpu_of(device);
    const quip_status status = qp_webgpu_settle(d);
    for (int t = 0; t < rows->n; t++) {
        struct webgpu_sequence *s = webgpu_sequence_of(rows->row[t].sequence);
        s->n_written = qp_max(s->n_written, rows->row[t].pos + 1);
    }
    d->pending.l = l;
    d->pending.rows = *rows;
    return status;
}

quip_status qp_webgpu_settle_append(struct webgpu_device *d)
{
    const struct rows rows = d->pending.rows;
    d->pending.rows.n = 0;
    return append_rows(d, d->pending.l, &rows);
}

/* ---- attention of few rows ---- */

int qp_webgpu_split_of(int n_context)
{
    return qp_max(MIN_SPLIT, (int)qp_round_up((size_t)n_context / 64, 64));
}

/* A part has at least 1/64 of the positions, and at least 64. The first and the last may be cut. */
int qp_webgpu_max_parts(int n_context)
{
    return qp_min(n_context / MIN_SPLIT, 64) + 2;
}

/* ATT = the sum of the parts of n rows, from row first_t on. */
static quip_status combine_parts(struct webgpu_device *d, const struct parts *parts, int first_t)
{
    const struct parameters {
        uint32_t first_t, out_stride, n_parts;
    } parameters = { (uint32_t)first_t, (uint32_t)d->mem.att.stride, (uint32_t)parts->n_parts };
    const bool is_half = qp_webgpu_has_half_parts(d, parts->head_dim);
    assert(parts->n_parts <= 128);
    return qp_webgpu_dispatch(
        d, &(struct call){ .shader = SHADER_COMBINE,
                           .constants = { parts->head_dim,
                                          qp_webgpu_part_words(is_half, parts->head_dim), is_half },
                           .parameters = &parameters,
                           .n_parameters = sizeof parameters,
                           .bindings = { range_of(&d->mem.parts), range_of(&d->mem.att) },
                           .x = (uint32_t)d->base.config->n_heads,
                           .y = ((uint32_t)parts->head_dim + 63) / 64,
                           .z = (uint32_t)parts->n_rows });
}

quip_status qp_webgpu_settle_parts(struct webgpu_device *d)
{
    const struct parts parts = d->pending.parts;
    d->pending.parts.n_rows = 0;
    return combine_parts(d, &parts, 0);
}

/* Are parts left to be added up? In binary16 a single one is, too: every row is rounded alike. */
static bool is_split(const struct webgpu_device *d, int head_dim, int n_parts)
{
    return n_parts > 1 || qp_webgpu_has_half_parts(d, head_dim);
}

/* struct Params of attend_few.wgsl */
struct few_parameters {
    uint32_t n, first_row, first_t, x_stride, out_stride, n_kv_heads, n_blocks, values_at, window;
    uint32_t n_split, n_parts, parts_t, alibi_at, q_norm_at, k_norm_at, half;
    float scale, cap, eps;
    uint32_t slot_vecs, pos, visible_end;
};

/* In how many parts attention of a run is, where they begin, and whether it also rotates and
 * appends the rows. Otherwise Q has their rotated queries. */
struct few {
    int n_parts, parts_t;
    bool appends;
};

static struct few_parameters few_parameters(const struct webgpu_device *d, int l,
                                            const struct row_run *run, const struct few *few)
{
    const struct config *c = d->base.config;
    const struct layer_config *lc = &c->layers[l];
    const struct layer_weights *w = &d->base.weights->layers[l];
    const int n_context = run->sequence->base.n_context,
              n_blocks = qp_webgpu_layer_blocks(c, l, n_context);
    const struct scratch *x = few->appends ? &d->mem.qkv : &d->mem.q;
    return (struct few_parameters){
        .n = (uint32_t)run->n,
        .first_row = (uint32_t)(d->first_row + run->first),
        .first_t = (uint32_t)run->first,
        .x_stride = (uint32_t)x->stride,
        .out_stride = (uint32_t)d->mem.att.stride,
        .n_kv_heads = (uint32_t)lc->n_kv_heads,
        .n_blocks = (uint32_t)n_blocks,
        .values_at =
            (uint32_t)(lc->n_kv_heads * n_blocks * 64 * kv_words(d->kv_is_f16, lc->head_dim)),
        .window = (uint32_t)lc->window,
        .n_split = (uint32_t)qp_webgpu_split_of(n_context),
        .n_parts = (uint32_t)few->n_parts,
        .parts_t = (uint32_t)few->parts_t,
        .alibi_at = d->alibi_at,
        .q_norm_at = few->appends ? qp_webgpu_vector(d, w->q_norm.scale) : NO_INDEX,
        .k_norm_at = qp_webgpu_vector(d, w->k_norm.scale),
        .half = few->appends && lc->rope != ROPE_NONE ? (uint32_t)c->ropes[lc->rope].dim / 2 : 0,
        .scale = c->query_scale,
        .cap = c->attention_cap,
        .eps = c->norm_eps,
        .slot_vecs = (uint32_t)(qp_webgpu_kv_range(run->sequence, l).n_bytes / 16),
        .pos = (uint32_t)run->row->pos,
        .visible_end = (uint32_t)run->row->visible_end
    };
}

/* Query heads in a workgroup for a single row: few, as long as there are few workgroups. */
static int lanes_of_row(const struct config *c, const struct layer_config *lc, int n_threads,
                        int n_parts)
{
    const int group = c->n_heads / lc->n_kv_heads;
    int n_lanes = 1;
    if (c->qk_norm == QK_NORM_WIDTH || lc->head_dim > n_threads) // few_row.wgsl has neither
        return LANES;
    while (n_lanes < LANES &&
           (group + n_lanes - 1) / n_lanes * lc->n_kv_heads * n_parts > MANY_GROUPS)
        n_lanes *= 2;
    return n_lanes;
}

/* Attention of a run of few rows. With n_runs above 1, it is the first of that many runs of one
 * row each, whose sequences are gathered. */
static quip_status attend_few(struct webgpu_device *d, int l, const struct row_run *run, int n_runs,
                              const struct few *few)
{
    const struct config *c = d->base.config;
    const struct layer_config *lc = &c->layers[l];
    const int group = c->n_heads / lc->n_kv_heads, n_context = run->sequence->base.n_context;
    const int words = kv_words(d->kv_is_f16, lc->head_dim),
              n_threads = lc->head_dim > 256 ? 128 : 256;
    const bool is_half = qp_webgpu_has_half_parts(d, lc->head_dim);
    const bool is_in_parts = is_split(d, lc->head_dim, few->n_parts);
    const bool is_batch = n_runs > 1, is_one_row = run->n == 1 && !is_batch;
    const int n_lanes = is_one_row ? lanes_of_row(c, lc, n_threads, few->n_parts) : LANES;
    const struct scratch *rope = few->appends && lc->rope != ROPE_NONE
                                     ? &d->ropes[lc->rope][qp_rope_set(c, n_context)]
                                     : &d->vector_memory;
    const struct few_parameters parameters = few_parameters(d, l, run, few);
    const struct call call = {
        .shader = n_lanes == 1   ? SHADER_ATTEND_ONE
                  : n_lanes == 2 ? SHADER_ATTEND_TWO
                                 : SHADER_ATTEND_FEW,
        .constants = { lc->head_dim,
                       group,
                       c->n_heads,
                       d->kv_is_f16,
                       c->attention_cap > 0,
                       c->has_alibi,
                       0,
                       words,
                       is_in_parts,
                       few->appends && lc->kv_layer == l,
                       (int)c->qk_norm,
                       c->norm == NORM_LAYER,
                       c->norm == NORM_RMS_PLUS_1,
                       c->v_norm,
                       !d->base.weights->layers[l].m[MATRIX_V].data,
                       qp_webgpu_part_words(is_half, lc->head_dim),
                       n_threads,
                       is_batch,
                       is_one_row,
                       qp_webgpu_split_of(n_context) == TILE,
                       is_half },
        .no_subgroups = words / 4 * 8 > n_threads,
        .parameters = &parameters,
        .n_parameters = sizeof parameters,
        .bindings = { range_of(&d->mem.rows), range_of(few->appends ? &d->mem.qkv : &d->mem.q),
                      range_of(&d->vector_memory), range_of(rope),
                      is_batch ? range_of(&run->sequence->pool->layers[lc->kv_layer])
                               : qp_webgpu_kv_range(run->sequence, l),
                      range_of(is_in_parts ? &d->mem.parts : &d->mem.att) },
        .x = (uint32_t)((run->n * group + n_lanes - 1) / n_lanes),
        .y = (uint32_t)(lc->n_kv_heads * n_runs),
        .z = (uint32_t)few->n_parts
    };
    return qp_webgpu_dispatch(d, &call);
}

/* In how many parts the keys of a run are split. */
static int count_parts(const struct webgpu_device *d, int l, const struct rows *rows,
                       const struct row_run *run)
{
    const int window = d->base.config->layers[l].window;
    const int n_split = qp_webgpu_split_of(run->sequence->base.n_context);
    int begin = INT32_MAX, end = 0;
    for (int t = run->first; t < run->first + run->n; t++) {
        const struct row *row = &rows->row[t];
        begin = qp_min(begin, window ? qp_max(0, row->pos + 1 - window) : 0);
        end = qp_max(end, row->visible_end);
    }
    begin = begin / n_split * n_split;
    return (end - begin + n_split - 1) / n_split;
}

/* Attention of a run of few rows among many, and the sum of its parts. */
static quip_status attend_run(struct webgpu_device *d, int l, const struct rows *rows,
                              const struct row_run *run, bool appends)
{
    const struct parts parts = { run->n, count_parts(d, l, rows, run),
                                 d->base.config->layers[l].head_dim };
    const quip_status status = attend_few(d, l, run, 1, &(struct few){ parts.n_parts, 0, appends });
    if (status || !is_split(d, parts.head_dim, parts.n_parts))
        return status;
    return combine_parts(d, &parts, run->first);
}

/* Attention of few rows. All have as many parts as the longest, so that one dispatch adds them up,
 * or the product behind it. */
static quip_status attend_all(struct webgpu_device *d, int l, const struct rows *rows, bool appends)
{
    quip_status status = QUIP_OK;
    struct parts parts = { rows->n, 1, d->base.config->layers[l].head_dim };
    struct row_run run;
    for (int t = 0; t < rows->n; t += run.n) {
        run = run_at(rows, t);
        parts.n_parts = qp_max(parts.n_parts, count_parts(d, l, rows, &run));
    }
    const bool is_gathered = d->first_row == 0 && qp_webgpu_is_gathered(rows);
    for (int t = 0; t < rows->n && !status; t += is_gathered ? rows->n : run.n) {
        run = run_at(rows, t);
        status = attend_few(d, l, &run, is_gathered ? rows->n : 1,
                            &(struct few){ parts.n_parts, t, appends });
    }
    if (is_split(d, parts.head_dim, parts.n_parts))
        d->pending.parts = parts;
    return status;
}

/* ---- attention of many rows ---- */

/* Are keys, values and heads as attend_matrices.wgsl wants them? */
static bool has_matrices(const struct webgpu_device *d, const struct layer_config *lc,
                         const struct kv_view *kv)
{
    return uses_matrices(d) && kv->is_f16 && lc->head_dim % 64 == 0 && lc->head_dim <= 256;
}

static quip_status attend_many(struct webgpu_device *d, int l, const struct row_run *run, int index)
{
    const struct config *c = d->base.config;
    const struct layer_config *lc = &c->layers[l];
    const int group = c->n_heads / lc->n_kv_heads;
    const struct kv_view kv = kv_view_of(d, l, run, index);
    const int words = kv_words(kv.is_f16, lc->head_dim);
    const struct parameters {
        uint32_t n, first_row, first_t, q_stride, out_stride, n_blocks, values_at, window, alibi_at;
        uint32_t window_after;
        float scale, cap;
    } parameters = { (uint32_t)run->n,
                     (uint32_t)(d->first_row + run->first),
                     (uint32_t)run->first,
                     (uint32_t)d->mem.q.stride,
                     (uint32_t)d->mem.att.stride,
                     (uint32_t)kv.n_blocks,
                     (uint32_t)(lc->n_kv_heads * kv.n_blocks * 64 * words),
                     (uint32_t)lc->window,
                     d->alibi_at,
                     c->is_bidirectional ? (uint32_t)lc->window : 0,
                     c->query_scale,
                     c->attention_cap };
    const bool by_matrices = has_matrices(d, lc, &kv);
    const int n_lanes = by_matrices ? MATRICES_LANES : LANES;
    return qp_webgpu_dispatch(
        d, &(struct call){ .shader = by_matrices ? SHADER_ATTEND_MATRICES : SHADER_ATTEND,
                           .constants = { lc->head_dim, group, c->n_heads, kv.is_f16,
                                          c->attention_cap > 0, c->has_alibi, 0, words },
                           .parameters = &parameters,
                           .n_parameters = sizeof parameters,
                           .bindings = { range_of(&d->mem.rows), range_of(&d->mem.q), kv.range,
                                         range_of(&d->vector_memory), range_of(&d->mem.att) },
                           .x = (uint32_t)((run->n * group + n_lanes - 1) / n_lanes),
                           .y = (uint32_t)lc->n_kv_heads });
}

/* Can the parts of all rows be added up together? */
static bool has_few_rows(const struct rows *rows)
{
    struct row_run run;
    if (rows->n > LOGITS_ROWS)
        return false;
    for (int t = 0; t < rows->n; t += run.n) {
        run = run_at(rows, t);
        if (run.n > FEW_ROWS)
            return false;
    }
    return true;
}

quip_status qp_webgpu_attend(struct device *device, int l, const struct rows *rows)
{
    struct webgpu_device *d = webgpu_of(device);
    const struct rows *pending = &d->pending.rows;
    const bool appends = pending->n == rows->n && pending->row == rows->row;
    quip_status status = QUIP_OK;
    if (appends)
        d->pending.rows.n = 0; // it is done here
    if (!d->has_texts && has_few_rows(rows))
        return attend_all(d, l, rows, appends);
    for (int t = 0, i = 0; t < rows->n && !status; i++) {
        const struct row_run run = run_at(rows, t);
        if (run.n <= FEW_ROWS && !d->has_texts) {
            status = attend_run(d, l, rows, &run, appends);
        } else {
            status = appends ? append_run(d, l, &run, i) : QUIP_OK;
            if (!status)
                status = attend_many(d, l, &run, i);
        }
        t += run.n;
    }
    return status;
}
