/* sampler.c: only as many logits are put in order as the draw needs. A heap gives up the likeliest
 * first; what cannot be among them is passed over a block at a time. */
#include "sampler/sampler.h"

#include "cpu/kernels.h"

#include <math.h>

enum {
    BLOCK = 64,    // logits that are passed over together
    WEIGHTS = 1024 // logits whose weights are added as floats
};

/* The first tier of candidates has weights above exp(-FIRST_DEPTH) of the best; each goes twice as
 * deep as the one before, and the one after LAST_DEPTH takes all. */
#define FIRST_DEPTH 4.0f
#define LAST_DEPTH 32.0f

void qp_sampler_take(struct sampler *s, struct arena *a, int vocab_size)
{
    if (s->temperature == 0 || s->top_k == 1)
        return;
    const bool is_limited = s->top_k > 0 && s->top_k < vocab_size;
    const int n = is_limited ? s->top_k : vocab_size;
    s->candidates = qp_arena_alloc(a, (size_t)n * sizeof *s->candidates);
    s->sum_exp = qp_kernels_for(qp_cpu_features()).sum_exp;
}

/* SplitMix64 (Steele, Lea, Flood 2014) spreads a seed over the state. */
static uint64_t split_mix(uint64_t *x)
{
    uint64_t z = *x += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

void qp_sampler_seed(struct sampler *s, uint64_t seed)
{
    for (int i = 0; i < 4; i++)
        s->state[i] = split_mix(&seed);
}

static uint64_t rotate_left(uint64_t x, int k)
{
    return x << k | x >> (64 - k);
}

/* A number in [0, 1): the high 53 bits of xoshiro256** (Blackman and Vigna 2018). */
static double uniform(uint64_t s[4])
{
    uint64_t result = rotate_left(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return (double)(result >> 11) * 0x1p-53;
}

/* Whether one of a block of logits is above the bar; a loop that compilers make vectors of. */
static bool is_any_above(const float logits[BLOCK], float bar)
{
    int n = 0;
    for (int i = 0; i < BLOCK; i++)
        n += logits[i] > bar;
    return n > 0;
}

/* The first logit from `from` on that is above the bar; n when there is none. */
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

static quip_token likeliest(const float *logits, int n)
{
    quip_token best = 0;
    float max = -INFINITY; // a NaN is above nothing
    for (int i = 0; (i = find_above(logits, i, n, max)) < n; i++) {
        max = logits[i];
        best = i;
    }
    return best;
}

/* ---- heaps: the likeliest at [0], or the least likely; of equals the lower id is likelier ---- */

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

/* ---- the order of the likeliest ----
 * Candidates are gathered in tiers, from the best down: a draw seldom gets beyond the first. The
 * tier in work is a heap whose best are popped to its back; those above it lie in order. */

struct ranking {
    const float *logits;
    int vocab_size;
    struct candidate *at; // [begin] in order, then the tier
    int begin, n_tier, n_popped;
    float bar;                     // the tier's are above it
    float max, temperature, depth; // bar is max - depth * temperature
};

/* All tiers at once: the k likeliest. */
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

/* Put the tier that is used up in order and go on to the next. */
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

/* The i-th likeliest; those before it have been asked for. */
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
        tail[j] = i + j < n ? logits[i + j] : NAN; // which weighs nothing
    return total + s->sum_exp(tail, max, factor, 16);
}

quip_token qp_sample(struct sampler *s, const float *logits, int vocab_size)
{
    if (!s->candidates)
        return likeliest(logits, vocab_size);

    const float max = logits[likeliest(logits, vocab_size)], factor = 1.0f / s->temperature;
    const bool is_limited = s->top_k > 0 && s->top_k < vocab_size;
    const int k = is_limited ? s->top_k : vocab_size;
    struct ranking r = { .logits = logits,
                         .vocab_size = vocab_size,
                         .at = s->candidates,
                         .bar = INFINITY,
                         .max = max,
                         .temperature = s->temperature };
    double total = 0;
    if (is_limited) {
        gather_top_k(&r, k);
        for (int i = 0; i < k; i++)
            total += qp_exp((ranked(&r, i).logit - max) * factor);
    } else {
        total = total_weight(s, logits, vocab_size, max, factor);
    }

    /* Nothing to weigh: the best is infinite, or infinitely better at such a temperature. */
    if (!(total > 0))
        return ranked(&r, 0).id;

    /* top_p keeps the shortest run, best first, whose sum reaches p; then draw from it. */
    double kept = total;
    if (s->top_p < 1) {
        kept = 0;
        for (int i = 0; i < k && kept < s->top_p * total; i++)
            kept += qp_exp((ranked(&r, i).logit - max) * factor);
    }
    double left = uniform(s->state) * kept;
    quip_token last = ranked(&r, 0).id;
    for (int i = 0; i < k && left >= 0; i++) {
        last = ranked(&r, i).id;
        left -= qp_exp((ranked(&r, i).logit - max) * factor);
    }
    return last;
}
