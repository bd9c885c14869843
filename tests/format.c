/* format.c (test): GGUF and safetensors as their specifications define them, number formats bit for
 * bit, and hostile files: cut short, with flipped bits, with false headers. tests/model_file.c has
 * the model file.
 */
#include "format/format.h"
#include "format/little_endian.h"
#include "support/alloc_fault.h"
#include "support/logits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

/* ---- opening ---- */

struct opened {
    struct file file;
    struct format f;
};

static bool read_memory(void *user, uint64_t offset, void *buffer, size_t n)
{
    memcpy(buffer, (const uint8_t *)user + offset, n);
    return true;
}

/* From memory, from a mapped file or through read_at. */
static quip_status open_bytes(struct opened *o, const void *data, size_t n, bool is_mapped,
                              quip_error *error)
{
    quip_source source = { .user = (void *)data, .size = n, .read_at = read_memory };
    *o = (struct opened){ 0 };
    quip_status status = QUIP_OK;
    if (is_mapped)
        qp_file_open_memory(&o->file, data, n, "test");
    else
        status = qp_file_open_source(&o->file, &source, error);
    return status ? status : qp_format_open(&o->f, &o->file, error);
}

static void close_opened(struct opened *o)
{
    qp_format_close(&o->f);
    qp_file_close(&o->file);
}

/* Read everything that an open file has. */
static void touch(struct format *f)
{
    for (int i = 0; i < f->n_tensors; i++) {
        float x[256];
        const uint8_t *bytes;
        qp_format_read_f32(f, &f->tensors[i], 0, 256, x, NULL);
        qp_format_tensor_bytes(f, &f->tensors[i], &bytes, NULL);
        assert_ptr_equal(qp_format_find(f, f->tensors[i].name), &f->tensors[i]);
    }
    for (int i = 0; i < f->n_metadata; i++) {
        const uint8_t *bytes;
        size_t n;
        struct metadata_cursor c = { 0 };
        qp_format_bytes(f, &f->metadata[i], &bytes, &n, NULL);
        while (qp_metadata_next(f, &f->metadata[i], &c)) {
        }
    }
}

/* ---- files for the tests ---- */

static struct bytes fixture;  // tests/data/blocks.gguf
static struct bytes coded;    // tests/data/blocks_coded.gguf, made by tools/gguf_samples.py
static struct bytes litertlm; // tests/data/sample.litertlm, made by litert_lm_builder 0.18.1

static int read_whole(struct bytes *to, const char *path)
{
    struct file file;
    quip_error e;
    if (qp_file_open(&file, path, &e)) {
        print_error("%s\n", e.message);
        return -1;
    }
    bool ok = qp_bytes_append(to, file.data, (size_t)file.size);
    qp_file_close(&file);
    return ok ? 0 : -1;
}

static int read_fixture(void **state)
{
    (void)state;
    return read_whole(&fixture, QUIP_SOURCE_DIR "/tests/data/blocks.gguf") ||
           read_whole(&coded, QUIP_SOURCE_DIR "/tests/data/blocks_coded.gguf") ||
           read_whole(&litertlm, QUIP_SOURCE_DIR "/tests/data/sample.litertlm");
}

static int free_fixture(void **state)
{
    (void)state;
    qp_bytes_close(&fixture);
    qp_bytes_close(&coded);
    qp_bytes_close(&litertlm);
    return 0;
}

/* A safetensors file with a header, in which ' means ", and n_data bytes 0, 1, 2 … */
static struct bytes make_safetensors(const char *header, size_t n_data)
{
    struct bytes b = { 0 };
    uint8_t length[8];
    qp_put_le64(length, strlen(header));
    qp_bytes_append(&b, length, 8);
    qp_bytes_append_text(&b, header);
    for (size_t i = 0; i < b.n; i++)
        if (b.data[i] == '\'')
            b.data[i] = '"';
    for (size_t i = 0; i < n_data; i++) {
        uint8_t byte = (uint8_t)i;
        qp_bytes_append(&b, &byte, 1);
    }
    return b;
}

static const char good_header[] =
    "{'__metadata__':{'format':'pt','note':'a\\nb'},"
    "'a.weight':{'dtype':'F32','shape':[1,2],'data_offsets':[0,8]},"
    "'\\u00e4\\ud83d\\ude00':{'shape':[3],'dtype':'BF16','data_offsets':[8,14]},"
    "'empty':{'dtype':'I64','shape':[0],'data_offsets':[14,14]},"
    "'half':{'dtype':'F16','shape':[],'data_offsets':[14,16]}}   ";

