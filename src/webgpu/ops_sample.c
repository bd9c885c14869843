/* ops_sample.c: draws: logits on the GPU -> tokens.
 * In:  logits on the GPU, draws.
 * Out: a token for each draw.
 *
 * Without penalties the most likely token is found on the GPU. For a draw with top_k, the few
 * logits that it depends on come back, and the sampler draws from them: those of the tokens in the
 * window of the penalties, and the top_k most likely of the others. It is the token that the
 * sampler draws from all logits. Without top_k all of them come back.
 *
 * A batch that runs ahead has a draw for each of its tokens, one after the other. The GPU runs the
 * token that it finds or guesses (draw.wgsl). What comes back is the same, and the sampler has the
 * last word: after a wrong guess the other tokens do not count. */
#include "base/math.h"
#include "webgpu/webgpu_impl.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    ARGMAX_LOGITS = 4096, // of a workgroup of argmax.wgsl
    TOP_K_LOGITS = 1024,  // of a workgroup of top_k.wgsl
    DRAW_HEADER = 32,     // words of DRAWS before the list: its length, where the mask is,
    DRAW_ENDS = 8,        // from here on the tokens that end an answer, and before them how many
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

/* Of the last pass `at` is the first draw. */
static quip_status run_argmax(struct webgpu_device *d, const struct scratch *from, int from_stride,
                              const struct scratch *to, int at, int n_logits, int n, bool is_last)
{
    const int n_groups = is_last ? 1 : groups_of(n_logits, ARGMAX_LOGITS);
    const struct parameters {
        uint32_t n, x_stride, best_at, best_stride;
    } parameters = { (uint32_t)n_logits, (uint32_t)from_stride, (uint32_t)at,
                     2 * (uint32_t)n_groups };
    return qp_webgpu_dispatch(d, &(struct call){ .shader = SHADER_ARGMAX,
                                                 .constants = { is_last },
                                                 .parameters = &parameters,
                                                 .n_parameters = sizeof parameters,
                                                 .bindings = { range_of(from), range_of(to) },
                                                 .x = (uint32_t)n_groups,
                                                 .y = (uint32_t)n });
}

static quip_status find_most_likely(struct webgpu_device *d, int first, int n)
{
    const struct batch_memory *m = &d->mem;
    const int vocab_size = d->base.config->vocab_size;
    const int n_candidates = groups_of(vocab_size, ARGMAX_LOGITS);
    const quip_status status =
        run_argmax(d, &m->logits, m->logits.stride, &m->candidates, 0, vocab_size, n, false);
    return status ? status
                  : run_argmax(d, &m->candidates, 2 * n_candidates, &m->tokens, first, n_candidates,
                               n, true);
}

/* ---- the most likely tokens ---- */

static int n_window(const struct draw *draw)
{
    const uint64_t window = (uint64_t)draw->sampling->window;
    return (int)(draw->index < window ? draw->index : window);
}

/* Can it be drawn from results of top_k.wgsl, also after tokens that were drawn ahead? */
static bool needs_few(const struct draw *draw, int vocab_size)
{
    const int n_best = qp_sample_n_best(draw->sampling, vocab_size);
    return n_best > 0 && n_best <= MAX_BEST &&
           n_window(draw) <= MAX_LISTED - SEQUENCE_OUTPUTS - draw->sampling->n_bias;
}

/* The tokens whose logits draw number i needs in any case; those of a row that runs ahead are those
 * of the draw before, and the token of that draw. */
static void list_tokens(struct webgpu_device *d, int i, const struct draw *draw)
{
    struct listed *listed = &d->listed[i];
    const struct sampling *o = draw->sampling;
    if (i >= d->first_ahead) {
        *listed = d->listed[i - 1];
        listed->n_ahead++;
        return;
    }
    *listed = (struct listed){ .n_bias = o->n_bias, .n = o->n_bias + n_window(draw) };
    for (int b = 0; b < o->n_bias; b++)
        listed->tokens[b] = o->bias[b].token;
    if (listed->n > o->n_bias)
        memcpy(listed->tokens + o->n_bias, draw->context + draw->index - (uint64_t)n_window(draw),
               (size_t)n_window(draw) * sizeof *listed->tokens);
}

