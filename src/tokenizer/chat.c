/* chat.c: how the models that people use spell a conversation.
 * In:  a template's name, or the Jinja source that a checkpoint carries.
 * Out: a row of the table below. */
#include "tokenizer/tokenizer_impl.h"

/* <start_of_turn> has no system role in Gemma; Gemma 3's own template puts the system text in front
 * of the first user text. Llama 2 does too, between markers of its own; its beginning-of-sequence
 * token stands in front of every user turn, so it ends the model's. What the model says after
 * "[/INST]" begins with its own space. */
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
    { .name = "chatml", CHATML_TURNS },
    {
        .name = "llama2",
        .user = { "[INST] ", " [/INST]" },
        .model = { "", " </s><s>" },
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
        .name = "none",
        .user = { "", "" },
        .model = { "", "" },
        .system = { "", "" },
    },
};

const struct chat_template *qp_chat_find(const char *name)
{
    for (size_t i = 0; i < QP_COUNT(chat_templates); i++)
        if (strcmp(chat_templates[i].name, name) == 0)
            return &chat_templates[i];
    return NULL;
}

/* The first row whose markers all stand in the source. */
static const struct {
    const char *name, *markers[2];
} chat_markers[] = {
    { "gemma", { "<start_of_turn>" } },    { "smollm2", { "<|im_start|>", "named SmolLM" } },
    { "chatml", { "<|im_start|>" } },      { "llama3", { "<|start_header_id|>" } },
    { "llama2", { "[INST]", "<<SYS>>" } },
};

const char *qp_chat_recognise(const char *jinja)
{
    for (size_t i = 0; jinja && i < QP_COUNT(chat_markers); i++) {
        const char *const *markers = chat_markers[i].markers;
        if (strstr(jinja, markers[0]) && (!markers[1] || strstr(jinja, markers[1])))
            return chat_markers[i].name;
    }
    return "none";
}
