/* model_file.c: the MediaPipe model file. Reading agrees with listings of MediaPipe's files, and
 * written files can be read back. Tests of tflite.c and tflite_writer.c. Golden:
 * shared/data/interop/NAME/listing.txt, made by an independent reader. */
#include "format/format.h"
#include "format/little_endian.h"
#include "format/tflite.h"
#include "format/tflite_writer.h"
#include "support/alloc_fault.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

struct opened {
    struct file file;
    struct format f;
};

static quip_status open_path(struct opened *o, const char *path, quip_error *error)
{
    *o = (struct opened){ 0 };
    quip_status status = qp_file_open(&o->file, path, error);
    return status ? status : qp_format_open(&o->f, &o->file, error);
}

static void close_opened(struct opened *o)
{
    qp_format_close(&o->f);
    qp_file_close(&o->file);
}

/* ---- the listings ---- */

static const char *interop_folder(void)
{
    static char path[1024];
    const char *shared = getenv("QUIP_SHARED");
    snprintf(path, sizeof path, "%s/data/interop", shared ? shared : QUIP_SOURCE_DIR "/../shared");
    if (access(path, F_OK) == 0)
        return path;
    if (getenv("CI"))
        fail_msg("%s is missing; QUIP_SHARED names the folder `shared`", path);
    print_message("skipped: no %s\n", path);
    return NULL;
}

/* The text after `key` in a line of a listing. */
static const char *after(const char *line, const char *key)
{
    const char *found = strstr(line, key);
    return found ? found + strlen(key) : NULL;
}

/* "     2 INT8      shape=[128, 128] … off=7296 size=16384 … name=params…" */
static void check_tensor(const struct opened *o, int index, const char *line)
{
    assert_true(index < o->f.n_tensors);
    const struct tensor *t = &o->f.tensors[index];
    static const struct {
        const char *name;
        enum dtype dtype;
    } types[] = {
        { "FLOAT32", DTYPE_F32 }, { "INT32", DTYPE_I32 }, { "INT8", DTYPE_I8 }, { "INT4", DTYPE_I4 }
    };
    char type[16];
    assert_int_equal(sscanf(line, "%*d %15s", type), 1);
    bool is_known = false;
    for (size_t i = 0; i < QP_COUNT(types); i++)
        if (!strcmp(type, types[i].name)) {
            assert_int_equal(t->dtype, types[i].dtype);
            is_known = true;
        }
    assert_true(is_known);
    const char *shape = after(line, "shape=[");
    for (int i = 0; i < t->n_dims; i++) {
        char *end;
        assert_int_equal(strtoll(shape, &end, 10), t->dims[i]);
        shape = *end == ',' ? end + 1 : end;
    }
    assert_int_equal(*shape, ']');
    assert_int_equal(strtoull(after(line, " off="), NULL, 10), t->offset);
    assert_int_equal(strtoull(after(line, " size="), NULL, 10), t->n_bytes);
    assert_string_equal(after(line, " name="), t->name);
}

/* "         first16=0000613f…" of the tensor in the line before */
static void check_first_bytes(const struct opened *o, int index, const char *hex)
{
    const struct tensor *t = &o->f.tensors[index];
    for (unsigned i = 0; i < 16 && i < t->n_bytes; i++) {
        unsigned byte;
        assert_int_equal(sscanf(hex + 2 * (size_t)i, "%2x", &byte), 1);
        assert_int_equal(o->file.data[t->offset + i], byte);
    }
}

/* "  'backend' buffer=53 fields=[0, 1] len=3 …" */
static void check_entry(struct opened *o, const char *line)
{
    char name[128];
    assert_int_equal(sscanf(line, "  '%127[^']'", name), 1);
    const struct metadata *m = qp_format_find_metadata(&o->f, name);
    assert_non_null(m);
    if (m->type == METADATA_INT)
        assert_int_equal(m->i, strtoll(after(line, "buffer="), NULL, 10));
    else
        assert_int_equal(m->n_bytes, strtoull(after(line, "len="), NULL, 10));
    bool is_value = !strcmp(name, "odml.infra.LlmModelType") || !strcmp(name, "lora_rank");
    assert_int_equal(m->type, is_value ? METADATA_INT : METADATA_BYTES);
}

