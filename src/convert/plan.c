/* plan.c: which tensor of the checkpoint becomes which tensor of the model file.
 * In:  the hyper-parameters, the table of tensors (tensors_convert.c), the checkpoint's tensors.
 * Out: a list of jobs in the order in which a model uses its weights.
 *
 * Every tensor is checked. One error message names all problems: tensors that are missing, have a
 * wrong shape or an unreadable type, occur twice, or are unknown. */
#include "convert/plan.h"
#include "convert/checkpoint_kind.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_TENSOR_NAME = 160,
    MAX_NAMED = 3 // tensors that a message names for each problem; the rest are counted
};

/* ---- problems ---- */

/* The tensors that have one problem: the first few names, and how many. */
struct problem {
    const char *what;
    struct bytes names;
    int n;
};
enum {
    MISSING,
    MISSHAPEN,
    UNREADABLE,
    DOUBLED,
    EXTRA,
    N_PROBLEMS
};

struct planner {
    struct plan *plan;
    const struct checkpoint *checkpoint;
    struct hparams *hparams;
    const struct convert_options *options;
    quip_error *error;
    unsigned model_has, has; // conditions of the model, and of the layer
    struct problem problems[N_PROBLEMS];
    const char *unreadable_type; // of the first such tensor
};

static void report_problem(struct problem *c, const char *name, const char *details)
{
    if (c->n++ < MAX_NAMED)
        qp_bytes_printf(&c->names, "%s%s%s", c->n > 1 ? ", " : "", name, details);
}

static void print_shape(char *text, size_t size, const int64_t *dims, int n_dims)
{
    int n = snprintf(text, size, "[");
    for (int i = 0; i < n_dims && n < (int)size; i++)
        n += snprintf(text + n, size - (size_t)n, i ? ", %lld" : "%lld", (long long)dims[i]);
    if (n < (int)size)
        snprintf(text + n, size - (size_t)n, "]");
}

/* Of layer l, where layers differ. */
static int64_t extent_of(const struct hparams *h, enum extent extent, int l)
{
    const struct raw_config *raw = &h->raw;
    const int64_t n_heads = raw->n_heads, n_layers = raw->n_layers;
    const int64_t head_dim = qp_of_layer(&raw->head_dims, l, raw->head_dim);
    switch (extent) {
    case EXTENT_NONE:
        return 0;
    case EXTENT_MODEL:
        return h->raw.d_model;
    case EXTENT_FF:
        return qp_of_layer(&raw->d_ffs, l, raw->d_ff);
    case EXTENT_VOCAB:
        return h->raw.vocab_size;
    case EXTENT_HEAD:
        return head_dim;
    case EXTENT_Q:
        return n_heads * head_dim;
    case EXTENT_KV:
        return qp_of_layer(&h->raw.kv_heads, l, h->raw.n_kv_heads) * head_dim;
    case EXTENT_ONE:
        return 1;
    case EXTENT_PLE:
        return h->raw.d_ple;
    case EXTENT_PLE_LAYERS:
        return n_layers * h->raw.d_ple;
    case EXTENT_PLE_ROWS:
        return n_layers * h->raw.vocab_size;
    case EXTENT_POSITIONS:
        return h->raw.n_context_max;
    case EXTENT_CONV:
        return raw->conv_width;
    case EXTENT_EXPERTS:
        return raw->n_experts;
    case EXTENT_EXPERT_FF:
        return raw->d_ff_expert;
    case EXTENT_ALL_FF:
        return (int64_t)raw->n_experts * raw->d_ff_expert;
    case EXTENT_ALL_MODEL:
        return (int64_t)raw->n_experts * raw->d_model;
    }
    return 0;
}

struct row_map qp_plan_module_map(const struct hparams *h, const struct tensor_row *row)
{
    const int d_model = h->raw.d_model;
    if (row->needs & IF_CONV) // its blocks have one width
        return (struct row_map){
            .part = row->part, .n_heads = 1, .n_kv_heads = 1, .head_dim = d_model
        };
    if (row->part >= EXPERT_GATE)
        return (struct row_map){ .part = row->part, .d_ff = h->raw.d_ff_expert };
    return (struct row_map){
        .part = row->part,
        .is_paired = h->raw.family->pairs_rope && row->has_rope,
        .n_heads = h->raw.n_heads,
        .n_kv_heads = h->raw.n_kv_heads,
        .head_dim = h->raw.head_dim,
        .rope_dim = h->raw.head_dim,
        .d_ff = h->raw.d_ff,
    };
}

