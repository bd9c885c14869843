/* engine.h: sessions, and what moves them forward.
 *   adapter.c   adapters, opened and packed
 *   session.c   open, close, clone; options and adapters of an open session
 *   options.c   checks the options and fills in the defaults
 *   context.c   the tokens of a session, and running them on the device
 *   turns.c     roles and templates -> tokens
 *   talk.c      the same for the template of the model's checkpoint, a Jinja program
 *   input.c     what the caller appends, at once or in steps, and how it is undone
 *   answer.c    outputs -> tokens -> text, until something ends the answer
 *   model_info.c  properties of a model
 *   embed.c     texts -> embeddings, without a session
 *   auto.c      which backend runs a model that was opened for auto
 *   self_test.c does a device compute what the CPU computes?
 *   probe.c     a few tokens on a device, without a session
 *   draft.c     draft tokens: guesses of the next tokens, which run together
 *   draft_model.c  draft tokens of a second, smaller model
 * device.h has the backends and the device, forward.h the forward pass. */
#ifndef QP_ENGINE_H
#define QP_ENGINE_H

#include "engine/device.h"
#include "engine/talk.h"

/* ---- adapter.c ---- */

struct quip_adapter {
    atomic_int n_references;       // the caller's, and one for each session
    quip_model *model;             // that the adapter was checked against; kept open
    struct device_adapter *packed; // by the model's device
    const struct backend *backend; // that packed it
    int max_rank;
};
/* `path` is a PEFT folder, its adapter_model.safetensors, or a MediaPipe LoRA file. */
quip_status qp_adapter_load(quip_adapter **adapter, quip_model *model, const char *path,
                            quip_error *error);
/* `file` is open; it is closed in any case. */
quip_status qp_adapter_load_file(quip_adapter **adapter, quip_model *model, struct file *file,
                                 quip_error *error);
void qp_adapter_retain(quip_adapter *adapter);  // NULL is fine
void qp_adapter_release(quip_adapter *adapter); // the last one closes

/* ---- embed.c ---- */
/* quip_embed; `inputs` and `embeddings` were checked, `options` and `observer` may be NULL. */
quip_status qp_embed(quip_model *m, const quip_embed_input *inputs, int n,
                     const quip_embed_options *options, const struct observer *observer,
                     float *embeddings, size_t capacity, quip_error *error);

/* What a device needs for the longest texts of an embedding model. */
struct capacity qp_embed_capacity(const quip_model *m);

/* ---- draft.c ---- */

#define MAX_DRAFT (SEQUENCE_OUTPUTS - 1)

/* Draft tokens from the context itself. All-zero is the start. */
struct draft_lookup {
    int n_next;            // to propose next time
    int pause, next_pause; // tokens to let pass before it
};
struct draft {
    struct draft_lookup lookup;
    struct draft_model *model; // NULL: none
    bool is_model;             // the draft tokens that run are those of the model
    int begin, n;              // the draft tokens that run: context[begin, begin + n)
};
/* Write at most `max` tokens behind the context that may follow it; *n is their number. Without
 * `wait` it may return QP_NOT_YET: call again. */
quip_status qp_draft_propose(quip_session *s, int max, bool wait, int *n, quip_error *error);
/* Of the draft tokens that ran, the model agreed with the first n_right. */
void qp_draft_result(quip_session *s, int n_right);

/* ---- draft_model.c ---- */

/* Does `draft` have the vocabulary of `target`? */
quip_status qp_draft_model_check(const quip_model *target, const quip_model *draft,
                                 quip_error *error);
/* Options of the draft model's session beside a session with the options `target`. */
quip_session_options qp_draft_model_options(const quip_model *draft,
                                            const quip_session_options *target);
/* Open s->draft.model if the options name a model. Without one the functions below do nothing,
 * except fix_length, propose and result, which need it. */
quip_status qp_draft_model_open(quip_session *s, quip_error *error);
void qp_draft_model_close(struct draft_model *m);
/* From now on always draft this many tokens, whatever it costs; 0: as measured. For tests. */
void qp_draft_model_fix_length(struct draft_model *m, int length);
/* The options of the session have changed. */
void qp_draft_model_follow(quip_session *s);
/* Wait for what the draft model runs, and forget it. */
void qp_draft_model_abandon(struct draft_model *m);
/* The session's tokens from `position` on were removed. */
void qp_draft_model_cut(struct draft_model *m, int position);
quip_status qp_draft_model_copy(struct draft_model *to, const struct draft_model *from,
                                quip_error *error);
