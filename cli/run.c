/* run.c: answers one prompt. The answer is printed while it is generated. */
#include "cli.h"

#include <string.h>

static bool print_piece(void *user, const char *text, size_t n)
{
    return write_piece(user, text, n) && !was_interrupted();
}

static bool keep_piece(void *user, const char *text, size_t n)
{
    return qp_bytes_append(user, text, n) && !was_interrupted();
}

/* Print the answer as one JSON object. */
static quip_status answer_json(quip_session *session, const struct bytes *prompt,
                               quip_result *result, int *exit_code, quip_error *error)
{
    struct bytes answer = { 0 };
    quip_status status = quip_session_generate(session, (const char *)prompt->data, prompt->n,
                                               keep_piece, &answer, result, error);
    if (!status) {
        cJSON *json = cJSON_CreateObject();
        cJSON_AddItemToObject(json, "text", json_text((const char *)answer.data, answer.n));
        json_stats(json, result);
        *exit_code = print_json(json);
    }
    qp_bytes_close(&answer);
    return status;
}

/* Print the answer on stdout while it is generated, then statistics on stderr. */
static quip_status answer_text(quip_session *session, const struct bytes *prompt,
                               const quip_model *model, bool has_stats, quip_result *result,
                               int *exit_code, quip_error *error)
{
    struct writer writer;
    begin_writer(&writer, stdout, false);
    quip_status status = quip_session_generate(session, (const char *)prompt->data, prompt->n,
                                               print_piece, &writer, result, error);
    end_writer(&writer);
    if (!close_output(stdout, "-"))
        *exit_code = EXIT_FAILED;
    if (status)
        return status;
    if (result->finish_reason == QUIP_FINISH_CONTEXT)
        fprintf(stderr,
                "quip: the answer ends because the context of %d tokens is full; --context N "
                "makes it larger\n",
                quip_session_n_context(session));
    if (has_stats) {
        print_stats(result);
        print_reason(model);
    }
    return status;
}

/* Answer the prompt. Returns the exit code. */
static int answer(quip_session *session, const quip_model *model, const struct bytes *prompt,
                  bool has_stats, bool is_json)
{
    quip_result result = { .struct_size = sizeof result };
    quip_error error = { 0 };
    int exit_code = 0;
    if (is_json && has_stats)
        note_vain("stats", "with --json, which prints more");
    catch_interrupt(session);
    const quip_status status =
        is_json ? answer_json(session, prompt, &result, &exit_code, &error)
                : answer_text(session, prompt, model, has_stats, &result, &exit_code, &error);
    release_interrupt();
    if (status == QUIP_E_CONTEXT_FULL)
        return fail("%s; --context N makes it larger", error.message);
    if (status)
        return fail_with(&error);
    return was_interrupted() ? EXIT_INTERRUPTED : exit_code;
}

int run_run(const struct command *command, char **words)
{
    struct texts stop = { 0 };
    bool has_stats = false, is_json = false;
    struct model_words files = { 0 };
    struct models models = { 0 };
    quip_model_options model_options = { 0 };
    quip_session_options session_options = UNSAID_OPTIONS;
    const struct option options[] = {
        SESSION_OPTIONS(&session_options, &model_options, &stop),
        ADAPTER_OPTION(&files.adapter),
        DRAFT_OPTION(&files.draft),
        { OPTION_FLAG, 0, "stats", NULL, &has_stats, 0, 0, "print times and rates on stderr" },
        { OPTION_FLAG, 0, "json", NULL, &is_json, 0, 0,
          "print text and statistics as one JSON object" },
        { 0 },
    };
    int exit_code;
    const int n_words = parse_options(command, options, words, 1, 2, &exit_code);
    if (n_words < 0)
        return exit_code;
    if (n_words == 1 && is_terminal(stdin))
        return fail_usage(command, "expected MODEL PROMPT; quip chat holds a conversation");
    const char *word = n_words == 1 ? "-" : words[1];
    files.model = words[0];
    session_options.stop = stop.items;
    session_options.n_stop = stop.n;
    session_options = settled(&session_options);

    quip_error error = { 0 };
    quip_session *session = NULL;
    struct bytes prompt = { 0 };
    exit_code = EXIT_FAILED;
    if (!read_prompt(&prompt, word, session_options.no_template))
        goto done;
    if (open_models(&models, &files, &model_options, &error)) {
        exit_code = fail_with(&error);
        goto done;
    }
    note_options(&session_options, &models, NULL);
    session_options.has_seed = true; // 0 unless said: the same command gives the same answer
    if (open_session(&session, &models, &session_options, &error))
        exit_code = fail_with(&error);
    else
        exit_code = answer(session, models.model, &prompt, has_stats, is_json);
done:
    qp_bytes_close(&prompt);
    quip_session_close(session);
    close_models(&models);
    return exit_code;
}
