/* json.h: JSON files, and items of a JSON object (json.c). */
#ifndef QP_JSON_H
#define QP_JSON_H

#include "base/base.h"

#include <cjson/cJSON.h>

/* Parse a JSON file; free with cJSON_Delete. */
quip_status qp_json_read(cJSON **json, const char *path, quip_error *error);
/* The same for a file that may be something else than an object. */
quip_status qp_json_read_any(cJSON **json, const char *path, quip_error *error);
/* The same for text, which is overwritten; `name` is for messages. *json needs cJSON_Delete also
 * after a failure. */
quip_status qp_json_parse(cJSON **json, char *text, size_t n, const char *name, quip_error *error);
/* The same for a file of this name in a folder, or beside `path`. If there is no such file, *json
 * is unchanged. */
quip_status qp_json_in_folder(cJSON **json, const char *folder, const char *name,
                              quip_error *error);
quip_status qp_json_beside(cJSON **json, const char *path, const char *name, quip_error *error);
bool qp_path_is_json(const char *path); // by its first character

/* An item; NULL if it is absent or null. Its text, or "". */
const cJSON *qp_json_item(const cJSON *object, const char *key);
const char *qp_json_text(const cJSON *object, const char *key);
bool qp_json_has_type(const cJSON *object, const char *type);
bool qp_json_flag(const cJSON *object, const char *key, bool fallback);

#endif
