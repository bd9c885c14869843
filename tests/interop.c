/* interop.c: model files that MediaPipe's converter wrote (../shared/data/interop/README.md) run,
 * and generate the same text as in MediaPipe's Web engine. */
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "convert/checkpoint.h"
#include "model/families_convert.h"
#include "model/model.h"
#include "support/check.h"
#include "support/gpu.h"
#include "support/shared.h"
#include "support/tensors.h"

#define MAX_IDS 64

static quip_model *open_model(const char *folder)
{
    char name[256];
    quip_error error = { 0 };
    quip_model *model;
    snprintf(name, sizeof name, "data/interop/%s/model.bin", folder);
    need_shared(name);
    check(quip_model_open(&model, shared_path(name), NULL, &error), &error);
    return model;
}

/* ---- weights as floats ---- */

/* MediaPipe's Web engine computes with float activations. Dequantizing our weights to float32 makes
 * our activations float, too, so that their rounding does not decide between two tokens. */
static void widen(struct matrix *m, float **memory, int *n_memory)
{
    if (!m->data || m->dtype == DTYPE_F32)
        return;
    float *rows = calloc((size_t)m->n_out * (size_t)m->n_in, sizeof *rows);
    assert_non_null(rows);
    for (int r = 0; r < m->n_out; r++)
        qp_matrix_read_row(m, r, rows + (size_t)r * (size_t)m->n_in);
    *m = (struct matrix){ .dtype = DTYPE_F32,
                          .n_out = m->n_out,
                          .n_in = m->n_in,
                          .row_bytes = (size_t)m->n_in * sizeof *rows,
                          .data = rows,
                          .bias = m->bias };
    memory[(*n_memory)++] = rows;
}

static int widen_model(quip_model *model, float **memory)
{
    int n = 0;
    struct weights *w = &model->weights;
    const bool is_tied = w->embed.data == w->head.data;
    widen(&w->head, memory, &n);
    if (is_tied)
        w->embed = w->head;
    else
        widen(&w->embed, memory, &n);
    for (int l = 0; l < model->config.n_layers; l++) {
        for (int m = 0; m < N_MATRICES; m++)
            widen(&w->layers[l].m[m], memory, &n);
    }
    w->has_float = true;
    w->has_integer = false;
    return n;
}

/* ---- texts ---- */

/* The likeliest id, and its margin over the second. */
static int likeliest(const float *logits, int n, float *margin)
{
    int best = 0;
    float second = -INFINITY;
    for (int i = 1; i < n; i++)
        if (logits[i] > logits[best]) {
            second = logits[best];
            best = i;
        } else if (logits[i] > second) {
            second = logits[i];
        }
    *margin = logits[best] - second;
    return best;
}

/* Compare the greedy text after bos and the prompt, up to n_context tokens in total, with `want`.
 * The Web engine detokenizes token by token, so each byte of a character appears as U+FFFD. At the
 * first difference, *margin is the margin of the token that differs. */
static void compare_text(quip_model *model, quip_adapter *adapter, const char *prompt,
                         const char *want, int n_context, bool *is_equal, float *margin, size_t *at)
{
    quip_token ids[MAX_IDS] = { model->config.bos };
    quip_error error = { 0 };
    quip_session *s;
    int n;
    *at = 0;
    *is_equal = true;
    check(quip_tokenize(model, prompt, strlen(prompt), false, ids + 1, MAX_IDS - 1, &n, &error),
          &error);
    const quip_session_options options = { .n_context = n_context };
    check(quip_session_open(&s, model, &options, &error), &error);
    check(quip_session_set_adapter(s, adapter, 1, &error), &error);
    check(quip_session_prefill(s, ids, n + 1, &error), &error);
    for (;;) {
        char piece[64];
        size_t n_piece;
        const int id = likeliest(quip_session_logits(s), model->config.vocab_size, margin);
        const bool is_end = id == qp_tokenizer_eos(model->tokenizer);
        check(quip_detokenize(model, &id, 1, piece, sizeof piece, &n_piece, &error), &error);
        if (is_end || quip_session_position(s) == n_context)
            break;
        if (strlen(want) - *at < n_piece || memcmp(want + *at, piece, n_piece)) {
            *is_equal = false;
            break;
        }
        *at += n_piece;
        check(quip_session_prefill(s, &id, 1, &error), &error);
    }
    if (*is_equal && want[*at])
        *is_equal = false;
    quip_session_close(s);
}

