/* store.c: rows of a matrix -> bytes of the model file, in MediaPipe's layout for CPUs or for GPUs.
 * In:  how a tensor is stored (struct stored); floats, or integers as in files for CPUs.
 * Out: for CPUs the rows with one scale each, and the multipliers of block-wise int4. For GPUs
 * tiles of 4 x 4, dims [cols / 4][rows / 4][4 of a row][4 rows], with int8 plus 128 and floats as
 *      binary16; for each row a scale, the sum of its integers, and an optional zero point
 *      (docs/model-format.md). */
#include "convert/store.h"
#include "convert/quantize_block.h"
#include "convert/rounding.h"
#include "format/tflite_writer.h"
#include "model/matrix.h"

#include <assert.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
    TILE = 4,
    MAX_STORED_NAME = 256
};

static enum dtype stored_dtype(const struct convert_options *o, enum weight_class weight_class)
{
    static const enum dtype dtypes[4][7] = {
        // CLASS_NORM, CLASS_BIAS, CLASS_ATTENTION, CLASS_FEED_FORWARD, CLASS_EMBEDDING,
        // CLASS_POSITIONS, CLASS_ROUTER_NORM
        [CONVERT_INT8] = { DTYPE_F32, DTYPE_F32, DTYPE_I8, DTYPE_I8, DTYPE_I8, DTYPE_F32,
                           DTYPE_F32 },
        [CONVERT_MIXED] = { DTYPE_F32, DTYPE_F32, DTYPE_I8, DTYPE_I4, DTYPE_I8, DTYPE_F32,
                            DTYPE_F32 },
        [CONVERT_INT4] = { DTYPE_F32, DTYPE_F32, DTYPE_I4, DTYPE_I4, DTYPE_I4, DTYPE_F32,
                           DTYPE_F32 },
        [CONVERT_F32] = { DTYPE_F32, DTYPE_F32, DTYPE_F32, DTYPE_F32, DTYPE_F32, DTYPE_F32,
                          DTYPE_F32 },
    };
    const int bits[] = { 0, 0, o->attention_bits, o->feed_forward_bits, o->embedding_bits, 0, 0 };
    if (bits[weight_class])
        return bits[weight_class] == 4 ? DTYPE_I4 : DTYPE_I8;
    return dtypes[o->weights][weight_class];
}

static bool is_integer(const struct stored *s)
{
    return s->dtype == DTYPE_I8 || s->dtype == DTYPE_I4 || s->dtype == DTYPE_I4_BLOCK;
}

/* Whether int4 is stored in blocks, which only Quip reads. */
static bool is_block_wise(const struct convert_options *o)
{
    return !o->is_original && !o->for_gpu && !o->is_mse && !o->is_asymmetric;
}

void qp_store_as(struct stored *s, const struct convert_options *o, enum weight_class weight_class)
{
    s->dtype = stored_dtype(o, weight_class);
    if (s->dtype == DTYPE_I4 && is_block_wise(o))
        s->dtype = DTYPE_I4_BLOCK;
    s->is_for_gpu = o->for_gpu;
    const bool is_matrix = weight_class == CLASS_ATTENTION || weight_class == CLASS_FEED_FORWARD ||
                           weight_class == CLASS_EMBEDDING;
    if (o->for_gpu && s->dtype == DTYPE_F32 && is_matrix)
        s->dtype = DTYPE_F16;
    s->is_mse = o->is_mse;
    s->is_asymmetric = o->is_asymmetric && is_integer(s);
}

uint64_t qp_stored_bytes(const struct stored *s)
{
    uint64_t n_bytes = 0;
    qp_dtype_bytes(s->dtype, (uint64_t)(s->rows * s->cols), &n_bytes);
    return n_bytes;
}

/* ---- declaring ---- */

/* A tensor with one number for each row of the matrix. */
static quip_status declare_companion(struct tflite_writer *w, const struct stored *s,
                                     const char *name, const char *suffix, enum dtype dtype,
                                     int *index, quip_error *error)
{
    char full[MAX_STORED_NAME];
    snprintf(full, sizeof full, "%s%s", name, suffix);
    return qp_tflite_writer_tensor(w, full, dtype, 1, &s->rows, index, error);
}

