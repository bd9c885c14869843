/* wordpiece.c: fuzz target for a WordPiece vocabulary and its text steps.
 * In:  a vocab.txt up to the first NUL byte, then a text.
 * Out: every token id of the text is inside the vocabulary and can be detokenized. */
#include "convert/tokenizer_import.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const uint8_t *end = memchr(data, 0, n);
    const size_t n_vocab = end ? (size_t)(end - data) : n;
    char *vocab = malloc(n_vocab + 1);
    struct bytes spm = { 0 }, bpe = { 0 }, text = { 0 };
    struct tokenizer *t = NULL;
    struct tokens ids = { 0 };
    struct detokenizer d = { 0 };
    memcpy(vocab, data, n_vocab);
    vocab[n_vocab] = 0;
    cJSON *json = qp_json_from_vocab(vocab, NULL);
    if (json && !qp_tokenizer_from_json(json, NULL, "fuzz", 0, &spm, &bpe, NULL) &&
        !qp_tokenizer_open(&t, spm.data, spm.n, bpe.data, bpe.n, NULL) && end &&
        !qp_tokenizer_encode(t, (const char *)end + 1, n - n_vocab - 1, true, &ids, NULL))
        for (int i = 0; i < ids.n; i++)
            if (ids.ids[i] < 0 || ids.ids[i] >= qp_tokenizer_n_tokens(t) ||
                !qp_detokenize(t, &d, ids.ids[i], &text))
                abort();
    qp_tokens_close(&ids);
    qp_tokenizer_close(t);
    qp_bytes_close(&text);
    qp_bytes_close(&spm);
    qp_bytes_close(&bpe);
    cJSON_Delete(json);
    free(vocab);
    return 0;
}
