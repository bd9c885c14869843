/* ops_sample.c: draws: logits on the GPU -> tokens.
 * In:  logits on the GPU, draws.
 * Out: what ops_results.c makes tokens of.
 *
 * Without penalties the most likely token is found on the GPU. Of other draws few logits come back,
 * and the sum of all weights (select.wgsl): those of the tokens in the window of the penalties, and
 * the most likely of the others. The sampler draws from them.
 *
 * A batch that runs ahead has a draw for each of its tokens, one after the other. The GPU runs the
 * token that it finds or guesses (draw.wgsl). What comes back is the same, and the sampler has the
 * last word: after a wrong guess the other tokens do not count. */
#include "webgpu/webgpu_impl.h"

#include <assert.h>
#include <string.h>

enum {
    ARGMAX_LOGITS = 1024, // of a workgroup of argmax.wgsl
    N_BINS = 256,         // of select.wgsl
    N_PASSES = 3,         // of it
    DRAW_HEADER = 32,     // words of DRAWS before the list
    DRAW_ENDS = 8,        // from here on the tokens that end an answer, and before them how many
    DRAW_BIAS = DRAW_HEADER + MAX_LISTED, // the biases of the first tokens in the list
    DRAW_MASK = DRAW_BIAS + MAX_LISTED,
    MAX_UNDECIDED = 32 // see qp_webgpu_sample
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
    return DRAW_MASK + mask_words(vocab_size);
}

/* Of a row, between the passes of select.wgsl. */
static int work_words(int vocab_size)
{
    return groups_of(vocab_size, SELECT_LOGITS) + N_BINS;
}

/* The buffer has the results of all draws, then what is between the passes. */
int qp_webgpu_candidate_words(int vocab_size)
{
    const int argmax =
        4 * qp_max(AHEAD_DRAWS * groups_of(vocab_size, ARGMAX_LOGITS), MAX_CANDIDATES);
    const int selected = qp_webgpu_result_words(vocab_size) + work_words(vocab_size);
    return qp_max(argmax, AHEAD_DRAWS * selected);
}

/* ---- the most likely token ---- */

static bool is_greedy(const struct draw *draw)
{
    const struct sampling *s = draw->sampling;
    return (s->temperature == 0 || s->top_k == 1) && s->window == 0 && s->n_bias == 0 &&
           !draw->allowed;
}

/* Of the last pass `at` is the first draw; of the other, from_at is where its logits are. */
static quip_status run_argmax(struct webgpu_device *d, const struct scratch *from, int from_at,
                              int from_stride, const struct scratch *to, int at, int n_logits,
                              int n, bool is_last)
{
    const int n_groups = is_last ? 1 : groups_of(n_logits, ARGMAX_LOGITS);
    const struct parameters {
        uint32_t n, x_at, x_stride, best_at, best_stride;
    } parameters = { (uint32_t)n_logits, (uint32_t)from_at, (uint32_t)from_stride, (uint32_t)at,
                     4 * (uint32_t)n_groups };
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
    if (n == 1 && d->n_candidates > 0) { // the product found some
        d->pending.best.draw = first;
        d->pending.best.n = d->n_candidates;
        return QUIP_OK;
    }
    const quip_status status = run_argmax(d, &m->logits, first * m->logits.stride, m->logits.stride,
                                          &m->candidates, 0, vocab_size, n, false);
    return status ? status
                  : run_argmax(d, &m->candidates, 0, 4 * n_candidates, &m->tokens, first,
                               n_candidates, n, true);
}

quip_status qp_webgpu_settle_best(struct webgpu_device *d)
{
    const int n = d->pending.best.n;
    d->pending.best.n = 0;
    return run_argmax(d, &d->mem.candidates, 0, 4 * n, &d->mem.tokens, d->pending.best.draw, n, 1,
                      true);
}

/* ---- the most likely tokens ---- */

static int n_window(const struct draw *draw)
{
    const uint64_t window = (uint64_t)draw->sampling->window;
    return (int)(draw->index < window ? draw->index : window);
}