/* In MediaPipe's order: in a file for GPUs the scales come before a matrix, except the first one.
 */
static quip_status declare_integers(struct tflite_writer *w, struct stored *s, const char *name,
                                    quip_error *error)
{
    const int64_t dims[2] = { s->rows, s->cols };
    const bool scale_first = s->is_for_gpu && !s->is_first;
    quip_status status = QUIP_OK;
    if (scale_first)
        status =
            declare_companion(w, s, name, "_quantized_scale", DTYPE_F32, &s->scale_index, error);
    if (!status)
        status = qp_tflite_writer_tensor(w, name, s->dtype, 2, dims, &s->index, error);
    if (!status && s->is_for_gpu)
        status = declare_companion(w, s, name, ".sum_i", DTYPE_I32, &s->sum_index, error);
    if (!status && !scale_first)
        status =
            declare_companion(w, s, name, "_quantized_scale", DTYPE_F32, &s->scale_index, error);
    if (!status && s->is_asymmetric)
        status = declare_companion(w, s, name, "_quantized_zp", DTYPE_F32, &s->zero_index, error);
    if (status || !s->has_rest)
        return status;
    char full[MAX_STORED_NAME];
    snprintf(full, sizeof full, "%s_rest", name);
    return qp_tflite_writer_tensor(w, full, DTYPE_I8, 2, dims, &s->rest_index, error);
}

/* There is no _quantized_scale, so that a reader without support for multipliers does not use the
 * codes as weights. */
static quip_status declare_block_wise(struct tflite_writer *w, struct stored *s, const char *name,
                                      quip_error *error)
{
    const int64_t dims[2] = { s->rows, s->cols };
    const int64_t multiplier_dims[2] = { s->rows, (int64_t)qp_multiplier_bytes((int)s->cols) };
    char full[MAX_STORED_NAME];
    snprintf(full, sizeof full, "%s_block_multiplier", name);
    quip_status status = qp_tflite_writer_tensor(w, name, DTYPE_I4, 2, dims, &s->index, error);
    if (!status)
        status = qp_tflite_writer_tensor(w, full, DTYPE_I8, 2, multiplier_dims,
                                         &s->multiplier_index, error);
    return status
               ? status
               : declare_companion(w, s, name, "_block_scale", DTYPE_F32, &s->scale_index, error);
}

quip_status qp_store_declare(struct tflite_writer *w, struct stored *s, const char *name,
                             quip_error *error)
{
    const int64_t dims[2] = { s->rows, s->cols };
    if ((s->dtype == DTYPE_I4 || s->dtype == DTYPE_I4_BLOCK) && s->cols % 2)
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s has rows of %lld values; must be even for int4", s->source,
                       (long long)s->cols);
    if (s->is_for_gpu && s->dtype != DTYPE_F32 && (s->rows % TILE || s->cols % TILE))
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s is [%lld, %lld]; must be multiples of 4 for GPUs", s->source,
                       (long long)s->rows, (long long)s->cols);
    if (s->dtype == DTYPE_I4_BLOCK)
        return declare_block_wise(w, s, name, error);
    return is_integer(s) ? declare_integers(w, s, name, error)
                         : qp_tflite_writer_tensor(w, name, s->dtype, 2, dims, &s->index, error);
}

quip_status qp_store_declare_vector(struct tflite_writer *w, struct stored *s, const char *name,
                                    bool is_layer_norm, quip_error *error)
{
    static const char for_cpu[] = ".ff_layer.pre_layer_norm.", for_gpu[] = ".post_layer_norm.";
    const char *wrong = s->is_for_gpu ? for_cpu : for_gpu,
               *right = s->is_for_gpu ? for_gpu : for_cpu;
    const char *at = is_layer_norm ? strstr(name, wrong) : NULL;
    const int64_t dims[3] = { 1, 1, s->cols };
    char full[MAX_STORED_NAME];
    s->may_be_infinite = qp_ends_with(name, "rope.divisors");
    snprintf(full, sizeof full, "%.*s%s%s", (int)(at ? at - name : 0), name, at ? right : "",
             at ? at + strlen(wrong) : name);
    return qp_tflite_writer_tensor(w, full, DTYPE_F32, is_layer_norm ? 3 : 1,
                                   is_layer_norm ? dims : &s->cols, &s->index, error);
}

