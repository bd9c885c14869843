/* cpu_impl.h: what the files of the CPU backend share.
 *   device.c         memory of a device, and the table of the backend
 *   ops.c            operations on one row at a time: embed, norm, add, outputs, sample
 *   ops_ple.c        those of the end of a layer: per-layer embeddings, the layer's scale
 *   ops_linear.c     matrix products on threads; ops_lora.c adds what adapters contribute
 *   ops_experts.c    a mixture of experts on threads
 *   ops_append.c     rotation, and what goes into the cache, on threads
 *   ops_attention.c  attention on threads
 *   ops_texts.c      attention over texts without a KV cache, and pooling, for embeddings
 *   ops_conv.c       short convolutions on threads
 * cpu_sequence.h has the sequences. */
#ifndef QP_CPU_IMPL_H
#define QP_CPU_IMPL_H

#include "cpu/attention_int8.h"
#include "cpu/cpu_sequence.h"
#include "cpu/low_rank.h"

#include <assert.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>

/* The most tokens at the start of a text that are exact (ops.c). */
#define MAX_EXACT 32

/* Products with one input in one operation. */
#define MAX_PRODUCTS 3

/* Blocks that are quantized together where they are not side by side afterwards. */
#define BLOCKS_TOGETHER 16

/* Activations as the input of a product: floats for float weights, blocks of integers for integer
 * weights (kernels.h). A model that has both kinds of weights has both here. */
struct act {
    int n_cols, max_cols; // of the rows that it has; that it has memory for
    float *f32;           // [n_rows, n_cols], or NULL
    int8_t *q;            // [n_rows, n_cols rounded up to whole blocks], or NULL
    float *scales;        // [n_rows, n_blocks]
    int32_t *offsets;     // [n_rows, n_blocks]
    int n_blocks;
    size_t q_stride;
};

/* Scratch of one thread. */
struct worker_scratch {
    void *tile;       // a packed tile of the widest matrix
    void *tile_gate;  // a second one, of a matrix with d_model columns
    float *gate, *up; // [TASK_ROWS, TILE_ROWS]
    float *row;       // [widest row of activations]
    float *attention; // qp_attention_scratch, or NULL with int8 keys and without texts
    float *text_keys; // keys and values of a text's head, or NULL without texts
    /* NULL without exact rows: */
    void *rest, *rest_gate; // packed, of `tile` and `tile_gate`
    float *exact_sums;      // [TASK_ROWS, TILE_ROWS]
    struct int8_attention_scratch *int8_attention;
    struct attention_part sum, part; // [ATTENTION_MAX_ROWS]
};

/* Quantized queries of a batch: [n_kv_heads][max_rows][group]. Each is `stride` bytes. */
struct query_rows {
    int8_t *q;
    float *scales;
    int32_t *offsets;
    size_t max_rows;
    /* Of the layer that they are for: */
    int n_kv_heads;
    size_t group; // query heads of a kv head
    size_t stride;
};

/* Consecutive rows of a batch that belong to one sequence. */
struct row_group {
    struct cpu_sequence *sequence;
    int first, n;
    int task_end; // tasks of the groups up to this one
};

/* Consecutive rows of a batch that use one adapter. */
struct adapter_rows {
    int first, n;
    const struct layer_adapter *layers; // [n_layers]
    float scale;
};

/* A pair of an adapter's matrices: a [rank, n_in] and b [n_out, rank], with alpha / rank in b.
 * Floats or integers; the others have no data. */
struct lora {
    int rank; // 0: no change
    struct matrix a, b;
    struct low_rank low_rank_a, low_rank_b;
};
struct layer_adapter {
    struct lora m[N_MATRICES]; // by enum layer_matrix
};
/* An adapter as the products read it (pack_adapter.c). */
struct device_adapter {
    struct arena arena;
    struct layer_adapter *layers; // [n_layers]
};

/* The pairs [first, first + n) are of one expert. */
struct expert_group {
    int expert, first, n;
};

