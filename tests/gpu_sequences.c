/* gpu_sequences.c: what sequences keep on the GPU: after rewinds, rejected tokens, failed batches,
 * and as copies, they go on as if there had been none. Without a GPU there is nothing to test. */
#include "support/check.h"
#include "support/gpu.h"
#include "support/logits.h"
#include "support/tiny_model.h"

#include "engine/engine.h"
#include "webgpu/webgpu_impl.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define N_TOKENS 1000 // more than the rings of sliding-window layers have
#define TOLERANCE 1e-4f
#define ROW_BYTES (TINY_VOCAB * sizeof(float))

static const struct kind {
    const char *name;
    const struct tiny_model *base;
    int window;
} kinds[] = {
    { "convolutions", &tiny_lfm2, 0 },
    { "window 9", &tiny_gemma3, 9 },
    { "window 130", &tiny_gemma3, 130 },
};

static char paths[QP_COUNT(kinds)][64];
static quip_model *on_gpu[QP_COUNT(kinds)]; // of all tests: compiling their shaders takes longest
static quip_token tokens[N_TOKENS];
static float *rows[QP_COUNT(kinds)]; // the CPU's logits after each token, [N_TOKENS, TINY_VOCAB]

static quip_model *open_model(size_t kind, quip_backend backend)
{
    quip_model *model;
    quip_error error = { 0 };
    const quip_model_options options = { .backend = backend };
    check(quip_model_open(&model, paths[kind], &options, &error), &error);
    return model;
}

static quip_session *open_session(quip_model *model)
{
    quip_session *session;
    quip_error error = { 0 };
    check(quip_session_open(&session, model, &(quip_session_options){ .n_context = N_TOKENS },
                            &error),
          &error);
    return session;
}

static int make_models(void **state)
{
    (void)state;
    quip_error error = { 0 };
    for (int i = 0; i < N_TOKENS; i++)
        tokens[i] = (i * 7919 + i * i * 13 + i / 300) % TINY_VOCAB;
    for (size_t kind = 0; has_gpu() && kind < QP_COUNT(kinds); kind++) {
        struct tiny_model m = tiny_with(*kinds[kind].base, DTYPE_F32);
        m.window = kinds[kind].window;
        snprintf(paths[kind], sizeof paths[kind], "tiny-gpu-%d-%zu.bin", (int)getpid(), kind);
        check(tiny_model_write(paths[kind], &m, &error), &error);
        rows[kind] = malloc(N_TOKENS * ROW_BYTES);
        assert_non_null(rows[kind]);
        quip_model *cpu = open_model(kind, QUIP_BACKEND_CPU);
        quip_session *s = open_session(cpu);
        logits_prefill(s, tokens, N_TOKENS, N_TOKENS, rows[kind]);
        quip_session_close(s);
        quip_model_close(cpu);
        on_gpu[kind] = open_model(kind, QUIP_BACKEND_GPU);
    }
    return 0;
}

static int remove_models(void **state)
{
    (void)state;
    for (size_t kind = 0; kind < QP_COUNT(kinds); kind++) {
        quip_model_close(on_gpu[kind]);
        if (rows[kind])
            unlink(paths[kind]);
        free(rows[kind]);
    }
    return 0;
}

/* Run the tokens up to `end`. */
static void prefill_to(quip_session *s, int end)
{
    quip_error error = { 0 };
    const int n = quip_session_position(s);
    check(quip_session_prefill(s, tokens + n, end - n, &error), &error);
}

static void rewind_to(quip_session *s, int position)
{
    quip_error error = { 0 };
    check(quip_session_rewind(s, position, &error), &error);
    assert_int_equal(quip_session_position(s), position);
}

static void check_logits(quip_session *s, size_t kind)
{
    const int n = quip_session_position(s);
    const float *logits = quip_session_logits(s);
    assert_non_null(logits);
    const float worst =
        logits_difference(logits, rows[kind] + (size_t)(n - 1) * TINY_VOCAB, TINY_VOCAB);
    if (!(worst <= TOLERANCE))
        fail_msg("%s: the logits after %d tokens differ by %g", kinds[kind].name, n, (double)worst);
}

