/* wild_tokenizers.c (test): tokenizers of checkpoints as people have them: tokens that only a file
 * beside the SentencePiece model knows, and files that are not what their names say. The expected
 * ids are those of Hugging Face's tokenizers for the same files. */
#include "convert/convert.h"
#include "quip.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/sample_checkpoint.h"

/* Ids of the sample: 7 "a", 8 "b", 9 U+2581, 10 "ab"; bytes from 11 to 266. */
enum {
    FIRST_NEW = 267,
    BYTE_0 = 11,
    SPACE = 9
};
static const struct folder_options plain;

/* ---- helpers ---- */

/* The sample's vocabulary with a space before every text, as Llama 2 has. */
static void write_model_with_prefix(void)
{
    static const struct {
        const char *text;
        enum piece_type type;
    } pieces[] = {
        { "<pad>", PIECE_CONTROL },
        { "<eos>", PIECE_CONTROL },
        { "<bos>", PIECE_CONTROL },
        { "<unk>", PIECE_UNKNOWN },
        { "<start_of_turn>", PIECE_USER_DEFINED },
        { "<end_of_turn>", PIECE_USER_DEFINED },
        { "\xe2\x96\x81\xe2\x96\x81", PIECE_USER_DEFINED },
        { "a", PIECE_NORMAL },
        { "b", PIECE_NORMAL },
        { "\xe2\x96\x81", PIECE_NORMAL },
        { "ab", PIECE_NORMAL },
    };
    struct bytes spm = { 0 };
    for (size_t id = 0; id < QP_COUNT(pieces); id++)
        assert_true(qp_spm_write_piece(&spm, pieces[id].text, strlen(pieces[id].text),
                                       -(float)(QP_COUNT(pieces) - id), pieces[id].type));
    for (int byte = 0; byte < 256; byte++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", byte);
        assert_true(qp_spm_write_piece(&spm, name, 6, 0, PIECE_BYTE));
    }
    const struct spm_options options = { .is_bpe = true,
                                         .byte_fallback = true,
                                         .escape_whitespaces = true,
                                         .add_dummy_prefix = true,
                                         .vocab_size = FIRST_NEW,
                                         .unk_id = 3,
                                         .bos_id = 2,
                                         .eos_id = 1,
                                         .pad_id = 0 };
    assert_true(qp_spm_write_options(&spm, &options));
    write_file("hf/tokenizer.model", spm.data, spm.n);
    qp_bytes_close(&spm);
}

static const char *piece_4 = "<start_of_turn>", *post_processor = "null";

/* A tokenizer.json of the same vocabulary; `more` are further added tokens. */
static void write_json(const char *more, const char *normalizer)
{
    struct bytes json = { 0 };
    assert_true(qp_bytes_printf(
        &json,
        "{\"added_tokens\": [{\"id\": 0, \"content\": \"<pad>\", \"special\": true}, "
        "{\"id\": 1, \"content\": \"<eos>\", \"special\": true}, "
        "{\"id\": 2, \"content\": \"<bos>\", \"special\": true}, "
        "{\"id\": 3, \"content\": \"<unk>\", \"special\": true}, "
        "{\"id\": 4, \"content\": \"%s\", \"special\": false}, "
        "{\"id\": 5, \"content\": \"<end_of_turn>\", \"special\": false}, "
        "{\"id\": 6, \"content\": \"\xe2\x96\x81\xe2\x96\x81\", \"special\": false}%s], "
        "\"normalizer\": %s, \"post_processor\": %s, \"model\": {\"type\": \"BPE\", "
        "\"byte_fallback\": true, "
        "\"fuse_unk\": true, \"unk_token\": \"<unk>\", \"vocab\": {\"<pad>\": 0, \"<eos>\": "
        "1, \"<bos>\": 2, \"<unk>\": 3, \"%s\": 4, \"<end_of_turn>\": 5, "
        "\"\xe2\x96\x81\xe2\x96\x81\": 6, \"a\": 7, \"b\": 8, \"\xe2\x96\x81\": 9, \"ab\": "
        "10",
        piece_4, more, normalizer, post_processor, piece_4));
    for (int byte = 0; byte < 256; byte++)
        assert_true(qp_bytes_printf(&json, ", \"<0x%02X>\": %d", byte, BYTE_0 + byte));
    assert_true(qp_bytes_append_text(
        &json, "}, \"merges\": [\"a b\"]}, \"decoder\": {\"type\": \"Sequence\", \"decoders\": "
               "[{\"type\": \"Replace\", \"pattern\": {\"String\": \"\xe2\x96\x81\"}, "
               "\"content\": \" \"}, {\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}]}}"));
    write_file("hf/tokenizer.json", json.data, json.n);
    qp_bytes_close(&json);
}

