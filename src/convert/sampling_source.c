/* sampling_source.c: what a checkpoint says about drawing tokens.
 * In:  generation_config.json of a Hugging Face folder; the entries `general.sampling.*` of GGUF,
 *      which llama.cpp's converter copies from there.
 * Out: the metadata `quip.sampling` (docs/model-format.md).
 *
 * A checkpoint that says something says everything: what it leaves out is as in transformers,
 * temperature 1 and top_k 50. Numbers out of range become the nearest one in range, because in
 * these programs, too, -1 as top_k sets no limit and a negative temperature is greedy. */
#include "convert/sampling_source.h"
#include "convert/gguf_keys.h"
#include "convert/hparams.h"
#include "convert/json.h"

#include <math.h>

/* What the keys are called there; NULL: there is no such key. */
static const struct {
    const char *hf, *gguf;
    double absent; // in transformers; NAN: as in quip.sampling
} sampling_names[N_SAMPLING_KEYS] = {
    [SAMPLING_TEMPERATURE] = { "temperature", "general.sampling.temp", 1 },
    [SAMPLING_TOP_K] = { "top_k", "general.sampling.top_k", 50 },
    [SAMPLING_TOP_P] = { "top_p", "general.sampling.top_p", 1 },
    [SAMPLING_MIN_P] = { "min_p", "general.sampling.min_p", 0 },
    [SAMPLING_REPEAT_PENALTY] = { "repetition_penalty", "general.sampling.penalty_repeat", 1 },
    [SAMPLING_PENALTY_WINDOW] = { NULL, "general.sampling.penalty_last_n", 64 },
    [SAMPLING_NO_REPEAT_NGRAM] = { "no_repeat_ngram_size", NULL, 0 },
};

/* Use a number of the checkpoint; NAN: it has none. */
static void set_sampling(struct sampling_defaults *d, enum sampling_key key, double value)
{
    const struct sampling_rule *rule = &qp_sampling_rules[key];
    d->value[key] = sampling_names[key].absent;
    if (isnan(value))
        return;
    value = value < rule->low ? rule->low : value > rule->high ? rule->high : value;
    d->value[key] = rule->is_whole ? floor(value) : value;
}

/* Without do_sample transformers is greedy, whatever the other keys say. But who writes only them
 * means them: they count if one differs from what transformers does without it. */
static void read_generation_config(struct sampling_defaults *d, const cJSON *config)
{
    const cJSON *draws = qp_json_item(config, "do_sample");
    d->is_known = cJSON_IsBool(draws);
    for (int i = 0; i < N_SAMPLING_KEYS; i++) {
        const char *name = sampling_names[i].hf;
        const cJSON *item = name ? qp_json_item(config, name) : NULL;
        set_sampling(d, i, cJSON_IsNumber(item) ? item->valuedouble : (double)NAN);
        d->is_known = d->is_known || d->value[i] != sampling_names[i].absent;
    }
    d->value[SAMPLING_PENALTY_WINDOW] = -1;
    if (cJSON_IsFalse(draws))
        d->value[SAMPLING_TEMPERATURE] = 0;
}

static void read_gguf_sampling(struct sampling_defaults *d, const struct format *g)
{
    for (int i = 0; i < N_SAMPLING_KEYS; i++) {
        const char *name = sampling_names[i].gguf;
        const double value =
            qp_entry_number(name ? qp_format_find_metadata(g, name) : NULL, (double)NAN);
        set_sampling(d, i, value);
        d->is_known = d->is_known || !isnan(value);
    }
    if (d->value[SAMPLING_PENALTY_WINDOW] == 0) // no window, no penalty
        d->value[SAMPLING_REPEAT_PENALTY] = 1;
}

struct sampling_defaults qp_sampling_of_checkpoint(const struct checkpoint *c)
{
    struct sampling_defaults d = { .is_known = false };
    if (c->is_gguf)
        read_gguf_sampling(&d, &c->shards[0].format);
    else
        read_generation_config(&d, c->generation_config);
    if (d.value[SAMPLING_REPEAT_PENALTY] == 1 && d.value[SAMPLING_NO_REPEAT_NGRAM] == 0)
        d.value[SAMPLING_PENALTY_WINDOW] = qp_sampling_rules[SAMPLING_PENALTY_WINDOW].absent;
    return d;
}

bool qp_write_quip_sampling(const struct sampling_defaults *d, struct bytes *out)
{
    bool ok = true;
    for (int i = 0; i < N_SAMPLING_KEYS && d->is_known && ok; i++)
        if (i == SAMPLING_TEMPERATURE || d->value[i] != qp_sampling_rules[i].absent)
            ok = qp_print_number(out, qp_sampling_rules[i].name, d->value[i]);
    return ok;
}

/* ---- what is left out ---- */

/* Keys that change which tokens transformers or llama.cpp draw. */
static const struct {
    const char *name;
    bool is_gguf;
    double neutral; // the number that says the same as no such key
} foreign_keys[] = {
    { "begin_suppress_tokens", false, -1 },
    { "forced_bos_token_id", false, -1 },
    { "forced_eos_token_id", false, -1 },
    { "force_words_ids", false, -1 },
    { "sequence_bias", false, -1 },
    { "exponential_decay_length_penalty", false, -1 },
    { "min_length", false, 0 },
    { "min_new_tokens", false, 0 },
    { "num_beams", false, 1 },
    { "typical_p", false, 1 },
    { "epsilon_cutoff", false, 0 },
    { "eta_cutoff", false, 0 },
    { "top_h", false, 1 },
    { "penalty_alpha", false, 0 },
    { "guidance_scale", false, 1 },
    { "encoder_repetition_penalty", false, 1 },
    { "dola_layers", false, -1 },
    { "watermarking_config", false, -1 },
    { "encoder_no_repeat_ngram_size", false, 0 },
    { "stop_strings", false, -1 },
    { "constraints", false, -1 },
    { "token_healing", false, -1 },
    { "general.sampling.mirostat", true, 0 },
    { "general.sampling.xtc_probability", true, 0 },
};

static bool says_something(const cJSON *item, double neutral)
{
    if (cJSON_IsNumber(item))
        return item->valuedouble != neutral;
    return cJSON_IsString(item) || cJSON_IsTrue(item) || (item && item->child);
}

static bool has_long_bad_words(const cJSON *config)
{
    const cJSON *words = qp_json_item(config, "bad_words_ids");
    for (const cJSON *i = words ? words->child : NULL; i; i = i->next)
        if (i->child && i->child->next)
            return true;
    return false;
}

bool qp_sampling_left_out(const struct checkpoint *c, struct bytes *names)
{
    const cJSON *config = c->generation_config ? c->generation_config : c->config;
    bool ok = true;
    for (size_t i = 0; i < QP_COUNT(foreign_keys) && ok; i++) {
        const char *name = foreign_keys[i].name;
        const double neutral = foreign_keys[i].neutral;
        if (foreign_keys[i].is_gguf != c->is_gguf)
            continue;
        const bool is_said =
            c->is_gguf ? qp_entry_number(qp_format_find_metadata(&c->shards[0].format, name),
                                         neutral) != neutral
                       : says_something(qp_json_item(config, name), neutral);
        if (is_said)
            ok = qp_bytes_printf(names, "%s%s", names->n ? ", " : "", name);
    }
    if (ok && !c->is_gguf && has_long_bad_words(config))
        ok = qp_bytes_printf(names, "%sbad_words_ids of several tokens", names->n ? ", " : "");
    return ok;
}
