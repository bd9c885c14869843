/* quantize_block.c: rows of float weights -> block-wise int4 (model/matrix.h): a code for each
 * weight, a multiplier for each I4_BLOCK of them, a scale for the row.
 *
 * They minimize sum_i importance[i] * (w[i] - scale * value[i])^2, approximately. The importance of
 * a weight is that of its column, if the caller knows it, times sqrt(w^2 + mean square of the row),
 * as in llama.cpp. Without this factor, the few large weights lose too much precision to the many
 * small ones: measured on text, the result is further from the float model.
 *
 * For a given scale, the blocks are independent. Each tries the multipliers that bring its largest
 * weight near an end of the codes' range, with both signs, because the range extends further below
 * zero. The best of a few scales is kept and then fitted to the chosen multipliers and codes (least
 * squares). Repeating this was slower than trying more scales, and not better.
 */
#include "convert/quantize_block.h"

#include "model/matrix.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <string.h>

enum {
    N_HALVES = 64,     // twice a weight in units of the codes, from -16 to 15.5
    MIN_CODE = -15,    // values of the codes
    MAX_MULTIPLIER = 8 // the negative ones are up to -8, the positive ones up to 7
};

/* The nearest code for a weight t, in units of the codes' values. All values are integers, so
 * floor(2 * t) determines the code. */
struct code_table {
    uint8_t code[N_HALVES];
    float value[N_HALVES];
};

static void fill_codes(struct code_table *table)
{
    const int8_t *values = qp_i4_block_values[1];
    for (int i = 0, code = 0; i < N_HALVES; i++) {
        const int twice = i - N_HALVES / 2; // 2 * t is in [twice, twice + 1)
        while (code < 15 && twice >= values[code] + values[code + 1])
            code++;
        table->code[i] = (uint8_t)code;
        table->value[i] = values[code];
    }
}

static inline int half_of(float twice)
{
    float i = twice + N_HALVES / 2;
    i = i > 0 ? i : 0;
    i = i < N_HALVES - 1 ? i : N_HALVES - 1;
    return (int)i;
}

/* A row to quantize. */
struct float_row {
    const float *w, *importance; // of the weights; of the columns, or NULL if all are equal
    int n_in;
    float bound;       // max|w|, above 0
    float mean_square; // of w / bound
};

static struct float_row make_row(const float *w, const float *importance, int n_in, float bound)
{
    double sum = 0;
    for (int i = 0; i < n_in; i++)
        sum += (double)(w[i] / bound) * (double)(w[i] / bound);
    return (struct float_row){ w, importance, n_in, bound, (float)(sum / n_in) };
}

/* I4_BLOCK weights that share a multiplier. After the end of a row they are 0 with importance 0. */
struct block {
    float w[I4_BLOCK], importance[I4_BLOCK];
    float bound; // max|w|
};

static struct block make_block(const struct float_row *row, int begin)
{
    struct block b = { .bound = 0 };
    const int n = row->n_in - begin;
    for (int i = 0; i < I4_BLOCK && i < n; i++) {
        const float w = row->w[begin + i], size = w / row->bound;
        b.w[i] = w;
        b.importance[i] = sqrtf(size * size + row->mean_square);
        if (row->importance)
            b.importance[i] *= row->importance[begin + i];
        b.bound = fabsf(w) > b.bound ? fabsf(w) : b.bound;
    }
    return b;
}

/* Sums over weights w and the values v of their codes. */
struct fit {
    double wv, vv; // of importance * w * v, importance * v * v
};

/* The weighted squared error at a scale, minus the sum of importance * w * w, which is constant. */
static inline double excess(struct fit f, double scale)
{
    return scale * (scale * f.vv - 2 * f.wv);
}

/* Fit a block with one multiplier. It computes in units of the codes, which cannot overflow, and in
 * four independent sums. */
static struct fit fit_block(const struct code_table *table, const struct block *b, float scale,
                            int multiplier)
{
    const double unit = (double)scale * multiplier;
    const float twice = (float)(2 / unit);
    float t[I4_BLOCK], tv[4] = { 0 }, vv[4] = { 0 };
    int half[I4_BLOCK];
    for (int i = 0; i < I4_BLOCK; i++) {
        t[i] = b->w[i] * twice;
        half[i] = half_of(t[i]);
    }
    for (int i = 0; i < I4_BLOCK; i += 4)
        for (int j = 0; j < 4; j++) {
            const float v = table->value[half[i + j]], weighted = v * b->importance[i + j];
            tv[j] += weighted * t[i + j];
            vv[j] += weighted * v;
        }
    return (struct fit){ (double)((tv[0] + tv[1]) + (tv[2] + tv[3])) / 2 * unit * multiplier,
                         (double)((vv[0] + vv[1]) + (vv[2] + vv[3])) * multiplier * multiplier };
}

