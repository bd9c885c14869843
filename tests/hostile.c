/* hostile.c: model files that are cut short, damaged or have false metadata. Each gives an error
 * with a message, or a model with meaningless answers. Nothing crashes, hangs or reads outside the
 * file. QUIP_SEED=n repeats a run that failed. */
#include "support/shared.h"
#include "support/tiny_model.h"

#include "model/model.h"

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char path[64];
static uint64_t seed = 1;

static int name_file(void **state)
{
    (void)state;
    const char *given = getenv("QUIP_SEED");
    if (given)
        seed = strtoull(given, NULL, 10);
    snprintf(path, sizeof path, "tiny-hostile-%d.bin", (int)getpid());
    print_message("seed %llu\n", (unsigned long long)seed);
    return 0;
}

static int remove_file(void **state)
{
    (void)state;
    unlink(path);
    return 0;
}

static uint64_t next_number(void) // splitmix64
{
    uint64_t z = seed += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static char *make(const struct tiny_model *m, size_t *n)
{
    quip_error error = { 0 };
    if (tiny_model_write(path, m, &error))
        fail_msg("%s", error.message);
    return read_whole(path, n);
}

/* ---- checks for every file ---- */

/* Complete UTF-8 characters without control characters, so that a terminal can print them. */
static void assert_sentence(const quip_error *error)
{
    const char *text = error->message;
    const size_t n = strlen(text);
    int32_t c;
    assert_true(error->status < 0 && n > 10);
    for (size_t i = 0; i < n; i += (size_t)qp_utf8_decode(text + i, n - i, &c))
        if (qp_utf8_decode(text + i, n - i, &c) < 1 || c < ' ' || c == 127)
            fail_msg("byte %zu of a message is not text: %s", i, text);
}

static void talk_to(quip_model *model, float temperature)
{
    static const char text[] = "the <end> hen";
    const quip_session_options options = { .n_context = 16,
                                           .n_threads = 1,
                                           .max_output_tokens = 3,
                                           .temperature = temperature,
                                           .greedy = temperature == 0,
                                           .top_p = 0.9f,
                                           .seed = 1,
                                           .has_seed = true };
    quip_error error = { 0 };
    quip_session *s;
    quip_token ids[64];
    char back[1024];
    int n_ids;
    size_t n;
    if (quip_session_open(&s, model, &options, &error)) {
        assert_sentence(&error);
        return;
    }
    if (quip_session_generate(s, text, 3, NULL, NULL, NULL, &error))
        assert_sentence(&error);
    quip_session_close(s);
    if (!quip_tokenize(model, text, sizeof text - 1, true, ids, 64, &n_ids, NULL))
        quip_detokenize(model, ids, n_ids < 64 ? n_ids : 64, back, sizeof back, &n, NULL);
}

/* Returns true if the file opens. It must then generate. The bytes are in a block of exactly their
 * size, so that a sanitizer reports reads past the end. */
static bool survives(const char *data, size_t n, float temperature)
{
    struct file file;
    quip_error error = { 0 };
    quip_model *model;
    char *block = malloc(n ? n : 1);
    assert_non_null(block);
    memcpy(block, data, n);
    qp_file_open_memory(&file, block, n, "hostile.bin");
    const bool opens = !qp_model_open(&model, &file, NULL, &error);
    if (opens)
        talk_to(model, temperature);
    else
        assert_sentence(&error);
    quip_model_close(model);
    free(block);
    return opens;
}

struct hostile_file {
    char *data;
    size_t header; // bytes before the first tensor: all metadata
    size_t n;      // bytes before the end of the last tensor; the rest is padding
};

static struct hostile_file measure(char *data, size_t n)
{
    struct hostile_file h = { data, n, 0 };
    struct file file;
    struct format f;
    qp_file_open_memory(&file, h.data, n, "tiny");
    assert_int_equal(qp_format_open(&f, &file, NULL), QUIP_OK);
    for (int i = 0; i < f.n_tensors; i++) {
        const struct tensor *t = &f.tensors[i];
        h.header = t->offset < h.header ? (size_t)t->offset : h.header;
        h.n = t->offset + t->n_bytes > h.n ? (size_t)(t->offset + t->n_bytes) : h.n;
    }
    qp_format_close(&f);
    assert_true(h.header > 1000 && h.n > h.header + 1000);
    return h;
}

static struct hostile_file make_file(const struct tiny_model *m)
{
    size_t n;
    char *data = make(m, &n);
    return measure(data, n);
}

/* ---- damage ---- */

static void test_truncated(void **state)
{
    (void)state;
    struct hostile_file h = make_file(&tiny_smallest);
    assert_true(survives(h.data, h.n, 0));
    for (size_t cut = 0; cut < h.n; cut += cut < h.header ? 1 : 1 + (size_t)next_number() % 500)
        if (survives(h.data, cut, 0))
            fail_msg("%zu of %zu bytes were opened", cut, h.n);
    free(h.data);
}

/* Flip one bit or a few, mostly in the header. Damaged weights are not detected. */
static void flip_bits(struct hostile_file h, int n_rounds)
{
    enum {
        MOST = 8
    };
    char *whole = malloc(h.n);
    size_t at[MOST];
    int n_opened = 0;
    assert_non_null(whole);
    memcpy(whole, h.data, h.n);
    for (int round = 0; round < n_rounds; round++) {
        const int n_flips = round % 3 ? 1 : 1 + (int)(next_number() % MOST);
        for (int i = 0; i < n_flips; i++) {
            at[i] = (size_t)(next_number() % (round % 4 ? h.header : h.n));
            h.data[at[i]] ^= (char)(1 << (next_number() % 8));
        }
        n_opened += survives(h.data, h.n, round % 2 ? 0.8f : 0);
        for (int i = 0; i < n_flips; i++)
            h.data[at[i]] = whole[at[i]];
    }
    print_message("%d of %d opened\n", n_opened, n_rounds);
    assert_memory_equal(h.data, whole, h.n);
    free(whole);
}

static void test_flipped_bits(void **state)
{
    (void)state;
    struct hostile_file h = make_file(&tiny_smallest);
    flip_bits(h, 10000);
    free(h.data);
}

/* Every architecture and layout that MediaPipe writes. */
static void test_flipped_bits_of_the_original(void **state)
{
    (void)state;
    static const char *const names[] = { "GEMMA_2B-cpu-q8",        "GEMMA_2B-cpu-q4asym",
                                         "GEMMA2_2B-gpu-a8f4e4",   "GEMMA_2B-gpu-fp32",
                                         "FALCON_RW_1B-gpu-q8",    "PHI_2-gpu-q8asym",
                                         "STABLELM_4E1T_3B-cpu-q8" };
    need_shared("data/interop");
    for (size_t i = 0; i < QP_COUNT(names); i++) {
        char name[128];
        size_t n;
        snprintf(name, sizeof name, "data/interop/%s/model.bin", names[i]);
        char *data = read_whole(shared_path(name), &n);
        print_message("%s: ", names[i]);
        flip_bits(measure(data, n), 400);
        free(data);
    }
}

/* ---- false metadata ---- */

enum {
    D_MODEL = 3,
    D_FF = 4,
    HEAD_DIM = 5,
    N_HEADS = 6,
    N_LAYERS = 7,
    N_KV_HEADS = 9,
    LOCAL_PER_GLOBAL = 19,
    QUERY_RESCALE = 25,
    ROPE_THETA = 32,
    ROPE_SCALING = 33
};

/* LlmParameters contradicts the tensors, or has impossible values. */
static void test_lies_in_the_parameters(void **state)
{
    (void)state;
    static const int fields[] = { D_MODEL, D_FF, HEAD_DIM, N_HEADS, N_LAYERS, N_KV_HEADS };
    static const uint64_t values[] = { 0,         1,       3,         7,          1024,
                                       1 << 17,   1 << 30, INT32_MAX, UINT32_MAX, (uint64_t)1 << 63,
                                       UINT64_MAX };
    for (size_t i = 0; i < QP_COUNT(fields); i++)
        for (size_t j = 0; j < QP_COUNT(values); j++) {
            struct tiny_model m = tiny_smallest;
            size_t n;
            m.lie = fields[i];
            m.lie_value = values[j];
            m.config = NULL;
            char *data = make(&m, &n);
            const bool is_true = fields[i] == N_KV_HEADS && values[j] == 1;
            const bool is_less = fields[i] == N_LAYERS && values[j] == 1;
            if (survives(data, n, 0) != (is_true || is_less))
                fail_msg("field %d is %llu: wrong result of open", fields[i],
                         (unsigned long long)values[j]);
            free(data);
        }
}

static uint64_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static void test_numbers_that_are_none(void **state)
{
    (void)state;
    static const int fields[] = { QUERY_RESCALE, ROPE_THETA, ROPE_SCALING };
    const float values[] = { NAN, INFINITY, -INFINITY, -1, 0, 1e-45f, 1e-30f, 0.5f, 1e30f, 3e38f };
    for (size_t i = 0; i < QP_COUNT(fields); i++)
        for (size_t j = 0; j < QP_COUNT(values); j++) {
            struct tiny_model m = tiny_smallest;
            size_t n;
            m.lie = fields[i];
            m.lie_is_float = true;
            m.lie_value = bits_of(values[j]);
            char *data = make(&m, &n);
            survives(data, n, 0);
            free(data);
        }
}

static void test_lies_in_quip_config(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool opens;
    } lies[] = {
        { "", true },
        { "a line without meaning\n\n \nlonely", true },
        { "architecture \n", true }, // the first one is used
        { "n_context_max -1\n", false },
        { "n_context_max 2147483648\n", false },
        { "n_context_max 2147483647\n", true },
        { "n_context_max 1\n", true },
        { "rope_dim 7\n", false },
        { "rope_dim 8\n", false },
        { "rope_dim 0\n", true },
        { "window 1\n", true },
        { "window -1\n", false },
        { "window 2147483647\n", true },
        { "bos 100000\n", true },
        { "bos -1\n", true },
        { "bos -2\n", false },
        { "layer_types L\n", false },
        { "layer_types LGG\n", false },
        { "layer_types xy\n", false },
        { "layer_types\n", true },
        { "layer_types lg\n", true },
        { "rope_divisors 1\n", false }, // the tensor is missing
        { "rope_divisors 3\n", false },
        { "rope_amplitude 0\n", false },
        { "rope_amplitude 1e3\n", true },
        { "n_context_original -1\n", false },
        { "n_context_original 5\n", true },
        { "norm rms\n", true },
        { "norm layer\n", false }, // the biases are missing
        { "norm layer\nno_norm_bias 1\n", true },
        { "act swish\n", false },
        { "act relu\n", true },
        { "is_gated 2\n", false },
        { "is_gated 0\n", true },
        { "qk_norm none\n", true },
        { "qk_norm heads\n", false }, // the weights are of one head
        { "residual parallel\n", true },
        { "residual parallel_norms\n", true },
        { "no_pre_norm 1\n", true },
        { "post_norm 0\n", true },
        { "has_alibi 1\n", true },
        { "embed_scale 1e12\n", true },
        { "residual_scale 1e-20\n", true },
        { "logits_scale -1\n", false },
        { "norm_eps nan\n", false },
        { "norm_eps 1e999\n", false },
        { "norm_eps 0\n", true },
        { "norm_eps 1e400000000000000000000000000000000\n", false },
        { "rope_theta 0\n", false },
        { "rope_theta 1e-20\n", false },
        { "rope_theta 1e12\n", true },
        { "rope_theta inf\n", false },
        { "rope_scaling 0\n", false },
        { "rope_scaling 1e-20\n", false },
        { "rope_local_theta 1e-20\n", false },
        { "query_scale 1e12\n", true },
        { "attention_cap 1e-20\n", true },
        { "logits_cap 1e-20\n", true },
        { "stop_ids 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20\n", true },
        { "stop_ids 99999,299,4294967296\n", true },
        { "stop_ids 1e22,1e20\n", true },
        { "stop_ids ,\n", false },
        { "stop_ids -1,-1e22\n", true },
        { "chat gemma\n", true },
        { "chat no such template\n", true },
        { "chat a name that is longer than any name of a template is\n", false },
        { "tied 2\n", true },
    };
    for (size_t i = 0; i < QP_COUNT(lies); i++) {
        struct tiny_model m = tiny_smallest;
        size_t n;
        m.config = lies[i].text;
        char *data = make(&m, &n);
        if (survives(data, n, 0) != lies[i].opens)
            fail_msg("\"%s\": wrong result of open", lies[i].text);
        free(data);
    }
}