/* A listing can have several files, each starting with "file: NAME". Returns their number. */
static int check_listing(const char *folder)
{
    static char line[1 << 16];
    char path[1400];
    snprintf(path, sizeof path, "%s/listing.txt", folder);
    FILE *in = fopen(path, "r");
    if (!in)
        return 0;
    struct opened o = { 0 };
    int n_files = 0, index = -1;
    bool is_entries = false;
    while (fgets(line, sizeof line, in)) {
        const char *rest;
        line[strcspn(line, "\n")] = 0;
        if (!strncmp(line, "file: ", 6)) {
            close_opened(&o);
            snprintf(path, sizeof path, "%s/%.64s", folder, line + 6);
            quip_error e;
            if (!strstr(path, ".bin"))
                break; // a bundle of other files
            if (open_path(&o, path, &e))
                fail_msg("%s", e.message);
            assert_int_equal(o.f.kind, FORMAT_TFLITE);
            n_files++;
            is_entries = false;
        } else if ((rest = after(line, "subgraph 0 name=b'"))) {
            assert_memory_equal(rest, o.f.subgraph_name, strlen(o.f.subgraph_name));
            assert_int_equal(strtol(after(line, "tensors="), NULL, 10), o.f.n_tensors);
            index = -1;
        } else if (!strncmp(line, "metadata (", 10)) {
            assert_int_equal(strtol(line + 10, NULL, 10), o.f.n_metadata);
            is_entries = true;
        } else if (strstr(line, " shape=[") && strstr(line, " name=")) {
            check_tensor(&o, ++index, line);
        } else if ((rest = after(line, "         first16="))) {
            check_first_bytes(&o, index, rest);
        } else if (is_entries && !strncmp(line, "  '", 3)) {
            check_entry(&o, line);
        }
    }
    close_opened(&o);
    fclose(in);
    return n_files;
}

static void test_listings(void **state)
{
    (void)state;
    const char *root = interop_folder();
    if (!root)
        skip();
    DIR *all = opendir(root);
    assert_non_null(all);
    int n_files = 0;
    for (struct dirent *d; (d = readdir(all));) {
        char folder[1300];
        snprintf(folder, sizeof folder, "%s/%s", root, d->d_name);
        n_files += check_listing(folder);
    }
    closedir(all);
    assert_true(n_files >= 40);
}

/* ---- writing ---- */

static char folder[] = "/tmp/quip-model-XXXXXX";
static char model_path[64], part_path[80];

/* A model file of every type, written in pieces, last tensor first. */
static quip_status write_model(struct tflite_writer **w, quip_error *error)
{
    static const int64_t shapes[4][3] = { { 3, 5 }, { 64, 32 }, { 2, 6 }, { 1, 1, 7 } };
    static const struct {
        const char *name;
        enum dtype dtype;
        int n_dims;
        uint64_t n_bytes;
    } tensors[4] = { { "floats", DTYPE_F32, 2, 60 },
                     { "bytes", DTYPE_I8, 2, 2048 },
                     { "nibbles", DTYPE_I4, 2, 6 },
                     { "sums", DTYPE_I32, 3, 28 } };
    quip_status status = qp_tflite_writer_open(w, model_path, "TEST", error);
    for (int i = 0; i < 4 && !status; i++) {
        int index;
        status = qp_tflite_writer_tensor(*w, tensors[i].name, tensors[i].dtype, tensors[i].n_dims,
                                         shapes[i], &index, error);
    }
    if (!status)
        status = qp_tflite_writer_value(*w, "odml.infra.LlmModelType", 0x80000007, error);
    if (!status)
        status = qp_tflite_writer_metadata(*w, "backend", "cpu", 3, error);
    if (!status)
        status = qp_tflite_writer_metadata(*w, "empty", NULL, 0, error);
    if (!status)
        status = qp_tflite_writer_begin(*w, error);
    for (int i = 3; i >= 0 && !status; i--)
        for (uint64_t k = 0; k < tensors[i].n_bytes && !status; k++) {
            uint8_t byte = (uint8_t)(k * 7 + (uint64_t)i);
            status = qp_tflite_writer_write(*w, i, k, &byte, 1, error);
        }
    return status ? status : qp_tflite_writer_commit(*w, error);
}

