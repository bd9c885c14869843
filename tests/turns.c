/* turns.c: the order in which threads get turns on a device (base/turns.h). The thread sanitizer
 * runs this. */
#include "base/turns.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#if defined(__linux__)
#include <sys/syscall.h>
#endif

#define MAX_THREADS 8

static struct turns *turns;
static char order[64]; // who had turns, written by their owners
static int n_order;

static int open_turns(void **state)
{
    (void)state;
    turns = qp_turns_open();
    memset(order, 0, sizeof order);
    n_order = 0;
    return turns ? 0 : -1;
}

static int close_turns(void **state)
{
    (void)state;
    qp_turns_close(turns);
    return 0;
}

/* ---- threads that wait in a known order ---- */

struct waiter {
    pthread_t thread;
    char name;
    enum turn_kind kind;
    atomic_int tid; // 0: not started
    atomic_bool cancelled;
    bool has_entered;
};

#if defined(__linux__)

static int thread_id(void)
{
    return (int)syscall(SYS_gettid);
}

static bool is_asleep(int tid)
{
    char path[64], text[256] = "";
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", tid);
    FILE *file = fopen(path, "r");
    if (!file)
        return false;
    const size_t n = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[n] = 0;
    const char *name_end = strrchr(text, ')');
    return name_end && strncmp(name_end, ") S", 3) == 0;
}

static void wait_until_asleep(int tid)
{
    for (int i = 0; i < 20000 && !is_asleep(tid); i++)
        usleep(100);
    usleep(1000);
}

#else

static int thread_id(void)
{
    return 1;
}

static void wait_until_asleep(int tid)
{
    (void)tid;
    usleep(100000);
}

#endif

static void *enter_once(void *arg)
{
    struct waiter *w = arg;
    atomic_store(&w->tid, thread_id());
    w->has_entered = qp_turns_enter(turns, w->kind, true, &w->cancelled);
    if (w->has_entered) {
        order[n_order++] = w->name;
        qp_turns_leave(turns);
    }
    return NULL;
}

/* Start a thread, and return when it waits for its turn. */
static void start(struct waiter *w, char name, enum turn_kind kind)
{
    *w = (struct waiter){ .name = name, .kind = kind };
    assert_int_equal(pthread_create(&w->thread, NULL, enter_once, w), 0);
    while (atomic_load(&w->tid) == 0)
        usleep(100);
    wait_until_asleep(atomic_load(&w->tid));
}

/* Threads with these names queue up while a turn of `kind` is taken: a capital letter asks for a
 * long turn. */
static void assert_order(enum turn_kind kind, const char *names, const char *expected)
{
    struct waiter waiters[MAX_THREADS];
    const int n = (int)strlen(names);
    open_turns(NULL);
    assert_true(qp_turns_enter(turns, kind, true, NULL));
    for (int i = 0; i < n; i++)
        start(&waiters[i], names[i], names[i] < 'a' ? TURN_LONG : TURN_SHORT);
    qp_turns_leave(turns);
    for (int i = 0; i < n; i++)
        pthread_join(waiters[i].thread, NULL);
    assert_string_equal(order, expected);
    close_turns(NULL);
}

/* A decode step waits for the prefill chunk that runs, and for no other. */
static void test_short_turns_wait_for_one_long_turn(void **state)
{
    (void)state;
    assert_order(TURN_LONG, "ABaCb", "abABC");
    assert_order(TURN_LONG, "ABCDa", "aABCD");
    assert_order(TURN_LONG, "abc", "abc");
    assert_order(TURN_LONG, "ABC", "ABC");
}

/* A prefill chunk goes before decode steps that came during the round of others. */
static void test_long_turns_do_not_starve(void **state)
{
    (void)state;
    assert_order(TURN_SHORT, "abA", "Aab");
    assert_order(TURN_SHORT, "aAbBc", "AabcB");
    assert_order(TURN_SHORT, "abc", "abc");
}

/* ---- without waiting, and cancelled ---- */

