/* webgpu_impl.h: what the files of the GPU backend share.
 *   backend.c        opens and closes a device; memory of a batch; the table of the backend
 *   families.c       which models it runs
 *   shaders.c        the table of shaders, pipelines and bindings; records dispatches
 *   upload.c         matrices and vectors of a model -> buffers
 *   ops.c            operations: embed, norm, add, outputs
 *   ops_linear.c     matrix products, and what adapters add to them
 *   few_rows.c       products of few rows
 *   ops_attention.c  rotation and attention
 *   ops_conv.c       short convolutions, and the columns of sequences
 *   ops_experts.c    mixtures of experts
 *   ops_ple.c        per-layer embeddings
 *   ops_texts.c      pooling and dense layers for embeddings
 *   profile.c        the dispatches of batches, and their times
 *   ops_sample.c     draws: what they need of the logits
 *   ops_results.c    what comes back for draws -> tokens
 *   ops_tokens.c     what comes back
 *   sequence.c       keys, values and outputs of sequences
 *   kv_pool.c        the buffers of keys and values
 *   adapter.c        adapters, packed
 *   device.h         the GPU itself; device_native.c implements it with a library, native_failure.c
 *                    keeps what goes wrong there
 *
 * A row of a buffer of a batch begins at a multiple of 4 floats. */
#ifndef QP_WEBGPU_IMPL_H
#define QP_WEBGPU_IMPL_H

#include "engine/columns.h"
#include "webgpu/device.h"

#include <assert.h>
#include <pthread.h>

/* Up to FEW_ROWS rows of a sequence, a token and its draft tokens, are multiplied one by one
 * (matvec.wgsl) or, with those of other sequences, together (matrows_subgroups.wgsl), which has the
 * same bits. Where that is possible, up to SOME_ROWS are: short prompts. More rows of a sequence go
 * through tiles (gemm.wgsl). */
#define FEW_ROWS SEQUENCE_OUTPUTS
#define SOME_ROWS 64

/* Weights to whose multiple a row is padded: the block of activations that share a scale. */
#define ROW_UNIT 64

/* Of a draw whose logits do not all come back: the most likely tokens, those that are listed
 * because of penalties and biases, and both together (N of keys.wgsl). */
#define MAX_BEST 960
#define MAX_LISTED 960
#define MAX_SELECTED 1024

#define NO_INDEX 0xffffffffu

/* Rows of a batch, and slots of a pool: two numbers in a word (ROWS of the shaders). */
#define MAX_ROW_NUMBERS 65536

static_assert(AHEAD_DRAWS >= LOGITS_ROWS, "each draw has a row of logits");

/* ---- shaders.c ---- */

enum shader {
    SHADER_EMBED,
    SHADER_ADD,
    SHADER_SUBGROUP,
    SHADER_SPLIT,
    SHADER_MATVEC_ROUNDED,
    SHADER_MATVEC,
    SHADER_MATVEC_NORM,
    SHADER_MATVEC_PARTS,
    SHADER_ROUND, // in the order of those
    SHADER_ROUND_NORM,
    SHADER_ROUND_PARTS,
    SHADER_MATROWS,
    SHADER_QUANTIZE,
    SHADER_GEMM,
    SHADER_HALVES,
    SHADER_GEMM_MATRICES,
    SHADER_ATTEND_MATRICES,
    SHADER_GATED,
    SHADER_CONV,
    SHADER_PLE,
    SHADER_SCORES,
    SHADER_CHOOSE,
    SHADER_EXPERTS,
    SHADER_MERGE,
    SHADER_MIX,
    SHADER_POOL,
    SHADER_TANH,
    SHADER_ROPE,
    SHADER_ATTEND,
    SHADER_ATTEND_FEW, // with four lanes in a workgroup,
    SHADER_ATTEND_TWO, // two,
    SHADER_ATTEND_ONE, // or one
    SHADER_COMBINE,
    SHADER_KEEP,
    SHADER_ARGMAX,
    SHADER_SELECT,
    SHADER_DRAW,
    N_SHADERS
};

