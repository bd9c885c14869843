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

/* The first position that no row attends to. */
static int end_of_visible(const struct int8_attention *a)
{
    int end = a->end[0];
    for (int r = 1; r < a->n_rows; r++)
        end = a->end[r] > end ? a->end[r] : end;
    return end;
}

struct visible qp_visible_blocks(const struct int8_attention *a, int span)
{
    struct visible s = { a->begin[0], (int)qp_round_up((size_t)end_of_visible(a), KV_BLOCK) };
    for (int r = 1; r < a->n_rows; r++)
        s.begin = a->begin[r] < s.begin ? a->begin[r] : s.begin;
    s.begin = s.begin / KV_BLOCK * KV_BLOCK;
    s.begin = s.begin > span * KV_SPAN ? s.begin : span * KV_SPAN;
    s.end = qp_min(s.end, (span + 1) * KV_SPAN);
    return s;
}

/* Slot of the block at `pos`. */
static size_t block_slot(const struct int8_attention *a, int pos)
{
    return (size_t)(pos / KV_BLOCK % a->kv.n_blocks);
}

/* Columns from `pos` to at most `end` that are in consecutive slots. */
static int columns_until_wrap(const struct int8_attention *a, int pos, int end)
{
    return qp_min(end - pos, (a->kv.n_blocks - (int)block_slot(a, pos)) * KV_BLOCK);
}

static void multiply_tiles(const struct kernels *k, const struct out_view *out,
                           const struct tiles *tiles, const struct matrix *w,
                           const struct act_rows *x)
{
    if (k->gemm_tiles) {
        k->gemm_tiles(out, tiles, w, x);
        return;
    }
    for (int r = 0; r < w->n_out; r += TILE_ROWS) {
        const struct out_view to = { out->y + r, out->stride };
        k->gemm(&to, qp_tile_at(tiles, r), w, x, r, qp_min(w->n_out - r, TILE_ROWS));
    }
}

/* Keys are computed in groups of this many: no kernel is faster with fewer. */
#define KEY_GROUP 16

void qp_attend_scores(const struct kernels *k, const struct int8_attention *a,
                      const struct visible *blocks, float *s, size_t stride)
{
    const struct act_rows queries = { a->q, qp_round_up((size_t)a->head_dim, ACT_BLOCK),
                                      a->q_scales, a->q_offsets, a->n_rows };
    const int end = qp_min((int)qp_round_up((size_t)end_of_visible(a), KEY_GROUP), blocks->end);
    assert(blocks->begin % KV_BLOCK == 0 && blocks->end % KV_BLOCK == 0);
    for (int pos = blocks->begin, n; pos < end; pos += n) {
        n = columns_until_wrap(a, pos, end);
        const size_t block = block_slot(a, pos);
        const struct matrix keys = { .dtype = DTYPE_I8,
                                     .n_out = n,
                                     .n_in = a->head_dim,
                                     .scales = a->kv.key_scales + block * KV_BLOCK };
        const struct tiles tiles = { a->kv.keys + block * a->kv.key_bytes, a->kv.key_bytes };
        const struct out_view out = { s + (pos - blocks->begin), stride };
        multiply_tiles(k, &out, &tiles, &keys, &queries);
    }
}

/* Columns from `pos` on whose values are one product. If the order of a tile continues from one
 * block to the next, these are all in consecutive slots. */
static int product_columns(const struct kernels *k, const struct int8_attention *a,
                           const struct visible *visible, int pos)
{
    return k->tile_order.group == TILE_ROWS ? columns_until_wrap(a, pos, visible->end) : KV_BLOCK;
}

/* Scores to quantized probabilities times the values' scales, row by row. */
static void softmax_each_row(const struct kernels *k, const struct int8_attention *a,
                             const struct visible *visible, struct int8_attention_scratch *scratch,
                             const struct attention_part *part)
{
    const int n = visible->end - visible->begin;
    for (int r = 0; r < a->n_rows; r++) {
        struct softmax row = { .s = scratch->s + (size_t)r * SCORE_STRIDE,
                               .n = n,
                               .begin = a->begin[r] - visible->begin,
                               .cap = a->cap,
                               .bias = a->bias ? a->bias[r] + visible->begin : NULL,
                               .value_scales = scratch->value_scales };
        const int block = r * (n / KV_BLOCK);
        row.begin = row.begin > 0 ? row.begin : 0;
        row.end = qp_min(a->end[r] - visible->begin, row.n);
        k->softmax(&row);
        part->m[r] = row.max;
        part->l[r] = row.sum;
        k->quantize(scratch->p + (size_t)r * KV_SPAN, scratch->scales + block,
                    scratch->offsets + block, row.s, n);
    }
}

