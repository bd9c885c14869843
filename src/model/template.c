/* template.c: the chat templates that a model file has from its checkpoint.
 * In:  the metadata quip.chat_template (Jinja source), quip.chat_template.NAME for others, and
 *      quip.chat_tokens (a JSON object with the texts of bos_token and so on).
 * Out: m->jinja and m->jinja_tokens. A template that is not supported does not fail here: text
 *      without roles does not need it, and m->jinja_problem says what the problem is. */
#include "model/model.h"

#include <string.h>

#define TEMPLATE_KEY "quip.chat_template"

static quip_status find_bytes(const quip_model *m, const char *key, const uint8_t **data, size_t *n,
                              quip_error *error)
{
    const struct metadata *entry = qp_format_find_metadata(&m->format, key);
    *data = NULL;
    *n = 0;
    if (!entry || entry->type != METADATA_BYTES)
        return QUIP_OK;
    return qp_format_bytes((struct format *)&m->format, entry, data, n, error);
}

quip_status qp_model_read_template(quip_model *m, quip_error *error)
{
    const uint8_t *source, *tokens;
    size_t n_source, n_tokens;
    quip_error problem = { 0 };
    quip_status status;
    if ((status = find_bytes(m, TEMPLATE_KEY, &source, &n_source, error)) ||
        (status = find_bytes(m, "quip.chat_tokens", &tokens, &n_tokens, error)))
        return status;
    if (tokens && qp_jinja_is_object((const char *)tokens, n_tokens) &&
        !qp_bytes_append(&m->jinja_tokens, tokens, n_tokens))
        return qp_fail_memory(error, "the chat template", n_tokens);
    if (!source)
        return QUIP_OK;
    status = qp_jinja_open(&m->jinja, (const char *)source, n_source, &problem);
    if (status == QUIP_E_MEMORY)
        return qp_fail_memory(error, "the chat template", n_source);
    const size_t n = strlen(problem.message), most = sizeof m->jinja_problem - 1;
    memcpy(m->jinja_problem, problem.message,
           qp_utf8_complete(problem.message, n < most ? n : most));
    return QUIP_OK;
}

const char *qp_model_template_name(const quip_model *m, const char *name)
{
    const size_t n = strlen(TEMPLATE_KEY ".");
    for (int i = 0; i < m->format.n_metadata; i++) {
        const char *key = m->format.metadata[i].name;
        if (strncmp(key, TEMPLATE_KEY ".", n) == 0 && strcmp(key + n, name) == 0)
            return key + n;
    }
    return NULL;
}

quip_status qp_model_open_template(const quip_model *m, const char *name, struct jinja **jinja,
                                   quip_error *error)
{
    char key[120];
    const uint8_t *source;
    size_t n;
    snprintf(key, sizeof key, TEMPLATE_KEY ".%s", name);
    quip_status status = find_bytes(m, key, &source, &n, error);
    if (!status && !source)
        status = qp_fail(error, QUIP_E_FORMAT, "%s: %s is not a text", m->file.name, key);
    return status ? status
                  : qp_fail_in(error, qp_jinja_open(jinja, (const char *)source, n, error), key);
}
