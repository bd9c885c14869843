/* zip.c (test): the entries of a ZIP archive are found, and hostile archives are refused. The
 * archives are the seeds of the fuzz target: Python's zipfile wrote `stored` and `local64`; `zip64`
 * has every number in ZIP64 fields, like archives of more than 4 GiB. */
#include "format/zip.h"
#include "support/alloc_fault.h"
#include "support/shared.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SEEDS QUIP_SOURCE_DIR "/tests/fuzz/corpus/fuzz_zip/"

static quip_status open_zip(struct zip *z, const void *data, size_t n, quip_error *error)
{
    struct file file;
    qp_file_open_memory(&file, data, n, "test.zip");
    return qp_zip_open(z, &file, error);
}

static void expect_entry(const struct zip *z, const char *data, const char *name, const char *text,
                         size_t n_text)
{
    uint64_t offset, n;
    assert_true(qp_zip_find(z, name, &offset, &n));
    assert_int_equal(n, n_text);
    assert_memory_equal(data + offset, text, n_text);
}

static void test_archives(void **state)
{
    (void)state;
    struct zip z;
    quip_error error;
    size_t n;
    uint64_t offset, n_bytes;
    char *data = read_whole(SEEDS "stored", &n);
    assert_int_equal(open_zip(&z, data, n, &error), QUIP_OK);
    assert_int_equal(z.n_entries, 2); // not the folder "a/"
    assert_string_equal(z.entries[0].name, "a/b");
    expect_entry(&z, data, "a/b", "hello", 5);
    expect_entry(&z, data, "c", "", 0);
    assert_false(qp_zip_find(&z, "b", &offset, &n_bytes));
    qp_zip_close(&z);
    free(data);

    data = read_whole(SEEDS "local64", &n);
    assert_int_equal(open_zip(&z, data, n, &error), QUIP_OK);
    expect_entry(&z, data, "big", "0123456789", 10);
    qp_zip_close(&z);
    free(data);

    data = read_whole(SEEDS "zip64", &n);
    assert_int_equal(open_zip(&z, data, n, &error), QUIP_OK);
    assert_int_equal(z.n_entries, 2);
    expect_entry(&z, data, "archive/data.pkl", "\x80\x02}q\x00.", 6);
    expect_entry(&z, data, "archive/data/0", "\0\1\2\3\4\5\6\7\10\11\12\13\14\15\16\17", 16);
    qp_zip_close(&z);
    free(data);
}

static void test_matches(void **state)
{
    (void)state;
    struct file file;
    size_t n;
    char *data = read_whole(SEEDS "stored", &n);
    qp_file_open_memory(&file, data, n, "test.zip");
    assert_true(qp_zip_matches(&file));
    qp_file_open_memory(&file, data, n - 1, "test.zip");
    assert_false(qp_zip_matches(&file));
    qp_file_open_memory(&file, data, 3, "test.zip");
    assert_false(qp_zip_matches(&file));
    free(data);
}

/* With the longest comment, the end record is 65557 bytes before the end. */
static void test_long_comment(void **state)
{
    (void)state;
    size_t n;
    char *data = read_whole(SEEDS "local64", &n);
    const size_t n_all = n + 65535;
    char *longer = calloc(n_all, 1);
    assert_non_null(longer);
    memcpy(longer, data, n);
    memcpy(longer + n - 2, "\xff\xff", 2);
    memcpy(longer + n + 100, "PK\5\6",
           4); // looks like an end record, but its comment does not end at the end of the file
    struct zip z;
    assert_int_equal(open_zip(&z, longer, n_all, NULL), QUIP_OK);
    expect_entry(&z, longer, "big", "0123456789", 10);
    qp_zip_close(&z);
    free(longer);
    free(data);
}

/* One change to an archive, and words of the message that refuses it. */
struct wrong_zip {
    const char *seed;
    int at; // from the end if negative
    const char *bytes;
    size_t n;
    const char *words;
};

static void test_refusals(void **state)
{
    (void)state;
    // `stored`: entries a/ at 0, a/b at 32, c at 70; directory at 101 (entries of 48, 49, 47
    // bytes), end record at 245. `zip64`: directory at 152, end64 at 340, locator at 396
    static const struct wrong_zip wrong[] = {
        { "stored", 101 + 48 + 10, "\x08", 1, "a/b is compressed (method 8)" },
        { "stored", 101 + 48 + 20, "\x04", 1, "a/b is compressed" },
        { "stored", 101 + 48 + 8, "\x01", 1, "a/b is encrypted" },
        { "stored", 101 + 48 + 42, "\x21", 1, "expected the header of entry a/b at byte 33" },
        { "stored", 101 + 48 + 42, "\xff", 1, "a/b begins at byte 255, expected before" },
        { "stored", 32 + 28, "\xff\xff", 2, "a/b has 5 bytes at" },
        { "stored", 101 + 48 + 47, "\x00", 1, "zero byte" },
        { "stored", 101 + 48, "p", 1, "expected the header of entry 0 of its directory" },
        { "stored", -26 + 10, "\x04\x00", 2, "several" },
        { "stored", -26 + 8, "\xff\x00\xff\x00", 4, "too short for 255 entries" },
        { "stored", -26 + 16, "\xff\xff\xff\xff", 4, "expected to end before the end record" },
        { "stored", -4, "note", 4, NULL }, // a comment
        { "stored", -6, "\x00", 1, "is not a ZIP archive" },
        { "zip64", 340, "p", 1, "expected a ZIP64 end record at byte 340" },
        { "zip64", 396 + 8, "\xff", 1, "expected before its locator" },
        { "zip64", 340 + 24, "\x03", 1, "several" },
        { "zip64", 340 + 32 + 16 + 7, "\x80", 1, "expected to end before the end record" },
        { "zip64", 152 + 46 + 16 + 5 + 2, "\x08", 1, "has no ZIP64 sizes" },
        { "zip64", 152 + 46 + 16 + 5 + 4 + 7, "\xff", 1, "compressed" },
    };
    for (size_t i = 0; i < QP_COUNT(wrong); i++) {
        const struct wrong_zip *w = &wrong[i];
        char path[300];
        snprintf(path, sizeof path, "%s%s", SEEDS, w->seed);
        size_t n;
        char *data = read_whole(path, &n);
        memcpy(data + (w->at < 0 ? (int)n + w->at : w->at), w->bytes, w->n);
        struct zip z;
        quip_error error = { 0 };
        const quip_status status = open_zip(&z, data, n, &error);
        if (!w->words)
            assert_int_equal(status, QUIP_OK);
        else if (!status || !strstr(error.message, w->words))
            fail_msg("change %zu: expected \"%s\", got \"%s\"", i, w->words, error.message);
        qp_zip_close(&z);
        free(data);
    }
}

