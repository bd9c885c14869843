/* cli.h: declarations that the commands of the program share.
 * A command is a row of the table in main.c and has its own file. It gets the words that the user
 * typed and returns the exit code of the program. Results go to stdout, everything else goes to
 * stderr. */
#ifndef CLI_H
#define CLI_H

#include "base/base.h"
#include "tokenizer/tokenizer.h"

#include <cjson/cJSON.h>

#define EXIT_FAILED 1
#define EXIT_USAGE 2
#define EXIT_INTERRUPTED 130 // 128 + SIGINT, as shells count

/* ---- commands and options (options.c) ---- */

struct command {
    const char *name;
    const char *arguments; // as help shows them: "MODEL PROMPT"
    const char *summary;   // one line
    const char *examples;  // the rest of the help (help.c); ends with a newline
    int (*run)(const struct command *command, char **words);
};

enum option_kind {
    OPTION_END,     // the table's last row
    OPTION_FLAG,    // bool, set
    OPTION_INT,     // int in [min, max]
    OPTION_NUMBER,  // float in [min, max]
    OPTION_SEED,    // quip_session_options: seed and has_seed
    OPTION_TEXT,    // const char *
    OPTION_BACKEND, // int32_t, enum quip_backend
    OPTION_TEXTS    // struct texts; each occurrence adds one
};

struct texts {
    const char *items[64];
    int n;
};

struct option {
    enum option_kind kind;
    char letter;       // 0: only the long form
    const char *name;  // without "--"
    const char *value; // name of the value in the help; NULL for flags
    void *to;
    double min, max;
    const char *help;
};

/* Read `words`, a NULL-terminated array without the command's name. Options may be anywhere, in the
 * forms --name value, --name=value, -n value and -nvalue; after "--" there are none. The other
 * words move to the front of `words`, which stays NULL-terminated; there must be min to max of
 * them. Returns their number. Returns -1 if the program must end with *exit_code: after --help, or
 * after a message. */
int parse_options(const struct command *command, const struct option *options, char **words,
                  int min, int max, int *exit_code);
/* Store a value of an option that is not a flag; false if it is not of the option's kind. */
bool store_option(const struct option *o, const char *value);
/* What the value of an option must be, for a message. */
const char *option_values(const struct option *o, char to[64]);

/* What --help prints (help.c). Each line of the command's examples is a paragraph. */
void print_help(const struct command *command, const struct option *options);
/* Print a paragraph in lines that fit the terminal. It begins at `column`, its other lines at
 * `indent`. Or print each line of a text so; one that begins with a space stays as it is. */
void print_paragraph(FILE *to, const char *text, int column, int indent);
void print_paragraphs(FILE *to, const char *text);

const char *backend_name(int32_t backend); // of an enum quip_backend

#define BACKEND_OPTION(to)                                                                         \
    {                                                                                              \
        OPTION_BACKEND, 0, "backend", "NAME", to, 0, 0,                                            \
            "what computes: cpu, gpu, or auto (default), the faster one; see quip doctor"          \
    }

/* The session options of run and chat before they are read: those whose 0 says something. */
#define UNSAID (-2)
#define UNSAID_OPTIONS                                                                             \
    {                                                                                              \
        .temperature = UNSAID, .top_k = UNSAID, .top_p = UNSAID, .min_p = UNSAID,                  \
        .no_repeat_ngram = UNSAID, .penalty_window = UNSAID                                        \
    }

