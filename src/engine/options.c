/* options.c: checks the options of models and sessions and fills in the defaults.
 * In:  the option structs of quip.h as the caller wrote them.
 * Out: the options of a session without a field that means "default", copies of their texts, and
 *      the template that they choose. */
#include "engine/engine.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_CONTEXT 4096
#define MAX_CONTEXT (1 << 20)
#define MAX_THREADS 256
#define MAX_STOPS 64
#define MAX_STOP_BYTES 1024
#define MAX_BIASES 1024
#define DEFAULT_DRY_BASE 1.75f
#define DEFAULT_DRY_LENGTH 2

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

static quip_status check_template(const quip_model *m, const char *name, quip_error *error)
{
    char names[200] = "";
    if (!name || qp_chat_find(name) || qp_model_template_name(m, name))
        return QUIP_OK;
    for (int i = 0; qp_chat_name(i); i++) {
        const size_t n = strlen(names);
        snprintf(names + n, sizeof names - n, "%s%s", i ? ", " : "", qp_chat_name(i));
    }
    return qp_fail(error, QUIP_E_ARGUMENT, "chat_template is \"%.60s\"; must be one of %s", name,
                   names);
}

static quip_status check_variables(const char *json, quip_error *error)
{
    if (!json || qp_jinja_is_object(json, strlen(json)))
        return QUIP_OK;
    return qp_fail(error, QUIP_E_ARGUMENT,
                   "template_variables is not a JSON object, such as {\"enable_thinking\": false}");
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
    if (!(o->top_p >= 0 && o->top_p <= 1))
        return qp_fail(error, QUIP_E_ARGUMENT, "top_p is %g; must be 0 to 1", (double)o->top_p);
    return QUIP_OK;
}

/* A number of the options, and its range. */
struct option_range {
    const char *name;
    double value, low, high;
};

static quip_status check_penalties(const quip_session_options *o, quip_error *error)
{
    const struct option_range ranges[] = {
        { "top_k", o->top_k, -1, INT32_MAX },
        { "min_p", (double)(o->min_p == -1 ? 0 : o->min_p), 0, 1 },
        { "penalty_window", o->penalty_window, -1, INT32_MAX },
        { "repeat_penalty", (double)o->repeat_penalty, 0, 100 },
        { "presence_penalty", (double)o->presence_penalty, -100, 100 },
        { "frequency_penalty", (double)o->frequency_penalty, -100, 100 },
        { "dry_multiplier", (double)o->dry_multiplier, 0, 100 },
        { "dry_base", (double)(o->dry_base == 0 ? 1 : o->dry_base), 1, 100 },
        { "dry_allowed_length", o->dry_allowed_length, 0, INT32_MAX },
        { "no_repeat_ngram", o->no_repeat_ngram, -1, INT32_MAX },
        { "n_logit_bias", o->n_logit_bias, 0, MAX_BIASES },
    };
    for (size_t i = 0; i < QP_COUNT(ranges); i++) {
        const struct option_range *r = &ranges[i];
        if (!(r->value >= r->low && r->value <= r->high))
            return qp_fail(error, QUIP_E_ARGUMENT, "%s is %g; must be %g to %g", r->name, r->value,
                           r->low, r->high);
    }
    if (o->n_logit_bias && !o->logit_bias)
        return qp_fail(error, QUIP_E_ARGUMENT, "n_logit_bias is %d, but logit_bias is NULL",
                       o->n_logit_bias);
    return QUIP_OK;
}

