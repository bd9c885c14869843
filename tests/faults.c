/* faults.c: the n-th allocation fails, for every n, and threads cannot be created. A call that
 * fails returns an error, leaks nothing, and leaves models and sessions usable. Decode never
 * allocates, so it cannot fail. */
#include "engine/engine.h"
#include "support/alloc_fault.h"
#include "support/check.h"
#include "support/shared.h"
#include "support/tiny_adapter.h"
#include "support/tiny_model.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define PROMPT "the hen and the \xc3\xa9gg"

/* Chat templates that are plain text for this vocabulary: one with a system role, one that puts the
 * system text before the user's. */
static const char *const templates[] = { "chatml", "gemma" };
#define N_KINDS 4 // of models: the smallest one with each template, convolutions, experts
static char paths[N_KINDS][64];
static quip_model *models[N_KINDS];
static quip_model *model; // the one in use
static const char *path;  // its file

static void use_model(size_t i)
{
    model = models[i];
    path = paths[i];
}

static int make_models(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_KINDS; i++) {
        quip_error error = { 0 };
        struct tiny_model tiny = i == 2 ? tiny_lfm2 : i == 3 ? tiny_shared_experts : tiny_smallest;
        char config[64];
        snprintf(config, sizeof config, "%schat %s\n", i < 2 ? "layer_types LG\n" : "",
                 templates[i % QP_COUNT(templates)]);
        tiny.config = config;
        snprintf(paths[i], sizeof paths[i], "tiny-faults-%d-%zu.bin", (int)getpid(), i);
        check(tiny_model_write(paths[i], &tiny, &error), &error);
        const quip_model_options options = { .n_threads = 4 };
        check(quip_model_open(&models[i], paths[i], &options, &error), &error);
    }
    use_model(0);
    return 0;
}

static int remove_models(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_KINDS; i++) {
        quip_model_close(models[i]);
        unlink(paths[i]);
    }
    return 0;
}

/* ---- the loop ---- */

/* A call that may fail. If it succeeds, it undoes what it did. */
typedef quip_status attempt(void *user, quip_error *error);

/* Call `fn` until no allocation fails any more. Each failure must be QUIP_E_MEMORY with a message,
 * and must not leak. */
static void fail_each(const char *what, attempt *fn, void *user)
{
    if (!alloc_fault_is_here())
        skip();
    for (int n = 0;; n++) {
        quip_error error = { 0 };
        const int live = alloc_fault_live();
        alloc_fault_set(n);
        const quip_status status = fn(user, &error);
        const bool has_failed = alloc_fault_clear();
        if (alloc_fault_live() != live)
            fail_msg("%s: allocation %d failed, %d blocks leaked", what, n,
                     alloc_fault_live() - live);
        if (!has_failed) {
            check(status, &error);
            assert_true(n > 0);
            print_message("%s: %d allocations\n", what, n);
            return;
        }
        if (status != QUIP_E_MEMORY || error.status != status || strlen(error.message) < 10)
            fail_msg("%s: allocation %d failed, the status was %s: %s", what, n,
                     quip_status_name(status), error.message);
    }
}

/* ---- models ---- */

static quip_status open_path(void *options, quip_error *error)
{
    quip_model *m;
    const quip_status status = quip_model_open(&m, path, options, error);
    assert_true((m != NULL) == (status == QUIP_OK));
    quip_model_close(m);
    return status;
}

static bool read_file(void *user, uint64_t offset, void *buffer, size_t n)
{
    FILE *file = user;
    return fseek(file, (long)offset, SEEK_SET) == 0 && fread(buffer, 1, n, file) == n;
}

static quip_status open_source(void *source, quip_error *error)
{
    quip_model *m;
    const quip_status status = quip_model_open_source(&m, source, NULL, error);
    assert_true((m != NULL) == (status == QUIP_OK));
    quip_model_close(m);
    return status;
}

static void test_open(void **state)
{
    (void)state;
    quip_model_options copied = { .no_mmap = true };
    fail_each("quip_model_open", open_path, NULL);
    fail_each("quip_model_open, no_mmap", open_path, &copied);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    fseek(file, 0, SEEK_END);
    quip_source source = {
        .user = file, .size = (uint64_t)ftell(file), .read_at = read_file, .name = "a source"
    };
    fail_each("quip_model_open_source", open_source, &source);
    fclose(file);
}

