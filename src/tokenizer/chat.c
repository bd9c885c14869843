/* chat.c: how models spell a conversation.
 * In:  the name of a template, or the Jinja source in a checkpoint.
 * Out: a row of the table below. */
#include "tokenizer/tokenizer_impl.h"

#include <assert.h>

/* Gemma has no system role. The template of Gemma 3 puts the system text before the first user
 * text. Those of Gemma 1 and 2 reject a system text; we treat it as Gemma 3 does. Llama 2 does the
 * same, between its own markers. Its beginning-of-sequence token comes before every user turn, so
 * here it is at the end of the model's turn. Phi-2 was not tuned for conversations: it answers one
 * question in this form and then writes another question, whose beginning ends the answer. */
#define CHATML_TURNS                                                                               \
    .user = { "<|im_start|>user\n", "<|im_end|>\n" },                                              \
    .model = { "<|im_start|>assistant\n", "<|im_end|>\n" },                                        \
    .system = { "<|im_start|>system\n", "<|im_end|>\n" },                                          \
    .stops = { "<|im_end|>", "<|endoftext|>" }

static const struct chat_template chat_templates[] = {
    {
        .name = "gemma",
        .user = { "<start_of_turn>user\n", "<end_of_turn>\n" },
        .model = { "<start_of_turn>model\n", "<end_of_turn>\n" },
        .system = { "", "" },
        .system_joiner = "\n\n",
        .trim = true,
        .stops = { "<end_of_turn>", "<eos>" },
    },
    {
        .name = "smollm2",
        CHATML_TURNS,
        .default_system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
    },
    { .name = "qwen2", CHATML_TURNS, .default_system = "You are a helpful assistant." },
    {
        .name = "qwen2.5",
        CHATML_TURNS,
        .default_system = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
    },
    { .name = "chatml", CHATML_TURNS },
    {
        .name = "llama2",
        .user = { "[INST] ", " [/INST]" },
        .model = { " ", " </s><s>" },
        .answer_prefix = "",
        .system = { "<<SYS>>\n", "" },
        .system_joiner = "\n<</SYS>>\n\n",
        .trim = true,
        .stops = { "</s>" },
    },
    {
        .name = "llama3",
        .user = { "<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>" },
        .model = { "<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>" },
        .system = { "<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>" },
        .trim = true,
        .stops = { "<|eot_id|>", "<|end_of_text|>", "<|eom_id|>" },
    },
    {
        .name = "zephyr",
        .user = { "<|user|>\n", "<|endoftext|>\n" },
        .model = { "<|assistant|>\n", "<|endoftext|>\n" },
        .system = { "<|system|>\n", "<|endoftext|>\n" },
        .stops = { "<|endoftext|>" },
    },
    {
        .name = "phi2",
        .user = { "Instruct: ", "\n" },
        .model = { "Output: ", "\n" },
        .answer_prefix = "Output:",
        .system = { "", "" },
        .system_joiner = "\n",
        .trim = true,
        .stops = { "<|endoftext|>" },
        .stop_text = "\nInstruct:",
    },
    {
        .name = "none",
        .user = { "", "" },
        .model = { "", "" },
        .system = { "", "" },
    },
};

const struct chat_template *qp_chat_find(const char *name)
{
    assert(name);
    for (size_t i = 0; i < QP_COUNT(chat_templates); i++)
        if (strcmp(chat_templates[i].name, name) == 0)
            return &chat_templates[i];
    return NULL;
}

const char *qp_chat_name(int i)
{
    return i >= 0 && (size_t)i < QP_COUNT(chat_templates) ? chat_templates[i].name : NULL;
}

/* The template of a source is the first row whose markers are in the source and whose foreign
 * marker is not. */
static const struct {
    const char *name, *markers[2], *foreign;
} chat_markers[] = {
    { "gemma", { "<start_of_turn>" }, NULL },
    { "smollm2", { "<|im_start|>", "named SmolLM" }, NULL },
    { "qwen2.5", { "<|im_start|>", "created by Alibaba Cloud" }, NULL },
    { "qwen2", { "<|im_start|>", "You are a helpful assistant" }, NULL },
    { "chatml", { "<|im_start|>" }, NULL },
    { "llama3", { "<|start_header_id|>" }, NULL },
    { "llama2", { "[INST]", "<<SYS>>" }, NULL },
    { "zephyr", { "<|user|>", "<|assistant|>" }, "<|end|>" }, // of Phi-3
    { "phi2", { "Instruct:", "Output:" }, NULL },
};

const char *qp_chat_recognise(const char *jinja)
{
    for (size_t i = 0; jinja && i < QP_COUNT(chat_markers); i++) {
        const char *const *markers = chat_markers[i].markers, *foreign = chat_markers[i].foreign;
        if (strstr(jinja, markers[0]) && (!markers[1] || strstr(jinja, markers[1])) &&
            !(foreign && strstr(jinja, foreign)))
            return chat_markers[i].name;
    }
    return "none";
}
