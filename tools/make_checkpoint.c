/* make_checkpoint.c: a Hugging Face checkpoint of any size, to show that conversion needs the same
 * memory for all of them. Stands alone:
 *
 *     cc -O2 -o make_checkpoint tools/make_checkpoint.c
 *     ./make_checkpoint big layers=32 d_model=4096 d_ff=14336 heads=32 kv_heads=8 vocab=128000
 *     /usr/bin/time -v quip convert big big.bin
 *
 * Writes config.json, model.safetensors (bfloat16) and a tokenizer.model of bytes. The weights are
 * a hole in the file, all zero, which costs no disk; with random=1 they are noise. */
#define _POSIX_C_SOURCE 200809L
#define _FILE_OFFSET_BITS 64
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct setting {
    const char *name;
    long value;
};
enum {
    LAYERS,
    D_MODEL,
    D_FF,
    HEADS,
    KV_HEADS,
    HEAD_DIM,
    VOCAB,
    RANDOM,
    N_SETTINGS
};
static struct setting settings[N_SETTINGS] = {
    [LAYERS] = { "layers", 16 },   [D_MODEL] = { "d_model", 2048 }, [D_FF] = { "d_ff", 8192 },
    [HEADS] = { "heads", 32 },     [KV_HEADS] = { "kv_heads", 8 },  [HEAD_DIM] = { "head_dim", 64 },
    [VOCAB] = { "vocab", 128000 }, [RANDOM] = { "random", 0 },
};

static long setting(int i)
{
    return settings[i].value;
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static FILE *create(const char *folder, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    if (!f)
        die(path);
    return f;
}

static void finish(FILE *f, const char *name)
{
    if (ferror(f) || fclose(f))
        die(name);
}

static void write_config(const char *folder)
{
    FILE *f = create(folder, "config.json");
    fprintf(f,
            "{\"model_type\": \"llama\", \"hidden_act\": \"silu\", \"rms_norm_eps\": 1e-05,\n"
            " \"num_hidden_layers\": %ld, \"hidden_size\": %ld, \"intermediate_size\": %ld,\n"
            " \"num_attention_heads\": %ld, \"num_key_value_heads\": %ld, \"head_dim\": %ld,\n"
            " \"vocab_size\": %ld, \"max_position_embeddings\": 8192, \"rope_theta\": 500000.0,\n"
            " \"bos_token_id\": 1, \"eos_token_id\": 2, \"tie_word_embeddings\": false,\n"
            " \"torch_dtype\": \"bfloat16\"}\n",
            setting(LAYERS), setting(D_MODEL), setting(D_FF), setting(HEADS), setting(KV_HEADS),
            setting(HEAD_DIM), setting(VOCAB));
    finish(f, "config.json");
}

/* ---- tokenizer.model: <unk>, <s>, </s> and the 256 bytes ---- */

/* ModelProto.pieces: 1 piece, 3 type. Texts are short, so every length is one byte. */
static void put_piece(FILE *f, const char *text, int type)
{
    int n = (int)strlen(text);
    fputc(0x0a, f);
    fputc(n + 4, f);
    fputc(0x0a, f);
    fputc(n, f);
    fputs(text, f);
    fputc(0x18, f);
    fputc(type, f);
}

static void write_tokenizer(const char *folder)
{
    // trainer_spec: model_type = BPE, byte_fallback; normalizer_spec: no dummy prefix, no trimming
    static const unsigned char options[] = { 0x12, 5, 0x18, 2, 0x98, 0x02, 1,
                                             0x1a, 4, 0x18, 0, 0x20, 0 };
    FILE *f = create(folder, "tokenizer.model");
    put_piece(f, "<unk>", 2);
    put_piece(f, "<s>", 3);
    put_piece(f, "</s>", 3);
    for (int i = 0; i < 256; i++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", i);
        put_piece(f, text, 6);
    }
    fwrite(options, 1, sizeof options, f);
    finish(f, "tokenizer.model");
}

/* ---- model.safetensors ---- */

struct header {
    char *text;
    size_t n, capacity;
    uint64_t n_bytes; // of tensors so far
};

/* One entry; cols 0: a vector. */
static void put_tensor(struct header *h, const char *name, long rows, long cols)
{
    if (h->capacity - h->n < 256) {
        h->capacity = h->capacity * 2 + 4096;
        h->text = realloc(h->text, h->capacity);
        if (!h->text)
            die("memory");
    }
    char shape[64];
    uint64_t begin = h->n_bytes;
    h->n_bytes += 2 * (uint64_t)rows * (uint64_t)(cols ? cols : 1);
    snprintf(shape, sizeof shape, cols ? "%ld, %ld" : "%ld", rows, cols);
    h->n += (size_t)snprintf(h->text + h->n, h->capacity - h->n,
                             "%c\"%s\":{\"dtype\":\"BF16\",\"shape\":[%s],\"data_offsets\":[%llu,"
                             "%llu]}",
                             h->n ? ',' : '{', name, shape, (unsigned long long)begin,
                             (unsigned long long)h->n_bytes);
}

static void put_layer(struct header *h, int l)
{
    const long d = setting(D_MODEL), ff = setting(D_FF);
    const long q = setting(HEADS) * setting(HEAD_DIM), kv = setting(KV_HEADS) * setting(HEAD_DIM);
    const struct {
        const char *name;
        long rows, cols;
    } tensors[] = {
        { "input_layernorm", d, 0 },   { "self_attn.q_proj", q, d },
        { "self_attn.k_proj", kv, d }, { "self_attn.v_proj", kv, d },
        { "self_attn.o_proj", d, q },  { "post_attention_layernorm", d, 0 },
        { "mlp.gate_proj", ff, d },    { "mlp.up_proj", ff, d },
        { "mlp.down_proj", d, ff },
    };
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++) {
        char name[120];
        snprintf(name, sizeof name, "model.layers.%d.%s.weight", l, tensors[i].name);
        put_tensor(h, name, tensors[i].rows, tensors[i].cols);
    }
}

