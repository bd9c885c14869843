/* convert.c: a checkpoint to a model file, with progress: a line for people, or JSON for programs.
 */
#include "convert/convert.h"
#include "cli.h"

#include <string.h>

/* The last line, when it worked. */
static int print_result(const char *path, uint64_t n_bytes, double seconds)
{
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "event", "result");
    cJSON_AddStringToObject(json, "path", path);
    cJSON_AddNumberToObject(json, "bytes", (double)n_bytes);
    cJSON_AddNumberToObject(json, "seconds", seconds);
    return print_json_line(json) ? 0 : EXIT_FAILED;
}

/* The last line, when it did not; and the sentence on stderr. */
static int print_failure(const quip_error *error)
{
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "event", "error");
    cJSON_AddStringToObject(json, "status", quip_status_name(error->status));
    cJSON_AddStringToObject(json, "message", error->message);
    print_json_line(json);
    return fail_with(error);
}

/* What the user asked for, before it is checked. */
struct convert_words {
    const char *weights, *backend, *adapter_of;
    float fp16_scale;
    bool is_quiet, is_json;
};

/* Nothing is asked of the model file that would be made. */
static bool is_plain_conversion(const struct convert_words *words, const struct convert_options *o)
{
    return o->weights == CONVERT_INT8 && !o->attention_bits && !o->feed_forward_bits &&
           !o->embedding_bits && !o->calibrate && !o->is_original && !o->is_asymmetric &&
           !o->is_mse && !o->block_size && !o->for_gpu && !o->model_type && !o->format &&
           !o->tokenizer && !o->merge_adapter && !o->verify && !o->chat && words->fp16_scale == 0;
}

/* Fill the rest of `o`; nonzero: the exit code after a sentence. */
static int check_words(const struct command *command, const struct convert_words *words,
                       struct convert_options *o)
{
    if (!qp_convert_weights_find(words->weights, &o->weights))
        return fail_usage(command, "--weights %s: not int8, int4, mixed or f32", words->weights);
    const int bits[] = { o->attention_bits, o->feed_forward_bits, o->embedding_bits };
    for (size_t i = 0; i < QP_COUNT(bits); i++)
        if (bits[i] && bits[i] != 4 && bits[i] != 8)
            return fail_usage(command, "matrices cannot have %d bits, only 8 or 4", bits[i]);
    o->for_gpu = strcmp(words->backend, "gpu") == 0;
    if (!o->for_gpu && strcmp(words->backend, "cpu") != 0)
        return fail_usage(command, "--backend %s: not cpu or gpu", words->backend);
    if (words->fp16_scale != 0 && words->fp16_scale != 1)
        return fail_usage(command,
                          "--fp16-scale %g: weights are never scaled down; activations are "
                          "float32 here and do not overflow. Leave it out",
                          (double)words->fp16_scale);
    if (o->verify_text && !o->verify)
        return fail_usage(command, "--text is what --verify reads; give both");
    if (words->adapter_of && !is_plain_conversion(words, o))
        return fail_usage(command, "--adapter-of makes a LoRA file, for which no option about a "
                                   "model's weights, tokenizer or template means anything");
    return 0;
}

static int convert(char **words, const struct convert_words *asked, struct convert_options *options)
{
    struct progress progress;
    options->on_progress = show_progress;
    options->user = &progress;
    quip_error error = { 0 };
    const uint64_t begin = qp_now_ns();
    begin_progress(&progress, asked->is_quiet, asked->is_json);
    quip_status status = asked->adapter_of
                             ? qp_convert_adapter(words[0], words[1], asked->adapter_of, &error)
                             : qp_convert(words[0], words[1], options, &error);
    end_progress(&progress);
    const double seconds = (double)(qp_now_ns() - begin) * 1e-9;
    if (status)
        return asked->is_json ? print_failure(&error) : fail_with(&error);

    char size[24];
    const uint64_t n_bytes = file_bytes(words[1]);
    if (asked->is_json)
        return print_result(words[1], n_bytes, seconds);
    const bool is_varied =
        options->attention_bits || options->feed_forward_bits || options->embedding_bits;
    if (!asked->is_quiet)
        fprintf(stderr, "%s: %s%s, %s, in %.1f s\n", words[1],
                asked->adapter_of ? "LoRA weights" : asked->weights,
                is_varied ? " but for some" : "", human_bytes(size, n_bytes), seconds);
    return 0;
}

