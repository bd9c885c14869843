/* sessions.c (test): sessions when calls are cancelled, exceed the context, or come from several
 * threads at once. The thread sanitizer runs this test. */
#include "support/check.h"
#include "support/tiny_model.h"

#include "engine/engine.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define N_PROMPT (PREFILL_CHUNK + 200) // two chunks

static char path[64];
static quip_model *model;
static quip_token prompt[N_PROMPT];

static int open_model(void **state)
{
    (void)state;
    quip_error error = { 0 };
    struct tiny_model tiny = tiny_gemma3;
    tiny.config = "chat chatml\n";
    snprintf(path, sizeof path, "tiny-sessions-%d.bin", (int)getpid());
    check(tiny_model_write(path, &tiny, &error), &error);
    check(quip_model_open(&model, path, NULL, &error), &error);
    for (int i = 0; i < N_PROMPT; i++)
        prompt[i] = (i * 7919 + i * i * 13) % TINY_VOCAB;
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

/* ---- cancelling at a certain layer ---- */

/* The operations of the backend, with a cancel during the n-th layer from now. */
static struct backend counting;
static const struct backend *counted;
static int n_layers_begun, cancel_at;
static quip_session *to_cancel;

static quip_status count_and_append(struct device *device, int l, const struct rows *rows)
{
    const quip_status status = counted->rope_append(device, l, rows);
    if (++n_layers_begun == cancel_at)
        quip_session_cancel(to_cancel);
    return status;
}

static void cancel_in_layer(quip_session *s, int n)
{
    if (s->device->backend != &counting) {
        counted = s->device->backend;
        counting = *counted;
        counting.rope_append = count_and_append;
        s->device->backend = &counting;
    }
    to_cancel = s;
    cancel_at = n;
    n_layers_begun = 0;
}

static quip_status feed_all(quip_session *s, int way, quip_error *error)
{
    const int n = N_PROMPT - 10;
    return way ? quip_session_prefill_logits(s, prompt + 10, n, NULL, NULL, error)
               : quip_session_prefill(s, prompt + 10, n, error);
}

/* A cancel in any layer of any chunk of a prefill: no further layer begins, and the session is
 * unchanged. */
static void test_prefill_is_cancelled_within_a_layer(void **state)
{
    (void)state;
    const int n_layers = 2 * tiny_gemma3.n_layers; // of two chunks
    float before[TINY_VOCAB], whole[TINY_VOCAB];
    quip_error error = { 0 };
    const quip_session_options options = { .n_context = N_PROMPT, .n_threads = 2 };
    quip_session *s = open_session(&options);
    check(quip_session_prefill(s, prompt, 10, &error), &error);
    memcpy(before, quip_session_logits(s), sizeof before);
    check(feed_all(s, 0, &error), &error);
    memcpy(whole, quip_session_logits(s), sizeof whole);
    for (int way = 0; way < 2; way++)
        for (int l = 1; l < n_layers; l++) {
            check(quip_session_rewind(s, 0, &error), &error);
            check(quip_session_prefill(s, prompt, 10, &error), &error);
            cancel_in_layer(s, l);
            assert_int_equal(feed_all(s, way, &error), QUIP_E_CANCELLED);
            assert_int_equal(n_layers_begun, l);
            assert_int_equal(quip_session_position(s), 10);
            if (way == 0)
                assert_memory_equal(quip_session_logits(s), before, sizeof before);
            check(feed_all(s, 0, &error), &error);
            assert_memory_equal(quip_session_logits(s), whole, sizeof whole);
        }
    quip_session_close(s);
}

static bool count_text(void *user, const char *text, size_t n)
{
    (void)text;
    *(size_t *)user += n;
    return true;
}

/* A cancel in any layer, from the first of the prompt to the last of the answer: the prompt fails,
 * or the answer ends, and the next call is not cancelled. */
static void test_generate_is_cancelled_within_a_layer(void **state)
{
    (void)state;
    static const char text[] = "the hen then";
    const quip_session_options options = { .n_context = 200,
                                           .n_threads = 1,
                                           .max_output_tokens = 6,
                                           .temperature = 1.5f,
                                           .seed = 5,
                                           .has_seed = true };
    quip_session *s = open_session(&options);
    bool has_ended = false;
    for (int l = 1; !has_ended; l++) {
        quip_error error = { 0 };
        quip_result result = { .struct_size = sizeof result };
        quip_piece piece = { .struct_size = sizeof piece };
        size_t n = 0;
        check(quip_session_rewind(s, 0, &error), &error);
        cancel_in_layer(s, l);
        const quip_status status =
            quip_session_generate(s, text, strlen(text), count_text, &n, &result, &error);
        if (l <
            tiny_gemma3.n_layers) { // in the prompt; a cancel in its last layer has no effect on it
            assert_int_equal(status, QUIP_E_CANCELLED);
            assert_int_equal(quip_session_position(s), 0);
            assert_int_equal(n_layers_begun, l);
            continue;
        }
        check(status, &error);
        has_ended = result.finish_reason != QUIP_FINISH_CANCELLED;
        if (has_ended) // before the l-th layer
            assert_true(n_layers_begun <= l);
        else
            assert_int_equal(n_layers_begun, l);
        cancel_at = 0;
        check(quip_session_next(s, &piece, &error), &error); // a new answer
        assert_true(piece.finish_reason != QUIP_FINISH_CANCELLED);
        assert_true(l < 1000);
    }
    quip_session_close(s);
}

/* ---- full contexts ---- */

/* Also if the prompt fits, but the text of the template before the answer does not. */
static void test_a_prompt_that_does_not_fit_leaves_nothing(void **state)
{
    (void)state;
    static const char text[] = "then the hen and then ten hens and the other hen";
    quip_error error = { 0 };
    for (int n_context = 1; n_context < 200; n_context++) {
        const quip_session_options options = { .n_context = n_context, .n_threads = 1 };
        quip_session *s = open_session(&options);
        const quip_status status =
            quip_session_generate(s, text, strlen(text), NULL, NULL, NULL, &error);
        if (status) {
            assert_int_equal(status, QUIP_E_CONTEXT_FULL);
            assert_int_equal(quip_session_position(s), 0);
            assert_null(quip_session_logits(s));
        }
        quip_session_close(s);
        if (!status)
            return;
    }
    fail_msg("no context was long enough");
}

/* ---- threads ---- */

struct talker { // the conversation of one thread
    uint64_t seed;
    int n_threads;
    char text[2048];
    size_t n;
};

static bool collect(void *user, const char *text, size_t n)
{
    struct talker *t = user;
    if (t->n + n > sizeof t->text)
        return false;
    memcpy(t->text + t->n, text, n);
    t->n += n;
    return true;
}

/* Two turns, the second by a clone. Only the main thread may use asserts, so the text contains the
 * errors. */
static void *talk(void *arg)
{
    struct talker *t = arg;
    const quip_session_options options = { .n_context = 200,
                                           .n_threads = t->n_threads,
                                           .max_output_tokens = 12,
                                           .temperature = 1.2f,
                                           .seed = t->seed,
                                           .has_seed = true };
    quip_session *s = NULL, *copy = NULL;
    t->n = 0;
    if (quip_session_open(&s, model, &options, NULL) ||
        quip_session_generate(s, "the hen", 7, collect, t, NULL, NULL) ||
        quip_session_clone(&copy, s, NULL) ||
        quip_session_generate(copy, "and then", 8, collect, t, NULL, NULL))
        collect(t, "failed", 6);
    quip_session_close(s);
    quip_session_close(copy);
    return NULL;
}

static void test_sessions_side_by_side(void **state)
{
    (void)state;
    enum {
        N = 4,
        ROUNDS = 3
    };
    struct talker alone[N], together[N];
    for (int i = 0; i < N; i++) {
        alone[i] = together[i] = (struct talker){ .seed = (uint64_t)i + 1, .n_threads = 1 + i % 2 };
        talk(&alone[i]);
        assert_true(alone[i].n > 0);
    }
    for (int round = 0; round < ROUNDS; round++) {
        pthread_t threads[N];
        for (int i = 0; i < N; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, talk, &together[i]), 0);
        for (int i = 0; i < N; i++)
            pthread_join(threads[i], NULL);
        for (int i = 0; i < N; i++) {
            assert_int_equal(together[i].n, alone[i].n);
            assert_memory_equal(together[i].text, alone[i].text, alone[i].n);
        }
    }
}

