/* kernels.c: every matrix kernel of every instruction set of this machine gives the bits of the
 * scalar one, on awkward shapes, and touches nothing outside its buffers.
 *   tests/kernels [--isa NAME] [--only KERNEL] [--seed N]
 * Each input ends where a page without access begins, so that reading past it crashes; each output
 * is painted first and compared whole, so that writing beside it shows. Vectors: kernels_vector.c.
 */
#include "cpu/low_rank.h"
#include "format/format.h"
#include "support/emulated_amx.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Around one step of every loop: a vector, a block, a pair of blocks, a stretch of a tile. */
static const int widths[] = { 1,   2,    15,   16,   17,   30,   32,    63,    64,
                              65,  66,   127,  128,  129,  190,  192,   254,   576,
                              640, 1026, 2048, 4098, 8256, 8320, 16450, 32832, 33028 };

static const char *only_isa, *only_kernel; // NULL: all
static uint64_t first_seed = 1, seed;

static uint32_t random_u32(void) // xorshift64*, Vigna 2016
{
    seed ^= seed >> 12;
    seed ^= seed << 25;
    seed ^= seed >> 27;
    return (uint32_t)((seed * 2685821657736338717u) >> 32);
}

static int random_between(int low, int high)
{
    return low + (int)(random_u32() % (uint32_t)(high - low + 1));
}

static float random_float(void) // in [-1, 1)
{
    return (float)(int32_t)random_u32() * 0x1p-31f;
}

/* ---- buffers that end at a page without access ---- */

struct fenced {
    uint8_t *map;
    size_t map_bytes, n_bytes;
    void *data;
};

static struct fenced fence(size_t n_bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t body = (n_bytes + page - 1) / page * page;
    struct fenced f = { .map_bytes = body + page, .n_bytes = n_bytes };
    f.map = mmap(NULL, f.map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(f.map != MAP_FAILED);
    assert_int_equal(mprotect(f.map + body, page, PROT_NONE), 0);
    memset(f.map, 0x5a, body);
    f.data = f.map + body - n_bytes;
    return f;
}

static void unfence(struct fenced *f)
{
    munmap(f->map, f->map_bytes);
}

/* Everything before the fence, including the bytes before the buffer. */
static bool is_same(const struct fenced *a, const struct fenced *b)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return a->map_bytes == b->map_bytes && !memcmp(a->map, b->map, a->map_bytes - page);
}

/* ---- one case: a matrix, some tokens, two outputs ---- */

struct sample {
    struct matrix w;
    int n_tokens, begin, end;
    size_t q_stride, n_blocks, y_stride;
    struct fenced weights, multipliers, scales, bias;
    struct fenced x, q, x_scales, x_offsets;
    struct fenced want, got, tile, other_tile;
};

static void fill_random(struct fenced *f)
{
    for (size_t i = 0; i < f->n_bytes; i++)
        ((uint8_t *)f->data)[i] = (uint8_t)random_u32();
}

static void fill_floats(struct fenced *f)
{
    for (size_t i = 0; i < f->n_bytes / sizeof(float); i++)
        ((float *)f->data)[i] = random_float();
}