static quip_status open_memory(void *user, quip_error *error)
{
    const struct bytes *bytes = user;
    quip_model *m;
    quip_status status = quip_model_open_memory(&m, bytes->data, bytes->n, NULL, NULL, NULL, error);
    quip_model_close(m);
    return status;
}

static void test_open_memory(void **state)
{
    (void)state;
    size_t n;
    char *whole = read_whole(path, &n);
    struct bytes bytes = { (uint8_t *)whole, n, n };
    fail_each("quip_model_open_memory", open_memory, &bytes);
    free(whole);
}

/* The rows of a GPU file are copied at open. */
static void test_open_gpu_file(void **state)
{
    (void)state;
    need_shared("data/interop/GEMMA2_2B-gpu-q8/model.bin");
    path = shared_path("data/interop/GEMMA2_2B-gpu-q8/model.bin");
    fail_each("quip_model_open, GPU file", open_path, NULL);
    use_model(0);
}

static quip_status plan(void *user, quip_error *error)
{
    (void)user;
    const quip_model_options header = { .no_weights = true };
    quip_model *m;
    quip_plan p = { .struct_size = sizeof p };
    quip_status status = quip_model_open(&m, path, &header, error);
    if (!status)
        status = quip_model_plan(m, NULL, &p, error);
    quip_model_close(m);
    return status;
}

static void test_plan(void **state)
{
    (void)state;
    fail_each("quip_model_plan", plan, NULL);
}

/* ---- sessions ---- */

static const char *const stops[] = { "never said", "nor this" };
static const quip_session_options greedy = { .greedy = true,
                                             .n_context = 200,
                                             .n_threads = 2,
                                             .max_output_tokens = 20,
                                             .seed = 1,
                                             .has_seed = true,
                                             .stop = stops,
                                             .n_stop = 2,
                                             .system = "be brief" };

static quip_session_options sampled(void)
{
    quip_session_options o = greedy;
    o.greedy = false;
    o.temperature = 1.5f;
    o.top_k = 50;
    o.top_p = 0.9f;
    return o;
}

static quip_session *open_session(const quip_session_options *options)
{
    quip_session *s;
    quip_error error = { 0 };
    check(quip_session_open(&s, model, options, &error), &error);
    return s;
}

static quip_status open_and_close(void *options, quip_error *error)
{
    quip_session *s;
    const quip_status status = quip_session_open(&s, model, options, error);
    assert_true((s != NULL) == (status == QUIP_OK));
    quip_session_close(s);
    return status;
}

/* The first session of a model opens its device, which closes with the model. */
static quip_status open_model_and_session(void *options, quip_error *error)
{
    quip_model *m;
    quip_session *s = NULL;
    quip_status status = quip_model_open(&m, path, NULL, error);
    if (!status)
        status = quip_session_open(&s, m, options, error);
    assert_true((s != NULL) == (status == QUIP_OK));
    quip_model_close(m);
    quip_session_close(s);
    return status;
}

static void test_session_open(void **state)
{
    (void)state;
    quip_session_options o = sampled();
    for (size_t i = 0; i < N_KINDS; i++) {
        use_model(i);
        fail_each("quip_model_open and the first session", open_model_and_session, (void *)&greedy);
        assert_int_equal(open_and_close((void *)&greedy, NULL), QUIP_OK); // the device stays open
        fail_each("quip_session_open", open_and_close, (void *)&greedy);
        fail_each("quip_session_open, sampled", open_and_close, &o);
    }
    use_model(0);
    o.draft = models[1];
    fail_each("quip_session_open, with a draft model", open_and_close, &o);
    use_model(0);
}

struct text { // a buffer that never allocates
    char data[4096];
    size_t n;
};

static bool collect(void *user, const char *data, size_t n)
{
    struct text *t = user;
    assert_true(t->n + n <= sizeof t->data);
    memcpy(t->data + t->n, data, n);
    t->n += n;
    return true;
}

static void ask(quip_session *s, struct text *answer)
{
    quip_error error = { 0 };
    answer->n = 0;
    check(quip_session_generate(s, PROMPT, strlen(PROMPT), collect, answer, NULL, &error), &error);
}

