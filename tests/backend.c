/* backend.c: the seam between the engine and a backend (engine/backend.h).
 * The reference backend of tests/support computes what the CPU backend computes, within a
 * tolerance; the engine waits for it, reports its failures, and is never left in a wrong state. And
 * what one CPU level exports, another imports with the same bits. */
#include "support/check.h"
#include "support/golden.h"
#include "support/logits.h"
#include "support/memory_stream.h"
#include "support/models.h"
#include "support/reference_backend.h"
#include "support/shared.h"
#include "support/story.h"
#include "support/tiny_adapter.h"
#include "support/tiny_model.h"

#include "convert/convert.h"
#include "engine/engine.h"

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define N_TOKENS 150

static quip_model *open_reference(int i)
{
    quip_model *model = models_open(i, NULL);
    model->backend = &reference_backend;
    return model;
}

static quip_session *open_session(quip_model *model, const quip_session_options *options)
{
    quip_session *s;
    quip_error error = { 0 };
    check(quip_session_open(&s, model, options, &error), &error);
    return s;
}

static int reset_knobs(void **state)
{
    (void)state;
    reference_knobs = (struct reference_knobs){ 0 };
    return 0;
}

/* ---- the same numbers ---- */

static void test_same_logits_as_the_cpu(void **state)
{
    (void)state;
    for (int i = 0; i < models_count(); i++) {
        quip_model *cpu = models_open(i, NULL), *reference = open_reference(i);
        const int vocab_size = cpu->config.vocab_size;
        const size_t n = (size_t)N_TOKENS * (size_t)vocab_size;
        float *want = models_logits(cpu, 1, N_TOKENS), *got = models_logits(reference, 1, N_TOKENS);
        const float worst = logits_difference(want, got, n),
                    tolerance = logits_tolerance(i, want, n);
        int n_same = 0, n_clear = 0;
        for (int k = 0; k < N_TOKENS; k++) {
            const float *row = want + (size_t)k * (size_t)vocab_size;
            const int best = logits_best(got + (size_t)k * (size_t)vocab_size, vocab_size);
            n_same += best == logits_best(row, vocab_size);
            if (logits_margin(row, vocab_size) <= 2 * tolerance)
                continue;
            n_clear++;
            assert_int_equal(best, logits_best(row, vocab_size));
        }
        printf(
            "  %-22s largest difference %.2g of %.2g; greedy tokens: %d of %d the same, %d clear\n",
            models_name(i), (double)worst, (double)tolerance, n_same, N_TOKENS, n_clear);
        if (!(worst <= tolerance))
            fail_msg("%s: logits differ by %g, at most %g is allowed", models_name(i),
                     (double)worst, (double)tolerance);
        free(want);
        free(got);
        quip_model_close(cpu);
        quip_model_close(reference);
    }
}

/* The logits and greedy tokens of another implementation. */
static void test_goldens(void **state)
{
    (void)state;
    bool has_run = false;
    for (int i = 0; i < models_count(); i++) {
        char folder[64], name[256];
        const cJSON *prompt;
        if (!models_is_golden(i) || !models_is_float(i))
            continue;
        has_run = true;
        snprintf(folder, sizeof folder, "%s", models_name(i));
        *strchr(folder, ' ') = 0;
        snprintf(name, sizeof name, "data/golden/%s/expected.json", folder);
        cJSON *expected = read_json(shared_path(name));
        quip_model *model = open_reference(i);
        cJSON_ArrayForEach(prompt, cJSON_GetObjectItem(expected, "prompts"))
            check_golden_prompt(model, NULL, folder, prompt);
        quip_model_close(model);
        cJSON_Delete(expected);
    }
    if (!has_run)
        need_shared("data/golden");
}

