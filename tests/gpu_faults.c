/* gpu_faults.c: what can go wrong on a GPU ends in a sentence, and models and sessions can be
 * closed afterwards. The first tests run on a GPU that computes nothing (support/fake_gpu.h), so
 * they need none; the last ones on the GPU of this machine, if there is one. */
#include "support/alloc_fault.h"
#include "support/check.h"
#include "support/fake_gpu.h"
#include "support/gpu.h"
#include "support/models.h"
#include "support/shared.h"
#include "support/story.h"
#include "support/tiny_model.h"

#include "engine/engine.h"
#include "webgpu/webgpu_impl.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

static int use_fake(void **state)
{
    (void)state;
    fake_gpu_reset();
    fake_gpu.is_on = true;
    return 0;
}

static int end_fake(void **state)
{
    (void)state;
    fake_gpu_reset();
    return 0;
}

static quip_session *open_session(quip_model *model, int n_context)
{
    quip_session *s;
    quip_error error = { 0 };
    quip_session_options options = story_options;
    options.n_context = n_context;
    check(quip_session_open(&s, model, &options, &error), &error);
    return s;
}

/* Run one token, and read its logits. */
static quip_status run_token(quip_session *s, quip_error *error)
{
    const quip_token token = 5;
    return quip_session_prefill_logits(s, &token, 1, NULL, NULL, error);
}

/* A sentence that a user can read. */
static void check_sentence(quip_status status, const quip_error *error)
{
    assert_int_equal(error->status, status);
    const size_t n = strlen(error->message);
    if (n < 20 || strchr(error->message, '?') || error->message[n - 1] == '.' ||
        (!strstr(error->message, "GPU") && !strstr(error->message, "out of memory")))
        fail_msg("the message is \"%s\"", error->message);
}

static void check_calls(void)
{
    if (fake_gpu.wrong)
        fail_msg("a wrong call, after %s failed: %s", fake_gpu.failed ? fake_gpu.failed : "nothing",
                 fake_gpu.wrong);
}

/* ---- each call fails once ---- */

/* The status of a failure while the device opens, or later. */
static quip_status expected_status(bool is_open)
{
    if (!is_open && (strcmp(fake_gpu.failed, "wgpuCreateInstance") == 0 ||
                     strcmp(fake_gpu.failed, "wgpuInstanceRequestAdapter") == 0 ||
                     strcmp(fake_gpu.failed, "wgpuAdapterRequestDevice") == 0))
        return QUIP_E_UNSUPPORTED;
    return fake_gpu.failure == FAKE_SHORT ? QUIP_E_MEMORY : QUIP_E_DEVICE;
}

/* Does the device of the model stay as it is after the failure? */
static bool is_broken(const struct story *s)
{
    return s->model->device && !(fake_gpu.failure == FAKE_SHORT &&
                                 strcmp(fake_gpu.failed, "wgpuDeviceCreateBuffer") == 0);
}

/* The story has failed for good: all that needs the GPU fails with the same sentence. */
static void check_broken(struct story *s, const quip_error *first)
{
    quip_error error = { 0 };
    quip_session *other;
    assert_int_equal(quip_session_open(&other, s->model, &story_options, &error), first->status);
    assert_string_equal(error.message, first->message);
    if (!s->session)
        return;
    assert_int_equal(run_token(s->session, &error), first->status);
    assert_string_equal(error.message, first->message);
    assert_null(quip_session_logits(s->session));
}

/* Tell the story while the fail_in-th call of the GPU fails; false: there were not as many. */
static bool tell(int model, bool is_dawn, int fail_in, enum fake_failure failure)
{
    const int live = alloc_fault_live();
    quip_error first = { 0 };
    use_fake(NULL);
    fake_gpu.is_dawn = is_dawn;
    struct story s = { .model = open_on_gpu(model) };
    fake_gpu.is_typed = fail_in % 2;
    fake_gpu.failure = failure;
    fake_gpu.fail_in = fail_in;
    bool has_broken = false;
    for (int i = 0; i < n_story_steps; i++) {
        quip_error error = { 0 };
        if (has_broken && !s.session)
            break;
        quip_status status = story_steps[i](&s, &error);
        if (!status || has_broken) // what needs no GPU may succeed
            continue;
        assert_non_null(fake_gpu.failed);
        assert_int_equal(first.status, QUIP_OK); // one failure is reported once
        check_sentence(status, &error);
        if (status != expected_status(s.model->device))
            fail_msg("%s failed: %s", fake_gpu.failed, error.message);
        first = error;
        has_broken = is_broken(&s);
        if (has_broken)
            check_broken(&s, &first);
        else // it succeeds when it is repeated
            check(story_steps[i](&s, &error), &error);
    }
    if (fake_gpu.failed && !first.status)
        fail_msg("%s failed, and no call said so", fake_gpu.failed);
    const bool has_failed = fake_gpu.failed != NULL;
    story_close(&s); // in which the next call may fail
    check_calls();
    const bool is_lost =
        fake_gpu.failed && failure == FAKE_LOST && first.status != QUIP_E_UNSUPPORTED;
    assert_int_equal(fake_gpu.n_live, is_lost && !is_dawn); // a lost device is not released
    assert_int_equal(fake_gpu.n_devices, is_lost && !is_dawn);
    assert_int_equal(alloc_fault_live(), live);
    return has_failed;
}

