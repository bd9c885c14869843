/* gguf_families.c: the fixtures of data/golden-2, written as GGUF files in the layout of
 * llama.cpp's converter, have the logits of the reference.
 * In:  tensors and config.json of a fixture.
 * Out: names, keys and orders of rows of llama.cpp: fused q, k, v in blocks; rows of llama-like
 *      families in pairs; norms of heads stacked; no transposed matrices. */
#include "convert/convert.h"
#include "format/format.h"
#include "model/model.h"
#include "support/check.h"
#include "support/gguf_names.h"
#include "support/golden2.h"
#include "support/sample_checkpoint.h"
#include "support/shared.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* A family's own part of the layout. */
struct family_layout {
    struct fixture fixture;
    const char *architecture;
    const char *post_norm; // what post_attention_layernorm is
    int n_heads, n_kv_heads, head_dim;
    bool is_paired;     // rows of q and k
    bool is_grouped;    // fused rows are in groups in Hugging Face's file
    bool is_transposed; // matrices of layers
    void (*keys)(struct gguf *g);
};

/* ---- keys ---- */

static void rms_keys(struct gguf *g, const char *arch)
{
    char key[100];
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", arch);
    gguf_f32(g, key, strcmp(arch, "olmo2") == 0 ? 1e-6f : 1e-5f);
    snprintf(key, sizeof key, "%s.rope.freq_base", arch);
    gguf_f32(g, key, strcmp(arch, "olmo2") == 0 ? 500000 : 10000);
}
static void layer_keys(struct gguf *g, const char *arch, float theta)
{
    char key[100];
    snprintf(key, sizeof key, "%s.attention.layer_norm_epsilon", arch);
    gguf_f32(g, key, 1e-5f);
    snprintf(key, sizeof key, "%s.rope.freq_base", arch);
    if (theta > 0)
        gguf_f32(g, key, theta);
}
static void olmo2_keys(struct gguf *g)
{
    rms_keys(g, "olmo2");
}
static void granite_keys(struct gguf *g)
{
    rms_keys(g, "granite");
    gguf_u32(g, "granite.rope.dimension_count", 12);
    gguf_f32(g, "granite.attention.scale", 0.15f);
    gguf_f32(g, "granite.embedding_scale", 12);
    gguf_f32(g, "granite.residual_scale", 0.22f);
    gguf_f32(g, "granite.logit_scale", 8);
}
static void stablelm_keys(struct gguf *g)
{
    layer_keys(g, "stablelm", 10000);
    gguf_u32(g, "stablelm.rope.dimension_count", 4);
    gguf_bool(g, "stablelm.use_parallel_residual", true); // also where it is not: see gguf_variant
}
static void falcon_keys(struct gguf *g)
{
    layer_keys(g, "falcon", 0);
    gguf_text(g, "falcon.tensor_data_layout", "jploski");
}
static void gpt2_keys(struct gguf *g)
{
    layer_keys(g, "gpt2", 0);
}
static void gptneox_keys(struct gguf *g)
{
    layer_keys(g, "gptneox", 0);
    gguf_u32(g, "gptneox.rope.dimension_count", 4);
    gguf_bool(g, "gptneox.use_parallel_residual", true);
}
static void starcoder2_keys(struct gguf *g)
{
    layer_keys(g, "starcoder2", 999999.4420358813f);
    gguf_u32(g, "starcoder2.attention.sliding_window", 8);
}
static void smollm3_keys(struct gguf *g)
{
    gguf_f32(g, "smollm3.attention.layer_norm_rms_epsilon", 1e-6f);
    gguf_f32(g, "smollm3.rope.freq_base", 5e6f);
}
static void cohere_keys(struct gguf *g)
{
    layer_keys(g, "command-r", 10000);
    gguf_f32(g, "command-r.logit_scale", 0.0625f);
    gguf_text(g, "command-r.rope.scaling.type", "none");
}