/* The experts that the rows of a batch chose (ops_experts.c). A pair is a row and an expert. */
struct expert_memory {
    float *scores;               // [n_rows, n_experts + 1]
    int *chosen;                 // [n_rows, n_used] experts, ascending
    float *weights;              // [n_rows, n_used]
    int *next;                   // [n_experts] the next pair of an expert while pairs are sorted
    struct expert_group *groups; // [n_experts]: n_groups that have pairs, ascending
    int n_groups;
    int *pair_row;      // [n_rows * n_used] by expert, then by row
    float *pair_weight; // [n_rows * n_used]
    struct act h;       // [n_rows * n_used, d_ff of an expert] of each pair
    float *y;           // [n_rows, d_model] BUF_EXPERTS
    struct act *rows;   // [n_threads] of at most TASK_ROWS rows: copies of rows of XN
};

/* Memory that grows with capacity.n_rows. */
struct row_memory {
    struct arena arena;
    float *x, *y, *q, *k, *v; // as enum buffer says; y is the memory of q
    struct act xn, att, h;
    float *ple_gate, *ple_context; // the memory of k and v
    struct act e, ple;             // ple is the memory of att
    int q_width, kv_width; // of q, and of k and v, as they are now; att and h have the layer's too
    float *logits;         // [LOGITS_ROWS, vocab_size]
    float *text_att;       // [n_rows, q width] attention over texts, or NULL where att has floats
    struct kv_layer text_kv; // int8 keys and values of a layer of texts
    /* Exact rows of texts (ops_linear.c); NULL if there are none. */
    int *exact_before;                    // [n_rows + 1] how many there are before a row
    struct act exact_first, exact_second; // [exact rows] the parts of one product's input
    float *pooled[2]; // [n_texts, widest embedding]; the second is for the next dense layer
    struct query_rows queries;
    struct row_group *groups;       // [n_rows]
    struct adapter_rows *adapters;  // [n_rows]
    struct candidate *candidates;   // [vocab_size]
    struct worker_scratch *scratch; // [n_threads]
    quip_token tokens[LOGITS_ROWS]; // that were drawn
};

/* cos and sin of the angles of one rope, [n_positions, half]. */
struct rope_table {
    float *cos, *sin; // NULL: no layer needs it
    int half;
    int n_positions, n_filled; // rows of positions [0, n_filled) are filled
};

/* Memory that grows with capacity.n_context. */
struct position_memory {
    struct arena arena;
    struct rope_table ropes[N_ROPES][2]; // by qp_rope_set
    float *alibi;                        // [n_heads, alibi_stride], or NULL
    float *key_means;                    // [n_layers, key_width], or NULL (key_means.c)
    size_t key_width;                    // the widest keys of a layer
    float *scores;                       // [n_heads, n_context in whole blocks] of one row
    struct attention_part parts;         // [spans][n_heads] of one row
    int n_context, n_filled;             // ALiBi is filled for positions [0, n_filled)
};

/* Memory that grows with capacity.max_rank: u = a x of each product, and its sums on each thread.
 */
struct adapter_memory {
    struct arena arena;
    struct act u[MAX_PRODUCTS]; // [n_rows, max_rank]
    float *sums;                // [n_threads, TASK_ROWS, TILE_ROWS]
};

struct cpu_device {
    struct device base;
    struct kernels k;
    struct pool *pool;
    int n_threads;
    struct kv_layout kv;
    struct row_memory mem;
    struct expert_memory experts; // in the arena of mem
    struct position_memory positions;
    struct adapter_memory adapters;
    int n_now; // threads of this step
    struct thread_watch watch;
};

static inline struct cpu_device *cpu_of(struct device *d)
{
    return (struct cpu_device *)d;
}

/* n * m items of `size` bytes from the arena, or NULL while it measures. */
static inline void *qp_cpu_alloc(struct arena *a, size_t n, size_t m, size_t size)
{
    if (!qp_mul_size(n, m, &n) || !qp_mul_size(n, size, &n))
        n = SIZE_MAX; // which no arena can be opened with
    return qp_arena_alloc(a, n);
}

/* First position that the query at `pos` attends to in layer l. */
static inline int first_visible(const struct config *c, int l, int pos)
{
    const int window = c->layers[l].window;
    return window && pos + 1 > window ? pos + 1 - window : 0;
}

/* One after the last position that a row attends to in layer l. */
static inline int visible_end_of(const struct config *c, int l, const struct row *row)
{
    const int window = c->layers[l].window;
    return c->is_bidirectional && window > 0 ? qp_min(row->visible_end, row->pos + window)
                                             : row->visible_end;
}

