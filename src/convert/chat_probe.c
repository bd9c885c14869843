/* chat_probe.c: how a chat template spells simple turns.
 * In:  the Jinja source of a template.
 * Out: texts before and after the turns of user, model and system, for readers that know no Jinja;
 *      the control token that ends an answer.
 *
 * Some conversations are rendered with texts that no template contains. The turns have a prefix and
 * a suffix if all renderings are made of the same pieces. */
#include "convert/chat_source.h"
#include "jinja/jinja.h"

#include <string.h>

#define USER "\"role\": \"user\", \"content\": "
#define MODEL "\"role\": \"assistant\", \"content\": "

struct probe {
    const struct jinja *jinja;
    const struct bytes *tokens;
    struct bytes out; // the last rendering, with a NUL
    bool is_short_of_memory;
};

/* Render messages, a JSON array; false if the template fails. */
static bool render_probe(struct probe *p, const char *messages, bool with_prompt)
{
    struct bytes json = { 0 };
    const struct jinja_time now = { 2026, 3, 14, 9, 26, 53 };
    const struct jinja_options options = { .now = &now };
    const size_t n = p->tokens->n > 2 ? p->tokens->n - 1 : 1; // without }
    bool ok = qp_bytes_append(&json, p->tokens->data, n) &&
              qp_bytes_printf(&json, "%s\"messages\": %s, \"add_generation_prompt\": %s}",
                              n > 1 ? ", " : "", messages, with_prompt ? "true" : "false");
    p->is_short_of_memory |= !ok;
    p->out.n = 0;
    if (ok) {
        const quip_status status =
            qp_jinja_render(p->jinja, (const char *)json.data, json.n, &options, &p->out, NULL);
        p->is_short_of_memory |= status == QUIP_E_MEMORY;
        ok = !status && qp_bytes_append(&p->out, "", 1);
    }
    qp_bytes_close(&json);
    return ok && !memchr(p->out.data, 0, p->out.n - 1);
}

/* The parts of the rendering around the texts "Xq1z", "Xq2z" and so on; parts[n] is the last. */
static bool split_probe(struct probe *p, int n, char *parts[4])
{
    char *at = (char *)p->out.data;
    for (int i = 0; i < n; i++) {
        const char mark[] = { 'X', 'q', (char)('1' + i), 'z', '\0' };
        char *found = strstr(at, mark);
        if (!found)
            return false;
        *found = '\0';
        parts[i] = at;
        at = found + strlen(mark);
    }
    parts[n] = at;
    return true;
}

static const char *keep_part(struct chat_spelling *s, const char *text, size_t n, bool *ok)
{
    const size_t at = s->text.n;
    *ok = *ok && s->text.capacity - at > n && qp_bytes_append(&s->text, text, n) &&
          qp_bytes_append(&s->text, "", 1);
    return *ok ? (const char *)s->text.data + at : "";
}

/* From one question with and without the prompt of an answer, and from two. */
static bool probe_turns(struct probe *p, struct chat_spelling *s, size_t n_bos, bool *ok)
{
    char *parts[4];
    struct bytes tail = { 0 }, head = { 0 };
    bool found = render_probe(p, "[{" USER "\"Xq1z\"}]", true) && split_probe(p, 1, parts) &&
                 strlen(parts[0]) >= n_bos && qp_bytes_append_text(&head, parts[0] + n_bos) &&
                 qp_bytes_append(&head, "", 1) && qp_bytes_append_text(&tail, parts[1]) &&
                 qp_bytes_append(&tail, "", 1);
    size_t n_suffix = 0;
    if (found &&
        (found = render_probe(p, "[{" USER "\"Xq1z\"}]", false) && split_probe(p, 1, parts))) {
        n_suffix = strlen(parts[1]);
        found = n_suffix <= tail.n - 1 && memcmp(tail.data, parts[1], n_suffix) == 0;
    }
    found =
        found &&
        render_probe(p, "[{" USER "\"Xq1z\"}, {" MODEL "\"Xq2z\"}, {" USER "\"Xq3z\"}]", true) &&
        split_probe(p, 3, parts) && strlen(parts[0]) >= n_bos &&
        strcmp(parts[0] + n_bos, (char *)head.data) == 0 &&
        strcmp(parts[1], (char *)tail.data) == 0 && strcmp(parts[3], (char *)tail.data) == 0;
    const size_t n_head = found ? head.n - 1 : 0, n_between = found ? strlen(parts[2]) : 0;
    found = found && n_between >= n_head &&
            memcmp(parts[2] + n_between - n_head, head.data, n_head) == 0;
    if (found) {
        s->user.prefix = keep_part(s, (char *)head.data, n_head, ok);
        s->user.suffix = keep_part(s, (char *)tail.data, n_suffix, ok);
        s->model.prefix = keep_part(s, (char *)tail.data + n_suffix, tail.n - 1 - n_suffix, ok);
        s->model.suffix = keep_part(s, parts[2], n_between - n_head, ok);
    }
    qp_bytes_close(&head);
    qp_bytes_close(&tail);
    return found;
}

