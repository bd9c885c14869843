/* api.c: does quip.h keep its promises? NULL handles, reserved fields, struct sizes, options that
 * change, prefill in steps, the tokens of an answer. */
#include "support/check.h"
#include "support/shared.h"
#include "support/tiny_model.h"

#include "engine/engine.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char path[64];
static quip_model *model;

static int open_model(void **state)
{
    (void)state;
    quip_error error = { 0 };
    struct tiny_model tiny = tiny_gemma3;
    tiny.config = "chat chatml\n";
    snprintf(path, sizeof path, "tiny-api-%d.bin", (int)getpid());
    check(tiny_model_write(path, &tiny, &error), &error);
    check(quip_model_open(&model, path, &(quip_model_options){ .n_threads = 3 }, &error), &error);
    return 0;
}

static int close_model(void **state)
{
    (void)state;
    quip_model_close(model);
    unlink(path);
    return 0;
}

static quip_session *open_session(const quip_session_options *options)
{
    quip_session *s;
    quip_error error = { 0 };
    check(quip_session_open(&s, model, options, &error), &error);
    return s;
}

static void append(quip_session *s, const char *text)
{
    quip_error error = { 0 };
    check(quip_session_append(s, QUIP_ROLE_USER, text, strlen(text), &error), &error);
}

/* The call fails with this status and a sentence that contains `word`. */
#define assert_refused(call, want, word)                                                           \
    do {                                                                                           \
        assert_int_equal(call, want);                                                              \
        assert_int_equal(error.status, want);                                                      \
        if (!strstr(error.message, word))                                                          \
            fail_msg("\"%s\" does not say \"%s\"", error.message, word);                           \
    } while (0)

/* ---- NULL ---- */

static bool no_read(void *user, uint64_t offset, void *buffer, size_t n)
{
    (void)user, (void)offset, (void)buffer, (void)n;
    return false;
}

static void test_null_models(void **state)
{
    (void)state;
    const quip_source source = { .size = 1, .read_at = no_read };
    quip_model *m = model;
    quip_error error = { 0 };
    quip_model_info info = { .struct_size = sizeof info, .n_layers = 7 };
    quip_plan plan = { .struct_size = sizeof plan, .kv_bytes = 7 };
    assert_refused(quip_model_open(NULL, path, NULL, &error), QUIP_E_ARGUMENT, "model is NULL");
    assert_refused(quip_model_open(&m, NULL, NULL, &error), QUIP_E_ARGUMENT, "path is NULL");
    assert_refused(quip_model_open_source(NULL, &source, NULL, &error), QUIP_E_ARGUMENT, "model");
    assert_refused(quip_model_open_source(&m, NULL, NULL, &error), QUIP_E_ARGUMENT, "source");
    assert_null(m);
    assert_refused(quip_model_open_source(&m, &(quip_source){ .size = 1 }, NULL, &error),
                   QUIP_E_ARGUMENT, "read_at is NULL");
    assert_refused(quip_model_open_fd(NULL, 0, 0, 0, NULL, &error), QUIP_E_ARGUMENT,
                   "model is NULL");
    assert_refused(quip_model_open_fd(&m, -1, 0, 0, NULL, &error), QUIP_E_IO, "model: ");
    assert_refused(quip_model_open_memory(NULL, "x", 1, NULL, NULL, NULL, &error), QUIP_E_ARGUMENT,
                   "model is NULL");
    assert_refused(quip_model_open_memory(&m, NULL, 1, NULL, NULL, NULL, &error), QUIP_E_ARGUMENT,
                   "bytes is NULL");
    assert_refused(quip_model_get_info(NULL, &info, &error), QUIP_E_ARGUMENT, "model is NULL");
    assert_int_equal(info.n_layers, 0);
    assert_refused(quip_model_get_info(model, NULL, &error), QUIP_E_ARGUMENT, "info is NULL");
    assert_refused(quip_model_plan(NULL, NULL, &plan, &error), QUIP_E_ARGUMENT, "model is NULL");
    assert_int_equal(plan.kv_bytes, 0);
    assert_refused(quip_model_plan(model, NULL, NULL, &error), QUIP_E_ARGUMENT, "plan is NULL");
    quip_model_close(NULL);
    quip_memory_free(NULL, 5);
    assert_null(quip_memory_alloc(0));
    assert_null(quip_memory_alloc(SIZE_MAX / 2));
    /* without a quip_error */
    assert_int_equal(quip_model_open(&m, NULL, NULL, NULL), QUIP_E_ARGUMENT);
    assert_int_equal(quip_model_get_info(NULL, NULL, NULL), QUIP_E_ARGUMENT);
}