static void open_sample(struct sample *s, int dtype, int n_in, int n_out, int n_tokens,
                        const struct kernels *scalar, const struct kernels *k)
{
    size_t row_bytes = dtype == DTYPE_F32  ? (size_t)n_in * sizeof(float)
                       : dtype == DTYPE_I8 ? (size_t)n_in
                                           : (size_t)n_in / 2;
    *s = (struct sample){ .n_tokens = n_tokens };
    s->weights = fence(row_bytes * (size_t)n_out);
    s->multipliers = fence(qp_multiplier_bytes(n_in) * (size_t)n_out);
    s->scales = fence((size_t)n_out * sizeof(float));
    s->bias = fence((size_t)n_out * sizeof(float));
    if (dtype == DTYPE_F32)
        fill_floats(&s->weights);
    else
        fill_random(&s->weights); // -128 among them
    fill_random(&s->multipliers);
    fill_floats(&s->scales);
    fill_floats(&s->bias);
    s->w = (struct matrix){ .dtype = dtype,
                            .n_out = n_out,
                            .n_in = n_in,
                            .row_bytes = row_bytes,
                            .data = s->weights.data,
                            .scales = dtype == DTYPE_F32 ? NULL : s->scales.data,
                            .multipliers = dtype == DTYPE_I4_BLOCK ? s->multipliers.data : NULL,
                            .bias = random_u32() % 2 ? s->bias.data : NULL };
    s->begin = random_between(0, n_out - 1);
    s->end = random_between(s->begin + 1, n_out);

    s->n_blocks = ((size_t)n_in + ACT_BLOCK - 1) / ACT_BLOCK;
    s->q_stride = s->n_blocks * ACT_BLOCK;
    s->x = fence((size_t)n_tokens * (size_t)n_in * sizeof(float));
    s->q = fence((size_t)n_tokens * s->q_stride);
    s->x_scales = fence((size_t)n_tokens * s->n_blocks * sizeof(float));
    s->x_offsets = fence((size_t)n_tokens * s->n_blocks * sizeof(int32_t));
    fill_floats(&s->x);
    for (int t = 0; t < n_tokens; t++)
        scalar->quantize((int8_t *)s->q.data + (size_t)t * s->q_stride,
                         (float *)s->x_scales.data + (size_t)t * s->n_blocks,
                         (int32_t *)s->x_offsets.data + (size_t)t * s->n_blocks,
                         (const float *)s->x.data + (size_t)t * (size_t)n_in, n_in);

    s->y_stride = (size_t)(n_out + random_between(0, 20));
    s->want = fence(((size_t)(n_tokens - 1) * s->y_stride + (size_t)n_out) * sizeof(float));
    s->got = fence(s->want.n_bytes);
    s->tile = fence(scalar->tile_bytes(n_in));
    s->other_tile = fence(k->tile_bytes(n_in));
}

static void close_sample(struct sample *s)
{
    struct fenced *all[] = { &s->weights, &s->multipliers, &s->scales,   &s->bias,
                             &s->x,       &s->q,           &s->x_scales, &s->x_offsets,
                             &s->want,    &s->got,         &s->tile,     &s->other_tile };
    for (size_t i = 0; i < QP_COUNT(all); i++)
        unfence(all[i]);
}

/* ---- the kernels, each run into `y` ---- */

/* Tokens [t, t + n). */
static struct act_rows tokens_of(const struct sample *s, int t, int n)
{
    return (struct act_rows){ (const int8_t *)s->q.data + (size_t)t * s->q_stride, s->q_stride,
                              (const float *)s->x_scales.data + (size_t)t * s->n_blocks,
                              (const int32_t *)s->x_offsets.data + (size_t)t * s->n_blocks, n };
}

typedef void (*gemv_function)(float *y, const struct matrix *w, const struct act_rows *x, int begin,
                              int end);

static gemv_function gemv_of(const struct kernels *k, int dtype)
{
    return dtype == DTYPE_I8 ? k->gemv_i8 : dtype == DTYPE_I4 ? k->gemv_i4 : k->gemv_i4_block;
}

static void run_gemv(const struct kernels *k, struct sample *s, float *y, void *tile)
{
    (void)tile;
    const struct act_rows x = tokens_of(s, 0, 1);
    if (s->w.dtype == DTYPE_F32)
        k->gemv_f32(y, &s->w, s->x.data, s->begin, s->end);
    else
        gemv_of(k, s->w.dtype)(y, &s->w, &x, s->begin, s->end);
}

static void run_gemm(const struct kernels *k, struct sample *s, float *y, void *tile)
{
    if (s->w.dtype == DTYPE_F32) {
        const struct f32_rows rows = { s->x.data, (size_t)s->w.n_in, s->n_tokens };
        k->gemm_f32(&(struct out_view){ y, s->y_stride }, &s->w, &rows, s->begin, s->end);
        return;
    }
    const struct act_rows x = tokens_of(s, 0, s->n_tokens);
    for (int row = 0; row < s->w.n_out; row += TILE_ROWS) {
        int n_rows = s->w.n_out - row < TILE_ROWS ? s->w.n_out - row : TILE_ROWS;
        k->pack(tile, &s->w, row, n_rows);
        k->gemm(&(struct out_view){ y + row, s->y_stride }, tile, &s->w, &x, row, n_rows);
    }
}

