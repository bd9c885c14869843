/* lora_merge.c: a PEFT adapter that is added to the weights of its model as they are read.
 * In:  an adapter's folder, or its weights; the plan of the model's tensors.
 * Out: w + scale * b a for the rows of every matrix that the adapter names. Before anything is
 *      written, all of its tensors have found their matrix, and have the right shape. */
#include "convert/lora_merge.h"
#include "format/peft.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_MODULE_NAME = 200
};

/* The two low-rank matrices beside one matrix of the checkpoint. */
struct lora_merge_pair {
    const struct tensor *a, *b; // [rank, n_in], [n_out, rank]
    char module[MAX_MODULE_NAME];
    bool is_used;
};

struct lora_merge {
    struct adapter_files files;
    struct lora_merge_pair *pairs;
    int n_pairs;
    /* Of the current job: */
    const struct job *job;
    const struct lora_merge_pair *pair; // NULL: nothing to add
    float *a, *b, *sum;
    int rank;
    double scale;
};

/* ---- the adapter's tensors ---- */

/* "…q_proj.lora_A.weight" -> "…q_proj", without wrapping; false for a name of another form. */
static bool parse_name(const char *name, char module[MAX_MODULE_NAME], bool *is_b)
{
    size_t n;
    name = qp_name_unwrap(name);
    if (!qp_peft_side(name, &n, is_b) || n >= MAX_MODULE_NAME)
        return false;
    memcpy(module, name, n);
    module[n] = 0;
    return true;
}

static struct lora_merge_pair *find_pair(const struct lora_merge *m, const char *module)
{
    for (int i = 0; i < m->n_pairs; i++)
        if (strcmp(m->pairs[i].module, module) == 0)
            return &m->pairs[i];
    return NULL;
}

static quip_status pair_tensors(struct lora_merge *m, quip_error *error)
{
    const size_t n = (size_t)m->files.format.n_tensors;
    m->pairs = calloc(n ? n : 1, sizeof *m->pairs);
    if (!m->pairs)
        return qp_fail_memory(error, "the adapter's tensors", n * sizeof *m->pairs);
    for (int i = 0; i < m->files.format.n_tensors; i++) {
        const struct tensor *t = &m->files.format.tensors[i];
        char module[MAX_MODULE_NAME];
        bool is_b;
        if (!parse_name(t->name, module, &is_b))
            return qp_fail(
                error, QUIP_E_UNSUPPORTED,
                "%s: %s is not a LoRA weight (…lora_A.weight, …lora_B.weight); only those "
                "are merged",
                m->files.file.name, t->name);
        struct lora_merge_pair *p = find_pair(m, module);
        if (!p) {
            p = &m->pairs[m->n_pairs++];
            strcpy(p->module, module);
        }
        const struct tensor **half = is_b ? &p->b : &p->a;
        if (*half)
            return qp_fail(error, QUIP_E_FORMAT, "%s: %s and %s are the same matrix",
                           m->files.file.name, (*half)->name, t->name);
        *half = t;
    }
    return m->n_pairs ? QUIP_OK
                      : qp_fail(error, QUIP_E_FORMAT, "%s: has no tensors", m->files.file.name);
}

/* ---- pairs and matrices ---- */

/* The pair for a job; NULL if there is none. */
static struct lora_merge_pair *pair_of_job(const struct lora_merge *m, const struct job *job)
{
    char name[MAX_MODULE_NAME];
    if (!job->row->hf || job->row->cols == EXTENT_NONE || qp_tensor_row_is_of_head(job->row, false))
        return NULL;
    snprintf(name, sizeof name, job->row->hf, job->layer);
    char *end = strstr(name, ".weight");
    if (!end)
        return NULL;
    *end = 0;
    return find_pair(m, qp_name_unwrap(name));
}

static quip_status check_pair_shape(const struct lora_merge *m, const struct lora_merge_pair *p,
                                    const struct job *job, const struct hparams *h,
                                    quip_error *error)
{
    const struct row_map map = qp_plan_module_map(h, job->row);
    const int64_t n_in = job->stored.cols, n_out = qp_row_map_rows(&map, job->stored.rows);
    if (!p->a || !p->b)
        return qp_fail(error, QUIP_E_FORMAT, "%s: %s has only one of lora_A and lora_B",
                       m->files.file.name, p->module);
    const int64_t rank = p->a->n_dims == 2 ? p->a->dims[0] : 0;
    if (rank < 1 || rank > n_in || p->a->dims[1] != n_in || p->b->n_dims != 2 ||
        p->b->dims[0] != n_out || p->b->dims[1] != rank)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: %s has shapes [%lld, %lld] and [%lld, %lld], which do not fit a matrix "
                       "[%lld, %lld]; is the adapter for another model?",
                       m->files.file.name, p->module, (long long)p->a->dims[0],
                       (long long)p->a->dims[1], (long long)p->b->dims[0], (long long)p->b->dims[1],
                       (long long)n_out, (long long)n_in);
    return qp_peft_check_pair(&m->files, p->a->name, rank, error);
}

