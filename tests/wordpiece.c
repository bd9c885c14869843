/* wordpiece.c (test): WordPiece gives the ids of Hugging Face's tokenizers (0.23) for texts of
 * every script, and a vocab.txt or the vocabulary of a GGUF file is the same tokenizer as its
 * tokenizer.json. */
#include "convert/tokenizer_import.h"

#include "convert/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/gguf_tokenizer.h"
#include "support/sample_checkpoint.h"
#include "support/shared.h"
#include "support/tokenizers.h"

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

static struct imported open_small(const char *config_text)
{
    char vocab[] = VOCAB;
    cJSON *config = config_text ? cJSON_Parse(config_text) : NULL;
    cJSON *json = qp_json_from_vocab(vocab, config);
    struct imported i = import_json(json);
    cJSON_Delete(json);
    cJSON_Delete(config);
    return i;
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
    struct imported i = open_small(NULL);
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
    drop_imported(&i);
}

static void test_options(void **state)
{
    (void)state;
    struct imported i = open_small("{\"do_lower_case\": false}");
    check_ids(i.t, "Cafe cafe CAFE caf\xc3\xa9", false, "15 14 1 16");
    drop_imported(&i);
    i = open_small("{\"strip_accents\": false, \"tokenize_chinese_chars\": false}");
    check_ids(i.t, "Cafe caf\xc3\xa9 a\xe4\xb8\x96", false, "14 16 1");
    drop_imported(&i);
}

static void check_text(const cJSON *json, const char *want)
{
    static const quip_token ids[] = { 2, 5, 6, 7, 11, 14, 12, 3 };
    struct imported i = import_json(json);
    struct detokenizer d = { 0 };
    struct bytes text = { 0 };
    for (size_t k = 0; k < QP_COUNT(ids); k++)
        assert_true(qp_detokenize(i.t, &d, ids[k], &text));
    assert_true(qp_detokenize_end(i.t, &d, &text) && qp_bytes_append(&text, "", 1));
    assert_string_equal((const char *)text.data, want);
    qp_bytes_close(&text);
    drop_imported(&i);
}

static void test_text(void **state)
{
    (void)state;
    char vocab[] = VOCAB;
    cJSON *json = qp_json_from_vocab(vocab, NULL);
    check_text(json, "unaffable, cafe.");
    cJSON *decoder = cJSON_GetObjectItem(json, "decoder");
    assert_true(cJSON_AddFalseToObject(decoder, "cleanup") != NULL);
    check_text(json, "unaffable , cafe .");
    cJSON_Delete(json);
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
    cJSON *json = read_golden("tokenizer.json");
    struct imported i = import_json(json);
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
    drop_imported(&i);
}

static void test_vocab_txt(void **state)
{
    (void)state;
    cJSON *json = read_golden("tokenizer.json"), *config = read_golden("tokenizer_config.json"),
          *txt;
    quip_error error;
    if (qp_json_read_vocab_txt(&txt, shared_path("data/golden-2/bert/vocab.txt"), config, &error))
        fail_msg("%s", error.message);
    assert_same_import(json, txt);
    cJSON_Delete(json);
    cJSON_Delete(txt);
    cJSON_Delete(config);
}

/* ---- GGUF ---- */

/* Read a vocabulary from in.gguf. */
static quip_status read_gguf(const char *vocab, const struct gguf_options *options, cJSON **json,
                             quip_error *error)
{
    struct gguf g = { .options = options };
    gguf_wordpiece(&g, vocab);
    if (options && options->more) {
        g.options = NULL; // what is added replaces what is left out
        options->more(&g);
    }
    save_gguf(&g, in_folder("in.gguf"));
    return json_from_gguf(json, in_folder("in.gguf"), error);
}

static void say_lower(struct gguf *g)
{
    gguf_bool(g, "tokenizer.ggml.normalizer.lowercase", true);
}
static void say_cased(struct gguf *g)
{
    gguf_bool(g, "tokenizer.ggml.normalizer.lowercase", false);
}
static void say_accents_stay(struct gguf *g)
{
    say_lower(g);
    gguf_bool(g, "tokenizer.ggml.normalizer.strip_accents", false);
}

/* The same tokenizer as a vocab.txt with a tokenizer_config.json. */
static void test_gguf(void **state)
{
    static const struct {
        void (*more)(struct gguf *g);
        const char *config;
    } cases[] = { { say_lower, "{}" },
                  { say_cased, "{\"do_lower_case\": false}" },
                  { say_accents_stay, "{\"strip_accents\": false}" } };
    (void)state;
    for (size_t c = 0; c < QP_COUNT(cases); c++) {
        char vocab[] = VOCAB;
        cJSON *json, *config = cJSON_Parse(cases[c].config), *expected;
        quip_error error;
        if (read_gguf(VOCAB, &(struct gguf_options){ .more = cases[c].more }, &json, &error))
            fail_msg("%s", error.message);
        expected = qp_json_from_vocab(vocab, config);
        assert_same_import(json, expected);
        cJSON_Delete(json);
        cJSON_Delete(expected);
        cJSON_Delete(config);
    }
}

