/* attention_int8.c (test): attention over int8 keys and values (src/cpu/attention_int8.c). Compares
 * each step of every instruction set of this machine with scalar, bit for bit; the layout of its
 * tiles with the documented one; and the result with sums in double. */
#include "cpu/attention_int8.h"
#include "format/format.h"
#include "support/emulated_amx.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MAX_POSITIONS 1200
#define MAX_HEAD_DIM 256

static uint64_t random_state;

static uint32_t random_u32(void) // xorshift
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 32);
}

static int random_between(int low, int high)
{
    return low + (int)(random_u32() % (uint32_t)(high - low + 1));
}

static float random_float(void) // (-1, 1)
{
    return (float)random_u32() * 0x1p-31f - 1.0f;
}

typedef void check_function(const struct kernels *scalar, const struct kernels *k);

/* Call the check with the same random numbers for each level. */
static void check_rounds(check_function *check, int n_rounds, const struct kernels *k)
{
    const struct kernels scalar = qp_kernels_for(0);
    random_state = 88172645463325252;
    for (int round = 0; round < n_rounds; round++)
        check(&scalar, k);
}

static void each_level(check_function *check, int n_rounds)
{
    const struct cpu_level *level;
    for (int i = 0; (level = qp_cpu_level(i)); i++) {
        const struct kernels k = qp_kernels_for(level->features & qp_cpu_features());
        if (strcmp(k.name, level->name))
            continue; // not on this machine
        check_rounds(check, n_rounds, &k);
    }
    if (qp_cpu_features() & CPU_AVX512VNNI) {
        struct kernels k = qp_kernels_for(qp_cpu_features());
        emulated_amx_kernels(&k);
        check_rounds(check, n_rounds, &k);
    }
}

/* ---- tiles ---- */

/* tile_index() says where pack() stores an element. */
static void check_tile_order(const struct kernels *scalar, const struct kernels *k)
{
    (void)scalar;
    const struct tile_order *o = &k->tile_order;
    const int n_in = random_between(1, 300), n_k = (int)qp_round_up((size_t)n_in, ACT_BLOCK);
    int8_t *rows = malloc((size_t)TILE_ROWS * (size_t)n_in);
    uint8_t *tile = aligned_alloc(64, k->tile_bytes(n_in));
    assert_true(rows && tile);
    for (int i = 0; i < TILE_ROWS * n_in; i++)
        rows[i] = (int8_t)random_between(-127, 127);
    const struct matrix w = {
        .dtype = DTYPE_I8, .n_out = TILE_ROWS, .n_in = n_in, .row_bytes = (size_t)n_in, .data = rows
    };
    k->pack(tile, &w, 0, TILE_ROWS);
    assert_true(k->tile_bytes(n_in) >= qp_tile_bytes(o, n_in));
    for (int r = 0; r < TILE_ROWS; r++)
        for (int i = 0; i < n_in; i++) {
            const int at = r / o->group * o->group * n_k + i / o->step * o->group * o->step +
                           r % o->group / o->rows * o->rows * o->step +
                           i % o->step / o->ks * o->rows * o->ks + r % o->rows * o->ks + i % o->ks;
            const int found = o->n_bytes == 1 ? (int8_t)(tile[at] ^ o->flip)
                                              : ((const int16_t *)(const void *)tile)[at];
            assert_int_equal(found, rows[r * n_in + i]);
        }
    free(rows);
    free(tile);
}

static void test_tile_orders(void **state)
{
    (void)state;
    each_level(check_tile_order, 20);
}

/* ---- one scale per row ---- */

