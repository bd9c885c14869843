/* shared.h: reference data that lies beside the checkout: ../shared, or $QUIP_SHARED. Without it a
 * test says "skipped"; with CI=true it fails. Include after cmocka.h. */
#ifndef SHARED_H
#define SHARED_H

#include <cjson/cJSON.h>
#include <stddef.h>

/* "<shared>/<name>" in `path`; skips or fails the running test when there is no such file. */
void shared_path(char *path, size_t size, const char *name);
/* Skip the running test, or fail it with CI=true: `what` is missing. */
void missing_data(const char *what);
/* The whole file, NUL-terminated; fails the test when it cannot be read. Free it. */
char *read_whole(const char *path, size_t *n);
cJSON *read_json(const char *path);
/* An array of ids from JSON into `ids`; returns how many. */
int json_ids(const cJSON *array, int *ids, int capacity);

#endif