/* Tell the shaders what draw number i is about: header, list, mask. */
static void write_draw(struct webgpu_device *d, int i, const struct draw *draw)
{
    const struct listed *listed = &d->listed[i];
    const struct sampling *o = draw->sampling;
    const int vocab_size = d->base.config->vocab_size;
    const uint64_t at = 4 * (uint64_t)i * (uint64_t)qp_webgpu_draw_words(vocab_size);
    uint32_t header[DRAW_HEADER] = { (uint32_t)listed->n,
                                     draw->allowed ? DRAW_HEADER + MAX_LISTED : NO_INDEX };
    _Static_assert(DRAW_ENDS + MAX_ENDS <= DRAW_HEADER, "all fit");
    header[DRAW_ENDS - 1] = (uint32_t)o->n_ends;
    if (o->n_ends > 0)
        memcpy(header + DRAW_ENDS, o->ends, (size_t)o->n_ends * sizeof *o->ends);
    qp_gpu_write(d->gpu, d->mem.draws.buffer, at, header, sizeof header);
    if (listed->n > 0)
        qp_gpu_write(d->gpu, d->mem.draws.buffer, at + sizeof header, listed->tokens,
                     (size_t)listed->n * sizeof *listed->tokens);
    if (draw->allowed)
        qp_gpu_write(d->gpu, d->mem.draws.buffer, at + 4 * (DRAW_HEADER + MAX_LISTED),
                     draw->allowed, 4 * (size_t)mask_words(vocab_size));
}

/* For n draws, the k most likely tokens and the logits of the listed ones. */
static quip_status find_best(struct webgpu_device *d, int first, int n, int k)
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
            uint32_t found_at, found_stride, first_draw, n_ahead;
        } parameters = { (uint32_t)n_left,
                         (uint32_t)k,
                         (uint32_t)m->logits.stride,
                         (uint32_t)qp_webgpu_draw_words(vocab_size),
                         (uint32_t)ats[from],
                         (uint32_t)strides[from],
                         (uint32_t)(is_last ? first * RESULT_WORDS : ats[to]),
                         is_last ? RESULT_WORDS : (uint32_t)strides[to],
                         (uint32_t)(first * RESULT_WORDS + 2 * MAX_BEST),
                         RESULT_WORDS,
                         (uint32_t)first,
                         (uint32_t)d->listed[first].n_ahead };
        status = qp_webgpu_dispatch(
            d, &(struct call){ .shader = SHADER_TOP_K,
                               .constants = { pass == 1 },
                               .parameters = &parameters,
                               .n_parameters = sizeof parameters,
                               .bindings = { range_of(&m->logits), range_of(&m->draws),
                                             range_of(&m->tokens), range_of(&m->candidates) },
                               .x = (uint32_t)n_groups,
                               .y = (uint32_t)n });
        n_left = n_groups * k;
    }
    return status;
}

/* How the draws of a batch are made. */
static enum sample kind_of(const struct draw *draws, int n, int vocab_size)
{
    enum sample kind = SAMPLE_GREEDY;
    for (int i = 0; i < n; i++) {
        if (!needs_few(&draws[i], vocab_size))
            return SAMPLE_ALL;
        if (!is_greedy(&draws[i]))
            kind = SAMPLE_KNOWN;
    }
    return kind;
}

quip_status qp_webgpu_sample(struct device *device, const struct draw *draws, int n)
{
    struct webgpu_device *d = webgpu_of(device);
    const int vocab_size = device->config->vocab_size, first = d->n_draws;
    int k = 0;
    assert(n > 0 && first + n <= LOGITS_ROWS);
    d->n_draws += n;
    if (first == 0) {
        d->sample = kind_of(draws, n, vocab_size);
        d->first_ahead = n;
    }
    for (int i = 0; i < n; i++) {
        d->draws[first + i] = draws[i];
        d->sampling[first + i] = *draws[i].sampling;
        k = qp_max(k, qp_sample_n_best(draws[i].sampling, vocab_size));
    }
    if (d->sample == SAMPLE_GREEDY)
        return find_most_likely(d, first, n);
    if (d->sample == SAMPLE_ALL)
        return QUIP_OK;
    for (int i = 0; i < n; i++) {
        list_tokens(d, first + i, &draws[i]);
        write_draw(d, first + i, &draws[i]);
    }
    return find_best(d, first, n, k);
}

