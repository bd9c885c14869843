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

/* A kernel for one kind of batch is wrong: few rows, a prompt of many rows, of some, or a token. */
static void test_each_kind_of_batch(void **state)
{
    static const struct {
        int n;
        const char *words;
    } cases[] = { { 4, "logits of a few tokens" },
                  { 148, "logits of a prompt" },
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

/* A key that attention loses changes these logits by less than is allowed, unless it is the only
 * one. */
static quip_status attend_without_a_key(struct device *device, int l, const struct rows *rows)
{
    struct row some[16];
    if (rows->n > 16)
        return reference_backend.attend(device, l, rows);
    for (int i = 0; i < rows->n; i++) {
        some[i] = rows->row[i];
        some[i].visible_end -= 1;
    }
    return reference_backend.attend(device, l, &(struct rows){ some, rows->n });
}

static void test_a_lost_key_is_found(void **state)
{
    struct backend wrong = reference_backend;
    quip_error error = { 0 };
    (void)state;
    wrong.describe = describe;
    wrong.open = open_device;
    wrong.attend = attend_without_a_key;
    for (int i = 0; i < models_count(); i++)
        assert_int_equal(open_on(&wrong, i, &error), QUIP_E_UNSUPPORTED);
}

/* In a page nothing waits: the test goes on when it is called again. */
static int n_polls, n_begun;

static quip_status poll_later(struct device *device, bool wait)
{
    return wait || n_polls++ % 2 == 1 ? reference_backend.poll(device, wait) : QP_NOT_YET;
}

static quip_status count_begun(struct device *device, int n_threads)
{
    n_begun++;
    return reference_backend.begin(device, n_threads);
}

static void test_step_by_step(void **state)
{
    struct backend b = reference_backend;
    quip_error error = { 0 };
    (void)state;
    b.poll = poll_later;
    b.begin = count_begun;
    for (int is_wrong = 0; is_wrong < 2; is_wrong++) {
        quip_model *model = models_open(models_named("llama int8"), NULL);
        const struct device_options options = qp_device_options(model);
        struct self_test *test;
        struct device *device;
        quip_status status;
        int n_calls = 0;
        b.read = is_wrong ? read_larger : reference_backend.read;
        model->backend = &b;
        n_polls = n_begun = 0;
        check(open_device(&device, model, &options, &error), &error);
        const struct config *whole = device->config;
        check(qp_self_test_open(&test, device, model, &error), &error);
        while ((status = qp_self_test_run(test, false, &error)) == QP_NOT_YET)
            assert_int_equal(n_begun, ++n_calls); // a batch is begun once
        assert_int_equal(status, is_wrong ? QUIP_E_UNSUPPORTED : QUIP_OK);
        assert_true(n_calls == n_begun && n_calls > 0);
        qp_self_test_close(test);
        assert_ptr_equal(device->config, whole);
        device->backend->close(device);
        quip_model_close(model);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_right_devices_open),
        cmocka_unit_test(test_wrong_devices_are_refused),
        cmocka_unit_test(test_each_kind_of_batch),
        cmocka_unit_test(test_more_than_roundings_is_refused),
        cmocka_unit_test(test_a_lost_key_is_found),
        cmocka_unit_test(test_step_by_step),
    };
    return cmocka_run_group_tests(tests, models_make, models_remove);
}
