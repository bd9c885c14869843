/* engine.h: sessions: a position in a kv cache, and what moves it forward.
 *   forward.c   tokens -> logits
 *   session.c   open, close, clone, rewind; feeding tokens
 *   turns.c     roles and templates -> tokens
 *   answer.c    logits -> tokens -> text, until something ends it */
#ifndef QP_ENGINE_H
#define QP_ENGINE_H

#include "engine/ops.h"
#include "sampler/sampler.h"

enum logits_wanted {
    LOGITS_NONE, // of a prompt's chunk that is not its last
    LOGITS_LAST, // after the last token, into buffers.logits
    LOGITS_ALL   // after every token, each shown to on_logits
};

/* Run n tokens. False when cancelled or when on_logits said stop; then r->pos has not moved. */
bool qp_forward(struct run *r, const quip_token *tokens, int n, enum logits_wanted wanted,
                quip_on_logits *on_logits, void *user, atomic_bool *cancelled);

/* Tokens that go through the layers together in prefill: enough to amortise unpacking the weights,
 * few enough to keep the buffers small (docs/performance.md). */
#define PREFILL_CHUNK 256

/* An answer in progress. */
struct answer {
    bool is_open;
    quip_finish_reason reason;
    struct detokenizer detokenizer;
    struct bytes held;  // text not handed out yet: it may be the start of a stop text
    struct bytes piece; // what quip_next handed out last
};

struct quip_session {
    quip_model *model;
    struct run run;
    struct arena arena;           // buffers, kv cache, context, sampler
    quip_session_options options; // resolved: no field means "default" any more
    struct bytes option_text;     // what options.stop and options.system point into
    const char **stops;           // [n_stops]: options.stop, then the template's own
    int n_stops;
    struct sampler sampler;

    /* Every token in order, [n_context]. The first run.pos are in the kv cache; the rest are run
     * with the next call that needs them. */
    quip_token *context;
    uint8_t *roles; // [n_context] enum quip_role of each token's text
    int n;
    int logits_position; // buffers.logits are those after this many tokens; -1: of none

    const struct chat_template *chat; // NULL: text goes in as it is
    quip_token chat_stops[4];         // pieces that end the template's turns; -1: none
    quip_role role;                   // of the last text
    bool has_begun;                   // bos and system prompt have been seen to
    struct bytes system;              // system text that waits for the first user turn

    struct answer answer;
    quip_result result;
    uint64_t start_ns; // when the first text after the last answer came in; 0: not yet
    atomic_bool cancelled;
};

/* ---- session.c ---- */
quip_status qp_session_open(quip_session **session, quip_model *model,
                            const quip_session_options *options, quip_error *error);
void qp_session_close(quip_session *s);
quip_status qp_session_clone(quip_session **copy, const quip_session *s, quip_error *error);
void qp_session_rewind(quip_session *s, int position);
/* Where a conversation stands: what a call that fails half-way goes back to. */
struct place {
    int n;
    quip_role role;
    bool has_begun;
    size_t n_system;
    int n_prompt_tokens;
};
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
/* The same, showing the logits after every token that was not run yet. */
quip_status qp_session_feed_all(quip_session *s, quip_on_logits *on_logits, void *user,
                                quip_error *error);

/* ---- turns.c ---- */
/* Append one text of a role, with what the template puts in front, and run it. On failure the
 * session is as before. */
quip_status qp_turn_append(quip_session *s, quip_role role, const char *text, size_t n,
                           quip_error *error);
/* The ids that this adds, without appending them. */
quip_status qp_turn_tokens(quip_session *s, quip_role role, const char *text, size_t n,
                           struct tokens *out, quip_error *error);
/* Append what the template puts before the model's answer, without running it. */
quip_status qp_turn_begin_answer(quip_session *s, quip_error *error);

/* ---- answer.c ---- */
quip_status qp_answer_next(quip_session *s, const char **text, size_t *n,
                           quip_finish_reason *reason, quip_error *error);
/* Whatever was being said is over: the next quip_next begins a new answer. */
void qp_answer_end(quip_session *s);

#endif
