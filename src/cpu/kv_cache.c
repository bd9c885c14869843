/* kv_cache.c: sequences: keys and values of the positions already run, laid out for the products
 * that read them.
 * In:  the key and value of one head at one position, as floats.
 * Out: what attention reads.
 *
 * With integer weights they are int8 with a scale for each position, in tiles in the order of the
 * weights' gemm kernel (attention_int8.h); per layer and kv head
 *   keys:   [blocks][tile of KV_BLOCK positions x head_dim]
 *   values: [head_dim / TILE_ROWS][blocks][tile of TILE_ROWS dimensions x KV_BLOCK]
 * With float weights they are floats (struct attention):
 *   keys:   [blocks][head_dim][KV_BLOCK]        values: [blocks * KV_BLOCK][head_dim]
 * Block b of positions is in slot b % n_blocks of its layer: a sliding-window layer is a ring of a
 * few slots. A layer that reads the keys and values of an earlier one has no memory. Everything is
 * allocated when the sequence opens. Beyond the last position there may be any values. */
#include "cpu/cpu_impl.h"

#include <assert.h>
#include <float.h>
#include <stdlib.h>
#include <string.h>

/* ---- layout ---- */

void qp_kv_layout(struct kv_layout *kv, const struct kernels *k, bool is_int8)
{
    const struct tile_order *o = &k->tile_order;
    *kv = (struct kv_layout){ .is_int8 = is_int8, .order = *o };
    for (int r = 0; r < TILE_ROWS && is_int8; r++) {
        kv->group[r] = (uint32_t)(r / o->group * o->group);
        kv->row[r] = (uint32_t)(r % o->group / o->rows * o->rows * o->step + r % o->rows * o->ks);
        kv->value_row[r] = kv->group[r] * KV_BLOCK + kv->row[r];
    }
    for (int i = 0; i < MAX_HEAD_DIM && is_int8; i++)
        kv->column[i] = (uint32_t)(i / o->step * o->group * o->step +
                                   i % o->step / o->ks * o->rows * o->ks + i % o->ks);
}

/* A layer without its arrays. */
static struct kv_layer shape_layer(const struct kv_layout *kv, const struct layer_config *c)
{
    const size_t head_dim = (size_t)c->head_dim;
    struct kv_layer layer = { .n_heads = c->n_kv_heads,
                              .head_dim = c->head_dim,
                              .key_bytes = head_dim * KV_BLOCK * sizeof(float),
                              .value_bytes = head_dim * KV_BLOCK * sizeof(float),
                              .n_value_tiles = 1 };
    assert(c->head_dim > 0 && c->head_dim <= MAX_HEAD_DIM);
    if (kv->is_int8) {
        layer.key_bytes = qp_tile_bytes(&kv->order, c->head_dim);
        layer.value_bytes = qp_tile_bytes(&kv->order, KV_BLOCK);
        layer.n_value_tiles = (c->head_dim + TILE_ROWS - 1) / TILE_ROWS;
    }
    return layer;
}

static int blocks_of(int n_positions)
{
    return (n_positions + KV_BLOCK - 1) / KV_BLOCK;
}

/* Blocks that a layer with this window (0: none) keeps, for n rows of a batch. A batch first stores
 * the keys of all rows, then its first row attends to window - 1 positions before itself: these
 * window - 1 + n positions must be there together, and may begin anywhere in a block. */
static int ring_blocks(int window, int n_context, int max_tokens)
{
    if (window == 0 || window >= n_context)
        return blocks_of(n_context);
    const int n = blocks_of(window - 1 + max_tokens - 1) + 1;
    return n < blocks_of(n_context) ? n : blocks_of(n_context);
}

/* Bytes of one array of a layer, with n_tiles tiles for a block of a head. */
static size_t array_bytes(const struct kv_layer *layer, int n_tiles, size_t tile_bytes)
{
    size_t n = (size_t)layer->n_heads * (size_t)n_tiles;
    if (!qp_mul_size(n, (size_t)layer->n_blocks, &n) || !qp_mul_size(n, tile_bytes, &n))
        return SIZE_MAX; // which no arena can be opened with
    return n;
}

