/* attention_int8.c: attention of a few query rows over one span of one kv head, in integers.
 * In:  int8 queries (blocks of 64 dimensions with a scale each); int8 keys and values as packed
 *      tiles, with a scale for each position.
 * Out: struct attention_part.
 *
 *   s[j] = key_scales[j] * sum over blocks of 64 dimensions b: q_scales[b] * dot_b
 *   softmax (kernels.h) over the span's visible positions: m, l, x[j] = p[j] * value_scales[j]
 *   x is quantized like activations, in blocks of 64 positions with a scale each
 *   o[d] = sum over blocks of positions b, from 0.0f: x_scales[b] * dot_b
 *
 * dot_b is exact. The floats are added in the order of the blocks, however the work is divided: a
 * block that is not visible to a row has x = 0 and adds +0, and so does a span of such blocks. */
#include "cpu/attention_int8.h"

#include "base/math.h"
#include "format/dtype.h"

#include <assert.h>
#include <string.h>

struct visible qp_visible_blocks(const struct int8_attention *a, int span)
{
    struct visible s = { a->begin[0], a->end[0] };
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

/* Slot of the block at `pos`. */
static size_t block_slot(const struct int8_attention *a, int pos)
{
    return (size_t)(pos / KV_BLOCK % a->kv.n_blocks);
}

void qp_attend_scores(const struct kernels *k, const struct int8_attention *a,
                      const struct visible *blocks, float *s, size_t stride)
{
    const struct act_rows queries = { a->q, qp_round_up((size_t)a->head_dim, ACT_BLOCK),
                                      a->q_scales, a->q_offsets, a->n_rows };
    assert(blocks->begin % KV_BLOCK == 0 && blocks->end % KV_BLOCK == 0);
    for (int pos = blocks->begin; pos < blocks->end; pos += KV_BLOCK) {
        const size_t block = block_slot(a, pos);
        const struct matrix keys = { .dtype = DTYPE_I8,
                                     .n_out = KV_BLOCK,
                                     .n_in = a->head_dim,
                                     .scales = a->kv.key_scales + block * KV_BLOCK };
        const uint8_t *tile = a->kv.keys + block * a->kv.key_bytes;
        const struct out_view out = { s + (pos - blocks->begin), stride };
        k->gemm(&out, tile, &keys, &queries, 0, KV_BLOCK);
    }
}

/* Columns from `pos` on whose values are one product. If the order of a tile continues from one
 * block to the next, these are all in consecutive slots. */
static int product_columns(const struct kernels *k, const struct int8_attention *a,
                           const struct visible *visible, int pos)
{
    if (k->tile_order.group != TILE_ROWS)
        return KV_BLOCK;
    return qp_min(visible->end - pos, (a->kv.n_blocks - (int)block_slot(a, pos)) * KV_BLOCK);
}

/* Scores to quantized probabilities times the values' scales, row by row. */
static void span_softmax(const struct kernels *k, const struct int8_attention *a,
                         const struct visible *visible, struct int8_attention_scratch *scratch,
                         const struct attention_part *part)
{
    for (int pos = visible->begin; pos < visible->end; pos += KV_BLOCK)
        memcpy(scratch->value_scales + (pos - visible->begin),
               a->kv.value_scales + block_slot(a, pos) * KV_BLOCK, KV_BLOCK * sizeof(float));
    for (int r = 0; r < a->n_rows; r++) {
        struct softmax row = { .s = scratch->s + (size_t)r * KV_SPAN,
                               .n = visible->end - visible->begin,
                               .begin = a->begin[r] - visible->begin,
                               .cap = a->cap,
                               .bias = a->bias ? a->bias[r] + visible->begin : NULL,
                               .value_scales = scratch->value_scales };
        row.begin = row.begin > 0 ? row.begin : 0;
        row.end = qp_min(a->end[r] - visible->begin, row.n);
        k->softmax(&row);
        part->m[r] = row.max;
        part->l[r] = row.sum;
        for (int pos = visible->begin, n; pos < visible->end; pos += n) {
            const int at = pos - visible->begin;
            n = product_columns(k, a, visible, pos);
            const int blocks = (at * a->n_rows + r * n) / KV_BLOCK;
            k->quantize(scratch->p + (size_t)r * KV_SPAN + at, scratch->scales + blocks,
                        scratch->offsets + blocks, row.s + at, n);
        }
    }
}

/* o = p v, of dimensions [begin, end), which begin with a tile. */
static void span_values(const struct kernels *k, const struct int8_attention *a,
                        const struct visible *visible, const struct int8_attention_scratch *scratch,
                        float *o, int begin, int end)
{
    for (int r = 0; r < a->n_rows; r++)
        memset(o + (size_t)r * (size_t)a->head_dim + begin, 0, (size_t)(end - begin) * sizeof *o);
    for (int d = begin; d < end; d += TILE_ROWS)
        for (int pos = visible->begin, n; pos < visible->end; pos += n) {
            const int at = pos - visible->begin;
            n = product_columns(k, a, visible, pos);
            const int blocks = at * a->n_rows / KV_BLOCK;
            const struct matrix values = { .dtype = DTYPE_I8, .n_out = TILE_ROWS, .n_in = n };
            const size_t slot =
                (size_t)(d / TILE_ROWS) * (size_t)a->kv.n_blocks + block_slot(a, pos);
            const struct act_rows p = { scratch->p + at, KV_SPAN, scratch->scales + blocks,
                                        scratch->offsets + blocks, a->n_rows };
            const struct out_view out = { o + d, (size_t)a->head_dim };
            k->gemm(&out, a->kv.values + slot * a->kv.value_bytes, &values, &p, 0,
                    qp_min(TILE_ROWS, end - d));
        }
}

void qp_attend_values(const struct kernels *k, const struct int8_attention *a, int span, int begin,
                      int end, const float *s, size_t stride,
                      struct int8_attention_scratch *scratch, const struct attention_part *part)
{
    const struct visible visible = qp_visible_blocks(a, span);
    const size_t n_bytes = (size_t)(visible.end - visible.begin) * sizeof *s;
    assert(begin % TILE_ROWS == 0 && begin < end && end <= a->head_dim);
    for (int r = 0; r < a->n_rows; r++)
        memcpy(scratch->s + (size_t)r * KV_SPAN, s + (size_t)r * stride + visible.begin, n_bytes);
    span_softmax(k, a, &visible, scratch, part);
    span_values(k, a, &visible, scratch, part->o, begin, end);
}

void qp_attend_span(const struct kernels *k, const struct int8_attention *a, int span,
                    struct int8_attention_scratch *scratch, const struct attention_part *part)
{
    assert(a->n_rows <= ATTENTION_MAX_ROWS);
    const struct visible visible = qp_visible_blocks(a, span);
    qp_attend_scores(k, a, &visible, scratch->s, KV_SPAN);
    span_softmax(k, a, &visible, scratch, part);
    span_values(k, a, &visible, scratch, part->o, 0, a->head_dim);
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
