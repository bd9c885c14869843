/* line_editor.c: reads turns from a terminal, with libedit.
 * In:  keys.
 * Out: UTF-8 text of one or several lines.
 *
 * A text that is pasted, with all its lines, is inserted where the cursor is (bracketed paste).
 * Enter ends the turn, except after a backslash and inside """; Alt-Enter always begins a line. */
#include "chat.h"

#include <histedit.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CTRL_C 3
#define PASTE_END L"\033[201~"
#define END_TURN L"\033[9999~" // a key that no keyboard has

static const char paste_on[] = "\033[?2004h", paste_off[] = "\033[?2004l";

struct line_editor {
    EditLine *editor;
    struct history_file *history;
    bool is_interrupted, was_interrupted; // by Ctrl-C: in this line, in the one before
    bool is_dumb;                         // the terminal knows no escape sequences
};

static struct line_editor *client(EditLine *editor)
{
    struct line_editor *e = NULL;
    el_get(editor, EL_CLIENTDATA, &e);
    return e;
}

static void send_sequence(const struct line_editor *e, const char *sequence)
{
    if (e->is_dumb)
        return;
    fputs(sequence, stdout);
    fflush(stdout);
}

/* ---- the screen ---- */

static char *prompt(EditLine *editor)
{
    static char text[] = "> ";
    (void)editor;
    return text;
}

/* Rows of the terminal above the cursor that belong to the line. */
static int rows_above_cursor(EditLine *editor, int n_columns)
{
    const LineInfoW *line = el_wline(editor);
    int n_rows = 0, column = (int)strlen(prompt(editor));
    for (const wchar_t *p = line->buffer; p < line->cursor; p++) {
        const int width = *p == '\t' ? 8 - column % 8 : character_width((int32_t)*p);
        if (*p == '\n' || column + width > n_columns) {
            n_rows++;
            column = 0;
        }
        column += *p == '\n' ? 0 : width;
    }
    return n_rows + (column >= n_columns);
}

/* The terminal has another width, and has moved the ends of its rows to other rows. */
static void redraw(struct line_editor *e)
{
    const int n_columns = terminal_width(stdout);
    const int n_rows = n_columns > 0 ? rows_above_cursor(e->editor, n_columns) : 0;
    if (!e->is_dumb) {
        if (n_rows > 0)
            printf("\033[%dA", n_rows);
        fputs("\r\033[J", stdout);
        fflush(stdout);
    }
    el_resize(e->editor);
    el_set(e->editor, EL_REFRESH);
}

/* The program goes on after it was stopped: others have used the terminal. */
static void resume(struct line_editor *e)
{
    el_set(e->editor, EL_PREP_TERM, 0);
    el_set(e->editor, EL_PREP_TERM, 1);
    send_sequence(e, paste_on);
    el_resize(e->editor);
    el_set(e->editor, EL_REFRESH);
}

/* ---- keys ---- */

/* Wait for a byte, and do what signals ask for until then. False at the end. */
static bool read_byte(struct line_editor *e, char *byte)
{
    int signal_number;
    while ((signal_number = wait_for_key())) {
        if (ending_signal())
            return false;
        if (signal_number == SIGWINCH)
            redraw(e);
        else if (signal_number == SIGCONT)
            resume(e);
    }
    return read(STDIN_FILENO, byte, 1) == 1;
}

/* The next character; 0 at the end. Bytes that are not UTF-8 are dropped. */
static int read_character(EditLine *editor, wchar_t *character)
{
    struct line_editor *e = client(editor);
    char bytes[4];
    size_t n = 0;
    int32_t c;
    while (read_byte(e, bytes + n)) {
        n++;
        if (qp_utf8_complete(bytes, n) == 0)
            continue;
        qp_utf8_decode(bytes, n, &c);
        if (c < 0 && n > 1) { // the last byte does not belong to this character
            bytes[0] = bytes[n - 1];
            n = 1;
            if (qp_utf8_complete(bytes, n) == 0)
                continue;
            qp_utf8_decode(bytes, n, &c);
        }
        if (c >= 0) {
            *character = (wchar_t)c;
            return 1;
        }
        n = 0;
    }
    return 0;
}

/* Ctrl-C at the prompt clears the line; twice in a row it ends the conversation. */
static unsigned char interrupt(EditLine *editor, int key)
{
    (void)key;
    client(editor)->is_interrupted = true;
    return CC_EOF;
}

