/* rings.c (test): the ring of a sliding-window layer, and the columns of a convolution. Sessions
 * whose rings were overwritten several times compute the same as without rings, after every rewind,
 * clone, draft token and cancel. */
#include "support/check.h"
#include "support/logits.h"
#include "support/tiny_model.h"

#include "engine/engine.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define N_TOKENS 1800
#define ROW_BYTES (TINY_VOCAB * sizeof(float))

/* Windows smaller and larger than a block; integer and float caches. The last two keep columns. */
static const char *const kinds[] = { "window 9",         "window 130",
                                     "window 9, f32",    "window 130, f32",
                                     "gemma4, window 9", "gemma4, window 130, f32",
                                     "convolution",      "convolution, f32" };
#define N_WINDOW_KINDS 6
static char paths[QP_COUNT(kinds)][64];
static quip_token tokens[N_TOKENS];
static float *rows[QP_COUNT(kinds)]; // logits after each token, [N_TOKENS, TINY_VOCAB]

static quip_session *open_session(size_t kind, const quip_session_options *options)
{
    quip_model *model;
    quip_session *session;
    quip_error error = { 0 };
    check(quip_model_open(&model, paths[kind], NULL, &error), &error);
    check(quip_session_open(&session, model, options, &error), &error);
    quip_model_close(model); // the session keeps it
    return session;
}

static struct tiny_model model_of(size_t kind)
{
    if (kind >= N_WINDOW_KINDS)
        return kind == N_WINDOW_KINDS ? tiny_lfm2 : tiny_with(tiny_lfm2, DTYPE_F32);
    struct tiny_model m = kind < 4 ? tiny_gemma3 : tiny_gemma4;
    if (strstr(kinds[kind], "f32"))
        m = tiny_with(m, DTYPE_F32);
    m.window = kind % 2 ? 130 : 9;
    return m;
}

static int make_models(void **state)
{
    (void)state;
    quip_error error = { 0 };
    for (int i = 0; i < N_TOKENS; i++)
        tokens[i] = (i * 7919 + i * i * 13 + i / 300) % TINY_VOCAB;
    for (size_t kind = 0; kind < QP_COUNT(kinds); kind++) {
        const struct tiny_model m = model_of(kind);
        snprintf(paths[kind], sizeof paths[kind], "tiny-rings-%d-%zu.bin", (int)getpid(), kind);
        check(tiny_model_write(paths[kind], &m, &error), &error);
        rows[kind] = malloc(N_TOKENS * ROW_BYTES);
        assert_non_null(rows[kind]);
        quip_session *s =
            open_session(kind, &(quip_session_options){ .n_context = N_TOKENS, .n_threads = 2 });
        logits_prefill(s, tokens, N_TOKENS, N_TOKENS, rows[kind]);
        quip_session_close(s);
    }
    return 0;
}

static int remove_models(void **state)
{
    (void)state;
    for (size_t kind = 0; kind < QP_COUNT(kinds); kind++) {
        unlink(paths[kind]);
        free(rows[kind]);
    }
    return 0;
}

static void assert_logits(quip_session *s, size_t kind)
{
    const int n = quip_session_position(s);
    const float *logits = quip_session_logits(s);
    assert_non_null(logits);
    if (memcmp(logits, rows[kind] + (size_t)(n - 1) * TINY_VOCAB, ROW_BYTES))
        fail_msg("%s: the logits after %d tokens differ", kinds[kind], n);
}

/* Run the tokens up to `end`. */
static void prefill_to(quip_session *s, int end)
{
    quip_error error = { 0 };
    const int n = quip_session_position(s);
    check(quip_session_prefill(s, tokens + n, end - n, &error), &error);
}

/* ---- the same numbers ---- */

/* The hashes were computed with caches that keep every position. */
static void test_rings_compute_what_whole_caches_did(void **state)
{
    (void)state;
    static const uint64_t hashes[N_WINDOW_KINDS] = { 0xd2e7f755af1a1352, 0x946c2f069c2e0ebb,
                                                     0x315e845734d0169a, 0xd4a2a2d11e58dd02,
                                                     0xaec9da6ef51f590b, 0x189470426218978a };
    bool is_same = true;
    for (size_t kind = 0; kind < N_WINDOW_KINDS; kind++) {
        const uint64_t hash = logits_hash(rows[kind], (size_t)N_TOKENS * TINY_VOCAB);
        if (hash != hashes[kind])
            print_error("%s: the hash of its logits is 0x%016llx, not 0x%016llx\n", kinds[kind],
                        (unsigned long long)hash, (unsigned long long)hashes[kind]);
        is_same = is_same && hash == hashes[kind];
    }
    assert_true(is_same);
}

