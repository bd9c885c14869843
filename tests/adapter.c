/* adapter.c (test): LoRA weights beside a model: the reference implementation's logits, one answer
 * everywhere, switching in a session, and every adapter that does not fit. */
#include "support/shared.h"
#include "support/tiny_model.h"

#include "convert/convert.h"
#include "model/adapter.h"

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define MAX_IDS 512

static void check(quip_status status, const quip_error *error)
{
    if (status)
        fail_msg("%s: %s", quip_status_name(status), error->message);
}

/* ---- the reference implementation ---- */

#define TOLERANCE 1e-4f // ../shared/data/golden/README.md

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

static void check_prompt(quip_model *model, quip_adapter *adapter, const char *folder,
                         const cJSON *prompt)
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
    const quip_session_options options = { .n_context = 400, .adapter = adapter };
    check(quip_session_open(&s, model, &options, &error), &error);
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

/* A checkpoint of the reference data, converted and opened. */
static quip_model *open_golden(const char *name, enum convert_weights weights)
{
    char model_path[64];
    quip_error error = { 0 };
    quip_model *model;
    need_shared(name);
    snprintf(model_path, sizeof model_path, "adapter-golden-%d.bin", (int)getpid());
    const struct convert_options options = { .weights = weights };
    check(qp_convert(shared_path(name), model_path, &options, &error), &error);
    check(quip_model_open(&model, model_path, NULL, &error), &error);
    unlink(model_path);
    return model;
}

static void check_golden(const char *base, const char *adapter_name)
{
    char name[256], folder[128];
    const cJSON *prompt;
    quip_error error = { 0 };
    quip_adapter *adapter;
    snprintf(name, sizeof name, "data/golden/%s", base);
    quip_model *model = open_golden(name, CONVERT_F32);
    snprintf(folder, sizeof folder, "%s/%s", base, adapter_name);
    snprintf(name, sizeof name, "data/golden/%s", folder);
    check(quip_adapter_open(&adapter, model, shared_path(name), &error), &error);
    snprintf(name, sizeof name, "data/golden/%s/expected.json", folder);
    cJSON *expected = read_json(shared_path(name));
    cJSON_ArrayForEach(prompt, cJSON_GetObjectItem(expected, "prompts"))
        check_prompt(model, adapter, folder, prompt);
    quip_adapter_close(adapter);
    quip_model_close(model);
    cJSON_Delete(expected);
}

static void test_golden(void **state)
{
    (void)state;
    check_golden("gemma", "lora_attn");
    check_golden("gemma", "lora_all");
    check_golden("phi2", "lora_attn");
    check_golden("phi2", "lora_all");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("adapter", tests, NULL, NULL);
}