#define TYPES "tokenizer.ggml.token_type"

static void put_types(struct gguf *g, int last)
{
    gguf_list(g, TYPES, GGUF_TYPE_I32, 5);
    put_bytes(&g->metadata, (int[]){ 3, 3, 3, 3, last }, 5 * sizeof(int));
}
static void say_unused(struct gguf *g)
{
    put_types(g, 5);
}

/* Pieces that fill up the embedding are not tokens; U+2581 alone continues a word. */
static void test_gguf_pieces(void **state)
{
    (void)state;
    struct imported i;
    cJSON *json;
    quip_error error;
    if (read_gguf("[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n##\xe2\x96\x81\n\xe2\x96\x81\n", NULL, &json,
                  &error))
        fail_msg("%s", error.message);
    i = import_json(json);
    check_ids(i.t, "a\xe2\x96\x81 \xe2\x96\x81", false, "4 5 6");
    drop_imported(&i);
    cJSON_Delete(json);
    const struct gguf_options unused = { .skip = "," TYPES ",", .more = say_unused };
    if (read_gguf("[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n", &unused, &json, &error))
        fail_msg("%s", error.message);
    i = import_json(json);
    check_ids(i.t, "a", false, "1");
    drop_imported(&i);
    cJSON_Delete(json);
}

static void say_added(struct gguf *g)
{
    put_types(g, 4);
}
static void say_byte(struct gguf *g)
{
    put_types(g, 6);
}
static void say_few_types(struct gguf *g)
{
    gguf_list(g, TYPES, GGUF_TYPE_I32, 1);
    put_u32(&g->metadata, 3);
}
static void say_other_unknown(struct gguf *g)
{
    gguf_u32(g, "tokenizer.ggml.unknown_token_id", 4);
}

static void test_gguf_refusals(void **state)
{
    static const struct {
        const char *vocab, *skip;
        void (*more)(struct gguf *g);
        const char *message;
    } cases[] = {
        { "[PAD]\n[UNK]\n[CLS]\n[SEP]\nCafe\n", NULL, NULL, "pieces such as \"Cafe\"" },
        { "[PAD]\n[UNK]\n[CLS]\n[SEP]\n<a>\n", "," TYPES ",", say_added, "\"\xe2\x96\x81<a>\"" },
        { "[PAD]\n[UNK]\n[CLS]\n[SEP]\n<a>\n", "," TYPES ",", say_byte, "as --tokenizer" },
        { "[PAD]\n[UNK]\n[CLS]\n[SEP]\n<a>\n", "," TYPES ",", say_few_types, TYPES },
        { "[PAD]\n[UNK]\n[CLS]\n[SEP]\n<a>\n", "," TYPES ",", NULL, TYPES },
        { "[PAD]\n[UNK]\n[CLS]\n[SEP]\n<a>\n", ",tokenizer.ggml.unknown_token_id,",
          say_other_unknown, "token 4 is not a special token" },
        { "[PAD]\n[UNK]\n[CLS]\n[SEP]\n<a>\n", ",tokenizer.ggml.unknown_token_id,", NULL,
          "token 100 is not a special token" },
        { "[PAD]\n[UNK]\n[CLS]\n[SEP]\n\n", NULL, NULL, NULL }, // not empty: U+2581
    };
    (void)state;
    for (size_t c = 0; c < QP_COUNT(cases); c++) {
        const struct gguf_options options = { .skip = cases[c].skip, .more = cases[c].more };
        cJSON *json;
        quip_error error;
        const quip_status status = read_gguf(cases[c].vocab, &options, &json, &error);
        if (!status != !cases[c].message ||
            (cases[c].message && !strstr(error.message, cases[c].message)))
            fail_msg("case %zu: \"%s\"", c, error.message);
        cJSON_Delete(json);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_corpus),
        cmocka_unit_test(test_vocab_txt),
        cmocka_unit_test_setup_teardown(test_gguf, make_sample_folder, drop_sample_folder),
        cmocka_unit_test_setup_teardown(test_gguf_pieces, make_sample_folder, drop_sample_folder),
        cmocka_unit_test_setup_teardown(test_gguf_refusals, make_sample_folder, drop_sample_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
