/* parameters.c: prints an LlmParameters proto, every field by its name.
 * In:  the bytes of a model file's `odml.infra.proto.LlmParameters`, or of a bundle's METADATA.
 * Out: lines "name: value", or JSON. A field that the tables do not know has its number as name.
 *
 * The names are MediaPipe's; docs/model-format.md has the list. */
#include "cli.h"
#include "format/format.h"
#include "format/protobuf.h"

#include <string.h>

struct message;
struct named_field {
    int number;
    const char *name;
    const struct message *message; // NULL: a number or text
    bool is_packed;                // numbers, one after the other
};
struct message {
    struct named_field fields[32]; // ends with number 0
};

static const struct message prompt_template = { {
    { 1, "session_prefix", NULL, false },
    { 2, "prompt_prefix", NULL, false },
    { 3, "prompt_suffix", NULL, false },
} };
static const struct message prompt_templates = { {
    { 1, "user", &prompt_template, false },
    { 2, "model", &prompt_template, false },
    { 3, "system", &prompt_template, false },
} };
static const struct message feed_forward = { {
    { 1, "no_bias", NULL, false },
    { 2, "activation", NULL, false },
    { 3, "pre_norm", NULL, false },
    { 4, "post_norm", NULL, false },
} };
static const struct message final_project = { {
    { 1, "no_bias", NULL, false },
    { 2, "soft_cap_value", NULL, false },
} };
static const struct message self_attention = { {
    { 1, "qkv_no_bias", NULL, false },
    { 2, "post_proj_no_bias", NULL, false },
    { 3, "attention_mask_type", NULL, false },
    { 4, "soft_cap_value", NULL, false },
    { 5, "attention_scale_type", NULL, false },
    { 6, "sliding_window_size", NULL, false },
    { 7, "qk_norm", NULL, false },
    { 8, "qk_norm_has_scale", NULL, false },
} };
static const struct message transformer = { {
    { 1, "batch_size", NULL, false },
    { 2, "max_seq_length", NULL, false },
    { 3, "embedding_dim", NULL, false },
    { 4, "hidden_dimension", NULL, false },
    { 5, "head_dimension", NULL, false },
    { 6, "num_heads", NULL, false },
    { 7, "num_stacks", NULL, false },
    { 9, "num_kv_heads", NULL, false },
    { 11, "feed_forward_parameters", &feed_forward, false },
    { 12, "final_project_parameters", &final_project, false },
    { 13, "pre_norm", NULL, false },
    { 14, "post_norm", NULL, false },
    { 15, "final_norm", NULL, false },
    { 16, "self_attention_parameters", &self_attention, false },
    { 18, "skip_absolute_positional_embeddings", NULL, false },
    { 19, "num_local_layers_per_global", NULL, false },
    { 25, "query_rescale_factor", NULL, false },
    { 26, "vision_tokens_num", NULL, false },
    { 28, "max_num_images", NULL, false },
    { 32, "global_rope_wavelength", NULL, false },
    { 33, "global_rope_scaling", NULL, false },
    { 35, "kv_cache_shared_start_layer", NULL, false },
    { 36, "gemma3_bfloat16_fix", NULL, false },
    { 41, "apply_srq", NULL, false },
} };
static const struct message parameters = { {
    { 1, "transformer_parameters", &transformer, false },
    { 2, "vocab_size", NULL, false },
    { 4, "start_token_id", NULL, false },
    { 5, "stop_tokens", NULL, false },
    { 6, "start_token", NULL, false },
    { 7, "input_output_normalizations", NULL, true },
    { 8, "prompt_template", &prompt_template, false },
    { 9, "num_draft_tokens", NULL, false },
    { 11, "user_role_token", NULL, false },
    { 12, "system_role_token", NULL, false },
    { 13, "model_role_token", NULL, false },
    { 14, "end_role_token", NULL, false },
    { 16, "submodel_transformer_parameters", &transformer, false },
    { 17, "prompt_templates", &prompt_templates, false },
    { 18, "stop_token_ids", NULL, true },
} };

