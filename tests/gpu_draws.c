/* gpu_draws.c: tokens that are drawn on the GPU are those that the sampler draws from the same
 * logits. Without a GPU there is nothing to test: the tests say so and pass. */
#include "support/check.h"
#include "support/gpu.h"
#include "support/tiny_model.h"

#include "base/math.h"
#include "engine/engine.h"
#include "webgpu/webgpu_impl.h"

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* The larger vocabulary has more tokens than select.wgsl selects. */
static const int vocab_sizes[] = { TINY_VOCAB, 20000 };

static quip_model *open_model(int vocab_size)
{
    struct tiny_model tiny = tiny_smallest;
    quip_model *model;
    quip_error error = { 0 };
    tiny.vocab_size = vocab_size;
    check(tiny_model_write("gpu-draws.bin", &tiny, &error), &error);
    check(quip_model_open(&model, "gpu-draws.bin",
                          &(quip_model_options){ .backend = QUIP_BACKEND_GPU }, &error),
          &error);
    return model;
}

/* ---- draws of one batch ---- */

enum {
    N_SESSIONS = 3,
    N_ROWS = 5, // of each
    N_DRAWS = N_SESSIONS * N_ROWS,
    N_CONTEXT = 300
};

/* As the kernels of the CPU add weights up. */
static float sum_exps(const float *x, float max, float factor, int n)
{
    float lanes[16] = { 0 };
    for (int i = 0; i < n; i++)
        lanes[i % 16] += isnan(x[i]) ? 0 : qp_exp((x[i] - max) * factor);
    for (int s = 8; s > 0; s /= 2)
        for (int j = 0; j < s; j++)
            lanes[j] += lanes[j + s];
    return lanes[0];
}

#define DEFAULTS .temperature = 0.5f, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f
static const quip_token ends[] = { TINY_EOS, TINY_END };
static const quip_logit_bias bias[] = { { 77, 3 }, { 5, -INFINITY }, { 77, 2 }, { 99999, 1 } };
static const struct sampling few[] = {
    { .window = 0, .repeat = 1 },
    { DEFAULTS, .window = 256, .repeat = 1.1f, .ends = ends, .n_ends = 2 },
    { DEFAULTS, .window = INT32_MAX, .repeat = 0.8f, .presence = -0.5f, .frequency = 0.1f },
    { .window = 64, .repeat = 1.5f, .frequency = 0.3f },
    { .temperature = 3, .top_k = 1, .window = 9, .repeat = 1, .no_repeat_ngram = 1 },
    { .temperature = 2, .top_k = 64, .window = 0, .repeat = 1 },
    { .temperature = 1.5f,
      .top_k = 50,
      .min_p = 0.1f,
      .window = 300,
      .repeat = 1,
      .presence = 2,
      .dry_multiplier = 0.8f,
      .dry_base = 1.75f,
      .dry_allowed_length = 1,
      .bias = bias,
      .n_bias = 4 },
    { .temperature = 1,
      .top_k = 2,
      .top_p = 0.4f,
      .window = 20,
      .repeat = 1,
      .no_repeat_ngram = 2,
      .ends = ends,
      .n_ends = 2 },
    { .temperature = 1, .top_k = 200, .window = 0, .repeat = 1 },
};
/* Without top_k, from few logits if these decide. */
static const struct sampling bounded[] = {
    { .temperature = 0.05f, .window = 0, .repeat = 1 },
    { .temperature = 0.2f, .top_p = 0.9f, .window = 40, .repeat = 1.2f, .ends = ends, .n_ends = 2 },
    { .temperature = 0.4f, .min_p = 0.2f, .window = 9, .repeat = 0.9f, .bias = bias, .n_bias = 4 },
    { .temperature = 1, .window = 0, .repeat = 1 },
    { .temperature = 0.1f,
      .top_p = 0.5f,
      .min_p = 0.01f,
      .window = 300,
      .repeat = 1,
      .presence = 0.5f },
    { .temperature = 0.7f,
      .top_p = 0.95f,
      .min_p = 0.05f,
      .window = 0,
      .repeat = 1,
      .bias = bias,
      .n_bias = 1 },
    { .temperature = 1e-30f, .window = 0, .repeat = 1 },
    { .temperature = 5, .top_p = 0.9f, .window = 0, .repeat = 1 },
};
/* These need all logits. */
static const struct sampling all[] = {
    { .temperature = 0.9f, .top_k = 0, .top_p = 0.9f, .window = 40, .repeat = 1.2f },
    { .temperature = 1, .top_k = 700, .window = 0, .repeat = 1 },
};

