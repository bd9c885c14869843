/* broken.c: checkpoints with one defect each. None is converted, none does harm, and the message
 * says what is wrong. */
#include "convert/convert.h"
#include "tokenizer/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/shared.h"
#include "support/tokenizers.h"

#define FOLDER "test-broken"
#define OUT FOLDER ".bin"

/* ---- the valid checkpoint: a Llama of one layer, all weights equal ---- */

#define CONFIG                                                                                     \
    "{\"model_type\": \"llama\", \"num_hidden_layers\": 1, \"hidden_size\": 8, "                   \
    "\"intermediate_size\": 12, \"num_attention_heads\": 2, \"num_key_value_heads\": 1, "          \
    "\"head_dim\": 4, \"vocab_size\": 260, \"rms_norm_eps\": 1e-5, \"rope_theta\": 10000, "        \
    "\"tie_word_embeddings\": true, \"bos_token_id\": 1, \"eos_token_id\": 2}"
#define LAYER "\"model.layers.0."
#define ENTRY(shape, begin, end)                                                                   \
    "{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end "]}"
// clang-format off
#define HEADER \
    "{\"model.embed_tokens.weight\":" ENTRY("[260,8]", 0, 8320) "," \
    LAYER "input_layernorm.weight\":" ENTRY("[8]", 8320, 8352) "," \
    LAYER "self_attn.q_proj.weight\":" ENTRY("[8,8]", 8352, 8608) "," \
    LAYER "self_attn.k_proj.weight\":" ENTRY("[4,8]", 8608, 8736) "," \
    LAYER "self_attn.v_proj.weight\":" ENTRY("[4,8]", 8736, 8864) "," \
    LAYER "self_attn.o_proj.weight\":" ENTRY("[8,8]", 8864, 9120) "," \
    LAYER "post_attention_layernorm.weight\":" ENTRY("[8]", 9120, 9152) "," \
    LAYER "mlp.gate_proj.weight\":" ENTRY("[12,8]", 9152, 9536) "," \
    LAYER "mlp.up_proj.weight\":" ENTRY("[12,8]", 9536, 9920) "," \
    LAYER "mlp.down_proj.weight\":" ENTRY("[8,12]", 9920, 10304) "," \
    "\"model.norm.weight\":" ENTRY("[8]", 10304, 10336) "}"
// clang-format on
#define N_DATA 10336

static void write_to(const char *name, const void *data, size_t n)
{
    char path[200];
    snprintf(path, sizeof path, FOLDER "/%s", name);
    save_file(path, data, n);
}

static void write_weights(const char *name, const char *header, size_t n_data)
{
    struct bytes all = { 0 };
    const uint64_t n = strlen(header);
    assert_true(qp_bytes_append(&all, &n, 8) && qp_bytes_append(&all, header, (size_t)n) &&
                qp_bytes_reserve(&all, n_data + 1));
    memset(all.data + all.n, 0x3c, n_data); // 0.0115 as F32; a file of zeros is refused
    write_to(name, all.data, all.n + n_data);
    qp_bytes_close(&all);
}

static int clear(void **state)
{
    (void)state;
    unlink(OUT);
    return system("rm -rf " FOLDER);
}

static void write_whole(void)
{
    clear(NULL);
    assert_int_equal(mkdir(FOLDER, 0777), 0);
    write_to("config.json", CONFIG, strlen(CONFIG));
    write_weights("model.safetensors", HEADER, N_DATA);
    save_byte_tokenizer(FOLDER "/tokenizer.model");
}

/* ---- defects ---- */

/* The text with the first `from` replaced by `to`. The caller frees it. */
static char *replaced(const char *text, const char *from, const char *to)
{
    const char *at = strstr(text, from);
    struct bytes out = { 0 };
    assert_non_null(at);
    assert_true(qp_bytes_printf(&out, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from)));
    return (char *)out.data;
}

/* The conversion fails in this way, and leaves no file. */
static void check_fails(const char *case_name, const char *message)
{
    quip_error error = { 0 };
    struct stat st;
    if (qp_convert(FOLDER, OUT, NULL, &error) == QUIP_OK)
        fail_msg("%s: the conversion succeeded", case_name);
    if (!strstr(error.message, message))
        fail_msg("%s: \"%s\" is not in \"%s\"", case_name, message, error.message);
    assert_int_not_equal(stat(OUT, &st), 0);
}

struct replacement {
    const char *from, *to, *message;
};

static void test_whole(void **state)
{
    (void)state;
    quip_error error = { 0 };
    write_whole();
    if (qp_convert(FOLDER, OUT, NULL, &error))
        fail_msg("%s", error.message);
}

