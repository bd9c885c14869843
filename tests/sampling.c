/* sampling.c (test): how a session draws where its options say nothing: as the checkpoint of its
 * model said, or else as the library does. Greedy is one option away. */
#include "convert/convert.h"
#include "engine/engine.h"
#include "support/check.h"
#include "support/sample_checkpoint.h"
#include "support/shared.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <unistd.h>

#include <cmocka.h>

static const struct folder_options plain;

/* ---- what a model file says ---- */

static quip_model *convert_and_open(const char *in)
{
    quip_error error = { 0 };
    quip_model *model;
    check(qp_convert(in, in_folder("out.bin"), &(struct convert_options){ 0 }, &error), &error);
    check(quip_model_open(&model, in_folder("out.bin"), NULL, &error), &error);
    return model;
}

/* The text of quip.sampling; NULL: the file has none. */
static void assert_sampling_text(quip_model *m, const char *want, const char *of)
{
    const struct metadata *entry = qp_format_find_metadata(&m->format, "quip.sampling");
    const uint8_t *data;
    size_t n;
    if (!want != !entry)
        fail_msg("%s: quip.sampling is %s", of, entry ? "there" : "missing");
    if (!entry)
        return;
    assert_int_equal(qp_format_bytes(&m->format, entry, &data, &n, NULL), QUIP_OK);
    if (n != strlen(want) || memcmp(data, want, n) != 0)
        fail_msg("%s: quip.sampling is \"%.*s\", expected \"%s\"", of, (int)n, (const char *)data,
                 want);
}

static void test_generation_config(void **state)
{
    (void)state;
    static const struct {
        const char *json, *want;
    } cases[] = {
        { NULL, NULL },
        { "{}", NULL },
        { "{\"eos_token_id\": 1, \"max_new_tokens\": 2048, \"temperature\": null}", NULL },
        { "{\"do_sample\": true}", "temperature 1\ntop_k 50\n" },
        { "{\"do_sample\": false, \"temperature\": 0.6}", "temperature 0\ntop_k 50\n" },
        { "{\"do_sample\": true, \"temperature\": 0.7, \"top_k\": 20, \"top_p\": 0.8, "
          "\"repetition_penalty\": 1.05}",
          "temperature 0.7\ntop_k 20\ntop_p 0.8\nrepeat_penalty 1.05\npenalty_window -1\n" },
        { "{\"do_sample\": true, \"top_k\": 64, \"top_p\": 0.95}",
          "temperature 1\ntop_k 64\ntop_p 0.95\n" },
        { "{\"temperature\": 0.6, \"top_k\": 0}", "temperature 0.6\n" }, // do_sample is forgotten
        { "{\"temperature\": 1.0, \"top_p\": 1.0}", NULL },              // says nothing
        { "{\"do_sample\": true, \"top_k\": 0, \"min_p\": 0.1, \"no_repeat_ngram_size\": 3}",
          "temperature 1\nmin_p 0.1\npenalty_window -1\nno_repeat_ngram 3\n" },
        { "{\"do_sample\": true, \"temperature\": -1, \"top_k\": -1, \"top_p\": 7, \"min_p\": "
          "\"a\", \"repetition_penalty\": 1e30}",
          "temperature 0\nrepeat_penalty 100\npenalty_window -1\n" },
    };
    write_folder(&sample_llama_tied, &plain);
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        unlink(in_folder("hf/generation_config.json"));
        if (cases[i].json)
            write_text("hf/generation_config.json", cases[i].json);
        quip_model *m = convert_and_open(in_folder("hf"));
        assert_sampling_text(m, cases[i].want, cases[i].json);
        quip_model_close(m);
    }
}

static void gguf_says_all(struct gguf *g)
{
    gguf_f32(g, "general.sampling.temp", 0.6f);
    gguf_u32(g, "general.sampling.top_k", 20);
    gguf_f32(g, "general.sampling.top_p", 0.95f);
    gguf_f32(g, "general.sampling.min_p", 0.1f);
    gguf_f32(g, "general.sampling.penalty_repeat", 1.1f);
    gguf_u32(g, "general.sampling.penalty_last_n", 32);
}

static void gguf_says_little(struct gguf *g)
{
    gguf_f32(g, "general.sampling.temp", 1);
}

static void gguf_has_no_window(struct gguf *g)
{
    gguf_f32(g, "general.sampling.penalty_repeat", 1.1f);
    gguf_u32(g, "general.sampling.penalty_last_n", 0);
}