// clang-format off
static const struct family_layout layouts[] = {
    { { .name = "olmo2" }, "olmo2", "post_attention_norm", 4, 2, 12, .keys = olmo2_keys },
    { { .name = "granite" }, "granite", "ffn_norm", 4, 2, 12, .is_paired = true, .keys = granite_keys },
    { { .name = "smollm3" }, "smollm3", "ffn_norm", 4, 2, 10, .is_paired = true, .keys = smollm3_keys },
    { { .name = "stablelm2" }, "stablelm", "ffn_norm", 3, 1, 16, .keys = stablelm_keys },
    { { .name = "stablelm2-bias" }, "stablelm", "ffn_norm", 3, 3, 16, .keys = stablelm_keys },
    { { .name = "falcon7b" }, "falcon", NULL, 7, 1, 8, .is_grouped = true, .keys = falcon_keys },
    { { .name = "gpt2" }, "gpt2", NULL, 4, 4, 12, .is_transposed = true, .keys = gpt2_keys },
    { { .name = "gptneox" }, "gptneox", "ffn_norm", 3, 3, 16, .is_grouped = true, .keys = gptneox_keys },
    { { .name = "starcoder2" }, "starcoder2", "ffn_norm", 4, 2, 12, .keys = starcoder2_keys },
    { { .name = "cohere" }, "command-r", NULL, 4, 2, 12, .keys = cohere_keys },
};
// clang-format on

/* ---- tensors ---- */

struct source {
    const struct family_layout *layout;
    struct file file;
    struct format format;
    struct gguf gguf;
};

/* The tensor's values, [rows, cols]; a vector is [rows, 1]. */
static float *read_values(const struct source *s, const struct tensor *t, int *rows, int *cols)
{
    quip_error error = { 0 };
    *rows = (int)t->dims[0];
    *cols = t->n_dims == 2 ? (int)t->dims[1] : 1;
    float *x = calloc((size_t)*rows * (size_t)*cols, sizeof *x);
    assert_non_null(x);
    check(qp_format_read_f32(&s->format, t, 0, (size_t)*rows * (size_t)*cols, x, &error), &error);
    return x;
}

/* Row r of GGUF's tensor is this row of Hugging Face's. */
static int row_from(const struct family_layout *f, const char *gguf, int r)
{
    const int hd = f->head_dim, heads = f->n_heads, kv = f->n_kv_heads, d = r % hd;
    if (f->is_paired && (strcmp(gguf, "attn_q") == 0 || strcmp(gguf, "attn_k") == 0))
        return r - d + d % 2 * (hd / 2) + d / 2;
    if (!f->is_grouped || strcmp(gguf, "attn_qkv") != 0)
        return r;
    const int per = heads / kv, h = r / hd; // of all heads: first those of q, then k, then v
    const int head = h < heads        ? h / per * (per + 2) + h % per
                     : h < heads + kv ? (h - heads) * (per + 2) + per
                                      : (h - heads - kv) * (per + 2) + per + 1;
    return head * hd + d;
}

/* One tensor under its GGUF name; buffers are left out. */
static void convert_named(struct source *s, const struct tensor *t)
{
    const struct gguf_name name = gguf_name_of(t->name, s->layout->post_norm);
    int rows, cols;
    if (!name.stem)
        return;
    float *from = read_values(s, t, &rows, &cols);
    const bool turns = s->layout->is_transposed && name.layer >= 0 && t->n_dims == 2;
    const int n_rows = turns ? cols : rows, n_cols = turns ? rows : cols;
    float *to = calloc((size_t)rows * (size_t)cols, sizeof *to);
    assert_non_null(to);
    for (int r = 0; r < n_rows; r++)
        for (int c = 0; c < n_cols; c++) {
            const int row = row_from(s->layout, name.stem, r);
            to[r * n_cols + c] = turns ? from[c * cols + row] : from[row * cols + c];
        }
    gguf_floats(&s->gguf, name.whole, n_rows, t->n_dims == 2 ? n_cols : 0, to);
    free(from);
    free(to);
}

