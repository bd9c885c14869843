/* batch.c: decodes several sessions together: each step runs the next token of all of them.
 *
 *     build/bench/batch MODEL [--sessions N] [--prompt-tokens P] [--output-tokens T] [--repeat R]
 *         [--gpu 1] [--profile 1] [--json 1]
 *
 * Prompts consist of arbitrary tokens and answers of the most likely ones, which are drawn where
 * the logits are. Prints tokens per second of all sessions together, without the prompts. After the
 * last round session 0 decodes the same tokens alone: they must be equal. */
#include "median.h"

#include "base/kernel_time.h"
#include "engine/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_SESSIONS = LOGITS_ROWS,
    MAX_REPEATS = 64,
    MAX_TOKENS = 4096,
    MAX_KERNELS = 32,
    PROFILE_STEPS = 4,
    WARM_UP_STEPS = 40
};

static struct {
    const char *path;
    int n_sessions, n_prompt, n_answer, n_repeats, is_gpu, is_profile, is_json;
} setup = { NULL, 16, 1024, 128, 3, 0, 0, 0 };

static quip_session *sessions[MAX_SESSIONS];
static quip_token prompts[MAX_SESSIONS][MAX_TOKENS];
static quip_token answers[MAX_SESSIONS][MAX_TOKENS];

static double since_s(uint64_t begin)
{
    return (double)(qp_now_ns() - begin) * 1e-9;
}

/* One token of the first n sessions: the tokens that follow theirs. */
static quip_status step(int n, const quip_token *tokens, quip_token *drawn, quip_error *error)
{
    static const struct sampling greedy = { .repeat = 1 };
    struct device *d = sessions[0]->device;
    const struct backend *b = d->backend;
    struct output outputs[MAX_SESSIONS];
    struct draw draws[MAX_SESSIONS];
    qp_device_enter(d, TURN_SHORT);
    for (int i = 0; i < n; i++) {
        struct sequence *s = sessions[i]->sequence;
        d->rows[i] = (struct row){ .sequence = s,
                                   .pos = s->pos,
                                   .visible_end = s->pos + 1,
                                   .token = tokens[i],
                                   .is_output = true };
        outputs[i] = (struct output){ s, 0 };
        draws[i] = (struct draw){ .sampling = &greedy, .index = (uint64_t)s->pos, .expected = -1 };
    }
    quip_status status = b->begin(d, 0);
    if (!status)
        status = qp_forward(d, &(struct rows){ d->rows, n }, NULL, NULL);
    if (!status)
        status = qp_forward_logits(d, outputs, n, NULL);
    if (!status)
        status = b->sample(d, draws, n);
    if (!status)
        status = b->submit(d);
    if (!status)
        status = b->poll(d, true);
    if (!status)
        status = b->read_tokens(d, drawn, n);
    if (status)
        qp_device_fail(d, status, error);
    qp_device_leave(d);
    return status;
}

static quip_status decode(int n, int n_steps, quip_token to[][MAX_TOKENS], quip_error *error)
{
    quip_token tokens[MAX_SESSIONS];
    quip_status status = QUIP_OK;
    for (int i = 0; i < n; i++)
        tokens[i] = prompts[i][setup.n_prompt];
    for (int k = 0; k < n_steps && !status; k++) {
        status = step(n, tokens, tokens, error);
        for (int i = 0; i < n && to; i++)
            to[i][k] = tokens[i];
    }
    return status;
}

static void rewind_all(void)
{
    for (int i = 0; i < setup.n_sessions; i++)
        sessions[i]->device->backend->sequence_rewind(sessions[i]->sequence, setup.n_prompt);
}

static quip_status open_all(quip_error *error)
{
    quip_model *model = NULL;
    const quip_model_options options = { .backend =
                                             setup.is_gpu ? QUIP_BACKEND_GPU : QUIP_BACKEND_CPU };
    const quip_session_options session = { .n_context =
                                               setup.n_prompt + setup.n_answer + WARM_UP_STEPS };
    quip_status status = quip_model_open(&model, setup.path, &options, error);
    uint32_t random = 1;
    for (int i = 0; i < setup.n_sessions && !status; i++) {
        for (int t = 0; t <= setup.n_prompt; t++) {
            random = random * 1664525 + 1013904223; // Numerical Recipes, section 7.1
            prompts[i][t] = (quip_token)((random >> 8) % (uint32_t)model->config.vocab_size);
        }
        status = quip_session_open(&sessions[i], model, &session, error);
        if (!status && setup.n_prompt > 0)
            status = quip_session_prefill(sessions[i], prompts[i], setup.n_prompt, error);
        if (!status)
            quip_session_logits(sessions[i]);
    }
    quip_model_close(model);
    return status;
}

