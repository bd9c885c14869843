/* tokenizer_import.c (test): published tokenizer.json files -> a vocabulary that gives the ids of
 * the reference on every text of ../shared/data/tokenizers. */
#include "convert/convert.h"
#include "tokenizer/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/shared.h"

struct source {
    const char *folder, *suffix;
    bool has_special;    // the reference finds control tokens spelled out in a text
    const char *foreign; // a piece of the JSON that the reference, SentencePiece, does not have
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

/* Whether the case's ids are met; true for cases that have no text or no defined answer. */
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
        *end = 0; // cJSON cannot say U+0000: those texts are left to the tokenizer's own tests
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
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_published_tokenizers) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
