/* context.c: the tokens of a session, and running them on the device.
 * In:  tokens, appended in order.
 * Out: keys and values of all that have run; outputs of the last; tokens drawn from these.
 *
 * A step puts one batch of the session on the device: some tokens to run, some outputs to keep,
 * some tokens to draw. It starts in a turn of the device and keeps it until it ends. A device that
 * can (max_ahead) draws several tokens in a step, each of which runs before the next is drawn. */
#include "engine/engine.h"

#include <assert.h>
#include <string.h>

static int chunk_of(const quip_session *s)
{
    return qp_min(s->options.n_context, PREFILL_CHUNK);
}

/* Index of the kept output that follows the context, or -1. */
static int output_index(const quip_session *s)
{
    const int i = s->n - s->output_position;
    return s->output_position > 0 && i >= 0 && i < s->n_outputs ? i : -1;
}

/* Index of the drawn token that follows the context, or -1. */
static int draw_index(const quip_session *s)
{
    const int i = s->n - s->sampled_position;
    return i >= 0 && i < s->n_sampled ? i : -1;
}

/* ---- back ---- */

/* Forget draft tokens, and what the device computed from them. */
static void drop_draft(quip_session *s)
{
    if (s->sequence->pos > s->n)
        s->device->backend->sequence_rewind(s->sequence, s->n);
    s->n_outputs = qp_min(s->n_outputs, s->n - s->output_position + 1);
    s->n_outputs = s->n_outputs > 0 ? s->n_outputs : 0;
    s->n_sampled = qp_min(s->n_sampled, s->n - s->sampled_position + 1);
    s->n_sampled = s->n_sampled > 0 ? s->n_sampled : 0;
}

void qp_session_cut(quip_session *s, int position)
{
    assert(!s->step.is_running && position >= 0 && position <= s->options.n_context);
    s->n = position;
    drop_draft(s);
    qp_draft_model_cut(s->draft.model, position);
}

void qp_session_rewind(quip_session *s, int position)
{
    qp_talk_rewind(s, position);
    qp_session_cut(s, position);
    s->role = position ? (quip_role)s->roles[position - 1] : QUIP_ROLE_NONE;
    s->has_begun = position > 0;
    s->system.n = 0;
}

void qp_session_reset(quip_session *s)
{
    qp_session_cut(s, s->n);
    s->device->backend->sequence_rewind(s->sequence, 0);
    s->output_position = -1;
    s->n_outputs = s->n_sampled = 0;
}

void qp_session_drop_draws(quip_session *s)
{
    s->n_sampled = 0;
}

struct mark qp_session_mark(const quip_session *s)
{
    return (struct mark){ s->n, s->role, s->has_begun, s->system.n, s->result.n_prompt_tokens };
}

/* The bytes of the system text are still there: a turn that uses it only sets its length to 0. */
void qp_session_return(quip_session *s, const struct mark *mark)
{
    qp_talk_undo(s);
    qp_session_cut(s, mark->n);
    s->role = mark->role;
    s->has_begun = mark->has_begun;
    s->system.n = mark->n_system;
    s->result.n_prompt_tokens = mark->n_prompt_tokens;
}

quip_status qp_session_fail_full(const quip_session *s, int n_used, int n, quip_error *error)
{
    return qp_fail(error, QUIP_E_CONTEXT_FULL,
                   "%d more tokens do not fit: %d of the context's %d are in use", n, n_used,
                   s->options.n_context);
}

quip_status qp_session_push(quip_session *s, const quip_token *tokens, int n, quip_role role,
                            quip_error *error)
{
    if (n > s->options.n_context - s->n)
        return qp_session_fail_full(s, s->n, n, error);
    for (int i = 0; i < n; i++)
        if (tokens[i] < 0 || tokens[i] >= s->model->config.vocab_size)
            return qp_fail(error, QUIP_E_ARGUMENT, "token %d is %d; ids of this model are 0 to %d",
                           i, tokens[i], s->model->config.vocab_size - 1);
    drop_draft(s);
    if (n > 0) {
        memcpy(s->context + s->n, tokens, (size_t)n * sizeof *tokens);
        memset(s->roles + s->n, (int)role, (size_t)n);
    }
    s->n += n;
    return QUIP_OK;
}