#define REPLACE                                                                                    \
    "{\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": \"\xe2\x96\x81\"}"
#define PREPEND "{\"type\": \"Prepend\", \"prepend\": \"\xe2\x96\x81\"}"
#define NORMALIZER_PLAIN REPLACE
#define NORMALIZER_PREFIX "{\"type\": \"Sequence\", \"normalizers\": [" PREPEND ", " REPLACE "]}"

static quip_model *convert_and_open(void)
{
    quip_error error = { 0 };
    quip_model *model = NULL;
    const struct convert_options options = { .weights = CONVERT_F32 };
    if (qp_convert(in_folder("hf"), in_folder("out.bin"), &options, &error) ||
        quip_model_open(&model, in_folder("out.bin"), NULL, &error))
        fail_msg("%s", error.message);
    return model;
}

static void assert_ids(const quip_model *model, const char *text, bool with_special, int n,
                       const quip_token *expected)
{
    quip_token ids[64];
    quip_error error = { 0 };
    int n_ids = 0;
    if (quip_tokenize(model, text, strlen(text), with_special, ids, 64, &n_ids, &error))
        fail_msg("%s", error.message);
    bool ok = n_ids == n;
    for (int i = 0; i < n && ok; i++)
        ok = ids[i] == expected[i];
    if (!ok) {
        print_message("\"%s\":", text);
        for (int i = 0; i < n_ids && i < 64; i++)
            print_message(" %d", ids[i]);
        fail_msg("are not the ids of \"%s\"", text);
    }
}
#define assert_ids_are(model, text, with_special, ...)                                             \
    assert_ids(model, text, with_special,                                                          \
               (int)(sizeof((quip_token[]){ __VA_ARGS__ }) / sizeof(quip_token)),                  \
               (quip_token[]){ __VA_ARGS__ })

static void assert_refused(const char *part)
{
    quip_error error = { 0 };
    const struct convert_options options = { .weights = CONVERT_F32 };
    assert_int_not_equal(qp_convert(in_folder("hf"), in_folder("out.bin"), &options, &error), 0);
    assert_no_output();
    if (!strstr(error.message, part))
        fail_msg("\"%s\" is not in \"%s\"", part, error.message);
}

/* ---- tokens beside a SentencePiece model ---- */

#define TOOL_TOKENS "{\"<|im_start|>\": 267, \"<tool>\": 269, \"<|im_end|>\": 268}"

/* Without a space before texts, more pieces say it all. */
static void test_added_tokens_file(void **state)
{
    (void)state;
    write_folder(&sample_llama_tied, &plain);
    write_text("hf/added_tokens.json", TOOL_TOKENS);
    write_text("hf/tokenizer_config.json", "{\"eos_token\": {\"content\": \"<|im_end|>\"}, "
                                           "\"additional_special_tokens\": [\"<|im_start|>\"]}");
    quip_model *model = convert_and_open();
    assert_ids_are(model, "<|im_start|>a <tool>b<|im_end|>", true, 267, 7, SPACE, 269, 8, 268);
    // special tokens are not found in what users write; the others are
    assert_ids_are(model, "a<tool>b", false, 7, 269, 8);
    assert_ids_are(model, "<|", false, BYTE_0 + '<', BYTE_0 + '|');
    assert_ids_are(model, "ab<|im_end|>", true, 10, 268);
    quip_model_close(model);
}

/* With a space before texts, each section between added tokens is a text of its own. */
static void test_sections(void **state)
{
    (void)state;
    write_folder(&sample_llama_tied, &plain);
    write_model_with_prefix();
    write_text("hf/added_tokens.json", TOOL_TOKENS);
    write_text("hf/tokenizer_config.json", "{\"eos_token\": \"<|im_end|>\"}");
    quip_model *model = convert_and_open();
    assert_ids_are(model, "ab<tool>a<|im_end|>b", true, SPACE, 10, 269, SPACE, 7, 268, SPACE, 8);
    quip_model_close(model);
    write_text("hf/tokenizer_config.json", "{\"eos_token\": \"<|im_end|>\", \"legacy\": false}");
    model = convert_and_open();
    assert_ids_are(model, "ab<tool>a<|im_end|>b", true, SPACE, 10, 269, 7, 268, 8);
    assert_ids_are(model, "<tool>a", true, 269, 7);
    quip_model_close(model);
}