#define UP LAYER "mlp.up_proj.weight\":" ENTRY("[12,8]", 9536, 9920)
#define UP_AS(dtype, shape)                                                                        \
    LAYER "mlp.up_proj.weight\":{\"dtype\":" dtype ",\"shape\":" shape                             \
          ",\"data_offsets\":[9536,9920]}"

static void test_headers(void **state)
{
    (void)state;
    static const struct replacement cases[] = {
        // types
        { UP, UP_AS("\"I32\"", "[12,8]"), "unreadable: model.layers.0.mlp.up_proj.weight (I32)" },
        { UP, UP_AS("\"F64\"", "[12,4]"), "mlp.up_proj.weight is [12, 4], not [12, 8]" },
        { UP, UP_AS("\"F8_E4M3\"", "[48,8]"), "mlp.up_proj.weight is [48, 8], not [12, 8]" },
        { UP, UP_AS("\"U8\"", "[12,8]"), "mlp.up_proj.weight" },
        { UP, UP_AS("32", "[12,8]"), "expected" },
        // shapes
        { "[12,8]", "[8,12]",
          "misshapen: model.layers.0.mlp.gate_proj.weight is [8, 12], not [12, 8]" },
        { "[12,8]", "[96]", "mlp.gate_proj.weight is [96], not [12, 8]" },
        { "[12,8]", "[2,2,3,8]", "mlp.gate_proj.weight is [2, 2, 3, 8], not [12, 8]" },
        { "[12,8]", "[1,1,1,12,8]", "shape" },
        { "[12,8]", "[]", "expected whole elements, as many as in its shape" },
        { "[12,8]", "[-12,8]", "expected" },
        { "[12,8]", "[12.0,8]", "expected" },
        { "[12,8]", "[4294967296,4294967296]", "expected whole elements, as many as in its shape" },
        { "[12,8]", "[4611686018427387928,8]", "expected whole elements, as many as in its shape" },
        { "[12,8]", "[99999999999999999999999,8]", "expected" },
        { "[260,8]", "[520,4]", "embed_tokens.weight is [520, 4], not [260, 8]" },
        // offsets
        { "[9536,9920]", "[9152,9536]", "begins at byte" },         // over the tensor before
        { "[9536,9920]", "[9540,9924]", "begins at byte" },         // partly over the next
        { "[9536,9920]", "[9920,9536]", "is the file truncated?" }, // backwards
        { "[9536,9920]", "[9536,9924]", "expected whole elements, as many as in its shape" },
        { "[9536,9920]", "[9537,9921]", "expected whole elements, as many as in its shape" },
        { "[9536,9920]", "[9536,18446744073709551615]", "is the file truncated?" },
        { "[9536,9920]", "[18446744073709551232,0]", "is the file truncated?" },
        { "[10304,10336]", "[10304,20672]", "is the file truncated?" },
        // names
        { "up_proj", "gate_proj", "has two tensors named model.layers.0.mlp.gate_proj.weight" },
        { "mlp.up_proj", "mlp.upp_proj", "missing: model.layers.0.mlp.up_proj.weight" },
        { "mlp.up_proj", "mlp.upp_proj", "not known: model.layers.0.mlp.upp_proj.weight" },
        { "model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj", "missing" },
        { "model.layers.0.mlp.up_proj", "", "missing" },
        { "model.layers.0.mlp.up_proj", "\\ud800", "model.safetensors" },
        { "model.norm.weight", "model.embed_tokens.weight",
          "has two tensors named model.embed_tokens.weight" },
        // JSON
        { "{", "", "model.safetensors" },
        { "{", "[", "model.safetensors" },
        { "{", "{{", "model.safetensors" },
        { "}}", "}", "model.safetensors" },
        { "}}", "}}}", "model.safetensors" },
        { "\"shape\"", "\"shape\":[8],\"shape\"", "each once" },
        { "\"shape\"", "\"form\"", "expected" },
        { "\"data_offsets\":[0,8320]", "\"data_offsets\":[0]", "expected" },
        { "\"dtype\":\"F32\",", "", "expected" },
        { "{\"model.embed", "{\"__metadata__\":{\"a\":1},\"model.embed", "__metadata__" },
        { "{\"model.embed", "{\"__metadata__\":[[[[]]]],\"model.embed", "expected" },
    };
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        write_whole();
        char *header = replaced(HEADER, cases[i].from, cases[i].to);
        write_weights("model.safetensors", header, N_DATA);
        check_fails(cases[i].to, cases[i].message);
        free(header);
    }
}

