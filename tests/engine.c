/* engine.c (test): law 5, one answer everywhere, and the contract of sessions (quip.h), with tiny
 * random models. A failure prints the model and the setting that differed. engine [PATTERN] runs
 * only tests whose names match, such as 'test_same_on_*' */
#include "model/model.h"
#include "support/check.h"
#include "support/logits.h"
#include "support/shared.h"
#include "support/tiny_model.h"

#include "cpu/kernels.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define N_PROMPT 300 // more than one prefill chunk, five attention blocks

/* ---- models ---- */

static const char *const kinds[] = { "gemma3 mixed", "gemma3 f32", "llama int8",
                                     "llama int4",   "llama f32",  "llama int4 in blocks",
                                     "gemma4 mixed", "gemma4 f32" };
static char paths[QP_COUNT(kinds)][64];
static quip_token prompt[N_PROMPT];

static int make_models(void **state)
{
    (void)state;
    const struct tiny_model models[] = { tiny_gemma3,
                                         tiny_with(tiny_gemma3, DTYPE_F32),
                                         tiny_llama,
                                         tiny_with(tiny_llama, DTYPE_I4),
                                         tiny_with(tiny_llama, DTYPE_F32),
                                         tiny_with(tiny_llama, DTYPE_I4_BLOCK),
                                         tiny_gemma4,
                                         tiny_with(tiny_gemma4, DTYPE_F32) };
    quip_error error = { 0 };
    for (size_t i = 0; i < QP_COUNT(kinds); i++) {
        snprintf(paths[i], sizeof paths[i], "tiny-engine-%d-%zu.bin", (int)getpid(), i);
        check(tiny_model_write(paths[i], &models[i], &error), &error);
    }
    for (int i = 0; i < N_PROMPT; i++)
        prompt[i] = (i * 7919 + i * i * 13) % TINY_VOCAB;
    return 0;
}

static int remove_models(void **state)
{
    (void)state;
    for (size_t i = 0; i < QP_COUNT(kinds); i++)
        unlink(paths[i]);
    return 0;
}

static quip_model *open_model_with(size_t kind, const quip_model_options *options)
{
    quip_model *model;
    quip_error error = { 0 };
    check(quip_model_open(&model, paths[kind], options, &error), &error);
    return model;
}

static quip_model *open_model(size_t kind)
{
    return open_model_with(kind, NULL);
}

static quip_session *open_session(quip_model *model, const quip_session_options *options)
{
    quip_session *session;
    quip_error error = { 0 };
    check(quip_session_open(&session, model, options, &error), &error);
    return session;
}

static void prefill(quip_session *s, const quip_token *tokens, int n)
{
    quip_error error = { 0 };
    check(quip_session_prefill(s, tokens, n, &error), &error);
}

/* ---- law 5 ---- */

/* Logits after every token of the prompt, [N_PROMPT, TINY_VOCAB], prefilled in pieces. */
static float *all_logits(size_t kind, int n_threads, int piece)
{
    quip_model *model = open_model_with(
        kind, &(quip_model_options){ .backend = QUIP_BACKEND_CPU, .n_threads = n_threads });
    quip_session_options options = { .n_context = N_PROMPT };
    quip_session *s = open_session(model, &options);
    float *rows = calloc((size_t)N_PROMPT * TINY_VOCAB, sizeof *rows);
    assert_non_null(rows);
    logits_prefill(s, prompt, N_PROMPT, piece, rows);
    assert_memory_equal(quip_session_logits(s), rows + (size_t)(N_PROMPT - 1) * TINY_VOCAB,
                        TINY_VOCAB * sizeof *rows);
    quip_session_close(s);
    quip_model_close(model);
    return rows;
}

static void assert_same(const float *want, float *got, size_t kind, const char *what)
{
    for (size_t i = 0; i < (size_t)N_PROMPT * TINY_VOCAB; i++)
        if (memcmp(&want[i], &got[i], sizeof *want))
            fail_msg("%s, %s: logit %zu after token %zu is %.9g, not %.9g", kinds[kind], what,
                     i % TINY_VOCAB, i / TINY_VOCAB, (double)got[i], (double)want[i]);
    free(got);
}

