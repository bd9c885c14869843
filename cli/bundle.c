/* bundle.c: writes a .task bundle, or extracts the files of one. */
#include "cli.h"
#include "convert/convert.h"

static int extract(const char *path, const char *folder)
{
    struct progress progress;
    quip_error error = { 0 };
    begin_progress(&progress, NULL, false, false);
    const quip_status status = qp_bundle_extract(path, folder, show_progress, &progress, &error);
    end_progress(&progress);
    return status ? fail_with(&error) : 0;
}

static int bundle(const char *model, const char *out, struct bundle_options *o)
{
    struct progress progress;
    quip_error error = { 0 };
    o->on_progress = show_progress;
    o->user_data = &progress;
    begin_progress(&progress, out, false, false);
    const quip_status status = qp_bundle_write(model, out, o, &error);
    end_progress(&progress);
    if (status)
        return fail_with(&error);
    char size[24];
    fprintf(stderr, "%s: %s\n", out, human_bytes(size, file_bytes(out)));
    return 0;
}

int run_bundle(const struct command *command, char **words)
{
    struct bundle_options o = { 0 };
    struct texts stops = { 0 };
    const char *folder = NULL;
    const struct option options[] = {
        { OPTION_TEXT, 0, "tokenizer", "FILE", &o.tokenizer, 0, 0,
          "SentencePiece model; the default of all options is what the model file has" },
        { OPTION_TEXT, 0, "start-token", "PIECE", &o.start_token, 0, 0,
          "begins every prompt; \"\": none" },
        { OPTION_TEXTS, 0, "stop-token", "TEXT", &stops, 0, 0, "ends an answer; may be repeated" },
        { OPTION_TEXT, 0, "prompt-prefix-user", "TEXT", &o.user.prefix, 0, 0,
          "text around the turns of a role" },
        { OPTION_TEXT, 0, "prompt-suffix-user", "TEXT", &o.user.suffix, 0, 0, "" },
        { OPTION_TEXT, 0, "prompt-prefix-model", "TEXT", &o.model.prefix, 0, 0, "" },
        { OPTION_TEXT, 0, "prompt-suffix-model", "TEXT", &o.model.suffix, 0, 0, "" },
        { OPTION_TEXT, 0, "prompt-prefix-system", "TEXT", &o.system.prefix, 0, 0, "" },
        { OPTION_TEXT, 0, "prompt-suffix-system", "TEXT", &o.system.suffix, 0, 0, "" },
        { OPTION_TEXT, 0, "system-prompt", "TEXT", &o.system_prompt, 0, 0,
          "begins every conversation; not with the two options above" },
        { OPTION_FLAG, 0, "bytes-to-unicode", NULL, &o.bytes_to_unicode, 0, 0,
          "the tokenizer spells bytes in GPT-2's characters" },
        { OPTION_TEXT, 0, "user-role-token", "TEXT", &o.user_role_token, 0, 0,
          "role tokens; stored for other programs" },
        { OPTION_TEXT, 0, "system-role-token", "TEXT", &o.system_role_token, 0, 0, "" },
        { OPTION_TEXT, 0, "model-role-token", "TEXT", &o.model_role_token, 0, 0, "" },
        { OPTION_TEXT, 0, "end-role-token", "TEXT", &o.end_role_token, 0, 0, "" },
        { OPTION_TEXT, 0, "embedder", "FILE", &o.embedder, 0, 0,
          "graphs that other programs run; stored" },
        { OPTION_TEXT, 0, "per-layer-embedder", "FILE", &o.per_layer_embedder, 0, 0, "" },
        { OPTION_TEXT, 0, "vision-encoder", "FILE", &o.vision_encoder, 0, 0, "" },
        { OPTION_TEXT, 0, "vision-adapter", "FILE", &o.vision_adapter, 0, 0, "" },
        { OPTION_TEXT, 0, "extract", "FOLDER", &folder, 0, 0,
          "write the entries of the bundle MODEL as files to FOLDER" },
        { 0 },
    };
    int exit_code;
    const int n = parse_options(command, options, words, 1, 2, &exit_code);
    if (n < 0)
        return exit_code;
    if (folder)
        return n == 1 ? extract(words[0], folder)
                      : fail_usage(command, "unexpected argument \"%s\": --extract has no OUT",
                                   words[1]);
    if (n == 1)
        return fail_usage(command, "expected OUT, or --extract FOLDER");
    o.stop_tokens = stops.items;
    o.n_stop_tokens = stops.n;
    return bundle(words[0], words[1], &o);
}
