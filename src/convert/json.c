/* json.c: JSON files, and items of a JSON object.
 * In:  a path; an object. What Python's json module reads is read, too.
 * Out: a tree of cJSON; values, where null counts as absent. Of members with the same name, only
 *      the last is left. */
#include "convert/json.h"
#include "convert/file_kind.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_JSON_BYTES = 256 << 20, // the largest in use, Gemma's tokenizer.json, has 33 MB
};

bool qp_path_is_json(const char *path)
{
    return qp_path_kind(path) == FILE_JSON;
}

/* ---- what Python writes and reads, and JSON lacks ---- */

static bool replace_word(char *at, const char *end, const char *word, const char *by)
{
    const size_t n = strlen(word);
    assert(strlen(by) == n);
    if ((size_t)(end - at) < n || memcmp(at, word, n) != 0)
        return false;
    memcpy(at, by, n);
    return true;
}

/* Infinity becomes a number that is too large for a double, and NaN an empty list, which is an
 * error wherever a number is expected. A byte order mark becomes spaces. */
static void replace_python_words(char *text, size_t n)
{
    bool is_in_string = false;
    if (n >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
        memset(text, ' ', 3);
    for (char *p = text, *end = text + n; p < end; p++) {
        if (*p == '"')
            is_in_string = !is_in_string;
        else if (is_in_string && *p == '\\' && p + 1 < end)
            p++;
        else if (!is_in_string && !replace_word(p, end, "Infinity", "1e99999 "))
            replace_word(p, end, "NaN", "[] ");
    }
}

/* ---- names that occur twice ---- */

struct member {
    cJSON *item;
    int index;
};

static int compare_members(const void *a, const void *b)
{
    const struct member *x = a, *y = b;
    const int order = strcmp(x->item->string, y->item->string);
    return order ? order : (x->index > y->index) - (x->index < y->index);
}

/* Of members with one name, the last counts, as in Python. cJSON would find the first. The empty
 * name is an exception: cJSON gives it to every name that begins with U+0000. */
static bool drop_repeated(cJSON *object, int n)
{
    struct member *members = malloc((size_t)n * sizeof *members);
    int i = 0;
    if (!members)
        return false;
    for (cJSON *item = object->child; item; item = item->next, i++)
        members[i] = (struct member){ item, i };
    assert(i == n);
    qsort(members, (size_t)n, sizeof *members, compare_members);
    for (i = 0; i + 1 < n; i++)
        if (*members[i].item->string &&
            strcmp(members[i].item->string, members[i + 1].item->string) == 0)
            cJSON_Delete(cJSON_DetachItemViaPointer(object, members[i].item));
    free(members);
    return true;
}

/* In all objects of a tree, which is at most CJSON_NESTING_LIMIT deep. False if there is not enough
 * memory. */
static bool drop_all_repeated(cJSON *item)
{
    const int n = cJSON_IsObject(item) ? cJSON_GetArraySize(item) : 0;
    if (n > 1 && !drop_repeated(item, n))
        return false;
    for (cJSON *child = item->child; child; child = child->next)
        if (child->child && !drop_all_repeated(child))
            return false;
    return true;
}

/* ---- reading ---- */

quip_status qp_json_parse(cJSON **json, char *text, size_t n, const char *name, quip_error *error)
{
    const enum file_kind kind = qp_file_kind(text, n < 512 ? n : 512);
    if (kind != FILE_JSON && kind != FILE_OTHER)
        return qp_refuse_kind(name, kind, "JSON", error);
    replace_python_words(text, n);
    const char *end = text;
    *json = cJSON_ParseWithLengthOpts(text, n, &end, false);
    while (*json && end < text + n && *end && strchr(" \t\r\n", *end))
        end++;
    if (!*json || end != text + n)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: is not JSON from byte %zu on, or needs too much memory", name,
                       (size_t)(end - text));
    return drop_all_repeated(*json) ? QUIP_OK : qp_fail_memory(error, name, n);
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
    if (!status)
        status = qp_json_parse(json, text, n, file->name, error);
    free(text);
    return status;
}

/* Read an object, or anything. */
static quip_status read_kind(cJSON **json, const char *path, bool is_any, quip_error *error)
{
    struct file file = { 0 };
    *json = NULL;
    quip_status status = qp_file_open(&file, path, error);
    if (!status)
        status = json_parse(json, &file, error);
    if (!status && !is_any && !cJSON_IsObject(*json))
        status = qp_fail(error, QUIP_E_FORMAT, "%s: is not a JSON object", path);
    qp_file_close(&file);
    if (status) {
        cJSON_Delete(*json);
        *json = NULL;
    }
    return status;
}

quip_status qp_json_read(cJSON **json, const char *path, quip_error *error)
{
    return read_kind(json, path, false, error);
}

quip_status qp_json_read_any(cJSON **json, const char *path, quip_error *error)
{
    return read_kind(json, path, true, error);
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
