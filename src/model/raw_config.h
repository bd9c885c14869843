/* raw_config.h: what a model file says about its config, before it is checked. */
#ifndef QP_RAW_CONFIG_H
#define QP_RAW_CONFIG_H

#include "model/model.h"

struct raw_config {
    const struct family *family;
    int n_layers, d_model, d_ff, n_heads, n_kv_heads, head_dim, vocab_size;
    int rope_dim, n_context_max, window, local_per_global, tied;
    float norm_eps, rope_theta, rope_local_theta, rope_scaling, query_scale;
    float attention_cap, logits_cap, query_rescale;
    int scale_type;         // SCALE_… of llm_parameters.h, or 0
    char layer_types[1025]; // 'L' or 'G' for each layer; "": the family's pattern
    char chat[32];
    struct prompts *prompts; // of the model, with the stops and the first token
};

/* Read all sources but the METADATA of a bundle; m->prompts too. */
quip_status qp_raw_config_read(struct raw_config *raw, quip_model *m, quip_error *error);

#endif