static void test_each_call_fails(void **state)
{
    static const struct {
        const char *name;
        bool is_dawn;
        int n_rounds; // each with other failures; 3 are all
    } models[] = { { "llama f32", false, 3 }, { "lfm2 int8", false, 1 }, { "llama f32", true, 1 } };
    (void)state;
    if (!fake_gpu_is_here())
        skip();
    for (size_t i = 0; i < QP_COUNT(models); i++) {
        const int model = models_named(models[i].name);
        for (int round = 0; round < models[i].n_rounds; round++) {
            int n = 1;
            while (tell(model, models[i].is_dawn, n, (enum fake_failure)((n + round) % 3)))
                n++;
            printf("  %s: %d calls failed, one after the other\n", models[i].name, n - 1);
            assert_true(n > 200);
        }
    }
}

/* ---- matrices of subgroups ---- */

enum {
    N_TEST = 130, // of matrices.c
    TEST_WIDTH = 192
};

static int test_value(int row, int i)
{
    return i % 64 == row % 64 ? 127 : (row * 37 + i * 101 + row * i % 91) % 255 - 127;
}

static float test_product(int t, int r)
{
    float sum = 0;
    for (int i = 0; i < TEST_WIDTH; i++)
        sum += (float)(test_value(t, i) * test_value(r + 5, i));
    return sum;
}

/* What a GPU with subgroups of 32 threads says of them, and of the test of their matrices: a
 * product, and one of a gate and what it multiplies. */
static int n_products;
static void answer_rightly(void *bytes, size_t n)
{
    uint32_t *sizes = bytes;
    float *y = bytes;
    if (n == 256 * sizeof *sizes)
        for (int i = 0; i < 256; i++)
            sizes[i] = 32;
    if (n != N_TEST * N_TEST * sizeof *y)
        return;
    const bool is_pair = ++n_products == 2;
    for (int t = 0; t < N_TEST; t += 3) // that are looked at
        for (int r = 0; r < (is_pair ? N_TEST / 2 : N_TEST); r += 5) {
            const float x = test_product(t, r);
            y[N_TEST * t + r] = !is_pair ? x : x < 0 ? 0 : x * test_product(t, N_TEST / 2 + r);
        }
}

static void answer_wrongly(void *bytes, size_t n)
{
    answer_rightly(bytes, n);
    if (n == N_TEST * N_TEST * sizeof(float))
        ((float *)bytes)[N_TEST * 3 + 5] += 5;
}

static void answer_pair_wrongly(void *bytes, size_t n)
{
    answer_rightly(bytes, n);
    if (n == N_TEST * N_TEST * sizeof(float) && n_products == 2)
        ((float *)bytes)[N_TEST * 3 + 5] = -1e9f; // none is negative
}

/* Run a prompt of 100 tokens. */
static quip_status run_prompt(quip_model *model, quip_error *error)
{
    quip_token tokens[100];
    quip_session *s;
    for (int i = 0; i < 100; i++)
        tokens[i] = 5 + i % 7;
    quip_session_options options = story_options;
    options.n_context = 128;
    quip_status status = quip_session_open(&s, model, &options, error);
    if (status)
        return status;
    status = quip_session_prefill_logits(s, tokens, 100, NULL, NULL, error);
    quip_session_close(s);
    return status;
}

/* The products of a prompt are those of matrices, if the GPU has them and computes rightly. */
static void test_matrices_are_chosen(void **state)
{
    static const struct {
        bool has_matrices;
        void (*answer)(void *bytes, size_t n);
        bool are_used;
    } cases[] = { { true, answer_rightly, true },
                  { true, answer_wrongly, false },
                  { true, answer_pair_wrongly, false },
                  { true, NULL, false }, // no subgroups
                  { false, answer_rightly, false } };
    (void)state;
    if (!fake_gpu_is_here())
        skip();
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        quip_error error = { 0 };
        use_fake(NULL);
        fake_gpu.is_dawn = true;
        fake_gpu.has_matrices = cases[i].has_matrices;
        n_products = 0;
        fake_gpu.answer = cases[i].answer;
        quip_model *model = open_on_gpu(models_named("lfm2 int8"));
        check(run_prompt(model, &error), &error);
        assert_int_equal(webgpu_of(model->device)->has_matrices, cases[i].are_used);
        assert_int_equal(fake_gpu.n_tile_modules > 0, !cases[i].are_used);
        assert_int_equal(fake_gpu.n_matrix_modules > 0, cases[i].answer && cases[i].has_matrices);
        quip_model_close(model);
        check_calls();
        assert_int_equal(fake_gpu.n_live, 0);
    }
}