/* ---- memory ---- */

quip_status qp_slab_open(struct slab *slab, int64_t n_values, int64_t n_rows, quip_error *error)
{
    const size_t values = (size_t)n_values, rows = (size_t)n_rows;
    *slab = (struct slab){ .packed = malloc(values),
                           .rest = malloc(values),
                           .multipliers = malloc(values / 32 + rows * 4),
                           .scales = malloc(rows * sizeof(float)),
                           .zeros = malloc(rows * sizeof(float)),
                           .tiles = malloc(values * sizeof(uint16_t)),
                           .sums = malloc(rows * sizeof(int32_t)),
                           .n_values = n_values,
                           .n_rows = n_rows };
    quip_status status = QUIP_OK;
    if (!slab->packed || !slab->rest || !slab->multipliers || !slab->scales || !slab->zeros ||
        !slab->tiles || !slab->sums)
        status = qp_fail_memory(error, "a slab of weights", values * 4 + rows * 16);
    if (!status)
        status = qp_pool_open(&slab->pool, 0, false, error);
    if (status)
        qp_slab_close(slab);
    return status;
}

void qp_slab_close(struct slab *slab)
{
    qp_pool_close(slab->pool);
    free(slab->packed);
    free(slab->rest);
    free(slab->multipliers);
    free(slab->scales);
    free(slab->zeros);
    free(slab->tiles);
    free(slab->sums);
    free(slab->errors);
    *slab = (struct slab){ 0 };
}

/* ---- tiles ---- */

/* Integer i of row r of a slab, signed. */
static int integer_at(const struct stored *s, const struct slab *slab, int64_t r, int64_t i)
{
    const int64_t at = r * s->cols + i;
    if (s->dtype == DTYPE_I8)
        return ((const int8_t *)slab->packed)[at];
    return (((const uint8_t *)slab->packed)[at / 2] >> (at % 2 * 4) & 15) - 8;
}

static void put_tiled(const struct stored *s, uint8_t *tiles, int64_t at, int q)
{
    if (s->dtype == DTYPE_I8)
        tiles[at] = (uint8_t)(q + 128);
    else
        tiles[at / 2] = (uint8_t)(at % 2 ? tiles[at / 2] | (q + 8) << 4 : q + 8);
}

/* The slab's n rows as [cols / 4][n / 4][4 of a row][4 rows]; and the sum of each. */
static void tile_integers(const struct stored *s, struct slab *slab, int64_t n)
{
    int64_t at = 0;
    memset(slab->sums, 0, (size_t)n * sizeof *slab->sums);
    for (int64_t i = 0; i < s->cols; i += TILE)
        for (int64_t r = 0; r < n; r += TILE)
            for (int k = 0; k < TILE * TILE; k++, at++) {
                const int64_t row = r + k % TILE;
                const int q = integer_at(s, slab, row, i + k / TILE);
                slab->sums[row] += q;
                put_tiled(s, slab->tiles, at, q);
            }
}

/* False if a value is not finite in binary16. */
static bool tile_floats(const struct stored *s, struct slab *slab, int64_t n, const float *values)
{
    uint8_t *to = slab->tiles;
    for (int64_t i = 0; i < s->cols; i += TILE)
        for (int64_t r = 0; r < n; r += TILE)
            for (int k = 0; k < TILE * TILE; k++, to += 2) {
                const float x = values[(r + k % TILE) * s->cols + i + k / TILE];
                const uint16_t half = qp_half_bits(x);
                if ((half & 0x7c00u) == 0x7c00u)
                    return false;
                to[0] = (uint8_t)half;
                to[1] = (uint8_t)(half >> 8);
            }
    return true;
}

/* In the file, four columns of all rows are adjacent. So the slab's part of each four columns is a
 * write of its own. */