static void test_same_in_any_pieces(void **state)
{
    (void)state;
    static const int pieces[] = { 1, 63, 65, 500, 513 };
    for (size_t kind = 0; kind < QP_COUNT(kinds); kind++)
        for (size_t i = 0; i < QP_COUNT(pieces); i++) {
            quip_session *s = open_session(kind, &(quip_session_options){ .n_context = N_TOKENS });
            for (int end = pieces[i]; end <= N_TOKENS; end += pieces[i]) {
                prefill_to(s, end);
                assert_logits(s, kind);
            }
            quip_session_close(s);
        }
}

/* ---- rewind ---- */

/* Where the sequence goes on: a rewind by up to a chunk needs no computation, a longer one runs the
 * text again; with convolutions a few tokens need none, and less than a chunk is run again. */
static void check_where(const quip_session *s, size_t kind, int distance, int position)
{
    const int pos = s->sequence->pos;
    const bool is_near = distance <= (kind < N_WINDOW_KINDS ? PREFILL_CHUNK : 8);
    const bool is_right =
        kind < N_WINDOW_KINDS ? pos == 0 : pos < position && position - pos < PREFILL_CHUNK;
    if (pos != position && (is_near || !is_right))
        fail_msg("%s: from %d back to %d it goes on at %d", kinds[kind], N_TOKENS, position, pos);
}

/* The results are the same. */
/* Threads divide the keys of a token, differently for each number of threads: where one and two
 * spans are visible, and where three are. */
static void test_same_with_any_number_of_threads(void **state)
{
    (void)state;
    static const int n_threads[] = { 1, 3, 8, 32 };
    static const int begins[] = { 60, 505, 1000, 1530 };
    for (size_t kind = 0; kind < 2; kind++) // with int8 keys
        for (size_t i = 0; i < QP_COUNT(n_threads); i++) {
            quip_model *model;
            quip_session *s;
            quip_error error = { 0 };
            const quip_model_options options = { .n_threads = n_threads[i] };
            check(quip_model_open(&model, paths[kind], &options, &error), &error);
            check(quip_session_open(&s, model, &(quip_session_options){ .n_context = N_TOKENS },
                                    &error),
                  &error);
            for (size_t j = 0; j < QP_COUNT(begins); j++) {
                prefill_to(s, begins[j]);
                for (int end = begins[j] + 1; end < begins[j] + 12; end++) {
                    prefill_to(s, end);
                    assert_logits(s, kind);
                }
            }
            quip_session_close(s);
            quip_model_close(model);
        }
}

static void test_rewinds_of_every_distance(void **state)
{
    (void)state;
    static const int distances[] = { 0,   1,   7,   8,   64,  65,  128, 255, 256,  257,  300, 376,
                                     377, 447, 511, 512, 513, 640, 700, 900, 1300, 1799, 1800 };
    quip_error error = { 0 };
    for (size_t kind = 0; kind < QP_COUNT(kinds); kind++) {
        quip_session *s =
            open_session(kind, &(quip_session_options){ .n_context = N_TOKENS, .n_threads = 2 });
        for (size_t i = 0; i < QP_COUNT(distances); i++) {
            const int position = N_TOKENS - distances[i];
            prefill_to(s, N_TOKENS);
            check(quip_session_rewind(s, position, &error), &error);
            assert_int_equal(quip_session_position(s), position);
            check_where(s, kind, distances[i], position);
            if (distances[i] == 0)
                continue;
            assert_null(quip_session_logits(s));
            for (int n = 1; n <= 3 && position + n <= N_TOKENS; n++) {
                prefill_to(s, position + n);
                assert_logits(s, kind);
            }
        }
        quip_session_close(s);
    }
}

/* Many rewinds with more or less text between them, also to positions that were overwritten long
 * ago. */
