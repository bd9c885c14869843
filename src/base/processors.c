/* processors.c: how many threads are useful on this machine, and on which processors.
 * In:  the affinity of this process and, on Linux, the quotas of its cgroups, the speed of each
 *      processor, and what it has been used for.
 * Out: qp_default_threads, at least 1 and at most MAX_THREADS; qp_threads_now, how many of the
 *      threads have a processor for themselves. */
#include "base.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    READ_INTERVAL_NS = 100000000 // of what other programs use; a reading takes 0.1 ms
};
#define STAY 0.6 // by how many processors that must change before the number of threads does

#if defined(__linux__)

#include <fcntl.h>
#include <sys/syscall.h>
#include <time.h>

enum {
    WORD_BITS = 8 * (int)sizeof(unsigned long),
    STAT_BYTES = 32 * 1024 // the lines of MAX_THREADS processors
};

/* Read the first line of a small system file, without its newline. False if it cannot be read. */
static bool read_line(const char *path, char *line, int size)
{
    FILE *in = fopen(path, "re");
    if (!in)
        return false;
    bool ok = fgets(line, size, in) != NULL;
    fclose(in);
    if (ok)
        line[strcspn(line, "\n")] = 0;
    return ok;
}

/* quota / period processors, rounded up; INT32_MAX for no limit ("max", or -1). */
static int quota_processors(const char *quota, const char *period)
{
    long long q = atoll(quota), p = atoll(period);
    if (q <= 0 || p <= 0 || q / p >= MAX_THREADS)
        return INT32_MAX;
    return (int)((q + p - 1) / p);
}

/* The quota of one cgroup folder: in v2 the file cpu.max, "quota period"; in v1 two files. */
static int group_processors(const char *folder, bool is_v2)
{
    char path[1100], quota[64], period[64], *space;
    snprintf(path, sizeof path, "%s/%s", folder, is_v2 ? "cpu.max" : "cpu.cfs_quota_us");
    if (!read_line(path, quota, sizeof quota))
        return INT32_MAX;
    if (is_v2)
        return (space = strchr(quota, ' ')) ? quota_processors(quota, space + 1) : INT32_MAX;
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", folder);
    return read_line(path, period, sizeof period) ? quota_processors(quota, period) : INT32_MAX;
}

/* The smallest quota from `group` up to the root of its tree. In a container, the container's own
 * group is the root. */
static int tree_processors(const char *root, char *group, bool is_v2)
{
    int least = INT32_MAX;
    for (char *slash = group + strlen(group); slash; slash = strrchr(group, '/')) {
        char folder[1024];
        *slash = 0;
        snprintf(folder, sizeof folder, "%s/sys/fs/cgroup%s%s", root, is_v2 ? "" : "/cpu", group);
        const int n = group_processors(folder, is_v2);
        least = n < least ? n : least;
    }
    return least;
}

/* Whether a list such as "cpu,cpuacct" contains "cpu". */
static bool has_cpu(const char *controllers)
{
    for (const char *p = controllers; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
        if (strncmp(p, "cpu", 3) == 0 && (p[3] == ',' || !p[3]))
            return true;
    return false;
}

int qp_cgroup_processors(const char *root)
{
    char path[600], line[512];
    int least = INT32_MAX;
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *in = fopen(path, "re");
    while (in && fgets(line, sizeof line, in)) { // id:controllers:/group
        line[strcspn(line, "\n")] = 0;
        char *controllers = strchr(line, ':'),
             *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group)
            continue;
        *group++ = 0;
        controllers++;
        const bool is_v2 = !*controllers;
        if (!is_v2 && !has_cpu(controllers))
            continue;
        const int n = tree_processors(root, group, is_v2);
        least = n < least ? n : least;
    }
    if (in)
        fclose(in);
    return least;
}

/* Where Linux says how fast a processor is, and how many percent of the fastest one a processor
 * must have. The scheduler's capacity includes what a cycle does; a frequency does not. Chosen
 * between the large and the small cores of published phones, such as 3.2, 2.8 and 2.0 GHz; not
 * measured. */
