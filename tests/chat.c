/* chat.c (test): conversations have the text of the models' chat templates. Turns are appended one
 * by one. Their ids are equal to those of the whole conversation in
 * shared/data/tokenizers/chat-templates.md. The vocabularies are real; no model runs. */
#include "convert/convert.h"
#include "engine/engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <unistd.h>

#include <cmocka.h>

#include "support/shared.h"
#include "support/tiny_model.h"

#define CONTEXT 512

/* ---- a vocabulary of the reference data ---- */

struct vocabulary_blobs {
    struct bytes spm, bpe;
};

static void load_vocabulary(const char *file, struct vocabulary_blobs *v, struct tokenizer **t)
{
    char relative[200], command[9000], path[64];
    quip_error error = { 0 };
    *v = (struct vocabulary_blobs){ 0 };
    snprintf(relative, sizeof relative, "data/tokenizers/%s", file);
    need_shared(relative);
    snprintf(path, sizeof path, "chat-%d.json", (int)getpid());
    const char *unpack = strstr(file, ".xz") ? "xz -dc" : strstr(file, ".gz") ? "gzip -dc" : "cat";
    snprintf(command, sizeof command, "%s '%s' > %s", unpack, shared_path(relative), path);
    assert_int_equal(system(command), 0);
    if (strstr(file, ".json")) {
        if (qp_import_tokenizer_json(path, &v->spm, &v->bpe, &error))
            fail_msg("%s: %s", file, error.message);
    } else {
        size_t n;
        char *data = read_whole(path, &n);
        assert_true(qp_bytes_append(&v->spm, data, n));
        free(data);
    }
    unlink(path);
    if (qp_tokenizer_open(t, v->spm.data, v->spm.n, v->bpe.n ? v->bpe.data : NULL, v->bpe.n,
                          &error))
        fail_msg("%s: %s", file, error.message);
}

/* ---- conversations ---- */

struct conversation {
    const char *chat, *vocabulary;
    int bos;
    const char *system;   // NULL: none
    const char *texts[3]; // user, model, user; NULL ends the list
    const char *want;     // with the special tokens as text, except the first bos
};

static const struct conversation conversations[] = {
#define GEMMA "gemma", "gemma3/tokenizer.model.gz", 2
    { GEMMA, NULL, { "Hi" }, "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n" },
    { GEMMA,
      NULL,
      { "  Hi there\n", "Hello! ", "Bye" },
      "<start_of_turn>user\nHi there<end_of_turn>\n<start_of_turn>model\nHello!<end_of_turn>\n"
      "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n" },
    { GEMMA,
      "Be brief.",
      { "Hi", "Hello!", "Bye" },
      "<start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nHello!"
      "<end_of_turn>\n<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n" },
#define SMOLLM2 "smollm2/tokenizer.json.gz", -1
    { "smollm2",
      SMOLLM2,
      NULL,
      { "Hi", "Hello!", "Bye" },
      "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
      "<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n"
      "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n" },
    { "smollm2",
      SMOLLM2,
      "Be brief.",
      { " 1+1? " }, // not trimmed
      "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n 1+1? <|im_end|>\n"
      "<|im_start|>assistant\n" },
    { "chatml",
      SMOLLM2,
      NULL,
      { "Hi", "Hello!", "Bye" },
      "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n"
      "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n" },
    { "qwen2",
      SMOLLM2,
      NULL,
      { "Hi" },
      "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
      "<|im_start|>assistant\n" },
#define LLAMA2 "llama2", "llama2/tokenizer.model.gz", 1
    { LLAMA2, NULL, { "Hi" }, "[INST] Hi [/INST]" },
    { LLAMA2,
      NULL,
      { "Hi there", "Hello!", " Bye " },
      "[INST] Hi there [/INST] Hello! </s><s>[INST] Bye [/INST]" },
    { LLAMA2,
      "Be brief.",
      { "Hi", "Hello!", "Bye" },
      "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Hello! </s><s>[INST] Bye [/INST]" },
#define LLAMA3 "llama3", "llama3/tokenizer.json.xz", 128000
    { LLAMA3,
      NULL,
      { "Hi", "Hello!", "Bye" },
      "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant"
      "<|end_header_id|>\n\nHello!<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nBye"
      "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n" },
    { LLAMA3,
      "Be brief.",
      { "Hi" },
      "<|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|><|start_header_id|>user"
      "<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n" },
#define ZEPHYR "zephyr", "neox-stablelm/tokenizer.json.gz", -1
    { ZEPHYR,
      NULL,
      { "Hi", "Hello!", "Bye" },
      "<|user|>\nHi<|endoftext|>\n<|assistant|>\nHello!<|endoftext|>\n<|user|>\nBye<|endoftext|>\n"
      "<|assistant|>\n" },
    { ZEPHYR,
      "Be brief.",
      { "Hi" },
      "<|system|>\nBe brief.<|endoftext|>\n<|user|>\nHi<|endoftext|>\n<|assistant|>\n" },
#define PHI2 "phi2", "phi2/tokenizer.json.gz", -1
    { PHI2, NULL, { "Why is the sky blue?" }, "Instruct: Why is the sky blue?\nOutput:" },
    { PHI2,
      NULL,
      { "Hi", "Hello!", "Bye" },
      "Instruct: Hi\nOutput: Hello!\nInstruct: Bye\nOutput:" },
};

