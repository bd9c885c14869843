/* json_pipeline.c: the steps of a tokenizer.json before and after its model -> rules of the blob.
 * In:  the parts "normalizer", "pre_tokenizer" and "decoder", and the flags of the model.
 * Out: bpe_spec, and the options of the SentencePiece proto. */
#include "convert/json.h"
#include "convert/tokenizer_import.h"
#include "tokenizer/pre_tokenizer.h"

#include <assert.h>
#include <string.h>

#define SYMBOL "\xe2\x96\x81" // U+2581

static bool has_text(const cJSON *object, const char *key, const char *text)
{
    return strcmp(qp_json_text(object, key), text) == 0;
}

/* Item i of a part; NULL after the last. A part is one object, or a Sequence with a list of
 * objects. */
static const cJSON *part_item(const cJSON *part, const char *list, int i)
{
    if (qp_json_has_type(part, "Sequence"))
        return cJSON_GetArrayItem(qp_json_item(part, list), i);
    return i == 0 ? part : NULL;
}

static quip_status refuse_part(const char *path, const char *what, const cJSON *item,
                               quip_error *error)
{
    const cJSON *pattern = qp_json_item(item, "pattern");
    return qp_fail(error, QUIP_E_UNSUPPORTED,
                   "%s: its %s has a step \"%.40s\" %.120s, which this version does not support",
                   path, what, qp_json_text(item, "type"),
                   *qp_json_text(pattern, "Regex") ? qp_json_text(pattern, "Regex")
                                                   : qp_json_text(pattern, "String"));
}

/* ---- the normalizer ---- */

static const struct {
    const char *type, *pattern_kind, *pattern, *content; // NULL: it has none
    enum text_step step;
} known_steps[] = {
    { "NFC", NULL, NULL, NULL, STEP_NFC },
    { "NFD", NULL, NULL, NULL, STEP_NFD },
    { "NFKC", NULL, NULL, NULL, STEP_NFKC },
    { "Lowercase", NULL, NULL, NULL, STEP_LOWER_CASE },
    { "StripAccents", NULL, NULL, NULL, STEP_STRIP_ACCENTS },
    { "Replace", "Regex", "\\s+", " ", STEP_SQUEEZE_WHITE },
    { "Replace", "Regex", " {2,}", " ", STEP_SQUEEZE_SPACES },
    { "Replace", "String", " ", SYMBOL, STEP_SPACE_SYMBOLS },
    { "Precompiled", NULL, NULL, NULL, STEP_CHARSMAP },
};

static int find_step(const cJSON *item)
{
    if (qp_json_has_type(item, "Prepend") && has_text(item, "prepend", SYMBOL))
        return STEP_PREPEND_SYMBOL;
    for (size_t i = 0; i < QP_COUNT(known_steps); i++) {
        if (!qp_json_has_type(item, known_steps[i].type))
            continue;
        if (!known_steps[i].pattern ||
            (has_text(item, "content", known_steps[i].content) &&
             has_text(qp_json_item(item, "pattern"), known_steps[i].pattern_kind,
                      known_steps[i].pattern)))
            return known_steps[i].step;
    }
    return 0;
}

static int base64_value(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *found = c ? strchr(digits, c) : NULL;
    return found ? (int)(found - digits) : -1;
}

static bool append_base64(struct bytes *out, const char *text)
{
    uint32_t bits = 0;
    int n_bits = 0;
    if (!qp_bytes_reserve(out, strlen(text)))
        return false;
    for (; base64_value(*text) >= 0; text++) {
        bits = bits << 6 | (uint32_t)base64_value(*text);
        n_bits += 6;
        if (n_bits >= 8) {
            n_bits -= 8;
            out->data[out->n++] = (uint8_t)(bits >> n_bits);
        }
    }
    return true;
}

static quip_status read_steps(struct vocabulary *v, const cJSON *normalizer, const char *path,
                              quip_error *error)
{
    const cJSON *item;
    for (int i = 0; (item = part_item(normalizer, "normalizers", i)); i++) {
        if (qp_json_has_type(item, "BertNormalizer")) {
            qp_json_bert_steps(&v->spec, item);
            continue;
        }
        int step = find_step(item);
        if (step == 0)
            return refuse_part(path, "normalizer", item, error);
        if (step == STEP_CHARSMAP &&
            !append_base64(&v->charsmap, qp_json_text(item, "precompiled_charsmap")))
            return qp_fail_memory(error, "the charsmap", 0);
        if (step == STEP_NFC && i == 0)
            v->spec.nfc = true;
        else if (v->spec.n_steps < MAX_TEXT_STEPS - 1)
            v->spec.steps[v->spec.n_steps++] = (uint8_t)step;
        else
            return qp_fail(error, QUIP_E_UNSUPPORTED, "%s: its normalizer has more than %d steps",
                           path, MAX_TEXT_STEPS - 1);
    }
    return QUIP_OK;
}

