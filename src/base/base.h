/* base.h: errors, memory, files, threads, CPU features, UTF-8. Every folder uses it; it knows
 * nothing about models. Functions that can fail return a quip_status and fill a quip_error. */
#ifndef QP_BASE_H
#define QP_BASE_H

#include "quip.h"

#include <assert.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#if defined(__GNUC__) || defined(__clang__)
#define QP_PRINTF(format_index, args_index)                                                        \
    __attribute__((format(printf, format_index, args_index)))
#else
#define QP_PRINTF(format_index, args_index)
#endif

#define QP_COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* ---- errors (error.c) ---- */

/* Fill `error` (may be NULL) and return `status`, so that a failing line reads
 * `return qp_fail(error, QUIP_E_FORMAT, "%s: ...", path);`. */
quip_status qp_fail(quip_error *error, quip_status status, const char *format, ...) QP_PRINTF(3, 4);

/* Prefix the message of a failed call with "where: ", which the call did not know. Returns
 * `status`; does nothing if that is QUIP_OK. */
quip_status qp_fail_in(quip_error *error, quip_status status, const char *where);

/* The message for a path that cannot be opened, with the reason in errno; or that is an address. */
quip_status qp_fail_open(quip_error *error, const char *path);

/* The message for every failed allocation: how many bytes, and for what. */
quip_status qp_fail_memory(quip_error *error, const char *what, size_t n_bytes);

/* ---- sizes (memory.c) ---- */

/* *product = a * b, or *sum = a + b; false on overflow. For numbers from a file. */
bool qp_mul_size(size_t a, size_t b, size_t *product);
bool qp_add_size(size_t a, size_t b, size_t *sum);

static inline int qp_max(int a, int b)
{
    return a > b ? a : b;
}

static inline int qp_min(int a, int b)
{
    return a < b ? a : b;
}

/* n rounded up to a multiple of `unit`, a power of two. */
static inline size_t qp_round_up(size_t n, size_t unit)
{
    assert(unit > 0 && (unit & (unit - 1)) == 0);
    return (n + unit - 1) & ~(unit - 1);
}

/* ---- memory (memory.c) ---- */

/* Zeroed memory aligned to 64 bytes, or NULL. A large block is address space; its pages cost
 * nothing until they are touched. Free it with qp_free_pages and the same size. */
void *qp_alloc_pages(size_t n_bytes);
void qp_free_pages(void *p, size_t n_bytes);
/* Ask the system for large pages: a block that is filled completely and read many times then needs
 * fewer TLB entries. Does nothing where there are none. */
void qp_want_large_pages(void *p, size_t n_bytes);

/* Tell the system that bytes of a mapped file are read here and there, so that it does not read
 * ahead. */
void qp_want_no_readahead(const void *p, size_t n_bytes);

/* An arena: one zeroed block of memory, from which pieces are allocated one after another. Closing
 * it frees all of them. Call the same allocating code twice: first with base == NULL, where
 * qp_arena_alloc returns NULL and only adds to `used`; then after opening the arena with that
 * size. */
struct arena {
    uint8_t *base;
    size_t size, used;
};
/* `what` names the memory in the error message. */
quip_status qp_arena_open(struct arena *a, size_t size, const char *what, quip_error *error);
void qp_arena_close(struct arena *a);
void *qp_arena_alloc(struct arena *a, size_t n_bytes); // aligned to 64; NULL while measuring

/* A growing buffer. All-zero is empty. Free it with qp_bytes_close. Appending returns false if
 * there is not enough memory; the content is then unchanged. */
struct bytes {
    uint8_t *data;
    size_t n, capacity;
};
bool qp_bytes_reserve(struct bytes *b, size_t n_more);
bool qp_bytes_append(struct bytes *b, const void *data, size_t n);
bool qp_bytes_append_text(struct bytes *b, const char *text);
bool qp_bytes_printf(struct bytes *b, const char *format, ...) QP_PRINTF(2, 3);
void qp_bytes_close(struct bytes *b);