static struct bytes good_safetensors(void)
{
    return make_safetensors(good_header, 16);
}

/* ---- GGUF ---- */

struct expected_block {
    const char *name;
    int n;
    uint64_t hash; // FNV-1a of the floats
};

/* What the Python package gguf 0.17 reads from tests/data/blocks.gguf. Its blocks are random bytes
 * with finite scales. */
static const struct expected_block expected_blocks[] = {
    { "Q4_0", 1024, 0x6bc3e38fba5b531e }, { "Q4_1", 1024, 0x3ca84f7b5152e9ef },
    { "Q5_0", 1024, 0xa9e2af62eba6a73e }, { "Q5_1", 1024, 0x24e7bf565b1aa11d },
    { "Q8_0", 1024, 0x285d8d465623294a }, { "Q2_K", 1024, 0x181277343aa1aba3 },
    { "Q3_K", 1024, 0x4cab3bd6c512cfb4 }, { "Q4_K", 1024, 0xb64b68f18ea5ef19 },
    { "Q5_K", 1024, 0x34024aada9b00166 }, { "Q6_K", 1024, 0x3ec57ac9af73e75f },
    { "BF16", 64, 0x056625f428b14137 },   { "F16", 64, 0x2c7dd79484ec7a83 },
};

/* What gguf 0.19 reads from tests/data/blocks_coded.gguf. */
static const struct expected_block expected_coded[] = {
    { "IQ4_NL", 1024, 0xf006ff5e406106e2 }, { "IQ4_XS", 1024, 0xe22237a85f43fc23 },
    { "MXFP4", 1024, 0xa1db29863e244fa2 },  { "NVFP4", 1024, 0x50603c762528b340 },
    { "TQ1_0", 1024, 0xff755a666c898a29 },  { "TQ2_0", 1024, 0x2f3a0afd2d792778 },
    { "Q1_0", 1024, 0x801d3588124f9025 },
};

static void check_block(const struct format *f, const struct expected_block *expected)
{
    quip_error e = { 0 };
    const struct tensor *t = qp_format_find(f, expected->name);
    assert_non_null(t);
    assert_string_equal(qp_dtype_name(t->dtype), t->name);
    assert_int_equal(t->dims[0], 2);
    assert_int_equal(t->dims[1], expected->n / 2);
    float x[1024], y[1024];
    size_t n = (size_t)expected->n;
    assert_int_equal(qp_format_read_f32(f, t, 0, n, x, &e), QUIP_OK);
    if (logits_hash(x, n) != expected->hash)
        fail_msg("%s: the values differ from the reference", t->name);
    assert_int_equal(qp_format_read_f32(f, t, n / 2, n / 2, y, &e), QUIP_OK);
    assert_memory_equal(y, x + n / 2, n / 2 * sizeof *x);
    assert_int_equal(qp_format_read_f32(f, t, n / 2, n, y, &e), QUIP_E_ARGUMENT);
    if (n == 1024)
        assert_int_equal(qp_format_read_f32(f, t, 0, 16, y, &e), QUIP_E_ARGUMENT);
}

static void check_blocks(const struct bytes *file, const struct expected_block *expected, size_t n,
                         bool is_mapped)
{
    struct opened o;
    quip_error e = { 0 };
    assert_int_equal(open_bytes(&o, file->data, file->n, is_mapped, &e), QUIP_OK);
    assert_int_equal(o.f.kind, FORMAT_GGUF);
    for (size_t i = 0; i < n; i++)
        check_block(&o.f, &expected[i]);
    close_opened(&o);
}

static void test_blocks(void **state)
{
    (void)state;
    for (int is_mapped = 0; is_mapped < 2; is_mapped++) {
        check_blocks(&fixture, expected_blocks, QP_COUNT(expected_blocks), is_mapped);
        check_blocks(&coded, expected_coded, QP_COUNT(expected_coded), is_mapped);
    }
}

