/* session.c: a session's memory, its context of tokens, and running them. */
#include "engine/engine.h"

#include <stdlib.h>
#include <string.h>

#define HELD_BYTES 4096 // room for text that is held back, so that decode does not allocate

/* ---- memory ---- */

static int prefill_chunk(int n_context)
{
    return n_context < PREFILL_CHUNK ? n_context : PREFILL_CHUNK;
}

/* Take everything from the arena, or measure it. */
static void take_all(quip_session *s, struct arena *a)
{
    const quip_session_options *o = &s->options;
    s->run.config = &s->model->config;
    s->run.weights = &s->model->weights;
    qp_cpu_take(&s->run, a, o->n_context, prefill_chunk(o->n_context), s->max_threads);
    s->context = qp_arena_alloc(a, (size_t)o->n_context * sizeof *s->context);
    s->roles = qp_arena_alloc(a, (size_t)o->n_context);
}

/* The sampler of these options, with its memory from the arena, or measure that. */
static struct sampler take_sampler(const quip_session_options *o, int vocab_size, struct arena *a)
{
    struct sampler sampler = { .temperature = o->temperature,
                               .top_k = o->top_k,
                               .top_p = o->top_p };
    qp_sampler_take(&sampler, a, vocab_size);
    return sampler;
}

static quip_status open_sampler(struct sampler *sampler, struct arena *a,
                                const quip_session_options *o, int vocab_size, quip_error *error)
{
    struct arena measured = { 0 };
    take_sampler(o, vocab_size, &measured);
    const quip_status status =
        measured.used ? qp_arena_open(a, measured.used, "a session's sampler", error) : QUIP_OK;
    if (!status)
        *sampler = take_sampler(o, vocab_size, a);
    return status;
}

static size_t measure_adapter(quip_session *s, const quip_adapter *adapter)
{
    struct arena measured = { 0 };
    qp_cpu_take_adapter(&s->run, &measured, adapter->packed.max_rank,
                        prefill_chunk(s->options.n_context), s->max_threads);
    return measured.used;
}

quip_status qp_session_measure(const quip_model *model, const quip_session_options *options,
                               quip_plan *plan, quip_error *error)
{
    static const quip_session_options defaults;
    quip_status status = qp_options_check(model, options ? options : &defaults, error);
    if (status)
        return status;
    struct quip_session s = { .model = (quip_model *)model,
                              .options = qp_options_resolve(model, options) };
    s.max_threads = s.options.n_threads;
    struct arena measured = { 0 };
    take_all(&s, &measured);
    take_sampler(&s.options, model->config.vocab_size, &measured);
    *plan = (quip_plan){
        .file_bytes = model->file.size,
        .kv_bytes = s.run.kv_bytes,
        .model_bytes = sizeof *model + model->arena.size + model->untiled.size +
                       qp_tokenizer_memory(model->tokenizer),
        .n_context = s.options.n_context,
    };
    plan->scratch_bytes = measured.used - plan->kv_bytes;
    return QUIP_OK;
}

quip_status qp_session_open(quip_session **session, quip_model *model,
                            const quip_session_options *options, quip_error *error)
{
    static const quip_session_options defaults;
    quip_status status;
    *session = NULL;
    if ((status = qp_options_check(model, options ? options : &defaults, error)))
        return status;
    quip_session *s = calloc(1, sizeof *s);
    if (!s)
        return qp_fail_memory(error, "a session", sizeof *s);
    qp_model_retain(model);
    s->model = model;
    s->options = qp_options_resolve(model, options);
    s->max_threads = s->options.n_threads;
    s->logits_position = -1;
    qp_options_choose_template(s);
    if (!s->options.has_seed)
        s->options.seed = qp_random_seed();
    s->options.has_seed = true;
    s->result.seed = s->options.seed;

    struct arena measured = { 0 };
    take_all(s, &measured);
    if ((status = qp_options_copy_texts(&s->texts, &s->options, model, s->chat, error)) ||
        (status = qp_arena_open(&s->arena, measured.used, "a session's buffers", error)))
        goto fail;
    take_all(s, &s->arena);
    if ((status = open_sampler(&s->sampler, &s->sampler_arena, &s->options,
                               model->config.vocab_size, error)))
        goto fail;
    qp_sampler_seed(&s->sampler, s->options.seed);
    if (!qp_bytes_reserve(&s->answer.held, HELD_BYTES) ||
        !qp_bytes_reserve(&s->answer.piece, HELD_BYTES)) {
        status = qp_fail_memory(error, "a session's text", 2 * HELD_BYTES);
        goto fail;
    }
    if ((status = qp_cpu_open(&s->run, s->options.n_threads, model->options.background, error)))
        goto fail;
    *session = s;
    return QUIP_OK;
fail:
    qp_session_close(s);
    return status;
}

