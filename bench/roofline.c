/* roofline.c: the two limits of this machine for an engine.
 *
 *     build/bench/roofline [-t THREADS] [-r ROUNDS] [--json]
 *
 * Decode reads every weight once. Its limit is the rate of a plain read by all threads, each with
 * its own part of 1 GiB, in the fastest of three ways. Prefill multiplies. Its limit is the rate of
 * the widest dot product of 8-bit integers in registers. The result is the median of alternating
 * rounds, because the load of other machines on the host changes within seconds. */
#include "limits.h"
#include "median.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_ROUNDS = 99,
    STEPS = 1 << 20 // a few milliseconds
};
#define READ_BYTES ((size_t)1 << 30)

struct limits_job {
    unsigned cpu;
    double operations; // of one thread
};

static void multiply_share(void *arg, int index, int n_threads)
{
    struct limits_job *job = arg;
    const double done = integer_rounds(job->cpu, STEPS);
    (void)n_threads;
    if (index == 0)
        job->operations = done;
}

static double seconds_of(struct pool *pool, pool_task task, struct limits_job *job)
{
    const uint64_t start = qp_now_ns();
    qp_pool_run(pool, task, job);
    return (double)(qp_now_ns() - start) * 1e-9;
}

struct figure {
    const char *name, *unit;
    double rounds[MAX_ROUNDS];
};

static void print_figure(struct figure *f, int n, bool is_json, bool is_last)
{
    const double middle = median(f->rounds, n), min = f->rounds[0], max = f->rounds[n - 1];
    if (is_json)
        printf("  \"%s\": {\"median\": %.4g, \"min\": %.4g, \"max\": %.4g}%s\n", f->name, middle,
               min, max, is_last ? "" : ",");
    else
        printf("%-14s %8.2f %s  (%.2f to %.2f)\n", f->name, middle, f->unit, min, max);
}

static int whole_number(const char *text, int max)
{
    char *end;
    const long n = strtol(text, &end, 10);
    if (*text == 0 || *end || n < 1 || n > max) {
        fprintf(stderr, "roofline: %s is not a number; must be 1 to %d\n", text, max);
        exit(2);
    }
    return (int)n;
}

int main(int argc, char **argv)
{
    int n_threads = 0, n_rounds = 9;
    bool is_json = false;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--json"))
            is_json = true;
        else if (!strcmp(argv[i], "-t") && i + 1 < argc)
            n_threads = whole_number(argv[++i], 1024);
        else if (!strcmp(argv[i], "-r") && i + 1 < argc)
            n_rounds = whole_number(argv[++i], MAX_ROUNDS);
        else
            return fprintf(stderr, "usage: roofline [-t THREADS] [-r ROUNDS] [--json]\n"), 2;
    }
    struct pool *pool;
    quip_error error;
    uint8_t *data = qp_alloc_pages(READ_BYTES);
    if (!data)
        return fprintf(stderr, "roofline: out of memory for 1 GiB\n"), 1;
    if (qp_pool_open(&pool, n_threads, false, &error))
        return fprintf(stderr, "roofline: %s\n", error.message), 1;
    memset(data, 1, READ_BYTES); // untouched pages may all be the same zero page
    n_threads = qp_pool_n_threads(pool);

    struct limits_job job = { .cpu = qp_cpu_features() };
    struct figure read = { .name = "read_gb_per_s", .unit = "GB/s" };
    struct figure multiply = { .name = "int8_tops", .unit = "TOPS" };
    for (int i = 0; i < n_rounds; i++) {
        read.rounds[i] = read_rate(pool, &(struct reading){ data, READ_BYTES });
        const double s = seconds_of(pool, multiply_share, &job);
        multiply.rounds[i] = job.operations * n_threads / s * 1e-12;
    }
    if (is_json)
        printf("{\n  \"threads\": %d,\n", n_threads);
    print_figure(&read, n_rounds, is_json, false);
    print_figure(&multiply, n_rounds, is_json, true);
    if (is_json)
        printf("}\n");
    qp_pool_close(pool);
    qp_free_pages(data, READ_BYTES);
    return 0;
}
