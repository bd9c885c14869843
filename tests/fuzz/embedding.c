/* embedding.c: fuzz target for how a model makes embeddings: quip.embedding in its metadata.
 * In:  the text of the entry, in a GGUF file with two dense layers.
 * Out: no crash; what is accepted is in order: token ids of the vocabulary, prompts with names and
 *      texts, dense layers that fit to each other. */
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

enum {
    VOCAB_SIZE = 300,
    D_MODEL = 8,
    ALIGNMENT = 32
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void put(struct bytes *b, const void *data, size_t n)
{
    if (!qp_bytes_append(b, data, n))
        abort();
}

static void put_number(struct bytes *b, uint64_t x, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes; i++, x >>= 8)
        put(b, &(uint8_t){ (uint8_t)x }, 1);
}

static void put_name(struct bytes *b, const char *name)
{
    put_number(b, strlen(name), 8);
    put(b, name, strlen(name));
}

/* A float tensor; cols is 0 for a vector. Returns where the next one begins. */
static size_t put_info(struct bytes *b, const char *name, size_t rows, size_t cols, size_t at)
{
    put_name(b, name);
    put_number(b, cols ? 2 : 1, 4);
    if (cols)
        put_number(b, cols, 8); // innermost first
    put_number(b, rows, 8);
    put_number(b, 0, 4); // F32
    put_number(b, at, 8);
    return at + rows * (cols ? cols : 1) * sizeof(float);
}

static void make_gguf(struct bytes *b, const uint8_t *text, size_t n)
{
    put(b, "GGUF", 4);
    put_number(b, 3, 4);
    put_number(b, 4, 8); // tensors
    put_number(b, 1, 8); // entries of metadata
    put_name(b, "quip.embedding");
    put_number(b, 8, 4); // a string
    put_number(b, n, 8);
    put(b, text, n);
    size_t at = put_info(b, "params.lm.embedding.dense_0.w", 16, D_MODEL, 0);
    at = put_info(b, "params.lm.embedding.dense_0.bias.b", 16, 0, at);
    at = put_info(b, "params.lm.embedding.dense_1.w", 4, 16, at);
    at = put_info(b, "params.lm.embedding.dense_1.bias.b", 8, 0, at);
    while (b->n % ALIGNMENT)
        put_number(b, 0, 1);
    put_number(b, 0, 8);
    for (size_t i = 8; i < at; i += 8)
        put_number(b, i, 8);
}

static void check_embedding(const quip_model *m)
{
    const struct embedding *e = &m->embedding;
    size_t n = 0;
    if (e->default_prompt < -1 || e->default_prompt >= e->n_prompts || !e->pooling)
        abort();
    for (int i = 0; i < e->n_begin; i++)
        if (e->begin[i] < 0 || e->begin[i] >= VOCAB_SIZE)
            abort();
    for (int i = 0; i < e->n_end; i++)
        if (e->end[i] < 0 || e->end[i] >= VOCAB_SIZE)
            abort();
    for (int i = 0; i < e->n_prompts; i++)
        n += strlen(e->prompts[i].name) + strlen(e->prompts[i].text) + 2;
    if (n != e->texts.n)
        abort();
    for (int i = 0; i < m->weights.n_dense; i++) {
        const struct matrix *w = &m->weights.dense[i].w;
        if (w->n_in != qp_pooled_width(&m->weights, D_MODEL, i) || !w->data)
            abort();
        volatile float last = ((const float *)w->data)[(size_t)w->n_out * (size_t)w->n_in - 1];
        last = w->bias ? w->bias[w->n_out - 1] : last;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct bytes gguf = { 0 };
    quip_error error;
    quip_model model = { .config = { .vocab_size = VOCAB_SIZE, .d_model = D_MODEL } };
    make_gguf(&gguf, data, n);
    qp_file_open_memory(&model.file, gguf.data, gguf.n, "fuzz");
    if (qp_format_open(&model.format, &model.file, &error))
        abort();
    if (!qp_embedding_read(&model, &error))
        check_embedding(&model);
    qp_embedding_close(&model.embedding);
    qp_format_close(&model.format);
    qp_file_close(&model.file);
    qp_bytes_close(&gguf);
    return 0;
}