static void test_null_adapters(void **state)
{
    (void)state;
    const quip_source source = { .size = 1, .read_at = no_read };
    quip_adapter *a = NULL;
    quip_error error = { 0 };
    assert_refused(quip_adapter_open(NULL, model, "x", &error), QUIP_E_ARGUMENT, "adapter is NULL");
    assert_refused(quip_adapter_open(&a, NULL, "x", &error), QUIP_E_ARGUMENT, "model is NULL");
    assert_refused(quip_adapter_open(&a, model, NULL, &error), QUIP_E_ARGUMENT, "path is NULL");
    assert_refused(quip_adapter_open_source(NULL, model, &source, &error), QUIP_E_ARGUMENT,
                   "adapter is NULL");
    assert_refused(quip_adapter_open_source(&a, NULL, &source, &error), QUIP_E_ARGUMENT, "model");
    assert_refused(quip_adapter_open_source(&a, model, NULL, &error), QUIP_E_ARGUMENT, "source");
    quip_adapter_close(NULL);
}

static void test_null_sessions(void **state)
{
    (void)state;
    quip_session *s = NULL, *real = open_session(NULL);
    const quip_token token = 1;
    quip_piece piece = { .struct_size = sizeof piece, .n_text = 7 };
    quip_result result = { .struct_size = sizeof result, .n_output_tokens = 7 };
    int n;
    quip_error error = { 0 };
    const struct {
        quip_status status;
        const char *what;
    } calls[] = {
#define CALL(call) { call, #call }
        CALL(quip_session_open(NULL, model, NULL, &error)),
        CALL(quip_session_open(&s, NULL, NULL, &error)),
        CALL(quip_session_clone(NULL, real, &error)),
        CALL(quip_session_clone(&s, NULL, &error)),
        CALL(quip_session_set_options(NULL, NULL, &error)),
        CALL(quip_session_set_adapter(NULL, NULL, 1, &error)),
        CALL(quip_session_generate(NULL, "x", 1, NULL, NULL, NULL, &error)),
        CALL(quip_session_generate(NULL, "x", 1, NULL, NULL, &result, &error)),
        CALL(quip_session_generate(real, NULL, 1, NULL, NULL, NULL, &error)),
        CALL(quip_session_append(NULL, QUIP_ROLE_USER, "x", 1, &error)),
        CALL(quip_session_append(real, QUIP_ROLE_USER, NULL, 1, &error)),
        CALL(quip_session_append(real, (quip_role)4, "x", 1, &error)),
        CALL(quip_session_append(real, (quip_role)-1, "x", 1, &error)),
        CALL(quip_session_next(NULL, &piece, &error)),
        CALL(quip_session_next(real, NULL, &error)),
        CALL(quip_session_get_result(NULL, &result, &error)),
        CALL(quip_session_get_result(real, NULL, &error)),
        CALL(quip_session_rewind(NULL, 0, &error)),
        CALL(quip_session_rewind(real, 1, &error)),
        CALL(quip_session_rewind(real, -1, &error)),
        CALL(quip_session_undo(NULL, &error)),
        CALL(quip_session_prefill(NULL, &token, 1, &error)),
        CALL(quip_session_prefill(real, NULL, 1, &error)),
        CALL(quip_session_prefill(real, &token, -1, &error)),
        CALL(quip_session_prefill_logits(NULL, &token, 1, NULL, NULL, &error)),
        CALL(quip_session_prefill_logits(real, NULL, 1, NULL, NULL, &error)),
        CALL(quip_session_begin_append(NULL, QUIP_ROLE_USER, "x", 1, &n, &error)),
        CALL(quip_session_begin_append(real, QUIP_ROLE_USER, NULL, 1, &n, &error)),
        CALL(quip_session_begin_prefill(NULL, &token, 1, &n, &error)),
        CALL(quip_session_begin_prefill(real, NULL, 1, &n, &error)),
        CALL(quip_session_run(NULL, 1, &n, &error)),
        CALL(quip_session_run(real, 0, &n, &error)),
        CALL(quip_session_tokenize(NULL, QUIP_ROLE_USER, "x", 1, NULL, 0, &n, &error)),
        CALL(quip_session_tokenize(real, QUIP_ROLE_USER, NULL, 1, NULL, 0, &n, &error)),
        CALL(quip_session_tokenize(real, QUIP_ROLE_USER, "x", 1, NULL, 0, NULL, &error)),
        CALL(quip_session_tokenize(real, QUIP_ROLE_USER, "x", 1, NULL, 1, &n, &error)),
    };
    for (size_t i = 0; i < QP_COUNT(calls); i++)
        if (calls[i].status != QUIP_E_ARGUMENT)
            fail_msg("%s returns %d", calls[i].what, (int)calls[i].status);
    assert_null(s);
    assert_int_equal(piece.n_text, 0);
    assert_int_equal(result.n_output_tokens, 0);
    assert_int_equal(quip_session_position(real), 0);
    assert_int_equal(quip_session_position(NULL), 0);
    assert_int_equal(quip_session_n_context(NULL), 0);
    assert_int_equal(quip_session_n_threads(NULL), 0);
    assert_null(quip_session_logits(NULL));
    assert_null(quip_session_cancel_flag(NULL));
    quip_session_cancel(NULL);
    quip_session_close(NULL);
    quip_session_close(real);
}

