/* talk.c: a conversation that the model's own chat template spells.
 * In:  texts, each with a role; answers.
 * Out: tokens of the context, whose text is the rendering of the whole conversation.
 *
 * A template is a function of the whole conversation, and may spell earlier turns differently when
 * it goes on: many drop the reasoning of earlier answers. So each input renders everything again.
 * Text that was fed already and did not change is not tokenized again, so an answer keeps the
 * tokens that were drawn, if a control token follows it. Where the text did change, the context
 * goes back to the first token that differs.
 *
 * A token that marks turns and is spelled out in a text of the conversation, or in a variable of
 * the template, must not become one: a mark in it divides the text for the tokenizer, and is
 * removed. */
#include "engine/engine.h"
#include "format/json_scan.h"

#include <stdlib.h>
#include <string.h>

#define MARK "\xee\xbf\xbf" // U+EFFF, of private use

static const struct talk_turn *turn_at(const struct talk_state *t, size_t i)
{
    return (const struct talk_turn *)(const void *)t->turns.data + i;
}

static size_t n_turns(const struct talk_state *t)
{
    return t->turns.n / sizeof(struct talk_turn);
}

static const struct talk_turn *last_turn(const struct talk_state *t)
{
    return n_turns(t) ? turn_at(t, n_turns(t) - 1) : NULL;
}

static void close_state(struct talk_state *t)
{
    qp_bytes_close(&t->contents);
    qp_bytes_close(&t->turns);
    qp_bytes_close(&t->fed);
    qp_bytes_close(&t->points);
    *t = (struct talk_state){ 0 };
}

void qp_talk_close(struct talk *talk)
{
    if (talk->is_own)
        qp_jinja_close((struct jinja *)talk->jinja);
    close_state(&talk->state);
    close_state(&talk->before);
    qp_bytes_close(&talk->tail);
    qp_bytes_close(&talk->tail_roles);
}

static bool copy_state(struct talk_state *to, const struct talk_state *from)
{
    *to = (struct talk_state){ .n_known = from->n_known,
                               .floor = from->floor,
                               .is_cut = from->is_cut };
    return qp_bytes_append(&to->contents, from->contents.data, from->contents.n) &&
           qp_bytes_append(&to->turns, from->turns.data, from->turns.n) &&
           qp_bytes_append(&to->fed, from->fed.data, from->fed.n) &&
           qp_bytes_append(&to->points, from->points.data, from->points.n);
}

/* ---- texts ---- */

/* A copy of a text with a mark inside each control token that it spells out, and inside each other
 * token that marks turns. */
static bool append_marked(const quip_session *s, quip_role role, struct bytes *out,
                          const char *text, size_t n)
{
    bool ok = true;
    for (size_t part; n > 0 && ok; text += part, n -= part) {
        part = qp_turn_division(s, role, true, text, n);
        ok = qp_bytes_append(out, text, part) && (part == n || qp_bytes_append_text(out, MARK));
    }
    return ok;
}

static bool add_turn(struct talk_state *t, quip_role role, const char *text, size_t n)
{
    const struct talk_turn turn = { .role = role, .begin = -1, .end = -1, .n = n };
    if (!qp_bytes_append(&t->contents, text, n))
        return false;
    const struct talk_turn *last = last_turn(t);
    if (!last || last->role != role)
        return qp_bytes_append(&t->turns, &turn, sizeof turn);
    struct talk_turn *same = (struct talk_turn *)(void *)t->turns.data + n_turns(t) - 1;
    same->n += n;
    return true;
}

/* The tokens of an answer become a turn, and are text that was fed. Tokens without a role only set
 * the floor. */
