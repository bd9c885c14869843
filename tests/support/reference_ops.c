/* reference_ops.c: the operations of the reference backend, as engine/backend.h describes them.
 * In:  buffers, dequantized weights, keys and values.
 * Out: buffers; keys and values of the rows.
 *
 * Each operation is a function that computes and one that records it. */
#include "support/reference_impl.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- arithmetic ---- */

/* y += factor * w x */
static void add_product(float *y, const float *w, const float *x, int n_out, int n_in, float factor)
{
    for (int r = 0; r < n_out; r++) {
        float sum = 0;
        for (int i = 0; i < n_in; i++)
            sum += w[(size_t)r * (size_t)n_in + (size_t)i] * x[i];
        y[r] += factor * sum;
    }
}

static void rms_norm(const struct config *c, float *x, const float *scale, int n)
{
    const float plus = c->norm == NORM_RMS_PLUS_1 ? 1.0f : 0.0f;
    float sum = 0;
    for (int i = 0; i < n; i++)
        sum += x[i] * x[i];
    const float factor = 1.0f / sqrtf(sum / (float)n + c->norm_eps);
    for (int i = 0; i < n; i++)
        x[i] *= scale ? factor * (scale[i] + plus) : factor;
}

static void layer_norm(const struct config *c, float *x, const struct norm_weights *w, int n)
{
    float mean = 0, variance = 0;
    for (int i = 0; i < n; i++)
        mean += x[i] / (float)n;
    for (int i = 0; i < n; i++)
        variance += (x[i] - mean) * (x[i] - mean) / (float)n;
    for (int i = 0; i < n; i++)
        x[i] = (x[i] - mean) / sqrtf(variance + c->norm_eps) * w->scale[i] +
               (w->bias ? w->bias[i] : 0.0f);
}

/* x = norm(x) of n values; no weights, no norm */
static void norm_in_place(const struct config *c, float *x, const struct norm_weights *w, int n)
{
    if (!w->scale)
        return;
    if (c->norm == NORM_LAYER)
        layer_norm(c, x, w, n);
    else
        rms_norm(c, x, w->scale, n);
}

void reference_norm_row(const struct config *c, float *x, const struct norm_weights *w)
{
    norm_in_place(c, x, w, c->d_model);
}

static float activate(enum activation act, float x)
{
    switch (act) {
    case ACT_GELU_TANH:
        return 0.5f * x * (1 + tanhf(0.797884561f * (x + 0.044715f * x * x * x)));
    case ACT_GELU_ERF:
        return 0.5f * x * (1 + erff(x * 0.707106781f));
    case ACT_SILU:
        return x / (1 + expf(-x));
    case ACT_RELU:
        return x > 0 ? x : 0;
    }
    return x;
}

float reference_activate(const struct config *c, float x)
{
    return activate(c->act, x);
}

static float soft_cap(float x, float cap)
{
    return cap > 0 ? cap * tanhf(x / cap) : x;
}

/* Rotate pairs (i, i + dim / 2) of one head by its position: RoFormer, Su et al. 2021. */
static void rotate(const struct rope *rope, const float *divisors, float *x, int pos)
{
    const int half = rope->dim / 2;
    for (int i = 0; i < half; i++) {
        const float exponent = (float)(2 * i) / (float)rope->dim;
        const float frequency =
            1.0f / powf(rope->theta, exponent) / rope->scale / (divisors ? divisors[i] : 1.0f);
        const float angle = (float)pos * frequency, a = x[i], b = x[i + half];
        x[i] = rope->amplitude * (a * cosf(angle) - b * sinf(angle));
        x[i + half] = rope->amplitude * (b * cosf(angle) + a * sinf(angle));
    }
}

/* Rounded to bfloat16, as models with ALiBi were trained. */
static float bfloat16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* What head h adds to the score of a key at `pos`: Press et al. 2022. */
static float alibi(const struct config *c, int h, int pos)
{
    int n = 1;
    while (2 * n <= c->n_heads)
        n *= 2;
    const double exponent = h < n ? -8.0 * (h + 1) / n : -4.0 * (2 * (h - n) + 1) / n;
    return bfloat16(bfloat16((float)pow(2, exponent)) * (float)pos) * c->query_scale;
}

/* ---- embed, norm, add ---- */

