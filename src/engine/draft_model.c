/* draft_model.c: draft tokens from a second, smaller model with the same vocabulary.
 * In:  the context of a session (the target).
 * Out: the tokens that the draft model draws after it.
 *
 * The draft model has a session of its own, whose context follows that of the target. It draws as
 * the target does, with the same seed: the random number of a position is the same for both, so
 * draft tokens also agree at a high temperature. The target draws each token itself, and a draft
 * token counts only where it is that one.
 *
 * How many tokens to draft is decided by what was measured: the time of a draft token, the time of
 * a step of the target with 1 to 8 rows, and how many draft tokens were right. What drafting saves
 * is added to an account, and what it costs is subtracted. Without a balance there is no drafting,
 * so a draft model that is wrong costs a fixed small part of the time. None of this changes the
 * answer. */
#include "engine/engine.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    FIRST_LENGTH = 3,  // before anything was measured
    FIRST_BALANCE = 2, // steps of the target that drafting may lose at first,
    MAX_BALANCE = 32,  // and at most, after it saved some
    PLAIN_SHARE = 128, // one part of this many of the other steps' time is added
    FORGET = 256,      // steps after which the time of a number of rows is unknown again
    N_REMEMBERED = 32, // draft tokens that the rate of success is made of
    FIRST_WAIT = 8,    // steps before a try while drafting does not pay,
    LONGEST_WAIT = 128 // doubled after each failure
};
/* The success that is assumed at first: this many tokens right, of this many. */
static const float first_right = 1.4f, first_tried = 2.0f;
static const float first_row_cost = 0.1f; // of one more row, before it is known
static const float least_gain = 1.02f;    // drafting must be so much faster than not drafting

struct draft_model {
    quip_session *session; // of the draft model
    int n_same;            // tokens that its context has in common with the target's, at least
    /* Measured times in ns; 0: not yet. */
    float token_ns;                      // a draft token
    float catch_up_ns;                   // a token that the draft model runs in a long batch
    float step_ns[SEQUENCE_OUTPUTS + 1]; // a step of the target, by its rows
    int step_age[SEQUENCE_OUTPUTS + 1];  // steps since then
    float n_right, n_tried;              // draft tokens, the latest counting most
    float balance_ns;
    int wait, next_wait; // steps before the next try
    int fixed_length;    // instead of all this; 0: none
    /* The draft tokens that are being made, or run. */
    bool is_running;       // they are being made
    int length;            // how many
    float charged_part;    // of the time to catch up, 0 to 1
    float charged_ns;      // what the account pays for making them,
    float charged_step_ns; // and for the step of the target
};

/* ---- vocabulary ---- */

/* Pieces that no text has: rows that pad a vocabulary to a round size. */
static bool is_padding(const struct tokenizer *t, quip_token id)
{
    return id >= qp_tokenizer_n_tokens(t) || qp_tokenizer_piece_type(t, id) == PIECE_UNUSED;
}

quip_status qp_draft_model_check(const quip_model *target, const quip_model *draft,
                                 quip_error *error)
{
    const struct tokenizer *a = target->tokenizer, *b = draft->tokenizer;
    const int n = qp_max(qp_tokenizer_n_tokens(a), qp_tokenizer_n_tokens(b));
    if (draft->embedding.pooling)
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s: is an embedding model, which cannot draft tokens", draft->file.name);
    for (int id = 0; id < n && a != b; id++) {
        size_t n_a = 0, n_b = 0;
        if (is_padding(a, id) || is_padding(b, id))
            continue;
        const char *piece_a = qp_tokenizer_piece(a, id, &n_a);
        const char *piece_b = qp_tokenizer_piece(b, id, &n_b);
        if (n_a != n_b || memcmp(piece_a, piece_b, n_a))
            return qp_fail(error, QUIP_E_ARGUMENT,
                           "%s: cannot draft for %s: token %d is \"%.*s\", expected \"%.*s\"; a "
                           "draft model needs the same vocabulary",
                           draft->file.name, target->file.name, id, qp_min((int)n_b, 60), piece_b,
                           qp_min((int)n_a, 60), piece_a);
    }
    return QUIP_OK;
}

/* ---- open and close ---- */

quip_session_options qp_draft_model_options(const quip_model *draft,
                                            const quip_session_options *target)
{
    const int max = draft->config.n_context_max;
    return (quip_session_options){ .n_context =
                                       max ? qp_min(target->n_context, max) : target->n_context,
                                   .n_threads = target->n_threads,
                                   .no_template = true,
                                   .no_speculation = true,
                                   .greedy = true,
                                   .has_seed = true,
                                   .seed = target->seed };
}

static bool are_tokens_of(const quip_model *m, const quip_token *tokens, int n)
{
    for (int i = 0; i < n; i++)
        if (tokens[i] >= m->config.vocab_size)
            return false;
    return true;
}