static void test_same_on_every_isa(void **state)
{
    (void)state;
    const struct cpu_level *level;
    const char *given = getenv("QUIP_CPU");
    for (size_t kind = 0; kind < QP_COUNT(kinds); kind++) {
        setenv("QUIP_CPU", "scalar", 1);
        float *scalar = all_logits(kind, 2, N_PROMPT);
        assert_true(scalar[5] == scalar[5]);
        for (int i = 1; (level = qp_cpu_level(i)); i++) {
            setenv("QUIP_CPU", level->name, 1);
            if (qp_cpu_features() == 0) // a level of another processor
                continue;
            assert_same(scalar, all_logits(kind, 2, N_PROMPT), kind, level->name);
            assert_same(scalar, all_logits(kind, 2, 1), kind, level->name);
        }
        free(scalar);
    }
    if (given)
        setenv("QUIP_CPU", given, 1);
    else
        unsetenv("QUIP_CPU");
}

/* The logits of these models on every machine, with every compiler and all options. A change to the
 * order of a sum changes these numbers, and the answers of every user: say so in the commit. */
static void test_same_on_every_machine(void **state)
{
    (void)state;
    static const uint64_t hashes[QP_COUNT(kinds)] = { 0x88cb6f3ec325661c, 0x4a568c0efcf3bc92,
                                                      0x165a2c52dc307073, 0x590a6a21d9c4ed9d,
                                                      0xb557f382fb6bdacd, 0x155c583aeb8dcd2a,
                                                      0xce7bbe27e5a88861, 0xfbd3093257cde31e };
    bool is_same = true;
    for (size_t kind = 0; kind < QP_COUNT(kinds); kind++) {
        float *rows = all_logits(kind, 2, N_PROMPT);
        const uint64_t hash = logits_hash(rows, (size_t)N_PROMPT * TINY_VOCAB);
        if (hash != hashes[kind])
            print_error("%s: the hash of its logits is 0x%016llx, not 0x%016llx\n", kinds[kind],
                        (unsigned long long)hash, (unsigned long long)hashes[kind]);
        is_same = is_same && hash == hashes[kind];
        free(rows);
    }
    assert_true(is_same);
}

static void test_same_with_any_number_of_threads(void **state)
{
    (void)state;
    static const int n_threads[] = { 2, 3, 8, 64 };
    for (size_t kind = 0; kind < QP_COUNT(kinds); kind++) {
        float *one = all_logits(kind, 1, N_PROMPT);
        for (size_t i = 0; i < QP_COUNT(n_threads); i++) {
            char what[32];
            snprintf(what, sizeof what, "%d threads", n_threads[i]);
            assert_same(one, all_logits(kind, n_threads[i], N_PROMPT), kind, what);
        }
        assert_same(one, all_logits(kind, 3, 1), kind, "decode on 3 threads");
        free(one);
    }
}

static void test_same_in_any_pieces(void **state)
{
    (void)state;
    static const int pieces[] = { 1, 2, 3, 5, 64, 129, 299 };
    for (size_t kind = 0; kind < QP_COUNT(kinds); kind++) {
        float *whole = all_logits(kind, 2, N_PROMPT);
        for (size_t i = 0; i < QP_COUNT(pieces); i++) {
            char what[32];
            snprintf(what, sizeof what, "pieces of %d tokens", pieces[i]);
            assert_same(whole, all_logits(kind, 2, pieces[i]), kind, what);
        }
        free(whole);
    }
}

/* quip_session_prefill skips part of the last layer for all tokens except the last. The last logits
 * are the same. */
static void test_prefill_equals_prefill_logits(void **state)
{
    (void)state;
    for (size_t kind = 0; kind < QP_COUNT(kinds); kind++) {
        float *rows = all_logits(kind, 2, N_PROMPT);
        quip_model *model = open_model(kind);
        quip_session *s = open_session(model, &(quip_session_options){ .n_context = N_PROMPT });
        for (int at = 0; at < N_PROMPT; at += 50) {
            prefill(s, prompt + at, 50);
            assert_memory_equal(quip_session_logits(s), rows + (size_t)(at + 49) * TINY_VOCAB,
                                TINY_VOCAB * sizeof *rows);
        }
        quip_session_close(s);
        quip_model_close(model);
        free(rows);
    }
}

/* ---- the context ---- */

