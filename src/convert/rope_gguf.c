/* rope_gguf.c: what GGUF says about rope.
 * In:  keys "<architecture>.rope.<name>" with the meaning that they have in llama.cpp, also those
 *      of its older versions; and the tensors with factors of frequencies.
 * Out: h->raw: bases, scaling; divisors of the frequencies. */
#include "convert/gguf_keys.h"
#include "convert/rope_scaling.h"

#include <math.h>
#include <string.h>

/* The text of an entry; "" if there is none. */
static quip_status read_text(struct format *g, const struct metadata *m, const char **text,
                             size_t *n, quip_error *error)
{
    const uint8_t *bytes = (const uint8_t *)"";
    *n = 0;
    const quip_status status =
        m && m->type == METADATA_BYTES ? qp_format_bytes(g, m, &bytes, n, error) : QUIP_OK;
    *text = (const char *)bytes;
    return status;
}

/* A factor without a type is linear. */
static quip_status read_type(struct hparams *h, struct rope_scaling *s, const char *path,
                             struct format *g, quip_error *error)
{
    const char *text, *arch = qp_source_gguf_name(h->source);
    size_t n;
    const struct metadata *m = qp_arch_entry(g, arch, "rope.scaling.type");
    const quip_status status = read_text(g, m, &text, &n, error);
    s->type = n == 0 ? (s->factor > 0 ? ROPE_LINEAR : ROPE_DEFAULT) : qp_rope_type(text, n);
    if (!status && (s->type == N_ROPE_TYPES || s->type == ROPE_DYNAMIC || s->type == ROPE_LLAMA3))
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s: has rope scaling \"%.*s\"; supported are linear, yarn and longrope",
                       path, (int)(n < 40 ? n : 40), text);
    return status;
}

/* A tensor of factors, one for each frequency. */
static quip_status read_factor_tensor(struct hparams *h, struct checkpoint *c, const char *name,
                                      double *factors, int *n, quip_error *error)
{
    struct entry *e = qp_checkpoint_find(c, name);
    float values[HPARAMS_MAX_HEAD / 2];
    *n = 0;
    if (!e)
        return QUIP_OK;
    e->is_used = true;
    const struct tensor *t = e->tensor;
    const int n_expected = h->raw.rope_dim / 2;
    if (t->n_dims != 1 || t->dims[0] != n_expected)
        return qp_fail(error, QUIP_E_FORMAT, "%s: %s has %lld values, expected %d", c->path, name,
                       (long long)(t->n_dims ? t->dims[0] : 0), n_expected);
    const quip_status status =
        qp_format_read_f32(e->format, t, 0, (uint64_t)n_expected, values, error);
    for (int i = 0; i < n_expected && !status; i++)
        factors[i] = (double)values[i];
    *n = n_expected;
    return status;
}

/* rope_freqs: divisors of every context, of Llama 3. llama.cpp multiplies them with other scaling;
 * no model has both. */
static quip_status apply_divisors(struct hparams *h, const struct rope_scaling *s,
                                  const double *divisors, const char *path, quip_error *error)
{
    if (s->type != ROPE_DEFAULT || s->n_factors[0] || s->n_factors[1])
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s: has rope_freqs.weight and another scaling of rope as well", path);
    h->raw.rope_divisors = 1;
    for (int i = 0; i < h->raw.rope_dim / 2; i++) {
        if (!(divisors[i] >= 1e-3)) // also infinity
            return qp_fail(error, QUIP_E_FORMAT,
                           "%s: rope_freqs.weight: value %d is %g; must be at least 0.001", path, i,
                           divisors[i]);
        h->rope_divisors[0][i] = divisors[i] < 1e29 ? (float)divisors[i] : INFINITY;
    }
    return QUIP_OK;
}

/* The two sets of longrope. Without a type, the tensors say it. */
static quip_status apply_factors(struct hparams *h, struct checkpoint *c, struct rope_scaling *s,
                                 quip_error *error)
{
    double divisors[HPARAMS_MAX_HEAD / 2];
    int n;
    quip_status status;
    if ((status = read_factor_tensor(h, c, "rope_freqs.weight", divisors, &n, error)) ||
        (status = read_factor_tensor(h, c, "rope_factors_short.weight", s->factors[0],
                                     &s->n_factors[0], error)) ||
        (status = read_factor_tensor(h, c, "rope_factors_long.weight", s->factors[1],
                                     &s->n_factors[1], error)))
        return status;
    if (n > 0)
        return apply_divisors(h, s, divisors, c->path, error);
    if (s->n_factors[0] || s->n_factors[1]) {
        if (s->type != ROPE_DEFAULT && s->type != ROPE_LONGROPE)
            return qp_fail(error, QUIP_E_UNSUPPORTED,
                           "%s: has factors of longrope and another scaling of rope as well",
                           c->path);
        s->type = ROPE_LONGROPE;
        s->factor = 1; // the amplitude is a key of its own
        s->attention_factor = s->attention_factor > 0 ? s->attention_factor : 1;
    }
    return qp_rope_scale(h, s, c->path, error);
}

static double number_of(const struct format *g, const struct hparams *h, const char *name,
                        double fallback)
{
    return qp_entry_number(qp_arch_entry(g, qp_source_gguf_name(h->source), name), fallback);
}

/* llama.cpp multiplies YaRN's own amplitude by attn_factor. Its converter writes the amplitude that
 * config.json says as yarn_attn_factor, which only some of its architectures read. */
static quip_status read_yarn(struct hparams *h, const struct format *g, struct rope_scaling *s,
                             const char *path, quip_error *error)
{
    const double mix = number_of(g, h, "rope.scaling.yarn_ext_factor", 1);
    if (mix != 1)
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s: rope.scaling.yarn_ext_factor is %g; only 1 is supported", path, mix);
    const double whole = number_of(g, h, "rope.scaling.yarn_attn_factor", 1);
    if (whole != 1)
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s: rope.scaling.yarn_attn_factor is %g; only 1 is supported; convert the "
                       "model from its safetensors",
                       path, whole);
    s->beta_fast = number_of(g, h, "rope.scaling.yarn_beta_fast", 32);
    s->beta_slow = number_of(g, h, "rope.scaling.yarn_beta_slow", 1);
    if (s->attention_factor > 0 && s->factor > 1)
        s->attention_factor *= 0.1 * log(s->factor) + 1;
    return QUIP_OK;
}

quip_status qp_rope_from_gguf(struct hparams *h, struct checkpoint *c, quip_error *error)
{
    struct format *g = &c->shards[0].format;
    struct traits *t = &h->raw.traits;
    struct rope_scaling s = { 0 };
    t->rope_theta = number_of(g, h, "rope.freq_base", 1e4); // of llama.cpp, for every architecture
    const double local = number_of(g, h, "rope.freq_base_swa", t->rope_local_theta);
    t->rope_local_theta = local == t->rope_theta && t->rope_local_theta == 0 ? 0 : local;
    s.factor = number_of(g, h, "rope.scaling.factor", number_of(g, h, "rope.scale_linear", 0));
    s.n_original = number_of(g, h, "rope.scaling.original_context_length", h->raw.n_context_max);
    s.attention_factor = number_of(g, h, "rope.scaling.attn_factor", 0);
    quip_status status = read_type(h, &s, c->path, g, error);
    if (!status && s.type == ROPE_YARN)
        status = read_yarn(h, g, &s, c->path, error);
    else if (s.type != ROPE_LONGROPE && s.attention_factor > 0)
        h->raw.rope_amplitude = s.attention_factor;
    return status ? status : apply_factors(h, c, &s, error);
}
