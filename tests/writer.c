/* writer.c (test): what a terminal gets of an answer. */
#include "../cli/writer.c"

#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static int columns; // of the terminal of the tests; 0: a pipe

int terminal_width(FILE *f)
{
    (void)f;
    return columns;
}

bool is_terminal(FILE *f)
{
    (void)f;
    return columns > 0;
}

/* Bytes of the first n characters. */
static size_t bytes_of(const char *text, size_t n_characters)
{
    size_t n = 0;
    int32_t c;
    for (size_t i = 0; i < n_characters && text[n]; i++)
        n += (size_t)qp_utf8_decode(text + n, strlen(text + n), &c);
    return n;
}

/* What is written of a text that comes in pieces of `piece` characters. Free it. */
static char *written(const char *text, size_t piece, bool wraps)
{
    char *out = NULL;
    size_t n_out;
    struct writer w;
    FILE *f = open_memstream(&out, &n_out);
    assert_non_null(f);
    begin_writer(&w, f, wraps);
    for (size_t n; *text; text += n) {
        n = bytes_of(text, piece);
        assert_true(write_piece(&w, text, n));
    }
    end_writer(&w);
    fclose(f);
    return out;
}

static const struct {
    const char *name;
    int columns;
    const char *text, *expected;
} wrapped[] = {
    { "a line that fits", 20, "The sky is blue.", "The sky is blue.\n" },
    { "a line that is full", 16, "The sky is blue. And so on.", "The sky is blue.\nAnd so on.\n" },
    { "a word that does not fit", 20, "The sky is blue because", "The sky is blue \nbecause\n" },
    { "several lines", 16, "one two three four five six seven",
      "one two three \nfour five six \nseven\n" },
    { "line ends of the text", 16, "one two\n\nthree four five six\n",
      "one two\n\nthree four five \nsix\n" },
    { "spaces at the end of a line", 16, "one two three 12   four", "one two three 12\nfour\n" },
    { "spaces at the begin of a line", 16, "one two three\n  - four five six",
      "one two three\n  - four five \nsix\n" },
    { "a word that is longer than a line", 16, "a https://example.org/a/long/path b",
      "a https://example.org/a/long/path b\n" },
    { "a tab", 16, "one\ttwo\tthree", "one\ttwo\t\nthree\n" },
    { "wide characters", 16, "天空是蓝色的，因为大气", "天空是蓝色的，因\n为大气\n" },
    { "a wide character in the last column", 17, "天空是蓝色的，因为大气",
      "天空是蓝色的，因\n为大气\n" },
    { "words and wide characters", 16, "Sky: 天空是蓝 blue sky", "Sky: 天空是蓝 \nblue sky\n" },
    { "emoji", 16, "🎉🎉🎉🎉🎉🎉🎉 🎉🎉", "🎉🎉🎉🎉🎉🎉🎉 \n🎉🎉\n" },
    { "emoji style", 16, "one two three ☀️ ☀️", "one two three ☀️\n☀️\n" },
    { "combining characters", 16, "cafe\u0301 e\u0301e\u0301e\u0301e\u0301 abcdefg",
      "cafe\u0301 e\u0301e\u0301e\u0301e\u0301 \nabcdefg\n" },
    { "code", 16, "See:\n```c\nint main(void) { return 0; }\n```\nThat is all of it.",
      "See:\n```c\nint main(void) { return 0; }\n```\nThat is all of \nit.\n" },
    { "ticks in a line", 16, "a ``` b c d e f g h i", "a ``` b c d e f \ng h i\n" },
    { "controls", 20, "a\x1b[2Jb\r\n\x7f\xc2\x9b\a", "a?[2Jb\n???\n" },
    { "a narrow terminal", 15, "one two three four five", "one two three four five\n" },
};

static void test_words_wrap(void **state)
{
    (void)state;
    for (size_t i = 0; i < QP_COUNT(wrapped); i++)
        for (size_t piece = 1; piece <= 64; piece *= 4) {
            columns = wrapped[i].columns;
            char *out = written(wrapped[i].text, piece, true);
            if (strcmp(out, wrapped[i].expected) != 0)
                print_error("%s, pieces of %zu\n", wrapped[i].name, piece);
            assert_string_equal(out, wrapped[i].expected);
            free(out);
        }
}

/* A word is shown as it comes, except near the end of a line. */
static void test_words_are_not_late(void **state)
{
    (void)state;
    char *out = NULL;
    size_t n_out;
    struct writer w;
    FILE *f = open_memstream(&out, &n_out);
    columns = 80;
    begin_writer(&w, f, true);
    assert_true(write_piece(&w, "The sk", 6));
    assert_string_equal(out, "The sk");
    assert_true(write_piece(&w, "y is blue because of the way in which the air scatters", 54));
    assert_true(write_piece(&w, " lig", 4));
    assert_int_equal(n_out, 61); // "lig" waits
    assert_true(write_piece(&w, "ht.", 3));
    assert_int_equal(n_out, 61);
    end_writer(&w);
    fclose(f);
    assert_int_equal(strlen(out), 68);
    free(out);
}

/* A file and a pipe get the bytes of the answer. */
static void test_pipes_get_all(void **state)
{
    (void)state;
    const char *text = "one two three\x1b[2J four\r\nfive six seven eight";
    columns = 0;
    char *out = written(text, 3, true);
    assert_memory_equal(out, text, strlen(text));
    assert_string_equal(out + strlen(text), "\n");
    free(out);
    columns = 16; // of a terminal without wrapping
    out = written("one two three four\x1b five", 3, false);
    assert_string_equal(out, "one two three four? five\n");
    free(out);
    out = written("", 1, true);
    assert_string_equal(out, "");
    free(out);
}

static void test_a_last_zero_byte(void **state)
{
    (void)state;
    char *out = NULL;
    size_t n_out;
    struct writer w;
    FILE *f = open_memstream(&out, &n_out);
    columns = 80;
    begin_writer(&w, f, true);
    assert_true(write_piece(&w, "a\0", 2));
    end_writer(&w);
    fclose(f);
    assert_string_equal(out, "a?\n");
    free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words_wrap),
        cmocka_unit_test(test_words_are_not_late),
        cmocka_unit_test(test_pipes_get_all),
        cmocka_unit_test(test_a_last_zero_byte),
    };
    if (!setlocale(LC_CTYPE, "C.UTF-8")) {
        puts("skipped: there is no locale C.UTF-8");
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