static void test_rewind_and_clone(void **state)
{
    (void)state;
    quip_error error = { 0 };
    for (size_t kind = 0; kind < QP_COUNT(kinds); kind++) {
        float *rows = all_logits(kind, 2, N_PROMPT);
        quip_model *model = open_model(kind);
        quip_session *s = open_session(model, &(quip_session_options){ .n_context = N_PROMPT });
        quip_session *copy;
        prefill(s, prompt, 200);
        prefill(s, prompt + 250, 20); // tokens to discard
        check(quip_session_rewind(s, 200, &error), &error);
        assert_int_equal(quip_session_position(s), 200);
        assert_null(quip_session_logits(s));
        prefill(s, prompt + 200, 50);
        check(quip_session_clone(&copy, s, &error), &error);
        assert_memory_equal(quip_session_logits(copy), quip_session_logits(s),
                            TINY_VOCAB * sizeof(float));
        quip_session_close(s);
        prefill(copy, prompt + 250, 50);
        assert_memory_equal(quip_session_logits(copy), rows + (size_t)(N_PROMPT - 1) * TINY_VOCAB,
                            TINY_VOCAB * sizeof *rows);
        assert_int_equal(quip_session_rewind(copy, 301, &error), QUIP_E_ARGUMENT);
        quip_model_close(model); // before its session
        quip_session_close(copy);
        free(rows);
    }
}

static void test_overflow_is_an_error_and_changes_nothing(void **state)
{
    (void)state;
    quip_error error = { 0 };
    quip_model *model = open_model(2);
    quip_session *s = open_session(model, &(quip_session_options){ .n_context = 40 });
    float before[TINY_VOCAB];
    prefill(s, prompt, 30);
    memcpy(before, quip_session_logits(s), sizeof before);
    assert_int_equal(quip_session_prefill(s, prompt + 30, 11, &error), QUIP_E_CONTEXT_FULL);
    assert_non_null(strstr(error.message, "30 of the context's 40 are in use"));
    assert_int_equal(quip_session_position(s), 30);
    assert_memory_equal(before, quip_session_logits(s), sizeof before);
    const quip_token outside[] = { 1, TINY_VOCAB };
    assert_int_equal(quip_session_prefill(s, outside, 2, &error), QUIP_E_ARGUMENT);
    size_t n;
    assert_int_equal(quip_detokenize(model, outside, 2, NULL, 0, &n, &error), QUIP_E_ARGUMENT);
    assert_non_null(strstr(error.message, "token 1 is"));
    assert_int_equal(quip_session_position(s), 30);
    prefill(s, prompt + 30, 10);
    assert_int_equal(quip_session_prefill(s, prompt, 1, &error), QUIP_E_CONTEXT_FULL);
    quip_session_close(s);
    quip_model_close(model);
}

static void test_bad_options_are_refused(void **state)
{
    (void)state;
    quip_error error = { 0 };
    quip_model *model = open_model(2);
    const char *stops[] = { "" };
    const quip_session_options bad[] = {
        { .n_context = -1 },
        { .n_context = 2049 },
        { .n_threads = -1 },
        { .n_threads = 1000 },
        { .temperature = -1 },
        { .top_k = -2 },
        { .min_p = -2 },
        { .top_p = 1.5f },
        { .no_repeat_ngram = -2 },
        { .n_stop = 1 },
        { .n_stop = 1, .stop = stops },
        { .max_output_tokens = -1 },
    };
    for (size_t i = 0; i < QP_COUNT(bad); i++) {
        quip_session *s = (quip_session *)&error;
        assert_int_equal(quip_session_open(&s, model, &bad[i], &error), QUIP_E_ARGUMENT);
        assert_null(s);
        assert_true(strlen(error.message) > 10);
    }
    quip_model_close(model);
}

/* ---- answers ---- */

static bool collect(void *user, const char *text, size_t n)
{
    return qp_bytes_append(user, text, n);
}

/* The answer to "the hen" under these options, NUL-terminated. */
static char *answer(size_t kind, quip_session_options options, quip_result *result)
{
    quip_error error = { 0 };
    quip_model *model = open_model(kind);
    quip_session *s = open_session(model, &options);
    struct bytes text = { 0 };
    check(quip_session_generate(s, "the hen", 7, collect, &text, result, &error), &error);
    assert_true(qp_utf8_complete((char *)text.data, text.n) == text.n);
    assert_true(qp_bytes_append(&text, "", 1));
    quip_session_close(s);
    quip_model_close(model);
    return (char *)text.data;
}

static void test_finish_reasons(void **state)
{
    (void)state;
    quip_result result = { .struct_size = sizeof result };
    free(answer(0,
                (quip_session_options){ .n_context = 64, .max_output_tokens = 5, .greedy = true },
                &result));
    assert_int_equal(result.finish_reason, QUIP_FINISH_LENGTH);
    assert_int_equal(result.n_output_tokens, 5);
    assert_true(result.n_prompt_tokens > 2);
    free(answer(2, (quip_session_options){ .n_context = 24 }, &result));
    assert_true(result.finish_reason == QUIP_FINISH_CONTEXT ||
                result.finish_reason == QUIP_FINISH_STOP);
}