/* What decode would compute for every token. */
static void run_gemv_each(const struct kernels *k, struct sample *s, float *y, int begin, int end)
{
    for (int t = 0; t < s->n_tokens; t++) {
        const struct act_rows x = tokens_of(s, t, 1);
        gemv_of(k, s->w.dtype)(y + (size_t)t * s->y_stride, &s->w, &x, begin, end);
    }
}

/* Token by token where the table has no version. */
static void run_few(const struct kernels *k, struct sample *s, float *y, void *tile)
{
    (void)tile;
    const struct act_rows x = tokens_of(s, 0, s->n_tokens);
    if (k->gemm_few)
        k->gemm_few(&(struct out_view){ y, s->y_stride }, &s->w, &x, s->begin, s->end);
    else
        run_gemv_each(k, s, y, s->begin, s->end);
}

static void run_dequantize_row(const struct kernels *k, struct sample *s, float *y, void *tile)
{
    (void)tile;
    k->dequantize_row(y, &s->w, s->begin, 1.5f);
}

static const struct {
    const char *name;
    int dtype;
    void (*run)(const struct kernels *k, struct sample *s, float *y, void *tile);
    bool has_tokens;
} subjects[] = {
    { "gemv_i8", DTYPE_I8, run_gemv, false },
    { "gemv_i4", DTYPE_I4, run_gemv, false },
    { "gemv_i4_block", DTYPE_I4_BLOCK, run_gemv, false },
    { "gemv_f32", DTYPE_F32, run_gemv, false },
    { "few_i8", DTYPE_I8, run_few, true },
    { "few_i4", DTYPE_I4, run_few, true },
    { "few_i4_block", DTYPE_I4_BLOCK, run_few, true },
    { "gemm_i8", DTYPE_I8, run_gemm, true },
    { "gemm_i4", DTYPE_I4, run_gemm, true },
    { "gemm_i4_block", DTYPE_I4_BLOCK, run_gemm, true },
    { "gemm_f32", DTYPE_F32, run_gemm, true },
    { "dequantize_i8", DTYPE_I8, run_dequantize_row, false },
    { "dequantize_i4", DTYPE_I4, run_dequantize_row, false },
    { "dequantize_i4_block", DTYPE_I4_BLOCK, run_dequantize_row, false },
    { "dequantize_f32", DTYPE_F32, run_dequantize_row, false },
};

static bool is_wanted(const char *only, const char *name)
{
    return !only || !strcmp(only, name);
}

static void fail_case(const char *isa, const char *kernel, uint64_t case_seed, const char *shape)
{
    fail_msg(
        "%s %s differs from scalar at %s; repeat: tests/kernels --isa %s --only %s --seed %llu",
        isa, kernel, shape, isa, kernel, (unsigned long long)case_seed);
}

