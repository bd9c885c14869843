/* reads.c (test): a token reads only the weights that it needs: of experts those that are chosen,
 * of per-layer embeddings those of the tokens. All others are in pages that must not be read: a
 * read ends the program. */
#define _DEFAULT_SOURCE // MAP_ANONYMOUS
#include "support/check.h"
#include "support/models.h"
#include "support/tiny_model.h"

#include "engine/engine.h"
#include "model/model.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#define N_TOKENS 20

/* ---- pages that must not be read ---- */

enum {
    MAX_GUARDS = 64
};
struct guards {
    int n;
    void *at[MAX_GUARDS];
    size_t n_bytes[MAX_GUARDS];
};

/* A copy of the first n of n_all bytes, behind which nothing can be read. */
static const void *guarded(struct guards *g, const void *data, size_t n, size_t n_all)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t n_open = (n + page - 1) / page * page, n_closed = (n_all / page + 2) * page;
    uint8_t *at =
        mmap(NULL, n_open + n_closed, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(at != MAP_FAILED && g->n < MAX_GUARDS);
    memcpy(at + n_open - n, data, n);
    assert_int_equal(mprotect(at + n_open, n_closed, PROT_NONE), 0);
    g->at[g->n] = at;
    g->n_bytes[g->n++] = n_open + n_closed;
    return at + n_open - n;
}

/* Only the first rows of the matrix can be read. */
static void guard_rows(struct guards *g, struct matrix *w, int n_rows)
{
    assert_true(n_rows > 0 && n_rows < w->n_out && !w->zeros && !w->bias);
    const size_t n = (size_t)n_rows, n_all = (size_t)w->n_out;
    w->data = guarded(g, w->data, n * w->row_bytes, n_all * w->row_bytes);
    if (w->scales)
        w->scales = guarded(g, w->scales, n * sizeof *w->scales, n_all * sizeof *w->scales);
    if (w->multipliers) {
        const size_t n_row = qp_multiplier_bytes(w->n_in);
        w->multipliers = guarded(g, w->multipliers, n * n_row, n_all * n_row);
    }
}

static void drop_guards(struct guards *g)
{
    for (int i = 0; i < g->n; i++)
        munmap(g->at[i], g->n_bytes[i]);
    g->n = 0;
}

/* ---- models ---- */

static quip_model *open_tiny(const struct tiny_model *tiny)
{
    char path[64];
    quip_error error = { 0 };
    quip_model *m;
    snprintf(path, sizeof path, "reads-%d.bin", (int)getpid());
    check(tiny_model_write(path, tiny, &error), &error);
    check(quip_model_open(&m, path, NULL, &error), &error);
    unlink(path);
    return m;
}

/* The logits after a prompt and some tokens of decode, all of them below n_ids. */
static void run(quip_model *m, int n_ids, float logits[TINY_VOCAB])
{
    quip_session *s;
    quip_token tokens[N_TOKENS];
    quip_error error = { 0 };
    const quip_session_options options = { .n_context = 64, .n_threads = 2 };
    for (int i = 0; i < N_TOKENS; i++)
        tokens[i] = i % 5 == 4 ? n_ids - 1 : (i * 71 + 9) % n_ids;
    check(quip_session_open(&s, m, &options, &error), &error);
    check(quip_session_prefill(s, tokens, N_TOKENS - 4, &error), &error);
    for (int i = N_TOKENS - 4; i < N_TOKENS; i++)
        check(quip_session_prefill(s, &tokens[i], 1, &error), &error);
    memcpy(logits, quip_session_logits(s), TINY_VOCAB * sizeof *logits);
    quip_session_close(s);
}

/* Run on every level before and after `guard`, which returns how many ids the tokens may have. */
static void check_reads(const struct tiny_model *tiny, int n_ids,
                        void (*guard)(struct guards *g, quip_model *m, int n_ids))
{
    static const enum dtype dtypes[] = { DTYPE_F32, DTYPE_I8, DTYPE_I4, DTYPE_I4_BLOCK };
    for (size_t i = 0; i < QP_COUNT(dtypes); i++) {
        const struct tiny_model typed = tiny_with(*tiny, dtypes[i]);
        for (int level = 0; models_set_level(level); level++) {
            struct guards g = { .n = 0 };
            float before[TINY_VOCAB], after[TINY_VOCAB];
            quip_model *m = open_tiny(&typed);
            guard(NULL, m, n_ids);
            run(m, n_ids, before);
            quip_model_close(m);
            m = open_tiny(&typed);
            guard(&g, m, n_ids);
            run(m, n_ids, after);
            assert_memory_equal(before, after, sizeof before);
            quip_model_close(m);
            drop_guards(&g);
        }
    }
    models_reset_level();
}

/* ---- experts ---- */

/* All scores are 0, so the first experts are chosen; the others cannot be read. */
static void guard_experts(struct guards *g, quip_model *m, int n_ids)
{
    static float zeros[16 * 80];
    const struct config *c = &m->config;
    (void)n_ids;
    assert_true((size_t)(c->experts.n * c->d_model) <= QP_COUNT(zeros));
    for (int l = 0; l < c->n_layers; l++) {
        struct layer_weights *w = &m->weights.layers[l];
        if (!w->router)
            continue;
        w->router = zeros;
        const int gate_rows = c->experts.n_used * c->experts.d_ff;
        if (g) {
            guard_rows(g, &w->m[MATRIX_EXPERT_GATE], gate_rows);
            guard_rows(g, &w->m[MATRIX_EXPERT_UP], gate_rows);
            guard_rows(g, &w->m[MATRIX_EXPERT_DOWN], c->experts.n_used * c->d_model);
        }
    }
}

static void test_only_chosen_experts_are_read(void **state)
{
    (void)state;
    check_reads(&tiny_experts, TINY_VOCAB, guard_experts);
}

/* ---- per-layer embeddings ---- */

static void guard_ple(struct guards *g, quip_model *m, int n_ids)
{
    if (g)
        guard_rows(g, &m->weights.ple, n_ids * m->config.n_layers);
}

static void test_only_rows_of_tokens_are_read(void **state)
{
    (void)state;
    check_reads(&tiny_gemma4, 100, guard_ple);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_chosen_experts_are_read),
        cmocka_unit_test(test_only_rows_of_tokens_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
