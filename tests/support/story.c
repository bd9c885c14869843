/* story.c: see story.h */
#include "support/story.h"
#include "support/check.h"
#include "support/tiny_adapter.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

const quip_session_options story_options = {
    .n_context = 128, .max_output_tokens = 30, .temperature = 1.1f, .seed = 11, .has_seed = true
};

static quip_status open_session(struct story *s, quip_error *error)
{
    return quip_session_open(&s->session, s->model, &story_options, error);
}

static quip_status append(struct story *s, quip_error *error)
{
    return quip_session_append(s->session, QUIP_ROLE_USER, "the hen", 7, error);
}

quip_status story_next(struct story *s, quip_error *error)
{
    quip_piece piece = { .struct_size = sizeof piece };
    const quip_status status = quip_session_next(s->session, &piece, error);
    if (!status)
        assert_true(qp_bytes_append(&s->answer, piece.text, piece.n_text));
    return status;
}

static quip_status prefill(struct story *s, quip_error *error)
{
    static const quip_token tokens[] = { 30, 31, 32, 33, 34 };
    return quip_session_prefill_logits(s->session, tokens, 5, NULL, NULL, error);
}

static quip_status rewind_two(struct story *s, quip_error *error)
{
    return quip_session_rewind(s->session, quip_session_position(s->session) - 2, error);
}

static quip_status clone(struct story *s, quip_error *error)
{
    quip_session *copy;
    const quip_status status = quip_session_clone(&copy, s->session, error);
    if (status) {
        assert_null(copy);
        return status;
    }
    quip_session_close(s->session);
    s->session = copy;
    return QUIP_OK;
}

static quip_status load_adapter(struct story *s, quip_error *error)
{
    static const struct tiny_adapter tiny = { .rank = 2, .alpha = 4 };
    char folder[64];
    snprintf(folder, sizeof folder, "story-adapter-%d", (int)getpid());
    check(tiny_adapter_write(folder, s->model, &tiny, error), error);
    const quip_status status = quip_adapter_open(&s->adapter, s->model, folder, error);
    tiny_adapter_remove(folder);
    if (status)
        assert_null(s->adapter);
    return status;
}

static quip_status set_adapter(struct story *s, quip_error *error)
{
    return quip_session_set_adapter(s->session, s->adapter, 0.9f, error);
}

story_step *const story_steps[] = { open_session, append,     story_next,   story_next,  story_next,
                                    clone,        story_next, append,       story_next,  story_next,
                                    prefill,      rewind_two, load_adapter, set_adapter, story_next,
                                    story_next,   story_next };
const int n_story_steps = (int)QP_COUNT(story_steps);

void story_close(struct story *s)
{
    quip_session_close(s->session);
    quip_adapter_close(s->adapter);
    quip_model_close(s->model);
    qp_bytes_close(&s->answer);
    *s = (struct story){ 0 };
}
