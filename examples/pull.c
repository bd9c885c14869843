/* pull.c: requests an answer piece by piece, between other work, as in a game loop or an event
 * loop. It prints two answers to one prompt, which runs only once: the session is cloned. pull
 * MODEL PROMPT */
#include <quip.h>
#include <stdio.h>
#include <string.h>

/* Print an answer of this session to its end. */
static quip_status pull(quip_session *session, quip_error *error)
{
    for (;;) {
        quip_piece piece = { .struct_size = sizeof piece };
        const quip_status status = quip_session_next(session, &piece, error);
        if (status || piece.finish_reason != QUIP_FINISH_NONE) {
            putchar('\n');
            return status;
        }
        fwrite(piece.text, 1, piece.n_text, stdout);
        // ... draw a frame, handle an event ...
    }
}

int main(int argc, char **argv)
{
    quip_model *model = NULL;
    quip_session *first = NULL, *second = NULL;
    quip_error error = { 0 };
    const quip_session_options options = { .max_output_tokens = 40 };
    const quip_session_options other = { .max_output_tokens = 40, .has_seed = true, .seed = 7 };
    if (argc != 3) {
        fprintf(stderr, "usage: pull MODEL PROMPT\n");
        return 2;
    }
    if (quip_model_open(&model, argv[1], NULL, &error) ||
        quip_session_open(&first, model, &options, &error) ||
        quip_session_append(first, QUIP_ROLE_USER, argv[2], strlen(argv[2]), &error) ||
        quip_session_clone(&second, first, &error) ||       // from here they share only the model
        quip_session_set_options(second, &other, &error) || // or it would draw the same tokens
        pull(first, &error) || pull(second, &error))
        fprintf(stderr, "%s\n", error.message);
    quip_session_close(second);
    quip_session_close(first);
    quip_model_close(model);
    return error.status ? 1 : 0;
}