/* ---- a step ---- */

/* The rows of a step, in the device's array. */
static struct rows fill_rows(const quip_session *s, const struct step *step)
{
    struct row *row = s->device->rows;
    assert(step->n_rows <= s->device->capacity.n_rows);
    for (int i = 0; i < step->n_rows; i++) {
        const int pos = step->begin + i;
        row[i] = (struct row){ .sequence = s->sequence,
                               .pos = pos,
                               .visible_end = pos + 1,
                               .token = s->context[pos],
                               .is_output = i >= step->n_rows - step->n_outputs };
    }
    return (struct rows){ row, step->n_rows };
}

/* How the token at a position is drawn. */
static struct draw draw_at(const quip_session *s, int position)
{
    return (struct draw){ .sampling = &s->sampling,
                          .seed = s->options.seed,
                          .index = (uint64_t)position,
                          .context = s->context,
                          .expected = -1 };
}

/* Draw tokens from the outputs [first, first + n). The tokens of the context behind the first of
 * them are draft tokens. */
static quip_status draw(const quip_session *s, int first, int n)
{
    struct output outputs[SEQUENCE_OUTPUTS];
    struct draw draws[SEQUENCE_OUTPUTS];
    for (int i = 0; i < n; i++) {
        const int position = s->output_position + first + i;
        outputs[i] = (struct output){ s->sequence, first + i };
        draws[i] = draw_at(s, position);
        if (i + 1 < n)
            draws[i].expected = s->context[position];
    }
    const quip_status status = qp_forward_logits(s->device, outputs, n, s->observer);
    return status ? status : s->device->backend->sample(s->device, draws, n);
}

/* Run the token that the draw before gives, and draw the next one. */
static quip_status run_ahead(quip_session *s)
{
    const int pos = s->sequence->pos;
    s->device->rows[0] = (struct row){ .sequence = s->sequence,
                                       .pos = pos,
                                       .visible_end = pos + 1,
                                       .token = TOKEN_DRAWN,
                                       .is_output = true };
    const struct rows rows = { s->device->rows, 1 };
    const quip_status status = qp_forward(s->device, &rows, &s->cancelled, s->observer);
    return status ? status : draw(s, s->n_outputs++, 1);
}

/* The logits of the outputs [first_draw, first_draw + n_logits). */
static quip_status compute_logits(const quip_session *s, const struct step *step)
{
    struct output outputs[LOGITS_ROWS];
    assert(step->first_draw >= 0 && step->n_logits <= LOGITS_ROWS);
    for (int i = 0; i < step->n_logits; i++)
        outputs[i] = (struct output){ s->sequence, step->first_draw + i };
    return qp_forward_logits(s->device, outputs, step->n_logits, s->observer);
}

/* Set while the session's call is to end. */
static const atomic_bool *cancel_flag(const quip_session *s)
{
    return s->target ? &s->target->cancelled : &s->cancelled;
}

static quip_status encode_step(quip_session *s, const struct step *step)
{
    const struct backend *b = s->device->backend;
    quip_status status = b->begin(s->device, s->options.n_threads);
    if (!status && step->n_rows > 0) {
        const struct rows rows = fill_rows(s, step);
        status = qp_forward(s->device, &rows, cancel_flag(s), s->observer);
        if (!status && step->n_outputs > 0) {
            s->output_position = s->sequence->pos - step->n_outputs + 1;
            s->n_outputs = step->n_outputs;
            s->n_sampled = 0;
            s->step.has_outputs = true;
        }
    }
    if (!status && step->n_draws > 0)
        status = draw(s, step->first_draw, step->n_draws);
    for (int i = 0; i < step->n_ahead && !status; i++)
        status = run_ahead(s);
    if (!status && step->n_logits > 0)
        status = compute_logits(s, step);
    return status ? status : b->submit(s->device);
}