/* A type that is not read is named. */
static void test_unread_type(void **state)
{
    (void)state;
    struct opened o;
    quip_error e = { 0 };
    float x[256];
    assert_int_equal(open_bytes(&o, coded.data, coded.n, true, &e), QUIP_OK);
    const struct tensor *t = qp_format_find(&o.f, "IQ2_XS");
    assert_int_equal(t->dtype, DTYPE_OTHER);
    assert_string_equal(t->type_name, "IQ2_XS");
    assert_int_equal(qp_format_read_f32(&o.f, t, 0, 256, x, &e), QUIP_E_UNSUPPORTED);
    assert_non_null(strstr(e.message, "cannot read: IQ2_XS"));
    close_opened(&o);
}

static void check_gguf_metadata(bool is_mapped)
{
    struct opened o;
    quip_error e = { 0 };
    const uint8_t *data;
    size_t n;
    assert_int_equal(open_bytes(&o, fixture.data, fixture.n, is_mapped, &e), QUIP_OK);
    assert_int_equal(qp_format_find_metadata(&o.f, "yes")->i, 1);
    assert_int_equal(qp_format_find_metadata(&o.f, "minus")->i, -5);
    assert_true(qp_format_find_metadata(&o.f, "real")->f == 2.5);
    assert_null(qp_format_find_metadata(&o.f, "no"));
    const struct metadata *m = qp_format_find_metadata(&o.f, "general.architecture");
    assert_int_equal(qp_format_bytes(&o.f, m, &data, &n, &e), QUIP_OK);
    assert_int_equal(n, 4);
    assert_memory_equal(data, "test", 4);
    m = qp_format_find_metadata(&o.f, "yes");
    assert_int_equal(qp_format_bytes(&o.f, m, &data, &n, &e), QUIP_E_FORMAT);

    struct metadata_cursor c = { 0 };
    const int64_t numbers[] = { 1, -2, 3 };
    m = qp_format_find_metadata(&o.f, "numbers");
    assert_int_equal(m->n_items, 3);
    for (int i = 0; i < 3; i++) {
        assert_true(qp_metadata_next(&o.f, m, &c));
        assert_int_equal(c.i, numbers[i]);
        assert_true(c.f == (double)numbers[i]);
    }
    assert_false(qp_metadata_next(&o.f, m, &c) || c.is_malformed);

    const char *const words[] = { "x", "yy", "" };
    c = (struct metadata_cursor){ 0 };
    m = qp_format_find_metadata(&o.f, "words");
    assert_int_equal(m->item, METADATA_BYTES);
    for (int i = 0; i < 3; i++) {
        assert_true(qp_metadata_next(&o.f, m, &c));
        assert_int_equal(c.n_text, strlen(words[i]));
        assert_memory_equal(c.text, words[i], c.n_text);
    }
    assert_false(qp_metadata_next(&o.f, m, &c) || c.is_malformed);

    c = (struct metadata_cursor){ 0 };
    m = qp_format_find_metadata(&o.f, "halves");
    assert_true(qp_metadata_next(&o.f, m, &c) && c.f == 1.5);
    assert_true(qp_metadata_next(&o.f, m, &c) && c.f == 2.5);
    close_opened(&o);
}

static void test_gguf_metadata(void **state)
{
    (void)state;
    check_gguf_metadata(true);
    check_gguf_metadata(false);
}

#define AAAA 0x61616161 // a name of four letters

