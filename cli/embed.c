/* embed.c: makes embeddings of texts, from arguments, from stdin, or from lines of JSON. */
#include "cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    MAX_LINES = 256 // that are read before they are answered
};

struct embed {
    quip_model *model;
    quip_embed_options options;
    int width; // numbers of an embedding
};

/* One line of input. */
struct line {
    cJSON *json;
    struct tokens ids;
    quip_embed_input input;
    char error[508]; // "" : it is in order
};

static bool print_embedding(const float *x, int n)
{
    bool ok = fputs("{\"embedding\":[", stdout) >= 0;
    for (int i = 0; i < n && ok; i++)
        ok = printf(i ? ",%.9g" : "%.9g", (double)x[i]) > 0;
    return ok && puts("]}") >= 0;
}

static bool print_error(const char *message)
{
    cJSON *out = cJSON_CreateObject();
    cJSON_AddStringToObject(out, "error", message);
    return print_json_line(out);
}

/* ---- lines ---- */

static bool read_json_ids(struct line *l, const cJSON *list)
{
    const cJSON *id;
    bool ok = cJSON_IsArray(list);
    cJSON_ArrayForEach(id, list) ok =
        ok && cJSON_IsNumber(id) && qp_tokens_append(&l->ids, id->valueint);
    static const quip_token none;
    l->input.tokens = l->ids.ids ? l->ids.ids : &none;
    l->input.n_tokens = l->ids.n;
    return ok;
}

/* A second text, or token ids of a second segment, which BERT's tokenizers can make. */
static bool is_pair(const cJSON *json)
{
    const cJSON *id, *types = cJSON_GetObjectItemCaseSensitive(json, "token_type_ids");
    bool has_second = cJSON_GetObjectItemCaseSensitive(json, "text_pair");
    cJSON_ArrayForEach(id, types) has_second = has_second || id->valueint != 0;
    return has_second;
}

static void parse_line(struct line *l, char *text)
{
    char mark[4];
    *l = (struct line){ 0 };
    if (!is_utf8(text, strlen(text))) {
        snprintf(l->error, sizeof l->error, "the line is not UTF-8");
        return;
    }
    l->json = hide_nuls(text, mark) ? cJSON_Parse(text) : NULL;
    const cJSON *ids = cJSON_GetObjectItemCaseSensitive(l->json, "ids");
    cJSON *string = cJSON_GetObjectItemCaseSensitive(l->json, "text");
    bool ok = !ids != !string;
    if (ok && string && (ok = cJSON_IsString(string))) {
        l->input.n_text = show_nuls(string->valuestring, mark);
        l->input.text = string->valuestring;
    } else if (ok) {
        ok = read_json_ids(l, ids);
    }
    if (ok && is_pair(l->json))
        snprintf(l->error, sizeof l->error,
                 "is a pair of texts (text_pair or token_type_ids); an embedding is of one text");
    else if (!ok)
        snprintf(l->error, sizeof l->error,
                 "expected a JSON object with \"text\", a string, or \"ids\", an array of numbers");
}

static void close_line(struct line *l)
{
    cJSON_Delete(l->json);
    qp_tokens_close(&l->ids);
}

/* Answer n lines with one call. If it fails, each line is tried alone. */
static int answer_lines(const struct embed *e, struct line *lines, int n)
{
    const size_t width = (size_t)e->width;
    float *embeddings = malloc((size_t)n * width * sizeof *embeddings);
    quip_embed_input inputs[MAX_LINES];
    quip_error error = { 0 };
    int n_inputs = 0, exit_code = 0;
    if (!embeddings)
        return fail("out of memory for %d embeddings", n);
    for (int i = 0; i < n; i++)
        if (!lines[i].error[0])
            inputs[n_inputs++] = lines[i].input;
    const bool is_done =
        !quip_embed(e->model, inputs, n_inputs, &e->options, embeddings, (size_t)n * width, &error);
    for (int i = 0, k = 0; i < n; i++) {
        struct line *l = &lines[i];
        float *to = embeddings + (size_t)k * width;
        if (!l->error[0] && !is_done &&
            quip_embed(e->model, &l->input, 1, &e->options, to, width, &error))
            snprintf(l->error, sizeof l->error, "%s", error.message);
        k += !l->error[0] || is_done;
        if (l->error[0])
            exit_code = EXIT_FAILED;
        if (!(l->error[0] ? print_error(l->error) : print_embedding(to, e->width))) {
            exit_code = EXIT_FAILED;
            break;
        }
    }
    free(embeddings);
    return fflush(stdout) == 0 ? exit_code : EXIT_FAILED;
}

