/* rounding.c: int8 weights whose rounding errors cancel for known inputs.
 * In:  rows of floats; h, the sum over inputs x of x[i] * x[j].
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

#include "model/matrix.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

/* Added to the diagonal, relative to its mean: the few inputs are not all that there are. 0.01 is
 * too little: texts of other kinds gain less (all-MiniLM-L6-v2). */
#define DAMPING 0.1f

bool qp_rounding_factor(float *h, int n)
{
    const size_t width = (size_t)n;
    double sum = 0;
    for (size_t i = 0; i < width; i++)
        sum += (double)h[i * width + i];
    const float mean = (float)(sum / n), damping = mean > 0 ? mean * DAMPING : 1;
    for (size_t i = 0; i < width; i++)
        h[i * width + i] += damping;
    for (size_t k = width; k-- > 0;) {
        float *row = h + k * width; // row k of U', multiplied by D[k]
        const float d = row[k];
        if (!(d > 0 && d <= FLT_MAX))
            return false;
        for (size_t i = 0; i < k; i++) {
            float *to = h + i * width;
            const float factor = row[i] / d;
            for (size_t j = 0; j <= i; j++)
                to[j] -= factor * row[j];
        }
        for (size_t j = 0; j < k; j++)
            row[j] /= d;
    }
    return true;
}

static float round_scaled(float x)
{
    const float q = rintf(x);
    return q > 127 ? 127 : q < -127 ? -127 : q;
}

/* n rows together, n <= ROUNDING_ROWS: the inner loop is over rows, so that each sum has one order.
 */
static void round_rows(const float *factor, const float *w, int n, size_t cols, int8_t *q,
                       const float *scales, float *errors)
{
    for (size_t k = 0; k < cols; k++) {
        const float *shares = factor + k * cols;
        float made_up[ROUNDING_ROWS] = { 0 };
        for (size_t j = 0; j < k; j++)
            for (size_t r = 0; r < ROUNDING_ROWS; r++)
                made_up[r] += shares[j] * errors[j * ROUNDING_ROWS + r];
        for (size_t r = 0; r < (size_t)n; r++) {
            const float weight = w[r * cols + k];
            const float rounded = round_scaled((weight + made_up[r]) / scales[r]);
            q[r * cols + k] = (int8_t)rounded;
            errors[k * ROUNDING_ROWS + r] = weight - rounded * scales[r];
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