/* Where the keys and values of a row are. */
static inline struct kv_layer *kv_of(struct sequence *s, int l)
{
    struct cpu_sequence *sequence = cpu_sequence_of(s);
    return s->n_context == 0 ? &sequence->text : &sequence->kv[l];
}

/* Run the task on every thread, or on this one if there is too little work to share. */
static inline void cpu_parallel(struct cpu_device *d, bool is_small, pool_task task, void *arg)
{
    if (is_small)
        task(arg, 0, 1);
    else
        qp_pool_run(d->pool, task, arg);
}

/* qp_mix_row for an input of n numbers, in the order of the kernels. */
static inline void qp_mix_input(const struct kernels *k, float *x, int n)
{
    for (int block = MIX_BLOCK; n > 0; x += block, n -= block) {
        while (block > n)
            block /= 2;
        k->hadamard(x, 1.0f / sqrtf((float)block), block);
    }
}

/* Quantize a finished row of floats (the row of `a`, or scratch) as row t of `a`. */
static inline void act_store(const struct kernels *k, struct act *a, int t, const float *row)
{
    if (a->q)
        k->quantize(a->q + (size_t)t * a->q_stride, a->scales + (size_t)t * a->n_blocks,
                    a->offsets + (size_t)t * a->n_blocks, row, a->n_cols);
}

/* The same for columns [column, column + n): whole blocks, or the rest of a row. */
static inline void act_store_columns(const struct kernels *k, struct act *a, int t, int column,
                                     int n, const float *x)
{
    const size_t block = (size_t)t * (size_t)a->n_blocks + (size_t)(column / ACT_BLOCK);
    if (a->q)
        k->quantize(a->q + (size_t)t * a->q_stride + column, a->scales + block, a->offsets + block,
                    x, n);
    if (a->f32)
        for (int i = 0; i < n; i++)
            a->f32[(size_t)t * (size_t)a->n_cols + (size_t)(column + i)] = x[i];
}

/* Block `block` of row t, which is quantized already. */
static inline void act_put_block(struct act *a, int t, int block, const int8_t *q, float scale,
                                 int32_t offset)
{
    const size_t at = (size_t)t * (size_t)a->n_blocks + (size_t)block;
    memcpy(a->q + (size_t)t * a->q_stride + (size_t)block * ACT_BLOCK, q, ACT_BLOCK);
    a->scales[at] = scale;
    a->offsets[at] = offset;
}

/* Copy the integers of a row to another place of the same or another buffer of the same shape. */
static inline void act_copy_integers(struct act *to, int t, const struct act *from, int from_t)
{
    const size_t n_blocks = (size_t)to->n_blocks, y = (size_t)t, x = (size_t)from_t;
    assert(to->n_cols == from->n_cols && to->q && from->q);
    memmove(to->q + y * to->q_stride, from->q + x * to->q_stride, to->q_stride);
    memmove(to->scales + y * n_blocks, from->scales + x * n_blocks, n_blocks * sizeof *to->scales);
    memmove(to->offsets + y * n_blocks, from->offsets + x * n_blocks,
            n_blocks * sizeof *to->offsets);
}

/* Copy a row to another place of the same or another buffer of the same shape. */
static inline void act_copy_row(struct act *to, int t, const struct act *from, int from_t)
{
    const size_t n_cols = (size_t)to->n_cols;
    assert(to->n_cols == from->n_cols && !to->f32 == !from->f32 && !to->q == !from->q);
    if (to->f32)
        memmove(to->f32 + (size_t)t * n_cols, from->f32 + (size_t)from_t * n_cols,
                n_cols * sizeof *to->f32);
    if (to->q)
        act_copy_integers(to, t, from, from_t);
}

/* Tokens [t, t + n). */
static inline struct act_rows act_tokens(const struct act *a, int t, int n)
{
    return (struct act_rows){ a->q + (size_t)t * a->q_stride, a->q_stride,
                              a->scales + (size_t)t * a->n_blocks,
                              a->offsets + (size_t)t * a->n_blocks, n };
}

static inline struct f32_rows act_floats(const struct act *a, int t, int n)
{
    return (struct f32_rows){ a->f32 + (size_t)t * a->n_cols, (size_t)a->n_cols, n };
}