static bool absorb_answer(const quip_session *s, struct talk_state *t)
{
    const int begin = t->n_known;
    struct detokenizer d = { .has_started = true };
    struct bytes text = { 0 };
    if (s->n <= begin)
        return true;
    t->n_known = s->n;
    if (s->role != QUIP_ROLE_MODEL) {
        const struct talk_point point = { t->fed.n, s->n };
        t->floor = s->n;
        t->points.n = 0;
        return qp_bytes_append(&t->points, &point, sizeof point);
    }
    bool ok = true;
    for (int i = begin; i < s->n && ok; i++)
        ok = qp_detokenize(s->model->tokenizer, &d, s->context[i], &text);
    ok = ok && qp_detokenize_end(s->model->tokenizer, &d, &text);
    const size_t fed_begin = t->fed.n;
    ok = ok && add_turn(t, QUIP_ROLE_MODEL, (const char *)text.data, text.n) &&
         qp_bytes_append(&t->fed, text.data, text.n);
    if (ok) {
        struct talk_turn *turn = (struct talk_turn *)(void *)t->turns.data + n_turns(t) - 1;
        turn->begin = begin;
        turn->end = s->n;
        turn->fed_begin = fed_begin;
        turn->fed_n = t->fed.n;
    }
    qp_bytes_close(&text);
    return ok;
}

/* ---- rendering ---- */

static const char *role_name(quip_role role)
{
    return role == QUIP_ROLE_USER ? "user" : role == QUIP_ROLE_MODEL ? "assistant" : "system";
}

/* The members of a JSON object, with a comma behind them. */
static bool append_members(struct bytes *out, const char *json, size_t n)
{
    while (n && json[n - 1] != '}')
        n--;
    const char *begin = n ? memchr(json, '{', n) : NULL;
    if (!begin)
        return true;
    size_t length = (size_t)(json + n - 1 - begin) - 1, used = 0;
    for (size_t i = 1; i <= length; i++)
        used += !strchr(" \t\r\n", begin[i]);
    return used == 0 || (qp_bytes_append(out, begin + 1, length) && qp_bytes_append(out, ",", 1));
}

/* A JSON text[0, n) with its quotes. What it says is marked as a text of the user. */
static bool append_marked_text(const quip_session *s, struct bytes *out, const char *text, size_t n)
{
    struct bytes plain = { 0 }, marked = { 0 };
    bool ok = qp_bytes_append(&plain, text + 1, n - 2);
    const struct json_text raw = { .raw = (const char *)plain.data, .n = plain.n };
    const size_t length = ok ? qp_json_decode(raw, (char *)plain.data) : 0; // shorter than escapes
    ok = ok && length <= plain.n &&
         append_marked(s, QUIP_ROLE_USER, &marked, (const char *)plain.data, length);
    if (ok && marked.n > length)
        ok = qp_jinja_quote(out, (const char *)marked.data, marked.n);
    else
        ok = ok && qp_bytes_append(out, text, n);
    qp_bytes_close(&plain);
    qp_bytes_close(&marked);
    return ok;
}

static bool is_name_of_token(const char *name, size_t n)
{
    return n > 6 && memcmp(name + n - 6, "_token", 6) == 0;
}

/* A copy of a valid JSON object whose texts are marked: tools and documents come from others, as
 * the texts of the conversation do. The names of its own members are not texts, nor are the values
 * of those that are tokens by name, such as "bos_token". */
static bool append_marked_object(const quip_session *s, struct bytes *out, const char *json,
                                 size_t n)
{
    bool ok = true, is_token = false;
    int depth = 0;
    for (size_t at = 0, end; at < n && ok; at = end) {
        end = at + 1;
        if (json[at] != '"') {
            depth += (json[at] == '{' || json[at] == '[') - (json[at] == '}' || json[at] == ']');
            ok = qp_bytes_append(out, json + at, 1);
            continue;
        }
        while (end < n && json[end] != '"')
            end += json[end] == '\\' ? 2 : 1;
        end = end < n ? end + 1 : n;
        size_t next = end;
        while (json[next] == ' ' || json[next] == '\t' || json[next] == '\r' || json[next] == '\n')
            next++;
        const bool is_name = depth == 1 && json[next] == ':';
        if (is_name)
            is_token = is_name_of_token(json + at + 1, end - at - 2);
        ok = is_name || (depth == 1 && is_token) ? qp_bytes_append(out, json + at, end - at)
                                                 : append_marked_text(s, out, json + at, end - at);
    }
    return ok;
}

