/* checkpoint_gguf.c: which GGUF files are one model.
 * In:  the GGUF files that a path names: one file, which may be a part of a model, or those of a
 *      folder.
 * Out: the files of one model, every part once and in order. Files that accompany a model (mmproj,
 *      imatrix, LoRA adapters) are left out, or refused if there is nothing else. Types that are
 *      not read are refused by name. */
#include "convert/checkpoint.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_PARTS = 1024,
    PART_SUFFIX = 20, // bytes of "-00001-of-00003.gguf"
    MAX_STEM = 1000
};

/* What a file says about itself. */
struct gguf_file {
    const char *companion; // what it is if it is not a model, and what to do; else NULL
    int no, n_parts;       // the part, from 0
    int64_t n_all_tensors; // of all parts; -1: not said
    int n_tensors;
};

static bool is_gguf_path(const char *path)
{
    char head[4] = "";
    const size_t n = strlen(path);
    if (n > 5 && strcmp(path + n - 5, ".gguf") == 0)
        return true;
    FILE *f = qp_path_is_folder(path) ? NULL : fopen(path, "rb");
    const bool is_read = f && fread(head, sizeof head, 1, f) == 1;
    if (f)
        fclose(f);
    return is_read && memcmp(head, "GGUF", sizeof head) == 0;
}

/* ---- one file ---- */

static quip_status entry_is(struct format *g, const char *key, const char *text, bool *is_equal,
                            quip_error *error)
{
    const struct metadata *m = qp_format_find_metadata(g, key);
    const uint8_t *data = NULL;
    size_t n = 0;
    quip_status status = QUIP_OK;
    if (m && m->type == METADATA_BYTES)
        status = qp_format_bytes(g, m, &data, &n, error);
    *is_equal = n > 0 && n == strlen(text) && memcmp(data, text, n) == 0;
    return status;
}

static int64_t entry_count(const struct format *g, const char *key, int64_t fallback)
{
    const struct metadata *m = qp_format_find_metadata(g, key);
    return m && m->type == METADATA_INT ? m->i : fallback;
}

/* Files that go with a model, by the entry that says so. */
static const struct companion {
    const char *key, *value, *what;
} companions[] = {
    { "general.type", "mmproj",
      "the image or audio part of a model (mmproj); convert the GGUF file of the language model" },
    { "general.architecture", "clip",
      "the image or audio part of a model (mmproj); convert the GGUF file of the language model" },
    { "general.type", "imatrix",
      "an importance matrix (imatrix), not a model; convert the GGUF file of the model" },
    { "general.type", "adapter",
      "a LoRA adapter in GGUF form; convert the adapter's PEFT folder with --adapter-of MODEL" },
};

static quip_status find_companion(struct format *g, const char **what, quip_error *error)
{
    for (size_t i = 0; i < QP_COUNT(companions); i++) {
        bool is_equal;
        quip_status status = entry_is(g, companions[i].key, companions[i].value, &is_equal, error);
        if (status)
            return status;
        if (is_equal)
            *what = companions[i].what;
    }
    return QUIP_OK;
}

static quip_status read_gguf_file(struct gguf_file *file, const char *path, quip_error *error)
{
    struct shard s;
    *file = (struct gguf_file){ .n_parts = 1, .n_all_tensors = -1 };
    quip_status status = qp_shard_open(&s, path, error);
    if (!status && s.format.kind == FORMAT_GGUF) {
        const int64_t no = entry_count(&s.format, "split.no", 0);
        const int64_t n_parts = entry_count(&s.format, "split.count", 1);
        if (n_parts < 0 || n_parts > MAX_PARTS || no < 0 || (no && no >= n_parts))
            status =
                qp_fail(error, QUIP_E_FORMAT,
                        "%s: says that it is part %lld of %lld, counted from 0; must be one of "
                        "at most %d parts",
                        path, (long long)no, (long long)n_parts, MAX_PARTS);
        file->no = (int)no;
        file->n_parts = n_parts > 0 ? (int)n_parts : 1;
        file->n_all_tensors = entry_count(&s.format, "split.tensors.count", -1);
        file->n_tensors = s.format.n_tensors;
        if (!status)
            status = find_companion(&s.format, &file->companion, error);
    }
    qp_shard_close(&s);
    return status;
}

/* ---- the parts of one model ---- */

/* The path before "-00001-of-00003.gguf" of this part; 0 if the name does not end so. */
static size_t part_stem(const char *path, const struct gguf_file *file)
{
    char suffix[48];
    const size_t n = strlen(path);
    snprintf(suffix, sizeof suffix, "-%05d-of-%05d.gguf", file->no + 1, file->n_parts);
    return n > PART_SUFFIX && strcmp(path + n - PART_SUFFIX, suffix) == 0 ? n - PART_SUFFIX : 0;
}

static quip_status part_without_name(const char *path, const struct gguf_file *file,
                                     quip_error *error)
{
    return qp_fail(error, QUIP_E_FORMAT,
                   "%s: is part %d of %d of a model, but its name does not end in "
                   "-%05d-of-%05d.gguf, so that the other parts cannot be found; give all parts "
                   "their names back",
                   path, file->no + 1, file->n_parts, file->no + 1, file->n_parts);
}

