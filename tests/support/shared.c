/* shared.c: finds the reference data, and skips tests without it. */
#include "support/shared.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

const char *shared_path(const char *name)
{
    static char paths[4][4096];
    static int next;
    const char *folder = getenv("QUIP_SHARED");
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder ? folder : QUIP_SOURCE_DIR "/../shared", name);
    return path;
}

void need_file(const char *path)
{
    const char *ci = getenv("CI");
    if (access(path, R_OK) == 0)
        return;
    if (ci && strcmp(ci, "true") == 0)
        fail_msg("%s is missing", path);
    print_message("skipped: %s is missing\n", path);
    skip();
}

void need_shared(const char *name)
{
    need_file(shared_path(name));
}

char *read_whole(const char *path, size_t *n)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        fail_msg("cannot open %s", path);
    fseek(file, 0, SEEK_END);
    const long size = ftell(file);
    rewind(file);
    char *data = malloc((size_t)size + 1);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, (size_t)size, file), (size_t)size);
    fclose(file);
    data[size] = 0;
    *n = (size_t)size;
    return data;
}

void assert_same_file(const char *a, const char *b)
{
    size_t n_a, n_b;
    char *x = read_whole(a, &n_a), *y = read_whole(b, &n_b);
    assert_int_equal(n_a, n_b);
    assert_memory_equal(x, y, n_a);
    free(x);
    free(y);
}

void save_file(const char *path, const void *data, size_t n)
{
    FILE *file = fopen(path, "wb");
    if (!file)
        fail_msg("cannot create %s", path);
    assert_int_equal(fwrite(data, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
}

cJSON *read_json(const char *path)
{
    size_t n;
    char *text = read_whole(path, &n);
    cJSON *json = cJSON_Parse(text);
    free(text);
    if (!json)
        fail_msg("%s is not JSON", path);
    return json;
}

int json_ids(const cJSON *array, int *ids, int capacity)
{
    int n = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, array)
    {
        assert_true(n < capacity);
        ids[n++] = item->valueint;
    }
    return n;
}
