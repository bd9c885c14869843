/* ops_linear.c: matrix products on threads.
 * Few rows in the batch: each thread streams its share of the weight rows from the file (limit:
 * memory bandwidth). Many: each thread packs TILE_ROWS weight rows at a time into its cache and
 * multiplies up to TASK_ROWS rows of the batch by them (limit: arithmetic). Both give the same
 * bits. */
#include "cpu/cpu_impl.h"

#include <assert.h>

#include <string.h>

enum {
    KERNEL_ROWS = 16,        // that a kernel takes at a time
    STEP_BYTES = 256 * 1024, // the least that a thread takes at a time
    /* With more threads than FEW_THREADS, their shares are smaller and one more often has to wait
     * for another, so that smaller pieces are faster, although each is read more slowly. */
    FEW_THREADS = 4,
    SMALL_KERNEL_ROWS = 8,
    SMALL_STEP_BYTES = 32 * 1024,
    NEXT_BYTES = 16 * 1024
};

/* One of the products with one input: y = w x, [n, w->n_out]. */
struct product {
    const struct matrix *w;
    float *y;
};

struct linear_task {
    struct cpu_device *d;
    struct product products[MAX_PRODUCTS];
    int n_products;
    const struct act *in;
    int n;                  // rows of the batch
    struct matrix_set next; // to prefetch
    struct lora_task lora;
};

/* w = (q - zero) * scale: take the zeros' part, zero * scale * sum x, from rows [row, row + n_rows)
 * of one token's y. */
static void subtract_zeros(float *y, const struct matrix *w, const struct act_rows *x, int n_blocks,
                           int row, int n_rows)
{
    float sum = 0;
    for (int b = 0; b < n_blocks; b++)
        sum += x->scales[b] * ((float)x->offsets[b] * (-1.0f / 128));
    for (int i = 0; i < n_rows; i++)
        y[i] -= w->zeros[row + i] * w->scales[row + i] * sum;
}

/* y[r] for rows [begin, end) of token t. */
static void multiply_row(const struct kernels *k, float *y, const struct matrix *w,
                         const struct act *in, int t, int begin, int end)
{
    const struct act_rows x = w->dtype == DTYPE_F32 ? (struct act_rows){ 0 } : act_tokens(in, t, 1);
    if (w->dtype == DTYPE_F32)
        k->gemv_f32(y, w, in->f32 + (size_t)t * in->n_cols, begin, end);
    else if (w->dtype == DTYPE_I4)
        k->gemv_i4(y, w, &x, begin, end);
    else if (w->dtype == DTYPE_I4_BLOCK)
        k->gemv_i4_block(y, w, &x, begin, end);
    else
        k->gemv_i8(y, w, &x, begin, end);
    if (w->zeros)
        subtract_zeros(y + begin, w, &x, in->n_blocks, begin, end - begin);
}

/* Whether n rows of a batch read the weights directly, without packing them. */
static bool is_few(const struct cpu_device *d, int n)
{
    return n <= d->k.few_tokens;
}

/* y[t * y_stride + r] for rows [begin, end) and n tokens. Where no kernel takes several tokens, a
 * few rows at a time, which are then in cache for the second token. */
static void multiply_rows(const struct kernels *k, float *y, size_t y_stride,
                          const struct matrix *w, const struct act *in, int n, int begin, int end)
{
    if (n > 1 && w->dtype != DTYPE_F32 && k->gemm_few) {
        const struct act_rows x = act_tokens(in, 0, n);
        k->gemm_few(&(struct out_view){ y, y_stride }, w, &x, begin, end);
        for (int t = 0; w->zeros && t < n; t++) {
            const struct act_rows one = act_tokens(in, t, 1);
            subtract_zeros(y + (size_t)t * y_stride + begin, w, &one, in->n_blocks, begin,
                           end - begin);
        }
        return;
    }
    for (int from = begin, to; from < end; from = to) {
        to = n == 1 ? end : qp_min(from + TILE_ROWS, end);
        if (n > 1 && w->dtype == DTYPE_F32) {
            const struct f32_rows x = act_floats(in, 0, n);
            k->gemm_f32(&(struct out_view){ y + from, y_stride }, w, &x, from, to);
        } else {
            for (int t = 0; t < n; t++)
                multiply_row(k, y + (size_t)t * y_stride, w, in, t, from, to);
        }
    }
}

