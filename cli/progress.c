/* progress.c: shows the progress of work on files, as a line on a terminal or as JSON for
 * programs. */
#include "cli.h"

#include <sys/stat.h>
#include <unistd.h>

/* The file that is written, once it is certain that this process writes it. Static, because signal
 * handlers have no argument. */
static char unfinished[4096];

bool print_json_line(cJSON *json)
{
    char *text = json ? cJSON_PrintUnformatted(json) : NULL;
    const bool ok = text && printf("%s\n", text) >= 0 && fflush(stdout) == 0;
    cJSON_free(text);
    cJSON_Delete(json);
    return ok;
}

static bool print_progress(uint64_t done, uint64_t total, const char *what)
{
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "event", "progress");
    cJSON_AddNumberToObject(json, "done", (double)done);
    cJSON_AddNumberToObject(json, "total", (double)total);
    cJSON_AddStringToObject(json, "tensor", what);
    return print_json_line(json);
}

void begin_progress(struct progress *p, const char *out, bool is_quiet, bool is_json)
{
    *p = (struct progress){ .out = out,
                            .is_shown = !is_quiet && !is_json && is_terminal(stderr),
                            .is_json = is_json };
    catch_interrupt(NULL);
}

/* At most ten times per second. The work stops if the JSON cannot be written. */
bool show_progress(void *user, uint64_t done, uint64_t total, const char *what)
{
    struct progress *p = user;
    if (p->out && !*unfinished)
        snprintf(unfinished, sizeof unfinished, "%s.part", p->out);
    const uint64_t now = qp_now_ns();
    bool ok = true;
    if (total && (now - p->shown_ns > 100000000 || done == total)) {
        p->shown_ns = now;
        if (p->is_json)
            ok = print_progress(done, total, what ? what : "");
        else if (p->is_shown)
            fprintf(stderr, "\r\033[K%s%3.0f%% %s%s", dim(), 100.0 * (double)done / (double)total,
                    what ? what : "", plain());
    }
    return ok && !was_interrupted();
}

void end_progress(const struct progress *p)
{
    release_interrupt();
    *unfinished = 0;
    if (p->is_shown)
        fputs("\r\033[K", stderr);
}

void remove_unfinished(void)
{
    if (*unfinished)
        unlink(unfinished);
}

uint64_t file_bytes(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
}