static const struct speed_file {
    const char *name;
    int percent;
} speed_files[] = { { "cpu_capacity", 50 }, { "cpufreq/cpuinfo_max_freq", 75 } };

/* 0 if it cannot be read. */
static long processor_speed(const char *root, int i, const char *file)
{
    char path[600], line[32];
    snprintf(path, sizeof path, "%s/sys/devices/system/cpu/cpu%d/%s", root, i, file);
    return read_line(path, line, sizeof line) ? atol(line) : 0;
}

static bool has_processor(const struct processors *p, int i)
{
    return p->mask[i / WORD_BITS] >> i % WORD_BITS & 1;
}

/* Keep the processors above the file's percentage; false if the file is missing for one of them. */
static bool select_fast(const char *root, const struct speed_file *file, struct processors *p)
{
    long speeds[MAX_THREADS], fastest = 0;
    for (int i = 0; i < (int)QP_COUNT(p->mask) * WORD_BITS; i++) {
        if (!has_processor(p, i))
            continue;
        if (i >= MAX_THREADS || (speeds[i] = processor_speed(root, i, file->name)) <= 0)
            return false;
        fastest = speeds[i] > fastest ? speeds[i] : fastest;
    }
    for (int i = 0; i < MAX_THREADS; i++)
        if (has_processor(p, i) && speeds[i] * 100 < fastest * file->percent)
            p->mask[i / WORD_BITS] &= ~(1ul << i % WORD_BITS);
    return true;
}

static int count_processors(const struct processors *p)
{
    int n = 0;
    for (size_t i = 0; i < QP_COUNT(p->mask); i++)
        n += __builtin_popcountl(p->mask[i]);
    return n;
}

int qp_fast_processors(const char *root, bool by_frequency, struct processors *p)
{
    for (int i = 0; i <= by_frequency; i++)
        if (select_fast(root, &speed_files[i], p))
            break;
    return count_processors(p);
}

/* The processors that this thread may use. Uses the system call: the C library's wrapper would need
 * _GNU_SOURCE before the first include of the single-file library. Returns their number, 0 if the
 * system does not tell. */
static int allowed_processors(struct processors *p)
{
    *p = (struct processors){ 0 };
    return syscall(SYS_sched_getaffinity, 0, sizeof p->mask, p->mask) > 0 ? count_processors(p) : 0;
}

/* On PCs, small cores run at a lower frequency but help. They have no capacity there. */
#if defined(__aarch64__)
#define HAS_SMALL_CORES true
#else
#define HAS_SMALL_CORES false
#endif

int qp_default_threads(void)
{
    struct processors p;
    int n = allowed_processors(&p) ? qp_fast_processors("", HAS_SMALL_CORES, &p) : INT32_MAX;
    int limits[] = { qp_cgroup_processors(""), MAX_THREADS };
    for (size_t i = 0; i < QP_COUNT(limits); i++)
        n = limits[i] < n ? limits[i] : n;
    return n;
}

void qp_avoid_slow_processors(int n_threads)
{
    struct processors p;
    const int n_allowed = allowed_processors(&p);
    const int n_fast = n_allowed ? qp_fast_processors("", HAS_SMALL_CORES, &p) : 0;
    if (n_fast < n_allowed && n_threads <= n_fast)
        syscall(SYS_sched_setaffinity, 0, sizeof p.mask, p.mask); // may fail, which is fine
}

#else

int qp_default_threads(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > MAX_THREADS ? MAX_THREADS : (int)n;
}

void qp_avoid_slow_processors(int n_threads)
{
    (void)n_threads;
}

#endif

/* ---- other programs ---- */

#if defined(__linux__) && !defined(__ANDROID__) // whose apps cannot read /proc/stat

/* The first bytes of a system file, without memory from the heap; "" if it cannot be read. */
static void read_start(const char *path, char *text, size_t size)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t n = 0;
    for (ssize_t got = 1; fd >= 0 && got > 0 && n + 1 < size; n += got > 0 ? (size_t)got : 0)
        got = read(fd, text + n, size - 1 - n);
    if (fd >= 0)
        close(fd);
    text[n] = 0;
}

