/* matrices.c: can the subgroups of a GPU multiply matrices?
 * In:  a GPU that says so.
 * Out: whether a small product has the right numbers.
 *
 * The feature is experimental: which sizes there are, and what a shader says, may differ from one
 * version to the next. So any failure only means that gemm.wgsl computes the products. */
#include "webgpu/few_rows.h"

#include <math.h>
#include <string.h>

#if defined(__wasm__) // no browser offers what it needs
quip_status qp_webgpu_test_matrices(struct webgpu_device *d, quip_error *error)
{
    (void)d, (void)error;
    return QUIP_OK;
}
#else

enum {
    N = 130, // rows of x and of w, more than a tile
    WIDTH = 192,
    SCALES = N * WIDTH / 4, // word of w
    WORDS = SCALES + N + 2
};

/* A number from -127 to 127; one in each block of 64 is 127. */
static int value(int row, int i)
{
    return i % 64 == row % 64 ? 127 : (row * 37 + i * 101 + row * i % 91) % 255 - 127;
}

static double product(int t, int r)
{
    int sum = 0;
    for (int i = 0; i < WIDTH; i++)
        sum += value(t, i) * value(r + 5, i);
    return sum;
}

/* Some of each 16 x 16 numbers are looked at. Of a pair, half of the rows are a gate; activations
 * differ from ReLU by less than 1. */
static bool is_right(const float *y, int stride, bool is_pair)
{
    const int n_columns = is_pair ? N / 2 : N;
    for (int t = 0; t < N; t += 3)
        for (int r = 0; r < n_columns; r += 5) {
            const double x = product(t, r), up = is_pair ? product(t, N / 2 + r) : 1,
                         want = is_pair && x < 0 ? 0 : x * up;
            if (!(fabs(y[t * stride + r] - want) <=
                  4 + (is_pair ? fabs(up) + fabs(want) / 1000 : 0)))
                return false;
        }
    return true;
}

/* Of the test: what batches have in d->mem. */
struct memory {
    struct gpu_slab w;
    struct scratch x, y, weights;
    struct gpu_buffer *readback;
};

static quip_status open_memory(struct webgpu_device *d, struct memory *m, quip_error *error)
{
    quip_status status = qp_webgpu_alloc(d, &m->weights, 1, WORDS, error);
    if (!status)
        status = qp_webgpu_alloc(d, &m->x, N, WIDTH, error);
    if (!status)
        status = qp_webgpu_alloc(d, &m->y, N, N, error);
    if (!status)
        status = qp_webgpu_alloc(d, &d->mem.quantized, N, WIDTH / 2, error);
    if (!status)
        status = qp_webgpu_alloc(d, &d->mem.scales, N, 1, error);
    if (!status)
        status =
            qp_gpu_buffer_open(&m->readback, d->gpu, GPU_READBACK, N * N * sizeof(float), error);
    return status;
}

static void close_memory(struct webgpu_device *d, struct memory *m)
{
    struct scratch *const all[] = { &m->weights, &m->x, &m->y, &d->mem.quantized, &d->mem.scales };
    for (size_t i = 0; i < QP_COUNT(all); i++)
        qp_webgpu_free(d, all[i]);
    qp_gpu_buffer_close(d->gpu, m->readback);
}

static void write_numbers(struct webgpu_device *d, struct memory *m)
{
    float x[WIDTH], ones[N];
    int8_t w[WIDTH];
    for (int row = 0; row < N; row++) {
        for (int i = 0; i < WIDTH; i++) {
            x[i] = (float)value(row, i);
            w[i] = (int8_t)value(row + 5, i);
        }
        qp_gpu_write(d->gpu, m->x.buffer, (uint64_t)row * sizeof x, x, sizeof x);
        qp_gpu_write(d->gpu, m->weights.buffer, (uint64_t)row * sizeof w, w, sizeof w);
        ones[row] = 1;
    }
    qp_gpu_write(d->gpu, m->weights.buffer, 4 * (uint64_t)SCALES, ones, sizeof ones);
    m->w = (struct gpu_slab){ .buffer = m->weights.buffer,
                              .n_bytes = 4 * WORDS,
                              .dtype = DTYPE_I8,
                              .n_in = WIDTH,
                              .n_rows = N,
                              .row_vecs = WIDTH / 16,
                              .multiplier_at = UINT32_MAX,
                              .scale_at = SCALES,
                              .bias_at = UINT32_MAX,
                              .zero_at = UINT32_MAX };
}

static bool compute(struct webgpu_device *d, struct memory *m, const struct matrices_kind *kind)
{
    const size_t n_bytes = N * N * sizeof(float);
    if (qp_webgpu_halve_rows(d, &m->x, WIDTH, N) ||
        qp_webgpu_gemm_matrices(d, &m->w, &m->y, N, kind))
        return false;
    qp_gpu_copy(d->gpu, m->readback, 0, m->y.buffer, 0, n_bytes);
    qp_webgpu_flush(d);
    qp_gpu_map(d->gpu, m->readback, n_bytes);
    const float *y = qp_gpu_mapped(d->gpu, m->readback, true);
    const bool is_equal = y && is_right(y, m->y.stride, kind->gate == GATE_PAIR);
    qp_gpu_unmap(d->gpu, m->readback);
    return is_equal;
}

quip_status qp_webgpu_test_matrices(struct webgpu_device *d, quip_error *error)
{
    const struct matrices_kind kinds[] = { { .tile = 64 },
                                           { 128, GATE_PAIR, (int)d->base.config->act } };
    struct memory m = { 0 };
    if (!qp_gpu_info(d->gpu)->has_matrices || d->subgroup != 32) // of gemm_matrices.wgsl
        return QUIP_OK;
    quip_status status = open_memory(d, &m, error);
    if (!status) {
        write_numbers(d, &m);
        d->has_matrices = true;
        for (size_t i = 0; i < QP_COUNT(kinds) && d->has_matrices; i++)
            d->has_matrices = compute(d, &m, &kinds[i]);
        qp_webgpu_discard(d);
        if (!d->has_matrices && qp_webgpu_status(d) && !qp_gpu_forgive(d->gpu))
            status = qp_gpu_failure(d->gpu, error);
    }
    close_memory(d, &m);
    return status;
}
#endif
