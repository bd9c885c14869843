/* convert_mediapipe.c (test): repeats every conversion of MediaPipe's converter in the reference
 * data
 * (../shared/data/interop/README.md). The tensors are the same, bit for bit, in both layouts. Each
 * layout is also converted to the other. Exceptions are listed with their reasons. */
#include "convert/checkpoint.h"
#include "model/families_convert.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/shared.h"

/* ---- MediaPipe's files ---- */

/* Conversions whose result in MediaPipe is wrong. Quip refuses them. */
static const struct {
    const char *name, *words; // of the message
} exceptions[] = {
    // Files for CPUs cannot store zero points. MediaPipe drops them, so every weight is wrong by as
    // many steps.
    { "GEMMA_2B-cpu-q4asym", "which have no zero points" },
    { "GEMMA_2B-cpu-q8asym", "which have no zero points" },
    { "GEMMA2_2B-cpu-q8asym", "which have no zero points" },
    { "PHI_2-cpu-q8asym", "which have no zero points" },
    { "STABLELM_4E1T_3B-cpu-q8asym", "which have no zero points" },
};

/* A model type, and what its config.json has besides the sizes. MediaPipe's types have fixed sizes,
 * which were replaced for these files. n_layers and d_model are the real ones. */
struct mediapipe_type {
    const char *name, *config;
    enum family_id family;
    int n_layers, d_model;
};
static const struct mediapipe_type mediapipe_types[] = {
    { "GEMMA_2B", "\"model_type\": \"gemma\"", FAMILY_GEMMA, 18, 2048 },
    { "GEMMA2_2B",
      "\"model_type\": \"gemma2\", \"query_pre_attn_scalar\": 16, \"layer_types\": "
      "[\"full_attention\", \"full_attention\"]",
      FAMILY_GEMMA2, 26, 2304 },
    { "PHI_2", "\"model_type\": \"phi\", \"partial_rotary_factor\": 0.4", FAMILY_PHI2, 32, 2560 },
    { "STABLELM_4E1T_3B", "\"model_type\": \"stablelm\", \"tie_word_embeddings\": false",
      FAMILY_STABLELM, 32, 2560 },
    { "FALCON_RW_1B",
      "\"model_type\": \"falcon\", \"alibi\": true, \"bias\": true, \"multi_query\": false, "
      "\"parallel_attn\": false, \"tie_word_embeddings\": false",
      FAMILY_FALCON, 24, 2048 },
};

/* One folder of data/interop/ with a config.json. */
struct mediapipe_file {
    char name[64];
    const struct mediapipe_type *type;
    struct convert_options options;
    const char *refusal; // words of the message; NULL: converted
    bool is_float;
};

static int json_int(const cJSON *json, const char *key, int fallback)
{
    const cJSON *item = cJSON_GetObjectItem(json, key);
    return item ? item->valueint : fallback;
}

/* MediaPipe's arguments as our options. */
static void read_mediapipe(struct mediapipe_file *f, const char *name)
{
    char path[200];
    *f = (struct mediapipe_file){ 0 };
    assert_true(strlen(name) < sizeof f->name);
    strcpy(f->name, name);
    snprintf(path, sizeof path, "data/interop/%s/config.json", f->name);
    need_shared(path);
    cJSON *json = read_json(shared_path(path));
    const cJSON *asked = cJSON_GetObjectItem(json, "arguments");
    const char *type = cJSON_GetObjectItem(asked, "model_type")->valuestring;
    for (size_t i = 0; i < QP_COUNT(mediapipe_types); i++)
        if (strcmp(mediapipe_types[i].name, type) == 0)
            f->type = &mediapipe_types[i];
    assert_non_null(f->type);
    f->is_float = cJSON_GetObjectItem(json, "note") != NULL; // "every weight file is float32"
    f->options = (struct convert_options){
        .weights = f->is_float ? CONVERT_F32 : CONVERT_INT8,
        .attention_bits = json_int(asked, "attention_quant_bits", 0),
        .feed_forward_bits = json_int(asked, "feedforward_quant_bits", 0),
        .embedding_bits = json_int(asked, "embedding_quant_bits", 0),
        .is_asymmetric = !cJSON_IsTrue(cJSON_GetObjectItem(asked, "is_symmetric")),
        .is_original = true,
        .for_gpu = strcmp(cJSON_GetObjectItem(asked, "backend")->valuestring, "gpu") == 0,
    };
    for (size_t i = 0; i < QP_COUNT(exceptions); i++)
        if (strcmp(exceptions[i].name, name) == 0)
            f->refusal = exceptions[i].words;
    cJSON_Delete(json);
}

