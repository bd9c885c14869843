/* unigram_words.c: XLM-RoBERTa's tokenizer, a unigram model over words between white space, gives
 * the ids of Hugging Face's tokenizers (0.23), and is the same from a tokenizer.json and from the
 * metadata of a GGUF file. */
#include "convert/json.h"
#include "convert/tokenizer_import.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "support/sample_checkpoint.h"
#include "support/tokenizers.h"

#define S "\xe2\x96\x81" // U+2581

/* Its pieces by id; two control tokens and the unknown one come first. */
static const struct {
    const char *text;
    float score;
} pieces[] = {
    { "<s>", 0 },    { "</s>", 0 },     { "<unk>", 0 },      { S, -4 },
    { "a", -3 },     { "b", -3 },       { S "a", -2 },       { S "b", -2 },
    { "ab", -2.5f }, { S "ab", -1.5f }, { S "a" S "b", -1 },
};

#define TOKEN(id, text) "{\"id\": " #id ", \"content\": \"" text "\", \"special\": true}"
#define METASPACE                                                                                  \
    "\"type\": \"Metaspace\", \"replacement\": \"" S "\", \"prepend_scheme\": \"always\""
static const char tokenizer_json[] =
    "{\"added_tokens\": [" TOKEN(0, "<s>") ", " TOKEN(1, "</s>") ", " TOKEN(
        2, "<unk>") "], "
                    "\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": "
                    "[{\"type\": \"WhitespaceSplit\"}, {" METASPACE ", \"split\": true}]}, "
                    "\"decoder\": {" METASPACE
                    "}, \"model\": {\"type\": \"Unigram\", \"unk_id\": 2, \"vocab\": "
                    "[[\"<s>\", 0], [\"</s>\", 0], [\"<unk>\", 0], [\"" S
                    "\", -4], [\"a\", -3], [\"b\", -3], "
                    "[\"" S "a\", -2], [\"" S "b\", -2], [\"ab\", -2.5], [\"" S "ab\", -1.5], "
                    "[\"" S "a" S "b\", -1]]}}";

static void test_words(void **state)
{
    static const struct {
        const char *text;
        quip_token ids[4];
        int n;
        const char *decoded;
    } cases[] = {
        { "a b", { 6, 7 }, 2, "a b" }, // not the piece that contains both
        { "  a\tb \n", { 6, 7 }, 2, "a b" },
        { "a" S "b", { 6, 7 }, 2, "a b" },
        { S "a", { 6 }, 1, "a" },
        { S S "a", { 3, 6 }, 2, " a" },
        { "\xe3\x80\x80"
          "ab\xc2\xa0"
          "b",
          { 9, 7 },
          2,
          "ab b" },
        { "x a", { 3, 2, 6 }, 3, NULL },
        { "aab", { 6, 8 }, 2, "aab" },
        { "a<s> b", { 6, 0, 7 }, 3, NULL },
        { "a <s>b", { 6, 0, 7 }, 3, NULL },
        { "", { 0 }, 0, "" },
        { "  ", { 0 }, 0, "" },
    };
    (void)state;
    cJSON *json = cJSON_Parse(tokenizer_json);
    struct imported i = import_json(json);
    cJSON_Delete(json);
    for (size_t c = 0; c < QP_COUNT(cases); c++) {
        struct tokens ids = { 0 };
        struct detokenizer d = { 0 };
        struct bytes text = { 0 };
        assert_int_equal(
            qp_tokenizer_encode(i.t, cases[c].text, strlen(cases[c].text), true, &ids, NULL), 0);
        bool is_equal = ids.n == cases[c].n;
        for (int k = 0; k < ids.n && is_equal; k++)
            is_equal = ids.ids[k] == cases[c].ids[k];
        if (!is_equal)
            fail_msg("case %zu: \"%s\" has other ids", c, cases[c].text);
        for (int k = 0; k < ids.n; k++)
            assert_true(qp_detokenize(i.t, &d, ids.ids[k], &text));
        assert_true(qp_detokenize_end(i.t, &d, &text) && qp_bytes_append(&text, "", 1));
        if (cases[c].decoded)
            assert_string_equal((const char *)text.data, cases[c].decoded);
        qp_bytes_close(&text);
        qp_tokens_close(&ids);
    }
    drop_imported(&i);
}

