/* tiny_adapter.h: PEFT folders with random LoRA weights for any open model, made from a seed. */
#ifndef TINY_ADAPTER_H
#define TINY_ADAPTER_H

#include "quip.h"

struct tiny_adapter {
    int rank;
    float alpha;
    float size;          // of the elements of B; 0 is 0.1
    const char *modules; // text that contains the names of the modules; NULL is all modules
    const char *config;  // more members of the config, such as ", \"use_rslora\": true"
    uint64_t seed;       // 0 is 1
    /* q, k and v are one module of Phi-3, gate and up another; or the same numbers, as modules of
     * their own. */
    bool is_fused, is_as_fused;
    /* What makes it wrong. Zero means nothing. */
    const char *name_of_q; // replaces the name q_proj
    const char *extra;     // one more tensor, [1], f32
    int first_layer;       // the number of layer 0
    int more_inputs;       // columns of A beyond those of the matrix
    bool has_no_b;         // of down_proj, or the last module
    bool has_nan;          // at the end of the last tensor
};

/* Create `folder` and its two files. */
quip_status tiny_adapter_write(const char *folder, const quip_model *model,
                               const struct tiny_adapter *a, quip_error *error);
void tiny_adapter_remove(const char *folder);

#endif
