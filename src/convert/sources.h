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

#endif
