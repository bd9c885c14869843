/* attention_blocks.c: the order in which fast attention goes through keys and values.
 * In:  struct attention, and an ISA's steps. Out: the numbers of attention_scalar.c, to the bit.
 * All rows go through a block of 64 keys together. Scores are the product of queries and keys,
 * outputs that of probabilities and values; both are cut along head_dim into squares of at most
 * 64 by 64, which stay in the first-level cache for all rows. With many rows a binary16 square is
 * widened once; with few, in registers.
 *
 * Why rows may share blocks, though each sees its own positions: a position that a row does not see
 * has p = 0 there. It adds 0 * v = +-0 to o, and +0 to l, which changes at most the sign of a zero
 * in o, and the last step of attend removes that sign. In a block that the row does not see at all,
 * m stays, so c = exp(0) = 1 exactly; before its first block m is -inf and c = exp(NaN) = 0 times o
 * and l that are zero. */
#include "cpu/attention_blocks.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* More rows than this share a widened copy: what one step of `product` computes at once. */
#define ROWS_IN_REGISTERS 4

/* head_dim as the rows of q and o are spaced in the scratch: whole squares. */
static size_t padded_head_dim(int head_dim)
{
    return qp_round_up((size_t)head_dim, KV_BLOCK);
}

size_t qp_attention_scratch(int head_dim, int n_rows)
{
    return sizeof(struct attention_state) / sizeof(float) +
           2 * (size_t)n_rows * padded_head_dim(head_dim);
}

/* A square of keys or values from element `first` on: where it lies if `product` can read it there,
 * else its widened copy. */
static const void *square(const struct attention *a, const struct attention_steps *steps,
                          struct attention_state *state, const void *kv, size_t first,
                          size_t stride, int n_rows, int n_cols, bool *is_f16)
{
    *is_f16 = a->is_f16 && n_cols == KV_BLOCK && a->n_rows <= ROWS_IN_REGISTERS;
    if (a->is_f16) {
        const uint16_t *from = (const uint16_t *)kv + first;
        if (*is_f16)
            return from;
        steps->widen(state->b, from, stride, n_rows, n_cols);
        return state->b;
    }
    const float *from = (const float *)kv + first;
    if (n_cols == KV_BLOCK)
        return from;
    memset(state->b, 0, sizeof state->b);
    for (int i = 0; i < n_rows; i++)
        memcpy(state->b + i * KV_BLOCK, from + (size_t)i * stride, (size_t)n_cols * sizeof(float));
    return state->b;
}

struct attention_rows {
    float *q, *o; // [n_rows][stride]
    size_t stride;
    int begin, end; // positions that some row sees
};

/* s = q k, for all 64 keys of the block at `pos`. */
static void block_scores(const struct attention *a, const struct attention_steps *steps,
                         struct attention_state *state, const struct attention_rows *rows, int pos)
{
    memset(state->s, 0, (size_t)a->n_rows * KV_BLOCK * sizeof(float));
    for (int d = 0; d < a->head_dim; d += KV_BLOCK) {
        int n = a->head_dim - d < KV_BLOCK ? a->head_dim - d : KV_BLOCK;
        size_t first = ((size_t)(pos / KV_BLOCK) * (size_t)a->head_dim + (size_t)d) * KV_BLOCK;
        bool is_f16;
        const void *k = square(a, steps, state, a->k, first, KV_BLOCK, n, KV_BLOCK, &is_f16);
        steps->product(state->s, KV_BLOCK, NULL, rows->q + d, rows->stride, k, KV_BLOCK, is_f16, n,
                       a->n_rows);
    }
}

/* o = o * c + p v, for the values of the block that some row sees. */
static void block_values(const struct attention *a, const struct attention_steps *steps,
                         struct attention_state *state, const struct attention_rows *rows, int pos)
{
    int begin = rows->begin > pos ? rows->begin - pos : 0;
    int end = rows->end - pos < KV_BLOCK ? rows->end - pos : KV_BLOCK;
    for (int d = 0; d < a->head_dim; d += KV_BLOCK) {
        int n = a->head_dim - d < KV_BLOCK ? a->head_dim - d : KV_BLOCK;
        size_t first = (size_t)(pos + begin) * (size_t)a->head_dim + (size_t)d;
        bool is_f16;
        const void *v =
            square(a, steps, state, a->v, first, (size_t)a->head_dim, end - begin, n, &is_f16);
        bool is_widened = v == state->b;
        steps->product(rows->o + d, rows->stride, state->c, state->s + begin, KV_BLOCK, v,
                       is_widened ? KV_BLOCK : (size_t)a->head_dim, is_f16, end - begin, a->n_rows);
    }
}

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
        memcpy(rows.q + (size_t)r * rows.stride, a->q[r], (size_t)a->head_dim * sizeof(float));
        rows.begin = a->begin[r] < rows.begin ? a->begin[r] : rows.begin;
        rows.end = a->end[r] > rows.end ? a->end[r] : rows.end;
    }
    return rows;
}

void qp_attend_blocks(const struct attention *a, const struct attention_steps *steps)
{
    assert(a->n_rows <= ATTENTION_MAX_ROWS);
    struct attention_state *state = (struct attention_state *)(void *)a->scratch;
    struct attention_rows rows = gather_rows(a, a->scratch + sizeof *state / sizeof(float));
    for (int r = 0; r < ATTENTION_MAX_ROWS; r++) {
        state->m[r] = -INFINITY;
        state->l[r] = 0.0f;
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
