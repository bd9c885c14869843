/* golden2.c (test): see golden2.h */
#include "support/golden2.h"

#include "convert/convert.h"
#include "engine/engine.h"
#include "model/model.h"
#include "support/check.h"
#include "support/shared.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum {
    MAX_IDS = 128,
    LONG_CONTEXT = 128
};

/* ---- files ---- */

/* The path of a file of a fixture; valid for a few calls. */
static const char *fixture_path(const struct fixture *f, const char *file)
{
    char name[300];
    snprintf(name, sizeof name, "data/golden-2/%s%s%s", f->name, file[0] ? "/" : "", file);
    return shared_path(name);
}

static void need_fixture(const struct fixture *f)
{
    char name[200];
    snprintf(name, sizeof name, "data/golden-2/%s", f->name);
    need_shared(name);
}

static quip_model *convert_and_open(const char *path, const char *out, enum convert_weights weights)
{
    const struct convert_options options = { .weights = weights };
    quip_error error = { 0 };
    quip_model *model;
    check(qp_convert(path, out, &options, &error), &error);
    check(quip_model_open(&model, out, NULL, &error), &error);
    unlink(out);
    return model;
}

static void run_command(const char *format, ...)
{
    char command[4000];
    va_list args;
    va_start(args, format);
    assert_in_range(vsnprintf(command, sizeof command, format, args), 1, sizeof command - 1);
    va_end(args);
    assert_int_equal(system(command), 0);
}

/* A folder with the files of the fixture, but config_v5.json as config.json. */
static void make_v5_folder(const struct fixture *f, const char *folder)
{
    run_command("rm -rf '%s' && mkdir '%s'", folder, folder);
    run_command("cp -r '%s'/* '%s'", fixture_path(f, ""), folder);
    run_command("mv '%s/config_v5.json' '%s/config.json'", folder, folder);
}

static void drop_v5_folder(const char *folder)
{
    run_command("rm -r '%s'", folder);
}

quip_model *open_fixture(const struct fixture *f, enum layout layout)
{
    char out[100], folder[100];
    need_fixture(f);
    snprintf(out, sizeof out, "golden2-%s-%d.bin", f->name, (int)getpid());
    if (layout == LAYOUT_PUBLISHED)
        return convert_and_open(fixture_path(f, ""), out, CONVERT_F32);
    snprintf(folder, sizeof folder, "golden2-%s-%d", f->name, (int)getpid());
    make_v5_folder(f, folder);
    quip_model *model = convert_and_open(folder, out, CONVERT_F32);
    drop_v5_folder(folder);
    return model;
}

quip_model *open_fixture_gguf(const struct fixture *f)
{
    char out[100];
    need_fixture(f);
    snprintf(out, sizeof out, "golden2-%s-gguf-%d.bin", f->name, (int)getpid());
    return convert_and_open(fixture_path(f, "gguf/model.gguf"), out, CONVERT_F32);
}

void check_layouts(const struct fixture *f)
{
    char folder[100], a[120], b[120];
    const struct convert_options options = { .weights = CONVERT_INT8 };
    quip_error error = { 0 };
    size_t n_a, n_b;
    need_fixture(f);
    snprintf(folder, sizeof folder, "golden2-%s-%d", f->name, (int)getpid());
    snprintf(a, sizeof a, "%s-a.bin", folder);
    snprintf(b, sizeof b, "%s-b.bin", folder);
    make_v5_folder(f, folder);
    check(qp_convert(fixture_path(f, ""), a, &options, &error), &error);
    check(qp_convert(folder, b, &options, &error), &error);
    drop_v5_folder(folder);
    char *x = read_whole(a, &n_a), *y = read_whole(b, &n_b);
    unlink(a);
    unlink(b);
    if (n_a != n_b || memcmp(x, y, n_a) != 0)
        fail_msg("%s: config.json and config_v5.json become different model files", f->name);
    free(x);
    free(y);
}

/* ---- which layer differs first ---- */

struct trace {
    const float *want; // [n_layers + 1, n_rows, d_model]
    int n_rows, next;  // the layer that is entered next
    float *rows;       // [n_rows, d_model]
};

