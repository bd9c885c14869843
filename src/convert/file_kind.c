/* file_kind.c: what a file is whose name promises something else.
 * In:  the first bytes of a file.
 * Out: a kind, and a sentence about it. Such files are what a download leaves that went wrong, and
 *      what one program writes under a name that another program uses. */
#include "convert/file_kind.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static bool starts_with(const char *text, size_t n, const char *start)
{
    const size_t n_start = strlen(start);
    return n >= n_start && memcmp(text, start, n_start) == 0;
}

static bool is_base64_digit(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' ||
           c == '/' || c == '=';
}

/* "IQ== 0": base64, a space, a number. */
static bool is_tiktoken_line(const char *text, size_t n)
{
    size_t i = 0, n_base64, n_digits = 0;
    while (i < n && is_base64_digit(text[i]))
        i++;
    n_base64 = i;
    if (n_base64 == 0 || n_base64 % 4 || i == n || text[i++] != ' ')
        return false;
    for (; i < n && text[i] >= '0' && text[i] <= '9'; i++)
        n_digits++;
    return n_digits > 0 && i < n && (text[i] == '\n' || text[i] == '\r');
}

static bool is_white_char(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

enum file_kind qp_file_kind(const void *head, size_t n)
{
    const char *text = head;
    assert(head || n == 0);
    if (starts_with(text, n, "version https://git-lfs"))
        return FILE_LFS_POINTER;
    if (starts_with(text, n, "\xff\xfe") || starts_with(text, n, "\xfe\xff"))
        return FILE_UTF16;
    if (is_tiktoken_line(text, n))
        return FILE_TIKTOKEN;
    if (starts_with(text, n, "\xef\xbb\xbf")) {
        text += 3;
        n -= 3;
    }
    for (; n > 0 && is_white_char(*text); n--)
        text++;
    return n == 0         ? FILE_OTHER
           : *text == '<' ? FILE_WEB_PAGE
           : *text == '{' ? FILE_JSON
                          : FILE_OTHER;
}

enum file_kind qp_path_kind(const char *path)
{
    char head[512];
    FILE *f = qp_path_is_folder(path) ? NULL : fopen(path, "rb");
    const size_t n = f ? fread(head, 1, sizeof head, f) : 0;
    if (f)
        fclose(f);
    return qp_file_kind(head, n);
}

quip_status qp_refuse_kind(const char *path, enum file_kind kind, const char *expected,
                           quip_error *error)
{
    static const char *const sentences[] = {
        [FILE_OTHER] = "is not %s",
        [FILE_LFS_POINTER] = "is a Git LFS pointer, not %s; run `git lfs pull` in its folder",
        [FILE_WEB_PAGE] = "is a web page, not %s; download the file that the page links to, after "
                          "signing in if the page asks for it",
        [FILE_UTF16] = "is text in UTF-16, not %s; save it as UTF-8",
        [FILE_JSON] = "is JSON, not %s",
        [FILE_TIKTOKEN] = "is a tiktoken vocabulary, not %s; it lacks the rules of its tokenizer, "
                          "so take the tokenizer.json of the model",
    };
    assert(kind >= 0 && (size_t)kind < QP_COUNT(sentences));
    char what[300];
    snprintf(what, sizeof what, sentences[kind], expected);
    return qp_fail(error, QUIP_E_FORMAT, "%s: %s", path, what);
}