static void test_null_tokens(void **state)
{
    (void)state;
    quip_token token = 1;
    quip_error error = { 0 };
    int n;
    size_t n_text;
    char text[8];
    assert_refused(quip_tokenize(NULL, "x", 1, false, NULL, 0, &n, &error), QUIP_E_ARGUMENT,
                   "model is NULL");
    assert_refused(quip_tokenize(model, NULL, 1, false, NULL, 0, &n, &error), QUIP_E_ARGUMENT,
                   "text is NULL");
    assert_refused(quip_tokenize(model, "x", 1, false, NULL, 1, &n, &error), QUIP_E_ARGUMENT,
                   "tokens is NULL");
    assert_refused(quip_tokenize(model, "x", 1, false, NULL, 0, NULL, &error), QUIP_E_ARGUMENT,
                   "n_tokens is NULL");
    assert_refused(quip_detokenize(NULL, &token, 1, text, 8, &n_text, &error), QUIP_E_ARGUMENT,
                   "model is NULL");
    assert_refused(quip_detokenize(model, NULL, 1, text, 8, &n_text, &error), QUIP_E_ARGUMENT,
                   "tokens is NULL");
    assert_refused(quip_detokenize(model, &token, 1, NULL, 8, &n_text, &error), QUIP_E_ARGUMENT,
                   "text is NULL");
    assert_refused(quip_detokenize(model, &token, 1, text, 8, NULL, &error), QUIP_E_ARGUMENT,
                   "n is NULL");
    token = TINY_VOCAB;
    assert_refused(quip_detokenize(model, &token, 1, text, 8, &n_text, &error), QUIP_E_ARGUMENT,
                   "token 0 is");
}

/* ---- structs ---- */

static void test_reserved_fields_are_zero(void **state)
{
    (void)state;
    quip_error error = { 0 };
    quip_model *m = NULL;
    quip_adapter *a = NULL;
    quip_session *s = NULL, *real = open_session(NULL);
    quip_plan plan = { .struct_size = sizeof plan };
    for (int i = 0; i < 8; i++) {
        quip_model_options o = { 0 };
        o.reserved[i] = 1;
        assert_refused(quip_model_open(&m, path, &o, &error), QUIP_E_ARGUMENT, "reserved");
        assert_refused(quip_model_open_memory(&m, "1234", 4, NULL, NULL, &o, &error),
                       QUIP_E_ARGUMENT, "reserved");
    }
    for (int i = 0; i < 4; i++) {
        quip_source source = { .size = 1, .read_at = no_read };
        quip_session_options o = { 0 };
        source.reserved[i] = o.reserved[i % (int)QP_COUNT(o.reserved)] = UINT64_MAX;
        assert_refused(quip_model_open_source(&m, &source, NULL, &error), QUIP_E_ARGUMENT,
                       "quip_source.reserved");
        assert_refused(quip_adapter_open_source(&a, model, &source, &error), QUIP_E_ARGUMENT,
                       "quip_source.reserved");
        assert_refused(quip_session_open(&s, model, &o, &error), QUIP_E_ARGUMENT,
                       "quip_session_options.reserved");
        assert_refused(quip_session_set_options(real, &o, &error), QUIP_E_ARGUMENT, "reserved");
        assert_refused(quip_model_plan(model, &o, &plan, &error), QUIP_E_ARGUMENT, "reserved");
    }
    assert_null(m);
    assert_null(a);
    assert_null(s);
    quip_session_close(real);
}

/* Structs that the library fills, and how to fill them. */
static quip_status fill_info(void *to, quip_session *s, quip_error *error)
{
    (void)s;
    return quip_model_get_info(model, to, error);
}

static quip_status fill_plan(void *to, quip_session *s, quip_error *error)
{
    (void)s;
    return quip_model_plan(model, NULL, to, error);
}

static quip_status fill_result(void *to, quip_session *s, quip_error *error)
{
    return quip_session_get_result(s, to, error);
}

static quip_status fill_generated(void *to, quip_session *s, quip_error *error)
{
    return quip_session_generate(s, "hen", 3, NULL, NULL, to, error);
}

static quip_status fill_piece(void *to, quip_session *s, quip_error *error)
{
    return quip_session_next(s, to, error);
}

static const struct filled {
    const char *name;
    size_t least, size; // in version 0.1, now
    quip_status (*fill)(void *to, quip_session *s, quip_error *error);
} outputs[] = {
    { "quip_model_info", offsetof(quip_model_info, n_experts), sizeof(quip_model_info), fill_info },
    { "quip_plan", sizeof(quip_plan), sizeof(quip_plan), fill_plan },
    { "quip_result", offsetof(quip_result, backend), sizeof(quip_result), fill_result },
    { "quip_result of generate", offsetof(quip_result, backend), sizeof(quip_result),
      fill_generated },
    { "quip_piece", sizeof(quip_piece), sizeof(quip_piece), fill_piece },
};

