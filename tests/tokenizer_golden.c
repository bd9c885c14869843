/* tokenizer_golden.c: the tokenizer gives the ids and texts of the reference for every case in
 * shared/data/tokenizers and shared/data/golden-2, for the vocabularies listed at the end: from
 * their own files, and from GGUF metadata made from these. */
#include "convert/convert.h"
#include "tokenizer/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <unistd.h>

#include <cmocka.h>

#include "support/gguf_tokenizer.h"
#include "support/shared.h"

/* ---- reading the reference data ---- */

static bool read_all(FILE *f, struct bytes *out)
{
    for (;;) {
        if (!qp_bytes_reserve(out, 1 << 16))
            return false;
        size_t n = fread(out->data + out->n, 1, 1 << 16, f);
        out->n += n;
        if (n == 0)
            return out->n > 0;
    }
}

/* An unpacked file of a vocabulary's folder. Without the data the test is skipped. */
static void read_shared(const char *folder, const char *name, struct bytes *out)
{
    static const char *const packers[][2] = { { ".gz", "gzip -dc" },
                                              { ".xz", "xz -dc" },
                                              { "", "cat" } };
    char path[1400], command[1500];
    need_shared("data/tokenizers");
    const char *root = shared_path("data/tokenizers");
    *out = (struct bytes){ 0 };
    for (size_t i = 0; i < QP_COUNT(packers); i++) {
        snprintf(path, sizeof path, "%s/%s/%s%s", root, folder, name, packers[i][0]);
        if (access(path, R_OK) != 0)
            continue;
        snprintf(command, sizeof command, "%s '%s'", packers[i][1], path);
        FILE *f = popen(command, "r");
        assert_non_null(f);
        assert_true(read_all(f, out));
        assert_int_equal(pclose(f), 0);
        return;
    }
    fail_msg("%s/%s/%s is missing", root, folder, name);
}

static int base64_digit(char c)
{
    const char *digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *found = c ? strchr(digits, c) : NULL;
    return found ? (int)(found - digits) : -1;
}

static void unbase64(const char *s, struct bytes *out)
{
    uint32_t bits = 0;
    int n_bits = 0;
    for (; base64_digit(*s) >= 0; s++) {
        bits = bits << 6 | (uint32_t)base64_digit(*s);
        n_bits += 6;
        if (n_bits >= 8) {
            n_bits -= 8;
            uint8_t byte = (uint8_t)(bits >> n_bits);
            assert_true(qp_bytes_append(out, &byte, 1));
        }
    }
}

/* Strings of cJSON end with a NUL and cannot contain one. So the data has U+10ABCD instead of
 * \u0000, which is replaced here. */
#define NUL_STAND_IN "\xf4\x8a\xaf\x8d"

static void put_json_text(const char *s, struct bytes *out)
{
    while (*s) {
        const char *nul = strstr(s, NUL_STAND_IN);
        size_t n = nul ? (size_t)(nul - s) : strlen(s);
        assert_true(qp_bytes_append(out, s, n));
        s += n;
        if (nul) {
            assert_true(qp_bytes_append(out, "", 1));
            s += strlen(NUL_STAND_IN);
        }
    }
}

static cJSON *parse_case(const char *line, size_t n)
{
    struct bytes text = { 0 };
    for (size_t i = 0; i < n; i++) {
        if (line[i] == '\\' && n - i >= 6 && memcmp(line + i, "\\u0000", 6) == 0) {
            assert_true(qp_bytes_append_text(&text, "\\udbea\\udfcd"));
            i += 5;
        } else {
            assert_true(qp_bytes_append(&text, line + i, line[i] == '\\' && i + 1 < n ? 2 : 1));
            i += line[i] == '\\';
        }
    }
    cJSON *json = cJSON_ParseWithLength((const char *)text.data, text.n);
    qp_bytes_close(&text);
    return json;
}

