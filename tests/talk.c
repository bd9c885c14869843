/* talk.c (test): conversations that the model's own Jinja template spells. After any sequence of
 * appends, answers, undos, rewinds and clones, the text of the context is the rendering of the
 * whole conversation, and the answer is that of a new session with the same tokens. */
#include "engine/engine.h"
#include "support/check.h"
#include "support/tiny_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <unistd.h>

#include <cmocka.h>

#define TOKENS "{\"bos_token\": \"<bos>\", \"eos_token\": \"<eos>\"}"

static const struct {
    const char *name, *source;
} templates[] = {
    { "control tokens",
      "{{ bos_token }}{% for m in messages %}{{ '<pad>' + m.role + '\n' + m.content + '<eos>\n' }}"
      "{% endfor %}{% if add_generation_prompt %}{{ '<pad>assistant\n' }}{% endif %}" },
    { "trimmed, no bos", "{% for m in messages %}<turn>{{ m.role }} {{ m.content | trim }}<end>"
                         "{% endfor %}{% if add_generation_prompt %}<turn>{% endif %}" },
    { "no control tokens",
      "{{ bos_token }}{% for m in messages %}{{ m.role | upper }}: {{ m.content }}\n{% endfor %}"
      "{% if add_generation_prompt %}ASSISTANT: {% endif %}" },
    { "forgets the first half of earlier answers",
      "{{ bos_token }}{% for m in messages %}<turn>{{ m.role }}\n"
      "{% if m.role == 'assistant' and not loop.last %}{{ m.content[m.content | length // 2:] }}"
      "{% else %}{{ m.content }}{% endif %}<end>\n{% endfor %}"
      "{% if add_generation_prompt %}<turn>assistant\n<think>\n{% endif %}" },
    { "counts the turns at the start",
      "{{ bos_token }}{{ messages | length }}{% for m in messages %}<turn>"
      "{{ m.content }}<end>{% endfor %}{% if add_generation_prompt %}A"
      "{% endif %}" },
    { "writes only the last text",
      "{{ messages[-1].content }}{% if add_generation_prompt %}<turn>{% endif %}" },
};

struct opened {
    char path[64];
    quip_model *model;
};

static void open_with(struct opened *o, const char *source)
{
    quip_error error = { 0 };
    snprintf(o->path, sizeof o->path, "talk-%d.bin", (int)getpid());
    check(tiny_model_write(o->path, &tiny_smallest, &error), &error);
    check(quip_model_open(&o->model, o->path, NULL, &error), &error);
    check(qp_jinja_open(&o->model->jinja, source, strlen(source), &error), &error);
    assert_true(qp_bytes_append_text(&o->model->jinja_tokens, TOKENS));
}

static void close_opened(struct opened *o)
{
    quip_model_close(o->model);
    unlink(o->path);
}

/* ---- what is expected ---- */

struct said {
    quip_role role;
    char text[400];
};
struct script {
    struct said said[64];
    int n;
};

static void say(struct script *c, quip_role role, const char *text)
{
    struct said *last = c->n ? &c->said[c->n - 1] : NULL;
    if (!last || last->role != role) {
        assert_true(c->n < 64);
        last = &c->said[c->n++];
        *last = (struct said){ .role = role };
    }
    assert_true(strlen(last->text) + strlen(text) < sizeof last->text);
    strcat(last->text, text);
}

/* The rendering of the whole conversation, with bos once at the start. The last template begins
 * with a text of the user, which is not bos even if it looks so. */