/* The rows that run and chat share: of quip_session_options *o and quip_model_options *m. */
// clang-format off
#define SESSION_OPTIONS(o, m, stop_texts)                                                          \
    { OPTION_FLAG, 0, "raw", NULL, &(o)->no_template, 0, 0, "pass text on as it is, without the model's template" }, \
    { OPTION_TEXT, 0, "chat-template", "NAME", &(o)->chat_template, 0, 0,                          \
      "how turns are marked; default: as the model file says" },                                   \
    { OPTION_TEXT, 0, "template-variables", "JSON", &(o)->template_variables, 0, 0,              \
      "what the model's own template reads, such as {\"enable_thinking\": false}" },              \
    { OPTION_TEXT, 0, "system", "TEXT", &(o)->system, 0, 0, "system prompt" },                     \
    { OPTION_FLAG, 0, "greedy", NULL, &(o)->greedy, 0, 0,                                          \
      "always the most likely token, without the default penalty" },                               \
    { OPTION_NUMBER, 0, "temperature", "T", &(o)->temperature, 0, 100,                             \
      "1: the model's probabilities; less: safer; 0: as --greedy" },                               \
    { OPTION_INT, 0, "top-k", "K", &(o)->top_k, 0, INT32_MAX,                                      \
      "draw from the K most likely tokens; 0: no limit" },                                         \
    { OPTION_NUMBER, 0, "top-p", "P", &(o)->top_p, 0, 1,                                           \
      "then from the fewest whose probabilities add up to P; 0: no limit" },                       \
    { OPTION_NUMBER, 0, "min-p", "P", &(o)->min_p, 0, 1,                                           \
      "then from those at least P times as likely as the best; 0: no limit" },                     \
    { OPTION_NUMBER, 0, "repeat-penalty", "X", &(o)->repeat_penalty, 1, 100,                       \
      "make recent tokens X times less likely to come again; 1: off" },                            \
    { OPTION_NUMBER, 0, "presence-penalty", "X", &(o)->presence_penalty, -100, 100,                \
      "subtract X from the logit of a recent token" },                                             \
    { OPTION_NUMBER, 0, "frequency-penalty", "X", &(o)->frequency_penalty, -100, 100,              \
      "subtract X for each time that it came" },                                                   \
    { OPTION_NUMBER, 0, "dry", "X", &(o)->dry_multiplier, 0, 100,                                  \
      "penalize longer repetitions (DRY); 0.8 is usual, 0 (default): off" },                       \
    { OPTION_INT, 0, "no-repeat-ngram", "N", &(o)->no_repeat_ngram, 0, INT32_MAX,                  \
      "no N recent tokens in a row come again; 0: they may" },                                     \
    { OPTION_INT, 0, "penalty-window", "N", &(o)->penalty_window, -1, INT32_MAX,                   \
      "what is recent: the last N tokens; -1: all" },                                              \
    { OPTION_SEED, 0, "seed", "N", o, 0, 0, "of the random numbers; default: 0 (quip run), or another one each time (quip chat)" }, \
    { OPTION_TEXTS, 0, "stop", "TEXT", stop_texts, 0, 0, "end the answer before this text; may be repeated" }, \
    { OPTION_INT, 'c', "context", "N", &(o)->n_context, 0, INT32_MAX,                              \
      "capacity for prompts and answers, in tokens; 0 (default): 4096" },                           \
    { OPTION_INT, 'n', "max-output-tokens", "N", &(o)->max_output_tokens, 0, INT32_MAX,            \
      "longest answer, in tokens; 0 (default): no limit but --context" },                              \
    THREADS_OPTION(&(m)->n_threads),                                                               \
    BACKEND_OPTION(&(m)->backend),                                                                 \
    { OPTION_FLAG, 0, "background", NULL, &(m)->background, 0, 0,                                  \
      "leave the processor to other programs: half the threads, low priority" },                   \
    { OPTION_FLAG, 0, "no-mmap", NULL, &(m)->no_mmap, 0, 0,                                        \
      "copy the model into memory: slower to open, but its file may change meanwhile" },           \
    { OPTION_FLAG, 0, "no-speculation", NULL, &(o)->no_speculation, 0, 0,                          \
      "do not guess tokens ahead; slower, same answer" }
// clang-format on

/* The limits are those of quip_model_options. */
#define THREADS_OPTION(to)                                                                         \
    {                                                                                              \
        OPTION_INT, 't', "threads", "N", to, 0, 256,                                               \
            "0 (default): one for each processor but ARM's small ones; does not change the result" \
    }

#define ADAPTER_OPTION(text)                                                                       \
    {                                                                                              \
        OPTION_TEXT, 0, "adapter", "PATH[:SCALE]", text, 0, 0,                                     \
            "LoRA weights: a PEFT folder or a MediaPipe LoRA file; SCALE is 1 by default"          \
    }

#define DRAFT_OPTION(path)                                                                         \
    {                                                                                              \
        OPTION_TEXT, 0, "draft", "MODEL", path, 0, 0,                                              \
            "a smaller model with the same vocabulary, which guesses tokens ahead: same answer"    \
    }

/* ---- models, adapters and sessions (models.c) ---- */

/* What the user typed: two paths, and the value of ADAPTER_OPTION. NULL: none. */
struct model_words {
    const char *model, *draft, *adapter;
};
struct chosen_adapter {
    quip_adapter *adapter; // NULL: none
    float scale;
};
struct models {
    quip_model *model;
    quip_model *draft; // NULL: none
    struct chosen_adapter adapter;
};
/* Open what the words name, both models with the same options. *m is zeroed. Close it, on failure
 * too. */