/* A file says which revision of quip.config a reader must know. */
static void test_revisions(void **state)
{
    (void)state;
    static const struct {
        const char *architecture;
        bool opens;
    } names[] = {
        { "llama", true },   { "llama+0", true },  { "llama+1", true },     { "llama+2", false },
        { "llama+", false }, { "llama+x", false }, { "llama+1e99", false }, { "llama+-1", false },
        { "+1", false },     { "lama+1", false },
    };
    for (size_t i = 0; i < QP_COUNT(names); i++) {
        struct tiny_model m = tiny_llama;
        size_t n;
        m.architecture = names[i].architecture;
        char *data = make(&m, &n);
        if (survives(data, n, 0) != names[i].opens)
            fail_msg("%s: wrong result of open", names[i].architecture);
        free(data);
    }
}

/* More pieces than rows, or fewer: ids without text, or text without ids. */
static void test_vocabularies_of_another_size(void **state)
{
    (void)state;
    static const int n_pieces[] = { 300 - 12, 299, 301, 340, 5000 };
    for (size_t i = 0; i < QP_COUNT(n_pieces); i++) {
        struct tiny_model m = tiny_smallest;
        size_t n;
        m.n_pieces = n_pieces[i];
        char *data = make(&m, &n);
        assert_true(survives(data, n, 0));
        assert_true(survives(data, n, 1.5f));
        free(data);
    }
}

