/* key_means.c (test): int8 keys are stored without the mean of their bias, so that a large bias
 * does not cost precision; with the same bits however a text is divided. */
#include "convert/convert.h"
#include "engine/engine.h"
#include "model/model.h"
#include "support/check.h"
#include "support/tiny_model.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum {
    N_TOKENS = 60
};

static char float_path[64], int8_path[64];

static int make_files(void **state)
{
    (void)state;
    struct tiny_model tiny = tiny_with(tiny_llama, DTYPE_F32);
    quip_error error = { 0 };
    tiny.architecture = "qwen2";
    tiny.config = "rope_theta 1000000\n";
    snprintf(float_path, sizeof float_path, "tiny-means-f32-%d.bin", (int)getpid());
    snprintf(int8_path, sizeof int8_path, "tiny-means-i8-%d.bin", (int)getpid());
    check(tiny_model_write(float_path, &tiny, &error), &error);
    check(qp_convert(float_path, int8_path, NULL, &error), &error);
    return 0;
}

static int remove_files(void **state)
{
    (void)state;
    unlink(float_path);
    return unlink(int8_path);
}

/* A model whose keys have this bias in the pair of dimensions that turns least. */
static quip_model *open_biased(const char *path, float bias)
{
    static float biases[8][256];
    quip_model *m;
    quip_error error = { 0 };
    check(quip_model_open(&m, path, NULL, &error), &error);
    assert_true(m->config.n_layers <= 8);
    for (int l = 0; l < m->config.n_layers; l++) {
        const int head_dim = m->config.layers[l].head_dim, half = head_dim / 2;
        struct matrix *keys = &m->weights.layers[l].m[MATRIX_K];
        assert_true(keys->n_out <= 256);
        for (int i = 0; i < keys->n_out; i++)
            biases[l][i] = i % head_dim == half - 1       ? bias
                           : i % head_dim == head_dim - 1 ? -bias / 2
                                                          : 0;
        keys->bias = biases[l];
    }
    return m;
}

static quip_session *run_text(quip_model *m, int step)
{
    quip_session *s;
    quip_token tokens[N_TOKENS];
    quip_error error = { 0 };
    for (int i = 0; i < N_TOKENS; i++)
        tokens[i] = (i * 71 + 9) % TINY_VOCAB;
    check(quip_session_open(&s, m, &(quip_session_options){ .n_context = 128 }, &error), &error);
    for (int i = 0; i < N_TOKENS; i += step)
        check(quip_session_prefill(s, tokens + i, qp_min(step, N_TOKENS - i), &error), &error);
    return s;
}

/* How far int8 is from float32 with a bias: root of the squares, relative to those of the logits.
 */
static double int8_distance(float bias)
{
    quip_model *exact = open_biased(float_path, bias), *int8 = open_biased(int8_path, bias);
    quip_session *a = run_text(exact, N_TOKENS), *b = run_text(int8, N_TOKENS);
    const float *x = quip_session_logits(a), *y = quip_session_logits(b);
    double off = 0, all = 0;
    for (int i = 0; i < exact->config.vocab_size; i++) {
        off += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
        all += (double)x[i] * (double)x[i];
    }
    quip_session_close(a);
    quip_session_close(b);
    quip_model_close(exact);
    quip_model_close(int8);
    return sqrt(off / all);
}

static void test_large_bias(void **state)
{
    (void)state;
    const double without = int8_distance(0), with = int8_distance(1000);
    printf("  distance of int8 from float32: %.4f, with a large bias %.4f\n", without, with);
    assert_true(without > 0 && with < 2 * without);
}

static void test_divided_texts(void **state)
{
    (void)state;
    static const int steps[] = { 1, 7, 25 };
    quip_model *m = open_biased(int8_path, 1000);
    quip_session *whole = run_text(m, N_TOKENS);
    const size_t n_bytes = (size_t)m->config.vocab_size * sizeof(float);
    for (size_t i = 0; i < QP_COUNT(steps); i++) {
        quip_session *s = run_text(m, steps[i]);
        assert_memory_equal(quip_session_logits(s), quip_session_logits(whole), n_bytes);
        quip_session_close(s);
    }
    quip_session_close(whole);
    quip_model_close(m);
}

/* ---- export ---- */

struct memory_file {
    struct bytes bytes;
    size_t at; // of the next byte to read
};

static bool append_to_file(void *user, void *bytes, size_t n)
{
    return qp_bytes_append(&((struct memory_file *)user)->bytes, bytes, n);
}

static bool read_from_file(void *user, void *bytes, size_t n)
{
    struct memory_file *m = user;
    if (n > m->bytes.n - m->at)
        return false;
    memcpy(bytes, m->bytes.data + m->at, n);
    m->at += n;
    return true;
}

/* Keys with their bias, as a model without the mean stores them, are not those of this model. */
static void test_import(void **state)
{
    (void)state;
    quip_error error = { 0 };
    struct memory_file m = { 0 };
    const struct stream to = { append_to_file, &m }, from = { read_from_file, &m };
    quip_model *model = open_biased(int8_path, 1000), *other = open_biased(int8_path, 1000);
    for (int l = 0; l < other->config.n_layers; l++)
        other->weights.layers[l].m[MATRIX_K].bias = NULL;
    quip_session *a = run_text(model, N_TOKENS), *b = run_text(other, N_TOKENS);
    check(a->device->backend->sequence_export(a->sequence, &to, &error), &error);
    check(quip_session_rewind(a, 0, &error), &error);
    check(a->device->backend->sequence_import(a->sequence, &from, &error), &error);
    check(quip_session_rewind(b, 0, &error), &error);
    m.at = 0;
    assert_int_equal(b->device->backend->sequence_import(b->sequence, &from, &error),
                     QUIP_E_FORMAT);
    assert_non_null(strstr(error.message, "of another model"));
    qp_bytes_close(&m.bytes);
    quip_session_close(a);
    quip_session_close(b);
    quip_model_close(model);
    quip_model_close(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_large_bias),
                                        cmocka_unit_test(test_divided_texts),
                                        cmocka_unit_test(test_import) };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
