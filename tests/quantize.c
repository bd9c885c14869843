/* quantize.c (test): float rows -> int8 and int4 rows. Compares with known answers, and bit for bit
 * with every matrix that MediaPipe's converter wrote from the same checkpoint. Compares the error
 * of block-wise int4, and of int8 for known inputs, with that of simpler schemes. */
#include "convert/quantize_block.h"
#include "convert/rounding.h"
#include "convert/store.h"
#include "convert/triangle.h"
#include "model/matrix.h"
#include "model/model.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/check.h"
#include "support/shared.h"
#include "support/tensors.h"

/* ---- known answers ---- */

static void test_known_answers(void **state)
{
    (void)state;
    const float w[] = { 1, -1, 2, -2 };
    const int8_t q8[] = { 64, -64, 127, -127 }; // 63.5 rounds to even
    int8_t q[4];
    float scale;
    assert_true(qp_quantize_i8(w, 1, 4, q, &scale));
    assert_true(scale == 2.0f / 127.0f);
    assert_memory_equal(q, q8, 4);

    uint8_t packed[2];
    assert_true(qp_quantize_i4(w, 1, 4, packed, &scale));
    assert_true(scale == 2.0f / 7.0f);
    // 3.4999998 in float32 -> 3, -3, 7, -7; plus 8; low nibble first
    assert_int_equal(packed[0], 11 | 5 << 4);
    assert_int_equal(packed[1], 15 | 1 << 4);
}

static void test_zero_rows_have_scale_one(void **state)
{
    (void)state;
    const float w[] = { 0, -0.0f, 0, 0, 1e-45f, 0, 0, 0 };
    int8_t q[8];
    float scales[2];
    uint8_t packed[4];
    assert_true(qp_quantize_i8(w, 2, 4, q, scales));
    assert_true(scales[0] == 1 && scales[1] == 1); // the smallest float over 127 is 0 too
    for (int i = 0; i < 8; i++)
        assert_int_equal(q[i], 0);
    assert_true(qp_quantize_i4(w, 1, 4, packed, scales));
    assert_true(scales[0] == 1);
    assert_int_equal(packed[0], 0x88);
}

static void test_each_row_has_its_scale(void **state)
{
    (void)state;
    const float w[] = { 127, 1, 0.5f, -254, 2, 3 };
    int8_t q[6];
    float scales[2];
    const int8_t expected[] = { 127, 1, 0, -127, 1, 2 };
    assert_true(qp_quantize_i8(w, 2, 3, q, scales));
    assert_true(scales[0] == 1 && scales[1] == 2);
    assert_memory_equal(q, expected, 6); // 0.5 and 1.5: to even
}

static void test_extremes(void **state)
{
    (void)state;
    const float largest[] = { 3.4e38f, -3.4e38f, 1e-38f, 0 };
    const float bad[][2] = { { NAN, 1 }, { 1, NAN }, { INFINITY, 0 }, { 0, -INFINITY } };
    int8_t q[4];
    uint8_t packed[2];
    float scale;
    assert_true(qp_quantize_i8(largest, 1, 4, q, &scale));
    assert_int_equal(q[0], 127);
    assert_int_equal(q[1], -127);
    for (size_t i = 0; i < QP_COUNT(bad); i++) {
        assert_false(qp_quantize_i8(bad[i], 1, 2, q, &scale));
        assert_false(qp_quantize_i4(bad[i], 1, 2, packed, &scale));
    }
}

/* Asymmetric rows use the full range; the zero point is not rounded. */
static void test_asymmetric(void **state)
{
    (void)state;
    const float w[] = { -1, 0, 1, 4, 2, 2, 2, 2 }; // steps of 1/51 and 1/3; a row of one value
    int8_t q[8];
    uint8_t packed[4];
    float scales[2], zeros[2];
    assert_true(qp_quantize_asymmetric(w, 2, 4, 8, q, scales, zeros));
    assert_true(scales[0] == 5.0f / 255 && scales[1] == 1);
    assert_int_equal(q[0], -128);
    assert_int_equal(q[1], -77);
    assert_int_equal(q[3], 127);
    assert_true(((float)q[4] - zeros[1]) * scales[1] == 2);
    assert_true(qp_quantize_asymmetric(w, 1, 4, 4, packed, scales, zeros));
    assert_true(scales[0] == 1.0f / 3 && zeros[0] == -5);
    assert_int_equal(packed[0], 0 | 3 << 4);  // -8, -5
    assert_int_equal(packed[1], 6 | 15 << 4); // -2, 7
    const float far[] = { 3e38f, -3e38f };
    assert_false(qp_quantize_asymmetric(far, 1, 2, 8, q, scales, zeros));
}

