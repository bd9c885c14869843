/* attention_scalar.c: attention of a few query rows over one kv head, in plain C: the
 * specification of attention over floats, and of the softmax of scores of int8 keys.
 * In:  queries, keys and values in the layout of struct attention. Only visible positions are read.
 * Out: for each row, the mean of the values, weighted by softmax.
 *
 * Keys come in blocks of KV_BLOCK, and the softmax is rescaled from block to block (Milakov and
 * Gimelshein 2018), so the memory does not depend on the context. */
#include "base/math.h"
#include "cpu/scalar/scalar.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* s[j] for the visible positions [begin, end) of the block at `pos`. */
static void score_block(const struct attention *a, int row, int pos, int begin, int end, float *s)
{
    size_t slot = (size_t)(pos / KV_BLOCK % a->n_blocks) * (size_t)a->head_dim;
    memset(s, 0, KV_BLOCK * sizeof *s);
    for (int d = 0; d < a->head_dim; d++) {
        const float *k = a->k + (slot + (size_t)d) * KV_BLOCK; // dimension d of the keys
        for (int j = begin; j < end; j++)
            s[j] += a->q[row][d] * k[j];
    }
    for (int j = begin; j < end; j++) {
        s[j] *= a->scale;
        if (a->cap > 0.0f)
            s[j] = a->cap * qp_tanh(s[j] / a->cap);
        if (a->bias)
            s[j] += a->bias[row][pos + j];
    }
}

/* o += p v for the visible positions [begin, end) of the block at `pos`. */
static void add_values(const struct attention *a, const float *p, int pos, int begin, int end,
                       float *o)
{
    const size_t slot = (size_t)(pos / KV_BLOCK % a->n_blocks) * KV_BLOCK;
    for (int j = begin; j < end; j++) {
        const float *v = a->v + (slot + (size_t)j) * (size_t)a->head_dim;
        for (int d = 0; d < a->head_dim; d++)
            o[d] += p[j] * v[d];
    }
}

static void attend_row(const struct attention *a, int row)
{
    assert(a->begin[row] >= 0 && a->end[row] > a->begin[row]);
    float *o = a->out[row];
    float m = -INFINITY, l = 0.0f;
    memset(o, 0, (size_t)a->head_dim * sizeof *o);

    for (int pos = a->begin[row] / KV_BLOCK * KV_BLOCK; pos < a->end[row]; pos += KV_BLOCK) {
        int begin = a->begin[row] > pos ? a->begin[row] - pos : 0;
        int end = a->end[row] - pos < KV_BLOCK ? a->end[row] - pos : KV_BLOCK;
        float s[KV_BLOCK];
        score_block(a, row, pos, begin, end, s);

        float largest = m;
        for (int j = begin; j < end; j++)
            largest = s[j] > largest ? s[j] : largest;
        float c = qp_exp(m - largest);
        m = largest;

        float p[KV_BLOCK] = { 0 }, lane[16] = { 0 };
        for (int j = begin; j < end; j++) {
            p[j] = qp_exp(s[j] - m);
            lane[j % 16] += p[j];
        }
        l = l * c + sum_of_lanes(lane);

        for (int d = 0; d < a->head_dim; d++)
            o[d] *= c;
        add_values(a, p, pos, begin, end, o);
    }
    /* + 0.0f makes every zero positive, so a kernel may add 0 * v to o or omit it
     * (attention_blocks.c). */
    float inverse = 1.0f / l;
    for (int d = 0; d < a->head_dim; d++)
        o[d] = o[d] * inverse + 0.0f;
}

static void attend_scalar(const struct attention *a)
{
    assert(a->k && a->v && a->q && a->out && a->head_dim > 0 && a->n_blocks > 0);
    assert(a->n_rows > 0 && a->n_rows <= ATTENTION_MAX_ROWS);
    for (int row = 0; row < a->n_rows; row++)
        attend_row(a, row);
}

/* ---- scores of int8 keys ---- */

static void softmax_scalar(struct softmax *row)
{
    assert(row->s && row->value_scales && row->n > 0 && row->n % KV_BLOCK == 0);
    assert(row->begin >= 0 && row->end <= row->n);
    float *s = row->s, lane[16] = { 0 };
    row->max = -INFINITY;
    for (int j = row->begin; j < row->end; j++) {
        if (row->cap > 0.0f)
            s[j] = row->cap * qp_tanh(s[j] / row->cap);
        if (row->bias)
            s[j] += row->bias[j];
        row->max = s[j] > row->max ? s[j] : row->max;
    }
    for (int j = 0; j < row->n; j++) {
        if (j < row->begin || j >= row->end) {
            s[j] = 0.0f;
            continue;
        }
        const float p = qp_exp_fast(s[j] - row->max);
        lane[j % 16] += p;
        s[j] = p * row->value_scales[j];
    }
    row->sum = sum_of_lanes(lane);
}

void qp_attention_kernels_scalar(struct kernels *k)
{
    k->softmax = softmax_scalar;
    k->attend = attend_scalar;
}
