/* chat_commands.c: the commands of a conversation, such as /help. */
#include "chat.h"

#include <stdlib.h>
#include <string.h>

static bool help(struct chat *c, const char *argument);

static bool clear(struct chat *c, const char *argument)
{
    (void)argument;
    quip_error error = { 0 };
    quip_session *session = NULL;
    const quip_session_options options = settled(&c->options);
    if (open_session(&session, &c->models, &options, &error)) {
        quip_session_close(session);
        c->exit_code = fail_with(&error);
        return false;
    }
    quip_session_close(c->session);
    c->session = session;
    return true;
}

static bool set(struct chat *c, const char *argument)
{
    run_set(c, argument);
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
    if (open_adapter(&changed, c->models.model, strcmp(argument, "off") ? argument : NULL,
                     &error) ||
        quip_session_set_adapter(c->session, changed.adapter, changed.scale, &error)) {
        fprintf(stderr, "%s\n", error.message);
        quip_adapter_close(changed.adapter);
        return true;
    }
    quip_adapter_close(c->models.adapter.adapter);
    c->models.adapter = changed;
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
    { "/help", NULL, "print this list (or /?)", help },
    { "/?", NULL, NULL, help },
    { "/clear", NULL, "forget the conversation and start again (or /reset)", clear },
    { "/reset", NULL, NULL, clear },
    { "/set", "[NAME [VALUE]]", "print the settings, or change one: /set temperature 0.5", set },
    { "/adapter", "PATH[:SCALE]", "continue with LoRA weights; /adapter off: without",
      change_adapter },
    { "/stats", NULL, "print statistics of the last answer and of the context", stats },
    { "/bye", NULL, "end the conversation (or /quit, exit, Ctrl-D)", leave },
    { "/quit", NULL, NULL, leave },
    { "/exit", NULL, NULL, leave },
};

static bool help(struct chat *c, const char *argument)
{
    (void)argument;
    const int indent = 27;
    for (size_t i = 0; i < QP_COUNT(slash_commands); i++) {
        const char *name = slash_commands[i].name, *takes = slash_commands[i].argument;
        if (!slash_commands[i].what)
            continue;
        fprintf(stderr, "  %s %-*s", name, indent - 3 - (int)strlen(name), takes ? takes : "");
        print_paragraph(stderr, slash_commands[i].what, indent, indent);
    }
    if (c->is_terminal)
        print_paragraphs(stderr,
                         "\n"
                         "A pasted text of several lines is one turn. To type several lines: "
                         "Alt-Enter, or a backslash before Enter, or \"\"\" before the first line "
                         "and after the last.\n"
                         "Ctrl-C ends an answer or clears the line, Ctrl-Z stops the program, "
                         "Ctrl-R searches the history.\n");
    return true;
}

/* Text of several lines, or with a second slash in its first word, such as a path, is not a
 * command. */
enum turn run_slash_command(struct chat *c, const char *line, size_t n)
{
    if (line[0] != '/' || memchr(line, '\n', n))
        return TURN_TEXT;
    const char *space = memchr(line, ' ', n);
    size_t n_word = space ? (size_t)(space - line) : n;
    for (size_t i = 0; i < QP_COUNT(slash_commands); i++) {
        if (n_word != strlen(slash_commands[i].name) ||
            memcmp(line, slash_commands[i].name, n_word) != 0)
            continue;
        while (n_word < n && line[n_word] == ' ')
            n_word++;
        while (n > n_word && line[n - 1] == ' ')
            n--;
        if (n > n_word && !slash_commands[i].argument) {
            fprintf(stderr, "%s has no argument; /help lists the commands\n",
                    slash_commands[i].name);
            return TURN_DONE;
        }
        char *argument = strndup(line + n_word, n - n_word);
        if (!argument)
            c->exit_code = fail("out of memory for a line of %zu bytes", n);
        const bool goes_on = argument && slash_commands[i].run(c, argument);
        free(argument);
        return goes_on ? TURN_DONE : TURN_END;
    }
    if (memchr(line + 1, '/', n_word - 1))
        return TURN_TEXT;
    char *word = strndup(line, n_word);
    fprintf(stderr, "unknown command %s; /help lists the commands\n",
            word ? without_controls(word) : "");
    free(word);
    return TURN_DONE;
}
