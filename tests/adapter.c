/* adapter.c (test): LoRA weights beside a model: equal to the reference implementation, one answer
 * everywhere, switching in a session, and adapters that do not fit. */
#include "support/check.h"
#include "support/golden.h"
#include "support/logits.h"
#include "support/shared.h"
#include "support/tiny_adapter.h"
#include "support/tiny_model.h"

#include "convert/convert.h"
#include "cpu/cpu_impl.h"
#include "engine/engine.h"

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define MAX_IDS 512

/* ---- the reference implementation ---- */

/* Convert and open a checkpoint of the reference data. */
static quip_model *open_golden(const char *name, enum convert_weights weights,
                               const char *merge_adapter)
{
    char model_path[64];
    quip_error error = { 0 };
    quip_model *model;
    need_shared(name);
    snprintf(model_path, sizeof model_path, "adapter-golden-%d.bin", (int)getpid());
    const struct convert_options options = { .weights = weights, .merge_adapter = merge_adapter };
    check(qp_convert(shared_path(name), model_path, &options, &error), &error);
    check(quip_model_open(&model, model_path, NULL, &error), &error);
    unlink(model_path);
    return model;
}

static void check_golden(const char *base, const char *adapter_name)
{
    char name[256], folder[128];
    const cJSON *prompt;
    quip_error error = { 0 };
    quip_adapter *adapter;
    snprintf(name, sizeof name, "data/golden/%s", base);
    quip_model *model = open_golden(name, CONVERT_F32, NULL);
    snprintf(folder, sizeof folder, "%s/%s", base, adapter_name);
    snprintf(name, sizeof name, "data/golden/%s", folder);
    check(quip_adapter_open(&adapter, model, shared_path(name), &error), &error);
    char *adapter_path = strdup(shared_path(name));
    snprintf(name, sizeof name, "data/golden/%s", base);
    quip_model *merged = open_golden(name, CONVERT_F32, adapter_path);
    snprintf(name, sizeof name, "data/golden/%s/expected.json", folder);
    cJSON *expected = read_json(shared_path(name));
    cJSON_ArrayForEach(prompt, cJSON_GetObjectItem(expected, "prompts"))
    {
        check_golden_prompt(model, adapter, folder, prompt);
        check_golden_prompt(merged, NULL, folder, prompt);
    }
    quip_model_close(merged);
    free(adapter_path);
    quip_adapter_close(adapter);
    quip_model_close(model);
    cJSON_Delete(expected);
}

static void test_golden(void **state)
{
    (void)state;
    check_golden("gemma", "lora_attn");
    check_golden("gemma", "lora_all");
    check_golden("phi2", "lora_attn");
    check_golden("phi2", "lora_all");
}

/* Logits after a few tokens. */
static void fused_logits(quip_model *model, quip_adapter *adapter, float *logits)
{
    static const quip_token tokens[] = { 1, 200, 30, 44, 7, 99, 250 };
    quip_error error = { 0 };
    quip_session *s;
    check(quip_session_open(&s, model, &(quip_session_options){ .n_context = 32 }, &error), &error);
    check(quip_session_set_adapter(s, adapter, 1, &error), &error);
    check(quip_session_prefill(s, tokens, QP_COUNT(tokens), &error), &error);
    memcpy(logits, quip_session_logits(s), (size_t)model->config.vocab_size * sizeof *logits);
    quip_session_close(s);
}

/* An adapter of a fused module is one of each matrix in it, beside the weights and merged. */
static void test_fused_modules(void **state)
{
    (void)state;
    static const char folder[] = "test-adapter-fused";
    float separate[512], fused[512], merged[512], plain[512];
    quip_error error = { 0 };
    quip_adapter *adapter;
    struct tiny_adapter tiny = { .rank = 3, .alpha = 6, .is_as_fused = true };
    quip_model *model = open_golden("data/golden-2/phi3", CONVERT_F32, NULL);
    const size_t n_bytes = (size_t)model->config.vocab_size * sizeof(float);
    assert_true(n_bytes <= sizeof fused);
    fused_logits(model, NULL, plain);
    check(tiny_adapter_write(folder, model, &tiny, &error), &error);
    check(quip_adapter_open(&adapter, model, folder, &error), &error);
    fused_logits(model, adapter, separate);
    quip_adapter_close(adapter);
    tiny.is_as_fused = false;
    tiny.is_fused = true;
    check(tiny_adapter_write(folder, model, &tiny, &error), &error);
    check(quip_adapter_open(&adapter, model, folder, &error), &error);
    fused_logits(model, adapter, fused);
    quip_adapter_close(adapter);
    quip_model *with = open_golden("data/golden-2/phi3", CONVERT_F32, folder);
    fused_logits(with, NULL, merged);
    quip_model_close(with);
    tiny_adapter_remove(folder);
    assert_memory_equal(separate, fused, n_bytes);
    float worst = 0, change = 0;
    for (int i = 0; i < model->config.vocab_size; i++) {
        worst = fmaxf(worst, fabsf(merged[i] - fused[i]));
        change = fmaxf(change, fabsf(plain[i] - fused[i]));
    }
    assert_true(worst < 1e-4f && change > 0.1f);
    quip_model_close(model);
}

