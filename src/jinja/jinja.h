/* jinja.h: renders the Jinja templates of models, as Jinja2 does for transformers' chats. */
#ifndef QP_JINJA_H
#define QP_JINJA_H

#include "base/base.h"

enum {
    JINJA_MAX_SOURCE = 1 << 20,        // bytes of a template
    JINJA_MAX_OUTPUT = 32 << 20,       // bytes of a text
    JINJA_MAX_MEMORY = 192 << 20,      // bytes that a rendering may allocate
    JINJA_MAX_STEPS = 30 * 1000 * 1000 // a step is about one operation, or 64 bytes of text
};

/* A parsed template. It does not change, so threads may share it. */
struct jinja;

/* Parse source[0, n), which is copied. Fails with QUIP_E_FORMAT if the template is not valid, and
 * with QUIP_E_UNSUPPORTED if it needs something that is not supported. */
quip_status qp_jinja_open(struct jinja **jinja, const char *source, size_t n, quip_error *error);
void qp_jinja_close(struct jinja *jinja); // NULL is fine
/* Bytes that it has on the heap; 0 for NULL. */
size_t qp_jinja_memory(const struct jinja *jinja);

/* Is text[0, n) anywhere in the source? */
bool qp_jinja_spells(const struct jinja *jinja, const char *text, size_t n);

/* What the template reads when it asks for the time. */
struct jinja_time {
    int year, month, day, hour, minute, second; // month and day count from 1
};

struct jinja_options {
    const struct jinja_time *now; // NULL: the clock of the system
    struct bytes *message;        // filled with the whole message of a failure; may be NULL
    bool is_strict;               // absent tools and documents are None, even if that fails
};

/* Render variables[0, n), a JSON object with the variables of the template. They are prepared as
 * apply_chat_template of transformers does: `messages` lose their null values, absent `tools` and
 * `documents` are None, `continue_final_message` ends the text inside the last message. The text is
 * appended to `out`, which is unchanged on failure.
 * Fails with QUIP_E_ARGUMENT if the template calls raise_exception or the JSON is not valid, and
 * with QUIP_E_UNSUPPORTED if a limit is reached or something is not supported. */
quip_status qp_jinja_render(const struct jinja *jinja, const char *variables, size_t n,
                            const struct jinja_options *options, struct bytes *out,
                            quip_error *error);

/* The local time; that of 1 January 1970 where there is no clock. */
struct jinja_time qp_jinja_clock(void);

/* Is json[0, n) one JSON object? Has it this key, with another value than null? */
bool qp_jinja_is_object(const char *json, size_t n);
bool qp_jinja_has(const char *json, size_t n, const char *key);

/* Append text[0, n) as a JSON string. Malformed UTF-8 becomes U+FFFD. */
bool qp_jinja_quote(struct bytes *out, const char *text, size_t n);

#endif