/* Attention of a prompt uses them for heads of 64 numbers and binary16 keys. */
static void test_attention_by_matrices(void **state)
{
    static const char path[] = "gpu-heads.bin";
    static const struct {
        int head_dim;
        enum dtype dtype;
        bool are_used;
    } cases[] = { { 64, DTYPE_I8, true }, { 48, DTYPE_I8, false }, { 64, DTYPE_F32, false } };
    (void)state;
    if (!fake_gpu_is_here())
        skip();
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        struct tiny_model tiny = tiny_with(tiny_llama, cases[i].dtype);
        quip_error error = { 0 };
        quip_model *model;
        tiny.head_dim = cases[i].head_dim;
        use_fake(NULL);
        fake_gpu.is_dawn = fake_gpu.has_matrices = true;
        fake_gpu.answer = answer_rightly;
        n_products = 0;
        check(tiny_model_write(path, &tiny, &error), &error);
        check(quip_model_open(&model, path, &(quip_model_options){ .backend = QUIP_BACKEND_GPU },
                              &error),
              &error);
        model->no_self_test = true;
        check(run_prompt(model, &error), &error);
        assert_int_equal(fake_gpu.n_attend_modules > 0, cases[i].are_used);
        quip_model_close(model);
        check_calls();
        unlink(path);
    }
}

/* While they are tested a call fails: then the model runs without them. */
static void test_matrices_that_fail(void **state)
{
    static const enum fake_failure failures[] = { FAKE_REFUSED, FAKE_SHORT };
    int n_without = 0, n_refused = 0;
    (void)state;
    if (!fake_gpu_is_here())
        skip();
    for (int n = 1;; n += 3) {
        const int live = alloc_fault_live();
        quip_error error = { 0 };
        use_fake(NULL);
        fake_gpu.is_dawn = fake_gpu.has_matrices = true;
        fake_gpu.answer = answer_rightly;
        n_products = 0;
        quip_model *model = open_on_gpu(models_named("lfm2 int8"));
        fake_gpu.failure = failures[n / 2 % 2];
        fake_gpu.is_typed = n % 2;
        fake_gpu.fail_in = n;
        const quip_status status = run_prompt(model, &error);
        const bool has_matrices = model->device && webgpu_of(model->device)->has_matrices;
        const bool has_failed = fake_gpu.failed != NULL;
        if (status)
            check_sentence(status, &error);
        else if (has_failed)
            assert_false(has_matrices);
        n_refused += status != QUIP_OK;
        n_without += !status && has_failed;
        quip_model_close(model);
        check_calls();
        assert_int_equal(fake_gpu.n_live, 0);
        assert_int_equal(alloc_fault_live(), live);
        if (has_matrices) // the test is over
            break;
    }
    printf("  %d failures left matrices unused, %d refused the model\n", n_without, n_refused);
    assert_true(n_without > 10 && n_refused > 10);
}

/* Embed texts while the fail_in-th call of the GPU fails; false: there were not as many. */
static bool embed(int fail_in)
{
    static const quip_token tokens[70] = { TINY_BOS, 30, 31, 32 };
    static const quip_embed_input inputs[] = { { .tokens = tokens, .n_tokens = 70 },
                                               { .tokens = tokens, .n_tokens = 4 } };
    static const quip_embed_options options = { .pooling = QUIP_POOLING_MEAN };
    static float embeddings[2 * 512];
    const int live = alloc_fault_live();
    quip_error error = { 0 }, again = { 0 };
    use_fake(NULL);
    struct story s = { .model = open_on_gpu(models_named("gemma3 mixed")) };
    fake_gpu.is_typed = fail_in % 2;
    fake_gpu.failure = (enum fake_failure)(fail_in % 3);
    fake_gpu.fail_in = fail_in;
    const quip_status status =
        quip_embed(s.model, inputs, 2, &options, embeddings, QP_COUNT(embeddings), &error);
    const bool has_failed = fake_gpu.failed != NULL;
    assert_int_equal(has_failed, status != QUIP_OK);
    if (status) {
        const bool has_broken = is_broken(&s);
        check_sentence(status, &error);
        assert_int_equal(status, expected_status(s.model->device));
        const quip_status next =
            quip_embed(s.model, inputs, 2, &options, embeddings, QP_COUNT(embeddings), &again);
        assert_int_equal(next, has_broken ? status : QUIP_OK);
        if (has_broken)
            assert_string_equal(again.message, error.message);
    }
    const bool is_lost =
        has_failed && fake_gpu.failure == FAKE_LOST && status != QUIP_E_UNSUPPORTED;
    fake_gpu.fail_in = 0; // closing makes calls, too
    story_close(&s);
    check_calls();
    assert_int_equal(fake_gpu.n_live, is_lost);
    assert_int_equal(alloc_fault_live(), live);
    return has_failed;
}

