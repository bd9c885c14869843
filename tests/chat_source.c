/* chat_source.c (test): the templates of a checkpoint: where they are, which one counts, and how
 * they spell simple turns for readers that know no Jinja. */
#include "convert/chat_source.h"
#include "model/model.h"
#include "support/check.h"
#include "support/shared.h"
#include "support/tiny_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define MODEL_PATH "chat-source-test.bin"

static quip_model *model; // for its tokenizer, where <pad>, <eos> and <bos> are control tokens

static int open_model(void **state)
{
    (void)state;
    quip_error error = { 0 };
    const quip_model_options header = { .no_weights = true };
    check(tiny_model_write(MODEL_PATH, &tiny_smallest, &error), &error);
    check(quip_model_open(&model, MODEL_PATH, &header, &error), &error);
    return 0;
}

static int close_model(void **state)
{
    (void)state;
    quip_model_close(model);
    unlink(MODEL_PATH);
    return 0;
}

/* ---- where they are ---- */

static const struct {
    const char *name, *config;  // tokenizer_config.json
    const char *files[3][2];    // in the folder
    const char *own, *tool_use; // expected; NULL: none
} checkpoints[] = {
    { "none", "{}", { { NULL } }, NULL, NULL },
    { "a text", "{\"chat_template\": \"A\"}", { { NULL } }, "A", NULL },
    { "a list, whose first one is not the default",
      "{\"chat_template\": [{\"name\": \"tool_use\", \"template\": \"T\"}, {\"name\": \"default\", "
      "\"template\": \"A\"}]}",
      { { NULL } },
      "A",
      "T" },
    { "a file of its own is better",
      "{\"chat_template\": \"A\"}",
      { { "chat_template.jinja", "F" } },
      "F",
      NULL },
    { "and replaces a list",
      "{\"chat_template\": [{\"name\": \"tool_use\", \"template\": \"T\"}, {\"name\": \"default\", "
      "\"template\": \"A\"}]}",
      { { "chat_template.jinja", "F" } },
      "F",
      NULL },
    { "that of a processor",
      "{}",
      { { "chat_template.json", "{\"chat_template\": \"P\"}" } },
      "P",
      NULL },
    { "more of them in a folder",
      "{}",
      { { "chat_template.jinja", "F" }, { "additional_chat_templates/tool_use.jinja", "T" } },
      "F",
      "T" },
};

static const char *source_named(const struct chat_sources *chat, const char *name)
{
    for (int i = 0; i < chat->n; i++)
        if (strcmp(chat->list[i].name, name) == 0)
            return (const char *)chat->list[i].source.data;
    return NULL;
}

static void assert_text(const char *name, const char *found, const char *expected)
{
    if ((found == NULL) != (expected == NULL) || (found && strcmp(found, expected) != 0))
        fail_msg("%s: found %s, expected %s", name, found ? found : "nothing",
                 expected ? expected : "nothing");
}

static void test_sources(void **state)
{
    (void)state;
    for (size_t i = 0; i < QP_COUNT(checkpoints); i++) {
        char folder[] = "chat [source]* XXXXXX", path[100];
        struct chat_sources chat = { .n = 0 };
        quip_error error = { 0 };
        assert_non_null(mkdtemp(folder));
        snprintf(path, sizeof path, "%s/additional_chat_templates", folder);
        assert_int_equal(mkdir(path, 0700), 0);
        for (int k = 0; k < 3 && checkpoints[i].files[k][0]; k++) {
            snprintf(path, sizeof path, "%s/%s", folder, checkpoints[i].files[k][0]);
            save_file(path, checkpoints[i].files[k][1], strlen(checkpoints[i].files[k][1]));
        }
        struct checkpoint c = { .path = folder, .sources = { .folder = folder } };
        c.tokenizer_config = cJSON_Parse(checkpoints[i].config);
        check(qp_chat_sources_read(&chat, &c, model->tokenizer, &error), &error);
        assert_text(checkpoints[i].name, source_named(&chat, ""), checkpoints[i].own);
        assert_text(checkpoints[i].name, source_named(&chat, "tool_use"), checkpoints[i].tool_use);
        qp_chat_sources_close(&chat);
        cJSON_Delete(c.tokenizer_config);
        for (int k = 0; k < 3 && checkpoints[i].files[k][0]; k++) {
            snprintf(path, sizeof path, "%s/%s", folder, checkpoints[i].files[k][0]);
            unlink(path);
        }
        snprintf(path, sizeof path, "%s/additional_chat_templates", folder);
        rmdir(path);
        rmdir(folder);
    }
}

