/* ops_results.c: what comes back for draws -> tokens.
 * In:  the tokens that the GPU found or guessed; what select.wgsl found, or logits.
 * Out: the token of each draw: the one that the sampler draws from all logits.
 *
 * The sampler says when it cannot tell from what select.wgsl found. Then the logits of that row
 * come back as well, and the draws after it wait for them. */
#include "base/math.h"
#include "webgpu/webgpu_impl.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    N_LANES = 16 // of a sum of weights
};

/* As the kernels of the CPU add them up (cpu/vector_lanes.h), in lanes and then in a tree. */
static float sum_exps(const float *x, float max, float factor, int n)
{
    float lanes[N_LANES] = { 0 };
    assert(n % N_LANES == 0);
    for (int i = 0; i < n; i++)
        lanes[i % N_LANES] += isnan(x[i]) ? 0 : qp_exp((x[i] - max) * factor);
    for (int s = N_LANES / 2; s > 0; s /= 2)
        for (int j = 0; j < s; j++)
            lanes[j] += lanes[j + s];
    return lanes[0];
}

static struct sampler sampler_of(const struct webgpu_device *d)
{
    return (struct sampler){ d->candidates, sum_exps };
}

/* ---- memory ---- */

struct gpu_range qp_webgpu_draw_results(const struct webgpu_device *d)
{
    const int vocab_size = d->base.config->vocab_size;
    if (d->n_host_logits > 0)
        return (struct gpu_range){
            d->mem.logits.buffer, 0, 4 * (uint64_t)d->n_host_logits * (uint64_t)d->mem.logits.stride
        };
    if (d->n_draws > 0 && d->sample == SAMPLE_KNOWN)
        return (struct gpu_range){ d->mem.candidates.buffer, 0,
                                   4 * (uint64_t)d->n_draws *
                                       (uint64_t)qp_webgpu_result_words(vocab_size) };
    return (struct gpu_range){ 0 };
}

struct gpu_range qp_webgpu_missing_row(const struct webgpu_device *d)
{
    const uint64_t n_bytes = 4 * (uint64_t)d->mem.logits.stride;
    assert(d->fetches_row && d->n_finished < d->n_logits);
    return (struct gpu_range){ d->mem.logits.buffer, (uint64_t)d->n_finished * n_bytes, n_bytes };
}

quip_status qp_webgpu_reserve_draws(struct webgpu_device *d)
{
    const size_t vocab_size = (size_t)d->base.config->vocab_size;
    const size_t n_logits = AHEAD_DRAWS * vocab_size,
                 n_results = AHEAD_DRAWS * (size_t)qp_webgpu_result_words((int)vocab_size);
    if (qp_webgpu_draw_results(d).n_bytes == 0)
        return QUIP_OK;
    if (!d->host_logits)
        d->host_logits = calloc(n_logits, sizeof *d->host_logits);
    if (!d->candidates)
        d->candidates = calloc(vocab_size, sizeof *d->candidates);
    if (!d->results)
        d->results = calloc(n_results, sizeof *d->results);
    return d->host_logits && d->candidates && d->results
               ? QUIP_OK
               : qp_fail_memory(&d->base.error, "logits", n_logits * sizeof *d->host_logits);
}

static float *host_row(const struct webgpu_device *d, int i)
{
    return d->host_logits + (size_t)i * (size_t)d->base.config->vocab_size;
}

static void copy_logits(struct webgpu_device *d, const uint8_t *logits, int first, int n)
{
    for (int i = 0; i < n; i++)
        memcpy(host_row(d, first + i), logits + 4 * (size_t)i * (size_t)d->mem.logits.stride,
               (size_t)d->base.config->vocab_size * sizeof(float));
}

/* ---- from what was found ---- */

/* The logit of a key of keys.wgsl. */
static float logit_of(uint32_t key)
{
    const uint32_t bits = key & 0x80000000u ? key ^ 0x80000000u : ~key;
    float logit;
    memcpy(&logit, &bits, sizeof logit);
    return logit;
}

/* What the results of draw number i say; false: more tokens were likely than fit. */
static bool read_known(const struct webgpu_device *d, int i, struct known_logits *k)
{
    const int vocab_size = d->base.config->vocab_size;
    const int n_words = qp_webgpu_result_words(vocab_size);
    const uint32_t *result = d->results + (size_t)i * (size_t)n_words;
    const struct listed *listed = &d->listed[i];
    const bool has_all = result[0] == result[1];
    if (result[0] > (uint32_t)qp_webgpu_n_selected(d, i))
        return false;
    k->n = k->n_best = (int)result[0];
    k->max = logit_of(result[2]);
    k->least = has_all ? -INFINITY : INFINITY;
    for (int j = 0; j < k->n_best; j++) {
        const uint32_t *pair = result + RESULT_PAIRS + 2 * j;
        k->at[j] = (struct candidate){ logit_of(pair[0]), (quip_token)pair[1] };
        if (k->at[j].logit < k->least)
            k->least = k->at[j].logit;
    }
    for (int j = RESULT_SUMS; j < n_words; j++) {
        float sum;
        memcpy(&sum, &result[j], sizeof sum);
        k->sum += sum;
    }
    for (int j = 0; j < listed->n + listed->n_ahead; j++) {
        const quip_token token = listed->tokens[j];
        if (token < 0 || token >= vocab_size) // a bias may be of any token
            continue;
        k->at[k->n].id = token;
        memcpy(&k->at[k->n++].logit, &result[RESULT_FOUND + j], sizeof(float));
    }
    return has_all || k->n_best >= qp_sample_n_best(&d->sampling[i], vocab_size);
}