static quip_status check_biases(const quip_model *m, const quip_session_options *o,
                                quip_error *error)
{
    for (int i = 0; i < o->n_logit_bias; i++) {
        const quip_logit_bias b = o->logit_bias[i];
        if (b.token < 0 || b.token >= m->config.vocab_size)
            return qp_fail(error, QUIP_E_ARGUMENT,
                           "logit_bias[%d] is for token %d; ids of this model are 0 to %d", i,
                           b.token, m->config.vocab_size - 1);
        if (!(b.bias < INFINITY))
            return qp_fail(error, QUIP_E_ARGUMENT,
                           "logit_bias[%d] is %g; must be a number or -infinity", i,
                           (double)b.bias);
    }
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
    if (o->n_context > max && m->config.has_positions)
        return qp_fail(error, QUIP_E_ARGUMENT,
                       "n_context is %d; must be 0 to %d, because the model has embeddings of %d "
                       "positions",
                       o->n_context, max, max);
    if (o->n_context < 0 || o->n_context > max)
        return qp_fail(error, QUIP_E_ARGUMENT, "n_context is %d; must be 0 to %d", o->n_context,
                       max);
    if ((status = check_threads(o->n_threads, error)) || (status = check_sampling(o, error)) ||
        (status = check_penalties(o, error)) || (status = check_biases(m, o, error)) ||
        (status = check_stops(o, error)) || (status = check_template(m, o->chat_template, error)) ||
        (status = check_variables(o->template_variables, error)) ||
        (o->draft && (status = qp_draft_model_check(m, o->draft, error))))
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
    if (o->draft && o->draft != s->options.draft)
        return qp_fail(error, QUIP_E_ARGUMENT,
                       "the draft model of an open session cannot change; open another session");
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

/* Where neither the options nor the model file say how to draw. Chosen by measurement: see
 * docs/notes/text.md and bench/endings. */
static const struct sampling_defaults library_sampling = { .value = {
                                                               [SAMPLING_TEMPERATURE] = 0.5,
                                                               [SAMPLING_TOP_K] = 40,
                                                               [SAMPLING_TOP_P] = 0.95,
                                                               [SAMPLING_MIN_P] = 0.05,
                                                               [SAMPLING_REPEAT_PENALTY] = 1.1,
                                                               [SAMPLING_PENALTY_WINDOW] = 256 } };

const struct sampling_defaults *qp_options_sampling(const quip_model *m)
{
    return m->sampling.is_known ? &m->sampling : &library_sampling;
}

static void default_float(float *option, double value)
{
    if (*option == 0)
        *option = (float)value;
}

/* For options whose -1 says what the default 0 says. */
static void default_int(int *option, double value)
{
    if (*option == 0)
        *option = value != 0 ? (int)value : -1;
}

/* Fill in how tokens are drawn. The result says so itself: resolved again, it stays as it is. */
static void resolve_sampling(const quip_model *m, quip_session_options *o)
{
    const struct sampling_defaults none = qp_sampling_absent();
    o->greedy = o->greedy || o->top_k == 1;
    const double *v = (o->greedy ? &none : qp_options_sampling(m))->value;
    default_float(&o->temperature, v[SAMPLING_TEMPERATURE]);
    default_int(&o->top_k, v[SAMPLING_TOP_K]);
    default_float(&o->top_p, v[SAMPLING_TOP_P]);
    default_float(&o->min_p, v[SAMPLING_MIN_P] != 0 ? v[SAMPLING_MIN_P] : -1);
    default_float(&o->repeat_penalty, v[SAMPLING_REPEAT_PENALTY]);
    default_int(&o->penalty_window, v[SAMPLING_PENALTY_WINDOW]);
    default_int(&o->no_repeat_ngram, v[SAMPLING_NO_REPEAT_NGRAM]);
    o->greedy = o->greedy || o->temperature == 0 || o->top_k == 1; // by default
    if (o->dry_base == 0)
        o->dry_base = DEFAULT_DRY_BASE;
    if (!o->dry_allowed_length)
        o->dry_allowed_length = DEFAULT_DRY_LENGTH;
}

quip_session_options qp_options_resolve(const quip_model *m, const quip_session_options *options)
{
    quip_session_options o = options ? *options : (quip_session_options){ 0 };
    const int n_threads = qp_options_n_threads(m);
    const int max = m->config.n_context_max;
    if (!o.n_context)
        o.n_context = max && max < DEFAULT_CONTEXT ? max : DEFAULT_CONTEXT;
    o.n_threads = o.n_threads ? qp_min(o.n_threads, n_threads) : n_threads;
    resolve_sampling(m, &o);
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
    n += o->template_variables ? strlen(o->template_variables) + 1 : 0;
    for (int i = 0; i < o->n_stop; i++)
        n += strlen(o->stop[i]) + 1;
    assert(!texts->stops && o->n_stop >= 0 && o->n_stop <= MAX_STOPS);
    texts->stops = calloc((size_t)o->n_stop + (size_t)p->n_stop_texts + 2, sizeof *texts->stops);
    const size_t n_biases = (size_t)(o->n_logit_bias + m->config.n_never_ids);
    const size_t bias_bytes = n_biases * sizeof *texts->bias;
    texts->bias = malloc(bias_bytes + 1);
    if (!texts->stops || !texts->bias || !qp_bytes_reserve(&texts->text, n + 1))
        return qp_fail_memory(error, "the session's options", n + bias_bytes);
    if (o->n_logit_bias > 0)
        memcpy(texts->bias, o->logit_bias, (size_t)o->n_logit_bias * sizeof *texts->bias);
    for (int i = 0; i < m->config.n_never_ids; i++)
        texts->bias[o->n_logit_bias + i] =
            (quip_logit_bias){ .token = m->config.never_ids[i], .bias = -INFINITY };
    o->logit_bias = texts->bias;
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
    if (o->template_variables)
        o->template_variables = append_option(&texts->text, o->template_variables);
    return QUIP_OK;
}

void qp_options_close_texts(struct option_texts *texts)
{
    qp_bytes_close(&texts->text);
    free(texts->stops);
    free(texts->bias);
    *texts = (struct option_texts){ 0 };
}

/* A template that the model file has under this name, or its own for NULL. */
static quip_status choose_own_template(quip_session *s, const char *name, quip_error *error)
{
    struct jinja *jinja = NULL;
    quip_status status = QUIP_OK;
    s->talk.jinja = name ? NULL : s->model->jinja;
    s->talk.is_broken = !name && s->model->jinja_problem[0];
    if (name && !(status = qp_model_open_template(s->model, name, &jinja, error))) {
        s->talk.jinja = jinja;
        s->talk.is_own = true;
    }
    return status;
}

quip_status qp_options_choose_template(quip_session *s, quip_error *error)
{
    const char *name = s->options.chat_template;
    const struct chat_template *named = name ? qp_chat_find(name) : NULL;
    const char *own = name && !named ? qp_model_template_name(s->model, name) : NULL;
    quip_status status = QUIP_OK;
    s->chat = named ? named : s->model->chat;
    s->options.chat_template = named ? named->name : own; // the caller's text may be freed
    if (s->options.no_template || (s->chat && strcmp(s->chat->name, "none") == 0))
        s->chat = NULL;
    if (!s->options.no_template && !named)
        status = choose_own_template(s, own, error);
    for (size_t i = 0; i < QP_COUNT(s->chat_stops); i++) {
        const char *stop = s->chat && i < QP_COUNT(s->chat->stops) ? s->chat->stops[i] : NULL;
        s->chat_stops[i] = stop ? qp_tokenizer_find(s->model->tokenizer, stop, strlen(stop)) : -1;
    }
    return status;
}