/* The seed determines everything about a case. */
static void check_case(const char *isa, size_t subject, uint64_t case_seed,
                       const struct kernels *scalar, const struct kernels *k)
{
    seed = case_seed * 0x9e3779b97f4a7c15u;
    const int dtype = subjects[subject].dtype;
    int n_in = widths[case_seed % QP_COUNT(widths)];
    n_in += dtype == DTYPE_I4 || dtype == DTYPE_I4_BLOCK ? n_in % 2 : 0;
    int n_out = random_between(1, 130);
    int n_tokens = subjects[subject].has_tokens ? random_between(1, n_in < 1000 ? 70 : 10) : 1;
    if (subjects[subject].run == run_few)
        n_tokens = random_between(2, FEW_TOKENS);
    if (subjects[subject].run == run_dequantize_row) {
        n_in = n_in < 600 ? n_in : 600;
        n_out = n_out > n_in ? n_out : n_in; // the output is as long as a row
    }

    struct sample s;
    open_sample(&s, dtype, n_in, n_out, n_tokens, scalar, k);
    subjects[subject].run(scalar, &s, s.want.data, s.tile.data);
    subjects[subject].run(k, &s, s.got.data, s.other_tile.data);
    char shape[96];
    snprintf(shape, sizeof(shape), "[%d, %d], rows %d to %d, %d tokens", n_out, n_in, s.begin,
             s.end, n_tokens);
    if (!is_same(&s.want, &s.got))
        fail_case(isa, subjects[subject].name, case_seed, shape);
    if (subjects[subject].run == run_gemm && dtype != DTYPE_F32) {
        run_gemv_each(k, &s, s.want.data, 0, s.w.n_out);
        if (!is_same(&s.want, &s.got))
            fail_case(isa, subjects[subject].name, case_seed, "the same rows of gemv");
    }
    close_sample(&s);
}

static void check_products(const char *isa, const struct kernels *scalar, const struct kernels *k)
{
    for (size_t i = 0; i < QP_COUNT(subjects); i++)
        for (uint64_t n = 0; n < 4 * QP_COUNT(widths); n++)
            if (is_wanted(only_kernel, subjects[i].name))
                check_case(isa, i, first_seed + n, scalar, k);
}

/* ---- quantize ---- */

/* A block of one awkward kind, chosen at random. */
static float awkward(int kind)
{
    static const float specials[] = { NAN, INFINITY, -INFINITY, 0.0f, -0.0f, 3e38f, 1e-45f, 1.0f };
    switch (kind) {
    case 0:
        return 0.0f;
    case 1:
        return random_float() * 1e-44f; // denormal
    case 2:
        return random_float() * 3e38f;
    case 3:
        return specials[random_u32() % QP_COUNT(specials)];
    case 4:
        return (float)random_between(-253, 253) * 0.5f; // halves: ties, once 127 is among them
    case 5:
        return NAN;
    default:
        return random_float();
    }
}

static void check_quantize(const char *isa, const struct kernels *scalar, const struct kernels *k)
{
    for (uint64_t case_seed = first_seed; case_seed < first_seed + 500; case_seed++) {
        seed = case_seed * 0x9e3779b97f4a7c15u;
        int n = random_between(1, 300);
        size_t n_blocks = ((size_t)n + ACT_BLOCK - 1) / ACT_BLOCK;
        struct fenced x = fence((size_t)n * sizeof(float));
        for (int i = 0, kind = 0; i < n; i++) {
            if (i % ACT_BLOCK == 0)
                kind = random_between(0, 8);
            ((float *)x.data)[i] = kind == 4 && i % ACT_BLOCK == 0 ? 127.0f : awkward(kind);
        }
        struct fenced q[2], scales[2], offsets[2];
        for (int i = 0; i < 2; i++) {
            q[i] = fence(n_blocks * ACT_BLOCK);
            scales[i] = fence(n_blocks * sizeof(float));
            offsets[i] = fence(n_blocks * sizeof(int32_t));
            (i ? k : scalar)->quantize(q[i].data, scales[i].data, offsets[i].data, x.data, n);
        }
        if (!is_same(&q[0], &q[1]) || !is_same(&scales[0], &scales[1]) ||
            !is_same(&offsets[0], &offsets[1]))
            fail_case(isa, "quantize", case_seed, "some block");
        for (int i = 0; i < 2; i++) {
            unfence(&q[i]);
            unfence(&scales[i]);
            unfence(&offsets[i]);
        }
        unfence(&x);
    }
}

/* ---- low-rank matrices ---- */

