/* batch.c: one forward pass over rows of several sessions. Each gets the same bits as alone: at any
 * position, with any adapter, whatever else is in the batch, on every level of the processor and
 * with any number of threads. The thread sanitizer runs this. */
#include "support/check.h"
#include "support/logits.h"
#include "support/models.h"
#include "support/tiny_adapter.h"

#include "engine/engine.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#ifndef __has_feature // of clang
#define __has_feature(name) 0
#endif

/* The thread sanitizer makes everything much slower, so it gets a part of the combinations. */
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
#define HAS_THREAD_SANITIZER true
#else
#define HAS_THREAD_SANITIZER false
#endif

/* Sanitizers keep memory of their own beside every allocation. */
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define HAS_SANITIZER true
#else
#define HAS_SANITIZER HAS_THREAD_SANITIZER
#endif

#define MAX_SEQUENCES 32
#define N_CONTEXT 160
#define N_ROUNDS 3

/* ---- members ---- */

enum adapter_choice {
    NO_ADAPTER,
    ADAPTER_A,
    ADAPTER_B,
    ADAPTER_A_WEAKER,
    N_CHOICES
};

static const float scales[N_CHOICES] = { 0, 1, 1.5f, 0.4f };

/* A session, and the rows that it has in the batch of each round. */
struct member {
    quip_session *session;
    enum adapter_choice adapter;
    int n_before;            // tokens that it runs alone first
    int n_rows[N_ROUNDS];    // 0: it has no part in that round
    int n_outputs[N_ROUNDS]; // of the last rows; 0: none
};

/* Decode and prefill rows, long and short contexts, and positions at the ends of blocks (64). */
static void choose_member(struct member *m, int i, bool has_adapters)
{
    static const int before[] = { 0, 63, 1, 20, 64, 7, 100, 65, 33, 5, 0, 2, 12 };
    static const int n_rows[][N_ROUNDS] = { { 1, 1, 1 }, { 1, 5, 1 },  { 3, 1, 0 },
                                            { 9, 0, 1 }, { 1, 1, 12 }, { 0, 2, 1 } };
    static const int n_outputs[][N_ROUNDS] = { { 1, 1, 1 }, { 1, 1, 1 }, { 2, 1, 0 },
                                               { 0, 0, 1 }, { 1, 1, 8 }, { 0, 1, 0 } };
    m->adapter = has_adapters ? (enum adapter_choice)(i * 3 / 2 % N_CHOICES) : NO_ADAPTER;
    m->n_before = before[i % (int)QP_COUNT(before)];
    for (int round = 0; round < N_ROUNDS; round++) {
        m->n_rows[round] = n_rows[i % (int)QP_COUNT(n_rows)][round];
        m->n_outputs[round] = n_outputs[i % (int)QP_COUNT(n_outputs)][round];
    }
}

struct adapters {
    quip_adapter *a, *b;
};

static struct adapters open_adapters(quip_model *model, bool has_adapters)
{
    static const struct tiny_adapter tiny[] = { { .rank = 4, .alpha = 8, .seed = 3 },
                                                { .rank = 17, .alpha = 9, .seed = 4 } };
    struct adapters adapters = { NULL, NULL };
    quip_error error = { 0 };
    char folder[64];
    snprintf(folder, sizeof folder, "batch-adapter-%d", (int)getpid());
    for (int i = 0; i < 2 && has_adapters; i++) {
        check(tiny_adapter_write(folder, model, &tiny[i], &error), &error);
        check(quip_adapter_open(i ? &adapters.b : &adapters.a, model, folder, &error), &error);
        tiny_adapter_remove(folder);
    }
    return adapters;
}

static void close_adapters(struct adapters *adapters)
{
    quip_adapter_close(adapters->a);
    quip_adapter_close(adapters->b);
}

static quip_session *open_session(quip_model *model, const struct adapters *adapters,
                                  enum adapter_choice choice)
{
    quip_session *s;
    quip_error error = { 0 };
    const quip_session_options options = { .n_context = N_CONTEXT };
    check(quip_session_open(&s, model, &options, &error), &error);
    if (choice != NO_ADAPTER)
        check(quip_session_set_adapter(s, choice == ADAPTER_B ? adapters->b : adapters->a,
                                       scales[choice], &error),
              &error);
    return s;
}

/* ---- alone ---- */

