/* render.c: a template and the variables of a caller -> text.
 * In:  the source of a template; a JSON object.
 * Out: what apply_chat_template of transformers returns for them. */
#include "jinja/jinja_impl.h"

#include <stdlib.h>

#define CONTINUE_MARK "CONTINUE_FINAL_MESSAGE_TAG "

/* The failure of a run becomes that of the caller, and the whole message goes to `message`. */
static quip_status fail_as(struct run *r, struct bytes *message, quip_error *error)
{
    if (r->status == QUIP_E_MEMORY)
        return qp_fail_memory(error, "a chat template", 0);
    const size_t n = r->message.n, most = sizeof error->message - 1;
    const char *text = n ? (const char *)r->message.data : "";
    if (message) {
        message->n = 0;
        if (!qp_bytes_append(message, text, n))
            return qp_fail_memory(error, "a chat template", n);
    }
    return qp_fail(error, r->status, "%.*s", (int)qp_utf8_complete(text, n < most ? n : most),
                   text);
}

quip_status qp_jinja_open(struct jinja **jinja, const char *source, size_t n, quip_error *error)
{
    struct run r = { .steps = JINJA_MAX_STEPS, .line = 1 };
    *jinja = NULL;
    if (n > JINJA_MAX_SOURCE)
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "the template has %zu bytes; at most %d are supported", n, JINJA_MAX_SOURCE);
    struct jinja *j = qp_run_alloc(&r, sizeof *j);
    if (j)
        qp_parse(&r, j, source, n);
    char *copy = r.has_failed ? NULL : qp_run_alloc(&r, n + 1);
    if (copy) {
        memcpy(copy, source, n);
        j->source = copy;
        j->n_source = n;
    }
    quip_status status = QUIP_OK;
    if (r.has_failed)
        status = fail_as(&r, NULL, error);
    else {
        j->chunks = r.chunks;
        r.chunks = NULL;
        *jinja = j;
    }
    qp_run_close(&r);
    return status;
}

void qp_jinja_close(struct jinja *jinja)
{
    struct heap_chunk *chunk = jinja ? jinja->chunks : NULL;
    while (chunk) {
        struct heap_chunk *next = chunk->next;
        free(chunk);
        chunk = next;
    }
}

size_t qp_jinja_memory(const struct jinja *jinja)
{
    size_t n = 0;
    for (const struct heap_chunk *chunk = jinja ? jinja->chunks : NULL; chunk; chunk = chunk->next)
        n += sizeof *chunk + chunk->size;
    return n;
}

bool qp_jinja_spells(const struct jinja *jinja, const char *text, size_t n)
{
    const char *at = jinja->source, *end = at + jinja->n_source;
    for (; n > 0 && (size_t)(end - at) >= n; at++) {
        at = memchr(at, text[0], (size_t)(end - at) - n + 1);
        if (!at || memcmp(at, text, n) == 0)
            return at != NULL;
    }
    return false;
}

/* The object in json[0, n), with `key` if that is not NULL. */
static bool is_object_with(const char *json, size_t n, const char *key)
{
    struct run r = { .steps = JINJA_MAX_STEPS };
    size_t pos = 0;
    const struct value v = qp_value_read(&r, json, n, &pos);
    bool answer = !r.has_failed && v.kind == V_DICT && pos == n;
    if (answer && key) {
        const struct value *found = qp_dict_get(&r, v.dict, key);
        answer = found && found->kind != V_NONE;
    }
    qp_run_close(&r);
    return answer;
}

bool qp_jinja_is_object(const char *json, size_t n)
{
    return is_object_with(json, n, NULL);
}

bool qp_jinja_has(const char *json, size_t n, const char *key)
{
    return is_object_with(json, n, key);
}

bool qp_jinja_quote(struct bytes *out, const char *text, size_t n)
{
    struct run r = { .steps = JINJA_MAX_STEPS };
    struct text_out o = { .run = &r };
    const struct value v = qp_text(text, n);
    qp_put_json_text(&o, &v, false);
    const bool ok = !r.has_failed && qp_bytes_append(out, o.data, o.n);
    qp_run_close(&r);
    return ok;
}

/* ---- messages ---- */

static const char *const reasoning_keys[] = { "reasoning_content", "thinking", "reasoning" };

