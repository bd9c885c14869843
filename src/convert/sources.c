/* sources.c: which files a checkpoint consists of.
 * In:  a path as people spell it: a GGUF, safetensors or PyTorch file; a folder; or a pattern such
 *      as "model-*.safetensors".
 * Out: the files with its tensors, and the folder of config.json and the tokenizer. */
#define _POSIX_C_SOURCE 200809L // glob
#include "convert/sources.h"
#include "convert/json.h"

#include <glob.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_SOURCES = 1024
};

/* How the files with weights are named. The first row that a folder has is used. */
static const struct weight_files {
    const char *format, *name;
    enum {
        NAME_OF_FILE,
        NAME_OF_INDEX, // JSON that says which file has which tensor
        NAME_PATTERN
    } kind;
} weight_files[] = {
    { "safetensors", "model.safetensors.index.json", NAME_OF_INDEX },
    { "safetensors", "model.safetensors", NAME_OF_FILE },
    { "pytorch", "pytorch_model.bin.index.json", NAME_OF_INDEX },
    { "pytorch", "pytorch_model.bin", NAME_OF_FILE },
    { "safetensors", "*.safetensors", NAME_PATTERN },
    { "pytorch", "*.pth", NAME_PATTERN },
    { "gguf", "*.gguf", NAME_PATTERN },
};

static quip_status no_path_memory(const struct sources *s, quip_error *error)
{
    return qp_fail_memory(error, "the list of files", (size_t)s->n * sizeof *s->paths);
}

static char *copy_of(const char *text)
{
    char *copy = malloc(strlen(text) + 1);
    return copy ? strcpy(copy, text) : NULL;
}

/* Add `path`, which is on the heap, and own it. NULL is a failed allocation. */
static quip_status add_source(struct sources *s, char *path, quip_error *error)
{
    if (!path)
        return no_path_memory(s, error);
    if (s->n == MAX_SOURCES) {
        free(path);
        return qp_fail(error, QUIP_E_FORMAT, "%s: has more than %d files", s->folder, MAX_SOURCES);
    }
    char **paths = realloc(s->paths, (size_t)(s->n + 1) * sizeof *paths);
    if (!paths) {
        free(path);
        return no_path_memory(s, error);
    }
    s->paths = paths;
    s->paths[s->n++] = path;
    return QUIP_OK;
}

/* Whether `name` occurs in `map` before `end`. */
static bool is_listed_before(const cJSON *map, const cJSON *end, const char *name)
{
    for (const cJSON *i = map->child; i != end; i = i->next)
        if (strcmp(i->valuestring, name) == 0)
            return true;
    return false;
}

/* The files that an index names, each once. */
static quip_status add_indexed(struct sources *s, const char *path, quip_error *error)
{
    cJSON *index;
    quip_status status = qp_json_read(&index, path, error);
    if (status)
        return status;
    const cJSON *map = cJSON_GetObjectItemCaseSensitive(index, "weight_map");
    if (!cJSON_IsObject(map) || !map->child)
        status = qp_fail(error, QUIP_E_FORMAT, "%s: has no weight_map", path);
    const char *last = "";
    for (const cJSON *i = map ? map->child : NULL; i && !status; i = i->next) {
        const char *name = i->valuestring;
        if (!cJSON_IsString(i) || !*name || strchr(name, '/') || strchr(name, '\\')) {
            status = qp_fail(error, QUIP_E_FORMAT, "%s: %s has no file name of this folder", path,
                             i->string);
            break;
        }
        // neighbours usually share a file, so the search through the list is rare
        if (strcmp(name, last) == 0 || is_listed_before(map, i, name))
            continue;
        status = add_source(s, qp_path_join(s->folder, last = name), error);
    }
    cJSON_Delete(index);
    return status;
}

/* Add all files that match, in the order of their names. Skip adapters, which are not checkpoints.
 */