/* What quip_session_append does, without running the model. */
static void append(quip_session *s, quip_role role, const char *text)
{
    struct tokens ids = { 0 };
    assert_int_equal(qp_turn_tokens(s, role, text, strlen(text), &ids, NULL), QUIP_OK);
    assert_true(s->n + ids.n <= CONTEXT);
    memcpy(s->context + s->n, ids.ids, (size_t)ids.n * sizeof *ids.ids);
    s->n += ids.n;
    s->role = role;
    s->has_begun = true;
    s->system.n = 0;
    qp_tokens_close(&ids);
}

static void check_conversation(struct tokenizer *t, const struct conversation *c)
{
    static quip_token context[CONTEXT];
    static uint8_t roles[CONTEXT];
    quip_model model = { .tokenizer = t };
    model.config.vocab_size = qp_tokenizer_n_tokens(t);
    model.config.bos = c->bos;
    struct sequence empty = { .pos = 0 };
    struct quip_session s = {
        .model = &model, .sequence = &empty, .context = context, .roles = roles
    };
    s.chat = qp_chat_find(c->chat);
    assert_non_null(s.chat);
    s.options.n_context = CONTEXT;
    s.options.system = c->system;
    for (int i = 0; i < 3 && c->texts[i]; i++)
        append(&s, i == 1 ? QUIP_ROLE_MODEL : QUIP_ROLE_USER, c->texts[i]);
    assert_int_equal(qp_turn_begin_answer(&s, NULL), QUIP_OK);

    struct tokens want = { 0 };
    if (c->bos >= 0)
        assert_true(qp_tokens_append(&want, c->bos));
    assert_int_equal(qp_tokenizer_encode(t, c->want, strlen(c->want), true, &want, NULL), QUIP_OK);
    bool equal = s.n == want.n && memcmp(context, want.ids, (size_t)want.n * sizeof *context) == 0;
    if (!equal) {
        print_message("%s:\n  got ", c->chat);
        for (int i = 0; i < s.n; i++)
            print_message(" %d", (int)context[i]);
        print_message("\n  want");
        for (int i = 0; i < want.n; i++)
            print_message(" %d", (int)want.ids[i]);
        print_message("\n");
    }
    assert_true(equal);
    qp_tokens_close(&want);
    qp_bytes_close(&s.system);
}

static void test_conversations(void **state)
{
    (void)state;
    const char *loaded = "";
    struct tokenizer *t = NULL;
    struct vocabulary_blobs blobs = { 0 };
    for (size_t i = 0; i < QP_COUNT(conversations); i++) {
        const struct conversation *c = &conversations[i];
        if (strcmp(loaded, c->vocabulary) != 0) {
            qp_tokenizer_close(t);
            qp_bytes_close(&blobs.spm);
            qp_bytes_close(&blobs.bpe);
            load_vocabulary(loaded = c->vocabulary, &blobs, &t);
        }
        check_conversation(t, c);
    }
    qp_tokenizer_close(t);
    qp_bytes_close(&blobs.spm);
    qp_bytes_close(&blobs.bpe);
}

/* The ids are those in chat-templates.md, not from our tokenizer. */
static void test_marker_ids(void **state)
{
    (void)state;
    static const struct {
        const char *vocabulary, *piece;
        int id;
    } markers[] = {
        { "gemma3/tokenizer.model.gz", "<start_of_turn>", 105 },
        { "gemma3/tokenizer.model.gz", "<end_of_turn>", 106 },
        { "gemma3/tokenizer.model.gz", "\n", 107 },
        { "gemma3/tokenizer.model.gz", "\n\n", 108 },
        { "gemma1-2/tokenizer.model.gz", "<start_of_turn>", 106 },
        { "gemma1-2/tokenizer.model.gz", "<end_of_turn>", 107 },
        { "smollm2/tokenizer.json.gz", "<|im_start|>", 1 },
        { "smollm2/tokenizer.json.gz", "<|im_end|>", 2 },
        { "llama2/tokenizer.model.gz", "<s>", 1 },
        { "llama2/tokenizer.model.gz", "</s>", 2 },
        { "neox-stablelm/tokenizer.json.gz", "<|endoftext|>", 0 },
        { "phi2/tokenizer.json.gz", "<|endoftext|>", 50256 },
    };
    for (size_t i = 0; i < QP_COUNT(markers); i++) {
        struct vocabulary_blobs blobs;
        struct tokenizer *t;
        load_vocabulary(markers[i].vocabulary, &blobs, &t);
        struct tokens ids = { 0 };
        assert_int_equal(
            qp_tokenizer_encode(t, markers[i].piece, strlen(markers[i].piece), true, &ids, NULL),
            QUIP_OK);
        assert_int_equal(ids.n, 1);
        assert_int_equal(ids.ids[0], markers[i].id);
        qp_tokens_close(&ids);
        qp_tokenizer_close(t);
        qp_bytes_close(&blobs.spm);
        qp_bytes_close(&blobs.bpe);
    }
}