/* Call fn for every file, and check that none is missing. */
static void each_mediapipe_file(void (*fn)(const struct mediapipe_file *f))
{
    int n = 0;
    need_shared("data/interop");
    DIR *folder = opendir(shared_path("data/interop"));
    assert_non_null(folder);
    for (struct dirent *entry; (entry = readdir(folder));) {
        struct mediapipe_file f;
        if (!strstr(entry->d_name, "-cpu-") && !strstr(entry->d_name, "-gpu-"))
            continue; // bundles and sources
        read_mediapipe(&f, entry->d_name);
        fn(&f);
        n++;
    }
    closedir(folder);
    assert_true(n >= 37);
}

/* ---- files ---- */

static char work[64];

static const char *in_work(const char *name)
{
    static char paths[4][256];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", work, name);
    return path;
}

static const char *const work_files[] = { "config.json", "model.safetensors", "tokenizer.model",
                                          "pytorch_model.bin", "a.bin" };

static int make_work(void **state)
{
    (void)state;
    strcpy(work, "test-mediapipe-XXXXXX");
    return mkdtemp(work) ? 0 : -1;
}

static int drop_work(void **state)
{
    (void)state;
    for (size_t i = 0; i < QP_COUNT(work_files); i++)
        unlink(in_work(work_files[i]));
    return rmdir(work);
}

static void copy_source(const struct mediapipe_type *type, const char *name)
{
    char path[200];
    size_t n;
    snprintf(path, sizeof path, "data/interop/sources/%s/%s", type->name, name);
    need_shared(path);
    char *data = read_whole(shared_path(path), &n);
    save_file(in_work(name), data, n);
    free(data);
}

static void write_config(const struct mediapipe_type *type)
{
    char path[200], text[1000];
    snprintf(path, sizeof path, "data/interop/sources/%s/dims.json", type->name);
    need_shared(path);
    cJSON *dims = read_json(shared_path(path));
    const int n =
        snprintf(text, sizeof text,
                 "{%s, \"vocab_size\": %d, \"num_hidden_layers\": %d, \"hidden_size\": %d, "
                 "\"intermediate_size\": %d, \"ffn_hidden_size\": %d, \"num_attention_heads\": %d, "
                 "\"num_key_value_heads\": %d, \"head_dim\": %d}",
                 type->config, json_int(dims, "vocab_size", 0), json_int(dims, "num_layers", 0),
                 json_int(dims, "hidden_size", 0), json_int(dims, "intermediate_size", 0),
                 json_int(dims, "intermediate_size", 0), json_int(dims, "num_heads", 0),
                 json_int(dims, "num_kv_heads", 0), json_int(dims, "head_dim", 0));
    cJSON_Delete(dims);
    assert_true(n < (int)sizeof text);
    save_file(in_work("config.json"), text, (size_t)n);
}

struct opened {
    struct file file;
    struct format format;
};

static void open_file(struct opened *o, const char *path)
{
    quip_error error = { 0 };
    *o = (struct opened){ 0 };
    if (qp_file_open(&o->file, path, &error) || qp_format_open(&o->format, &o->file, &error))
        fail_msg("%s", error.message);
}

static void open_mediapipe(struct opened *o, const char *name)
{
    char path[200];
    snprintf(path, sizeof path, "data/interop/%s/model.bin", name);
    need_shared(path);
    open_file(o, shared_path(path));
}

