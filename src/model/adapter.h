/* adapter.h: LoRA weights for a model: beside its matrix w, y = w x + b (a x).
 * In:  a PEFT folder, safetensors, or a LoRA file of the original (format.h).
 * Out: a and b of every matrix that the adapter changes, in the numbers of the matrix beside them
 *      (float beside float, int8 beside int8 and int4), so that the same kernels run them. */
#ifndef QP_ADAPTER_H
#define QP_ADAPTER_H

#include "model/model.h"

struct lora {
    struct matrix a, b; // [rank, n_in], [n_out, rank], alpha / rank in b; no data: no change
    struct thin thin;   // b once more, for few tokens; without data in floats and of a high rank
};
struct layer_adapter {
    struct lora q, k, v, o, gate, up, down;
};

struct quip_adapter {
    atomic_int n_references; // the caller's, and one a session
    quip_model *model;       // for which its shapes were checked; kept open
    struct arena arena;
    struct layer_adapter *layers; // [n_layers]
    int max_rank;
    bool is_float; // whatever the model's weights are
};

/* `path` is a PEFT folder, its adapter_model.safetensors, or a LoRA file of the original. */
quip_status qp_adapter_open(quip_adapter **adapter, quip_model *model, const char *path,
                            quip_error *error);
/* The same as floats, for those who look at an adapter, not for those who run it. */
quip_status qp_adapter_open_floats(quip_adapter **adapter, quip_model *model, const char *path,
                                   quip_error *error);
/* `file` is open and is taken over, also on failure. */
quip_status qp_adapter_open_file(quip_adapter **adapter, quip_model *model, struct file *file,
                                 quip_error *error);
void qp_adapter_retain(quip_adapter *adapter);  // NULL is fine
void qp_adapter_release(quip_adapter *adapter); // the last one closes

#endif