/* How a token is found: with the spaces around it, or only as a word. */
static void test_added_tokens_decoder(void **state)
{
    (void)state;
    write_folder(&sample_llama_tied, &plain);
    write_text("hf/tokenizer_config.json",
               "{\"added_tokens_decoder\": {\"0\": {\"content\": \"<pad>\", \"special\": true}, "
               "\"267\": {\"content\": \"<l>\", \"lstrip\": true, \"special\": false}, "
               "\"268\": {\"content\": \"<r>\", \"rstrip\": true, \"special\": true}, "
               "\"271\": {\"content\": \"ba\", \"single_word\": true, \"special\": false}}}");
    write_text("hf/added_tokens.json", "{\"<ignored>\": 267}"); // the decoder counts
    quip_model *model = convert_and_open();
    assert_ids_are(model, "a  <l> b", false, 7, 267, SPACE, 8);
    assert_ids_are(model, "a <r>  b", true, 7, SPACE, 268, 8);
    assert_ids_are(model, "<r>", false, BYTE_0 + '<', BYTE_0 + 'r', BYTE_0 + '>');
    assert_ids_are(model, "ba bab ba", false, 271, SPACE, 8, 10 - 3, 8, SPACE, 271);
    quip_model_close(model);
}

/* A tokenizer.json that says the same changes nothing; one that says more counts. */
static void test_json_beside_model(void **state)
{
    (void)state;
    size_t n;
    write_folder(&sample_llama_tied, &plain);
    quip_model_close(convert_and_open());
    FILE *f = fopen(in_folder("out.bin"), "rb");
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    n = (size_t)ftell(f);
    fclose(f);
    write_json("", NORMALIZER_PLAIN);
    quip_model_close(convert_and_open());
    f = fopen(in_folder("out.bin"), "rb");
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    assert_int_equal(n, (size_t)ftell(f));
    fclose(f);

    write_json(", {\"id\": 268, \"content\": \"<|im_end|>\", \"special\": true}", NORMALIZER_PLAIN);
    quip_model *model = convert_and_open();
    assert_ids_are(model, "ab<|im_end|>b", true, 10, 268, 8);
    quip_model_close(model);

    // a name that only the tokenizer.json has, for a piece that the model calls otherwise
    piece_4 = "<|im_start|>";
    write_json("", NORMALIZER_PLAIN);
    piece_4 = "<start_of_turn>";
    model = convert_and_open();
    assert_ids_are(model, "a<|im_start|>b", true, 7, 4, 8);
    quip_model_close(model);

    write_model_with_prefix();
    write_json(", {\"id\": 267, \"content\": \"<tool>\", \"special\": false}", NORMALIZER_PREFIX);
    model = convert_and_open();
    assert_ids_are(model, "ab<tool>a", false, SPACE, 10, 267, SPACE, 7);
    quip_model_close(model);
}

static void test_rows_of_the_embedding(void **state)
{
    (void)state;
    write_folder(&sample_llama_tied, &plain);
    write_text("hf/added_tokens.json", "{\"<|im_end|>\": 279}"); // padded: the last row
    quip_model *model = convert_and_open();
    assert_ids_are(model, "<|im_end|>", false, 279);
    quip_model_close(model);
    unlink(in_folder("out.bin"));
    write_text("hf/added_tokens.json", "{\"<|im_end|>\": 280}");
    assert_refused("token 280, \"<|im_end|>\", has no row in the embedding, which has 280");
    write_json(", {\"id\": 280, \"content\": \"<|im_end|>\", \"special\": true}", NORMALIZER_PLAIN);
    assert_refused("token 280, \"<|im_end|>\", has no row in the embedding, which has 280");
    unlink(in_folder("hf/tokenizer.model"));
    assert_refused("token 280, \"<|im_end|>\", has no row in the embedding, which has 280");
    // Gemma 3 1B has the tokenizer of the larger models
    write_json(", {\"id\": 280, \"content\": \"<image_soft_token>\", \"special\": true}",
               NORMALIZER_PLAIN);
    quip_model_close(convert_and_open());
}

