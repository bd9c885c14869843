/* tiny_model_file.c: writes the random models of the tests to files, for tests in other languages.
 *   tiny_model_file gemma3|llama|slow FILE      slow: needs seconds for a long prompt
 *   tiny_model_file adapter MODEL FOLDER        LoRA weights for a model; alpha is the rank
 */
#include "support/tiny_adapter.h"
#include "support/tiny_model.h"

#include <stdio.h>
#include <string.h>

static quip_status write_model(const char *kind, const char *path, quip_error *error)
{
    struct tiny_model slow = tiny_llama;
    slow.n_layers = 6;
    slow.d_model = 384;
    slow.d_ff = 1536;
    slow.n_heads = 6;
    slow.n_kv_heads = 6;
    slow.head_dim = 64;
    slow.config = "n_context_max 1048576\n"; // more context than any memory can hold
    const struct tiny_model *m = !strcmp(kind, "gemma3")  ? &tiny_gemma3
                                 : !strcmp(kind, "llama") ? &tiny_llama
                                                          : &slow;
    return tiny_model_write(path, m, error);
}

static quip_status write_adapter(const char *path, const char *folder, quip_error *error)
{
    quip_model *model;
    quip_status status = quip_model_open(&model, path, NULL, error);
    if (status)
        return status;
    status =
        tiny_adapter_write(folder, model, &(struct tiny_adapter){ .rank = 8, .alpha = 8 }, error);
    quip_model_close(model);
    return status;
}

int main(int argc, char **argv)
{
    quip_error error = { 0 };
    quip_status status;
    if (argc == 4 && !strcmp(argv[1], "adapter")) {
        status = write_adapter(argv[2], argv[3], &error);
    } else if (argc == 3 && strstr("gemma3 llama slow", argv[1])) {
        status = write_model(argv[1], argv[2], &error);
    } else {
        fprintf(stderr, "usage: tiny_model_file gemma3|llama|slow FILE\n"
                        "       tiny_model_file adapter MODEL FOLDER\n");
        return 2;
    }
    if (status)
        fprintf(stderr, "%s\n", error.message);
    return status != QUIP_OK;
}