static void run_embed(struct reference_device *d, const struct command *c)
{
    const struct config *config = d->base.config;
    for (int t = 0; t < c->n; t++) {
        const struct row *row = &c->rows[t];
        const size_t at = (size_t)row->token * (size_t)config->d_model;
        const float *from = row->embedding ? row->embedding : d->embed.w + at;
        for (int i = 0; i < config->d_model; i++)
            row_of(d, BUF_X, t)[i] = from[i] * config->embed_scale;
        if (d->base.weights->positions)
            for (int i = 0; i < config->d_model; i++)
                row_of(d, BUF_X, t)[i] +=
                    d->base.weights
                        ->positions[(size_t)row->pos * (size_t)config->d_model + (size_t)i];
        norm_in_place(config, row_of(d, BUF_X, t), &d->base.weights->embed_norm, config->d_model);
        for (int i = 0; i < config->d_model && config->d_ple > 0; i++)
            row_of(d, BUF_E, t)[i] = row_of(d, BUF_X, t)[i];
    }
}

quip_status reference_embed(struct device *device, const struct rows *rows)
{
    return reference_record(device, (struct command){ .name = "embed", .run = run_embed }, rows);
}

static void run_norm(struct reference_device *d, const struct command *c)
{
    const size_t n_bytes = (size_t)d->base.config->d_model * sizeof(float);
    for (int t = 0; t < c->n; t++) {
        memcpy(row_of(d, BUF_XN, t), row_of(d, BUF_X, t), n_bytes);
        norm_in_place(d->base.config, row_of(d, BUF_XN, t), c->norm, d->base.config->d_model);
    }
}

quip_status reference_norm(struct device *device, const struct norm_weights *w, int n_rows)
{
    return reference_record(
        device, (struct command){ .name = "norm", .run = run_norm, .norm = w, .n = n_rows }, NULL);
}

static void run_add(struct reference_device *d, const struct command *c)
{
    for (int t = 0; t < c->n; t++) {
        float *x = row_of(d, BUF_X, t), *y = row_of(d, BUF_Y, t);
        const struct config *config = d->base.config;
        if (!config->norms_sum)
            norm_in_place(config, y, c->post_norm, config->d_model);
        for (int i = 0; i < config->d_model; i++)
            x[i] += config->residual_scale * y[i];
        if (config->norms_sum)
            norm_in_place(config, x, c->post_norm, config->d_model);
    }
    if (c->norm)
        run_norm(d, c);
}

quip_status reference_add(struct device *device, const struct norm_weights *post_norm,
                          const struct norm_weights *next, int n_rows)
{
    const struct command c = {
        .name = "add", .run = run_add, .post_norm = post_norm, .norm = next, .n = n_rows
    };
    return reference_record(device, c, NULL);
}

/* ---- products ---- */

/* y = w x, plus what the adapter of the row's sequence adds. */
static void multiply(const struct reference_device *d, float *y, int l, int m, const float *x,
                     const struct sequence *s)
{
    const struct floats *w = &d->m[l * N_MATRICES + m];
    for (int r = 0; r < w->n_out; r++)
        y[r] = w->bias ? w->bias[r] : 0;
    add_product(y, w->w, x, w->n_out, w->n_in, 1);
    const struct pair *pair = s->adapter ? &s->adapter->pairs[l * N_MATRICES + m] : NULL;
    if (!pair || pair->rank == 0)
        return;
    for (int k = 0; k < pair->rank; k++) {
        float u = 0;
        add_product(&u, pair->a + (size_t)k * (size_t)w->n_in, x, 1, w->n_in, 1);
        for (int r = 0; r < w->n_out; r++)
            y[r] += s->adapter_scale * u * pair->b[(size_t)r * (size_t)pair->rank + (size_t)k];
    }
}

static void run_linear(struct reference_device *d, const struct command *c)
{
    for (int t = 0; t < c->n; t++)
        for (int i = 0; i < c->w.n; i++)
            multiply(d, row_of(d, (enum buffer)((int)c->out + i), t), c->w.l, (int)c->w.first + i,
                     row_of(d, c->in, t), c->rows[t].sequence);
}

quip_status reference_linear(struct device *device, enum buffer out, struct matrix_set w,
                             enum buffer in, struct matrix_set next, const struct rows *rows)
{
    (void)next;
    return reference_record(
        device,
        (struct command){ .name = "linear", .run = run_linear, .out = out, .in = in, .w = w },
        rows);
}

static void run_gated(struct reference_device *d, const struct command *c)
{
    const struct config *config = d->base.config;
    const bool is_gated = d->m[c->l * N_MATRICES + MATRIX_GATE].w != NULL;
    float *gate = malloc((size_t)config->d_ff * sizeof *gate);
    assert(gate);
    for (int t = 0; t < c->n; t++) {
        const struct sequence *s = c->rows[t].sequence;
        float *h = row_of(d, BUF_H, t);
        multiply(d, h, c->l, MATRIX_UP, row_of(d, BUF_XN, t), s);
        if (is_gated)
            multiply(d, gate, c->l, MATRIX_GATE, row_of(d, BUF_XN, t), s);
        for (int i = 0; i < config->layers[c->l].d_ff; i++)
            h[i] = is_gated ? activate(config->act, gate[i]) * h[i] : activate(config->act, h[i]);
    }
    free(gate);
}