static void test_mean_square(void **state)
{
    (void)state;
    const float w[] = { 1, -1, 1, -1, 100, 0, 0, 0 }; // the mean square is 1; 2500
    int8_t q[8];
    uint8_t packed[8];
    float scales[2];
    assert_true(qp_quantize_mse(w, 2, 4, 8, q, scales));
    assert_true(scales[0] == 0.05408f + 1e-12f);
    assert_int_equal(q[0], 18); // 18.49
    assert_int_equal(q[1], -18);
    assert_int_equal(q[4], 37); // 36.98: nothing is clipped
    assert_true(qp_quantize_mse(w, 2, 4, 4, packed, scales));
    assert_int_equal(packed[0], 11 | 5 << 4); // 2.65 and its negative
    assert_int_equal(packed[2], 13 | 8 << 4); // 5.3
    const float one[16] = { [3] = -100 };     // the mean square is 25^2
    assert_true(qp_quantize_mse(one, 1, 16, 4, packed, scales));
    assert_int_equal(packed[1] >> 4, 1); // -10.6, clipped to -7
}

/* Every binary16 number, the midpoints between neighbours, and the floats next to them. */
static void test_halves(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 0x7c00; bits++) {
        uint8_t bytes[2] = { (uint8_t)bits, (uint8_t)(bits >> 8) };
        const float x = qp_half_value(bytes);
        bytes[0] = (uint8_t)(bits + 1);
        bytes[1] = (uint8_t)((bits + 1) >> 8);
        const float next = bits == 0x7bff ? 65536 : qp_half_value(bytes), middle = (x + next) / 2;
        assert_int_equal(qp_half_bits(x), bits);
        assert_int_equal(qp_half_bits(-x), bits | 0x8000);
        assert_int_equal(qp_half_bits(middle), bits + bits % 2);
        assert_int_equal(qp_half_bits(nextafterf(middle, 0)), bits);
        assert_int_equal(qp_half_bits(nextafterf(middle, INFINITY)), bits + 1);
    }
    assert_int_equal(qp_half_bits(INFINITY), 0x7c00);
    assert_int_equal(qp_half_bits(1e30f), 0x7c00);
    assert_int_equal(qp_half_bits(NAN) & 0x7fff, 0x7e00);
}

/* The rounding trick is equal to the rounding of the C library. */
static void test_rounding(void **state)
{
    (void)state;
    uint32_t seed = 1;
    for (int round = 0; round < 20000; round++) {
        float w[8], scale;
        int8_t q[8];
        for (int i = 0; i < 8; i++) {
            seed = seed * 1664525u + 1013904223u;
            w[i] = (float)(int32_t)seed / (float)(1 << (seed >> 8 & 15));
        }
        assert_true(qp_quantize_i8(w, 1, 8, q, &scale));
        for (int i = 0; i < 8; i++)
            assert_int_equal(q[i], (int)nearbyintf(w[i] / scale));
    }
}

/* ---- MediaPipe's files ---- */

struct opened {
    struct file file;
    struct format format;
};

static void open_shared(struct opened *o, const char *name)
{
    quip_error error = { 0 };
    need_shared(name);
    if (qp_file_open(&o->file, shared_path(name), &error) ||
        qp_format_open(&o->format, &o->file, &error))
        fail_msg("%s", error.message);
}

static void close_shared(struct opened *o)
{
    qp_format_close(&o->format);
    qp_file_close(&o->file);
}