/* ---- the pre-tokenizer ---- */

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define AFTER_NUMBERS "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define UPPER_LOWER                                                                                \
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+"
#define UPPER                                                                                      \
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*"
#define FOLDED "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
#define AFTER_NUMBERS_SLASH "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
static const struct {
    const char *regex, *behavior;
    bool invert;
    enum pre_tokenizer pre;
} known_splits[] = {
    { CONTRACTIONS "\\p{N}{1,3}" AFTER_NUMBERS, "Isolated", false, PRE_LLAMA3 },
    { CONTRACTIONS "\\p{N}" AFTER_NUMBERS, "Isolated", false, PRE_QWEN2 },
    { UPPER_LOWER FOLDED "|" UPPER FOLDED "|\\p{N}{1,3}" AFTER_NUMBERS_SLASH, "Isolated", false,
      PRE_O200K },
    { UPPER_LOWER "|" UPPER "|\\p{N}" AFTER_NUMBERS_SLASH, "Isolated", false, PRE_TEKKEN },
    { "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}|"
      " ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
      "Isolated", false, PRE_QWEN35 },
    { "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+", "Removed", true, PRE_CLIP },
};

static enum pre_tokenizer find_split(const cJSON *split)
{
    for (size_t i = 0; i < QP_COUNT(known_splits); i++)
        if (qp_json_has_type(split, "Split") &&
            has_text(qp_json_item(split, "pattern"), "Regex", known_splits[i].regex) &&
            has_text(split, "behavior", known_splits[i].behavior) &&
            qp_json_flag(split, "invert", false) == known_splits[i].invert)
            return known_splits[i].pre;
    return PRE_NONE;
}

/* Punctuation, GPT-2's expression, digits, three digits. */
static bool is_falcon(const cJSON *pre)
{
    const cJSON *step[4];
    for (int i = 0; i < 4; i++)
        step[i] = part_item(pre, "pretokenizers", i);
    return qp_json_has_type(step[0], "Punctuation") &&
           has_text(step[0], "behavior", "Contiguous") && qp_json_has_type(step[1], "ByteLevel") &&
           qp_json_flag(step[1], "use_regex", true) && qp_json_has_type(step[2], "Digits") &&
           !qp_json_flag(step[2], "individual_digits", false) &&
           qp_json_has_type(step[3], "Split") &&
           has_text(qp_json_item(step[3], "pattern"), "Regex", "[0-9][0-9][0-9]") &&
           has_text(step[3], "behavior", "Isolated") && !qp_json_flag(step[3], "invert", false) &&
           !part_item(pre, "pretokenizers", 4);
}

/* Splits one after the other, then perhaps Digits, then ByteLevel. */
static const char letters_of_deepseek[] = ""; // qp_deepseek_is_letters
static const struct {
    const char *regex[6]; // ends with NULL
    bool has_digits;
    enum pre_tokenizer pre;
} known_sequences[] = {
    { { "[\r\n]", letters_of_deepseek, "\\s?[!-/:-~！-／：-～‘-‟　-。]+", "\\s+$",
        "[一-龥ࠀ-一가-퟿]+" },
      true,
      PRE_DEEPSEEK_LLM },
    { { "[\r\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", "[一-龥ࠀ-一가-퟿]+" },
      true,
      PRE_DEEPSEEK_CODER },
    { { "\\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
        "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?"
        "[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+" },
      false,
      PRE_DEEPSEEK3 },
};

static bool is_isolated_split(const cJSON *item, const char *regex)
{
    const char *found = qp_json_text(qp_json_item(item, "pattern"), "Regex");
    return qp_json_has_type(item, "Split") && has_text(item, "behavior", "Isolated") &&
           !qp_json_flag(item, "invert", false) &&
           (regex == letters_of_deepseek ? qp_deepseek_is_letters(found)
                                         : strcmp(found, regex) == 0);
}

