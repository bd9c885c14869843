/* engine.h: sessions: a position in a kv cache, and what moves it forward.
 *   forward.c   tokens -> logits
 *   adapter.c   adapters, opened and packed
 *   options.c   options, checked and complete
 *   session.c   open, close, clone, rewind; feeding tokens
 *   turns.c     roles and templates -> tokens
 *   answer.c    logits -> tokens -> text, until something ends it
 *   draft.c     guesses of the tokens to come, to run several at once */
#ifndef QP_ENGINE_H
#define QP_ENGINE_H

#include "engine/ops.h"
#include "sampler/sampler.h"

enum logits_wanted {
    LOGITS_NONE, // of a prompt's chunk that is not its last
    LOGITS_LAST, // after the last token, into buffers.logits
    LOGITS_EACH, // after each of at most LOGITS_ROWS tokens, all into buffers.logits
    LOGITS_ALL   // after every token, each shown to on_logits
};

/* Run n tokens. False when cancelled or when on_logits said stop; then r->pos has not moved. */
bool qp_forward(struct run *r, const quip_token *tokens, int n, enum logits_wanted wanted,
                quip_on_logits *on_logits, void *user, atomic_bool *cancelled);

/* Tokens that go through the layers together in prefill: enough to amortise unpacking the weights,
 * few enough to keep the buffers small (docs/performance.md). */
#define PREFILL_CHUNK 512

/* ---- adapter.c ---- */

struct quip_adapter {
    atomic_int n_references; // the caller's, and one for each session
    quip_model *model;       // that the adapter was checked against; kept open
    struct packed_adapter packed;
};
/* `path` is a PEFT folder, its adapter_model.safetensors, or a MediaPipe LoRA file. */
quip_status qp_adapter_load(quip_adapter **adapter, quip_model *model, const char *path,
                            quip_error *error);
/* `file` is open; it is closed in any case. */
quip_status qp_adapter_load_file(quip_adapter **adapter, quip_model *model, struct file *file,
                                 quip_error *error);
void qp_adapter_retain(quip_adapter *adapter);  // NULL is fine
void qp_adapter_release(quip_adapter *adapter); // the last one closes

/* ---- draft.c ---- */

#define MAX_GUESS 7 // with the token before them one group of the kernels

/* How guessing goes. All-zero is the start. */
struct draft {
    int n_next;            // guesses to make next time
    int pause, next_pause; // tokens to let pass before it
    int begin, n;          // the guesses under way: context[begin, begin + n)
};
/* Write at most `max` guesses of what follows context[0, n) to `guess`; returns how many. */
int qp_draft_guess(struct draft *d, const quip_token *context, int n, quip_token *guess, int max);
/* Of the guesses under way the first n_right came true. */
void qp_draft_result(struct draft *d, int n_right);

/* An answer in progress. */
struct answer {
    bool is_open;
    quip_finish_reason reason;
    struct detokenizer detokenizer;
    struct bytes held;  // text not handed out yet: it may be the start of a stop text
    struct bytes piece; // what quip_session_next handed out last
    int n_shown;        // tokens of the context that were handed out
    int n_stop_tokens;  // 1: context[n] is the token that ended the answer, not handed out yet
};

/* Copies of the texts of a session's options. */
struct option_texts {
    struct bytes text;  // each with its NUL
    const char **stops; // [n_stops]: options.stop, then those of the template and of the model
    int n_stops;
};

/* The state of a conversation that a failed call restores. */
struct place {
    int n;
    quip_role role;
    bool has_begun;
    size_t n_system;
    int n_prompt_tokens;
};

struct quip_session {
    quip_model *model;
    struct run run;
    struct arena arena; // buffers, kv cache, context
    struct arena sampler_arena;
    quip_adapter *adapter; // NULL: none
    float adapter_scale;
    struct arena adapter_arena;   // what the adapter needs beside the buffers
    int max_threads;              // that the session has scratch memory for
    quip_session_options options; // resolved: no field means "default" any more
    struct option_texts texts;
    struct sampler sampler;

    /* Every token in order, [n_context]. The first run.pos are in the kv cache; the rest are run
     * with the next call that needs them. While run.pos > n, those from n on are guesses. */
    quip_token *context;
    uint8_t *roles; // [n_context] enum quip_role of each token's text
    int n;
    int logits_position; // the first row of buffers.logits is after this many tokens; -1: no row is
    int n_logits;        // rows; each is one token further
    struct draft draft;

    const struct chat_template *chat; // NULL: text goes in as it is
    quip_token chat_stops[4];         // pieces that end the template's turns; -1: none
    quip_role role;                   // of the last text
    bool has_begun;                   // bos and system prompt have been seen to
    struct bytes system;              // system text that waits for the first user turn
    struct place undo;                // before the last call that appended something
    bool has_begun_step;              // quip_session_run runs what was appended since then

