/* turns.c: a queue of threads that wait for a short or a long turn.
 * In:  threads that ask for a turn.
 * Out: one of them at a time has it.
 *
 * Turns come in rounds. When a long turn ends, all short turns that wait then are in the next
 * round: they go first, in their order, and one long turn follows them. So neither kind starves,
 * and a short turn that arrives during a round waits for at most the long turn that ends it. */
#include "base/turns.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#define LOOK_NS 5000000 // between two looks at *cancelled while waiting

/* A waiting thread, on that thread's stack. */
struct waiter {
    struct waiter *next;
    enum turn_kind kind;
    bool is_in_round;
    bool is_granted;
};

struct turns {
    pthread_mutex_t lock;
    pthread_cond_t granted;
    bool is_taken;
    enum turn_kind kind;    // of the turn that is taken
    struct waiter *waiters; // in the order of their arrival
};

struct turns *qp_turns_open(void)
{
    struct turns *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->granted, NULL);
    return t;
}

void qp_turns_close(struct turns *t)
{
    if (!t)
        return;
    assert(!t->is_taken && !t->waiters);
    pthread_cond_destroy(&t->granted);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

/* Wait for a grant, for a short time where the system can limit it. WebAssembly's calls come from
 * one thread, which does not wait for itself. */
static void wait_a_little(struct turns *t)
{
#if defined(__wasm__)
    pthread_cond_wait(&t->granted, &t->lock);
#else
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += LOOK_NS;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_cond_timedwait(&t->granted, &t->lock, &until);
#endif
}

static void remove_waiter(struct turns *t, const struct waiter *w)
{
    struct waiter **at = &t->waiters;
    while (*at != w)
        at = &(*at)->next;
    *at = w->next;
}

/* Join the queue and wait. The lock is held. */
static bool wait_in_queue(struct turns *t, enum turn_kind kind, const atomic_bool *cancelled)
{
    struct waiter self = { .kind = kind };
    struct waiter **end = &t->waiters;
    while (*end)
        end = &(*end)->next;
    *end = &self;
    while (!self.is_granted) {
        if (cancelled && atomic_load(cancelled)) {
            remove_waiter(t, &self);
            return false;
        }
        wait_a_little(t);
    }
    return true;
}

bool qp_turns_enter(struct turns *t, enum turn_kind kind, bool wait, const atomic_bool *cancelled)
{
    bool is_mine = true;
    pthread_mutex_lock(&t->lock);
    if (t->is_taken) {
        is_mine = wait && wait_in_queue(t, kind, cancelled);
    } else {
        t->is_taken = true;
        t->kind = kind;
    }
    pthread_mutex_unlock(&t->lock);
    return is_mine;
}

/* Who comes next: the first short turn of the round, else the first long turn, else the first. */
static struct waiter *choose(struct turns *t)
{
    struct waiter *in_round = NULL, *is_long = NULL;
    for (struct waiter *w = t->waiters; w; w = w->next) {
        if (!in_round && w->is_in_round)
            in_round = w;
        if (!is_long && w->kind == TURN_LONG)
            is_long = w;
    }
    return in_round ? in_round : is_long ? is_long : t->waiters;
}

void qp_turns_leave(struct turns *t)
{
    pthread_mutex_lock(&t->lock);
    assert(t->is_taken);
    for (struct waiter *w = t->waiters; w && t->kind == TURN_LONG; w = w->next)
        w->is_in_round = w->kind == TURN_SHORT;
    struct waiter *next = choose(t);
    t->is_taken = next != NULL;
    if (next) {
        t->kind = next->kind;
        remove_waiter(t, next);
        next->is_granted = true;
        pthread_cond_broadcast(&t->granted);
    }
    pthread_mutex_unlock(&t->lock);
}
