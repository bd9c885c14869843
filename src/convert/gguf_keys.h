/* gguf_keys.h: entries "<architecture>.<name>" of GGUF metadata: one number, or one for each layer
 * (gguf_keys.c). */
#ifndef QP_GGUF_KEYS_H
#define QP_GGUF_KEYS_H

#include "format/format.h"

/* The entry, or NULL; and its number, or `fallback`. */
const struct metadata *qp_arch_entry(const struct format *g, const char *arch, const char *name);
double qp_entry_number(const struct metadata *m, double fallback);

/* Read "<arch>.<name>" for every layer: a number counts for all layers, an array has one for each
 * (true is 1). Longer arrays are cut: llama.cpp writes the layers that predict further tokens, too.
 * *n is n_layers, or 0 if there is no such entry. Values below 0 or above INT_MAX become -1. */
quip_status qp_gguf_layers(struct format *g, const char *arch, const char *name, int n_layers,
                           int *values, int *n, quip_error *error);
/* The same for a model whose layers are all alike: one value, or `fallback` if there is no such
 * entry. Fails if two layers have different values. */
quip_status qp_gguf_for_all_layers(struct format *g, const char *arch, const char *name,
                                   int n_layers, int fallback, int *value, quip_error *error);

/* Refuse keys of rope and attention that are not read: each of them changes what a model computes.
 * `path` begins the message. */
quip_status qp_gguf_check_keys(const struct format *g, const char *arch, const char *path,
                               quip_error *error);

/* For an encoder: refuse all keys of the architecture that are not read, and those of attention
 * that only generating models have. */
quip_status qp_gguf_check_encoder_keys(const struct format *g, const char *arch, quip_error *error);

/* How llama.cpp makes an embedding of a text: "mean", "first" or "last"; NULL: a model that
 * generates text. Refuses rerankers. */
quip_status qp_gguf_pooling(const struct format *g, const char *arch, const char **pooling,
                            quip_error *error);

#endif