static bool append_variables(const quip_session *s, const struct talk_state *t, const char *mode,
                             struct bytes *out)
{
    const quip_model *m = s->model;
    const char *given = s->options.template_variables;
    struct bytes own = { 0 };
    size_t at = 0;
    bool ok = qp_bytes_append(out, "{", 1) &&
              append_members(out, (const char *)m->jinja_tokens.data, m->jinja_tokens.n) &&
              (!given || append_marked_object(s, &own, given, strlen(given))) &&
              append_members(out, (const char *)own.data, own.n) &&
              qp_bytes_append_text(out, "\"messages\":[");
    qp_bytes_close(&own);
    for (size_t i = 0; i < n_turns(t) && ok; i++) {
        const struct talk_turn *turn = turn_at(t, i);
        struct bytes marked = { 0 };
        ok = qp_bytes_printf(out, "%s{\"role\":\"%s\",\"content\":", i ? "," : "",
                             role_name(turn->role)) &&
             append_marked(s, turn->role, &marked, (const char *)t->contents.data + at, turn->n) &&
             qp_jinja_quote(out, (const char *)marked.data, marked.n) &&
             qp_bytes_append(out, "}", 1);
        qp_bytes_close(&marked);
        at += turn->n;
    }
    return ok && qp_bytes_printf(out, "],%s}", mode);
}

static quip_status render_mode(quip_session *s, const struct talk_state *t, const char *mode,
                               struct bytes *text, quip_error *error)
{
    struct bytes json = { 0 };
    if (!s->talk.has_now)
        s->talk.now = qp_jinja_clock();
    s->talk.has_now = true;
    const struct jinja_options options = { .now = &s->talk.now };
    quip_status status = QUIP_OK;
    text->n = 0;
    if (!append_variables(s, t, mode, &json))
        status = qp_fail_memory(error, "a conversation", t->contents.n);
    else
        status =
            qp_jinja_render(s->talk.jinja, (const char *)json.data, json.n, &options, text, error);
    qp_bytes_close(&json);
    return status;
}

/* The conversation up to the end of the last text, so that more can follow. *is_known becomes false
 * if only the template knows how that text ends, which then waits for the answer. */
static quip_status render_open(quip_session *s, const struct talk_state *t, struct bytes *text,
                               bool *is_known, quip_error *error)
{
    quip_error first = { 0 };
    quip_status status = render_mode(s, t, "\"continue_final_message\":true", text, &first);
    *is_known = status == QUIP_OK;
    if (status == QUIP_E_FORMAT) // or the template fails with any conversation like this one
        return render_mode(s, t, "\"add_generation_prompt\":true", text, error);
    return status ? qp_fail(error, status, "%s", first.message) : QUIP_OK;
}

/* ---- tokens ---- */

/* Tokenize text[0, n), which follows the token `last`, -1 if nothing precedes it. Points are
 * relative to it. */
static quip_status encode_rendered(const quip_session *s, const char *text, size_t n,
                                   quip_token last, struct tokens *out, struct bytes *points,
                                   quip_error *error)
{
    const struct tokenizer *t = s->model->tokenizer;
    bool is_more = false; // behind a mark
    for (size_t at = 0; at < n;) {
        size_t end = at;
        while (end < n && !(n - end >= 3 && memcmp(text + end, MARK, 3) == 0))
            end++;
        const size_t special = qp_tokenizer_special_end(t, text + at, end - at);
        for (int half = 0; half < 2; half++) {
            const size_t begin = half ? at + special : at, stop = half ? end : at + special;
            const quip_token before = out->n ? out->ids[out->n - 1] : last;
            const bool is_start = !is_more && (before < 0 || qp_tokenizer_is_control(t, before));
            quip_status status = QUIP_OK;
            if (begin < stop)
                status = (is_start ? qp_tokenizer_encode : qp_tokenizer_encode_more)(
                    t, text + begin, stop - begin, true, out, error);
            if (status)
                return status;
            const struct talk_point point = { stop, out->n };
            if (!half && special && !qp_bytes_append(points, &point, sizeof point))
                return qp_fail_memory(error, "a prompt", n);
            is_more = is_more && begin == stop;
        }
        at = end < n ? end + 3 : end;
        is_more = true;
    }
    return QUIP_OK;
}

/* The last point at or before the first `n` bytes; the floor, or the start of all. */
static struct talk_point point_before(const struct talk_state *t, size_t n)
{
    const struct talk_point *points = (const struct talk_point *)(const void *)t->points.data;
    for (size_t i = t->points.n / sizeof *points; i > 0; i--)
        if (points[i - 1].text <= n)
            return points[i - 1];
    return (struct talk_point){ 0, t->floor ? -1 : 0 };
}

