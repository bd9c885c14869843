/* inspect.c: shows what a file contains: kind, model, memory plan, metadata and tensors. It also
 * writes one tensor as float32. */
#include "cli.h"
#include "convert/convert.h"
#include "format/bundle.h"
#include "format/format.h"
#include "format/zip.h"
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

/* A file, and what the library reports if it is a model that this build runs. */
struct inspected {
    const char *path;
    struct file file;
    struct bundle bundle;
    struct zip zip;       // entries of a bundle
    struct format format; // of the file, or of the bundle's model
    bool is_bundle, is_model;
    quip_model_info info;
    quip_plan plan;
    quip_model *model;  // owns the strings of `info`
    quip_error problem; // why the model does not run
};

static const char *const kind_names[] = {
    [FORMAT_TFLITE] = "tflite",           [FORMAT_GGUF] = "gguf",
    [FORMAT_SAFETENSORS] = "safetensors", [FORMAT_LITERTLM] = "litertlm",
    [FORMAT_PYTORCH] = "pytorch",
};

static void close_inspected(struct inspected *x)
{
    quip_model_close(x->model);
    qp_format_close(&x->format);
    qp_bundle_close(&x->bundle);
    qp_zip_close(&x->zip);
    qp_file_close(&x->file);
}

/* A PyTorch checkpoint is a ZIP archive too. */
static bool is_pytorch(const struct file *file)
{
    struct zip zip;
    bool found = false;
    if (qp_zip_open(&zip, file, NULL))
        return false;
    for (int i = 0; i < zip.n_entries; i++)
        found = found || strcmp(zip.entries[i].name, "data.pkl") == 0 ||
                strstr(zip.entries[i].name, "/data.pkl");
    qp_zip_close(&zip);
    return found;
}

static quip_status open_inspected(struct inspected *x, int n_context, quip_error *error)
{
    quip_status status = qp_file_open(&x->file, x->path, error);
    if (!status && qp_bundle_matches(&x->file) && !is_pytorch(&x->file)) {
        x->is_bundle = true;
        if ((status = qp_zip_open(&x->zip, &x->file, error)) ||
            (status = qp_bundle_open(&x->bundle, &x->file, error)))
            return status;
    }
    if (!status)
        status = qp_format_open_with(&x->format, x->is_bundle ? &x->bundle.model : &x->file,
                                     &qp_pytorch_reader, error);
    if (status || x->format.kind != FORMAT_TFLITE)
        return status;
    quip_session_options options = { .n_context = n_context };
    x->info.struct_size = sizeof x->info;
    x->plan.struct_size = sizeof x->plan;
    x->is_model =
        !quip_model_open(&x->model, x->path, &(quip_model_options){ .backend = QUIP_BACKEND_CPU },
                         &x->problem) &&
        !quip_model_get_info(x->model, &x->info, &x->problem) &&
        !quip_model_plan(x->model, &options, &x->plan, &x->problem);
    without_controls(x->problem.message);
    return QUIP_OK;
}

/* The text of an entry if it is short and printable, else NULL. */
static const char *metadata_text(struct inspected *x, const struct metadata *m, size_t *n)
{
    const uint8_t *data;
    if (m->type != METADATA_BYTES || m->n_bytes > 4096 ||
        qp_format_bytes(&x->format, m, &data, n, NULL))
        return NULL;
    const char *text = (const char *)data;
    for (size_t i = 0; i < *n;) {
        int32_t c;
        i += (size_t)qp_utf8_decode(text + i, *n - i, &c);
        if (c < 0 || (c < 0x20 && c != '\n' && c != '\t') || (c >= 0x7f && c < 0xa0))
            return NULL;
    }
    return text;
}

/* ---- as text ---- */

static void print_model(const struct inspected *x)
{
    char n[4][24];
    if (!x->is_model) {
        printf("  does not run: %s\n", x->problem.message);
        return;
    }
    const quip_model_info *i = &x->info;
    printf("  architecture  %s, %s, %.1f million parameters%s\n", i->architecture, i->weights,
           (double)i->n_parameters * 1e-6, i->has_template ? ", with a chat template" : "");
    printf("  sizes         %d layers, d_model %d, d_ff %d, %d heads, %d KV heads, head_dim %d, "
           "vocabulary %d\n",
           i->n_layers, i->d_model, i->d_ff, i->n_heads, i->n_kv_heads, i->head_dim, i->vocab_size);
    if (i->n_experts)
        printf("  experts       %d, of which a token uses %d: %.1f million parameters\n",
               i->n_experts, i->n_experts_used, (double)i->n_active_parameters * 1e-6);
    if (i->n_context_max)
        printf("  trained for   %d positions\n", i->n_context_max);
    if (!i->is_embedding)
        print_draws(i);
    printf("  memory        %s mapped file; with a context of %d tokens: %s keys and values, "
           "%s scratch, %s model\n",
           human_bytes(n[0], x->plan.file_bytes), x->plan.n_context,
           human_bytes(n[1], x->plan.kv_bytes), human_bytes(n[2], x->plan.scratch_bytes),
           human_bytes(n[3], x->plan.model_bytes));
    if (x->plan.lookup_bytes)
        printf("                %s of the file are embeddings of which each token reads one row\n",
               human_bytes(n[0], x->plan.lookup_bytes));
}