static void test_contradictions(void **state)
{
    (void)state;
    write_folder(&sample_llama_tied, &plain);
    write_text("hf/added_tokens.json", "{\"<|im_end|>\": 8}");
    assert_refused("token 8 is \"<|im_end|>\" among the added tokens, but \"b\" in");
    write_text("hf/added_tokens.json", "{\"<x>\": 267, \"<y>\": 267}");
    assert_refused("has no id of its own");
    write_text("hf/added_tokens.json", "{\"<x>\": \"267\"}");
    assert_refused("\"<x>\" has no id of its own");
    write_text("hf/added_tokens.json", "{\"\": 267}");
    assert_refused("has no id of its own");
}

/* ---- files that are not what their names say ---- */

#define LFS_POINTER "version https://git-lfs.github.com/spec/v1\noid sha256:4d4d4d4d\nsize 534194\n"
#define TIKTOKEN "AA== 0\nAQ== 1\nAg== 2\n"

static void test_impostors(void **state)
{
    (void)state;
    static const struct {
        const char *name, *content, *message;
    } cases[] = {
        { "hf/tokenizer.model", LFS_POINTER, "is a Git LFS pointer, not a SentencePiece model" },
        { "hf/tokenizer.model", TIKTOKEN, "is a tiktoken vocabulary" },
        { "hf/tokenizer.model", "<!DOCTYPE html><html>", "is a web page" },
        { "hf/tokenizer.model", "{\"model\": {}}", "is JSON, not a SentencePiece model" },
        { "hf/config.json", LFS_POINTER, "config.json: is a Git LFS pointer, not JSON; run" },
        { "hf/config.json", "<html>", "config.json: is a web page, not JSON" },
        { "hf/config.json", "\xff\xfe{", "config.json: is text in UTF-16" },
        { "hf/tokenizer.json", LFS_POINTER, "tokenizer.json: is a Git LFS pointer" },
        { "hf/added_tokens.json", LFS_POINTER, "added_tokens.json: is a Git LFS pointer" },
        { "hf/model.safetensors", LFS_POINTER, "model.safetensors: is a Git LFS pointer" },
    };
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        write_folder(&sample_llama_tied, &plain);
        write_text(cases[i].name, cases[i].content);
        assert_refused(cases[i].message);
        unlink(in_folder(cases[i].name));
    }
    // beside a good tokenizer.json, they do not matter
    for (size_t i = 0; i < 3; i++) {
        write_folder(&sample_llama_tied, &plain);
        write_json("", NORMALIZER_PLAIN);
        write_text(cases[i].name, cases[i].content);
        quip_model *model = convert_and_open();
        assert_ids_are(model, "ab", false, 10);
        quip_model_close(model);
    }
}

static void test_no_tokenizer(void **state)
{
    (void)state;
    write_folder(&sample_llama_tied, &plain);
    unlink(in_folder("hf/tokenizer.model"));
    assert_refused("has no tokenizer; expected tokenizer.model, tokenizer.json or vocab.txt");
    write_text("hf/tekken.json", "{}");
    assert_refused("has a tekken.json, but no tokenizer.json; make one with transformers");
    write_text("hf/vocab.json", "{}");
    assert_refused("has a vocab.json, but no tokenizer.json");
}

/* ---- JSON as Python writes it ---- */

static void edit_config(const char *before, const char *more, const char *after)
{
    char text[1600];
    snprintf(text, sizeof text,
             "%s{\"model_type\": \"llama\", \"num_hidden_layers\": 2, \"hidden_size\": 24, "
             "\"intermediate_size\": 40, \"num_attention_heads\": 4, \"num_key_value_heads\": 2, "
             "\"head_dim\": 8, \"vocab_size\": 280, \"rms_norm_eps\": 1e-5, \"rope_theta\": "
             "500000, \"tie_word_embeddings\": true%s}%s",
             before, more, after);
    write_text("hf/config.json", text);
}

static void test_python_json(void **state)
{
    (void)state;
    static const struct {
        const char *before, *more, *after, *message;
    } cases[] = {
        { "\xef\xbb\xbf", "", "\r\n", NULL },
        { "", ", \"note\": Infinity, \"time\": [-Infinity, NaN], \"s\": \"\\\"NaN\"", "", NULL },
        { "", ", \"rms_norm_eps\": NaN", "", "rms_norm_eps is not a number" },
        { "", ", \"rms_norm_eps\": Infinity", "", "inf" },
        { "", ", \"hidden_size\": 24.5", "", "hidden_size is 24.5" },
        { "", ", \"hidden_size\": 25, \"hidden_size\": 24", "", NULL }, // the last counts
        { "", ", \"vocab_size\": 7, \"num_hidden_layers\": 3, \"vocab_size\": 280", "",
          "model.layers.2" },
        { "", ", \"x\": nan", "", "is not JSON from byte" },
        { "", "", "{", "is not JSON from byte" },
    };
    write_folder(&sample_llama_tied, &plain);
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        edit_config(cases[i].before, cases[i].more, cases[i].after);
        if (cases[i].message) {
            assert_refused(cases[i].message);
        } else {
            quip_model_close(convert_and_open());
            unlink(in_folder("out.bin"));
        }
    }
}

