/* rows.c: rows of one tensor of the checkpoint, with the values that the model file stores.
 * In:  a job of the plan, and a range of rows.
 * Out: floats in the order of the model file, in a buffer that the next call overwrites. Changes
 *      that the checkpoint's format makes are undone, and a merged adapter is added. */
#include "convert/rows.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    SLAB_VALUES = 1 << 18, // floats to read and quantize at a time: 1 MB, which stays in cache
};

/* Where the rows of the job's matrix are in its tensor, and in the module of an adapter. */
static struct row_map tensor_map(const struct row_reader *r, const struct job *job)
{
    const struct hparams *h = r->hparams;
    struct row_map map = qp_plan_module_map(h, job->row);
    if (!r->checkpoint->is_gguf)
        return map;
    map.is_paired = h->source->gguf_pairs_rope && job->row->has_rope;
    if (map.part >= PART_Q && map.part <= PART_V) // GGUF has blocks instead of groups
        map.part += BLOCK_Q - PART_Q;
    return map;
}

/* Whole tiles for GPUs. */
int64_t qp_rows_at_a_time(const struct job *job)
{
    const struct stored *s = &job->stored;
    const int64_t unit = s->is_for_gpu ? 4 : 1;
    // tiles, and columns that become rows, are not adjacent in their file: fewer, longer accesses
    const int64_t n_values = s->is_for_gpu || job->is_transposed ? 4 * SLAB_VALUES : SLAB_VALUES;
    int64_t rows = n_values / s->cols / unit * unit;
    rows = rows > unit ? rows : unit;
    return rows < s->rows ? rows : s->rows;
}

quip_status qp_rows_open(struct row_reader *r, const struct checkpoint *c, const struct hparams *h,
                         const struct plan *plan, struct lora_merge *merge, quip_error *error)
{
    *r = (struct row_reader){
        .checkpoint = c, .hparams = h, .merge = merge, .max_values = 1, .max_rows = 1
    };
    for (int i = 0; i < plan->n_jobs; i++) {
        const int64_t rows = qp_rows_at_a_time(&plan->jobs[i]);
        const int64_t values = rows * plan->jobs[i].stored.cols;
        r->max_rows = rows > r->max_rows ? rows : r->max_rows;
        r->max_values = values > r->max_values ? values : r->max_values;
    }
    r->values = malloc((size_t)r->max_values * sizeof *r->values);
    r->column = malloc((size_t)r->max_rows * sizeof *r->column);
    if (r->values && r->column)
        return QUIP_OK;
    qp_rows_close(r);
    return qp_fail_memory(error, "a slab of weights", (size_t)r->max_values * sizeof *r->values);
}

void qp_rows_close(struct row_reader *r)
{
    free(r->values);
    free(r->column);
    *r = (struct row_reader){ 0 };
}

/* Rows [begin, begin + n), where each head or expert has a tensor of its own. */
static quip_status read_parts(struct row_reader *r, const struct job *job,
                              const struct row_map *map, int64_t begin, int64_t n,
                              quip_error *error)
{
    const int64_t part_rows = qp_plan_part_rows(r->hparams, job->row);
    const int64_t cols = job->row->cols == EXTENT_NONE ? 1 : job->stored.cols;
    quip_status status = QUIP_OK;
    for (int64_t i = 0, run; i < n && !status; i += run) {
        const int64_t from = qp_row_map_at(map, begin + i), row = from % part_rows;
        const struct entry *e =
            qp_plan_find(r->checkpoint, job->row, job->layer, (int)(from / part_rows));
        assert(e); // qp_plan_make found all
        run = qp_row_map_run(map, begin + i, n - i);
        run = run < part_rows - row ? run : part_rows - row;
        status = qp_format_read_f32(e->format, e->tensor, (uint64_t)(row * cols),
                                    (size_t)(run * cols), r->values + i * cols, error);
    }
    return status;
}

