/* draft.c (test): a draft model beside the model. The answer never depends on it, and its session
 * follows whatever happens to the context. The number of draft tokens is fixed here, because
 * sessions choose it by measured times. */
#include "engine/engine.h"
#include "support/check.h"
#include "support/tiny_adapter.h"
#include "support/tiny_model.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- models ---- */

enum model_kind {
    TARGET, // gemma3, rings of slots
    OTHER,  // the same sizes, other weights: its tokens are hardly ever right
    LESS,   // the weights of TARGET in int4: many are right
    PADDED, // OTHER with fewer pieces than rows
    WRONG,  // another vocabulary
    SHORT,  // at most 64 positions
    CONV,   // convolutions
    N_MODELS
};
static char paths[N_MODELS][64];
static quip_model *models[N_MODELS];

static int make_models(void **state)
{
    (void)state;
    struct tiny_model tiny[N_MODELS];
    quip_error error = { 0 };
    for (int i = 0; i < N_MODELS; i++)
        tiny[i] = tiny_gemma3;
    tiny[OTHER].seed += 1;
    tiny[LESS] = tiny_with(tiny_gemma3, DTYPE_I4);
    tiny[PADDED].seed += 1;
    tiny[PADDED].n_pieces = TINY_VOCAB - 5;
    tiny[WRONG].letter_bytes = 2;
    tiny[SHORT].lie = 2; // max_seq_length
    tiny[SHORT].lie_value = 64;
    tiny[CONV] = tiny_lfm2;
    for (int i = 0; i < N_MODELS; i++) {
        snprintf(paths[i], sizeof paths[i], "tiny-draft-%d-%d.bin", (int)getpid(), i);
        check(tiny_model_write(paths[i], &tiny[i], &error), &error);
        const quip_model_options options = { .n_threads = 2 };
        check(quip_model_open(&models[i], paths[i], &options, &error), &error);
    }
    return 0;
}

static int remove_models(void **state)
{
    (void)state;
    for (int i = 0; i < N_MODELS; i++) {
        quip_model_close(models[i]);
        unlink(paths[i]);
    }
    return 0;
}

/* ---- the same text ---- */

static bool collect(void *user, const char *text, size_t n)
{
    return qp_bytes_append(user, text, n);
}

/* How tokens are drawn, with a draft model or without. */
static quip_session_options drawing(int way)
{
    quip_session_options o = {
        .n_context = 700, .max_output_tokens = 60, .seed = 11 + (uint64_t)way, .has_seed = true
    };
    o.greedy = way == 0;
    o.temperature = way == 0 ? 0 : 0.3f * (float)way;
    if (way == 3) {
        o.repeat_penalty = 1.2f;
        o.dry_multiplier = 0.4f;
        o.penalty_window = -1;
    }
    return o;
}

static quip_session *open_session(quip_model *target, quip_model *draft, quip_session_options o,
                                  int length)
{
    quip_error error = { 0 };
    quip_session *s;
    o.draft = draft;
    check(quip_session_open(&s, target, &o, &error), &error);
    if (draft)
        qp_draft_model_fix_length(s->draft.model, length);
    return s;
}

/* Two sessions, one of which has a draft model. */
struct pair {
    quip_session *s[2];
    int n_tokens, n_right; // draft tokens
};

static void assert_same_context(const struct pair *p)
{
    assert_int_equal(quip_session_position(p->s[0]), quip_session_position(p->s[1]));
    assert_memory_equal(p->s[0]->context, p->s[1]->context,
                        (size_t)p->s[0]->n * sizeof *p->s[0]->context);
}

