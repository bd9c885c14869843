/* chat.c: a conversation. In a terminal, the line editor keeps a history in the cache folder. If
 * stdin is a pipe, each line is a turn. */
#include "cli.h"

#include <histedit.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct chat {
    quip_model *model;
    quip_session *session;
    quip_session_options options;
    struct chosen_adapter adapter;
    bool has_stats;   // after every answer
    bool is_terminal; // Ctrl-C is a key of the line editor and does not end the program
    quip_result last;
    int exit_code;
};

/* ---- answers ---- */

static bool show_piece(void *user, const char *text, size_t n)
{
    char *last = user;
    *last = text[n - 1];
    return fwrite(text, 1, n, stdout) == n && fflush(stdout) == 0 && !was_interrupted();
}

/* Answer one turn. False if the conversation cannot continue. */
static bool answer(struct chat *c, const char *text, size_t n)
{
    quip_error error = { 0 };
    char last = 0;
    catch_interrupt(c->session);
    quip_status status =
        quip_session_generate(c->session, text, n, show_piece, &last, &c->last, &error);
    (c->is_terminal ? ignore_interrupt : release_interrupt)();
    if (last && last != '\n')
        putchar('\n');
    if (!close_output(stdout, "-")) {
        c->exit_code = EXIT_FAILED;
        return false;
    }
    if (status == QUIP_E_CONTEXT_FULL)
        fprintf(stderr, "%s; /reset starts again, --context N makes the context larger\n",
                error.message);
    else if (status && status != QUIP_E_CANCELLED)
        c->exit_code = fail_with(&error);
    else if (!status && c->last.finish_reason == QUIP_FINISH_CONTEXT)
        fprintf(stderr, "the context of %d tokens is full; /reset starts again\n",
                quip_session_n_context(c->session));
    if (!status && c->has_stats)
        print_stats(&c->last);
    return !c->exit_code;
}

/* ---- slash commands ---- */

static bool help(struct chat *c, const char *argument);

static bool reset(struct chat *c, const char *argument)
{
    (void)argument;
    quip_error error = { 0 };
    quip_session *session = NULL;
    if (open_session(&session, c->model, &c->options, &c->adapter, &error)) {
        quip_session_close(session);
        c->exit_code = fail_with(&error);
        return false;
    }
    quip_session_close(c->session);
    c->session = session;
    return true;
}

/* Change the adapter; the text so far runs again with it. If it cannot be opened, the current one
 * stays. */
static bool change_adapter(struct chat *c, const char *argument)
{
    quip_error error = { 0 };
    struct chosen_adapter changed;
    if (!*argument) {
        fputs("expected /adapter PATH, /adapter PATH:SCALE or /adapter off\n", stderr);
        return true;
    }
    if (open_adapter(&changed, c->model, strcmp(argument, "off") ? argument : NULL, &error) ||
        quip_session_set_adapter(c->session, changed.adapter, changed.scale, &error)) {
        fprintf(stderr, "%s\n", error.message);
        quip_adapter_close(changed.adapter);
        return true;
    }
    quip_adapter_close(c->adapter.adapter);
    c->adapter = changed;
    return true;
}

static bool stats(struct chat *c, const char *argument)
{
    (void)argument;
    print_stats(&c->last);
    fprintf(stderr, "%scontext: %d of %d tokens%s\n", dim(), quip_session_position(c->session),
            quip_session_n_context(c->session), plain());
    return true;
}

static bool leave(struct chat *c, const char *argument)
{
    (void)c, (void)argument;
    return false;
}

static const struct {
    const char *name, *argument, *what;                // argument NULL: there is none
    bool (*run)(struct chat *c, const char *argument); // false ends the conversation
} slash_commands[] = {
    { "/help", NULL, "print this list", help },
    { "/reset", NULL, "forget the conversation and start again", reset },
    { "/adapter", "PATH[:SCALE]", "continue with LoRA weights; /adapter off: without",
      change_adapter },
    { "/stats", NULL, "print statistics of the last answer and of the context", stats },
    { "/exit", NULL, "end the conversation (or Ctrl-D)", leave },
};

static bool help(struct chat *c, const char *argument)
{
    (void)c, (void)argument;
    for (size_t i = 0; i < QP_COUNT(slash_commands); i++) {
        const char *takes = slash_commands[i].argument ? slash_commands[i].argument : "";
        fprintf(stderr, "  %s %-*s %s\n", slash_commands[i].name,
                (int)(21 - strlen(slash_commands[i].name)), takes, slash_commands[i].what);
    }
    return true;
}

/* Run the command that the line names, if there is one; the rest of the line is its argument. */
static bool run_slash_command(struct chat *c, const char *line, size_t n, size_t n_word,
                              bool *goes_on)
{
    for (size_t i = 0; i < QP_COUNT(slash_commands); i++) {
        if (n_word != strlen(slash_commands[i].name) ||
            memcmp(line, slash_commands[i].name, n_word) != 0 ||
            (n > n_word && !slash_commands[i].argument))
            continue;
        while (n_word < n && line[n_word] == ' ')
            n_word++;
        while (n > n_word && line[n - 1] == ' ')
            n--;
        char *argument = strndup(line + n_word, n - n_word);
        if (!argument)
            c->exit_code = fail("out of memory for a line of %zu bytes", n);
        *goes_on = argument && slash_commands[i].run(c, argument);
        free(argument);
        return true;
    }
    return false;
}