/* A message without its null values. Its reasoning has each of the names that templates use. */
static struct value prepare_message(struct run *r, const struct value *message)
{
    if (message->kind != V_DICT)
        return qp_run_fail(r, "a message is not an object");
    struct dict *d = qp_dict_new(r, message->dict->n + 2),
                *kept = qp_dict_new(r, message->dict->n + 2);
    for (uint32_t i = 0; i < message->dict->n; i++)
        if (message->dict->values[i].kind != V_NONE)
            qp_dict_set(r, kept, message->dict->keys[i], message->dict->values[i]);
    const struct value *reasoning = NULL;
    for (size_t i = 0; i < QP_COUNT(reasoning_keys) && !reasoning && !r->has_failed; i++)
        reasoning = qp_dict_get(r, kept, reasoning_keys[i]);
    if (r->has_failed)
        return qp_nothing;
    if (!reasoning)
        return (struct value){ .kind = V_DICT, .dict = kept };
    qp_dict_set(r, d, qp_literal("thinking"), *reasoning);
    for (uint32_t i = 0; i < kept->n; i++)
        qp_dict_set(r, d, kept->keys[i], kept->values[i]);
    qp_dict_set(r, d, qp_literal("reasoning_content"), *reasoning);
    return r->has_failed ? qp_nothing : (struct value){ .kind = V_DICT, .dict = d };
}

static struct value prepare_messages(struct run *r, const struct value *messages)
{
    struct list_out o = { .run = r };
    if (messages->kind != V_LIST)
        return qp_run_fail(r, "messages are not an array");
    for (uint32_t i = 0; i < messages->n && !r->has_failed; i++)
        qp_list_add(&o, prepare_message(r, &messages->items[i]));
    return qp_list_of(&o);
}

/* The text that is continued, with the mark behind it. The keys of `last` and its parts are copied.
 */
static struct value mark_content(struct run *r, struct dict *last, const char *field)
{
    const struct value key = qp_literal(field), mark = qp_literal(CONTINUE_MARK);
    const struct value *content = qp_dict_get(r, last, field);
    if (!content)
        return qp_run_fail(r, "the last message has no \"%s\" to continue", field);
    if (content->kind == V_TEXT) {
        const struct value text = *content;
        qp_dict_set(r, last, key, qp_text_join(r, text, mark));
        return text;
    }
    for (uint32_t i = content->kind == V_LIST ? content->n : 0; i > 0; i--) {
        const struct value *part = &content->items[i - 1];
        const struct value *text = part->kind == V_DICT ? qp_dict_get(r, part->dict, "text") : NULL;
        if (!text || text->kind != V_TEXT)
            continue;
        const struct value before = *text;
        qp_dict_set(r, part->dict, qp_literal("text"), qp_text_join(r, before, mark));
        return before;
    }
    return qp_run_fail(r, "the last message has no text to continue");
}

/* Mark the end of the last message. Returns its text. */
static struct value begin_continue(struct run *r, const struct value *messages,
                                   const struct value *what)
{
    char field[64] = "content";
    if (!messages || messages->kind != V_LIST || messages->n == 0)
        return qp_run_fail(r, "there is no message to continue");
    if (what->kind == V_TEXT && what->n < sizeof field) {
        memcpy(field, what->text, what->n);
        field[what->n] = '\0';
    }
    struct dict *last = messages->items[messages->n - 1].dict;
    const struct value text = mark_content(r, last, field);
    for (size_t i = 0; i < QP_COUNT(reasoning_keys) && !r->has_failed; i++) {
        const struct value *copy = qp_dict_get(r, last, reasoning_keys[i]),
                           *marked = qp_dict_get(r, last, field);
        const bool is_reasoning = strcmp(field, "content") != 0;
        if (is_reasoning && copy && copy->kind == V_TEXT && marked && qp_text_same(copy, &text))
            qp_dict_set(r, last, qp_literal(reasoning_keys[i]), *marked);
    }
    return text;
}

