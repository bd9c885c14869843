/* jinja.c: fuzz target for chat templates.
 * In:  a template, a NUL, a JSON object with its variables; without a NUL, a template.
 * Out: no crash, and an end within the limits of steps and memory. */
#include "jinja/jinja.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char variables[] =
        "{\"messages\": [{\"role\": \"user\", \"content\": \"a b\"}, {\"role\": \"assistant\", "
        "\"content\": null, \"tool_calls\": [{\"function\": {\"name\": \"f\", \"arguments\": "
        "{\"x\": "
        "1.5}}}]}], \"tools\": [{\"type\": \"function\"}], \"bos_token\": \"<s>\", \"l\": [3, 1, "
        "2]}";
    const struct jinja_time now = { 2026, 3, 14, 9, 26, 53 };
    const struct jinja_options options = { .now = &now };
    const uint8_t *nul = n ? memchr(data, 0, n) : NULL;
    const size_t n_source = nul ? (size_t)(nul - data) : n;
    struct jinja *jinja;
    struct bytes text = { 0 };
    if (!qp_jinja_open(&jinja, (const char *)data, n_source, NULL)) {
        if (nul)
            qp_jinja_render(jinja, (const char *)nul + 1, n - n_source - 1, &options, &text, NULL);
        else
            qp_jinja_render(jinja, variables, sizeof variables - 1, &options, &text, NULL);
    }
    qp_jinja_close(jinja);
    qp_bytes_close(&text);
    return 0;
}