/* Every token of the context is counted once, as prompt or as output. That includes the text that
 * the template puts before the answer. */
static void test_prompt_tokens(void **state)
{
    (void)state;
    quip_error error = { 0 };
    for (size_t kind = 0; kind < 3; kind++) {
        quip_model *model = open_model(kind);
        quip_session *s = open_session(
            model, &(quip_session_options){ .n_context = 200, .max_output_tokens = 4 });
        for (int turn = 0, before = 0; turn < 3; turn++) {
            quip_result result = { .struct_size = sizeof result };
            check(quip_session_generate(s, "the hen", 7, NULL, NULL, &result, &error), &error);
            const int after = quip_session_position(s);
            const int n_stop = result.finish_reason == QUIP_FINISH_STOP;
            assert_true(result.n_prompt_tokens > 0);
            assert_int_equal(result.n_prompt_tokens + result.n_output_tokens - n_stop,
                             after - before);
            before = after;
        }
        quip_session_close(s);
        quip_model_close(model);
    }
}

static void test_seeds(void **state)
{
    (void)state;
    quip_session_options o = { .n_context = 80, .max_output_tokens = 40, .temperature = 1.5f };
    quip_result first = { .struct_size = sizeof first }, second = first;
    char *drawn = answer(2, o, &first);
    o.seed = first.seed;
    o.has_seed = true;
    char *again = answer(2, o, &second);
    assert_string_equal(drawn, again);
    free(drawn);
    free(again);
    o.seed = 1;
    char *one = answer(2, o, NULL);
    o.seed = 2;
    char *other = answer(2, o, NULL);
    assert_string_not_equal(one, other);
    free(one);
    free(other);
    o.top_k = 1; // greedy with any seed
    char *greedy = answer(2, o, NULL);
    o.top_k = 0;
    o.greedy = true;
    char *same = answer(2, o, NULL);
    assert_string_equal(greedy, same);
    free(greedy);
    free(same);
}

/* Any part of the answer can be a stop text. The output ends just before it. */
static void test_stop_texts_never_leak(void **state)
{
    (void)state;
    quip_session_options o = {
        .n_context = 128, .max_output_tokens = 60, .temperature = 1, .seed = 5, .has_seed = true
    };
    char *whole = answer(2, o, NULL);
    const size_t n = strlen(whole);
    assert_true(n > 20);
    for (size_t at = 3; at + 9 < n; at += 5)
        for (size_t length = 1; length <= 9; length += 4) {
            char stop[16] = "";
            memcpy(stop, whole + at, length);
            if (qp_utf8_complete(stop, length) != length || (stop[0] & 0xc0) == 0x80)
                continue;
            const char *stops[] = { "never said", stop };
            quip_result result = { .struct_size = sizeof result };
            o.stop = stops;
            o.n_stop = 2;
            char *cut = answer(2, o, &result);
            const size_t want = (size_t)(strstr(whole, stop) - whole);
            assert_int_equal(strlen(cut), want);
            assert_memory_equal(cut, whole, want);
            assert_int_equal(result.finish_reason, QUIP_FINISH_STOP);
            free(cut);
        }
    free(whole);
}

static void test_pull_equals_push(void **state)
{
    (void)state;
    quip_session_options o = {
        .n_context = 128, .max_output_tokens = 50, .temperature = 1, .seed = 9, .has_seed = true
    };
    char *pushed = answer(0, o, NULL);
    quip_error error = { 0 };
    quip_model *model = open_model(0);
    quip_session *s = open_session(model, &o);
    struct bytes pulled = { 0 };
    quip_piece piece = { .struct_size = sizeof piece };
    check(quip_session_append(s, QUIP_ROLE_USER, "the hen", 7, &error), &error);
    while (!piece.finish_reason) {
        check(quip_session_next(s, &piece, &error), &error);
        assert_true((piece.n_text == 0) == (piece.finish_reason != QUIP_FINISH_NONE));
        assert_true(qp_bytes_append(&pulled, piece.text, piece.n_text));
    }
    assert_int_equal(pulled.n, strlen(pushed));
    assert_memory_equal(pulled.data, pushed, pulled.n);
    qp_bytes_close(&pulled);
    free(pushed);
    quip_session_close(s);
    quip_model_close(model);
}