static void test_adapters(void **state)
{
    (void)state;
    const struct tiny_adapter tiny = { .rank = 5, .alpha = 7 };
    quip_error error = { 0 };
    for (int i = 0; i < models_count(); i++) {
        if (!models_has_adapters(i))
            continue;
        float logits[2][2][TINY_VOCAB * 2]; // of a backend, of a scale
        for (int b = 0; b < 2; b++) {
            quip_model *model = b ? open_reference(i) : models_open(i, NULL);
            quip_adapter *adapter;
            quip_session *s = open_session(model, &(quip_session_options){ .n_context = 40 });
            check(tiny_adapter_write("backend-adapter", model, &tiny, &error), &error);
            check(quip_adapter_open(&adapter, model, "backend-adapter", &error), &error);
            tiny_adapter_remove("backend-adapter");
            for (int k = 0; k < 30; k++) {
                const quip_token token = models_token(model, 3, k);
                check(quip_session_prefill(s, &token, 1, &error), &error);
            }
            for (int scale = 0; scale < 2; scale++) {
                check(quip_session_set_adapter(s, adapter, scale ? -0.6f : 1.5f, &error), &error);
                const quip_token token = models_token(model, 3, 30 + scale);
                check(quip_session_prefill(s, &token, 1, &error), &error);
                memcpy(logits[b][scale], quip_session_logits(s),
                       (size_t)model->config.vocab_size * sizeof(float));
            }
            quip_adapter_close(adapter);
            quip_session_close(s);
            quip_model_close(model);
        }
        const size_t vocab_size = models_is_golden(i) ? 512 : TINY_VOCAB;
        for (int scale = 0; scale < 2; scale++) {
            const float worst = logits_difference(logits[0][scale], logits[1][scale], vocab_size);
            const float tolerance = logits_tolerance(i, logits[0][scale], vocab_size);
            if (!(worst <= tolerance))
                fail_msg("%s: logits with an adapter differ by %g, at most %g is allowed",
                         models_name(i), (double)worst, (double)tolerance);
        }
    }
}

/* ---- rows that attend to later rows, as those of an image do ---- */

/* Logits after 8 tokens; tokens [2, 6) attend to each other if is_block. */
static void run_block(quip_model *model, bool is_block, float *logits)
{
    enum {
        N = 8
    };
    quip_session *s = open_session(model, &(quip_session_options){ .n_context = 20 });
    struct device *d = s->device;
    const struct backend *b = d->backend;
    const struct rows rows = { d->rows, N };
    struct output outputs[N];
    qp_device_enter(d, TURN_LONG);
    for (int k = 0; k < N; k++) {
        const bool is_inside = is_block && k >= 2 && k < 6;
        outputs[k] = (struct output){ s->sequence, k };
        d->rows[k] = (struct row){ .sequence = s->sequence,
                                   .pos = k,
                                   .visible_end = is_inside ? 6 : k + 1,
                                   .token = models_token(model, 6, k),
                                   .is_output = true };
    }
    assert_int_equal(b->begin(d, 0), QUIP_OK);
    assert_int_equal(qp_forward(d, &rows, NULL, NULL), QUIP_OK);
    assert_int_equal(qp_forward_logits(d, outputs, N, NULL), QUIP_OK);
    assert_int_equal(b->submit(d), QUIP_OK);
    assert_int_equal(b->poll(d, true), QUIP_OK);
    assert_int_equal(b->read(d, BUF_LOGITS, logits, N), QUIP_OK);
    qp_device_leave(d);
    quip_session_close(s);
}

static void test_rows_that_attend_to_later_rows(void **state)
{
    (void)state;
    for (int i = 0; i < models_count(); i++) {
        quip_model *cpu = models_open(i, NULL), *reference = open_reference(i);
        const size_t n = 8 * (size_t)cpu->config.vocab_size, n_before = n / 4;
        float *causal = malloc(3 * n * sizeof *causal);
        assert_non_null(causal);
        float *want = causal + n, *got = causal + 2 * n;
        run_block(cpu, false, causal);
        run_block(cpu, true, want);
        run_block(reference, true, got);
        assert_memory_equal(causal, want, n_before * sizeof *want);
        assert_memory_not_equal(causal + n_before, want + n_before, (n - n_before) * sizeof *want);
        const float worst = logits_difference(want, got, n),
                    tolerance = logits_tolerance(i, want, n);
        if (!(worst <= tolerance))
            fail_msg("%s: logits of a block differ by %g, at most %g is allowed", models_name(i),
                     (double)worst, (double)tolerance);
        free(causal);
        quip_model_close(cpu);
        quip_model_close(reference);
    }
}

/* ---- copies ---- */

/* A copy has the last output of its original, however many outputs the last chunk had. */
static void test_copies_have_the_last_output(void **state)
{
    (void)state;
    static const int n_chunk[] = { 1, 7, 8, 9, 60 };
    quip_error error = { 0 };
    for (int b = 0; b < 2; b++)
        for (size_t i = 0; i < QP_COUNT(n_chunk); i++) {
            quip_token tokens[60];
            quip_session *copy;
            quip_model *model = b ? open_reference(0) : models_open(0, NULL);
            quip_session *s = open_session(model, &(quip_session_options){ .n_context = 70 });
            for (size_t k = 0; k < QP_COUNT(tokens); k++)
                tokens[k] = models_token(model, 4, (int)k);
            check(quip_session_prefill_logits(s, tokens, n_chunk[i], NULL, NULL, &error), &error);
            check(quip_session_clone(&copy, s, &error), &error);
            assert_non_null(quip_session_logits(copy));
            assert_memory_equal(quip_session_logits(copy), quip_session_logits(s),
                                TINY_VOCAB * sizeof(float));
            check(quip_session_prefill(s, tokens, 3, &error), &error);
            check(quip_session_prefill(copy, tokens, 3, &error), &error);
            assert_memory_equal(quip_session_logits(copy), quip_session_logits(s),
                                TINY_VOCAB * sizeof(float));
            quip_session_close(s);
            quip_session_close(copy);
            quip_model_close(model);
        }
}

