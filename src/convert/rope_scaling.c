/* rope_scaling.c: see rope_scaling.h. The formulas are those of transformers
 * (modeling_rope_utils.py), with which models were trained. */
#include "convert/rope_scaling.h"

#include <assert.h>
#include <math.h>
#include <string.h>

static const double two_pi = 6.283185307179586;

enum rope_type qp_rope_type(const char *name, size_t n)
{
    static const struct {
        const char *name;
        enum rope_type type;
    } types[] = {
        { "default", ROPE_DEFAULT },
        { "none", ROPE_DEFAULT },
        { "linear", ROPE_LINEAR },
        { "dynamic", ROPE_DYNAMIC },
        { "llama3", ROPE_LLAMA3 },
        { "yarn", ROPE_YARN },
        { "su", ROPE_LONGROPE },
        { "longrope", ROPE_LONGROPE },
        { "proportional", ROPE_PROPORTIONAL },
    };
    for (size_t i = 0; i < QP_COUNT(types); i++)
        if (strlen(types[i].name) == n && memcmp(types[i].name, name, n) == 0)
            return types[i].type;
    return N_ROPE_TYPES;
}

/* Frequency i of the rope, and by what llama3 divides it. */
static double frequency_of(const struct hparams *h, int i)
{
    return pow(h->raw.traits.rope_theta, -2.0 * i / h->raw.rope_dim);
}

static double llama3_divisor(const struct rope_scaling *s, double frequency)
{
    const double n_waves = s->n_original * frequency / two_pi; // per original context
    if (n_waves > s->high)
        return 1;
    if (n_waves < s->low)
        return s->factor;
    const double smooth = (n_waves - s->low) / (s->high - s->low);
    return 1 / ((1 - smooth) / s->factor + smooth);
}

/* The number of the frequency that turns `n_turns` times in n_original positions. */
static double yarn_bound(const struct hparams *h, const struct rope_scaling *s, double n_turns)
{
    return h->raw.rope_dim * log(s->n_original / (n_turns * two_pi)) /
           (2 * log(h->raw.traits.rope_theta));
}

