/* tokenizer_gguf.c: fuzz target for the tokenizer in a GGUF file.
 * In:  the bytes of the file.
 * Out: no crash when the tokenizer is imported and opened. */
#include "convert/convert.h"
#include "tokenizer/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct file file = { 0 };
    struct format format = { 0 };
    struct bytes spm = { 0 }, bpe = { 0 };
    struct tokenizer *tokenizer = NULL;
    qp_file_open_memory(&file, data, n, "fuzz");
    if (!qp_format_open(&format, &file, NULL)) {
        if (!qp_import_tokenizer_gguf(&format, &spm, &bpe, NULL))
            qp_tokenizer_open(&tokenizer, spm.data, spm.n, bpe.n ? bpe.data : NULL, bpe.n, NULL);
        qp_tokenizer_close(tokenizer);
        qp_format_close(&format);
    }
    qp_bytes_close(&spm);
    qp_bytes_close(&bpe);
    qp_file_close(&file);
    return 0;
}
