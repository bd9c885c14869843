/* tokenizer_import.c (test): a vocabulary is the same from GGUF metadata and from tokenizer.json. A
 * message names what cannot be imported. Published tokenizer.json files give the ids of the
 * reference for every text of ../shared/data/tokenizers. */
#include "convert/convert.h"
#include "tokenizer/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/sample_checkpoint.h"
#include "support/shared.h"

/* ---- one small vocabulary ---- */

/* A GGUF that has only metadata: a small byte-level BPE with this pre-tokenizer. */
static void make_gguf(struct bytes *all, const char *pre)
{
    static const char *const pieces[] = { "<|end|>",
                                          "a",
                                          "b",
                                          "\xc4\xa0",
                                          "ab",
                                          ("\xc4\xa0"
                                           "ab") };
    struct gguf g = { 0 };
    gguf_text(&g, "general.architecture", "llama");
    gguf_text(&g, "tokenizer.ggml.model", "gpt2");
    gguf_text(&g, "tokenizer.ggml.pre", pre);
    gguf_list(&g, "tokenizer.ggml.tokens", GGUF_TYPE_TEXT, (int)QP_COUNT(pieces));
    for (size_t i = 0; i < QP_COUNT(pieces); i++)
        put_text(&g.metadata, pieces[i]);
    gguf_list(&g, "tokenizer.ggml.token_type", GGUF_TYPE_I32, (int)QP_COUNT(pieces));
    for (size_t i = 0; i < QP_COUNT(pieces); i++)
        put_u32(&g.metadata, i == 0 ? PIECE_CONTROL : PIECE_NORMAL);
    gguf_list(&g, "tokenizer.ggml.merges", GGUF_TYPE_TEXT, 2);
    put_text(&g.metadata, "a b");
    put_text(&g.metadata, "\xc4\xa0 ab");
    put_bytes(all, "GGUF", 4);
    put_u32(all, 3);
    put_u64(all, 0);
    put_u64(all, (uint64_t)g.n_metadata);
    put_bytes(all, g.metadata.data, g.metadata.n);
    qp_bytes_close(&g.metadata);
}

#define DIGITS "{\"type\": \"Digits\", \"individual_digits\": true}"
#define SPLIT(regex)                                                                               \
    "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"" regex                                      \
    "\"}, \"behavior\": \"Isolated\", \"invert\": false}, "
#define BYTES_ONLY "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": false}"
/* The letters in the expression of DeepSeek LLM. */
// clang-format off
#define CASED \
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-" \
    "ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉ" \
    "ⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-" \
    "𐳲𑢠-𑣟𞤀-𞥃"
// clang-format on

/* The same pre-tokenizer by llama.cpp's name and as the steps of a tokenizer.json. */
static const struct {
    const char *name, *steps;
} pre_tokenizers[] = {
    { "smollm", DIGITS ", {\"type\": \"ByteLevel\", \"add_prefix_space\": false}" },
    { "deepseek-llm",
      SPLIT("[\\r\\n]") SPLIT("\\\\s?[" CASED "]+") SPLIT("\\\\s?[!-/:-~！-／：-～‘-‟　-。]+")
          SPLIT("\\\\s+$") SPLIT("[一-龥ࠀ-一가-퟿]+") DIGITS ", " BYTES_ONLY },
    { "deepseek-coder", SPLIT("[\\r\\n]") SPLIT("\\\\s?\\\\p{L}+") SPLIT("\\\\s?\\\\p{P}+")
                            SPLIT("[一-龥ࠀ-一가-퟿]+") DIGITS ", " BYTES_ONLY },
};

