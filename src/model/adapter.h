/* adapter.h: LoRA weights for a model: beside its matrix w, y = w x + b (a x).
 * In:  a PEFT folder, safetensors, or a LoRA file of the original (format.h).
 * Out: a and b of every matrix that the adapter changes, in the numbers of the matrix beside them
 *      (float beside float, int8 beside int8 and int4), those of a layer as they follow each other
 *      in use. */
#ifndef QP_ADAPTER_H
#define QP_ADAPTER_H

#include "model/model.h"

/* A pair a [rank, n_in] and b [n_out, rank], with alpha / rank in b: floats or integers, and the
 * others without data. */
struct lora {
    int rank; // 0: no change
    struct matrix a, b;
    struct thin thin_a, thin_b;
};
struct layer_adapter {
    struct lora m[N_MATRICES]; // by enum layer_matrix
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
