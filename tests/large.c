/* large.c: files larger than 4 GB. They consist of holes, except where a test reads, and need no
 * disk space. */
#define _POSIX_C_SOURCE 200809L // pwrite
#define _FILE_OFFSET_BITS 64
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "format/format.h"
#include "support/tiny_model.h"

#define FAR (5ull << 30)
#define PATH "test-large.bin"

static void check_status(quip_status status, const quip_error *error)
{
    if (status)
        fail_msg("%s: %s", quip_status_name(status), error->message);
}

static int drop_file(void **state)
{
    (void)state;
    unlink(PATH);
    return 0;
}

static void write_far(int fd, const void *data, size_t n, uint64_t at)
{
    if (pwrite(fd, data, n, (off_t)at) != (ssize_t)n)
        fail_msg("cannot create a file of %llu bytes here", (unsigned long long)at);
}

/* ---- a model file ---- */

static void logits_of(float logits[TINY_VOCAB])
{
    static const quip_token tokens[] = { 5, 40, 77, 12, 100, 8, 9, 10, 55, 6 };
    quip_error error = { 0 };
    quip_model *model;
    quip_session *s;
    check_status(quip_model_open(&model, PATH, NULL, &error), &error);
    check_status(quip_session_open(&s, model, &(quip_session_options){ .n_context = 16 }, &error),
                 &error);
    check_status(quip_session_prefill(s, tokens, QP_COUNT(tokens), &error), &error);
    memcpy(logits, quip_session_logits(s), TINY_VOCAB * sizeof *logits);
    quip_session_close(s);
    quip_model_close(model);
}

/* Move the bytes of a tensor far back in the file, and update the header. */
static void move_tensor(int fd, struct format *f, const struct tensor *t, size_t n_header)
{
    const uint8_t *data, *header;
    uint64_t buffer[2] = { t->offset, t->n_bytes }, at = 0; // the fields of Buffer: offset, size
    quip_error error = { 0 };
    const struct tensor whole = { .name = "header", .offset = 0, .n_bytes = n_header };
    check_status(qp_format_tensor_bytes(f, t, &data, &error), &error);
    check_status(qp_format_tensor_bytes(f, &whole, &header, &error), &error);
    while (at + sizeof buffer <= n_header && memcmp(header + at, buffer, sizeof buffer) != 0)
        at += 4;
    assert_true(at + sizeof buffer <= n_header);
    write_far(fd, data, (size_t)t->n_bytes, t->offset + FAR);
    buffer[0] += FAR;
    write_far(fd, buffer, sizeof buffer, at);
}

static void test_model_file(void **state)
{
    (void)state;
    float near[TINY_VOCAB], far[TINY_VOCAB];
    quip_error error = { 0 };
    struct file file;
    struct format f = { 0 };
    check_status(tiny_model_write(PATH, &tiny_llama, &error), &error);
    logits_of(near);
    const int fd = open(PATH, O_RDWR);
    assert_true(fd >= 0);
    check_status(qp_file_open(&file, PATH, &error), &error);
    check_status(qp_format_open(&f, &file, &error), &error);
    uint64_t n_header = file.size;
    for (int i = 0; i < f.n_tensors; i++)
        n_header = f.tensors[i].offset < n_header ? f.tensors[i].offset : n_header;
    for (int i = 0; i < f.n_tensors; i++)
        move_tensor(fd, &f, &f.tensors[i], (size_t)n_header);
    assert_int_equal(ftruncate(fd, (off_t)(file.size + FAR)), 0);
    qp_format_close(&f);
    qp_file_close(&file);
    close(fd);
    logits_of(far);
    assert_memory_equal(near, far, sizeof near);
}

/* ---- a checkpoint ---- */

/* [n_rows, 1024] binary16. Only the last row is not zero. */
static void test_safetensors(void **state)
{
    (void)state;
    const int64_t n_rows = 3 << 20;
    const uint64_t n_bytes = (uint64_t)n_rows * 2048;
    char header[200];
    uint16_t last[1024];
    float row[1024];
    quip_error error = { 0 };
    struct file file;
    struct format f = { 0 };
    int n = snprintf(header, sizeof header,
                     "{\"w\":{\"dtype\":\"F16\",\"shape\":[%lld,1024],\"data_offsets\":[0,%llu]}}",
                     (long long)n_rows, (unsigned long long)n_bytes);
    const uint64_t n_header = (uint64_t)n;
    for (int i = 0; i < 1024; i++)
        last[i] = (uint16_t)(0x3c00 + i); // 1 + i / 1024
    const int fd = open(PATH, O_RDWR | O_CREAT | O_TRUNC, 0666);
    assert_true(fd >= 0);
    write_far(fd, &n_header, sizeof n_header, 0);
    write_far(fd, header, (size_t)n, 8);
    write_far(fd, last, sizeof last, 8 + n_header + n_bytes - sizeof last);
    close(fd);
    check_status(qp_file_open(&file, PATH, &error), &error);
    check_status(qp_format_open(&f, &file, &error), &error);
    check_status(
        qp_format_read_f32(&f, &f.tensors[0], (uint64_t)(n_rows - 1) * 1024, 1024, row, &error),
        &error);
    for (int i = 0; i < 1024; i++)
        assert_true(row[i] == 1 + (float)i / 1024);
    qp_format_close(&f);
    qp_file_close(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_model_file, drop_file),
        cmocka_unit_test_teardown(test_safetensors, drop_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
