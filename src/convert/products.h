/* products.h: the kernel of the converter's matrix products, which take most of its time.
 * In:  two strips of floats.
 * Out: a tile of 4 x 8 sums.
 *
 * It uses the vectors of GNU C, because compilers keep an array of sums in memory. Every processor
 * computes the same bits: each sum has one order, and nothing is fused. */
#ifndef QP_PRODUCTS_H
#define QP_PRODUCTS_H

#include <stddef.h>
#include <string.h>

enum {
    PRODUCT_ROWS = 4,
    PRODUCT_COLS = 8
};

/* What a row of the tile is multiplied by: a[i * row + k * step] for its row i. */
struct product_rows {
    const float *a;
    size_t row, step;
};

typedef float product_lanes __attribute__((vector_size(16)));

static inline product_lanes load_lanes(const float *from)
{
    product_lanes v;
    memcpy(&v, from, sizeof v);
    return v;
}

/* c[i * stride + j] += a(i, k) * b[k * step + j], for ascending k < n, i < 4 and j < 8. */
static inline void add_products(float *c, size_t stride, struct product_rows rows, const float *b,
                                size_t step, size_t n)
{
    const float *a = rows.a;
    product_lanes low[PRODUCT_ROWS], high[PRODUCT_ROWS];
#pragma GCC unroll 4
    for (size_t i = 0; i < PRODUCT_ROWS; i++) {
        low[i] = load_lanes(c + i * stride);
        high[i] = load_lanes(c + i * stride + 4);
    }
    for (size_t k = 0; k < n; k++, a += rows.step, b += step) {
        const product_lanes b_low = load_lanes(b), b_high = load_lanes(b + 4);
#pragma GCC unroll 4
        for (size_t i = 0; i < PRODUCT_ROWS; i++) {
            low[i] += a[i * rows.row] * b_low;
            high[i] += a[i * rows.row] * b_high;
        }
    }
#pragma GCC unroll 4
    for (size_t i = 0; i < PRODUCT_ROWS; i++) {
        memcpy(c + i * stride, &low[i], sizeof low[i]);
        memcpy(c + i * stride + 4, &high[i], sizeof high[i]);
    }
}

#endif
