/* tokenize.c: converts text to ids and back, with the tokenizer of a model file, a GGUF file, a
 * tokenizer.model (SentencePiece) or a tokenizer.json (Hugging Face). */
#define _GNU_SOURCE // strcasestr
#include "cli.h"
#include "convert/convert.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- the tokenizer of a file ---- */

struct source {
    struct file file;
    struct format format;
    struct bytes spm, bpe; // imported; empty for a model file, which is used directly
    struct tokenizer *tokenizer;
    bool has_control;   // control tokens that are spelled out in a text become their ids
    bool shows_control; // and their ids become text
};

static void close_source(struct source *s)
{
    qp_tokenizer_close(s->tokenizer);
    qp_bytes_close(&s->spm);
    qp_bytes_close(&s->bpe);
    qp_format_close(&s->format);
    qp_file_close(&s->file);
}

static quip_status metadata_bytes(struct source *s, const char *name, const uint8_t **data,
                                  size_t *n, quip_error *error)
{
    const struct metadata *m = qp_format_find_metadata(&s->format, name);
    *data = NULL;
    *n = 0;
    return m && m->type == METADATA_BYTES ? qp_format_bytes(&s->format, m, data, n, error)
                                          : QUIP_OK;
}

/* A .litertlm file has its SentencePiece model as a section. */
static quip_status open_litertlm_tokenizer(struct source *s, const char *path, quip_error *error)
{
    const struct metadata *m = qp_litertlm_section(&s->format, "SP_Tokenizer");
    const uint8_t *spm;
    size_t n;
    quip_status status;
    if (!m)
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s: has no SentencePiece model; take the tokenizer.json of the model's "
                       "checkpoint",
                       path);
    if ((status = qp_format_bytes(&s->format, m, &spm, &n, error)))
        return status;
    return qp_fail_in(error, qp_tokenizer_open(&s->tokenizer, spm, n, NULL, 0, error), path);
}

static quip_status open_model_tokenizer(struct source *s, const char *path, quip_error *error)
{
    const uint8_t *spm, *bpe;
    size_t n_spm, n_bpe;
    quip_status status;
    if ((status = qp_format_open(&s->format, &s->file, error)))
        return status;
    if (s->format.kind == FORMAT_GGUF) {
        if ((status = qp_import_tokenizer_gguf(&s->format, &s->spm, &s->bpe, error)))
            return status;
        s->has_control = s->bpe.n > 0;
        return qp_tokenizer_open(&s->tokenizer, s->spm.data, s->spm.n,
                                 s->bpe.n ? s->bpe.data : NULL, s->bpe.n, error);
    }
    if (s->format.kind == FORMAT_LITERTLM)
        return open_litertlm_tokenizer(s, path, error);
    if ((status = metadata_bytes(s, "spm_vocab_model", &spm, &n_spm, error)) ||
        (status = metadata_bytes(s, "quip.tokenizer", &bpe, &n_bpe, error)))
        return status;
    if (!spm)
        return qp_fail(error, QUIP_E_FORMAT, "%s: has no tokenizer", path);
    s->has_control = bpe != NULL;
    return qp_tokenizer_open(&s->tokenizer, spm, n_spm, bpe, n_bpe, error);
}

/* The first bytes show the kind of the file. Each tokenizer does the same as its reference
 * implementation: Hugging Face's finds control tokens in a text, SentencePiece does not. */
static quip_status open_source(struct source *s, const char *path, quip_error *error)
{
    quip_status status = qp_file_open(&s->file, path, error);
    if (status)
        return status;
    char head[8] = { 0 };
    size_t n_head = s->file.size < sizeof(head) ? (size_t)s->file.size : sizeof(head);
    if ((status = qp_file_read(&s->file, 0, head, n_head, error)))
        return status;
    if (head[strspn(head, " \t\r\n")] == '{') {
        if ((status = qp_import_tokenizer_json(path, &s->spm, &s->bpe, error)))
            return status;
        s->has_control = true;
    } else if (memcmp(head + 4, "TFL3", 4) == 0 || memcmp(head, "GGUF", 4) == 0 ||
               memcmp(head, "LITERTLM", 8) == 0) {
        return open_model_tokenizer(s, path, error);
    } else {
        struct bytes *spm = &s->spm;
        if (s->file.size > SIZE_MAX || !qp_bytes_reserve(spm, (size_t)s->file.size))
            return qp_fail_memory(error, path, (size_t)s->file.size);
        if ((status = qp_file_read(&s->file, 0, spm->data, (size_t)s->file.size, error)))
            return status;
        spm->n = (size_t)s->file.size;
    }
    status = qp_tokenizer_open(&s->tokenizer, s->spm.data, s->spm.n, s->bpe.n ? s->bpe.data : NULL,
                               s->bpe.n, error);
    return qp_fail_in(error, status, path);
}

