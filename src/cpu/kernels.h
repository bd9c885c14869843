/* kernels.h: the inner loops of the CPU backend. They run on one thread and know nothing of models.
 *
 * The scalar kernels in scalar/ are the specification, and their comments the full contracts. Each
 * ISA file replaces the kernels that it improves, with the same bits (docs/design.md, law 5). The
 * rules that make this possible:
 * - Integer sums are exact, so their order does not matter.
 * - Float sums have one order, given with each kernel. "16 lanes" means: lane[i % 16] += term(i)
 * for ascending i, then lane[j] += lane[j + s] for s = 8, 4, 2, 1. The sum is lane[0].
 * - A multiply and an add round twice: no fused multiply-add, -ffp-contract=off.
 * - exp and the functions made of it are our own polynomials, with the same operations everywhere.
 * - Rounding to integers is to nearest, ties to even. */
#ifndef QP_KERNELS_H
#define QP_KERNELS_H

#include "base/base.h"
#include "model/matrix.h"

#include <assert.h>

/* ---- numbers ---- */

/* Activations are quantized in blocks: x[i] is about q[i] * scales[i / ACT_BLOCK]. With blocks of
 * 64 int8 models stay within 1 % of the perplexity of floats, and matrix kernels have one float
 * multiply-add per 16 integer steps (docs/notes/quantization.md). */
#define ACT_BLOCK 64

/* Quantized activations of n tokens: n_in elements each, in blocks of ACT_BLOCK. */
struct act_rows {
    const int8_t *q;        // [n, q_stride]; n_in elements, then zeros to a whole block; |q| <= 127
    size_t q_stride;        // from one token to the next
    const float *scales;    // [n, blocks]
    const int32_t *offsets; // [n, blocks]: -128 * the sum of the block's q
    int n;
};

/* Float activations of n tokens: token t is x + t * stride. */
struct f32_rows {
    const float *x;
    size_t stride;
    int n;
};

/* Where a product is stored: the results for token t begin at y + t * stride. */
struct out_view {
    float *y;
    size_t stride;
};

/* Rows of weights that are packed together for prefill. Threads divide the work by tiles. A
 * multiple of ACT_BLOCK, so that the output of a tile is whole blocks of the next product's input.
 */
#define TILE_ROWS 64

/* The most tokens that go against a packed tile before the next task: their activations and the
 * tile stay in the second-level cache together. */
#define TASK_ROWS 144

/* The largest number of tokens for gemm_few: draft tokens, or the last tokens of a prompt. */
#define FEW_TOKENS 8

/* For asserts: are these activations of n_in elements? Are these rows of w? Is this a tile for
 * n_rows rows of w from `row` on? */
static inline bool qp_is_act_rows(const struct act_rows *x, int n_in)
{
    return x->q && x->scales && x->offsets && x->n > 0 &&
           (x->n == 1 || x->q_stride >= qp_round_up((size_t)n_in, ACT_BLOCK));
}

static inline bool qp_has_rows(const struct matrix *w, int begin, int end)
{
    return w->data && w->n_in > 0 && begin >= 0 && begin < end && end <= w->n_out;
}

static inline bool qp_is_tile(const void *tile, const struct matrix *w, int row, int n_rows)
{
    return tile && (uintptr_t)tile % 64 == 0 && w->n_in > 0 && row >= 0 && n_rows > 0 &&
           n_rows <= TILE_ROWS && row + n_rows <= w->n_out;
}

/* Keys of one attention block: absolute positions [64 b, 64 b + 64). */
#define KV_BLOCK 64

/* Positions whose softmax is computed together: [KV_SPAN s, KV_SPAN (s + 1)), whichever of them are
 * visible to the rows of a task. So the sums do not depend on how the work is divided. */
#define KV_SPAN 512