/* An adapter that does not fit is reported before anything is written. */
static void test_wrong_merges(void **state)
{
    (void)state;
    static const struct {
        const char *base, *adapter, *words;
    } wrong[] = {
        { "falcon-rw", "data/golden/gemma/lora_all", "is not a matrix of this model" },
        { "smollm2", "data/golden/gemma/lora_attn", "do not fit a matrix" },
        { "gemma", "data/golden/gemma", "adapter_model" },
    };
    for (size_t i = 0; i < QP_COUNT(wrong); i++) {
        char name[256], out[64];
        quip_error error = { 0 };
        need_shared(wrong[i].adapter);
        snprintf(out, sizeof out, "adapter-wrong-%d.bin", (int)getpid());
        snprintf(name, sizeof name, "data/golden/%s", wrong[i].base);
        const struct convert_options options = { .merge_adapter = shared_path(wrong[i].adapter) };
        assert_int_not_equal(qp_convert(shared_path(name), out, &options, &error), QUIP_OK);
        if (!strstr(error.message, wrong[i].words))
            fail_msg("expected \"%s\", got \"%s\"", wrong[i].words, error.message);
        assert_int_not_equal(access(out, F_OK), 0);
    }
}

/* ---- names ---- */

static void test_names_of_layers(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int l;
        const char *rest; // NULL: not the name of a layer's tensor
    } names[] = {
        { "params.lm.transformer.x_layers_12.self_attention.q.w", 12, "self_attention.q.w" },
        { "model.layers.0.mlp.up_proj.weight", 0, "mlp.up_proj.weight" },
        { "base_model.model.model.layers.7.x", 7, "x" },
        { "model.language_model.layers.3.x", 3, "x" },
        { "language_model.model.layers.3.x", 3, "x" },
        { "transformer.h.23.self_attention.dense.weight", 23, "self_attention.dense.weight" },
        { "layers.99999999999999999999.x", 1000000, "x" },
        { "model.layers.x.y", 0, NULL },
        { "model.layers.-1.y", 0, NULL },
        { "model.layers.1", 0, NULL },
        { "model.embed_tokens.weight", 0, NULL },
        { "", 0, NULL },
    };
    for (size_t i = 0; i < QP_COUNT(names); i++) {
        int l = -1;
        const char *rest = qp_name_after_layer(names[i].name, &l);
        if (!names[i].rest) {
            assert_null(rest);
            continue;
        }
        assert_non_null(rest);
        assert_string_equal(rest, names[i].rest);
        assert_int_equal(l, names[i].l);
    }
    assert_string_equal(qp_name_unwrap("model.language_model.model.norm.weight"), "norm.weight");
    for (int i = 0; qp_module(i); i++) // each one has a matrix, and a fused one comes three times
        assert_in_range(qp_module(i)->matrix, 0, N_MATRICES - 1);
}

/* ---- values of an adapter ---- */

struct values {
    int rank;
    float *a, *b; // [rank, n_in], [n_out, rank]
    size_t n_a, n_b;
};

static void read_pair(struct values *v, struct adapter *adapter, int l, enum layer_matrix m)
{
    const struct matrix *w = &adapter->model->weights.layers[l].m[m];
    quip_error error = { 0 };
    *v = (struct values){ .rank = qp_adapter_pair(adapter, l, m)->rank };
    v->n_a = (size_t)v->rank * (size_t)w->n_in;
    v->n_b = (size_t)v->rank * (size_t)w->n_out;
    v->a = malloc(v->n_a * sizeof *v->a);
    v->b = malloc(v->n_b * sizeof *v->b);
    if (v->rank)
        check(qp_adapter_read(adapter, l, m, v->a, v->b, &error), &error);
}

static void read_values(struct values *v, quip_model *model, const char *path, int l,
                        enum layer_matrix m)
{
    struct adapter adapter;
    quip_error error = { 0 };
    check(qp_adapter_open(&adapter, model, path, &error), &error);
    read_pair(v, &adapter, l, m);
    qp_adapter_close(&adapter);
}

static void free_values(struct values *v)
{
    free(v->a);
    free(v->b);
}

/* ---- MediaPipe LoRA files ---- */

/* Convert the adapter from which MediaPipe's LoRA file was made. Our file has the same tensors in
 * the same order at the same offsets. Only the output projection differs: MediaPipe scrambles it,
 * and ours is equal to the checkpoint. */
