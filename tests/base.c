/* base.c (test): errors, memory, files, threads, processor features and UTF-8. */
#include "base/base.h"
#include "support/alloc_fault.h"

#include <fcntl.h>
#include <math.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#if defined(__linux__)
#include <sys/syscall.h>
#endif
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/quip-base-XXXXXX";

static const char *in_folder(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void write_file(const char *path, const void *data, size_t n)
{
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(data, 1, n, out), n);
    fclose(out);
}

/* ---- errors ---- */

static void test_errors(void **state)
{
    (void)state;
    quip_error e = { 0 };
    assert_int_equal(qp_fail(&e, QUIP_E_IO, "%s: %d", "x", 7), QUIP_E_IO);
    assert_int_equal(e.status, QUIP_E_IO);
    assert_string_equal(e.message, "x: 7");
    assert_int_equal(qp_fail(NULL, QUIP_E_MEMORY, "x"), QUIP_E_MEMORY);
    assert_int_equal(qp_fail_memory(&e, "the thing", 12), QUIP_E_MEMORY);
    assert_non_null(strstr(e.message, "12 bytes for the thing"));
    assert_int_equal(qp_fail_in(&e, QUIP_E_MEMORY, "a.bin"), QUIP_E_MEMORY);
    assert_non_null(strstr(e.message, "a.bin: out of memory: 12 bytes for the thing"));
    assert_int_equal(qp_fail_in(&e, QUIP_OK, "b.bin"), QUIP_OK);
    assert_null(strstr(e.message, "b.bin"));
    assert_int_equal(qp_fail_in(NULL, QUIP_E_IO, "b.bin"), QUIP_E_IO);
    assert_string_equal(quip_status_name(QUIP_E_CONTEXT_FULL), "context_full");
    assert_string_equal(quip_status_name((quip_status)-99), "unknown");

    // cut before a character that does not fit; nothing in a message but printable UTF-8
    char text[600];
    for (size_t i = 0; i + 1 < sizeof text; i += 2)
        memcpy(text + i, "\xc3\xa4", 2);
    text[sizeof text - 2] = 0;
    qp_fail(&e, QUIP_E_IO, "%s", text);
    assert_int_equal(strlen(e.message), 506);
    qp_fail(&e, QUIP_E_IO, "a\x1b[2J\xff\nb");
    assert_string_equal(e.message, "a?[2J??b");
}

/* ---- memory ---- */

static void test_sizes(void **state)
{
    (void)state;
    size_t n;
    assert_true(qp_mul_size(SIZE_MAX / 2, 2, &n) && n == SIZE_MAX - 1);
    assert_false(qp_mul_size(SIZE_MAX / 2 + 1, 2, &n));
    assert_true(qp_mul_size(SIZE_MAX, 0, &n) && n == 0);
    assert_true(qp_add_size(SIZE_MAX - 1, 1, &n) && n == SIZE_MAX);
    assert_false(qp_add_size(SIZE_MAX, 1, &n));
    assert_int_equal(qp_round_up(65, 64), 128);
}

static void test_decimal(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t n; // bytes of the number
        double value;
    } cases[] = {
        { "0", 1, 0 },
        { "-12.5", 5, -12.5 },
        { "0.1", 3, 0.1 },
        { "123456789.25, 3", 12, 123456789.25 },
        { "1e-06", 5, 1e-6 },
        { "2.5E+3}", 6, 2500 },
        { "1e22", 4, 1e22 },
        { "17e-40", 6, 17e-40 },
        { "1e99999", 7, HUGE_VAL },
        { "1e-99999", 8, 0 },
        { "", 0, 0 },
        { "-", 0, 0 },
        { "+1", 0, 0 },
        { ".5", 0, 0 },
        { "1.", 0, 0 },
        { "1e", 0, 0 },
        { "1e+", 0, 0 },
        { "x1", 0, 0 },
    };
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        double value = 0;
        assert_int_equal(qp_decimal_parse(cases[i].text, strlen(cases[i].text), &value),
                         cases[i].n);
        assert_true(value == cases[i].value);
    }
    double value;
    assert_int_equal(qp_decimal_parse("125", 2, &value), 2); // never reads past n bytes
    assert_true(value == 12);
}