quip_status reference_gated(struct device *device, int l, struct matrix_set next,
                            const struct rows *rows)
{
    (void)next;
    return reference_record(device, (struct command){ .name = "gated", .run = run_gated, .l = l },
                            rows);
}

/* ---- attention ---- */

static void prepare_heads(const struct reference_device *d, int l, float *x, int n_heads,
                          const float *norm, const struct row *row)
{
    const struct config *c = d->base.config;
    const int head_dim = c->layers[l].head_dim, rope = c->layers[l].rope;
    const struct norm_weights w = { norm, NULL };
    if (c->qk_norm == QK_NORM_WIDTH)
        norm_in_place(c, x, &w, n_heads * head_dim);
    for (int h = 0; h < n_heads; h++, x += head_dim) {
        const struct norm_weights own = { norm ? norm + h * head_dim : NULL, NULL };
        if (c->qk_norm != QK_NORM_WIDTH)
            norm_in_place(c, x, c->qk_norm == QK_NORM_HEADS ? &own : &w, head_dim);
        if (rope != ROPE_NONE)
            rotate(&c->ropes[rope],
                   c->ropes[rope].divisors[qp_rope_set(c, row->sequence->n_context)], x, row->pos);
    }
}

static void run_rope_append(struct reference_device *d, const struct command *c)
{
    const struct config *config = d->base.config;
    const struct layer_config *lc = &config->layers[c->l];
    const struct layer_weights *w = &d->base.weights->layers[c->l];
    const size_t width = kv_width(config), n_bytes = width * sizeof(float);
    for (int t = 0; t < c->n; t++) {
        const struct row *row = &c->rows[t];
        const struct cache *layer = &sequence_of(row->sequence)->layers[c->l];
        float *k = row_of(d, BUF_K, t), *v = row_of(d, BUF_V, t);
        prepare_heads(d, c->l, row_of(d, BUF_Q, t), config->n_heads, w->q_norm.scale, row);
        if (lc->kv_layer != c->l)
            continue;
        if (lc->v_is_k)
            memcpy(v, k, n_bytes);
        for (int h = 0; h < lc->n_kv_heads && config->v_norm; h++)
            rms_norm(config, v + h * lc->head_dim, NULL, lc->head_dim);
        prepare_heads(d, c->l, k, lc->n_kv_heads, w->k_norm.scale, row);
        memcpy(layer->k + (size_t)row->pos * width, k, n_bytes);
        memcpy(layer->v + (size_t)row->pos * width, v, n_bytes);
    }
}

quip_status reference_rope_append(struct device *device, int l, const struct rows *rows)
{
    return reference_record(
        device, (struct command){ .name = "rope_append", .run = run_rope_append, .l = l }, rows);
}

/* Attention of query head h; `score` has a capacity of visible_end. */
static void attend_head(const struct reference_device *d, const struct command *c, int t, int h,
                        float *score)
{
    const struct config *config = d->base.config;
    const struct row *row = &c->rows[t];
    const struct cache *layer = &sequence_of(row->sequence)->layers[c->l];
    const struct layer_config *lc = &config->layers[c->l];
    const int head_dim = lc->head_dim, window = lc->window;
    const int begin = window && row->pos + 1 > window ? row->pos + 1 - window : 0;
    const int end = window && config->is_bidirectional ? qp_min(row->visible_end, row->pos + window)
                                                       : row->visible_end;
    const size_t at = (size_t)(h / (config->n_heads / lc->n_kv_heads) * head_dim);
    const float *q = row_of(d, BUF_Q, t) + h * head_dim;
    float *out = row_of(d, BUF_ATT, t) + h * head_dim, max = -INFINITY, sum = 0;
    for (int pos = begin; pos < end; pos++) {
        const float *key = layer->k + (size_t)pos * kv_width(config) + at;
        score[pos] = 0;
        add_product(&score[pos], key, q, 1, head_dim, config->query_scale);
        score[pos] = soft_cap(score[pos], config->attention_cap);
        if (config->has_alibi)
            score[pos] += alibi(config, h, pos);
        max = score[pos] > max ? score[pos] : max;
    }
    memset(out, 0, (size_t)head_dim * sizeof *out);
    for (int pos = begin; pos < end; pos++) {
        const float *value = layer->v + (size_t)pos * kv_width(config) + at;
        const float weight = expf(score[pos] - max);
        sum += weight;
        for (int i = 0; i < head_dim; i++)
            out[i] += weight * value[i];
    }
    for (int i = 0; i < head_dim; i++)
        out[i] /= sum;
}

