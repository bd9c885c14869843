/* pool.c: a fork-join pool of threads.
 * In:  a task and its argument.
 * Out: task(arg, i, n) executed for every part i in [0, n).
 *
 * A run begins with a new generation. Every thread first claims the part of its own number and then
 * those that no thread has claimed, so the run does not depend on a worker that the system has
 * suspended: the others do its part. The run ends when all parts are done.
 *
 * Each part has a cache line of its own, which its thread usually keeps: with many threads,
 * counters that all of them change would take longer than the work of a small run.
 *
 * Workers wait for a generation, the caller waits for the parts. Both spin for SPIN_NS and then
 * sleep. No wake-up is lost: the sleeper first sets its flag and then checks again; the waker first
 * makes the change and then checks the flag. With sequentially consistent atomics, at least one of
 * them reads the other's change. The first of the two accesses also reads, because qemu for ARM on
 * x86 lets a load pass a store before it, however strong both are. */
#include "base.h"

#include <assert.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>

#if defined(__linux__)
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__APPLE__)
#include <pthread/qos.h>
#endif

enum {
    SPIN_NS = 30000, // longer than the gaps between a decode step's operations
    PAUSES_PER_LOOK = 16,
    BACKGROUND_NICE = 10,
    WIDTH_BITS = 9, // for 0 to MAX_THREADS
    MAX_HELPED = 4, // neighbours that a part helps; asking all of many takes too long
};

/* A part of the runs. */
struct pool_part {
    /* generation << 1 | whether it is done: of the last run whose part was claimed. */
    _Alignas(64) atomic_uint_fast64_t state;
    /* How far its share is done: generation << 32 | next item. If the generation is older, the
     * share has not been started. */
    _Alignas(64) atomic_uint_fast64_t next_item;
};

struct pool {
    /* generation << WIDTH_BITS | width, the number of parts. All threads poll it, and what they
     * need next is in its cache line. */
    _Alignas(64) atomic_uint_fast64_t run;
    pool_task task; // written before the generation that announces it
    void *arg;
    _Alignas(64) atomic_int n_sleeping; // workers that wait for `wake`
    _Alignas(64) atomic_bool is_caller_sleeping;
    atomic_bool is_closing;
    atomic_int width; // of the next run, <= n_threads
    uint64_t spin_ns;
    bool is_background;
    int n_threads; // with the caller's
    pthread_mutex_t lock;
    pthread_cond_t wake, done, unlimited;
    struct pool_part parts[MAX_THREADS];
    struct worker {
        struct pool *pool;
        int index; // its part is index + 1
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

static uint64_t generation_of(uint64_t run)
{
    return run >> WIDTH_BITS;
}

static int n_parts_of(uint64_t run)
{
    return (int)(run & ((1u << WIDTH_BITS) - 1));
}

static int width_of(const struct pool *p)
{
    return atomic_load_explicit(&p->width, memory_order_relaxed);
}

/* Whether the limit leaves nothing to do for this worker. */
static bool is_above_limit(const struct worker *w)
{
    return w->index + 1 >= width_of(w->pool) && !atomic_load(&w->pool->is_closing);
}

/* Sleep while the limit excludes this worker. */
static void wait_for_limit(const struct worker *w)
{
    struct pool *p = w->pool;
    pthread_mutex_lock(&p->lock);
    while (is_above_limit(w))
        pthread_cond_wait(&p->unlimited, &p->lock);
    pthread_mutex_unlock(&p->lock);
}

/* Sleep until the run is not `seen`; returns the new one. */
static uint64_t sleep_for_run(struct pool *p, uint64_t seen)
{
    uint64_t now;
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->n_sleeping, 1);
    while ((now = atomic_load(&p->run)) == seen)
        pthread_cond_wait(&p->wake, &p->lock);
    atomic_fetch_sub(&p->n_sleeping, 1);
    pthread_mutex_unlock(&p->lock);
    return now;
}

/* Looks at all parts, so that their cache lines come at the same time. */
static bool is_done(const struct pool *p, uint64_t run)
{
    const uint64_t done = generation_of(run) << 1 | 1;
    bool is_all = true;
    for (int i = 0; i < n_parts_of(run); i++)
        is_all &= atomic_load(&p->parts[i].state) == done;
    return is_all;
}

/* Claim part i of a run and do it; false if it has been claimed, perhaps in a later run. The caller
 * waits for every claimed part, so task and arg stay valid until that part is done. A late worker
 * that claims no part reads neither. */
static bool do_part(struct pool *p, uint64_t run, int i)
{
    const uint64_t claimed = generation_of(run) << 1;
    atomic_uint_fast64_t *state = &p->parts[i].state;
    uint64_t before = atomic_load_explicit(state, memory_order_relaxed);
    if (before >= claimed || !atomic_compare_exchange_strong(state, &before, claimed))
        return false;
    p->task(p->arg, i, n_parts_of(run));
    atomic_exchange(state, claimed | 1);
    if (atomic_load(&p->is_caller_sleeping) && is_done(p, run)) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_signal(&p->done);
        pthread_mutex_unlock(&p->lock);
    }
    return true;
}