static bool exists(const char *path)
{
    return access(path, F_OK) == 0;
}

static void test_write(void **state)
{
    (void)state;
    struct tflite_writer *w;
    struct opened o;
    quip_error e = { 0 };
    quip_status status = write_model(&w, &e);
    qp_tflite_writer_close(w);
    if (status)
        fail_msg("%s", e.message);
    assert_false(exists(part_path));

    assert_int_equal(open_path(&o, model_path, &e), QUIP_OK);
    assert_int_equal(o.file.size, 1 << 20);
    assert_string_equal(o.f.subgraph_name, "TEST");
    assert_int_equal(o.f.n_tensors, 4);
    static const char *const names[] = { "floats", "bytes", "nibbles", "sums" };
    for (int i = 0; i < 4; i++) {
        const struct tensor *t = qp_format_find(&o.f, names[i]);
        assert_ptr_equal(t, &o.f.tensors[i]);
        assert_int_equal(t->offset % 64, 0);
        for (uint64_t k = 0; k < t->n_bytes; k++)
            assert_int_equal(o.file.data[t->offset + k], (uint8_t)(k * 7 + (uint64_t)i));
    }
    assert_int_equal(o.f.tensors[3].n_dims, 3);
    assert_int_equal(o.f.tensors[3].dims[2], 7);
    float x[12];
    assert_int_equal(qp_format_read_f32(&o.f, &o.f.tensors[2], 0, 12, x, &e), QUIP_OK);
    assert_true(x[0] == 2 - 8 && x[1] == 0 - 8 && x[2] == 9 - 8); // bytes 0x02, 0x09
    assert_int_equal(o.f.n_metadata, 3);
    assert_int_equal(qp_format_find_metadata(&o.f, "odml.infra.LlmModelType")->i, 0x80000007);
    const uint8_t *data;
    size_t n;
    assert_int_equal(qp_format_bytes(&o.f, qp_format_find_metadata(&o.f, "backend"), &data, &n, &e),
                     QUIP_OK);
    assert_true(n == 3 && !memcmp(data, "cpu", 3));
    close_opened(&o);
}

/* After any failure the old file is unchanged, and no other file is left. */
static void test_unfinished(void **state)
{
    (void)state;
    struct tflite_writer *w;
    quip_error e = { 0 };
    int index;
    assert_int_equal(qp_tflite_writer_open(&w, folder, "TEST", &e), QUIP_E_IO);
    assert_int_equal(qp_tflite_writer_open(&w, model_path, "TEST", &e), QUIP_OK);
    assert_int_equal(qp_tflite_writer_tensor(w, "x", DTYPE_F16, 1, (int64_t[]){ 4 }, &index, &e),
                     QUIP_E_UNSUPPORTED);
    assert_int_equal(qp_tflite_writer_tensor(w, "x", DTYPE_I4, 1, (int64_t[]){ 5 }, &index, &e),
                     QUIP_E_ARGUMENT);
    assert_int_equal(qp_tflite_writer_tensor(w, "x", DTYPE_I8, 1, (int64_t[]){ -1 }, &index, &e),
                     QUIP_E_ARGUMENT);
    assert_int_equal(
        qp_tflite_writer_tensor(w, "x", DTYPE_I8, 1, (int64_t[]){ 1ll << 31 }, &index, &e),
        QUIP_E_UNSUPPORTED);
    assert_int_equal(qp_tflite_writer_tensor(w, "x", DTYPE_I8, 1, (int64_t[]){ 4 }, &index, &e),
                     QUIP_OK);
    assert_int_equal(index, 0);
    assert_int_equal(qp_tflite_writer_begin(w, &e), QUIP_OK);
    assert_true(exists(part_path));
    assert_int_equal(qp_tflite_writer_write(w, 0, 2, "abc", 3, &e), QUIP_E_ARGUMENT);
    assert_int_equal(qp_tflite_writer_write(w, 0, 0, "abc", 3, &e), QUIP_OK);
    assert_int_equal(qp_tflite_writer_commit(w, &e), QUIP_E_ARGUMENT);
    assert_non_null(strstr(e.message, "3 of the 4 bytes of x"));
    qp_tflite_writer_close(w);
    assert_false(exists(part_path));
    qp_tflite_writer_close(NULL);
}