static void run_attend(struct reference_device *d, const struct command *c)
{
    float *score = malloc((size_t)d->base.capacity.n_context * sizeof *score);
    assert(score);
    for (int t = 0; t < c->n; t++)
        for (int h = 0; h < d->base.config->n_heads; h++)
            attend_head(d, c, t, h, score);
    free(score);
}

quip_status reference_attend(struct device *device, int l, const struct rows *rows)
{
    return reference_record(device, (struct command){ .name = "attend", .run = run_attend, .l = l },
                            rows);
}

/* ---- the end of a layer ---- */

static void run_ple(struct reference_device *d, const struct command *c)
{
    const struct config *config = d->base.config;
    const int n = config->d_ple;
    for (int t = 0; t < c->n; t++) {
        const float *gate = row_of(d, BUF_PLE_GATE, t);
        float *context = row_of(d, BUF_PLE_CONTEXT, t), *ple = row_of(d, BUF_PLE, t);
        const size_t row = (size_t)c->rows[t].token * (size_t)config->n_layers + (size_t)c->l;
        const float *own = d->ple.w + row * (size_t)n;
        for (int i = 0; i < n; i++)
            context[i] /= sqrtf((float)config->d_model);
        rms_norm(config, context, d->base.weights->ple_norm.scale, n);
        for (int i = 0; i < n; i++) {
            const float u = (context[i] + sqrtf((float)n) * own[i]) / sqrtf(2);
            ple[i] = activate(config->act, gate[i]) * u;
        }
    }
}

quip_status reference_ple(struct device *device, int l, const struct rows *rows)
{
    return reference_record(device, (struct command){ .name = "ple", .run = run_ple, .l = l },
                            rows);
}

static void run_scale(struct reference_device *d, const struct command *c)
{
    for (int t = 0; t < c->n; t++)
        for (int i = 0; i < d->base.config->d_model; i++)
            row_of(d, BUF_X, t)[i] *= *c->factor;
    if (c->norm)
        run_norm(d, c);
}

quip_status reference_scale(struct device *device, const float *factor,
                            const struct norm_weights *next, int n_rows)
{
    const struct command c = {
        .name = "scale", .run = run_scale, .factor = factor, .norm = next, .n = n_rows
    };
    return reference_record(device, c, NULL);
}

/* ---- outputs ---- */

static void run_keep_rows(struct reference_device *d, const struct command *c)
{
    static const enum buffer moved[] = { BUF_X, BUF_XN, BUF_Q, BUF_ATT, BUF_E };
    for (int from = 0, to = 0; from < c->n; from++) {
        if (!c->rows[from].is_output)
            continue;
        for (size_t b = 0; b < QP_COUNT(moved); b++)
            memmove(row_of(d, moved[b], to), row_of(d, moved[b], from),
                    (size_t)width_of(d->base.config, moved[b]) * sizeof(float));
        to++;
    }
}

quip_status reference_keep_rows(struct device *device, const struct rows *rows,
                                const struct rows *kept)
{
    (void)kept;
    return reference_record(device, (struct command){ .name = "keep_rows", .run = run_keep_rows },
                            rows);
}

static void run_keep_outputs(struct reference_device *d, const struct command *c)
{
    const size_t d_model = (size_t)d->base.config->d_model;
    for (int t = 0; t < c->n; t++) {
        struct reference_sequence *s = sequence_of(c->rows[t].sequence);
        if (t == 0 || c->rows[t - 1].sequence != &s->base)
            s->n_outputs = 0;
        assert(s->n_outputs < s->max_outputs);
        memcpy(s->outputs + (size_t)s->n_outputs++ * d_model, row_of(d, BUF_X, t),
               d_model * sizeof(float));
    }
}

quip_status reference_keep_outputs(struct device *device, const struct rows *rows)
{
    return reference_record(
        device, (struct command){ .name = "keep_outputs", .run = run_keep_outputs }, rows);
}

static void run_load_outputs(struct reference_device *d, const struct command *c)
{
    const size_t d_model = (size_t)d->base.config->d_model;
    for (int t = 0; t < c->n; t++) {
        const struct reference_sequence *s = sequence_of(c->outputs[t].sequence);
        assert(c->outputs[t].index >= 0 && c->outputs[t].index < s->n_outputs);
        memcpy(row_of(d, BUF_X, t), s->outputs + (size_t)c->outputs[t].index * d_model,
               d_model * sizeof(float));
    }
}