static quip_status write_tiles(struct tflite_writer *w, const struct stored *s,
                               const struct slab *slab, int64_t begin, int64_t n, quip_error *error)
{
    assert(n % TILE == 0 && begin % TILE == 0 && s->rows % TILE == 0 && s->cols % TILE == 0);
    uint64_t n_run = 0, n_column = 0, first = 0;
    qp_dtype_bytes(s->dtype, (uint64_t)(n * TILE), &n_run);
    qp_dtype_bytes(s->dtype, (uint64_t)(s->rows * TILE), &n_column);
    qp_dtype_bytes(s->dtype, (uint64_t)(begin * TILE), &first);
    if (n == s->rows)
        return qp_tflite_writer_write(w, s->index, 0, slab->tiles,
                                      (size_t)(n_run * (uint64_t)(s->cols / TILE)), error);
    quip_status status = QUIP_OK;
    for (uint64_t i = 0; i < (uint64_t)(s->cols / TILE) && !status; i++)
        status = qp_tflite_writer_write(w, s->index, i * n_column + first, slab->tiles + i * n_run,
                                        (size_t)n_run, error);
    return status;
}

/* ---- rows ---- */

/* Write one number of four bytes for each of the rows [begin, begin + n). */
static quip_status write_companion(struct tflite_writer *w, int index, int64_t begin, int64_t n,
                                   const void *data, quip_error *error)
{
    return qp_tflite_writer_write(w, index, (uint64_t)begin * 4, data, (size_t)n * 4, error);
}

static quip_status write_plain(struct tflite_writer *w, const struct stored *s, int64_t begin,
                               int64_t n, const void *data, quip_error *error)
{
    assert(begin >= 0 && n > 0 && begin + n <= s->rows);
    uint64_t offset = 0, n_bytes = 0;
    qp_dtype_bytes(s->dtype, (uint64_t)(begin * s->cols), &offset);
    qp_dtype_bytes(s->dtype, (uint64_t)(n * s->cols), &n_bytes);
    return qp_tflite_writer_write(w, s->index, offset, data, (size_t)n_bytes, error);
}

quip_status qp_store_integers(struct tflite_writer *w, const struct stored *s, struct slab *slab,
                              int64_t begin, int64_t n, quip_error *error)
{
    assert(begin >= 0 && begin + n <= s->rows && n <= slab->n_rows);
    quip_status status = write_companion(w, s->scale_index, begin, n, slab->scales, error);
    if (!status && s->is_asymmetric)
        status = write_companion(w, s->zero_index, begin, n, slab->zeros, error);
    if (status)
        return status;
    if (s->dtype == DTYPE_I4_BLOCK) {
        const size_t row_bytes = qp_multiplier_bytes((int)s->cols);
        status = qp_tflite_writer_write(w, s->multiplier_index, (uint64_t)begin * row_bytes,
                                        slab->multipliers, (size_t)n * row_bytes, error);
    }
    if (!status && s->has_rest)
        status = qp_tflite_writer_write(w, s->rest_index, (uint64_t)(begin * s->cols), slab->rest,
                                        (size_t)(n * s->cols), error);
    if (!s->is_for_gpu)
        return status ? status : write_plain(w, s, begin, n, slab->packed, error);
    tile_integers(s, slab, n);
    status = write_companion(w, s->sum_index, begin, n, slab->sums, error);
    return status ? status : write_tiles(w, s, slab, begin, n, error);
}

/* Rows of a slab to quantize on threads: to block-wise int4, or to int8 for known inputs. */
struct rows_task {
    const struct stored *s;
    struct slab *slab;
    const float *values;
    int n;
    atomic_bool is_fine;
};

static void quantize_share(void *arg, int index, int n_threads)
{
    struct rows_task *task = arg;
    const int64_t cols = task->s->cols;
    struct slab *slab = task->slab;
    int begin, end;
    qp_share(task->n, 1, index, n_threads, &begin, &end);
    if (!qp_quantize_i4_block(task->values + begin * cols, task->s->importance, end - begin, cols,
                              (uint8_t *)slab->packed + begin * cols / 2,
                              slab->multipliers + (size_t)begin * qp_multiplier_bytes((int)cols),
                              slab->scales + begin))
        task->is_fine = false;
}

static void round_share(void *arg, int index, int n_threads)
{
    struct rows_task *task = arg;
    const int64_t cols = task->s->cols;
    struct slab *slab = task->slab;
    int begin, end;
    qp_share(task->n, ROUNDING_ROWS, index, n_threads, &begin, &end);
    if (!qp_quantize_i8_for(task->s->factor, task->values + begin * cols, end - begin, cols,
                            (int8_t *)slab->packed + begin * cols, slab->scales + begin,
                            slab->errors + index * ROUNDING_ROWS * cols))
        task->is_fine = false;
}