enum {
    MAX_CONSTANTS = 22,
    N_MATVEC_CONSTANTS = 14,
    N_ROUND_CONSTANTS = 6,
    N_NORM_CONSTANTS = 6, // of norm.wgsl
    MAX_PARAMETERS = 112, // bytes
    MAX_CANDIDATES = 1056 // for the most likely token, of matvec.wgsl
};

/* A dispatch. A constant is the value of the shader's constant of this number (shaders.c); a
 * pipeline is compiled for each combination. */
struct call {
    enum shader shader;
    int32_t constants[MAX_CONSTANTS];
    const void *parameters; // struct Params of the shader
    size_t n_parameters;
    struct gpu_range bindings[GPU_MAX_BINDINGS];
    uint32_t x, y, z;  // workgroups; y and z: 0 is 1
    const char *name;  // for profiles; NULL: that of the shader
    uint64_t n_weight; // bytes of weights that it reads
    bool no_subgroups; // it does not take the variant with subgroups
};

struct pipeline {
    enum shader shader;
    int32_t constants[MAX_CONSTANTS];
    struct gpu_pipeline *pipeline;
};

struct binding_entry {
    uint64_t hash; // 0: free
    struct gpu_range ranges[GPU_MAX_BINDINGS];
    int n_read, n_write;
    struct gpu_bindings *bindings;
};

/* Pipelines and bindings that were made, and the parameters of the dispatches that are recorded. */
struct recorder {
    pthread_mutex_t lock; // of the bindings: adapters close outside of a turn
    struct pipeline *pipelines;
    int n_pipelines, max_pipelines;
    struct binding_entry *entries; // [max_entries], a power of two: a hash table
    int n_entries, max_entries;
    struct gpu_buffer *parameters; // [MAX_SLOTS] of GPU_ALIGN bytes
    uint8_t *staged;               // the same here
    uint8_t *written;              // what the GPU has
    int n_slots, n_submitted;      // dispatches of the batch; those that the GPU has
    int n_together;                // it gets the next ones when this many are recorded
};

/* ---- subgroups.c ---- */

/* Sets d->subgroup. Waits. */
struct webgpu_device;
quip_status qp_webgpu_find_subgroup(struct webgpu_device *d, quip_error *error);
/* Sets d->has_matrices, if the GPU has them and a small product of them is right. */
quip_status qp_webgpu_test_matrices(struct webgpu_device *d, quip_error *error);

/* ---- upload.c ---- */

/* Consecutive rows of a product that are in one buffer. */
struct gpu_slab {
    struct gpu_buffer *buffer;
    uint64_t n_bytes;
    int dtype; // enum dtype
    int n_in, n_rows, first;
    bool has_zeros;
    uint32_t row_vecs, multiplier_at, scale_at, bias_at, zero_at; // struct Matrix of matrix.wgsl
};

/* The rows of one or several matrices of one layer, one after the other. */
struct gpu_product {
    struct gpu_slab *slabs;
    int n_slabs, n_in, n_out;
    const char *name; // for profiles
};

struct layer_products {
    struct gpu_product qkv, o, gate_up, down, ple_gate, ple_out;
    struct gpu_product expert_gate, expert_up, expert_down; // of all experts
    struct gpu_slab router;                                 // and the row of the shared gate
    bool is_fused;                                          // gate and up are in one slab
};

/* Where floats of the model are in the buffer of vectors. */
struct vector_at {
    const float *from;
    uint32_t at, n;
};

/* ---- a device ---- */

struct scratch {
    struct gpu_buffer *buffer;
    uint64_t n_bytes;
    int stride; // words from row to row
};

/* What a batch reads and writes on the GPU. */
struct batch_memory {
    struct scratch x, next_x; // products that compute x themselves write it to the other one
    struct scratch xn, y, qkv, q, att, gate_up, h, logits;
    struct scratch quantized, scales;     // activations as int8 or binary16, and their scales
    struct scratch parts;                 // of attention
    struct scratch ple_rows, ple_context; // [n_rows, n_layers * d_ple], see ops_ple.c
    struct scratch ple_gate, ple;
    struct scratch text_kv, pooled[2];                       // of texts without a KV cache
    struct scratch expert_scores, chosen, expert_h, experts; // see ops_experts.c
    struct scratch rows; // [2 * n_rows] token, position, visible_end, source and slot
    struct scratch draws, candidates, tokens, low_rank;
    struct scratch readback;
};