/* ---- one head's arrays ---- */

static void *head_of(const struct kv_layer *layer, const void *array, int h, size_t per_block)
{
    return (char *)array + (size_t)h * (size_t)layer->n_blocks * per_block;
}

struct kv_tiles qp_kv_tiles(const struct kv_layer *layer, int h)
{
    const size_t first = (size_t)h * (size_t)layer->n_blocks * KV_BLOCK;
    return (struct kv_tiles){
        .keys = head_of(layer, layer->k, h, layer->key_bytes),
        .values = head_of(layer, layer->v, h * layer->n_value_tiles, layer->value_bytes),
        .key_bytes = layer->key_bytes,
        .value_bytes = layer->value_bytes,
        .key_scales = layer->k_scales + first,
        .value_scales = layer->v_scales + first,
        .n_blocks = layer->n_blocks,
    };
}

const float *qp_kv_floats(const struct kv_layer *layer, const float *array, int h)
{
    return head_of(layer, array, h, layer->key_bytes);
}

/* ---- open, close, copy, rewind ---- */

/* Does the layer have keys and values of its own? Otherwise it reads those of an earlier one, or it
 * is a convolution. */
static bool owns_kv(const struct config *c, int l)
{
    assert(c->layers[l].kv_layer >= 0 && c->layers[l].kv_layer <= l);
    return c->layers[l].kv_layer == l && c->layers[l].mixer == MIXER_ATTENTION;
}

static void alloc_layer(struct kv_layer *layer, bool is_int8, struct arena *a)
{
    const size_t scales = KV_BLOCK * sizeof(float);
    layer->k = qp_arena_alloc(a, array_bytes(layer, 1, layer->key_bytes));
    layer->v = qp_arena_alloc(a, array_bytes(layer, layer->n_value_tiles, layer->value_bytes));
    if (is_int8) {
        layer->k_scales = qp_arena_alloc(a, array_bytes(layer, 1, scales));
        layer->v_scales = qp_arena_alloc(a, array_bytes(layer, 1, scales));
    }
}