/* Run a batch that draws from rows of several sessions; the tokens, and the logits that they were
 * drawn from. */
static void draw_batch(quip_session *const sessions[N_SESSIONS], int round,
                       const struct draw *draws, quip_token *tokens, float *logits)
{
    struct device *d = sessions[0]->device;
    const struct backend *b = d->backend;
    struct output outputs[N_DRAWS];
    for (int i = 0; i < N_DRAWS; i++) {
        struct sequence *sequence = sessions[i / N_ROWS]->sequence;
        const int pos = i % N_ROWS;
        d->rows[i] = (struct row){ .sequence = sequence,
                                   .pos = pos,
                                   .visible_end = pos + 1,
                                   .token = (i * 31 + round * 17) % TINY_VOCAB,
                                   .is_output = true };
        outputs[i] = (struct output){ sequence, pos };
        b->sequence_rewind(sequence, 0);
    }
    qp_device_enter(d, TURN_SHORT);
    assert_int_equal(b->begin(d, 0), QUIP_OK);
    assert_int_equal(qp_forward(d, &(struct rows){ d->rows, N_DRAWS }, NULL, NULL), QUIP_OK);
    assert_int_equal(qp_forward_logits(d, outputs, N_DRAWS, NULL), QUIP_OK);
    assert_int_equal(b->sample(d, draws, N_DRAWS), QUIP_OK);
    assert_int_equal(b->submit(d), QUIP_OK);
    assert_int_equal(b->poll(d, true), QUIP_OK);
    assert_int_equal(b->read_tokens(d, tokens, N_DRAWS), QUIP_OK);
    assert_int_equal(b->begin(d, 0), QUIP_OK); // a draw may change the logits: compute them again
    assert_int_equal(qp_forward_logits(d, outputs, N_DRAWS, NULL), QUIP_OK);
    assert_int_equal(b->submit(d), QUIP_OK);
    assert_int_equal(b->poll(d, true), QUIP_OK);
    assert_int_equal(b->read(d, BUF_LOGITS, logits, N_DRAWS), QUIP_OK);
    qp_device_leave(d);
}

static void check_draws(quip_model *model, int round, const struct draw *draws,
                        const quip_token *tokens, float *logits)
{
    const int vocab_size = model->config.vocab_size;
    struct candidate *scratch = malloc((size_t)vocab_size * sizeof *scratch);
    const struct sampler sampler = { scratch, sum_exps };
    assert_non_null(scratch);
    for (int i = 0; i < N_DRAWS; i++) {
        const quip_token want =
            qp_sample(&sampler, &draws[i], logits + (size_t)i * (size_t)vocab_size, vocab_size);
        if (tokens[i] != want)
            fail_msg("%d tokens, round %d, draw %d: token %d, expected %d", vocab_size, round, i,
                     tokens[i], want);
    }
    free(scratch);
}

/* Every few rounds one draw needs all logits, and every few rounds all are greedy. */
static const struct sampling *sampling_of_draw(int round, int i)
{
    if (round % 4 == 1 && i == round % N_DRAWS)
        return &all[1];
    if (round % 5 == 0)
        return &few[0];
    return i % 2 ? &few[(round + i) % (int)QP_COUNT(few)]
                 : &bounded[(round + i / 2) % (int)QP_COUNT(bounded)];
}

enum {
    UNDECIDED = 16 // before a batch: few logits come back
};

/* The draws that were not decided by few logits, of a batch that began with UNDECIDED. */
static int count_undecided(const struct webgpu_device *d, const struct draw *draws)
{
    int n = 0;
    for (int i = 0; i < N_DRAWS; i++)
        n += draws[i].sampling->top_k == 0 && draws[i].sampling->temperature > 0;
    return (d->n_undecided - UNDECIDED + n) / 5;
}