/* From here on it has rows of n_cols, which fit in its memory. */
static inline void act_resize(struct act *a, int n_cols)
{
    assert(n_cols > 0 && n_cols <= a->max_cols);
    a->n_cols = n_cols;
    a->q_stride = qp_round_up((size_t)n_cols, ACT_BLOCK);
    a->n_blocks = (int)(a->q_stride / ACT_BLOCK);
}

/* Where to compute the floats of row t: in `a`, or in scratch if it keeps integers only. */
static inline float *act_row_floats(struct act *a, int t, float *scratch)
{
    return a->f32 ? a->f32 + (size_t)t * a->n_cols : scratch;
}

/* ---- device.c ---- */

/* Activations for products with this model's kinds of weights. */
struct act qp_cpu_alloc_act(const struct weights *w, struct arena *a, int n_cols, int n_rows);

/* ---- ops.c ---- */

/* y = norm(x), or x if there are no weights, of d_model floats. y may be x. */
void qp_cpu_norm_floats(struct cpu_device *d, float *y, const float *x,
                        const struct norm_weights *w);
quip_status qp_cpu_begin(struct device *device, int n_threads);
quip_status qp_cpu_embed(struct device *device, const struct rows *rows);
quip_status qp_cpu_norm(struct device *device, const struct norm_weights *w, int n_rows);
quip_status qp_cpu_add(struct device *device, const struct norm_weights *post_norm,
                       const struct norm_weights *next, int n_rows);
quip_status qp_cpu_keep_rows(struct device *device, const struct rows *rows,
                             const struct rows *kept);
quip_status qp_cpu_keep_outputs(struct device *device, const struct rows *rows);
quip_status qp_cpu_load_outputs(struct device *device, const struct output *outputs, int n);
quip_status qp_cpu_sample(struct device *device, const struct draw *draws, int n);
quip_status qp_cpu_submit(struct device *device);
quip_status qp_cpu_poll(struct device *device, bool wait);
quip_status qp_cpu_read_tokens(struct device *device, quip_token *tokens, int n);
quip_status qp_cpu_read(struct device *device, enum buffer from, float *to, int n);

/* Quantize the norm of row t of X as row t of XN, on thread `index`. */
void qp_cpu_norm_row(struct cpu_device *d, const struct norm_weights *w, int t, int index);

/* ---- ops_ple.c ---- */

quip_status qp_cpu_ple(struct device *device, int l, const struct rows *rows);
quip_status qp_cpu_scale(struct device *device, const float *factor,
                         const struct norm_weights *next, int n_rows);

/* ---- ops_linear.c ---- */

quip_status qp_cpu_linear(struct device *device, enum buffer out, struct matrix_set w,
                          enum buffer in, struct matrix_set next, const struct rows *rows);
quip_status qp_cpu_gated(struct device *device, int l, struct matrix_set next,
                         const struct rows *rows);
quip_status qp_cpu_logits(struct device *device, int n);

/* The product of some weight rows and some rows of activations:
 * y[i * y_stride + r] = row `row + r` of w times token t0 + i, r in [0, n_rows), i in [0, n). */
struct partial_product {
    const struct matrix *w;
    int row, n_rows;
    const struct act *in;
    int t0, n;        // n <= FEW_TOKENS without a tile
    const void *tile; // these rows, packed, n_rows <= TILE_ROWS; NULL: read them from the file
    float *y;
    size_t y_stride;
};
void qp_multiply_part(const struct kernels *k, const struct partial_product *p);
void qp_pack_tile(const struct kernels *k, void *tile, const struct matrix *w, int row, int n_rows);

/* Columns [row, row + n_rows) of tokens [t0, t0 + n) of `to` = act(gate) * up, or act(up). */
struct gated_part {
    float *up;         // [n, stride] overwritten
    const float *gate; // [n, stride] or NULL
    size_t stride;
    int act; // enum activation
    struct act *to;
    int t0, n, row, n_rows; // row is a multiple of ACT_BLOCK
    bool is_mixed;          // config->mixes_inputs
};
void qp_store_gated(const struct kernels *k, const struct gated_part *p);

/* ---- ops_experts.c ---- */