/* The vocabulary in a tokenizer.json. */
static void import_json(const char *steps, const char *merges, struct bytes *spm, struct bytes *bpe)
{
    quip_error error = { 0 };
    struct bytes json = { 0 };
    assert_true(qp_bytes_printf(
        &json,
        "{\"added_tokens\": [{\"id\": 0, \"content\": \"<|end|>\", \"special\": true, "
        "\"normalized\": false}], \"normalizer\": {\"type\": \"Sequence\", \"normalizers\": []}, "
        "\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [%s]}, \"decoder\": "
        "{\"type\": \"ByteLevel\"}, \"model\": "
        "{\"type\": \"BPE\", \"vocab\": {\"a\": 1, \"b\": 2, \"\\u0120\": 3, \"ab\": 4, "
        "\"\\u0120ab\": 5}, \"merges\": %s}}",
        steps, merges));
    write_file("hf/tokenizer.json", json.data, json.n);
    qp_bytes_close(&json);
    if (qp_import_tokenizer_json(in_folder("hf/tokenizer.json"), spm, bpe, &error))
        fail_msg("%s", error.message);
}

/* The vocabulary as GGUF metadata and as JSON, with both spellings of merges. */
static void check_byte_level(const char *pre, const char *steps)
{
    struct bytes all = { 0 }, spm[3] = { { 0 } }, bpe[3] = { { 0 } };
    struct file file = { 0 };
    struct format format = { 0 };
    quip_error error = { 0 };
    make_gguf(&all, pre);
    qp_file_open_memory(&file, all.data, all.n, "memory");
    if (qp_format_open(&format, &file, &error) ||
        qp_import_tokenizer_gguf(&format, &spm[0], &bpe[0], &error))
        fail_msg("%s", error.message);
    static const char *const merges[] = { "[\"a b\", \"\\u0120 ab\"]",
                                          "[[\"a\", \"b\"], [\"\\u0120\", \"ab\"]]" };
    for (int i = 0; i < 2; i++) {
        import_json(steps, merges[i], &spm[i + 1], &bpe[i + 1]);
        assert_int_equal(spm[0].n, spm[i + 1].n);
        assert_memory_equal(spm[0].data, spm[i + 1].data, spm[0].n);
        assert_int_equal(bpe[0].n, bpe[i + 1].n);
        assert_memory_equal(bpe[0].data, bpe[i + 1].data, bpe[0].n);
    }
    for (int i = 0; i < 3; i++) {
        qp_bytes_close(&spm[i]);
        qp_bytes_close(&bpe[i]);
    }
    qp_format_close(&format);
    qp_file_close(&file);
    qp_bytes_close(&all);
}

static void test_byte_level_bpe(void **state)
{
    (void)state;
    for (size_t i = 0; i < QP_COUNT(pre_tokenizers); i++)
        check_byte_level(pre_tokenizers[i].name, pre_tokenizers[i].steps);
}

