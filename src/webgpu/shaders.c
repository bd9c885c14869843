/* shaders.c: the table of shaders, and recording their dispatches.
 * In:  calls: a shader, its constants, parameters and buffers.
 * Out: work of the GPU, in the same order.
 *
 * A pipeline is compiled when a combination of constants is first used: they are written before the
 * text of the shader. Pipelines and bindings are kept. */
#include "webgpu/webgpu_impl.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* The GPU gets the first dispatches of a batch early, so that it begins while the next ones are
 * recorded; then twice as many each time. */
enum {
    MAX_SLOTS = 512, // of parameters
    FIRST_TOGETHER = 16,
    MAX_TOGETHER = 128
};

/* The texts of *.wgsl, which the build makes C of (cmake/embed.cmake). */
extern const char qp_wgsl_act[], qp_wgsl_add[], qp_wgsl_argmax[], qp_wgsl_best[], qp_wgsl_attend[],
    qp_wgsl_attend_few[], qp_wgsl_attend_matrices[], qp_wgsl_attention[], qp_wgsl_combine[],
    qp_wgsl_draw[], qp_wgsl_embed[], qp_wgsl_gated[], qp_wgsl_gemm[], qp_wgsl_gemm_matrices[],
    qp_wgsl_halves[], qp_wgsl_input_norm[], qp_wgsl_input_parts[], qp_wgsl_input_plain[],
    qp_wgsl_input_rounded[], qp_wgsl_keep[], qp_wgsl_matrix[], qp_wgsl_matvec[], qp_wgsl_norm[],
    qp_wgsl_ple[], qp_wgsl_quantize[], qp_wgsl_rope[], qp_wgsl_select[], qp_wgsl_sort[],
    qp_wgsl_split[], qp_wgsl_sum[], qp_wgsl_sum_subgroups[], qp_wgsl_keys[], qp_wgsl_lanes[],
    qp_wgsl_lanes_subgroups[], qp_wgsl_few_memory[], qp_wgsl_few_subgroups[], qp_wgsl_few_heads[],
    qp_wgsl_few_row[], qp_wgsl_few_one[], qp_wgsl_few_four[], qp_wgsl_few_two[], qp_wgsl_subgroup[],
    qp_wgsl_matrows_subgroups[], qp_wgsl_output[], qp_wgsl_products[], qp_wgsl_round[],
    qp_wgsl_round_rows[];

#define NORM_CONSTANTS "iPOST", "bADDS", "bSCALES", "iNEXT", "bIS_LAYER_NORM", "bIS_PLUS_1"
#define MATVEC_CONSTANTS                                                                           \
    "bIS_ALIGNED", "iTYPE", "bHAS_ZEROS", "iGATE", "bCAPS", "bACCUMULATES", "iACT", "uSIZE",       \
        "uLANES", "uSLOTS", "uN_CHUNKS", "bIS_PAIR", "bREADS_AHEAD", "iROUNDS"

#define MATVEC_TEXTS                                                                               \
    qp_wgsl_matrix, qp_wgsl_act, qp_wgsl_lanes, qp_wgsl_products, qp_wgsl_round, qp_wgsl_output,   \
        qp_wgsl_best, qp_wgsl_matvec
#define ROUND_CONSTANTS "bIS_ALIGNED", "bIS_INT4", "uSIZE", "uLANES", "uN_CHUNKS", "iQ_BINDING"

#define ATTENTION_CONSTANTS                                                                        \
    "uHEAD_DIM", "uGROUP", "uN_HEADS", "bKV_F16", "bCAPS", "bHAS_ALIBI", "iACT", "uWORDS"

#define ATTEND_FEW_TEXTS qp_wgsl_act, qp_wgsl_attention, qp_wgsl_few_memory, qp_wgsl_attend_few
#define ATTEND_FEW_CONSTANTS                                                                       \
    ATTENTION_CONSTANTS, "bIS_SPLIT", "bAPPENDS", "iQK_NORM", "bIS_LAYER_NORM", "bIS_PLUS_1",      \
        "bV_NORM", "bV_IS_K", "uPITCH", "uSIZE", "bIS_BATCH", "bIS_ONE_ROW", "bIS_ONE_TILE",       \
        "bIS_HALF"

/* Those of families that have more than attention and a feed-forward. */
extern const char qp_wgsl_choose[], qp_wgsl_conv[], qp_wgsl_experts[], qp_wgsl_merge[],
    qp_wgsl_mix[], qp_wgsl_pool[], qp_wgsl_scores[], qp_wgsl_tanh[];

