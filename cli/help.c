/* help.c: the help text of a command.
 * In:  the command and its table of options.
 * Out: text on stdout, whose lines fit the terminal. */
#include "cli.h"

#include <string.h>

enum {
    MIN_COLUMNS = 60, // in a narrower terminal, the lines are longer than it
    MAX_COLUMNS = 100
};

/* Print the words of text[n], with line ends between them. The first is at `column`, and other
 * lines begin at `indent`. */
static void print_words(const char *text, size_t n, int column, int indent, int n_columns)
{
    bool is_first = true;
    for (const char *word = text, *end = text + n; word < end;) {
        const char *space = memchr(word, ' ', (size_t)(end - word));
        const int n_bytes = (int)((space ? space : end) - word);
        int width = 0;
        for (int i = 0; i < n_bytes; i++)
            width += (word[i] & 0xc0) != 0x80; // a character of UTF-8
        if (!is_first && column + 1 + width > n_columns) {
            printf("\n%*s", indent, "");
            column = indent;
        } else if (!is_first) {
            putchar(' ');
            column++;
        }
        printf("%.*s", n_bytes, word);
        column += width;
        word += n_bytes + (space != NULL);
        is_first = false;
    }
    putchar('\n');
}

/* Each line is a paragraph; one that begins with a space is an example. */
static void print_paragraphs(const char *text, int n_columns)
{
    for (const char *line = text; *line;) {
        const size_t n = strcspn(line, "\n");
        if (*line == ' ')
            printf("%.*s\n", (int)n, line);
        else
            print_words(line, n, 0, 0, n_columns);
        line += n + (line[n] == '\n');
    }
}

/* How an option is typed; returns its length. */
static int spell_option(const struct option *o, char to[64])
{
    const char letter[] = { o->letter ? '-' : ' ', o->letter ? o->letter : ' ', 0 };
    return snprintf(to, 64, "  %s --%s%s%s", letter, o->name, o->value ? " " : "",
                    o->value ? o->value : "");
}

static void print_option(const struct option *o, int indent, int n_columns)
{
    char left[64];
    spell_option(o, left);
    if (!*o->help) {
        puts(left);
        return;
    }
    printf("%-*s", indent, left);
    print_words(o->help, strlen(o->help), indent, indent, n_columns);
}

void print_help(const struct command *command, const struct option *options)
{
    static const struct option help = { .letter = 'h', .name = "help", .help = "print this text" };
    const int terminal = terminal_width(stdout);
    const int n_columns =
        terminal ? qp_max(MIN_COLUMNS, qp_min(terminal, MAX_COLUMNS)) : MAX_COLUMNS;
    int indent = 0;
    char left[64];
    for (const struct option *o = options; o->kind != OPTION_END; o++)
        indent = qp_max(indent, spell_option(o, left) + 2);
    printf("quip %s %s\n%s.\n\nOptions:\n", command->name, command->arguments, command->summary);
    for (const struct option *o = options; o->kind != OPTION_END; o++)
        print_option(o, indent, n_columns);
    print_option(&help, indent, n_columns);
    putchar('\n');
    print_paragraphs(command->examples, n_columns);
}