/* y[i * y_stride + j] for tokens t0 + i, i in [0, n), and rows row + j, j in [0, n_rows), whose
 * tile is packed. */
static void multiply_tile(const struct kernels *k, float *y, size_t y_stride, const void *tile,
                          const struct matrix *w, const struct act *in, int t0, int n, int row,
                          int n_rows)
{
    const struct out_view out = { y, y_stride };
    if (w->dtype == DTYPE_F32) {
        const struct f32_rows x = act_floats(in, t0, n);
        k->gemm_f32(&out, w, &x, row, row + n_rows);
    } else {
        const struct act_rows x = act_tokens(in, t0, n);
        k->gemm(&out, tile, w, &x, row, n_rows);
        for (int t = 0; w->zeros && t < n; t++) {
            const struct act_rows one = act_tokens(in, t0 + t, 1);
            subtract_zeros(y + (size_t)t * y_stride, w, &one, in->n_blocks, row, n_rows);
        }
    }
}

void qp_pack_tile(const struct kernels *k, void *tile, const struct matrix *w, int row, int n_rows)
{
    if (w->data && w->dtype != DTYPE_F32)
        k->pack(tile, w, row, n_rows);
}

static int n_tiles(const struct matrix *w)
{
    return (w->n_out + TILE_ROWS - 1) / TILE_ROWS;
}

/* The activations from token t on. */
static struct act act_from(const struct act *a, int t)
{
    const size_t blocks = (size_t)t * (size_t)a->n_blocks;
    struct act part = *a;
    if (a->f32)
        part.f32 = a->f32 + (size_t)t * (size_t)a->n_cols;
    if (a->q) {
        part.q = a->q + (size_t)t * a->q_stride;
        part.scales = a->scales + blocks;
        part.offsets = a->offsets + blocks;
    }
    return part;
}

void qp_multiply_part(const struct kernels *k, const struct partial_product *p)
{
    assert(p->n > 0 && p->n_rows > 0 && p->row + p->n_rows <= p->w->n_out);
    if (p->tile) {
        multiply_tile(k, p->y, p->y_stride, p->tile, p->w, p->in, p->t0, p->n, p->row, p->n_rows);
    } else {
        const struct matrix w = qp_matrix_part(p->w, p->row, p->n_rows);
        const struct act in = act_from(p->in, p->t0);
        multiply_rows(k, p->y, p->y_stride, &w, &in, p->n, 0, p->n_rows);
    }
}

/* ---- exact rows ----
 * Where a matrix has a rest, w = (q + rest / REST_STEPS) * scale, some rows of a batch of texts are
 * more exact (ops.c). The inputs of these have a second part, too: x = first + second, int8 with
 * scales each. All rows get q * first, and exact ones two more products:
 *   y += second * q * scale, then y += (first / REST_STEPS) * rest * scale
 * What is left out, second * rest, is as small as the rounding of the second part. */

static bool has_exact_rows(const struct linear_task *j, const struct matrix *w)
{
    return j->d->mem.exact_before && w->rest && j->d->mem.exact_before[j->n] > 0;
}

/* Row i of exact_first and exact_second: the parts of row t of the input. */
static void split_input(const struct linear_task *j, int index, int i, int t)
{
    struct row_memory *m = &j->d->mem;
    float *second = m->scratch[index].row;
    const struct act_rows x = act_tokens(j->in, t, 1);
    const float *row = j->in->f32 + (size_t)t * (size_t)j->in->n_cols;
    act_copy_integers(&m->exact_first, i, j->in, t);
    for (int b = 0; b < j->in->n_blocks; b++) {
        const int first = b * ACT_BLOCK, end = qp_min(first + ACT_BLOCK, j->in->n_cols);
        for (int k = first; k < end; k++)
            second[k] = row[k] - (float)x.q[k] * x.scales[b];
        m->exact_first.scales[i * j->in->n_blocks + b] *= 1.0f / REST_STEPS;
    }
    act_store(&j->d->k, &m->exact_second, i, second);
}

