/* hf_config.c: see hf_config.h */
#include "convert/hf_config.h"
#include "convert/json.h"

#include <assert.h>
#include <string.h>

static const char *alias_of(const struct key_alias *aliases, const char *key)
{
    for (const struct key_alias *a = aliases; a && a->key; a++)
        if (strcmp(a->key, key) == 0)
            return a->alias;
    return NULL;
}

const cJSON *qp_hf_find(const cJSON *config, const struct key_alias *aliases, const char *key)
{
    const char *alias = alias_of(aliases, key);
    const cJSON *item = alias ? qp_json_item(config, alias) : NULL;
    return item ? item : qp_json_item(config, key);
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
    const char *alias = alias_of(r->aliases, key);
    assert(fallback >= 0);
    if (!qp_hf_item(r, key) && fallback == 0 && !r->status)
        r->status = qp_fail(r->error, QUIP_E_FORMAT, "%s/config.json: has no %s",
                            r->checkpoint->sources.folder, alias ? alias : key);
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
