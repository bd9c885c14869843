/* self_test.c: a device is compared with the CPU before a session uses it. The device is that of
 * the reference backend, which computes the same, until the test makes it wrong. */
#include "support/check.h"
#include "support/models.h"
#include "support/reference_backend.h"

#include "engine/engine.h"

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static quip_status describe(struct hardware *hardware, quip_error *error)
{
    (void)error;
    *hardware = (struct hardware){ .name = "a test" };
    return QUIP_OK;
}

/* A device whose operations are those of the model's table. */
static quip_status open_device(struct device **device, const quip_model *model,
                               const struct device_options *options, quip_error *error)
{
    const quip_status status = reference_backend.open(device, model, options, error);
    if (!status)
        (*device)->backend = model->backend;
    return status;
}

/* Rows of logits that are read as if a kernel had a wrong sign, or as nothing but NaN. */
static bool is_nan;

static quip_status read_wrong(struct device *device, enum buffer from, float *to, int n)
{
    const quip_status status = reference_backend.read(device, from, to, n);
    for (int i = 0; i < n * device->config->vocab_size && from == BUF_LOGITS; i++)
        to[i] = is_nan ? NAN : -to[i];
    return status;
}

/* The same, after a batch of this many rows. */
static int n_wrong_rows, n_rows;

static quip_status note_rows(struct device *device, const struct rows *rows)
{
    n_rows = rows->n;
    return reference_backend.embed(device, rows);
}

static quip_status read_wrong_once(struct device *device, enum buffer from, float *to, int n)
{
    return n_rows == n_wrong_rows ? read_wrong(device, from, to, n)
                                  : reference_backend.read(device, from, to, n);
}

static quip_status sample_wrong(struct device *device, quip_token *tokens, int n)
{
    const quip_status status = reference_backend.read_tokens(device, tokens, n);
    for (int i = 0; i < n; i++)
        tokens[i] = (tokens[i] + 1) % device->config->vocab_size;
    return status;
}

/* What opening a session says of a model on this backend. */
static quip_status open_on(const struct backend *b, int i, quip_error *error)
{
    quip_model *model = models_open(i, NULL);
    quip_session *s = NULL;
    model->backend = b;
    const quip_status status =
        quip_session_open(&s, model, &(quip_session_options){ .n_context = 40 }, error);
    assert_true((status == QUIP_OK) == (s != NULL));
    if (s) { // nothing of the test is left
        const quip_token token = 5;
        assert_int_equal(quip_session_position(s), 0);
        check(quip_session_prefill(s, &token, 1, error), error);
        assert_non_null(quip_session_logits(s));
    }
    quip_session_close(s);
    quip_model_close(model);
    return status;
}

static void test_right_devices_open(void **state)
{
    struct backend b = reference_backend;
    quip_error error = { 0 };
    (void)state;
    b.describe = describe;
    b.open = open_device;
    for (int i = 0; i < models_count(); i++)
        check(open_on(&b, i, &error), &error);
}

static void test_wrong_devices_are_refused(void **state)
{
    struct backend wrong = reference_backend, draws = reference_backend;
    quip_error error = { 0 };
    (void)state;
    wrong.describe = draws.describe = describe;
    wrong.open = draws.open = open_device;
    wrong.read = read_wrong;
    draws.read_tokens = sample_wrong;
    for (int i = 0; i < models_count(); i++) {
        for (int k = 0; k < 2; k++) {
            is_nan = k == 1;
            assert_int_equal(open_on(&wrong, i, &error), QUIP_E_UNSUPPORTED);
            assert_non_null(strstr(error.message, "computes wrongly"));
        }
        assert_int_equal(open_on(&draws, i, &error), QUIP_E_UNSUPPORTED);
        assert_non_null(strstr(error.message, "is more likely"));
    }
}

/* A kernel for one kind of batch is wrong: a prompt of many rows, of some, or a token. */
static void test_each_kind_of_batch(void **state)
{
    static const struct {
        int n;
        const char *words;
    } cases[] = { { 148, "logits of a prompt" },
                  { 12, "logits of a short prompt" },
                  { 1, "logits of a token" } };
    struct backend wrong = reference_backend;
    quip_error error = { 0 };
    (void)state;
    wrong.describe = describe;
    wrong.open = open_device;
    wrong.embed = note_rows;
    wrong.read = read_wrong_once;
    is_nan = false;
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        n_wrong_rows = cases[i].n;
        assert_int_equal(open_on(&wrong, models_named("llama int8"), &error), QUIP_E_UNSUPPORTED);
        if (!strstr(error.message, cases[i].words))
            fail_msg("expected \"%s\", found: %s", cases[i].words, error.message);
    }
}

/* Logits a third too large are more than roundings change this model, if less than they change
 * others. */
static quip_status read_larger(struct device *device, enum buffer from, float *to, int n)
{
    const quip_status status = reference_backend.read(device, from, to, n);
    for (int i = 0; i < n * device->config->vocab_size && from == BUF_LOGITS; i++)
        to[i] *= 1.33f;
    return status;
}

static void test_more_than_roundings_is_refused(void **state)
{
    struct backend wrong = reference_backend;
    quip_error error = { 0 };
    (void)state;
    wrong.describe = describe;
    wrong.open = open_device;
    wrong.read = read_larger;
    assert_int_equal(open_on(&wrong, models_named("llama int8"), &error), QUIP_E_UNSUPPORTED);
    assert_non_null(strstr(error.message, "differ from the CPU's by 0.33 of their size"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_right_devices_open),
        cmocka_unit_test(test_wrong_devices_are_refused),
        cmocka_unit_test(test_each_kind_of_batch),
        cmocka_unit_test(test_more_than_roundings_is_refused),
    };
    return cmocka_run_group_tests(tests, models_make, models_remove);
}