static bool add_text(const struct source *s, const struct tokens *ids, struct bytes *text)
{
    const struct tokenizer *t = s->tokenizer;
    struct detokenizer d = { 0 };
    for (int i = 0; i < ids->n; i++) {
        size_t n;
        const char *piece = qp_tokenizer_piece(t, ids->ids[i], &n);
        if (piece && s->shows_control && qp_tokenizer_is_control(t, ids->ids[i])) {
            if (!qp_detokenize_end(t, &d, text) || !qp_bytes_append(text, piece, n))
                return false;
        } else if (!qp_detokenize(t, &d, ids->ids[i], text)) {
            return false;
        }
    }
    return qp_detokenize_end(t, &d, text);
}

static quip_status detokenize(const struct source *s, const struct tokens *ids, struct bytes *text,
                              quip_error *error)
{
    const int n = qp_tokenizer_n_tokens(s->tokenizer);
    for (int i = 0; i < ids->n; i++)
        if (ids->ids[i] < 0 || ids->ids[i] >= n)
            return qp_fail(error, QUIP_E_ARGUMENT, "token %d is %d; must be 0 to %d", i,
                           ids->ids[i], n - 1);
    return add_text(s, ids, text) ? QUIP_OK : qp_fail_memory(error, "the text", text->n);
}

/* ---- one text ---- */

static int tokenize_text(const struct source *s, const struct bytes *text)
{
    quip_error error = { 0 };
    struct tokens ids = { 0 };
    int exit_code = 0;
    if (qp_tokenizer_encode(s->tokenizer, (const char *)text->data, text->n, s->has_control, &ids,
                            &error))
        exit_code = fail_with(&error);
    for (int i = 0; i < ids.n && !exit_code; i++)
        printf(i ? " %d" : "%d", ids.ids[i]);
    if (!exit_code)
        putchar('\n');
    qp_tokens_close(&ids);
    return exit_code;
}

static int detokenize_text(const struct source *s, struct bytes *text)
{
    struct tokens ids = { 0 };
    struct bytes out = { 0 };
    quip_error error = { 0 };
    int exit_code = 0;
    if (!qp_bytes_append(text, "", 1) || !read_ids(&ids, (const char *)text->data))
        exit_code = EXIT_FAILED;
    else if (detokenize(s, &ids, &out, &error))
        exit_code = fail_with(&error);
    else {
        fwrite(out.data, 1, out.n, stdout);
        putchar('\n');
    }
    qp_tokens_close(&ids);
    qp_bytes_close(&out);
    return exit_code;
}

/* ---- one JSON object per line ---- */

/* {"text": …} -> {"ids": […]} */
static bool tokenize_object(const struct source *s, const cJSON *in, const char *mark, cJSON *out,
                            quip_error *error)
{
    const cJSON *text = cJSON_GetObjectItemCaseSensitive(in, "text");
    if (!cJSON_IsString(text))
        return !qp_fail(error, QUIP_E_FORMAT, "expected a JSON object with \"text\"");
    struct tokens ids = { 0 };
    size_t n = show_nuls(text->valuestring, mark);
    bool is_fine =
        !qp_tokenizer_encode(s->tokenizer, text->valuestring, n, s->has_control, &ids, error);
    cJSON *list = cJSON_AddArrayToObject(out, "ids");
    for (int i = 0; i < ids.n && is_fine; i++)
        cJSON_AddItemToArray(list, cJSON_CreateNumber(ids.ids[i]));
    qp_tokens_close(&ids);
    return is_fine;
}

