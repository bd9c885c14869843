/* eval.c: measures the perplexity of a model on a text.
 * The text is cut into windows of consecutive tokens. Each window is evaluated alone, in an empty
 * context, and all its tokens except the first are scored. mean_nll is the mean over all scored
 * tokens, in nats. */
#include "cli.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct score {
    const quip_token *tokens; // the window
    int n, vocab_size;
    double nll; // sum so far
    int n_scored;
};

/* nll of the next token = log(sum_i exp(logits[i])) - logits[next]. The maximum is subtracted
 * first, so that exp does not overflow. */
static bool score_next(void *user, int position, const float *logits)
{
    struct score *s = user;
    if (position + 1 >= s->n)
        return true;
    float max = logits[0];
    for (int i = 1; i < s->vocab_size; i++)
        max = logits[i] > max ? logits[i] : max;
    double sum = 0;
    for (int i = 0; i < s->vocab_size; i++)
        sum += exp((double)logits[i] - (double)max);
    s->nll += log(sum) + (double)max - (double)logits[s->tokens[position + 1]];
    s->n_scored++;
    return !was_interrupted();
}

/* Tokenize the whole text; free *tokens. */
static quip_status encode_all(const quip_model *model, const struct bytes *text,
                              quip_token **tokens, int *n, quip_error *error)
{
    const char *bytes = (const char *)text->data;
    quip_status status = quip_tokenize(model, bytes, text->n, false, NULL, 0, n, error);
    if (status)
        return status;
    *tokens = malloc(((size_t)*n + 1) * sizeof(**tokens));
    if (!*tokens)
        return qp_fail_memory(error, "the text's tokens", (size_t)*n * sizeof(**tokens));
    return quip_tokenize(model, bytes, text->n, false, *tokens, *n, n, error);
}

static int print_score(const struct score *s, int n_windows, bool is_json)
{
    double mean = s->nll / s->n_scored;
    if (!is_json) {
        printf("perplexity %.4f, mean nll %.5f, over %d tokens in %d windows\n", exp(mean), mean,
               s->n_scored, n_windows);
        return 0;
    }
    cJSON *json = cJSON_CreateObject();
    cJSON_AddNumberToObject(json, "perplexity", exp(mean));
    cJSON_AddNumberToObject(json, "mean_nll", mean);
    cJSON_AddNumberToObject(json, "tokens", s->n_scored);
    cJSON_AddNumberToObject(json, "windows", n_windows);
    return print_json(json);
}

struct windows {
    int n_window; // tokens in each
    int max;      // number of windows; 0: all complete ones
    int n;        // windows that were evaluated
};

/* Run the window in an empty context, and add up the score. */
static quip_status score_window(quip_session *session, struct score *score, quip_error *error)
{
    quip_status status = quip_session_rewind(session, 0, error);
    if (!status)
        status =
            quip_session_prefill_logits(session, score->tokens, score->n, score_next, score, error);
    return was_interrupted() ? QUIP_E_CANCELLED : status;
}

/* Cut tokens into windows, and score each. */
static quip_status score_windows(quip_session *session, const quip_model_info *info,
                                 struct windows *windows, const quip_token *tokens, int n_tokens,
                                 struct score *score, quip_error *error)
{
    int n_bos = info->bos >= 0;
    int n_text = windows->n_window - n_bos; // tokens of the text in a window
    windows->n = n_tokens / n_text;
    if (windows->max && windows->n > windows->max)
        windows->n = windows->max;
    if (!windows->n)
        return qp_fail(error, QUIP_E_FORMAT,
                       "the text has %d tokens, expected at least %d for one window; --window N "
                       "makes it smaller",
                       n_tokens, n_text);
    quip_token *window = malloc((size_t)windows->n_window * sizeof(*window));
    if (!window)
        return qp_fail_memory(error, "a window", (size_t)windows->n_window * sizeof(*window));
    *score =
        (struct score){ .tokens = window, .n = windows->n_window, .vocab_size = info->vocab_size };
    quip_status status = QUIP_OK;
    for (int w = 0; w < windows->n && !status; w++) {
        window[0] = info->bos;
        memcpy(window + n_bos, tokens + w * n_text, (size_t)n_text * sizeof(*window));
        status = score_window(session, score, error);
        if (!status && is_terminal(stderr))
            fprintf(stderr, "\r\033[K%swindow %d of %d: perplexity %.3f%s", dim(), w + 1,
                    windows->n, exp(score->nll / score->n_scored), plain());
    }
    if (is_terminal(stderr))
        fputs("\r\033[K", stderr);
    free(window);
    return status;
}

/* Measure the perplexity of a text, and print it. Returns the exit code. */
static int evaluate(const struct models *models, struct windows *windows, const struct bytes *text,
                    bool is_json)
{
    quip_error error = { 0 };
    quip_session *session = NULL;
    const quip_session_options options = { .n_context = windows->n_window };
    quip_model_info info = { .struct_size = sizeof info };
    quip_token *tokens = NULL;
    int n_tokens = 0, exit_code;
    struct score score;
    if (open_session(&session, models, &options, &error) ||
        encode_all(models->model, text, &tokens, &n_tokens, &error)) {
        exit_code = fail_with(&error);
        goto done;
    }
    quip_model_get_info(models->model, &info, NULL);
    catch_interrupt(session);
    quip_status status = score_windows(session, &info, windows, tokens, n_tokens, &score, &error);
    release_interrupt();
    if (was_interrupted())
        exit_code = EXIT_INTERRUPTED;
    else
        exit_code = status ? fail_with(&error) : print_score(&score, windows->n, is_json);
done:
    free(tokens);
    quip_session_close(session);
    return exit_code;
}

int run_eval(const struct command *command, char **words)
{
    const char *text_path = NULL;
    struct model_words files = { 0 };
    quip_model_options model_options = { 0 };
    struct windows windows = { .n_window = 1024 };
    bool is_json = false;
    const struct option options[] = {
        { OPTION_TEXT, 0, "text", "FILE", &text_path, 0, 0, "the text; \"-\" is stdin" },
        { OPTION_INT, 0, "window", "N", &windows.n_window, 2, 1 << 24,
          "tokens in a window; default 1024" },
        { OPTION_INT, 0, "windows", "N", &windows.max, 1, INT32_MAX,
          "use the first N windows; default: all complete ones" },
        THREADS_OPTION(&model_options.n_threads),
        BACKEND_OPTION(&model_options.backend),
        ADAPTER_OPTION(&files.adapter),
        { OPTION_FLAG, 0, "json", NULL, &is_json, 0, 0,
          "print a JSON object: perplexity, mean_nll, tokens, windows" },
        { 0 },
    };
    int exit_code;
    if (parse_options(command, options, words, 1, 1, &exit_code) < 0)
        return exit_code;
    if (!text_path)
        return fail_usage(command, "expected --text");
    files.model = words[0];

    quip_error error = { 0 };
    struct models models = { 0 };
    struct bytes text = { 0 };
    exit_code = EXIT_FAILED;
    if (read_input(&text, text_path) && to_utf8(&text, text_path))
        exit_code = open_models(&models, &files, &model_options, &error)
                        ? fail_with(&error)
                        : evaluate(&models, &windows, &text, is_json);
    qp_bytes_close(&text);
    close_models(&models);
    return exit_code;
}
