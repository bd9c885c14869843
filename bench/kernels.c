/* kernels.c: how fast each matrix kernel of each instruction set runs on one thread, and what part
 * of this machine's measured limit that is. bench/kernels [--isa NAME] [--only KERNEL] [--ms N]
 * Decode (gemv): weights larger than any cache, GB/s against a plain read of the same memory.
 * Prefill (pack + gemm): 10^12 integer operations a second (a multiply and an add are two), against
 * independent vpdpbusd in a loop. Before them, what it takes to hand work to all threads
 * (--only hand_over). Rates are medians of passes interleaved with the limit's own. */
#include "limits.h"
#include "median.h"

#include "cpu/kernels.h"
#include "format/format.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_PASSES = 64
};

struct options {
    const char *isa, *only; // NULL: all
    double budget_ms;       // per row of the table
};

/* What a pass works on. */
struct work {
    const struct kernels *kernels;
    struct matrix w;
    int n_tokens;
    float *x, *y;
    int8_t *q;
    float *scales;
    int32_t *offsets;
    void *tile;
    uint8_t *weights;
    size_t weights_bytes;
};

typedef void (*pass_function)(struct work *work);

static uint64_t random_state = 1;

static uint32_t random_u32(void) // xorshift64*, Vigna 2016
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (uint32_t)((random_state * 2685821657736338717u) >> 32);
}

static float random_float(void) // in [-1, 1)
{
    return (float)(int32_t)random_u32() * 0x1p-31f;
}

static void *take(size_t n_bytes)
{
    void *p = qp_alloc_pages(n_bytes);
    if (!p) {
        fprintf(stderr, "bench: no memory for %zu bytes\n", n_bytes);
        exit(1);
    }
    return p;
}

/* ---- limits ---- */

static void pass_read(struct work *work)
{
    read_lines(work->weights, work->weights_bytes, 8192, 0);
}

/* Operations a second, / 10^12. */
static double integer_limit(void)
{
    const uint64_t start = qp_now_ns();
    const double n = integer_rounds(qp_cpu_features(), 1 << 20);
    return n / (double)(qp_now_ns() - start) / 1e3;
}

/* ---- passes ---- */

/* An odd number of cache lines, as in the engine (device.c). */
static size_t q_stride(int n_in)
{
    const size_t padded = qp_round_up((size_t)n_in, ACT_BLOCK);
    return padded / ACT_BLOCK % 2 ? padded : padded + ACT_BLOCK;
}

static void pass_quantize(struct work *work)
{
    for (int t = 0; t < work->n_tokens; t++) {
        size_t blocks = (size_t)t * (size_t)(work->w.n_in / ACT_BLOCK);
        work->kernels->quantize(work->q + (size_t)t * q_stride(work->w.n_in), work->scales + blocks,
                                work->offsets + blocks, work->x + (size_t)t * (size_t)work->w.n_in,
                                work->w.n_in);
    }
}

static struct act_rows activations(const struct work *work)
{
    return (struct act_rows){ work->q, q_stride(work->w.n_in), work->scales, work->offsets,
                              work->n_tokens };
}

static void pass_gemv(struct work *work)
{
    const struct kernels *k = work->kernels;
    const struct act_rows x = activations(work);
    if (work->w.dtype == DTYPE_F32)
        k->gemv_f32(work->y, &work->w, work->x, 0, work->w.n_out);
    else if (work->w.dtype == DTYPE_I8)
        k->gemv_i8(work->y, &work->w, &x, 0, work->w.n_out);
    else if (work->w.dtype == DTYPE_I4)
        k->gemv_i4(work->y, &work->w, &x, 0, work->w.n_out);
    else
        k->gemv_i4_block(work->y, &work->w, &x, 0, work->w.n_out);
}

static void pass_gemm(struct work *work)
{
    const struct kernels *k = work->kernels;
    const struct matrix *w = &work->w;
    if (w->dtype == DTYPE_F32) {
        const struct f32_rows x = { work->x, (size_t)w->n_in, work->n_tokens };
        k->gemm_f32(&(struct out_view){ work->y, (size_t)w->n_out }, w, &x, 0, w->n_out);
        return;
    }
    const struct act_rows x = activations(work);
    for (int row = 0; row < w->n_out; row += TILE_ROWS) {
        int n_rows = w->n_out - row < TILE_ROWS ? w->n_out - row : TILE_ROWS;
        k->pack(work->tile, w, row, n_rows);
        k->gemm(&(struct out_view){ work->y + row, (size_t)w->n_out }, work->tile, w, &x, row,
                n_rows);
    }
}

/* ---- the table ---- */

static double seconds(pass_function pass, struct work *work)
{
    uint64_t start = qp_now_ns();
    pass(work);
    return (double)(qp_now_ns() - start) / 1e9;
}