/* Do every part that no thread has claimed, from part i on. */
static void do_unclaimed(struct pool *p, uint64_t run, int i)
{
    const int width = n_parts_of(run);
    for (int n = 0; n < width; n++, i = i + 1 < width ? i + 1 : 0)
        do_part(p, run, i);
}

static uint64_t wait_for_run(const struct worker *w, uint64_t seen)
{
    struct pool *p = w->pool;
    uint64_t end = qp_now_ns() + p->spin_ns;
    bool has_helped = w->index + 1 >= n_parts_of(seen);
    do {
        for (int i = 0; i < PAUSES_PER_LOOK; i++) {
            uint64_t now = atomic_load(&p->run);
            if (now != seen)
                return now;
            cpu_relax();
        }
        if (!has_helped) {
            do_unclaimed(p, seen, w->index + 1); // of threads that have not come
            end = qp_now_ns() + p->spin_ns;
        }
        has_helped = true;
        if (is_above_limit(w)) {
            wait_for_limit(w);
            end = qp_now_ns() + p->spin_ns;
        }
    } while (qp_now_ns() < end);
    return sleep_for_run(p, seen);
}

/* Let all other threads of the system run before this one. */
static void lower_priority(void)
{
#if defined(__linux__)
    setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), BACKGROUND_NICE); // of this thread only
#elif defined(__APPLE__)
    pthread_set_qos_class_self_np(QOS_CLASS_UTILITY, 0);
#endif
}

static void *worker_main(void *arg)
{
    const struct worker *w = arg;
    struct pool *p = w->pool;
    if (p->is_background)
        lower_priority();
    else
        qp_avoid_slow_processors(width_of(p)); // parts on slow processors would delay the others
    for (uint64_t run = 0;;) {
        run = wait_for_run(w, run);
        if (atomic_load(&p->is_closing))
            return NULL;
        if (w->index + 1 < n_parts_of(run))
            do_part(p, run, w->index + 1);
    }
}

/* ---- the caller ---- */

/* Begin a run of n_parts parts that other threads may claim. */
static uint64_t announce_run(struct pool *p, int n_parts)
{
    const uint64_t before = atomic_load_explicit(&p->run, memory_order_relaxed);
    const uint64_t run = (generation_of(before) + 1) << WIDTH_BITS | (uint64_t)n_parts;
    /* A release, because a stronger store would wait for the one of `task`, and the line may be
     * lost in between; then a change that is none, because a load could come before the store. */
    atomic_store_explicit(&p->run, run, memory_order_release);
    if (atomic_fetch_add(&p->n_sleeping, 0) > 0) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_broadcast(&p->wake);
        pthread_mutex_unlock(&p->lock);
    }
    return run;
}

static void wait_for_parts(struct pool *p, uint64_t run)
{
    uint64_t end = qp_now_ns() + p->spin_ns;
    do {
        for (int i = 0; i < PAUSES_PER_LOOK; i++) {
            if (is_done(p, run))
                return;
            cpu_relax();
        }
    } while (qp_now_ns() < end);

    pthread_mutex_lock(&p->lock);
    atomic_exchange(&p->is_caller_sleeping, true);
    while (!is_done(p, run))
        pthread_cond_wait(&p->done, &p->lock);
    atomic_store(&p->is_caller_sleeping, false);
    pthread_mutex_unlock(&p->lock);
}

void qp_pool_run(struct pool *p, pool_task task, void *arg)
{
    const int width = width_of(p);
    if (width == 1) {
        announce_run(p, 0); // for the shares
        task(arg, 0, 1);
        return;
    }
    p->task = task;
    p->arg = arg;
    const uint64_t run = announce_run(p, width);
    do_unclaimed(p, run, 0);
    wait_for_parts(p, run);
}

int qp_pool_n_threads(const struct pool *p)
{
    return p->n_threads;
}

int qp_pool_limit(struct pool *p, int n_threads)
{
    assert(n_threads > 0);
    const int before = width_of(p), width = qp_min(n_threads, p->n_threads);
    atomic_store(&p->width, width);
    if (width > before) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_broadcast(&p->unlimited);
        pthread_mutex_unlock(&p->lock);
    }
    return width;
}

/* ---- shares of a run's items ---- */

void qp_share(int n, int unit, int index, int n_parts, int *begin, int *end)
{
    assert(n >= 0 && unit > 0 && index >= 0 && index < n_parts);
    int64_t n_units = ((int64_t)n + unit - 1) / unit;
    int64_t first = n_units * index / n_parts * unit;
    int64_t last = n_units * (index + 1) / n_parts * unit;
    *begin = (int)(first < n ? first : n);
    *end = (int)(last < n ? last : n);
}