/* ---- files (file.c) ---- */

/* What changes when a program writes to a file. */
struct file_stamp {
    uint64_t device, inode; // which file it is
    uint64_t size;
    int64_t seconds, nanoseconds; // of its last modification
};
/* A file that can be read at any offset: mapped if the system can map files (data != NULL), or read
 * through the caller's read_at. */
struct file {
    const uint8_t *data; // the whole file, read-only; NULL for a read_at source
    uint64_t size;
    const char *name; // for messages
    quip_source source;
    uint64_t begin;          // where it begins, if it is a part of another file
    struct file_stamp stamp; // of a path, when it was opened
    bool is_open;
    bool is_mapped;              // `data` is a mapping
    bool is_borrowed;            // data and name are the caller's
    bool is_loaded;              // borrowed, but qp_file_load allocated `data`
    void (*release)(void *user); // called at close, for borrowed data; or NULL
    void *release_user;
};
quip_status qp_file_open(struct file *f, const char *path, quip_error *error);
/* The same, but `data` is a copy in memory: the file may change afterwards. */
quip_status qp_file_open_copy(struct file *f, const char *path, quip_error *error);
/* The stamp of an open file (POSIX), and whether the file was written to between two. */
struct file_stamp qp_file_stamp(int fd);
bool qp_file_stamp_differs(const struct file_stamp *before, const struct file_stamp *now);
/* QUIP_E_IO if another program has changed the mapped file. It may change at any time: this finds
 * out between two calls. */
quip_status qp_file_check(const struct file *f, quip_error *error);
/* `size` bytes at `offset` of an open file, which may be closed afterwards. 0: up to its end. */
struct file_part {
    int fd;
    uint64_t offset, size;
    const char *name; // for messages; copied
};
quip_status qp_file_open_fd(struct file *f, const struct file_part *part, bool is_copied,
                            quip_error *error);
quip_status qp_file_open_source(struct file *f, const quip_source *source, quip_error *error);
/* A file whose bytes are in memory. Data and name belong to the caller and must outlive the file.
 */
void qp_file_open_memory(struct file *f, const void *data, size_t size, const char *name);
/* A part of an open file, which must outlive it. [offset, offset + size) must be inside the file.
 */
void qp_file_open_part(struct file *part, const struct file *whole, uint64_t offset, uint64_t size);
/* Read the whole of a source into memory. */
quip_status qp_file_load(struct file *f, quip_error *error);
void qp_file_close(struct file *f);
/* Copy n bytes at `offset`; QUIP_E_FORMAT past the end of the file. */
quip_status qp_file_read(const struct file *f, uint64_t offset, void *to, size_t n,
                         quip_error *error);

/* ---- paths (path.c, file.c, cache.c) ---- */

/* "<folder>/<name>" on the heap; NULL without memory. */
char *qp_path_join(const char *folder, const char *name);
/* The last component of a path. */
const char *qp_path_name(const char *path);
/* What is before the last component, "." if nothing is, on the heap; NULL without memory. */
char *qp_path_folder(const char *path);
bool qp_path_exists(const char *path);
/* False if the system cannot tell. */
bool qp_path_is_folder(const char *path);
bool qp_path_is_same(const char *a, const char *b); // one file under two names

/* The path of a file in Quip's cache folder, which is created if necessary, on the heap; NULL if
 * there is no such folder. */
char *qp_cache_path(const char *name);
/* Copy at most n bytes of such a file; returns how many, 0 if there is none. */
size_t qp_cache_read(const char *name, void *to, size_t n);
/* Write the whole file, so that readers see the old one or the new one; false if that failed. */
bool qp_cache_write(const char *name, const void *from, size_t n);

/* ---- decimal numbers (decimal.c) ---- */

/* Read the number at the beginning of text[0, n), in the grammar of JSON, whatever the locale is.
 * Returns how many bytes it has, or 0 when no complete number is there. A number that is too large
 * becomes infinite. */