static void test_each_call_of_embed_fails(void **state)
{
    (void)state;
    if (!fake_gpu_is_here())
        skip();
    int n = 1;
    while (embed(n))
        n++;
    printf("  %d calls failed, one after the other\n", n - 1);
    assert_true(n > 100);
}

/* Open a model for auto, on a GPU that computes zeros, while one of its calls fails. The self-test
 * fails in any case. */
static bool open_for_auto(int fail_in)
{
    const int live = alloc_fault_live();
    quip_model_info info = { .struct_size = sizeof info };
    quip_error error = { 0 };
    use_fake(NULL);
    fake_gpu.is_typed = fail_in % 2;
    fake_gpu.failure = (enum fake_failure)(fail_in % 3);
    fake_gpu.fail_in = fail_in;
    quip_model *model = models_open(models_named("llama f32"), NULL);
    const bool has_failed = fake_gpu.failed != NULL;
    check(quip_model_get_info(model, &info, &error), &error);
    assert_int_equal(info.backend, QUIP_BACKEND_CPU);
    const bool is_sentence = strlen(info.backend_reason) > 20 && !strchr(info.backend_reason, '?');
    if (!is_sentence || (!has_failed && !strstr(info.backend_reason, "computes wrongly")))
        fail_msg("the reason is \"%s\"", info.backend_reason);
    quip_session *s = open_session(model, 100);
    check(run_token(s, &error), &error); // on the CPU
    quip_session_close(s);
    quip_model_close(model);
    check_calls();
    assert_int_equal(fake_gpu.n_live, fake_gpu.n_devices); // only a device that was lost
    assert_int_equal(alloc_fault_live(), live);
    return has_failed;
}

static void test_auto_uses_the_cpu(void **state)
{
    (void)state;
    if (!fake_gpu_is_here())
        skip();
    setenv("QUIP_AUTO_SOFTWARE", "1", 1); // this machine may have no GPU
    int n = 1;
    while (open_for_auto(n))
        n++;
    unsetenv("QUIP_AUTO_SOFTWARE");
    printf("  %d calls failed, one after the other\n", n - 1);
    assert_true(n > 100);
}

enum {
    N_REASON = 512
};

/* Choose for auto, on a GPU that passes. Returns the backend; `reason` becomes what auto says. */
static quip_backend choose(char reason[N_REASON])
{
    use_fake(NULL);
    quip_model *model = models_open(models_named("llama f32"),
                                    &(quip_model_options){ .backend = QUIP_BACKEND_CPU });
    model->no_self_test = true;
    qp_auto_choose(model);
    const quip_backend backend = (quip_backend)model->options.backend;
    snprintf(reason, N_REASON, "%s", model->backend_reason);
    quip_session *s = open_session(model, 100);
    quip_error error = { 0 };
    check(run_token(s, &error), &error);
    assert_int_equal(fake_gpu.n_live > 0, backend == QUIP_BACKEND_GPU);
    quip_session_close(s);
    quip_model_close(model);
    check_calls();
    assert_int_equal(fake_gpu.n_live, 0);
    return backend;
}

/* The path of the one file that auto wrote into the cache folder `root`. */
static void find_speeds(char path[300], const char *root)
{
    const struct dirent *entry;
    char folder[100];
    int n = 0;
    snprintf(folder, sizeof folder, "%s/quip", root);
    DIR *all = opendir(folder);
    assert_non_null(all);
    while ((entry = readdir(all)))
        if (strncmp(entry->d_name, "auto-", 5) == 0 && ++n)
            snprintf(path, 300, "%s/%.100s", folder, entry->d_name);
    closedir(all);
    assert_int_equal(n, 1);
}