static void check_quantize_row(const struct kernels *scalar, const struct kernels *k)
{
    static const float specials[] = { NAN, INFINITY, -INFINITY, -0.0f, 3e38f, 1e-45f, 1.0f };
    const int n = random_between(1, 300), kind = random_between(0, 4);
    float *x = malloc((size_t)n * sizeof *x), scales[2];
    int8_t q[2][301];
    assert_non_null(x);
    for (int i = 0; i < n; i++) {
        x[i] = random_float() * (kind == 0 ? 0.0f : kind == 1 ? 1e-44f : 5.0f);
        if (kind == 2 && random_between(0, 9) == 0)
            x[i] = specials[random_u32() % QP_COUNT(specials)];
    }
    memset(q, 0x5a, sizeof q);
    scalar->quantize_row(q[0], &scales[0], x, n);
    k->quantize_row(q[1], &scales[1], x, n);
    assert_memory_equal(q[0], q[1], sizeof q[0]);
    assert_memory_equal(&scales[0], &scales[1], sizeof scales[0]);
    assert_true(isfinite(scales[0]));
    free(x);
}

static void test_quantize_row(void **state)
{
    (void)state;
    each_level(check_quantize_row, 300);
}

/* ---- softmax ---- */

static void check_softmax(const struct kernels *scalar, const struct kernels *k)
{
    float s[2][KV_SPAN], bias[KV_SPAN], scales[KV_SPAN];
    struct softmax row[2];
    const int n = KV_BLOCK * random_between(1, SPAN_BLOCKS);
    const int begin = random_between(0, n), end = random_between(-5, n);
    for (int i = 0; i < n; i++) {
        const bool is_seen = i >= begin && i < end;
        s[0][i] = s[1][i] = is_seen ? 30.0f * random_float() : NAN;
        scales[i] = is_seen ? fabsf(random_float()) : INFINITY;
        bias[i] = random_float();
    }
    row[0] = (struct softmax){ .n = n, .begin = begin, .end = end, .value_scales = scales };
    row[0].cap = random_between(0, 2) ? 0.0f : 20.0f;
    row[0].bias = random_between(0, 2) ? NULL : bias;
    row[1] = row[0];
    row[0].s = s[0];
    row[1].s = s[1];
    scalar->softmax(&row[0]);
    k->softmax(&row[1]);
    assert_memory_equal(s[0], s[1], (size_t)n * sizeof(float));
    assert_memory_equal(&row[0].max, &row[1].max, sizeof(float));
    assert_memory_equal(&row[0].sum, &row[1].sum, sizeof(float));
}

static void test_softmax(void **state)
{
    (void)state;
    each_level(check_softmax, 300);
}

/* ---- many rows at once ---- */

/* Rows of scores that end within a few positions of each other. Those that are not visible are
 * NaNs, and so are a few that are. */
struct score_rows {
    float s[ATTENTION_MAX_ROWS * SCORE_STRIDE], value_scales[KV_SPAN];
    int begin[ATTENTION_MAX_ROWS], end[ATTENTION_MAX_ROWS];
    int n, n_rows, pos;
};

static void fill_score_rows(struct score_rows *rows)
{
    const int n = rows->n = KV_BLOCK * random_between(1, SPAN_BLOCKS);
    const int last = random_between(0, n), window = random_between(1, KV_SPAN);
    const float size = random_between(0, 3) ? 30.0f : 1000.0f; // most weights are the least
    rows->n_rows = random_between(1, ATTENTION_MAX_ROWS);
    rows->pos = KV_SPAN * random_between(0, 3);
    for (int i = 0; i < n; i++)
        rows->value_scales[i] = i < last + 5 ? fabsf(random_float()) : NAN;
    for (int r = 0; r < rows->n_rows; r++) {
        float *s = rows->s + r * SCORE_STRIDE;
        const int end = rows->end[r] = rows->pos + qp_min(n, last + random_between(-5, 5));
        const int begin = rows->begin[r] = end > window ? end - window : 0;
        for (int i = 0, pos = rows->pos; i < n; i++, pos++)
            s[i] = pos >= begin && pos < end ? size * random_float() : NAN;
        if (random_between(0, 9) == 0)
            s[random_between(0, n - 1)] = random_between(0, 1) ? NAN : INFINITY;
    }
}