/* An answer to a text with repetitions, and the logits after one more token. */
static char *repeated_answer(size_t kind, quip_session_options o, float logits[TINY_VOCAB])
{
    static const char text[] = "the hen and the hen and the then and the hen and the hen and the";
    quip_error error = { 0 };
    quip_model *model = open_model(kind);
    quip_session *s = open_session(model, &o), *copy;
    struct bytes out = { 0 };
    check(quip_session_append(s, QUIP_ROLE_NONE, text, strlen(text), &error), &error);
    for (int turn = 0; turn < 2; turn++)
        check(quip_session_generate(s, " the hen and", 12, collect, &out, NULL, &error), &error);
    check(quip_session_clone(&copy, s, &error), &error);
    prefill(s, prompt, 1);
    prefill(copy, prompt, 1);
    assert_memory_equal(quip_session_logits(s), quip_session_logits(copy),
                        TINY_VOCAB * sizeof *logits);
    memcpy(logits, quip_session_logits(s), TINY_VOCAB * sizeof *logits);
    check(quip_session_rewind(s, 30, &error), &error);
    prefill(s, prompt, 2);
    quip_session_close(copy);
    quip_session_close(s);
    quip_model_close(model);
    assert_true(qp_bytes_append(&out, "", 1));
    return (char *)out.data;
}

/* Draft tokens change nothing: the same text, and the same logits after it, greedy and sampled. */
static void test_guessing_ahead_changes_nothing(void **state)
{
    (void)state;
    for (size_t kind = 0; kind < QP_COUNT(kinds); kind++)
        for (int temperature = 0; temperature < 5; temperature++) {
            float with[TINY_VOCAB], without[TINY_VOCAB];
            quip_session_options o = { .n_context = 512,
                                       .max_output_tokens = 90,
                                       .temperature = 0.25f * (float)temperature,
                                       .greedy = temperature == 0 || temperature == 4,
                                       .seed = 11,
                                       .has_seed = true };
            if (temperature == 4) { // penalties see the tokens before, guessed ones too
                o.repeat_penalty = 1.02f;
                o.frequency_penalty = 0.01f;
                o.dry_multiplier = 0.1f;
                o.dry_allowed_length = 12;
                o.penalty_window = -1;
            }
            char *guessed = repeated_answer(kind, o, with);
            o.no_speculation = true;
            char *plain = repeated_answer(kind, o, without);
            assert_string_equal(guessed, plain);
            assert_memory_equal(with, without, sizeof with);
            free(guessed);
            free(plain);
        }
}

/* ---- cancel ---- */

static void *cancel_soon(void *session)
{
    usleep(3000);
    quip_session_cancel(session);
    return NULL;
}

static void test_cancel_in_prefill_leaves_the_session_usable(void **state)
{
    (void)state;
    quip_error error = { 0 };
    float *rows = all_logits(0, 2, N_PROMPT);
    quip_model *model = open_model(0);
    quip_session *s = open_session(model, &(quip_session_options){ .n_context = 2048 });
    static quip_token many[1900];
    pthread_t thread;
    for (int i = 0; i < 1900; i++)
        many[i] = i % TINY_VOCAB;
    prefill(s, prompt, 100);
    pthread_create(&thread, NULL, cancel_soon, s);
    quip_status status = quip_session_prefill(s, many, 1900, &error);
    pthread_join(thread, NULL);
    if (status) { // otherwise the call ended before the other thread cancelled it
        assert_int_equal(status, QUIP_E_CANCELLED);
        assert_int_equal(quip_session_position(s), 100);
    } else {
        check(quip_session_rewind(s, 100, &error), &error);
    }
    prefill(s, prompt + 100, N_PROMPT - 100);
    assert_memory_equal(quip_session_logits(s), rows + (size_t)(N_PROMPT - 1) * TINY_VOCAB,
                        TINY_VOCAB * sizeof *rows);
    quip_session_close(s);
    quip_model_close(model);
    free(rows);
}

static bool cancel_at_third(void *user, const char *text, size_t n)
{
    (void)text, (void)n;
    static int calls;
    if (++calls % 3 == 0)
        quip_session_cancel(user);
    return true;
}

static void test_cancel_in_an_answer(void **state)
{
    (void)state;
    quip_error error = { 0 };
    quip_result result = { .struct_size = sizeof result };
    quip_model *model = open_model(2);
    quip_session_options o = { .n_context = 512, .temperature = 1, .seed = 3, .has_seed = true };
    quip_session *s = open_session(model, &o);
    check(quip_session_generate(s, "the", 3, cancel_at_third, s, &result, &error), &error);
    assert_int_equal(result.finish_reason, QUIP_FINISH_CANCELLED);
    const int position = quip_session_position(s);
    check(quip_session_generate(s, "hen", 3, NULL, NULL, &result, &error), &error);
    assert_true(quip_session_position(s) > position);
    quip_session_close(s);
    quip_model_close(model);
}