/* With `has_adapter`, check the texts with the LoRA file of the folder, else those without it. */
static void check_golden(const char *folder, bool has_adapter, quip_backend backend)
{
    char name[256];
    float *memory[256], margin;
    quip_error error = { 0 };
    quip_adapter *adapter = NULL;
    const cJSON *result;
    snprintf(name, sizeof name, "data/interop/%s/golden.json", folder);
    need_shared(name);
    cJSON *golden = read_json(shared_path(name));
    quip_model *model = open_model(folder);
    const int n_memory = widen_model(model, memory);
    model->options.backend = backend;
    const int n_context =
        cJSON_GetObjectItem(cJSON_GetObjectItem(golden, "settings"), "maxTokens")->valueint;
    snprintf(name, sizeof name, "data/interop/%s/adapter.bin", folder);
    if (has_adapter)
        check(quip_adapter_open(&adapter, model, shared_path(name), &error), &error);
    cJSON_ArrayForEach(result, cJSON_GetObjectItem(golden, "results"))
    {
        const char *prompt = cJSON_GetObjectItem(result, "prompt")->valuestring;
        const cJSON *without = cJSON_GetObjectItem(result, "response_without_lora");
        const char *want =
            (without && !has_adapter ? without : cJSON_GetObjectItem(result, "response"))
                ->valuestring;
        bool is_equal;
        size_t at;
        int n_tokens;
        check(quip_tokenize(model, prompt, strlen(prompt), false, NULL, 0, &n_tokens, &error),
              &error);
        assert_int_equal(n_tokens, cJSON_GetObjectItem(result, "sizeInTokens")->valueint);
        compare_text(model, adapter, prompt, want, n_context, &is_equal, &margin, &at);
        if (is_equal)
            continue;
        print_message(
            "  %s, \"%s\", %s: differs from the expected text after %zu bytes, where the two "
            "best logits differ by %.4f\n",
            folder, prompt, backend == QUIP_BACKEND_GPU ? "gpu" : "cpu", at, (double)margin);
        assert_true(margin < 0.01f);
    }
    quip_adapter_close(adapter);
    quip_model_close(model);
    for (int i = 0; i < n_memory; i++)
        free(memory[i]);
    cJSON_Delete(golden);
}

static void check_texts(quip_backend backend)
{
    static const char *const folders[] = {
        "GEMMA_2B-gpu-q8",      "GEMMA_2B-gpu-q4",     "GEMMA_2B-gpu-a8f4e4", "GEMMA_2B-gpu-a8f4e8",
        "GEMMA_2B-gpu-fp32",    "GEMMA_2B-gpu-q4asym", "GEMMA_2B-gpu-q8asym", "GEMMA2_2B-gpu-q8",
        "GEMMA2_2B-gpu-a8f4e4", "GEMMA_2B-gpu-lora",
    };
    for (size_t i = 0; i < QP_COUNT(folders); i++)
        check_golden(folders[i], false, backend);
    check_golden("GEMMA_2B-gpu-lora", true, backend);
}

static void test_texts_of_the_web_engine(void **state)
{
    (void)state;
    check_texts(QUIP_BACKEND_CPU);
}

static void test_texts_on_the_gpu(void **state)
{
    (void)state;
    if (has_gpu())
        check_texts(QUIP_BACKEND_GPU);
}

/* ---- every file ---- */

