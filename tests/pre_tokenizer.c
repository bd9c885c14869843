/* pre_tokenizer.c (test): every pre-tokenizer divides random texts into the words of Hugging Face's
 * tokenizers. tests/data/pre_tokenizers.jsonl has the cases, made by tools/pre_tokenizer_cases.py;
 * QUIP_PRE_TOKENIZER_CASES names another file of that kind. */
#include "tokenizer/tokenizer_impl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <cjson/cJSON.h>

#include "support/shared.h"

/* Whether the words of the text have these lengths, the first one aside that may differ. */
static bool has_words(const cJSON *json, size_t *wrong_at)
{
    const char *text = cJSON_GetObjectItem(json, "text")->valuestring;
    const enum pre_tokenizer pre = (enum pre_tokenizer)cJSON_GetObjectItem(json, "pre")->valueint;
    const size_t n = strlen(text);
    size_t i = 0;
    const cJSON *word;
    cJSON_ArrayForEach(word, cJSON_GetObjectItem(json, "words"))
    {
        *wrong_at = i;
        if (i >= n || qp_pre_token(pre, text + i, n - i) != (size_t)word->valueint)
            return false;
        i += (size_t)word->valueint;
    }
    *wrong_at = i;
    return i == n;
}

static void test_cases(void **state)
{
    (void)state;
    const char *path = getenv("QUIP_PRE_TOKENIZER_CASES");
    size_t n;
    char *lines = read_whole(path ? path : QUIP_SOURCE_DIR "/tests/data/pre_tokenizers.jsonl", &n);
    int n_cases = 0, n_wrong = 0, n_of[32] = { 0 }, wrong_of[32] = { 0 };
    for (char *line = lines, *end; line < lines + n; line = end + 1, n_cases++) {
        end = memchr(line, '\n', (size_t)(lines + n - line));
        assert_non_null(end);
        cJSON *json = cJSON_ParseWithLength(line, (size_t)(end - line));
        assert_non_null(json);
        const int pre = cJSON_GetObjectItem(json, "pre")->valueint;
        size_t at;
        assert_in_range(pre, 1, 31);
        n_of[pre]++;
        if (!has_words(json, &at)) {
            wrong_of[pre]++;
            if (n_wrong++ < 5)
                print_message("wrong at byte %zu: %.*s\n", at, (int)(end - line), line);
        }
        cJSON_Delete(json);
    }
    for (int pre = 0; pre < 32; pre++)
        if (n_of[pre])
            print_message("pre-tokenizer %d: %d of %d\n", pre, n_of[pre] - wrong_of[pre],
                          n_of[pre]);
    free(lines);
    assert_int_equal(n_wrong, 0);
    assert_true(n_cases > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_cases) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