/* One attention task over floats. Rows are queries that share one kv head. */
struct attention {
    int head_dim;
    float scale, cap; // score = scale * q.k; then cap * tanh(score / cap) if cap > 0
    /* Keys and values of one kv head. Block b is in slot b % n_blocks; positions visible to one
     * call share no slot. Keys are [slot, head_dim, KV_BLOCK]: the positions of a block are side by
     * side for each dimension. Values are [slot, KV_BLOCK, head_dim]. */
    const float *k, *v;
    int n_blocks;
    /* One entry for each row. */
    int n_rows;
    const float *const *q;  // [head_dim] each
    float *const *out;      // [head_dim] each
    const int *begin, *end; // visible positions [begin, end), end > begin
    /* ALiBi: score += bias[row][position]; readable to the end of the last block. May be NULL. */
    const float *const *bias;
    /* [qp_attention_scratch(head_dim, n_rows)] floats, aligned to 64 bytes. */
    float *scratch;
};
#define ATTENTION_MAX_ROWS 32
size_t qp_attention_scratch(int head_dim, int n_rows);

/* One row of scores that becomes weights for the values (attention_int8.c). */
struct softmax {
    float *s;          // [n]
    int n;             // a multiple of KV_BLOCK
    int begin, end;    // s[begin, end) is visible, perhaps nothing; the rest may hold any number
    float cap;         // as above
    const float *bias; // [n] or NULL
    const float *value_scales; // [n]
    float max, sum;            // results
};

/* Rows of scores of positions [pos, pos + n) that become quantized weights for the values. */
struct softmax_rows {
    float *s;      // [n_rows, stride]
    size_t stride; // >= n
    int n_rows;
    int pos, n;             // n <= KV_SPAN, a multiple of KV_BLOCK
    const int *begin, *end; // [n_rows]; positions [begin, end) are visible, the rest of s may hold
                            // any number; perhaps none of them are here
    const float *value_scales; // [n]; finite and not negative where they are visible
    float *max, *sum;          // [n_rows] results, as above
    /* Results, like struct act_rows. */
    int8_t *q; // [n_rows, q_stride]
    size_t q_stride;
    float *scales;    // [n_rows, n / KV_BLOCK]
    int32_t *offsets; // [n_rows, n / KV_BLOCK]
};

/* One position of n channels of a short convolution. Columns are [n]. */
struct conv_row {
    int width;                // columns that are summed, the present one included
    int n;                    // channels
    const float *w;           // [width, w_stride], the weights of the oldest column first
    size_t w_stride;          // from one column's weights to the next, >= n
    const float *bias;        // [n] or NULL
    const float *const *past; // [width - 1] columns before this one, oldest first
    const float *b, *c;       // [n]
    float *z;                 // [n] multiplied by b, then the present column
    float *y;                 // [n] result
};

/* The order of elements in a tile of int8: groups of rows, in these steps of k, in these pieces of
 * rows, in these pieces of k. With n_k = n_in rounded up to ACT_BLOCK, element (row, k) has the
 * index (row / group) * group * n_k + (k / step) * group * step
 *   + (row % group / rows) * rows * step + (k % step / ks) * rows * ks + (row % rows) * ks + k % ks
 * and holds w ^ flip in one byte, or w in two. */
struct tile_order {
    int group, step, rows, ks;
    int n_bytes;
    uint8_t flip;
};

/* Bytes of a tile of n_in columns in this order. */
static inline size_t qp_tile_bytes(const struct tile_order *o, int n_in)
{
    return TILE_ROWS * qp_round_up((size_t)n_in, ACT_BLOCK) * (size_t)o->n_bytes;
}

/* Packed tiles of consecutive rows. */
struct tiles {
    const uint8_t *first;
    size_t stride; // bytes from one to the next
};

/* The tile that begins with `row`. */
static inline const uint8_t *qp_tile_at(const struct tiles *tiles, int row)
{
    assert(row % TILE_ROWS == 0);
    return tiles->first + (size_t)(row / TILE_ROWS) * tiles->stride;
}

struct low_rank; // low_rank.h

struct kernels {
    const char *name;

    /* ---- linear: linear_*.c, gemv_*.c ---- */