static void test_every_file_generates(void **state)
{
    (void)state;
    int n = 0;
    need_shared("data/interop");
    DIR *folder = opendir(shared_path("data/interop"));
    assert_non_null(folder);
    for (struct dirent *entry; (entry = readdir(folder));) {
        if (!strstr(entry->d_name, "-cpu-") && !strstr(entry->d_name, "-gpu-"))
            continue;
        quip_error error = { 0 };
        quip_result result = { .struct_size = sizeof result };
        quip_session *s;
        quip_model *model = open_model(entry->d_name);
        quip_session_options options = { .n_context = 64, .max_output_tokens = 16 };
        check(quip_session_open(&s, model, &options, &error), &error);
        check(quip_session_generate(s, "the quick brown fox", 19, NULL, NULL, &result, &error),
              &error);
        assert_true(result.n_output_tokens > 0);
        quip_session_close(s);
        quip_model_close(model);
        n++;
    }
    closedir(folder);
    assert_true(n >= 37);
}

/* The same checkpoint with the same types in both layouts has the same logits, bit for bit. */
static void test_both_layouts_agree(void **state)
{
    (void)state;
    static const char *const names[] = { "GEMMA_2B-%s-q8",        "GEMMA_2B-%s-q4",
                                         "GEMMA_2B-%s-a8f4e8",    "GEMMA2_2B-%s-a8f4e4",
                                         "PHI_2-%s-q8",           "PHI_2-%s-a8f4e4",
                                         "FALCON_RW_1B-%s-q8",    "FALCON_RW_1B-%s-a8f4e4",
                                         "STABLELM_4E1T_3B-%s-q8" };
    const quip_token ids[] = { 5, 40, 77, 12, 300, 8, 9, 10, 55, 6 };
    for (size_t i = 0; i < QP_COUNT(names); i++) {
        float logits[2][512];
        for (int gpu = 0; gpu < 2; gpu++) {
            char folder[64];
            quip_error error = { 0 };
            quip_session *s;
            snprintf(folder, sizeof folder, names[i], gpu ? "gpu" : "cpu");
            quip_model *model = open_model(folder);
            check(quip_session_open(&s, model, &(quip_session_options){ .n_context = 16 }, &error),
                  &error);
            check(quip_session_prefill(s, ids, QP_COUNT(ids), &error), &error);
            memcpy(logits[gpu], quip_session_logits(s),
                   (size_t)model->config.vocab_size * sizeof(float));
            quip_session_close(s);
            quip_model_close(model);
        }
        assert_memory_equal(logits[0], logits[1], 320 * sizeof(float));
    }
}

/* ---- weights and their checkpoint ---- */

static const struct {
    const char *name; // prefix of the file names, and name of the folder in sources/
    enum family_id family;
} model_types[] = {
    { "GEMMA_2B", FAMILY_GEMMA },
    { "GEMMA2_2B", FAMILY_GEMMA2 },
    { "PHI_2", FAMILY_PHI2 },
    { "FALCON_RW_1B", FAMILY_FALCON },
    { "STABLELM_4E1T_3B", FAMILY_STABLELM },
};

struct source {
    struct file file;
    struct format format;
};

/* The largest difference of an element from the checkpoint, in units of what the format allows:
 * half a step of the integers, half a unit in the last digit of binary16, nothing for float32. */
static float worst_element(const struct matrix *m, const struct tensor_row *row, const float *want,
                           int head_dim, bool is_gpu)
{
    float worst = 0;
    float *got = calloc((size_t)m->n_in, sizeof *got);
    assert_non_null(got);
    for (int r = 0; r < m->n_out; r++) {
        const int head = r / head_dim;
        const int from = row->part == PART_ALL
                             ? r
                             : (3 * head + (int)row->part - PART_Q) * head_dim + r % head_dim;
        qp_matrix_read_row(m, r, got);
        for (int i = 0; i < m->n_in; i++) {
            const float w = want[(size_t)from * (size_t)m->n_in + (size_t)i];
            const float step = m->dtype != DTYPE_F32 ? m->scales[r] / 2
                               : is_gpu              ? fabsf(w) * 0x1p-11f + 0x1p-25f
                                                     : 0;
            const float off = fabsf(got[i] - w);
            const float relative = off == 0 ? 0 : off / step;
            if (!(relative <= worst))
                worst = relative;
        }
    }
    free(got);
    return worst;
}