/* What a rendering means for the context: drop what follows `keep` tokens, and append `more`. */
struct change {
    int keep;
    struct tokens more;
};

/* bos begins a context once, whether the template spells it or not. */
static bool settle_bos(const quip_session *s, struct tokens *tokens, int pos)
{
    const quip_token bos = s->model->config.bos;
    const bool has_bos = tokens->n > 0 && tokens->ids[0] == bos;
    if (bos < 0 || (pos == 0 && has_bos) || (pos > 0 && !has_bos))
        return true;
    if (pos == 0) {
        if (!qp_tokens_append(tokens, bos))
            return false;
        memmove(tokens->ids + 1, tokens->ids, (size_t)(tokens->n - 1) * sizeof *tokens->ids);
        tokens->ids[0] = bos;
    } else
        memmove(tokens->ids, tokens->ids + 1, (size_t)--tokens->n * sizeof *tokens->ids);
    return true;
}

/* Positions behind `keep` no longer hold. */
static void forget_positions(struct talk_state *t, size_t text, int pos)
{
    struct talk_turn *turns = (struct talk_turn *)(void *)t->turns.data;
    struct talk_point *points = (struct talk_point *)(void *)t->points.data;
    size_t n = t->points.n / sizeof *points;
    for (size_t i = 0; i < n_turns(t); i++)
        if (turns[i].end > pos || turns[i].fed_n > text)
            turns[i].begin = turns[i].end = -1;
    while (n > 0 && (points[n - 1].pos > pos || points[n - 1].text > text))
        n--;
    t->points.n = n * sizeof *points;
}

/* Compare a rendering with what was fed, and say what changes. *t becomes the state after that. */
static quip_status plan_change(const quip_session *s, struct talk_state *t,
                               const struct bytes *text, struct change *change, quip_error *error)
{
    size_t same = 0;
    while (same < t->fed.n && same < text->n && t->fed.data[same] == text->data[same])
        same++;
    struct talk_point from = point_before(t, same);
    const char *next = (const char *)text->data + same;
    if (same == t->fed.n && same > 0 && t->n_known == s->n &&
        qp_tokenizer_divides(s->model->tokenizer, next,
                             text->n - same)) // an answer keeps its tokens
        from = (struct talk_point){ same, s->n };
    struct bytes points = { 0 };
    if (from.pos < 0)
        return qp_fail(
            error, QUIP_E_ARGUMENT,
            "the chat template rewrites the text before tokens that were appended without "
            "a role; rewind the session to 0");
    const quip_token last = from.pos ? s->context[from.pos - 1] : -1;
    struct tokens *more = &change->more;
    quip_status status = encode_rendered(s, (const char *)text->data + from.text,
                                         text->n - from.text, last, more, &points, error);
    const int n_before = more->n;
    if (!status && from.text == 0 && !settle_bos(s, more, from.pos))
        status = qp_fail_memory(error, "a prompt", text->n);
    int n_same = 0;
    while (n_same < more->n && from.pos + n_same < s->n &&
           more->ids[n_same] == s->context[from.pos + n_same])
        n_same++;
    change->keep = from.pos + n_same;
    forget_positions(t, same, change->keep);
    const struct talk_point *p = (const struct talk_point *)(const void *)points.data;
    for (size_t i = 0; i < points.n / sizeof *p && !status; i++) {
        const struct talk_point point = { from.text + p[i].text,
                                          from.pos + p[i].pos + more->n - n_before };
        if (point.text > same && !qp_bytes_append(&t->points, &point, sizeof point))
            status = qp_fail_memory(error, "a prompt", text->n);
    }
    t->n_known = from.pos + more->n;
    more->n -= n_same;
    if (more->n > 0)
        memmove(more->ids, more->ids + n_same, (size_t)more->n * sizeof *more->ids);
    t->fed.n = 0;
    if (!status && !qp_bytes_append(&t->fed, text->data, text->n))
        status = qp_fail_memory(error, "a prompt", text->n);
    qp_bytes_close(&points);
    return status;
}

/* ---- the session ---- */