static void test_arena(void **state)
{
    (void)state;
    struct arena measure = { 0 }, a;
    for (size_t i = 0; i < 10; i++)
        assert_null(qp_arena_alloc(&measure, i * 37));
    assert_int_equal(qp_arena_open(&a, measure.used, "test", NULL), QUIP_OK);
    for (size_t i = 0; i < 10; i++) {
        uint8_t *p = qp_arena_alloc(&a, i * 37);
        assert_int_equal((uintptr_t)p % 64, 0);
        for (size_t k = 0; k < i * 37; k++)
            assert_int_equal(p[k], 0);
        memset(p, 255, i * 37);
    }
    assert_int_equal(a.used, measure.used);
    qp_arena_close(&a);
    qp_arena_close(&a);

    quip_error e;
    measure = (struct arena){ 0 };
    qp_arena_alloc(&measure, SIZE_MAX - 10);
    qp_arena_alloc(&measure, 100);
    assert_int_equal(qp_arena_open(&a, measure.used, "too much", &e), QUIP_E_MEMORY);
    assert_non_null(strstr(e.message, "too much"));
}

static void test_bytes(void **state)
{
    (void)state;
    struct bytes b = { 0 };
    for (int i = 0; i < 1000; i++)
        assert_true(qp_bytes_printf(&b, "%d,", i));
    assert_true(qp_bytes_append_text(&b, "end") && qp_bytes_append(&b, "", 1));
    assert_int_equal(b.n, 10 * 2 + 90 * 3 + 900 * 4 + 4);
    assert_string_equal((char *)b.data + b.n - 8, "999,end");
    assert_false(qp_bytes_reserve(&b, SIZE_MAX));
    assert_string_equal((char *)b.data + b.n - 8, "999,end");
    qp_bytes_close(&b);
    assert_null(b.data);
}

/* ---- files ---- */

static bool read_memory(void *user, uint64_t offset, void *buffer, size_t n)
{
    memcpy(buffer, (const char *)user + offset, n);
    return offset < 8;
}

static void test_files(void **state)
{
    (void)state;
    struct file f;
    quip_error e = { 0 };
    char out[16] = { 0 };
    assert_int_equal(qp_file_open(&f, in_folder("none"), &e), QUIP_E_IO);
    assert_non_null(strstr(e.message, "none: No such file"));
    assert_int_equal(qp_file_open(&f, folder, &e), QUIP_E_IO);
    assert_non_null(strstr(e.message, "folder"));
    write_file(in_folder("empty"), "", 0);
    assert_int_equal(qp_file_open(&f, in_folder("empty"), &e), QUIP_E_FORMAT);
    assert_int_equal(mkfifo(in_folder("fifo"), 0600), 0);
    assert_int_equal(qp_file_open(&f, in_folder("fifo"), &e), QUIP_E_IO);

    write_file(in_folder("ten"), "0123456789", 10);
    assert_int_equal(qp_file_open(&f, in_folder("ten"), &e), QUIP_OK);
    assert_int_equal(f.size, 10);
    assert_memory_equal(f.data, "0123456789", 10);
    assert_int_equal(qp_file_read(&f, 7, out, 3, &e), QUIP_OK);
    assert_string_equal(out, "789");
    assert_int_equal(qp_file_read(&f, 8, out, 3, &e), QUIP_E_FORMAT);
    assert_int_equal(qp_file_read(&f, UINT64_MAX, out, 3, &e), QUIP_E_FORMAT);
    qp_file_close(&f);
    qp_file_close(&f);

    quip_source source = { .user = "0123456789", .size = 10, .read_at = read_memory };
    assert_int_equal(qp_file_open_source(&f, &source, &e), QUIP_OK);
    assert_null(f.data);
    assert_int_equal(qp_file_read(&f, 7, out, 3, &e), QUIP_OK);
    assert_int_equal(qp_file_read(&f, 7, out, 4, &e), QUIP_E_FORMAT);
    assert_int_equal(qp_file_read(&f, 9, out, 1, &e), QUIP_E_IO);
    assert_non_null(strstr(e.message, "model: "));
    qp_file_close(&f);
}