/* False headers: each is "GGUF", the version, and the rest as 32-bit words. */
static void test_gguf_lies(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        uint32_t words[24];
        quip_status status;
    } lies[] = {
        { "version 1", { 1 }, QUIP_E_UNSUPPORTED },
        { "big endian", { 0x03000000 }, QUIP_E_UNSUPPORTED },
        { "2^64 tensors", { 3, ~0u, ~0u, 0, 0 }, QUIP_E_FORMAT },
        { "2^40 entries", { 3, 0, 0, 0, 256 }, QUIP_E_FORMAT },
        { "a name of 2^64", { 3, 0, 0, 1, 0, ~0u, ~0u, 0, 4, 0 }, QUIP_E_FORMAT },
        { "a name of nothing", { 3, 0, 0, 1, 0, 0, 0, 4, 0 }, QUIP_E_FORMAT },
        { "a zero in a name", { 3, 0, 0, 1, 0, 4, 0, 0x610061, 4, 0 }, QUIP_E_FORMAT },
        { "type 13", { 3, 0, 0, 1, 0, 1, 0, 'a', 13, 0 }, QUIP_E_FORMAT },
        { "an array of arrays", { 3, 0, 0, 1, 0, 4, 0, AAAA, 9, 9, 1, 0 }, QUIP_E_UNSUPPORTED },
        { "2^62 items", { 3, 0, 0, 1, 0, 4, 0, AAAA, 9, 10, 0, 1u << 30 }, QUIP_E_FORMAT },
        { "2^40 strings", { 3, 0, 0, 1, 0, 4, 0, AAAA, 9, 8, 0, 256 }, QUIP_E_FORMAT },
        { "5 dimensions", { 3, 1, 0, 0, 0, 4, 0, AAAA, 5 }, QUIP_E_FORMAT },
        { "a dimension of 2^63", { 3, 1, 0, 0, 0, 4, 0, AAAA, 1, 0, 1u << 31 }, QUIP_E_FORMAT },
        { "half a block", { 3, 1, 0, 0, 0, 4, 0, AAAA, 1, 16, 0, 2, 0, 0 }, QUIP_E_FORMAT },
        { "data outside", { 3, 1, 0, 0, 0, 4, 0, AAAA, 1, 4, 0, 0, 1 << 20, 0 }, QUIP_E_FORMAT },
        { "crooked data", { 3, 1, 0, 0, 0, 4, 0, AAAA, 1, 4, 0, 0, 1, 0 }, QUIP_E_FORMAT },
    };
    for (size_t i = 0; i < QP_COUNT(lies); i++) {
        uint8_t file[4 + sizeof lies[i].words + 64] = "GGUF";
        for (size_t k = 0; k < QP_COUNT(lies[i].words); k++)
            qp_put_le32(file + 4 + 4 * k, lies[i].words[k]);
        for (int is_mapped = 0; is_mapped < 2; is_mapped++) {
            struct opened o;
            quip_error e = { 0 };
            if (open_bytes(&o, file, sizeof file, is_mapped, &e) != lies[i].status)
                fail_msg("%s: %s", lies[i].what, e.message);
            close_opened(&o);
        }
    }
}

/* ---- safetensors ---- */

static void test_safetensors(void **state)
{
    (void)state;
    struct bytes b = good_safetensors();
    for (int is_mapped = 0; is_mapped < 2; is_mapped++) {
        struct opened o;
        quip_error e = { 0 };
        const uint8_t *data;
        size_t n;
        if (open_bytes(&o, b.data, b.n, is_mapped, &e))
            fail_msg("%s", e.message);
        assert_int_equal(o.f.kind, FORMAT_SAFETENSORS);
        assert_int_equal(o.f.n_tensors, 4);
        const struct tensor *t = qp_format_find(&o.f, "a.weight");
        assert_int_equal(t->n_dims, 2);
        assert_int_equal(t->dims[1], 2);
        float x[2];
        assert_int_equal(qp_format_read_f32(&o.f, t, 0, 2, x, &e), QUIP_OK);
        assert_memory_equal(x, b.data + b.n - 16, 8);
        t = qp_format_find(&o.f, "\xc3\xa4\xf0\x9f\x98\x80");
        assert_int_equal(t->dtype, DTYPE_BF16);
        assert_int_equal(qp_format_find(&o.f, "empty")->dtype, DTYPE_OTHER);
        assert_int_equal(qp_format_find(&o.f, "half")->n_dims, 0);

        const struct metadata *m = qp_format_find_metadata(&o.f, "format");
        assert_int_equal(qp_format_bytes(&o.f, m, &data, &n, &e), QUIP_OK);
        assert_int_equal(n, 2);
        assert_memory_equal(data, "pt", 2);
        assert_null(qp_format_find_metadata(&o.f, "note")); // has an escape
        close_opened(&o);
    }
    qp_bytes_close(&b);
}