/* softmax_rows gives what softmax and quantize give for each row. */
static void check_softmax_rows(const struct kernels *scalar, const struct kernels *k)
{
    enum {
        N_ROWS = ATTENTION_MAX_ROWS
    };
    static struct score_rows in, copy;
    static int8_t q[2][N_ROWS * KV_SPAN];
    float max[N_ROWS], sum[N_ROWS], scales[2][N_ROWS * SPAN_BLOCKS];
    int32_t offsets[2][N_ROWS * SPAN_BLOCKS];
    fill_score_rows(&in);
    copy = in;
    if (!k->softmax_rows)
        return;
    k->softmax_rows(&(struct softmax_rows){ in.s, SCORE_STRIDE, in.n_rows, in.pos, in.n, in.begin,
                                            in.end, in.value_scales, max, sum, q[0], KV_SPAN,
                                            scales[0], offsets[0] });
    for (int r = 0; r < in.n_rows; r++) {
        const int block = r * in.n / KV_BLOCK;
        struct softmax row = { .s = copy.s + r * SCORE_STRIDE,
                               .n = in.n,
                               .begin = in.begin[r] > in.pos ? in.begin[r] - in.pos : 0,
                               .end = qp_min(in.end[r] - in.pos, in.n),
                               .value_scales = in.value_scales };
        scalar->softmax(&row);
        scalar->quantize(q[1] + r * KV_SPAN, scales[1] + block, offsets[1] + block, row.s, in.n);
        assert_memory_equal(&max[r], &row.max, sizeof row.max);
        assert_memory_equal(&sum[r], &row.sum, sizeof row.sum);
        assert_memory_equal(q[0] + r * KV_SPAN, q[1] + r * KV_SPAN, (size_t)in.n);
    }
    const size_t n_blocks = (size_t)(in.n_rows * in.n / KV_BLOCK);
    assert_memory_equal(scales[0], scales[1], n_blocks * sizeof(float));
    assert_memory_equal(offsets[0], offsets[1], n_blocks * sizeof(int32_t));
}

static void test_softmax_rows(void **state)
{
    (void)state;
    each_level(check_softmax_rows, 300);
}

enum {
    MOST_IN = 576,
    MOST_OUT = 320,
    MOST_TOKENS = 70
};

/* Random activations. */
static struct act_rows random_act(const struct kernels *scalar, int n, int n_in)
{
    static int8_t q[MOST_TOKENS * MOST_IN];
    static float scales[MOST_TOKENS * MOST_IN / ACT_BLOCK];
    static int32_t offsets[MOST_TOKENS * MOST_IN / ACT_BLOCK];
    const size_t stride = qp_round_up((size_t)n_in, ACT_BLOCK);
    for (int t = 0; t < n; t++) {
        const size_t at = (size_t)t * stride;
        float x[MOST_IN];
        for (int i = 0; i < n_in; i++)
            x[i] = random_float();
        scalar->quantize(q + at, scales + at / ACT_BLOCK, offsets + at / ACT_BLOCK, x, n_in);
    }
    return (struct act_rows){ q, stride, scales, offsets, n };
}

/* gemm_tiles gives what gemm gives for each tile, with scales and without, also if the tiles do not
 * follow each other. */
