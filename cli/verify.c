/* verify.c: compares a model file with another one, or with the checkpoint that it was converted
 * from. */
#include "cli.h"
#include "convert/convert.h"

#include <string.h>

#define N_WORST 5 // rows without --verbose

static void print_row(const struct verify_tensor *t)
{
    char shape[48];
    const char *name = strncmp(t->name, "params.lm.", 10) == 0 ? t->name + 10 : t->name;
    if (t->rows == 1)
        snprintf(shape, sizeof shape, "%lld", (long long)t->cols);
    else
        snprintf(shape, sizeof shape, "%lld x %lld", (long long)t->rows, (long long)t->cols);
    printf("%-64s %14s %9.2e %9.2e %9.2e %9.6f\n", name, shape, t->max, t->rms, t->relative,
           t->cosine);
}

/* The tensor that differs most, after `last` or NULL; NULL if none is left. */
static const struct verify_tensor *next_worst(const struct verify_report *r,
                                              const struct verify_tensor *last)
{
    const struct verify_tensor *worst = NULL;
    for (int i = 0; i < r->n_tensors; i++) {
        const struct verify_tensor *t = &r->tensors[i];
        const bool is_left =
            !last || t->relative < last->relative || (t->relative == last->relative && t > last);
        if (is_left && t->max > 0 && (!worst || t->relative > worst->relative))
            worst = t;
    }
    return worst;
}

/* What matters first; then every tensor, or those that differ most. */
static void print_report(const struct verify_report *r, bool is_verbose)
{
    int n_differ = 0;
    for (int i = 0; i < r->n_tensors; i++)
        n_differ += r->tensors[i].max > 0;
    printf("all matrices: relative error %.3e; %d of %d tensors differ\n", r->relative, n_differ,
           r->n_tensors);
    if (r->n_tokens)
        printf("text: KL divergence %.5f (at most %.4f), same most likely token %.2f %%, over %d "
               "tokens\n",
               r->mean_kl, r->max_kl, 100.0 * r->n_same / r->n_tokens, r->n_tokens);
    if (!is_verbose && !n_differ)
        return;
    printf("\n%-64s %14s %9s %9s %9s %9s\n", "tensor", "shape", "max", "rms", "relative", "cosine");
    for (int i = 0; is_verbose && i < r->n_tensors; i++)
        print_row(&r->tensors[i]);
    if (is_verbose)
        return;
    const struct verify_tensor *t = NULL;
    for (int i = 0; i < N_WORST && (t = next_worst(r, t)); i++)
        print_row(t);
    if (n_differ > N_WORST)
        printf("%d more differ less; --verbose prints all\n", n_differ - N_WORST);
}

static int print_report_json(const struct verify_report *r)
{
    cJSON *json = cJSON_CreateObject();
    cJSON *tensors = cJSON_AddArrayToObject(json, "tensors");
    for (int i = 0; i < r->n_tensors; i++) {
        const struct verify_tensor *t = &r->tensors[i];
        cJSON *item = cJSON_CreateObject();
        cJSON_AddStringToObject(item, "name", t->name);
        cJSON_AddNumberToObject(item, "rows", (double)t->rows);
        cJSON_AddNumberToObject(item, "cols", (double)t->cols);
        cJSON_AddNumberToObject(item, "max", t->max);
        cJSON_AddNumberToObject(item, "rms", t->rms);
        cJSON_AddNumberToObject(item, "relative", t->relative);
        cJSON_AddNumberToObject(item, "cosine", t->cosine);
        cJSON_AddItemToArray(tensors, item);
    }
    cJSON_AddNumberToObject(json, "relative", r->relative);
    if (r->n_tokens) {
        cJSON *text = cJSON_AddObjectToObject(json, "text");
        cJSON_AddNumberToObject(text, "tokens", r->n_tokens);
        cJSON_AddNumberToObject(text, "mean_kl", r->mean_kl);
        cJSON_AddNumberToObject(text, "max_kl", r->max_kl);
        cJSON_AddNumberToObject(text, "top1_agreement", (double)r->n_same / r->n_tokens);
    }
    return print_json(json);
}

int run_verify(const struct command *command, char **words)
{
    struct convert_options reading = { 0 };
    struct verify_options o = { .reading = &reading };
    bool is_json = false, is_verbose = false;
    const struct option options[] = {
        { OPTION_TEXT, 0, "text", "FILE", &o.text, 0, 0, "also compare the logits on this text" },
        { OPTION_INT, 0, "window", "N", &o.window, 2, 1 << 20, "tokens in a window; default 512" },
        { OPTION_INT, 0, "windows", "N", &o.n_windows, 1, INT32_MAX,
          "use the first N windows; default 4" },
        { OPTION_TEXT, 0, "model-type", "TYPE", &reading.model_type, 0, 0, "as for convert" },
        { OPTION_TEXT, 0, "format", "NAME", &reading.format, 0, 0, "as for convert" },
        { OPTION_TEXT, 0, "tokenizer", "PATH", &reading.tokenizer, 0, 0, "as for convert" },
        { OPTION_TEXT, 0, "merge-adapter", "FOLDER", &reading.merge_adapter, 0, 0,
          "as for convert" },
        { OPTION_FLAG, 'v', "verbose", NULL, &is_verbose, 0, 0,
          "print all tensors, not only those that differ most" },
        { OPTION_FLAG, 0, "json", NULL, &is_json, 0, 0, "print a JSON object with all tensors" },
        { 0 },
    };
    int exit_code;
    if (parse_options(command, options, words, 2, 2, &exit_code) < 0)
        return exit_code;
    quip_error error = { 0 };
    struct verify_report report;
    struct progress progress;
    o.on_progress = show_progress;
    o.user = &progress;
    begin_progress(&progress, NULL, false, false);
    const quip_status status = qp_verify(words[0], words[1], &o, &report, &error);
    end_progress(&progress);
    if (status)
        return fail_with(&error);
    if (is_json)
        exit_code = print_report_json(&report);
    else
        print_report(&report, is_verbose);
    qp_verify_report_close(&report);
    return is_json ? exit_code : 0;
}