/* The first letter of a constant is its type: a number (i), a number without a sign (u), or true
 * and false (b). */
static const struct shader_kind {
    const char *texts[11];
    int n_read, n_write;
    const char *constants[MAX_CONSTANTS];
} kinds[N_SHADERS] = {
    [SHADER_EMBED] = { { qp_wgsl_matrix, qp_wgsl_best, qp_wgsl_embed },
                       4,
                       2,
                       { "iTYPE", "bHAS_ZEROS", "bHAS_POSITIONS", "bPICKS" } },
    [SHADER_ADD] = { { qp_wgsl_sum, qp_wgsl_norm, qp_wgsl_add },
                     2,
                     2,
                     { "bIS_ALIGNED", NORM_CONSTANTS } },
    [SHADER_MATVEC] = { { MATVEC_TEXTS, qp_wgsl_input_plain }, 2, 1, { MATVEC_CONSTANTS } },
    [SHADER_MATVEC_ROUNDED] = { { MATVEC_TEXTS, qp_wgsl_input_rounded },
                                2,
                                1,
                                { MATVEC_CONSTANTS } },
    [SHADER_MATVEC_NORM] = { { MATVEC_TEXTS, qp_wgsl_sum, qp_wgsl_norm, qp_wgsl_input_norm },
                             4,
                             3,
                             { MATVEC_CONSTANTS, NORM_CONSTANTS, "iSTORES", "bHOLDS" } },
    [SHADER_MATVEC_PARTS] = { { MATVEC_TEXTS, qp_wgsl_input_parts },
                              2,
                              1,
                              { MATVEC_CONSTANTS, "uHEAD_DIM", "uPITCH" } },
    [SHADER_ROUND] = { { qp_wgsl_lanes, qp_wgsl_round, qp_wgsl_input_plain, qp_wgsl_round_rows },
                       2,
                       2,
                       { ROUND_CONSTANTS } },
    [SHADER_ROUND_NORM] = { { qp_wgsl_lanes, qp_wgsl_round, qp_wgsl_sum, qp_wgsl_norm,
                              qp_wgsl_input_norm, qp_wgsl_round_rows },
                            4,
                            4,
                            { ROUND_CONSTANTS, NORM_CONSTANTS, "iSTORES", "bHOLDS" } },
    [SHADER_ROUND_PARTS] = { { qp_wgsl_lanes, qp_wgsl_round, qp_wgsl_input_parts,
                               qp_wgsl_round_rows },
                             2,
                             2,
                             { ROUND_CONSTANTS, "uHEAD_DIM", "uPITCH" } },
    [SHADER_MATROWS] = { { qp_wgsl_matrix, qp_wgsl_act, qp_wgsl_products, qp_wgsl_output,
                           qp_wgsl_matrows_subgroups },
                         3,
                         1,
                         { "iTYPE", "bHAS_ZEROS", "iGATE", "bCAPS", "bACCUMULATES", "iACT", "uSIZE",
                           "uLANES", "uSLOTS", "uN_CHUNKS", "uN_ROWS", "uTILE" } },
    [SHADER_SPLIT] = { { qp_wgsl_split }, 0, 1, { 0 } },
    [SHADER_SUBGROUP] = { { qp_wgsl_subgroup }, 0, 1, { 0 } },
    [SHADER_QUANTIZE] = { { qp_wgsl_quantize }, 1, 2, { 0 } },
    [SHADER_GEMM] = { { qp_wgsl_matrix, qp_wgsl_gemm },
                      3,
                      1,
                      { "iTYPE", "bHAS_ZEROS", "bIS_ALIGNED" } },
#if !defined(__wasm__) // where no browser offers what it needs
    [SHADER_HALVES] = { { qp_wgsl_halves }, 1, 2, { 0 } },
    [SHADER_GEMM_MATRICES] = { { qp_wgsl_matrix, qp_wgsl_act, qp_wgsl_gemm_matrices },
                               3,
                               1,
                               { "iTYPE", "bHAS_ZEROS", "uTILE", "iGATE", "iACT" } },
    [SHADER_ATTEND_MATRICES] = { { qp_wgsl_act, qp_wgsl_attention, qp_wgsl_attend_matrices },
                                 4,
                                 1,
                                 { ATTENTION_CONSTANTS } },
#endif
    [SHADER_GATED] = { { qp_wgsl_act, qp_wgsl_gated }, 1, 1, { "iGATE", "iACT" } },
    [SHADER_CONV] = { { qp_wgsl_conv }, 2, 2, { "iWIDTH", "iRING", "iCHUNK", "bKEEPS" } },
    [SHADER_PLE] = { { qp_wgsl_act, qp_wgsl_ple }, 5, 1, { "bIS_PLUS_1", "iACT" } },
    [SHADER_SCORES] = { { qp_wgsl_matrix, qp_wgsl_scores },
                        3,
                        1,
                        { "iTYPE", "bHAS_ZEROS", "bIS_PLUS_1" } },
    [SHADER_CHOOSE] = { { qp_wgsl_choose }, 2, 1, { "uN", "bIS_NORMALIZED", "bHAS_SHARED_GATE" } },
    [SHADER_EXPERTS] = { { qp_wgsl_matrix, qp_wgsl_act, qp_wgsl_experts },
                         3,
                         1,
                         { "iTYPE", "bHAS_ZEROS", "iSTEP", "bADDS", "iACT" } },
    [SHADER_MERGE] = { { qp_wgsl_merge }, 3, 1, { "bHAS_DENSE", "bIS_PLUS_1" } },
    [SHADER_MIX] = { { qp_wgsl_mix }, 0, 1, { 0 } },
    [SHADER_POOL] = { { qp_wgsl_pool }, 2, 1, { 0 } },
    [SHADER_TANH] = { { qp_wgsl_act, qp_wgsl_tanh }, 0, 1, { "iACT" } },
    [SHADER_ROPE] = { { qp_wgsl_sum, qp_wgsl_rope },
                      4,
                      2,
                      { "uHEAD_DIM", "iQK_NORM", "bIS_LAYER_NORM", "bIS_PLUS_1", "bV_NORM",
                        "bV_IS_K", "bKV_F16", "uWORDS" } },
    [SHADER_ATTEND] = { { qp_wgsl_act, qp_wgsl_attention, qp_wgsl_attend },
                        4,
                        1,
                        { ATTENTION_CONSTANTS } },
    [SHADER_ATTEND_FEW] = { { ATTEND_FEW_TEXTS, qp_wgsl_few_heads, qp_wgsl_few_four },
                            4,
                            2,
                            { ATTEND_FEW_CONSTANTS } },
    [SHADER_ATTEND_TWO] = { { ATTEND_FEW_TEXTS, qp_wgsl_few_row, qp_wgsl_few_two },
                            4,
                            2,
                            { ATTEND_FEW_CONSTANTS } },
    [SHADER_ATTEND_ONE] = { { ATTEND_FEW_TEXTS, qp_wgsl_few_row, qp_wgsl_few_one },
                            4,
                            2,
                            { ATTEND_FEW_CONSTANTS } },
    [SHADER_COMBINE] = { { qp_wgsl_combine }, 1, 1, { "uHEAD_DIM", "uPITCH", "bIS_HALF" } },
    [SHADER_KEEP] = { { qp_wgsl_keep }, 1, 1, { 0 } },
    [SHADER_ARGMAX] = { { qp_wgsl_best, qp_wgsl_argmax }, 1, 1, { "bIS_LAST" } },
    [SHADER_SELECT] = { { qp_wgsl_keys, qp_wgsl_select }, 3, 1, { "iPASS" } },
    [SHADER_DRAW] = { { qp_wgsl_keys, qp_wgsl_sort, qp_wgsl_draw }, 2, 1, { 0 } },
};