/* ---- GGUF ---- */

#define KEY(name) "tokenizer.ggml." name

static void put_pieces(struct gguf *g, int unused, int last)
{
    gguf_list(g, KEY("tokens"), GGUF_TYPE_TEXT, (int)QP_COUNT(pieces) + 1);
    for (size_t i = 0; i < QP_COUNT(pieces); i++)
        put_text(&g->metadata, pieces[i].text);
    put_text(&g->metadata, "<last>");
    gguf_list(g, KEY("scores"), GGUF_TYPE_F32, (int)QP_COUNT(pieces) + 1);
    for (size_t i = 0; i < QP_COUNT(pieces); i++)
        put_bytes(&g->metadata, &pieces[i].score, 4);
    put_bytes(&g->metadata, &(float){ -10000 }, 4);
    gguf_list(g, KEY("token_type"), GGUF_TYPE_I32, (int)QP_COUNT(pieces) + 1);
    for (int i = 0; i < (int)QP_COUNT(pieces); i++)
        put_u32(&g->metadata, i == unused ? PIECE_UNUSED
                              : i < 2     ? PIECE_CONTROL
                              : i == 2    ? PIECE_UNKNOWN
                                          : PIECE_NORMAL);
    put_u32(&g->metadata, (uint32_t)last);
}

/* Read the vocabulary from in.gguf. */
static quip_status read_gguf(const char *skip, void (*more)(struct gguf *g), cJSON **json,
                             quip_error *error)
{
    struct gguf g = { .options = &(struct gguf_options){ .skip = skip } };
    gguf_text(&g, KEY("model"), "t5");
    put_pieces(&g, -1, PIECE_UNUSED);
    gguf_bool(&g, KEY("add_space_prefix"), true);
    gguf_bool(&g, KEY("remove_extra_whitespaces"), true);
    gguf_bool(&g, KEY("add_bos_token"), true);
    gguf_bool(&g, KEY("add_eos_token"), true);
    gguf_u32(&g, KEY("bos_token_id"), 0);
    gguf_u32(&g, KEY("eos_token_id"), 1);
    gguf_u32(&g, KEY("unknown_token_id"), 2);
    g.options = NULL; // what is added replaces what is left out
    if (more)
        more(&g);
    save_gguf(&g, in_folder("in.gguf"));
    return json_from_gguf(json, in_folder("in.gguf"), error);
}

static void test_gguf(void **state)
{
    (void)state;
    quip_error error;
    cJSON *json;
    if (read_gguf(NULL, NULL, &json, &error))
        fail_msg("%s", error.message);
    const cJSON *post = qp_json_item(json, "post_processor");
    char *text = cJSON_PrintUnformatted(post);
    assert_string_equal(text, "{\"special_tokens\":{\"bos\":{\"ids\":[0]},\"eos\":{\"ids\":[1]}},"
                              "\"single\":[{\"SpecialToken\":{\"id\":\"bos\"}},{\"Sequence\":{}},"
                              "{\"SpecialToken\":{\"id\":\"eos\"}}],"
                              "\"type\":\"TemplateProcessing\"}");
    cJSON_free(text);
    cJSON *expected = cJSON_Parse(tokenizer_json);
    assert_same_import(json, expected);
    cJSON_Delete(json);
    cJSON_Delete(expected);
}

static void put_charsmap(struct gguf *g)
{
    gguf_list(g, KEY("precompiled_charsmap"), 0, 5); // of u8
    put_bytes(&g->metadata, "\xfb\xff\x00\x10\x41", 5);
}

static void test_charsmap(void **state)
{
    (void)state;
    quip_error error;
    cJSON *json;
    if (read_gguf(NULL, put_charsmap, &json, &error))
        fail_msg("%s", error.message);
    const cJSON *steps = qp_json_item(json, "normalizer");
    assert_true(qp_json_has_type(steps, "Precompiled"));
    assert_string_equal(qp_json_text(steps, "precompiled_charsmap"), "+/8AEEE=");
    cJSON_Delete(json);
}

