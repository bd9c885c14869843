/* ops_sample.c: draws: logits on the GPU -> tokens.
 * In:  logits on the GPU, draws.
 * Out: a token for each draw.
 *
 * Without penalties the most likely token is found on the GPU. For a draw with top_k, the few
 * logits that it depends on come back, and the sampler draws from them: those of the tokens in the
 * window of the penalties, and the top_k most likely of the others. It is the token that the
 * sampler draws from all logits. Without top_k all of them come back. */
#include "base/math.h"
#include "webgpu/webgpu_impl.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    ARGMAX_LOGITS = 4096, // of a workgroup of argmax.wgsl
    TOP_K_LOGITS = 1024,  // of a workgroup of top_k.wgsl
    DRAW_HEADER = 4,      // words of DRAWS before the list
    RESULT_WORDS = 2 * MAX_BEST + MAX_LISTED
};

/* ---- sizes ---- */

static int groups_of(int n, int per_group)
{
    return (n + per_group - 1) / per_group;
}

static int mask_words(int vocab_size)
{
    return groups_of(vocab_size, 32);
}

int qp_webgpu_draw_words(int vocab_size)
{
    return DRAW_HEADER + MAX_LISTED + mask_words(vocab_size);
}

/* Pairs of a row that the first pass of top_k.wgsl leaves, and the second. */
static int n_pairs(int vocab_size, int pass)
{
    int n = vocab_size;
    for (int i = 0; i < pass; i++)
        n = MAX_BEST * groups_of(n, TOP_K_LOGITS);
    return n;
}

/* The buffer has the results of all draws, then the pairs of odd passes, then those of even ones.
 */
int qp_webgpu_candidate_words(int vocab_size)
{
    const int argmax = 2 * LOGITS_ROWS * groups_of(vocab_size, ARGMAX_LOGITS);
    const int top_k = RESULT_WORDS + 2 * n_pairs(vocab_size, 1) + 2 * n_pairs(vocab_size, 2);
    return qp_max(argmax, LOGITS_ROWS * top_k);
}

/* ---- the most likely token ---- */

static bool is_greedy(const struct draw *draw)
{
    const struct sampling *s = draw->sampling;
    return (s->temperature == 0 || s->top_k == 1) && s->window == 0 && s->n_bias == 0 &&
           !draw->allowed;
}

static quip_status run_argmax(struct webgpu_device *d, const struct scratch *from, int from_stride,
                              const struct scratch *to, int n_logits, int n, bool is_last)
{
    const int n_groups = is_last ? 1 : groups_of(n_logits, ARGMAX_LOGITS);
    const struct parameters {
        uint32_t n, x_stride, best_stride;
    } parameters = { (uint32_t)n_logits, (uint32_t)from_stride, 2 * (uint32_t)n_groups };
    return qp_webgpu_dispatch(d, &(struct call){ .shader = SHADER_ARGMAX,
                                                 .constants = { is_last },
                                                 .parameters = &parameters,
                                                 .n_parameters = sizeof parameters,
                                                 .bindings = { range_of(from), range_of(to) },
                                                 .x = (uint32_t)n_groups,
                                                 .y = (uint32_t)n });
}

static quip_status find_most_likely(struct webgpu_device *d, int n)
{
    const struct batch_memory *m = &d->mem;
    const int vocab_size = d->base.config->vocab_size;
    const int n_candidates = groups_of(vocab_size, ARGMAX_LOGITS);
    const quip_status status =
        run_argmax(d, &m->logits, m->logits.stride, &m->candidates, vocab_size, n, false);
    return status
               ? status
               : run_argmax(d, &m->candidates, 2 * n_candidates, &m->tokens, n_candidates, n, true);
}

/* ---- the most likely tokens ---- */

static int n_window(const struct draw *draw)
{
    const uint64_t window = (uint64_t)draw->sampling->window;
    return (int)(draw->index < window ? draw->index : window);
}

/* Can it be drawn from results of top_k.wgsl? */
static bool needs_few(const struct draw *draw, int vocab_size)
{
    const int n_best = qp_sample_n_best(draw->sampling, vocab_size);
    return n_best > 0 && n_best <= MAX_BEST &&
           n_window(draw) <= MAX_LISTED - draw->sampling->n_bias;
}

