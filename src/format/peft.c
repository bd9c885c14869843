/* peft.c: the files of a PEFT adapter: weights, and adapter_config.json.
 * In:  a folder, or a file of weights.
 * Out: the tensors, and how they are scaled; an error for a kind of adapter that is more than two
 *      low-rank matrices beside each matrix of the model. */
#include "format/peft.h"
#include "format/json_scan.h"
#include "format/pattern.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_KEY_BYTES = 300 // of a key of alpha_pattern
};

/* Features that would change the result. Each one is off when it is null, false, 0, empty or
 * "none".
 */
static const struct {
    const char *key, *what;
} refused_features[] = {
    { "alora_invocation_tokens", "activated LoRA, which begins at an invocation" },
    { "arrow_config", "a router to other adapters" },
    { "bias", "trained biases" },
    { "kasa_config", "KaSA, which changes the weights beside it" },
    { "layer_replication", "layers that repeat others" },
    { "lora_bias", "biases of its own" },
    { "monteclora_config", "MonteCLoRA, which draws its matrices" },
    { "modules_to_save", "whole modules beside the low-rank ones" },
    { "target_parameters", "parameters that are not a matrix of a layer" },
    { "trainable_token_indices", "trained embeddings" },
    { "use_bdlora", "block-diagonal matrices" },
    { "use_dora", "DoRA, which scales the rows of the sum" },
    { "use_qalora", "QA-LoRA, which pools its input" },
};

/* Skip the next value; false when it is one of those that mean "off". */
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

/* Whether the adapter began as something else than a small change of its model's weights. Some
 * initialisations take a part out of the weights, and PEFT does so again when it loads the
 * adapter. */
static bool has_other_start(struct json_scan *j)
{
    static const char *const plain[] = { "true",         "false",   "null",          "\"gaussian\"",
                                         "\"Gaussian\"", "\"eva\"", "\"orthogonal\"" };
    const struct json_text t = qp_json_skip(j);
    for (size_t i = 0; i < QP_COUNT(plain); i++)
        if (qp_json_is(t, plain[i]))
            return false;
    return !j->is_malformed;
}

/* Names of PEFT's switches that change nothing of a trained adapter. Other programs write keys of
 * their own, but those of PEFT begin or end like these. */
static bool is_unknown_switch(struct json_text key)
{
    static const char *const known[] = { "loftq_config",    "eva_config",    "corda_config",
                                         "lora_ga_config",  "velora_config", "runtime_config",
                                         "megatron_config", "use_rslora" };
    static const char begin[] = "use_", end[] = "_config";
    const size_t n_begin = strlen(begin), n_end = strlen(end);
    for (size_t i = 0; i < QP_COUNT(known); i++)
        if (qp_json_is(key, known[i]))
            return false;
    return (key.n > n_begin && memcmp(key.raw, begin, n_begin) == 0) ||
           (key.n > n_end && memcmp(key.raw + key.n - n_end, end, n_end) == 0);
}

static const char *refused_feature(struct json_text key)
{
    for (size_t i = 0; i < QP_COUNT(refused_features); i++)
        if (qp_json_is(key, refused_features[i].key))
            return refused_features[i].what;
    return is_unknown_switch(key) ? "a feature that this version does not know" : NULL;
}

/* Read one member of the object. Returns what it has that is refused, or NULL. */
static const char *read_peft_member(struct json_scan *j, struct peft_config *c,
                                    struct json_text *name)
{
    const struct json_text key = *name = qp_json_key(j);
    const char *what = refused_feature(key);
    if (what)
        return json_is_on(j) ? what : NULL;
    if (qp_json_is(key, "init_lora_weights"))
        return has_other_start(j) ? "init_lora_weights that change the model's own weights" : NULL;
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
    else if (qp_json_is(key, "target_modules"))
        c->target_modules = qp_json_skip(j);
    else if (qp_json_is(key, "exclude_modules"))
        c->exclude_modules = qp_json_skip(j);
    else if (qp_json_is(key, "layers_to_transform"))
        c->layers_to_transform = qp_json_skip(j);
    else
        qp_json_skip(j);
    return NULL;
}

/* Compile the regular expression that PEFT makes of a key: the key is the whole name of a module,
 * or its end after a dot. */