static void assert_same_text(const struct text *a, const struct text *b)
{
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->data, b->data, a->n);
}

struct asking {
    const quip_session_options *options;
    struct text want;
};

/* The first call in a new session fails, and a second one succeeds. The answer is as if the first
 * call had not been made. */
static quip_status ask_twice(void *user, quip_error *error)
{
    struct asking *a = user;
    struct text got = { .n = 0 };
    quip_session *s;
    quip_status status = quip_session_open(&s, model, a->options, error);
    if (status)
        return status;
    status = quip_session_generate(s, PROMPT, strlen(PROMPT), collect, &got, NULL, error);
    if (status) {
        assert_int_equal(got.n, 0);
        assert_int_equal(quip_session_position(s), 0);
        ask(s, &got);
    }
    assert_same_text(&got, &a->want);
    quip_session_close(s);
    return status;
}

static void test_generate(void **state)
{
    (void)state;
    const quip_session_options both[] = { greedy, sampled() };
    for (size_t i = 0; i < QP_COUNT(both) * N_KINDS; i++) {
        const bool is_sampled = i % 2;
        struct asking a = { .options = &both[is_sampled] };
        use_model(i / 2);
        quip_session *s = open_session(a.options);
        ask(s, &a.want);
        assert_true(a.want.n > 0);
        quip_session_close(s);
        fail_each(is_sampled ? "quip_session_generate, sampled" : "quip_session_generate",
                  ask_twice, &a);
    }
    use_model(0);
}

/* A conversation in which every call fails once is equal to one in which no call fails. */
static quip_status talk(void *user, quip_error *error)
{
    static const struct {
        quip_role role;
        const char *text;
    } turns[] = {
        { QUIP_ROLE_SYSTEM, "hear" }, { QUIP_ROLE_USER, "the" },       { QUIP_ROLE_USER, " hen" },
        { QUIP_ROLE_MODEL, "then" },  { QUIP_ROLE_NONE, "<end> ten" }, { QUIP_ROLE_USER, "and" },
    };
    struct asking *a = user;
    struct text got = { .n = 0 };
    quip_session *s;
    quip_status first = QUIP_OK, status = quip_session_open(&s, model, a->options, error);
    if (status)
        return status;
    for (size_t i = 0; i < QP_COUNT(turns); i++) {
        const int position = quip_session_position(s);
        for (int again = 0; again < 2; again++) {
            quip_error own = { 0 };
            status =
                quip_session_append(s, turns[i].role, turns[i].text, strlen(turns[i].text), &own);
            if (!status)
                break;
            assert_int_equal(again, 0);
            assert_int_equal(quip_session_position(s), position);
            first = status;
            *error = own;
        }
    }
    for (quip_piece piece = { .struct_size = sizeof piece }; !piece.finish_reason;) {
        quip_error own = { 0 };
        status = quip_session_next(s, &piece, &own);
        if (status) {
            assert_int_equal(first, QUIP_OK);
            first = status;
            *error = own;
        } else {
            collect(&got, piece.text, piece.n_text);
        }
    }
    if (a->want.n)
        assert_same_text(&got, &a->want);
    a->want = got;
    quip_session_close(s);
    return first;
}

static void test_append_and_next(void **state)
{
    (void)state;
    const quip_session_options o = sampled();
    struct asking a = { .options = &o };
    for (size_t i = 0; i < QP_COUNT(templates); i++) {
        quip_error error = { 0 };
        use_model(i);
        a.want.n = 0;
        check(talk(&a, &error), &error);
        fail_each("quip_session_append, quip_session_next", talk, &a);
    }
    use_model(0);
}

/* A clone made in the middle of an answer generates the same rest as its source. */
static quip_status clone(void *user, quip_error *error)
{
    quip_session *copy;
    const quip_status status = quip_session_clone(&copy, user, error);
    assert_true((copy != NULL) == (status == QUIP_OK));
    quip_session_close(copy);
    return status;
}

static void rest(quip_session *s, struct text *t)
{
    quip_error error = { 0 };
    for (quip_piece piece = { .struct_size = sizeof piece }; !piece.finish_reason;) {
        check(quip_session_next(s, &piece, &error), &error);
        collect(t, piece.text, piece.n_text);
    }
}