int run_convert(const struct command *command, char **words)
{
    struct convert_words asked = { .weights = "int8", .backend = "cpu" };
    struct convert_options o = { 0 };
    const struct option options[] = {
        { OPTION_TEXT, 'w', "weights", "KIND", &asked.weights, 0, 0,
          "int8 (default), int4, mixed (feed-forward int4, the rest int8) or f32" },
        { OPTION_TEXT, 0, "calibrate", "FILE", &o.calibrate, 0, 0,
          "a text: int4 keeps best what the model uses in it; from a model file only" },
        { OPTION_FLAG, 0, "original", NULL, &o.is_original, 0, 0,
          "int4 that MediaPipe's own engine reads: one scale per row, less accurate" },
        { OPTION_INT, 0, "attention-bits", "BITS", &o.attention_bits, 4, 8,
          "8 or 4 for attention, whatever --weights says" },
        { OPTION_INT, 0, "feedforward-bits", "BITS", &o.feed_forward_bits, 4, 8,
          "the same for the feed-forward" },
        { OPTION_INT, 0, "embedding-bits", "BITS", &o.embedding_bits, 4, 8,
          "the same for embedding and head" },
        { OPTION_TEXT, 0, "backend", "cpu|gpu", &asked.backend, 0, 0,
          "the original's layout for CPUs (default) or GPUs" },
        { OPTION_FLAG, 0, "asymmetric", NULL, &o.is_asymmetric, 0, 0,
          "a zero point per row; --backend gpu only" },
        { OPTION_FLAG, 0, "mse", NULL, &o.is_mse, 0, 0,
          "scales from the root mean square of a row, not its maximum" },
        { OPTION_INT, 0, "block-size", "N", &o.block_size, 0, 128,
          "as for the original: 32 or 128; int4 has blocks of 16 without being asked" },
        { OPTION_TEXT, 0, "model-type", "TYPE", &o.model_type, 0, 0,
          "the original's (GEMMA_2B, …), for a checkpoint without config.json" },
        { OPTION_TEXT, 0, "format", "NAME", &o.format, 0, 0,
          "safetensors, pytorch or gguf: what IN must be; default: whatever it is" },
        { OPTION_TEXT, 0, "tokenizer", "PATH", &o.tokenizer, 0, 0,
          "tokenizer.model, tokenizer.json or their folder, not the checkpoint's own" },
        { OPTION_TEXT, 0, "merge-adapter", "FOLDER", &o.merge_adapter, 0, 0,
          "add a PEFT adapter to the weights" },
        { OPTION_TEXT, 0, "adapter-of", "MODEL", &asked.adapter_of, 0, 0,
          "IN is a PEFT adapter for this model file; OUT a LoRA file of the original" },
        { OPTION_TEXT, 0, "chat-template", "NAME", &o.chat, 0, 0,
          "how turns are spelled: gemma, smollm2, qwen2, qwen2.5, chatml, llama2, llama3, zephyr, "
          "phi2 or none" },
        { OPTION_NUMBER, 0, "fp16-scale", "X", &asked.fp16_scale, 0, 1,
          "the original's; only 1 can be given, which is no scale" },
        { OPTION_FLAG, 0, "verify", NULL, &o.verify, 0, 0,
          "compare with the checkpoint afterwards, and store the report in the file" },
        { OPTION_TEXT, 0, "text", "FILE", &o.verify_text, 0, 0,
          "for --verify: also compare the logits over this text" },
        { OPTION_FLAG, 0, "json", NULL, &asked.is_json, 0, 0,
          "progress, result and errors as JSON, one object a line, on stdout" },
        { OPTION_FLAG, 'q', "quiet", NULL, &asked.is_quiet, 0, 0, "say nothing unless it fails" },
        { 0 },
    };
    int exit_code;
    if (parse_options(command, options, words, 2, 2, &exit_code) < 0)
        return exit_code;
    exit_code = check_words(command, &asked, &o);
    return exit_code ? exit_code : convert(words, &asked, &o);
}
