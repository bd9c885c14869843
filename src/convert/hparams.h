/* hparams.h: the hyper-parameters of a model: everything but its weights and vocabulary.
 * In:  GGUF metadata (hparams_gguf.c), or config.json and its neighbours (hparams_hf.c).
 * Out: struct hparams, complete and checked (hparams.c); from it the metadata of a model file
 *      (metadata.c). */
#ifndef QP_HPARAMS_H
#define QP_HPARAMS_H

#include "convert/checkpoint.h"
#include "model/families_convert.h"
#include "model/raw_config.h"
#include "tokenizer/tokenizer.h"

enum {
    HPARAMS_MAX_STOPS = MAX_STOP_IDS,
    HPARAMS_MAX_LAYERS = 512, // at most MAX_LAYERS
    HPARAMS_MAX_HEAD = 1024
};

struct chat_spelling;

struct hparams {
    struct raw_config raw;              // what the model file will say, except tokens and turns
    const struct family_source *source; // of the family
    float rope_divisors[2][HPARAMS_MAX_HEAD / 2]; // raw.rope_divisors sets of them
    unsigned biases;                              // IF_…_BIAS of families_convert.h
    bool is_tied;
    int bos, eos, unk, pad; // -1: none
    bool has_bos;           // bos is the first token of a prompt
    int stops[HPARAMS_MAX_STOPS];
    int n_stops;
    bool has_more_stops;                  // than fit
    const char *chat;                     // template name of tokenizer.h
    const struct chat_spelling *spelling; // of the checkpoint's own template; NULL: that of `chat`
    uint64_t n_parameters;
};
/* Everything that the family says, before a checkpoint says otherwise. */
void qp_hparams_begin(struct hparams *h, const struct family_source *source);
quip_status qp_hparams_from_gguf(struct hparams *h, struct checkpoint *c, quip_error *error);
quip_status qp_hparams_from_hf(struct hparams *h, struct checkpoint *c, quip_error *error);

/* hparams_sizes.c: what differs from layer to layer. `config` is a cJSON object. */
quip_status qp_hparams_layers_hf(struct hparams *h, const void *config, const char *where,
                                 quip_error *error);
quip_status qp_hparams_layers_gguf(struct hparams *h, struct checkpoint *c, quip_error *error);
/* A GGUF entry that may differ by layer: the number of the first layer, and a list if they differ.
 * Both stay as they are if there is no such entry. */
quip_status qp_hparams_gguf_list(const struct hparams *h, struct format *g, const char *name,
                                 int *of_model, struct layer_list *list, quip_error *error);

/* Fill in what follows from the family, and check what the rest relies on. */
quip_status qp_hparams_finish(struct hparams *h, const char *path, quip_error *error);
void qp_hparams_add_stop(struct hparams *h, int id);
/* raw.layer_types with every `global_every`-th layer global. */
void qp_hparams_set_pattern(struct hparams *h, int global_every);
/* The same for the pattern that the family has. */
void qp_hparams_set_family_pattern(struct hparams *h);
/* One letter of raw.layer_types; the layers that have none are global. */
void qp_hparams_set_layer(struct hparams *h, int l, char type);
bool qp_hparams_has_window(const struct hparams *h); // in any layer

/* ---- hparams_layers.c ---- */

/* Convolutions and experts, if the family has them. */
quip_status qp_gguf_layer_kinds(struct hparams *h, const struct checkpoint *c, struct format *g,
                                quip_error *error);

/* ---- metadata.c ---- */

/* Append the serialized LlmParameters. `tokenizer` spells the stop tokens. */
bool qp_write_llm_parameters(const struct hparams *h, const struct tokenizer *tokenizer,
                             bool for_gpu, struct bytes *out);
/* Append a line "key value", with the shortest decimal that reads back as the same float: nine
 * digits are always enough. */
bool qp_print_number(struct bytes *out, const char *key, double value);
/* Append the text of quip.config. */
bool qp_write_quip_config(const struct hparams *h, struct bytes *out);

#endif
