/* golden.c: tiny checkpoints, converted to float32, give the logits and the greedy continuations of
 * the reference implementation (../shared/data/golden/README.md derives the tolerance). */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "convert/convert.h"
#include "support/shared.h"

#define TOLERANCE 1e-4f
#define MAX_IDS 512

static void check(quip_status status, const quip_error *error)
{
    if (status)
        fail_msg("%s: %s", quip_status_name(status), error->message);
}

struct comparison {
    const float *want;
    int vocab_size;
    float worst;
};

static bool compare_row(void *user, int position, const float *logits)
{
    struct comparison *c = user;
    const float *want = c->want + (size_t)position * (size_t)c->vocab_size;
    for (int i = 0; i < c->vocab_size; i++) {
        const float difference = fabsf(logits[i] - want[i]);
        if (!(difference <= c->worst)) // NaN too
            c->worst = difference;
    }
    return true;
}

static void check_prompt(quip_model *model, const char *folder, const cJSON *prompt)
{
    char name[512];
    int ids[MAX_IDS], greedy[MAX_IDS];
    size_t n_bytes;
    quip_error error = { 0 };
    quip_model_info info;
    quip_session *s;
    quip_model_get_info(model, &info);
    const int n = json_ids(cJSON_GetObjectItem(prompt, "ids"), ids, MAX_IDS);
    const int n_greedy = json_ids(cJSON_GetObjectItem(prompt, "greedy_ids"), greedy, MAX_IDS);
    snprintf(name, sizeof name, "data/golden/%s/%s", folder,
             cJSON_GetObjectItem(prompt, "logits_file")->valuestring);
    need_shared(name);
    float *want = (float *)(void *)read_whole(shared_path(name), &n_bytes);
    assert_int_equal(n_bytes, (size_t)n * (size_t)info.vocab_size * sizeof *want);

    struct comparison c = { want, info.vocab_size, 0 };
    check(quip_session_open(&s, model, &(quip_session_options){ .n_context = 400 }, &error),
          &error);
    check(quip_prefill_logits(s, ids, n, compare_row, &c, &error), &error);
    if (!(c.worst <= TOLERANCE))
        fail_msg("%s: logits differ by %g, allowed is %g", name, (double)c.worst,
                 (double)TOLERANCE);
    printf("  %-36s %3d tokens, largest difference %.2g\n", name + strlen("data/golden/"), n,
           (double)c.worst);
    for (int i = 0; i < n_greedy; i++) {
        const float *logits = quip_logits(s);
        int best = 0;
        for (int j = 1; j < info.vocab_size; j++)
            if (logits[j] > logits[best])
                best = j;
        if (best != greedy[i])
            fail_msg("%s: greedy token %d is %d, expected is %d", name, i, best, greedy[i]);
        check(quip_prefill(s, &best, 1, &error), &error);
    }
    quip_session_close(s);
    free(want);
}

static void check_folder(const char *folder)
{
    char name[256], model_path[64];
    quip_error error = { 0 };
    quip_model *model;
    const cJSON *prompt;
    snprintf(name, sizeof name, "data/golden/%s/expected.json", folder);
    need_shared(name);
    cJSON *expected = read_json(shared_path(name));
    snprintf(name, sizeof name, "data/golden/%s", folder);
    snprintf(model_path, sizeof model_path, "golden-%s-%d.bin", folder, (int)getpid());
    const struct convert_options options = { .weights = CONVERT_F32 };
    check(qp_convert(shared_path(name), model_path, &options, &error), &error);
    check(quip_model_open(&model, model_path, NULL, &error), &error);
    unlink(model_path);
    cJSON_ArrayForEach(prompt, cJSON_GetObjectItem(expected, "prompts"))
        check_prompt(model, folder, prompt);
    quip_model_close(model);
    cJSON_Delete(expected);
}

static void test_gemma(void **state)
{
    (void)state;
    check_folder("gemma");
}

static void test_gemma2(void **state)
{
    (void)state;
    check_folder("gemma2");
}

static void test_gemma3(void **state)
{
    (void)state;
    check_folder("gemma3");
}

static void test_gemma3_linear(void **state)
{
    (void)state;
    check_folder("gemma3-linear");
}

static void test_smollm2(void **state)
{
    (void)state;
    check_folder("smollm2");
}

static void test_phi2(void **state)
{
    (void)state;
    check_folder("phi2");
}

static void test_falcon_rw(void **state)
{
    (void)state;
    check_folder("falcon-rw");
}

static void test_stablelm(void **state)
{
    (void)state;
    check_folder("stablelm");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gemma),    cmocka_unit_test(test_gemma2),
        cmocka_unit_test(test_gemma3),   cmocka_unit_test(test_gemma3_linear),
        cmocka_unit_test(test_phi2),     cmocka_unit_test(test_falcon_rw),
        cmocka_unit_test(test_stablelm), cmocka_unit_test(test_smollm2),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