size_t qp_decimal_parse(const char *text, size_t n, double *value);

/* ---- a file to write (out_file.c) ---- */

/* A file that appears under its name only when it is complete. Until then it is `<path>.part`.
 * Closing without a commit removes that file. One that a killed process left is overwritten. */
struct out_file;
quip_status qp_out_file_open(struct out_file **f, const char *path, quip_error *error);
/* Set the size. Bytes that are never written are zero. Fails if the disk has too little space. */
quip_status qp_out_file_resize(struct out_file *f, uint64_t size, quip_error *error);
quip_status qp_out_file_write(struct out_file *f, uint64_t offset, const void *data, size_t n,
                              quip_error *error);
/* Flush to the disk and rename to `path`, replacing a file of that name. */
quip_status qp_out_file_commit(struct out_file *f, quip_error *error);
void qp_out_file_close(struct out_file *f); // NULL is fine

/* ---- a pool of threads (pool.c) ---- */

enum {
    MAX_THREADS = 256 // of a pool
};

/* A fork-join pool. A run calls task(arg, i, n) once for each i in [0, n) and returns when all
 * calls have returned. The caller's thread does some of them. It is not defined which thread
 * executes which part, so a thread that the system has suspended delays only the part it holds. A
 * pool executes one run at a time.
 * In a background pool the workers have low priority, and no thread spins while it waits. */
struct pool;
typedef void (*pool_task)(void *arg, int index, int n_threads);
/* n_threads 0 is qp_default_threads(). The pool has fewer threads than requested, but at least the
 * caller's, if the system does not provide more. */
quip_status qp_pool_open(struct pool **pool, int n_threads, bool is_background, quip_error *error);
void qp_pool_close(struct pool *pool);          // NULL is fine
int qp_pool_n_threads(const struct pool *pool); // with the caller's; the largest n of a run
/* Use at most n_threads > 0 threads, the caller's included, in the runs after this call. Workers
 * above the limit sleep. Returns the n of those runs, which is less than n_threads if the pool is
 * smaller. Not while a run is in progress. A new pool has no limit. */
int qp_pool_limit(struct pool *pool, int n_threads);
void qp_pool_run(struct pool *pool, pool_task task, void *arg);

/* Items [0, n) that the parts of a run divide among themselves, in units of `unit` items. The
 * pieces have at least `min` and at most `max` items (0: no limit), both multiples of `unit`. */
struct pool_items {
    int n, unit, min, max;
};
/* Inside a task: get the next piece of the items, [begin, end); false if none is left. Part `index`
 * first goes through its own share, half of the rest at a time, and then helps its neighbours, so a
 * slow thread delays the run by one small piece. The items must be the same in all parts, and a run
 * divides one set of items. */
bool qp_pool_next(struct pool *pool, int index, const struct pool_items *items, int *begin,
                  int *end);
/* Inside a task: wait until other parts have incremented *n_done to n. Those parts must have
 * started that work already, and must not wait for this part. */
void qp_pool_wait(const atomic_int *n_done, int n);

/* The share of part `index` of n_parts, [begin, end) of n items, in units of `unit`. */
void qp_share(int n, int unit, int index, int n_parts, int *begin, int *end);

/* ---- processors (processors.c) ---- */

/* The number of this process, which changes in a fork; 0 where processes do not fork. */
int qp_process_id(void);

/* How many threads are useful: the processors that this process may use (affinity and cgroup), at
 * most MAX_THREADS. The small cores of phones do not count. */
int qp_default_threads(void);
/* Let the calling thread run only on fast processors, if this machine has slow ones and at least
 * n_threads fast ones. */
void qp_avoid_slow_processors(int n_threads);
#if defined(__linux__)
/* How many processors the cgroup quotas of this process allow (v2 and v1), rounded up; INT32_MAX
 * if there is no limit. root is "" or, in a test, a folder with its own /proc and /sys. */
int qp_cgroup_processors(const char *root);