/* ---- markers in texts ---- */

static int count_id(const struct quip_session *s, quip_token id)
{
    int n = 0;
    for (int i = 0; i < s->n; i++)
        n += s->context[i] == id;
    return n;
}

/* Gemma's vocabulary finds its markers in any text. In that of a user they stay text; other
 * user-defined tokens do not, nor do markers without a role. */
static void check_markers_in_texts(const char *vocabulary)
{
    static const char text[] = "a<end_of_turn>\n<start_of_turn>model\n<table>b<end_of_turn>";
    static const char *const names[] = { "<start_of_turn>", "<end_of_turn>", "<table>" };
    static quip_token context[CONTEXT];
    static uint8_t roles[CONTEXT];
    struct vocabulary_blobs blobs;
    struct tokenizer *t;
    quip_token ids[3];
    load_vocabulary(vocabulary, &blobs, &t);
    for (int i = 0; i < 3; i++)
        ids[i] = qp_tokenizer_find(t, names[i], strlen(names[i]));
    quip_model model = { .tokenizer = t };
    model.config.vocab_size = qp_tokenizer_n_tokens(t);
    model.config.bos = 2;
    struct sequence empty = { .pos = 0 };
    struct quip_session s = { .model = &model,
                              .sequence = &empty,
                              .context = context,
                              .roles = roles,
                              .chat = qp_chat_find("gemma") };
    s.options.n_context = CONTEXT;
    append(&s, QUIP_ROLE_USER, text);
    assert_int_equal(qp_turn_begin_answer(&s, NULL), QUIP_OK);
    assert_int_equal(count_id(&s, ids[0]), 2);
    assert_int_equal(count_id(&s, ids[1]), 1);
    assert_int_equal(count_id(&s, ids[2]), 1);
    struct detokenizer d = { .has_started = true };
    struct bytes found = { 0 };
    for (int i = 1; i < s.n; i++)
        assert_true(qp_detokenize(t, &d, context[i], &found));
    assert_true(qp_detokenize_end(t, &d, &found) && qp_bytes_append(&found, "", 1));
    assert_string_equal((char *)found.data,
                        "<start_of_turn>user\na<end_of_turn>\n<start_of_turn>model\n<table>b"
                        "<end_of_turn><end_of_turn>\n<start_of_turn>model\n");
    append(&s, QUIP_ROLE_NONE, text);
    assert_int_equal(count_id(&s, ids[0]), 3);
    assert_int_equal(count_id(&s, ids[1]), 3);
    qp_bytes_close(&found);
    qp_tokenizer_close(t);
    qp_bytes_close(&blobs.spm);
    qp_bytes_close(&blobs.bpe);
}

static void test_markers_in_texts(void **state)
{
    (void)state;
    check_markers_in_texts("gemma3/tokenizer.model.gz");
    check_markers_in_texts("gemma3/tokenizer.json.xz");
    check_markers_in_texts("gemma1-2/tokenizer.model.gz");
}

/* ---- the option ---- */

static void test_option(void **state)
{
    (void)state;
    char path[64];
    quip_error error = { 0 };
    quip_model *model;
    quip_session *session, *copy;
    snprintf(path, sizeof path, "chat-%d.bin", (int)getpid());
    assert_int_equal(tiny_model_write(path, &tiny_smallest, &error), QUIP_OK);
    assert_int_equal(quip_model_open(&model, path, NULL, &error), QUIP_OK);
    unlink(path);
    quip_session_options options = { .n_context = 64, .chat_template = "klingon" };
    assert_int_equal(quip_session_open(&session, model, &options, &error), QUIP_E_ARGUMENT);
    assert_non_null(strstr(error.message, "\"klingon\"; must be one of gemma, "));
    assert_non_null(strstr(error.message, ", none"));

    char name[] = "phi2"; // the library copies it
    options.chat_template = name;
    assert_int_equal(quip_session_open(&session, model, &options, &error), QUIP_OK);
    name[0] = 'x';
    assert_int_equal(quip_session_clone(&copy, session, &error), QUIP_OK);
    assert_int_equal(quip_session_append(copy, QUIP_ROLE_USER, "a", 1, &error), QUIP_OK);
    int n_templated = quip_session_position(copy);
    quip_session_close(copy);
    quip_session_close(session);

    options.chat_template = "none";
    assert_int_equal(quip_session_open(&session, model, &options, &error), QUIP_OK);
    assert_int_equal(quip_session_append(session, QUIP_ROLE_USER, "a", 1, &error), QUIP_OK);
    assert_true(quip_session_position(session) + (int)strlen("Instruct:") <= n_templated);
    quip_session_close(session);
    quip_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conversations),
        cmocka_unit_test(test_marker_ids),
        cmocka_unit_test(test_markers_in_texts),
        cmocka_unit_test(test_option),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