/* Print a name from the file, in a column. */
static void print_name(const char *name, int width)
{
    char text[512];
    snprintf(text, sizeof text, "%s", name);
    printf("  %-*s ", width, without_controls(text));
}

static bool is_parameters(const struct metadata *m)
{
    return strcmp(m->name, "odml.infra.proto.LlmParameters") == 0;
}

/* Print lines of "key value": quip.config, quip.verify. */
static void print_lines(const char *text, size_t n)
{
    while (n > 0) {
        const char *end = memchr(text, '\n', n);
        const size_t n_line = end ? (size_t)(end - text) : n;
        printf("    %.*s\n", (int)n_line, text);
        text += n_line + (end != NULL);
        n -= n_line + (end != NULL);
    }
}

static void print_metadata(struct inspected *x, const struct metadata *m)
{
    size_t n = 0;
    const char *text = metadata_text(x, m, &n);
    print_name(m->name, 40);
    if (m->type == METADATA_INT)
        printf("%lld\n", (long long)m->i);
    else if (m->type == METADATA_FLOAT)
        printf("%g\n", m->f);
    else if (m->type == METADATA_ARRAY)
        printf("%llu items\n", (unsigned long long)m->n_items);
    else if (text && n <= 120 && !memchr(text, '\n', n))
        printf("\"%.*s\"\n", (int)n, text);
    else
        printf("%llu bytes%s\n", (unsigned long long)m->n_bytes, text ? " of text" : "");
    if (text && strncmp(m->name, "quip.", 5) == 0)
        print_lines(text, n);
    const uint8_t *data;
    if (is_parameters(m) && !qp_format_bytes(&x->format, m, &data, &n, NULL))
        print_parameters(data, n, 4);
}

static void print_bundle(const struct inspected *x)
{
    printf("\nentries: %d\n", x->zip.n_entries);
    for (int i = 0; i < x->zip.n_entries; i++) {
        print_name(x->zip.entries[i].name, 40);
        printf("%llu bytes at %llu\n", (unsigned long long)x->zip.entries[i].n_bytes,
               (unsigned long long)x->zip.entries[i].offset);
    }
    printf("\n%s\n", BUNDLE_METADATA);
    print_parameters(x->bundle.metadata.data, (size_t)x->bundle.metadata.size, 2);
}

static const char *type_name(const struct tensor *t)
{
    return t->type_name ? t->type_name : qp_dtype_name(t->dtype);
}

static void print_tensor(const struct tensor *t)
{
    char shape[96] = "";
    for (int d = 0, n = 0; d < t->n_dims; d++)
        n += snprintf(shape + n, sizeof(shape) - (size_t)n, d ? ", %lld" : "%lld",
                      (long long)t->dims[d]);
    print_name(t->name, 64);
    printf("%-5s [%s]\n", type_name(t), shape);
}

static int print_all(struct inspected *x)
{
    const struct format *f = &x->format;
    char size[24], title[128];
    snprintf(title, sizeof title, "%s%s%s%s", x->is_bundle ? "bundle of " : "", kind_names[f->kind],
             f->subgraph_name ? " " : "", f->subgraph_name ? f->subgraph_name : "");
    printf("%s: %s, %s\n", x->path, without_controls(title), human_bytes(size, x->file.size));
    if (f->kind == FORMAT_TFLITE)
        print_model(x);
    if (x->is_bundle)
        print_bundle(x);
    printf("\nmetadata: %d\n", f->n_metadata);
    for (int i = 0; i < f->n_metadata; i++)
        print_metadata(x, &f->metadata[i]);
    printf("\ntensors: %d\n", f->n_tensors);
    for (int i = 0; i < f->n_tensors; i++)
        print_tensor(&f->tensors[i]);
    return close_output(stdout, "-") ? 0 : EXIT_FAILED;
}

/* ---- as JSON ---- */

