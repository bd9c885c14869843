/* pool.c: a fork-join pool of threads.
 * In:  a task and its argument.
 * Out: task(arg, i, n) executed for every part i in [0, n).
 *
 * A run begins with a new generation number and ends when n_pending is zero. The caller and the
 * workers claim its parts one by one, so the run does not depend on a worker that the system has
 * suspended: the others do its part.
 *
 * Workers wait for a generation, the caller waits for n_pending to become zero. Both spin for
 * SPIN_NS and then sleep. No wake-up is lost: the sleeper first sets its flag and then checks the
 * number again; the waker first changes the number and then checks the flag. With sequentially
 * consistent atomics, at least one of them reads the other's change. */
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
    MAX_HELPED = 4, // neighbours that a part helps; asking all of many takes too long
};

/* How far a part's share is done: generation << 32 | next item. If the generation is older, the
 * share has not been started. */
struct cursor {
    _Alignas(64) atomic_uint_fast64_t at;
};

/* Each number that several threads poll has a cache line of its own. */
struct pool {
    /* generation << 32 | next part to claim. A run with n parts numbers them from MAX_THREADS - n
     * to MAX_THREADS - 1: so a late worker can see that no part is left without reading `width`,
     * which may belong to the next run already. */
    _Alignas(64) atomic_uint_fast64_t work;
    _Alignas(64) atomic_int n_pending;  // parts of this generation that are not finished
    _Alignas(64) atomic_int n_sleeping; // workers that wait for `wake`
    atomic_bool is_caller_sleeping;
    atomic_bool is_closing;
    atomic_int width; // parts of a run, <= n_threads; set between runs
    pool_task task;   // written before the generation that announces it
    void *arg;
    uint64_t spin_ns;
    bool is_background;
    int n_threads; // with the caller's
    pthread_mutex_t lock;
    pthread_cond_t wake, done, unlimited;
    struct cursor cursors[MAX_THREADS];
    struct worker {
        struct pool *pool;
        int index; // works if index + 1 < width
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

/* Sleep until the generation is not `seen`; returns the new one. */
static uint32_t sleep_for_generation(struct pool *p, uint32_t seen)
{
    uint32_t now;
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->n_sleeping, 1);
    while ((now = generation(p)) == seen)
        pthread_cond_wait(&p->wake, &p->lock);
    atomic_fetch_sub(&p->n_sleeping, 1);
    pthread_mutex_unlock(&p->lock);
    return now;
}

static uint32_t wait_for_generation(const struct worker *w, uint32_t seen)
{
    struct pool *p = w->pool;
    uint64_t end = qp_now_ns() + p->spin_ns;
    do {
        for (int i = 0; i < PAUSES_PER_LOOK; i++) {
            uint32_t now = generation(p);
            if (now != seen)
                return now;
            cpu_relax();
        }
        if (is_above_limit(w)) {
            wait_for_limit(w);
            end = qp_now_ns() + p->spin_ns;
        }
    } while (qp_now_ns() < end);
    return sleep_for_generation(p, seen);
}

/* Do parts of the run until none is left to claim. The caller waits for every claimed part, so
 * width, task and arg stay valid until that part is finished. A late worker that claims no part
 * reads none of them. */
static void do_parts(struct pool *p)
{
    for (;;) {
        const uint32_t claimed = (uint32_t)atomic_fetch_add(&p->work, 1);
        if (claimed >= MAX_THREADS)
            return;
        const int width = width_of(p), part = (int)claimed - (MAX_THREADS - width);
        assert(part >= 0 && part < width);
        p->task(p->arg, part, width);
        if (atomic_fetch_sub(&p->n_pending, 1) == 1 && atomic_load(&p->is_caller_sleeping)) {
            pthread_mutex_lock(&p->lock);
            pthread_cond_signal(&p->done);
            pthread_mutex_unlock(&p->lock);
        }
    }
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
    for (uint32_t seen = 0;;) {
        seen = wait_for_generation(w, seen);
        if (atomic_load(&p->is_closing))
            return NULL;
        do_parts(p);
    }
}

/* ---- the caller ---- */

/* Begin a generation of n_parts parts that other threads may claim. */
static void announce_generation(struct pool *p, int n_parts)
{
    const uint32_t first = (uint32_t)(MAX_THREADS - n_parts);
    atomic_store(&p->work, ((uint64_t)generation(p) + 1) << 32 | first);
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
    assert(atomic_load(&p->n_pending) == 0); // one run at a time
    const int width = width_of(p);
    if (width == 1) {
        announce_generation(p, 0); // for the cursors
        task(arg, 0, 1);
        return;
    }
    p->task = task;
    p->arg = arg;
    atomic_store_explicit(&p->n_pending, width, memory_order_relaxed);
    announce_generation(p, width);
    do_parts(p);
    wait_for_workers(p);
}

int qp_pool_n_threads(const struct pool *p)
{
    return p->n_threads;
}

int qp_pool_limit(struct pool *p, int n_threads)
{
    assert(n_threads > 0);
    assert(atomic_load(&p->n_pending) == 0);
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
    const uint32_t now = generation(p);
    int first, last;
    qp_share(items->n, items->unit, index, width_of(p), &first, &last);
    atomic_uint_fast64_t *cursor = &p->cursors[index].at;
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
    while (atomic_load_explicit(n_done, memory_order_acquire) < n) {
        for (int i = 0; i < PAUSES_PER_LOOK; i++) {
            if (atomic_load_explicit(n_done, memory_order_acquire) >= n)
                return;
            cpu_relax();
        }
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
    atomic_store(&p->work, MAX_THREADS); // generation 0 has no parts
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
    announce_generation(p, 0);
    for (int i = 0; i < p->n_threads - 1; i++)
        pthread_join(p->workers[i].thread, NULL);
    pthread_cond_destroy(&p->unlimited);
    pthread_cond_destroy(&p->done);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    qp_free_pages(p, sizeof *p);
}