static void expected_text(int kind, const quip_model *m, const struct script *c, struct bytes *text)
{
    static const char *const roles[] = { "", "user", "assistant", "system" };
    struct bytes json = { 0 }, rendered = { 0 };
    quip_error error = { 0 };
    assert_true(qp_bytes_append_text(
        &json, "{\"bos_token\": \"<bos>\", \"add_generation_prompt\": true, \"messages\": ["));
    for (int i = 0; i < c->n; i++) {
        assert_true(qp_bytes_printf(&json, "%s{\"role\": \"%s\", \"content\": ", i ? ", " : "",
                                    roles[c->said[i].role]));
        assert_true(qp_jinja_quote(&json, c->said[i].text, strlen(c->said[i].text)));
        assert_true(qp_bytes_append(&json, "}", 1));
    }
    assert_true(qp_bytes_append_text(&json, "]}"));
    check(qp_jinja_render(m->jinja, (char *)json.data, json.n, NULL, &rendered, &error), &error);
    const bool has_bos = rendered.n >= 5 && memcmp(rendered.data, "<bos>", 5) == 0;
    assert_true(qp_bytes_append_text(text, has_bos && kind != 5 ? "" : "<bos>") &&
                qp_bytes_append(text, rendered.data, rendered.n) && qp_bytes_append(text, "", 1));
    qp_bytes_close(&json);
    qp_bytes_close(&rendered);
}

/* The first n tokens of a context as text; control tokens are spelled out, and counted. */
static int text_of_context(const quip_session *s, int n, struct bytes *text)
{
    const struct tokenizer *t = s->model->tokenizer;
    struct detokenizer d = { .has_started = true };
    int n_control = 0;
    for (int i = 0; i < n; i++) {
        size_t length;
        const char *piece = qp_tokenizer_piece(t, s->context[i], &length);
        if (qp_tokenizer_is_control(t, s->context[i])) {
            assert_true(qp_detokenize_end(t, &d, text) && qp_bytes_append(text, piece, length));
            d = (struct detokenizer){ .has_started = true };
            n_control++;
        } else
            assert_true(qp_detokenize(t, &d, s->context[i], text));
    }
    assert_true(qp_detokenize_end(t, &d, text) && qp_bytes_append(text, "", 1));
    return n_control;
}

/* ---- answers ---- */

static void take_answer(quip_session *s, struct bytes *text, struct tokens *tokens)
{
    quip_error error = { 0 };
    quip_piece piece = { .struct_size = sizeof piece };
    do {
        check(quip_session_next(s, &piece, &error), &error);
        assert_true(qp_bytes_append(text, piece.text, piece.n_text));
        for (int i = 0; i < piece.n_tokens; i++)
            assert_true(qp_tokens_append(tokens, piece.tokens[i]));
    } while (!piece.finish_reason);
    assert_true(qp_bytes_append(text, "", 1));
}

/* Answer in `s`, and in a new session that gets the same tokens. */
static void answer_and_compare(int kind, quip_session *s, struct script *c)
{
    const quip_session_options options = { .max_output_tokens = 7,
                                           .n_context = s->options.n_context,
                                           .greedy = true };
    struct bytes text = { 0 }, other_text = { 0 }, expected = { 0 }, found = { 0 };
    struct tokens tokens = { 0 }, other = { 0 };
    quip_session *fresh;
    quip_error error = { 0 };
    expected_text(kind, s->model, c, &expected);
    check(qp_turn_begin_answer(s, &error), &error);
    const int n = s->n, n_control = text_of_context(s, n, &found);
    if (strcmp((char *)found.data, (char *)expected.data) != 0)
        fail_msg("%s: the context is\n%s\nexpected is\n%s", templates[kind].name,
                 (char *)found.data, (char *)expected.data);
    if (kind == 0) // none of them is from a text
        assert_int_equal(n_control, 2 + 2 * c->n);
    take_answer(s, &text, &tokens);
    check(quip_session_open(&fresh, s->model, &options, &error), &error);
    check(quip_session_prefill(fresh, s->context, n, &error), &error);
    take_answer(fresh, &other_text, &other);
    if (tokens.n != other.n)
        fail_msg("%s: %d tokens, expected %d, at %d: %s", templates[kind].name, tokens.n, other.n,
                 n, (char *)found.data);
    assert_memory_equal(tokens.ids, other.ids, (size_t)other.n * sizeof *other.ids);
    say(c, QUIP_ROLE_MODEL, (char *)text.data);
    quip_session_close(fresh);
    qp_bytes_close(&text);
    qp_bytes_close(&other_text);
    qp_bytes_close(&expected);
    qp_bytes_close(&found);
    qp_tokens_close(&tokens);
    qp_tokens_close(&other);
}