struct logits { // after each of the first n tokens, [n, vocab_size]
    float *rows;
    size_t vocab_size;
};

static int total_of(const struct member *m)
{
    int n = m->n_before;
    for (int round = 0; round < N_ROUNDS; round++)
        n += m->n_rows[round];
    return n;
}

static struct logits run_alone(quip_model *model, const struct adapters *adapters,
                               const struct member *m, int seed)
{
    const int n = total_of(m);
    struct logits to = { .vocab_size = (size_t)model->config.vocab_size };
    quip_token tokens[N_CONTEXT];
    assert_true(n <= N_CONTEXT);
    to.rows = calloc((size_t)n * to.vocab_size, sizeof *to.rows);
    assert_non_null(to.rows);
    for (int k = 0; k < n; k++)
        tokens[k] = models_token(model, seed, k);
    quip_session *s = open_session(model, adapters, m->adapter);
    logits_prefill(s, tokens, n, n, to.rows);
    quip_session_close(s);
    return to;
}

/* ---- together ---- */

static void open_member(struct member *m, quip_model *model, const struct adapters *adapters,
                        int seed)
{
    quip_error error = { 0 };
    quip_token tokens[N_CONTEXT];
    m->session = open_session(model, adapters, m->adapter);
    for (int k = 0; k < m->n_before; k++)
        tokens[k] = models_token(model, seed, k);
    check(quip_session_prefill(m->session, tokens, m->n_before, &error), &error);
}

/* Append a member's rows to the batch. */
static void add_rows(struct rows *rows, struct row *row, const struct member *m, int seed,
                     int round)
{
    struct sequence *sequence = m->session->sequence;
    for (int i = 0; i < m->n_rows[round]; i++) {
        const int pos = sequence->pos + i;
        row[rows->n++] = (struct row){ .sequence = sequence,
                                       .pos = pos,
                                       .visible_end = pos + 1,
                                       .token = models_token(m->session->model, seed, pos),
                                       .is_output = i >= m->n_rows[round] - m->n_outputs[round] };
    }
}

/* An output to compare: of member i, after this many tokens. */
struct expected_output {
    int member, n_tokens;
};

static void compare_outputs(struct device *d, const struct output *outputs,
                            const struct expected_output *expected, int n,
                            const struct logits *alone, const char *what)
{
    const struct backend *b = d->backend;
    const size_t vocab_size = (size_t)d->config->vocab_size;
    float *logits = malloc(LOGITS_ROWS * vocab_size * sizeof *logits);
    assert_non_null(logits);
    for (int first = 0; first < n; first += LOGITS_ROWS) {
        const int n_now = qp_min(n - first, LOGITS_ROWS);
        assert_int_equal(qp_forward_logits(d, outputs + first, n_now, NULL), QUIP_OK);
        assert_int_equal(b->submit(d), QUIP_OK);
        assert_int_equal(b->poll(d, true), QUIP_OK);
        assert_int_equal(b->read(d, BUF_LOGITS, logits, n_now), QUIP_OK);
        for (int i = 0; i < n_now; i++) {
            const struct expected_output *e = &expected[first + i];
            if (memcmp(logits + (size_t)i * vocab_size,
                       alone[e->member].rows + (size_t)(e->n_tokens - 1) * vocab_size,
                       vocab_size * sizeof *logits))
                fail_msg("%s: session %d has other logits after %d tokens than alone", what,
                         e->member, e->n_tokens);
        }
    }
    free(logits);
}

/* One batch with the rows of all members. */
static void run_round(struct member *members, int n, int round, const struct logits *alone,
                      const char *what)
{
    struct device *d = members[0].session->device;
    struct output outputs[MAX_SEQUENCES * SEQUENCE_OUTPUTS];
    struct expected_output expected[MAX_SEQUENCES * SEQUENCE_OUTPUTS];
    struct rows rows = { .row = d->rows };
    int n_outputs = 0;
    qp_device_enter(d, TURN_LONG);
    for (int i = 0; i < n; i++) {
        const struct member *m = &members[i];
        const int end = m->session->sequence->pos + m->n_rows[round];
        add_rows(&rows, d->rows, m, i, round);
        for (int k = 0; k < m->n_outputs[round]; k++) {
            outputs[n_outputs] = (struct output){ m->session->sequence, k };
            expected[n_outputs++] =
                (struct expected_output){ i, end - m->n_outputs[round] + k + 1 };
        }
    }
    if (rows.n > 0) {
        assert_int_equal(d->backend->begin(d, 0), QUIP_OK);
        assert_int_equal(qp_forward(d, &rows, NULL, NULL), QUIP_OK);
        compare_outputs(d, outputs, expected, n_outputs, alone, what);
    }
    qp_device_leave(d);
}