/* A set of processors, as the system calls have it. */
struct processors {
    unsigned long mask[128];
};
/* Remove from *p the processors that are much slower than its fastest one, according to the
 * scheduler's capacity or else, with by_frequency, to the highest frequency. Returns how many are
 * left. Nothing is removed if the system does not say how fast they are. */
int qp_fast_processors(const char *root, bool by_frequency, struct processors *p);
#endif

/* What the processors that this thread may use have been used for since the system started. */
struct processor_use {
    int n_processors;
    uint64_t at_ns;   // when this was read
    uint64_t free_ns; // of all of them together: idle, or used by programs of low priority
    uint64_t own_ns;  // used by this process
};
#if defined(__linux__) && !defined(__ANDROID__)
/* Read it from /proc/stat; false if that is not possible. root as above; p: the processors. */
bool qp_processor_use(const char *root, const struct processors *p, struct processor_use *use);
#endif
/* How many processors other programs kept busy between two readings, while n_threads ran here.
 * n_before is the last answer, which small changes do not change. */
int qp_busy_processors(int n_before, const struct processor_use *before,
                       const struct processor_use *now, int n_threads);
/* As many of n_threads as have a processor for themselves; at least half of them, and two. */
int qp_threads_beside(int n_busy, int n_processors, int n_threads);

/* How many of n_threads to use in a step, while n_before were used since the last call. Where the
 * system does not tell what other programs do, that is n_threads. A watch begins as zeros. */
struct thread_watch {
    struct processor_use last;
    uint64_t next_ns; // when to read again
    int n_busy;
};
int qp_threads_now(struct thread_watch *watch, int n_before, int n_threads);

/* ---- clock (clock.c) ---- */

uint64_t qp_now_ns(void);      // monotonic clock
uint64_t qp_random_seed(void); // from the system, for sessions without a seed; never 0

/* ---- processor (cpu_features.c) ---- */

enum cpu_feature {
    CPU_AVX2 = 1 << 0, // with F16C and FMA
    CPU_AVXVNNI = 1 << 1,
    CPU_AVX512VNNI = 1 << 2, // with AVX-512 F, BW, DQ, VL
    CPU_NEON = 1 << 3,       // every 64-bit ARM
    CPU_DOTPROD = 1 << 4,
    CPU_I8MM = 1 << 5,
    CPU_WASM_SIMD = 1 << 6, // known when the module is built; it cannot be detected
    CPU_WASM_RELAXED = 1 << 7,
    CPU_AMX = 1 << 8,        // with the 8-bit products; the system has given its permission
    CPU_HALF_512 = 1 << 9,   // Zen 4, which runs 512-bit instructions as two halves; with VBMI
    CPU_INTEL_512 = 1 << 10, // AVX-512 on a processor of Intel
    CPU_VBMI = 1 << 11,      // AVX-512 VBMI
};
/* The features of this machine, limited to the level that the environment variable QUIP_CPU names.
 */
unsigned qp_cpu_features(void);

/* A level that QUIP_CPU may name: the i-th, scalar first; NULL past the last. */
struct cpu_level {
    const char *name;
    unsigned features; // that it allows: its own, and those of lower levels
    unsigned own;      // that its kernels need
};
const struct cpu_level *qp_cpu_level(int i);
const char *qp_best_cpu_level(void); // the best level with qp_cpu_features

/* ---- UTF-8 (utf8.c) ---- */

/* Decode the first character of text[0, n), n > 0. Returns its length and sets *c. For a malformed
 * byte (overlong, surrogate, above 10FFFF, truncated) returns 1 and sets *c = -1. */
int qp_utf8_decode(const char *text, size_t n, int32_t *c);
/* Write c (a valid scalar value) to out[4]; returns its length. */
int qp_utf8_encode(int32_t c, char out[4]);
/* Length of text[0, n) without an incomplete character at its end that more bytes could complete.
 */
size_t qp_utf8_complete(const char *text, size_t n);

#endif