static void test_rewinds(void **state)
{
    static const int distances[] = { 1, 8, 64, 187, 511, 639 };
    (void)state;
    for (size_t kind = 0; has_gpu() && kind < QP_COUNT(kinds); kind++) {
        quip_session *s = open_session(on_gpu[kind]);
        const bool is_ring =
            qp_webgpu_layer_blocks(&s->model->config, 0, N_TOKENS) < kv_blocks(N_TOKENS);
        assert_int_equal(is_ring, kinds[kind].window > 0);
        prefill_to(s, N_TOKENS);
        check_logits(s, kind);
        for (size_t i = 0; i < QP_COUNT(distances); i++) {
            const int position = N_TOKENS - distances[i];
            rewind_to(s, position);
            if (distances[i] <= SEQUENCE_OUTPUTS)
                assert_int_equal(s->sequence->pos, position); // nothing runs again
            prefill_to(s, position + 1);
            check_logits(s, kind);
            prefill_to(s, N_TOKENS);
            check_logits(s, kind);
        }
        quip_session_close(s);
    }
}

/* Again and again, run four tokens in a batch and take the last three back. */
static void test_rejected_tokens(void **state)
{
    (void)state;
    for (size_t kind = 0; has_gpu() && kind < QP_COUNT(kinds); kind++) {
        quip_session *s = open_session(on_gpu[kind]);
        prefill_to(s, 480);
        for (int n = 480; n < 500; n++) {
            prefill_to(s, n + 4);
            check_logits(s, kind);
            rewind_to(s, n + 1);
            assert_int_equal(s->sequence->pos, n + 1);
        }
        quip_session_close(s);
    }
}

/* ---- copies ---- */

struct memory {
    struct bytes bytes;
    size_t at; // of the next byte to read
};

static bool write_bytes(void *user, void *bytes, size_t n)
{
    return qp_bytes_append(&((struct memory *)user)->bytes, bytes, n);
}

static bool read_bytes(void *user, void *bytes, size_t n)
{
    struct memory *m = user;
    if (n > m->bytes.n - m->at)
        return false;
    memcpy(bytes, m->bytes.data + m->at, n);
    m->at += n;
    return true;
}

/* What a sequence still has, in another one of the same device. */
static void transfer(const struct sequence *from, struct sequence *to)
{
    const struct backend *b = from->device->backend;
    struct memory m = { 0 };
    quip_error error = { 0 };
    check(b->sequence_export(from, &(struct stream){ write_bytes, &m }, &error), &error);
    check(b->sequence_import(to, &(struct stream){ read_bytes, &m }, &error), &error);
    assert_int_equal(m.at, m.bytes.n);
    qp_bytes_close(&m.bytes);
}

/* What a copy of a sequence says that it still has: rings do not have what is far behind. */
static void check_lost(struct sequence *copy, size_t kind)
{
    const int far = copy->pos - 680;
    copy->device->backend->sequence_rewind(copy, far);
    if (kinds[kind].window > 0)
        assert_int_equal(copy->pos, 0);
    copy->device->backend->sequence_close(copy);
}

static struct sequence *open_sequence(const quip_session *s)
{
    struct sequence *sequence;
    quip_error error = { 0 };
    check(s->device->backend->sequence_open(&sequence, s->device, N_TOKENS, &error), &error);
    return sequence;
}

/* A clone, and what was exported and imported, go on with the same bits, also after they went back
 * as far as is possible without running the text again. */
