/* config_json.c: fuzz target for config.json of a checkpoint.
 * In:  the text of a JSON object, used as each of the three configuration files.
 * Out: no crash; hyper-parameters that are accepted can be written. */
#include "convert/hparams.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    cJSON *json = cJSON_ParseWithLength((const char *)data, n);
    char folder[] = "fuzz";
    struct checkpoint c = { .path = "fuzz",
                            .sources = { .folder = folder },
                            .config = json,
                            .generation_config = json,
                            .tokenizer_config = json };
    struct hparams hparams;
    struct bytes text = { 0 };
    if (cJSON_IsObject(json) && !qp_hparams_from_hf(&hparams, &c, NULL)) {
        hparams.n_stops = 0; // their pieces would come from a tokenizer
        qp_write_quip_config(&hparams, &text);
        qp_write_llm_parameters(&hparams, NULL, false, &text);
    }
    qp_bytes_close(&text);
    cJSON_Delete(json);
    return 0;
}
