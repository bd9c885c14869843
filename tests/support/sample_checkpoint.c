/* sample_checkpoint.c: see sample_checkpoint.h */
#include "support/sample_checkpoint.h"
#include "support/shared.h"
#include "support/tensors.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- the model ---- */

const struct sample sample_llama_tied = { "llama", FAMILY_LLAMA, true };
const struct sample sample_llama_untied = { "llama", FAMILY_LLAMA, false };
const struct sample sample_gemma3 = { "gemma3", FAMILY_GEMMA3, true };
const struct sample sample_phi2 = { "phi2", FAMILY_PHI2, false };
const struct sample sample_stablelm = { "stablelm", FAMILY_STABLELM, false };

bool has_layer_norm(const struct sample *s)
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
    default: // of no sample
        return 0;
    }
}

/* Values are multiples of 1/1024 below 2, so that adding and subtracting 1 is exact. */
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

void each_sample_tensor(const struct sample *s, on_sample_tensor *fn, void *user)
{
    static struct sample_tensor t;
    for (int i = 0; i < qp_n_tensor_rows; i++) {
        const struct tensor_row *row = &qp_tensor_rows[i];
        if (!family_has_row(i, qp_family(s->family), s->is_tied))
            continue;
        for (int l = 0; l < (qp_tensor_row_is_layered(row) ? N_LAYERS : 1); l++) {
            fill_sample(&t, row, l);
            fn(user, &t);
        }
    }
}

/* ---- vocabulary ---- */

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

