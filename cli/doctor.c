/* doctor.c: shows what this machine can run models on, and why not.
 * In:  the processor, the library of the GPU backend and what it finds, and optionally a model.
 * Out: processor, GPUs, and for each backend whether it works, as text or as JSON. */
#include "base/gpu_report.h"
#include "cli.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Whether a backend works, here or for the model: the problem is "" if it does. */
struct verdict {
    int32_t backend;
    char problem[sizeof((quip_error *)NULL)->message];
};

struct checkup {
    char processor[128];      // as the system calls it
    const char *instructions; // of the best kernels that this processor has, or QUIP_CPU allows
    int n_threads, n_processors;
    uint64_t memory, available; // bytes; 0: unknown
#ifdef QUIP_WEBGPU
    struct gpu_report gpu;
#endif
    struct verdict backends[3]; // auto, cpu, gpu
    /* Of the model. */
    const char *path;         // NULL: none
    struct verdict opened[3]; // with each backend, a session included
    double open_ms[3];        // that took
    int32_t chosen;           // what auto chose
    char reason[256];         // and why
};

/* ---- examine ---- */

/* The first "model name" of /proc/cpuinfo. */
static void find_processor(char name[128])
{
    FILE *f = fopen("/proc/cpuinfo", "r");
    char line[512];
    snprintf(name, 128, "unknown");
    while (f && fgets(line, sizeof line, f)) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon)
            continue;
        snprintf(name, 128, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
        break;
    }
    if (f)
        fclose(f);
}

static void find_memory(struct checkup *c)
{
    FILE *f = fopen("/proc/meminfo", "r");
    char line[256];
    while (f && fgets(line, sizeof line, f)) {
        unsigned long long kb;
        if (sscanf(line, "MemTotal: %llu", &kb) == 1)
            c->memory = kb * 1024;
        if (sscanf(line, "MemAvailable: %llu", &kb) == 1)
            c->available = kb * 1024;
    }
    if (f)
        fclose(f);
}

static void note_problem(struct verdict *v, const quip_error *error)
{
    snprintf(v->problem, sizeof v->problem, "%s", error->status ? error->message : "");
    without_controls(v->problem);
}

/* Open the model and a session, as an answer does. */
static void try_model(struct checkup *c, int32_t backend)
{
    quip_model *model = NULL;
    quip_session *session = NULL;
    quip_error error = { 0 };
    quip_model_info info = { .struct_size = sizeof info };
    const quip_model_options options = { .backend = backend };
    const uint64_t begin = qp_now_ns();
    if (!quip_model_open(&model, c->path, &options, &error) &&
        !quip_model_get_info(model, &info, &error) && !info.is_embedding)
        quip_session_open(&session, model, NULL, &error);
    c->open_ms[backend] = (double)(qp_now_ns() - begin) * 1e-6;
    note_problem(&c->opened[backend], &error);
    if (backend == QUIP_BACKEND_AUTO) {
        c->chosen = info.backend;
        snprintf(c->reason, sizeof c->reason, "%s", info.backend_reason ? info.backend_reason : "");
        without_controls(c->reason);
    }
    quip_session_close(session);
    quip_model_close(model);
}

static void examine(struct checkup *c)
{
    find_processor(c->processor);
    find_memory(c);
    c->instructions = qp_best_cpu_level();
    c->n_threads = qp_default_threads();
    c->n_processors = (int)sysconf(_SC_NPROCESSORS_ONLN);
#ifdef QUIP_WEBGPU
    qp_gpu_report(&c->gpu);
#endif
    for (int32_t b = QUIP_BACKEND_AUTO; b <= QUIP_BACKEND_GPU; b++) {
        quip_error error = { 0 };
        quip_backend_check((quip_backend)b, &error);
        note_problem(&c->backends[b], &error);
        if (c->path)
            try_model(c, b);
    }
}

/* ---- as text ---- */

#ifdef QUIP_WEBGPU
static void print_adapter(const struct gpu_adapter *a)
{
    char buffer[24], binding[24], memory[24];
    printf("  adapter       %s%s%s\n", a->name, a->is_software ? "; computes on the processor" : "",
           a->is_chosen ? "; --backend gpu uses it" : "");
    printf("    features    ");
    for (int f = 0; f < a->n_features; f++)
        printf("%s%s", f ? ", " : "", a->features[f]);
    printf("%s\n    limits      buffer %s, binding %s, memory of a workgroup %s, %u workgroups\n",
           a->n_features ? "" : "none", human_bytes(buffer, a->max_buffer),
           human_bytes(binding, a->max_binding), human_bytes(memory, a->group_memory),
           (unsigned)a->max_groups);
}

static void print_gpus(const struct gpu_report *r)
{
    printf("\ngpu\n  library       %s\n", r->library[0] ? r->library : "none");
    for (int i = 0; i < r->n_attempts; i++)
        printf("    looked at   %s: %s\n", r->attempts[i].name,
               r->attempts[i].problem[0] ? r->attempts[i].problem : "loaded");
    for (int i = 0; i < r->n_adapters; i++)
        print_adapter(&r->adapters[i]);
    if (!r->n_adapters)
        printf("  adapter       none\n");
}
#endif