/* Two entries with the same name. */
static void test_doubled(void **state)
{
    (void)state;
    size_t n;
    char *data = read_whole(SEEDS "zip64", &n);
    struct zip z;
    quip_error error = { 0 };
    // shorten the name of the first entry to that of the second, with the rest as extra field
    char *first = data + 152, *second = first + 46 + 16 + 33;
    memcpy(first + 46, second + 46, 14);
    first[28] = 14;
    first[30] += 2;
    memcpy(first + 46 + 14, "\x99\x99\x03\x00zzz", 7); // was 2 of the name, 5 of extra field
    assert_int_equal(open_zip(&z, data, n, &error), QUIP_E_FORMAT);
    assert_non_null(strstr(error.message, "two entries named archive/data/0"));
    free(data);
}

/* Cut short anywhere, or with any bit flipped: an error or entries inside the file, never a read
 * outside. */
static void test_hostile(void **state)
{
    (void)state;
    static const char *const seeds[] = { SEEDS "stored", SEEDS "local64", SEEDS "zip64" };
    for (size_t i = 0; i < QP_COUNT(seeds); i++) {
        size_t n;
        struct zip z;
        char *data = read_whole(seeds[i], &n);
        for (size_t cut = 0; cut < n; cut++) {
            char *copy = malloc(cut + 1); // its own block, for a sanitizer to watch the end
            assert_non_null(copy);
            memcpy(copy, data, cut);
            assert_int_not_equal(open_zip(&z, copy, cut, NULL), QUIP_OK);
            free(copy);
        }
        for (size_t bit = 0; bit < n * 8; bit++) {
            data[bit / 8] ^= (char)(1 << bit % 8);
            if (!open_zip(&z, data, n, NULL))
                for (int k = 0; k < z.n_entries; k++)
                    assert_true(z.entries[k].offset + z.entries[k].n_bytes <= n);
            qp_zip_close(&z);
            data[bit / 8] ^= (char)(1 << bit % 8);
        }
        free(data);
    }
}

static void test_faults(void **state)
{
    (void)state;
    if (!alloc_fault_is_here())
        skip();
    size_t n;
    char *data = read_whole(SEEDS "zip64", &n);
    const int before = alloc_fault_live();
    for (int i = 0;; i++) {
        struct zip z;
        alloc_fault_set(i);
        const quip_status status = open_zip(&z, data, n, NULL);
        if (!alloc_fault_clear()) {
            qp_zip_close(&z);
            assert_true(i > 1);
            break;
        }
        assert_int_equal(status, QUIP_E_MEMORY);
        assert_int_equal(alloc_fault_live(), before);
    }
    free(data);
}

/* MediaPipe's bundles: padding before each entry, and data at multiples of 4. */
static void test_bundles(void **state)
{
    (void)state;
    static const char *const bundles[] = { "data/interop/GEMMA_2B-task-v0.10.21/model.task",
                                           "data/interop/GEMMA_2B-task-v0.10.35/model.task" };
    static const char *const names[] = { "TF_LITE_PREFILL_DECODE", "TOKENIZER_MODEL", "METADATA" };
    for (size_t i = 0; i < QP_COUNT(bundles); i++) {
        need_shared(bundles[i]);
        struct file file;
        struct zip z;
        quip_error error = { 0 };
        assert_int_equal(qp_file_open(&file, shared_path(bundles[i]), &error), QUIP_OK);
        assert_true(qp_zip_matches(&file));
        assert_int_equal(qp_zip_open(&z, &file, &error), QUIP_OK);
        for (size_t k = 0; k < QP_COUNT(names); k++) {
            uint64_t offset, n;
            assert_true(qp_zip_find(&z, names[k], &offset, &n));
            assert_true(n > 0 && offset % 4 == 0);
        }
        qp_zip_close(&z);
        qp_file_close(&file);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_archives),     cmocka_unit_test(test_matches),
        cmocka_unit_test(test_long_comment), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_doubled),      cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_faults),       cmocka_unit_test(test_bundles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