static void split_inputs(void *arg, int index, int n_threads)
{
    const struct linear_task *j = arg;
    const int *before = j->d->mem.exact_before;
    int begin, end;
    qp_share(j->n, 1, index, n_threads, &begin, &end);
    for (int t = begin; t < end; t++)
        if (before[t + 1] > before[t])
            split_input(j, index, before[t], t);
}

static void shape_like(struct act *a, const struct act *in)
{
    assert(in->n_cols <= a->max_cols);
    a->n_cols = in->n_cols;
    a->n_blocks = in->n_blocks;
    a->q_stride = in->q_stride;
}

static void prepare_exact(struct linear_task *j)
{
    if (!has_exact_rows(j, j->products[j->n_products - 1].w))
        return;
    shape_like(&j->d->mem.exact_first, j->in);
    shape_like(&j->d->mem.exact_second, j->in);
    cpu_parallel(j->d, is_few(j->d, j->n), split_inputs, j);
}

static struct matrix rest_of(const struct matrix *w)
{
    return (struct matrix){ .dtype = DTYPE_I8,
                            .n_out = w->n_out,
                            .n_in = w->n_in,
                            .row_bytes = (size_t)w->n_in,
                            .data = w->rest,
                            .scales = w->scales };
}

/* Some weight rows, n_rows <= TILE_ROWS if there are exact rows. */
struct weight_tile {
    const struct matrix *w;
    int row, n_rows;
    const void *packed, *rest; // NULL: few rows of the batch, which read the file
};

/* Pack weight rows, and their rest if there are exact rows. */
static void pack_both(const struct linear_task *j, void *packed, void *rest, const struct matrix *w,
                      int row, int n_rows)
{
    qp_pack_tile(&j->d->k, packed, w, row, n_rows);
    if (!has_exact_rows(j, w))
        return;
    const struct matrix r = rest_of(w);
    qp_pack_tile(&j->d->k, rest, &r, row, n_rows);
}

/* Add a product with exact rows, p->in, to the y of those among n rows of the batch. */
static void add_exact(const struct linear_task *j, int index, struct partial_product p,
                      const int *before, int n)
{
    float *y = p.y;
    const float *sums = p.y = j->d->mem.scratch[index].exact_sums;
    const size_t y_stride = p.y_stride;
    p.y_stride = TILE_ROWS;
    p.t0 = before[0];
    p.n = before[n] - before[0];
    assert(n <= TASK_ROWS && p.n_rows <= TILE_ROWS);
    qp_multiply_part(&j->d->k, &p);
    for (int t = 0; t < n; t++)
        if (before[t + 1] > before[t]) {
            j->d->k.add(y + (size_t)t * y_stride, sums, p.n_rows);
            sums += TILE_ROWS;
        }
}

/* y[i * y_stride + r] for rows t0 + i of the batch, i < n <= TASK_ROWS, and weight rows
 * tile->row + r. */
static void multiply_chunk(const struct linear_task *j, int index, float *y, size_t y_stride,
                           const struct weight_tile *tile, int t0, int n)
{
    struct partial_product p = { .w = tile->w,
                                 .row = tile->row,
                                 .n_rows = tile->n_rows,
                                 .in = j->in,
                                 .t0 = t0,
                                 .n = n,
                                 .tile = tile->packed,
                                 .y = y,
                                 .y_stride = y_stride };
    qp_multiply_part(&j->d->k, &p);
    if (!has_exact_rows(j, tile->w))
        return;
    const int *before = j->d->mem.exact_before + t0;
    if (before[n] == before[0])
        return;
    struct matrix w = *tile->w;
    w.bias = NULL;
    p.w = &w;
    p.in = &j->d->mem.exact_second;
    add_exact(j, index, p, before, n);
    w = rest_of(tile->w);
    p.in = &j->d->mem.exact_first;
    p.tile = tile->rest;
    add_exact(j, index, p, before, n);
}

