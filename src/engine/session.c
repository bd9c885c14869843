/* session.c: opens, closes and clones sessions; options and adapters of an open session. */
#include "engine/engine.h"

#include <stdlib.h>
#include <string.h>

#define HELD_BYTES 4096 // capacity for text that is held back, so that decode does not allocate

/* ---- memory ---- */

/* The session's own arrays, from the arena, or measure them. */
static void alloc_context(quip_session *s, struct arena *a)
{
    const size_t n = (size_t)s->options.n_context;
    s->context = qp_arena_alloc(a, n * sizeof *s->context);
    s->roles = qp_arena_alloc(a, n);
}

/* Add what the draft model and its session need. */
static quip_status add_draft_model(quip_plan *plan, const quip_session_options *o,
                                   quip_error *error)
{
    quip_plan draft;
    const quip_session_options options = qp_draft_model_options(o->draft, o);
    const quip_status status = qp_session_measure(o->draft, &options, &draft, error);
    if (status)
        return status;
    plan->file_bytes += draft.file_bytes;
    plan->lookup_bytes += draft.lookup_bytes;
    plan->kv_bytes += draft.kv_bytes;
    plan->model_bytes += draft.model_bytes;
    plan->scratch_bytes += draft.scratch_bytes;
    plan->shared_bytes += draft.shared_bytes;
    return QUIP_OK;
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
    struct arena measured = { 0 };
    struct device_plan device;
    const struct device_options device_options = qp_device_options(model);
    const bool has_session = !model->embedding.pooling; // otherwise plan for quip_embed
    const struct capacity capacity =
        has_session ? qp_device_capacity(s.options.n_context, 0) : qp_embed_capacity(model);
    if (has_session)
        alloc_context(&s, &measured);
    qp_backend_of(model)->plan(&device, model, &device_options, &capacity);
    if (!has_session)
        device.kv_bytes = device.sequence_bytes = 0;
    *plan = (quip_plan){
        .file_bytes = model->file.size,
        .lookup_bytes = qp_matrix_bytes(&model->weights.ple),
        .kv_bytes = device.kv_bytes,
        .model_bytes = sizeof *model + model->arena.size + model->untiled.size +
                       qp_tokenizer_memory(model->tokenizer) + qp_jinja_memory(model->jinja),
        .n_context = has_session ? s.options.n_context : capacity.n_context,
    };
    plan->scratch_bytes = device.device_bytes + device.sequence_bytes + measured.used;
    plan->shared_bytes = device.device_bytes;
    return has_session && s.options.draft ? add_draft_model(plan, &s.options, error) : QUIP_OK;
}

/* Find the tokens that end a repetition for DRY: those of llama.cpp. Other sessions need none. */
static quip_status find_dry_breakers(quip_session *s, const quip_session_options *o,
                                     quip_error *error)
{
    static const char *const texts[MAX_DRY_BREAKERS] = { "\n", ":", "\"", "*" };
    struct tokens tokens = { 0 };
    quip_status status = QUIP_OK;
    s->n_dry_breakers = 0;
    for (int i = 0; i < MAX_DRY_BREAKERS && o->dry_multiplier > 0 && !status; i++) {
        tokens.n = 0;
        status = qp_tokenizer_encode_more(s->model->tokenizer, texts[i], 1, false, &tokens, error);
        if (!status && tokens.n == 1)
            s->dry_breakers[s->n_dry_breakers++] = tokens.ids[0];
    }
    qp_tokens_close(&tokens);
    return status;
}

/* List the tokens that end an answer. The options cannot change them. */
static void find_ends(quip_session *s)
{
    const struct config *c = &s->model->config;
    _Static_assert(MAX_STOP_IDS + QP_COUNT(s->chat_stops) <= MAX_ENDS, "all fit");
    s->n_ends = 0;
    for (int i = 0; i < c->n_stop_ids; i++)
        if (c->stop_ids[i] >= 0 && c->stop_ids[i] < c->vocab_size)
            s->ends[s->n_ends++] = c->stop_ids[i];
    for (size_t i = 0; i < QP_COUNT(s->chat_stops); i++)
        if (s->chat && s->chat_stops[i] >= 0 && s->chat_stops[i] < c->vocab_size)
            s->ends[s->n_ends++] = s->chat_stops[i];
}

