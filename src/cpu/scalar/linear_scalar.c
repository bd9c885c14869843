/* linear_scalar.c: matrix products in plain C, the specification of every other linear_* and gemv_*
 * file.
 * In:  weights as the file has them (int8, int4, block-wise int4 or float rows); activations in
 * int8 blocks with a scale each, or as floats.
 * Out: a sum for each output row and token, in the order that kernels.h defines.
 *
 * Ranges: |w| <= 128 and |q| <= 127, so the dot product of a block of 64 stays below 2^20. It is
 * exact as int32 and as float. Only two steps round: sum = sum + scale_b * dot_b, for ascending b,
 * then y = sum * scale_row (+ bias).
 *
 * Tile, layout i8x1: [TILE_ROWS][n_in rounded up to ACT_BLOCK] int8, zeros at the end of a row. */
#include "cpu/scalar/scalar.h"
#include "format/dtype.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <string.h>

/* ---- activations ---- */

/* A NaN loses every comparison, so it is never the maximum and the clamp makes it 127. 127 /
 * largest is limited to FLT_MAX: in a block of denormals it would be infinite, and 0 * infinity is
 * a NaN. */
static int8_t quantize_one(float x, float inverse)
{
    float v = x * inverse;
    v = v < 127.0f ? v : 127.0f;
    v = v > -127.0f ? v : -127.0f;
    return (int8_t)lrintf(v);
}

static void quantize_block(int8_t *q, float *scale, int32_t *offset, const float *x, int n)
{
    float largest = 0.0f;
    for (int i = 0; i < n; i++)
        largest = fabsf(x[i]) > largest ? fabsf(x[i]) : largest;
    *scale = largest / 127.0f;
    memset(q, 0, ACT_BLOCK);

    float inverse = 127.0f / largest; // infinite if all are zero
    inverse = inverse < FLT_MAX ? inverse : FLT_MAX;
    int sum = 0;
    for (int i = 0; i < n; i++) {
        q[i] = quantize_one(x[i], inverse);
        sum += q[i];
    }
    *offset = -128 * sum;
}

/* For each block of x [n]: scale = max|x| / 127 and q = round(x * (127 / max|x|)), both 0 if the
 * block is all zero; offset = -128 * the sum of q. q is written in whole blocks. Rounds to nearest,
 * ties to even. Infinities and NaNs give some q in [-127, 127], the same one on every ISA. */
static void quantize_scalar(int8_t *q, float *scales, int32_t *offsets, const float *x, int n)
{
    assert(q && scales && offsets && x && n > 0);
    for (int i = 0, b = 0; i < n; i += ACT_BLOCK, b++) {
        int n_block = n - i < ACT_BLOCK ? n - i : ACT_BLOCK;
        quantize_block(q + i, scales + b, offsets + b, x + i, n_block);
    }
}

/* The same with one scale for all n elements, which is finite. Writes q[0, n) only. */
static void quantize_row_scalar(int8_t *q, float *scale, const float *x, int n)
{
    assert(q && scale && x && n > 0);
    float largest = 0.0f;
    for (int i = 0; i < n; i++)
        largest = fabsf(x[i]) > largest ? fabsf(x[i]) : largest;
    largest = largest < FLT_MAX ? largest : FLT_MAX;
    *scale = largest / 127.0f;
    float inverse = 127.0f / largest;
    inverse = inverse < FLT_MAX ? inverse : FLT_MAX;
    for (int i = 0; i < n; i++)
        q[i] = quantize_one(x[i], inverse);
}

/* ---- integer weights ---- */

/* sum + (over the blocks b of a row, ascending) scales[b] * dot_b */
static float row_dot_i8(float sum, const int8_t *w, const int8_t *q, const float *scales, int n_in)
{
    for (int i = 0, b = 0; i < n_in; i += ACT_BLOCK, b++) {
        int end = n_in - i < ACT_BLOCK ? n_in : i + ACT_BLOCK;
        int32_t dot = 0;
        for (int j = i; j < end; j++) {
            assert(q[j] >= -127);
            dot += w[j] * q[j];
        }
        sum += scales[b] * (float)dot;
    }
    return sum;
}

/* Two weights in a byte, the first one in the low nibble, stored plus 8. */
static float row_dot_i4(const uint8_t *w, const int8_t *q, const float *scales, int n_in)
{
    float sum = 0.0f;
    for (int i = 0, b = 0; i < n_in; i += ACT_BLOCK, b++) {
        int end = n_in - i < ACT_BLOCK ? n_in : i + ACT_BLOCK;
        int32_t dot = 0;
        for (int j = i; j < end; j += 2) {
            dot += ((w[j / 2] & 15) - 8) * q[j];
            dot += ((w[j / 2] >> 4) - 8) * q[j + 1];
        }
        sum += scales[b] * (float)dot;
    }
    return sum;
}