/* For profiles. */
static const char *const shader_names[N_SHADERS] = {
    [SHADER_EMBED] = "embedding",
    [SHADER_ADD] = "norms and add",
    [SHADER_MATVEC] = "adapter",
    [SHADER_ROUND] = "round rows",
    [SHADER_ROUND_NORM] = "norm and round rows",
    [SHADER_ROUND_PARTS] = "add parts and round rows",
    [SHADER_QUANTIZE] = "quantize",
    [SHADER_GEMM] = "product of many rows",
    [SHADER_HALVES] = "quantize",
    [SHADER_GEMM_MATRICES] = "product by matrix units",
    [SHADER_GATED] = "activation",
    [SHADER_CONV] = "convolution",
    [SHADER_PLE] = "per-layer embedding",
    [SHADER_SCORES] = "scores of experts",
    [SHADER_CHOOSE] = "choice of experts",
    [SHADER_EXPERTS] = "experts",
    [SHADER_MERGE] = "sum of experts",
    [SHADER_MIX] = "mix inputs",
    [SHADER_POOL] = "mean of a text",
    [SHADER_ROPE] = "rotate and append",
    [SHADER_ATTEND] = "attention of many rows",
    [SHADER_ATTEND_MATRICES] = "attention of many rows",
    [SHADER_ATTEND_FEW] = "attention",
    [SHADER_ATTEND_TWO] = "attention",
    [SHADER_ATTEND_ONE] = "attention",
    [SHADER_COMBINE] = "sum of attention",
    [SHADER_KEEP] = "keep rows",
    [SHADER_ARGMAX] = "most likely token",
    [SHADER_SELECT] = "likely tokens",
    [SHADER_DRAW] = "guess of a draw",
};

