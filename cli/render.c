/* render.c: shows the prompt that a chat template makes of a conversation. */
#include "cli.h"
#include "jinja/jinja.h"

#include <stdlib.h>
#include <string.h>

/* "2026-03-14T09:26:53"; a date alone is midnight. */
static bool read_time(const char *text, struct jinja_time *t)
{
    int n = 0;
    *t = (struct jinja_time){ 0 };
    const int found = sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d%n", &t->year, &t->month, &t->day,
                             &t->hour, &t->minute, &t->second, &n);
    const bool is_date = found == 3 && strlen(text) == 10;
    return (is_date || (found == 6 && !text[n])) && t->year >= 1 && t->month >= 1 &&
           t->month <= 12 && t->day >= 1 && t->day <= 31 && t->hour >= 0 && t->hour < 24 &&
           t->minute >= 0 && t->minute < 60 && t->second >= 0 && t->second < 61;
}

/* Write {"key": text} as one line; false after a message. */
static bool write_line(const char *key, const struct bytes *text)
{
    struct bytes line = { 0 };
    bool ok = qp_bytes_printf(&line, "{\"%s\": ", key) &&
              qp_jinja_quote(&line, text->data ? (const char *)text->data : "", text->n) &&
              qp_bytes_append(&line, "}\n", 2);
    if (!ok)
        fail("out of memory for a line");
    else if (fwrite(line.data, 1, line.n, stdout) != line.n || fflush(stdout))
        ok = false;
    qp_bytes_close(&line);
    return ok;
}

/* Each line of stdin is an object of variables, and gives {"text": …} or {"error": …}. */
static int render_lines(const struct jinja *jinja, const struct jinja_time *now)
{
    char *line = NULL;
    size_t capacity = 0;
    int exit_code = 0;
    struct bytes text = { 0 }, message = { 0 };
    const struct jinja_options options = { .now = now, .message = &message };
    for (ssize_t n; exit_code == 0 && (n = getline(&line, &capacity, stdin)) >= 0;) {
        quip_error error = { 0 };
        text.n = message.n = 0;
        if (!qp_jinja_render(jinja, line, (size_t)n, &options, &text, &error)) {
            if (!write_line("text", &text))
                exit_code = EXIT_FAILED;
        } else if (error.status == QUIP_E_MEMORY || !write_line("error", &message))
            exit_code = error.status == QUIP_E_MEMORY ? fail_with(&error) : EXIT_FAILED;
    }
    free(line);
    qp_bytes_close(&text);
    qp_bytes_close(&message);
    return exit_code;
}

static int render_text(const struct jinja *jinja, const struct jinja_time *now,
                       const struct bytes *json)
{
    quip_error error = { 0 };
    struct bytes text = { 0 };
    const struct jinja_options options = { .now = now };
    int exit_code = 0;
    if (qp_jinja_render(jinja, (const char *)json->data, json->n, &options, &text, &error))
        exit_code = fail_with(&error);
    else if (text.n)
        fwrite(text.data, 1, text.n, stdout);
    qp_bytes_close(&text);
    return exit_code;
}

int run_render(const struct command *command, char **words)
{
    bool is_jsonl = false;
    const char *template = NULL, *now_text = NULL;
    const struct option options[] = {
        { OPTION_TEXT, 0, "template", "FILE", &template, 0, 0, "use this template, a Jinja file" },
        { OPTION_FLAG, 0, "jsonl", NULL, &is_jsonl, 0, 0,
          "render each line of stdin to {\"text\": …} or {\"error\": …}" },
        { OPTION_TEXT, 0, "now", "TIME", &now_text, 0, 0,
          "the time that templates read, such as 2026-03-14T09:26:53; default: the clock" },
        { 0 },
    };
    struct jinja_time now;
    struct jinja *jinja = NULL;
    struct bytes source = { 0 }, json = { 0 };
    quip_error error = { 0 };
    int exit_code;
    const int n = parse_options(command, options, words, 0, 1, &exit_code);
    if (n < 0)
        return exit_code;
    if (now_text && !read_time(now_text, &now))
        return fail_usage(command, "--now is \"%s\"; must look like 2026-03-14T09:26:53", now_text);
    if (!template)
        return fail_usage(command, "expected --template FILE");
    if (is_jsonl && n > 0)
        return fail_usage(command, "unexpected argument \"%s\": --jsonl reads stdin", words[0]);
    exit_code = EXIT_FAILED;
    if (!read_input(&source, template))
        goto done;
    if (qp_fail_in(&error, qp_jinja_open(&jinja, (const char *)source.data, source.n, &error),
                   template)) {
        exit_code = fail_with(&error);
        goto done;
    }
    if (is_jsonl)
        exit_code = render_lines(jinja, now_text ? &now : NULL);
    else if (read_input(&json, n ? words[0] : "-"))
        exit_code = render_text(jinja, now_text ? &now : NULL, &json);
    if (!close_output(stdout, "-"))
        exit_code = EXIT_FAILED;
done:
    qp_jinja_close(jinja);
    qp_bytes_close(&source);
    qp_bytes_close(&json);
    return exit_code;
}