/* {"ids": […]} -> {"text": …} */
static bool detokenize_object(const struct source *s, const cJSON *in, cJSON *out,
                              quip_error *error)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(in, "ids"), *id;
    struct tokens ids = { 0 };
    struct bytes text = { 0 };
    bool is_fine = cJSON_IsArray(list);
    cJSON_ArrayForEach(id, list) is_fine =
        is_fine && cJSON_IsNumber(id) && qp_tokens_append(&ids, id->valueint);
    if (!is_fine)
        qp_fail(error, QUIP_E_FORMAT, "expected a JSON object with \"ids\", an array of numbers");
    else if ((is_fine = !detokenize(s, &ids, &text, error)))
        cJSON_AddItemToObject(out, "text", json_text((const char *)text.data, text.n));
    qp_tokens_close(&ids);
    qp_bytes_close(&text);
    return is_fine;
}

/* Each input line gives one output line: {"error": …} if it fails, and then the exit code is not
 * 0. */
static int tokenize_lines(const struct source *s, bool is_reverse)
{
    char *line = NULL;
    size_t capacity = 0;
    int exit_code = 0;
    while (getline(&line, &capacity, stdin) >= 0) {
        char mark[4];
        quip_error error = { 0 };
        const bool is_text = is_utf8(line, strlen(line));
        cJSON *in = is_text && hide_nuls(line, mark) ? cJSON_Parse(line) : NULL;
        cJSON *out = cJSON_CreateObject();
        if (!is_text)
            qp_fail(&error, QUIP_E_FORMAT, "the line is not UTF-8");
        if (!is_text || !(is_reverse ? detokenize_object(s, in, out, &error)
                                     : tokenize_object(s, in, mark, out, &error))) {
            cJSON_Delete(out);
            out = cJSON_CreateObject();
            cJSON_AddStringToObject(out, "error", error.message);
            exit_code = EXIT_FAILED;
        }
        char *text = cJSON_PrintUnformatted(out);
        bool is_written = text && puts(text) >= 0 && fflush(stdout) == 0;
        cJSON_free(text);
        cJSON_Delete(out);
        cJSON_Delete(in);
        if (!is_written) {
            exit_code = EXIT_FAILED;
            break;
        }
    }
    free(line);
    return exit_code;
}

int run_tokenize(const struct command *command, char **words)
{
    bool is_reverse = false, is_jsonl = false, is_special = false, is_ordinary = false;
    const struct option options[] = {
        { OPTION_FLAG, 'd', "detokenize", NULL, &is_reverse, 0, 0, "convert ids to text" },
        { OPTION_FLAG, 0, "jsonl", NULL, &is_jsonl, 0, 0,
          "convert stdin to stdout, one JSON object per line" },
        { OPTION_FLAG, 0, "special", NULL, &is_special, 0, 0,
          "control tokens that are spelled out become their ids, and back" },
        { OPTION_FLAG, 0, "no-special", NULL, &is_ordinary, 0, 0,
          "they are ordinary text; default: as the tokenizer's own library does" },
        { 0 },
    };
    int exit_code;
    int n = parse_options(command, options, words, 1, 2, &exit_code);
    if (n < 0)
        return exit_code;
    if (is_special && is_ordinary)
        return fail_usage(command, "--special and --no-special exclude each other");
    if (is_jsonl && n == 2)
        return fail_usage(command, "unexpected argument \"%s\": --jsonl reads stdin", words[1]);

    quip_error error = { 0 };
    struct source source = { 0 };
    struct bytes text = { 0 };
    exit_code = EXIT_FAILED;
    if (open_source(&source, words[0], &error)) {
        exit_code = fail_with(&error);
        goto done;
    }
    if (is_special || is_ordinary)
        source.has_control = source.shows_control = is_special;
    if (is_jsonl) {
        exit_code = tokenize_lines(&source, is_reverse);
    } else {
        if (n == 1 || strcmp(words[1], "-") == 0) {
            if (!read_input(&text, "-") || !to_utf8(&text, "standard input"))
                goto done;
        } else if (!check_utf8(words[1], strlen(words[1]), "the text")) {
            goto done;
        } else if (!qp_bytes_append_text(&text, words[1])) {
            fail("out of memory for the text");
            goto done;
        }
        exit_code = is_reverse ? detokenize_text(&source, &text) : tokenize_text(&source, &text);
    }
    if (!close_output(stdout, "-"))
        exit_code = EXIT_FAILED;
done:
    qp_bytes_close(&text);
    close_source(&source);
    return exit_code;
}