/* Replace the sources by all parts of the model that paths[chosen] belongs to. */
static quip_status list_parts(struct sources *s, int chosen, const struct gguf_file *file,
                              quip_error *error)
{
    char *path = s->paths[chosen];
    const size_t stem = part_stem(path, file);
    if (!stem || stem > MAX_STEM)
        return part_without_name(path, file, error);
    char part[MAX_STEM + 48];
    char **parts = calloc((size_t)file->n_parts, sizeof *parts);
    quip_status status = parts ? QUIP_OK : qp_fail_memory(error, "the list of parts", 0);
    for (int i = 0; i < file->n_parts && !status; i++) {
        snprintf(part, sizeof part, "%.*s-%05d-of-%05d.gguf", (int)stem, path, i + 1,
                 file->n_parts);
        if (!qp_path_exists(part))
            status = qp_fail(error, QUIP_E_IO,
                             "%s: is part %d of %d of a model, and %s is missing; put all parts "
                             "into one folder",
                             path, file->no + 1, file->n_parts, qp_path_name(part));
        else if (!(parts[i] = malloc(strlen(part) + 1)))
            status = qp_fail_memory(error, "a path", strlen(part));
        else
            strcpy(parts[i], part);
    }
    if (status) {
        for (int i = 0; parts && i < file->n_parts; i++)
            free(parts[i]);
        free(parts);
        return status;
    }
    for (int i = 0; i < s->n; i++)
        free(s->paths[i]);
    free(s->paths);
    s->paths = parts;
    s->n = file->n_parts;
    return QUIP_OK;
}

/* Each part says where it belongs; all together have the tensors that the first one counts. */
static quip_status check_parts(const struct sources *s, quip_error *error)
{
    int64_t n_tensors = 0, n_all = -1;
    for (int i = 0; i < s->n; i++) {
        struct gguf_file file;
        quip_status status = read_gguf_file(&file, s->paths[i], error);
        if (status)
            return status;
        if (file.no != i || file.n_parts != s->n)
            return qp_fail(error, QUIP_E_FORMAT,
                           "%s: says that it is part %d of %d, unlike its name; was it renamed?",
                           s->paths[i], file.no + 1, file.n_parts);
        if (n_all < 0)
            n_all = file.n_all_tensors;
        n_tensors += file.n_tensors;
    }
    if (n_all >= 0 && n_all != n_tensors)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: its %d parts have %lld tensors, expected %lld; is one of them from "
                       "another model?",
                       s->paths[0], s->n, (long long)n_tensors, (long long)n_all);
    return QUIP_OK;
}

/* ---- several files ---- */

/* Whether both files are parts of one model, by their names. */
static bool is_same_model(const char *a, const struct gguf_file *x, const char *b,
                          const struct gguf_file *y)
{
    const size_t n = part_stem(a, x);
    return n > 0 && x->n_parts == y->n_parts && n == part_stem(b, y) && memcmp(a, b, n) == 0;
}

static quip_status refuse_choice(const struct sources *s, const char *first, const char *second,
                                 quip_error *error)
{
    return qp_fail(error, QUIP_E_ARGUMENT,
                   "%s: has more than one model in GGUF form, such as %s and %s; give the path of "
                   "one of them",
                   s->folder, qp_path_name(first), qp_path_name(second));
}

/* The one source that is a model, or the first part of it that is there. */
static quip_status choose_source(const struct sources *s, int *chosen, struct gguf_file *file,
                                 quip_error *error)
{
    struct gguf_file next;
    const char *companion = NULL;
    *chosen = -1;
    for (int i = 0; i < s->n; i++) {
        quip_status status = read_gguf_file(&next, s->paths[i], error);
        if (status)
            return status;
        if (next.companion) {
            companion = next.companion;
            continue;
        }
        if (*chosen >= 0 && !is_same_model(s->paths[*chosen], file, s->paths[i], &next))
            return refuse_choice(s, s->paths[*chosen], s->paths[i], error);
        if (*chosen < 0) {
            *chosen = i;
            *file = next;
        }
    }
    if (*chosen < 0)
        return qp_fail(error, QUIP_E_UNSUPPORTED, "%s: is %s", s->paths[0], companion);
    return QUIP_OK;
}

/* Pieces of a file that was cut for a download, by their names: "m.gguf-split-a",
 * "m.gguf.part1of2".
 */
static quip_status check_piece_name(const char *path, quip_error *error)
{
    const char *name = qp_path_name(path);
    if (!strstr(name, ".gguf-split-") && !strstr(name, ".gguf.part"))
        return QUIP_OK;
    return qp_fail(error, QUIP_E_UNSUPPORTED,
                   "%s: is one piece of a file that was cut for the download; join all of them, in "
                   "their order: cat PIECES > model.gguf",
                   path);
}

quip_status qp_choose_gguf(struct sources *s, quip_error *error)
{
    int chosen = -1;
    struct gguf_file file;
    assert(s->n > 0);
    for (int i = 0; i < s->n; i++)
        if (check_piece_name(s->paths[i], error))
            return QUIP_E_UNSUPPORTED;
    for (int i = 0; i < s->n; i++)
        if (!is_gguf_path(s->paths[i]))
            return QUIP_OK;
    quip_status status = choose_source(s, &chosen, &file, error);
    if (status)
        return status;
    if (file.n_parts > 1)
        return (status = list_parts(s, chosen, &file, error)) ? status : check_parts(s, error);
    char *path = s->paths[chosen];
    s->paths[chosen] = s->paths[0];
    s->paths[0] = path;
    while (s->n > 1)
        free(s->paths[--s->n]);
    return QUIP_OK;
}

/* ---- types ---- */

quip_status qp_check_gguf_types(const struct format *g, quip_error *error)
{
    for (int i = 0; i < g->n_tensors; i++) {
        const struct tensor *t = &g->tensors[i];
        if (t->dtype == DTYPE_OTHER)
            return qp_fail(
                error, QUIP_E_UNSUPPORTED,
                "%s: %s is %s, which this version does not read; take a file of the same "
                "model in Q4_K_M, IQ4_XS, Q8_0 or BF16",
                g->file->name, t->name, t->type_name ? t->type_name : "of an unknown type");
    }
    return QUIP_OK;
}