static void test_rewinds_in_a_row(void **state)
{
    (void)state;
    quip_error error = { 0 };
    uint32_t random = 1;
    for (size_t kind = 0; kind < QP_COUNT(kinds); kind++) {
        quip_session *s =
            open_session(kind, &(quip_session_options){ .n_context = N_TOKENS, .n_threads = 2 });
        prefill_to(s, 1500);
        for (int i = 0; i < 60; i++) {
            const int n = quip_session_position(s);
            random = random * 1664525 + 1013904223;
            const int back = (int)(random >> 16) % (i % 8 == 7 ? 1500 : 150);
            random = random * 1664525 + 1013904223;
            const int on = 1 + (int)(random >> 16) % 160, position = n > back ? n - back : 0;
            check(quip_session_rewind(s, position, &error), &error);
            prefill_to(s, position + on < N_TOKENS ? position + on : N_TOKENS);
            if (quip_session_position(s) > position)
                assert_logits(s, kind);
        }
        quip_session_close(s);
    }
}

/* quip_session_prefill_logits passes the logits of the new tokens only. */
static void test_tokens_run_again_are_not_shown(void **state)
{
    (void)state;
    quip_error error = { 0 };
    float *seen = calloc(N_TOKENS, ROW_BYTES);
    assert_non_null(seen);
    quip_session *s = open_session(0, &(quip_session_options){ .n_context = N_TOKENS });
    prefill_to(s, N_TOKENS);
    check(quip_session_rewind(s, 600, &error), &error);
    assert_int_equal(s->sequence->pos, 0);
    logits_prefill(s, tokens + 600, 20, 20, seen);
    for (size_t i = 0; i < (size_t)600 * TINY_VOCAB; i++)
        assert_true(seen[i] == 0);
    assert_memory_equal(seen + (size_t)600 * TINY_VOCAB, rows[0] + (size_t)600 * TINY_VOCAB,
                        20 * ROW_BYTES);
    quip_session_close(s);
    free(seen);
}

/* ---- clones ---- */

static void test_copies_of_rings(void **state)
{
    (void)state;
    static const int positions[] = { 10, 380, 449, 705, 900, 1700 };
    quip_error error = { 0 };
    for (size_t kind = 0; kind < QP_COUNT(kinds); kind++) {
        quip_session *s =
            open_session(kind, &(quip_session_options){ .n_context = N_TOKENS, .n_threads = 2 });
        for (size_t i = 0; i < QP_COUNT(positions); i++) {
            quip_session *copy, *back;
            prefill_to(s, positions[i]);
            check(quip_session_clone(&copy, s, &error), &error);
            check(quip_session_rewind(copy, positions[i] - 5, &error), &error);
            check(quip_session_clone(&back, copy, &error), &error);
            prefill_to(s, positions[i] + 10); // does not affect the clone
            prefill_to(copy, positions[i] + 4);
            assert_logits(copy, kind);
            prefill_to(back, positions[i]);
            assert_logits(back, kind);
            check(quip_session_rewind(back, positions[i] / 2, &error), &error);
            prefill_to(back, positions[i] / 2 + 1);
            assert_logits(back, kind);
            quip_session_close(copy);
            quip_session_close(back);
        }
        quip_session_close(s);
    }
}

/* ---- draft tokens and cancels ---- */

static struct backend watched; // the real backend with these two operations replaced
static const struct backend *real;
static int most_tokens; // in one call
static int n_layers_left;
static quip_session *to_cancel;

static quip_status watch_embed(struct device *device, const struct rows *batch)
{
    most_tokens = batch->n > most_tokens ? batch->n : most_tokens;
    return real->embed(device, batch);
}

static quip_status cancel_in_append(struct device *device, int l, const struct rows *batch)
{
    const quip_status status = real->rope_append(device, l, batch);
    if (--n_layers_left == 0)
        quip_session_cancel(to_cancel);
    return status;
}

static quip_status cancel_in_conv(struct device *device, int l, const struct rows *batch)
{
    const quip_status status = real->conv(device, l, batch);
    if (--n_layers_left == 0)
        quip_session_cancel(to_cancel);
    return status;
}

static void watch(quip_session *s)
{
    if (s->device->backend != &watched)
        real = s->device->backend;
    watched = *real;
    watched.embed = watch_embed;
    watched.rope_append = cancel_in_append;
    watched.conv = cancel_in_conv;
    s->device->backend = &watched;
    most_tokens = n_layers_left = 0;
}

