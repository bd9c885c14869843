/* pool.c: a fork-join pool of threads.
 * In:  a task and its argument.
 * Out: task(arg, i, n) done for every i in [0, n).
 *
 * A run is announced by a new generation number and is over when n_pending is zero. Its parts are
 * taken one by one, by the workers that are there and by the caller: a worker that the system has
 * put aside holds nobody up, the others do its part. Both waits, the workers' for a generation and
 * the caller's for zero, spin for SPIN_NS and then sleep. Nobody is forgotten: the sleeper first
 * says that it sleeps and then looks again; the waker first changes the number and then asks who
 * sleeps; with sequentially consistent atomics one of them sees the other. */
#include "base.h"

#include <assert.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/resource.h>
#include <sys/syscall.h>
#elif defined(__APPLE__)
#include <pthread/qos.h>
#endif

enum {
    SPIN_NS = 30000, // a decode step's gaps between operations are shorter, a user's pauses longer
    PAUSES_PER_LOOK = 16,
    POLITE_NICE = 10,
    MOST_HELPED = 4, // neighbours whose items a part takes: to ask all of many takes too long
};

/* Where a part's share goes on: generation << 32 | item. One of an older generation has not begun.
 */
struct cursor {
    _Alignas(64) atomic_uint_fast64_t at;
};

/* The numbers that everybody watches lie on cache lines of their own. */
struct pool {
    _Alignas(64) atomic_uint_fast64_t work; // generation << 32 | next part to take
    _Alignas(64) atomic_int n_pending;      // parts of this generation that are not done
    _Alignas(64) atomic_int n_sleeping;     // workers
    atomic_bool is_caller_sleeping;
    atomic_bool is_closing;
    pool_task task; // written before the generation that announces it
    void *arg;
    uint64_t spin_ns;
    bool is_polite;
    int n_threads; // the caller's included; a run has as many parts
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    struct cursor cursors[MAX_THREADS];
    struct worker {
        struct pool *pool;
        pthread_t thread;
    } workers[MAX_THREADS - 1]; // [n_threads - 1]
};

static void cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

/* ---- workers ---- */

static uint32_t generation(const struct pool *p)
{
    return (uint32_t)(atomic_load(&p->work) >> 32);
}

static uint32_t wait_for_generation(struct pool *p, uint32_t seen)
{
    uint64_t end = qp_now_ns() + p->spin_ns;
    do {
        for (int i = 0; i < PAUSES_PER_LOOK; i++) {
            uint32_t now = generation(p);
            if (now != seen)
                return now;
            cpu_relax();
        }
    } while (qp_now_ns() < end);

    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->n_sleeping, 1);
    uint32_t now;
    while ((now = generation(p)) == seen)
        pthread_cond_wait(&p->wake, &p->lock);
    atomic_fetch_sub(&p->n_sleeping, 1);
    pthread_mutex_unlock(&p->lock);
    return now;
}

/* Do parts of the run until none is left to take. Whoever took a part knows that task and arg stay
 * until it is done, because the caller waits for it; a late worker that finds no part touches
 * neither. */
static void do_parts(struct pool *p)
{
    for (;;) {
        uint32_t part = (uint32_t)atomic_fetch_add(&p->work, 1);
        if (part >= (uint32_t)p->n_threads)
            return;
        p->task(p->arg, (int)part, p->n_threads);
        if (atomic_fetch_sub(&p->n_pending, 1) == 1 && atomic_load(&p->is_caller_sleeping)) {
            pthread_mutex_lock(&p->lock);
            pthread_cond_signal(&p->done);
            pthread_mutex_unlock(&p->lock);
        }
    }
}

/* Behind everybody else's threads. */
static void lower_priority(void)
{
#if defined(__linux__)
    setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), POLITE_NICE); // of this thread
#elif defined(__APPLE__)
    pthread_set_qos_class_self_np(QOS_CLASS_UTILITY, 0);
#endif
}

static void *worker_main(void *arg)
{
    const struct worker *w = arg;
    struct pool *p = w->pool;
    if (p->is_polite)
        lower_priority();
    for (uint32_t seen = 0;;) {
        seen = wait_for_generation(p, seen);
        if (atomic_load(&p->is_closing))
            return NULL;
        do_parts(p);
    }
}

/* ---- the caller ---- */

/* Begin a generation whose parts are numbered from first_part on. */
static void announce_generation(struct pool *p, int first_part)
{
    atomic_store(&p->work, ((uint64_t)generation(p) + 1) << 32 | (uint32_t)first_part);
    if (atomic_load(&p->n_sleeping) > 0) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_broadcast(&p->wake);
        pthread_mutex_unlock(&p->lock);
    }
}

static void wait_for_workers(struct pool *p)
{
    uint64_t end = qp_now_ns() + p->spin_ns;
    do {
        for (int i = 0; i < PAUSES_PER_LOOK; i++) {
            if (atomic_load_explicit(&p->n_pending, memory_order_acquire) == 0)
                return;
            cpu_relax();
        }
    } while (qp_now_ns() < end);

    pthread_mutex_lock(&p->lock);
    atomic_store(&p->is_caller_sleeping, true);
    while (atomic_load(&p->n_pending) != 0)
        pthread_cond_wait(&p->done, &p->lock);
    atomic_store(&p->is_caller_sleeping, false);
    pthread_mutex_unlock(&p->lock);
}

