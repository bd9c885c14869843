/* help.c: the help text of a command, and other texts whose lines fit the terminal.
 * In:  the command and its table of options; paragraphs.
 * Out: lines of at most the terminal's width, broken between words. */
#include "cli.h"

#include <string.h>

enum {
    MIN_COLUMNS = 60, // in a narrower terminal, the terminal breaks the lines
    MAX_COLUMNS = 100
};

/* ---- paragraphs ---- */

/* If `to` is a pipe, the text may still be read in the terminal, as with `| less`. */
static int columns_of(FILE *to)
{
    int n = terminal_width(to);
    if (!n)
        n = terminal_width(stderr);
    return n ? qp_max(MIN_COLUMNS, qp_min(n, MAX_COLUMNS)) : MAX_COLUMNS;
}

static int character_count(const char *text, int n_bytes)
{
    int n = 0;
    for (int i = 0; i < n_bytes; i++)
        n += (text[i] & 0xc0) != 0x80;
    return n;
}

static void print_words(FILE *to, const char *text, size_t n, int column, int indent)
{
    const int n_columns = columns_of(to);
    for (const char *word = text, *end = text + n; word < end;) {
        const char *space = memchr(word, ' ', (size_t)(end - word));
        const int n_bytes = (int)((space ? space : end) - word);
        const int width = character_count(word, n_bytes);
        if (word > text && column + 1 + width > n_columns) {
            fprintf(to, "\n%*s", indent, "");
            column = indent;
        } else if (word > text) {
            fputc(' ', to);
            column++;
        }
        fprintf(to, "%.*s", n_bytes, word);
        column += width;
        word += n_bytes + (space != NULL);
    }
    fputc('\n', to);
}

void print_paragraph(FILE *to, const char *text, int column, int indent)
{
    print_words(to, text, strlen(text), column, indent);
}

void print_paragraphs(FILE *to, const char *text)
{
    for (const char *line = text; *line;) {
        const size_t n = strcspn(line, "\n");
        if (*line == ' ')
            fprintf(to, "%.*s\n", (int)n, line);
        else
            print_words(to, line, n, 0, 0);
        line += n + (line[n] == '\n');
    }
}

/* ---- the help of a command ---- */

/* How an option is typed; returns its length. */
static int spell_option(const struct option *o, char to[64])
{
    const char letter[] = { o->letter ? '-' : ' ', o->letter ? o->letter : ' ', 0 };
    return snprintf(to, 64, "  %s --%s%s%s", letter, o->name, o->value ? " " : "",
                    o->value ? o->value : "");
}

static void print_option(const struct option *o, int indent)
{
    char left[64];
    spell_option(o, left);
    if (!*o->help) {
        puts(left);
        return;
    }
    printf("%-*s", indent, left);
    print_paragraph(stdout, o->help, indent, indent);
}

void print_help(const struct command *command, const struct option *options)
{
    static const struct option help = { .letter = 'h', .name = "help", .help = "print this text" };
    int indent = 0;
    char left[64];
    for (const struct option *o = options; o->kind != OPTION_END; o++)
        indent = qp_max(indent, spell_option(o, left) + 2);
    printf("quip %s %s\n%s.\n\nOptions:\n", command->name, command->arguments, command->summary);
    for (const struct option *o = options; o->kind != OPTION_END; o++)
        print_option(o, indent);
    print_option(&help, indent);
    putchar('\n');
    print_paragraphs(stdout, command->examples);
}