static enum pre_tokenizer find_sequence(const cJSON *pre)
{
    for (size_t k = 0; k < QP_COUNT(known_sequences); k++) {
        int i = 0;
        while (known_sequences[k].regex[i] &&
               is_isolated_split(part_item(pre, "pretokenizers", i), known_sequences[k].regex[i]))
            i++;
        if (known_sequences[k].regex[i])
            continue;
        const cJSON *digits = part_item(pre, "pretokenizers", i);
        if (known_sequences[k].has_digits) {
            if (!qp_json_has_type(digits, "Digits") ||
                !qp_json_flag(digits, "individual_digits", false))
                continue;
            i++;
        }
        const cJSON *last = part_item(pre, "pretokenizers", i);
        if (qp_json_has_type(last, "ByteLevel") && !qp_json_flag(last, "use_regex", true) &&
            !qp_json_flag(last, "add_prefix_space", true) &&
            !part_item(pre, "pretokenizers", i + 1))
            return known_sequences[k].pre;
    }
    return PRE_NONE;
}

/* The pre-tokenizer of byte-level BPE, or PRE_NONE: ByteLevel alone, after Digits, or after a
 * Split by one of the known expressions; Falcon's and DeepSeek's. After another step, ByteLevel
 * would add a space to every part, not only to the first. */
static enum pre_tokenizer find_byte_level(const cJSON *pre, bool *add_prefix_space)
{
    const cJSON *first = part_item(pre, "pretokenizers", 0);
    const cJSON *second = part_item(pre, "pretokenizers", 1), *last = second ? second : first;
    if (is_falcon(pre))
        return qp_json_flag(second, "add_prefix_space", true) ? PRE_NONE : PRE_FALCON;
    if (part_item(pre, "pretokenizers", 2))
        return find_sequence(pre);
    if (!qp_json_has_type(last, "ByteLevel"))
        return PRE_NONE;
    const bool has_regex = qp_json_flag(last, "use_regex", true);
    const bool has_prefix = qp_json_flag(last, "add_prefix_space", true);
    *add_prefix_space = has_prefix && !second;
    if (!second)
        return has_regex ? PRE_GPT2 : PRE_NONE;
    if (has_prefix)
        return PRE_NONE;
    if (qp_json_has_type(first, "Digits") && qp_json_flag(first, "individual_digits", false) &&
        has_regex)
        return PRE_DIGITS_GPT2;
    enum pre_tokenizer split = has_regex ? PRE_NONE : find_split(first);
    return split == PRE_CLIP ? PRE_NONE : split;
}

static bool is_punctuation_sequence(const cJSON *pre)
{
    const cJSON *punctuation = part_item(pre, "pretokenizers", 1);
    const cJSON *digits = part_item(pre, "pretokenizers", 2);
    return qp_json_has_type(part_item(pre, "pretokenizers", 0), "WhitespaceSplit") &&
           qp_json_has_type(punctuation, "Punctuation") &&
           has_text(punctuation, "behavior", "Isolated") && qp_json_has_type(digits, "Digits") &&
           !qp_json_flag(digits, "individual_digits", false) && !part_item(pre, "pretokenizers", 3);
}

static enum symbol_prefix find_prefix(const cJSON *metaspace)
{
    if (has_text(metaspace, "prepend_scheme", "first"))
        return PREFIX_FIRST;
    bool is_always = *qp_json_text(metaspace, "prepend_scheme")
                         ? has_text(metaspace, "prepend_scheme", "always")
                         : qp_json_flag(metaspace, "add_prefix_space", true); // older files
    return is_always ? PREFIX_ALWAYS : PREFIX_NEVER;
}

/* XLM-RoBERTa and T5: words between white space, each with a space symbol before it. */
static bool is_word_sequence(const cJSON *pre)
{
    const cJSON *metaspace = part_item(pre, "pretokenizers", 1);
    return qp_json_has_type(part_item(pre, "pretokenizers", 0), "WhitespaceSplit") &&
           qp_json_has_type(metaspace, "Metaspace") && has_text(metaspace, "replacement", SYMBOL) &&
           qp_json_flag(metaspace, "split", true) && find_prefix(metaspace) == PREFIX_ALWAYS &&
           !part_item(pre, "pretokenizers", 2);
}

/* Whether a pre-tokenizer does nothing: a split on spaces after the normalizer has replaced them.
 */
static bool is_idle(const cJSON *pre)
{
    return !pre || (qp_json_has_type(pre, "Split") &&
                    has_text(qp_json_item(pre, "pattern"), "String", " "));
}

