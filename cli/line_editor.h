/* line_editor.h: what the two files of the line editor share. */
#ifndef LINE_EDITOR_H
#define LINE_EDITOR_H

#include "chat.h"

#include <histedit.h>

#define PASTE_ON "\033[?2004h" // from now on the terminal marks what is pasted
#define PASTE_OFF "\033[?2004l"

struct line_editor {
    EditLine *editor;
    struct history_file *history;
    bool is_interrupted, was_interrupted; // by Ctrl-C: in this line, in the one before
    bool is_dumb;                         // the terminal knows no escape sequences
};

struct line_editor *editor_of(EditLine *editor);
/* Bind the keys of line_keys.c. */
void bind_keys(EditLine *editor);
/* Print a sequence, if the terminal knows any. */
void send_sequence(const struct line_editor *e, const char *sequence);
/* The program goes on after it was stopped: others have used the terminal. */
void resume_editor(struct line_editor *e);

#endif
