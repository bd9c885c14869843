/* decode.c: compares decode with a plain read of the same bytes, in turns, on the same threads.
 *
 * A token needs every weight once, with its scales and multipliers, so the time to read them is the
 * limit (docs/notes/decode.md). On a shared machine the read rate drifts from second to second. So
 * each round reads, decodes and reads again. The share of the limit is the median over the rounds.
 *
 *     build/bench/decode MODEL [--threads N] [--depth TOKENS] [--rounds N] [--tokens N] [--step N]
 *         [--adapter PATH]
 *
 * --step: tokens of one pass. A rate of 100 then means 100 passes per second.
 * --adapter: compares passes with and without the adapter, in turns, instead of a plain read.
 */
#include "limits.h"
#include "median.h"

#include "engine/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct setup {
    const char *path, *adapter;
    int n_threads, depth, n_rounds, n_tokens, step;
};

enum {
    MAX_ROUNDS = 256,
    MAX_STEP = 512
};

static void add_matrix(struct reading *all, size_t *needed, const struct matrix *w)
{
    const uint8_t *begin = w->data, *end = begin + (size_t)w->n_out * w->row_bytes;
    if (!begin)
        return;
    const uint8_t *all_end = all->data + all->n_bytes;
    if (!all->data || begin < all->data)
        all->data = begin;
    all->n_bytes = (size_t)((end > all_end ? end : all_end) - all->data);
    *needed += (size_t)w->n_out * w->row_bytes;
    if (w->scales)
        *needed += (size_t)w->n_out * sizeof(float);
    if (w->multipliers)
        *needed += (size_t)w->n_out * qp_multiplier_bytes(w->n_in);
}

/* The number of bytes that a token needs. *all is the range that contains them, rounded to whole
 * cache lines. */
static size_t weight_bytes(const quip_model *m, struct reading *all)
{
    size_t needed = 0;
    *all = (struct reading){ NULL, 0 };
    for (int l = 0; l < m->config.n_layers; l++) {
        for (int i = 0; i < N_MATRICES; i++)
            add_matrix(all, &needed, &m->weights.layers[l].m[i]);
    }
    add_matrix(all, &needed, &m->weights.head);
    const size_t skipped = (64 - (uintptr_t)all->data % 64) % 64;
    all->data += skipped;
    all->n_bytes -= skipped;
    return needed;
}

/* Run n passes of `step` tokens, and compute the logits after each. */
static quip_status decode(quip_session *session, int n, int step, quip_error *error)
{
    quip_token tokens[MAX_STEP];
    for (int i = 0; i < step; i++)
        tokens[i] = 100 + i;
    for (int i = 0; i < n; i++) {
        const quip_status status = quip_session_prefill(session, tokens, step, error);
        if (status)
            return status;
        quip_session_logits(session);
    }
    return QUIP_OK;
}

/* Fill the context to a depth, many tokens per pass. */
static quip_status go_to(quip_session *session, int depth, quip_error *error)
{
    const quip_status status = decode(session, depth / MAX_STEP, MAX_STEP, error);
    return status ? status : decode(session, 1, depth % MAX_STEP, error);
}

static quip_status measure(const struct setup *s, quip_session *session, quip_error *error)
{
    struct pool *pool;
    struct reading all;
    const size_t needed = weight_bytes(session->model, &all);
    double reads[MAX_ROUNDS], rates[MAX_ROUNDS], shares[MAX_ROUNDS];
    quip_status status = qp_pool_open(&pool, s->n_threads, false, error);
    if (status)
        return status;
    for (int i = -1; i < s->n_rounds && !status; i++) { // the first round warms up
        const double before = read_rate(pool, &all);
        const uint64_t begin = qp_now_ns();
        if (!(status = decode(session, s->n_tokens, s->step, error))) {
            const int at = i < 0 ? 0 : i;
            rates[at] = rate(needed * (size_t)s->n_tokens, begin);
            reads[at] = (before + read_rate(pool, &all)) / 2;
            shares[at] = rates[at] / reads[at];
            status = quip_session_rewind(session, s->depth, error);
        }
    }
    qp_pool_close(pool);
    if (status)
        return status;
    const double per_token = median(rates, s->n_rounds) * 1e9 / (double)needed;
    const double share = median(shares, s->n_rounds);
    printf("%s, depth %d, %d threads: %.1f tokens/s of %.1f MB, %.1f GB/s; a plain read %.1f GB/s; "
           "%.0f %% (%.0f to %.0f)\n",
           s->path, s->depth, s->n_threads, per_token, (double)needed * 1e-6,
           median(rates, s->n_rounds), median(reads, s->n_rounds), 100 * share,
           100 * shares[s->n_rounds / 4], 100 * shares[s->n_rounds * 3 / 4]);
    return QUIP_OK;
}