static quip_status read_text_pre(struct bpe_spec *spec, const cJSON *pre, const char *path,
                                 quip_error *error)
{
    const cJSON *only =
        part_item(pre, "pretokenizers", 1) ? NULL : part_item(pre, "pretokenizers", 0);
    bool has_symbols = spec->n_steps > 0 && spec->steps[spec->n_steps - 1] == STEP_SPACE_SYMBOLS;
    if (!pre || (has_symbols && is_idle(pre)))
        return QUIP_OK;
    if (qp_json_has_type(only, "Metaspace") && has_text(only, "replacement", SYMBOL)) {
        spec->pre = qp_json_flag(only, "split", true) ? PRE_METASPACE : PRE_NONE;
        spec->space_symbols = true;
        spec->prefix = find_prefix(only);
        return QUIP_OK;
    }
    if (find_split(only) == PRE_CLIP)
        spec->pre = PRE_CLIP;
    else if (qp_json_has_type(only, "BertPreTokenizer"))
        spec->pre = PRE_BERT;
    else if (is_punctuation_sequence(pre))
        spec->pre = PRE_PUNCTUATION;
    else if (is_word_sequence(pre))
        spec->pre = PRE_WORDS;
    else
        return refuse_part(path, "pre-tokenizer", only ? only : pre, error);
    return QUIP_OK;
}

/* ---- the decoder ---- */

/* Whether a step makes spaces of space symbols. */
static bool is_space_decoder(const cJSON *item)
{
    return (qp_json_has_type(item, "Metaspace") && has_text(item, "replacement", SYMBOL)) ||
           (qp_json_has_type(item, "Replace") && has_text(item, "content", " ") &&
            has_text(qp_json_item(item, "pattern"), "String", SYMBOL));
}

/* The steps have one order in which each does what its name says: ByteFallback before the pieces
 * are joined (Fuse), Strip after that and behind the step that makes spaces. */
static quip_status read_decoder(struct bpe_spec *spec, const cJSON *decoder, bool has_bytes,
                                const char *path, quip_error *error)
{
    const cJSON *item, *strip;
    bool joins_bytes = false, has_spaces = false, is_joined = false, is_stripped = false;
    spec->joining = decoder ? JOIN_SYMBOLS : JOIN_SPACED;
    for (int i = 0; (item = part_item(decoder, "decoders", i)); i++) {
        bool is_strip = qp_json_has_type(item, "Strip") && has_text(item, "content", " ") &&
                        (strip = qp_json_item(item, "start")) && strip->valueint == 1 &&
                        (strip = qp_json_item(item, "stop")) && strip->valueint == 0;
        if (is_strip && has_spaces && is_joined && !is_stripped) {
            spec->joining = JOIN_DROP_ONE;
            is_stripped = true;
        } else if (qp_json_has_type(item, "WordPiece") && has_text(item, "prefix", spec->continues))
            spec->joining =
                qp_json_flag(item, "cleanup", true) ? JOIN_WORDPIECE : JOIN_WORDPIECE_PLAIN;
        else if (is_space_decoder(item) && !is_stripped) {
            has_spaces = true;
            if (qp_json_has_type(item, "Metaspace") && find_prefix(item) != PREFIX_NEVER)
                spec->joining = JOIN_DROP_IN_FIRST;
        } else if (qp_json_has_type(item, "ByteFallback") && !is_joined)
            joins_bytes = true;
        else if (qp_json_has_type(item, "Fuse"))
            is_joined = true;
        else
            return refuse_part(path, "decoder", item, error);
    }
    const char *missing = has_bytes && !joins_bytes                      ? "ByteFallback"
                          : spec->joining == JOIN_SYMBOLS && !has_spaces ? "Metaspace"
                                                                         : NULL;
    return missing
               ? qp_fail(error, QUIP_E_UNSUPPORTED,
                         "%s: its decoder has no step \"%s\", so it would show pieces as they are "
                         "spelled",
                         path, missing)
               : QUIP_OK;
}

/* Byte-level BPE: the letters of its pieces stand for bytes, in both directions. */
static quip_status check_byte_level(const struct vocabulary *v, const cJSON *json, const char *path,
                                    quip_error *error)
{
    const cJSON *decoder = qp_json_item(json, "decoder"), *model = qp_json_item(json, "model");
    if (*v->spec.continues || *v->spec.ends)
        return qp_fail(
            error, QUIP_E_UNSUPPORTED,
            "%s: byte-level pieces with a subword prefix or word suffix are not supported", path);
    if (qp_json_flag(model, "byte_fallback", false) &&
        qp_json_item(qp_json_item(model, "vocab"), "<0x00>"))
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s: its model has byte_fallback beside a pre-tokenizer \"ByteLevel\"; only "
                       "one of them is supported",
                       path);
    if (!qp_json_has_type(part_item(decoder, "decoders", 0), "ByteLevel") ||
        part_item(decoder, "decoders", 1))
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s: its decoder is not \"ByteLevel\" alone, as its pre-tokenizer is, so it "
                       "would show pieces as they are spelled",
                       path);
    return QUIP_OK;
}