static int print_checkup(const struct checkup *c)
{
    char memory[24], available[24];
    printf("quip %s\n\ncpu\n  processor     %s\n  instructions  %s\n", quip_version(), c->processor,
           c->instructions);
    printf("  threads       %d, on %d processors\n  memory        %s, %s available\n", c->n_threads,
           c->n_processors, human_bytes(memory, c->memory), human_bytes(available, c->available));
#ifdef QUIP_WEBGPU
    print_gpus(&c->gpu);
#endif
    printf("\nbackends\n");
    for (int32_t b = QUIP_BACKEND_CPU; b <= QUIP_BACKEND_GPU; b++)
        printf("  %-12s  %s\n", backend_name(b),
               c->backends[b].problem[0] ? c->backends[b].problem : "works");
    if (!c->path)
        return close_output(stdout, "-") ? 0 : EXIT_FAILED;
    printf("\n%s\n", c->path);
    for (int32_t b = QUIP_BACKEND_CPU; b <= QUIP_BACKEND_GPU; b++) {
        if (c->opened[b].problem[0])
            printf("  %-12s  %s\n", backend_name(b), c->opened[b].problem);
        else
            printf("  %-12s  runs; open with a session after %.0f ms\n", backend_name(b),
                   c->open_ms[b]);
    }
    if (c->opened[QUIP_BACKEND_AUTO].problem[0])
        printf("  auto          %s\n", c->opened[QUIP_BACKEND_AUTO].problem);
    else
        printf("  auto          %s: %s\n", backend_name(c->chosen), c->reason);
    return close_output(stdout, "-") ? 0 : EXIT_FAILED;
}

/* ---- as JSON ---- */

#ifdef QUIP_WEBGPU
static cJSON *json_gpus(const struct gpu_report *r)
{
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "library", r->library);
    cJSON *attempts = cJSON_AddArrayToObject(json, "looked_at");
    for (int i = 0; i < r->n_attempts; i++) {
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "name", r->attempts[i].name);
        cJSON_AddStringToObject(o, "problem", r->attempts[i].problem);
        cJSON_AddItemToArray(attempts, o);
    }
    cJSON *adapters = cJSON_AddArrayToObject(json, "adapters");
    for (int i = 0; i < r->n_adapters; i++) {
        const struct gpu_adapter *a = &r->adapters[i];
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "name", a->name);
        cJSON_AddBoolToObject(o, "is_software", a->is_software);
        cJSON_AddBoolToObject(o, "is_chosen", a->is_chosen);
        cJSON_AddItemToObject(o, "features", cJSON_CreateStringArray(a->features, a->n_features));
        cJSON_AddNumberToObject(o, "max_buffer_bytes", (double)a->max_buffer);
        cJSON_AddNumberToObject(o, "max_binding_bytes", (double)a->max_binding);
        cJSON_AddNumberToObject(o, "group_memory_bytes", a->group_memory);
        cJSON_AddNumberToObject(o, "max_groups", a->max_groups);
        cJSON_AddItemToArray(adapters, o);
    }
    return json;
}
#endif

static void json_verdicts(cJSON *json, const char *name, const struct verdict v[3])
{
    cJSON *o = cJSON_AddObjectToObject(json, name);
    for (int32_t b = QUIP_BACKEND_CPU; b <= QUIP_BACKEND_GPU; b++) {
        cJSON *one = cJSON_AddObjectToObject(o, backend_name(b));
        cJSON_AddBoolToObject(one, "works", !v[b].problem[0]);
        cJSON_AddStringToObject(one, "problem", v[b].problem);
    }
}

static int print_checkup_json(const struct checkup *c)
{
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "version", quip_version());
    cJSON *cpu = cJSON_AddObjectToObject(json, "cpu");
    cJSON_AddStringToObject(cpu, "processor", c->processor);
    cJSON_AddStringToObject(cpu, "instructions", c->instructions);
    cJSON_AddNumberToObject(cpu, "threads", c->n_threads);
    cJSON_AddNumberToObject(cpu, "processors", c->n_processors);
    cJSON_AddNumberToObject(cpu, "memory_bytes", (double)c->memory);
    cJSON_AddNumberToObject(cpu, "available_bytes", (double)c->available);
#ifdef QUIP_WEBGPU
    cJSON_AddItemToObject(json, "gpu", json_gpus(&c->gpu));
#endif
    json_verdicts(json, "backends", c->backends);
    if (c->path) {
        cJSON *model = cJSON_AddObjectToObject(json, "model");
        cJSON_AddStringToObject(model, "path", c->path);
        json_verdicts(model, "backends", c->opened);
        cJSON *chosen = cJSON_AddObjectToObject(model, "auto");
        cJSON_AddStringToObject(chosen, "problem", c->opened[QUIP_BACKEND_AUTO].problem);
        cJSON_AddStringToObject(chosen, "backend", backend_name(c->chosen));
        cJSON_AddStringToObject(chosen, "reason", c->reason);
    }
    return print_json(json);
}

int run_doctor(const struct command *command, char **words)
{
    struct checkup c = { 0 };
    bool is_json = false;
    const struct option options[] = {
        { OPTION_FLAG, 0, "json", NULL, &is_json, 0, 0, "print a JSON object" },
        { 0 },
    };
    int exit_code;
    const int n_words = parse_options(command, options, words, 0, 1, &exit_code);
    if (n_words < 0)
        return exit_code;
    c.path = n_words ? words[0] : NULL;
    examine(&c);
    exit_code = is_json ? print_checkup_json(&c) : print_checkup(&c);
    // a model that no backend runs is a failure; a machine without a GPU is not
    return exit_code || !c.opened[QUIP_BACKEND_AUTO].problem[0] ? exit_code : EXIT_FAILED;
}
