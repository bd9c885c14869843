/* operations.c: what a prefill on the CPU spends its time on.
 *
 *     build/bench/operations MODEL [--threads N] [--tokens N] [--rounds N] [--kernels 0]
 *
 * First each operation of the forward pass, as the caller waits for it. Then each kernel: its time
 * on all threads together, as a share of the threads' time. Both are percentages of the prefill,
 * sums over all rounds. Two looks at the clock make a short call of a kernel longer. */
#include "cpu/cpu.h"
#include "cpu/cpu_impl.h"
#include "engine/engine.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// clang-format off
/* Names of what is measured: operations first. */
#define OPERATIONS(M)                                                                              \
    M(embed) M(norm) M(add) M(linear) M(rope_append) M(attend) M(conv) M(gated) M(ple) M(logits)
#define KERNELS(M)                                                                                 \
    M(pack) M(gemm) M(gemm_scores) M(gemm_values) M(quantize) M(softmax) M(softmax_rows) M(activate) M(rms_norm)   \
    M(layer_norm) M(rotate) M(hadamard) M(axpby) M(k_add)
// clang-format on

#define ENUM_OF(name) TIME_##name,
enum measured {
    OPERATIONS(ENUM_OF) KERNELS(ENUM_OF) N_MEASURED,
    N_OPERATIONS = TIME_pack // kernels come next
};

#define NAME_OF(name) [TIME_##name] = #name,
static const char *const names[N_MEASURED] = { OPERATIONS(NAME_OF) KERNELS(NAME_OF) };

static atomic_uint_fast64_t spent_ns[N_MEASURED], n_calls[N_MEASURED];
static struct kernels real; // that the device would call

static void count(enum measured i, uint64_t begin)
{
    atomic_fetch_add_explicit(&spent_ns[i], qp_now_ns() - begin, memory_order_relaxed);
    atomic_fetch_add_explicit(&n_calls[i], 1, memory_order_relaxed);
}

/* ---- operations ---- */