int qp_webgpu_n_selected(const struct webgpu_device *d, int i)
{
    return qp_min(MAX_BEST, MAX_SELECTED - d->listed[i].n - d->listed[i].n_ahead);
}

/* Can it be drawn from results of select.wgsl, also after tokens that were drawn ahead? With top_k
 * the last bin may bring more tokens. */
static bool needs_few(const struct webgpu_device *d, const struct draw *draw)
{
    const int n_best = qp_sample_n_best(draw->sampling, d->base.config->vocab_size);
    const int64_t n_listed = (int64_t)n_window(draw) + draw->sampling->n_bias + AHEAD_DRAWS;
    return n_listed <= MAX_LISTED && n_best + n_best / 2 <= MAX_SELECTED - n_listed &&
           (n_best > 0 || d->n_undecided < MAX_UNDECIDED);
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

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static void write_list(struct webgpu_device *d, int i, const struct draw *draw, uint64_t at)
{
    const struct listed *listed = &d->listed[i];
    const struct sampling *o = draw->sampling;
    float bias[MAX_LISTED];
    for (int b = 0; b < o->n_bias; b++)
        bias[b] = o->bias[b].bias;
    if (listed->n > 0)
        qp_gpu_write(d->gpu, d->mem.draws.buffer, at + 4 * DRAW_HEADER, listed->tokens,
                     (size_t)listed->n * sizeof *listed->tokens);
    if (o->n_bias > 0)
        qp_gpu_write(d->gpu, d->mem.draws.buffer, at + 4 * DRAW_BIAS, bias,
                     (size_t)o->n_bias * sizeof *bias);
}

/* Tell the shaders what draw number i is about: header, list, mask. */
static void write_draw(struct webgpu_device *d, int i, const struct draw *draw)
{
    const struct listed *listed = &d->listed[i];
    const struct sampling *o = draw->sampling;
    const int vocab_size = d->base.config->vocab_size;
    const uint64_t at = 4 * (uint64_t)i * (uint64_t)qp_webgpu_draw_words(vocab_size);
    uint32_t header[DRAW_HEADER] = { (uint32_t)listed->n, draw->allowed ? DRAW_MASK : NO_INDEX,
                                     (uint32_t)qp_sample_n_best(o, vocab_size),
                                     bits_of(1.0f / o->temperature),
                                     (uint32_t)qp_webgpu_n_selected(d, i) };
    _Static_assert(DRAW_ENDS + MAX_ENDS <= DRAW_HEADER, "all fit");
    header[DRAW_ENDS - 1] = (uint32_t)o->n_ends;
    if (o->n_ends > 0)
        memcpy(header + DRAW_ENDS, o->ends, (size_t)o->n_ends * sizeof *o->ends);
    qp_gpu_write(d->gpu, d->mem.draws.buffer, at, header, sizeof header);
    write_list(d, i, draw, at);
    if (draw->allowed)
        qp_gpu_write(d->gpu, d->mem.draws.buffer, at + 4 * DRAW_MASK, draw->allowed,
                     4 * (size_t)mask_words(vocab_size));
}

/* For n draws, the most likely tokens, the logits of the listed ones, and sums of weights. */
static quip_status select_tokens(struct webgpu_device *d, int first, int n)
{
    const struct batch_memory *m = &d->mem;
    const int vocab_size = d->base.config->vocab_size;
    const int n_groups = groups_of(vocab_size, SELECT_LOGITS);
    const int result = qp_webgpu_result_words(vocab_size);
    const struct parameters {
        uint32_t n, x_stride, draw_stride, first_draw, n_ahead, n_groups;
        uint32_t result_stride, found_at, sums_at, work_at, work_stride;
    } parameters = { (uint32_t)vocab_size,
                     (uint32_t)m->logits.stride,
                     (uint32_t)qp_webgpu_draw_words(vocab_size),
                     (uint32_t)first,
                     (uint32_t)d->listed[first].n_ahead,
                     (uint32_t)n_groups,
                     (uint32_t)result,
                     RESULT_FOUND,
                     RESULT_SUMS,
                     (uint32_t)(AHEAD_DRAWS * result),
                     (uint32_t)work_words(vocab_size) };
    quip_status status = QUIP_OK;
    for (int pass = 1; pass <= N_PASSES && !status; pass++)
        status = qp_webgpu_dispatch(
            d, &(struct call){ .shader = SHADER_SELECT,
                               .constants = { pass },
                               .parameters = &parameters,
                               .n_parameters = sizeof parameters,
                               .bindings = { range_of(&m->logits), range_of(&m->draws),
                                             range_of(&m->tokens), range_of(&m->candidates) },
                               .x = (uint32_t)n_groups,
                               .y = (uint32_t)n });
    return status;
}

/* How the draws of a batch are made. */
static enum sample kind_of(struct webgpu_device *d, const struct draw *draws, int n)
{
    enum sample kind = SAMPLE_GREEDY;
    for (int i = 0; i < n; i++) {
        if (!needs_few(d, &draws[i])) {
            d->n_undecided = qp_max(d->n_undecided - 1, 0);
            return SAMPLE_ALL;
        }
        if (!is_greedy(&draws[i]))
            kind = SAMPLE_KNOWN;
    }
    return kind;
}

/* While few draws without top_k are decided by few logits, all logits come back at once. */
quip_status qp_webgpu_sample(struct device *device, const struct draw *draws, int n)
{
    struct webgpu_device *d = webgpu_of(device);
    const int first = d->n_draws;
    assert(n > 0 && first + n <= AHEAD_DRAWS);
    d->n_draws += n;
    if (first == 0) {
        d->sample = kind_of(d, draws, n);
        d->first_ahead = n;
    }
    for (int i = 0; i < n; i++) {
        d->draws[first + i] = draws[i];
        d->sampling[first + i] = *draws[i].sampling;
    }
    if (d->sample == SAMPLE_GREEDY)
        return find_most_likely(d, first, n);
    if (d->sample == SAMPLE_ALL)
        return QUIP_OK;
    for (int i = 0; i < n; i++) {
        list_tokens(d, first + i, &draws[i]);
        write_draw(d, first + i, &draws[i]);
    }
    return select_tokens(d, first, n);
}

/* ---- running ahead ---- */

int qp_webgpu_max_ahead(const struct device *device, const struct draw *draw)
{
    /* The CPU reads per-layer embeddings, so it must know the token, and so must a grammar. */
    const bool is_known = device->config->d_ple > 0 || draw->allowed;
    if (is_known || !needs_few((const struct webgpu_device *)device, draw))
        return 0;
    return (device->config->conv_width > 0 ? COLUMN_DRAWS : AHEAD_DRAWS) - 1;
}

quip_status qp_webgpu_guess(struct webgpu_device *d)
{
    const int i = d->n_draws - 1, vocab_size = d->base.config->vocab_size;
    const struct sampling *o = &d->sampling[i];
    const int k = qp_sample_n_best(o, vocab_size);
    const int draw_at = i * qp_webgpu_draw_words(vocab_size),
              result_at = i * qp_webgpu_result_words(vocab_size);
    assert(i >= 0);
    if (d->sample != SAMPLE_KNOWN)
        return QUIP_OK; // it is known, or any token is as good
    const uint64_t seed = d->draws[i].seed;
    const struct parameters {
        uint32_t draw, n_ahead, vocab_size, draw_at, bias_at, n_bias, result_at, found_at, sums_at;
        uint32_t n_groups, k, window, seed_low, seed_high, index;
        float temperature, top_p, min_p, repeat, presence, frequency;
    } parameters = { (uint32_t)i,
                     (uint32_t)d->listed[i].n_ahead,
                     (uint32_t)vocab_size,
                     (uint32_t)draw_at,
                     (uint32_t)(draw_at + DRAW_BIAS),
                     (uint32_t)d->listed[i].n_bias,
                     (uint32_t)result_at,
                     (uint32_t)(result_at + RESULT_FOUND),
                     (uint32_t)(result_at + RESULT_SUMS),
                     (uint32_t)groups_of(vocab_size, SELECT_LOGITS),
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
