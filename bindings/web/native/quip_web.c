/* quip_web.c: quip_web.h in terms of quip.h. */
#include "quip_web.h"

#include "web_abi.h" // generated

#include <stdlib.h>
#include <string.h>

void *quip_web_malloc(size_t n)
{
    return malloc(n);
}

void quip_web_free(void *p)
{
    free(p);
}

int quip_web_abi(void)
{
    return QUIP_WEB_ABI;
}

/* ---- models ---- */

quip_status quip_web_model_open(quip_model **model, const void *file, size_t n,
                                const quip_model_options *options, quip_error *error)
{
    return quip_model_open_memory(model, file, n, NULL, NULL, options, error);
}

/* The first n bytes of a file, as a source. */
struct file_head {
    const uint8_t *data;
    size_t n;
};

static bool read_head(void *user, uint64_t offset, void *buffer, size_t n)
{
    const struct file_head *head = user;
    if (offset > head->n || n > head->n - offset)
        return false;
    memcpy(buffer, head->data + offset, n);
    return true;
}

quip_status quip_web_model_open_head(quip_model **model, const void *head, size_t n,
                                     double file_bytes, const quip_model_options *options,
                                     quip_error *error)
{
    struct file_head user = { head, n };
    quip_model_options with_defaults = options ? *options : (quip_model_options){ 0 };
    with_defaults.no_weights = true;
    const quip_source source = { .user = &user,
                                 .size = (uint64_t)file_bytes,
                                 .read_at = read_head,
                                 .name = with_defaults.name };
    return quip_model_open_source(model, &source, &with_defaults, error);
}

quip_status quip_web_adapter_open(quip_adapter **adapter, quip_model *model, const void *file,
                                  size_t n, const char *name, quip_error *error)
{
    struct file_head user = { file, n };
    const quip_source source = { .user = &user, .size = n, .read_at = read_head, .name = name };
    return quip_adapter_open_source(adapter, model, &source, error);
}

/* ---- the GPU ---- */

quip_status qp_session_check(quip_session *s, quip_error *error); // src/engine/self_test.c

quip_status quip_web_session_check(quip_session *session, quip_error *error)
{
    return qp_session_check(session, error);
}
