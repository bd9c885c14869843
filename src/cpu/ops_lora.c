/* ops_lora.c: what adapters add to the products of one operation, y += scale * b (a x).
 * In:  the products' input, and the adapter of each row's sequence.
 * Out: first u = scale * a x for all rows; then, for each tile of y that is finished, y += b u.
 *
 * Many rows: u is computed in a run of its own. Few: in the products' run. There each thread starts
 * with an `a` that no thread has started, goes on with its weight rows, and waits for u only when
 * the first of them are done. */
#include "cpu/cpu_impl.h"

#include <assert.h>
#include <string.h>

/* y[t * y_stride + r - begin] += m x, or with floats y = m x, for rows [begin, end) of a pair's
 * half, as floats or packed, and n tokens from t0 on. */
static void multiply_half(const struct kernels *k, float *y, size_t y_stride,
                          const struct matrix *floats, const struct low_rank *packed,
                          const struct act *x, int t0, int n, int begin, int end)
{
    const struct out_view out = { y, y_stride };
    if (floats->data) {
        const struct f32_rows rows = act_floats(x, t0, n);
        k->gemm_f32(&out, floats, &rows, begin, end);
    } else {
        const struct act_rows rows = act_tokens(x, t0, n);
        k->add_low_rank(&out, packed, &rows, begin, end);
    }
}

/* ---- rows that share an adapter ---- */

/* Split the batch into d->mem.adapters: consecutive rows with the same adapter and scale. */
static int group_by_adapter(struct cpu_device *d, const struct rows *rows)
{
    struct adapter_rows *group = d->mem.adapters;
    int n = 0;
    for (int t = 0; t < rows->n; t++) {
        const struct sequence *s = rows->row[t].sequence;
        if (!s->adapter)
            continue;
        struct adapter_rows *last = n ? &group[n - 1] : NULL;
        if (last && last->first + last->n == t && last->layers == s->adapter->layers &&
            last->scale == s->adapter_scale)
            last->n++;
        else
            group[n++] = (struct adapter_rows){ t, 1, s->adapter->layers, s->adapter_scale };
    }
    return n;
}

static const struct lora *lora_of(const struct lora_task *j, const struct adapter_rows *group,
                                  int p)
{
    return &group->layers[j->l].m[j->first + (unsigned)p];
}

/* u of a group's rows for product p: in its share of the buffer, with the strides of its rank. */
static struct act u_of(const struct lora_task *j, const struct adapter_rows *group, int p)
{
    const struct act *all = &j->d->adapters.u[p];
    const int rank = lora_of(j, group, p)->rank;
    const size_t first = (size_t)group->first, n_blocks = (size_t)all->n_blocks;
    struct act u = { .n_cols = rank,
                     .max_cols = rank,
                     .q_stride = qp_round_up((size_t)rank, ACT_BLOCK) };
    assert(rank <= all->n_cols);
    u.n_blocks = (int)(u.q_stride / ACT_BLOCK);
    if (all->f32)
        u.f32 = all->f32 + first * (size_t)all->n_cols;
    if (all->q) {
        u.q = all->q + first * all->q_stride;
        u.scales = all->scales + first * n_blocks;
        u.offsets = all->offsets + first * n_blocks;
    }
    return u;
}

/* ---- u ---- */

/* u of rows [begin, end) of a group, for product p. */
static void make_u(const struct lora_task *j, const struct adapter_rows *group, int p, int begin,
                   int end, float *sums)
{
    const struct kernels *k = &j->d->k;
    const struct lora *lora = lora_of(j, group, p);
    struct act u = u_of(j, group, p);
    for (int row = 0; row < lora->rank; row += TILE_ROWS)
        for (int t0 = begin; t0 < end; t0 += TASK_ROWS) {
            const int n = qp_min(TASK_ROWS, end - t0), n_rows = qp_min(TILE_ROWS, lora->rank - row);
            memset(sums, 0, (size_t)n * TILE_ROWS * sizeof *sums);
            multiply_half(k, sums, TILE_ROWS, &lora->a, &lora->low_rank_a, j->in, group->first + t0,
                          n, row, row + n_rows);
            for (int t = 0; t < n; t++) {
                float *sum = sums + (size_t)t * TILE_ROWS;
                for (int i = 0; i < n_rows; i++)
                    sum[i] *= group->scale;
                act_store_columns(k, &u, t0 + t, row, n_rows, sum);
            }
        }
}

