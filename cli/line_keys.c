/* line_keys.c: keys of the line editor that libedit does not have.
 * In:  the turn that is edited, with the cursor.
 * Out: the changed turn.
 *
 * A text that is pasted, with all its lines, is inserted where the cursor is (bracketed paste).
 * Enter ends the turn, except after a backslash and inside """; Alt-Enter always begins a line. */
#include "line_editor.h"

#include <signal.h>

#define CTRL_C 3
#define PASTE_END L"\033[201~"
#define END_TURN L"\033[9999~" // keys that no keyboard has
#define EARLIER_TURN L"\033[9998~"
#define LATER_TURN L"\033[9997~"

/* Ctrl-C at the prompt clears the line; twice in a row it ends the conversation. */
static unsigned char interrupt(EditLine *editor, int key)
{
    (void)key;
    editor_of(editor)->is_interrupted = true;
    return CC_EOF;
}

/* Ctrl-Z. It stops all processes that the shell started with this one, as the terminal would. */
static unsigned char suspend(EditLine *editor, int key)
{
    struct line_editor *e = editor_of(editor);
    (void)key;
    send_sequence(e, PASTE_OFF);
    send_sequence(e, "\033[J");
    fputs("\n", stdout);
    fflush(stdout);
    el_set(editor, EL_PREP_TERM, 0);
    kill(0, SIGTSTP);
    resume_editor(e);
    forget_signals();
    return CC_NORM;
}

static unsigned char begin_line(EditLine *editor, int key)
{
    (void)key;
    el_winsertstr(editor, L"\n");
    return CC_REFRESH;
}

static bool has_quotes(const wchar_t *p)
{
    return p[0] == '"' && p[1] == '"' && p[2] == '"';
}

/* Enter. */
static unsigned char end_line(EditLine *editor, int key)
{
    const LineInfoW *line = el_wline(editor);
    const ptrdiff_t n = line->lastchar - line->buffer;
    const bool is_quoted = n >= 3 && has_quotes(line->buffer);
    if (is_quoted && (n < 6 || !has_quotes(line->lastchar - 3)))
        return begin_line(editor, key);
    if (!is_quoted && n > 0 && line->lastchar[-1] == '\\') {
        el_cursor(editor, (int)(line->lastchar - line->cursor));
        el_deletestr(editor, 1);
        return begin_line(editor, key);
    }
    el_wpush(editor, END_TURN);
    return CC_NORM;
}

/* Characters between the beginning of its line and p. */
static int column_of(const LineInfoW *line, const wchar_t *p)
{
    const wchar_t *begin = p;
    while (begin > line->buffer && begin[-1] != '\n')
        begin--;
    return (int)(p - begin);
}

/* The arrows move between the lines of the turn, and beyond them to other turns. */
static unsigned char move_up(EditLine *editor, int key)
{
    const LineInfoW *line = el_wline(editor);
    const int column = column_of(line, line->cursor);
    (void)key;
    if (line->cursor - column == line->buffer) {
        el_wpush(editor, EARLIER_TURN);
        return CC_NORM;
    }
    const int n_above = column_of(line, line->cursor - column - 1); // length of the line above
    el_cursor(editor, qp_min(column, n_above) - n_above - column - 1);
    return CC_CURSOR;
}

static unsigned char move_down(EditLine *editor, int key)
{
    const LineInfoW *line = el_wline(editor);
    const wchar_t *end = line->cursor;
    (void)key;
    while (end < line->lastchar && *end != '\n')
        end++;
    if (end == line->lastchar) {
        el_wpush(editor, LATER_TURN);
        return CC_NORM;
    }
    int n_below = 0; // length of the line below
    while (end + 1 + n_below < line->lastchar && end[1 + n_below] != '\n')
        n_below++;
    const int column = column_of(line, line->cursor);
    el_cursor(editor, (int)(end - line->cursor) + 1 + qp_min(column, n_below));
    return CC_CURSOR;
}

/* Read up to the sequence that ends a paste. False if the keys end, or at Ctrl-C. */
static bool read_paste(EditLine *editor, struct bytes *text)
{
    const size_t n_end = wcslen(PASTE_END);
    for (;;) {
        wchar_t c;
        if (el_wgetc(editor, &c) != 1 || c == CTRL_C || !qp_bytes_append(text, &c, sizeof c))
            return false;
        const size_t n = text->n / sizeof c;
        if (n >= n_end &&
            wmemcmp((wchar_t *)(void *)text->data + n - n_end, PASTE_END, n_end) == 0) {
            text->n -= n_end * sizeof c;
            return true;
        }
    }
}

/* Terminals send the lines of a paste with CR, LF or both. */
static unsigned char paste(EditLine *editor, int key)
{
    struct bytes text = { 0 };
    (void)key;
    const wchar_t zero = 0;
    if (!read_paste(editor, &text) || !qp_bytes_append(&text, &zero, sizeof zero)) {
        qp_bytes_close(&text);
        return ending_signal() ? CC_EOF : CC_ERROR;
    }
    wchar_t *begin = (wchar_t *)(void *)text.data, *to = begin, last = 0;
    const wchar_t *end = begin + text.n / sizeof *begin - 1;
    for (const wchar_t *from = begin; from < end; from++) {
        const wchar_t c = *from;
        if (c && !(c == '\n' && last == '\r'))
            *to++ = c == '\r' ? '\n' : c;
        last = c;
    }
    *to = 0;
    el_winsertstr(editor, begin);
    qp_bytes_close(&text);
    return CC_REFRESH;
}

void bind_keys(EditLine *editor)
{
    static const struct {
        const char *name, *what;
        unsigned char (*run)(EditLine *editor, int key);
    } functions[] = {
        { "quip-interrupt", "clear the line", interrupt },
        { "quip-suspend", "stop the program", suspend },
        { "quip-end", "end the turn", end_line },
        { "quip-begin-line", "begin a line", begin_line },
        { "quip-paste", "insert a pasted text", paste },
        { "quip-up", "go to the line above", move_up },
        { "quip-down", "go to the line below", move_down },
    };
    static const struct {
        const char *key, *function;
    } keys[] = {
        { "^C", "quip-interrupt" },
        { "^Z", "quip-suspend" },
        { "^M", "quip-end" },
        { "^J", "quip-end" },
        { "\\e^M", "quip-begin-line" },        // Alt-Enter
        { "\\e^J", "quip-begin-line" },        // the same, of other terminals
        { "\\e[13;2u", "quip-begin-line" },    // Shift-Enter, where the terminal tells
        { "\\e[27;2;13~", "quip-begin-line" }, // the same
        { "\\e[200~", "quip-paste" },
        { "\\e[A", "quip-up" },
        { "\\eOA", "quip-up" },
        { "\\e[B", "quip-down" },
        { "\\eOB", "quip-down" },
        { "\\e[9998~", "ed-prev-history" }, // EARLIER_TURN
        { "\\e[9997~", "ed-next-history" }, // LATER_TURN
        { "\\e[9999~", "ed-newline" },      // END_TURN
        { "^R", "em-inc-search-prev" },
    };
    for (size_t i = 0; i < QP_COUNT(functions); i++)
        el_set(editor, EL_ADDFN, functions[i].name, functions[i].what, functions[i].run);
    for (size_t i = 0; i < QP_COUNT(keys); i++)
        el_set(editor, EL_BIND, keys[i].key, keys[i].function, NULL);
}
