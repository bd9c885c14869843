/* bpe_blob.c: fuzz target for the quip.tokenizer blob.
 * In:  two bytes with the length of the blob, whose top bit selects a unigram vocabulary; the blob;
 *      a text.
 * Out: every token id of the text is inside the vocabulary and can be detokenized. */
#include "tokenizer/tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>

/* A vocabulary of GPT-2's 256 byte characters, some words and some added tokens. */
static bool fuzz_vocabulary(bool is_bpe, struct bytes *spm)
{
    static const char *const words[] = {
        "he", "ll",  "hell",  "hello",     "<s>",        "  ",
        "##", "##l", "o</w>", "\xc4\xa0h", SPACE_SYMBOL, "<0x41>"
    };
    bool ok = qp_spm_write_piece(spm, "<unk>", 5, 0, PIECE_UNKNOWN);
    for (int32_t c = 0; c < 324; c++) {
        char text[4];
        if (qp_gpt2_byte(c) >= 0)
            ok = ok &&
                 qp_spm_write_piece(spm, text, (size_t)qp_utf8_encode(c, text), 0, PIECE_NORMAL);
    }
    for (size_t i = 0; i < QP_COUNT(words); i++)
        ok = ok && qp_spm_write_piece(spm, words[i], strlen(words[i]), 0,
                                      qp_spm_byte(words[i], strlen(words[i])) < 0 ? PIECE_NORMAL
                                                                                  : PIECE_BYTE);
    return ok && qp_spm_write_options(
                     spm, &(struct spm_options){ .is_bpe = is_bpe, .byte_fallback = true });
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct bytes vocabularies[2];
    if (n < 2)
        return 0;
    bool is_bpe = !(data[1] & 0x80);
    struct bytes spm = vocabularies[is_bpe];
    if (spm.n == 0 && !fuzz_vocabulary(is_bpe, &spm))
        return 0;
    vocabularies[is_bpe] = spm;
    size_t n_blob = data[0] | (size_t)(data[1] & 0x7f) << 8;
    n_blob = n_blob < n - 2 ? n_blob : n - 2;
    struct tokenizer *t;
    if (qp_tokenizer_open(&t, spm.data, spm.n, data + 2, n_blob, NULL))
        return 0;
    struct tokens ids = { 0 };
    struct bytes text = { 0 };
    struct detokenizer d = { 0 };
    qp_tokenizer_encode(t, (const char *)data + 2 + n_blob, n - 2 - n_blob, true, &ids, NULL);
    for (int i = 0; i < ids.n; i++) {
        if (ids.ids[i] < 0 || ids.ids[i] >= qp_tokenizer_n_tokens(t))
            abort();
        qp_detokenize(t, &d, ids.ids[i], &text);
    }
    qp_tokenizer_encode_more(t, (const char *)data + 2 + n_blob, n - 2 - n_blob, false, &ids, NULL);
    qp_detokenize_end(t, &d, &text);
    qp_bytes_close(&text);
    qp_tokens_close(&ids);
    qp_tokenizer_close(t);
    return 0;
}