quip_status open_models(struct models *m, const struct model_words *words,
                        const quip_model_options *options, quip_error *error);
void close_models(struct models *m);
/* Open the adapter that ADAPTER_OPTION names; `text` NULL: none. Close a->adapter. */
quip_status open_adapter(struct chosen_adapter *a, quip_model *model, const char *text,
                         quip_error *error);
/* Open a session with the adapter and the draft model. Close *session, on failure too. */
quip_status open_session(quip_session **session, const struct models *m,
                         const quip_session_options *options, quip_error *error);

/* ---- how tokens are drawn (sampling.c) ---- */

/* The options of quip.h that UNSAID_OPTIONS are after they were read. What the user said counts,
 * also if it is 0. */
quip_session_options settled(const quip_session_options *said);
/* How sessions of a model draw by default: print it, or add it to a JSON object. */
void print_draws(const quip_model_info *info);
void json_draws(cJSON *json, const quip_model_info *info);

/* ---- messages (common.c) ---- */

/* Print one sentence on stderr, after "quip: ". Returns EXIT_FAILED. */
int fail(const char *format, ...) QP_PRINTF(1, 2);
/* Print an error of the library. Returns the exit code for its status. */
int fail_with(const quip_error *error);
/* Print the sentence and a hint at the command's --help. Returns EXIT_USAGE. */
int fail_usage(const struct command *command, const char *format, ...) QP_PRINTF(2, 3);

/* Replace control characters by "?": names in a file may contain escape sequences that a terminal
 * would execute. Returns `text`. */
char *without_controls(char *text);

/* Escape sequences; "" if stderr is not a terminal or NO_COLOR is set. */
const char *dim(void);
const char *plain(void);
bool is_terminal(FILE *f);

/* Write a size such as "1.5 GB" to a buffer of 24 bytes; returns it. */
char *human_bytes(char *to, uint64_t n);

/* ---- input and output (common.c, prompt.c) ---- */

/* Read a whole file; "-" is stdin. False after a message. */
bool read_input(struct bytes *to, const char *path);
/* The prompt that `word` means, and with it the document on stdin, which comes first; "-" is the
 * document alone. Without `is_raw` they are separated by an empty line, and one line end at the end
 * of stdin is dropped. */
bool read_prompt(struct bytes *to, const char *word, bool is_raw);
/* Open a file for writing; "-" is stdout. Refuses `input`, which is in use. NULL after a message.
 */
FILE *open_output(const char *path, const char *input);
/* Close a file, or flush stdout. If something was not written: remove the file; false after a
 * message. */
bool close_output(FILE *f, const char *path);
/* Write floats in little-endian order on any machine. False if not all were written. */
bool write_f32(FILE *f, const float *x, size_t n);
/* Read token ids: whole numbers, separated by commas, white space or brackets. False after a
 * message. */
bool read_ids(struct tokens *to, const char *text);
/* Print and free; returns the exit code. */
int print_json(cJSON *json);
/* A JSON string of n bytes of UTF-8, which may contain NULs: cJSON's own functions stop there. */
cJSON *json_text(const char *text, size_t n);

/* cJSON's strings end at a NUL. So \\u0000 is replaced by a private-use character that the line
 * does not contain (mark, 3 bytes of UTF-8), until show_nuls, which returns the length of the text.
 * False if the line contains all 6400. */
bool hide_nuls(char *line, char mark[4]);
size_t show_nuls(char *text, const char mark[4]);

/* ---- encodings (encoding.c) ---- */

/* Make a text UTF-8: UTF-16 with a mark is converted, a mark of UTF-8 dropped. If that fails, or
 * the text has a NUL, print a message that begins with `where` and return false. */
bool to_utf8(struct bytes *text, const char *where);
bool is_utf16(const struct bytes *text); // by its mark
/* Whether a text is UTF-8 without a NUL; check_utf8 also prints a message. */
bool is_utf8(const char *text, size_t n);
bool check_utf8(const char *text, size_t n, const char *where);
/* Drop one line end at the end of a text: it is the shell's, not the user's. */
void cut_line_end(struct bytes *text);

/* ---- LlmParameters (parameters.c) ---- */

/* Every field by its name; NULL if the bytes are not such a message. */
cJSON *parameters_json(const void *data, size_t n);
/* Print the fields as indented lines. */
void print_parameters(const void *data, size_t n, int indent);

/* ---- time and memory (common.c) ---- */