/* Tell top_k.wgsl what draw number i is about: header, list, mask. */
static void write_draw(struct webgpu_device *d, int i, const struct draw *draw)
{
    struct listed *listed = &d->listed[i];
    const struct sampling *o = draw->sampling;
    const int vocab_size = d->base.config->vocab_size;
    const uint64_t at = 4 * (uint64_t)i * (uint64_t)qp_webgpu_draw_words(vocab_size);
    listed->n_window = n_window(draw);
    listed->n = listed->n_window + o->n_bias;
    if (listed->n_window > 0)
        memcpy(listed->tokens, draw->context + draw->index - (uint64_t)listed->n_window,
               (size_t)listed->n_window * sizeof *listed->tokens);
    for (int b = 0; b < o->n_bias; b++)
        listed->tokens[listed->n_window + b] = o->bias[b].token;
    const uint32_t header[DRAW_HEADER] = { (uint32_t)listed->n,
                                           draw->allowed ? DRAW_HEADER + MAX_LISTED : NO_INDEX };
    qp_gpu_write(d->gpu, d->mem.draws.buffer, at, header, sizeof header);
    if (listed->n > 0)
        qp_gpu_write(d->gpu, d->mem.draws.buffer, at + sizeof header, listed->tokens,
                     (size_t)listed->n * sizeof *listed->tokens);
    if (draw->allowed)
        qp_gpu_write(d->gpu, d->mem.draws.buffer, at + 4 * (DRAW_HEADER + MAX_LISTED),
                     draw->allowed, 4 * (size_t)mask_words(vocab_size));
}

/* The k most likely tokens of n rows, and the logits of the listed ones. */
static quip_status find_best(struct webgpu_device *d, int n, int k)
{
    const struct batch_memory *m = &d->mem;
    const int vocab_size = d->base.config->vocab_size;
    const int strides[2] = { 2 * n_pairs(vocab_size, 2), 2 * n_pairs(vocab_size, 1) };
    const int ats[2] = { LOGITS_ROWS * (RESULT_WORDS + strides[1]), LOGITS_ROWS * RESULT_WORDS };
    quip_status status = QUIP_OK;
    int n_left = vocab_size;
    for (int pass = 1, n_groups = 0; n_groups != 1 && !status; pass++) {
        n_groups = groups_of(n_left, TOP_K_LOGITS);
        const bool is_last = n_groups == 1;
        const int from = (pass - 1) % 2, to = pass % 2;
        const struct parameters {
            uint32_t n, k, x_stride, draw_stride, from_at, from_stride, to_at, to_stride;
            uint32_t found_at, found_stride;
        } parameters = { (uint32_t)n_left,
                         (uint32_t)k,
                         (uint32_t)m->logits.stride,
                         (uint32_t)qp_webgpu_draw_words(vocab_size),
                         (uint32_t)ats[from],
                         (uint32_t)strides[from],
                         is_last ? 0 : (uint32_t)ats[to],
                         is_last ? RESULT_WORDS : (uint32_t)strides[to],
                         2 * MAX_BEST,
                         RESULT_WORDS };
        status = qp_webgpu_dispatch(
            d, &(struct call){ .shader = SHADER_TOP_K,
                               .constants = { pass == 1 },
                               .parameters = &parameters,
                               .n_parameters = sizeof parameters,
                               .bindings = { range_of(&m->logits), range_of(&m->draws),
                                             range_of(&m->candidates) },
                               .x = (uint32_t)n_groups,
                               .y = (uint32_t)n });
        n_left = n_groups * k;
    }
    return status;
}

quip_status qp_webgpu_sample(struct device *device, const struct draw *draws, int n)
{
    struct webgpu_device *d = webgpu_of(device);
    const int vocab_size = device->config->vocab_size;
    int k = 0;
    assert(n > 0 && n <= LOGITS_ROWS);
    d->n_draws = n;
    d->sample = SAMPLE_GREEDY;
    for (int i = 0; i < n; i++) {
        d->draws[i] = draws[i];
        d->sampling[i] = *draws[i].sampling;
        if (!is_greedy(&draws[i]) && d->sample == SAMPLE_GREEDY)
            d->sample = SAMPLE_KNOWN;
        if (!needs_few(&draws[i], vocab_size))
            d->sample = SAMPLE_ALL;
        k = qp_max(k, qp_sample_n_best(draws[i].sampling, vocab_size));
    }
    if (d->sample == SAMPLE_GREEDY)
        return find_most_likely(d, n);
    if (d->sample == SAMPLE_ALL)
        return QUIP_OK;
    for (int i = 0; i < n; i++)
        write_draw(d, i, &draws[i]);
    return find_best(d, n, k);
}

/* ---- what comes back ---- */

struct gpu_range qp_webgpu_draw_results(const struct webgpu_device *d)
{
    if (d->n_host_logits > 0)
        return (struct gpu_range){
            d->mem.logits.buffer, 0, 4 * (uint64_t)d->n_host_logits * (uint64_t)d->mem.logits.stride
        };
    if (d->n_draws > 0 && d->sample == SAMPLE_KNOWN)
        return (struct gpu_range){ d->mem.candidates.buffer, 0,
                                   4 * (uint64_t)d->n_draws * RESULT_WORDS };
    return (struct gpu_range){ 0 };
}