/* What the numbers of a processor's line leave to a program of normal priority. Time that a host
 * has taken from a virtual processor counts as left: fewer threads would not bring it back. */
static uint64_t free_ticks(char *line)
{
    enum { // of user, nice, system, idle, iowait, irq, softirq, steal
        NICE = 1,
        IDLE = 3,
        IO_WAIT = 4,
        STEAL = 7,
        N_FIELDS
    };
    uint64_t ticks[N_FIELDS];
    for (int i = 0; i < N_FIELDS; i++)
        ticks[i] = strtoull(line, &line, 10);
    return ticks[NICE] + ticks[IDLE] + ticks[IO_WAIT] + ticks[STEAL];
}

bool qp_processor_use(const char *root, const struct processors *p, struct processor_use *use)
{
    char path[600], text[STAT_BYTES];
    uint64_t ticks = 0;
    struct timespec own;
    *use = (struct processor_use){ .at_ns = qp_now_ns() };
    snprintf(path, sizeof path, "%s/proc/stat", root);
    read_start(path, text, sizeof text);
    for (char *line = text, *end; (end = strchr(line, '\n')) && !strncmp(line, "cpu", 3);
         line = end + 1) {
        char *rest;
        const unsigned long i = strtoul(line + 3, &rest, 10);
        if (line[3] == ' ' || i >= QP_COUNT(p->mask) * WORD_BITS || !has_processor(p, (int)i))
            continue; // the line of all processors, or one that this thread may not use
        use->n_processors++;
        ticks += free_ticks(rest);
    }
    if (ticks == 0 || clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &own))
        return false; // some sandboxes have only zeros
    use->free_ns = ticks * (1000000000u / (uint64_t)sysconf(_SC_CLK_TCK));
    use->own_ns = (uint64_t)own.tv_sec * 1000000000u + (uint64_t)own.tv_nsec;
    return true;
}

static bool read_use(struct processor_use *use)
{
    struct processors p;
    return allowed_processors(&p) > 0 && qp_processor_use("", &p, use);
}

#else

static bool read_use(struct processor_use *use)
{
    (void)use;
    return false;
}

#endif

int qp_busy_processors(int n_before, const struct processor_use *before,
                       const struct processor_use *now, int n_threads)
{
    const double ns = (double)now->at_ns - (double)before->at_ns;
    const double own = (double)now->own_ns - (double)before->own_ns;
    const double left = (double)now->free_ns - (double)before->free_ns;
    if (before->n_processors != now->n_processors || ns <= 0 || own < 0)
        return 0; // the first reading, another affinity, or a child after fork()
    const double n = now->n_processors - (own + left) / ns;
    if (n >= n_before - STAY && n <= n_before + STAY)
        return n_before;
    const bool is_idle = own * 4 < ns * n_threads; // others may use what these threads do not
    return n > n_before && is_idle ? n_before : n > 0 ? (int)(n + 0.5) : 0;
}

int qp_threads_beside(int n_busy, int n_processors, int n_threads)
{
    const int least = n_threads < 4 ? 2 : (n_threads + 1) / 2, n_free = n_processors - n_busy;
    return n_busy == 0 ? n_threads : qp_min(n_free > least ? n_free : least, n_threads);
}

int qp_threads_now(struct thread_watch *w, int n_before, int n_threads)
{
    const uint64_t now = qp_now_ns();
    if (n_threads > 2 && now >= w->next_ns) {
        struct processor_use use = { 0 };
        const bool ok = read_use(&use);
        w->next_ns = ok ? now + READ_INTERVAL_NS : UINT64_MAX;
        w->n_busy = ok ? qp_busy_processors(w->n_busy, &w->last, &use, n_before) : 0;
        w->last = use;
    }
    return qp_threads_beside(w->n_busy, w->last.n_processors, n_threads);
}

int qp_process_id(void)
{
#if defined(__wasm__)
    return 0;
#else
    return (int)getpid();
#endif
}