static void test_gguf(void **state)
{
    (void)state;
    static const struct {
        void (*more)(struct gguf *g);
        const char *want;
    } cases[] = {
        { NULL, NULL },
        { gguf_says_all, "temperature 0.6\ntop_k 20\ntop_p 0.95\nmin_p 0.1\nrepeat_penalty 1.1\n"
                         "penalty_window 32\n" },
        { gguf_says_little, "temperature 1\ntop_k 50\n" },
        { gguf_has_no_window, "temperature 1\ntop_k 50\n" },
    };
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        write_gguf_as(&sample_llama_tied, &(struct gguf_options){ .more = cases[i].more });
        quip_model *m = convert_and_open(in_folder("in.gguf"));
        assert_sampling_text(m, cases[i].want, "GGUF");
        quip_model_close(m);
    }
}

static void test_damaged_text(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "temperature x\n",   "temperature -1\n", "temperature 1e9\n", "temperature 1 \n",
        "top_k 1.5\n",       "top_k 1e10\n",     "top_p 1.1\n",       "repeat_penalty 0\n",
        "penalty_window -2", "top_k ",
    };
    struct sampling_defaults d;
    quip_error error = { 0 };
    for (size_t i = 0; i < QP_COUNT(wrong); i++) {
        assert_int_equal(qp_sampling_read(&d, wrong[i], strlen(wrong[i]), "m.bin", &error),
                         QUIP_E_FORMAT);
        assert_non_null(strstr(error.message, "m.bin: quip.sampling: "));
    }
    static const char later[] = "temperature 0.5\nsomething new\nxtc 3\n\ntop_k 7";
    check(qp_sampling_read(&d, later, strlen(later), "m.bin", &error), &error);
    assert_true(d.is_known && d.value[SAMPLING_TEMPERATURE] == 0.5 && d.value[SAMPLING_TOP_K] == 7);
    assert_true(d.value[SAMPLING_TOP_P] == 1 && d.value[SAMPLING_REPEAT_PENALTY] == 1);
}

/* ---- sessions ---- */

/* A model whose checkpoint says this; NULL: nothing. */
static quip_model *model_that_says(const char *json)
{
    write_folder(&sample_llama_tied, &plain);
    if (json)
        write_text("hf/generation_config.json", json);
    return convert_and_open(in_folder("hf"));
}

static const char model_json[] =
    "{\"do_sample\": true, \"temperature\": 0.5, \"top_k\": 20, \"top_p\": 0.75, "
    "\"min_p\": 0.25, \"repetition_penalty\": 1.5, \"no_repeat_ngram_size\": 4}";

/* Of struct sampling, what has defaults. */
struct draws {
    float temperature;
    int top_k;
    float top_p, min_p, repeat;
    int window, no_repeat_ngram;
};

static void assert_draws(const quip_session *s, struct draws want)
{
    const struct sampling *found = &s->sampling;
    assert_true(found->temperature == want.temperature && found->top_k == want.top_k);
    assert_true(found->top_p == want.top_p && found->min_p == want.min_p);
    assert_true(found->repeat == want.repeat && found->window == want.window);
    assert_int_equal(found->no_repeat_ngram, want.no_repeat_ngram);
}

static const struct draws as_model = { 0.5f, 20, 0.75f, 0.25f, 1.5f, INT32_MAX, 4 },
                          as_greedy = { 0, 0, 1, 0, 1, 0, 0 };

