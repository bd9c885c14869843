/* logits.c: writes the logits after token ids, as rows of float32. */
#include "cli.h"

struct row_writer {
    FILE *f;
    size_t n; // floats in a row
};

static bool write_row(void *user, int position, const float *logits)
{
    const struct row_writer *w = user;
    (void)position;
    return write_f32(w->f, logits, w->n);
}

/* Open the model, run the ids, and write one row or all. */
static int write_logits(const struct model_words *files, const quip_model_options *model_options,
                        const struct tokens *list, bool is_all, const char *out)
{
    quip_error error = { 0 };
    struct models models = { 0 };
    quip_session *session = NULL;
    quip_model_info info = { .struct_size = sizeof info };
    struct row_writer writer = { 0 };
    int exit_code = 0;
    const quip_session_options options = { .n_context = list->n };
    if (open_models(&models, files, model_options, &error) ||
        open_session(&session, &models, &options, &error))
        goto fail;
    quip_model_get_info(models.model, &info, NULL);
    writer.n = (size_t)info.vocab_size;
    writer.f = open_output(out, files->model);
    if (!writer.f) {
        exit_code = EXIT_FAILED;
        goto done;
    }
    if (is_all) {
        if (quip_session_prefill_logits(session, list->ids, list->n, write_row, &writer, &error))
            goto fail;
    } else {
        if (quip_session_prefill(session, list->ids, list->n, &error))
            goto fail;
        write_row(&writer, list->n - 1, quip_session_logits(session));
    }
    goto done;
fail:
    exit_code = fail_with(&error);
done:
    if (writer.f && !close_output(writer.f, out))
        exit_code = EXIT_FAILED;
    quip_session_close(session);
    close_models(&models);
    return exit_code;
}

int run_logits(const struct command *command, char **words)
{
    const char *ids = NULL, *ids_file = NULL, *out = NULL;
    bool is_all = false;
    struct model_words files = { 0 };
    quip_model_options model_options = { 0 };
    const struct option options[] = {
        { OPTION_TEXT, 0, "ids", "1,2,3", &ids, 0, 0, "the token ids" },
        { OPTION_TEXT, 0, "ids-file", "FILE", &ids_file, 0, 0, "the token ids from a file" },
        { OPTION_TEXT, 'o', "out", "FILE", &out, 0, 0, "where to write; \"-\" is stdout" },
        { OPTION_FLAG, 0, "all", NULL, &is_all, 0, 0,
          "write a row for each id, not only for the last" },
        BACKEND_OPTION(&model_options.backend),
        ADAPTER_OPTION(&files.adapter),
        THREADS_OPTION(&model_options.n_threads),
        { 0 },
    };
    int exit_code;
    if (parse_options(command, options, words, 1, 1, &exit_code) < 0)
        return exit_code;
    if (!ids == !ids_file)
        return fail_usage(command, "expected --ids or --ids-file");
    if (!out)
        return fail_usage(command, "expected --out");

    files.model = words[0];
    struct tokens list = { 0 };
    struct bytes text = { 0 };
    exit_code = EXIT_FAILED;
    if (ids_file && !(read_input(&text, ids_file) && qp_bytes_append(&text, "", 1)))
        goto done;
    if (!read_ids(&list, ids ? ids : (const char *)text.data))
        goto done;
    exit_code = list.n ? write_logits(&files, &model_options, &list, is_all, out)
                       : fail_usage(command, "expected at least one id");
done:
    qp_tokens_close(&list);
    qp_bytes_close(&text);
    return exit_code;
}