/* What happens to X between two products (norm.wgsl). */
struct add_step {
    int post; // 1: norm Y before the add; 2: norm X after it
    bool adds, scales;
    int next; // 1: XN = X; 2: XN = norm(X); 3: XN = norm of the X before the step
    const struct norm_weights *post_norm, *next_norm;
    const float *factor;
};

/* Rows of attention in parts that are not added up. */
struct parts {
    int n_rows, n_parts, head_dim; // n_rows 0: there are none
};

/* What was asked for and is not recorded yet. The dispatch behind it does it, too, if it can;
 * before any other dispatch it is recorded by itself (qp_webgpu_settle). */
struct pending {
    struct add_step step;                     // for a product with XN
    int n_rows;                               // of the step; 0: there is none
    const struct norm_weights *parallel_norm; // that made XN of an X which nothing was added to yet
    int l;                                    // layer of a rope_append, for attention
    struct rows rows;                         // of that; n 0: there is none
    struct parts parts;                       // of attention, for the product behind it
    /* Rows of X that are to be copied to the outputs of these sequences, before it changes. */
    struct webgpu_sequence *outputs[LOGITS_ROWS];
    int n_outputs;
    int first_output; // of each sequence: the outputs before belong to other rows
    /* A draw whose token is the best of these candidates; n 0: there is none. */
    struct {
        int draw, n;
    } best;
};

/* The dispatches since a profile began (profile.c). */
struct profile {
    struct kernel_time *dispatches; // [GPU_MAX_MEASURED]; NULL: none are kept
    int n;
};

/* The tokens of a draw whose logits come back in any case. */
struct listed {
    quip_token tokens[MAX_LISTED]; // those with a bias, then the window of the penalties
    int n, n_bias;
    int n_ahead; // tokens behind the n that were drawn before in the batch, not known before poll
};

/* Words of what select.wgsl leaves for a draw. */
enum {
    RESULT_PAIRS = 4, // before them: how many there are, of how many tokens, the largest key
    RESULT_FOUND = RESULT_PAIRS + 2 * MAX_BEST,
    RESULT_SUMS = RESULT_FOUND + MAX_LISTED,
    SELECT_LOGITS = 1024 // of a workgroup (N of keys.wgsl), which has one sum
};

/* From what the tokens of a batch are drawn. */
enum sample {
    SAMPLE_GREEDY, // the GPU finds them
    SAMPLE_KNOWN,  // from logits that select.wgsl found, or all if these do not decide
    SAMPLE_ALL     // from all logits
};

struct webgpu_device {
    struct device base;
    struct gpu *gpu;
    struct recorder recorder;
    struct gpu_product embed, head, ple_context, dense[MAX_DENSE];
    struct layer_products *layers; // [n_layers]
    struct vector_at *vectors;     // [n_vectors], by ascending address
    int n_vectors;
    uint32_t alibi_at; // slopes of the heads, in vector_memory
    struct scratch vector_memory, position_memory;
    struct scratch ropes[N_ROPES][2]; // [n_context, dim / 2] cos and sin; by qp_rope_set
    bool kv_is_f16;
    int subgroup;      // threads of a subgroup, which are neighbours; 1: not known (subgroups.c)
    bool has_matrices; // of subgroups, and they compute rightly (matrices.c)
    uint64_t weight_bytes;
    uint64_t refused_pool; // bytes that there was no memory for (kv_pool.c); 0: none
    uint64_t large_reads;  // bytes of a matrix for whose sake few rows are multiplied together

    struct batch_memory mem;
    uint32_t *staged_rows; // [2 * n_rows][4]
    int n_staged;
    bool has_new_rows; // that the GPU does not have
    int first_row;     // of the rows of the batch, or of those that are kept
    int longest_run;   // rows of a sequence among these
    bool has_texts;    // the batch: its sequences have no KV cache
    bool h_is_rounded; // as ROUNDS of matvec.wgsl leaves it
    const struct row *current;

    struct pending pending;
    struct profile profile;

