/* convert.c (test): checkpoints -> model files. One small model, made here from a seed, is written
 * as a GGUF and as a Hugging Face folder; both must become the same model file. Then the ways in
 * which a checkpoint can be wrong. tests/convert_original.c has the original converter's own files.
 */
#include "convert/convert_impl.h"

#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/alloc_fault.h"
#include "support/shared.h"

/* ---- the model ---- */

enum {
    N_LAYERS = 2,
    D_MODEL = 24,
    D_FF = 40,
    N_HEADS = 4,
    N_KV_HEADS = 2,
    HEAD_DIM = 8,
    ROPE_DIM = 4, // where it is not all
    VOCAB = 280,  // rows; the tokenizer has fewer pieces
    MAX_VALUES = VOCAB * D_MODEL,
};

struct sample {
    const char *architecture;
    enum family_id family;
    bool is_tied;
};
static const struct sample llama_tied = { "llama", FAMILY_LLAMA, true };
static const struct sample llama_untied = { "llama", FAMILY_LLAMA, false };
static const struct sample gemma3 = { "gemma3", FAMILY_GEMMA3, true };
static const struct sample phi2 = { "phi2", FAMILY_PHI2, false };
static const struct sample stablelm = { "stablelm", FAMILY_STABLELM, false };

static bool has_layer_norm(const struct sample *s)
{
    return s->family == FAMILY_PHI2 || s->family == FAMILY_STABLELM;
}

static int size_of_extent(enum extent extent)
{
    switch (extent) {
    case EXTENT_NONE:
        return 1;
    case EXTENT_MODEL:
        return D_MODEL;
    case EXTENT_FF:
        return D_FF;
    case EXTENT_VOCAB:
        return VOCAB;
    case EXTENT_HEAD:
        return HEAD_DIM;
    case EXTENT_Q:
        return N_HEADS * HEAD_DIM;
    case EXTENT_KV:
        return N_KV_HEADS * HEAD_DIM;
    }
    return 0;
}

/* One tensor of the sample, as Hugging Face means it. */
struct sample_tensor {
    const struct tensor_row *row;
    char hf[80], gguf[80], target[120];
    int rows, cols;
    float values[MAX_VALUES];
};

/* Values are multiples of 1/1024 below 2, so that adding and taking away 1 is exact. */
static void fill_sample(struct sample_tensor *t, const struct tensor_row *row, int layer)
{
    uint32_t seed = 1;
    *t = (struct sample_tensor){ .row = row,
                                 .rows = size_of_extent(row->rows),
                                 .cols = size_of_extent(row->cols) };
    snprintf(t->hf, sizeof t->hf, row->hf, layer);
    snprintf(t->gguf, sizeof t->gguf, row->gguf, layer);
    int n = snprintf(t->target, sizeof t->target, "params.lm.");
    snprintf(t->target + n, sizeof t->target - (size_t)n, row->target, layer);
    for (const char *c = t->hf; *c; c++)
        seed = seed * 31 + (uint8_t)*c;
    for (int i = 0; i < t->rows * t->cols; i++) {
        seed = seed * 1664525u + 1013904223u;
        t->values[i] = (float)((int)(seed >> 20) - 2048) / 1024;
    }
}

/* Call fn for every tensor of the sample. */
typedef void on_tensor(void *user, const struct sample_tensor *t);
static void each_tensor(const struct sample *s, on_tensor *fn, void *user)
{
    static struct sample_tensor t;
    for (int i = 0; i < qp_n_tensor_rows; i++) {
        const struct tensor_row *row = &qp_tensor_rows[i];
        if (!(row->families & s->family) || row->tying == (s->is_tied ? TYING_UNTIED : TYING_TIED))
            continue;
        for (int l = 0; l < (qp_tensor_row_is_layered(row) ? N_LAYERS : 1); l++) {
            fill_sample(&t, row, l);
            fn(user, &t);
        }
    }
}

/* ---- its vocabulary ---- */

struct sample_piece {
    const char *text;
    float score;
    enum piece_type type;
};
static const struct sample_piece sample_pieces[] = {
    { "<pad>", 0, PIECE_CONTROL },
    { "<eos>", 0, PIECE_CONTROL },
    { "<bos>", 0, PIECE_CONTROL },
    { "<unk>", 0, PIECE_UNKNOWN },
    { "<start_of_turn>", 0, PIECE_USER_DEFINED },
    { "<end_of_turn>", 0, PIECE_USER_DEFINED },
    { "\xe2\x96\x81\xe2\x96\x81", 0, PIECE_USER_DEFINED },
    { "a", -1, PIECE_NORMAL },
    { "b", -2, PIECE_NORMAL },
    { "\xe2\x96\x81", -3, PIECE_NORMAL },
    { "ab", 0, PIECE_NORMAL },
};
enum {
    N_PIECES = QP_COUNT(sample_pieces) + 256
};

/* Bytes come after the listed pieces. */
static struct sample_piece piece_at(int id, char buffer[8])
{
    if (id < (int)QP_COUNT(sample_pieces))
        return sample_pieces[id];
    snprintf(buffer, 8, "<0x%02X>", id - (int)QP_COUNT(sample_pieces));
    return (struct sample_piece){ buffer, 0, PIECE_BYTE };
}

static void make_spm(struct bytes *out)
{
    char buffer[8];
    for (int id = 0; id < N_PIECES; id++) {
        struct sample_piece p = piece_at(id, buffer);
        assert_true(qp_spm_write_piece(out, p.text, strlen(p.text), p.score, p.type));
    }
    const struct spm_options options = { .is_bpe = true,
                                         .byte_fallback = true,
                                         .escape_whitespaces = true,
                                         .vocab_size = N_PIECES,
                                         .unk_id = 3,
                                         .bos_id = 2,
                                         .eos_id = 1,
                                         .pad_id = 0 };
    assert_true(qp_spm_write_options(out, &options));
}

/* ---- files ---- */

static char folder[64];