/* Few rows of a batch: y[t * y_stride + i] for weight rows row + i of product p. */
static void multiply_product(const struct linear_task *j, int index, float *y, size_t y_stride,
                             int p, int row, int n_rows)
{
    const struct matrix *w = j->products[p].w;
    const int step = has_exact_rows(j, w) ? TILE_ROWS : n_rows;
    for (int r = 0; r < n_rows; r += step) {
        const struct weight_tile tile = { w, row + r, qp_min(n_rows - r, step), NULL, NULL };
        multiply_chunk(j, index, y + r, y_stride, &tile, 0, j->n);
    }
    qp_lora_add(&j->lora, index, y, y_stride, p, 0, j->n, row, n_rows);
}

/* ---- prefetch ----
 * Memory would be idle between two products. So each thread that has finished its rows prefetches
 * the start of its share of the next product. */

static const struct matrix *matrix_of(const struct cpu_device *d, struct matrix_set set, int i)
{
    const struct weights *w = d->base.weights;
    return set.l == d->base.config->n_layers ? &w->head : &w->layers[set.l].m[set.first + i];
}

/* Weight rows of which a share is a multiple. */
static int unit_of(const struct cpu_device *d)
{
    return d->n_now > FEW_THREADS ? SMALL_KERNEL_ROWS : KERNEL_ROWS;
}

static void prefetch_next(const struct linear_task *j, int index, int n_threads)
{
    const struct cpu_device *d = j->d;
    const int n = j->next.l == d->base.config->n_layers ? 1 : j->next.n;
    int row, end, n_rows = 0, i = 0;
    if (j->next.n == 0)
        return;
    for (int p = 0; p < n; p++)
        n_rows += matrix_of(d, j->next, p)->n_out;
    const bool is_gated = j->next.first == MATRIX_UP; // which begins with whole tiles
    qp_share(n_rows, is_gated ? TILE_ROWS : unit_of(d), index, n_threads, &row, &end);
    for (; i + 1 < n && row >= matrix_of(d, j->next, i)->n_out; i++)
        row -= matrix_of(d, j->next, i)->n_out;
    const struct matrix *w = matrix_of(d, j->next, i);
    const char *from = (const char *)w->data + (size_t)row * w->row_bytes;
    for (size_t at = 0; at < NEXT_BYTES; at += 64)
        __builtin_prefetch(from + at, 0, 2);
}

/* The pieces of a batch that go against a tile one after the other. */
static int count_chunks(const struct linear_task *j)
{
    return (j->n + j->d->k.task_tokens - 1) / j->d->k.task_tokens;
}

/* ---- linear ---- */

/* Task i of a product of many rows: chunk i % n_chunks of the batch times tile i / n_chunks of the
 * products' weight rows, counted end to end. *packed is the tile that scratch holds. */
static void multiply_task(const struct linear_task *j, int index, int task, int n_chunks,
                          int *packed)
{
    const struct worker_scratch *s = &j->d->mem.scratch[index];
    int i = task / n_chunks;
    const int step = j->d->k.task_tokens, t0 = task % n_chunks * step, n = qp_min(step, j->n - t0);
    const struct product *p = j->products;
    const bool is_packed = i == *packed;
    *packed = i;
    for (; i >= n_tiles(p->w); p++)
        i -= n_tiles(p->w);
    const int row = i * TILE_ROWS, n_rows = qp_min(TILE_ROWS, p->w->n_out - row);
    const size_t stride = (size_t)p->w->n_out;
    float *y = p->y + (size_t)t0 * stride + row;
    const struct weight_tile tile = { p->w, row, n_rows, s->tile, s->rest };
    if (!is_packed)
        pack_both(j, s->tile, s->rest, p->w, row, n_rows);
    multiply_chunk(j, index, y, stride, &tile, t0, n);
    qp_lora_add(&j->lora, index, y, stride, (int)(p - j->products), t0, n, row, n_rows);
}

/* Tasks are numbered tile by tile, so that a thread packs each tile of its share once. A piece is
 * all tasks of one tile: a thread that finishes early helps the others. */
static void linear_tiles(void *arg, int index, int n_threads)
{
    (void)n_threads;
    const struct linear_task *j = arg;
    const int n_chunks = count_chunks(j);
    int begin, end, n_all = 0, packed = -1;
    for (int p = 0; p < j->n_products; p++)
        n_all += n_tiles(j->products[p].w);
    const struct pool_items tasks = { .n = n_all * n_chunks, .unit = 1, .min = 1, .max = n_chunks };
    while (qp_pool_next(j->d->pool, index, &tasks, &begin, &end))
        for (int task = begin; task < end; task++)
            multiply_task(j, index, task, n_chunks, &packed);
}

