/* convert.c: converts a checkpoint to a model file. It shows progress as a line for people or as
 * JSON for programs. */
#include "convert/convert.h"
#include "cli.h"
#include "model/model.h"

#include <string.h>

/* The last line after a success. */
static int print_result(const char *path, uint64_t n_bytes, double seconds)
{
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "event", "result");
    cJSON_AddStringToObject(json, "path", path);
    cJSON_AddNumberToObject(json, "bytes", (double)n_bytes);
    cJSON_AddNumberToObject(json, "seconds", seconds);
    return print_json_line(json) ? 0 : EXIT_FAILED;
}

/* The last line after a failure, and the sentence on stderr. */
static int print_failure(const quip_error *error)
{
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "event", "error");
    cJSON_AddStringToObject(json, "status", quip_status_name(error->status));
    cJSON_AddStringToObject(json, "message", error->message);
    print_json_line(json);
    return fail_with(error);
}

/* The user's words, before they are checked. */
struct convert_words {
    const char *weights, *backend, *adapter_of;
    float fp16_scale;
    bool is_quiet, is_json;
};

/* Are all options about a new model file at their defaults? */
static bool is_plain_conversion(const struct convert_words *words, const struct convert_options *o)
{
    return o->weights == CONVERT_INT8 && !o->attention_bits && !o->feed_forward_bits &&
           !o->embedding_bits && !o->calibrate && !o->is_original && !o->is_asymmetric &&
           !o->is_mse && !o->block_size && !o->for_gpu && !o->model_type && !o->format &&
           !o->tokenizer && !o->merge_adapter && !o->verify && !o->chat && words->fp16_scale == 0;
}

/* Check the words and fill the rest of `o`. Returns 0, or an exit code after a message. */
static int check_words(const struct command *command, const struct convert_words *words,
                       struct convert_options *o)
{
    if (!qp_convert_weights_find(words->weights, &o->weights))
        return fail_usage(command, "--weights is %s; must be int8, int4, mixed or f32",
                          words->weights);
    const int bits[] = { o->attention_bits, o->feed_forward_bits, o->embedding_bits };
    for (size_t i = 0; i < QP_COUNT(bits); i++)
        if (bits[i] && bits[i] != 4 && bits[i] != 8)
            return fail_usage(command, "the bits of a matrix are %d; must be 4 or 8", bits[i]);
    o->for_gpu = strcmp(words->backend, "gpu") == 0;
    if (!o->for_gpu && strcmp(words->backend, "cpu") != 0)
        return fail_usage(command, "--backend is %s; must be cpu or gpu", words->backend);
    if (words->fp16_scale != 0 && words->fp16_scale != 1)
        return fail_usage(command,
                          "--fp16-scale is %g; must be 1: activations are float32 and do not "
                          "overflow, so weights are not scaled",
                          (double)words->fp16_scale);
    if (o->verify_text && !o->verify)
        return fail_usage(command, "--text needs --verify");
    if (words->adapter_of && !is_plain_conversion(words, o))
        return fail_usage(command,
                          "--adapter-of writes a LoRA file; it does not allow options about "
                          "a model's weights, tokenizer or template");
    return 0;
}

/* Options about the values of integers, in a file that has none. */
static void note_weights(const struct convert_options *o)
{
    const int bits[] = { o->attention_bits, o->feed_forward_bits, o->embedding_bits };
    bool has_integers = o->weights != CONVERT_F32;
    bool has_int4 = o->weights == CONVERT_INT4 || o->weights == CONVERT_MIXED;
    for (size_t i = 0; i < QP_COUNT(bits); i++) {
        has_integers = has_integers || bits[i];
        has_int4 = has_int4 || bits[i] == 4;
    }
    if (o->is_original && !has_int4)
        note_vain("original", "without int4 weights");
    if (o->is_mse && !has_integers)
        note_vain("mse", "on float32 weights");
    if (o->block_size && !has_integers)
        note_vain("block-size", "on float32 weights");
}

/* What `quip chat` would say, too. */
static void note_template(const char *path)
{
    const quip_model_options header = { .no_weights = true };
    quip_model *model;
    if (quip_model_open(&model, path, &header, NULL))
        return; // a file for GPUs of another program, for example
    if (model->jinja_problem[0])
        fail("%s: its chat template is not supported (%s); a session needs --chat-template NAME or "
             "--raw",
             path, model->jinja_problem);
    quip_model_close(model);
}

static void show_note(void *user, const char *sentence)
{
    (void)user;
    fail("%s", sentence);
}

