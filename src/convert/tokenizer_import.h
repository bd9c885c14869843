/* tokenizer_import.h: the tokenizer of a checkpoint -> vocabulary (json_pipeline.c,
 * tokenizer_json.c, post_processor.c, tokenizer_gguf.c). */
#ifndef QP_TOKENIZER_IMPORT_H
#define QP_TOKENIZER_IMPORT_H

#include "convert/vocabulary.h"
#include "format/format.h"
#include "model/embedding.h"

#include <cjson/cJSON.h>

/* Fill v->spec, v->options and v->has_blob from everything in a tokenizer.json but its pieces. */
quip_status qp_json_pipeline(struct vocabulary *v, const cJSON *json, const char *path,
                             quip_error *error);

quip_status qp_tokenizer_from_json(const cJSON *json, const cJSON *config, const char *path,
                                   int limit, struct bytes *spm, struct bytes *bpe,
                                   quip_error *error);
/* wordpiece_import.c: the steps of a BertNormalizer. */
void qp_json_bert_steps(struct bpe_spec *spec, const cJSON *normalizer);
/* The length of the longest word that a WordPiece model divides into pieces; 0 for other models. */
uint32_t qp_json_max_word_chars(const cJSON *model);
/* What a tokenizer.json would say about a vocab.txt, the older form of a WordPiece vocabulary: from
 * the text, which is cut into lines, or NULL if there is not enough memory; from the file. Free
 * with cJSON_Delete. `config` is the tokenizer_config.json; it may be NULL. */
cJSON *qp_json_from_vocab(char *text, const cJSON *config);
quip_status qp_json_read_vocab_txt(cJSON **json, const char *path, const cJSON *config,
                                   quip_error *error);

/* What a tokenizer.json would say about the vocabulary of a GGUF file of kind "bert"
 * (wordpiece_gguf.c), and of kind "t5" (unigram_gguf.c). Free with cJSON_Delete. */
quip_status qp_json_from_gguf_wordpiece(cJSON **json, struct format *gguf, quip_error *error);
quip_status qp_json_from_gguf_unigram(cJSON **json, struct format *gguf, quip_error *error);
/* tokenizer_gguf.c: the same if it is of one of these kinds; else *json is not changed. */
quip_status qp_json_from_gguf(cJSON **json, struct format *gguf, quip_error *error);

/* The tokens around every text. */
struct text_frame {
    int begin[MAX_TEXT_FRAME], end[MAX_TEXT_FRAME], n_begin, n_end;
};
/* post_processor.c: those of a post_processor, a part of a tokenizer.json; false if it is not
 * known. The sentence that says so; `path` is for it. */
bool qp_json_frame(struct text_frame *f, const cJSON *post);
quip_status qp_refuse_post(const cJSON *post, const char *path, quip_error *error);
/* The text of an entry such as "bos_token", which is a string or an object with "content"; NULL
 * if there is none. */
const char *qp_token_text(const cJSON *config, const char *key);

#endif
