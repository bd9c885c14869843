/* main.c: the `quip` program. The first word selects a command from the table.
 * In:  the words that the user typed.
 * Out: the exit code of the command. */
#include "cli.h"

#include <fcntl.h>
#include <langinfo.h>
#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A model file is mapped. If another program truncates it, a read of the map raises SIGBUS. */
static void on_lost_file(int signal_number)
{
    static const char message[] =
        "quip: a file that is open was truncated or replaced in place; start again\n";
    (void)signal_number;
    remove_unfinished();
    restore_terminal();
    if (write(STDERR_FILENO, message, sizeof message - 1) < 0)
        _exit(EXIT_FAILED);
    _exit(EXIT_FAILED);
}

/* Standard files may be closed, as of a daemon. A file that is opened must not take the number of
 * one, or messages would be written into it. Using one fails, as before. Pipes of other programs,
 * such as Node, may be non-blocking: a read or write that has to wait would fail. */
static void prepare_standard_files(void)
{
    for (int fd = 0; fd <= STDERR_FILENO; fd++) {
        const int flags = fcntl(fd, F_GETFL);
        if (flags >= 0 && flags & O_NONBLOCK)
            fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
        if (flags < 0 && open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) < 0)
            return;
    }
}

static const struct command commands[] = {
    { .name = "run",
      .arguments = "MODEL [PROMPT]",
      .summary = "Answer one prompt",
      .run = run_run,
      .examples = "Quote PROMPT: the shell must pass it as one word. Without one, or with \"-\", "
                  "it is read from stdin. Otherwise a text on stdin comes before PROMPT.\n"
                  "\n"
                  "  quip run gemma.bin \"Why is the sky blue?\"\n"
                  "  quip run gemma.bin - --max-output-tokens 200 < letter.txt\n"
                  "  cat letter.txt | quip run gemma.bin \"Summarize this letter.\"\n"
                  "  quip run gemma.bin \"A haiku\" --temperature 0.8 --top-k 40 --seed 7\n"
                  "\n"
                  "Exit code: 0, 1 after a failure, 2 for wrong usage, 130 after Ctrl-C. Ctrl-C "
                  "ends the answer; its text so far is kept.\n" },
    { .name = "chat",
      .arguments = "MODEL",
      .summary = "Hold a conversation",
      .run = run_chat,
      .examples =
          "Ctrl-C ends an answer, Ctrl-D ends the conversation, /help lists more commands.\n"
          "A pasted text of several lines is one turn. To type several lines: Alt-Enter, or a "
          "backslash before Enter, or \"\"\" before the first line and after the last.\n"
          "If stdin is a pipe, each line is a turn.\n"
          "\n"
          "  quip chat gemma.bin --system \"Answer in one sentence.\"\n" },
    { .name = "render",
      .arguments = "MODEL [FILE]",
      .summary = "Show the prompt that a chat template makes of a conversation",
      .run = run_render,
      .examples = "FILE is a JSON object: \"messages\", and whatever else the template reads, such "
                  "as \"tools\", \"add_generation_prompt\" or \"enable_thinking\". If it is "
                  "missing or \"-\", it is read from stdin.\n"
                  "\n"
                  "  quip render qwen3.bin conversation.json\n"
                  "  quip render qwen3.bin --ids < conversation.json\n"
                  "  quip render --template chat_template.jinja --jsonl < conversations.jsonl\n" },
    { .name = "tokenize",
      .arguments = "FILE [TEXT]",
      .summary = "Convert text to token ids, or back",
      .run = run_tokenize,
      .examples =
          "FILE is a model, a tokenizer.model or a tokenizer.json. If TEXT is missing or \"-\", it "
          "is read from stdin. No beginning-of-sequence token is added.\n"
          "\n"
          "  quip tokenize gemma.bin \"Hello world\"              9259 1902\n"
          "  quip tokenize gemma.bin --detokenize \"9259 1902\"   Hello world\n"
          "  quip tokenize tokenizer.json --jsonl < texts.jsonl\n"
          "      each line {\"text\": …} becomes {\"ids\": […]}; with --detokenize the reverse\n" },
    { .name = "embed",
      .arguments = "MODEL [TEXT …]",
      .summary = "Make embeddings of texts",
      .run = run_embed,
      .examples =
          "Each text gives a line {\"embedding\": […]}. Without a TEXT, stdin is one, without its "
          "last line end.\n"
          "A text that is longer than the model's maximum is cut at its end.\n"
          "\n"
          "  quip embed minilm.bin \"A cat sits outside\" \"The new film is great\"\n"
          "  quip embed gemma-embed.bin --prompt query \"Which planet is red?\"\n"
          "  quip embed minilm.bin --jsonl < texts.jsonl > embeddings.jsonl\n"
          "      each line is {\"text\": …} or {\"ids\": […]}; ids are used as they are\n" },
    { .name = "logits",
      .arguments = "MODEL",
      .summary = "Write the logits of the next token as float32 numbers",
      .run = run_logits,
      .examples = "The file is little endian, row-major [positions, vocab_size]. It has one row, "
                  "or with --all one row for each id.\n"
                  "\n"
                  "  quip logits gemma.bin --ids 2,9259,1902 --out logits.f32\n" },
    { .name = "inspect",
      .arguments = "FILE",
      .summary = "Show what a model file, bundle or checkpoint contains",
      .run = run_inspect,
      .examples = "  quip inspect gemma.bin\n"
                  "  quip inspect gemma.gguf --json | jq .tensors[].name\n"
                  "  quip inspect gemma.bin --tensor params.lm.final_ln.scale --out norm.f32\n" },
    { .name = "convert",
      .arguments = "IN OUT",
      .summary = "Convert a checkpoint to a model file",
      .run = run_convert,
      .examples =
          "IN is a GGUF file, a Hugging Face checkpoint (its folder, one of its safetensors or "
          "PyTorch files, or a quoted pattern of file names), or a model file. OUT appears when it "
          "is complete. Where files of a folder disagree, tensors count before config.json, and "
          "tokenizer.json before tokenizer.model; docs/conversion.md has the rules.\n"
          "\n"
          "  quip convert SmolLM2-135M-Instruct.Q4_1.gguf smollm2.bin\n"
          "  quip convert gemma-3-270m/ gemma.bin --weights mixed\n"
          "  quip convert \"phi-2/model-*.safetensors\" phi2-gpu.bin --backend gpu\n"
          "  quip convert gemma.bin gemma-int4.bin --weights int4\n"
          "  quip convert gemma-3-270m/ tuned.bin --merge-adapter my-lora/\n"
          "  quip convert my-lora/ my-lora.bin --adapter-of gemma.bin\n" },
    { .name = "bundle",
      .arguments = "MODEL [OUT]",
      .summary = "Write a .task bundle, or extract one",
      .run = run_bundle,
      .examples = "A bundle contains a model file, its tokenizer and its prompt settings. Quip "
                  "opens it like a model file.\n"
                  "\n"
                  "  quip bundle gemma.bin gemma.task\n"
                  "  quip bundle gemma.bin gemma.task --start-token \"<bos>\" --stop-token "
                  "\"<end_of_turn>\"\n"
                  "  quip bundle gemma.task --extract parts/\n" },
    { .name = "verify",
      .arguments = "A B",
      .summary = "Compare a model file with its source",
      .run = run_verify,
      .examples = "A is a model file or a checkpoint as for convert, B is a model file. With "
                  "--text, a checkpoint is converted to a temporary float32 file beside B.\n"
                  "\n"
                  "  quip verify gemma-3-270m/ gemma.bin\n"
                  "  quip verify gemma-int8.bin gemma-int4.bin --text book.txt --json\n" },
    { .name = "eval",
      .arguments = "MODEL",
      .summary = "Measure the perplexity on a text",
      .run = run_eval,
      .examples = "The text is cut into windows of N tokens, and each is evaluated alone. If the "
                  "model has a beginning-of-sequence token, it is the first of the N. An "
                  "incomplete last window is not used.\n"
                  "\n"
                  "  quip eval gemma.bin --text book.txt --window 1024 --windows 4\n" },
    { .name = "bench",
      .arguments = "MODEL",
      .summary = "Measure how fast a model is on this machine",
      .run = run_bench,
      .examples =
          "Decode is measured after the prompt, so its first token attends to P positions.\n"
          "\n"
          "  quip bench gemma.bin -p 1024 -n 256 -t 4\n" },
    { .name = "doctor",
      .arguments = "[MODEL]",
      .summary = "Show what this machine runs models on, and why not",
      .run = run_doctor,
      .examples = "With MODEL, it is opened with each backend, a session included.\n"
                  "\n"
                  "  quip doctor\n"
                  "  quip doctor gemma.bin --json | jq .model\n" },
};

