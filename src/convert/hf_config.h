/* hf_config.h: the values of a config.json.
 * In:  config.json, and what the family calls its keys (struct key_alias).
 * Out: values in their range; the first failure is kept, and names the key. */
#ifndef QP_HF_CONFIG_H
#define QP_HF_CONFIG_H

#include "convert/hparams.h"

struct hf_reader {
    const struct checkpoint *checkpoint;
    const cJSON *config;             // config.json, or its text_config
    const struct key_alias *aliases; // of the keys of `config`; NULL: none
    quip_error *error;
    quip_status status; // the first failure
};

/* The value of a key of `config`; NULL if it is absent or null. */
const cJSON *qp_hf_find(const cJSON *config, const struct key_alias *aliases, const char *key);
/* The same for r->config. */
const cJSON *qp_hf_item(const struct hf_reader *r, const char *key);
/* Fail where a key and its alias must be equal, and are not. */
void qp_hf_check_aliases(struct hf_reader *r);
/* A number of an object, which may be r->config. */
double qp_hf_number(struct hf_reader *r, const cJSON *object, const char *key, double fallback);
/* A whole number from 0 to 2147483647. */
int qp_hf_int(struct hf_reader *r, const char *key, int fallback);
/* A size. 0 as the fallback means that config.json must have it. */
int qp_hf_size(struct hf_reader *r, const char *key, int fallback);
bool qp_hf_bool(struct hf_reader *r, const char *key, bool fallback);

/* ---- hparams_variants.c ---- */

/* The keys that say which variant of its family a model is. */
void qp_hf_variant(struct hf_reader *r, struct hparams *h);

/* ---- hparams_layers.c ---- */

/* Convolutions and experts, if the family has them. */
void qp_hf_layers(struct hf_reader *r, struct hparams *h);

#endif
