/* settings.c: /set. The settings are the options of the command line, in the same table. */
#include "chat.h"

#include <stdlib.h>
#include <string.h>

/* What a session that is open, or the model, cannot change. */
static const char *const fixed[] = { "raw",        "chat-template", "context", "threads",
                                     "background", "backend",       "no-mmap", "stop",
                                     "no-history", "draft" };

static bool is_fixed(const struct option *o)
{
    for (size_t i = 0; i < QP_COUNT(fixed); i++)
        if (strcmp(o->name, fixed[i]) == 0)
            return true;
    return false;
}

static bool is_setting(const struct option *o)
{
    return !is_fixed(o) && strcmp(o->name, "adapter") != 0;
}

static void print_setting(const struct option *o)
{
    char value[32] = "";
    const char *text = value;
    if (o->kind == OPTION_FLAG)
        text = *(bool *)o->to ? "on" : "off";
    else if (o->kind == OPTION_INT && *(int *)o->to >= o->min) // less: it was not said
        snprintf(value, sizeof value, "%d", *(int *)o->to);
    else if (o->kind == OPTION_NUMBER && (double)*(float *)o->to >= o->min)
        snprintf(value, sizeof value, "%g", (double)*(float *)o->to);
    else if (o->kind == OPTION_SEED && ((quip_session_options *)o->to)->has_seed)
        snprintf(value, sizeof value, "%llu",
                 (unsigned long long)((quip_session_options *)o->to)->seed);
    else if (o->kind == OPTION_TEXT && *(const char **)o->to)
        text = *(const char **)o->to;
    else
        text = "-";
    const int indent = 30;
    const int column = fprintf(stderr, "  %-20s %-6s ", o->name, text);
    fputs(dim(), stderr);
    print_paragraph(stderr, o->help, column, indent);
    fputs(plain(), stderr);
}

static const struct option *find_setting(const struct chat *c, const char *name, size_t n)
{
    for (const struct option *o = c->table; o->kind != OPTION_END; o++) {
        size_t i = 0;
        for (; i < n && o->name[i] &&
               (o->name[i] == name[i] || (o->name[i] == '-' && name[i] == '_'));
             i++)
            ;
        if (i == n && !o->name[i])
            return o;
    }
    return NULL;
}

/* A copy of a text that lives as long as the conversation. */
static const char *keep_text(struct chat *c, const char *text)
{
    struct kept_text *kept = malloc(sizeof *kept + strlen(text) + 1);
    if (!kept)
        return NULL;
    strcpy(kept->text, text);
    kept->next = c->kept;
    c->kept = kept;
    return kept->text;
}

void free_kept_texts(struct chat *c)
{
    for (struct kept_text *t = c->kept, *next; t; t = next) {
        next = t->next;
        free(t);
    }
    c->kept = NULL;
}

/* Store the value in the options; false if the setting cannot have it. */
static bool store_setting(struct chat *c, const struct option *o, const char *value)
{
    if (o->kind == OPTION_FLAG) {
        const bool is_on = strcmp(value, "on") == 0;
        *(bool *)o->to = is_on;
        return is_on || strcmp(value, "off") == 0;
    }
    const char *kept = o->kind == OPTION_TEXT ? keep_text(c, value) : value;
    return kept && store_option(o, kept);
}

static void change_setting(struct chat *c, const struct option *o, const char *value)
{
    char values[64];
    quip_error error = { 0 };
    const struct chat before = *c;
    if (!store_setting(c, o, value)) {
        fprintf(stderr, "%s is \"%s\"; %s\n", o->name, value, option_values(o, values));
    } else if (o->to == &c->options.system && quip_session_position(c->session) > 0) {
        fputs("system cannot change after the first turn; first /clear\n", stderr);
    } else {
        const quip_session_options options = settled(&c->options);
        if (!quip_session_set_options(c->session, &options, &error)) {
            print_setting(o);
            note_options(&options, &c->models, o->name);
            return;
        }
        fprintf(stderr, "%s\n", error.message);
    }
    c->options = before.options;
    c->has_stats = before.has_stats;
    c->no_wrap = before.no_wrap;
}

void run_set(struct chat *c, const char *text)
{
    const size_t n_name = strcspn(text, " =");
    const char *value = text + n_name + strspn(text + n_name, " =");
    if (!n_name) {
        for (const struct option *o = c->table; o->kind != OPTION_END; o++)
            if (is_setting(o))
                print_setting(o);
        return;
    }
    const struct option *o = find_setting(c, text, n_name);
    if (!o)
        fprintf(stderr, "unknown setting %.*s; /set lists the settings\n", (int)n_name, text);
    else if (is_fixed(o))
        fprintf(stderr, "%s cannot change during a conversation; start again with --%s\n", o->name,
                o->name);
    else if (!is_setting(o))
        fprintf(stderr, "/adapter changes the adapter\n");
    else if (!*value)
        print_setting(o);
    else
        change_setting(c, o, value);
}
