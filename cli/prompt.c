/* prompt.c: the prompt of `quip run`.
 * In:  the word of the command line, and standard input.
 * Out: UTF-8: the document on standard input, an empty line, the word. Text that is not UTF-8 is
 *      converted (UTF-16 with a mark) or refused: never answered as replacement characters. */
#include "cli.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* How long the first byte of a pipe may take when the command line has a prompt: a program that
 * starts this one may leave a pipe on standard input open and never write to it. */
#define PIPE_WAIT_MS 2000

/* Is there a document on standard input? */
static bool has_document(void)
{
    struct stat s;
    struct pollfd in = { .fd = STDIN_FILENO, .events = POLLIN };
    if (fstat(STDIN_FILENO, &s))
        return false;
    if (S_ISREG(s.st_mode))
        return true;
    if (!S_ISFIFO(s.st_mode) && !S_ISSOCK(s.st_mode))
        return false; // a terminal, /dev/null
    int n;
    while ((n = poll(&in, 1, PIPE_WAIT_MS)) < 0 && errno == EINTR && !was_interrupted())
        ;
    if (n == 0)
        fprintf(stderr,
                "quip: nothing came from the pipe on standard input within %d seconds; it answers "
                "the prompt alone. The prompt \"-\" waits for the pipe\n",
                PIPE_WAIT_MS / 1000);
    return n > 0;
}

/* ---- encodings ---- */

static bool append_character(struct bytes *to, uint32_t c)
{
    char text[4];
    return qp_bytes_append(to, text, (size_t)qp_utf8_encode((int32_t)c, text));
}

/* UTF-16 after its mark, low byte first or last, as UTF-8. */
static bool convert_utf16(struct bytes *text, bool is_big, const char *where)
{
    struct bytes out = { 0 };
    bool is_fine = true;
    uint32_t high = 0; // the first half of a pair
    for (size_t i = 2; i + 1 < text->n && is_fine; i += 2) {
        const uint32_t u = is_big ? (uint32_t)text->data[i] << 8 | text->data[i + 1]
                                  : (uint32_t)text->data[i + 1] << 8 | text->data[i];
        const bool is_low = u >= 0xdc00 && u < 0xe000;
        if (is_low != (high != 0))
            break;
        if (u >= 0xd800 && u < 0xdc00) {
            high = u;
            continue;
        }
        is_fine =
            append_character(&out, is_low ? 0x10000 + ((high - 0xd800) << 10) + (u - 0xdc00) : u);
        high = 0;
        if (i + 3 >= text->n && text->n % 2 == 0) { // all of it
            qp_bytes_close(text);
            *text = out;
            return true;
        }
    }
    const bool is_empty = text->n == 2;
    qp_bytes_close(&out);
    if (is_empty)
        text->n = 0;
    else if (is_fine)
        fail("%s begins like UTF-16, but is not; save it as UTF-8", where);
    else
        fail("%s: out of memory", where);
    return is_empty;
}

/* Check that the text is UTF-8 without a NUL. */
static bool check_utf8(const struct bytes *text, const char *where)
{
    for (size_t i = 0; i < text->n;) {
        int32_t c;
        const int n = qp_utf8_decode((const char *)text->data + i, text->n - i, &c);
        if (c <= 0) {
            fail(c ? "%s is not UTF-8: byte %zu is 0x%02x; convert it, for example with iconv -f "
                     "latin1 -t utf-8"
                   : "%s is not a text: byte %zu is 0x%02x",
                 where, i, text->data[i]);
            return false;
        }
        i += (size_t)n;
    }
    return true;
}

bool to_utf8(struct bytes *text, const char *where)
{
    const uint8_t *b = text->data;
    if (text->n >= 2 && ((b[0] == 0xff && b[1] == 0xfe) || (b[0] == 0xfe && b[1] == 0xff)))
        return convert_utf16(text, b[0] == 0xfe, where);
    if (text->n >= 3 && memcmp(b, "\xef\xbb\xbf", 3) == 0) {
        memmove(text->data, b + 3, text->n - 3);
        text->n -= 3;
    }
    return check_utf8(text, where);
}

/* ---- the prompt ---- */

/* A line end at the end of a piped text is the shell's, not the user's. */
static void cut_line_end(struct bytes *text)
{
    if (text->n > 0 && text->data[text->n - 1] == '\n')
        text->n -= 1 + (text->n > 1 && text->data[text->n - 2] == '\r');
}

bool read_prompt(struct bytes *to, const char *word, bool is_raw)
{
    const bool is_dash = strcmp(word, "-") == 0;
    if ((is_dash || has_document()) && !(read_input(to, "-") && to_utf8(to, "standard input")))
        return false;
    if (!is_raw)
        cut_line_end(to);
    if (is_dash)
        return true;
    const struct bytes prompt = { .data = (uint8_t *)word, .n = strlen(word) };
    if (!check_utf8(&prompt, "the prompt"))
        return false;
    if ((to->n > 0 && !is_raw && !qp_bytes_append_text(to, "\n\n")) ||
        !qp_bytes_append_text(to, word)) {
        fail("out of memory for the prompt");
        return false;
    }
    return true;
}