/* ---- tokens around a text ---- */

static char noted[2000];

static void keep_note(void *user, const char *sentence)
{
    (void)user;
    assert_true(strlen(noted) + strlen(sentence) < sizeof noted);
    strcat(noted, sentence);
}

#define TEXT "{\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}"
#define SPECIAL(name) "{\"SpecialToken\": {\"id\": \"" name "\", \"type_id\": 0}}"
#define ID(name, id) "\"" name "\": {\"id\": \"" name "\", \"ids\": [" id "], \"tokens\": [\"x\"]}"
#define TEMPLATE(single)                                                                           \
    "{\"type\": \"TemplateProcessing\", \"single\": [" single "], \"pair\": [], "                  \
    "\"special_tokens\": {" ID("<bos>", "2") ", " ID("<eos>", "1") ", " ID("a", "7") "}}"
#define CLS "\"sep\": [\"<eos>\", 1], \"cls\": [\"a\", 7]"
#define BYTES "{\"type\": \"ByteLevel\", \"add_prefix_space\": true, \"trim_offsets\": false}"
#define SEQUENCE(steps) "{\"type\": \"Sequence\", \"processors\": [" steps "]}"

/* bos as transformers 5.24 and tokenizers 0.23 feed it. What they put behind a text is said, and so
 * is a switch of tokenizer_config.json that they ignore. */