/* Quantize one source matrix to the stored type, and compare bytes and scales. */
static void compare_matrix(struct opened *model, const struct tensor *stored,
                           const struct opened *source, const struct tensor *w)
{
    size_t rows = (size_t)w->dims[0], cols = (size_t)w->dims[1];
    char scale_name[200];
    snprintf(scale_name, sizeof scale_name, "%s_quantized_scale", stored->name);
    const struct tensor *scale = qp_format_find(&model->format, scale_name);
    assert_non_null(scale);
    const uint8_t *want, *want_scales;
    assert_int_equal(qp_format_tensor_bytes(&model->format, stored, &want, NULL), 0);
    assert_int_equal(qp_format_tensor_bytes(&model->format, scale, &want_scales, NULL), 0);

    float *values = malloc(rows * cols * sizeof *values), *scales = malloc(rows * sizeof *scales);
    uint8_t *q = malloc(rows * cols);
    assert_int_equal(qp_format_read_f32(&source->format, w, 0, rows * cols, values, NULL), 0);
    if (stored->dtype == DTYPE_I8)
        assert_true(qp_quantize_i8(values, (int64_t)rows, (int64_t)cols, (int8_t *)q, scales));
    else
        assert_true(qp_quantize_i4(values, (int64_t)rows, (int64_t)cols, q, scales));
    assert_memory_equal(q, want, stored->n_bytes);
    assert_memory_equal(scales, want_scales, rows * sizeof *scales);
    free(values);
    free(scales);
    free(q);
}

/* Compare every matrix of the file that is in the tables. Returns their number. */
static int compare_file(const char *model_name, const char *source_name, enum family_id family)
{
    struct opened model = { 0 }, source = { 0 };
    open_shared(&model, model_name);
    open_shared(&source, source_name);
    int n = 0;
    for (int i = 0; i < qp_n_tensor_rows; i++)
        for (int l = 0; l < (qp_tensor_row_is_layered(&qp_tensor_rows[i]) ? 8 : 1); l++) {
            const struct tensor_row *row = &qp_tensor_rows[i];
            char target[160] = "params.lm.", name[160];
            const bool is_tied = true; // all of these checkpoints
            if (!family_has_row(i, qp_family(family), is_tied))
                continue;
            snprintf(target + 10, sizeof target - 10, row->target, l);
            snprintf(name, sizeof name, row->hf, l);
            const struct tensor *t = qp_format_find(&model.format, target);
            const struct tensor *w = qp_format_find(&source.format, name);
            if (!t || t->dtype == DTYPE_F32)
                continue;
            assert_non_null(w);
            compare_matrix(&model, t, &source, w);
            n++;
        }
    close_shared(&model);
    close_shared(&source);
    return n;
}

static void test_original_files(void **state)
{
    (void)state;
    static const struct {
        const char *model, *source;
        enum family_id family;
    } files[] = {
        { "GEMMA_2B-cpu-q8", "GEMMA_2B", FAMILY_GEMMA },
        { "GEMMA_2B-cpu-q4", "GEMMA_2B", FAMILY_GEMMA },
        { "GEMMA_2B-cpu-a8f4e4", "GEMMA_2B", FAMILY_GEMMA },
        { "GEMMA_2B-cpu-a8f4e8", "GEMMA_2B", FAMILY_GEMMA },
        { "GEMMA2_2B-cpu-q8", "GEMMA2_2B", FAMILY_GEMMA2 },
        { "GEMMA2_2B-cpu-q4", "GEMMA2_2B", FAMILY_GEMMA2 },
        { "GEMMA2_2B-cpu-a8f4e4", "GEMMA2_2B", FAMILY_GEMMA2 },
    };
    for (size_t i = 0; i < QP_COUNT(files); i++) {
        char model[100], source[100];
        snprintf(model, sizeof model, "data/interop/%s/model.bin", files[i].model);
        snprintf(source, sizeof source, "data/interop/sources/%s/model.safetensors",
                 files[i].source);
        int n = compare_file(model, source, files[i].family);
        print_message("%s: %d matrices equal\n", files[i].model, n);
        assert_true(n >= 1 + 7 * 2);
    }
}

/* ---- block-wise int4 ---- */

enum {
    BLOCK_ROWS = 24,
    BLOCK_COLS = 200 // the last block has 8 of 16
};

/* The values of BLOCK_ROWS rows, as a model reads them. */
static void read_blocks(float *values, const uint8_t *codes, const uint8_t *multipliers,
                        const float *scales)
{
    const struct matrix m = { .dtype = DTYPE_I4_BLOCK,
                              .n_out = BLOCK_ROWS,
                              .n_in = BLOCK_COLS,
                              .row_bytes = BLOCK_COLS / 2,
                              .data = codes,
                              .scales = scales,
                              .multipliers = multipliers };
    for (int r = 0; r < BLOCK_ROWS; r++)
        qp_matrix_read_row(&m, r, values + r * BLOCK_COLS);
}