const char *in_folder(const char *name)
{
    static char paths[4][256];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

void write_file(const char *name, const void *data, size_t n)
{
    FILE *f = fopen(in_folder(name), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

void write_text(const char *name, const char *text)
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

int make_sample_folder(void **state)
{
    (void)state;
    strcpy(folder, "test-convert-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    return mkdir(in_folder("hf"), 0777);
}

int drop_sample_folder(void **state)
{
    (void)state;
    remove_tree(folder);
    return 0;
}

void assert_no_output(void)
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

void put_bytes(struct bytes *b, const void *data, size_t n)
{
    assert_true(qp_bytes_append(b, data, n));
}
void put_u32(struct bytes *b, uint32_t x)
{
    put_bytes(b, &x, 4);
}
void put_u64(struct bytes *b, uint64_t x)
{
    put_bytes(b, &x, 8);
}
void put_text(struct bytes *b, const char *text)
{
    put_u64(b, strlen(text));
    put_bytes(b, text, strlen(text));
}

/* The last entry is complete. */
static void end_entry(struct gguf *g)
{
    if (g->is_skipped) {
        g->metadata.n = g->entry_begin;
        g->n_metadata--;
    }
    g->is_skipped = false;
}

static bool is_skipped_key(const struct gguf *g, const char *key)
{
    char word[100];
    snprintf(word, sizeof word, ",%s,", key);
    return g->options && !g->has_all && g->options->skip && strstr(g->options->skip, word);
}

static void gguf_key(struct gguf *g, const char *key, uint32_t type)
{
    end_entry(g);
    g->entry_begin = g->metadata.n;
    g->is_skipped = is_skipped_key(g, key);
    put_text(&g->metadata, key);
    put_u32(&g->metadata, type);
    g->n_metadata++;
}
void gguf_u32(struct gguf *g, const char *key, uint32_t value)
{
    gguf_key(g, key, GGUF_TYPE_U32);
    put_u32(&g->metadata, value);
}
void gguf_f32(struct gguf *g, const char *key, float value)
{
    gguf_key(g, key, GGUF_TYPE_F32);
    put_bytes(&g->metadata, &value, 4);
}
void gguf_bool(struct gguf *g, const char *key, bool value)
{
    gguf_key(g, key, GGUF_TYPE_BOOL);
    put_bytes(&g->metadata, &value, 1);
}
void gguf_text(struct gguf *g, const char *key, const char *value)
{
    gguf_key(g, key, GGUF_TYPE_TEXT);
    put_text(&g->metadata, value);
}
void gguf_list(struct gguf *g, const char *key, uint32_t type, int n)
{
    gguf_key(g, key, GGUF_TYPE_LIST);
    put_u32(&g->metadata, type);
    put_u64(&g->metadata, (uint64_t)n);
}

/* Is it a part of attn_qkv? */
static bool is_fused_part(const char *name)
{
    return strstr(name, ".attn_q.") || strstr(name, ".attn_k.") || strstr(name, ".attn_v.");
}

/* Row r of GGUF's tensor is this row of Hugging Face's: those of llama's q and k are in pairs. */
static int gguf_row_from(const struct gguf *g, const struct sample_tensor *t, int r)
{
    const int d = r % HEAD_DIM;
    const bool is_paired = g->sample->family == FAMILY_LLAMA && t->row->has_rope;
    return is_paired ? r - d + d % 2 * (HEAD_DIM / 2) + d / 2 : r;
}

static void gguf_tensor(void *user, const struct sample_tensor *t)
{
    struct gguf *g = user;
    const struct gguf_options *o = g->options;
    bool is_vector = t->row->cols == EXTENT_NONE;
    if ((o->n_parts && g->n_seen++ % o->n_parts != o->part) ||
        (o->skip_tensor && strcmp(t->gguf, o->skip_tensor) == 0) ||
        (o->fuses_qkv && is_fused_part(t->gguf)))
        return;
    put_text(&g->infos, t->gguf);
    put_u32(&g->infos, is_vector ? 1 : 2);
    if (!is_vector)
        put_u64(&g->infos, (uint64_t)t->cols); // innermost first
    put_u64(&g->infos, (uint64_t)t->rows);
    put_u32(&g->infos, 0); // F32
    put_u64(&g->infos, g->data.n);
    for (int r = 0; r < t->rows; r++) {
        const int source = gguf_row_from(g, t, r);
        for (int c = 0; c < t->cols; c++) {
            float w = t->values[source * t->cols + c];
            if (o->zeroes_layers && !is_vector && strncmp(t->gguf, "blk.", 4) == 0)
                w = 0;
            if (g->sample->family == FAMILY_GEMMA3 && is_vector)
                w += 1;
            put_bytes(&g->data, &w, 4);
        }
    }
    while (g->data.n % 32)
        put_bytes(&g->data, "", 1);
    g->n_tensors++;
}

/* A tensor of q, k and v, part by part. */
struct fused {
    struct gguf *g;
    char part[80]; // its name in a file that is not fused
    int rows, cols;
};

static void append_part(void *user, const struct sample_tensor *t)
{
    struct fused *f = user;
    if (strcmp(t->gguf, f->part) != 0)
        return;
    for (int r = 0; r < t->rows; r++)
        put_bytes(&f->g->data, t->values + gguf_row_from(f->g, t, r) * t->cols,
                  (size_t)t->cols * sizeof *t->values);
    f->rows += t->rows;
    f->cols = t->row->cols == EXTENT_NONE ? 0 : t->cols;
}

/* blk.N.attn_qkv.weight, or .bias if the sample has that. */
static void gguf_fused(struct gguf *g, int layer, const char *suffix)
{
    struct fused f = { .g = g };
    char name[80];
    const size_t begin = g->data.n;
    for (const char *part = "qkv"; *part; part++) {
        snprintf(f.part, sizeof f.part, "blk.%d.attn_%c.%s", layer, *part, suffix);
        each_sample_tensor(g->sample, append_part, &f);
    }
    if (f.rows == 0)
        return;
    snprintf(name, sizeof name, "blk.%d.attn_qkv.%s", layer, suffix);
    put_text(&g->infos, name);
    put_u32(&g->infos, f.cols ? 2 : 1);
    if (f.cols)
        put_u64(&g->infos, (uint64_t)f.cols);
    put_u64(&g->infos, (uint64_t)f.rows);
    put_u32(&g->infos, 0); // F32
    put_u64(&g->infos, begin);
    while (g->data.n % 32)
        put_bytes(&g->data, "", 1);
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
        put_bytes(&g->metadata, &score, 4);
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

void gguf_zeros(struct gguf *g, const char *name, int rows, int cols, uint32_t type, size_t n_bytes)
{
    put_text(&g->infos, name);
    put_u32(&g->infos, cols ? 2 : 1);
    if (cols)
        put_u64(&g->infos, (uint64_t)cols);
    put_u64(&g->infos, (uint64_t)rows);
    put_u32(&g->infos, type);
    put_u64(&g->infos, g->data.n);
    for (size_t i = 0; i < (n_bytes + 31) / 32 * 32; i++)
        put_bytes(&g->data, "", 1);
    g->n_tensors++;
}

void gguf_floats(struct gguf *g, const char *name, int rows, int cols, const float *values)
{
    const size_t n = (size_t)rows * (size_t)(cols ? cols : 1) * sizeof *values;
    const size_t begin = g->data.n;
    gguf_zeros(g, name, rows, cols, 0, n);
    memcpy(g->data.data + begin, values, n);
}

void save_gguf(struct gguf *g, const char *path)
{
    struct bytes all = { 0 };
    end_entry(g);
    put_bytes(&all, "GGUF", 4);
    put_u32(&all, 3);
    put_u64(&all, (uint64_t)g->n_tensors);
    put_u64(&all, (uint64_t)g->n_metadata);
    put_bytes(&all, g->metadata.data, g->metadata.n);
    put_bytes(&all, g->infos.data, g->infos.n);
    while (all.n % 32)
        put_bytes(&all, "", 1);
    put_bytes(&all, g->data.data, g->data.n);
    save_file(path, all.data, all.n);
    qp_bytes_close(&g->metadata);
    qp_bytes_close(&g->infos);
    qp_bytes_close(&g->data);
    qp_bytes_close(&all);
}

static void gguf_hparams(struct gguf *g, const struct sample *s)
{
    gguf_text(g, "general.architecture", s->architecture);
    gguf_arch(g, "block_count", N_LAYERS);
    gguf_arch(g, "embedding_length", D_MODEL);
    gguf_arch(g, "feed_forward_length", D_FF);
    gguf_arch(g, "attention.head_count", N_HEADS);
    gguf_arch(g, "attention.head_count_kv", N_KV_HEADS);
    if (has_layer_norm(s))
        gguf_arch(g, "rope.dimension_count", ROPE_DIM);
    gguf_arch(g, "attention.key_length", HEAD_DIM);
    gguf_arch(g, "context_length", 512);
    char key[80];
    snprintf(key, sizeof key, "%s.attention.layer_norm_%sepsilon", s->architecture,
             has_layer_norm(s) ? "" : "rms_");
    gguf_f32(g, key, 1e-5f);
    snprintf(key, sizeof key, "%s.rope.freq_base", s->architecture);
    gguf_f32(g, key, 5e5f);
    if (s->family == FAMILY_GEMMA3)
        gguf_arch(g, "attention.sliding_window", 16);
    gguf_vocabulary(g);
}

void write_gguf_as(const struct sample *s, const struct gguf_options *options)
{
    struct gguf g = { .sample = s, .options = options };
    if (options->part == 0)
        gguf_hparams(&g, s);
    if (options->n_parts) {
        gguf_u32(&g, "split.no", (uint32_t)options->part);
        gguf_u32(&g, "split.count", (uint32_t)options->n_parts);
    }
    each_sample_tensor(s, gguf_tensor, &g);
    for (int l = 0; options->fuses_qkv && l < N_LAYERS; l++) {
        gguf_fused(&g, l, "weight");
        gguf_fused(&g, l, "bias");
    }
    end_entry(&g);
    g.has_all = true;
    if (options->more)
        options->more(&g);
    save_gguf(&g, in_folder(options->name ? options->name : "in.gguf"));
}

void write_gguf(const struct sample *s)
{
    write_gguf_as(s, &(struct gguf_options){ 0 });
}

/* ---- writing a folder ---- */

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
        put_bytes(b, (uint8_t *)&bits + 2, 2);
    else
        put_bytes(b, &bits, 4);
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

void write_safetensors(const struct sample *s, const char *name,
                       const struct folder_options *options)
{
    struct safetensors st = { .options = options };
    struct bytes all = { 0 };
    each_sample_tensor(s, safetensors_tensor, &st);
    if (options->extra) {
        assert_true(qp_bytes_printf(&st.header,
                                    ",\"%s\":{\"dtype\":\"F32\",\"shape\":[2],"
                                    "\"data_offsets\":[%zu,%zu]}",
                                    options->extra, st.data.n, st.data.n + 8));
        put_u64(&st.data, 0);
    }
    put_u64(&all, st.header.n + 2);
    put_bytes(&all, "{", 1);
    put_bytes(&all, st.header.data, st.header.n);
    put_bytes(&all, "}", 1);
    put_bytes(&all, st.data.data, st.data.n);
    write_file(name, all.data, all.n);
    qp_bytes_close(&st.header);
    qp_bytes_close(&st.data);
    qp_bytes_close(&all);
}

/* The members of config.json that only one family has. */
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

void write_config(const struct sample *s)
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

void write_folder(const struct sample *s, const struct folder_options *options)
{
    struct bytes spm = { 0 };
    make_spm(&spm);
    write_file("hf/tokenizer.model", spm.data, spm.n);
    qp_bytes_close(&spm);
    write_config(s);
    write_safetensors(s, "hf/model.safetensors", options);
}
