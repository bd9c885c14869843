/* options.c: checks the options of models and sessions and fills in the defaults.
 * In:  the option structs of quip.h as the caller wrote them.
 * Out: the options of a session without a field that means "default", copies of their texts, and
 *      the template that they choose. */
#include "engine/engine.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_CONTEXT 4096
#define MAX_CONTEXT (1 << 20)
#define MAX_THREADS 256
#define MAX_STOPS 64
#define MAX_STOP_BYTES 1024

/* ---- checks ---- */

static quip_status check_reserved(const uint64_t *reserved, size_t n, const char *where,
                                  quip_error *error)
{
    for (size_t i = 0; i < n; i++)
        if (reserved[i])
            return qp_fail(error, QUIP_E_ARGUMENT,
                           "%s.reserved[%zu] is not 0; it is for later versions", where, i);
    return QUIP_OK;
}

static quip_status check_threads(int n_threads, quip_error *error)
{
    if (n_threads < 0 || n_threads > MAX_THREADS)
        return qp_fail(error, QUIP_E_ARGUMENT, "n_threads is %d; must be 0 to %d", n_threads,
                       MAX_THREADS);
    return QUIP_OK;
}

quip_status qp_options_check_model(const quip_model_options *o, quip_error *error)
{
    quip_status status;
    if (!o)
        return qp_backend_check(QUIP_BACKEND_AUTO, error);
    if ((status =
             check_reserved(o->reserved, QP_COUNT(o->reserved), "quip_model_options", error)) ||
        (status = check_threads(o->n_threads, error)))
        return status;
    return qp_backend_check(o->backend, error);
}

quip_status qp_options_check_source(const quip_source *source, quip_error *error)
{
    if (!source || !source->read_at)
        return qp_fail(error, QUIP_E_ARGUMENT, "%s is NULL", source ? "source->read_at" : "source");
    return check_reserved(source->reserved, QP_COUNT(source->reserved), "quip_source", error);
}

static quip_status check_template(const char *name, quip_error *error)
{
    char names[200] = "";
    if (!name || qp_chat_find(name))
        return QUIP_OK;
    for (int i = 0; qp_chat_name(i); i++) {
        const size_t n = strlen(names);
        snprintf(names + n, sizeof names - n, "%s%s", i ? ", " : "", qp_chat_name(i));
    }
    return qp_fail(error, QUIP_E_ARGUMENT, "chat_template is \"%.60s\"; must be one of %s", name,
                   names);
}

quip_status qp_options_check_adapter(const quip_model *m, const quip_adapter *adapter, float scale,
                                     quip_error *error)
{
    if (adapter && adapter->model != m)
        return qp_fail(error, QUIP_E_ARGUMENT,
                       "the adapter was opened for another model than the session");
    if (!(scale >= -1e6f && scale <= 1e6f))
        return qp_fail(error, QUIP_E_ARGUMENT, "scale is %g; must be -1e6 to 1e6", (double)scale);
    return QUIP_OK;
}

static quip_status check_sampling(const quip_session_options *o, quip_error *error)
{
    if (o->max_output_tokens < 0)
        return qp_fail(error, QUIP_E_ARGUMENT, "max_output_tokens is %d; must not be negative",
                       o->max_output_tokens);
    if (!(o->temperature >= 0 && o->temperature <= 100))
        return qp_fail(error, QUIP_E_ARGUMENT, "temperature is %g; must be 0 to 100",
                       (double)o->temperature);
    if (o->top_k < 0)
        return qp_fail(error, QUIP_E_ARGUMENT, "top_k is %d; must not be negative", o->top_k);
    if (!(o->top_p >= 0 && o->top_p <= 1))
        return qp_fail(error, QUIP_E_ARGUMENT, "top_p is %g; must be 0 to 1", (double)o->top_p);
    return QUIP_OK;
}

static quip_status check_stops(const quip_session_options *o, quip_error *error)
{
    if (o->n_stop < 0 || o->n_stop > MAX_STOPS)
        return qp_fail(error, QUIP_E_ARGUMENT, "n_stop is %d; must be 0 to %d", o->n_stop,
                       MAX_STOPS);
    if (o->n_stop && !o->stop)
        return qp_fail(error, QUIP_E_ARGUMENT, "n_stop is %d, but stop is NULL", o->n_stop);
    for (int i = 0; i < o->n_stop; i++)
        if (!o->stop[i] || !o->stop[i][0] || strlen(o->stop[i]) > MAX_STOP_BYTES)
            return qp_fail(error, QUIP_E_ARGUMENT, "stop[%d] has %zu bytes; must be 1 to %d", i,
                           o->stop[i] ? strlen(o->stop[i]) : 0, MAX_STOP_BYTES);
    return QUIP_OK;
}