static const char *in_folder(const char *name)
{
    static char paths[4][256];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static void write_file(const char *name, const void *data, size_t n)
{
    FILE *f = fopen(in_folder(name), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void write_text(const char *name, const char *text)
{
    write_file(name, text, strlen(text));
}

static void remove_tree(const char *path)
{
    DIR *d = opendir(path);
    char name[4096];
    for (struct dirent *e; d && (e = readdir(d));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        snprintf(name, sizeof name, "%s/%s", path, e->d_name);
        if (unlink(name))
            remove_tree(name);
    }
    if (d)
        closedir(d);
    rmdir(path);
}

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder, "test-convert-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    return mkdir(in_folder("hf"), 0777);
}

static int drop_folder(void **state)
{
    (void)state;
    remove_tree(folder);
    return 0;
}

/* Fails when anything but these is in the folder: a temporary file would be. */
static void assert_no_output(void)
{
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        if (strcmp(e->d_name, "hf") != 0 && strcmp(e->d_name, "in.gguf") != 0 &&
            e->d_name[0] != '.')
            fail_msg("%s was left behind", e->d_name);
    closedir(d);
}

/* ---- writing a GGUF ---- */

static void put(struct bytes *b, const void *data, size_t n)
{
    assert_true(qp_bytes_append(b, data, n));
}
static void put_u32(struct bytes *b, uint32_t x)
{
    put(b, &x, 4);
} // the tests run on little endian
static void put_u64(struct bytes *b, uint64_t x)
{
    put(b, &x, 8);
}
static void put_text(struct bytes *b, const char *text)
{
    put_u64(b, strlen(text));
    put(b, text, strlen(text));
}

enum {
    GGUF_TYPE_U32 = 4,
    GGUF_TYPE_I32 = 5,
    GGUF_TYPE_F32 = 6,
    GGUF_TYPE_BOOL = 7
};
enum {
    GGUF_TYPE_TEXT = 8,
    GGUF_TYPE_LIST = 9
};

struct gguf {
    struct bytes metadata, infos, data;
    int n_metadata, n_tensors;
    const struct sample *sample;
};

static void gguf_key(struct gguf *g, const char *key, uint32_t type)
{
    put_text(&g->metadata, key);
    put_u32(&g->metadata, type);
    g->n_metadata++;
}
static void gguf_u32(struct gguf *g, const char *key, uint32_t value)
{
    gguf_key(g, key, GGUF_TYPE_U32);
    put_u32(&g->metadata, value);
}
static void gguf_f32(struct gguf *g, const char *key, float value)
{
    gguf_key(g, key, GGUF_TYPE_F32);
    put(&g->metadata, &value, 4);
}
static void gguf_bool(struct gguf *g, const char *key, bool value)
{
    gguf_key(g, key, GGUF_TYPE_BOOL);
    put(&g->metadata, &value, 1);
}
static void gguf_text(struct gguf *g, const char *key, const char *value)
{
    gguf_key(g, key, GGUF_TYPE_TEXT);
    put_text(&g->metadata, value);
}
static void gguf_list(struct gguf *g, const char *key, uint32_t type, int n)
{
    gguf_key(g, key, GGUF_TYPE_LIST);
    put_u32(&g->metadata, type);
    put_u64(&g->metadata, (uint64_t)n);
}

/* With the traps of real files: norms with their 1, llama's q and k rows in pairs. */
static void gguf_tensor(void *user, const struct sample_tensor *t)
{
    struct gguf *g = user;
    bool is_vector = t->row->cols == EXTENT_NONE;
    put_text(&g->infos, t->gguf);
    put_u32(&g->infos, is_vector ? 1 : 2);
    if (!is_vector)
        put_u64(&g->infos, (uint64_t)t->cols); // innermost first
    put_u64(&g->infos, (uint64_t)t->rows);
    put_u32(&g->infos, 0); // F32
    put_u64(&g->infos, g->data.n);
    for (int r = 0; r < t->rows; r++) {
        int d = r % HEAD_DIM, source = r;
        if (g->sample->family == FAMILY_LLAMA && t->row->has_rope)
            source = r - d + d % 2 * (HEAD_DIM / 2) + d / 2;
        for (int c = 0; c < t->cols; c++) {
            float w = t->values[source * t->cols + c];
            if (g->sample->family == FAMILY_GEMMA3 && is_vector)
                w += 1;
            put(&g->data, &w, 4);
        }
    }
    while (g->data.n % 32)
        put(&g->data, "", 1);
    g->n_tensors++;
}

static void gguf_arch(struct gguf *g, const char *name, uint32_t value)
{
    char key[80];
    snprintf(key, sizeof key, "%s.%s", g->sample->architecture, name);
    gguf_u32(g, key, value);
}

static void gguf_vocabulary(struct gguf *g)
{
    char buffer[8];
    bool is_gemma = g->sample->family == FAMILY_GEMMA3;
    gguf_text(g, "tokenizer.ggml.model", "llama");
    gguf_list(g, "tokenizer.ggml.tokens", GGUF_TYPE_TEXT, N_PIECES);
    for (int id = 0; id < N_PIECES; id++)
        put_text(&g->metadata, is_gemma && id == 6 ? "  " : piece_at(id, buffer).text);
    gguf_list(g, "tokenizer.ggml.scores", GGUF_TYPE_F32, N_PIECES);
    for (int id = 0; id < N_PIECES; id++) {
        struct sample_piece p = piece_at(id, buffer);
        float score = p.type == PIECE_NORMAL ? p.score : -1000;
        put(&g->metadata, &score, 4);
    }
    gguf_list(g, "tokenizer.ggml.token_type", GGUF_TYPE_I32, N_PIECES);
    for (int id = 0; id < N_PIECES; id++) {
        enum piece_type type = piece_at(id, buffer).type;
        put_u32(&g->metadata, is_gemma && id < 6 ? PIECE_CONTROL : type);
    }
    gguf_u32(g, "tokenizer.ggml.bos_token_id", 2);
    gguf_u32(g, "tokenizer.ggml.eos_token_id", 1);
    gguf_u32(g, "tokenizer.ggml.unknown_token_id", 3);
    gguf_u32(g, "tokenizer.ggml.padding_token_id", 0);
    gguf_bool(g, "tokenizer.ggml.add_bos_token", true);
    gguf_bool(g, "tokenizer.ggml.add_space_prefix", false);
}

static void write_gguf(const struct sample *s)
{
    struct gguf g = { .sample = s };
    struct bytes all = { 0 };
    gguf_text(&g, "general.architecture", s->architecture);
    gguf_arch(&g, "block_count", N_LAYERS);
    gguf_arch(&g, "embedding_length", D_MODEL);
    gguf_arch(&g, "feed_forward_length", D_FF);
    gguf_arch(&g, "attention.head_count", N_HEADS);
    gguf_arch(&g, "attention.head_count_kv", N_KV_HEADS);
    if (has_layer_norm(s))
        gguf_arch(&g, "rope.dimension_count", ROPE_DIM);
    gguf_arch(&g, "attention.key_length", HEAD_DIM);
    gguf_arch(&g, "context_length", 512);
    char key[80];
    snprintf(key, sizeof key, "%s.attention.layer_norm_%sepsilon", s->architecture,
             has_layer_norm(s) ? "" : "rms_");
    gguf_f32(&g, key, 1e-5f);
    snprintf(key, sizeof key, "%s.rope.freq_base", s->architecture);
    gguf_f32(&g, key, 5e5f);
    if (s->family == FAMILY_GEMMA3)
        gguf_arch(&g, "attention.sliding_window", 16);
    gguf_vocabulary(&g);
    each_tensor(s, gguf_tensor, &g);

    put(&all, "GGUF", 4);
    put_u32(&all, 3);
    put_u64(&all, (uint64_t)g.n_tensors);
    put_u64(&all, (uint64_t)g.n_metadata);
    put(&all, g.metadata.data, g.metadata.n);
    put(&all, g.infos.data, g.infos.n);
    while (all.n % 32)
        put(&all, "", 1);
    put(&all, g.data.data, g.data.n);
    write_file("in.gguf", all.data, all.n);
    qp_bytes_close(&g.metadata);
    qp_bytes_close(&g.infos);
    qp_bytes_close(&g.data);
    qp_bytes_close(&all);
}

/* ---- writing a folder ---- */

/* What to do differently from the sample. */
struct folder_options {
    const char *dtype;           // "F32" (when NULL) or "BF16"
    const char *skip, *misshape; // names of tensors
    const char *extra;           // name of one more, [2]
    int part, n_parts;           // write only each n_parts-th tensor, beginning with `part`
};

struct safetensors {
    const struct folder_options *options;
    struct bytes header, data;
    int i;
};

static void put_value(struct bytes *b, float w, bool is_bf16)
{
    uint32_t bits;
    memcpy(&bits, &w, 4);
    if (is_bf16)
        put(b, (uint8_t *)&bits + 2, 2);
    else
        put(b, &bits, 4);
}

static void safetensors_tensor(void *user, const struct sample_tensor *t)
{
    struct safetensors *st = user;
    const struct folder_options *o = st->options;
    char shape[40];
    size_t begin = st->data.n;
    int n = t->rows * t->cols;
    bool is_misshapen = o->misshape && strcmp(t->hf, o->misshape) == 0;
    if ((o->skip && strcmp(t->hf, o->skip) == 0) || (o->n_parts && st->i++ % o->n_parts != o->part))
        return;
    snprintf(shape, sizeof shape, t->row->cols == EXTENT_NONE ? "[%d]" : "[%d,%d]", t->rows,
             t->cols);
    if (is_misshapen)
        snprintf(shape, sizeof shape, "[%d,1]", n);
    for (int i = 0; i < n; i++)
        put_value(&st->data, t->values[i], o->dtype != NULL);
    assert_true(qp_bytes_printf(&st->header,
                                "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,"
                                "\"data_offsets\":[%zu,%zu]}",
                                st->header.n ? "," : "", t->hf, o->dtype ? o->dtype : "F32", shape,
                                begin, st->data.n));
}

static void write_safetensors(const struct sample *s, const char *name,
                              const struct folder_options *options)
{
    struct safetensors st = { .options = options };
    struct bytes all = { 0 };
    each_tensor(s, safetensors_tensor, &st);
    if (options->extra) {
        assert_true(qp_bytes_printf(&st.header,
                                    ",\"%s\":{\"dtype\":\"F32\",\"shape\":[2],"
                                    "\"data_offsets\":[%zu,%zu]}",
                                    options->extra, st.data.n, st.data.n + 8));
        put_u64(&st.data, 0);
    }
    put_u64(&all, st.header.n + 2);
    put(&all, "{", 1);
    put(&all, st.header.data, st.header.n);
    put(&all, "}", 1);
    put(&all, st.data.data, st.data.n);
    write_file(name, all.data, all.n);
    qp_bytes_close(&st.header);
    qp_bytes_close(&st.data);
    qp_bytes_close(&all);
}

/* What config.json says of one family only. */
static const char *family_lines(const struct sample *s)
{
    switch (s->family) {
    case FAMILY_GEMMA3:
        return "\"gemma3_text\", \"sliding_window\": 16, \"query_pre_attn_scalar\": 8, "
               "\"hidden_activation\": \"gelu_pytorch_tanh\"";
    case FAMILY_PHI2:
        return "\"phi\", \"hidden_act\": \"gelu_new\", \"partial_rotary_factor\": 0.5";
    case FAMILY_STABLELM:
        return "\"stablelm\", \"hidden_act\": \"silu\", \"partial_rotary_factor\": 0.5";
    default:
        return "\"llama\", \"hidden_act\": \"silu\"";
    }
}

static void write_config(const struct sample *s)
{
    char text[1200];
    snprintf(text, sizeof text,
             "{\"model_type\": %s, \"num_hidden_layers\": %d, \"hidden_size\": %d, "
             "\"intermediate_size\": %d, \"num_attention_heads\": %d, \"num_key_value_heads\": %d, "
             "\"head_dim\": %d, \"vocab_size\": %d, \"max_position_embeddings\": 512, "
             "\"rms_norm_eps\": 1e-5, \"layer_norm_eps\": 1e-5, \"rope_theta\": 500000, "
             "\"tie_word_embeddings\": %s, "
             "\"bos_token_id\": 2, \"eos_token_id\": 1, \"pad_token_id\": 0}",
             family_lines(s), N_LAYERS, D_MODEL, D_FF, N_HEADS, N_KV_HEADS, HEAD_DIM, VOCAB,
             s->is_tied ? "true" : "false");
    write_text("hf/config.json", text);
}

static void write_folder(const struct sample *s, const struct folder_options *options)
{
    struct bytes spm = { 0 };
    make_spm(&spm);
    write_file("hf/tokenizer.model", spm.data, spm.n);
    qp_bytes_close(&spm);
    write_config(s);
    write_safetensors(s, "hf/model.safetensors", options);
}

static const struct folder_options plain;

/* ---- comparing ---- */

static void convert_ok(const char *in, const char *out, enum convert_weights weights)
{
    quip_error error = { 0 };
    const struct convert_options options = { .weights = weights };
    if (qp_convert(in, out, &options, &error))
        fail_msg("%s", error.message);
}

/* The sentence with which the conversion of hf/ fails; no output may be left. */
static const char *convert_fails(enum convert_weights weights, quip_status status)
{
    static quip_error error;
    const struct convert_options options = { .weights = weights };
    error = (quip_error){ 0 };
    assert_int_equal(qp_convert(in_folder("hf"), in_folder("out.bin"), &options, &error), status);
    assert_no_output();
    return error.message;
}

static void assert_contains(const char *message, const char *part)
{
    if (!strstr(message, part))
        fail_msg("\"%s\" is not in \"%s\"", part, message);
}

static void assert_same_file(const char *a, const char *b)
{
    size_t n_a, n_b;
    char *x = read_whole(a, &n_a), *y = read_whole(b, &n_b);
    assert_int_equal(n_a, n_b);
    assert_memory_equal(x, y, n_a);
    free(x);
    free(y);
}

struct reopened {
    struct file file;
    struct format format;
    bool has_layer_norm;
    int n_found;
};

static void reopen(struct reopened *r, const char *path)
{
    quip_error error = { 0 };
    *r = (struct reopened){ 0 };
    if (qp_file_open(&r->file, path, &error) || qp_format_open(&r->format, &r->file, &error))
        fail_msg("%s", error.message);
}

static void close_reopened(struct reopened *r)
{
    qp_format_close(&r->format);
    qp_file_close(&r->file);
}

static const char *metadata_of(struct reopened *r, const char *name, size_t *n)
{
    const struct metadata *m = qp_format_find_metadata(&r->format, name);
    const uint8_t *data;
    if (!m || m->type != METADATA_BYTES)
        return NULL;
    assert_int_equal(qp_format_bytes(&r->format, m, &data, n, NULL), 0);
    return (const char *)data;
}

/* In an f32 file every tensor is what the sample says. */
static void check_f32_tensor(void *user, const struct sample_tensor *t)
{
    struct reopened *r = user;
    const struct tensor *found = qp_format_find(&r->format, t->target);
    const uint8_t *data;
    assert_non_null(found);
    assert_int_equal(found->dtype, DTYPE_F32);
    bool is_layer_norm = t->row->weight_class == CLASS_NORM && r->has_layer_norm;
    assert_int_equal(found->n_dims, is_layer_norm ? 3 : t->row->cols == EXTENT_NONE ? 1 : 2);
    assert_int_equal(found->dims[is_layer_norm ? 2 : 0], t->rows);
    assert_int_equal(qp_format_tensor_bytes(&r->format, found, &data, NULL), 0);
    assert_memory_equal(data, t->values, (size_t)(t->rows * t->cols) * sizeof(float));
    r->n_found++;
}

/* ---- the same model, however it is stored ---- */

static void check_equal(const struct sample *s)
{
    struct reopened r;
    write_gguf(s);
    write_folder(s, &plain);
    for (int w = CONVERT_INT8; w <= CONVERT_F32; w++) {
        convert_ok(in_folder("in.gguf"), in_folder("a.bin"), (enum convert_weights)w);
        convert_ok(in_folder("hf"), in_folder("b.bin"), (enum convert_weights)w);
        assert_same_file(in_folder("a.bin"), in_folder("b.bin"));
    }
    reopen(&r, in_folder("a.bin"));
    r.has_layer_norm = has_layer_norm(s);
    each_tensor(s, check_f32_tensor, &r);
    assert_int_equal(r.n_found, r.format.n_tensors);
    close_reopened(&r);
}

static void test_gguf_and_folder_are_equal(void **state)
{
    (void)state;
    check_equal(&llama_tied);
    check_equal(&llama_untied);
    check_equal(&gemma3);
    check_equal(&phi2);
    check_equal(&stablelm);
}

static void test_dtypes(void **state)
{
    (void)state;
    static const enum dtype wanted[4][3] = { { DTYPE_I8, DTYPE_I8, DTYPE_I8 },
                                             { DTYPE_I8, DTYPE_I4, DTYPE_I8 },
                                             { DTYPE_I4, DTYPE_I4, DTYPE_I4 },
                                             { DTYPE_F32, DTYPE_F32, DTYPE_F32 } };
    static const char *const names[] = {
        "params.lm.transformer.x_layers_1.self_attention.v.w",
        "params.lm.transformer.x_layers_1.ff_layer.ffn_layer2.w",
        "params.lm.softmax.logits_ffn.w",
    };
    static const char *const words[] = { "int8", "mixed", "int4", "f32" };
    write_folder(&gemma3, &plain);
    for (int w = 0; w < 4; w++) {
        enum convert_weights weights;
        struct reopened r;
        assert_true(qp_convert_weights_find(words[w], &weights));
        assert_int_equal(weights, w);
        convert_ok(in_folder("hf"), in_folder("a.bin"), weights);
        reopen(&r, in_folder("a.bin"));
        for (size_t i = 0; i < QP_COUNT(names); i++) {
            char scales[120];
            const struct tensor *t = qp_format_find(&r.format, names[i]);
            assert_non_null(t);
            assert_int_equal(t->dtype, wanted[w][i]);
            // int4 is block-wise, and cannot be mistaken for the original's
            snprintf(scales, sizeof scales, "%s_quantized_scale", names[i]);
            assert_int_equal(qp_format_find(&r.format, scales) != NULL, t->dtype == DTYPE_I8);
            snprintf(scales, sizeof scales, "%s_block_scale", names[i]);
            assert_int_equal(qp_format_find(&r.format, scales) != NULL, t->dtype == DTYPE_I4);
            snprintf(scales, sizeof scales, "%s_block_multiplier", names[i]);
            assert_int_equal(qp_format_find(&r.format, scales) != NULL, t->dtype == DTYPE_I4);
        }
        close_reopened(&r);
    }
    enum convert_weights weights;
    assert_false(qp_convert_weights_find("int5", &weights));
}

/* Whether two files of one size differ. */
static bool differ(const char *a, const char *b)
{
    struct file one = { 0 }, other = { 0 };
    assert_int_equal(qp_file_open(&one, a, NULL), QUIP_OK);
    assert_int_equal(qp_file_open(&other, b, NULL), QUIP_OK);
    assert_int_equal(one.size, other.size);
    const bool result = memcmp(one.data, other.data, (size_t)one.size) != 0;
    qp_file_close(&one);
    qp_file_close(&other);
    return result;
}

/* A text changes what int4 keeps, the same way each time; from int8 weights as well. */
static void test_calibration(void **state)
{
    (void)state;
    static const enum convert_weights sources[] = { CONVERT_F32, CONVERT_INT8 };
    write_folder(&gemma3, &plain);
    write_text("text", "the an the the be an the thean");
    write_text("nothing", "");
    struct convert_options options = { .weights = CONVERT_INT4, .calibrate = in_folder("text") };
    quip_error error = { 0 };
    assert_int_equal(qp_convert(in_folder("hf"), in_folder("b.bin"), &options, &error),
                     QUIP_E_UNSUPPORTED);
    assert_contains(error.message, "calibrate that file");
    for (size_t i = 0; i < QP_COUNT(sources); i++) {
        convert_ok(in_folder("hf"), in_folder("a.bin"), sources[i]);
        convert_ok(in_folder("a.bin"), in_folder("b.bin"), CONVERT_INT4);
        options.calibrate = in_folder("text");
        if (qp_convert(in_folder("a.bin"), in_folder("c.bin"), &options, &error))
            fail_msg("%s", error.message);
        assert_true(differ(in_folder("b.bin"), in_folder("c.bin")));
        options.calibrate = in_folder("text");
        assert_int_equal(qp_convert(in_folder("a.bin"), in_folder("b.bin"), &options, &error),
                         QUIP_OK);
        assert_false(differ(in_folder("b.bin"), in_folder("c.bin")));
    }
    options.calibrate = in_folder("nothing");
    assert_int_equal(qp_convert(in_folder("a.bin"), in_folder("b.bin"), &options, &error),
                     QUIP_E_FORMAT);
    options.calibrate = in_folder("no-such-text");
    assert_int_equal(qp_convert(in_folder("a.bin"), in_folder("b.bin"), &options, &error),
                     QUIP_E_IO);
}

static void test_metadata(void **state)
{
    (void)state;
    struct reopened r;
    size_t n;
    static const char want[] = "architecture gemma3\nnorm_eps 1e-05\nrope_theta 500000\n"
                               "rope_scaling 1\nrope_dim 8\nquery_scale 0.35355338\n"
                               "rope_local_theta 10000\nn_context_max 512\nwindow 16\n"
                               "layer_types LL\nchat none\nstop_ids 1,5\nbos 2\ntied 1\n";
    write_folder(&gemma3, &plain);
    convert_ok(in_folder("hf"), in_folder("a.bin"), CONVERT_INT8);
    reopen(&r, in_folder("a.bin"));
    assert_string_equal(r.format.subgraph_name, "GEMMA3");
    const char *text = metadata_of(&r, "quip.config", &n);
    assert_true(n > strlen(want));
    assert_memory_equal(text, want, strlen(want));
    text = metadata_of(&r, "backend", &n);
    assert_int_equal(n, 3);
    assert_memory_equal(text, "cpu", 3);
    assert_null(metadata_of(&r, "quip.tokenizer", &n));
    close_reopened(&r);
}

/* BF16 holds fewer bits, so both sides get values that it can hold. */
static void test_shards_and_bf16(void **state)
{
    (void)state;
    write_folder(&llama_untied, &(struct folder_options){ .dtype = "BF16" });
    convert_ok(in_folder("hf"), in_folder("a.bin"), CONVERT_INT8);
    write_safetensors(&llama_untied, "hf/one.safetensors",
                      &(struct folder_options){ .dtype = "BF16", .n_parts = 2, .part = 0 });
    write_safetensors(&llama_untied, "hf/two.safetensors",
                      &(struct folder_options){ .dtype = "BF16", .n_parts = 2, .part = 1 });
    unlink(in_folder("hf/model.safetensors"));
    write_text("hf/model.safetensors.index.json",
               "{\"weight_map\": {\"a\": \"one.safetensors\", \"b\": \"two.safetensors\", "
               "\"c\": \"one.safetensors\"}}");
    convert_ok(in_folder("hf"), in_folder("b.bin"), CONVERT_INT8);
    assert_same_file(in_folder("a.bin"), in_folder("b.bin"));
    unlink(in_folder("hf/model.safetensors.index.json"));
    convert_ok(in_folder("hf"), in_folder("b.bin"), CONVERT_INT8); // all that are there
    assert_same_file(in_folder("a.bin"), in_folder("b.bin"));
    convert_ok(in_folder("hf/[ot]*.safetensors"), in_folder("b.bin"), CONVERT_INT8);
    assert_same_file(in_folder("a.bin"), in_folder("b.bin"));
    assert_int_equal(rename(in_folder("hf/one.safetensors"), in_folder("hf/one")), 0);
    quip_error error = { 0 };
    assert_int_equal(qp_convert(in_folder("hf"), in_folder("b.bin"), NULL, &error), QUIP_E_FORMAT);
    assert_contains(error.message, "missing: ");
    assert_int_equal(rename(in_folder("hf/one"), in_folder("hf/one.safetensors")), 0);
    unlink(in_folder("a.bin"));
    unlink(in_folder("b.bin"));

    write_text("hf/model.safetensors.index.json", "{\"weight_map\": {\"a\": \"../x\"}}");
    assert_contains(convert_fails(CONVERT_INT8, QUIP_E_FORMAT), "not said to be in a file of this");
    write_safetensors(&llama_untied, "hf/two.safetensors", &plain);
    write_text("hf/model.safetensors.index.json",
               "{\"weight_map\": {\"a\": \"one.safetensors\", \"b\": \"two.safetensors\"}}");
    assert_contains(convert_fails(CONVERT_INT8, QUIP_E_FORMAT),
                    "there twice: model.embed_tokens.weight, ");
}

/* A checkpoint without a config.json, of a model type whose sizes are known: what is wrong with
 * this one is its sizes. With a config.json the name only has to be of the same family. */
static void test_model_types(void **state)
{
    (void)state;
    quip_error error = { 0 };
    struct reopened r;
    struct convert_options options = { .model_type = "GEMMA3_1B" };
    write_folder(&gemma3, &plain);
    if (qp_convert(in_folder("hf"), in_folder("a.bin"), &options, &error))
        fail_msg("%s", error.message);
    reopen(&r, in_folder("a.bin"));
    assert_string_equal(r.format.subgraph_name, "GEMMA3_1B");
    close_reopened(&r);
    unlink(in_folder("a.bin"));
    options.model_type = "GEMMA_2B";
    assert_int_equal(qp_convert(in_folder("hf"), in_folder("a.bin"), &options, &error),
                     QUIP_E_ARGUMENT);
    assert_contains(error.message, "is a gemma3 model, not a GEMMA_2B");
    options.model_type = "GEMMA_3B";
    assert_int_equal(qp_convert(in_folder("hf"), in_folder("a.bin"), &options, &error),
                     QUIP_E_ARGUMENT);
    assert_contains(error.message, "there is no model type GEMMA_3B");

    unlink(in_folder("hf/config.json"));
    static const char *const types[] = { "GEMMA_2B",   "GEMMA_7B",     "GEMMA2_2B",
                                         "GEMMA3_1B",  "GEMMA3_300M",  "GEMMA3_4B",
                                         "GEMMA3_12B", "GEMMA3_27B",   "FUNCTIONGEMMA3_300M",
                                         "PHI_2",      "FALCON_RW_1B", "STABLELM_4E1T_3B" };
    for (size_t i = 0; i < QP_COUNT(types); i++) {
        struct checkpoint c;
        struct model_facts f;
        if (qp_checkpoint_open(&c, in_folder("hf"), types[i], &error) ||
            qp_facts_from_hf(&f, &c, &error))
            fail_msg("%s: %s", types[i], error.message);
        const struct model_type *t = qp_model_type_named(types[i]);
        assert_int_equal(f.family->id, t->family);
        assert_int_equal(f.n_layers, t->n_layers);
        assert_int_equal(f.d_model, t->d_model);
        qp_checkpoint_close(&c);
        options.model_type = types[i];
        assert_int_equal(qp_convert(in_folder("hf"), in_folder("a.bin"), &options, &error),
                         QUIP_E_FORMAT);
    }
    assert_no_output();
}

/* What the original's converter takes and its files cannot hold. */
static void test_refused_options(void **state)
{
    (void)state;
    static const struct {
        struct convert_options options;
        const char *words;
    } wrong[] = {
        { { .block_size = 16 }, "block size must be 0 (off), 32 or 128" },
        { { .block_size = 32, .for_gpu = true }, "one scale per row only" },
        { { .block_size = 128, .is_original = true }, "one scale per row only" },
        { { .is_asymmetric = true }, "no place for the zero points" },
        { { .is_asymmetric = true, .is_mse = true, .for_gpu = true }, "symmetric weights only" },
    };
    write_folder(&gemma3, &plain);
    for (size_t i = 0; i < QP_COUNT(wrong); i++) {
        quip_error error = { 0 };
        assert_int_not_equal(
            qp_convert(in_folder("hf"), in_folder("out.bin"), &wrong[i].options, &error), QUIP_OK);
        assert_contains(error.message, wrong[i].words);
        assert_no_output();
    }
    quip_error error = { 0 };
    const struct convert_options blocks = { .weights = CONVERT_INT4, .block_size = 32 };
    convert_ok(in_folder("hf"), in_folder("a.bin"), CONVERT_INT4);
    if (qp_convert(in_folder("hf"), in_folder("b.bin"), &blocks, &error))
        fail_msg("%s", error.message);
    assert_same_file(in_folder("a.bin"), in_folder("b.bin"));
}

static void test_other_tokenizer(void **state)
{
    (void)state;
    quip_error error = { 0 };
    write_folder(&gemma3, &plain);
    convert_ok(in_folder("hf"), in_folder("a.bin"), CONVERT_INT8);
    assert_int_equal(rename(in_folder("hf/tokenizer.model"), in_folder("spm")), 0);
    assert_int_equal(qp_convert(in_folder("hf"), in_folder("b.bin"), NULL, &error), QUIP_E_IO);
    assert_contains(error.message, "say where with --tokenizer");
    const struct convert_options options = { .tokenizer = in_folder("spm") };
    if (qp_convert(in_folder("hf"), in_folder("b.bin"), &options, &error))
        fail_msg("%s", error.message);
    assert_same_file(in_folder("a.bin"), in_folder("b.bin"));
}

/* ---- what can be wrong ---- */

static void test_wrong_tensors(void **state)
{
    (void)state;
    write_folder(&llama_tied,
                 &(struct folder_options){ .skip = "model.layers.1.self_attn.k_proj.weight",
                                           .misshape = "model.layers.0.mlp.up_proj.weight",
                                           .extra = "model.layers.0.self_attn.q_proj.bias" });
    const char *message = convert_fails(CONVERT_INT8, QUIP_E_FORMAT);
    assert_contains(message, "missing: model.layers.1.self_attn.k_proj.weight");
    assert_contains(message,
                    "misshapen: model.layers.0.mlp.up_proj.weight is [960, 1], not [40, 24]");
    assert_contains(message, "not known: model.layers.0.self_attn.q_proj.bias");

    write_folder(&llama_tied, &plain); // tied, where an untied one is announced
    write_config(&llama_untied);
    assert_contains(convert_fails(CONVERT_INT8, QUIP_E_FORMAT), "missing: lm_head.weight");
    write_folder(&llama_untied, &plain); // the reverse: a second copy of the head is no fault
    write_config(&llama_tied);
    convert_ok(in_folder("hf"), in_folder("out.bin"), CONVERT_INT8);
}

static void replace_in_config(const char *from, const char *to)
{
    size_t n;
    char *text = read_whole(in_folder("hf/config.json"), &n);
    char *at = strstr(text, from);
    struct bytes out = { 0 };
    assert_non_null(at);
    assert_true(qp_bytes_printf(&out, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from)));
    write_file("hf/config.json", out.data, out.n);
    qp_bytes_close(&out);
    free(text);
}

static void test_wrong_configs(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to, *message;
        quip_status status;
    } cases[] = {
        { "\"llama\"", "\"mamba\"", "model_type \"mamba\" cannot be", QUIP_E_UNSUPPORTED },
        { "\"silu\"", "\"relu\"", "hidden_act is \"relu\"", QUIP_E_UNSUPPORTED },
        { "hidden_size", "hiden_size", "has no hidden_size", QUIP_E_FORMAT },
        { ": 24", ": \"24\"", "hidden_size is not a number", QUIP_E_FORMAT },
        { ": 24", ": 24.5", "hidden_size is 24.5", QUIP_E_FORMAT },
        { ": 24", ": 1e300", "hidden_size is 1e+300", QUIP_E_FORMAT },
        { ": 24", ": -24", "hidden_size is -24", QUIP_E_FORMAT },
        { "\"head_dim\": 8", "\"head_dim\": 7", "head size of 7 is odd", QUIP_E_FORMAT },
        { "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3", "4 heads cannot",
          QUIP_E_FORMAT },
        { "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 100000", "layers are more than",
          QUIP_E_FORMAT },
        { "\"rope_theta\": 500000", "\"rope_theta\": 0", "not all in range", QUIP_E_FORMAT },
        { "\"bos_token_id\": 2", "\"bos_token_id\": 280", "is outside the vocabulary",
          QUIP_E_FORMAT },
        { "\"rope_theta\"",
          "\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8}, \"rope_theta\"",
          "rope type \"llama3\"", QUIP_E_UNSUPPORTED },
        { "{", "[", "is not JSON", QUIP_E_FORMAT },
    };
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        write_folder(&llama_tied, &plain);
        replace_in_config(cases[i].from, cases[i].to);
        assert_contains(convert_fails(CONVERT_INT8, cases[i].status), cases[i].message);
    }
    unlink(in_folder("hf/config.json"));
    assert_contains(convert_fails(CONVERT_INT8, QUIP_E_FORMAT), "has no config.json");
}