/* Whether the matrices of the row are [in, out] in the checkpoint. */
static bool is_transposed(const struct planner *p, const struct tensor_row *row)
{
    return row->rows == EXTENT_CONV || (p->hparams->source->has_conv1d && !p->checkpoint->is_gguf &&
                                        qp_tensor_row_is_layered(row) && row->cols != EXTENT_NONE);
}

int64_t qp_plan_part_rows(const struct hparams *h, const struct tensor_row *row)
{
    return row->rows == EXTENT_ALL_FF      ? h->raw.d_ff_expert
           : row->rows == EXTENT_ALL_MODEL ? h->raw.d_model
                                           : h->raw.head_dim;
}

/* The shape that the row requires of its tensor in the checkpoint; returns the dimensions. */
static int expected_shape(const struct planner *p, const struct tensor_row *row, int layer,
                          int64_t shape[2])
{
    const struct hparams *h = p->hparams;
    const struct row_map map = qp_plan_module_map(h, row);
    const int64_t cols = extent_of(h, row->cols, layer);
    const int64_t rows = qp_tensor_row_is_of_head(row, p->checkpoint->is_gguf)
                             ? qp_plan_part_rows(h, row)
                             : qp_row_map_rows(&map, extent_of(h, row->rows, layer));
    if (row->rows == EXTENT_PLE_ROWS) { // the layers of a token are one row
        shape[0] = rows / h->raw.n_layers;
        shape[1] = cols * h->raw.n_layers;
        return 2;
    }
    shape[0] = is_transposed(p, row) ? cols : rows;
    shape[1] = is_transposed(p, row) ? rows : cols;
    return row->cols == EXTENT_NONE ? 1 : 2;
}

/* Norms of heads may be a matrix with a row for each head. */
static bool is_by_head(const struct planner *p, const struct tensor_row *row, int layer,
                       const struct tensor *t)
{
    const int head_dim = p->hparams->raw.head_dim;
    return row->weight_class == CLASS_NORM && (row->rows == EXTENT_Q || row->rows == EXTENT_KV) &&
           t->n_dims == 2 && t->dims[0] * head_dim == extent_of(p->hparams, row->rows, layer) &&
           t->dims[1] == head_dim;
}

/* Whether it has this shape with its first dimensions as one: a kernel [channels, 1, width], the
 * matrices of all experts, a vector that is a matrix of one row. */
static bool is_flattened(const struct tensor *t, const int64_t *dims, int n_dims)
{
    int64_t rows = 1;
    for (int i = 0; i + 1 < t->n_dims; i++)
        rows = t->dims[i] > 0 && rows < INT64_MAX / t->dims[i] ? rows * t->dims[i] : -1;
    return t->n_dims > n_dims && rows == (n_dims == 1 ? 1 : dims[0]) &&
           t->dims[t->n_dims - 1] == dims[n_dims - 1];
}

static bool has_shape(const struct planner *p, const struct tensor_row *row, int layer,
                      const struct tensor *t)
{
    int64_t expected[2];
    const int n_dims = expected_shape(p, row, layer, expected);
    return (t->n_dims == n_dims && t->dims[0] == expected[0] &&
            (n_dims == 1 || t->dims[1] == expected[1])) ||
           ((row->needs & (IF_CONV | IF_EXPERTS)) && is_flattened(t, expected, n_dims)) ||
           is_by_head(p, row, layer, t);
}

/* Whether the tensor can be read and has the right shape; reports a problem if not. */
static bool check_tensor(struct planner *p, const struct tensor_row *row, int layer,
                         const struct tensor *t)
{
    const bool fits = has_shape(p, row, layer, t);
    const bool is_readable = t->dtype < DTYPE_OTHER && t->dtype != DTYPE_I8 &&
                             t->dtype != DTYPE_I4 && t->dtype != DTYPE_I32;
    char details[200], found[80], right[48];
    if (!fits) {
        int64_t expected[2];
        const int n_dims = expected_shape(p, row, layer, expected);
        print_shape(found, sizeof found, t->dims, t->n_dims);
        print_shape(right, sizeof right, expected, n_dims);
        snprintf(details, sizeof details, " is %s, not %s", found, right);
        report_problem(&p->problems[MISSHAPEN], t->name, details);
    } else if (!is_readable) {
        const char *type = t->type_name ? t->type_name : qp_dtype_name(t->dtype);
        snprintf(details, sizeof details, " (%s)", type);
        p->unreadable_type = p->unreadable_type ? p->unreadable_type : type;
        report_problem(&p->problems[UNREADABLE], t->name, details);
    }
    return fits && is_readable;
}

