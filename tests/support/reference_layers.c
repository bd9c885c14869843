/* reference_layers.c: convolutions and experts of the reference backend, as engine/backend.h
 * describes them.
 * In:  buffers, weights, the columns of a sequence.
 * Out: buffers, the columns of the rows, the experts that the rows chose. */
#include "support/reference_impl.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- convolutions ---- */

/* Columns of all positions are where an attention layer has its keys. */
static void run_conv(struct reference_device *d, const struct command *c)
{
    const struct config *config = d->base.config;
    const struct layer_weights *w = &d->base.weights->layers[c->l];
    const size_t d_model = (size_t)config->d_model;
    for (int t = 0; t < c->n; t++) {
        const int pos = c->rows[t].pos, width = config->conv_width;
        float *columns = sequence_of(c->rows[t].sequence)->layers[c->l].k;
        const float *b = row_of(d, BUF_Q, t), *gate = row_of(d, BUF_K, t), *x = row_of(d, BUF_V, t);
        float *out = row_of(d, BUF_ATT, t);
        for (size_t i = 0; i < d_model; i++) {
            float sum = w->conv_bias ? w->conv_bias[i] : 0;
            columns[(size_t)pos * d_model + i] = b[i] * x[i];
            for (int k = 0; k < width; k++)
                if (pos - (width - 1) + k >= 0)
                    sum += w->conv[(size_t)k * d_model + i] *
                           columns[(size_t)(pos - (width - 1) + k) * d_model + i];
            out[i] = gate[i] * sum;
        }
    }
}

quip_status reference_conv(struct device *device, int l, const struct rows *rows)
{
    return reference_record(device, (struct command){ .name = "conv", .run = run_conv, .l = l },
                            rows);
}

/* ---- experts ---- */

static float dot(const float *a, const float *b, int n)
{
    float sum = 0;
    for (int i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* The expert with the largest score that is not taken yet. */
static int best_expert(const float *scores, const bool *is_taken, int n)
{
    int best = -1;
    for (int e = 0; e < n; e++)
        if (!is_taken[e] && (best < 0 || scores[e] > scores[best]))
            best = e;
    return best;
}

static void route_row(struct reference_device *d, const struct layer_weights *w, int t)
{
    const struct config *c = d->base.config;
    const struct expert_config *experts = &c->experts;
    float *x = malloc((size_t)c->d_model * sizeof *x);
    float scores[MAX_EXPERTS], max = -FLT_MAX, sum = 0, sum_taken = 0;
    float *weights = d->expert_weights + (size_t)t * (size_t)experts->n;
    bool is_taken[MAX_EXPERTS] = { false };
    assert(x);
    memcpy(x, row_of(d, BUF_X, t), (size_t)c->d_model * sizeof *x);
    reference_norm_row(c, x, &w->router_norm);
    for (int e = 0; e < experts->n; e++) {
        scores[e] = dot(w->router + (size_t)e * (size_t)c->d_model, x, c->d_model);
        scores[e] = isnan(scores[e]) ? -FLT_MAX : fmaxf(-FLT_MAX, fminf(FLT_MAX, scores[e]));
        max = fmaxf(max, scores[e]);
    }
    d->shared_weights[t] = w->shared_gate ? 1 / (1 + expf(-dot(w->shared_gate, x, c->d_model))) : 1;
    free(x);
    for (int i = 0; i < experts->n_used; i++)
        is_taken[best_expert(scores, is_taken, experts->n)] = true;
    for (int e = 0; e < experts->n; e++) {
        sum += expf(scores[e] - max);
        sum_taken += is_taken[e] ? expf(scores[e] - max) : 0;
    }
    for (int e = 0; e < experts->n; e++)
        weights[e] = !is_taken[e]
                         ? 0
                         : expf(scores[e] - max) / (experts->is_normalized ? sum_taken : sum) *
                               (w->expert_scale ? w->expert_scale[e] : 1);
}

static void run_route(struct reference_device *d, const struct command *c)
{
    for (int t = 0; t < c->n; t++)
        route_row(d, &d->base.weights->layers[c->l], t);
}

quip_status reference_route(struct device *device, int l, const struct rows *rows)
{
    return reference_record(device, (struct command){ .name = "route", .run = run_route, .l = l },
                            rows);
}

/* y += weight * down_e (act(gate_e x) * (up_e x)) */
static void add_expert(const struct reference_device *d, int l, int e, float weight, float *y,
                       const float *x)
{
    const struct config *c = d->base.config;
    const size_t d_ff = (size_t)c->experts.d_ff, d_model = (size_t)c->d_model;
    const struct floats *m = &d->m[l * N_MATRICES];
    float *h = malloc(d_ff * sizeof *h);
    assert(h);
    for (size_t i = 0; i < d_ff; i++) {
        const size_t row = ((size_t)e * d_ff + i) * d_model;
        h[i] = reference_activate(c, dot(m[MATRIX_EXPERT_GATE].w + row, x, c->d_model)) *
               dot(m[MATRIX_EXPERT_UP].w + row, x, c->d_model);
    }
    for (size_t i = 0; i < d_model; i++)
        y[i] += weight *
                dot(m[MATRIX_EXPERT_DOWN].w + ((size_t)e * d_model + i) * d_ff, h, c->experts.d_ff);
    free(h);
}

static void run_experts(struct reference_device *d, const struct command *c)
{
    const int n = d->base.config->experts.n;
    for (int t = 0; t < c->n; t++) {
        float *y = row_of(d, BUF_EXPERTS, t);
        memset(y, 0, (size_t)d->base.config->d_model * sizeof *y);
        for (int e = 0; e < n; e++) {
            const float weight = d->expert_weights[(size_t)t * (size_t)n + (size_t)e];
            if (weight != 0)
                add_expert(d, c->l, e, weight, y, row_of(d, BUF_XN, t));
        }
    }
}

quip_status reference_experts(struct device *device, int l, const struct rows *rows)
{
    return reference_record(
        device, (struct command){ .name = "experts", .run = run_experts, .l = l }, rows);
}

static void run_merge(struct reference_device *d, const struct command *c)
{
    const struct config *config = d->base.config;
    const struct layer_weights *w = &d->base.weights->layers[c->l];
    for (int t = 0; t < c->n; t++) {
        float *y = row_of(d, BUF_Y, t), *e = row_of(d, BUF_EXPERTS, t);
        const bool has_dense = config->layers[c->l].d_ff > 0;
        reference_norm_row(config, e, &w->expert_post_norm);
        if (has_dense)
            reference_norm_row(config, y, &w->dense_post_norm);
        for (int i = 0; i < config->d_model; i++)
            y[i] = e[i] + (has_dense ? y[i] * d->shared_weights[t] : 0);
    }
}

quip_status reference_merge(struct device *device, int l, const struct rows *rows)
{
    return reference_record(device, (struct command){ .name = "merge", .run = run_merge, .l = l },
                            rows);
}