static unsigned next_random(unsigned *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

static void append_text(quip_session *s, const char *text)
{
    quip_error error = { 0 };
    check(quip_session_append(s, QUIP_ROLE_USER, text, strlen(text), &error), &error);
}

static quip_session *sometimes_clone(quip_session *s, unsigned *seed)
{
    quip_session *copy;
    quip_error error = { 0 };
    if (next_random(seed) % 3)
        return s;
    check(quip_session_clone(&copy, s, &error), &error);
    quip_session_close(s);
    return copy;
}

/* The end of an answer, which a rewind can return to. */
struct end {
    struct script script;
    int position;
};

static void random_talk(int kind, quip_model *model, unsigned seed)
{
    static const char *const texts[] = { "Why is the sky blue",  " and so on ", "<eos>", "a\n",
                                         "\xc3\xa9\xe6\x97\xa5", "<bos>x" };
    static struct end ends[32];
    const quip_session_options options = { .max_output_tokens = 7,
                                           .n_context = 1024,
                                           .greedy = true };
    quip_session *s;
    quip_error error = { 0 };
    struct script c = { .n = 0 }, before = { .n = 0 };
    int n_ends = 0;
    check(quip_session_open(&s, model, &options, &error), &error);
    for (int turn = 0; turn < 6; turn++) {
        const char *text = NULL;
        for (unsigned i = 0; i <= next_random(&seed) % 2; i++) {
            text = texts[next_random(&seed) % QP_COUNT(texts)];
            before = c;
            append_text(s, text);
            if (next_random(&seed) % 3 == 0) { // once in vain
                check(quip_session_undo(s, &error), &error);
                append_text(s, text);
            }
            say(&c, QUIP_ROLE_USER, text);
        }
        s = sometimes_clone(s, &seed);
        answer_and_compare(kind, s, &c);
        if (next_random(&seed) % 3 == 0) { // another answer
            check(quip_session_undo(s, &error), &error);
            c = before;
            append_text(s, text);
            say(&c, QUIP_ROLE_USER, text);
            s = sometimes_clone(s, &seed);
            answer_and_compare(kind, s, &c);
        }
        ends[n_ends++] = (struct end){ c, s->n };
        if (next_random(&seed) % 4 == 0) {
            n_ends = kind == 0 ? 1 + (int)(next_random(&seed) % (unsigned)n_ends) : 0;
            check(quip_session_rewind(s, n_ends ? ends[n_ends - 1].position : 0, &error), &error);
            if (n_ends)
                c = ends[n_ends - 1].script;
            else
                c.n = 0;
        }
    }
    quip_session_close(s);
}

static void test_contexts_are_those_of_whole_conversations(void **state)
{
    (void)state;
    for (size_t i = 0; i < QP_COUNT(templates); i++) {
        struct opened o = { .model = NULL };
        open_with(&o, templates[i].source);
        for (unsigned seed = 1; seed <= 12; seed++)
            random_talk((int)i, o.model, seed * 7919);
        close_opened(&o);
    }
}

/* ---- other ways to use a session ---- */

static void check_context(quip_session *s, const char *text)
{
    struct tokens ids = { 0 };
    check(qp_tokenizer_encode(s->model->tokenizer, text, strlen(text), true, &ids, NULL),
          &(quip_error){ 0 });
    assert_int_equal(s->n, ids.n);
    assert_memory_equal(s->context, ids.ids, (size_t)ids.n * sizeof *ids.ids);
    qp_tokens_close(&ids);
}

static void test_options(void **state)
{
    (void)state;
    static const char source[] =
        "{{ bos_token }}{% for m in messages %}{{ m.role }}={{ m.content }};{% endfor %}"
        "{% if add_generation_prompt %}{{ 'think' if enable_thinking else 'speak' }}{{ tools | "
        "length if tools }}{% endif %}";
    const quip_session_options options = { .system = "Be brief",
                                           .max_output_tokens = 1,
                                           .template_variables =
                                               "{\"enable_thinking\": true, \"tools\": [1, 2]}" };
    struct opened o = { .model = NULL };
    quip_session *s;
    quip_error error = { 0 };
    int n;
    open_with(&o, source);
    check(quip_session_open(&s, o.model, &options, &error), &error);
    check(quip_session_tokenize(s, QUIP_ROLE_USER, "Hi", 2, NULL, 0, &n, &error), &error);
    append_text(s, "Hi");
    assert_int_equal(n, s->n);
    check_context(s, "<bos>system=Be brief;user=Hi");
    check(qp_turn_begin_answer(s, &error), &error);
    check_context(s, "<bos>system=Be brief;user=Hi;think2");
    quip_session_close(s);
    const quip_session_options wrong = { .template_variables = "[1]" };
    assert_int_equal(quip_session_open(&s, o.model, &wrong, &error), QUIP_E_ARGUMENT);
    assert_non_null(strstr(error.message, "template_variables"));
    close_opened(&o);
}

static void test_text_of_the_model_is_continued(void **state)
{
    (void)state;
    struct opened o = { .model = NULL };
    quip_session *s;
    quip_error error = { 0 };
    open_with(&o, templates[0].source);
    check(quip_session_open(&s, o.model, NULL, &error), &error);
    append_text(s, "Hi");
    check(quip_session_append(s, QUIP_ROLE_MODEL, "Well", 4, &error), &error);
    check(qp_turn_begin_answer(s, &error), &error);
    check_context(s, "<bos><pad>user\nHi<eos>\n<pad>assistant\nWell");
    quip_session_close(s);
    close_opened(&o);
}

static void test_failures(void **state)
{
    (void)state;
    static const struct {
        const char *source;
        quip_status status;
        const char *message;
    } cases[] = {
        { "{{ raise_exception('roles must alternate') }}", QUIP_E_ARGUMENT,
          "roles must alternate" },
        { "{{ messages[0].content + 1 }}", QUIP_E_FORMAT, "str and int" },
        { "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
          QUIP_E_UNSUPPORTED, "steps" },
    };
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        struct opened o = { .model = NULL };
        quip_session *s;
        quip_error error = { 0 };
        open_with(&o, cases[i].source);
        check(quip_session_open(&s, o.model, NULL, &error), &error);
        assert_int_equal(quip_session_append(s, QUIP_ROLE_USER, "Hi", 2, &error), cases[i].status);
        assert_non_null(strstr(error.message, cases[i].message));
        assert_int_equal(s->n, 0);
        check(quip_session_append(s, QUIP_ROLE_NONE, "Hi", 2, &error), &error); // needs no template
        quip_session_close(s);
        close_opened(&o);
    }
}