static void check_mediapipe(const char *type)
{
    char name[128], out[64];
    quip_error error = { 0 };
    struct file files[2];
    struct format formats[2];
    snprintf(out, sizeof out, "adapter-mediapipe-%d.bin", (int)getpid());
    snprintf(name, sizeof name, "data/interop/sources/%s-lora-r4/adapter_model.safetensors", type);
    need_shared(name);
    char *source = strdup(shared_path(name));
    snprintf(name, sizeof name, "data/interop/%s-gpu-lora/model.bin", type);
    char *model_path = strdup(shared_path(name));
    snprintf(name, sizeof name, "data/interop/%s-gpu-lora/adapter.bin", type);
    char weights[64]; // without a config beside it, because MediaPipe ignores alpha
    size_t n;
    char *bytes = read_whole(source, &n);
    snprintf(weights, sizeof weights, "adapter-mediapipe-%d.safetensors", (int)getpid());
    save_file(weights, bytes, n);
    check(qp_convert_adapter(weights, out, model_path, &error), &error);
    quip_model *no_model = NULL;
    assert_int_equal(quip_model_open(&no_model, out, NULL, &error), QUIP_E_FORMAT);
    assert_non_null(strstr(error.message, "has LoRA weights, not a model"));
    check(qp_file_open(&files[0], shared_path(name), &error), &error);
    check(qp_file_open(&files[1], out, &error), &error);
    for (int i = 0; i < 2; i++)
        check(qp_format_open(&formats[i], &files[i], &error), &error);
    assert_int_equal(formats[0].n_tensors, formats[1].n_tensors);
    assert_int_equal(formats[0].n_metadata, formats[1].n_metadata);
    for (int i = 0; i < formats[0].n_tensors; i++) {
        const struct tensor *a = &formats[0].tensors[i], *b = &formats[1].tensors[i];
        assert_string_equal(a->name, b->name);
        assert_int_equal(a->offset, b->offset);
        assert_int_equal(a->n_bytes, b->n_bytes);
        if (!strstr(a->name, ".post."))
            assert_memory_equal(files[0].data + a->offset, files[1].data + b->offset, a->n_bytes);
    }
    for (int i = 0; i < formats[0].n_metadata; i++) {
        const struct metadata *a = &formats[0].metadata[i];
        const struct metadata *b = qp_format_find_metadata(&formats[1], a->name);
        assert_non_null(b);
        assert_int_equal(a->type, b->type);
        assert_int_equal(a->i, b->i);
        assert_int_equal(a->n_bytes, b->n_bytes);
        assert_memory_equal(files[0].data + a->offset, files[1].data + b->offset, a->n_bytes);
    }
    for (int i = 0; i < 2; i++) {
        qp_format_close(&formats[i]);
        qp_file_close(&files[i]);
    }

    /* Read again, it is equal to the checkpoint, rounded to binary16. */
    quip_model *model;
    struct values ours, checkpoint;
    check(quip_model_open(&model, model_path, NULL, &error), &error);
    read_values(&ours, model, out, 1, MATRIX_O);
    read_values(&checkpoint, model, weights, 1, MATRIX_O);
    for (size_t i = 0; i < ours.n_a; i++)
        assert_true(fabsf(ours.a[i] - checkpoint.a[i]) < 1e-3f);
    for (size_t i = 0; i < ours.n_b; i++)
        assert_true(fabsf(ours.b[i] - checkpoint.b[i]) < 1e-3f);
    free_values(&ours);
    free_values(&checkpoint);
    quip_model_close(model);
    unlink(out);
    unlink(weights);
    free(bytes);
    free(source);
    free(model_path);
}

static void test_mediapipe_files(void **state)
{
    (void)state;
    check_mediapipe("GEMMA_2B");
    check_mediapipe("GEMMA2_2B");
}

/* ---- tiny models and adapters ---- */

#define N_PROMPT 150 // three attention blocks; the last piece has tiles that are not full

static const char *const kinds[] = { "gemma3 mixed", "gemma3 f32", "llama int4" };
static char model_paths[QP_COUNT(kinds)][64], folder[64];
static quip_token prompt[N_PROMPT];

static int make_models(void **state)
{
    (void)state;
    const struct tiny_model models[] = { tiny_gemma3, tiny_with(tiny_gemma3, DTYPE_F32),
                                         tiny_with(tiny_llama, DTYPE_I4) };
    quip_error error = { 0 };
    for (size_t i = 0; i < QP_COUNT(kinds); i++) {
        snprintf(model_paths[i], sizeof model_paths[i], "tiny-adapter-%d-%zu.bin", (int)getpid(),
                 i);
        check(tiny_model_write(model_paths[i], &models[i], &error), &error);
    }
    snprintf(folder, sizeof folder, "tiny-adapter-%d", (int)getpid());
    for (int i = 0; i < N_PROMPT; i++)
        prompt[i] = (i * 7919 + i * i * 13) % TINY_VOCAB;
    return 0;
}

static int remove_models(void **state)
{
    (void)state;
    for (size_t i = 0; i < QP_COUNT(kinds); i++)
        unlink(model_paths[i]);
    return 0;
}

static quip_model *open_model(size_t kind)
{
    quip_model *model;
    quip_error error = { 0 };
    const quip_model_options options = { .n_threads = 5 };
    check(quip_model_open(&model, model_paths[kind], &options, &error), &error);
    return model;
}

/* Open an adapter for the model. The folder is removed afterwards. */
static quip_adapter *open_tiny(quip_model *model, const struct tiny_adapter *tiny)
{
    quip_adapter *adapter;
    quip_error error = { 0 };
    check(tiny_adapter_write(folder, model, tiny, &error), &error);
    const quip_status status = quip_adapter_open(&adapter, model, folder, &error);
    tiny_adapter_remove(folder);
    check(status, &error);
    return adapter;
}