quip_status qp_options_check(const quip_model *m, const quip_session_options *o, quip_error *error)
{
    quip_status status;
    const int max =
        qp_min(m->config.n_context_max ? m->config.n_context_max : MAX_CONTEXT, MAX_CONTEXT);
    if (o->n_context < 0 || o->n_context > max)
        return qp_fail(error, QUIP_E_ARGUMENT, "n_context is %d; must be 0 to %d", o->n_context,
                       max);
    if ((status = check_threads(o->n_threads, error)) || (status = check_sampling(o, error)) ||
        (status = check_stops(o, error)) || (status = check_template(o->chat_template, error)))
        return status;
    return check_reserved(o->reserved, QP_COUNT(o->reserved), "quip_session_options", error);
}

static bool is_same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

quip_status qp_options_check_change(const quip_session *s, const quip_session_options *o,
                                    quip_error *error)
{
    if (o->n_context && o->n_context != s->options.n_context)
        return qp_fail(error, QUIP_E_ARGUMENT,
                       "n_context is %d, but that of an open session cannot change from %d",
                       o->n_context, s->options.n_context);
    if ((o->no_template && !s->options.no_template) ||
        (o->chat_template && !is_same_text(o->chat_template, s->options.chat_template)))
        return qp_fail(error, QUIP_E_ARGUMENT,
                       "the template of an open session cannot change; open another session");
    if (s->has_begun && o->system && !is_same_text(o->system, s->options.system))
        return qp_fail(error, QUIP_E_ARGUMENT,
                       "system cannot change after text was appended; rewind the session to 0");
    return QUIP_OK;
}

/* ---- defaults ---- */

int qp_options_n_threads(const quip_model *m)
{
    if (m->options.n_threads)
        return m->options.n_threads;
    const int n_default = qp_default_threads(); // reads files of the system
    return m->options.background ? (n_default + 1) / 2 : n_default;
}

quip_session_options qp_options_resolve(const quip_model *m, const quip_session_options *options)
{
    quip_session_options o = options ? *options : (quip_session_options){ 0 };
    const int n_threads = qp_options_n_threads(m);
    const int max = m->config.n_context_max;
    if (!o.n_context)
        o.n_context = max && max < DEFAULT_CONTEXT ? max : DEFAULT_CONTEXT;
    o.n_threads = o.n_threads ? qp_min(o.n_threads, n_threads) : n_threads;
    if (!o.top_p)
        o.top_p = 1;
    return o;
}

/* ---- texts ---- */

/* Append a text with its NUL. The capacity was reserved, so the address stays valid. */
static const char *append_option(struct bytes *texts, const char *text)
{
    const char *copy = (const char *)texts->data + texts->n;
    assert(texts->capacity - texts->n > strlen(text));
    qp_bytes_append(texts, text, strlen(text) + 1);
    return copy;
}

quip_status qp_options_copy_texts(struct option_texts *texts, quip_session_options *o,
                                  const quip_model *m, const struct chat_template *chat,
                                  quip_error *error)
{
    const struct prompts *p = &m->prompts;
    size_t n = o->system ? strlen(o->system) + 1 : 0;
    for (int i = 0; i < o->n_stop; i++)
        n += strlen(o->stop[i]) + 1;
    assert(!texts->stops && o->n_stop >= 0 && o->n_stop <= MAX_STOPS);
    texts->stops = calloc((size_t)o->n_stop + (size_t)p->n_stop_texts + 2, sizeof *texts->stops);
    if (!texts->stops || !qp_bytes_reserve(&texts->text, n + 1))
        return qp_fail_memory(error, "the session's options", n);
    for (int i = 0; i < o->n_stop; i++)
        texts->stops[i] = append_option(&texts->text, o->stop[i]);
    o->stop = texts->stops;
    texts->n_stops = o->n_stop;
    if (chat && chat->stop_text)
        texts->stops[texts->n_stops++] = chat->stop_text;
    const char *stop = (const char *)p->stop_texts.data;
    for (int i = 0; i < p->n_stop_texts; i++, stop += strlen(stop) + 1)
        texts->stops[texts->n_stops++] = stop;
    if (o->system)
        o->system = append_option(&texts->text, o->system);
    return QUIP_OK;
}

void qp_options_close_texts(struct option_texts *texts)
{
    qp_bytes_close(&texts->text);
    free(texts->stops);
    *texts = (struct option_texts){ 0 };
}

void qp_options_choose_template(quip_session *s)
{
    const struct chat_template *named =
        s->options.chat_template ? qp_chat_find(s->options.chat_template) : NULL;
    s->chat = named ? named : s->model->chat;
    s->options.chat_template = named ? named->name : NULL; // the caller's text may be freed
    if (s->options.no_template || (s->chat && strcmp(s->chat->name, "none") == 0))
        s->chat = NULL;
    for (size_t i = 0; i < QP_COUNT(s->chat_stops); i++) {
        const char *stop = s->chat && i < QP_COUNT(s->chat->stops) ? s->chat->stops[i] : NULL;
        s->chat_stops[i] = stop ? qp_tokenizer_find(s->model->tokenizer, stop, strlen(stop)) : -1;
    }
}
