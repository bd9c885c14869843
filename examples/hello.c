/* hello.c: answers one prompt.
 *     cc hello.c -lquip && ./a.out gemma.bin "Why is the sky blue?" */
#include <quip.h>
#include <stdio.h>
#include <string.h>

static bool on_text(void *user, const char *text, size_t n)
{
    (void)user;
    fwrite(text, 1, n, stdout);
    fflush(stdout);
    return true; // continue
}

int main(int argc, char **argv)
{
    quip_model *model = NULL;
    quip_session *chat = NULL;
    quip_error error = { 0 };
    if (argc != 3) {
        fprintf(stderr, "usage: hello MODEL PROMPT\n");
        return 2;
    }
    if (quip_model_open(&model, argv[1], NULL, &error) ||
        quip_session_open(&chat, model, NULL, &error) ||
        quip_session_generate(chat, argv[2], strlen(argv[2]), on_text, NULL, NULL, &error))
        fprintf(stderr, "%s\n", error.message);
    putchar('\n');
    quip_session_close(chat);
    quip_model_close(model);
    return error.status ? 1 : 0;
}