struct memory_use {
    uint64_t peak, file_backed, own; // bytes; 0 if the system does not report it
};
/* The peak is since the start of the program, the others are now. */
struct memory_use memory_use(void);

/* Print times and rates of an answer on stderr, or add them to a JSON object. */
void print_stats(const quip_result *result);
void print_reason(const quip_model *model); // why auto chose the backend
void json_stats(cJSON *object, const quip_result *result);
const char *finish_name(int32_t finish_reason);

/* ---- options without effect (notes.c) ---- */

/* Say on stderr that an option has no effect; `why` completes the sentence. */
void note_vain(const char *option, const char *why);
/* Say on stderr which options have no effect, or whether the option `only` has none. */
void note_options(const quip_session_options *o, const struct models *m, const char *only);

/* ---- signals (signals.c) ---- */

/* From now on Ctrl-C cancels the running call on `session` and does not end the program. NULL is
 * for work on files: then SIGTERM, SIGHUP and SIGPIPE count like Ctrl-C. */
void catch_interrupt(quip_session *session);
/* From now on Ctrl-C ends the program, or has no effect. */
void release_interrupt(void);
void ignore_interrupt(void);
bool was_interrupted(void); // since catch_interrupt

/* For a conversation in a terminal: from now on SIGTERM, SIGHUP and SIGQUIT cancel the running call
 * and are reported here. False if the system has no pipe left. */
bool begin_signals(void);
int ending_signal(void); // 0: none
/* Wait until stdin can be read (0) or a signal has arrived, which is returned: an ending one,
 * SIGWINCH or SIGCONT. */
int wait_for_key(void);
void forget_signals(void); // except ending ones

/* ---- the terminal (terminal.c) ---- */

int terminal_width(FILE *f); // columns; 0: unknown
/* During an answer, keys are not shown and wait for the next line. `unquieten` restores the
 * terminal; after `leave_quiet` the line editor does. */
void quieten_terminal(void);
void unquieten_terminal(void);
void leave_quiet(void);
void drop_keys(void); // that were pressed and not read
/* For handlers of signals: before the program stops or ends, and when it goes on. */
void restore_terminal(void);
void continue_quiet(void);

/* ---- text of an answer (writer.c) ---- */

struct writer {
    FILE *to;
    bool is_terminal, wraps;
    int last;      // byte of the text; -1: there was none
    int n_columns; // of the terminal
    int column;    // of the cursor; n_columns: the line is full
    bool is_in_word;
    char held[256]; // the beginning of a word
    size_t n_held;
    int held_width, held_columns; // of `held`; a word that begins so near the end is held
    int last_width;               // of the character before
    int n_ticks;                  // that begin this line; -1: it begins otherwise
    bool is_code;
};
/* Write to a file, a pipe or a terminal, and there with `wraps` break lines between words. */
void begin_writer(struct writer *w, FILE *to, bool wraps);
bool write_piece(struct writer *w, const char *text, size_t n); // n > 0; false if it failed
void end_writer(struct writer *w); // ends the line, if something was written
int character_width(int32_t c);    // columns: 0, 1 or 2

/* ---- progress of work on files (progress.c) ---- */

struct progress {
    const char *out;        // the file that the work writes, or NULL
    bool is_shown, is_json; // on stderr, on stdout
    uint64_t shown_ns;
};
/* Between begin and end, a signal stops the work: show_progress, a convert_on_progress, then
 * returns false. end also clears the line. */
void begin_progress(struct progress *p, const char *out, bool is_quiet, bool is_json);
bool show_progress(void *user, uint64_t done, uint64_t total, const char *what);
void end_progress(const struct progress *p);
/* Between begin and end, remove the incomplete `out`; for signal handlers that end the program. */
void remove_unfinished(void);
/* Print as one line on stdout, and free; false if it was not written. */
bool print_json_line(cJSON *json);
uint64_t file_bytes(const char *path); // 0 if there is no such file

/* ---- the commands ---- */

int run_run(const struct command *command, char **words);
int run_chat(const struct command *command, char **words);
int run_render(const struct command *command, char **words);
int run_tokenize(const struct command *command, char **words);
int run_embed(const struct command *command, char **words);
int run_logits(const struct command *command, char **words);
int run_inspect(const struct command *command, char **words);
int run_convert(const struct command *command, char **words);
int run_verify(const struct command *command, char **words);
int run_bundle(const struct command *command, char **words);
int run_eval(const struct command *command, char **words);
int run_bench(const struct command *command, char **words);
int run_doctor(const struct command *command, char **words);

#endif
