/* text_steps.c: changes of a text before it is divided into words; a tokenizer.json calls them its
 * normalizers.
 * In:  a section of a text, valid UTF-8, and the steps of the blob.
 * Out: the text after all steps, in order. */
#include "tokenizer/tokenizer_impl.h"
#include "tokenizer/unicode.h"

static bool strip_accents(const char *text, size_t n, struct bytes *out)
{
    for (size_t i = 0, length; i < n; i += length) {
        int32_t c;
        length = (size_t)qp_utf8_decode(text + i, n - i, &c);
        if (!qp_run_value(qp_accent_runs, qp_n_accent_runs, 1, (uint32_t)c) &&
            !qp_bytes_append(out, text + i, length))
            return false;
    }
    return true;
}

static bool squeeze_white(const char *text, size_t n, struct bytes *out)
{
    bool was_white = false;
    for (size_t i = 0, length; i < n; i += length) {
        bool is_white = qp_char_class(text + i, n - i, &length) == CHAR_SPACE;
        if (is_white ? !was_white && !qp_bytes_append(out, " ", 1)
                     : !qp_bytes_append(out, text + i, length))
            return false;
        was_white = is_white;
    }
    return true;
}

static bool squeeze_spaces(const char *text, size_t n, struct bytes *out)
{
    for (size_t i = 0; i < n; i++)
        if ((text[i] != ' ' || i == 0 || text[i - 1] != ' ') && !qp_bytes_append(out, text + i, 1))
            return false;
    return true;
}

static bool prepend_symbol(const char *text, size_t n, struct bytes *out)
{
    return n == 0 || (qp_bytes_append(out, SPACE_SYMBOL, SPACE_SYMBOL_BYTES) &&
                      qp_bytes_append(out, text, n));
}

bool qp_append_space_symbols(const char *text, size_t n, struct bytes *out)
{
    for (size_t i = 0; i < n; i++)
        if (!(text[i] == ' ' ? qp_bytes_append(out, SPACE_SYMBOL, SPACE_SYMBOL_BYTES)
                             : qp_bytes_append(out, text + i, 1)))
            return false;
    return true;
}

static bool apply_step(const struct tokenizer *t, enum text_step step, const char *text, size_t n,
                       struct bytes *out)
{
    switch (step) {
    case STEP_NFC:
        return qp_unicode_form(text, n, FORM_C, out);
    case STEP_NFD:
        return qp_unicode_form(text, n, FORM_D, out);
    case STEP_NFKC:
        return qp_unicode_form(text, n, FORM_KC, out);
    case STEP_LOWER_CASE:
        return qp_lower_case(text, n, out);
    case STEP_STRIP_ACCENTS:
        return strip_accents(text, n, out);
    case STEP_SQUEEZE_WHITE:
        return squeeze_white(text, n, out);
    case STEP_SQUEEZE_SPACES:
        return squeeze_spaces(text, n, out);
    case STEP_PREPEND_SYMBOL:
        return prepend_symbol(text, n, out);
    case STEP_SPACE_SYMBOLS:
        return qp_append_space_symbols(text, n, out);
    case STEP_CHARSMAP:
        return qp_charsmap_apply(&t->normalizer, text, n, out);
    case STEP_BERT_CLEAN:
        return qp_bert_clean(text, n, out);
    case STEP_BERT_CHINESE:
        return qp_bert_space_chinese(text, n, out);
    case STEP_BERT_ACCENTS:
        return qp_bert_strip_accents(text, n, out);
    }
    return qp_bytes_append(out, text, n);
}

bool qp_text_steps(const struct tokenizer *t, bool is_more, struct bytes *text)
{
    struct bytes after = { 0 };
    bool ok = true;
    for (const uint8_t *step = t->rules->steps; ok && *step; step++) {
        if (is_more && *step == STEP_PREPEND_SYMBOL)
            continue;
        after.n = 0;
        ok = apply_step(t, (enum text_step) * step, (const char *)text->data, text->n, &after);
        struct bytes swapped = *text;
        *text = after;
        after = swapped;
    }
    qp_bytes_close(&after);
    return ok;
}
