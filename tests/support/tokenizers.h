/* tokenizers.h: a small tokenizer, and those that the converter makes of what is like a
 * tokenizer.json. */
#ifndef TEST_TOKENIZERS_H
#define TEST_TOKENIZERS_H

#include "base/base.h"

#include <cjson/cJSON.h>

struct tokenizer;

/* Write a tokenizer.model of 259 pieces: <unk>, <s>, </s>, and the bytes. */
void save_byte_tokenizer(const char *path);

struct imported {
    struct bytes spm, bpe; // the two files of a tokenizer
    struct tokenizer *t;
};

/* Fails the test if there is no tokenizer in `json`. End it with drop_imported(). */
struct imported import_json(const cJSON *json);
void drop_imported(struct imported *i);

/* Both files of the two have the same bytes. */
void assert_same_import(const cJSON *a, const cJSON *b);

/* qp_json_from_gguf of a file. Fails the test if the file cannot be opened. */
quip_status json_from_gguf(cJSON **json, const char *path, quip_error *error);

#endif