/* The same numbers as `w`, in groups of sixteen rows. */
static struct fenced make_low_rank(struct low_rank *packed, const struct matrix *w)
{
    *packed = (struct low_rank){ .n_out = w->n_out, .n_in = w->n_in };
    struct fenced groups =
        fence((size_t)qp_low_rank_n_groups(packed) * qp_low_rank_group_bytes(packed));
    memset(groups.data, 0, groups.n_bytes);
    packed->groups = groups.data;
    for (int r = 0; r < w->n_out; r++) {
        uint8_t *group = (uint8_t *)qp_low_rank_group(packed, r);
        ((float *)(void *)group)[r % LOW_RANK_ROWS] = w->scales[r];
        for (int k = 0; k < w->n_in; k++)
            group[qp_low_rank_offset(r, k)] = ((const uint8_t *)qp_matrix_row(w, r))[k];
    }
    return groups;
}

/* Compared with gemv_i8 of the same numbers in rows, for some of the rows. */
static void check_low_rank_case(const char *isa, uint64_t case_seed, const struct kernels *scalar,
                                const struct kernels *k)
{
    seed = case_seed * 0x9e3779b97f4a7c15u;
    const int n_in = widths[case_seed % QP_COUNT(widths)];
    const int n_out = random_between(1, 2 * TILE_ROWS);
    const int n_tokens = random_between(1, n_in < 1000 ? 70 : 10);
    struct sample s;
    struct low_rank packed;
    open_sample(&s, DTYPE_I8, n_in, n_out, n_tokens, scalar, k);
    s.w.bias = NULL;
    if (n_out >= TILE_ROWS) { // what prefill computes
        s.begin = n_out - TILE_ROWS >= LOW_RANK_ROWS ? LOW_RANK_ROWS : 0;
        s.end = s.begin + TILE_ROWS;
    }
    struct fenced groups = make_low_rank(&packed, &s.w);
    const size_t stride = s.y_stride, n_rows = (size_t)(s.end - s.begin);
    struct fenced want = fence(((size_t)(n_tokens - 1) * stride + n_rows) * sizeof(float));
    struct fenced got = fence(want.n_bytes);
    fill_floats(&got);
    memcpy(want.data, got.data, got.n_bytes);
    float *products = s.want.data;
    run_gemv_each(scalar, &s, products, s.begin, s.end);
    for (size_t t = 0; t < (size_t)n_tokens; t++)
        for (size_t i = 0; i < n_rows; i++)
            ((float *)want.data)[t * stride + i] += products[t * stride + (size_t)s.begin + i];
    const struct act_rows x = tokens_of(&s, 0, n_tokens);
    k->add_low_rank(&(struct out_view){ got.data, stride }, &packed, &x, s.begin, s.end);
    if (!is_same(&want, &got))
        fail_case(isa, "add_low_rank", case_seed, "some row");
    unfence(&groups);
    unfence(&want);
    unfence(&got);
    close_sample(&s);
}

static void check_low_rank(const char *isa, const struct kernels *scalar, const struct kernels *k)
{
    for (uint64_t n = 0; n < 8 * QP_COUNT(widths); n++)
        check_low_rank_case(isa, first_seed + n, scalar, k);
}

/* ---- tests ---- */

static void check_level(const char *name, const struct kernels *scalar, const struct kernels *k)
{
    if (is_wanted(only_kernel, "quantize"))
        check_quantize(name, scalar, k);
    if (is_wanted(only_kernel, "add_low_rank"))
        check_low_rank(name, scalar, k);
    check_products(name, scalar, k);
    print_message("%s: same bits as scalar\n", name);
}

static void test_levels_match_scalar(void **state)
{
    (void)state;
    struct kernels scalar = qp_kernels_for(0);
    int n_levels = 0;
    if (is_wanted(only_kernel, "add_low_rank"))
        check_low_rank("scalar", &scalar, &scalar);
    const struct cpu_level *level;
    for (int i = 1; (level = qp_cpu_level(i)); i++) {
        struct kernels k = qp_kernels_for(level->features & qp_cpu_features());
        if (strcmp(k.name, level->name) && strcmp(level->name, "amx") == 0)
            print_message("no AMX here\n");
        if (strcmp(k.name, level->name) || !is_wanted(only_isa, level->name))
            continue; // not on this machine
        n_levels++;
        check_level(level->name, &scalar, &k);
    }
    if ((qp_cpu_features() & CPU_AVX512VNNI) && is_wanted(only_isa, "emulated")) {
        n_levels++;
        struct kernels k = qp_kernels_for(qp_cpu_features() & ~(unsigned)CPU_AMX);
        zen4_gemm(&k);
        check_level("zen4's gemm", &scalar, &k);
        intel_kernels(&k);
        check_level("intel, emulated", &scalar, &k);
        emulated_amx_kernels(&k);
        check_level("amx, emulated", &scalar, &k);
    }
    if (n_levels == 0) {
        print_message("skipped: this machine has scalar only\n");
        skip();
    }
}

