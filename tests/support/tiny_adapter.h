/* tiny_adapter.h: PEFT folders with random LoRA weights for any open model, made from a seed. */
#ifndef TINY_ADAPTER_H
#define TINY_ADAPTER_H

#include "quip.h"

struct tiny_adapter {
    int rank;
    float alpha;
    float size;          // of the elements of B; 0 is 0.1
    const char *modules; // those whose names occur in it; NULL is all
    const char *config;  // more members of the config: ", \"use_rslora\": true"
    uint64_t seed;       // 0 is 1
    /* What makes it wrong; nothing when zero. */
    const char *in_place_of_q; // the name of q_proj
    const char *extra;         // one more tensor, [1], f32
    int first_layer;           // the number that layer 0 has
    int more_inputs;           // columns of A beyond those of the matrix
    bool has_no_b;             // of down_proj, or the last module
    bool has_nan;              // at the end of the last tensor
};

/* Make `folder` and its two files. */
quip_status tiny_adapter_write(const char *folder, const quip_model *model,
                               const struct tiny_adapter *a, quip_error *error);
void tiny_adapter_remove(const char *folder);

#endif
