/* chat.c: a conversation. If stdin or stdout is not a terminal, each line of stdin is a turn. */
#include "chat.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- answers ---- */

static bool show_piece(void *user, const char *text, size_t n)
{
    return write_piece(user, text, n) && !was_interrupted();
}

/* A turn does not fit. In a terminal its user decides what to do. In a pipe an empty line stands
 * for the answer, and the exit code says that one is missing. */
static void report_full(struct chat *c, const quip_error *error)
{
    if (c->is_terminal) {
        fprintf(stderr, "%s; /clear starts again, --context N makes the context larger\n",
                error->message);
        return;
    }
    fprintf(stderr, "quip: line %d: %s; --context N makes the context larger\n", c->n_line,
            error->message);
    putchar('\n');
    c->exit_code = EXIT_FAILED;
}

/* Answer one turn. False if the conversation cannot continue. */
static bool answer(struct chat *c, const char *text, size_t n)
{
    quip_error error = { 0 };
    struct writer writer;
    begin_writer(&writer, stdout, c->is_terminal && !c->no_wrap);
    catch_interrupt(c->session);
    if (c->is_terminal)
        quieten_terminal();
    const quip_status status =
        quip_session_generate(c->session, text, n, show_piece, &writer, &c->last, &error);
    (c->is_terminal ? ignore_interrupt : release_interrupt)();
    if (c->is_terminal && was_interrupted())
        drop_keys();
    end_writer(&writer);
    if (!c->is_terminal && !status && writer.last < 0)
        putchar('\n'); // of an empty answer
    if (status == QUIP_E_CONTEXT_FULL)
        report_full(c, &error);
    if (!close_output(stdout, "-")) {
        c->exit_code = EXIT_FAILED;
        return false;
    }
    if (!c->is_terminal && was_interrupted()) {
        c->exit_code = EXIT_INTERRUPTED;
        return false;
    }
    if (status && status != QUIP_E_CANCELLED && status != QUIP_E_CONTEXT_FULL) {
        c->exit_code = fail_with(&error);
        return false;
    }
    if (!status && c->last.finish_reason == QUIP_FINISH_CONTEXT)
        fprintf(stderr, "the context of %d tokens is full; /clear starts again\n",
                quip_session_n_context(c->session));
    if (!status && c->has_stats)
        print_stats(&c->last);
    return true;
}

/* Handle one turn of the user. False ends the conversation. */
static bool turn(struct chat *c, const char *text, size_t n, bool is_quoted)
{
    while (n && strchr("\r\n", text[n - 1]))
        n--;
    if (!n)
        return true;
    switch (is_quoted ? TURN_TEXT : run_slash_command(c, text, n)) {
    case TURN_TEXT:
        return answer(c, text, n);
    case TURN_DONE:
        return true;
    default:
        return false;
    }
}

/* ---- input ---- */

/* Read a line; the whole of stdin if it begins like UTF-16, whose line ends are not those of C.
 * False at the end. */
static bool read_line(struct bytes *line, bool is_first)
{
    int byte = 0;
    line->n = 0;
    while (byte != '\n' && (byte = getchar()) != EOF) {
        const uint8_t b = (uint8_t)byte;
        if (!qp_bytes_append(line, &b, 1)) {
            fail("out of memory for a line of %zu bytes", line->n);
            return false;
        }
        if (is_first && line->n == 2 && is_utf16(line))
            return read_input(line, "-");
    }
    return line->n > 0;
}

/* A line that is not UTF-8 is refused like a prompt of `quip run`. */
static bool is_text(struct bytes *line, int n_line)
{
    char where[32];
    snprintf(where, sizeof where, "line %d", n_line);
    return n_line == 1 ? to_utf8(line, where)
                       : check_utf8((const char *)line->data, line->n, where);
}

/* Answer each line of a text. False ends the conversation. */
static bool talk_by_lines(struct chat *c, const struct bytes *text)
{
    const char *line = (const char *)text->data, *end = line + text->n;
    while (line < end) {
        const char *line_end = memchr(line, '\n', (size_t)(end - line));
        const char *next = line_end ? line_end + 1 : end;
        c->n_line++;
        if (!turn(c, line, (size_t)(next - line), false))
            return false;
        line = next;
    }
    return true;
}

