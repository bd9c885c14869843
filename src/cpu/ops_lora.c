/* ops_lora.c: what an adapter adds to the products of one operation, y += scale * b (a x).
 * In:  the products and their input.
 * Out: u = scale * a x is made first, for all tokens; then whoever makes a tile of y adds b u to
 *      it.
 * Many tokens: u is made in a run of its own. Few: in the products' run. Each thread begins with an
 * a that nobody has begun, goes on with its rows of w, and asks for u only when the first of them
 * are done. */
#include "cpu/cpu_impl.h"

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
        k->add_low_rank(k, &out, packed, &rows, begin, end);
    }
}

/* ---- u ---- */

/* u of product p for tokens [begin, end). */
static void make_u(const struct lora_task *j, int p, int begin, int end, float *sums)
{
    const struct kernels *k = &cpu(j->r)->k;
    const struct lora *lora = j->products[p].lora;
    for (int row = 0; row < lora->rank; row += TILE_ROWS)
        for (int t0 = begin; t0 < end; t0 += TASK_TOKENS) {
            const int n = qp_min(TASK_TOKENS, end - t0),
                      n_rows = qp_min(TILE_ROWS, lora->rank - row);
            memset(sums, 0, (size_t)n * TILE_ROWS * sizeof *sums);
            multiply_half(k, sums, TILE_ROWS, &lora->a, &lora->low_rank_a, j->in, t0, n, row,
                          row + n_rows);
            for (int t = 0; t < n; t++) {
                float *sum = sums + (size_t)t * TILE_ROWS;
                for (int i = 0; i < n_rows; i++)
                    sum[i] *= j->r->adapter_scale;
                act_store_columns(k, &cpu(j->r)->lora_u[p], t0 + t, row, n_rows, sum);
            }
        }
}

/* Many tokens: each thread takes some of them. */
static void lora_tokens(void *arg, int index, int n_threads)
{
    const struct lora_task *j = arg;
    int begin, end;
    qp_share(j->n, 1, index, n_threads, &begin, &end);
    for (int p = 0; p < j->n_products; p++)
        make_u(j, p, begin, end, cpu(j->r)->scratch[index].lora);
}

/* Few tokens: the u that nobody has begun. Every thread looks first at another one. */
void qp_lora_make(struct lora_task *j, int index)
{
    for (int i = 0; i < j->n_products && j->n_all; i++) {
        const int p = (index + i) % j->n_products;
        if (j->products[p].lora->rank && !atomic_exchange(&j->is_begun[p], true)) {
            make_u(j, p, 0, j->n, cpu(j->r)->scratch[index].lora);
            atomic_fetch_add_explicit(&j->n_done, 1, memory_order_release);
        }
    }
}

/* The rows of a u lie as close as those of its own rank. */
void qp_lora_begin(struct lora_task *j, struct run *r, const struct product *products,
                   int n_products, const struct act *in, int n, bool is_few)
{
    *j = (struct lora_task){
        .r = r, .products = products, .n_products = n_products, .in = in, .n = n, .is_few = is_few
    };
    for (int p = 0; p < n_products && r->adapter; p++) {
        struct act *u = &cpu(r)->lora_u[p];
        u->n_cols = products[p].lora->rank;
        u->q_stride = qp_round_up((size_t)u->n_cols, ACT_BLOCK);
        u->n_blocks = (int)(u->q_stride / ACT_BLOCK);
        j->n_all += u->n_cols > 0;
    }
    if (j->n_all && !is_few)
        cpu_parallel(r, false, lora_tokens, j);
}

/* ---- b u ---- */

void qp_lora_add(const struct lora_task *j, const struct worker_scratch *s, float *y,
                 size_t y_stride, int p, int t0, int n, int row, int n_rows)
{
    const struct kernels *k = &cpu(j->r)->k;
    const struct lora *lora = j->products[p].lora;
    const struct act *u = &cpu(j->r)->lora_u[p];
    if (!lora->rank)
        return;
    if (j->is_few)
        qp_pool_wait(&j->n_done, j->n_all);
    if (!lora->b.data) {
        multiply_half(k, y, y_stride, &lora->b, &lora->low_rank_b, u, t0, n, row, row + n_rows);
        return;
    }
    for (int end = row + n_rows, m; row < end; row += m, y += m) {
        m = qp_min(TILE_ROWS, end - row);
        multiply_half(k, s->lora, TILE_ROWS, &lora->b, &lora->low_rank_b, u, t0, n, row, row + m);
        for (int t = 0; t < n; t++)
            k->add(y + (size_t)t * y_stride, s->lora + (size_t)t * TILE_ROWS, m);
    }
}