static void json_model(cJSON *json, const struct inspected *x)
{
    const quip_model_info *i = &x->info;
    const quip_plan *p = &x->plan;
    const struct {
        const char *name;
        double value;
    } properties[] = {
        { "n_parameters", (double)i->n_parameters },
        { "n_active_parameters", (double)i->n_active_parameters },
        { "n_experts", i->n_experts },
        { "n_experts_used", i->n_experts_used },
        { "n_layers", i->n_layers },
        { "d_model", i->d_model },
        { "d_ff", i->d_ff },
        { "n_heads", i->n_heads },
        { "n_kv_heads", i->n_kv_heads },
        { "head_dim", i->head_dim },
        { "vocab_size", i->vocab_size },
        { "n_context_max", i->n_context_max },
        { "bos", i->bos },
    }, plan[] = {
        { "n_context", p->n_context },
        { "file_bytes", (double)p->file_bytes },
        { "kv_bytes", (double)p->kv_bytes },
        { "scratch_bytes", (double)p->scratch_bytes },
        { "shared_bytes", (double)p->shared_bytes },
        { "lookup_bytes", (double)p->lookup_bytes },
        { "model_bytes", (double)p->model_bytes },
    };
    cJSON_AddStringToObject(json, "architecture", i->architecture);
    cJSON_AddStringToObject(json, "weights", i->weights);
    cJSON_AddBoolToObject(json, "has_template", i->has_template);
    for (size_t k = 0; k < QP_COUNT(properties); k++)
        cJSON_AddNumberToObject(json, properties[k].name, properties[k].value);
    json_draws(json, i);
    cJSON *memory = cJSON_AddObjectToObject(json, "plan");
    for (size_t k = 0; k < QP_COUNT(plan); k++)
        cJSON_AddNumberToObject(memory, plan[k].name, plan[k].value);
}

static cJSON *json_metadata(struct inspected *x, const struct metadata *m)
{
    size_t n;
    const char *text = metadata_text(x, m, &n);
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "name", m->name);
    const uint8_t *data;
    if (is_parameters(m) && !qp_format_bytes(&x->format, m, &data, &n, NULL))
        cJSON_AddItemToObject(o, "value", parameters_json(data, n));
    else if (m->type == METADATA_INT)
        cJSON_AddNumberToObject(o, "value", (double)m->i);
    else if (m->type == METADATA_FLOAT)
        cJSON_AddNumberToObject(o, "value", m->f);
    else if (m->type == METADATA_ARRAY)
        cJSON_AddNumberToObject(o, "items", (double)m->n_items);
    else if (text)
        cJSON_AddItemToObject(o, "value", json_text(text, n));
    else
        cJSON_AddNumberToObject(o, "bytes", (double)m->n_bytes);
    return o;
}

static cJSON *json_tensor(const struct tensor *t)
{
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "name", t->name);
    cJSON_AddStringToObject(o, "dtype", type_name(t));
    cJSON *shape = cJSON_AddArrayToObject(o, "shape");
    for (int d = 0; d < t->n_dims; d++)
        cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)t->dims[d]));
    cJSON_AddNumberToObject(o, "offset", (double)t->offset);
    cJSON_AddNumberToObject(o, "bytes", (double)t->n_bytes);
    return o;
}

static void json_bundle(cJSON *json, const struct inspected *x)
{
    cJSON *bundle = cJSON_AddObjectToObject(json, "bundle");
    cJSON *entries = cJSON_AddArrayToObject(bundle, "entries");
    for (int i = 0; i < x->zip.n_entries; i++) {
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "name", x->zip.entries[i].name);
        cJSON_AddNumberToObject(o, "offset", (double)x->zip.entries[i].offset);
        cJSON_AddNumberToObject(o, "bytes", (double)x->zip.entries[i].n_bytes);
        cJSON_AddItemToArray(entries, o);
    }
    cJSON_AddItemToObject(
        bundle, "metadata",
        parameters_json(x->bundle.metadata.data, (size_t)x->bundle.metadata.size));
}

static int print_all_json(struct inspected *x)
{
    const struct format *f = &x->format;
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "kind", kind_names[f->kind]);
    cJSON_AddNumberToObject(json, "file_bytes", (double)x->file.size);
    if (f->subgraph_name)
        cJSON_AddStringToObject(json, "subgraph", f->subgraph_name);
    if (x->is_model)
        json_model(json, x);
    else if (f->kind == FORMAT_TFLITE)
        cJSON_AddStringToObject(json, "problem", x->problem.message);
    if (x->is_bundle)
        json_bundle(json, x);
    const struct metadata *named = qp_format_find_metadata(f, "general.architecture");
    size_t n;
    const char *name = named ? metadata_text(x, named, &n) : NULL;
    if (name)
        cJSON_AddItemToObject(json, "architecture", json_text(name, n));
    cJSON *metadata = cJSON_AddArrayToObject(json, "metadata");
    for (int i = 0; i < f->n_metadata; i++)
        cJSON_AddItemToArray(metadata, json_metadata(x, &f->metadata[i]));
    cJSON *tensors = cJSON_AddArrayToObject(json, "tensors");
    for (int i = 0; i < f->n_tensors; i++)
        cJSON_AddItemToArray(tensors, json_tensor(&f->tensors[i]));
    return print_json(json);
}