static void check_gemm_tiles(const struct kernels *scalar, const struct kernels *k)
{
    static int8_t rows[MOST_OUT * MOST_IN];
    static float scales[MOST_OUT], y[2][MOST_TOKENS * MOST_OUT];
    const int n_in =
        random_between(0, 2) ? ACT_BLOCK * random_between(1, 9) : random_between(1, 300);
    const int n_out = random_between(0, 3) ? 16 * random_between(1, 20) : random_between(1, 200);
    const int n = random_between(0, 2) ? 32 : random_between(1, MOST_TOKENS);
    if (!k->gemm_tiles)
        return;
    for (int i = 0; i < n_out * n_in; i++)
        rows[i] = (int8_t)random_between(-127, 127);
    for (int i = 0; i < n_out; i++)
        scales[i] = fabsf(random_float());
    for (int i = 0; i < n * n_out; i++)
        y[0][i] = y[1][i] = random_float();
    const struct matrix w = { .dtype = DTYPE_I8,
                              .n_out = n_out,
                              .n_in = n_in,
                              .row_bytes = (size_t)n_in,
                              .data = rows,
                              .scales = random_between(0, 1) ? scales : NULL };
    const struct act_rows x = random_act(scalar, n, n_in);
    const size_t stride = k->tile_bytes(n_in) * (size_t)random_between(1, 2);
    uint8_t *packed = aligned_alloc(64, (MOST_OUT / TILE_ROWS) * stride);
    assert_non_null(packed);
    const struct tiles tiles = { packed, stride };
    for (int r = 0; r < n_out; r += TILE_ROWS) {
        uint8_t *tile = packed + (size_t)(r / TILE_ROWS) * stride;
        const struct out_view out = { y[0] + r, (size_t)n_out };
        k->pack(tile, &w, r, qp_min(n_out - r, TILE_ROWS));
        k->gemm(&out, tile, &w, &x, r, qp_min(n_out - r, TILE_ROWS));
    }
    k->gemm_tiles(&(struct out_view){ y[1], (size_t)n_out }, &tiles, &w, &x);
    assert_memory_equal(y[0], y[1], (size_t)(n * n_out) * sizeof(float));
    free(packed);
}

static void test_gemm_tiles(void **state)
{
    (void)state;
    each_level(check_gemm_tiles, 100);
}

/* ---- complete attention ---- */

/* Random keys and values of one head, and queries. */
struct head {
    int head_dim, n_positions, n_rows;
    int8_t *keys, *values; // [position][head_dim], [dimension][position]
    float *key_scales, *value_scales;
    int8_t q[ATTENTION_MAX_ROWS * MAX_HEAD_DIM];
    float q_scales[ATTENTION_MAX_ROWS * MAX_HEAD_DIM / ACT_BLOCK];
    int32_t q_offsets[ATTENTION_MAX_ROWS * MAX_HEAD_DIM / ACT_BLOCK];
    int begin[ATTENTION_MAX_ROWS], end[ATTENTION_MAX_ROWS];
};

static struct head *new_head(const struct kernels *scalar)
{
    static const int head_dims[] = { 64, 256, 80, 128, 24 };
    struct head *h = calloc(1, sizeof *h);
    assert_non_null(h);
    h->head_dim = head_dims[random_u32() % QP_COUNT(head_dims)];
    h->n_positions = random_between(1, MAX_POSITIONS);
    h->n_rows = random_between(1, ATTENTION_MAX_ROWS);
    const size_t n = (size_t)MAX_POSITIONS + KV_BLOCK;
    h->keys = malloc(n * (size_t)h->head_dim);
    h->values = malloc(n * (size_t)h->head_dim);
    h->key_scales = malloc(n * sizeof(float));
    h->value_scales = malloc(n * sizeof(float));
    assert_true(h->keys && h->values && h->key_scales && h->value_scales);
    for (size_t i = 0; i < n * (size_t)h->head_dim; i++) {
        h->keys[i] = (int8_t)random_between(-127, 127);
        h->values[i] = (int8_t)random_between(-127, 127);
    }
    for (size_t i = 0; i < n; i++) {
        h->key_scales[i] = 1e-3f * fabsf(random_float());
        h->value_scales[i] = fabsf(random_float()) / 127.0f;
    }
    const size_t stride = qp_round_up((size_t)h->head_dim, ACT_BLOCK);
    const int window = random_between(0, 1) ? random_between(1, 700) : 0;
    for (int r = 0; r < h->n_rows; r++) {
        float q[MAX_HEAD_DIM];
        for (int d = 0; d < h->head_dim; d++)
            q[d] = random_float();
        scalar->quantize(h->q + (size_t)r * stride, h->q_scales + (size_t)r * stride / ACT_BLOCK,
                         h->q_offsets + (size_t)r * stride / ACT_BLOCK, q, h->head_dim);
        h->end[r] = h->n_positions - r / 3 > 0 ? h->n_positions - r / 3 : 1;
        h->begin[r] = window && h->end[r] > window ? h->end[r] - window : 0;
    }
    return h;
}

