/* peft.h: PEFT adapters: the configuration, and the files that an adapter consists of (peft.c). */
#ifndef QP_PEFT_H
#define QP_PEFT_H

#include "format/format.h"
#include "format/json_scan.h"

struct peft_config {
    double rank;                    // 0: not known
    double alpha;                   // the update is multiplied by alpha / rank,
    bool has_alpha;                 // or not at all,
    bool is_rank_stabilized;        // or by alpha / sqrt(rank)
    bool has_rank_pattern;          // modules may have another rank than that
    struct json_text alpha_pattern; // names of modules -> their own alpha
    // which modules PEFT changes: a list of names, or a regular expression
    struct json_text target_modules, exclude_modules, layers_to_transform;
};
/* Read the text of adapter_config.json. `where` names it in messages; *c points into the text. */
quip_status qp_peft_read(struct peft_config *c, const char *text, size_t n, const char *where,
                         quip_error *error);
/* Which of the two matrices beside a module a tensor's name tells: *n_module is the length of what
 * is before ".lora_A.weight" and its like, more than 0. False if it ends otherwise. */
bool qp_peft_side(const char *name, size_t *n_module, bool *is_b);
/* What the product of a pair is multiplied by; `tensor_name` is that of one of its tensors. */
double qp_peft_scale(const struct peft_config *c, const char *tensor_name, int rank);

/* The files of an adapter. A MediaPipe LoRA file has no config. */
struct adapter_files {
    struct file file, config_file; // config_file is not open where there is no config
    struct format format;          // of `file`, so that this struct must not move
    struct peft_config config;     // points into config_file
};
/* `path` is a folder with adapter_config.json and adapter_model.safetensors, or a file of weights.
 * Weights of that name need the config beside them; weights of another name have none. */
quip_status qp_adapter_files_open(struct adapter_files *f, const char *path, quip_error *error);
/* For the converter: weights may also have the format of `reader` (adapter_model.bin), and use an
 * adapter_config.json beside them whatever their name is, if there is one. */
quip_status qp_adapter_files_open_with(struct adapter_files *f, const char *path,
                                       const struct format_reader *reader, quip_error *error);
/* `file` is open and is closed with the others, also on failure. */
quip_status qp_adapter_files_open_file(struct adapter_files *f, struct file *file,
                                       quip_error *error);
void qp_adapter_files_close(struct adapter_files *f); // all-zero is fine
/* Fails when the config says another rank for all pairs, or that PEFT leaves this module alone. */
quip_status qp_peft_check_pair(const struct adapter_files *f, const char *tensor_name, int64_t rank,
                               quip_error *error);

#endif