/* Text as valid UTF-8: each maximal malformed part becomes one U+FFFD. */
static void repair_text(struct bytes *text)
{
    struct bytes repaired = { 0 };
    for (size_t i = 0, length; i < text->n; i += length) {
        const char *s = (const char *)text->data + i;
        int32_t c;
        length = (size_t)qp_utf8_decode(s, text->n - i, &c);
        while (c < 0 && i + length < text->n && length < 3 && qp_utf8_complete(s, length + 1) == 0)
            length++;
        assert_true(c < 0 ? qp_bytes_append_text(&repaired, "\xef\xbf\xbd")
                          : qp_bytes_append(&repaired, s, length));
    }
    qp_bytes_close(text);
    *text = repaired;
}

/* The text of the field, or of its base64 form. */
static bool case_text(const cJSON *json, const char *field, const char *base64, struct bytes *out)
{
    *out = (struct bytes){ 0 };
    const cJSON *text = cJSON_GetObjectItem(json, field);
    if (text)
        put_json_text(text->valuestring, out);
    else if ((text = cJSON_GetObjectItem(json, base64)))
        unbase64(text->valuestring, out);
    return text != NULL;
}

/* ---- comparing ---- */

static bool ids_equal(const struct tokens *ids, const cJSON *want)
{
    int i = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, want)
    {
        if (i >= ids->n || ids->ids[i] != item->valueint)
            return false;
        i++;
    }
    return i == ids->n;
}

static void decode_all(const struct tokenizer *t, const quip_token *ids, int n, struct bytes *out)
{
    struct detokenizer d = { 0 };
    *out = (struct bytes){ 0 };
    for (int i = 0; i < n; i++) {
        assert_true(qp_detokenize(t, &d, ids[i], out));
        assert_int_equal(qp_utf8_complete((const char *)out->data, out->n), out->n);
    }
    assert_true(qp_detokenize_end(t, &d, out));
}

static bool has_control(const struct tokenizer *t, const struct tokens *ids)
{
    for (int i = 0; i < ids->n; i++)
        if (qp_tokenizer_is_control(t, ids->ids[i]))
            return true;
    return false;
}

struct tally {
    int n_cases, n_wrong;
};

static void note_wrong(struct tally *tally, const char *folder, const char *what, const cJSON *json,
                       const struct tokens *ids)
{
    if (tally->n_wrong++ >= 5)
        return;
    const cJSON *id = cJSON_GetObjectItem(json, "id");
    print_message("%s %s: wrong %s:", folder, id->valuestring, what);
    for (int i = 0; i < ids->n && i < 40; i++)
        print_message(" %d", (int)ids->ids[i]);
    print_message("\n");
}

/* There are no Hugging Face ids for malformed text. Only Hugging Face has Gemma 3's
 * <image_soft_token>, whose id is beyond the SentencePiece model. */
static bool is_not_comparable(const cJSON *json, const char *folder, const char *field)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItem(json, "text"));
    return (strcmp(field, "hf_ids") == 0 && !text) ||
           (text && strcmp(folder, "gemma3") == 0 && strstr(text, "<image_soft_token>"));
}

/* One case: the ids in the first of `fields` that exists (or one of two alternatives), and their
 * text. */