static void test_tokens_around_a_text(void **state)
{
    enum {
        REFUSED = -2
    };
    static const struct {
        const char *post, *config;
        int bos;
        const char *says; // NULL: nothing
    } cases[] = {
        { TEMPLATE(TEXT), "", -1, NULL },
        { TEMPLATE(SPECIAL("<bos>") ", " TEXT), "", 2, NULL },
        { TEMPLATE(SPECIAL("a") ", " TEXT), "", 7, NULL },
        { TEMPLATE(SPECIAL("<bos>") ", " SPECIAL("a") ", " TEXT), "", REFUSED, "puts 2 tokens" },
        { TEMPLATE(TEXT ", " SPECIAL("<eos>")), "", -1, "puts token 1 behind" },
        { TEMPLATE(SPECIAL("<bos>") ", " TEXT ", " SPECIAL("<eos>")), "", 2, "token 1 behind" },
        { TEMPLATE(TEXT ", " TEXT), "", REFUSED, "\"TemplateProcessing\" of its tokenizer" },
        { TEMPLATE(SPECIAL("<pad>") ", " TEXT), "", REFUSED, "\"TemplateProcessing\" of its" },
        { "{\"type\": \"BertProcessing\", " CLS "}", "", 7, "puts token 1 behind" },
        { "{\"type\": \"RobertaProcessing\", " CLS "}", "", 7, "puts token 1 behind" },
        { BYTES, "", -1, NULL },
        { SEQUENCE(""), "", -1, NULL },
        { SEQUENCE(BYTES ", " TEMPLATE(SPECIAL("<bos>") ", " TEXT)), "", 2, NULL },
        { SEQUENCE(TEMPLATE(SPECIAL("<bos>") ", " TEXT) ", " BYTES), "", 2, NULL },
        { SEQUENCE(TEMPLATE(SPECIAL("<bos>") ", " TEXT) ", " TEMPLATE(SPECIAL("a") ", " TEXT)), "",
          REFUSED, "\"Sequence\" of its tokenizer" },
        { "{\"type\": \"Rot13\"}", "", REFUSED, "\"Rot13\" of its tokenizer" },
        // switches
        { TEMPLATE(TEXT), "\"add_bos_token\": true", -1, "add_bos_token true, and" },
        { TEMPLATE(TEXT), "\"add_bos_token\": false, \"add_eos_token\": false", -1, NULL },
        { TEMPLATE(SPECIAL("<bos>") ", " TEXT), "\"add_bos_token\": false", 2, "token false, and" },
        { TEMPLATE(SPECIAL("<bos>") ", " TEXT), "\"add_bos_token\": true", 2, NULL },
        { TEMPLATE(TEXT), "\"add_eos_token\": true", -1, "add_eos_token true, and" },
        { TEMPLATE(SPECIAL("<bos>") ", " TEXT), "\"tokenizer_class\": \"GPTNeoXTokenizer\"", -1,
          "tokenizer_class is GPTNeoXTokenizer" },
        { TEMPLATE(TEXT), "\"tokenizer_class\": \"GPTNeoXTokenizerFast\"", -1, NULL },
        // no post_processor: the versions of transformers differ
        { "null", "\"add_bos_token\": true", 2, "transformers 5 would leave bos out" },
        { "null", "\"add_bos_token\": false", -1, NULL },
        { "null", "\"add_bos_token\": false, \"split_special_tokens\": true", -1,
          "says split_special_tokens" },
        { "null", "\"add_bos_token\": false, \"split_special_tokens\": false", -1, NULL },
        { "null", "\"add_bos_token\": false, \"add_eos_token\": true", -1, "says add_eos_token" },
    };
    (void)state;
    for (size_t i = 0; i < 2 * QP_COUNT(cases); i++) {
        const size_t c = i / 2;
        quip_error error = { 0 };
        quip_model *model = NULL;
        const struct convert_options options = { .weights = CONVERT_F32, .on_note = keep_note };
        char config[200];
        write_folder(&sample_llama_tied, &plain);
        if (i % 2) // otherwise the SentencePiece model says the same about every token
            unlink(in_folder("hf/tokenizer.model"));
        post_processor = cases[c].post;
        write_json("", NORMALIZER_PLAIN);
        post_processor = "null";
        snprintf(config, sizeof config, "{%s}", cases[c].config);
        write_text("hf/tokenizer_config.json", config);
        noted[0] = 0;
        const quip_status status =
            qp_convert(in_folder("hf"), in_folder("out.bin"), &options, &error);
        const char *said = status ? error.message : noted;
        if (!status != (cases[c].bos != REFUSED) ||
            (cases[c].says ? !strstr(said, cases[c].says) : *said != 0))
            fail_msg("%s {%s}: \"%s\"", cases[c].post, cases[c].config, said);
        if (status)
            continue;
        quip_model_info info = { .struct_size = sizeof info };
        assert_int_equal(quip_model_open(&model, in_folder("out.bin"), NULL, &error), QUIP_OK);
        assert_int_equal(quip_model_get_info(model, &info, &error), QUIP_OK);
        if (info.bos != cases[c].bos)
            fail_msg("%s {%s}: bos is %d", cases[c].post, cases[c].config, info.bos);
        quip_model_close(model);
    }
}

/* A chat begins with bos, too, unless its template spells it; transformers leaves bos out there. */
static void test_bos_of_chats(void **state)
{
    static const struct {
        const char *begin;
        bool is_said;
    } cases[] = { { "{{ bos_token }}", false },
                  { "<bos>", false },
                  { "", true },
                  { "<eos>{{ bos_token }}", true } };
    (void)state;
    write_folder(&sample_llama_tied, &plain);
    post_processor = TEMPLATE(SPECIAL("<bos>") ", " TEXT);
    write_json("", NORMALIZER_PLAIN);
    post_processor = "null";
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        quip_error error = { 0 };
        const struct convert_options options = { .weights = CONVERT_F32, .on_note = keep_note };
        char config[300];
        snprintf(config, sizeof config,
                 "{\"bos_token\": \"<bos>\", \"chat_template\": \"%s{%% for m in messages %%}"
                 "<start_of_turn>{{ m.role }} {{ m.content }}<end_of_turn>{%% endfor %%}\"}",
                 cases[i].begin);
        write_text("hf/tokenizer_config.json", config);
        noted[0] = 0;
        if (qp_convert(in_folder("hf"), in_folder("out.bin"), &options, &error))
            fail_msg("%s", error.message);
        assert_int_equal(strstr(noted, "a chat begins with token 2, \"<bos>\"") != NULL,
                         cases[i].is_said);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_sample_folder, drop_sample_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_added_tokens_file),
        TEST(test_sections),
        TEST(test_added_tokens_decoder),
        TEST(test_json_beside_model),
        TEST(test_rows_of_the_embedding),
        TEST(test_contradictions),
        TEST(test_impostors),
        TEST(test_no_tokenizer),
        TEST(test_python_json),
        TEST(test_tokens_around_a_text),
        TEST(test_bos_of_chats),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