/* Keep the tokens from `keep` on, so that quip_session_undo finds them again. */
static bool keep_tail(quip_session *s, int keep)
{
    struct talk *talk = &s->talk;
    const int end = qp_min(talk->tail_begin, talk->before_n);
    if (keep >= end)
        return true;
    struct bytes tokens = { 0 }, roles = { 0 };
    const size_t n = (size_t)(end - keep);
    if (!qp_bytes_append(&tokens, s->context + keep, n * sizeof *s->context) ||
        !qp_bytes_append(&tokens, talk->tail.data, talk->tail.n) ||
        !qp_bytes_append(&roles, s->roles + keep, n) ||
        !qp_bytes_append(&roles, talk->tail_roles.data, talk->tail_roles.n)) {
        qp_bytes_close(&tokens);
        qp_bytes_close(&roles);
        return false;
    }
    qp_bytes_close(&talk->tail);
    qp_bytes_close(&talk->tail_roles);
    talk->tail = tokens;
    talk->tail_roles = roles;
    talk->tail_begin = keep;
    return true;
}

/* The state becomes *t, which is moved, and the context changes. On failure nothing does. */
static quip_status commit(quip_session *s, struct talk_state *t, const struct change *change,
                          quip_role role, quip_error *error)
{
    struct talk *talk = &s->talk;
    const int n = s->n;
    if (!talk->is_before) {
        talk->before_n = talk->tail_begin = n;
        talk->tail.n = talk->tail_roles.n = 0;
    }
    if (!keep_tail(s, change->keep))
        return qp_fail_memory(error, "a prompt", (size_t)n);
    if (change->more.n > s->options.n_context - change->keep)
        return qp_session_fail_full(s, change->keep, change->more.n, error);
    if (change->keep < s->n)
        qp_session_cut(s, change->keep);
    const quip_status status = qp_session_push(s, change->more.ids, change->more.n, role, error);
    if (status)
        return status;
    struct talk_state *old = talk->is_before ? NULL : &talk->before;
    close_state(old ? old : &talk->state);
    if (old)
        *old = talk->state;
    talk->is_before = true;
    talk->state = *t;
    *t = (struct talk_state){ 0 };
    s->result.n_prompt_tokens += change->more.n;
    s->role = role;
    s->has_begun = true;
    return QUIP_OK;
}

/* The end of the last turn is now the end of the context. */
static void note_end(struct talk_state *t)
{
    struct talk_turn *turn = (struct talk_turn *)(void *)t->turns.data + n_turns(t) - 1;
    turn->end = t->n_known;
    turn->fed_n = t->fed.n;
}

static quip_status start_change(quip_session *s, struct talk_state *t, quip_error *error)
{
    if (s->talk.state.is_cut)
        return qp_fail(
            error, QUIP_E_ARGUMENT,
            "the session was rewound to the middle of a text; rewind it to the end of one, "
            "or to 0");
    if (!copy_state(t, &s->talk.state) || !absorb_answer(s, t))
        return qp_fail_memory(error, "a conversation", s->talk.state.contents.n);
    return QUIP_OK;
}

static quip_status plan_text(quip_session *s, quip_role role, const char *text, size_t n,
                             struct talk_state *t, struct change *change, quip_error *error)
{
    const char *system = s->options.system;
    struct bytes rendered = { 0 };
    bool is_known = false;
    quip_status status = start_change(s, t, error);
    if (!status && n_turns(t) == 0 && role != QUIP_ROLE_SYSTEM && system && system[0] &&
        !add_turn(t, QUIP_ROLE_SYSTEM, system, strlen(system)))
        status = qp_fail_memory(error, "the system prompt", strlen(system));
    if (!status && !add_turn(t, role, text, n))
        status = qp_fail_memory(error, "a prompt", n);
    if (!status)
        status = render_open(s, t, &rendered, &is_known, error);
    change->keep = s->n;
    if (!status && is_known && !(status = plan_change(s, t, &rendered, change, error)))
        note_end(t);
    qp_bytes_close(&rendered);
    return status;
}

