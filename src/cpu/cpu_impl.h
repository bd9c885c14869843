/* cpu_impl.h: what the files of the CPU backend share. */
#ifndef QP_CPU_IMPL_H
#define QP_CPU_IMPL_H

#include "cpu/kernels.h"
#include "engine/ops.h"

/* Tokens that go against a packed tile before the next task: their activations and the tile stay in
 * the second-level cache together, and two threads share the tiles of a matrix evenly. */
#define TASK_TOKENS 128

/* From this many tokens on, packing a tile pays where no kernel takes several tokens (gemm_few);
 * fewer go row by row. Both give the same bits. */
#define PACK_TOKENS 4

/* Scratch of one thread. */
struct worker_scratch {
    void *tile;       // a packed tile of the widest matrix
    void *tile_gate;  // a second one, of a matrix of d_model columns
    float *gate, *up; // [TASK_TOKENS, TILE_ROWS]
    float *row;       // [widest row of activations]
    float *attention; // qp_attention_scratch
    void *tile_lora;  // a packed tile of max_rank columns; of a run with an adapter
    float *lora;      // [TASK_TOKENS, TILE_ROWS]
};

/* Products with one input in one operation. */
#define MAX_PRODUCTS 3

struct cpu_backend {
    struct kernels k;
    struct pool *pool;
    int n_threads;
    struct worker_scratch *scratch;  // [n_threads]
    struct act lora_u[MAX_PRODUCTS]; // a x of each product, [max_tokens, max_rank]
    int n_positions;                 // whose entries in the tables of rope and ALiBi are filled
};

static inline struct cpu_backend *cpu(struct run *r)
{
    return r->backend;
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
/* ops_attention.c */
void qp_cpu_rope_append(struct run *r, int l, int n);
void qp_cpu_attend(struct run *r, struct act *out, const float *q, int l, int pos, int n);

#endif