/* ---- not yet ---- */

/* The model of the tests below, with a copy of everything: "llama f32". */
enum {
    LLAMA_F32 = 4
};

static void append(quip_session *s, const char *text)
{
    quip_error error = { 0 };
    check(quip_session_append(s, QUIP_ROLE_USER, text, strlen(text), &error), &error);
}

/* Everything up to the end of the answer; without `wait` it asks again and again. */
static quip_finish_reason collect(quip_session *s, bool wait, struct bytes *text, int *n_not_yet)
{
    quip_piece piece = { 0 };
    quip_error error = { 0 };
    while (!piece.finish_reason) {
        const quip_status status = qp_answer_next(s, wait, &piece, &error);
        if (status == QP_NOT_YET) {
            assert_false(wait);
            assert_int_equal(piece.n_text, 0);
            ++*n_not_yet;
            continue;
        }
        check(status, &error);
        assert_true(qp_bytes_append(text, piece.text, piece.n_text));
    }
    return (quip_finish_reason)piece.finish_reason;
}

static void assert_same_text(const struct bytes *a, const struct bytes *b)
{
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->data, b->data, a->n);
}

static void test_not_yet_while_the_device_works(void **state)
{
    (void)state;
    static const int not_yets[] = { 0, 1, 5 };
    quip_model *model = open_reference(LLAMA_F32);
    struct bytes first = { 0 };
    int n_steps = 0;
    for (size_t i = 0; i < QP_COUNT(not_yets); i++)
        for (int wait = 0; wait < 2; wait++) {
            struct bytes text = { 0 };
            int n_not_yet = 0;
            reset_knobs(NULL);
            reference_knobs.n_not_yet = not_yets[i];
            quip_session *s = open_session(model, &story_options);
            append(s, "the hen");
            assert_int_equal(reference_knobs.n_polls, 0); // a call that waits does not poll
            assert_int_equal(collect(s, wait, &text, &n_not_yet), QUIP_FINISH_LENGTH);
            assert_int_equal(n_not_yet, reference_knobs.n_polls);
            if (not_yets[i] == 1 && !wait)
                n_steps = n_not_yet;
            if (not_yets[i] == 5 && !wait)
                assert_int_equal(n_not_yet, 5 * n_steps);
            if (first.n == 0)
                first = text;
            else {
                assert_same_text(&first, &text);
                qp_bytes_close(&text);
            }
            quip_session_close(s);
        }
    assert_true(first.n > 0 && n_steps > 0 && n_steps <= story_options.max_output_tokens);
    qp_bytes_close(&first);
    quip_model_close(model);
}

/* A session that asked for a token of its answer, which the device has not computed yet. */
static quip_session *open_in_flight(quip_model *model)
{
    quip_piece piece;
    quip_session *s = open_session(model, &story_options);
    append(s, "the hen");
    reference_knobs.n_not_yet = 3;
    for (int i = 0; i < 3; i++) // some pieces
        while (qp_answer_next(s, false, &piece, NULL) == QP_NOT_YET)
            continue;
    while (!s->step.is_running)
        qp_answer_next(s, false, &piece, NULL);
    return s;
}

/* The public functions on a device that cannot wait: who calls them again gets what a device that
 * waits computes. Returns how often a call was not done. */
static int ask_again(quip_model *model, bool cannot_wait, struct bytes *text, float *logits)
{
    quip_error error = { 0 };
    quip_piece piece = { .struct_size = sizeof piece };
    quip_status status;
    int n_left, n_not_yet = 0;
    reset_knobs(NULL);
    reference_knobs.n_not_yet = 2;
    reference_knobs.cannot_wait = cannot_wait;
    quip_session *s = open_session(model, &story_options);
    check(quip_session_begin_append(s, QUIP_ROLE_USER, "the hen and the cat", 19, &n_left, &error),
          &error);
    for (int before = n_left; n_left > 0; before = n_left) {
        while ((status = quip_session_run(s, 4, &n_left, &error)) == QP_NOT_YET)
            n_not_yet++;
        check(status, &error);
        assert_int_equal(n_left, before > 4 ? before - 4 : 0);
    }
    const float *found;
    for (; !(found = quip_session_logits(s)); n_not_yet++)
        assert_true(s->step.is_running);
    memcpy(logits, found, TINY_VOCAB * sizeof *logits);
    while (!piece.finish_reason) {
        while ((status = quip_session_next(s, &piece, &error)) == QP_NOT_YET)
            n_not_yet++;
        check(status, &error);
        assert_true(qp_bytes_append(text, piece.text, piece.n_text));
    }
    assert_true(s->result.prefill_ns > 0 && s->result.decode_ns > 0);
    quip_session_close(s);
    return n_not_yet;
}