static void test_draws(void **state)
{
    (void)state;
    for (size_t v = 0; v < QP_COUNT(vocab_sizes) && has_gpu(); v++) {
        quip_model *model = open_model(vocab_sizes[v]);
        const size_t vocab_size = (size_t)vocab_sizes[v];
        float *logits = malloc(N_DRAWS * vocab_size * sizeof *logits);
        uint32_t *mask = malloc((vocab_size + 31) / 32 * sizeof *mask);
        quip_session *sessions[N_SESSIONS];
        quip_error error = { 0 };
        quip_token context[N_CONTEXT], tokens[N_DRAWS] = { 0 };
        int n_samples[3] = { 0 }, n_bounded = 0, n_undecided = 0;
        assert_true(logits && mask);
        for (int i = 0; i < N_SESSIONS; i++)
            check(quip_session_open(&sessions[i], model, &(quip_session_options){ .n_context = 20 },
                                    &error),
                  &error);
        for (int i = 0; i < N_CONTEXT; i++)
            context[i] = i * i % 40;
        for (int round = 0; round < (v == 0 ? 16 : 11); round++) {
            struct draw draws[N_DRAWS];
            for (size_t i = 0; i < (vocab_size + 31) / 32; i++)
                mask[i] = (uint32_t)(i * 2654435761u) ^ (uint32_t)round * 40503u;
            for (int i = 0; i < N_DRAWS; i++) {
                context[(round * 29 + i * 7) % N_CONTEXT] = tokens[i]; // likely tokens
                draws[i] = (struct draw){ .sampling = sampling_of_draw(round, i),
                                          .seed = (uint64_t)round << 33,
                                          .index = (uint64_t)(i * 20 + round % 20),
                                          .expected = -1,
                                          .context = context,
                                          .allowed = round % 5 && i % 4 == 3 ? mask : NULL };
            }
            struct webgpu_device *d = webgpu_of(sessions[0]->device);
            d->n_undecided = UNDECIDED;
            draw_batch(sessions, round, draws, tokens, logits);
            n_samples[d->sample]++;
            for (int i = 0; i < N_DRAWS && d->sample == SAMPLE_KNOWN; i++)
                n_bounded += qp_sample_n_best(draws[i].sampling, vocab_sizes[v]) == 0;
            n_undecided += d->sample == SAMPLE_KNOWN ? count_undecided(d, draws) : 0;
            check_draws(model, round, draws, tokens, logits);
        }
        assert_true(n_samples[SAMPLE_GREEDY] > 1 && (n_samples[SAMPLE_ALL] > 2 || v == 0) &&
                    n_samples[SAMPLE_KNOWN] > 4);
        printf("  %d tokens: %d of %d draws without top_k need all logits\n", vocab_sizes[v],
               n_undecided, n_bounded);
        assert_true(v == 0 || (n_undecided > 0 && n_undecided < n_bounded * 3 / 4));
        for (int i = 0; i < N_SESSIONS; i++)
            quip_session_close(sessions[i]);
        free(logits);
        free(mask);
        quip_model_close(model);
        unlink("gpu-draws.bin");
    }
}

/* ---- tokens that are drawn ahead ---- */

struct answers {
    struct bytes all; // texts, tokens, reasons, and logits at the end
    int most_ahead, n_wrong;
};

static void append(struct answers *a, const void *bytes, size_t n)
{
    assert_true(qp_bytes_append(&a->all, bytes, n));
}

static void append_answer(struct answers *a, quip_session *s, bool wait)
{
    quip_piece piece = { .struct_size = sizeof piece };
    quip_error error = { 0 };
    while (!piece.finish_reason) {
        const int n_ahead = s->n_ahead;
        const quip_status status = qp_answer_next(s, wait, &piece, &error);
        if (status == QP_NOT_YET)
            continue;
        check(status, &error);
        append(a, piece.text, piece.n_text);
        append(a, piece.tokens, (size_t)piece.n_tokens * sizeof *piece.tokens);
        append(a, &piece.finish_reason, sizeof piece.finish_reason);
        a->most_ahead = qp_max(a->most_ahead, s->n_ahead);
        a->n_wrong += n_ahead > 0 && s->n_ahead == 0;
    }
}