/* Everything that can fail comes first. */
quip_status qp_session_set_options(quip_session *s, const quip_session_options *options,
                                   quip_error *error)
{
    static const quip_session_options defaults;
    struct option_texts texts = { 0 };
    struct arena arena = { 0 };
    struct sampler sampler;
    quip_status status;
    if (!options)
        options = &defaults;
    if ((status = qp_options_check(s->model, options, error)) ||
        (status = qp_options_check_change(s, options, error)))
        return status;
    quip_session_options o = qp_options_resolve(s->model, options);
    o.n_context = s->options.n_context;
    o.n_threads = qp_min(o.n_threads, s->max_threads);
    o.no_template = s->options.no_template;
    o.chat_template = s->options.chat_template;
    if (s->has_begun)
        o.system = s->options.system;
    if (!o.has_seed)
        o.seed = s->options.seed;
    o.has_seed = true;
    if ((status = qp_options_copy_texts(&texts, &o, s->model, s->chat, error)) ||
        (status = open_sampler(&sampler, &arena, &o, s->model->config.vocab_size, error)) ||
        (status = qp_cpu_set_threads(&s->run, o.n_threads, s->model->options.background, error))) {
        qp_options_close_texts(&texts);
        qp_arena_close(&arena);
        return status;
    }
    memcpy(sampler.state, s->sampler.state, sizeof sampler.state);
    if (options->has_seed)
        qp_sampler_seed(&sampler, o.seed);
    qp_options_close_texts(&s->texts);
    qp_arena_close(&s->sampler_arena);
    s->options = o;
    s->texts = texts;
    s->sampler = sampler;
    s->sampler_arena = arena;
    s->result.seed = o.seed;
    return QUIP_OK;
}

int qp_session_n_threads(const quip_session *s)
{
    return qp_cpu_n_threads(&s->run);
}

void qp_session_close(quip_session *s)
{
    if (!s)
        return;
    if (s->arena.base)
        qp_cpu_close(&s->run);
    qp_arena_close(&s->arena);
    qp_arena_close(&s->adapter_arena);
    qp_arena_close(&s->sampler_arena);
    qp_adapter_release(s->adapter);
    qp_options_close_texts(&s->texts);
    qp_bytes_close(&s->system);
    qp_bytes_close(&s->answer.held);
    qp_bytes_close(&s->answer.piece);
    qp_model_release(s->model);
    free(s);
}

static bool copy_bytes(struct bytes *to, const struct bytes *from)
{
    return qp_bytes_append(to, from->data, from->n);
}