/* The library writes exactly struct_size bytes, and 0 where it has no field. */
static void test_struct_sizes(void **state)
{
    (void)state;
    enum {
        MORE = 64
    };
    quip_error error = { 0 };
    _Alignas(8) unsigned char bytes[1024 + MORE];
    for (size_t i = 0; i < QP_COUNT(outputs); i++) {
        const struct filled *o = &outputs[i];
        for (uint32_t size = (uint32_t)o->least; size <= 1024; size += 8) {
            quip_session *s = open_session(&(quip_session_options){ .n_context = 64 });
            append(s, "the hen");
            memset(bytes, 0xab, sizeof bytes);
            memcpy(bytes, &size, sizeof size);
            check(o->fill(bytes, s, &error), &error);
            assert_memory_equal(bytes, &size, sizeof size);
            for (size_t at = o->size; at < size; at++)
                assert_int_equal(bytes[at], 0);
            for (size_t at = size; at < sizeof bytes; at++)
                assert_int_equal(bytes[at], 0xab);
            quip_session_close(s);
            size += size < o->size + 16 ? 0 : 200;
        }
        const uint32_t wrong[] = { 0, 3, (uint32_t)o->least - 1, 1025, UINT32_MAX };
        quip_session *s = open_session(&(quip_session_options){ .n_context = 64 });
        append(s, "the hen");
        const int position = quip_session_position(s);
        for (size_t j = 0; j < QP_COUNT(wrong); j++) {
            memset(bytes, 0xab, sizeof bytes);
            memcpy(bytes, &wrong[j], sizeof wrong[j]);
            assert_refused(o->fill(bytes, s, &error), QUIP_E_ARGUMENT, "struct_size");
            for (size_t at = sizeof wrong[j]; at < sizeof bytes; at++)
                assert_int_equal(bytes[at], 0xab);
        }
        assert_int_equal(quip_session_position(s), position);
        quip_session_close(s);
    }
}

/* ---- models ---- */

static void test_backends(void **state)
{
    (void)state;
    quip_error error = { 0 };
    quip_model *m = NULL;
    quip_model_info info = { .struct_size = sizeof info };
    check(quip_backend_check(QUIP_BACKEND_AUTO, &error), &error);
    check(quip_backend_check(QUIP_BACKEND_CPU, &error), &error);
    for (int32_t backend = QUIP_BACKEND_AUTO; backend <= QUIP_BACKEND_CPU; backend++) {
        const quip_model_options o = { .backend = backend, .n_threads = 2, .background = true };
        check(quip_model_open(&m, path, &o, &error), &error);
        check(quip_model_get_info(m, &info, &error), &error);
        assert_int_equal(info.backend, QUIP_BACKEND_CPU);
        assert_int_equal(info.n_threads, 2);
        assert_int_equal(info.backend_reason == NULL, backend != QUIP_BACKEND_AUTO);
        quip_model_close(m);
    }
    const quip_status gpu = quip_backend_check(QUIP_BACKEND_GPU, &error);
    if (gpu) { // not built, no library or no GPU; tests/gpu.c has the rest
        const quip_model_options o = { .backend = QUIP_BACKEND_GPU };
        assert_refused(gpu, QUIP_E_UNSUPPORTED, "");
        assert_refused(quip_model_open(&m, path, &o, &error), QUIP_E_UNSUPPORTED, "");
    }
    assert_refused(quip_model_open(&m, path, &(quip_model_options){ .backend = 3 }, &error),
                   QUIP_E_ARGUMENT, "backend is 3; must be 0 (auto), 1 (cpu) or 2 (gpu)");
    assert_refused(quip_model_open(&m, path, &(quip_model_options){ .n_threads = 257 }, &error),
                   QUIP_E_ARGUMENT, "n_threads is 257; must be 0 to 256");
    assert_null(m);
}

static void test_threads(void **state)
{
    (void)state;
    const struct {
        int limit, n_threads;
    } cases[] = { { 0, 3 }, { 1, 1 }, { 2, 2 }, { 3, 3 }, { 200, 3 } };
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        quip_session *s =
            open_session(&(quip_session_options){ .n_context = 64, .n_threads = cases[i].limit });
        assert_int_equal(quip_session_n_threads(s), cases[i].n_threads);
        quip_session_close(s);
    }
}

static void test_model_without_weights(void **state)
{
    (void)state;
    quip_error error = { 0 };
    quip_model *m = NULL;
    quip_session *s = NULL;
    quip_adapter *a = NULL;
    quip_model_info info = { .struct_size = sizeof info };
    quip_plan plan = { .struct_size = sizeof plan }, full = plan;
    quip_token ids[2][16];
    int n[2];
    const quip_model_options header = { .no_weights = true, .n_threads = 3 };
    check(quip_model_open(&m, path, &header, &error), &error);
    check(quip_model_get_info(m, &info, &error), &error);
    assert_string_equal(info.architecture, "gemma3");
    check(quip_tokenize(m, "the hen", 7, false, ids[0], 16, &n[0], &error), &error);
    check(quip_tokenize(model, "the hen", 7, false, ids[1], 16, &n[1], &error), &error);
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(ids[0], ids[1], (size_t)n[0] * sizeof ids[0][0]);
    check(quip_model_plan(m, NULL, &plan, &error), &error);
    check(quip_model_plan(model, NULL, &full, &error), &error);
    assert_int_equal(plan.kv_bytes, full.kv_bytes);
    assert_int_equal(plan.shared_bytes, full.shared_bytes);
    assert_true(plan.shared_bytes > 0 && plan.shared_bytes < plan.scratch_bytes);
    assert_refused(quip_session_open(&s, m, NULL, &error), QUIP_E_ARGUMENT, "no_weights");
    assert_refused(quip_adapter_open(&a, m, "x", &error), QUIP_E_ARGUMENT, "no_weights");
    quip_model_close(m);
}