/* A template that is not supported is said when a text with a role comes, not before. */
static void test_broken_template(void **state)
{
    (void)state;
    struct opened o = { .model = NULL };
    quip_session *s;
    quip_error error = { 0 };
    const quip_session_options named = { .chat_template = "chatml" }, raw = { .no_template = true };
    open_with(&o, "x");
    qp_jinja_close(o.model->jinja);
    o.model->jinja = NULL;
    snprintf(o.model->jinja_problem, sizeof o.model->jinja_problem, "line 7: the tag 'block'");
    check(quip_session_open(&s, o.model, NULL, &error), &error);
    assert_int_equal(quip_session_append(s, QUIP_ROLE_USER, "Hi", 2, &error), QUIP_E_UNSUPPORTED);
    assert_non_null(strstr(error.message, "line 7"));
    quip_session_close(s);
    check(quip_session_open(&s, o.model, &named, &error), &error);
    check(quip_session_append(s, QUIP_ROLE_USER, "Hi", 2, &error), &error);
    quip_session_close(s);
    check(quip_session_open(&s, o.model, &raw, &error), &error);
    check(quip_session_append(s, QUIP_ROLE_USER, "Hi", 2, &error), &error);
    quip_session_close(s);
    close_opened(&o);
}

/* Tokens that the template writes are user-defined in this vocabulary, so they would be found in
 * any text. In that of a user they stay text, in one or two parts; an answer may have them. */