/* ---- open and close ---- */

quip_status qp_webgpu_recorder_open(struct webgpu_device *d, quip_error *error)
{
    struct recorder *r = &d->recorder;
    const size_t n_bytes = (size_t)MAX_SLOTS * GPU_ALIGN;
    pthread_mutex_init(&r->lock, NULL);
    r->staged = calloc(2, n_bytes);
    if (!r->staged)
        return qp_fail_memory(error, "the parameters of a GPU", 2 * n_bytes);
    r->written = r->staged + n_bytes;
    r->n_together = FIRST_TOGETHER;
    return qp_gpu_buffer_open(&r->parameters, d->gpu, GPU_UNIFORM, n_bytes, error);
}

void qp_webgpu_recorder_close(struct webgpu_device *d)
{
    struct recorder *r = &d->recorder;
    for (int i = 0; i < r->max_entries; i++)
        qp_gpu_bindings_close(d->gpu, r->entries[i].bindings);
    for (int i = 0; i < r->n_pipelines; i++)
        qp_gpu_pipeline_close(d->gpu, r->pipelines[i].pipeline);
    qp_gpu_buffer_close(d->gpu, r->parameters);
    free(r->entries);
    free(r->pipelines);
    free(r->staged);
    pthread_mutex_destroy(&r->lock);
}

quip_status qp_webgpu_status(struct webgpu_device *d)
{
    return qp_gpu_failure(d->gpu, &d->base.error);
}

/* ---- pipelines ---- */

static bool append_constant(struct bytes *text, const char *name, int32_t value)
{
    switch (name[0]) {
    case 'b':
        return qp_bytes_printf(text, "const %s = %s;\n", name + 1, value ? "true" : "false");
    case 'u':
        return qp_bytes_printf(text, "const %s = %uu;\n", name + 1, (unsigned)value);
    default:
        return qp_bytes_printf(text, "const %s = %d;\n", name + 1, (int)value);
    }
}

/* A text, or the one that does the same with subgroups. */
static const char *variant(const char *text, int subgroup)
{
    if (subgroup < 8)
        return text;
    return text == qp_wgsl_sum          ? qp_wgsl_sum_subgroups
           : text == qp_wgsl_lanes      ? qp_wgsl_lanes_subgroups
           : text == qp_wgsl_few_memory ? qp_wgsl_few_subgroups
                                        : text;
}

static bool append_source(struct bytes *text, const struct call *call, int subgroup)
{
    const struct shader_kind *kind = &kinds[call->shader];
    bool ok = append_constant(text, "uSUBGROUP", subgroup);
    for (int i = 0; i < MAX_CONSTANTS && kind->constants[i] && ok; i++)
        ok = append_constant(text, kind->constants[i], call->constants[i]);
    for (size_t i = 0; i < QP_COUNT(kind->texts) && kind->texts[i] && ok; i++)
        ok = qp_bytes_append_text(text, variant(kind->texts[i], subgroup));
    return ok;
}

static struct pipeline *add_pipeline(struct recorder *r)
{
    if (r->n_pipelines == r->max_pipelines) {
        const int max = 2 * r->max_pipelines + 16;
        struct pipeline *more = realloc(r->pipelines, (size_t)max * sizeof *more);
        if (!more)
            return NULL;
        r->pipelines = more;
        r->max_pipelines = max;
    }
    return &r->pipelines[r->n_pipelines];
}