/* The same turn for both; the answers, and the logits after one more token, are the same. */
static void say(struct pair *p, const char *text)
{
    struct bytes answer[2] = { 0 };
    quip_error error = { 0 };
    const quip_token more = 20;
    for (int i = 0; i < 2; i++) {
        quip_result result = { .struct_size = sizeof result };
        check(quip_session_append(p->s[i], QUIP_ROLE_NONE, text, strlen(text), &error), &error);
        check(quip_session_generate(p->s[i], " and", 4, collect, &answer[i], &result, &error),
              &error);
        check(quip_session_prefill(p->s[i], &more, 1, &error), &error);
        p->n_tokens += i ? result.n_draft_tokens : 0;
        p->n_right += i ? result.n_draft_right : 0;
    }
    assert_int_equal(answer[0].n, answer[1].n);
    assert_memory_equal(answer[0].data, answer[1].data, answer[0].n);
    assert_same_context(p);
    assert_memory_equal(quip_session_logits(p->s[0]), quip_session_logits(p->s[1]),
                        TINY_VOCAB * sizeof(float));
    for (int i = 0; i < 2; i++)
        qp_bytes_close(&answer[i]);
}

static void close_pair(struct pair *p)
{
    quip_session_close(p->s[0]);
    quip_session_close(p->s[1]);
}

static void test_the_answer_is_the_same(void **state)
{
    (void)state;
    static const enum model_kind targets[] = { TARGET, CONV };
    static const enum model_kind drafts[] = { TARGET, OTHER, LESS, PADDED, CONV };
    int n_right[N_MODELS] = { 0 }, n_tokens[N_MODELS] = { 0 };
    for (size_t t = 0; t < QP_COUNT(targets); t++)
        for (size_t d = 0; d < QP_COUNT(drafts); d++)
            for (int way = 0; way < 4; way++) {
                struct pair p = { 0 };
                const int length = 1 + (int)(3 * t + d + 2 * (size_t)way) % MAX_DRAFT;
                p.s[0] = open_session(models[targets[t]], NULL, drawing(way), 0);
                p.s[1] = open_session(models[targets[t]], models[drafts[d]], drawing(way), length);
                say(&p, "a hen");
                say(&p, "the moon is far");
                if (t == 0) {
                    n_tokens[drafts[d]] += p.n_tokens;
                    n_right[drafts[d]] += p.n_right;
                }
                close_pair(&p);
            }
    for (size_t d = 0; d < QP_COUNT(drafts); d++)
        assert_true(n_tokens[drafts[d]] > 50);
    assert_true(n_right[TARGET] > n_tokens[TARGET] * 3 / 4); // lookup in the context may be wrong
    assert_true(n_right[LESS] > n_right[OTHER]);
}

/* ---- whatever happens to the context ---- */

static void do_both(struct pair *p, quip_status (*fn)(quip_session *s, int value, quip_error *e),
                    int value)
{
    quip_error error = { 0 };
    for (int i = 0; i < 2; i++)
        check(fn(p->s[i], value, &error), &error);
    assert_same_context(p);
}

static quip_status rewind_to(quip_session *s, int percent, quip_error *error)
{
    return quip_session_rewind(s, quip_session_position(s) * percent / 100, error);
}

static quip_status undo(quip_session *s, int value, quip_error *error)
{
    (void)value;
    return quip_session_undo(s, error);
}

static quip_status set_seed(quip_session *s, int seed, quip_error *error)
{
    quip_session_options o = drawing(seed % 4);
    o.seed = (uint64_t)seed;
    return quip_session_set_options(s, &o, error);
}

/* End an answer in the middle, where draft tokens may have run. */
static quip_status take_pieces(quip_session *s, int n, quip_error *error)
{
    quip_piece piece = { .struct_size = sizeof piece };
    quip_status status = QUIP_OK;
    while (s->result.n_output_tokens < n && !status && !piece.finish_reason)
        status = quip_session_next(s, &piece, error);
    return status;
}

static void clone_both(struct pair *p)
{
    quip_error error = { 0 };
    for (int i = 0; i < 2; i++) {
        quip_session *copy;
        check(quip_session_clone(&copy, p->s[i], &error), &error);
        quip_session_close(p->s[i]);
        p->s[i] = copy;
    }
    assert_same_context(p);
}