    /* Of the batch that was submitted. */
    struct draw draws[AHEAD_DRAWS];
    struct sampling sampling[AHEAD_DRAWS];
    int n_draws, n_logits; // rows of logits that were computed
    int n_candidates;      // that the product left of the last row (best.wgsl); 0: none
    int n_host_logits;     // of them, those that come back
    enum sample sample;
    int first_ahead; // draws from this one on are of rows that run ahead
    struct listed listed[AHEAD_DRAWS];
    quip_token found[AHEAD_DRAWS]; // by the GPU
    quip_token tokens[AHEAD_DRAWS];
    int n_finished;               // draws whose tokens are known
    bool is_wrong;                // the last of them: those after it do not count
    bool fetches_row;             // the logits of the next draw come back
    int n_undecided;              // draws lately that needed them
    uint32_t *results;            // [AHEAD_DRAWS, qp_webgpu_result_words], allocated when first
    struct candidate *candidates; // [vocab_size]                           needed, as are these
    float *host_logits;           // [AHEAD_DRAWS, vocab_size]
    size_t n_mapped;              // bytes of readback that were asked for; 0: none
};

/* The columns of one convolution layer. */
struct webgpu_columns {
    struct scratch memory; // [slots, d_model]
    struct columns kept;
};

/* Buffers of keys and values, for sequences with the same n_context. */
struct kv_pool {
    struct scratch *layers;           // [n_layers], [n_slots] times what a sequence has there
    struct webgpu_sequence **members; // [n_slots]; NULL: left it
    int n_slots, n;                   // n: slots that were given to a sequence
};

struct webgpu_sequence {
    struct sequence base;
    struct webgpu_columns *columns; // [n_layers], or NULL if the model has no convolution
    struct kv_pool *pool;
    int slot;
    struct scratch outputs;
    int max_outputs, n_outputs;
    int n_written; // no position behind these was in the cache since it was at 0
};

/* What an adapter adds to a matrix: b (a x). */
struct lora_slabs {
    struct gpu_slab a, b; // of floats; n_rows 0: nothing
};
struct device_adapter {
    struct webgpu_device *device;
    struct lora_slabs *pairs; // [n_layers][N_MATRICES]
};

static inline struct webgpu_device *webgpu_of(struct device *d)
{
    return (struct webgpu_device *)d;
}

static inline struct webgpu_sequence *webgpu_sequence_of(struct sequence *s)
{
    return (struct webgpu_sequence *)s;
}

/* Do many rows use matrix units? No browser offers what these need, and a page should not download
 * their code. */
static inline bool uses_matrices(const struct webgpu_device *d)
{
#if defined(__wasm__)
    (void)d;
    return false;
#else
    return d->has_matrices;
#endif
}

/* Floats from row to row of a buffer of this width. */
static inline int stride_of(int width)
{
    return (int)qp_round_up((size_t)width, 4);
}

/* The same of the outputs of a sequence, which are bound row by row. */
static inline int output_stride(const struct config *c)
{
    return (int)qp_round_up((size_t)c->d_model, GPU_ALIGN / sizeof(float));
}

static inline struct gpu_range range_of(const struct scratch *s)
{
    return (struct gpu_range){ s->buffer, 0, s->n_bytes };
}

static inline struct gpu_range slab_range(const struct gpu_slab *p)
{
    return (struct gpu_range){ p->buffer, 0, p->n_bytes };
}

/* Words of a head in the cache: floats, or pairs of binary16; whole vec4s. */
static inline int kv_words(bool is_f16, int head_dim)
{
    return (int)qp_round_up((size_t)(is_f16 ? head_dim / 2 : head_dim), 4);
}

/* Does layer l have keys and values of its own? */
static inline bool owns_keys(const struct config *c, int l)
{
    return c->layers[l].kv_layer == l && c->layers[l].mixer == MIXER_ATTENTION;
}

/* Consecutive rows of a batch that belong to one sequence. */
struct row_run {
    struct webgpu_sequence *sequence;
    int first, n;
    const struct row *row; // the first
};
/* The run that begins at row `first`. */
static inline struct row_run run_at(const struct rows *rows, int first)
{
    struct row_run r = { webgpu_sequence_of(rows->row[first].sequence), first, 1,
                         &rows->row[first] };
    while (first + r.n < rows->n && rows->row[first + r.n].sequence == &r.sequence->base)
        r.n++;
    return r;
}