/* Milliseconds per pass. The session is rewound to where it was. */
static quip_status time_steps(double *ms, const struct setup *s, quip_session *session,
                              quip_error *error)
{
    const uint64_t begin = qp_now_ns();
    const quip_status status = decode(session, s->n_tokens, s->step, error);
    *ms = (double)(qp_now_ns() - begin) * 1e-6 / s->n_tokens;
    return status ? status : quip_session_rewind(session, s->depth, error);
}

/* sessions[0] has no adapter, sessions[1] has it. */
static quip_status compare(const struct setup *s, quip_session *sessions[2], quip_error *error)
{
    double ms[2][MAX_ROUNDS], ratios[MAX_ROUNDS];
    for (int i = -1; i < s->n_rounds; i++) { // the first round warms up
        const int at = i < 0 ? 0 : i;
        for (int turn = 0; turn < 2; turn++) {
            const int which = (turn + at) % 2;
            const quip_status status = time_steps(&ms[which][at], s, sessions[which], error);
            if (status)
                return status;
        }
        ratios[at] = ms[1][at] / ms[0][at];
    }
    const double ratio = median(ratios, s->n_rounds);
    printf("%s, depth %d, %d threads, steps of %d: %.3f ms, with %s %.3f ms; median of %d ratios "
           "%.3f (%.3f to %.3f)\n",
           s->path, s->depth, s->n_threads, s->step, median(ms[0], s->n_rounds), s->adapter,
           median(ms[1], s->n_rounds), s->n_rounds, ratio, ratios[s->n_rounds / 4],
           ratios[s->n_rounds * 3 / 4]);
    return QUIP_OK;
}

static quip_status run(const struct setup *s, quip_error *error)
{
    quip_model *model = NULL;
    quip_adapter *adapter = NULL;
    quip_session *sessions[2] = { NULL };
    const quip_model_options model_options = { .backend = QUIP_BACKEND_CPU,
                                               .n_threads = s->n_threads };
    const quip_session_options options = { .n_context = s->depth + s->n_tokens * s->step + 1 };
    quip_status status = quip_model_open(&model, s->path, &model_options, error);
    if (!status)
        status = quip_session_open(&sessions[0], model, &options, error);
    if (!status)
        status = go_to(sessions[0], s->depth, error);
    if (!status && s->adapter) {
        status = quip_adapter_open(&adapter, model, s->adapter, error);
        if (!status)
            status = quip_session_open(&sessions[1], model, &options, error);
        if (!status)
            status = quip_session_set_adapter(sessions[1], adapter, 1, error);
        if (!status)
            status = go_to(sessions[1], s->depth, error);
    }
    if (!status)
        status = s->adapter ? compare(s, sessions, error) : measure(s, sessions[0], error);
    quip_session_close(sessions[0]);
    quip_session_close(sessions[1]);
    quip_adapter_close(adapter);
    quip_model_close(model);
    return status;
}

int main(int argc, char **argv)
{
    struct setup s = {
        .n_threads = qp_default_threads(), .n_rounds = 15, .n_tokens = 8, .step = 1
    };
    const struct {
        const char *name;
        int *value, most;
    } options[] = { { "--threads", &s.n_threads, 256 },
                    { "--depth", &s.depth, 1 << 16 },
                    { "--rounds", &s.n_rounds, MAX_ROUNDS },
                    { "--tokens", &s.n_tokens, 1 << 16 },
                    { "--step", &s.step, MAX_STEP } };
    for (int i = 1; i < argc; i++) {
        bool is_option = i + 1 < argc && !strcmp(argv[i], "--adapter");
        if (is_option)
            s.adapter = argv[i + 1];
        for (size_t j = 0; j < QP_COUNT(options) && i + 1 < argc; j++)
            if (!strcmp(argv[i], options[j].name)) {
                const int value = atoi(argv[i + 1]);
                *options[j].value = value < 1                 ? 1
                                    : value < options[j].most ? value
                                                              : options[j].most;
                is_option = true;
            }
        if (is_option)
            i++;
        else
            s.path = argv[i];
    }
    if (!s.path) {
        fprintf(stderr, "usage: decode MODEL [--threads N] [--depth TOKENS] [--rounds N] [--tokens "
                        "N] [--step N] [--adapter PATH]\n");
        return 2;
    }
    quip_error error = { 0 };
    if (run(&s, &error)) {
        fprintf(stderr, "decode: %s\n", error.message);
        return 1;
    }
    return 0;
}
