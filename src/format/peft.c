/* peft.c: adapter_config.json of a PEFT adapter.
 * In:  its text.
 * Out: how the weights beside it are scaled; an error for a kind of adapter that is more than two
 *      low-rank matrices beside each matrix of the model. */
#include "format/format_impl.h"

/* What would change the result if it were on. Every one of them is off when it is null, false, 0,
 * empty or "none". */
static const struct {
    const char *key, *what;
} refused_features[] = {
    { "alora_invocation_tokens", "activated LoRA, which begins at an invocation" },
    { "bias", "trained biases" },
    { "layer_replication", "layers that repeat others" },
    { "lora_bias", "biases of its own" },
    { "modules_to_save", "whole modules beside the low-rank ones" },
    { "target_parameters", "parameters that are no matrix of a layer" },
    { "trainable_token_indices", "trained embeddings" },
    { "use_bdlora", "block-diagonal matrices" },
    { "use_dora", "DoRA, which scales the rows of the sum" },
    { "use_qalora", "QA-LoRA, which pools its input" },
};

/* The next value, whatever it is; false when it is one of those that mean "off". */
static bool json_is_on(struct json_scan *j)
{
    static const char *const off[] = { "null", "false", "0", "0.0", "\"\"", "\"none\"" };
    const struct json_text t = qp_json_skip(j);
    if (t.n && (*t.raw == '[' || *t.raw == '{')) {
        struct json_scan inner;
        qp_json_open(&inner, t.raw, t.n);
        qp_json_expect(&inner, *t.raw);
        return qp_json_more(&inner, 0, *t.raw == '[' ? ']' : '}');
    }
    for (size_t i = 0; i < QP_COUNT(off); i++)
        if (qp_json_is(t, off[i]))
            return false;
    return true;
}

static const char *refused_feature(struct json_text key)
{
    for (size_t i = 0; i < QP_COUNT(refused_features); i++)
        if (qp_json_is(key, refused_features[i].key))
            return refused_features[i].what;
    return NULL;
}

/* One member of the object; what it has that is refused, or NULL. */
static const char *read_peft_member(struct json_scan *j, struct peft_config *c)
{
    const struct json_text key = qp_json_key(j);
    const char *what = refused_feature(key);
    if (what)
        return json_is_on(j) ? what : NULL;
    if (qp_json_is(key, "peft_type"))
        return qp_json_is(qp_json_string(j), "LORA") ? NULL : "another method than LoRA";
    if (qp_json_is(key, "r"))
        c->rank = qp_json_number(j);
    else if (qp_json_is(key, "lora_alpha"))
        c->alpha = qp_json_number(j);
    else if (qp_json_is(key, "use_rslora"))
        c->is_rank_stabilized = json_is_on(j);
    else if (qp_json_is(key, "rank_pattern"))
        c->has_rank_pattern = json_is_on(j);
    else if (qp_json_is(key, "alpha_pattern"))
        c->alpha_pattern = qp_json_skip(j);
    else
        qp_json_skip(j);
    return NULL;
}

/* Keys of alpha_pattern are regular expressions; only those that spell a name are read. */
static quip_status check_alpha_pattern(const struct peft_config *c, const char *where,
                                       quip_error *error)
{
    struct json_scan j;
    if (!c->alpha_pattern.n || *c->alpha_pattern.raw != '{')
        return QUIP_OK;
    qp_json_open(&j, c->alpha_pattern.raw, c->alpha_pattern.n);
    qp_json_expect(&j, '{');
    for (int i = 0; qp_json_more(&j, i, '}'); i++) {
        const struct json_text key = qp_json_key(&j);
        const double alpha = qp_json_number(&j);
        for (size_t k = 0; k < key.n; k++)
            if (strchr("\\^$*+?()[]{}|", key.raw[k]))
                return qp_fail(error, QUIP_E_UNSUPPORTED,
                               "%s: alpha_pattern has the regular expression \"%.*s\"; names of "
                               "modules can be read",
                               where, (int)(key.n < 100 ? key.n : 100), key.raw);
        if (!(alpha >= -1e6 && alpha <= 1e6))
            j.is_malformed = true;
    }
    return j.is_malformed ? qp_fail(error, QUIP_E_FORMAT,
                                    "%s: alpha_pattern does not map names to numbers", where)
                          : QUIP_OK;
}

quip_status qp_peft_read(struct peft_config *c, const char *text, size_t n, const char *where,
                         quip_error *error)
{
    struct json_scan j;
    const char *what = NULL;
    *c = (struct peft_config){ .rank = 8, .alpha = 8, .has_alpha = true }; // PEFT's own defaults
    qp_json_open(&j, text, n);
    qp_json_expect(&j, '{');
    for (int i = 0; !what && qp_json_more(&j, i, '}'); i++)
        what = read_peft_member(&j, c);
    if (!what)
        qp_json_close(&j);
    if (j.is_malformed)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: is not the JSON object that PEFT writes: wrong near byte %zu", where,
                       (size_t)(j.p - j.begin));
    if (what)
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s: the adapter has %s; merge it into its model, and convert that", where,
                       what);
    if (!(c->rank >= 1 && c->rank <= 1 << 20 && c->alpha >= -1e6 && c->alpha <= 1e6))
        return qp_fail(error, QUIP_E_FORMAT, "%s: r is %g and lora_alpha %g; r must be 1 or more",
                       where, c->rank, c->alpha);
    return check_alpha_pattern(c, where, error);
}

bool qp_peft_side(const char *name, size_t *n_module, bool *is_b)
{
    static const char *const ends[] = { ".lora_A.weight", ".lora_B.weight",
                                        ".lora_A.default.weight", ".lora_B.default.weight" };
    const size_t n = strlen(name);
    for (size_t i = 0; i < QP_COUNT(ends); i++) {
        const size_t n_end = strlen(ends[i]);
        if (n > n_end && strcmp(name + n - n_end, ends[i]) == 0) {
            *n_module = n - n_end;
            *is_b = i % 2 == 1;
            return true;
        }
    }
    return false;
}

void qp_peft_read_metadata(struct peft_config *c, struct format *f)
{
    const struct metadata *m = qp_format_find_metadata(f, "lora_alpha");
    const uint8_t *text;
    size_t n;
    struct json_scan j;
    if (!m || m->type != METADATA_BYTES || qp_format_bytes(f, m, &text, &n, NULL))
        return;
    qp_json_open(&j, (const char *)text, n);
    const double alpha = qp_json_number(&j);
    qp_json_close(&j);
    c->has_alpha = !j.is_malformed && alpha >= -1e6 && alpha <= 1e6;
    c->alpha = alpha;
}

/* Is `key` the whole name, or its last components? */
static bool names_module(struct json_text key, const char *name, size_t n)
{
    return key.n <= n && memcmp(name + n - key.n, key.raw, key.n) == 0 &&
           (key.n == n || name[n - key.n - 1] == '.');
}

double qp_peft_alpha(const struct peft_config *c, const char *module, size_t n)
{
    struct json_scan j;
    if (!c->alpha_pattern.n || *c->alpha_pattern.raw != '{')
        return c->alpha;
    qp_json_open(&j, c->alpha_pattern.raw, c->alpha_pattern.n);
    qp_json_expect(&j, '{');
    for (int i = 0; qp_json_more(&j, i, '}'); i++) {
        const struct json_text key = qp_json_key(&j);
        const double alpha = qp_json_number(&j);
        if (names_module(key, module, n))
            return alpha;
    }
    return c->alpha;
}
