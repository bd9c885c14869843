/* cpu_sequence.h: what the CPU backend keeps of the tokens of a session.
 *   kv_cache.c      keys and values, in slots for blocks of positions
 *   conv_history.c  columns of short convolutions */
#ifndef QP_CPU_SEQUENCE_H
#define QP_CPU_SEQUENCE_H

#include "cpu/kernels.h"
#include "engine/columns.h"

struct cpu_device;

#define MAX_HEAD_DIM 1024 // config.c

/* The order of keys and values (kv_cache.c). Element (r, k) of a tile of n_k columns has the index
 * group[r] * n_k + row[r] + column[k]. */
struct kv_layout {
    bool is_int8;
    struct tile_order order;
    uint32_t group[TILE_ROWS], row[TILE_ROWS], column[MAX_HEAD_DIM];
    uint32_t value_row[TILE_ROWS]; // group[r] * n_k + row[r] of a tile of values
};

/* Keys and values of one layer. Positions come in blocks; block b is in slot b % n_blocks. */
struct kv_layer {
    int n_heads, head_dim;
    size_t key_bytes, value_bytes; // of a tile; of floats, of a block of one head
    int n_value_tiles;             // of a block of one head
    int n_blocks;
    void *k, *v;
    float *k_scales, *v_scales; // NULL with float weights
};

/* The columns of one convolution layer (conv_history.c). */
struct conv_layer {
    float *columns; // [slots, d_model]
    struct columns kept;
};

struct cpu_sequence {
    struct sequence base;
    struct arena arena;
    struct kv_layer *kv;     // [n_layers]; a layer without its own has the one that it reads
    struct kv_layer text;    // without a KV cache: of the layer that runs (ops_texts.c)
    struct conv_layer *conv; // [n_layers], or NULL if the model has no convolution
    int n_written; // positions [0, n_written) were stored; base.pos may have gone back since
    struct arena output_arena;
    float *outputs; // [max_outputs, d_model]
    int max_outputs, n_outputs;
};

static inline struct cpu_sequence *cpu_sequence_of(struct sequence *s)
{
    return (struct cpu_sequence *)s;
}

/* ---- kv_cache.c ---- */

void qp_kv_layout(struct kv_layout *kv, const struct kernels *k, bool is_int8);
/* Allocate what a sequence needs; returns the bytes of keys and values. */
size_t qp_kv_alloc(struct cpu_sequence *s, const struct kv_layout *kv, const struct config *c,
                   struct arena *a);
/* Memory for the int8 keys and values of one layer of texts, n_blocks together. */
struct kv_layer qp_kv_alloc_texts(const struct kv_layout *kv, const struct config *c, int n_blocks,
                                  struct arena *a);
/* Layer l of a text, whose n_blocks begin with `first` of this memory. */
struct kv_layer qp_kv_text(const struct kv_layer *memory, const struct kv_layout *kv,
                           const struct layer_config *c, int first, int n_blocks);
struct kv_tiles qp_kv_tiles(const struct kv_layer *layer, int h);
/* Head h of an array of float keys or values. */
const float *qp_kv_floats(const struct kv_layer *layer, const float *array, int h);
/* Store the key and value of kv head h at a position. */
void qp_kv_store(struct cpu_device *d, struct kv_layer *layer, int h, const float *key,
                 const float *value, int pos);

quip_status qp_cpu_sequence_open(struct sequence **sequence, struct device *device, int n_context,
                                 quip_error *error);
void qp_cpu_sequence_close(struct sequence *sequence);
void qp_cpu_sequence_copy(struct sequence *to, const struct sequence *from);
void qp_cpu_sequence_rewind(struct sequence *sequence, int pos);
quip_status qp_cpu_sequence_reserve_outputs(struct sequence *sequence, int n, quip_error *error);
quip_status qp_cpu_sequence_export(const struct sequence *sequence, const struct stream *to,
                                   quip_error *error);
quip_status qp_cpu_sequence_import(struct sequence *sequence, const struct stream *from,
                                   quip_error *error);

/* ---- conv_history.c ---- */

/* Consecutive rows of one sequence in a convolution layer, and some channels of them. */
struct conv_rows {
    const struct config *config;
    struct conv_layer *layer;
    const float *x; // [n, d_model] their columns
    int pos, n;     // positions [pos, pos + n)
    int n_context;  // of the sequence
    int channel, n_channels;
};
/* Allocate what a sequence needs. */
void qp_conv_alloc(struct cpu_sequence *s, const struct config *c, struct arena *a);
/* The last position, not after `pos`, where the sequence can go on. */
int qp_conv_rewind(const struct cpu_sequence *s, int pos);
/* A batch: restore the ring if the sequence went back; column `pos` before or among the rows; keep
 * their columns; all for the channels of r. Then qp_columns_advance, once: the rows have run. */
void qp_conv_restore(const struct conv_rows *r);
const float *qp_conv_column(const struct conv_rows *r, int pos);
void qp_conv_keep(const struct conv_rows *r);
/* `to` has the same n_context. */
void qp_conv_copy(struct cpu_sequence *to, const struct cpu_sequence *from);
/* Write or read what the positions before `pos` need, in an order that does not depend on the
 * layout. False: the stream failed. */
bool qp_conv_transfer(struct cpu_sequence *s, const struct stream *stream, int pos, bool is_import);

#endif