static quip_status print_profile(quip_error *error)
{
    struct kernel_time kernels[MAX_KERNELS];
    qp_session_profile(sessions[0], NULL, 0);
    const quip_status status = decode(setup.n_sessions, PROFILE_STEPS, NULL, error);
    const int n = qp_session_profile(sessions[0], kernels, MAX_KERNELS);
    rewind_all();
    for (int i = 0; i < n && !status; i++)
        printf("  %-24s %7.1f times %9.1f us %9.1f MB\n", kernels[i].name,
               (double)kernels[i].n / PROFILE_STEPS, (double)kernels[i].ns * 1e-3 / PROFILE_STEPS,
               (double)kernels[i].n_weight * 1e-6 / PROFILE_STEPS);
    return status;
}

/* Number of tokens that session 0 draws in other ways when it is alone. */
static quip_status compare_alone(int *n_other, quip_error *error)
{
    static quip_token alone[1][MAX_TOKENS];
    const quip_status status = decode(1, setup.n_answer, alone, error);
    *n_other = 0;
    for (int k = 0; k < setup.n_answer && !status; k++)
        *n_other += alone[0][k] != answers[0][k];
    return status;
}

static void print_rates(double *rates, int n_other)
{
    const double typical = median(rates, setup.n_repeats); // which sorts
    const char *format =
        setup.is_json ? "{\"sessions\": %d, \"prompt_tokens\": %d, \"output_tokens\": %d, "
                        "\"tokens_per_s\": %.1f, \"min\": %.1f, \"max\": %.1f, \"other\": %d}\n"
                      : "%d sessions at %d, %d tokens each: %.1f tokens/s together (%.1f to %.1f); "
                        "alone, %d tokens of the first are others\n";
    printf(format, setup.n_sessions, setup.n_prompt, setup.n_answer, typical, rates[0],
           rates[setup.n_repeats - 1], n_other);
}

static bool parse(int argc, char **argv)
{
    const struct {
        const char *name;
        int *to, min, max;
    } options[] = { { "--sessions", &setup.n_sessions, 1, MAX_SESSIONS },
                    { "--prompt-tokens", &setup.n_prompt, 0, MAX_TOKENS - 1 },
                    { "--output-tokens", &setup.n_answer, 1, MAX_TOKENS },
                    { "--repeat", &setup.n_repeats, 1, MAX_REPEATS },
                    { "--gpu", &setup.is_gpu, 0, 1 },
                    { "--profile", &setup.is_profile, 0, 1 },
                    { "--json", &setup.is_json, 0, 1 } };
    setup.path = argc > 1 ? argv[1] : NULL;
    for (int i = 2; i < argc; i += 2) {
        bool is_known = false;
        for (size_t k = 0; k < QP_COUNT(options) && i + 1 < argc; k++) {
            if (strcmp(argv[i], options[k].name) != 0)
                continue;
            *options[k].to = atoi(argv[i + 1]);
            is_known = *options[k].to >= options[k].min && *options[k].to <= options[k].max;
        }
        if (!is_known)
            return false;
    }
    return setup.path != NULL;
}

int main(int argc, char **argv)
{
    quip_error error = { 0 };
    double rates[MAX_REPEATS];
    int n_other = 0;
    if (!parse(argc, argv)) {
        fputs("expected MODEL and options; the comment of bench/batch.c lists them\n", stderr);
        return 2;
    }
    quip_status status = open_all(&error);
    if (!status)
        status = decode(setup.n_sessions, WARM_UP_STEPS, NULL, &error);
    for (int r = 0; r < setup.n_repeats && !status; r++) {
        rewind_all();
        const uint64_t begin = qp_now_ns();
        status = decode(setup.n_sessions, setup.n_answer, answers, &error);
        rates[r] = setup.n_sessions * setup.n_answer / since_s(begin);
    }
    if (!status)
        rewind_all();
    if (!status && setup.is_profile)
        status = print_profile(&error);
    if (!status)
        status = compare_alone(&n_other, &error);
    if (!status)
        print_rates(rates, n_other);
    else
        fprintf(stderr, "%s\n", error.message);
    for (int i = 0; i < setup.n_sessions; i++)
        quip_session_close(sessions[i]);
    return status || n_other > 0;
}
