/* wordpiece.c (test): WordPiece gives the ids of Hugging Face's tokenizers (0.23) for texts of
 * every script, and a vocab.txt is the same tokenizer as its tokenizer.json. */
#include "convert/tokenizer_import.h"

#include "convert/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/sample_checkpoint.h"
#include "support/shared.h"

struct imported {
    struct bytes spm, bpe;
    struct tokenizer *t;
};

static void import(struct imported *i, const cJSON *json)
{
    quip_error error = { 0 };
    *i = (struct imported){ 0 };
    if (qp_tokenizer_from_json(json, NULL, "vocabulary", 0, &i->spm, &i->bpe, &error) ||
        qp_tokenizer_open(&i->t, i->spm.data, i->spm.n, i->bpe.data, i->bpe.n, &error))
        fail_msg("%s", error.message);
}

static void drop(struct imported *i)
{
    qp_tokenizer_close(i->t);
    qp_bytes_close(&i->spm);
    qp_bytes_close(&i->bpe);
}

static void check_ids(const struct tokenizer *t, const char *text, bool with_special,
                      const char *want)
{
    struct tokens ids = { 0 };
    struct bytes got = { 0 };
    assert_int_equal(qp_tokenizer_encode(t, text, strlen(text), with_special, &ids, NULL), 0);
    for (int i = 0; i < ids.n; i++)
        assert_true(qp_bytes_printf(&got, i ? " %d" : "%d", (int)ids.ids[i]));
    assert_true(qp_bytes_append(&got, "", 1));
    if (strcmp((const char *)got.data, want) != 0)
        fail_msg("\"%s\": ids are %s, expected %s", text, (const char *)got.data, want);
    qp_tokens_close(&ids);
    qp_bytes_close(&got);
}

/* ---- a small vocabulary ---- */

#define VOCAB                                                                                      \
    "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nun\n##aff\n##able\naff\nable\n!\n,\n.\n\xe4\xb8\x96\n"    \
    "cafe\nCafe\ncaf\xc3\xa9\na\n##a\n"

static void open_small(struct imported *i, const char *config_text)
{
    char vocab[] = VOCAB;
    cJSON *config = config_text ? cJSON_Parse(config_text) : NULL;
    cJSON *json = qp_json_from_vocab(vocab, config);
    assert_non_null(json);
    import(i, json);
    cJSON_Delete(json);
    cJSON_Delete(config);
}

static void test_words(void **state)
{
    static const char *const cases[][2] = {
        { "", "" },
        { " \t\n", "" },
        { "unaffable", "5 6 7" },
        { "UNAFFABLE!", "5 6 7 10" },
        { "aff able", "8 9" },
        { "unknown", "1" }, // un, then nothing
        { "affx, aff", "1 11 8" },
        { "caf\xc3\xa9", "14" },
        { "cafe\xcc\x81", "14" },
        { "caf\xc3\xa9\xe4\xb8\x96.", "14 13 12" },
        { "af\x07"
          "f\xe2\x80\x8b",
          "8" }, // control and format characters
        { "aff\xc2\xa0"
          "able",
          "8 9" },
        { "a [SEP]", "17 1 1 1" },
        { "\xff", "" }, // becomes U+FFFD, which is removed
    };
    (void)state;
    struct imported i;
    open_small(&i, NULL);
    for (size_t c = 0; c < QP_COUNT(cases); c++)
        check_ids(i.t, cases[c][0], false, cases[c][1]);
    check_ids(i.t, "a [SEP] [sep]", true, "17 3 1 1 1");
    char word[101 + 1];
    memset(word, 'a', sizeof word);
    word[100] = 0;
    struct tokens ids = { 0 };
    assert_int_equal(qp_tokenizer_encode(i.t, word, 100, false, &ids, NULL), 0);
    assert_int_equal(ids.n, 100);
    qp_tokens_close(&ids);
    word[100] = 'a';
    word[101] = 0;
    check_ids(i.t, word, false, "1"); // longer than max_input_chars_per_word
    drop(&i);
}

static void test_options(void **state)
{
    (void)state;
    struct imported i;
    open_small(&i, "{\"do_lower_case\": false}");
    check_ids(i.t, "Cafe cafe CAFE caf\xc3\xa9", false, "15 14 1 16");
    drop(&i);
    open_small(&i, "{\"strip_accents\": false, \"tokenize_chinese_chars\": false}");
    check_ids(i.t, "Cafe caf\xc3\xa9 a\xe4\xb8\x96", false, "14 16 1");
    drop(&i);
}

static void test_text(void **state)
{
    static const quip_token ids[] = { 2, 5, 6, 7, 11, 14, 12, 3 };
    (void)state;
    struct imported i;
    struct detokenizer d = { 0 };
    struct bytes text = { 0 };
    open_small(&i, NULL);
    for (size_t k = 0; k < QP_COUNT(ids); k++)
        assert_true(qp_detokenize(i.t, &d, ids[k], &text));
    assert_true(qp_detokenize_end(i.t, &d, &text) && qp_bytes_append(&text, "", 1));
    assert_string_equal((const char *)text.data, "unaffable, cafe.");
    qp_bytes_close(&text);
    drop(&i);
}

/* ---- the reference ---- */

static cJSON *read_golden(const char *name)
{
    char path[200];
    cJSON *json;
    quip_error error;
    snprintf(path, sizeof path, "data/golden-2/bert/%s", name);
    need_shared(path);
    if (qp_json_read(&json, shared_path(path), &error))
        fail_msg("%s", error.message);
    return json;
}

static void test_corpus(void **state)
{
    (void)state;
    struct imported i;
    cJSON *json = read_golden("tokenizer.json");
    import(&i, json);
    cJSON_Delete(json);
    FILE *f = fopen(QUIP_SOURCE_DIR "/tests/data/wordpiece.jsonl", "r");
    assert_non_null(f);
    static char line[1 << 16];
    int n = 0;
    for (; fgets(line, sizeof line, f); n++) {
        cJSON *c = cJSON_Parse(line);
        struct bytes want = { 0 };
        const cJSON *id;
        cJSON_ArrayForEach(id, cJSON_GetObjectItem(c, "ids"))
            assert_true(qp_bytes_printf(&want, want.n ? " %d" : "%d", id->valueint));
        assert_true(qp_bytes_append(&want, "", 1));
        check_ids(i.t, cJSON_GetObjectItem(c, "text")->valuestring, true, (const char *)want.data);
        qp_bytes_close(&want);
        cJSON_Delete(c);
    }
    fclose(f);
    assert_int_equal(n, 250);
    drop(&i);
}

static void test_vocab_txt(void **state)
{
    (void)state;
    struct imported a, b;
    cJSON *json = read_golden("tokenizer.json"), *config = read_golden("tokenizer_config.json"),
          *txt;
    quip_error error;
    if (qp_json_read_vocab_txt(&txt, shared_path("data/golden-2/bert/vocab.txt"), config, &error))
        fail_msg("%s", error.message);
    import(&a, json);
    import(&b, txt);
    assert_int_equal(a.spm.n, b.spm.n);
    assert_memory_equal(a.spm.data, b.spm.data, a.spm.n);
    assert_int_equal(a.bpe.n, b.bpe.n);
    assert_memory_equal(a.bpe.data, b.bpe.data, a.bpe.n);
    drop(&a);
    drop(&b);
    cJSON_Delete(json);
    cJSON_Delete(txt);
    cJSON_Delete(config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words),     cmocka_unit_test(test_options),
        cmocka_unit_test(test_text),      cmocka_unit_test(test_corpus),
        cmocka_unit_test(test_vocab_txt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
