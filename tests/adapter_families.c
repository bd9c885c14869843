/* adapter_families.c: adapters of families whose modules are fused, transposed or in the order of
 * adjacent-pair rope (tests/data/adapters, made with PEFT) change the logits of the fixtures of
 * data/golden-2 as PEFT does: beside the weights, and merged into them. */
#include "convert/convert.h"
#include "model/model.h"
#include "support/check.h"
#include "support/golden2.h"
#include "support/shared.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define DATA QUIP_SOURCE_DIR "/tests/data/adapters/"

static const char *const families[] = { "gpt2", "gptneox", "falcon7b", "starcoder2", "cohere" };

static quip_model *open_base(const char *family, const char *merged)
{
    char name[100], out[100];
    quip_error error = { 0 };
    quip_model *model;
    const struct convert_options options = { .weights = CONVERT_F32, .merge_adapter = merged };
    snprintf(name, sizeof name, "data/golden-2/%s", family);
    snprintf(out, sizeof out, "adapter-%s-%d.bin", family, (int)getpid());
    need_shared(name);
    check(qp_convert(shared_path(name), out, &options, &error), &error);
    check(quip_model_open(&model, out, NULL, &error), &error);
    unlink(out);
    return model;
}

/* The largest difference from PEFT of a logit after the main prompt. */
static float difference(quip_model *model, quip_adapter *adapter, const char *family)
{
    char name[200];
    int ids[64];
    size_t n_bytes;
    quip_error error = { 0 };
    quip_session *s;
    float worst = 0;
    snprintf(name, sizeof name, "data/golden-2/%s/ids.json", family);
    cJSON *json = read_json(shared_path(name));
    const int n = json_ids(cJSON_GetObjectItem(json, "main"), ids, 64);
    cJSON_Delete(json);
    snprintf(name, sizeof name, DATA "%s/logits.f32", family);
    float *want = (float *)(void *)read_whole(name, &n_bytes);
    assert_int_equal(n_bytes, (size_t)model->config.vocab_size * sizeof *want);
    check(quip_session_open(&s, model, &(quip_session_options){ .n_context = 64 }, &error), &error);
    check(quip_session_set_adapter(s, adapter, 1, &error), &error);
    check(quip_session_prefill(s, ids, n, &error), &error);
    for (int i = 0; i < model->config.vocab_size; i++) {
        const float off = fabsf(quip_session_logits(s)[i] - want[i]);
        if (!(off <= worst))
            worst = off;
    }
    quip_session_close(s);
    free(want);
    return worst;
}

static void test_as_peft(void **state)
{
    (void)state;
    for (size_t i = 0; i < QP_COUNT(families); i++) {
        const char *family = families[i];
        char path[200];
        quip_error error = { 0 };
        quip_adapter *adapter;
        snprintf(path, sizeof path, DATA "%s", family);
        quip_model *model = open_base(family, NULL), *merged = open_base(family, path);
        check(quip_adapter_open(&adapter, model, path, &error), &error);
        const float without = difference(model, NULL, family);
        const float beside = difference(model, adapter, family);
        const float inside = difference(merged, NULL, family);
        printf("  %-10s without %.2g, beside %.2g, merged %.2g\n", family, (double)without,
               (double)beside, (double)inside);
        assert_true(without > 1);
        assert_true(beside <= GOLDEN2_TOLERANCE && inside <= GOLDEN2_TOLERANCE);
        quip_adapter_close(adapter);
        quip_model_close(model);
        quip_model_close(merged);
    }
}

/* Families with other modules, or other rows of a module, refuse each other's adapters. */
static void test_of_another_family(void **state)
{
    (void)state;
    for (size_t i = 0; i < QP_COUNT(families); i++) {
        quip_model *model = open_base(families[i], NULL);
        for (size_t k = 0; k < QP_COUNT(families); k++) {
            char path[200];
            quip_error error = { 0 };
            quip_adapter *adapter = NULL;
            snprintf(path, sizeof path, DATA "%s", families[k]);
            const quip_status status = quip_adapter_open(&adapter, model, path, &error);
            if (i != k && !status)
                fail_msg("a model of %s opens an adapter of %s", families[i], families[k]);
            if (i != k)
                assert_non_null(strstr(error.message, "another model"));
            quip_adapter_close(adapter);
        }
        quip_model_close(model);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_peft),
        cmocka_unit_test(test_of_another_family),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
