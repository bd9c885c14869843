/* tokenizers.c */
#include "support/tokenizers.h"

#include "convert/tokenizer_import.h"
#include "format/format.h"
#include "support/shared.h"
#include "tokenizer/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

void save_byte_tokenizer(const char *path)
{
    struct bytes spm = { 0 };
    const struct spm_options options = { .is_bpe = true,
                                         .byte_fallback = true,
                                         .vocab_size = 259,
                                         .bos_id = 1,
                                         .eos_id = 2,
                                         .pad_id = -1 };
    assert_true(qp_spm_write_piece(&spm, "<unk>", 5, 0, PIECE_UNKNOWN) &&
                qp_spm_write_piece(&spm, "<s>", 3, 0, PIECE_CONTROL) &&
                qp_spm_write_piece(&spm, "</s>", 4, 0, PIECE_CONTROL));
    for (int i = 0; i < 256; i++) {
        char piece[8];
        snprintf(piece, sizeof piece, "<0x%02X>", i);
        assert_true(qp_spm_write_piece(&spm, piece, strlen(piece), 0, PIECE_BYTE));
    }
    assert_true(qp_spm_write_options(&spm, &options));
    save_file(path, spm.data, spm.n);
    qp_bytes_close(&spm);
}

struct imported import_json(const cJSON *json)
{
    struct imported i = { 0 };
    quip_error error = { 0 };
    assert_non_null(json);
    if (qp_tokenizer_from_json(json, NULL, "vocabulary", 0, &i.spm, &i.bpe, &error) ||
        qp_tokenizer_open(&i.t, i.spm.data, i.spm.n, i.bpe.data, i.bpe.n, &error))
        fail_msg("%s", error.message);
    return i;
}

void drop_imported(struct imported *i)
{
    qp_tokenizer_close(i->t);
    qp_bytes_close(&i->spm);
    qp_bytes_close(&i->bpe);
}

void assert_same_import(const cJSON *a, const cJSON *b)
{
    struct imported x = import_json(a), y = import_json(b);
    assert_int_equal(x.spm.n, y.spm.n);
    assert_memory_equal(x.spm.data, y.spm.data, x.spm.n);
    assert_int_equal(x.bpe.n, y.bpe.n);
    assert_memory_equal(x.bpe.data, y.bpe.data, x.bpe.n);
    drop_imported(&x);
    drop_imported(&y);
}

quip_status json_from_gguf(cJSON **json, const char *path, quip_error *error)
{
    struct file file = { 0 };
    struct format f = { 0 };
    *error = (quip_error){ 0 };
    *json = NULL;
    if (qp_file_open(&file, path, error) || qp_format_open(&f, &file, error))
        fail_msg("%s", error->message);
    const quip_status status = qp_json_from_gguf(json, &f, error);
    qp_format_close(&f);
    qp_file_close(&file);
    return status;
}
