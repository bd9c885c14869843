/* sources.h: the files that a checkpoint consists of (sources.c). */
#ifndef QP_SOURCES_H
#define QP_SOURCES_H

#include "base/base.h"

struct sources {
    char *folder;
    char **paths;
    int n;
};
/* If format is not NULL, only files of that format are used from a folder. */
quip_status qp_sources_find(struct sources *s, const char *path, const char *format,
                            quip_error *error);
void qp_sources_close(struct sources *s);
/* A pattern of glob() inside a folder; special characters of the folder's name are escaped. NULL
 * if there is no memory. The caller frees it. */
char *qp_pattern_in(const char *folder, const char *pattern);

#endif
