/* rope_hf.c: what config.json says about rope.
 * In:  the older layout (rope_theta, rope_scaling, partial_rotary_factor) or that of transformers 5
 *      (rope_parameters, which may be one for each type of layer). Where both describe scaling,
 *      rope_scaling counts, as in transformers.
 * Out: h->raw: bases, rotated dimensions, scaling. */
#include "convert/hf_config.h"
#include "convert/json.h"
#include "convert/rope_scaling.h"

#include <string.h>

struct rope_reader {
    struct hparams *h;
    const cJSON *config;
    const struct key_alias *aliases; // of its keys
    const char *where;
    quip_error *error;
    quip_status status; // the first failure
};

static double rope_number(struct rope_reader *r, const cJSON *object, const char *key,
                          double fallback)
{
    const cJSON *item =
        object == r->config ? qp_hf_find(object, r->aliases, key) : qp_json_item(object, key);
    if (!item)
        return fallback;
    if (!cJSON_IsNumber(item) && !r->status)
        r->status =
            qp_fail(r->error, QUIP_E_FORMAT, "%s: %s of rope is not a number", r->where, key);
    return item->valuedouble;
}

static enum rope_type type_in(struct rope_reader *r, const cJSON *rope)
{
    if (!rope && r->h->source->has_layer_sizes)
        return ROPE_PROPORTIONAL; // Gemma4TextConfig
    const char *name = cJSON_GetStringValue(qp_json_item(rope, "rope_type"));
    if (!name)
        name = cJSON_GetStringValue(qp_json_item(rope, "type"));
    if (!name)
        return ROPE_DEFAULT;
    const enum rope_type type = qp_rope_type(name, strlen(name));
    if (type == N_ROPE_TYPES && !r->status)
        r->status = qp_fail(r->error, QUIP_E_UNSUPPORTED,
                            "%s: rope type \"%.40s\" is not supported; supported are default, "
                            "linear, dynamic, llama3, yarn, longrope and proportional",
                            r->where, name);
    return type == N_ROPE_TYPES ? ROPE_DEFAULT : type;
}

static void read_factors(struct rope_scaling *s, int set, const cJSON *list)
{
    int n = 0;
    for (const cJSON *i = cJSON_IsArray(list) ? list->child : NULL; i; i = i->next, n++)
        if (n < HPARAMS_MAX_HEAD / 2)
            s->factors[set][n] = cJSON_IsNumber(i) ? i->valuedouble : 0; // 0 is refused
    s->n_factors[set] = n;
}

static void read_scaling(struct rope_reader *r, const cJSON *rope)
{
    const int n_context = r->h->raw.n_context_max, of_source = r->h->source->default_n_original;
    struct rope_scaling s = { .type = type_in(r, rope) };
    // Phi-3 has it beside the description, and there alone it counts
    s.n_original = rope_number(r, rope, "original_max_position_embeddings", n_context);
    s.n_original = rope_number(r, r->config, "original_max_position_embeddings",
                               of_source > 0 ? of_source : s.n_original);
    s.factor = rope_number(r, rope, "factor",
                           s.type == ROPE_YARN || s.type == ROPE_LONGROPE
                               ? (s.n_original > 0 ? n_context / s.n_original : 0)
                           : s.type == ROPE_PROPORTIONAL ? 1
                                                         : 0);
    s.fraction = rope_number(r, rope, "partial_rotary_factor", rope ? 1 : 0.25);
    s.attention_factor = rope_number(r, rope, "attention_factor", 0);
    s.low = rope_number(r, rope, "low_freq_factor", 0);
    s.high = rope_number(r, rope, "high_freq_factor", 0);
    s.beta_fast = rope_number(r, rope, "beta_fast", 0);
    s.beta_slow = rope_number(r, rope, "beta_slow", 0);
    s.mscale = rope_number(r, rope, "mscale", 0);
    s.mscale_all_dim = rope_number(r, rope, "mscale_all_dim", 0);
    s.no_truncate = !qp_json_flag(rope, "truncate", true);
    read_factors(&s, 0, qp_json_item(rope, "short_factor"));
    read_factors(&s, 1, qp_json_item(rope, "long_factor"));
    if (!r->status)
        r->status = qp_rope_scale(r->h, &s, r->where, r->error);
}