/* A step of the session took this time; a token was drawn after each of its n_rows rows. */
void qp_draft_model_step(struct draft_model *m, int n_rows, uint64_t ns);
/* As qp_draft_propose and qp_draft_result; there is a draft model. */
quip_status qp_draft_model_propose(quip_session *s, int max, bool wait, int *n, quip_error *error);
void qp_draft_model_result(struct draft_model *m, int n, int n_right);

/* An answer in progress. */
struct answer {
    bool is_open;
    quip_finish_reason reason;
    struct detokenizer detokenizer;
    struct bytes held;  // text not returned yet: it may be the start of a stop text
    struct bytes piece; // the text that quip_session_next returned last
    int n_shown;        // tokens of the context that quip_session_next has returned
    int n_stop_tokens;  // 1: context[n] is the token that ended the answer, not returned yet
};

/* Copies of the texts of a session's options. */
#define MAX_DRY_BREAKERS 4
struct option_texts {
    struct bytes text;  // each with its NUL
    const char **stops; // [n_stops]: options.stop, then those of the template and of the model
    int n_stops;
    quip_logit_bias *bias; // options.logit_bias, and behind them the model's never_ids
};

/* The state of a conversation that a failed call restores. */
struct mark {
    int n;
    quip_role role;
    bool has_begun;
    size_t n_system;
    int n_prompt_tokens;
};

/* A batch of one session on its device, from start to end. An asynchronous device may work on it
 * while the session's call has returned QP_NOT_YET; the session has the turn until it ends. */
struct step {
    bool is_running;
    int begin;      // sequence->pos before it
    int n_rows;     // tokens that it runs; 0: it only draws from outputs that are kept
    int n_outputs;  // of the last rows
    int first_draw; // of the outputs
    int n_draws;
    int n_logits;      // rows of logits of the outputs from first_draw on, for the caller
    int n_ahead;       // draws behind these, of rows with TOKEN_DRAWN
    bool has_outputs;  // those of the session are of this step
    uint64_t start_ns; // when it began, if the device can draw ahead
    uint64_t began_ns; // when its turn began
};

struct quip_session {
    quip_model *model;
    struct device *device;     // the model's
    struct sequence *sequence; // KV cache
    struct arena arena;        // context and roles
    quip_adapter *adapter;     // NULL: none
    float adapter_scale;
    quip_session_options options; // resolved: no field means "default" any more
    struct option_texts texts;
    struct sampling sampling; // of the options
    quip_token dry_breakers[MAX_DRY_BREAKERS];
    int n_dry_breakers;
    quip_token ends[MAX_ENDS]; // that end an answer
    int n_ends;
    const struct observer *observer; // of calibration; NULL: none

    /* Every token in order, [n_context]. The first sequence->pos are in the KV cache; the others
     * run with the next call that needs them. While sequence->pos > n, those from n on are draft
     * tokens, or were drawn ahead.
     */
    quip_token *context;
    uint8_t *roles; // [n_context] enum quip_role of each token's text
    int n;
    /* The sequence keeps n_outputs outputs; output i follows output_position + i tokens. */
    int output_position, n_outputs;
    /* Tokens that were drawn; sampled[i] follows sampled_position + i tokens. */
    quip_token sampled[AHEAD_DRAWS];
    int sampled_position, n_sampled;
    float *logits; // [n_logits_rows, vocab_size] for the caller; NULL until they are requested
    int n_logits_rows;
    struct draft draft;
    int n_ahead; // tokens that the next step may draw ahead
    struct step step;

    const struct chat_template *chat; // NULL: text goes in as it is
    quip_token chat_stops[4];         // pieces that end the template's turns; -1: none
    struct talk talk;                 // with a Jinja template
    quip_role role;                   // of the last text
    bool has_begun;                   // bos and system prompt are in the context
    struct bytes system;              // system text that waits for the first user turn
    struct mark undo;                 // before the last call that appended something
    bool has_begun_step;              // quip_session_run runs what was appended since then

    struct answer answer;
    quip_result result;
    uint64_t start_ns;   // when the first text after the last answer came in; 0: not yet
    uint64_t pending_ns; // when a call that returned QP_NOT_YET began; 0: none did
    atomic_bool cancelled;
    const quip_session *target; // that this session drafts for: its cancellation ends steps; NULL
};