/* Rows [begin, begin + n) of a matrix whose tensor is [in, out]. */
static quip_status read_columns(struct row_reader *r, const struct job *job,
                                const struct row_map *map, int64_t begin, int64_t n,
                                quip_error *error)
{
    const int64_t n_in = job->stored.cols,
                  n_out = job->entry->tensor->dims[job->entry->tensor->n_dims - 1];
    const int64_t first = qp_row_map_at(map, begin);
    quip_status status = QUIP_OK;
    assert(qp_row_map_run(map, begin, n) == n); // transposed ones are in blocks
    for (int64_t i = 0; i < n_in && !status; i++) {
        status = qp_format_read_f32(job->entry->format, job->entry->tensor,
                                    (uint64_t)(i * n_out + first), (size_t)n, r->column, error);
        for (int64_t k = 0; k < n && !status; k++)
            r->values[k * n_in + i] = r->column[k];
    }
    return status;
}

/* Rows [begin, begin + n) of the job's matrix, in its order. A vector is a matrix of one column. */
static quip_status read_rows(struct row_reader *r, const struct job *job, int64_t begin, int64_t n,
                             quip_error *error)
{
    const struct row_map map = tensor_map(r, job);
    const int64_t cols = job->row->cols == EXTENT_NONE ? 1 : job->stored.cols;
    quip_status status = QUIP_OK;
    if (job->is_transposed)
        return read_columns(r, job, &map, begin, n, error);
    if (qp_tensor_row_is_of_head(job->row, r->checkpoint->is_gguf))
        return read_parts(r, job, &map, begin, n, error);
    for (int64_t i = 0, run; i < n && !status; i += run) {
        run = qp_row_map_run(&map, begin + i, n - i);
        status = qp_format_read_f32(job->entry->format, job->entry->tensor,
                                    (uint64_t)(qp_row_map_at(&map, begin + i) * cols),
                                    (size_t)(run * cols), r->values + i * cols, error);
    }
    return status;
}

/* Add the first row of another tensor to each of n rows. */
static quip_status add_row(const struct entry *from, float *rows, int64_t n, int64_t cols,
                           quip_error *error)
{
    float *row = malloc((size_t)cols * sizeof *row);
    if (!row)
        return qp_fail_memory(error, "a row of weights", (size_t)cols * sizeof *row);
    const quip_status status =
        qp_format_read_f32(from->format, from->tensor, 0, (size_t)cols, row, error);
    for (int64_t i = 0; i < n * cols && !status; i++)
        rows[i] += row[i % cols];
    free(row);
    return status;
}

quip_status qp_rows_read(struct row_reader *r, const struct job *job, int64_t begin, int64_t n,
                         const float **values, quip_error *error)
{
    const int64_t cols = job->stored.cols;
    assert(begin >= 0 && n > 0 && begin + n <= job->stored.rows && n * cols <= r->max_values);
    const bool is_vector = job->row->cols == EXTENT_NONE;
    float *rows = r->values;
    if (job->values) {
        memcpy(rows, job->values + begin * cols, (size_t)(n * cols) * sizeof *rows);
        *values = rows;
        return QUIP_OK;
    }
    quip_status status =
        read_rows(r, job, begin, is_vector ? cols : n, error); // a vector has one row
    if (!status && job->added)
        status = add_row(job->added, rows, n, cols, error);
    if (status)
        return status;
    // GGUF files include the 1 that Gemma's norms add to a weight; MediaPipe's model files do not
    if (r->checkpoint->is_gguf && r->hparams->raw.traits.norm == NORM_RMS_PLUS_1 &&
        job->row->weight_class == CLASS_NORM)
        for (int64_t i = 0; i < n * cols; i++)
            rows[i] -= 1;
    for (int64_t i = 0; job->row->weight_class == CLASS_ROUTER_NORM && i < n * cols; i++)
        rows[i] /= sqrtf((float)r->hparams->raw.d_model);
    const bool is_layer_matrix =
        job->row->weight_class == CLASS_ATTENTION || job->row->weight_class == CLASS_FEED_FORWARD;
    for (int64_t i = 0; i < n && is_layer_matrix && r->hparams->raw.traits.mixes_inputs; i++)
        qp_mix_row(rows + i * cols, (int)cols);
    *values = rows;
    const struct row_map map = qp_plan_module_map(r->hparams, job->row);
    return r->merge ? qp_lora_merge_add(r->merge, job, &map, begin, n, rows, error) : QUIP_OK;
}