static void nan_tensor(void *user, const struct sample_tensor *t)
{
    *(float *)user = t->values[0];
}

static void test_values_that_are_not_finite(void **state)
{
    (void)state;
    size_t n;
    float first = 0;
    const float nan_value = NAN;
    write_folder(&llama_untied, &plain);
    each_tensor(&llama_untied, nan_tensor, &first); // the last tensor: lm_head
    char *data = read_whole(in_folder("hf/model.safetensors"), &n);
    memcpy(data + n - 4, &nan_value, 4);
    write_file("hf/model.safetensors", data, n);
    free(data);
    assert_contains(convert_fails(CONVERT_INT4, QUIP_E_FORMAT),
                    "lm_head.weight has a value that is not a finite number");
}

static bool stop_half_way(void *user, uint64_t done, uint64_t total, const char *what)
{
    (void)what;
    uint64_t *last = user;
    assert_true(done > *last && done <= total);
    *last = done;
    return done < total / 2;
}

static bool go_on(void *user, uint64_t done, uint64_t total, const char *what)
{
    (void)what;
    uint64_t *last = user;
    last[0] = done;
    last[1] = total;
    return true;
}

static void test_progress_and_cancel(void **state)
{
    (void)state;
    quip_error error = { 0 };
    uint64_t seen[2] = { 0 };
    struct convert_options options = { .on_progress = stop_half_way, .user = seen };
    write_folder(&llama_tied, &plain);
    assert_int_equal(qp_convert(in_folder("hf"), in_folder("out.bin"), &options, &error),
                     QUIP_E_CANCELLED);
    assert_no_output();
    options.on_progress = go_on;
    assert_int_equal(qp_convert(in_folder("hf"), in_folder("out.bin"), &options, &error), 0);
    assert_true(seen[0] == seen[1]);
    options.chat = "klingon";
    assert_int_equal(qp_convert(in_folder("hf"), in_folder("out.bin"), &options, &error),
                     QUIP_E_ARGUMENT);
    assert_contains(error.message, "no chat template \"klingon\"");
}