/* ---- options.c ---- */
/* Options may be NULL. */
quip_status qp_options_check_model(const quip_model_options *o, quip_error *error);
quip_status qp_options_check_source(const quip_source *source, quip_error *error);
quip_status qp_options_check(const quip_model *m, const quip_session_options *o, quip_error *error);
quip_status qp_options_check_adapter(const quip_model *m, const quip_adapter *adapter, float scale,
                                     quip_error *error);
/* Threads that the sessions of a model use. */
int qp_options_n_threads(const quip_model *m);
/* How the model draws where the options are 0. */
const struct sampling_defaults *qp_options_sampling(const quip_model *m);
/* Options with every default filled in, except the seed; the texts are still the caller's. */
quip_session_options qp_options_resolve(const quip_model *m, const quip_session_options *options);
/* Copy the texts of *o for a session that uses `chat`, and point *o at the copies. */
quip_status qp_options_copy_texts(struct option_texts *texts, quip_session_options *o,
                                  const quip_model *m, const struct chat_template *chat,
                                  quip_error *error);
void qp_options_close_texts(struct option_texts *texts);
/* The template that s->options name, or the model's own. */
quip_status qp_options_choose_template(quip_session *s, quip_error *error);
/* Are the options that cannot change zero or the same? `o` was checked. */
quip_status qp_options_check_change(const quip_session *s, const quip_session_options *o,
                                    quip_error *error);

/* ---- model_info.c ---- */
quip_model_info qp_model_info(const quip_model *model); // all fields but struct_size

/* ---- session.c ---- */
quip_status qp_session_open(quip_session **session, quip_model *model,
                            const quip_session_options *options, quip_error *error);
void qp_session_close(quip_session *s);
/* Replace the options; see quip.h for those that cannot change. */
quip_status qp_session_set_options(quip_session *s, const quip_session_options *options,
                                   quip_error *error);
int qp_session_n_threads(const quip_session *s);
quip_status qp_session_clone(quip_session **copy, const quip_session *s, quip_error *error);
/* Copy tokens, keys, values and outputs to an empty session with the same n_context. */
quip_status qp_session_copy_context(quip_session *to, const quip_session *from, quip_error *error);
/* The whole context runs again, with the next call that needs it. */
quip_status qp_session_set_adapter(quip_session *s, quip_adapter *adapter, float scale,
                                   quip_error *error);
/* Memory that a model, its device and a session need. */
quip_status qp_session_measure(const quip_model *model, const quip_session_options *options,
                               quip_plan *plan, quip_error *error);

/* ---- context.c ---- */
/* Wait for a step that runs, if one does: before a call that is not qp_session_draw. */
void qp_session_abandon(quip_session *s);
void qp_session_rewind(quip_session *s, int position);
/* Remove the tokens from `position` on, and nothing else. */
void qp_session_cut(quip_session *s, int position);
/* Forget all keys, values and outputs; the tokens stay. */
void qp_session_reset(quip_session *s);
/* Forget the tokens that were drawn and not used. */
void qp_session_drop_draws(quip_session *s);
struct mark qp_session_mark(const quip_session *s);
void qp_session_return(quip_session *s, const struct mark *mark);
/* QUIP_E_CONTEXT_FULL: n tokens do not fit behind the first n_used. */
quip_status qp_session_fail_full(const quip_session *s, int n_used, int n, quip_error *error);
/* Append tokens to the context without running them; may fail with QUIP_E_CONTEXT_FULL. */
quip_status qp_session_push(quip_session *s, const quip_token *tokens, int n, quip_role role,
                            quip_error *error);
/* Run the tokens that are not in the KV cache, at most `max` of them. After all of them the output
 * of the last one is kept. QUIP_E_CANCELLED consumes the cancellation: the next call is not
 * cancelled, too. Where the device cannot wait it may return QP_NOT_YET: call again. */
quip_status qp_session_run(quip_session *s, int max, quip_error *error);
/* Run all of them, and report the logits after each. */
quip_status qp_session_run_logits(quip_session *s, quip_on_logits *on_logits, void *user,
                                  quip_error *error);
/* The token that follows the context, in an answer that may get `max` tokens after it; draft
 * tokens of those run with it. Without `wait` it may return QP_NOT_YET: call again. */
quip_status qp_session_draw(quip_session *s, int max, bool wait, quip_token *token,
                            quip_error *error);
/* Append a token that was drawn. If it is not the draft token, the draft tokens are dropped. */
void qp_session_accept(quip_session *s, quip_token token);
/* The logits after the last token, or NULL if its output is not kept or memory is short, or not
 * yet: where the device cannot wait, call again. */
