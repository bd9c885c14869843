/* threads.c: what a number of threads gives: prefill and decode of a model, and what it costs to
 * hand work over.
 *
 *     build/bench/threads MODEL [--threads N] [--depth TOKENS] [--ms MS]
 *
 * The second prefill finds its memory and the tables of positions as the first one left them. Each
 * decode runs for MS milliseconds. The second rate of a pair leaves out steps that take much
 * longer than the typical one, because the system suspended a thread. */
#include "median.h"

#include "engine/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_STEPS = 4096,
    N_RUNS = 4000,
    WORK_NS = 3000 // of a part
};

static double since_s(uint64_t begin)
{
    return (double)(qp_now_ns() - begin) * 1e-9;
}

static quip_status run(quip_session *session, int n, quip_error *error)
{
    static quip_token tokens[1 << 16];
    for (int i = 0; i < n; i++)
        tokens[i] = 100 + i % 101;
    const quip_status status = quip_session_prefill(session, tokens, n, error);
    if (!status)
        quip_session_logits(session);
    return status;
}

/* Single tokens for `ms`: tokens per second. */
static quip_status decode(quip_session *session, int ms, double *rate, double *typical,
                          quip_error *error)
{
    static double s[MAX_STEPS];
    quip_status status = QUIP_OK;
    const uint64_t begin = qp_now_ns();
    int n = 0;
    while (!status && n < MAX_STEPS && (n < 4 || since_s(begin) * 1e3 < ms)) {
        const uint64_t start = qp_now_ns();
        status = run(session, 1, error);
        s[n++] = since_s(start);
    }
    *rate = n / since_s(begin);
    *typical = 1 / median(s, n);
    return status;
}

static void work(void *arg, int index, int n_threads)
{
    (void)arg, (void)index, (void)n_threads;
    const uint64_t begin = qp_now_ns();
    while (qp_now_ns() - begin < WORK_NS)
        ;
}

/* Microseconds that a run of parts of WORK_NS takes beside that. */
static quip_status hand_over(int n_threads, double *us, double *slow_us, quip_error *error)
{
    static double s[N_RUNS];
    struct pool *pool;
    const quip_status status = qp_pool_open(&pool, n_threads, false, error);
    if (status)
        return status;
    for (int i = 0; i < N_RUNS; i++) {
        const uint64_t begin = qp_now_ns();
        qp_pool_run(pool, work, NULL);
        s[i] = since_s(begin) * 1e6 - WORK_NS * 1e-3;
    }
    *us = median(s, N_RUNS); // which sorts
    *slow_us = s[N_RUNS / 100 * 95];
    qp_pool_close(pool);
    return QUIP_OK;
}

int main(int argc, char **argv)
{
    int n_threads = qp_default_threads(), depth = 1024, ms = 500;
    for (int i = 2; i + 1 < argc; i += 2) {
        int *to = !strcmp(argv[i], "--threads") ? &n_threads
                  : !strcmp(argv[i], "--depth") ? &depth
                                                : &ms;
        *to = atoi(argv[i + 1]);
    }
    quip_model *model = NULL;
    quip_session *session = NULL;
    quip_error error = { 0 };
    const quip_model_options options = { .backend = QUIP_BACKEND_CPU, .n_threads = n_threads };
    double again = 0, rates[3] = { 0 }, typical[3] = { 0 }, us = 0, slow_us = 0;
    if (argc < 2 || quip_model_open(&model, argv[1], &options, &error) ||
        quip_session_open(&session, model,
                          &(quip_session_options){ .n_context = depth + MAX_STEPS }, &error) ||
        run(session, 64, &error) || quip_session_rewind(session, 0, &error) ||
        run(session, 1, &error) || decode(session, ms, &rates[1], &typical[1], &error) ||
        quip_session_rewind(session, 0, &error))
        goto failed;
    const uint64_t begin = qp_now_ns();
    if (run(session, depth, &error))
        goto failed;
    rates[0] = depth / since_s(begin);
    if (quip_session_rewind(session, 0, &error))
        goto failed;
    const uint64_t begin_again = qp_now_ns();
    if (run(session, depth, &error))
        goto failed;
    again = depth / since_s(begin_again);
    if (decode(session, ms, &rates[2], &typical[2], &error) ||
        hand_over(n_threads, &us, &slow_us, &error))
        goto failed;
    printf("%2d threads: prefill %6.0f, again %6.0f  decode %6.1f (%6.1f)  at %d %6.1f (%6.1f)  "
           "hand-over %5.1f "
           "us (95 %%: %.1f)\n",
           n_threads, rates[0], again, rates[1], typical[1], depth, rates[2], typical[2], us,
           slow_us);
    quip_session_close(session);
    quip_model_close(model);
    return 0;
failed:
    fprintf(stderr, "%s\n", argc < 2 ? "expected a MODEL" : error.message);
    return 1;
}