static void check_case(const struct tokenizer *t, const char *folder, const cJSON *json,
                       bool with_special, const char *const fields[3], struct tally *tally)
{
    struct bytes text, decoded, want_decoded;
    assert_true(case_text(json, "text", "b64", &text));
    const cJSON *want = NULL;
    for (int i = 0; i < 3 && fields[i] && !want; i++)
        want = cJSON_GetObjectItem(json, fields[i]);
    assert_non_null(want);
    if (is_not_comparable(json, folder, fields[0])) {
        qp_bytes_close(&text);
        return;
    }
    struct tokens ids = { 0 };
    quip_error error;
    assert_int_equal(
        qp_tokenizer_encode(t, (const char *)text.data, text.n, with_special, &ids, &error),
        QUIP_OK);
    tally->n_cases++;
    const cJSON *other = cJSON_GetObjectItem(json, "ids_0_2_0");
    if (!ids_equal(&ids, want) && !(other && ids_equal(&ids, other)))
        note_wrong(tally, folder, "ids", json, &ids);
    const cJSON *primary = cJSON_GetObjectItem(json, "ids");
    if (primary && ids_equal(&ids, primary) && !has_control(t, &ids) &&
        case_text(json, "decoded", "decoded_b64", &want_decoded)) {
        decode_all(t, ids.ids, ids.n, &decoded);
        repair_text(&want_decoded);
        if (decoded.n != want_decoded.n ||
            (decoded.n && memcmp(decoded.data, want_decoded.data, decoded.n) != 0)) {
            note_wrong(tally, folder, "decoded text", json, &ids);
            if (tally->n_wrong < 5)
                print_message("  got  [%.*s]\n  want [%.*s]\n", (int)decoded.n,
                              (const char *)decoded.data, (int)want_decoded.n,
                              (const char *)want_decoded.data);
        }
        qp_bytes_close(&decoded);
        qp_bytes_close(&want_decoded);
    }
    qp_tokens_close(&ids);
    qp_bytes_close(&text);
}

static void check_cases(const struct tokenizer *t, const char *folder, bool with_special,
                        const char *const fields[3])
{
    struct bytes cases;
    read_shared(folder, "cases.jsonl", &cases);
    struct tally tally = { 0 };
    const char *line = (const char *)cases.data, *end = line + cases.n;
    while (line < end) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        assert_non_null(newline);
        cJSON *json = parse_case(line, (size_t)(newline - line));
        assert_non_null(json);
        check_case(t, folder, json, with_special, fields, &tally);
        cJSON_Delete(json);
        line = newline + 1;
    }
    qp_bytes_close(&cases);
    print_message("%s%s: %d of %d cases\n", folder, with_special ? " with special" : "",
                  tally.n_cases - tally.n_wrong, tally.n_cases);
    assert_int_equal(tally.n_wrong, 0);
    assert_true(tally.n_cases > 1000);
}

/* ---- golden: SentencePiece ---- */

static void test_sentencepiece(void **state)
{
    const char *folder = *state;
    struct bytes spm;
    read_shared(folder, "tokenizer.model", &spm);
    struct tokenizer *t = NULL;
    quip_error error = { 0 };
    if (qp_tokenizer_open(&t, spm.data, spm.n, NULL, 0, &error))
        fail_msg("%s: %s", folder, error.message);
    if (strncmp(folder, "mp-", 3) == 0)
        qp_tokenizer_spell_bytes(t);
    check_cases(t, folder, false, (const char *[3]){ "ids" });
    if (strncmp(folder, "gemma", 5) == 0)
        check_cases(t, folder, true, (const char *[3]){ "hf_ids", "ids" });
    qp_tokenizer_close(t);
    qp_bytes_close(&spm);
}

/* ---- golden: imported tokenizer.json ---- */

static void write_file(const char *path, const struct bytes *content)
{
    save_file(path, content->data, content->n);
}

static void test_json(void **state)
{
    const char *folder = *state;
    struct bytes source, spm = { 0 }, blob = { 0 };
    char path[64];
    read_shared(folder, "tokenizer.json", &source);
    snprintf(path, sizeof path, "golden-%d.json", (int)getpid());
    write_file(path, &source);
    qp_bytes_close(&source);
    struct tokenizer *t = NULL;
    quip_error error = { 0 };
    quip_status status = qp_import_tokenizer_json(path, &spm, &blob, &error);
    unlink(path);
    if (status || qp_tokenizer_open(&t, spm.data, spm.n, blob.n ? blob.data : NULL, blob.n, &error))
        fail_msg("%s: %s", folder, error.message);
    if (strncmp(folder, "gemma", 5) == 0 ||
        strcmp(folder, "llama2") == 0) { // the ids are SentencePiece's
        check_cases(t, folder, false, (const char *[3]){ "ids" });
        check_cases(t, folder, true, (const char *[3]){ "hf_ids", "ids" });
    } else {
        check_cases(t, folder, true, (const char *[3]){ "ids", "lossy_ids" });
        check_cases(t, folder, false, (const char *[3]){ "ids_plain", "ids", "lossy_ids" });
    }
    qp_tokenizer_close(t);
    qp_bytes_close(&spm);
    qp_bytes_close(&blob);
}