/* ---- one tensor ---- */

/* A tensor, row by row, as floats. If the model runs, a matrix has the values that the engine
 * computes with: dequantized, and in rows even if the file has tiles. */
struct tensor_rows {
    const struct inspected *file;
    const struct tensor *tensor;
    const struct matrix *matrix; // NULL: the numbers of the file
    uint64_t n_rows, n;          // n numbers in each row
};

static quip_status find_rows(struct tensor_rows *rows, const struct inspected *x,
                             const struct tensor *t, quip_error *error)
{
    *rows = (struct tensor_rows){ .file = x, .tensor = t, .n_rows = 1, .n = 1 };
    rows->matrix = x->model ? qp_weights_find(x->model, t->name) : NULL;
    if (rows->matrix) {
        rows->n_rows = (uint64_t)rows->matrix->n_out;
        rows->n = (uint64_t)rows->matrix->n_in;
        return QUIP_OK;
    }
    if (t->dtype == DTYPE_I8 || t->dtype == DTYPE_I4)
        return qp_fail(error, QUIP_E_UNSUPPORTED, "%s: %s cannot be dequantized: %s", x->path,
                       t->name,
                       *x->problem.message ? x->problem.message : "the model does not use it");
    for (int d = 0; d + 1 < t->n_dims; d++)
        rows->n_rows *= (uint64_t)t->dims[d];
    if (t->n_dims) // the last dimension is whole blocks of any type
        rows->n = (uint64_t)t->dims[t->n_dims - 1];
    // in a GPU file, the shape of a vector is its number of bytes
    if (x->format.kind == FORMAT_TFLITE && t->n_dims == 1 && rows->n == t->n_bytes)
        rows->n /= sizeof(float);
    return QUIP_OK;
}

static quip_status read_row(const struct tensor_rows *rows, uint64_t r, float *to,
                            quip_error *error)
{
    if (!rows->matrix)
        return qp_format_read_f32(&rows->file->format, rows->tensor, r * rows->n, (size_t)rows->n,
                                  to, error);
    qp_matrix_read_row(rows->matrix, (int)r, to);
    return QUIP_OK;
}

static int write_tensor(const struct inspected *x, const struct tensor *t, const char *out)
{
    quip_error error = { 0 };
    struct tensor_rows rows;
    if (find_rows(&rows, x, t, &error))
        return fail_with(&error);
    float *row = malloc((size_t)(rows.n ? rows.n : 1) * sizeof(*row));
    if (!row)
        return fail("out of memory for a row of %llu numbers", (unsigned long long)rows.n);
    int exit_code = EXIT_FAILED;
    FILE *f = open_output(out, x->path);
    if (!f)
        goto done;
    for (uint64_t r = 0; r < rows.n_rows && rows.n; r++) {
        if (read_row(&rows, r, row, &error)) {
            exit_code = fail_with(&error);
            goto done;
        }
        if (!write_f32(f, row, (size_t)rows.n))
            break; // close_output prints the reason
    }
    exit_code = 0;
done:
    if (f && !close_output(f, out))
        exit_code = EXIT_FAILED;
    free(row);
    return exit_code;
}

int run_inspect(const struct command *command, char **words)
{
    bool is_json = false;
    const char *tensor = NULL, *out = NULL;
    int n_context = 0;
    const struct option options[] = {
        { OPTION_FLAG, 0, "json", NULL, &is_json, 0, 0, "print a JSON object" },
        { OPTION_INT, 'c', "context", "N", &n_context, 1, INT32_MAX,
          "context of the memory plan, in tokens; default 4096" },
        { OPTION_TEXT, 0, "tensor", "NAME", &tensor, 0, 0,
          "write this tensor, dequantized, to --out" },
        { OPTION_TEXT, 'o', "out", "FILE", &out, 0, 0,
          "where to write, as little-endian float32; \"-\" is stdout" },
        { 0 },
    };
    int exit_code;
    if (parse_options(command, options, words, 1, 1, &exit_code) < 0)
        return exit_code;
    if (!tensor != !out)
        return fail_usage(command, "expected both --tensor and --out");

    quip_error error = { 0 };
    struct inspected x = { .path = words[0] };
    if (open_inspected(&x, n_context, &error)) {
        exit_code = fail_with(&error);
        close_inspected(&x);
        return exit_code;
    }
    if (n_context && (tensor || !x.is_model))
        note_vain("context", "on what is printed: it has no memory plan");
    if (tensor) {
        const struct tensor *t = qp_format_find(&x.format, tensor);
        exit_code = t ? write_tensor(&x, t, out) : fail("%s: has no tensor %s", x.path, tensor);
    } else {
        exit_code = is_json ? print_all_json(&x) : print_all(&x);
    }
    close_inspected(&x);
    return exit_code;
}