quip_status qp_talk_tokens(quip_session *s, quip_role role, const char *text, size_t n,
                           struct tokens *out, quip_error *error)
{
    struct talk_state t = { 0 };
    struct change change = { 0 };
    quip_status status = plan_text(s, role, text, n, &t, &change, error);
    for (int i = 0; i < change.more.n && !status; i++)
        if (!qp_tokens_append(out, change.more.ids[i]))
            status = qp_fail_memory(error, "a prompt", n);
    qp_tokens_close(&change.more);
    close_state(&t);
    return status;
}

quip_status qp_talk_push(quip_session *s, quip_role role, const char *text, size_t n,
                         quip_error *error)
{
    struct talk_state t = { 0 };
    struct change change = { 0 };
    quip_status status = plan_text(s, role, text, n, &t, &change, error);
    if (!status)
        status = commit(s, &t, &change, role, error);
    qp_tokens_close(&change.more);
    close_state(&t);
    return status;
}

quip_status qp_talk_begin_answer(quip_session *s, quip_error *error)
{
    struct talk_state t = { 0 };
    struct change change = { .keep = s->n };
    struct bytes rendered = { 0 };
    bool is_known = true;
    quip_status status = start_change(s, &t, error);
    const struct talk_turn *last = last_turn(&t);
    if (!status && last && last->role == QUIP_ROLE_MODEL) // it is continued
        status = render_open(s, &t, &rendered, &is_known, error);
    else if (!status)
        status = render_mode(s, &t, "\"add_generation_prompt\":true", &rendered, error);
    if (!status && !is_known)
        status = qp_fail(error, QUIP_E_UNSUPPORTED,
                         "the chat template cannot continue a text of the model");
    if (!status)
        status = plan_change(s, &t, &rendered, &change, error);
    if (!status)
        status = commit(s, &t, &change, QUIP_ROLE_MODEL, error);
    qp_tokens_close(&change.more);
    qp_bytes_close(&rendered);
    close_state(&t);
    return status;
}

void qp_talk_begin_input(quip_session *s)
{
    s->talk.is_before = false;
}

void qp_talk_undo(quip_session *s)
{
    struct talk *talk = &s->talk;
    if (!talk->jinja || !talk->is_before)
        return;
    const struct talk_state now = talk->state;
    talk->state = talk->before;
    talk->before = now;
    talk->is_before = false;
    qp_session_cut(s, talk->tail_begin);
    if (talk->tail_roles.n > 0) {
        memcpy(s->context + s->n, talk->tail.data, talk->tail.n);
        memcpy(s->roles + s->n, talk->tail_roles.data, talk->tail_roles.n);
        s->n += (int)talk->tail_roles.n;
    }
}

/* A rewind inside the last answer needs nothing. Otherwise it must end where a text does. */
void qp_talk_rewind(quip_session *s, int position)
{
    struct talk_state *t = &s->talk.state;
    s->talk.is_before = false;
    if (!s->talk.jinja || (position >= t->n_known && position >= t->floor))
        return;
    t->is_cut = position > 0;
    size_t keep = 0;
    for (size_t i = n_turns(t); i > 0 && t->is_cut; i--) {
        const struct talk_turn *turn = turn_at(t, i - 1);
        const bool is_end = turn->end == position, is_begin = turn->begin == position;
        if ((!is_end && !is_begin) || position < t->floor)
            continue;
        keep = is_end ? i : i - 1;
        t->fed.n = is_end ? turn->fed_n : turn->fed_begin;
        t->is_cut = false;
    }
    if (t->is_cut)
        return;
    if (position == 0)
        t->fed.n = 0;
    t->turns.n = keep * sizeof(struct talk_turn);
    t->contents.n = 0;
    for (size_t i = 0; i < keep; i++)
        t->contents.n += turn_at(t, i)->n;
    t->n_known = position;
    t->floor = qp_min(t->floor, position);
    forget_positions(t, t->fed.n, position);
}

bool qp_talk_copy(struct talk *to, const struct talk *from)
{
    to->now = from->now;
    to->has_now = from->has_now;
    to->is_before = from->is_before;
    to->before_n = from->before_n;
    to->tail_begin = from->tail_begin;
    return copy_state(&to->state, &from->state) && copy_state(&to->before, &from->before) &&
           qp_bytes_append(&to->tail, from->tail.data, from->tail.n) &&
           qp_bytes_append(&to->tail_roles, from->tail_roles.data, from->tail_roles.n);
}
