/* story.h: a conversation in steps, for tests in which one of them fails. */
#ifndef TEST_STORY_H
#define TEST_STORY_H

#include "quip.h"

#include "base/base.h"

struct story {
    quip_model *model;
    quip_session *session;
    quip_adapter *adapter;
    struct bytes answer; // the texts so far
};

/* One public call. It may fail, and be repeated. */
typedef quip_status story_step(struct story *s, quip_error *error);

/* Open a session, append, get text, clone, load an adapter and use it, and others. */
extern story_step *const story_steps[];
extern const int n_story_steps;
extern const quip_session_options story_options;

story_step story_next; // the step that gets text

/* Close what the steps opened, and the model. */
void story_close(struct story *s);

#endif