/* Another program changes the file while it is open. */
static void test_changed_files(void **state)
{
    (void)state;
    struct file mapped, copied, source;
    quip_error e = { 0 };
    char path[256], other[256];
    snprintf(path, sizeof path, "%s", in_folder("changing"));
    snprintf(other, sizeof other, "%s", in_folder("renamed"));
    write_file(path, "0123456789", 10);
    assert_int_equal(qp_file_open(&mapped, path, &e), QUIP_OK);
    assert_int_equal(qp_file_open_copy(&copied, path, &e), QUIP_OK);
    assert_memory_equal(copied.data, "0123456789", 10);
    assert_int_equal(qp_file_check(&mapped, &e), QUIP_OK);

    assert_int_equal(rename(path, other), 0); // the mapped bytes stay the same
    assert_int_equal(qp_file_check(&mapped, &e), QUIP_OK);
    write_file(path, "another", 7);
    assert_int_equal(qp_file_check(&mapped, &e), QUIP_OK);
    assert_int_equal(rename(other, path), 0);

    const struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = 1 } };
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0); // as after writing as many bytes
    assert_int_equal(qp_file_check(&mapped, &e), QUIP_E_IO);
    assert_non_null(strstr(e.message, "changing: was truncated or overwritten"));
    assert_int_equal(truncate(path, 5), 0);
    assert_int_equal(qp_file_check(&mapped, &e), QUIP_E_IO);
    assert_int_equal(qp_file_check(&copied, &e), QUIP_OK);
    assert_memory_equal(copied.data, "0123456789", 10);

    const quip_source words = { .user = "0123456789", .size = 10, .read_at = read_memory };
    assert_int_equal(qp_file_open_source(&source, &words, &e), QUIP_OK);
    assert_int_equal(qp_file_load(&source, &e), QUIP_OK);
    assert_int_equal(qp_file_check(&source, &e), QUIP_OK);
    qp_file_close(&source);
    qp_file_close(&copied);
    qp_file_close(&mapped);
}

static bool exists(const char *path)
{
    return access(path, F_OK) == 0;
}

static void test_out_file(void **state)
{
    (void)state;
    struct out_file *f, *other;
    quip_error e = { 0 };
    struct file in;
    char path[256], part[300];
    snprintf(path, sizeof path, "%s", in_folder("out"));
    snprintf(part, sizeof part, "%s.part", path);
    assert_int_equal(qp_out_file_open(&f, folder, &e), QUIP_E_IO);
    assert_int_equal(qp_out_file_open(&f, in_folder("no/such"), &e), QUIP_E_IO);

    write_file(part, "left behind by a killed run", 27);
    assert_int_equal(qp_out_file_open(&f, path, &e), QUIP_OK);
    assert_int_equal(qp_out_file_open(&other, path, &e), QUIP_E_IO);
    assert_non_null(strstr(e.message, "another process"));
    assert_int_equal(qp_out_file_write(f, 2, "ab", 2, &e), QUIP_OK);
    qp_out_file_close(f);
    assert_false(exists(part) || exists(path));

    assert_int_equal(qp_out_file_open(&f, path, &e), QUIP_OK);
    assert_int_equal(qp_out_file_resize(f, UINT64_MAX / 4, &e), QUIP_E_IO);
    assert_int_equal(qp_out_file_resize(f, 6, &e), QUIP_OK);
    assert_int_equal(qp_out_file_write(f, 2, "ab", 2, &e), QUIP_OK);
    assert_true(exists(part) && !exists(path));
    assert_int_equal(qp_out_file_commit(f, &e), QUIP_OK);
    qp_out_file_close(f);
    assert_true(!exists(part) && exists(path));
    assert_int_equal(qp_file_open(&in, path, &e), QUIP_OK);
    assert_int_equal(in.size, 6);
    assert_memory_equal(in.data, "\0\0ab\0\0", 6);
    qp_file_close(&in);
}

/* A process that is killed while it writes leaves only the temporary file. */
static void test_killed_writer(void **state)
{
    (void)state;
    char path[256], part[300];
    snprintf(path, sizeof path, "%s", in_folder("killed"));
    snprintf(part, sizeof part, "%s.part", path);
    pid_t child = fork();
    if (child == 0) {
        struct out_file *f;
        if (qp_out_file_open(&f, path, NULL) || qp_out_file_write(f, 0, "half", 4, NULL))
            _exit(1);
        kill(getpid(), SIGKILL);
    }
    int how;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFSIGNALED(how));
    assert_true(exists(part) && !exists(path));
    struct out_file *f;
    assert_int_equal(qp_out_file_open(&f, path, NULL), QUIP_OK);
    qp_out_file_close(f);
    assert_false(exists(part));
}

/* ---- threads ---- */

struct count {
    atomic_int n_calls;
    int n_threads;
    int n_runs; // written by thread 0, read by the others in the next run
    int seen[64];
};