static void free_head(struct head *h)
{
    free(h->keys);
    free(h->values);
    free(h->key_scales);
    free(h->value_scales);
    free(h);
}

/* Pack the keys and values of the head as n_blocks tiles of this level. If the head has more
 * blocks, the last ones stay, as in a ring. */
static struct kv_tiles pack_head(const struct head *h, const struct kernels *k, int n_blocks)
{
    const int n_all = (h->n_positions + KV_BLOCK - 1) / KV_BLOCK;
    const int n_pieces = (h->head_dim + TILE_ROWS - 1) / TILE_ROWS;
    struct kv_tiles kv = { .key_bytes = qp_tile_bytes(&k->tile_order, h->head_dim),
                           .value_bytes = qp_tile_bytes(&k->tile_order, KV_BLOCK),
                           .n_blocks = n_blocks };
    uint8_t *keys = aligned_alloc(64, (size_t)n_blocks * kv.key_bytes);
    uint8_t *values = aligned_alloc(64, (size_t)(n_blocks * n_pieces) * kv.value_bytes);
    float *scales = malloc((size_t)n_blocks * 2 * KV_BLOCK * sizeof *scales);
    assert_true(keys && values && scales);
    kv.key_scales = scales;
    kv.value_scales = scales + n_blocks * KV_BLOCK;
    for (int b = n_all > n_blocks ? n_all - n_blocks : 0; b < n_all; b++) {
        const int slot = b % n_blocks;
        memcpy(scales + slot * KV_BLOCK, h->key_scales + b * KV_BLOCK, KV_BLOCK * sizeof(float));
        memcpy(scales + (n_blocks + slot) * KV_BLOCK, h->value_scales + b * KV_BLOCK,
               KV_BLOCK * sizeof(float));
        const struct matrix key = { .dtype = DTYPE_I8,
                                    .n_out = h->n_positions + KV_BLOCK,
                                    .n_in = h->head_dim,
                                    .row_bytes = (size_t)h->head_dim,
                                    .data = h->keys };
        const struct matrix value = { .dtype = DTYPE_I8,
                                      .n_out = h->head_dim,
                                      .n_in = KV_BLOCK,
                                      .row_bytes = MAX_POSITIONS + KV_BLOCK,
                                      .data = h->values + b * KV_BLOCK };
        k->pack(keys + (size_t)slot * kv.key_bytes, &key, b * KV_BLOCK, TILE_ROWS);
        for (int d = 0; d < h->head_dim; d += TILE_ROWS)
            k->pack(values + (size_t)(d / TILE_ROWS * n_blocks + slot) * kv.value_bytes, &value, d,
                    h->head_dim - d < TILE_ROWS ? h->head_dim - d : TILE_ROWS);
    }
    kv.keys = keys;
    kv.values = values;
    return kv;
}

static void free_tiles(const struct kv_tiles *kv)
{
    free((void *)kv->keys);
    free((void *)kv->values);
    free((void *)kv->key_scales);
}

/* Rows [row, row + n): out = o / l, [n][head_dim]. */
static void attend(const struct head *h, const struct kernels *k, const struct kv_tiles *kv,
                   int row, int n, float *out)
{
    static struct int8_attention_scratch scratch;
    static float o[2][ATTENTION_MAX_ROWS * MAX_HEAD_DIM];
    float m[2][ATTENTION_MAX_ROWS], l[2][ATTENTION_MAX_ROWS];
    const size_t stride = qp_round_up((size_t)h->head_dim, ACT_BLOCK);
    const size_t block = (size_t)row * stride / ACT_BLOCK;
    const struct attention_part sum = { m[0], l[0], o[0] }, part = { m[1], l[1], o[1] };
    const struct int8_attention a = { .head_dim = h->head_dim,
                                      .n_rows = n,
                                      .kv = *kv,
                                      .q = h->q + (size_t)row * stride,
                                      .q_scales = h->q_scales + block,
                                      .q_offsets = h->q_offsets + block,
                                      .begin = h->begin + row,
                                      .end = h->end + row };
    int first = h->begin[row], last = h->end[row] - 1;
    for (int r = row; r < row + n; r++) {
        first = h->begin[r] < first ? h->begin[r] : first;
        last = h->end[r] - 1 > last ? h->end[r] - 1 : last;
    }
    for (int span = first / KV_SPAN; span <= last / KV_SPAN; span++) {
        qp_attend_span(k, &a, span, &scratch, span == first / KV_SPAN ? &sum : &part);
        if (span > first / KV_SPAN)
            qp_attention_add(k, &sum, &part, n, h->head_dim);
    }
    for (int i = 0; i < n * h->head_dim; i++)
        out[i] = sum.o[i] / sum.l[i / h->head_dim] + 0.0f;
}

