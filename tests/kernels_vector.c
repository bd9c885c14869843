/* kernels_vector.c: vector and attention kernels of every instruction set that this machine has,
 * compared with scalar, bit for bit, on random and awkward sizes. Outputs are between guard values.
 * Inputs fill their allocations, so the address sanitizer reports a read past the end.
 *   kernels_vector [--seed N] [--isa NAME] [--only KERNEL] [--bench]
 * --bench times the same calls instead, and prints the ratio to scalar. */
#include "cpu/kernels.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define GUARD 17 /* floats before and after each output: odd, so no output is aligned */

static uint64_t seed, random_state;
static const char *only_isa, *only_kernel;

/* ---- random numbers ---- */

static uint64_t random_bits(void) // splitmix64
{
    uint64_t z = random_state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static int random_int(int n) // [0, n)
{
    return (int)(random_bits() % (uint64_t)n);
}

static float random_float(float limit) // (-limit, limit)
{
    return limit * ((float)(random_bits() >> 40) * 0x1p-23f - 1.0f);
}

static float any_float(void)
{
    uint32_t bits = (uint32_t)random_bits();
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Numbers of moderate size; if is_wild, also every kind of float. */
static void fill(float *x, size_t n, bool is_wild)
{
    static const float special[] = { 0.0f,    -0.0f,   INFINITY, -INFINITY, NAN,     1e-40f,
                                     -3e-45f, 65504.f, 65520.0f, -65520.0f, 1e30f,   -1e30f,
                                     -87.3f,  88.7f,   0.625f,   6.1e-5f,   5.9e-8f, 2.9e-8f };
    for (size_t i = 0; i < n; i++) {
        x[i] = random_float(8.0f);
        if (is_wild && random_int(3) == 0)
            x[i] = random_int(2) ? any_float() : special[random_int((int)QP_COUNT(special))];
    }
}

static float *new_floats(size_t n, bool is_wild)
{
    float *x = malloc(n * sizeof *x);
    assert_non_null(x);
    fill(x, n, is_wild);
    return x;
}

/* ---- comparing ---- */

static void compare(const char *what, const char *isa, int n, const float *want, const float *got,
                    size_t n_floats)
{
    for (size_t i = 0; i < n_floats; i++) {
        if (isnan(want[i]) && isnan(got[i]))
            continue;
        if (memcmp(want + i, got + i, sizeof *want) != 0) {
            print_error("%s, %s, n = %d, float %td: %a, scalar has %a\n"
                        "repeat: kernels_vector --seed %llu --isa %s --only %s\n",
                        what, isa, n, (ptrdiff_t)i - GUARD, (double)got[i], (double)want[i],
                        (unsigned long long)seed, isa, what);
            fail();
        }
    }
}

/* The operands of a vector kernel: n elements each, `y` between guards. */
struct operands {
    float *y, *x, *w, *bias;
    int n;
    int variant;     // selects the optional arguments
    bool is_aliased; // the output is also the first input
};

struct vector_kernel {
    const char *name;
    int n_variants;
    void (*call)(const struct kernels *k, const struct operands *o);
};

static void call_rms_norm(const struct kernels *k, const struct operands *o)
{
    k->rms_norm(o->y, o->is_aliased ? o->y : o->x, o->variant & 1 ? NULL : o->w,
                o->variant & 2 ? 1.0f : 0.0f, 1e-6f, o->n);
}

static void call_layer_norm(const struct kernels *k, const struct operands *o)
{
    k->layer_norm(o->y, o->is_aliased ? o->y : o->x, o->w, o->variant ? o->bias : NULL, 1e-5f,
                  o->n);
}

static void call_activate(const struct kernels *k, const struct operands *o)
{
    k->activate(o->y, o->is_aliased ? o->y : o->x, o->variant & 4 ? o->w : NULL, o->variant & 3,
                o->n);
}

static void call_sum_exp(const struct kernels *k, const struct operands *o)
{
    if (o->n >= 16)
        o->y[0] = k->sum_exp(o->x, 7.5f, o->variant ? 0.6f : 1.0f, o->n & ~15);
}

static void call_add(const struct kernels *k, const struct operands *o)
{
    k->add(o->y, o->x, o->n);
}

static void call_rotate(const struct kernels *k, const struct operands *o)
{
    k->rotate(o->y, o->x, o->w, o->n / 2);
}

static void call_axpby(const struct kernels *k, const struct operands *o)
{
    k->axpby(o->y, o->is_aliased ? o->y : o->x, 0.3f,
             o->variant & 1   ? o->w
             : o->variant & 2 ? o->y
                              : NULL,
             -1.7f, o->n);
}

static void call_hadamard(const struct kernels *k, const struct operands *o)
{
    int n = 1;
    while (2 * n <= o->n)
        n *= 2;
    memcpy(o->y, o->x, (size_t)n * sizeof(float));
    k->hadamard(o->y, 0.375f, n);
}

static void call_soft_cap(const struct kernels *k, const struct operands *o)
{
    k->soft_cap(o->y, o->variant ? 50.0f : 0.3f, o->n);
}

/* Widths 1 to 4. The columns before are parts of the inputs; y is also c or a vector of its own. */
static void call_conv(const struct kernels *k, const struct operands *o)
{
    const int width = 1 + o->variant % 4, n = o->n / 4;
    const float *const past[] = { o->w, o->w + n, o->bias };
    if (n == 0)
        return;
    k->conv(&(struct conv_row){ .width = width,
                                .n = n,
                                .w = o->x,
                                .w_stride = (size_t)n,
                                .bias = o->variant & 4 ? o->bias + 2 * n : NULL,
                                .past = past,
                                .b = o->w + 2 * n,
                                .c = o->is_aliased ? o->y : o->w + 3 * n,
                                .z = o->y + n,
                                .y = o->y });
}

static const struct vector_kernel vector_kernels[] = {
    { "rms_norm", 4, call_rms_norm }, { "layer_norm", 2, call_layer_norm },
    { "activate", 8, call_activate }, { "add", 1, call_add },
    { "sum_exp", 2, call_sum_exp },   { "rotate", 1, call_rotate },
    { "soft_cap", 2, call_soft_cap }, { "hadamard", 1, call_hadamard },
    { "axpby", 4, call_axpby },       { "conv", 8, call_conv },
};

static void check_vector(const struct vector_kernel *v, const struct kernels *scalar,
                         const struct kernels *fast, int n, bool is_wild)
{
    struct operands o = { .n = n, .variant = random_int(v->n_variants) };
    o.is_aliased = random_int(2);
    o.x = new_floats((size_t)n, is_wild);
    o.w = new_floats((size_t)n, is_wild);
    o.bias = new_floats((size_t)n, is_wild);
    size_t n_floats = (size_t)n + 2 * GUARD;
    float *want = new_floats(n_floats, is_wild), *got = malloc(n_floats * sizeof *got);
    assert_non_null(got);
    memcpy(got, want, n_floats * sizeof *got);

    o.y = want + GUARD;
    v->call(scalar, &o);
    o.y = got + GUARD;
    v->call(fast, &o);
    compare(v->name, fast->name, n, want, got, n_floats);
    free(o.x);
    free(o.w);
    free(o.bias);
    free(want);
    free(got);
}

/* ---- attention ---- */

/* A task with its memory. Positions that are not visible to any row hold NaNs. Blocks are in order,
 * or in a ring with just enough slots for the visible ones. */
struct attention_case {
    struct attention a;
    float *k, *v;
    float *q_data, *out_data;
    const float *q[ATTENTION_MAX_ROWS];
    float *out[ATTENTION_MAX_ROWS];
    int begin[ATTENTION_MAX_ROWS], end[ATTENTION_MAX_ROWS];
    float bias_data[2][512]; // [position]
    const float *bias[ATTENTION_MAX_ROWS];
    size_t n_out;
};

static void fill_kv(struct attention_case *c, int begin, int end, bool is_ring)
{
    const size_t head_dim = (size_t)c->a.head_dim;
    const int last = (end - 1) / KV_BLOCK;
    c->a.n_blocks = is_ring ? last - begin / KV_BLOCK + 1 : last + 1;
    const size_t n = (size_t)c->a.n_blocks * KV_BLOCK * head_dim;
    const size_t n_values = is_ring ? n : (size_t)end * head_dim; // end with the last visible one
    c->k = malloc(n * sizeof(float));
    c->v = malloc(n_values * sizeof(float));
    assert_true(c->k && c->v);
    for (size_t i = 0; i < n; i++)
        c->k[i] = NAN;
    for (size_t i = 0; i < n_values; i++)
        c->v[i] = NAN;
    for (int pos = begin; pos < end; pos++)
        for (size_t d = 0; d < head_dim; d++) {
            const size_t block = (size_t)(pos / KV_BLOCK % c->a.n_blocks) * KV_BLOCK,
                         at = (size_t)(pos % KV_BLOCK);
            c->k[block * head_dim + d * KV_BLOCK + at] = random_float(2.0f);
            c->v[(block + at) * head_dim + d] = random_float(2.0f);
        }
}

static struct attention_case *new_attention(int head_dim, int n_rows, int n_heads, int pos,
                                            int window)
{
    struct attention_case *c = calloc(1, sizeof *c);
    assert_non_null(c);
    c->a = (struct attention){ .head_dim = head_dim,
                               .scale = 1.0f / sqrtf((float)head_dim),
                               .n_rows = n_rows,
                               .q = c->q,
                               .out = c->out,
                               .begin = c->begin,
                               .end = c->end };
    c->n_out = (size_t)n_rows * (size_t)(head_dim + GUARD) + GUARD;
    c->q_data = new_floats((size_t)n_rows * (size_t)head_dim, false);
    c->out_data = new_floats(c->n_out, false);
    for (int r = 0; r < n_rows; r++) {
        c->q[r] = c->q_data + (size_t)r * (size_t)head_dim;
        c->out[r] = c->out_data + GUARD + (size_t)r * (size_t)(head_dim + GUARD);
        c->end[r] = pos + r / n_heads + 1;
        c->begin[r] = window && c->end[r] > window ? c->end[r] - window : 0;
        c->bias[r] = c->bias_data[r % 2];
    }
    for (int i = 0; i < 2 * 512; i++)
        c->bias_data[i / 512][i % 512] = random_float(3.0f);
    fill_kv(c, c->begin[0], c->end[n_rows - 1], window && random_int(2));
    c->a.k = c->k;
    c->a.v = c->v;
    /* Not qp_alloc_pages, which rounds up: the sanitizer needs the exact end. */
    size_t n_bytes = qp_attention_scratch(head_dim, n_rows) * sizeof(float);
    c->a.scratch = aligned_alloc(64, qp_round_up(n_bytes, 64));
    assert_non_null(c->a.scratch);
    memset(c->a.scratch, 0xFF, n_bytes);
    return c;
}

static void free_attention(struct attention_case *c)
{
    free(c->k);
    free(c->v);
    free(c->q_data);
    free(c->out_data);
    free(c->a.scratch);
    free(c);
}

static void check_attention(const struct kernels *scalar, const struct kernels *fast)
{
    static const int head_dims[] = { 64, 256, 1, 24, 80, 96, 128, 63, 65 };
    const int head_dim = head_dims[random_int((int)QP_COUNT(head_dims))];
    const int n_heads = 1 + random_int(4);
    const int n_rows = random_int(3) ? 1 + random_int(ATTENTION_MAX_ROWS) : n_heads;
    const int pos = random_int(random_int(2) ? 300 : 70);
    const int window = random_int(3) ? 0 : 1 + random_int(130);
    struct attention_case *c = new_attention(head_dim, n_rows, n_heads, pos, window);
    for (int r = 0; r < n_rows; r++) { // rows may be in any order
        const int other = random_int(n_rows), begin = c->begin[r], end = c->end[r];
        c->begin[r] = c->begin[other];
        c->end[r] = c->end[other];
        c->begin[other] = begin;
        c->end[other] = end;
    }
    if (random_int(4) == 0)
        c->a.cap = 0.5f + random_float(0.4f);
    if (random_int(4) == 0)
        c->a.bias = c->bias;
    if (random_int(4) == 0) // large scores: exp underflows, and there are negative zeros
        c->a.scale = 100.0f;
    if (random_int(8) == 0)
        memset(c->q_data, 0x80, sizeof(float) * (size_t)n_rows * (size_t)head_dim);

    float *want = malloc(c->n_out * sizeof *want), *before = malloc(c->n_out * sizeof *before);
    assert_true(want && before);
    memcpy(before, c->out_data, c->n_out * sizeof *want);
    scalar->attend(&c->a);
    memcpy(want, c->out_data, c->n_out * sizeof *want);
    memcpy(c->out_data, before, c->n_out * sizeof *want);
    fast->attend(&c->a);
    for (int r = 0; r < n_rows; r++)
        for (int d = 0; d < head_dim; d++)
            assert_true(isfinite(c->out[r][d]));
    compare("attend", fast->name, head_dim, want, c->out_data, c->n_out);
    free(want);
    free(before);
    free_attention(c);
}

/* Positions that are not visible to a row add zeros of either sign to its sums. The result must not
 * depend on that. Here key 64, whose value is -0, has nearly all the weight, compared with the 64
 * keys of the first block; key 65 is not visible to row 0. */
static void check_zeros(const struct kernels *k)
{
    struct attention_case *c = new_attention(64, 2, 1, 64, 0);
    float *keys = c->k, *values = c->v;
    c->a.scale = 1.0f;
    for (int d = 0; d < 64; d++) {
        c->q_data[d] = c->q_data[64 + d] = d == 0;
        for (int pos = 0; pos <= 65; pos++) {
            keys[(pos / 64 * 64 + d) * 64 + pos % 64] = pos < 64    ? 0.0f
                                                        : pos == 64 ? 200.0f
                                                                    : -200.0f;
            values[pos * 64 + d] = pos < 64 ? -1.0f : pos == 65 && d % 2 ? 1.0f : -0.0f;
        }
    }
    k->attend(&c->a);
    for (int d = 0; d < 64; d++)
        for (int r = 0; r < 2; r++)
            assert_true(c->out[r][d] == 0.0f && !signbit(c->out[r][d]));
    free_attention(c);
}

/* ---- every instruction set ---- */

static const struct {
    const char *name;
    unsigned features;
} levels[] = {
    { "scalar", 0 },      { "avx2", CPU_AVX2 },         { "avx512vnni", CPU_AVX2 | CPU_AVX512VNNI },
    { "neon", CPU_NEON }, { "simd128", CPU_WASM_SIMD },
};

static bool is_chosen(const char *only, const char *name)
{
    return !only || strcmp(only, name) == 0;
}

static void same_bits_as_scalar(void **state)
{
    (void)state;
    static const int sizes[] = { 1,  2,  7,  8,  9,  15, 16, 17, 23, 24,  25,
                                 31, 32, 33, 47, 48, 64, 65, 95, 97, 576, 1024 };
    const struct kernels scalar = qp_kernels_for(0);
    check_zeros(&scalar);
    print_message("seed %llu\n", (unsigned long long)seed);
    for (size_t i = 1; i < QP_COUNT(levels); i++) {
        if ((qp_cpu_features() & levels[i].features) != levels[i].features ||
            !is_chosen(only_isa, levels[i].name)) {
            print_message("%s: skipped\n", levels[i].name);
            continue;
        }
        const struct kernels fast = qp_kernels_for(levels[i].features);
        for (size_t v = 0; v < QP_COUNT(vector_kernels); v++) {
            random_state = seed;
            for (int round = 0; round < 40 && is_chosen(only_kernel, vector_kernels[v].name);
                 round++)
                for (size_t s = 0; s < QP_COUNT(sizes); s++)
                    check_vector(&vector_kernels[v], &scalar, &fast, sizes[s], round % 2);
        }
        random_state = seed;
        for (int round = 0; round < 150 && is_chosen(only_kernel, "attend"); round++)
            check_attention(&scalar, &fast);
        check_zeros(&fast);
    }
}

/* ---- --bench ---- */

/* Nanoseconds a call, the best of several runs of at least 20 ms. */
static double time_call(void (*call)(const struct kernels *, const void *), const struct kernels *k,
                        const void *arg)
{
    double best = INFINITY;
    int n = 1;
    for (int run = 0; run < 5;) {
        uint64_t start = qp_now_ns();
        for (int i = 0; i < n; i++)
            call(k, arg);
        double ns = (double)(qp_now_ns() - start);
        if (ns < 2e7 && n < 1 << 24) {
            n *= 2;
            continue;
        }
        best = ns / n < best ? ns / n : best;
        run++;
    }
    return best;
}

struct timed_vector {
    const struct vector_kernel *kernel;
    struct operands o;
};

static void run_vector(const struct kernels *k, const void *arg)
{
    const struct timed_vector *t = arg;
    t->kernel->call(k, &t->o);
}

static void run_attention(const struct kernels *k, const void *arg)
{
    k->attend(&((const struct attention_case *)arg)->a);
}

static void bench_vectors(const struct kernels *k, const struct kernels *scalar)
{
    const int n = 2048;
    for (size_t v = 0; v < QP_COUNT(vector_kernels); v++)
        for (int variant = 0; variant < vector_kernels[v].n_variants; variant++) {
            if (!is_chosen(only_kernel, vector_kernels[v].name))
                continue;
            struct timed_vector t = { &vector_kernels[v], { .n = n, .variant = variant } };
            t.o.y = new_floats((size_t)n, false);
            t.o.x = new_floats((size_t)n, false);
            t.o.w = new_floats((size_t)n, false);
            t.o.bias = new_floats((size_t)n, false);
            double ns = time_call(run_vector, k, &t);
            printf("%-10s %-10s %d  %6.3f ns an element, %5.1f x scalar\n", k->name,
                   vector_kernels[v].name, variant, ns / n, time_call(run_vector, scalar, &t) / ns);
            free(t.o.y);
            free(t.o.x);
            free(t.o.w);
            free(t.o.bias);
        }
}

static void bench_attention(const struct kernels *k, const struct kernels *scalar)
{
    static const struct {
        const char *name;
        int head_dim, n_rows, n_heads, pos;
    } shapes[] = {
        { "prefill, SmolLM2 135M", 64, 30, 3, 512 }, { "prefill, Gemma 3 270M", 256, 32, 4, 512 },
        { "decode, SmolLM2 135M", 64, 3, 3, 1023 },  { "decode, Gemma 3 270M", 256, 4, 4, 1023 },
        { "decode, one head", 64, 1, 1, 1023 },
    };
    for (size_t i = 0; i < QP_COUNT(shapes) && is_chosen(only_kernel, "attend"); i++) {
        struct attention_case *c = new_attention(shapes[i].head_dim, shapes[i].n_rows,
                                                 shapes[i].n_heads, shapes[i].pos, 0);
        double ns = time_call(run_attention, k, c), flops = 0.0;
        for (int r = 0; r < shapes[i].n_rows; r++)
            flops += 4.0 * shapes[i].head_dim * c->end[r];
        double kv_bytes = 8.0 * shapes[i].head_dim * c->end[shapes[i].n_rows - 1];
        printf("%-10s attend, %-22s %9.0f ns  %6.1f GFLOPS  %6.1f GB/s, %5.1f x scalar\n", k->name,
               shapes[i].name, ns, flops / ns, kv_bytes / ns,
               time_call(run_attention, scalar, c) / ns);
        free_attention(c);
    }
}

static void run_softmax(const struct kernels *k, const void *arg)
{
    struct softmax row = *(const struct softmax *)arg;
    k->softmax(&row); // its output is the next input: other numbers, the same work
}

static void bench_softmax(const struct kernels *k, const struct kernels *scalar)
{
    static const float caps[] = { 0.0f, 50.0f };
    for (size_t i = 0; i < QP_COUNT(caps) && is_chosen(only_kernel, "softmax"); i++) {
        struct softmax row = { .n = 512, .end = 500, .cap = caps[i] };
        float *value_scales = new_floats((size_t)row.n, false);
        row.s = new_floats((size_t)row.n, false);
        row.value_scales = value_scales;
        double ns = time_call(run_softmax, k, &row);
        printf("%-10s softmax, %-7s %6.3f ns an element, %5.1f x scalar\n", k->name,
               row.cap > 0.0f ? "capped" : "plain", ns / row.n,
               time_call(run_softmax, scalar, &row) / ns);
        free(row.s);
        free(value_scales);
    }
}

static int bench(void)
{
    const struct kernels scalar = qp_kernels_for(0);
    random_state = seed;
    for (size_t i = 0; i < QP_COUNT(levels); i++) {
        if ((qp_cpu_features() & levels[i].features) != levels[i].features ||
            !is_chosen(only_isa, levels[i].name))
            continue;
        const struct kernels k = qp_kernels_for(levels[i].features);
        bench_vectors(&k, &scalar);
        bench_softmax(&k, &scalar);
        bench_attention(&k, &scalar);
    }
    return 0;
}

int main(int argc, char **argv)
{
    bool is_bench = false;
    seed = qp_now_ns() % 1000000;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--bench") == 0)
            is_bench = true;
        else if (i + 1 < argc && strcmp(argv[i], "--seed") == 0)
            seed = strtoull(argv[++i], NULL, 10);
        else if (i + 1 < argc && strcmp(argv[i], "--isa") == 0)
            only_isa = argv[++i];
        else if (i + 1 < argc && strcmp(argv[i], "--only") == 0)
            only_kernel = argv[++i];
        else
            return fprintf(stderr, "%s: unknown argument\n", argv[i]), 2;
    }
    if (is_bench)
        return bench();
    const struct CMUnitTest tests[] = { cmocka_unit_test(same_bits_as_scalar) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