static void test_options_over_those_of_the_model(void **state)
{
    (void)state;
    static const struct {
        quip_session_options options;
        struct draws want;
    } cases[] = {
        { { 0 }, { 0.5f, 20, 0.75f, 0.25f, 1.5f, INT32_MAX, 4 } },
        { { .temperature = 1.5f }, { 1.5f, 20, 0.75f, 0.25f, 1.5f, INT32_MAX, 4 } },
        { { .top_k = 3 }, { 0.5f, 3, 0.75f, 0.25f, 1.5f, INT32_MAX, 4 } },
        { { .penalty_window = 9 }, { 0.5f, 20, 0.75f, 0.25f, 1.5f, 9, 4 } },
        { { .top_k = -1, .top_p = 1, .min_p = -1, .repeat_penalty = 1, .no_repeat_ngram = -1 },
          { 0.5f, 0, 1, 0, 1, 0, 0 } },
        { { .greedy = true }, { 0, 0, 1, 0, 1, 0, 0 } },
        { { .greedy = true, .temperature = 1 }, { 0, 0, 1, 0, 1, 0, 0 } },
        { { .greedy = true, .repeat_penalty = 2 }, { 0, 0, 1, 0, 2, 64, 0 } },
        { { .top_k = 1, .temperature = 1 }, { 0, 1, 1, 0, 1, 0, 0 } },
    };
    quip_error error = { 0 };
    quip_model *m = model_that_says(model_json);
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        quip_session *s, *copy;
        check(quip_session_open(&s, m, &cases[i].options, &error), &error);
        assert_draws(s, cases[i].want);
        check(quip_session_clone(&copy, s, &error), &error);
        assert_draws(copy, cases[i].want);
        quip_session_close(copy);
        check(quip_session_set_options(s, &(quip_session_options){ .greedy = true }, &error),
              &error);
        assert_draws(s, as_greedy);
        check(quip_session_set_options(s, NULL, &error), &error);
        assert_draws(s, as_model);
        quip_session_close(s);
    }
    quip_model_close(m);
}

static void test_info(void **state)
{
    (void)state;
    quip_error error = { 0 };
    quip_model_info info = { .struct_size = sizeof info };
    quip_model *m = model_that_says(model_json);
    check(quip_model_get_info(m, &info, &error), &error);
    assert_true(info.has_sampling && info.default_temperature == 0.5f);
    assert_true(info.default_top_k == 20 && info.default_top_p == 0.75f);
    assert_true(info.default_min_p == 0.25f && info.default_repeat_penalty == 1.5f);
    assert_true(info.default_penalty_window == -1 && info.default_no_repeat_ngram == 4);
    quip_model_close(m);
    m = model_that_says("{\"do_sample\": false}");
    check(quip_model_get_info(m, &info, &error), &error);
    assert_true(info.has_sampling && info.default_temperature == 0);
    quip_session *s;
    check(quip_session_open(&s, m, NULL, &error), &error);
    assert_true(s->sampling.temperature == 0);
    quip_session_close(s);
    quip_model_close(m);
}

/* Without a word of the model the library's defaults count, which are those that quip.h says. */
static void test_library_defaults(void **state)
{
    (void)state;
    quip_error error = { 0 };
    quip_model_info info = { .struct_size = sizeof info };
    quip_session *s;
    quip_model *m = model_that_says(NULL);
    check(quip_model_get_info(m, &info, &error), &error);
    assert_true(!info.has_sampling && info.default_temperature > 0);
    check(quip_session_open(&s, m, NULL, &error), &error);
    assert_draws(s,
                 (struct draws){ info.default_temperature, info.default_top_k, info.default_top_p,
                                 info.default_min_p, info.default_repeat_penalty,
                                 info.default_penalty_window, info.default_no_repeat_ngram });
    quip_session_close(s);
    quip_model_close(m);
}

/* The tokens of an answer to "the hen", as text that does not matter: only the ids count. */
static void tokens_of_answer(quip_model *m, quip_session_options o, struct tokens *out)
{
    quip_error error = { 0 };
    quip_session *s;
    quip_piece piece = { .struct_size = sizeof piece };
    o.n_context = 64;
    o.max_output_tokens = 30;
    check(quip_session_open(&s, m, &o, &error), &error);
    check(quip_session_append(s, QUIP_ROLE_NONE, "the hen", 7, &error), &error);
    while (!piece.finish_reason) {
        check(quip_session_next(s, &piece, &error), &error);
        for (int i = 0; i < piece.n_tokens; i++)
            assert_true(qp_tokens_append(out, piece.tokens[i]));
    }
    quip_session_close(s);
}

