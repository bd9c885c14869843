/* facts.h: hyper-parameters of a checkpoint (facts.c), out of GGUF metadata (facts_gguf.c)
 * or config.json (facts_hf.c), and what a model file says about them (metadata.c). */
#ifndef QP_FACTS_H
#define QP_FACTS_H

#include "convert/checkpoint.h"
#include "convert/family.h"
#include "tokenizer/tokenizer.h"

enum {
    FACTS_MAX_STOPS = 8,
    FACTS_MAX_LAYERS = 512
};

/* Everything about a model but its weights and vocabulary. */
struct model_facts {
    const struct family *family;
    int n_layers, d_model, d_ff, n_heads, n_kv_heads, head_dim, vocab_size;
    int n_context; // positions trained for; 0: not said
    int rope_dim;  // rotated dimensions of a head; qp_facts_finish turns 0 into all
    double norm_eps, rope_theta, rope_local_theta, rope_scaling, query_scale;
    double attention_cap, logits_cap;       // 0: none
    int window;                             // of local layers; 0: none are
    char layer_types[FACTS_MAX_LAYERS + 1]; // 'L' or 'G' each; "" when all are global
    bool is_tied;
    int bos, eos, unk, pad; // -1: none
    bool has_bos;           // bos goes in front of a prompt
    int stops[FACTS_MAX_STOPS];
    int n_stops;
    const char *chat; // template name of tokenizer.h
    uint64_t n_parameters;
};
quip_status qp_facts_from_gguf(struct model_facts *f, struct checkpoint *c, quip_error *error);
quip_status qp_facts_from_hf(struct model_facts *f, struct checkpoint *c, quip_error *error);
/* Fill in what follows from the family and check what the rest relies on. */
quip_status qp_facts_finish(struct model_facts *f, const char *path, quip_error *error);
void qp_facts_add_stop(struct model_facts *f, int id);
/* layer_types with every `global_every`-th layer global. */
void qp_facts_set_pattern(struct model_facts *f, int global_every);

/* Append the serialized LlmParameters. `tokenizer` spells the stop tokens. */
bool qp_write_llm_parameters(const struct model_facts *f, const struct tokenizer *tokenizer,
                             bool for_gpu, struct bytes *out);
/* Append the text of quip.config. */
bool qp_write_quip_config(const struct model_facts *f, struct bytes *out);

#endif