static quip_status match_plan(struct lora_merge *m, const struct plan *plan,
                              const struct hparams *h, quip_error *error)
{
    for (int i = 0; i < plan->n_jobs; i++) {
        struct lora_merge_pair *p = pair_of_job(m, &plan->jobs[i]);
        quip_status status = p ? check_pair_shape(m, p, &plan->jobs[i], h, error) : QUIP_OK;
        if (status)
            return status;
        if (p)
            p->is_used = true;
    }
    for (int i = 0; i < m->n_pairs; i++)
        if (!m->pairs[i].is_used)
            return qp_fail(error, QUIP_E_FORMAT,
                           "%s: %s is not a matrix of this model; is the adapter for another?",
                           m->files.file.name, m->pairs[i].module);
    return QUIP_OK;
}

/* ---- files ---- */

quip_status qp_lora_merge_open(struct lora_merge **merge, const char *path, const struct plan *plan,
                               const struct hparams *h, quip_error *error)
{
    struct lora_merge *m = calloc(1, sizeof *m);
    *merge = m;
    if (!m)
        return qp_fail_memory(error, path, sizeof *m);
    quip_status status = qp_adapter_files_open_with(&m->files, path, &qp_pytorch_reader, error);
    if (!status && m->files.format.kind == FORMAT_TFLITE)
        status = qp_fail(error, QUIP_E_UNSUPPORTED,
                         "%s: is a MediaPipe LoRA file; only PEFT adapters can be merged",
                         m->files.file.name);
    if (!status)
        status = pair_tensors(m, error);
    return status ? status : match_plan(m, plan, h, error);
}

static void drop_job(struct lora_merge *m)
{
    free(m->a);
    free(m->b);
    free(m->sum);
    m->a = m->b = m->sum = NULL;
    m->job = NULL;
}

void qp_lora_merge_close(struct lora_merge *m)
{
    if (!m)
        return;
    drop_job(m);
    free(m->pairs);
    qp_adapter_files_close(&m->files);
    free(m);
}

/* ---- adding ---- */

static quip_status begin_job(struct lora_merge *m, const struct job *job, quip_error *error)
{
    drop_job(m);
    m->job = job;
    m->pair = pair_of_job(m, job);
    if (!m->pair)
        return QUIP_OK;
    const struct tensor *a = m->pair->a, *b = m->pair->b;
    const size_t n_a = (size_t)(a->dims[0] * a->dims[1]), n_b = (size_t)(b->dims[0] * b->dims[1]);
    m->rank = (int)a->dims[0];
    m->scale = qp_peft_scale(&m->files.config, a->name, m->rank);
    m->a = malloc(n_a * sizeof *m->a);
    m->b = malloc(n_b * sizeof *m->b);
    m->sum = malloc((size_t)a->dims[1] * sizeof *m->sum);
    if (!m->a || !m->b || !m->sum)
        return qp_fail_memory(error, m->pair->module, (n_a + n_b) * sizeof *m->a);
    quip_status status = qp_format_read_f32(&m->files.format, a, 0, n_a, m->a, error);
    return status ? status : qp_format_read_f32(&m->files.format, b, 0, n_b, m->b, error);
}

quip_status qp_lora_merge_add(struct lora_merge *m, const struct job *job,
                              const struct row_map *map, int64_t begin, int64_t n, float *rows,
                              quip_error *error)
{
    const int64_t n_in = job->stored.cols;
    assert(begin >= 0 && n > 0 && begin + n <= job->stored.rows);
    quip_status status = m->job == job ? QUIP_OK : begin_job(m, job, error);
    if (status || !m->pair)
        return status;
    for (int64_t r = begin; r < begin + n; r++, rows += n_in) {
        const int64_t at = qp_row_map_at(map, r);
        memset(m->sum, 0, (size_t)n_in * sizeof *m->sum);
        for (int k = 0; k < m->rank; k++) {
            const float b = m->b[at * m->rank + k], *a = m->a + k * n_in;
            for (int64_t i = 0; i < n_in; i++)
                m->sum[i] += b * a[i];
        }
        for (int64_t i = 0; i < n_in; i++)
            rows[i] += (float)m->scale * m->sum[i];
    }
    return QUIP_OK;
}