static void test_wrong_inputs(void **state)
{
    (void)state;
    quip_error error = { 0 };
    assert_int_equal(qp_convert(in_folder("none"), in_folder("out.bin"), NULL, &error), QUIP_E_IO);
    write_text("in.gguf", "GGUX and so on");
    assert_int_equal(qp_convert(in_folder("in.gguf"), in_folder("out.bin"), NULL, &error),
                     QUIP_E_FORMAT);
    write_folder(&llama_tied, &plain);
    unlink(in_folder("hf/config.json"));
    assert_int_equal(
        qp_convert(in_folder("hf/model.safetensors"), in_folder("out.bin"), NULL, &error),
        QUIP_E_FORMAT);
    assert_contains(error.message, "hf: has no config.json");
    assert_int_equal(qp_convert(in_folder("hf/*.pth"), in_folder("out.bin"), NULL, &error),
                     QUIP_E_IO);
    assert_contains(error.message, "no file matches that");
    write_config(&llama_tied);
    assert_int_equal(qp_convert(in_folder("hf"), in_folder("hf"), NULL, &error), QUIP_E_ARGUMENT);
    assert_int_equal(qp_convert(in_folder("in.gguf"), in_folder("in.gguf"), NULL, &error),
                     QUIP_E_ARGUMENT);
    assert_contains(error.message, "is the checkpoint itself");
    unlink(in_folder("hf/tokenizer.model"));
    assert_int_equal(qp_convert(in_folder("hf"), in_folder("out.bin"), NULL, &error), QUIP_E_IO);
    write_text("hf/tokenizer.model", "nonsense");
    assert_true(qp_convert(in_folder("hf"), in_folder("out.bin"), NULL, &error) != 0);
    assert_no_output();
}

