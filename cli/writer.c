/* writer.c: writes an answer while it is generated.
 * In:  whole characters, in pieces of any length.
 * Out: the same bytes if they go to a file or a pipe. On a terminal a control character is shown as
 *      "?", because it could change the terminal; and if words wrap, a word that does not fit into
 *      the line begins the next one. Code between lines of ``` is not wrapped, so that it can be
 *      copied.
 *
 * Characters are written at once, but a word that begins near the end of a line is held back until
 * it ends or is too long. So nothing has to be erased, and a wrong idea of a character's width,
 * such as that of a new emoji, makes a line too short or too long, no worse. */
#define _GNU_SOURCE // wcwidth
#include "cli.h"

#include <string.h>
#include <wchar.h>

#define HELD_COLUMNS 24 // a longer word may be cut at the end of the line
#define MIN_COLUMNS 16  // narrower terminals are left alone
#define TAB 8
#define EMOJI_STYLE 0xfe0f // the character before it is shown as an emoji, two columns wide

int character_width(int32_t c)
{
    const int width = wcwidth((wchar_t)c);
    return width < 0 ? 1 : width;
}

void begin_writer(struct writer *w, FILE *to, bool wraps)
{
    *w = (struct writer){ .to = to, .is_terminal = is_terminal(to), .wraps = wraps, .last = -1 };
    w->wraps = wraps && w->is_terminal;
}

/* ---- one line ---- */

/* Write a character; the terminal itself begins a new line if it does not fit. */
static bool put(struct writer *w, const char *text, size_t n, int width)
{
    w->column = w->column + width > w->n_columns && width > 0 ? width : w->column + width;
    return fwrite(text, 1, n, w->to) == n;
}

static bool put_held(struct writer *w)
{
    const size_t n = w->n_held;
    w->column += w->held_width;
    w->n_held = 0;
    w->held_width = 0;
    return fwrite(w->held, 1, n, w->to) == n;
}

static bool end_line(struct writer *w)
{
    w->column = 0;
    return putc('\n', w->to) != EOF;
}

/* Follow the lines of ``` around code: they begin a line, after at most spaces. */
static void look_for_fence(struct writer *w, int32_t c)
{
    if (c == '\n')
        w->n_ticks = 0;
    else if (c == '`' && w->n_ticks >= 0) {
        if (++w->n_ticks == 3) {
            w->is_code = !w->is_code;
            w->n_ticks = -1;
        }
    } else if (c != ' ' || w->n_ticks > 0) {
        w->n_ticks = -1;
    }
}

/* ---- words ---- */

static bool put_space(struct writer *w, const char *text, size_t n, int width)
{
    w->is_in_word = false;
    if (!put_held(w))
        return false;
    if (w->column + width > w->n_columns) { // the end of the line separates the words
        w->column = w->n_columns;
        return true;
    }
    return put(w, text, n, width);
}

/* A line may break before a wide character. */
static bool put_wide(struct writer *w, const char *text, size_t n, int width)
{
    w->is_in_word = false;
    if (!put_held(w) || (w->column + width > w->n_columns && !end_line(w)))
        return false;
    return put(w, text, n, width);
}

static bool put_in_word(struct writer *w, const char *text, size_t n, int width)
{
    if (!w->is_in_word && w->n_held == 0) {
        if (width == 0) // belongs to the wide character or the space before it
            return put(w, text, n, 0);
        if (w->column >= w->n_columns && !end_line(w))
            return false;
        w->is_in_word = w->column == 0 || w->n_columns - w->column >= w->held_columns;
    }
    if (w->is_in_word)
        return put(w, text, n, width);
    const bool is_too_long = w->column + w->held_width + width > w->n_columns;
    if (is_too_long || w->n_held + n > sizeof w->held) {
        w->is_in_word = true;
        return (!is_too_long || end_line(w)) && put_held(w) && put(w, text, n, width);
    }
    memcpy(w->held + w->n_held, text, n);
    w->n_held += n;
    w->held_width += width;
    return true;
}

static bool put_wrapped(struct writer *w, const char *text, size_t n, int32_t c)
{
    int width = c == '\t' ? TAB - w->column % TAB : character_width(c);
    if (c == EMOJI_STYLE && w->last_width == 1)
        width = 1;
    w->last_width = width;
    look_for_fence(w, c);
    if (c == '\n') {
        w->is_in_word = false;
        return put_held(w) && end_line(w);
    }
    if (w->is_code)
        return put_held(w) && put(w, text, n, width);
    if (c == ' ' || c == '\t')
        return put_space(w, text, n, width);
    return width == 2 ? put_wide(w, text, n, width) : put_in_word(w, text, n, width);
}

/* ---- pieces ---- */

static bool put_on_terminal(struct writer *w, const char *text, size_t n)
{
    bool is_fine = true;
    w->n_columns = terminal_width(w->to);
    w->held_columns = qp_min(HELD_COLUMNS, w->n_columns / 2);
    for (size_t i = 0; i < n && is_fine;) {
        int32_t c;
        const char *character = text + i;
        size_t n_bytes = (size_t)qp_utf8_decode(character, n - i, &c);
        i += n_bytes;
        if (c == '\r')
            continue;
        if ((c < ' ' && c != '\n' && c != '\t') || (c >= 0x7f && c < 0xa0)) {
            c = '?';
            character = "?";
            n_bytes = 1;
        }
        is_fine = w->wraps && w->n_columns >= MIN_COLUMNS
                      ? put_wrapped(w, character, n_bytes, c)
                      : put_held(w) && fwrite(character, 1, n_bytes, w->to) == n_bytes;
    }
    return is_fine;
}

bool write_piece(struct writer *w, const char *text, size_t n)
{
    w->last = (uint8_t)text[n - 1];
    return (w->is_terminal ? put_on_terminal(w, text, n) : fwrite(text, 1, n, w->to) == n) &&
           fflush(w->to) == 0;
}

void end_writer(struct writer *w)
{
    put_held(w);
    if (w->last >= 0 && w->last != '\n')
        putc('\n', w->to);
}