static void test_special_tokens(void **state)
{
    (void)state;
    struct chat_sources chat = { .n = 0 };
    quip_error error = { 0 };
    char folder[] = "absent-folder";
    struct checkpoint c = { .path = folder, .sources = { .folder = folder } };
    c.tokenizer_config =
        cJSON_Parse("{\"bos_token\": \"<s \\\"1\\\">\", \"eos_token\": {\"content\": \"</s>\"}, "
                    "\"pad_token\": null}");
    check(qp_chat_sources_read(&chat, &c, model->tokenizer, &error), &error);
    assert_true(qp_bytes_append(&chat.tokens, "", 1));
    assert_string_equal((char *)chat.tokens.data,
                        "{\"bos_token\": \"<s \\\"1\\\">\", \"eos_token\": \"</s>\"}");
    qp_chat_sources_close(&chat);
    cJSON_Delete(c.tokenizer_config);
}

/* ---- how they spell turns ---- */

static const struct {
    const char *name, *source;
    bool has_turns, has_system;
    struct turn_text user, model, system;
    const char *stop;
} spellings[] = {
    { "markers",
      "{{ bos_token }}{% for m in messages %}{{ '<pad>' + m.role + '\n' + m.content + '<eos>\n' "
      "}}{% endfor %}"
      "{% if add_generation_prompt %}{{ '<pad>assistant\n' }}{% endif %}",
      true,
      true,
      { "<pad>user\n", "<eos>\n" },
      { "<pad>assistant\n", "<eos>\n" },
      { "<pad>system\n", "<eos>\n" },
      "<eos>" },
    { "no system role",
      "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}"
      "{{ '[' + m.role[0] + ']' + m.content }}{% endfor %}{% if add_generation_prompt %}[a]{% "
      "endif %}",
      true,
      false,
      { "[u]", "" },
      { "[a]", "" },
      { "", "" },
      "" },
    { "the last turn is another one",
      "{% for m in messages %}{{ loop.index }}{{ m.content }}{% endfor %}",
      false,
      false,
      { "", "" },
      { "", "" },
      { "", "" },
      "" },
    { "not valid", "{% for %}", false, false, { "", "" }, { "", "" }, { "", "" }, "" },
    { "fails", "{{ x.y }}", false, false, { "", "" }, { "", "" }, { "", "" }, "" },
};

static void test_spelling(void **state)
{
    (void)state;
    for (size_t i = 0; i < QP_COUNT(spellings); i++) {
        struct chat_sources chat = { .n = 1 };
        struct chat_spelling s;
        quip_error error = { 0 };
        assert_true(qp_bytes_append(&chat.list[0].source, spellings[i].source,
                                    strlen(spellings[i].source)));
        assert_true(qp_bytes_append_text(&chat.tokens, "{\"bos_token\": \"<bos>\"}"));
        check(qp_chat_probe(&s, &chat, model->tokenizer, &error), &error);
        assert_int_equal(s.has_turns, spellings[i].has_turns);
        assert_int_equal(s.has_system, spellings[i].has_system);
        assert_text(spellings[i].name, s.user.prefix, spellings[i].user.prefix);
        assert_text(spellings[i].name, s.user.suffix, spellings[i].user.suffix);
        assert_text(spellings[i].name, s.model.prefix, spellings[i].model.prefix);
        assert_text(spellings[i].name, s.model.suffix, spellings[i].model.suffix);
        assert_text(spellings[i].name, s.system.prefix, spellings[i].system.prefix);
        assert_text(spellings[i].name, s.stop, spellings[i].stop);
        qp_bytes_close(&s.text);
        qp_chat_sources_close(&chat);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sources),
        cmocka_unit_test(test_special_tokens),
        cmocka_unit_test(test_spelling),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