/* ---- weights ---- */

/* Every kind of float, in all elements of a tensor and in one: the model generates some answer. */
static void test_weights_that_are_not_finite(void **state)
{
    (void)state;
    const struct tiny_model models[] = { tiny_smallest, tiny_with(tiny_smallest, DTYPE_F32),
                                         tiny_with(tiny_smallest, DTYPE_I4_BLOCK) };
    const float values[] = { NAN, INFINITY, -INFINITY, 3e38f, -3e38f, 1e-45f, 0 };
    for (size_t i = 0; i < QP_COUNT(models); i++) {
        struct file file;
        struct format f;
        size_t n;
        char *data = make(&models[i], &n), *whole = malloc(n);
        assert_non_null(whole);
        memcpy(whole, data, n);
        qp_file_open_memory(&file, whole, n, "tiny");
        assert_int_equal(qp_format_open(&f, &file, NULL), QUIP_OK);
        for (int t = 0; t < f.n_tensors; t++)
            for (size_t v = 0; v < QP_COUNT(values) && f.tensors[t].dtype == DTYPE_F32; v++) {
                char *tensor = data + f.tensors[t].offset;
                memcpy(tensor, &values[v], sizeof values[v]);
                assert_true(survives(data, n, 0));
                for (size_t at = 0; at < f.tensors[t].n_bytes; at += sizeof values[v])
                    memcpy(tensor + at, &values[v], sizeof values[v]);
                assert_true(survives(data, n, 0.8f));
                memcpy(data, whole, n);
            }
        qp_format_close(&f);
        free(whole);
        free(data);
    }
}