/* A 4-bit code and the multiplier of its block of 16 weights give an int8 value. */
static float row_dot_i4_block(const uint8_t *w, const uint8_t *multipliers, const int8_t *q,
                              const float *scales, int n_in)
{
    float sum = 0.0f;
    for (int i = 0, b = 0; i < n_in; i += ACT_BLOCK, b++) {
        int end = n_in - i < ACT_BLOCK ? n_in : i + ACT_BLOCK;
        int32_t dot = 0;
        for (int j = i; j < end; j += 2) {
            const int8_t *values = qp_i4_block_values[qp_block_multiplier(multipliers, j)];
            dot += values[w[j / 2] & 15] * q[j];
            dot += values[w[j / 2] >> 4] * q[j + 1];
        }
        sum += scales[b] * (float)dot;
    }
    return sum;
}

static float row_finish(float sum, const struct matrix *w, int r)
{
    float y = sum * w->scales[r];
    return w->bias ? y + w->bias[r] : y;
}

/* y[r] = (sum over blocks b, ascending from 0.0f, of x->scales[b] * (float)dot_b) * w->scales[r]
 * (+ w->bias[r]), for rows [begin, end). dot_b is the sum of w[r, i] * x->q[i] over block b. Any
 * n_in >= 1, no alignment. Reads no byte outside the rows, q in whole blocks. */
static void gemv_i8_scalar(float *y, const struct matrix *w, const struct act_rows *x, int begin,
                           int end)
{
    assert(w->dtype == DTYPE_I8 && w->scales && qp_has_rows(w, begin, end));
    assert(x->n == 1 && qp_is_act_rows(x, w->n_in));
    for (int r = begin; r < end; r++) {
        float sum = row_dot_i8(0.0f, qp_matrix_row(w, r), x->q, x->scales, w->n_in);
        y[r] = row_finish(sum, w, r);
    }
}

/* The same for int4: n_in is even, |w| <= 8. */
static void gemv_i4_scalar(float *y, const struct matrix *w, const struct act_rows *x, int begin,
                           int end)
{
    assert(w->dtype == DTYPE_I4 && w->n_in % 2 == 0 && w->scales && qp_has_rows(w, begin, end));
    assert(x->n == 1 && qp_is_act_rows(x, w->n_in));
    for (int r = begin; r < end; r++) {
        float sum = row_dot_i4(qp_matrix_row(w, r), x->q, x->scales, w->n_in);
        y[r] = row_finish(sum, w, r);
    }
}

/* The same for block-wise int4: n_in is even, the bits are those of gemv_i8 for the int8 values of
 * the codes (matrix.h). */
static void gemv_i4_block_scalar(float *y, const struct matrix *w, const struct act_rows *x,
                                 int begin, int end)
{
    assert(w->dtype == DTYPE_I4_BLOCK && w->n_in % 2 == 0 && w->scales && w->multipliers);
    assert(qp_has_rows(w, begin, end) && x->n == 1 && qp_is_act_rows(x, w->n_in));
    for (int r = begin; r < end; r++) {
        float sum = row_dot_i4_block(qp_matrix_row(w, r), qp_matrix_multipliers(w, r), x->q,
                                     x->scales, w->n_in);
        y[r] = row_finish(sum, w, r);
    }
}

/* ---- tiles ---- */

static size_t tile_bytes_scalar(int n_in)
{
    return TILE_ROWS * qp_round_up((size_t)n_in, ACT_BLOCK);
}

/* Row r as int8, to[n_in]. */
static void expand_row(int8_t *to, const struct matrix *w, int r)
{
    const uint8_t *row = qp_matrix_row(w, r);
    if (w->dtype == DTYPE_I8) {
        memcpy(to, row, (size_t)w->n_in);
        return;
    }
    static const int8_t plain[16] = { -8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7 };
    for (int i = 0; i < w->n_in; i += 2) {
        const int8_t *values =
            w->dtype == DTYPE_I4
                ? plain
                : qp_i4_block_values[qp_block_multiplier(qp_matrix_multipliers(w, r), i)];
        to[i] = values[row[i / 2] & 15];
        to[i + 1] = values[row[i / 2] >> 4];
    }
}

/* Rows [row, row + n_rows) of any integer type into tile [tile_bytes(n_in)], aligned to 64 bytes.
 */
static void pack_scalar(void *tile, const struct matrix *w, int row, int n_rows)
{
    assert(w->dtype != DTYPE_F32 && qp_is_tile(tile, w, row, n_rows));
    size_t stride = qp_round_up((size_t)w->n_in, ACT_BLOCK);
    for (int r = 0; r < n_rows; r++) {
        int8_t *to = (int8_t *)tile + (size_t)r * stride;
        expand_row(to, w, row + r);
        memset(to + w->n_in, 0, stride - (size_t)w->n_in);
    }
}

