/* chat.h: what the parts of `quip chat` share: the conversation (chat.c), its commands
 * (chat_commands.c), its settings (settings.c), the line editor and its history. */
#ifndef CHAT_H
#define CHAT_H

#include "cli.h"

struct kept_text { // of /set: options point to texts
    struct kept_text *next;
    char text[];
};

struct chat {
    struct model_words files;
    struct models models;
    quip_session *session;
    quip_session_options options; // as they were said; settled() makes those of the session
    const struct option *table;   // the options of the command line, for /set
    struct kept_text *kept;
    bool has_stats;   // after every answer
    bool no_wrap;     // words of an answer may be cut at the end of a line
    bool is_terminal; // Ctrl-C is a key of the line editor and does not end the program
    int n_line;       // of the input, when it does not come from a terminal
    quip_result last;
    int exit_code;
};

/* ---- commands (chat_commands.c) ---- */

enum turn {
    TURN_TEXT, // not a command
    TURN_DONE,
    TURN_END, // of the conversation
};

/* Run the command that a line is, if it is one. */
enum turn run_slash_command(struct chat *c, const char *line, size_t n);

/* ---- settings (settings.c) ---- */

/* Print all settings, or the one that the text names; "NAME VALUE" changes it. */
void run_set(struct chat *c, const char *text);
void free_kept_texts(struct chat *c);

/* ---- what was typed (history.c) ---- */

struct history_file;

/* Read the history. `is_saved`: what is typed is appended to its file. NULL: out of memory. */
struct history_file *open_history(bool is_saved);
void close_history(struct history_file *h);
void *history_turns(struct history_file *h); // History of libedit
void remember_turn(struct history_file *h, const char *turn);

/* ---- the line editor (line_editor.c) ---- */

struct line_editor;

/* NULL after a message. */
struct line_editor *open_editor(bool saves_history);
void close_editor(struct line_editor *e);
/* Read one turn, which may have several lines. `is_quoted`: it was between """ and is not a
 * command. False at the end: Ctrl-D, a second Ctrl-C, or a signal. */
bool edit_turn(struct line_editor *e, struct bytes *turn, bool *is_quoted);

#endif