static void test_the_draft_follows_the_context(void **state)
{
    (void)state;
    static const enum model_kind targets[] = { TARGET, CONV };
    for (size_t t = 0; t < QP_COUNT(targets); t++)
        for (int length = 1; length <= MAX_DRAFT; length += 2) {
            struct pair p = { 0 };
            p.s[0] = open_session(models[targets[t]], NULL, drawing(1), 0);
            p.s[1] = open_session(models[targets[t]], models[LESS], drawing(1), length);
            say(&p, "one");
            do_both(&p, rewind_to, 60);
            say(&p, "two");
            do_both(&p, undo, 0);
            say(&p, "three");
            clone_both(&p);
            say(&p, "four");
            do_both(&p, set_seed, 40 + length);
            do_both(&p, take_pieces, 12);
            clone_both(&p); // in the middle of an answer
            do_both(&p, take_pieces, 20);
            do_both(&p, rewind_to, 90);
            say(&p, "five");
            do_both(&p, rewind_to, 0);
            say(&p, "six");
            close_pair(&p);
        }
}

/* An adapter of the target: the draft model goes on without it. */
static void test_an_adapter(void **state)
{
    (void)state;
    quip_error error = { 0 };
    quip_adapter *adapter;
    const struct tiny_adapter tiny = { .rank = 4, .alpha = 8 };
    char folder[64];
    struct pair p = { 0 };
    snprintf(folder, sizeof folder, "tiny-draft-%d-lora", (int)getpid());
    check(tiny_adapter_write(folder, models[TARGET], &tiny, &error), &error);
    check(quip_adapter_open(&adapter, models[TARGET], folder, &error), &error);
    p.s[0] = open_session(models[TARGET], NULL, drawing(2), 0);
    p.s[1] = open_session(models[TARGET], models[LESS], drawing(2), 4);
    say(&p, "before");
    for (int i = 0; i < 2; i++)
        check(quip_session_set_adapter(p.s[i], adapter, 1.5f, &error), &error);
    say(&p, "with it");
    clone_both(&p);
    for (int i = 0; i < 2; i++)
        check(quip_session_set_adapter(p.s[i], NULL, 1, &error), &error);
    say(&p, "after");
    close_pair(&p);
    quip_adapter_close(adapter);
    tiny_adapter_remove(folder);
}

/* Beyond its own context the draft model has no part. */
static void test_a_shorter_context(void **state)
{
    (void)state;
    struct pair p = { 0 };
    p.s[0] = open_session(models[TARGET], NULL, drawing(1), 0);
    p.s[1] = open_session(models[TARGET], models[SHORT], drawing(1), 5);
    say(&p, "some words that fill a part of the context");
    assert_true(p.n_tokens > 0 && quip_session_position(p.s[1]) > 64);
    say(&p, "more");
    do_both(&p, rewind_to, 20);
    say(&p, "again");
    close_pair(&p);
}

static bool cancel(void *user, const char *text, size_t n)
{
    quip_session *s = user;
    (void)text, (void)n;
    if (s->result.n_output_tokens >= 9)
        quip_session_cancel(s);
    return true;
}

static void test_cancel(void **state)
{
    (void)state;
    quip_error error = { 0 };
    struct pair p = { 0 };
    p.s[0] = open_session(models[TARGET], NULL, drawing(1), 0);
    p.s[1] = open_session(models[TARGET], models[LESS], drawing(1), 3);
    for (int i = 0; i < 2; i++) {
        quip_result result = { .struct_size = sizeof result };
        check(quip_session_generate(p.s[i], "a hen", 5, cancel, p.s[i], &result, &error), &error);
        assert_int_equal(result.finish_reason, QUIP_FINISH_CANCELLED);
        check(quip_session_rewind(p.s[i], 9, &error), &error);
    }
    say(&p, "go on");
    close_pair(&p);
}

/* ---- the contract ---- */

