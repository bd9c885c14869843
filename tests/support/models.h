/* models.h: small models of every family, for tests that run over all of them: random ones
 * (tiny_model.h), and the golden checkpoints of the reference data where it is there, converted. */
#ifndef TEST_MODELS_H
#define TEST_MODELS_H

#include "quip.h"

/* cmocka's setup and teardown of a group: write the model files, and remove them. */
int models_make(void **state);
int models_remove(void **state);

int models_count(void);
const char *models_name(int i);
int models_named(const char *name); // its number; -1: there is none
bool models_is_float(int i);        // no matrix is quantized
bool models_is_golden(int i);       // of the reference data
/* Can tiny_adapter_write name the matrices of this model? */
bool models_has_adapters(int i);

quip_model *models_open(int i, const quip_model_options *options);
/* Token number k of a text that depends on `seed`, in the model's vocabulary. */
quip_token models_token(const quip_model *model, int seed, int k);

/* Logits of `model` after each of n tokens of that text, [n, vocab_size], on the heap. */
float *models_logits(quip_model *model, int seed, int n);

/* Set QUIP_CPU to the i-th level of this machine's processor and return its name; NULL after the
 * last. models_reset_level goes back to what was set when the program started. */
const char *models_set_level(int i);
void models_reset_level(void);

#endif