/* auto measures once, and then takes what was faster. */
static void test_auto_uses_the_faster_one(void **state)
{
    static const struct {
        const char *speeds, *words;
        quip_backend backend;
    } cases[] = {
        { "gpu_ns 1000\ncpu_ns 2000\nend\n", "the gpu decodes 1e+06 tokens/s, the cpu 5e+05 (",
          QUIP_BACKEND_GPU },
        { "gpu_ns 2000\ncpu_ns 1000\nend\n", "the cpu decodes 1e+06 tokens/s, the gpu 5e+05 (",
          QUIP_BACKEND_CPU },
    };
    char root[] = "/tmp/quip-auto-XXXXXX", path[300], reason[N_REASON];
    const char *cache = getenv("XDG_CACHE_HOME");
    size_t n;
    (void)state;
    if (!fake_gpu_is_here())
        skip();
    char *before = cache ? strdup(cache) : NULL;
    assert_non_null(mkdtemp(root));
    setenv("XDG_CACHE_HOME", root, 1);
    setenv("QUIP_AUTO_SOFTWARE", "1", 1); // the fake GPU may count as one
    choose(reason);
    assert_null(strstr(reason, "measured earlier"));
    find_speeds(path, root);
    char *text = read_whole(path, &n), *speeds = strstr(text, "gpu_ns ");
    assert_non_null(speeds);
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        const size_t n_key = (size_t)(speeds - text);
        char other[2000];
        snprintf(other, sizeof other, "%.*s%s", (int)n_key, text, cases[i].speeds);
        save_file(path, other, strlen(other));
        assert_int_equal(choose(reason), cases[i].backend);
        if (!strstr(reason, cases[i].words) || !strstr(reason, "; measured earlier)"))
            fail_msg("the reason is \"%s\"", reason);
    }
    free(text);
    unlink(path);
    snprintf(path, sizeof path, "%s/quip", root);
    rmdir(path);
    rmdir(root);
    unsetenv("QUIP_AUTO_SOFTWARE");
    unsetenv("XDG_CACHE_HOME");
    if (before)
        setenv("XDG_CACHE_HOME", before, 1);
    free(before);
}

/* The n-th allocation of the host fails, in a session that opens and answers. */
static bool tell_with_little_memory(int n)
{
    enum {
        N_STEPS = 6 // up to a clone
    };
    const int live = alloc_fault_live();
    bool has_failed = false;
    use_fake(NULL);
    struct story s = { .model = open_on_gpu(models_named("lfm2 int8")) };
    assert_true(qp_bytes_reserve(&s.answer, 4096)); // the story's own
    for (int i = 0; i < N_STEPS; i++) {
        quip_error error = { 0 };
        const int made = alloc_fault_made();
        if (!has_failed)
            alloc_fault_set(n);
        quip_status status = story_steps[i](&s, &error);
        n -= alloc_fault_made() - made;
        has_failed = alloc_fault_clear() || has_failed;
        if (!status)
            continue;
        assert_true(has_failed);
        assert_int_equal(status, QUIP_E_MEMORY);
        assert_int_equal(error.status, status);
        check(story_steps[i](&s, &error), &error);
    }
    story_close(&s);
    check_calls();
    assert_int_equal(fake_gpu.n_live, 0);
    assert_int_equal(alloc_fault_live(), live);
    return has_failed;
}

static void test_each_allocation_fails(void **state)
{
    (void)state;
    if (!fake_gpu_is_here() || !alloc_fault_is_here())
        skip();
    int n = 0;
    while (tell_with_little_memory(n))
        n++;
    printf("  %d allocations failed, one after the other\n", n);
    assert_true(n > 100);
}

/* ---- limits ---- */

static void test_limits_that_are_too_small(void **state)
{
    static const struct {
        struct fake_gpu gpu;
        const char *words; // of the sentence
    } cases[] = {
        { { .group_threads = 128 }, "128 threads in a workgroup" },
        { { .group_memory = 8192 }, "8192 bytes of memory in a workgroup" },
        { { .max_groups = 1024 }, "1024 workgroups in a dispatch" },
        { { .n_bindings = 4 }, "4 buffers in a shader" },
        { { .max_binding = 2048 }, "because this GPU binds at most 1984 bytes" },
        { { .max_binding = 16384 }, "this GPU binds at most 16384" },
        { { .max_buffer = 65536 }, "this GPU allows 65536" },
    };
    (void)state;
    if (!fake_gpu_is_here())
        skip();
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        use_fake(NULL);
        quip_model *model = open_on_gpu(models_named("llama f32"));
        quip_session *s;
        quip_error error = { 0 };
        fake_gpu = cases[i].gpu;
        fake_gpu.is_on = true;
        const quip_status status = quip_session_open(&s, model, &story_options, &error);
        if (status != QUIP_E_UNSUPPORTED || !strstr(error.message, cases[i].words))
            fail_msg("expected \"%s\", found %s: %s", cases[i].words, quip_status_name(status),
                     error.message);
        check_sentence(status, &error);
        assert_null(s);
        quip_model_close(model);
        check_calls();
        assert_int_equal(fake_gpu.n_live, 0);
    }
}