/* The best multiplier of a block. */
static int choose_multiplier(const struct code_table *table, const struct block *b, float scale,
                             struct fit *fit)
{
    float ideal = b->bound / (scale * -MIN_CODE);
    ideal = ideal < 2 * MAX_MULTIPLIER ? ideal : 2 * MAX_MULTIPLIER;
    int lowest = (int)(ideal * 0.75f), highest = (int)(ideal * 1.25f) + 1;
    lowest = lowest < 1 ? 1 : lowest > MAX_MULTIPLIER - 1 ? MAX_MULTIPLIER - 1 : lowest;
    highest = highest < MAX_MULTIPLIER ? highest : MAX_MULTIPLIER;

    int best = 0; // all zero
    *fit = (struct fit){ 0, 0 };
    for (int m = lowest; m <= highest; m++)
        for (int sign = -1; sign <= 1; sign += 2) {
            if (sign * m == MAX_MULTIPLIER)
                continue;
            const struct fit f = fit_block(table, b, scale, sign * m);
            if (excess(f, (double)scale) < excess(*fit, (double)scale)) {
                *fit = f;
                best = sign * m;
            }
        }
    return best;
}

/* Fit a row with one scale. Stores the multipliers if `multipliers` is not NULL. */
static struct fit fit_row(const struct code_table *table, const struct float_row *row, float scale,
                          uint8_t *multipliers)
{
    struct fit sum = { 0, 0 };
    for (int i = 0, at = 0; i < row->n_in; i += I4_BLOCK, at++) {
        const struct block b = make_block(row, i);
        struct fit f;
        const int m = choose_multiplier(table, &b, scale, &f);
        sum.wv += f.wv;
        sum.vv += f.vv;
        if (multipliers)
            multipliers[at / 2] |= (uint8_t)((m & 15) << (at % 2 * 4));
    }
    return sum;
}

/* Store the codes of a row whose multipliers are known. */
static void store_codes(const struct code_table *table, const float *w, int n_in, float scale,
                        const uint8_t *multipliers, uint8_t *codes)
{
    memset(codes, 0, (size_t)n_in / 2);
    for (int i = 0; i < n_in; i++) {
        const float unit =
            scale * (float)qp_i4_block_values[qp_block_multiplier(multipliers, i)][9];
        const int code = table->code[half_of(unit != 0 ? 2 / unit * w[i] : 0)];
        codes[i / 2] |= (uint8_t)(code << (i % 2 * 4));
    }
}

/* The best of a few scales, for which the row's largest weight has a multiplier of 6 to 8. */
static float choose_scale(const struct code_table *table, const struct float_row *row)
{
    static const float largest[] = { 6.0f, 6.5f, 7.0f, 7.5f, 8.0f };
    float best = 1;
    double least = 0;
    for (size_t i = 0; i < QP_COUNT(largest); i++) {
        const float scale = row->bound / (largest[i] * -MIN_CODE);
        if (scale < FLT_MIN)
            break;
        const struct fit f = fit_row(table, row, scale, NULL);
        if (excess(f, (double)scale) < least) {
            least = excess(f, (double)scale);
            best = scale;
        }
    }
    return best;
}

bool qp_quantize_i4_block(const float *w, const float *importance, int64_t rows, int64_t cols,
                          uint8_t *codes, uint8_t *multipliers, float *scales)
{
    assert(rows >= 0 && cols > 0 && cols % 2 == 0 && cols <= INT32_MAX);
    const int n_in = (int)cols;
    const size_t multiplier_bytes = qp_multiplier_bytes(n_in);
    struct code_table table;
    fill_codes(&table);
    for (int64_t r = 0; r < rows; r++, w += cols, codes += cols / 2) {
        const float bound = qp_row_bound(w, cols);
        if (bound < 0)
            return false;
        scales[r] = 1;
        memset(multipliers, 0, multiplier_bytes);
        if (bound > 0) {
            const struct float_row row = make_row(w, importance, n_in, bound);
            scales[r] = choose_scale(&table, &row);
            const struct fit f = fit_row(&table, &row, scales[r], multipliers);
            scales[r] = f.vv > 0 ? (float)(f.wv / f.vv) : scales[r];
        }
        store_codes(&table, w, n_in, scales[r], multipliers, codes);
        multipliers += multiplier_bytes;
    }
    return true;
}