/* n times the text. The caller frees it. */
static char *repeated(const char *text, size_t n)
{
    struct bytes out = { 0 };
    for (size_t i = 0; i < n; i++)
        assert_true(qp_bytes_append_text(&out, text));
    assert_true(qp_bytes_append(&out, "", 1));
    return (char *)out.data;
}

static void test_sizes_of_files(void **state)
{
    (void)state;
    static const uint64_t lengths[] = { 0, 1, 100000, 1ull << 40, 1ull << 63, UINT64_MAX };
    write_whole();
    write_weights("model.safetensors", HEADER, N_DATA - 1);
    check_fails("cut", "is the file truncated?");
    write_weights("model.safetensors", HEADER, N_DATA + 4);
    check_fails("more data", "the tensors end at byte");
    write_weights("model.safetensors", "{}", 0);
    check_fails("no tensors", "missing: model.embed_tokens.weight, ");
    write_to("model.safetensors", "", 0);
    check_fails("empty", "model.safetensors");
    for (size_t i = 0; i < QP_COUNT(lengths); i++) {
        write_to("model.safetensors", &lengths[i], 8);
        check_fails("length alone", "model.safetensors");
    }
    for (size_t i = 0; i < QP_COUNT(lengths); i++) { // lengths of the header, in a complete file
        struct bytes all = { 0 };
        assert_true(qp_bytes_append(&all, &lengths[i], 8) &&
                    qp_bytes_append(&all, HEADER, strlen(HEADER)));
        write_to("model.safetensors", all.data, all.n);
        check_fails("length", "model.safetensors");
        qp_bytes_close(&all);
    }
    // a header with a million levels
    char *deep = repeated("{\"a\":", 1000000);
    write_weights("model.safetensors", deep, 0);
    check_fails("deep header", "expected");
    write_weights("model.safetensors", HEADER, N_DATA);
    write_to("config.json", deep, strlen(deep));
    check_fails("deep config", "config.json: is not JSON");
    free(deep);
    // a name of a megabyte
    write_whole();
    char *name = repeated("n", 1 << 20), *header = replaced(HEADER, "model.norm.weight", name);
    write_weights("model.safetensors", header, N_DATA);
    check_fails("long name", "missing: model.norm.weight");
    free(header);
    free(name);
}