/* With any limit of a binding, a model is refused, or no binding is larger. */
static void test_limits_of_bindings(void **state)
{
    (void)state;
    if (!fake_gpu_is_here())
        skip();
    for (int m = 0; m < models_count() && !models_is_golden(m); m++) {
        int n_refused = 0;
        uint64_t max = 1 << 20;
        for (; n_refused < 3 && max > 64; max -= max / 4 / 4 * 4) {
            use_fake(NULL);
            struct story s = { .model = open_on_gpu(m) };
            fake_gpu.max_binding = max;
            quip_status status = QUIP_OK;
            for (int i = 0; i < 6 && !status; i++) {
                quip_error error = { 0 };
                status = story_steps[i](&s, &error);
                if (status)
                    check_sentence(status, &error);
            }
            assert_true(!status || status == QUIP_E_UNSUPPORTED);
            n_refused += status != QUIP_OK;
            story_close(&s);
            check_calls();
            assert_int_equal(fake_gpu.n_live, 0);
        }
        printf("  %-22s runs down to about %llu bytes\n", models_name(m), (unsigned long long)max);
    }
}

/* ---- in mid-flight ---- */

/* A session whose step is on the GPU. */
static quip_session *open_in_flight(quip_model *model)
{
    quip_piece piece;
    quip_error error = { 0 };
    quip_session *s = open_session(model, 100);
    check(quip_session_append(s, QUIP_ROLE_USER, "the hen", 7, &error), &error);
    while (!s->step.is_running) {
        const quip_status status = qp_answer_next(s, false, &piece, &error);
        assert_true(!status || status == QP_NOT_YET);
    }
    return s;
}

static quip_finish_reason collect(quip_session *s, bool wait)
{
    quip_piece piece = { .struct_size = sizeof piece };
    quip_error error = { 0 };
    while (!piece.finish_reason) {
        const quip_status status = qp_answer_next(s, wait, &piece, &error);
        if (status != QP_NOT_YET)
            check(status, &error);
    }
    return (quip_finish_reason)piece.finish_reason;
}

static void check_cancel(quip_model *model)
{
    quip_session *s = open_in_flight(model);
    quip_session_cancel(s);
    assert_int_equal(collect(s, false), QUIP_FINISH_CANCELLED);
    assert_int_not_equal(collect(s, true), QUIP_FINISH_CANCELLED); // not once more
    quip_session_close(s);
    s = open_in_flight(model);
    quip_session_close(s); // the device is free again
    s = open_in_flight(model);
    quip_model_close(model);
    quip_session_close(s);
}

static void test_cancel_in_mid_flight(void **state)
{
    (void)state;
    if (!fake_gpu_is_here())
        skip();
    fake_gpu.n_not_yet = 3;
    check_cancel(open_on_gpu(models_named("llama f32")));
    assert_true(fake_gpu.n_polls > 0);
    check_calls();
    assert_int_equal(fake_gpu.n_live, 0);
}

/* After a long wait in the driver the next one asks whether the step is done. */
static void test_waits_ask(void **state)
{
    const quip_token token = 5;
    quip_error error = { 0 };
    (void)state;
    if (!fake_gpu_is_here())
        skip();
    quip_model *model = open_on_gpu(models_named("llama f32"));
    quip_session *s = open_session(model, 40);
    fake_gpu.n_not_yet = 1;
    fake_gpu.wait_ns = 1000000;
    for (int i = 0; i < 2; i++) {
        check(quip_session_prefill(s, &token, 1, &error), &error);
        assert_non_null(quip_session_logits(s));
    }
    assert_true(fake_gpu.n_polls > 0);
    quip_session_close(s);
    quip_model_close(model);
    check_calls();
    assert_int_equal(fake_gpu.n_live, 0);
}

