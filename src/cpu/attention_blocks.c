/* attention_blocks.c: the order in which fast attention over floats reads keys and values.
 * In:  struct attention, and the arithmetic steps of an instruction set (attention_lanes.h).
 * Out: the numbers of scalar/attention_scalar.c, to the bit.
 *
 * All rows process a block of 64 keys together. Scores are the product of queries and keys, and
 * outputs are the product of probabilities and values. Both products are divided along head_dim
 * into squares of at most 64 by 64, which stay in the first-level cache for all rows.
 *
 * Rows can share blocks although each has its own visible positions: a position that is not visible
 * to a row has p = 0. It adds 0 * v, a zero of either sign, to o, and +0 to l. That changes at most
 * the sign of a zero in o, and the last step of attend removes this sign. In a block without a
 * visible position, m does not change, so c = exp(0) = 1 exactly. Before the first visible block m
 * is -inf, so c = exp(NaN) = 0, and it multiplies o and l while they are zero. */
#include "cpu/attention_blocks.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* The distance between rows of q, and between rows of o, in the scratch memory: whole squares. */
static size_t padded_head_dim(int head_dim)
{
    return qp_round_up((size_t)head_dim, KV_BLOCK);
}

size_t qp_attention_scratch(int head_dim, int n_rows)
{
    return sizeof(struct attention_state) / sizeof(float) +
           2 * (size_t)n_rows * padded_head_dim(head_dim);
}

struct attention_rows {
    float *q, *o; // [n_rows][stride]
    size_t stride;
    int begin, end; // positions visible to at least one row
};

/* Make [n_rows, n_cols] values the square: in the KV cache itself if these are whole lanes, as a
 * padded copy otherwise. */
static void set_square(struct square_product *t, struct attention_state *state, const float *from,
                       size_t stride, int n_rows, int n_cols)
{
    t->b = from;
    t->b_stride = stride;
    t->n_columns = (n_cols + 15) / 16 * 16;
    if (n_cols % 16 == 0)
        return;
    memset(state->b, 0, sizeof state->b);
    for (int i = 0; i < n_rows; i++)
        memcpy(state->b + i * KV_BLOCK, from + (size_t)i * stride, (size_t)n_cols * sizeof *from);
    t->b = state->b;
    t->b_stride = KV_BLOCK;
}

/* Multiply all rows by one square, a few rows at a time. Overwrites `t`. */
static void multiply(const struct attention_steps *steps, struct square_product *t, int n_rows)
{
    assert(t->n_k > 0 && t->n_k <= KV_BLOCK && n_rows > 0);
    for (int n; n_rows > 0; n_rows -= n) {
        n = n_rows < steps->n_products ? n_rows : steps->n_products;
        steps->product[n - 1](t);
        t->acc += (size_t)n * t->acc_stride;
        t->a += (size_t)n * t->a_stride;
        t->factors += n;
    }
}

/* s = q k for the keys of the block at `pos` that some row attends to; 0 for the others. */
static void block_scores(const struct attention *a, const struct attention_steps *steps,
                         struct attention_state *state, const struct attention_rows *rows, int pos)
{
    static const float ones[ATTENTION_MAX_ROWS] = {
        1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
        1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1
    };
    const size_t head_dim = (size_t)a->head_dim, slot = (size_t)(pos / KV_BLOCK % a->n_blocks);
    const int n_visible = rows->end - pos < KV_BLOCK ? rows->end - pos : KV_BLOCK;
    memset(state->s, 0, (size_t)a->n_rows * KV_BLOCK * sizeof(float));
    for (size_t d = 0; d < head_dim; d += KV_BLOCK) {
        const int n = head_dim - d < KV_BLOCK ? (int)(head_dim - d) : KV_BLOCK;
        struct square_product t = {
            .acc = state->s,
            .acc_stride = KV_BLOCK,
            .factors = ones,
            .a = rows->q + d,
            .a_stride = rows->stride,
            .b = a->k + (slot * head_dim + d) * KV_BLOCK,
            .b_stride = KV_BLOCK,
            .n_k = n,
            .n_columns = (n_visible + 15) / 16 * 16,
        };
        multiply(steps, &t, a->n_rows);
    }
}

/* o = o * c + p v, for the values of the block that are visible to at least one row. */
static void block_values(const struct attention *a, const struct attention_steps *steps,
                         struct attention_state *state, const struct attention_rows *rows, int pos)
{
    const int begin = rows->begin > pos ? rows->begin - pos : 0;
    const int end = rows->end - pos < KV_BLOCK ? rows->end - pos : KV_BLOCK;
    const size_t head_dim = (size_t)a->head_dim, slot = (size_t)(pos / KV_BLOCK % a->n_blocks),
                 first = (slot * KV_BLOCK + (size_t)begin) * head_dim;
    for (size_t d = 0; d < head_dim; d += KV_BLOCK) {
        const int n = head_dim - d < KV_BLOCK ? (int)(head_dim - d) : KV_BLOCK;
        struct square_product t = {
            .acc = rows->o + d,
            .acc_stride = rows->stride,
            .factors = state->c,
            .a = state->s + begin,
            .a_stride = KV_BLOCK,
            .n_k = end - begin,
        };
        set_square(&t, state, a->v + first + d, head_dim, end - begin, n);
        multiply(steps, &t, a->n_rows);
    }
}

/* Copy the queries to the scratch memory and set the outputs there to zero. */
static struct attention_rows gather_rows(const struct attention *a, float *scratch)
{
    struct attention_rows rows = { .stride = padded_head_dim(a->head_dim),
                                   .begin = a->begin[0],
                                   .end = a->end[0] };
    size_t n = (size_t)a->n_rows * rows.stride;
    rows.q = scratch;
    rows.o = scratch + n;
    memset(rows.o, 0, n * sizeof(float));
    for (int r = 0; r < a->n_rows; r++) {
        assert(a->begin[r] >= 0 && a->end[r] > a->begin[r]);
        memcpy(rows.q + (size_t)r * rows.stride, a->q[r], (size_t)a->head_dim * sizeof(float));
        rows.begin = a->begin[r] < rows.begin ? a->begin[r] : rows.begin;
        rows.end = a->end[r] > rows.end ? a->end[r] : rows.end;
    }
    return rows;
}

void qp_attend_blocks(const struct attention *a, const struct attention_steps *steps)
{
    assert(a->k && a->v && a->q && a->out && a->head_dim > 0 && a->n_blocks > 0);
    assert(a->n_rows > 0 && a->n_rows <= ATTENTION_MAX_ROWS);
    assert(a->scratch && (uintptr_t)a->scratch % 64 == 0);
    struct attention_state *state = (struct attention_state *)(void *)a->scratch;
    struct attention_rows rows = gather_rows(a, a->scratch + sizeof *state / sizeof(float));
    for (int r = 0; r < ATTENTION_MAX_ROWS; r++) {
        state->m[r] = -INFINITY;
        state->l[r] = state->c[r] = 0.0f;
    }
    for (int pos = rows.begin / KV_BLOCK * KV_BLOCK; pos < rows.end; pos += KV_BLOCK) {
        block_scores(a, steps, state, &rows, pos);
        steps->softmax(a, state, pos);
        block_values(a, steps, state, &rows, pos);
    }
    for (int r = 0; r < a->n_rows; r++) {
        float inverse = 1.0f / state->l[r];
        for (int d = 0; d < a->head_dim; d++)
            a->out[r][d] = rows.o[(size_t)r * rows.stride + (size_t)d] * inverse + 0.0f;
    }
}
