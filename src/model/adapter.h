/* adapter.h: LoRA weights for a model: beside a weight matrix w, y = w x + b (a x).
 * In:  a PEFT folder, safetensors alone, or a MediaPipe LoRA file.
 * Out: for each weight matrix that the adapter changes, the pair of tensors a and b. All are
 *      checked: each one belongs to a matrix of the model and has the shape that it needs.
 *
 * The values stay in the file. A backend reads them pair by pair when it packs an adapter in the
 * layout of its kernels; then the file can be closed. */
#ifndef QP_ADAPTER_H
#define QP_ADAPTER_H

#include "format/peft.h"
#include "model/tensor_names.h"

#define MAX_RANK 65536

struct lora_pair {
    int rank;                    // 0: the adapter does not change this matrix
    const struct tensor *a, *b;  // [rank, n_in], [n_out, rank] (n_out rows for each part if fused)
    const struct module *module; // whose name the tensors have; NULL in MediaPipe's files
};

struct adapter {
    quip_model *model; // borrowed: must outlive this
    struct adapter_files files;
    struct lora_pair *pairs; // [n_layers][N_MATRICES]
    int max_rank;            // at least 1
    bool is_mediapipe;       // matrices are tiled, and b is already multiplied by alpha / rank
    bool is_post_like_q;     // MediaPipe: a of the output projection is the left matrix
    int file_rank;           // MediaPipe: of all pairs
};

/* `path` is a PEFT folder, its adapter_model.safetensors, or a MediaPipe LoRA file. */
quip_status qp_adapter_open(struct adapter *a, quip_model *model, const char *path,
                            quip_error *error);
/* `file` is open; the adapter closes it, also on failure. */
quip_status qp_adapter_open_file(struct adapter *a, quip_model *model, struct file *file,
                                 quip_error *error);
void qp_adapter_close(struct adapter *a); // all-zero is fine

const struct lora_pair *qp_adapter_pair(const struct adapter *a, int l, enum layer_matrix m);
/* The values of a pair whose rank is not 0: a [rank, n_in] and b [n_out, rank], which is multiplied
 * by alpha / rank. Fails when one of them is not a finite number. */
quip_status qp_adapter_read(struct adapter *adapter, int l, enum layer_matrix m, float *a, float *b,
                            quip_error *error);
/* The error that a value of this pair is not a finite number. */
quip_status qp_adapter_fail_finite(const struct adapter *a, const struct lora_pair *pair,
                                   quip_error *error);

#endif
