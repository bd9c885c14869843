/* rounding.c: int8 weights whose rounding errors cancel for known inputs.
 * In:  rows of floats; the factor of h, the sum over inputs x of x[i] * x[j] (triangle.c).
 * Out: integers, and one scale per row.
 *
 * A row w is rounded to q. For the errors e = w - q, the sum of (e . x)^2 over all inputs is e h
 * e'. With h = (U + I) D (U + I)', where U is strictly upper triangular and D diagonal,
 *
 *     e h e' = sum_k D[k] * (e[k] + sum_{j<k} e[j] * U[j, k])^2
 *
 * so q[k] is w[k] + sum_{j<k} e[j] * U[j, k], rounded. This is GPTQ (Frantar et al. 2022) in the
 * form of LDLQ (QuIP: Chee et al. 2023). */
#include "convert/rounding.h"

#include "convert/products.h"
#include "model/matrix.h"

#include <assert.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

static float round_scaled(float x)
{
    const float q = rintf(x);
    return q > 127 ? 127 : q < -127 ? -127 : q;
}

/* made_up[r] += shares[j] * errors[j, r] for ascending j in [begin, end). */
static void add_shares(float *made_up, const float *shares, const float *errors, size_t begin,
                       size_t end)
{
    for (size_t j = begin; j < end; j++)
        for (size_t r = 0; r < ROUNDING_ROWS; r++)
            made_up[r] += shares[j] * errors[j * ROUNDING_ROWS + r];
}

/* n rows together, n <= ROUNDING_ROWS. What PRODUCT_ROWS weights make up for of the errors before
 * them is computed together; each sum has one order. */
static void round_rows(const float *factor, const float *w, int n, size_t cols, int8_t *q,
                       const float *scales, float *errors)
{
    for (size_t first = 0; first < cols; first += PRODUCT_ROWS) {
        float made_up[PRODUCT_ROWS][ROUNDING_ROWS] = { 0 };
        const size_t n_cols = cols - first < PRODUCT_ROWS ? cols - first : PRODUCT_ROWS;
        const bool is_whole = n_cols == PRODUCT_ROWS;
        const struct product_rows shares = { factor + first * cols, cols, 1 };
        for (size_t r = 0; r < ROUNDING_ROWS && is_whole; r += PRODUCT_COLS)
            add_products(made_up[0] + r, ROUNDING_ROWS, shares, errors + r, ROUNDING_ROWS, first);
        for (size_t i = 0; i < n_cols; i++) {
            const size_t k = first + i;
            add_shares(made_up[i], factor + k * cols, errors, is_whole ? first : 0, k);
            for (size_t r = 0; r < (size_t)n; r++) {
                const float weight = w[r * cols + k];
                const float rounded = round_scaled((weight + made_up[i][r]) / scales[r]);
                q[r * cols + k] = (int8_t)rounded;
                errors[k * ROUNDING_ROWS + r] = weight - rounded * scales[r];
            }
        }
    }
}

bool qp_quantize_i8_for(const float *factor, const float *w, int64_t rows, int64_t cols, int8_t *q,
                        float *scales, float *errors)
{
    assert(rows >= 0 && cols > 0);
    for (int64_t r = 0; r < rows; r++) {
        const float bound = qp_row_bound(w + r * cols, cols);
        if (bound < 0)
            return false;
        scales[r] = bound / 127 > 0 ? bound / 127 : 1;
    }
    memset(errors, 0, (size_t)cols * ROUNDING_ROWS * sizeof *errors);
    for (int64_t r = 0; r < rows; r += ROUNDING_ROWS) {
        const int n = rows - r < ROUNDING_ROWS ? (int)(rows - r) : ROUNDING_ROWS;
        round_rows(factor, w + r * cols, n, (size_t)cols, q + r * cols, scales + r, errors);
    }
    return true;
}