static void assert_refused(quip_status status, quip_status want, const quip_error *error,
                           const char *text)
{
    assert_int_equal(status, want);
    if (!strstr(error->message, text))
        fail_msg("\"%s\" does not contain \"%s\"", error->message, text);
}

static void test_what_is_refused(void **state)
{
    (void)state;
    quip_error error = { 0 };
    quip_session *s = NULL;
    quip_plan plan = { .struct_size = sizeof plan };
    quip_model *header;
    quip_session_options o = drawing(0);
    o.draft = models[WRONG];
    assert_refused(quip_session_open(&s, models[TARGET], &o, &error), QUIP_E_ARGUMENT, &error,
                   "is \"aa\", expected \"a\"; a draft model needs the same vocabulary");
    assert_null(s);
    assert_refused(quip_model_plan(models[TARGET], &o, &plan, &error), QUIP_E_ARGUMENT, &error,
                   "cannot draft for");

    const quip_model_options no_weights = { .no_weights = true };
    check(quip_model_open(&header, paths[OTHER], &no_weights, &error), &error);
    o.draft = header;
    assert_refused(quip_session_open(&s, models[TARGET], &o, &error), QUIP_E_ARGUMENT, &error,
                   "was opened with no_weights");
    check(quip_model_plan(models[TARGET], &o, &plan, &error), &error);
    quip_model_close(header);

    s = open_session(models[TARGET], models[OTHER], drawing(0), 0);
    o = drawing(1);
    o.draft = models[LESS];
    assert_refused(quip_session_set_options(s, &o, &error), QUIP_E_ARGUMENT, &error,
                   "draft model of an open session cannot change");
    o.draft = models[OTHER];
    check(quip_session_set_options(s, &o, &error), &error);
    o.draft = NULL; // as before
    check(quip_session_set_options(s, &o, &error), &error);
    assert_non_null(s->draft.model);
    quip_session_close(s);
}

static void test_the_plan_counts_both(void **state)
{
    (void)state;
    quip_error error = { 0 };
    quip_plan one = { .struct_size = sizeof one }, two = one, both = one;
    quip_session_options o = { .n_context = 512 };
    check(quip_model_plan(models[TARGET], &o, &one, &error), &error);
    check(quip_model_plan(models[OTHER], &o, &two, &error), &error);
    o.draft = models[OTHER];
    check(quip_model_plan(models[TARGET], &o, &both, &error), &error);
    assert_int_equal(both.n_context, 512);
    assert_int_equal(both.file_bytes, one.file_bytes + two.file_bytes);
    assert_int_equal(both.model_bytes, one.model_bytes + two.model_bytes);
    assert_int_equal(both.kv_bytes, one.kv_bytes + two.kv_bytes);
    assert_int_equal(both.scratch_bytes, one.scratch_bytes + two.scratch_bytes);
    assert_int_equal(both.shared_bytes, one.shared_bytes + two.shared_bytes);
}

/* The session keeps the draft model, which the caller closes. Lengths are chosen by time here. */
static void test_a_closed_draft_model(void **state)
{
    (void)state;
    quip_error error = { 0 };
    quip_model *draft;
    struct pair p = { 0 };
    check(quip_model_open(&draft, paths[LESS], NULL, &error), &error);
    p.s[0] = open_session(models[TARGET], NULL, drawing(2), 0);
    p.s[1] = open_session(models[TARGET], draft, drawing(2), 0);
    quip_model_close(draft);
    say(&p, "the hen");
    assert_true(p.n_tokens > 0);
    clone_both(&p);
    say(&p, "the other hen");
    close_pair(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_answer_is_the_same),
        cmocka_unit_test(test_the_draft_follows_the_context),
        cmocka_unit_test(test_an_adapter),
        cmocka_unit_test(test_a_shorter_context),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_the_plan_counts_both),
        cmocka_unit_test(test_a_closed_draft_model),
    };
    return cmocka_run_group_tests(tests, make_models, remove_models);
}