struct entry *qp_plan_find(const struct checkpoint *c, const struct tensor_row *row, int layer,
                           int head)
{
    char name[MAX_TENSOR_NAME];
    const char *pattern = c->is_gguf ? row->gguf : row->hf;
    if (!pattern)
        return NULL;
    snprintf(name, sizeof name, pattern, layer, head); // few patterns have a head
    return qp_checkpoint_find(c, name);
}

/* Of the rows from i on that are for the same tensor: the first that the checkpoint has in the
 * right shape, or else the first that it has; row i, without an entry, if it has none. */
static const struct tensor_row *choose_row(const struct planner *p, int i, int layer,
                                           struct entry **entry)
{
    const struct tensor_row *first = &qp_tensor_rows[i], *chosen = first;
    *entry = NULL;
    for (int k = i; k < qp_n_tensor_rows; k++) {
        const struct tensor_row *row = &qp_tensor_rows[k];
        if (!qp_tensor_row_applies(k, p->hparams->source->namings, p->has) ||
            strcmp(row->target, first->target) != 0)
            continue;
        struct entry *e = qp_plan_find(p->checkpoint, row, layer, 0);
        if (e && has_shape(p, row, layer, e->tensor)) {
            *entry = e;
            return row;
        }
        if (e && !*entry) {
            *entry = e;
            chosen = row;
        }
    }
    return chosen;
}

/* GGUF files of models without token types, such as DistilBERT, have no such tensor. */
static bool may_lack_types(const struct checkpoint *c)
{
    const struct metadata *m =
        c->is_gguf
            ? qp_format_find_metadata(&c->shards[0].format, "tokenizer.ggml.token_type_count")
            : NULL;
    return m && m->type == METADATA_INT && m->i == 1;
}

/* Texts of BERT have the token type 0, whose vector is added to that of each position here, or of
 * each token if there are no positions. */
static void plan_token_types(struct planner *p, struct job *job)
{
    const enum weight_class weight_class =
        p->hparams->raw.traits.has_positions ? CLASS_POSITIONS : CLASS_EMBEDDING;
    const char *name =
        p->checkpoint->is_gguf ? "token_types.weight" : "embeddings.token_type_embeddings.weight";
    struct entry *e = qp_checkpoint_find(p->checkpoint, name);
    if (!(job->row->namings & NAMES_BERT) || job->row->weight_class != weight_class ||
        (!e && may_lack_types(p->checkpoint)))
        return;
    if (!e || e->tensor->n_dims != 2 || e->tensor->dims[0] < 1 ||
        e->tensor->dims[1] != p->hparams->raw.d_model) {
        report_problem(&p->problems[e ? MISSHAPEN : MISSING], name, "");
        return;
    }
    e->is_used = true;
    job->added = e;
}

/* Check the tensors of the other heads, where each head has one. */
static bool check_heads(struct planner *p, const struct tensor_row *row, int layer)
{
    if (!qp_tensor_row_is_of_head(row, p->checkpoint->is_gguf))
        return true;
    const int64_t n_heads =
        extent_of(p->hparams, row->rows, layer) / qp_plan_part_rows(p->hparams, row);
    bool is_fine = true;
    for (int head = 1; head < n_heads && is_fine; head++) {
        struct entry *e = qp_plan_find(p->checkpoint, row, layer, head);
        char name[MAX_TENSOR_NAME];
        snprintf(name, sizeof name, row->hf, layer, head);
        if (e)
            e->is_used = true;
        else
            report_problem(&p->problems[MISSING], name, "");
        is_fine = e && check_tensor(p, row, layer, e->tensor);
    }
    return is_fine;
}