static void test_device_that_cannot_wait(void **state)
{
    (void)state;
    quip_model *model = open_reference(LLAMA_F32);
    float logits[2][TINY_VOCAB];
    struct bytes text[2] = { { 0 } };
    assert_int_equal(ask_again(model, false, &text[0], logits[0]), 0);
    const int n_not_yet = ask_again(model, true, &text[1], logits[1]);
    assert_int_equal(n_not_yet, reference_knobs.n_polls);
    assert_true(n_not_yet > 4);
    assert_same_text(&text[0], &text[1]);
    assert_memory_equal(logits[0], logits[1], sizeof logits[0]);
    qp_bytes_close(&text[0]);
    qp_bytes_close(&text[1]);
    quip_model_close(model);
}

static void test_cancel_in_mid_flight(void **state)
{
    (void)state;
    quip_model *model = open_reference(LLAMA_F32);
    quip_session *s = open_in_flight(model);
    struct bytes text = { 0 };
    int n_not_yet = 0;
    quip_session_cancel(s);
    assert_int_equal(collect(s, false, &text, &n_not_yet), QUIP_FINISH_CANCELLED);
    assert_true(n_not_yet > 0);
    text.n = 0;
    const int n = quip_session_position(s);
    assert_int_equal(collect(s, false, &text, &n_not_yet),
                     QUIP_FINISH_LENGTH); // not cancelled again
    assert_int_equal(quip_session_position(s), n + story_options.max_output_tokens);
    qp_bytes_close(&text);
    quip_session_close(s);
    quip_model_close(model);
}

static void test_close_in_mid_flight(void **state)
{
    (void)state;
    quip_model *model = open_reference(LLAMA_F32);
    quip_session *s = open_in_flight(model);
    quip_session_close(s);
    s = open_in_flight(model); // the device is free again
    quip_model_close(model);
    quip_session_close(s);
}

/* ---- any other call in mid-flight ---- */

static void call_append(quip_session *s)
{
    append(s, " then");
}
static void call_prefill(quip_session *s)
{
    quip_error error = { 0 };
    const quip_token tokens[] = { 20, 21, 22 };
    check(quip_session_prefill(s, tokens, 3, &error), &error);
}
static void call_begin_and_run(quip_session *s)
{
    quip_error error = { 0 };
    const quip_token tokens[] = { 20, 21, 22 };
    int n_left;
    check(quip_session_begin_prefill(s, tokens, 3, &n_left, &error), &error);
    while (n_left > 0)
        check(quip_session_run(s, 2, &n_left, &error), &error);
}
static void call_run(quip_session *s)
{
    quip_error error = { 0 };
    check(quip_session_run(s, 10, NULL, &error), &error);
}
static void call_rewind(quip_session *s)
{
    quip_error error = { 0 };
    check(quip_session_rewind(s, 4, &error), &error);
}
static void call_undo(quip_session *s)
{
    quip_error error = { 0 };
    check(quip_session_undo(s, &error), &error);
}
static void call_clone(quip_session *s)
{
    quip_error error = { 0 };
    quip_session *copy;
    struct bytes text = { 0 }, copied = { 0 };
    int n_not_yet = 0;
    check(quip_session_clone(&copy, s, &error), &error);
    collect(s, true, &text, &n_not_yet);
    collect(copy, true, &copied, &n_not_yet);
    assert_same_text(&text, &copied);
    qp_bytes_close(&text);
    qp_bytes_close(&copied);
    quip_session_close(copy);
}
static void call_options(quip_session *s)
{
    quip_error error = { 0 };
    const quip_session_options options = { .max_output_tokens = 9, .temperature = 0.3f };
    check(quip_session_set_options(s, &options, &error), &error);
}
static void call_logits(quip_session *s)
{
    quip_session_logits(s);
}