static bool collect(void *user, const char *text, size_t n)
{
    return qp_bytes_append(user, text, n);
}

/* An answer to a long text with repetitions. */
static struct bytes repeated_answer(size_t kind, bool no_speculation, float *logits)
{
    const quip_session_options o = { .n_context = 2000,
                                     .max_output_tokens = 400,
                                     .no_speculation = no_speculation,
                                     .greedy = true };
    quip_error error = { 0 };
    struct bytes out = { 0 };
    quip_session *s = open_session(kind, &o);
    for (int i = 0; i < 100; i++)
        check(quip_session_prefill(s, tokens + 50, 9, &error), &error);
    watch(s);
    while (quip_session_position(s) < 1400) {
        quip_piece piece = { .struct_size = sizeof piece };
        check(quip_session_next(s, &piece, &error), &error);
        collect(&out, piece.text, piece.n_text);
    }
    if (!no_speculation)
        assert_true(most_tokens > 1);
    assert_true(most_tokens <= 1 + MAX_DRAFT); // rejected draft tokens did not cause a new run
    check(quip_session_prefill(s, tokens, 1, &error), &error);
    memcpy(logits, quip_session_logits(s), ROW_BYTES);
    quip_session_close(s);
    return out;
}

static void test_guesses_after_a_turn_of_the_ring(void **state)
{
    (void)state;
    for (size_t kind = 0; kind < QP_COUNT(kinds); kind++) {
        float with[TINY_VOCAB], without[TINY_VOCAB];
        struct bytes guessed = repeated_answer(kind, false, with);
        struct bytes plain = repeated_answer(kind, true, without);
        assert_int_equal(guessed.n, plain.n);
        assert_memory_equal(guessed.data, plain.data, plain.n);
        assert_memory_equal(with, without, sizeof with);
        qp_bytes_close(&guessed);
        qp_bytes_close(&plain);
    }
}

/* A cancel in every chunk, in different layers. */
static void test_cancels_after_a_turn_of_the_ring(void **state)
{
    (void)state;
    enum {
        BEGIN = 760,
        N_CHUNKS = 3
    };
    quip_error error = { 0 };
    for (size_t kind = 0; kind < QP_COUNT(kinds); kind++) {
        quip_session *s =
            open_session(kind, &(quip_session_options){ .n_context = N_TOKENS, .n_threads = 2 });
        prefill_to(s, BEGIN);
        // layers behind the last that stores keys run for outputs only, in the last chunk
        const int n_layers = s->model->config.n_layers,
                  n_stored = s->model->config.last_kv_layer + 1;
        for (int l = 1; l < (N_CHUNKS - 1) * n_stored + n_layers;
             l += 1 + (int)(kind % N_WINDOW_KINDS)) {
            watch(s);
            to_cancel = s;
            n_layers_left = l;
            assert_int_equal(quip_session_prefill(s, tokens + BEGIN, N_TOKENS - BEGIN, &error),
                             QUIP_E_CANCELLED);
            assert_int_equal(quip_session_position(s), BEGIN);
            if (l < n_stored) // the blocks that a chunk overwrites are not needed
                assert_int_equal(s->sequence->pos, BEGIN);
            assert_logits(s, kind);
            prefill_to(s, BEGIN + 3);
            assert_logits(s, kind);
            check(quip_session_rewind(s, BEGIN, &error), &error);
            prefill_to(s, BEGIN); // no tokens, and no logits
            check(quip_session_rewind(s, BEGIN - 1, &error), &error);
            prefill_to(s, BEGIN);
            assert_logits(s, kind);
        }
        quip_session_close(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rings_compute_what_whole_caches_did),
        cmocka_unit_test(test_same_in_any_pieces),
        cmocka_unit_test(test_same_with_any_number_of_threads),
        cmocka_unit_test(test_rewinds_of_every_distance),
        cmocka_unit_test(test_rewinds_in_a_row),
        cmocka_unit_test(test_tokens_run_again_are_not_shown),
        cmocka_unit_test(test_copies_of_rings),
        cmocka_unit_test(test_guesses_after_a_turn_of_the_ring),
        cmocka_unit_test(test_cancels_after_a_turn_of_the_ring),
    };
    return cmocka_run_group_tests(tests, make_models, remove_models);
}
