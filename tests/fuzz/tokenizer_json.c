/* tokenizer_json.c: fuzz target for a tokenizer.json.
 * In:  the text of the file, which is also tokenized.
 * Out: no crash when the tokenizer is imported, opened and used. */
#include "convert/tokenizer_import.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    cJSON *json = cJSON_ParseWithLength((const char *)data, n);
    struct bytes spm = { 0 }, bpe = { 0 };
    struct tokenizer *tokenizer = NULL;
    struct tokens ids = { 0 };
    if (json && !qp_tokenizer_from_json(json, json, "fuzz", 0, &spm, &bpe, NULL) &&
        !qp_tokenizer_open(&tokenizer, spm.data, spm.n, bpe.n ? bpe.data : NULL, bpe.n, NULL))
        qp_tokenizer_encode(tokenizer, (const char *)data, n < 400 ? n : 400, true, &ids, NULL);
    qp_tokens_close(&ids);
    qp_tokenizer_close(tokenizer);
    qp_bytes_close(&spm);
    qp_bytes_close(&bpe);
    cJSON_Delete(json);
    return 0;
}