/* ---- sources ---- */

struct memory {
    const char *data;
    size_t n;
    int n_reads; // reads that succeed; -1: all
};

static bool read_memory(void *user, uint64_t offset, void *buffer, size_t n)
{
    struct memory *m = user;
    if (m->n_reads == 0 || offset > m->n || n > m->n - offset)
        return false;
    m->n_reads -= m->n_reads > 0;
    memcpy(buffer, m->data + offset, n);
    return true;
}

/* A source that fails, is shorter than its size, or is not a model: the message names it. */
static void test_sources(void **state)
{
    (void)state;
    struct hostile_file h = make_file(&tiny_smallest);
    const struct {
        int n_reads;
        uint64_t size;
        quip_status status;
    } cases[] = { { -1, h.n, QUIP_OK },           { 0, h.n, QUIP_E_IO },
                  { -1, h.n + 1, QUIP_E_IO },     { -1, 7, QUIP_E_FORMAT },
                  { -1, h.n / 2, QUIP_E_FORMAT }, { -1, UINT64_MAX, QUIP_E_MEMORY } };
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        struct memory memory = { h.data, h.n, cases[i].n_reads };
        const quip_source source = {
            .user = &memory, .size = cases[i].size, .read_at = read_memory, .name = "my asset"
        };
        quip_error error = { 0 };
        quip_model *model;
        assert_int_equal(quip_model_open_source(&model, &source, NULL, &error), cases[i].status);
        if (error.status) {
            assert_sentence(&error);
            assert_non_null(strstr(error.message, "my asset"));
        } else {
            talk_to(model, 0);
        }
        quip_model_close(model);
    }
    free(h.data);
}

