/* json.c: JSON files, and items of a JSON object.
 * In:  a path; an object.
 * Out: a tree of cJSON; values, where null counts as absent. */
#include "convert/json.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_JSON_BYTES = 256 << 20, // the largest in use, Gemma's tokenizer.json, has 33 MB
};

bool qp_path_is_json(const char *path)
{
    FILE *f = fopen(path, "rb");
    int c = f ? getc(f) : EOF;
    while (c == ' ' || c == '\t' || c == '\r' || c == '\n')
        c = getc(f);
    if (f)
        fclose(f);
    return c == '{';
}

static quip_status json_parse(cJSON **json, const struct file *file, quip_error *error)
{
    if (file->size > MAX_JSON_BYTES)
        return qp_fail(error, QUIP_E_FORMAT, "%s: has %llu bytes; a JSON file must have at most %d",
                       file->name, (unsigned long long)file->size, MAX_JSON_BYTES);
    size_t n = (size_t)file->size;
    char *text = malloc(n);
    if (!text)
        return qp_fail_memory(error, file->name, n);
    quip_status status = qp_file_read(file, 0, text, n, error);
    const char *end = text;
    *json = status ? NULL : cJSON_ParseWithLengthOpts(text, n, &end, false);
    while (*json && end < text + n && *end && strchr(" \t\r\n", *end))
        end++;
    if (!status && (!*json || end != text + n))
        status = qp_fail(error, QUIP_E_FORMAT,
                         "%s: is not JSON from byte %zu on, or needs too much memory", file->name,
                         (size_t)(end - text));
    free(text);
    if (!status && !cJSON_IsObject(*json))
        status = qp_fail(error, QUIP_E_FORMAT, "%s: is not a JSON object", file->name);
    return status;
}

quip_status qp_json_read(cJSON **json, const char *path, quip_error *error)
{
    struct file file = { 0 };
    *json = NULL;
    quip_status status = qp_file_open(&file, path, error);
    if (!status)
        status = json_parse(json, &file, error);
    qp_file_close(&file);
    if (status) {
        cJSON_Delete(*json);
        *json = NULL;
    }
    return status;
}

quip_status qp_json_in_folder(cJSON **json, const char *folder, const char *name, quip_error *error)
{
    char *path = qp_path_join(folder, name);
    if (!path)
        return qp_fail_memory(error, "a path", strlen(folder) + strlen(name) + 2);
    quip_status status = qp_path_exists(path) ? qp_json_read(json, path, error) : QUIP_OK;
    free(path);
    return status;
}

quip_status qp_json_beside(cJSON **json, const char *path, const char *name, quip_error *error)
{
    char *folder = qp_path_folder(path);
    quip_status status = folder ? qp_json_in_folder(json, folder, name, error)
                                : qp_fail_memory(error, "a path", strlen(path));
    free(folder);
    return status;
}

/* ---- items ---- */

const cJSON *qp_json_item(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNull(item) ? NULL : item;
}

const char *qp_json_text(const cJSON *object, const char *key)
{
    const char *text = cJSON_GetStringValue(qp_json_item(object, key));
    return text ? text : "";
}

bool qp_json_has_type(const cJSON *object, const char *type)
{
    return strcmp(qp_json_text(object, "type"), type) == 0;
}

bool qp_json_flag(const cJSON *object, const char *key, bool fallback)
{
    const cJSON *item = qp_json_item(object, key);
    return item ? cJSON_IsTrue(item) : fallback;
}