static bool compile_key(struct pattern *p, struct json_text key)
{
    char text[MAX_KEY_BYTES + 16] = "(.*\\.)?(";
    const size_t n = strlen(text);
    if (key.n > MAX_KEY_BYTES)
        return false;
    const size_t n_key = qp_json_decode(key, text + n);
    if (n_key == SIZE_MAX)
        return false;
    text[n + n_key] = ')';
    return qp_pattern_compile(p, text, n + n_key + 1);
}

static quip_status check_alpha_pattern(const struct peft_config *c, const char *where,
                                       quip_error *error)
{
    struct json_scan j;
    struct pattern pattern;
    if (!c->alpha_pattern.n || *c->alpha_pattern.raw != '{')
        return QUIP_OK;
    qp_json_open(&j, c->alpha_pattern.raw, c->alpha_pattern.n);
    qp_json_expect(&j, '{');
    for (int i = 0; qp_json_more(&j, i, '}'); i++) {
        const struct json_text key = qp_json_key(&j);
        const double alpha = qp_json_number(&j);
        if (!j.is_malformed && !compile_key(&pattern, key))
            return qp_fail(error, QUIP_E_UNSUPPORTED,
                           "%s: alpha_pattern has the regular expression \"%.*s\", which this "
                           "version cannot read; write names of modules",
                           where, (int)(key.n < 100 ? key.n : 100), key.raw);
        if (!(alpha >= -1e6 && alpha <= 1e6))
            j.is_malformed = true;
    }
    return j.is_malformed ? qp_fail(error, QUIP_E_FORMAT,
                                    "%s: alpha_pattern does not map names to numbers", where)
                          : QUIP_OK;
}

static bool begins_as(const char *text, size_t n, const char *start)
{
    return n >= strlen(start) && memcmp(text, start, strlen(start)) == 0;
}

quip_status qp_peft_read(struct peft_config *c, const char *text, size_t n, const char *where,
                         quip_error *error)
{
    struct json_scan j;
    struct json_text key = { 0 };
    const char *what = NULL;
    *c = (struct peft_config){ .rank = 8, .alpha = 8, .has_alpha = true }; // PEFT's own defaults
    if (begins_as(text, n, "version https://git-lfs"))
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: is a Git LFS pointer, not the file itself; run `git lfs pull`", where);
    if (begins_as(text, n, "\xef\xbb\xbf")) { // a byte order mark
        text += 3;
        n -= 3;
    }
    qp_json_open(&j, text, n);
    qp_json_expect(&j, '{');
    for (int i = 0; !what && qp_json_more(&j, i, '}'); i++)
        what = read_peft_member(&j, c, &key);
    if (!what)
        qp_json_close(&j);
    if (j.is_malformed)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: is not the JSON object that PEFT writes; wrong near byte %zu", where,
                       (size_t)(j.p - j.begin));
    if (what)
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s: the adapter has %s (%.*s); merge it into its model, and convert that",
                       where, what, (int)(key.n < 60 ? key.n : 60), key.raw);
    if (!(c->rank >= 1 && c->rank <= 1 << 20 && c->alpha >= -1e6 && c->alpha <= 1e6))
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: r is %g and lora_alpha %g; must be 1 to 1048576 and -1e6 to 1e6", where,
                       c->rank, c->alpha);
    return check_alpha_pattern(c, where, error);
}

bool qp_peft_side(const char *name, size_t *n_module, bool *is_b)
{
    static const char *const sides[] = { ".lora_A.", ".lora_B." };
    static const char end[] = "weight";
    for (int i = 0; i < 2; i++) {
        const char *side = strstr(name, sides[i]);
        if (!side || side == name)
            continue;
        const char *rest = side + strlen(sides[i]), *dot = strchr(rest, '.');
        // between them may be the name of the adapter, "default"
        if (strcmp(rest, end) != 0 && (!dot || dot == rest || strcmp(dot + 1, end) != 0))
            continue;
        *n_module = (size_t)(side - name);
        *is_b = i == 1;
        return true;
    }
    return false;
}

/* ---- rank and scale ---- */

/* The name that PEFT gives the module of a tensor:
 * "base_model.model.model.layers.0.self_attn.q_proj" without the first two. */
static struct json_text unwrapped_module(const char *module, size_t n)
{
    static const char wrapping[] = "base_model.model.";
    const size_t n_wrapping = begins_as(module, n, wrapping) ? strlen(wrapping) : 0;
    return (struct json_text){ .raw = module + n_wrapping, .n = n - n_wrapping };
}