/* The specification itself, against sums in double. */
static void test_scalar_is_the_product(void **state)
{
    (void)state;
    struct kernels k = qp_kernels_for(0);
    static const int dtypes[] = { DTYPE_I8, DTYPE_I4, DTYPE_I4_BLOCK, DTYPE_F32 };
    seed = first_seed;
    for (size_t d = 0; d < QP_COUNT(dtypes); d++) {
        struct sample s;
        open_sample(&s, dtypes[d], 190, 33, 1, &k, &k);
        s.begin = 0;
        s.end = s.w.n_out;
        run_gemv(&k, &s, s.want.data, NULL);
        float row[190];
        for (int r = 0; r < s.w.n_out; r++) {
            double sum = 0;
            k.dequantize_row(row, &s.w, r, 1.0f);
            for (int i = 0; i < 190; i++) {
                float x = ((float *)s.x.data)[i];
                float rounded = ((int8_t *)s.q.data)[i] * ((float *)s.x_scales.data)[i / ACT_BLOCK];
                assert_true(fabsf(x - rounded) <= 0.501f / 127.0f);
                sum += (double)row[i] * (double)(dtypes[d] == DTYPE_F32 ? x : rounded);
            }
            double y = ((float *)s.want.data)[r] - (s.w.bias ? (double)s.w.bias[r] : 0.0);
            assert_true(fabs(y - sum) <= 1e-3);
        }
        close_sample(&s);
    }
}

/* Block-wise int4 is int8 in fewer bytes: the same bits. */
static void test_blocks_are_int8(void **state)
{
    (void)state;
    struct kernels k = qp_kernels_for(0);
    struct sample s;
    seed = first_seed;
    open_sample(&s, DTYPE_I4_BLOCK, 190, 33, 1, &k, &k);
    struct fenced bytes = fence((size_t)s.w.n_in * (size_t)s.w.n_out);
    int8_t *to = bytes.data;
    for (int r = 0; r < s.w.n_out; r++)
        for (int i = 0; i < s.w.n_in; i++) {
            const int code = ((const uint8_t *)qp_matrix_row(&s.w, r))[i / 2] >> (i % 2 * 4) & 15;
            const int multiplier = qp_block_multiplier(qp_matrix_multipliers(&s.w, r), i);
            const int signed_multiplier = multiplier < 8 ? multiplier : multiplier - 16;
            *to = qp_i4_block_values[multiplier][code];
            assert_int_equal(*to++, qp_i4_block_values[1][code] * signed_multiplier);
        }
    struct matrix wide = s.w;
    wide.dtype = DTYPE_I8;
    wide.data = bytes.data;
    wide.row_bytes = (size_t)wide.n_in;
    const struct act_rows x = tokens_of(&s, 0, 1);
    k.gemv_i4_block(s.want.data, &s.w, &x, 0, s.w.n_out);
    k.gemv_i8(s.got.data, &wide, &x, 0, s.w.n_out);
    assert_true(is_same(&s.want, &s.got));
    unfence(&bytes);
    close_sample(&s);
}

int main(int argc, char **argv)
{
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--isa"))
            only_isa = argv[i + 1];
        else if (!strcmp(argv[i], "--only"))
            only_kernel = argv[i + 1];
        else if (!strcmp(argv[i], "--seed"))
            first_seed = strtoull(argv[i + 1], NULL, 10);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scalar_is_the_product),
        cmocka_unit_test(test_blocks_are_int8),
        cmocka_unit_test(test_levels_match_scalar),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