/* The keys and values of a run in a layer. */
struct kv_view {
    struct gpu_range range;
    bool is_f16;
    int n_blocks; // of a head
};

/* ---- backend.c ---- */

quip_status qp_webgpu_alloc(struct webgpu_device *d, struct scratch *s, uint64_t n_rows, int stride,
                            quip_error *error);
void qp_webgpu_free(struct webgpu_device *d, struct scratch *s);

/* ---- families.c ---- */

quip_status qp_webgpu_check_model(const quip_model *model, quip_error *error);

/* ---- shaders.c ---- */

quip_status qp_webgpu_recorder_open(struct webgpu_device *d, quip_error *error);
void qp_webgpu_recorder_close(struct webgpu_device *d);
/* Record a dispatch. The status of a failure is in d->base.error. */
quip_status qp_webgpu_dispatch(struct webgpu_device *d, const struct call *call);
/* Run or forget what was recorded. */
void qp_webgpu_flush(struct webgpu_device *d);
void qp_webgpu_discard(struct webgpu_device *d);
/* Forget the bindings of a buffer before it is closed. */
void qp_webgpu_unbind(struct webgpu_device *d, const struct gpu_buffer *buffer);
/* QUIP_OK, or the failure of the GPU, in d->base.error. */
quip_status qp_webgpu_status(struct webgpu_device *d);

/* ---- profile.c ---- */

void qp_webgpu_profile_add(struct webgpu_device *d, const char *name, uint64_t n_weight);
int qp_webgpu_profile(struct device *device, struct kernel_time *times, int max);

/* ---- upload.c ---- */

quip_status qp_webgpu_upload(struct webgpu_device *d, const quip_model *model, quip_error *error);
/* A matrix of floats, with rows [n_rows, n_in]. */
quip_status qp_webgpu_upload_floats(struct webgpu_device *d, struct gpu_slab *slab,
                                    const float *rows, int n_rows, int n_in, quip_error *error);
void qp_webgpu_free_slab(struct webgpu_device *d, struct gpu_slab *slab);
void qp_webgpu_free_weights(struct webgpu_device *d);
/* The index in vector_memory of floats of the model; NO_INDEX: `from` is NULL. */
uint32_t qp_webgpu_vector(const struct webgpu_device *d, const float *from);
/* Bytes that all of them have. */
uint64_t qp_webgpu_weight_bytes(const quip_model *model);

/* ---- operations ---- */

/* Record what is pending. A dispatch does it by itself; what copies X, or stages rows, calls this
 * first. */
quip_status qp_webgpu_settle(struct webgpu_device *d);
quip_status qp_webgpu_settle_append(struct webgpu_device *d); // only the rope_append
quip_status qp_webgpu_settle_parts(struct webgpu_device *d);  // only the parts
/* Copy the outputs that are pending: before rows of another batch are in X, and before submit. */
quip_status qp_webgpu_settle_outputs(struct webgpu_device *d);
/* Where the step that is pending can leave the only row of X, because it is an output; no buffer:
 * there is no such row. */
struct gpu_range qp_webgpu_pending_output(const struct webgpu_device *d);
quip_status qp_webgpu_settle_best(struct webgpu_device *d); // the token that is pending
/* The parameters of norm.wgsl, and its constants. */
struct norm_parameters {
    uint32_t n, stride, post_scale_at, post_bias_at, next_scale_at, next_bias_at, factor_at;
    float eps, residual_scale;
};
struct norm_parameters qp_webgpu_norm_parameters(const struct webgpu_device *d,
                                                 const struct add_step *s);
void qp_webgpu_norm_constants(const struct webgpu_device *d, const struct add_step *s,
                              int32_t constants[N_NORM_CONSTANTS]);

/* struct Matrix of matrix.wgsl, and its TYPE. */
struct matrix_parameters {
    uint32_t n_in, n_rows, row_vecs, first, multiplier_at, scale_at, bias_at, zero_at;
};
struct matrix_parameters qp_webgpu_describe(const struct gpu_slab *p);
int qp_webgpu_type(const struct gpu_slab *p);

quip_status qp_webgpu_embed(struct device *device, const struct rows *rows);
quip_status qp_webgpu_norm(struct device *device, const struct norm_weights *w, int n_rows);
quip_status qp_webgpu_add(struct device *device, const struct norm_weights *post_norm,
                          const struct norm_weights *next, int n_rows);