/* A GGUF that ends early, anywhere in its header and at some places after it. */
static void test_truncated_gguf(void **state)
{
    (void)state;
    size_t n;
    quip_error error;
    write_gguf(&llama_tied);
    char *data = read_whole(in_folder("in.gguf"), &n);
    for (size_t cut = 0; cut < n; cut += cut < 1024 ? 1 : 997) {
        write_file("in.gguf", data, cut);
        assert_true(qp_convert(in_folder("in.gguf"), in_folder("out.bin"), NULL, &error) != 0);
    }
    free(data);
    assert_no_output();
}

/* Bits flipped at random, most of them in the header: an error or a model, never a crash. */
static void test_flipped_bits(void **state)
{
    (void)state;
    size_t n;
    uint32_t seed = 7;
    write_gguf(&gemma3);
    char *data = read_whole(in_folder("in.gguf"), &n);
    for (int round = 0; round < 400; round++) {
        seed = seed * 1664525u + 1013904223u;
        size_t at = (seed >> 4) % (round % 8 ? 9000 : n);
        char bit = (char)(1 << (seed >> 29));
        data[at] ^= bit;
        write_file("in.gguf", data, n);
        qp_convert(in_folder("in.gguf"), in_folder("out.bin"), NULL, NULL);
        unlink(in_folder("out.bin"));
        data[at] ^= bit;
    }
    free(data);
    assert_no_output();
}

