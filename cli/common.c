/* common.c: messages, files, JSON and statistics, for all commands. */
#define _GNU_SOURCE // strcasestr
#include "cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- messages ---- */

char *without_controls(char *text)
{
    for (char *p = text; *p; p++) {
        const bool is_c1 = (p[0] & 0xff) == 0xc2 && (p[1] & 0xe0) == 0x80; // U+0080 to U+009F
        if (((unsigned char)*p < ' ' && *p != '\n') || *p == 0x7f || is_c1)
            *p = '?';
        if (is_c1)
            p[1] = '?';
    }
    return text;
}

int fail(const char *format, ...)
{
    char text[1024]; // longer than any message of the library
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fprintf(stderr, "quip: %s\n", without_controls(text));
    return EXIT_FAILED;
}

int fail_with(const quip_error *error)
{
    if (error->status == QUIP_E_CANCELLED)
        return EXIT_INTERRUPTED; // the user pressed Ctrl-C, so a message is not necessary
    fail("%s", error->message);
    return error->status == QUIP_E_ARGUMENT ? EXIT_USAGE : EXIT_FAILED;
}

int fail_usage(const struct command *command, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "quip %s: ", command->name);
    vfprintf(stderr, format, args);
    fprintf(stderr, "; see quip %s --help\n", command->name);
    va_end(args);
    return EXIT_USAGE;
}

bool is_terminal(FILE *f)
{
    return isatty(fileno(f));
}

static bool has_colour(void)
{
    const char *no = getenv("NO_COLOR");
    const char *term = getenv("TERM");
    return !(no && *no) && term && strcmp(term, "dumb") != 0 && is_terminal(stderr);
}

const char *dim(void)
{
    return has_colour() ? "\033[2m" : "";
}

const char *plain(void)
{
    return has_colour() ? "\033[0m" : "";
}

char *human_bytes(char *to, uint64_t n)
{
    static const char *const units[] = { "bytes", "kB", "MB", "GB", "TB" };
    double value = (double)n;
    size_t unit = 0;
    for (; value >= 1000 && unit + 1 < QP_COUNT(units); unit++)
        value /= 1000;
    snprintf(to, 24, unit && value < 100 ? "%.1f %s" : "%.0f %s", value, units[unit]);
    return to;
}

/* ---- input and output ---- */

bool read_input(struct bytes *to, const char *path)
{
    bool is_stdin = strcmp(path, "-") == 0;
    FILE *f = is_stdin ? stdin : fopen(path, "rb");
    if (!f) {
        fail("%s: %s", path, strerror(errno));
        return false;
    }
    size_t n;
    bool is_fine = true;
    do {
        is_fine = qp_bytes_reserve(to, 1 << 16);
        n = is_fine ? fread(to->data + to->n, 1, 1 << 16, f) : 0;
        to->n += n;
    } while (n && !feof(f)); // of a terminal, another read would wait for a second Ctrl-D
    if (!is_fine)
        fail("%s: out of memory after %zu bytes", path, to->n);
    else if (ferror(f)) {
        fail("%s: %s", path, strerror(errno));
        is_fine = false;
    }
    if (!is_stdin)
        fclose(f);
    return is_fine;
}

FILE *open_output(const char *path, const char *input)
{
    if (strcmp(path, "-") == 0)
        return stdout;
    if (qp_path_is_same(path, input)) {
        fail("%s: is the file that is read; write to another one", path);
        return NULL;
    }
    FILE *f = fopen(path, "wb");
    if (!f)
        fail("%s: %s", path, strerror(errno));
    return f;
}

bool close_output(FILE *f, const char *path)
{
    struct stat st;
    const bool is_stdout = f == stdout;
    const bool is_file = !is_stdout && fstat(fileno(f), &st) == 0 && S_ISREG(st.st_mode);
    bool is_fine = fflush(f) == 0 && !ferror(f);
    if (!is_stdout)
        is_fine = fclose(f) == 0 && is_fine;
    if (!is_fine)
        fail("%s: cannot be written: %s", is_stdout ? "stdout" : path, strerror(errno));
    if (!is_fine && is_file)
        unlink(path); // it is incomplete
    return is_fine;
}

bool write_f32(FILE *f, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof(bits));
        for (int shift = 0; shift < 32; shift += 8)
            if (putc((int)(bits >> shift & 255), f) == EOF)
                return false;
    }
    return true;
}

bool read_ids(struct tokens *to, const char *text)
{
    static const char between[] = " \t\r\n,[]";
    for (text += strspn(text, between); *text; text += strspn(text, between)) {
        char *end;
        long id = strtol(text, &end, 10);
        if (end == text || (*end && !strchr(between, *end)) || id < 0 || id > INT32_MAX) {
            fail("\"%.20s\" is not a token id", text);
            return false;
        }
        if (!qp_tokens_append(to, (quip_token)id)) {
            fail("out of memory for %d token ids", to->n + 1);
            return false;
        }
        text = end;
    }
    return true;
}

int print_json(cJSON *json)
{
    char *text = cJSON_Print(json);
    cJSON_Delete(json);
    if (!text)
        return fail("out of memory for the JSON text");
    puts(text);
    cJSON_free(text);
    return close_output(stdout, "-") ? 0 : EXIT_FAILED;
}