/* Half of the n items that are left: large pieces come first, because reading on is faster. */
static int piece_size(const struct pool_items *items, int n)
{
    int size = n / 2 / items->unit * items->unit;
    size = size < items->min ? items->min : size;
    size = items->max && size > items->max ? items->max : size;
    return qp_min(size, n);
}

/* Get the next piece of the share of part `index`. */
static bool next_of_share(struct pool *p, int index, const struct pool_items *items, int *begin,
                          int *end)
{
    const uint32_t now =
        (uint32_t)generation_of(atomic_load_explicit(&p->run, memory_order_relaxed));
    int first, last;
    qp_share(items->n, items->unit, index, width_of(p), &first, &last);
    atomic_uint_fast64_t *cursor = &p->parts[index].next_item;
    uint64_t seen = atomic_load_explicit(cursor, memory_order_relaxed), next;
    do {
        *begin = seen >> 32 == now ? (int)(uint32_t)seen : first;
        if (*begin >= last)
            return false;
        *end = *begin + piece_size(items, last - *begin);
        next = (uint64_t)now << 32 | (uint32_t)*end;
    } while (!atomic_compare_exchange_weak_explicit(cursor, &seen, next, memory_order_relaxed,
                                                    memory_order_relaxed));
    return true;
}

bool qp_pool_next(struct pool *p, int index, const struct pool_items *items, int *begin, int *end)
{
    const int width = width_of(p);
    assert(index >= 0 && index < width);
    assert(items->min > 0 && items->min % items->unit == 0);
    assert(items->max >= 0 && items->max % items->unit == 0);
    for (int i = 0; i <= MAX_HELPED && i < width; i++)
        if (next_of_share(p, (index + i) % width, items, begin, end))
            return true;
    return false;
}

void qp_pool_wait(const atomic_int *n_done, int n)
{
    if (atomic_load_explicit(n_done, memory_order_acquire) >= n)
        return;
    const uint64_t end = qp_now_ns() + SPIN_NS;
    while (atomic_load_explicit(n_done, memory_order_acquire) < n) {
        for (int i = 0; i < PAUSES_PER_LOOK; i++) {
            if (atomic_load_explicit(n_done, memory_order_acquire) >= n)
                return;
            cpu_relax();
        }
        if (qp_now_ns() > end)
            sched_yield(); // the other part may need this processor
    }
}

/* ---- open and close ---- */

/* Start workers until the pool has n_threads threads or the system provides no more. Signals belong
 * to the host program, so the workers block all of them. */
static void start_workers(struct pool *p, int n_threads)
{
    sigset_t all, old;
    sigfillset(&all);
    bool is_masked = pthread_sigmask(SIG_SETMASK, &all, &old) == 0;
    for (; p->n_threads < n_threads; p->n_threads++) {
        struct worker *w = &p->workers[p->n_threads - 1];
        w->pool = p;
        w->index = p->n_threads - 1;
        if (pthread_create(&w->thread, NULL, worker_main, w))
            break;
    }
    if (is_masked)
        pthread_sigmask(SIG_SETMASK, &old, NULL);
}

quip_status qp_pool_open(struct pool **pool, int n_threads, bool is_background, quip_error *error)
{
    *pool = NULL;
    if (n_threads < 0)
        return qp_fail(error, QUIP_E_ARGUMENT, "n_threads is %d; must be 0 to %d", n_threads,
                       MAX_THREADS);
    if (n_threads == 0)
        n_threads = qp_default_threads();
    n_threads = qp_min(n_threads, MAX_THREADS);

    // the arrays have MAX_THREADS elements for any n_threads: untouched pages cost nothing
    struct pool *p = qp_alloc_pages(sizeof *p);
    if (!p)
        return qp_fail_memory(error, "a thread pool", sizeof *p);
    p->n_threads = 1;
    p->width = n_threads;
    p->is_background = is_background;
    p->spin_ns = is_background ? 0 : SPIN_NS;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->done, NULL);
    pthread_cond_init(&p->unlimited, NULL);
    start_workers(p, n_threads);
    p->width = p->n_threads;
    *pool = p;
    return QUIP_OK;
}

void qp_pool_close(struct pool *p)
{
    if (!p)
        return;
    atomic_store(&p->is_closing, true);
    pthread_mutex_lock(&p->lock);
    pthread_cond_broadcast(&p->unlimited);
    pthread_mutex_unlock(&p->lock);
    announce_run(p, 0);
    for (int i = 0; i < p->n_threads - 1; i++)
        pthread_join(p->workers[i].thread, NULL);
    pthread_cond_destroy(&p->unlimited);
    pthread_cond_destroy(&p->done);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    qp_free_pages(p, sizeof *p);
}