static void fail_each_allocation(const char *name)
{
    char in[256];
    snprintf(in, sizeof in, "%s/%s", folder, name);
    const int before = alloc_fault_live();
    for (int n = 0;; n++) {
        quip_error error = { 0 };
        alloc_fault_set(n);
        quip_status status = qp_convert(in, in_folder("out.bin"), NULL, &error);
        bool has_failed = alloc_fault_clear();
        assert_int_equal(alloc_fault_live(), before);
        if (!has_failed) {
            assert_int_equal(status, 0);
            print_message("%s: %d allocations\n", in, n);
            break;
        }
        if (status != QUIP_E_MEMORY && status != QUIP_E_FORMAT) // cJSON cannot tell them apart
            fail_msg("allocation %d failed, the status was %s: %s", n, quip_status_name(status),
                     error.message);
        assert_true(*error.message);
        assert_no_output();
    }
    unlink(in_folder("out.bin"));
}

static void test_failing_allocations(void **state)
{
    (void)state;
    if (!alloc_fault_is_here())
        skip();
    write_gguf(&gemma3);
    write_folder(&llama_untied, &plain);
    cJSON_InitHooks(&(cJSON_Hooks){ malloc, free }); // its allocations are in another library
    fail_each_allocation("in.gguf");
    fail_each_allocation("hf");
    write_folder(&phi2, &plain);
    fail_each_allocation("hf");
    convert_ok(in_folder("hf"), in_folder("in.gguf"), CONVERT_F32); // a model file for all its name
    fail_each_allocation("in.gguf");
    cJSON_InitHooks(NULL);
}

