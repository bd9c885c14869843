/* store.h: rows of numbers -> bytes of the model file, in the layout for CPUs or for GPUs
 * (store.c). */
#ifndef QP_STORE_H
#define QP_STORE_H

#include "convert/convert.h"
#include "format/tflite_writer.h"
#include "model/families_convert.h"

/* One tensor of the model file and how it is kept. A vector is one row, of floats. */
struct stored {
    const char *source; // its name where it comes from, for messages
    int64_t rows, cols;
    enum dtype dtype;          // F32, I8, I4 or I4_BLOCK; for GPUs an unquantized matrix is F16
    bool is_for_gpu, is_mse;   // the layout; the scheme of the scales
    bool is_asymmetric;        // with a zero point per row
    bool is_first;             // in the file
    int index;                 // in the writer
    int scale_index;           // of what goes with a quantized matrix
    int multiplier_index;      // of I4_BLOCK
    const float *importance;   // of the columns of I4_BLOCK; NULL: all alike
    int zero_index, sum_index; // for GPUs
};
/* How the options want a class of tensors kept; fills all but source and sizes. */
void qp_store_as(struct stored *s, const struct convert_options *o, enum weight_class weight_class);
/* Declare a matrix and what goes with it under its full name ("params.lm. ..."), or a vector; the
 * norms of LayerNorm have a shape and for GPUs a name of their own. */
quip_status qp_store_declare(struct tflite_writer *w, struct stored *s, const char *name,
                             quip_error *error);
quip_status qp_store_declare_vector(struct tflite_writer *w, struct stored *s, const char *name,
                                    bool is_layer_norm, quip_error *error);
/* Bytes of the values alone, without scales. */
uint64_t qp_stored_bytes(const struct stored *s);

/* Memory for as many rows as are written at a time. */
struct slab {
    struct pool *pool; // for what takes longer than writing it
    void *packed;      // integers as files for CPUs have them
    uint8_t *multipliers;
    float *scales, *zeros;
    uint8_t *tiles;
    int32_t *sums;
    int64_t n_values, n_rows; // room
};
quip_status qp_slab_open(struct slab *slab, int64_t n_values, int64_t n_rows, quip_error *error);
void qp_slab_close(struct slab *slab);
/* Write rows [begin, begin + n); for GPUs both are multiples of 4 in a matrix. Quantize floats
 * first; or take integers as they are, packed in the slab with what goes with them. */
quip_status qp_store_floats(struct tflite_writer *w, const struct stored *s, struct slab *slab,
                            int64_t begin, int64_t n, const float *values, quip_error *error);
quip_status qp_store_integers(struct tflite_writer *w, const struct stored *s, struct slab *slab,
                              int64_t begin, int64_t n, quip_error *error);

bool qp_ends_with(const char *name, const char *end);
/* Whether a tensor belongs to a matrix and is written with it: scales and the like. */
bool qp_is_companion(const char *name);

#endif