static void test_wrong_tokenizers(void **state)
{
    (void)state;
#define BYTE_LEVEL "\"pre_tokenizer\": {\"type\": \"ByteLevel\"}, " DECODES_BYTES
#define DECODES_BYTES "\"decoder\": {\"type\": \"ByteLevel\"}, "
#define A_AND_B "\"vocab\": {\"a\": 0, \"b\": 1, \"\u0120\": 2}, \"merges\": []"
#define SPACES                                                                                     \
    "{\"type\": \"Replace\", \"pattern\": {\"String\": \"\xe2\x96\x81\"}, \"content\": \" \"}"
#define STRIP "{\"type\": \"Strip\", \"content\": \" \", \"start\": 1, \"stop\": 0}"
#define DECODER(steps)                                                                             \
    "{" METASPACE("pre_tokenizer") ", \"decoder\": {\"type\": \"Sequence\", \"decoders\": [" steps \
                                   "]}, \"model\": {\"type\": \"BPE\", " A_AND_B "}}"
#define METASPACE(part) "\"" part "\": {\"type\": \"Metaspace\", \"replacement\": \"\xe2\x96\x81\"}"
    static const struct {
        const char *json, *message;
    } cases[] = {
        { "[]", "is not a JSON object" },
        { "{", "is not JSON" },
        { "{}", "its model is \"\"" },
        { "{\"model\": {\"type\": \"WordPiece\", \"vocab\": {}}}",
          "its unknown token \"\" is not a piece" },
        { "{\"pre_tokenizer\": {\"type\": \"Klingon\"}, \"model\": {\"type\": \"BPE\", "
          "\"vocab\": {\"a\": 0}, \"merges\": []}}",
          "its pre-tokenizer has a step \"Klingon\"" },
        { "{" BYTE_LEVEL "\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": -1}}}",
          "piece \"a\" is out of range" },
        { "{" BYTE_LEVEL "\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 1e9}}}",
          "piece \"a\" is out of range" },
        { "{" BYTE_LEVEL "\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": \"x\"}}}",
          "piece \"a\" is out of range" },
        { "{" BYTE_LEVEL "\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": "
          "[\"a b\"]}}",
          "has a piece that is not in the vocabulary" },
        { "{" BYTE_LEVEL "\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": "
          "[[\"a\"]]}}",
          "expected two pieces in each merge" },
        // a space before each digit, too
        { "{\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Digits\", "
          "\"individual_digits\": true}, {\"type\": \"ByteLevel\", \"add_prefix_space\": true}]}, "
          "\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": []}}",
          "its pre-tokenizer has a step \"Sequence\"" },
        // decoders that do not make text of the model's bytes and spaces
        { "{" METASPACE("pre_tokenizer") ", " METASPACE(
              "decoder") ", \"model\": {\"type\": \"BPE\", "
                         "\"byte_fallback\": true, \"vocab\": {\"a\": 0}, \"merges\": []}}",
          "its decoder has no step \"ByteFallback\"" },
        { "{" METASPACE(
              "pre_tokenizer") ", \"decoder\": {\"type\": \"Fuse\"}, \"model\": {\"type\": "
                               "\"BPE\", \"vocab\": {\"a\": 0}, \"merges\": []}}",
          "its decoder has no step \"Metaspace\"" },
        { "{" BYTE_LEVEL "\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [7]}}",
          "expected two pieces in each merge" },
        { "{\"pre_tokenizer\": {\"type\": \"ByteLevel\"}, \"model\": {\"type\": \"BPE\", " A_AND_B
          "}}",
          "its decoder is not \"ByteLevel\" alone" },
        // each step of the decoder in a place where it does something else
        { DECODER(SPACES ", " STRIP), "its decoder has a step \"Strip\"" },
        { DECODER("{\"type\": \"Fuse\"}, " STRIP ", " SPACES), "its decoder has a step \"Strip\"" },
        { DECODER(SPACES ", {\"type\": \"Fuse\"}, " STRIP ", " STRIP),
          "its decoder has a step \"Strip\"" },
        { DECODER(SPACES ", {\"type\": \"Fuse\"}, {\"type\": \"ByteFallback\"}"),
          "its decoder has a step \"ByteFallback\"" },
        // what the reference does with these is another thing each time, or fails
        { "{" BYTE_LEVEL "\"model\": {\"type\": \"BPE\", \"dropout\": 0.1, " A_AND_B "}}",
          "its model has dropout 0.1" },
        { "{" METASPACE("pre_tokenizer") ", " METASPACE(
              "decoder") ", \"model\": {\"type\": \"Unigram\", \"vocab\": [[\"a\", -1]]}}",
          "its model has no unk_id" },
        { "{" BYTE_LEVEL "\"model\": {\"type\": \"BPE\", \"byte_fallback\": true, \"vocab\": "
          "{\"a\": 0, \"<0x00>\": 1}, \"merges\": []}}",
          "its model has byte_fallback beside" },
        { "{" BYTE_LEVEL "\"added_tokens\": [{\"id\": 2, \"content\": \"\u0120\", \"special\": "
          "true}], \"model\": {\"type\": \"BPE\", " A_AND_B "}}",
          "is a letter that pieces of text are spelled with" },
        { "{" BYTE_LEVEL "\"added_tokens\": [{\"id\": 7, \"content\": \"b\"}], \"model\": "
          "{\"type\": \"BPE\", " A_AND_B "}}",
          "the added token \"b\" has the ids 1 and 7" },
        { "{" METASPACE("pre_tokenizer") ", " METASPACE(
              "decoder") ", \"model\": {\"type\": \"BPE\", \"unk_token\": \"b\", " A_AND_B "}}",
          "its unknown token, 1, is not among the added_tokens" },
    };
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        struct bytes spm = { 0 }, bpe = { 0 };
        quip_error error = { 0 };
        write_text("hf/tokenizer.json", cases[i].json);
        assert_true(qp_import_tokenizer_json(in_folder("hf/tokenizer.json"), &spm, &bpe, &error));
        if (!strstr(error.message, cases[i].message))
            fail_msg("\"%s\" is not in \"%s\"", cases[i].message, error.message);
        qp_bytes_close(&spm);
        qp_bytes_close(&bpe);
    }
}

