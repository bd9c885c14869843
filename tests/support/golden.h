/* golden.h: what the reference implementation computed for tiny checkpoints (data/golden of the
 * reference data). */
#ifndef TEST_GOLDEN_H
#define TEST_GOLDEN_H

#include "quip.h"

#include <cjson/cJSON.h>

#define GOLDEN_MAX_IDS 512
#define GOLDEN_TOLERANCE 1e-4f // of a logit: data/golden/README.md derives it

/* `prompt` is one of the prompts in data/golden/<folder>/expected.json.
 * Feeds the prompt to `s`, a new session of `model`, and returns the largest difference of a logit
 * from the reference's, NaN where there is one. */
float golden_difference(quip_model *model, quip_session *s, const char *folder,
                        const cJSON *prompt);

/* Fails the test when logits or greedy tokens are not the reference's; `adapter` may be NULL. */
void check_golden_prompt(quip_model *model, quip_adapter *adapter, const char *folder,
                         const cJSON *prompt);

#endif