static const struct named_field *find_field(const struct message *m, int number)
{
    for (const struct named_field *f = m->fields; f->number; f++)
        if (f->number == number)
            return f;
    return NULL;
}

/* A text as a JSON string; "…" if it is not valid UTF-8. */
static cJSON *text_value(const struct proto_field *field)
{
    const char *text = (const char *)field->data;
    for (size_t i = 0; i < field->n;) {
        int32_t c;
        i += (size_t)qp_utf8_decode(text + i, field->n - i, &c);
        if (c < 0)
            return cJSON_CreateString("…");
    }
    return json_text(text, field->n);
}

static cJSON *numbers_value(const struct proto_field *field)
{
    struct proto_reader r;
    uint64_t value;
    cJSON *list = cJSON_CreateArray();
    qp_proto_open(&r, field->data, field->n);
    while (qp_proto_varint(&r, &value))
        cJSON_AddItemToArray(list, cJSON_CreateNumber((double)value));
    return list;
}

/* The value of a field; `known` is NULL if the tables do not have the field. */
static cJSON *message_json(const struct message *m, const void *data, size_t n);
static cJSON *field_json(const struct named_field *known, const struct proto_field *field)
{
    if (field->wire_type == 0)
        return cJSON_CreateNumber((double)field->value);
    if (field->wire_type == 5)
        return cJSON_CreateNumber((double)qp_proto_float(field));
    if (field->wire_type != 2)
        return cJSON_CreateString("…");
    if (known && known->message) {
        cJSON *message = message_json(known->message, field->data, field->n);
        return message ? message : cJSON_CreateString("damaged");
    }
    return known && known->is_packed ? numbers_value(field) : text_value(field);
}

/* A field that occurs several times becomes an array. */
static void add_member(cJSON *object, const char *name, cJSON *value)
{
    cJSON *earlier = cJSON_GetObjectItem(object, name);
    if (!earlier) {
        cJSON_AddItemToObject(object, name, value);
        return;
    }
    if (!cJSON_IsArray(earlier)) {
        cJSON *list = cJSON_CreateArray();
        cJSON_AddItemToArray(list, cJSON_DetachItemFromObject(object, name));
        cJSON_AddItemToObject(object, name, list);
        earlier = list;
    }
    if (!cJSON_IsArray(value)) {
        cJSON_AddItemToArray(earlier, value);
        return;
    }
    while (value->child) // more packed numbers
        cJSON_AddItemToArray(earlier, cJSON_DetachItemViaPointer(value, value->child));
    cJSON_Delete(value);
}

/* A message of n bytes as an object; NULL if the bytes are not a message. */
static cJSON *message_json(const struct message *m, const void *data, size_t n)
{
    struct proto_reader r;
    struct proto_field field;
    cJSON *object = cJSON_CreateObject();
    qp_proto_open(&r, data, n);
    while (qp_proto_next(&r, &field)) {
        const struct named_field *known = find_field(m, field.number);
        char number[16];
        snprintf(number, sizeof number, "#%d", field.number);
        add_member(object, known ? known->name : number, field_json(known, &field));
    }
    if (!r.is_malformed)
        return object;
    cJSON_Delete(object);
    return NULL;
}

cJSON *parameters_json(const void *data, size_t n)
{
    return message_json(&parameters, data, n);
}

static void print_members(const cJSON *object, int indent)
{
    const cJSON *item;
    cJSON_ArrayForEach(item, object)
    {
        if (cJSON_IsObject(item)) {
            printf("%*s%s\n", indent, "", item->string);
            print_members(item, indent + 2);
            continue;
        }
        char *value = cJSON_PrintUnformatted(item);
        printf("%*s%s: %s\n", indent, "", item->string, value ? value : "");
        cJSON_free(value);
    }
}

void print_parameters(const void *data, size_t n, int indent)
{
    cJSON *json = parameters_json(data, n);
    if (json)
        print_members(json, indent);
    else
        printf("%*s%zu bytes, damaged\n", indent, "", n);
    cJSON_Delete(json);
}
