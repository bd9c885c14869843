/* quantize.c: quantization of weights, bit for bit as MediaPipe's converter does it.
 * In:  rows of floats.
 * Out: integers, and one scale per row. All arithmetic is float32.
 *
 *     scale = max|w| / 127 (int4: / 7), 1 when that is 0
 *     q     = clip(round_half_even(w / scale))
 *
 * Invariant: the largest magnitude of a row maps to +-127 (+-7), so -128 (-8) does not occur.
 * Asymmetric rows map their smallest value to -128 (-8) and their largest to 127 (7); the scheme
 * called MSE computes the scale from the root mean square. */
#include "model/matrix.h"

#include <assert.h>
#include <float.h>
#include <math.h>

float qp_row_bound(const float *w, int64_t n)
{
    float bound = 0;
    int n_finite = 0;
    for (int64_t i = 0; i < n; i++) {
        float a = fabsf(w[i]);
        bound = a > bound ? a : bound;
        n_finite += a <= FLT_MAX;
    }
    return n_finite == n ? bound : -1;
}

/* Round half to even, |x| < 2^22: at 1.5 * 2^23 a float has no fraction bits left. */
static inline float round_even(float x)
{
    const float magic = 12582912.0f;
    return (x + magic) - magic;
}

static inline int quantized(float w, float scale, int max)
{
    float q = round_even(w / scale);
    if (q > (float)max)
        q = (float)max;
    if (q < (float)(-max - 1))
        q = (float)(-max - 1);
    return (int)q;
}

static inline float scale_of(float bound, int max)
{
    float scale = bound / (float)max;
    return scale == 0 ? 1 : scale;
}

bool qp_quantize_i8(const float *w, int64_t rows, int64_t cols, int8_t *q, float *scales)
{
    for (int64_t r = 0; r < rows; r++, w += cols, q += cols) {
        float bound = qp_row_bound(w, cols);
        if (bound < 0)
            return false;
        scales[r] = scale_of(bound, 127);
        for (int64_t i = 0; i < cols; i++)
            q[i] = (int8_t)quantized(w[i], scales[r], 127);
    }
    return true;
}

bool qp_quantize_i4(const float *w, int64_t rows, int64_t cols, uint8_t *q, float *scales)
{
    assert(cols % 2 == 0);
    for (int64_t r = 0; r < rows; r++, w += cols, q += cols / 2) {
        float bound = qp_row_bound(w, cols);
        if (bound < 0)
            return false;
        scales[r] = scale_of(bound, 7);
        for (int64_t i = 0; i < cols; i += 2) {
            int low = quantized(w[i], scales[r], 7) + 8;
            int high = quantized(w[i + 1], scales[r], 7) + 8;
            q[i / 2] = (uint8_t)(low | high << 4);
        }
    }
    return true;
}

/* ---- MediaPipe's other schemes ---- */

/* Store integer i of a row in the file's layout. */
static void put_integer(void *row, int64_t i, int bits, int value)
{
    uint8_t *byte = (uint8_t *)row + (bits == 8 ? i : i / 2);
    if (bits == 8)
        *byte = (uint8_t)value;
    else
        *byte = (uint8_t)(i % 2 ? *byte | (value + 8) << 4 : value + 8);
}

/* clip(round(x + shift)), in float32. A sum beyond 2^22 is not rounded, only clipped. */
static int shifted(float x, float shift, float min, float max)
{
    float q = round_even(x + shift);
    q = q > max ? max : q;
    return (int)(q < min ? min : q);
}

bool qp_quantize_asymmetric(const float *w, int64_t rows, int64_t cols, int bits, void *q,
                            float *scales, float *zeros)
{
    assert((bits == 8 || bits == 4) && cols > 0 && cols * bits % 8 == 0);
    const float q_min = bits == 8 ? -128 : -8, q_max = bits == 8 ? 127 : 7;
    for (int64_t r = 0; r < rows; r++, w += cols) {
        float min = w[0], max = w[0];
        if (qp_row_bound(w, cols) < 0)
            return false;
        for (int64_t i = 1; i < cols; i++) {
            min = w[i] < min ? w[i] : min;
            max = w[i] > max ? w[i] : max;
        }
        float scale = (max - min) / (q_max - q_min);
        if (!(scale <= FLT_MAX)) // the range does not fit in a float
            return false;
        scale = scale == 0 ? 1 : scale;
        const float zero = q_min - min / scale;
        for (int64_t i = 0; i < cols; i++)
            put_integer((uint8_t *)q + r * cols * bits / 8, i, bits,
                        shifted(w[i] / scale, zero, q_min, q_max));
        scales[r] = scale;
        // MediaPipe stores zero * scale and divides later, which does not always give zero again
        zeros[r] = zero * scale / scale;
    }
    return true;
}

/* The steps are MediaPipe's, best for normally distributed weights. */
bool qp_quantize_mse(const float *w, int64_t rows, int64_t cols, int bits, void *q, float *scales)
{
    assert((bits == 8 || bits == 4) && cols > 0 && cols * bits % 8 == 0);
    const float step = bits == 8 ? 0.05408f : 0.37755f, half = bits == 8 ? 127 : 7;
    for (int64_t r = 0; r < rows; r++, w += cols) {
        double sum = 0;
        if (qp_row_bound(w, cols) < 0)
            return false;
        for (int64_t i = 0; i < cols; i++)
            sum += (double)w[i] * (double)w[i];
        const float scale = step * (float)sqrt(sum / (double)cols) + 1e-12f;
        for (int64_t i = 0; i < cols; i++)
            put_integer((uint8_t *)q + r * cols * bits / 8, i, bits,
                        shifted(w[i] / scale, half, 0, 2 * half) - (int)half);
        scales[r] = scale;
    }
    return true;
}
