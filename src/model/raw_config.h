/* raw_config.h: what a model file says about its model, before it is checked.
 * In:  the row of the model's family (families.c), MediaPipe's LlmParameters proto, and Quip's own
 *      text `quip.config`. Each source overrides the one before.
 * Out: struct raw_config, whose values can be anything that the fields can hold.
 *
 * The converter fills the same struct from a checkpoint (hparams.h) and writes quip.config with the
 * same table of keys (metadata.c). So a key is one row of that table. */
#ifndef QP_RAW_CONFIG_H
#define QP_RAW_CONFIG_H

#include "model/model.h"

enum {
    MAX_LAYERS = 1024
};

/* Numbers of quip.config. If one is for each layer, n is n_layers, or 0 where all layers have the
 * model's. */
struct layer_list {
    int n, value[MAX_LAYERS];
};

struct raw_config {
    const struct family *family;
    struct traits traits;
    int n_layers, d_model, d_ff, n_heads, n_kv_heads, head_dim, vocab_size;
    int rope_dim;       // -1: as the family says
    int rope_local_dim; // of the rope of sliding-window layers; -1: rope_dim
    int d_ple;          // width of a per-layer embedding; 0: there are none
    int n_context_max, tied;
    double rope_scaling, query_scale; // query_scale 0: as LlmParameters says
    double query_rescale;             // of LlmParameters
    int scale_type;                   // SCALE_… of llm_parameters.h, or 0
    /* Factors that divide the frequencies, from tensors of the file: 0 none, 1 for every context,
     * 2 others in sessions of more than n_context_original positions. */
    int rope_divisors;
    int n_context_original;
    double rope_amplitude; // of cos and sin
    /* For each layer: L sliding window, G all positions, l and g the same without rope, C a short
     * convolution instead of attention. "": the pattern of the family. */
    char layer_types[MAX_LAYERS + 1];
    struct layer_list head_dims, kv_heads, d_ffs;
    struct layer_list kv_layers; // whose keys and values each layer attends to
    int conv_width;              // columns that a convolution sums
    /* For each layer: D a dense feed-forward, E experts, and beside them a dense one unless its
     * d_ff is 0. "": all are D. */
    char ff_types[MAX_LAYERS + 1];
    int n_experts, n_experts_used, d_ff_expert;
    bool experts_normalized;     // the weights of a row's experts have the sum 1
    struct layer_list never_ids; // tokens that are never drawn
    char chat[32];
    struct prompts *prompts; // of the model, with the stops and the first token
};

static inline int qp_of_layer(const struct layer_list *list, int l, int of_model)
{
    return list->n > 0 ? list->value[l] : of_model;
}

/* What a file of the family says if it has no key at all. */
struct raw_config qp_raw_config_of(const struct family *family);
/* Read all sources but the METADATA of a bundle; m->prompts too. */
quip_status qp_raw_config_read(struct raw_config *raw, quip_model *m, quip_error *error);

/* ---- the keys of quip.config ---- */

/* A reader ignores keys that it does not know. A key without which a model would be another one
 * has a revision, and a file that has it says `architecture NAME+REVISION`, which a reader of an
 * earlier revision refuses. */
#define QUIP_CONFIG_REVISION 1

enum key_kind {
    KEY_INT,
    KEY_FLOAT,
    KEY_BOOL,
    KEY_CHOICE, // an enum, by the names of its values
    KEY_TEXT,   // at most .size bytes, the NUL included
    KEY_LAYERS, // struct layer_list
    KEY_FAMILY, // read before all others
    KEY_BOS,
    KEY_IDS
};
struct config_key {
    const char *name;
    enum key_kind kind;
    size_t offset, size;        // in struct raw_config
    const char *const *choices; // ends with NULL
    int revision;
};
/* In the order in which they are written; NULL after the last. */
const struct config_key *qp_config_key(int i);
/* The next "key value" line of text[*at, n), of quip.config and texts like it. */
bool qp_config_next_line(const char *text, size_t n, size_t *at, const char **key, size_t *n_key,
                         const char **value, size_t *n_value);
/* The value that the key has in `raw`: of an int, a bool or an enum. */
int qp_config_int(const struct config_key *key, const struct raw_config *raw);

#endif