quip_status qp_session_clone(quip_session **copy, const quip_session *s, quip_error *error)
{
    quip_session *c;
    quip_status status = qp_session_open(&c, s->model, &s->options, error);
    *copy = NULL;
    if (status)
        return status;
    if ((status = qp_session_set_adapter(c, s->adapter, s->adapter_scale, error))) {
        qp_session_close(c);
        return status;
    }
    if (!copy_bytes(&c->system, &s->system) || !copy_bytes(&c->answer.held, &s->answer.held)) {
        qp_session_close(c);
        return qp_fail_memory(error, "a session's text", s->system.n + s->answer.held.n);
    }
    memcpy(c->context, s->context, (size_t)s->n * sizeof *c->context);
    memcpy(c->roles, s->roles, (size_t)s->n);
    const float *logits = qp_session_logits(s);
    if (logits)
        memcpy(c->run.buffers.logits, logits, (size_t)s->model->config.vocab_size * sizeof *logits);
    memcpy(c->sampler.state, s->sampler.state, sizeof c->sampler.state);
    c->n = s->n;
    qp_cpu_kv_copy(&c->run, &s->run);
    if (c->run.pos > c->n) // without guesses
        qp_cpu_kv_rewind(&c->run, c->n);
    c->logits_position = logits ? s->n : -1;
    c->n_logits = 1;
    c->role = s->role;
    c->has_begun = s->has_begun;
    c->answer.is_open = s->answer.is_open;
    c->answer.reason = s->answer.reason;
    c->answer.detokenizer = s->answer.detokenizer;
    c->answer.n_shown = s->answer.n_shown;
    c->undo = s->undo;
    c->result = s->result;
    c->start_ns = s->start_ns;
    *copy = c;
    return QUIP_OK;
}

/* ---- tokens ---- */

/* Forget guesses, and the rows of logits that follow them. */
static void drop_guesses(quip_session *s)
{
    const int n_rows = s->n - s->logits_position + 1;
    if (s->run.pos > s->n)
        qp_cpu_kv_rewind(&s->run, s->n);
    if (s->n_logits > n_rows)
        s->n_logits = n_rows;
}

static void cut_context(quip_session *s, int position)
{
    s->n = position;
    drop_guesses(s);
}

void qp_session_rewind(quip_session *s, int position)
{
    cut_context(s, position);
    s->role = position ? (quip_role)s->roles[position - 1] : QUIP_ROLE_NONE;
    s->has_begun = position > 0;
    s->system.n = 0;
}

quip_status qp_session_set_adapter(quip_session *s, quip_adapter *adapter, float scale,
                                   quip_error *error)
{
    const quip_session_options *o = &s->options;
    struct arena arena = { 0 };
    quip_status status = qp_options_check_adapter(s->model, adapter, scale, error);
    if (status || (adapter == s->adapter && (!adapter || scale == s->adapter_scale)))
        return status;
    if (adapter &&
        (status = qp_arena_open(&arena, measure_adapter(s, adapter), "a session's adapter", error)))
        return status;
    if (adapter)
        qp_cpu_take_adapter(&s->run, &arena, adapter->packed.max_rank, prefill_chunk(o->n_context),
                            s->max_threads);
    qp_adapter_retain(adapter);
    qp_adapter_release(s->adapter);
    qp_arena_close(&s->adapter_arena);
    s->adapter_arena = arena;
    s->adapter = adapter;
    s->adapter_scale = scale;
    s->run.adapter = adapter && scale != 0 ? adapter->packed.layers : NULL; // 0 is no effect
    s->run.adapter_scale = scale;
    cut_context(s, s->n); // guesses are the old weights'
    qp_cpu_kv_rewind(&s->run, 0);
    s->logits_position = -1;
    return QUIP_OK;
}

struct place qp_session_place(const quip_session *s)
{
    return (struct place){ s->n, s->role, s->has_begun, s->system.n, s->result.n_prompt_tokens };
}

/* The bytes of the system text are still there: a turn that takes it only sets its length to 0. */
void qp_session_return(quip_session *s, const struct place *place)
{
    cut_context(s, place->n);
    s->role = place->role;
    s->has_begun = place->has_begun;
    s->system.n = place->n_system;
    s->result.n_prompt_tokens = place->n_prompt_tokens;
}

quip_status qp_session_push(quip_session *s, const quip_token *tokens, int n, quip_role role,
                            quip_error *error)
{
    if (n > s->options.n_context - s->n)
        return qp_fail(
            error, QUIP_E_CONTEXT_FULL,
            "%d more tokens do not fit: the context holds %d, %d are in use, %d are left", n,
            s->options.n_context, s->n, s->options.n_context - s->n);
    for (int i = 0; i < n; i++)
        if (tokens[i] < 0 || tokens[i] >= s->model->config.vocab_size)
            return qp_fail(error, QUIP_E_ARGUMENT, "token %d is %d; ids of this model are 0 to %d",
                           i, tokens[i], s->model->config.vocab_size - 1);
    drop_guesses(s);
    if (n > 0) {
        memcpy(s->context + s->n, tokens, (size_t)n * sizeof *tokens);
        memset(s->roles + s->n, (int)role, (size_t)n);
    }
    s->n += n;
    return QUIP_OK;
}

