/* gguf_tokenizer.h: a tokenizer.json or a vocab.txt as GGUF metadata, as llama.cpp's converter
 * writes it. */
#ifndef GGUF_TOKENIZER_H
#define GGUF_TOKENIZER_H

#include "base/base.h"

#include <cjson/cJSON.h>

/* Append a GGUF file without tensors to `out`: byte-level BPE with this tokenizer.ggml.pre (NULL:
 * none). */
void gguf_of_tokenizer_json(const cJSON *json, const char *pre, struct bytes *out);

/* Append the tokenizer entries of a WordPiece vocabulary, a vocab.txt, to `g`: ids 1 to 3 are
 * [UNK], [CLS] and [SEP]; every piece in brackets is a control token. */
struct gguf;
void gguf_wordpiece(struct gguf *g, const char *vocab);

#endif