/* Some classes of transformers, and some versions, follow tokenizer_config.json instead. */
static void test_prefix_space(void **state)
{
    (void)state;
#define BYTES(flag) "{\"type\": \"ByteLevel\", \"add_prefix_space\": " flag ", \"use_regex\": true}"
#define LIST(step) "{\"type\": \"Sequence\", \"pretokenizers\": [" step "]}"
#define CLASS(name) "\"tokenizer_class\": \"" name "\""
    static const struct {
        const char *pre, *config;
        bool is_refused;
    } cases[] = {
        { BYTES("false"), CLASS("GPT2Tokenizer"), false },
        { BYTES("false"), CLASS("GPT2Tokenizer") ", \"add_prefix_space\": true", true },
        { BYTES("true"), CLASS("GPT2Tokenizer") ", \"add_prefix_space\": true", false },
        { BYTES("true"), CLASS("GPT2Tokenizer") ", \"add_prefix_space\": false", true },
        { BYTES("true"), CLASS("Qwen2TokenizerFast"), true },
        { BYTES("true"), CLASS("PreTrainedTokenizerFast"), false },
        { BYTES("false"), "\"add_prefix_space\": true", true },
        { LIST(BYTES("false")), "\"add_prefix_space\": true", false },
        { LIST(BYTES("false")), CLASS("Qwen2Tokenizer") ", \"add_prefix_space\": true", true },
    };
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        struct bytes spm = { 0 }, bpe = { 0 };
        quip_error error = { 0 };
        char text[600];
        snprintf(text, sizeof text,
                 "{\"added_tokens\": [], \"pre_tokenizer\": %s, \"decoder\": {\"type\": "
                 "\"ByteLevel\"}, \"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, "
                 "\"\u0120\": 2}, \"merges\": []}}",
                 cases[i].pre);
        write_file("hf/tokenizer.json", text, strlen(text));
        snprintf(text, sizeof text, "{%s}", cases[i].config);
        write_file("hf/tokenizer_config.json", text, strlen(text));
        const quip_status status =
            qp_import_tokenizer_json(in_folder("hf/tokenizer.json"), &spm, &bpe, &error);
        if (cases[i].is_refused != (status == QUIP_E_UNSUPPORTED) ||
            (status && !strstr(error.message, "make them equal")))
            fail_msg("%s {%s}: \"%s\"", cases[i].pre, cases[i].config, error.message);
        qp_bytes_close(&spm);
        qp_bytes_close(&bpe);
    }
}

/* SentencePiece would make "abc" of any two pieces, so that a list without one of the ways needs a
 * blob; and so do a token with a space and another decoder than SentencePiece's. */