static void test_calls_in_mid_flight(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        void (*call)(quip_session *s);
    } calls[] = {
        { "append", call_append },
        { "prefill", call_prefill },
        { "begin and run", call_begin_and_run },
        { "run", call_run },
        { "rewind", call_rewind },
        { "undo", call_undo },
        { "clone", call_clone },
        { "set options", call_options },
        { "logits", call_logits },
    };
    quip_model *model = open_reference(LLAMA_F32);
    quip_model *calm_model = open_reference(LLAMA_F32); // with a device of its own
    for (size_t i = 0; i < QP_COUNT(calls); i++) {
        struct bytes text = { 0 }, expected = { 0 };
        int n_not_yet = 0;
        quip_session *s = open_in_flight(model);
        quip_session *calm = open_session(calm_model, &story_options);
        append(calm, "the hen");
        while (quip_session_position(calm) < quip_session_position(s)) {
            quip_piece piece;
            check(qp_answer_next(calm, true, &piece, NULL), &(quip_error){ 0 });
        }
        assert_int_equal(quip_session_position(calm), quip_session_position(s));
        assert_true(s->step.is_running);
        calls[i].call(s);
        calls[i].call(calm);
        collect(s, false, &text, &n_not_yet);
        collect(calm, true, &expected, &n_not_yet);
        if (text.n != expected.n || memcmp(text.data, expected.data, text.n))
            fail_msg("another answer after %s in mid-flight", calls[i].name);
        assert_int_equal(quip_session_position(s), quip_session_position(calm));
        qp_bytes_close(&text);
        qp_bytes_close(&expected);
        quip_session_close(s);
        quip_session_close(calm);
    }
    quip_model_close(model);
    quip_model_close(calm_model);
}

/* While one session has a step in flight, another one that does not wait is told so. */
static void test_another_session_in_mid_flight(void **state)
{
    (void)state;
    quip_piece piece;
    quip_error error = { 0 };
    quip_model *model = open_reference(LLAMA_F32);
    quip_session *other = open_session(model, &story_options);
    append(other, "and then");
    quip_session *s = open_in_flight(model);
    for (int i = 0; i < 10; i++)
        assert_int_equal(qp_answer_next(other, false, &piece, &error), QP_NOT_YET);
    reference_knobs.n_not_yet = 0;
    check(qp_answer_next(s, true, &piece, &error), &error);
    check(qp_answer_next(other, false, &piece, &error), &error);
    assert_true(piece.n_text > 0);
    quip_session_close(s);
    quip_session_close(other);
    quip_model_close(model);
}

/* ---- failures ---- */

/* The logits after the last token, or zeros if it has not run. */
static void copy_logits(quip_session *s, float *logits)
{
    memset(logits, 0, TINY_VOCAB * sizeof *logits);
    const float *from = s ? quip_session_logits(s) : NULL;
    if (from)
        memcpy(logits, from, TINY_VOCAB * sizeof *logits);
}

/* One step fails: the session is as before, up to logits that may have to be computed again. */
static void check_failure(struct story *t, bool is_answer, quip_status status,
                          const quip_error *error, int position, const float *before)
{
    float after[TINY_VOCAB];
    assert_int_equal(status, reference_knobs.failure);
    assert_int_equal(error->status, status);
    assert_non_null(reference_knobs.failed);
    assert_non_null(strstr(error->message, "the reference backend failed in "));
    assert_non_null(strstr(error->message, reference_knobs.failed));
    if (!t->session)
        return;
    if (is_answer && quip_session_position(t->session) > position)
        return; // tokens whose text is held back were drawn before it failed
    assert_int_equal(quip_session_position(t->session), position);
    copy_logits(t->session, after);
    static const float none[TINY_VOCAB];
    if (memcmp(after, none, sizeof after))
        assert_memory_equal(after, before, sizeof after);
}

/* Tell the whole story while the fail_in-th call of the backend fails. */
static struct bytes tell(int fail_in, bool when_run, quip_status failure, bool *has_failed)
{
    struct story t = { .model = open_reference(LLAMA_F32) };
    int n_calls = 0; // of the backend, by the steps so far
    *has_failed = false;
    for (int i = 0; i < n_story_steps; i++) {
        float before[TINY_VOCAB];
        quip_error error = { 0 };
        const int position = quip_session_position(t.session);
        copy_logits(t.session, before);
        reference_knobs = (struct reference_knobs){
            .fails_when_run = when_run,
            .failure = failure,
            .fail_in = !*has_failed && fail_in > n_calls ? fail_in - n_calls : 0,
        };
        quip_status status = story_steps[i](&t, &error);
        n_calls += reference_knobs.n_calls;
        reference_knobs.fail_in = 0;
        if (status) {
            assert_false(*has_failed);
            *has_failed = true;
            check_failure(&t, story_steps[i] == story_next, status, &error, position, before);
            error = (quip_error){ 0 };
            status = story_steps[i](&t, &error);
        }
        check(status, &error);
    }
    const struct bytes answer = t.answer;
    t.answer = (struct bytes){ 0 };
    story_close(&t);
    return answer;
}