static quip_session *open_session(quip_model *model, quip_adapter *adapter, float scale)
{
    quip_session *s;
    quip_error error = { 0 };
    const quip_session_options options = { .n_context = 2 * N_PROMPT,
                                           .n_threads = 2,
                                           .greedy = true };
    check(quip_session_open(&s, model, &options, &error), &error);
    check(quip_session_set_adapter(s, adapter, scale, &error), &error);
    return s;
}

static void prefill(quip_session *s, const quip_token *tokens, int n)
{
    quip_error error = { 0 };
    check(quip_session_prefill(s, tokens, n, &error), &error);
}

static void set_adapter(quip_session *s, quip_adapter *adapter, float scale)
{
    quip_error error = { 0 };
    check(quip_session_set_adapter(s, adapter, scale, &error), &error);
}

static void assert_same_logits(quip_session *a, quip_session *b)
{
    assert_non_null(quip_session_logits(a));
    assert_non_null(quip_session_logits(b));
    assert_memory_equal(quip_session_logits(a), quip_session_logits(b), TINY_VOCAB * sizeof(float));
}

static bool is_same_logits(quip_session *a, quip_session *b)
{
    return memcmp(quip_session_logits(a), quip_session_logits(b), TINY_VOCAB * sizeof(float)) == 0;
}

/* ---- law 5 ---- */

/* Logits after every token of the prompt, prefilled in pieces. */
static float *all_logits(quip_model *model, quip_adapter *adapter, int n_threads, int piece)
{
    const quip_session_options options = { .n_context = N_PROMPT, .n_threads = n_threads };
    quip_session *s;
    quip_error error = { 0 };
    check(quip_session_open(&s, model, &options, &error), &error);
    check(quip_session_set_adapter(s, adapter, 0.7f, &error), &error);
    float *rows = calloc((size_t)N_PROMPT * TINY_VOCAB, sizeof *rows);
    assert_non_null(rows);
    logits_prefill(s, prompt, N_PROMPT, piece, rows);
    quip_session_close(s);
    return rows;
}

static void assert_same(const float *want, float *got, size_t kind, const char *what)
{
    for (size_t i = 0; i < (size_t)N_PROMPT * TINY_VOCAB; i++)
        if (memcmp(&want[i], &got[i], sizeof *want))
            fail_msg("%s, %s: logit %zu after token %zu is %.9g, not %.9g", kinds[kind], what,
                     i % TINY_VOCAB, i / TINY_VOCAB, (double)got[i], (double)want[i]);
    free(got);
}

/* Ranks below, equal to and above a block of activations; the prompt as a whole, in odd pieces, one
 * by one.
 */
static void test_same_everywhere(void **state)
{
    (void)state;
    static const int ranks[] = { 3, 64, 70 }, pieces[] = { 1, 3, 7, 64, 131 }, threads[] = { 2, 5 };
    const struct cpu_level *level;
    for (size_t kind = 0; kind < QP_COUNT(kinds); kind++) {
        quip_model *model = open_model(kind);
        const struct tiny_adapter tiny = { .rank = ranks[kind], .alpha = 10 };
        quip_adapter *adapter = open_tiny(model, &tiny);
        setenv("QUIP_CPU", "scalar", 1);
        float *want = all_logits(model, adapter, 1, N_PROMPT);
        for (int i = 1; (level = qp_cpu_level(i)); i++) {
            setenv("QUIP_CPU", level->name, 1);
            assert_same(want, all_logits(model, adapter, 1, N_PROMPT), kind, level->name);
            assert_same(want, all_logits(model, adapter, 2, 5), kind, level->name);
        }
        unsetenv("QUIP_CPU");
        for (size_t i = 0; i < QP_COUNT(threads); i++)
            assert_same(want, all_logits(model, adapter, threads[i], N_PROMPT), kind, "threads");
        for (size_t i = 0; i < QP_COUNT(pieces); i++)
            assert_same(want, all_logits(model, adapter, 2, pieces[i]), kind, "pieces");
        free(want);
        quip_adapter_close(adapter);
        quip_model_close(model);
    }
}

/* ---- equal to merged weights ---- */

static void merge(struct matrix *w, const struct values *v)
{
    for (int r = 0; v->rank && r < w->n_out; r++)
        for (int k = 0; k < v->rank; k++)
            for (int i = 0; i < w->n_in; i++)
                ((float *)w->data)[r * w->n_in + i] +=
                    v->b[r * v->rank + k] * v->a[k * w->n_in + i];
}

/* The model with the products of the adapter added to its weights. */
static quip_model *open_merged(const struct tiny_adapter *tiny)
{
    quip_model *model;
    struct adapter adapter;
    quip_error error = { 0 };
    const quip_model_options options = { .no_mmap = true }; // so that its weights can be changed
    check(quip_model_open(&model, model_paths[1], &options, &error), &error);
    check(tiny_adapter_write(folder, model, tiny, &error), &error);
    check(qp_adapter_open(&adapter, model, folder, &error), &error);
    tiny_adapter_remove(folder);
    for (int l = 0; l < model->config.n_layers; l++)
        for (int m = 0; m < N_MATRICES; m++) {
            struct values v;
            read_pair(&v, &adapter, l, m);
            merge(&model->weights.layers[l].m[m], &v);
            free_values(&v);
        }
    qp_adapter_close(&adapter);
    return model;
}