/* Print the difference of the residual stream that enters a layer, and of the last norm. */
static quip_status print_difference(void *user, struct device *d, struct matrix_set w,
                                    enum buffer in, int n_rows)
{
    struct trace *t = user;
    const struct backend *b = d->backend;
    const size_t n = (size_t)t->n_rows * (size_t)d->config->d_model;
    const bool is_head = w.l == d->config->n_layers;
    float worst = 0;
    (void)in;
    if (w.l < t->next || n_rows != t->n_rows)
        return QUIP_OK;
    t->next = w.l + 1;
    quip_status status = b->submit(d);
    if (!status)
        status = b->poll(d, true);
    if (!status)
        status = b->read(d, is_head ? BUF_XN : BUF_X, t->rows, n_rows);
    for (size_t i = 0; i < n && !status; i++)
        worst = fmaxf(worst, fabsf(t->rows[i] - t->want[(size_t)w.l * n + i]));
    printf("    %s %d: the stream differs by %.2g\n", is_head ? "norm after layer" : "before layer",
           is_head ? w.l - 1 : w.l, (double)worst);
    return status;
}

static bool ignore_row(void *user, int position, const float *logits)
{
    (void)user, (void)position, (void)logits;
    return true;
}

static void print_trace(const struct fixture *f, quip_model *model)
{
    quip_error error = { 0 };
    quip_session *s;
    size_t n_bytes;
    int ids[MAX_IDS];
    cJSON *expected = read_json(fixture_path(f, "expected.json"));
    const cJSON *prompt = cJSON_GetObjectItem(cJSON_GetObjectItem(expected, "prompts"), "short");
    const int n = json_ids(cJSON_GetObjectItem(prompt, "ids"), ids, MAX_IDS);
    char *want = read_whole(fixture_path(f, "trace_short.f32"), &n_bytes);
    struct trace trace = { .want = (const float *)(const void *)want, .n_rows = n };
    const struct observer observer = { print_difference, &trace };
    trace.rows = calloc((size_t)n * (size_t)model->config.d_model, sizeof *trace.rows);
    assert_non_null(trace.rows);
    check(quip_session_open(&s, model, &(quip_session_options){ .n_context = 32 }, &error), &error);
    s->observer = &observer;
    check(quip_session_prefill_logits(s, ids, n, ignore_row, NULL, &error), &error);
    s->observer = NULL;
    quip_session_close(s);
    free(trace.rows);
    free(want);
    cJSON_Delete(expected);
}

/* ---- one run ---- */

/* A prompt with one setting, and what the reference computes. */
struct run {
    const struct fixture *fixture;
    const char *title, *folder; // folder of the logits file, inside the fixture
    quip_model *model;
    quip_adapter *adapter;
    int n_context;
    int ids[MAX_IDS], n;
    int greedy[MAX_IDS], n_greedy;
    const char *logits_file; // NULL: only the greedy tokens are known
};

struct row_comparison {
    const float *want;
    int vocab_size;
    float worst;
    double squares; // of all differences
};

static bool compare_logits(void *user, int position, const float *logits)
{
    struct row_comparison *c = user;
    const float *want = c->want + (size_t)position * (size_t)c->vocab_size;
    for (int i = 0; i < c->vocab_size; i++) {
        const float difference = fabsf(logits[i] - want[i]);
        c->squares += (double)difference * (double)difference;
        if (!(difference <= c->worst)) // also if it is NaN
            c->worst = difference;
    }
    return true;
}

static quip_session *open_run(const struct run *r)
{
    quip_error error = { 0 };
    quip_session *s;
    const quip_session_options options = { .n_context = r->n_context };
    check(quip_session_open(&s, r->model, &options, &error), &error);
    check(quip_session_set_adapter(s, r->adapter, 1, &error), &error);
    return s;
}

/* The largest difference of a logit, and in *rms the root mean square of all. */
static float run_difference(const struct run *r, quip_session *s, double *rms)
{
    char file[200];
    size_t n_bytes;
    quip_error error = { 0 };
    const int vocab_size = r->model->config.vocab_size;
    snprintf(file, sizeof file, "%s%s", r->folder, r->logits_file);
    char *want = read_whole(fixture_path(r->fixture, file), &n_bytes);
    assert_int_equal(n_bytes, (size_t)r->n * (size_t)vocab_size * sizeof(float));
    struct row_comparison c = { (const float *)(const void *)want, vocab_size, 0, 0 };
    check(quip_session_prefill_logits(s, r->ids, r->n, compare_logits, &c, &error), &error);
    free(want);
    *rms = sqrt(c.squares / ((double)r->n * vocab_size));
    return c.worst;
}