static void say_no_prefix(struct gguf *g)
{
    gguf_bool(g, KEY("add_space_prefix"), false);
}
static void say_all_spaces(struct gguf *g)
{
    gguf_bool(g, KEY("remove_extra_whitespaces"), false);
}
static void say_suffix(struct gguf *g)
{
    gguf_bool(g, KEY("treat_whitespace_as_suffix"), true);
}
static void say_far_eos(struct gguf *g)
{
    gguf_u32(g, KEY("eos_token_id"), 99);
}
static void put_added(struct gguf *g)
{
    put_pieces(g, -1, PIECE_USER_DEFINED);
}
static void put_gap(struct gguf *g)
{
    put_pieces(g, 5, PIECE_UNUSED);
}

#define LISTS "," KEY("tokens") "," KEY("scores") "," KEY("token_type") ","

static void test_refusals(void **state)
{
    static const struct {
        const char *skip;
        void (*more)(struct gguf *g);
        const char *message;
    } cases[] = {
        { "," KEY("add_space_prefix") ",", NULL, "has no tokenizer.ggml.add_space_prefix" },
        { "," KEY("add_space_prefix") ",", say_no_prefix, "has another" },
        { "," KEY("remove_extra_whitespaces") ",", say_all_spaces, "has another" },
        { NULL, say_suffix, "treat_whitespace_as_suffix" },
        { "," KEY("add_eos_token") ",", NULL, "has no tokenizer.ggml.add_eos_token" },
        { "," KEY("add_bos_token") ",", NULL, "has no tokenizer.ggml.add_bos_token" },
        { "," KEY("eos_token_id") ",", say_far_eos, "eos_token_id" },
        { "," KEY("unknown_token_id") ",", NULL, "unknown_token_id" },
        { "," KEY("scores") ",", NULL, "has no scores" },
        { "," KEY("token_type") ",", NULL, "token_type" },
        { LISTS, put_added, "\"<last>\", was added" },
        { LISTS, put_gap, "token 6" },
    };
    (void)state;
    for (size_t c = 0; c < QP_COUNT(cases); c++) {
        cJSON *json;
        quip_error error;
        if (!read_gguf(cases[c].skip, cases[c].more, &json, &error) ||
            !strstr(error.message, cases[c].message))
            fail_msg("case %zu: \"%s\"", c, error.message);
    }
}

/* A token outside of the model's vocabulary is not one of the model's pieces: inside a word, where
 * it is not found, the word is spelled with other pieces. */
static void test_single_word(void **state)
{
    static const char more[] = ", {\"id\": 11, \"content\": \"ba\", \"single_word\": true}]";
    struct bytes text = { 0 };
    (void)state;
    const char *end = strchr(tokenizer_json, ']');
    assert_true(qp_bytes_append(&text, tokenizer_json, (size_t)(end - tokenizer_json)) &&
                qp_bytes_append_text(&text, more) && qp_bytes_append(&text, end + 1, strlen(end)));
    cJSON *json = cJSON_Parse((char *)text.data);
    struct imported i = import_json(json);
    static const struct {
        const char *text;
        quip_token ids[4];
    } cases[] = { { "ba a", { 11, 6 } }, { "aba", { 9, 4 } } };
    for (size_t c = 0; c < QP_COUNT(cases); c++) {
        struct tokens ids = { 0 };
        assert_int_equal(
            qp_tokenizer_encode(i.t, cases[c].text, strlen(cases[c].text), true, &ids, NULL), 0);
        assert_int_equal(ids.n, 2);
        assert_memory_equal(ids.ids, cases[c].ids, 2 * sizeof *ids.ids);
        qp_tokens_close(&ids);
    }
    drop_imported(&i);
    cJSON_Delete(json);
    qp_bytes_close(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_single_word),
        cmocka_unit_test_setup_teardown(test_gguf, make_sample_folder, drop_sample_folder),
        cmocka_unit_test_setup_teardown(test_charsmap, make_sample_folder, drop_sample_folder),
        cmocka_unit_test_setup_teardown(test_refusals, make_sample_folder, drop_sample_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
