/* spm.c: fuzz target for a SentencePiece ModelProto.
 * In:  two bytes with the length of the proto; the proto; a text.
 * Out: every token id of the text is inside the vocabulary and can be detokenized. */
#include "tokenizer/tokenizer.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n < 2)
        return 0;
    size_t n_proto = data[0] | (size_t)data[1] << 8;
    n_proto = n_proto < n - 2 ? n_proto : n - 2;
    struct tokenizer *t;
    if (qp_tokenizer_open(&t, data + 2, n_proto, NULL, 0, NULL))
        return 0;
    struct tokens ids = { 0 };
    struct bytes text = { 0 };
    struct detokenizer d = { 0 };
    qp_tokenizer_encode(t, (const char *)data + 2 + n_proto, n - 2 - n_proto, true, &ids, NULL);
    for (int i = 0; i < ids.n; i++) {
        if (ids.ids[i] < 0 || ids.ids[i] >= qp_tokenizer_n_tokens(t))
            abort();
        qp_detokenize(t, &d, ids.ids[i], &text);
    }
    qp_detokenize_end(t, &d, &text);
    qp_bytes_close(&text);
    qp_tokens_close(&ids);
    qp_tokenizer_close(t);
    return 0;
}