void qp_draft_model_follow(quip_session *s)
{
    struct draft_model *m = s->draft.model;
    if (!m)
        return;
    const quip_model *model = m->session->model;
    struct sampling *o = &m->session->sampling;
    *o = s->sampling;
    if (!are_tokens_of(model, o->ends, o->n_ends))
        o->n_ends = 0;
    if (!are_tokens_of(model, o->dry_breakers, o->n_dry_breakers))
        o->n_dry_breakers = 0;
    for (int i = 0; i < o->n_bias; i++)
        if (!are_tokens_of(model, &o->bias[i].token, 1))
            o->n_bias = 0;
    m->session->options.seed = s->options.seed;
    m->session->options.n_threads = qp_min(s->options.n_threads, qp_options_n_threads(model));
    qp_session_drop_draws(m->session);
}

quip_status qp_draft_model_open(quip_session *s, quip_error *error)
{
    quip_model *draft = s->options.draft;
    if (!draft)
        return QUIP_OK;
    struct draft_model *m = s->draft.model = calloc(1, sizeof *m);
    if (!m)
        return qp_fail_memory(error, "a draft model", sizeof *m);
    const quip_session_options options = qp_draft_model_options(draft, &s->options);
    m->n_right = first_right;
    m->n_tried = first_tried;
    const quip_status status = qp_session_open(&m->session, draft, &options, error);
    if (status)
        return status;
    m->session->target = s;
    qp_draft_model_follow(s);
    return QUIP_OK;
}

void qp_draft_model_close(struct draft_model *m)
{
    if (m)
        qp_session_close(m->session);
    free(m);
}

void qp_draft_model_abandon(struct draft_model *m)
{
    if (!m || !m->session) // it could not be opened
        return;
    qp_session_abandon(m->session);
    m->is_running = false;
}

void qp_draft_model_cut(struct draft_model *m, int position)
{
    if (m)
        m->n_same = qp_min(m->n_same, position);
}

quip_status qp_draft_model_copy(struct draft_model *to, const struct draft_model *from,
                                quip_error *error)
{
    if (!from)
        return QUIP_OK;
    quip_session *session = to->session;
    assert(!from->is_running);
    *to = *from;
    to->session = session;
    return qp_session_copy_context(session, from->session, error);
}

void qp_draft_model_fix_length(struct draft_model *m, int length)
{
    assert(length >= 0 && length <= MAX_DRAFT);
    m->fixed_length = length;
}

/* ---- what was measured ---- */

/* Lower values count at once, higher ones little by little: other programs only make things slower,
 * and the first time of everything is slow. */
static void measure(float *ns, float sample)
{
    if (*ns == 0)
        *ns = sample;
    else
        *ns += (sample - *ns) * (sample < *ns ? 0.75f : 0.125f);
}

/* The time of a step of the target. For an unknown number of rows it is that of fewer rows, and a
 * little more for each row: less than most processors need, so that it is tried and then known. */
static float step_cost(const struct draft_model *m, int n_rows)
{
    int n_known = n_rows;
    while (n_known > 1 && m->step_ns[n_known] == 0)
        n_known--;
    return m->step_ns[n_known] + (float)(n_rows - n_known) * first_row_cost * m->step_ns[1];
}

void qp_draft_model_step(struct draft_model *m, int n_rows, uint64_t ns)
{
    if (!m || n_rows < 1 || n_rows > SEQUENCE_OUTPUTS)
        return;
    for (int i = 1; i <= SEQUENCE_OUTPUTS; i++)
        if (++m->step_age[i] > FORGET)
            m->step_ns[i] = 0;
    m->step_age[n_rows] = 0;
    measure(&m->step_ns[n_rows], (float)ns);
    m->charged_step_ns = (float)ns;
    if (n_rows == 1)
        m->balance_ns += (float)ns / PLAIN_SHARE;
}

/* The number of draft tokens, at most `max`, with which the most tokens per time are expected. */
static int best_length(const struct draft_model *m, int max)
{
    const float p = m->n_right / m->n_tried;
    float best = least_gain / m->step_ns[1], power = 1, n_tokens = 1;
    int length = 0;
    for (int n = 1; n <= max; n++) {
        power *= p;
        n_tokens += power;
        const float rate = n_tokens / (step_cost(m, 1 + n) + (float)n * m->token_ns);
        if (rate > best) {
            best = rate;
            length = n;
        }
    }
    return length;
}

/* The time to run tokens that the draft model only has to catch up with. */
static float catch_up_cost(const struct draft_model *m, int n)
{
    const float each = m->catch_up_ns > 0 ? m->catch_up_ns : m->token_ns / 4;
    return n > SEQUENCE_OUTPUTS ? (float)n * each : 0;
}

/* Choose the number of draft tokens, for a draft model that has n_behind tokens to run, of which
 * n_drawn are of this answer. If drafting has paid so far, running the prompt is not charged. */