static void test_markers_in_texts(void **state)
{
    (void)state;
    struct opened o = { .model = NULL };
    quip_session *s;
    quip_error error = { 0 };
    open_with(&o, templates[1].source);
    check(quip_session_open(&s, o.model, NULL, &error), &error);
    append_text(s, "a<end><turn>b<tu");
    append_text(s, "rn> <end>");
    check(quip_session_append(s, QUIP_ROLE_MODEL, "c<turn>", 7, &error), &error);
    append_text(s, "<end>");
    check(qp_turn_begin_answer(s, &error), &error);
    int n_turn = 0, n_end = 0;
    for (int i = 0; i < s->n; i++) {
        n_turn += s->context[i] == TINY_TURN;
        n_end += s->context[i] == TINY_END;
    }
    assert_int_equal(n_turn, 3 + 1 + 1); // of three turns, the next one, and the answer
    assert_int_equal(n_end, 3);
    struct bytes text = { 0 };
    text_of_context(s, s->n, &text);
    assert_string_equal((char *)text.data,
                        "<bos><turn>user a<end><turn>b<turn> <end><end><turn>assistant c<turn>"
                        "<end><turn>user <end><end><turn>");
    qp_bytes_close(&text);
    quip_session_close(s);
    close_opened(&o);
}

/* So do the texts of tools, documents and other variables, and the names in them, however their
 * JSON escapes them; a variable that is a token by name is one. */
static void test_markers_in_variables(void **state)
{
    (void)state;
    static const char source[] =
        "{{ bos_token }}{{ stop_token }}{{ note }}{{ tools[0] | tojson }}{% for m in messages %}"
        "<turn>{{ m.content }}<end>{% endfor %}{% if add_generation_prompt %}<turn>{% endif %}";
    const quip_session_options options = {
        .template_variables = " {\"stop_token\" : \"<end>\", \"note\": \"<bos>\", \"n\": [1, {}],"
                              "\"tools\": [{\"a<turn>\": \"\\u003cend>\\n\\\"<eos>\"}]} "
    };
    struct opened o = { .model = NULL };
    quip_session *s;
    quip_error error = { 0 };
    open_with(&o, source);
    check(quip_session_open(&s, o.model, &options, &error), &error);
    append_text(s, "Hi");
    check(qp_turn_begin_answer(s, &error), &error);
    struct bytes text = { 0 };
    assert_int_equal(text_of_context(s, s->n, &text), 1); // bos
    int n_turn = 0, n_end = 0;
    for (int i = 0; i < s->n; i++) {
        n_turn += s->context[i] == TINY_TURN;
        n_end += s->context[i] == TINY_END;
    }
    assert_int_equal(n_turn, 2);
    assert_int_equal(n_end, 2);
    assert_string_equal((char *)text.data,
                        "<bos><end><bos>{\"a<turn>\": \"<end>\\n\\\"<eos>\"}<turn>Hi<end><turn>");
    qp_bytes_close(&text);
    quip_session_close(s);
    close_opened(&o);
}

static void test_full_context_changes_nothing(void **state)
{
    (void)state;
    const quip_session_options options = { .n_context = 40,
                                           .max_output_tokens = 7,
                                           .greedy = true };
    struct opened o = { .model = NULL };
    quip_session *s;
    quip_error error = { 0 };
    char text[200];
    open_with(&o, templates[3].source);
    check(quip_session_open(&s, o.model, &options, &error), &error);
    append_text(s, "Hi");
    const int n = s->n;
    memset(text, 'z', sizeof text);
    assert_int_equal(quip_session_append(s, QUIP_ROLE_USER, text, sizeof text, &error),
                     QUIP_E_CONTEXT_FULL);
    assert_int_equal(s->n, n);
    struct script c = { .n = 0 };
    say(&c, QUIP_ROLE_USER, "Hi");
    answer_and_compare(3, s, &c);
    quip_session_close(s);
    close_opened(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_contexts_are_those_of_whole_conversations),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_text_of_the_model_is_continued),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_broken_template),
        cmocka_unit_test(test_markers_in_texts),
        cmocka_unit_test(test_markers_in_variables),
        cmocka_unit_test(test_full_context_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