static void run_together(int model_index, int n, int n_threads, const struct logits *alone,
                         const char *level)
{
    struct member members[MAX_SEQUENCES];
    char what[128];
    quip_model *model = models_open(model_index, &(quip_model_options){ .n_threads = n_threads });
    struct adapters adapters = open_adapters(model, models_has_adapters(model_index));
    snprintf(what, sizeof what, "%s, %d sessions, %s, %d threads", models_name(model_index), n,
             level, n_threads);
    for (int i = 0; i < n; i++) {
        choose_member(&members[i], i, models_has_adapters(model_index));
        open_member(&members[i], model, &adapters, i);
    }
    for (int round = 0; round < N_ROUNDS; round++)
        run_round(members, n, round, alone, what);
    for (int i = 0; i < n; i++)
        quip_session_close(members[i].session);
    close_adapters(&adapters);
    quip_model_close(model);
}

/* Every number of sessions and threads, on every level. */
static void run_all_together(int model_index, const struct logits *alone)
{
    static const int n_sequences[] = { 1, 2, 7, MAX_SEQUENCES }, n_threads[] = { 1, 3 };
    const char *level;
    for (int l = 0; (level = models_set_level(l)); l++)
        for (size_t t = 0; t < QP_COUNT(n_threads); t++)
            for (size_t k = 0; k < QP_COUNT(n_sequences); k++)
                run_together(model_index, n_sequences[k], n_threads[t], alone, level);
}

static void test_same_bits_as_alone(void **state)
{
    (void)state;
    for (int i = 0; i < models_count(); i++) {
        if (HAS_THREAD_SANITIZER && models_is_golden(i))
            continue;
        struct logits alone[MAX_SEQUENCES];
        quip_model *model = models_open(i, NULL);
        struct adapters adapters = open_adapters(model, models_has_adapters(i));
        for (int k = 0; k < MAX_SEQUENCES; k++) {
            struct member m;
            choose_member(&m, k, models_has_adapters(i));
            alone[k] = run_alone(model, &adapters, &m, k);
        }
        close_adapters(&adapters);
        quip_model_close(model);
        if (HAS_THREAD_SANITIZER)
            run_together(i, 7, 3, alone, "default level");
        else
            run_all_together(i, alone);
        for (int k = 0; k < MAX_SEQUENCES; k++)
            free(alone[k].rows);
    }
}

/* An adapter changes the logits: the test above would not see one that has no effect. */
static void test_adapters_have_an_effect(void **state)
{
    (void)state;
    for (int i = 0; i < models_count(); i++) {
        if (!models_has_adapters(i))
            continue;
        struct logits logits[N_CHOICES];
        quip_model *model = models_open(i, NULL);
        struct adapters adapters = open_adapters(model, true);
        for (int choice = 0; choice < N_CHOICES; choice++) {
            const struct member m = { .adapter = (enum adapter_choice)choice, .n_before = 5 };
            logits[choice] = run_alone(model, &adapters, &m, 1);
            for (int other = 0; other < choice; other++)
                assert_memory_not_equal(logits[choice].rows, logits[other].rows,
                                        logits[0].vocab_size * sizeof(float));
        }
        for (int choice = 0; choice < N_CHOICES; choice++)
            free(logits[choice].rows);
        close_adapters(&adapters);
        quip_model_close(model);
    }
}

/* ---- embeddings instead of tokens ---- */