static quip_status add_matches(struct sources *s, const char *pattern, quip_error *error)
{
    glob_t found;
    quip_status status = QUIP_OK;
    const int result = glob(pattern, 0, NULL, &found);
    if (result && result != GLOB_NOMATCH)
        return result == GLOB_NOSPACE
                   ? no_path_memory(s, error)
                   : qp_fail(error, QUIP_E_IO, "%s: cannot be searched", pattern);
    for (size_t i = 0; result == 0 && i < found.gl_pathc && !status; i++)
        if (strcmp(qp_path_name(found.gl_pathv[i]), "adapter_model.safetensors") != 0)
            status = add_source(s, copy_of(found.gl_pathv[i]), error);
    if (result == 0)
        globfree(&found);
    return status;
}

/* A pattern inside a folder; special characters of the folder's name are escaped. */
static char *pattern_in(const char *folder, const char *pattern)
{
    char *out = malloc(2 * strlen(folder) + strlen(pattern) + 2), *to = out;
    if (!out)
        return NULL;
    for (; *folder; *to++ = *folder++)
        if (strchr("*?[\\", *folder))
            *to++ = '\\';
    *to++ = '/';
    strcpy(to, pattern);
    return out;
}

static quip_status fail_without_weights(const char *folder, const char *format, quip_error *error)
{
    char *adapter = qp_path_join(folder, "adapter_config.json");
    const bool is_adapter = adapter && qp_path_exists(adapter);
    free(adapter);
    if (is_adapter)
        return qp_fail(error, QUIP_E_ARGUMENT,
                       "%s: is an adapter, not a checkpoint: convert the model with "
                       "--merge-adapter %s, or the adapter with --adapter-of MODEL",
                       folder, folder);
    return qp_fail(error, QUIP_E_IO,
                   "%s: has no %s%sweights; expected *.safetensors, pytorch_model.bin, *.pth or "
                   "*.gguf; for a file of another name, give its path",
                   folder, format ? format : "", format ? " " : "");
}

/* The files of one row of the table, if they are there. */
static quip_status add_files(struct sources *s, const struct weight_files *files, quip_error *error)
{
    const bool is_pattern = files->kind == NAME_PATTERN;
    char *path =
        is_pattern ? pattern_in(s->folder, files->name) : qp_path_join(s->folder, files->name);
    quip_status status = QUIP_OK;
    if (!path)
        return no_path_memory(s, error);
    if (is_pattern)
        status = add_matches(s, path, error);
    else if (qp_path_exists(path))
        status = files->kind == NAME_OF_INDEX ? add_indexed(s, path, error)
                                              : add_source(s, copy_of(path), error);
    free(path);
    return status;
}

static quip_status add_folder(struct sources *s, const char *format, quip_error *error)
{
    for (size_t i = 0; i < QP_COUNT(weight_files) && s->n == 0; i++) {
        if (format && strcmp(weight_files[i].format, format) != 0)
            continue;
        const quip_status status = add_files(s, &weight_files[i], error);
        if (status)
            return status;
    }
    return s->n ? QUIP_OK : fail_without_weights(s->folder, format, error);
}

quip_status qp_sources_find(struct sources *s, const char *path, const char *format,
                            quip_error *error)
{
    quip_status status;
    const bool is_folder = qp_path_is_folder(path);
    *s = (struct sources){ .folder = is_folder ? copy_of(path) : qp_path_folder(path) };
    if (!s->folder)
        return qp_fail_memory(error, "a path", strlen(path));
    if (is_folder)
        status = add_folder(s, format, error);
    else if (qp_path_exists(path) || !strpbrk(path, "*?["))
        status = add_source(s, copy_of(path), error);
    else if (!(status = add_matches(s, path, error)) && s->n == 0)
        status = qp_fail(error, QUIP_E_IO, "%s: no file matches this pattern", path);
    if (status)
        qp_sources_close(s);
    return status;
}

void qp_sources_close(struct sources *s)
{
    for (int i = 0; i < s->n; i++)
        free(s->paths[i]);
    free(s->paths);
    free(s->folder);
    *s = (struct sources){ 0 };
}