/* After the prompt: the greedy tokens, as many as the context holds. */
static void check_greedy(const struct run *r, quip_session *s)
{
    quip_error error = { 0 };
    for (int i = 0; i < r->n_greedy && r->n + i < r->n_context; i++) {
        const float *logits = quip_session_logits(s);
        int best = 0;
        for (int j = 1; j < r->model->config.vocab_size; j++)
            if (logits[j] > logits[best])
                best = j;
        if (best != r->greedy[i])
            fail_msg("%s/%s: greedy token %d is %d, expected %d", r->fixture->name, r->title, i,
                     best, r->greedy[i]);
        check(quip_session_prefill(s, &best, 1, &error), &error);
    }
}

/* The logits after the prompt have the same bits if it is run in pieces, and after going back. */
static void check_division(const struct run *r, quip_session *s)
{
    quip_error error = { 0 };
    const size_t n_bytes = (size_t)r->model->config.vocab_size * sizeof(float);
    float *want = malloc(n_bytes);
    assert_non_null(want);
    memcpy(want, quip_session_logits(s), n_bytes);
    static const int steps[] = { 1, 3, 7 };
    for (size_t k = 0; k < QP_COUNT(steps); k++) {
        quip_session *other = open_run(r);
        for (int i = 0; i < r->n; i += steps[k])
            check(quip_session_prefill(other, r->ids + i, qp_min(steps[k], r->n - i), &error),
                  &error);
        assert_memory_equal(want, quip_session_logits(other), n_bytes);
        check(quip_session_rewind(other, r->n / 2, &error), &error);
        check(quip_session_prefill(other, r->ids + r->n / 2, r->n - r->n / 2, &error), &error);
        assert_memory_equal(want, quip_session_logits(other), n_bytes);
        quip_session_close(other);
    }
    free(want);
}

static void check_run(const struct run *r)
{
    const float tolerance = r->fixture->tolerance > 0 ? r->fixture->tolerance : GOLDEN2_TOLERANCE;
    quip_error error = { 0 };
    quip_session *s = open_run(r);
    if (r->logits_file) {
        double rms;
        const float worst = run_difference(r, s, &rms);
        printf("  %s/%s: %d tokens, largest difference %.2g\n", r->fixture->name, r->title, r->n,
               (double)worst);
        if (!(worst <= tolerance)) {
            if (!r->adapter && !r->folder[0])
                print_trace(r->fixture, r->model);
            fail_msg("%s/%s: logits differ by %g, at most %g is allowed", r->fixture->name,
                     r->title, (double)worst, (double)tolerance);
        }
    } else {
        check(quip_session_prefill(s, r->ids, r->n, &error), &error);
    }
    check_division(r, s);
    check_greedy(r, s);
    quip_session_close(s);
}

/* ---- prompts ---- */

/* The run that `values`, a prompt or its long_factors, describes. */
static void check_values(struct run *r, const cJSON *values, int n_context)
{
    r->logits_file = cJSON_GetStringValue(cJSON_GetObjectItem(values, "logits_file"));
    const cJSON *greedy = cJSON_GetObjectItem(values, "greedy_ids");
    r->n_greedy = greedy ? json_ids(greedy, r->greedy, MAX_IDS) : 0;
    r->n_context = n_context;
    check_run(r);
}

static void check_prompts(struct run *r)
{
    char file[200];
    const struct fixture *f = r->fixture;
    const cJSON *prompt;
    snprintf(file, sizeof file, "%sexpected.json", r->folder);
    cJSON *expected = read_json(fixture_path(f, file));
    cJSON_ArrayForEach(prompt, cJSON_GetObjectItem(expected, "prompts"))
    {
        const cJSON *long_factors = cJSON_GetObjectItem(prompt, "long_factors");
        r->n = json_ids(cJSON_GetObjectItem(prompt, "ids"), r->ids, MAX_IDS);
        r->title = prompt->string;
        const bool is_short = f->has_long_factors && r->n <= f->n_short_context;
        check_values(r, prompt, is_short ? f->n_short_context : LONG_CONTEXT);
        if (long_factors)
            check_values(r, long_factors, LONG_CONTEXT);
    }
    cJSON_Delete(expected);
}

void check_fixture(const struct fixture *f, quip_model *model)
{
    struct run run = { .fixture = f, .folder = "", .model = model };
    check_prompts(&run);
}

void check_fixture_gguf(const struct fixture *f, quip_model *model)
{
    struct run run = { .fixture = f, .folder = "gguf/", .model = model };
    check_prompts(&run);
}