static void talk_through_pipe(struct chat *c)
{
    struct bytes line = { 0 };
    const bool has_prompt = is_terminal(stdin); // and the answers go to a file or a pipe
    for (bool goes_on = true; goes_on;) {
        if (has_prompt)
            fputs("> ", stderr);
        if (!read_line(&line, c->n_line == 0))
            break;
        if (is_text(&line, c->n_line + 1)) {
            goes_on = talk_by_lines(c, &line);
            continue;
        }
        c->n_line++;
        c->exit_code = EXIT_FAILED;
        goes_on = puts("") >= 0 && close_output(stdout, "-");
    }
    if (ferror(stdin))
        c->exit_code = fail("stdin: %s", strerror(errno));
    qp_bytes_close(&line);
}

/* What ends many other programs of this kind. Between """ it is a text. */
static bool is_goodbye(const struct bytes *text, bool is_quoted)
{
    return !is_quoted && text->n == 4 &&
           (memcmp(text->data, "exit", 4) == 0 || memcmp(text->data, "quit", 4) == 0);
}

static void talk_in_terminal(struct chat *c, bool saves_history)
{
    struct bytes text = { 0 };
    if (!begin_signals()) {
        c->exit_code = fail("no pipe is left for signals");
        return;
    }
    struct line_editor *editor = open_editor(saves_history);
    if (!editor) {
        c->exit_code = EXIT_FAILED;
        return;
    }
    fprintf(stderr,
            "%sCtrl-C ends an answer, Ctrl-D ends the conversation, /help lists commands%s\n",
            dim(), plain());
    bool is_quoted;
    while (edit_turn(editor, &text, &is_quoted) && !is_goodbye(&text, is_quoted) &&
           turn(c, (const char *)text.data, text.n, is_quoted) && !ending_signal())
        ;
    unquieten_terminal();
    close_editor(editor);
    qp_bytes_close(&text);
    if (ending_signal())
        c->exit_code = 128 + ending_signal(); // as shells count
}

/* A model without a template continues text: it does not know whose turn it is. */
static void note_base_model(const struct chat *c)
{
    quip_model_info info = { .struct_size = sizeof info };
    if (quip_model_get_info(c->models.model, &info, NULL) || info.has_template ||
        c->options.no_template || c->options.chat_template)
        return;
    fprintf(stderr,
            "quip: %s: is a base model: it has no chat template, so it continues a text and does "
            "not answer; use quip run, or --chat-template NAME if it was trained with one\n",
            c->files.model);
}

int run_chat(const struct command *command, char **words)
{
    struct texts stop = { 0 };
    struct chat c = { .options = UNSAID_OPTIONS, .last = { .struct_size = sizeof c.last } };
    bool no_history = false;
    quip_model_options model_options = { 0 };
    const struct option options[] = {
        SESSION_OPTIONS(&c.options, &model_options, &stop),
        ADAPTER_OPTION(&c.files.adapter),
        DRAFT_OPTION(&c.files.draft),
        { OPTION_FLAG, 0, "stats", NULL, &c.has_stats, 0, 0,
          "print times and rates after each answer" },
        { OPTION_FLAG, 0, "no-wrap", NULL, &c.no_wrap, 0, 0,
          "let the terminal cut words at the end of a line" },
        { OPTION_FLAG, 0, "no-history", NULL, &no_history, 0, 0,
          "do not save what is typed in the history" },
        { 0 },
    };
    int exit_code;
    if (parse_options(command, options, words, 1, 1, &exit_code) < 0)
        return exit_code;
    c.options.stop = stop.items;
    c.options.n_stop = stop.n;
    c.table = options;
    c.files.model = words[0];

    quip_error error = { 0 };
    const quip_session_options begun = settled(&c.options);
    if (open_models(&c.models, &c.files, &model_options, &error) ||
        open_session(&c.session, &c.models, &begun, &error)) {
        c.exit_code = fail_with(&error);
    } else {
        note_options(&begun, &c.models, NULL);
        note_base_model(&c);
        if ((c.is_terminal = is_terminal(stdin) && is_terminal(stdout)))
            talk_in_terminal(&c, !no_history);
        else
            talk_through_pipe(&c);
    }
    quip_session_close(c.session);
    close_models(&c.models);
    free_kept_texts(&c);
    return c.exit_code;
}
