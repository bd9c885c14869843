/* peft.c: fuzz target for adapter_config.json of a PEFT adapter.
 * In:  the text of the file.
 * Out: no crash; the scale of a module can be computed. */
#include "format/peft.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char name[] = "model.layers.0.self_attn.q_proj.lora_A.weight";
    struct peft_config c;
    if (!qp_peft_read(&c, (const char *)data, n, "fuzz", NULL))
        qp_peft_scale(&c, name, 4);
    return 0;
}
