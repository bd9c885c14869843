/* pytorch.c (test): only the tensors of a PyTorch checkpoint are read. No function that a pickle
 * names is called. The files are the seeds of the fuzz target, which tools/pytorch_samples.py
 * makes. */
#include "convert/convert.h"
#include "convert/pickle.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/alloc_fault.h"
#include "support/shared.h"

#define SAMPLES QUIP_SOURCE_DIR "/tests/fuzz/corpus/fuzz_pytorch/"

struct sample {
    struct file file;
    struct format format;
    char *data;
    size_t n;
};

static void load_sample(struct sample *s, const char *name)
{
    char path[300];
    *s = (struct sample){ 0 };
    snprintf(path, sizeof path, "%s%s", SAMPLES, name);
    s->data = read_whole(path, &s->n);
    qp_file_open_memory(&s->file, s->data, s->n, name);
}

static quip_status open_sample(struct sample *s, quip_error *error)
{
    return qp_format_open_with(&s->format, &s->file, &qp_pytorch_reader, error);
}

static void close_sample(struct sample *s)
{
    qp_format_close(&s->format);
    free(s->data);
}

/* The tensor has this shape and these values. */
static void expect_tensor(const struct sample *s, const char *name, int n_dims, int64_t d0,
                          int64_t d1, const float *values, size_t n)
{
    float found[8];
    const struct tensor *t = qp_format_find(&s->format, name);
    assert_non_null(t);
    assert_int_equal(t->n_dims, n_dims);
    assert_true(n_dims < 1 || t->dims[0] == d0);
    assert_true(n_dims < 2 || t->dims[1] == d1);
    assert_int_equal(qp_format_read_f32(&s->format, t, 0, n, found, NULL), 0);
    assert_memory_equal(found, values, n * sizeof *values);
}

static const float six[] = { 0, 1, 2, 3, 4, 5 }, three[] = { 2, 3, 4 };

static void test_tensors(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int n_tensors;
    } samples[] = {
        { "dict", 3 },      { "ordered", 4 },     { "training", 4 },
        { "parameter", 1 }, { "evil_beside", 1 },
    };
    for (size_t i = 0; i < QP_COUNT(samples); i++) {
        struct sample s;
        quip_error error = { 0 };
        load_sample(&s, samples[i].name);
        if (open_sample(&s, &error))
            fail_msg("%s", error.message);
        assert_int_equal(s.format.kind, FORMAT_PYTORCH);
        assert_int_equal(s.format.n_tensors, samples[i].n_tensors);
        expect_tensor(&s, "a", 2, 2, 3, six, 6);
        if (samples[i].n_tensors > 1)
            expect_tensor(&s, "b", 1, 3, 0, three, 3); // from the middle of its storage
        if (samples[i].n_tensors == 3)
            expect_tensor(&s, "scalar", 0, 0, 0, six + 5, 1);
        if (samples[i].n_tensors == 4) {
            expect_tensor(&s, "row", 2, 1, 3, six + 3, 3);
            assert_int_equal(qp_format_find(&s.format, "n")->dtype, DTYPE_OTHER);
        }
        close_sample(&s);
    }
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *name, *words;
    } wrong[] = {
        { "evil", "b is made by posix.system, which is not a known function for tensors" },
        { "transposed", "is a view whose elements are not contiguous" },
        { "outside", "the tensor a is not inside its storage" },
        { "missing", "has its storage in a missing entry" },
        { "big_endian", "is big-endian" },
        { "no_tensors", "has no dict of tensors" },
        { "legacy", "from before 1.6" },
    };
    for (size_t i = 0; i < QP_COUNT(wrong); i++) {
        struct sample s;
        quip_error error = { 0 };
        load_sample(&s, wrong[i].name);
        if (!open_sample(&s, &error) || !strstr(error.message, wrong[i].words))
            fail_msg("%s: expected \"%s\", got \"%s\"", wrong[i].name, wrong[i].words,
                     error.message);
        close_sample(&s);
    }
    assert_int_not_equal(access("pickle-was-run", F_OK), 0);
}

/* Cut short anywhere, or with any bit flipped: an error, or tensors inside the file. */
static void test_hostile(void **state)
{
    (void)state;
    static const char *const names[] = { "ordered", "training", "evil" };
    for (size_t i = 0; i < QP_COUNT(names); i++) {
        struct sample s;
        load_sample(&s, names[i]);
        for (size_t bit = 0; bit < s.n * 8; bit++) {
            s.data[bit / 8] ^= (char)(1 << bit % 8);
            if (!open_sample(&s, NULL))
                for (int k = 0; k < s.format.n_tensors; k++)
                    assert_true(s.format.tensors[k].offset + s.format.tensors[k].n_bytes <= s.n);
            qp_format_close(&s.format);
            s.data[bit / 8] ^= (char)(1 << bit % 8);
        }
        close_sample(&s);
    }
}