/* Ctrl-Z. It stops all processes that the shell started with this one, as the terminal would. */
static unsigned char suspend(EditLine *editor, int key)
{
    struct line_editor *e = client(editor);
    (void)key;
    send_sequence(e, paste_off);
    send_sequence(e, "\033[J");
    fputs("\n", stdout);
    fflush(stdout);
    el_set(editor, EL_PREP_TERM, 0);
    kill(0, SIGTSTP);
    resume(e);
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

static void bind_keys(EditLine *editor)
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
        { "\\e[9999~", "ed-newline" }, // END_TURN
        { "^R", "em-inc-search-prev" },
    };
    for (size_t i = 0; i < QP_COUNT(functions); i++)
        el_set(editor, EL_ADDFN, functions[i].name, functions[i].what, functions[i].run);
    for (size_t i = 0; i < QP_COUNT(keys); i++)
        el_set(editor, EL_BIND, keys[i].key, keys[i].function, NULL);
}

/* ---- turns ---- */

/* libedit complains about a terminal that terminfo does not know, such as a new one on an old
 * machine, and then knows no keys. Nearly all of them understand what xterm does. */
static EditLine *start_editor(bool is_dumb)
{
    FILE *null = fopen("/dev/null", "w");
    EditLine *editor = el_init("quip", stdin, stdout, null ? null : stderr);
    char *up = NULL;
    if (editor && !is_dumb && (el_get(editor, EL_GETTC, "up", &up, NULL) || !up))
        el_set(editor, EL_TERMINAL, "xterm");
    if (editor)
        el_set(editor, EL_SETFP, 2, stderr);
    if (null)
        fclose(null);
    return editor;
}

struct line_editor *open_editor(bool saves_history)
{
    const char *term = getenv("TERM");
    struct line_editor *e = calloc(1, sizeof *e);
    if (e) {
        e->history = open_history(saves_history);
        e->is_dumb = !term || strcmp(term, "dumb") == 0;
        e->editor = start_editor(e->is_dumb);
    }
    if (!e || !e->history || !e->editor) {
        fail("the line editor could not start in this terminal");
        close_editor(e);
        return NULL;
    }
    el_set(e->editor, EL_CLIENTDATA, e);
    el_set(e->editor, EL_PROMPT, prompt);
    el_set(e->editor, EL_EDITOR, "emacs");
    el_set(e->editor, EL_HIST, history, history_turns(e->history));
    el_set(e->editor, EL_SETTY, "-d", "-isig", "-icrnl", "-inlcr",
           NULL); // Ctrl-C, CR and LF are keys
    el_wset(e->editor, EL_GETCFN, read_character);
    bind_keys(e->editor);
    return e;
}

void close_editor(struct line_editor *e)
{
    if (!e)
        return;
    if (e->editor)
        el_end(e->editor);
    close_history(e->history);
    free(e);
}

static bool append_line(struct bytes *turn, const wchar_t *line, int n)
{
    char utf8[4];
    for (int i = 0; i < n; i++)
        if (!qp_bytes_append(turn, utf8, (size_t)qp_utf8_encode((int32_t)line[i], utf8)))
            return false;
    return true;
}

/* Read until Enter ends a turn. False at the end, and then also after Ctrl-C. */
static bool edit_line(struct line_editor *e, struct bytes *turn)
{
    int n = 0;
    turn->n = 0;
    e->is_interrupted = false;
    forget_signals();
    leave_quiet();
    send_sequence(e, paste_on);
    const wchar_t *line = el_wgets(e->editor, &n);
    const bool has_line = line && n > 0 && append_line(turn, line, n - 1); // without the Enter
    send_sequence(e, paste_off);
    return has_line && !e->is_interrupted && !ending_signal();
}

bool edit_turn(struct line_editor *e, struct bytes *turn, bool *is_quoted)
{
    *is_quoted = false;
    while (!edit_line(e, turn)) {
        const bool is_end = !e->is_interrupted || e->was_interrupted || ending_signal();
        fputs(is_end ? "\n" : "\n(press Ctrl-C again, or Ctrl-D, to exit)\n", stderr);
        if (is_end)
            return false;
        e->was_interrupted = true;
        el_reset(e->editor);
    }
    e->was_interrupted = false;
    if (turn->n == 0)
        return true;
    if (!qp_bytes_append(turn, "", 1)) {
        fail("out of memory for a turn of %zu bytes", turn->n);
        return false;
    }
    remember_turn(e->history, (char *)turn->data);
    turn->n--;
    *is_quoted = turn->n >= 6 && memcmp(turn->data, "\"\"\"", 3) == 0 &&
                 memcmp(turn->data + turn->n - 3, "\"\"\"", 3) == 0;
    if (*is_quoted) {
        turn->n -= 6;
        memmove(turn->data, turn->data + 3, turn->n);
    }
    return true;
}