static void test_configs(void **state)
{
    (void)state;
    static const struct replacement cases[] = {
        { "\"llama\"", "\"mamba\"",
          "model_type \"mamba\" cannot be converted; supported are llama, gemma, gemma2, " },
        { "\"llama\"", "7", "model_type \"\" cannot be converted" },
        { "\"model_type\"", "\"kind\"", "model_type \"\" cannot be converted" },
        { "\"hidden_size\": 8", "\"hidden_size\": 0", "model width is 0" },
        { "\"hidden_size\": 8", "\"hidden_size\": 2147483647", "model width is 2147483647" },
        { "\"hidden_size\": 8", "\"hidden_size\": 4294967304", "hidden_size is 4.29497e+09" },
        { "\"hidden_size\": 8", "\"hidden_size\": 1e999", "hidden_size" },
        { "\"hidden_size\": 8", "\"hidden_size\": -8", "hidden_size is -8" },
        { "\"hidden_size\": 8", "\"hidden_size\": [8]", "hidden_size is not a number" },
        { "\"hidden_size\": 8", "\"hidden_size\": null", "has no hidden_size" },
        { "\"num_attention_heads\": 2", "\"num_attention_heads\": 0", "number of heads is 0" },
        { "\"num_attention_heads\": 2", "\"num_attention_heads\": 65536",
          "number of heads is 65536" },
        { "\"head_dim\": 4", "\"head_dim\": 65536", "head size is 65536" },
        { "\"head_dim\": 4", "\"head_dim\": 5", "must be an even number" },
        { "\"num_key_value_heads\": 1", "\"num_key_value_heads\": 0", "key-value heads is 0" },
        { "\"num_key_value_heads\": 1", "\"num_key_value_heads\": 4",
          "are not a multiple of its 4 key-value heads" },
        { "\"num_hidden_layers\": 1", "\"num_hidden_layers\": 1000000000", "must be at most 512" },
        { "\"num_hidden_layers\": 1", "\"num_hidden_layers\": 512", "and 4596 more" },
        { "\"num_hidden_layers\": 1", "\"num_hidden_layers\": 0", "number of layers is 0" },
        { "\"vocab_size\": 260", "\"vocab_size\": 100", "its tokenizer has 259 pieces" },
        { "\"vocab_size\": 260", "\"vocab_size\": 2000000000", "vocabulary size is 2000000000" },
        { "\"vocab_size\": 260", "\"vocab_size\": 261",
          "embed_tokens.weight is [260, 8], not [261, 8]" },
        { "\"rms_norm_eps\": 1e-5", "\"rms_norm_eps\": -1", "not all in range" },
        { "\"rope_theta\": 10000", "\"rope_theta\": 1e400", "not all in range" },
        { "\"rope_theta\": 10000", "\"rope_theta\": 1, \"rope_scaling\": {\"type\": \"mrope\"}",
          "rope type \"mrope\" is not supported" },
        { "\"rope_theta\": 10000", "\"rope_parameters\": {\"rope_type\": \"longrope\"}",
          "original_max_position_embeddings of its rope is 0" },
        { "\"bos_token_id\": 1", "\"bos_token_id\": 100000",
          "token 100000 is not in the vocabulary" },
        { "\"eos_token_id\": 2", "\"eos_token_id\": [2, 999]",
          "stop token 999 is not in the vocabulary" },
        { "\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false",
          "missing: lm_head.weight" },
        { "}", "", "config.json: is not JSON" },
        { "}", "}}", "config.json: is not JSON" },
        // variants of families that are not supported
        { "\"llama\"", "\"falcon\"", "its tensors are not those of a falcon model" },
        { "\"llama\"", "\"phi\", \"qk_layernorm\": true", "qk_layernorm is true" },
        { "\"llama\"", "\"phi\", \"partial_rotary_factor\": 2", "of a head; must be 0 to" },
        { "\"llama\"", "\"phi\", \"partial_rotary_factor\": 0.8", "must be an even number" },
        { "\"llama\"", "\"phi\"", "missing: model.layers.0.input_layernorm.bias" },
        { "\"llama\"", "\"phi\", \"hidden_act\": \"sigmoid\"", "hidden_act is \"sigmoid\"" },
        { "\"llama\"", "\"gemma2\", \"layer_types\": []",
          "layer_types has 0 entries for 1 layers" },
        { "\"llama\"", "\"gemma2\", \"layer_types\": [\"mamba\"]", "layer 0 has type \"mamba\"" },
        { "\"llama\"", "\"gemma3_text\", \"sliding_window\": 0, \"sliding_window_pattern\": 2",
          "sliding-window layers, but the window is 0" },
    };
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        write_whole();
        char *config = replaced(CONFIG, cases[i].from, cases[i].to);
        write_to("config.json", config, strlen(config));
        check_fails(cases[i].to, cases[i].message);
        free(config);
    }
}

static void test_indexes(void **state)
{
    (void)state;
    static const struct replacement cases[] = {
        { "", "{}", "has no weight_map" },
        { "", "{\"weight_map\": {}}", "has no weight_map" },
        { "", "{\"weight_map\": []}", "has no weight_map" },
        { "", "{\"weight_map\": {\"a\": 1}}", "a has no file name of this folder" },
        { "", "{\"weight_map\": {\"a\": null}}", "a has no file name of this folder" },
        { "", "{\"weight_map\": {\"a\": \"../a\"}}", "a has no file name of this folder" },
        { "", "{\"weight_map\": {\"a\": \"/etc/passwd\"}}", "a has no file name of this folder" },
        { "", "{\"weight_map\": {\"a\": \"b\\\\c\"}}", "a has no file name of this folder" },
        { "", "{\"weight_map\": {\"a\": \"\"}}", FOLDER },
        { "", "{\"weight_map\": {\"a\": \".\"}}", "is not a regular file" },
        { "", "{\"weight_map\": {\"a\": \"missing.safetensors\"}}",
          "names missing.safetensors, which is not there" },
        // a file that names itself; two that name each other; a link to itself
        { "", "{\"weight_map\": {\"a\": \"model.safetensors.index.json\"}}",
          "model.safetensors.index.json: " },
        { "", "{\"weight_map\": {\"a\": \"other.index.json\"}}", "other.index.json: " },
        { "", "{\"weight_map\": {\"a\": \"loop\"}}", "names loop, which is not there" },
        { "", "{\"weight_map\": {\"a\": \"config.json\"}}", "config.json: " },
        { "", "{\"weight_map\": {\"a\": \"tokenizer.model\"}}", "tokenizer.model: " },
        // one file with two names
        { "", "{\"weight_map\": {\"a\": \"part.safetensors\", \"b\": \"link.safetensors\"}}",
          "there twice: model.embed_tokens.weight, " },
        { "", "{\"weight_map\": {\"a\": \"half.safetensors\"}}", "missing: model.layers.0." },
    };
    static const char other[] = "{\"weight_map\": {\"a\": \"model.safetensors.index.json\"}}";
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        write_whole();
        assert_int_equal(rename(FOLDER "/model.safetensors", FOLDER "/part.safetensors"), 0);
        write_to("other.index.json", other, strlen(other));
        write_weights("half.safetensors",
                      "{\"model.embed_tokens.weight\":" ENTRY("[260,8]", 0, 8320) "}", 8320);
        assert_int_equal(symlink("loop", FOLDER "/loop"), 0);
        assert_int_equal(symlink("part.safetensors", FOLDER "/link.safetensors"), 0);
        write_to("model.safetensors.index.json", cases[i].to, strlen(cases[i].to));
        check_fails(cases[i].to, cases[i].message);
    }
}