static const char *dtype_suffix(int dtype)
{
    return dtype == DTYPE_F32  ? "f32"
           : dtype == DTYPE_I8 ? "i8"
           : dtype == DTYPE_I4 ? "i4"
                               : "i4_block";
}

static void open_work(struct work *work, int dtype, int n_out, int n_in, int n_tokens)
{
    size_t row_bytes = dtype == DTYPE_F32  ? (size_t)n_in * 4
                       : dtype == DTYPE_I8 ? (size_t)n_in
                                           : (size_t)n_in / 2;
    size_t n_x = (size_t)n_tokens * (size_t)n_in;
    work->n_tokens = n_tokens;
    /* The multipliers of block-wise int4 are after its codes. */
    const size_t codes_bytes = row_bytes * (size_t)n_out;
    work->weights_bytes =
        codes_bytes + (dtype == DTYPE_I4_BLOCK ? qp_multiplier_bytes(n_in) * (size_t)n_out : 0);
    work->weights = take(work->weights_bytes);
    for (size_t i = 0; i < work->weights_bytes / 4; i++) {
        if (dtype == DTYPE_F32) // any bits would do for integers, but many floats are denormal
            ((float *)work->weights)[i] = random_float();
        else
            ((uint32_t *)work->weights)[i] = random_u32();
    }
    work->x = take(n_x * sizeof(float));
    for (size_t i = 0; i < n_x; i++)
        work->x[i] = random_float();
    work->y = take((size_t)n_tokens * (size_t)n_out * sizeof(float));
    work->q = take((size_t)n_tokens * q_stride(n_in));
    work->scales = take(n_x / ACT_BLOCK * sizeof(float));
    work->offsets = take(n_x / ACT_BLOCK * sizeof(int32_t));
    work->tile = take(work->kernels->tile_bytes(n_in));
    float *row_scales = take((size_t)n_out * sizeof(float));
    for (int r = 0; r < n_out; r++)
        row_scales[r] = 0.01f;
    work->w = (struct matrix){ .dtype = dtype,
                               .n_out = n_out,
                               .n_in = n_in,
                               .row_bytes = row_bytes,
                               .data = work->weights,
                               .multipliers = work->weights + codes_bytes,
                               .scales = row_scales };
    pass_quantize(work);
}

static void close_work(struct work *work)
{
    size_t n_x = (size_t)work->n_tokens * (size_t)work->w.n_in;
    qp_free_pages(work->weights, work->weights_bytes);
    qp_free_pages(work->x, n_x * sizeof(float));
    qp_free_pages(work->y, (size_t)work->n_tokens * (size_t)work->w.n_out * sizeof(float));
    qp_free_pages(work->q, (size_t)work->n_tokens * q_stride(work->w.n_in));
    qp_free_pages(work->scales, n_x / ACT_BLOCK * sizeof(float));
    qp_free_pages(work->offsets, n_x / ACT_BLOCK * sizeof(int32_t));
    qp_free_pages(work->tile, work->kernels->tile_bytes(work->w.n_in));
    qp_free_pages((void *)work->w.scales, (size_t)work->w.n_out * sizeof(float));
}

/* Weights of the size of a vocabulary matrix, far beyond L3. */
static void bench_gemv(const struct options *options, const struct kernels *k, int dtype, int n_in)
{
    char name[32];
    snprintf(name, sizeof(name), "gemv_%s", dtype_suffix(dtype));
    if (options->only && strcmp(options->only, name))
        return;
    const size_t n_bytes = 160u << 20;
    int bits = dtype == DTYPE_F32 ? 32 : dtype == DTYPE_I8 ? 8 : 4;
    struct work work = { .kernels = k };
    open_work(&work, dtype, (int)(n_bytes * 8 / (size_t)bits / (size_t)n_in), n_in, 1);
    double rate[MAX_PASSES], limit[MAX_PASSES], spent = 0;
    int n = 0;
    while (n < MAX_PASSES && (n < 3 || spent * 1e3 < options->budget_ms)) {
        double s = seconds(pass_gemv, &work), s_limit = seconds(pass_read, &work);
        spent += s + s_limit;
        rate[n] = (double)work.weights_bytes / s / 1e9;
        limit[n++] = (double)work.weights_bytes / s_limit / 1e9;
    }
    double got = median(rate, n), most = median(limit, n);
    printf("%-11s %-13s %6s %6d %6d  %7.1f GB/s  %4.0f %% of %5.1f\n", k->name, name, "1",
           work.w.n_out, n_in, got, 100 * got / most, most);
    close_work(&work);
}