static quip_token best_token(const float *logits, int n)
{
    quip_token best = 0;
    for (int i = 1; i < n; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

/* Whatever the model says: each token of a greedy answer is the one with the largest logit. */
static void test_greedy_is_the_largest_logit(void **state)
{
    (void)state;
    static const char *const configs[] = { NULL, model_json };
    for (size_t i = 0; i < QP_COUNT(configs); i++) {
        quip_error error = { 0 };
        struct tokens greedy = { 0 }, drawn = { 0 };
        quip_session *s;
        quip_model *m = model_that_says(configs[i]);
        tokens_of_answer(m, (quip_session_options){ .greedy = true }, &greedy);
        tokens_of_answer(m, (quip_session_options){ .has_seed = true }, &drawn);
        assert_true(greedy.n > 1);
        assert_false(greedy.n == drawn.n &&
                     memcmp(greedy.ids, drawn.ids, (size_t)greedy.n * sizeof *greedy.ids) == 0);
        check(quip_session_open(&s, m, &(quip_session_options){ .n_context = 64 }, &error), &error);
        check(quip_session_append(s, QUIP_ROLE_NONE, "the hen", 7, &error), &error);
        for (int k = 0; k < greedy.n; k++) {
            assert_int_equal(best_token(quip_session_logits(s), m->config.vocab_size),
                             greedy.ids[k]);
            check(quip_session_prefill(s, &greedy.ids[k], 1, &error), &error);
        }
        quip_session_close(s);
        quip_model_close(m);
        qp_tokens_close(&greedy);
        qp_tokens_close(&drawn);
    }
}

/* ---- tokens that are never drawn ---- */

static void assert_never_ids(const char *json, const char *config_json, const quip_token *want,
                             int n)
{
    write_folder(&sample_llama_tied, &plain);
    unlink(in_folder("hf/generation_config.json"));
    if (json)
        write_text("hf/generation_config.json", json);
    if (config_json) {
        size_t n_text;
        char *text = read_whole(in_folder("hf/config.json"), &n_text), all[3000];
        snprintf(all, sizeof all, "{%s, %.*s", config_json, (int)(n_text - 1), text + 1);
        write_text("hf/config.json", all);
        free(text);
    }
    quip_model *m = convert_and_open(in_folder("hf"));
    assert_int_equal(m->config.n_never_ids, n);
    for (int i = 0; i < n; i++)
        assert_int_equal(m->config.never_ids[i], want[i]);
    quip_model_close(m);
}

static void test_never_ids(void **state)
{
    (void)state;
    assert_never_ids("{\"suppress_tokens\": [258, 7, -1, 100000]}", NULL,
                     (const quip_token[]){ 258, 7 }, 2);
    assert_never_ids("{\"suppress_tokens\": [1], \"eos_token_id\": [1, 9], "
                     "\"bad_words_ids\": [[5], [6, 7], [9], [8]]}",
                     NULL, (const quip_token[]){ 1, 5, 8 }, 3);
    assert_never_ids("{\"suppress_tokens\": null}", "\"suppress_tokens\": [5]", NULL, 0);
    assert_never_ids(NULL, "\"suppress_tokens\": [5]", (const quip_token[]){ 5 }, 1);

    char many[1000] = "{\"suppress_tokens\": [";
    for (int i = 0; i < 65; i++)
        snprintf(many + strlen(many), sizeof many - strlen(many), "%s%d", i ? ", " : "", i);
    strcat(many, "]}");
    write_text("hf/generation_config.json", many);
    quip_error error = { 0 };
    assert_int_equal(
        qp_convert(in_folder("hf"), in_folder("out.bin"), &(struct convert_options){ 0 }, &error),
        QUIP_E_UNSUPPORTED);
    assert_non_null(strstr(error.message, "more than 64 tokens are never drawn"));
}

/* ---- what Quip does not do ---- */

static char noted[300];

static void keep_note(void *user, const char *sentence)
{
    assert_null(user);
    assert_true(strlen(noted) + strlen(sentence) < sizeof noted);
    strcat(noted, sentence);
}

static void assert_noted(const char *json, const char *names)
{
    quip_error error = { 0 };
    const struct convert_options options = { .on_note = keep_note };
    noted[0] = 0;
    write_text("hf/generation_config.json", json);
    check(qp_convert(in_folder("hf"), in_folder("out.bin"), &options, &error), &error);
    if (!names) {
        assert_string_equal(noted, "");
        return;
    }
    char want[300];
    snprintf(want, sizeof want, ": tokens are drawn without its %s, which Quip does not have",
             names);
    assert_non_null(strstr(noted, want));
}

static void test_what_is_left_out_is_said(void **state)
{
    (void)state;
    write_folder(&sample_llama_tied, &plain);
    assert_noted("{\"begin_suppress_tokens\": [5], \"suppress_tokens\": [6]}",
                 "begin_suppress_tokens");
    assert_noted("{\"bad_words_ids\": [[5], [6, 7]]}", "bad_words_ids of several tokens");
    assert_noted("{\"num_beams\": 4, \"typical_p\": 0.9, \"forced_bos_token_id\": 2, "
                 "\"watermarking_config\": {\"bias\": 2.5}}",
                 "forced_bos_token_id, num_beams, typical_p, watermarking_config");
    assert_noted("{\"stop_strings\": [\"END\"], \"token_healing\": true}",
                 "stop_strings, token_healing");
    assert_noted("{\"stop_strings\": null, \"token_healing\": false}", NULL);
    assert_noted("{\"begin_suppress_tokens\": [], \"forced_bos_token_id\": null, \"num_beams\": 1, "
                 "\"typical_p\": 1.0, \"epsilon_cutoff\": 0.0, \"bad_words_ids\": [[5]], "
                 "\"guidance_scale\": 1, \"max_new_tokens\": 2048, \"min_length\": 0}",
                 NULL);
}

static void assert_absent(const struct tokens *ids, const quip_token *never, int n)
{
    assert_true(ids->n > 0);
    for (int i = 0; i < ids->n; i++)
        for (int k = 0; k < n; k++)
            assert_int_not_equal(ids->ids[i], never[k]);
}

/* What a greedy answer begins with without the list does not come with it, whatever the options
 * are, also in a copy and after new options. */
static void test_never_ids_are_not_drawn(void **state)
{
    (void)state;
    char json[200];
    quip_token never[2];
    struct tokens ids = { 0 };
    quip_error error = { 0 };
    quip_session *s, *copy;
    for (int n = 0; n < 2; n++) { // the next likeliest token, too
        snprintf(json, sizeof json, "{\"suppress_tokens\": [%d]}", n ? never[0] : 270);
        quip_model *m = model_that_says(json);
        ids.n = 0;
        tokens_of_answer(m, (quip_session_options){ .greedy = true }, &ids);
        assert_true(ids.n > 0);
        never[n] = ids.ids[0];
        quip_model_close(m);
    }
    assert_int_not_equal(never[0], never[1]);
    snprintf(json, sizeof json, "{\"suppress_tokens\": [%d, %d]}", never[0], never[1]);
    quip_model *m = model_that_says(json);
    const quip_logit_bias bias = { never[0], 50 }, other = { never[1], 3 };
    const quip_session_options options[] = {
        { .greedy = true },
        { .greedy = true, .n_logit_bias = 1, .logit_bias = &bias },
        { .temperature = 100, .top_k = -1, .top_p = 1, .min_p = -1, .has_seed = true },
        { .temperature = 2, .n_logit_bias = 1, .logit_bias = &other, .repeat_penalty = 1.5f },
    };
    for (size_t i = 0; i < QP_COUNT(options); i++) {
        ids.n = 0;
        tokens_of_answer(m, options[i], &ids);
        assert_absent(&ids, never, 2);
        check(quip_session_open(&s, m, &options[(i + 1) % QP_COUNT(options)], &error), &error);
        check(quip_session_set_options(s, &options[i], &error), &error);
        check(quip_session_clone(&copy, s, &error), &error);
        assert_int_equal(copy->sampling.n_bias, options[i].n_logit_bias + 2);
        assert_true(copy->sampling.bias[options[i].n_logit_bias].bias == -INFINITY);
        quip_session_close(s);
        quip_session_close(copy);
    }
    quip_model_close(m);
    qp_tokens_close(&ids);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_generation_config, make_sample_folder,
                                        drop_sample_folder),
        cmocka_unit_test_setup_teardown(test_gguf, make_sample_folder, drop_sample_folder),
        cmocka_unit_test(test_damaged_text),
        cmocka_unit_test_setup_teardown(test_options_over_those_of_the_model, make_sample_folder,
                                        drop_sample_folder),
        cmocka_unit_test_setup_teardown(test_info, make_sample_folder, drop_sample_folder),
        cmocka_unit_test_setup_teardown(test_library_defaults, make_sample_folder,
                                        drop_sample_folder),
        cmocka_unit_test_setup_teardown(test_greedy_is_the_largest_logit, make_sample_folder,
                                        drop_sample_folder),
        cmocka_unit_test_setup_teardown(test_never_ids, make_sample_folder, drop_sample_folder),
        cmocka_unit_test_setup_teardown(test_what_is_left_out_is_said, make_sample_folder,
                                        drop_sample_folder),
        cmocka_unit_test_setup_teardown(test_never_ids_are_not_drawn, make_sample_folder,
                                        drop_sample_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
