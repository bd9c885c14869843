/* cpu_impl.h: what the files of the CPU backend share. */
#ifndef QP_CPU_IMPL_H
#define QP_CPU_IMPL_H

#include "cpu/attention_int8.h"
#include "engine/ops.h"

/* Tokens that go against a packed tile before the next task: their activations and the tile stay in
 * the second-level cache together, and two threads share the tiles of a matrix evenly. */
#define TASK_TOKENS 128

/* Scratch of one thread. */
struct worker_scratch {
    void *tile;       // a packed tile of the widest matrix
    void *tile_gate;  // a second one, of a matrix of d_model columns
    float *gate, *up; // [TASK_TOKENS, TILE_ROWS]
    float *row;       // [widest row of activations]
    float *attention; // qp_attention_scratch, or NULL beside int8 keys
    struct int8_attention_scratch *int8_attention;
    struct attention_part sum, part; // [ATTENTION_MAX_ROWS]
    float *lora;                     // [TASK_TOKENS, TILE_ROWS]; of a run with an adapter
};

/* Where the elements of a tile are: number row[r] + column[k]. */
struct tile_elements {
    uint32_t row[TILE_ROWS], column[1024];
};

/* How keys and values lie (kv_cache.c). */
struct kv_layout {
    bool is_int8;
    size_t key_bytes, value_bytes; // of a tile; of floats, of a block of one head
    int n_value_tiles;             // of a block of one head
    struct tile_elements key, value;
};

/* Quantized queries of the tokens in work: [n_kv_heads][max_tokens][query heads of a kv head]. */
struct query_rows {
    int8_t *q;
    float *scales;
    int32_t *offsets;
    size_t max_tokens;
};

/* Products with one input in one operation. */
#define MAX_PRODUCTS 3

struct cpu_backend {
    struct kernels k;
    struct pool *pool;
    int n_threads;
    struct worker_scratch *scratch;  // [n_threads]
    struct act lora_u[MAX_PRODUCTS]; // a x of each product, [max_tokens, max_rank]
    struct kv_layout kv;
    struct query_rows queries;
    struct attention_part parts; // [spans][n_heads] of one token
    int n_positions;             // whose entries in the tables of rope and ALiBi are filled
};

static inline struct cpu_backend *cpu(struct run *r)
{
    return r->backend;
}

/* First position that the query at `pos` sees in layer l. */
static inline int first_seen(const struct config *c, int l, int pos)
{
    const int window = c->layers[l].window;
    return window && pos + 1 > window ? pos + 1 - window : 0;
}

/* The task on every thread; in place when there is too little of it to share. */
static inline void cpu_parallel(struct run *r, bool is_small, pool_task task, void *arg)
{
    if (is_small)
        task(arg, 0, 1);
    else
        qp_pool_run(cpu(r)->pool, task, arg);
}

/* Hand a finished row of floats (the row of `a`, or scratch) over as token t's input. */
static inline void act_store(const struct kernels *k, struct act *a, int t, const float *row)
{
    if (a->q)
        k->quantize(a->q + (size_t)t * a->q_stride, a->scales + (size_t)t * a->n_blocks,
                    a->offsets + (size_t)t * a->n_blocks, row, a->n_cols);
}

/* The same of columns [column, column + n), n whole blocks or what is left of a row. */
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

/* Where token t's floats are made: in `a` itself, or in scratch when only integers are kept. */
static inline float *act_row_floats(struct act *a, int t, float *scratch)
{
    return a->f32 ? a->f32 + (size_t)t * a->n_cols : scratch;
}

/* ops_linear.c */
void qp_cpu_linear(struct run *r, const struct product *products, int n_products,
                   const struct act *in, int n);
void qp_cpu_gated(struct run *r, struct act *out, const struct product *gate,
                  const struct product *up, const struct act *in, int n);
void qp_cpu_logits(struct run *r, float *logits, const struct act *in, int n);

/* ops_lora.c: y += scale * b (a x), for the products of one operation. */
struct lora_task {
    struct run *r;
    const struct product *products;
    int n_products;
    const struct act *in;
    int n;
    bool is_few;
    int n_all; // products that an adapter changes
    atomic_bool is_begun[MAX_PRODUCTS];
    atomic_int n_done;
};
/* Before the products' run, which of few tokens begins with qp_lora_make on each thread. */
void qp_lora_begin(struct lora_task *j, struct run *r, const struct product *products,
                   int n_products, const struct act *in, int n, bool is_few);
void qp_lora_make(struct lora_task *j, int index);
/* y[t * y_stride + i] += b u for n tokens from t0 on and rows row + i, i in [0, n_rows) of product
 * p. */
void qp_lora_add(const struct lora_task *j, const struct worker_scratch *s, float *y,
                 size_t y_stride, int p, int t0, int n, int row, int n_rows);

/* kv_cache.c */
void qp_kv_layout(struct kv_layout *kv, const struct kernels *k, const struct config *c,
                  bool is_int8);
/* Blocks that a layer with this window (0: none) keeps, for max_tokens tokens at a time. */
int qp_kv_n_blocks(int window, int n_context, int max_tokens);
struct kv_layer qp_kv_take(const struct kv_layout *kv, const struct config *c, struct arena *a,
                           int n_blocks);
struct kv_tiles qp_kv_tiles(const struct kv_layout *kv, const struct kv_layer *layer, int h);
/* Head h of an array of float keys or values. */
const float *qp_kv_floats(const struct kv_layout *kv, const struct kv_layer *layer,
                          const float *array, int h);
/* One token's key and value of kv head h to their places. */
void qp_kv_store(struct run *r, int l, int h, const float *key, const float *value, int pos);
/* ops_attention.c */
void qp_cpu_rope_append(struct run *r, int l, int n);
void qp_cpu_attend(struct run *r, struct act *out, int l, int pos, int n);

#endif
