/* json.c: fuzz target for the JSON files of a checkpoint, and for tokens that they add to a
 * SentencePiece model.
 * In:  the text of a file, used as tokenizer.json, tokenizer_config.json and added_tokens.json.
 * Out: no crash; a tokenizer that opens. */
#include "convert/json.h"
#include "convert/tokenizer_folder.h"

#include <stdlib.h>
#include <string.h>

static void write_small_spm(struct bytes *spm)
{
    static const char *const pieces[] = { "<unk>", "a", "b", "ab" };
    for (int i = 0; i < 4; i++)
        qp_spm_write_piece(spm, pieces[i], strlen(pieces[i]), -(float)i,
                           i ? PIECE_NORMAL : PIECE_UNKNOWN);
    const struct spm_options options = {
        .is_bpe = true, .escape_whitespaces = true, .add_dummy_prefix = true, .vocab_size = 4
    };
    qp_spm_write_options(spm, &options);
}

static void add_tokens(const cJSON *json)
{
    struct bytes spm = { 0 }, more = { 0 }, bpe = { 0 };
    struct tokenizer *t = NULL, *added = NULL;
    struct tokens ids = { 0 };
    write_small_spm(&spm);
    qp_bytes_append(&more, spm.data, spm.n);
    const struct tokenizer_request request = { .path = "fuzz", .vocab_size = 64 };
    const struct added_files files = { .config = json,
                                       .decoder = qp_json_item(json, "added_tokens_decoder"),
                                       .list = json,
                                       .folder = "fuzz" };
    if (!qp_tokenizer_open(&t, spm.data, spm.n, NULL, 0, NULL)) {
        if (qp_relate_added(t, json) == ADDED_MORE)
            qp_append_added(&more, 4, json, &request, NULL);
        else if (!qp_add_listed(&more, &bpe, t, &files, &request, NULL) &&
                 !qp_tokenizer_open(&added, more.data, more.n, bpe.n ? bpe.data : NULL, bpe.n,
                                    NULL))
            qp_tokenizer_encode(added, "ab <x> b", 8, true, &ids, NULL);
    }
    qp_tokens_close(&ids);
    qp_tokenizer_close(added);
    qp_tokenizer_close(t);
    qp_bytes_close(&spm);
    qp_bytes_close(&more);
    qp_bytes_close(&bpe);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    cJSON *json = NULL;
    char *text = malloc(n + 1);
    if (!text)
        return 0;
    memcpy(text, data, n);
    if (!qp_json_parse(&json, text, n, "fuzz", NULL))
        add_tokens(json);
    cJSON_Delete(json);
    free(text);
    return 0;
}