cJSON *json_text(const char *text, size_t n)
{
    struct bytes b = { 0 };
    bool is_fine = qp_bytes_append(&b, "\"", 1);
    for (size_t i = 0; i < n && is_fine; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '"' || c == '\\')
            is_fine = qp_bytes_printf(&b, "\\%c", c);
        else if (c == '\n')
            is_fine = qp_bytes_append(&b, "\\n", 2);
        else if (c < 0x20 || c == 0x7f)
            is_fine = qp_bytes_printf(&b, "\\u%04x", c);
        else
            is_fine = qp_bytes_append(&b, text + i, 1);
    }
    is_fine = is_fine && qp_bytes_append(&b, "\"", 2); // with the NUL
    cJSON *json = is_fine ? cJSON_CreateRaw((char *)b.data) : NULL;
    qp_bytes_close(&b);
    return json;
}

/* ---- time and memory ---- */

struct memory_use memory_use(void)
{
    struct memory_use m = { 0 };
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) == 0)
        m.peak = (uint64_t)usage.ru_maxrss * 1024; // Linux counts in kB
    FILE *f = fopen("/proc/self/status", "r");
    char line[256];
    while (f && fgets(line, sizeof(line), f)) {
        unsigned long long kb;
        if (sscanf(line, "RssFile: %llu", &kb) == 1)
            m.file_backed = kb * 1024;
        if (sscanf(line, "RssAnon: %llu", &kb) == 1)
            m.own = kb * 1024;
    }
    if (f)
        fclose(f);
    return m;
}

const char *finish_name(int32_t finish_reason)
{
    static const char *const names[] = { "none",    "stop",      "length",
                                         "context", "cancelled", "callback" };
    return (size_t)finish_reason < QP_COUNT(names) ? names[finish_reason] : "unknown";
}

static double per_second(int n, uint64_t ns)
{
    return n > 0 && ns ? n / ((double)ns * 1e-9) : 0;
}

/* The first token of an answer is part of the prefill. */
static double decode_rate(const quip_result *r)
{
    return per_second(r->n_output_tokens - 1, r->decode_ns);
}

void print_stats(const quip_result *r)
{
    struct memory_use m = memory_use();
    char peak[24], file_backed[24], own[24];
    fprintf(stderr,
            "%sfirst token after %.0f ms; prompt: %d tokens, %.0f tokens/s; answer: %d tokens, "
            "%.1f tokens/s (%s)\n"
            "memory: peak %s, %s of the model file, %s own; seed %llu; %s%s\n",
            dim(), (double)r->first_token_ns * 1e-6, r->n_prompt_tokens,
            per_second(r->n_prompt_tokens, r->prefill_ns), r->n_output_tokens, decode_rate(r),
            finish_name(r->finish_reason), human_bytes(peak, m.peak),
            human_bytes(file_backed, m.file_backed), human_bytes(own, m.own),
            (unsigned long long)r->seed, backend_name(r->backend), plain());
    if (r->n_draft_tokens > 0)
        fprintf(stderr, "%sdraft tokens: %d of %d were right%s\n", dim(), r->n_draft_right,
                r->n_draft_tokens, plain());
}

void print_reason(const quip_model *model)
{
    quip_model_info info = { .struct_size = sizeof info };
    if (!quip_model_get_info(model, &info, NULL) && info.backend_reason)
        fprintf(stderr, "%sbackend: %s, because %s%s\n", dim(), backend_name(info.backend),
                info.backend_reason, plain());
}

void json_stats(cJSON *object, const quip_result *r)
{
    struct memory_use m = memory_use();
    char seed[24]; // text, because most JSON readers cannot store 64 bits in a number
    snprintf(seed, sizeof(seed), "%llu", (unsigned long long)r->seed);
    cJSON_AddStringToObject(object, "finish_reason", finish_name(r->finish_reason));
    cJSON_AddNumberToObject(object, "prompt_tokens", r->n_prompt_tokens);
    cJSON_AddNumberToObject(object, "output_tokens", r->n_output_tokens);
    cJSON_AddNumberToObject(object, "first_token_ms", (double)r->first_token_ns * 1e-6);
    cJSON_AddNumberToObject(object, "prefill_tokens_per_s",
                            per_second(r->n_prompt_tokens, r->prefill_ns));
    cJSON_AddNumberToObject(object, "decode_tokens_per_s", decode_rate(r));
    cJSON_AddNumberToObject(object, "peak_rss_bytes", (double)m.peak);
    cJSON_AddNumberToObject(object, "file_backed_bytes", (double)m.file_backed);
    cJSON_AddNumberToObject(object, "own_bytes", (double)m.own);
    cJSON_AddStringToObject(object, "seed", seed);
    cJSON_AddStringToObject(object, "backend", backend_name(r->backend));
    cJSON_AddNumberToObject(object, "draft_tokens", r->n_draft_tokens);
    cJSON_AddNumberToObject(object, "draft_tokens_right", r->n_draft_right);
}

/* ---- JSON lines with U+0000 ---- */

bool hide_nuls(char *line, char mark[4])
{
    char escape[8];
    int32_t c = 0xe000;
    mark[3] = 0;
    for (; c < 0xf900; c++) {
        qp_utf8_encode(c, mark);
        snprintf(escape, sizeof(escape), "\\u%04x", (unsigned)c);
        if (!strstr(line, mark) && !strcasestr(line, escape))
            break;
    }
    for (char *p = line; *p; p++) {
        if (*p != '\\')
            continue;
        if (strncmp(p, "\\u0000", 6) == 0)
            memcpy(p, escape, 6);
        if (p[1])
            p++;
    }
    return c < 0xf900;
}

size_t show_nuls(char *text, const char mark[4])
{
    size_t n = 0;
    for (const char *p = text; *p; n++) {
        bool is_nul = strncmp(p, mark, 3) == 0;
        text[n] = is_nul ? 0 : *p;
        p += is_nul ? 3 : 1;
    }
    return n;
}
