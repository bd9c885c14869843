/* pre_tokenizer.c: divides text into the words that models with a blob encode one by one.
 * In:  UTF-8 text.
 * Out: the length of the first word, as the model's regular expression matches it.
 *
 * Each expression is written as a scanner, with the expression above it. As in a regular
 * expression, the first alternative that matches wins. */
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/tokenizer_impl.h"
#include "tokenizer/unicode.h"

#include <assert.h>

/* ---- character classes ---- */

enum char_class qp_char_class(const char *text, size_t n, size_t *length)
{
    assert(n > 0);
    uint8_t byte = (uint8_t)*text;
    if (byte < 128) {
        *length = 1;
        return qp_ascii_class[byte];
    }
    int32_t c;
    *length = (size_t)qp_utf8_decode(text, n, &c);
    if (c < 0)
        return CHAR_OTHER;
    return qp_run_value(qp_class_runs, qp_n_class_runs, 4, (uint32_t)c);
}

unsigned qp_kind_at(const char *text, size_t n, size_t i, size_t *length)
{
    static const uint8_t kinds[] = {
        [CHAR_OTHER] = KIND_OTHER, [CHAR_LETTER] = KIND_LETTER,   [CHAR_DIGIT] = KIND_NUMBER,
        [CHAR_SPACE] = KIND_SPACE, [CHAR_NUMERIC] = KIND_NUMBER,  [CHAR_WORD] = KIND_OTHER,
        [CHAR_MARK] = KIND_OTHER,  [CHAR_CONNECTOR] = KIND_OTHER, [CHAR_PUNCTUATION] = KIND_OTHER,
    };
    *length = 0;
    return i < n ? kinds[qp_char_class(text + i, n - i, length)] : 0;
}

/* The end of the run of this kind that begins at i. *last is where its last character begins. */
static size_t run_end(const char *text, size_t n, size_t i, unsigned kind, size_t *last)
{
    size_t length;
    for (*last = i; qp_kind_at(text, n, i, &length) == kind; i += length)
        *last = i;
    return i;
}

/* ---- parts of the expressions ---- */

size_t qp_contraction(const char *text, size_t n, bool folded)
{
    if (n < 2 || text[0] != '\'')
        return 0;
    uint8_t fold = folded ? 0x20 : 0;
    char a = (char)(text[1] | fold), b = n > 2 ? (char)(text[2] | fold) : 0;
    if (a == 's' || a == 't' || a == 'm' || a == 'd')
        return 2;
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l'))
        return 3;
    if (folded && n > 2 && memcmp(text + 1, "\xc5\xbf", 2) == 0)
        return 3;
    return 0;
}

/* \s+(?!\S)|\s+ for the run of white space [0, end) whose last character begins at `last`. At the
 * end of the text it is the whole run. Before other text, the last character belongs to the next
 * word, unless it is the only one. */
static size_t white_space(size_t end, size_t last, bool at_end)
{
    return at_end || last == 0 ? end : last;
}

/* ---- the expressions ---- */

/* 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 * lone_numbers: every \p{N} is a word of its own, found before the expression is applied. */
static size_t gpt2_word(const char *text, size_t n, bool lone_numbers)
{
    size_t length = qp_contraction(text, n, false), last;
    if (length > 0)
        return length;
    unsigned kind = qp_kind_at(text, n, 0, &length);
    if (kind == KIND_NUMBER && lone_numbers)
        return length;
    size_t begin = 0;
    if (text[0] == ' ') {
        size_t next_length;
        unsigned next = qp_kind_at(text, n, 1, &next_length);
        if (next != 0 && next != KIND_SPACE && !(next == KIND_NUMBER && lone_numbers)) {
            begin = 1;
            kind = next;
        }
    }
    size_t end = run_end(text, n, begin, kind, &last);
    if (kind != KIND_SPACE)
        return end;
    bool at_end = end == n || (lone_numbers && qp_kind_at(text, n, end, &length) == KIND_NUMBER);
    return white_space(end, last, at_end);
}

static bool is_newline(char c)
{
    return c == '\r' || c == '\n';
}

size_t qp_word_without_letters(const char *text, size_t n, int max_digits, const char *closers)
{
    size_t length, next_length, last;
    const unsigned kind = qp_kind_at(text, n, 0, &length);
    const unsigned next = qp_kind_at(text, n, length, &next_length);
    assert(kind != KIND_LETTER);
    if (kind == KIND_NUMBER) {
        size_t end = length;
        for (int i = 1; i < max_digits && qp_kind_at(text, n, end, &length) == KIND_NUMBER; i++)
            end += length;
        return end;
    }
    if (kind == KIND_OTHER || (text[0] == ' ' && next == KIND_OTHER)) {
        size_t end = run_end(text, n, kind == KIND_OTHER ? 0 : 1, KIND_OTHER, &last);
        while (end < n && text[end] && strchr(closers, text[end]))
            end++;
        return end;
    }
    size_t end = run_end(text, n, 0, KIND_SPACE, &last);
    for (size_t i = end; i > 0; i--)
        if (is_newline(text[i - 1]))
            return i;
    return white_space(end, last, end == n);
}

/* (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*
 * |\s*[\r\n]+|\s+(?!\S)|\s+        (Llama 3; Qwen 2 has \p{N} for \p{N}{1,3}) */
static size_t llama3_word(const char *text, size_t n, int max_digits)
{
    size_t length = qp_contraction(text, n, true), next_length, last;
    if (length > 0)
        return length;
    unsigned kind = qp_kind_at(text, n, 0, &length);
    unsigned next = qp_kind_at(text, n, length, &next_length);
    if (kind == KIND_LETTER)
        return run_end(text, n, 0, KIND_LETTER, &last);
    if (kind != KIND_NUMBER && !is_newline(text[0]) && next == KIND_LETTER)
        return run_end(text, n, length, KIND_LETTER, &last);
    return qp_word_without_letters(text, n, max_digits, "\r\n");
}