/* ---- running ahead ---- */

int qp_webgpu_max_ahead(const struct device *device, const struct draw *draw)
{
    /* The CPU reads per-layer embeddings, so it must know the token. */
    const bool is_known = device->config->d_ple > 0 || draw->allowed || draw->sampling->n_bias > 0;
    return !is_known && needs_few(draw, device->config->vocab_size) ? SEQUENCE_OUTPUTS - 1 : 0;
}

quip_status qp_webgpu_guess(struct webgpu_device *d)
{
    const int i = d->n_draws - 1;
    const struct sampling *o = &d->sampling[i];
    const int k = qp_sample_n_best(o, d->base.config->vocab_size);
    assert(i >= 0);
    if (d->sample == SAMPLE_GREEDY)
        return QUIP_OK; // it is known
    const uint64_t seed = d->draws[i].seed;
    const struct parameters {
        uint32_t draw, n_ahead, draw_at, best_at, found_at, k, window;
        uint32_t seed_low, seed_high, index;
        float temperature, top_p, min_p, repeat, presence, frequency;
    } parameters = { (uint32_t)i,
                     (uint32_t)d->listed[i].n_ahead,
                     (uint32_t)(i * qp_webgpu_draw_words(d->base.config->vocab_size)),
                     (uint32_t)(i * RESULT_WORDS),
                     (uint32_t)(i * RESULT_WORDS + 2 * MAX_BEST),
                     (uint32_t)k,
                     (uint32_t)o->window,
                     (uint32_t)seed,
                     (uint32_t)(seed >> 32),
                     (uint32_t)d->draws[i].index,
                     k == 1 ? 0 : o->temperature,
                     o->top_p > 0 ? o->top_p : 1,
                     o->min_p,
                     o->repeat,
                     o->presence,
                     o->frequency };
    return qp_webgpu_dispatch(
        d, &(struct call){ .shader = SHADER_DRAW,
                           .parameters = &parameters,
                           .n_parameters = sizeof parameters,
                           .bindings = { range_of(&d->mem.draws), range_of(&d->mem.candidates),
                                         range_of(&d->mem.tokens) },
                           .x = 1 });
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
    for (int k = 0; k < listed->n + listed->n_ahead; k++) {
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
    struct listed *listed = &d->listed[i];
    struct candidate known[MAX_BEST + MAX_LISTED];
    const int n = listed->n + listed->n_ahead - listed->n_bias;
    memcpy(listed->tokens + listed->n, d->tokens + i - listed->n_ahead,
           (size_t)listed->n_ahead * sizeof *listed->tokens);
    struct known_logits k = { .at = known,
                              .window = listed->tokens + listed->n_bias,
                              .n_window = n };
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
    quip_token found[LOGITS_ROWS]; // by the GPU
    bool is_wrong = false;
    memcpy(found, tokens, sizeof found);
    copy_logits(d, results);
    for (int i = 0; i < d->n_draws; i++) {
        struct draw draw = d->draws[i];
        draw.sampling = &d->sampling[i];
        if (is_wrong)
            d->tokens[i] = -1;
        else if (d->sample == SAMPLE_GREEDY)
            d->tokens[i] = found[i];
        else if (d->sample == SAMPLE_KNOWN)
            d->tokens[i] = draw_known(d, i, &draw, results);
        else
            d->tokens[i] = draw_from_all(d, i, &draw);
        const bool is_run = i + 1 >= d->first_ahead && i + 1 < d->n_draws; // on the GPU
        const quip_token expected = is_run ? found[i] : draw.expected;
        is_wrong = (is_run || expected >= 0) && (is_wrong || d->tokens[i] != expected);
    }
    d->n_draws = 0;
}