static void overwrite(const char *name, const char *bytes, size_t n)
{
    FILE *out = fopen(name, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(bytes, 1, n, out), n);
    assert_int_equal(fclose(out), 0);
}

/* What quip_model_open says about a file that changes. */
static void test_files_that_change(void **state)
{
    (void)state;
    static const char name[] = "changing-api.bin";
    const quip_model_options copied = { .no_mmap = true };
    quip_error error = { 0 };
    quip_model *models[2];
    quip_session *sessions[2], *other;
    size_t n;
    char *bytes = read_whole(path, &n);
    overwrite(name, bytes, n);
    for (int i = 0; i < 2; i++) {
        check(quip_model_open(&models[i], name, i ? &copied : NULL, &error), &error);
        check(quip_session_open(&sessions[i], models[i], NULL, &error), &error);
        append(sessions[i], "one");
    }
    const int position = quip_session_position(sessions[0]);
    usleep(20000); // the clock of a file system
    overwrite(name, bytes, n);
    assert_refused(quip_session_append(sessions[0], QUIP_ROLE_USER, "two", 3, &error), QUIP_E_IO,
                   "changing-api.bin: was truncated or overwritten");
    assert_int_equal(quip_session_position(sessions[0]), position);
    assert_refused(quip_session_generate(sessions[0], "two", 3, NULL, NULL, NULL, &error),
                   QUIP_E_IO, "open it again");
    check(quip_session_open(&other, models[0], NULL, &error), &error);
    assert_refused(quip_session_generate(other, "one", 3, NULL, NULL, NULL, &error), QUIP_E_IO,
                   "open it again");
    assert_int_equal(quip_session_position(other), 0);
    quip_session_close(other);

    assert_int_equal(truncate(name, 10), 0);
    append(sessions[1], "two");
    for (int i = 0; i < 2; i++) {
        quip_session_close(sessions[i]);
        quip_model_close(models[i]);
    }
    unlink(name);
    free(bytes);
}

static void test_names_of_models_in_memory(void **state)
{
    (void)state;
    quip_error error = { 0 };
    quip_model *m = NULL;
    char name[] = "my model";
    void *memory = quip_memory_alloc(5000);
    assert_non_null(memory);
    assert_int_equal((uintptr_t)memory % 64, 0);
    assert_int_equal(((char *)memory)[4999], 0);
    const quip_model_options o = { .name = name };
    assert_refused(quip_model_open_memory(&m, memory, 5000, NULL, NULL, &o, &error), QUIP_E_FORMAT,
                   "my model: ");
    assert_refused(quip_model_open_memory(&m, memory, 5000, NULL, NULL, NULL, &error),
                   QUIP_E_FORMAT, "model: ");
    quip_memory_free(memory, 5000);
}

/* ---- sessions ---- */

static bool collect(void *user, const char *text, size_t n)
{
    return qp_bytes_append(user, text, n);
}

/* The answer to "the hen"; the session goes back to where it was. */
static struct bytes answer(quip_session *s, quip_result *result)
{
    quip_error error = { 0 };
    struct bytes text = { 0 };
    check(quip_session_generate(s, "the hen", 7, collect, &text, result, &error), &error);
    check(quip_session_undo(s, &error), &error);
    return text;
}

static void assert_same_bytes(struct bytes a, struct bytes b)
{
    assert_int_equal(a.n, b.n);
    if (a.n > 0)
        assert_memory_equal(a.data, b.data, a.n);
    qp_bytes_close(&a);
    qp_bytes_close(&b);
}

static void assert_same_text(struct bytes a, struct bytes b)
{
    assert_true(a.n > 0);
    assert_same_bytes(a, b);
}

static const quip_session_options sampled = {
    .n_context = 200, .max_output_tokens = 20, .temperature = 1.5f, .has_seed = true
};

/* 0 is a seed like any other; without has_seed the one that was drawn is reported. */
static void test_seeds(void **state)
{
    (void)state;
    quip_session_options o = sampled;
    quip_result result = { .struct_size = sizeof result };
    quip_session *s = open_session(&o), *t = open_session(&o);
    assert_same_text(answer(s, &result), answer(t, NULL));
    assert_int_equal(result.seed, 0);
    quip_session_close(s);
    quip_session_close(t);
    o.has_seed = false;
    o.seed = 77; // not used
    s = open_session(&o);
    struct bytes drawn = answer(s, &result);
    assert_true(result.seed != 77);
    quip_session_close(s);
    o.has_seed = true;
    o.seed = result.seed;
    s = open_session(&o);
    assert_same_bytes(drawn, answer(s, NULL)); // which may end at once
    quip_session_close(s);
}