/* ---- golden: GGUF metadata made from tokenizer.json ---- */

struct gguf_case {
    const char *folder, *pre; // tokenizer.ggml.pre
};

static void open_gguf(const cJSON *json, const char *pre, struct bytes *spm, struct bytes *blob,
                      struct tokenizer **t)
{
    struct bytes gguf = { 0 };
    struct file file;
    struct format format;
    quip_error error = { 0 };
    gguf_of_tokenizer_json(json, pre, &gguf);
    qp_file_open_memory(&file, gguf.data, gguf.n, "made.gguf");
    *spm = *blob = (struct bytes){ 0 };
    if (qp_format_open(&format, &file, &error) ||
        qp_import_tokenizer_gguf(&format, spm, blob, &error) ||
        qp_tokenizer_open(t, spm->data, spm->n, blob->data, blob->n, &error))
        fail_msg("%s", error.message);
    qp_format_close(&format);
    qp_file_close(&file);
    qp_bytes_close(&gguf);
}

static void test_gguf(void **state)
{
    const struct gguf_case *c = *state;
    struct bytes source, spm, blob;
    struct tokenizer *t = NULL;
    read_shared(c->folder, "tokenizer.json", &source);
    cJSON *json = cJSON_ParseWithLength((const char *)source.data, source.n);
    assert_non_null(json);
    open_gguf(json, c->pre, &spm, &blob, &t);
    check_cases(t, c->folder, true, (const char *[3]){ "ids", "lossy_ids" });
    qp_tokenizer_close(t);
    cJSON_Delete(json);
    qp_bytes_close(&source);
    qp_bytes_close(&spm);
    qp_bytes_close(&blob);
}

/* ---- golden-2 ---- */

static cJSON *read_golden2(const char *folder, const char *name)
{
    char path[200];
    size_t n;
    snprintf(path, sizeof path, "data/golden-2/%s/%s", folder, name);
    need_shared(path);
    char *text = read_whole(shared_path(path), &n);
    cJSON *json = parse_case(text, n);
    assert_non_null(json);
    free(text);
    return json;
}

static void check_golden2(const struct tokenizer *t, const char *folder, const cJSON *cases,
                          const char *text_key)
{
    const cJSON *c;
    cJSON_ArrayForEach(c, cases)
    {
        struct tokens ids = { 0 };
        struct bytes text = { 0 };
        quip_error error;
        put_json_text(cJSON_GetObjectItem(c, text_key)->valuestring, &text);
        assert_int_equal(
            qp_tokenizer_encode(t, (const char *)text.data, text.n, true, &ids, &error), QUIP_OK);
        if (!ids_equal(&ids, cJSON_GetObjectItem(c, "ids")))
            fail_msg("%s: wrong ids of \"%.*s\"", folder, (int)text.n, (const char *)text.data);
        qp_tokens_close(&ids);
        qp_bytes_close(&text);
    }
}

/* The texts of the folder, and the renderings of its chat template. */
static void check_folder(const struct tokenizer *t, const char *folder)
{
    cJSON *cases = read_golden2(folder, "tokenizer_cases.json");
    check_golden2(t, folder, cJSON_GetObjectItem(cases, "cases"), "text");
    cJSON_Delete(cases);
    char path[200];
    snprintf(path, sizeof path, "data/golden-2/%s/chat_cases.json", folder);
    if (access(shared_path(path), R_OK) != 0)
        return;
    cases = read_golden2(folder, "chat_cases.json");
    const cJSON *list = cJSON_IsArray(cases) ? cases : cJSON_GetObjectItem(cases, "cases");
    assert_true(cJSON_GetArraySize(list) > 0);
    check_golden2(t, folder, list, cJSON_GetObjectItem(list->child, "text") ? "text" : "rendered");
    cJSON_Delete(cases);
}