/* Rows like real weights: nearly normal, of different sizes, some with outliers. */
static void fill_weights(float *w)
{
    uint32_t state = 12345;
    for (int i = 0; i < BLOCK_ROWS * BLOCK_COLS; i++) {
        float sum = 0;
        for (int k = 0; k < 6; k++) {
            state = state * 1664525u + 1013904223u;
            sum += (float)(state >> 8) * 0x1p-24f - 0.5f;
        }
        const int row = i / BLOCK_COLS;
        w[i] = sum * (float)(1 + row) * 0.01f * (row % 3 == 0 && state >> 24 == 0 ? 8 : 1);
    }
}

static double squared_error(const float *a, const float *b, const float *importance)
{
    double sum = 0;
    for (int i = 0; i < BLOCK_ROWS * BLOCK_COLS; i++) {
        const double d = (double)a[i] - (double)b[i];
        sum += d * d * (importance ? (double)importance[i % BLOCK_COLS] : 1);
    }
    return sum;
}

/* The error of Q4_0: 4 bits with a float scale per 32 values, computed from the largest. */
static double error_of_q4_0(const float *w)
{
    double error = 0;
    for (int r = 0; r < BLOCK_ROWS; r++, w += BLOCK_COLS)
        for (int begin = 0; begin < BLOCK_COLS; begin += 32) {
            const int end = begin + 32 < BLOCK_COLS ? begin + 32 : BLOCK_COLS;
            float largest = 0;
            for (int i = begin; i < end; i++)
                largest = fabsf(w[i]) > fabsf(largest) ? w[i] : largest;
            const float d = largest / -8;
            for (int i = begin; i < end; i++) {
                const float q = fminf(floorf(w[i] / d + 8.5f), 15);
                error += pow((double)(w[i] - (q - 8) * d), 2);
            }
        }
    return error;
}

static void test_blocks(void **state)
{
    (void)state;
    static float w[BLOCK_ROWS * BLOCK_COLS], values[BLOCK_ROWS * BLOCK_COLS];
    float scales[BLOCK_ROWS], importance[BLOCK_COLS];
    uint8_t codes[BLOCK_ROWS * BLOCK_COLS / 2], multipliers[BLOCK_ROWS * 8];
    assert_int_equal(qp_multiplier_bytes(BLOCK_COLS), 8);
    fill_weights(w);
    assert_true(qp_quantize_i4_block(w, NULL, BLOCK_ROWS, BLOCK_COLS, codes, multipliers, scales));
    read_blocks(values, codes, multipliers, scales);
    const double plain = squared_error(w, values, NULL);
    assert_true(plain < 0.75 * error_of_q4_0(w));

    // columns with more importance have less error
    for (int i = 0; i < BLOCK_COLS; i++)
        importance[i] = i % 4 ? 1 : 50;
    const double unweighted = squared_error(w, values, importance);
    assert_true(
        qp_quantize_i4_block(w, importance, BLOCK_ROWS, BLOCK_COLS, codes, multipliers, scales));
    read_blocks(values, codes, multipliers, scales);
    assert_true(squared_error(w, values, importance) < 0.8 * unweighted);
}

/* Values that block-wise int4 can represent are unchanged, up to the rounding of the scale. */
static void test_blocks_are_kept(void **state)
{
    (void)state;
    float w[128], scale;
    uint8_t codes[64], multipliers[4];
    for (int i = 0; i < 128; i++) // block b: all codes, with its own multiplier
        w[i] = (float)qp_i4_block_values[i / 16 == 0 ? 8 : i / 16][i % 16] * 0.25f;
    assert_true(qp_quantize_i4_block(w, NULL, 1, 128, codes, multipliers, &scale));
    for (int i = 0; i < 128; i++) {
        const int code = codes[i / 2] >> (i % 2 * 4) & 15;
        const float value =
            (float)qp_i4_block_values[qp_block_multiplier(multipliers, i)][code] * scale;
        assert_true(fabsf(value - w[i]) <= 1e-5f * 30);
    }
}

