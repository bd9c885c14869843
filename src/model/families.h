/* families.h: what the members of a model family share.
 * families.c is the table of families. families_convert.c has what checkpoints of each family look
 * like; only the converter contains it. */
#ifndef QP_FAMILIES_H
#define QP_FAMILIES_H

#include "format/format.h"
#include "model/matrix.h"

enum norm_kind {
    NORM_RMS,        // x / rms(x) * w
    NORM_RMS_PLUS_1, // x / rms(x) * (1 + w)
    NORM_LAYER       // (x - mean) / sqrt(variance) * w + bias
};

enum family_id {
    FAMILY_LLAMA,
    FAMILY_GEMMA,
    FAMILY_GEMMA2,
    FAMILY_GEMMA3,
    FAMILY_PHI2,
    FAMILY_FALCON, // RW: the older shape, with ALiBi
    FAMILY_STABLELM,
    N_FAMILIES
};

struct family {
    const char *name; // in quip.config and in GGUF

    /* What the forward pass computes. */
    enum norm_kind norm;
    enum activation act;
    bool qk_norm;      // q and k are normed per head before rope
    bool post_norm;    // the output of attention and feed-forward is normed before the add
    bool embed_sqrt_d; // embeddings are multiplied by sqrt(d_model)
    bool is_gated;     // the feed-forward is act(gate) * up, otherwise act(up)
    bool is_parallel;  // attention and feed-forward read the same norm of x
    bool has_alibi;    // positions enter as a bias on the scores, not by rotation

    /* What a model file may omit. */
    int local_per_global;   // sliding-window layers before each global one; 0: all global
    int window;             // of sliding-window layers, in tokens, the query's included
    float rope_fraction;    // of each head's dimensions that rotate; 0: all
    float rope_theta;       // of global layers
    float rope_local_theta; // of sliding-window layers; 0: rope_theta
    float norm_eps;
    float attention_cap, logits_cap; // soft caps; 0: none
};
const struct family *qp_family(enum family_id id);
enum family_id qp_family_id(const struct family *f);
/* By its name in quip.config; NULL if there is no such family. */
const struct family *qp_family_named(const char *name);
/* "llama, gemma, … and stablelm": for error sentences. */
void qp_family_list(char *to, size_t size);
/* Append a name to such a list; `is_last` of a list of several puts "and" before it. */
void qp_list_name(char *to, size_t size, const char *name, bool is_last);

/* A model type of MediaPipe's files, and how MediaPipe treats it. */
struct model_type {
    int id;            // odml.infra.proto.LlmModelType
    const char *title; // name of the file's subgraph
    enum family_id family;
    int n_layers, d_model;
    bool spells_bytes;        // byte-level BPE without merges: pieces are in GPT-2's spelling
    bool lora_is_f32;         // its LoRA files have float32, not binary16
    bool lora_post_is_like_q; // there a of the output projection is the left matrix
};
/* By id, by title, or by sizes; NULL if there is no such type. */
const struct model_type *qp_model_type(int id);
const struct model_type *qp_model_type_named(const char *title);
const struct model_type *qp_model_type_sized(enum family_id family, int n_layers, int d_model);
/* The type that a file's metadata says; NULL if it says none that is known. */
const struct model_type *qp_model_type_of_file(const struct format *f);

#endif