quip_status reference_load_outputs(struct device *device, const struct output *outputs, int n)
{
    struct command c = { .name = "load_outputs", .run = run_load_outputs, .n = n };
    assert(n > 0 && n <= LOGITS_ROWS);
    memcpy(c.outputs, outputs, (size_t)n * sizeof *outputs);
    return reference_record(device, c, NULL);
}

/* ---- logits and tokens ---- */

static void run_logits(struct reference_device *d, const struct command *c)
{
    const struct floats *w = &d->head;
    for (int t = 0; t < c->n; t++) {
        float *y = row_of(d, BUF_LOGITS, t);
        for (int r = 0; r < w->n_out; r++)
            y[r] = w->bias ? w->bias[r] : 0;
        add_product(y, w->w, row_of(d, BUF_XN, t), w->n_out, w->n_in, 1);
        for (int r = 0; r < w->n_out; r++)
            y[r] = soft_cap(y[r] * d->base.config->logits_scale, d->base.config->logits_cap);
    }
}

quip_status reference_logits(struct device *device, int n)
{
    return reference_record(device, (struct command){ .name = "logits", .run = run_logits, .n = n },
                            NULL);
}

/* ---- embeddings ---- */

static void run_pool(struct reference_device *d, const struct command *c)
{
    const int n = d->base.config->d_model;
    int text = -1, n_outputs = 0;
    float *mean = NULL;
    for (int t = 0; t < c->n; t++) {
        if (t == 0 || c->rows[t].sequence != c->rows[t - 1].sequence) {
            mean = row_of(d, BUF_POOLED, ++text);
            memset(mean, 0, (size_t)n * sizeof *mean);
            n_outputs = 0;
        }
        if (!c->rows[t].is_output)
            continue;
        float *x = row_of(d, BUF_X, t);
        norm_in_place(d->base.config, x, c->norm, n);
        n_outputs++;
        for (int i = 0; i < n; i++) // the mean so far
            mean[i] += (x[i] - mean[i]) / (float)n_outputs;
    }
}

quip_status reference_pool(struct device *device, const struct norm_weights *w,
                           const struct rows *rows)
{
    return reference_record(device, (struct command){ .name = "pool", .run = run_pool, .norm = w },
                            rows);
}

static void run_dense(struct reference_device *d, const struct command *c)
{
    const struct dense *dense = &d->base.weights->dense[c->l];
    const struct matrix *w = &dense->w;
    float *y = malloc((size_t)w->n_out * sizeof *y);
    assert(y && w->n_out <= MAX_POOLED);
    for (int t = 0; t < c->n; t++) {
        for (int r = 0; r < w->n_out; r++)
            y[r] = w->bias ? w->bias[r] : 0;
        add_product(y, w->data, row_of(d, BUF_POOLED, t), w->n_out, w->n_in, 1);
        for (int r = 0; r < w->n_out; r++)
            row_of(d, BUF_POOLED, t)[r] = dense->has_tanh ? tanhf(y[r]) : y[r];
    }
    free(y);
}

quip_status reference_dense(struct device *device, int i, int n)
{
    const struct command c = { .name = "dense", .run = run_dense, .l = i, .n = n };
    return reference_record(device, c, NULL);
}

/* ---- tokens ---- */

static float sum_exp(const float *x, float max, float factor, int n)
{
    float sum = 0;
    for (int i = 0; i < n; i++)
        sum += isnan(x[i]) ? 0 : expf((x[i] - max) * factor);
    return sum;
}

static void run_sample(struct reference_device *d, const struct command *c)
{
    const struct sampler sampler = { d->candidates, sum_exp };
    bool is_wrong = false; // a draft token before
    for (int i = 0; i < c->n; i++) {
        struct draw draw = c->draws[i];
        draw.sampling = &c->sampling[i];
        d->tokens[i] = is_wrong ? -1
                                : qp_sample(&sampler, &draw, row_of(d, BUF_LOGITS, i),
                                            d->base.config->vocab_size);
        is_wrong = draw.expected >= 0 && (is_wrong || d->tokens[i] != draw.expected);
    }
}

quip_status reference_sample(struct device *device, const struct draw *draws, int n)
{
    struct command c = { .name = "sample", .run = run_sample, .n = n };
    assert(n > 0 && n <= LOGITS_ROWS);
    for (int i = 0; i < n; i++) {
        c.draws[i] = draws[i];
        c.sampling[i] = *draws[i].sampling;
    }
    return reference_record(device, c, NULL);
}