/* The norms of all heads of StableLM 2 as one tensor [n_heads, head_dim]. */
static void stack_norms(struct source *s, int layer, char which, int n_heads)
{
    float all[64 * 16];
    char name[100];
    int rows = 0, cols;
    for (int h = 0; h < n_heads; h++) {
        snprintf(name, sizeof name, "model.layers.%d.self_attn.%c_layernorm.norms.%d.weight", layer,
                 which, h);
        const struct tensor *t = qp_format_find(&s->format, name);
        if (!t)
            return;
        float *x = read_values(s, t, &rows, &cols);
        memcpy(all + h * rows, x, (size_t)rows * sizeof *x);
        free(x);
    }
    snprintf(name, sizeof name, "blk.%d.attn_%c_norm.weight", layer, which);
    gguf_floats(&s->gguf, name, n_heads, rows, all);
}

static void put_key(struct gguf *g, const char *arch, const char *name, int value)
{
    char key[100];
    snprintf(key, sizeof key, "%s.%s", arch, name);
    gguf_u32(g, key, (uint32_t)value);
}

static int config_int(const cJSON *config, const char *a, const char *b)
{
    const cJSON *item = cJSON_GetObjectItem(config, a);
    item = cJSON_IsNumber(item) ? item : cJSON_GetObjectItem(config, b);
    return cJSON_IsNumber(item) ? item->valueint : 0;
}

static void write_fixture_gguf(const struct family_layout *f, const char *path)
{
    char name[200];
    quip_error error = { 0 };
    struct source s = { .layout = f };
    snprintf(name, sizeof name, "data/golden-2/%s/config.json", f->fixture.name);
    cJSON *config = read_json(shared_path(name));
    const int n_layers = config_int(config, "num_hidden_layers", "n_layer");
    const int d_model = config_int(config, "hidden_size", "n_embd");
    const int d_ff = config_int(config, "intermediate_size", "ffn_hidden_size");
    struct gguf *g = &s.gguf;
    gguf_text(g, "general.architecture", f->architecture);
    put_key(g, f->architecture, "block_count", n_layers);
    put_key(g, f->architecture, "embedding_length", d_model);
    put_key(g, f->architecture, "feed_forward_length", d_ff ? d_ff : 4 * d_model);
    put_key(g, f->architecture, "attention.head_count", f->n_heads);
    if (f->n_kv_heads != f->n_heads)
        put_key(g, f->architecture, "attention.head_count_kv", f->n_kv_heads);
    put_key(g, f->architecture, "context_length",
            config_int(config, "max_position_embeddings", "n_positions"));
    f->keys(g);
    snprintf(name, sizeof name, "data/golden-2/%s/model.safetensors", f->fixture.name);
    check(qp_file_open(&s.file, shared_path(name), &error), &error);
    check(qp_format_open(&s.format, &s.file, &error), &error);
    for (int i = 0; i < s.format.n_tensors; i++)
        convert_named(&s, &s.format.tensors[i]);
    for (int l = 0; l < n_layers; l++) {
        stack_norms(&s, l, 'q', f->n_heads);
        stack_norms(&s, l, 'k', f->n_kv_heads);
    }
    save_gguf(g, path);
    qp_format_close(&s.format);
    qp_file_close(&s.file);
    cJSON_Delete(config);
}

static void test_every_layout(void **state)
{
    (void)state;
    for (size_t i = 0; i < QP_COUNT(layouts); i++) {
        const struct family_layout *f = &layouts[i];
        char gguf[100], out[100], name[100], folder[500];
        quip_error error = { 0 };
        quip_model *model;
        snprintf(name, sizeof name, "data/golden-2/%s", f->fixture.name);
        need_shared(name);
        snprintf(folder, sizeof folder, "%s", shared_path(name));
        snprintf(gguf, sizeof gguf, "families-%s-%d.gguf", f->fixture.name, (int)getpid());
        snprintf(out, sizeof out, "families-%s-%d.bin", f->fixture.name, (int)getpid());
        write_fixture_gguf(f, gguf);
        const struct convert_options options = { .weights = CONVERT_F32, .tokenizer = folder };
        check(qp_convert(gguf, out, &options, &error), &error);
        unlink(gguf);
        check(quip_model_open(&model, out, NULL, &error), &error);
        unlink(out);
        const float worst = fixture_difference(&f->fixture, model);
        printf("  %-14s %.2g\n", f->fixture.name, (double)worst);
        assert_true(worst <= GOLDEN2_TOLERANCE);
        quip_model_close(model);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_layout),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
