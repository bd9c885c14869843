/* tiny_model_file.c: writes the tests' random models to files, for tests in other languages.
 *   tiny_model_file gemma3|llama|slow FILE      slow: takes seconds for a long prompt */
#include "support/tiny_model.h"

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    struct tiny_model slow = tiny_llama;
    slow.n_layers = 6;
    slow.d_model = 384;
    slow.d_ff = 1536;
    slow.n_heads = 6;
    slow.n_kv_heads = 6;
    slow.head_dim = 64;
    slow.config = "n_context_max 1048576\n"; // sessions that no memory holds
    const struct {
        const char *name;
        const struct tiny_model *model;
    } kinds[] = { { "gemma3", &tiny_gemma3 }, { "llama", &tiny_llama }, { "slow", &slow } };
    for (size_t i = 0; argc == 3 && i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(kinds[i].name, argv[1]))
            continue;
        quip_error error;
        if (!tiny_model_write(argv[2], kinds[i].model, &error))
            return 0;
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    fprintf(stderr, "usage: tiny_model_file gemma3|llama|slow FILE\n");
    return 2;
}