/* How a session with these options draws. Only an option that has an effect costs a step. */
static struct sampling sampling_of(const quip_session *s, const quip_session_options *o)
{
    const bool has_penalties = o->repeat_penalty != 1 || o->presence_penalty != 0 ||
                               o->frequency_penalty != 0 || o->dry_multiplier > 0 ||
                               o->no_repeat_ngram > 0;
    return (struct sampling){ .temperature = o->greedy ? 0 : o->temperature,
                              .top_k = qp_max(o->top_k, 0),
                              .top_p = o->top_p,
                              .min_p = o->min_p > 0 ? o->min_p : 0,
                              .window = !has_penalties          ? 0
                                        : o->penalty_window < 0 ? INT32_MAX
                                                                : o->penalty_window,
                              .repeat = o->repeat_penalty,
                              .presence = o->presence_penalty,
                              .frequency = o->frequency_penalty,
                              .dry_multiplier = o->dry_multiplier,
                              .dry_base = o->dry_base,
                              .dry_allowed_length = o->dry_allowed_length,
                              .no_repeat_ngram = qp_max(o->no_repeat_ngram, 0),
                              .n_dry_breakers = s->n_dry_breakers,
                              .dry_breakers = s->dry_breakers,
                              .n_ends = s->n_ends,
                              .ends = s->ends,
                              .n_bias = o->n_logit_bias + s->model->config.n_never_ids,
                              .bias = o->logit_bias };
}

/* ---- open, close ---- */

static quip_status open_sequence(quip_session *s, quip_error *error)
{
    const struct capacity capacity = qp_device_capacity(s->options.n_context, 0);
    quip_status status = qp_device_open(&s->device, s->model, &capacity, error);
    if (status)
        return status;
    qp_device_enter(s->device, TURN_SHORT);
    status =
        s->device->backend->sequence_open(&s->sequence, s->device, s->options.n_context, error);
    qp_device_leave(s->device);
    return status;
}

quip_status qp_session_open(quip_session **session, quip_model *model,
                            const quip_session_options *options, quip_error *error)
{
    static const quip_session_options defaults;
    quip_status status;
    *session = NULL;
    if (model->embedding.pooling)
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s: is an embedding model, which generates no text; use quip_embed, or on "
                       "the command line quip embed",
                       model->file.name);
    if ((status = qp_options_check(model, options ? options : &defaults, error)))
        return status;
    quip_session *s = calloc(1, sizeof *s);
    if (!s)
        return qp_fail_memory(error, "a session", sizeof *s);
    qp_model_retain(model);
    s->model = model;
    s->options = qp_options_resolve(model, options);
    s->output_position = -1;
    if ((status = qp_options_choose_template(s, error)))
        goto fail;
    if (!s->options.has_seed)
        s->options.seed = qp_random_seed();
    s->options.has_seed = true;
    s->result.seed = s->options.seed;

    struct arena measured = { 0 };
    alloc_context(s, &measured);
    if ((status = qp_options_copy_texts(&s->texts, &s->options, model, s->chat, error)) ||
        (status = find_dry_breakers(s, &s->options, error)) ||
        (status = qp_arena_open(&s->arena, measured.used, "a session's context", error)))
        goto fail;
    find_ends(s);
    s->sampling = sampling_of(s, &s->options);
    alloc_context(s, &s->arena);
    if (!qp_bytes_reserve(&s->answer.held, HELD_BYTES) ||
        !qp_bytes_reserve(&s->answer.piece, HELD_BYTES)) {
        status = qp_fail_memory(error, "a session's text", 2 * HELD_BYTES);
        goto fail;
    }
    if ((status = open_sequence(s, error)) || (status = qp_draft_model_open(s, error)))
        goto fail;
    *session = s;
    return QUIP_OK;
fail:
    qp_session_close(s);
    return status;
}

int qp_session_profile(quip_session *s, struct kernel_time *times, int max)
{
    struct device *d = s->device;
    if (!d->backend->profile)
        return 0;
    qp_session_abandon(s);
    qp_device_enter(d, TURN_SHORT);
    const int n = d->backend->profile(d, times, max);
    qp_device_leave(d);
    return n;
}

static void close_sequence(quip_session *s)
{
    if (!s->sequence)
        return;
    qp_device_enter(s->device, TURN_SHORT);
    s->device->backend->sequence_close(s->sequence);
    qp_device_leave(s->device);
}

void qp_session_close(quip_session *s)
{
    if (!s)
        return;
    qp_session_abandon(s);
    qp_draft_model_close(s->draft.model);
    close_sequence(s);
    qp_arena_close(&s->arena);
    qp_free_pages(s->logits,
                  (size_t)s->n_logits_rows * (size_t)s->model->config.vocab_size * sizeof(float));
    qp_adapter_release(s->adapter);
    qp_options_close_texts(&s->texts);
    qp_bytes_close(&s->system);
    qp_talk_close(&s->talk);
    qp_bytes_close(&s->answer.held);
    qp_bytes_close(&s->answer.piece);
    qp_model_release(s->model);
    free(s);
}