/* ---- stdin ---- */

/* The lines that have come in: text[begin, end). */
struct reader {
    struct bytes text;
    size_t begin;
    bool is_end;
};

/* Wait for more bytes. False after a message. */
static bool read_more(struct reader *r)
{
    const size_t n = r->text.n - r->begin;
    if (r->begin > 0)
        memmove(r->text.data, r->text.data + r->begin, n);
    r->begin = 0;
    r->text.n = n;
    if (!qp_bytes_reserve(&r->text, (1 << 16) + 1))
        return fail("out of memory for a line of %zu bytes", n), false;
    ssize_t got;
    do
        got = read(STDIN_FILENO, r->text.data + n, 1 << 16);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return fail("stdin: %s", strerror(errno)), false;
    r->is_end = got == 0;
    r->text.n += (size_t)got;
    return true;
}

/* The next whole line, which ends with a NUL; NULL if more bytes are necessary. */
static char *next_line(struct reader *r)
{
    const size_t n = r->text.n - r->begin;
    if (n == 0)
        return NULL;
    char *line = (char *)r->text.data + r->begin;
    char *end = memchr(line, '\n', n);
    if (!end && !r->is_end)
        return NULL;
    if (!end)
        end = line + n; // read_more keeps one byte behind the text
    *end = 0;
    r->begin += (size_t)(end - line) + 1;
    if (r->begin > r->text.n)
        r->begin = r->text.n;
    return line;
}

/* Lines that are there already are answered together, so a program that waits for each answer gets
 * it. */
static int embed_lines(const struct embed *e)
{
    static struct line lines[MAX_LINES];
    struct reader r = { 0 };
    int exit_code = 0, n = 0;
    for (;;) {
        char *line = n < MAX_LINES ? next_line(&r) : NULL;
        if (line) {
            parse_line(&lines[n++], line);
            continue;
        }
        if (n > 0 && answer_lines(e, lines, n))
            exit_code = EXIT_FAILED;
        const bool was_full = n == MAX_LINES; // there may be more
        while (n > 0)
            close_line(&lines[--n]);
        if (ferror(stdout) || (!was_full && !r.is_end && !read_more(&r))) {
            exit_code = EXIT_FAILED;
            break;
        }
        if (!was_full && r.is_end && r.begin == r.text.n)
            break;
    }
    qp_bytes_close(&r.text);
    return exit_code;
}

/* ---- texts ---- */

static int embed_texts(const struct embed *e, const quip_embed_input *inputs, int n)
{
    quip_error error = { 0 };
    const size_t n_floats = (size_t)n * (size_t)e->width;
    float *embeddings = malloc(n_floats * sizeof *embeddings);
    int exit_code = embeddings ? 0 : fail("out of memory for %d embeddings", n);
    if (embeddings && quip_embed(e->model, inputs, n, &e->options, embeddings, n_floats, &error))
        exit_code = fail_with(&error);
    for (int i = 0; i < n && !exit_code; i++)
        if (!print_embedding(embeddings + (size_t)i * (size_t)e->width, e->width))
            exit_code = EXIT_FAILED;
    free(embeddings);
    return exit_code;
}

