/* key_means.c: what int8 keys are stored without: the mean of their rotated bias.
 * In:  the bias of a layer's keys, and its rope.
 * Out: the mean over MEAN_POSITIONS positions, [n_kv_heads * head_dim].
 *
 * Biases can be large in the pairs of dimensions that hardly turn: up to 239 in three layers of
 * Qwen2.5-Coder-0.5B, below 10 in most. One scale for all dimensions of a key would then lose what
 * its token adds. If the same vector is subtracted from all keys of a head, all scores of a query
 * change by the same number, and their softmax does not change. */
#include "base/math.h"
#include "cpu/cpu_impl.h"

#include <assert.h>

enum {
    MEAN_POSITIONS = 1024 // of longer texts, the keys keep a small part of the bias
};

bool qp_has_key_mean(const struct cpu_device *d, int l)
{
    const struct config *c = d->base.config;
    const struct layer_weights *w = &d->base.weights->layers[l];
    return d->kv.is_int8 && c->layers[l].kv_layer == l && c->layers[l].mixer == MIXER_ATTENTION &&
           w->m[MATRIX_K].bias && !w->k_norm.scale && // the norm comes after the bias
           c->attention_cap == 0 &&                   // a cap changes with the size of a score
           c->n_context_original == 0;                // one rope for all sessions
}

bool qp_has_key_means(const struct cpu_device *d)
{
    bool has = false;
    for (int l = 0; l < d->base.config->n_layers; l++)
        has = has || qp_has_key_mean(d, l);
    return has;
}

float *qp_key_mean(const struct cpu_device *d, int l)
{
    return qp_has_key_mean(d, l) ? d->positions.key_means + (size_t)l * d->positions.key_width
                                 : NULL;
}

/* The mean of cos and sin of 0, f, 2f, ... : a geometric sum of exp(i f). */
static void mean_turn(float frequency, double *mean_cos, double *mean_sin)
{
    const double f = (double)frequency, n = MEAN_POSITIONS;
    double half_sin, half_cos, sum_sin, sum_cos, middle_sin, middle_cos;
    qp_sin_cos(f / 2, &half_sin, &half_cos);
    qp_sin_cos(n * f / 2, &sum_sin, &sum_cos);
    qp_sin_cos((n - 1) * f / 2, &middle_sin, &middle_cos);
    const double length = half_sin != 0 ? sum_sin / (n * half_sin) : 1;
    *mean_cos = length * middle_cos;
    *mean_sin = length * middle_sin;
}

/* As the kernel `rotate`, with the means of cos and sin. */
static void rotate_mean(float *mean, const float *bias, const struct rope *rope, int head_dim)
{
    const int half = rope ? rope->dim / 2 : 0;
    assert(mean && bias && half >= 0 && 2 * half <= head_dim);
    for (int i = 0; i < half; i++) {
        double cosine, sine;
        mean_turn(qp_rope_frequency(rope, rope->divisors[0], i), &cosine, &sine);
        const double a = (double)bias[i], b = (double)bias[i + half];
        const double amplitude = (double)rope->amplitude;
        mean[i] = (float)((a * cosine - b * sine) * amplitude);
        mean[i + half] = (float)((b * cosine + a * sine) * amplitude);
    }
    for (int i = 2 * half; i < head_dim; i++)
        mean[i] = bias[i];
}

void qp_fill_key_means(struct cpu_device *d)
{
    const struct config *c = d->base.config;
    for (int l = 0; l < c->n_layers; l++) {
        const struct layer_config *lc = &c->layers[l];
        const float *bias = d->base.weights->layers[l].m[MATRIX_K].bias;
        const struct rope *rope = lc->rope == ROPE_NONE ? NULL : &c->ropes[lc->rope];
        float *mean = qp_key_mean(d, l);
        for (int h = 0; h < lc->n_kv_heads && mean; h++)
            rotate_mean(mean + h * lc->head_dim, bias + h * lc->head_dim, rope, lc->head_dim);
    }
}
