/* shared.h: reference data, which is too large for the repository and is stored beside it; reading
 * and writing of whole files. */
#ifndef TEST_SHARED_H
#define TEST_SHARED_H

#include <cjson/cJSON.h>
#include <stddef.h>

/* The path of a file or folder of the reference data: $QUIP_SHARED, or ../shared beside the
 * checkout. Valid until the fourth call from now. */
const char *shared_path(const char *name);

/* Skip the running test if `name` is missing. With CI=true in the environment, fail it. */
void need_shared(const char *name);
/* The same for any file. */
void need_file(const char *path);

/* The whole file, NUL-terminated. Fails the test if it cannot be read. The caller frees it. */
char *read_whole(const char *path, size_t *n);
/* Fail the test unless two files have the same bytes. */
void assert_same_file(const char *a, const char *b);
/* Write a file with these n bytes. */
void save_file(const char *path, const void *data, size_t n);
cJSON *read_json(const char *path);
/* Copy a JSON array of ids to `ids`. Returns their number. */
int json_ids(const cJSON *array, int *ids, int capacity);

#endif