/* The step failed: the KV cache is as before it. */
static quip_status fail_step(quip_session *s, quip_status status, quip_error *error)
{
    const struct step *step = &s->step;
    if (s->sequence->pos > step->begin)
        s->device->backend->sequence_rewind(s->sequence, step->begin);
    if (step->has_outputs) { // instead of those that the session had
        s->output_position = -1;
        s->n_outputs = 0;
    }
    if (status != QUIP_E_CANCELLED)
        return qp_device_fail(s->device, status, error);
    atomic_store(&s->cancelled, false);
    return qp_fail(error, QUIP_E_CANCELLED, "cancelled after %d of %d tokens", s->sequence->pos,
                   s->n);
}

/* Start a step, or QP_NOT_YET if the device is busy and `wait` is false. */
static quip_status start_step(quip_session *s, const struct step *step, bool wait,
                              quip_error *error)
{
    const enum turn_kind kind = step->n_rows <= SEQUENCE_OUTPUTS ? TURN_SHORT : TURN_LONG;
    assert(!s->step.is_running);
    const quip_status changed = qp_file_check(&s->model->file, error);
    if (changed)
        return changed;
    s->step = *step;
    s->step.begin = s->sequence->pos;
    // a cancel is not for a caller that wants logits
    if (!qp_turns_enter(s->device->turns, kind, wait, step->n_logits ? NULL : cancel_flag(s)))
        return wait ? fail_step(s, QUIP_E_CANCELLED, error) : QP_NOT_YET;
    s->step.began_ns = qp_now_ns();
    const quip_status status = encode_step(s, &s->step);
    s->step.is_running = !status;
    if (status) {
        const quip_status failed = fail_step(s, status, error);
        qp_device_leave(s->device);
        return failed;
    }
    return QUIP_OK;
}

/* The device has drawn the tokens `sampled`, and has run those before the last: they are next in
 * the context. Those after a wrong guess are -1. The next step draws twice as many if this one was
 * right and quick. */
static void end_ahead(quip_session *s)
{
    const uint64_t ns = qp_now_ns() - s->step.start_ns, max_ns = s->device->ahead_ns;
    int n_right = 1;
    while (n_right < s->n_sampled && s->sampled[n_right] >= 0)
        n_right++;
    const bool is_right = n_right == s->n_sampled;
    s->n_outputs = s->n_sampled = n_right;
    memcpy(s->context + s->n, s->sampled, (size_t)(n_right - 1) * sizeof *s->sampled);
    if (s->sequence->pos > s->n + n_right - 1)
        s->device->backend->sequence_rewind(s->sequence, s->n + n_right - 1);
    if (!is_right)
        s->n_ahead = 0;
    else if (ns > max_ns)
        s->n_ahead = s->step.n_ahead / 2;
    else if (ns <= max_ns / 2)
        s->n_ahead = qp_min(2 * s->step.n_ahead + 1, AHEAD_DRAWS - 1);
}

/* End the step that runs, if one does. */
static quip_status end_step(quip_session *s, bool wait, quip_error *error)
{
    const struct backend *b = s->device->backend;
    const struct step *step = &s->step;
    if (!step->is_running)
        return QUIP_OK;
    quip_status status = b->poll(s->device, wait);
    if (status == QP_NOT_YET)
        return status;
    if (!status && step->n_draws > 0)
        status = b->read_tokens(s->device, s->sampled, step->n_draws + step->n_ahead);
    if (!status && step->n_logits > 0)
        status = b->read(s->device, BUF_LOGITS, s->logits, step->n_logits);
    if (status) {
        status = fail_step(s, status, error);
    } else if (step->n_draws > 0) {
        s->sampled_position = s->output_position + step->first_draw;
        s->n_sampled = step->n_draws + step->n_ahead;
        if (step->start_ns)
            end_ahead(s);
        if (step->n_rows == step->n_draws)
            qp_draft_model_step(s->draft.model, step->n_rows, qp_now_ns() - step->began_ns);
    }
    s->step.is_running = false;
    qp_device_leave(s->device);
    return status;
}