/* Alpha of a module. The first key that matches counts. */
static double module_alpha(const struct peft_config *c, struct json_text module)
{
    struct json_scan j;
    struct pattern pattern;
    if (!c->alpha_pattern.n || *c->alpha_pattern.raw != '{')
        return c->alpha;
    qp_json_open(&j, c->alpha_pattern.raw, c->alpha_pattern.n);
    qp_json_expect(&j, '{');
    for (int i = 0; qp_json_more(&j, i, '}'); i++) {
        const struct json_text key = qp_json_key(&j);
        const double alpha = qp_json_number(&j);
        if (compile_key(&pattern, key) && qp_pattern_matches(&pattern, module.raw, module.n))
            return alpha;
    }
    return c->alpha;
}

double qp_peft_scale(const struct peft_config *c, const char *tensor_name, int rank)
{
    size_t n;
    bool is_b;
    assert(rank > 0);
    if (!c->has_alpha || !qp_peft_side(tensor_name, &n, &is_b))
        return 1;
    return module_alpha(c, unwrapped_module(tensor_name, n)) /
           (c->is_rank_stabilized ? sqrt(rank) : rank);
}

/* ---- modules ---- */

/* Whether a module has one of the names in a list, or ends with one after a dot; or matches a
 * regular expression as a whole. `unread` is the answer for an expression that cannot be read. */
static bool names_module(struct json_text names, struct json_text module, bool unread)
{
    struct json_scan j;
    struct pattern pattern;
    char text[MAX_KEY_BYTES];
    qp_json_open(&j, names.raw, names.n);
    if (*names.raw == '"') {
        const struct json_text regex = qp_json_string(&j);
        const size_t n = regex.n <= sizeof text ? qp_json_decode(regex, text) : SIZE_MAX;
        if (n == SIZE_MAX || qp_json_is(regex, "all-linear") ||
            !qp_pattern_compile(&pattern, text, n))
            return unread;
        return qp_pattern_matches(&pattern, module.raw, module.n);
    }
    qp_json_expect(&j, '[');
    for (int i = 0; qp_json_more(&j, i, ']'); i++) {
        const struct json_text name = qp_json_string(&j);
        if (name.n > module.n)
            continue;
        const char *end = module.raw + module.n - name.n;
        if (memcmp(end, name.raw, name.n) == 0 && (name.n == module.n || end[-1] == '.'))
            return true;
    }
    return j.is_malformed && unread;
}

/* The first number among the parts of a name, which is that of the layer; -1 without one. */
static double layer_of_module(struct json_text module)
{
    for (size_t i = 1; i < module.n; i++)
        if (module.raw[i - 1] == '.' && module.raw[i] >= '0' && module.raw[i] <= '9') {
            double number = 0;
            for (; i < module.n && module.raw[i] >= '0' && module.raw[i] <= '9'; i++)
                number = 10 * number + (module.raw[i] - '0');
            if (i < module.n && module.raw[i] == '.')
                return number;
        }
    return -1;
}

/* Whether the number is in layers_to_transform: one, or a list. */
static bool has_layer(struct json_text layers, double layer)
{
    struct json_scan j;
    bool is_empty = true;
    qp_json_open(&j, layers.raw, layers.n);
    if (*layers.raw != '[')
        return qp_json_number(&j) == layer;
    qp_json_expect(&j, '[');
    for (int i = 0; qp_json_more(&j, i, ']'); i++, is_empty = false)
        if (qp_json_number(&j) == layer)
            return true;
    return is_empty;
}

static bool is_said(struct json_text t)
{
    return t.n > 0 && !qp_json_is(t, "null");
}

/* The key by which PEFT leaves a module alone, whatever weights there are for it; NULL if it does
 * not. */
static const char *key_that_skips(const struct peft_config *c, struct json_text module)
{
    const bool is_list = c->target_modules.n > 0 && *c->target_modules.raw == '[';
    if (is_said(c->exclude_modules) && names_module(c->exclude_modules, module, false))
        return "exclude_modules";
    if (is_said(c->target_modules) && !names_module(c->target_modules, module, true))
        return "target_modules";
    if (is_list && is_said(c->layers_to_transform) &&
        !has_layer(c->layers_to_transform, layer_of_module(module)))
        return "layers_to_transform";
    return NULL;
}