    struct answer answer;
    quip_result result;
    uint64_t start_ns; // when the first text after the last answer came in; 0: not yet
    atomic_bool cancelled;
};

/* ---- options.c ---- */
/* Options may be NULL. */
quip_status qp_options_check_model(const quip_model_options *o, quip_error *error);
quip_status qp_options_check_source(const quip_source *source, quip_error *error);
quip_status qp_options_check_backend(int32_t backend, quip_error *error);
quip_status qp_options_check(const quip_model *m, const quip_session_options *o, quip_error *error);
quip_status qp_options_check_adapter(const quip_model *m, const quip_adapter *adapter, float scale,
                                     quip_error *error);
/* Threads that the sessions of a model use. */
int qp_options_n_threads(const quip_model *m);
/* Options with every default filled in, except the seed; the texts are still the caller's. */
quip_session_options qp_options_resolve(const quip_model *m, const quip_session_options *options);
/* Copy the texts of *o for a session that uses `chat`, and point *o at the copies. */
quip_status qp_options_copy_texts(struct option_texts *texts, quip_session_options *o,
                                  const quip_model *m, const struct chat_template *chat,
                                  quip_error *error);
void qp_options_close_texts(struct option_texts *texts);
/* The template that s->options name, or the model's own. */
void qp_options_choose_template(quip_session *s);
/* Are the options that cannot change zero or the same? `o` was checked. */
quip_status qp_options_check_change(const quip_session *s, const quip_session_options *o,
                                    quip_error *error);

/* ---- session.c ---- */
quip_status qp_session_open(quip_session **session, quip_model *model,
                            const quip_session_options *options, quip_error *error);
void qp_session_close(quip_session *s);
/* Replace the options; see quip.h for those that cannot change. */
quip_status qp_session_set_options(quip_session *s, const quip_session_options *options,
                                   quip_error *error);
int qp_session_n_threads(const quip_session *s);
quip_status qp_session_clone(quip_session **copy, const quip_session *s, quip_error *error);
void qp_session_rewind(quip_session *s, int position);
/* The whole context is run again, with the next call that needs it. */
quip_status qp_session_set_adapter(quip_session *s, quip_adapter *adapter, float scale,
                                   quip_error *error);
struct place qp_session_place(const quip_session *s);
void qp_session_return(quip_session *s, const struct place *place);
/* Memory that a session would take: kv and everything else. */
quip_status qp_session_measure(const quip_model *model, const quip_session_options *options,
                               quip_plan *plan, quip_error *error);
/* Append tokens to the context without running them; QUIP_E_CONTEXT_FULL says how many are left. */
quip_status qp_session_push(quip_session *s, const quip_token *tokens, int n, quip_role role,
                            quip_error *error);
/* Run what the cache does not hold yet. Afterwards buffers.logits are those after the last token.
 * QUIP_E_CANCELLED takes the cancellation: the next call is not cancelled too. */
quip_status qp_session_feed(quip_session *s, quip_error *error);
/* At most `max` tokens of that. */
quip_status qp_session_feed_some(quip_session *s, int max, quip_error *error);
/* The same in an answer that may take `max` more tokens: guesses are run along. */
quip_status qp_session_feed_answer(quip_session *s, int max, quip_error *error);
/* Append a sampled token; guesses that it proves wrong are dropped. */
void qp_session_accept(quip_session *s, quip_token id);
/* The logits after the last token, or NULL. */
const float *qp_session_logits(const quip_session *s);
/* The same, showing the logits after every token that was not run yet. */
quip_status qp_session_feed_all(quip_session *s, quip_on_logits *on_logits, void *user,
                                quip_error *error);

/* ---- turns.c ---- */
/* A new text or new tokens: whatever was being said is over, and the figures start anew. */
void qp_turn_begin_input(quip_session *s);
/* Append one text of a role, with what the template puts in front, without running it. On failure
 * the session is as before. */
quip_status qp_turn_push(quip_session *s, quip_role role, const char *text, size_t n,
                         quip_error *error);
/* Run at most `max` of the tokens that were not run yet, on the prompt's clock. */
quip_status qp_turn_run(quip_session *s, int max, quip_error *error);
/* Both: append and run all. On failure the session is as before. */
quip_status qp_turn_append(quip_session *s, quip_role role, const char *text, size_t n,
                           quip_error *error);
/* The ids that this adds, without appending them. */
quip_status qp_turn_tokens(quip_session *s, quip_role role, const char *text, size_t n,
                           struct tokens *out, quip_error *error);
/* Append what the template puts before the model's answer, without running it. */
quip_status qp_turn_begin_answer(quip_session *s, quip_error *error);

/* ---- answer.c ---- */
quip_status qp_answer_next(quip_session *s, quip_piece *piece, quip_error *error);
/* Whatever was being said is over: the next quip_session_next begins a new answer. */
void qp_answer_end(quip_session *s);

#endif