static bool probe_system(struct probe *p, struct chat_spelling *s, size_t n_bos, bool *ok)
{
    char *parts[4];
    const size_t n_user = strlen(s->user.prefix);
    if (!render_probe(p, "[{\"role\": \"system\", \"content\": \"Xq1z\"}, {" USER "\"Xq2z\"}]",
                      false) ||
        !split_probe(p, 2, parts) || strlen(parts[0]) < n_bos)
        return false;
    const size_t n = strlen(parts[1]);
    if (n < n_user || strcmp(parts[1] + n - n_user, s->user.prefix) != 0)
        return false;
    s->system.prefix = keep_part(s, parts[0] + n_bos, strlen(parts[0] + n_bos), ok);
    s->system.suffix = keep_part(s, parts[1], n - n_user, ok);
    return true;
}

/* The control token at the beginning of what follows an answer. */
static void probe_stop(struct probe *p, struct chat_spelling *s, const struct tokenizer *tokenizer)
{
    char *parts[4];
    if (!render_probe(p, "[{" USER "\"Xq1z\"}, {" MODEL "\"Xq2z\"}]", false) ||
        !split_probe(p, 2, parts))
        return;
    const char *text = parts[2] + strspn(parts[2], " \n");
    const size_t n = strlen(text);
    for (size_t end = 1; end <= n && end < sizeof s->stop; end++)
        if (qp_tokenizer_special_end(tokenizer, text, end) == end) {
            memcpy(s->stop, text, end);
            s->stop[end] = '\0';
            return;
        }
}

/* The length of bos_token where the template itself begins with it. */
static size_t bos_length(struct probe *p, const struct tokenizer *tokenizer)
{
    char *parts[4];
    static const char key[] = "\"bos_token\": \"";
    if (!render_probe(p, "[{" USER "\"Xq1z\"}]", true) || !split_probe(p, 1, parts))
        return 0;
    const size_t n = strlen(parts[0]);
    for (size_t end = 1; end <= n && end < 64; end++)
        for (size_t at = 0; at + sizeof key - 1 + end < p->tokens->n; at++)
            if (memcmp(p->tokens->data + at, key, sizeof key - 1) == 0 &&
                memcmp(p->tokens->data + at + sizeof key - 1, parts[0], end) == 0 &&
                p->tokens->data[at + sizeof key - 1 + end] == '"' &&
                qp_tokenizer_special_end(tokenizer, parts[0], end) == end)
                return end;
    return 0;
}

quip_status qp_chat_probe(struct chat_spelling *s, const struct chat_sources *chat,
                          const struct tokenizer *tokenizer, quip_error *error)
{
    static const struct turn_text none = { "", "" };
    const struct bytes *source = qp_chat_sources_own(chat);
    struct jinja *jinja = NULL;
    bool ok = true;
    *s = (struct chat_spelling){ .user = none, .model = none, .system = none };
    if (!source)
        return QUIP_OK;
    const quip_status status = qp_jinja_open(&jinja, (const char *)source->data, source->n, NULL);
    if (status == QUIP_E_MEMORY ||
        !qp_bytes_reserve(&s->text, 1 << 16)) // pointers into it stay valid
        return qp_fail_memory(error, "the chat template", source->n);
    struct probe p = { .jinja = jinja, .tokens = &chat->tokens };
    if (!status) {
        const size_t n_bos = bos_length(&p, tokenizer);
        probe_stop(&p, s, tokenizer);
        if (render_probe(&p, "[{" USER "\"Xq1z\"}]", true)) {
            s->is_empty = p.out.n == 1; // its NUL
            snprintf(s->begin, sizeof s->begin, "%s", (const char *)p.out.data);
        }
        s->has_turns = probe_turns(&p, s, n_bos, &ok) && ok;
        s->has_system = s->has_turns && probe_system(&p, s, n_bos, &ok) && ok;
    }
    if (!ok || !s->has_turns) {
        s->user = s->model = none;
        s->has_turns = s->has_system = false;
    }
    if (!s->has_system)
        s->system = none;
    qp_jinja_close(jinja);
    qp_bytes_close(&p.out);
    return p.is_short_of_memory ? qp_fail_memory(error, "the chat template", source->n) : QUIP_OK;
}