static void count_task(void *arg, int index, int n_threads)
{
    struct count *c = arg;
    atomic_fetch_add(&c->n_calls, 1);
    assert_int_equal(n_threads, c->n_threads);
    c->seen[index]++;
}

static void test_pool(void **state)
{
    (void)state;
    for (int n = 1; n <= 8; n++) {
        struct pool *p;
        struct count c = { 0 };
        assert_int_equal(qp_pool_open(&p, n, n % 2 == 1, NULL), QUIP_OK);
        c.n_threads = qp_pool_n_threads(p);
        assert_int_equal(c.n_threads, n);
        for (int run = 0; run < 2000; run++) {
            qp_pool_run(p, count_task, &c);
            for (int i = 0; i < n; i++)
                assert_int_equal(c.seen[i], run + 1);
            if (run % 500 == 0) // long enough for the workers to fall asleep
                nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
        }
        assert_int_equal(c.n_calls, 2000 * n);
        qp_pool_close(p);
    }
    qp_pool_close(NULL);
    struct pool *p;
    quip_error e;
    assert_int_equal(qp_pool_open(&p, -1, false, &e), QUIP_E_ARGUMENT);
    assert_int_equal(qp_pool_open(&p, 0, false, &e), QUIP_OK);
    assert_int_equal(qp_pool_n_threads(p), qp_default_threads());
    qp_pool_close(p);
}

/* A limit is the number of parts of the runs after it, in both kinds of pool, whether it grows or
 * shrinks, and after workers above it have fallen asleep. */
static void test_pool_limit(void **state)
{
    (void)state;
    static const int limits[] = { 1, 8, 3, 2, 100, 1, 4 };
    for (int is_background = 0; is_background < 2; is_background++) {
        struct pool *p;
        assert_int_equal(qp_pool_open(&p, 8, is_background, NULL), QUIP_OK);
        assert_int_equal(qp_pool_n_threads(p), 8);
        for (int run = 0; run < 700; run++) {
            struct count c = { .n_threads = qp_min(limits[run % 7], 8) };
            assert_int_equal(qp_pool_limit(p, limits[run % 7]), c.n_threads);
            for (int again = 0; again < 5; again++)
                qp_pool_run(p, count_task, &c);
            for (int i = 0; i < 8; i++)
                assert_int_equal(c.seen[i], i < c.n_threads ? 5 : 0);
            if (run % 100 == 0)
                nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
        }
        assert_int_equal(qp_pool_n_threads(p), 8);
        qp_pool_limit(p, 1); // close while workers sleep above the limit
        nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
        qp_pool_close(p);
    }
}

struct all_items {
    struct pool *pool;
    struct pool_items items;
    atomic_uchar done[1000];
};

static void items_task(void *arg, int index, int n_threads)
{
    (void)n_threads;
    struct all_items *all = arg;
    const struct pool_items *items = &all->items;
    int begin, end;
    while (qp_pool_next(all->pool, index, items, &begin, &end)) {
        assert_true(begin < end && end <= items->n);
        assert_true(!items->max || end - begin <= items->max);
        assert_true(begin % items->unit == 0 && (end % items->unit == 0 || end == items->n));
        for (int i = begin; i < end; i++)
            atomic_fetch_add(&all->done[i], 1);
        if (index == 1 && begin % 3 == 0) // a slow thread
            sched_yield();
    }
}

#if defined(__linux__)

static void put_file(const char *root, const char *path, const char *text)
{
    char full[300];
    snprintf(full, sizeof full, "%s%s", root, path);
    for (char *slash = strchr(full + strlen(root) + 1, '/'); slash;
         slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(full, 0777);
        *slash = '/';
    }
    FILE *out = fopen(full, "w");
    assert_non_null(out);
    fputs(text, out);
    fclose(out);
}

