/* kv_cache.c: keys and values of the tokens seen so far, laid out for their products.
 * In:  the key and value of a head at a position, as floats. Out: what attention reads.
 * Beside integer weights they are int8 with a scale for each position, in tiles as the weights'
 * kernel packs them (attention_int8.h); per layer and kv head
 *   keys:   [blocks][tile of KV_BLOCK positions x head_dim]
 *   values: [head_dim / TILE_ROWS][blocks][tile of TILE_ROWS dimensions x KV_BLOCK]
 * Beside float weights they are floats (struct attention):
 *   keys:   [blocks][head_dim][KV_BLOCK]        values: [blocks * KV_BLOCK][head_dim]
 * Block b of positions has place b % n_blocks of its layer: where a window hides what is far back,
 * a ring of a few blocks is enough. All is allocated when the session opens. What lies beyond the
 * last position may be anything. */
#include "cpu/cpu_impl.h"

#include <string.h>

/* ---- layout ---- */

/* Number of element (row, k) of a tile of n_k columns: see struct tile_order. */
static uint32_t tile_element(const struct tile_order *o, int n_k, int row, int k)
{
    const int group = row / o->group * o->group * n_k + k / o->step * o->group * o->step;
    const int piece =
        row % o->group / o->rows * o->rows * o->step + k % o->step / o->ks * o->rows * o->ks;
    return (uint32_t)(group + piece + row % o->rows * o->ks + k % o->ks);
}

/* The number is a sum of a row's and a column's part. */
static void fill_elements(struct tile_elements *e, const struct tile_order *o, int n_in)
{
    const int n_k = (int)qp_round_up((size_t)n_in, ACT_BLOCK);
    for (int i = 0; i < TILE_ROWS; i++)
        e->row[i] = tile_element(o, n_k, i, 0);
    for (int i = 0; i < n_in; i++)
        e->column[i] = tile_element(o, n_k, 0, i);
}

void qp_kv_layout(struct kv_layout *kv, const struct kernels *k, const struct config *c,
                  bool is_int8)
{
    const size_t head_dim = (size_t)c->head_dim;
    kv->is_int8 = is_int8;
    kv->n_value_tiles = is_int8 ? (c->head_dim + TILE_ROWS - 1) / TILE_ROWS : 1;
    if (!is_int8) {
        kv->key_bytes = kv->value_bytes = head_dim * KV_BLOCK * sizeof(float);
        return;
    }
    kv->key_bytes = qp_tile_bytes(&k->tile_order, c->head_dim);
    kv->value_bytes = qp_tile_bytes(&k->tile_order, KV_BLOCK);
    fill_elements(&kv->key, &k->tile_order, c->head_dim);
    fill_elements(&kv->value, &k->tile_order, KV_BLOCK);
}

static int blocks_of(int n_positions)
{
    return (n_positions + KV_BLOCK - 1) / KV_BLOCK;
}

/* A call of n tokens writes all their keys, then its first token sees window - 1 positions before
 * itself: window - 1 + n positions must be there together, which begin anywhere in a block. */
int qp_kv_n_blocks(int window, int n_context, int max_tokens)
{
    if (window == 0 || window >= n_context)
        return blocks_of(n_context);
    const int n = blocks_of(window - 1 + max_tokens - 1) + 1;
    return n < blocks_of(n_context) ? n : blocks_of(n_context);
}

/* Bytes of one array of a layer, with n_tiles tiles for a block of a head. */
static size_t array_bytes(const struct config *c, int n_blocks, int n_tiles, size_t tile_bytes)
{
    size_t n = (size_t)c->n_kv_heads * (size_t)n_tiles;
    if (!qp_mul_size(n, (size_t)n_blocks, &n) || !qp_mul_size(n, tile_bytes, &n))
        return SIZE_MAX; // which cannot be had
    return n;
}

struct kv_layer qp_kv_take(const struct kv_layout *kv, const struct config *c, struct arena *a,
                           int n_blocks)
{
    const size_t scales = KV_BLOCK * sizeof(float);
    struct kv_layer layer = {
        .k = qp_arena_alloc(a, array_bytes(c, n_blocks, 1, kv->key_bytes)),
        .v = qp_arena_alloc(a, array_bytes(c, n_blocks, kv->n_value_tiles, kv->value_bytes)),
        .n_blocks = n_blocks,
    };
    if (kv->is_int8) {
        layer.k_scales = qp_arena_alloc(a, array_bytes(c, n_blocks, 1, scales));
        layer.v_scales = qp_arena_alloc(a, array_bytes(c, n_blocks, 1, scales));
    }
    return layer;
}

/* ---- one head's arrays ---- */

static void *head_of(const struct kv_layer *layer, const void *array, int h, size_t per_block)
{
    return (char *)array + (size_t)h * (size_t)layer->n_blocks * per_block;
}

struct kv_tiles qp_kv_tiles(const struct kv_layout *kv, const struct kv_layer *layer, int h)
{
    const size_t first = (size_t)h * (size_t)layer->n_blocks * KV_BLOCK;
    return (struct kv_tiles){
        .keys = head_of(layer, layer->k, h, kv->key_bytes),
        .values = head_of(layer, layer->v, h * kv->n_value_tiles, kv->value_bytes),
        .key_bytes = kv->key_bytes,
        .value_bytes = kv->value_bytes,
        .key_scales = layer->k_scales + first,
        .value_scales = layer->v_scales + first,
        .n_blocks = layer->n_blocks,
    };
}