/* 's|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+, and runs of white space */
static size_t clip_word(const char *text, size_t n)
{
    size_t length = qp_contraction(text, n, false), last;
    if (length > 0)
        return length;
    unsigned kind = qp_kind_at(text, n, 0, &length);
    return kind == KIND_NUMBER ? length : run_end(text, n, 0, kind, &last);
}

static bool is_numeric(enum char_class class)
{
    return class == CHAR_DIGIT || class == CHAR_NUMERIC;
}

/* One punctuation character, or a run of numbers, of white space or of the rest. */
static size_t punctuation_word(const char *text, size_t n)
{
    size_t end, length;
    enum char_class first = qp_char_class(text, n, &end);
    if (first == CHAR_PUNCTUATION || first == CHAR_CONNECTOR)
        return end;
    for (; end < n; end += length) {
        enum char_class next = qp_char_class(text + end, n - end, &length);
        if (next == CHAR_PUNCTUATION || next == CHAR_CONNECTOR ||
            (next == CHAR_SPACE) != (first == CHAR_SPACE) || is_numeric(next) != is_numeric(first))
            break;
    }
    return end;
}

static bool is_punctuation(const char *text, size_t n, size_t i, size_t *length)
{
    const enum char_class class = i < n ? qp_char_class(text + i, n - i, length) : CHAR_OTHER;
    return class == CHAR_PUNCTUATION || class == CHAR_CONNECTOR;
}

/* Runs of punctuation; then GPT2's expression on what is between them, where white space before
 * punctuation is at the end of a text. */
static size_t falcon_word(const char *text, size_t n)
{
    size_t length, last, end = 0;
    while (is_punctuation(text, n, end, &length))
        end += length;
    if (end > 0)
        return end;
    end = run_end(text, n, 0, KIND_SPACE, &last);
    if (end > 0 && is_punctuation(text, n, end, &length))
        return end;
    const size_t word = gpt2_word(text, n, false);
    for (end = 0; end < word && !is_punctuation(text, word, end, &length); end += length)
        qp_char_class(text + end, word - end, &length);
    return end;
}

/* Is the byte numeric in GPT-2's spelling of bytes? Of Latin-1: digits, superscripts, fractions. */
static bool is_numeric_byte(uint8_t c)
{
    return (c >= '0' && c <= '9') || c == 0xb2 || c == 0xb3 || c == 0xb9 ||
           (c >= 0xbc && c <= 0xbe);
}

static bool is_ascii_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* A run of numeric bytes or of others; in a run of numeric bytes, three digits or what is before
 * them. */
static size_t falcon_part(const char *word, size_t n)
{
    const bool is_numeric = is_numeric_byte((uint8_t)*word);
    for (size_t i = 0; i < n && is_numeric_byte((uint8_t)word[i]) == is_numeric; i++) {
        if (is_numeric && n - i >= 3 && is_ascii_digit(word[i]) && is_ascii_digit(word[i + 1]) &&
            is_ascii_digit(word[i + 2]))
            return i > 0 ? i : 3;
        if (i + 1 == n || is_numeric_byte((uint8_t)word[i + 1]) != is_numeric)
            return i + 1;
    }
    return n;
}

/* A run of white space, or of other characters. */
static size_t white_word(const char *text, size_t n)
{
    size_t end, length;
    const bool is_white = qp_char_class(text, n, &end) == CHAR_SPACE;
    while (end < n && (qp_char_class(text + end, n - end, &length) == CHAR_SPACE) == is_white)
        end += length;
    return end;
}

/* A word ends before the next space symbol. */
static size_t metaspace_word(const char *text, size_t n)
{
    size_t i = 1;
    while (i < n && !(n - i >= SPACE_SYMBOL_BYTES &&
                      memcmp(text + i, SPACE_SYMBOL, SPACE_SYMBOL_BYTES) == 0))
        i++;
    return i;
}

size_t qp_pre_token(enum pre_tokenizer pre, const char *text, size_t n)
{
    assert(n > 0);
    switch (pre) {
    case PRE_GPT2:
        return gpt2_word(text, n, false);
    case PRE_DIGITS_GPT2:
        return gpt2_word(text, n, true);
    case PRE_LLAMA3:
        return llama3_word(text, n, 3);
    case PRE_QWEN2:
        return llama3_word(text, n, 1);
    case PRE_WORDS:
        return white_word(text, n);
    case PRE_METASPACE:
        return metaspace_word(text, n);
    case PRE_CLIP:
        return clip_word(text, n);
    case PRE_PUNCTUATION:
        return punctuation_word(text, n);
    case PRE_FALCON:
        return falcon_word(text, n);
    case PRE_BERT:
        return qp_bert_word(text, n);
    case PRE_O200K:
        return qp_cased_word(text, n, 3, true);
    case PRE_TEKKEN:
        return qp_cased_word(text, n, 1, false);
    case PRE_QWEN35:
        return qp_marked_word(text, n);
    case PRE_DEEPSEEK_LLM:
        return qp_deepseek_word(text, n, false);
    case PRE_DEEPSEEK_CODER:
        return qp_deepseek_word(text, n, true);
    case PRE_DEEPSEEK3:
        return qp_deepseek3_word(text, n);
    default:
        return n;
    }
}

size_t qp_pre_token_part(enum pre_tokenizer pre, const char *word, size_t n)
{
    assert(n > 0);
    return pre == PRE_FALCON ? falcon_part(word, n) : n;
}
