/* models.c: the files that a command line names: a model, a draft model, an adapter. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

quip_status open_adapter(struct chosen_adapter *a, quip_model *model, const char *text,
                         quip_error *error)
{
    *a = (struct chosen_adapter){ 0 };
    if (!text)
        return QUIP_OK;
    const char *colon = strrchr(text, ':');
    char *end = NULL;
    const float scale = colon ? strtof(colon + 1, &end) : 1;
    const bool has_scale = colon && end > colon + 1 && !*end;
    char *path = strndup(text, has_scale ? (size_t)(colon - text) : strlen(text));
    if (!path)
        return qp_fail_memory(error, "a path", strlen(text));
    const quip_status status = quip_adapter_open(&a->adapter, model, path, error);
    a->scale = has_scale ? scale : 1;
    free(path);
    return status;
}

quip_status open_models(struct models *m, const struct model_words *words,
                        const quip_model_options *options, quip_error *error)
{
    quip_status status = quip_model_open(&m->model, words->model, options, error);
    if (!status && words->draft)
        status = quip_model_open(&m->draft, words->draft, options, error);
    if (!status)
        status = open_adapter(&m->adapter, m->model, words->adapter, error);
    return status;
}

void close_models(struct models *m)
{
    quip_adapter_close(m->adapter.adapter);
    quip_model_close(m->draft);
    quip_model_close(m->model);
}

quip_status open_session(quip_session **session, const struct models *m,
                         const quip_session_options *options, quip_error *error)
{
    quip_session_options with_draft = *options;
    with_draft.draft = m->draft;
    const quip_status status = quip_session_open(session, m->model, &with_draft, error);
    return status ? status
                  : quip_session_set_adapter(*session, m->adapter.adapter, m->adapter.scale, error);
}