/* A prefill's activations, which stay in cache. GB/s of floats read. */
static void bench_quantize(const struct options *options, const struct kernels *k, int n_in)
{
    if (options->only && strcmp(options->only, "quantize"))
        return;
    struct work work = { .kernels = k };
    open_work(&work, DTYPE_I8, TILE_ROWS, n_in, 64);
    double rate[MAX_PASSES];
    for (int n = 0; n < MAX_PASSES; n++)
        rate[n] = 64.0 * n_in * sizeof(float) / seconds(pass_quantize, &work) / 1e9;
    printf("%-11s %-13s %6d %6s %6d  %7.1f GB/s\n", k->name, "quantize", 64, "", n_in,
           median(rate, MAX_PASSES));
    close_work(&work);
}

static void bench_gemm(const struct options *options, const struct kernels *k, int dtype,
                       int n_tokens, int n_out, int n_in)
{
    char name[32];
    snprintf(name, sizeof(name), "gemm_%s", dtype_suffix(dtype));
    if (options->only && strcmp(options->only, name))
        return;
    struct work work = { .kernels = k };
    open_work(&work, dtype, n_out, n_in, n_tokens);
    double rate[MAX_PASSES], limit[MAX_PASSES], spent = 0;
    int n = 0;
    while (n < MAX_PASSES && (n < 3 || spent * 1e3 < options->budget_ms)) {
        double s = seconds(pass_gemm, &work);
        spent += s;
        rate[n] = 2e-12 * n_tokens * n_out * n_in / s;
        limit[n++] = integer_limit();
    }
    double got = median(rate, n), most = median(limit, n);
    printf("%-11s %-13s %6d %6d %6d  %7.3f TOPS", k->name, name, n_tokens, n_out, n_in, got);
    if (dtype != DTYPE_F32 && most > 0)
        printf("  %4.0f %% of %5.2f", 100 * got / most, most);
    printf("\n");
    close_work(&work);
}

static void do_nothing(void *arg, int index, int n_threads)
{
    (void)arg, (void)index, (void)n_threads;
}

/* What a run costs beside its work: from the announcement until every part is done. The median, and
 * what one in a hundred passes: a thread that the system has put aside is slower by far. */
static void bench_hand_over(const struct options *options)
{
    enum {
        N_RUNS = 20000
    };
    static double ns[N_RUNS];
    struct pool *pool;
    if (options->isa || (options->only && strcmp(options->only, "hand_over")) ||
        qp_pool_open(&pool, 0, false, NULL))
        return;
    for (int i = 0; i < N_RUNS; i++) {
        const uint64_t start = qp_now_ns();
        qp_pool_run(pool, do_nothing, NULL);
        ns[i] = (double)(qp_now_ns() - start);
    }
    const double typical = median(ns, N_RUNS); // which sorts
    printf("hand-over, %d threads: %.2f us, 1 in 100 above %.2f us\n", qp_pool_n_threads(pool),
           typical * 1e-3, ns[N_RUNS / 100 * 99] * 1e-3);
    qp_pool_close(pool);
}

static void bench_level(const struct options *options, const struct kernels *k)
{
    static const int widths[] = { 576, 640, 2048, 16384 };
    static const int shapes[][3] = { { 512, 2048, 2048 }, { 1024, 2048, 640 }, { 512, 640, 2048 },
                                     { 512, 1536, 576 },  { 512, 576, 1536 },  { 128, 4096, 2048 },
                                     { 512, 1024, 16384 } };
    static const int dtypes[] = { DTYPE_I8, DTYPE_I4, DTYPE_I4_BLOCK, DTYPE_F32 };
    bench_quantize(options, k, 2048);
    for (size_t d = 0; d < QP_COUNT(dtypes); d++) {
        for (size_t i = 0; i < QP_COUNT(widths); i++)
            bench_gemv(options, k, dtypes[d], widths[i]);
        for (size_t i = 0; i < QP_COUNT(shapes); i++)
            bench_gemm(options, k, dtypes[d], shapes[i][0], shapes[i][1], shapes[i][2]);
    }
}

int main(int argc, char **argv)
{
    struct options options = { .budget_ms = 300 };
    for (int i = 1; i < argc; i += 2) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (value && !strcmp(argv[i], "--isa"))
            options.isa = value;
        else if (value && !strcmp(argv[i], "--only"))
            options.only = value;
        else if (value && !strcmp(argv[i], "--ms"))
            options.budget_ms = atof(value);
        else {
            fprintf(stderr, "usage: kernels [--isa NAME] [--only KERNEL] [--ms BUDGET]\n");
            return 2;
        }
    }
    bench_hand_over(&options);
    printf("%-11s %-13s %6s %6s %6s\n", "isa", "kernel", "tokens", "n_out", "n_in");
    const struct cpu_level *level;
    for (int i = 0; (level = qp_cpu_level(i)); i++) {
        struct kernels k = qp_kernels_for(level->features & qp_cpu_features());
        bool is_here = !strcmp(k.name, level->name);
        if (is_here && (!options.isa || !strcmp(options.isa, level->name)))
            bench_level(&options, &k);
    }
    return 0;
}