/* Rows [begin, end) of the products' weight rows, counted end to end. */
static void multiply_range(const struct linear_task *j, int index, int begin, int end)
{
    int first = 0;
    for (int p = 0; p < j->n_products; p++) {
        const struct product *product = &j->products[p];
        const int n_out = product->w->n_out;
        const int from = begin > first ? begin - first : 0, to = qp_min(end - first, n_out);
        if (from < to)
            multiply_product(j, index, product->y + from, (size_t)n_out, p, from, to - from);
        first += n_out;
    }
}

/* The smallest piece of weight rows, in whole units. */
static int step_rows(const struct cpu_device *d, const struct matrix *w, int unit)
{
    const size_t n_bytes = d->n_now > FEW_THREADS ? SMALL_STEP_BYTES : STEP_BYTES;
    const int n = (int)(n_bytes / w->row_bytes) / unit * unit;
    return n > unit ? n : unit;
}

static void linear_rows(void *arg, int index, int n_threads)
{
    struct linear_task *j = arg;
    const int unit = unit_of(j->d), step = step_rows(j->d, j->products[0].w, unit);
    int begin, end, n_rows = 0;
    for (int p = 0; p < j->n_products; p++)
        n_rows += j->products[p].w->n_out;
    qp_lora_make(&j->lora, index);
    const struct pool_items rows = { .n = n_rows, .unit = unit, .min = step };
    while (qp_pool_next(j->d->pool, index, &rows, &begin, &end))
        multiply_range(j, index, begin, end);
    prefetch_next(j, index, n_threads);
}

static const struct act *input_of(const struct cpu_device *d, enum buffer in)
{
    const struct row_memory *m = &d->mem;
    const struct act *const acts[] = { [BUF_XN] = &m->xn,
                                       [BUF_ATT] = &m->att,
                                       [BUF_H] = &m->h,
                                       [BUF_E] = &m->e,
                                       [BUF_PLE] = &m->ple };
    assert((size_t)in < QP_COUNT(acts) && acts[in]);
    return acts[in];
}

/* The buffer of a product with n_out weight rows. */
static float *output_of(struct cpu_device *d, enum buffer out, int n_out)
{
    struct row_memory *m = &d->mem;
    float *const floats[] = { [BUF_Y] = m->y,
                              [BUF_Q] = m->q,
                              [BUF_K] = m->k,
                              [BUF_V] = m->v,
                              [BUF_PLE_GATE] = m->ple_gate,
                              [BUF_PLE_CONTEXT] = m->ple_context };
    assert((size_t)out < QP_COUNT(floats) && floats[out]);
    if (out == BUF_Q)
        m->q_width = n_out;
    else if (out == BUF_K || out == BUF_V)
        m->kv_width = n_out;
    return floats[out];
}

quip_status qp_cpu_linear(struct device *device, enum buffer out, struct matrix_set w,
                          enum buffer in, struct matrix_set next, const struct rows *rows)
{
    struct cpu_device *d = cpu_of(device);
    struct linear_task job = {
        .d = d, .n_products = w.n, .in = input_of(d, in), .n = rows->n, .next = next
    };
    assert(w.n > 0 && w.n <= MAX_PRODUCTS && rows->n > 0 && rows->n <= device->capacity.n_rows);
    for (int p = 0; p < w.n; p++) {
        const struct matrix *m = matrix_of(d, w, p);
        assert(m->n_in == job.in->n_cols);
        job.products[p] = (struct product){ m, output_of(d, out + (unsigned)p, m->n_out) };
    }
    qp_lora_begin(&job.lora, d, w, job.in, rows, is_few(d, rows->n));
    prepare_exact(&job);
    qp_pool_run(d->pool, is_few(d, rows->n) ? linear_rows : linear_tiles, &job);
    return QUIP_OK;
}

/* ---- gated feed-forward ---- */

/* The products of a gated task. */
enum {
    GATE_PRODUCT,
    UP_PRODUCT
};