static void test_safetensors_lies(void **state)
{
    (void)state;
    // each has four bytes of data
    static const char *const lies[] = {
        "{}", // no tensor covers the data
        "{'a':{'dtype':'F32','shape':[1],'data_offsets':[0,4]}",
        "{'a':{'dtype':'F32','shape':[1],'data_offsets':[0,4]}},",
        "{'a':{'dtype':'F32','shape':[1],'data_offsets':[0,4]},}",
        "{'a':{'dtype':'F32','shape':[1],'data_offsets':[0,4],}}",
        "{'a':{'dtype':'F32','shape':[1],'data_offsets':[0,4,5]}}",
        "{'a':{'dtype':'F32','shape':[1],'data_offsets':[0,8]}}",
        "{'a':{'dtype':'F32','shape':[2],'data_offsets':[0,4]}}",
        "{'a':{'dtype':'F32','shape':[-1],'data_offsets':[0,4]}}",
        "{'a':{'dtype':'F32','shape':[1.0],'data_offsets':[0,4]}}",
        "{'a':{'dtype':'F32','shape':[01],'data_offsets':[0,4]}}",
        "{'a':{'dtype':'F32','shape':[1e0],'data_offsets':[0,4]}}",
        "{'a':{'dtype':'F32','shape':[1,1,1,1,1],'data_offsets':[0,4]}}",
        "{'a':{'dtype':'F32','shape':[18446744073709551616],'data_offsets':[0,4]}}",
        "{'a':{'dtype':'F32','shape':[4294967296,4294967296,0,9],'data_offsets':[0,4]}}",
        "{'a':{'dtype':'F32','shape':[1],'data_offsets':[4,0]}}",
        "{'a':{'dtype':'F32','shape':[1]}}",
        "{'a':{'dtype':'F32','dtype':'F32','shape':[1],'data_offsets':[0,4]}}",
        "{'a':{'dtype':'F32','shape':[1],'data_offsets':[0,4],'more':1}}",
        "{'a':{'dtype':4,'shape':[1],'data_offsets':[0,4]}}",
        "{'a':[]}",
        "{'a':{'dtype':'I8','shape':[3],'data_offsets':[1,4]}}", // a gap
        "{'a':{'dtype':'I8','shape':[3],'data_offsets':[0,3]}}", // a gap at the end
        "{'a':{'dtype':'I8','shape':[3],'data_offsets':[0,3]},"
        "'b':{'dtype':'I8','shape':[2],'data_offsets':[2,4]}}", // overlap
        "{'a':{'dtype':'I8','shape':[1],'data_offsets':[0,1]},"
        "'b':{'dtype':'F16','shape':[1],'data_offsets':[1,3]},"
        "'c':{'dtype':'I8','shape':[1],'data_offsets':[3,4]}}", // not aligned
        "{'a':{'dtype':'I8','shape':[2],'data_offsets':[0,2]},"
        "'a':{'dtype':'I8','shape':[2],'data_offsets':[2,4]}}", // the same name twice
        "{'\\ud800':{'dtype':'F32','shape':[1],'data_offsets':[0,4]}}",
        "{'\\x':{'dtype':'F32','shape':[1],'data_offsets':[0,4]}}",
        "{'\\u0000':{'dtype':'F32','shape':[1],'data_offsets':[0,4]}}",
        "{'a\n':{'dtype':'F32','shape':[1],'data_offsets':[0,4]}}",
        "{'':{'dtype':'F32','shape':[1],'data_offsets':[0,4]}}",
        "{'__metadata__':{'a':1},'a':{'dtype':'F32','shape':[1],'data_offsets':[0,4]}}",
        "{'__metadata__':[],'a':{'dtype':'F32','shape':[1],'data_offsets':[0,4]}}",
        "{'a",
        "{'a\\",
        "{'a\\'",
        "{'a\\u12",
    };
    for (size_t i = 0; i < QP_COUNT(lies); i++) {
        struct opened o;
        quip_error e = { 0 };
        struct bytes b = make_safetensors(lies[i], 4);
        if (open_bytes(&o, b.data, b.n, true, &e) != QUIP_E_FORMAT)
            fail_msg("%s: %s", lies[i], e.message);
        assert_true(strlen(e.message) > 0);
        close_opened(&o);
        qp_bytes_close(&b);
    }
}

/* ---- other files ---- */

static void test_other_files(void **state)
{
    (void)state;
    static const struct {
        const char *bytes, *hint;
        quip_status status;
    } others[] = {
        { "x", "is not a model file: it begins with 78;", QUIP_E_FORMAT },
        { "<!DOCTYPE html><html>", "is a web page", QUIP_E_FORMAT },
        { "\xef\xbb\xbf\r\n <html>", "is a web page", QUIP_E_FORMAT },
        { "GGU", "is not a model file", QUIP_E_FORMAT },
        { "hello, world. hello, world.", "68 65 6c 6c", QUIP_E_FORMAT },
        { "PK\3\4 and so on and so on", "PyTorch", QUIP_E_UNSUPPORTED },
        { "    PK\3\4 and so on and so on", ".task bundle", QUIP_E_UNSUPPORTED },
        { "version https://git-lfs.github.com/spec/v1", "git lfs pull", QUIP_E_FORMAT },
    };
    for (size_t i = 0; i < QP_COUNT(others); i++) {
        struct opened o;
        quip_error e = { 0 };
        quip_status status = open_bytes(&o, others[i].bytes, strlen(others[i].bytes), true, &e);
        assert_int_equal(status, others[i].status);
        assert_non_null(strstr(e.message, others[i].hint));
        close_opened(&o);
    }
}