static int convert(char **words, const struct convert_words *asked, struct convert_options *options)
{
    struct progress progress;
    options->on_progress = show_progress;
    options->on_note = show_note;
    options->user = &progress;
    quip_error error = { 0 };
    const uint64_t begin = qp_now_ns();
    begin_progress(&progress, words[1], asked->is_quiet, asked->is_json);
    quip_status status = asked->adapter_of
                             ? qp_convert_adapter(words[0], words[1], asked->adapter_of, &error)
                             : qp_convert(words[0], words[1], options, &error);
    end_progress(&progress);
    const double seconds = (double)(qp_now_ns() - begin) * 1e-9;
    if (status)
        return asked->is_json ? print_failure(&error) : fail_with(&error);

    char size[24];
    const uint64_t n_bytes = file_bytes(words[1]);
    if (!asked->adapter_of)
        note_template(words[1]);
    if (asked->is_json)
        return print_result(words[1], n_bytes, seconds);
    const bool is_varied =
        options->attention_bits || options->feed_forward_bits || options->embedding_bits;
    if (!asked->is_quiet)
        fprintf(stderr, "%s: %s%s, %s, in %.1f s\n", words[1],
                asked->adapter_of ? "LoRA weights" : asked->weights,
                is_varied ? " except some" : "", human_bytes(size, n_bytes), seconds);
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
          "choose int4 values for the activations on this text; IN must be a model file" },
        { OPTION_FLAG, 0, "original", NULL, &o.is_original, 0, 0,
          "int4 that MediaPipe reads: one scale per row, less accurate" },
        { OPTION_INT, 0, "attention-bits", "BITS", &o.attention_bits, 4, 8,
          "4 or 8 for attention, instead of what --weights says" },
        { OPTION_INT, 0, "feedforward-bits", "BITS", &o.feed_forward_bits, 4, 8,
          "the same for the feed-forward" },
        { OPTION_INT, 0, "embedding-bits", "BITS", &o.embedding_bits, 4, 8,
          "the same for the embedding and lm_head" },
        { OPTION_TEXT, 0, "backend", "cpu|gpu", &asked.backend, 0, 0,
          "MediaPipe's layout for CPUs (default) or GPUs" },
        { OPTION_FLAG, 0, "asymmetric", NULL, &o.is_asymmetric, 0, 0,
          "a zero point per row; --backend gpu only" },
        { OPTION_FLAG, 0, "mse", NULL, &o.is_mse, 0, 0,
          "scales from the root mean square of a row, not from its maximum" },
        { OPTION_INT, 0, "block-size", "N", &o.block_size, 0, 128,
          "as in MediaPipe: 32 or 128; int4 has blocks of 16 by default" },
        { OPTION_TEXT, 0, "model-type", "TYPE", &o.model_type, 0, 0,
          "MediaPipe's model type (GEMMA_2B, …), for a checkpoint without config.json" },
        { OPTION_TEXT, 0, "format", "NAME", &o.format, 0, 0,
          "safetensors, pytorch or gguf: what IN must be; default: any of them" },
        { OPTION_TEXT, 0, "tokenizer", "PATH", &o.tokenizer, 0, 0,
          "tokenizer.model, tokenizer.json or their folder, instead of the checkpoint's" },
        { OPTION_TEXT, 0, "pooling", "KIND", &o.pooling, 0, 0,
          "of an embedding model that does not say it: mean, first or last" },
        { OPTION_TEXT, 0, "merge-adapter", "FOLDER", &o.merge_adapter, 0, 0,
          "add a PEFT adapter to the weights" },
        { OPTION_TEXT, 0, "adapter-of", "MODEL", &asked.adapter_of, 0, 0,
          "IN is a PEFT adapter for this model file; OUT is a MediaPipe LoRA file" },
        { OPTION_TEXT, 0, "chat-template", "NAME", &o.chat, 0, 0,
          "how turns are marked: gemma, smollm2, qwen2, qwen2.5, chatml, llama2, llama3, zephyr, "
          "phi2 or none" },
        { OPTION_NUMBER, 0, "fp16-scale", "X", &asked.fp16_scale, 0, 1,
          "MediaPipe's option; must be 1, which has no effect" },
        { OPTION_FLAG, 0, "verify", NULL, &o.verify, 0, 0,
          "then compare with the checkpoint, and store the report in the file" },
        { OPTION_TEXT, 0, "text", "FILE", &o.verify_text, 0, 0,
          "for --verify: also compare the logits on this text" },
        { OPTION_FLAG, 0, "json", NULL, &asked.is_json, 0, 0,
          "print progress, result and errors as JSON on stdout, one object per line" },
        { OPTION_FLAG, 'q', "quiet", NULL, &asked.is_quiet, 0, 0, "print nothing unless it fails" },
        { 0 },
    };
    int exit_code;
    if (parse_options(command, options, words, 2, 2, &exit_code) < 0)
        return exit_code;
    exit_code = check_words(command, &asked, &o);
    if (!exit_code && !asked.is_quiet)
        note_weights(&o);
    return exit_code ? exit_code : convert(words, &asked, &o);
}
