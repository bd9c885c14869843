/* sources.c: which files a checkpoint consists of.
 * In:  a path as people spell it: a GGUF, safetensors or PyTorch file; a folder; or a pattern such
 *      as "model-*.safetensors".
 * Out: the files with its tensors, and the folder of config.json and the tokenizer. */
#define _POSIX_C_SOURCE 200809L // glob
#include "convert/sources.h"
#include "convert/json.h"
#include "convert/store.h" // qp_ends_with

#include <glob.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_SOURCES = 1024
};

/* How the files with weights are named. The first row that a folder has is used, as in
 * transformers: an index beside a single file is one that an earlier save left behind. */
static const struct weight_files {
    const char *format, *name;
    enum {
        NAME_OF_FILE,
        NAME_OF_INDEX, // JSON that says which file has which tensor
        NAME_PATTERN
    } kind;
} weight_files[] = {
    { "safetensors", "model.safetensors", NAME_OF_FILE },
    { "safetensors", "model.safetensors.index.json", NAME_OF_INDEX },
    { "pytorch", "pytorch_model.bin", NAME_OF_FILE },
    { "pytorch", "pytorch_model.bin.index.json", NAME_OF_INDEX },
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
        if (!status && !qp_path_exists(s->paths[s->n - 1]))
            status = qp_fail(error, QUIP_E_IO,
                             "%s: names %.80s, which is not there; is the "
                             "download complete?",
                             path, name);
    }
    cJSON_Delete(index);
    return status;
}

/* ---- files by a pattern ---- */

static bool has_start(const char *name, const char *start)
{
    return strncmp(name, start, strlen(start)) == 0;
}

/* Whether a file that matches a pattern has no weights of the model: an adapter, or the state of
 * training. */
static bool is_other_file(const char *name)
{
    static const char *const starts[] = { "adapter_model.", "optimizer", "scheduler", "rng_state",
                                          "training_" };
    for (size_t i = 0; i < QP_COUNT(starts); i++)
        if (has_start(name, starts[i]))
            return true;
    return false;
}

/* Mistral's own format of the same weights, which a folder can have beside the other one. */
static bool is_vendor_copy(const glob_t *found, size_t i)
{
    const char *vendor = "consolidated.safetensors";
    bool has_others = false;
    for (size_t k = 0; k < found->gl_pathc; k++)
        has_others |= strcmp(qp_path_name(found->gl_pathv[k]), vendor) != 0;
    return has_others && strcmp(qp_path_name(found->gl_pathv[i]), vendor) == 0;
}

/* "model-00001-of-00003.safetensors" is part 1 of 3; 0 for a name of another form. */
static int count_parts(const char *path, int *part)
{
    const char *name = qp_path_name(path), *of = strstr(name, "-of-");
    int n_parts = 0;
    if (!of || of - name < 6 || sscanf(of + 4, "%5d", &n_parts) != 1 ||
        sscanf(of - 5, "%5d", part) != 1)
        return 0;
    return n_parts;
}

/* Fail if the last of the files is one of several parts, and not all are there. */
static quip_status check_parts(const struct sources *s, quip_error *error)
{
    int n_found = 0, part = 0, other;
    const int n_parts = s->n ? count_parts(s->paths[s->n - 1], &part) : 0;
    for (int i = 0; i < s->n; i++)
        n_found += count_parts(s->paths[i], &other) == n_parts;
    if (n_parts == 0 || n_found >= n_parts || qp_ends_with(s->paths[s->n - 1], ".gguf"))
        return QUIP_OK;
    return qp_fail(error, QUIP_E_IO,
                   "%s: is part %d of %d, and only %d are there; give the folder with all of them",
                   s->paths[s->n - 1], part, n_parts, n_found);
}

/* Add all files that match, in the order of their names, except those without weights. */
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
        if (!is_other_file(qp_path_name(found.gl_pathv[i])) && !is_vendor_copy(&found, i))
            status = add_source(s, copy_of(found.gl_pathv[i]), error);
    if (result == 0)
        globfree(&found);
    return status ? status : check_parts(s, error);
}

char *qp_pattern_in(const char *folder, const char *pattern)
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
    static const char *const foreign[] = { "tf_model.h5", "flax_model.msgpack", "rust_model.ot",
                                           "model.onnx", "weights.npz" };
    for (size_t i = 0; i < QP_COUNT(foreign); i++) {
        char *path = qp_path_join(folder, foreign[i]);
        const bool is_there = path && qp_path_exists(path);
        free(path);
        if (is_there)
            return qp_fail(error, QUIP_E_UNSUPPORTED,
                           "%s: has weights only as %s, which is not read; take the safetensors "
                           "files of the model",
                           folder, foreign[i]);
    }
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
        is_pattern ? qp_pattern_in(s->folder, files->name) : qp_path_join(s->folder, files->name);
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
        status = (status = add_source(s, copy_of(path), error)) ? status : check_parts(s, error);
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