static quip_status read_pickle(const char *bytes, size_t n)
{
    struct pickle p;
    char *copy =
        malloc(n + 1); // a block of its own, so that a sanitizer reports reads past its end
    assert_non_null(copy);
    memcpy(copy, bytes, n);
    const quip_status status = qp_pickle_read(&p, copy, n, "test", NULL);
    qp_pickle_close(&p);
    free(copy);
    return status;
}

/* Opcodes that need objects that are not on the stack. */
static void test_wrong_pickles(void **state)
{
    (void)state;
#define PICKLE(text)                                                                               \
    {                                                                                              \
        text, sizeof text - 1                                                                      \
    }
    static const struct {
        const char *bytes;
        size_t n;
    } wrong[] = {
        PICKLE(""),
        PICKLE("."),
        PICKLE("NN."),
        PICKLE("(."),
        PICKLE("0."),
        PICKLE("1."),
        PICKLE("2."),
        PICKLE("s."),
        PICKLE("N}s."),
        PICKLE("NNNs."),
        PICKLE("}(Nu."),
        PICKLE("](NN."),
        PICKLE("u."),
        PICKLE("e."),
        PICKLE("t."),
        PICKLE("\x85."),
        PICKLE("(N\x86."),
        PICKLE("N\x87."),
        PICKLE("R."),
        PICKLE("NR."),
        PICKLE("Q."),
        PICKLE("b."),
        PICKLE("Nb."),
        PICKLE("q\0."),
        PICKLE("Nq"),
        PICKLE("Nr\xff\xff\xff\x7f."),
        PICKLE("Nr\xff\xff\xff\xff."),
        PICKLE("h\0."),
        PICKLE("Nq\1h\0."),
        PICKLE("K"),
        PICKLE("X\xff\xff\xff\xff"
               "abc."),
        PICKLE("\x8d\xff\xff\xff\xff\xff\xff\xff\xff."),
        PICKLE("\x8a\x09"
               "123456789."),
        PICKLE("cos\nsystem."),
        PICKLE("I1\n."),
        PICKLE("\x93."),
        PICKLE("NN\x93."),
        PICKLE("(d1."),
        PICKLE("(Nd."),
        PICKLE("](Na."),
        PICKLE("}N(Ns."),
    };
    static const struct {
        const char *bytes;
        size_t n;
    } right[] = {
        PICKLE("N."),
        PICKLE("(t."),
        PICKLE("(l."),
        PICKLE("(d."),
        PICKLE("(NNd."),
        PICKLE("]Na."),
        PICKLE("](NNe."),
        PICKLE("}NNs."),
        PICKLE("}(NNu."),
        PICKLE("cos\nsystem\n)R."),
        PICKLE("U\1aU\1b\x93."),
        PICKLE("\x8a\0."),
        PICKLE("\x8a\1\xff."),
        PICKLE("]q\0h\0a."),
        PICKLE("N(NN1."),
        PICKLE("N20."),
        PICKLE("\x80\4\x95\0\0\0\0\0\0\0\0N\x94h\0\x86."),
    };
    for (size_t i = 0; i < QP_COUNT(wrong); i++)
        if (!read_pickle(wrong[i].bytes, wrong[i].n))
            fail_msg("wrong pickle %zu was read", i);
    for (size_t i = 0; i < QP_COUNT(right); i++)
        if (read_pickle(right[i].bytes, right[i].n))
            fail_msg("right pickle %zu was not read", i);
}

/* The number of steps is linear in the number of bytes, also with a high stack. If each opcode
 * searched the stack for a mark, this test would take minutes. */
static void test_high_stack(void **state)
{
    (void)state;
    enum {
        N = 300000
    };
    char *bytes = malloc(4 * N + 2), *to = bytes;
    assert_non_null(bytes);
    memset(to, 'N', N);
    to += N;
    *to++ = ']';
    for (int i = 0; i < N; i++, to += 2)
        memcpy(to, "Na", 2);
    memset(to, '0', N);
    to += N;
    *to++ = '.';
    assert_int_equal(read_pickle(bytes, (size_t)(to - bytes)), QUIP_OK);
    free(bytes);
}

static void test_faults(void **state)
{
    (void)state;
    if (!alloc_fault_is_here())
        skip();
    struct sample s;
    load_sample(&s, "training");
    const int before = alloc_fault_live();
    for (int i = 0;; i++) {
        alloc_fault_set(i);
        const quip_status status = open_sample(&s, NULL);
        if (!alloc_fault_clear()) {
            assert_true(i > 5);
            break;
        }
        assert_int_equal(status, QUIP_E_MEMORY);
        assert_int_equal(alloc_fault_live(), before);
    }
    close_sample(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tensors),       cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_wrong_pickles), cmocka_unit_test(test_high_stack),
        cmocka_unit_test(test_hostile),       cmocka_unit_test(test_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