static void check_clone(void)
{
    const quip_session_options o = sampled();
    quip_session *s = open_session(&o), *copy;
    quip_error error = { 0 };
    struct text own = { .n = 0 }, copied = { .n = 0 };
    quip_piece piece = { .struct_size = sizeof piece };
    check(quip_session_append(s, QUIP_ROLE_USER, PROMPT, strlen(PROMPT), &error), &error);
    check(quip_session_next(s, &piece, &error), &error);
    fail_each("quip_session_clone", clone, s);
    check(quip_session_clone(&copy, s, &error), &error);
    rest(s, &own);
    rest(copy, &copied);
    assert_same_text(&own, &copied);
    quip_session_close(s);
    quip_session_close(copy);
}

static void test_clone(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_KINDS; i++) {
        use_model(i);
        check_clone();
    }
    use_model(0);
}

/* ---- adapters ---- */

static quip_status open_adapter(void *user, quip_error *error)
{
    quip_adapter *a;
    const quip_status status = quip_adapter_open(&a, model, user, error);
    assert_true((a != NULL) == (status == QUIP_OK));
    quip_adapter_close(a);
    return status;
}

static quip_status open_with_adapter(void *user, quip_error *error)
{
    quip_session *s;
    const quip_session_options o = { .n_context = 64, .n_threads = 2 };
    quip_status status = quip_session_open(&s, model, &o, error);
    if (!status)
        status = quip_session_set_adapter(s, user, 1, error);
    quip_session_close(s);
    return status;
}

/* If setting the adapter fails, the session is unchanged. */
static quip_status switch_adapters(void *user, quip_error *error)
{
    quip_session *s;
    const quip_token id = TINY_BOS;
    quip_status status =
        quip_session_open(&s, model, &(quip_session_options){ .n_context = 64 }, error);
    if (!status && !(status = quip_session_prefill(s, &id, 1, error))) {
        status = quip_session_set_adapter(s, user, 2, error);
        assert_true((quip_session_logits(s) != NULL) == (status != QUIP_OK));
    }
    if (!status)
        status = quip_session_set_adapter(s, NULL, 0, error);
    quip_session_close(s);
    return status;
}

static void test_adapters(void **state)
{
    (void)state;
    char folder[64];
    quip_error error = { 0 };
    quip_adapter *adapter;
    snprintf(folder, sizeof folder, "tiny-faults-adapter-%d", (int)getpid());
    const struct tiny_adapter tiny = { .rank = 4, .alpha = 8 };
    check(tiny_adapter_write(folder, model, &tiny, &error), &error);
    fail_each("quip_adapter_open", open_adapter, folder);
    check(quip_adapter_open(&adapter, model, folder, &error), &error);
    tiny_adapter_remove(folder);
    assert_int_equal(open_with_adapter(adapter, NULL), QUIP_OK); // the device's buffers stay
    fail_each("quip_session_open with an adapter", open_with_adapter, adapter);
    fail_each("quip_session_set_adapter", switch_adapters, adapter);
    quip_adapter_close(adapter);
}

/* ---- tokens ---- */

static quip_status encode_and_decode(void *user, quip_error *error)
{
    (void)user;
    static const char text[] = "the <end> and \xff \xf0\x9f\x98\x80, then a hen";
    quip_token ids[128];
    char back[256];
    int n_tokens;
    size_t n;
    quip_status status = quip_tokenize(model, text, strlen(text), true, ids, 128, &n_tokens, error);
    return status ? status : quip_detokenize(model, ids, n_tokens, back, sizeof back, &n, error);
}

static void test_encode_and_decode(void **state)
{
    (void)state;
    fail_each("quip_tokenize, quip_detokenize", encode_and_decode, NULL);
}

/* Pieces longer than the text buffer of a session. Here an answer must allocate. If a call finds no
 * memory, the next call continues as if the failed one had not been made. */
