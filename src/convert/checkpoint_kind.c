/* checkpoint_kind.c: why the tensors of a checkpoint are not those of its family.
 * In:  config.json, and the names of the tensors.
 * Out: half a sentence for each kind of checkpoint that is not one of plain weights: quantized,
 *      with an adapter beside its weights, in a vendor's own format, or for another task.
 *
 * A config can say "quantized" although the weights are plain: a model that was trained in 4 bits
 * and merged. So the tensors decide whether a checkpoint can be read, and this file only says why
 * one cannot. */
#include "convert/checkpoint_kind.h"
#include "convert/json.h"

#include <assert.h>
#include <string.h>

/* ---- quantized ---- */

/* What a tensor's name tells about its checkpoint. */
struct name_sign {
    const char *part, *what; // in the name; what then is there
};

static const struct name_sign quantized_signs[] = {
    { ".quant_state.bitsandbytes__", "bitsandbytes, 4 bits" },
    { ".absmax", "bitsandbytes, 4 bits" },
    { ".SCB", "bitsandbytes, 8 bits" },
    { ".qweight", "GPTQ or AWQ" },
    { ".weight_packed", "compressed-tensors" },
    { ".weight_scale_inv", "FP8 in blocks" },
    { ".weight_scale", "FP8 or int8 with scales" },
    { "_blocks", "MXFP4" },
    { ".biases", "MLX" }, // beside .scales
};

static const char *find_sign(const struct checkpoint *c, const struct name_sign *signs, size_t n,
                             const char **name)
{
    for (size_t k = 0; k < n; k++)
        for (int i = 0; i < c->n_entries; i++)
            if (strstr(c->entries[i].tensor->name, signs[k].part)) {
                *name = c->entries[i].tensor->name;
                return signs[k].what;
            }
    return NULL;
}

/* Quantized as config.json says: "bitsandbytes, 4 bits". */
static bool print_method(char *to, size_t size, const cJSON *config)
{
    const cJSON *q = qp_json_item(config, "quantization_config");
    if (!q)
        q = qp_json_item(config, "compression_config"); // older compressed-tensors
    if (!q && cJSON_IsObject(qp_json_item(config, "quantization"))) {
        q = qp_json_item(config, "quantization");
        snprintf(to, size, "MLX");
    } else if (q) {
        const char *method = qp_json_text(q, "quant_method");
        snprintf(to, size, "%.40s", *method ? method : "a method that is not named");
    }
    const cJSON *bits = qp_json_item(q, "bits");
    const int n_bits = qp_json_flag(q, "load_in_4bit", false)   ? 4
                       : qp_json_flag(q, "load_in_8bit", false) ? 8
                       : cJSON_IsNumber(bits)                   ? bits->valueint
                                                                : 0;
    const size_t n = q ? strlen(to) : size;
    if (n_bits > 0 && n < size)
        snprintf(to + n, size - n, ", %d bits", n_bits);
    return q != NULL;
}

static bool explain_quantized(char *to, size_t size, const struct checkpoint *c, const char *type)
{
    char method[100];
    const char *name;
    const cJSON *text = qp_json_item(c->config, "text_config");
    const char *sign = find_sign(c, quantized_signs, QP_COUNT(quantized_signs), &name);
    if (!print_method(method, sizeof method, c->config) &&
        !print_method(method, sizeof method, text)) {
        const bool is_float8 = type && strncmp(type, "F8_", 3) == 0;
        if (!sign && !is_float8)
            return false;
        snprintf(method, sizeof method, "%s", sign ? sign : "FP8");
    }
    snprintf(to, size,
             "its weights are quantized already (%s%s%s); take the model in BF16, F16 or F32 that "
             "it was made from, or a GGUF file of it",
             method, type ? ", tensors of type " : "", type ? type : "");
    return true;
}

/* ---- other kinds ---- */

static const struct name_sign adapter_signs[] = {
    { ".base_layer.", "" },
    { ".lora_A.", "" },
    { ".original_module.", "" },
};
static const struct name_sign vendor_signs[] = {
    { ".attention.wq.weight", "" }, // Meta, Mistral
    { "tok_embeddings.weight", "" },
};
static const struct name_sign norm_signs[] = {
    { ".parametrizations.", "" },
    { ".weight_g", "" },
    { ".weight_v", "" },
};

static const struct {
    const struct name_sign *signs;
    size_t n;
    const char *sentence; // with the name of a tensor
} other_kinds[] = {
    { adapter_signs, QP_COUNT(adapter_signs),
      "has an adapter beside its weights (%.80s); merge it with PEFT's merge_and_unload(), and "
      "save "
      "that" },
    { vendor_signs, QP_COUNT(vendor_signs),
      "has tensors in the format of the model's vendor (%.80s); take the files in Hugging Face's "
      "format, model*.safetensors beside a config.json" },
    { norm_signs, QP_COUNT(norm_signs),
      "has weights in parts (%.80s), as in training; remove the parametrization with "
      "torch.nn.utils, and save that" },
};

bool qp_checkpoint_explain(char *to, size_t size, const struct checkpoint *c, const char *type)
{
    const char *name;
    assert(size > 0);
    if (explain_quantized(to, size, c, type))
        return true;
    for (size_t i = 0; i < QP_COUNT(other_kinds); i++)
        if (find_sign(c, other_kinds[i].signs, other_kinds[i].n, &name)) {
            snprintf(to, size, other_kinds[i].sentence, name);
            return true;
        }
    return false;
}

/* ---- tasks ---- */

static bool has_end(const char *text, const char *end)
{
    const size_t n = strlen(text), n_end = strlen(end);
    return n >= n_end && strcmp(text + n - n_end, end) == 0;
}

quip_status qp_checkpoint_check_task(const struct checkpoint *c, quip_error *error)
{
    static const char *const other_tasks[] = { "ForSequenceClassification",
                                               "ForTokenClassification",
                                               "ForQuestionAnswering",
                                               "ForMultipleChoice",
                                               "ForRewardModel",
                                               "RewardModel",
                                               "ForScore" };
    const cJSON *list = qp_json_item(c->config, "architectures");
    const char *name = cJSON_GetStringValue(cJSON_GetArrayItem(list, 0));
    for (size_t i = 0; name && i < QP_COUNT(other_tasks); i++)
        if (has_end(name, other_tasks[i]))
            return qp_fail(error, QUIP_E_UNSUPPORTED,
                           "%s/config.json: the model is a %.60s, which scores texts and does not "
                           "continue them; take the language model",
                           c->sources.folder, name);
    return QUIP_OK;
}