const float *qp_kv_floats(const struct kv_layout *kv, const struct kv_layer *layer,
                          const float *array, int h)
{
    return head_of(layer, array, h, kv->key_bytes);
}

/* ---- back, and copies ---- */

void qp_cpu_kv_rewind(struct run *r, int pos)
{
    r->pos = pos;
    for (int l = 0; l < r->config->n_layers; l++) {
        const int first = first_seen(r->config, l, pos);
        if (first + r->kv[l].n_blocks * KV_BLOCK < r->n_written)
            r->pos = 0; // the place of `first` was taken by a later position
    }
    if (r->pos == 0)
        r->n_written = 0;
}

static void copy_heads(const struct kv_layer *layer, void *to, const void *from, int n_heads,
                       int n_blocks, size_t per_block)
{
    for (int h = 0; h < n_heads; h++)
        memcpy(head_of(layer, to, h, per_block), head_of(layer, from, h, per_block),
               (size_t)n_blocks * per_block);
}

void qp_cpu_kv_copy(struct run *to, const struct run *from)
{
    const struct kv_layout *kv = &cpu(to)->kv;
    const int n_heads = from->config->n_kv_heads, n_used = blocks_of(from->pos);
    for (int l = 0; l < from->config->n_layers; l++) {
        const struct kv_layer *y = &to->kv[l], *x = &from->kv[l];
        const int n = blocks_of(from->n_written) > x->n_blocks ? x->n_blocks : n_used;
        copy_heads(x, y->k, x->k, n_heads, n, kv->key_bytes);
        copy_heads(x, y->v, x->v, n_heads * kv->n_value_tiles, n, kv->value_bytes);
        if (kv->is_int8) {
            copy_heads(x, y->k_scales, x->k_scales, n_heads, n, KV_BLOCK * sizeof(float));
            copy_heads(x, y->v_scales, x->v_scales, n_heads, n, KV_BLOCK * sizeof(float));
        }
    }
    to->pos = from->pos;
    to->n_written = from->n_written;
}

/* ---- store ---- */

static void put_element(const struct tile_order *o, void *tile, size_t element, int8_t q)
{
    if (o->n_bytes == 1)
        ((uint8_t *)tile)[element] = (uint8_t)q ^ o->flip;
    else
        ((int16_t *)tile)[element] = q;
}

static void store_int8(struct run *r, int l, int h, const float *key, const float *value, int pos)
{
    const struct kernels *k = &cpu(r)->k;
    const struct kv_layout *kv = &cpu(r)->kv;
    const struct kv_layer *layer = &r->kv[l];
    const int head_dim = r->config->head_dim, at = pos % KV_BLOCK;
    const size_t block = (size_t)(pos / KV_BLOCK % layer->n_blocks);
    const size_t scale = ((size_t)h * (size_t)layer->n_blocks + block) * KV_BLOCK + (size_t)at;
    uint8_t *keys = (uint8_t *)head_of(layer, layer->k, h, kv->key_bytes) + block * kv->key_bytes;
    uint8_t *values = (uint8_t *)head_of(layer, layer->v, h * kv->n_value_tiles, kv->value_bytes) +
                      block * kv->value_bytes;
    const size_t next_values = (size_t)layer->n_blocks * kv->value_bytes; // of 64 more dimensions
    int8_t q[1024]; // head_dim is at most 1024 (config.c)

    k->quantize_row(q, &layer->k_scales[scale], key, head_dim);
    layer->k_scales[scale] *= r->config->query_scale;
    for (int d = 0; d < head_dim; d++)
        put_element(&k->tile_order, keys, kv->key.row[at] + kv->key.column[d], q[d]);

    k->quantize_row(q, &layer->v_scales[scale], value, head_dim);
    for (int d = 0; d < head_dim; d++)
        put_element(&k->tile_order, values + (size_t)(d / TILE_ROWS) * next_values,
                    kv->value.row[d % TILE_ROWS] + kv->value.column[at], q[d]);
}

static void store_f32(struct run *r, int l, int h, const float *key, const float *value, int pos)
{
    const struct kv_layout *kv = &cpu(r)->kv;
    const struct kv_layer *layer = &r->kv[l];
    const size_t head_dim = (size_t)r->config->head_dim, at = (size_t)(pos % KV_BLOCK);
    const size_t block = (size_t)(pos / KV_BLOCK % layer->n_blocks) * head_dim * KV_BLOCK;
    float *k = (float *)head_of(layer, layer->k, h, kv->key_bytes) + block + at;
    float *v = (float *)head_of(layer, layer->v, h, kv->value_bytes) + block + at * head_dim;
    for (size_t d = 0; d < head_dim; d++)
        k[d * KV_BLOCK] = key[d];
    memcpy(v, value, head_dim * sizeof *v);
}

void qp_kv_store(struct run *r, int l, int h, const float *key, const float *value, int pos)
{
    (cpu(r)->kv.is_int8 ? store_int8 : store_f32)(r, l, h, key, value, pos);
}