static quip_status find_pipeline(struct webgpu_device *d, const struct call *call,
                                 struct gpu_pipeline **found)
{
    struct recorder *r = &d->recorder;
    const struct shader_kind *kind = &kinds[call->shader];
    for (int i = 0; i < r->n_pipelines; i++)
        if (r->pipelines[i].shader == call->shader &&
            memcmp(r->pipelines[i].constants, call->constants, sizeof call->constants) == 0) {
            *found = r->pipelines[i].pipeline;
            return QUIP_OK;
        }
    struct bytes text = { 0 };
    struct pipeline *p = add_pipeline(r);
    if (!p || !append_source(&text, call, call->no_subgroups ? 1 : d->subgroup)) {
        qp_bytes_close(&text);
        return qp_fail_memory(&d->base.error, "a shader", text.n);
    }
    *p = (struct pipeline){ .shader = call->shader };
    memcpy(p->constants, call->constants, sizeof p->constants);
    p->pipeline =
        qp_gpu_pipeline_open(d->gpu, (const char *)text.data, text.n, kind->n_read, kind->n_write);
    qp_bytes_close(&text);
    const quip_status status = qp_webgpu_status(d);
    r->n_pipelines += !status;
    *found = p->pipeline;
    return status;
}

/* ---- bindings ---- */

/* FNV-1a; never 0. */
static uint64_t hash_ranges(const struct gpu_range *ranges, int n)
{
    uint64_t hash = 14695981039346656037u;
    for (int i = 0; i < n; i++) {
        const uint64_t words[] = { (uint64_t)(uintptr_t)ranges[i].buffer, ranges[i].offset,
                                   ranges[i].n_bytes };
        for (size_t j = 0; j < QP_COUNT(words); j++)
            hash = (hash ^ (words[j] + (words[j] >> 29))) * 1099511628211u;
    }
    return hash | 1;
}

static struct binding_entry *find_entry(const struct recorder *r, uint64_t hash,
                                        const struct call *call, const struct shader_kind *kind)
{
    const size_t n_bytes = (size_t)(kind->n_read + kind->n_write) * sizeof call->bindings[0];
    size_t i = (size_t)(hash >> 20);
    for (;; i++) {
        struct binding_entry *e = &r->entries[i & (size_t)(r->max_entries - 1)];
        if (e->hash == 0 ||
            (e->hash == hash && e->n_read == kind->n_read && e->n_write == kind->n_write &&
             memcmp(e->ranges, call->bindings, n_bytes) == 0))
            return e;
    }
}

/* Double the table; or, to forget a buffer, make it again without the entries that have it. */
static bool rebuild_entries(struct gpu *gpu, struct recorder *r, int max,
                            const struct gpu_buffer *without)
{
    struct binding_entry *old = r->entries, *entries = calloc((size_t)max, sizeof *entries);
    const int n_old = r->max_entries;
    if (!entries)
        return false;
    r->entries = entries;
    r->max_entries = max;
    r->n_entries = 0;
    for (int i = 0; i < n_old; i++) {
        bool is_kept = old[i].hash != 0;
        for (int b = 0; b < old[i].n_read + old[i].n_write && is_kept; b++)
            is_kept = !without || old[i].ranges[b].buffer != without;
        if (!is_kept) {
            qp_gpu_bindings_close(gpu, old[i].bindings);
            continue;
        }
        size_t at = (size_t)(old[i].hash >> 20);
        while (entries[at & (size_t)(max - 1)].hash)
            at++;
        entries[at & (size_t)(max - 1)] = old[i];
        r->n_entries++;
    }
    free(old);
    return true;
}

static bool has_buffer(const struct recorder *r, const struct gpu_buffer *buffer)
{
    for (int i = 0; i < r->max_entries; i++)
        for (int b = 0; b < r->entries[i].n_read + r->entries[i].n_write; b++)
            if (r->entries[i].ranges[b].buffer == buffer)
                return true;
    return false;
}

void qp_webgpu_unbind(struct webgpu_device *d, const struct gpu_buffer *buffer)
{
    struct recorder *r = &d->recorder;
    if (!buffer)
        return;
    pthread_mutex_lock(&r->lock);
    if (has_buffer(r, buffer) && !rebuild_entries(d->gpu, r, r->max_entries, buffer)) {
        for (int i = 0; i < r->max_entries; i++) { // no memory: forget all of them
            qp_gpu_bindings_close(d->gpu, r->entries[i].bindings);
            r->entries[i] = (struct binding_entry){ 0 };
        }
        r->n_entries = 0;
    }
    pthread_mutex_unlock(&r->lock);
}

