/* tokenizer_import.h: the tokenizer of a checkpoint -> vocabulary (json_pipeline.c,
 * tokenizer_json.c, tokenizer_gguf.c). */
#ifndef QP_TOKENIZER_IMPORT_H
#define QP_TOKENIZER_IMPORT_H

#include "convert/vocabulary.h"

#include <cjson/cJSON.h>

/* Fill v->spec, v->options and v->has_blob from everything in a tokenizer.json but its pieces. */
quip_status qp_json_pipeline(struct vocabulary *v, const cJSON *json, const char *path,
                             quip_error *error);

quip_status qp_tokenizer_from_json(const cJSON *json, const cJSON *config, const char *path,
                                   int limit, struct bytes *spm, struct bytes *bpe,
                                   quip_error *error);
/* Whether the post-processor puts a special token before every text. */
bool qp_json_puts_bos(const cJSON *json);
/* The text of an entry such as "bos_token", which is a string or an object with "content"; NULL
 * if there is none. */
const char *qp_token_text(const cJSON *config, const char *key);

#endif
