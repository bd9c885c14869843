/* bench.c: measures how long it takes to open a model, run a prompt and generate an answer, and how
 * much memory that needs. The prompt consists of arbitrary tokens and the answer of the most likely
 * ones: the time does not depend on the text. */
#include "base/kernel_time.h"
#include "cli.h"
#include "sampler/sampler.h"

#include <stdlib.h>

#define WARM_UP_NS 400000000u

enum {
    PROFILE_TOKENS = 8,
    MORE_TOKENS = 16, // of a context, for those and the warm-up
    MAX_KERNELS = 32
};

struct setup {
    struct model_words files;
    int n_prompt, n_answer, n_threads, n_repeats;
    int32_t backend;
};

enum figure {
    OPEN_MS,
    FIRST_TOKEN_MS,
    PREFILL_RATE,
    DECODE_RATE,
    FIGURE_COUNT
};

static const struct {
    const char *name, *json_name, *unit;
} figures[FIGURE_COUNT] = {
    [OPEN_MS] = { "open", "open_ms", "ms" },
    [FIRST_TOKEN_MS] = { "first token", "first_token_ms", "ms" },
    [PREFILL_RATE] = { "prefill", "prefill_tokens_per_s", "tokens/s" },
    [DECODE_RATE] = { "decode", "decode_tokens_per_s", "tokens/s" },
};

/* The kernels of PROFILE_TOKENS tokens. */
struct profile {
    struct kernel_time kernels[MAX_KERNELS];
    int n; // 0: the backend does not measure
};

static quip_token likeliest(const float *logits, int n)
{
    static const struct sampler none;
    static const struct sampling greedy;
    const struct draw draw = { .sampling = &greedy };
    return qp_sample(&none, &draw, (float *)(uintptr_t)logits, n); // greedy changes no logit
}

static double since_ms(uint64_t begin_ns)
{
    return (double)(qp_now_ns() - begin_ns) * 1e-6;
}

static void keep_highest(struct memory_use *to, struct memory_use m)
{
    to->peak = m.peak > to->peak ? m.peak : to->peak;
    to->file_backed = m.file_backed > to->file_backed ? m.file_backed : to->file_backed;
    to->own = m.own > to->own ? m.own : to->own;
}

/* n tokens that the session draws itself, as answers do: nothing else comes back from a GPU. Where
 * an answer ends, a token is fed instead: the one that ended it would be drawn again. */
static quip_status decode_answer(quip_session *session, int n, quip_session_options options,
                                 quip_token fed, quip_error *error)
{
    quip_piece piece = { .struct_size = sizeof piece };
    options.max_output_tokens = n; // a piece without text has as many tokens as it may
    quip_status status = quip_session_set_options(session, &options, error);
    for (int n_decoded = 0; n_decoded < n && !status;) {
        status = quip_session_next(session, &piece, error);
        n_decoded += piece.n_tokens;
        if (!status && piece.finish_reason == QUIP_FINISH_STOP)
            status = quip_session_prefill(session, &fed, 1, error);
    }
    return status;
}

/* The same tokens, each computed from logits that come back. */
static quip_status decode_likeliest(quip_session *session, int n, quip_token token, int vocab_size,
                                    quip_error *error)
{
    quip_status status = QUIP_OK;
    for (int i = 0; i < n && !status; i++) {
        status = quip_session_prefill(session, &token, 1, error);
        if (!status)
            token = likeliest(quip_session_logits(session), vocab_size);
    }
    return status;
}

/* Let a GPU compile its shaders and raise its clock. */
static quip_status warm_up(quip_session *session, quip_session_options options,
                           const quip_token *prompt, int n, quip_error *error)
{
    uint64_t begin = qp_now_ns();
    quip_status status = QUIP_OK;
    for (int i = 0; !status && (i <= 1 || qp_now_ns() - begin < WARM_UP_NS); i++) {
        if (i == 1) // its clock falls while shaders are compiled
            begin = qp_now_ns();
        status = quip_session_prefill(session, prompt, n, error);
        if (!status)
            status = decode_answer(session, 8, options, prompt[0], error);
        if (!status)
            status = quip_session_rewind(session, 0, error);
    }
    return status;
}

/* Measure the kernels of some more tokens. */
static quip_status profile_tokens(struct profile *p, quip_session *session,
                                  quip_session_options options, quip_token fed, quip_error *error)
{
    qp_session_profile(session, NULL, 0);
    const quip_status status = decode_answer(session, PROFILE_TOKENS, options, fed, error);
    p->n = qp_session_profile(session, p->kernels, MAX_KERNELS);
    return status;
}