void qp_experts_alloc(struct expert_memory *m, const struct cpu_device *d, struct arena *a,
                      int n_rows);
quip_status qp_cpu_route(struct device *device, int l, const struct rows *rows);
quip_status qp_cpu_experts(struct device *device, int l, const struct rows *rows);
quip_status qp_cpu_merge(struct device *device, int l, const struct rows *rows);

/* ---- ops_lora.c ---- */

/* What adapters add to the products of one operation: y += scale * b (a x). */
struct lora_task {
    struct cpu_device *d;
    int l;
    enum layer_matrix first; // matrices first, first + 1, ...
    int n_products;
    const struct act *in;
    bool is_few;
    int n_groups; // of d->mem.adapters; 0: no adapter
    int n_all;    // pairs of a group and a product that has an adapter
    atomic_bool is_begun[FEW_TOKENS * MAX_PRODUCTS];
    atomic_int n_done;
};
/* Before the products run. If the rows are few, each thread starts that run with qp_lora_make. */
void qp_lora_begin(struct lora_task *j, struct cpu_device *d, struct matrix_set w,
                   const struct act *in, const struct rows *rows, bool is_few);
void qp_lora_make(struct lora_task *j, int index);
/* y[t * y_stride + i] += b u for n rows of the batch from t0 on and weight rows row + i, i in
 * [0, n_rows), of product p; on thread `index`. */
void qp_lora_add(const struct lora_task *j, int index, float *y, size_t y_stride, int p, int t0,
                 int n, int row, int n_rows);

/* ---- ops_append.c ---- */

static inline const struct layer_config *layer_of(const struct cpu_device *d, int l)
{
    return &d->base.config->layers[l];
}

/* Query heads that share a kv head of the layer. */
static inline int heads_per_kv(const struct cpu_device *d, int l)
{
    return d->base.config->n_heads / layer_of(d, l)->n_kv_heads;
}

quip_status qp_cpu_rope_append(struct device *device, int l, const struct rows *rows);
/* What head h adds to the scores of each position; NULL without ALiBi. */
const float *qp_alibi_of(const struct cpu_device *d, int h);
/* The radians that pair i turns from one position to the next. */
float qp_rope_frequency(const struct rope *rope, const float *divisors, int i);

/* ---- ops_attention.c ---- */

quip_status qp_cpu_attend(struct device *device, int l, const struct rows *rows);
/* Split a batch into d->mem.groups; returns how many. */
int qp_cpu_group_rows(struct cpu_device *d, const struct rows *rows);

/* ---- ops_texts.c ---- */

/* Floats that the keys and values of a head need, in a batch of n_rows. */
size_t qp_text_scratch(const struct cpu_device *d, int head_dim, int n_rows);
/* Blocks of int8 keys and values in a batch of n_rows. */
int qp_text_blocks(const struct cpu_device *d, int n_rows);
/* Give each text of a batch that has int8 keys its part of mem.text_kv. */
void qp_cpu_place_texts(struct cpu_device *d, int l, const struct rows *rows);
/* out [n, n_heads * head_dim] = attention of layer l; the groups of the rows are in mem.groups. */
void qp_cpu_attend_texts(struct cpu_device *d, int l, const struct rows *rows, int n_groups,
                         float *out);
quip_status qp_cpu_pool(struct device *device, const struct norm_weights *w,
                        const struct rows *rows);
quip_status qp_cpu_dense(struct device *device, int i, int n);

/* ---- ops_conv.c ---- */

quip_status qp_cpu_conv(struct device *device, int l, const struct rows *rows);

/* ---- pack_adapter.c ---- */

quip_status qp_cpu_adapter_open(struct device_adapter **packed, struct device *device,
                                struct adapter *adapter, quip_error *error);
void qp_cpu_adapter_close(struct device_adapter *packed);

/* ---- key_means.c ---- */

/* The mean of the rotated bias of layer l, [n_kv_heads * head_dim], which its int8 keys are stored
 * without; NULL if they are stored as they are. */
float *qp_key_mean(const struct cpu_device *d, int l);
bool qp_has_key_mean(const struct cpu_device *d, int l);
bool qp_has_key_means(const struct cpu_device *d); // of any layer
void qp_fill_key_means(struct cpu_device *d);

#endif