/* The GPU is lost while a step is on it. What comes next is an error, or the end. */
static void test_lost_in_mid_flight(void **state)
{
    (void)state;
    if (!fake_gpu_is_here())
        skip();
    for (int close = 0; close < 2; close++)
        for (int typed = 0; typed < 3; typed++) {
            use_fake(NULL);
            fake_gpu.is_dawn = typed == 2;
            const int live = alloc_fault_live();
            quip_model *model = open_on_gpu(models_named("llama f32"));
            fake_gpu.n_not_yet = 3;
            quip_session *s = open_in_flight(model), *other;
            quip_error error = { 0 };
            quip_piece piece;
            fake_gpu.is_typed = typed;
            fake_gpu.failure = FAKE_LOST;
            fake_gpu.fail_in = 1;
            if (!close) {
                assert_int_equal(qp_answer_next(s, true, &piece, &error), QUIP_E_DEVICE);
                check_sentence(QUIP_E_DEVICE, &error);
                assert_non_null(strstr(error.message, "the GPU was lost"));
                assert_int_equal(qp_answer_next(s, true, &piece, &error), QUIP_E_DEVICE);
                assert_int_equal(quip_session_clone(&other, s, &error), QUIP_E_DEVICE);
            }
            quip_session_close(s);
            quip_model_close(model);
            check_calls();
            assert_int_equal(fake_gpu.n_live, typed != 2); // the device that was lost
            assert_int_equal(alloc_fault_live(), live);
        }
}

/* ---- several models ---- */

/* One of two models loses the GPU. The other one, and one on the CPU, go on. */
static void test_one_of_three_is_lost(void **state)
{
    (void)state;
    if (!fake_gpu_is_here())
        skip();
    const quip_model_options on_cpu = { .backend = QUIP_BACKEND_CPU };
    quip_model *const models[] = { open_on_gpu(models_named("llama f32")),
                                   open_on_gpu(models_named("gemma3 mixed")),
                                   models_open(models_named("llama f32"), &on_cpu) };
    quip_session *s[3];
    float logits[TINY_VOCAB];
    quip_error error = { 0 };
    for (int i = 0; i < 3; i++) {
        s[i] = open_session(models[i], 100);
        check(run_token(s[i], &error), &error);
    }
    memcpy(logits, quip_session_logits(s[2]), sizeof logits);
    fake_gpu.failure = FAKE_LOST;
    fake_gpu.fail_in = 1;
    assert_int_equal(run_token(s[0], &error), QUIP_E_DEVICE);
    for (int k = 0; k < 3; k++)
        check(run_token(s[1], &error), &error);
    check(quip_session_rewind(s[2], 0, &error), &error);
    check(run_token(s[2], &error), &error);
    assert_memory_equal(quip_session_logits(s[2]), logits, sizeof logits);
    for (int i = 0; i < 3; i++) {
        quip_session_close(s[i]);
        quip_model_close(models[i]);
    }
    check_calls();
    assert_int_equal(fake_gpu.n_live, 1);
}

/* ---- batches ---- */

/* The next token of two sessions. Are their keys and values in the same buffers after it? */
static bool run_both(quip_session *const s[2])
{
    struct device *d = s[0]->device;
    const struct backend *b = d->backend;
    qp_device_enter(d, TURN_SHORT);
    for (int i = 0; i < 2; i++) {
        const int pos = s[i]->sequence->pos;
        d->rows[i] = (struct row){ s[i]->sequence, pos, pos + 1, 5, NULL, false };
    }
    assert_int_equal(b->begin(d, 0), QUIP_OK);
    assert_int_equal(qp_forward(d, &(struct rows){ d->rows, 2 }, NULL, NULL), QUIP_OK);
    assert_int_equal(b->submit(d), QUIP_OK);
    assert_int_equal(b->poll(d, true), QUIP_OK);
    qp_device_leave(d);
    return qp_webgpu_is_gathered(&(struct rows){ d->rows, 2 });
}

/* Without memory for common buffers a batch does without. It asks again after a session is closed,
 * not in each step. */
static void test_no_memory_for_a_batch(void **state)
{
    (void)state;
    if (!fake_gpu_is_here())
        skip();
    quip_model *model = open_on_gpu(models_named("llama f32"));
    quip_session *const s[] = { open_session(model, 100), open_session(model, 100) },
                        *other = open_session(model, 100);
    fake_gpu.failure = FAKE_SHORT;
    fake_gpu.fail_in = 1;
    assert_false(run_both(s));
    assert_string_equal(fake_gpu.failed, "wgpuDeviceCreateBuffer");
    assert_false(run_both(s));
    quip_session_close(other);
    assert_true(run_both(s));
    for (int i = 0; i < 2; i++)
        quip_session_close(s[i]);
    quip_model_close(model);
    check_calls();
    assert_int_equal(fake_gpu.n_live, 0);
}

/* ---- many sessions ---- */

/* Session number i: another size, sometimes a clone, sometimes one that is closed at once. */
static void run_session(quip_model *model, int i)
{
    quip_session *s = open_session(model, 100 + i % 20), *copy;
    quip_error error = { 0 };
    if (i % 5 != 0) {
        check(run_token(s, &error), &error);
        check(run_token(s, &error), &error);
    }
    if (i % 7 == 0) {
        check(quip_session_clone(&copy, s, &error), &error);
        quip_session_close(s);
        s = copy;
        check(run_token(s, &error), &error);
    }
    quip_session_close(s);
}