/* Arbitrary tokens. */
static void fill_prompt(quip_token *prompt, int n, int vocab_size)
{
    uint32_t random = 1;
    for (int i = 0; i < n; i++) {
        random = random * 1664525 + 1013904223; // Numerical Recipes, section 7.1
        prompt[i] = (quip_token)((random >> 8) % (uint32_t)vocab_size);
    }
}

/* One round: open, prefill, decode. */
static quip_status measure(const struct setup *s, double found[FIGURE_COUNT],
                           struct profile *profile, struct memory_use *memory, quip_error *error)
{
    struct models models = { 0 };
    quip_session *session = NULL;
    quip_model_info info = { .struct_size = sizeof info };
    quip_status status;
    bool is_gpu = false, draws = s->files.draft != NULL; // the session draws the tokens
    const quip_model_options model_options = { .n_threads = s->n_threads, .backend = s->backend };
    const quip_session_options options = { .n_context = s->n_prompt + s->n_answer + MORE_TOKENS,
                                           .no_template = true,
                                           .greedy = true,
                                           .no_speculation = !s->files.draft };
    quip_token *prompt = malloc((size_t)s->n_prompt * sizeof(*prompt));
    if (!prompt)
        return qp_fail_memory(error, "the prompt", (size_t)s->n_prompt * sizeof(*prompt));

    uint64_t begin = qp_now_ns();
    if ((status = open_models(&models, &s->files, &model_options, error)) ||
        (status = open_session(&session, &models, &options, error)))
        goto done;
    found[OPEN_MS] = since_ms(begin);

    quip_model_get_info(models.model, &info, NULL);
    is_gpu = info.backend == QUIP_BACKEND_GPU;
    draws = draws || is_gpu;
    fill_prompt(prompt, s->n_prompt, info.vocab_size);
    if (is_gpu && (status = warm_up(session, options, prompt, s->n_prompt, error)))
        goto done;
    begin = qp_now_ns();
    if ((status = quip_session_prefill(session, prompt, s->n_prompt, error)))
        goto done;
    const float *logits = quip_session_logits(session);
    const double prefill_ms = since_ms(begin);
    const quip_token token = likeliest(logits, info.vocab_size);
    found[FIRST_TOKEN_MS] = since_ms(begin);
    found[PREFILL_RATE] = s->n_prompt / prefill_ms * 1e3;

    begin = qp_now_ns();
    status = draws ? decode_answer(session, s->n_answer, options, prompt[0], error)
                   : decode_likeliest(session, s->n_answer, token, info.vocab_size, error);
    if (status)
        goto done;
    found[DECODE_RATE] = s->n_answer / since_ms(begin) * 1e3;
    if (is_gpu && (status = profile_tokens(profile, session, options, prompt[0], error)))
        goto done;
    keep_highest(memory, memory_use());
done:
    free(prompt);
    quip_session_close(session);
    close_models(&models);
    return status;
}

