/* limits.h: the limits of one thread of this processor, for roofline.c, decode.c and kernels.c.
 * Data is aligned to 64 bytes. Loops of independent instructions are in assembly, so that no
 * compiler folds or spills them. */
#ifndef BENCH_LIMITS_H
#define BENCH_LIMITS_H

#include "base/base.h"

static volatile uint64_t limits_sink; // keeps unused results from being optimized away

/* 64 bytes, as vectors if the compiler has them. */
typedef uint64_t line __attribute__((vector_size(64)));

/* Read n bytes in order, once, in whole lines. Prefetch each line to L1 `ahead` bytes before it is
 * read, and to L2 `ahead_l2` bytes before; a distance of 0 leaves this to the processor. Which one
 * is faster changes from minute to minute. */
static inline __attribute__((always_inline)) void read_lines(const void *data, size_t n, int ahead,
                                                             int ahead_l2)
{
    const line *p = data;
    line a = { 0 }, b = { 0 };
    for (size_t i = 0; i + 2 <= n / sizeof *p; i += 2) {
        if (ahead_l2) {
            __builtin_prefetch((const char *)(p + i) + ahead_l2, 0, 2);
            __builtin_prefetch((const char *)(p + i + 1) + ahead_l2, 0, 2);
        }
        if (ahead) {
            __builtin_prefetch((const char *)(p + i) + ahead);
            __builtin_prefetch((const char *)(p + i + 1) + ahead);
        }
        a ^= p[i];
        b ^= p[i + 1];
    }
    a ^= b;
    limits_sink = a[0] ^ a[1] ^ a[2] ^ a[3] ^ a[4] ^ a[5] ^ a[6] ^ a[7];
}

/* The bytes that the threads of a pool read. */
struct reading {
    const uint8_t *data;
    size_t n_bytes;
};

static inline __attribute__((always_inline)) void read_share(const struct reading *r, int index,
                                                             int n_threads, int ahead, int ahead_l2)
{
    const size_t n = r->n_bytes / 64 / (size_t)n_threads * 64;
    read_lines(r->data + (size_t)index * n, n, ahead, ahead_l2);
}

static inline void read_prefetched(void *arg, int index, int n_threads)
{
    read_share(arg, index, n_threads, 8192, 0);
}

static inline void read_plainly(void *arg, int index, int n_threads)
{
    read_share(arg, index, n_threads, 0, 0);
}

static inline void read_in_two_steps(void *arg, int index, int n_threads) // as kernels do on Intel
{
    read_share(arg, index, n_threads, 4096, 8192);
}

static inline double rate(size_t n_bytes, uint64_t begin_ns) // GB/s
{
    return (double)n_bytes / (double)(qp_now_ns() - begin_ns);
}

/* GB/s of all threads together, each reading its own part, in the fastest of the three ways. */
static inline double read_rate(struct pool *pool, struct reading *r)
{
    void (*const ways[])(void *, int, int) = { read_prefetched, read_plainly, read_in_two_steps };
    double most = 0;
    for (size_t i = 0; i < QP_COUNT(ways); i++) {
        const uint64_t begin = qp_now_ns();
        qp_pool_run(pool, ways[i], r);
        const double got = rate(r->n_bytes, begin);
        most = got > most ? got : most;
    }
    return most;
}

/* Run n rounds of the widest dot product of 8-bit integers that the engine uses on this processor.
 * Returns the number of operations (a multiply and an add are two), or 0 if there is no such
 * instruction. */
#define DOT8(a, b, c, d, e, f, g, h) DOT(a) DOT(b) DOT(c) DOT(d) DOT(e) DOT(f) DOT(g) DOT(h)

#if defined(__x86_64__)

#define XMM_CLOBBERS                                                                               \
    "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
        "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"

static inline double integer_rounds(unsigned cpu, long n)
{
    const double rounds = (double)n;
    if (cpu & CPU_AVX512VNNI) {
#define DOT(i) "vpdpbusd %%zmm31, %%zmm30, %%zmm" #i "\n\t"
        __asm__ volatile("1:\n\t" DOT8(0, 1, 2, 3, 4, 5, 6, 7) DOT8(8, 9, 10, 11, 12, 13, 14, 15)
                             DOT8(16, 17, 18, 19, 20, 21, 22, 23) "decq %0\n\tjnz 1b"
                         : "+r"(n)
                         :
                         : XMM_CLOBBERS);
#undef DOT
        return rounds * 24 * 128;
    }
    if (cpu & CPU_AVX2) { // bytes to pairs, pairs to fours, sum: three instructions per product
#define DOT(i)                                                                                     \
    "vpmaddubsw %%ymm15, %%ymm14, %%ymm" #i "\n\tvpmaddwd %%ymm" #i ", %%ymm13, %%ymm" #i "\n\t"   \
    "vpaddd %%ymm" #i ", %%ymm12, %%ymm" #i "\n\t"
        __asm__ volatile("1:\n\t" DOT8(0, 1, 2, 3, 4, 5, 6, 7) "decq %0\n\tjnz 1b"
                         : "+r"(n)
                         :
                         : XMM_CLOBBERS);
#undef DOT
        return rounds * 8 * 64;
    }
    return 0;
}

#elif defined(__aarch64__)

__attribute__((target("arch=armv8.2-a+dotprod"))) static inline double integer_rounds(unsigned cpu,
                                                                                      long n)
{
    const double rounds = (double)n;
    if (!(cpu & CPU_DOTPROD))
        return 0;
#define DOT(i) "sdot v" #i ".4s, v30.16b, v31.16b\n\t"
    __asm__ volatile("1:\n\t" DOT8(0, 1, 2, 3, 4, 5, 6, 7)
                         DOT8(8, 9, 10, 11, 12, 13, 14, 15) "subs %0, %0, #1\n\tb.ne 1b"
                     : "+r"(n)
                     :
                     : "cc", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10",
                       "v11", "v12", "v13", "v14", "v15");
#undef DOT
    return rounds * 16 * 32;
}

#else

static inline double integer_rounds(unsigned cpu, long n)
{
    (void)cpu, (void)n;
    return 0;
}

#endif
#endif