/* ---- sources and plans ---- */

static bool read_file(void *user, uint64_t offset, void *buffer, size_t n)
{
    FILE *file = user;
    return fseek(file, (long)offset, SEEK_SET) == 0 && fread(buffer, 1, n, file) == n;
}

static void test_a_source_is_as_good_as_a_path(void **state)
{
    (void)state;
    quip_error error = { 0 };
    float *rows = all_logits(0, 2, N_PROMPT);
    FILE *file = fopen(paths[0], "rb");
    assert_non_null(file);
    fseek(file, 0, SEEK_END);
    const quip_source source = {
        .user = file, .size = (uint64_t)ftell(file), .read_at = read_file, .name = "tiny"
    };
    quip_model *model;
    check(quip_model_open_source(&model, &source, NULL, &error), &error);
    fclose(file);
    quip_session *s = open_session(model, &(quip_session_options){ .n_context = N_PROMPT });
    prefill(s, prompt, N_PROMPT);
    assert_memory_equal(quip_session_logits(s), rows + (size_t)(N_PROMPT - 1) * TINY_VOCAB,
                        TINY_VOCAB * sizeof *rows);
    quip_session_close(s);
    quip_model_close(model);
    free(rows);
}

static void count_release(void *user)
{
    ++*(int *)user;
}

static void test_memory_is_as_good_as_a_path(void **state)
{
    (void)state;
    quip_error error = { 0 };
    float *rows = all_logits(0, 2, N_PROMPT);
    size_t n;
    char *whole = read_whole(paths[0], &n), *bytes = aligned_alloc(64, qp_round_up(n + 4, 64));
    int n_releases = 0;
    quip_model *model;
    assert_non_null(bytes);
    memcpy(bytes + 4, whole, n); // every multiple of 4 is a valid address
    check(quip_model_open_memory(&model, bytes + 4, n, count_release, &n_releases, NULL, &error),
          &error);
    quip_session *s = open_session(model, &(quip_session_options){ .n_context = N_PROMPT });
    quip_model_close(model);
    assert_int_equal(n_releases, 0); // the session still reads the weights
    prefill(s, prompt, N_PROMPT);
    assert_memory_equal(quip_session_logits(s), rows + (size_t)(N_PROMPT - 1) * TINY_VOCAB,
                        TINY_VOCAB * sizeof *rows);
    quip_session_close(s);
    assert_int_equal(n_releases, 1);

    const quip_model_options no_mmap = { .no_mmap = true };
    check(quip_model_open_memory(&model, bytes + 4, n, NULL, NULL, &no_mmap, &error), &error);
    quip_model_close(model);
    n_releases = 0;
    assert_int_equal(
        quip_model_open_memory(&model, bytes + 4, 5000, count_release, &n_releases, NULL, &error),
        QUIP_E_FORMAT);
    assert_int_equal(
        quip_model_open_memory(&model, bytes + 6, n, count_release, &n_releases, NULL, &error),
        QUIP_E_ARGUMENT);
    assert_non_null(strstr(error.message, "multiple of 4"));
    assert_null(model);
    assert_int_equal(n_releases, 0);
    free(bytes);
    free(whole);
    free(rows);
}

/* A model inside another file, as an asset in an Android package: mapped at its offset, in the
 * middle of a page, also after the caller has closed the file. */