const float *qp_session_logits(quip_session *s);

/* When this call began, or the first of those before it that returned QP_NOT_YET. */
static inline uint64_t qp_session_began_ns(quip_session *s)
{
    const uint64_t began_ns = s->pending_ns ? s->pending_ns : qp_now_ns();
    s->pending_ns = 0;
    return began_ns;
}

/* ---- turns.c ---- */
/* Append one text of a role, after the template's text that precedes it, without running it. On
 * failure the session is as before. */
quip_status qp_turn_push(quip_session *s, quip_role role, const char *text, size_t n,
                         quip_error *error);
/* Run at most `max` of the tokens that have not run yet; adds to result.prefill_ns. */
quip_status qp_turn_run(quip_session *s, int max, quip_error *error);
/* Both: append and run all. On failure the session is as before. */
quip_status qp_turn_append(quip_session *s, quip_role role, const char *text, size_t n,
                           quip_error *error);
/* The token ids that qp_turn_push would append, without appending them. */
quip_status qp_turn_tokens(quip_session *s, quip_role role, const char *text, size_t n,
                           struct tokens *out, quip_error *error);
/* Where text[0, n) of a role must be divided so that a token that it spells out stays text: before
 * the last character of the first such token; n if there is none. Such tokens are those that mark
 * turns, and with_control control tokens, too. */
size_t qp_turn_division(const quip_session *s, quip_role role, bool with_control, const char *text,
                        size_t n);
/* Append the template's text before the model's answer, without running it. */
quip_status qp_turn_begin_answer(quip_session *s, quip_error *error);

/* Does the session have a place for the texts of roles? */
static inline bool qp_session_has_roles(const quip_session *s)
{
    return s->chat || s->talk.jinja || s->talk.is_broken;
}

/* ---- talk.c ---- */
/* As the functions of turns.c, for a role and s->talk.jinja. */
quip_status qp_talk_push(quip_session *s, quip_role role, const char *text, size_t n,
                         quip_error *error);
quip_status qp_talk_tokens(quip_session *s, quip_role role, const char *text, size_t n,
                           struct tokens *out, quip_error *error);
quip_status qp_talk_begin_answer(quip_session *s, quip_error *error);
/* From here quip_session_undo goes back to this point; go back. */
void qp_talk_begin_input(quip_session *s);
void qp_talk_undo(quip_session *s);
void qp_talk_rewind(quip_session *s, int position);
bool qp_talk_copy(struct talk *to, const struct talk *from); // `to` is new
void qp_talk_close(struct talk *talk);

/* ---- input.c ---- */
/* Append a text or tokens and run them, or report the logits after each token. On failure the
 * session is as before. */
quip_status qp_input_text(quip_session *s, quip_role role, const char *text, size_t n,
                          quip_error *error);
quip_status qp_input_tokens(quip_session *s, const quip_token *tokens, int n, quip_error *error);
quip_status qp_input_tokens_logits(quip_session *s, const quip_token *tokens, int n,
                                   quip_on_logits *on_logits, void *user, quip_error *error);
/* The same in steps: only append; then run at most max_tokens. *n_left is the number of tokens that
 * have not run. */
quip_status qp_input_begin_text(quip_session *s, quip_role role, const char *text, size_t n,
                                int *n_left, quip_error *error);
quip_status qp_input_begin_tokens(quip_session *s, const quip_token *tokens, int n, int *n_left,
                                  quip_error *error);
quip_status qp_input_run(quip_session *s, int max_tokens, int *n_left, quip_error *error);
/* Return to the state before the last input; remove the tokens from `position` on. */
void qp_input_undo(quip_session *s);
void qp_input_rewind(quip_session *s, int position);

/* ---- answer.c ---- */
/* The next piece of the answer. Without `wait` it may return QP_NOT_YET: call again. The CPU is
 * always done. Until then the session may have a turn on the device (struct step): the thread does
 * not make a call that waits on another session of the same model. */
quip_status qp_answer_next(quip_session *s, bool wait, quip_piece *piece, quip_error *error);
/* Generate the whole answer, each piece to on_text, which may be NULL. */
quip_status qp_answer_generate(quip_session *s, quip_on_text *on_text, void *user,
                               quip_error *error);
/* End the answer in progress, if there is one: the next qp_answer_next begins a new one. */
void qp_answer_end(quip_session *s);
/* A new text or new tokens: end the answer, and start the figures of the next one. */
void qp_answer_begin_input(quip_session *s);

#endif