/* The root mean square of the difference. */
static double distance(const float *a, const float *b)
{
    double sum = 0;
    for (size_t i = 0; i < (size_t)N_PROMPT * TINY_VOCAB; i++)
        sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    return sqrt(sum / ((double)N_PROMPT * TINY_VOCAB));
}

/* With float weights the results are equal up to rounding. With integer weights the adapter is
 * rounded, too: this error must be small compared with that of rounding the model. */
static void test_beside_equals_merged(void **state)
{
    (void)state;
    const struct tiny_adapter tiny = { .rank = 5, .alpha = 8 };
    char path[64];
    quip_error error = { 0 };
    quip_model *model = open_model(1), *rounded;
    quip_adapter *adapter = open_tiny(model, &tiny), *rounded_adapter;
    quip_model *merged = open_merged(&tiny);
    float *plain = all_logits(model, NULL, 2, N_PROMPT), *want, *got;

    quip_session *s = open_session(model, adapter, 1), *m = open_session(merged, NULL, 0);
    float *beside = calloc((size_t)N_PROMPT * TINY_VOCAB, sizeof *beside);
    assert_non_null(beside);
    want = all_logits(merged, NULL, 2, N_PROMPT);
    logits_prefill(s, prompt, N_PROMPT, N_PROMPT, beside);
    print_message("  the adapter moves logits by %.3g, merging it by %.3g\n", distance(plain, want),
                  distance(beside, want));
    assert_true(distance(plain, want) > 0.1);
    assert_true(distance(beside, want) < 1e-5);
    quip_session_close(s);
    quip_session_close(m);
    free(beside);
    free(want);
    quip_model_close(merged);
    quip_adapter_close(adapter);
    quip_model_close(model);

    const struct tiny_model i8 = tiny_with(tiny_gemma3, DTYPE_I8);
    snprintf(path, sizeof path, "tiny-adapter-%d-i8.bin", (int)getpid());
    check(tiny_model_write(path, &i8, &error), &error);
    check(quip_model_open(&rounded, path, NULL, &error), &error);
    unlink(path);
    model = open_model(1);
    adapter = open_tiny(model, &tiny);
    rounded_adapter = open_tiny(rounded, &tiny);
    want = all_logits(model, adapter, 2, N_PROMPT);
    got = all_logits(rounded, rounded_adapter, 2, N_PROMPT);
    float *plain_rounded = all_logits(rounded, NULL, 2, N_PROMPT);
    print_message("  rounding the model moves logits by %.3g, the model and its adapter by %.3g\n",
                  distance(plain, plain_rounded), distance(want, got));
    assert_true(distance(want, got) < 1.5 * distance(plain, plain_rounded));
    free(want);
    free(got);
    free(plain);
    free(plain_rounded);
    quip_adapter_close(adapter);
    quip_adapter_close(rounded_adapter);
    quip_model_close(model);
    quip_model_close(rounded);
}

/* ---- how the update is scaled ---- */

static void check_scale(const char *config, float alpha, float scale, float want)
{
    quip_model *model = open_model(1);
    const struct tiny_adapter plain = { .rank = 4, .alpha = 4 },
                              scaled = { .rank = 4, .alpha = alpha, .config = config };
    quip_adapter *a = open_tiny(model, &plain), *b = open_tiny(model, &scaled);
    const float *x = a->packed->layers[0].m[MATRIX_DOWN].b.data;
    const float *y = b->packed->layers[0].m[MATRIX_DOWN].b.data;
    for (int i = 0; i < 16; i++)
        if (fabsf(y[i] * scale - x[i] * want) > 1e-6f)
            fail_msg("%s: %g is %g, should be %g", config ? config : "", (double)x[i],
                     (double)(y[i] * scale), (double)(x[i] * want));
    quip_adapter_close(a);
    quip_adapter_close(b);
    quip_model_close(model);
}

static void test_alpha(void **state)
{
    (void)state;
    check_scale(NULL, 8, 1, 2);
    check_scale(NULL, 1, 1, 0.25f);
    check_scale(", \"use_rslora\": true", 8, 1, 4);
    check_scale(", \"use_rslora\": false", 8, 1, 2);
    check_scale(", \"alpha_pattern\": {\"down_proj\": 12.0}", 8, 1, 3);
    check_scale(", \"alpha_pattern\": {\"layers.1.mlp.down_proj\": 12, \"mlp.down_proj\": 16}", 8,
                1, 4);
    check_scale(", \"alpha_pattern\": {\"own_proj\": 12}", 8, 1, 2);
    check_scale(", \"alpha_pattern\": {}, \"rank_pattern\": {\"x\": 7}", 8, 1, 2);
}

/* ---- sessions ---- */

