/* rows.c: rows of one tensor of the checkpoint, with the values that the model file stores.
 * In:  a job of the plan, and a range of rows.
 * Out: floats in the order of the model file, in a buffer that the next call overwrites. Changes
 *      that the checkpoint's format makes are undone, and a merged adapter is added. */
#include "convert/rows.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    SLAB_VALUES = 1 << 18, // floats to read and quantize at a time: 1 MB, which stays in cache
};

static bool is_paired(const struct row_reader *r, const struct job *job)
{
    return r->checkpoint->is_gguf && r->hparams->source->gguf_pairs_rope && job->row->has_rope;
}

/* Whole heads if rows are reordered within a head, or if a head's rows are not adjacent in the
 * checkpoint; whole tiles for GPUs. */
int64_t qp_rows_at_a_time(const struct row_reader *r, const struct job *job)
{
    const struct stored *s = &job->stored;
    int64_t unit = is_paired(r, job) || job->row->part != PART_ALL ? r->hparams->head_dim : 1;
    int64_t n_values = SLAB_VALUES;
    if (s->is_for_gpu) {
        unit *= unit % 4 ? 4 : 1;
        n_values *= 4; // tiles of a slab are not adjacent in the file: fewer, longer writes
    }
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
        const int64_t rows = qp_rows_at_a_time(r, &plan->jobs[i]);
        const int64_t values = rows * plan->jobs[i].stored.cols;
        r->max_rows = rows > r->max_rows ? rows : r->max_rows;
        r->max_values = values > r->max_values ? values : r->max_values;
    }
    r->values = malloc((size_t)r->max_values * sizeof *r->values);
    r->ordered = malloc((size_t)r->max_values * sizeof *r->ordered);
    if (r->values && r->ordered)
        return QUIP_OK;
    qp_rows_close(r);
    return qp_fail_memory(error, "a slab of weights", (size_t)r->max_values * 8);
}

void qp_rows_close(struct row_reader *r)
{
    free(r->values);
    free(r->ordered);
    *r = (struct row_reader){ 0 };
}

/* GGUF stores the rows of a head as pairs that rotate together: (0, d/2), (1, d/2 + 1), ... Move
 * the first halves before the second halves again. rows is a multiple of head_dim. */
static void unpair_rows(float *to, const float *from, int64_t rows, int64_t cols, int head_dim)
{
    assert(head_dim > 0 && head_dim % 2 == 0 && rows % head_dim == 0);
    for (int64_t r = 0; r < rows; r++) {
        int64_t d = r % head_dim, half = d / (head_dim / 2), pair = d % (head_dim / 2);
        int64_t source = r - d + 2 * pair + half;
        memcpy(to + r * cols, from + source * cols, (size_t)cols * sizeof *to);
    }
}

/* Elements [begin, begin + n) of a tensor, or of one of its three parts. A part is read in whole
 * heads; in the checkpoint, the heads of the three parts alternate. */
static quip_status read_elements(struct row_reader *r, const struct job *job, int64_t begin,
                                 int64_t n, quip_error *error)
{
    const int64_t n_row = job->row->cols == EXTENT_NONE ? 1 : job->stored.cols;
    const int64_t n_head = job->row->part == PART_ALL ? n : r->hparams->head_dim * n_row;
    for (int64_t i = 0; i < n; i += n_head) {
        int64_t from = begin + i;
        if (job->row->part != PART_ALL)
            from = from * 3 + (job->row->part - PART_Q) * n_head;
        quip_status status =
            qp_format_read_f32(job->entry->format, job->entry->tensor, (uint64_t)from,
                               (size_t)n_head, r->values + i, error);
        if (status)
            return status;
    }
    return QUIP_OK;
}

quip_status qp_rows_read(struct row_reader *r, const struct job *job, int64_t begin, int64_t n,
                         const float **values, quip_error *error)
{
    const int64_t cols = job->stored.cols;
    assert(begin >= 0 && n > 0 && begin + n <= job->stored.rows && n * cols <= r->max_values);
    float *rows = r->values;
    quip_status status = read_elements(r, job, begin * cols, n * cols, error);
    if (status)
        return status;
    if (is_paired(r, job)) {
        unpair_rows(r->ordered, r->values, n, cols, r->hparams->head_dim);
        rows = r->ordered;
    }
    // GGUF files include the 1 that Gemma's norms add to a weight; MediaPipe's model files do not
    if (r->checkpoint->is_gguf && r->hparams->family->norm == NORM_RMS_PLUS_1 &&
        job->row->weight_class == CLASS_NORM)
        for (int64_t i = 0; i < n * cols; i++)
            rows[i] -= 1;
    *values = rows;
    return r->merge ? qp_lora_merge_add(r->merge, job, r->hparams->head_dim, begin, n, rows, error)
                    : QUIP_OK;
}