void check_fixture_lora(const struct fixture *f, quip_model *model)
{
    struct run run = { .fixture = f, .folder = "lora_all/", .model = model };
    quip_error error = { 0 };
    check(quip_adapter_open(&run.adapter, model, fixture_path(f, "lora_all"), &error), &error);
    check_prompts(&run);
    quip_adapter_close(run.adapter);
}

/* The difference of the main prompt. */
static float main_difference(const struct fixture *f, quip_model *model, double *rms)
{
    struct run run = { .fixture = f, .folder = "", .model = model };
    cJSON *expected = read_json(fixture_path(f, "expected.json"));
    const cJSON *prompt = cJSON_GetObjectItem(cJSON_GetObjectItem(expected, "prompts"), "main");
    run.n = json_ids(cJSON_GetObjectItem(prompt, "ids"), run.ids, MAX_IDS);
    run.logits_file = "logits.f32";
    run.n_context = f->has_long_factors ? f->n_short_context : LONG_CONTEXT;
    quip_session *s = open_run(&run);
    const float worst = run_difference(&run, s, rms);
    quip_session_close(s);
    cJSON_Delete(expected);
    return worst;
}

float fixture_difference(const struct fixture *f, quip_model *model)
{
    double rms;
    return main_difference(f, model, &rms);
}

void check_fixture_int8(const struct fixture *f)
{
    const float allowed = f->int8_rms > 0 ? f->int8_rms : GOLDEN2_INT8_RMS;
    char out[100];
    double rms;
    need_fixture(f);
    snprintf(out, sizeof out, "golden2-%s-int8-%d.bin", f->name, (int)getpid());
    quip_model *model = convert_and_open(fixture_path(f, ""), out, CONVERT_INT8);
    main_difference(f, model, &rms);
    printf("  %s with int8 weights: root mean square difference %.3f\n", f->name, rms);
    if (!(rms <= (double)allowed))
        fail_msg("%s with int8 weights: logits differ by %g (rms), at most %g is allowed", f->name,
                 rms, (double)allowed);
    quip_model_close(model);
}

/* The logits of the main prompt with int8 weights, in a file for CPUs or for GPUs. */
static float *logits_of_file(const struct fixture *f, bool for_gpu, int *n_floats)
{
    const struct convert_options options = { .for_gpu = for_gpu };
    struct run run = { .fixture = f, .folder = "" };
    char out[100];
    quip_error error = { 0 };
    snprintf(out, sizeof out, "golden2-%s-gpu-%d.bin", f->name, (int)getpid());
    check(qp_convert(fixture_path(f, ""), out, &options, &error), &error);
    check(quip_model_open(&run.model, out, NULL, &error), &error);
    unlink(out);
    cJSON *expected = read_json(fixture_path(f, "expected.json"));
    const cJSON *prompt = cJSON_GetObjectItem(cJSON_GetObjectItem(expected, "prompts"), "main");
    run.n = json_ids(cJSON_GetObjectItem(prompt, "ids"), run.ids, MAX_IDS);
    run.n_context = LONG_CONTEXT;
    quip_session *s = open_run(&run);
    check(quip_session_prefill(s, run.ids, run.n, &error), &error);
    *n_floats = run.model->config.vocab_size;
    float *logits = malloc((size_t)*n_floats * sizeof *logits);
    assert_non_null(logits);
    memcpy(logits, quip_session_logits(s), (size_t)*n_floats * sizeof *logits);
    quip_session_close(s);
    quip_model_close(run.model);
    cJSON_Delete(expected);
    return logits;
}

void check_fixture_gpu(const struct fixture *f)
{
    int n_cpu, n_gpu;
    need_fixture(f);
    float *cpu = logits_of_file(f, false, &n_cpu), *gpu = logits_of_file(f, true, &n_gpu);
    assert_int_equal(n_cpu, n_gpu);
    if (memcmp(cpu, gpu, (size_t)n_cpu * sizeof *cpu) != 0)
        fail_msg("%s: a file for GPUs has other logits than one for CPUs", f->name);
    free(cpu);
    free(gpu);
}

void check_fixture_without_gpu(const struct fixture *f, const char *message)
{
    const struct convert_options options = { .for_gpu = true };
    quip_error error = { 0 };
    need_fixture(f);
    assert_int_not_equal(
        qp_convert(fixture_path(f, ""), "golden2-gpu-refused.bin", &options, &error), 0);
    if (!strstr(error.message, message))
        fail_msg("%s: \"%s\" is not in \"%s\"", f->name, message, error.message);
}