static int choose_length(struct draft_model *m, int max, int n_behind, int n_drawn)
{
    m->charged_part = 0;
    if (m->fixed_length > 0)
        return qp_min(m->fixed_length, max);
    if (max == 0 || m->step_ns[1] == 0)
        return 0;
    if (m->token_ns == 0) {
        m->balance_ns = FIRST_BALANCE * m->step_ns[1];
        return qp_min(FIRST_LENGTH, max);
    }
    int length = best_length(m, max);
    const bool pays = length > 0;
    if (!pays && m->wait > 0) {
        m->wait--;
        return 0;
    }
    length = pays ? length : 1;
    const int n_charged = pays ? qp_min(n_behind, n_drawn) : n_behind;
    m->charged_part = n_behind > 0 ? (float)n_charged / (float)n_behind : 0;
    const float cost = step_cost(m, 1 + length) - m->step_ns[1] + (float)length * m->token_ns +
                       catch_up_cost(m, n_charged);
    return cost <= m->balance_ns ? length : 0;
}

void qp_draft_model_result(struct draft_model *m, int n, int n_right)
{
    const float most = MAX_BALANCE * m->step_ns[1];
    assert(n > 0 && n_right <= n);
    m->balance_ns += (float)(n_right + 1) * m->step_ns[1] - m->charged_step_ns - m->charged_ns;
    m->balance_ns = m->balance_ns < most ? m->balance_ns : most;
    m->n_right += (float)n_right;
    m->n_tried += (float)qp_min(n_right + 1, n);
    if (m->n_tried > N_REMEMBERED) {
        m->n_right *= N_REMEMBERED / m->n_tried;
        m->n_tried = N_REMEMBERED;
    }
    if (n_right > 0)
        m->wait = m->next_wait = 0;
    else
        m->wait = m->next_wait = m->next_wait ? qp_min(2 * m->next_wait, LONGEST_WAIT) : FIRST_WAIT;
}

/* ---- propose ---- */

/* Give the draft session the target's context. What it has beyond that are draft tokens already. */
static quip_status follow_context(struct draft_model *m, const quip_session *s, quip_error *error)
{
    quip_session *d = m->session;
    const int n = qp_min(d->n, s->n);
    while (m->n_same < n && d->context[m->n_same] == s->context[m->n_same])
        m->n_same++;
    if (m->n_same < d->n && m->n_same < s->n)
        qp_session_cut(d, m->n_same);
    if (d->n >= s->n)
        return QUIP_OK;
    const quip_status status =
        qp_session_push(d, s->context + d->n, s->n - d->n, QUIP_ROLE_NONE, error);
    m->n_same = status ? m->n_same : s->n;
    return status;
}

/* Draw draft tokens until there are m->length. */
static quip_status draw_tokens(struct draft_model *m, const quip_session *s, bool wait,
                               quip_error *error)
{
    quip_session *d = m->session;
    quip_status status = QUIP_OK;
    while (d->n - s->n < m->length && !status) {
        quip_token token;
        const uint64_t start_ns = qp_now_ns();
        const int n_rows = d->n - d->sequence->pos;
        status = qp_session_draw(d, 0, wait, &token, error);
        if (status)
            return status;
        qp_session_accept(d, token);
        const float ns = (float)(qp_now_ns() - start_ns);
        const bool is_catch_up = n_rows > SEQUENCE_OUTPUTS;
        if (is_catch_up)
            measure(&m->catch_up_ns, ns / (float)n_rows);
        else
            measure(&m->token_ns, ns);
        m->charged_ns += is_catch_up ? m->charged_part * ns : ns;
    }
    return status;
}

/* Start to make draft tokens, if they are expected to pay. */
static quip_status begin_tokens(struct draft_model *m, const quip_session *s, int max,
                                quip_error *error)
{
    const quip_session *d = m->session;
    const int n_left = d->options.n_context - s->n, n_behind = s->n - qp_min(m->n_same, s->n);
    if (n_left < 1 || !are_tokens_of(d->model, s->context + s->n - n_behind, n_behind))
        return QUIP_OK; // beyond what the draft model knows
    m->length = choose_length(m, qp_min(max, n_left), n_behind, s->result.n_output_tokens);
    if (m->length == 0)
        return QUIP_OK;
    const quip_status status = follow_context(m, s, error);
    m->is_running = !status;
    m->charged_ns = 0;
    return status;
}

quip_status qp_draft_model_propose(quip_session *s, int max, bool wait, int *n, quip_error *error)
{
    struct draft_model *m = s->draft.model;
    const quip_session *d = m->session;
    quip_status status = QUIP_OK;
    *n = 0;
    if (!m->is_running)
        status = begin_tokens(m, s, max, error);
    if (!m->is_running || status)
        return status;
    status = draw_tokens(m, s, wait, error);
    if (status == QP_NOT_YET)
        return status;
    m->is_running = false;
    if (status)
        return status == QUIP_E_CANCELLED ? QUIP_OK : status; // the target's step notices it, too
    for (; *n < m->length && d->context[s->n + *n] < s->model->config.vocab_size; ++*n)
        s->context[s->n + *n] = d->context[s->n + *n];
    return QUIP_OK;
}
