/* prompt.c: the prompt of `quip run`.
 * In:  the word of the command line, and standard input.
 * Out: UTF-8: the document on standard input, an empty line, the word. */
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
    if (S_ISREG(s.st_mode)) {
        const off_t begin = lseek(STDIN_FILENO, 0, SEEK_CUR);
        if (begin > 0 && begin < s.st_size) // such as `while read line; do quip run …; done < file`
            fprintf(stderr,
                    "quip: the rest of standard input, from byte %lld on, comes before the prompt; "
                    "</dev/null leaves it alone\n",
                    (long long)begin);
        return true;
    }
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

bool read_prompt(struct bytes *to, const char *word, bool is_raw)
{
    const bool is_dash = strcmp(word, "-") == 0;
    if (is_dash && is_terminal(stdin))
        fputs("quip: type the prompt; Ctrl-D at the beginning of a line ends it\n", stderr);
    if ((is_dash || has_document()) && !(read_input(to, "-") && to_utf8(to, "standard input")))
        return false;
    if (!is_raw)
        cut_line_end(to);
    if (is_dash && to->n == 0)
        fail("standard input is empty, expected a prompt");
    if (is_dash)
        return to->n > 0;
    if (!check_utf8(word, strlen(word), "the prompt"))
        return false;
    if ((to->n > 0 && !is_raw && !qp_bytes_append_text(to, "\n\n")) ||
        !qp_bytes_append_text(to, word)) {
        fail("out of memory for the prompt");
        return false;
    }
    return true;
}
