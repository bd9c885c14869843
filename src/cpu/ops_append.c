/* ops_append.c: tables of positions; rotation, and what goes into the cache, on threads. Keys and
 * values: kv_cache.c. */
#include "base/math.h"
#include "cpu/cpu_impl.h"

#include <assert.h>
#include <string.h>

/* ---- tables of positions ---- */

/* The frequency of pair i, each step rounded to float as the reference does. */
float qp_rope_frequency(const struct rope *rope, const float *divisors, int i)
{
    const float exponent = (float)(2 * i) / (float)rope->dim;
    const float frequency = 1.0f / (float)qp_pow(rope->theta, exponent) / rope->scale;
    return divisors ? frequency / divisors[i] : frequency;
}

/* Rows [begin, end) of a table. */
struct rope_task {
    struct rope_table *table;
    const struct rope *rope;
    const float *divisors;
    int begin, end;
};

/* The angle is the position times the frequency. */
static void fill_rope_part(void *arg, int index, int n_threads)
{
    const struct rope_task *j = arg;
    const struct rope_table *t = j->table;
    int first, last;
    qp_share(j->end - j->begin, 1, index, n_threads, &first, &last);
    for (int i = 0; i < t->half; i++) {
        const float frequency = qp_rope_frequency(j->rope, j->divisors, i);
        for (int pos = j->begin + first; pos < j->begin + last; pos++) {
            const size_t at = (size_t)pos * (size_t)t->half + (size_t)i;
            double sine, cosine;
            qp_sin_cos((float)pos * frequency, &sine, &cosine);
            t->cos[at] = (float)cosine * j->rope->amplitude;
            t->sin[at] = (float)sine * j->rope->amplitude;
        }
    }
}

/* Rows are filled when their positions are first used. */
static void fill_rope(struct cpu_device *d, struct rope_table *t, const struct rope *rope,
                      const float *divisors, int n)
{
    enum {
        FEW_ROWS = 16
    };
    assert(n <= t->n_positions);
    if (n <= t->n_filled)
        return;
    struct rope_task job = { t, rope, divisors, t->n_filled, n };
    cpu_parallel(d, n - t->n_filled < FEW_ROWS, fill_rope_part, &job);
    t->n_filled = n;
}

/* The table that layer l needs for a sequence; NULL if its heads do not rotate. */
static struct rope_table *rope_table_of(struct cpu_device *d, int l, const struct sequence *s)
{
    const struct config *c = d->base.config;
    const int rope = c->layers[l].rope;
    return rope == ROPE_NONE ? NULL : &d->positions.ropes[rope][qp_rope_set(c, s->n_context)];
}

/* To bfloat16 and back, to nearest even: the reference keeps its biases in that format, and models
 * were trained with them. */
static float bfloat16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* The slope of head h: Press et al. 2022 (ALiBi), appendix: powers of 2^(-8/n) for n heads, n a
 * power of two; further heads take every other slope of twice as many. */
static float alibi_slope(int h, int n_heads)
{
    int n = 1;
    while (2 * n <= n_heads)
        n *= 2;
    return (float)(h < n ? qp_pow(2, -8.0 * (h + 1) / n) : qp_pow(2, -4.0 * (2 * (h - n) + 1) / n));
}

static size_t alibi_stride(const struct cpu_device *d)
{
    return qp_round_up((size_t)d->positions.n_context, KV_BLOCK);
}

/* bias = slope * position, scaled like the scores that it is added to. */
static void fill_alibi(struct cpu_device *d, int n)
{
    const struct config *c = d->base.config;
    for (int h = 0; h < c->n_heads; h++) {
        const float slope = bfloat16(alibi_slope(h, c->n_heads));
        for (int pos = d->positions.n_filled; pos < n; pos++)
            d->positions.alibi[(size_t)h * alibi_stride(d) + (size_t)pos] =
                bfloat16(slope * (float)pos) * c->query_scale;
    }
}

const float *qp_alibi_of(const struct cpu_device *d, int h)
{
    return d->positions.alibi ? d->positions.alibi + (size_t)h * alibi_stride(d) : NULL;
}