static void close_file(struct opened *o)
{
    qp_format_close(&o->format);
    qp_file_close(&o->file);
}

/* ---- comparing ---- */

/* Conditions of MediaPipe's reader. */
static void check_rules(const struct opened *o, bool for_gpu)
{
    const struct format *f = &o->format;
    const uint64_t align = for_gpu ? 256 : 64;
    uint64_t first = o->file.size;
    assert_int_equal(o->file.size % 65536, 0);
    assert_true(o->file.size >= 1 << 20);
    for (int i = 0; i < f->n_tensors; i++) {
        assert_int_equal(f->tensors[i].offset % align, 0);
        first = f->tensors[i].offset < first ? f->tensors[i].offset : first;
    }
    for (int i = 0; i < f->n_metadata; i++)
        if (f->metadata[i].type == METADATA_BYTES) {
            assert_int_equal(f->metadata[i].offset % align, 0);
            first = f->metadata[i].offset < first ? f->metadata[i].offset : first;
        }
    assert_true(first <= 1 << 20); // the flatbuffer is before all data
    assert_true(!for_gpu || first % 65536 == 0);
}

static void compare_tensors(const char *name, struct opened *ours, struct opened *theirs)
{
    assert_int_equal(ours->format.n_tensors, theirs->format.n_tensors);
    for (int i = 0; i < theirs->format.n_tensors; i++) {
        const struct tensor *a = &theirs->format.tensors[i];
        const struct tensor *b = qp_format_find(&ours->format, a->name);
        const uint8_t *x, *y;
        if (!b)
            fail_msg("%s: %s is missing", name, a->name);
        if (a->dtype != b->dtype || a->n_dims != b->n_dims || a->n_bytes != b->n_bytes ||
            memcmp(a->dims, b->dims, (size_t)a->n_dims * sizeof a->dims[0]))
            fail_msg("%s: %s has another type or shape", name, a->name);
        assert_int_equal(qp_format_tensor_bytes(&theirs->format, a, &x, NULL), 0);
        assert_int_equal(qp_format_tensor_bytes(&ours->format, b, &y, NULL), 0);
        if (memcmp(x, y, a->n_bytes))
            fail_msg("%s: %s has other bytes", name, a->name);
    }
}

static const char *text_of(struct opened *o, const char *name, size_t *n)
{
    const struct metadata *m = qp_format_find_metadata(&o->format, name);
    const uint8_t *data;
    assert_non_null(m);
    assert_int_equal(qp_format_bytes(&o->format, m, &data, n, NULL), 0);
    return (const char *)data;
}

static void compare_metadata(const struct mediapipe_type *type, struct opened *ours,
                             struct opened *theirs)
{
    static const char *const same[] = { "backend", "spm_vocab_model" };
    size_t n, n_ours;
    const struct model_type *t = qp_model_type_sized(type->family, type->n_layers, type->d_model);
    assert_non_null(t);
    assert_string_equal(t->title, theirs->format.subgraph_name);
    assert_int_equal(t->id, qp_format_find_metadata(&theirs->format, "odml.infra.LlmModelType")->i);
    for (size_t i = 0; i < QP_COUNT(same); i++) {
        const char *a = text_of(theirs, same[i], &n), *b = text_of(ours, same[i], &n_ours);
        assert_int_equal(n, n_ours);
        assert_memory_equal(a, b, n);
    }
    // ours has stop_token_ids after everything that MediaPipe writes
    const char *a = text_of(theirs, "odml.infra.proto.LlmParameters", &n);
    const char *b = text_of(ours, "odml.infra.proto.LlmParameters", &n_ours);
    assert_true(n_ours >= n);
    assert_memory_equal(a, b, n);
}

/* Files for GPUs are read while they are downloaded, so their tensors are in MediaPipe's order. */
static void compare_order(const struct opened *ours, const struct opened *theirs)
{
    for (int i = 0; i < theirs->format.n_tensors; i++)
        assert_string_equal(ours->format.tensors[i].name, theirs->format.tensors[i].name);
}

