/* turns.h: threads take turns on one resource, fairly.
 * A short turn (a decode step) waits for at most one long turn (a prefill chunk). A long turn waits
 * for one short turn of each thread, and for the long turns that asked before it. */
#ifndef QP_TURNS_H
#define QP_TURNS_H

#include <stdatomic.h>
#include <stdbool.h>

enum turn_kind {
    TURN_SHORT,
    TURN_LONG
};

struct turns;

struct turns *qp_turns_open(void);    // NULL: no memory
void qp_turns_close(struct turns *t); // ignores NULL

/* Get the next turn. False if it would have to wait and `wait` is false, or if *cancelled (may be
 * NULL) became true while it waited. The owner of a turn does not ask for another one. */
bool qp_turns_enter(struct turns *t, enum turn_kind kind, bool wait, const atomic_bool *cancelled);
void qp_turns_leave(struct turns *t);

#endif
