/* talk.h: a conversation that the model's own chat template spells (talk.c). */
#ifndef QP_TALK_H
#define QP_TALK_H

#include "jinja/jinja.h"

/* A text of one role. The positions are -1 when the template has rewritten that part since then. */
struct talk_turn {
    quip_role role;
    int begin, end;          // of the context: before an answer, and after the text
    size_t fed_begin, fed_n; // of the text that was fed, at the same places
    size_t n;                // bytes of the text
};
/* The first `text` bytes of the text that was fed are the first `pos` tokens of the context, and
 * the next token does not depend on how those were divided. */
struct talk_point {
    size_t text;
    int pos;
};

struct talk_state {
    struct bytes contents; // of all turns
    struct bytes turns;    // struct talk_turn
    struct bytes fed;      // text of the context, as the template rendered it
    struct bytes points;   // struct talk_point
    int n_known;           // tokens that the fields above account for; an answer may follow
    int floor;             // tokens that have no role and cannot be rewritten
    bool is_cut;           // rewound to the middle of a text
};

struct talk {
    const struct jinja *jinja; // NULL: the session has another template, or none
    bool is_own;               // jinja is the session's, not the model's
    bool is_broken;            // the model has a template that is not supported
    struct jinja_time now;     // of the first rendering
    bool has_now;
    struct talk_state state, before; // before: what quip_session_undo returns to,
    bool is_before;                  // unless nothing has changed since then
    int before_n, tail_begin;        // its context; what is in `tail` was replaced
    struct bytes tail, tail_roles;
};

#endif