/* All 64 columns of a tile, from `row` on, of n tokens from t0 on, h[n][TILE_ROWS]. */
static void store_tile(const struct kernels *k, struct act *a, int t0, int n, int row,
                       const float *h)
{
    _Alignas(64) int8_t q[BLOCKS_TOGETHER * TILE_ROWS];
    float scales[BLOCKS_TOGETHER];
    int32_t offsets[BLOCKS_TOGETHER];
    for (int t = 0; t < n && a->q; t += BLOCKS_TOGETHER) {
        const int m = qp_min(BLOCKS_TOGETHER, n - t);
        k->quantize(q, scales, offsets, h + t * TILE_ROWS, m * TILE_ROWS);
        for (int i = 0; i < m; i++)
            act_put_block(a, t0 + t + i, row / ACT_BLOCK, q + i * TILE_ROWS, scales[i], offsets[i]);
    }
    for (int t = 0; t < n && a->f32; t++)
        memcpy(a->f32 + (size_t)(t0 + t) * a->n_cols + row, h + t * TILE_ROWS,
               TILE_ROWS * sizeof *h);
}

void qp_store_gated(const struct kernels *k, const struct gated_part *p)
{
    const bool is_dense = (size_t)p->n_rows == p->stride;
    const int step = is_dense ? p->n : 1; // rows that are activated together
    for (int t = 0; t < p->n; t += step) {
        float *u = p->up + (size_t)t * p->stride;
        const float *g = p->gate ? p->gate + (size_t)t * p->stride : u;
        k->activate(u, g, p->gate ? u : NULL, p->act, step * p->n_rows);
    }
    for (int t = 0; t < p->n && p->is_mixed; t++)
        qp_mix_input(k, p->up + (size_t)t * p->stride, p->n_rows);
    if (is_dense && p->n_rows == TILE_ROWS)
        store_tile(k, p->to, p->t0, p->n, p->row, p->up);
    else
        for (int t = 0; t < p->n; t++)
            act_store_columns(k, p->to, p->t0 + t, p->row, p->n_rows,
                              p->up + (size_t)t * p->stride);
}

/* The products of n_rows weight rows and n rows of the batch from t0 on are in scratch. */
static void finish_gated(const struct linear_task *j, int index, size_t stride, int t0, int n,
                         int row, int n_rows)
{
    struct cpu_device *d = j->d;
    const struct worker_scratch *s = &d->mem.scratch[index];
    qp_store_gated(&d->k,
                   &(struct gated_part){ .up = s->up,
                                         .gate = j->products[GATE_PRODUCT].w->data ? s->gate : NULL,
                                         .stride = stride,
                                         .act = (int)d->base.config->act,
                                         .to = &d->mem.h,
                                         .t0 = t0,
                                         .n = n,
                                         .row = row,
                                         .n_rows = n_rows,
                                         .is_mixed = d->base.config->mixes_inputs });
}

/* Task i: chunk i % n_chunks of the batch times tile i / n_chunks of both matrices. *packed is the
 * tile that scratch holds. */
static void gate_tile_task(const struct linear_task *j, int index, int task, int n_chunks,
                           int *packed)
{
    const struct worker_scratch *s = &j->d->mem.scratch[index];
    const struct matrix *up = j->products[UP_PRODUCT].w, *gate = j->products[GATE_PRODUCT].w;
    const int i = task / n_chunks, row = i * TILE_ROWS, n_rows = qp_min(TILE_ROWS, up->n_out - row);
    const int step = j->d->k.task_tokens, t0 = task % n_chunks * step, n = qp_min(step, j->n - t0);
    if (i != *packed) {
        pack_both(j, s->tile, s->rest, up, row, n_rows);
        pack_both(j, s->tile_gate, s->rest_gate, gate, row, n_rows);
    }
    *packed = i;
    multiply_chunk(j, index, s->up, TILE_ROWS,
                   &(struct weight_tile){ up, row, n_rows, s->tile, s->rest }, t0, n);
    qp_lora_add(&j->lora, index, s->up, TILE_ROWS, UP_PRODUCT, t0, n, row, n_rows);
    if (gate->data) {
        multiply_chunk(j, index, s->gate, TILE_ROWS,
                       &(struct weight_tile){ gate, row, n_rows, s->tile_gate, s->rest_gate }, t0,
                       n);
        qp_lora_add(&j->lora, index, s->gate, TILE_ROWS, GATE_PRODUCT, t0, n, row, n_rows);
    }
    finish_gated(j, index, TILE_ROWS, t0, n, row, n_rows);
}

