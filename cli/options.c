/* options.c: reads the options of a command.
 * In:  the words that the user typed, and the command's table of options.
 * Out: the fields that the table points to. */
#include "cli.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Find the option that `word` names; *value is the rest of the word, or NULL. */
static const struct option *find_option(const struct option *options, const char *word,
                                        const char **value)
{
    *value = NULL;
    bool is_long = word[1] == '-';
    size_t n = is_long ? strcspn(word + 2, "=") : 1;
    for (const struct option *o = options; o->kind != OPTION_END; o++) {
        if (is_long && strncmp(o->name, word + 2, n) == 0 && !o->name[n]) {
            *value = word[2 + n] ? word + 2 + n + 1 : NULL;
            return o;
        }
        if (!is_long && o->letter && o->letter == word[1]) {
            *value = word[2] ? word + 2 : NULL;
            return o;
        }
    }
    return NULL;
}

/* The option that was meant by a word with one hyphen, with underscores or with fewer letters: the
 * shortest one. */
static const struct option *guess_option(const struct option *options, const char *word)
{
    const struct option *guess = NULL;
    word += 1 + (word[1] == '-');
    const size_t n = strcspn(word, "=");
    for (const struct option *o = options; o->kind != OPTION_END && n >= 3; o++) {
        size_t i = 0;
        while (i < n && (o->name[i] == word[i] || (o->name[i] == '-' && word[i] == '_')))
            i++;
        if (i == n && (!guess || strlen(o->name) < strlen(guess->name)))
            guess = o;
    }
    return guess;
}

/* Returns -1. */
static int unknown_option(const struct command *command, const struct option *options,
                          const char *word)
{
    const struct option *guess = guess_option(options, word);
    if (guess)
        fail_usage(command, "unknown option %s; perhaps --%s", word, guess->name);
    else if (word[1] != '-' || strchr(word, ' '))
        fail_usage(command, "unknown option %s; a text that begins so comes after --", word);
    else
        fail_usage(command, "unknown option %s", word);
    return -1;
}

/* Read a number in [min, max]; the whole text must be one. */
static bool read_number(const char *text, double min, double max, double *number)
{
    char *end;
    *number = strtod(text, &end);
    return end != text && !*end && isfinite(*number) && *number >= min && *number <= max;
}

static const char *const backends[] = {
    [QUIP_BACKEND_AUTO] = "auto", [QUIP_BACKEND_CPU] = "cpu", [QUIP_BACKEND_GPU] = "gpu"
};

const char *backend_name(int32_t backend)
{
    return backend >= 0 && backend < (int32_t)QP_COUNT(backends) ? backends[backend] : "unknown";
}

static bool read_backend(const char *text, int32_t *backend)
{
    for (size_t i = 0; i < QP_COUNT(backends); i++)
        if (strcmp(text, backends[i]) == 0) {
            *backend = (int32_t)i;
            return true;
        }
    return false;
}

static bool read_seed(const char *text, quip_session_options *options)
{
    char *end;
    errno = 0;
    options->seed = strtoull(text, &end, 10);
    options->has_seed = true;
    return *text >= '0' && *text <= '9' && !*end && !errno;
}

bool store_option(const struct option *o, const char *value)
{
    double number;
    switch (o->kind) {
    case OPTION_INT:
        if (!read_number(value, o->min, o->max, &number) || number != floor(number))
            return false;
        *(int *)o->to = (int)number;
        return true;
    case OPTION_NUMBER:
        if (!read_number(value, o->min, o->max, &number))
            return false;
        *(float *)o->to = (float)number;
        return true;
    case OPTION_SEED:
        return read_seed(value, o->to);
    case OPTION_BACKEND:
        return read_backend(value, o->to);
    case OPTION_TEXT:
        *(const char **)o->to = value;
        return true;
    case OPTION_TEXTS: {
        struct texts *texts = o->to;
        if (texts->n == (int)QP_COUNT(texts->items))
            return false;
        texts->items[texts->n++] = value;
        return true;
    }
    default:
        return false;
    }
}

const char *option_values(const struct option *o, char to[64])
{
    if (o->kind == OPTION_INT)
        snprintf(to, 64, "must be a whole number from %.0f to %.0f", o->min, o->max);
    else if (o->kind == OPTION_NUMBER)
        snprintf(to, 64, "must be a number from %g to %g", o->min, o->max);
    else if (o->kind == OPTION_SEED)
        snprintf(to, 64, "must be a whole number below 2^64");
    else if (o->kind == OPTION_BACKEND)
        snprintf(to, 64, "must be auto, cpu or gpu");
    else
        snprintf(to, 64, "must be on or off");
    return to;
}

static int wrong_value(const struct command *command, const struct option *o, const char *value)
{
    char values[64];
    if (o->kind == OPTION_TEXTS)
        return fail_usage(command, "--%s is allowed at most %zu times", o->name,
                          QP_COUNT(((struct texts *)o->to)->items));
    return fail_usage(command, "--%s is %s; %s", o->name, value, option_values(o, values));
}

int parse_options(const struct command *command, const struct option *options, char **words,
                  int min, int max, int *exit_code)
{
    int n = 0;
    bool has_ended = false; // by "--"
    *exit_code = EXIT_USAGE;
    for (char **w = words; *w; w++) {
        if (has_ended || (*w)[0] != '-' || !(*w)[1]) {
            words[n++] = *w; // n is never ahead of w
            continue;
        }
        if (strcmp(*w, "--") == 0) {
            has_ended = true;
            continue;
        }
        if (strcmp(*w, "--help") == 0 || strcmp(*w, "-h") == 0) {
            print_help(command, options);
            *exit_code = 0;
            return -1;
        }
        const char *value;
        const struct option *o = find_option(options, *w, &value);
        if (!o)
            return unknown_option(command, options, *w);
        if (o->kind == OPTION_FLAG) {
            if (value) {
                fail_usage(command, "--%s has no value", o->name);
                return -1;
            }
            *(bool *)o->to = true;
            continue;
        }
        if (!value)
            value = *++w;
        if (!value) {
            fail_usage(command, "expected --%s %s", o->name, o->value);
            return -1;
        }
        if (!store_option(o, value)) {
            wrong_value(command, o, value);
            return -1;
        }
    }
    words[n] = NULL;
    if (n < min || n > max) {
        if (n < min)
            fail_usage(command, "expected %s", command->arguments);
        else
            fail_usage(command, "unexpected argument \"%s\"", words[max]);
        return -1;
    }
    return n;
}