quip_status qp_webgpu_scale(struct device *device, const float *factor,
                            const struct norm_weights *next, int n_rows);
quip_status qp_webgpu_keep_rows(struct device *device, const struct rows *rows,
                                const struct rows *kept);
quip_status qp_webgpu_keep_outputs(struct device *device, const struct rows *rows);
quip_status qp_webgpu_load_outputs(struct device *device, const struct output *outputs, int n);
quip_status qp_webgpu_linear(struct device *device, enum buffer out, struct matrix_set w,
                             enum buffer in, struct matrix_set next, const struct rows *rows);
quip_status qp_webgpu_gated(struct device *device, int l, struct matrix_set next,
                            const struct rows *rows);
quip_status qp_webgpu_logits(struct device *device, int n);
/* out = product times in */
quip_status qp_webgpu_multiply(struct webgpu_device *d, const struct gpu_product *w,
                               const struct scratch *in, const struct scratch *out,
                               const struct rows *rows);
/* out += what the adapters of the rows add to the matrices of `w`, which begin at this column. */
quip_status qp_webgpu_add_adapters(struct webgpu_device *d, struct matrix_set w,
                                   const struct scratch *in, const struct scratch *out, int column,
                                   const struct rows *rows);
/* What all layers need of the per-layer embeddings of the batch, from X as `embed` left it. */
quip_status qp_webgpu_prepare_ple(struct webgpu_device *d, const struct rows *rows);
quip_status qp_webgpu_ple(struct device *device, int l, const struct rows *rows);
quip_status qp_webgpu_route(struct device *device, int l, const struct rows *rows);
quip_status qp_webgpu_experts(struct device *device, int l, const struct rows *rows);
quip_status qp_webgpu_merge(struct device *device, int l, const struct rows *rows);
quip_status qp_webgpu_pool(struct device *device, const struct norm_weights *w,
                           const struct rows *rows);
quip_status qp_webgpu_dense(struct device *device, int i, int n);
quip_status qp_webgpu_conv(struct device *device, int l, const struct rows *rows);
quip_status qp_webgpu_rope_append(struct device *device, int l, const struct rows *rows);
quip_status qp_webgpu_attend(struct device *device, int l, const struct rows *rows);
/* Fill the tables of rotations and slopes for n_context positions. */
quip_status qp_webgpu_fill_ropes(struct webgpu_device *d, int n_context, quip_error *error);
/* The slope of head h: Press et al. 2022 (ALiBi). */
float qp_webgpu_alibi_slope(int h, int n_heads);
/* Keys of a part of attention in sequences of n_context positions; the most parts that a row of
 * these and shorter sequences has; and words of a part's output. */
int qp_webgpu_split_of(int n_context);
int qp_webgpu_max_parts(int n_context);
static inline int qp_webgpu_part_words(bool is_half, int head_dim)
{
    return stride_of(is_half ? head_dim / 2 : head_dim) + 4;
}
/* Is that output binary16 (IS_HALF of combine.wgsl)? */
static inline bool qp_webgpu_has_half_parts(const struct webgpu_device *d, int head_dim)
{
    return d->kv_is_f16 && head_dim % 8 == 0;
}
quip_status qp_webgpu_sample(struct device *device, const struct draw *draws, int n);
/* Words of batch_memory.draws for each draw, and of batch_memory.candidates. */
int qp_webgpu_draw_words(int vocab_size);
int qp_webgpu_candidate_words(int vocab_size);
/* Those of them that come back for a draw. */
static inline int qp_webgpu_result_words(int vocab_size)
{
    return RESULT_SUMS + (vocab_size + SELECT_LOGITS - 1) / SELECT_LOGITS;
}
/* How many tokens can be selected for draw number i. */
int qp_webgpu_n_selected(const struct webgpu_device *d, int i);
int qp_webgpu_max_ahead(const struct device *device, const struct draw *draw);
/* Make the token of the last draw known on the GPU. */
quip_status qp_webgpu_guess(struct webgpu_device *d);
/* What comes back for the draws that were recorded, or for the caller; and memory for it. */
struct gpu_range qp_webgpu_draw_results(const struct webgpu_device *d);
quip_status qp_webgpu_reserve_draws(struct webgpu_device *d);
/* It came back: draw the tokens. False: first the logits of a row have to, which is in
 * qp_webgpu_missing_row; then call this again with them. */