void qp_pool_run(struct pool *p, pool_task task, void *arg)
{
    if (p->n_threads == 1) {
        announce_generation(p, 1);
        task(arg, 0, 1);
        return;
    }
    p->task = task;
    p->arg = arg;
    atomic_store_explicit(&p->n_pending, p->n_threads, memory_order_relaxed);
    announce_generation(p, 0);
    do_parts(p);
    wait_for_workers(p);
}

int qp_pool_n_threads(const struct pool *p)
{
    return p->n_threads;
}

/* ---- shares of a run's items ---- */

static bool take_from(struct pool *p, int index, int n, int unit, int least, int most, int *begin,
                      int *end)
{
    const uint32_t now = generation(p);
    int first, last;
    qp_share(n, unit, index, p->n_threads, &first, &last);
    atomic_uint_fast64_t *cursor = &p->cursors[index].at;
    uint64_t seen = atomic_load_explicit(cursor, memory_order_relaxed), next;
    do {
        *begin = seen >> 32 == now ? (int)(uint32_t)seen : first;
        if (*begin >= last)
            return false;
        int take = (last - *begin) / 2 / unit * unit; // large pieces first: reading goes on in one
        take = take < least ? least : take;
        take = most && take > most ? most : take;
        *end = take < last - *begin ? *begin + take : last;
        next = (uint64_t)now << 32 | (uint32_t)*end;
    } while (!atomic_compare_exchange_weak_explicit(cursor, &seen, next, memory_order_relaxed,
                                                    memory_order_relaxed));
    return true;
}

bool qp_pool_take(struct pool *p, int index, int n, int unit, int least, int most, int *begin,
                  int *end)
{
    assert(least > 0 && least % unit == 0 && most >= 0 && most % unit == 0);
    for (int i = 0; i <= MOST_HELPED && i < p->n_threads; i++)
        if (take_from(p, (index + i) % p->n_threads, n, unit, least, most, begin, end))
            return true;
    return false;
}

void qp_pool_wait(const atomic_int *n_done, int n)
{
    while (atomic_load_explicit(n_done, memory_order_acquire) < n) {
        for (int i = 0; i < PAUSES_PER_LOOK; i++) {
            if (atomic_load_explicit(n_done, memory_order_acquire) >= n)
                return;
            cpu_relax();
        }
        sched_yield(); // perhaps to the thread that is waited for
    }
}

/* ---- open and close ---- */

/* Start workers until there are n_threads in all or the system gives no more. They take no signals:
 * those are the host program's. */
static void start_workers(struct pool *p, int n_threads)
{
    sigset_t all, old;
    sigfillset(&all);
    bool is_masked = pthread_sigmask(SIG_SETMASK, &all, &old) == 0;
    for (; p->n_threads < n_threads; p->n_threads++) {
        struct worker *w = &p->workers[p->n_threads - 1];
        w->pool = p;
        if (pthread_create(&w->thread, NULL, worker_main, w))
            break;
    }
    if (is_masked)
        pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static quip_status open_pool(struct pool **pool, int n_threads, bool is_polite, quip_error *error)
{
    *pool = NULL;
    if (n_threads < 0)
        return qp_fail(error, QUIP_E_ARGUMENT, "%d threads: give 0 for as many as help, or 1 to %d",
                       n_threads, MAX_THREADS);
    if (n_threads == 0)
        n_threads = qp_default_threads();
    if (n_threads > MAX_THREADS)
        n_threads = MAX_THREADS;

    // room for MAX_THREADS whatever n_threads is: pages not touched cost nothing
    struct pool *p = qp_alloc_pages(sizeof *p);
    if (!p)
        return qp_fail_memory(error, "a thread pool", sizeof *p);
    p->n_threads = 1;
    p->is_polite = is_polite;
    p->spin_ns = is_polite ? 0 : SPIN_NS;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->done, NULL);
    start_workers(p, n_threads);
    *pool = p;
    return QUIP_OK;
}

quip_status qp_pool_open(struct pool **pool, int n_threads, quip_error *error)
{
    return open_pool(pool, n_threads, false, error);
}

quip_status qp_pool_open_polite(struct pool **pool, int n_threads, quip_error *error)
{
    return open_pool(pool, n_threads, true, error);
}

void qp_pool_close(struct pool *p)
{
    if (!p)
        return;
    atomic_store(&p->is_closing, true);
    announce_generation(p, p->n_threads); // of no parts
    for (int i = 0; i < p->n_threads - 1; i++)
        pthread_join(p->workers[i].thread, NULL);
    pthread_cond_destroy(&p->done);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    qp_free_pages(p, sizeof *p);
}

void qp_share(int n, int unit, int index, int n_threads, int *begin, int *end)
{
    assert(n >= 0 && unit > 0 && index >= 0 && index < n_threads);
    int64_t n_units = ((int64_t)n + unit - 1) / unit;
    int64_t first = n_units * index / n_threads * unit;
    int64_t last = n_units * (index + 1) / n_threads * unit;
    *begin = (int)(first < n ? first : n);
    *end = (int)(last < n ? last : n);
}