static void test_failures(void **state)
{
    (void)state;
    bool has_failed;
    struct bytes expected = tell(0, false, QUIP_OK, &has_failed);
    assert_false(has_failed);
    assert_true(expected.n > 0);
    for (int when_run = 0; when_run < 2; when_run++) {
        int n = 1;
        do {
            const quip_status failure = n % 2 ? QUIP_E_DEVICE : QUIP_E_MEMORY;
            struct bytes text = tell(n++, when_run, failure, &has_failed);
            assert_same_text(&text, &expected);
            qp_bytes_close(&text);
        } while (has_failed);
        printf("  %d calls failed, one after the other\n", n - 1);
        assert_true(n > 100);
    }
    qp_bytes_close(&expected);
}

/* ---- export and import ---- */

#define N_EXPORT 1100 // tokens that the sessions of these tests hold

static void export_session(quip_session *s, struct memory_stream *to)
{
    quip_error error = { 0 };
    const struct stream stream = { memory_stream_write, to };
    *to = (struct memory_stream){ 0 };
    check(s->device->backend->sequence_export(s->sequence, &stream, &error), &error);
}

static quip_status import_session(quip_session *s, struct memory_stream *from, quip_error *error)
{
    const struct stream stream = { memory_stream_read, from };
    from->at = 0;
    return s->device->backend->sequence_import(s->sequence, &stream, error);
}

/* Run tokens of text 5 up to position `end`. */
static void prefill_to(quip_session *s, int end)
{
    quip_error error = { 0 };
    while (quip_session_position(s) < end) {
        quip_token tokens[256];
        const int n = qp_min(end - quip_session_position(s), (int)QP_COUNT(tokens));
        for (int i = 0; i < n; i++)
            tokens[i] = models_token(s->model, 5, quip_session_position(s) + i);
        check(quip_session_prefill(s, tokens, n, &error), &error);
    }
}

/* The session continues at position n of text 5, with what was imported. */
static void continue_at(quip_session *s, int n)
{
    for (int i = 0; i < n; i++)
        s->context[i] = models_token(s->model, 5, i);
    s->n = n;
    s->has_begun = true;
}

struct export_kind {
    const char *name;
    struct tiny_model model;
    const struct backend *backend; // NULL: the CPU's
    char path[64];
};

static struct export_kind export_kinds[10];

static int make_export_models(void **state)
{
    (void)state;
    quip_error error = { 0 };
    const struct export_kind kinds[] = {
        { .name = "window 9", .model = tiny_gemma3 },
        { .name = "window 130", .model = tiny_gemma3 },
        { .name = "window 130, f32", .model = tiny_with(tiny_gemma3, DTYPE_F32) },
        { .name = "no window, int8", .model = tiny_llama },
        { .name = "reference", .model = tiny_smallest, .backend = &reference_backend },
        { .name = "convolution", .model = tiny_lfm2 },
        { .name = "convolution, f32", .model = tiny_with(tiny_lfm2, DTYPE_F32) },
        { .name = "gemma4, window 9", .model = tiny_gemma4 },
        { .name = "gemma4, window 130, f32", .model = tiny_with(tiny_gemma4, DTYPE_F32) },
        { .name = "gemma4, reference", .model = tiny_gemma4, .backend = &reference_backend },
    };
    for (size_t i = 0; i < QP_COUNT(kinds); i++) {
        export_kinds[i] = kinds[i];
        if (strstr(kinds[i].name, "130"))
            export_kinds[i].model.window = 130;
        snprintf(export_kinds[i].path, sizeof export_kinds[i].path, "backend-export-%d-%zu.bin",
                 (int)getpid(), i);
        check(tiny_model_write(export_kinds[i].path, &export_kinds[i].model, &error), &error);
    }
    return reset_knobs(state);
}

static int remove_export_models(void **state)
{
    (void)state;
    for (size_t i = 0; i < QP_COUNT(export_kinds); i++)
        unlink(export_kinds[i].path);
    return 0;
}

static quip_session *open_export_session(const struct export_kind *kind)
{
    quip_model *model;
    quip_error error = { 0 };
    check(quip_model_open(&model, kind->path, NULL, &error), &error);
    model->backend = kind->backend;
    quip_session *s = open_session(model, &(quip_session_options){ .n_context = N_EXPORT });
    quip_model_close(model); // the session keeps it
    return s;
}

/* Where conversations are exported: { tokens that have run, tokens that are left after a rewind }.
 * Rings of these sizes have gone round at 1000. */
static const int stops[][2] = { { 1, 1 },   { 63, 63 },   { 64, 64 },     { 65, 65 },
                                { 66, 60 }, { 600, 600 }, { 1000, 1000 }, { 1001, 930 } };

/* On every level the bytes are the same, and what follows an import from any other level is what
 * would have followed without. */