static void test_switching_runs_the_text_again(void **state)
{
    (void)state;
    for (size_t kind = 0; kind < QP_COUNT(kinds); kind++) {
        quip_model *model = open_model(kind);
        quip_adapter *one = open_tiny(model, &(struct tiny_adapter){ .rank = 4, .alpha = 8 });
        quip_adapter *two =
            open_tiny(model, &(struct tiny_adapter){ .rank = 9, .alpha = 8, .seed = 5 });
        quip_session *plain = open_session(model, NULL, 0), *with_one = open_session(model, one, 1);
        quip_session *with_two = open_session(model, two, 0.5f), *s = open_session(model, NULL, 0);
        quip_session *all[] = { plain, with_one, with_two, s };
        for (size_t i = 0; i < QP_COUNT(all); i++)
            prefill(all[i], prompt, 40);
        assert_same_logits(s, plain);
        assert_false(is_same_logits(plain, with_one));
        assert_false(is_same_logits(with_one, with_two));

        set_adapter(s, one, 1);
        assert_null(quip_session_logits(s));
        assert_int_equal(quip_session_position(s), 40);
        for (size_t i = 0; i < QP_COUNT(all); i++)
            prefill(all[i], prompt + 40, 3);
        assert_same_logits(s, with_one);
        set_adapter(s, two, 0.5f);
        quip_adapter_close(one); // sessions that use it keep it open
        quip_adapter_close(two);
        for (size_t i = 0; i < QP_COUNT(all); i++)
            prefill(all[i], prompt + 43, 1);
        assert_same_logits(s, with_two);
        set_adapter(s, two, 0.5f); // it is set already: the context is kept
        assert_same_logits(s, with_two);

        quip_session *copy;
        quip_error error = { 0 };
        check(quip_session_clone(&copy, s, &error), &error);
        assert_same_logits(copy, with_two);
        check(quip_session_rewind(copy, 20, &error), &error);
        prefill(copy, prompt + 20, 24);
        assert_same_logits(copy, with_two);
        quip_session_close(copy);

        set_adapter(s, NULL, 0);
        for (size_t i = 0; i < QP_COUNT(all); i++)
            prefill(all[i], prompt + 44, 1);
        assert_same_logits(s, plain);
        quip_model_close(model);
        for (size_t i = 0; i < QP_COUNT(all); i++)
            quip_session_close(all[i]);
    }
}

static bool append_text(void *user, const char *text, size_t n)
{
    return qp_bytes_append(user, text, n);
}

/* Draft tokens, and three sessions that generate in turns, do not change any text. */
static void test_answers(void **state)
{
    (void)state;
    quip_error error = { 0 };
    quip_model *model = open_model(0);
    quip_adapter *one = open_tiny(model, &(struct tiny_adapter){ .rank = 4, .alpha = 8 });
    quip_adapter *adapters[] = { NULL, one, one };
    struct bytes want[3] = { 0 }, got[3] = { 0 };
    quip_session *s[3];
    for (int i = 0; i < 3; i++) {
        quip_session_options o = {
            .n_context = 150,
            .n_threads = 2,
            .max_output_tokens = 60,
            .no_speculation = true,
            .greedy = true,
        };
        const float scale = i == 2 ? -1.0f : 1;
        check(quip_session_open(&s[i], model, &o, &error), &error);
        check(quip_session_set_adapter(s[i], adapters[i], scale, &error), &error);
        check(quip_session_generate(s[i], "the hen", 7, append_text, &want[i], NULL, &error),
              &error);
        quip_session_close(s[i]);
        o.no_speculation = false;
        check(quip_session_open(&s[i], model, &o, &error), &error);
        check(quip_session_set_adapter(s[i], adapters[i], scale, &error), &error);
        check(quip_session_append(s[i], QUIP_ROLE_USER, "the hen", 7, &error), &error);
    }
    assert_false(want[0].n == want[1].n && !memcmp(want[0].data, want[1].data, want[0].n));
    for (int n_open = 3; n_open;) {
        n_open = 0;
        for (int i = 0; i < 3; i++) {
            quip_piece piece = { .struct_size = sizeof piece };
            check(quip_session_next(s[i], &piece, &error), &error);
            assert_true(qp_bytes_append(&got[i], piece.text, piece.n_text));
            n_open += piece.finish_reason == QUIP_FINISH_NONE;
        }
    }
    for (int i = 0; i < 3; i++) {
        assert_int_equal(got[i].n, want[i].n);
        assert_memory_equal(got[i].data, want[i].data, want[i].n);
        qp_bytes_close(&want[i]);
        qp_bytes_close(&got[i]);
        quip_session_close(s[i]);
    }
    quip_adapter_close(one);
    quip_model_close(model);
}

/* An adapter that is set in the middle of an answer changes the rest, as if the text so far had
 * been the prompt. */
static void test_switching_in_an_answer(void **state)
{
    (void)state;
    quip_error error = { 0 };
    quip_model *model = open_model(0);
    quip_adapter *adapter = open_tiny(model, &(struct tiny_adapter){ .rank = 4, .alpha = 8 });
    quip_session *s = open_session(model, NULL, 0), *t = open_session(model, adapter, 1);
    quip_piece piece = { .struct_size = sizeof piece };
    check(quip_session_append(s, QUIP_ROLE_USER, "a hen", 5, &error), &error);
    for (int i = 0; i < 12 && !piece.finish_reason; i++)
        check(quip_session_next(s, &piece, &error), &error);
    const int n_before = quip_session_position(s);
    quip_token *context = malloc((size_t)n_before * sizeof *context);
    assert_non_null(context);
    memcpy(context, s->context, (size_t)n_before * sizeof *context);
    set_adapter(s, adapter, 1);
    check(quip_session_next(s, &piece, &error), &error);
    prefill(t, context, n_before);
    int best = 0;
    for (int i = 1; i < TINY_VOCAB; i++)
        if (quip_session_logits(t)[i] > quip_session_logits(t)[best])
            best = i;
    if (!piece.finish_reason)
        assert_int_equal(s->context[n_before], best);
    free(context);
    quip_session_close(s);
    quip_session_close(t);
    quip_adapter_close(adapter);
    quip_model_close(model);
}

