/* sampler.c: logits -> one token.
 * In:  logits, which tokens are allowed, the options, a seed and the number of the draw.
 * Out: a token. The same input gives the same token, on every machine.
 *
 * Only as many logits are sorted as the draw needs: a heap returns the most likely first. Logits
 * that cannot be among them are skipped a block at a time. */
#include "sampler/sampler.h"

#include "base/math.h"

#include <assert.h>
#include <math.h>
#include <string.h>

enum {
    BLOCK = 64,    // logits that are skipped together
    WEIGHTS = 1024 // logits whose weights are added as floats
};

/* The weight of a token is exp((logit - max) / temperature). The first tier of candidates has
 * weights above exp(-FIRST_DEPTH). Each tier goes twice as deep as the one before; the one after
 * LAST_DEPTH has all that are left. */
#define FIRST_DEPTH 4.0f
#define LAST_DEPTH 32.0f

/* ---- random numbers ---- */

/* One block of Philox4x32-10: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1,
 * 2, 3", 2011. The constants are the paper's. */
static void philox(uint32_t counter[4], uint32_t key0, uint32_t key1)
{
    for (int round = 0; round < 10; round++) {
        const uint64_t a = (uint64_t)0xD2511F53u * counter[0],
                       b = (uint64_t)0xCD9E8D57u * counter[2];
        const uint32_t next[4] = { (uint32_t)(b >> 32) ^ counter[1] ^ key0, (uint32_t)b,
                                   (uint32_t)(a >> 32) ^ counter[3] ^ key1, (uint32_t)a };
        for (int i = 0; i < 4; i++)
            counter[i] = next[i];
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
}

void qp_random_block(uint64_t seed, uint64_t index, uint32_t block[4])
{
    block[0] = (uint32_t)index;
    block[1] = (uint32_t)(index >> 32);
    block[2] = block[3] = 0;
    philox(block, (uint32_t)seed, (uint32_t)(seed >> 32));
}

double qp_random_uniform(uint64_t seed, uint64_t index)
{
    uint32_t block[4];
    qp_random_block(seed, index, block);
    const uint64_t bits = (uint64_t)block[1] << 32 | block[0];
    return (double)(bits >> 11) * 0x1p-53;
}

/* ---- the most likely ---- */

/* Is one of a block of logits above the bar? Compilers vectorize this loop. */
static bool is_any_above(const float logits[BLOCK], float bar)
{
    int n = 0;
    for (int i = 0; i < BLOCK; i++)
        n += logits[i] > bar;
    return n > 0;
}

/* Index of the first logit from `from` on that is above the bar, or n. */
static int find_above(const float *logits, int from, int n, float bar)
{
    for (int i = from; i < n;) {
        if (n - i >= BLOCK && !is_any_above(logits + i, bar)) {
            i += BLOCK;
            continue;
        }
        for (int end = n - i < BLOCK ? n : i + BLOCK; i < end; i++)
            if (logits[i] > bar)
                return i;
    }
    return n;
}

static quip_token most_likely(const float *logits, int n)
{
    quip_token best = 0;
    float max = -INFINITY; // no comparison with a NaN is true
    for (int i = 0; (i = find_above(logits, i, n, max)) < n; i++) {
        max = logits[i];
        best = i;
    }
    return best;
}

/* ---- heaps: the most likely at [0], or the least likely; of two equals the lower id is first ----
 */

static bool comes_before(struct candidate a, struct candidate b)
{
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

static void sift_down(struct candidate *heap, int n, int i, bool is_worst_first)
{
    struct candidate moved = heap[i];
    for (int child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && comes_before(heap[child + 1], heap[child]) != is_worst_first)
            child++;
        if (comes_before(heap[child], moved) == is_worst_first)
            break;
        heap[i] = heap[child];
    }
    heap[i] = moved;
}

static void make_heap(struct candidate *heap, int n, bool is_worst_first)
{
    for (int i = n / 2 - 1; i >= 0; i--)
        sift_down(heap, n, i, is_worst_first);
}

/* Move the first of heap[0, n) to heap[n - 1]. */
static void pop(struct candidate *heap, int n)
{
    struct candidate first = heap[0];
    heap[0] = heap[n - 1];
    if (n > 1)
        sift_down(heap, n - 1, 0, false);
    heap[n - 1] = first;
}

static struct candidate candidate(const float *logits, int id)
{
    return (struct candidate){ logits[id] == logits[id] ? logits[id] : -INFINITY, id };
}

/* ---- tokens in order ----
 * Candidates are gathered in tiers, from the best down; most draws need only the first tier. The
 * current tier is a heap; its best candidates are popped to its end. The tiers before it are
 * sorted.
 */

struct ranking {
    const float *logits;
    int vocab_size;
    const struct candidate *known; // [n_known]: gather top_k from these; NULL: from the logits
    int n_known;
    int n_kept;           // the draw is among this many, the most likely
    struct candidate *at; // [begin] sorted candidates, then the current tier
    int begin, n_tier, n_popped;
    float bar;                     // the logits of the tier are above it
    float max, temperature, depth; // bar is max - depth * temperature
};

/* The k most likely tokens, as one tier. */
static void gather_top_k(struct ranking *r, int k)
{
    struct candidate *heap = r->at;
    for (int i = 0; i < k; i++)
        heap[i] = candidate(r->logits, i);
    make_heap(heap, k, true);
    for (int i = k; (i = find_above(r->logits, i, r->vocab_size, heap[0].logit)) < r->vocab_size;
         i++) {
        heap[0] = candidate(r->logits, i);
        sift_down(heap, k, 0, true);
    }
    make_heap(heap, k, false);
    r->n_tier = k;
}

/* The same of those that are known, or all of them if they are fewer. */
static void gather_known(struct ranking *r, int k)
{
    struct candidate *heap = r->at;
    k = qp_min(k, r->n_known);
    memcpy(heap, r->known, (size_t)k * sizeof *heap);
    make_heap(heap, k, true);
    for (int i = k; i < r->n_known; i++) {
        if (!comes_before(r->known[i], heap[0]))
            continue;
        heap[0] = r->known[i];
        sift_down(heap, k, 0, true);
    }
    make_heap(heap, k, false);
    r->n_tier = r->n_kept = k;
}

static void gather_tier(struct ranking *r)
{
    const float above = r->bar;
    r->depth = r->depth ? 2 * r->depth : FIRST_DEPTH;
    r->bar = r->max - r->depth * r->temperature;
    const bool is_last = r->depth > LAST_DEPTH;
    struct candidate *tier = r->at + r->begin;
    int n = 0;
    for (int i = 0; i < r->vocab_size; i++) {
        if (!is_last && (i = find_above(r->logits, i, r->vocab_size, r->bar)) == r->vocab_size)
            break;
        if (!(r->logits[i] > above))
            tier[n++] = candidate(r->logits, i);
    }
    make_heap(tier, n, false);
    r->n_tier = n;
}

/* Sort the current tier, whose candidates were all popped, and gather the next one. */
static void next_tier(struct ranking *r)
{
    struct candidate *tier = r->at + r->begin;
    for (int i = 0, j = r->n_tier - 1; i < j; i++, j--) {
        const struct candidate swapped = tier[i];
        tier[i] = tier[j];
        tier[j] = swapped;
    }
    r->begin += r->n_tier;
    r->n_popped = 0;
    gather_tier(r);
}

/* The i-th most likely token. All before it have been requested. */
static struct candidate ranked(struct ranking *r, int i)
{
    if (i < r->begin)
        return r->at[i];
    while (i - r->begin >= r->n_tier)
        next_tier(r);
    struct candidate *tier = r->at + r->begin;
    if (i - r->begin == r->n_popped)
        pop(tier, r->n_tier - r->n_popped++);
    return tier[r->n_tier - 1 - (i - r->begin)];
}

/* ---- the draw ---- */

/* The sum of all weights. */
static double total_weight(const struct sampler *s, const float *logits, int n, float max,
                           float factor)
{
    double total = 0;
    float tail[16];
    int i = 0;
    for (int step; (step = (n - i) / 16 * 16) > 0; i += step) {
        step = step < WEIGHTS ? step : WEIGHTS;
        total += s->sum_exp(logits + i, max, factor, step);
    }
    for (int j = 0; j < 16; j++)
        tail[j] = i + j < n ? logits[i + j] : NAN; // whose weight is 0
    return total + s->sum_exp(tail, max, factor, 16);
}

static bool is_allowed(const uint32_t *allowed, int token)
{
    return !allowed || allowed[token / 32] >> (token % 32) & 1;
}

/* A token that is not allowed gets probability 0. */
static void apply_mask(float *logits, int vocab_size, const uint32_t *allowed)
{
    for (int i = 0; i < vocab_size; i += 32)
        for (int j = i; allowed[i / 32] != UINT32_MAX && j < i + 32 && j < vocab_size; j++)
            if (!is_allowed(allowed, j))
                logits[j] = -INFINITY;
}

/* `token` if it is allowed. It is not if all allowed tokens have logits of -inf or NaN: then the
 * first of them. */
static quip_token allowed_token(const uint32_t *allowed, int vocab_size, quip_token token)
{
    if (is_allowed(allowed, token))
        return token;
    for (int i = 0; i < vocab_size; i++)
        if (is_allowed(allowed, i))
            return i;
    return token;
}

static bool has_top_p(const struct sampling *o)
{
    return o->top_p > 0 && o->top_p < 1;
}

/* Gather the tokens to draw from, and add up their weights. The k most likely need one pass over
 * the logits, which also finds the best. Without that limit there are more passes; min_p alone does
 * not need the sum, which is then infinite. */
static double gather_tokens(const struct sampler *s, const struct sampling *o, struct ranking *r)
{
    const float factor = 1.0f / o->temperature;
    double total = 0;
    if (!r->known && r->n_kept == r->vocab_size) {
        r->max = r->logits[most_likely(r->logits, r->vocab_size)];
        if (o->min_p > 0 && !has_top_p(o))
            return (double)INFINITY;
        return total_weight(s, r->logits, r->vocab_size, r->max, factor);
    }
    if (r->known)
        gather_known(r, r->n_kept);
    else
        gather_top_k(r, r->n_kept);
    r->max = ranked(r, 0).logit;
    for (int i = 0; i < r->n_kept; i++)
        total += qp_exp((ranked(r, i).logit - r->max) * factor);
    return total;
}

/* Draw a token. */
static quip_token draw_token(const struct sampler *s, const struct draw *draw, struct ranking *r)
{
    const struct sampling *o = draw->sampling;
    const float factor = 1.0f / o->temperature;
    const double total = gather_tokens(s, o, r);

    /* No weights: the best logit is infinite, or the temperature makes it infinitely better. */
    if (!(total > 0))
        return ranked(r, 0).id;

    /* top_p keeps the fewest tokens, best first, whose weights add up to p; of these, min_p keeps
     * those whose weight is at least that. The best has weight 1. Draw from what is kept. */
    double kept = total;
    const double enough = has_top_p(o) ? o->top_p * total : total;
    if (enough < total || o->min_p > 0) {
        kept = 0;
        for (int i = 0; i < r->n_kept && kept < enough; i++) {
            const float weight = qp_exp((ranked(r, i).logit - r->max) * factor);
            if (i > 0 && weight < o->min_p)
                break;
            kept += weight;
        }
    }
    double left = qp_random_uniform(draw->seed, draw->index) * kept;
    quip_token last = ranked(r, 0).id;
    for (int i = 0; i < r->n_kept && left >= 0; i++) {
        last = ranked(r, i).id;
        left -= qp_exp((ranked(r, i).logit - r->max) * factor);
    }
    return last;
}

quip_token qp_sample(const struct sampler *s, const struct draw *draw, float *logits,
                     int vocab_size)
{
    const struct sampling *o = draw->sampling;
    assert(vocab_size > 0 && o->temperature >= 0 && o->top_k >= 0);
    qp_penalize(o, draw->context, (int)draw->index, s->candidates, logits, vocab_size);
    if (draw->allowed)
        apply_mask(logits, vocab_size, draw->allowed);
    if (o->temperature == 0 || o->top_k == 1)
        return allowed_token(draw->allowed, vocab_size, most_likely(logits, vocab_size));
    struct ranking r = { .logits = logits,
                         .vocab_size = vocab_size,
                         .n_kept = o->top_k > 0 ? qp_min(o->top_k, vocab_size) : vocab_size,
                         .at = s->candidates,
                         .bar = INFINITY,
                         .temperature = o->temperature };
    return allowed_token(draw->allowed, vocab_size, draw_token(s, draw, &r));
}

/* ---- a draw from a part of the logits ---- */

int qp_sample_n_best(const struct sampling *o, int vocab_size)
{
    if (o->temperature == 0 || o->top_k == 1)
        return 1;
    return o->top_k < vocab_size ? o->top_k : 0;
}

/* Leave each token once, with its logit after the penalties, or -inf; returns how many. */
static int settle_known(const struct sampler *s, const struct draw *draw,
                        const struct known_logits *k, float *logits, int vocab_size)
{
    int n = 0;
    for (int i = 0; i < k->n; i++) {
        assert(k->at[i].id >= 0 && k->at[i].id < vocab_size);
        logits[k->at[i].id] = k->at[i].logit;
    }
    qp_penalize(draw->sampling, k->window, k->n_window, s->candidates, logits, vocab_size);
    for (int i = 0; i < k->n; i++)
        s->candidates[k->at[i].id].id = 0;
    for (int i = 0; i < k->n; i++) {
        const quip_token id = k->at[i].id;
        if (s->candidates[id].id++ > 0)
            continue;
        k->at[n] = candidate(logits, id);
        if (!is_allowed(draw->allowed, id))
            k->at[n].logit = -INFINITY;
        n++;
    }
    return n;
}

/* As most_likely: token 0 if no logit is above -inf. */
static quip_token most_likely_known(const struct candidate *known, int n)
{
    struct candidate best = { -INFINITY, 0 };
    for (int i = 0; i < n; i++)
        if (known[i].logit > best.logit || (known[i].logit == best.logit && best.id > known[i].id))
            best = known[i];
    return best.id;
}

quip_token qp_sample_known(const struct sampler *s, const struct draw *draw,
                           const struct known_logits *k, float *logits, int vocab_size)
{
    const struct sampling *o = draw->sampling;
    const int n_best = qp_sample_n_best(o, vocab_size);
    assert(k->n > 0 && n_best > 0);
    const int n = settle_known(s, draw, k, logits, vocab_size);
    if (o->temperature == 0 || o->top_k == 1)
        return allowed_token(draw->allowed, vocab_size, most_likely_known(k->at, n));
    struct ranking r = { .known = k->at,
                         .n_known = n,
                         .vocab_size = vocab_size,
                         .n_kept = n_best,
                         .at = s->candidates,
                         .temperature = o->temperature };
    return allowed_token(draw->allowed, vocab_size, draw_token(s, draw, &r));
}

/* ---- a draw from bounds ---- */

/* Is the i-th most likely token known? All before it are. */
static bool is_ranked(struct ranking *r, const struct known_logits *k, int i)
{
    return i < r->n_known && ranked(r, i).logit >= k->least;
}

static float weight_of(const struct sampling *o, float logit, float max)
{
    return qp_exp((logit - max) * (1.0f / o->temperature));
}

/* About the sum of all weights, and `infinity` if only min_p limits the draw, as gather_tokens. */
static double bounded_total(const struct sampling *o, const struct known_logits *k,
                            const struct ranking *r)
{
    double total = k->sum > 0 ? (double)weight_of(o, k->max, r->max) * k->sum : 0;
    if (o->min_p > 0 && !has_top_p(o))
        return (double)INFINITY;
    for (int i = k->n_best; i < r->n_known; i++)
        total += weight_of(o, r->known[i].logit, r->max);
    return total;
}

/* draw_token, for all sums of weights that may be right. Each step of it is monotonic in that sum,
 * so it is enough to follow the lowest and the highest one. */
static quip_token draw_bounded(const struct draw *draw, const struct known_logits *k,
                               struct ranking *r, double total)
{
    const struct sampling *o = draw->sampling;
    const double error = 2 * SUM_ERROR; // and what is rounded here and in total_weight
    double low = total * (1 - error), high = total * (1 + error);
    if (has_top_p(o) || o->min_p > 0) {
        const double share = has_top_p(o) ? o->top_p : 1;
        double kept = 0;
        for (int i = 0; kept < share * high; i++) {
            if (kept >= share * low || !is_ranked(r, k, i))
                return -1;
            const float weight = weight_of(o, ranked(r, i).logit, r->max);
            if (i > 0 && weight < o->min_p)
                break;
            kept += weight;
        }
        low = high = kept;
    }
    const double u = qp_random_uniform(draw->seed, draw->index);
    quip_token last = -1;
    low *= u;
    high *= u;
    for (int i = 0; high >= 0; i++) {
        if (low < 0 || !is_ranked(r, k, i))
            return -1;
        const float weight = weight_of(o, ranked(r, i).logit, r->max);
        last = ranked(r, i).id;
        low -= weight;
        high -= weight;
    }
    return last;
}

quip_token qp_sample_bounded(const struct sampler *s, const struct draw *draw,
                             const struct known_logits *k, float *logits, int vocab_size)
{
    assert(qp_sample_n_best(draw->sampling, vocab_size) == 0 && k->n_best <= k->n);
    const int n = k->n > 0 ? settle_known(s, draw, k, logits, vocab_size) : 0;
    struct ranking r = { .known = k->at, .n_known = n, .at = s->candidates };
    if (n == 0)
        return -1;
    gather_known(&r, n);
    r.max = ranked(&r, 0).logit;
    if (!is_ranked(&r, k, 0) || !isfinite(r.max) || !isfinite(1.0f / draw->sampling->temperature))
        return -1;
    const double total = bounded_total(draw->sampling, k, &r);
    const quip_token token = total > 0 ? draw_bounded(draw, k, &r, total) : -1;
    return token < 0 ? -1 : allowed_token(draw->allowed, vocab_size, token);
}