bool qp_webgpu_finish_draws(struct webgpu_device *d, const uint8_t *tokens, const uint8_t *results);
struct gpu_range qp_webgpu_missing_row(const struct webgpu_device *d);
quip_status qp_webgpu_submit(struct device *device);
quip_status qp_webgpu_poll(struct device *device, bool wait);
quip_status qp_webgpu_read_tokens(struct device *device, quip_token *tokens, int n);
quip_status qp_webgpu_read(struct device *device, enum buffer from, float *to, int n);
/* Copy words of a buffer to the host, after everything that was recorded. */
quip_status qp_webgpu_fetch(struct webgpu_device *d, struct gpu_buffer *from, uint64_t offset,
                            void *to, size_t n_bytes, quip_error *error);

/* ---- kv_pool.c ---- */

/* Memory for the keys and values of a sequence. */
quip_status qp_webgpu_kv_open(struct webgpu_sequence *s, quip_error *error);
void qp_webgpu_kv_close(struct webgpu_sequence *s);
/* Those that layer l reads: one buffer, as sequence.c says. */
struct gpu_range qp_webgpu_kv_range(const struct webgpu_sequence *s, int l);
void qp_webgpu_kv_copy(const struct webgpu_sequence *to, const struct webgpu_sequence *from);
/* Put the sequences of a batch with one row of each into the same buffers, if that is possible; and
 * are they there? */
void qp_webgpu_gather(struct webgpu_device *d, const struct rows *rows);
bool qp_webgpu_is_gathered(const struct rows *rows);

/* ---- sequence.c, adapter.c ---- */

quip_status qp_webgpu_sequence_open(struct sequence **sequence, struct device *device,
                                    int n_context, quip_error *error);
void qp_webgpu_sequence_close(struct sequence *sequence);
void qp_webgpu_sequence_copy(struct sequence *to, const struct sequence *from);
void qp_webgpu_sequence_rewind(struct sequence *sequence, int pos);
quip_status qp_webgpu_sequence_reserve_outputs(struct sequence *sequence, int n, quip_error *error);
quip_status qp_webgpu_sequence_export(const struct sequence *sequence, const struct stream *to,
                                      quip_error *error);
quip_status qp_webgpu_sequence_import(struct sequence *sequence, const struct stream *from,
                                      quip_error *error);
/* Bytes of the keys and values of layer l, and of all layers. */
uint64_t qp_webgpu_layer_bytes(const struct config *c, int l, bool is_f16, int n_context);
uint64_t qp_webgpu_kv_bytes(const struct config *c, bool is_f16, int n_context);
/* The columns of a sequence: open, close, copy; the last position, not after `pos`, where it can go
 * on; write or read what the positions before `pos` need. */
uint64_t qp_webgpu_columns_bytes(const struct config *c, int n_context);
quip_status qp_webgpu_columns_open(struct webgpu_sequence *s, quip_error *error);
void qp_webgpu_columns_close(struct webgpu_sequence *s);
void qp_webgpu_columns_copy(struct webgpu_sequence *to, const struct webgpu_sequence *from);
int qp_webgpu_columns_rewind(const struct webgpu_sequence *s, int pos);
quip_status qp_webgpu_columns_transfer(const struct webgpu_sequence *s, const struct stream *stream,
                                       int pos, bool is_import, quip_error *error);
/* Blocks of 64 positions of the texts of a batch. */
int qp_webgpu_text_blocks(const struct capacity *capacity);
/* Blocks of 64 positions. */
static inline int kv_blocks(int n_context)
{
    return (n_context + 63) / 64;
}
/* Those that layer l keeps of a sequence: all, or a ring. */
int qp_webgpu_layer_blocks(const struct config *c, int l, int n_context);

quip_status qp_webgpu_adapter_open(struct device_adapter **packed, struct device *device,
                                   struct adapter *adapter, quip_error *error);
void qp_webgpu_adapter_close(struct device_adapter *packed);

#endif
