/* golden.c (test): compares a model with the reference data for one prompt: the logits of every
 * position, and the greedy continuation. */
#include "support/golden.h"
#include "support/check.h"
#include "support/shared.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

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
        if (!(difference <= c->worst)) // also if it is NaN
            c->worst = difference;
    }
    return true;
}

float golden_difference(quip_model *model, quip_session *s, const char *folder, const cJSON *prompt)
{
    char name[512];
    int ids[GOLDEN_MAX_IDS];
    size_t n_bytes;
    quip_error error = { 0 };
    quip_model_info info = { .struct_size = sizeof info };
    quip_model_get_info(model, &info, NULL);
    const int n = json_ids(cJSON_GetObjectItem(prompt, "ids"), ids, GOLDEN_MAX_IDS);
    snprintf(name, sizeof name, "data/golden/%s/%s", folder,
             cJSON_GetObjectItem(prompt, "logits_file")->valuestring);
    need_shared(name);
    float *want = (float *)(void *)read_whole(shared_path(name), &n_bytes);
    assert_int_equal(n_bytes, (size_t)n * (size_t)info.vocab_size * sizeof *want);

    struct comparison c = { want, info.vocab_size, 0 };
    check(quip_session_prefill_logits(s, ids, n, compare_row, &c, &error), &error);
    free(want);
    return c.worst;
}

void check_golden_prompt(quip_model *model, quip_adapter *adapter, const char *folder,
                         const cJSON *prompt)
{
    const char *file = cJSON_GetObjectItem(prompt, "logits_file")->valuestring;
    int greedy[GOLDEN_MAX_IDS];
    quip_error error = { 0 };
    quip_model_info info = { .struct_size = sizeof info };
    quip_session *s;
    quip_model_get_info(model, &info, NULL);
    const int n_greedy =
        json_ids(cJSON_GetObjectItem(prompt, "greedy_ids"), greedy, GOLDEN_MAX_IDS);

    const quip_session_options options = { .n_context = 400 };
    check(quip_session_open(&s, model, &options, &error), &error);
    check(quip_session_set_adapter(s, adapter, 1, &error), &error);
    const float worst = golden_difference(model, s, folder, prompt);
    if (!(worst <= GOLDEN_TOLERANCE))
        fail_msg("%s/%s: logits differ by %g, at most %g is allowed", folder, file, (double)worst,
                 (double)GOLDEN_TOLERANCE);
    printf("  %s/%-22s %3d tokens, largest difference %.2g\n", folder, file,
           cJSON_GetArraySize(cJSON_GetObjectItem(prompt, "ids")), (double)worst);
    for (int i = 0; i < n_greedy; i++) {
        const float *logits = quip_session_logits(s);
        int best = 0;
        for (int j = 1; j < info.vocab_size; j++)
            if (logits[j] > logits[best])
                best = j;
        if (best != greedy[i])
            fail_msg("%s/%s: greedy token %d is %d, expected %d", folder, file, i, best, greedy[i]);
        check(quip_session_prefill(s, &best, 1, &error), &error);
    }
    quip_session_close(s);
}