#define TIMED(name, parameters, arguments)                                                         \
    static quip_status timed_##name parameters                                                     \
    {                                                                                              \
        const uint64_t begin = qp_now_ns();                                                        \
        const quip_status status = qp_cpu_backend.name arguments;                                  \
        count(TIME_##name, begin);                                                                 \
        return status;                                                                             \
    }
// clang-format off
TIMED(embed, (struct device *d, const struct rows *r), (d, r))
TIMED(norm, (struct device *d, const struct norm_weights *w, int n), (d, w, n))
TIMED(add, (struct device *d, const struct norm_weights *p, const struct norm_weights *w, int n), (d, p, w, n))
TIMED(linear, (struct device *d, enum buffer out, struct matrix_set w, enum buffer in, struct matrix_set next, const struct rows *r), (d, out, w, in, next, r))
TIMED(rope_append, (struct device *d, int l, const struct rows *r), (d, l, r))
TIMED(attend, (struct device *d, int l, const struct rows *r), (d, l, r))
TIMED(conv, (struct device *d, int l, const struct rows *r), (d, l, r))
TIMED(gated, (struct device *d, int l, struct matrix_set next, const struct rows *r), (d, l, next, r))
TIMED(ple, (struct device *d, int l, const struct rows *r), (d, l, r))
TIMED(logits, (struct device *d, int n), (d, n))

/* ---- kernels ---- */

#define TIMED_KERNEL(name, field, parameters, arguments)                                           \
    static void kernel_##name parameters                                                           \
    {                                                                                              \
        const uint64_t begin = qp_now_ns();                                                        \
        real.field arguments;                                                                      \
        count(TIME_##name, begin);                                                                 \
    }
TIMED_KERNEL(pack, pack, (void *t, const struct matrix *w, int r, int n), (t, w, r, n))
TIMED_KERNEL(quantize, quantize, (int8_t *q, float *s, int32_t *o, const float *x, int n), (q, s, o, x, n))
TIMED_KERNEL(softmax, softmax, (struct softmax *row), (row))
TIMED_KERNEL(softmax_rows, softmax_rows, (const struct softmax_rows *rows), (rows))
TIMED_KERNEL(activate, activate, (float *y, const float *g, const float *u, int act, int n), (y, g, u, act, n))
TIMED_KERNEL(rms_norm, rms_norm, (float *y, const float *x, const float *w, float p, float e, int n), (y, x, w, p, e, n))
TIMED_KERNEL(layer_norm, layer_norm, (float *y, const float *x, const float *w, const float *b, float e, int n), (y, x, w, b, e, n))
TIMED_KERNEL(rotate, rotate, (float *x, const float *c, const float *s, int half), (x, c, s, half))
TIMED_KERNEL(hadamard, hadamard, (float *x, float f, int n), (x, f, n))
TIMED_KERNEL(axpby, axpby, (float *y, const float *a, float ca, const float *b, float cb, int n), (y, a, ca, b, cb, n))
TIMED_KERNEL(k_add, add, (float *x, const float *y, int n), (x, y, n))
// clang-format on

/* Products of attention are counted on their own: those with values have no scales, those with keys
 * are a block of keys. */
static void kernel_gemm(const struct out_view *o, const void *t, const struct matrix *w,
                        const struct act_rows *x, int r, int n)
{
    const uint64_t begin = qp_now_ns();
    real.gemm(o, t, w, x, r, n);
    count(!w->scales                         ? TIME_gemm_values
          : w->n_out == KV_BLOCK && !w->data ? TIME_gemm_scores
                                             : TIME_gemm,
          begin);
}

static void kernel_gemm_tiles(const struct out_view *o, const struct tiles *t,
                              const struct matrix *w, const struct act_rows *x)
{
    const uint64_t begin = qp_now_ns();
    real.gemm_tiles(o, t, w, x);
    count(w->scales ? TIME_gemm_scores : TIME_gemm_values, begin);
}

static void measure_kernels(struct kernels *k)
{
    real = *k;
    if (k->gemm_tiles)
        k->gemm_tiles = kernel_gemm_tiles;
    if (k->softmax_rows)
        k->softmax_rows = kernel_softmax_rows;
    k->pack = kernel_pack;
    k->gemm = kernel_gemm;
    k->quantize = kernel_quantize;
    k->softmax = kernel_softmax;
    k->activate = kernel_activate;
    k->rms_norm = kernel_rms_norm;
    k->layer_norm = kernel_layer_norm;
    k->rotate = kernel_rotate;
    k->hadamard = kernel_hadamard;
    k->axpby = kernel_axpby;
    k->add = kernel_k_add;
}

static struct backend timed_backend(void)
{
    struct backend b = qp_cpu_backend;
#define SET(name) b.name = timed_##name;
    OPERATIONS(SET)
#undef SET
    return b;
}

/* ---- prefills ---- */

#define MAX_TOKENS (1 << 16)

struct setup {
    int n_threads, n_tokens, n_rounds, has_kernels;
};

static quip_status prefill(quip_session *session, int n, double *s, quip_error *error)
{
    static quip_token tokens[MAX_TOKENS];
    for (int i = 0; i < n; i++)
        tokens[i] = 100 + i % 101;
    quip_status status = quip_session_rewind(session, 0, error);
    const uint64_t begin = qp_now_ns();
    if (!status)
        status = quip_session_prefill(session, tokens, n, error);
    *s = (double)(qp_now_ns() - begin) * 1e-9;
    return status;
}

static void print_times(int begin, int end, double total_s, int n_rounds)
{
    for (int i = begin; i < end; i++)
        if (n_calls[i])
            printf("  %-12s %6.1f %%  %8.0f calls  %9.3f us\n", names[i],
                   100e-9 * (double)spent_ns[i] / total_s, (double)n_calls[i] / n_rounds,
                   1e-3 * (double)spent_ns[i] / (double)n_calls[i]);
}

/* Counts n_rounds prefills. */
static quip_status measure(quip_session *session, const struct setup *p, double *total_s,
                           quip_error *error)
{
    quip_status status = QUIP_OK;
    *total_s = 0;
    for (int i = 0; i < N_MEASURED; i++)
        spent_ns[i] = n_calls[i] = 0;
    for (int i = 0; i < p->n_rounds && !status; i++) {
        double s;
        status = prefill(session, p->n_tokens, &s, error);
        *total_s += s;
    }
    return status;
}

/* Prefills with the clocks of operations alone, then with those of kernels. */
static quip_status report(struct cpu_device *device, quip_session *session, const struct setup *p,
                          quip_error *error)
{
    static struct backend backend;
    double total_s;
    backend = timed_backend();
    device->base.backend = &backend;
    quip_status status = measure(session, p, &total_s, error);
    if (status)
        return status;
    printf("%s, %d threads: %.0f tokens/s\n", device->k.name, device->n_threads,
           p->n_tokens * p->n_rounds / total_s);
    print_times(0, N_OPERATIONS, total_s, p->n_rounds);
    if (!p->has_kernels)
        return QUIP_OK;
    measure_kernels(&device->k);
    status = measure(session, p, &total_s, error);
    if (status)
        return status;
    printf(" on all threads, with clocks, %.0f tokens/s:\n", p->n_tokens * p->n_rounds / total_s);
    print_times(N_OPERATIONS, N_MEASURED, total_s * device->n_threads, p->n_rounds);
    return QUIP_OK;
}

int main(int argc, char **argv)
{
    struct setup p = { qp_default_threads(), 1024, 4, true };
    for (int i = 2; i + 1 < argc; i += 2) {
        int *to = !strcmp(argv[i], "--threads")  ? &p.n_threads
                  : !strcmp(argv[i], "--tokens") ? &p.n_tokens
                  : !strcmp(argv[i], "--rounds") ? &p.n_rounds
                                                 : &p.has_kernels;
        *to = atoi(argv[i + 1]);
    }
    quip_model *model = NULL;
    quip_session *session = NULL;
    quip_error error = { 0 };
    const quip_model_options options = { .backend = QUIP_BACKEND_CPU, .n_threads = p.n_threads };
    double first_s;
    if (argc < 2 || p.n_tokens > MAX_TOKENS || quip_model_open(&model, argv[1], &options, &error) ||
        quip_session_open(&session, model, &(quip_session_options){ .n_context = p.n_tokens + 8 },
                          &error) ||
        prefill(session, p.n_tokens, &first_s, &error) ||
        report(cpu_of(atomic_load(&model->device)), session, &p, &error)) {
        fprintf(stderr, "operations: %s\n", error.message[0] ? error.message : "expected a MODEL");
        return 1;
    }
    quip_session_close(session);
    quip_model_close(model);
    return 0;
}
