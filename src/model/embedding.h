/* embedding.h: how a model makes the embedding of a text (embedding.c). */
#ifndef QP_EMBEDDING_H
#define QP_EMBEDDING_H

#include "base/base.h"

enum {
    MAX_TEXT_FRAME = 8, // tokens before, and tokens behind every text
    MAX_EMBED_PROMPTS = 64,
    MAX_EMBED_TOKENS = 1 << 13 // of a text: it runs as one batch
};

/* Text that is put before a text for a task. */
struct embed_prompt {
    const char *name, *text; // of embedding.texts
};

struct embedding {
    int pooling;            // enum quip_pooling; QUIP_POOLING_MODEL: not an embedding model
    int n_tokens_max;       // of a text, unless an option says otherwise; 0: no limit of its own
    bool no_prompt_pooling; // the tokens of a prompt are not pooled
    quip_token begin[MAX_TEXT_FRAME], end[MAX_TEXT_FRAME]; // around every text
    int n_begin, n_end;
    struct embed_prompt prompts[MAX_EMBED_PROMPTS];
    int n_prompts;
    int default_prompt; // -1: none
    struct bytes texts; // names and texts of the prompts, each with its NUL
};

struct quip_model;
/* Read the file's `quip.embedding` into m->embedding, and its dense layers into m->weights; after
 * qp_weights_bind. A file without it may still be a model whose tokens can be pooled. */
quip_status qp_embedding_read(struct quip_model *m, quip_error *error);
void qp_embedding_close(struct embedding *e);

#endif
