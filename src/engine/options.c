/* options.c: the options of a session: checked, defaults filled in, texts copied.
 * In:  quip_session_options as the caller wrote them.
 * Out: session->options without a field that means "default", its stop texts and its template. */
#include "engine/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_CONTEXT 4096
#define MAX_CONTEXT (1 << 20)

static quip_status check_template(const char *name, quip_error *error)
{
    char names[200] = "";
    if (!name || qp_chat_find(name))
        return QUIP_OK;
    for (int i = 0; qp_chat_name(i); i++) {
        const size_t n = strlen(names);
        snprintf(names + n, sizeof names - n, "%s%s", i ? ", " : "", qp_chat_name(i));
    }
    return qp_fail(error, QUIP_E_ARGUMENT, "there is no chat template \"%.60s\"; there are %s",
                   name, names);
}

quip_status qp_options_check_adapter(const quip_model *m, const quip_adapter *adapter, float scale,
                                     quip_error *error)
{
    if (adapter && adapter->model != m)
        return qp_fail(error, QUIP_E_ARGUMENT,
                       "the adapter was opened for another model than the session's");
    if (!(scale >= -1e6f && scale <= 1e6f))
        return qp_fail(error, QUIP_E_ARGUMENT, "adapter_scale is %g; possible is -1e6 to 1e6",
                       (double)scale);
    return QUIP_OK;
}

quip_status qp_options_check(const quip_model *m, const quip_session_options *o, quip_error *error)
{
    const int max = m->config.n_context_max ? m->config.n_context_max : MAX_CONTEXT;
    if (o->n_context < 0 || o->n_context > MAX_CONTEXT || o->n_context > max)
        return qp_fail(error, QUIP_E_ARGUMENT,
                       "n_context is %d; this model takes 1 to %d (0 is the default)", o->n_context,
                       max < MAX_CONTEXT ? max : MAX_CONTEXT);
    if (o->n_threads < 0 || o->n_threads > 256)
        return qp_fail(error, QUIP_E_ARGUMENT, "n_threads is %d; possible is 0 (all) to 256",
                       o->n_threads);
    if (o->max_output_tokens < 0)
        return qp_fail(error, QUIP_E_ARGUMENT, "max_output_tokens is %d; it cannot be negative",
                       o->max_output_tokens);
    if (!(o->temperature >= 0 && o->temperature <= 100))
        return qp_fail(error, QUIP_E_ARGUMENT, "temperature is %g; possible is 0 (greedy) to 100",
                       (double)o->temperature);
    if (o->top_k < 0)
        return qp_fail(error, QUIP_E_ARGUMENT, "top_k is %d; it cannot be negative", o->top_k);
    if (!(o->top_p >= 0 && o->top_p <= 1))
        return qp_fail(error, QUIP_E_ARGUMENT, "top_p is %g; possible is 0 (no limit) to 1",
                       (double)o->top_p);
    if (o->n_stop < 0 || o->n_stop > 64 || (o->n_stop && !o->stop))
        return qp_fail(error, QUIP_E_ARGUMENT, "n_stop is %d; possible is 0 to 64 stop texts",
                       o->n_stop);
    for (int i = 0; i < o->n_stop; i++)
        if (!o->stop[i] || !o->stop[i][0] || strlen(o->stop[i]) > 1024)
            return qp_fail(error, QUIP_E_ARGUMENT,
                           "stop text %d is missing, empty or longer than 1024 bytes", i);
    const quip_status status = qp_options_check_adapter(m, o->adapter, o->adapter_scale, error);
    return status ? status : check_template(o->chat_template, error);
}

/* Options with every default filled in; the texts still the caller's. */
quip_session_options qp_options_resolve(const quip_model *m, const quip_session_options *options)
{
    quip_session_options o = options ? *options : (quip_session_options){ 0 };
    const int max = m->config.n_context_max;
    if (!o.n_context)
        o.n_context = max && max < DEFAULT_CONTEXT ? max : DEFAULT_CONTEXT;
    if (!o.n_threads)
        o.n_threads = o.polite ? (qp_default_threads() + 1) / 2 : qp_default_threads();
    if (!o.top_p)
        o.top_p = 1;
    return o;
}

/* Copy the texts of the options, so that the caller's may go. */
quip_status qp_options_copy_texts(quip_session *s, quip_error *error)
{
    quip_session_options *o = &s->options;
    size_t n = o->system ? strlen(o->system) + 1 : 0;
    for (int i = 0; i < o->n_stop; i++)
        n += strlen(o->stop[i]) + 1;
    const struct prompts *p = &s->model->prompts;
    s->stops = calloc((size_t)o->n_stop + (size_t)p->n_stop_texts + 2, sizeof *s->stops);
    if (!s->stops || !qp_bytes_reserve(&s->option_text, n + 1))
        return qp_fail_memory(error, "the session's options", n);
    for (int i = 0; i < o->n_stop; i++) {
        s->stops[i] = (const char *)s->option_text.data + s->option_text.n;
        qp_bytes_append(&s->option_text, o->stop[i], strlen(o->stop[i]) + 1);
    }
    o->stop = s->stops;
    s->n_stops = o->n_stop;
    if (s->chat && s->chat->stop_text)
        s->stops[s->n_stops++] = s->chat->stop_text;
    const char *stop = (const char *)p->stop_texts.data;
    for (int i = 0; i < p->n_stop_texts; i++, stop += strlen(stop) + 1)
        s->stops[s->n_stops++] = stop;
    if (o->system) {
        const char *copy = (const char *)s->option_text.data + s->option_text.n;
        qp_bytes_append(&s->option_text, o->system, strlen(o->system) + 1);
        o->system = copy;
    }
    return QUIP_OK;
}

/* The template that the options name, or the model's own. */
void qp_options_choose_template(quip_session *s)
{
    const struct chat_template *named =
        s->options.chat_template ? qp_chat_find(s->options.chat_template) : NULL;
    s->chat = named ? named : s->model->chat;
    s->options.chat_template = named ? named->name : NULL; // the caller's text may go
    if (s->options.no_template || (s->chat && strcmp(s->chat->name, "none") == 0))
        s->chat = NULL;
    for (size_t i = 0; i < QP_COUNT(s->chat_stops); i++) {
        const char *stop = s->chat && i < QP_COUNT(s->chat->stops) ? s->chat->stops[i] : NULL;
        s->chat_stops[i] = stop ? qp_tokenizer_find(s->model->tokenizer, stop, strlen(stop)) : -1;
    }
}