/* Each file of a folder cut short, and bits flipped in what says what it holds. */
static void test_damaged_folder(void **state)
{
    (void)state;
    static const char *const names[] = { "hf/config.json", "hf/model.safetensors",
                                         "hf/tokenizer.model" };
    uint32_t seed = 11;
    quip_error error;
    write_folder(&llama_tied, &plain);
    for (size_t i = 0; i < QP_COUNT(names); i++) {
        size_t n, n_converted = 0;
        char *data = read_whole(in_folder(names[i]), &n);
        for (size_t cut = 0; cut < n; cut += cut < 600 ? 7 : 1997) {
            write_file(names[i], data, cut);
            n_converted += !qp_convert(in_folder("hf"), in_folder("out.bin"), NULL, &error);
            unlink(in_folder("out.bin"));
        }
        if (n_converted && i < 2) // a vocabulary may end between two pieces
            fail_msg("%s: cut short it converts", names[i]);
        for (int round = 0; round < 200; round++) {
            seed = seed * 1664525u + 1013904223u;
            size_t at = (seed >> 4) % (n < 1500 ? n : 1500);
            char bit = (char)(1 << (seed >> 29));
            data[at] ^= bit;
            write_file(names[i], data, n);
            if (qp_convert(in_folder("hf"), in_folder("out.bin"), NULL, &error))
                assert_true(*error.message);
            unlink(in_folder("out.bin"));
            data[at] ^= bit;
        }
        write_file(names[i], data, n);
        free(data);
    }
    assert_no_output();
}

/* ---- tokenizers ---- */

