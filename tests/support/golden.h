/* golden.h: what the reference implementation computed for tiny checkpoints (data/golden of the
 * reference data). */
#ifndef TEST_GOLDEN_H
#define TEST_GOLDEN_H

#include "quip.h"

#include <cjson/cJSON.h>

#define GOLDEN_MAX_IDS 512
#define GOLDEN_TOLERANCE 1e-4f // of a logit: data/golden/README.md derives it

/* Run `prompt`, one of the prompts in data/golden/<folder>/expected.json, in `s`, a new session of
 * `model`. Returns the largest difference of a logit from the reference, or NaN if a logit is NaN.
 */
float golden_difference(quip_model *model, quip_session *s, const char *folder,
                        const cJSON *prompt);

/* Fail the test if logits or greedy tokens differ from the reference. `adapter` may be NULL. */
void check_golden_prompt(quip_model *model, quip_adapter *adapter, const char *folder,
                         const cJSON *prompt);

#endif