/* ---- adapters that do not fit ---- */

static void refuse(quip_model *model, const struct tiny_adapter *tiny, quip_status want,
                   const char *part)
{
    quip_error error = { 0 };
    quip_adapter *adapter;
    check(tiny_adapter_write(folder, model, tiny, &error), &error);
    const quip_status status = quip_adapter_open(&adapter, model, folder, &error);
    tiny_adapter_remove(folder);
    if (status != want || !strstr(error.message, part))
        fail_msg("%s: %s, should have \"%s\"", quip_status_name(status), error.message, part);
    assert_null(adapter);
}

static void test_what_does_not_fit_is_named(void **state)
{
    (void)state;
    quip_model *model = open_model(0);
    const struct tiny_adapter fine = { .rank = 4, .alpha = 8 };
    static const struct {
        const char *config;
        quip_status status;
        const char *part;
    } configs[] = {
        { ", \"use_dora\": true", QUIP_E_UNSUPPORTED, "DoRA" },
        { ", \"bias\": \"lora_only\"", QUIP_E_UNSUPPORTED, "trained biases" },
        { ", \"lora_bias\": true", QUIP_E_UNSUPPORTED, "biases of its own" },
        { ", \"modules_to_save\": [\"lm_head\"]", QUIP_E_UNSUPPORTED, "whole modules" },
        { ", \"layer_replication\": [[0, 2]]", QUIP_E_UNSUPPORTED, "repeat" },
        { ", \"alpha_pattern\": {\"(?i)q\": 3}", QUIP_E_UNSUPPORTED, "\"(?i)q\"" },
        { ", \"alpha_pattern\": {\"q\": \"x\"}", QUIP_E_FORMAT, "alpha_pattern" },
        { ", \"peft_type\": \"LOHA\"", QUIP_E_UNSUPPORTED, "another method" },
        { ", \"r\": 5", QUIP_E_FORMAT, "r = 5" },
        { ", \"r\": 0", QUIP_E_FORMAT, "r is 0" },
        { ", \"lora_alpha\": 1e99", QUIP_E_FORMAT, "lora_alpha" },
        { ", \"lora_alpha\": 1.", QUIP_E_FORMAT, "wrong near byte" },
        { ", \"lora_alpha\": 1e+", QUIP_E_FORMAT, "wrong near byte" },
        { ", \"x\": {", QUIP_E_FORMAT, "JSON" },
        { "} more {\"x\": 1", QUIP_E_FORMAT, "JSON" },
        { ", \"x\": [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]", QUIP_E_FORMAT, "JSON" },
    };
    for (size_t i = 0; i < QP_COUNT(configs); i++) {
        struct tiny_adapter a = fine;
        a.config = configs[i].config;
        refuse(model, &a, configs[i].status, configs[i].part);
    }
    struct tiny_adapter a = fine;
    a.name_of_q = "self_attn.rotary";
    refuse(model, &a, QUIP_E_FORMAT, "\"self_attn.rotary\", which this gemma3 model does not have");
    a = fine;
    a.first_layer = 3;
    refuse(model, &a, QUIP_E_FORMAT, "is for layer 7, but the model has layers 0 to 6");
    a = fine;
    a.more_inputs = 2;
    refuse(model, &a, QUIP_E_FORMAT, "has shape [4, 90], expected [4, 88]");
    a = fine;
    a.has_no_b = true;
    refuse(model, &a, QUIP_E_FORMAT, "not its other half, lora_B");
    a = fine;
    a.has_nan = true;
    refuse(model, &a, QUIP_E_FORMAT, "not a finite number");
    a = fine;
    a.modules = "none of them";
    refuse(model, &a, QUIP_E_FORMAT, "has no LoRA weights");
    a = fine;
    a.extra = "base_model.model.model.embed_tokens.lora_embedding_A";
    refuse(model, &a, QUIP_E_UNSUPPORTED, "embedding");
    a.extra = "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector";
    refuse(model, &a, QUIP_E_UNSUPPORTED, "DoRA");
    a.extra = "model.layers.0.self_attn.q_proj.weight";
    refuse(model, &a, QUIP_E_FORMAT, "is not a LoRA weight");
    a.extra = "model.layers.99999999999999999999.mlp.up_proj.lora_A.weight";
    refuse(model, &a, QUIP_E_FORMAT, "is for layer");
    a.extra = "layers.0.mlp.up_proj.lora_A.weight";
    refuse(model, &a, QUIP_E_FORMAT, "are the same matrix");
    quip_model_close(model);
}

