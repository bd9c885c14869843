/* verify.c (test): a model has no difference from itself, and some from another. A message names
 * what cannot be compared. Failed allocations leak nothing. tests/cli.py has checkpoints and
 * layouts.
 */
#include "convert/convert.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/alloc_fault.h"
#include "support/check.h"
#include "support/shared.h"
#include "support/tiny_model.h"

static char model_paths[3][64], text_path[64];

static int make_models(void **state)
{
    (void)state;
    struct tiny_model other = tiny_smallest;
    other.seed++;
    const struct tiny_model models[] = { tiny_smallest, other, tiny_llama };
    for (size_t i = 0; i < QP_COUNT(models); i++) {
        quip_error error = { 0 };
        snprintf(model_paths[i], sizeof model_paths[i], "tiny-verify-%d-%zu.bin", (int)getpid(), i);
        if (tiny_model_write(model_paths[i], &models[i], &error)) {
            print_error("%s\n", error.message);
            return -1;
        }
    }
    static const char text[] = "the hen and the egg";
    snprintf(text_path, sizeof text_path, "tiny-verify-%d.txt", (int)getpid());
    save_file(text_path, text, sizeof text - 1);
    return 0;
}

static int remove_models(void **state)
{
    (void)state;
    for (size_t i = 0; i < QP_COUNT(model_paths); i++)
        unlink(model_paths[i]);
    return unlink(text_path);
}

static void test_distances(void **state)
{
    (void)state;
    quip_error error = { 0 };
    const struct verify_options options = { .text = text_path };
    struct verify_report r;
    if (qp_verify(model_paths[0], model_paths[0], &options, &r, &error))
        fail_msg("%s", error.message);
    assert_true(r.n_tensors > 10 && r.n_tokens > 5 && r.n_same == r.n_tokens);
    assert_true(r.relative == 0 && r.mean_kl == 0 && r.max_kl == 0);
    for (int i = 0; i < r.n_tensors; i++)
        assert_true(r.tensors[i].max == 0 && fabs(r.tensors[i].cosine - 1) < 1e-12);
    qp_verify_report_close(&r);

    if (qp_verify(model_paths[0], model_paths[1], &options, &r, &error))
        fail_msg("%s", error.message);
    assert_true(r.relative > 0.1 && r.mean_kl > 0 && r.max_kl >= r.mean_kl);
    char text[1024];
    assert_true(qp_verify_summary(text, sizeof text, &r) < (int)sizeof text);
    assert_non_null(strstr(text, "top1_agreement "));
    assert_true(qp_verify_summary(text, 10, &r) > 10); // truncated; returns the full length
    qp_verify_report_close(&r);
}

/* A report in which nothing differs. */
static void assert_no_difference(const struct verify_report *r)
{
    assert_true(r->relative == 0);
    for (int i = 0; i < r->n_tensors; i++) {
        const struct verify_tensor *t = &r->tensors[i];
        if (!(t->max == 0 && t->relative == 0 && fabs(t->cosine - 1) < 1e-12))
            fail_msg("%s differs from itself", t->name);
    }
}

/* Experts that are wider than all other layers. */
static void test_wide_experts(void **state)
{
    (void)state;
    struct tiny_model wide = tiny_experts;
    struct verify_report r;
    char path[64];
    quip_error error = { 0 };
    wide.d_ff_expert = 1000;
    snprintf(path, sizeof path, "tiny-verify-wide-%d.bin", (int)getpid());
    check(tiny_model_write(path, &wide, &error), &error);
    check(qp_verify(path, path, NULL, &r, &error), &error);
    unlink(path);
    assert_no_difference(&r);
    qp_verify_report_close(&r);
}

/* Dimensions that do not rotate have infinite divisors. */
static void test_infinite_divisors(void **state)
{
    (void)state;
    static const char folder[] = "data/golden-2/gemma4-e2b";
    const struct convert_options options = { .weights = CONVERT_F32 };
    struct verify_report r;
    char path[64];
    quip_error error = { 0 };
    need_shared(folder);
    snprintf(path, sizeof path, "verify-divisors-%d.bin", (int)getpid());
    check(qp_convert(shared_path(folder), path, &options, &error), &error);
    check(qp_verify(shared_path(folder), path, NULL, &r, &error), &error);
    unlink(path);
    assert_no_difference(&r);
    qp_verify_report_close(&r);
}

static void test_strangers(void **state)
{
    (void)state;
    struct verify_report r;
    quip_error error = { 0 };
    assert_int_not_equal(qp_verify(model_paths[0], model_paths[2], NULL, &r, &error), QUIP_OK);
    assert_non_null(strstr(error.message, model_paths[0]));
    assert_int_not_equal(qp_verify("absent", model_paths[2], NULL, &r, &error), QUIP_OK);
    assert_non_null(strstr(error.message, "absent"));
    assert_int_not_equal(qp_verify(model_paths[0], text_path, NULL, &r, &error), QUIP_OK);
    const struct verify_options options = { .text = "absent.txt" };
    assert_int_equal(qp_verify(model_paths[0], model_paths[0], &options, &r, &error), QUIP_E_IO);
    assert_null(r.tensors);
}

/* A callback that stops at this tensor. */
static bool stop_in(void *user, uint64_t done, uint64_t total, const char *what)
{
    assert_true(done >= 1 && done <= total);
    return strcmp(what, user) != 0 || done < 3;
}

static void test_cancel(void **state)
{
    (void)state;
    struct verify_report r;
    quip_error error = { 0 };
    const struct verify_options in_text = { .text = text_path,
                                            .on_progress = stop_in,
                                            .user = text_path };
    assert_int_equal(qp_verify(model_paths[0], model_paths[1], &in_text, &r, &error),
                     QUIP_E_CANCELLED);
    assert_null(r.tensors);
    const struct verify_options nowhere = { .text = text_path, .on_progress = stop_in, .user = "" };
    if (qp_verify(model_paths[0], model_paths[1], &nowhere, &r, &error))
        fail_msg("%s", error.message);
    qp_verify_report_close(&r);
}

static void test_faults(void **state)
{
    (void)state;
    if (!alloc_fault_is_here())
        skip();
    const struct verify_options options = { .text = text_path, .window = 8, .n_windows = 1 };
    const int before = alloc_fault_live();
    for (int i = 0;; i++) {
        struct verify_report r;
        alloc_fault_set(i);
        const quip_status status = qp_verify(model_paths[0], model_paths[1], &options, &r, NULL);
        const bool has_failed = alloc_fault_clear();
        if (!status)
            qp_verify_report_close(&r);
        assert_int_equal(alloc_fault_live(), before);
        if (!has_failed) {
            assert_true(i > 10);
            break;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_distances),
        cmocka_unit_test(test_wide_experts),
        cmocka_unit_test(test_infinite_divisors),
        cmocka_unit_test(test_strangers),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_faults),
    };
    return cmocka_run_group_tests(tests, make_models, remove_models);
}