/* Memory for round_share, if a matrix needs it. */
static bool reserve_errors(struct slab *slab, const struct stored *s)
{
    const int64_t n = qp_pool_n_threads(slab->pool) * ROUNDING_ROWS * s->cols;
    if (!s->factor || n <= slab->n_errors)
        return true;
    free(slab->errors);
    slab->errors = malloc((size_t)n * sizeof *slab->errors);
    slab->n_errors = slab->errors ? n : 0;
    return slab->errors != NULL;
}

static bool quantize_on_threads(const struct stored *s, struct slab *slab, int64_t n,
                                const float *values)
{
    struct rows_task task = {
        .s = s, .slab = slab, .values = values, .n = (int)n, .is_fine = true
    };
    qp_pool_run(slab->pool, s->factor ? round_share : quantize_share, &task);
    return task.is_fine;
}

static bool quantize_rows(const struct stored *s, struct slab *slab, int64_t n, const float *values)
{
    const int bits = s->dtype == DTYPE_I8 ? 8 : 4;
    if (s->dtype == DTYPE_I4_BLOCK || s->factor)
        return quantize_on_threads(s, slab, n, values);
    if (s->is_asymmetric)
        return qp_quantize_asymmetric(values, n, s->cols, bits, slab->packed, slab->scales,
                                      slab->zeros);
    if (s->is_mse)
        return qp_quantize_mse(values, n, s->cols, bits, slab->packed, slab->scales);
    return bits == 8 ? qp_quantize_i8(values, n, s->cols, slab->packed, slab->scales)
                     : qp_quantize_i4(values, n, s->cols, slab->packed, slab->scales);
}

/* What rounding n rows to int8 has left. */
static void find_rest(const struct stored *s, struct slab *slab, int64_t n, const float *values)
{
    assert(s->dtype == DTYPE_I8 && !s->is_for_gpu && n <= slab->n_rows);
    const int8_t *q = slab->packed;
    for (int64_t i = 0; i < n * s->cols; i++) {
        const float x = (values[i] / slab->scales[i / s->cols] - (float)q[i]) * REST_STEPS;
        slab->rest[i] = (int8_t)rintf(x > 127 ? 127 : x < -127 ? -127 : x);
    }
}

static bool are_finite(const struct stored *s, const float *values, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (!(values[i] - values[i] == 0) && !(s->may_be_infinite && values[i] > 0))
            return false;
    return true;
}

quip_status qp_store_floats(struct tflite_writer *w, const struct stored *s, struct slab *slab,
                            int64_t begin, int64_t n, const float *values, quip_error *error)
{
    if (!reserve_errors(slab, s))
        return qp_fail_memory(error, "rounding errors", (size_t)s->cols * ROUNDING_ROWS * 4);
    const bool is_fine = s->dtype == DTYPE_F32   ? are_finite(s, values, n * s->cols)
                         : s->dtype == DTYPE_F16 ? tile_floats(s, slab, n, values)
                                                 : quantize_rows(s, slab, n, values);
    if (!is_fine)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s has a value that is not a finite number%s, in rows %lld to %lld",
                       s->source, s->dtype == DTYPE_F16 ? " in binary16" : "", (long long)begin,
                       (long long)(begin + n - 1));
    if (s->has_rest)
        find_rest(s, slab, n, values);
    return s->dtype == DTYPE_F32   ? write_plain(w, s, begin, n, values, error)
           : s->dtype == DTYPE_F16 ? write_tiles(w, s, slab, begin, n, error)
                                   : qp_store_integers(w, s, slab, begin, n, error);
}

/* ---- companions ---- */

bool qp_ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), n_end = strlen(end);
    return n >= n_end && strcmp(name + n - n_end, end) == 0;
}

bool qp_is_companion(const char *name)
{
    static const char *const ends[] = { "_quantized_scale", "_quantized_zp",     ".sum_i",
                                        "_block_scale",     "_block_multiplier", "_rest" };
    for (size_t i = 0; i < QP_COUNT(ends); i++)
        if (qp_ends_with(name, ends[i]))
            return true;
    return false;
}