static void test_options_change_between_turns(void **state)
{
    (void)state;
    quip_error error = { 0 };
    const quip_session_options greedy = { .n_context = 200,
                                          .max_output_tokens = 20,
                                          .greedy = true };
    quip_session_options o = sampled;
    quip_result result = { .struct_size = sizeof result };
    quip_session *s = open_session(&greedy), *other = open_session(&sampled);
    quip_session *plain = open_session(&greedy);
    /* from greedy to sampled, as if opened so, and back */
    check(quip_session_set_options(s, &sampled, &error), &error);
    assert_same_text(answer(s, NULL), answer(other, NULL));
    check(quip_session_set_options(s, &greedy, &error), &error);
    assert_same_text(answer(s, NULL), answer(plain, NULL));
    /* with has_seed the random numbers begin again, without it they continue */
    check(quip_session_set_options(s, &sampled, &error), &error);
    check(quip_session_set_options(other, &sampled, &error), &error);
    o.has_seed = false;
    check(quip_session_set_options(other, &o, &error), &error);
    assert_same_text(answer(s, NULL), answer(other, NULL));
    check(quip_session_set_options(other, &o, &error), &error);
    struct bytes again = answer(s, &result), second = answer(other, NULL);
    assert_same_text(again, second);
    /* a limit, a number of threads */
    o.max_output_tokens = 3;
    o.n_threads = 1;
    check(quip_session_set_options(s, &o, &error), &error);
    assert_int_equal(quip_session_n_threads(s), 1);
    struct bytes text = answer(s, &result);
    qp_bytes_close(&text);
    assert_true(result.n_output_tokens <= 3);
    o.n_threads = 2;
    check(quip_session_set_options(s, &o, &error), &error);
    assert_int_equal(quip_session_n_threads(s), 2);
    quip_session_close(s);
    quip_session_close(other);
    quip_session_close(plain);
}

static void test_stop_texts_change(void **state)
{
    (void)state;
    quip_error error = { 0 };
    quip_session_options o = { .n_context = 200, .max_output_tokens = 20, .greedy = true };
    const quip_session_options first = o;
    quip_session *s = open_session(&o);
    struct bytes whole = answer(s, NULL);
    assert_true(whole.n > 4);
    char stop[3] = { (char)whole.data[2], (char)whole.data[3], 0 };
    const char *stops[] = { stop };
    o.stop = stops;
    o.n_stop = 1;
    check(quip_session_set_options(s, &o, &error), &error);
    memset(stop, 'z', 2); // the texts were copied
    struct bytes text = answer(s, NULL);
    assert_true(text.n <= 2);
    qp_bytes_close(&text);
    check(quip_session_set_options(s, NULL, &error), &error);
    check(quip_session_set_options(s, &first, &error), &error);
    assert_same_text(whole, answer(s, NULL));
    quip_session_close(s);
}

static void test_options_that_cannot_change(void **state)
{
    (void)state;
    quip_error error = { 0 };
    const quip_session_options first = {
        .n_context = 200, .max_output_tokens = 9, .chat_template = "gemma", .system = "be brief"
    };
    quip_session *s = open_session(&first);
    const struct {
        quip_session_options options;
        const char *word;
    } wrong[] = {
        { { .n_context = 100 }, "n_context is 100, but that of an open session cannot change" },
        { { .no_template = true }, "template" },
        { { .chat_template = "chatml" }, "template" },
        { { .chat_template = "klingon" }, "klingon" },
        { { .system = "be long" }, "system" },
        { { .temperature = -1 }, "temperature is -1; must be 0 to 100" },
        { { .n_threads = -1 }, "n_threads" },
        { { .top_p = 2 }, "top_p" },
    };
    check(quip_session_set_options(s, &(quip_session_options){ .system = "be long" }, &error),
          &error); // nothing was appended yet
    check(quip_session_set_options(s, &first, &error), &error);
    append(s, "the hen");
    const int position = quip_session_position(s);
    for (size_t i = 0; i < QP_COUNT(wrong); i++) {
        quip_session_options o = wrong[i].options;
        o.max_output_tokens = 1; // does not change either
        assert_refused(quip_session_set_options(s, &o, &error), QUIP_E_ARGUMENT, wrong[i].word);
    }
    assert_int_equal(s->options.max_output_tokens, 9);
    assert_string_equal(s->options.system, "be brief");
    check(quip_session_set_options(s, &first, &error), &error);
    check(quip_session_set_options(s, NULL, &error), &error);
    assert_int_equal(quip_session_n_context(s), 200);
    assert_string_equal(s->options.system, "be brief");
    assert_string_equal(s->chat->name, "gemma");
    assert_int_equal(quip_session_position(s), position);
    quip_session_close(s);
}

/* ---- tokens of an answer ---- */