static void span_softmax(const struct kernels *k, const struct int8_attention *a,
                         const struct visible *visible, struct int8_attention_scratch *scratch,
                         const struct attention_part *part)
{
    for (int pos = visible->begin; pos < visible->end; pos += KV_BLOCK)
        memcpy(scratch->value_scales + (pos - visible->begin),
               a->kv.value_scales + block_slot(a, pos) * KV_BLOCK, KV_BLOCK * sizeof(float));
    if (k->softmax_rows && a->cap == 0.0f && !a->bias)
        k->softmax_rows(&(struct softmax_rows){ .s = scratch->s,
                                                .stride = SCORE_STRIDE,
                                                .n_rows = a->n_rows,
                                                .pos = visible->begin,
                                                .n = visible->end - visible->begin,
                                                .begin = a->begin,
                                                .end = a->end,
                                                .value_scales = scratch->value_scales,
                                                .max = part->m,
                                                .sum = part->l,
                                                .q = scratch->p,
                                                .q_stride = KV_SPAN,
                                                .scales = scratch->scales,
                                                .offsets = scratch->offsets });
    else
        softmax_each_row(k, a, visible, scratch, part);
}

/* The probabilities of n columns from `at` on, of n_span: the input of one product. */
static struct act_rows probabilities_of(struct int8_attention_scratch *scratch, int n_rows,
                                        int n_span, int at, int n)
{
    struct act_rows p = { scratch->p + at, KV_SPAN, scratch->scales, scratch->offsets, n_rows };
    if (n == n_span)
        return p;
    for (int r = 0; r < n_rows; r++)
        for (int b = 0; b < n / KV_BLOCK; b++) {
            const int from = (r * n_span + at) / KV_BLOCK + b, to = r * (n / KV_BLOCK) + b;
            scratch->product_scales[to] = scratch->scales[from];
            scratch->product_offsets[to] = scratch->offsets[from];
        }
    p.scales = scratch->product_scales;
    p.offsets = scratch->product_offsets;
    return p;
}

/* o = p v, of dimensions [begin, end), which begin with a tile. */
static void span_values(const struct kernels *k, const struct int8_attention *a,
                        const struct visible *visible, struct int8_attention_scratch *scratch,
                        float *o, int begin, int end)
{
    const struct out_view out = { o + begin, (size_t)a->head_dim };
    for (int r = 0; r < a->n_rows; r++)
        memset(out.y + (size_t)r * out.stride, 0, (size_t)(end - begin) * sizeof *o);
    for (int pos = visible->begin, n; pos < visible->end; pos += n) {
        n = product_columns(k, a, visible, pos);
        const struct act_rows p = probabilities_of(
            scratch, a->n_rows, visible->end - visible->begin, pos - visible->begin, n);
        const struct matrix values = { .dtype = DTYPE_I8, .n_out = end - begin, .n_in = n };
        const size_t stride = (size_t)a->kv.n_blocks * a->kv.value_bytes;
        const struct tiles tiles = { a->kv.values + (size_t)(begin / TILE_ROWS) * stride +
                                         block_slot(a, pos) * a->kv.value_bytes,
                                     stride };
        multiply_tiles(k, &out, &tiles, &values, &p);
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
        memcpy(scratch->s + (size_t)r * SCORE_STRIDE, s + (size_t)r * stride + visible.begin,
               n_bytes);
    span_softmax(k, a, &visible, scratch, part);
    span_values(k, a, &visible, scratch, part->o, begin, end);
}

void qp_attend_span(const struct kernels *k, const struct int8_attention *a, int span,
                    struct int8_attention_scratch *scratch, const struct attention_part *part)
{
    assert(a->n_rows <= ATTENTION_MAX_ROWS);
    const struct visible visible = qp_visible_blocks(a, span);
    qp_attend_scores(k, a, &visible, scratch->s, SCORE_STRIDE);
    span_softmax(k, a, &visible, scratch, part);
    span_values(k, a, &visible, scratch, part->o, 0, a->head_dim);
}

void qp_attention_add(const struct kernels *k, const struct attention_part *sum,
                      const struct attention_part *part, int n_rows, int head_dim)
{
    for (int r = 0; r < n_rows; r++) {
        const float m = sum->m[r] > part->m[r] ? sum->m[r] : part->m[r];
        const float c = sum->m[r] == m ? 1.0f : qp_exp(sum->m[r] - m);
        const float c_part = part->m[r] == m ? 1.0f : qp_exp(part->m[r] - m);
        float *o = sum->o + (size_t)r * (size_t)head_dim;
        k->axpby(o, o, c, part->o + (size_t)r * (size_t)head_dim, c_part, head_dim);
        sum->l[r] = sum->l[r] * c + part->l[r] * c_part;
        sum->m[r] = m;
    }
}