/* Compare every matrix of a file. Returns the number of matrices. */
static int compare_weights(const char *folder, enum family_id family, const struct source *source,
                           float *worst)
{
    quip_model *model = open_model(folder);
    int n = 0;
    for (int i = 0; i < qp_n_tensor_rows; i++) {
        const struct tensor_row *row = &qp_tensor_rows[i];
        const bool is_tied = family == FAMILY_GEMMA || family == FAMILY_GEMMA2;
        if (!family_has_row(i, qp_family(family), is_tied) || row->cols == EXTENT_NONE)
            continue;
        const int n_layers = qp_tensor_row_is_layered(row) ? model->config.n_layers : 1;
        for (int l = 0; l < n_layers; l++) {
            char name[200] = "params.lm.", hf[200];
            quip_error error = { 0 };
            snprintf(name + strlen(name), sizeof name - strlen(name), row->target, l);
            snprintf(hf, sizeof hf, row->hf, l);
            const struct matrix *m = qp_weights_find(model, name);
            const struct tensor *t = qp_format_find(&source->format, hf);
            assert_non_null(m);
            assert_non_null(t);
            const size_t n_values = (size_t)(t->dims[0] * t->dims[1]);
            float *want = calloc(n_values, sizeof *want);
            assert_non_null(want);
            check(qp_format_read_f32(&source->format, t, 0, n_values, want, &error), &error);
            const float found = worst_element(m, row, want, model->config.head_dim,
                                              strstr(folder, "-gpu-") != NULL);
            if (!(found <= *worst))
                *worst = found;
            free(want);
            n++;
        }
    }
    quip_model_close(model);
    return n;
}

/* `quip inspect --tensor` writes these rows. */
static void test_weights_are_the_checkpoints(void **state)
{
    (void)state;
    int n_files = 0;
    for (size_t i = 0; i < QP_COUNT(model_types); i++) {
        char name[256];
        quip_error error = { 0 };
        struct source source = { 0 };
        snprintf(name, sizeof name, "data/interop/sources/%s/model.safetensors",
                 model_types[i].name);
        need_shared(name);
        check(qp_file_open(&source.file, shared_path(name), &error), &error);
        check(qp_format_open(&source.format, &source.file, &error), &error);
        DIR *folder = opendir(shared_path("data/interop"));
        assert_non_null(folder);
        for (struct dirent *entry; (entry = readdir(folder));) {
            const size_t n = strlen(model_types[i].name);
            float worst = 0;
            if (strncmp(entry->d_name, model_types[i].name, n) ||
                (strncmp(entry->d_name + n, "-cpu-", 5) && strncmp(entry->d_name + n, "-gpu-", 5)))
                continue;
            const int n_matrices =
                compare_weights(entry->d_name, model_types[i].family, &source, &worst);
            // MediaPipe's CPU files cannot store the zero points of asymmetric weights
            const bool lost = strstr(entry->d_name, "-cpu-") && strstr(entry->d_name, "asym");
            print_message("  %-28s %2d matrices, at most %.6f half steps off%s\n", entry->d_name,
                          n_matrices, (double)worst, lost ? ": its zero points are lost" : "");
            assert_true(n_matrices > 0);
            assert_true(lost ? worst > 2 : worst <= 1.0001f);
            n_files++;
        }
        closedir(folder);
        qp_format_close(&source.format);
        qp_file_close(&source.file);
    }
    assert_true(n_files >= 37);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_file_generates),
        cmocka_unit_test(test_both_layouts_agree),
        cmocka_unit_test(test_weights_are_the_checkpoints),
        cmocka_unit_test(test_texts_of_the_web_engine),
        cmocka_unit_test(test_texts_on_the_gpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