size_t qp_kv_alloc(struct cpu_sequence *s, const struct kv_layout *kv, const struct config *c,
                   struct arena *a)
{
    const int n_context = s->base.n_context, n_rows = qp_min(n_context, PREFILL_CHUNK);
    s->kv = qp_cpu_alloc(a, (size_t)c->n_layers, 1, sizeof *s->kv);
    const size_t before = a->used;
    for (int l = 0; l < c->n_layers; l++) {
        const struct layer_config *lc = &c->layers[l];
        struct kv_layer layer = shape_layer(kv, lc);
        layer.n_blocks = ring_blocks(lc->window, n_context, n_rows);
        if (owns_kv(c, l))
            alloc_layer(&layer, kv->is_int8, a);
        else if (s->kv)
            layer = s->kv[lc->kv_layer];
        if (s->kv)
            s->kv[l] = layer;
    }
    qp_conv_alloc(s, c, a);
    return a->used - before;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

struct kv_layer qp_kv_alloc_texts(const struct kv_layout *kv, const struct config *c, int n_blocks,
                                  struct arena *a)
{
    struct kv_layer memory = { .n_blocks = n_blocks };
    size_t keys = 0, values = 0, scales = 0; // the most of a layer
    for (int l = 0; l < c->n_layers; l++) {
        struct kv_layer layer = shape_layer(kv, &c->layers[l]);
        layer.n_blocks = n_blocks;
        keys = larger(keys, array_bytes(&layer, 1, layer.key_bytes));
        values = larger(values, array_bytes(&layer, layer.n_value_tiles, layer.value_bytes));
        scales = larger(scales, array_bytes(&layer, 1, KV_BLOCK * sizeof(float)));
    }
    memory.k = qp_arena_alloc(a, keys);
    memory.v = qp_arena_alloc(a, values);
    memory.k_scales = qp_arena_alloc(a, scales);
    memory.v_scales = qp_arena_alloc(a, scales);
    return memory;
}

struct kv_layer qp_kv_text(const struct kv_layer *memory, const struct kv_layout *kv,
                           const struct layer_config *c, int first, int n_blocks)
{
    struct kv_layer layer = shape_layer(kv, c);
    const size_t before = (size_t)first * (size_t)layer.n_heads;
    assert(first >= 0 && first + n_blocks <= memory->n_blocks);
    layer.n_blocks = n_blocks;
    layer.k = (uint8_t *)memory->k + before * layer.key_bytes;
    layer.v = (uint8_t *)memory->v + before * (size_t)layer.n_value_tiles * layer.value_bytes;
    layer.k_scales = memory->k_scales + before * KV_BLOCK;
    layer.v_scales = memory->v_scales + before * KV_BLOCK;
    return layer;
}

quip_status qp_cpu_sequence_open(struct sequence **sequence, struct device *device, int n_context,
                                 quip_error *error)
{
    struct cpu_device *d = cpu_of(device);
    struct cpu_sequence measured = { .base = { .n_context = n_context } };
    struct arena arena = { 0 };
    assert(n_context >= 0);
    *sequence = NULL;
    if (n_context > 0)
        qp_kv_alloc(&measured, &d->kv, device->config, &arena);
    struct cpu_sequence *s = calloc(1, sizeof *s);
    if (!s)
        return qp_fail_memory(error, "a sequence", sizeof *s);
    s->base = (struct sequence){ .device = device, .n_context = n_context };
    if (n_context == 0) {
        *sequence = &s->base;
        return QUIP_OK;
    }
    quip_status status = qp_arena_open(&s->arena, arena.used, "a session's KV cache", error);
    if (!status)
        status = qp_cpu_sequence_reserve_outputs(&s->base, SEQUENCE_OUTPUTS, error);
    if (status) {
        qp_cpu_sequence_close(&s->base);
        return status;
    }
    qp_kv_alloc(s, &d->kv, device->config, &s->arena);
    *sequence = &s->base;
    return QUIP_OK;
}

void qp_cpu_sequence_close(struct sequence *sequence)
{
    struct cpu_sequence *s = cpu_sequence_of(sequence);
    if (!s)
        return;
    qp_arena_close(&s->arena);
    qp_arena_close(&s->output_arena);
    free(s);
}

quip_status qp_cpu_sequence_reserve_outputs(struct sequence *sequence, int n, quip_error *error)
{
    struct cpu_sequence *s = cpu_sequence_of(sequence);
    struct arena arena;
    n = n < SEQUENCE_OUTPUTS ? SEQUENCE_OUTPUTS : n;
    if (n == s->max_outputs)
        return QUIP_OK;
    const size_t n_floats = (size_t)n * (size_t)sequence->device->config->d_model;
    const size_t n_bytes = qp_round_up(n_floats * sizeof(float), 64);
    const quip_status status = qp_arena_open(&arena, n_bytes, "a session's outputs", error);
    if (status)
        return status;
    qp_arena_close(&s->output_arena);
    s->output_arena = arena;
    s->outputs = qp_arena_alloc(&s->output_arena, n_bytes);
    s->max_outputs = n;
    s->n_outputs = 0;
    return QUIP_OK;
}

void qp_cpu_sequence_rewind(struct sequence *sequence, int pos)
{
    struct cpu_sequence *s = cpu_sequence_of(sequence);
    const struct config *c = sequence->device->config;
    assert(pos >= 0 && pos <= sequence->pos);
    sequence->pos = pos = qp_conv_rewind(s, pos);
    for (int l = 0; l < c->n_layers; l++) {
        const int first = first_visible(c, l, pos);
        if (owns_kv(c, l) && first + s->kv[l].n_blocks * KV_BLOCK < s->n_written)
            sequence->pos = 0; // a later position has overwritten the slot of `first`
    }
    if (sequence->pos == 0)
        s->n_written = 0;
}

static void copy_heads(const struct kv_layer *layer, void *to, const void *from, int n_heads,
                       int n_blocks, size_t per_block)
{
    for (int h = 0; h < n_heads; h++)
        memcpy(head_of(layer, to, h, per_block), head_of(layer, from, h, per_block),
               (size_t)n_blocks * per_block);
}

/* The first n blocks of a layer. */
static void copy_layer(const struct kv_layer *to, const struct kv_layer *from, int n)
{
    const int n_heads = from->n_heads;
    copy_heads(from, to->k, from->k, n_heads, n, from->key_bytes);
    copy_heads(from, to->v, from->v, n_heads * from->n_value_tiles, n, from->value_bytes);
    if (from->k_scales) {
        copy_heads(from, to->k_scales, from->k_scales, n_heads, n, KV_BLOCK * sizeof(float));
        copy_heads(from, to->v_scales, from->v_scales, n_heads, n, KV_BLOCK * sizeof(float));
    }
}

void qp_cpu_sequence_copy(struct sequence *copy, const struct sequence *original)
{
    struct cpu_sequence *to = cpu_sequence_of(copy);
    const struct cpu_sequence *from = (const struct cpu_sequence *)original;
    const struct config *c = original->device->config;
    assert(copy->n_context == original->n_context);
    for (int l = 0; l < c->n_layers; l++)
        if (owns_kv(c, l)) {
            const struct kv_layer *x = &from->kv[l];
            const bool is_full = blocks_of(from->n_written) > x->n_blocks;
            copy_layer(&to->kv[l], x, is_full ? x->n_blocks : blocks_of(original->pos));
        }
    qp_conv_copy(to, from);
    to->n_outputs = qp_min(from->n_outputs, to->max_outputs);
    memcpy(to->outputs, from->outputs,
           (size_t)to->n_outputs * (size_t)c->d_model * sizeof *to->outputs);
    copy->pos = original->pos;
    to->n_written = from->n_written;
}

/* ---- one position of one head ---- */

/* The parts of a layer that hold position `pos` of kv head h. */
struct kv_slot {
    int head_dim;
    uint8_t *keys, *values;   // the tile of keys, the first tile of values; or the floats
    size_t next_values;       // bytes to the tile of 64 more dimensions
    float *k_scale, *v_scale; // NULL with floats
    int at;                   // position in the block
};

static struct kv_slot slot_of(const struct kv_layer *layer, int h, int pos)
{
    const size_t block = (size_t)(pos / KV_BLOCK % layer->n_blocks);
    const size_t scale = ((size_t)h * (size_t)layer->n_blocks + block) * KV_BLOCK;
    struct kv_slot slot = { .head_dim = layer->head_dim,
                            .at = pos % KV_BLOCK,
                            .next_values = (size_t)layer->n_blocks * layer->value_bytes };
    assert(h >= 0 && h < layer->n_heads && pos >= 0);
    slot.keys = (uint8_t *)head_of(layer, layer->k, h, layer->key_bytes) + block * layer->key_bytes;
    slot.values =
        (uint8_t *)head_of(layer, layer->v, h * layer->n_value_tiles, layer->value_bytes) +
        block * layer->value_bytes;
    if (layer->k_scales) {
        slot.k_scale = layer->k_scales + scale + slot.at;
        slot.v_scale = layer->v_scales + scale + slot.at;
    }
    return slot;
}

/* q[i] becomes element first + offsets[i]. */
static void put_elements(const struct tile_order *o, void *restrict tile, size_t first,
                         const uint32_t *restrict offsets, const int8_t *restrict q, int n)
{
    uint8_t *bytes = (uint8_t *)tile + first;
    int16_t *words = (int16_t *)tile + first;
    const uint8_t flip = o->flip;
    if (o->n_bytes == 1)
        for (int i = 0; i < n; i++)
            bytes[offsets[i]] = (uint8_t)q[i] ^ flip;
    else
        for (int i = 0; i < n; i++)
            words[offsets[i]] = q[i];
}

static int8_t get_element(const struct tile_order *o, const void *tile, size_t element)
{
    if (o->n_bytes == 1)
        return (int8_t)(((const uint8_t *)tile)[element] ^ o->flip);
    return (int8_t)((const int16_t *)tile)[element];
}

static size_t tile_element(const struct kv_layout *kv, int r, int k, int n_k)
{
    return (size_t)kv->group[r] * (size_t)n_k + kv->row[r] + kv->column[k];
}

/* Element i of the slot's key and value. */
static size_t key_element(const struct kv_layout *kv, const struct kv_slot *slot, int i)
{
    return tile_element(kv, slot->at, i, (int)qp_round_up((size_t)slot->head_dim, ACT_BLOCK));
}

static size_t value_element(const struct kv_layout *kv, const struct kv_slot *slot, int i)
{
    return tile_element(kv, i % TILE_ROWS, slot->at, KV_BLOCK);
}

static uint8_t *value_tile(const struct kv_slot *slot, int i)
{
    return slot->values + (size_t)(i / TILE_ROWS) * slot->next_values;
}

/* The elements of a key are side by side in pieces of order.ks. */
static void put_key(const struct kv_layout *kv, const struct kv_slot *slot, const int8_t *q)
{
    const struct tile_order *o = &kv->order;
    const size_t first = key_element(kv, slot, 0);
    const uint32_t flips = 0x01010101u * o->flip;
    if (o->n_bytes > 1 || o->ks % sizeof flips != 0 || slot->head_dim % sizeof flips != 0) {
        put_elements(o, slot->keys, first, kv->column, q, slot->head_dim);
        return;
    }
    for (int i = 0; i < slot->head_dim; i += (int)sizeof flips) {
        uint32_t four;
        memcpy(&four, q + i, sizeof four);
        four ^= flips;
        memcpy(slot->keys + first + kv->column[i], &four, sizeof four);
    }
}

static void put_value(const struct kv_layout *kv, const struct kv_slot *slot, const int8_t *q)
{
    for (int i = 0; i < slot->head_dim; i += TILE_ROWS)
        put_elements(&kv->order, value_tile(slot, i), value_element(kv, slot, 0), kv->value_row,
                     q + i, qp_min(slot->head_dim - i, TILE_ROWS));
}

static void store_int8(const struct cpu_device *d, const struct kv_slot *slot, const float *key,
                       const float *value)
{
    int8_t q[MAX_HEAD_DIM];
    d->k.quantize_row(q, slot->k_scale, key, slot->head_dim);
    *slot->k_scale *= d->base.config->query_scale;
    put_key(&d->kv, slot, q);
    d->k.quantize_row(q, slot->v_scale, value, slot->head_dim);
    put_value(&d->kv, slot, q);
}

static void store_f32(const struct kv_slot *slot, const float *key, const float *value)
{
    const size_t head_dim = (size_t)slot->head_dim;
    float *k = (float *)(void *)slot->keys + slot->at;
    float *v = (float *)(void *)slot->values + (size_t)slot->at * head_dim;
    for (size_t i = 0; i < head_dim; i++)
        k[i * KV_BLOCK] = key[i];
    memcpy(v, value, head_dim * sizeof *v);
}

void qp_kv_store(struct cpu_device *d, struct kv_layer *layer, int h, const float *key,
                 const float *value, int pos)
{
    const struct kv_slot slot = slot_of(layer, h, pos);
    if (d->kv.is_int8)
        store_int8(d, &slot, key, value);
    else
        store_f32(&slot, key, value);
}

/* ---- export and import ----
 * The bytes, all little-endian: struct kv_header; the outputs, [n_outputs, d_model] floats; then
 * for each layer, for each position that its ring still holds, ascending, for each kv head: the key
 * and the value. Each is head_dim floats, or a float scale and head_dim int8. Then the columns of
 * convolutions (conv_history.c). */

struct kv_header {
    uint32_t kind, shape; // enum kv_kind; shape_of the layers
    int32_t n_layers, d_model;
    int32_t n_context; // rings of the same size lose the same positions
    int32_t pos, n_written, n_outputs;
    int32_t conv_width;
};

enum kv_kind {
    KV_FLOATS,
    KV_INT8,
    KV_INT8_WITHOUT_MEANS // key_means.c
};

static uint32_t kind_of(const struct cpu_device *d)
{
    return !d->kv.is_int8 ? KV_FLOATS : qp_has_key_means(d) ? KV_INT8_WITHOUT_MEANS : KV_INT8;
}

/* A number for the sizes of all layers: FNV-1a. */
static uint32_t shape_of(const struct config *c)
{
    uint32_t hash = 2166136261u;
    for (int l = 0; l < c->n_layers; l++) {
        const struct layer_config *lc = &c->layers[l];
        const int sizes[] = { lc->kv_layer, lc->n_kv_heads, lc->head_dim, lc->window };
        for (size_t i = 0; i < QP_COUNT(sizes); i++)
            hash = (hash ^ (uint32_t)sizes[i]) * 16777619u;
    }
    return hash;
}

/* The first position whose keys a layer still has. */
static int first_kept(const struct kv_layer *layer, int n_written)
{
    const int first = n_written - layer->n_blocks * KV_BLOCK;
    return first > 0 ? first : 0;
}

static bool transfer(const struct stream *stream, void *bytes, size_t n)
{
    return stream->transfer(stream->user, bytes, n);
}

static bool export_slot(const struct cpu_device *d, const struct kv_slot *slot,
                        const struct stream *to)
{
    const int head_dim = slot->head_dim;
    float floats[MAX_HEAD_DIM];
    int8_t q[MAX_HEAD_DIM];
    if (!d->kv.is_int8) {
        const float *k = (const float *)(const void *)slot->keys + slot->at;
        float *v = (float *)(void *)slot->values + (size_t)slot->at * (size_t)head_dim;
        for (int i = 0; i < head_dim; i++)
            floats[i] = k[(size_t)i * KV_BLOCK];
        return transfer(to, floats, (size_t)head_dim * sizeof *floats) &&
               transfer(to, v, (size_t)head_dim * sizeof *v);
    }
    for (int i = 0; i < head_dim; i++)
        q[i] = get_element(&d->kv.order, slot->keys, key_element(&d->kv, slot, i));
    if (!transfer(to, slot->k_scale, sizeof(float)) || !transfer(to, q, (size_t)head_dim))
        return false;
    for (int i = 0; i < head_dim; i++)
        q[i] = get_element(&d->kv.order, value_tile(slot, i), value_element(&d->kv, slot, i));
    return transfer(to, slot->v_scale, sizeof(float)) && transfer(to, q, (size_t)head_dim);
}

static bool import_slot(const struct cpu_device *d, const struct kv_slot *slot,
                        const struct stream *from)
{
    const size_t head_dim = (size_t)slot->head_dim;
    float key[MAX_HEAD_DIM], value[MAX_HEAD_DIM];
    int8_t q[MAX_HEAD_DIM];
    if (!d->kv.is_int8) {
        if (!transfer(from, key, head_dim * sizeof *key) ||
            !transfer(from, value, head_dim * sizeof *value))
            return false;
        store_f32(slot, key, value);
        return true;
    }
    if (!transfer(from, slot->k_scale, sizeof(float)) || !transfer(from, q, head_dim))
        return false;
    put_key(&d->kv, slot, q);
    if (!transfer(from, slot->v_scale, sizeof(float)) || !transfer(from, q, head_dim))
        return false;
    if (!(*slot->v_scale >= 0.0f && *slot->v_scale <= FLT_MAX))
        *slot->v_scale = 0.0f; // of a damaged stream; struct softmax_rows has no such scales
    put_value(&d->kv, slot, q);
    return true;
}

/* All slots of all layers, in the order of the file. */
static bool transfer_slots(const struct cpu_sequence *s, const struct stream *stream, int pos,
                           int n_written,
                           bool (*one)(const struct cpu_device *d, const struct kv_slot *slot,
                                       const struct stream *stream))
{
    const struct cpu_device *d = cpu_of(s->base.device);
    const struct config *c = d->base.config;
    for (int l = 0; l < c->n_layers; l++)
        for (int p = first_kept(&s->kv[l], n_written); owns_kv(c, l) && p < pos; p++)
            for (int h = 0; h < s->kv[l].n_heads; h++) {
                const struct kv_slot slot = slot_of(&s->kv[l], h, p);
                if (!one(d, &slot, stream))
                    return false;
            }
    return true;
}

quip_status qp_cpu_sequence_export(const struct sequence *sequence, const struct stream *to,
                                   quip_error *error)
{
    const struct cpu_sequence *s = (const struct cpu_sequence *)sequence;
    const struct config *c = sequence->device->config;
    struct kv_header header = { .kind = kind_of(cpu_of(sequence->device)),
                                .shape = shape_of(c),
                                .n_layers = c->n_layers,
                                .d_model = c->d_model,
                                .n_context = sequence->n_context,
                                .pos = sequence->pos,
                                .n_written = s->n_written,
                                .n_outputs = s->n_outputs,
                                .conv_width = c->conv_width };
    if (transfer(to, &header, sizeof header) &&
        transfer(to, s->outputs, (size_t)s->n_outputs * (size_t)c->d_model * sizeof *s->outputs) &&
        transfer_slots(s, to, sequence->pos, s->n_written, export_slot) &&
        qp_conv_transfer((struct cpu_sequence *)sequence, to, sequence->pos, false))
        return QUIP_OK;
    return qp_fail(error, QUIP_E_IO, "the KV cache could not be written");
}

/* Is every position that the token at h->pos attends to in the rings that were exported? */
static bool is_complete(const struct cpu_sequence *s, const struct kv_header *h)
{
    const struct config *c = s->base.device->config;
    for (int l = 0; l < c->n_layers; l++)
        if (owns_kv(c, l) && first_visible(c, l, h->pos) < first_kept(&s->kv[l], h->n_written))
            return false;
    return true;
}

static quip_status check_header(const struct cpu_sequence *s, const struct kv_header *h,
                                quip_error *error)
{
    const struct config *c = s->base.device->config;
    const int n_context = s->base.n_context;
    if (h->kind != kind_of(cpu_of(s->base.device)) || h->shape != shape_of(c) ||
        h->n_layers != c->n_layers || h->d_model != c->d_model || h->conv_width != c->conv_width)
        return qp_fail(error, QUIP_E_FORMAT,
                       "the KV cache is of another model, or of another backend");
    if (h->n_context != n_context)
        return qp_fail(error, QUIP_E_FORMAT, "the KV cache has n_context %d, expected %d",
                       (int)h->n_context, n_context);
    if (h->n_written < 0 || h->n_written > n_context)
        return qp_fail(error, QUIP_E_FORMAT, "the KV cache has %d positions, expected 0 to %d",
                       (int)h->n_written, n_context);
    if (h->pos < 0 || h->pos > h->n_written || !is_complete(s, h))
        return qp_fail(error, QUIP_E_FORMAT,
                       "the KV cache stands at position %d, which is not among its positions",
                       (int)h->pos);
    if (h->n_outputs < 0 || h->n_outputs > n_context)
        return qp_fail(error, QUIP_E_FORMAT, "the KV cache has %d outputs, expected 0 to %d",
                       (int)h->n_outputs, n_context);
    return QUIP_OK;
}

quip_status qp_cpu_sequence_import(struct sequence *sequence, const struct stream *from,
                                   quip_error *error)
{
    struct cpu_sequence *s = cpu_sequence_of(sequence);
    struct kv_header h;
    assert(sequence->pos == 0);
    s->n_outputs = 0;
    if (!transfer(from, &h, sizeof h))
        return qp_fail(error, QUIP_E_IO, "the KV cache could not be read");
    quip_status status = check_header(s, &h, error);
    if (!status)
        status = qp_cpu_sequence_reserve_outputs(sequence, h.n_outputs, error);
    if (status)
        return status;
    if (!transfer(from, s->outputs, (size_t)h.n_outputs * (size_t)h.d_model * sizeof *s->outputs) ||
        !transfer_slots(s, from, h.pos, h.n_written, import_slot) ||
        !qp_conv_transfer(s, from, h.pos, true))
        return qp_fail(error, QUIP_E_IO, "the KV cache could not be read");
    s->n_outputs = h.n_outputs;
    s->n_written = h.n_written;
    sequence->pos = h.pos;
    return QUIP_OK;
}
