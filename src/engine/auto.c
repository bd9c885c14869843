/* auto.c: which backend runs a model that was opened for auto.
 * In:  an open model; the hardware; what was measured before.
 * Out: the GPU, if there is one that is not a driver for the CPU, if it runs the model, passes the
 *      self-test, and decodes no slower than the CPU. Otherwise the CPU. And a sentence that says
 *      why.
 *
 * What decides is the time of a token. It is measured when a model is first opened on a machine,
 * for about a second, and then remembered in a file of the cache folder. The file belongs to
 * one kind of model (its shape and size), GPU, driver, library, version of Quip and number of
 * threads; its first lines say which, and a file that says something else is not used. */
#include "engine/engine.h"

#if defined(__wasm__) || !defined(QUIP_WEBGPU)

void qp_auto_choose(quip_model *m)
{
#if defined(__wasm__)
    const char *reason = "the page did not ask for the gpu";
#else
    const char *reason = "the gpu backend is not built into this library";
#endif
    m->options.backend = QUIP_BACKEND_CPU;
    snprintf(m->backend_reason, sizeof m->backend_reason, "%s", reason);
}

#else

#include "engine/probe.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    AUTO_PROMPT = 16,
    AUTO_TOKENS = 128,          // of an answer that is measured
    AUTO_MIN_TOKENS = 4,        // unless they take SLOW_NS
    MEASURE_NS = 400 * 1000000, // a GPU raises its clock meanwhile
    SLOW_NS = 1000 * 1000000
};

/* Nanoseconds of a token. */
struct speeds {
    uint64_t gpu_ns, cpu_ns;
};

static double tokens_per_second(uint64_t ns)
{
    return 1e9 / (double)(ns ? ns : 1);
}

static void choose_because(quip_model *m, quip_backend backend, const char *reason)
{
    m->options.backend = backend;
    snprintf(m->backend_reason, sizeof m->backend_reason, "%s", reason);
}

/* ---- measure ---- */

/* The shortest time of a token. */
static quip_status measure_tokens(struct device *d, uint64_t *ns, quip_error *error)
{
    quip_token tokens[AUTO_PROMPT], next = 0;
    struct probe probe;
    const struct config *c = d->config;
    const int max = c->n_context_max ? qp_min(c->n_context_max, AUTO_PROMPT + AUTO_TOKENS)
                                     : AUTO_PROMPT + AUTO_TOKENS;
    const int n_prompt = qp_min(AUTO_PROMPT, max / 2);
    for (int i = 0; i < n_prompt; i++)
        tokens[i] = qp_probe_token(c, i);
    quip_status status = qp_probe_open(&probe, d, AUTO_PROMPT, max, error);
    if (!status)
        status = qp_probe_run(&probe, tokens, n_prompt, NULL, &next, error);
    const uint64_t begin = qp_now_ns();
    *ns = UINT64_MAX;
    for (int i = n_prompt; i < max && !status; i++) {
        const uint64_t start = qp_now_ns();
        if (start - begin > (i < n_prompt + AUTO_MIN_TOKENS ? SLOW_NS : MEASURE_NS))
            break;
        status = qp_probe_run(&probe, &next, 1, NULL, &next, error);
        const uint64_t took = qp_now_ns() - start;
        *ns = took < *ns ? took : *ns;
    }
    qp_probe_close(&probe);
    return status;
}

static quip_status measure_cpu_tokens(const quip_model *m, uint64_t *ns, quip_error *error)
{
    const struct backend *cpu = qp_backend(QUIP_BACKEND_CPU);
    const struct device_options options = qp_device_options(m);
    struct device *d;
    quip_status status = cpu->open(&d, m, &options, error);
    if (status)
        return status;
    status = measure_tokens(d, ns, error);
    cpu->close(d);
    return status;
}

/* ---- remember ---- */

/* The lines that a remembered file begins with. */
static void write_auto_key(char key[1024], const quip_model *m, const struct hardware *h)
{
    const struct config *c = &m->config;
    snprintf(key, 1024,
             "quip %s auto 1\nmodel %s %s %" PRIu64 " parameters %" PRIu64
             " bytes %d layers %d wide\ngpu %s\nlibrary %s\ncpu %x %d threads\n",
             QUIP_VERSION, c->family->name, m->weights_name, m->n_parameters, m->file.size,
             c->n_layers, c->d_model, h->name, h->library, qp_cpu_features(),
             qp_options_n_threads(m));
}

