/* cache.c: the folder for what can be made again: $XDG_CACHE_HOME/quip, or ~/.cache/quip. */
#include "base.h"

#include <stdlib.h>

#if defined(__unix__) || defined(__APPLE__)

#include <errno.h>
#include <sys/stat.h>

/* Append a folder to a path, and create it if it does not exist. */
static bool enter_folder(struct bytes *path, const char *name)
{
    if (!qp_bytes_append_text(path, name) || !qp_bytes_append(path, "", 1))
        return false;
    const bool exists = mkdir((char *)path->data, 0700) == 0 || errno == EEXIST;
    path->n--; // the NUL
    return exists;
}

char *qp_cache_path(const char *name)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    const bool has_cache = cache && *cache == '/'; // a relative one counts as none (XDG)
    struct bytes path = { 0 };
    if (!has_cache && !(home && *home == '/' && qp_path_exists(home))) // such as daemons
        return NULL;
    if ((has_cache ? enter_folder(&path, cache) : qp_bytes_append_text(&path, home)) &&
        (has_cache || enter_folder(&path, "/.cache")) && enter_folder(&path, "/quip/") &&
        qp_bytes_append_text(&path, name) && qp_bytes_append(&path, "", 1))
        return (char *)path.data;
    qp_bytes_close(&path);
    return NULL;
}

size_t qp_cache_read(const char *name, void *to, size_t n)
{
    char *path = qp_cache_path(name);
    FILE *f = path ? fopen(path, "rb") : NULL;
    const size_t n_read = f ? fread(to, 1, n, f) : 0;
    if (f)
        fclose(f);
    free(path);
    return n_read;
}

bool qp_cache_write(const char *name, const void *from, size_t n)
{
    char *path = qp_cache_path(name);
    struct out_file *out = NULL;
    const bool is_written = path && !qp_out_file_open(&out, path, NULL) &&
                            !qp_out_file_write(out, 0, from, n, NULL) &&
                            !qp_out_file_commit(out, NULL);
    qp_out_file_close(out);
    free(path);
    return is_written;
}

#else // such as WebAssembly

char *qp_cache_path(const char *name)
{
    (void)name;
    return NULL;
}

size_t qp_cache_read(const char *name, void *to, size_t n)
{
    (void)name, (void)to, (void)n;
    return 0;
}

bool qp_cache_write(const char *name, const void *from, size_t n)
{
    (void)name, (void)from, (void)n;
    return false;
}

#endif