/* Their number is that of the result, their text is the answer's and what was held back. */
static void test_tokens_of_pieces(void **state)
{
    (void)state;
    static const char *const stops[] = { "e", "\xe2\x82\xac" };
    for (int i = 0; i < 12; i++) {
        const quip_session_options o = { .n_context = 128,
                                         .max_output_tokens = 40,
                                         .temperature = 1.5f,
                                         .greedy = i == 0,
                                         .seed = (uint64_t)i,
                                         .has_seed = true,
                                         .stop = stops,
                                         .n_stop = i % 3 };
        quip_error error = { 0 };
        quip_session *s = open_session(&o);
        struct tokens tokens = { 0 };
        struct bytes text = { 0 };
        quip_piece piece = { .struct_size = sizeof piece };
        quip_result result = { .struct_size = sizeof result };
        append(s, "the hen");
        const int begin = quip_session_position(s);
        while (!piece.finish_reason) {
            check(quip_session_next(s, &piece, &error), &error);
            assert_true((piece.n_text == 0) == (piece.finish_reason != QUIP_FINISH_NONE));
            assert_true(qp_bytes_append(&text, piece.text, piece.n_text));
            for (int j = 0; j < piece.n_tokens; j++)
                assert_true(qp_tokens_append(&tokens, piece.tokens[j]));
        }
        check(quip_session_get_result(s, &result, &error), &error);
        assert_int_equal(tokens.n, result.n_output_tokens);
        assert_int_equal(result.finish_reason, piece.finish_reason);
        /* all of them are in the context, except one that ended the answer */
        const int n = quip_session_position(s);
        assert_true(n > begin && tokens.n > 0);
        for (int j = 0; j < tokens.n && n - tokens.n + j < n; j++)
            if (s->context[n - 1] == tokens.ids[tokens.n - 1])
                assert_int_equal(s->context[n - tokens.n + j], tokens.ids[j]);
        char all[4096];
        size_t n_all;
        check(quip_detokenize(model, tokens.ids, tokens.n, all, sizeof all, &n_all, &error),
              &error);
        if (result.finish_reason != QUIP_FINISH_STOP && n_all >= text.n && text.n > 4)
            assert_memory_equal(all + n_all - text.n, text.data, text.n);
        qp_tokens_close(&tokens);
        qp_bytes_close(&text);
        quip_session_close(s);
    }
}

/* ---- prefill in steps ---- */

#define LONG_TEXT                                                                                  \
    "the hen and then the other hen, and then ten more hens and the other ten, then the hen"

/* The logits are those of one append, whatever the steps. */
static void test_steps_change_nothing(void **state)
{
    (void)state;
    quip_error error = { 0 };
    const quip_session_options o = { .n_context = 300 };
    quip_session *want = open_session(&o);
    append(want, LONG_TEXT);
    const int n = quip_session_position(want);
    for (int step = 1; step < 2 * n; step += 1 + step / 2) {
        quip_session *s = open_session(&o);
        int n_left = -1, n_steps = 0;
        check(quip_session_begin_append(s, QUIP_ROLE_USER, LONG_TEXT, strlen(LONG_TEXT), &n_left,
                                        &error),
              &error);
        assert_int_equal(n_left, n);
        assert_int_equal(quip_session_position(s), n);
        assert_null(quip_session_logits(s));
        for (; n_left > 0; n_steps++) {
            const int before = n_left;
            check(quip_session_run(s, step, &n_left, &error), &error);
            assert_int_equal(before - n_left, before < step ? before : step);
        }
        assert_int_equal(n_steps, (n + step - 1) / step);
        assert_memory_equal(quip_session_logits(s), quip_session_logits(want),
                            TINY_VOCAB * sizeof(float));
        check(quip_session_run(s, step, &n_left, &error), &error); // nothing is left
        assert_int_equal(n_left, 0);
        assert_non_null(quip_session_logits(s));
        quip_session_close(s);
    }
    quip_session_close(want);
}

/* Tokens in steps; what is left of them runs with the next call. */
static void test_begin_prefill(void **state)
{
    (void)state;
    quip_error error = { 0 };
    quip_token tokens[60];
    for (int i = 0; i < 60; i++)
        tokens[i] = (i * 7919 + 5) % TINY_VOCAB;
    quip_session *s = open_session(NULL), *want = open_session(NULL);
    check(quip_session_prefill(want, tokens, 60, &error), &error);
    int n_left;
    check(quip_session_begin_prefill(s, tokens, 50, &n_left, &error), &error);
    assert_int_equal(n_left, 50);
    check(quip_session_run(s, 7, &n_left, &error), &error);
    assert_int_equal(n_left, 43);
    check(quip_session_prefill(s, tokens + 50, 10, &error), &error);
    assert_memory_equal(quip_session_logits(s), quip_session_logits(want),
                        TINY_VOCAB * sizeof(float));
    const quip_token wrong = -1;
    assert_refused(quip_session_begin_prefill(s, &wrong, 1, NULL, &error), QUIP_E_ARGUMENT,
                   "token 0 is -1");
    assert_int_equal(quip_session_position(s), 60);
    quip_session_close(s);
    quip_session_close(want);
}

