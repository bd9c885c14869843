/* attention_int8.c: attention of rows of queries over one span of one kv head, in integers.
 * In:  int8 queries (blocks of 64 dimensions with a scale each), int8 keys and values as packed
 *      tiles with a scale for each position. Out: struct attention_part.
 *   s[j] = key_scales[j] * sum over blocks of 64 dimensions b, of q_scales[b] * dot_b
 *   softmax (kernels.h) over the span's visible positions: m, l, x[j] = p[j] * value_scales[j]
 *   x in int8, blocks of 64 positions with a scale each, as activations are
 *   o[d] = sum over blocks of positions b, from 0.0f, of x_scales[b] * dot_b
 * Dots are exact; the floats' order is that of ascending blocks, the same for every row and cut: a
 * block that a row does not see has x = 0 and adds +0, and so does a span of such blocks. */
#include "cpu/attention_int8.h"

#include "base/math.h"
#include "format/dtype.h"

#include <assert.h>
#include <string.h>

/* Blocks of the span that some row sees, as positions. */
struct stretch {
    int begin, end;
};

static struct stretch seen_blocks(const struct int8_attention *a, int span)
{
    struct stretch s = { a->begin[0], a->end[0] };
    for (int r = 1; r < a->n_rows; r++) {
        s.begin = a->begin[r] < s.begin ? a->begin[r] : s.begin;
        s.end = a->end[r] > s.end ? a->end[r] : s.end;
    }
    s.begin = s.begin / KV_BLOCK * KV_BLOCK;
    s.end = (int)qp_round_up((size_t)s.end, KV_BLOCK);
    s.begin = s.begin > span * KV_SPAN ? s.begin : span * KV_SPAN;
    s.end = qp_min(s.end, (span + 1) * KV_SPAN);
    return s;
}

/* Place of the block at `pos`. */
static size_t block_place(const struct int8_attention *a, int pos)
{
    return (size_t)(pos / KV_BLOCK % a->kv.n_blocks);
}

/* Scores of all rows, [n_rows][KV_SPAN], in columns from 0 on. */
static void span_scores(const struct kernels *k, const struct int8_attention *a,
                        const struct stretch *seen, float *s)
{
    const struct act_rows queries = { a->q, qp_round_up((size_t)a->head_dim, ACT_BLOCK),
                                      a->q_scales, a->q_offsets, a->n_rows };
    for (int pos = seen->begin; pos < seen->end; pos += KV_BLOCK) {
        const size_t block = block_place(a, pos);
        const struct matrix keys = { .dtype = DTYPE_I8,
                                     .n_out = KV_BLOCK,
                                     .n_in = a->head_dim,
                                     .scales = a->kv.key_scales + block * KV_BLOCK };
        const uint8_t *tile = a->kv.keys + block * a->kv.key_bytes;
        const struct out_view out = { s + (pos - seen->begin), KV_SPAN };
        k->gemm(&out, tile, &keys, &queries, 0, KV_BLOCK);
    }
}

/* Columns from `pos` on whose values are one product: where a tile's order goes on from one block
 * to the next, all that lie side by side. */
static int product_columns(const struct kernels *k, const struct int8_attention *a,
                           const struct stretch *seen, int pos)
{
    if (k->tile_order.group != TILE_ROWS)
        return KV_BLOCK;
    return qp_min(seen->end - pos, (a->kv.n_blocks - (int)block_place(a, pos)) * KV_BLOCK);
}

/* Scores to quantized probabilities times the values' scales, row by row. */
static void span_softmax(const struct kernels *k, const struct int8_attention *a,
                         const struct stretch *seen, struct int8_attention_scratch *scratch,
                         const struct attention_part *part)
{
    for (int pos = seen->begin; pos < seen->end; pos += KV_BLOCK)
        memcpy(scratch->value_scales + (pos - seen->begin),
               a->kv.value_scales + block_place(a, pos) * KV_BLOCK, KV_BLOCK * sizeof(float));
    for (int r = 0; r < a->n_rows; r++) {
        struct softmax row = { .s = scratch->s + (size_t)r * KV_SPAN,
                               .n = seen->end - seen->begin,
                               .begin = a->begin[r] - seen->begin,
                               .cap = a->cap,
                               .bias = a->bias ? a->bias[r] + seen->begin : NULL,
                               .value_scales = scratch->value_scales };
        row.begin = row.begin > 0 ? row.begin : 0;
        row.end = qp_min(a->end[r] - seen->begin, row.n);
        k->softmax(&row);
        part->m[r] = row.max;
        part->l[r] = row.sum;
        for (int pos = seen->begin, n; pos < seen->end; pos += n) {
            const int at = pos - seen->begin;
            n = product_columns(k, a, seen, pos);
            const int blocks = (at * a->n_rows + r * n) / KV_BLOCK;
            k->quantize(scratch->p + (size_t)r * KV_SPAN + at, scratch->scales + blocks,
                        scratch->offsets + blocks, row.s + at, n);
        }
    }
}

/* o = p v */
static void span_values(const struct kernels *k, const struct int8_attention *a,
                        const struct stretch *seen, const struct int8_attention_scratch *scratch,
                        float *o)
{
    memset(o, 0, (size_t)a->n_rows * (size_t)a->head_dim * sizeof *o);
    for (int d = 0; d < a->head_dim; d += TILE_ROWS)
        for (int pos = seen->begin, n; pos < seen->end; pos += n) {
            const int at = pos - seen->begin;
            n = product_columns(k, a, seen, pos);
            const int blocks = at * a->n_rows / KV_BLOCK;
            const struct matrix values = { .dtype = DTYPE_I8, .n_out = TILE_ROWS, .n_in = n };
            const size_t place =
                (size_t)(d / TILE_ROWS) * (size_t)a->kv.n_blocks + block_place(a, pos);
            const struct act_rows p = { scratch->p + at, KV_SPAN, scratch->scales + blocks,
                                        scratch->offsets + blocks, a->n_rows };
            const struct out_view out = { o + d, (size_t)a->head_dim };
            k->gemm(&out, a->kv.values + place * a->kv.value_bytes, &values, &p, 0,
                    qp_min(TILE_ROWS, a->head_dim - d));
        }
}

void qp_attend_span(const struct kernels *k, const struct int8_attention *a, int span,
                    struct int8_attention_scratch *scratch, const struct attention_part *part)
{
    assert(a->n_rows <= ATTENTION_MAX_ROWS);
    const struct stretch seen = seen_blocks(a, span);
    span_scores(k, a, &seen, scratch->s);
    span_softmax(k, a, &seen, scratch, part);
    span_values(k, a, &seen, scratch, part->o);
}

void qp_attention_add(const struct kernels *k, const struct attention_part *sum,
                      const struct attention_part *part, int n_rows, int head_dim)
{
    for (int r = 0; r < n_rows; r++) {
        const float m = sum->m[r] > part->m[r] ? sum->m[r] : part->m[r];
        const float c = qp_exp(sum->m[r] - m), c_part = qp_exp(part->m[r] - m);
        float *o = sum->o + (size_t)r * (size_t)head_dim;
        k->axpby(o, o, c, part->o + (size_t)r * (size_t)head_dim, c_part, head_dim);
        sum->l[r] = sum->l[r] * c + part->l[r] * c_part;
        sum->m[r] = m;
    }
}