/* Fill what layer l needs for the first n positions of a sequence. */
static void fill_positions(struct cpu_device *d, int l, const struct sequence *s, int n)
{
    const struct config *c = d->base.config;
    struct rope_table *table = rope_table_of(d, l, s);
    assert(n <= d->positions.n_context);
    if (table)
        fill_rope(d, table, &c->ropes[c->layers[l].rope],
                  c->ropes[c->layers[l].rope].divisors[qp_rope_set(c, s->n_context)], n);
    if (d->positions.alibi && n > d->positions.n_filled) {
        fill_alibi(d, n);
        d->positions.n_filled = n;
    }
}

/* ---- rotate and append ---- */

struct append_task {
    struct cpu_device *d;
    int l;
    const struct rows *rows;
};

/* y = norm(y) of n values, with the formula of the model's norms and without a bias. */
static void norm_part(const struct cpu_device *d, float *y, const float *weights, int n)
{
    const struct config *c = d->base.config;
    if (c->norm == NORM_LAYER)
        d->k.layer_norm(y, y, weights, NULL, c->norm_eps, n);
    else
        d->k.rms_norm(y, y, weights, c->norm == NORM_RMS_PLUS_1 ? 1.0f : 0.0f, c->norm_eps, n);
}

/* The heads of a query or key: norm and rope. */
static void prepare_heads(const struct append_task *j, float *x, int n_heads, const float *norm,
                          const struct row *row)
{
    struct cpu_device *d = j->d;
    const struct config *c = d->base.config;
    const struct rope_table *rope = rope_table_of(d, j->l, row->sequence);
    const int head_dim = c->layers[j->l].head_dim;
    if (norm && c->qk_norm == QK_NORM_WIDTH)
        norm_part(d, x, norm, n_heads * head_dim);
    for (int h = 0; h < n_heads; h++, x += head_dim) {
        if (norm && c->qk_norm != QK_NORM_WIDTH)
            norm_part(d, x, c->qk_norm == QK_NORM_HEADS ? norm + h * head_dim : norm, head_dim);
        if (rope) {
            const size_t at = (size_t)row->pos * (size_t)rope->half;
            d->k.rotate(x, rope->cos + at, rope->sin + at, rope->half);
        }
    }
}

/* x = H x, and for a query H x / n: a head's dimensions in pieces of powers of two. Rounding a key
 * to integers with one scale costs least when no dimension stands out, and H mixes them; H H = n,
 * so that the product of a mixed query and a mixed key is as before (QuaRot: Ashkboos et al. 2024).
 */
static void mix_head(const struct kernels *k, float *x, int n, bool is_query)
{
    for (int piece = 1024; n > 0; piece /= 2)
        if (piece <= n) {
            k->hadamard(x, is_query ? 1.0f / (float)piece : 1.0f, piece);
            x += piece;
            n -= piece;
        }
}

/* The queries of row t as int8: a row for each head, those of a kv head side by side, quantized
 * together if each is whole blocks. */
static void quantize_queries(const struct append_task *j, float *q, int t)
{
    const struct kernels *k = &j->d->k;
    const struct query_rows *rows = &j->d->mem.queries;
    const int head_dim = layer_of(j->d, j->l)->head_dim, n_heads = j->d->base.config->n_heads;
    const size_t n_blocks = rows->stride / ACT_BLOCK;
    const int n_together = head_dim % ACT_BLOCK ? 1 : (int)rows->group;
    for (int h = 0; h < n_heads; h += n_together, q += n_together * head_dim) {
        const size_t kv_head = (size_t)h / rows->group;
        const size_t row =
            (kv_head * rows->max_rows + (size_t)t) * rows->group + (size_t)h % rows->group;
        for (int i = 0; i < n_together; i++)
            mix_head(k, q + i * head_dim, head_dim, true);
        k->quantize(rows->q + row * rows->stride, rows->scales + row * n_blocks,
                    rows->offsets + row * n_blocks, q, n_together * head_dim);
    }
}

/* The values of a row: `from`, each head normed if the model has that. */
static void prepare_values(const struct cpu_device *d, const struct layer_config *lc, float *value,
                           const float *from)
{
    const struct config *c = d->base.config;
    const int head_dim = lc->head_dim, n = lc->n_kv_heads * head_dim;
    for (int i = 0; i < n && c->v_norm; i += head_dim)
        d->k.rms_norm(value + i, from + i, NULL, 0, c->norm_eps, head_dim);
    if (!c->v_norm && from != value)
        memcpy(value, from, (size_t)n * sizeof *value);
}