/* A step that fails goes back to before the begin; so does undo, at any time. */
static void test_undo(void **state)
{
    (void)state;
    quip_error error = { 0 };
    quip_session *s = open_session(&sampled), *fresh = open_session(&sampled);
    int n_left;
    check(quip_session_undo(s, &error), &error); // nothing to undo
    for (int way = 0; way < 4; way++) {
        append(s, "a");
        const int position = quip_session_position(s);
        check(quip_session_begin_append(s, QUIP_ROLE_USER, "the hen", 7, &n_left, &error), &error);
        if (way > 0)
            check(quip_session_run(s, 2, &n_left, &error), &error);
        if (way == 2) {
            quip_session_cancel(s);
            assert_refused(quip_session_run(s, 2, &n_left, &error), QUIP_E_CANCELLED, "cancelled");
            assert_int_equal(n_left, 0);
        } else {
            quip_piece piece = { .struct_size = sizeof piece };
            for (int i = 0; way == 3 && i < 5; i++)
                check(quip_session_next(s, &piece, &error), &error);
            check(quip_session_undo(s, &error), &error);
        }
        assert_int_equal(quip_session_position(s), position);
        check(quip_session_undo(s, &error), &error); // to the same point
        assert_int_equal(quip_session_position(s), position);
        check(quip_session_rewind(s, 0, &error), &error);
    }
    check(quip_session_set_options(s, &sampled, &error), &error);
    assert_same_text(answer(s, NULL), answer(fresh, NULL));
    /* after set_adapter, tokens that have run before are run again: a cancel leaves them */
    append(s, "a");
    const int position = quip_session_position(s);
    qp_session_reset(s);
    quip_session_cancel(s);
    assert_refused(quip_session_run(s, 2, &n_left, &error), QUIP_E_CANCELLED, "cancelled");
    assert_int_equal(quip_session_position(s), position);
    assert_int_equal(n_left, position);
    quip_session_close(s);
    quip_session_close(fresh);
}

/* A byte that another thread can set. */
static void test_cancel_flag(void **state)
{
    (void)state;
    quip_error error = { 0 };
    quip_session *s = open_session(NULL);
    int n_left;
    check(quip_session_begin_append(s, QUIP_ROLE_USER, "the hen", 7, &n_left, &error), &error);
    *(unsigned char *)quip_session_cancel_flag(s) = 1;
    assert_refused(quip_session_run(s, 2, &n_left, &error), QUIP_E_CANCELLED, "cancelled");
    assert_int_equal(*(unsigned char *)quip_session_cancel_flag(s), 0);
    quip_session_close(s);
}

static void test_tokens_of_a_turn(void **state)
{
    (void)state;
    static const char *const templates[] = { "chatml", "gemma", "llama2", "none" };
    quip_error error = { 0 };
    for (size_t i = 0; i < QP_COUNT(templates); i++) {
        const quip_session_options o = { .n_context = 300,
                                         .chat_template = templates[i],
                                         .system = "be brief" };
        quip_session *s = open_session(&o);
        for (int turn = 0; turn < 4; turn++) {
            const quip_role role = turn % 2 ? QUIP_ROLE_MODEL : QUIP_ROLE_USER;
            quip_token tokens[100];
            int n, n_short;
            check(quip_session_tokenize(s, role, "the hen", 7, tokens, 100, &n, &error), &error);
            check(quip_session_tokenize(s, role, "the hen", 7, tokens, 1, &n_short, &error),
                  &error);
            assert_int_equal(n, n_short);
            const int begin = quip_session_position(s);
            check(quip_session_append(s, role, "the hen", 7, &error), &error);
            assert_int_equal(quip_session_position(s), begin + n);
            assert_memory_equal(s->context + begin, tokens, (size_t)n * sizeof tokens[0]);
        }
        quip_session_close(s);
    }
}

static void test_status_names(void **state)
{
    (void)state;
    static const char *const names[] = { "ok",           "argument",  "memory",
                                         "io",           "format",    "unsupported",
                                         "context_full", "cancelled", "device" };
    for (int i = 0; i < (int)QP_COUNT(names); i++)
        assert_string_equal(quip_status_name((quip_status)-i), names[i]);
    assert_string_equal(quip_status_name((quip_status)-99), "unknown");
    assert_string_equal(quip_version(), QUIP_VERSION);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_null_models),
        cmocka_unit_test(test_null_adapters),
        cmocka_unit_test(test_null_sessions),
        cmocka_unit_test(test_null_tokens),
        cmocka_unit_test(test_reserved_fields_are_zero),
        cmocka_unit_test(test_struct_sizes),
        cmocka_unit_test(test_backends),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_model_without_weights),
        cmocka_unit_test(test_files_that_change),
        cmocka_unit_test(test_names_of_models_in_memory),
        cmocka_unit_test(test_seeds),
        cmocka_unit_test(test_options_change_between_turns),
        cmocka_unit_test(test_stop_texts_change),
        cmocka_unit_test(test_options_that_cannot_change),
        cmocka_unit_test(test_tokens_of_pieces),
        cmocka_unit_test(test_steps_change_nothing),
        cmocka_unit_test(test_begin_prefill),
        cmocka_unit_test(test_undo),
        cmocka_unit_test(test_cancel_flag),
        cmocka_unit_test(test_tokens_of_a_turn),
        cmocka_unit_test(test_status_names),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