quip_status qp_peft_check_pair(const struct adapter_files *f, const char *tensor_name, int64_t rank,
                               quip_error *error)
{
    const struct peft_config *c = &f->config;
    size_t n;
    bool is_b;
    const char *key = qp_peft_side(tensor_name, &n, &is_b)
                          ? key_that_skips(c, unwrapped_module(tensor_name, n))
                          : NULL;
    if (key)
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s: has %s, but by its config's %s PEFT leaves that module as it is; "
                       "correct adapter_config.json, or remove the tensor",
                       f->file.name, tensor_name, key);
    if (c->has_rank_pattern || c->rank == 0 || c->rank == (double)rank)
        return QUIP_OK;
    return qp_fail(error, QUIP_E_FORMAT, "%s: %s has rank %lld, but the config says r = %g",
                   f->file.name, tensor_name, (long long)rank, c->rank);
}

/* ---- files ---- */

#define CONFIG_NAME "adapter_config.json"
#define WEIGHTS_NAME "adapter_model.safetensors"

/* Weights without a config may have lora_alpha in their own metadata. */
static void read_alpha_metadata(struct adapter_files *f)
{
    const struct metadata *m = qp_format_find_metadata(&f->format, "lora_alpha");
    const uint8_t *text;
    size_t n;
    struct json_scan j;
    if (!m || m->type != METADATA_BYTES || qp_format_bytes(&f->format, m, &text, &n, NULL))
        return;
    qp_json_open(&j, (const char *)text, n);
    const double alpha = qp_json_number(&j);
    qp_json_close(&j);
    f->config.has_alpha = !j.is_malformed && alpha >= -1e6 && alpha <= 1e6;
    f->config.alpha = alpha;
}

/* `config` is a path, or NULL where the weights have no config. f->file is open if `weights` is
 * NULL. */
static quip_status open_files(struct adapter_files *f, const char *config, const char *weights,
                              const struct format_reader *reader, quip_error *error)
{
    quip_status status = QUIP_OK;
    if (config && !(status = qp_file_open(&f->config_file, config, error)))
        status = qp_peft_read(&f->config, (const char *)f->config_file.data,
                              (size_t)f->config_file.size, config, error);
    if (!status && weights)
        status = qp_file_open(&f->file, weights, error);
    if (!status)
        status = qp_format_open_with(&f->format, &f->file, reader, error);
    if (status)
        qp_adapter_files_close(f);
    else if (!config)
        read_alpha_metadata(f);
    return status;
}

quip_status qp_adapter_files_open(struct adapter_files *f, const char *path, quip_error *error)
{
    const bool is_folder = qp_path_is_folder(path);
    const bool has_config = is_folder || strcmp(qp_path_name(path), WEIGHTS_NAME) == 0;
    char *folder = is_folder ? NULL : qp_path_folder(path);
    char *config =
        is_folder || folder ? qp_path_join(is_folder ? path : folder, CONFIG_NAME) : NULL;
    char *weights = is_folder ? qp_path_join(path, WEIGHTS_NAME) : NULL;
    quip_status status;
    *f = (struct adapter_files){ 0 };
    if (!config || (is_folder && !weights))
        status = qp_fail_memory(error, "a path", strlen(path));
    else
        status = open_files(f, has_config ? config : NULL, is_folder ? weights : path, NULL, error);
    free(folder);
    free(config);
    free(weights);
    return status;
}

quip_status qp_adapter_files_open_with(struct adapter_files *f, const char *path,
                                       const struct format_reader *reader, quip_error *error)
{
    char *weights = NULL, *folder = NULL, *config = NULL;
    quip_status status;
    *f = (struct adapter_files){ 0 };
    if (qp_path_is_folder(path)) {
        weights = qp_path_join(path, WEIGHTS_NAME);
        if (weights && !qp_path_exists(weights)) {
            free(weights);
            weights = qp_path_join(path, "adapter_model.bin");
        }
        path = weights;
    }
    if (path && (folder = qp_path_folder(path)))
        config = qp_path_join(folder, CONFIG_NAME);
    status = config ? open_files(f, qp_path_exists(config) ? config : NULL, path, reader, error)
                    : qp_fail_memory(error, "a path", sizeof CONFIG_NAME);
    free(weights);
    free(folder);
    free(config);
    return status;
}

quip_status qp_adapter_files_open_file(struct adapter_files *f, struct file *file,
                                       quip_error *error)
{
    *f = (struct adapter_files){ .file = *file };
    return open_files(f, NULL, NULL, NULL, error);
}

void qp_adapter_files_close(struct adapter_files *f)
{
    qp_format_close(&f->format);
    qp_file_close(&f->file);
    qp_file_close(&f->config_file);
    *f = (struct adapter_files){ 0 };
}
