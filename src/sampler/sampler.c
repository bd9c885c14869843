/* sampler.c: a heap of candidates gives up the likeliest first, so that only as many are put in
 * order as the draw needs. */
#include "sampler/sampler.h"

#include "cpu/kernels.h"

#include <math.h>

void qp_sampler_take(struct sampler *s, struct arena *a, int vocab_size)
{
    if (s->temperature > 0 && s->top_k != 1)
        s->candidates = qp_arena_take(a, (size_t)vocab_size * sizeof *s->candidates);
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

static quip_token likeliest(const float *logits, int n)
{
    int best = 0;
    float max = -INFINITY;
    for (int i = 0; i < n; i++)
        if (logits[i] > max) {
            max = logits[i];
            best = i;
        }
    return best;
}

/* ---- the heap: the likeliest at [0], ties to the lower id ---- */

static bool comes_before(struct candidate a, struct candidate b)
{
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

static void sift_down(struct candidate *heap, int n, int i)
{
    struct candidate moved = heap[i];
    for (int child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && comes_before(heap[child + 1], heap[child]))
            child++;
        if (!comes_before(heap[child], moved))
            break;
        heap[i] = heap[child];
    }
    heap[i] = moved;
}

/* Move the best of heap[0, n) to heap[n - 1]. */
static void pop(struct candidate *heap, int n)
{
    struct candidate best = heap[0];
    heap[0] = heap[n - 1];
    if (n > 1)
        sift_down(heap, n - 1, 0);
    heap[n - 1] = best;
}

quip_token qp_sample(struct sampler *s, const float *logits, int vocab_size)
{
    if (!s->candidates)
        return likeliest(logits, vocab_size);

    struct candidate *heap = s->candidates;
    for (int i = 0; i < vocab_size; i++)
        heap[i] = (struct candidate){ logits[i] == logits[i] ? logits[i] : -INFINITY, i };
    for (int i = vocab_size / 2 - 1; i >= 0; i--)
        sift_down(heap, vocab_size, i);

    /* Pop the survivors of top_k: they end up at the back of the array, best last. */
    const int k = s->top_k > 0 && s->top_k < vocab_size ? s->top_k : vocab_size;
    const struct candidate best = heap[0];
    const float max = best.logit, per_degree = 1.0f / s->temperature;
    int n_popped = 0;
    double total = 0;
    if (k < vocab_size)
        for (; n_popped < k; n_popped++) {
            pop(heap, vocab_size - n_popped);
            total += qp_exp((heap[vocab_size - 1 - n_popped].logit - max) * per_degree);
        }
    else
        for (int i = 0; i < vocab_size; i++)
            total += qp_exp((logits[i] == logits[i] ? logits[i] - max : -INFINITY) * per_degree);

    /* Nothing to weigh: the best is infinite, or infinitely better at such a temperature. */
    if (!(total > 0))
        return best.id;

    /* top_p keeps the shortest run, best first, whose sum reaches p; then draw from it. */
    double kept = total;
    if (s->top_p < 1) {
        kept = 0;
        for (int i = 0; i < k && kept < s->top_p * total; i++) {
            if (i >= n_popped)
                pop(heap, vocab_size - n_popped++);
            kept += qp_exp((heap[vocab_size - 1 - i].logit - max) * per_degree);
        }
    }
    double left = uniform(s->state) * kept;
    quip_token last = heap[n_popped ? vocab_size - 1 : 0].id;
    for (int i = 0; i < k && left >= 0; i++) {
        if (i >= n_popped)
            pop(heap, vocab_size - n_popped++);
        last = heap[vocab_size - 1 - i].id;
        left -= qp_exp((heap[vocab_size - 1 - i].logit - max) * per_degree);
    }
    return last;
}
