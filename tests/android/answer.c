/* answer.c: answers a prompt with a model that is a part of a file, as an asset of a package.
 * In:  FILE OFFSET SIZE PROMPT
 * Out: the answer
 *
 * tests/android.py runs it with the host's library, and with those for Android, where musl stands
 * in for bionic. */
#include "quip.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if !defined(__GLIBC__)
#include <errno.h>

/* bionic's name of errno; the library for Android imports it. */
int *__errno(void);
int *__errno(void)
{
    return &errno;
}
#endif

static bool print(void *user, const char *text, size_t n)
{
    (void)user;
    return fwrite(text, 1, n, stdout) == n;
}

int main(int argc, char **argv)
{
    quip_model *model = NULL;
    quip_session *session = NULL;
    quip_error error = { 0 };
    const quip_session_options options = { .max_output_tokens = 60,
                                           .n_context = 256,
                                           .greedy = true };
    if (argc != 5)
        return 2;
    const int fd = open(argv[1], O_RDONLY);
    if (quip_model_open_fd(&model, fd, (uint64_t)atoll(argv[2]), (uint64_t)atoll(argv[3]), NULL,
                           &error) ||
        quip_session_open(&session, model, &options, &error) ||
        quip_session_generate(session, argv[4], strlen(argv[4]), print, NULL, NULL, &error))
        fprintf(stderr, "%s\n", error.message);
    quip_session_close(session);
    quip_model_close(model);
    return error.status != 0;
}