static void plan_tensor(struct planner *p, int i, int layer)
{
    struct entry *e;
    const struct tensor_row *row = choose_row(p, i, layer, &e);
    assert(layer >= 0);
    if (!e) {
        char name[MAX_TENSOR_NAME];
        snprintf(name, sizeof name, p->checkpoint->is_gguf ? row->gguf : row->hf, layer, 0);
        report_problem(&p->problems[MISSING], name, "");
        return;
    }
    const bool is_new = !e->is_used || row->part != PART_ALL; // not a tied head's second use
    e->is_used = true;
    if (!check_tensor(p, row, layer, e->tensor) || !check_heads(p, row, layer))
        return;
    const bool is_vector = row->cols == EXTENT_NONE;
    const int64_t rows = extent_of(p->hparams, row->rows, layer),
                  cols = extent_of(p->hparams, row->cols, layer);
    assert(p->plan->n_jobs < qp_n_tensor_rows * p->hparams->raw.n_layers);
    struct job *job = &p->plan->jobs[p->plan->n_jobs++];
    *job = (struct job){
        .row = row,
        .layer = layer,
        .entry = e,
        .is_transposed = is_transposed(p, row),
        .stored = { .source = e->tensor->name,
                    .rows = is_vector ? 1 : rows,
                    .cols = is_vector ? rows : cols,
                    .is_first = p->plan->n_jobs == 1 },
    };
    qp_store_as(&job->stored, p->options, row->weight_class);
    plan_token_types(p, job);
    if (is_new)
        p->hparams->n_parameters += (uint64_t)(rows * (is_vector ? 1 : cols));
}

/* Report names that occur twice, and tensors that no row requires. */
static void check_entries(struct planner *p)
{
    const struct checkpoint *c = p->checkpoint;
    for (int i = 0; i < c->n_entries; i++) {
        const struct entry *e = &c->entries[i];
        if (i > 0 && strcmp(e->key, e[-1].key) == 0) {
            if (i < 2 || strcmp(e->key, e[-2].key) != 0)
                report_problem(&p->problems[DOUBLED], e->tensor->name, "");
        } else if (!e->is_used && !(i + 1 < c->n_entries && strcmp(e->key, e[1].key) == 0)) {
            report_problem(&p->problems[EXTRA], e->tensor->name, "");
        }
    }
}

/* Report all problems in one sentence. */
static quip_status report(const struct planner *p)
{
    struct bytes text = { 0 };
    bool ok = true;
    for (int i = 0; i < N_PROBLEMS; i++) {
        const struct problem *c = &p->problems[i];
        if (c->n == 0)
            continue;
        ok = ok && qp_bytes_printf(&text, "%s %s: %.*s", text.n ? ";" : "", c->what,
                                   (int)c->names.n, (const char *)c->names.data);
        if (c->n > MAX_NAMED)
            ok = ok && qp_bytes_printf(&text, " and %d more", c->n - MAX_NAMED);
    }
    quip_status status = QUIP_OK;
    char reason[300];
    if (!ok)
        status = qp_fail_memory(p->error, "a message", text.n);
    else if (text.n && !p->checkpoint->is_gguf &&
             qp_checkpoint_explain(reason, sizeof reason, p->checkpoint, p->unreadable_type))
        status = qp_fail(p->error, QUIP_E_UNSUPPORTED, "%s: %s", p->checkpoint->path, reason);
    else if (text.n)
        status = qp_fail(p->error, QUIP_E_FORMAT,
                         "%s: its tensors are not those of a %s model;%.*s", p->checkpoint->path,
                         p->hparams->raw.family->name, (int)text.n, (const char *)text.data);
    qp_bytes_close(&text);
    return status;
}

/* Does layer l attend to keys and values of its own? */
static bool owns_keys(const struct planner *p, int l)
{
    return qp_of_layer(&p->hparams->raw.kv_layers, l, l) == l;
}

/* The conditions of layer l. */
static unsigned layer_conditions(const struct planner *p, int l)
{
    const struct raw_config *raw = &p->hparams->raw;
    const bool is_conv = raw->layer_types[0] && raw->layer_types[l] == 'C';
    unsigned has = p->model_has;
    if (is_conv)
        has = (has & ~(unsigned)IF_ATTENTION) | IF_CONV;
    if (is_conv || !owns_keys(p, l))
        has &= ~(unsigned)(IF_KEYS | IF_VALUES);
    if (raw->traits.global_v_is_k && raw->layer_types[l] != 'L')
        has &= ~(unsigned)IF_VALUES;
    if (raw->ff_types[0] && raw->ff_types[l] == 'E')
        has |= IF_EXPERTS | (raw->traits.has_shared_gate ? IF_SHARED_GATE : 0) |
               (raw->traits.has_expert_norms ? IF_EXPERT_NORMS : 0);
    if (extent_of(p->hparams, EXTENT_FF, l) == 0)
        has &= ~(unsigned)IF_DENSE;
    return has;
}

