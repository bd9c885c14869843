/* tiny_adapter.c: writes a PEFT folder as PEFT would, from a model's shapes and a seed. */
#include "support/tiny_adapter.h"

#include "model/adapter.h"
#include "support/shared.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Header and data of a safetensors file that is being written. */
struct writer {
    struct bytes header, data;
    uint64_t state;
    bool ok;
};

static float next_value(struct writer *w) // [-1, 1)
{
    w->state ^= w->state >> 12; // xorshift64*
    w->state ^= w->state << 25;
    w->state ^= w->state >> 27;
    return (float)((double)((w->state * 0x2545f4914f6cdd1du) >> 11) * 0x1p-52 - 1);
}

static void add_matrix(struct writer *w, const char *name, int rows, int cols, float size)
{
    const size_t begin = w->data.n;
    for (int i = 0; i < rows * cols; i++) {
        const float x = next_value(w) * size;
        w->ok = w->ok && qp_bytes_append(&w->data, &x, sizeof x);
    }
    w->ok =
        w->ok && qp_bytes_printf(&w->header,
                                 "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[%d,%d],"
                                 "\"data_offsets\":[%zu,%zu]}",
                                 w->header.n > 1 ? "," : "", name, rows, cols, begin, w->data.n);
}

static void add_pair(struct writer *w, const struct tiny_adapter *a, int l, const char *module,
                     const struct matrix *m, bool has_b)
{
    char name[256];
    const char *dot = module ? strrchr(module, '.') : NULL;
    if (!m->data || !module || (a->modules && !strstr(a->modules, dot ? dot + 1 : module)))
        return;
    if (a->name_of_q && strstr(module, "q_proj"))
        module = a->name_of_q;
    l += a->first_layer;
    snprintf(name, sizeof name, "base_model.model.model.layers.%d.%s.lora_A.weight", l, module);
    add_matrix(w, name, a->rank, m->n_in + a->more_inputs, 0.3f);
    snprintf(name, sizeof name, "base_model.model.model.layers.%d.%s.lora_B.weight", l, module);
    if (has_b)
        add_matrix(w, name, m->n_out, a->rank, a->size != 0 ? a->size : 0.1f);
}

/* Matrices with one A: one module with the rows of B one after the other, or a module for each. */
static void add_group(struct writer *w, const struct tiny_adapter *a, int l, const char *fused,
                      const char *const *names, const struct matrix *m, int n)
{
    const uint64_t state_of_a = w->state;
    struct matrix whole = m[0];
    if (a->is_fused) {
        for (int i = 1; i < n; i++)
            whole.n_out += m[i].n_out;
        add_pair(w, a, l, fused, &whole, true);
        return;
    }
    for (int i = 0; i < n; i++) {
        char name[256];
        const uint64_t state_of_b = w->state;
        w->state = state_of_a;
        snprintf(name, sizeof name, "base_model.model.model.layers.%d.%s.lora_A.weight", l,
                 names[i]);
        add_matrix(w, name, a->rank, m[i].n_in, 0.3f);
        if (i > 0)
            w->state = state_of_b;
        snprintf(name, sizeof name, "base_model.model.model.layers.%d.%s.lora_B.weight", l,
                 names[i]);
        add_matrix(w, name, m[i].n_out, a->rank, 0.1f);
    }
}

static void add_layers(struct writer *w, const quip_model *model, const struct tiny_adapter *a)
{
    static const char *const names[N_MATRICES] = {
        [MATRIX_Q] = "self_attn.q_proj",           [MATRIX_K] = "self_attn.k_proj",
        [MATRIX_V] = "self_attn.v_proj",           [MATRIX_O] = "self_attn.o_proj",
        [MATRIX_GATE] = "mlp.gate_proj",           [MATRIX_UP] = "mlp.up_proj",
        [MATRIX_DOWN] = "mlp.down_proj",           [MATRIX_PLE_GATE] = "per_layer_input_gate",
        [MATRIX_PLE_OUT] = "per_layer_projection",
    };
    for (int l = 0; l < model->config.n_layers && !a->is_fused && !a->is_as_fused; l++) {
        const struct matrix *matrices = model->weights.layers[l].m;
        const bool is_conv = model->config.layers[l].mixer == MIXER_CONV;
        struct matrix fused = matrices[MATRIX_Q];
        fused.n_out *= 3;
        if (is_conv) {
            add_pair(w, a, l, "conv.in_proj", &fused, true);
            add_pair(w, a, l, "conv.out_proj", &matrices[MATRIX_O], true);
        }
        for (int m = is_conv ? MATRIX_GATE : MATRIX_Q; m <= MATRIX_DOWN; m++) // none of experts
            add_pair(w, a, l, names[m], &matrices[m], m != MATRIX_DOWN || !a->has_no_b);
    }
    for (int l = 0; l < model->config.n_layers && (a->is_fused || a->is_as_fused); l++) {
        const struct matrix *m = model->weights.layers[l].m;
        add_group(w, a, l, "self_attn.qkv_proj", names + MATRIX_Q, m + MATRIX_Q, 3);
        add_pair(w, a, l, names[MATRIX_O], m + MATRIX_O, true);
        add_group(w, a, l, "mlp.gate_up_proj", names + MATRIX_GATE, m + MATRIX_GATE, 2);
        add_pair(w, a, l, names[MATRIX_DOWN], m + MATRIX_DOWN, true);
    }
}

static void save_weights(const char *path, struct writer *w)
{
    const uint64_t n = w->header.n;
    struct bytes all = { 0 };
    w->ok = w->ok && qp_bytes_append(&all, &n, sizeof n) &&
            qp_bytes_append(&all, w->header.data, w->header.n) &&
            qp_bytes_append(&all, w->data.data, w->data.n);
    if (w->ok)
        save_file(path, all.data, all.n);
    qp_bytes_close(&all);
}

quip_status tiny_adapter_write(const char *folder, const quip_model *model,
                               const struct tiny_adapter *a, quip_error *error)
{
    char path[512], config[1024];
    struct writer w = { .state = a->seed ? a->seed : 1, .ok = true };
    if (mkdir(folder, 0777) && errno != EEXIST)
        return qp_fail(error, QUIP_E_IO, "%s: %s", folder, strerror(errno));
    w.ok = qp_bytes_append_text(&w.header, "{");
    add_layers(&w, model, a);
    if (a->extra)
        add_matrix(&w, a->extra, 1, 1, 1);
    if (a->has_nan && w.ok)
        memset(w.data.data + w.data.n - 4, 0xff, 4);
    w.ok = w.ok && qp_bytes_append_text(&w.header, "}");
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", folder);
    save_weights(path, &w);
    snprintf(path, sizeof path, "%s/adapter_config.json", folder);
    snprintf(config, sizeof config,
             "{\"peft_type\": \"LORA\", \"r\": %d, \"lora_alpha\": %g, \"bias\": \"none\", "
             "\"modules_to_save\": null, \"target_modules\": \"all-linear\"%s}",
             a->rank, (double)a->alpha, a->config ? a->config : "");
    save_file(path, config, strlen(config));
    qp_bytes_close(&w.header);
    qp_bytes_close(&w.data);
    return w.ok ? QUIP_OK : qp_fail_memory(error, folder, 0);
}

void tiny_adapter_remove(const char *folder)
{
    char path[512];
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", folder);
    unlink(path);
    snprintf(path, sizeof path, "%s/adapter_config.json", folder);
    unlink(path);
    rmdir(folder);
}