static void test_dtypes(void **state)
{
    (void)state;
    uint64_t n;
    assert_true(qp_dtype_bytes(DTYPE_Q6_K, 512, &n) && n == 420);
    assert_false(qp_dtype_bytes(DTYPE_Q6_K, 128, &n));
    assert_false(qp_dtype_bytes(DTYPE_I4, 3, &n));
    assert_false(qp_dtype_bytes(DTYPE_F32, UINT64_MAX / 2, &n));
    assert_false(qp_dtype_bytes(DTYPE_OTHER, 32, &n));
    assert_string_equal(qp_dtype_name((enum dtype)77), "other");
}

/* ---- damage ---- */

/* Open a copy of exactly n bytes, so that a sanitizer reports a read of the first byte too many.
 */
static bool opens(const uint8_t *data, size_t n, bool is_mapped)
{
    uint8_t *copy = malloc(n ? n : 1);
    assert_non_null(copy);
    memcpy(copy, data, n);
    struct opened o;
    bool ok = !open_bytes(&o, copy, n, is_mapped, NULL);
    if (ok)
        touch(&o.f);
    close_opened(&o);
    free(copy);
    return ok;
}

/* ---- LiteRT-LM ---- */

static void check_litertlm(bool is_mapped)
{
    struct opened o;
    quip_error e = { 0 };
    const uint8_t *data;
    size_t n;
    assert_int_equal(open_bytes(&o, litertlm.data, litertlm.n, is_mapped, &e), QUIP_OK);
    assert_int_equal(o.f.kind, FORMAT_LITERTLM);
    assert_int_equal(o.f.n_tensors, 0);
    assert_int_equal(qp_format_find_metadata(&o.f, "system.count")->i, -7);
    assert_true(qp_format_find_metadata(&o.f, "system.ratio")->f == 0.5);
    assert_int_equal(qp_format_find_metadata(&o.f, "system.yes")->i, 1);
    assert_int_equal(qp_format_find_metadata(&o.f, "system.big")->i, (int64_t)1 << 40);
    const struct metadata *m = qp_format_find_metadata(&o.f, "section.0.model_type");
    assert_int_equal(qp_format_bytes(&o.f, m, &data, &n, &e), QUIP_OK);
    assert_int_equal(n, strlen("tf_lite_prefill_decode"));
    assert_memory_equal(data, "tf_lite_prefill_decode", n);
    m = qp_litertlm_section(&o.f, "SP_Tokenizer");
    assert_string_equal(m->name, "section.1.SP_Tokenizer");
    assert_int_equal(m->offset, 32768);
    assert_int_equal(m->n_bytes, 5808);
    assert_int_equal(qp_litertlm_section(&o.f, "TFLiteModel")->offset, 16384);
    assert_null(qp_litertlm_section(&o.f, "HF_Tokenizer_Zlib"));
    assert_int_equal(qp_litertlm_refuse(&o.f, &e), QUIP_E_UNSUPPORTED);
    assert_non_null(strstr(e.message, "inside of a TFLite graph"));
    close_opened(&o);
}

/* 8 bytes of the file, and what they become. */
static void check_litertlm_lie(size_t offset, uint64_t value, const char *part)
{
    struct bytes copy = { 0 };
    struct opened o;
    quip_error e = { 0 };
    assert_true(qp_bytes_append(&copy, litertlm.data, litertlm.n));
    qp_put_le64(copy.data + offset, value);
    assert_int_not_equal(open_bytes(&o, copy.data, copy.n, true, &e), QUIP_OK);
    if (!strstr(e.message, part))
        fail_msg("\"%s\" is not in \"%s\"", part, e.message);
    close_opened(&o);
    qp_bytes_close(&copy);
}

