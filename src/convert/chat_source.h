/* chat_source.h: the chat templates of a checkpoint (chat_source.c). */
#ifndef QP_CHAT_SOURCE_H
#define QP_CHAT_SOURCE_H

#include "convert/checkpoint.h"
#include "tokenizer/tokenizer.h"

enum {
    MAX_CHAT_SOURCES = 12
};

/* Jinja sources, each with a NUL behind its n bytes. The first is the checkpoint's own; others have
 * a name, such as "tool_use". */
struct chat_sources {
    struct chat_source {
        char name[64]; // "": the first
        struct bytes source;
    } list[MAX_CHAT_SOURCES];
    int n;
    struct bytes tokens; // a JSON object: bos_token, eos_token and so on, as texts
};
/* `tokenizer` spells the tokens of GGUF. Close them, also after a failure. */
quip_status qp_chat_sources_read(struct chat_sources *chat, struct checkpoint *c,
                                 const struct tokenizer *tokenizer, quip_error *error);
void qp_chat_sources_close(struct chat_sources *chat);
/* The first source; NULL if there is none. */
const struct bytes *qp_chat_sources_own(const struct chat_sources *chat);

/* Forget the first source, which renders nothing. */
void qp_chat_sources_drop_own(struct chat_sources *chat);

/* How a template spells simple turns, found by rendering some (chat_probe.c). */
struct chat_spelling {
    struct bytes text; // what the fields point into
    struct turn_text user, model, system;
    bool has_turns; // false: turns cannot be spelled so, and the fields are empty
    bool has_system;
    bool is_empty;  // the template renders a question as nothing
    char stop[64];  // the control token after an answer; "": none
    char begin[64]; // how a chat begins; "": the template renders no question
};
quip_status qp_chat_probe(struct chat_spelling *spelling, const struct chat_sources *chat,
                          const struct tokenizer *tokenizer, quip_error *error);

#endif