/* The same small byte-level BPE as GGUF metadata and as JSON, in both spellings of merges. */
static void test_byte_level_bpe(void **state)
{
    (void)state;
    static const char *const pieces[] = { "<|end|>",
                                          "a",
                                          "b",
                                          "\xc4\xa0",
                                          "ab",
                                          ("\xc4\xa0"
                                           "ab") };
    struct gguf g = { .sample = &llama_tied };
    struct bytes all = { 0 }, spm[3] = { { 0 } }, bpe[3] = { { 0 } };
    struct file file = { 0 };
    struct format format = { 0 };
    quip_error error = { 0 };
    gguf_text(&g, "general.architecture", "llama");
    gguf_text(&g, "tokenizer.ggml.model", "gpt2");
    gguf_text(&g, "tokenizer.ggml.pre", "smollm");
    gguf_list(&g, "tokenizer.ggml.tokens", GGUF_TYPE_TEXT, (int)QP_COUNT(pieces));
    for (size_t i = 0; i < QP_COUNT(pieces); i++)
        put_text(&g.metadata, pieces[i]);
    gguf_list(&g, "tokenizer.ggml.token_type", GGUF_TYPE_I32, (int)QP_COUNT(pieces));
    for (size_t i = 0; i < QP_COUNT(pieces); i++)
        put_u32(&g.metadata, i == 0 ? PIECE_CONTROL : PIECE_NORMAL);
    gguf_list(&g, "tokenizer.ggml.merges", GGUF_TYPE_TEXT, 2);
    put_text(&g.metadata, "a b");
    put_text(&g.metadata, "\xc4\xa0 ab");
    put(&all, "GGUF", 4);
    put_u32(&all, 3);
    put_u64(&all, 0);
    put_u64(&all, (uint64_t)g.n_metadata);
    put(&all, g.metadata.data, g.metadata.n);
    qp_file_open_memory(&file, all.data, all.n, "memory");
    if (qp_format_open(&format, &file, &error) ||
        qp_import_tokenizer_gguf(&format, &spm[0], &bpe[0], &error))
        fail_msg("%s", error.message);
    static const char *const merges[] = { "[\"a b\", \"\\u0120 ab\"]",
                                          "[[\"a\", \"b\"], [\"\\u0120\", \"ab\"]]" };
    for (int i = 0; i < 2; i++) {
        char json[1500];
        snprintf(json, sizeof json,
                 "{\"added_tokens\": [{\"id\": 0, \"content\": \"<|end|>\", \"special\": true, "
                 "\"normalized\": false}], \"normalizer\": null, \"pre_tokenizer\": {\"type\": "
                 "\"Sequence\", \"pretokenizers\": [{\"type\": \"Digits\", \"individual_digits\": "
                 "true}, {\"type\": \"ByteLevel\", \"add_prefix_space\": false}]}, \"model\": "
                 "{\"type\": \"BPE\", \"vocab\": {\"a\": 1, \"b\": 2, \"\\u0120\": 3, \"ab\": 4, "
                 "\"\\u0120ab\": 5}, \"merges\": %s}}",
                 merges[i]);
        write_text("hf/tokenizer.json", json);
        if (qp_import_tokenizer_json(in_folder("hf/tokenizer.json"), &spm[i + 1], &bpe[i + 1],
                                     &error))
            fail_msg("%s", error.message);
        assert_int_equal(spm[0].n, spm[i + 1].n);
        assert_memory_equal(spm[0].data, spm[i + 1].data, spm[0].n);
        assert_int_equal(bpe[0].n, bpe[i + 1].n);
        assert_memory_equal(bpe[0].data, bpe[i + 1].data, bpe[0].n);
    }
    for (int i = 0; i < 3; i++) {
        qp_bytes_close(&spm[i]);
        qp_bytes_close(&bpe[i]);
    }
    qp_format_close(&format);
    qp_file_close(&file);
    qp_bytes_close(&all);
    qp_bytes_close(&g.metadata);
}

static void test_wrong_tokenizers(void **state)
{
    (void)state;
#define BYTE_LEVEL "\"pre_tokenizer\": {\"type\": \"ByteLevel\"}, "
    static const struct {
        const char *json, *message;
    } cases[] = {
        { "[]", "is not a JSON object" },
        { "{", "is not JSON" },
        { "{}", "its model is \"\"" },
        { "{\"model\": {\"type\": \"WordPiece\", \"vocab\": {}}}", "its model is \"WordPiece\"" },
        { "{\"pre_tokenizer\": {\"type\": \"Klingon\"}, \"model\": {\"type\": \"BPE\", "
          "\"vocab\": {\"a\": 0}, \"merges\": []}}",
          "its pre-tokenizer has a step \"Klingon\"" },
        { "{" BYTE_LEVEL "\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": -1}}}",
          "piece \"a\" is out of range" },
        { "{" BYTE_LEVEL "\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 1e9}}}",
          "piece \"a\" is out of range" },
        { "{" BYTE_LEVEL "\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": \"x\"}}}",
          "piece \"a\" is out of range" },
        { "{" BYTE_LEVEL "\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": "
          "[\"a b\"]}}",
          "not of pieces in the vocabulary" },
        { "{" BYTE_LEVEL "\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": "
          "[[\"a\"]]}}",
          "a merge is not two pieces" },
        { "{" BYTE_LEVEL "\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [7]}}",
          "a merge is not two pieces" },
    };
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        struct bytes spm = { 0 }, bpe = { 0 };
        quip_error error = { 0 };
        write_text("hf/tokenizer.json", cases[i].json);
        assert_true(qp_import_tokenizer_json(in_folder("hf/tokenizer.json"), &spm, &bpe, &error));
        assert_contains(error.message, cases[i].message);
        qp_bytes_close(&spm);
        qp_bytes_close(&bpe);
    }
}

/* ---- reference data ---- */

static void copy_shared(const char *name, const char *to)
{
    size_t n;
    need_shared(name);
    char *data = read_whole(shared_path(name), &n);
    write_file(to, data, n);
    free(data);
}

/* The two layouts of config.json describe one model. */
static void test_config_layouts(void **state)
{
    (void)state;
    static const struct {
        const char *name, *tokenizer;
    } models[] = {
        { "gemma3", "tokenizer.model" },  { "gemma3-linear", "tokenizer.model" },
        { "gemma", "tokenizer.model" },   { "gemma2", "tokenizer.model" },
        { "phi2", "tokenizer.json" },     { "falcon-rw", "tokenizer.json" },
        { "stablelm", "tokenizer.json" }, { "smollm2", "tokenizer.model" },
    };
    static const char *const files[] = { "config.json", "model.safetensors",
                                         "tokenizer_config.json", "generation_config.json" };
    for (size_t i = 0; i < QP_COUNT(models); i++) {
        char name[200], to[60];
        for (size_t j = 0; j < QP_COUNT(files); j++) {
            snprintf(name, sizeof name, "data/golden/%s/%s", models[i].name, files[j]);
            snprintf(to, sizeof to, "hf/%s", files[j]);
            copy_shared(name, to);
        }
        unlink(in_folder("hf/tokenizer.model"));
        snprintf(name, sizeof name, "data/golden/%s/%s", models[i].name, models[i].tokenizer);
        snprintf(to, sizeof to, "hf/%s", models[i].tokenizer);
        copy_shared(name, to);
        convert_ok(in_folder("hf"), in_folder("a.bin"), CONVERT_MIXED);
        snprintf(name, sizeof name, "data/golden/%s/config_v5.json", models[i].name);
        copy_shared(name, "hf/config.json");
        convert_ok(in_folder("hf"), in_folder("b.bin"), CONVERT_MIXED);
        assert_same_file(in_folder("a.bin"), in_folder("b.bin"));
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, drop_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_gguf_and_folder_are_equal),
        TEST(test_dtypes),
        TEST(test_calibration),
        TEST(test_metadata),
        TEST(test_shards_and_bf16),
        TEST(test_model_types),
        TEST(test_refused_options),
        TEST(test_other_tokenizer),
        TEST(test_wrong_tensors),
        TEST(test_wrong_configs),
        TEST(test_values_that_are_not_finite),
        TEST(test_progress_and_cancel),
        TEST(test_wrong_inputs),
        TEST(test_truncated_gguf),
        TEST(test_flipped_bits),
        TEST(test_failing_allocations),
        TEST(test_damaged_folder),
        TEST(test_byte_level_bpe),
        TEST(test_wrong_tokenizers),
        TEST(test_config_layouts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