/* ---- options ---- */

/* Everything that can fail comes first. */
quip_status qp_session_set_options(quip_session *s, const quip_session_options *options,
                                   quip_error *error)
{
    static const quip_session_options defaults;
    struct option_texts texts = { 0 };
    quip_status status;
    if (!options)
        options = &defaults;
    qp_session_abandon(s);
    if ((status = qp_options_check(s->model, options, error)) ||
        (status = qp_options_check_change(s, options, error)))
        return status;
    quip_session_options o = qp_options_resolve(s->model, options);
    o.n_context = s->options.n_context;
    o.no_template = s->options.no_template;
    o.chat_template = s->options.chat_template;
    o.draft = s->options.draft;
    if (s->has_begun)
        o.system = s->options.system;
    if (!o.has_seed)
        o.seed = s->options.seed;
    o.has_seed = true;
    if ((status = qp_options_copy_texts(&texts, &o, s->model, s->chat, error)) ||
        (status = find_dry_breakers(s, &o, error))) {
        qp_options_close_texts(&texts);
        return status;
    }
    qp_options_close_texts(&s->texts);
    s->options = o;
    s->texts = texts;
    s->sampling = sampling_of(s, &o);
    s->result.seed = o.seed;
    qp_session_drop_draws(s);
    qp_draft_model_follow(s);
    return QUIP_OK;
}

int qp_session_n_threads(const quip_session *s)
{
    return qp_min(s->options.n_threads, s->device->backend->n_threads(s->device));
}

/* ---- adapters ---- */

quip_status qp_session_set_adapter(quip_session *s, quip_adapter *adapter, float scale,
                                   quip_error *error)
{
    qp_session_abandon(s);
    quip_status status = qp_options_check_adapter(s->model, adapter, scale, error);
    if (status || (adapter == s->adapter && (!adapter || scale == s->adapter_scale)))
        return status;
    if (adapter) {
        const struct capacity capacity =
            qp_device_capacity(s->options.n_context, adapter->max_rank);
        if ((status = qp_device_open(&s->device, s->model, &capacity, error)))
            return status;
    }
    qp_adapter_retain(adapter);
    qp_adapter_release(s->adapter);
    s->adapter = adapter;
    s->adapter_scale = scale;
    s->sequence->adapter = adapter && scale != 0 ? adapter->packed : NULL; // 0 has no effect
    s->sequence->adapter_scale = scale;
    qp_session_reset(s);
    return QUIP_OK;
}

/* ---- clone ---- */

static bool copy_bytes(struct bytes *to, const struct bytes *from)
{
    return qp_bytes_append(to, from->data, from->n);
}

/* The copy keeps as many outputs: the one after the last token may be among many.
 */
quip_status qp_session_copy_context(quip_session *to, const quip_session *from, quip_error *error)
{
    const struct backend *b = from->device->backend;
    const quip_status status = b->sequence_reserve_outputs(to->sequence, from->n_outputs, error);
    if (status)
        return status;
    memcpy(to->context, from->context, (size_t)from->n * sizeof *to->context);
    memcpy(to->roles, from->roles, (size_t)from->n);
    to->n = from->n;
    qp_device_enter(from->device, TURN_SHORT);
    b->sequence_copy(to->sequence, from->sequence);
    qp_device_leave(from->device);
    to->output_position = from->output_position;
    to->n_outputs = from->n_outputs;
    qp_session_cut(to, to->n); // without draft tokens and their outputs
    return QUIP_OK;
}

quip_status qp_session_clone(quip_session **copy, const quip_session *s, quip_error *error)
{
    quip_session *c;
    *copy = NULL;
    qp_session_abandon((quip_session *)s);
    quip_status status = qp_session_open(&c, s->model, &s->options, error);
    if (status)
        return status;
    if ((status = qp_session_set_adapter(c, s->adapter, s->adapter_scale, error))) {
        qp_session_close(c);
        return status;
    }
    if (!copy_bytes(&c->system, &s->system) || !copy_bytes(&c->answer.held, &s->answer.held) ||
        !qp_talk_copy(&c->talk, &s->talk)) {
        qp_session_close(c);
        return qp_fail_memory(error, "a session's text", s->system.n + s->answer.held.n);
    }
    if ((status = qp_session_copy_context(c, s, error)) ||
        (status = qp_draft_model_copy(c->draft.model, s->draft.model, error))) {
        qp_session_close(c);
        return status;
    }
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