/* Quotas of a group and of its parents, in the layout of both versions of cgroup. */
static void test_cgroup(void **state)
{
    (void)state;
    char root[] = "/tmp/quip-cgroup-XXXXXX", command[100];
    assert_non_null(mkdtemp(root));
    assert_int_equal(qp_cgroup_processors(root), INT32_MAX); // no files
    put_file(root, "/proc/self/cgroup", "0::/app/web\n");
    assert_int_equal(qp_cgroup_processors(root), INT32_MAX);
    put_file(root, "/sys/fs/cgroup/app/web/cpu.max", "max 100000\n");
    assert_int_equal(qp_cgroup_processors(root), INT32_MAX);
    put_file(root, "/sys/fs/cgroup/app/cpu.max", "250000 100000\n");
    assert_int_equal(qp_cgroup_processors(root), 3);
    put_file(root, "/sys/fs/cgroup/app/web/cpu.max", "50000 100000\n");
    assert_int_equal(qp_cgroup_processors(root), 1);
    put_file(root, "/proc/self/cgroup",
             "3:memory:/docker/a\n2:cpuset:/docker/a\n1:cpu,cpuacct:/docker/a\nnonsense\n");
    put_file(root, "/sys/fs/cgroup/cpu/docker/a/cpu.cfs_quota_us", "-1\n");
    put_file(root, "/sys/fs/cgroup/cpu/docker/a/cpu.cfs_period_us", "100000\n");
    assert_int_equal(qp_cgroup_processors(root), INT32_MAX);
    put_file(root, "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "400000\n"); // a container's view
    put_file(root, "/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    assert_int_equal(qp_cgroup_processors(root), 4);
    snprintf(command, sizeof command, "rm -r %s", root);
    assert_int_equal(system(command), 0);
}

static void put_speeds(const char *root, const char *file, const int *speeds, int n)
{
    for (int i = 0; i < n; i++) {
        char path[100], text[20];
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/%s", i, file);
        snprintf(text, sizeof text, "%d\n", speeds[i]);
        put_file(root, path, text);
    }
}

/* Of a phone's processors the small ones are left out: by capacity, and where there is none by
 * frequency. */
static void test_fast_processors(void **state)
{
    (void)state;
    static const int frequencies[] = { 1803000, 1803000, 1803000, 1803000,
                                       2253000, 2253000, 2850000, 2850000 };
    static const int capacities[] = { 160, 160, 160, 160, 498, 512, 1024, 1024 };
    char root[] = "/tmp/quip-fast-XXXXXX", command[100];
    assert_non_null(mkdtemp(root));
    struct processors p = { { 0xff } };
    assert_int_equal(qp_fast_processors(root, true, &p), 8); // no files
    put_speeds(root, "cpufreq/cpuinfo_max_freq", frequencies, 8);
    assert_int_equal(qp_fast_processors(root, false, &p), 8);
    assert_int_equal(qp_fast_processors(root, true, &p), 4);
    assert_int_equal(p.mask[0], 0xf0);
    put_speeds(root, "cpu_capacity", capacities, 8);
    p.mask[0] = 0xff;
    assert_int_equal(qp_fast_processors(root, true, &p), 3);
    assert_int_equal(p.mask[0], 0xe0);
    p.mask[0] = 0x0f; // a process that may use only the small ones
    assert_int_equal(qp_fast_processors(root, true, &p), 4);
    p.mask[1] = 1; // a processor without files
    assert_int_equal(qp_fast_processors(root, true, &p), 5);
    snprintf(command, sizeof command, "rm -r %s", root);
    assert_int_equal(system(command), 0);
}

/* Processor 2 is not in the set. Time of low priority and stolen time are free for this process. */
static void test_processor_use(void **state)
{
    (void)state;
    char root[] = "/tmp/quip-use-XXXXXX", command[100];
    const uint64_t tick = 1000000000u / (uint64_t)sysconf(_SC_CLK_TCK);
    const struct processors p = { { 0xb } };
    struct processor_use use;
    assert_non_null(mkdtemp(root));
    assert_false(qp_processor_use(root, &p, &use)); // no file
    put_file(root, "/proc/stat",
             "cpu  70 700 7000 1 1 1 1 1 0 0\n"
             "cpu0 10 200 3000 4 50 600 7000 8 9 9\n"
             "cpu1 1 2 3 4\n" // an old system has fewer numbers
             "cpu2 1 1 1 1 1 1 1 1 0 0\n"
             "cpu3 1 0 1 1000000 0 0 0 0 0 0\n"
             "intr 123 4 5 6\n");
    assert_true(qp_processor_use(root, &p, &use));
    assert_int_equal(use.n_processors, 3);
    assert_int_equal(use.free_ns, (262 + 6 + 1000000) * tick);
    assert_true(use.own_ns > 0);
    put_file(root, "/proc/stat", "cpu  0 0 0 0\ncpu0 0 0 0 0\ncpu1 0 0 0 0\n"); // gVisor
    assert_false(qp_processor_use(root, &p, &use));
    put_file(root, "/proc/stat", "cpu0 1 2");
    assert_false(qp_processor_use(root, &p, &use));
    snprintf(command, sizeof command, "rm -r %s", root);
    assert_int_equal(system(command), 0);
}

/* A process that may use only one processor starts one thread. */
static void test_affinity(void **state)
{
    (void)state;
    unsigned long all[128] = { 0 }, one[128] = { 0 };
    const long n_bytes = syscall(SYS_sched_getaffinity, 0, sizeof all, all);
    assert_true(n_bytes > 0);
    for (size_t i = 0; i < QP_COUNT(all); i++)
        if (all[i]) {
            one[i] = all[i] & -all[i]; // its lowest processor
            break;
        }
    assert_int_equal(syscall(SYS_sched_setaffinity, 0, (size_t)n_bytes, one), 0);
    const int n = qp_default_threads();
    assert_int_equal(syscall(SYS_sched_setaffinity, 0, (size_t)n_bytes, all), 0);
    assert_int_equal(n, 1);
}

#else

static void test_cgroup(void **state)
{
    (void)state;
    skip();
}

static void test_fast_processors(void **state)
{
    (void)state;
    skip();
}

static void test_processor_use(void **state)
{
    (void)state;
    skip();
}

static void test_affinity(void **state)
{
    (void)state;
    skip();
}

#endif

/* A reading of 16 processors: since s seconds this process has used `own` of them, and `left` have
 * been free. */
static struct processor_use reading(double s, double own, double left)
{
    return (struct processor_use){ .n_processors = 16,
                                   .at_ns = 1000000000 + (uint64_t)(s * 1e9),
                                   .own_ns = 500000000 + (uint64_t)(own * s * 1e9),
                                   .free_ns = 7000000000 + (uint64_t)(left * s * 1e9) };
}

static void test_busy_processors(void **state)
{
    (void)state;
    static const struct {
        int before, n_threads;
        double own, left;
        int busy;
    } cases[] = {
        // no other programs; the system's clocks differ a little
        { 0, 16, 16, 0, 0 },
        { 0, 16, 14.5, 1, 0 },
        { 0, 16, 17, 0.5, 0 },
        { 0, 8, 8, 8, 0 },
        // four of them beside 16, 8 and 12 threads
        { 0, 16, 11.7, 0.1, 4 },
        { 0, 8, 8, 4, 4 },
        { 4, 12, 11.5, 0.4, 4 },
        // 3.5 and 4.5 change nothing, 3 does, and so does their end
        { 4, 12, 12, 0.5, 4 },
        { 4, 12, 11, 0.5, 4 },
        { 4, 12, 12, 1, 3 },
        { 4, 12, 12, 4, 0 },
        // these threads mostly idle: then only a smaller number is believed
        { 0, 16, 3.9, 0, 0 },
        { 4, 12, 0.1, 6, 4 },
        { 4, 12, 0.1, 14, 2 },
    };
    const struct processor_use before = reading(0, 0, 0);
    struct processor_use now, none = { 0 };
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        now = reading(0.1, cases[i].own, cases[i].left);
        assert_int_equal(qp_busy_processors(cases[i].before, &before, &now, cases[i].n_threads),
                         cases[i].busy);
    }
    now = reading(0.1, 4, 0);
    assert_int_equal(qp_busy_processors(4, &before, &now, 4), 12);
    assert_int_equal(qp_busy_processors(4, &none, &now, 4), 0);      // the first reading
    assert_int_equal(qp_busy_processors(4, &before, &before, 4), 0); // no time has passed
    now.own_ns = 0;
    assert_int_equal(qp_busy_processors(4, &before, &now, 4), 0); // a child after fork()
    now = reading(0.1, 4, 0);
    now.n_processors = 8;
    assert_int_equal(qp_busy_processors(4, &before, &now, 4), 0); // another affinity
}

/* Never below half of the threads, or below two. */
static void test_threads_beside(void **state)
{
    (void)state;
    static const int cases[][4] = { { 0, 16, 16, 16 }, { 4, 16, 16, 12 }, { 4, 16, 8, 8 },
                                    { 9, 16, 8, 7 },   { 8, 16, 16, 8 },  { 20, 16, 16, 8 },
                                    { 20, 16, 3, 2 },  { 1, 4, 4, 3 },    { 1, 2, 2, 2 },
                                    { 0, 0, 16, 16 },  { 0, 2, 16, 16 },  { 1, 2, 1, 1 } };
    for (size_t i = 0; i < QP_COUNT(cases); i++)
        assert_int_equal(qp_threads_beside(cases[i][0], cases[i][1], cases[i][2]), cases[i][3]);
    struct thread_watch watch = { 0 };
    assert_int_equal(qp_threads_now(&watch, 5, 5), 5); // nothing is known yet
    watch = (struct thread_watch){ { .n_processors = 16 }, .next_ns = UINT64_MAX, .n_busy = 4 };
    assert_int_equal(qp_threads_now(&watch, 16, 16), 12);
}

/* Every item is done once, also with more threads than this machine has processors, and with a
 * limit that changes between runs. */
static void test_pool_items(void **state)
{
    (void)state;
    static const int threads[] = { 1, 2, 3, 16, 64 }, counts[] = { 0, 1, 16, 63, 64, 500, 1000 };
    for (size_t t = 0; t < QP_COUNT(threads); t++) {
        struct all_items all = { 0 };
        assert_int_equal(qp_pool_open(&all.pool, threads[t], false, NULL), QUIP_OK);
        for (size_t c = 0; c < QP_COUNT(counts); c++)
            for (int run = 0; run < 20; run++) {
                const int unit = 1 << run % 5;
                all.items = (struct pool_items){ .n = counts[c],
                                                 .unit = unit,
                                                 .min = unit * (1 + run % 3),
                                                 .max = run % 4 ? unit * (4 + run) : 0 };
                memset(all.done, 0, sizeof all.done);
                qp_pool_limit(all.pool, run % 3 ? threads[t] : 1 + threads[t] / 2);
                qp_pool_run(all.pool, items_task, &all);
                for (int i = 0; i < all.items.n; i++)
                    assert_int_equal(all.done[i], 1);
            }
        qp_pool_close(all.pool);
    }
}

/* The shares of all threads cover the range, in order, and are divided at multiples of the unit. */
static void test_share(void **state)
{
    (void)state;
    for (int n = 0; n < 200; n += 7)
        for (int unit = 1; unit <= 64; unit *= 4)
            for (int n_threads = 1; n_threads < 20; n_threads++) {
                int end = 0;
                for (int i = 0; i < n_threads; i++) {
                    int b, e;
                    qp_share(n, unit, i, n_threads, &b, &e);
                    assert_int_equal(b, end);
                    assert_true(e >= b && (e % unit == 0 || e == n));
                    end = e;
                }
                assert_int_equal(end, n);
            }
    int begin, end;
    qp_share(INT32_MAX, 64, 255, 256, &begin, &end);
    assert_int_equal(end, INT32_MAX);
}

static void test_clock(void **state)
{
    (void)state;
    uint64_t a = qp_now_ns();
    assert_true(qp_now_ns() >= a);
    assert_int_not_equal(qp_random_seed(), qp_random_seed());
    assert_in_range(qp_default_threads(), 1, 256);
}

/* ---- processor ---- */

static void test_cpu(void **state)
{
    (void)state;
    unsigned all = qp_cpu_features();
    setenv("QUIP_CPU", "scalar", 1);
    assert_int_equal(qp_cpu_features(), 0);
    setenv("QUIP_CPU", "avx2", 1);
    assert_int_equal(qp_cpu_features(), all & CPU_AVX2);
    setenv("QUIP_CPU", "avx512vnni", 1);
    assert_int_equal(qp_cpu_features(), all & (CPU_AVX2 | CPU_AVXVNNI | CPU_AVX512VNNI));
    setenv("QUIP_CPU", "zen4", 1);
    assert_int_equal(qp_cpu_features(),
                     all & (CPU_AVX2 | CPU_AVXVNNI | CPU_AVX512VNNI | CPU_HALF_512));
    const unsigned intel = CPU_AVX2 | CPU_AVXVNNI | CPU_AVX512VNNI | CPU_INTEL_512 | CPU_VBMI;
    setenv("QUIP_CPU", "intel", 1);
    assert_int_equal(qp_cpu_features(), all & intel);
    setenv("QUIP_CPU", "amx", 1);
    assert_int_equal(qp_cpu_features(), all & (intel | CPU_AMX));
    setenv("QUIP_CPU", "dotprod", 1);
    assert_int_equal(qp_cpu_features(), all & (CPU_NEON | CPU_DOTPROD));
    setenv("QUIP_CPU", "i8mm", 1);
    assert_int_equal(qp_cpu_features(), all & (CPU_NEON | CPU_DOTPROD | CPU_I8MM));
    unsetenv("QUIP_CPU");
}

/* ---- UTF-8 ---- */

static void test_utf8_characters(void **state)
{
    (void)state;
    for (int32_t c = 0; c <= 0x10ffff; c++) {
        char text[4];
        int32_t back;
        if (c >= 0xd800 && c <= 0xdfff)
            continue;
        int n = qp_utf8_encode(c, text);
        if (qp_utf8_decode(text, (size_t)n, &back) != n || back != c)
            fail_msg("U+%04X", (unsigned)c);
        for (int cut = 1; cut < n; cut++) {
            assert_int_equal(qp_utf8_decode(text, (size_t)cut, &back), 1);
            assert_int_equal(back, -1);
            assert_int_equal(qp_utf8_complete(text, (size_t)cut), 0);
        }
        assert_int_equal(qp_utf8_complete(text, (size_t)n), n);
    }
}

static void test_utf8_malformed(void **state)
{
    (void)state;
    static const char *const malformed[] = {
        "\x80",         "\xbf",         "\xc0\x80",         "\xc1\xbf",         "\xe0\x9f\xbf",
        "\xed\xa0\x80", "\xed\xbf\xbf", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80",
        "\xff",         "\xfe",         "\xe2\x28\xa1",     "\xf0\x90\x28\xbc",
    };
    for (size_t i = 0; i < QP_COUNT(malformed); i++) {
        int32_t c;
        size_t n = strlen(malformed[i]);
        assert_int_equal(qp_utf8_decode(malformed[i], n, &c), 1);
        assert_int_equal(c, -1);
        assert_int_equal(qp_utf8_complete(malformed[i], n), n); // no further byte can complete it
    }
    assert_int_equal(qp_utf8_complete("a\xe2\x82", 3), 1);
    assert_int_equal(qp_utf8_complete("a\xed\xa0", 3), 3); // the beginning of a surrogate
    assert_int_equal(qp_utf8_complete("", 0), 0);
}

/* ---- faults ---- */

static void test_faults(void **state)
{
    (void)state;
    if (!alloc_fault_is_here())
        skip();
    char path[256];
    snprintf(path, sizeof path, "%s", in_folder("ten"));
    write_file(path, "0123456789", 10);
    int live = alloc_fault_live();
    for (int n = 0;; n++) {
        struct pool *pool = NULL;
        struct arena arena = { 0 };
        struct file file = { 0 };
        struct out_file *out = NULL;
        struct bytes bytes = { 0 };
        alloc_fault_set(n);
        bool ok = !qp_pool_open(&pool, 2, false, NULL) && !qp_arena_open(&arena, 100, "x", NULL) &&
                  !qp_file_open(&file, path, NULL) && !qp_out_file_open(&out, path, NULL) &&
                  qp_bytes_printf(&bytes, "%100d", 1);
        bool has_failed = alloc_fault_clear();
        assert_int_equal(ok, !has_failed);
        qp_bytes_close(&bytes);
        qp_out_file_close(out);
        qp_file_close(&file);
        qp_arena_close(&arena);
        qp_pool_close(pool);
        assert_int_equal(alloc_fault_live(), live);
        if (!has_failed)
            break;
        assert_true(n < 100);
    }
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    static const char *const names[] = { "empty", "fifo", "ten", "out", "changing" };
    for (size_t i = 0; i < QP_COUNT(names); i++)
        unlink(in_folder(names[i]));
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_decimal),
        cmocka_unit_test(test_arena),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_changed_files),
        cmocka_unit_test(test_out_file),
        cmocka_unit_test(test_killed_writer),
        cmocka_unit_test(test_pool),
        cmocka_unit_test(test_pool_limit),
        cmocka_unit_test(test_pool_items),
        cmocka_unit_test(test_cgroup),
        cmocka_unit_test(test_fast_processors),
        cmocka_unit_test(test_processor_use),
        cmocka_unit_test(test_busy_processors),
        cmocka_unit_test(test_threads_beside),
        cmocka_unit_test(test_affinity),
        cmocka_unit_test(test_share),
        cmocka_unit_test(test_clock),
        cmocka_unit_test(test_cpu),
        cmocka_unit_test(test_utf8_characters),
        cmocka_unit_test(test_utf8_malformed),
        cmocka_unit_test(test_faults),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