static void test_golden2(void **state)
{
    const struct gguf_case *c = *state;
    struct bytes spm = { 0 }, blob = { 0 };
    struct tokenizer *t = NULL;
    quip_error error = { 0 };
    char path[200];
    snprintf(path, sizeof path, "data/golden-2/%s/tokenizer.json", c->folder);
    need_shared(path);
    if (qp_import_tokenizer_json(shared_path(path), &spm, &blob, &error) ||
        qp_tokenizer_open(&t, spm.data, spm.n, blob.n ? blob.data : NULL, blob.n, &error))
        fail_msg("%s: %s", c->folder, error.message);
    check_folder(t, c->folder);
    qp_tokenizer_close(t);
    qp_bytes_close(&spm);
    qp_bytes_close(&blob);
    if (!c->pre)
        return;
    cJSON *json = read_golden2(c->folder, "tokenizer.json");
    open_gguf(json, c->pre, &spm, &blob, &t);
    check_folder(t, c->folder);
    qp_tokenizer_close(t);
    qp_bytes_close(&spm);
    qp_bytes_close(&blob);
    cJSON_Delete(json);
}

/* GGUF files of llama.cpp's converter. */
static void test_golden2_gguf(void **state)
{
    const char *folder = *state;
    struct file file;
    struct format format;
    struct bytes spm = { 0 }, blob = { 0 };
    struct tokenizer *t = NULL;
    quip_error error = { 0 };
    char path[200];
    snprintf(path, sizeof path, "data/golden-2/%s/gguf/model.gguf", folder);
    need_shared(path);
    if (qp_file_open(&file, shared_path(path), &error) || qp_format_open(&format, &file, &error) ||
        qp_import_tokenizer_gguf(&format, &spm, &blob, &error) ||
        qp_tokenizer_open(&t, spm.data, spm.n, blob.n ? blob.data : NULL, blob.n, &error))
        fail_msg("%s: %s", folder, error.message);
    check_folder(t, folder);
    qp_tokenizer_close(t);
    qp_format_close(&format);
    qp_file_close(&file);
    qp_bytes_close(&spm);
    qp_bytes_close(&blob);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define SENTENCEPIECE(folder) { folder, test_sentencepiece, NULL, NULL, (void *)folder }
        SENTENCEPIECE("gemma3"),
        SENTENCEPIECE("gemma1-2"),
        SENTENCEPIECE("llama2"),
        SENTENCEPIECE("sp-bpe-crossws"),
        SENTENCEPIECE("sp-bpe-customnorm"),
        SENTENCEPIECE("sp-bpe-llamalike"),
        SENTENCEPIECE("sp-bpe-nfkc-cf"),
        SENTENCEPIECE("sp-bpe-suffix"),
        SENTENCEPIECE("sp-bpe-ties"),
        SENTENCEPIECE("sp-bpe-unused"),
        SENTENCEPIECE("sp-char"),
        SENTENCEPIECE("sp-word"),
        SENTENCEPIECE("sp-litert-en"),
        SENTENCEPIECE("sp-test-en"),
        SENTENCEPIECE("sp-test-ja"),
        SENTENCEPIECE("sp-uni-bytefallback"),
        SENTENCEPIECE("sp-uni-raw"),
        SENTENCEPIECE("sp-uni-suffix"),
        SENTENCEPIECE("sp-uni-ties"),
        SENTENCEPIECE("sp-uni-unused"),
        SENTENCEPIECE("mp-falcon-rw"),
        SENTENCEPIECE("mp-phi2"),
        SENTENCEPIECE("mp-stablelm"),
#define JSON(folder) { folder " json", test_json, NULL, NULL, (void *)folder }
        JSON("gemma1-2"),
        JSON("gemma3"),
        JSON("llama2"),
        JSON("gpt2-falcon-rw"),
        JSON("phi2"),
        JSON("smollm2"),
        JSON("llama3"),
        JSON("neox-stablelm"),
        JSON("hf-bl-digits"),
        JSON("hf-bl-flags"),
        JSON("hf-bl-llama3"),
        JSON("hf-bl-prefix"),
        JSON("hf-bl-qwen2"),
        JSON("hf-metaspace-always"),
        JSON("hf-metaspace-always-nosplit"),
        JSON("hf-metaspace-first"),
        JSON("hf-metaspace-first-nosplit"),
        JSON("hf-metaspace-never"),
        JSON("hf-metaspace-never-nosplit"),
        JSON("hf-spm-legacy"),
        JSON("hf-unigram-t5"),
        JSON("hf-clip"),
        JSON("hf-punct"),
#define GGUF(folder, pre)                                                                          \
    {                                                                                              \
        folder " gguf " pre, test_gguf, NULL, NULL, &(struct gguf_case)                            \
        {                                                                                          \
            folder, pre                                                                            \
        }                                                                                          \
    }
        GGUF("gpt2-falcon-rw", "gpt-2"),
        GGUF("smollm2", "smollm"),
        GGUF("llama3", "llama-bpe"),
        GGUF("neox-stablelm", "olmo"),
        GGUF("hf-bl-digits", "starcoder"),
        GGUF("hf-bl-llama3", "llama3"),
        GGUF("hf-bl-qwen2", "qwen2"),
#define GOLDEN2(folder, pre)                                                                       \
    {                                                                                              \
        "golden-2 " folder, test_golden2, NULL, NULL, &(struct gguf_case)                          \
        {                                                                                          \
            folder, pre                                                                            \
        }                                                                                          \
    }
        GOLDEN2("cohere", "command-r"),
        GOLDEN2("falcon7b", "falcon"),
        GOLDEN2("gemma3-embedding", NULL),
        GOLDEN2("gemma4-dense", NULL),
        GOLDEN2("gemma4-e2b", NULL),
        GOLDEN2("gemma4-moe", NULL),
        GOLDEN2("gpt2", "gpt-2"),
        GOLDEN2("gptneox", "mpt"),
        GOLDEN2("granite", "refact"),
        GOLDEN2("lfm2", "lfm2"),
        GOLDEN2("llama-bias", NULL),
        GOLDEN2("llama3", "llama-v3"),
        GOLDEN2("mistral", NULL),
        GOLDEN2("mistral-nemo", "tekken"),
        GOLDEN2("olmo2", "dbrx"),
        GOLDEN2("phi3", NULL),
        GOLDEN2("phi4-mini", "gpt-4o"),
        GOLDEN2("qwen2", "qwen2"),
        GOLDEN2("qwen2-moe", "qwen2"),
        GOLDEN2("qwen2-untied", "deepseek-r1-qwen"),
        GOLDEN2("qwen3", "qwen2"),
        GOLDEN2("qwen3-embedding", "qwen2"),
        GOLDEN2("qwen3-moe", "qwen2"),
        GOLDEN2("smollm3", "falcon3"),
        GOLDEN2("stablelm2", "smaug-bpe"), // the published tokenizer has single digits
        GOLDEN2("stablelm2-bias", "smaug-bpe"),
        GOLDEN2("starcoder2", "starcoder"),
#define GOLDEN2_GGUF(folder)                                                                       \
    { "golden-2 gguf " folder, test_golden2_gguf, NULL, NULL, (void *)folder }
        GOLDEN2_GGUF("gemma4-e2b"),
        GOLDEN2_GGUF("lfm2"),
        GOLDEN2_GGUF("llama3"),
        GOLDEN2_GGUF("phi3"),
        GOLDEN2_GGUF("phi4-mini"),
        GOLDEN2_GGUF("qwen2"),
        GOLDEN2_GGUF("qwen3"),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
