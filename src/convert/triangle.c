/* triangle.c: the lower triangle of a symmetric matrix, and its factor.
 * In:  rows whose products are summed; or the triangle.
 * Out: the sums; or U and D of (U + I) D (U + I)'.
 *
 * Both are h[i, j] += a[k, i] * b[k, j], a panel of PANEL rows k at a time, in tiles of products.h.
 * A tile of h is read and written once per panel. Threads divide the rows of h. Each number has one
 * order of additions, that of the plain loops, so that the model file does not depend on threads.
 */
#include "convert/triangle.h"

#include "convert/products.h"

#include <assert.h>
#include <float.h>
#include <stdlib.h>

enum {
    PANEL = 32,
    MIN_TILES = 4 // rows of tiles that a thread takes at a time, at least
};

/* ---- panels ---- */

/* Rows of a panel in strips: number k of column i is at (i / width * n_k + k) * width + i % width.
 * Columns from n on are zeros. */
static void put_row(float *panel, const float *row, int n, float factor, int k, int n_k, int width)
{
    for (int i = 0; i < n; i += width) {
        float *to = panel + ((size_t)(i / width) * (size_t)n_k + (size_t)k) * (size_t)width;
        for (int c = 0; c < width; c++)
            to[c] = i + c < n ? row[i + c] * factor : 0;
    }
}

struct panel_task {
    const struct triangle *t;
    int n, n_k; // rows of h; of the panel
};

/* A tile at the edge: only `rows` rows and `cols` columns exist. */
static void add_part(float *c, size_t stride, struct product_rows a, const float *b, size_t n_k,
                     size_t rows, size_t cols)
{
    float tile[PRODUCT_ROWS * PRODUCT_COLS] = { 0 };
    for (size_t i = 0; i < rows; i++)
        memcpy(tile + i * PRODUCT_COLS, c + i * stride, cols * sizeof *c);
    add_products(tile, PRODUCT_COLS, a, b, PRODUCT_COLS, n_k);
    for (size_t i = 0; i < rows; i++)
        memcpy(c + i * stride, tile + i * PRODUCT_COLS, cols * sizeof *c);
}

/* Rows [i, i + PRODUCT_ROWS) of h, up to the diagonal. */
static void add_tiles(const struct panel_task *task, int i)
{
    const struct triangle *t = task->t;
    const size_t n = (size_t)t->n, n_k = (size_t)task->n_k;
    const struct product_rows a = { t->left + (size_t)i * n_k, 1, PRODUCT_ROWS };
    const int rows = task->n - i < PRODUCT_ROWS ? task->n - i : PRODUCT_ROWS;
    for (int j = 0; j < i + rows; j += PRODUCT_COLS) {
        float *c = t->h + (size_t)i * n + (size_t)j;
        const float *b = t->right + (size_t)j * n_k;
        const int cols = task->n - j < PRODUCT_COLS ? task->n - j : PRODUCT_COLS;
        if (rows == PRODUCT_ROWS && cols == PRODUCT_COLS)
            add_products(c, n, a, b, PRODUCT_COLS, n_k);
        else
            add_part(c, n, a, b, n_k, (size_t)rows, (size_t)cols);
    }
}

static void add_panel_share(void *arg, int index, int n_threads)
{
    const struct panel_task *task = arg;
    const int n_tiles = (task->n + PRODUCT_ROWS - 1) / PRODUCT_ROWS;
    const struct pool_items items = { .n = n_tiles, .unit = 1, .min = MIN_TILES };
    int begin, end;
    (void)n_threads;
    while (qp_pool_next(task->t->pool, index, &items, &begin, &end))
        for (int i = begin; i < end; i++)
            add_tiles(task, i * PRODUCT_ROWS);
}

/* h[i, j] += left[k, i] * right[k, j] for ascending k < n_k, j <= i < n. */
static void add_panel(const struct triangle *t, int n, int n_k)
{
    struct panel_task task = { t, n, n_k };
    assert(n >= 0 && n <= t->n && n_k <= PANEL);
    qp_pool_run(t->pool, add_panel_share, &task);
}

/* ---- open, add ---- */

bool qp_triangle_open(struct triangle *t, int n, struct pool *pool)
{
    const size_t size = (size_t)n, padded = qp_round_up(size, PRODUCT_COLS) * PANEL;
    assert(n > 0 && n <= 1 << 20);
    *t = (struct triangle){ .h = calloc(size * size, sizeof(float)),
                            .n = n,
                            .pool = pool,
                            .left = malloc(padded * sizeof(float)),
                            .right = malloc(padded * sizeof(float)) };
    return t->h && t->left && t->right;
}

void qp_triangle_close(struct triangle *t)
{
    free(t->h);
    free(t->left);
    free(t->right);
    *t = (struct triangle){ 0 };
}

void qp_triangle_add(struct triangle *t, const float *x, int n_rows)
{
    for (int r = 0, n_k; r < n_rows; r += n_k, x += (size_t)n_k * (size_t)t->n) {
        n_k = n_rows - r < PANEL ? n_rows - r : PANEL;
        for (int k = 0; k < n_k; k++) {
            put_row(t->left, x + (size_t)k * (size_t)t->n, t->n, 1, k, n_k, PRODUCT_ROWS);
            put_row(t->right, x + (size_t)k * (size_t)t->n, t->n, 1, k, n_k, PRODUCT_COLS);
        }
        add_panel(t, t->n, n_k);
    }
}

/* ---- factor ---- */

static void add_damping(struct triangle *t, float damping)
{
    const size_t n = (size_t)t->n;
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)t->h[i * n + i];
    const float mean = (float)(sum / t->n), d = mean > 0 ? mean * damping : 1;
    for (size_t i = 0; i < n; i++)
        t->h[i * n + i] += d;
}

/* Rows [begin, end) of h, from the last to the first: each is D[k] times row k of U', without the
 * shares of the rows after it. */
static bool finish_rows(struct triangle *t, int begin, int end)
{
    const size_t n = (size_t)t->n;
    for (int k = end - 1; k >= begin; k--) {
        const float *row = t->h + (size_t)k * n, d = row[k];
        if (!(d > 0 && d <= FLT_MAX))
            return false;
        for (int i = begin; i < k; i++) {
            float *to = t->h + (size_t)i * n;
            const float factor = row[i] / d;
            for (int j = 0; j <= i; j++)
                to[j] -= factor * row[j];
        }
    }
    return true;
}

/* Row k of U'. */
static void divide_row(struct triangle *t, int k)
{
    float *row = t->h + (size_t)k * (size_t)t->n;
    for (int j = 0; j < k; j++)
        row[j] /= row[k];
}

bool qp_triangle_factor(struct triangle *t, float damping)
{
    add_damping(t, damping);
    for (int end = t->n, begin; end > 0; end = begin) {
        begin = end > PANEL ? end - PANEL : 0;
        if (!finish_rows(t, begin, end))
            return false;
        for (int k = end - 1, at = 0; k >= begin; k--, at++) {
            const float *row = t->h + (size_t)k * (size_t)t->n;
            put_row(t->right, row, begin, 1, at, end - begin, PRODUCT_COLS);
            divide_row(t, k);
            put_row(t->left, row, begin, -1, at, end - begin, PRODUCT_ROWS);
        }
        if (begin > 0)
            add_panel(t, begin, end - begin);
    }
    return true;
}