static struct gpu_bindings *find_bindings(struct webgpu_device *d, const struct call *call)
{
    struct recorder *r = &d->recorder;
    const struct shader_kind *kind = &kinds[call->shader];
    const int n = kind->n_read + kind->n_write;
    const uint64_t hash = hash_ranges(call->bindings, n);
    if (2 * r->n_entries >= r->max_entries &&
        !rebuild_entries(d->gpu, r, r->max_entries ? 2 * r->max_entries : 1024, NULL))
        return NULL;
    struct binding_entry *e = find_entry(r, hash, call, kind);
    if (e->hash)
        return e->bindings;
    const struct gpu_range parameters = { r->parameters, 0, MAX_PARAMETERS };
    struct gpu_bindings *bindings =
        qp_gpu_bindings_open(d->gpu, parameters, call->bindings, kind->n_read, kind->n_write);
    if (!bindings)
        return NULL;
    *e = (struct binding_entry){
        .hash = hash, .n_read = kind->n_read, .n_write = kind->n_write, .bindings = bindings
    };
    memcpy(e->ranges, call->bindings, (size_t)n * sizeof e->ranges[0]);
    r->n_entries++;
    return bindings;
}

/* ---- recording ---- */

static bool is_written(const struct recorder *r, int slot)
{
    const size_t at = (size_t)slot * GPU_ALIGN;
    return memcmp(r->staged + at, r->written + at, GPU_ALIGN) == 0;
}

/* Most parameters are those of the batch before: the GPU has them. */
static void write_parameters(struct webgpu_device *d)
{
    struct recorder *r = &d->recorder;
    int begin = r->n_submitted, end = r->n_slots;
    while (begin < end && is_written(r, begin))
        begin++;
    while (end > begin && is_written(r, end - 1))
        end--;
    const size_t at = (size_t)begin * GPU_ALIGN, n_bytes = (size_t)(end - begin) * GPU_ALIGN;
    memcpy(r->written + at, r->staged + at, n_bytes);
    qp_gpu_write(d->gpu, r->parameters, at, r->staged + at, n_bytes);
}

void qp_webgpu_flush(struct webgpu_device *d)
{
    struct recorder *r = &d->recorder;
    write_parameters(d);
    if (d->has_new_rows)
        qp_gpu_write(d->gpu, d->mem.rows.buffer, 0, d->staged_rows,
                     (size_t)d->n_staged * 4 * sizeof *d->staged_rows);
    d->has_new_rows = false;
    r->n_submitted = r->n_slots;
    r->n_together = qp_min(2 * r->n_together, MAX_TOGETHER);
    qp_gpu_submit(d->gpu);
}

void qp_webgpu_discard(struct webgpu_device *d)
{
    struct recorder *r = &d->recorder;
    r->n_slots = r->n_submitted = 0;
    r->n_together = FIRST_TOGETHER;
    qp_gpu_discard(d->gpu);
}

quip_status qp_webgpu_dispatch(struct webgpu_device *d, const struct call *call)
{
    struct recorder *r = &d->recorder;
    struct gpu_pipeline *pipeline = NULL;
    assert(call->n_parameters <= MAX_PARAMETERS && call->x > 0);
    quip_status status = qp_webgpu_settle(d); // the call may read what it leaves
    if (!status)
        status = find_pipeline(d, call, &pipeline);
    if (status)
        return status;
    pthread_mutex_lock(&r->lock);
    struct gpu_bindings *bindings = find_bindings(d, call);
    pthread_mutex_unlock(&r->lock);
    if (!bindings) {
        const quip_status failure = qp_webgpu_status(d);
        return failure
                   ? failure
                   : qp_fail_memory(&d->base.error, "the bindings of a GPU", sizeof *r->entries);
    }
    if (r->n_slots - r->n_submitted == r->n_together || r->n_slots == MAX_SLOTS)
        qp_webgpu_flush(d);
    if (r->n_slots == MAX_SLOTS)
        r->n_slots = r->n_submitted = 0;
    const uint32_t offset = (uint32_t)r->n_slots++ * GPU_ALIGN;
    memcpy(r->staged + offset, call->parameters, call->n_parameters);
    const char *name = call->name ? call->name : shader_names[call->shader];
    qp_webgpu_profile_add(d, name ? name : "other", call->n_weight);
    qp_gpu_dispatch(d->gpu, pipeline, bindings, offset, call->x, call->y ? call->y : 1,
                    call->z ? call->z : 1);
    return QUIP_OK;
}
