/* embedding_source.h: what a checkpoint says about embeddings (embedding_source.c). */
#ifndef QP_EMBEDDING_SOURCE_H
#define QP_EMBEDDING_SOURCE_H

#include "convert/hparams.h"
#include "format/tflite_writer.h"

struct embedding_source;
/* Read the modules of sentence-transformers in the checkpoint's folder, or what a GGUF file says.
 * *source is NULL for a model that generates text. An encoder without modules is an error, unless
 * the option `pooling` ("mean", "first", "last") says what they would say. With the option
 * `tokenizer`, that one says which tokens are around a text. */
quip_status qp_embedding_source_open(struct embedding_source **source, const struct checkpoint *c,
                                     const struct hparams *h, const struct convert_options *options,
                                     quip_error *error);
void qp_embedding_source_close(struct embedding_source *s); // NULL is fine
/* Declare the dense layers and the metadata `quip.embedding`. */
quip_status qp_embedding_source_declare(struct embedding_source *s, struct tflite_writer *w,
                                        quip_error *error);
/* After qp_tflite_writer_begin: write the dense layers. */
quip_status qp_embedding_source_write(const struct embedding_source *s, struct tflite_writer *w,
                                      quip_error *error);

#endif