static int compare_numbers(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* values[figure][round], each figure's sorted. */
static double median(const double *sorted, int n)
{
    return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

static void print_figures(const struct setup *s, double values[FIGURE_COUNT][64],
                          struct memory_use m)
{
    char peak[24], file_backed[24], own[24];
    printf("%s: prompt %d tokens, answer %d tokens, %d threads, %d rounds\n", s->files.model,
           s->n_prompt, s->n_answer, s->n_threads, s->n_repeats);
    for (int f = 0; f < FIGURE_COUNT; f++)
        printf("  %-12s %9.1f %-9s (%.1f to %.1f)\n", figures[f].name,
               median(values[f], s->n_repeats), figures[f].unit, values[f][0],
               values[f][s->n_repeats - 1]);
    printf("  %-12s peak %s, %s of the model file, %s own\n", "memory", human_bytes(peak, m.peak),
           human_bytes(file_backed, m.file_backed), human_bytes(own, m.own));
}

/* What a kernel does for one token. */
struct token_share {
    double n, us, mb;
};

static struct token_share share_of(const struct kernel_time *k)
{
    return (struct token_share){ (double)k->n / PROFILE_TOKENS,
                                 (double)k->ns * 1e-3 / PROFILE_TOKENS,
                                 (double)k->n_weight * 1e-6 / PROFILE_TOKENS };
}

static void print_profile(const struct profile *p)
{
    struct token_share all = { 0 };
    if (p->n == 0)
        return;
    printf("  a token, with each dispatch measured alone:\n  %-24s %10s %9s %9s %9s\n", "",
           "dispatches", "us", "MB", "GB/s");
    for (int i = 0; i <= p->n; i++) {
        const struct token_share t = i < p->n ? share_of(&p->kernels[i]) : all;
        printf("  %-24s %10.1f %9.1f %9.1f %9.0f\n", i < p->n ? p->kernels[i].name : "all", t.n,
               t.us, t.mb, t.us > 0 ? t.mb / t.us * 1e3 : 0);
        all.n += t.n;
        all.us += t.us;
        all.mb += t.mb;
    }
}

static void add_profile_json(cJSON *json, const struct profile *p)
{
    cJSON *kernels = p->n > 0 ? cJSON_AddArrayToObject(json, "kernels_of_a_token") : NULL;
    for (int i = 0; i < p->n; i++) {
        const struct token_share t = share_of(&p->kernels[i]);
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "name", p->kernels[i].name);
        cJSON_AddNumberToObject(o, "dispatches", t.n);
        cJSON_AddNumberToObject(o, "us", t.us);
        cJSON_AddNumberToObject(o, "weight_mb", t.mb);
        cJSON_AddItemToArray(kernels, o);
    }
}

static int print_figures_json(const struct setup *s, double values[FIGURE_COUNT][64],
                              const struct profile *profile, struct memory_use m)
{
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "model", s->files.model);
    cJSON_AddNumberToObject(json, "prompt_tokens", s->n_prompt);
    cJSON_AddNumberToObject(json, "output_tokens", s->n_answer);
    cJSON_AddNumberToObject(json, "threads", s->n_threads);
    cJSON_AddNumberToObject(json, "rounds", s->n_repeats);
    for (int f = 0; f < FIGURE_COUNT; f++) {
        cJSON *o = cJSON_AddObjectToObject(json, figures[f].json_name);
        cJSON_AddNumberToObject(o, "median", median(values[f], s->n_repeats));
        cJSON_AddNumberToObject(o, "min", values[f][0]);
        cJSON_AddNumberToObject(o, "max", values[f][s->n_repeats - 1]);
    }
    add_profile_json(json, profile);
    cJSON_AddNumberToObject(json, "peak_rss_bytes", (double)m.peak);
    cJSON_AddNumberToObject(json, "file_backed_bytes", (double)m.file_backed);
    cJSON_AddNumberToObject(json, "own_bytes", (double)m.own);
    return print_json(json);
}

int run_bench(const struct command *command, char **words)
{
    struct setup setup = { .n_prompt = 1024, .n_answer = 256, .n_repeats = 5 };
    bool is_json = false;
    const struct option options[] = {
        { OPTION_INT, 'p', "prompt-tokens", "P", &setup.n_prompt, 1, 1 << 24, "default 1024" },
        { OPTION_INT, 'n', "output-tokens", "N", &setup.n_answer, 1, 1 << 24, "default 256" },
        THREADS_OPTION(&setup.n_threads),
        { OPTION_INT, 'r', "repeat", "R", &setup.n_repeats, 1, 64,
          "rounds; prints the median, the lowest and the highest; default 5" },
        BACKEND_OPTION(&setup.backend),
        ADAPTER_OPTION(&setup.files.adapter),
        DRAFT_OPTION(&setup.files.draft),
        { OPTION_FLAG, 0, "json", NULL, &is_json, 0, 0, "print a JSON object" },
        { 0 },
    };
    int exit_code;
    if (parse_options(command, options, words, 1, 1, &exit_code) < 0)
        return exit_code;
    setup.files.model = words[0];
    if (!setup.n_threads)
        setup.n_threads = qp_default_threads();

    quip_error error = { 0 };
    struct memory_use memory = { 0 };
    double values[FIGURE_COUNT][64] = { 0 };
    struct profile profile = { 0 };
    for (int round = 0; round < setup.n_repeats; round++) {
        double found[FIGURE_COUNT] = { 0 };
        if (is_terminal(stderr))
            fprintf(stderr, "\r\033[K%sround %d of %d%s", dim(), round + 1, setup.n_repeats,
                    plain());
        if (measure(&setup, found, &profile, &memory, &error))
            return fail_with(&error);
        for (int f = 0; f < FIGURE_COUNT; f++)
            values[f][round] = found[f];
    }
    if (is_terminal(stderr))
        fputs("\r\033[K", stderr);
    for (int f = 0; f < FIGURE_COUNT; f++)
        qsort(values[f], (size_t)setup.n_repeats, sizeof(values[f][0]), compare_numbers);
    if (is_json)
        return print_figures_json(&setup, values, &profile, memory);
    print_figures(&setup, values, memory);
    print_profile(&profile);
    return 0;
}
