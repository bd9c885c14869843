/* store.h: rows of numbers -> bytes of the model file, in the layout for CPUs or for GPUs
 * (store.c). */
#ifndef QP_STORE_H
#define QP_STORE_H

#include "convert/convert.h"
#include "format/tflite_writer.h"
#include "model/families_convert.h"

/* How one tensor of the model file is stored. A vector is one row of floats. */
struct stored {
    const char *source; // its name in the source, for messages
    int64_t rows, cols;
    enum dtype dtype;        // F32, I8, I4 or I4_BLOCK; for GPUs an unquantized matrix is F16
    bool is_for_gpu, is_mse; // the layout; the scheme of the scales
    bool is_asymmetric;      // with a zero point per row
    bool has_rest;           // of I8: what rounding leaves is stored, too
    bool is_first;           // in the file
    bool may_be_infinite;    // divisors of rope: such a dimension does not rotate
    int index;               // in the writer
    int scale_index;         // of the scales of a quantized matrix
    int multiplier_index;    // of I4_BLOCK
    const float *importance; // of the columns of I4_BLOCK; NULL: all are equal
    const float *factor;     // of the inputs of I8 (rounding.h); NULL: each weight is rounded alone
    int zero_index, sum_index; // for GPUs
    int rest_index;
};
/* How the options store a class of tensors. Sets everything except source and sizes. */
void qp_store_as(struct stored *s, const struct convert_options *o, enum weight_class weight_class);
/* Declare a matrix with its companion tensors under its full name ("params.lm. ..."), or a vector.
 * The norms of LayerNorm have a special shape, and a special name in files for GPUs. */
quip_status qp_store_declare(struct tflite_writer *w, struct stored *s, const char *name,
                             quip_error *error);
quip_status qp_store_declare_vector(struct tflite_writer *w, struct stored *s, const char *name,
                                    bool is_layer_norm, quip_error *error);
/* Bytes of the values alone, without scales. */
uint64_t qp_stored_bytes(const struct stored *s);

/* Memory for the rows that are written at a time. */
struct slab {
    struct pool *pool; // for what takes longer than writing it
    void *packed;      // integers as in files for CPUs
    int8_t *rest;
    uint8_t *multipliers;
    float *scales, *zeros;
    uint8_t *tiles;
    int32_t *sums;
    float *errors; // of rounding, for each thread of the pool
    int64_t n_errors;
    int64_t n_values, n_rows; // capacity
};
quip_status qp_slab_open(struct slab *slab, int64_t n_values, int64_t n_rows, quip_error *error);
void qp_slab_close(struct slab *slab);
/* Write rows [begin, begin + n). For GPUs, both are multiples of 4 in a matrix. The first function
 * quantizes floats; the second writes the integers, scales and so on that are in the slab. */
quip_status qp_store_floats(struct tflite_writer *w, const struct stored *s, struct slab *slab,
                            int64_t begin, int64_t n, const float *values, quip_error *error);
quip_status qp_store_integers(struct tflite_writer *w, const struct stored *s, struct slab *slab,
                              int64_t begin, int64_t n, quip_error *error);

bool qp_ends_with(const char *name, const char *end);
/* Whether a tensor belongs to a matrix and is written with it: scales and the like. */
bool qp_is_companion(const char *name);

#endif