static quip_status run_step(quip_session *s, const struct step *step, bool wait, quip_error *error)
{
    const quip_status status = start_step(s, step, wait, error);
    return status ? status : end_step(s, wait, error);
}

void qp_session_abandon(quip_session *s)
{
    if (s->step.is_running)
        end_step(s, true, NULL);
    s->pending_ns = 0;
    qp_draft_model_abandon(s->draft.model);
}

/* ---- prefill ---- */

/* After a rewind the keys and values are there, but not the output: run the last token again. */
static void repeat_last(quip_session *s)
{
    if (s->sequence->pos >= s->n && s->n > 0 && output_index(s) < 0)
        s->device->backend->sequence_rewind(s->sequence, s->n - 1);
}

/* Run tokens up to `end`, in chunks. */
static quip_status run_to(quip_session *s, int end, bool wait, quip_error *error)
{
    quip_status status = QUIP_OK;
    while (s->sequence->pos < end && !status) {
        const int pos = s->sequence->pos;
        struct step step = { .n_rows = qp_min(end - pos, chunk_of(s)) };
        step.n_outputs = pos + step.n_rows == s->n;
        status = run_step(s, &step, wait, error);
    }
    return status;
}

quip_status qp_session_run(quip_session *s, int max, quip_error *error)
{
    if (s->step.is_running) // the last call returned QP_NOT_YET
        return end_step(s, true, error);
    repeat_last(s);
    const int n_left = s->n - s->sequence->pos;
    return run_to(s, n_left < max ? s->n : s->sequence->pos + max, true, error);
}

/* ---- logits for the caller ---- */

/* Memory for n rows of logits. It stays with the session. */
static quip_status reserve_logits(quip_session *s, int n, quip_error *error)
{
    const size_t row = (size_t)s->model->config.vocab_size * sizeof *s->logits;
    if (n <= s->n_logits_rows)
        return QUIP_OK;
    float *logits = qp_alloc_pages((size_t)n * row);
    if (!logits)
        return qp_fail_memory(error, "logits", (size_t)n * row);
    qp_free_pages(s->logits, (size_t)s->n_logits_rows * row);
    s->logits = logits;
    s->n_logits_rows = n;
    return QUIP_OK;
}

/* Read the logits after n kept outputs, from number `first` on. */
static quip_status read_logits(quip_session *s, int first, int n, quip_error *error)
{
    const struct step step = { .first_draw = first, .n_logits = n };
    assert(n <= s->n_logits_rows);
    return run_step(s, &step, true, error);
}

const float *qp_session_logits(quip_session *s)
{
    const bool is_read = s->step.is_running && s->step.n_logits > 0; // asked for before
    if (end_step(s, true, NULL))
        return NULL;
    if (is_read)
        return s->logits;
    const int i = output_index(s);
    if (i < 0 || reserve_logits(s, 1, NULL) || read_logits(s, i, 1, NULL))
        return NULL;
    return s->logits;
}

/* Report the logits of the kept outputs [0, n). The callback runs outside of any turn. */
static quip_status report_logits(quip_session *s, int n, quip_on_logits *on_logits, void *user,
                                 quip_error *error)
{
    const size_t vocab_size = (size_t)s->model->config.vocab_size;
    const int first = s->output_position - 1;
    for (int i = 0; i < n; i += LOGITS_ROWS) {
        const int n_rows = qp_min(LOGITS_ROWS, n - i);
        bool is_stopped = atomic_load(&s->cancelled);
        const quip_status status = is_stopped ? QUIP_OK : read_logits(s, i, n_rows, error);
        if (status)
            return status;
        for (int j = 0; j < n_rows && !is_stopped; j++)
            is_stopped = on_logits && !on_logits(user, first + i + j, s->logits + j * vocab_size);
        if (is_stopped)
            return fail_step(s, QUIP_E_CANCELLED, error);
    }
    return QUIP_OK;
}

