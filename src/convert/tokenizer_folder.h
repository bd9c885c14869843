/* tokenizer_folder.h: the tokenizer of a checkpoint's folder -> what a model file stores
 * (tokenizer_folder.c, tokenizer_added.c). */
#ifndef QP_TOKENIZER_FOLDER_H
#define QP_TOKENIZER_FOLDER_H

#include "convert/tokenizer_import.h"
#include "tokenizer/tokenizer.h"

#include <cjson/cJSON.h>

struct tokenizer_request {
    const char *path;    // a folder; or a SentencePiece model or a tokenizer.json
    const cJSON *config; // the checkpoint's tokenizer_config.json; NULL: none
    bool is_foreign;     // not the checkpoint's own: a tokenizer_config.json beside it counts
    int vocab_size;      // rows of the embedding; a token beyond them is an error
};
struct imported_tokenizer {
    struct bytes spm, bpe; // bpe is empty for plain SentencePiece models
    bool is_copy;   // of a SentencePiece model, where texts begin with bos if nothing else says so
    bool has_json;  // there is a tokenizer.json, or what stands for one
    bool has_frame; // it says which tokens are around every text
    struct text_frame frame;
};
/* `t` is all-zero. Free its bytes, also after a failure. */
quip_status qp_import_tokenizer(struct imported_tokenizer *t, const struct tokenizer_request *r,
                                quip_error *error);

/* ---- tokenizer_added.c: added tokens beside a SentencePiece model ---- */

enum added_relation {
    ADDED_KNOWN, // the SentencePiece model says the same
    ADDED_MORE,  // there are more tokens, which more pieces can express
    ADDED_OTHER  // the tokenizer.json is another tokenizer, or has rules that pieces cannot express
};
enum added_relation qp_relate_added(const struct tokenizer *spm, const cJSON *json);
/* Append the tokens of a tokenizer.json that are ADDED_MORE. */
quip_status qp_append_added(struct bytes *spm, int n_pieces, const cJSON *json,
                            const struct tokenizer_request *r, quip_error *error);
/* Without a tokenizer.json: append the tokens of `decoder`, the added_tokens_decoder of the
 * tokenizer_config.json `config`, or if it is NULL those of `list`, an added_tokens.json. Both
 * may be NULL. `folder` is for messages. */
struct added_files {
    const cJSON *config, *decoder, *list;
    const char *folder;
};
quip_status qp_add_listed(struct bytes *spm, struct bytes *bpe, const struct tokenizer *tokenizer,
                          const struct added_files *files, const struct tokenizer_request *r,
                          quip_error *error);
/* Fail if a token of a tokenizer.json has no row in the embedding. */
quip_status qp_check_added_rows(const cJSON *json, const char *path, int vocab_size,
                                quip_error *error);

#endif