static void test_block_extremes(void **state)
{
    (void)state;
    static const float zeros[34];
    float w[34] = { 0 }, scale = 0;
    uint8_t codes[17], multipliers[4];
    assert_true(qp_quantize_i4_block(zeros, NULL, 1, 34, codes, multipliers, &scale));
    assert_true(scale == 1);
    for (int i = 0; i < 17; i++)
        assert_int_equal(codes[i], 0x88);
    static const float ends[] = { FLT_MAX, 1e-38f, 1e-45f };
    for (size_t e = 0; e < QP_COUNT(ends); e++) {
        w[1] = ends[e];
        w[33] = -ends[e];
        assert_true(qp_quantize_i4_block(w, NULL, 1, 34, codes, multipliers, &scale));
        assert_true(scale > 0 && scale <= FLT_MAX);
    }
    static const float wrong[] = { NAN, INFINITY, -INFINITY };
    for (size_t i = 0; i < QP_COUNT(wrong); i++) {
        w[20] = wrong[i];
        assert_false(qp_quantize_i4_block(w, NULL, 1, 34, codes, multipliers, &scale));
    }
}

/* ---- int8 for known inputs ---- */

enum {
    N_INPUTS = 40,
    KNOWN_ROWS = 37, // more than two groups of ROUNDING_ROWS, and a part of one
    KNOWN_COLS = 24
};

/* The sum over inputs x, rows r of ((w - q * scale) . x)^2. */
static double output_error(const float *w, const int8_t *q, const float *scales, const float *x)
{
    double sum = 0;
    for (int t = 0; t < N_INPUTS; t++)
        for (int r = 0; r < KNOWN_ROWS; r++) {
            double y = 0;
            for (int i = 0; i < KNOWN_COLS; i++) {
                const int at = r * KNOWN_COLS + i;
                const double e = (double)w[at] - q[at] * (double)scales[r];
                y += e * (double)x[t * KNOWN_COLS + i];
            }
            sum += y * y;
        }
    return sum;
}

static struct pool *open_pool(void)
{
    quip_error error;
    struct pool *pool;
    check(qp_pool_open(&pool, 3, false, &error), &error);
    return pool;
}

/* The factor of the inputs x [n_rows, n]. */
static void factor_of(float *h, const float *x, int n_rows, int n)
{
    struct triangle t;
    assert_true(qp_triangle_open(&t, n, open_pool()));
    qp_triangle_add(&t, x, n_rows);
    assert_true(qp_triangle_factor(&t, ROUNDING_DAMPING));
    memcpy(h, t.h, (size_t)(n * n) * sizeof *h);
    qp_pool_close(t.pool);
    qp_triangle_close(&t);
}

/* The same numbers, one after the other. */
static void factor_plainly(float *h, const float *x, int n_rows, int n)
{
    double sum = 0;
    memset(h, 0, (size_t)(n * n) * sizeof *h);
    for (int t = 0; t < n_rows; t++)
        for (int i = 0; i < n; i++)
            for (int j = 0; j <= i; j++)
                h[i * n + j] += x[t * n + i] * x[t * n + j];
    for (int i = 0; i < n; i++)
        sum += (double)h[i * n + i];
    for (int i = 0; i < n; i++)
        h[i * n + i] += (float)(sum / n) * ROUNDING_DAMPING;
    for (int k = n - 1; k >= 0; k--) {
        for (int i = 0; i < k; i++)
            for (int j = 0; j <= i; j++)
                h[i * n + j] -= h[k * n + i] / h[k * n + k] * h[k * n + j];
        for (int j = 0; j < k; j++)
            h[k * n + j] /= h[k * n + k];
    }
}

static void test_known_inputs(void **state)
{
    (void)state;
    static float w[KNOWN_ROWS * KNOWN_COLS], x[N_INPUTS * KNOWN_COLS], h[KNOWN_COLS * KNOWN_COLS];
    float scales[KNOWN_ROWS], plain_scales[KNOWN_ROWS], errors[ROUNDING_ROWS * KNOWN_COLS];
    int8_t q[KNOWN_ROWS * KNOWN_COLS], plain[KNOWN_ROWS * KNOWN_COLS];
    for (int i = 0; i < KNOWN_ROWS * KNOWN_COLS; i++)
        w[i] = sinf((float)(i * i % 997));
    assert_true(qp_quantize_i8(w, KNOWN_ROWS, KNOWN_COLS, plain, plain_scales));

    // without inputs, each weight is rounded alone
    factor_of(h, x, 0, KNOWN_COLS);
    assert_true(qp_quantize_i8_for(h, w, KNOWN_ROWS, KNOWN_COLS, q, scales, errors));
    assert_memory_equal(q, plain, sizeof q);
    assert_memory_equal(scales, plain_scales, sizeof scales);

    // inputs that are sums of three vectors: their errors cancel
    for (int t = 0; t < N_INPUTS; t++)
        for (int i = 0; i < KNOWN_COLS; i++)
            for (int k = 0; k < 3; k++)
                x[t * KNOWN_COLS + i] +=
                    sinf((float)(t * (k + 2))) * cosf((float)(i * (3 * k + 1)));
    factor_of(h, x, N_INPUTS, KNOWN_COLS);
    assert_true(qp_quantize_i8_for(h, w, KNOWN_ROWS, KNOWN_COLS, q, scales, errors));
    assert_memory_equal(scales, plain_scales, sizeof scales);
    const double before = output_error(w, plain, scales, x), after = output_error(w, q, scales, x);
    if (!(after < 0.3 * before))
        fail_msg("the error is %g, %g without the inputs", after, before);

    w[5] = INFINITY;
    assert_false(qp_quantize_i8_for(h, w, KNOWN_ROWS, KNOWN_COLS, q, scales, errors));
}