/* Run the tokens up to `end`. */
static quip_status feed(quip_session *s, int end, bool all, quip_on_logits *on_logits, void *user,
                        quip_error *error)
{
    const int chunk = prefill_chunk(s->options.n_context);
    while (s->run.pos < end) {
        const int left = end - s->run.pos, n = left < chunk ? left : chunk;
        const bool is_last = s->run.pos + n == s->n;
        const enum logits_wanted wanted = all ? LOGITS_ALL : is_last ? LOGITS_LAST : LOGITS_NONE;
        if (wanted == LOGITS_ALL)
            s->logits_position = -1; // each token's go over those before
        if (!qp_forward(&s->run, s->context + s->run.pos, n, wanted, on_logits, user,
                        &s->cancelled)) {
            atomic_store(&s->cancelled, false);
            return qp_fail(error, QUIP_E_CANCELLED, "cancelled after %d of %d tokens", s->run.pos,
                           s->n);
        }
        if (wanted != LOGITS_NONE) {
            s->logits_position = s->run.pos;
            s->n_logits = 1;
        }
    }
    return QUIP_OK;
}

quip_status qp_session_feed_some(quip_session *s, int max, quip_error *error)
{
    /* After a rewind the cache is there, but not the logits: run the last token again. */
    if (s->run.pos >= s->n && s->n > 0 && !qp_session_logits(s))
        qp_cpu_kv_rewind(&s->run, s->n - 1);
    return feed(s, s->n - s->run.pos < max ? s->n : s->run.pos + max, false, NULL, NULL, error);
}

quip_status qp_session_feed(quip_session *s, quip_error *error)
{
    return qp_session_feed_some(s, s->options.n_context, error);
}

const float *qp_session_logits(const quip_session *s)
{
    const int row = s->n - s->logits_position;
    if (s->logits_position <= 0 || row < 0 || row >= s->n_logits)
        return NULL;
    return s->run.buffers.logits + (size_t)row * (size_t)s->model->config.vocab_size;
}

quip_status qp_session_feed_answer(quip_session *s, int max, quip_error *error)
{
    int n_left = s->options.n_context - s->n;
    if (qp_session_logits(s)) // the token before was a right guess
        return QUIP_OK;
    n_left = n_left < max ? n_left : max;
    n_left = n_left < MAX_GUESS ? n_left : MAX_GUESS;
    if (s->run.pos != s->n - 1 || s->options.no_speculation ||
        !qp_draft_guess(&s->draft, s->context, s->n, s->context + s->n, n_left))
        return qp_session_feed(s, error);
    if (!qp_forward(&s->run, s->context + s->run.pos, 1 + s->draft.n, LOGITS_EACH, NULL, NULL,
                    &s->cancelled)) {
        atomic_store(&s->cancelled, false);
        return qp_fail(error, QUIP_E_CANCELLED, "cancelled after %d tokens", s->run.pos);
    }
    s->logits_position = s->n;
    s->n_logits = 1 + s->draft.n;
    return QUIP_OK;
}

void qp_session_accept(quip_session *s, quip_token id)
{
    const int n_right = s->n - s->draft.begin;
    if (s->run.pos > s->n && s->context[s->n] != id) {
        qp_draft_result(&s->draft, n_right);
        drop_guesses(s);
    } else if (s->run.pos == s->n + 1) {
        qp_draft_result(&s->draft, n_right + 1);
    }
    s->roles[s->n] = (uint8_t)s->role;
    s->context[s->n++] = id;
}

quip_status qp_session_feed_all(quip_session *s, quip_on_logits *on_logits, void *user,
                                quip_error *error)
{
    return feed(s, s->n, true, on_logits, user, error);
}
