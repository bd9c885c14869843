/* tokenizer.c: how fast a vocabulary opens and a text is tokenized, on one thread.
 *
 *     build/bench/tokenizer MODEL TEXT [BLOB]
 *
 * MODEL is a SentencePiece model. BLOB is the quip.tokenizer of a byte-level BPE model. The text is
 * tokenized as a whole, like a prompt, and line by line, like a stream of short texts. The result
 * is CPU time, the best of several runs, so that other work on the machine has little effect. */
#include "tokenizer/tokenizer.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

enum {
    N_RUNS = 5
};

static double cpu_seconds(void)
{
    return (double)clock() / CLOCKS_PER_SEC;
}

static struct tokenizer *bench_open(const struct file *spm, const struct file *blob)
{
    struct tokenizer *t = NULL;
    quip_error error;
    double best = 1e9;
    for (int run = 0; run < N_RUNS; run++) {
        qp_tokenizer_close(t);
        double begin = cpu_seconds();
        if (qp_tokenizer_open(&t, spm->data, (size_t)spm->size, blob->data, (size_t)blob->size,
                              &error)) {
            fprintf(stderr, "%s\n", error.message);
            return NULL;
        }
        double seconds = cpu_seconds() - begin;
        best = seconds < best ? seconds : best;
    }
    printf("open   %7.2f ms, %.1f MB, %d tokens\n", 1e3 * best,
           (double)qp_tokenizer_memory(t) / 1e6, qp_tokenizer_n_tokens(t));
    return t;
}

/* Tokenize the text, line by line or all at once. Returns the number of ids, or -1 on failure. */
static int encode_text(const struct tokenizer *t, const char *text, size_t n, bool by_lines)
{
    struct tokens ids = { 0 };
    bool ok = true;
    for (size_t i = 0, length; ok && i < n; i += length) {
        const char *newline = by_lines ? memchr(text + i, '\n', n - i) : NULL;
        length = newline ? (size_t)(newline - text) + 1 - i : n - i;
        ok = !qp_tokenizer_encode(t, text + i, length, false, &ids, NULL);
    }
    int n_ids = ok ? ids.n : -1;
    qp_tokens_close(&ids);
    return n_ids;
}

static void bench_encode(const struct tokenizer *t, const struct file *text, bool by_lines)
{
    double best = 1e9;
    int n_ids = 0;
    for (int run = 0; run < N_RUNS; run++) {
        double begin = cpu_seconds();
        n_ids = encode_text(t, (const char *)text->data, (size_t)text->size, by_lines);
        double seconds = cpu_seconds() - begin;
        best = seconds < best ? seconds : best;
    }
    printf("%s  %7.2f MB/s, %.2f Mtoken/s, %d tokens\n", by_lines ? "lines" : "whole",
           (double)text->size / 1e6 / best, n_ids / 1e6 / best, n_ids);
}

int main(int argc, char **argv)
{
    struct file files[3] = { 0 }; // model, text, blob
    quip_error error;
    if (argc < 3 || argc > 4) {
        fprintf(stderr, "usage: %s MODEL TEXT [BLOB]\n", argv[0]);
        return 2;
    }
    for (int i = 0; i + 1 < argc; i++) {
        if (qp_file_open(&files[i], argv[i + 1], &error)) {
            fprintf(stderr, "%s\n", error.message);
            return 1;
        }
    }
    struct tokenizer *t = bench_open(&files[0], &files[2]);
    if (t) {
        bench_encode(t, &files[1], false);
        bench_encode(t, &files[1], true);
    }
    qp_tokenizer_close(t);
    for (int i = 0; i < 3; i++)
        qp_file_close(&files[i]);
    return t ? 0 : 1;
}