/* Handle one line of the user. False ends the conversation. */
static bool turn(struct chat *c, const char *line, size_t n)
{
    while (n && strchr("\r\n", line[n - 1]))
        n--;
    if (!n)
        return true;
    const size_t n_space = strcspn(line, " \r\n"), n_word = n_space < n ? n_space : n;
    bool goes_on;
    if (line[0] == '/' && run_slash_command(c, line, n, n_word, &goes_on))
        return goes_on;
    if (line[0] == '/' && !memchr(line + 1, '/', n_word - 1)) {
        fprintf(stderr, "unknown command %.*s; /help lists the commands\n", (int)n_word, line);
        return true;
    }
    return answer(c, line, n);
}

/* ---- input ---- */

static void talk_through_pipe(struct chat *c)
{
    char *line = NULL;
    size_t capacity = 0;
    ssize_t n;
    while ((n = getline(&line, &capacity, stdin)) >= 0 && turn(c, line, (size_t)n))
        ;
    free(line);
}

static char *prompt(EditLine *editor)
{
    static char text[] = "> ";
    (void)editor;
    return text;
}

/* Ctrl-C at the prompt clears the line; twice in a row it ends the conversation. */
static unsigned char interrupt(EditLine *editor, int key)
{
    bool *is_interrupted;
    (void)key;
    el_get(editor, EL_CLIENTDATA, &is_interrupted);
    *is_interrupted = true;
    return CC_EOF;
}

static void talk_in_terminal(struct chat *c)
{
    HistEvent event;
    bool is_interrupted = false, was_at_prompt = false;
    char *path = cache_path("history");
    History *past = history_init();
    EditLine *editor = el_init("quip", stdin, stdout, stderr);
    if (!past || !editor) {
        c->exit_code = fail("the line editor could not start in this terminal");
        goto done;
    }
    history(past, &event, H_SETSIZE, 1000);
    history(past, &event, H_SETUNIQUE, 1);
    if (path)
        history(past, &event, H_LOAD, path);
    el_set(editor, EL_CLIENTDATA, &is_interrupted);
    el_set(editor, EL_PROMPT, prompt);
    el_set(editor, EL_EDITOR, "emacs");
    el_set(editor, EL_HIST, history, past);
    el_set(editor, EL_SETTY, "-d", "-isig", NULL); // Ctrl-C is a key while a line is edited
    el_set(editor, EL_ADDFN, "quip-interrupt", "clear the line", interrupt);
    el_set(editor, EL_BIND, "^C", "quip-interrupt", NULL);
    el_set(editor, EL_BIND, "^R", "em-inc-search-prev", NULL);

    ignore_interrupt(); // between two lines the editor does not control the terminal
    fprintf(stderr,
            "%sCtrl-C ends an answer, Ctrl-D ends the conversation, /help lists commands%s\n",
            dim(), plain());
    for (;;) {
        int n = 0;
        is_interrupted = false;
        const char *line = el_gets(editor, &n);
        if (is_interrupted) {
            fputs(was_at_prompt ? "\n" : "\n(press Ctrl-C again, or Ctrl-D, to exit)\n", stderr);
            if (was_at_prompt)
                break;
            was_at_prompt = true;
            el_reset(editor);
            continue;
        }
        was_at_prompt = false;
        if (!line || n <= 0) {
            fputc('\n', stderr);
            break;
        }
        if (*line != '\n')
            history(past, &event, H_ENTER, line);
        if (!turn(c, line, (size_t)n))
            break;
    }
    if (path)
        history(past, &event, H_SAVE, path);
done:
    if (editor)
        el_end(editor);
    if (past)
        history_end(past);
    free(path);
}

int run_chat(const struct command *command, char **words)
{
    struct texts stop = { 0 };
    struct chat c = { .last = { .struct_size = sizeof c.last } };
    const char *adapter = NULL;
    quip_model_options model_options = { 0 };
    const struct option options[] = {
        SESSION_OPTIONS(&c.options, &model_options, &stop),
        ADAPTER_OPTION(&adapter),
        { OPTION_FLAG, 0, "stats", NULL, &c.has_stats, 0, 0,
          "print times and rates after each answer" },
        { 0 },
    };
    int exit_code;
    if (parse_options(command, options, words, 1, 1, &exit_code) < 0)
        return exit_code;
    c.options.stop = stop.items;
    c.options.n_stop = stop.n;
    note_sampling(&c.options);

    quip_error error = { 0 };
    if (quip_model_open(&c.model, words[0], &model_options, &error) ||
        open_adapter(&c.adapter, c.model, adapter, &error) ||
        open_session(&c.session, c.model, &c.options, &c.adapter, &error))
        c.exit_code = fail_with(&error);
    else if ((c.is_terminal = is_terminal(stdin) && is_terminal(stdout)))
        talk_in_terminal(&c);
    else
        talk_through_pipe(&c);
    quip_session_close(c.session);
    quip_adapter_close(c.adapter.adapter);
    quip_model_close(c.model);
    return c.exit_code;
}