static void test_what_sentencepiece_cannot_say(void **state)
{
    (void)state;
#define TEXT_BPE(added, merges, decoders)                                                          \
    "{\"added_tokens\": [" added                                                                   \
    "], \"normalizer\": {\"type\": \"Replace\", \"pattern\": {\"String\": "                        \
    "\" \"}, \"content\": \"\xe2\x96\x81\"}, \"decoder\": {\"type\": \"Sequence\", \"decoders\": " \
    "[" decoders                                                                                   \
    "]}, \"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, \"c\": 2, \"ab\": 3, "     \
    "\"bc\": 4, \"abc\": 5}, \"merges\": [" merges "]}}"
#define BOTH "\"a b\", \"b c\", \"ab c\", \"a bc\""
#define FUSE ", {\"type\": \"Fuse\"}"
    static const struct {
        const char *json;
        bool needs_blob;
    } cases[] = {
        { TEXT_BPE("", BOTH, SPACES FUSE), false },
        { TEXT_BPE("", "\"a b\", \"b c\", \"ab c\"", SPACES FUSE), true },
        { TEXT_BPE("{\"id\": 6, \"content\": \"<x>\"}", BOTH, SPACES FUSE), false },
        { TEXT_BPE("{\"id\": 6, \"content\": \"x y\"}", BOTH, SPACES FUSE), true },
        { TEXT_BPE("", BOTH, SPACES FUSE ", " STRIP), true },
    };
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        struct bytes spm = { 0 }, bpe = { 0 };
        quip_error error = { 0 };
        write_text("hf/tokenizer.json", cases[i].json);
        if (qp_import_tokenizer_json(in_folder("hf/tokenizer.json"), &spm, &bpe, &error))
            fail_msg("%s", error.message);
        if ((bpe.n > 0) != cases[i].needs_blob)
            fail_msg("case %zu: a blob of %zu bytes", i, bpe.n);
        qp_bytes_close(&spm);
        qp_bytes_close(&bpe);
    }
}

/* A Unigram model finds no piece that it does not have: not the special token of an added word. */
static void test_special_outside_unigram(void **state)
{
    (void)state;
    struct bytes spm = { 0 }, bpe = { 0 };
    struct tokenizer *t = NULL;
    struct tokens ids = { 0 };
    quip_error error = { 0 };
    write_text("hf/tokenizer.json",
               "{\"added_tokens\": [{\"id\": 0, \"content\": \"<unk>\", \"special\": true}, "
               "{\"id\": 3, \"content\": \"bb\", \"special\": true, \"single_word\": true}], "
               "\"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": \"\xe2\x96\x81\", "
               "\"prepend_scheme\": \"never\"}, " METASPACE(
                   "decoder") ", \"model\": {\"type\": "
                              "\"Unigram\", \"unk_id\": 0, \"vocab\": [[\"<unk>\", 0], [\"a\", "
                              "-1], [\"b\", -9]]}}");
    if (qp_import_tokenizer_json(in_folder("hf/tokenizer.json"), &spm, &bpe, &error) ||
        qp_tokenizer_open(&t, spm.data, spm.n, bpe.data, bpe.n, &error) ||
        qp_tokenizer_encode(t, "abb", 3, true, &ids, &error))
        fail_msg("%s", error.message);
    assert_int_equal(ids.n, 3); // a b b
    assert_int_equal(ids.ids[1], 2);
    qp_tokens_close(&ids);
    qp_tokenizer_close(t);
    qp_bytes_close(&spm);
    qp_bytes_close(&bpe);
}

/* ---- published vocabularies ---- */

struct source {
    const char *folder, *suffix;
    bool has_special;    // the reference finds control tokens spelled out in a text
    const char *foreign; // a piece of the JSON that SentencePiece, the reference, does not have
};
static const struct source sources[] = {
    { "smollm2", "gz", true, NULL },
    { "gpt2-falcon-rw", "gz", true, NULL },
    { "phi2", "gz", true, NULL },
    { "llama3", "xz", true, NULL },
    { "hf-bl-digits", "gz", true, NULL },
    { "hf-bl-llama3", "gz", true, NULL },
    { "hf-bl-prefix", "gz", true, NULL },
    { "llama2", "gz", false, NULL },
    { "gemma3", "xz", false, "<image_soft_token>" },
};

