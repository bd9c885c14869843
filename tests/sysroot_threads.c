/* sysroot_threads.c: do the threads of the WebAssembly modules (bindings/web/sysroot/threads.c)
 * work? Threads of the host stand in for the workers of a page, its futex for the waiting. */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

static int host_sleep(unsigned us)
{
    return usleep(us);
}

/* One worker of the page; `index` is its number. */
static void start_worker(int index);

#include "web/sysroot_names.h"
// clang-format off
#include "../bindings/web/sysroot/include/pthread.h"
#include "../bindings/web/sysroot/include/web_threads.h"
// clang-format on

long sysconf(int name);

enum {
    N_WORKERS = 3,
    N_ROUNDS = 2000,
};

int test_futex_wait(int *word, int value, int64_t timeout_ns)
{
    assert_true(timeout_ns == -1); // without end
    return (int)syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

unsigned test_futex_wake(int *word, unsigned n_waiters)
{
    const int n = n_waiters > INT_MAX ? INT_MAX : (int)n_waiters;
    return (unsigned)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

static void wait_for_idle(int n)
{
    for (int i = 0; i < 20000 && quip_web_threads_idle() != n; i++)
        host_sleep(500);
    assert_int_equal(quip_web_threads_idle(), n);
}

/* ---- creating and joining ---- */

static void *increment(void *arg)
{
    atomic_fetch_add((atomic_int *)arg, 1);
    return arg;
}

static void test_without_workers(void **state)
{
    (void)state;
    pthread_t thread;
    atomic_int n = 0;
    assert_int_equal(pthread_create(&thread, NULL, increment, &n), EAGAIN);
    assert_int_equal(sysconf(_SC_NPROCESSORS_ONLN), 1);
    assert_int_equal(sysconf(_SC_PAGESIZE), -1);
    assert_int_equal(n, 0);
    quip_web_thread_run(WEB_MAX_WORKERS); // returns: there is no such worker
}

static void test_create_and_join(void **state)
{
    (void)state;
    for (int i = 0; i < N_WORKERS; i++)
        start_worker(i);
    wait_for_idle(N_WORKERS);
    assert_int_equal(sysconf(_SC_NPROCESSORS_ONLN), 1 + N_WORKERS);
    for (int round = 0; round < N_ROUNDS; round++) {
        pthread_t threads[N_WORKERS];
        atomic_int n = 0;
        for (int i = 0; i < N_WORKERS; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, increment, &n), 0);
        for (int i = 0; i < N_WORKERS; i++) {
            void *result = &n;
            assert_int_equal(pthread_join(threads[i], &result), 0);
            assert_null(result);
        }
        assert_int_equal(n, N_WORKERS);
        assert_int_equal(quip_web_threads_idle(), N_WORKERS); // they wait again
    }
}

/* ---- mutexes ---- */

static struct {
    pthread_mutex_t lock;
    long count; // guarded by lock
} counter;

static void *count_up(void *arg)
{
    for (int i = 0; i < 20000; i++) {
        pthread_mutex_lock(&counter.lock);
        counter.count++;
        pthread_mutex_unlock(&counter.lock);
    }
    return arg;
}

static void test_mutex(void **state)
{
    (void)state;
    pthread_t threads[N_WORKERS];
    assert_int_equal(pthread_mutex_init(&counter.lock, NULL), 0);
    for (int i = 0; i < N_WORKERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count_up, NULL), 0);
    count_up(NULL);
    for (int i = 0; i < N_WORKERS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(counter.count, 20000 * (N_WORKERS + 1));
    assert_int_equal(counter.lock.state, 0);
    assert_int_equal(pthread_mutex_destroy(&counter.lock), 0);
}

/* ---- condition variables ---- */

/* A baton goes round: each thread waits for its turn and wakes the next one. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t turn[N_WORKERS + 1], started;
    int whose, n_turns; // guarded by lock
    bool has_started;
} ring;

static void *take_turns(void *arg)
{
    const int me = (int)(intptr_t)arg;
    pthread_mutex_lock(&ring.lock);
    while (!ring.has_started)
        pthread_cond_wait(&ring.started, &ring.lock);
    for (int i = 0; i < N_ROUNDS; i++) {
        while (ring.whose != me)
            pthread_cond_wait(&ring.turn[me], &ring.lock);
        ring.whose = (me + 1) % (N_WORKERS + 1);
        ring.n_turns++;
        pthread_cond_signal(&ring.turn[ring.whose]);
    }
    pthread_mutex_unlock(&ring.lock);
    return NULL;
}

static void test_condition(void **state)
{
    (void)state;
    pthread_t threads[N_WORKERS];
    pthread_mutex_init(&ring.lock, NULL);
    pthread_cond_init(&ring.started, NULL);
    for (int i = 0; i <= N_WORKERS; i++)
        pthread_cond_init(&ring.turn[i], NULL);
    for (int i = 0; i < N_WORKERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take_turns, (void *)(intptr_t)(i + 1)),
                         0);
    host_sleep(10000); // most of them wait now
    pthread_mutex_lock(&ring.lock);
    ring.has_started = true;
    pthread_cond_broadcast(&ring.started);
    pthread_mutex_unlock(&ring.lock);
    take_turns((void *)0);
    for (int i = 0; i < N_WORKERS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(ring.n_turns, N_ROUNDS * (N_WORKERS + 1));
    for (int i = 0; i <= N_WORKERS; i++)
        assert_int_equal(pthread_cond_destroy(&ring.turn[i]), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_workers),
        cmocka_unit_test(test_create_and_join),
        cmocka_unit_test(test_mutex),
        cmocka_unit_test(test_condition),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#undef pthread_t
#undef pthread_create

static void *worker_main(void *arg)
{
    quip_web_thread_run((uint32_t)(uintptr_t)arg);
    return NULL;
}

static void start_worker(int index)
{
    pthread_t worker;
    assert_int_equal(pthread_create(&worker, NULL, worker_main, (void *)(intptr_t)index), 0);
}