static void test_header_limit(void **state)
{
    (void)state;
    struct tflite_writer *w;
    quip_error e = { 0 };
    assert_int_equal(qp_tflite_writer_open(&w, model_path, "TEST", &e), QUIP_OK);
    for (int i = 0; i < 12000; i++) {
        char name[64];
        int index;
        snprintf(name, sizeof name, "params.lm.transformer.x_layers_%d.weight", i);
        assert_int_equal(
            qp_tflite_writer_tensor(w, name, DTYPE_F32, 1, (int64_t[]){ 1 }, &index, &e), QUIP_OK);
    }
    assert_int_equal(qp_tflite_writer_begin(w, &e), QUIP_E_UNSUPPORTED);
    assert_non_null(strstr(e.message, "12000 tensors"));
    qp_tflite_writer_close(w);
}

/* Beyond 4 GiB, offsets need 64 bits. The file has holes, so it needs little disk space. */
static void test_large(void **state)
{
    (void)state;
    struct tflite_writer *w;
    struct opened o;
    quip_error e = { 0 };
    int big, small;
    assert_int_equal(qp_tflite_writer_open(&w, model_path, "TEST", &e), QUIP_OK);
    const int64_t dims[] = { 5, 1 << 30 };
    assert_int_equal(qp_tflite_writer_tensor(w, "big", DTYPE_I8, 2, dims, &big, &e), QUIP_OK);
    assert_int_equal(qp_tflite_writer_tensor(w, "small", DTYPE_I8, 1, (int64_t[]){ 4 }, &small, &e),
                     QUIP_OK);
    if (qp_tflite_writer_begin(w, &e)) { // a small disk
        qp_tflite_writer_close(w);
        print_message("skipped: %s\n", e.message);
        skip();
    }
    assert_int_equal(qp_tflite_writer_write(w, big, 5ull << 30, "", 0, &e), QUIP_OK);
    assert_int_equal(qp_tflite_writer_write(w, small, 0, "tail", 4, &e), QUIP_OK);
    assert_int_equal(qp_tflite_writer_write(w, big, (5ull << 30) - 1, "x", 1, &e), QUIP_OK);
    // close instead of commit, which would check that everything was written
    struct file part;
    assert_int_equal(qp_file_open(&part, part_path, &e), QUIP_OK);
    o.file = part;
    assert_int_equal(qp_format_open(&o.f, &o.file, &e), QUIP_OK);
    const struct tensor *t = qp_format_find(&o.f, "small");
    assert_true(t->offset > 5ull << 30);
    assert_memory_equal(o.file.data + t->offset, "tail", 4);
    close_opened(&o);
    qp_tflite_writer_close(w);
}

/* ---- rewriting a MediaPipe file ---- */

