/* golden2.h: a model of data/golden-2 against what the reference implementation computes from it:
 * logits, greedy tokens, residual streams layer by layer. */
#ifndef TEST_GOLDEN2_H
#define TEST_GOLDEN2_H

#include "quip.h"

#include <cjson/cJSON.h>
#include <stdbool.h>

#define GOLDEN2_TOLERANCE 2e-4f // of a logit: data/golden-2/README.md

/* A folder of data/golden-2, and what it has. */
struct fixture {
    const char *name;
    float tolerance;         // of a logit; 0: GOLDEN2_TOLERANCE
    bool has_gguf, has_lora; // gguf/, lora_all/
    bool has_long_factors;   // prompts have long_factors, for sessions of a long context
    int n_short_context;     // the longest context of the short factors
    const char *no_gpu;      // why there can be no file for GPUs; NULL: there can
    float int8_rms;          // allowed with int8 weights; 0: GOLDEN2_INT8_RMS
};

#define GOLDEN2_INT8_RMS 0.3f // of the logits of the main prompt, which have a deviation of 3

enum layout {
    LAYOUT_PUBLISHED, // config.json
    LAYOUT_V5         // config_v5.json
};
/* Convert a fixture to float32 and open it. Skips the test if the fixture is missing. */
quip_model *open_fixture(const struct fixture *f, enum layout layout);
/* The same for its GGUF file. */
quip_model *open_fixture_gguf(const struct fixture *f);
/* The two layouts are the same model file. */
void check_layouts(const struct fixture *f);

/* Every prompt: logits at each position, greedy tokens; the same bits if the prompt is divided in
 * other ways, and after going back. */
void check_fixture(const struct fixture *f, quip_model *model);
void check_fixture_gguf(const struct fixture *f, quip_model *model);
void check_fixture_lora(const struct fixture *f, quip_model *model);
/* Converted to int8, its logits are near those of the reference. */
void check_fixture_int8(const struct fixture *f);
/* Its int8 file for GPUs has the same bits as that for CPUs; or there is none, for this reason. */
void check_fixture_gpu(const struct fixture *f);
void check_fixture_without_gpu(const struct fixture *f, const char *message);

/* The largest difference of a logit of the main prompt from the reference. */
float fixture_difference(const struct fixture *f, quip_model *model);

#endif