static void test_copies(void **state)
{
    enum {
        END = N_TOKENS - 20,
        BACK = 300
    };
    (void)state;
    for (size_t kind = 0; has_gpu() && kind < QP_COUNT(kinds); kind++) {
        quip_session *s = open_session(on_gpu[kind]), *clone;
        quip_error error = { 0 };
        float want[TINY_VOCAB];
        prefill_to(s, END);
        check(quip_session_clone(&clone, s, &error), &error);
        struct sequence *copy = open_sequence(s);
        s->device->backend->sequence_copy(copy, s->sequence);
        check_lost(copy, kind);
        copy = open_sequence(s);
        transfer(s->sequence, copy);
        check_lost(copy, kind);
        for (int i = 0; i < 2; i++) {
            if (i == 1 && kinds[kind].window == 0)
                continue; // columns go back to a multiple of a chunk
            const int begin = END - i * BACK;
            rewind_to(s, begin);
            rewind_to(clone, begin);
            assert_int_equal(s->sequence->pos, begin);
            assert_int_equal(clone->sequence->pos, begin);
            struct sequence *imported;
            check(s->device->backend->sequence_open(&imported, s->device, N_TOKENS, &error),
                  &error);
            transfer(s->sequence, imported);
            assert_int_equal(imported->pos, begin);
            prefill_to(s, begin + 3);
            check_logits(s, kind);
            memcpy(want, quip_session_logits(s), sizeof want);
            prefill_to(clone, begin + 3);
            assert_memory_equal(quip_session_logits(clone), want, sizeof want);
            struct sequence *own = clone->sequence;
            rewind_to(clone, begin);
            clone->sequence = imported;
            prefill_to(clone, begin + 3);
            assert_memory_equal(quip_session_logits(clone), want, sizeof want);
            clone->sequence = own;
            clone->device->backend->sequence_close(imported);
            rewind_to(clone, 0);
            prefill_to(clone, END);
        }
        quip_session_close(clone);
        quip_session_close(s);
    }
}

/* ---- failed batches ---- */

static struct backend failing; // the real backend, whose layers fail when n_layers_left is 0
static const struct backend *real;
static int n_layers_left;

static quip_status end_layer(struct device *device, quip_status status)
{
    if (!status && --n_layers_left == 0)
        return qp_fail(&device->error, QUIP_E_CANCELLED, "the batch fails here");
    return status;
}

static quip_status fail_in_append(struct device *device, int l, const struct rows *batch)
{
    return end_layer(device, real->rope_append(device, l, batch));
}

static quip_status fail_in_conv(struct device *device, int l, const struct rows *batch)
{
    return end_layer(device, real->conv(device, l, batch));
}

/* Batches of a few and of many tokens that fail in each layer, behind text that was taken back and
 * text that was not. The next token has the bits that it has without them. */
static void test_failed_batches(void **state)
{
    enum {
        BEGIN = 600
    };
    static const int sizes[] = { 3, 60 };
    (void)state;
    for (size_t kind = 0; has_gpu() && kind < QP_COUNT(kinds); kind++) {
        quip_session *s = open_session(on_gpu[kind]);
        quip_error error = { 0 };
        float want[TINY_VOCAB];
        prefill_to(s, BEGIN);
        prefill_to(s, BEGIN + 1);
        memcpy(want, quip_session_logits(s), sizeof want);
        real = s->device->backend;
        failing = *real;
        failing.rope_append = fail_in_append;
        failing.conv = fail_in_conv;
        for (int i = 0; i < 4 * s->model->config.n_layers; i++) {
            rewind_to(s, BEGIN);
            if (i % 2)
                prefill_to(s, BEGIN + 40); // the ring has none of the columns before BEGIN
            rewind_to(s, BEGIN);
            s->device->backend = &failing;
            n_layers_left = 1 + i / 4;
            assert_int_equal(quip_session_prefill(s, tokens + BEGIN, sizes[i / 2 % 2], &error),
                             QUIP_E_CANCELLED);
            s->device->backend = real;
            assert_int_equal(quip_session_position(s), BEGIN);
            assert_int_equal(s->sequence->pos, BEGIN);
            prefill_to(s, BEGIN + 1);
            assert_memory_equal(quip_session_logits(s), want, sizeof want);
        }
        quip_session_close(s);
    }
}

/* ---- batches ---- */

enum {
    MAX_BATCH = LOGITS_ROWS
};