/* Some turns of a session that may draw ahead as many tokens as it can, or none. */
static struct answers converse(quip_model *model, const quip_session_options *options,
                               bool is_ahead)
{
    struct answers a = { 0 };
    quip_session *s, *clone;
    quip_error error = { 0 };
    check(quip_session_open(&s, model, options, &error), &error);
    s->device->ahead_ns = is_ahead ? UINT64_MAX : 0;
    for (int turn = 0; turn < 3; turn++) {
        static const char text[] = "the hen";
        const quip_token token = 9;
        check(quip_session_append(s, QUIP_ROLE_USER, text, strlen(text), &error), &error);
        append_answer(&a, s, turn != 1);
        if (s->n == options->n_context)
            break;
        check(quip_session_clone(&clone, s, &error), &error);
        quip_session *const both[] = { clone, s };
        for (int i = 0; i < 2; i++) {
            check(quip_session_prefill(both[i], &token, 1, &error), &error);
            append(&a, quip_session_logits(both[i]),
                   (size_t)model->config.vocab_size * sizeof(float));
        }
        quip_session_close(clone);
        if (turn == 1)
            check(quip_session_rewind(s, s->n - 5, &error), &error);
    }
    quip_session_close(s);
    return a;
}

#define OPTIONS .n_context = 300, .has_seed = true, .seed = 5, .max_output_tokens = 80
static const quip_session_options conversations[] = {
    { OPTIONS, .greedy = true, .no_speculation = true },
    { OPTIONS, .greedy = true, .repeat_penalty = 1.6f, .frequency_penalty = 0.2f },
    { OPTIONS, .no_speculation = true },
    { OPTIONS, .temperature = 2, .top_k = 60, .penalty_window = 7, .presence_penalty = 1 },
    { OPTIONS, .temperature = 0.6f, .no_repeat_ngram = 2, .dry_multiplier = 2,
      .no_speculation = true },
    { OPTIONS, .temperature = 1, .top_k = 20, .top_p = 0.5f, .min_p = -1, .n_stop = 2,
      .stop = (const char *const[]){ "e", "a" } },
    { OPTIONS, .temperature = 0.3f, .top_k = -1, .top_p = 0.9f, .no_speculation = true },
    { OPTIONS, .temperature = 0.2f, .top_k = -1, .top_p = 1, .min_p = -1, .n_logit_bias = 3,
      .logit_bias = bias, .no_speculation = true },
    { .n_context = 50, .temperature = 1, .has_seed = true, .seed = 8 },
};

/* Answers do not depend on it, and neither does what follows: other turns, clones, rewinds. */
static void test_answers_drawn_ahead(void **state)
{
    (void)state;
    if (!has_gpu())
        return;
    quip_model *model = open_model(TINY_VOCAB);
    int n_wrong = 0, n_most = 0;
    for (size_t i = 0; i < QP_COUNT(conversations); i++) {
        struct answers want = converse(model, &conversations[i], false),
                       got = converse(model, &conversations[i], true);
        assert_int_equal(want.most_ahead, 0);
        assert_true(got.most_ahead >= AHEAD_DRAWS / 4 - 1);
        n_most += got.most_ahead == AHEAD_DRAWS - 1;
        assert_int_equal(got.all.n, want.all.n);
        assert_memory_equal(got.all.data, want.all.data, want.all.n);
        n_wrong += got.n_wrong;
        qp_bytes_close(&want.all);
        qp_bytes_close(&got.all);
    }
    assert_true(n_wrong > 0); // the guess knows no n-grams
    assert_true(n_most > 4);  // some answers end early, or their guesses are wrong
    quip_model_close(model);
    unlink("gpu-draws.bin");
}

int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_draws),
        cmocka_unit_test(test_answers_drawn_ahead),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