    /* Quantize x [n] in blocks. Writes q in whole blocks. Infinities and NaNs give some q in
     * [-127, 127], the same one on every ISA. */
    void (*quantize)(int8_t *q, float *scales, int32_t *offsets, const float *x, int n);
    /* Quantize x [n] with one finite scale. */
    void (*quantize_row)(int8_t *q, float *scale, const float *x, int n);

    /* y[r] = sum_r * w->scales[r] (+ w->bias[r]), for rows [begin, end) and one token. sum_r is the
     * sum over blocks b, ascending from 0.0f, of x->scales[b] * (float)dot_b; dot_b is the sum of
     * w[r, i] * x->q[i] over block b. Any n_in >= 1, even for int4. Reads no byte past the last
     * row. */
    void (*gemv_i8)(float *y, const struct matrix *w, const struct act_rows *x, int begin, int end);
    void (*gemv_i4)(float *y, const struct matrix *w, const struct act_rows *x, int begin, int end);
    /* The bits of gemv_i8 for the int8 values of the codes (matrix.h). */
    void (*gemv_i4_block)(float *y, const struct matrix *w, const struct act_rows *x, int begin,
                          int end);
    /* y[r] = sum over 16 lanes of w[r, i] * x[i] (+ w->bias[r]). */
    void (*gemv_f32)(float *y, const struct matrix *w, const float *x, int begin, int end);

    /* Up to this many tokens use gemv or gemm_few, more use packed tiles: whichever is faster. */
    int few_tokens;
    /* The same numbers as gemv for 2 to FEW_TOKENS tokens, reading each byte of weights once:
     * out->y[t * out->stride + r] for rows [begin, end). NULL if nothing is faster than a gemv for
     * each token. */
    void (*gemm_few)(const struct out_view *out, const struct matrix *w, const struct act_rows *x,
                     int begin, int end);

    int task_tokens; // of a task, at most TASK_ROWS: a multiple of what gemm takes at a time
    /* Pack rows [row, row + n_rows) of a matrix that is not F32, n_rows <= TILE_ROWS, into `tile`,
     * tile_bytes(n_in) bytes aligned to 64, in the layout that this ISA's gemm reads. */
    size_t (*tile_bytes)(int n_in);
    struct tile_order tile_order; // of int8
    void (*pack)(void *tile, const struct matrix *w, int row, int n_rows);
    /* The same numbers as gemv for the packed rows: out->y[t * out->stride + r], r in [0, n_rows).
     * w->scales and w->bias are read from `row` on. If w->scales is NULL, the sums are not scaled
     * and start from the values in y instead of 0: y = y + sum. */
    void (*gemm)(const struct out_view *out, const void *tile, const struct matrix *w,
                 const struct act_rows *x, int row, int n_rows);
    /* The same numbers as gemm for all rows of w, which is without bias, tile after tile: many
     * tiles and few tokens, as in attention. NULL if nothing is faster than a gemm for each. */
    void (*gemm_tiles)(const struct out_view *out, const struct tiles *tiles,
                       const struct matrix *w, const struct act_rows *x);
    /* The same numbers as gemv_f32: out->y[t * out->stride + r - begin], for rows [begin, end). */
    void (*gemm_f32)(const struct out_view *out, const struct matrix *w, const struct f32_rows *x,
                     int begin, int end);

    /* Row r of the matrix times `factor`, as floats [n_in]: ((float)q * scales[r]) * factor. */
    void (*dequantize_row)(float *y, const struct matrix *w, int r, float factor);

    /* ---- low-rank matrices: low_rank_*.c ---- */

    /* out->y[t * out->stride + r - begin] += the number that gemv_i8 computes for row r, without
     * bias, for rows [begin, end). */
    void (*add_low_rank)(const struct out_view *out, const struct low_rank *w,
                         const struct act_rows *x, int begin, int end);

    /* ---- vectors of n >= 1 floats: scalar/vector_scalar.c, vector_lanes.h ---- */

