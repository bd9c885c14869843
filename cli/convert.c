/* convert.c: a checkpoint to a model file, with progress. */
#include "convert/convert.h"
#include "cli.h"

#include <string.h>
#include <sys/stat.h>

struct progress {
    bool is_shown;
    uint64_t shown_ns;
};

/* Ten times a second is often enough. */
static bool show_progress(void *user, uint64_t done, uint64_t total, const char *what)
{
    struct progress *p = user;
    uint64_t now = qp_now_ns();
    if (p->is_shown && total && (now - p->shown_ns > 100000000 || done == total)) {
        p->shown_ns = now;
        fprintf(stderr, "\r\033[K%s%3.0f%% %s%s", dim(), 100.0 * (double)done / (double)total,
                what ? what : "", plain());
        fflush(stderr);
    }
    return !was_interrupted();
}

int run_convert(const struct command *command, char **words)
{
    const char *weights = "int8", *chat = NULL;
    bool is_quiet = false;
    int attention = 0, feed_forward = 0, embedding = 0;
    const struct option options[] = {
        { OPTION_TEXT, 'w', "weights", "KIND", &weights, 0, 0,
          "int8 (default), int4, mixed (feed-forward int4, the rest int8) or f32" },
        { OPTION_INT, 0, "attention", "BITS", &attention, 4, 8,
          "8 or 4 for attention, whatever --weights says" },
        { OPTION_INT, 0, "feedforward", "BITS", &feed_forward, 4, 8,
          "the same for the feed-forward" },
        { OPTION_INT, 0, "embedding", "BITS", &embedding, 4, 8, "the same for embedding and head" },
        { OPTION_TEXT, 0, "chat-template", "NAME", &chat, 0, 0,
          "how turns are spelled: gemma, smollm2, qwen2, qwen2.5, chatml, llama2, llama3, zephyr, "
          "phi2 or none" },
        { OPTION_FLAG, 'q', "quiet", NULL, &is_quiet, 0, 0, "say nothing unless it fails" },
        { 0 },
    };
    int exit_code;
    if (parse_options(command, options, words, 2, 2, &exit_code) < 0)
        return exit_code;
    struct progress progress = { .is_shown = !is_quiet && is_terminal(stderr) };
    struct convert_options convert_options = {
        .attention_bits = attention,
        .feed_forward_bits = feed_forward,
        .embedding_bits = embedding,
        .chat = chat,
        .on_progress = show_progress,
        .user = &progress,
    };
    if (!qp_convert_weights_find(weights, &convert_options.weights))
        return fail_usage(command, "--weights %s: not int8, int4, mixed or f32", weights);
    const int bits[] = { attention, feed_forward, embedding };
    for (size_t i = 0; i < QP_COUNT(bits); i++)
        if (bits[i] && bits[i] != 4 && bits[i] != 8)
            return fail_usage(command, "matrices cannot have %d bits, only 8 or 4", bits[i]);

    quip_error error = { 0 };
    uint64_t begin = qp_now_ns();
    catch_interrupt(NULL);
    quip_status status = qp_convert(words[0], words[1], &convert_options, &error);
    release_interrupt();
    if (progress.is_shown)
        fputs("\r\033[K", stderr);
    if (status)
        return fail_with(&error);
    struct stat st;
    char size[24];
    if (!is_quiet && stat(words[1], &st) == 0)
        fprintf(stderr, "%s: %s%s, %s, in %.1f s\n", words[1], weights,
                attention || feed_forward || embedding ? " but for some" : "",
                human_bytes(size, (uint64_t)st.st_size), (double)(qp_now_ns() - begin) * 1e-9);
    return 0;
}