/* Unpack a file of the reference data to `to`. */
static void unpack(const char *folder, const char *name, const char *suffix, const char *to)
{
    char relative[200], command[9000];
    snprintf(relative, sizeof relative, "data/tokenizers/%s/%s.%s", folder, name, suffix);
    need_shared(relative);
    snprintf(command, sizeof command, "%s -dc '%s' > '%s'",
             strcmp(suffix, "xz") == 0 ? "xz" : "gzip", shared_path(relative), to);
    assert_int_equal(system(command), 0);
}

/* True if the ids are those of the case, and for cases without a text or a defined answer. */
static bool meets_case(const struct tokenizer *t, const struct source *s, const cJSON *c)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItem(c, "text"));
    const cJSON *ids = cJSON_GetObjectItem(c, "ids"), *id = ids ? ids->child : NULL;
    struct tokens got = { 0 };
    if (!text || !ids || (s->foreign && strstr(text, s->foreign)))
        return true;
    assert_int_equal(qp_tokenizer_encode(t, text, strlen(text), s->has_special, &got, NULL), 0);
    bool ok = got.n == cJSON_GetArraySize(ids);
    for (int i = 0; i < got.n && ok; i++, id = id->next)
        ok = got.ids[i] == id->valueint;
    qp_tokens_close(&got);
    return ok;
}

static void check_source(const struct source *s)
{
    char json_path[64], cases_path[64];
    struct bytes spm = { 0 }, bpe = { 0 };
    struct tokenizer *t;
    quip_error error = { 0 };
    int n_cases = 0, n_wrong = 0;
    snprintf(json_path, sizeof json_path, "import-%d.json", (int)getpid());
    snprintf(cases_path, sizeof cases_path, "import-%d.jsonl", (int)getpid());
    unpack(s->folder, "tokenizer.json", s->suffix, json_path);
    unpack(s->folder, "cases.jsonl", "gz", cases_path);
    if (qp_import_tokenizer_json(json_path, &spm, &bpe, &error) ||
        qp_tokenizer_open(&t, spm.data, spm.n, bpe.n ? bpe.data : NULL, bpe.n, &error))
        fail_msg("%s: %s", s->folder, error.message);
    size_t n;
    char *cases = read_whole(cases_path, &n);
    unlink(json_path);
    unlink(cases_path);
    for (char *line = cases, *end; (end = strchr(line, '\n')); line = end + 1) {
        cJSON *c = cJSON_ParseWithLength(line, (size_t)(end - line));
        assert_non_null(c);
        *end = 0; // cJSON cannot represent U+0000: other tests have those texts
        n_wrong += !strstr(line, "\\u0000") && !meets_case(t, s, c);
        n_cases++;
        cJSON_Delete(c);
    }
    print_message("%s: %d cases, %d wrong\n", s->folder, n_cases, n_wrong);
    assert_true(n_cases > 1500 && n_wrong == 0);
    free(cases);
    qp_tokenizer_close(t);
    qp_bytes_close(&spm);
    qp_bytes_close(&bpe);
}

static void test_published_tokenizers(void **state)
{
    (void)state;
    for (size_t i = 0; i < QP_COUNT(sources); i++)
        check_source(&sources[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_byte_level_bpe, make_sample_folder,
                                        drop_sample_folder),
        cmocka_unit_test_setup_teardown(test_wrong_tokenizers, make_sample_folder,
                                        drop_sample_folder),
        cmocka_unit_test_setup_teardown(test_prefix_space, make_sample_folder, drop_sample_folder),
        cmocka_unit_test_setup_teardown(test_what_sentencepiece_cannot_say, make_sample_folder,
                                        drop_sample_folder),
        cmocka_unit_test_setup_teardown(test_special_outside_unigram, make_sample_folder,
                                        drop_sample_folder),
        cmocka_unit_test(test_published_tokenizers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