    /* y[i] = (x[i] * r) * (w[i] + plus), r = 1 / sqrtf(sum / n + eps), the sum of x[i]^2 in 16
     * lanes. If w is NULL, y[i] = x[i] * r. y may be x. */
    void (*rms_norm)(float *y, const float *x, const float *w, float plus, float eps, int n);
    /* y[i] = ((x[i] - mean) * r) * w[i] (+ bias[i]), r = 1 / sqrtf(variance + eps), both sums in 16
     * lanes. bias may be NULL; y may be x. */
    void (*layer_norm)(float *y, const float *x, const float *w, const float *bias, float eps,
                       int n);
    /* y[i] = act(g[i]) * u[i], or act(g[i]) if u is NULL. y may be g. `act` is enum activation
     * (model/matrix.h). */
    void (*activate)(float *y, const float *g, const float *u, int act, int n);
    /* x[i] += y[i] */
    void (*add)(float *x, const float *y, int n);
    /* y[i] = a[i] * ca + b[i] * cb, or a[i] * ca + 0.0f if b is NULL. y may be a or b. */
    void (*axpby)(float *y, const float *a, float ca, const float *b, float cb, int n);
    /* Rotate x [2 * half], half >= 0: the pair (a, b) = (x[i], x[i + half]) becomes
     * (a * cos[i] - b * sin[i], b * cos[i] + a * sin[i]). */
    void (*rotate)(float *x, const float *cos, const float *sin, int half);
    /* x = H x * factor; H is the Hadamard matrix of n, a power of two. For stride = 1, 2 .. n / 2
     * each pair (a, b) = (x[i], x[i + stride]), with i & stride == 0, becomes (a + b, a - b). */
    void (*hadamard)(float *x, float factor, int n);
    /* x[i] = cap * tanh(x[i] / cap), cap > 0 */
    void (*soft_cap)(float *x, float cap, int n);
    /* Sum over 16 lanes of exp((x[i] - max) * factor), where a NaN counts 0. n is a multiple of 16.
     */
    float (*sum_exp)(const float *x, float max, float factor, int n);

    /* z[i] = b[i] * z[i]; then y[i] = c[i] * s[i]: s[i] is the sum over ascending j, from 0.0f, of
     * w[j, i] * past[j][i], where past[width - 1] is z; plus bias[i], if there is one. y may be b
     * or c. */
    void (*conv)(const struct conv_row *row);

    /* ---- attention: scalar/attention_scalar.c, attention_lanes.h ---- */

    /* With s'[j] = s[j], capped, + bias[j]: max = the largest visible s'[j], or -inf if none is;
     * p[j] = exp_fast(s'[j] - max), or 0 if j is not visible; sum = sum over 16 lanes of p[j];
     * s[j] = p[j] * value_scales[j], or 0 if j is not visible. */
    void (*softmax)(struct softmax *row);
    /* The same numbers as softmax without cap and bias, then quantize of s, for each row; s is
     * overwritten. NULL if nothing is faster than these two. */
    void (*softmax_rows)(const struct softmax_rows *rows);

    /* Attention over floats. For each row: m = -inf, l = 0, o[d] = 0; then for each block with
     * visible positions, ascending, where p[j] = 0 if j is not visible:
     *   s[j] = scale * (sum over ascending d, from 0.0f, of q[d] * k[j, d]), capped, + bias[j]
     *   m' = max(m, visible s[j]);  c = exp(m - m');  p[j] = exp(s[j] - m');  m = m'
     *   l = l * c + sum over 16 lanes of p[j]
     *   o[d] = o[d] * c, then o[d] += p[j] * v[j, d] for ascending j
     * and finally out[d] = o[d] * (1 / l) + 0.0f. Visible keys and values are finite; the others
     * may hold any bits. */
    void (*attend)(const struct attention *a);
};

/* The table for a set of CPU features (base.h). */
struct kernels qp_kernels_for(unsigned cpu);

/* Does this engine compute relaxed dot products as WebAssembly says? True where there are none. */
bool qp_relaxed_dot_is_right(void);

/* hadamard for any n; the fast kernels call it for n < 16. */
void qp_hadamard_scalar(float *x, float factor, int n);

#endif