/* A row with a pointer to an embedding gives what the token with that embedding gives. */
static void test_rows_of_embeddings(void **state)
{
    (void)state;
    for (int i = 0; i < models_count(); i++) {
        quip_model *model = models_open(i, NULL);
        const struct adapters none = { NULL, NULL };
        const struct member m = { .n_before = 6 };
        struct logits alone = run_alone(model, &none, &m, 2);
        quip_session *s = open_session(model, &none, NO_ADAPTER);
        struct device *d = s->device;
        const int d_model = model->config.d_model;
        float *embeddings = malloc(6 * (size_t)d_model * sizeof *embeddings);
        struct rows rows = { d->rows, 6 };
        assert_non_null(embeddings);
        qp_device_enter(d, TURN_LONG);
        for (int k = 0; k < 6; k++) {
            const quip_token token = models_token(model, 2, k);
            float *embedding = embeddings + (size_t)k * (size_t)d_model;
            qp_matrix_read_row(&model->weights.embed, token, embedding);
            d->rows[k] = (struct row){ .sequence = s->sequence,
                                       .pos = k,
                                       .visible_end = k + 1,
                                       // of a per-layer embedding, which the token chooses
                                       .token = k % 2 && model->config.d_ple == 0 ? 0 : token,
                                       .embedding = k % 2 ? embedding : NULL,
                                       .is_output = k == 5 };
        }
        assert_int_equal(d->backend->begin(d, 0), QUIP_OK);
        assert_int_equal(qp_forward(d, &rows, NULL, NULL), QUIP_OK);
        compare_outputs(d, &(struct output){ s->sequence, 0 }, &(struct expected_output){ 0, 6 }, 1,
                        &alone, models_name(i));
        qp_device_leave(d);
        quip_session_close(s);
        quip_model_close(model);
        free(alone.rows);
        free(embeddings);
    }
}

/* ---- memory ---- */

/* Beside its keys and values a session has its tokens, texts and outputs: a few kilobytes. */
static void test_a_session_costs_its_keys_and_values(void **state)
{
    (void)state;
    quip_error error = { 0 };
    for (int i = 0; i < models_count(); i++) {
        quip_model *model = models_open(i, NULL);
        struct device_plan plan;
        quip_plan public_plan = { .struct_size = sizeof public_plan };
        const struct device_options options = { .n_threads = 3 };
        const struct capacity capacity = qp_device_capacity(400, 0);
        qp_backend_of(model)->plan(&plan, model, &options, &capacity);
        assert_true(plan.kv_bytes > 0 && plan.sequence_bytes > 0);
        assert_true(plan.sequence_bytes < 8192);
        check(quip_model_plan(model, &(quip_session_options){ .n_context = 400 }, &public_plan,
                              &error),
              &error);
        assert_int_equal(public_plan.kv_bytes, plan.kv_bytes);
        quip_model_close(model);
    }
}

/* Private memory of this process in kilobytes, or 0 where the system does not tell. */
static long private_kilobytes(void)
{
    char line[256];
    long sum = 0, n;
    FILE *file = fopen("/proc/self/smaps_rollup", "r");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "Private_Dirty: %ld", &n) == 1)
            sum += n;
    if (file)
        fclose(file);
    return sum;
}

/* The same, measured: sessions after the first one. */
static void test_memory_of_more_sessions(void **state)
{
    (void)state;
    enum {
        N = 8
    };
    quip_error error = { 0 };
    quip_session *sessions[N];
    if (HAS_SANITIZER || private_kilobytes() == 0)
        skip();
    for (int i = 0; i < models_count(); i++) {
        long before = 0;
        quip_plan plan = { .struct_size = sizeof plan };
        quip_model *model = models_open(i, NULL);
        const quip_session_options options = { .n_context = 400 };
        check(quip_model_plan(model, &options, &plan, &error), &error);
        for (int k = 0; k < N; k++) {
            check(quip_session_open(&sessions[k], model, &options, &error), &error);
            for (int t = 0; t < 400; t += 100) {
                quip_token tokens[100];
                for (int j = 0; j < 100; j++)
                    tokens[j] = models_token(model, k, t + j);
                check(quip_session_prefill(sessions[k], tokens, 100, &error), &error);
            }
            if (k == 0)
                before = private_kilobytes();
        }
        const long each = (private_kilobytes() - before) / (N - 1);
        const long kv = (long)(plan.kv_bytes / 1024);
        if (each > kv + 64)
            fail_msg("%s: each session needs %ld KB, of which %ld KB are keys and values",
                     models_name(i), each, kv);
        for (int k = 0; k < N; k++)
            quip_session_close(sessions[k]);
        quip_model_close(model);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits_as_alone),
        cmocka_unit_test(test_adapters_have_an_effect),
        cmocka_unit_test(test_rows_of_embeddings),
        cmocka_unit_test(test_a_session_costs_its_keys_and_values),
        cmocka_unit_test(test_memory_of_more_sessions),
    };
    return cmocka_run_group_tests(tests, models_make, models_remove);
}