/* Rotated dimensions. Only some families can rotate a part of a head. */
static void read_fraction(struct rope_reader *r, const cJSON *rope)
{
    struct hparams *h = r->h;
    const int head_dim = qp_of_layer(&h->raw.head_dims, h->raw.n_layers - 1, h->raw.head_dim);
    h->raw.rope_dim = head_dim;
    if (type_in(r, rope) == ROPE_PROPORTIONAL)
        return;
    const double of_family = (double)h->raw.family->rope_fraction;
    const double of_source = h->source->default_rope_fraction;
    const cJSON *of = qp_json_item(rope, "partial_rotary_factor") ? rope : r->config;
    const double fraction = rope_number(r, of, "partial_rotary_factor",
                                        of_source > 0   ? of_source
                                        : of_family > 0 ? of_family
                                                        : 1);
    if (of_family == 0 && fraction != 1 && !r->status)
        r->status = qp_fail(r->error, QUIP_E_UNSUPPORTED,
                            "%s: partial_rotary_factor is %g; a %s model rotates whole heads",
                            r->where, fraction, h->raw.family->name);
    h->raw.rope_dim = fraction >= 0 && fraction <= 1 ? (int)(head_dim * fraction) : -2;
    if (h->raw.rope_dim == 0 && !h->raw.family->has_no_rope && !h->raw.traits.has_alibi &&
        !r->status)
        r->status = qp_fail(r->error, QUIP_E_UNSUPPORTED,
                            "%s: partial_rotary_factor is %g, so that no dimension of its heads of "
                            "%d rotates, which is not supported",
                            r->where, fraction, head_dim);
}

/* Whether layers rotate by their type. */
static bool has_ropes_by_type(const struct rope_reader *r)
{
    return r->h->raw.traits.rope_local_theta > 0 || r->h->source->windows == WINDOW_FROM_TYPES;
}

/* OLMo 3: without a base of their own, sliding layers have that of the class. transformers 4 gave
 * them the one of config.json. */
static void read_local_of_class(struct rope_reader *r, const cJSON *local)
{
    struct traits *t = &r->h->raw.traits;
    const double of_class = r->h->source->default_rope_theta;
    const double of_config = rope_number(r, r->config, "rope_theta", of_class);
    const double theta = rope_number(r, local, "rope_theta", of_class);
    if (theta != t->rope_theta)
        t->rope_local_theta = theta;
    if (!qp_json_item(local, "rope_theta") && of_config != of_class && !r->status)
        r->status = qp_fail(r->error, QUIP_E_UNSUPPORTED,
                            "%s: rope_theta is %g, which transformers 4 uses in all layers, and "
                            "version 5 only in those without a window; say it in rope_parameters, "
                            "for full_attention and sliding_attention",
                            r->where, of_config);
}

/* Rope of sliding-window layers, if it is described on its own. */
static void read_local(struct rope_reader *r, const cJSON *local)
{
    struct traits *t = &r->h->raw.traits;
    if (r->h->source->windows == WINDOW_FROM_TYPES)
        read_local_of_class(r, local);
    else if (t->rope_local_theta > 0) {
        t->rope_local_theta =
            rope_number(r, r->config, "rope_local_base_freq", t->rope_local_theta);
        t->rope_local_theta = rope_number(r, local, "rope_theta", t->rope_local_theta);
    }
    if (local && type_in(r, local) != ROPE_DEFAULT && !r->status)
        r->status = qp_fail(r->error, QUIP_E_UNSUPPORTED,
                            "%s: rope scaling of sliding-window layers is not supported", r->where);
}

/* "theta" of the first LFM2s, which transformers reads no more. */
static void check_older_theta(struct rope_reader *r)
{
    const double theta = r->h->raw.traits.rope_theta;
    const double older = rope_number(r, r->config, "theta", theta);
    if (older != theta && !r->status)
        r->status = qp_fail(r->error, QUIP_E_UNSUPPORTED,
                            "%s: theta is %g, but its rope has the base %g; write it as rope_theta",
                            r->where, older, theta);
}

/* transformers looks for it in rope_parameters itself, also where that has a rope for each type. */
static void check_truncate(struct rope_reader *r, const cJSON *rope)
{
    if (has_ropes_by_type(r) && type_in(r, rope) == ROPE_YARN &&
        !qp_json_flag(rope, "truncate", true) && !r->status)
        r->status = qp_fail(r->error, QUIP_E_UNSUPPORTED,
                            "%s: truncate is false in its rope for each type of layer, where "
                            "transformers ignores it",
                            r->where);
}