static void gated_tiles(void *arg, int index, int n_threads)
{
    (void)n_threads;
    const struct linear_task *j = arg;
    const int n_chunks = count_chunks(j);
    const int n = n_tiles(j->products[UP_PRODUCT].w) * n_chunks;
    int begin, end, packed = -1;
    const struct pool_items tasks = { .n = n, .unit = 1, .min = 1, .max = n_chunks };
    while (qp_pool_next(j->d->pool, index, &tasks, &begin, &end))
        for (int task = begin; task < end; task++)
            gate_tile_task(j, index, task, n_chunks, &packed);
}

/* Few rows of a batch: a thread reads tiles of weight rows of both matrices directly from the file,
 * as many as fit in scratch. */
static void gated_rows(void *arg, int index, int n_threads)
{
    struct linear_task *j = arg;
    const struct worker_scratch *s = &j->d->mem.scratch[index];
    const struct matrix *up = j->products[UP_PRODUCT].w;
    int row, end;
    const int stride = TASK_ROWS / j->n * TILE_ROWS; // of a row of the batch in scratch
    const int step = qp_min(step_rows(j->d, up, TILE_ROWS), stride);
    qp_lora_make(&j->lora, index);
    const struct pool_items rows = {
        .n = up->n_out, .unit = TILE_ROWS, .min = step, .max = stride
    };
    while (qp_pool_next(j->d->pool, index, &rows, &row, &end)) {
        const int n_rows = end - row;
        multiply_product(j, index, s->up, (size_t)stride, UP_PRODUCT, row, n_rows);
        if (j->products[GATE_PRODUCT].w->data)
            multiply_product(j, index, s->gate, (size_t)stride, GATE_PRODUCT, row, n_rows);
        finish_gated(j, index, (size_t)stride, 0, j->n, row, n_rows);
    }
    prefetch_next(j, index, n_threads);
}

quip_status qp_cpu_gated(struct device *device, int l, struct matrix_set next,
                         const struct rows *rows)
{
    struct cpu_device *d = cpu_of(device);
    const struct matrix_set set = { l, MATRIX_GATE, 2 };
    struct linear_task job = { .d = d,
                               .products = { [GATE_PRODUCT].w = matrix_of(d, set, GATE_PRODUCT),
                                             [UP_PRODUCT].w = matrix_of(d, set, UP_PRODUCT) },
                               .n_products = 2,
                               .in = &d->mem.xn,
                               .n = rows->n,
                               .next = next };
    assert(rows->n > 0 && rows->n <= device->capacity.n_rows);
    act_resize(&d->mem.h, device->config->layers[l].d_ff);
    qp_lora_begin(&job.lora, d, set, job.in, rows, is_few(d, rows->n));
    prepare_exact(&job);
    qp_pool_run(d->pool, is_few(d, rows->n) ? gated_rows : gated_tiles, &job);
    return QUIP_OK;
}

/* ---- logits ---- */

quip_status qp_cpu_logits(struct device *device, int n)
{
    struct cpu_device *d = cpu_of(device);
    struct linear_task job = { .d = d,
                               .products = { { &d->base.weights->head, d->mem.logits } },
                               .n_products = 1,
                               .in = &d->mem.xn,
                               .n = n,
                               .lora.d = d };
    assert(n > 0 && n <= LOGITS_ROWS);
    qp_pool_run(d->pool, is_few(d, n) ? linear_rows : linear_tiles, &job);
    const struct config *c = device->config;
    if (c->logits_scale != 1)
        d->k.axpby(d->mem.logits, d->mem.logits, c->logits_scale, NULL, 0, n * c->vocab_size);
    if (c->logits_cap > 0)
        d->k.soft_cap(d->mem.logits, c->logits_cap, n * c->vocab_size);
    return QUIP_OK;
}
