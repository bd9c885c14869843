/* render.c: shows the prompt that a chat template makes of a conversation. */
#include "cli.h"
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

/* Where the template is from, and what is done with the text. */
struct renderer {
    struct jinja *own;         // of --template
    const struct jinja *jinja; // that one, or the model's
    struct jinja *tool_use;    // another one of the model, for conversations with tools; or NULL
    quip_model *model;         // NULL: --template
    struct jinja_time now;
    bool has_now, with_ids;
};

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

/* The variables of a line, after the model's special tokens, which they may replace. */
static bool with_tokens(const struct renderer *r, const char *json, size_t n, struct bytes *out)
{
    const struct bytes *tokens = r->model ? &r->model->jinja_tokens : NULL;
    const char *begin = memchr(json, '{', n);
    if (!tokens || tokens->n <= 2 || !begin || !qp_jinja_is_object(json, n))
        return qp_bytes_append(out, json, n);
    const size_t rest = n - (size_t)(begin + 1 - json);
    bool is_empty = true; // {}
    for (size_t i = 1; i <= rest && is_empty && begin[i] != '}'; i++)
        is_empty = strchr(" \t\r\n", begin[i]) != NULL;
    return qp_bytes_append(out, tokens->data, tokens->n - 1) &&
           qp_bytes_append_text(out, is_empty ? "" : ",") && qp_bytes_append(out, begin + 1, rest);
}

/* Append the text of a conversation to `out`; on failure its message to `message`. */
static quip_status render(const struct renderer *r, const char *json, size_t n, struct bytes *out,
                          struct bytes *message, quip_error *error)
{
    const struct jinja_options options = { .now = r->has_now ? &r->now : NULL, .message = message };
    struct bytes all = { 0 };
    quip_status status = QUIP_OK;
    const bool has_tools = r->tool_use && qp_jinja_has(json, n, "tools");
    if (!with_tokens(r, json, n, &all))
        status = qp_fail_memory(error, "a conversation", n);
    else
        status = qp_jinja_render(has_tools ? r->tool_use : r->jinja, (const char *)all.data, all.n,
                                 &options, out, error);
    qp_bytes_close(&all);
    return status;
}

/* The ids of the text. A session puts bos before them if the template did not. */
static quip_status tokenize(const struct renderer *r, const struct bytes *text, struct tokens *ids,
                            quip_error *error)
{
    return qp_tokenizer_encode(r->model->tokenizer, (const char *)text->data, text->n, true, ids,
                               error);
}

/* Append the ids, separated by `between`. */
static bool print_ids(struct bytes *out, const struct tokens *ids, const char *between)
{
    bool ok = true;
    for (int i = 0; i < ids->n && ok; i++)
        ok = qp_bytes_printf(out, "%s%d", i ? between : "", ids->ids[i]);
    return ok;
}

/* {"text": …}, {"ids": […]} or {"error": …} */
static quip_status render_line(const struct renderer *r, const char *line, size_t n,
                               struct bytes *out, quip_error *error)
{
    struct bytes text = { 0 }, message = { 0 };
    struct tokens ids = { 0 };
    quip_status status = render(r, line, n, &text, &message, error);
    if (!status && r->with_ids && (status = tokenize(r, &text, &ids, error)))
        qp_bytes_append_text(&message, error->message);
    const struct bytes *shown = status ? &message : &text;
    bool ok = true;
    if (!status && r->with_ids)
        ok = qp_bytes_append_text(out, "{\"ids\": [") && print_ids(out, &ids, ", ") &&
             qp_bytes_append(out, "]", 1);
    else
        ok = qp_bytes_printf(out, "{\"%s\": ", status ? "error" : "text") &&
             qp_jinja_quote(out, shown->data ? (const char *)shown->data : "", shown->n);
    ok = ok && qp_bytes_append(out, "}\n", 2);
    qp_tokens_close(&ids);
    qp_bytes_close(&text);
    qp_bytes_close(&message);
    if (!ok || status == QUIP_E_MEMORY)
        return qp_fail_memory(error, "a line", n);
    return QUIP_OK;
}

static int render_lines(const struct renderer *r)
{
    char *line = NULL;
    size_t capacity = 0;
    int exit_code = 0;
    struct bytes out = { 0 };
    for (ssize_t n; exit_code == 0 && (n = getline(&line, &capacity, stdin)) >= 0;) {
        quip_error error = { 0 };
        out.n = 0;
        if (render_line(r, line, (size_t)n, &out, &error))
            exit_code = fail_with(&error);
        else if (fwrite(out.data, 1, out.n, stdout) != out.n || fflush(stdout))
            exit_code = EXIT_FAILED;
    }
    free(line);
    qp_bytes_close(&out);
    return exit_code;
}