static float *sums_of(const struct cpu_device *d, int index)
{
    return d->adapters.sums + (size_t)index * TASK_ROWS * TILE_ROWS;
}

/* Many rows: each thread computes a share of every group. */
static void lora_rows(void *arg, int index, int n_threads)
{
    const struct lora_task *j = arg;
    for (int g = 0; g < j->n_groups; g++) {
        const struct adapter_rows *group = &j->d->mem.adapters[g];
        int begin, end;
        qp_share(group->n, 1, index, n_threads, &begin, &end);
        for (int p = 0; p < j->n_products; p++)
            make_u(j, group, p, begin, end, sums_of(j->d, index));
    }
}

/* Few rows: each u that no thread has started. Every thread looks at another one first. */
void qp_lora_make(struct lora_task *j, int index)
{
    const int n_pairs = j->n_all ? j->n_groups * j->n_products : 0;
    for (int i = 0; i < n_pairs; i++) {
        const int pair = (index + i) % n_pairs, p = pair % j->n_products;
        const struct adapter_rows *group = &j->d->mem.adapters[pair / j->n_products];
        if (lora_of(j, group, p)->rank && !atomic_exchange(&j->is_begun[pair], true)) {
            make_u(j, group, p, 0, group->n, sums_of(j->d, index));
            atomic_fetch_add_explicit(&j->n_done, 1, memory_order_release);
        }
    }
}

void qp_lora_begin(struct lora_task *j, struct cpu_device *d, struct matrix_set w,
                   const struct act *in, const struct rows *rows, bool is_few)
{
    *j = (struct lora_task){
        .d = d, .l = w.l, .first = w.first, .n_products = w.n, .in = in, .is_few = is_few
    };
    if (!d->base.capacity.max_rank)
        return;
    j->n_groups = group_by_adapter(d, rows);
    for (int g = 0; g < j->n_groups; g++)
        for (int p = 0; p < w.n; p++)
            j->n_all += lora_of(j, &d->mem.adapters[g], p)->rank > 0;
    if (j->n_all && !is_few)
        qp_pool_run(d->pool, lora_rows, j);
}

/* ---- b u ---- */

/* Rows [t0, t0 + n) of a group; y belongs to the first of them. */
static void add_group(const struct lora_task *j, const struct adapter_rows *group, int index,
                      float *y, size_t y_stride, int p, int t0, int n, int row, int n_rows)
{
    const struct kernels *k = &j->d->k;
    const struct lora *lora = lora_of(j, group, p);
    const struct act u = u_of(j, group, p);
    float *sums = sums_of(j->d, index);
    if (!lora->b.data) {
        multiply_half(k, y, y_stride, &lora->b, &lora->low_rank_b, &u, t0, n, row, row + n_rows);
        return;
    }
    for (int end = row + n_rows, m; row < end; row += m, y += m) {
        m = qp_min(TILE_ROWS, end - row);
        multiply_half(k, sums, TILE_ROWS, &lora->b, &lora->low_rank_b, &u, t0, n, row, row + m);
        for (int t = 0; t < n; t++)
            k->add(y + (size_t)t * y_stride, sums + (size_t)t * TILE_ROWS, m);
    }
}

void qp_lora_add(const struct lora_task *j, int index, float *y, size_t y_stride, int p, int t0,
                 int n, int row, int n_rows)
{
    for (int g = 0; g < j->n_groups; g++) {
        const struct adapter_rows *group = &j->d->mem.adapters[g];
        const int begin = group->first > t0 ? group->first : t0,
                  end = qp_min(group->first + group->n, t0 + n);
        if (begin >= end || !lora_of(j, group, p)->rank)
            continue;
        if (j->is_few)
            qp_pool_wait(&j->n_done, j->n_all);
        add_group(j, group, index, y + (size_t)(begin - t0) * y_stride, y_stride, p,
                  begin - group->first, end - begin, row, n_rows);
    }
}