/* ---- from the checkpoint ---- */

static void convert_checkpoint(const struct mediapipe_file *f)
{
    quip_error error = { 0 };
    quip_model *model;
    struct opened ours, theirs;
    // for Falcon, the same file that MediaPipe read
    const bool is_pytorch = f->type->family == FAMILY_FALCON;
    const char *weights = is_pytorch ? "pytorch_model.bin" : "model.safetensors";
    copy_source(f->type, weights);
    copy_source(f->type, "tokenizer.model");
    write_config(f->type);
    const quip_status status = qp_convert(work, in_work("a.bin"), &f->options, &error);
    unlink(in_work(weights));
    if (f->refusal) {
        if (!status || !strstr(error.message, f->refusal))
            fail_msg("%s: expected \"%s\", got \"%s\"", f->name, f->refusal, error.message);
        print_message("%s: refused, as it should be\n", f->name);
        return;
    }
    if (status)
        fail_msg("%s: %s", f->name, error.message);
    open_file(&ours, in_work("a.bin"));
    open_mediapipe(&theirs, f->name);
    check_rules(&ours, f->options.for_gpu);
    compare_tensors(f->name, &ours, &theirs);
    compare_metadata(f->type, &ours, &theirs);
    if (f->options.for_gpu)
        compare_order(&ours, &theirs);
    print_message("%s: %d tensors and the metadata equal\n", f->name, theirs.format.n_tensors);
    close_file(&ours);
    close_file(&theirs);
    if (quip_model_open(&model, in_work("a.bin"), NULL, &error))
        fail_msg("%s: %s", f->name, error.message);
    quip_model_close(model);
}

static void test_checkpoints(void **state)
{
    (void)state;
    each_mediapipe_file(convert_checkpoint);
}

/* ---- from the other layout ---- */

static void convert_file(const char *from, const struct mediapipe_file *f)
{
    char path[200];
    struct opened ours, theirs;
    quip_error error = { 0 };
    snprintf(path, sizeof path, "data/interop/%s/model.bin", from);
    if (access(shared_path(path), R_OK))
        return; // MediaPipe did not make this file
    if (qp_convert(shared_path(path), in_work("a.bin"), &f->options, &error))
        fail_msg("%s: %s", from, error.message);
    open_file(&ours, in_work("a.bin"));
    open_mediapipe(&theirs, f->name);
    check_rules(&ours, f->options.for_gpu);
    compare_tensors(from, &ours, &theirs);
    print_message("%s -> %s: %d tensors equal\n", from, f->name, theirs.format.n_tensors);
    close_file(&ours);
    close_file(&theirs);
}

static void convert_other_layout(const struct mediapipe_file *f)
{
    char other[100];
    const char *at = strstr(f->name, f->options.for_gpu ? "-gpu-" : "-cpu-");
    // floats in files for GPUs are binary16, so they cannot be converted back
    if (f->refusal || f->options.is_asymmetric || (f->is_float && !f->options.for_gpu))
        return;
    snprintf(other, sizeof other, "%.*s%s%s", (int)(at - f->name), f->name,
             f->options.for_gpu ? "-cpu-" : "-gpu-", at + 5);
    convert_file(other, f);
}

static void test_other_layout(void **state)
{
    (void)state;
    each_mediapipe_file(convert_other_layout);
}

static void convert_floats(const struct mediapipe_file *f)
{
    if (strncmp(f->name, "GEMMA_2B-", 9) == 0 && !f->refusal && !f->is_float)
        convert_file("GEMMA_2B-cpu-fp32", f);
}

static void test_float_files_become_integer_files(void **state)
{
    (void)state;
    each_mediapipe_file(convert_floats);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_work, drop_work)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_checkpoints),
        TEST(test_other_layout),
        TEST(test_float_files_become_integer_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