static int render_text(const struct renderer *r, const struct bytes *json, const char *where)
{
    quip_error error = { 0 };
    struct bytes text = { 0 }, list = { 0 };
    struct tokens ids = { 0 };
    int exit_code = 0;
    quip_status status = render(r, (const char *)json->data, json->n, &text, NULL, &error);
    if (!status && r->with_ids)
        status = tokenize(r, &text, &ids, &error);
    if (qp_fail_in(&error, status, where))
        exit_code = fail_with(&error);
    else if (r->with_ids && print_ids(&list, &ids, " ") && qp_bytes_append(&list, "\n", 1))
        fwrite(list.data, 1, list.n, stdout);
    else if (!r->with_ids && text.n)
        fwrite(text.data, 1, text.n, stdout);
    qp_tokens_close(&ids);
    qp_bytes_close(&list);
    qp_bytes_close(&text);
    return exit_code;
}

static quip_status open_template(struct renderer *r, const char *path, quip_error *error)
{
    struct bytes source = { 0 };
    quip_status status = QUIP_E_IO;
    error->status = QUIP_E_CANCELLED; // read_input has said why
    if (read_input(&source, path))
        status = qp_fail_in(
            error, qp_jinja_open(&r->own, (const char *)source.data, source.n, error), path);
    r->jinja = r->own;
    qp_bytes_close(&source);
    return status;
}

static quip_status open_model(struct renderer *r, const char *path, const char *name,
                              quip_error *error)
{
    const quip_model_options header = { .no_weights = true };
    quip_status status = quip_model_open(&r->model, path, &header, error);
    if (status)
        return status;
    const quip_model *m = r->model;
    if (name && !qp_model_template_name(m, name))
        return qp_fail(error, QUIP_E_ARGUMENT, "%s: has no chat template named \"%.60s\"", path,
                       name);
    if (name) {
        status = qp_model_open_template(m, name, &r->own, error);
        r->jinja = r->own;
        return status;
    }
    r->jinja = m->jinja;
    if (m->jinja_problem[0])
        return qp_fail(error, QUIP_E_UNSUPPORTED, "%s: its chat template is not supported: %s",
                       path, m->jinja_problem);
    if (!m->jinja)
        return qp_fail(
            error, QUIP_E_UNSUPPORTED,
            "%s: has no chat template of its own; convert its checkpoint again, or name a "
            "file with --template",
            path);
    return qp_model_template_name(m, "tool_use")
               ? qp_model_open_template(m, "tool_use", &r->tool_use, error)
               : QUIP_OK;
}

int run_render(const struct command *command, char **words)
{
    bool is_jsonl = false;
    const char *template = NULL, *now_text = NULL, *name = NULL;
    struct renderer r = { 0 };
    const struct option options[] = {
        { OPTION_TEXT, 0, "template", "FILE", &template, 0, 0,
          "use this template, a Jinja file, instead of that of a model" },
        { OPTION_TEXT, 0, "name", "NAME", &name, 0, 0,
          "use this one of the model's templates, such as tool_use" },
        { OPTION_FLAG, 0, "ids", NULL, &r.with_ids, 0, 0, "show token ids instead of text" },
        { OPTION_FLAG, 0, "jsonl", NULL, &is_jsonl, 0, 0,
          "render each line of stdin to {\"text\": …}, {\"ids\": […]} or {\"error\": …}" },
        { OPTION_TEXT, 0, "now", "TIME", &now_text, 0, 0,
          "the time that templates read, such as 2026-03-14T09:26:53; default: the clock" },
        { 0 },
    };
    struct bytes json = { 0 };
    quip_error error = { 0 };
    int exit_code;
    const int n = parse_options(command, options, words, 0, 2, &exit_code);
    if (n < 0)
        return exit_code;
    r.has_now = now_text != NULL;
    if (now_text && !read_time(now_text, &r.now))
        return fail_usage(command, "--now is \"%s\"; must look like 2026-03-14T09:26:53", now_text);
    const int n_model = template ? 0 : 1;
    if (n < n_model)
        return fail_usage(command, "expected MODEL or --template FILE");
    if (n > n_model + !is_jsonl)
        return fail_usage(command, "unexpected argument \"%s\"", words[n - 1]);
    if (template && (r.with_ids || name))
        return fail_usage(command, "--%s needs MODEL", r.with_ids ? "ids" : "name");
    const char *path = n > n_model ? words[n_model] : "-";
    const char *where = strcmp(path, "-") == 0 ? "standard input" : path;
    exit_code = EXIT_FAILED;
    if (template ? open_template(&r, template, &error) : open_model(&r, words[0], name, &error))
        exit_code = error.status == QUIP_E_CANCELLED ? EXIT_FAILED : fail_with(&error);
    else if (is_jsonl)
        exit_code = render_lines(&r);
    else if (read_input(&json, path) && to_utf8(&json, where))
        exit_code = render_text(&r, &json, where);
    if (!close_output(stdout, "-"))
        exit_code = EXIT_FAILED;
    qp_jinja_close(r.own);
    qp_jinja_close(r.tool_use);
    quip_model_close(r.model);
    qp_bytes_close(&json);
    return exit_code;
}
