/* ops_linear.c: matrix products on threads.
 * Few tokens: each thread streams its share of the rows from the file (limit: memory bandwidth).
 * Many tokens: each thread packs TILE_ROWS rows at a time into its cache and runs TASK_TOKENS
 * tokens against them (limit: arithmetic). Both give the same bits. */
#include "cpu/cpu_impl.h"

#include <string.h>

enum {
    KERNEL_ROWS = 16,        // that a kernel takes at a time
    STEP_BYTES = 256 * 1024, // the least that a thread takes at a time
    NEXT_BYTES = 16 * 1024
};

struct linear_task {
    struct run *r;
    const struct product *products;
    int n_products;
    const struct act *in;
    const struct product *gate, *up; // of a gated task, among its products
    struct act *out;
    int n;
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

/* Whether n tokens go row by row. */
static bool is_few(struct run *r, int n)
{
    return n <= cpu(r)->k.few_tokens;
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

static void pack_tile(const struct kernels *k, void *tile, const struct matrix *w, int row,
                      int n_rows)
{
    if (w->data && w->dtype != DTYPE_F32)
        k->pack(tile, w, row, n_rows);
}

static int n_tiles(const struct matrix *w)
{
    return (w->n_out + TILE_ROWS - 1) / TILE_ROWS;
}

/* Rows [row, row + n_rows) as a matrix of their own. */
static struct matrix rows_of(const struct matrix *w, int row, int n_rows)
{
    struct matrix part = *w;
    part.n_out = n_rows;
    part.data = (const uint8_t *)w->data + (size_t)row * w->row_bytes;
    part.scales = w->scales ? w->scales + row : NULL;
    part.multipliers = w->multipliers ? qp_matrix_multipliers(w, row) : NULL;
    part.bias = w->bias ? w->bias + row : NULL;
    part.zeros = w->zeros ? w->zeros + row : NULL;
    return part;
}

/* Few tokens: y[t * y_stride + i] for rows row + i of product p. */
static void multiply_product(const struct linear_task *j, const struct worker_scratch *s, float *y,
                             size_t y_stride, int p, int row, int n_rows)
{
    const struct matrix w = rows_of(j->products[p].w, row, n_rows);
    multiply_rows(&cpu(j->r)->k, y, y_stride, &w, j->in, j->n, 0, n_rows);
    qp_lora_add(&j->lora, s, y, y_stride, p, 0, j->n, row, n_rows);
}

/* ---- linear ---- */

/* Task i of a product of many tokens: chunk i % n_chunks of the tokens times tile i / n_chunks of
 * the products' rows, laid end to end. *packed is the tile that s->tile holds. */
static void multiply_task(const struct linear_task *j, const struct worker_scratch *s, int task,
                          int n_chunks, int *packed)
{
    const struct kernels *k = &cpu(j->r)->k;
    int i = task / n_chunks;
    const int t0 = task % n_chunks * TASK_TOKENS, n = qp_min(TASK_TOKENS, j->n - t0);
    const struct product *p = j->products;
    const bool is_packed = i == *packed;
    *packed = i;
    for (; i >= n_tiles(p->w); p++)
        i -= n_tiles(p->w);
    const int row = i * TILE_ROWS, n_rows = qp_min(TILE_ROWS, p->w->n_out - row);
    const size_t stride = (size_t)p->w->n_out;
    float *y = p->y + (size_t)t0 * stride + row;
    if (!is_packed)
        pack_tile(k, s->tile, p->w, row, n_rows);
    multiply_tile(k, y, stride, s->tile, p->w, j->in, t0, n, row, n_rows);
    qp_lora_add(&j->lora, s, y, stride, (int)(p - j->products), t0, n, row, n_rows);
}

/* Tasks are numbered tile by tile, so that a thread's share packs each tile once. They are taken as
 * many as make a tile: whoever is done early helps the others. */
static void linear_tiles(void *arg, int index, int n_threads)
{
    (void)n_threads;
    struct linear_task *j = arg;
    const int n_chunks = (j->n + TASK_TOKENS - 1) / TASK_TOKENS;
    int begin, end, n_all = 0, packed = -1;
    for (int p = 0; p < j->n_products; p++)
        n_all += n_tiles(j->products[p].w);
    const struct pool_items tasks = { .n = n_all * n_chunks, .unit = 1, .min = 1, .max = n_chunks };
    while (qp_pool_next(cpu(j->r)->pool, index, &tasks, &begin, &end))
        for (int task = begin; task < end; task++)
            multiply_task(j, &cpu(j->r)->scratch[index], task, n_chunks, &packed);
}

/* Rows [begin, end) of the products' rows, laid end to end. */
static void multiply_stretch(const struct linear_task *j, const struct worker_scratch *s, int begin,
                             int end)
{
    int first = 0;
    for (int p = 0; p < j->n_products; p++) {
        const struct matrix *w = j->products[p].w;
        const int from = begin > first ? begin - first : 0, to = qp_min(end - first, w->n_out);
        if (from < to)
            multiply_product(j, s, j->products[p].y + from, (size_t)w->n_out, p, from, to - from);
        first += w->n_out;
    }
}

/* The least rows that are taken at a time, in whole units: about STEP_BYTES of them. */
static int step_rows(const struct matrix *w, int unit)
{
    const int n = (int)(STEP_BYTES / w->row_bytes) / unit * unit;
    return n > unit ? n : unit;
}

/* ---- what comes next ----
 * Between two products memory would rest: the first lines of the next one are fetched as soon as a
 * thread has no more rows of this one. */

/* The products that forward.c asks for after the one with `w` in front; returns how many. */
static int find_next(const struct run *r, const struct matrix *w, const struct matrix *next[3])
{
    const struct layer_weights *layers = r->weights->layers;
    const uintptr_t first = (uintptr_t)layers, at = (uintptr_t)w;
    if (at < first || at >= (uintptr_t)(layers + r->config->n_layers))
        return 0; // the head
    const int l = (int)((at - first) / sizeof *layers);
    const struct layer_weights *layer = &layers[l];
    const ptrdiff_t m = w - layer->m;
    next[0] = &layer->m[m == MATRIX_Q ? MATRIX_O : m == MATRIX_O ? MATRIX_UP : MATRIX_DOWN];
    if (m != MATRIX_DOWN)
        return 1;
    next[0] = &r->weights->head;
    if (l + 1 == r->config->n_layers)
        return 1;
    for (int i = 0; i < 3; i++)
        next[i] = &layer[1].m[MATRIX_Q + i];
    return 3;
}

/* Fetch the beginning of part `index` of what comes after `w`. */
static void fetch_next(const struct run *r, const struct matrix *w, int index, int n_threads)
{
    const struct matrix *next[3];
    const int n = find_next(r, w, next);
    int row, end, n_rows = 0, i = 0;
    if (n == 0)
        return;
    for (int p = 0; p < n; p++)
        n_rows += next[p]->n_out;
    qp_share(n_rows, n_rows == r->config->d_ff ? TILE_ROWS : KERNEL_ROWS, index, n_threads, &row,
             &end);
    for (; i + 1 < n && row >= next[i]->n_out; i++)
        row -= next[i]->n_out;
    const char *from = (const char *)next[i]->data + (size_t)row * next[i]->row_bytes;
    for (size_t at = 0; at < NEXT_BYTES; at += 64)
        __builtin_prefetch(from + at, 0, 2);
}

static void linear_rows(void *arg, int index, int n_threads)
{
    (void)n_threads;
    struct linear_task *j = arg;
    const int step = step_rows(j->products[0].w, KERNEL_ROWS);
    int begin, end, n_rows = 0;
    for (int p = 0; p < j->n_products; p++)
        n_rows += j->products[p].w->n_out;
    qp_lora_make(&j->lora, index);
    const struct pool_items rows = { .n = n_rows, .unit = KERNEL_ROWS, .min = step };
    while (qp_pool_next(cpu(j->r)->pool, index, &rows, &begin, &end))
        multiply_stretch(j, &cpu(j->r)->scratch[index], begin, end);
    fetch_next(j->r, j->products[0].w, index, n_threads);
}

void qp_cpu_linear(struct run *r, const struct product *products, int n_products,
                   const struct act *in, int n)
{
    struct linear_task job = {
        .r = r, .products = products, .n_products = n_products, .in = in, .n = n
    };
    qp_lora_begin(&job.lora, r, products, n_products, in, n, is_few(r, n));
    cpu_parallel(r, false, is_few(r, n) ? linear_rows : linear_tiles, &job);
}

/* ---- gated feed-forward ---- */

/* Their places among the products with one input. */
enum {
    GATE_PRODUCT,
    UP_PRODUCT
};

/* All 64 columns of a tile, from `row` on, of n tokens from t0 on, h[n][TILE_ROWS]: sixteen blocks
 * are quantized together. */
static void store_tile(const struct kernels *k, struct act *a, int t0, int n, int row,
                       const float *h)
{
    enum {
        N = 16
    };
    _Alignas(64) int8_t q[N * TILE_ROWS];
    float scales[N];
    int32_t offsets[N];
    for (int t = 0; t < n && a->q; t += N) {
        const int m = qp_min(N, n - t);
        k->quantize(q, scales, offsets, h + t * TILE_ROWS, m * TILE_ROWS);
        for (int i = 0; i < m; i++) {
            const size_t at = (size_t)(t0 + t + i), block = (size_t)(row / ACT_BLOCK);
            memcpy(a->q + at * a->q_stride + row, q + i * TILE_ROWS, TILE_ROWS);
            a->scales[at * (size_t)a->n_blocks + block] = scales[i];
            a->offsets[at * (size_t)a->n_blocks + block] = offsets[i];
        }
    }
    for (int t = 0; t < n && a->f32; t++)
        memcpy(a->f32 + (size_t)(t0 + t) * a->n_cols + row, h + t * TILE_ROWS,
               TILE_ROWS * sizeof *h);
}

/* h = act(gate) * up, or act(up), for n_rows columns of n tokens from t0 on; the products are in
 * scratch. */
static void finish_gated(struct linear_task *j, const struct worker_scratch *s, size_t stride,
                         int t0, int n, int row, int n_rows)
{
    const struct kernels *k = &cpu(j->r)->k;
    const bool is_dense = (size_t)n_rows == stride;
    const int step = is_dense ? n : 1; // tokens that are activated together
    for (int t = 0; t < n; t += step) {
        float *u = s->up + (size_t)t * stride, *g = s->gate + (size_t)t * stride;
        if (j->gate->w->data)
            k->activate(u, g, u, j->r->config->act, step * n_rows);
        else
            k->activate(u, u, NULL, j->r->config->act, step * n_rows);
    }
    if (is_dense && n_rows == TILE_ROWS)
        store_tile(k, j->out, t0, n, row, s->up);
    else
        for (int t = 0; t < n; t++)
            act_store_columns(k, j->out, t0 + t, row, n_rows, s->up + (size_t)t * stride);
}

/* Tile i of both matrices, for all tokens. */
static void gate_tile(struct linear_task *j, const struct worker_scratch *s, int i)
{
    const struct kernels *k = &cpu(j->r)->k;
    const struct matrix *up = j->up->w, *gate = j->gate->w;
    const int row = i * TILE_ROWS, n_rows = qp_min(TILE_ROWS, up->n_out - row);
    pack_tile(k, s->tile, up, row, n_rows);
    pack_tile(k, s->tile_gate, gate, row, n_rows);
    for (int t0 = 0; t0 < j->n; t0 += TASK_TOKENS) {
        const int n = qp_min(TASK_TOKENS, j->n - t0);
        multiply_tile(k, s->up, TILE_ROWS, s->tile, up, j->in, t0, n, row, n_rows);
        qp_lora_add(&j->lora, s, s->up, TILE_ROWS, UP_PRODUCT, t0, n, row, n_rows);
        if (gate->data) {
            multiply_tile(k, s->gate, TILE_ROWS, s->tile_gate, gate, j->in, t0, n, row, n_rows);
            qp_lora_add(&j->lora, s, s->gate, TILE_ROWS, GATE_PRODUCT, t0, n, row, n_rows);
        }
        finish_gated(j, s, TILE_ROWS, t0, n, row, n_rows);
    }
}

static void gated_tiles(void *arg, int index, int n_threads)
{
    (void)n_threads;
    struct linear_task *j = arg;
    int i, end;
    const struct pool_items tiles = { .n = n_tiles(j->up->w), .unit = 1, .min = 1, .max = 1 };
    while (qp_pool_next(cpu(j->r)->pool, index, &tiles, &i, &end))
        gate_tile(j, &cpu(j->r)->scratch[index], i);
}

/* Few tokens: each thread takes tiles of rows of both matrices, straight from the file, as many as
 * have room in scratch. */
static void gated_rows(void *arg, int index, int n_threads)
{
    struct linear_task *j = arg;
    const struct worker_scratch *s = &cpu(j->r)->scratch[index];
    (void)n_threads;
    int row, end;
    const int stride = TASK_TOKENS / j->n * TILE_ROWS; // of a token in scratch
    const int step = qp_min(step_rows(j->up->w, TILE_ROWS), stride);
    qp_lora_make(&j->lora, index);
    const struct pool_items rows = {
        .n = j->up->w->n_out, .unit = TILE_ROWS, .min = step, .max = stride
    };
    while (qp_pool_next(cpu(j->r)->pool, index, &rows, &row, &end)) {
        const int n_rows = end - row;
        multiply_product(j, s, s->up, (size_t)stride, UP_PRODUCT, row, n_rows);
        if (j->gate->w->data)
            multiply_product(j, s, s->gate, (size_t)stride, GATE_PRODUCT, row, n_rows);
        finish_gated(j, s, (size_t)stride, 0, j->n, row, n_rows);
    }
    fetch_next(j->r, j->up->w, index, n_threads);
}

void qp_cpu_gated(struct run *r, struct act *out, const struct product *gate,
                  const struct product *up, const struct act *in, int n)
{
    const struct product products[] = { [GATE_PRODUCT] = *gate, [UP_PRODUCT] = *up };
    struct linear_task job = { .r = r,
                               .products = products,
                               .n_products = 2,
                               .in = in,
                               .gate = &products[GATE_PRODUCT],
                               .up = &products[UP_PRODUCT],
                               .out = out,
                               .n = n };
    qp_lora_begin(&job.lora, r, products, 2, in, n, is_few(r, n));
    cpu_parallel(r, false, is_few(r, n) ? gated_rows : gated_tiles, &job);
}

/* ---- logits ---- */

void qp_cpu_logits(struct run *r, float *logits, const struct act *in, int n)
{
    static const struct lora none;
    const struct product head[] = { { &r->weights->head, logits, &none } };
    qp_cpu_linear(r, head, 1, in, n);
    if (r->config->logits_cap > 0)
        cpu(r)->k.soft_cap(logits, r->config->logits_cap, n * r->config->vocab_size);
}