struct storm {
    quip_session *session;
    atomic_bool is_over;
};

static void *cancel_always(void *arg)
{
    struct storm *storm = arg;
    while (!atomic_load(&storm->is_over)) {
        quip_session_cancel(storm->session);
        usleep(200);
    }
    return NULL;
}

/* Cancelled at any moment, again and again: every call ends as documented, and afterwards the
 * session answers like a new one. */
static void test_a_storm_of_cancels(void **state)
{
    (void)state;
    const quip_session_options options = {
        .n_context = 400, .n_threads = 2, .max_output_tokens = 9, .greedy = true
    };
    quip_error error = { 0 };
    struct talker calm = { .n = 0 }, after = { .n = 0 };
    quip_session *s = open_session(&options);
    check(quip_session_generate(s, "the hen", 7, collect, &calm, NULL, &error), &error);
    check(quip_session_rewind(s, 0, &error), &error);
    struct storm storm = { .session = s };
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, cancel_always, &storm), 0);
    for (int i = 0; i < 60; i++) {
        const int position = quip_session_position(s);
        quip_status status = quip_session_prefill(s, prompt, 20 + i * 3, &error);
        assert_true(status == QUIP_OK || status == QUIP_E_CANCELLED);
        assert_int_equal(quip_session_position(s), position + (status ? 0 : 20 + i * 3));
        status = quip_session_generate(s, "the hen", 7, NULL, NULL, NULL, &error);
        assert_true(status == QUIP_OK || status == QUIP_E_CANCELLED);
        check(quip_session_rewind(s, 0, &error), &error);
    }
    atomic_store(&storm.is_over, true);
    pthread_join(thread, NULL);
    check(quip_session_generate(s, "the hen", 7, collect, &after, NULL, &error), &error);
    assert_int_equal(after.n, calm.n);
    assert_memory_equal(after.text, calm.text, calm.n);
    quip_session_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prefill_is_cancelled_within_a_layer),
        cmocka_unit_test(test_generate_is_cancelled_within_a_layer),
        cmocka_unit_test(test_a_prompt_that_does_not_fit_leaves_nothing),
        cmocka_unit_test(test_sessions_side_by_side),
        cmocka_unit_test(test_a_storm_of_cancels),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