static void test_a_part_of_a_file_is_as_good_as_a_path(void **state)
{
    (void)state;
    enum {
        BEFORE = 4100
    };
    const quip_model_options named = { .name = "app.apk" };
    const quip_model_options no_mmap = { .no_mmap = true };
    quip_error error = { 0 };
    float *rows = all_logits(0, 2, N_PROMPT);
    size_t n;
    char *bytes = read_whole(paths[0], &n);
    FILE *file = tmpfile();
    assert_non_null(file);
    assert_true(fseek(file, BEFORE, SEEK_SET) == 0 && fwrite(bytes, 1, n, file) == n);
    assert_true(fwrite(bytes, 1, 100, file) == 100 && fflush(file) == 0); // what follows it
    const int fd = fileno(file);
    quip_model *model;
    const int offsets[] = { BEFORE + 1, BEFORE + 4, BEFORE + 200 };
    const quip_status refused[] = { QUIP_E_ARGUMENT, QUIP_E_FORMAT, QUIP_E_FORMAT };
    for (size_t i = 0; i < QP_COUNT(offsets); i++) {
        assert_int_equal(quip_model_open_fd(&model, fd, (uint64_t)offsets[i], n, &named, &error),
                         refused[i]);
        assert_non_null(strstr(error.message, "app.apk"));
        assert_null(model);
    }
    check(quip_model_open_fd(&model, fd, BEFORE, n, &no_mmap, &error), &error);
    quip_model_close(model);

    check(quip_model_open_fd(&model, fd, BEFORE, n, NULL, &error), &error);
    fclose(file);
    quip_session *s = open_session(model, &(quip_session_options){ .n_context = N_PROMPT });
    quip_model_close(model);
    prefill(s, prompt, N_PROMPT);
    assert_memory_equal(quip_session_logits(s), rows + (size_t)(N_PROMPT - 1) * TINY_VOCAB,
                        TINY_VOCAB * sizeof *rows);
    quip_session_close(s);
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(quip_model_open_fd(&model, ends[0], 0, 0, NULL, &error), QUIP_E_IO);
    assert_non_null(strstr(error.message, "not a regular file"));
    close(ends[0]);
    close(ends[1]);
    free(bytes);
    free(rows);
}

/* A file whose weights are not available yet. */
static bool read_header(void *user, uint64_t offset, void *buffer, size_t n)
{
    const uint64_t there = 64 << 10;
    if (offset >= there || !read_file(user, offset, buffer, n))
        return false;
    if (offset + n > there)
        memset((char *)buffer + (there - offset), 0xff, (size_t)(offset + n - there));
    return true;
}

/* The plan of a session, from a model without weights that was opened from a source or a path. */
static quip_plan plan_of(const quip_source *source, const char *path,
                         const quip_session_options *options)
{
    const quip_model_options header = { .no_weights = true };
    quip_model *model;
    quip_plan plan;
    quip_error error = { 0 };
    memset(&plan, 0, sizeof plan); // padding is compared, too
    plan.struct_size = sizeof plan;
    check(source ? quip_model_open_source(&model, source, &header, &error)
                 : quip_model_open(&model, path, &header, &error),
          &error);
    check(quip_model_plan(model, options, &plan, &error), &error);
    quip_model_close(model);
    return plan;
}

static void test_plan_of_a_source_reads_no_weights(void **state)
{
    (void)state;
    FILE *file = fopen(paths[0], "rb");
    assert_non_null(file);
    fseek(file, 0, SEEK_END);
    const quip_source source = {
        .user = file, .size = (uint64_t)ftell(file), .read_at = read_header, .name = "begun"
    };
    const quip_session_options o = { .n_context = 100 };
    const quip_plan of_path = plan_of(NULL, paths[0], &o), of_source = plan_of(&source, NULL, &o);
    assert_memory_equal(&of_path, &of_source, sizeof of_path);
    fclose(file);
}

static void test_plan(void **state)
{
    (void)state;
    const quip_plan small = plan_of(NULL, paths[0], &(quip_session_options){ .n_context = 100 });
    const quip_plan large = plan_of(NULL, paths[0], &(quip_session_options){ .n_context = 1000 });
    assert_int_equal(small.n_context, 100);
    /* 7 layers of 2 heads of 20: in each block of 64 positions a tile of 64 x 64 of keys, one of
     * values, and a scale for each position of both */
    const struct kernels k = qp_kernels_for(qp_cpu_features());
    const size_t tile_bytes = qp_tile_bytes(&k.tile_order, 64);
    const size_t block_bytes = 2 * (2 * tile_bytes + 2 * 64 * sizeof(float));
    assert_int_equal(small.kv_bytes, 7 * 2 * block_bytes);
    /* 6 layers have a window of 9: with a chunk of 512, at most 10 blocks; one layer has all 16 */
    assert_int_equal(large.kv_bytes, (6 * 10 + 16) * block_bytes);
    assert_true(small.scratch_bytes > 0 && small.model_bytes > 0 && small.file_bytes > 100000);
}

/* Layers that share keys have none of their own; the table of per-layer embeddings is counted as a
 * part of the file, not as memory. */