static void rewrite(struct opened *o)
{
    struct tflite_writer *w;
    quip_error e = { 0 };
    int index;
    assert_int_equal(qp_tflite_writer_open(&w, model_path, o->f.subgraph_name, &e), QUIP_OK);
    for (int i = 0; i < o->f.n_tensors; i++) {
        const struct tensor *t = &o->f.tensors[i];
        assert_int_equal(
            qp_tflite_writer_tensor(w, t->name, t->dtype, t->n_dims, t->dims, &index, &e), QUIP_OK);
    }
    for (int i = 0; i < o->f.n_metadata; i++) {
        const struct metadata *m = &o->f.metadata[i];
        if (m->type == METADATA_INT)
            assert_int_equal(qp_tflite_writer_value(w, m->name, (uint32_t)m->i, &e), QUIP_OK);
        else
            assert_int_equal(qp_tflite_writer_metadata(w, m->name, o->file.data + m->offset,
                                                       (size_t)m->n_bytes, &e),
                             QUIP_OK);
    }
    assert_int_equal(qp_tflite_writer_begin(w, &e), QUIP_OK);
    for (int i = 0; i < o->f.n_tensors; i++)
        assert_int_equal(qp_tflite_writer_write(w, i, 0, o->file.data + o->f.tensors[i].offset,
                                                (size_t)o->f.tensors[i].n_bytes, &e),
                         QUIP_OK);
    assert_int_equal(qp_tflite_writer_commit(w, &e), QUIP_OK);
    qp_tflite_writer_close(w);
}

static void test_rewrite(void **state)
{
    (void)state;
    const char *root = interop_folder();
    if (!root)
        skip();
    static const char *const models[] = { "GEMMA_2B-cpu-fp32", "PHI_2-cpu-a8f4e4",
                                          "GEMMA2_2B-cpu-q8" };
    for (size_t k = 0; k < QP_COUNT(models); k++) {
        struct opened a, b;
        quip_error e;
        char path[1400];
        snprintf(path, sizeof path, "%s/%s/model.bin", root, models[k]);
        assert_int_equal(open_path(&a, path, &e), QUIP_OK);
        rewrite(&a);
        assert_int_equal(open_path(&b, model_path, &e), QUIP_OK);
        assert_string_equal(a.f.subgraph_name, b.f.subgraph_name);
        assert_int_equal(a.f.n_tensors, b.f.n_tensors);
        for (int i = 0; i < a.f.n_tensors; i++) {
            const struct tensor *s = &a.f.tensors[i], *t = &b.f.tensors[i];
            assert_string_equal(s->name, t->name);
            assert_int_equal(s->dtype, t->dtype);
            assert_int_equal(s->n_dims, t->n_dims);
            assert_memory_equal(s->dims, t->dims, sizeof s->dims);
            assert_int_equal(s->n_bytes, t->n_bytes);
            assert_memory_equal(a.file.data + s->offset, b.file.data + t->offset,
                                (size_t)t->n_bytes);
        }
        for (int i = 0; i < a.f.n_metadata; i++) {
            const struct metadata *s = &a.f.metadata[i], *t = &b.f.metadata[i];
            assert_string_equal(s->name, t->name);
            assert_int_equal(s->i, t->i);
            assert_int_equal(s->n_bytes, t->n_bytes);
            assert_memory_equal(a.file.data + s->offset, b.file.data + t->offset,
                                (size_t)t->n_bytes);
        }
        close_opened(&a);
        close_opened(&b);
    }
}

/* ---- damage ---- */

/* The file of test_write without its padding: header, metadata, tensors. */
static struct bytes small_model(void)
{
    struct tflite_writer *w;
    struct opened o;
    struct bytes b = { 0 };
    uint64_t end = 0;
    assert_int_equal(write_model(&w, NULL), QUIP_OK);
    qp_tflite_writer_close(w);
    assert_int_equal(open_path(&o, model_path, NULL), QUIP_OK);
    for (int i = 0; i < o.f.n_tensors; i++)
        if (o.f.tensors[i].offset + o.f.tensors[i].n_bytes > end)
            end = o.f.tensors[i].offset + o.f.tensors[i].n_bytes;
    assert_true(qp_bytes_append(&b, o.file.data, (size_t)end));
    close_opened(&o);
    return b;
}