/* The first occurrence of a text in a file. The file must contain it. */
static char *place_of(char *data, size_t n, const char *text)
{
    const size_t n_text = strlen(text);
    for (size_t i = 0; i + n_text <= n; i++)
        if (memcmp(data + i, text, n_text) == 0)
            return data + i;
    fail_msg("%s is missing", text);
    return NULL;
}

/* Block-wise int4 without its scales, without its multipliers, or with those of another matrix: the
 * message says what is missing or does not fit. */
static void test_wrong_multipliers(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to, *words;
    } changes[] = {
        { "attention.q.w_block_scale", "attention.q.w_block_scalf", "q.w_block_scale is missing" },
        { "attention.q.w_block_multiplier", "attention.q.w_block_multipliex",
          "q.w_quantized_scale is missing" },
        { "attention.k.w_block_multiplier", "attention.q.w_block_multiplier",
          "multiplier for each 16 weights" },
    };
    const struct tiny_model m = tiny_with(tiny_smallest, DTYPE_I4_BLOCK);
    for (size_t i = 0; i < QP_COUNT(changes); i++) {
        size_t n;
        char *data = make(&m, &n);
        quip_error error = { 0 };
        quip_model *model;
        if (strstr(changes[i].from, ".k.")) // rename the right one
            *place_of(data, n, "attention.q.w_block_multiplier") = 'x';
        memcpy(place_of(data, n, changes[i].from), changes[i].to, strlen(changes[i].to));
        struct memory memory = { data, n, -1 };
        const quip_source source = {
            .user = &memory, .size = n, .read_at = read_memory, .name = "tiny"
        };
        assert_int_equal(quip_model_open_source(&model, &source, NULL, &error), QUIP_E_FORMAT);
        assert_sentence(&error);
        if (!strstr(error.message, changes[i].words))
            fail_msg("%s", error.message);
        quip_model_close(model);
        free(data);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_flipped_bits),
        cmocka_unit_test(test_flipped_bits_of_the_original),
        cmocka_unit_test(test_lies_in_the_parameters),
        cmocka_unit_test(test_numbers_that_are_none),
        cmocka_unit_test(test_lies_in_quip_config),
        cmocka_unit_test(test_revisions),
        cmocka_unit_test(test_vocabularies_of_another_size),
        cmocka_unit_test(test_weights_that_are_not_finite),
        cmocka_unit_test(test_sources),
        cmocka_unit_test(test_wrong_multipliers),
    };
    return cmocka_run_group_tests(tests, name_file, remove_file);
}