/* Attention in double, from the same integers; probabilities are not rounded to integers, which
 * costs at most half a step of 1 / 127 of a block's largest. */
static void check_against_double(const struct head *h, int r, const float *out)
{
    const int stride = (int)qp_round_up((size_t)h->head_dim, ACT_BLOCK);
    static double p[MAX_POSITIONS];
    double sum = 0, largest = 0, error = 0;
    for (int pos = h->begin[r]; pos < h->end[r]; pos++) {
        double score = 0;
        for (int d = 0; d < h->head_dim; d++)
            score += (double)h->q[r * stride + d] *
                     (double)h->q_scales[(r * stride + d) / ACT_BLOCK] *
                     (double)h->keys[pos * h->head_dim + d];
        p[pos] = exp(score * (double)h->key_scales[pos]);
        sum += p[pos];
        const double weight = p[pos] * (double)h->value_scales[pos];
        largest = weight > largest ? weight : largest;
        error += 0.51 / 127 * largest * 127;
    }
    for (int d = 0; d < h->head_dim; d++) {
        double o = 0;
        for (int pos = h->begin[r]; pos < h->end[r]; pos++)
            o += p[pos] * (double)h->value_scales[pos] *
                 (double)h->values[d * (MAX_POSITIONS + KV_BLOCK) + pos];
        assert_true(fabs(o / sum - (double)out[d]) <= error / sum);
    }
}

/* The same bits as scalar, also for a single row, and from a ring. */
static void check_attention(const struct kernels *scalar, const struct kernels *k)
{
    static float want[ATTENTION_MAX_ROWS * MAX_HEAD_DIM], got[ATTENTION_MAX_ROWS * MAX_HEAD_DIM];
    struct head *h = new_head(scalar);
    int first = h->begin[0];
    for (int r = 1; r < h->n_rows; r++)
        first = h->begin[r] < first ? h->begin[r] : first;
    const int last = (h->n_positions - 1) / KV_BLOCK, n_seen = last - first / KV_BLOCK + 1;
    const struct kv_tiles plain = pack_head(h, scalar, last + 1);
    const struct kv_tiles kv =
        pack_head(h, k, random_between(n_seen, last + 1)); // fewer blocks than positions: a ring
    const int row = random_between(0, h->n_rows - 1);
    const size_t row_bytes = (size_t)h->head_dim * sizeof(float);
    attend(h, scalar, &plain, 0, h->n_rows, want);
    attend(h, k, &kv, 0, h->n_rows, got);
    assert_memory_equal(want, got, (size_t)h->n_rows * row_bytes);
    attend(h, k, &kv, row, 1, got);
    assert_memory_equal(want + row * h->head_dim, got, row_bytes);
    check_against_double(h, row, got);
    free_tiles(&plain);
    free_tiles(&kv);
    free_head(h);
}

static void test_attention(void **state)
{
    (void)state;
    each_level(check_attention, 12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tile_orders), cmocka_unit_test(test_quantize_row),
        cmocka_unit_test(test_softmax),     cmocka_unit_test(test_softmax_rows),
        cmocka_unit_test(test_gemm_tiles),  cmocka_unit_test(test_attention),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