static int embed_words(const struct embed *e, char **texts, int n)
{
    quip_embed_input *inputs = calloc((size_t)n, sizeof *inputs);
    if (!inputs)
        return fail("out of memory for %d texts", n);
    bool is_fine = true;
    for (int i = 0; i < n && is_fine; i++) {
        inputs[i] = (quip_embed_input){ .text = texts[i], .n_text = strlen(texts[i]) };
        is_fine = check_utf8(texts[i], strlen(texts[i]), "a text");
    }
    const int exit_code = is_fine ? embed_texts(e, inputs, n) : EXIT_FAILED;
    free(inputs);
    return exit_code;
}

static int embed_stdin(const struct embed *e)
{
    struct bytes text = { 0 };
    int exit_code = EXIT_FAILED;
    if (read_input(&text, "-") && to_utf8(&text, "standard input")) {
        cut_line_end(&text);
        exit_code = embed_texts(
            e, &(quip_embed_input){ .text = (const char *)text.data, .n_text = text.n }, 1);
    }
    qp_bytes_close(&text);
    return exit_code;
}

/* ---- command ---- */

static bool find_pooling(const char *name, int32_t *pooling)
{
    static const char *const names[] = { "mean", "first", "last" };
    for (size_t i = 0; name && i < QP_COUNT(names); i++)
        if (strcmp(name, names[i]) == 0)
            *pooling = QUIP_POOLING_MEAN + (int32_t)i;
    return !name || *pooling;
}

static quip_status open_embed(struct embed *e, const char *path, int n_threads, quip_error *error)
{
    const quip_model_options options = { .n_threads = n_threads };
    quip_model_info info = { .struct_size = sizeof info };
    quip_status status = quip_model_open(&e->model, path, &options, error);
    if (!status)
        status = quip_model_get_info(e->model, &info, error);
    e->width = e->options.n_dimensions ? e->options.n_dimensions : info.n_embedding;
    return status;
}

int run_embed(const struct command *command, char **words)
{
    struct embed e = { 0 };
    const char *pooling = NULL;
    bool is_jsonl = false;
    int n_threads = 0;
    const struct option options[] = {
        { OPTION_FLAG, 0, "jsonl", NULL, &is_jsonl, 0, 0,
          "convert stdin to stdout, one JSON object per line" },
        { OPTION_TEXT, 'p', "prompt", "NAME", &e.options.prompt, 0, 0,
          "a task prompt of the model, such as query; default: the model's own, if it has one" },
        { OPTION_TEXT, 0, "prefix", "TEXT", &e.options.prefix, 0, 0,
          "put this before each text instead of a prompt" },
        { OPTION_INT, 0, "dimensions", "N", &e.options.n_dimensions, 1, INT32_MAX,
          "keep the first N numbers of each embedding" },
        { OPTION_INT, 0, "max-tokens", "N", &e.options.n_tokens_max, 1, INT32_MAX,
          "longest text, in tokens; default: as the model file says" },
        { OPTION_FLAG, 0, "no-truncation", NULL, &e.options.no_truncation, 0, 0,
          "a longer text is an error" },
        { OPTION_FLAG, 0, "no-normalize", NULL, &e.options.no_normalize, 0, 0,
          "do not scale embeddings to length 1" },
        { OPTION_TEXT, 0, "pooling", "KIND", &pooling, 0, 0,
          "mean, first or last token; default: as the model file says" },
        THREADS_OPTION(&n_threads),
        { 0 },
    };
    int exit_code;
    const int n = parse_options(command, options, words, 1, 1 << 20, &exit_code);
    if (n < 0)
        return exit_code;
    if (!find_pooling(pooling, &e.options.pooling))
        return fail_usage(command, "pooling is %s; must be mean, first or last", pooling);
    if (is_jsonl && n > 1)
        return fail_usage(command, "unexpected argument \"%s\": --jsonl reads stdin", words[1]);
    quip_error error = { 0 };
    if (open_embed(&e, words[0], n_threads, &error))
        exit_code = fail_with(&error);
    else
        exit_code = is_jsonl ? embed_lines(&e)
                    : n > 1  ? embed_words(&e, words + 1, n - 1)
                             : embed_stdin(&e);
    if (!close_output(stdout, "-"))
        exit_code = EXIT_FAILED;
    quip_model_close(e.model);
    return exit_code;
}