static void test_wrong_files_and_arguments(void **state)
{
    (void)state;
    quip_error error = { 0 };
    quip_model *model = open_model(0), *other = open_model(0);
    quip_adapter *adapter;
    quip_session *s;
    assert_int_equal(quip_adapter_open(&adapter, model, "no-such-adapter", &error), QUIP_E_IO);
    assert_non_null(strstr(error.message, "no-such-adapter"));
    assert_int_equal(quip_adapter_open(&adapter, model, ".", &error), QUIP_E_IO);
    assert_non_null(strstr(error.message, "adapter_config.json"));
    assert_int_equal(quip_adapter_open(&adapter, model, model_paths[0], &error), QUIP_E_FORMAT);
    assert_non_null(strstr(error.message, "is a model file"));
    assert_int_equal(quip_adapter_open(&adapter, model, NULL, &error), QUIP_E_ARGUMENT);
    assert_int_equal(quip_adapter_open(&adapter, NULL, "x", &error), QUIP_E_ARGUMENT);
    assert_int_equal(quip_session_set_adapter(NULL, NULL, 1, &error), QUIP_E_ARGUMENT);
    quip_adapter_close(NULL);

    adapter = open_tiny(model, &(struct tiny_adapter){ .rank = 4, .alpha = 8 });
    check(quip_session_open(&s, other, &(quip_session_options){ .n_context = 64 }, &error), &error);
    assert_int_equal(quip_session_set_adapter(s, adapter, 1, &error), QUIP_E_ARGUMENT);
    assert_non_null(strstr(error.message, "another model"));
    quip_session_close(s);
    s = open_session(model, adapter, 1);
    prefill(s, prompt, 3);
    assert_int_equal(quip_session_set_adapter(s, adapter, NAN, &error), QUIP_E_ARGUMENT);
    assert_non_null(quip_session_logits(s));
    quip_session_close(s);
    quip_adapter_close(adapter);
    quip_model_close(model);
    quip_model_close(other);
}

static bool read_memory(void *user, uint64_t offset, void *buffer, size_t n)
{
    memcpy(buffer, (const char *)user + offset, n);
    return true;
}

/* One file is enough: a source, or a safetensors file with any name. */
static void test_source(void **state)
{
    (void)state;
    char path[128];
    size_t n;
    quip_error error = { 0 };
    quip_model *model = open_model(0);
    quip_adapter *adapter;
    const struct tiny_adapter tiny = { .rank = 4, .alpha = 4 }; // scale 1, which needs no config
    quip_adapter *want = open_tiny(model, &tiny);
    check(tiny_adapter_write(folder, model, &tiny, &error), &error);
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", folder);
    char *bytes = read_whole(path, &n);
    quip_session *s = open_session(model, want, 1);
    prefill(s, prompt, 20);
    const quip_source source = {
        .user = bytes, .size = n, .read_at = read_memory, .name = "downloaded"
    };
    for (int i = 0; i < 2; i++) {
        if (i == 0)
            check(quip_adapter_open_source(&adapter, model, &source, &error), &error);
        else
            check(quip_adapter_open(&adapter, model, path, &error), &error);
        quip_session *t = open_session(model, adapter, 1);
        prefill(t, prompt, 20);
        assert_same_logits(s, t);
        quip_session_close(t);
        quip_adapter_close(adapter);
    }
    tiny_adapter_remove(folder);
    quip_session_close(s);
    quip_adapter_close(want);
    quip_model_close(model);
    free(bytes);
}

/* Files cut short anywhere, and headers with any byte changed, give an error or an adapter, never a
 * crash. */
static void test_broken_files(void **state)
{
    (void)state;
    char path[128];
    size_t n;
    quip_error error = { 0 };
    quip_model *model = open_model(0);
    quip_adapter *adapter;
    const struct tiny_adapter tiny = { .rank = 1, .alpha = 4, .modules = "q_proj, down_proj" };
    check(tiny_adapter_write(folder, model, &tiny, &error), &error);
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", folder);
    char *bytes = read_whole(path, &n);
    tiny_adapter_remove(folder);
    for (size_t i = 1; i < n; i += 1 + n / 500) {
        const quip_source source = {
            .user = bytes, .size = i, .read_at = read_memory, .name = "cut"
        };
        assert_int_not_equal(quip_adapter_open_source(&adapter, model, &source, &error), QUIP_OK);
        assert_null(adapter);
    }
    for (size_t i = 0; i < 600; i++) {
        const quip_source source = {
            .user = bytes, .size = n, .read_at = read_memory, .name = "changed"
        };
        bytes[i] ^= (char)(1 + i % 7);
        if (!quip_adapter_open_source(&adapter, model, &source, &error))
            quip_adapter_close(adapter);
        bytes[i] ^= (char)(1 + i % 7);
    }
    free(bytes);
    quip_model_close(model);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_of_layers),
        cmocka_unit_test(test_fused_modules),
        cmocka_unit_test(test_wrong_merges),
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_mediapipe_files),
        cmocka_unit_test(test_same_everywhere),
        cmocka_unit_test(test_beside_equals_merged),
        cmocka_unit_test(test_alpha),
        cmocka_unit_test(test_switching_runs_the_text_again),
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_switching_in_an_answer),
        cmocka_unit_test(test_what_does_not_fit_is_named),
        cmocka_unit_test(test_wrong_files_and_arguments),
        cmocka_unit_test(test_source),
        cmocka_unit_test(test_broken_files),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("adapter", tests, make_models, remove_models);
}
