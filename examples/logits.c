/* logits.c: prints the five most likely next tokens of a text.
 *     logits MODEL PROMPT */
#include <quip.h>
#include <stdio.h>
#include <string.h>

enum {
    N_BEST = 5,
    N_PROMPT = 256
};

/* The ids of the N_BEST highest of n logits, highest first. */
static void find_best(const float *logits, int n, quip_token best[N_BEST])
{
    int n_best = 0;
    for (int i = 0; i < n; i++) {
        int at = n_best < N_BEST ? n_best++ : N_BEST; // position of i: at first after the last
        for (; at > 0 && logits[i] > logits[best[at - 1]]; at--)
            if (at < N_BEST)
                best[at] = best[at - 1];
        if (at < N_BEST)
            best[at] = i;
    }
}

int main(int argc, char **argv)
{
    quip_model *model = NULL;
    quip_session *session = NULL;
    quip_error error = { 0 };
    quip_model_info info = { .struct_size = sizeof info };
    quip_token tokens[1 + N_PROMPT];
    int n = 0;
    if (argc != 3) {
        fprintf(stderr, "usage: logits MODEL PROMPT\n");
        return 2;
    }
    if (quip_model_open(&model, argv[1], NULL, &error))
        goto done;
    quip_model_get_info(model, &info, NULL);
    int n_bos = info.bos >= 0; // the token that begins every context, if the model has one
    tokens[0] = info.bos;
    if (quip_tokenize(model, argv[2], strlen(argv[2]), false, tokens + n_bos, N_PROMPT, &n, &error))
        goto done;
    if (n > N_PROMPT)
        n = N_PROMPT;
    if (quip_session_open(&session, model, NULL, &error) ||
        quip_session_prefill(session, tokens, n_bos + n, &error))
        goto done;

    const float *logits = quip_session_logits(session);
    quip_token best[N_BEST] = { 0 };
    find_best(logits, info.vocab_size, best);
    for (int i = 0; i < N_BEST; i++) {
        char text[64];
        size_t n_text;
        quip_detokenize(model, &best[i], 1, text, sizeof(text), &n_text, NULL);
        if (n_text > sizeof(text))
            n_text = sizeof(text);
        printf("%8.3f  \"%.*s\"\n", (double)logits[best[i]], (int)n_text, text);
    }
done:
    if (error.status)
        fprintf(stderr, "%s\n", error.message);
    quip_session_close(session);
    quip_model_close(model);
    return error.status ? 1 : 0;
}
