/* quantize.c: rows of float weights -> integers and one scale per row, bit for bit as the original
 * converter does it (float32 arithmetic throughout).
 *
 *     scale = max|w| / 127 (int4: / 7), 1 when that is 0
 *     q     = clip(round_half_even(w / scale))
 *
 * Invariant: the largest magnitude of a row maps to +-127 (+-7), so -128 (-8) does not occur. */
#include "convert/convert_impl.h"

#include <float.h>
#include <math.h>

/* max|w|, or -1 when a value is not finite. */
static float row_bound(const float *w, int64_t n)
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
        float bound = row_bound(w, cols);
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
    for (int64_t r = 0; r < rows; r++, w += cols, q += cols / 2) {
        float bound = row_bound(w, cols);
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
