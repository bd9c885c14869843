/* embedding_texts.h: how a checkpoint prepares a text (embedding_texts.c). */
#ifndef QP_EMBEDDING_TEXTS_H
#define QP_EMBEDDING_TEXTS_H

#include "convert/hparams.h"

/* Append lines of `quip.embedding`: the tokens around every text, the longest text, the prompts.
 * `tokenizer` is the path of another tokenizer than the checkpoint's own; NULL: there is none. */
quip_status qp_embedding_texts_read(struct bytes *text, const struct checkpoint *c,
                                    const struct hparams *h, const char *tokenizer,
                                    quip_error *error);

#endif