static void check_export(const struct export_kind *kind)
{
    enum {
        N_AFTER = 3
    };
    struct memory_stream streams[QP_COUNT(stops)];
    float expected[QP_COUNT(stops)][TINY_VOCAB];
    quip_error error = { 0 };
    for (int level = 0; models_set_level(level); level++) {
        quip_session *s = open_export_session(kind);
        for (size_t i = 0; i < QP_COUNT(stops); i++) {
            struct memory_stream stream;
            prefill_to(s, stops[i][0]);
            check(quip_session_rewind(s, stops[i][1], &error), &error);
            const int pos = s->sequence->pos; // with convolutions, a long way back ends earlier
            assert_true(pos == stops[i][1] || (kind->model.layer_types && pos == 512));
            export_session(s, &stream);

            quip_session *t = open_export_session(kind);
            check(import_session(t, level ? &streams[i] : &stream, &error), &error);
            assert_int_equal(t->sequence->pos, pos);
            continue_at(t, stops[i][1]);
            prefill_to(t, stops[i][1] + N_AFTER);
            prefill_to(s, stops[i][1] + N_AFTER);
            const float *logits = quip_session_logits(s);
            if (memcmp(logits, quip_session_logits(t), sizeof expected[i]))
                fail_msg("%s: other logits after an import at %d", kind->name, stops[i][1]);
            quip_session_close(t);
            if (level == 0) {
                streams[i] = stream;
                memcpy(expected[i], logits, sizeof expected[i]);
                continue;
            }
            assert_memory_equal(logits, expected[i], sizeof expected[i]);
            assert_int_equal(stream.bytes.n, streams[i].bytes.n);
            assert_memory_equal(stream.bytes.data, streams[i].bytes.data, stream.bytes.n);
            qp_bytes_close(&stream.bytes);
        }
        quip_session_close(s);
    }
    models_reset_level();
    for (size_t i = 0; i < QP_COUNT(stops); i++)
        qp_bytes_close(&streams[i].bytes);
}

static void test_export_and_import(void **state)
{
    (void)state;
    for (size_t i = 0; i < QP_COUNT(export_kinds); i++)
        check_export(&export_kinds[i]);
}

/* The outputs that were kept go along, however many: the imported session need not run the last
 * token again. */
static void test_outputs_are_exported(void **state)
{
    (void)state;
    static const quip_token tokens[] = { 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18 };
    struct memory_stream stream;
    quip_error error = { 0 };
    for (size_t i = 0; i < QP_COUNT(export_kinds); i++) {
        quip_session *s = open_export_session(&export_kinds[i]);
        quip_session *t = open_export_session(&export_kinds[i]);
        for (int n = 1; n <= (int)QP_COUNT(tokens); n += 11) {
            check(quip_session_prefill_logits(s, tokens, n, NULL, NULL, &error), &error);
            export_session(s, &stream);
            check(import_session(t, &stream, &error), &error);
            continue_at(t, n);
            t->output_position = s->output_position;
            t->n_outputs = s->n_outputs;
            assert_non_null(quip_session_logits(t));
            assert_memory_equal(quip_session_logits(s), quip_session_logits(t),
                                TINY_VOCAB * sizeof(float));
            qp_bytes_close(&stream.bytes);
            check(quip_session_rewind(s, 0, &error), &error);
            check(quip_session_rewind(t, 0, &error), &error);
            export_session(s, &stream); // nothing, but outputs
            check(import_session(t, &stream, &error), &error);
            assert_int_equal(t->sequence->pos, 0);
            qp_bytes_close(&stream.bytes);
        }
        quip_session_close(s);
        quip_session_close(t);
    }
}

/* After an import that failed, the session begins again. */
static void check_refused(quip_session *s, struct memory_stream *stream, const float *expected)
{
    quip_error error = { 0 };
    const quip_status status = import_session(s, stream, &error);
    if (status != QUIP_E_FORMAT && status != QUIP_E_IO)
        fail_msg("the status of a damaged stream is %s", quip_status_name(status));
    assert_int_equal(error.status, status);
    assert_true(strlen(error.message) > 10);
    assert_int_equal(s->sequence->pos, 0);
    prefill_to(s, 5);
    assert_memory_equal(quip_session_logits(s), expected, TINY_VOCAB * sizeof(float));
    check(quip_session_rewind(s, 0, &error), &error);
}