/* The next token of n sessions, in one batch; the logits after each, [n, TINY_VOCAB]. */
static void run_batch(quip_session *const *sessions, int n, const int *positions, float *logits)
{
    struct device *d = sessions[0]->device;
    const struct backend *b = d->backend;
    struct output outputs[MAX_BATCH];
    qp_device_enter(d, TURN_SHORT);
    for (int i = 0; i < n; i++) {
        struct sequence *s = sessions[i]->sequence;
        d->rows[i] = (struct row){ .sequence = s,
                                   .pos = positions[i],
                                   .visible_end = positions[i] + 1,
                                   .token = tokens[positions[i] % N_TOKENS],
                                   .is_output = true };
        outputs[i] = (struct output){ s, 0 };
        b->sequence_rewind(s, positions[i]);
        assert_int_equal(s->pos, positions[i]);
    }
    assert_int_equal(b->begin(d, 0), QUIP_OK);
    assert_int_equal(qp_forward(d, &(struct rows){ d->rows, n }, NULL, NULL), QUIP_OK);
    assert_int_equal(qp_forward_logits(d, outputs, n, NULL), QUIP_OK);
    assert_int_equal(b->submit(d), QUIP_OK);
    assert_int_equal(b->poll(d, true), QUIP_OK);
    assert_int_equal(b->read(d, BUF_LOGITS, logits, n), QUIP_OK);
    qp_device_leave(d);
}

/* Sessions at other positions, and the logits that each one has alone. */
static void open_batch(quip_model *model, quip_session *sessions[MAX_BATCH],
                       int positions[MAX_BATCH], float want[MAX_BATCH][TINY_VOCAB])
{
    const quip_session_options options = { .n_context = 700 };
    quip_error error = { 0 };
    check(quip_session_open(&sessions[0], model, &options, &error), &error);
    prefill_to(sessions[0], 530);
    for (int i = MAX_BATCH - 1; i >= 0; i--) {
        positions[i] = 1 + i * i * 13 % 530; // 1 to 9 parts of attention
        if (i > 0)
            check(quip_session_clone(&sessions[i], sessions[0], &error), &error);
        rewind_to(sessions[i], positions[i] - 1);
        prefill_to(sessions[i], positions[i]);
        run_batch(&sessions[i], 1, &positions[i], want[i]);
    }
}

/* Sessions at other positions of a batch change no bit, however many there are. */
static void check_batches(quip_model *model, const char *name)
{
    static const int sizes[] = { 2, MAX_BATCH, 3, 4, 5, 6, 7, 8, 9 };
    static float want[MAX_BATCH][TINY_VOCAB], logits[MAX_BATCH * TINY_VOCAB];
    quip_session *sessions[MAX_BATCH], *clone;
    quip_error error = { 0 };
    int positions[MAX_BATCH];
    open_batch(model, sessions, positions, want);
    for (size_t k = 0; k < QP_COUNT(sizes); k++) {
        const int n = sizes[k], first = (MAX_BATCH - n) / 2;
        run_batch(sessions + first, n, positions + first, logits);
        for (int i = 0; i < n; i++)
            if (memcmp(logits + i * TINY_VOCAB, want[first + i], ROW_BYTES) != 0)
                fail_msg("%s: session %d has other logits among %d than alone", name, first + i, n);
    }
    check(quip_session_clone(&clone, sessions[5], &error), &error);
    quip_session_close(sessions[5]); // others have its buffers, too
    sessions[5] = clone;
    run_batch(&clone, 1, &positions[5], logits);
    assert_memory_equal(logits, want[5], ROW_BYTES);
    for (int i = 0; i < MAX_BATCH; i++)
        quip_session_close(sessions[i]);
}

/* As on a GPU whose subgroups have no size that is known. */
static void forget_subgroups(struct webgpu_device *d)
{
    for (int i = 0; i < d->recorder.n_pipelines; i++)
        qp_gpu_pipeline_close(d->gpu, d->recorder.pipelines[i].pipeline);
    d->recorder.n_pipelines = 0;
    d->subgroup = 1;
}

static const struct batch_kind {
    const char *name;
    const struct tiny_model *base;
    enum dtype type;
    int window, d_ff; // 0: that of `base`
} batch_kinds[] = {
    { "int8", &tiny_gemma3, DTYPE_I8, 70, 0 },
    { "int4", &tiny_llama, DTYPE_I4, 0, 0 },
    { "int4 in blocks", &tiny_gemma3, DTYPE_I4_BLOCK, 70, 0 },
    { "float32", &tiny_llama, DTYPE_F32, 0, 0 },
    { "per-layer embeddings", &tiny_gemma4, DTYPE_I8, 70, 0 },
    { "convolutions", &tiny_lfm2, DTYPE_I8, 0, 0 },
    { "long rows", &tiny_llama, DTYPE_I8, 0, 4100 },
    { "long rows of int4", &tiny_llama, DTYPE_I4_BLOCK, 0, 4100 },
};