static void test_plan_of_shared_layers(void **state)
{
    (void)state;
    enum {
        N_CONTEXT = 64 // one block of keys in every layer
    };
    quip_error error = { 0 };
    quip_plan plan = { .struct_size = sizeof plan };
    for (size_t kind = 0; kind < QP_COUNT(kinds); kind++) {
        const bool is_gemma4 = strstr(kinds[kind], "gemma4"), is_float = strstr(kinds[kind], "f32");
        quip_model *model = open_model(kind);
        const struct config *c = &model->config;
        uint64_t n_values = 0, n_rows = 0;
        for (int l = 0; l < c->n_layers; l++)
            if (c->layers[l].kv_layer == l)
                n_values += (uint64_t)(c->layers[l].n_kv_heads * c->layers[l].head_dim);
        for (int l = 4; is_gemma4 && l < c->n_layers; l++)
            assert_true(c->layers[l].kv_layer < 4);
        check(quip_model_plan(model, &(quip_session_options){ .n_context = N_CONTEXT }, &plan,
                              &error),
              &error);
        if (is_float) // arrays begin at multiples of 64 bytes
            assert_int_equal(plan.kv_bytes, 2 * N_CONTEXT * sizeof(float) * n_values);
        n_rows = (uint64_t)(is_gemma4 ? TINY_VOCAB * c->n_layers : 0);
        assert_int_equal(plan.lookup_bytes,
                         n_rows * (is_float ? 4 * (uint64_t)c->d_ple : (uint64_t)c->d_ple + 4));
        assert_true(plan.lookup_bytes < plan.file_bytes);
        quip_model_close(model);
    }
}

/* The elements of all tensors, except the scales of quantized matrices and the divisors of rope. */
static void test_parameters_are_counted(void **state)
{
    (void)state;
    for (size_t kind = 0; kind < QP_COUNT(kinds); kind++) {
        struct file file;
        struct format format;
        quip_error error = { 0 };
        quip_model_info info = { .struct_size = sizeof info };
        check(qp_file_open(&file, paths[kind], &error), &error);
        check(qp_format_open(&format, &file, &error), &error);
        uint64_t n = 0;
        for (int i = 0; i < format.n_tensors; i++) {
            const struct tensor *t = &format.tensors[i];
            if (!strstr(t->name, "_quantized_scale") && !strstr(t->name, ".w_block_") &&
                !strstr(t->name, ".rope."))
                n += (uint64_t)(t->dims[0] * (t->n_dims > 1 ? t->dims[1] : 1));
        }
        quip_model *model = open_model(kind);
        quip_model_get_info(model, &info, NULL);
        assert_int_equal(info.n_parameters, n);
        quip_model_close(model);
        qp_format_close(&format);
        qp_file_close(&file);
    }
}

static void test_wrong_files_are_named(void **state)
{
    (void)state;
    quip_model *model;
    quip_error error = { 0 };
    assert_int_equal(quip_model_open(&model, "no-such-file.bin", NULL, &error), QUIP_E_IO);
    assert_non_null(strstr(error.message, "no-such-file.bin"));
    assert_null(model);
    assert_int_equal(quip_model_open(&model, NULL, NULL, &error), QUIP_E_ARGUMENT);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_on_every_isa),
        cmocka_unit_test(test_same_on_every_machine),
        cmocka_unit_test(test_same_with_any_number_of_threads),
        cmocka_unit_test(test_same_in_any_pieces),
        cmocka_unit_test(test_prefill_equals_prefill_logits),
        cmocka_unit_test(test_rewind_and_clone),
        cmocka_unit_test(test_overflow_is_an_error_and_changes_nothing),
        cmocka_unit_test(test_bad_options_are_refused),
        cmocka_unit_test(test_finish_reasons),
        cmocka_unit_test(test_prompt_tokens),
        cmocka_unit_test(test_seeds),
        cmocka_unit_test(test_stop_texts_never_leak),
        cmocka_unit_test(test_pull_equals_push),
        cmocka_unit_test(test_guessing_ahead_changes_nothing),
        cmocka_unit_test(test_cancel_in_prefill_leaves_the_session_usable),
        cmocka_unit_test(test_cancel_in_an_answer),
        cmocka_unit_test(test_a_source_is_as_good_as_a_path),
        cmocka_unit_test(test_memory_is_as_good_as_a_path),
        cmocka_unit_test(test_a_part_of_a_file_is_as_good_as_a_path),
        cmocka_unit_test(test_plan_of_a_source_reads_no_weights),
        cmocka_unit_test(test_plan),
        cmocka_unit_test(test_plan_of_shared_layers),
        cmocka_unit_test(test_parameters_are_counted),
        cmocka_unit_test(test_wrong_files_are_named),
    };
    return cmocka_run_group_tests(tests, make_models, remove_models);
}