static void check_damage(const struct export_kind *kind)
{
    struct memory_stream stream;
    float expected[TINY_VOCAB];
    quip_error error = { 0 };
    quip_session *s = open_export_session(kind), *t = open_export_session(kind);
    prefill_to(t, 5);
    memcpy(expected, quip_session_logits(t), sizeof expected);
    check(quip_session_rewind(t, 0, &error), &error);
    prefill_to(s, 70);
    export_session(s, &stream);
    const size_t n = stream.bytes.n;
    for (size_t length = 0; length < n; length += length < 64 ? 1 : n / 50) { // truncated
        stream.bytes.n = length;
        check_refused(t, &stream, expected);
    }
    stream.bytes.n = n;
    static const int32_t wrong[] = { -1, INT32_MIN, INT32_MAX, 1 << 20 };
    const size_t n_fields = (kind->backend ? 5 : 9);
    for (size_t field = 0; field < n_fields; field++) // of the header
        for (size_t i = 0; i < QP_COUNT(wrong); i++) {
            int32_t right;
            memcpy(&right, stream.bytes.data + 4 * field, 4);
            memcpy(stream.bytes.data + 4 * field, &wrong[i], 4);
            check_refused(t, &stream, expected);
            memcpy(stream.bytes.data + 4 * field, &right, 4);
        }
    for (size_t at = 4 * n_fields; at < n; at += 1 + n / 200) // values: any are possible
        stream.bytes.data[at] ^= 0xff;
    check(import_session(t, &stream, &error), &error);
    continue_at(t, 70);
    prefill_to(t, 72);
    qp_bytes_close(&stream.bytes);
    quip_session_close(s);
    quip_session_close(t);
}

static void test_damaged_streams(void **state)
{
    (void)state;
    for (size_t i = 0; i < QP_COUNT(export_kinds); i++)
        check_damage(&export_kinds[i]);
}

/* A ring that has gone round does not have what the position in the stream needs. */
static void test_positions_that_are_lost(void **state)
{
    (void)state;
    const size_t field = 5; // struct kv_header: pos
    const int32_t lost = 100;
    for (size_t i = 0; i < 3; i++) {
        struct memory_stream stream;
        float expected[TINY_VOCAB];
        quip_error error = { 0 };
        quip_session *s = open_export_session(&export_kinds[i]);
        prefill_to(s, 5);
        memcpy(expected, quip_session_logits(s), sizeof expected);
        prefill_to(s, 1000);
        export_session(s, &stream);
        memcpy(stream.bytes.data + 4 * field, &lost, sizeof lost);
        check(quip_session_rewind(s, 0, &error), &error);
        check_refused(s, &stream, expected);
        qp_bytes_close(&stream.bytes);
        quip_session_close(s);
    }
}

/* Keys of a model are nothing to another one, nor to another capacity. */
static void test_streams_of_others(void **state)
{
    (void)state;
    struct memory_stream stream;
    quip_error error = { 0 };
    for (size_t i = 0; i < 4; i++)
        for (size_t j = 0; j < 4; j++) {
            if (i == j || (i < 2 && j < 2)) // these differ in the window only
                continue;
            quip_session *s = open_export_session(&export_kinds[i]);
            quip_session *t = open_export_session(&export_kinds[j]);
            prefill_to(s, 3);
            export_session(s, &stream);
            assert_int_equal(import_session(t, &stream, &error), QUIP_E_FORMAT);
            assert_int_equal(t->sequence->pos, 0);
            qp_bytes_close(&stream.bytes);
            quip_session_close(s);
            quip_session_close(t);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_same_logits_as_the_cpu, reset_knobs),
        cmocka_unit_test_setup(test_goldens, reset_knobs),
        cmocka_unit_test_setup(test_adapters, reset_knobs),
        cmocka_unit_test_setup(test_rows_that_attend_to_later_rows, reset_knobs),
        cmocka_unit_test_setup(test_copies_have_the_last_output, reset_knobs),
        cmocka_unit_test_setup(test_not_yet_while_the_device_works, reset_knobs),
        cmocka_unit_test_setup(test_device_that_cannot_wait, reset_knobs),
        cmocka_unit_test_setup(test_cancel_in_mid_flight, reset_knobs),
        cmocka_unit_test_setup(test_close_in_mid_flight, reset_knobs),
        cmocka_unit_test_setup(test_calls_in_mid_flight, reset_knobs),
        cmocka_unit_test_setup(test_another_session_in_mid_flight, reset_knobs),
        cmocka_unit_test_setup(test_failures, reset_knobs),
    };
    const struct CMUnitTest export_tests[] = {
        cmocka_unit_test(test_export_and_import), cmocka_unit_test(test_outputs_are_exported),
        cmocka_unit_test(test_damaged_streams),   cmocka_unit_test(test_positions_that_are_lost),
        cmocka_unit_test(test_streams_of_others),
    };
    const int n_failed = cmocka_run_group_tests(tests, models_make, models_remove);
    return n_failed +
           cmocka_run_group_tests(export_tests, make_export_models, remove_export_models);
}