static void test_next_with_long_pieces(void **state)
{
    (void)state;
    enum {
        MAX_TEXT = 400000
    };
    char other[80];
    quip_error error = { 0 };
    struct tiny_model tiny = tiny_smallest;
    struct bytes want = { 0 };
    quip_model *m;
    int n_failures = 0;
    if (!alloc_fault_is_here())
        skip();
    tiny.letter_bytes = 6000;
    snprintf(other, sizeof other, "%s.long", path);
    check(tiny_model_write(other, &tiny, &error), &error);
    check(quip_model_open(&m, other, NULL, &error), &error);
    quip_session_options o = sampled();
    o.max_output_tokens = 60;
    for (int n = -1; n < 3; n++) { // in each call, the n-th allocation fails once
        quip_session *s;
        struct bytes got = { 0 };
        assert_true(qp_bytes_reserve(&got, MAX_TEXT));
        check(quip_session_open(&s, m, &o, &error), &error);
        check(quip_session_append(s, QUIP_ROLE_USER, "h\xc3\xa9", 3, &error), &error);
        for (quip_piece piece = { .struct_size = sizeof piece }; !piece.finish_reason;) {
            alloc_fault_set(n);
            quip_status status = quip_session_next(s, &piece, &error);
            if (alloc_fault_clear()) {
                assert_int_equal(status, QUIP_E_MEMORY);
                n_failures++;
                status = quip_session_next(s, &piece, &error);
            }
            check(status, &error);
            assert_true(qp_bytes_append(&got, piece.text, piece.n_text));
        }
        quip_session_close(s);
        if (n >= 0) {
            assert_int_equal(got.n, want.n);
            assert_memory_equal(got.data, want.data, want.n);
            qp_bytes_close(&got);
        } else {
            want = got;
        }
    }
    assert_true(n_failures > 0);
    qp_bytes_close(&want);
    quip_model_close(m);
    unlink(other);
}

/* ---- threads ---- */

/* With fewer threads than requested, down to none, the answer is the same. */
static void test_threads_that_cannot_be_created(void **state)
{
    (void)state;
    if (!alloc_fault_is_here())
        skip();
    quip_session_options o = sampled();
    struct text want, got;
    o.n_threads = 4;
    quip_session *s = open_session(&o);
    ask(s, &want);
    quip_session_close(s);
    for (int n = 0; n < 4; n++) {
        alloc_fault_set_threads(n);
        s = open_session(&o);
        alloc_fault_set_threads(-1);
        ask(s, &got);
        assert_same_text(&got, &want);
        quip_session_close(s);
    }
}

/* ---- decode allocates nothing ---- */

static void test_decode_allocates_nothing(void **state)
{
    (void)state;
    quip_error error = { 0 };
    if (!alloc_fault_is_here())
        skip();
    for (size_t i = 0; i < 4 * N_KINDS; i++) {
        quip_session_options options = i % 2 ? sampled() : greedy;
        options.n_context = 400;
        options.max_output_tokens = 0;
        options.no_template = true;
        options.seed = 3; // with which no answer is empty
        use_model(i / 4);
        options.draft = i / 2 % 2 ? models[1] : NULL;
        quip_session *s = open_session(&options);
        if (options.draft)
            qp_draft_model_fix_length(s->draft.model, 3);
        int n_tokens = 0, made = 0;
        check(quip_session_append(s, QUIP_ROLE_USER, PROMPT, strlen(PROMPT), &error), &error);
        const int begin = quip_session_position(s);
        while (quip_session_position(s) < begin + 200) { // more than one answer, if one ends early
            quip_piece piece = { .struct_size = sizeof piece };
            check(quip_session_next(s, &piece, &error), &error);
            if (n_tokens++ == 0)
                made = alloc_fault_made();
            assert_in_range(n_tokens, 1, 1000); // at one place a seed always draws the same token
        }
        assert_int_equal(alloc_fault_made(), made);
        assert_int_equal(quip_session_position(s), begin + 200);
        quip_session_close(s);
    }
    use_model(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open),
        cmocka_unit_test(test_open_memory),
        cmocka_unit_test(test_open_gpu_file),
        cmocka_unit_test(test_plan),
        cmocka_unit_test(test_session_open),
        cmocka_unit_test(test_generate),
        cmocka_unit_test(test_append_and_next),
        cmocka_unit_test(test_clone),
        cmocka_unit_test(test_adapters),
        cmocka_unit_test(test_encode_and_decode),
        cmocka_unit_test(test_next_with_long_pieces),
        cmocka_unit_test(test_threads_that_cannot_be_created),
        cmocka_unit_test(test_decode_allocates_nothing),
    };
    return cmocka_run_group_tests(tests, make_models, remove_models);
}
