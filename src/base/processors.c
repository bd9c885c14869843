/* processors.c: how many threads are useful on this machine.
 * In:  the affinity of this process and, on Linux, the quotas of its cgroups.
 * Out: qp_default_threads, at least 1 and at most MAX_THREADS. */
#include "base.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if defined(__linux__)

#include <sys/syscall.h>

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

/* Uses the system call: the C library's wrapper would need _GNU_SOURCE before the first include of
 * the single-file library. */
static int affinity_processors(void)
{
    unsigned long mask[128] = { 0 }; // 8192 processors
    long n_bytes = syscall(SYS_sched_getaffinity, 0, sizeof mask, mask);
    int n = 0;
    for (long i = 0; i < n_bytes / (long)sizeof mask[0]; i++)
        n += __builtin_popcountl(mask[i]);
    return n > 0 ? n : INT32_MAX;
}

int qp_default_threads(void)
{
    int n = affinity_processors();
    int limits[] = { qp_cgroup_processors(""), MAX_THREADS };
    for (size_t i = 0; i < QP_COUNT(limits); i++)
        n = limits[i] < n ? limits[i] : n;
    return n;
}

#else

int qp_default_threads(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > MAX_THREADS ? MAX_THREADS : (int)n;
}

#endif

int qp_process_id(void)
{
#if defined(__wasm__)
    return 0;
#else
    return (int)getpid();
#endif
}