/* Rotate the keys of row t. A layer without a matrix for values uses its keys, as they are before
 * their norm and rotation. */
static void prepare_keys(const struct append_task *j, int t)
{
    const struct cpu_device *d = j->d;
    const struct layer_config *lc = layer_of(d, j->l);
    const struct layer_weights *w = &d->base.weights->layers[j->l];
    const size_t at = (size_t)t * (size_t)(lc->n_kv_heads * lc->head_dim);
    float *key = d->mem.k + at, *value = d->mem.v + at;
    prepare_values(d, lc, value, w->m[MATRIX_V].data ? value : key);
    prepare_heads(j, key, lc->n_kv_heads, w->k_norm.scale, &j->rows->row[t]);
}

/* The same, and store them with the values. Int8 keys are stored without the mean of their bias. */
static void append_keys(const struct append_task *j, int t)
{
    struct cpu_device *d = j->d;
    const struct layer_config *lc = layer_of(d, j->l);
    const struct row *row = &j->rows->row[t];
    struct kv_layer *layer = kv_of(row->sequence, j->l);
    const size_t at = (size_t)t * (size_t)(lc->n_kv_heads * lc->head_dim);
    float *key = d->mem.k + at, *value = d->mem.v + at;
    prepare_keys(j, t);
    const float *mean = qp_key_mean(d, j->l);
    if (mean)
        d->k.axpby(key, key, 1, mean, -1, lc->n_kv_heads * lc->head_dim);
    for (int h = 0; h < lc->n_kv_heads; h++, key += lc->head_dim, value += lc->head_dim) {
        if (d->kv.is_int8)
            mix_head(&d->k, key, lc->head_dim, false);
        qp_kv_store(d, layer, h, key, value, row->pos);
    }
}

static void append_row(const struct append_task *j, int t)
{
    struct cpu_device *d = j->d;
    const struct config *c = d->base.config;
    const struct layer_config *lc = layer_of(d, j->l);
    float *q = d->mem.q + (size_t)t * (size_t)(c->n_heads * lc->head_dim);
    prepare_heads(j, q, c->n_heads, d->base.weights->layers[j->l].q_norm.scale, &j->rows->row[t]);
    if (!kv_of(j->rows->row[t].sequence, j->l)->k) { // a text with float keys
        prepare_keys(j, t);
        return;
    }
    if (d->kv.is_int8)
        quantize_queries(j, q, t);
    if (lc->kv_layer == j->l)
        append_keys(j, t);
}

static void append_task(void *arg, int index, int n_threads)
{
    const struct append_task *j = arg;
    int begin, end;
    qp_share(j->rows->n, 1, index, n_threads, &begin, &end);
    for (int t = begin; t < end; t++)
        append_row(j, t);
}

quip_status qp_cpu_rope_append(struct device *device, int l, const struct rows *rows)
{
    struct append_task job = { .d = cpu_of(device), .l = l, .rows = rows };
    const struct layer_config *lc = &device->config->layers[l];
    struct query_rows *queries = &job.d->mem.queries;
    assert(rows->n > 0 && rows->n <= device->capacity.n_rows);
    queries->n_kv_heads = lc->n_kv_heads;
    queries->group = (size_t)heads_per_kv(job.d, l);
    queries->stride = qp_round_up((size_t)lc->head_dim, ACT_BLOCK);
    for (int t = rows->n - 1; t >= 0; t--) { // the last row fills what the others need, too
        const int end = rows->row[t].pos + 1;
        struct cpu_sequence *s = cpu_sequence_of(rows->row[t].sequence);
        assert(rows->row[t].pos >= 0 && (end <= s->base.n_context || s->base.n_context == 0));
        fill_positions(job.d, l, &s->base, end);
        s->n_written = s->n_written > end ? s->n_written : end;
    }
    if (rows->row[0].sequence->n_context == 0)
        qp_cpu_place_texts(job.d, l, rows);
    cpu_parallel(job.d, rows->n == 1, append_task, &job);
    return QUIP_OK;
}
