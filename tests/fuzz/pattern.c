/* pattern.c: fuzz target for the regular expressions of adapter_config.json.
 * In:  an expression, a newline, a text.
 * Out: no crash, in a time that the lengths bound. */
#include "format/pattern.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct pattern p;
    const uint8_t *end = n ? memchr(data, '\n', n) : NULL;
    const size_t n_pattern = end ? (size_t)(end - data) : n;
    const char *text = end ? (const char *)end + 1 : "";
    if (qp_pattern_compile(&p, (const char *)data, n_pattern))
        qp_pattern_matches(&p, text, end ? n - n_pattern - 1 : 0);
    return 0;
}
