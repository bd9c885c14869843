/* prompt_tokens.h: the tokens around a prompt (prompt_tokens.c). */
#ifndef QP_PROMPT_TOKENS_H
#define QP_PROMPT_TOKENS_H

#include "convert/chat_source.h"
#include "convert/hparams.h"
#include "convert/tokenizer_folder.h"

/* What they depend on. */
struct prompt_tokens {
    const char *in; // the checkpoint, for messages
    const struct convert_options *options;
    const struct checkpoint *checkpoint;
    const struct imported_tokenizer *imported;
    const struct tokenizer *tokenizer;    // not of qp_settle_bos
    const struct chat_spelling *spelling; // nor this
};
/* Decide whether a text begins with bos, and which token that is. */
void qp_settle_bos(struct hparams *h, const struct prompt_tokens *p);
/* Of a model that generates text: refuse or say which tokens around a prompt it cannot have. */
quip_status qp_check_prompt(const struct hparams *h, const struct prompt_tokens *p,
                            quip_error *error);
/* Of any model: say whether special tokens that are spelled in a text are found, against the
 * checkpoint's wish. */
void qp_note_special_tokens(const struct prompt_tokens *p);

#endif
