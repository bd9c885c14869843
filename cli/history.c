/* history.c: the turns that were typed, in this conversation and in earlier ones.
 * In:  turns.
 * Out: a file in the cache folder that libedit reads. It grows turn by turn, so that nothing is
 *      lost if the program is killed, or if several conversations are open. */
#include "chat.h"

#include <fcntl.h>
#include <histedit.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define HISTORY_TURNS 1000

struct history_file {
    History *turns;
    char *path; // NULL: there is none
    bool is_saved;
};

static FILE *open_file(const char *path, int flags)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0600);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "a");
    if (!f && fd >= 0)
        close(fd);
    return f;
}

/* A line of the file as libedit writes it, where strvis has spelled out white space. */
static void save_turn(FILE *f, const char *turn)
{
    fseek(f, 0, SEEK_END);
    if (ftell(f) == 0)
        fputs("_HiStOrY_V2_\n", f);
    for (const unsigned char *p = (const unsigned char *)turn; *p; p++)
        fprintf(f, *p <= ' ' || *p == '\\' || *p == 0x7f ? "\\%03o" : "%c", *p);
    putc('\n', f);
}

/* The file is written again when it has become long, or if it is not a history. */
static void load(struct history_file *h)
{
    HistEvent event;
    struct stat s;
    if (stat(h->path, &s) || !S_ISREG(s.st_mode) || s.st_size == 0)
        return;
    const int n = history(h->turns, &event, H_LOAD, h->path);
    const bool is_renewed = h->is_saved && (n < 0 || n > 2 * HISTORY_TURNS);
    FILE *f = is_renewed ? open_file(h->path, O_TRUNC) : NULL;
    if (!f)
        return;
    history(h->turns, &event, H_SAVE_FP, f);
    fclose(f);
}

struct history_file *open_history(bool is_saved)
{
    HistEvent event;
    struct history_file *h = calloc(1, sizeof *h);
    if (!h || !(h->turns = history_init())) {
        free(h);
        return NULL;
    }
    h->is_saved = is_saved;
    h->path = qp_cache_path("history");
    history(h->turns, &event, H_SETSIZE, HISTORY_TURNS);
    history(h->turns, &event, H_SETUNIQUE, 1);
    if (h->path)
        load(h);
    return h;
}

void close_history(struct history_file *h)
{
    if (!h)
        return;
    history_end(h->turns);
    free(h->path);
    free(h);
}

void *history_turns(struct history_file *h)
{
    return h->turns;
}

void remember_turn(struct history_file *h, const char *turn)
{
    HistEvent event;
    history(h->turns, &event, H_ENTER, turn);
    FILE *f = h->is_saved && h->path ? open_file(h->path, O_APPEND) : NULL;
    if (!f)
        return;
    save_turn(f, turn);
    fclose(f);
}