enum {
    N_BEFORE = 140, // of every kind of session
    N_SESSIONS = 500
};

static void test_500_sessions(void **state)
{
    static const char *const names[] = { "llama f32", "gemma4 mixed", "lfm2 int8" };
    (void)state;
    if (!fake_gpu_is_here())
        skip();
    quip_model *models[QP_COUNT(names)];
    int live = 0, n_live = 0;
    for (size_t i = 0; i < QP_COUNT(names); i++)
        models[i] = open_on_gpu(models_named(names[i]));
    for (int i = 0; i < N_BEFORE + N_SESSIONS; i++) {
        if (i == N_BEFORE) {
            live = alloc_fault_live();
            n_live = fake_gpu.n_live;
        }
        for (size_t m = 0; m < QP_COUNT(names); m++)
            run_session(models[m], i);
    }
    assert_int_equal(alloc_fault_live(), live);
    assert_int_equal(fake_gpu.n_live, n_live);
    for (size_t i = 0; i < QP_COUNT(names); i++)
        quip_model_close(models[i]);
    check_calls();
    assert_int_equal(fake_gpu.n_live, 0);
}

/* ---- the GPU of this machine ---- */

static void test_cancel_in_mid_flight_here(void **state)
{
    (void)state;
    if (!has_gpu())
        skip();
    check_cancel(open_on_gpu(models_named("llama int8")));
}

/* Bytes of the heap, which the library of the GPU and a driver for it use, too. */
static size_t heap_bytes(void)
{
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 33)
    const struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
#else
    return 0;
#endif
}

/* Found on lavapipe: the heap of 109 MB grows by at most 10 KB, and sometimes by 100 KB at once.
 * What sessions leak grows in each half. */
static void test_500_sessions_here(void **state)
{
    enum {
        N_WARM = 30,
        N_HALF = N_SESSIONS / 2,
        MAX_GROWTH = 100 * N_HALF // bytes
    };
    (void)state;
    if (!has_gpu())
        skip();
    quip_model *model = open_on_gpu(models_named("llama int8"));
    size_t bytes[3] = { 0 };
    for (int i = 0; i < N_WARM + 2 * N_HALF; i++) {
        if (i == N_WARM || i == N_WARM + N_HALF)
            bytes[i > N_WARM] = heap_bytes();
        run_session(model, i);
    }
    bytes[2] = heap_bytes();
    printf("  the heap has %zu bytes, after %d sessions %zu, and after as many again %zu\n",
           bytes[0], N_HALF, bytes[1], bytes[2]);
    assert_true(bytes[1] < bytes[0] + MAX_GROWTH || bytes[2] < bytes[1] + MAX_GROWTH);
    quip_model_close(model);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_each_call_fails, use_fake, end_fake),
        cmocka_unit_test_setup_teardown(test_matrices_are_chosen, use_fake, end_fake),
        cmocka_unit_test_setup_teardown(test_attention_by_matrices, use_fake, end_fake),
        cmocka_unit_test_setup_teardown(test_matrices_that_fail, use_fake, end_fake),
        cmocka_unit_test_setup_teardown(test_each_call_of_embed_fails, use_fake, end_fake),
        cmocka_unit_test_setup_teardown(test_auto_uses_the_cpu, use_fake, end_fake),
        cmocka_unit_test_setup_teardown(test_auto_uses_the_faster_one, use_fake, end_fake),
        cmocka_unit_test_setup_teardown(test_each_allocation_fails, use_fake, end_fake),
        cmocka_unit_test_setup_teardown(test_limits_that_are_too_small, use_fake, end_fake),
        cmocka_unit_test_setup_teardown(test_limits_of_bindings, use_fake, end_fake),
        cmocka_unit_test_setup_teardown(test_cancel_in_mid_flight, use_fake, end_fake),
        cmocka_unit_test_setup_teardown(test_waits_ask, use_fake, end_fake),
        cmocka_unit_test_setup_teardown(test_lost_in_mid_flight, use_fake, end_fake),
        cmocka_unit_test_setup_teardown(test_one_of_three_is_lost, use_fake, end_fake),
        cmocka_unit_test_setup_teardown(test_no_memory_for_a_batch, use_fake, end_fake),
        cmocka_unit_test_setup_teardown(test_500_sessions, use_fake, end_fake),
        cmocka_unit_test(test_cancel_in_mid_flight_here),
        cmocka_unit_test(test_500_sessions_here),
    };
    return cmocka_run_group_tests(tests, models_make, models_remove);
}