/* Named by a hash of the key: FNV-1a. */
static void name_speeds(char name[40], const char *key)
{
    uint64_t hash = 14695981039346656037u;
    for (const char *p = key; *p; p++)
        hash = (hash ^ (unsigned char)*p) * 1099511628211u;
    snprintf(name, 40, "auto-%016" PRIx64, hash);
}

static bool recall_speeds(const char *name, const char *key, struct speeds *s)
{
    char text[1200];
    const size_t n_key = strlen(key), n = qp_cache_read(name, text, sizeof text - 1);
    text[n] = 0;
    return n > n_key && strncmp(text, key, n_key) == 0 &&
           sscanf(text + n_key, "gpu_ns %" SCNu64 "\ncpu_ns %" SCNu64 "\nend", &s->gpu_ns,
                  &s->cpu_ns) == 2 &&
           strstr(text + n_key, "\nend\n") && s->gpu_ns > 0 && s->cpu_ns > 0;
}

/* If that fails, the next open measures again. */
static void remember_speeds(const char *name, const char *key, const struct speeds *s)
{
    char text[1200];
    const int n = snprintf(text, sizeof text, "%sgpu_ns %" PRIu64 "\ncpu_ns %" PRIu64 "\nend\n",
                           key, s->gpu_ns, s->cpu_ns);
    if (n < (int)sizeof text)
        qp_cache_write(name, text, (size_t)n);
}

/* ---- choose ---- */

/* Open the device, which its sessions will use, and measure if nothing is remembered. */
static quip_status try_gpu_for(quip_model *m, const struct hardware *h, quip_error *error)
{
    const struct capacity capacity = qp_device_capacity(AUTO_PROMPT + AUTO_TOKENS, 0);
    char key[1024], name[40];
    struct device *d;
    struct speeds s = { 0 };
    write_auto_key(key, m, h);
    name_speeds(name, key);
    const bool is_known = recall_speeds(name, key, &s);
    quip_status status = QUIP_OK;
    m->options.backend = QUIP_BACKEND_GPU;
    if (!is_known || s.gpu_ns <= s.cpu_ns)
        status = qp_device_open(&d, m, &capacity, error);
    if (!status && !is_known)
        status = measure_tokens(d, &s.gpu_ns, error);
    if (!status && !is_known)
        status = measure_cpu_tokens(m, &s.cpu_ns, error);
    if (!status && !is_known)
        remember_speeds(name, key, &s);
    if (status)
        return status;
    const bool is_gpu = s.gpu_ns <= s.cpu_ns;
    char reason[sizeof m->backend_reason];
    snprintf(reason, sizeof reason, "the %s decodes %.3g tokens/s, the %s %.3g (%s%s)",
             is_gpu ? "gpu" : "cpu", tokens_per_second(is_gpu ? s.gpu_ns : s.cpu_ns),
             is_gpu ? "cpu" : "gpu", tokens_per_second(is_gpu ? s.cpu_ns : s.gpu_ns), h->name,
             is_known ? "; measured earlier" : "");
    if (!is_gpu)
        qp_device_drop(m);
    choose_because(m, is_gpu ? QUIP_BACKEND_GPU : QUIP_BACKEND_CPU, reason);
    return QUIP_OK;
}

void qp_auto_choose(quip_model *m)
{
    const struct backend *gpu = qp_backend(QUIP_BACKEND_GPU);
    struct hardware h;
    quip_error error = { 0 };
    assert(gpu && gpu->describe);
    m->options.backend = QUIP_BACKEND_CPU;
    if (m->options.no_weights) {
        choose_because(m, QUIP_BACKEND_CPU, "the model was opened without its weights");
        return;
    }
    if (m->embedding.pooling) {
        choose_because(m, QUIP_BACKEND_CPU, "auto runs embedding models on the cpu");
        return;
    }
    quip_status status = gpu->check_model ? gpu->check_model(m, &error) : QUIP_OK;
    if (!status)
        status = gpu->describe(&h, &error);
    if (!status && h.is_software && !getenv("QUIP_AUTO_SOFTWARE"))
        status = qp_fail(&error, QUIP_E_UNSUPPORTED,
                         "%s computes on the processor, as the cpu backend does", h.name);
    if (!status)
        status = try_gpu_for(m, &h, &error);
    if (status) {
        qp_device_drop(m);
        choose_because(m, QUIP_BACKEND_CPU, error.message);
    }
}

#endif