/* A layer that attends to the keys of another one may still have a tensor for its own, which no
 * program uses: Gemma 4. */
static void skip_tensor(const struct planner *p, int i, int layer)
{
    struct entry *e = qp_plan_find(p->checkpoint, &qp_tensor_rows[i], layer, 0);
    if (e)
        e->is_used = true;
}

/* Plan the rows [begin, end), which are repeated for each layer, or one row without a layer. */
static void plan_rows(struct planner *p, int begin, int end)
{
    const unsigned namings = p->hparams->source->namings;
    const bool is_layered = qp_tensor_row_is_layered(&qp_tensor_rows[begin]);
    for (int l = 0; l < (is_layered ? p->hparams->raw.n_layers : 1); l++) {
        p->has = layer_conditions(p, l);
        for (int row = begin; row < end; row++)
            if (qp_tensor_row_applies(row, namings, p->has) &&
                !qp_tensor_row_is_alternative(row, namings, p->has))
                plan_tensor(p, row, l);
            else if (!owns_keys(p, l) && qp_tensor_row_applies(row, namings, p->model_has))
                skip_tensor(p, row, l);
    }
}

/* The divisors of rope, which are computed from the hyper-parameters. */
static void plan_divisors(struct planner *p)
{
    static const struct tensor_row rows[] = {
        { 0, 0, "rope.divisors", "rope.divisors", "rope.divisors", CLASS_BIAS, EXTENT_NONE,
          EXTENT_NONE, false, PART_ALL },
        { 0, 0, "rope.long_divisors", "rope.long_divisors", "rope.long_divisors", CLASS_BIAS,
          EXTENT_NONE, EXTENT_NONE, false, PART_ALL },
    };
    const struct raw_config *raw = &p->hparams->raw;
    assert(raw->rope_divisors <= (int)QP_COUNT(rows));
    for (int i = 0; i < raw->rope_divisors; i++) {
        struct job *job = &p->plan->jobs[p->plan->n_jobs++];
        *job = (struct job){
            .row = &rows[i],
            .values = p->hparams->rope_divisors[i],
            .stored = { .source = rows[i].target, .rows = 1, .cols = raw->rope_dim / 2 },
        };
        qp_store_as(&job->stored, p->options, CLASS_BIAS);
    }
}

quip_status qp_plan_make(struct plan *plan, const struct checkpoint *c, struct hparams *h,
                         const struct convert_options *options, quip_error *error)
{
    struct planner p = {
        .plan = plan,
        .checkpoint = c,
        .hparams = h,
        .options = options,
        .error = error,
        .model_has = qp_tensor_conditions(&h->raw.traits, h->biases, h->is_tied) |
                     (h->raw.d_ple > 0 ? IF_PLE : 0),
        .problems = { [MISSING] = { .what = "missing" },
                      [MISSHAPEN] = { .what = "misshapen" },
                      [UNREADABLE] = { .what = "unreadable" },
                      [DOUBLED] = { .what = "there twice" },
                      [EXTRA] = { .what = "not known" } },
    };
    size_t n = (size_t)qp_n_tensor_rows * (size_t)h->raw.n_layers + 2; // and the divisors
    *plan = (struct plan){ .jobs = calloc(n, sizeof *plan->jobs) };
    if (!plan->jobs)
        return qp_fail_memory(error, "the list of tensors", n * sizeof *plan->jobs);
    for (int begin = 0, end; begin < qp_n_tensor_rows; begin = end) {
        end = begin + 1;
        while (qp_tensor_row_is_layered(&qp_tensor_rows[begin]) && end < qp_n_tensor_rows &&
               qp_tensor_row_is_layered(&qp_tensor_rows[end]))
            end++;
        plan_rows(&p, begin, end);
    }
    plan_divisors(&p);
    check_entries(&p);
    quip_status status = report(&p);
    for (int i = 0; i < N_PROBLEMS; i++)
        qp_bytes_close(&p.problems[i].names);
    return status;
}

void qp_plan_close(struct plan *plan)
{
    free(plan->jobs);
    *plan = (struct plan){ 0 };
}