static double yarn_divisor(const struct hparams *h, const struct rope_scaling *s, int i)
{
    double low = yarn_bound(h, s, s->beta_fast > 0 ? s->beta_fast : 32);
    double high = yarn_bound(h, s, s->beta_slow > 0 ? s->beta_slow : 1);
    if (!s->no_truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = low > 0 ? low : 0;
    high = high < h->raw.rope_dim - 1 ? high : h->raw.rope_dim - 1;
    if (low == high)
        high += 0.001;
    double ramp = (i - low) / (high - low);
    ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
    return 1 / (ramp / s->factor + (1 - ramp));
}

static double yarn_mscale(double factor, double mscale)
{
    return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

static double amplitude_of(const struct rope_scaling *s)
{
    if (s->attention_factor > 0)
        return s->attention_factor;
    if (s->type == ROPE_LONGROPE)
        return s->factor <= 1 ? 1 : sqrt(1 + log(s->factor) / log(s->n_original));
    if (s->mscale > 0 && s->mscale_all_dim > 0)
        return yarn_mscale(s->factor, s->mscale) / yarn_mscale(s->factor, s->mscale_all_dim);
    return yarn_mscale(s->factor, 1);
}

/* ---- set hparams ---- */

static void set_divisors(struct hparams *h, const struct rope_scaling *s)
{
    struct raw_config *raw = &h->raw;
    raw->rope_divisors = s->type == ROPE_LONGROPE ? 2 : 1;
    for (int i = 0; i < raw->rope_dim / 2; i++)
        if (s->type == ROPE_LONGROPE)
            for (int set = 0; set < 2; set++)
                h->rope_divisors[set][i] = (float)s->factors[set][i];
        else
            h->rope_divisors[0][i] =
                (float)(s->type == ROPE_YARN ? yarn_divisor(h, s, i)
                                             : llama3_divisor(s, frequency_of(h, i)));
    if (s->type == ROPE_LONGROPE)
        raw->n_context_original = (int)s->n_original;
    if (s->type != ROPE_LLAMA3)
        raw->rope_amplitude = amplitude_of(s);
}

/* Frequencies of the whole head, divided by a factor; the last pairs do not turn. */
static quip_status set_proportional(struct hparams *h, const struct rope_scaling *s,
                                    const char *where, quip_error *error)
{
    const int n = h->raw.rope_dim / 2, n_turning = (int)(s->fraction * h->raw.rope_dim / 2);
    if (!(s->fraction >= 0 && s->fraction <= 1))
        return qp_fail(error, QUIP_E_FORMAT, "%s: partial_rotary_factor is %g; must be 0 to 1",
                       where, s->fraction);
    h->raw.rope_scaling = s->factor;
    h->raw.rope_divisors = n_turning < n;
    for (int i = 0; i < n; i++)
        h->rope_divisors[0][i] = i < n_turning ? 1 : INFINITY;
    return QUIP_OK;
}

static quip_status check_longrope(const struct hparams *h, const struct rope_scaling *s,
                                  const char *where, quip_error *error)
{
    const int n = h->raw.rope_dim / 2;
    for (int set = 0; set < 2; set++) {
        if (s->n_factors[set] != n)
            return qp_fail(error, QUIP_E_FORMAT, "%s: rope has %d %s factors, expected %d", where,
                           s->n_factors[set], set ? "long" : "short", n);
        for (int i = 0; i < n; i++)
            if (!(s->factors[set][i] >= 1e-3 && s->factors[set][i] <= 1e9))
                return qp_fail(error, QUIP_E_FORMAT,
                               "%s: %s factor %d of rope is %g; must be 0.001 to 1e9", where,
                               set ? "long" : "short", i, s->factors[set][i]);
    }
    return QUIP_OK;
}

static quip_status check_scaling(const struct hparams *h, const struct rope_scaling *s,
                                 const char *where, quip_error *error)
{
    if (!(s->n_original >= 2 && s->n_original <= INT32_MAX))
        return qp_fail(
            error, QUIP_E_FORMAT,
            "%s: original_max_position_embeddings of its rope is %g; must be 2 to 2147483647",
            where, s->n_original);
    if (s->attention_factor < 0 || !(s->attention_factor <= 1e3))
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: the attention factor of its rope is %g; must be 0 to 1000", where,
                       s->attention_factor);
    if (s->type == ROPE_LONGROPE)
        return check_longrope(h, s, where, error);
    if (s->type == ROPE_LLAMA3 && !(s->low > 0 && s->high > s->low))
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: low_freq_factor and high_freq_factor of rope are %g and %g; the first "
                       "must be above 0 and less than the second",
                       where, s->low, s->high);
    return QUIP_OK;
}

quip_status qp_rope_scale(struct hparams *h, const struct rope_scaling *s, const char *where,
                          quip_error *error)
{
    assert(h->raw.rope_dim <= HPARAMS_MAX_HEAD && s->type < N_ROPE_TYPES);
    if (s->type == ROPE_DEFAULT)
        return QUIP_OK;
    if (s->type != ROPE_LONGROPE && !(s->factor >= 1e-3 && s->factor <= 1e6))
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: the scaling factor of its rope is %g; must be 0.001 to 1e6", where,
                       s->factor);
    if (s->type == ROPE_LINEAR) {
        h->raw.rope_scaling = s->factor;
        return QUIP_OK;
    }
    if (s->type == ROPE_PROPORTIONAL)
        return set_proportional(h, s, where, error);
    if (s->type == ROPE_DYNAMIC) // within the longest context it changes nothing
        return h->raw.n_context_max > 0
                   ? QUIP_OK
                   : qp_fail(error, QUIP_E_UNSUPPORTED,
                             "%s: has rope type \"dynamic\", but no max_position_embeddings, up to "
                             "which it is plain rope",
                             where);
    const quip_status status = check_scaling(h, s, where, error);
    if (!status)
        set_divisors(h, s);
    return status;
}