/* The window of draw number i, when the tokens before it are known. */
static struct known_logits window_of(struct webgpu_device *d, int i)
{
    struct listed *listed = &d->listed[i];
    memcpy(listed->tokens + listed->n, d->tokens + i - listed->n_ahead,
           (size_t)listed->n_ahead * sizeof *listed->tokens);
    return (struct known_logits){ .window = listed->tokens + listed->n_bias,
                                  .n_window = listed->n + listed->n_ahead - listed->n_bias };
}

/* -1: what was found does not decide. */
static quip_token draw_known(struct webgpu_device *d, int i, const struct draw *draw)
{
    const struct sampler sampler = sampler_of(d);
    const int vocab_size = d->base.config->vocab_size;
    struct candidate known[MAX_SELECTED + AHEAD_DRAWS];
    struct known_logits k = window_of(d, i);
    k.at = known;
    if (!read_known(d, i, &k) || k.n == 0)
        return -1;
    return qp_sample_n_best(draw->sampling, vocab_size) > 0
               ? qp_sample_known(&sampler, draw, &k, host_row(d, i), vocab_size)
               : qp_sample_bounded(&sampler, draw, &k, host_row(d, i), vocab_size);
}

/* ---- from all logits ---- */

static quip_token draw_from_all(struct webgpu_device *d, int i, const struct draw *draw)
{
    const struct sampler sampler = sampler_of(d);
    return qp_sample(&sampler, draw, host_row(d, i), d->base.config->vocab_size);
}

/* The same after draw_known: the context lacks tokens that were drawn ahead, but the window has
 * them. */
static quip_token draw_again(struct webgpu_device *d, int i, const struct draw *draw)
{
    const struct known_logits k = window_of(d, i);
    struct sampling o = *draw->sampling;
    struct draw rest = *draw;
    qp_penalize(&o, k.window, k.n_window, d->candidates, host_row(d, i),
                d->base.config->vocab_size);
    o.window = o.n_bias = 0; // done
    rest.sampling = &o;
    return draw_from_all(d, i, &rest);
}

/* ---- the tokens ---- */

/* Greater after draws that were not decided; see qp_webgpu_sample. */
static void note_draw(struct webgpu_device *d, const struct draw *draw, bool is_decided)
{
    if (qp_sample_n_best(draw->sampling, d->base.config->vocab_size) == 0)
        d->n_undecided = is_decided ? qp_max(d->n_undecided - 1, 0) : d->n_undecided + 4;
}

/* The token of draw number i, or -1 if its logits have to come back. */
static quip_token draw_token_of(struct webgpu_device *d, int i, const struct draw *draw)
{
    if (d->sample == SAMPLE_GREEDY)
        return d->found[i];
    if (d->sample == SAMPLE_ALL)
        return draw_from_all(d, i, draw);
    const bool has_row = d->fetches_row;
    d->fetches_row = false;
    const quip_token token = has_row ? draw_again(d, i, draw) : draw_known(d, i, draw);
    if (!has_row)
        note_draw(d, draw, token >= 0);
    return token;
}

static void finish_draw(struct webgpu_device *d, int i, const struct draw *draw, quip_token token)
{
    const bool is_run = i + 1 >= d->first_ahead && i + 1 < d->n_draws; // on the GPU
    const quip_token expected = is_run ? d->found[i] : draw->expected;
    d->tokens[i] = token;
    d->is_wrong = (is_run || expected >= 0) && (d->is_wrong || token != expected);
}

bool qp_webgpu_finish_draws(struct webgpu_device *d, const uint8_t *tokens, const uint8_t *results)
{
    if (d->fetches_row) {
        copy_logits(d, results, d->n_finished, 1);
    } else {
        memcpy(d->found, tokens, sizeof d->found);
        copy_logits(d, results, 0, d->n_host_logits);
        if (d->n_host_logits == 0 && d->n_draws > 0 && d->sample == SAMPLE_KNOWN)
            memcpy(d->results, results, (size_t)qp_webgpu_draw_results(d).n_bytes);
        d->n_finished = 0;
        d->is_wrong = false;
    }
    for (; d->n_finished < d->n_draws; d->n_finished++) {
        const int i = d->n_finished;
        struct draw draw = d->draws[i];
        draw.sampling = &d->sampling[i];
        // the context of a draw from all logits lacks the tokens before it in the batch
        const bool is_lost = d->is_wrong || (d->sample == SAMPLE_ALL && i >= d->first_ahead);
        const quip_token token = is_lost ? -1 : draw_token_of(d, i, &draw);
        d->fetches_row = token < 0 && !is_lost;
        if (d->fetches_row)
            return false;
        finish_draw(d, i, &draw, token);
    }
    d->n_draws = 0;
    return true;
}