static size_t find_u64(uint64_t value)
{
    uint8_t bytes[8];
    qp_put_le64(bytes, value);
    for (size_t i = 32; i + 8 <= 2048; i++)
        if (memcmp(litertlm.data + i, bytes, 8) == 0)
            return i;
    fail_msg("the fixture does not have %llu", (unsigned long long)value);
    return 0;
}

static void test_litertlm(void **state)
{
    (void)state;
    check_litertlm(true);
    check_litertlm(false);
    check_litertlm_lie(8, 2, "version 2; expected 1");
    check_litertlm_lie(24, 0, "header ends at byte 0");
    check_litertlm_lie(24, litertlm.n + 1, "is the file truncated?");
    check_litertlm_lie(24, 64, "the header is damaged");
    check_litertlm_lie(32, 0x7fffffff, "the metadata points outside");
    check_litertlm_lie(find_u64(38576), 38577, "section 1 is at [32768, 38577)");
    check_litertlm_lie(find_u64(32768), 40000, "section 1 is at [40000, 38576)");
    check_litertlm_lie(find_u64(16384), 8, "section 0 is at [8, 16448)");
}

static void test_truncation(void **state)
{
    (void)state;
    struct bytes safetensors = good_safetensors();
    for (size_t n = 0; n < safetensors.n; n++)
        assert_false(opens(safetensors.data, n, n % 2));
    assert_true(opens(safetensors.data, safetensors.n, true));
    qp_bytes_close(&safetensors);

    assert_true(opens(fixture.data, fixture.n, true));
    for (size_t n = 0; n + 32 < fixture.n; n++) // the last bytes may be padding
        assert_false(opens(fixture.data, n, n % 2));

    assert_true(opens(litertlm.data, litertlm.n, true));
    for (size_t n = 0; n < litertlm.n; n += n < 2048 ? 1 : 97)
        assert_false(opens(litertlm.data, n, n % 2));
}

static uint32_t next_random(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

static void flip_bits(const struct bytes *file, size_t n_header, int n_tries)
{
    uint32_t seed = 1;
    uint8_t *copy = malloc(file->n);
    assert_non_null(copy);
    for (int i = 0; i < n_tries; i++) {
        memcpy(copy, file->data, file->n);
        for (uint32_t k = 0, n = 1 + next_random(&seed) % 4; k < n; k++)
            copy[next_random(&seed) % n_header] ^= (uint8_t)(1 << next_random(&seed) % 8);
        opens(copy, file->n, i % 2);
    }
    free(copy);
}

static void test_bit_flips(void **state)
{
    (void)state;
    struct bytes safetensors = good_safetensors();
    flip_bits(&safetensors, safetensors.n, 20000);
    qp_bytes_close(&safetensors);
    flip_bits(&fixture, 1024, 20000);
    flip_bits(&litertlm, 1024, 20000);
}

static void test_faults(void **state)
{
    (void)state;
    if (!alloc_fault_is_here())
        skip();
    struct bytes safetensors = good_safetensors();
    const struct bytes *const files[] = { &safetensors, &fixture, &litertlm };
    for (size_t i = 0; i < 2 * QP_COUNT(files); i++) {
        bool has_failed = true;
        int live = alloc_fault_live();
        for (int n = 0; has_failed; n++) {
            struct opened o;
            quip_error e = { 0 };
            alloc_fault_set(n);
            quip_status status = open_bytes(&o, files[i / 2]->data, files[i / 2]->n, i % 2, &e);
            has_failed = alloc_fault_clear();
            assert_int_equal(status, has_failed ? QUIP_E_MEMORY : QUIP_OK);
            close_opened(&o);
            assert_int_equal(alloc_fault_live(), live);
        }
    }
    qp_bytes_close(&safetensors);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks),      cmocka_unit_test(test_gguf_metadata),
        cmocka_unit_test(test_unread_type), cmocka_unit_test(test_litertlm),
        cmocka_unit_test(test_gguf_lies),   cmocka_unit_test(test_safetensors),
        cmocka_unit_test(test_other_files), cmocka_unit_test(test_safetensors_lies),
        cmocka_unit_test(test_dtypes),      cmocka_unit_test(test_truncation),
        cmocka_unit_test(test_bit_flips),   cmocka_unit_test(test_faults),
    };
    return cmocka_run_group_tests(tests, read_fixture, free_fixture);
}