quip_status qp_webgpu_reserve_draws(struct webgpu_device *d)
{
    const size_t vocab_size = (size_t)d->base.config->vocab_size;
    const size_t n_logits = LOGITS_ROWS * vocab_size;
    if (qp_webgpu_draw_results(d).n_bytes == 0)
        return QUIP_OK;
    if (!d->host_logits)
        d->host_logits = calloc(n_logits, sizeof *d->host_logits);
    if (!d->candidates)
        d->candidates = calloc(vocab_size, sizeof *d->candidates);
    return d->host_logits && d->candidates
               ? QUIP_OK
               : qp_fail_memory(&d->base.error, "logits", n_logits * sizeof *d->host_logits);
}

static float sum_exps(const float *x, float max, float factor, int n)
{
    float sum = 0;
    for (int i = 0; i < n; i++)
        sum += isnan(x[i]) ? 0 : qp_exp((x[i] - max) * factor);
    return sum;
}

/* The logit of a key of top_k.wgsl. */
static float logit_of(uint32_t key)
{
    const uint32_t bits = key & 0x80000000u ? key ^ 0x80000000u : ~key;
    float logit;
    memcpy(&logit, &bits, sizeof logit);
    return logit;
}

/* Read the results of draw number i. */
static int read_known(const struct webgpu_device *d, int i, const uint8_t *results,
                      struct candidate *known)
{
    const struct listed *listed = &d->listed[i];
    const int vocab_size = d->base.config->vocab_size;
    const int n_best = qp_sample_n_best(&d->sampling[i], vocab_size);
    uint32_t words[RESULT_WORDS];
    int n = 0;
    memcpy(words, results + (size_t)i * sizeof words, sizeof words);
    for (int k = 0; k < n_best; k++)
        if (words[2 * k] != 0)
            known[n++] = (struct candidate){ logit_of(words[2 * k]), (quip_token)words[2 * k + 1] };
    for (int k = 0; k < listed->n; k++) {
        const quip_token token = listed->tokens[k];
        if (token < 0 || token >= vocab_size) // a bias may be of any token
            continue;
        known[n].id = token;
        memcpy(&known[n++].logit, &words[2 * MAX_BEST + k], sizeof(float));
    }
    return n;
}

static quip_token draw_known(struct webgpu_device *d, int i, const struct draw *draw,
                             const uint8_t *results)
{
    const struct sampler sampler = { d->candidates, sum_exps };
    struct candidate known[MAX_BEST + MAX_LISTED];
    struct known_logits k = { .at = known,
                              .window = d->listed[i].tokens,
                              .n_window = d->listed[i].n_window };
    k.n = read_known(d, i, results, known);
    return qp_sample_known(&sampler, draw, &k, d->host_logits, d->base.config->vocab_size);
}

static float *host_row(const struct webgpu_device *d, int i)
{
    return d->host_logits + (size_t)i * (size_t)d->base.config->vocab_size;
}

static void copy_logits(struct webgpu_device *d, const uint8_t *logits)
{
    for (int i = 0; i < d->n_host_logits; i++)
        memcpy(host_row(d, i), logits + 4 * (size_t)i * (size_t)d->mem.logits.stride,
               (size_t)d->base.config->vocab_size * sizeof(float));
}

static quip_token draw_from_all(struct webgpu_device *d, int i, const struct draw *draw)
{
    const struct sampler sampler = { d->candidates, sum_exps };
    return qp_sample(&sampler, draw, host_row(d, i), d->base.config->vocab_size);
}

void qp_webgpu_finish_draws(struct webgpu_device *d, const uint8_t *tokens, const uint8_t *results)
{
    bool is_wrong = false;
    copy_logits(d, results);
    if (d->n_draws > 0 && d->sample == SAMPLE_GREEDY)
        memcpy(d->tokens, tokens, (size_t)d->n_draws * sizeof *d->tokens);
    for (int i = 0; i < d->n_draws; i++) {
        struct draw draw = d->draws[i];
        draw.sampling = &d->sampling[i];
        if (is_wrong)
            d->tokens[i] = -1;
        else if (d->sample == SAMPLE_KNOWN)
            d->tokens[i] = draw_known(d, i, &draw, results);
        else if (d->sample == SAMPLE_ALL)
            d->tokens[i] = draw_from_all(d, i, &draw);
        is_wrong = draw.expected >= 0 && (is_wrong || d->tokens[i] != draw.expected);
    }
    d->n_draws = 0;
}