/* ---- the whole ---- */

/* Whether SentencePiece begins a new text after the token: it becomes a control piece
 * (mark_controls). */
static bool is_usual_control(const cJSON *added)
{
    static const char *const names[] = { "<unk>", "<s>", "</s>", "<pad>", "<bos>", "<eos>" };
    for (size_t i = 0; i < QP_COUNT(names); i++)
        if (has_text(added, "content", names[i]))
            return true;
    return false;
}

/* Whether SentencePiece's flags can express the tokenizer: BPE over text whose spaces are U+2581,
 * with or without one before the text, and added tokens that are found everywhere. */
static bool is_sentencepiece(const struct vocabulary *v, const cJSON *json)
{
    const struct bpe_spec *spec = &v->spec;
    bool has_steps =
        !spec->nfc && spec->n_steps > 0 && spec->steps[spec->n_steps - 1] == STEP_SPACE_SYMBOLS &&
        (spec->n_steps == 1 || (spec->n_steps == 2 && spec->steps[0] == STEP_PREPEND_SYMBOL));
    const bool has_prefix = has_steps && spec->steps[0] == STEP_PREPEND_SYMBOL;
    struct bpe_spec decoder = { .continues = "" };
    if (v->is_own_bpe || !v->options.is_bpe || !has_steps || spec->ignore_merges ||
        *spec->continues || *spec->ends || !is_idle(qp_json_item(json, "pre_tokenizer")) ||
        read_decoder(&decoder, qp_json_item(json, "decoder"), v->options.byte_fallback, "", NULL) ||
        decoder.joining != (has_prefix ? JOIN_DROP_ONE : JOIN_SYMBOLS))
        return false;
    const cJSON *added = qp_json_item(json, "added_tokens");
    for (const cJSON *i = added ? added->child : NULL; i; i = i->next)
        if (qp_json_flag(i, "normalized", false) || qp_json_flag(i, "lstrip", false) ||
            qp_json_flag(i, "rstrip", false) || qp_json_flag(i, "single_word", false) ||
            strchr(qp_json_text(i, "content"), ' ') || has_text(i, "content", SYMBOL) ||
            (has_prefix && !is_usual_control(i)))
            return false;
    return true;
}

quip_status qp_json_pipeline(struct vocabulary *v, const cJSON *json, const char *path,
                             quip_error *error)
{
    const cJSON *model = qp_json_item(json, "model"), *pre = qp_json_item(json, "pre_tokenizer");
    struct bpe_spec *spec = &v->spec;
    assert(spec->n_steps == 0 && !v->has_blob); // a new vocabulary
    quip_status status = read_steps(v, qp_json_item(json, "normalizer"), path, error);
    if (status)
        return status;
    spec->ignore_merges = qp_json_flag(model, "ignore_merges", false);
    spec->continues = qp_json_text(model, "continuing_subword_prefix");
    spec->ends = qp_json_text(model, "end_of_word_suffix");
    spec->max_word_chars = qp_json_max_word_chars(model);
    spec->pre = v->options.is_bpe ? find_byte_level(pre, &spec->add_prefix_space) : PRE_NONE;
    v->has_blob = spec->pre != PRE_NONE;
    if (v->has_blob)
        return check_byte_level(v, json, path, error);
    v->options.escape_whitespaces = true;
    v->options.byte_fallback = qp_json_flag(model, "byte_fallback", false);
    v->options.add_dummy_prefix = spec->n_steps > 0 && spec->steps[0] == STEP_PREPEND_SYMBOL;
    if (is_sentencepiece(v, json))
        return QUIP_OK;
    v->has_blob = spec->is_text = true;
    spec->fuse_unknown = qp_json_flag(model, "fuse_unk", false);
    if ((status = read_text_pre(spec, pre, path, error)))
        return status;
    v->options.add_dummy_prefix |= spec->prefix != PREFIX_NEVER || spec->pre == PRE_WORDS;
    v->options.remove_extra_whitespaces = spec->pre == PRE_WORDS;
    return read_decoder(spec, qp_json_item(json, "decoder"), v->options.byte_fallback, path, error);
}