static bool opens(const uint8_t *data, size_t n)
{
    uint8_t *copy = malloc(n ? n : 1); // a sanitizer reports reads past its end
    assert_non_null(copy);
    memcpy(copy, data, n);
    struct opened o;
    qp_file_open_memory(&o.file, copy, n, "test");
    bool ok = !qp_format_open(&o.f, &o.file, NULL);
    for (int i = 0; ok && i < o.f.n_tensors; i++) {
        float x[16];
        qp_format_read_f32(&o.f, &o.f.tensors[i], 0, 16, x, NULL);
    }
    close_opened(&o);
    free(copy);
    return ok;
}

static void test_damage(void **state)
{
    (void)state;
    struct bytes b = small_model();
    assert_true(opens(b.data, b.n));
    for (size_t n = 0; n < b.n; n++)
        assert_false(opens(b.data, n));
    uint32_t seed = 1;
    uint8_t *copy = malloc(b.n);
    assert_non_null(copy);
    for (int i = 0; i < 40000; i++) {
        memcpy(copy, b.data, b.n);
        for (int k = 0; k <= i % 3; k++) {
            seed = seed * 1664525u + 1013904223u;
            copy[(seed >> 8) % b.n] ^= (uint8_t)(1 << (seed >> 29));
        }
        opens(copy, b.n);
    }
    free(copy);
    qp_bytes_close(&b);
}

/* A graph with operators, and another schema version, are refused with a message that says so. */
static void test_foreign(void **state)
{
    (void)state;
    struct bytes b = small_model();
    struct file file;
    struct format f;
    quip_error e;
    uint32_t model = qp_le32(b.data), vtable = model - qp_le32(b.data + model);
    uint32_t version = model + qp_le16(b.data + vtable + 4 + 2 * MODEL_VERSION);
    b.data[version] = 4;
    qp_file_open_memory(&file, b.data, b.n, "test");
    assert_int_equal(qp_format_open(&f, &file, &e), QUIP_E_UNSUPPORTED);
    assert_non_null(strstr(e.message, "version 4"));
    b.data[version] = TFLITE_VERSION;
    // use the list of buffers as the list of operator codes
    qp_put_le16(b.data + vtable + 4 + 2 * MODEL_OPERATOR_CODES,
                qp_le16(b.data + vtable + 4 + 2 * MODEL_BUFFERS));
    assert_int_equal(qp_format_open(&f, &file, &e), QUIP_E_UNSUPPORTED);
    assert_non_null(strstr(e.message, "operators"));
    qp_bytes_close(&b);
}

static void test_faults(void **state)
{
    (void)state;
    if (!alloc_fault_is_here())
        skip();
    int live = alloc_fault_live();
    bool has_failed = true;
    for (int n = 0; has_failed; n++) {
        struct tflite_writer *w;
        quip_error e = { 0 };
        alloc_fault_set(n);
        quip_status status = write_model(&w, &e);
        has_failed = alloc_fault_clear();
        assert_int_equal(status, has_failed ? QUIP_E_MEMORY : QUIP_OK);
        qp_tflite_writer_close(w);
        assert_int_equal(alloc_fault_live(), live);
        assert_false(exists(part_path));
    }
}

static int make_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(model_path, sizeof model_path, "%s/model.bin", folder);
    snprintf(part_path, sizeof part_path, "%s.part", model_path);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(model_path);
    unlink(part_path);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_listings),   cmocka_unit_test(test_write),
        cmocka_unit_test(test_unfinished), cmocka_unit_test(test_header_limit),
        cmocka_unit_test(test_large),      cmocka_unit_test(test_rewrite),
        cmocka_unit_test(test_damage),     cmocka_unit_test(test_foreign),
        cmocka_unit_test(test_faults),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