/* ---- rope_scaling and rope_parameters ---- */

static bool is_per_type(const cJSON *rope)
{
    return qp_json_item(rope, "full_attention") || qp_json_item(rope, "sliding_attention");
}

/* Families whose layers rotate by their type have a description for each type. transformers ignores
 * one that has the other form. */
static void check_form(struct rope_reader *r, const cJSON *scaling, const cJSON *parameters)
{
    const struct hparams *h = r->h;
    const bool has_types = has_ropes_by_type(r);
    const bool is_empty = !cJSON_IsObject(parameters) || !parameters->child;
    if (!is_per_type(scaling) && (is_empty || is_per_type(parameters) == has_types))
        return;
    if (!r->status)
        r->status = qp_fail(r->error, QUIP_E_UNSUPPORTED,
                            is_per_type(scaling) || !has_types
                                ? "%s: %s has one rope for each type of layer; that of a %s model "
                                  "has one for all"
                                : "%s: %s has one rope for all layers; that of a %s model has "
                                  "full_attention and sliding_attention",
                            r->where, is_per_type(scaling) ? "rope_scaling" : "rope_parameters",
                            h->raw.family->name);
}

/* rope_scaling replaces rope_parameters, and with it a base that only rope_parameters has. Where
 * layers rotate by their type it is merged into full_attention, which keeps its base, and its
 * rope_type where rope_scaling has an older "type"; so it is in OLMo 3 without rope_parameters. */
static void check_both(struct rope_reader *r, const cJSON *scaling, const cJSON *parameters)
{
    const cJSON *global = qp_json_item(parameters, "full_attention");
    const double theta = r->h->raw.traits.rope_theta;
    const double other = rope_number(r, parameters, "rope_theta", theta);
    if (other != theta && !r->status)
        r->status = qp_fail(r->error, QUIP_E_UNSUPPORTED,
                            "%s: rope_scaling stands beside rope_parameters, whose rope_theta is "
                            "%g and not %g; move the scaling into rope_parameters",
                            r->where, other, theta);
    if (global && type_in(r, global) != ROPE_DEFAULT && !r->status)
        r->status = qp_fail(r->error, QUIP_E_UNSUPPORTED,
                            "%s: rope_scaling stands beside a rope_parameters that scales too; "
                            "move the scaling into rope_parameters",
                            r->where);
    if ((global || r->h->source->windows == WINDOW_FROM_TYPES) &&
        !qp_json_item(scaling, "rope_type") && !r->status)
        r->status = qp_fail(r->error, QUIP_E_UNSUPPORTED,
                            "%s: rope_scaling has no rope_type, without which transformers does "
                            "not scale; write its type as rope_type",
                            r->where);
}

quip_status qp_rope_from_config(struct hparams *h, const struct hf_reader *reader,
                                const char *where, quip_error *error)
{
    const cJSON *config = reader->config;
    struct rope_reader r = {
        .h = h, .config = config, .aliases = reader->aliases, .where = where, .error = error
    };
    const cJSON *scaling = qp_json_item(config, "rope_scaling");
    const cJSON *parameters = qp_json_item(config, "rope_parameters");
    const bool is_scaling = cJSON_IsObject(scaling) && scaling->child;
    const cJSON *global = qp_json_item(parameters, "full_attention");
    const cJSON *local = qp_json_item(parameters, "sliding_attention");
    const cJSON *rope = is_scaling ? scaling : is_per_type(parameters) ? global : parameters;
    struct traits *t = &h->raw.traits;
    check_form(&r, scaling, parameters);
    if (h->source->default_rope_theta > 0)
        t->rope_theta = h->source->default_rope_theta;
    t->rope_theta = rope_number(&r, config, "rope_theta", t->rope_theta);
    t->rope_theta = rope_number(&r, global, "rope_theta", t->rope_theta);
    t->rope_theta = rope_number(&r, rope, "rope_theta", t->rope_theta);
    check_older_theta(&r);
    read_fraction(&r, rope);
    if (is_scaling)
        check_both(&r, scaling, parameters);
    check_truncate(&r, rope);
    read_local(&r, local);
    if (!r.status && h->raw.rope_dim > 0 && h->raw.rope_dim <= HPARAMS_MAX_HEAD)
        read_scaling(&r, rope);
    return r.status;
}
