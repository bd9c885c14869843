/* hf_config.c: see hf_config.h */
#include "convert/hf_config.h"
#include "convert/json.h"

#include <assert.h>
#include <string.h>

static const struct key_alias *alias_of(const struct key_alias *aliases, const char *key)
{
    for (const struct key_alias *a = aliases; a && a->key; a++)
        if (strcmp(a->key, key) == 0)
            return a;
    return NULL;
}

const cJSON *qp_hf_find(const cJSON *config, const struct key_alias *aliases, const char *key)
{
    const struct key_alias *a = alias_of(aliases, key);
    const cJSON *item = a ? qp_json_item(config, a->alias) : NULL;
    return item || (a && a->rule == ALIAS_ONLY) ? item : qp_json_item(config, key);
}

void qp_hf_check_aliases(struct hf_reader *r)
{
    for (const struct key_alias *a = r->aliases; a && a->key && !r->status; a++) {
        const cJSON *one = qp_json_item(r->config, a->alias);
        const cJSON *other = qp_json_item(r->config, a->key);
        if (a->rule == ALIAS_AGREES && one && other && !cJSON_Compare(one, other, true))
            r->status = qp_fail(r->error, QUIP_E_FORMAT,
                                "%s/config.json: %s and %s mean the same, but differ; remove the "
                                "one that is wrong",
                                r->checkpoint->sources.folder, a->alias, a->key);
    }
}

const cJSON *qp_hf_item(const struct hf_reader *r, const char *key)
{
    return qp_hf_find(r->config, r->aliases, key);
}

double qp_hf_number(struct hf_reader *r, const cJSON *object, const char *key, double fallback)
{
    const cJSON *item = object == r->config ? qp_hf_item(r, key) : qp_json_item(object, key);
    if (!item)
        return fallback;
    if (!cJSON_IsNumber(item) && !r->status)
        r->status = qp_fail(r->error, QUIP_E_FORMAT, "%s/config.json: %s is not a number",
                            r->checkpoint->sources.folder, item->string ? item->string : key);
    return item->valuedouble;
}

int qp_hf_int(struct hf_reader *r, const char *key, int fallback)
{
    const double x = qp_hf_number(r, r->config, key, fallback);
    if (x >= 0 && x <= INT32_MAX && x == (double)(int)x)
        return (int)x;
    if (!r->status)
        r->status = qp_fail(r->error, QUIP_E_FORMAT,
                            "%s/config.json: %s is %g; must be a whole number from 0 to 2147483647",
                            r->checkpoint->sources.folder, key, x);
    return 0;
}

int qp_hf_size(struct hf_reader *r, const char *key, int fallback)
{
    const struct key_alias *a = alias_of(r->aliases, key);
    assert(fallback >= 0);
    if (!qp_hf_item(r, key) && fallback == 0 && !r->status)
        r->status = qp_fail(r->error, QUIP_E_FORMAT, "%s/config.json: has no %s",
                            r->checkpoint->sources.folder, a ? a->alias : key);
    return qp_hf_int(r, key, fallback);
}

bool qp_hf_bool(struct hf_reader *r, const char *key, bool fallback)
{
    const cJSON *item = qp_hf_item(r, key);
    if (item && !cJSON_IsBool(item) && !cJSON_IsNumber(item) && !r->status)
        r->status = qp_fail(r->error, QUIP_E_FORMAT, "%s/config.json: %s is not true or false",
                            r->checkpoint->sources.folder, item->string);
    return item ? cJSON_IsTrue(item) || (cJSON_IsNumber(item) && item->valuedouble != 0) : fallback;
}