static void print_program_help(FILE *to)
{
    fprintf(to, "quip runs language models on this machine.\n\n"
                "  quip COMMAND …            quip COMMAND --help shows the options\n\n");
    for (size_t i = 0; i < QP_COUNT(commands); i++)
        fprintf(to, "  %-9s %-14s %s\n", commands[i].name, commands[i].arguments,
                commands[i].summary);
    fprintf(to, "\nFrom a checkpoint to an answer:\n\n"
                "  quip convert SmolLM2-135M-Instruct.Q4_1.gguf smollm2.bin\n"
                "  quip run smollm2.bin \"Why is the sky blue?\"\n");
}

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < QP_COUNT(commands); i++)
        if (strcmp(name, commands[i].name) == 0)
            return &commands[i];
    return NULL;
}

/* For the line editor; numbers stay as in C. Text is UTF-8 everywhere, also under LC_ALL=C or
 * without a locale, as in containers. */
static void set_utf8(void)
{
    static const char *const names[] = { "", "C.UTF-8", "en_US.UTF-8", "UTF-8" };
    for (size_t i = 0; i < QP_COUNT(names); i++)
        if (setlocale(LC_CTYPE, names[i]) && strcmp(nl_langinfo(CODESET), "UTF-8") == 0)
            return;
}

int main(int argc, char **argv)
{
    static char *help[] = { "--help", NULL };
    prepare_standard_files();
    set_utf8();
    signal(SIGXFSZ, SIG_IGN); // of `ulimit -f`: the write fails instead
    signal(SIGBUS, on_lost_file);
    const char *name = argc > 1 ? argv[1] : "";
    const struct command *command;
    if (strcmp(name, "--version") == 0) {
        printf("quip %s\n", quip_version());
        return 0;
    }
    const bool is_help =
        strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0;
    if (argc < 2 || (is_help && argc == 2)) {
        print_program_help(is_help ? stdout : stderr);
        return is_help ? 0 : EXIT_USAGE;
    }
    if (is_help)
        name = argv[2];
    if (!(command = find_command(name))) {
        fail("unknown command %s; quip --help lists the commands", name);
        return EXIT_USAGE;
    }
    return command->run(command, is_help ? help : argv + 2); // quip help run is quip run --help
}