/* The same numbers as gemv, for every token and row [row, row + n_rows) of the tile:
 * out->y[t * out->stride + r], r in [0, n_rows). Without w->scales the sums are not scaled, have no
 * bias, and start from the y that is there: y = y + scales[0] * dot_0 + ... Of w only n_in, dtype,
 * scales and bias are read. */
static void gemm_scalar(const struct out_view *out, const void *tile, const struct matrix *w,
                        const struct act_rows *x, int row, int n_rows)
{
    assert(qp_is_tile(tile, w, row, n_rows) && qp_is_act_rows(x, w->n_in));
    const size_t stride = qp_round_up((size_t)w->n_in, ACT_BLOCK), n_blocks = stride / ACT_BLOCK;
    for (size_t t = 0; t < (size_t)x->n; t++) {
        const int8_t *q = x->q + t * x->q_stride;
        const float *scales = x->scales + t * n_blocks;
        for (int r = 0; r < n_rows; r++) {
            const int8_t *weights = (const int8_t *)tile + (size_t)r * stride;
            float *y = out->y + t * out->stride + r;
            float sum = row_dot_i8(w->scales ? 0.0f : *y, weights, q, scales, w->n_in);
            *y = w->scales ? row_finish(sum, w, row + r) : sum;
        }
    }
}

/* ---- float weights ---- */

/* 16 lanes, then the tree of kernels.h. A lane starts at +0 and can therefore never become -0, so a
 * vector version may add zeros past the end. */
static float row_dot_f32(const float *w, const float *x, int n_in)
{
    float lane[16] = { 0 };
    for (int i = 0; i < n_in; i++)
        lane[i % 16] += w[i] * x[i];
    for (int s = 8; s > 0; s /= 2)
        for (int j = 0; j < s; j++)
            lane[j] += lane[j + s];
    return lane[0];
}

/* out->y[t * out->stride + r - begin] = sum over 16 lanes of w[r, i] * x[t, i] (+ w->bias[r]), for
 * rows [begin, end). */
static void gemm_f32_scalar(const struct out_view *out, const struct matrix *w,
                            const struct f32_rows *x, int begin, int end)
{
    assert(w->dtype == DTYPE_F32 && qp_has_rows(w, begin, end) && x->x && x->n > 0);
    for (int r = begin; r < end; r++) {
        const float *row = qp_matrix_row(w, r);
        for (size_t t = 0; t < (size_t)x->n; t++) {
            float sum = row_dot_f32(row, x->x + t * x->stride, w->n_in);
            out->y[t * out->stride + (size_t)(r - begin)] = w->bias ? sum + w->bias[r] : sum;
        }
    }
}

/* The same for one token: y[r]. */
static void gemv_f32_scalar(float *y, const struct matrix *w, const float *x, int begin, int end)
{
    gemm_f32_scalar(&(struct out_view){ .y = y + begin }, w, &(struct f32_rows){ .x = x, .n = 1 },
                    begin, end);
}

/* ---- one row as floats ---- */

/* y[i] = ((float)q * w->scales[r]) * factor for int8 and int4, w[r, i] * factor for floats; y
 * [n_in].
 */
static void dequantize_row_scalar(float *y, const struct matrix *w, int r, float factor)
{
    assert(y && qp_has_rows(w, r, r + 1));
    const uint8_t *row = qp_matrix_row(w, r);
    if (w->dtype == DTYPE_F32) {
        const float *from = qp_matrix_row(w, r);
        for (int i = 0; i < w->n_in; i++)
            y[i] = from[i] * factor;
    } else if (w->dtype == DTYPE_I8) {
        for (int i = 0; i < w->n_in; i++)
            y[i] = (float)(int8_t)row[i] * w->scales[r] * factor;
    } else {
        for (int i = 0; i < w->n_in; i++) {
            int nibble = i % 2 ? row[i / 2] >> 4 : row[i / 2] & 15;
            int q = w->dtype == DTYPE_I4
                        ? nibble - 8
                        : qp_i4_block_values[qp_block_multiplier(qp_matrix_multipliers(w, r), i)]
                                            [nibble];
            y[i] = (float)q * w->scales[r] * factor;
        }
    }
}

void qp_linear_kernels_scalar(struct kernels *k)
{
    k->quantize = quantize_scalar;
    k->gemv_i8 = gemv_i8_scalar;
    k->gemv_i4 = gemv_i4_scalar;
    k->gemv_i4_block = gemv_i4_block_scalar;
    k->gemv_f32 = gemv_f32_scalar;
    k->few_tokens = 3;
    k->task_tokens = TASK_ROWS; // of 6 tokens, and of 16
    k->quantize_row = quantize_row_scalar;
    k->tile_bytes = tile_bytes_scalar;
    k->tile_order = (struct tile_order){ 1, ACT_BLOCK, 1, ACT_BLOCK, 1, 0 };
    k->pack = pack_scalar;
    k->gemm = gemm_scalar;
    k->gemm_f32 = gemm_f32_scalar;
    k->dequantize_row = dequantize_row_scalar;
}