/* The same numbers as qp_quantize_i8_for, one weight after the other. */
static void round_plainly(const float *factor, const float *w, int rows, int cols,
                          const float *scales, int8_t *q)
{
    float *errors = calloc((size_t)cols, sizeof *errors);
    for (int r = 0; r < rows; r++, w += cols, q += cols)
        for (int k = 0; k < cols; k++) {
            float made_up = 0;
            for (int j = 0; j < k; j++)
                made_up += factor[k * cols + j] * errors[j];
            const float rounded = rintf((w[k] + made_up) / scales[r]);
            q[k] = (int8_t)(rounded > 127 ? 127 : rounded < -127 ? -127 : rounded);
            errors[k] = w[k] - (float)q[k] * scales[r];
        }
    free(errors);
}

/* Tiles, panels and threads change no bit: widths that are whole tiles or not, more than a panel.
 */
static void test_factors_are_exact(void **state)
{
    (void)state;
    static const int widths[] = { 1, 3, 4, 8, 31, 32, 33, 70, 96, 101 };
    enum {
        N_ROWS = 45,
        MOST = 101
    };
    static float x[N_ROWS * MOST], w[KNOWN_ROWS * MOST], h[MOST * MOST], plain[MOST * MOST];
    static float errors[ROUNDING_ROWS * MOST], scales[KNOWN_ROWS];
    static int8_t q[KNOWN_ROWS * MOST], plain_q[KNOWN_ROWS * MOST];
    for (int i = 0; i < N_ROWS * MOST; i++)
        x[i] = sinf((float)(i * i % 1009));
    for (int i = 0; i < KNOWN_ROWS * MOST; i++)
        w[i] = cosf((float)(i * i % 997));
    for (size_t i = 0; i < QP_COUNT(widths); i++) {
        const int n = widths[i];
        factor_of(h, x, N_ROWS, n);
        factor_plainly(plain, x, N_ROWS, n);
        for (int k = 0; k < n; k++)
            for (int j = 0; j <= k; j++)
                if (h[k * n + j] != plain[k * n + j])
                    fail_msg("width %d: the factor at [%d, %d] is %g, %g one by one", n, k, j,
                             (double)h[k * n + j], (double)plain[k * n + j]);
        assert_true(qp_quantize_i8_for(h, w, KNOWN_ROWS, n, q, scales, errors));
        round_plainly(h, w, KNOWN_ROWS, n, scales, plain_q);
        assert_memory_equal(q, plain_q, (size_t)(KNOWN_ROWS * n));
    }
    x[0] = NAN;
    struct triangle t;
    assert_true(qp_triangle_open(&t, 8, open_pool()));
    qp_triangle_add(&t, x, 1);
    assert_false(qp_triangle_factor(&t, ROUNDING_DAMPING));
    qp_pool_close(t.pool);
    qp_triangle_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answers),
        cmocka_unit_test(test_zero_rows_have_scale_one),
        cmocka_unit_test(test_each_row_has_its_scale),
        cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_asymmetric),
        cmocka_unit_test(test_mean_square),
        cmocka_unit_test(test_halves),
        cmocka_unit_test(test_rounding),
        cmocka_unit_test(test_original_files),
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_blocks_are_kept),
        cmocka_unit_test(test_block_extremes),
        cmocka_unit_test(test_known_inputs),
        cmocka_unit_test(test_factors_are_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