static void test_no_wait(void **state)
{
    (void)state;
    assert_true(qp_turns_enter(turns, TURN_LONG, false, NULL));
    assert_false(qp_turns_enter(turns, TURN_SHORT, false, NULL));
    assert_false(qp_turns_enter(turns, TURN_LONG, false, NULL));
    qp_turns_leave(turns);
    assert_true(qp_turns_enter(turns, TURN_SHORT, false, NULL));
    qp_turns_leave(turns);
}

/* The first, one in the middle and the last of those that wait give up; the others do not notice.
 */
static void test_cancel_while_waiting(void **state)
{
    (void)state;
    static const char names[] = "aBcDe";
    struct waiter waiters[sizeof names - 1];
    assert_true(qp_turns_enter(turns, TURN_LONG, true, NULL));
    for (size_t i = 0; i < sizeof names - 1; i++)
        start(&waiters[i], names[i], names[i] < 'a' ? TURN_LONG : TURN_SHORT);
    for (size_t i = 0; i < sizeof names - 1; i += 2) {
        atomic_store(&waiters[i].cancelled, true);
        pthread_join(waiters[i].thread, NULL); // while the turn is taken
        assert_false(waiters[i].has_entered);
    }
    qp_turns_leave(turns);
    pthread_join(waiters[1].thread, NULL);
    pthread_join(waiters[3].thread, NULL);
    assert_string_equal(order, "BD");
    assert_true(qp_turns_enter(turns, TURN_SHORT, false, NULL)); // nothing is left behind
    qp_turns_leave(turns);
}

/* ---- many threads ---- */

struct crowd {
    int n_turns;  // of all threads; changed in a turn only
    int n_inside; // threads that have the turn now
    int most_inside;
    atomic_bool cancelled; // of the threads with an odd number
    atomic_int n_given_up;
};

struct member {
    pthread_t thread;
    struct crowd *crowd;
    int number, n_turns;
};

static void *take_turns(void *arg)
{
    struct member *m = arg;
    struct crowd *crowd = m->crowd;
    for (int i = 0; i < 2000; i++) {
        const enum turn_kind kind = (i + m->number) % 3 ? TURN_SHORT : TURN_LONG;
        const atomic_bool *cancelled = m->number % 2 ? &crowd->cancelled : NULL;
        if (!qp_turns_enter(turns, kind, i % 5 != 4, cancelled)) {
            atomic_fetch_add(&crowd->n_given_up, 1);
            continue;
        }
        crowd->n_inside++;
        if (crowd->n_inside > crowd->most_inside)
            crowd->most_inside = crowd->n_inside;
        crowd->n_turns++;
        m->n_turns++;
        if (m->number == 0 && i % 16 == 0)
            atomic_store(&crowd->cancelled, i % 32 == 0);
        crowd->n_inside--;
        qp_turns_leave(turns);
    }
    return NULL;
}

static void test_many_threads(void **state)
{
    (void)state;
    struct crowd crowd = { 0 };
    struct member members[MAX_THREADS];
    int n_turns = 0;
    for (int i = 0; i < MAX_THREADS; i++) {
        members[i] = (struct member){ .crowd = &crowd, .number = i };
        assert_int_equal(pthread_create(&members[i].thread, NULL, take_turns, &members[i]), 0);
    }
    for (int i = 0; i < MAX_THREADS; i++) {
        pthread_join(members[i].thread, NULL);
        assert_true(members[i].n_turns >= (i % 2 ? 0 : 1600)); // all but those that do not wait
        n_turns += members[i].n_turns;
    }
    assert_int_equal(crowd.most_inside, 1);
    assert_int_equal(crowd.n_turns, n_turns);
    assert_int_equal(n_turns + crowd.n_given_up, 2000 * MAX_THREADS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_short_turns_wait_for_one_long_turn),
        cmocka_unit_test(test_long_turns_do_not_starve),
        cmocka_unit_test_setup_teardown(test_no_wait, open_turns, close_turns),
        cmocka_unit_test_setup_teardown(test_cancel_while_waiting, open_turns, close_turns),
        cmocka_unit_test_setup_teardown(test_many_threads, open_turns, close_turns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
