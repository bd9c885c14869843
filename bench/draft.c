/* draft.c: compares decode with a draft model and without, in turns.
 *
 *     build/bench/draft MODEL DRAFT [PROMPT] [--threads N] [--tokens N] [--rounds N] [--length N]
 *         [--percent N] [--depth N]
 *
 * In each round a session of each kind generates an answer, and both must be the same. The time is
 * that of the answer, which contains the draft model's run over the prompt. Draws have a seed of
 * the round.
 * --length: always draft N tokens. With 1, the share that was right is the agreement.
 * --percent: the temperature times 100; 0, the default, is greedy.
 * --depth: instead of PROMPT, N arbitrary tokens.
 */
#include "median.h"

#include "engine/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct setup {
    const char *paths[3]; // model, draft model, prompt
    int n_threads, n_tokens, n_rounds, length, percent, depth;
};

enum {
    MAX_ROUNDS = 256
};

/* What one answer took. */
struct answer_time {
    double ms_per_token;
    int n_draft, n_right;
    struct bytes tokens;
};

static quip_status append_prompt(const struct setup *s, quip_session *session, int round,
                                 quip_error *error)
{
    if (!s->depth)
        return quip_session_append(session, QUIP_ROLE_USER, s->paths[2], strlen(s->paths[2]),
                                   error);
    quip_status status = QUIP_OK;
    uint32_t random = (uint32_t)round + 1;
    for (int i = 0; i < s->depth && !status; i++) {
        random = random * 1664525 + 1013904223; // Numerical Recipes, section 7.1
        const quip_token token =
            (quip_token)((random >> 8) % (uint32_t)session->model->config.vocab_size);
        status = qp_session_push(session, &token, 1, QUIP_ROLE_NONE, error);
    }
    return status ? status : qp_session_run(session, s->depth, error);
}

static quip_status generate(const struct setup *s, quip_session *session, int round,
                            struct answer_time *a, quip_error *error)
{
    quip_piece piece = { .struct_size = sizeof piece };
    quip_status status = append_prompt(s, session, round, error);
    const uint64_t start_ns = qp_now_ns();
    a->tokens.n = 0;
    while (!status && !piece.finish_reason) {
        status = quip_session_next(session, &piece, error);
        if (!status && !qp_bytes_append(&a->tokens, piece.tokens,
                                        (size_t)piece.n_tokens * sizeof *piece.tokens))
            status = qp_fail_memory(error, "the answer", a->tokens.n);
    }
    a->n_draft = session->result.n_draft_tokens;
    a->n_right = session->result.n_draft_right;
    a->ms_per_token = (double)(qp_now_ns() - start_ns) * 1e-6 / session->result.n_output_tokens;
    return status;
}

static quip_status run_round(const struct setup *s, quip_model *models[2], int round,
                             bool has_draft, struct answer_time *a, quip_error *error)
{
    quip_session *session;
    const quip_session_options options = { .n_context = 4096,
                                           .max_output_tokens = s->n_tokens,
                                           .greedy = s->percent == 0,
                                           .temperature = (float)s->percent / 100,
                                           .seed = (uint64_t)round,
                                           .has_seed = true,
                                           .draft = has_draft ? models[1] : NULL };
    quip_status status = quip_session_open(&session, models[0], &options, error);
    if (status)
        return status;
    if (has_draft)
        qp_draft_model_fix_length(session->draft.model, s->length);
    status = generate(s, session, round, a, error);
    quip_session_close(session);
    return status;
}

static void print(const struct setup *s, double *ms[2], double *ratios, const long drafts[2][2])
{
    const double ratio = median(ratios, s->n_rounds);
    printf("%s with %s, %d threads, temperature %.2f: %.3f ms per token without, %.3f with; median "
           "of %d ratios of rates %.3f (%.3f to %.3f); %ld of %ld draft tokens right, without a "
           "draft model %ld of %ld\n",
           s->paths[0], s->paths[1], s->n_threads, s->percent / 100.0, median(ms[0], s->n_rounds),
           median(ms[1], s->n_rounds), s->n_rounds, ratio, ratios[s->n_rounds / 4],
           ratios[s->n_rounds * 3 / 4], drafts[1][1], drafts[1][0], drafts[0][1], drafts[0][0]);
}

static quip_status compare(const struct setup *s, quip_model *models[2], quip_error *error)
{
    static double values[2][MAX_ROUNDS], ratios[MAX_ROUNDS];
    double *ms[2] = { values[0], values[1] };
    struct answer_time answers[2] = { 0 };
    long drafts[2][2] = { 0 };
    quip_status status = QUIP_OK;
    for (int i = -1; i < s->n_rounds && !status; i++) { // the first round warms up
        const int at = i < 0 ? 0 : i;
        for (int turn = 0; turn < 2 && !status; turn++) {
            const int which = (turn + at) % 2;
            status = run_round(s, models, at, which == 1, &answers[which], error);
            ms[which][at] = answers[which].ms_per_token;
            drafts[which][0] += i < 0 ? 0 : answers[which].n_draft;
            drafts[which][1] += i < 0 ? 0 : answers[which].n_right;
        }
        ratios[at] = ms[0][at] / ms[1][at];
        if (!status &&
            (answers[0].tokens.n != answers[1].tokens.n ||
             memcmp(answers[0].tokens.data, answers[1].tokens.data, answers[0].tokens.n)))
            status = qp_fail(error, QUIP_E_DEVICE, "round %d: the answers differ", at);
    }
    if (!status)
        print(s, ms, ratios, (const long(*)[2])drafts);
    qp_bytes_close(&answers[0].tokens);
    qp_bytes_close(&answers[1].tokens);
    return status;
}

int main(int argc, char **argv)
{
    struct setup s = { .n_threads = qp_default_threads(), .n_tokens = 128, .n_rounds = 9 };
    const struct {
        const char *name;
        int *value, most;
    } options[] = { { "--threads", &s.n_threads, 256 },      { "--tokens", &s.n_tokens, 1 << 16 },
                    { "--rounds", &s.n_rounds, MAX_ROUNDS }, { "--length", &s.length, MAX_DRAFT },
                    { "--percent", &s.percent, 10000 },      { "--depth", &s.depth, 2048 } };
    int n_paths = 0;
    for (int i = 1; i < argc; i++) {
        bool is_option = false;
        for (size_t j = 0; j < QP_COUNT(options) && i + 1 < argc; j++)
            if (!strcmp(argv[i], options[j].name)) {
                *options[j].value = qp_min(atoi(argv[i + 1]), options[j].most);
                is_option = true;
            }
        i += is_option;
        if (!is_option && n_paths < 3)
            s.paths[n_paths++] = argv[i];
    }
    if (n_paths < 2 || (n_paths < 3 && !s.depth) || s.n_rounds < 1 || s.length < 0) {
        fprintf(stderr, "expected MODEL DRAFT PROMPT, or MODEL DRAFT --depth N\n");
        return 2;
    }
    quip_error error = { 0 };
    quip_model *models[2] = { NULL };
    const quip_model_options model_options = { .backend = QUIP_BACKEND_CPU,
                                               .n_threads = s.n_threads };
    quip_status status = quip_model_open(&models[0], s.paths[0], &model_options, &error);
    if (!status)
        status = quip_model_open(&models[1], s.paths[1], &model_options, &error);
    if (!status && s.depth)
        models[0]->config.n_stop_ids = 0; // arbitrary text has no end
    if (!status)
        status = compare(&s, models, &error);
    quip_model_close(models[0]);
    quip_model_close(models[1]);
    if (status)
        fprintf(stderr, "%s\n", error.message);
    return status != QUIP_OK;
}