/* bfloat16 numbers between 2^-7 and 2^-5 in size, either sign: xorshift64. */
static void write_noise(FILE *f, uint64_t n_bytes)
{
    uint64_t state = 88172645463325252u;
    uint16_t block[4096];
    while (n_bytes > 0) {
        size_t n = n_bytes < sizeof block ? (size_t)n_bytes : sizeof block;
        for (size_t i = 0; i < n / 2; i++) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            block[i] = (uint16_t)((state & 0x80ff) | 0x3c00);
        }
        if (fwrite(block, 1, n, f) != n)
            die("model.safetensors");
        n_bytes -= n;
    }
}

static void write_weights(const char *folder)
{
    struct header h = { 0 };
    FILE *f = create(folder, "model.safetensors");
    put_tensor(&h, "model.embed_tokens.weight", setting(VOCAB), setting(D_MODEL));
    for (int l = 0; l < setting(LAYERS); l++)
        put_layer(&h, l);
    put_tensor(&h, "model.norm.weight", setting(D_MODEL), 0);
    put_tensor(&h, "lm_head.weight", setting(VOCAB), setting(D_MODEL));
    uint8_t length[8];
    for (int i = 0; i < 8; i++)
        length[i] = (uint8_t)((uint64_t)(h.n + 1) >> 8 * i);
    fwrite(length, 1, sizeof length, f);
    fwrite(h.text, 1, h.n, f);
    fputc('}', f);
    if (setting(RANDOM))
        write_noise(f, h.n_bytes);
    else if (fflush(f) || ftruncate(fileno(f), (off_t)(9 + h.n + h.n_bytes)))
        die("model.safetensors");
    finish(f, "model.safetensors");
    printf("%s: %.2f billion parameters, %.2f GB\n", folder, (double)h.n_bytes / 2e9,
           (double)h.n_bytes / 1e9);
    free(h.text);
}

/* "name=value" */
static int set(const char *word)
{
    for (int i = 0; i < N_SETTINGS; i++) {
        size_t n = strlen(settings[i].name);
        if (strncmp(word, settings[i].name, n) == 0 && word[n] == '=') {
            settings[i].value = strtol(word + n + 1, NULL, 10);
            return settings[i].value >= 0 && settings[i].value < 1 << 24;
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    for (int i = 2; i < argc; i++)
        if (!set(argv[i])) {
            fprintf(stderr, "%s: not a setting\n", argv[i]);
            argc = 0;
        }
    if (argc < 2) {
        fprintf(stderr, "usage: make_checkpoint FOLDER");
        for (int i = 0; i < N_SETTINGS; i++)
            fprintf(stderr, " [%s=%ld]", settings[i].name, settings[i].value);
        fprintf(stderr, "\n");
        return 2;
    }
    mkdir(argv[1], 0777); // one that is there will do
    write_config(argv[1]);
    write_tokenizer(argv[1]);
    write_weights(argv[1]);
    return 0;
}
