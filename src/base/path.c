/* path.c: parts of file paths. */
#include "base.h"

#include <stdlib.h>
#include <string.h>

char *qp_path_join(const char *folder, const char *name)
{
    const size_t n = strlen(folder) + strlen(name) + 2;
    char *path = malloc(n);
    if (path)
        snprintf(path, n, "%s/%s", folder, name);
    return path;
}

const char *qp_path_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

char *qp_path_folder(const char *path)
{
    const size_t n = (size_t)(qp_path_name(path) - path);
    char *folder = malloc(n + 2);
    if (!folder)
        return NULL;
    memcpy(folder, n ? path : ".", n ? n : 1);
    folder[n ? n : 1] = 0;
    if (n > 1) // the folder of "/file" is "/"
        folder[n - 1] = 0;
    return folder;
}
