/* shared.h: reference data that lies beside the checkout, too large to be part of it, and how to
 * read it; whole files in one call. */
#ifndef TEST_SHARED_H
#define TEST_SHARED_H

#include <cjson/cJSON.h>
#include <stddef.h>

/* The path of a file or folder of the reference data: $QUIP_SHARED, or ../shared beside the
 * checkout. Valid until the fourth call from now. */
const char *shared_path(const char *name);

/* Skip the running test when `name` is not there; with CI=true in the environment, fail it. */
void need_shared(const char *name);
/* The same for a file anywhere. */
void need_file(const char *path);

/* The whole file, NUL-terminated; fails the test when it cannot be read. Free it. */
char *read_whole(const char *path, size_t *n);
/* Make the file these n bytes. */
void save_file(const char *path, const void *data, size_t n);
cJSON *read_json(const char *path);
/* An array of ids from JSON into `ids`; returns how many. */
int json_ids(const cJSON *array, int *ids, int capacity);

#endif