/* A pattern that matches too many files. */
static void test_index_of_thousands(void **state)
{
    (void)state;
    struct bytes index = { 0 };
    write_whole();
    unlink(FOLDER "/model.safetensors"); // it would come first
    assert_true(qp_bytes_append_text(&index, "{\"weight_map\": {"));
    for (int i = 0; i < 2000; i++) {
        char name[32];
        snprintf(name, sizeof name, "%d.safetensors", i);
        write_weights(name, "{}", 0);
        assert_true(qp_bytes_printf(&index, "%s\"%d\": \"%s\"", i ? ", " : "", i, name));
    }
    assert_true(qp_bytes_append_text(&index, "}}"));
    write_to("model.safetensors.index.json", index.data, index.n);
    check_fails("2000 files", "has more than 1024 files");
    qp_bytes_close(&index);
}

static void test_missing_parts(void **state)
{
    (void)state;
    static const char json[] = "{\"model\": {\"type\": \"WordPiece\"}}";
    write_whole();
    unlink(FOLDER "/tokenizer.model");
    check_fails("no tokenizer",
                "has no tokenizer; expected tokenizer.model, tokenizer.json or vocab.txt");
    write_to("tokenizer.model", "", 0);
    check_fails("empty tokenizer", "");
    write_to("tokenizer.model", "nonsense", 8);
    check_fails("no tokenizer's bytes", "");
    unlink(FOLDER "/tokenizer.model");
    write_to("tokenizer.json", json, strlen(json));
    check_fails("other tokenizer", "its model is \"WordPiece\"");
    write_whole();
    unlink(FOLDER "/model.safetensors");
    check_fails("no weights", "has no weights; expected *.safetensors");
    write_to("pytorch_model.bin", "PK", 2);
    check_fails("a cut archive", "pytorch_model.bin: begins as a ZIP archive");
    unlink(FOLDER "/pytorch_model.bin");
    write_to("model.safetensors", "<!doctype html>", 15);
    check_fails("a page", "model.safetensors: is a web page");
    write_whole();
    unlink(FOLDER "/config.json");
    check_fails("no config", "has no config.json");
}

/* Converting a model file again gives the same file, or reports its defect. */
static void test_model_file(void **state)
{
    (void)state;
    quip_error error = { 0 };
    size_t n[2];
    write_whole();
    assert_int_equal(qp_convert(FOLDER, OUT, NULL, &error), QUIP_OK);
    if (qp_convert(OUT, FOLDER "/b.bin", NULL, &error))
        fail_msg("%s", error.message);
    char *a = read_whole(OUT, &n[0]), *b = read_whole(FOLDER "/b.bin", &n[1]);
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(a, b, n[0]);
    a[20] ^= 0x55; // in the flatbuffer
    write_to("c.bin", a, n[0]);
    assert_int_not_equal(qp_convert(FOLDER "/c.bin", FOLDER "/d.bin", NULL, &error), QUIP_OK);
    write_to("c.bin", b, 40);
    assert_int_not_equal(qp_convert(FOLDER "/c.bin", FOLDER "/d.bin", NULL, &error), QUIP_OK);
    free(a);
    free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),          cmocka_unit_test(test_headers),
        cmocka_unit_test(test_sizes_of_files), cmocka_unit_test(test_configs),
        cmocka_unit_test(test_indexes),        cmocka_unit_test(test_index_of_thousands),
        cmocka_unit_test(test_missing_parts),  cmocka_unit_test(test_model_file),
    };
    return cmocka_run_group_tests(tests, NULL, clear);
}