/* With subgroups, where tiny matrices are multiplied as large ones are, and without. */
static void check_kind(const struct batch_kind *kind, bool has_subgroups)
{
    struct tiny_model m = tiny_with(*kind->base, kind->type);
    quip_session *s;
    quip_model *model;
    quip_error error = { 0 };
    char name[64];
    snprintf(name, sizeof name, "%s%s", kind->name, has_subgroups ? "" : " without subgroups");
    m.window = kind->window;
    m.d_ff = kind->d_ff ? kind->d_ff : m.d_ff;
    check(tiny_model_write("gpu-batch.bin", &m, &error), &error);
    check(quip_model_open(&model, "gpu-batch.bin",
                          &(quip_model_options){ .backend = QUIP_BACKEND_CPU }, &error),
          &error);
    model->options.backend = QUIP_BACKEND_GPU;
    model->no_self_test = true; // gpu.c tests what it does
    check(quip_session_open(&s, model, &(quip_session_options){ .n_context = 9 }, &error), &error);
    struct webgpu_device *d = webgpu_of(s->device);
    if (has_subgroups)
        d->large_reads = 0;
    else
        forget_subgroups(d);
    check_batches(model, name);
    quip_session_close(s);
    quip_model_close(model);
    unlink("gpu-batch.bin");
}

static void test_batches(void **state)
{
    (void)state;
    for (size_t i = 0; i < QP_COUNT(batch_kinds) && has_gpu(); i++) {
        check_kind(&batch_kinds[i], true);
        if (i % 2 == 0 && !batch_kinds[i].d_ff)
            check_kind(&batch_kinds[i], false);
    }
}

/* The memory for the parts of attention is enough for sessions that are shorter than the longest,
 * and have more parts: 63 here, where the longest has 33. */
static void test_parts_of_shorter_sessions(void **state)
{
    enum {
        LONGEST = 4200,
        SHORTER = 4096,
        END = 4 * N_TOKENS,
        N = 9 // of LOGITS_ROWS, for which there is memory
    };
    static float want[TINY_VOCAB], logits[N * TINY_VOCAB];
    quip_session *longest, *sessions[N];
    quip_model *model;
    quip_error error = { 0 };
    int positions[N];
    (void)state;
    if (!has_gpu())
        skip();
    struct tiny_model m = tiny_with(tiny_llama, DTYPE_I8);
    m.config = "n_context_max 8192\n";
    check(tiny_model_write("gpu-parts.bin", &m, &error), &error);
    check(quip_model_open(&model, "gpu-parts.bin",
                          &(quip_model_options){ .backend = QUIP_BACKEND_GPU }, &error),
          &error);
    check(
        quip_session_open(&longest, model, &(quip_session_options){ .n_context = LONGEST }, &error),
        &error);
    check(quip_session_open(&sessions[0], model, &(quip_session_options){ .n_context = SHORTER },
                            &error),
          &error);
    for (int i = 0; i < END; i += N_TOKENS)
        check(quip_session_prefill(sessions[0], tokens, N_TOKENS, &error), &error);
    for (int i = 1; i < N; i++)
        check(quip_session_clone(&sessions[i], sessions[0], &error), &error);
    for (int i = 0; i < N; i++)
        positions[i] = END;
    run_batch(sessions, 1, positions, want);
    run_batch(sessions, N, positions, logits);
    for (int i = 0; i < N; i++) {
        assert_memory_equal(logits + i * TINY_VOCAB, want, ROW_BYTES);
        quip_session_close(sessions[i]);
    }
    quip_session_close(longest);
    quip_model_close(model);
    unlink("gpu-parts.bin");
}

int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rewinds), cmocka_unit_test(test_rejected_tokens),
        cmocka_unit_test(test_copies),  cmocka_unit_test(test_failed_batches),
        cmocka_unit_test(test_batches), cmocka_unit_test(test_parts_of_shorter_sessions),
    };
    return cmocka_run_group_tests(tests, make_models, remove_models);
}