quip_status qp_session_run_logits(quip_session *s, quip_on_logits *on_logits, void *user,
                                  quip_error *error)
{
    quip_status status = reserve_logits(s, LOGITS_ROWS, error);
    if (status)
        return status;
    s->output_position = -1; // each chunk replaces the outputs before
    s->n_outputs = 0;
    status = s->device->backend->sequence_reserve_outputs(s->sequence, chunk_of(s), error);
    while (s->sequence->pos < s->n && !status) {
        const int n = qp_min(s->n - s->sequence->pos, chunk_of(s));
        const struct step step = { .n_rows = n, .n_outputs = n };
        status = run_step(s, &step, true, error);
        if (!status)
            status = report_logits(s, n, on_logits, user, error);
    }
    return status;
}

/* ---- decode ---- */

/* Let a step that runs one token draw up to `max` tokens ahead, if the device can. */
static void look_ahead(const quip_session *s, int max, struct step *step)
{
    const struct backend *b = s->device->backend;
    const struct draw first = draw_at(s, s->n);
    const int most = b->max_ahead ? b->max_ahead(s->device, &first) : 0;
    step->n_ahead = qp_min(s->n_ahead, qp_min(max, most));
    step->start_ns = most > 0 ? qp_now_ns() : 0;
}

/* Start the step whose first draw is the token that follows the context. */
static quip_status start_draw(quip_session *s, int max, bool wait, quip_error *error)
{
    struct step step = { .n_draws = 1 };
    const int n_left = qp_min(s->options.n_context - s->n, max), n_more = qp_min(n_left, MAX_DRAFT);
    int n_draft = 0;
    const int kept = output_index(s);
    if (kept >= 0) {
        step.first_draw = kept;
        return start_step(s, &step, wait, error);
    }
    repeat_last(s);
    while (s->n - s->sequence->pos > chunk_of(s)) {
        const quip_status status = run_to(s, s->sequence->pos + chunk_of(s), wait, error);
        if (status)
            return status;
    }
    step.n_rows = s->n - s->sequence->pos;
    if (step.n_rows == 1 && n_more > 0 && !s->options.no_speculation) {
        const quip_status status = qp_draft_propose(s, n_more, wait, &n_draft, error);
        if (status)
            return status;
    }
    if (n_draft == 0)
        s->draft.n = 0;
    step.n_rows += n_draft;
    step.n_outputs = step.n_draws = 1 + n_draft;
    if (step.n_rows == 1 && !s->draft.model)
        look_ahead(s, n_left, &step);
    return start_step(s, &step, wait, error);
}

quip_status qp_session_draw(quip_session *s, int max, bool wait, quip_token *token,
                            quip_error *error)
{
    quip_status status = end_step(s, wait, error);
    if (!status && draw_index(s) < 0) {
        status = start_draw(s, max, wait, error);
        if (!status)
            status = end_step(s, wait, error);
    }
    if (!status)
        *token = s->sampled[draw_index(s)];
    return status;
}

void qp_session_accept(quip_session *s, quip_token token)
{
    const int n_right = s->n - s->draft.begin;
    const bool has_draft = s->draft.n > 0; // else the tokens behind n were drawn ahead
    assert(s->n < s->options.n_context && !s->step.is_running);
    if (s->sequence->pos > s->n && s->context[s->n] != token) {
        if (has_draft)
            qp_draft_result(s, n_right);
        drop_draft(s);
    } else if (s->sequence->pos == s->n + 1 && has_draft) {
        qp_draft_result(s, n_right + 1);
    }
    s->roles[s->n] = (uint8_t)s->role;
    s->context[s->n++] = token;
}
