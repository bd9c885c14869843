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
    int n_tokens;
};

struct quip_session {
    quip_model *model;
    struct run run;
    struct arena arena; // buffers, kv cache, sampler
    int n_threads, max_output_tokens;
    bool use_template;
    struct bytes option_text; // stop texts and system prompt, NUL-terminated, one after another
    int n_stop;
    const char *system; // NULL: the template's own
    struct sampler sampler;

    /* The context: every token in order. The first run.pos of them are in the kv cache; the rest are
     * fed with the next run. */
    struct tokens context;
    bool has_logits;       // of the last token in the cache
    enum quip_role role;   // of the last text
    bool has_begun;        // bos and system prompt are in
    bool system_pending;   // a system text waits for the first user turn
    struct bytes system_text;
    struct answer answer;
    quip_result result;
    uint64_t start_ns; // of the call that result's times count from
    atomic_bool cancelled;
};

/* ---- session.c ---- */
quip_status qp_session_open(quip_session **session, quip_model *model,
                            const quip_session_options *options, quip_error *error);
void qp_session_close(quip_session *s);
quip_status qp_session_clone(quip_session **copy, const quip_session *s, quip_error *error);
void qp_session_rewind(quip_session *s, int position);
/* Memory that a session would take: kv and everything else. */
void qp_session_measure(const quip_model *model, const quip_session_options *options,
                        quip_plan *plan);
/* Append tokens to the context without running them. */
quip_status qp_session_push(quip_session *s, const quip_token *tokens, int n, quip_error *error);
/* Run what the cache does not hold yet, with logits after the last token. */
quip_status qp_session_feed(quip_session *s, quip_error *error);

/* ---- turns.c ---- */
quip_status qp_turn_append(quip_session *s, quip_role role, const char *text, size_t n,
                           quip_error *error);

/* ---- answer.c ---- */
quip_status qp_answer_next(quip_session *s, const char **text, size_t *n,
                           quip_finish_reason *reason, quip_error *error);
void qp_answer_close(quip_session *s);

#endif
