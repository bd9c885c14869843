/* line_editor.c: reads turns from a terminal, with libedit.
 * In:  keys.
 * Out: UTF-8 text of one or several lines.
 *
 * line_keys.c has what single keys do. */
#include "line_editor.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct line_editor *editor_of(EditLine *editor)
{
    struct line_editor *e = NULL;
    el_get(editor, EL_CLIENTDATA, &e);
    return e;
}

void send_sequence(const struct line_editor *e, const char *sequence)
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

void resume_editor(struct line_editor *e)
{
    el_set(e->editor, EL_PREP_TERM, 0);
    el_set(e->editor, EL_PREP_TERM, 1);
    send_sequence(e, PASTE_ON);
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
            resume_editor(e);
    }
    return read(STDIN_FILENO, byte, 1) == 1;
}

/* The next character; 0 at the end. Bytes that are not UTF-8 are dropped. */
static int read_character(EditLine *editor, wchar_t *character)
{
    struct line_editor *e = editor_of(editor);
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
    send_sequence(e, PASTE_ON);
    const wchar_t *line = el_wgets(e->editor, &n);
    const bool has_line = line && n > 0 && append_line(turn, line, n - 1); // without the Enter
    send_sequence(e, PASTE_OFF);
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