/* Cut the text at the mark. If the template trimmed the message, its end is trimmed, too. */
static struct value end_continue(struct run *r, struct value text, struct value content)
{
    const size_t n_mark = strlen(CONTINUE_MARK) - 1;
    const struct value mark = qp_text(CONTINUE_MARK, n_mark),
                       trimmed = qp_text_strip(content, NULL, true, true);
    size_t at = text.n + 1;
    for (size_t i = text.n; i + 1 > n_mark && at > text.n; i--)
        if (memcmp(text.text + i - n_mark, CONTINUE_MARK, n_mark) == 0)
            at = i - n_mark;
    if (at > text.n || !qp_value_contains(r, &text, &trimmed) ||
        !qp_value_contains(r, &text, &mark))
        return qp_run_fail(r, "the template does not write the message to continue as it is");
    const bool is_whole = at + n_mark < text.n && text.text[at + n_mark] == ' ';
    text = qp_text_part(text, 0, at);
    return is_whole ? text : qp_text_strip(text, NULL, false, true);
}

/* ---- the rendering ---- */

struct render {
    struct run run;
    struct value continued; // the text that is continued, or V_MISSING
    bool has_absent;        // tools or documents were absent
};

static bool prepare(struct render *x, const char *json, size_t n, bool absent_is_none)
{
    struct run *r = &x->run;
    size_t pos = 0;
    struct value vars = qp_value_read(r, json, n, &pos);
    if (!r->has_failed && (vars.kind != V_DICT || pos < n)) {
        qp_run_raise(r, qp_literal("expected one JSON object with the variables of the template"));
        return false;
    }
    if (r->has_failed)
        return false;
    r->line = 0;
    const struct value *found = qp_dict_get(r, vars.dict, "messages");
    struct value messages = qp_nothing;
    if (found) {
        messages = prepare_messages(r, found);
        qp_dict_set(r, vars.dict, qp_literal("messages"), messages);
    }
    static const char *const lists[] = { "tools", "documents" };
    for (size_t i = 0; i < QP_COUNT(lists) && !r->has_failed; i++)
        if (!qp_dict_get(r, vars.dict, lists[i])) {
            x->has_absent = true;
            if (absent_is_none)
                qp_dict_set(r, vars.dict, qp_literal(lists[i]), qp_none());
        }
    const struct value *prompt = qp_dict_get(r, vars.dict, "add_generation_prompt");
    const bool has_prompt = prompt && qp_value_truth(r, prompt);
    if (!prompt)
        qp_dict_set(r, vars.dict, qp_literal("add_generation_prompt"), qp_bool(false));
    const struct value *more = qp_dict_get(r, vars.dict, "continue_final_message");
    x->continued = qp_nothing;
    if (more && qp_value_truth(r, more) && !r->has_failed) {
        if (has_prompt)
            qp_run_fail(r, "continue_final_message excludes add_generation_prompt");
        else
            x->continued = begin_continue(r, found ? &messages : NULL, more);
    }
    r->vars = vars.dict;
    return !r->has_failed;
}

static struct value render_once(struct render *x, const struct jinja *jinja, const char *json,
                                size_t n, bool absent_is_none)
{
    struct run *r = &x->run;
    struct text_out out = { .run = r };
    struct scope root = { 0 };
    if (!prepare(x, json, n, absent_is_none))
        return qp_nothing;
    r->jinja = jinja;
    qp_exec(r, jinja->body, &root, &out);
    const struct value text = qp_text_of(&out);
    if (r->has_failed)
        return qp_nothing;
    return x->continued.kind == V_MISSING ? text : end_continue(r, text, x->continued);
}

quip_status qp_jinja_render(const struct jinja *jinja, const char *variables, size_t n,
                            const struct jinja_options *options, struct bytes *out,
                            quip_error *error)
{
    static const struct jinja_options defaults = { 0 };
    options = options ? options : &defaults;
    const struct run fresh = { .steps = JINJA_MAX_STEPS, .now = options->now };
    struct render first = { .run = fresh }, second = { .run = fresh };
    struct value text = render_once(&first, jinja, variables, n, true);
    const bool retries = first.run.has_failed && first.run.may_retry && first.has_absent &&
                         first.continued.kind == V_MISSING && !options->is_strict;
    if (retries) // llama.cpp leaves them undefined, and some templates expect that
        text = render_once(&second, jinja, variables, n, false);
    quip_status status = QUIP_OK;
    if (first.run.has_failed && (!retries || second.run.has_failed))
        status = fail_as(&first.run, options->message, error);
    else if (!qp_bytes_append(out, text.text, text.n))
        status = qp_fail_memory(error, "a chat template", text.n);
    qp_run_close(&first.run);
    qp_run_close(&second.run);
    return status;
}
